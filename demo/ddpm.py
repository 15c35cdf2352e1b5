"""DDPM on MNIST in one file: the training loop and the sampler. The formulas and the network are the project's own.

    python demo/ddpm.py --minutes 3

Algorithms 1 and 2 are those of Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models"; the network predicts
v (Salimans & Ho 2022, "Progressive distillation") under the cosine schedule (Nichol & Dhariwal 2021, "Improved DDPM").
Copy the file and change it. docs/algorithm.md has every formula in the order of the paper, including the bound.
E-numbers are those of docs/equations.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

import nn
from tinyddpm import NoiseSchedule, convert, load_data, q_sample, sample, x0_from
from tinyddpm.data.images import from_model, to_model
from tinyddpm.program.unet import UNet, UNetConfig


def loss(network, xt, t, v):
    """The mean square of v - v_hat over one shard of the batch. Each worker process calls it on shards of its own."""
    return nn.mse(network(xt, t), v)


def train(network, average, schedule, images, cores, rng, batch=64):
    """Algorithm 1, as an endless generator of losses: each `next` makes one training step."""
    optimiser = nn.Adam(network.parameters(), nn.rates.warmup(2e-3, steps=100))
    while True:
        x0 = images[rng.integers(len(images), size=batch)]
        t = rng.integers(1, schedule.T + 1, size=batch)
        eps = rng.standard_normal(x0.shape, dtype=np.float32)
        xt = q_sample(schedule, x0, t, eps)  # E2
        v = convert(schedule, eps, xt, t, "eps", "v")  # E24
        value, gradient = cores.loss_and_gradient(loss, network, xt, t, v)
        nn.clip_by_global_norm(gradient, 1.0)
        optimiser.step(gradient)
        average.update()
        yield float(value)


def generate(network, schedule, shape, cores, rng, steps=100):
    """Algorithm 2 over `steps` of the T timesteps, in the form that can clip x_0. (E29, E32)"""

    def denoise(xt, t):
        v = cores.map(lambda network, xt, t: network(xt, t), network, xt, np.full(len(xt), t))
        return x0_from(schedule, "v", v, xt, t)  # E24

    def noise(t):
        return rng.standard_normal(shape, dtype=np.float32)

    return sample(denoise, schedule.respace(steps), noise(schedule.T), noise, clip=(-1, 1))


def main(arguments):
    rng, schedule = np.random.default_rng(0), NoiseSchedule.cosine(1000)
    images = to_model(load_data(arguments.data).train.images)  # (N, H, W, C) in [-1, 1]
    network = UNet(UNetConfig(images.shape[-1], arguments.width, (1, 2, 2), T=schedule.T))
    average = nn.EMA(network.parameters(), decay=0.999)
    cores = nn.Parallel(shard=8)  # splits a batch into shards of 8 images, over all cores

    start, losses = time.monotonic(), []
    for value in train(network, average, schedule, images, cores, rng):
        losses.append(value)
        if len(losses) % 50 == 0:
            print(f"step {len(losses)}, loss {np.mean(losses[-50:]):.4f}", flush=True)
        if time.monotonic() - start >= 60 * arguments.minutes:
            break

    average.swap()  # sample with the averaged weights
    drawn = from_model(generate(network, schedule, (arguments.n, *images.shape[1:]), cores, rng, arguments.steps))
    Image.fromarray(np.concatenate(list(drawn), axis=1)).save(arguments.out)
    print(f"{arguments.n} images in {arguments.out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="how long to train (default 3)")
    parser.add_argument("--data", default="auto", help="a name or a path, as `tinyddpm.load_data` takes it")
    parser.add_argument("--width", type=int, default=16, help="channels of the network at full size (default 16)")
    parser.add_argument("--steps", type=int, default=100, help="timesteps to visit when sampling (default 100)")
    parser.add_argument("--n", type=int, default=16, help="images to draw, in a row (default 16)")
    parser.add_argument("--out", type=Path, default=Path("ddpm.png"))
    main(parser.parse_args())
