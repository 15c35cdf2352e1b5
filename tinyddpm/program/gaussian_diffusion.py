"""Gaussian noise on grey levels: DDPM, with any prediction, weight and sampler. Next: hybrid_diffusion.py."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import nn
from tinyddpm import bound, forward, reverse
from tinyddpm.data.images import from_model, to_model
from tinyddpm.loss import TRAINING_WEIGHTS, l_simple, stratified_timesteps, training_weight
from tinyddpm.prediction import convert, eps_from_x0, x0_from
from tinyddpm.samplers import SAMPLERS
from tinyddpm.schedule import SCHEDULES
from tinyddpm.theory.continuous import at_log_snr

__all__ = ["GaussianDiffusion", "BoundTerms"]


@dataclass(frozen=True)
class BoundTerms:
    """The terms of the bound as functions, each returning (N,) nats, and a line that says how they are computed.

    prior(x0) is L_T; denoising(denoise, x0, t, noise) is L_{t-1} for t in 2..T; reconstruction(denoise, x0, noise) L_0.
    continuous(denoise, x0, t, noise), for real t, is what stands for the sum of the L_{t-1} in continuous time: its mean
    over t uniform in [1, T]. None for a diffusion in steps.
    """

    prior: Callable
    denoising: Callable
    reconstruction: Callable
    settings: str
    continuous: Callable | None = None


class GaussianDiffusion:
    """Noise is added to grey levels; the network predicts v, eps or x_0.

    schedule: a NoiseSchedule. prediction: one of `predictions`. loss_weight: a name in TRAINING_WEIGHTS, or a
    function weight(schedule, prediction, t) that returns float64 of t's shape. gamma: the constant of "min-snr".
    """

    predictions = ("v", "eps", "x0")  # the first is the default
    schedules, default_schedule = SCHEDULES, "fine_cosine"
    loss_weights = tuple(TRAINING_WEIGHTS)
    samplers, default_sampler, default_steps, default_spacing = SAMPLERS, "sde_dpm_solver", 20, "angle"
    loss_name = "mean squared error"
    simple_loss_name = r"$\|\epsilon - \hat\epsilon\|^2$ / d"
    continuous_time = False
    unet = {"fourier": 3, "extremes": True}  # fields of UNetConfig
    grey_preset = "small"  # for images of one channel

    data, pictures = staticmethod(to_model), staticmethod(from_model)  # uint8 images to x_0, and back from any x
    noise = staticmethod(nn.random.normal)

    def __init__(self, schedule, prediction="v", loss_weight="simple", gamma=5.0):
        self.schedule, self.prediction, self.weights = schedule, prediction, None
        if loss_weight != "simple":
            t = np.arange(1, schedule.T + 1)
            if callable(loss_weight):
                weights = np.asarray(loss_weight(schedule, prediction, t), np.float64)
            else:
                weights = training_weight(schedule, loss_weight, prediction, t, gamma)
            if weights.shape != (schedule.T,) or not (np.isfinite(weights) & (weights >= 0)).all() or not weights.any():
                raise ValueError(f"a loss weight gives T = {schedule.T} finite numbers of at least 0, got {weights}")
            # Scaled to mean 1, so that one learning rate suits every weight.
            self.weights = np.append(0.0, weights / weights.mean())

    def timesteps(self, n, rng):
        """n timesteps to train on, stratified: (n,) in 1..T. (E36)"""
        return stratified_timesteps(self.schedule.T, n, rng)[0]

    def around(self, network):
        """What is trained: the network, and what is learned beside it."""
        return network

    def network_time(self, t):
        """What the network is told of the timesteps t (N,)."""
        return t

    def network_log_snr(self):
        """The log-SNR at the times that the network is told, as `UNet` takes it."""
        return np.arange(1, self.schedule.T + 1), self.schedule.log_snr[1:]

    def start(self, noise):
        """x_T to start a sampler from."""
        return noise

    def q_sample(self, x0, t, noise):
        """x_t, t in 0..T."""
        return forward.q_sample(self.schedule, x0, t, noise)

    def network_input(self, xt):
        """What the network is shown, within about [-1, 1]."""
        return xt

    def loss_inputs(self, x0, xt, t, noise):
        """The arguments of `loss` after the output: (target * root, root), where root = sqrt(weight). (E22-E24)"""
        target = convert(self.schedule, noise, xt, t, "eps", self.prediction)
        if self.weights is None:
            return target, None
        root = nn.to_device(np.sqrt(self.weights[t]).astype(np.float32).reshape(-1, 1, 1, 1), nn.array_module(xt))
        return target * root, root

    @staticmethod
    def loss(output, target, root):
        """The weighted mean squared error, a scalar Tensor. target, root: from `loss_inputs`; root None: no weight."""
        return nn.mse(output if root is None else output * root, target)

    def x0_hat(self, output, xt, t):
        """x_0 from the network's output, which is a prediction of kind `self.prediction`."""
        return x0_from(self.schedule, self.prediction, output, xt, t)

    def at_log_snr(self, denoise):
        """The model denoise(z, log_snr) of a model denoise(xt, t): the probability flow needs it. (E42)"""
        return at_log_snr(denoise, self.schedule)

    def simple_loss(self, x0, xt, t, noise, x0_hat):
        """The mean squared error of eps: (N,). (E23)"""
        return l_simple(noise, eps_from_x0(self.schedule, x0_hat, xt, t))

    def reverse(self, denoise, schedule, x_T, noise, step):
        """As `reverse.reverse_process`, with x_0 kept within the range of images."""
        return reverse.reverse_process(denoise, schedule, x_T, noise, step, clip=(-1.0, 1.0))

    def last(self, x0, noise):
        """The image at the end of the chain: x_0 as it is, the mean of the last step."""
        return x0

    def bound(self, variance=None, clip=(-1.0, 1.0)):
        """The terms of the bound, `BoundTerms`. (E14)

        variance: sigma_t^2, see `reverse.variance_table` (default "beta_tilde"). clip: the range that x0_hat is clipped
        to, or None.
        """
        variance = "beta_tilde" if variance is None else variance
        reverse.variance_table(self.schedule, variance)  # ValueError for another name
        clip = clip if clip is None else reverse.check_clip(clip)
        at_1 = "beta_tilde_2" if variance == "beta_tilde" else "beta_1"
        options = {"variance": variance, "clip": clip}
        return BoundTerms(
            partial(bound.prior_term, self.schedule),
            partial(bound.denoising_term, self.schedule, **options),
            partial(bound.reconstruction_term, self.schedule, **options),
            f"sigma_t^2 = {variance}_t ({at_1} at t = 1); x0_hat "
            + ("not clipped" if clip is None else f"clipped to [{clip[0]:g}, {clip[1]:g}]"),
        )
