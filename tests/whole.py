"""An adapter with a method for every identity, and planted faults that several tests use."""

import numpy as np

from tinyddpm import NoiseSchedule
from tinyddpm.properties import check
from tinyddpm.properties.own import Own

LINEAR = NoiseSchedule.linear(10)


class Whole(Own):
    """This project's diffusion, and what it has no function for: for every identity there is a method."""

    def rescale(self, alpha_bar):
        root = alpha_bar**0.5
        return ((root - root[-1]) / (root[1] - root[-1]) * root[1]) ** 2

    def threshold(self, x0_hat):
        s = np.quantile(abs(x0_hat), 0.995, axis=1, keepdims=True).clip(1).astype(x0_hat.dtype)
        return x0_hat.clip(-s, s) / s

    def with_steps(self, S):
        return type(self)(self.schedule.respace(S), self.make_step, **self.claims)


def q_step_as_misprinted(self, x_prev, t, noise):
    return (1 - self.beta[t]) ** 0.5 * x_prev + self.beta[t] * noise


def posterior_with_beta(self, x0, xt, t):
    return Own.posterior(self, x0, xt, t)[0], self.beta[t]


def refuses(self, *arguments):
    return no()


def no():
    raise RuntimeError("no")


def failure(adapters, name):
    """The Result of one identity."""
    return next(result for result in check(adapters, examples=40).results if result.identity.name == name)
