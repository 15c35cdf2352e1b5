# %% [markdown]
"""
# 6. How does a network learn to draw two moons in thirty seconds?

All of a diffusion model in one file, by hand: data with two numbers a sample, a small network on `nn`, a loss, and a
sampler. Nothing here is hidden in a trainer. Lesson 7 changes the data and the network, and nothing else.
"""

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import nn
import tinyddpm as td
from tinyddpm.program.features import timestep_embedding
from tinyddpm.theory.mixture import mixture_data
from tinyddpm.theory.oracle import Oracle

rng = np.random.default_rng(0)

# %% [markdown]
# ## The data
#
# Two half circles of 50 narrow Gaussians each, scaled to mean 0 and variance near 1. A mixture of Gaussians has a known
# density, and its diffusion has one too. So we shall see how far from the best possible the network ends.

# %%
angle = np.linspace(0, np.pi, 50)
upper, lower = np.stack([np.cos(angle), np.sin(angle)], 1), np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
centres = np.concatenate([upper, lower])
centres = (centres - centres.mean(0)) / centres.std(0)
moons = mixture_data(np.full(100, 1 / 100), centres, 0.01)
x0 = moons.sample(rng, 5000).astype(np.float32)  # (5000, 2)
assert abs(x0.mean(0)).max() < 0.05 and abs(x0.var(0) - 1).max() < 0.05

# %% [markdown]
# ## The network
#
# It sees x_t and t, and answers with two numbers. t enters as sines and cosines of t at 16 frequencies, because a network
# that is given the number t itself can hardly tell t = 3 from t = 4. The last layer starts at 0, so the first answer is 0.


# %%
class Network(nn.Module):
    def __init__(self, width=128, rng=rng):
        self.layers = [nn.Linear(inputs, width, rng=rng) for inputs in (2 + 32, width, width)]
        self.last = nn.Linear(width, 2, rng=rng, zero=True)

    def __call__(self, x, t):
        h = nn.concatenate([x, nn.Tensor(timestep_embedding(t, 32, T=schedule.T))])
        for layer in self.layers:
            h = nn.silu(layer(h))
        return self.last(h)


schedule, network = td.NoiseSchedule.cosine(100), Network()
parameters = network.parameters()
print(f"{sum(p.size for p in parameters):,} parameters")

# %% [markdown]
# ## The loss
#
# Draw x_0, t and noise. Make x_t in one jump (E2). Ask the network for v = signal eps - noise x_0 (E24), and take the mean
# squared error (E23). `convert` turns one kind of prediction into another; given x_t they all say the same.
#
# *Why v, and not eps?* Where x_t is nearly all noise, eps is nearly x_t itself and says little about x_0. Its error is
# divided by a small signal on the way to x_0. v is good at both ends. Try "eps" in the cell below, and change one line more.


# %%
def batch_of(n):
    """x_t, t, and the v that the network should answer."""
    x, t = x0[rng.integers(len(x0), size=n)], rng.integers(1, schedule.T + 1, size=n)
    noise = rng.standard_normal(x.shape, dtype=np.float32)
    xt = td.q_sample(schedule, x, t, noise)
    return xt, t, td.convert(schedule, noise, xt, t, "eps", "v")


def denoise(xt, t):
    """The network as every sampler here takes it: x_0 from x_t and t."""
    t = np.broadcast_to(t, len(xt))
    with nn.no_grad():
        v = network(nn.Tensor(xt), t).data
    return td.x0_from(schedule, "v", v, xt, t)


def draw(n):
    """n points from noise, by Algorithm 2 of Ho et al. 2020."""
    noise = np.random.default_rng(1)
    x_T = noise.standard_normal((n, 2), dtype=np.float32)
    return td.sample(denoise, schedule, x_T, lambda t: noise.standard_normal(x_T.shape, dtype=np.float32))


# %% [markdown]
# ## Thirty seconds

# %%
steps, points = small(4000, 500), small(2000, 500)
optimiser, average = nn.Adam(parameters, nn.rates.cosine(3e-3, steps)), nn.EMA(parameters, 0.99)
drawn, losses, start = {0: draw(points)}, [], time.monotonic()
for step in range(1, steps + 1):
    xt, t, v = batch_of(256)
    loss = nn.mse(network(nn.Tensor(xt), t), v)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    average.update()
    losses.append(loss.item())
    if step in (steps // 20, steps):
        average.swap()  # the mean of the last weights is steadier than the last weights
        drawn[step] = draw(points)
        average.swap()
print(f"{steps} steps, {time.monotonic() - start:.0f} s; loss {losses[0]:.3f}, at the end {np.mean(losses[-100:]):.3f}")
assert abs(losses[0] - np.mean(v**2)) < 0.2  # the answer 0 has the variance of v for its loss: near 1

# %%
fig, axes = plt.subplots(1, len(drawn) + 1, figsize=(11, 2.9), sharex=True, sharey=True)
for ax, (step, found) in zip(axes, drawn.items(), strict=False):
    ax.scatter(*found.T, s=2, alpha=0.4, color="#30638e")
    ax.set(title=f"after {step} steps", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
axes[-1].scatter(*x0[:points].T, s=2, alpha=0.4, color="#d1495b")
axes[-1].set(title="data", aspect="equal")
show(fig)

# %% [markdown]
# ## How good is it?
#
# The density of the data is known, so ask it: how likely would the data be to give these points? Points off the moons pay
# dearly. It does not see a moon that is missing, so count the moons too.

# %%
score = {step: moons.log_prob(x.astype(np.float64)).mean() for step, x in drawn.items()}
on_upper = np.mean([abs(p - centres[:50]).sum(1).min() < abs(p - centres[50:]).sum(1).min() for p in drawn[steps]])
print("mean log density:", *(f"{s:.2f} after {n}," for n, s in score.items()), f"data {moons.log_prob(x0).mean():.2f}")
print(f"{on_upper:.0%} of the points are on the upper moon; half of the data are")
assert score[steps] > score[0] + small(10, 5) and abs(on_upper - 0.5) < small(0.05, 0.15)

# %% [markdown]
# ## Why does the loss stop falling?
#
# Because x_t does not determine x_0. The best answer is the mean of all x_0 that x_t may come from, and their variance
# remains as the loss. For these data the best model is known: an `Oracle`. A network can come near its loss, not below.

# %%
average.swap()
xt, t, v = batch_of(4000)
x0_hats = denoise(xt, t), Oracle(moons, schedule).denoise(xt, t)
found, best = (np.mean((td.from_x0(schedule, "v", x0_hat, xt, t) - v) ** 2) for x0_hat in x0_hats)
print(f"loss of the network {found:.3f}, of the best model there can be {best:.3f}")
assert best < found < small(1.15, 1.6) * best

# %% [markdown]
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/06.py`.)
#
# 1. `v_target(alpha_bar, x0, noise, t)`: v for t of shape (N,) and x0, noise of shape (N, 2), where all you have is the
#    table alpha_bar. Then `check(6, 1, v_target)`.
# 2. `timesteps(rng, n, T)`: n timesteps, each of 1..T equally often in the mean. Then `check(6, 2, timesteps)`.
# 3. `energy_distance(x, y)`: 2 E|x - y| - E|x - x'| - E|y - y'| of two sets of points (N, 2), which is 0 for equal sets
#    alone, and sees a missing moon too. Then `check(6, 3, energy_distance)`.
