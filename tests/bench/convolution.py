"""One 3x3 convolution, each way, on one thread: microseconds, the best of many runs. Run it as it stands."""

import time

import numpy as np
from threadpoolctl import threadpool_limits

import nn
from nn.backend import keep_freed_memory
from nn.conv import conv2d_im2col, conv2d_winograd

SHAPES = [(4, 28, 32, 32), (8, 28, 16, 16), (4, 14, 64, 64), (4, 7, 128, 64)]  # N, H = W, C, O


def best(function, runs=200):
    """The least of `runs` timings, in microseconds: what other programs add to the rest is left out."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


def main():
    rng = np.random.default_rng(0)
    print(
        "| N, H = W, C, O | direct products, three | im2col, all | Winograd, all | Winograd / direct |\n"
        + "|---" * 5
        + "|"
    )
    for n, size, c, o in SHAPES:
        x, weight = (
            nn.Tensor(rng.standard_normal(shape, dtype=np.float32), requires_grad=True)
            for shape in ((n, size, size, c), (3, 3, c, o))
        )
        bias = nn.Tensor(np.zeros(o, np.float32), requires_grad=True)
        g = rng.standard_normal((n, size, size, o), dtype=np.float32)
        columns, matrix = rng.standard_normal((n * size * size, 9 * c), dtype=np.float32), weight.data.reshape(-1, o)

        def step(op, x=x, weight=weight, bias=bias, g=g):
            return nn.gradients(op(x, weight, bias), [x, weight, bias], g)

        direct = 3 * best(lambda columns=columns, matrix=matrix: columns @ matrix)
        im2col = best(lambda step=step: step(lambda *a: conv2d_im2col(*a, stride=1, padding=1)))
        winograd = best(lambda step=step: step(conv2d_winograd))
        print(f"| {n}, {size}, {c}, {o} | {direct:.0f} | {im2col:.0f} | {winograd:.0f} | {winograd / direct:.2f} |")


if __name__ == "__main__":
    keep_freed_memory()  # as training does
    with threadpool_limits(1), nn.constant_weights():
        main()
