"""What lies beyond the evening's read: data with known answers, the bound in other forms, flows, bits, hierarchies."""

__all__ = []
