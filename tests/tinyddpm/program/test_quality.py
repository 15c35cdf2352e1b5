"""Frechet distance, precision and recall, nearest neighbours: against closed forms and definitions."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import assert_close, host_arrays, seeds

from tinyddpm.program import quality
from tinyddpm.program.quality import frechet_distance, moments, nearest, precision_and_recall


def rotation(seed, size):
    return np.linalg.qr(host_arrays(seed, (size, size))[0])[0]


def covariance(seed, size, rank=None):
    root = host_arrays(seed, (size, rank or size))[0]
    return root @ root.T


# ---- Frechet distance ----


@given(seeds, st.integers(1, 6))
def test_of_diagonal_gaussians_it_is_a_sum_of_squares(seed, size):
    """sum (mean_a - mean_b)^2 + (sigma_a - sigma_b)^2, and the same after any rotation of both."""
    mean_a, mean_b, *sigmas = host_arrays(seed, *4 * [size])
    sigma_a, sigma_b = np.abs(sigmas)
    expected = ((mean_a - mean_b) ** 2 + (sigma_a - sigma_b) ** 2).sum()
    scale = (sigma_a**2 + sigma_b**2).sum()
    assert_close(frechet_distance(mean_a, np.diag(sigma_a**2), mean_b, np.diag(sigma_b**2)), expected, scale)
    q = rotation(seed, size)
    rotated = [q @ mean_a, q * sigma_a**2 @ q.T, q @ mean_b, q * sigma_b**2 @ q.T]
    assert_close(frechet_distance(*rotated), expected, scale)


def test_of_gaussians_in_the_plane_that_do_not_commute_it_is_what_2_by_2_matrices_give():
    """tr (A B)^(1/2) = sqrt(tr(A B) + 2 sqrt(det A det B)) for 2 x 2 matrices."""
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    assert np.abs(a @ b - b @ a).max() > 1
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(5.0 * 1.0))
    assert_close(frechet_distance(np.array([1.0, 0.0]), a, np.zeros(2), b), 1 + 5 + 6 - 2 * root)


@given(seeds, st.integers(1, 5))
def test_it_is_symmetric_and_not_negative_and_zero_of_equal_gaussians_only(seed, size):
    mean_a, mean_b = host_arrays(seed, size, size)
    a, b = covariance(seed, size), covariance(seed + 1, size)
    scale = np.trace(a) + np.trace(b)
    forth, back = frechet_distance(mean_a, a, mean_b, b), frechet_distance(mean_b, b, mean_a, a)
    assert_close(forth, back, scale)
    assert forth > 1e-6 * scale
    assert abs(frechet_distance(mean_a, a, mean_a, a)) < 1e-12 * scale


@given(seeds)
def test_covariances_of_less_than_full_rank_have_a_distance(seed):
    """As of fewer images than features: from the point at 0, it is the mean square."""
    mean, one = host_arrays(seed, 5)[0], covariance(seed, 5, rank=2)
    assert_close(frechet_distance(mean, one, np.zeros(5), np.zeros((5, 5))), (mean**2).sum() + np.trace(one), 0)
    assert abs(frechet_distance(mean, one, mean, one)) < 1e-12 * np.trace(one)


def test_moments_are_those_of_the_rows_also_of_one_feature():
    points = np.array([[1, 10], [3, 14], [8, 12]], np.float32)
    mean, found = moments(points)
    assert mean.tolist() == [4, 12] and found.tolist() == [[13, 2], [2, 4]]
    assert moments(points[:, :1])[1].tolist() == [[13]]


# ---- precision and recall ----


def share_in_balls(points, centres, k):
    """The definition, point by point."""
    inside = 0
    for point in points:
        for i, centre in enumerate(centres):
            others = [np.sum((centre - other) ** 2) for j, other in enumerate(centres) if j != i]
            if np.sum((point - centre) ** 2) <= sorted(others)[k - 1]:
                inside += 1
                break
    return inside / len(points)


@given(seeds, st.integers(1, 4), st.integers(5, 20), st.integers(5, 20))
def test_precision_and_recall_are_their_definition_in_blocks_of_any_size(seed, k, n, m):
    """Points on a grid, so that distances are exact and many are equal."""
    rng = np.random.default_rng(seed)
    real, drawn = rng.integers(0, 9, (n, 2)), rng.integers(3, 12, (m, 2))
    expected = share_in_balls(drawn, real, k), share_in_balls(real, drawn, k)
    for block in (1, 40, 1 << 24):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(quality, "BLOCK", block)
            assert precision_and_recall(real, drawn, k) == expected


def test_samples_of_one_kind_are_precise_and_leave_the_other_kind_out():
    line = np.arange(8.0)[:, None]
    real, drawn = np.concatenate([line, line + 100]), line + 0.25
    assert precision_and_recall(real, drawn) == (1.0, 0.5)
    assert precision_and_recall(drawn, real) == (0.5, 1.0)


def test_as_many_points_as_neighbours_are_too_few():
    with pytest.raises(ValueError, match="more than k = 3 points in each set, got 5 and 3"):
        precision_and_recall(np.zeros((5, 1)), np.zeros((3, 1)))


# ---- nearest neighbours ----


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.sampled_from([(4, 3), (2, 2, 3)]))
def test_the_nearest_image_is_the_one_that_a_loop_finds(seed, n, m, shape):
    rng = np.random.default_rng(seed)
    images, others = (rng.integers(0, 256, (count, *shape), dtype=np.uint8) for count in (n, m))
    found, apart = nearest(images, others)
    for image, number, distance in zip(images, found, apart, strict=True):
        squares = [((image / 255 - other / 255) ** 2).sum() for other in others]
        assume(len(set(squares)) == m)
        assert number == np.argmin(squares) and np.isclose(distance, np.sqrt(min(squares)), rtol=1e-6)


def test_a_copy_is_found_at_distance_zero_and_black_is_as_far_from_white_as_there_are_pixels():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    found, apart = nearest(train[[7, 33]], train)
    assert found.tolist() == [7, 33] and apart.tolist() == [0, 0]
    white, black = np.full((1, 4, 4), 255, np.uint8), np.zeros((1, 4, 4), np.uint8)
    assert nearest(white, black)[1].tolist() == [4]
