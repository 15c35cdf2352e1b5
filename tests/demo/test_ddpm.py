"""demo/ddpm.py learns and draws, on data of any size, in seconds."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo" / "ddpm.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("ddpm", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_trains_and_draws_images_of_the_size_of_the_data(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 12, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, str(DEMO), "--minutes", "0", "--width", "8", "--steps", "3", "--n", "2"]
    command += ["--data", str(tmp_path / "images.npy"), "--out", str(tmp_path / "out.png")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "2 images in" in result.stdout
    image = pytest.importorskip("PIL.Image").open(tmp_path / "out.png")
    assert image.size == (2 * 12, 8) and image.mode == "RGB"


def test_its_loss_falls(demo):
    """From 1, as the last convolution starts at zero, and v has about the variance of the data and of the noise."""
    import nn
    from tinyddpm import NoiseSchedule
    from tinyddpm.program.unet import UNet, UNetConfig

    images = np.where(np.arange(8).reshape(-1, 1) < 4, 1, -1) * np.ones((20, 8, 8, 1), np.float32)
    network = UNet(UNetConfig(1, 8, (1,), attention=False, T=20))
    average = nn.EMA(network.parameters(), decay=0.9)
    steps = demo.train(
        network,
        average,
        NoiseSchedule.cosine(20),
        images.astype(np.float32),
        nn.Parallel(1, 8),
        np.random.default_rng(0),
        batch=8,
    )
    losses = [next(steps) for _ in range(80)]
    assert 0.7 < losses[0] < 1.3 and np.mean(losses[-20:]) < 0.8 * losses[0]


def test_what_it_draws_are_images_clipped_to_their_range(demo):
    import nn
    from tinyddpm import NoiseSchedule

    class Knows(nn.Module):
        """v of the image that is 2 everywhere, beyond white."""

        def __call__(self, xt, t):
            schedule = NoiseSchedule.cosine(20)
            signal, noise = (
                np.float32(a[t] ** 0.5).reshape(-1, 1, 1, 1) for a in (schedule.alpha_bar, schedule.one_minus_alpha_bar)
            )
            return (signal * xt - np.float32(2)) / noise

    drawn = demo.generate(
        Knows(), NoiseSchedule.cosine(20), (2, 4, 6, 1), nn.Parallel(1), np.random.default_rng(0), steps=5
    )
    assert drawn.shape == (2, 4, 6, 1) and drawn.dtype == np.float32 and (drawn == 1).all()
