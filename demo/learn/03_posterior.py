# %% [markdown]
"""
# 3. What does one step back look like, and why are there two variances?

The forward step q(x_t | x_{t-1}) is ours. Its reverse q(x_{t-1} | x_t) depends on the data, so it must be learned. This
lesson looks at the reverse step of data that are known: one dimension, two narrow bumps.
"""

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import tinyddpm as td
from tinyddpm.forward import posterior_coefficients
from tinyddpm.reverse import variance_table
from tinyddpm.theory.mixture import gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

schedule = td.NoiseSchedule.linear(200)
data = mixture_data([0.5, 0.5], [[-0.7], [0.7]], 0.01)
oracle = Oracle(data, schedule)  # knows the exact q(x_s | x_t) of these data
t, x_t = 60, np.array([[0.1]])  # a noisy point between the bumps, (N, d) = (1, 1)

# %% [markdown]
# ## If x_0 is known, the step back is Gaussian
#
# x_t is one opinion on x_{t-1}, x_0 is another. Both are Gaussian in x_{t-1}, so by Bayes' rule their precisions add, and
# weigh them (E6, E7). The result is the posterior q(x_{t-1} | x_t, x_0), of variance beta_tilde_t.

# %%
print(inspect.getsource(posterior_coefficients))

x_0 = np.array([[0.7]])
by_xt = x_t / schedule.alpha[t] ** 0.5, schedule.beta[t] / schedule.alpha[t]  # value and variance
by_x0 = x_0 * schedule.alpha_bar[t - 1] ** 0.5, schedule.one_minus_alpha_bar[t - 1]
precision = 1 / by_xt[1] + 1 / by_x0[1]
mean = (by_xt[0] / by_xt[1] + by_x0[0] / by_x0[1]) / precision

posterior = td.q_posterior(schedule, x_0, x_t, t)
print(
    f"by hand N({mean[0, 0]:.6f}, {1 / precision:.6f}); q_posterior N({posterior.mean[0, 0]:.6f}, {posterior.variance:.6f})"
)
assert np.allclose(mean, posterior.mean) and np.isclose(1 / precision, posterior.variance)
assert np.isclose(posterior.variance, schedule.beta_tilde[t])

# %% [markdown]
# ## If it is not known, the step back is nearly Gaussian, when it is small
#
# Then x_0 is either bump, and q(x_s | x_t) is a mixture. For s = t - 1 nobody can tell it from a Gaussian. For s = 0 it has
# two bumps. That is why a model of Gaussian steps needs many of them.
#
# *So why not jump from x_T to x_0 at once?* Because q(x_0 | x_T) is all of the data. The network says its mean,
# E[x_0 | x_T], which for digits is a grey blur, and here a point where there are no data at all.

# %%
grid = np.linspace(-2, 2, small(4001, 801))
spacing = grid[1] - grid[0]


def densities(s):
    """q(x_s | x_t), and the Gaussian of the same mean and variance, on the grid."""
    exact = oracle.posterior(x_t, t, s)
    best = td.Gaussian(float(exact.mean()[0, 0]), float(exact.covariance()[0, 0, 0]))
    repeated = oracle.posterior(np.repeat(x_t, len(grid), axis=0), t, s)
    return np.exp(repeated.log_prob(grid[:, None])), np.exp(best.log_prob(grid[:, None]))


def distance(s):
    """The total variation between the two: 0 for equals, 1 for what never overlaps."""
    exact, best = densities(s)
    return abs(exact - best).sum() * spacing / 2


for s in (59, 40, 20, 0):
    print(f"q(x_{s} | x_{t}) and the nearest Gaussian differ by {distance(s):.5f}")
assert distance(59) < 0.01 and distance(20) > 0.1 and distance(0) > 0.5

# %% [markdown]
# ## Two variances, for two extremes
#
# For Gaussian data N(0, V) the reverse step is Gaussian, and its variance is known: beta_t V_{t-1}/V_t, where V_t is the
# variance of x_t. If V = 1, V_t stays 1 and it is beta_t. If V = 0, the data are one point, x_0 is known, and it is
# beta_tilde_t. All other data lie between (E9). The two meet where t is large, and differ most near the data.

