"""One batch over many cores: small shards of it, each through the whole of forward and backward on one thread.

NumPy's loops and BLAS release the GIL, so Python threads do run side by side. A shard of a few images keeps every
activation in a core's cache, and memory depends on the shard's size and not on the batch's. BLAS runs on one thread
meanwhile: two shards on two threads scale twice as well as one matrix product on two. Gradients are summed in the
order of the shards, so the result does not depend on the number of threads.
"""

import contextvars
import math
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from nn.backend import array_module, keep_freed_memory
from nn.conv import reuse_filters
from nn.tape import gradients, no_grad

__all__ = ["Parallel", "available_cores"]


def available_cores():
    """Cores this process may use: its affinity mask, and a container's CPU quota (cgroup v2) if that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2 here, or its quota reads "max"
        return cores


class Parallel:
    """Runs functions over the shards of a batch, on `threads` threads (default: all available cores).

    shard: samples per shard. On a GPU, where one launch should do as much as it can, use threads=1 and a large shard.
    """

    def __init__(self, threads=None, shard=4):
        self.threads = available_cores() if threads is None else threads
        self.shard = shard
        if self.threads < 1 or shard < 1:
            raise ValueError(f"threads and shard must be at least 1, got {self.threads} and {shard}")
        self._blas = ThreadpoolController()
        keep_freed_memory()
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None

    def shards(self, size):
        """Slices of 0..size in shards, the last one possibly smaller. ValueError for a batch of none."""
        if size < 1:
            raise ValueError(f"a batch needs at least one sample, got {size}")
        return [slice(start, min(start + self.shard, size)) for start in range(0, size, self.shard)]

    def run(self, function, shards):
        """function(shard) for every shard, yielding results in the order of the shards. No weight may change meanwhile."""
        with self._blas.limit(limits=1, user_api="blas"), reuse_filters():
            if self._pool is None or len(shards) == 1:
                yield from map(function, shards)
                return
            waiting = deque()
            for shard in shards:
                waiting.append(self._pool.submit(contextvars.copy_context().run, function, shard))
                if len(waiting) > 2 * self.threads:  # enough to keep every thread busy, few enough to keep memory flat
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def loss_and_gradient(self, loss, parameters, size):
        """The mean loss of a batch of `size` samples, and its gradient as one flat array in the parameters' order.

        loss(shard): the mean loss of the samples of that slice, as a scalar Tensor.
        """
        xp = parameters[0].xp
        total = xp.zeros(sum(p.size for p in parameters), parameters[0].dtype)
        ends = np.cumsum([p.size for p in parameters]).tolist()
        mean_loss = 0.0

        def shard_gradients(shard):
            value = loss(shard)
            share = xp.asarray((shard.stop - shard.start) / size, dtype=value.dtype)
            return value.data * share, gradients(value, parameters, share.reshape(value.shape))

        for value, found in self.run(shard_gradients, self.shards(size)):
            mean_loss = mean_loss + value
            for gradient, p, end in zip(found, parameters, ends, strict=True):
                total[end - p.size : end] += gradient.reshape(-1)
        return mean_loss, total

    def map(self, function, size):
        """function(shard) without gradients for every shard of `size` samples; the arrays it returns, joined."""

        def evaluate(shard):
            with no_grad():
                return function(shard)

        parts = list(self.run(evaluate, self.shards(size)))
        return array_module(parts[0]).concatenate(parts) if len(parts) > 1 else parts[0]
