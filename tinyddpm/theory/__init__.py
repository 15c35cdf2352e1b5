"""What lies beyond the evening's read: data with known answers, the bound in other forms, flows, hierarchies, bits.

Start with mixture.py.
"""

__all__ = []
