"""What long work says while it runs, on a terminal, in a notebook and in a log. Next: the folder program, compute.py."""

import sys
import time
import warnings

__all__ = ["progress", "say"]

EVERY = 30  # seconds between two lines where there is no bar


def say(text, stream=None):
    """Print `text` on `stream`, by default stderr, without ever raising.

    Characters that the stream cannot show are written as \\x and \\u escapes. Where there is no stream (None, closed, a
    pipe that nobody reads), nothing is said.
    """
    stream = sys.stderr if stream is None else stream
    try:
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (AttributeError, ValueError, OSError):
        pass


def progress(iterable=None, desc="", total=None, **options):
    """A tqdm bar over `iterable`, or one to `.update(n)`; takes tqdm's options.

    Without tqdm, or where stderr is neither a terminal nor a notebook's (a log, a pipe), it says `desc ...` once, and
    then, every EVERY seconds, how many are done and the text last given to `set_postfix_str`.
    """
    tqdm = _tqdm() if _is_shown() else None
    return (tqdm or _Lines)(iterable, desc=desc, total=total, **options)


def _is_shown():
    """Whether stderr is a terminal or a notebook's output, which redraw a line."""
    try:
        return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
    except (AttributeError, ValueError):  # None, no file, or closed
        return False


def _tqdm():
    """The class that draws a bar, None without tqdm. It is imported here, so that `import tinyddpm` does not wait."""
    try:
        with warnings.catch_warnings(action="ignore"):  # a notebook without widgets gets a bar of text
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm


class _Lines:
    """The part of tqdm's interface used here, in lines for a log."""

    def __init__(self, iterable, desc, total=None, initial=0, **options):
        self.iterable, self.desc, self.total, self.n, self.text = iterable, desc, total, initial, ""
        self.said = time.monotonic()
        say(f"{desc} ...")

    def __iter__(self):
        for item in self.iterable:
            yield item
            self.update()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, n=1):
        self.n += n
        if time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            say(f"{self.desc}: {self.n:.0f}" + (f" of {self.total:.0f}" if self.total else "") + self.text)

    def set_postfix_str(self, text):
        self.text = f", {text}"

    def close(self):
        pass
