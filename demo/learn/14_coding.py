# %% [markdown]
"""
# 14. How many bits does a picture take, and what do they buy?

A model that says how likely a picture is can also send it: what is likely gets a short code. The bound of lesson 4 is the
length of such a code, and it comes in parts. So we can stop listening in the middle, and look at what has arrived.
"""

# %%
import inspect
from pathlib import Path

import instrument
import matplotlib.pyplot as plt
import numpy as np
from instrument import progressive
from lesson import show, small

import nn
import tinyddpm as td
from tinyddpm.program.plots import grid
from tinyddpm.theory.continuous import at_log_snr
from tinyddpm.theory.flow import flow_log_prob, noised_nll
from tinyddpm.theory.mixture import gaussian_data
from tinyddpm.theory.oracle import Oracle

page = Path(inspect.getfile(instrument)).parents[1] / "page"
model = td.load(page / "digits.npz")  # MNIST at 14x14, ten minutes of training
images = np.load(page / "examples.npy")  # a test image of each digit
x0 = model.x0(images)
rng, schedule = np.random.default_rng(0), model.visited(small(1000, 25))

# %% [markdown]
# ## A picture in parts
#
# Send x_T, then x_{t-1} given x_t, down to x_0. The receiver expects p(x_{t-1} | x_t), the sender has a draw from
# q(x_{t-1} | x_t, x_0), and their KL divergence is what that part costs (E41). After each part the receiver knows x0_hat.

# %%
print(inspect.getsource(progressive))


def noise(t):
    return model.noise(0, "sampler", t, np.arange(10))


with nn.constant_weights():
    parts = list(progressive(model.denoiser(), schedule, x0, noise, clip=(-1, 1)))
t = schedule.timesteps[[t for t, _, _ in parts]]
rate = np.array([td.bits_per_dim(nats, 196).mean() for _, nats, _ in parts])
error = np.array([127.5 * ((x0 - x0_hat) ** 2).mean() ** 0.5 for _, _, x0_hat in parts])
chosen = np.searchsorted(rate, np.array([0.0, 0.05, 0.1, 0.25, 0.5, 1.0]) * rate[-2])
for i in (*chosen, -1):
    print(f"t = {t[i]:4}: {rate[i]:.3f} bits/dim sent, the root mean square error is {error[i]:5.1f} of 255")
assert (np.diff(rate) >= 0).all() and error[chosen[3]] < error[0] / small(2, 1)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), width_ratios=(1, 1.15))
left.plot(rate[:-1], error[:-1])
left.plot(rate[chosen], error[chosen], "o", color="C1")
left.set(xlabel="bits/dim sent", ylabel="root mean square error, of 255", title="rate and distortion", ylim=(0, None))
right.imshow(grid(np.concatenate([model.pictures(parts[i][2]) for i in chosen]), 10), cmap="gray", vmin=0, vmax=255)
right.set(xticks=[], yticks=24 + 48 * np.arange(len(chosen)), yticklabels=[f"{rate[i]:.2f} bits/dim" for i in chosen])
right.tick_params(length=0)
right.spines[:].set_visible(False)
show(fig)

# %% [markdown]
# *What are most bits spent on?* On what nobody sees. A quarter of them makes the digits readable, and the rest says the exact
# grey of each pixel. So a model may have good bits/dim and poor pictures, and the other way round.
#
# ## The least that any code can do
#
# Shannon: to send numbers of variance V with a mean square error D takes log(V/D)/2 nats each, if they are Gaussian. An ideal
# model in very many steps needs no more. With T steps it needs a little more, and the excess falls like 1/T.

# %%
V, excess = 0.25, []
for T in (100, 200, 400):
    chain, t = td.NoiseSchedule.cosine(T), T // 4
    left = V * chain.one_minus_alpha_bar / (chain.alpha_bar * V + chain.one_minus_alpha_bar)  # E (x_0 - x0_hat)^2 at t
    prior = (chain.alpha_bar[T] * (V - 1) - chain.log_one_minus_alpha_bar[T]) / 2  # L_T
    nats = prior + ((chain.snr[t:T] - chain.snr[t + 1 :]) * left[t + 1 :]).sum() / 2  # and the KLs (E19)
    excess.append(nats - np.log(V / left[t]) / 2)
    print(f"T = {T}: {nats:.4f} nats sent, {excess[-1]:.4f} more than the least for that error")
assert all(1.8 < more / less < 2.2 for more, less in zip(excess, excess[1:], strict=False))

# %% [markdown]
# ## How likely is a picture?
#
# The bound is one answer. The flow of lesson 9 is another (E42). It gives the density p(x_1), so it sends x_1 in
# log q(x_1 | x_0) - log p(x_1) nats, in the place of all the steps down to x_1. Then both send x_0 in L_0 nats. For Gaussian
# data the sum is -log p(x_0) itself, whatever the noise in x_1:

# %%
data, chain = gaussian_data(np.zeros(4), np.full(4, V)), td.NoiseSchedule.cosine(1000)
oracle, (high, low) = Oracle(data, chain), chain.log_snr[[1, -1]]
x, eps = data.sample(rng, 5), rng.standard_normal((5, 4))
denoise = at_log_snr(oracle.denoise, chain)
by_flow = noised_nll(lambda z: flow_log_prob(denoise, z, high, low, small(100, 50)), x, high, eps)
by_flow = by_flow - oracle.posterior(td.q_sample(chain, x, 1, eps), 1, 0).log_prob(x)  # and L_0
print("-log p(x_0) by the flow", by_flow.round(3))
print("            closed form", -data.log_prob(x).round(3))
assert abs(by_flow + data.log_prob(x)).max() < 0.01

# %% [markdown]
# For a network the divergence is estimated from random signs, and its error is told:

# %%
found = model.likelihood(images, steps=small(40, 4), draws=small(200, 4), progress=lambda x, **_: x)
print(found)
assert abs(found.total - found.bound.total) < small(0.3, 5)

# %% [markdown]
# *Which of the two do I compare with a paper's?* The one of the same kind. Both are bounds for pictures, whose pixels have
# levels. Many papers spread each pixel evenly over the bin of its level ("dequantised"), and take the density there: a bound
# again, and a different number (exercise 3). Then a paper should say how many images it had. These are ten.
#
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/14.py`.)
#
# 1. `rates(prior, kl)`: nats sent when x_t has arrived, a table (T + 1,) with rows 1..T; row 0 is 0. prior: L_T. kl: (T + 1,),
#    with the cost of x_{t-1} given x_t in row t = 2..T. Then `check(14, 1, rates)`.
# 2. `least_bits(V, D)`: bits a number that any code needs for Gaussian numbers of variance V with a mean square error D.
#    Then `check(14, 2, least_bits)`.
# 3. `bits_of_density(log_p, d, levels)`: bits/dim, where log_p is the mean of log p over the bins of a picture's d values,
#    whose levels are evenly spaced from -1 to 1. Then `check(14, 3, bits_of_density)`.
