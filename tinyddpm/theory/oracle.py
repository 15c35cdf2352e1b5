"""The ideal model: for mixtures of Gaussians the score, E[x_0 | x_t] and the reverse step are known exactly.

An `Oracle` stands in for a network. So a sampler or a bound is held against the truth, with no training.
Next: bound_forms.py.
"""

import numpy as np

from tinyddpm.coefficients import as_steps, check_t, float_dtype, is_on_gpu
from tinyddpm.gaussian import Gaussian
from tinyddpm.reverse import ancestral_step, variance_table
from tinyddpm.theory.mixture import gaussian_data

__all__ = ["Oracle", "chain_variance", "fixed_variance_excess", "guided_variances"]


class Oracle:
    """The exact answers about diffused data, and the ideal model: `denoise` goes wherever a network does.

    data: a Mixture. schedule: the NoiseSchedule, unrespaced. xt is a NumPy or CuPy array (N, ...) of as many elements
    a sample as the data have dimensions; answers have its dtype. t is an integer or integers (N,). Raises ValueError
    for another shape, a t out of range, or an x_t that is not finite; TypeError for an xt that is not floating.
    """

    def __init__(self, data, schedule):
        self.data, self.schedule = data, schedule

    def marginal(self, t):
        """q(x_t), t in 0..T: a Mixture; for t of shape (N,) a batch. (E2)"""
        t = as_steps("t", t, 0, self.schedule.T)
        return self.data.diffused(self.schedule.alpha_bar[t] ** 0.5, self.schedule.one_minus_alpha_bar[t])

    def posterior(self, xt, t, s=None):
        """q(x_s | x_t) for s in 0..t-1, t - 1 unless given: a batch, one Mixture a sample. (E6)

        s = t - 1 is the exact reverse step, Gaussian if the data are; s = 0 is all that x_t tells of x_0.
        """
        x = flat(xt, self.data)
        t = check_t(t, self.schedule.T, x, first=1)
        s = t - 1 if s is None else check_t(s, self.schedule.T, x)
        if np.any(s >= t):
            raise ValueError(f"s must be before t, got s = {s}, t = {t}")
        alpha, beta = self.schedule.jump(s, t)
        return self.marginal(s).given(x, alpha**0.5, beta)

    def sample(self, rng, n, t=0):
        """x_t, exactly distributed: (n, d) float64."""
        return self.marginal(t).sample(rng, n)

    def log_prob(self, xt, t):
        """log q(x_t), in nats, t in 0..T: (N,). Raises ValueError where there is no density."""
        x = flat(xt, self.data)
        return like(self.marginal(check_t(t, self.schedule.T, x)).log_prob(x), xt)

    def score(self, xt, t):
        """grad log q(x_t), like xt, t in 0..T. (E26)"""
        x = flat(xt, self.data)
        return like(self.marginal(check_t(t, self.schedule.T, x)).score(x).reshape(xt.shape), xt)

    def denoise(self, xt, t):
        """E[x_0 | x_t], like xt, t in 1..T: the best model there can be. (E27)"""
        return like(self.posterior(xt, t, s=0).mean().reshape(xt.shape), xt)

    def reverse_step(self, xt, t):
        """The Gaussian with the exact mean and variances of q(x_{t-1} | x_t), like xt.

        For Gaussian data with a diagonal covariance it is q(x_{t-1} | x_t) itself; for other data the nearest
        diagonal Gaussian.
        """
        exact = self.posterior(xt, t)
        variance = np.diagonal(exact.covariance(), axis1=-2, axis2=-1)
        return Gaussian(*(like(a.reshape(xt.shape), xt) for a in (exact.mean(), variance)))


