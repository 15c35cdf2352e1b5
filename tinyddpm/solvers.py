"""DPM-Solver++ in two more forms, 2S and 3M, and a clip for guided models. Next: loss.py.

Both integrate a polynomial in the log-SNR exactly: through two values of x0_hat, a line, or through three, a parabola.
"""

import numpy as np

from tinyddpm.coefficients import check_t, spread
from tinyddpm.gaussian import Gaussian
from tinyddpm.reverse import along_flow, partly_renewed

__all__ = ["dpm_solver_2s", "dpm_solver_3m", "step_weights", "dynamic_threshold"]


def dpm_solver_2s():
    """Make a step of DPM-Solver++(2S), of second order without memory of other steps. (Lu et al. 2022; E31)

    Steps come in pairs. The first leads to a point between, as DDIM does. The second knows x0_hat there too, and leads
    from where the first began to its own end.
    """
    start = None

    def step(denoise, schedule, xt, t):
        nonlocal start
        x0_hat = denoise(xt, t)
        if (schedule.T - t) % 2 == 0 or t == 1:
            start = xt, x0_hat
            return Gaussian(along_flow(schedule, x0_hat, xt, t), 0.0)
        ahead = continued(schedule, [(t + 1, start[1]), (t, x0_hat)], t - 1)
        return partly_renewed(schedule, ahead, start[0], t + 1, t - 1, 0.0)

    return step


def dpm_solver_3m():
    """Make a step of DPM-Solver++(3M), of third order with one call of the model a step. (Lu et al. 2022; E31)

    It takes the last three values of x0_hat, and starts with one and two. The last step ends at an infinite log-SNR,
    and leads to x0_hat.
    """
    known = []  # [(t, x0_hat)], newest first

    def step(denoise, schedule, xt, t):
        nonlocal known
        t = check_t(t, schedule.T, xt, first=1)
        known = [(t, denoise(xt, t)), *known][: 3 if 1 < t < schedule.T else 1]
        return Gaussian(along_flow(schedule, continued(schedule, known, t - 1), xt, t), 0.0)

    return step


def continued(schedule, known, end):
    """The constant x0_hat that leads where the polynomial through the known [(t, x0_hat)] does, from the first to end."""
    steps, values = zip(*known, strict=True)
    rise = schedule.log_snr[[*steps, end]] - schedule.log_snr[steps[0]]
    weights = step_weights(rise[:-1], rise[-1])
    return sum(spread(weight, x0_hat) * x0_hat for weight, x0_hat in zip(weights, values, strict=True))


def step_weights(nodes, h):
    """Weights of a function's values at the nodes, for its mean over 0..h by a density like exp(u / 2). (E31)

    Along the flow that is the weight of x0_hat where the log-SNR has risen by u. nodes: (n,) different floats. The
    weights are exact for polynomials of degree n - 1. For an even density they would be those of Adams and Bashforth.
    """
    means = [1.0]  # of u, u^2, ..., each by parts from the one before
    for power in range(1, len(nodes)):
        means.append(-(h**power) / np.expm1(-h / 2) - 2 * power * means[-1])
    return np.linalg.solve(np.vander(nodes, increasing=True).T, means)


def dynamic_threshold(quantile=0.995):
    """A `clip` of `reverse_process` for guided models: x0_hat clipped to [-s, s], and divided by s. (Saharia et al. 2022, "Imagen")

    s is this quantile of |x0_hat| over the elements of a sample, but at least 1. Guidance pushes x0_hat out of [-1, 1].
    A fixed clip would make all that is outside white or black. x0_hat: a NumPy or CuPy array (N, ...).
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"a quantile must lie in [0, 1], got {quantile}")

    def clip(x0_hat):
        s = np.quantile(abs(x0_hat), quantile, axis=tuple(range(1, x0_hat.ndim)), keepdims=True)
        s = s.astype(x0_hat.dtype).clip(1)
        return x0_hat.clip(-s, s) / s

    return clip
