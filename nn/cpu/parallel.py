"""One batch over many cores. Each core runs forward and backward on small shards of the batch, one after another.

A shard of a few images keeps every activation in a core's cache, and memory depends on the shard and not on the batch.
The workers are processes, not threads. NumPy releases Python's lock inside a loop and takes it again after it, so
threads wait for each other: two do 1.4 times the work of one, and two processes 1.7 times. BLAS runs on one thread in
each. The calling process is itself one of the workers. Several machines do the same, see ranks.py. Next: blas.py.
"""

import math
import os
import sys
from pathlib import Path

import numpy as np

from nn.arrays import described, is_array
from nn.backend import array_module, keep_freed_memory
from nn.cache import constant_weights
from nn.cpu import ranks, worker
from nn.cpu.blas import blas_libraries, one_blas_thread
from nn.options import whole
from nn.tape import gradients, no_grad
from nn.tensors import Tensor

__all__ = ["Parallel", "available_cores"]

_LANES = 256
_ONE_PROCESS = sys.platform in ("emscripten", "wasi")  # Python in a browser cannot start a process


def available_cores():
    """Cores this process may use: its affinity mask, and a container's CPU quota (cgroup v2) if that is less."""
    if _ONE_PROCESS:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota reads "max"
        return cores


class Parallel:
    """Runs functions over the shards of a batch, on `workers` processes (default: as many as there are cores).

    shard: the most samples at a time. On a GPU, where one launch should do as much as it can, use workers=1 and a large
    shard. A batch is cut into as many *lanes* as it has shards, but at most 256, however many workers there are. The
    lanes' results are added in pairs, as in a binary tree, always in the same order: so the result is the same, bit for
    bit, for any number of workers, and of ranks with as many workers each. No more of them are used than there are lanes.

    The functions are called as function(model, *rows), where rows holds a copy of some rows of each array of the batch
    (None stays None). Function and model may be anything: a lambda, a closure, a class defined in a notebook. At every
    call they are sent to the workers with all objects that they refer to, as far as those have changed (by_value.py). A
    function should return its result and change nothing: a change made in a worker is lost or refused. It may not use
    a random generator of its own, because every worker would draw the same numbers (RuntimeError). Draw before the call
    and pass the numbers as rows, or use `nn.random`, whose numbers depend on the sample.
    """

    def __init__(self, workers=None, shard=4):
        ranks.join()
        cores = max(1, available_cores() // ranks.on_these_cores())
        self.workers = cores if workers is None else whole("workers", workers, least=1)
        self.shard = whole("shard", shard, least=1)
        if self.workers > 1 and _ONE_PROCESS:
            raise ValueError(f"Python in a browser is one process: workers must be 1 here, got {self.workers}")
        blas_libraries()
        keep_freed_memory()

    def loss_and_gradient(self, loss, model, *batch):
        """The mean loss of a batch, and its gradient as one flat array in the order of `model.parameters()`.

        loss(model, *rows): the mean loss of these rows, a Tensor of shape () (TypeError otherwise).
        """
        if not hasattr(model, "parameters"):
            raise TypeError(f"the model must have a method `parameters`, as a Module has, got {type(model).__name__}")
        return self._run(_lane_gradient, _added, model, (loss, self.shard, _size(batch)), batch)

    def map(self, function, model, *batch):
        """The array of function(model, *rows) for all rows of a batch; no gradients.

        function returns a Tensor or an array with one entry per row. The entries have one dtype and shape for all rows
        (TypeError or ValueError otherwise).
        """
        return self._run(_lane_map, _joined, model, (function, self.shard), batch)

    def _run(self, job, combine, model, options, batch):
        """job(model, *options, lane) for every lane of the batch, combined by `combine` as a binary tree."""
        size = _size(batch)
        lanes = [_rows(batch, part) for part in _cut(size, min(_LANES, math.ceil(size / self.shard)))]
        branches = _branches(lanes, ranks.size())
        options = self.workers, job, combine, options
        with one_blas_thread, constant_weights():
            if len(branches) == 1:
                return _on_workers(model, *options, lanes)
            return ranks.run_everywhere(_on_workers, combine, model, options, branches)


# ==== a batch is a binary tree of lanes ====
# Each rank computes one branch (subtree), and in it each of its workers one. Their results are then combined.


def _on_workers(model, workers, job, combine, options, lanes):
    """The combined results of the lanes of a branch, computed by so many processes."""
    branches, options = _branches(lanes, workers), (job, combine, options)
    if len(branches) == 1:
        return _branch(model, *options, lanes)
    results = worker.run_everywhere(_branch, model, options, branches)
    return _by_halves(iter(results), len(lanes), workers, combine)


def _branches(lanes, workers):
    """`lanes` split into one list per branch, at most `workers`: halved while there are two lanes and two workers."""
    if len(lanes) == 1 or workers == 1:
        return [lanes]
    half = len(lanes) // 2
    return _branches(lanes[:half], workers // 2) + _branches(lanes[half:], workers - workers // 2)


def _branch(model, job, combine, options, lanes):
    """The combined results of the lanes of a branch."""
    return _by_halves((job(model, *options, lane) for lane in lanes), len(lanes), len(lanes), combine)


def _by_halves(results, lanes, workers, combine):
    """The results of the branches combined. lanes, workers: the numbers from which `_branches` made the branches."""
    if lanes == 1 or workers == 1:
        return next(results)
    first = _by_halves(results, lanes // 2, workers // 2, combine)
    return combine(first, _by_halves(results, lanes - lanes // 2, workers - workers // 2, combine))


def _lane_gradient(model, loss, shard, size, lane):
    """The share of one lane in the mean loss over all `size` rows, and in its gradient."""
    parameters = list(model.parameters())
    ends = np.cumsum([p.size for p in parameters]).tolist()
    mean_loss = total = None
    for rows in _shards(lane, shard):
        value = loss(model, *rows)
        _check_loss(loss, value)
        share = value.xp.full((), _size(rows) / size, value.dtype)
        found = gradients(value, parameters, share)
        if total is None:
            mean_loss, total = value.data * share, value.xp.concatenate([g.reshape(-1) for g in found])
            continue
        mean_loss = _same_dtype(mean_loss, value.data) + value.data * share
        for gradient, p, end in zip(found, parameters, ends, strict=True):
            total[end - p.size : end] += gradient.reshape(-1)
    return mean_loss, total


def _check_loss(loss, value):
    if not isinstance(value, Tensor) or value.shape != ():
        given = f"a Tensor, {described(value.data)}" if isinstance(value, Tensor) else described(value)
        raise TypeError(f"{_name(loss)} must return the mean loss of its rows, a Tensor of shape (), got {given}")
    if not value.requires_grad:
        raise ValueError(f"{_name(loss)} returned a loss that depends on no parameter of the model")


def _added(a, b):
    (a_loss, gradient), (b_loss, b_gradient) = a, b
    gradient += b_gradient
    return _same_dtype(a_loss, b_loss) + b_loss, gradient


def _same_dtype(a, b):
    """`a`. TypeError if `b` has another dtype: the result's dtype would depend on how rows fall into shards."""
    if a.dtype != b.dtype:
        raise TypeError(f"the shards of one batch gave results of different dtypes: {a.dtype} and {b.dtype}")
    return a


def _lane_map(model, function, shard, lane):
    with no_grad():
        return _joined(*[_entries(function, model, rows) for rows in _shards(lane, shard)])


def _entries(function, model, rows):
    """A copy of the array that function(model, *rows) returns: the function may reuse the array for its next result."""
    result = function(model, *rows)
    data = result.data if isinstance(result, Tensor) else result
    if not is_array(data) or data.shape[:1] != (_size(rows),):
        given = described(data)
        raise TypeError(
            f"{_name(function)} must return a Tensor or an array with one entry for each of its {_size(rows)} rows, "
            f"got {given}"
        )
    return data.copy()


def _joined(first, *others):
    for other in others:
        _same_dtype(first, other)
    return array_module(first).concatenate([first, *others]) if others else first


def _name(function):
    return getattr(function, "__qualname__", None) or repr(function)


def _shards(batch, shard):
    """The rows of a batch in shards. They are copies: a function may write into them, and strides never differ."""
    size = _size(batch)
    for part in _cut(size, math.ceil(size / shard)):
        yield [rows.copy() if isinstance(rows, np.ndarray) else rows for rows in _rows(batch, part)]


def _cut(size, count):
    """0..size cut into `count` slices whose lengths differ by at most one."""
    ends = [size * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def _rows(batch, rows):
    return [array if array is None else array[rows] for array in batch]


def _size(batch):
    """How many rows the arrays of a batch have. ValueError where they differ, or where there are none."""
    if not all(array is None or hasattr(array, "__len__") for array in batch):
        raise TypeError(f"a batch is arrays of one length, or None, got {', '.join(type(a).__name__ for a in batch)}")
    sizes = {len(array) for array in batch if array is not None}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"a batch is arrays of one length, at least 1, got lengths {sorted(sizes)}")
    return sizes.pop()
