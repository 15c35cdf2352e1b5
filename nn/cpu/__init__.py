"""One batch over many cores. Read parallel.py first: the engine does not need this folder."""

__all__ = []
