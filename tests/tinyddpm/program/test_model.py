"""A trained model: what its samples depend on, and what an evaluation says."""

import functools
from dataclasses import replace

import device
import numpy as np
import pytest
from device import there
from small import CONFIG, CONFIGS, every, here, pictures, trainer

import nn
from tinyddpm.program.gaussian_diffusion import GaussianDiffusion
from tinyddpm.program.model import Model

# ==== sampling ====


@functools.cache
def weights(diffusion):
    """Those that three steps have made."""
    t = trainer(CONFIGS[diffusion])
    list(t.run(steps=3))
    return t.model.network.state_dict()


def model(config=CONFIG):
    m = Model(config, here())
    m.network.load_state_dict(weights(config.diffusion)).eval()
    return m


@every
def test_an_image_does_not_depend_on_the_batch_it_is_drawn_in(config):
    m, labels = model(config), np.arange(6) % 4
    together = m.sample(6, labels, seed=3, steps=5)
    levels = 0 if device.xp is np else 1  # a GPU's matrix products may round otherwise in another batch
    for alone in (m.sample(6, labels, seed=3, steps=5, batch=4), m.sample(2, labels[:2], seed=3, steps=5)):
        assert abs(together[: len(alone)].astype(int) - alone).max() <= levels
    assert not np.array_equal(together, m.sample(6, labels, seed=4, steps=5))


def test_without_labels_classes_are_drawn_as_often_as_the_training_data_has_them():
    m = Model(replace(CONFIG, class_shares=(0.5, 0.0, 0.3, 0.2)), here())
    drawn = m.drawn_labels(0, np.arange(20000))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 20000, [0.5, 0.0, 0.3, 0.2], atol=4 * 0.5 / 20000**0.5)
    assert 1 not in drawn
    np.testing.assert_array_equal(m.drawn_labels(0, np.array([7, 3])), drawn[[7, 3]])
    assert set(Model(replace(CONFIG, class_shares=()), here()).drawn_labels(0, np.arange(99))) == {0, 1, 2, 3}
    np.testing.assert_array_equal(
        m.sample(5, seed=2, guidance_scale=2, steps=5), m.sample(5, m.drawn_labels(2, range(5)), 2, seed=2, steps=5)
    )


def test_class_shares_are_those_of_the_training_labels_and_must_sum_to_1():
    labels = pictures().labels
    np.testing.assert_allclose(CONFIG.class_shares, [np.mean(labels == k) for k in range(4)])
    assert replace(CONFIG, classes=0).class_shares == ()
    for wrong in ((0.5, 0.5), (0.5, 0.5, 0.5, -0.5), (0.5, 0.5, 0.5, 0.5)):
        with pytest.raises(ValueError, match="class_shares must be 4 numbers"):
            replace(CONFIG, class_shares=wrong)


@pytest.mark.parametrize("sampler", GaussianDiffusion.samplers)
def test_every_sampler_draws_uint8_images(sampler):
    images = model().sample(3, sampler=sampler, steps=5)
    assert images.shape == (3, 8, 8) and images.dtype == np.uint8


def trained_at_random():
    """A model whose weights are not those of the start, where its output is 0."""
    m = model()
    for p in m.network.parameters():
        p.data += there(np.float32(0.05) * np.random.default_rng(1).standard_normal(p.shape, dtype=np.float32))
    return m


