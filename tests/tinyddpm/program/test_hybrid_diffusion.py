"""The learned variance: what teaches it, and what it does in the sampler and in the bound."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from small import CONFIG, HYBRID_CONFIG, pictures

import nn
from tinyddpm.bound import step_kl
from tinyddpm.forward import q_sample
from tinyddpm.prediction import x0_from
from tinyddpm.program.hybrid_diffusion import HybridDiffusion, hybrid_loss
from tinyddpm.program.model import Model
from tinyddpm.reverse import ancestral_step, learned_variance
from tinyddpm.schedule import named_schedule

SCHEDULE = named_schedule("cosine", 20)


class Fixed(nn.Module):
    """A network whose v_hat is half of what it is shown, and whose variance is at one end, or in between."""

    def __init__(self, logit=None):
        self.logit = logit

    def __call__(self, x, t, labels):
        return x * 0.5 if self.logit is None else nn.concatenate([x * 0.5, x * 0 + self.logit])


def models(logit, variance):
    """The same model twice: with a learned variance, and with one given by its name."""
    hybrid = Model(replace(HYBRID_CONFIG, preset="own", unet={}), network=Fixed(logit))
    return hybrid, Model(replace(CONFIG, preset="own", unet={}), network=Fixed())


@pytest.mark.parametrize(("logit", "variance"), [(40.0, "beta"), (-40.0, "beta_tilde")])
def test_e19_at_its_ends_the_learned_variance_is_a_fixed_one_in_the_bound_and_in_the_sampler(logit, variance):
    learned, fixed = models(logit, variance)
    images = pictures(12).images
    found, expected = learned.evaluate(images, draws=19), fixed.evaluate(images, draws=19, variance=variance)
    assert found.denoising == pytest.approx(expected.denoising, rel=1e-5)
    assert "learned" in found.settings
    assert found.reconstruction == pytest.approx(fixed.evaluate(images, draws=1).reconstruction, rel=1e-6)
    step = partial(ancestral_step, variance=variance)
    for (t, a, _), (_, b, _) in zip(learned.chain(np.arange(3)), fixed.chain(np.arange(3), sampler=step), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=str(t))
    assert learned.evaluate(images, variance="beta").settings == fixed.evaluate(images, variance="beta").settings


def test_a_variance_named_for_evaluation_is_that_of_the_fixed_model():
    learned, fixed = models(0.0, "beta")
    images = pictures(12).images
    found = learned.evaluate(images, variance="beta")
    assert found.total == pytest.approx(fixed.evaluate(images, variance="beta").total, rel=1e-6)
    between = learned.evaluate(images).denoising
    assert between not in (found.denoising, learned.evaluate(images, variance="beta_tilde").denoising)


def drawn(seed=0, n=6):
    rng = np.random.default_rng(seed)
    x0, noise = rng.uniform(-1, 1, (n, 4, 4, 2)), rng.standard_normal((n, 4, 4, 2))
    t = np.array([1, 2, 3, 10, 19, 20])
    return x0, q_sample(SCHEDULE, x0, t, noise), t, noise, rng.standard_normal((n, 4, 4, 4))


def test_the_loss_is_l_simple_plus_a_thousandth_of_the_bound_where_t_is_at_least_2():
    x0, xt, t, noise, output = drawn()
    diffusion = HybridDiffusion(SCHEDULE, "eps")
    found = diffusion.loss(nn.Tensor(output), *diffusion.loss_inputs(x0, xt, t, noise)).item()
    expected = ((noise - output[..., :2]) ** 2).mean()
    for i in range(1, 6):
        x, k, at = x0[i : i + 1], int(t[i]), xt[i : i + 1]
        x0_hat = x0_from(SCHEDULE, "eps", output[i : i + 1, ..., :2], at, k)
        variance = learned_variance(SCHEDULE, 1 / (1 + np.exp(-output[i : i + 1, ..., 2:])), at, k)
        expected += 0.001 * 20 * step_kl(SCHEDULE, x, x0_hat, k, variance)[0] / 6
    assert found == pytest.approx(expected, rel=1e-10)


def test_the_bound_teaches_the_variance_alone_and_l_simple_the_prediction_alone():
    x0, xt, t, noise, output = drawn()
    output = nn.tensor(output, requires_grad=True)
    (found,) = nn.gradients(hybrid_loss(SCHEDULE, "eps", output, noise, x0, xt, t), [output])
    (simple,) = nn.gradients(nn.mse(output[..., :2], noise), [output])
    np.testing.assert_allclose(found[..., :2], simple[..., :2], rtol=1e-12)
    assert not found[0, ..., 2:].any() and found[1:, ..., 2:].all()


def test_a_chain_of_one_step_has_no_variance_to_learn():
    with pytest.raises(ValueError, match="from T = 2 on, got T = 1"):
        Model(replace(HYBRID_CONFIG, T=1))
