import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import assert_close, normal_arrays, numbers, schedules, schedules_and_t, seeds

from tinyddpm import NoiseSchedule, q_jump, q_marginal, q_posterior, q_sample, q_step, q_transition
from tinyddpm.forward import q_bridge

point = numbers.map(lambda x: np.array([[x]]))
ONE = np.ones((1, 1))


def moments(step):
    """Mean and variance that `step(noise)` has for standard normal noise, if it is linear in the noise."""
    high, low = step(ONE), step(-ONE)
    return (high + low) / 2, ((high - low) / 2) ** 2


@given(schedules, point)
def test_e01_e02_iterated_steps_give_the_closed_form(schedule, x0):
    m, v = x0, 0 * x0
    for t in range(1, schedule.T + 1):
        factor = q_transition(schedule, ONE, t).mean
        step_mean, step_variance = moments(lambda noise, t=t: q_step(schedule, 0 * ONE, t, noise))
        m, v = factor * m + step_mean, factor**2 * v + step_variance
    assert_close(m, q_marginal(schedule, x0, schedule.T).mean, rtol=1e-11)
    assert_close(v[0, 0], q_marginal(schedule, x0, schedule.T).variance, rtol=1e-11)


@given(schedules_and_t(first=0), point)
def test_e02_a_sample_has_the_moments_of_the_marginal(case, x0):
    schedule, t = case
    mean, variance = moments(lambda noise: q_sample(schedule, x0, t, noise))
    assert_close(mean, np.sqrt(schedule.alpha_bar[t]) * x0, scale=1.0)
    assert_close(variance, schedule.one_minus_alpha_bar[t], scale=1e-3)
    assert (q_sample(schedule, x0, 0, ONE) == x0).all()


@given(schedules_and_t(first=0, count=3), point)
def test_e03_jumps_compose(case, x):
    schedule, s, u, t = case
    direct, first = q_jump(schedule, x, s, t), q_jump(schedule, x, s, u)
    factor = q_jump(schedule, ONE, u, t).mean
    assert_close(factor * first.mean, direct.mean)
    assert_close(factor**2 * first.variance + q_jump(schedule, x, u, t).variance, direct.variance)


@given(schedules_and_t(), point)
def test_e03_a_jump_is_the_identity_the_closed_form_or_one_step(case, x):
    schedule, t = case
    nowhere, whole, last = q_jump(schedule, x, t, t), q_jump(schedule, x, 0, t), q_jump(schedule, x, t - 1, t)
    assert (nowhere.mean == x).all() and nowhere.variance == 0
    assert_close(whole.mean, q_marginal(schedule, x, t).mean)
    assert_close(whole.variance, q_marginal(schedule, x, t).variance)
    assert_close(last.mean, q_transition(schedule, x, t).mean)
    assert_close(last.variance, q_transition(schedule, x, t).variance)


# ---- the posterior ----


def assert_bayes(schedule, x0, xs, xt, s, t):
    """log q(x_s|x_t,x_0) + log q(x_t|x_0) = log q(x_t|x_s) + log q(x_s|x_0)."""
    terms = [
        q_posterior(schedule, x0, xt, t, s).log_prob(xs),
        q_marginal(schedule, x0, t).log_prob(xt),
        q_jump(schedule, xs, s, t).log_prob(xt),
        q_marginal(schedule, x0, s).log_prob(xs),
    ]
    assert_close(terms[0] + terms[1], terms[2] + terms[3], scale=np.abs(terms).sum())


@given(schedules_and_t(first=2), point, point, point)
def test_e06_bayes_holds_at_any_three_points(case, x0, x_prev, xt):
    schedule, t = case
    assert_bayes(schedule, x0, x_prev, xt, t - 1, t)


@given(schedules_and_t(count=2), point, point, point)
def test_e10_bayes_holds_over_any_gap(case, x0, xs, xt):
    schedule, s, t = case
    if s < t:
        assert_bayes(schedule, x0, xs, xt, s, t)


@given(schedules_and_t(first=2), point, point)
def test_e07_moments_of_the_posterior_complete_the_square(case, x0, xt):
    schedule, t = case
    p = q_posterior(schedule, x0, xt, t)
    alpha, beta, noise = schedule.alpha[t], schedule.beta[t], schedule.one_minus_alpha_bar[t - 1]
    variance = 1 / (alpha / beta + 1 / noise)
    terms = alpha**0.5 / beta * xt, schedule.alpha_bar[t - 1] ** 0.5 / noise * x0
    assert_close(p.variance, variance)
    assert_close(p.variance, schedule.beta_tilde[t])
    assert_close(p.mean, variance * (terms[0] + terms[1]), scale=variance * (abs(terms[0]) + abs(terms[1])))


