"""Bits that flip, on images of two levels: theory/binomial.py as a diffusion of the program. Next: config.py."""

from functools import partial

import numpy as np

import nn
from tinyddpm import reverse
from tinyddpm.data.images import from_bits, to_bits
from tinyddpm.loss import stratified_timesteps
from tinyddpm.program.gaussian_diffusion import BoundTerms
from tinyddpm.schedule import SCHEDULES
from tinyddpm.theory import binomial

__all__ = ["BinomialDiffusion"]


class BinomialDiffusion:
    """Bits flip until they are fair coins; the network predicts the probability that each bit of x_0 is 1. (E33)

    Its output is the log odds of a bit given all *other* bits of x_t. The log odds given the same bit of x_t are known
    and are added to it. So an untrained network, whose output is 0, already trusts x_t as far as it should. After 150
    steps of training the bound was 0.17 bits/dim; without this addition it was 0.32.
    """

    predictions = ("logit",)
    # The signal in a bit is alpha_bar, not its root as for a Gaussian. Under "cosine" the noisiest quarter of the steps
    # carries a fortieth of the bound, and training on them is wasted; under "even", a twelfth.
    schedules, default_schedule = SCHEDULES, "even"
    loss_weights = ("simple",)
    samplers = {"ancestral": lambda: binomial.ancestral_step}
    default_sampler, default_steps, default_spacing = "ancestral", 100, "t"
    loss_name = simple_loss_name = "cross entropy, nats a pixel"
    continuous_time, unet, grey_preset = False, {}, "small"

    data, pictures = staticmethod(to_bits), staticmethod(from_bits)
    noise = staticmethod(nn.random.uniform)

    def __init__(self, schedule, prediction="logit", loss_weight="simple", gamma=None):
        self.schedule, self.prediction = schedule, prediction

    def timesteps(self, n, rng):
        """n timesteps to train on, stratified: (n,) in 1..T. (E36)"""
        return stratified_timesteps(self.schedule.T, n, rng)[0]

    def around(self, network):
        """What is trained: the network, and what is learned beside it."""
        return network

    def network_log_snr(self):
        """Nothing: bits have no log-SNR that a network could use."""
        return None

    def network_time(self, t):
        """What the network is told of the timesteps t (N,)."""
        return t

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
        """The arguments of `loss` after the output: the bits of x_0, and the log odds given the same bit of x_t."""
        return x0, binomial.log_odds(self.schedule, xt, t)

    @staticmethod
    def loss(output, x0, known):
        """The mean -log P(x_0) per pixel, a scalar Tensor: softplus(-logit) for a 1, softplus(logit) for a 0. (E23)"""
        return nn.softplus((output + known) * (1 - 2 * x0)).mean()

    def x0_hat(self, output, xt, t):
        """The probability that each bit of x_0 is 1. The logit is limited to [-16, 16].

        Not far above 16 the probability rounds to 1 in float32, and a bit that is 0 after all would cost infinitely
        many nats. With the limit it costs 16.
        """
        logit = (output + binomial.log_odds(self.schedule, xt, t)).clip(-16, 16)
        return 1 / (1 + np.exp(-logit))

    def at_log_snr(self, denoise):
        """Bits have no probability flow: ValueError."""
        raise ValueError("binomial diffusion jumps from bit to bit: it has no probability flow")

    def simple_loss(self, x0, xt, t, noise, x0_hat):
        """The cross entropy of the bits, a pixel: (N,). (E23)"""
        return binomial.bit_cross_entropy(x0, x0_hat)

    def reverse(self, denoise, schedule, x_T, noise, step):
        """As `reverse.reverse_process`."""
        return reverse.reverse_process(denoise, schedule, x_T, noise, step)

    def last(self, x0, noise):
        """The image at the end of the chain: bits drawn from x0, which is the mean of the last step."""
        return (noise < x0).astype(noise.dtype)

    def bound(self, **choices):
        """The terms of the bound, `BoundTerms`. It has no options: ValueError if one is given. (E14, E33)"""
        if choices:
            raise ValueError(
                "binomial diffusion has no variance to choose and no x0_hat to clip: leave both out (they are options of "
                f"gaussian diffusion), got {choices}"
            )
        term = partial(binomial.denoising_term, self.schedule)
        return BoundTerms(
            partial(binomial.prior_term, self.schedule),
            term,
            lambda denoise, x0, noise: term(denoise, x0, 1, noise),
            "a pixel is a bit, 1 where the image is above 127.5",
        )
