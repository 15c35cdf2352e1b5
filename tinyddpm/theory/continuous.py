"""Diffusion in continuous time, where the bound depends only on the two ends of the schedule. (E35)

Time u runs from 0 to 1, and a schedule gives the log-SNR at u (log_snr.py). The noisy data at u are

    z_u = signal x_0 + sigma eps,   signal^2 = sigmoid(log_snr),   sigma^2 = sigmoid(-log_snr).

So z_0 is nearly x_0 and z_1 nearly noise. A model is `denoise(z, log_snr) -> x0_hat`, log_snr a number or (N,). The
formulas use operators only, so schedules and models may contain Tensors and be trained. x0, z and noise are (N, ...)
floating, of one shape and dtype; noise is standard normal. (Kingma et al. 2021, VDM) Next: flow.py.
"""

import math

import numpy as np

from tinyddpm.coefficients import check_like, check_T, spread
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian, exp, sum_per_sample
from tinyddpm.schedule import NoiseSchedule
from tinyddpm.theory.log_snr import signal_and_sigma
from tinyddpm.theory.oracle import flat, like

__all__ = ["q_sample", "reverse_step", "vdm_bound", "reconstruction_loss", "prior_loss", "diffusion_loss", "eps_loss"]
__all__ += ["stratified_times", "network_time", "eps_denoiser", "discretise", "at_step", "at_log_snr"]
__all__ += ["clipped", "ideal_denoiser"]


# ---- the forward process, and a step back ----


def shaped_like(z, values):
    """`values`, a scalar or one value per sample (N,), an array or a Tensor, shaped to broadcast over z."""
    if isinstance(values, (int, float, np.ndarray, np.number)):
        return spread(values, z)
    return values.reshape(values.shape + (1,) * (len(z.shape) - 1))


def q_sample(x0, log_snr, noise):
    """z = signal x_0 + sigma noise. log_snr: a number or (N,). (E2)"""
    check_like("noise", noise, "x0", x0)
    signal, sigma = signal_and_sigma(shaped_like(x0, log_snr))
    return signal * x0 + sigma * noise


def reverse_step(x0_hat, z, log_snr, next_log_snr):
    """q(z' | z, x_0 = x0_hat), z at log_snr and z' at next_log_snr: one ancestral step. (VDM, appendix A; E10, E29)

    Raises ValueError unless the log-SNR rises. For a whole chain, call `reverse.sample` with the schedule from
    `discretise` and the model from `at_step`.
    """
    check_like("x0_hat", x0_hat, "z", z)
    if not np.all(np.asarray(next_log_snr) > np.asarray(log_snr)):
        raise ValueError(f"a step back must raise the log-SNR, got {log_snr} and then {next_log_snr}")
    level, next_level = shaped_like(z, log_snr), shaped_like(z, next_log_snr)
    signal, (next_signal, next_sigma) = signal_and_sigma(level)[0], signal_and_sigma(next_level)
    kept, renewed = exp(level - next_level), -np.expm1(level - next_level)  # SNR(z) / SNR(z'), and 1 minus that
    return Gaussian(next_signal * (kept / signal * z + renewed * x0_hat), next_sigma**2 * renewed)


# ---- the bound, in nats, (N,) ----


def vdm_bound(schedule, denoise, x0, u, noise, noise_0, decoder=Gaussian.log_prob):
    """An estimate of the bound on -log p(x_0) from one time and two noises per sample: (N,). (VDM, section 4; E35)

    Its mean over u, uniform in [0, 1], and over both noises is the bound. u: (N,). decoder: see `reconstruction_loss`.
    """
    # 1. Reconstruction: -log p(x_0 | z_0).
    reconstruction = reconstruction_loss(schedule, denoise, x0, noise_0, decoder)

    # 2. Prior: KL(q(z_1 | x_0) || p(z_1)).
    prior = prior_loss(schedule, x0)

    # 3. Diffusion: the error of the model at a level in between.
    diffusion = diffusion_loss(schedule, denoise, x0, u, noise)

    return reconstruction + prior + diffusion  # E35


def reconstruction_loss(schedule, denoise, x0, noise, decoder=Gaussian.log_prob):
    """-log p(x_0 | z_0), where p is N(x0_hat, 1/SNR) at u = 0: (N,). (E21)

    decoder(p, x0) -> log p(x_0): the density, or for 8-bit data `discretised_log_prob` of tinyddpm/decoder.py.
    """
    x0_hat = denoise(q_sample(x0, schedule.high, noise), schedule.high)
    return -decoder(Gaussian(x0_hat, math.exp(-schedule.high)), x0)


