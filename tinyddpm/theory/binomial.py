"""Binomial diffusion: bits that flip until they are fair coins. (Sohl-Dickstein et al. 2015; E33)

The functions have the names of their Gaussian counterparts in forward.py, reverse.py and bound.py. The schedules are
the same: beta_t is the probability that a bit is replaced by a fair coin. A bit is 0.0 or 1.0. A model is
`denoise(xt, t) -> x0_hat`, the probability that each bit of x_0 is 1. Where the Gaussian functions take standard
normal noise, these take `uniform`, noise uniform in [0, 1). Next: properties/adapter.py.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyddpm import reverse
from tinyddpm.bound import Bound
from tinyddpm.coefficients import check_like, check_t, gather, spread
from tinyddpm.gaussian import log, sum_per_sample
from tinyddpm.reverse import predict_x0
from tinyddpm.theory.bound_forms import Diffusion

__all__ = ["Bernoulli", "FAIR_COIN", "q_transition", "q_step", "q_marginal", "q_sample", "q_posterior", "q_bridge"]
__all__ += ["binomial_diffusion", "log_odds", "p_transition", "ancestral_step", "sample", "step_kl"]
__all__ += ["bit_cross_entropy", "denoising_term", "prior_term", "variational_bound"]


@dataclass(frozen=True, eq=False)
class Bernoulli:
    """Independent bits. The first axis counts samples.

    one, zero: the probabilities of 1 and of 0, each (N, ...) floating, or numbers. Both are kept, because 1 - one
    would round a small probability of 0 away. Raises ValueError for NumPy arrays or numbers outside [0, 1], or of
    sums that are not 1.
    """

    one: Any
    zero: Any

    def __post_init__(self):
        if isinstance(self.one, (np.ndarray, np.floating, float)):
            low, total = np.minimum(self.one, self.zero), self.one + self.zero
            if not ((low >= 0) & (abs(total - 1) < 1e-4)).all():
                raise ValueError(f"probabilities must lie in [0, 1] and sum to 1, got {np.min(low)}..{np.max(total)}")

    @property
    def mean(self):
        return self.one

    @property
    def variance(self):
        return self.one * self.zero

    def sample(self, uniform):
        """Bits, from noise uniform in [0, 1) like `one`. ValueError for other noise, such as a normal sample."""
        check_like("uniform", uniform, "the mean", self.one)
        if not ((uniform >= 0) & (uniform < 1)).all():
            raise ValueError(f"uniform must lie in [0, 1), got {uniform.min()}..{uniform.max()}")
        return (uniform < self.one).astype(self.one.dtype)

    def log_prob(self, x):
        """log of the probability of the bits x, in nats: (N,)."""
        return sum_per_sample(log(x * self.one + (1 - x) * self.zero))

    def entropy(self):
        """In nats: (N,)."""
        return self.cross_entropy(self)

    def cross_entropy(self, other):
        """-E log other(x) over x from self, in nats: (N,)."""
        each = expected_log(self.one, other.one) + expected_log(self.zero, other.zero)
        return -sum_per_sample(each)

    def kl(self, other):
        """KL(self || other) in nats: (N,)."""
        return self.cross_entropy(other) - self.entropy()


FAIR_COIN = Bernoulli(0.5, 0.5)  # the prior, for any shape


def expected_log(weight, probability):
    """weight log probability, where 0 log 0 = 0."""
    never = (weight == 0).astype(weight.dtype)
    return weight * log(probability + never)


# ---- the forward process ----


def flipped(x, flip):
    """The bits x, each flipped with probability `flip`."""
    return Bernoulli(x * (1 - flip) + (1 - x) * flip, x * flip + (1 - x) * (1 - flip))


def both(a, b):
    """The law of a bit, given two independent sources a and b about it: Bayes' rule."""
    one, zero = a.one * b.one, a.zero * b.zero
    return Bernoulli(one / (one + zero), zero / (one + zero))


def q_transition(schedule, x_prev, t):
    """q(x_t | x_{t-1}) = Bernoulli(x_{t-1} (1 - beta_t) + beta_t/2), t in 1..T. ValueError unless bits. (E33)"""
    return flipped(check_bits("x_prev", x_prev), gather(schedule.beta, t, x_prev, first=1) / 2)  # E33


def q_step(schedule, x_prev, t, uniform):
    """x_t from x_{t-1} and uniform noise like it, t in 1..T. (E33)"""
    return q_transition(schedule, x_prev, t).sample(uniform)


def q_marginal(schedule, x0, t):
    """q(x_t | x_0) = Bernoulli(1/2 + (x_0 - 1/2) alpha_bar_t), t in 0..T. (E33)"""
    return flipped(check_bits("x0", x0), gather(schedule.one_minus_alpha_bar, t, x0) / 2)  # E33


def q_sample(schedule, x0, t, uniform):
    """x_t from x_0 and uniform noise like it, t in 0..T. (E33)"""
    return q_marginal(schedule, x0, t).sample(uniform)


def q_posterior(schedule, x0, xt, t, s=None):
    """q(x_s | x_t, x_0) for 0 <= s < t <= T; s is t - 1 unless given. (E6, E33)

    x0, xt: bits (N, ...), alike. Raises ValueError or TypeError as the Gaussian one does.
    """
    check_like("x0", x0, "xt", check_bits("xt", xt))
    t = check_t(t, schedule.T, xt, first=1)
    s = t - 1 if s is None else check_t(s, schedule.T, xt)
    if np.any(s >= t):
        raise ValueError(f"s must be before t, got s = {s}, t = {t}")
    _, beta = schedule.jump(s, t)
    return both(q_marginal(schedule, x0, s), flipped(xt, spread(beta, xt) / 2))  # E6


