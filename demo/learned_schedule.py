"""Learn a noise schedule: the bound keeps its value, and its estimate varies less. (E35)

    python demo/learned_schedule.py [--out out]

In continuous time the bound knows the ends of the schedule only (Kingma et al. 2021), so what lies between
is free to be chosen for a small variance. Data are Gaussian with a spectrum like that of images; their ideal
denoiser is known, so nothing here but the schedule is learned. Takes some seconds.
"""

import argparse
from pathlib import Path

import numpy as np

import nn
from tinyddpm.theory.continuous import CosineLogSNR, LearnedLogSNR, LinearLogSNR, diffusion_loss, signal_and_noise

HIGH, LOW = 10.0, -8.0
VARIANCES = 1 / np.arange(1, 33) ** 2.0  # of the data, one a dimension
rng = np.random.default_rng(0)


def ideal_denoiser(z, log_snr):
    """E[x_0 | z], in each dimension by Bayes; log_snr (N,), an array or a tensor."""
    signal, noise = signal_and_noise(log_snr.reshape(-1, 1))
    return signal * VARIANCES / (signal**2 * VARIANCES + noise**2) * z


def estimates(schedule, n):
    """n one-sample estimates of the bound, in nats, at times spread evenly from one random start."""
    u = (rng.random() + np.arange(n) / n) % 1
    x0, noise = rng.standard_normal((2, n, len(VARIANCES)))
    return diffusion_loss(schedule, ideal_denoiser, x0 * VARIANCES**0.5, u, noise)


def learn(pieces=24, steps=1500, batch=256):
    """A schedule of straight pieces, trained to lower the mean square of the estimates."""
    weights = nn.tensor(np.ones(pieces), requires_grad=True)
    optimiser = nn.Adam([weights], nn.rates.cosine(0.1, steps))
    for _ in range(steps):
        loss = (estimates(LearnedLogSNR(HIGH, LOW, weights), batch) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LearnedLogSNR(HIGH, LOW, weights.data)


def draw(schedules, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    u = np.linspace(0, 1, 500)
    for name, schedule in schedules.items():
        pyplot.plot(u, schedule(u), label=name)
    pyplot.xlabel("time u")
    pyplot.ylabel("log-SNR")
    pyplot.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(path, dpi=120)
    print(path)


def main():
    parser = argparse.ArgumentParser(description="Learn a noise schedule (E35).")
    parser.add_argument("--out", default="out", type=Path, help="where the figure goes (default out)")
    arguments = parser.parse_args()
    schedules = {"linear": LinearLogSNR(HIGH, LOW), "cosine": CosineLogSNR(HIGH, LOW), "learned": learn()}
    exact = 0.5 * np.log((1 + VARIANCES * np.exp(HIGH)) / (1 + VARIANCES * np.exp(LOW))).sum()
    print(f"exact (the diffusion part of the bound): {exact:.3f} nats\n")
    print("schedule     mean   variance of one estimate")
    for name, schedule in schedules.items():
        values = estimates(schedule, 200_000)
        print(f"{name:8} {values.mean():8.3f} {values.var():10.1f}")
    draw(schedules, arguments.out / "learned_schedule.png")


if __name__ == "__main__":
    main()
