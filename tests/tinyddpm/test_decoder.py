import math
from decimal import Decimal, localcontext
from statistics import NormalDist

import numpy as np
import pytest
from device import there
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, normal_arrays, numbers, seeds

from tinyddpm import Gaussian, NoiseSchedule
from tinyddpm.decoder import (
    discretised_log_prob,
    discretised_log_prob_gradient,
    log_bin_mass,
    log_bin_mass_gradient,
    log_ndtr,
    mills_ratio,
)
from tinyddpm.reverse import variance_table

ms = st.floats(-45, 45) | st.floats(-5, 5)
ws = st.floats(math.log(1e-9), math.log(30)).map(math.exp)
scales = st.floats(math.log(1e-4), math.log(1e2)).map(math.exp)


def all_bins(levels):
    return np.linspace(-1, 1, levels)[:, None]  # one pixel of each value: (levels, 1)


# ---- the normal distribution, held against 60 digits ----

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620900")


def density(x):
    return (-x * x / 2).exp() / (2 * PI).sqrt()


def tail(x):
    """P(Z > x): beyond 3 by Laplace's continued fraction, below by the power series around 0."""
    if x < 0:
        return 1 - tail(-x)
    if x >= 3:
        fraction = x
        for k in range(600, 0, -1):
            fraction = x + k / fraction
        return density(x) / fraction
    term = total = x
    for k in range(3, 200, 2):
        term *= x * x / k
        total += term
    return Decimal("0.5") - density(x) * total


@given(st.floats(0, 45) | st.floats(0, 1e-3) | st.floats(45, 1e6))
def test_e21_mills_ratio_and_both_tails_are_right_to_the_last_digits(x):
    with localcontext(prec=60, Emin=-(10**15)):
        exact = tail(Decimal(x))
        ratio, log_tail = exact / density(Decimal(x)), exact.ln()
    assert_close(mills_ratio(np.array([x])), [float(ratio)], rtol=2e-15)
    assert_close(log_ndtr(np.array([-x])), [float(log_tail)], rtol=1e-14)
    assert_close(log_ndtr(np.array([x])), [math.log1p(-float(exact))], scale=1e-300)


@given(ms, ws)
def test_e21_log_mass_of_a_bin_and_its_gradient_are_exact_in_the_tails_and_for_tiny_bins(m, w):
    with localcontext(prec=60):
        a, b = abs(Decimal(m)) - Decimal(w), abs(Decimal(m)) + Decimal(w)
        mass = tail(a) - tail(b)
        log_mass, by_m, by_w = mass.ln(), (density(b) - density(a)) / mass, (density(b) + density(a)) / mass
    m, w, sign = np.array([m]), np.array([w]), math.copysign(1, m)
    assert_close(log_bin_mass(m, w), [float(log_mass)], scale=1e-3)
    found = log_bin_mass_gradient(m, w)
    assert_close(found[0], [sign * float(by_m)], scale=1e-9)
    assert_close(found[1], [float(by_w)], scale=1e-9)


# ---- the decoder ----


@pytest.mark.parametrize("levels", [2, 3, 256])
@given(mean=numbers, sigma=scales)
def test_e21_masses_of_all_bins_sum_to_one_for_any_mean_and_variance(levels, mean, sigma):
    x0 = all_bins(levels)
    p = Gaussian(np.full_like(x0, mean), sigma**2)
    log_mass = discretised_log_prob(p, x0, levels)
    assert np.isfinite(log_mass).all()
    assert_close(np.exp(log_mass).sum(), 1.0)
    by_mean, by_log_variance = discretised_log_prob_gradient(p, x0, levels)
    assert_close((np.exp(log_mass) * by_mean[:, 0]).sum(), 0, scale=10 / sigma)
    assert_close((np.exp(log_mass) * by_log_variance[:, 0]).sum(), 0, scale=10)


