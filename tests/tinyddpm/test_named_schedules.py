"""The schedules that have a name: their shapes, their ends, and what they refuse."""

import math

import numpy as np
import pytest
from strategies import NAMED_CASES, assert_close

from tinyddpm import SCHEDULES, NoiseSchedule, named_schedule


@pytest.mark.parametrize("name, T", NAMED_CASES)
def test_every_named_schedule_is_valid_at_every_T_and_ends_in_noise(name, T):
    schedule = named_schedule(name, T)
    assert schedule.T == T and schedule.timesteps.tolist() == list(range(T + 1))
    assert schedule.alpha_bar[-1] < (0.0067 if name == "even_log_snr" else 0.004)  # sigmoid(-5) is 0.00669


@pytest.mark.parametrize("name, tolerance", [("linear", 0.06), ("sigmoid", 0.06), ("constant", 1e-9)])
def test_a_short_schedule_is_stretched_to_as_much_noise_as_a_long_one(name, tolerance):
    ends = [named_schedule(name, T).alpha_bar[-1] for T in (1, 2, 10, 100, 1000, 4000)]
    assert max(ends) / min(ends) < 1 + tolerance


def test_the_shapes_of_the_schedules_at_1000_steps():
    step = (0.02 - 1e-4) / 999
    assert_close(np.diff(NoiseSchedule.linear(1000).beta[1:]), step, scale=0.02)
    root = np.sqrt(NoiseSchedule.quadratic(1000).beta[1:])
    assert_close(np.diff(root), (math.sqrt(0.02) - 0.01) / 999, scale=0.2)
    assert_close(root[0], 0.01)
    assert_close(NoiseSchedule.constant(1000).beta[1:], 0.01005)
    sigmoid = NoiseSchedule.sigmoid(1000).beta[1:]
    assert_close(sigmoid + sigmoid[::-1], 0.0201)  # odd around the middle
    assert_close(sigmoid[0], 1e-4 + (0.02 - 1e-4) / (1 + math.exp(6)))


def test_the_cosine_schedule_follows_its_alpha_bar_until_the_cap():
    schedule, T, s = NoiseSchedule.cosine(50), 50, 0.008
    f = np.cos((np.arange(T + 1) / T + s) / (1 + s) * math.pi / 2) ** 2
    assert_close(schedule.alpha_bar[:-1], f[:-1] / f[0], rtol=1e-11)
    assert schedule.beta[-1] == 0.999
    assert NoiseSchedule.cosine(50, max_beta=0.9).beta[-1] == 0.9
    assert NoiseSchedule.cosine(50, s=0.1).beta[1] > schedule.beta[1]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 1.0])
def test_the_fine_cosine_schedule_has_its_share_of_steps_even_in_log_snr_and_the_others_of_the_cosine(share):
    T, high, low = 200, 9.0, -7.0
    log_snr = NoiseSchedule.fine_cosine(T, high, low, share).log_snr[1:]
    first, last = (np.arctan(np.exp(-x / 2)) for x in (high, low))
    done = share * (high - log_snr) / (high - low)
    done += (1 - share) * (np.arctan(np.exp(-log_snr / 2)) - first) / (last - first)
    assert_close(done, np.linspace(0, 1, T), scale=1, rtol=1e-6)
    assert_close(log_snr[[0, -1]], [high, low])


def test_fine_cosine_has_finer_steps_than_the_cosine_where_the_noise_is_small():
    fine, cosine = (-np.diff(named_schedule(name, 1000).log_snr[1:]) for name in ("fine_cosine", "cosine"))
    assert fine.max() < 0.12 and cosine.max() > 1


@pytest.mark.parametrize("name", ["fine_cosine", "even_log_snr"])
@pytest.mark.parametrize("ends", [(1.0, 1.0), (-5.0, 13.0), (np.inf, 0.0), (np.nan, 0.0)])
def test_a_log_snr_that_does_not_fall_is_refused(name, ends):
    with pytest.raises(ValueError, match="high must be above low"):
        SCHEDULES[name](5, *ends)


def test_a_share_beyond_0_to_1_is_refused():
    for share in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="share must lie in"):
            NoiseSchedule.fine_cosine(5, share=share)


def test_ends_that_are_given_are_taken_as_they_are():
    assert_close(NoiseSchedule.linear(5, 0.1, 0.5).beta, [0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert_close(NoiseSchedule.linear(1, 0.1, 0.5).beta, [0, 0.3])
    assert_close(NoiseSchedule.quadratic(3, 0.01, 0.25).beta, [0, 0.01, 0.09, 0.25])
    assert_close(NoiseSchedule.sigmoid(3, 0.1, 0.3).beta[2], 0.2)
    assert_close(NoiseSchedule.constant(4, 0.3).beta[1:], [0.3] * 4)
    with pytest.raises(ValueError, match="both"):
        NoiseSchedule.linear(5, beta_start=0.1)
    for ends in ((0.5, 1.0), (-0.1, 0.5), (np.nan, 0.5), (0.1, 0)):
        for name in ("linear", "quadratic", "sigmoid"):
            with pytest.raises(ValueError, match=r"beta must lie within \(0, 1\)"):
                SCHEDULES[name](5, *ends)
    for s in (-0.1, -1, -2, np.nan):
        with pytest.raises(ValueError, match="s must not be negative"):
            NoiseSchedule.cosine(5, s=s)


def test_every_step_of_the_even_schedule_erases_the_same_share():
    schedule = NoiseSchedule.even(9, end=0.1)
    assert_close(-np.diff(schedule.alpha_bar), [0.1] * 9)
    assert_close(schedule.beta[1:], 1 / np.arange(10, 1, -1))  # a tenth of the whole, of what is left
    assert named_schedule("even", 7).alpha_bar[-1] == pytest.approx(1e-4)


def test_named_schedule_lists_the_names_there_are():
    with pytest.raises(ValueError, match="unknown schedule 'cos'; there are: " + ", ".join(SCHEDULES)):
        named_schedule("cos", 10)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [0, -3, 2.5, "10", True, None])
def test_T_must_be_a_positive_integer(name, T):
    with pytest.raises(ValueError, match="T must be an integer"):
        named_schedule(name, T)
