"""The noise schedule: every table of the diffusion, indexed by t = 0..T. Next: spacing.py."""

from dataclasses import dataclass
from functools import cached_property, wraps

import numpy as np

from tinyddpm.coefficients import as_steps, check_T, is_integer, named, one_dimensional
from tinyddpm.spacing import SPACINGS, distinct

__all__ = ["NoiseSchedule", "SCHEDULES", "named_schedule"]

# Ho et al. 2020 state their schedule for 1000 steps. For another T, `stretched` keeps the total noise.
REFERENCE_T, REFERENCE_START, REFERENCE_END = 1000, 1e-4, 0.02


def table(formula):
    """Turn a method that returns a table into a read-only attribute, computed at first use and then kept."""

    @wraps(formula)
    def compute(self):
        with np.errstate(divide="ignore"):  # at t = 0 there is no noise, and the SNR is infinite
            return read_only(formula(self))

    return cached_property(compute)


def read_only(array):
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """How much noise each of the T steps adds: immutable float64 tables of T + 1 entries.

    Entry t belongs to x_t, and t = 0 is the data: beta[0] = 0, alpha_bar[0] = 1. Build one by name
    (`NoiseSchedule.linear(1000)`), with `from_beta` or with `from_alpha_bar`. `timesteps[t]` is the step of
    the original schedule that index t stands for: t itself, unless the schedule was made by `respace`.

    Raises ValueError unless 0 < beta_t < 1 for t = 1..T, alpha_bar strictly decreases within (0, 1] and the timesteps
    increase from 0. (E1-E5)
    """

    beta: np.ndarray  # (T + 1,), beta[0] = 0
    timesteps: np.ndarray  # (T + 1,) integers, timesteps[0] = 0
    alpha: np.ndarray = None  # 1 - beta unless given; `respace` gives it, because 1 - beta rounds when alpha is tiny

    def __post_init__(self):
        beta = one_dimensional("beta", self.beta)
        alpha = 1 - beta if self.alpha is None else one_dimensional("alpha", self.alpha)
        timesteps = np.array(as_steps("timesteps", self.timesteps, 0, np.iinfo(np.int64).max))
        check_steps(beta, alpha, timesteps)
        for name, table in (("beta", beta), ("alpha", alpha), ("timesteps", timesteps)):
            object.__setattr__(self, name, read_only(table))
        if not (np.diff(self.alpha_bar) < 0).all() or self.alpha_bar[-1] < np.finfo(np.float64).tiny:
            raise ValueError(
                "alpha_bar must strictly decrease and stay above 0 in float64: some beta is too small, "
                f"or the noise too much (T = {self.T}, alpha_bar_T = {self.alpha_bar[-1]:g})"
            )

    def __repr__(self):
        return f"NoiseSchedule(T={self.T}, alpha_bar_T={self.alpha_bar[-1]:.4g})"

    # ---- tables ----

    @property
    def T(self):
        """The number of noisy steps."""
        return len(self.beta) - 1

    @table
    def log_alpha(self):
        """log alpha_t, exact at both ends."""
        return np.where(self.alpha < 0.5, np.log(self.alpha), np.log1p(-self.beta))

    @table
    def alpha_bar(self):
        """prod_{s<=t} alpha_s: the share of the data's variance left in x_t."""
        return np.cumprod(self.alpha)

    @table
    def one_minus_alpha_bar(self):
        """1 - alpha_bar_t, the variance of the noise in x_t, without the cancellation of the subtraction."""
        return -np.expm1(np.cumsum(self.log_alpha))

    @table
    def log_one_minus_alpha_bar(self):
        """log(1 - alpha_bar_t), exact at both ends; -inf at 0."""
        log, log1p = np.log(self.one_minus_alpha_bar), np.log1p(-self.alpha_bar)
        return np.where(self.alpha_bar < 0.5, log1p, log)

    @table
    def beta_tilde(self):
        """Variance of q(x_{t-1} | x_t, x_0), 0 at t = 1; entry 0 is unused and 0."""
        before, after = self.one_minus_alpha_bar[:-1], self.one_minus_alpha_bar[1:]
        return np.append(0.0, before / after * self.beta[1:])  # E7

    @table
    def snr(self):
        """Signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t); inf at 0."""
        return self.alpha_bar / self.one_minus_alpha_bar

    @table
    def log_snr(self):
        """log of `snr`."""
        return np.cumsum(self.log_alpha) - self.log_one_minus_alpha_bar

    # ---- steps ----

    def jump(self, s, t):
        """alpha and beta of the one step that leads from s to t, for 0 <= s <= t <= T (integers or arrays).

        x_t = sqrt(alpha) x_s + sqrt(beta) noise. beta comes from a sum of log alpha over the steps between,
        because a difference of two running sums would lose small steps to rounding. Raises TypeError or ValueError
        for other s and t. (E3)
        """
        s, t = as_steps("s", s, 0, self.T), as_steps("t", t, 0, self.T)
        if np.any(s > t):
            raise ValueError(f"s must not be after t, got s = {s}, t = {t}")
        alpha = self.alpha_bar[t] / self.alpha_bar[s]
        pairs = np.broadcast(s, t)
        log_alpha = np.reshape([self.log_alpha[a + 1 : b + 1].sum() for a, b in pairs], pairs.shape)
        return alpha, -np.expm1(log_alpha)  # E3

    def respace(self, timesteps, spacing="t"):
        """The schedule that visits only some of the steps. alpha_bar at the steps it keeps does not change.

        timesteps: an integer, how many steps to keep, including T, spread as the `spacing` says, a name in SPACINGS; or
        the steps to keep, increasing integers in 1..T. Raises ValueError for anything else. (E32)
        """
        spread_out = named("spacing", spacing, SPACINGS)
        if is_integer(timesteps):
            S = int(timesteps)
            if not 1 <= S <= self.T:
                raise ValueError(f"timesteps must keep between 1 and T = {self.T} steps, got {timesteps}")
            kept = np.append(0, distinct(spread_out(self, S), self.T))
        else:
            given = np.asarray(timesteps)
            if given.ndim != 1 or given.size == 0 or given.dtype.kind not in "iu":
                raise ValueError(f"timesteps must be increasing integers in 1..{self.T}, got {timesteps}")
            kept = np.append(0, as_steps("timesteps", given, 1, self.T))
            if not (np.diff(kept) > 0).all():
                raise ValueError(f"timesteps must be increasing integers in 1..{self.T}, got {timesteps}")
        alpha, beta = self.jump(kept[:-1], kept[1:])  # E32
        return NoiseSchedule(np.append(0.0, beta), self.timesteps[kept], np.append(1.0, alpha))

    # ---- schedules ----

    @classmethod
    def from_beta(cls, beta):
        """The schedule with the given beta_1..beta_T. A leading beta_0 = 0 may be included."""
        beta = one_dimensional("beta", beta)
        if beta[0] != 0:
            beta = np.append(0.0, beta)
        return cls(beta, np.arange(len(beta)))

    @classmethod
    def from_alpha_bar(cls, alpha_bar):
        """The schedule with the given alpha_bar_1..alpha_bar_T. A leading alpha_bar_0 = 1 may be included."""
        alpha_bar = one_dimensional("alpha_bar", alpha_bar)
        if alpha_bar[0] != 1:
            alpha_bar = np.append(1.0, alpha_bar)
        if not ((np.diff(alpha_bar) < 0).all() and alpha_bar[0] == 1 and alpha_bar[-1] > 0):
            raise ValueError(f"alpha_bar must strictly decrease within (0, 1), got {alpha_bar[1:]}")
        beta = (alpha_bar[:-1] - alpha_bar[1:]) / alpha_bar[:-1]
        alpha = alpha_bar[1:] / alpha_bar[:-1]
        return cls(np.append(0.0, beta), np.arange(len(alpha_bar)), np.append(1.0, alpha))

    @classmethod
    def from_log_snr(cls, log_snr):
        """The schedule whose log-SNR at t = 1..T is `log_snr`, which falls."""
        log_snr = one_dimensional("log_snr", log_snr)
        renewed = -np.expm1(np.diff(log_snr, prepend=np.inf))  # 1 - SNR(t)/SNR(t-1)
        return cls.from_beta(renewed / (1 + np.exp(log_snr)))

    @classmethod
    def linear(cls, T, beta_start=None, beta_end=None):
        """beta on a straight line; by default from 1e-4 to 0.02 at 1000 steps, `stretched` to T. (Ho et al. 2020)"""
        return cls.from_beta(ramp(T, beta_start, beta_end, lambda start, end, u: start + (end - start) * u))

    @classmethod
    def quadratic(cls, T, beta_start=None, beta_end=None):
        """sqrt(beta) on a straight line (Song et al. 2020, DDIM); ends as in `linear`."""

        def curve(start, end, u):
            return (start**0.5 + (end**0.5 - start**0.5) * u) ** 2

        return cls.from_beta(ramp(T, beta_start, beta_end, curve))

    @classmethod
    def sigmoid(cls, T, beta_start=None, beta_end=None):
        """beta along a logistic curve from -6 to 6 (Xu et al. 2022, GeoDiff); ends as in `linear`."""

        def curve(start, end, u):
            return start + (end - start) / (1 + np.exp(6 - 12 * u))

        return cls.from_beta(ramp(T, beta_start, beta_end, curve))

    @classmethod
    def constant(cls, T, beta=None):
        """The same beta at every step. The default is the mean beta of `linear` at 1000 steps, `stretched` to T."""
        return cls.from_beta(ramp(T, beta, beta, lambda start, end, u: np.full_like(u, (start + end) / 2)))

    @classmethod
    def cosine(cls, T, s=0.008, max_beta=0.999):
        """alpha_bar_t ~ cos^2((t/T + s)/(1 + s) pi/2), beta at most max_beta. (Nichol & Dhariwal 2021)"""
        T = check_T(T)
        if not s >= 0:
            raise ValueError(f"s must not be negative, got {s}")
        angle = (np.arange(T + 1) / T + s) / (1 + s) * np.pi / 2
        before, after = angle[:-1], angle[1:]
        step = np.pi / 2 / (T * (1 + s))
        beta = np.sin(step) * np.sin(before + after) / np.cos(before) ** 2  # 1 - cos^2(after)/cos^2(before)
        return cls.from_beta(np.minimum(beta, max_beta))

    @classmethod
    def fine_cosine(cls, T, high=13.3, low=-10.0, share=0.2):
        """A mixture of steps: `share` of them even in log-SNR from `high` to `low`, the others spread as in `cosine`, s = 0.

        `cosine` has few steps where the noise is small. The bound weighs all log-SNRs alike (E35), and has a large part of
        its bits there. The default `high` leaves noise of a sixth of a grey level in 8-bit images: L_0 nearly vanishes.
        """
        log_snr = np.linspace(*checked_ends(high, low), 10_000)
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {share}")
        angle = np.arctan(np.exp(-log_snr / 2))  # of cosine: alpha_bar = cos^2(angle), and angle is even in t
        even, cosine = ((x - x[0]) / (x[-1] - x[0]) for x in (log_snr, angle))
        passed = share * even + (1 - share) * cosine  # which share of the steps is done
        return cls.from_log_snr(np.interp(np.linspace(1, 0, check_T(T))[::-1], passed, log_snr))

    @classmethod
    def even(cls, T, end=1e-4):
        """alpha_bar on a line from 1 to `end`: each step lowers it equally. (Sohl-Dickstein et al. 2015, end = 0)"""
        T = check_T(T)
        return cls.from_alpha_bar(1 - (1 - end) * np.arange(1, T + 1) / T)

    @classmethod
    def even_log_snr(cls, T, high=13.3, low=-5.0):
        """The log-SNR on a line from `high` at t = 1 to `low` at T. (Kingma et al. 2021, VDM, without what it learns)

        The default `high` leaves noise of a sixth of a grey level in 8-bit images, so that L_0 nearly vanishes.
        """
        high, low = checked_ends(high, low)
        return cls.from_log_snr(np.linspace(low, high, check_T(T))[::-1])


