"""Schedules of the log-SNR fall from high to low, with the slope they say. (E35)"""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import assert_close, seeds

import nn
from tinyddpm.theory.log_snr import CosineLogSNR, LearnedLogSNR, LinearLogSNR, signal_and_sigma

HIGH, LOW = 6.0, -7.0
PIECES = LearnedLogSNR(HIGH, LOW, np.array([1.0, -3.0, 0.5, 2.0]))
SCHEDULES = [LinearLogSNR(HIGH, LOW), CosineLogSNR(HIGH, LOW), PIECES]
weights = hnp.arrays(float, st.integers(1, 9), elements=st.floats(0.1, 3))
any_schedule = st.sampled_from(SCHEDULES) | weights.map(lambda w: LearnedLogSNR(HIGH, LOW, w))


@given(any_schedule, seeds)
def test_a_schedule_falls_from_high_to_low_with_the_slope_it_says(schedule, seed):
    u = np.sort(np.random.default_rng(seed).uniform(size=50))
    ends = schedule(np.array([0.0, 1.0]))
    assert_close(ends, [HIGH, LOW])
    assert (np.diff(schedule(u)) < 0).all()
    h = 1e-7
    u = u[(u > h) & (u < 1 - h)]
    if isinstance(schedule, LearnedLogSNR):
        u = u[abs(u * len(schedule.weights) - np.round(u * len(schedule.weights))) > 1e-5]  # off the knots
    slope = (schedule(u + h) - schedule(u - h)) / (2 * h)
    assert schedule.slope(u).shape == u.shape
    np.testing.assert_allclose(schedule.slope(u), slope, rtol=1e-5)
    assert np.isfinite(schedule.slope(np.array([0.0, 1.0]))).all()


def test_cosine_is_the_schedule_whose_signal_is_the_cosine_of_a_steady_angle():
    angle = np.arccos(signal_and_sigma(CosineLogSNR(HIGH, LOW)(np.linspace(0, 1, 9)))[0])
    assert_close(np.diff(angle), np.full(8, (angle[-1] - angle[0]) / 8), rtol=1e-11)


def test_pieces_fall_by_their_share_of_squares():
    levels = LearnedLogSNR(9.0, 0.0, np.array([1.0, -2.0, 2.0]))(np.array([0.0, 1 / 3, 2 / 3, 1.0]))
    assert_close(levels, [9.0, 8.0, 4.0, 0.0], scale=1.0)


@pytest.mark.parametrize("log_snr", [-800.0, -700.0, 0.3, 700.0])
def test_signal_and_sigma_have_the_snr_and_unit_power(log_snr):
    with np.errstate(over="ignore"):
        signal, sigma = signal_and_sigma(np.array(log_snr))
    assert abs(signal**2 + sigma**2 - 1) < 1e-15
    if abs(log_snr) < 1:
        assert_close(np.log(signal**2 / sigma**2), log_snr)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: LinearLogSNR(1.0, 1.0), "high must be above low, got 1.0 and 1.0"),
        (lambda: CosineLogSNR(-1.0, 1.0), "high must be above low"),
        (lambda: LearnedLogSNR(-1.0, 1.0, np.ones(2)), "high must be above low"),
        (lambda: LearnedLogSNR(1.0, 0.0, np.ones((2, 2))), r"weights must have shape \(K,\), got \(2, 2\)"),
        (lambda: SCHEDULES[0](np.array([0.5, 1.1])), r"u must lie in \[0, 1\], got 0.5..1.1"),
        (lambda: SCHEDULES[1](np.array([-0.1])), "u must lie"),
        (lambda: SCHEDULES[2].slope(np.array([np.nan])), "u must lie"),
        (lambda: LinearLogSNR(np.inf, 0.0), "high must be above low"),
        (lambda: LinearLogSNR(np.nan, 0.0), "high must be above low"),
        (lambda: LearnedLogSNR(1.0, 0.0, np.zeros(3)), "finite and not all zero"),
        (lambda: LearnedLogSNR(1.0, 0.0, np.array([1.0, np.nan])), "finite and not all zero"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_cannot_be_changed(schedule):
    with pytest.raises(FrozenInstanceError):
        schedule.high = 9.0


def test_a_number_or_a_list_is_a_time_too():
    assert LinearLogSNR(6.0, -7.0)(0) == 6.0 and LinearLogSNR(6.0, -7.0)(1) == -7.0
    assert_close(CosineLogSNR(6.0, -7.0)([0, 1]), [6.0, -7.0])
    assert LinearLogSNR(6.0, -7.0)(np.uint8(1)) == -7.0


@pytest.mark.parametrize("schedule", [SCHEDULES[0], PIECES])
def test_the_slope_is_what_nn_differentiates_the_schedule_to(schedule):
    u = nn.tensor(np.array([0.03, 0.4, 0.6, 0.99]), requires_grad=True, dtype=np.float64)
    (slope,) = nn.gradients(schedule(u).sum(), [u])
    assert_close(schedule.slope(u.data), slope)


def test_a_learned_schedule_still_falls_at_the_end_of_time():
    schedule = LearnedLogSNR(5.0, -5.0, np.ones(3))
    assert_close(schedule.slope(np.array([1.0])), np.array([-10.0]))
