"""One example, `Case`, what an identity is, and whether it holds in a case. Next: identities.py."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from tinyddpm.properties.adapter import COORDINATES, PRECISIONS, Adapter, AdapterError, as_numpy, ask, shaped

__all__ = ["Case", "Coefficients", "Identity", "IDENTITIES", "identity", "verdict", "disagreement", "VARIANCES"]

ROUNDINGS = 8  # how many roundings of numbers of the order of 1 an implementation may add up
VARIANCES = {"beta_tilde": lambda k: k.beta_tilde, "beta": lambda k: k.beta}  # what a step may claim at eta = 1


class Coefficients:
    """What the identities need at t, in float64; `unit` is the error that rounding may make in a variance."""

    def __init__(self, alpha_bar, t, dtype):
        # Shares of the variance of x_{t-1} and x_t, not standard deviations.
        self.signal_prev, self.signal = np.float64(alpha_bar[t - 1]), np.float64(alpha_bar[t])
        self.noise_prev, self.noise = 1 - self.signal_prev, 1 - self.signal
        self.alpha = self.signal / self.signal_prev  # E1
        self.beta = 1 - self.alpha
        self.beta_tilde = self.noise_prev / self.noise * self.beta  # E7
        self.unit = ROUNDINGS * PRECISIONS[dtype][1]

    def posterior_mean(self, x0, xt):
        """Bayes' rule: the precisions of the two opinions on x_{t-1} add up, and weigh them. (E6)"""
        if self.noise_prev == 0:
            return x0
        from_xt, from_x0 = self.alpha / self.beta, 1 / self.noise_prev
        opinions = self.alpha**0.5 / self.beta * xt + from_x0 * self.signal_prev**0.5 * x0
        return opinions / (from_xt + from_x0)

    @property
    def shrinking(self):
        """How much a step enlarges an error of x_t where it divides by sqrt(alpha_t)."""
        return 1 / max(self.alpha, 1e-4) ** 0.5

    @property
    def end_error(self):
        """The error of x_0 at t = 1, where the tables have no roundings added up yet."""
        return self.unit / 2 * self.shrinking / self.noise

    def root_error(self, *variances):
        """The error of the roots of variances that have an error of two units each, added up."""
        return sum(2 * self.unit / (variance + 2 * self.unit) ** 0.5 for variance in variances)


