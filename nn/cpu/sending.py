"""What travels between a process and its workers: what a person wrote by value, what is installed by reference.

*By value* go the functions, classes and modules of a script, a notebook, `python -`, and of every module whose file is
neither the standard library's nor in site-packages nor in a package of BY_REFERENCE. The code travels with the globals
that it names, its closures and its attributes, as they are at the moment of the call. So another value of a global, an
edit or a reload is seen, and no script runs a second time.

*By reference* goes the rest: a worker imports it by its name. Where such a module is reloaded, new workers are started.
A function or class of the user's that was put into a package of BY_REFERENCE goes along by value (`Modules.patches`). Two
things are not seen: another value of a constant in there, and what was put into packages of site-packages.

Arrays follow the pickle as they lie in memory. A worker keeps them and is sent those alone that have changed, so a large
array that a function names travels once. They arrive read-only, since what a function wrote into one would be lost.
Next: gpu/kernels.py.
"""

import io
import marshal
import operator
import pickle
import random
import struct
import sys
import types

import cloudpickle
import numpy as np

# cloudpickle numbers the classes that it takes by value, and both processes know a class by its number.
from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_CLASS as _NUMBERS
from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_ID as _CLASSES
from cloudpickle.cloudpickle import _dynamic_class_reduce

from nn.tensors import Tensor, node

__all__ = ["BY_REFERENCE", "Job", "Received", "pack", "write", "read", "Modules", "random_states"]

BY_REFERENCE = {"nn"}  # packages of which workers import the same files; one that is built on nn may add its name

_GENERATORS = np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random
_IMPORTING = "__builtins__", "__loader__", "__spec__", "__cached__"  # what modules hold besides what they define


def _goes_by_value(module):
    package = getattr(module, "__name__", "sys").partition(".")[0]
    if package in BY_REFERENCE or package in sys.stdlib_module_names:
        return False
    file, folders = getattr(module, "__file__", None), list(getattr(module, "__path__", ()))
    if any(name in place for name in ("site-packages", "dist-packages") for place in (file or "", *folders)):
        return False
    return file.endswith((".py", ".pyc")) if file else package == "__main__" or bool(folders) or not module.__spec__


