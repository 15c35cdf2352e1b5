"""The network: it starts at zero, takes the sizes it says it takes, hears its timestep and its class."""

from dataclasses import replace

import device
import numpy as np
import pytest
from device import there
from hypothesis import given, settings
from hypothesis import strategies as st

import nn
from nn import Tensor, gradients, to_numpy
from tinyddpm.program.features import fourier_features, noise_if_extreme, timestep_embedding
from tinyddpm.program.unet import PRESETS, UNet, UNetConfig

sides = st.integers(1, 3)
SMALL = UNetConfig(width=8, multipliers=(1, 2), groups=4)
CLASSES = UNetConfig(width=8, multipliers=(1, 2), groups=4, classes=3)


def images(n=2, h=8, w=8, c=1, seed=0, dtype=np.float32):
    return there(np.random.default_rng(seed).standard_normal((n, h, w, c)).astype(dtype))


def awake(network, seed=1):
    """The network on the device, with random numbers in all its parameters, those that start at zero too."""
    rng = np.random.default_rng(seed)
    for p in network.to(device.xp).parameters():
        p.data += there(0.1 * rng.standard_normal(p.shape).astype(p.dtype))
    return network


def differ(a, b):
    return float(abs(a.data - b.data).max()) > 1e-3


# ==== at the start ====


@pytest.mark.parametrize("preset", PRESETS)
def test_an_untrained_network_predicts_zero_so_that_the_loss_starts_at_the_noise_itself(xp, preset):
    network = UNet(UNetConfig(**PRESETS[preset], classes=10)).to(xp)
    eps = xp.asarray(images(seed=1))
    y = network(xp.asarray(images()), np.array([1, 1000]), np.array([0, 10]))
    assert not to_numpy(y.data).any()
    assert nn.mse(y, eps).item() == nn.mse(Tensor(eps), xp.zeros_like(eps)).item()


def test_the_first_step_changes_the_last_convolution_alone():
    """All other gradients pass through its zeros; one step later they flow everywhere."""
    network, x, eps = UNet(SMALL).to(device.xp), images(), images(seed=1)
    names, parameters = list(network.named_parameters()), network.parameters()
    found = gradients(nn.mse(network(x, np.array([1, 9])), eps), parameters)
    assert {name for name, g in zip(names, found, strict=True) if g.any()} == {"last.weight", "last.bias"}
    found = gradients(nn.mse(awake(network)(x, np.array([1, 9])), eps), parameters)
    assert all(g.any() for g in found), "a parameter that nothing depends on"


def test_the_seed_decides_the_weights():
    a, b, c = (UNet(SMALL, seed).state_dict()["first.weight"] for seed in (0, 0, 1))
    assert (a == b).all()
    assert (a != c).any()


# ==== shapes ====


@settings(max_examples=15)
@given(sides, sides, sides, sides, st.integers(0, 2), st.booleans())
def test_any_size_comes_out_as_it_went_in(n, h, w, channels, down, attention):
    multipliers = (1, 2, 1)[: down + 1]
    config = UNetConfig(channels, width=4, groups=2, multipliers=multipliers, attention=attention)
    network = UNet(config)
    x = images(n, h * 2**down + 1, w * 2**down, channels)
    y = awake(network)(x, np.full(n, 5))
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert np.isfinite(y.data).all()


def test_two_blocks_a_level():
    x = images(2, 8, 16)
    assert awake(UNet(UNetConfig(width=8, groups=4, blocks=2)))(x, np.array([1, 2])).shape == x.shape


@pytest.mark.parametrize("t", [np.array([0, 1]), np.array([1, 1001]), np.array([1.0, 2.0])])
def test_timesteps_that_are_not_integers_in_range_are_refused(t):
    with pytest.raises(ValueError, match="t must be integers in 1..1000"):
        UNet(SMALL).to(device.xp)(images(2), t)


@pytest.mark.parametrize(
    "t", [np.array([0.5, 1.01]), np.array([-0.01, 1.0]), np.array([np.nan, 0.5]), np.array([0, 1])]
)
def test_times_that_are_not_real_numbers_in_0_1_are_refused(t):
    with pytest.raises(ValueError, match=r"t must be real, in 0\.\.1"):
        UNet(replace(SMALL, T=None)).to(device.xp)(images(2), t)


def test_a_time_in_0_1_is_heard_as_that_share_of_the_timesteps():
    of_time, of_steps = (awake(UNet(replace(SMALL, T=T))) for T in (None, 1000))
    y = of_time(images(2), np.array([0.007, 1.0]))
    np.testing.assert_array_equal(y.data, of_steps(images(2), np.array([7, 1000])).data)


def test_a_float64_network_computes_in_float64():
    y = awake(UNet(SMALL).astype(np.float64))(images(dtype=np.float64), np.array([1, 2]))
    assert y.dtype == np.float64


# ==== what the output depends on ====


