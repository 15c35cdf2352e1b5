"""The network: a small U-Net that reads a noisy image and a timestep (and a class, if it is told one).

Residual blocks of group norm, silu and 3x3 convolution; self-attention at the lowest resolution; skip connections
from the way down to the way up (Ronneberger et al. 2015; Ho et al. 2020). Next: features.py.
"""

from dataclasses import dataclass

import numpy as np

import nn
from nn import Conv2d, Embedding, GroupNorm, Linear, Module, Tensor
from tinyddpm.program.features import fourier_features, noise_if_extreme, timestep_embedding

__all__ = ["UNetConfig", "UNet", "PRESETS"]


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net. Level i works at 1 / 2^i of the image's size, with width * multipliers[i] channels."""

    channels: int = 1  # of the image
    width: int = 32
    multipliers: tuple = (1, 2, 2)
    blocks: int = 1  # residual blocks a level on the way down; one more on the way up
    attention: bool = True  # at the lowest resolution
    heads: int = 4
    groups: int = 8
    classes: int = 0  # 0: not conditional on a class
    T: int | None = 1000  # timesteps are integers in 1..T; None: real times in [0, 1]
    dropout: float = 0.0
    outputs: int = 1  # channels of the output for each of the image
    fourier: int = 0  # octaves of sines and cosines of the image that the network is shown beside it
    extremes: bool = False  # show it, for each pixel, the noise that there is if the pixel is black, and if it is white

    def __post_init__(self):
        T = 1 if self.T is None else self.T
        sizes = self.channels, self.width, self.blocks, self.heads, self.groups, self.outputs, T, *self.multipliers
        if min(sizes) < 1 or min(self.classes, self.fourier) < 0 or not self.multipliers:
            raise ValueError(f"sizes must be at least 1 (classes and fourier at least 0), got {self}")
        if self.width % self.groups or self.width % 2:
            raise ValueError(f"width must be even and divide into {self.groups} groups, got {self.width}")
        if self.attention and self.width * self.multipliers[-1] % self.heads:
            raise ValueError(f"{self.width * self.multipliers[-1]} channels do not divide into {self.heads} heads")


PRESETS = {
    "tiny": {"width": 16, "multipliers": (1, 2)},
    "small": {"width": 16, "multipliers": (1, 2, 2)},
    "fine": {"width": 24, "multipliers": (1, 1, 1)},  # wide where the pixels are many: for exact grey levels
    "base": {"width": 32, "multipliers": (1, 2, 2)},
    "large": {"width": 64, "multipliers": (1, 2, 2), "blocks": 2},
}