def _module_of(obj):
    """The module that a function, a class or an instance belongs to, or None."""
    name = getattr(obj, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


class Modules:
    """What this process has imported, looked over at every call, because workers import the same by name.

    patches: (module or class, name, value) of everything that a user has put into the packages of BY_REFERENCE.
    """

    def __init__(self):
        self.specs, self.spaces, self.values, self.patches = {}, [], [], []

    def look_over(self):
        """Whether workers may hold what they should not: a module that was reloaded, or a patch that is gone."""
        specs = {name: getattr(module, "__spec__", None) for name, module in sys.modules.copy().items()}
        reloaded = any(self.specs.get(name, spec) is not spec for name, spec in specs.items())
        if reloaded or len(specs) != len(self.specs):
            packages = [m for name, m in sys.modules.copy().items() if name.partition(".")[0] in BY_REFERENCE]
            classes = [c for m in packages for c in vars(m).values() if getattr(c, "__module__", "") == m.__name__]
            self.spaces = packages + [c for c in classes if isinstance(c, type)]
        self.specs.update(specs)
        values, before = [value for space in self.spaces for value in vars(space).values()], self.patches
        if len(values) != len(self.values) or not all(map(operator.is_, values, self.values)):
            entries = [(space, *entry) for space in self.spaces for entry in vars(space).items()]
            self.values, self.patches = values, [entry for entry in entries if _goes_by_value(_module_of(entry[-1]))]
        return reloaded or not {p[:2] for p in before} <= {p[:2] for p in self.patches}


# ==== the pickle ====


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, which by itself takes by value what "__main__" defines and what no module has under its name."""

    def __init__(self, file, buffers, answering):
        self.dispatch_table = dict(self.dispatch_table)  # from a ChainMap, which is slow
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffers.append)
        self.answering = answering

    def reducer_override(self, obj):
        if type(obj) is np.ndarray or type(obj) is Tensor and obj.node is None:  # most objects are: be quick
            return NotImplemented
        if isinstance(obj, (types.FunctionType, type)):
            if self.answering and obj in _NUMBERS:  # by value it would overwrite the class in the process that sent it
                return _numbered_class, (_NUMBERS[obj],)
            if not _goes_by_value(_module_of(obj)):
                return super().reducer_override(obj)
            return _dynamic_class_reduce(obj) if isinstance(obj, type) else self._dynamic_function_reduce(obj)
        if isinstance(obj, types.CodeType):
            return marshal.loads, (marshal.dumps(obj),)  # cloudpickle would lose the file's name, which errors quote
        if isinstance(obj, types.ModuleType) and _goes_by_value(obj):
            contents = {k: v for k, v in vars(obj).items() if k not in _IMPORTING and _can_be_pickled(v)}
            return _new_module, (obj.__name__,), contents
        if isinstance(obj, _GENERATORS):
            return _new_generator, (pickle.dumps(obj),)
        if isinstance(obj, Tensor) and obj.node is not None:
            return _new_tensor, (obj.data,)
        return NotImplemented


def _pickled(obj, answering=False):
    """(the pickle of obj, the memory of its arrays)."""
    file, buffers = io.BytesIO(), []
    _Pickler(file, buffers, answering).dump(obj)
    return file.getvalue(), [buffer.raw() for buffer in buffers]


def _can_be_pickled(value):
    """Whether a module's entry can go along, as an open file or a lock cannot."""
    try:
        return isinstance(value, (types.FunctionType, types.ModuleType, type)) or bool(value.__reduce_ex__(4))
    except Exception:
        return False


# The functions that a pickle names: they make what it stands for where it is read.


def _numbered_class(number):
    return _CLASSES[number]


def _new_module(name):
    module = types.ModuleType(name)
    if name != "__main__":
        sys.modules[name] = module  # for an import inside a function
    return module


def _new_tensor(data):
    """A Tensor that was computed before the call. Its graph stays where it is, and the walk back must not end here."""
    return node("a Tensor from outside", data, (Tensor(data, requires_grad=True),), _no_graph)


def _no_graph(gradient):
    raise RuntimeError(
        "the loss depends on a Tensor that was computed before the call, whose graph is in the calling process; compute "
        "it inside the loss, or use one worker"
    )


def _new_generator(state):
    _generators.append(pickle.loads(state))
    return _generators[-1]


_generators = []  # those that came with the job


def random_states():
    """The states of Python's generator, of NumPy's and of those that came with the job, to be compared."""
    (_, key, *others), python = np.random.get_state(), random.getstate()
    return key.tobytes(), others, python, [pickle.dumps(generator) for generator in _generators]


# ==== jobs, which workers keep ====


class Job:
    """What all tasks of a call have in common, pickled. Arrays that `before`, another Job, has too are the same objects."""

    def __init__(self, value, before=None):
        self.stream, arrays = _pickled(value)
        kept = before.arrays if before else []
        self.arrays = [
            kept[i] if i < len(kept) and kept[i] == array else bytearray(array) for i, array in enumerate(arrays)
        ]

    def since(self, before):
        """(pickle or None, the number of arrays, {i: array}): what a worker lacks that has the Job `before`, or None."""
        kept = before.arrays if before else []
        new = {i: pickle.PickleBuffer(a) for i, a in enumerate(self.arrays) if i >= len(kept) or a is not kept[i]}
        return None if before and before.stream == self.stream else self.stream, len(self.arrays), new


class Received:
    """A Job where it is received: `value`, made anew whenever anything in it has changed."""

    def __init__(self):
        self.stream, self.arrays, self.value = None, [], None

    def update(self, news):
        """Take what `Job.since` returned. Returns whether `value` is another."""
        stream, count, new = news
        if stream is None and not new and count == len(self.arrays):
            return False
        self.stream = stream or self.stream
        self.arrays = [memoryview(new[i]).toreadonly() if i in new else self.arrays[i] for i in range(count)]
        _generators.clear()
        self.value = pickle.loads(self.stream, buffers=self.arrays)
        return True


# ==== messages on a pipe ====


def pack(message, answering=False):
    """`message` as bytes: how many parts, how long each is, the pickle, the arrays. answering: to whom sent the job."""
    stream, arrays = _pickled(message, answering)
    parts = [stream, *arrays]
    return b"".join([struct.pack(f"<{1 + len(parts)}Q", len(parts), *map(len, parts)), *parts])


def write(pipe, packed):
    """Write bytes to an unbuffered pipe, which may take a part at a time."""
    rest = memoryview(packed)
    while rest:
        rest = rest[pipe.write(rest) :]


def read(pipe):
    """The next message of a pipe, or None where it has ended."""
    try:
        (count,) = struct.unpack("<Q", _exactly(pipe, 8))
        sizes = struct.unpack(f"<{count}Q", _exactly(pipe, 8 * count))
        stream, *arrays = [_exactly(pipe, size) for size in sizes]
    except EOFError:
        return None
    return pickle.loads(stream, buffers=arrays)


def _exactly(pipe, size):
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        count = pipe.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return data
