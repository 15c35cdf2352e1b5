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


def measure(workers, batch, shard, times):
    """Seconds of a step of the default network and of an exchange, and of the caller's core for that.

    In one process also seconds on a core of a step's parts: its batch, its gradient, its update.
    """
    rng = np.random.default_rng(0)
    data = td.Dataset(rng.integers(0, 256, (8192, 28, 28)).astype(np.uint8), rng.integers(0, 10, 8192))
    config = td.Config.of(td.Data("noise", data), batch=batch, shard=shard)
    trainer = Trainer(config, data, td.Compute(workers=workers))
    weights, cores = Weights(sum(p.size for p in trainer.parameters)), nn.Parallel(workers, shard=1)
    lanes = np.ones(workers * nn.cpu.ranks.size())

    def exchange():
        weights.values.data += 1  # so that the weights are sent, as in training
        cores.loss_and_gradient(lambda model, x: model(x), weights, lanes)

    found = {"step": fastest(trainer.step, times)[0], "bytes": 4 * weights.values.size}
    found |= dict(zip(("exchange", "caller"), fastest(exchange, 10 * times), strict=True))
    if len(lanes) > 1:
        return found
    rows = trainer.batch(0)
    _, gradient = trainer.model.loss_and_gradient(*rows)

    def update():
        nn.clip_by_global_norm(gradient, config.gradient_limit)
        trainer.optimiser.step(gradient)
        trainer.ema.update()

    return found | {
        "batch": fastest(lambda: trainer.batch(trainer.steps_done), times)[1],
        "gradient": fastest(lambda: trainer.model.loss_and_gradient(*rows), times)[1],
        "update": fastest(update, times)[1],
    }


def measured(ranks, workers, batch=64, shard=SHARD, times=5):
    """`measure` on so many ranks of so many worker processes."""
    words = [__file__, "--measure", workers, batch, shard, times]
    command = ranks_command(ranks, *words) if ranks > 1 else [sys.executable, *map(str, words)]
    path = os.pathsep.join(sys.path)
    found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    return json.loads(found.stdout)


# ==== the model of a step ====


def fitted(one, large, small, on_workers, on_ranks):
    """{name: seconds} of a step's parts.

    one, large, small: measured on a core with batches of 64, of 256, and of 64 in shards of 4 images. on_workers,
    on_ranks: {how many: what was measured}.
    """
    levels = sum(ranks.bit_length() - 1 for ranks in on_ranks)
    exchanges = sum(found["exchange"] - one["exchange"] for found in on_ranks.values())
    callers = sum(found["caller"] - one["caller"] for found in on_workers.values())
    return {
        "image": one["gradient"] / 64,  # its gradient
        "image of 4": small["gradient"] / 64,
        "data": (large["batch"] - one["batch"]) / 192,  # making one image of the batch, on rank 0
        "rest": one["update"],  # the optimiser and the averages, on rank 0
        "level": exchanges / levels,  # once down a level of the tree, and up
        "worker": callers / sum(workers - 1 for workers in on_workers),  # what one costs its caller
    }


def seconds_on_workers(parts, workers, batch, shard):
    """What the model says of one machine: the caller sends to one worker after another, and adds what they answer."""
    lanes = -(-batch // shard)
    used = min(workers, lanes)
    image = parts["image" if shard == SHARD else "image of 4"]
    return parts["rest"] + parts["data"] * batch + image * shard * -(-lanes // used) + parts["worker"] * (used - 1)


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
    parser.add_argument("--rounds", type=int, default=3, help="turns of each process (default 3)")
    parser.add_argument("--shard", type=int, default=SHARD, help=f"of the measured steps (default {SHARD})")
    parser.add_argument("--measure", nargs=4, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return print(json.dumps(measure(*arguments.measure)))
    counts = [2**i for i in range(1, max(4, nn.available_cores()).bit_length())]
    kinds = {"one process": (1, 1)} | {f"{n} workers": (1, n) for n in counts} | {f"{n} ranks": (n, 1) for n in counts}
    rounds = [
        {name: measured(*kind, shard=arguments.shard) for name, kind in kinds.items()} for _ in range(arguments.rounds)
    ]
    best = {name: {part: min(r[name][part] for r in rounds) for part in rounds[0][name]} for name in kinds}
    one = best["one process"]
    print(f"a step of 64 images, seconds; times as fast as one process; exchange of {one['bytes']} bytes, ms")
    for name, found in best.items():
        exchange = 1e3 * (found["exchange"] - one["exchange"])
        print(f"{name:12} {found['step']:.3f} {one['step'] / found['step']:6.2f} {exchange:8.2f}")
    others = [{n: best[f"{n} {kind}"] for n in counts} for kind in ("workers", "ranks")]
    parts = fitted(one, measured(1, 1, batch=256, times=1), measured(1, 1, shard=4), *others)
    print("model, ms:", {name: round(1e3 * seconds, 3) for name, seconds in parts.items()})
    for shard in (SHARD, 4):
        alone = seconds_on_workers(parts, 1, 64, SHARD)
        speed = [alone / seconds_on_workers(parts, workers, 64, shard) for workers in RANKS[:5]]
        print(f"batch 64, shard {shard:2}, {RANKS[:5]} workers:", *(f"{s:.1f}" for s in speed))
    for batch in BATCHES:
        alone = seconds_of_step(parts, 1, batch, one["bytes"])
        speed = [alone / seconds_of_step(parts, ranks, batch, one["bytes"]) for ranks in RANKS]
        print(f"batch {batch:5}, {RANKS} ranks:", *(f"{s:.1f}" for s in speed))
    if arguments.figure:
        figure(parts, one["bytes"], arguments.figure)


if __name__ == "__main__":
    main()
