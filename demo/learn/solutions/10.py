"""The exercises of lesson 10: for each a check, an answer, and the mistake most often made."""

import numpy as np

from tinyddpm.properties import Adapter, check


def check_names(mended, *starts):
    """Raise AssertionError unless the identities whose names start so hold, all those that hold for the answer."""
    needed = check(Mended(), examples=5).names("holds")
    for result in check(mended(), examples=60).results:
        if result.identity.name.startswith(starts) and result.identity.name in needed:
            assert result.status == "holds", str(result)


def check_1(mended):
    check_names(mended, "E1 step", "E2 tables", "E2 marginal", "E5")


def check_2(mended):
    check_names(mended, "E7 mean", "E7 variance", "E9", "E24")


def check_3(mended):
    check_names(mended, "E1 step", "E2 tables", "E2 marginal", "E5", "E7", "E9", "E24", "E29", "E30")


class Mended(Adapter):
    """The diffusion of the lesson without its bugs."""

    predictions = "eps", "v"

    def __init__(self, T=10):
        self.beta = np.append(0.0, np.linspace(0.02, 0.3, T))
        self.alpha_bar = np.cumprod(1 - self.beta)

    def q_step(self, x_prev, t, noise):
        return (1 - self.beta[t]) ** 0.5 * x_prev + self.beta[t] ** 0.5 * noise  # 1: it was beta, a variance

    def q_sample(self, x0, t, noise):
        alpha_bar = self.alpha_bar[t]  # 2: it was t - 1, as where t counts from 0 and the table does not
        return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise

    def posterior(self, x0, xt, t):
        before, after = 1 - self.alpha_bar[t - 1], 1 - self.alpha_bar[t]
        from_xt = (1 - self.beta[t]) ** 0.5 * before / after
        from_x0 = self.alpha_bar[t - 1] ** 0.5 * self.beta[t] / after  # 3: it was t
        return from_xt * xt + from_x0 * x0, before / after * self.beta[t]

    def convert(self, value, xt, t, source, target):
        signal, noise = self.alpha_bar[t] ** 0.5, (1 - self.alpha_bar[t]) ** 0.5
        x0 = {
            "x0": lambda: value,
            "eps": lambda: (xt - noise * value) / signal,
            "v": lambda: signal * xt - noise * value,  # 4: it was a plus
        }[source]()
        eps = (xt - signal * x0) / noise
        return {"x0": x0, "eps": eps, "v": signal * eps - noise * x0}[target]

    def step(self, x0_hat, xt, t, noise):
        mean, variance = self.posterior(x0_hat, xt, t)
        return mean + variance**0.5 * noise  # 5: it was at least beta_1, so noise was added at the last step


answer_1 = answer_2 = answer_3 = Mended


class mistake_1(Mended):
    """The root taken of the other factor as well, where it was there already."""

    def q_step(self, x_prev, t, noise):
        return (1 - self.beta[t]) ** 0.25 * x_prev + self.beta[t] ** 0.5 * noise


class mistake_2(Mended):
    """alpha_bar_{t-1} in place of its root."""

    def posterior(self, x0, xt, t):
        mean, variance = super().posterior(x0, xt, t)
        return mean + (self.alpha_bar[t - 1] - self.alpha_bar[t - 1] ** 0.5) * x0, variance


class mistake_3(Mended):
    """Noise left out one step too early."""

    def step(self, x0_hat, xt, t, noise):
        return super().step(x0_hat, xt, t, noise if t > 2 else 0 * noise)
