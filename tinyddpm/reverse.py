"""The reverse process: from noise to data with a model `denoise(xt, t) -> x0_hat`.

A model is anything that can be called so: a network, or one of the oracles in oracle.py. Read loss.py and
bound.py next.
"""

from functools import partial

import numpy as np

from tinyddpm.coefficients import check_like, check_t, gather, spread
from tinyddpm.forward import q_posterior
from tinyddpm.gaussian import Gaussian, exp
from tinyddpm.prediction import eps_from_x0, mean_from_eps

__all__ = ["p_mean_variance", "p_mean_variance_eps", "reverse_variance", "variance_table", "learned_variance"]
__all__ += ["ddim_step", "second_order_step", "predict_x0", "reverse_process", "SAMPLERS", "sample", "walk"]
__all__ += ["ddim_encode"]


# ---- one step ----


def p_mean_variance(schedule, x0_hat, xt, t, variance="beta_tilde"):
    """p(x_{t-1} | x_t) as q(x_{t-1} | x_t, x_0 = x0_hat), with the variance asked for. (E29)

    variance: "beta" or "beta_tilde" (see `variance_table`), or an array of variances that broadcasts over xt.
    """
    mean = q_posterior(schedule, x0_hat, xt, t).mean
    return Gaussian(mean, reverse_variance(schedule, variance, xt, t))  # E29


def p_mean_variance_eps(schedule, eps_hat, xt, t, variance="beta_tilde"):
    """p(x_{t-1} | x_t) from a prediction of the noise: Algorithm 2 of Ho et al. 2020. (E8, E29)"""
    check_like("eps_hat", eps_hat, "xt", xt)
    mean = mean_from_eps(schedule, eps_hat, xt, t)
    return Gaussian(mean, reverse_variance(schedule, variance, xt, t))  # E29


def reverse_variance(schedule, variance, xt, t):
    """sigma_t^2 in xt's dtype and shaped for it. A name as in `variance_table`; what is none is returned."""
    if not isinstance(variance, str):
        return variance
    return gather(variance_table(schedule, variance), t, xt, first=1)


def variance_table(schedule, variance):
    """The table of sigma_t^2: "beta" is beta_t; "beta_tilde" is beta_tilde_t, but beta_tilde_2 at t = 1. (E9)

    beta_tilde_1 is 0, which no likelihood can do with, so L_0 takes the next one (beta_1 if T = 1, where
    there is none). Samplers never see it: they add no noise at t = 1. Raises ValueError for another name.
    """
    if variance == "beta":
        return schedule.beta
    if variance == "beta_tilde":
        table = schedule.beta_tilde.copy()
        table[1] = table[2] if schedule.T > 1 else schedule.beta[1]
        return table
    raise ValueError(f"unknown variance {variance!r}; there are: beta, beta_tilde")


def learned_variance(schedule, fraction, xt, t):
    """exp(fraction log beta_t + (1 - fraction) log beta_tilde_t). (Nichol & Dhariwal 2021 eq. 15; E19)

    fraction: like xt, a network's output brought to [0, 1]. Pass the result on as `variance`.
    """
    t = check_t(t, schedule.T, xt, first=1)
    high, low = np.log(schedule.beta[t]), np.log(variance_table(schedule, "beta_tilde")[t])
    return exp(spread(low, xt) + spread(high - low, xt) * fraction)


