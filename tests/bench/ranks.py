"""A training step on ranks beside worker processes, and what a model fitted to it says of 64 ranks: ratios and a figure.

    python tests/bench/ranks.py --figure docs/ranks.png

Each number is the fastest of some, in processes that take turns. Needs the extras `mpi` and `demo`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from subprocesses import ranks_command  # noqa: E402

import nn  # noqa: E402
import tinyddpm as td  # noqa: E402
from tinyddpm.program.train import Trainer  # noqa: E402

WIRE, SHARD = 1.25e9, 16  # bytes a second of 10 Gbit Ethernet; images that a core takes at a time by default
RANKS = (1, 2, 4, 8, 16, 32, 64)
BATCHES = (64, 256, 1024, 4096)


# ==== measured: in a process of its own, or on ranks ====


class Weights(nn.Module):
    """As many parameters as the default network has, with which next to nothing is computed."""

    def __init__(self, n):
        self.values = nn.tensor(np.ones(n, np.float32), requires_grad=True)

    def __call__(self, x):
        return (self.values * float(x[0])).mean()


def fastest(function, times):
    """(seconds, seconds of this process on a core): the least of some calls, after one that warms up."""
    function()
    found = []
    for _ in range(times):
        start, cpu = time.perf_counter(), time.process_time()
        function()
        found.append((time.perf_counter() - start, time.process_time() - cpu))
    return [min(seconds) for seconds in zip(*found, strict=True)]


def measure(workers, batch, times):
    """Seconds of a step of the default network; on a core, of its batch, its gradient, its update; of an exchange."""
    rng = np.random.default_rng(0)
    data = td.Dataset(rng.integers(0, 256, (8192, 28, 28)).astype(np.uint8), rng.integers(0, 10, 8192))
    config = td.Config.of(td.Data("noise", data), batch=batch)
    trainer = Trainer(config, data, td.Compute(workers=workers))
    rows = trainer.batch(0)
    weights, cores = Weights(sum(p.size for p in trainer.parameters)), nn.Parallel(workers, shard=1)

    def exchange():
        weights.values.data += 1  # so that the weights are sent, as in training
        cores.loss_and_gradient(lambda model, x: model(x), weights, np.ones(workers * nn.cpu.ranks.size()))

    _, gradient = trainer.model.loss_and_gradient(*rows)

    def update():
        nn.clip_by_global_norm(gradient, config.gradient_limit)
        trainer.optimiser.step(gradient)
        trainer.ema.update()

    return {
        "step": fastest(trainer.step, times)[0],
        "batch": fastest(lambda: trainer.batch(trainer.steps_done), times)[1],
        "gradient": fastest(lambda: trainer.model.loss_and_gradient(*rows), times)[1],
        "update": fastest(update, times)[1],
        "exchange": fastest(exchange, 10 * times)[0],
        "bytes": 4 * weights.values.size,
    }


def measured(ranks, workers, batch=64, times=3):
    """`measure` on so many ranks of so many worker processes."""
    words = [__file__, "--measure", workers, batch, times]
    command = ranks_command(ranks, *words) if ranks > 1 else [sys.executable, *map(str, words)]
    path = os.pathsep.join(sys.path)
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    return json.loads(found.stdout)


# ==== the model of a step ====


def fitted(one, large, on_ranks):
    """{name: seconds} of a step's parts. one, large: measured on a core with batches of 64 and 256. on_ranks: {ranks: }."""
    levels = sum(ranks.bit_length() - 1 for ranks in on_ranks)
    exchanges = sum(found["exchange"] - one["exchange"] for found in on_ranks.values())
    return {
        "image": one["gradient"] / 64,  # its gradient
        "data": (large["batch"] - one["batch"]) / 192,  # making one image of the batch, on rank 0
        "rest": one["update"],  # the optimiser and the averages, on rank 0
        "level": exchanges / levels,  # once down a level of the tree, and up
    }


def seconds_of_step(parts, ranks, batch, size, wire=WIRE):
    """What the model says: rank 0 makes the batch, spreads it and the weights, computes as all do, adds, and optimises."""
    lanes = -(-batch // SHARD)
    used = min(ranks, lanes)
    turns = -(-lanes // used)  # lanes that one rank computes, one after another
    levels = (used - 1).bit_length() * (parts["level"] + 2 * size / wire)
    rows = batch * 2 * 28 * 28 * 4 * (1 - 1 / used) / wire  # x_t and the target
    return parts["rest"] + parts["data"] * batch + parts["image"] * SHARD * turns + levels + rows


def figure(parts, size, path):
    """Speed by ranks for each batch, as the model has it."""
    from tinyddpm.program import plots

    plt = plots._import("matplotlib.pyplot", "matplotlib")
    shown, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
    axes.plot(RANKS, RANKS, color="0.8", label="ideal")
    for batch, shade in zip(BATCHES, ("#9fb8cf", "#6f96b8", "#30638e", "#1f2933"), strict=True):
        alone = seconds_of_step(parts, 1, batch, size)
        speed = [alone / seconds_of_step(parts, ranks, batch, size) for ranks in RANKS]
        axes.plot(RANKS, speed, "o-", ms=3, color=shade, label=f"batch {batch}")
    axes.set(xscale="log", yscale="log", xlabel="ranks, of one core each", ylabel="times as fast as one rank")
    axes.set_xticks(RANKS, map(str, RANKS))
    axes.set_yticks(RANKS, map(str, RANKS))
    axes.minorticks_off()
    axes.set_title(
        f"A model of a training step: {1e3 * parts['image']:.1f} ms an image, {1e3 * parts['rest']:.0f} ms alone on rank 0\n"
        f"and {1e3 * parts['data']:.3f} ms an image there, {1e3 * parts['level']:.1f} ms a level of the tree, "
        f"{size / 1e6:.1f} MB each way at 10 Gbit/s",
        fontsize=9,
    )
    axes.legend(frameon=False, fontsize=9)
    shown.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", help="a .png to draw the model into")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each process (default 2)")
    parser.add_argument("--measure", nargs=3, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return print(json.dumps(measure(*arguments.measure)))
    kinds = {"one process": (1, 1), "2 workers": (1, 2), "2 ranks": (2, 1), "4 workers": (1, 4), "4 ranks": (4, 1)}
    rounds = [{name: measured(*kind) for name, kind in kinds.items()} for _ in range(arguments.rounds)]
    best = {name: {part: min(r[name][part] for r in rounds) for part in rounds[0][name]} for name in kinds}
    one, on_ranks = best["one process"], {2: best["2 ranks"], 4: best["4 ranks"]}
    print(f"a step of 64 images, seconds; times as fast as one process; exchange of {one['bytes']} bytes, ms")
    for name, found in best.items():
        exchange = 1e3 * (found["exchange"] - one["exchange"])
        print(f"{name:12} {found['step']:.3f} {one['step'] / found['step']:6.2f} {exchange:8.2f}")
    parts = fitted(one, measured(1, 1, batch=256, times=2), on_ranks)
    print("model, ms:", {name: round(1e3 * seconds, 3) for name, seconds in parts.items()})
    for batch in BATCHES:
        alone = seconds_of_step(parts, 1, batch, one["bytes"])
        speed = [alone / seconds_of_step(parts, ranks, batch, one["bytes"]) for ranks in RANKS]
        print(f"batch {batch:5}, {RANKS} ranks:", *(f"{s:.1f}" for s in speed))
    if arguments.figure:
        figure(parts, one["bytes"], arguments.figure)


if __name__ == "__main__":
    main()
