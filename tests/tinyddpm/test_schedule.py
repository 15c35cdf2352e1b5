import math
from decimal import localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import ExactTables, assert_close, drawn_schedules, schedules, schedules_and_t

from tinyddpm import SCHEDULES, NoiseSchedule, named_schedule

TABLES = ["beta", "alpha", "alpha_bar", "one_minus_alpha_bar", "beta_tilde", "snr", "log_snr", "timesteps"]
REFERENCE = [  # name, t, beta, alpha_bar, beta_tilde, SNR, from 40-digit arithmetic
    ("linear", 1, 0.0001, 0.9999, 0, 9999),
    ("linear", 2, 0.00011991991991992, 0.999780092072072, 5.45318766130261e-05, 4546.35765746352),
    ("linear", 500, 0.01004004004004, 0.0785872428817782, 0.0100313554146137, 0.0852899444626369),
    ("linear", 1000, 0.02, 4.03582976537568e-05, 0.0199999835265606, 4.03599265116843e-05),
    ("cosine", 1, 4.12842248217778e-05, 0.999958715775178, 0, 24221.3271556377),
    ("cosine", 500, 0.0031458862304782, 0.493843590440638, 0.00313619990405794, 0.97567388481864),
    ("cosine", 1000, 0.999, 2.42876690703447e-09, 0.998997576088192, 2.42876691293338e-09),
]


@pytest.mark.parametrize("name, t, beta, alpha_bar, beta_tilde, snr", REFERENCE)
def test_reference_numbers_of_the_specification_to_12_digits(name, t, beta, alpha_bar, beta_tilde, snr):
    schedule = named_schedule(name, 1000)
    found = [table[t] for table in (schedule.beta, schedule.alpha_bar, schedule.beta_tilde, schedule.snr)]
    assert_close(found, [beta, alpha_bar, beta_tilde, snr])


@given(schedules)
def test_e02_tables_equal_exact_arithmetic(schedule):
    exact = ExactTables(schedule)
    with localcontext(prec=60):
        assert_close(schedule.alpha, exact.alpha)
        assert_close(schedule.alpha_bar, exact.alpha_bar)
        assert_close(schedule.one_minus_alpha_bar, exact.noise)
        snr = [a / n for a, n in zip(exact.alpha_bar[1:], exact.noise[1:], strict=True)]
    assert_close(schedule.snr[1:], snr)


@given(drawn_schedules)
def test_logarithms_are_exact_where_the_subtraction_would_cancel(schedule):
    exact = ExactTables(schedule)
    with localcontext(prec=60):
        log_noise = [n.ln() for n in exact.noise[1:]]
        log_snr = [a.ln() - n for a, n in zip(exact.alpha_bar[1:], log_noise, strict=True)]
        assert_close(schedule.log_alpha[1:], [a.ln() for a in exact.alpha[1:]])
    assert_close(schedule.log_one_minus_alpha_bar[1:], log_noise)
    assert_close(schedule.log_snr[1:], log_snr, scale=abs(np.array(log_noise, float)))


@given(schedules)
def test_e02_moment_recursion_gives_the_closed_form(schedule):
    m, v = 1.0, 0.0
    for t in range(1, schedule.T + 1):
        m, v = math.sqrt(schedule.alpha[t]) * m, schedule.alpha[t] * v + schedule.beta[t]
        assert_close([m, v], [math.sqrt(schedule.alpha_bar[t]), schedule.one_minus_alpha_bar[t]], rtol=1e-11)


@given(schedules)
def test_e01_misprint_beta_in_place_of_its_root_breaks_the_recursion(schedule):
    v = 0.0
    for t in range(1, schedule.T + 1):
        v = schedule.alpha[t] * v + schedule.beta[t] ** 2  # the variance of the misprinted beta_t eps
    assert v < schedule.one_minus_alpha_bar[-1] * (1 - 1e-5)


@given(schedules_and_t())
def test_e04_merged_noise_is_the_sum_of_the_scaled_noises(case):
    schedule, t = case
    merged = sum(np.prod(schedule.alpha[k + 1 : t + 1]) * schedule.beta[k] for k in range(1, t + 1))
    assert_close(merged, schedule.one_minus_alpha_bar[t], rtol=1e-11)


