"""The program: the network, the model, training, evaluation, pictures, the command. The only folder that imports nn."""

import importlib.util
from pathlib import Path

__all__ = []

_found = importlib.util.find_spec("nn")
if not any(Path(folder, "tape.py").exists() for folder in getattr(_found, "submodule_search_locations", None) or ()):
    raise ImportError(
        f"tinyddpm needs its own package `nn`, but `import nn` finds {getattr(_found, 'origin', 'nothing')}; "
        "rename that file or folder"
    )

from nn.cpu import ranks  # noqa: E402  after the check
from nn.cpu.by_value import BY_REFERENCE  # noqa: E402

BY_REFERENCE.add("tinyddpm")  # workers import this package, and are not sent its code
ranks.join()  # before anything is read or written: of the ranks of an MPI launcher, only the first goes on
