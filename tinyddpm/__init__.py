"""Denoising diffusion from the array up: the mathematics in one place, each formula a short named function.

Read the modules in this order: schedule, gaussian, forward, prediction, reverse, loss, bound.
"""

from tinyddpm.bound import bits_per_dim, variational_bound
from tinyddpm.forward import q_jump, q_marginal, q_posterior, q_sample, q_step, q_transition
from tinyddpm.gaussian import Gaussian
from tinyddpm.loss import l_simple, loss_weight
from tinyddpm.prediction import PREDICTIONS, convert, from_x0, x0_from
from tinyddpm.reverse import ddim_step, p_mean_variance, p_mean_variance_eps, reverse_process, sample
from tinyddpm.schedule import SCHEDULES, NoiseSchedule, gather, named_schedule

__version__ = "0.1.0"

__all__ = ["NoiseSchedule", "SCHEDULES", "named_schedule", "gather", "Gaussian", "q_sample", "q_step", "q_jump"]
__all__ += ["q_posterior", "q_marginal", "q_transition", "PREDICTIONS", "x0_from", "from_x0", "convert"]
__all__ += ["p_mean_variance", "p_mean_variance_eps", "ddim_step", "reverse_process", "sample", "l_simple"]
__all__ += ["loss_weight", "variational_bound", "bits_per_dim"]