@given(schedules)
def test_e05_signal_falls_and_noise_rises_at_every_step(schedule):
    assert (np.diff(schedule.alpha_bar) < 0).all() and (np.diff(schedule.snr) < 0).all()
    assert (np.diff(schedule.one_minus_alpha_bar) >= 0).all() and (np.diff(schedule.log_snr) < 0).all()
    assert schedule.alpha_bar[0] == 1 and 0 < schedule.alpha_bar[-1] and schedule.one_minus_alpha_bar[-1] <= 1


def test_e05_both_moments_tend_to_those_of_noise():
    for name in SCHEDULES:
        alpha_bar = named_schedule(name, 4000).alpha_bar[-1]
        assert alpha_bar < 1e-2, name


@given(schedules)
def test_entry_0_of_every_table_is_the_data(schedule):
    assert [schedule.beta[0], schedule.alpha[0], schedule.alpha_bar[0]] == [0, 1, 1]
    assert [schedule.one_minus_alpha_bar[0], schedule.beta_tilde[0], schedule.timesteps[0]] == [0, 0, 0]
    assert schedule.snr[0] == schedule.log_snr[0] == math.inf
    assert all(getattr(schedule, name).shape == (schedule.T + 1,) for name in TABLES)


@given(schedules)
def test_e07_precisions_add_up(schedule):
    t = np.arange(2, schedule.T + 1)
    precision = schedule.alpha[t] / schedule.beta[t] + 1 / schedule.one_minus_alpha_bar[t - 1]
    assert_close(1 / schedule.beta_tilde[t], precision)


@given(schedules, st.floats(0, 1))
def test_e09_exact_reverse_variance_lies_between_beta_tilde_and_beta(schedule, v):
    def reverse_variance(v):
        prev = schedule.alpha_bar[:-1] * v + schedule.one_minus_alpha_bar[:-1]  # Var x_{t-1}
        return prev * schedule.beta[1:] / (schedule.alpha[1:] * prev + schedule.beta[1:])

    assert schedule.beta_tilde[1] == 0
    assert (schedule.beta_tilde <= schedule.beta).all()
    assert_close(reverse_variance(1), schedule.beta[1:])
    assert_close(reverse_variance(0), schedule.beta_tilde[1:])
    assert (reverse_variance(v) >= schedule.beta_tilde[1:] * (1 - 1e-12)).all()
    assert (reverse_variance(v) <= schedule.beta[1:] * (1 + 1e-12)).all()


# ---- jumps and respacing ----


@given(schedules_and_t(first=0, count=2))
def test_e03_jump_is_exact_over_small_steps_behind_large_ones(case):
    schedule, s, t = case
    exact = ExactTables(schedule)
    alpha, beta = schedule.jump(s, t)
    with localcontext(prec=60):
        assert_close(alpha, exact.alpha_bar[t] / exact.alpha_bar[s])
        assert_close(beta, 1 - exact.alpha_bar[t] / exact.alpha_bar[s])


def test_e03_jump_takes_arrays_of_pairs():
    schedule = NoiseSchedule.linear(10)
    s, t = np.array([0, 3, 9]), np.array([10, 3, 10])
    alpha, beta = schedule.jump(s, t)
    assert alpha.shape == beta.shape == (3,)
    for i in range(3):
        assert (alpha[i], beta[i]) == schedule.jump(int(s[i]), int(t[i]))


@given(schedules, st.data())
def test_e32_respacing_keeps_alpha_bar_at_the_kept_steps(schedule, data):
    kept = sorted(data.draw(st.sets(st.integers(1, schedule.T), min_size=1, max_size=12)))
    respaced = schedule.respace(kept)
    assert respaced.timesteps.tolist() == [0, *kept]
    assert_close(respaced.alpha_bar[1:], schedule.alpha_bar[kept])
    assert_close(respaced.one_minus_alpha_bar[1:], schedule.one_minus_alpha_bar[kept])
    assert_close(respaced.log_snr[1:], schedule.log_snr[kept], scale=1.0)
    before = schedule.alpha_bar[[0, *kept[:-1]]]
    assert_close(respaced.beta[1:], 1 - schedule.alpha_bar[kept] / before, scale=1e-3)


@given(schedules, st.data())
def test_e32_evenly_spaced_steps_end_at_T_and_differ_by_at_most_one_in_length(schedule, data):
    S = data.draw(st.integers(1, schedule.T))
    lengths = np.diff(schedule.respace(S).timesteps)
    assert len(lengths) == S and lengths.sum() == schedule.T
    assert lengths.max() - lengths.min() <= 1


