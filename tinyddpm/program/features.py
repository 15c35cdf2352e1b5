"""What the network is shown besides the image: the time, and views of the image that help it. Next: diffusions.py."""

import numpy as np

import nn

__all__ = ["timestep_embedding", "fourier_features", "noise_if_extreme"]


def timestep_embedding(t, size, T=1000):
    """Sines and cosines of 1000 t / T at `size` / 2 geometric frequencies (Vaswani et al. 2017): (N,) -> (N, size).

    Scaling by 1000 / T makes the frequencies, which were chosen for T = 1000, fit any T; and times in [0, 1] with T = 1.
    """
    frequencies = np.exp(-np.log(10000.0) * np.arange(size // 2) / (size // 2))
    angles = np.asarray(t, dtype=np.float64)[:, None] * (1000.0 / T) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def fourier_features(x, octaves, log_snr):
    """Sines and cosines of x at `octaves` frequencies: (N, H, W, C) -> (N, H, W, 2 octaves C). log_snr: (N,).

    The highest frequency has the period 2/255, one level of an 8-bit image in [-1, 1]; each other half the one before.
    So a network sees where between two levels a value lies, which it must to remove the last noise. (Kingma et al.
    2021, VDM, appendix C) Each is multiplied by exp(-(frequency sigma)^2 / 2), what noise of deviation sigma leaves of it
    in the mean. In more noise it would be nothing but noise.
    """
    _, sigma = _signal_and_sigma(x, log_snr)
    frequencies = [2 * np.pi * 127.5 / 2**k for k in range(octaves)]
    left = [x.xp.exp(-((frequency * sigma) ** 2) / 2) for frequency in frequencies]
    waves = [(nn.sin(f * x) * a, nn.cos(f * x) * a) for f, a in zip(frequencies, left, strict=True)]
    return nn.concatenate([wave for pair in waves for wave in pair])


def noise_if_extreme(x, log_snr):
    """The noise in x if its pixel of x_0 were -1, and if it were 1, limited to [-4, 4]: (N, H, W, C) -> (N, H, W, 2 C).

    log_snr: (N,). Many pixels are black or white, and there the network only has to choose between these two. Without
    them it must see ever smaller differences of x, as the noise gets less, and magnify them: its weights would be large.
    """
    signal, sigma = _signal_and_sigma(x, log_snr)
    return nn.concatenate([((x + signal) / sigma).clip(-4, 4), ((x - signal) / sigma).clip(-4, 4)])


def _signal_and_sigma(x, log_snr):
    """The two, (N, 1, 1, 1), on the device and in the dtype of the Tensor x."""
    log_snr = np.reshape(log_snr, (-1, 1, 1, 1))
    return tuple(x.xp.asarray((1 / (1 + np.exp(-a))) ** 0.5, x.dtype) for a in (log_snr, -log_snr))
