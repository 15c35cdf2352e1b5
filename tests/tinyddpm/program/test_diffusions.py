"""What a diffusion is to the program: binomial diffusion through the methods that Gaussian diffusion has."""

from dataclasses import replace

import numpy as np
import pytest
from small import BITS_CONFIG, CONFIG, pictures
from strategies import assert_close

import nn
from tinyddpm.bound import bits_per_dim
from tinyddpm.data.images import to_bits
from tinyddpm.program.binomial_diffusion import BinomialDiffusion
from tinyddpm.program.config import Config
from tinyddpm.program.diffusions import DIFFUSIONS
from tinyddpm.program.evaluate import evaluate, loss_per_timestep
from tinyddpm.program.model import Model
from tinyddpm.program.train import Trainer
from tinyddpm.schedule import named_schedule
from tinyddpm.theory import binomial

DIFFUSION = BinomialDiffusion(named_schedule("even", 20))


def wild_model(config=BITS_CONFIG, size=0.1):
    """A model whose weights are not those of a start, where the last layer is 0."""
    model = Model(config)
    rng = np.random.default_rng(1)
    for p in model.network.parameters():
        p.data[...] = p.data + size * rng.standard_normal(p.shape, dtype=np.float32)
    model.network.eval()
    return model


def bits_and_noise(n=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    x0 = rng.integers(0, 2, (n, 4, 4, 1)).astype(dtype)
    t = rng.integers(1, 21, n)
    return x0, DIFFUSION.q_sample(x0, t, rng.random(x0.shape).astype(dtype)), t


def logit(p):
    return np.log(p) - np.log1p(-p)


# ---- the loss ----


def test_e23_loss_is_the_cross_entropy_of_the_bits_and_its_gradient_the_error_of_their_probability():
    x0, xt, t = bits_and_noise()
    output = nn.tensor(np.random.default_rng(2).normal(0, 2, x0.shape), requires_grad=True, dtype=np.float64)
    loss = DIFFUSION.loss(output, *DIFFUSION.loss_inputs(x0, xt, t, None))
    x0_hat = DIFFUSION.x0_hat(output.data, xt, t)
    assert_close(loss.data, binomial.bit_cross_entropy(x0, x0_hat).mean())
    (gradient,) = nn.gradients(loss, [output])
    assert_close(gradient, (x0_hat - x0) / x0.size, scale=1 / x0.size)
    assert_close(DIFFUSION.simple_loss(x0, xt, t, None, x0_hat).mean(), loss.data)


def test_the_loss_of_a_certain_network_is_small_where_it_is_right_and_large_where_it_is_wrong():
    x0 = np.array([[1.0, 0.0]], np.float32)
    right = DIFFUSION.loss(nn.Tensor(200 * x0 - 100), x0, 0 * x0).data
    wrong = DIFFUSION.loss(nn.Tensor(100 - 200 * x0), x0, 0 * x0).data
    assert right == np.float32(np.exp(-100.0)) and wrong == 100


def test_the_first_loss_is_that_of_trusting_each_bit_as_far_as_its_chance_to_flip_allows():
    trainer = Trainer(BITS_CONFIG, pictures())
    x0, _, t, uniform = trainer.batch(0)
    xt = trainer.model.diffusion.q_sample(x0, t, uniform)
    kept = 1 - trainer.model.schedule.one_minus_alpha_bar[t].reshape(-1, 1, 1, 1) / 2
    assert trainer.step() == pytest.approx(-np.log(np.where(xt == x0, kept, 1 - kept)).mean(), rel=1e-5)


# ---- the prediction ----


def test_a_probability_stays_off_0_and_1_in_float32_and_the_bound_finite():
    x0, xt, t = bits_and_noise(dtype=np.float32)
    for output in (-1000, 1000):
        p = DIFFUSION.x0_hat(np.full_like(x0, output), xt, t)
        assert p.dtype == np.float32 and (0 < p).all() and (p < 1).all()
    result = evaluate(wild_model(size=3.0), pictures(10).images, draws=2)
    assert np.isfinite(result.total) and result.total > 1


def test_guidance_is_linear_in_the_log_odds():
    model, labels = wild_model(), np.array([0, 3])
    xt = to_bits(pictures(2).images)
    at = {s: logit(model.denoiser(labels, s)(xt, 9)) for s in (0.0, 1.0, 3.0)}
    np.testing.assert_allclose(at[3.0], at[0.0] + 3 * (at[1.0] - at[0.0]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(at[0.0], logit(model.denoiser()(xt, 9)), rtol=1e-3, atol=1e-3)
    assert np.abs(at[1.0] - at[0.0]).max() > 0.01


class Witness(nn.Module):
    """A network that gives back what it is shown."""

    def __call__(self, x, t, labels):
        return x


def test_the_network_sees_minus_one_and_one():
    model = Model(replace(BITS_CONFIG, preset="own"), network=Witness())
    xt = to_bits(pictures(3).images)
    np.testing.assert_array_equal(model.predict(xt, np.array([1, 2, 3])), np.where(xt == 1, 1, -1))


# ---- sampling ----


def test_the_chain_starts_from_fair_coins_and_ends_in_bits():
    start = DIFFUSION.start(nn.random.uniform(0, "x_T", 0, np.arange(50), (20, 20, 1)))
    assert start.dtype == np.float32 and set(np.unique(start)) == {0, 1}
    assert abs(start.mean() - 0.5) < 5 * 0.5 / start.size**0.5
    model = wild_model()
    assert set(np.unique(model.sample(3, steps=5))) == {0, 255}
    for t, xt, x0_hat in model.chain(np.arange(3), steps=5):
        assert set(np.unique(xt)) == {0, 1} and (t == 0 or len(np.unique(x0_hat)) > 2)


# ---- the bound ----


def test_e14_evaluation_with_all_timesteps_is_the_bound_of_binomial_diffusion_term_by_term():
    model, images, rows = wild_model(), pictures(12).images, np.arange(12)
    result = evaluate(model, images, draws=19, seed=5)  # 19 strata of one timestep each: all of t = 2..20

    def uniform(t):
        return model.noise(5, "L_0", 0, rows) if t == 1 else model.noise(5, "L_t", t - 2, rows)

    bound = binomial.variational_bound(model.schedule, model.denoiser(), to_bits(images), uniform)
    for found, nats in (
        (result.prior, bound.prior),
        (result.denoising, bound.denoising.sum(0)),
        (result.reconstruction, bound.reconstruction),
        (result.total, bound.total),
    ):
        assert found == pytest.approx(float(bits_per_dim(nats, 64).mean()), rel=1e-5, abs=1e-9)
    error = bits_per_dim(bound.total, 64).std(ddof=1) / 12**0.5
    assert result.standard_error == pytest.approx(float(error), rel=1e-5)
    assert "127.5" in result.settings


def test_loss_per_timestep_of_an_untrained_network_is_the_entropy_of_a_flip():
    model = Model(BITS_CONFIG)
    t, loss = loss_per_timestep(model, pictures(40).images, points=4)
    flip = model.schedule.one_minus_alpha_bar[t] / 2
    entropy = -flip * np.log(flip) - (1 - flip) * np.log1p(-flip)
    spread = (flip * (1 - flip) / (40 * 64)) ** 0.5 * abs(logit(flip))  # of the share of bits that flipped
    assert (abs(loss - entropy) < 5 * spread + 1e-6).all()


# ---- what is refused ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: replace(BITS_CONFIG, prediction="eps"), "'eps' of binomial diffusion; there are: logit"),
        (lambda: replace(CONFIG, prediction="logit"), "'logit' of gaussian diffusion; there are: v, eps, x0"),
        (
            lambda: Config(diffusion="poisson"),
            "unknown diffusion 'poisson'; there are: gaussian, hybrid, vdm, vdm_learned, binomial",
        ),
        (lambda: wild_model().sample(1, sampler="ddim"), "'ddim' of binomial diffusion; there are: ancestral"),
        (lambda: evaluate(wild_model(), pictures().images, variance="beta"), "no variance to choose.* got .*beta"),
        (lambda: evaluate(wild_model(), pictures().images, clip=(-1, 1)), "no x0_hat to clip.* got .*clip"),
    ],
)
def test_what_a_diffusion_does_not_have_is_refused_with_what_it_has(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_every_diffusion_has_the_methods_of_the_others_and_each_default_is_accepted():
    gaussian, hybrid, vdm, learned, binomial = (
        {name for name in dir(one) if name[0] != "_"} for one in DIFFUSIONS.values()
    )
    assert gaussian == binomial and hybrid > gaussian and learned > vdm > gaussian
    for name, diffusion in DIFFUSIONS.items():
        config = Config(diffusion=name)
        assert (config.schedule, config.prediction) == (diffusion.default_schedule, diffusion.predictions[0])