def test_e32_a_single_step_may_leave_less_signal_than_one_minus_beta_can_say():
    schedule = NoiseSchedule.constant(20, 0.999).respace(1)
    assert schedule.beta[1] == 1 and schedule.one_minus_alpha_bar[1] == 1
    assert_close([schedule.alpha[1], schedule.alpha_bar[1], schedule.snr[1]], [1e-60] * 3, rtol=1e-11)
    assert_close(schedule.log_snr[1], math.log(1e-60))
    again = NoiseSchedule.from_alpha_bar([1e-60])
    assert_close([again.alpha_bar[1], again.log_snr[1]], [1e-60, math.log(1e-60)])


def test_e32_respacing_twice_still_names_the_original_steps():
    schedule = NoiseSchedule.linear(100)
    assert schedule.respace(100).timesteps.tolist() == list(range(101))
    assert schedule.respace(10).timesteps.tolist() == list(range(0, 101, 10))
    assert schedule.respace(10).respace([1, 5]).timesteps.tolist() == [0, 10, 50]
    assert schedule.respace(7).respace(1).timesteps.tolist() == [0, 100]


@pytest.mark.parametrize(
    "timesteps", [0, 11, -1, True, 2.0, [], [0, 5], [5, 5], [6, 5], [11], [1, 11], [1.0], [[1]], np.array([], int)]
)
def test_e32_respacing_refuses_what_is_no_subsequence(timesteps):
    with pytest.raises(ValueError, match="timesteps"):
        NoiseSchedule.linear(10).respace(timesteps)


# ---- small integers ----

INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint64, np.int64]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_T_may_be_the_largest_number_of_a_small_type(name, dtype):
    T = min(np.iinfo(dtype).max, 300)
    schedule = named_schedule(name, dtype(T))
    assert schedule.T == T and type(schedule.T) is int
    assert (schedule.beta == named_schedule(name, T).beta).all()
    assert (named_schedule(name, np.array(T, dtype)).beta == schedule.beta).all()


@pytest.mark.parametrize("dtype", INTEGERS)
def test_e32_steps_may_be_counted_and_listed_in_any_type(dtype):
    T = min(np.iinfo(dtype).max, 255)
    schedule = NoiseSchedule.linear(T)
    assert schedule.respace(dtype(T)).timesteps.tolist() == list(range(T + 1))
    assert schedule.respace(np.array(5, dtype)).timesteps.tolist() == schedule.respace(5).timesteps.tolist()
    kept = schedule.respace(np.array([1, T - 1, T], dtype))
    assert kept.timesteps.tolist() == [0, 1, T - 1, T] and kept.timesteps.dtype == np.int64
    assert_close(kept.alpha_bar, schedule.alpha_bar[[0, 1, T - 1, T]])
    with pytest.raises(ValueError, match="timesteps must be increasing"):
        schedule.respace(np.array([6, 5], dtype))  # in uint8 their difference is 255


@pytest.mark.parametrize("dtype", INTEGERS)
def test_e03_a_jump_may_be_asked_for_in_any_type(dtype):
    T = min(np.iinfo(dtype).max, 255)
    schedule = NoiseSchedule.linear(T)
    assert schedule.jump(dtype(T - 1), dtype(T)) == schedule.jump(T - 1, T)
    assert schedule.jump(T - 1, T)[1] == pytest.approx(schedule.beta[T])
    found, expected = schedule.jump(np.array([0, T - 1], dtype), dtype(T)), schedule.jump(np.array([0, T - 1]), T)
    assert (found[0] == expected[0]).all() and (found[1] == expected[1]).all()


@pytest.mark.parametrize("s, t", [(-1, 3), (5, 11), (5, 4), (np.array([1, 5]), 4), (np.int8(-1), 3)])
def test_e03_a_jump_does_not_wrap_around_the_table_or_lead_back(s, t):
    with pytest.raises(ValueError, match="must"):
        NoiseSchedule.linear(10).jump(s, t)
    with pytest.raises(TypeError, match="s must be an integer"):
        NoiseSchedule.linear(10).jump(1.0, 3)


def test_e03_a_jump_between_two_integers_is_two_numbers():
    assert [np.shape(a) for a in NoiseSchedule.linear(4).jump(1, 3)] == [(), ()]


# ---- building one ----


@given(schedules)
def test_from_alpha_bar_and_from_beta_rebuild_the_schedule(schedule):
    for alpha_bar in (schedule.alpha_bar, schedule.alpha_bar[1:]):
        assert_close(NoiseSchedule.from_alpha_bar(alpha_bar).alpha_bar, schedule.alpha_bar)
    for beta in (schedule.beta, schedule.beta[1:], schedule.beta.tolist()):
        assert (NoiseSchedule.from_beta(beta).beta == schedule.beta).all()


