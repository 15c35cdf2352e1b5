"""docs/conformance.md from one command: which identities hold for the samplers of other libraries.

    pip install diffusers torch hypothesis
    python demo/conformance/report.py
    python demo/conformance/report.py --examples 10 --out page.md

A library that is not installed is named as such. For each identity that fails, the page has the smallest example and
what becomes of a Gaussian: the variance of the samples, beside that of the recursion which the sampler claims to be.
"""

import argparse
import contextlib
import datetime
import importlib
import io
import time
from pathlib import Path

import numpy as np

from tinyddpm.properties import IDENTITIES, check
from tinyddpm.properties.chains import recursion_variance, sampled_variance

LIBRARIES = ("for_diffusers", "for_smalldiffusion", "for_k_diffusion")
STEPS, VARIANCE = 20, 0.25


def section(module, examples):
    """The page's part about one library: lines."""
    lines = [
        f"## {module.NAME} {module.VERSION}",
        "",
        "| sampler | hold | fail | not checked | variance | its recursion |",
    ]
    lines += ["|---|---|---|---|---|---|"]
    failures = []
    for adapter in module.adapters():
        start = time.process_time()
        report = check(adapter, examples)
        failed = [result for result in report.results if result.status in ("fails", "mistake")]
        counts = [len(report.names("holds")), len(failed), len(report.names("not checked"))]
        lines.append(f"| {adapter!r} | {' | '.join(map(str, [*counts, *variances(adapter)]))} |")
        failures += [(adapter, result) for result in failed]
        print(f"{adapter!r}: {counts}, {time.process_time() - start:.1f} s")
    for adapter, result in failures:
        lines += ["", f"**{result.identity.name}** of `{adapter!r}`: {result.identity.statement}.", "", "```"]
        lines += [f"smallest example: {str(result.example).partition(' for ')[0]}", shortened(result.words), "```"]
    for title, code in getattr(module, "FINDINGS", {}).items():
        lines += ["", f"### {title}", "", "```python", code.strip(), "```", "", f"prints `{printed(code)}`."]
    return [*lines, ""]


def variances(adapter):
    """The variance of x_0 from Gaussian data of the variance VARIANCE in STEPS steps, and what its recursion gives."""
    found = []
    for variance in (sampled_variance, recursion_variance):
        try:
            with np.errstate(all="ignore"):
                found.append(f"{variance(adapter.with_steps(STEPS), VARIANCE):.5f}")
        except NotImplementedError:
            found.append("-")
    return found


def shortened(words, most=300):
    return words if len(words) <= most else words[:most] + " ..."


def printed(code):
    """What a few lines print that use the library alone."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return out.getvalue().strip()


def main():
    parser = argparse.ArgumentParser(description="Check the samplers of other libraries, and write the page about it.")
    parser.add_argument("--examples", default=100, type=int, help="for each identity (default 100)")
    parser.add_argument("--out", default=Path(__file__).parents[2] / "docs/conformance.md", type=Path)
    arguments = parser.parse_args()
    lines = [
        "# Conformance",
        "",
        f"Written by `python demo/conformance/report.py` on {datetime.date.today()}, {arguments.examples} examples each: "
        f"the {len(IDENTITIES)} identities of `tinyddpm.properties` on the samplers of other libraries. Each sampler is "
        "held to what its documentation claims; the adapters in `demo/conformance/` say what that is. *variance* is that of "
        f"the samples in {STEPS} steps, with the ideal model of data N(0, {VARIANCE}); its recursion is the same in "
        "float64, written out from the equations.",
        "",
    ]
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            lines += [f"## {name.removeprefix('for_')}", "", f"Not checked: {error}.", ""]
            continue
        lines += section(module, arguments.examples)
    arguments.out.write_text("\n".join(lines), "utf-8")
    print(arguments.out)


if __name__ == "__main__":
    main()