def test_e21_bins_reach_half_way_and_the_outer_ones_to_infinity():
    mean, sigma = 0.3, 0.5
    x0 = all_bins(256)
    found = discretised_log_prob(Gaussian(np.full_like(x0, mean), sigma**2), x0)
    edges = np.concatenate([[-np.inf], (x0[1:, 0] + x0[:-1, 0]) / 2, [np.inf]])
    cdf = [NormalDist(mean, sigma).cdf(edge) for edge in edges]
    assert_close(np.exp(found), np.diff(cdf), scale=1e-3)


@given(seeds, st.floats(0.01, 3))
def test_e21_gradient_is_that_of_the_log_probability(seed, sigma):
    mean = normal_arrays(seed, (256, 1))[0]
    x0, variance, h = there(all_bins(256)), sigma**2, 1e-5
    by_mean, by_log_variance = discretised_log_prob_gradient(Gaussian(mean, variance), x0)

    def slope(p_plus, p_minus):
        return (discretised_log_prob(p_plus, x0) - discretised_log_prob(p_minus, x0)) / (2 * h)

    moved = [Gaussian(mean + s * h * sigma, variance) for s in (1, -1)]
    widened = [Gaussian(mean, variance * math.exp(s * h)) for s in (1, -1)]
    size = 1 + (abs(x0 - mean)[:, 0] / sigma) ** 2
    assert_close(sigma * by_mean[:, 0], slope(*moved), scale=size, rtol=1e-8)
    assert_close(by_log_variance[:, 0], slope(*widened), scale=size, rtol=1e-8)


def test_e21_log_and_gradient_are_finite_and_alive_far_in_the_tails():
    sigma, x0 = 1e-4, all_bins(256)
    for mean in (-3.0, 0.0, 3.0):
        p = Gaussian(np.full_like(x0, mean), sigma**2)
        z = (x0 - mean)[:, 0] / sigma
        log_mass, (by_mean, _) = discretised_log_prob(p, x0), discretised_log_prob_gradient(p, x0)
        near = abs(z) - 1 / 255 / sigma
        far = (near > 2000) & (abs(x0[:, 0]) < 1)  # there it is the tail beyond the near edge
        log_tail = -(near[far] ** 2) / 2 - np.log(near[far] * math.sqrt(2 * math.pi))
        assert far.sum() > 190
        assert_close(log_mass[far], log_tail, scale=1e6)
        assert_close(by_mean[far, 0], (np.sign(z) * near)[far] / sigma, rtol=1e-3)


def test_e21_results_are_per_sample_and_keep_dtype_and_module(xp):
    x0 = xp.full((2, 3, 4, 4), 1 / 255, np.float32)
    x0[0, 0] = 1
    inside = math.erf(1 / 255 / 0.1 / math.sqrt(2))
    expected = [32 * math.log(inside) + 16 * math.log((1 + inside) / 2), 48 * math.log(inside)]
    per_sample = xp.full((2, 1, 1, 1), 0.01, np.float32)
    for variance in (0.01, np.float32(0.01), per_sample, per_sample + 0 * x0):
        p = Gaussian(x0, variance)
        log_prob = discretised_log_prob(p, x0)
        assert isinstance(log_prob, xp.ndarray) and log_prob.dtype == np.float32
        assert_close(log_prob.tolist(), expected, rtol=1e-6)
        for gradient in discretised_log_prob_gradient(p, x0):
            assert isinstance(gradient, xp.ndarray) and gradient.dtype == np.float32
            assert gradient.shape == x0.shape


def test_e21_a_thousand_images_of_edge_and_inner_pixels_agree_with_them_one_by_one():
    rng = np.random.default_rng(0)
    x0 = 2 * rng.integers(0, 256, (5, 40)) / 255 - 1
    x0[:, :20] = rng.choice([-1.0, 1.0], (5, 20))
    p = Gaussian(x0 + 0.1 * rng.standard_normal(x0.shape), 0.01)
    one_by_one = [discretised_log_prob(Gaussian(p.mean[:, i], 0.01), x0[:, i]) for i in range(40)]
    assert_close(discretised_log_prob(p, x0), sum(one_by_one))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.01, -1.01, 257 / 255, np.nan])