@given(schedules_and_t(), point, point)
def test_e07_at_t_1_the_posterior_is_x0_itself(case, x0, xt):
    schedule, t = case
    assert_close(q_posterior(schedule, x0, xt, 1).mean, x0)
    assert q_posterior(schedule, x0, xt, 1).variance == 0
    assert_close(q_posterior(schedule, x0, xt, t, s=0).mean, x0)
    assert q_posterior(schedule, x0, xt, t, s=0).variance == 0


@given(schedules_and_t(count=3), point, point)
def test_e10_posteriors_compose(case, x0, xt):
    schedule, s, u, t = case
    if not s < u < t:
        return
    direct, first = q_posterior(schedule, x0, xt, t, s), q_posterior(schedule, x0, xt, t, u)
    second = q_posterior(schedule, x0, first.mean, u, s)
    factor = q_posterior(schedule, 0 * ONE, ONE, u, s).mean
    assert_close(second.mean, direct.mean, scale=abs(x0) + abs(xt))
    assert_close(factor**2 * first.variance + second.variance, direct.variance + 0 * ONE)


@given(schedules_and_t(first=2), point, point, point)
def test_e15_bridge_is_the_product_of_its_two_steps(case, x_prev, x, x_next):
    schedule, t = case
    t = t - 1
    log_joint = [
        q_transition(schedule, x_prev, t).log_prob(x),
        q_transition(schedule, x, t + 1).log_prob(x_next),
        -q_jump(schedule, x_prev, t - 1, t + 1).log_prob(x_next),
    ]
    bridge = q_bridge(schedule, x_prev, x_next, t)
    assert_close(bridge.log_prob(x), sum(log_joint), scale=np.abs(log_joint).sum())
    assert_close(1 / bridge.variance, 1 / schedule.beta[t] + schedule.alpha[t + 1] / schedule.beta[t + 1])


# ---- shapes, dtypes, errors ----

