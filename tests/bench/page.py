"""How fast the page is in Chromium, and pictures of it: prints a table of Markdown. First `make page` and `make page SINGLE=1`.

python tests/bench/page.py                               # about a minute
python tests/bench/page.py --seconds 240 --shots docs/page   # trains for longer, and keeps a picture of each panel
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for browser.py
import browser

ROOT = Path(__file__).parents[2]
SITE, SINGLE = ROOT / "out" / "page", ROOT / "out" / "tinyddpm.html"
WIDE, PHONE = {"width": 1200, "height": 1000}, {"width": 390, "height": 844}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="how long to train in each of the two panels")
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the panels")
    options = parser.parse_args()
    with browser.chromium() as chromium, browser.served(SITE) as address:
        rows = size_rows() + measured(browser.opened(chromium, address, viewport=WIDE), options)
        print(f"Chromium {chromium.version}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        if options.shots:
            page = browser.opened(chromium, address, viewport=PHONE, color_scheme="dark")
            page.wait_for_timeout(10_000)  # the curves by t
            shot(page, "telephone", options.shots)
    print("| what | by the clock | of the worker's thread |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def size_rows():
    """What has to be loaded, of the site and of the single file."""
    first = [path for path in SITE.rglob("*") if path.is_file() and not path.name.startswith(("hypothesis", "sorted"))]
    whole = [path for path in SITE.rglob("*") if path.is_file()]
    names = "loaded until ready, MB", "with what Check loads, MB", "single file, MB"
    sizes = [sum(path.stat().st_size for path in paths) / 1e6 for paths in (first, whole, [SINGLE])]
    return [(name, f"{size:.1f}", "") for name, size in zip(names, sizes, strict=True)]


def measured(page, options):
    """Rows of the table: the time to ready, and milliseconds a step, by the clock and of the worker's own."""
    ready = float(page.evaluate("document.body.dataset.ready")) / 1000
    rows = [("time to ready, s", f"{ready:.1f}", f"{worker_seconds():.1f}")]
    page.wait_for_timeout(10_000)  # the curves by t
    shot(page, "scrub", options.shots)
    page.click("#tab-sample")
    page.select_option("#sample [name=label]", "3")
    for n, sampler in ((1, "ddim"), (1, "ancestral"), (9, "ddim")):
        page.fill("#sample [name=n]", str(n))
        page.select_option("#sample [name=sampler]", sampler)
        before = worker_seconds()
        browser.run_to_its_end(page, "sample")
        own = (worker_seconds() - before) / int(page.input_value("#sample [name=steps]"))
        rows.append((f"a step of sampling, {n} of 14x14, {sampler}, ms", said(page, "sample", -4), f"{1000 * own:.0f}"))
    shot(page, "sample", options.shots)
    for panel, what in (("points", "256 points, with their flow"), ("digits", "16 digits")):
        page.click(f"#tab-{panel}")
        before = worker_seconds()
        page.click(f"#{panel} .go")
        page.wait_for_timeout(1000 * options.seconds)
        own = (worker_seconds() - before) / int(said(page, panel, 0))
        rows.append((f"a step of training, {what}, ms", said(page, panel, -3), f"{1000 * own:.0f}"))
        if panel == "points":
            page.uncheck("#plane-plays")
            page.fill("#plane-at", "19")
        shot(page, panel, options.shots)
        page.click(f"#{panel} .stop")
        page.wait_for_selector(f"#{panel} .go:not(:disabled)")
    page.click("#tab-check")
    page.select_option("#fault", "noise at the last step")
    browser.run_to_its_end(page, "check")
    shot(page, "check", options.shots)
    return rows


def worker_seconds():
    """Seconds of a processor that Chromium's workers have had: what the clock would say on a quiet machine. Linux only."""
    total = 0
    for task in Path("/proc").glob("[0-9]*/task/*/stat"):
        with contextlib.suppress(OSError):
            name, _, numbers = task.read_text("utf-8").partition(") ")
            if name.endswith("(DedicatedWorker"):
                total += sum(map(int, numbers.split()[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def said(page, panel, place):
    """A word of what a panel says: a number."""
    return page.inner_text(f"#{panel} .said").split()[place]


def shot(page, name, folder):
    """A picture of the page as it is, of at most 256 colours."""
    if folder:
        from PIL import Image

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.png"
        page.screenshot(path=path, full_page=name == "telephone")
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
