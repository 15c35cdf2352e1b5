"""A trained model as an instrument: inpainting, interpolation, guidance judged, progressive coding, conditioning.

Each is a short function on public names. `denoise(xt, t) -> x0_hat` is a model, such as `model.denoiser(labels)` or an
`Oracle`'s; `schedule` is `model.schedule` or `model.visited(steps)`; `noise(t)` gives standard normals like x, and
`draw()` new ones at each call. On Gaussian data every one has an exact answer, which the tests hold it to.
"""

import numpy as np

import nn
import tinyddpm as td
from tinyddpm.bound import prior_term, step_kl
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.reverse import predict_x0
from tinyddpm.samplers import ddim_encode

# ==== inpainting ====


def inpainting(x0, seen, draw, repeats=1, variance="beta_tilde"):
    """A sampler's step that keeps the seen elements of x0, and draws the others. (Lugmayr et al. 2022, "RePaint")

    x0: (N, ...), N the samples of the chain. seen: booleans that broadcast over x0. The step replaces the seen part of
    x_{t-1} by x0 noised to t - 1. What the model drew beside it does not know that. So the step noises the result to t
    again and repeats, `repeats` times in all: the parts come to agree. Goes wherever a sampler does: `td.sample(...,
    step=...)`, `model.sample(..., sampler=...)`.
    """

    def down(denoise, schedule, xt, t):
        p = td.ancestral_step(denoise, schedule, xt, t, variance)
        missing = p.sample(draw()) if t > 1 else p.mean
        return np.where(seen, td.q_sample(schedule, x0, t - 1, draw()), missing)

    def step(denoise, schedule, xt, t):
        x_prev = down(denoise, schedule, xt, t)
        for _ in range(repeats - 1 if t > 1 else 0):
            x_prev = down(denoise, schedule, td.q_step(schedule, x_prev, t, draw()), t)
        return td.Gaussian(x_prev, 0.0)

    return step


def law_of(method, d):
    """The mean (d,) and covariance (d, d) of method(draw) -> (N, d), exactly, for a method that is affine in its noises.

    It is run once with all noises 0, and once with a sample for each noise, in which that one is 1 and the others are 0.
    """
    calls = 0

    def zeros():
        nonlocal calls
        calls += 1
        return np.zeros((1, d))

    mean = method(zeros)
    units = iter(np.eye(calls * d).reshape(-1, calls, d).swapaxes(0, 1))
    response = method(lambda: next(units)) - mean
    return mean[0], response.T @ response


# ==== interpolation ====


def slerp(a, b, weight):
    """The point at `weight` in [0, 1] of the great circle from a to b, sample by sample. a, b: (N, ...).

    Noise of many dimensions has a length near sqrt(d). A mean of two noises is shorter, and looks like no noise.
    """
    weight, axes = float(weight), tuple(range(1, a.ndim))  # a np.float64 would make float32 data float64
    lengths = ((a**2).sum(axes, keepdims=True) * (b**2).sum(axes, keepdims=True)) ** 0.5
    angle = np.arccos(((a * b).sum(axes, keepdims=True) / lengths).clip(-1, 1)).clip(1e-4)
    return (np.sin((1 - weight) * angle) * a + np.sin(weight * angle) * b) / np.sin(angle)


def interpolate(denoise, schedule, a, b, weights, clip=None):
    """For each weight x_0 between a and b: encoded by DDIM, mixed on a great circle, decoded. (Song et al. 2020; E30)"""
    codes = [ddim_encode(denoise, schedule, x) for x in (a, b)]
    return [td.sample(denoise, schedule, slerp(*codes, weight), None, td.ddim_step, clip) for weight in weights]


def first_steps(schedule, t):
    """The schedule of the first t steps of a schedule: what leads from x_t to x_0."""
    return td.NoiseSchedule(schedule.beta[: t + 1], schedule.timesteps[: t + 1], schedule.alpha[: t + 1])


def interpolate_at(denoise, schedule, a, b, weights, t, noise, clip=None):
    """For each weight x_0 between a and b: both noised to t, mixed on a line, drawn from there. (Ho et al. 2020, section 4.4)

    Both get one noise, and so do all weights: the mean of two *different* noises would have half the variance that the
    model expects at t. More t changes more: small t keeps the mean of the two pictures, T forgets both.
    """
    xt_a, xt_b = (td.q_sample(schedule, x, t, noise(schedule.T + 1)) for x in (a, b))
    lower = first_steps(schedule, t)
    return [td.sample(denoise, lower, (1 - w) * xt_a + w * xt_b, noise, clip=clip) for w in map(float, weights)]


