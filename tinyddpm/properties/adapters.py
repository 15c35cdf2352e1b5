"""This project's process as an adapter for `properties.check`. Copy it and put another in its place."""

from tinyddpm.forward import q_posterior, q_sample, q_step
from tinyddpm.prediction import PREDICTIONS, convert
from tinyddpm.reverse import reverse_process, step_of
from tinyddpm.schedule import NoiseSchedule

__all__ = ["Process"]


class Process:
    """The forward process of a schedule, the conversions, and one step of a sampler by name.

    schedule: a NoiseSchedule, respaced or not. sampler, eta, variance: as in `reverse.sample`. The
    second-order sampler is checked in its first step, which is DDIM's.
    """

    predictions = PREDICTIONS
    batched = True

    def __init__(self, schedule, sampler="ancestral", eta=0.0, variance="beta_tilde", dtype="float64"):
        self.schedule, self.sampler, self.dtype, self.variance = schedule, sampler, dtype, variance
        self.alpha_bar, self.beta = schedule.alpha_bar, schedule.beta
        self.eta = 1.0 if sampler.startswith("ancestral") else eta
        self.step_options = sampler, eta, variance, None

    def __repr__(self):
        return f"Process({self.schedule}, {self.sampler!r}, beta = {self.beta[1:5].tolist()}...)"

    def q_sample(self, x0, t, noise):
        return q_sample(self.schedule, x0, t, noise)

    def q_step(self, x_prev, t, noise):
        return q_step(self.schedule, x_prev, t, noise)

    def posterior(self, x0, xt, t):
        posterior = q_posterior(self.schedule, x0, xt, t)
        return posterior.mean, posterior.variance

    def convert(self, value, xt, t, source, target):
        return convert(self.schedule, value, xt, t, source, target)

    def step(self, x0_hat, xt, t, noise):
        """The sampler's own loop, on the chain of the first t steps: what it yields first."""
        chain = NoiseSchedule.from_beta(self.beta[: t + 1])
        rule = step_of(*self.step_options)
        _, x_prev, _ = next(reverse_process(lambda xt, t: x0_hat, chain, xt, lambda t: noise, rule))
        return x_prev

    def respace(self, timesteps):
        return Process(self.schedule.respace(timesteps), *self.step_options[:3], self.dtype)
