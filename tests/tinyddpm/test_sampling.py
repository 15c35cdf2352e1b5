"""The chain: the one loop of every sampler, and what `sample` makes of its options."""

import numpy as np
import pytest
from exact import ideal_denoiser, no_noise
from hypothesis import given
from strategies import assert_close, normal_arrays, seeds

from tinyddpm import Gaussian, NoiseSchedule, ddim_step, p_mean_variance, p_mean_variance_eps, sample
from tinyddpm.prediction import eps_from_x0
from tinyddpm.reverse import SAMPLERS, learned_variance, predict_x0, reverse_process, reverse_variance

LINEAR = NoiseSchedule.linear(1000)


def unit_noise(x, calls):
    def noise(t):
        calls.append(t)
        return np.ones_like(x)

    return noise


# ---- the chain ----


def test_the_chain_visits_every_step_once_and_adds_no_noise_at_the_last():
    schedule, x_T, asked, calls = NoiseSchedule.linear(4), np.ones((2, 1)), [], []

    def denoise(xt, t):
        asked.append((t, xt.copy()))
        return xt / 2

    steps = list(reverse_process(denoise, schedule, x_T, unit_noise(x_T, calls)))
    assert [t for t, _, _ in steps] == [t for t, _ in asked] == [4, 3, 2, 1]
    assert calls == [4, 3, 2]
    x = x_T
    for (t, x_prev, x0_hat), (_, seen) in zip(steps, asked, strict=True):
        p = p_mean_variance(schedule, x / 2, x, t)
        assert (seen == x).all() and (x0_hat == x / 2).all()
        assert (x_prev == (p.sample(np.ones_like(x)) if t > 1 else p.mean)).all()
        x = x_prev


def test_a_respaced_chain_asks_the_model_at_the_original_timesteps():
    asked = []

    def denoise(xt, t):
        asked.append(t)
        return xt

    x_T = np.ones((2, 1))
    for schedule in (LINEAR.respace(4), LINEAR.respace([1, 20, 600])):
        sample(denoise, schedule, x_T, no_noise, "ddim")
    assert asked == [1000, 750, 500, 250, 600, 20, 1]
    told = predict_x0(lambda xt, t: xt * t, LINEAR.respace(4), np.ones(2), np.array([1, 3]))
    assert told.tolist() == [250, 750]


def test_deterministic_samplers_never_ask_for_noise_and_stochastic_ones_do():
    x_T, schedule = np.ones((2, 1)), NoiseSchedule.linear(5)
    denoise = ideal_denoiser(schedule, 1.0)
    for sampler in ("ddim", "dpm_solver"):
        sample(denoise, schedule, x_T, no_noise, sampler)
    for options in ({}, {"sampler": "ddim", "eta": 0.5}, {"sampler": "ancestral_eps", "clip": False}):
        calls = []
        sample(denoise, schedule, x_T, unit_noise(x_T, calls), **options)
        assert calls == [5, 4, 3, 2]


def test_one_step_is_the_models_prediction_whatever_the_sampler():
    x_T, schedule = np.array([[0.5], [-2.0]]), NoiseSchedule.linear(1)
    for sampler in SAMPLERS:
        x0 = sample(lambda xt, t: xt / 4, schedule, x_T, no_noise, sampler, clip=False)
        assert_close(x0, x_T / 4)


def test_what_is_clipped_is_the_prediction():
    x_T, schedule = np.array([[0.5], [-2.0]]), NoiseSchedule.linear(3)
    for clip, expected in ((True, [1, -1]), ((-1.5, 0.25), [0.25, -1.5]), (False, [2, -8]), (None, [2, -8])):
        x0 = sample(lambda xt, t: 4 * x_T, schedule, x_T, no_noise, "ddim", clip=clip)
        assert_close(x0.ravel(), expected)


def test_variance_and_eta_reach_the_step():
    x_T, schedule = np.ones((1, 1)), NoiseSchedule.linear(2)
    noise = unit_noise(x_T, [])
    for options, step in (
        ({"variance": "beta"}, lambda *a: p_mean_variance(*a, "beta")),
        ({"variance": "beta", "sampler": "ancestral_eps"}, lambda *a: p_mean_variance(*a, "beta")),
        ({"sampler": "ddim", "eta": 0.5}, lambda *a: ddim_step(*a, 0.5)),
    ):
        found = sample(lambda xt, t: xt, schedule, x_T, noise, clip=False, keep=[1], **options)[1][1][0]
        assert_close(found, step(schedule, x_T, x_T, 2).sample(x_T))


def test_states_that_are_kept_come_with_the_prediction_made_from_them():
    schedule, x_T = NoiseSchedule.linear(4), np.ones((2, 1))
    noise, denoise = unit_noise(x_T, []), ideal_denoiser(schedule, 1.0)
    chain = {t - 1: x for t, x, _ in reverse_process(denoise, schedule, x_T, noise, clip=(-1, 1))}
    x0, kept = sample(denoise, schedule, x_T, noise, keep=(4, 2, 1))
    assert list(kept) == [4, 2, 1] and (kept[4][0] == x_T).all() and (x0 == chain[0]).all()
    for t, (xt, x0_hat) in kept.items():
        assert (x0_hat == denoise(xt, t).clip(-1, 1)).all()
        assert t == 4 or (xt == chain[t]).all()
    assert sample(denoise, schedule, x_T, noise, keep=[])[1] == {}


