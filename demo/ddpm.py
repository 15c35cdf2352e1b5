"""All of DDPM in one file: schedule, network, loss, training loop, sampler. Copy it and change it.

    python demo/ddpm.py --minutes 3

Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models". The E-numbers are the project's equation numbers.
"""

import argparse
import time

import numpy as np
from PIL import Image

import nn
from tinyddpm import NoiseSchedule, load_data, q_sample
from tinyddpm.data.images import from_model, to_model
from tinyddpm.program.unet import UNet, UNetConfig

T, BATCH = 1000, 64
rng = np.random.default_rng(0)

# The schedule: how much of the signal, alpha_bar[t], and of the noise, 1 - alpha_bar[t], there is at step t = 0..T.
schedule = NoiseSchedule.cosine(T)

# The network: looks at x_t and t, and predicts v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0. (E24)
network = UNet(UNetConfig(width=16, multipliers=(1, 2, 2), T=T))
parameters = network.parameters()
optimiser = nn.Adam(parameters, nn.rates.warmup(2e-3, steps=100))
average = nn.EMA(parameters, decay=0.999)
cores = nn.Parallel(shard=8)  # a batch in shards of 8 images, one process a core


def signal_and_noise(t):
    """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), as numbers or shaped to multiply images."""
    shape = (-1, 1, 1, 1) if np.ndim(t) else ()
    signal = np.sqrt(schedule.alpha_bar[t]).astype(np.float32).reshape(shape)
    return signal, np.sqrt(schedule.one_minus_alpha_bar[t]).astype(np.float32).reshape(shape)


def loss(network, xt, t, v):
    """The mean of ||v - v_hat||^2, of the rows that one process is sent."""
    return nn.mse(network(xt, t), nn.Tensor(v))


def training_step(x0):
    """One step of gradient descent on ||v - v_hat||^2, at a random timestep for each image."""
    t = rng.integers(1, T + 1, size=len(x0))
    eps = rng.standard_normal(x0.shape, dtype=np.float32)
    xt = q_sample(schedule, x0, t, eps)  # E2
    signal, noise = signal_and_noise(t)
    v = signal * eps - noise * x0  # E24
    value, gradient = cores.loss_and_gradient(loss, network, xt, t, v)
    nn.clip_by_global_norm(gradient, 1.0)
    optimiser.step(gradient)
    average.update()
    return float(value)


def predict_v(network, xt, t):
    """The network's output, of the rows that one process is sent."""
    return network(xt, t)


def predict_x0(xt, t):
    """The network's guess of the image under the noise, kept in the range of images."""
    v = cores.map(predict_v, network, xt, np.full(len(xt), t))
    signal, noise = signal_and_noise(t)
    return np.clip(signal * xt - noise * v, -1, 1)  # E24


def generate(n, steps=100):
    """Ancestral sampling over `steps` of the T timesteps: the posterior q(x_s | x_t, x_0) at the guessed x_0. (E10, E29)"""
    x = rng.standard_normal((n, 28, 28, 1), dtype=np.float32)
    timesteps = np.linspace(T, 0, steps + 1).round().astype(int)
    for t, s in zip(timesteps[:-1], timesteps[1:], strict=True):
        x0 = predict_x0(x, t)
        alpha = schedule.alpha_bar[t] / schedule.alpha_bar[s]  # of the step from s to t
        noise_s, noise_t = schedule.one_minus_alpha_bar[[s, t]]
        mean = np.float32(np.sqrt(alpha) * noise_s / noise_t) * x
        mean += np.float32(np.sqrt(schedule.alpha_bar[s]) * (1 - alpha) / noise_t) * x0
        sigma = np.float32(np.sqrt((1 - alpha) * noise_s / noise_t))  # 0 at the last step, where s = 0
        x = mean + sigma * rng.standard_normal(x.shape, dtype=np.float32)
    return x


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--out", default="ddpm.png")
    arguments = parser.parse_args()

    images = to_model(load_data("auto").train.images)
    start, losses = time.monotonic(), []
    while time.monotonic() - start < 60 * arguments.minutes:
        losses.append(training_step(images[rng.integers(len(images), size=BATCH)]))
        if len(losses) % 50 == 0:
            print(f"step {len(losses)}, loss {np.mean(losses[-50:]):.4f}", flush=True)

    average.swap()  # sample with the averaged weights
    digits = from_model(generate(64)).reshape(8, 8, 28, 28).transpose(0, 2, 1, 3).reshape(8 * 28, 8 * 28)
    Image.fromarray(digits).resize((3 * 8 * 28, 3 * 8 * 28)).save(arguments.out)
    print(f"64 digits in {arguments.out}")
