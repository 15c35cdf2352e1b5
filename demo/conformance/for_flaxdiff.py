"""The samplers of FlaxDiff, which computes with JAX, as adapters: on its cosine schedule, and on Karras's sigmas.

Its own loop, `generate_samples`, runs with the function that calls the network replaced. Images have four axes there.
"""

import contextlib
import io
from importlib.metadata import version
from types import SimpleNamespace
from unittest.mock import patch

import jax
import numpy as np
from flaxdiff import samplers, schedulers
from flaxdiff.predictors import DirectPredictionTransform
from flaxdiff.utils import RandomMarkovState

from tinyddpm.properties import Adapter

__all__ = ["Posterior", "Sampler", "adapters", "NAME", "VERSION", "FINDINGS"]

NAME, VERSION = "flaxdiff", version("flaxdiff")
SCHEDULES = {
    "cosine": lambda: schedulers.CosineNoiseScheduler(1000),
    "karras": lambda: schedulers.KarrasVENoiseScheduler(1, sigma_max=80, rho=7, sigma_data=0.5),
}


def made(name, schedule, **options):
    inputs = SimpleNamespace(get_unconditionals=list)
    return getattr(samplers, name)(None, SCHEDULES[schedule](), DirectPredictionTransform(), inputs, **options)


class Jax(Adapter):
    dtype, from_dlpack = "float32", staticmethod(jax.numpy.from_dlpack)


class Posterior(Jax):
    """DDPMSampler, whose step goes from t to t - 1 by the tables of the schedule; index t is its step t - 1."""

    batched = True

    def __init__(self, schedule="cosine"):
        self.schedule, self.sampler = schedule, made("DDPMSampler", schedule)
        self.tables = self.sampler.noise_schedule
        self.alpha_bar = np.append(1.0, np.asarray(self.tables.alpha_cumprod, np.float64))
        self.beta = np.append(0.0, self.tables.betas)

    def __repr__(self):
        return f"DDPMSampler({self.schedule})"

    def at(self, t, x):
        return jax.numpy.asarray(np.broadcast_to(np.asarray(t) - 1, len(x)))

    def q_sample(self, x0, t, noise):
        return self.tables.add_noise(x0, noise, self.at(t, x0))

    def step(self, x0_hat, xt, t, noise):
        images = [x[..., None, None] for x in (xt, x0_hat, noise)]
        with patch.object(jax.random, "normal", lambda *_, **__: images[2]):
            state = RandomMarkovState(jax.random.PRNGKey(0))
            return self.sampler.take_next_step(*images[:2], (), None, self.at(t, xt), state, None)[0][..., 0, 0]


class Sampler(Jax):
    """A class of flaxdiff.samplers on S steps; claims: see Adapter."""

    eta = 0.0

    def __init__(self, name, schedule, S=12, options=(), **claims):
        self.given, self.claims = (name, schedule, S, dict(options)), claims
        vars(self).update(claims)
        self.sampler = made(name, schedule, **dict(options))
        self.coordinates = "vp" if schedule == "cosine" else "sigma"
        steps = self.sampler.scale_steps(self.sampler.get_steps(1000, 0, S))
        signal, noise = (np.asarray(rate, np.float64).ravel() for rate in self.sampler.noise_schedule.get_rates(steps))
        self.levels = signal**2 / (signal**2 + noise**2)
        self.alpha_bar = np.append(1.0, self.levels[::-1])

    def __repr__(self):
        name, schedule, S, options = self.given
        return f"{name}({', '.join([schedule, *(f'{key}={value}' for key, value in options.items())])}, S={S})"

    def with_steps(self, S):
        name, schedule, _, options = self.given
        return Sampler(name, schedule, S, options, **self.claims)

    def chain(self, denoise, x_T, noise):
        S, states = self.given[2], {}

        def network(_, x, step, *__):
            signal, sigma = (rate[0].item() for rate in self.sampler.noise_schedule.get_rates(step))
            states[step[0].item()] = x[..., 0, 0]
            x0_hat = denoise(x[..., 0, 0], signal**2 / (signal**2 + sigma**2))[..., None, None]
            return x0_hat, (x - signal * x0_hat) / sigma, x0_hat

        drawn = patch.object(jax.random, "normal", lambda *_, **__: noise(S + 1 - len(states))[..., None, None])
        loop = patch.multiple(self.sampler, sample_model=network, post_process=lambda x: x)
        with drawn, loop, contextlib.redirect_stdout(io.StringIO()):  # it prints that it is given the first state
            options = {"diffusion_steps": S, "start_step": 1000, "priors": x_T[..., None, None]}
            last = self.sampler.generate_samples(None, len(x_T), 1, **options)
        return [*list(states.values())[1:], last[..., 0, 0]]


def adapters():
    return [
        Posterior(),
        Sampler("SimpleDDPMSampler", "cosine", solver="ddim", eta=1.0),
        Sampler("DDIMSampler", "cosine", solver="ddim", order=1),
        Sampler("DDIMSampler", "cosine", options={"eta": 1.0}, solver="ddim", eta=1.0),
        *(Sampler("EulerSampler", schedule, solver="ddim", order=1) for schedule in SCHEDULES),
        Sampler("EulerAncestralSampler", "karras", solver="ddim", eta=1.0),
        Sampler("HeunSampler", "karras", solver="heun", order=2),
        Sampler("MultiStepDPM", "karras", solver=None, order=2),
    ]


FINDINGS = {
    "DDPMSampler takes one sample, not two": """
import jax, types
from flaxdiff import predictors, samplers, schedulers
inputs = types.SimpleNamespace(get_unconditionals=list)
s = samplers.DDPMSampler(None, schedulers.CosineNoiseScheduler(1000), predictors.DirectPredictionTransform(), inputs)
print(s.noise_schedule.get_posterior_variance(jax.numpy.array([500, 500])))
""",
    "DDIMSampler with eta = 1 does not run": """
import jax.numpy as jnp, types
from flaxdiff import predictors, samplers, schedulers, utils
inputs, x = types.SimpleNamespace(get_unconditionals=list), jnp.zeros((1, 2, 2, 1))
s = samplers.DDIMSampler(None, schedulers.CosineNoiseScheduler(1000), predictors.DirectPredictionTransform(), inputs, eta=1.0)
print(s.take_next_step(x, x, (), x, jnp.array([500]), utils.RandomMarkovState(None), None, jnp.array([400])))
""",
    "One step starts at timestep 0, where there is nearly no noise": """
import types
from flaxdiff import predictors, samplers, schedulers
inputs = types.SimpleNamespace(get_unconditionals=list)
s = samplers.DDIMSampler(None, schedulers.CosineNoiseScheduler(1000), predictors.DirectPredictionTransform(), inputs)
print(s.get_steps(1000, 0, 1))
""",
    "MultiStepDPM: a second run of the same object starts from the memory of the first": """
import jax.numpy as jnp, types
from flaxdiff import predictors, samplers, schedulers
inputs, x = types.SimpleNamespace(get_unconditionals=list), jnp.ones((1, 2, 2, 1))
s = samplers.MultiStepDPM(None, schedulers.KarrasVENoiseScheduler(1), predictors.DirectPredictionTransform(), inputs)
for run in range(2):
    y = x
    for i in (9, 8, 7):
        y, _ = s.take_next_step(y, y, (), i * x, jnp.array([i / 10]), None, None, jnp.array([i / 10 - 0.1]))
    print(float(y.max()))
""",
}