def test_e21_values_off_the_grid_raise(value):
    x0 = np.full((2, 3), -1.0)
    x0[1, 1] = value
    with pytest.raises(ValueError, match="x0 must lie on the grid 2k/255 - 1"):
        discretised_log_prob(Gaussian(x0, 1.0), x0)


def test_e21_data_must_be_like_the_mean():
    x0 = np.full((2, 3), -1.0)
    with pytest.raises(ValueError, match="x0 must have the shape of the mean, "):
        discretised_log_prob(Gaussian(x0, 1.0), x0[:1])


@pytest.mark.parametrize("variance, floor", [("beta_tilde", 0.66), ("beta", 0.82)])
def test_e21_even_a_perfect_prediction_of_mnist_costs_bits_with_the_linear_schedule(variance, floor):
    # the last noise is as wide as a bin; 81% of the pixels are in an outer bin, as the first of these two
    x0 = np.array([[-1.0], [1 / 255]])
    sigma2 = variance_table(NoiseSchedule.linear(1000), variance)[1]
    found = -discretised_log_prob(Gaussian(x0, sigma2), x0) / math.log(2)
    inside = NormalDist().cdf(1 / 255 / math.sqrt(sigma2))
    assert_close(found, [-math.log2(inside), -math.log2(2 * inside - 1)])
    assert round(np.dot([0.81, 0.19], found), 2) == floor


def test_e21_a_bin_that_ends_at_the_mean_is_in_one_branch():
    assert_close(log_bin_mass(np.array([4.0]), np.array([4.0])), np.log(0.5))


@pytest.mark.parametrize("x", [-1.0, 1 / 255, 1.0])
@pytest.mark.parametrize("mean", [np.nan, np.inf, -np.inf])
def test_e21_a_mean_that_is_not_finite_gives_no_finite_number(x, mean):
    """Where no branch took an element, what lay in memory came back."""
    x0 = np.full((3, 2), x)
    with np.errstate(all="ignore"):
        for _ in range(3):
            np.full(6, 123.0)  # for memory that was used to be used again
            found = discretised_log_prob(Gaussian(np.full_like(x0, mean), 0.01), x0)
            assert (np.isnan(found) | (found <= 0)).all() and (found != 123).all()
            assert np.isnan(found).all() or mean * x > 0 or not np.isfinite(found).any()


@pytest.mark.parametrize("variance", [0.0, np.float64(0), np.array([[1.0], [0.0], [1.0]])])
def test_e21_a_point_has_no_mass_in_a_bin_beside_it(variance):
    x0 = np.full((3, 2), 1 / 255)
    with pytest.raises(ValueError, match="the variance must be above 0"):
        discretised_log_prob(Gaussian(x0, variance), x0)


@pytest.mark.parametrize("levels", [1, 0, -3, 2.0, True, None])
def test_e21_there_are_at_least_two_levels(levels):
    with pytest.raises(ValueError, match="levels must be an integer of at least 2"):
        discretised_log_prob(Gaussian(np.ones((2, 1)), 1.0), np.ones((2, 1)), levels)


def test_e21_levels_may_be_counted_in_any_type():
    x0 = all_bins(255)
    p = Gaussian(np.zeros_like(x0), 0.3)
    assert (discretised_log_prob(p, x0, np.uint8(255)) == discretised_log_prob(p, x0, 255)).all()
    gradients = [discretised_log_prob_gradient(p, x0, levels) for levels in (np.uint8(255), 255)]
    assert (gradients[0][0] == gradients[1][0]).all()


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf])
def test_e21_data_that_is_not_finite_is_not_on_the_grid(x):
    x0 = np.array([[x], [1.0]])
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="x0 must lie on the grid"):
        discretised_log_prob(Gaussian(np.zeros((2, 1)), 1.0), x0)


def test_e21_an_empty_batch_is_a_batch():
    x0 = np.zeros((0, 2), np.float32)
    assert discretised_log_prob(Gaussian(x0, 1.0), x0).shape == (0,)