def test_guidance_is_linear_between_the_null_and_the_conditional_prediction():
    m = trained_at_random()
    xt, labels = there(np.random.default_rng(0).standard_normal((2, 8, 8, 1), dtype=np.float32)), np.array([0, 3])
    at = {s: m.denoiser(labels, s)(xt, 9) for s in (0.0, 1.0, 3.0)}
    np.testing.assert_allclose(at[3.0], at[0.0] + 3 * (at[1.0] - at[0.0]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(at[0.0], m.denoiser()(xt, 9), rtol=1e-5, atol=1e-6)
    assert float(abs(at[1.0] - at[0.0]).max()) > 1e-3


def test_guidance_over_an_interval_is_guidance_within_it():
    m, labels = trained_at_random(), np.array([0, 3])
    xt, guided = m.noise(0, "x_T", 0, np.arange(2)), m.denoiser(labels, 3.0, (5, 9))
    for t, scale in ((4, 1.0), (5, 3.0), (9, 3.0), (10, 1.0)):
        np.testing.assert_array_equal(nn.to_numpy(guided(xt, t)), nn.to_numpy(m.denoiser(labels, scale)(xt, t)))
    with pytest.raises(ValueError, match="low <= high"):
        m.denoiser(labels, 3.0, (9, 5))


def test_a_chain_visits_the_steps_of_its_spacing():
    m = model()
    expected = m.schedule.respace(5, "karras").timesteps.tolist()
    *_, (_, last, _) = chain = list(m.chain(np.arange(2), steps=5, spacing="karras"))
    assert [t for t, _, _ in chain] == expected[::-1] != [20, 16, 12, 8, 4, 0]
    np.testing.assert_array_equal(m.sample(2, steps=5, spacing="karras"), m.pictures(last))


def test_options_of_sampling_that_make_no_sense_are_refused():
    m = model()
    with pytest.raises(ValueError, match="needs labels"):
        m.denoiser(None, 2.0)
    with pytest.raises(ValueError, match="at least 1"):
        m.sample(0)
    with pytest.raises(ValueError, match="without classes"):
        Model(replace(CONFIG, classes=0), here()).denoiser(np.zeros(2, int))


def test_a_chain_goes_from_noise_to_the_images_that_sample_draws():
    m = model()
    states = list(m.chain(np.arange(2), steps=4))
    assert [t for t, _, _ in states] == m.visited(4).timesteps[::-1].tolist()
    np.testing.assert_array_equal(m.pictures(states[-1][1]), m.sample(2, steps=4))
    np.testing.assert_array_equal(nn.to_numpy(states[0][1]), nn.to_numpy(m.noise(0, "x_T", 0, np.arange(2))))


def test_every_step_of_a_chain_may_be_a_function_of_ones_own():
    from tinyddpm import ddim_step

    m = model()

    def step(denoise, schedule, xt, t):
        return ddim_step(denoise, schedule, xt, t)

    np.testing.assert_array_equal(m.sample(2, steps=4, sampler=step), m.sample(2, steps=4, sampler="ddim"))


# ==== evaluation ====


def test_the_evaluation_with_all_timesteps_equals_the_bound_term_by_term():
    from tinyddpm.bound import bits_per_dim, prior_term
    from tinyddpm.data.images import to_model
    from tinyddpm.program.evaluate import evaluate

    m, images = model(), pictures(20).images
    result = evaluate(m, images, draws=19)  # 19 strata of one timestep each: the whole sum over t = 2..20
    prior = bits_per_dim(prior_term(m.schedule, to_model(images)), 64).mean()
    assert result.prior == pytest.approx(float(prior), rel=1e-6)
    few = [evaluate(m, images, draws=2, seed=seed).denoising for seed in range(12)]
    error = np.std(few, ddof=1) / 12**0.5
    assert abs(np.mean(few) - result.denoising) < 5 * error
    assert result.total == pytest.approx(result.prior + result.denoising + result.reconstruction)


def test_loss_per_timestep_of_an_untrained_eps_network_is_the_mean_square_of_the_noise():
    from tinyddpm.program.evaluate import loss_per_timestep

    m = Model(replace(CONFIG, prediction="eps"), here())
    t, loss = loss_per_timestep(m, pictures(30).images, points=5)
    np.testing.assert_array_equal(t, [1, 6, 10, 15, 20])
    np.testing.assert_allclose(
        loss, [float((m.noise(0, "loss per t", int(k), np.arange(30)) ** 2).mean()) for k in t], rtol=1e-3
    )