def test_progress_wraps_the_loop():
    seen = []

    def progress(steps, total):
        for step in steps:
            seen.append((step[0], total))
            yield step

    sample(lambda xt, t: xt, NoiseSchedule.linear(3), np.ones((2, 1)), no_noise, "ddim", progress=progress)
    assert seen == [(3, 3), (2, 3), (1, 3)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_keep_dtype_shape_and_module(sampler, dtype, xp):
    x_T, schedule = xp.ones((2, 3, 4, 4), dtype), NoiseSchedule.cosine(5)
    x0 = sample(lambda xt, t: xt / 2, schedule, x_T, lambda t: x_T, sampler, clip=False)
    assert isinstance(x0, xp.ndarray) and x0.dtype == dtype and x0.shape == x_T.shape


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "ddpm"}, "unknown sampler 'ddpm'.*ancestral, ancestral_eps, ddim, dpm_solver"),
        ({"eta": 0.5}, "eta is an option of the sampler 'ddim' only"),
        ({"sampler": "dpm_solver", "eta": 0.5}, "eta is an option of the sampler 'ddim' only"),
        ({"sampler": "ddim", "variance": "beta"}, "variance is an option of ancestral samplers"),
        ({"sampler": "dpm_solver", "variance": "beta"}, "variance is an option of ancestral samplers"),
        ({"variance": "large"}, "unknown variance 'large'.*beta, beta_tilde"),
        ({"sampler": "ancestral_eps"}, "has no x_0 to clip"),
        ({"keep": [0]}, r"keep must hold steps in 1\.\.3"),
        ({"keep": [4]}, r"keep must hold steps in 1\.\.3"),
    ],
)
def test_options_that_are_wrong_or_contradict_each_other_raise(options, message):
    x_T = np.ones((2, 1))
    with pytest.raises(ValueError, match=message):
        sample(lambda xt, t: xt, NoiseSchedule.linear(3), x_T, lambda t: x_T, **options)


def test_no_step_starts_at_t_0():
    x = np.ones((2, 1))
    for f in (
        lambda: p_mean_variance(LINEAR, x, x, 0),
        lambda: p_mean_variance_eps(LINEAR, x, x, 0),
        lambda: reverse_variance(LINEAR, "beta", x, 0),
        lambda: learned_variance(LINEAR, x, x, 0),
        lambda: ddim_step(LINEAR, x, x, 0),
        lambda: predict_x0(lambda xt, t: xt, LINEAR, x, 0),
    ):
        with pytest.raises(ValueError, match=r"t must lie in 1\.\.1000"):
            f()


def test_a_model_or_noise_of_another_shape_or_dtype_raises():
    schedule, x_T = NoiseSchedule.linear(3), np.ones((2, 1))
    with pytest.raises(ValueError, match="what denoise returns must have the shape of xt"):
        sample(lambda xt, t: xt[:1], schedule, x_T, no_noise)
    with pytest.raises(TypeError, match="what denoise returns must have the dtype of xt"):
        sample(lambda xt, t: xt.astype(np.float32), schedule, x_T, no_noise)
    with pytest.raises(ValueError, match="noise must have the shape"):
        sample(lambda xt, t: xt, schedule, x_T, lambda t: np.ones(2))
    with pytest.raises(ValueError, match="eps_hat must have the shape of xt, "):
        p_mean_variance_eps(schedule, x_T[:1], x_T, 2)
    with pytest.raises(ValueError, match="x0 must have the shape of xt"):
        p_mean_variance(schedule, x_T[:1], x_T, 2)


@given(seeds)
def test_a_batch_of_t_is_the_samples_one_by_one(seed):
    schedule, t = NoiseSchedule.cosine(10), np.array([1, 6, 10])
    x0, xt = normal_arrays(seed, (3, 2, 2), (3, 2, 2))
    for f in (
        lambda x0, xt, t: ddim_step(schedule, x0, xt, t, 0.5),
        lambda x0, xt, t: p_mean_variance(schedule, x0, xt, t),
        lambda x0, xt, t: p_mean_variance_eps(schedule, eps_from_x0(schedule, x0, xt, t), xt, t, "beta"),
        lambda x0, xt, t: Gaussian(learned_variance(schedule, x0, xt, t), 1.0),
    ):
        together = f(x0, xt, t)
        for i in range(3):
            one = f(x0[i : i + 1], xt[i : i + 1], int(t[i]))
            assert_close(together.mean[i], one.mean[0], scale=1.0)
            assert_close(np.broadcast_to(together.variance, (3, 1, 1))[i].item(), float(one.variance))
