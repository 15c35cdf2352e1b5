"""One batch over many cores: each takes small shards of it through the whole of forward and backward.

A shard of a few images keeps every activation in a core's cache, and memory depends on the shard and not on the batch.
The cores are worker processes, not threads: NumPy's loops do release the interpreter's lock, but they take it again after
each, and two threads that wait for each other do 1.4 times the work of one, two processes 1.7 times.
BLAS runs on one thread in each, and the calling process is itself one of the workers. Next: worker.py.
"""

import math
import os
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from nn.backend import array_module, keep_freed_memory
from nn.cache import constant_weights
from nn.cpu import worker
from nn.tape import gradients, no_grad

__all__ = ["Parallel", "available_cores"]

_LANES = 16


def available_cores():
    """Cores this process may use: its affinity mask, and a container's CPU quota (cgroup v2) if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota reads "max"
        return cores


class Parallel:
    """Runs functions over the shards of a batch, on `workers` processes (default: as many as there are cores).

    shard: the most samples at a time. On a GPU, where one launch should do as much as it can, use workers=1 and a large
    shard. A batch is cut into at most sixteen *lanes*, however many workers there are, and what they give is added up by
    halves, always in the same order: so the number of workers changes nothing, not even the last bit. A seventeenth worker
    would find no lane.

    The functions are called as function(model, *rows): rows of each array of the batch (None is passed on as None). On
    more than one worker they must be functions of a module or a script, not lambdas or closures (TypeError), as they are
    sent to other processes by name; the model, any `Module`, is sent with its weights.
    """

    def __init__(self, workers=None, shard=4):
        self.workers = min(available_cores(), _LANES) if workers is None else workers
        self.shard = shard
        if self.workers < 1 or shard < 1:
            raise ValueError(f"workers and shard must be at least 1, got {self.workers} and {shard}")
        self._blas = ThreadpoolController()
        keep_freed_memory()

    def loss_and_gradient(self, loss, model, *batch):
        """The mean loss of a batch, and its gradient as one flat array in the order of `model.parameters()`.

        loss(model, *rows): the mean loss of these rows, as a scalar Tensor.
        """
        return self._run(_lane_gradient, _added, model, (loss, self.shard, _size(batch)), batch)

    def map(self, function, model, *batch):
        """The array of function(model, *rows), a Tensor with one entry a row, for all rows of a batch; no gradients."""
        return self._run(_lane_map, _joined, model, (function, self.shard), batch)

    def _run(self, job, combine, model, options, batch):
        """job(model, *options, lane) of every lane of the batch, combined by halves."""
        size = _size(batch)
        lanes = [_rows(batch, part) for part in _cut(size, min(_LANES, math.ceil(size / self.shard)))]
        branches = _branches(lanes, self.workers)
        options = job, combine, options
        with self._blas.limit(limits=1, user_api="blas"), constant_weights():
            if len(branches) == 1:
                return _branch(model, *options, lanes)
            results = worker.run_everywhere(_branch, model, options, branches)
            return _by_halves(iter(results), len(lanes), self.workers, combine)


# A batch is a tree of lanes. Each worker computes a branch of it, from the leaves to where the branch joins the others.


def _branches(lanes, workers):
    """The lanes of each of at most `workers` workers: the tree is halved while there are workers for both halves."""
    if len(lanes) == 1 or workers == 1:
        return [lanes]
    half = len(lanes) // 2
    return _branches(lanes[:half], workers // 2) + _branches(lanes[half:], workers - workers // 2)


def _branch(model, job, combine, options, lanes):
    """What the lanes of a branch give."""
    return _by_halves((job(model, *options, lane) for lane in lanes), len(lanes), len(lanes), combine)


def _by_halves(results, lanes, workers, combine):
    """The results of the branches that `_branches` made of so many lanes and workers, combined."""
    if lanes == 1 or workers == 1:
        return next(results)
    first = _by_halves(results, lanes // 2, workers // 2, combine)
    return combine(first, _by_halves(results, lanes - lanes // 2, workers - workers // 2, combine))


def _lane_gradient(model, loss, shard, size, lane):
    """What the rows of a lane add to the mean loss over `size` rows, and to its gradient."""
    parameters = model.parameters()
    ends = np.cumsum([p.size for p in parameters]).tolist()
    mean_loss, total = 0, None
    for rows in _shards(lane, shard):
        value = loss(model, *rows)
        share = value.xp.full(value.shape, _size(rows) / size, value.dtype)
        mean_loss = mean_loss + value.data * share
        found = gradients(value, parameters, share)
        if total is None:
            total = value.xp.concatenate([gradient.reshape(-1) for gradient in found])
            continue
        for gradient, p, end in zip(found, parameters, ends, strict=True):
            total[end - p.size : end] += gradient.reshape(-1)
    return mean_loss, total


def _added(a, b):
    (a_loss, gradient), (b_loss, b_gradient) = a, b
    gradient += b_gradient
    return a_loss + b_loss, gradient


def _lane_map(model, function, shard, lane):
    with no_grad():
        return _joined(*[function(model, *rows).data for rows in _shards(lane, shard)])


def _joined(*arrays):
    return arrays[0] if len(arrays) == 1 else array_module(arrays[0]).concatenate(arrays)


def _shards(batch, shard):
    size = _size(batch)
    return [_rows(batch, part) for part in _cut(size, math.ceil(size / shard))]


def _cut(size, count):
    """0..size in `count` slices whose lengths differ by at most one."""
    ends = [size * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def _rows(batch, rows):
    return [array if array is None else array[rows] for array in batch]


def _size(batch):
    """How many rows the arrays of a batch have. ValueError where they differ, or where there are none."""
    sizes = {len(array) for array in batch if array is not None}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"a batch is arrays of one length, at least 1, got lengths {sorted(sizes)}")
    return sizes.pop()
