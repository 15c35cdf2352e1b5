"""Gaussian noise, where the network also predicts the variance of a step back. Next: variational_diffusion.py."""

from dataclasses import replace
from functools import partial

import numpy as np

import nn
from tinyddpm.bound import l_hybrid, step_kl
from tinyddpm.forward import q_sample
from tinyddpm.prediction import convert, x0_from
from tinyddpm.program.gaussian_diffusion import GaussianDiffusion
from tinyddpm.reverse import ancestral_step, learned_variance, p_mean_variance, predict_x0

__all__ = ["HybridDiffusion"]


class HybridDiffusion(GaussianDiffusion):
    """Gaussian diffusion with a learned variance, trained on L_simple + 0.001 L_vlb. (Nichol & Dhariwal 2021; E19)

    The network returns twice the image's channels: the prediction, and a number whose sigmoid says where log sigma_t^2
    lies between log beta_tilde_t and log beta_t. The ancestral sampler and the bound use that variance, for t >= 2: at
    t = 1 no noise is added, and L_0 is of variance beta_tilde_2.
    """

    loss_weights = ("simple",)
    default_sampler, default_steps = "ancestral", 100  # the one that takes the learned variance
    unet = {**GaussianDiffusion.unet, "outputs": 2}

    def __init__(self, schedule, prediction="v", loss_weight="simple", gamma=None):
        super().__init__(schedule, prediction)
        if schedule.T < 2:
            raise ValueError(f"a variance can be learned from T = 2 on, got T = {schedule.T}")
        self.loss = partial(hybrid_loss, schedule, prediction)

    def loss_inputs(self, x0, xt, t, noise):
        """The arguments of `loss` after the output: the prediction's target, x_0, x_t and t."""
        return convert(self.schedule, noise, xt, t, "eps", self.prediction), x0, xt, t

    def x0_hat(self, output, xt, t):
        """x_0 from the first half of the network's output. The other half is kept for `variance`."""
        channels = xt.shape[-1]
        self.log_odds = output[..., channels:]
        return super().x0_hat(output[..., :channels], xt, t)

    def variance(self, schedule, xt, t):
        """sigma_t^2 at the x_t whose x0_hat was asked for last."""
        return learned_variance(schedule, nn.sigmoid(nn.Tensor(self.log_odds)).data, xt, t)

    def reverse(self, denoise, schedule, x_T, noise, step):
        """As `GaussianDiffusion.reverse`; the ancestral step has the learned variance."""

        def learned_step(ask, schedule, xt, t):
            x0_hat = ask(xt, t)
            return p_mean_variance(schedule, x0_hat, xt, t, self.variance(schedule, xt, t))

        return super().reverse(denoise, schedule, x_T, noise, learned_step if step is ancestral_step else step)

    def bound(self, variance=None, clip=(-1.0, 1.0)):
        """As `GaussianDiffusion.bound`, of the learned variance unless another is named."""
        terms = super().bound(variance, clip)
        if variance is not None:
            return terms

        def denoising(denoise, x0, t, noise):
            xt = q_sample(self.schedule, x0, t, noise)
            x0_hat = predict_x0(denoise, self.schedule, xt, t, clip)
            return step_kl(self.schedule, x0, x0_hat, t, self.variance(self.schedule, xt, t))

        return replace(terms, denoising=denoising, settings=terms.settings.replace("beta_tilde_t", "learned"))


def hybrid_loss(schedule, prediction, output, target, x0, xt, t):
    """The mean of `bound.l_hybrid`, a scalar Tensor. L_{t-1} counts for t >= 2, and teaches the variance alone."""
    channels = xt.shape[-1]
    predicted, fraction = output[..., :channels], nn.sigmoid(output[..., channels:])
    x0_hat = x0_from(schedule, prediction, predicted.data, xt, t)
    weight = nn.to_device((0.001 * (t > 1)).astype(xt.dtype), nn.array_module(xt))
    return l_hybrid(schedule, target, predicted, x0, x0_hat, np.maximum(t, 2), fraction, weight).mean()
