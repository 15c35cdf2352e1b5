"""Binomial diffusion on few bits and few steps, where everything can be enumerated. (E33)"""

import itertools
from dataclasses import FrozenInstanceError
from functools import partial

import numpy as np
import pytest
from exact import schedules
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import assert_close, seeds

import nn
from tinyddpm import NoiseSchedule
from tinyddpm.theory import binomial as bits
from tinyddpm.theory import bound_forms as forms
from tinyddpm.theory.binomial import FAIR_COIN, Bernoulli, binomial_diffusion

dims = st.integers(1, 2)
few_steps = schedules(3)


def all_bits(n):
    """Every state of n bits: (2^n, n)."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def all_paths(x0, T):
    """[x_0, x_1, ..., x_T] with every path from x_0 (n,) in a row: each (2^(nT), n)."""
    states = all_bits(len(x0))
    index = np.array(list(itertools.product(range(len(states)), repeat=T)))
    return [np.tile(x0, (len(index), 1)), *(states[index[:, t]] for t in range(T))]


def any_model(schedule, n, rng):
    """denoise(xt, t) with a probability drawn for each bit, state and step."""
    table = rng.uniform(0.02, 0.98, (schedule.T + 1, 2**n, n))
    return lambda xt, t: table[t, (xt @ 2 ** np.arange(n)[::-1]).astype(int)]


def reverse_of(schedule, denoise):
    return lambda xt, t: bits.p_transition(schedule, denoise(xt, t), xt, t)


def path_log_prob(schedule, path):
    """log q(x_{1:T} | x_0) of each path."""
    return sum(bits.q_transition(schedule, path[t - 1], t).log_prob(path[t]) for t in range(1, len(path)))


def log_likelihood(schedule, reverse, x0):
    """log p(x_0), exactly: a sum over all paths."""
    path = all_paths(x0, schedule.T)
    steps = sum(reverse(path[t], t).log_prob(path[t - 1]) for t in range(1, len(path)))
    return np.logaddexp.reduce(steps) - len(x0) * np.log(2)


# ---- Bernoulli ----


@given(st.floats(1e-9, 1 - 1e-9), st.floats(1e-9, 1 - 1e-9))
def test_e13_entropy_cross_entropy_and_kl_are_sums_over_the_states(p, q):
    a, b = (Bernoulli(np.array([[v, 0.3]]), np.array([[1 - v, 0.7]])) for v in (p, q))
    states = all_bits(2)
    log_a, log_b = (np.array([d.log_prob(x[None])[0] for x in states]) for d in (a, b))
    assert_close(np.exp(log_a).sum(), 1.0)
    assert_close(a.entropy()[0], -(np.exp(log_a) * log_a).sum(), scale=1.0)
    assert_close(a.cross_entropy(b)[0], -(np.exp(log_a) * log_b).sum(), scale=1.0)
    assert_close(a.kl(b)[0], (np.exp(log_a) * (log_a - log_b)).sum(), scale=20.0)
    assert a.kl(b)[0] > -1e-14 and a.kl(a)[0] == 0
    assert_close(a.mean, np.array([[p, 0.3]]))
    assert_close(a.variance, np.array([[p * (1 - p), 0.21]]))


def test_what_never_happens_costs_nothing():
    certain = Bernoulli(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    likely = Bernoulli(np.array([[0.9, 0.2]]), np.array([[0.1, 0.8]]))
    assert certain.entropy()[0] == 0 and certain.kl(certain)[0] == 0
    assert_close(certain.kl(likely), [-np.log(0.9 * 0.8)])
    assert_close(certain.kl(FAIR_COIN), [2 * np.log(2)])


def test_a_distribution_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        FAIR_COIN.one = 0.4


def test_a_sample_is_one_where_the_uniform_noise_is_below_the_probability():
    coin = Bernoulli(np.array([[0.0, 0.3, 0.3, 1.0]]), np.array([[1.0, 0.7, 0.7, 0.0]]))
    drawn = coin.sample(np.array([[0.0, 0.29, 0.3, 0.999]]))
    np.testing.assert_array_equal(drawn, [[0, 1, 0, 1]])


# ---- the forward process ----


@given(schedules(64), seeds)
def test_e33_closed_form_is_the_steps_one_after_the_other(schedule, seed):
    one = np.array([[0.0, 1.0]])  # the chance of a 1, from each x_0
    for t in range(1, schedule.T + 1):
        stay, come = (bits.q_transition(schedule, np.array([[x]]), t).one[0, 0] for x in (1.0, 0.0))
        one = one * stay + (1 - one) * come
        assert_close(stay, 1 - schedule.beta[t] / 2)
        assert_close(come, schedule.beta[t] / 2)
        marginal = bits.q_marginal(schedule, np.array([[0.0, 1.0]]), t)
        assert_close(marginal.one, one, rtol=1e-11)
        assert_close(marginal.one, 0.5 + (np.array([[0.0, 1.0]]) - 0.5) * schedule.alpha_bar[t], scale=1.0)
        assert_close(marginal.one[:, ::-1], marginal.zero)


@given(schedules(64), seeds)
def test_e06_bayes_holds_for_bits_pointwise(schedule, seed):
    rng = np.random.default_rng(seed)
    t = rng.integers(1, schedule.T + 1, 8)
    x0, xs, xt = rng.integers(0, 2, (3, 8, 3)).astype(float)
    xs[t == 1] = x0[t == 1]  # or it is impossible
    posterior = bits.q_posterior(schedule, x0, xt, t)
    left = posterior.log_prob(xs) + bits.q_marginal(schedule, x0, t).log_prob(xt)
    step, start = bits.q_transition(schedule, xs, t), bits.q_marginal(schedule, x0, t - 1)
    assert_close(left, step.log_prob(xt) + start.log_prob(xs), scale=1.0)
    assert_close(posterior.one + posterior.zero, np.ones((8, 3)))
    np.testing.assert_array_equal(posterior.one[t == 1], x0[t == 1])


@given(schedules(64), seeds)
def test_e10_posterior_over_a_jump_is_the_sum_over_what_lies_between(schedule, seed):
    assume(schedule.T > 1)
    rng = np.random.default_rng(seed)
    t = int(rng.integers(2, schedule.T + 1))
    s = int(rng.integers(0, t - 1))
    x0, xt = rng.integers(0, 2, (2, 8, 1)).astype(float)
    direct = bits.q_posterior(schedule, x0, xt, t, s)
    between = bits.q_posterior(schedule, x0, xt, t)  # q(x_{t-1} | x_t, x_0), then q(x_s | x_{t-1}, x_0)
    after = [bits.q_posterior(schedule, x0, np.full_like(xt, bit), t - 1, s).one for bit in (0.0, 1.0)]
    assert_close(direct.one, between.zero * after[0] + between.one * after[1], scale=1.0)


@given(schedules(64), seeds)
def test_e15_bridge_is_the_middle_of_three_by_bayes(schedule, seed):
    assume(schedule.T > 1)
    rng = np.random.default_rng(seed)
    t = rng.integers(1, schedule.T, 8)
    x_prev, x, x_next = rng.integers(0, 2, (3, 8, 2)).astype(float)

    def joint(x):
        return bits.q_transition(schedule, x_prev, t).log_prob(x) + bits.q_transition(schedule, x, t + 1).log_prob(
            x_next
        )

    every = np.logaddexp.reduce([joint(np.tile(state, (8, 1))) for state in all_bits(2)])
    assert_close(bits.q_bridge(schedule, x_prev, x_next, t).log_prob(x), joint(x) - every, scale=1.0)


@given(few_steps, seeds)
def test_e33_without_its_own_log_odds_the_ideal_prediction_of_a_bit_does_not_depend_on_it(schedule, seed):
    rng, states = np.random.default_rng(seed), all_bits(3)
    share = rng.dirichlet(np.ones(8))  # of data whose bits depend on each other
    t = int(rng.integers(1, schedule.T + 1))
    like = [bits.q_marginal(schedule, np.tile(x0, (8, 1)), t).log_prob(states) for x0 in states]
    joint = share * np.exp(like).T  # by x_t, then x_0
    one = joint @ states  # P(each bit of x_0 is 1, x_t)
    others = np.log(one) - np.log(joint @ (1 - states)) - bits.log_odds(schedule, states, t)
    for bit in range(3):
        flipped = [int(np.flatnonzero((states == np.where(np.arange(3) == bit, 1 - x, x)).all(1))[0]) for x in states]
        assert_close(others[:, bit], others[flipped, bit], scale=10.0)


# ---- the bound, by enumeration: the same code as for Gaussians ----


FORMS = ("denoising_form", "consistency_form", "path_form", "entropy_form", "entropy_edge")


def form_means(schedule, reverse, x0):
    """The mean of each of FORMS over all paths from x_0."""
    path = all_paths(x0, schedule.T)
    weight = np.exp(path_log_prob(schedule, path))
    assert_close(weight.sum(), 1.0)
    return [weight @ getattr(forms, form)(binomial_diffusion(schedule), reverse, path) for form in FORMS]


@given(few_steps, dims, seeds)
def test_e14_e15_e16_e17_have_one_mean_which_is_above_minus_log_likelihood(schedule, n, seed):
    reverse = reverse_of(schedule, any_model(schedule, n, np.random.default_rng(seed)))
    probability = 0.0
    for x0 in all_bits(n):
        denoising, consistency, path, entropy, edge = form_means(schedule, reverse, x0)
        log_p = log_likelihood(schedule, reverse, x0)
        assert_close(consistency, denoising)
        assert_close(path, denoising)
        assert_close(-entropy - edge, denoising, scale=1.0)
        assert -log_p < denoising + 1e-12
        probability += np.exp(log_p)
    assert_close(probability, 1.0)


def test_e15_the_printed_form_is_not_the_bound_for_bits_either():
    schedule = NoiseSchedule.from_beta([0.3, 0.4, 0.5])
    reverse = reverse_of(schedule, any_model(schedule, 1, np.random.default_rng(0)))
    path = all_paths(np.array([1.0]), 3)
    weight = np.exp(path_log_prob(schedule, path))
    bound = weight @ forms.denoising_form(binomial_diffusion(schedule), reverse, path)
    printed = weight @ forms.misprinted_form(binomial_diffusion(schedule), reverse, path)
    assert abs(printed - bound) > 0.01


@given(few_steps, st.floats(0.01, 0.99))
def test_e18_for_one_bit_the_ideal_model_is_the_exact_reverse_and_the_bound_tight(schedule, share):
    def ideal(xt, t):  # P(x_0 = 1 | x_t) by Bayes
        like = [bits.q_marginal(schedule, np.full_like(xt, x), t) for x in (0.0, 1.0)]
        joint = [p * (xt * q.one + (1 - xt) * q.zero) for p, q in zip((1 - share, share), like, strict=True)]
        return joint[1] / (joint[0] + joint[1])

    means = [form_means(schedule, reverse_of(schedule, ideal), np.array([x]))[0] for x in (0.0, 1.0)]
    data = Bernoulli(np.array([[share]]), np.array([[1 - share]]))
    end = 0.5 + (share - 0.5) * schedule.alpha_bar[-1]
    at_end = Bernoulli(np.array([[end]]), np.array([[1 - end]]))
    expected = data.entropy()[0] + at_end.kl(FAIR_COIN)[0]
    assert_close((1 - share) * means[0] + share * means[1], expected, rtol=1e-11, scale=1.0)


@given(few_steps, dims, seeds)
def test_e14_terms_of_the_variational_bound_add_up_to_it(schedule, n, seed):
    denoise = any_model(schedule, n, np.random.default_rng(seed))
    x0, states = np.tile(all_bits(n)[-2], (2**n, 1)), all_bits(n)
    found = bits.variational_bound(schedule, denoise, x0, lambda t: 0.5 * (1 - states))
    assert found.denoising.shape == (schedule.T + 1, 2**n) and not found.denoising[:2].any()
    total = found.prior[0]
    for t in range(1, schedule.T + 1):
        marginal = bits.q_marginal(schedule, x0, t)
        noise = np.where(states == 1, 0.0, 1 - 1e-16)  # draws each state once
        np.testing.assert_array_equal(bits.q_sample(schedule, x0, t, noise), states)
        term = bits.denoising_term(schedule, denoise, x0, t, noise)
        total += np.exp(marginal.log_prob(states)) @ term
        drawn = bits.denoising_term(schedule, denoise, x0, t, 0.5 * (1 - states))
        np.testing.assert_array_equal(drawn, found.reconstruction if t == 1 else found.denoising[t])
    path = all_paths(x0[0], schedule.T)
    weight = np.exp(path_log_prob(schedule, path))
    expected = weight @ forms.denoising_form(binomial_diffusion(schedule), reverse_of(schedule, denoise), path)
    assert_close(total, expected, scale=1.0)
    assert_close(found.total, found.prior + found.denoising.sum(0) + found.reconstruction)


# ---- sampling and training ----


@given(few_steps, dims, seeds)
def test_the_sampler_draws_what_the_model_says(schedule, n, seed):
    denoise = any_model(schedule, n, np.random.default_rng(seed))
    rng, count = np.random.default_rng(seed), 5_000
    x_T = rng.integers(0, 2, (count, n)).astype(float)
    drawn = bits.sample(denoise, schedule, x_T, lambda t: rng.random((count, n)))
    for x in all_bits(n):
        p = np.exp(log_likelihood(schedule, reverse_of(schedule, denoise), x))
        assert abs((drawn == x).all(1).mean() - p) < 5 * (p * (1 - p) / count) ** 0.5 + 1e-9


@pytest.mark.parametrize("loss", ["bound", "simple"])
def test_training_on_either_loss_finds_the_true_probabilities(loss):
    # One bit, P(x_0 = 1) = 0.8, T = 2; a logit for each x_t and t. The expectation is over all x_0 and x_t.
    schedule, share = NoiseSchedule.from_beta([0.4, 0.6]), 0.8
    x0, xt = (np.array(v)[:, None] for v in zip(*itertools.product([0.0, 1.0], repeat=2), strict=True))
    logits = nn.tensor(np.zeros((2, 2)), requires_grad=True, dtype=np.float64)
    optimiser = nn.Adam([logits], nn.rates.cosine(0.1, 400))
    data = Bernoulli(np.full_like(x0, share), np.full_like(x0, 1 - share))
    weights = [np.exp(data.log_prob(x0) + bits.q_marginal(schedule, x0, t).log_prob(xt)) for t in (1, 2)]
    for _ in range(400):
        total = 0.0
        for t in (1, 2):
            x0_hat = nn.sigmoid(logits)[t - 1, xt[:, 0].astype(int)].reshape(4, 1)
            if loss == "bound":
                each = bits.step_kl(schedule, x0, x0_hat, xt, t)
            else:
                each = bits.bit_cross_entropy(x0, x0_hat)
            total = (each * weights[t - 1]).sum() + total
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    for t in (1, 2):
        joint = weights[t - 1].reshape(2, 2)  # by x_0 and x_t
        true = joint[1] / joint.sum(0)
        np.testing.assert_allclose(nn.sigmoid(logits).data[t - 1], true, atol=1e-3)


def test_simple_loss_is_the_cross_entropy_of_the_mean_bit():
    x0 = np.array([[[1.0, 0.0]], [[1.0, 1.0]]])
    x0_hat = np.array([[[0.9, 0.2]], [[0.5, 0.25]]])
    assert_close(bits.bit_cross_entropy(x0, x0_hat), [-np.log(0.9 * 0.8) / 2, -np.log(0.125) / 2])


def test_float32_stays_float32():
    rng = np.random.default_rng(4)
    schedule = NoiseSchedule.linear(10)
    x0 = rng.integers(0, 2, (3, 4, 4, 1)).astype(np.float32)
    bound = bits.variational_bound(
        schedule, lambda xt, t: 0.4 + 0.2 * xt, x0, lambda t: rng.random(x0.shape, np.float32)
    )
    assert bound.total.dtype == bound.denoising.dtype == np.float32 and bound.total.shape == (3,)
    t = np.array([1, 5, 10])
    x1 = bits.q_step(schedule, x0, 1, rng.random(x0.shape, np.float32))
    for answer in (
        bits.q_posterior(schedule, x0, x1, t).one,
        bits.q_bridge(schedule, x0, x1, 3).zero,
        bits.p_transition(schedule, 0.5 * x0, x1, t).one,
        x1,
    ):
        assert answer.dtype == np.float32 and answer.shape == x0.shape


def test_the_last_step_of_a_small_integer_type_is_a_step_like_any_other():
    schedule, x = NoiseSchedule.linear(256), np.array([[0.0, 1.0], [1.0, 1.0]])
    for small, plain in ((np.uint8(255), 255), (np.array([255, 3], np.uint8), np.array([255, 3]))):
        for call in (
            bits.q_transition,
            bits.q_marginal,
            partial(bits.q_posterior, xt=x),
            partial(bits.q_bridge, x_next=x),
        ):
            found, expected = (call(schedule, x, t=t) for t in (small, plain))
            np.testing.assert_array_equal(found.one, expected.one)
        np.testing.assert_array_equal(bits.log_odds(schedule, x, small), bits.log_odds(schedule, x, plain))
    jump = bits.q_posterior(schedule, x, x, np.uint8(255), np.uint8(0))
    np.testing.assert_array_equal(jump.one, x)


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda s, x: bits.q_marginal(s, x - 0.5, 1), ValueError, "x0 must hold bits, 0 or 1, got .* -0.5..0.5"),
        (lambda s, x: bits.q_transition(s, 2 * x, 1), ValueError, "x_prev must hold bits"),
        (lambda s, x: bits.q_posterior(s, x, x / 2, 1), ValueError, "xt must hold bits"),
        (lambda s, x: bits.q_bridge(s, x, x / 2, 1), ValueError, "x_next must hold bits"),
        (lambda s, x: bits.sample(None, s, x / 2, None), ValueError, "x_T must hold bits"),
        (lambda s, x: bits.log_odds(s, x / 2, 1), ValueError, "xt must hold bits"),
        (lambda s, x: bits.log_odds(s, x, 0), ValueError, "t must lie in 1..3"),
        (lambda s, x: bits.bit_cross_entropy(x / 2, x), ValueError, "x0 must hold bits"),
        (lambda s, x: bits.q_posterior(s, x, x, 2, 2), ValueError, "s must be before t, got s = 2, t = 2"),
        (lambda s, x: bits.q_posterior(s, x, x, 0), ValueError, "t must lie in 1..3"),
        (lambda s, x: bits.q_posterior(s, x[:1], x, 1), ValueError, "x0 must have the shape of xt"),
        (lambda s, x: bits.q_bridge(s, x, x, 3), ValueError, "t must lie in 1..2"),
        (lambda s, x: bits.q_bridge(s, x, x[:1], 1), ValueError, "x_next must have the shape"),
        (lambda s, x: bits.q_transition(s, x, 0), ValueError, "t must lie in 1..3"),
        (lambda s, x: bits.q_step(s, x, 1, x[:1]), ValueError, "uniform must have the shape"),
        (lambda s, x: bits.p_transition(s, x[:1], x, 1), ValueError, "x0_hat must have the shape of xt"),
        (lambda s, x: bits.bit_cross_entropy(x, x[:1]), ValueError, "x0_hat must have the shape of x0"),
        (lambda s, x: bits.q_marginal(s, x.astype(int), 1), TypeError, "floating-point"),
        (lambda s, x: bits.q_marginal(s, x * np.nan, 1), ValueError, "x0 must hold bits"),
        (lambda s, x: bits.q_sample(s, x, 1, x - 0.5), ValueError, r"uniform must lie in \[0, 1\), got -0.5..0.5"),
        (lambda s, x: bits.q_sample(s, x, 1, x), ValueError, r"uniform must lie in \[0, 1\)"),
        (lambda s, x: bits.q_sample(s, x, 1, 0 * x + np.nan), ValueError, r"uniform must lie in \[0, 1\)"),
        (lambda s, x: bits.p_transition(s, x + 0.5, x, 1), ValueError, r"probabilities must lie in \[0, 1\]"),
        (lambda s, x: bits.bit_cross_entropy(x, x + 0.5), ValueError, r"probabilities must lie in \[0, 1\]"),
        (lambda s, x: Bernoulli(0.5 * x, 0.4 * x), ValueError, "sum to 1"),
        (lambda s, x: Bernoulli(0.5, 0.4), ValueError, "sum to 1"),
        (lambda s, x: bits.sample(lambda xt, t: x - 2, s, x, lambda t: 0.5 * x), ValueError, "probabilities must lie"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, error, named):
    with pytest.raises(error, match=named):
        call(NoiseSchedule.linear(3), np.array([[0.0, 1.0], [1.0, 1.0]]))
