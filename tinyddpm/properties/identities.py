"""The identities of one step: a value found, the value expected, and a tolerance.

An expected value is computed here from the adapter's alpha_bar alone. The route is another one than that of the
modules in tinyddpm/, so this project's own code is checked too. E-numbers are those of docs/equations.md.
Next: chains.py.
"""

import numpy as np

from tinyddpm.properties.adapter import as_numpy, ask, shaped
from tinyddpm.properties.cases import VARIANCES, at, identity

__all__ = []  # the decorator puts each into IDENTITIES

# ---- the tables ----


@identity("E5 start", "alpha_bar_0 = 1: there is no noise in the data")
def start(c):
    return c.adapter.alpha_bar[0], 1.0, 0.0


@identity("E5 decrease", "alpha_bar_t strictly decreases and stays above 0, but for a zero terminal SNR")
def decrease(c):
    zero = c.adapter.zero_terminal_snr and c.t == len(c.adapter.alpha_bar) - 1
    below_prev = np.nextafter(c.k.signal_prev, 0)
    return c.k.signal, 0.0 if zero else np.clip(c.k.signal, np.finfo(float).tiny, below_prev), 0.0


@identity("E2 tables", "beta_0 = 0 and beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}")
def tables(c):
    if c.adapter.beta is None:
        raise NotImplementedError
    return [c.adapter.beta[0], c.adapter.beta[c.t]], [0.0, c.k.beta], c.k.unit


@identity(
    "E5 rescaled", "zero terminal SNR: sqrt(alpha_bar) is shifted and scaled so that it ends at 0, and keeps step 1"
)
def rescaled(c):
    root = np.asarray(c.adapter.alpha_bar, np.float64) ** 0.5
    expected = ((root - root[-1]) * root[1] / (root[1] - root[-1])) ** 2  # Lin et al. 2023, algorithm 1
    found = as_numpy(ask(c.adapter, "rescale", np.array(c.adapter.alpha_bar)), "the table")
    return found[1:], expected[1:], c.k.unit


# ---- the forward process ----


@identity("E1 step", "q_step = sqrt(alpha_t) x_prev + sqrt(beta_t) noise")
def one_step(c):
    expected = c.k.alpha**0.5 * c.x0 + c.k.beta**0.5 * c.noise  # E1
    return c.q_step(), expected, c.size * c.k.root_error(c.k.alpha, c.k.beta)


@identity("E2 marginal", "q_sample = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise")
def marginal(c):
    expected = c.k.signal**0.5 * c.x0 + c.k.noise**0.5 * c.eps  # E2
    return c.q_sample(c.t), expected, c.size * c.k.root_error(c.k.signal, c.k.noise)


def rows(c):
    """One t a sample, and the sample's own case with its own t."""
    if not c.adapter.batched:
        raise NotImplementedError
    T, n = len(c.adapter.alpha_bar) - 1, len(c.x0)
    t = 1 + (c.t - 1 + np.arange(n)) % T
    one = [type(c)(c.adapter, int(t[i]), *(a[i : i + 1] for a in (c.x0, c.eps, c.noise))) for i in range(n)]
    return t, one


@identity("E2 batch", "one t a sample gives each sample what it gets alone")
def batch(c):
    t, alone = rows(c)
    return c.q_sample(t), np.concatenate([one.q_sample(one.t) for one in alone]), c.k.unit * c.size


# ---- the posterior ----


@identity("E7 mean", "the posterior's mean is that of Bayes' rule, t >= 2", first=2)
def posterior_mean(c):
    return c.posterior()[0], c.k.posterior_mean(c.x0, c.xt), 4 * c.k.unit / c.k.noise * c.size


@identity("E7 variance", "the posterior's variance is beta_tilde_t, t >= 2", first=2)
def posterior_variance(c):
    tolerance = 2 * c.k.unit * (c.k.beta + c.k.noise_prev) / c.k.noise
    return c.posterior()[1], np.full(c.x0.shape, c.k.beta_tilde), tolerance


@identity("E9 end", "the posterior at t = 1 is x_0 itself: beta_tilde_1 = 0")
def posterior_end(c):
    c = at(c, 1)
    nothing = 0 * c.x0
    return np.stack(c.posterior()), np.stack([c.x0, nothing]), np.stack([c.k.end_error * c.size, nothing])


# ---- predictions: given x_t, a value of each kind stands for one x_0, and x_0 for one value ----


def conversions(kind, value, names, magnified):
    """Register both directions. value(c): what stands for x_0; magnified(k): the factors by which rounding grows."""

    @identity(f"{names[0]} {kind} from x0", f"x_t and x_0 give {kind}")
    def there(c):
        return c.convert(c.x0, "x0", kind), value(c), 4 * c.k.unit * magnified(c.k)[0] * c.size

    @identity(f"{names[1]} x0 from {kind}", f"x_t and {kind} give x_0")
    def back(c):
        if c.k.signal == 0 and np.isinf(magnified(c.k)[1]):  # nothing of x_0 is left in x_t
            raise NotImplementedError
        return c.convert(value(c), kind, "x0"), c.x0, 4 * c.k.unit * magnified(c.k)[1] * c.size


