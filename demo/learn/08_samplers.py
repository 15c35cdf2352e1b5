# %% [markdown]
"""
# 8. One loop and many steps: which sampler gets how close, with how many questions?

Every sampler is the same loop around another step. To compare them, a network is a poor judge: it errs too. Here the
model is an *oracle*, the exact E[x_0 | x_t] of one-dimensional data of two bumps. What is then still wrong is the sampler.
"""

# %%
import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import tinyddpm as td
from tinyddpm.theory.mixture import mixture_data
from tinyddpm.theory.oracle import Oracle, chain_variance

schedule = td.NoiseSchedule.cosine(1000)
data = mixture_data([0.3, 0.7], [[-1.0], [0.6]], [[0.08], [0.12]])
oracle = Oracle(data, schedule)

# %% [markdown]
# ## The loop
#
# A step is a function from x_t to the Gaussian of x_{t-1}. The loop draws from it, and takes the mean at the last step. To
# visit fewer steps, it walks a respaced schedule (lesson 2), and tells the model which of its t each step is.


# %%
def loop(step, denoise, schedule, x, noise):
    for t in range(schedule.T, 0, -1):
        p = step(lambda x, t: denoise(x, schedule.timesteps[t]), schedule, x, t)
        x = p.mean if t == 1 else p.sample(noise(t))
    return x


chain = schedule.respace(20)
noises = np.random.default_rng(0).standard_normal((21, 500, 1))
mine = loop(td.ancestral_step, oracle.denoise, chain, noises[0], noises.__getitem__)
theirs = td.sample(oracle.denoise, chain, noises[0], noises.__getitem__, td.ancestral_step)
assert np.array_equal(mine, theirs)  # td.sample is this loop, and checks what it is given

# %% [markdown]
# *Why not jump from x_T to x_0 at once?* One step is the same loop. Its x_0 is E[x_0 | x_T], the mean of the data, for
# everyone: a place between the bumps where hardly any data are. (Lesson 3 shows why.)

# %%
at_once = td.sample(oracle.denoise, schedule.respace(1), noises[0], None, td.ddim_step)
print(
    f"in one step all samples are {at_once.mean():.3f} +- {at_once.std():.3f}; the data's mean is {data.mean()[0]:.3f}"
)
assert abs(at_once - data.mean()).max() < 0.01

# %% [markdown]
# ## Steps without noise: a right answer for every sample
#
# Without noise, samplers follow the *probability flow*. In one dimension paths cannot cross. So the flow takes the 10%
# quantile of q(x_T) to the 10% quantile of the data, and so on: the right x_0 of each x_T is known.


# %%
def quantiles(mixture, shares):
    grid = np.linspace(-6, 6, 60_001)
    deviations = (grid[:, None] - mixture.means[:, 0]) / (2 * mixture.variances[:, 0]) ** 0.5
    below = (1 + np.vectorize(math.erf)(deviations)) / 2 @ np.exp(mixture.log_weights)
    return np.interp(shares, below, grid)[:, None]


shares = np.linspace(0.05, 0.95, 19)
start, truth = quantiles(oracle.marginal(1000), shares), quantiles(data, shares)


def error(make_step, steps):
    """How far the samples are from the right ones, root mean square. A step is made anew: some remember."""
    x_0 = td.sample(oracle.denoise, schedule.respace(steps), start, None, make_step())
    return np.mean((x_0 - truth) ** 2) ** 0.5


