"""docs/equations.md and docs/errata.md name what there is: every identity, its code and its tests."""

import ast
import functools
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    int(number): text
    for number, text in re.findall(
        r"^### E(\d+) (.*?)(?=^##|\Z)", (ROOT / "docs/equations.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
}
CODE = sorted(path for folder in ("nn", "tinyddpm", "demo", "tests") for path in (ROOT / folder).rglob("*.py"))
identities = pytest.mark.parametrize("number", SECTIONS)


def named(number, what):
    """(name, file) of all that the line "Code:" or "Test:" of an identity names: `a`, `b` in `file`; `c` in `file`."""
    (line,) = re.findall(rf"^{what}: (.*)\.$", SECTIONS[number], re.MULTILINE)
    parts = [re.findall(r"`([^`]+)`", part) for part in line.split("; ")]
    return [(name, part[-1]) for part in parts for name in part[:-1]]


@functools.cache
def names_in(file):
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_the_identities_are_numbered_from_1_without_a_gap():
    assert list(SECTIONS) == list(range(1, len(SECTIONS) + 1))


@identities
def test_the_code_that_an_identity_names_exists(number):
    assert named(number, "Code")
    for name, file in named(number, "Code"):
        module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
        value = functools.reduce(getattr, name.split("."), module)
        assert not callable(value) or value.__module__ == module.__name__, f"{name} is not defined in {file}"


@identities
def test_the_tests_that_an_identity_names_exist(number):
    assert named(number, "Test")
    for name, file in named(number, "Test"):
        assert name in names_in(file), f"{name} is not in {file}"


@identities
def test_every_identity_has_a_test_named_after_it(number):
    numbered = re.compile(rf"test_(e\d\d_)*e{number:02d}_")
    assert any(numbered.match(name) for path in CODE if path.name.startswith("test_") for name in names_in(path))


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_identity_that_code_cites_is_there(path):
    text = path.read_text("utf-8")
    cited = {int(number) for number in re.findall(r"\bE(\d{1,2})\b", text)}
    cited |= {int(number) for number in re.findall(r"(?<=_e)(\d\d)(?=_)", " ".join(re.findall(r"\btest_\w+", text)))}
    assert cited <= set(SECTIONS), f"no such identity: {sorted(cited - set(SECTIONS))}"


def test_the_tests_that_the_errata_name_exist():
    text = (ROOT / "docs/errata.md").read_text("utf-8")
    paths, file = {path.name: path for path in CODE}, None
    found = re.findall(r"`(test_\w+\.py|\.\.\.)::(test_\w+)`", text)
    for given, name in found:
        file = file if given == "..." else given
        assert name in names_in(paths[file]), f"{name} is not in {file}"
    assert found
