# %% [markdown]
"""
# 13. Which estimate of the bound varies least?

The bound of lesson 4 is a mean over noise and over t, and nobody computes it: it is estimated, from few draws. Many
estimates have the same mean. How much they vary decides how much a number in a table is worth, and how smoothly training
goes. The data are again one-dimensional, two bumps, and the model is known.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import tinyddpm as td
from tinyddpm import loss
from tinyddpm.bound import denoising_term
from tinyddpm.theory import bound_forms as forms
from tinyddpm.theory.mixture import mixture_data
from tinyddpm.theory.oracle import Oracle

DATA = mixture_data([0.3, 0.7], [[-0.7], [0.5]], [[0.04], [0.02]])
T, SIGMA2 = 40, "beta"
schedule = td.NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(-np.linspace(6, -9, T))))
ideal = Oracle(DATA, schedule).denoise
rng = np.random.default_rng(0)
n = small(20_000, 2000)
x0 = np.full((n, 1), 0.4)  # the data point of lesson 4, n times

# %% [markdown]
# ## One bound, written four ways
#
# Draw a whole path x_0..x_T of the forward process. Four expressions of it have the bound for their mean:
#
#     denoising     L_T + sum KL(q(x_{t-1} | x_t, x_0) || p) + L_0                      the form that is trained   E14
#     consistency   does p(x_t | x_{t+1}) agree with q(x_t | x_{t-1})?                                             E15
#     entropy       the form of Sohl-Dickstein et al. 2015, and what it leaves out at the edges                    E16
#     path          log q(x_1..x_T | x_0) - log p(x_0..x_T), nothing integrated                                    E17

# %%
# E f(eps) = weights @ f(nodes) for standard normal eps: an expectation over one noise without sampling error.
nodes, weights = np.polynomial.hermite_e.hermegauss(60)
nodes, weights, many = nodes[:, None], weights / weights.sum(), np.full((60, 1), 0.4)
ends = [many, td.q_sample(schedule, many, 1, nodes)]

diffusion = forms.gaussian_diffusion(schedule)
path = forms.q_path(diffusion, x0, lambda t: rng.standard_normal(x0.shape))


def four_forms(model):
    """{form: its value for each path}: (n,)."""
    reverse = forms.reverse_model(schedule, model, SIGMA2)
    edge = weights @ forms.entropy_edge(diffusion, reverse, ends)
    return {
        "denoising": forms.denoising_form(diffusion, reverse, path),
        "consistency": forms.consistency_form(diffusion, reverse, path),
        "entropy": -forms.entropy_form(diffusion, reverse, path) - edge,
        "path": forms.path_form(diffusion, reverse, path),
    }


models = {"the ideal model": ideal, "0.4 times that": lambda xt, t: 0.4 * ideal(xt, t)}
variances = {}
for name, model in models.items():
    values = four_forms(model)
    print(f"{name}: " + ", ".join(f"{form} {v.mean():.3f} +- {v.std() / n**0.5:.3f}" for form, v in values.items()))
    for value in values.values():
        difference = value - values["denoising"]
        assert abs(difference.mean()) <= 4 * difference.std() / n**0.5
    variances[name] = {form: value.var() for form, value in values.items()}

# %% [markdown]
# The means agree, the variances do not, and which is smallest depends on the model. For a *perfect* model every path tells
# -log p(x_0), so the path form hardly varies. For a poor one the consistency form varies least.
#
# *Then why is the denoising form trained?* Because each of its terms needs one x_t, which is one jump away from x_0. The
# others need neighbours on a path, or all of it.

# %%
least = {name: min(of_forms, key=of_forms.get) for name, of_forms in variances.items()}
print("least varies:", least)
assert least == {"the ideal model": "path", "0.4 times that": "consistency"}

# %% [markdown]
# *Is the consistency form that one finds printed the bound?* Luo (2022) has KL(q(x_t | x_{t-1}) || p(x_t | x_{t+1})) in it,
# as if x_t did not depend on x_{t+1}. That is another number, and too large (E15, docs/errata.md).

# %%
reverse = forms.reverse_model(schedule, ideal, SIGMA2)
printed = forms.misprinted_form(diffusion, reverse, path)
print(f"as printed {printed.mean():.2f}, the bound {four_forms(ideal)['denoising'].mean():.2f}")
assert printed.mean() > 10

# %% [markdown]
# ## Which t to draw
#
# Training draws a few t, not all. For an estimate of the sum over t from 8 of them: each alike; *stratified*, evenly spaced
# from a random start; or *importance*, those with a large term more often, and weighted down for it (E36). All have the
# same mean.

# %%
terms = [weights @ denoising_term(schedule, ideal, many, t, nodes, SIGMA2) for t in range(2, T + 1)]
terms = np.concatenate([[0, 0], terms])  # by t = 0..T; t = 1 is L_0, a term of its own

repeats = small(4000, 1000)
p = loss.importance_probabilities(terms**2, uniform=0.05)
draws = {
    "uniform": lambda: loss.uniform_timesteps(T, 8, rng),
    "stratified": lambda: loss.stratified_timesteps(T, 8, rng),
    "importance": lambda: loss.importance_timesteps(p, 8, rng),
}
spread = {}
for name, draw in draws.items():
    sums = np.array([T * np.mean(w * terms[t]) for t, w in (draw() for _ in range(repeats))])
    spread[name] = sums.var()
    print(f"{name:11} {sums.mean():.4f}, variance {sums.var():.5f}; the sum is {terms.sum():.4f}")
    assert abs(sums.mean() - terms.sum()) < 5 * sums.std() / repeats**0.5
alike = np.append(0.0, np.full(T, 1 / T))
predicted = loss.draw_variance(terms, terms**2, alike) * T**2 / 8
assert abs(spread["uniform"] / predicted - 1) < 10 / repeats**0.5
assert spread["uniform"] > 5 * max(spread["stratified"], spread["importance"])

# %% [markdown]
# Stratified draws cost nothing and need to know nothing. Importance needs the size of each term, and a network that learns
# moves it. (The project trains with stratified t.)

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
for shift, (name, of_forms) in zip((-0.2, 0.2), variances.items(), strict=True):
    bars = left.bar(np.arange(4) + shift, of_forms.values(), 0.4, label=name)
    left.bar_label(bars, fmt="%.2g", fontsize=8)
left.set(
    xticks=range(4), xticklabels=of_forms, yscale="log", ylabel="variance, nats^2", title="four forms, one path each"
)
left.tick_params(axis="y", which="minor", labelleft=False)
left.legend(fontsize=8)
bars = right.bar(list(spread), list(spread.values()), color=["C0", "C1", "C2"])
right.bar_label(bars, fmt="%.1e", fontsize=8)
right.set(yscale="log", ylabel="variance, nats^2", title="the sum over t from 8 of them")
show(fig)

# %% [markdown]
# ## Exercises
#
# 1. `path_bound(schedule, reverse, path)`: the path form (E17) of a path [x_0, ..., x_T], where reverse(x_t, t) is the
#    Gaussian p(x_{t-1} | x_t) and p(x_T) is N(0, I). `check(13, 1, path_bound)`.
# 2. `stratified(T, n, u)`: n timesteps in 1..T, evenly spaced from one u in [0, 1), modulo 1. `check(13, 2, stratified)`.
# 3. `importance_mean(values, p, t)`: an unbiased estimate of the mean of the table `values` over t = 1..T, from timesteps t
#    that were drawn with probabilities p (tables of T + 1 entries). `check(13, 3, importance_mean)`.