# %%
one = np.ones((1, 1))
reverse = {V: np.full(schedule.T + 1, np.nan) for V in (0.0, 0.005, 1.0)}
for V, exact in reverse.items():
    of_data = Oracle(gaussian_data([0.0], V), schedule)
    exact[1:] = [of_data.reverse_step(one, s).variance[0, 0] for s in range(1, schedule.T + 1)]
assert np.allclose(reverse[0.0][1:], schedule.beta_tilde[1:])
assert np.allclose(reverse[1.0][1:], schedule.beta[1:])
assert (reverse[0.005] >= schedule.beta_tilde)[1:].all() and (reverse[0.005] <= schedule.beta)[1:].all()

fig, axes = plt.subplots(1, 4, figsize=(13, 3.2))
for ax, s in zip(axes, (59, 20, 0), strict=False):
    exact, best = densities(s)
    ax.plot(grid, exact, label="exact")
    ax.plot(grid, best, "--", label="nearest Gaussian")
    ax.set(title=f"q(x_{s} | x_{t})", yticks=[], xlim=(-1.2, 1.2))
axes[0].legend(fontsize=8)
for V, exact in reverse.items():
    axes[3].plot(exact / schedule.beta, label=f"data variance {V:g}")
axes[3].set(title="reverse variance / beta_t", xlabel="t", xlim=(0, 60))
axes[3].legend(fontsize=8)
show(fig)

# %% [markdown]
# ## Which variance at t = 1?
#
# beta_tilde_1 = 0: given x_0, x_0 is certain. A sampler takes that literally and adds no noise at its last step. A
# likelihood cannot: a Gaussian without width has no density. So L_0 takes the next one, beta_tilde_2. The best would be the
# error of the model, E |x_0 - x0_hat|^2, which depends on the data.

# %%
assert schedule.beta_tilde[1] == 0
assert variance_table(schedule, "beta_tilde")[1] == schedule.beta_tilde[2]

rng = np.random.default_rng(0)
many = data.sample(rng, 5000)
x_1 = td.q_sample(schedule, many, 1, rng.standard_normal(many.shape))
square = np.mean((many - oracle.denoise(x_1, 1)) ** 2)
for name, v in {"beta_1": schedule.beta[1], "beta_tilde_2": schedule.beta_tilde[2], "the error": square}.items():
    L_0 = square / (2 * v) + np.log(2 * np.pi * v) / 2  # E12
    print(f"sigma_1^2 = {name:12} {v:.5f}: L_0 = {L_0:.3f} nats")

# %% [markdown]
# ## Why the posterior, and not equation 11?
#
# Ho et al. 2020 write the step by the noise (equation 11, E8), many codes by x_0 (E7). They are the same Gaussian, until
# x_0 is clipped to [-1, 1]. At large t a small error of eps is a large error of x_0. Only in the second form is there an
# x_0 to clip.

# %%
T, x_T = schedule.T, np.array([[0.5]])
eps_hat = x_T / schedule.one_minus_alpha_bar[T] ** 0.5 - 0.03  # of x_0 = 0, but for a slight error
x0_hat = td.convert(schedule, eps_hat, x_T, T, "eps", "x0")
by_eps = td.p_mean_variance_eps(schedule, eps_hat, x_T, T)
by_x0 = td.p_mean_variance(schedule, x0_hat, x_T, T)
clipped = td.p_mean_variance(schedule, x0_hat.clip(-1, 1), x_T, T)
print(f"an error of 0.03 in eps is one of {x0_hat[0, 0]:.1f} in x_0")
print(f"the means: {by_eps.mean[0, 0]:.6f}, {by_x0.mean[0, 0]:.6f}; clipped {clipped.mean[0, 0]:.6f}")
assert np.allclose(by_eps.mean, by_x0.mean) and x0_hat[0, 0] > 4
assert abs(clipped.mean - by_x0.mean)[0, 0] > 1e-3

# %% [markdown]
# ## Exercises
#
# 1. `combine(mean1, variance1, mean2, variance2)`: mean and variance of the Gaussian that is proportional to the product of
#    two Gaussian densities. `check(3, 1, combine)`.
# 2. `posterior_mean(alpha_bar, x0, xt, t)`: the mean of q(x_{t-1} | x_t, x_0) from the table alpha_bar alone.
#    `check(3, 2, posterior_mean)`.
# 3. `reverse_variance(schedule, V, t)`: the variance of q(x_{t-1} | x_t) for data N(0, V). `check(3, 3, reverse_variance)`.
