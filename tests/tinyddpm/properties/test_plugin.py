"""The plugin of pytest and the command: each identity by itself, and a status that says whether all hold."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from subprocesses import run_python

from tinyddpm.program.cli import main
from tinyddpm.properties import IDENTITIES

ROOT = Path(__file__).resolve().parents[3]
ADAPTERS = """
    import numpy as np
    from tinyddpm import NoiseSchedule
    from tinyddpm.properties import Adapter

    class Right(Adapter):
        alpha_bar = NoiseSchedule.linear(5).alpha_bar

        def q_sample(self, x0, t, noise):
            return self.alpha_bar[t] ** 0.5 * x0 + (1 - self.alpha_bar[t]) ** 0.5 * noise

    class Wrong(Right):
        def q_sample(self, x0, t, noise):
            return self.alpha_bar[t] ** 0.5 * x0 + (1 - self.alpha_bar[t]) * noise

    def both():
        return [Right(), Wrong()]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine_for_the_plugin.py").write_text(textwrap.dedent(ADAPTERS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_for_the_plugin", raising=False)
    return tmp_path


def pytest_in(folder, *arguments):
    """What pytest prints there, with this plugin and that of hypothesis and no others."""
    plugins = ["-p", "tinyddpm.properties.plugin", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider"]
    plugins += ["--hypothesis-profile", "default"]  # hypothesis has another where it finds itself in CI
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"}
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", *plugins, *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_a_decorated_test_is_one_for_each_identity_and_the_fault_is_named(folder):
    lines = """
        from mine_for_the_plugin import Right, Wrong
        from tinyddpm.properties import diffusion_identities

        @diffusion_identities(Right())
        def test_right(): ...

        @diffusion_identities(Wrong(), max_examples=30)
        def test_wrong(): ...
    """
    (folder / "test_mine.py").write_text(textwrap.dedent(lines))
    done = pytest_in(folder)
    assert done.returncode == 1, done.stdout
    assert f"1 failed, 5 passed, {2 * len(IDENTITIES) - 6} skipped" in done.stdout
    assert "test_wrong[E2 marginal]" in done.stdout and "case=Case(" in done.stdout
    assert "the adapter has no method for it" in done.stdout
    assert (folder / ".hypothesis" / "examples").exists()  # hypothesis keeps the failure, and tries it first again


def test_the_example_of_the_readme_passes(folder):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "diffusion_identities" in block]
    (folder / "test_mine.py").write_text("import numpy as np\n" + example)
    done = pytest_in(folder)
    assert done.returncode == 0 and f"3 passed, {len(IDENTITIES) - 3} skipped" in done.stdout, done.stdout


def test_the_option_needs_no_file_of_tests(folder):
    (folder / "test_another.py").write_text("def test_another(): assert False")
    done = pytest_in(folder, "--diffusion-identities", "mine_for_the_plugin:both")
    assert f"1 failed, 5 passed, {2 * len(IDENTITIES) - 6} skipped" in done.stdout
    assert "mine_for_the_plugin:both[1] E2 marginal" in done.stdout and "test_another" not in done.stdout
    assert "has no no_such" in pytest_in(folder, "--diffusion-identities", "mine_for_the_plugin:no_such").stderr


def test_the_command_prints_a_table_and_its_status_says_whether_all_hold(folder, capsys):
    assert main(["check", "mine_for_the_plugin:Right", "--examples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "holds       E2 marginal" in printed and "fails" not in printed
    assert main(["check", "mine_for_the_plugin:both", "--examples", "20"]) == 1
    assert "fails       E2 marginal" in capsys.readouterr().out


def test_the_command_prints_json(folder, capsys):
    assert main(["check", "mine_for_the_plugin:Wrong", "--examples", "20", "--json"]) == 1
    (one,) = json.loads(capsys.readouterr().out)
    found = {row["name"]: row for row in one["results"]}
    assert list(found) == [identity.name for identity in IDENTITIES]
    assert found["E2 marginal"]["status"] == "fails" and "expected" in found["E2 marginal"]["words"]
    assert found["E1 step"] == {**found["E1 step"], "status": "not checked", "example": None, "words": None}


ALONE = """
    import sys

    class Only:
        \"""A finder that knows the standard library and these packages, as in an environment without any other.\"""

        def find_spec(self, name, path=None, target=None):
            known = {*sys.stdlib_module_names, *sys.argv[1].split(",")}
            if name.partition(".")[0] not in known and not name.startswith("_sysconfigdata"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Only())
"""
NEEDED = "numpy,hypothesis,sortedcontainers,_hypothesis_globals,_hypothesis_ftz_detector,tinyddpm,mine_for_the_plugin"
PYTEST = "pytest,_pytest,py,pluggy,iniconfig,packaging,pygments,_hypothesis_pytestplugin"


@pytest.mark.parametrize(
    "packages, program",
    [
        (NEEDED, "from tinyddpm.properties import check; from mine_for_the_plugin import *; print(check(Right(), 5))"),
        (
            f"{NEEDED},{PYTEST}",
            "import pytest; pytest.main('-p tinyddpm.properties.plugin --diffusion-identities '"
            "'mine_for_the_plugin:Right -v'.split())",
        ),
        (
            f"{NEEDED},nn,cloudpickle,threadpoolctl",  # the command's program needs what tinyddpm is installed with
            "from tinyddpm.program.cli import main; main(['check', 'mine_for_the_plugin:Right'])",
        ),
    ],
    ids=["check", "the plugin", "the command"],
)
def test_nothing_is_needed_but_numpy_and_hypothesis(folder, packages, program):
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = run_python("-c", textwrap.dedent(ALONE) + program, packages, cwd=folder, env=env)
    assert done.returncode == 0 and "E2 marginal" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name, words",
    [
        ("mine_for_the_plugin", "name an adapter as package.module:factory"),
        ("no_such_module:X", "cannot import no_such_module"),
        ("mine_for_the_plugin:no_such", "mine_for_the_plugin has no no_such"),
        ("mine_for_the_plugin:np.pi", "must give an Adapter or several, got float"),
    ],
)
def test_a_name_that_leads_to_no_adapter_is_an_error_in_one_line(folder, capsys, name, words):
    assert main(["check", name]) == 1
    assert words in capsys.readouterr().err