class ResidualBlock(Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + projection of the embedding))); the second conv starts at zero."""

    def __init__(self, inputs, outputs, embedding, config, rng):
        self.norm1 = GroupNorm(inputs, config.groups, silu=True)
        self.conv1 = Conv2d(inputs, outputs, rng=rng, bias=False)  # the embedding's projection is its bias
        self.project = Linear(embedding, outputs, rng=rng)
        self.norm2 = GroupNorm(outputs, config.groups, silu=True)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = Conv2d(outputs, outputs, rng=rng, zero=True)
        self.skip = Linear(inputs, outputs, rng=rng) if inputs != outputs else None

    def __call__(self, x, embedding):
        h = self.conv1(self.norm1(x), bias=self.project(embedding))
        h = self.conv2(self.dropout(self.norm2(h)))
        return h + (x if self.skip is None else self.skip(x))


class AttentionBlock(Module):
    """x + attention(norm(x)) over all pixels; its output starts at zero."""

    def __init__(self, channels, config, rng):
        self.norm = GroupNorm(channels, config.groups)
        self.attention = nn.Attention(channels, config.heads, rng=rng, zero=True)

    def __call__(self, x):
        n, h, w, c = x.shape
        return x + self.attention(self.norm(x).reshape(n, h * w, c)).reshape(n, h, w, c)


class Stage(Module):
    """A residual block of the class `kind`, and attention after it if `attend`."""

    def __init__(self, kind, inputs, outputs, embedding, attend, config, rng):
        self.block = kind(inputs, outputs, embedding, config, rng)
        self.attention = AttentionBlock(outputs, config, rng) if attend else None

    def __call__(self, x, embedding):
        x = self.block(x, embedding)
        return x if self.attention is None else self.attention(x)


class Downsample(Module):
    """Half the height and width: averages over 2 x 2 pixels, then a convolution."""

    def __init__(self, channels, rng):
        self.downsample = Conv2d(channels, channels, rng=rng)

    def __call__(self, x, embedding):
        return self.downsample(nn.average_pool(x))


class Upsample(Module):
    """Twice the height and width: every pixel four times, then a convolution."""

    def __init__(self, channels, rng):
        self.upsample = Conv2d(channels, channels, rng=rng)

    def __call__(self, x, embedding):
        return self.upsample(nn.upsample_nearest(x))


class UNet(Module):
    """network(x, t, labels): x (N, H, W, C) float32 Tensor or array, t (N,), labels (N,) integers or None.

    Returns a Tensor like x, of config.outputs times the channels. Its last convolution starts at zero, so an untrained
    network predicts exactly zero.
    A conditional network (config.classes = K > 0) takes labels 0..K-1, or K, the null class, for "no label".
    A height or width that the down-samplings do not divide is padded with zeros, and what was added is cut off again.
    With config.fourier or config.extremes it must be told the log-SNR of x at some times t, ascending: log_snr, two arrays (times,
    log-SNRs). A `Model` tells it.
    A subclass may have blocks of another class than ResidualBlock, called alike: `block = MyBlock`.
    """

    block, log_snr = ResidualBlock, None

    def __init__(self, config, seed=0):
        rng = np.random.default_rng(seed)
        widths = [config.width * m for m in config.multipliers]
        size, lowest = 4 * config.width, len(widths) - 1

        def stage(inputs, outputs, lowest):
            return Stage(self.block, inputs, outputs, size, config.attention and lowest, config, rng)

        self.config = config
        self.time1 = Linear(config.width, size, rng=rng)
        self.time2 = Linear(size, size, rng=rng)
        self.label = Embedding(config.classes + 1, size, rng=rng) if config.classes else None
        self.first = Conv2d(config.channels * (1 + 2 * config.fourier + 2 * config.extremes), widths[0], rng=rng)

        self.down, skips, current = [], [widths[0]], widths[0]  # skips: the channels of each output kept for the way up
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(stage(current, width, level == lowest))
                current = width
                skips.append(current)
            if level < lowest:
                self.down.append(Downsample(current, rng))
                skips.append(current)

        self.middle1 = self.block(current, current, size, config, rng)
        self.middle_attention = AttentionBlock(current, config, rng) if config.attention else None
        self.middle2 = self.block(current, current, size, config, rng)

        self.up = []
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                inputs = current + skips.pop()
                self.up.append(stage(inputs, width, level == lowest))
                current = width
            if level > 0:
                self.up.append(Upsample(current, rng))

        self.norm = GroupNorm(current, config.groups, silu=True)
        self.last = Conv2d(current, config.channels * config.outputs, rng=rng, zero=True)

    def __call__(self, x, t, labels=None):
        x = x if isinstance(x, Tensor) else Tensor(x)
        t, labels = nn.to_numpy(t), None if labels is None else nn.to_numpy(labels)  # the host checks indices
        self._check(x, t, labels)
        embedding = self._embed(t, labels, x.xp, x.dtype)
        x = self._shown(x, t)
        _, height, width, _ = x.shape
        factor = 2 ** (len(self.config.multipliers) - 1)
        if height % factor or width % factor:
            x = nn.pad(x, ((0, 0), (0, -height % factor), (0, -width % factor), (0, 0)))

        h = self.first(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)

        h = self.middle1(h, embedding)
        if self.middle_attention is not None:
            h = self.middle_attention(h)
        h = self.middle2(h, embedding)

        for stage in self.up:
            h = stage(h if isinstance(stage, Upsample) else nn.concatenate([h, skips.pop()]), embedding)
        y = self.last(self.norm(h))
        return y if y.shape[1:3] == (height, width) else y[:, :height, :width]

    def _shown(self, x, t):
        """What the first convolution sees: x, and the views of it that the configuration asks for."""
        fourier, extremes = self.config.fourier, self.config.extremes
        if not (fourier or extremes):
            return x
        if self.log_snr is None:
            raise ValueError("a network that is shown waves or extremes must be told the log-SNR of its input: log_snr")
        log_snr = np.interp(t, *self.log_snr)
        views = [fourier_features(x, fourier, log_snr)] if fourier else []
        return nn.concatenate([x, *views, *([noise_if_extreme(x, log_snr)] if extremes else [])])

    def _embed(self, t, labels, xp, dtype):
        """silu of the embedding of timestep and class, which every residual block projects: (N, 4 width)."""
        t = timestep_embedding(t, self.config.width, self.config.T or 1)
        e = self.time2(nn.silu(self.time1(Tensor(xp.asarray(t, dtype=dtype)))))
        if self.label is not None:
            n = t.shape[0]
            e = e + self.label(np.full(n, self.config.classes) if labels is None else labels)
        return nn.silu(e)

    def _check(self, x, t, labels):
        if x.ndim != 4 or x.shape[0] == 0 or x.shape[3] != self.config.channels:
            raise ValueError(f"x must be (N, H, W, {self.config.channels}), got {x.shape}")
        for name, values in (("t", t), ("labels", labels)):
            if values is not None and values.shape != (x.shape[0],):
                raise ValueError(f"{name} must have shape ({x.shape[0]},), got {values.shape}")
        T = self.config.T
        kinds, first, last, words = ("f", 0, 1, "real, in 0..1") if T is None else ("iu", 1, T, f"integers in 1..{T}")
        if t.dtype.kind not in kinds or not (first <= t.min() and t.max() <= last):
            raise ValueError(f"t must be {words}, got {t}")
        if labels is not None and self.label is None:
            raise ValueError("labels given to a network that was built without classes")
