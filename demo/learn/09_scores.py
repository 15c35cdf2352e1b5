# %% [markdown]
"""
# 9. What are scores and flows, and how do they give a likelihood?

The score of x_t is the gradient of log q(x_t): the direction in which x_t becomes more likely. Other papers train scores,
velocities or flows where DDPM trains noise. This lesson shows that they are the same knowledge, on two-dimensional data
of three bumps, whose density is known at every noise level.
"""

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import tinyddpm as td
from tinyddpm.prediction import eps_from_x0, score_from_x0, x0_from_score
from tinyddpm.theory.continuous import ideal_denoiser
from tinyddpm.theory.flow import flow_log_prob, probability_flow
from tinyddpm.theory.log_snr import signal_and_sigma
from tinyddpm.theory.mixture import finite_data, mixture_data
from tinyddpm.theory.oracle import Oracle

schedule = td.NoiseSchedule.cosine(1000)
centres = np.array([[-0.9, -0.5], [0.8, -0.7], [0.1, 0.9]])
data = mixture_data([0.2, 0.3, 0.5], centres, [[0.02, 0.02], [0.1, 0.02], [0.04, 0.04]])
rng = np.random.default_rng(0)

# %% [markdown]
# ## The score is a mean of pulls
#
# Given one x_0, the score pulls x_t straight towards it (E25). Nobody knows x_0, so the score of q(x_t) is the mean of these
# pulls over q(x_0 | x_t) (E26). For data of three points that mean is a sum of three.

# %%
t, x_t = 500, rng.standard_normal((5, 2))
points = Oracle(finite_data(centres), schedule)
pulls = np.stack([score_from_x0(schedule, np.tile(centre, (5, 1)), x_t, t) for centre in centres])  # (3, 5, 2)

distance = ((x_t[None] - schedule.alpha_bar[t] ** 0.5 * centres[:, None]) ** 2).sum(axis=2)
weights = np.exp(-distance / (2 * schedule.one_minus_alpha_bar[t]))  # Bayes: q(x_0 | x_t) of each point
weights /= weights.sum(axis=0)
score = (weights[:, :, None] * pulls).sum(axis=0)
print("the mean pull at the first x_t", score[0], "and the score", points.score(x_t, t)[0])
assert np.allclose(score, points.score(x_t, t))

# %% [markdown]
# ## *Is the score the noise?*
#
# Yes, but for sign and scale: score = -eps_hat / sqrt(1 - alpha_bar_t), where eps_hat is the best guess of the noise (E24).
# And Tweedie's formula makes the best guess of x_0 of it (E27). Who has one has all of them.

# %%
oracle = Oracle(data, schedule)
x0_hat = oracle.denoise(x_t, t)  # E[x_0 | x_t]
from_noise = -eps_from_x0(schedule, x0_hat, x_t, t) / schedule.one_minus_alpha_bar[t] ** 0.5
assert np.allclose(from_noise, oracle.score(x_t, t))
assert np.allclose(x0_from_score(schedule, oracle.score(x_t, t), x_t, t), x0_hat)

h = 1e-5  # the score is a gradient: against differences of the log density
step = np.array([[h, 0.0]])
slope = (oracle.log_prob(x_t + step, t) - oracle.log_prob(x_t - step, t)) / (2 * h)
assert np.allclose(slope, oracle.score(x_t, t)[:, 0], atol=1e-6)

# %% [markdown]
# ## A flow carries noise to data
#
# Let x move with the velocity (signal x0_hat - signal^2 x)/2 while the log-SNR rises. Then x has at every level the law
# q(x) of that level, and no noise is ever added. DDIM follows this flow in steps; here Runge and Kutta do.

# %%
denoise = ideal_denoiser(data)  # the same model, of the log-SNR in place of t
low, high = -10.0, 12.0
x_T = rng.standard_normal((small(2000, 200), 2))
x_0 = probability_flow(denoise, x_T, low, high, small(60, 30))
print("mean", x_0.mean(axis=0).round(2), "of", data.mean().round(2))
print("variances", x_0.var(axis=0).round(2), "of", np.diag(data.covariance()).round(2))
assert abs(x_0.mean(axis=0) - data.mean()).max() < small(0.06, 0.2)

