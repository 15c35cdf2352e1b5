"""What the README shows runs as it stands there, in small."""

import re
from pathlib import Path

import pytest
from small import SQUARES

import tinyddpm as td

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
CHANGES = re.findall(r"```python\n(.*?)```", README.split("## How to change one thing")[1], re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """The names that the example above has defined, and what a recipe defines for those after it."""
    import numpy as np

    import nn

    return {"td": td, "nn": nn, "np": np, "data": SQUARES, "model": td.train(SQUARES, steps=1, preset="tiny", batch=8)}


@pytest.mark.parametrize("code", CHANGES, ids=[re.search(r"def \w+|class \w+|\w+ =|\w+\.\w+", c)[0] for c in CHANGES])
def test_how_to_change_one_thing(code, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(code.splitlines()) <= 15
    exec(code.replace("minutes=5", "steps=1, batch=8").replace("range(10)", "range(4)"), names)
