"""All parameters in one flat array, so that an update is a few passes over it, however many layers there are.

The data of each parameter is a view of a part of that array: what is written into one is in the other. Next: optim.py.
"""

import itertools
import math
import weakref

import numpy as np

from nn.tensors import Tensor

__all__ = ["Flat"]

_all = weakref.WeakSet()  # where the optimiser and the average of one network find each other's array


class Flat:
    """Leaf Tensors of one dtype on one device, side by side in one array, in the order of the list.

    A Tensor may be given new data at any time: `array` copies it in and makes the Tensor's data a view again. So lists
    may overlap. Lists that name the same Tensors in the same order share one array, and a run of a list shares that of
    the whole; other lists that overlap take turns, and each turn costs a copy.

    TypeError unless `tensors` is a list of Tensors. ValueError where the list is empty, where two Tensors are the same
    or share memory or differ in dtype or device, or where one was computed by an op.
    """

    def __init__(self, tensors):
        self.tensors = [] if isinstance(tensors, Tensor) else list(tensors)
        if isinstance(tensors, Tensor) or not all(isinstance(p, Tensor) for p in self.tensors):
            raise TypeError("parameters must be a list of Tensors, as network.parameters() gives it")
        _check(self.tensors)
        self.shapes, self.kind = [p.shape for p in self.tensors], _kind(self.tensors[0])
        self._gather()

    @property
    def array(self):
        """The flat array, with what the Tensors hold now. RuntimeError where they were converted or moved."""
        for p, view in zip(self.tensors, self.views, strict=True):
            if p.data is not view or view.base is not self.base:  # a view that was pickled is a view no more
                self._gather()
                break
        return self._array

    def _gather(self):
        """Use the array in which the Tensors lie side by side already, or copy them into a new one."""
        if [p.shape for p in self.tensors] != self.shapes or {_kind(p) for p in self.tensors} != {self.kind}:
            raise RuntimeError(
                f"the parameters are not of {self.kind[0]}, {self.kind[1]} and the shapes that they had: "
                "move or convert a network before its optimiser and its average are made"
            )
        size, xp = sum(p.size for p in self.tensors), self.tensors[0].xp
        if not self._find(size):
            self.base = self._array = xp.empty(size, self.kind[1])
            self.views = self._split(self.base)
            for p, view in zip(self.tensors, self.views, strict=True):
                view[...] = xp.asarray(p.data)  # a 0-d Tensor may hold a NumPy scalar
                p.data = view
        _all.add(self)

    def _find(self, size):
        """Whether the Tensors lie in order and without gaps in an array of another Flat; this one then uses it too."""
        data = [p.data for p in self.tensors]
        first = next((a for a in data if a.size), None)
        base = getattr(first, "base", None)
        if not any(flat.base is base for flat in _all):
            return False
        start = (_address(first) - _address(base)) // base.itemsize
        array = base[start : start + size]
        if array.size != size or not all(map(_same_place, data, self._split(array))):
            return False
        self.base, self._array, self.views = base, array, data
        return True

    def _split(self, flat):
        """Views of `flat`, one in the shape of each Tensor."""
        sizes = [math.prod(shape) for shape in self.shapes]
        ends = itertools.accumulate(sizes)
        return [flat[end - n : end].reshape(s) for end, n, s in zip(ends, sizes, self.shapes, strict=True)]


def _same_place(a, view):
    """Whether `a` is what `view` is: entries of one array, in C order, from the same address on."""
    alike = a.base is view.base and a.dtype == view.dtype and a.flags.c_contiguous
    return alike and (not a.size or _address(a) == _address(view))


def _address(array):
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def _kind(tensor):
    return tensor.xp.__name__, tensor.dtype.newbyteorder("=")


def _check(tensors):
    """ValueError unless these Tensors can lie side by side, and each can be changed without changing another."""
    if not tensors:
        raise ValueError("there are no parameters")
    if len(kinds := {_kind(p) for p in tensors}) > 1:
        raise ValueError(f"parameters must share one device and one dtype, got {sorted(map(str, kinds))}")
    for i, p in enumerate(tensors):
        if p.node is not None:
            raise ValueError(f"parameter {i}, of shape {p.shape}, was computed by an op: only leaves can be changed")
    for (i, p), (j, q) in itertools.combinations(enumerate(tensors), 2):
        if p is q or (p.xp is np and np.shares_memory(p.data, q.data)):
            raise ValueError(f"parameters {i} and {j}, of shape {p.shape} and {q.shape}, share their memory")