def test_samples_do_not_see_one_another():
    network, x = awake(UNet(CLASSES)), images(4)
    t, labels = np.array([1, 10, 100, 1000]), np.array([0, 1, 2, 3])
    together = network(x, t, labels).data
    for i in range(4):
        alone = network(x[i : i + 1], t[i : i + 1], labels[i : i + 1]).data[0]
        np.testing.assert_allclose(alone, together[i], rtol=0, atol=1e-4 * float(abs(together).max()))


def test_every_pixel_hears_every_other_through_the_attention():
    network, x = awake(UNet(SMALL)), images(1, 16, 16)
    other = x.copy()
    other[0, 0, 0, 0] += 3
    assert (network(x, np.array([5])).data[0, -1, -1] != network(other, np.array([5])).data[0, -1, -1]).all()


def test_the_timestep_and_the_class_are_heard_and_no_label_is_the_null_class():
    network, x, t = awake(UNet(CLASSES)), images(), np.array([7, 7])
    y = network(x, t, np.array([1, 1]))
    assert differ(y, network(x, t + 500, np.array([1, 1])))
    assert differ(y, network(x, t, np.array([2, 2])))
    np.testing.assert_array_equal(network(x, t).data, network(x, t, np.array([3, 3])).data)
    assert differ(y, network(x, t))


def test_timesteps_and_labels_may_live_on_either_side():
    network, x, t, labels = awake(UNet(CLASSES)), images(), np.array([7, 9]), np.array([0, 2])
    np.testing.assert_array_equal(network(x, there(t), there(labels)).data, network(x, t, labels).data)


def test_an_array_and_a_tensor_are_the_same_input_and_gradients_reach_it():
    network, x = awake(UNet(SMALL)), Tensor(images(), requires_grad=True)
    y = network(x, np.array([1, 2]))
    np.testing.assert_array_equal(y.data, network(x.data, np.array([1, 2])).data)
    assert gradients(y.sum(), [x])[0].any()


def test_dropout_is_for_training_only():
    network = awake(UNet(UNetConfig(width=8, groups=4, multipliers=(1,), dropout=0.5)))
    x, t = images(), np.array([1, 2])
    still = network.eval()(x, t)
    np.testing.assert_array_equal(network(x, t).data, still.data)
    with nn.random_state(0, 0, range(2)):
        assert differ(network.train()(x, t), still)


def test_the_gradient_of_the_whole_network_is_that_of_central_differences():
    """In float64, along a random direction in the image and all parameters at once."""
    config = UNetConfig(width=4, groups=2, multipliers=(1, 2), heads=2, classes=2)
    network = awake(UNet(config).astype(np.float64))
    x = Tensor(images(h=4, w=4, dtype=np.float64), requires_grad=True)
    cotangent = images(h=4, w=4, seed=1, dtype=np.float64)
    leaves, rng = [x, *network.parameters()], np.random.default_rng(0)
    origins, directions = [p.data for p in leaves], [there(rng.standard_normal(p.shape)) for p in leaves]

    def value(step):
        for p, origin, direction in zip(leaves, origins, directions, strict=True):
            p.data = origin + step * direction
        return (network(x, np.array([3, 800]), np.array([0, 2])) * cotangent).sum()

    found = gradients(value(0), leaves)
    claimed = sum(float((g * direction).sum()) for g, direction in zip(found, directions, strict=True))
    measured = (value(1e-6).item() - value(-1e-6).item()) / 2e-6
    assert claimed == pytest.approx(measured, rel=1e-6)


# ==== the embedding of the timestep ====


def test_the_embedding_is_sines_and_cosines_of_geometric_frequencies():
    found = timestep_embedding(np.array([1, 500]), 8)
    frequencies = [1, 10**-1, 10**-2, 10**-3]
    for row, t in zip(found, (1, 500), strict=True):
        expected = [np.sin(t * f) for f in frequencies] + [np.cos(t * f) for f in frequencies]
        np.testing.assert_allclose(row, expected, atol=1e-6)
    assert found.dtype == np.float32


def test_the_embedding_depends_on_t_over_T():
    short, long = timestep_embedding([5], 16, T=10), timestep_embedding([500], 16, T=1000)
    np.testing.assert_allclose(short, long, atol=1e-6)


def test_all_timesteps_are_told_apart():
    embedded = timestep_embedding(np.arange(1, 1001), 16)
    gaps = abs(embedded[:, None] - embedded[None]).max(-1)
    assert (gaps + np.eye(1000)).min() > 1e-4


# ==== the sines and cosines of the image ====


def test_at_the_highest_frequency_all_grey_levels_look_alike_and_what_lies_between_them_does_not():
    levels = 2 * np.arange(256.0).reshape(1, 16, 16, 1) / 255 - 1
    waves = to_numpy(fourier_features(Tensor(there(levels)), 3, [60.0]).data).transpose(3, 0, 1, 2)[..., None]
    between = fourier_features(Tensor(there(levels + 0.5 / 255)), 3, [60.0])
    np.testing.assert_allclose(waves[0], 0, atol=1e-9)
    np.testing.assert_allclose(waves[1], -1, atol=1e-9)
    np.testing.assert_allclose(to_numpy(between.data)[..., :2], [[[[-1, 0]] * 16] * 16], atol=1e-9)
    assert (np.abs(np.diff(waves[2], axis=2)) > 1.9).all(), "an octave below, a level is half a period"


