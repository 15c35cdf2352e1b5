"""What a diffusion is to the program: the Gaussian one, and the binomial one of bits. Next: model.py.

Their mathematics is in modules of its own (forward.py to bound.py, and binomial.py). Here each says, with the same
methods, what the network, the trainer, the evaluation and the pictures have to know: how images become x_0, what the
noise is, what the network is fed and what its output means, the loss, the sampler, and the three terms of the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import nn
from tinyddpm import bound, forward, reverse
from tinyddpm.data.images import from_bits, from_model, to_bits, to_model
from tinyddpm.loss import l_simple
from tinyddpm.prediction import convert, eps_from_x0, x0_from
from tinyddpm.schedule import named_schedule
from tinyddpm.theory import binomial

__all__ = ["GaussianProcess", "BinomialProcess", "PROCESSES", "BoundTerms"]


@dataclass(frozen=True)
class BoundTerms:
    """The bound of a model `denoise`, in nats, each (N,); and in words what was chosen to compute it.

    prior(x0) is L_T, denoising(denoise, x0, t, noise) is L_{t-1} for t in 2..T, reconstruction(denoise, x0, noise) L_0.
    """

    prior: Callable
    denoising: Callable
    reconstruction: Callable
    settings: str


class GaussianProcess:
    """Noise is added to grey levels; the network predicts v, eps or x_0."""

    predictions = ("v", "eps", "x0")  # the first is the default
    default_schedule = "cosine"
    sampler_for_few_steps = "ddim"
    loss_name = "mean squared error"
    simple_loss_name = r"$\|\epsilon - \hat\epsilon\|^2$ / d"

    data, pictures = staticmethod(to_model), staticmethod(from_model)  # uint8 images to x_0, and back from any x
    noise = staticmethod(nn.random.normal)
    loss = staticmethod(nn.mse)  # of the network's output and what `loss_inputs` returns, run in worker processes

    def __init__(self, schedule, T, prediction):
        self.schedule, self.prediction = named_schedule(schedule, T), prediction

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
        """The arrays that `loss` takes beside the network's output: here its target. (E23, E24)"""
        return (convert(self.schedule, noise, xt, t, "eps", self.prediction),)

    def x0_hat(self, output, xt, t):
        """The x_0 that the network's output stands for."""
        return x0_from(self.schedule, self.prediction, output, xt, t)

    def simple_loss(self, x0, xt, t, noise, x0_hat):
        """The mean squared error of eps: (N,). (E23)"""
        return l_simple(noise, eps_from_x0(self.schedule, x0_hat, xt, t))

    def sample(self, denoise, schedule, x_T, noise, sampler, progress=None, keep=None):
        """As `reverse.sample`."""
        return reverse.sample(
            denoise, schedule, x_T, noise, sampler, clip=sampler != "ancestral_eps", progress=progress, keep=keep
        )

    def bound(self, variance=None, clip=None):
        """The terms of the bound, `BoundTerms`. (E14)

        variance: sigma_t^2, see `reverse.variance_table` (default "beta_tilde"). clip: whether x0_hat is clipped to
        [-1, 1] (default True).
        """
        variance, clip = variance or "beta_tilde", clip is None or clip
        at_1 = "beta_tilde_2" if variance == "beta_tilde" else "beta_1"
        options = {"variance": variance, "clip": (-1.0, 1.0) if clip else None}
        return BoundTerms(
            partial(bound.prior_term, self.schedule),
            partial(bound.denoising_term, self.schedule, **options),
            partial(bound.reconstruction_term, self.schedule, **options),
            f"sigma_t^2 = {variance}_t ({at_1} at t = 1); x0_hat {'clipped to [-1, 1]' if clip else 'not clipped'}",
        )


class BinomialProcess:
    """Bits flip until they are fair coins; the network says how likely each bit of x_0 is 1. (E33)

    Its output is the log odds of that given all *other* bits of x_t; what the bit of x_t itself says is added to it.
    So an untrained network, whose output is 0, already trusts x_t as far as it should: after 150 steps of training the
    bound was 0.17 bits/dim, and 0.32 where the network had to learn that too.
    """

    predictions = ("logit",)
    # The signal in a bit is alpha_bar, not its root as for a Gaussian. Under "cosine" the noisiest quarter of the steps
    # carries a fortieth of the bound, and training on them is wasted; under "even", a twelfth.
    default_schedule = "even"
    sampler_for_few_steps = "ancestral"
    loss_name = simple_loss_name = "cross entropy, nats a pixel"

    data, pictures = staticmethod(to_bits), staticmethod(from_bits)
    noise = staticmethod(nn.random.uniform)

    def __init__(self, schedule, T, prediction):
        self.schedule = named_schedule(schedule, T)

    def start(self, noise):
        """x_T to start a sampler from: fair coins."""
        return (noise < binomial.FAIR_COIN.one).astype(noise.dtype)

    def q_sample(self, x0, t, noise):
        """x_t, t in 0..T."""
        return binomial.q_sample(self.schedule, x0, t, noise)

    def network_input(self, xt):
        """What the network is shown: -1 and 1."""
        return 2 * xt - 1

    def loss_inputs(self, x0, xt, t, noise):
        """The arrays that `loss` takes beside the network's output: the bits, and the log odds that are known."""
        return x0, binomial.log_odds(self.schedule, xt, t)

    @staticmethod
    def loss(output, x0, known):
        """-log P(x_0), a pixel, a scalar Tensor: log(1 + e^-logit) for a 1, log(1 + e^logit) for a 0. (E23)"""
        return nn.softplus((output + known) * (1 - 2 * x0)).mean()

    def x0_hat(self, output, xt, t):
        """The probability that each bit of x_0 is 1, which stays off 0 and 1.

        There float32 has no room left between it and 1, and a bit that was thought impossible would cost
        infinitely much: limited like this it costs 16 nats.
        """
        logit = (output + binomial.log_odds(self.schedule, xt, t)).clip(-16, 16)
        return 1 / (1 + np.exp(-logit))

    def simple_loss(self, x0, xt, t, noise, x0_hat):
        """The cross entropy of the bits, a pixel: (N,). (E23)"""
        return binomial.bit_cross_entropy(x0, x0_hat)

    def sample(self, denoise, schedule, x_T, noise, sampler, progress=None, keep=None):
        """As `binomial.sample`. ValueError for a sampler but "ancestral"."""
        if sampler != "ancestral":
            raise ValueError(f"binomial diffusion has one sampler, ancestral; got {sampler!r}")
        return binomial.sample(denoise, schedule, x_T, noise, progress, keep)

    def bound(self, variance=None, clip=None):
        """The terms of the bound, `BoundTerms`. It has no options: ValueError if one is given. (E14, E33)"""
        if variance is not None or clip is not None:
            raise ValueError(
                "binomial diffusion has no variance to choose and no x0_hat to clip: leave both out "
                f"(they are options of gaussian diffusion), got variance {variance!r}, clip {clip}"
            )
        term = partial(binomial.denoising_term, self.schedule)
        return BoundTerms(
            partial(binomial.prior_term, self.schedule),
            term,
            lambda denoise, x0, noise: term(denoise, x0, 1, noise),
            "a pixel is a bit, 1 where the image is above 127.5",
        )


PROCESSES = {"gaussian": GaussianProcess, "binomial": BinomialProcess}
