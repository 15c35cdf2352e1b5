"""Gaussian noise in continuous time, where the loss is the bound: VDM in the program. (E35) Next: learned_schedule.py.

The mathematics is theory/continuous.py. What gives the bits: almost no noise at t = 1, and a network that is shown sines
and cosines of the image, which tell it what lies between two grey levels. (Kingma et al. 2021, VDM)
"""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from tinyddpm.decoder import discretised_log_prob
from tinyddpm.program.gaussian_diffusion import GaussianDiffusion
from tinyddpm.theory import continuous
from tinyddpm.theory.log_snr import LearnedLogSNR, signal_and_sigma

__all__ = ["VariationalDiffusion"]


class VariationalDiffusion(GaussianDiffusion):
    """Noise is added to grey levels at any time; the network predicts eps and is told the log-SNR.

    schedule: a NoiseSchedule of T >= 2 steps. A timestep is a real number t in 1..T: at an integer the log-SNR is the
    schedule's, between two it lies on the line between. The bound depends on the schedule's ends only; so to have more
    or fewer steps, or others, changes nothing that the network learns.
    """

    predictions, loss_weights = ("eps",), ("bound",)
    default_schedule, default_spacing = "even_log_snr", "angle"
    continuous_time = True
    unet = {**GaussianDiffusion.unet, "T": None}  # times are in [0, 1]
    grey_preset = "fine"

    def __init__(self, schedule, prediction="eps", loss_weight="bound", gamma=None):
        if schedule.T < 2:
            raise ValueError(f"a schedule of continuous time has two ends, T >= 2, got T = {schedule.T}")
        self.schedule, self.prediction, self.levels = schedule, prediction, schedule.log_snr[1:]
        self.curve = LearnedLogSNR(*self.levels[[0, -1]].tolist(), (-np.diff(self.levels)) ** 0.5)
        self.loss = partial(bound_loss, self.curve)

    def timesteps(self, n, rng):
        """n real timesteps to train on, stratified: (n,). (E36)"""
        return 1 + (self.schedule.T - 1) * continuous.stratified_times(n, rng)

    def time(self, t):
        """u in [0, 1], the time of the curve, at real timesteps t in 1..T."""
        return (np.asarray(t, np.float64) - 1) / (self.schedule.T - 1)

    def drawn_time(self, t):
        """The share of training times before the real timesteps t."""
        return self.time(t)

    def log_snr(self, t):
        """The log-SNR at integers t in 0..T, infinite at 0, or at real timesteps (N,) in 1..T."""
        return self.schedule.log_snr[t] if np.asarray(t).dtype.kind in "iu" else self.curve(self.time(t))

    def network_time(self, t):
        """What the network is told: 0 at the log-SNR of t = 1, 1 at that of T."""
        time = continuous.network_time(self.log_snr(t), self.curve.high, self.curve.low)
        return time.clip(0, 1)  # which rounding may have left

    def network_log_snr(self):
        """The log-SNR at the times that the network is told: on a line."""
        return np.array([0.0, 1.0]), np.array([self.curve.high, self.curve.low])

    def q_sample(self, x0, t, noise):
        """x_t; t as in `log_snr`."""
        return continuous.q_sample(x0, self.log_snr(t), noise)

    def loss_inputs(self, x0, xt, t, noise):
        """The arguments of `loss` after the output: eps, and the time u."""
        return noise, self.time(t)

    def x0_hat(self, output, xt, t):
        """x_0 from eps_hat. (E24)"""
        signal, sigma = signal_and_sigma(continuous.shaped_like(xt, self.log_snr(t)))
        return (xt - sigma * output) / signal  # E24

    def timestep_at(self, log_snr):
        """The real timestep of a log-SNR: the inverse of `log_snr`."""
        return np.interp(-np.asarray(log_snr), -self.levels, 1.0 + np.arange(len(self.levels)))

    def at_log_snr(self, denoise):
        """As `GaussianDiffusion.at_log_snr`, at the real timestep of that log-SNR."""
        return lambda z, log_snr: denoise(z, self.timestep_at(log_snr))

    def bound(self, variance=None, clip=(-1.0, 1.0)):
        """As `GaussianDiffusion.bound`, except that L_0 is of variance 1/SNR(1), with the bound in continuous time."""
        terms = super().bound(variance, clip)

        def reconstruction(denoise, x0, noise):
            denoise = continuous.clipped(self.at_log_snr(denoise), clip)
            return continuous.reconstruction_loss(self.curve, denoise, x0, noise, discretised_log_prob)

        def diffusion(denoise, x0, t, noise):
            denoise = continuous.clipped(self.at_log_snr(denoise), clip)
            return continuous.diffusion_loss(self.curve, denoise, x0, self.time(t), noise)

        ends = f"log-SNR {self.curve.high:g} to {self.curve.low:g}; "
        settings = ends + terms.settings.replace("beta_tilde_2", "1/SNR(1)").replace("beta_1", "1/SNR(1)")
        return replace(terms, reconstruction=reconstruction, continuous=diffusion, settings=settings)


def bound_loss(curve, eps_hat, eps, u):
    """The mean of `continuous.eps_loss`, as a share of what eps_hat = 0 has in the mean: a scalar Tensor. (E35)

    It is the mean square of eps - eps_hat, weighted by the slope of the curve. Times (high - low)/(2 log 2) it is the
    denoising part of the bound in bits/dim. One learning rate suits any ends.
    """
    scale = 2 / ((curve.high - curve.low) * math.prod(eps.shape[1:]))
    return continuous.eps_loss(curve, u, eps, eps_hat).mean() * scale
