"""Denoising diffusion from the array up: the mathematics in one place, each formula a short named function.

Read the modules in this order: schedule, spacing, coefficients, gaussian, forward, prediction, reverse, samplers, solvers,
loss, bound, decoder.
The program is there by name as well, and is imported when it is first asked for:

    import tinyddpm as td
    data = td.load_data("mnist")
    model = td.train(data, minutes=5)
    images = model.sample(16, labels=range(10))
"""

import importlib

from tinyddpm.bound import bits_per_dim, variational_bound
from tinyddpm.coefficients import gather
from tinyddpm.forward import q_jump, q_marginal, q_posterior, q_sample, q_step, q_transition
from tinyddpm.gaussian import Gaussian
from tinyddpm.loss import l_simple, loss_weight, training_weight
from tinyddpm.prediction import PREDICTIONS, convert, from_x0, x0_from
from tinyddpm.reverse import ancestral_step, p_mean_variance, p_mean_variance_eps, reverse_process, sample
from tinyddpm.samplers import SAMPLERS, ddim_step, dpm_solver, gradient_estimation, heun_step
from tinyddpm.schedule import SCHEDULES, NoiseSchedule, named_schedule

__version__ = "0.1.0"

__all__ = ["NoiseSchedule", "SCHEDULES", "named_schedule", "gather", "Gaussian", "q_sample", "q_step", "q_jump"]
__all__ += ["q_posterior", "q_marginal", "q_transition", "PREDICTIONS", "x0_from", "from_x0", "convert"]
__all__ += ["p_mean_variance", "p_mean_variance_eps", "reverse_process", "sample", "SAMPLERS", "ancestral_step"]
__all__ += ["ddim_step", "heun_step", "dpm_solver", "gradient_estimation", "l_simple", "loss_weight"]
__all__ += ["training_weight", "variational_bound", "bits_per_dim"]

# Names of the program, each with its module.
_PROGRAM = {
    "load_data": "tinyddpm.data.load",
    "Data": "tinyddpm.data.images",
    "Dataset": "tinyddpm.data.images",
    "train": "tinyddpm.program.run",
    "save": "tinyddpm.program.train",
    "load": "tinyddpm.program.train",
    "Compute": "tinyddpm.program.compute",
    "Config": "tinyddpm.program.config",
    "Model": "tinyddpm.program.model",
    "Judge": "tinyddpm.program.judge",
    "GaussianDiffusion": "tinyddpm.program.diffusions",
    "BinomialDiffusion": "tinyddpm.program.diffusions",
    "HybridDiffusion": "tinyddpm.program.diffusions",
    "VariationalDiffusion": "tinyddpm.program.diffusions",
}
__all__ += list(_PROGRAM)


def __getattr__(name):
    if name not in _PROGRAM:
        raise AttributeError(f"module 'tinyddpm' has no attribute {name!r}")
    importlib.import_module("tinyddpm.program")  # before load_data, which does not need it: see ranks.join there
    return getattr(importlib.import_module(_PROGRAM[name]), name)


def __dir__():
    return sorted({*globals(), *_PROGRAM})
