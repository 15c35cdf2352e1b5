"""Setting up without a network: what is there is used, what is not is named."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "offline.py"


@pytest.fixture
def offline():
    spec = importlib.util.spec_from_file_location("offline", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_requirements_are_those_of_setup_py(offline):
    assert offline.requirements([]) == ["numpy>=2", "threadpoolctl>=3"]
    assert {"matplotlib>=3.8", "pytest>=8"} <= set(offline.requirements(["demo", "test"]))


def test_what_is_missing_or_too_old_is_named(offline, monkeypatch):
    installed = {"new": "2.10.1", "same": "2.9", "old": "2.8.9", "local": "2.13.0+cpu"}
    monkeypatch.setattr(offline.metadata, "version", lambda name: installed[name])
    for name in ("new", "same", "local"):
        assert offline.what_is_wrong(f"{name}>=2.9") is None
    assert offline.what_is_wrong("old>=2.9") == "old>=2.9 is installed as 2.8.9"
    monkeypatch.undo()
    assert offline.what_is_wrong("no-such-package>=1") == "no-such-package>=1 is not installed"


def test_the_new_environment_finds_what_is_beside_this_python(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    subprocess.run([sys.executable, TOOL, tmp_path / "venv", "test"], check=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    code = "import numpy, pytest, tinyddpm; print(tinyddpm.__file__)"
    found = subprocess.check_output([python, "-c", code], cwd=tmp_path, text=True)
    assert Path(found.strip()) == TOOL.parent.parent / "tinyddpm" / "__init__.py"
