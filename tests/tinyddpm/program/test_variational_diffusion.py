"""VDM in the program: the loss is the bound, time is continuous, and a label that is told is paid for."""

from dataclasses import replace

import numpy as np
import pytest
from small import CONFIG, HIGH, LOW, VARIANCE, VDM_CONFIG, Ideal, pictures

import nn
from tinyddpm.bound import bits_per_dim, prior_term, variational_bound
from tinyddpm.decoder import discretised_log_prob
from tinyddpm.gaussian import Gaussian
from tinyddpm.program import figures
from tinyddpm.program.config import Config
from tinyddpm.program.evaluate import evaluate
from tinyddpm.program.model import Model
from tinyddpm.program.train import Trainer
from tinyddpm.program.variational_diffusion import VariationalDiffusion
from tinyddpm.schedule import named_schedule
from tinyddpm.theory.log_snr import signal_and_sigma
from tinyddpm.theory.mixture import mixture_data

IMAGES = pictures(30)


def ideal(**changes):
    config = replace(VDM_CONFIG, preset="own", unet={}, **changes)
    return Trainer(config, IMAGES, network=Ideal()) if "batch" in changes else Model(config, network=Ideal())


def denoising_bits(images, n=4001):
    """The integral of SNR E||x_0 - x0_hat||^2 / 2 over the log-SNR, on these images, in bits/dim."""
    square = ((images / 127.5 - 1) ** 2).mean()
    level = np.linspace(LOW, HIGH, n)
    snr, share = np.exp(level), VARIANCE / (VARIANCE + np.exp(-level))  # x0_hat = share z / signal
    mse = (1 - share) ** 2 * square + share**2 / snr
    return np.trapezoid(snr * mse, level) / 2 / np.log(2)


# ---- the loss is the bound ----


@pytest.mark.parametrize("schedule", ["even_log_snr", "cosine"])
def test_e35_the_mean_of_the_loss_is_the_denoising_part_of_the_bound(schedule):
    model = VariationalDiffusion(named_schedule(schedule, 50))
    curve, rng = model.curve, np.random.default_rng(0)
    x0, noise = rng.standard_normal((2, 4000, 1)).astype(np.float32)
    u = (np.arange(4000) + 0.5) / 4000
    t = 1 + 49 * u
    xt = model.q_sample(x0, t, noise)
    signal, sigma = signal_and_sigma(model.log_snr(t)[:, None])
    eps_hat = (sigma * xt).astype(np.float32)  # ideal for data N(0, 1)
    loss = model.loss(nn.Tensor(eps_hat), *model.loss_inputs(x0, xt, t, noise)).item()
    exact = np.log((1 + np.exp(curve.high)) / (1 + np.exp(curve.low))) / 2
    each = -curve.slope(u) / 2 * (noise - eps_hat)[:, 0] ** 2
    assert loss * (curve.high - curve.low) / 2 == pytest.approx(each.mean(), rel=1e-5)
    assert abs(each.mean() - exact) < 5 * each.std() / 4000**0.5


def test_a_step_of_training_has_the_loss_that_evaluation_finds():
    trainer = ideal(batch=10)
    trainer.model.shard = 10
    losses = []
    for step in range(300):
        losses.append(float(trainer.model.loss_and_gradient(*trainer.batch(step))[0]))
    found, exact = np.array(losses) * (HIGH - LOW) / 2 / np.log(2), denoising_bits(IMAGES.images)
    assert abs(found.mean() - exact) < 5 * found.std() / 300**0.5
    result = evaluate(trainer.model, IMAGES.images, draws=40, clip=None)
    assert abs(result.continuous[0] - exact) < 5 * result.continuous[1]


# ---- time ----


def test_e35_the_number_of_steps_changes_nothing_in_continuous_time():
    few, many = (evaluate(ideal(T=T), IMAGES.images, clip=None) for T in (10, 1000))
    assert few.continuous == pytest.approx(many.continuous, rel=1e-4)
    assert few.denoising > 1.3 * many.denoising, "fewer steps are a looser bound"
    assert few.total_continuous == pytest.approx(few.prior + few.continuous[0] + few.reconstruction)


def test_between_two_steps_the_log_snr_lies_on_the_line_between():
    model = VariationalDiffusion(named_schedule("cosine", 9))
    levels = named_schedule("cosine", 9).log_snr
    np.testing.assert_allclose(model.log_snr(np.array([1.0, 2.5, 9.0])), [levels[1], levels[2:4].mean(), levels[9]])
    np.testing.assert_array_equal(model.log_snr(np.array([0, 1, 9])), levels[[0, 1, 9]])
    np.testing.assert_allclose(model.network_time(np.array([1, 9])), [0, 1], atol=1e-15)
    assert 0 < model.network_time(np.array([2]))[0] < model.network_time(np.array([2.5]))[0] < 1
    t = np.array([1.0, 3.25, 9.0])
    np.testing.assert_allclose(model.at_log_snr(lambda z, t: t)(None, model.log_snr(t)), t)


