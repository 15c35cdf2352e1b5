"""Diffusion of points in the plane, learned while one looks: the data, the network, and the training."""

import math
import time

import numpy as np

import nn
from tinyddpm import convert, ddim_step, named_schedule, q_sample, reverse_process, x0_from
from tinyddpm.loss import stratified_timesteps
from tinyddpm.prediction import score_from_x0
from tinyddpm.program.features import timestep_embedding

T, BATCH, SHOWN, VISITED, GRID = 100, 256, 400, 20, 13


# ==== data: (n, 2) within about [-1, 1] ====


def moons(rng, n):
    """Two half circles that hook into each other."""
    upper, angle = rng.random(n) < 0.5, np.pi * rng.random(n)
    x, y = np.where(upper, np.cos(angle), 1 - np.cos(angle)), np.where(upper, np.sin(angle), 0.5 - np.sin(angle))
    return np.stack([(x - 0.5) / 1.5, (y - 0.25) / 1.0], axis=1) * 0.9 + 0.04 * rng.standard_normal((n, 2))


def spiral(rng, n):
    """An arm that turns twice."""
    u = np.sqrt(rng.random(n))
    angle = 4 * np.pi * u
    return u[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.02 * rng.standard_normal((n, 2))


def drawn(cells, side):
    """A function like `moons`, for a drawing: points anywhere in the cells with ink, `side` to a row."""
    inked = np.flatnonzero(cells)
    if not len(inked):
        raise ValueError("draw something first: there is no ink")

    def points(rng, n):
        row, column = np.divmod(rng.choice(inked, n), side)
        x, y = column + rng.random(n), side - row - rng.random(n)
        return 2 * np.stack([x, y], axis=1) / side - 1

    return points


# ==== the network ====


class Network(nn.Module):
    """network(x, t): x (N, 2), t (N,) integers in 1..T; like x. Three layers, the first of which is told t."""

    def __init__(self, width=64, seed=0):
        rng = np.random.default_rng(seed)
        self.width = width
        self.place = nn.Linear(2, width, rng=rng)
        self.time = nn.Linear(width, width, rng=rng)
        self.hidden = [nn.Linear(width, width, rng=rng) for _ in range(2)]
        self.last = nn.Linear(width, 2, rng=rng)

    def __call__(self, x, t):
        h = self.place(3 * x) + self.time(nn.Tensor(timestep_embedding(t, self.width, T)))
        for layer in self.hidden:
            h = layer(nn.silu(h))
        return self.last(nn.silu(h))


class Learner:
    """A network on its way, and what it is learning."""

    def __init__(self):
        self.network = Network()
        self.optimiser = nn.Adam(self.network.parameters(), learning_rate=3e-3)
        self.rng = np.random.default_rng(0)

    def learn(self, data, schedule, prediction):
        """What it learns from now on. data: a function (rng, n) -> (n, 2)."""
        self.data, self.schedule, self.prediction = data, schedule, prediction

    def step(self):
        """One step of Algorithm 1: the loss."""
        x0 = self.data(self.rng, BATCH).astype(np.float32)
        t, _ = stratified_timesteps(T, BATCH, self.rng)
        noise = self.rng.standard_normal(x0.shape, dtype=np.float32)
        xt = q_sample(self.schedule, x0, t, noise)
        target = convert(self.schedule, noise, xt, t, "eps", self.prediction)
        loss = nn.mse(self.network(nn.Tensor(xt), t), target)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.data)

    def denoise(self, xt, t):
        """The x_0 that the network takes x_t for, clipped to where the data lie."""
        with nn.no_grad():
            output = self.network(nn.Tensor(xt), np.broadcast_to(t, len(xt))).data
        return x0_from(self.schedule, self.prediction, output, xt, t).clip(-1.5, 1.5)

    def flow(self, n=SHOWN):
        """The DDIM chain of n points, noise first, and the score on a grid at each step that it visits."""
        x = np.random.default_rng(1).standard_normal((n, 2), dtype=np.float32)
        chain = self.schedule.respace(VISITED)
        path = [x, *(x for _, x, _ in reverse_process(self.denoise, chain, x, lambda t: None, ddim_step))]
        side = np.linspace(-1.8, 1.8, GRID, dtype=np.float32)
        grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
        scores = [score_from_x0(self.schedule, self.denoise(grid, t), grid, t) for t in chain.timesteps[:0:-1].tolist()]
        return {"path": np.stack(path).ravel(), "scores": np.stack(scores).ravel(), "t": chain.timesteps[::-1].tolist()}


_learner = None  # kept, so that training can go on


def train(fresh, data, schedule, prediction, cells=(), side=1, every=0.8):
    """Steps of training, forever. Every so many seconds the losses since, and the flow as it is now."""
    global _learner
    if fresh or _learner is None:
        _learner = Learner()
    chosen = drawn(np.array(cells), side) if data == "drawn" else {"moons": moons, "spiral": spiral}[data]
    _learner.learn(chosen, named_schedule(schedule, T), prediction)
    yield {"data": chosen(np.random.default_rng(2), SHOWN).astype(np.float32).ravel(), "losses": [], **_learner.flow()}
    while True:
        losses, began = [], time.perf_counter()
        while (seconds := time.perf_counter() - began) < every:
            losses.append(_learner.step())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError("the loss is not finite any more")
        yield {"losses": losses, "seconds": seconds / len(losses), **_learner.flow()}
