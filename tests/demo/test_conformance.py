"""The adapters of other libraries: what holds there, and the fault that is known. Skipped where a library is missing."""

import importlib
import sys
from pathlib import Path

import pytest

from tinyddpm.properties import check

FOLDER = Path(__file__).resolve().parents[2] / "demo/conformance"


def adapters(name, monkeypatch):
    """The module of one library's adapters."""
    monkeypatch.syspath_prepend(FOLDER)
    pytest.importorskip(name, reason=f"{name} is not installed", exc_type=ImportError)
    return importlib.import_module(f"for_{name}")


LIBRARIES = sorted(path.stem.removeprefix("for_") for path in FOLDER.glob("for_*.py"))


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_adapter_is_one_without_a_mistake(name, monkeypatch):
    for adapter in adapters(name, monkeypatch).adapters():
        report = check(adapter, examples=3)
        # What code keeps from one run to the next may have another shape then; no adapter can help that.
        assert report.names("mistake") == [] or "E29 again" in report.names("fails"), adapter


def test_the_page_has_a_section_for_each_library(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    report = importlib.import_module("report")
    assert sorted(report.LIBRARIES) == LIBRARIES
    page = (FOLDER.parents[1] / "docs/conformance.md").read_text("utf-8")
    for name in LIBRARIES:
        assert f"\n## {name.replace('_', '-')} " in page


def test_ddpm_of_diffusers_holds_and_its_fixed_large_log_gives_no_number(monkeypatch):
    library = adapters("diffusers", monkeypatch)
    check(library.DDPM(claims={"starts_at_T": False}), examples=10).raise_if_failed()
    large = {"starts_at_T": False, "variance": "beta"}
    report = check(library.DDPM(claims=large, variance_type="fixed_large_log"), examples=10)
    assert "E29 variance" in report.names("fails")
    assert "nan" in next(result.words for result in report.results if result.identity.name == "E29 variance")


def test_the_ops_of_autograd_hold(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    pytest.importorskip("autograd")
    engines = importlib.import_module("engines")
    for name, (function, shapes) in engines.OPS.items():
        assert engines.problems(engines.autograd_op, function, shapes) == [], name


def test_the_ops_of_mygrad_hold_but_for_numbers_that_make_float32_float64(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    pytest.importorskip("mygrad")
    engines = importlib.import_module("engines")
    for name, (function, shapes) in engines.OPS.items():
        found = engines.problems(engines.mygrad_op, function, shapes)
        assert all("the result is float64, computed from float32" in words for words in found), (name, found)
        assert not found or name in ("divide", "square root")


def test_a_wrong_gradient_of_another_engine_is_found(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    engines = importlib.import_module("engines")

    def halved(function):
        import nn

        return lambda x: nn.node("theirs", function(None, x.data), (x,), lambda g: (g,))

    assert any("gradient of input 0" in words for words in engines.problems(halved, lambda xp, a: 2 * a, [(2, 3)]))
    assert engines.problems(halved, lambda xp, a: a + 1, [(2, 3)]) == []
    sys.modules.pop("engines")
