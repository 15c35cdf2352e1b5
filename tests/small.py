"""A model and images small enough to train in a test."""

import device
import numpy as np
import pytest

import nn
from tinyddpm.data.images import Data, Dataset
from tinyddpm.program.compute import Compute
from tinyddpm.program.config import Config
from tinyddpm.program.train import Trainer
from tinyddpm.theory.log_snr import signal_and_sigma

OPTIONS = {"preset": "tiny", "T": 20, "unet": {"width": 8, "heads": 2}, "batch": 8}


def pictures(n=40, seed=0):
    """Bright squares on black at random places, labelled by quadrant."""
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((n, 8, 8), np.uint8), rng.integers(0, 4, n)
    for image, label in zip(images, labels, strict=True):
        y, x = 4 * (label // 2) + rng.integers(0, 2), 4 * (label % 2) + rng.integers(0, 2)
        image[y : y + 3, x : x + 3] = 255
    return Dataset(images, labels)


SQUARES = Data("squares", pictures(), pictures(20, seed=1))
CONFIG = Config.of(SQUARES, **OPTIONS)
HYBRID_CONFIG = Config.of(SQUARES, diffusion="hybrid", **OPTIONS)
VDM_CONFIG = Config.of(SQUARES, diffusion="vdm", **OPTIONS)
LEARNED_CONFIG = Config.of(SQUARES, diffusion="vdm_learned", **OPTIONS)
BITS_CONFIG = Config.of(SQUARES, diffusion="binomial", **OPTIONS)

HIGH, LOW, VARIANCE = 13.3, -5.0, 0.5


class Ideal(nn.Module):
    """The network whose eps_hat is ideal for data N(0, VARIANCE)."""

    def __init__(self):
        self.scale = nn.tensor(np.ones(1, np.float32), requires_grad=True)

    def __call__(self, x, time, labels):
        signal, sigma = signal_and_sigma(HIGH + (LOW - HIGH) * time.reshape(-1, 1, 1, 1))
        share = sigma / (signal**2 * VARIANCE + sigma**2)  # eps_hat = sigma z / variance of z
        return x * share.astype(x.dtype) * self.scale


# ---- training on the device that the tests run on ----

CONFIGS = {one.diffusion: one for one in (CONFIG, HYBRID_CONFIG, VDM_CONFIG, LEARNED_CONFIG, BITS_CONFIG)}
every = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def here(workers=None):
    return Compute("cpu" if device.xp is np else "cuda", workers)


def trainer(config=CONFIG, workers=None):
    return Trainer(config, pictures(), here(workers))
