# %% [markdown]
"""
# 2. What does a noise schedule do?

A schedule is T numbers beta_1..beta_T. All that matters of them is how fast the signal drowns: the signal-to-noise ratio

    SNR(t) = alpha_bar_t / (1 - alpha_bar_t),      alpha_bar_t = product of (1 - beta_s), s = 1..t

and its logarithm, which is 0 where signal and noise are equally strong.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from lesson import digits, show

import tinyddpm as td
from tinyddpm.bound import prior_term
from tinyddpm.data.images import to_model

T = 1000
schedules = {name: td.named_schedule(name, T) for name in ("linear", "cosine", "even")}
for name, schedule in schedules.items():
    half = np.argmin(abs(schedule.log_snr[1:])) + 1
    print(f"{name:7} log-SNR {schedule.log_snr[1]:6.2f} at t = 1, {schedule.log_snr[T]:6.2f} at t = T, 0 at t = {half}")
assert round(schedules["linear"].alpha_bar[T] * 1e5, 2) == 4.04  # 0.004% of the data's variance is left at the end

# %% [markdown]
# ## A picture says the rest
#
# The same image with the same noise, at the same t. The linear schedule spends its last third on what is noise already.
# The cosine schedule was made for that (Nichol & Dhariwal 2021).

# %%
rng = np.random.default_rng(0)
x0 = to_model(digits().test.images[:1])
noise = rng.standard_normal(x0.shape).astype(x0.dtype)
shown = [1, 100, 200, 300, 400, 500, 600, 700, 800, 900]

fig = plt.figure(figsize=(10, 6.5))
curves, strips = fig.subfigures(2, 1, height_ratios=(1.1, 1))
left, right = curves.subplots(1, 2)
for (name, schedule), style in zip(schedules.items(), ("-", "--", ":"), strict=True):
    left.plot(schedule.alpha_bar, style, label=name)
    right.plot(schedule.log_snr[1:], style, label=name)
left.set(xlabel="t", ylabel="alpha_bar: the signal's variance")
right.set(xlabel="t", ylabel="log-SNR", ylim=(-12, 12))
right.axhspan(-12, -4, color="0.93", label="almost only noise")
right.legend()
grid = strips.subplots(len(schedules), len(shown))
for row, (name, schedule) in zip(grid, schedules.items(), strict=True):
    row[0].set_ylabel(name)
    for ax, t in zip(row, shown, strict=True):
        ax.imshow(td.q_sample(schedule, x0, t, noise)[0, :, :, 0], cmap="gray", vmin=-1.5, vmax=1.5)
        ax.set(xticks=[], yticks=[])
for ax, t in zip(grid[0], shown, strict=True):
    ax.set_title(f"t = {t}", fontsize=9)
show(fig)

# %% [markdown]
# ## Where the training goes
#
# Training draws t uniformly. So a schedule decides how much of it goes to which noise level: a share of the steps is a
# share of the work. Very noisy levels teach little, and there are fewer of them in the cosine schedule.

# %%
for name, schedule in schedules.items():
    shares = np.histogram(schedule.log_snr[1:], bins=[-np.inf, -4, -2, 2, 4, np.inf])[0] / T
    print(f"{name:7} log-SNR below -4: {shares[0]:.0%}, within -2..2: {shares[2]:.0%}, above 4: {shares[4]:.0%}")
wasted = {name: np.mean(schedule.log_snr[1:] < -4) for name, schedule in schedules.items()}
assert round(wasted["linear"], 2) == 0.37 and round(wasted["cosine"], 2) == 0.09

# %% [markdown]
# The ends matter in another way. At T the model starts from N(0, I), and what is left of the data is a mistake that no
# network can mend: the term L_T of the bound (E20). Copy 0.0001..0.02 to a chain of 100 steps, and it is large.

# %%
ones = np.ones((1, 784))
copied = td.NoiseSchedule.linear(100, 1e-4, 0.02)  # the ends of the 1000-step chain, as they are
scaled = td.NoiseSchedule.linear(100)  # each step does the work of ten
for name, schedule in (("copied", copied), ("scaled", scaled)):
    L_T = td.bits_per_dim(prior_term(schedule, ones)[0], 784)
    print(f"T = 100, {name}: {schedule.alpha_bar[100]:.1e} of the signal's variance is left, L_T = {L_T:.1e} bits/dim")
assert round(td.bits_per_dim(prior_term(copied, ones)[0], 784), 3) == 0.326
assert scaled.alpha_bar[100] < 1e-4

# %% [markdown]
# ## Is `beta_prod` the product of the betas?
#
# No. Codes that call alpha_bar `alpha_prod` have the name `beta_prod` for 1 - alpha_bar, the noise's variance in x_t. The
# product of the betas means nothing. Near t = 0 even 1 - alpha_bar is treacherous: in float32 the subtraction loses half of
# its digits. The project keeps float64 tables and `one_minus_alpha_bar`, which is computed without the subtraction.

# %%
linear = schedules["linear"]
assert np.prod(linear.beta[1:11]) < 1e-30 and linear.one_minus_alpha_bar[10] > 1e-3
rounded = 1 - linear.alpha_bar[1].astype(np.float32)
error = abs(rounded - linear.one_minus_alpha_bar[1]) / linear.one_minus_alpha_bar[1]
print(f"1 - alpha_bar_1 = 0.0001 in float32: off by {error:.1e} of itself, where float32 can do 6e-8")
assert error > 1e-5

# %% [markdown]
# ## May I sample with fewer steps than I trained with?
#
# Yes. A chain that visits only some of the steps is a schedule of its own, with the same alpha_bar where it stops (E32),
# so the network sees the noise levels that it knows. Its betas are *not* the betas of the long chain at those steps.

# %%
few = linear.respace(50)
print(
    f"{few.T} steps, {few.timesteps[:4].tolist()}...: beta {few.beta[2]:.4f}, where the long chain has {linear.beta[40]:.4f}"
)
assert np.allclose(few.alpha_bar, linear.alpha_bar[few.timesteps])
assert np.isclose(few.beta[2], 1 - np.prod(1 - linear.beta[21:41]))  # of the twenty steps from 20 to 40 as one

# %% [markdown]
# ## Exercises
#
# 1. `cosine(T, s)`: the table alpha_bar_0..alpha_bar_T in proportion to cos^2((t/T + s)/(1 + s) pi/2).
#    `check(2, 1, cosine)`.
# 2. `respaced_beta(schedule, kept)`: the betas of the chain that visits the increasing steps `kept`.
#    `check(2, 2, respaced_beta)`.
# 3. `on_a_line(high, low, T)`: alpha_bar_1..alpha_bar_T whose log-SNR falls on a line from high to low.
#    `check(2, 3, on_a_line)`.