# %% [markdown]
# The picture: the score field at three levels, and paths of the flow. Far from the data, in noise, all arrows point to
# the middle. Each bump gets its own basin only as the noise falls.

# %%
grid = np.linspace(-2.2, 2.2, small(120, 60))
plane = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
sparse = np.stack(np.meshgrid(grid[4::10], grid[4::10]), axis=-1).reshape(-1, 2)
fig, axes = plt.subplots(1, 4, figsize=(14, 3.8))
for ax, level in zip(axes, (-4.0, 0.0, 3.0), strict=False):
    signal, sigma = signal_and_sigma(level)
    law = data.diffused(signal, sigma**2)
    ax.contourf(grid, grid, np.exp(law.log_prob(plane)).reshape(len(grid), -1), 12, cmap="Blues")
    arrows = law.score(sparse)
    arrows = arrows / (1 + np.linalg.norm(arrows, axis=1, keepdims=True))  # long ones shortened, to be seen
    ax.quiver(*sparse.T, *arrows.T, color="#d1495b", scale=14)
    ax.set_title(f"density and score at log-SNR {level:g}")
path = [x_T[:40]]
for start, end in zip(np.linspace(low, high, 45)[:-1], np.linspace(low, high, 45)[1:], strict=True):
    path.append(probability_flow(denoise, path[-1], start, end, 1))
axes[3].plot(*np.array(path).transpose(2, 0, 1), color="#9aa5b1", lw=0.8)
axes[3].plot(*path[0].T, ".", color="#30638e", label="noise")
axes[3].plot(*path[-1].T, ".", color="#d1495b", label="data")
axes[3].set_title("the flow")
axes[3].legend()
for ax in axes:
    ax.set(aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[])
show(fig)

# %% [markdown]
# ## The likelihood of one point, exactly
#
# A flow stretches and squeezes. Follow a point to the noise, where the density is known, add up the divergence on the way,
# and the log-likelihood comes out (E42): not a bound as in lesson 4, but the number itself, up to the steps of the solver.

# %%
some = data.sample(rng, 6)
by_flow = flow_log_prob(denoise, some, high, low, small(200, 100))
exact = data.log_prob(some)
print("by the flow ", by_flow.round(4))
print("closed form ", exact.round(4))
assert abs(by_flow - exact).max() < 0.01

many = data.sample(rng, small(5000, 500))
chain = schedule.respace(100)
bound = td.variational_bound(
    chain, oracle.denoise, many, lambda t: rng.standard_normal(many.shape), "beta", decoder=td.Gaussian.log_prob
)
above = bound.total + data.log_prob(many)
print(
    f"a bound of 100 steps is {above.mean():.2f} +- {above.std() / len(many) ** 0.5:.2f} nats above -log q, on average"
)
assert above.mean() > 0

# %% [markdown]
# ## *Does a better likelihood mean better pictures?*
#
# No. Take the best model there is, and let it draw pure noise 99 times of 100. Its likelihood falls by log 100 nats in all,
# next to nothing a pixel, and 99 of 100 pictures are ruined. (Theis et al. 2016, "A note on the evaluation of
# generative models")

# %%
loss = td.bits_per_dim(math.log(100), 28 * 28)
print(f"drawing noise 99 times of 100 costs {loss:.4f} bits/dim on images of 28 x 28")
assert round(loss, 4) == 0.0085

# %% [markdown]
# ## Exercises
#
# 1. `score_of_points(points, x, signal, sigma)`: the score at x (N, d) of x = signal x_0 + sigma eps, where x_0 is one of the
#    points (K, d), all equally likely. `check(9, 1, score_of_points)`.
# 2. `tweedie(score, x, alpha_bar)`: E[x_0 | x_t = x], all you have being the score there. `check(9, 2, tweedie)`.
# 3. `flow_step(score, y, sigma, next_sigma)`: for y = x_0 + sigma eps the flow is dy/dsigma = -sigma score(y, sigma). One
#    step of Heun's method: Euler's step, then the mean of the slopes at both ends. `check(9, 3, flow_step)`.
