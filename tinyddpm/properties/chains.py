"""The identities of a whole chain: the sampler's own loop, run with a model that is known exactly.

On Gaussian data and on two points the model has a closed form, and the chain is a recursion that is written out here.
Chains are short: where the adapter has more than `LONGEST` steps, its `with_steps` chooses some of them.
Next: terms.py.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from tinyddpm.properties.adapter import COORDINATES, PRECISIONS, Adapter, AdapterError, as_numpy, ask, own_kind, shaped
from tinyddpm.properties.cases import VARIANCES, Case, Coefficients, identity
from tinyddpm.properties.identities import predicted

__all__ = ["run", "expected_states", "gaussian", "two_points", "sampled_variance", "recursion_variance", "flow_error"]

LONGEST = 12


# ---- models ----


def gaussian(x, alpha_bar, variance=0.25):
    """E[x_0 | x] for data N(0, variance) a dimension; x is sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps. (E27)"""
    return x * (alpha_bar**0.5 * variance / (alpha_bar * variance + 1 - alpha_bar))


def two_points(x, alpha_bar):
    """E[x_0 | x] for data that are -1 or 1 in each dimension. (E27)"""
    return np.tanh(x * (alpha_bar**0.5 / np.maximum(1 - alpha_bar, 1e-12)))


# ---- running an adapter ----


def shortened(c):
    """The case of an adapter of at most LONGEST steps: c's own, or one that `with_steps` makes, of 2..LONGEST steps."""
    if len(c.adapter.alpha_bar) - 1 <= LONGEST:
        return c
    return replace(c, adapter=with_steps(c.adapter, 2 + (c.t - 1) % (LONGEST - 1)), t=1)


def with_steps(adapter, S):
    found = ask(adapter, "with_steps", S)
    if not isinstance(found, Adapter):
        raise AdapterError(f"with_steps must return an Adapter, got {type(found).__name__}")
    return found


def noises(c):
    """A noise for each t, made of the case's own: different from step to step, and as small as its parts."""
    return lambda t: (np.roll(c.noise, t, axis=1) * np.cos(t)).astype(c.x0.dtype)


def run(c, model, x_T=None, noise=None):
    """The states x_{T-1}, ..., x_0 of the adapter's chain from x_T, the case's eps unless given: (T, N, d)."""
    adapter, T = c.adapter, len(c.adapter.alpha_bar) - 1
    x_T, noise = c.eps if x_T is None else x_T, noises(c) if noise is None else noise
    scale = COORDINATES[adapter.coordinates]

    def denoise(x, alpha_bar):
        """The model as the adapter sees it: in its coordinates, its dtype and its kind of array."""
        alpha_bar = float(alpha_bar)
        x = shaped(x, x_T.shape, x_T.dtype, "x, which denoise is given,") / float(scale(np.float64(alpha_bar)))
        return own_kind(adapter, model(x.astype(np.float64), alpha_bar).astype(x_T.dtype))

    def drawn(t):
        return own_kind(adapter, noise(t))

    states = ask(adapter, "chain", denoise, x_T * c.scale(T), drawn)
    if len(states) != T:
        raise AdapterError(f"chain must return T = {T} states, x_(T-1) to x_0, got {len(states)}")
    found = [shaped(x, x_T.shape, x_T.dtype, "a state") / c.scale(T - 1 - i) for i, x in enumerate(states)]
    return np.stack(found)


# ---- what each solver must do: recursions in float64 ----


def ddim_step(chain, x, k, t, noise):
    """E30, and E29 for eta = 1; Euler's method in sigma is the case eta = 0."""
    x0_hat, eps_hat = chain.predict(x, k.signal)
    kept = k.alpha * k.noise_prev**2 / k.noise + (1 - chain.adapter.eta**2) * k.beta_tilde
    drawn = VARIANCES[chain.adapter.variance](k) ** 0.5 * chain.adapter.eta * noise if t > 1 else 0
    return k.signal_prev**0.5 * x0_hat + kept**0.5 * eps_hat + drawn


