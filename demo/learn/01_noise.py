# %% [markdown]
"""
# 1. How does an image turn into noise, step by step and in one jump?

A diffusion model learns to undo a process that destroys data. The process has no parameters, and this lesson is
about it alone. Data are scaled to [-1, 1], so that their variance is near 1.
"""

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from lesson import digits, show

import tinyddpm as td
from tinyddpm.data.images import to_model
from tinyddpm.prediction import x0_from_eps

schedule = td.NoiseSchedule.linear(1000)  # beta_1..beta_T on a line from 0.0001 to 0.02, as Ho et al. 2020 have it
rng = np.random.default_rng(0)
data = digits()
x0 = to_model(data.test.images[:3]).astype(np.float64)  # (3, 28, 28, 1)

# %% [markdown]
# ## One step
#
# A step shrinks x a little and adds a little noise (E1):
#
#     x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) noise
#
# In the project this is a distribution, and a draw from it:

# %%
print(inspect.getsource(td.q_transition))
print(inspect.getsource(td.q_step))

# %% [markdown]
# A thousand steps turn an image into noise. The noise of every step is kept, because we shall need it.

# %%
noises = [rng.standard_normal(x0.shape) for _ in range(schedule.T + 1)]  # entry t belongs to step t; entry 0 is unused
walk = [x0]
for t in range(1, schedule.T + 1):
    walk.append(td.q_step(schedule, walk[-1], t, noises[t]))

print(f"x_T has mean {walk[-1].mean():+.3f} and variance {walk[-1].var():.3f}")
assert abs(walk[-1].mean()) < 0.1 and abs(walk[-1].var() - 1) < 0.1

# %% [markdown]
# *Why shrink?* Without the factor sqrt(1 - beta_t) the variances of the noises would pile up, and a network would see
# inputs of another size at every t. With it, data of variance 1 keep the variance 1 at every step.

# %%
variance, piled_up = 1.0, 1.0
for t in range(1, schedule.T + 1):
    variance = (1 - schedule.beta[t]) * variance + schedule.beta[t]
    piled_up = piled_up + schedule.beta[t]
print(f"after {schedule.T} steps: variance {variance:.6f}; without the factor {piled_up:.2f}")
assert abs(variance - 1) < 1e-12 and abs(piled_up - 11.05) < 1e-9

# %% [markdown]
# ## One jump
#
# Sums of Gaussians are Gaussian. So the noises of t steps are *one* noise, and x_t comes from x_0 in one jump (E2, E4):
#
#     x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,      alpha_bar_t = product of (1 - beta_s), s = 1..t
#
# Solve it for eps: the total noise in x_t. It is standard normal, whatever t is.

# %%
t = 400
eps = (walk[t] - schedule.alpha_bar[t] ** 0.5 * x0) / schedule.one_minus_alpha_bar[t] ** 0.5
print(f"the total noise in x_{t}: mean {eps.mean():+.3f}, variance {eps.var():.3f}")
assert abs(eps.mean()) < 0.1 and abs(eps.var() - 1) < 0.1
assert np.allclose(td.q_sample(schedule, x0, t, eps), walk[t])  # the jump lands where the walk did

# %% [markdown]
# Training needs x_t for a random t, thousands of times. The jump is why it never walks.

# %%
shown = [0, 50, 100, 200, 400, 600, 1000]
one_noise = rng.standard_normal(x0.shape)
fig, axes = plt.subplots(2, len(shown), figsize=(10, 3.3))
jumps = [td.q_sample(schedule, x0, t, one_noise) for t in range(schedule.T + 1)]
rows = {"a walk: a new\nnoise each step": walk, "jumps:\none noise": jumps}
for row, (name, states) in zip(axes, rows.items(), strict=True):
    row[0].set_ylabel(name)
    for ax, t in zip(row, shown, strict=True):
        ax.imshow(states[t][0, :, :, 0], cmap="gray", vmin=-1.5, vmax=1.5)
        ax.set(xticks=[], yticks=[], title=f"t = {t}")
show(fig)

# %% [markdown]
# ## Does a network predict the total noise, or the noise of the last step?
#
# The total noise. Both are called "the noise" in many places, and both have variance 1, so the mistake runs without an
# error. The total noise gives x_0 back. The last step's noise is a small part of it, and leads far outside [-1, 1].

# %%
t = 400
right = x0_from_eps(schedule, eps, walk[t], t)
wrong = x0_from_eps(schedule, noises[t], walk[t], t)
off = np.mean((wrong - x0) ** 2) ** 0.5
print(f"x_0 from the total noise is exact; from the last step's noise it is {off:.2f} off")
assert np.allclose(right, x0) and off > 2

correlation, share = np.mean(eps * noises[t]), (schedule.beta[t] / schedule.one_minus_alpha_bar[t]) ** 0.5
print(f"the two noises have the correlation {correlation:.3f}; expected {share:.3f}")
assert abs(correlation - share) < 0.08

# %% [markdown]
# ## Why data in [-1, 1], and not in [0, 1]?
#
# A schedule fixes the noise, and data of variance near 1 make that a signal-to-noise ratio. Images in [0, 1] have a
# quarter of the variance and a mean that is not 0: x_t is then noisier at every t than the schedule says.

# %%
brightness = (x0 + 1) / 2
print(f"mean square in [-1, 1]: {np.mean(x0**2):.2f}; variance in [0, 1]: {brightness.var():.2f}")
assert abs(brightness.var() / x0.var() - 1 / 4) < 1e-12

# %% [markdown]
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/01.py`.)
#
# 1. `jump(beta, x0, t, noise)`: x_t from x_0, where all you have is the table beta, with beta[0] = 0. Then
#    `check(1, 1, jump)`.
# 2. `between(schedule, x_s, s, t, noise)`: x_t from x_s, for s < t, in one jump (E3). Then `check(1, 2, between)`.
# 3. `total(schedule, noises, t)`: the one eps that stands for the noises of the steps 1..t, noises[s] being that of step
#    s. Then `check(1, 3, total)`.
