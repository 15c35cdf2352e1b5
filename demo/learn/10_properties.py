# %% [markdown]
"""
# 10. Is my diffusion right, or does it only look right?

A wrong diffusion trains. Its loss falls, and its samples look like something. This lesson has one with five bugs, of the
kinds that people make. Find them first by reading, if you can, and then with the identities of the field as a test: they
hold for every schedule, every t and every x, so a machine can try many and bring back the smallest that fails.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small

import tinyddpm as td
from tinyddpm.properties import Adapter, schedules
from tinyddpm.properties import check as check_identities
from tinyddpm.properties.own import Own


class Mine(Adapter):
    """A diffusion of T steps. t = 1..T are the noisy steps, 0 is the data. It has five bugs."""

    predictions = "eps", "v"  # what `convert` knows, beside x0

    def __init__(self, T=10):
        self.beta = np.append(0.0, np.linspace(0.02, 0.3, T))
        self.alpha_bar = np.cumprod(1 - self.beta)

    def __repr__(self):
        return "Mine()"

    def q_step(self, x_prev, t, noise):
        """x_t from x_{t-1}."""
        return (1 - self.beta[t]) ** 0.5 * x_prev + self.beta[t] * noise

    def q_sample(self, x0, t, noise):
        """x_t from x_0."""
        alpha_bar = self.alpha_bar[t - 1]
        return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise

    def posterior(self, x0, xt, t):
        """The mean and the variance of q(x_{t-1} | x_t, x_0)."""
        before, after = 1 - self.alpha_bar[t - 1], 1 - self.alpha_bar[t]
        from_xt = (1 - self.beta[t]) ** 0.5 * before / after
        from_x0 = self.alpha_bar[t] ** 0.5 * self.beta[t] / after
        return from_xt * xt + from_x0 * x0, before / after * self.beta[t]

    def convert(self, value, xt, t, source, target):
        """One prediction as another, by way of x_0."""
        signal, noise = self.alpha_bar[t] ** 0.5, (1 - self.alpha_bar[t]) ** 0.5
        x0 = {
            "x0": lambda: value,
            "eps": lambda: (xt - noise * value) / signal,
            "v": lambda: signal * xt + noise * value,
        }[source]()
        eps = (xt - signal * x0) / noise
        return {"x0": x0, "eps": eps, "v": signal * eps - noise * x0}[target]

    def step(self, x0_hat, xt, t, noise):
        """x_{t-1} from x_t and a prediction of x_0: the sampler."""
        mean, variance = self.posterior(x0_hat, xt, t)
        return mean + max(variance, self.beta[1]) ** 0.5 * noise


# %% [markdown]
# ## *My loss falls and my samples look fine. Is that no test?*
#
# It is a weak one. A network learns whatever x_t it is shown, so the loss falls anyhow. And what a bug does to the samples
# may be small: a little noise left, a variance off by a tenth. Nobody sees that, until somebody compares numbers.
#
# Known numbers are a better test. Data of variance 1 keep the variance 1 (lesson 1), in a walk and in a jump.

# %%
mine, rng = Mine(), np.random.default_rng(0)
walk = data = rng.standard_normal((small(50_000, 5000), 1))
by_walk, by_jump = [1.0], [1.0]
for t in range(1, 11):
    walk = mine.q_step(walk, t, rng.standard_normal(walk.shape))
    by_walk.append(walk.var())
    by_jump.append(mine.q_sample(data, t, rng.standard_normal(walk.shape)).var())
print(f"the variance of x_T: {by_walk[-1]:.2f} by the walk, {by_jump[-1]:.2f} by the jump")
assert by_walk[-1] < 0.5 and abs(by_jump[-1] - 1) < 0.1

# %% [markdown]
# One bug is seen: the walk loses variance. The jump is wrong as well, and keeps it: variance 1 at the wrong t is still 1.
# Every test of that kind looks from one side. The identities look from all.
#
# ## The identities
#
# `check_identities` takes an `Adapter` with some of its methods, draws t, x_0 and noises, and compares with what follows
# from `alpha_bar` alone. A failure comes with the smallest example that was found.

# %%
report = check_identities(mine, examples=small(100, 20))
for result in report.results:
    if result.status == "fails":
        print(result, "\n")
print(f"{len(report.names('fails'))} identities fail, {len(report.names('holds'))} hold")
assert len(report.names("fails")) > 5 and "E7 variance" in report.names("holds")

# %% [markdown]
# ## How to read it
#
# - *More identities fail than there are bugs.* `step` calls `posterior`, so a fault of the one shows in both. Begin at the
#   top: the order is that of the mathematics. Mend one, and ask again.
# - *Look at the example.* All zeros but one number says which term is wrong. A t of 1 says that it is the end of the chain.
# - *What holds helps as well.* If E7's variance holds and its mean does not, the fault is in a factor of the mean.
# - "not checked" is no "holds": `Mine` has no `respace`.

# %%
colours = {"holds": "#3c896d", "fails": "#d1495b", "not checked": "#cfd6dd"}
fig, (left, right) = plt.subplots(1, 2, figsize=(12, 5), width_ratios=(1, 1.5))
left.plot(by_walk, "o-", label="mine, by q_step")
left.plot(by_jump, "o-", label="mine, by q_sample")
left.axhline(1, color="grey", ls="--", label="right")
left.set(xlabel="t", ylim=(0, 1.2), title="variance of x_t, data of variance 1")
left.legend()
names = [f"{result.identity.name}  ({result.status})" for result in report.results]
right.barh(names[::-1], 1, color=[colours[result.status] for result in report.results[::-1]], height=0.9)
right.set(xticks=[], title="the identities")
right.tick_params(labelsize=8, length=0)
right.spines[:].set_visible(False)
right.margins(y=0.01)
show(fig)

# %% [markdown]
# ## *Do the checks themselves tell right from wrong?*
#
# They must pass what is right, for any schedule. This project's own functions are asked about schedules that are drawn too, and
# hold for all of them. When a drawn schedule fails, the smallest such schedule is brought back.

# %%
drawn = check_identities(schedules().map(Own), examples=small(100, 10))
print(f"this project: {len(drawn.names('holds'))} identities hold, {len(drawn.names('fails'))} fail")
assert drawn.passed
assert not check_identities(Own(td.NoiseSchedule.cosine(50)), examples=small(50, 10)).names("fails")

# %% [markdown]
# ## On your own code
#
# Write the methods that you have, in `Mine`'s form, around your own functions; leave out the others. The class `Adapter`
# lists all of them. A step that keeps beta in place
# of beta_tilde says so: `variance = "beta"`. DDIM says `eta = 0.0`. In a test suite it is two lines:
#
#     def test_my_diffusion():
#         check_identities(MyAdapter()).raise_if_failed()
#
# `demo/conformance/` does it with the samplers of other libraries.
#
# ## Exercises
#
# Mend the five bugs, each in one line. Copy `Mine`, or write a class that inherits from it; what is asked for is a class that
# can be called without arguments. `from lesson import check`, then:
#
# 1. The forward process, `q_step` and `q_sample`: two bugs. `check(10, 1, Mended)`.
# 2. `posterior` and `convert`: two bugs. `check(10, 2, Mended)`.
# 3. `step`: one bug, and all five are mended. `check(10, 3, Mended)`.
