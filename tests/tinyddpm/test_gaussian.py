import math
from statistics import NormalDist

import numpy as np
import pytest
from device import there
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, host_arrays, normal_arrays, numbers, seeds

import nn
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian, exp, gaussian_kl, log, sum_per_sample

variances = st.floats(math.log(1e-4), math.log(1e4)).map(math.exp)


def gaussians(seed, N=3, d=4, count=2):
    arrays = normal_arrays(seed, *[(N, d)] * 2 * count)
    return [Gaussian(mean, np.exp(log)) for mean, log in zip(arrays[:count], arrays[count:], strict=True)]


def expectation(p, f):
    """E f(x) over x from p, (N, d), exact for f the sum of squares and linear terms of single elements.

    For such an f the points mean +- sqrt(d) sigma_i e_i, weighed alike, have the right mean (a cubature).
    """
    d = p.mean.shape[1]
    step = np.concatenate([np.eye(d), -np.eye(d)]) * math.sqrt(d)
    return np.mean([nn.to_numpy(f(p.sample(there(np.broadcast_to(s, p.mean.shape))))) for s in step], axis=0)


@given(seeds)
def test_e12_log_prob_is_the_log_of_the_density(seed):
    p, q = gaussians(seed)
    expected = sum_per_sample(np.vectorize(log_density)(*map(nn.to_numpy, (p.mean, p.variance, q.mean))))
    assert_close(p.log_prob(q.mean), expected, scale=20.0)


def log_density(mean, variance, x):
    return math.log(NormalDist(0, 1).pdf((x - mean) / math.sqrt(variance))) - math.log(variance) / 2


@given(numbers, variances, numbers)
def test_e12_negative_log_likelihood_has_the_precision_as_its_weight(mean, variance, x):
    mean, x = np.full((1, 3), mean), np.full((1, 3), x)
    expected = ((x - mean) ** 2).sum() / (2 * variance) + 1.5 * math.log(2 * math.pi * variance)
    assert_close(-Gaussian(mean, variance).log_prob(x), [expected], scale=20.0)


@given(seeds)
def test_e13_entropy_and_cross_entropy_are_expected_negative_log_probabilities(seed):
    p, q = gaussians(seed)
    assert_close(p.entropy(), expectation(p, lambda x: -p.log_prob(x)), scale=20.0)
    cross_entropy = expectation(p, lambda x: -q.log_prob(x))
    assert_close(p.cross_entropy(q), cross_entropy, scale=abs(cross_entropy) + 20.0)
    assert_close(p.cross_entropy(q), p.entropy() + p.kl(q), scale=20.0)


def test_e13_entropy_of_an_isotropic_gaussian():
    for variance in (0.3, np.full((2, 1), 0.3), np.full((2, 5), 0.3)):
        entropy = Gaussian(np.zeros((2, 5)), variance).entropy()
        assert_close(entropy, np.full(2, 2.5 * math.log(2 * math.pi * math.e * 0.3)))


@given(seeds)
def test_e11_kl_is_the_expected_log_ratio(seed):
    p, q = gaussians(seed)
    kl = expectation(p, lambda x: p.log_prob(x) - q.log_prob(x))
    assert_close(p.kl(q), kl, scale=abs(q.log_prob(p.mean)) + 100.0)


@given(seeds)
def test_e11_kl_is_positive_and_zero_only_for_equals(seed):
    p, q = gaussians(seed)
    assert (p.kl(q) > 0).all() and (q.kl(p) > 0).all()
    assert (p.kl(p) == 0).all()
    assert (p.kl(Gaussian(p.mean, p.variance * 1.001)) > 0).all()
    assert (p.kl(Gaussian(p.mean + 0.001, p.variance)) > 0).all()


@given(seeds, variances)
def test_e11_kl_of_equal_variances_is_the_squared_distance_over_twice_the_variance(seed, variance):
    m1, m2 = normal_arrays(seed, (2, 3), (2, 3))
    expected = ((m1 - m2) ** 2).sum(axis=1) / (2 * variance)
    assert_close(Gaussian(m1, variance).kl(Gaussian(m2, variance)), expected)


@given(seeds)
def test_e11_kl_adds_over_dimensions_and_ignores_invertible_affine_maps(seed):
    p, q = gaussians(seed)
    one = [[Gaussian(g.mean[:, i], g.variance[:, i]) for i in range(4)] for g in (p, q)]
    assert_close(p.kl(q), sum(a.kl(b) for a, b in zip(*one, strict=True)))
    a, b = normal_arrays(seed + 1, (1, 4), (1, 4))
    mapped = [Gaussian(a * g.mean + b, a**2 * g.variance) for g in (p, q)]
    assert_close(mapped[0].kl(mapped[1]), p.kl(q), scale=1000.0)


