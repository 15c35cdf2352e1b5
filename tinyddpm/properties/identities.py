"""The identities as statements about an adapter: a value found, the value expected, and a tolerance.

An expected value is computed here from the adapter's alpha_bar alone. The route is another one than that of the
modules in tinyddpm/, so this project's own code is checked too. E-numbers are those of docs/equations.md.
Next: adapters.py.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

__all__ = ["IDENTITIES", "VARIANCES", "Identity", "Case", "verdict", "disagreement"]

ROUNDINGS = 8  # how many roundings of numbers of the order of 1 an implementation may add up
VARIANCES = {"beta_tilde": lambda k: k.beta_tilde, "beta": lambda k: k.beta}  # what a step may claim at eta = 1


class Coefficients:
    """What the identities need at t, in float64; `unit` is the error that rounding may make in a variance."""

    def __init__(self, alpha_bar, t, dtype):
        # Shares of the variance of x_{t-1} and x_t, not standard deviations.
        self.signal_prev, self.signal = float(alpha_bar[t - 1]), float(alpha_bar[t])
        self.noise_prev, self.noise = 1 - self.signal_prev, 1 - self.signal
        self.alpha = self.signal / self.signal_prev  # E1
        self.beta = 1 - self.alpha
        self.beta_tilde = self.noise_prev / self.noise * self.beta  # E7
        self.unit = ROUNDINGS * float(np.finfo(dtype).eps)

    def posterior_mean(self, x0, xt):
        """Bayes' rule: the precisions of the two opinions on x_{t-1} add up, and weigh them. (E6)"""
        if self.noise_prev == 0:
            return x0
        from_xt, from_x0 = self.alpha / self.beta, 1 / self.noise_prev
        opinions = from_xt * xt / self.alpha**0.5 + from_x0 * self.signal_prev**0.5 * x0
        return opinions / (from_xt + from_x0)

    @property
    def end_error(self):
        """The error of x_0 at t = 1, where the tables have no roundings added up yet."""
        return self.unit / 2 / (self.noise * self.alpha**0.5)

    def root_error(self, *variances):
        """The error of the roots of variances that have an error of two units each, added up."""
        return sum(2 * self.unit / (variance + 2 * self.unit) ** 0.5 for variance in variances)


@dataclass(frozen=True, eq=False)
class Case:
    """One example: an adapter, t, and (N, d) arrays: x_0, the noise eps in x_t, and the noise of one step."""

    adapter: Any
    t: int
    x0: np.ndarray
    eps: np.ndarray
    noise: np.ndarray

    def __str__(self):
        names = "t", "x0", "eps", "noise"
        values = ", ".join(f"{name} = {np.asarray(getattr(self, name)).tolist()}" for name in names)
        return f"{values} for {self.adapter!r}"

    @cached_property
    def k(self):
        """The coefficients at t."""
        return Coefficients(self.adapter.alpha_bar, self.t, self.x0.dtype)

    @cached_property
    def xt(self):
        """x_t in the adapter's precision."""
        return (self.k.signal**0.5 * self.x0 + self.k.noise**0.5 * self.eps).astype(self.x0.dtype)  # E2

    @property
    def size(self):
        """The size that rounding errors are in proportion to: (N, d)."""
        return abs(self.x0) + abs(self.eps) + abs(self.noise)


@dataclass(frozen=True)
class Identity:
    """name: with its number in docs/equations.md. needs: what the adapter must offer. first: the smallest t."""

    name: str
    statement: str
    needs: tuple
    first: int
    sides: Any  # sides(case) -> found, expected, tolerance
    kind: str | None = None  # the kind of prediction that the adapter must be able to convert

    def applies(self, adapter):
        """Whether the adapter has what the identity is about."""
        offers = [getattr(adapter, name, None) for name in self.needs]
        return not any(offer is None or offer is False for offer in offers) and (
            self.kind is None or self.kind in getattr(adapter, "predictions", ())
        )


def verdict(identity, case):
    """Whether it "holds" or "fails" in this case; "not checked" if it says nothing about it."""
    if case.t < identity.first or not identity.applies(case.adapter):
        return "not checked"
    try:
        return "fails" if disagreement(identity, case) else "holds"
    except NotImplementedError:
        return "not checked"


