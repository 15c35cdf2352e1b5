# %% [markdown]
"""
# 4. How does -log p(x_0) become ||eps - eps_hat||^2?

A model should make the data likely. This lesson follows that wish, number by number, to the loss that is trained. There
is no network: the data are one-dimensional, two bumps, and the best possible model of them is known. So nothing here is
blurred by training, and every equality holds to rounding.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from lesson import digits, show, small

import tinyddpm as td
from tinyddpm.bound import denoising_term, prior_term, reconstruction_term
from tinyddpm.data.images import to_model
from tinyddpm.loss import l_simple, loss_weight
from tinyddpm.prediction import eps_from_x0
from tinyddpm.theory.mixture import gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

DATA = mixture_data([0.3, 0.7], [[-0.7], [0.5]], [[0.04], [0.02]])
X0 = np.array([[0.4]])  # the one data point that we follow, (N, d) = (1, 1)
SIGMA2 = "beta"  # the variance of the model's steps


def schedule_of(T):
    """log-SNR falls evenly from 6 to -9 in T steps."""
    return td.NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(-np.linspace(6, -9, T))))


schedule = schedule_of(40)

# Expectations without sampling error: E f(eps) = WEIGHTS @ f(NODES) for standard normal eps (Gauss-Hermite).
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
NODES, WEIGHTS = NODES[:, None], WEIGHTS / WEIGHTS.sum()
MANY = np.repeat(X0, len(NODES), axis=0)

# %% [markdown]
# ## What we want: -log p(x_0)
#
# The model is a chain: p(x_T) is N(0, I), and each step p(x_{t-1} | x_t) is a Gaussian. Its likelihood is an integral
# over x_1..x_T. In one dimension a grid can do that. For images nothing can.


# %%
def log_likelihood(schedule, x0):
    denoise = Oracle(DATA, schedule).denoise
    grid = np.linspace(-6, 6, 601)[:, None]
    density = np.exp(td.Gaussian(0 * grid, 1.0).log_prob(grid))  # p(x_T)
    for t in range(schedule.T, 0, -1):
        p = td.p_mean_variance(schedule, denoise(grid, t), grid, t, SIGMA2)
        square = ((x0 if t == 1 else grid) - p.mean.T) ** 2
        kernel = np.exp(-square / (2 * p.variance)) / np.sqrt(2 * np.pi * p.variance)  # p(x_{t-1} | x_t)
        density = kernel @ density * (grid[1, 0] - grid[0, 0])  # p(x_{t-1})
    return float(np.log(density[0]))


nll = -log_likelihood(schedule, X0)
print(f"-log p(x_0) of the model {nll:.4f} nats, -log q(x_0) of the data {-DATA.log_prob(X0)[0]:.4f}")

# %% [markdown]
# ## What we can have: a bound of known Gaussians
#
# Jensen's inequality, with q(x_1..x_T | x_0) for the weights, and Bayes' rule in every step, give (E14)
#
#     -log p(x_0) <= L_T + sum of L_{t-1}, t = 2..T, + L_0
#     L_T     = KL(q(x_T | x_0) || p(x_T))                                 does the chain end in noise?
#     L_{t-1} = E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))            is each step back right?
#     L_0     = -E log p(x_0 | x_1)                                        is the last one?


# %%
def terms(schedule, x0):
    denoise, many = Oracle(DATA, schedule).denoise, np.repeat(x0, len(NODES), axis=0)
    steps = [WEIGHTS @ denoising_term(schedule, denoise, many, t, NODES, SIGMA2) for t in range(2, schedule.T + 1)]
    last = reconstruction_term(schedule, denoise, many, NODES, SIGMA2, decoder=td.Gaussian.log_prob)
    return prior_term(schedule, x0)[0], np.array(steps), WEIGHTS @ last


L_T, L_steps, L_0 = terms(schedule, X0)
bound = L_T + L_steps.sum() + L_0
print(f"L_T {L_T:.6f}, sum of L_1..L_T-1 {L_steps.sum():.4f}, L_0 {L_0:.4f} (negative: a density)")
print(f"the bound {bound:.4f} is {bound - nll:.4f} above -log p(x_0)")
assert round(bound, 6) == -0.239111 and round(bound - nll, 6) == 0.122956

lengths = small([10, 20, 40, 80, 160], [10, 20, 40])
closing = [(sum(map(np.sum, terms(s, X0))), -log_likelihood(s, X0)) for s in map(schedule_of, lengths)]
gaps = np.subtract(*np.transpose(closing))
assert (gaps > 0).all() and (np.diff(gaps) < 0).all()  # more steps, a closer bound

# %% [markdown]
# ## One term, from a KL to the loss
#
# Both Gaussians in L_{t-1} have fixed variances, so their KL is a squared distance of means and a constant c_t (E19). The
# means differ by x_0 against x0_hat, and x_0 is x_t less the noise. So each line is the one before in other words (E22).

# %%
t = 20
x_t = td.q_sample(schedule, MANY, t, NODES)
x0_hat = Oracle(DATA, schedule).denoise(x_t, t)  # E[x_0 | x_t]
eps_hat = eps_from_x0(schedule, x0_hat, x_t, t)
q, p = td.q_posterior(schedule, MANY, x_t, t), td.p_mean_variance(schedule, x0_hat, x_t, t, SIGMA2)
ratio = schedule.beta_tilde[t] / schedule.beta[t]
c_t = (ratio - 1 - np.log(ratio)) / 2  # no parameters in it

lines = {
    "E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))": q.kl(p),
    "E |mean - mean_hat|^2 / (2 sigma_t^2) + c_t": (q.mean - p.mean)[:, 0] ** 2 / (2 * schedule.beta[t]) + c_t,
    "weight E |x_0 - x0_hat|^2 + c_t": loss_weight(schedule, "x0", t, SIGMA2) * (MANY - x0_hat)[:, 0] ** 2 + c_t,
    "weight E |eps - eps_hat|^2 + c_t": loss_weight(schedule, "eps", t, SIGMA2) * l_simple(NODES, eps_hat) + c_t,
}
for name, values in lines.items():
    print(f"{WEIGHTS @ values:.12f}  {name}")
    assert np.isclose(WEIGHTS @ values, L_steps[t - 2], rtol=1e-11)

# %% [markdown]
# ## Why does L_simple drop the weight?
#
# At each t, a weight does not move the best eps_hat (E23): a network with room for all t would learn the same. But a network
# shares its weights over t, and the bound's weight is largest where x_t is nearly clean: there the error is about noise
# that no eye sees. Without the weight, training cares for the levels that decide what an image shows. Samples look better
# for it, and the likelihood is worse. (`td.train(data, loss_weight="bound")` lets you compare.)

# %%
weight = loss_weight(td.NoiseSchedule.linear(1000), "eps", np.arange(2, 1001))
print(f"the bound's weight of |eps - eps_hat|^2: {weight[0]:.3f} at t = 2, {weight.min():.4f} where it is smallest")
assert weight[0] > 50 * weight[99]

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.6))
left.bar(range(2, 41), L_steps, label="$L_{t-1}$, t = 2..T")
left.bar([1], [L_0], label="$L_0$, at t = 1")
left.bar([41], [L_T], label="$L_T$, too small to see")
left.set(xlabel="t", ylabel="nats", title=f"the bound's terms at x_0 = {X0[0, 0]}")
middle.semilogx(lengths, closing, "o-", label=["the bound", "$-\\log p(x_0)$ of the model"])
middle.axhline(-DATA.log_prob(X0)[0], ls="--", color="grey", label="$-\\log q(x_0)$ of the data")
middle.minorticks_off()
middle.set(xlabel="steps T", title="it closes as T grows", xticks=lengths, xticklabels=lengths)
right.loglog(np.arange(2, 1001), weight)
right.set(xlabel="t", title="the weight that L_simple drops")
left.legend()
middle.legend()
show(fig)

# %% [markdown]
# ## How do I get bits/dim?
#
# Images have levels, so L_0 must be the *probability* of a level, the mass of its bin (E21): that is the decoder that
# `variational_bound` takes unless told otherwise. Then divide the nats by d ln 2. Knowing nothing costs 8 bits a pixel.
# A model that knows the mean and the variance of each pixel, and no more, saves most of them; networks save more.

# %%
data, rng = digits(), np.random.default_rng(0)
pixels = to_model(data.train.images[:2000]).reshape(-1, 784)
simple = Oracle(gaussian_data(pixels.mean(axis=0), pixels.var(axis=0)), schedule).denoise
test = to_model(data.test.images[: small(100, 5)])
found = td.variational_bound(schedule, simple, test, lambda t: rng.standard_normal(test.shape).astype("f"))
bits = td.bits_per_dim(found.total, 784)
print(f"{bits.mean():.2f} +- {bits.std() / len(bits) ** 0.5:.2f} bits/dim")
assert 0 < bits.mean() < 8

# %% [markdown]
# The bound is estimated from few draws. Lesson 13 is about how much such estimates vary.
#
# ## Exercises
#
# 1. `prior(alpha_bar_T, x0)`: L_T in nats for x0 of shape (N, d). `check(4, 1, prior)`.
# 2. `eps_weight(schedule, t, sigma2)`: the weight of |eps - eps_hat|^2 in L_{t-1}, where sigma2 is the variance of the
#    model's step. `check(4, 2, eps_weight)`.
# 3. `level_probability(mean, deviation, k)`: the mass that N(mean, deviation^2) gives to level k of 0..255, the levels
#    being at 2k/255 - 1 and the outer bins reaching to infinity. `check(4, 3, level_probability)`.