def v(c):
    return c.k.signal**0.5 * c.eps - c.k.noise**0.5 * c.x0


def score(c):
    return -c.eps / c.k.noise**0.5


def mean(c):
    return c.k.posterior_mean(c.x0, c.xt)


conversions("eps", lambda c: c.eps, ("E24", "E24"), lambda k: (1 / k.noise, 1 / (k.signal**0.5 * k.noise)))
conversions("v", v, ("E24", "E24"), lambda k: (1 / k.noise, 1 / (max(k.signal, 1e-4) ** 0.5 * k.noise)))
conversions("score", score, ("E25", "E27"), lambda k: (1 / k.noise**1.5, 1 / (k.signal**0.5 * k.noise)))
conversions("mean", mean, ("E7", "E7"), lambda k: (1 / k.noise, 1 / (k.signal_prev**0.5 * k.beta)))
conversions("velocity", lambda c: c.eps - c.x0, ("E37", "E37"), lambda k: (1 / k.noise, 1 / k.noise))


@identity("E8 mean from eps", "mean = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t)")
def mean_from_eps(c):
    expected = (c.xt - c.k.beta / c.k.noise**0.5 * c.eps) / c.k.alpha**0.5  # E8
    tolerance = 4 * c.k.unit / (c.k.noise * c.k.alpha**0.5) * c.size
    return c.convert(c.eps, "eps", "mean"), expected, tolerance


# ---- one step of a sampler ----


def predicted(c):
    """x0_hat as the sampler uses it, clipped if it clips, and the eps that it gives with x_t."""
    if c.adapter.clip is None:
        return c.x0, c.eps
    x0_hat = np.clip(c.x0, *c.adapter.clip)
    return x0_hat, (c.xt - c.k.signal**0.5 * x0_hat) / c.k.noise**0.5


@identity(
    "E30 mean",
    "without noise, x_{t-1} = sqrt(alpha_bar_{t-1}) x0_hat + sqrt(1 - alpha_bar_{t-1} "
    "- eta^2 beta_tilde_t) eps_hat, which is the posterior's mean for eta = 1 (E29), t >= 2",
    first=2,
)
def step_mean(c):
    x0_hat, eps_hat = predicted(c)
    eta = c.adapter.eta
    kept = c.k.alpha * c.k.noise_prev**2 / c.k.noise + (1 - eta**2) * c.k.beta_tilde
    expected = c.k.signal_prev**0.5 * x0_hat + kept**0.5 * eps_hat  # E30
    magnified = c.k.unit * (c.k.shrinking + 4 / c.k.noise) + c.k.root_error(kept)
    return c.step(0 * c.noise), expected, magnified * (c.size + abs(eps_hat))


@identity("E29 variance", "the noise of a step has the variance that it claims, t >= 2", first=2)
def step_variance(c):
    variance = VARIANCES[c.adapter.variance](c.k) * c.adapter.eta**2
    tolerance = (c.k.unit * c.k.shrinking + c.k.root_error(variance)) * c.size
    return noise_of_step(c), variance**0.5 * c.noise, tolerance


@identity("E29 last mean", "the last step, from t = 1, leads to x0_hat")
def last_mean(c):
    c = at(c, 1)
    if not c.adapter.ends_at_data:
        raise NotImplementedError
    return c.step(0 * c.noise), predicted(c)[0], c.k.end_error * c.size


@identity("E29 last noise", "the last step, from t = 1, adds no noise")
def last_noise(c):
    if not c.adapter.ends_at_data:
        raise NotImplementedError
    c = at(c, 1)
    return noise_of_step(c), 0 * c.x0, c.k.unit * c.size


def noise_of_step(c):
    """The part of x_{t-1} that the noise adds."""
    return c.step(c.noise) - c.step(0 * c.noise)


@identity("E29 threshold", "each sample of x0_hat is clipped to +-s and divided by s, the quantile of its sizes or 1")
def threshold(c):
    s = np.maximum(np.quantile(abs(c.x0), c.adapter.threshold_quantile, axis=1, keepdims=True), 1)
    found = shaped(ask(c.adapter, "threshold", c.x0), c.x0.shape, c.x0.dtype, "x0_hat")
    return found, np.clip(c.x0, -s, s) / s, c.k.unit


@identity(
    "E19 learned variance", "log of the variance goes on a line from log beta_tilde_t to log beta_t, t >= 2", first=2
)
def learned_variance(c):
    fraction = abs(c.x0) / 3
    found = shaped(ask(c.adapter, "learned_variance", fraction, c.t), c.x0.shape, c.x0.dtype, "the variance")
    expected = c.k.beta**fraction * c.k.beta_tilde ** (1 - fraction)  # Nichol & Dhariwal 2021, eq. 15
    error = c.k.unit * (8 + 1 / c.k.noise + 1 / c.k.noise_prev + 1 / c.k.beta)
    return found, expected, error * expected
