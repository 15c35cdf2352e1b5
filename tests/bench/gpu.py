"""The benchmark on a GPU: `make bench DEVICE=cuda`. The same network here and in PyTorch, in TF32 and in bfloat16.

A GPU works behind the host's back, so the clock starts and stops when it has done all it was given, and in between
some steps are queued, as in a real run. A process for each framework, which take turns, as in bench.py.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import nn
from nn.gpu import kernels
from nn.gpu.precision import matrix_product

WORKER = Path(__file__).with_name("worker.py")
NAMES = ("tinyddpm", "torch-channels-last", "torch-compile")
BATCHES = (128, 512)
QUEUED = 20  # steps between two readings of the clock


class Gpu:
    """Where and how a worker computes."""

    torch_device = "cuda"

    def __init__(self, name, precision):
        self.precision = precision
        if name == "tinyddpm":
            self.xp = nn.choose_device("cuda")
            self.synchronise = self.xp.cuda.Device().synchronize
            self.peak = self.xp.get_default_memory_pool().total_bytes  # a pool keeps what it has had
            return
        import torch

        self.synchronise, self.peak = torch.cuda.synchronize, torch.cuda.max_memory_reserved
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True

    def place(self, name, data):
        """Images and noise on the device; timesteps stay on the host, for both."""
        x, noise, t = data
        if name == "tinyddpm":
            return self.xp.asarray(x), self.xp.asarray(noise), t
        import torch

        return torch.as_tensor(x, device=self.torch_device), torch.as_tensor(noise, device=self.torch_device), t


def answer(name, gpu, cases):
    """A worker's life: its outputs first, then for every line "case batch" [seconds of a step, MB held so far]."""
    from worker import STEPS, inputs

    ours = nn.precision(gpu.precision) if name == "tinyddpm" else contextlib.nullcontext()
    with ours:
        train, sample, predict = cases(name, gpu)
        x, _, t = gpu.place(name, inputs(4))
        print(json.dumps(predict(x, t).tolist()), flush=True)
        for line in sys.stdin:
            which, batch = line.split()
            run, data = (train if which == "train" else sample), gpu.place(name, inputs(int(batch)))
            gpu.synchronise()
            start = time.perf_counter()
            runs = max(1, QUEUED // STEPS[which])
            for _ in range(runs):
                run(*data)
            gpu.synchronise()
            seconds = (time.perf_counter() - start) / (runs * STEPS[which])
            print(json.dumps([seconds, gpu.peak() / 1e6]), flush=True)


def main(rounds):
    """Print both tables; exits with a message where there is no GPU or no PyTorch for it."""
    try:
        cupy = nn.choose_device("cuda")
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {torch.__version__} sees no GPU")
    except (RuntimeError, ImportError) as error:
        sys.exit(f"the benchmark on a GPU cannot run: {error}")
    print(environment(cupy, torch))
    for precision in ("tf32", "bf16"):
        compare(precision, rounds)
        largest_ops(cupy, precision)


def environment(cupy, torch):
    """What these numbers depend on."""
    runtime = cupy.cuda.runtime
    versions = [f"{v // 1000}.{v % 1000 // 10}" for v in (runtime.driverGetVersion(), runtime.runtimeGetVersion())]
    return "\n".join(
        [
            f"- GPU: {runtime.getDeviceProperties(0)['name'].decode()}",
            f"- CUDA of the driver, of CuPy, of PyTorch: {versions[0]}, {versions[1]}, {torch.version.cuda}",
            f"- CuPy, PyTorch, NumPy: {cupy.__version__}, {torch.__version__}, {np.__version__}",
        ]
    )


def compare(precision, rounds):
    """One table: milliseconds of a step, images/s and memory, of each framework in this precision."""
    workers, expected = {}, None
    for name in NAMES:
        command = [sys.executable, WORKER, name, "cuda", precision]
        # each framework by itself: what TF32 the environment allows must not reach the others
        environ = {key: value for key, value in os.environ.items() if key != "CUPY_TF32"}
        workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
        outputs = np.array(json.loads(workers[name].stdout.readline()))
        expected = outputs if expected is None else expected
        difference = abs(outputs - expected).max() / abs(expected).max()
        assert difference < {"tf32": 0.02, "bf16": 0.1}[precision], f"{name} computes something else: {difference:.1e}"
    print(
        f"\n{precision}: milliseconds a step, median of {rounds}; in brackets, its ratio to tinyddpm's; images/s; MB held.\n"
    )
    print("| case | " + " | ".join(NAMES) + " |\n|---|" + "---|" * len(NAMES))
    for case, batch in [(case, batch) for case in ("train", "sample") for batch in BATCHES]:
        found = {name: [] for name in NAMES}
        for turn in range(rounds + 2):
            for name, worker in workers.items():
                print(case, batch, file=worker.stdin, flush=True)
                measured = json.loads(worker.stdout.readline())
                if turn >= 2:  # the first two turns compile and warm up
                    found[name].append(measured)
        medians = {name: statistics.median(seconds for seconds, _ in rows) for name, rows in found.items()}
        cells = [
            f"{1e3 * s:.2f} [{s / medians['tinyddpm']:.2f}], {batch / s:.0f}/s, {found[name][-1][1]:.0f} MB"
            for name, s in medians.items()
        ]
        print(f"| {case}, batch {batch} | " + " | ".join(cells) + " |", flush=True)
    for worker in workers.values():
        worker.communicate()


def largest_ops(cupy, precision, n=128):
    """Five ops at the sizes where the network spends most: their rates, of the least possible traffic, and shares of the GPU's."""

    def normal(*shape):
        return nn.Tensor(
            cupy.asarray(np.random.default_rng(0).standard_normal(shape, dtype=np.float32)), requires_grad=True
        )

    x, wide, row, bias = normal(n, 28, 28, 32), normal(n, 14, 14, 128), normal(32), normal(64)
    weight, wide_weight, flat = normal(3, 3, 32, 32), normal(3, 3, 128, 64), [normal(1_100_000).data for _ in range(4)]

    def there_and_back(op, *tensors):
        y = op(*tensors)
        nn.gradients(y, tensors, y.data)

    ops = {  # name: (call, floating-point operations, bytes that must be read or written)
        "conv2d 28x28, 32 to 32, with gradients": (
            lambda: there_and_back(lambda *a: nn.conv2d(*a, padding=1), x, weight, row),
            6 * x.size * 9 * 32,
            5 * x.data.nbytes,
        ),
        "conv2d 14x14, 128 to 64, with gradients": (
            lambda: there_and_back(lambda *a: nn.conv2d(*a, padding=1), wide, wide_weight, bias),
            6 * wide.size * 9 * 64,
            4 * wide.data.nbytes,
        ),
        "group_norm_silu, with gradients": (
            lambda: there_and_back(lambda *a: nn.group_norm_silu(*a, 8), x, row, row),
            0,
            5 * x.data.nbytes,
        ),
        "Adam": (lambda: kernels.adam(*flat, 0.9, 0.999, 1e-8, 1e-3, 1.0), 0, 7 * flat[0].nbytes),
        "noise": (lambda: nn.random.normal(0, "noise", 0, range(n), (28, 28, 1), cupy), 0, 4 * n * 784),
    }
    square, large = cupy.ones((8192, 8192), np.float32), cupy.ones(1 << 28, np.float32)
    print(
        f"\n| op, batch {n}, {precision} | ms | GFLOP/s | of one large product's | GB/s | of a large copy's |\n"
        + "|---" * 6
        + "|"
    )
    with nn.precision(precision):
        synchronise = cupy.cuda.Device().synchronize
        products = 2 * square.size**1.5 / seconds_of(lambda: matrix_product(square, square), synchronise)
        memory = 2 * large.nbytes / seconds_of(large.copy, synchronise)
        for name, (call, operations, traffic) in ops.items():
            seconds = seconds_of(call, synchronise)
            print(
                f"| {name} | {1e3 * seconds:.3f} | {operations / seconds / 1e9:.0f} | {operations / seconds / products:.0%} | "
                f"{traffic / seconds / 1e9:.0f} | {traffic / seconds / memory:.0%} |"
            )


def seconds_of(call, synchronise):
    """Seconds of one of QUEUED calls, the best of five."""
    times = []
    for _ in range(5):
        synchronise()
        start = time.perf_counter()
        for _ in range(QUEUED):
            call()
        synchronise()
        times.append((time.perf_counter() - start) / QUEUED)
    return min(times)
