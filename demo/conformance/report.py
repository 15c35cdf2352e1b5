"""docs/conformance.md from one command: which identities hold for the samplers of other libraries.

    pip install diffusers accelerate smalldiffusion k-diffusion denoising-diffusion-pytorch azula flow-matching flaxdiff
    python demo/conformance/report.py
    python demo/conformance/report.py --only azula --examples 10 --out page.md

k-diffusion needs dctorch, which asks for NumPy 1; `pip install --no-deps` both, and what they import.

Each library has a section of the page, which is replaced. A library that is not installed is named as such. For each
identity that fails, the page has the smallest example and what becomes of a Gaussian: the variance of the samples,
beside that of the recursion which the sampler claims to be. Every failure belongs to a finding, whose lines are run.
"""

import argparse
import contextlib
import datetime
import importlib
import io
import os
import re
import time
from pathlib import Path

import numpy as np

from tinyddpm.properties import IDENTITIES, check
from tinyddpm.properties.chains import recursion_variance, sampled_variance

LIBRARIES = (
    "diffusers",
    "denoising_diffusion_pytorch",
    "k_diffusion",
    "smalldiffusion",
    "azula",
    "flow_matching",
    "flaxdiff",
)
STEPS, VARIANCE = 20, 0.25
HEAD = f"""# Conformance

The {len(IDENTITIES)} identities of `tinyddpm.properties` on the samplers of other libraries, as `python
demo/conformance/report.py` writes it. Each sampler is held to what its documentation claims; the adapters in
`demo/conformance/` say what that is, and the orders of convergence are the adapters' own claims. *variance* is that of
the samples in {STEPS} steps, or in those that the name says where the code has no grid of its own, with the ideal model
of data N(0, {VARIANCE}); *its recursion* is the same in float64, written out from the equations. Every failure belongs
to one of the findings below it, each shown by lines that use that library alone.
"""


def section(module, examples):
    """The page's part about one library: lines."""
    head = "| sampler | hold | fail | not checked | variance | its recursion |"
    lines = [f"{datetime.date.today()}, {examples} examples for each identity.", "", head, "|---|---|---|---|---|---|"]
    failures = []
    for adapter in module.adapters():
        start = time.process_time()
        report = check(adapter, examples)
        failed = [result for result in report.results if result.status in ("fails", "mistake")]
        counts = [len(report.names("holds")), len(failed), len(report.names("not checked"))]
        lines.append(f"| {adapter!r} | {' | '.join(map(str, [*counts, *variances(adapter)]))} |")
        failures += [f"\n`{adapter!r}`:\n"] * bool(failed) + [f"- {one_line(result)}" for result in failed]
        print(f"{adapter!r}: {counts}, {time.process_time() - start:.1f} s", flush=True)
    lines += failures
    for title, code in getattr(module, "FINDINGS", {}).items():
        lines += ["", f"### {title}", "", "```python", code.strip(), "```", "", f"prints `{printed(code)}`."]
    return lines


def variances(adapter):
    """The variance of x_0 from Gaussian data of the variance VARIANCE, and what its recursion gives."""
    try:
        adapter = adapter.with_steps(STEPS)
    except NotImplementedError:
        if len(adapter.alpha_bar) > STEPS + 1:
            return ["-", "-"]
    found = []
    for variance in (sampled_variance, recursion_variance):
        try:
            with np.errstate(all="ignore"):
                found.append(f"{variance(adapter, VARIANCE):.5f}")
        except NotImplementedError:
            found.append("-")
        except Exception as error:
            found.append(type(error).__name__)
    return found


def one_line(result, most=200):
    if result.example is None:
        return f"**{result.identity.name}**: in its first runs only."
    example, words = str(result.example).partition(" for ")[0], result.words
    words = words if len(words) <= most else words[:most] + " ..."
    return f"**{result.identity.name}**: at {example} it {words}."


def printed(code):
    """What a few lines print that use the library alone, or the error that ends them."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(code, {})
    except Exception as error:
        return f"{out.getvalue()}{type(error).__name__}: {error}".strip()
    return " ".join(out.getvalue().split())


def put(page, name, version, lines):
    """Replace the section `name` of the page, or add it at the end; other sections stay as they are."""
    text = page.read_text("utf-8") if page.exists() else ""
    sections = [one.rstrip() for one in re.split(r"(?m)^(?=## )", text)][1:]
    new, written = "\n".join([f"## {name} {version}".rstrip(), "", *lines]), False
    for i, one in enumerate(sections):
        if one.startswith(f"## {name}"):
            sections[i], written = new, True
    sections += [] if written else [new]
    page.write_text("\n".join([HEAD, *(f"{one}\n" for one in sections)]), "utf-8")


def main():
    parser = argparse.ArgumentParser(description="Check the samplers of other libraries, and write the page about it.")
    parser.add_argument("--examples", default=100, type=int, help="for each identity (default 100)")
    parser.add_argument("--only", choices=LIBRARIES, help="one library's section")
    parser.add_argument("--out", default=Path(__file__).parents[2] / "docs/conformance.md", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")  # before a library imports it
    for name in [arguments.only] if arguments.only else LIBRARIES:
        try:
            module = importlib.import_module(f"for_{name}")
        except ImportError as error:
            put(arguments.out, name.replace("_", "-"), "", [f"Not checked: {error}."])
            continue
        put(arguments.out, module.NAME, module.VERSION, section(module, arguments.examples))
    print(arguments.out)


if __name__ == "__main__":
    main()
