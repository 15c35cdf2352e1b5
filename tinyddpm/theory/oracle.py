"""Data whose diffusion is known exactly: Gaussians, mixtures of Gaussians, finite sets.

All are mixtures of Gaussians (a Gaussian of one, a finite set of points without width), and so is everything
that diffusion makes of them. Two operations give it all: `diffused` leads to q(x_t), `given` to q(x_0 | x_t)
and q(x_{t-1} | x_t). So samplers and bounds can be held against the truth, with no network and no training.
Read flow.py and continuous.py next.
"""

from dataclasses import dataclass

import numpy as np

from tinyddpm.coefficients import check_t, float_dtype, is_on_gpu
from tinyddpm.gaussian import Gaussian
from tinyddpm.reverse import p_mean_variance, variance_table

__all__ = ["gaussian_data", "mixture_data", "finite_data", "Mixture", "Oracle", "chain_variance"]
__all__ += ["fixed_variance_excess"]


# ---- the data ----


def gaussian_data(mean, covariance):
    """N(mean, covariance). mean: (d,); covariance: a number or (d,) for a diagonal, (d, d) for a full one."""
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    return mixture_data([1.0], mean[None], covariance[None] if covariance.ndim else covariance)


def mixture_data(weights, means, covariances):
    """A mixture of K Gaussians. weights: (K,), positive, of sum 1; means: (K, d).

    covariances: a number, (K, 1) or (K, d) for diagonals, (K, d, d) for full ones; symmetric, not negative.
    Raises ValueError for anything else.
    """
    weights, means, covariances = (np.asarray(a, dtype=np.float64) for a in (weights, means, covariances))
    if weights.ndim != 1 or not (weights > 0).all() or abs(weights.sum() - 1) > 1e-12:
        raise ValueError(f"weights must be one-dimensional, positive and of sum 1, got {weights}")
    if means.ndim != 2 or len(means) != len(weights):
        raise ValueError(f"means must have shape ({len(weights)}, d), got {means.shape}")
    axes = None
    if covariances.ndim == 3:
        check_covariances(covariances, means)
        covariances, axes = np.linalg.eigh(covariances)
        rounding = 1e-14 * covariances.max(axis=1, keepdims=True)
        covariances = np.where(abs(covariances) < rounding, 0.0, covariances)
    if covariances.shape not in ((), (len(means), 1), means.shape) or (covariances < 0).any():
        raise ValueError(
            f"covariances must fit means of shape {means.shape} and not be negative, "
            f"got shape {covariances.shape}, smallest {covariances.min():g}"
        )
    return Mixture(np.log(weights), means, covariances, axes)


def finite_data(points, weights=None):
    """A finite set: points (K, ...), each flattened; weights (K,) of sum 1, by default alike."""
    points = np.asarray(points, dtype=np.float64).reshape(len(points), -1)
    return mixture_data(np.full(len(points), 1 / len(points)) if weights is None else weights, points, 0.0)


def check_covariances(covariances, means):
    """Raise ValueError unless covariances (K, d, d) are symmetric and fit means (K, d)."""
    if covariances.shape != (*means.shape, means.shape[1]):
        raise ValueError(f"covariances must fit means of shape {means.shape}, got shape {covariances.shape}")
    if not np.allclose(covariances, covariances.swapaxes(1, 2), rtol=1e-12, atol=0):
        raise ValueError("covariances must be symmetric")


@dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(mean_k, covariance_k), float64; one mixture, or one a sample of a batch.

    log_weights: (..., K); means: (..., K, d), where ... is nothing or N. Covariance k has the variances
    (..., K, d), or what broadcasts to it, along the columns of axes[k], (K, d, d); along the coordinates
    themselves where axes is None. Time and memory are of the order N K d. x is always (N, d).
    """

    log_weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    axes: np.ndarray | None = None

    def along_axes(self, vectors):
        """Coordinates (..., K, d) of vectors (..., K, d) along the axes of their component."""
        return vectors if self.axes is None else (vectors[..., None, :] @ self.axes)[..., 0, :]

    def from_axes(self, coordinates):
        """The vectors with these coordinates along the axes."""
        return coordinates if self.axes is None else (self.axes @ coordinates[..., None])[..., 0]

    # ---- what is known of it ----

    def mean(self):
        """(..., d)."""
        return (np.exp(self.log_weights)[..., None] * self.means).sum(-2)

    def covariance(self):
        """(..., d, d): within the components and between them."""
        variances = np.broadcast_to(self.variances, self.means.shape)[..., None]
        axes = np.eye(self.means.shape[-1]) if self.axes is None else self.axes
        step = self.means - self.mean()[..., None, :]
        second_moments = axes @ (variances * axes.swapaxes(-1, -2)) + step[..., :, None] * step[..., None, :]
        return (np.exp(self.log_weights)[..., None, None] * second_moments).sum(-3)

    def log_components(self, x):
        """log w_k N(x; mean_k, covariance_k): (N, K). Raises ValueError for components without width."""
        if not (self.variances > 0).all():
            raise ValueError("a mixture with points or lines in it has no density; diffuse it first (t >= 1)")
        square = self.along_axes(x[:, None] - self.means) ** 2
        log_density = -(square / self.variances + np.log(2 * np.pi * self.variances)) / 2  # E12
        return self.log_weights + log_density.sum(-1)

    def log_prob(self, x):
        """log of the density at x, in nats: (N,)."""
        return np.logaddexp.reduce(self.log_components(x), axis=-1)

    def log_responsibilities(self, x):
        """log P(component k | x): (N, K)."""
        log_components = self.log_components(x)
        return log_components - np.logaddexp.reduce(log_components, axis=-1)[:, None]

    def score(self, x):
        """grad log density at x: (N, d)."""
        shares = np.exp(self.log_responsibilities(x))
        scores = self.from_axes(-self.along_axes(x[:, None] - self.means) / self.variances)
        return (shares[..., None] * scores).sum(-2)

    def sample(self, rng, n):
        """n samples (n, d), with rng = numpy.random.default_rng(seed); of a batch of mixtures one each."""
        K, d = self.means.shape[-2:]
        cumulative = np.broadcast_to(np.cumsum(np.exp(self.log_weights), -1), (n, K))
        k = (rng.random((n, 1)) * cumulative[:, -1:] >= cumulative).sum(-1)
        rows = np.arange(n), k
        mean, variance = (np.broadcast_to(a, (n, K, d))[rows] for a in (self.means, self.variances))
        deviation = variance**0.5 * rng.standard_normal((n, d))
        return mean + (deviation if self.axes is None else (self.axes[k] @ deviation[..., None])[..., 0])

    # ---- what becomes of it ----

    def diffused(self, scale, variance):
        """The law of scale y + N(0, variance I), y from this mixture. scale, variance: numbers, or (N,)."""
        scale, variance = per_component(scale), per_component(variance)
        return Mixture(self.log_weights, scale * self.means, scale**2 * self.variances + variance, self.axes)

    def given(self, x, scale, variance):
        """The law of y when x = scale y + N(0, variance I) has been seen: one mixture a sample of x."""
        seen = self.diffused(scale, variance)
        scale, variance = per_component(scale), per_component(variance)
        gain = scale * self.variances / seen.variances
        step = self.from_axes(gain * self.along_axes(x[:, None] - seen.means))
        return Mixture(
            seen.log_responsibilities(x), self.means + step, self.variances * variance / seen.variances, self.axes
        )


def per_component(value):
    """A number as it is; values (N,) shaped (N, 1, 1) for (N, K, d)."""
    value = np.asarray(value)
    return value[:, None, None] if value.ndim else value


# ---- the model ----


class Oracle:
    """The exact answers about diffused data, and the ideal model: `denoise` goes wherever a network does.

    data: a Mixture. schedule: the NoiseSchedule, unrespaced. Everywhere xt is a NumPy or CuPy array (N, ...)
    of d = the data's dimensions a sample, t an integer or integers (N,); the answers have xt's dtype.
    """

    def __init__(self, data, schedule):
        self.data, self.schedule = data, schedule

    def marginal(self, t):
        """q(x_t), t in 0..T: a Mixture, or one for each of t (N,). (E2)"""
        return self.data.diffused(self.schedule.alpha_bar[t] ** 0.5, self.schedule.one_minus_alpha_bar[t])

    def posterior(self, xt, t, s=None):
        """q(x_s | x_t), s in 0..t-1, t - 1 unless given: one Mixture a sample. (E6)

        For s = t - 1 the exact reverse step, Gaussian if the data are; for s = 0 what x_t tells of x_0.
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

        It is q(x_{t-1} | x_t) itself if the data are Gaussian and diagonal, the nearest such Gaussian if not.
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


# ---- a whole chain, for Gaussian data, is a recursion ----


def chain_variance(schedule, data_variance, step=p_mean_variance, start=1.0):
    """The variance of x_t for t = 0..T, when a sampler runs with the ideal model of centred Gaussian data.

    data_variance: (d,), or a number. step(schedule, x0_hat, xt, t) -> Gaussian, linear in x0_hat and xt, as
    the steps of reverse.py are: p_mean_variance, ddim_step, ... start: the variance of x_T. Returns
    (T + 1, d). No noise is added at t = 1. (E29)
    """
    data_variance = np.atleast_1d(data_variance)
    oracle = Oracle(gaussian_data(np.zeros(len(data_variance)), data_variance), schedule)
    variances = np.empty((schedule.T + 1, len(data_variance)))
    variances[-1] = start
    one = np.ones((1, len(data_variance)))
    for t in range(schedule.T, 0, -1):
        p = step(schedule, oracle.denoise(one, t), one, t)  # its mean is the factor of x_t
        variances[t - 1] = p.mean[0] ** 2 * variances[t] + (p.variance if t > 1 else 0.0)
    return variances


def fixed_variance_excess(schedule, data_variance, variance="beta_tilde"):
    """What a fixed sigma_t^2 adds to the averaged bound of Gaussian data: nats for t = 0..T. (E18)

    data_variance: a number; the excess is per dimension. The exact reverse step has the variance v_t = beta_t
    V_{t-1}/V_t, where V_t is the variance of x_t. The ideal model has its mean, so at t the excess is
    KL(N(0, v_t) || N(0, sigma_t^2)).
    """
    total = schedule.alpha_bar * data_variance + schedule.one_minus_alpha_bar
    ratio = schedule.beta[1:] * total[:-1] / total[1:] / variance_table(schedule, variance)[1:]
    return np.append(0.0, (ratio - 1 - np.log(ratio)) / 2)  # E18