def heun_step(chain, x, k, t, noise):
    """The mean of the slopes eps_hat at both ends, in Karras's sigma; the last step is Euler's. (E31)"""
    x0_hat, eps_hat = chain.predict(x, k.signal)
    euler = k.signal_prev**0.5 * x0_hat + k.noise_prev**0.5 * eps_hat
    if t == 1:
        return euler
    _, eps_end = chain.predict(euler, k.signal_prev)
    sigma, sigma_prev = ((1 - s) ** 0.5 / s**0.5 for s in (k.signal, k.signal_prev))
    return k.signal_prev**0.5 * (x / k.signal**0.5 + (sigma_prev - sigma) * (eps_hat + eps_end) / 2)


def two_m_step(chain, x, k, t, noise):
    """DPM-Solver++(2M): x0_hat extrapolated along the log-SNR; the first and the last step are of first order. (E31)"""
    x0_hat, _ = chain.predict(x, k.signal)
    ahead = x0_hat
    if chain.before is not None and t > 1:
        x0_before, signal_before = chain.before
        here, before, after = (np.log(s / (1 - s)) / 2 for s in (k.signal, signal_before, k.signal_prev))
        ahead = x0_hat + (after - here) / (here - before) / 2 * (x0_hat - x0_before)
    chain.before = x0_hat, k.signal
    ratio = (k.noise_prev / k.noise) ** 0.5
    return ratio * x + (k.signal_prev**0.5 - ratio * k.signal**0.5) * ahead


SOLVERS = {"ddim": ddim_step, "heun": heun_step, "2m": two_m_step}


class Chain:
    """The memory of one run of a recursion, and the model as the sampler uses it."""

    def __init__(self, adapter, model):
        self.adapter, self.model, self.before = adapter, model, None

    def predict(self, x, signal):
        """x0_hat, clipped if the sampler clips, and the eps that it gives with x."""
        x0_hat = self.model(x, signal)
        if self.adapter.clip is not None:
            x0_hat = np.clip(x0_hat, *self.adapter.clip)
        return x0_hat, (x - signal**0.5 * x0_hat) / (1 - signal) ** 0.5


def expected_states(adapter, model, x_T, noise, rounding=0.0):
    """The states that the adapter's solver must give. rounding: of each state, as a share of its size."""
    chain, step, x, states = Chain(adapter, model), SOLVERS[adapter.solver], x_T.astype(np.float64), []
    rng = np.random.default_rng(0)
    for t in range(len(adapter.alpha_bar) - 1, 0, -1):
        k = Coefficients(adapter.alpha_bar, t, adapter.dtype)
        x = x + rounding * rng.uniform(-1, 1, x.shape) * (1 + abs(x))
        x = step(chain, x, k, t, noise(t).astype(np.float64))
        states.append(x)
    return np.stack(states)


def against_recursion(c, model):
    """The sides of an identity: the chain and its recursion. The tolerance is what rounding does to the recursion."""
    c = shortened(c)
    adapter = c.adapter
    if adapter.solver is None or not adapter.ends_at_data:
        raise NotImplementedError
    found = run(c, model)
    expected = expected_states(adapter, model, c.eps, noises(c))
    k = Coefficients(adapter.alpha_bar, 1, adapter.dtype)
    rounding = k.unit * (2 + 1 / k.noise**0.5)  # float32 tables err most near the data
    moved = expected_states(adapter, model, c.eps, noises(c), rounding)
    return found, expected, 2 * abs(moved - expected).max(axis=0) + 4 * rounding * (1 + abs(expected))


@identity("E29 chain", "on Gaussian data every state of the chain is that of the solver's recursion", most=10)
def chain_on_gaussian_data(c):
    return against_recursion(c, gaussian)


@identity("E26 chain", "on data of two points every state of the chain is that of the solver's recursion", most=10)
def chain_on_two_points(c):
    return against_recursion(c, two_points)


@identity("E43 point", "for data of a single point the chain ends there, whatever the solver", most=10)
def chain_to_a_point(c):
    c = shortened(c)
    if not c.adapter.ends_at_data:
        raise NotImplementedError
    x0 = predicted(c)[0].astype(np.float64)
    k = Coefficients(c.adapter.alpha_bar, 1, c.adapter.dtype)
    return run(c, lambda x, alpha_bar: x0)[-1], x0, 4 * k.end_error * (c.size + 1)


@identity("E29 again", "a second run of the same object gives what the first one gave, bit for bit", most=10)
def twice(c):
    c = shortened(c)
    first, second = run(c, gaussian), run(c, gaussian)
    return second, first, 0.0