def flat(xt, data):
    """xt as float64 (N, d) on the host. Raises TypeError for a tensor: an oracle has no gradient."""
    float_dtype("xt", xt)
    x = xt.get() if is_on_gpu(xt) and hasattr(xt, "get") else xt
    if not isinstance(x, np.ndarray):
        raise TypeError(f"an oracle takes NumPy and CuPy arrays, got {type(xt).__name__}")
    x = x.astype(np.float64).reshape(len(x), -1)
    if x.shape[1] != data.means.shape[-1]:
        raise ValueError(f"xt must have {data.means.shape[-1]} elements a sample, got shape {xt.shape}")
    return x


def like(values, xt):
    """Values in xt's dtype, on its device."""
    values = values.astype(xt.dtype)
    if is_on_gpu(xt):
        import cupy

        return cupy.asarray(values)
    return values


# ---- closed forms for Gaussian data ----


def marginal_variances(schedule, data_variance):
    """The variance of x_t for t = 0..T: (T + 1,). data_variance: a number; ValueError if it is none or negative. (E2)"""
    if np.ndim(data_variance) != 0 or not 0 <= data_variance < np.inf:
        raise ValueError(f"the variance of the data must be a number of at least 0, got {data_variance}")
    return schedule.alpha_bar * data_variance + schedule.one_minus_alpha_bar  # E2


def chain_variance(schedule, data_variance, step=ancestral_step, start=1.0):
    """The variance of x_t for t = 0..T along a sampler that runs with the ideal model of centred Gaussian data.

    data_variance: (d,), or a number. step: a sampler's, linear in x_t and in what the model says, and without memory,
    such as `ancestral_step`, `ddim_step`, `heun_step`. start: the variance of x_T. Returns (T + 1, d). No noise is
    added at t = 1. (E29)
    """
    data_variance = np.atleast_1d(data_variance)
    oracle = Oracle(gaussian_data(np.zeros(len(data_variance)), data_variance), schedule)
    variances = np.empty((schedule.T + 1, len(data_variance)))
    variances[-1] = start
    one = np.ones((1, len(data_variance)))
    for t in range(schedule.T, 0, -1):
        p = step(oracle.denoise, schedule, one, t)  # its mean is the factor of x_t
        variances[t - 1] = p.mean[0] ** 2 * variances[t] + (p.variance if t > 1 else 0.0)
    return variances


def fixed_variance_excess(schedule, data_variance, variance="beta_tilde"):
    """What a fixed sigma_t^2 adds to the averaged bound of Gaussian data, in nats, for t = 0..T: (T + 1,). (E18)

    data_variance: a number; the excess is per dimension. The exact reverse step has the variance v_t = beta_t
    V_{t-1}/V_t, where V_t is the variance of x_t. The ideal model has its mean, so the excess at t is
    KL(N(0, v_t) || N(0, sigma_t^2)).
    """
    total = marginal_variances(schedule, data_variance)
    ratio = schedule.beta[1:] * total[:-1] / total[1:] / variance_table(schedule, variance)[1:]
    return np.append(0.0, (ratio - 1 - np.log(ratio)) / 2)  # E18


def guided_variances(schedule, data_variance, class_variance, w):
    """Two variances for t = 0..T, (T + 1,) each: of the guided density, and of the diffusion of guided data. (E39)

    The data are N(0, data_variance), one class of them N(0, class_variance), numbers with class_variance <=
    data_variance. At t the guided density q_t(x) (q_t(x|c)/q_t(x))^w has the precision w/V_t(c) + (1 - w)/V_t.
    Guided data have the precision of t = 0, and diffusion takes them to another variance at t, unless w is 0 or 1:
    the guided densities are not the diffusion of any data.
    """
    V, V_c = (marginal_variances(schedule, v) for v in (data_variance, class_variance))
    precision = w / V_c + (1 - w) / V
    if not (precision > 0).all():
        raise ValueError(f"guidance by w = {w} leaves no density: its precision falls to {precision.min():g}")
    guided = 1 / precision  # E39
    return guided, schedule.alpha_bar * guided[0] + schedule.one_minus_alpha_bar