# ---- building blocks of the schedules ----


def ramp(T, beta_start, beta_end, curve):
    """beta_1..beta_T = curve(start, end, u) for u evenly spaced from 0 to 1; if T = 1, u = 1/2."""
    if (beta_start is None) != (beta_end is None):
        raise ValueError("give both beta_start and beta_end, or neither")
    T = check_T(T)
    u = np.array([0.5]) if T == 1 else np.linspace(0, 1, T)
    if beta_start is None:
        return stretched(curve(REFERENCE_START, REFERENCE_END, u))
    if not (0 < beta_start < 1 and 0 < beta_end < 1):
        raise ValueError(f"beta must lie within (0, 1), got {beta_start} to {beta_end}")
    return curve(beta_start, beta_end, u)


def stretched(beta):
    """Betas meant for 1000 steps, converted to T = len(beta) steps: each does the work of 1000/T.

    To first order this multiplies beta by 1000/T, but the result stays below 1. x_T is about as noisy for every T.
    """
    return -np.expm1(REFERENCE_T / len(beta) * np.log1p(-beta))


def checked_ends(high, low):
    """`high` and `low`, if the log-SNR can fall from the one to the other."""
    if not np.inf > high > low > -np.inf:
        raise ValueError(f"log_snr must fall: high must be above low, got {high} and {low}")
    return high, low


