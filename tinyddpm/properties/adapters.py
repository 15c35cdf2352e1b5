"""This project's diffusion as an adapter for `properties.check`. Copy it, and put your own code in the methods.

Next: data/images.py.
"""

from tinyddpm.forward import q_posterior, q_sample, q_step
from tinyddpm.prediction import PREDICTIONS, convert
from tinyddpm.reverse import ancestral_step, reverse_process
from tinyddpm.schedule import NoiseSchedule

__all__ = ["Adapter"]


class Adapter:
    """The forward process of a schedule, the conversions of predictions, and one step of a sampler.

    schedule: a NoiseSchedule, respaced or not. step: a sampler's, as in reverse.py. eta, variance: what that step
    claims, see checks.py. Samplers that remember earlier steps are checked in the first step of a chain.
    """

    predictions = PREDICTIONS
    batched = True

    def __init__(self, schedule, step=ancestral_step, eta=1.0, variance="beta_tilde", dtype="float64"):
        self.schedule, self.rule, self.dtype = schedule, step, dtype
        self.eta, self.variance = eta, variance
        self.alpha_bar, self.beta = schedule.alpha_bar, schedule.beta

    def __repr__(self):
        return f"Adapter({self.schedule}, beta = {self.beta[1:5].tolist()}...)"

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
        """The sampler's own loop on the chain of the first t steps, stopped after one step."""
        chain = NoiseSchedule.from_beta(self.beta[: t + 1])
        _, x_prev, _ = next(reverse_process(lambda xt, t: x0_hat, chain, xt, lambda t: noise, self.rule))
        return x_prev

    def respace(self, timesteps):
        return Adapter(self.schedule.respace(timesteps), self.rule, self.eta, self.variance, self.dtype)
