"""Build the page: a folder of static files, or one HTML file that opens from a disk. `make page`, `make page SINGLE=1`.

    python demo/page/build.py             # out/page; then: python -m http.server -d out/page
    python demo/page/build.py --single    # out/tinyddpm.html

Every file of others is checked by its SHA-256 here (bits.py), and again, with the project's own, when a browser loads it.
"""

import argparse
import base64
import gzip
import hashlib
import inspect
import io
import json
import pkgutil
import shutil
import sys
import zipfile
from html import escape
from pathlib import Path

from bits import collect
from faults import FAULTS
from readings import READINGS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LATER = "hypothesis", "sortedcontainers"  # wheels that only the checks need


def build(out, found, checkpoint, single=False):
    """Write the page into the folder `out`, or, `single`, as the file `out`. Returns the path of its HTML file.

    found: {name: path} of the files of others, as bits.py collects them. checkpoint: the path of the model.
    """

    def placed(name, content):
        """Where the page finds these bytes, compressed: in a file of their own, or in the page."""
        packed = gzip.compress(content, 9, mtime=0)
        integrity = "sha256-" + base64.b64encode(hashlib.sha256(packed).digest()).decode()
        if single:
            return {"url": data_url("application/gzip", packed), "integrity": integrity}
        (out / "bits" / f"{name}.bin").write_bytes(packed)
        return {"url": f"bits/{name}.bin", "integrity": integrity}

    def linked(path):
        """Where the page finds a module."""
        if single:
            return data_url("text/javascript", path.read_bytes())
        shutil.copy(path, out)
        return f"./{path.name}"

    (out.parent if single else out / "bits").mkdir(parents=True, exist_ok=True)
    files = {name: placed(name, path.read_bytes()) for name, path in found.items()}
    wheels = [name for name in files if name.endswith(".whl")]
    table = {
        "core": {name: files[name] for name in files if name not in wheels},
        "archives": [files[name] for name in wheels if not name.startswith(LATER)],
        "checker": [files[name] for name in wheels if name.startswith(LATER)],
    }
    table["archives"].append(placed("project.zip", project_archive(checkpoint)))
    table["worker"] = linked(HERE / "worker.js")
    modules = {f"page/{path.stem}": linked(path) for path in sorted(HERE.glob("*.js")) if path.stem != "worker"}
    page = out if single else out / "index.html"
    page.write_text(html(table, modules), "utf-8")
    return page


def data_url(kind, content):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def project_archive(checkpoint):
    """A zip of the project's packages, the Python of the page, and the checkpoint; always the same for the same files."""
    packages = [*(ROOT / "nn").rglob("*.py"), *(ROOT / "tinyddpm").rglob("*.py")]
    members = {path.relative_to(ROOT): path for path in packages}
    members |= {Path(path.name): path for path in HERE.glob("*.py")}
    members |= {Path("digits.npz"): checkpoint, Path("examples.npy"): checkpoint.with_name("examples.npy")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name.as_posix()), members[name].read_bytes())
    return buffer.getvalue()


def html(table, modules):
    """index.html with what belongs into it: style, modules, table of files, and the project's source."""
    parts = {
        "style": f"<style>\n{(HERE / 'style.css').read_text('utf-8')}</style>",
        "modules": f'<script type="importmap">{json.dumps({"imports": modules})}</script>',
        "adapter": held("adapter", (HERE / "adapter.py").read_text("utf-8")),
        "faults": held("faults", json.dumps(FAULTS)),
        "files": held("files", json.dumps(table)),
    }
    for panel, names in READINGS.items():
        parts[f"read {panel}"] = "".join(reading(*one, "" if i else " open") for i, one in enumerate(names))
    page = (HERE / "index.html").read_text("utf-8")
    for name, part in parts.items():
        mark = f"<!-- build: {name} -->"
        if page.count(mark) != 1:
            raise ValueError(f"index.html must have {mark!r} once, has it {page.count(mark)} times")
        page = page.replace(mark, part)
    return page


def held(name, text):
    """A text that the page keeps for its modules, which find it by its name."""
    if "</script" in text:
        raise ValueError(f"{name} would end the script element that holds it")
    return f'<script type="text/plain" id="{name}">\n{text}</script>'


# ---- the project's source, as it stands in the repository ----


def reading(name, equation, state=""):
    """The HTML of a `details`, folded or " open", with the source of `name` under its equation."""
    source, path, line = source_of(name)
    return (
        f'<details{state}><summary><span class="equation">{equation}</span> <code>{name.split(":")[1]}</code></summary>'
        f'<p class="where">{path}, line {line}</p><pre tabindex="0"><code>{escape(source)}</code></pre></details>'
    )


def source_of(name):
    """(source, path in the repository, first line) of "tinyddpm.forward:q_sample", or of a class or a method."""
    value = inspect.unwrap(pkgutil.resolve_name(name))
    lines, first = inspect.getsourcelines(value)
    return "".join(lines), Path(inspect.getsourcefile(value)).relative_to(ROOT).as_posix(), first


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--single", action="store_true", help="one file with all in it")
    parser.add_argument("--out", type=Path, help="a folder (default out/page), or the single file (out/tinyddpm.html)")
    parser.add_argument("--bits", type=Path, default=ROOT / "out" / "bits", help="a folder that has or gets the files")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "digits.npz", help="the model (default digits.npz)")
    options = parser.parse_args()
    out = options.out or ROOT / "out" / ("tinyddpm.html" if options.single else "page")
    try:
        page = build(out, collect(options.bits), options.checkpoint, options.single)
    except RuntimeError as error:
        sys.exit(f"make page: {error}")
    size = sum(path.stat().st_size for path in ([out] if options.single else out.rglob("*")))
    print(f"{page}: {size / 1e6:.1f} MB" + ("" if options.single else f"; see it by: python3 -m http.server -d {out}"))


if __name__ == "__main__":
    main()
