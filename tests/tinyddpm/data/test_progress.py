"""A bar where there is a terminal and tqdm, one plain line where there is not, the same loop in both."""

import io
import sys

import pytest

from tinyddpm.data.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_one_line_is_said_and_the_loop_is_the_loop(capsys):
    assert list(progress(range(3), desc="counting", total=3)) == [0, 1, 2]
    assert capsys.readouterr().err == "counting ...\n"


def test_without_tqdm_a_terminal_gets_the_plain_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)  # what makes `import tqdm` fail
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(desc="waiting", total=3) as bar:
        bar.update(2)
        bar.set_postfix_str("loss 1")
    assert sys.stderr.getvalue() == "waiting ...\n"


def test_on_a_terminal_tqdm_draws(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(range(3), desc="counting")) == [0, 1, 2]
    assert "counting: 100%" in sys.stderr.getvalue() and "3/3" in sys.stderr.getvalue()
