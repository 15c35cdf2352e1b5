"""Where pip cannot install: let .venv use what is installed beside the Python that runs this.

    python tools/offline.py .venv demo,test

The Makefile does this where no package index answers.
Succeeds if that is all which setup.py asks for with those extras, and otherwise names what is missing.
"""

import ast
import re
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras):
    """What setup.py asks for, like ["numpy>=2", ...], with the named extras."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text("utf-8"))) if is_setup(node)]
    given = {keyword.arg: keyword.value for keyword in calls[0].keywords}
    always, optional = ast.literal_eval(given["install_requires"]), ast.literal_eval(given["extras_require"])
    return always + [requirement for extra in extras for requirement in optional[extra]]


def is_setup(node):
    return isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"


def what_is_wrong(requirement):
    """Why NAME>=VERSION does not hold here, or None."""
    name, least = requirement.split(">=")
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{requirement} is not installed"
    numbers = [[int(n) for n in re.findall(r"\d+", version)[:3]] for version in (found, least)]
    return f"{requirement} is installed as {found}" if numbers[0] < numbers[1] else None


def main(venv, extras):
    wrong = [reason for line in requirements(extras.split(",")) if (reason := what_is_wrong(line))]
    if wrong:
        sys.exit("\n".join([f"pip could not install, and beside {sys.executable}:", *wrong, ADVICE]))
    places = [ROOT, *(place for place in sys.path if place.endswith(("site-packages", "dist-packages")))]
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(Path(venv).resolve())}))
    (packages / "beside.pth").write_text("".join(f"{place}\n" for place in places))
    print(f"Using the packages beside {sys.executable}. The command is `{venv}/bin/python -m tinyddpm`.")


ADVICE = "Connect to a network, or name a Python that has them: make PYTHON=/path/to/python"

if __name__ == "__main__":
    main(*sys.argv[1:])
