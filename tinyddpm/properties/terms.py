"""The identities of the bound's terms, of the loss's weights and of Karras's scalings. Next: checks.py."""

import numpy as np

from tinyddpm.properties.adapter import AdapterError, as_numpy, ask, shaped
from tinyddpm.properties.cases import VARIANCES, identity

__all__ = []


@identity("E20 prior term", "L_T = sum of (alpha_bar_T x_0^2 - alpha_bar_T - log(1 - alpha_bar_T)) / 2")
def prior_term(c):
    signal = np.float64(c.adapter.alpha_bar[-1])
    each = (signal * c.x0.astype(np.float64) ** 2 - signal - np.log1p(-signal)) / 2  # E20
    found = shaped(ask(c.adapter, "prior_term", c.x0), (len(c.x0),), c.x0.dtype, "L_T")
    return found, each.sum(1), c.k.unit * (2 + (c.x0.astype(np.float64) ** 2).sum(1)) * (1 + 1 / (1 - signal))


@identity(
    "E19 denoising term", "L_{t-1} = ||mean - mean_hat||^2 / (2 sigma^2) + the KL of the variances, t >= 2", first=2
)
def denoising_term(c):
    sigma2, x0_hat = VARIANCES[c.adapter.variance](c.k), c.noise
    ratio = c.k.beta_tilde / sigma2
    factor = c.k.signal_prev * c.k.beta**2 / c.k.noise**2 / (2 * sigma2)  # E22
    error = (c.x0.astype(np.float64) - x0_hat) ** 2
    expected = (factor * error + (ratio - 1 - np.log(ratio)) / 2).sum(1)  # E19
    found = ask(c.adapter, "denoising_term", c.x0, x0_hat, c.xt * c.scale(c.t), c.t)
    found = shaped(found, (len(c.x0),), c.x0.dtype, "L_{t-1}")
    # The means are computed in the adapter's precision, and their difference is divided by sigma.
    rounding = 4 * c.k.unit / c.k.noise * (c.size + abs(c.noise))
    slack = (rounding * (2 * (factor * error) ** 0.5 + rounding / sigma2**0.5) / sigma2**0.5).sum(1)
    return found, expected, slack + 64 * c.k.unit * (1 + abs(expected)) / c.k.noise / c.k.noise_prev


@identity("E22 weight of x0", "the loss weight of an error of x0", first=2)
def weight_of_x0(c):
    return weight(c, "x0", 1.0)


@identity("E22 weight of eps", "the loss weight of an error of eps is that of x0 over the SNR", first=2)
def weight_of_eps(c):
    return weight(c, "eps", c.k.noise / c.k.signal)


@identity("E22 weight of v", "the loss weight of an error of v is that of x0 times 1 - alpha_bar_t", first=2)
def weight_of_v(c):
    return weight(c, "v", c.k.noise)


def weight(c, kind, error):
    """The sides for a kind of prediction, of which an error is that of x_0 over sqrt(`error`)."""
    k, snr = c.k, c.k.signal / c.k.noise
    if c.adapter.weighting == "min-snr":
        of_x0 = min(snr, c.adapter.min_snr_gamma)  # E38
    else:
        sigma2 = VARIANCES[c.adapter.variance](k)
        of_x0 = k.signal_prev * k.beta**2 / (2 * sigma2 * k.noise**2)  # E22
    found = as_numpy(ask(c.adapter, "loss_weight", kind, c.t), "the weight")
    if found.shape != ():
        raise AdapterError(f"loss_weight must return a number, got shape {found.shape}")
    relative = 4 * k.unit * (1 / k.noise + 1 / k.noise_prev + 1 / k.beta + 1 / k.signal)
    return found, of_x0 * error, relative * of_x0 * error


@identity(
    "E37 scalings", "c_skip = s^2/(sigma^2 + s^2), c_out = sigma s/sqrt(sigma^2 + s^2), c_in = 1/sqrt(sigma^2 + s^2)"
)
def scalings(c):
    sigma, s = (c.k.noise / c.k.signal) ** 0.5, c.adapter.sigma_data
    root = (sigma**2 + s**2) ** 0.5
    expected = np.array([s**2 / root**2, sigma * s / root, 1 / root])  # E37
    found = ask(c.adapter, "scalings", c.t)
    if len(found) != 3:
        raise AdapterError(f"scalings must return c_skip, c_out and c_in, got {len(found)} values")
    found = np.array([np.float64(as_numpy(value, "a scaling")) for value in found])
    return found, expected, 4 * c.k.unit * expected * (1 + 1 / c.k.noise)
