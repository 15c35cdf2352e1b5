"""Which S of the T timesteps a sampler visits: evenly in t, or in a measure of the noise. Next: coefficients.py.

`NoiseSchedule.respace` takes them by name. Where the steps should lie close together is a matter of the sampler: where
x0_hat changes fastest along the chain.
"""

import numpy as np

__all__ = ["SPACINGS", "even_in_t", "quadratic_in_t", "even_in_log_snr", "karras", "even_in_angle", "distinct"]

# Spacings in log-SNR run between these two: before HIDDEN x_t tells nothing of x_0 yet, after CLEAR it hides nothing.
HIDDEN, CLEAR = -7.0, 6.0


def even_in_t(schedule, S):
    return schedule.T * np.arange(1, S + 1) / S


def quadratic_in_t(schedule, S):
    """t like i^2: close together at the end of the chain. (Song et al. 2020, DDIM)"""
    return schedule.T * (np.arange(1, S + 1) / S) ** 2


def even_in_log_snr(schedule, S):
    """Each step multiplies signal/noise by the same factor. (Lu et al. 2022)"""
    return at_log_snr(schedule, np.linspace(*ends(schedule), S))


def karras(schedule, S, rho=7):
    """(noise/signal)^(1/rho) on a line. (Karras et al. 2022, eq. 5)"""
    root = np.linspace(*np.exp(-ends(schedule) / (2 * rho)), S)
    return at_log_snr(schedule, -2 * rho * np.log(root))


def even_in_angle(schedule, S):
    """arctan(noise/signal) on a line: for any schedule what even in t is for the cosine schedule. (Salimans & Ho 2022)"""
    angle = np.linspace(*np.arctan(np.exp(-ends(schedule) / 2)), S)
    return at_log_snr(schedule, -2 * np.log(np.tan(angle)))


def ends(schedule):
    """CLEAR and HIDDEN, or where the schedule ends before them."""
    return np.clip([CLEAR, HIDDEN], schedule.log_snr[-1], schedule.log_snr[1])


def at_log_snr(schedule, log_snr):
    """The t, real numbers, at which the schedule has these values of the log-SNR."""
    return np.interp(-log_snr, -schedule.log_snr[1:], np.arange(1, schedule.T + 1))


def distinct(steps, T):
    """Real numbers in 1..T rounded up, the last to T, and moved apart where two would become one."""
    i = np.arange(1, len(steps) + 1)
    rounded = np.append(np.ceil(steps[:-1]), T).astype(np.int64)
    return np.minimum(np.maximum.accumulate(rounded - i) + i, T - i[::-1] + 1)


# To add a spacing, add its function here: it takes a schedule and S, and returns S increasing numbers in 1..T.
SPACINGS = {
    "t": even_in_t,
    "quadratic": quadratic_in_t,
    "log_snr": even_in_log_snr,
    "karras": karras,
    "angle": even_in_angle,
}