def ddim_step(schedule, x0_hat, xt, t, eta=0.0):
    """x_{t-1} given x_t and a prediction of x_0. (Song et al. 2020 eq. 12 and 16; E30)

    eta in [0, 1]: 0 is deterministic, 1 has the variance beta_tilde_t. Every eta keeps q(x_{t-1} | x_0).
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    t = check_t(t, schedule.T, xt, first=1)
    noise_prev, noise = schedule.one_minus_alpha_bar[t - 1], schedule.one_minus_alpha_bar[t]
    variance = eta**2 * schedule.beta_tilde[t]
    kept = noise_prev * (schedule.alpha[t] * noise_prev + (1 - eta**2) * schedule.beta[t]) / noise
    # kept = 1 - alpha_bar_{t-1} - variance, with the subtraction carried out
    eps_hat = eps_from_x0(schedule, x0_hat, xt, t)
    mean = spread(schedule.alpha_bar[t - 1] ** 0.5, xt) * x0_hat + spread(kept**0.5, xt) * eps_hat
    return Gaussian(mean, spread(variance, xt))  # E30


def second_order_step():
    """A step of DPM-Solver++(2M) with the memory of one chain: make one for each. (Lu et al. 2022; E31)

    Returns step(schedule, x0_hat, xt, t) -> Gaussian of variance 0. It extrapolates x_0 along the log-SNR
    from the prediction of the step before. The first step has none, and the last has no finite log-SNR to go
    to: both are DDIM's.
    """
    x0_before = None

    def step(schedule, x0_hat, xt, t):
        nonlocal x0_before
        rate = schedule.log_snr / 2  # lambda = log(signal/noise)
        h = rate[t - 1] - rate[t]
        target = x0_hat
        if x0_before is not None and 1 < t < schedule.T:
            target = x0_hat + spread(h / (rate[t] - rate[t + 1]) / 2, xt) * (x0_hat - x0_before)
        x0_before = x0_hat
        from_xt = (schedule.one_minus_alpha_bar[t - 1] / schedule.one_minus_alpha_bar[t]) ** 0.5
        from_x0 = -(schedule.alpha_bar[t - 1] ** 0.5) * np.expm1(-h)
        return Gaussian(spread(from_xt, xt) * xt + spread(from_x0, xt) * target, 0.0)

    return step


# ---- the chain ----


def predict_x0(denoise, schedule, xt, t, clip=None):
    """denoise(xt, schedule.timesteps[t]), clipped to the range clip = (low, high) if given.

    Raises ValueError or TypeError if the model returns another shape or dtype.
    """
    t = check_t(t, schedule.T, xt, first=1)
    x0_hat = denoise(xt, schedule.timesteps[t])
    check_like("what denoise returns", x0_hat, "xt", xt)
    return x0_hat if clip is None else x0_hat.clip(*clip)


def reverse_process(denoise, schedule, x_T, noise, step=p_mean_variance, clip=None):
    """Walk from x_T down to x_0, yielding (t, x_{t-1}, x0_hat) for t = T..1: the one loop of every sampler.

    denoise(xt, t) -> x0_hat is told schedule.timesteps[t]. noise(t) -> standard normal like x_T; it is not
    called where the step has no variance, nor at t = 1, where x_0 is the mean itself. step(schedule, x0_hat,
    xt, t) -> Gaussian.
    """
    x = x_T
    for t in range(schedule.T, 0, -1):
        x0_hat = predict_x0(denoise, schedule, x, t, clip)
        p = step(schedule, x0_hat, x, t)
        x = p.mean if t == 1 or is_zero(p.variance) else p.sample(noise(t))
        yield t, x, x0_hat


def is_zero(variance):
    return getattr(variance, "shape", ()) == () and variance == 0


SAMPLERS = ("ancestral", "ancestral_eps", "ddim", "dpm_solver")


def sample(
    denoise,
    schedule,
    x_T,
    noise,
    sampler="ancestral",
    eta=0.0,
    variance="beta_tilde",
    clip=True,
    progress=None,
    keep=None,
):
    """x_0 drawn with the model `denoise(xt, t) -> x0_hat`, starting from x_T, standard normal (N, ...).

    noise(t) -> standard normal like x_T. sampler: one of SAMPLERS; `variance` is of the ancestral ones, `eta`
    of DDIM. clip: True for predictions of x_0 kept within [-1, 1], a pair (low, high), or False. progress:
    wraps the loop as `tqdm` does, called with total=T. keep: steps t in 1..T whose (x_t, x0_hat) to keep;
    then returns x_0 and a dict of them by t. To visit fewer steps pass `schedule.respace(S)`.
    """
    clip = (-1.0, 1.0) if clip is True else clip or None
    steps = reverse_process(denoise, schedule, x_T, noise, step_of(sampler, eta, variance, clip), clip)
    x0, kept = walk(steps, x_T, schedule.T, progress, keep)
    return x0 if keep is None else (x0, kept)


def walk(steps, x_T, T, progress=None, keep=None):
    """The end of `reverse_process`, and the (x_t, x0_hat) of the steps to keep, by t. Arguments as in `sample`."""
    kept, wanted = {}, set() if keep is None else set(keep)
    if not wanted <= set(range(1, T + 1)):
        raise ValueError(f"keep must hold steps in 1..{T}, got {sorted(wanted)}")
    x = x_T
    for t, x_prev, x0_hat in steps if progress is None else progress(steps, total=T):
        if t in wanted:
            kept[t] = x, x0_hat
        x = x_prev
    return x, kept


def step_of(sampler, eta, variance, clip):
    """The step function of a sampler by name; ValueError for options that it does not have."""
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; there are: {', '.join(SAMPLERS)}")
    if eta != 0 and sampler != "ddim":
        raise ValueError(f"eta is an option of the sampler 'ddim' only, got eta = {eta} for {sampler!r}")
    if sampler == "ancestral":
        return partial(p_mean_variance, variance=variance)
    if sampler == "ancestral_eps":
        if clip is not None:
            raise ValueError("'ancestral_eps' has no x_0 to clip: pass clip=False, or take 'ancestral'")
        return partial(algorithm_2_step, variance=variance)
    if variance != "beta_tilde":
        raise ValueError(f"variance is an option of ancestral samplers, got {variance!r} for {sampler!r}")
    return partial(ddim_step, eta=eta) if sampler == "ddim" else second_order_step()


def algorithm_2_step(schedule, x0_hat, xt, t, variance):
    return p_mean_variance_eps(schedule, eps_from_x0(schedule, x0_hat, xt, t), xt, t, variance)


def ddim_encode(denoise, schedule, x0):
    """x_T that DDIM with eta = 0 decodes into x0, up to discretisation error. (Song et al. 2020; E30)

    The noise in x_{t-1} stands for the noise in x_t. x_0 has none: there the model is asked as if it were
    x_1.
    """
    x = x0
    for t in range(1, schedule.T + 1):
        s = max(t - 1, 1)
        eps_hat = eps_from_x0(schedule, predict_x0(denoise, schedule, x, s), x, s)
        from_x = schedule.alpha[t] ** 0.5
        noise_prev, noise = schedule.one_minus_alpha_bar[t - 1 : t + 1] ** 0.5
        from_eps = noise - from_x * noise_prev
        x = spread(from_x, x) * x + spread(from_eps, x) * eps_hat
    return x