# ==== guidance ====


def precision_recall(real, drawn, k=3):
    """How many drawn samples lie among the real ones, and how many real ones among the drawn. (Kynkaanniemi et al. 2019)

    real, drawn: (N, ...), floats. A sample lies among others if it is nearer to one of them than that one's k-th
    neighbour. Here distances are between the numbers as they are; the paper takes features of a network.
    """
    real, drawn = (x.reshape(len(x), -1) for x in (real, drawn))

    def squares(x, y):
        return (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T

    def share(x, among):
        radius = np.sort(squares(among, among), axis=1)[:, k]  # entry 0 is the sample itself
        return float((squares(x, among) <= radius).any(1).mean())

    return share(drawn, real), share(real, drawn)


# ==== progressive coding ====


def progressive(denoise, schedule, x0, noise, clip=None, decoder=discretised_log_prob):
    """Send x_0 as x_T, x_{T-1}, ...: yields (t, nats (N,) sent so far, x0_hat (N, ...)) for t = T..0. (E41)

    What is sent for x_{t-1} is a draw from q(x_{t-1} | x_t, x_0). The receiver expects p(x_{t-1} | x_t), so it costs
    their KL divergence. x0_hat is the picture that the receiver has after x_t. At t = 0 x_0 itself was sent, and the sum
    is the bound of E14. decoder: as in `td.variational_bound`. (Ho et al. 2020, section 4.3)
    """
    x, rate = td.q_sample(schedule, x0, schedule.T, noise(schedule.T)), prior_term(schedule, x0)
    for t in range(schedule.T, 0, -1):
        x0_hat = predict_x0(denoise, schedule, x, t, clip)
        yield t, rate, x0_hat
        if t > 1:
            rate = rate + step_kl(schedule, x0, x0_hat, t)
            x = td.q_posterior(schedule, x0, x, t).sample(noise(t - 1))
    yield 0, rate - decoder(td.p_mean_variance(schedule, x0_hat, x, 1), x0), x0


# ==== conditioning on anything of x_0's height and width, here a smaller image ====


class Conditioned(nn.Module):
    """network(x, t) that is shown the condition beside x: it takes the channels of both, and the first answer for x."""

    def __init__(self, network):
        self.network = network

    def __call__(self, x, t, condition):
        return self.network(nn.concatenate([x, condition]), t)[..., : x.shape[-1]]


def learn(network, schedule, pairs, steps, batch=32, learning_rate=2e-3, seed=0, workers=None, progress=iter):
    """Train network(x, t, condition) to predict v. pairs(rng, n) -> x0, condition: float32 arrays of n samples.

    The only change from the training without a condition: one more argument. Returns the losses; the network gets the
    average of its weights.
    """
    rng, cores, losses = np.random.default_rng(seed), nn.Parallel(workers), []
    optimiser = nn.Adam(network.parameters(), nn.rates.warmup(nn.rates.cosine(learning_rate, steps), min(50, steps)))
    average = nn.EMA(network.parameters(), 0.99)
    for _ in progress(range(steps)):
        x0, condition = pairs(rng, batch)
        t, noise = rng.integers(1, schedule.T + 1, size=batch), rng.standard_normal(x0.shape, dtype=np.float32)
        xt = td.q_sample(schedule, x0, t, noise)
        target = td.convert(schedule, noise, xt, t, "eps", "v")
        loss, gradient = cores.loss_and_gradient(conditioned_loss, network, xt, t, condition, target)
        nn.clip_by_global_norm(gradient, 1.0)
        optimiser.step(gradient)
        average.update()
        losses.append(float(loss))
    average.swap()
    return losses


def conditioned_loss(network, xt, t, condition, target):
    return nn.mse(network(nn.Tensor(xt), t, nn.Tensor(condition)), target)


def conditioned_denoiser(network, schedule, condition):
    """denoise(xt, t) -> x0_hat of a network that `learn` trained, given the condition of each sample."""

    def denoise(xt, t):
        t = np.broadcast_to(t, len(xt))
        with nn.no_grad():
            v = network(nn.Tensor(xt), t, nn.Tensor(condition)).data
        return td.x0_from(schedule, "v", v, xt, t)

    return denoise


def enlarged(images, factor=2):
    """Floats (N, H, W, C) with every pixel factor x factor times: a small image as the condition of a large one."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)
