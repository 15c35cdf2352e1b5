"""A cache for values computed from the weights, such as transformed filters. It is valid while no weight changes.

Next: checking.py.
"""

from nn.scope import Scope
from nn.tape import clock

__all__ = ["constant_weights", "remembered", "forget_weights"]

_cache = Scope("cache", None)
_changes = 0  # when weights were last written into, by the clock of the tape


def constant_weights():
    """A `with` block in which no weight changes: `remembered` computes each value once, for blocks inside too."""
    return _cache.set(_cache.get() or _Cache())


class _Cache:
    def __init__(self):
        self.values, self.changes = {}, _changes


def forget_weights(tensors):
    """Say that the data of `tensors` are written into. All of `nn` that writes weights calls it.

    Every cache made before is empty, and `backward` refuses a graph that was made before from one of these Tensors.
    """
    global _changes
    _changes = next(clock)
    for x in tensors:
        x.changed = _changes


def remembered(what, owner, compute):
    """compute(); inside `constant_weights` its earlier result for the same `what` and the same object `owner`."""
    cache = _cache.get()
    if cache is None:
        return compute()
    if cache.changes != _changes:
        cache.__init__()
    key = what, id(owner)
    if key not in cache.values:
        cache.values[key] = owner, compute()  # holding the owner keeps its id from being given to another
    return cache.values[key][1]
