"""More samplers: DDIM, Heun, DPM-Solver++ with and without noise, and a family that contains DDIM and DDPM.

Each is a `step(denoise, schedule, xt, t)` that returns the Gaussian of x_{t-1}, as in reverse.py. Its `denoise` is the
model wrapped by `reverse_process`, which clips x0_hat and checks its shape; t is an integer in 1..T. `dpm_solver` and
`gradient_estimation` remember the step before, so each call of them makes a new step for one chain. Where no noise is
added, all follow the *probability flow*: d(x/noise) = x0_hat d(signal/noise), as signal/noise rises. Next: solvers.py.
"""

import numpy as np

from tinyddpm.coefficients import check_t, named, spread
from tinyddpm.gaussian import Gaussian
from tinyddpm.prediction import eps_from_x0
from tinyddpm.reverse import along_flow, ancestral_step, partly_renewed, predict_x0
from tinyddpm.solvers import dpm_solver_2s, dpm_solver_3m

__all__ = ["ddim_step", "heun_step", "dpm_solver", "gradient_estimation", "SAMPLERS", "named_sampler", "ddim_encode"]


def ddim_step(denoise, schedule, xt, t, eta=0.0):
    """x_{t-1} with its noise partly kept and partly drawn anew. (Song et al. 2020 eq. 12 and 16; E30)

    eta in [0, 1]: 0 is deterministic, 1 has the variance beta_tilde_t. Every eta keeps q(x_{t-1} | x_0).
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    t = check_t(t, schedule.T, xt, first=1)
    x0_hat = denoise(xt, t)
    var_prev, var_t, beta = schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t], schedule.beta[t]
    drawn = eta**2 * schedule.beta_tilde[t]  # = eta^2 var_prev beta / var_t
    # The noise in x_{t-1} has variance var_prev; the part kept from x_t has var_prev - drawn. Written out, that is
    # var_prev (var_t - eta^2 beta) / var_t. With var_t = alpha_t var_prev + beta no difference of near numbers remains.
    kept = var_prev * (schedule.alpha[t] * var_prev + (1 - eta**2) * beta) / var_t
    return Gaussian(renoised(schedule, x0_hat, eps_from_x0(schedule, x0_hat, xt, t), t, kept), spread(drawn, xt))  # E30


def renoised(schedule, x0_hat, eps_hat, t, kept):
    """sqrt(alpha_bar_{t-1}) x0_hat + sqrt(kept) eps_hat. kept: a variance in float64."""
    return spread(schedule.alpha_bar[t - 1] ** 0.5, x0_hat) * x0_hat + spread(kept**0.5, x0_hat) * eps_hat


def heun_step(denoise, schedule, xt, t):
    """Heun's second-order method on the flow: a step along the mean of x0_hat at both of its ends. (E31, E43)

    Karras et al. 2022 average eps_hat instead, and step in noise/signal. Near T that ratio falls by a large factor in
    one step, which multiplies the error of eps_hat. An average of x0_hat stays within the range of x0_hat.
    """
    x0_hat = denoise(xt, t)
    x_prev = along_flow(schedule, x0_hat, xt, t)
    if t > 1:  # at t = 1 the step ends at x_0, where no model is defined
        x_prev = along_flow(schedule, (x0_hat + denoise(x_prev, t - 1)) / 2, xt, t)
    return Gaussian(x_prev, 0.0)


def dpm_solver(noise=0.0):
    """Make a step of DPM-Solver++(2M), of second order with one call of the model a step. (Lu et al. 2022; E31)

    It holds x0_hat at the value to which this step and the one before point, in the middle of the log-SNR of the step.
    The first step has none before it, and the last ends at an infinite log-SNR: both hold x0_hat as it is.
    noise in [0, 1]: as in `partly_renewed`. 1 is SDE-DPM-Solver++(2M).
    """
    x0_before, noise = None, float(noise)
    if not 0 <= noise <= 1:
        raise ValueError(f"noise must lie in [0, 1], got {noise}")

    def step(denoise, schedule, xt, t):
        nonlocal x0_before
        t = check_t(t, schedule.T, xt, first=1)
        x0_hat = ahead = denoise(xt, t)
        if x0_before is not None and 1 < t < schedule.T:
            before, here, after = schedule.log_snr[[t + 1, t, t - 1]]
            ahead = x0_hat + spread((after - here) / (here - before) / 2, xt) * (x0_hat - x0_before)
        x0_before = x0_hat
        return partly_renewed(schedule, ahead, xt, t, t - 1, noise)

    return step


def gradient_estimation(gamma=2.0, mu=0.0):
    """Make a step of the family with two numbers, (gamma, mu), of Permenter & Yuan 2024. (E30, E43)

    (1, 0) is DDIM, (1, 1/2) the ancestral step with beta_tilde, (2, 0) their accelerated sampler.
    gamma: the step takes gamma eps_hat + (1 - gamma) eps_before, where eps_before is eps_hat of the step before.
    mu in [0, 1): 0 keeps all noise of x_t; the larger mu, the more noise is drawn anew. Let sigma_t = noise/signal at
    t. The noise that is kept has sigma_kept with sigma_{t-1} = sigma_t^mu sigma_kept^(1 - mu). The rest is drawn.
    """
    gamma, mu, eps_before = float(gamma), float(mu), None
    if not (0 <= mu < 1 and np.isfinite(gamma)):
        raise ValueError(f"gamma must be finite and mu lie in [0, 1), got {gamma} and {mu}")

    def step(denoise, schedule, xt, t):
        nonlocal eps_before
        x0_hat = denoise(xt, t)
        eps_hat = mixed = eps_from_x0(schedule, x0_hat, xt, t)
        if eps_before is not None and t < schedule.T:
            mixed = gamma * eps_hat + (1 - gamma) * eps_before
        eps_before = eps_hat
        x0_mixed = x0_hat + spread(schedule.snr[t] ** -0.5, xt) * (eps_hat - mixed)  # the x_0 that `mixed` stands for
        var_prev = schedule.one_minus_alpha_bar[t - 1]
        kept = var_prev * (schedule.snr[t] / schedule.snr[t - 1]) ** (mu / (1 - mu))
        return Gaussian(renoised(schedule, x0_mixed, mixed, t, kept), spread(var_prev - kept, xt))

    return step


# To add a sampler, add its step here, and here only. Each entry returns the step of one chain.
SAMPLERS = {
    "ancestral": lambda: ancestral_step,
    "ddim": lambda: ddim_step,
    "heun": lambda: heun_step,
    "dpm_solver": dpm_solver,
    "dpm_solver_2s": dpm_solver_2s,
    "dpm_solver_3m": dpm_solver_3m,
    "sde_dpm_solver": lambda: dpm_solver(noise=1.0),
    "gradient_estimation": gradient_estimation,
}


def named_sampler(name):
    """A step for one chain, by its name in SAMPLERS. The ValueError for another name lists them."""
    return named("sampler", name, SAMPLERS)()


def ddim_encode(denoise, schedule, x0):
    """x_T that DDIM with eta = 0 decodes into x0, up to discretisation error. (Song et al. 2020; E30)

    Each step takes eps_hat at x_{t-1} in place of eps_hat at x_t, which is not known yet. x_0 has no noise, so the
    first step calls the model with x_0 at t = 1.
    """
    x = x0
    for t in range(1, schedule.T + 1):
        s = max(t - 1, 1)
        eps_hat = eps_from_x0(schedule, predict_x0(denoise, schedule, x, s), x, s)
        from_x = schedule.alpha[t] ** 0.5
        noise_prev, noise = schedule.one_minus_alpha_bar[t - 1 : t + 1] ** 0.5
        x = spread(from_x, x) * x + spread(noise - from_x * noise_prev, x) * eps_hat
    return x
