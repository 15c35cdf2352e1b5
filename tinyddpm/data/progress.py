"""What long work says while it runs, on a terminal, in a notebook and in a log. Next: program/unet.py."""

import sys
import time
import warnings

__all__ = ["progress", "say"]


def say(text, stream=None):
    """Print `text` on `stream`, by default stderr, without ever raising.

    Characters that the stream cannot show are written as backslash escapes. Where there is no stream (None, closed, a
    pipe that nobody reads), nothing is said.
    """
    stream = sys.stderr if stream is None else stream
    try:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (AttributeError, ValueError, OSError):
        pass


def progress(iterable=None, desc="", **options):
    """A tqdm bar over `iterable`, or one to `.update(n)`; takes tqdm's options.

    Without tqdm, or where stderr is neither a terminal nor a notebook's (a log, a pipe), it says `desc ...` once, and
    then, every 30 seconds, how many are done and the text last given to `set_postfix_str`.
    """
    try:
        if sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel"):
            with warnings.catch_warnings(action="ignore"):  # a notebook without widgets gets a bar of text
                from tqdm.auto import tqdm  # here, because `import tinyddpm` must not wait for it
            return tqdm(iterable, desc=desc, **options)
    except (ImportError, AttributeError, ValueError):  # no tqdm; no stderr, one that is no file, a closed one
        pass
    return _Lines(iterable, desc, **options)


class _Lines:
    """The part of tqdm's interface used here, in lines for a log."""

    def __init__(self, iterable, desc, initial=0, total=None, unit="", **options):
        self.iterable, self.desc, self.n, self.total, self.unit, self.text = iterable, desc, initial, total, unit, ""
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
        if time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            amount = f"{self.n:.0f} of {self.total:.0f}" if self.total else f"{self.n:.0f}"
            say(f"{self.desc}: {amount} {self.unit}{self.text}")

    def set_postfix_str(self, text):
        self.text = f", {text}"
