"""A diffusion written from the equations, with names that the identities know: what the panel Check starts from."""

import numpy as np

from tinyddpm.properties import Adapter


class Mine(Adapter):
    """A diffusion of T = 10 steps, written from the equations. Change a line, and check."""

    predictions = ("eps", "x0")  # what it converts between

    def __init__(self, T=10):
        self.beta = np.append(0.0, np.linspace(0.02, 0.5, T))  # beta[0] = 0: t = 0 is the data
        self.alpha_bar = np.cumprod(1 - self.beta)

    def __repr__(self):
        return "mine"

    def q_sample(self, x0, t, noise):
        return self.alpha_bar[t] ** 0.5 * x0 + (1 - self.alpha_bar[t]) ** 0.5 * noise

    def q_step(self, x_prev, t, noise):
        return (1 - self.beta[t]) ** 0.5 * x_prev + self.beta[t] ** 0.5 * noise

    def posterior(self, x0, xt, t):
        """The mean and the variance of q(x_{t-1} | x_t, x_0)."""
        before, after = 1 - self.alpha_bar[t - 1], 1 - self.alpha_bar[t]
        from_xt = (1 - self.beta[t]) ** 0.5 * before / after
        from_x0 = self.alpha_bar[t - 1] ** 0.5 * self.beta[t] / after
        return from_xt * xt + from_x0 * x0, before / after * self.beta[t]

    def convert(self, value, xt, t, source, target):
        signal, scale = self.alpha_bar[t] ** 0.5, (1 - self.alpha_bar[t]) ** 0.5
        return (xt - (signal if source == "x0" else scale) * value) / (scale if source == "x0" else signal)

    def step(self, x0_hat, xt, t, noise):
        """One step of sampling: x_{t-1}, given a prediction of x_0."""
        mean, variance = self.posterior(x0_hat, xt, t)
        return mean + (variance**0.5 * noise if t > 1 else 0)


mine = Mine()
