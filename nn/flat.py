"""All parameters in one flat array, so that an update is a few passes over it, however many layers there are.

The data of each parameter is a view of a part of that array: what is written into one is in the other. Next: optim.py.
"""

import itertools
import weakref

import numpy as np

from nn.backend import array_module
from nn.cache import forget_weights
from nn.tensors import Tensor

__all__ = ["Flat", "flattened"]

_shared = weakref.WeakValueDictionary()  # the Flat of each list of Tensors


def flattened(tensors):
    """The `Flat` of these Tensors: one for each list, so that an optimiser and an average share it.

    TypeError unless `tensors` is a list of Tensors. ValueError where the list is empty, where two Tensors are the same
    or share memory or differ in dtype or device, or where one was computed by an op.
    """
    tensors = [None] if isinstance(tensors, Tensor) else list(tensors)  # a Tensor is a sequence of its rows
    if not all(isinstance(p, Tensor) for p in tensors):
        raise TypeError("parameters must be a list of Tensors, as network.parameters() gives it")
    key = tuple((id(p), p.shape, _kind(p.data)) for p in tensors)
    found = _shared[key] = _shared.get(key) or Flat(tensors)
    return found


class Flat:
    """Leaf Tensors of one dtype on one device, side by side in one array, in the order of the list.

    A Tensor may be given new data at any time: `array` then copies them in and makes the Tensor's data a view again. So
    lists may overlap in any way. Their Tensors then move to the array of the list whose turn it is.
    """

    def __init__(self, tensors):
        _check(tensors)
        first, ends = tensors[0], itertools.accumulate(p.size for p in tensors)
        self.tensors, self._array = tensors, first.xp.empty(sum(p.size for p in tensors), _kind(first.data)[1])
        self.views = [self._array[end - p.size : end].reshape(p.shape) for p, end in zip(tensors, ends, strict=True)]
        self._take_in()

    def __reduce__(self):
        """A copy of a view is a view no more: the copy of a Flat takes in the copies of its Tensors."""
        return flattened, (self.tensors,)

    @property
    def array(self):
        """The flat array, with what the Tensors hold now. RuntimeError where they were converted or moved."""
        if any(p.data is not view for p, view in zip(self.tensors, self.views, strict=True)):
            forget_weights(self.tensors)  # a graph made before may hold the array that is written into
            self._take_in()
        return self._array

    def _take_in(self):
        moved = [(p, view) for p, view in zip(self.tensors, self.views, strict=True) if p.data is not view]
        for p, view in moved:
            if p.shape != view.shape or _kind(p.data) != _kind(view):
                raise RuntimeError(
                    f"a parameter was {_kind(view)} {view.shape} and is {_kind(p.data)} {p.shape}: move or convert a "
                    "network before its optimiser and its average are made"
                )
        values = [p.data.copy() for p, _ in moved]  # all of them first: two Tensors may have exchanged their data
        for (p, view), value in zip(moved, values, strict=True):
            view[...], p.data = value, view


def _kind(array):
    return array_module(array).__name__, array.dtype.newbyteorder("=")


def _check(tensors):
    """ValueError unless these Tensors can lie side by side, and each can be changed without changing another."""
    if not tensors:
        raise ValueError("there are no parameters")
    if len(kinds := {_kind(p.data) for p in tensors}) > 1:
        raise ValueError(f"parameters must share one device and one dtype, got {sorted(map(str, kinds))}")
    for i, p in enumerate(tensors):
        if p.node is not None:
            raise ValueError(f"parameter {i}, of shape {p.shape}, was computed by an op: only leaves can be changed")
    for (i, p), (j, q) in itertools.combinations(enumerate(tensors), 2):
        if p is q or (p.xp is np and np.shares_memory(p.data, q.data)):
            raise ValueError(f"parameters {i} and {j}, of shape {p.shape} and {q.shape}, share their memory")
