"""Conditioning a mixture on some of its elements: the reference for every method of inpainting. (E40)"""

import numpy as np
import pytest
from exact import COVARIANCE, any_data
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, seeds

from tinyddpm import NoiseSchedule
from tinyddpm.theory.mixture import finite_data, gaussian_data, mixture_data
from tinyddpm.theory.oracle import Oracle

some_seen = st.sampled_from([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]).map(
    lambda seen: np.array(seen, bool)
)


@given(some_seen, seeds)
def test_e40_missing_elements_of_a_gaussian_have_the_precision_of_their_block(seen, seed):
    rng = np.random.default_rng(seed)
    mean, values = rng.normal(size=3), rng.normal(size=seen.sum())
    law = gaussian_data(mean, COVARIANCE).given_part(seen, values)
    precision = np.linalg.inv(COVARIANCE)
    own, cross = precision[~seen][:, ~seen], precision[~seen][:, seen]
    assert_close(law.mean(), mean[~seen] - np.linalg.solve(own, cross @ (values - mean[seen])), rtol=1e-10, scale=1.0)
    assert_close(law.covariance(), np.linalg.inv(own), rtol=1e-10, scale=1.0)


@given(st.sampled_from(["gaussian", "diagonal", "mixture"]), some_seen, seeds)
def test_e40_seen_and_then_missing_make_the_whole_density(kind, seen, seed):
    # log p(missing | seen) = log p(all) - log p(seen), and log p(seen) is that of the mixture of the seen elements.
    rng = np.random.default_rng(seed)
    data, x = any_data(rng, kind), rng.normal(size=(1, 3))
    part = mixture_data(
        np.exp(data.log_weights), data.means[:, seen], np.stack([c[seen][:, seen] for c in data.covariances()])
    )
    left = data.given_part(seen, x[0, seen]).log_prob(x[:, ~seen]) + part.log_prob(x[:, seen])
    assert_close(left, data.log_prob(x), rtol=1e-10, scale=10.0)


def test_e40_samples_of_the_whole_that_come_near_the_seen_values_have_the_law_of_the_rest():
    rng = np.random.default_rng(0)
    data, seen = any_data(rng, "mixture"), np.array([True, False, False])
    x = data.sample(rng, 400_000)
    near = x[abs(x[:, 0] - 0.2) < 0.02, 1:]
    law = data.given_part(seen, [0.2])
    error = (np.diag(law.covariance()) / len(near)) ** 0.5
    assert len(near) > 1000 and (abs(near.mean(0) - law.mean()) < 5 * error).all()
    np.testing.assert_allclose(np.cov(near.T), law.covariance(), rtol=0.15, atol=0.02)


def test_e40_an_oracle_of_the_missing_elements_is_the_ideal_inpainter():
    # Its denoiser is E[missing | x_t of the missing, seen]: the denoiser of all elements with no noise in the seen.
    rng = np.random.default_rng(1)
    data, seen = gaussian_data(rng.normal(size=3), COVARIANCE), np.array([False, True, False])
    schedule, values = NoiseSchedule.linear(10), np.array([0.4])
    xt = rng.normal(size=(5, 2))
    found = Oracle(data.given_part(seen, values), schedule).denoise(xt, 6)
    signal, variance = schedule.alpha_bar[6] ** 0.5, schedule.one_minus_alpha_bar[6]
    law = data.given_part(seen, values)
    gain = signal * law.covariance() @ np.linalg.inv(signal**2 * law.covariance() + variance * np.eye(2))
    assert_close(found, law.mean() + (xt - signal * law.mean()) @ gain.T, rtol=1e-10, scale=1.0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda d: d.given_part([True, False], [0.0]), "seen must be 3 booleans"),
        (lambda d: d.given_part([1, 0, 0], [0.0]), "seen must be 3 booleans"),
        (lambda d: d.given_part([True] * 3, [0.0] * 3), "some true and some false"),
        (lambda d: d.given_part([False] * 3, []), "some true and some false"),
        (lambda d: d.given_part([True, False, False], [0.0, 0.0]), r"values must have shape \(1,\)"),
        (lambda d: d.given_part([True, False, False], [np.nan]), "x must be finite"),
        (lambda d: finite_data([[0.0, 1.0]]).given_part([True, False], [0.0]), "no density"),
        (lambda d: d.log_prob(np.zeros((2, 1))), r"x must be finite, of shape \(N, 3\), got shape \(2, 1\)"),
        (lambda d: d.log_prob(np.zeros(3)), r"shape \(N, 3\), got shape \(3,\)"),
        (lambda d: d.score(np.full((1, 3), np.nan)), "x must be finite"),
        (lambda d: d.given(np.full((1, 3), np.inf), 1.0, 0.1), "x must be finite"),
        (lambda d: gaussian_data([np.nan], 1.0), "must be finite"),
        (lambda d: gaussian_data([0.0, 0.0], [[1.0, np.nan], [np.nan, 1.0]]), "must be finite"),
        (lambda d: mixture_data([np.nan], [[0.0]], 1.0), "positive and of sum 1"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call(gaussian_data(np.zeros(3), COVARIANCE))
