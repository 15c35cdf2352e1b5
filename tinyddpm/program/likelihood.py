"""The likelihood of images by the probability flow, beside the bound on it, in bits per dimension. (E42) Next: quality.py.

The chain's bound sends x_1 in L_T + L_1:T-1 nats. The flow has a density, so it sends x_1 in log q(x_1 | x_0) - log p(x_1)
nats (theory/flow.py). Then both send x_0 in L_0 nats. The noise of x_1 is what makes levels continuous.
"""

import copy
import itertools
from dataclasses import dataclass

import numpy as np

import nn
from nn.options import whole
from tinyddpm.bound import bits_per_dim
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.program.compute import enough_memory
from tinyddpm.program.evaluate import Evaluation, evaluate, label_nats, standard_error
from tinyddpm.theory.continuous import clipped
from tinyddpm.theory.flow import flow_log_prob_estimates, noised_nll

__all__ = ["Likelihood", "flow_likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """Bits/dim by the flow, beside the bound on the same images.

    noised: what x_1 costs by the flow, in the place of L_T + L_1:T-1. total, standard_error: the sum with L_0 and the
    label's bits. of_probes: the part of the standard error that is Hutchinson's. steps, probes: see `flow_likelihood`.
    """

    bound: Evaluation
    noised: float
    total: float
    standard_error: float
    of_probes: float
    steps: int
    probes: int

    def __str__(self):
        return (
            f"{self.bound}\n"
            f"  flow       {self.noised:.4f}     (x_1 by the probability flow, {self.steps} steps of order 4)\n"
            f"  sum        {self.total:.4f} +- {self.standard_error:.4f}   (with it for L_T and L_1:T-1; "
            f"+- {self.of_probes:.4f} of {self.probes} probes)"
        )

    __repr__ = __str__


def flow_likelihood(model, images, labels=None, steps=40, probes=2, seed=0, batch=64, progress=progress_bar, **options):
    """The likelihood of uint8 `images` (N, H, W) by the probability flow of `model`, and the bound: a `Likelihood`.

    labels, options: as `evaluate` takes them; x0_hat is clipped on the flow as in the bound. steps: of Runge-Kutta from the log-SNR of t = 1 to that of T, each of
    4 (1 + 2 probes) calls of the network, in float64, which central differences need. probes: how many estimates of the
    divergence, at least 2, each with new random signs at every point of the path. The standard errors do not know the
    error of the steps: double them to see it. A network that is shown waves and was trained for minutes needs many.
    """
    steps, probes, batch = whole("steps", steps, 1), whole("probes", probes, 2), whole("batch", batch, 1)
    bound = evaluate(model, images, labels, seed=seed, batch=batch, progress=progress, **options)
    terms = model.diffusion.bound(**{name: options[name] for name in ("variance", "clip") if name in options})
    clip = options.get("clip", (-1.0, 1.0))
    high, low = model.schedule.log_snr[[1, -1]].tolist()
    precise = copy.copy(model)
    precise.network = copy.deepcopy(model.network).astype(np.float64)
    noised, known = [], []
    for start in progress(range(0, len(images), batch), desc="along the flow"):
        rows = np.arange(start, min(start + batch, len(images)))
        told = None if labels is None else np.asarray(labels)[rows]
        x0, noise = model.x0(images[rows]), model.noise(seed, "L_0", 0, rows)
        denoise = clipped(precise.diffusion.at_log_snr(precise.denoiser(told)), clip)
        calls = itertools.count()

        def draw(calls=calls, rows=rows):
            call = probes * next(calls)
            return [2.0 * (model.noise(seed, "probe", call + p, rows) > 0) - 1 for p in range(probes)]

        def log_prob(z, denoise=denoise, draw=draw):
            return flow_log_prob_estimates(denoise, z, high, low, steps, draw)

        with enough_memory("the flow", len(rows)):
            noised.append(nn.to_numpy(noised_nll(log_prob, x0.astype(np.float64), high, noise.astype(np.float64))))
            known.append(nn.to_numpy(terms.reconstruction(model.denoiser(told), x0, noise)))
    dimensions = x0[0].size
    noised = bits_per_dim(np.concatenate(noised, axis=1), dimensions)  # (probes, N)
    rest = bits_per_dim(np.concatenate(known) + label_nats(model.config, labels, len(images)), dimensions)
    total = noised.mean(axis=0) + rest
    of_probes = (noised.var(axis=0, ddof=1).sum() / probes) ** 0.5 / len(images)
    return Likelihood(bound, noised.mean().item(), total.mean().item(), standard_error(total), of_probes, steps, probes)
