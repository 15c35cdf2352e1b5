"""How far a training step is from what the machine could do: floors of the ops, and two workers beside one. And how far
a network evaluation for one image is from its matrix products alone.

The floor of an op is the larger of two times: its multiplications at the rate of one large sgemm, and its bytes (what it
returned, or was sent, once read and once written) at the rate of adding two arrays that lie in memory. Run it as it stands.
"""

import math
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager

import numpy as np
from threadpoolctl import threadpool_limits
from worker import inputs, our_model, squared_error

import nn
from nn import conv, products
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
def recorded():
    """[(op, shape, shape)] of the matrix products inside: the shapes of a convolution's x and filters, or of factors."""
    found, conv2d, linear, attention = [], conv.conv2d, products.linear, products.attention

    def recording_conv2d(x, weight, *others):
        found.append(("convolution", x.shape, weight.shape))
        return conv2d(x, weight, *others)

    def recording_linear(x, weight, bias):
        found.append(("linear", (math.prod(x.shape[:-1]), x.shape[-1]), weight.shape))
        return linear(x, weight, bias)

    def recording_attention(query, key, value):
        (*lead, length, width), others = query.shape, key.shape[-2]
        found.append(("attention", query.shape, (*lead, width, others)))
        found.append(("attention", (*lead, length, others), value.shape))
        return attention(query, key, value)

    conv.conv2d, products.linear, products.attention = recording_conv2d, recording_linear, recording_attention
    try:
        yield found
    finally:
        conv.conv2d, products.linear, products.attention = conv2d, linear, attention


def direct(op, a, b):
    """The factors of the matrix product: of a convolution, all of which are 3x3 and keep the size, those of im2col."""
    return (a, b) if op != "convolution" else ((math.prod(a[:3]), 9 * a[3]), (9 * a[3], b[3]))


def multiplied(op, a, b):
    """Floating-point operations of the product."""
    a, b = direct(op, a, b)
    return 2 * math.prod(a) * b[-1]


def as_computed(op, a, b):
    """The factors of all products that the op makes: of Winograd's convolution its transforms and 36 products."""
    if op != "convolution" or a[3] < 8:
        return [direct(op, a, b)]
    (n, h, w, c), o = a, b[3]
    tiles = n * -(-h // 4) * -(-w // 4)
    transforms = [((m, 6), (batch, 6, tiles * k)) for m, k in ((6, c), (4, o)) for batch in (6, m)]
    return [((36, tiles, c), (36, c, o)), *transforms]


def main():
    keep_freed_memory()  # as training does
    model = our_model()
    x, noise, t = inputs(SHARD)

    def step():
        return nn.gradients(squared_error(model, x, t, noise), model.parameters())

    with threadpool_limits(1, "blas"), nn.constant_weights():
        rate, memory = sgemm_rate(), memory_rate()
        with recorded() as found:
            step()
        counts = defaultdict(int)
        for op, *factors in found:
            counts[op] += multiplied(op, *factors)
        whole = seconds(step, 20)
        with nn.profile() as table:
            for _ in range(10):
                step()
    print(f"one thread: sgemm {rate / 1e9:.0f} GFLOP/s, memory {memory / 1e9:.1f} GB/s; one shard of {SHARD} images\n")
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
        by_products, by_bytes = 3e3 * counts.get(name, 0) / rate, 1e3 * sizes[name] / memory
        floor = max(by_products, by_bytes)
        print(f"| {name} | {times[name]:.1f} | {by_products:.1f} | {by_bytes:.1f} | {times[name] / floor:.2f} |")
    least = 3 * sum(counts.values()) / rate
    print(f"| the whole step | {1e3 * whole:.1f} | {1e3 * least:.1f} | | {whole / least:.2f} |\n")
    one_image(model, rate)
    scaling(model)


def one_image(model, rate, runs=100):
    """Print the time of a network evaluation for one image beside its matrix products alone, in turn."""
    x, _, t = inputs(1)

    def evaluate():
        with nn.no_grad():
            return model(x, t)

    with threadpool_limits(1, "blas"), nn.constant_weights():
        with recorded() as found:
            evaluate()
        channels = alone([as_computed(*each)[0] for each in found])
        everything = alone([factors for each in found for factors in as_computed(*each)])
        times = zip(*[[seconds(f, 1) for f in (evaluate, channels, everything)] for _ in range(runs)], strict=True)
        whole, *floors = (1e3 * statistics.median(each) for each in times)
    floors.append(1e3 * sum(multiplied(*each) for each in found) / rate)
    print(f"a network evaluation for one image, one thread: {whole:.2f} ms")
    names = (
        "its products over channels alone",
        "and the products of Winograd's transforms",
        "all as direct products at sgemm's rate",
    )
    for name, floor in zip(names, floors, strict=True):
        print(f"- {name}: {floor:.2f} ms; the evaluation takes {whole / floor:.2f} times that")
    print()


def alone(shapes):
    """A function that makes the products of factors of these shapes, into arrays that exist already."""
    ready = [[np.ones(shape, np.float32) for shape in pair] for pair in shapes]
    ready = [(a, b, a @ b) for a, b in ready]

    def run():
        for a, b, out in ready:
            np.matmul(a, b, out=out)

    return run


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