@given(seeds)
def test_e11_full_covariance_kl_equals_the_diagonal_one_and_ignores_affine_maps(seed):
    p, q = gaussians(seed)
    diagonals = [np.stack([np.diag(v) for v in g.variance]) for g in (p, q)]
    assert_close(gaussian_kl(p.mean, diagonals[0], q.mean, diagonals[1]), p.kl(q), scale=10.0)
    rotation, b = np.linalg.qr(host_arrays(seed + 1, (4, 4))[0])[0], 0.5
    a = there(rotation * np.array([0.5, 1.0, 1.5, 2.0]))
    mapped = [(g.mean @ a.T + b, a @ c @ a.T) for g, c in zip((p, q), diagonals, strict=True)]
    kl = gaussian_kl(*mapped[0], *mapped[1])
    assert kl.shape == (3,)
    assert_close(kl, p.kl(q), scale=1000.0, rtol=1e-11)


def test_e11_full_covariance_kl_of_a_single_pair():
    found = gaussian_kl(np.zeros(2), np.diag([1.0, 2.0]), np.array([0.0, 1.0]), np.diag([3.0, 2.0]))
    assert_close(found, (math.log(3) - 2 + 1 / 3 + 1 + 1 / 2) / 2)


def test_e11_full_covariance_kl_refuses_what_is_no_covariance():
    for covariances in (
        (np.array([[1.0, 0.5], [0.0, 1.0]]), np.eye(2)),
        (np.eye(2), np.array([[1.0, 0.5], [0.4, 1.0]])),
    ):
        with pytest.raises(ValueError, match="a covariance must be symmetric"):
            gaussian_kl(np.zeros(2), covariances[0], np.zeros(2), covariances[1])
    with pytest.raises(np.linalg.LinAlgError):
        gaussian_kl(np.zeros(2), np.eye(2), np.zeros(2), -np.eye(2))


def test_a_sample_is_the_mean_plus_the_root_of_the_variance_times_the_noise():
    p = Gaussian(np.array([[1.0, 2.0]]), np.array([[4.0, 9.0]]))
    assert p.sample(np.array([[1.0, -1.0]])).tolist() == [[3.0, -1.0]]


def test_results_are_per_sample_and_keep_the_dtype():
    mean = np.ones((2, 3, 4, 5), np.float32)
    for variance in (0.5, np.float32(0.5), np.full((2, 1, 1, 1), 0.5, np.float32)):
        p = Gaussian(mean, variance)
        for result in (p.log_prob(mean), p.entropy(), p.kl(STANDARD_NORMAL), p.kl(p), p.cross_entropy(p)):
            assert result.shape == (2,) and result.dtype == np.float32
        assert p.sample(mean).dtype == np.float32
        assert_close(p.entropy(), np.full(2, 30 * math.log(2 * math.pi * math.e * 0.5)), rtol=1e-6)
    assert sum_per_sample(np.ones(2)).tolist() == [1, 1] and sum_per_sample(np.float64(3)) == 3


BAD_VARIANCES = [np.ones((3, 1)), np.ones((1, 2, 3)), np.ones(2), -1.0, np.array([-1, 1, 1.0])]
BAD_VARIANCES += [np.nan, np.float32(-1), np.array([1, np.nan, 1.0])]


@pytest.mark.parametrize("variance", BAD_VARIANCES)
def test_a_variance_that_does_not_fit_or_is_negative_raises(variance):
    with pytest.raises(ValueError, match="variance"):
        Gaussian(np.zeros((2, 3)), variance)


@pytest.mark.parametrize("variance", [True, np.bool_(True), None, "1", [1.0], 1j, np.ones((2, 3), int)])
def test_a_variance_that_is_no_number_raises(variance):
    with pytest.raises((TypeError, ValueError), match="variance"):
        Gaussian(np.zeros((2, 3)), variance)


@pytest.mark.parametrize("mean", [np.zeros(2, int), [0.0], None, np.zeros(2, complex), 0])
def test_a_mean_that_is_not_floating_raises(mean):
    with pytest.raises(TypeError, match="mean must be a floating-point array"):
        Gaussian(mean, 1.0)


