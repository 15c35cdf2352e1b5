"""Where the time of a training step goes, op by op: printed, and drawn. Next: arguments.py."""

import time

import numpy as np

import nn
from tinyddpm.data.images import Dataset
from tinyddpm.program import plots
from tinyddpm.program.compute import Compute
from tinyddpm.program.train import Trainer

__all__ = ["profile_step"]


def profile_step(config, out=None, steps=3, seed=0):
    """Print where the time of a training step on one thread goes, op by op; draw it into `out`, a .png, if given."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (config.batch, *config.image), dtype=np.uint8)
    labels = np.zeros(config.batch, np.int64) if config.classes else None
    trainer = Trainer(config, Dataset(images, labels), Compute(workers=1))
    trainer.step()  # the first step pays for memory and tables
    start = time.perf_counter()
    with nn.profile() as table:
        for _ in range(steps):
            trainer.step()
    total = (time.perf_counter() - start) / steps
    rows = sorted(((s / steps, c // steps, b / steps, *key) for key, (s, c, b) in table.items()), reverse=True)
    rest = total - sum(seconds for seconds, *_ in rows)
    print(f"one step of {config.batch} images, preset {config.preset}, one thread: {total:.3f} s")
    print(f"{'op':34s} {'ms':>8s} {'share':>7s} {'calls':>6s} {'MB':>8s}")
    for seconds, calls, size, event, name in [*rows, (rest, 1, 0, "the rest:", "data, summing, Adam, EMA")]:
        print(f"{event + ' ' + name:34s} {1e3 * seconds:8.1f} {seconds / total:7.1%} {calls:6d} {size / 1e6:8.1f}")
    if out is not None:
        times = [(f"{name} ({event})", seconds) for seconds, _, _, event, name in rows]
        plots.save_figure(out, plots.time_by_op(times, total))
        print(out)