def test_waves_are_damped_to_what_the_noise_leaves_of_them_in_the_mean():
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    sigma = np.array([0.001, 0.002, 0.004])
    shape = (3, 1, 1, 1)
    x = 0.3 + sigma[:, None] * nodes  # the mean over the noise, by quadrature, of waves that are not damped
    damped = to_numpy(fourier_features(Tensor(there(np.full(shape, 0.3))), 3, np.log(1 / sigma**2 - 1)).data)
    for k in range(3):
        frequency = 2 * np.pi * 127.5 / 2**k
        for i, wave in enumerate((np.sin, np.cos)):
            mean = wave(frequency * x) @ weights / weights.sum()
            np.testing.assert_allclose(damped[:, 0, 0, 2 * k + i], mean, atol=1e-9)


def test_a_network_that_is_shown_waves_takes_any_image_and_gradients_reach_it():
    network = awake(UNet(UNetConfig(2, width=8, multipliers=(1, 2), groups=4, fourier=2)))
    network.log_snr = np.array([1, 9]), np.array([13.0, 12.0])
    assert network.first.weight.shape[2] == 2 * (1 + 2 * 2)
    x = Tensor(images(2, 7, 5, 2), requires_grad=True)
    y = network(x, np.array([1, 9]))
    assert y.shape == x.shape and gradients(y.sum(), [x])[0].any()
    assert differ(y, network(x.data + 1 / 255, np.array([1, 9])))


def test_noise_if_extreme_is_the_noise_where_the_pixel_is_black_or_white_whatever_the_noise():
    log_snr, noise = np.array([13.0, 4.0, 0.0, -6.0]), images(4, 5, 3, 2, dtype=np.float64) % 3
    signal, sigma = ((1 / (1 + np.exp(a)))[:, None, None, None] ** 0.5 for a in (-log_snr, log_snr))
    for k, extreme in enumerate((-1, 1)):
        x = there(signal * extreme + sigma * to_numpy(noise))
        shown = noise_if_extreme(Tensor(x), log_snr).data[..., 2 * k : 2 * k + 2]
        np.testing.assert_allclose(to_numpy(shown), to_numpy(noise), rtol=1e-9)
    assert (to_numpy(noise_if_extreme(Tensor(there(np.zeros((1, 1, 1, 1)))), [20.0]).data) == [[[[4, -4]]]]).all()


def test_a_network_that_is_shown_extremes_reads_the_log_snr_at_its_time():
    config = UNetConfig(width=8, multipliers=(1, 2), groups=4, extremes=True, T=3)
    one, other, x = awake(UNet(config)), awake(UNet(config)), images()
    with pytest.raises(ValueError, match="must be told the log-SNR"):
        one(x, np.array([1, 3]))
    one.log_snr, other.log_snr = ((np.arange(1, 4), np.array(levels)) for levels in ([5, 0, -5], [5, 3, -5]))
    assert not differ(one(x, np.array([1, 3])), other(x, np.array([1, 3])))
    assert differ(one(x, np.array([2, 2])), other(x, np.array([2, 2])))


# ==== what is refused ====

T2 = np.array([1, 2])
REFUSED = {
    "no channels": (SMALL, (images()[..., 0], T2), r"must be \(N, H, W, 1\), got \(2, 8, 8\)"),
    "channels first": (SMALL, (images(2, 1, 8, 8), T2), r"got \(2, 1, 8, 8\)"),
    "one t for two": (SMALL, (images(), T2[:1]), r"t must have shape \(2,\), got \(1,\)"),
    "a number for t": (SMALL, (images(), 1), r"t must have shape \(2,\), got \(\)"),
    "labels for another batch": (CLASSES, (images(), T2, np.array([1])), r"labels must have shape \(2,\)"),
    "labels without classes": (SMALL, (images(), T2, T2), "built without classes"),
}


@pytest.mark.parametrize("config, arguments, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_with_a_reason(config, arguments, words):
    with pytest.raises(ValueError, match=words):
        UNet(config).to(device.xp)(*arguments)


def test_a_class_it_does_not_know_is_refused():
    with pytest.raises(IndexError, match=r"must be in 0\.\.3, got 0\.\.4"):
        UNet(CLASSES).to(device.xp)(images(), T2, np.array([0, 4]))


def test_an_image_of_another_dtype_is_refused():
    with pytest.raises(TypeError, match="dtypes differ"):
        UNet(SMALL).to(device.xp)(images(dtype=np.float64), T2)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"width": 12}, "divide into 8 groups, got 12"),
        ({"heads": 3}, "64 channels do not divide into 3 heads"),
        ({"blocks": 0}, "at least 1"),
        ({"T": 0}, "at least 1"),
        ({"multipliers": (1, 0)}, "at least 1"),
        ({"classes": -1}, "at least 0"),
        ({"fourier": -1}, "at least 0"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        UNetConfig(**change)