def disagreement(identity, case):
    """How the two sides differ, in words; None if they agree. NaN agrees with nothing.

    NotImplementedError passes through: the adapter does not have the method.
    """
    try:
        with np.errstate(all="ignore"):
            found, expected, tolerance = identity.sides(case)
            found, expected, dtype = np.asarray(found), np.asarray(expected, dtype=np.float64), case.x0.dtype
            if found.shape != expected.shape:
                return f"found shape {found.shape}, expected {expected.shape}"
            if found.shape == case.x0.shape and found.dtype != dtype:
                return f"found dtype {found.dtype}, expected {dtype}, the adapter's dtype"
            if (abs(found.astype(np.float64) - expected) <= tolerance).all():
                return None
    except NotImplementedError:
        raise
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return f"found {found.tolist()}, expected {expected.tolist()}"


# ---- the identities: each function returns (found, expected, tolerance) ----

IDENTITIES = []


def identity(name, statement, needs=(), first=1, kind=None):
    """Make a function of a Case, giving (found, expected, tolerance), one of the IDENTITIES."""

    def register(sides):
        IDENTITIES.append(Identity(name, statement, needs, first, sides, kind))
        return sides

    return register


@identity("E5 start", "alpha_bar_0 = 1: there is no noise in the data")
def start(c):
    return c.adapter.alpha_bar[0], 1.0, 0.0


@identity("E5 decrease", "alpha_bar_t strictly decreases and stays above 0")
def decrease(c):
    below_prev = np.nextafter(c.k.signal_prev, 0)
    return c.k.signal, np.clip(c.k.signal, np.finfo(float).tiny, below_prev), 0.0


@identity("E2 tables", "beta_0 = 0 and beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}", ("beta",))
def tables(c):
    return [c.adapter.beta[0], c.adapter.beta[c.t]], [0.0, c.k.beta], c.k.unit


@identity("E1 step", "q_step = sqrt(alpha_t) x_prev + sqrt(beta_t) noise", ("q_step",))
def one_step(c):
    expected = c.k.alpha**0.5 * c.x0 + c.k.beta**0.5 * c.noise  # E1
    return c.adapter.q_step(c.x0, c.t, c.noise), expected, c.size * c.k.root_error(c.k.alpha, c.k.beta)


@identity("E2 marginal", "q_sample = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise", ("q_sample",))
def marginal(c):
    expected = c.k.signal**0.5 * c.x0 + c.k.noise**0.5 * c.eps  # E2
    return c.adapter.q_sample(c.x0, c.t, c.eps), expected, c.size * c.k.root_error(c.k.signal, c.k.noise)


@identity("E2 batch", "one t a sample gives each sample what it gets alone", ("q_sample", "batched"))
def batch(c):
    T, n = len(c.adapter.alpha_bar) - 1, len(c.x0)
    t = 1 + (c.t - 1 + np.arange(n)) % T
    rows = [c.adapter.q_sample(c.x0[i : i + 1], int(t[i]), c.eps[i : i + 1]) for i in range(n)]
    return c.adapter.q_sample(c.x0, t, c.eps), np.concatenate(rows), c.k.unit * c.size


def moments(c):
    """The adapter's posterior: its mean and its variance, the variance of the shape and dtype of x_0."""
    posterior = c.adapter.posterior(c.x0, c.xt, c.t)
    if not isinstance(posterior, tuple | list) or len(posterior) != 2:
        raise TypeError(f"posterior must return a pair, the mean and the variance, got {type(posterior).__name__}")
    return posterior[0], np.broadcast_to(posterior[1], c.x0.shape).astype(c.x0.dtype)


@identity("E7 mean", "the posterior's mean is that of Bayes' rule, t >= 2", ("posterior",), first=2)
def posterior_mean(c):
    mean, _ = moments(c)
    return mean, c.k.posterior_mean(c.x0, c.xt), 4 * c.k.unit / c.k.noise * c.size


@identity("E7 variance", "the posterior's variance is beta_tilde_t, t >= 2", ("posterior",), first=2)
def posterior_variance(c):
    tolerance = 2 * c.k.unit * (c.k.beta + c.k.noise_prev) / c.k.noise
    return moments(c)[1], np.full(c.x0.shape, c.k.beta_tilde), tolerance


@identity("E9 end", "the posterior at t = 1 is x_0 itself: beta_tilde_1 = 0", ("posterior",))
def posterior_end(c):
    c = replace(c, t=1)
    nothing = 0 * c.x0
    return np.stack(moments(c)), np.stack([c.x0, nothing]), np.stack([c.k.end_error * c.size, nothing])


# ---- predictions: given x_t, a value of each kind stands for one x_0, and x_0 for one value ----