def q_bridge(schedule, x_prev, x_next, t):
    """q(x_t | x_{t-1}, x_{t+1}), t in 1..T-1. (E15)"""
    check_like("x_next", x_next, "x_prev", x_prev)
    t = check_t(t, schedule.T - 1, x_prev, first=1)
    from_next = flipped(check_bits("x_next", x_next), gather(schedule.beta, t + 1, x_next) / 2)
    return both(q_transition(schedule, x_prev, t), from_next)  # E15


def binomial_diffusion(schedule):
    """The diffusion of this file, for the forms of bound_forms.py; its prior is fair coins. (E33)"""
    distributions = (partial(q, schedule) for q in (q_transition, q_marginal, q_posterior, q_bridge))
    return Diffusion(schedule.T, *distributions, prior=lambda x: Bernoulli(0 * x + 0.5, 0 * x + 0.5))


def log_odds(schedule, xt, t):
    """log P(x_t | x_0 = 1) - log P(x_t | x_0 = 0) for each bit of x_t by itself, t in 1..T: like xt. (E33)

    The log odds of a bit of x_0 given all of x_t are this plus the log odds given all *other* bits of x_t (Bayes).
    A network that predicts the latter need not learn the former.
    """
    flip = gather(schedule.one_minus_alpha_bar, t, check_bits("xt", xt), first=1) / 2
    return (2 * xt - 1) * log((1 - flip) / flip)


def check_bits(name, x):
    """x, if it holds nothing but 0 and 1; ValueError if not."""
    if not ((x == 0) | (x == 1)).all():
        raise ValueError(f"{name} must hold bits, 0 or 1, got values in {x.min()}..{x.max()}")
    return x


# ---- the reverse process ----


def p_transition(schedule, x0_hat, xt, t):
    """p(x_{t-1} | x_t): q(x_{t-1} | x_t, x_0) averaged over bits x_0 of probability x0_hat. (E33)

    x0_hat: an array or a tensor like xt, in [0, 1]. With the ideal model each bit has its true probability.
    """
    check_like("x0_hat", x0_hat, "xt", xt)
    if_zero, if_one = (q_posterior(schedule, 0 * xt + bit, xt, t) for bit in (0, 1))
    return Bernoulli(
        x0_hat * if_one.one + (1 - x0_hat) * if_zero.one, x0_hat * if_one.zero + (1 - x0_hat) * if_zero.zero
    )


def ancestral_step(denoise, schedule, xt, t):
    """p(x_{t-1} | x_t) of the model: a step for `reverse.reverse_process`. (E33)"""
    return p_transition(schedule, denoise(xt, t), xt, t)


def sample(denoise, schedule, x_T, uniform, progress=None):
    """Bits x_0 drawn with the model, starting from fair coins x_T (N, ...).

    uniform(t) -> noise uniform in [0, 1) like x_T, for t = T..1. progress: as in `reverse.sample`, whose last step
    leaves the probabilities of x_0; its bits are drawn with uniform(1). To visit fewer steps pass
    `schedule.respace(S)`.
    """
    x0_hat = reverse.sample(denoise, schedule, check_bits("x_T", x_T), uniform, ancestral_step, progress=progress)
    return Bernoulli(x0_hat, 1 - x0_hat).sample(uniform(1))


# ---- the bound and the loss, in nats ----


def step_kl(schedule, x0, x0_hat, xt, t):
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), t in 1..T; at t = 1 it is -log p(x_0 | x_1): (N,). (E14)

    To train on this, keep x0_hat within (0, 1): a bit that the model takes for impossible costs infinitely much.
    """
    return q_posterior(schedule, x0, xt, t).kl(p_transition(schedule, x0_hat, xt, t))  # E14


def bit_cross_entropy(x0, x0_hat):
    """-log of the probability that x0_hat gives the bits x_0, a dimension: (N,). The simple loss. (E23)

    At each t it has the same minimiser as the bound: the probability of each bit given x_t.
    """
    check_like("x0_hat", x0_hat, "x0", x0)
    return Bernoulli(x0_hat, 1 - x0_hat).log_prob(check_bits("x0", x0)) * (-1 / math.prod(x0.shape[1:]))


def denoising_term(schedule, denoise, x0, t, uniform):
    """L_{t-1}, or L_0 at t = 1, at x_t drawn with `uniform`: (N,). t: 1..T, or such integers (N,). (E14)"""
    xt = q_sample(schedule, x0, t, uniform)
    return step_kl(schedule, x0, predict_x0(denoise, schedule, xt, t), xt, t)


def prior_term(schedule, x0):
    """L_T = KL(q(x_T | x_0) || fair coins): (N,). (E20)"""
    return q_marginal(schedule, x0, schedule.T).kl(FAIR_COIN)


def variational_bound(schedule, denoise, x0, uniform, progress=None):
    """The whole bound, from one draw of each x_t: a `Bound`. (E14)

    x0: bits (N, ...); uniform(t) -> noise uniform in [0, 1) like x0, for t = 1..T.
    """
    steps = range(1, schedule.T + 1)
    terms = [
        denoising_term(schedule, denoise, x0, t, uniform(t)) for t in (steps if progress is None else progress(steps))
    ]
    nothing = 0 * terms[0]
    return Bound(prior_term(schedule, x0), np.stack([nothing, nothing, *terms[1:]]), terms[0])
