"""A model and images small enough to train in a test."""

import numpy as np

from tinyddpm.program.model import ModelConfig
from tinyddpm.program.train import TrainConfig

SMALL = ModelConfig(preset="tiny", T=20, image=(8, 8, 1), unet={"width": 8, "heads": 2})
BITS = ModelConfig(diffusion="binomial", preset="tiny", T=20, image=(8, 8, 1), unet={"width": 8, "heads": 2})
CONFIG = TrainConfig(model=SMALL, batch=8, data="glyphs")
BITS_CONFIG = TrainConfig(model=BITS, batch=8, data="glyphs")


def pictures(n=40, seed=0):
    """Bright squares on black at random places, labelled by quadrant: uint8 (n, 8, 8) and (n,)."""
    rng = np.random.default_rng(seed)
    images, labels = np.zeros((n, 8, 8), np.uint8), rng.integers(0, 4, n).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        y, x = 4 * (label // 2) + rng.integers(0, 2), 4 * (label % 2) + rng.integers(0, 2)
        image[y : y + 3, x : x + 3] = 255
    return images, labels
