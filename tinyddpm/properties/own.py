"""This project's diffusion as an adapter for `properties.check`. Copy it, and put your own code in the methods.

Next: plugin.py.
"""

import numpy as np

from tinyddpm.bound import prior_term, step_kl
from tinyddpm.forward import q_posterior, q_sample, q_step
from tinyddpm.loss import loss_weight, training_weight
from tinyddpm.prediction import PREDICTIONS, convert, preconditioning
from tinyddpm.properties.adapter import Adapter
from tinyddpm.reverse import ancestral_step, learned_variance, reverse_process
from tinyddpm.schedule import NoiseSchedule

__all__ = ["Own"]


class Own(Adapter):
    """The processes of a schedule, respaced or not, and one of the samplers.

    make_step: makes a sampler's step, as in reverse.py, for each new chain. claims: what it claims, see `Adapter`.
    """

    predictions = PREDICTIONS
    batched = True

    def __init__(self, schedule, make_step=lambda: ancestral_step, **claims):
        self.schedule, self.make_step, self.claims = schedule, make_step, claims
        self.alpha_bar, self.beta = schedule.alpha_bar, schedule.beta
        vars(self).update(claims)

    def __repr__(self):
        return f"Own({self.schedule}, beta = {self.beta[1:5].tolist()}...)"

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
        steps = reverse_process(lambda xt, t: x0_hat, chain, xt, lambda t: noise, self.make_step(), self.clip)
        return next(steps)[1]

    def chain(self, denoise, x_T, noise):
        schedule = NoiseSchedule(self.schedule.beta, np.arange(self.schedule.T + 1), self.schedule.alpha)
        steps = reverse_process(
            lambda xt, t: denoise(xt, self.alpha_bar[t]), schedule, x_T, noise, self.make_step(), self.clip
        )
        return [x for _, x, _ in steps]

    def learned_variance(self, fraction, t):
        return learned_variance(self.schedule, fraction, fraction, t)

    def respace(self, timesteps):
        return Own(self.schedule.respace(timesteps), self.make_step, **self.claims)

    def with_steps(self, S):
        return Own(self.schedule.respace(S), self.make_step, **self.claims)

    def scalings(self, t):
        sigma = ((1 - self.alpha_bar[t]) / self.alpha_bar[t]) ** 0.5
        return preconditioning(sigma)

    def loss_weight(self, kind, t):
        if self.weighting == "min-snr":
            return training_weight(self.schedule, "min-snr", kind, t, self.min_snr_gamma)
        return loss_weight(self.schedule, kind, t, self.variance)

    def prior_term(self, x0):
        return prior_term(self.schedule, x0)

    def denoising_term(self, x0, x0_hat, xt, t):
        return step_kl(self.schedule, x0, x0_hat, t, self.variance)
