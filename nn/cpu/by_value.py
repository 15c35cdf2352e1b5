"""What goes to workers by value, because a person wrote it, and what by reference, because it is installed.

*By value* go the functions and classes of a script, a notebook, `python -`, and of every module whose file is neither
the standard library's nor in site-packages nor in a package of BY_REFERENCE. Their code goes along with the globals that
it names, their closures and their attributes, as they are at the moment of the call. So another value of a global, an
edit or a reload is seen, and no script runs a second time. Of a module that a function names go the entries that some
function names, too: `helpers.f` takes f along.

*By reference* goes the rest: a worker imports it by its name, also what an `import` inside a function asks for. Where
such a module is reloaded, new workers are started. A function or class of the user's that was put into a package of
BY_REFERENCE goes along by value (`Modules.patches`). Not seen are another value of a constant in there, and what was put
into a module that is imported inside a function or lies in site-packages. Next: ranks.py.
"""

import functools
import io
import marshal
import pickle
import random
import sys
import types

import cloudpickle
import numpy as np

# cloudpickle numbers the classes that it takes by value, and both processes know a class by its number.
from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_CLASS as _NUMBERS
from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_ID as _CLASSES
from cloudpickle.cloudpickle import _dynamic_class_reduce

from nn.tensors import Tensor, node

__all__ = ["BY_REFERENCE", "Modules", "pickled", "unpickled", "random_states"]

BY_REFERENCE = {"nn"}  # packages of which workers import the same files; one that is built on nn may add its name

_CACHED = type(functools.cache(len))
_GENERATORS = np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random


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
        changed = [new for new, old in zip(values, self.values, strict=False) if new is not old]
        patched = changed and (before or any(_goes_by_value(_module_of(value)) for value in changed))
        if patched or len(values) != len(self.values):
            entries = [(space, *entry) for space in self.spaces for entry in vars(space).items()]
            self.patches = [entry for entry in entries if _goes_by_value(_module_of(entry[-1]))]
        self.values = values
        return reloaded or not {p[:2] for p in before} <= {p[:2] for p in self.patches}


# ==== the pickle ====


class _Pickler(cloudpickle.Pickler):
    """cloudpickle, which by itself takes by value what "__main__" defines and what no module has under its name."""

    def __init__(self, file, buffers, answering):
        self.dispatch_table = dict(self.dispatch_table)  # from a ChainMap, which is slow
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffers.append)
        self.answering, self.modules, self.names = answering, {}, set()

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
            self.names.update(_names_in(obj))
            return marshal.loads, (marshal.dumps(obj),)  # cloudpickle would lose the file's name, which errors quote
        if isinstance(obj, types.ModuleType) and _goes_by_value(obj):
            self.modules.setdefault(obj, {"__name__"})
            return types.ModuleType, (obj.__name__,)
        if isinstance(obj, _CACHED):  # by itself, it is pickled as the name of a function
            return _new_cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, functools.cached_property):  # by itself, it holds a lock
            return functools.cached_property, (obj.func,), {"attrname": obj.attrname}
        if isinstance(obj, _GENERATORS):
            return _new_generator, (pickle.dumps(obj),)
        if isinstance(obj, Tensor) and obj.node is not None:
            return _new_tensor, (obj.data,)
        return NotImplemented

    def entries(self):
        """[(module, {name: value})]: of the modules so far, all that the code so far may ask for and has not got."""
        found = []
        for module, sent in self.modules.items():
            new = sorted((self.names & vars(module).keys()) - sent)
            sent.update(new)
            found += [(module, {name: vars(module)[name] for name in new})] if new else []
        return found


def _names_in(code):
    """The names of variables and attributes in a code object and those inside it."""
    inside = [_names_in(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*inside)


def pickled(obj, answering=False):
    """(the pickle of obj, and of the entries of modules that it needs; the memory of its arrays)."""
    file, buffers = io.BytesIO(), []
    pickler = _Pickler(file, buffers, answering)
    pickler.dump(obj)
    while entries := pickler.entries():
        pickler.dump(entries)
    pickler.dump(None)
    return file.getvalue(), [buffer.raw() for buffer in buffers]


def unpickled(stream, arrays):
    unpickler = pickle.Unpickler(io.BytesIO(stream), buffers=arrays)
    value = unpickler.load()
    while entries := unpickler.load():
        for module, contents in entries:
            vars(module).update(contents)
    return value


# The functions that a pickle names: they make what it stands for where it is read.


def _numbered_class(number):
    return _CLASSES[number]


def _new_cached(function, parameters):
    return functools.lru_cache(**parameters)(function)


def _new_tensor(data):
    """A Tensor that was computed before the call. Its graph stays where it is, and the walk back must not end here."""
    return node("a Tensor from outside", data, (Tensor(data, requires_grad=True),), _no_graph)


def _no_graph(gradient):
    raise RuntimeError(
        "the loss depends on a Tensor that was computed before the call, whose graph is in the calling process; compute "
        "it inside the loss, or use one worker"
    )


def _new_generator(state):
    generators.append(pickle.loads(state))
    return generators[-1]


generators = []  # those that came with the job


def random_states():
    """The states of Python's generator, of NumPy's and of those that came with the job, to be compared."""
    (_, key, *others), python = np.random.get_state(), random.getstate()
    return key.tobytes(), others, python, [pickle.dumps(generator) for generator in generators]
