"""Learn a noise schedule: the bound keeps its value, and its estimate varies less. (E35)

    python demo/learned_schedule.py
    python demo/learned_schedule.py --out out --size 0.05

In continuous time the bound depends on the ends of the schedule only (Kingma et al. 2021). The curve between them is
free, so it is chosen for a small variance of the estimate. The data are Gaussian, with a spectrum like that of
images. Their ideal denoiser is known, so nothing but the schedule is learned here. --size scales the steps of training
and the number of samples; 1 takes about ten seconds.
"""

import argparse
from pathlib import Path

import numpy as np

import nn
from tinyddpm.theory.continuous import diffusion_loss, stratified_times
from tinyddpm.theory.log_snr import CosineLogSNR, LearnedLogSNR, LinearLogSNR, signal_and_sigma

HIGH, LOW = 10.0, -8.0
VARIANCES = 1 / np.arange(1, 33) ** 2.0  # of the data, one a dimension
rng = np.random.default_rng(0)


def ideal_denoiser(z, log_snr):
    """E[x_0 | z], in each dimension by Bayes; log_snr (N,), an array or a tensor."""
    signal, sigma = signal_and_sigma(log_snr.reshape(-1, 1))
    return signal * VARIANCES / (signal**2 * VARIANCES + sigma**2) * z


def estimates(schedule, n):
    """n estimates of the bound, each from one time and one noise, in nats."""
    x0, noise = rng.standard_normal((2, n, len(VARIANCES)))
    return diffusion_loss(schedule, ideal_denoiser, x0 * VARIANCES**0.5, stratified_times(n, rng), noise)


def learn(steps, pieces=24, batch=256):
    """A schedule of straight pieces, trained to lower the mean square of the estimates."""
    weights = nn.tensor(np.ones(pieces), requires_grad=True)
    optimiser = nn.Adam([weights], nn.rates.cosine(0.1, steps))
    for _ in range(steps):
        loss = (estimates(LearnedLogSNR(HIGH, LOW, weights), batch) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return LearnedLogSNR(HIGH, LOW, weights.data)


def slope_by_nn(schedule, u):
    """d log_snr/du at u (N,), by nn's differentiation: what to use for a schedule without a formula for its slope."""
    u = nn.tensor(u, requires_grad=True)
    (slope,) = nn.gradients(schedule(u).sum(), [u])  # log_snr at one time depends on that time alone
    return slope


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
    parser.add_argument("--size", default=1.0, type=float, help="share of 1500 steps and 200,000 samples (default 1)")
    arguments = parser.parse_args()
    learned = learn(max(1, round(1500 * arguments.size)))
    schedules = {"linear": LinearLogSNR(HIGH, LOW), "cosine": CosineLogSNR(HIGH, LOW), "learned": learned}
    exact = 0.5 * np.log((1 + VARIANCES * np.exp(HIGH)) / (1 + VARIANCES * np.exp(LOW))).sum()
    print(f"exact (the diffusion part of the bound): {exact:.3f} nats\n")
    print("schedule     mean   variance of one estimate")
    for name, schedule in schedules.items():
        values = estimates(schedule, max(2, round(200_000 * arguments.size)))
        print(f"{name:8} {values.mean():8.3f} {values.var():10.1f}")
    u = (np.arange(9) + 0.3) / 9  # none at the end of a piece, where the slope jumps
    print(f"\nslope of the learned schedule, by nn's differentiation: {slope_by_nn(learned, u).round(1)}")
    print(f"and by its formula, which can itself be differentiated: {learned.slope(u).round(1)}")
    draw(schedules, arguments.out / "learned_schedule.png")


if __name__ == "__main__":
    main()