def check_steps(beta, alpha, timesteps):
    """Raise ValueError unless beta_0 = 0, every other beta_t and alpha_t is above 0, and timesteps increase from 0."""
    if len(beta) < 2 or beta[0] != 0:
        raise ValueError(f"beta must hold beta_0 = 0 and at least one step, got {beta}")
    if not beta.shape == alpha.shape == timesteps.shape:
        raise ValueError(f"beta {beta.shape}, alpha {alpha.shape} and timesteps {timesteps.shape} must be alike")
    if timesteps[0] != 0 or (np.diff(timesteps) <= 0).any():
        raise ValueError(f"timesteps must increase from 0, got {timesteps}")
    outside = ~((beta[1:] > 0) & (alpha[1:] > 0))
    if outside.any():
        t = 1 + int(np.argmax(outside))
        raise ValueError(f"beta must lie within (0, 1), got beta_{t} = {beta[t]:g}")


NAMES = "linear", "cosine", "fine_cosine", "quadratic", "sigmoid", "constant", "even", "even_log_snr"
SCHEDULES = {name: getattr(NoiseSchedule, name) for name in NAMES}


def named_schedule(name, T, **options):
    """The schedule called `name` in SCHEDULES, with T steps and its options. ValueError for another name lists them."""
    return named("schedule", name, SCHEDULES)(T, **options)
