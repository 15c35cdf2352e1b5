"""Which timesteps a respaced schedule visits: in what measure they are even, and that they are always S different ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyddpm import NoiseSchedule
from tinyddpm.schedule import SCHEDULES, named_schedule
from tinyddpm.spacing import CLEAR, HIDDEN, SPACINGS, at_log_snr, distinct

COSINE = NoiseSchedule.cosine(1000)
spacings = pytest.mark.parametrize("spacing", SPACINGS)


@spacings
@given(st.sampled_from(list(SCHEDULES)), st.integers(1, 60), st.data())
def test_e32_every_spacing_keeps_as_many_steps_as_asked_for_and_T_among_them(spacing, name, T, data):
    S = data.draw(st.integers(1, T))
    kept = named_schedule(name, T).respace(S, spacing).timesteps
    assert kept[0] == 0 and kept[-1] == T and len(kept) == S + 1
    assert (np.diff(kept) > 0).all()


@spacings
def test_all_steps_are_kept_where_as_many_are_asked_for_as_there_are(spacing):
    assert NoiseSchedule.cosine(50).respace(50, spacing).timesteps.tolist() == list(range(51))


def test_even_in_t_and_quadratic_are_multiples_of_T_rounded_up():
    assert COSINE.respace(4, "t").timesteps.tolist() == COSINE.respace(4).timesteps.tolist() == [0, 250, 500, 750, 1000]
    assert COSINE.respace(3, "t").timesteps.tolist() == [0, 334, 667, 1000]
    assert COSINE.respace(4, "quadratic").timesteps.tolist() == [0, 63, 250, 563, 1000]


@pytest.mark.parametrize("S", [5, 10, 20])
def test_even_in_log_snr_is_so_from_where_x_t_is_clear_to_where_it_is_hidden(S):
    few = COSINE.respace(S, "log_snr")
    targets = np.linspace(CLEAR, HIDDEN, S)[:-1]
    before, at = COSINE.log_snr[few.timesteps[1:-1] - 1], few.log_snr[1:-1]
    assert (at <= targets).all() and (targets < before).all()  # the first whole t with so much noise
    assert few.timesteps[-1] == 1000  # in the place of HIDDEN: x_T is what the chain starts from


def test_karras_is_even_in_the_seventh_root_of_noise_over_signal():
    found = COSINE.respace(10, "karras").snr[1:] ** (-1 / 14)
    expected = np.linspace(np.exp(-CLEAR / 14), np.exp(-HIDDEN / 14), 10)
    np.testing.assert_allclose(found[:-1], expected[:-1], rtol=0.02)  # rounded to whole t
    ratio = np.diff(np.log(COSINE.respace(10, "karras").snr[1:-1]))
    assert ratio[-1] / ratio[0] < 0.7  # closer together where there is more noise, other than even in log-SNR


def test_even_in_angle_is_even_in_t_for_the_cosine_schedule_and_gives_others_the_same_noise():
    few = COSINE.respace(10, "angle")
    assert abs(np.diff(few.timesteps[1:-1]) - 106).max() <= 1  # a ninth of 25..981, from CLEAR to HIDDEN
    other = NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(-np.linspace(13, -9, 5000)))).respace(10, "angle")
    np.testing.assert_allclose(other.log_snr[1:-1], few.log_snr[1:-1], atol=0.1)


def test_the_t_of_a_log_snr_is_found():
    assert at_log_snr(COSINE, COSINE.log_snr[[1, 17, 500, 1000]]) == pytest.approx([1, 17, 500, 1000])


@pytest.mark.parametrize("spacing", ["log_snr", "karras", "angle"])
def test_a_schedule_that_ends_sooner_is_spaced_over_what_it_has(spacing):
    log_snr = np.linspace(4, -3, 701)  # neither CLEAR nor HIDDEN
    schedule = NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(-log_snr)))
    few = schedule.respace(8, spacing)
    assert few.timesteps[[1, -1]].tolist() == [1, 701]
    assert np.diff(few.timesteps[1:]).min() > 50  # none are crowded at an end
    if spacing == "log_snr":
        assert abs(np.diff(few.timesteps[1:]) - 100).max() <= 1


def test_steps_that_would_be_one_are_moved_apart():
    assert distinct(np.array([1, 1, 1, 5.2]), 20).tolist() == [1, 2, 3, 20]
    assert distinct(np.array([18.5, 19, 19.5, 19.9]), 20).tolist() == [17, 18, 19, 20]


@pytest.mark.parametrize("spacing", ["linear", None, 3])
def test_another_spacing_is_refused_with_those_there_are(spacing):
    with pytest.raises(ValueError, match="unknown spacing .*; there are: t, quadratic, log_snr, karras, angle"):
        COSINE.respace(10, spacing)
