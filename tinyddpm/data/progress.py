"""Progress of long work on the terminal, with tqdm where it is installed. Next: mnist.py, which uses it."""

import sys
import time

__all__ = ["progress"]


def progress(iterable=None, desc="", **options):
    """A tqdm bar over `iterable`, or one to `.update(n)`; takes tqdm's options.

    Without tqdm, or where stderr is no terminal (a log, a pipe), it says `desc ...` once, and then, every 30 seconds,
    the text last given to `set_postfix_str`.
    """
    try:
        from tqdm import tqdm  # here, because `import tinyddpm` must not wait for it
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        return _Plain(iterable, desc)
    return tqdm(iterable, desc=desc, **options)


class _Plain:
    """The part of tqdm's interface used here, without the bar."""

    def __init__(self, iterable, desc):
        self.iterable, self.desc, self.said = iterable, desc, time.monotonic()
        print(f"{desc} ...", file=sys.stderr, flush=True)

    def __iter__(self):
        return iter(self.iterable)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def update(self, n=1):
        pass

    def set_postfix_str(self, text):
        if time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            print(f"{self.desc}: {text}", file=sys.stderr, flush=True)

    def close(self):
        pass