samplers = {  # name: questions to the model in one step, and what makes the step
    "ddim": (1, lambda: td.ddim_step),
    "heun": (2, lambda: td.heun_step),
    "dpm_solver": (1, td.dpm_solver),
    "gradient_estimation": (1, td.gradient_estimation),
}
questions = small([8, 16, 32, 64, 128, 256], [16, 32, 64])
errors = {name: [error(make, n // each) for n in questions] for name, (each, make) in samplers.items()}
print(f"{'questions':20}" + "".join(f"{n:10}" for n in questions))
for name, row in errors.items():
    print(f"{name:20}" + "".join(f"{value:10.5f}" for value in row))

# %% [markdown]
# DDIM is of first order: twice the questions, half the error. Heun's method asks twice a step, and pays for it when the
# questions are few. DPM-Solver++ has its second order from memory, at one question a step (E31): with 32 it is closer
# than DDIM with 256. A network errs by more than these last digits, so 30 to 50 such steps are usually enough.

# %%
assert 1.8 < errors["ddim"][-2] / errors["ddim"][-1] < 2.1
assert errors["dpm_solver"][questions.index(32)] < errors["ddim"][-1]

# %% [markdown]
# ## A family with two numbers
#
# `gradient_estimation(gamma, mu)` mixes eps_hat with that of the step before, and draws a part of the noise anew
# (Permenter & Yuan 2024). (1, 0) is DDIM. (1, 1/2) is the ancestral step. A gamma above 1 looks ahead: eps_hat changes
# slowly, so it goes on as it changed lately. The authors' (2, 0) suits images. Where the model makes no errors, 3/2 is
# best: for steps of one size that is the method of Adams and Bashforth, of second order.

# %%
for (gamma, mu), other in {(1, 0): td.ddim_step, (1, 0.5): td.ancestral_step}.items():
    member = td.sample(oracle.denoise, chain, noises[0], noises.__getitem__, td.gradient_estimation(gamma, mu))
    assert np.allclose(member, td.sample(oracle.denoise, chain, noises[0], noises.__getitem__, other))
gammas = np.linspace(0.5, 3, small(11, 6))
by_gamma = {n: [error(partial(td.gradient_estimation, gamma), n) for gamma in gammas] for n in (8, 16, 32)}
assert all(gammas[np.argmin(by_gamma[n])] == 1.5 for n in (16, 32))

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8))
for steps, style in ((8, "o-"), (500, "-")):
    few = schedule.respace(steps)
    states = [start] + [x for _, x, _ in td.reverse_process(oracle.denoise, few, start, None, td.ddim_step)]
    lines = left.plot(few.timesteps[::-1], np.array(states)[:, ::3, 0], style, ms=3, color="C2" if steps > 8 else "C1")
    lines[0].set_label(f"DDIM, {steps} steps")
left.plot(np.zeros(7), truth[::3, 0], "k>", ms=6, label="the right x_0")
left.set(xlabel="t", ylabel="x_t", xlim=(1000, -30), ylim=(-1.8, 2.9), title="paths without noise")
for name, row in errors.items():
    middle.loglog(questions, row, "o-", label=name)
middle.set(xlabel="questions to the model", ylabel="error of x_0", title="how close, for how much")
for n, row in by_gamma.items():
    right.semilogy(gammas, row, label=f"{n} steps")
right.set(xlabel="gamma (1 is DDIM)", title="error of gradient_estimation(gamma, 0)")
for ax in (left, middle, right):
    ax.legend(fontsize=8)
show(fig)

# %% [markdown]
# ## Steps with noise: a right variance for all samples together
#
# A single sample has no right answer now. All together have a variance, and for data N(0, V) it is a recursion (E29).
# Of the two variances, beta adds too much noise and beta_tilde too little. A thousand steps forgive both.

# %%
kinds = {"beta": partial(td.ancestral_step, variance="beta"), "beta_tilde": td.ancestral_step, "ddim": td.ddim_step}
for steps in (10, 50, 250, 1000):
    out = {name: chain_variance(schedule.respace(steps), 0.25, step)[0, 0] for name, step in kinds.items()}
    print(f"{steps:5} steps: " + ", ".join(f"{name} {value:.4f}" for name, value in out.items()) + " (right: 0.2500)")
    assert out["beta_tilde"] < out["ddim"] < 0.25 < out["beta"]
assert round(out["beta_tilde"], 4) == 0.2480 and round(out["beta"], 4) == 0.2504

# %% [markdown]
# ## Exercises
#
# 1. `ddim_mean(alpha_bar, x0_hat, xt, t)`: x_{t-1} of DDIM without noise (E30). `check(8, 1, ddim_mean)`.
# 2. `ancestral(denoise, schedule, x, noise)`: the whole loop of Algorithm 2 on any schedule, respaced or not, with
#    q_posterior for its mean and beta_tilde_t for its variance. `check(8, 2, ancestral)`.
# 3. `final_variance(schedule, V)`: the variance of x_0 that DDIM makes of x_T from N(0, 1), with the ideal model
#    E[x_0 | x_t] of data N(0, V). `check(8, 3, final_variance)`.