@dataclass(frozen=True, eq=False)
class Case:
    """One example: an adapter, t, and (N, d) arrays: x_0, the noise eps in x_t, and the noise of one step."""

    adapter: Adapter
    t: int
    x0: np.ndarray
    eps: np.ndarray
    noise: np.ndarray

    def __str__(self):
        names = "t", "x0", "eps", "noise"
        values = ", ".join(f"{name} = {np.asarray(getattr(self, name)).tolist()}" for name in names)
        return f"{values} for {self.adapter!r}"

    __repr__ = __str__

    @cached_property
    def k(self):
        """The coefficients at t."""
        return Coefficients(self.adapter.alpha_bar, self.t, self.adapter.dtype)

    @cached_property
    def xt(self):
        """x_t in the adapter's precision, as sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps."""
        return (self.k.signal**0.5 * self.x0 + self.k.noise**0.5 * self.eps).astype(self.x0.dtype)  # E2

    @property
    def size(self):
        """The size that rounding errors are in proportion to: (N, d)."""
        return abs(self.x0) + abs(self.eps) + abs(self.noise)

    # ---- asking the adapter: x_t goes in and comes out in its own coordinates ----

    def scale(self, t):
        """The factor from the coordinates of this file to the adapter's, at t (an integer, or integers (N,))."""
        factor = COORDINATES[self.adapter.coordinates](np.asarray(self.adapter.alpha_bar, np.float64)[t])
        return np.reshape(factor, (-1, 1)).astype(self.x0.dtype) if np.ndim(factor) else float(factor)

    def q_sample(self, t):
        xt = shaped(ask(self.adapter, "q_sample", self.x0, t, self.eps), self.x0.shape, self.x0.dtype, "x_t")
        return xt / self.scale(t)

    def q_step(self):
        x_prev = self.x0 * self.scale(self.t - 1)
        xt = shaped(ask(self.adapter, "q_step", x_prev, self.t, self.noise), self.x0.shape, self.x0.dtype, "x_t")
        return xt / self.scale(self.t)

    def step(self, noise):
        """x_{t-1} from x_t, x_0 and this noise."""
        found = ask(self.adapter, "step", self.x0, self.xt * self.scale(self.t), self.t, noise)
        return shaped(found, self.x0.shape, self.x0.dtype, "x_{t-1}") / self.scale(self.t - 1)

    def posterior(self):
        """Its mean and its variance, the variance spread to the shape of x_0."""
        pair = ask(self.adapter, "posterior", self.x0, self.xt * self.scale(self.t), self.t)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise AdapterError(f"posterior must return a pair, the mean and the variance, got {type(pair).__name__}")
        mean, variance = shaped(pair[0], self.x0.shape, self.x0.dtype, "the mean"), as_numpy(pair[1], "the variance")
        try:
            variance = np.broadcast_to(variance, self.x0.shape).astype(self.x0.dtype)
        except ValueError:
            raise AdapterError(f"the variance must fit {self.x0.shape}, got shape {variance.shape}") from None
        return mean / self.scale(self.t - 1), variance / self.scale(self.t - 1) ** 2

    def convert(self, value, source, target, t=None):
        if {source, target} - {"x0"} - set(self.adapter.predictions):
            raise NotImplementedError
        t = self.t if t is None else t
        value, xt = value.astype(self.x0.dtype), self.xt * self.scale(t)
        found = ask(self.adapter, "convert", value, xt, t, source, target)
        return shaped(found, self.x0.shape, self.x0.dtype, target)


@dataclass(frozen=True)
class Identity:
    """name: with its number in docs/equations.md. first: the smallest t. most: of how many examples, as it is slow."""

    name: str
    statement: str
    first: int
    most: int
    sides: Any  # sides(case) -> found, expected, tolerance. NotImplementedError: it says nothing about this adapter


IDENTITIES = []


def identity(name, statement, first=1, most=10_000):
    """Make a function of a Case, giving (found, expected, tolerance), one of the IDENTITIES."""

    def register(sides):
        IDENTITIES.append(Identity(name, statement, first, most, sides))
        return sides

    return register


def verdict(identity, case):
    """Whether it "holds" or "fails" in this case, or shows a "mistake" of the adapter; or is "not checked"."""
    if case.t < identity.first:
        return "not checked"
    try:
        return "fails" if disagreement(identity, case) else "holds"
    except NotImplementedError:
        return "not checked"
    except AdapterError:
        return "mistake"


def disagreement(identity, case):
    """How the two sides differ, in words; None if they agree. NaN agrees with nothing.

    NotImplementedError and AdapterError pass through: the adapter does not have the method, or it is wrong itself.
    """
    try:
        with np.errstate(all="ignore"):
            found, expected, tolerance = identity.sides(case)
            found, expected = np.asarray(found), np.asarray(expected, dtype=np.float64)
            if found.shape != expected.shape:
                return f"found shape {found.shape}, expected {expected.shape}"
            largest = np.finfo(found.dtype).max if found.dtype.kind == "f" else np.inf
            may_overflow = abs(expected) + tolerance > largest  # in a small dtype
            found = found.astype(np.float64)
            overflowed = may_overflow & (found == np.copysign(np.inf, expected))
            if (overflowed | (abs(found - expected) <= tolerance)).all():
                return None
    except (NotImplementedError, AdapterError):
        raise
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return f"found {found.tolist()}, expected {expected.tolist()}"


def at(case, t):
    """The same case at another t."""
    return replace(case, t=t)