def conversions(kind, value, names, magnified):
    """Register both directions. value(c): what stands for x_0; magnified(k): the factors by which rounding grows."""

    @identity(f"{names[0]} {kind} from x0", f"x_t and x_0 give {kind}", ("convert",), kind=kind)
    def there(c):
        tolerance = 4 * c.k.unit * magnified(c.k)[0] * c.size
        return c.adapter.convert(c.x0, c.xt, c.t, "x0", kind), value(c), tolerance

    @identity(f"{names[1]} x0 from {kind}", f"x_t and {kind} give x_0", ("convert",), kind=kind)
    def back(c):
        found = c.adapter.convert(value(c).astype(c.x0.dtype), c.xt, c.t, kind, "x0")
        return found, c.x0, 4 * c.k.unit * magnified(c.k)[1] * c.size


def v(c):
    return c.k.signal**0.5 * c.eps - c.k.noise**0.5 * c.x0


def score(c):
    return -c.eps / c.k.noise**0.5


def mean(c):
    return c.k.posterior_mean(c.x0, c.xt)


conversions("eps", lambda c: c.eps, ("E24", "E24"), lambda k: (1 / k.noise, 1 / (k.signal**0.5 * k.noise)))
conversions("v", v, ("E24", "E24"), lambda k: (1 / k.noise, 1 / (k.signal**0.5 * k.noise)))
conversions("score", score, ("E25", "E27"), lambda k: (1 / k.noise**1.5, 1 / (k.signal**0.5 * k.noise)))
conversions("mean", mean, ("E7", "E7"), lambda k: (1 / k.noise, 1 / (k.signal_prev**0.5 * k.beta)))
conversions("velocity", lambda c: c.eps - c.x0, ("E37", "E37"), lambda k: (1 / k.noise, 1 / k.noise))


@identity(
    "E8 mean from eps", "mean = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t)", ("convert",), kind="mean"
)
def mean_from_eps(c):
    expected = (c.xt - c.k.beta / c.k.noise**0.5 * c.eps) / c.k.alpha**0.5  # E8
    tolerance = 4 * c.k.unit / (c.k.noise * c.k.alpha**0.5) * c.size
    return c.adapter.convert(c.eps, c.xt, c.t, "eps", "mean"), expected, tolerance


# ---- sampling ----


@identity(
    "E30 mean",
    "without noise, x_{t-1} = sqrt(alpha_bar_{t-1}) x0_hat + sqrt(1 - alpha_bar_{t-1} "
    "- eta^2 beta_tilde_t) eps_hat, which is the posterior's mean for eta = 1 (E29), t >= 2",
    ("step",),
    first=2,
)
def step_mean(c):
    eta = getattr(c.adapter, "eta", 1.0)
    kept = c.k.alpha * c.k.noise_prev**2 / c.k.noise + (1 - eta**2) * c.k.beta_tilde
    expected = c.k.signal_prev**0.5 * c.x0 + kept**0.5 * c.eps  # E30
    magnified = c.k.unit * (1 / c.k.alpha**0.5 + 4 / c.k.noise) + c.k.root_error(kept)
    return c.adapter.step(c.x0, c.xt, c.t, 0 * c.noise), expected, magnified * c.size


@identity("E29 variance", "the noise of a step has the variance that it claims, t >= 2", ("step",), first=2)
def step_variance(c):
    variance = VARIANCES[getattr(c.adapter, "variance", "beta_tilde")](c.k) * getattr(c.adapter, "eta", 1.0) ** 2
    tolerance = (c.k.unit / c.k.alpha**0.5 + c.k.root_error(variance)) * c.size
    return noise_of_step(c), variance**0.5 * c.noise, tolerance


@identity("E29 last mean", "the last step, from t = 1, leads to x0_hat", ("step",))
def last_mean(c):
    c = replace(c, t=1)
    return c.adapter.step(c.x0, c.xt, 1, 0 * c.noise), c.x0, c.k.end_error * c.size


@identity("E29 last noise", "the last step, from t = 1, adds no noise", ("step",))
def last_noise(c):
    return noise_of_step(replace(c, t=1)), 0 * c.x0, c.k.unit * c.size


def noise_of_step(c):
    """The part of x_{t-1} that the noise adds."""
    return c.adapter.step(c.x0, c.xt, c.t, c.noise) - c.adapter.step(c.x0, c.xt, c.t, 0 * c.noise)


@identity("E32 respacing", "respacing keeps alpha_bar at the steps that it keeps", ("respace",))
def respacing(c):
    kept = sorted({c.t, len(c.adapter.alpha_bar) - 1})
    expected = np.asarray(c.adapter.alpha_bar)[[0, *kept]]  # E32
    return c.adapter.respace(kept).alpha_bar, expected, c.k.unit
