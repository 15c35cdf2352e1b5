"""Denoising diffusion from the array up: the mathematics in one place, each formula a short named function.

Read the modules in this order: schedule, gaussian, forward, prediction, reverse, loss, bound.
"""

from .bound import bits_per_dim, variational_bound
from .forward import q_jump, q_marginal, q_posterior, q_sample, q_step, q_transition
from .gaussian import Gaussian
from .loss import l_simple, loss_weight
from .prediction import PREDICTIONS, convert, from_x0, x0_from
from .reverse import ddim_step, p_mean_variance, p_mean_variance_eps, reverse_process, sample
from .schedule import SCHEDULES, NoiseSchedule, gather, named_schedule

__version__ = "0.1.0"

__all__ = [
    "NoiseSchedule", "SCHEDULES", "named_schedule", "gather", "Gaussian",
    "q_sample", "q_step", "q_jump", "q_posterior", "q_marginal", "q_transition",
    "PREDICTIONS", "x0_from", "from_x0", "convert",
    "p_mean_variance", "p_mean_variance_eps", "ddim_step", "reverse_process", "sample",
    "l_simple", "loss_weight", "variational_bound", "bits_per_dim",
]  # fmt: skip
