"""The exercises of lesson 8: for each a check, an answer, and the mistake most often made."""

import numpy as np

import tinyddpm as td
from tinyddpm.theory.oracle import chain_variance

SCHEDULE = td.NoiseSchedule.linear(20)
X0, XT = np.random.default_rng(1).standard_normal((2, 4, 3))


# ---- 1: a step of DDIM ----


def check_1(ddim_mean):
    for t in (1, 2, 20):
        expected = td.ddim_step(lambda x, t: X0, SCHEDULE, XT, t).mean
        found = ddim_mean(SCHEDULE.alpha_bar, X0, XT, t)
        assert np.allclose(found, expected), f"not DDIM's at t = {t}: the same eps_hat, but the noise level of t - 1"


def answer_1(alpha_bar, x0_hat, xt, t):
    eps_hat = (xt - alpha_bar[t] ** 0.5 * x0_hat) / (1 - alpha_bar[t]) ** 0.5
    return alpha_bar[t - 1] ** 0.5 * x0_hat + (1 - alpha_bar[t - 1]) ** 0.5 * eps_hat


def mistake_1(alpha_bar, x0_hat, xt, t):
    eps_hat = (xt - alpha_bar[t] ** 0.5 * x0_hat) / (1 - alpha_bar[t]) ** 0.5
    return alpha_bar[t - 1] ** 0.5 * x0_hat + (1 - alpha_bar[t]) ** 0.5 * eps_hat


# ---- 2: Algorithm 2 ----


def check_2(ancestral):
    noises = np.random.default_rng(2).standard_normal((21, 4, 3))

    def denoise(x, t):
        return np.tanh(x) * (1 - t / 40)  # which t it is told matters

    for schedule in (SCHEDULE, SCHEDULE.respace(5)):
        expected = td.sample(denoise, schedule, XT, noises.__getitem__, td.ancestral_step)
        found = ancestral(denoise, schedule, XT, noises.__getitem__)
        assert np.allclose(found, expected), f"another x_0 in {schedule.T} steps: is the last step without noise?"


def answer_2(denoise, schedule, x, noise):
    for t in range(schedule.T, 0, -1):
        x = td.q_posterior(schedule, denoise(x, schedule.timesteps[t]), x, t).mean
        if t > 1:
            x = x + schedule.beta_tilde[t] ** 0.5 * noise(t)
    return x


def mistake_2(denoise, schedule, x, noise):
    for t in range(schedule.T, 0, -1):
        x = td.q_posterior(schedule, denoise(x, schedule.timesteps[t]), x, t).mean
        x = x + schedule.beta[t] ** 0.5 * noise(t)  # at the last step too
    return x


# ---- 3: what comes out of DDIM ----


def check_3(final_variance):
    for V in (0.25, 1.0):
        found, expected = final_variance(SCHEDULE, V), chain_variance(SCHEDULE, V, td.ddim_step)[0, 0]
        assert np.isclose(found, expected), (
            f"V = {V}: {found} where the chain has {expected}: a variance scales by squares"
        )


def answer_3(schedule, V):
    variance = 1.0
    for t in range(schedule.T, 0, -1):
        signal, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
        x0_hat = signal**0.5 * V / (signal * V + noise)  # of x_t = 1
        factor = answer_1(schedule.alpha_bar, x0_hat, 1.0, t)
        variance = factor**2 * variance
    return variance


def mistake_3(schedule, V):
    variance = 1.0
    for t in range(schedule.T, 0, -1):
        signal, noise = schedule.alpha_bar[t], schedule.one_minus_alpha_bar[t]
        x0_hat = signal**0.5 * V / (signal * V + noise)
        variance = answer_1(schedule.alpha_bar, x0_hat, 1.0, t) * variance  # a factor, not its square
    return variance
