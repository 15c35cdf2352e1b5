"""How far a training step is from what the machine could do: floors of the ops, and two workers beside one.

The floor of an op is the larger of two times: its multiplications at the rate of one large sgemm, and its bytes (what it
returned, or was sent, once read and once written) at the rate of adding two arrays that lie in memory. Run it as it stands.
"""

import statistics
import time
from collections import defaultdict
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits
from worker import inputs, our_model, squared_error

import nn
from nn import conv
from nn.backend import keep_freed_memory
from tinyddpm.program.config import Config
from tinyddpm.program.model import shard_size

SHARD = shard_size(Config(preset="base"))


def seconds(function, runs):
    """The median of `runs` timings, after one that warms up."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sgemm_rate(n=1024):
    """Multiplications and additions a second of one large matrix product on this thread."""
    a, b = np.ones((2, n, n), np.float32)
    return 2 * n**3 / seconds(lambda: a @ b, 20)


def memory_rate(n=1 << 25):
    """Bytes a second, read and written, of an addition too large for any cache."""
    a, b, c = np.ones((3, n), np.float32)
    return 3 * a.nbytes / seconds(lambda: np.add(a, b, out=c), 5)


@contextmanager
def counted_multiplications():
    """{op: floating-point operations of its forward pass, as direct products}, of what runs inside."""
    counts = defaultdict(int)
    conv2d, matmul = conv.conv2d, nn.Tensor.__matmul__

    def counting_conv2d(x, weight, bias, stride=1, padding=0):
        y = conv2d(x, weight, bias, stride, padding)
        counts["convolution"] += 2 * y.size * weight.size // weight.shape[3]
        return y

    def counting_matmul(self, other):
        y = matmul(self, other)
        counts["matmul"] += 2 * y.size * self.shape[-1]
        return y

    conv.conv2d, nn.Tensor.__matmul__ = counting_conv2d, counting_matmul
    try:
        yield counts
    finally:
        conv.conv2d, nn.Tensor.__matmul__ = conv2d, matmul


def main():
    keep_freed_memory()  # as training does
    model = our_model()
    x, noise, t = inputs(SHARD)

    def step():
        return nn.gradients(squared_error(model, x, t, noise), model.parameters())

    with threadpool_limits(1, "blas"), nn.constant_weights():
        products, memory = sgemm_rate(), memory_rate()
        with counted_multiplications() as counts:
            whole = seconds(step, 20)
            counts = {name: count / 21 for name, count in counts.items()}
        with nn.profile() as table:
            for _ in range(10):
                step()
    print(
        f"one thread: sgemm {products / 1e9:.0f} GFLOP/s, memory {memory / 1e9:.1f} GB/s; one shard of {SHARD} images\n"
    )
    print(
        "| op, forward and backward | ms | products at sgemm's rate | bytes at memory's rate | over its floor |\n"
        + "|---" * 5
        + "|"
    )
    times, sizes = defaultdict(float), defaultdict(float)
    for (_, name), (spent, _, size) in table.items():
        name = "convolution" if name.startswith("conv2d") else name
        times[name] += 100 * spent
        sizes[name] += 2 * size / 10
    for name in sorted(times, key=times.get, reverse=True)[:6]:
        by_products, by_bytes = 3e3 * counts.get(name, 0) / products, 1e3 * sizes[name] / memory
        floor = max(by_products, by_bytes)
        print(f"| {name} | {times[name]:.1f} | {by_products:.1f} | {by_bytes:.1f} | {times[name] / floor:.2f} |")
    direct = 3 * sum(counts.values()) / products
    print(f"| the whole step | {1e3 * whole:.1f} | {1e3 * direct:.1f} | | {whole / direct:.2f} |\n")
    scaling(model)


def scaling(model, rounds=7):
    """Print how many times the work of one worker two and more do, in turn."""
    x, noise, t = inputs(128)
    numbers = sorted({1, 2, nn.available_cores()})
    runs = {n: nn.Parallel(n, SHARD) for n in numbers}
    times = {n: [] for n in numbers}
    for turn in range(rounds + 1):
        for n, parallel in runs.items():
            start = time.perf_counter()
            parallel.loss_and_gradient(squared_error, model, x, t, noise)
            if turn:
                times[n].append(time.perf_counter() - start)
    for n, spent in times.items():
        median = statistics.median(spent)
        speedup = statistics.median(a / b for a, b in zip(times[1], spent, strict=True))
        print(
            f"{n} worker{'s' if n > 1 else ''}: loss and gradient of 128 images in {median:.3f} s, {speedup:.2f} times one"
        )


if __name__ == "__main__":
    main()