@pytest.mark.parametrize("number", [2, 2.0, np.int64(2), np.uint8(2), np.float16(2), np.float32(2), np.float64(2)])
def test_a_variance_that_is_a_number_takes_the_dtype_of_the_mean(number):
    for dtype in (np.float32, np.float64):
        p = Gaussian(np.ones((2, 3), dtype), number)
        assert p.variance == 2
        for found in (p.sample(p.mean), p.log_prob(p.mean), p.entropy(), p.kl(STANDARD_NORMAL)):
            assert found.dtype == dtype


def test_a_negative_variance_is_shown():
    with pytest.raises(ValueError, match="variance must not be negative, got -2.0"):
        Gaussian(np.zeros((2, 1)), np.array([[1.0], [-2.0]]))


@pytest.mark.parametrize("variance", [0, 0.0, np.float64(0), np.array([1.0, 0.0, 1.0])])
def test_a_point_has_no_density_and_says_so(variance):
    point, p = Gaussian(np.ones((2, 3)), variance), Gaussian(np.ones((2, 3)), 1.0)
    for f in (lambda: point.log_prob(p.mean), point.entropy, lambda: point.kl(p), lambda: p.kl(point)):
        with pytest.raises(ValueError, match="variance of 0 is a point"):
            f()


def test_an_empty_batch_is_a_batch():
    p = Gaussian(np.zeros((0, 3, 2), np.float32), 1.0)
    for found in (p.log_prob(p.mean), p.entropy(), p.kl(STANDARD_NORMAL), p.cross_entropy(p)):
        assert found.shape == (0,)
    assert sum_per_sample(np.zeros((2, 0))).tolist() == [0, 0]


@pytest.mark.parametrize(
    "x", [np.zeros((1, 3)), np.zeros((2, 1)), np.zeros(3), np.zeros((2, 3), np.float32), np.zeros((2, 3), int)]
)
def test_what_meets_a_gaussian_is_like_its_mean_and_is_not_broadcast(x):
    p = Gaussian(np.zeros((2, 3)), 1.0)
    with pytest.raises((ValueError, TypeError), match="x must|floating"):
        p.log_prob(x)
    if x.dtype.kind == "f":
        with pytest.raises((ValueError, TypeError), match="the other mean must"):
            p.kl(Gaussian(x, 1.0))


def test_a_variance_of_zero_is_a_point_and_one_may_be_per_dimension():
    assert (Gaussian(np.ones((2, 3)), 0.0).sample(np.ones((2, 3))) == 1).all()
    assert (Gaussian(np.ones((2, 3)), np.zeros(3)).sample(np.ones((2, 3))) == 1).all()


def test_the_standard_normal_and_numbers_as_the_other_gaussian():
    p = Gaussian(np.array([[2.0, 0.0]]), 1.0)
    assert p.kl(STANDARD_NORMAL).tolist() == [2.0]
    assert_close(p.kl(Gaussian(0.0, np.float64(4.0))), [(4 / 4 + 2 * (1 / 4 - 1 + math.log(4))) / 2])
    assert Gaussian(np.zeros(2, np.float32), 1.0).kl(Gaussian(0.0, np.float32(1.0))).dtype == np.float32


def test_a_tensor_with_its_own_log_and_exp_is_asked_for_them():
    class Tensor:
        __array_ufunc__ = None
        log = exp = staticmethod(lambda: "its own")

    assert log(Tensor()) == exp(Tensor()) == "its own"
    assert_close([log(2), log(np.float64(2)), log(np.array(2.0))], [math.log(2)] * 3)
    assert_close(exp(np.array(2.0)), math.e**2)
    assert log(np.float32(2)).dtype == exp(np.float32(2)).dtype == np.float32


def test_a_gaussian_is_a_constant_and_equal_to_itself_only():
    p = Gaussian(np.zeros(2), np.ones(2))
    with pytest.raises(AttributeError):
        p.mean = 1.0
    assert p == p and p != Gaussian(p.mean, p.variance)


def test_mixed_dtypes_and_shapes_raise():
    with pytest.raises(TypeError, match="variance must have the mean's dtype float32"):
        Gaussian(np.zeros(2, np.float32), np.ones(2))
    with pytest.raises(ValueError, match="noise must have the shape of the mean,"):
        Gaussian(np.zeros((2, 3)), 1.0).sample(np.zeros((2, 1)))
    with pytest.raises(TypeError, match="noise must have the dtype"):
        Gaussian(np.zeros((2, 3), np.float32), 1.0).sample(np.zeros((2, 3)))