@pytest.mark.parametrize(
    "beta", [[], [0.0], [0.1, 0.0], [0.1, 1.0], [0.1, -0.1], [0.1, np.nan], [[0.1]], 0.1, [0.1, 1e-17], [0.999] * 200]
)
def test_betas_outside_0_1_or_lost_in_rounding_are_refused(beta):
    with pytest.raises(ValueError, match="beta|alpha_bar must strictly decrease"):
        NoiseSchedule.from_beta(beta)


BAD_ALPHA_BARS = [[], [1.0], [0.5, 0.5], [0.5, 0.6], [0.5, 0.0], [0.5, -0.1], [1.1, 0.5], [np.nan]]


@pytest.mark.parametrize("alpha_bar", BAD_ALPHA_BARS)
def test_an_alpha_bar_that_does_not_decrease_within_0_1_is_refused(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar|beta"):
        NoiseSchedule.from_alpha_bar(alpha_bar)


@pytest.mark.parametrize("alpha_bar", [[0.5, 0.5], [0.5, 0.6], [0.5, 0.0], [1.1, 0.5]])
def test_what_is_wrong_with_an_alpha_bar_is_said_of_alpha_bar(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar must strictly decrease within"):
        NoiseSchedule.from_alpha_bar(alpha_bar)
    with pytest.raises(ValueError, match="^alpha_bar must be one-dimensional"):
        NoiseSchedule.from_alpha_bar([alpha_bar])
    with pytest.raises(ValueError, match="^beta must be one-dimensional"):
        NoiseSchedule.from_beta([alpha_bar])


@pytest.mark.parametrize("values", [np.array([0.1j]), [True, False], ["0.1"], [None]])
def test_tables_hold_real_numbers(values):
    for build in (NoiseSchedule.from_beta, NoiseSchedule.from_alpha_bar):
        with pytest.raises(TypeError, match="must hold real numbers"):
            build(values)


def test_a_schedule_refuses_an_alpha_bar_of_which_only_the_last_is_lost_and_keeps_float64():
    NoiseSchedule.from_beta([0.999] * 102)
    with pytest.raises(ValueError, match="stay above 0 in float64"):
        NoiseSchedule.from_beta([0.999] * 103)
    assert NoiseSchedule(np.array([0, 0.5], np.float32), np.arange(2)).beta.dtype == np.float64
    single = np.array([1, 0.7, 0.1], np.float32)
    assert_close(NoiseSchedule.from_alpha_bar(single).beta, NoiseSchedule.from_alpha_bar(single.tolist()).beta)


def test_a_table_must_start_at_the_data():
    with pytest.raises(ValueError, match="beta_0 = 0"):
        NoiseSchedule(np.array([0.1, 0.2]), np.arange(2))


@pytest.mark.parametrize(
    "timesteps, error, message",
    [
        ([0, 1, 2, 3], ValueError, "must be alike"),
        ([1, 2, 3], ValueError, "increase from 0"),
        ([0, 5, 5], ValueError, "increase from 0"),
        ([0, 5, -1], ValueError, "must lie in 0"),
        ([0.0, 1.0, 2.0], TypeError, "timesteps must be an integer"),
    ],
)
def test_a_schedule_has_an_increasing_timestep_for_each_step(timesteps, error, message):
    with pytest.raises(error, match=message):
        NoiseSchedule([0, 0.1, 0.2], timesteps)
    with pytest.raises(ValueError, match="must be alike"):
        NoiseSchedule([0, 0.1, 0.2], [0, 1, 2], alpha=[1, 0.9])
    assert NoiseSchedule([0, 0.1, 0.2], np.array([0, 100, 255], np.uint8)).timesteps.dtype == np.int64


def test_a_schedule_is_immutable_and_does_not_share_the_betas_it_was_given():
    beta = np.array([0.1, 0.2])
    schedule = NoiseSchedule.from_beta(beta)
    beta[0] = 0.5
    assert schedule.beta[1] == 0.1
    for name in TABLES:
        with pytest.raises(ValueError, match="read-only"):
            getattr(schedule, name)[1] = 0
    with pytest.raises(AttributeError):
        schedule.beta = beta
    assert repr(schedule) == "NoiseSchedule(T=2, alpha_bar_T=0.72)"