def test_x0_hat_is_x_0_where_the_noise_is_known():
    model, x0 = ideal(), Model(CONFIG).x0(IMAGES.images)
    noise = nn.random.normal(0, "test", 0, np.arange(30), (8, 8, 1))
    for t in (np.linspace(1, 20, 30), np.arange(1, 31) % 20 + 1):
        xt = model.diffusion.q_sample(x0, t, noise)
        np.testing.assert_allclose(model.diffusion.x0_hat(noise, xt, t), x0, atol=2e-5)


def test_training_times_cover_the_range_evenly():
    t = VariationalDiffusion(named_schedule("even_log_snr", 1000)).timesteps(10, np.random.default_rng(0))
    assert (np.diff(np.sort(t)) > 99.8).all() and t.min() >= 1 and t.max() < 1000 and (t % 1 != 0).any()


def test_the_figure_of_the_schedule_says_what_its_ends_cost():
    model = Model(VDM_CONFIG)
    titles = [axes.get_title() for axes in figures.schedule_ends(model, IMAGES.images).axes]
    x0 = model.x0(IMAGES.images)
    prior = bits_per_dim(float(prior_term(model.schedule, x0).mean()), 64)
    black_or_white = -discretised_log_prob(Gaussian(np.ones((1, 1)), np.exp(-HIGH)), np.ones((1, 1)))[0] / np.log(2)
    assert titles[0] == "the schedule, from 13.3 to -5"
    assert titles[1] == f"at 13.3 it costs {black_or_white:.2g} bits/dim"
    assert titles[2] == f"at -5 it costs {prior:.2g} bits/dim"


# ---- a label that is told ----


def test_e14_a_label_that_is_told_costs_its_bits_and_the_sum_bounds_that_of_the_image():
    """p(x) = sum_k p(k) p(x | k) is at least each of its terms, and equal to one where the classes lie apart."""
    x = np.linspace(-1.5, 1.5, 40)[:, None]
    for apart, slack in ((0.2, np.log(3)), (60.0, 1e-12)):
        means = apart * np.arange(3.0)[:, None]
        data, shares = mixture_data([0.2, 0.3, 0.5], means, np.full((3, 1), 0.3)), [0.2, 0.3, 0.5]
        for y in range(3):
            told = -mixture_data([1.0], means[y : y + 1], [[0.3]]).log_prob(x + means[y]) - np.log(shares[y])
            excess = told + data.log_prob(x + means[y])
            assert (excess >= -1e-9).all() and excess.min() <= slack


def test_the_bound_with_labels_is_the_conditional_bound_and_the_bits_of_the_labels():
    config = replace(CONFIG, class_shares=(0.1, 0.2, 0.3, 0.4))
    model, rows = Model(config), np.arange(30)
    rng = np.random.default_rng(1)
    for p in model.network.parameters():
        p.data[...] = p.data + np.float32(0.1) * rng.standard_normal(p.shape, dtype=np.float32)
    told, hidden = model.evaluate(IMAGES, draws=19), model.evaluate(IMAGES, labels=None, draws=19)
    assert hidden.label == 0 and "no label" in str(hidden)

    def noise(t):
        return model.noise(0, "L_0", 0, rows) if t == 1 else model.noise(0, "L_t", t - 2, rows)

    denoise, x0 = model.denoiser(IMAGES.labels), model.x0(IMAGES.images)
    conditional = variational_bound(model.schedule, denoise, x0, noise, clip=(-1, 1)).total
    expected = bits_per_dim(conditional - np.log([0.1, 0.2, 0.3, 0.4])[IMAGES.labels], 64)
    assert told.total == pytest.approx(expected.mean(), rel=1e-5)
    assert told.standard_error == pytest.approx(expected.std(ddof=1) / 30**0.5, rel=1e-4)
    assert "label      " in str(told) and "p(x) >= p(y) p(x | y)" in str(told)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Config(diffusion="vdm", prediction="v"), "'v' of vdm diffusion; there are: eps"),
        (lambda: Config(diffusion="vdm", loss_weight="own"), "'own' of vdm diffusion; there are: bound"),
        (lambda: Model(replace(VDM_CONFIG, T=1)), "two ends, T >= 2, got T = 1"),
        (lambda: Config(schedule_options={"end": 1}), "schedule_options: .*end"),
        (lambda: Config(diffusion="vdm", schedule_options={"high": -7.0}), "high must be above low, got -7.0 and -5.0"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