@identity("E29 batch", "each sample of a batch gets what it gets alone", most=10)
def alone(c):
    c = shortened(c)
    rows = [
        replace(c, **{name: getattr(c, name)[i : i + 1] for name in ("x0", "eps", "noise")}) for i in range(len(c.x0))
    ]
    expected = np.concatenate([run(row, gaussian) for row in rows], axis=1)
    return (
        run(c, gaussian),
        expected,
        2 * Coefficients(c.adapter.alpha_bar, 1, c.adapter.dtype).unit * (1 + abs(expected)),
    )


# ---- convergence ----

COARSE = 20  # steps; the finer chain has twice as many


def flow_error(c, variance=0.25):
    """The largest error of the chain, as a share of x_t, against the probability flow of Gaussian data; until near x_0."""
    adapter, T = c.adapter, len(c.adapter.alpha_bar) - 1
    alpha_bar = np.asarray(adapter.alpha_bar, np.float64)
    one = np.ones((1, 1), c.x0.dtype)
    states = run(c, partial(gaussian, variance=variance), one, lambda t: 0 * one)[:, 0, 0]
    total = alpha_bar * variance + 1 - alpha_bar
    exact = (total[T - 1 :: -1] / total[T]) ** 0.5
    far = alpha_bar[T - 1 :: -1] < 0.9
    return abs(states / exact - 1)[far].max()


@identity("E31 order", "with twice the steps the distance to the probability flow falls by 2^order", most=1)
def order(c):
    adapter = c.adapter
    if adapter.order is None:
        raise NotImplementedError
    coarse, fine = (flow_error(replace(c, adapter=with_steps(adapter, S))) for S in (COARSE, 2 * COARSE))
    measured = np.log2(coarse / fine)
    enough = min(measured, adapter.order) if fine > 50 * Coefficients(adapter.alpha_bar, 1, adapter.dtype).unit else 0
    return enough, adapter.order if enough else 0, 0.5


# ---- grids ----


@identity("E32 respacing", "respacing keeps alpha_bar at the steps that it keeps")
def respacing(c):
    kept = sorted({c.t, len(c.adapter.alpha_bar) - 1})
    expected = np.asarray(c.adapter.alpha_bar)[[0, *kept]]  # E32
    return as_numpy(ask(c.adapter, "respace", kept).alpha_bar, "alpha_bar"), expected, c.k.unit


@identity("E32 grid", "S steps asked for are S different steps, from 0 to the last", most=40)
def grid(c):
    T = len(c.adapter.alpha_bar) - 1
    S = c.t
    alpha_bar = np.asarray(with_steps(c.adapter, S).alpha_bar, np.float64)
    ends = [alpha_bar[0], alpha_bar[-1] if c.adapter.starts_at_T else 0]
    expected = [1, c.adapter.alpha_bar[T] if c.adapter.starts_at_T else 0]
    return [len(alpha_bar) - 1, (np.diff(alpha_bar) < 0).sum(), *ends], [S, S, *expected], c.k.unit


# ---- what it does to samples ----


def sampled_variance(adapter, variance=0.25):
    """The variance of x_0 that the chain gives, started from N(0, 1), with the ideal model of data N(0, variance).

    Exact: the chain is linear in x_T and in the noises, so one run of a batch of units has all its factors.
    """
    return chain_variance(
        adapter, lambda model, x_T, noise: run(Case(adapter, 1, x_T, x_T, x_T), model, x_T, noise), variance
    )


def recursion_variance(adapter, variance=0.25):
    """The same for the recursion that the adapter claims to be. NotImplementedError if its solver is None."""
    if adapter.solver is None:
        raise NotImplementedError
    return chain_variance(adapter, partial(expected_states, adapter), variance)


def chain_variance(adapter, states, variance):
    """states(model, x_T, noise): the states of a chain."""
    T = len(adapter.alpha_bar) - 1
    units = np.eye(T + 1, dtype=PRECISIONS[adapter.dtype][0])[:, :, None]  # x_T, and the noise of each step, by itself
    last = states(partial(gaussian, variance=variance), units[0], lambda t: units[t])[-1]
    return float((last.astype(np.float64) ** 2).sum())