FUNCTIONS = {
    "q_sample": lambda schedule, x, t: q_sample(schedule, x, t, x),
    "q_step": lambda schedule, x, t: q_step(schedule, x, t, x),
    "q_jump": lambda schedule, x, t: q_jump(schedule, x, t - 1, t).sample(x),
    "q_posterior": lambda schedule, x, t: q_posterior(schedule, x, x, t).sample(x),
    "q_posterior_s": lambda schedule, x, t: q_posterior(schedule, x, x, t + 3, t).sample(x),
    "q_bridge": lambda schedule, x, t: q_bridge(schedule, x, x, t).sample(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@given(seed=seeds, t=st.lists(st.integers(1, 7), min_size=3, max_size=3))
def test_a_batch_of_t_is_the_samples_one_by_one(name, seed, t):
    schedule, f = NoiseSchedule.linear(10), FUNCTIONS[name]
    (x,) = normal_arrays(seed, (3, 2, 2))
    together = f(schedule, x, np.array(t))
    for i in range(3):
        assert (together[i] == f(schedule, x[i : i + 1], t[i])[0]).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("t", [2, np.array([2, 5])])
def test_dtype_shape_and_module_are_those_of_the_data(name, dtype, t, xp):
    x = xp.ones((2, 3, 3), dtype)
    found = FUNCTIONS[name](NoiseSchedule.linear(10), x, t)
    assert isinstance(found, xp.ndarray) and found.dtype == dtype and found.shape == x.shape


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("t", [-1, 11, np.array([1, 11])])
def test_t_out_of_range_raises(name, t):
    with pytest.raises(ValueError, match="must lie in"):
        FUNCTIONS[name](NoiseSchedule.linear(10), np.ones((2, 3)), t)


def test_t_0_is_the_data_and_no_step_leads_there():
    schedule, x = NoiseSchedule.linear(10), np.ones((2, 3))
    for f in (lambda: q_step(schedule, x, 0, x), lambda: q_posterior(schedule, x, x, 0, 0)):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.10"):
            f()
    for t in (0, 10):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.9"):
            q_bridge(schedule, x, x, t)


def test_s_must_come_before_t():
    schedule, x = NoiseSchedule.linear(10), np.ones((2, 3))
    with pytest.raises(ValueError, match="s must not be after t"):
        q_jump(schedule, x, 5, 4)
    with pytest.raises(ValueError, match="s must not be after t"):
        q_jump(schedule, x, np.array([1, 5]), 4)
    with pytest.raises(ValueError, match="s must be before t"):
        q_posterior(schedule, x, x, 4, 4)
    with pytest.raises(ValueError, match="s must be before t"):
        q_posterior(schedule, x, x, np.array([9, 4]), 5)


def test_data_noise_and_states_must_be_alike():
    schedule, x = NoiseSchedule.linear(10), np.ones((2, 3))
    for f, name, other in (
        (lambda y: q_sample(schedule, x, 2, y), "noise", "the mean"),
        (lambda y: q_step(schedule, x, 2, y), "noise", "the mean"),
        (lambda y: q_posterior(schedule, y, x, 2), "x0", "xt"),
        (lambda y: q_bridge(schedule, x, y, 2), "x_next", "x_prev"),
        (lambda y: q_bridge(schedule, x, y, np.array([2, 3])), "x_next", "x_prev"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must have the shape of {other}, "):
            f(x[:1])
        with pytest.raises(TypeError, match=f"^{name} must have the dtype of {other}, "):
            f(x.astype(np.float32))
        with pytest.raises(TypeError, match="floating"):
            f(x.astype(int))


# ---- small integers ----

INTEGERS = [np.uint8, np.int8, np.uint16, np.int16, np.uint64, np.int64]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_type_of_t_changes_nothing(name, dtype):
    """In uint8 255 + 1 is 0: the variance of q(x_254 | x_255, x_0) came out as -0 for 0.0051."""
    T = min(np.iinfo(dtype).max, 255)
    schedule, x = NoiseSchedule.cosine(T), np.full((2, 3), 0.5)
    for t in (np.array([1, T - 4], dtype), dtype(T - 4), np.array(T - 4, dtype)):
        assert (FUNCTIONS[name](schedule, x, t) == FUNCTIONS[name](schedule, x, t.astype(int))).all()


def test_e07_the_last_step_of_uint8_has_the_variance_of_any_other():
    schedule, x = NoiseSchedule.linear(255), np.ones((1, 1))
    for t in (np.array([255], np.uint8), np.uint8(255)):
        assert_close(q_posterior(schedule, x, x, t).variance, schedule.beta_tilde[255])
        assert_close(q_posterior(schedule, x, x, t, s=np.uint8(254)).variance, schedule.beta_tilde[255])
        assert_close(q_jump(schedule, x, np.uint8(0), t).variance, schedule.one_minus_alpha_bar[255])
        with pytest.raises(ValueError, match="s must be before t"):
            q_posterior(schedule, x, x, np.uint8(4), s=t)


def test_an_error_names_s_where_s_is_wrong():
    schedule, x = NoiseSchedule.linear(10), np.ones((2, 3))
    for f in (lambda s: q_jump(schedule, x, s, 5), lambda s: q_posterior(schedule, x, x, 5, s)):
        with pytest.raises(ValueError, match=r"^s must lie in 0\.\.10"):
            f(-1)
        with pytest.raises(ValueError, match="^s must be an integer or have shape"):
            f(np.array([1, 2, 3]))
        with pytest.raises(TypeError, match="^s must be an integer"):
            f(1.0)


# ---- what else may come in ----


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_empty_batch_is_a_batch(name):
    x = np.zeros((0, 3), np.float32)
    for t in (2, np.zeros(0, int)):
        assert FUNCTIONS[name](NoiseSchedule.linear(10), x, t).shape == (0, 3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_not_finite_stays_so_and_leaves_the_other_samples_alone(name):
    x = np.array([[np.nan], [np.inf], [1.0]])
    with np.errstate(invalid="ignore"):
        found = FUNCTIONS[name](NoiseSchedule.linear(10), x, 3)
    assert not np.isfinite(found[:2]).any() and np.isfinite(found[2]).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [np.ones((2, 3), int), np.ones((2, 3), complex), [[1.0]], None, np.ones((2, 3), bool)])
def test_data_that_is_not_floating_is_refused(name, x):
    with pytest.raises(TypeError, match="must be a floating-point array"):
        FUNCTIONS[name](NoiseSchedule.linear(10), x, 2)


def test_arrays_of_two_devices_do_not_meet(cupy):
    schedule, here, there = NoiseSchedule.linear(10), np.ones((2, 3)), cupy.asarray(np.ones((2, 3)))
    for f in (lambda: q_sample(schedule, here, 2, there), lambda: q_posterior(schedule, there, here, 2)):
        with pytest.raises(TypeError, match="must be where"):
            f()
