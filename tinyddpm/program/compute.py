"""Where the work runs: device, worker processes, precision, decided once and handed over as one object. Next: model.py."""

import contextlib

import numpy as np

import nn
from nn.cpu import ranks

__all__ = ["Compute", "enough_memory"]


class Compute:
    """Where a model computes.

    device: "cpu", "cuda", or "auto" for a GPU if one works. workers: processes on the CPU, by default one for every
    core; the results do not depend on it. precision: of matrix products on a GPU, see `nn.precision`.
    xp: numpy or cupy. Raises ValueError or RuntimeError, saying what to do, for what this machine does not have.
    """

    def __init__(self, device="cpu", workers=None, precision="fp32"):
        self.xp = nn.choose_device(device)
        self.precision = nn.check_precision(precision, self.xp)
        self.workers = nn.Parallel(workers).workers if self.xp is np else 1
        if self.xp is not np and ranks.size() > 1:
            raise RuntimeError("a GPU is for one process: start it without an MPI launcher, or use device 'cpu'")
        self.options = {"device": device, "workers": workers, "precision": precision}

    def __str__(self):
        why = f" (no GPU: {nn.why_no_gpu()})" if self.options["device"] == "auto" and self.xp is np else ""
        each = f" on each of {ranks.size()} ranks" if ranks.size() > 1 else ""
        return f"{self.xp.__name__} {self.xp.__version__} in {self.precision}, {self.workers} workers{each}{why}"

    def loss_and_gradient(self, shard, loss, network, *batch):
        """As `nn.Parallel`'s, in shards of so many rows on the CPU, and the whole batch at once on a GPU."""
        with nn.precision(self.precision):
            return self._parallel(shard).loss_and_gradient(loss, network, *batch)

    def map(self, shard, function, network, *batch):
        """As `nn.Parallel`'s, in shards of so many rows on the CPU, and the whole batch at once on a GPU."""
        with nn.precision(self.precision):
            return self._parallel(shard).map(function, network, *batch)

    def _parallel(self, shard):
        return nn.Parallel(self.workers, shard if self.xp is np else 1 << 30)


@contextlib.contextmanager
def enough_memory(what, batch):
    """Where there is not, on a GPU or not, MemoryError says for which batch, and what to do."""
    try:
        yield
    except MemoryError as error:  # NumPy's and CuPy's are of this class
        raise MemoryError(f"{what}: not enough memory for a batch of {batch}; try a smaller batch ({error})") from error