def prior_loss(schedule, x0):
    """KL(q(z_1 | x_0) || N(0, I)): (N,). (E20)"""
    signal, sigma = signal_and_sigma(shaped_like(x0, schedule.low))
    return Gaussian(signal * x0, sigma**2).kl(STANDARD_NORMAL)


def diffusion_loss(schedule, denoise, x0, u, noise):
    """-1/2 d log_snr/du SNR ||x_0 - x0_hat||^2 at times u: (N,). (VDM eq. 17; E35)

    The mean over u is the integral of SNR ||x_0 - x0_hat||^2 / 2 over the log-SNR: it depends on the ends of the
    schedule only. The variance depends on the whole schedule.
    """
    log_snr = schedule(u)
    x0_hat = denoise(q_sample(x0, log_snr, noise), log_snr)
    weight = shaped_like(x0, schedule.slope(u)) * -0.5 * exp(shaped_like(x0, log_snr))
    return sum_per_sample(weight * (x0 - x0_hat) ** 2)  # E35


def eps_loss(schedule, u, eps, eps_hat):
    """-1/2 d log_snr/du ||eps - eps_hat||^2: `diffusion_loss` for a network that predicts eps. (VDM eq. 17; E35)"""
    check_like("eps_hat", eps_hat, "eps", eps)
    return sum_per_sample(shaped_like(eps, schedule.slope(u)) * -0.5 * (eps - eps_hat) ** 2)  # E35


def stratified_times(n, rng):
    """n times in [0, 1), evenly spaced from one random start, modulo 1: each is uniform. (VDM; E36)"""
    return (rng.random() + np.arange(n) / n) % 1  # E36


# ---- networks, steps and log-SNRs ----


def network_time(log_snr, high, low):
    """The time input of a network: 0 at log_snr = high, 1 at log_snr = low, linear between.

    It depends on the log-SNR and not on u, so a network stays valid while its schedule learns.
    """
    return (high - log_snr) / (high - low)


def eps_denoiser(network, high, low):
    """Make a model `denoise(z, log_snr)` from a network(z, time) -> eps_hat, with time (N,) as in `network_time`."""

    def denoise(z, log_snr):
        time = network_time(log_snr, high, low)
        if not getattr(time, "shape", ()):
            time = np.full(z.shape[0], float(time))
        signal, sigma = signal_and_sigma(shaped_like(z, log_snr))
        return (z - sigma * network(z, time)) / signal  # E24

    return denoise


def discretise(schedule, T):
    """The NoiseSchedule of T >= 2 steps with log_snr_t = schedule((t - 1)/(T - 1)): t = 1 is u = 0, t = T is u = 1."""
    if check_T(T) < 2:
        raise ValueError(f"T must be at least 2 to have two ends, got {T}")
    return NoiseSchedule.from_alpha_bar(signal_and_sigma(schedule(np.linspace(0, 1, T)))[0] ** 2)


def at_step(denoise, schedule):
    """Make a model `denoise(xt, t)` from a model `denoise(z, log_snr)`, for the steps t of a NoiseSchedule."""
    return lambda xt, t: denoise(xt, schedule.log_snr[t])


def at_log_snr(denoise, schedule):
    """Make a model `denoise(z, log_snr)` from a model `denoise(xt, t)`, called at the step of nearest log-SNR.

    So a network trained on integer t has a probability flow and a likelihood. Raises ValueError for a log-SNR
    outside the schedule's.
    """
    levels = schedule.log_snr[1:]  # falling

    def nearest(z, log_snr):
        log_snr = np.asarray(log_snr, dtype=np.float64)
        if not ((log_snr <= levels[0] + 1e-6) & (log_snr >= levels[-1] - 1e-6)).all():
            raise ValueError(f"log_snr must lie in {levels[-1]:g}..{levels[0]:g}, got {log_snr.min()}..{log_snr.max()}")
        return denoise(z, 1 + abs(log_snr[..., None] - levels).argmin(axis=-1))

    return nearest


def clipped(denoise, clip):
    """The model with x0_hat clipped to the range clip = (low, high); itself if clip is None."""
    return denoise if clip is None else lambda z, log_snr: denoise(z, log_snr).clip(*clip)


def ideal_denoiser(data):
    """The model denoise(z, log_snr) = E[x_0 | z] of a Mixture. z: a NumPy or CuPy array, as in `Oracle`. (E27)"""

    def denoise(z, log_snr):
        signal, sigma = signal_and_sigma(np.asarray(log_snr, dtype=np.float64))
        return like(data.given(flat(z, data), signal, sigma**2).mean().reshape(z.shape), z)

    return denoise
