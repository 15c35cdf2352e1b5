"""Data sets: images as uint8 arrays with their labels, and where they come from. Read images.py first."""

__all__ = []
