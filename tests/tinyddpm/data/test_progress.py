"""A bar where there is a terminal and tqdm, lines where there is not, the same loop in both, and never an error."""

import io
import os
import subprocess
import sys

import pytest

from tinyddpm.data import progress as module
from tinyddpm.data.progress import progress, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Broken(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError


class Written:
    """What some programs put in place of stderr: it can be written, and nothing else."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = [lambda: None, closed, Broken, Written, object, Terminal, io.StringIO]


def use(bar):
    with bar:
        bar.update(2)
        bar.total = 10
        bar.set_postfix_str("loss 1")
        bar.update()


@pytest.mark.parametrize("stream", STREAMS)
def test_no_stderr_of_any_kind_stops_the_work(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    say("working")
    if stream is not Broken:  # a terminal does not break so
        assert list(progress(range(3), desc="counting", total=3)) == [0, 1, 2]
        use(progress(desc="waiting", total=3, unit="B", unit_scale=True, initial=1))
    if stream is Written:
        assert sys.stderr.text == "working\ncounting ...\nwaiting ...\n"


def test_without_stderr_nothing_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    say("working")
    assert list(progress(range(3), desc="counting")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def test_without_a_terminal_one_line_is_said_and_the_loop_is_the_loop(capsys):
    assert list(progress(range(3), desc="counting", total=3)) == [0, 1, 2]
    assert capsys.readouterr().err == "counting ...\n"


def test_a_log_is_told_every_half_minute_how_far_it_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(desc="training", total=100, initial=10, unit="s") as bar:
        for _ in range(70):
            now[0] += 1
            bar.set_postfix_str("loss 1")
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "training ...",
        "training: 41 of 100 s, loss 1",
        "training: 72 of 100 s, loss 1",
    ]


def test_a_clock_that_stands_still_is_no_error(monkeypatch):
    monkeypatch.setattr(module.time, "monotonic", lambda: 5.0)
    assert list(progress(range(3), desc="counting")) == [0, 1, 2]


def test_without_tqdm_a_terminal_gets_the_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # what makes its import fail
    monkeypatch.setattr(sys, "stderr", Terminal())
    use(progress(desc="waiting", total=3))
    assert sys.stderr.getvalue() == "waiting ...\n"


def test_on_a_terminal_tqdm_draws(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress(range(3), desc="counting")) == [0, 1, 2]
    assert "counting: 100%" in sys.stderr.getvalue() and "3/3" in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"na\xefve \u2202"), ("latin-1", "naïve \\u2202"), ("utf-8", "naïve ∂")]
)
def test_a_stream_gets_what_it_cannot_show_as_escapes(encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    say("naïve ∂", stream)
    assert stream.buffer.getvalue().decode(encoding) == shown + os.linesep


def test_a_name_that_no_encoding_has_is_shown_too(capsys):
    say(os.fsdecode(b"run-\xff"))  # a file name that is not UTF-8
    assert capsys.readouterr().err == "run-\\udcff\n"


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor as a shell does")
def test_a_process_started_without_stderr_works():
    code = "from tinyddpm.data.progress import progress, say; say('x'); print(list(progress(range(3), desc='x')))"
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code], stdout=subprocess.PIPE, text=True
    )
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2]\n")


def test_a_notebook_shows_a_bar():
    pytest.importorskip("tqdm")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = "from tinyddpm.data.progress import progress\nfor _ in progress(range(3), desc='counting'): pass"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=300).execute()
    shown = "".join(output["text"] for output in notebook.cells[0].outputs)  # text only, and no warning in it
    assert shown.startswith("\rcounting:   0%") and "3/3" in shown and "arn" not in shown
