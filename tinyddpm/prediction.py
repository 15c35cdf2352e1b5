"""What a network may predict, and how each prediction gives the others: eps, x_0, v, the score, the mean.

Given (x_t, t) they are linear bijections of each other (E24), so all go through x_0. Read reverse.py next.
Everywhere x_t and the prediction are (N, ...) floating and alike, t is in 1..T, an integer or integers (N,).
"""

from tinyddpm.coefficients import check_like, check_t, gather, spread
from tinyddpm.forward import posterior_coefficients, q_posterior

__all__ = ["x0_from_eps", "eps_from_x0", "x0_from_v", "v_from_x0", "x0_from_score", "score_from_x0", "x0_from_mean"]
__all__ += ["mean_from_x0", "mean_from_eps", "PREDICTIONS", "x0_from", "from_x0", "convert"]


def signal_and_noise(schedule, xt, t):
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t): x_t = signal x_0 + noise eps."""
    signal = gather(schedule.alpha_bar, t, xt, first=1) ** 0.5
    return signal, gather(schedule.one_minus_alpha_bar, t, xt) ** 0.5


def x0_from_eps(schedule, eps, xt, t):
    """x_0 from the total noise eps in x_t. (Ho et al. 2020 eq. 15; E2, E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - noise * eps) / signal


def eps_from_x0(schedule, x0, xt, t):
    """The total noise eps in x_t. (E2, E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt - signal * x0) / noise


def x0_from_v(schedule, v, xt, t):
    """x_0 from v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0. (Salimans & Ho 2022; E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return signal * xt - noise * v


def v_from_x0(schedule, x0, xt, t):
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0, with eps written in x_t and x_0. (E24)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (signal * xt - x0) / noise


def x0_from_score(schedule, score, xt, t):
    """x_0 from the score; from the marginal score, Tweedie's posterior mean of x_0. (E27)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return (xt + noise**2 * score) / signal  # E27


def score_from_x0(schedule, x0, xt, t):
    """grad log q(x_t | x_0) with respect to x_t. (E25)"""
    signal, noise = signal_and_noise(schedule, xt, t)
    return -(xt - signal * x0) / noise**2  # E25


def x0_from_mean(schedule, mean, xt, t):
    """x_0 from the mean of q(x_{t-1} | x_t, x_0). (E7 solved for x_0)"""
    t = check_t(t, schedule.T, xt, first=1)
    from_x0, from_xt, _ = posterior_coefficients(schedule, t - 1, t)
    return (mean - spread(from_xt, xt) * xt) / spread(from_x0, xt)


def mean_from_x0(schedule, x0, xt, t):
    """The mean of q(x_{t-1} | x_t, x_0). (E7)"""
    return q_posterior(schedule, x0, xt, t).mean


def mean_from_eps(schedule, eps, xt, t):
    """The mean of q(x_{t-1} | x_t, x_0), from the total noise eps. (Ho et al. 2020 eq. 11; E8)"""
    _, noise = signal_and_noise(schedule, xt, t)
    alpha, beta = gather(schedule.alpha, t, xt), gather(schedule.beta, t, xt)
    return (xt - beta / noise * eps) / alpha**0.5  # E8


def itself(schedule, x0, xt, t):
    return x0


TO_X0 = {"eps": x0_from_eps, "x0": itself, "v": x0_from_v, "score": x0_from_score, "mean": x0_from_mean}
FROM_X0 = {"eps": eps_from_x0, "x0": itself, "v": v_from_x0, "score": score_from_x0, "mean": mean_from_x0}
PREDICTIONS = tuple(TO_X0)


def x0_from(schedule, kind, prediction, xt, t):
    """x_0 from a prediction of the given kind, one of PREDICTIONS. (E24)

    Raises ValueError for another kind or for a prediction that is not shaped like xt, TypeError for another
    dtype.
    """
    check_kind(kind)
    check_like("prediction", prediction, "xt", xt)
    return TO_X0[kind](schedule, prediction, xt, t)


def from_x0(schedule, kind, x0, xt, t):
    """The given kind of prediction, one of PREDICTIONS, that means x_0. Raises as `x0_from`. (E24)"""
    check_kind(kind)
    check_like("x0", x0, "xt", xt)
    return FROM_X0[kind](schedule, x0, xt, t)


def convert(schedule, prediction, xt, t, source, target):
    """A prediction of kind `source` as one of kind `target`. Raises as `x0_from`. (E24)"""
    return from_x0(schedule, target, x0_from(schedule, source, prediction, xt, t), xt, t)


def check_kind(kind):
    if kind not in PREDICTIONS:
        raise ValueError(f"unknown prediction {kind!r}; there are: {', '.join(PREDICTIONS)}")
