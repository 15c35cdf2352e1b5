"""What the README shows runs as it stands there, in small."""

import ast
import io
import re
import tokenize
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


def code_lines(path):
    """Lines of code: no blanks, comments and docstrings."""
    source = path.read_text("utf-8")
    nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    texts = [n.body[0] for n in nodes if ast.get_docstring(n) is not None]
    docstrings = {line for text in texts for line in range(text.lineno, text.end_lineno + 1)}
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for t in tokens if t.type not in skipped for line in range(t.start[0], t.end[0] + 1)}
    return len(lines - docstrings)


def test_the_evenings_read_is_as_long_as_it_says_and_no_longer_than_an_evening():
    table = README.split("An evening, in this order:")[1].split("Every module")[0]
    said = int(re.search(r"about ([\d,]+) lines", table)[1].replace(",", ""))
    paths, folder = [], ""
    for row in table.splitlines()[4:]:
        for file in re.findall(r"`([\w/]+\.py)`", row.split("|")[1] if "|" in row else ""):
            folder = file.rpartition("/")[0] or folder
            paths.append(Path(__file__).parents[1] / folder / Path(file).name)
    assert len(paths) > 15
    found = sum(map(code_lines, paths))
    assert abs(found - said) < 100 and found <= 2000, found
