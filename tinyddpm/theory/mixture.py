"""Data whose diffusion is known exactly: Gaussians, mixtures of Gaussians, finite sets.

All three are mixtures of Gaussians: a Gaussian is a mixture of one, a finite set a mixture of points without width.
Diffusion turns a mixture into a mixture, and so does Bayes' rule. Two methods of `Mixture` are therefore enough:
`diffused` gives q(x_t); `given` gives q(x_0 | x_t) and q(x_{t-1} | x_t). Next: oracle.py.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["gaussian_data", "mixture_data", "finite_data", "Mixture"]


# ---- the data ----


def gaussian_data(mean, covariance):
    """N(mean, covariance). mean: (d,); covariance: a number or (d,) for a diagonal, (d, d) for a full one."""
    mean, covariance = np.asarray(mean), np.asarray(covariance)
    return mixture_data([1.0], mean[None], covariance[None] if covariance.ndim else covariance)


def mixture_data(weights, means, covariances):
    """A mixture of K Gaussians. weights: (K,), positive, of sum 1; means: (K, d).

    covariances: a number, (K, 1) or (K, d) for diagonals, (K, d, d) for full ones; symmetric, not negative.
    Raises ValueError for anything else, and for numbers that are not finite.
    """
    weights, means, covariances = (np.asarray(a, dtype=np.float64) for a in (weights, means, covariances))
    if weights.ndim != 1 or not (weights > 0).all() or abs(weights.sum() - 1) > 1e-12:
        raise ValueError(f"weights must be one-dimensional, positive and of sum 1, got {weights}")
    if means.ndim != 2 or len(means) != len(weights):
        raise ValueError(f"means must have shape ({len(weights)}, d), got {means.shape}")
    if not (np.isfinite(means).all() and np.isfinite(covariances).all()):
        raise ValueError("means and covariances must be finite")
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
    """A finite set: points (K, ...), each flattened; weights (K,) of sum 1, by default all equal."""
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
    """sum_k w_k N(mean_k, covariance_k), float64: one mixture, or a batch of N mixtures, one a sample.

    log_weights: (..., K); means: (..., K, d), where ... is empty for one mixture and N for a batch. axes: (K, d, d),
    whose matrix k has the eigenvectors of covariance k for columns; None if all covariances are diagonal. variances:
    the variances along these axes, (..., K, d) or what broadcasts to it. Points x are (N, d). Time and memory grow
    like N K d.
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

    def from_means(self, x):
        """x - mean_k: (N, K, d). Raises ValueError unless x is (N, d) and finite."""
        x, d = np.asarray(x, dtype=np.float64), self.means.shape[-1]
        if x.ndim != 2 or x.shape[1] != d or not np.isfinite(x).all():
            raise ValueError(f"x must be finite, of shape (N, {d}), got shape {x.shape}")
        return x[:, None] - self.means

    # ---- moments, density, samples ----

    def mean(self):
        """(..., d)."""
        return (np.exp(self.log_weights)[..., None] * self.means).sum(-2)

    def covariances(self):
        """The covariance of each component: (..., K, d, d)."""
        variances = np.broadcast_to(self.variances, self.means.shape)[..., None]
        axes = np.eye(self.means.shape[-1]) if self.axes is None else self.axes
        return axes @ (variances * axes.swapaxes(-1, -2))

    def covariance(self):
        """Of the whole mixture, within the components and between them: (..., d, d)."""
        step = self.means - self.mean()[..., None, :]
        second_moments = self.covariances() + step[..., :, None] * step[..., None, :]
        return (np.exp(self.log_weights)[..., None, None] * second_moments).sum(-3)

    def log_components(self, x):
        """log w_k N(x; mean_k, covariance_k): (N, K). Raises ValueError for components without width."""
        if not (self.variances > 0).all():
            raise ValueError("a mixture with points or lines in it has no density; diffuse it first (t >= 1)")
        square = self.along_axes(self.from_means(x)) ** 2
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
        scores = self.from_axes(-self.along_axes(self.from_means(x)) / self.variances)
        return (shares[..., None] * scores).sum(-2)

    def sample(self, rng, n):
        """n samples (n, d), with rng = numpy.random.default_rng(seed). A batch of n mixtures gives one of each."""
        K, d = self.means.shape[-2:]
        cumulative = np.broadcast_to(np.cumsum(np.exp(self.log_weights), -1), (n, K))
        k = (rng.random((n, 1)) * cumulative[:, -1:] >= cumulative).sum(-1)
        rows = np.arange(n), k
        mean, variance = (np.broadcast_to(a, (n, K, d))[rows] for a in (self.means, self.variances))
        deviation = variance**0.5 * rng.standard_normal((n, d))
        return mean + (deviation if self.axes is None else (self.axes[k] @ deviation[..., None])[..., 0])

    # ---- diffusion and Bayes' rule ----

    def diffused(self, scale, variance):
        """The law of scale y + N(0, variance I), y from this mixture. scale, variance: numbers, or (N,)."""
        scale, variance = per_component(scale), per_component(variance)
        return Mixture(self.log_weights, scale * self.means, scale**2 * self.variances + variance, self.axes)

    def given(self, x, scale, variance):
        """The law of y after x = scale y + N(0, variance I) was seen: a batch, one mixture for each row of x."""
        seen = self.diffused(scale, variance)
        scale, variance = per_component(scale), per_component(variance)
        gain = scale * self.variances / seen.variances
        step = self.from_axes(gain * self.along_axes(seen.from_means(x)))
        return Mixture(
            seen.log_responsibilities(x), self.means + step, self.variances * variance / seen.variances, self.axes
        )

    def given_part(self, seen, values):
        """The law of the elements of y that were not seen, after y[seen] = values was: one Mixture. (E40)

        seen: (d,) booleans, true somewhere and false somewhere; values: as many as are seen. Each component is
        conditioned by the Schur complement and reweighted by its density at the values. Raises ValueError for
        other shapes, and where the seen elements have no density.
        """
        seen, values = np.asarray(seen), np.asarray(values, dtype=np.float64)
        if seen.shape != self.means.shape[-1:] or seen.dtype != bool or seen.all() or not seen.any():
            raise ValueError(f"seen must be {self.means.shape[-1]} booleans, some true and some false, got {seen}")
        if values.shape != (seen.sum(),):
            raise ValueError(f"values must have shape ({seen.sum()},), one for each seen element, got {values.shape}")
        covariances = self.covariances()
        own, cross = covariances[:, seen][:, :, seen], covariances[:, seen][:, :, ~seen]
        log_weights = Mixture(self.log_weights, self.means[:, seen], *np.linalg.eigh(own)).log_responsibilities(
            values[None]
        )
        gain = np.linalg.solve(own, cross).swapaxes(1, 2)  # (K, missing, seen)
        means = self.means[:, ~seen] + (gain @ (values - self.means[:, seen])[..., None])[..., 0]
        variances, axes = np.linalg.eigh(covariances[:, ~seen][:, :, ~seen] - gain @ cross)  # Schur complement
        return Mixture(log_weights[0], means, np.maximum(variances, 0.0), axes)  # E40


def per_component(value):
    """A number as it is; values (N,) shaped (N, 1, 1) for (N, K, d)."""
    value = np.asarray(value)
    return value[:, None, None] if value.ndim else value
