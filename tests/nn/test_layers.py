"""Layers: what each computes, of empty batches too, what it refuses, and how it starts."""

import device
import numpy as np
import pytest
from device import there

import nn
from nn import Module, Tensor, gradients
from nn.conv import conv2d_loops


def moved(layer):
    """The layer on the device that the tests run on."""
    return layer.to(device.xp)


def tensor(array):
    return Tensor(there(array))


def rng(seed=0):
    return np.random.default_rng(seed)


LAYERS = {
    "Linear": (nn.Linear(3, 4, rng=rng()), (2, 3), lambda x, p: x @ p["weight"] + p["bias"]),
    "Linear on tokens": (nn.Linear(3, 4, rng=rng()), (2, 5, 3), lambda x, p: x @ p["weight"] + p["bias"]),
    "Linear on one": (nn.Linear(3, 4, rng=rng()), (3,), lambda x, p: x @ p["weight"] + p["bias"]),
    "Conv2d": (
        nn.Conv2d(2, 3, stride=2, rng=rng()),
        (1, 6, 8, 2),
        lambda x, p: conv2d_loops(x, p["weight"], p["bias"], 2, 1),
    ),
    "Conv2d of size 4": (
        nn.Conv2d(2, 3, size=4, rng=rng()),
        (1, 8, 7, 2),
        lambda x, p: conv2d_loops(np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0))), p["weight"], p["bias"]),
    ),
    "Conv2d of size 4 and stride 2": (  # of an even image: PyTorch's Conv2d(2, 3, 4, stride=2, padding=1)
        nn.Conv2d(2, 3, size=4, stride=2, rng=rng()),
        (1, 8, 6, 2),
        lambda x, p: conv2d_loops(x, p["weight"], p["bias"], 2, 1),
    ),
    "Conv2d without bias": (
        nn.Conv2d(2, 3, rng=rng(), bias=False),
        (1, 8, 7, 2),
        lambda x, p: conv2d_loops(x, p["weight"], padding=1),
    ),
    "Conv2d of size 1": (
        nn.Conv2d(2, 3, size=1, rng=rng()),
        (1, 3, 4, 2),
        lambda x, p: x @ p["weight"][0, 0] + p["bias"],
    ),
    "LayerNorm": (
        nn.LayerNorm(3),
        (2, 3),
        lambda x, p: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    ),
    "Sequential": (
        nn.Sequential(nn.Linear(3, 3, rng=rng()), nn.relu),
        (2, 3),
        lambda x, p: np.maximum(x @ p["layers.0.weight"], 0),
    ),
}


@pytest.mark.parametrize("layer, shape, expected", LAYERS.values(), ids=LAYERS.keys())
def test_a_layer_computes_what_its_parameters_say(layer, shape, expected):
    x = rng(1).standard_normal(shape).astype(np.float32)
    moved(layer) if isinstance(layer, Module) else None
    np.testing.assert_allclose(layer(tensor(x)).data, expected(x, layer.state_dict()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("side", range(1, 9))
def test_a_convolution_keeps_the_size_at_stride_1(size, side):
    layer = moved(nn.Conv2d(1, 2, size=size, rng=rng()))
    assert layer(tensor(np.ones((1, side, side + 1, 1), np.float32))).shape == (1, side, side + 1, 2)


EMPTY = {
    "Linear": (lambda: nn.Linear(4, 6, rng=rng()), (0, 4), (0, 6)),
    "Linear on tokens": (lambda: nn.Linear(4, 6, rng=rng()), (0, 5, 4), (0, 5, 6)),
    "Linear on no tokens": (lambda: nn.Linear(4, 6, rng=rng()), (3, 0, 4), (3, 0, 6)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, rng=rng()), (0, 5, 7, 4), (0, 5, 7, 6)),
    "Conv2d by Winograd": (lambda: nn.Conv2d(8, 6, rng=rng()), (0, 5, 7, 8), (0, 5, 7, 6)),
    "Conv2d of size 2": (lambda: nn.Conv2d(4, 6, 2, rng=rng()), (0, 5, 7, 4), (0, 5, 7, 6)),
    "GroupNorm": (lambda: nn.GroupNorm(8), (0, 5, 7, 8), (0, 5, 7, 8)),
    "GroupNorm with silu": (lambda: nn.GroupNorm(8, silu=True), (0, 8), (0, 8)),
    "LayerNorm": (lambda: nn.LayerNorm(8), (0, 5, 8), (0, 5, 8)),
    "Attention": (lambda: nn.Attention(8, rng=rng()), (0, 5, 8), (0, 5, 8)),
    "Dropout": (lambda: nn.Dropout(0.5), (0, 5), (0, 5)),
}


@pytest.mark.parametrize("make, shape, expected", EMPTY.values(), ids=EMPTY.keys())
def test_an_empty_batch_gives_an_empty_batch_and_gradients_of_zero(make, shape, expected):
    layer, x = moved(make()), Tensor(there(np.zeros(shape, np.float32)), requires_grad=True)
    with nn.random_state(0, 0, []):
        y = layer(x)
    assert y.shape == expected
    gx, *found = gradients(y, [x, *layer.parameters()], y.data)
    assert gx.shape == shape
    assert not any(g.any() for g in found)


def test_embedding_of_no_index_is_empty():
    layer = moved(nn.Embedding(4, 3, rng=rng()))
    y = layer(np.zeros((0, 2), int))
    assert y.shape == (0, 2, 3)
    assert not gradients(y, layer.parameters(), y.data)[0].any()


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_applies_silu_where_it_is_told_to(silu):
    layer, x = moved(nn.GroupNorm(4, 2, silu=silu)), tensor(rng(1).standard_normal((2, 3, 3, 4)).astype(np.float32))
    expected = nn.group_norm(x, layer.weight, layer.bias, 2)
    expected = nn.silu(expected) if silu else expected
    np.testing.assert_allclose(layer(x).data, expected.data, rtol=1e-5, atol=1e-6)


def test_a_convolution_takes_a_bias_of_each_sample_in_place_of_its_own():
    x, bias = tensor(np.ones((3, 4, 4, 1), np.float32)), tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    with_its_own, without = moved(nn.Conv2d(1, 2, rng=rng())), moved(nn.Conv2d(1, 2, rng=rng(), bias=False))
    with_its_own.bias.data += 5
    expected = conv2d_loops(*(nn.to_numpy(a.data) for a in (x, without.weight, bias)), 1, 1)
    for layer in (with_its_own, without):
        np.testing.assert_allclose(layer(x, bias=bias).data, expected, rtol=1e-5, atol=1e-6)
    assert list(without.named_parameters()) == ["weight"]


def test_embedding_looks_up_rows_and_adds_the_gradients_of_those_looked_up_twice():
    layer = moved(nn.Embedding(4, 3, rng=rng()))
    y = layer(np.array([[2, 0], [2, 1]]))
    np.testing.assert_array_equal(y.data, layer.weight.data[[[2, 0], [2, 1]]])
    (found,) = gradients(y.sum(), layer.parameters())
    assert found.tolist() == [[1] * 3, [1] * 3, [2] * 3, [0] * 3]


def test_dropout_outside_a_random_state_says_both_ways_out():
    with pytest.raises(RuntimeError, match=r"nn.random_state\(seed, step, samples\)` in training, .*\.eval\(\)"):
        nn.Dropout(0.5)(tensor(np.ones((2, 3), np.float32)))


def test_dropout_drops_in_training_only():
    layer, x = nn.Dropout(0.5), tensor(np.ones((4, 50), np.float32))
    assert layer.eval()(x) is x
    with nn.random_state(0, 0, range(4)):
        assert set(np.unique(nn.to_numpy(layer.train()(x).data))) == {0, 2}


def test_attention_is_what_its_heads_say_one_by_one():
    layer, x = moved(nn.Attention(6, heads=3, rng=rng())), rng(1).standard_normal((2, 5, 6)).astype(np.float32)
    weights = layer.state_dict()
    qkv = x @ weights["to_qkv.weight"] + weights["to_qkv.bias"]
    mixed = np.zeros_like(x)
    for head in range(3):
        q, k, v = (Tensor(qkv[..., 6 * part + 2 * head : 6 * part + 2 * head + 2]) for part in range(3))
        mixed[..., 2 * head : 2 * head + 2] = nn.attention(q, k, v).data
    expected = mixed @ weights["to_out.weight"] + weights["to_out.bias"]
    np.testing.assert_allclose(layer(tensor(x)).data, expected, rtol=1e-5, atol=1e-6)


SIZES = {
    "heads": (lambda: nn.Attention(6, heads=4, rng=rng()), ValueError, "6 channels do not divide into 4 heads"),
    "no heads": (lambda: nn.Attention(6, heads=0, rng=rng()), ValueError, "heads must be at least 1, got 0"),
    "groups": (lambda: nn.GroupNorm(6, groups=4), ValueError, "6 channels do not divide into 4 groups"),
    "width 0": (lambda: nn.Linear(0, 3, rng=rng()), ValueError, "inputs must be at least 1, got 0"),
    "width 2.5": (lambda: nn.Linear(2, 2.5, rng=rng()), TypeError, "outputs must be an integer, got 2.5"),
    "size 0": (lambda: nn.Conv2d(2, 3, 0, rng=rng()), ValueError, "size must be at least 1, got 0"),
    "stride 0": (lambda: nn.Conv2d(2, 3, stride=0, rng=rng()), ValueError, "stride must be at least 1, got 0"),
    "rate 1": (lambda: nn.Dropout(1.0), ValueError, r"the dropout rate must be in \[0, 1\), got 1"),
    "a seed": (lambda: nn.Linear(2, 3, rng=0), TypeError, r"rng must be a numpy.random.Generator, .* got 0"),
    "an image": (
        lambda: nn.Attention(4, rng=rng())(tensor(np.ones((1, 2, 2, 4), np.float32))),
        ValueError,
        r"attention needs tokens \(N, L, channels\), got \(1, 2, 2, 4\)",
    ),
}


@pytest.mark.parametrize("make, error, words", SIZES.values(), ids=SIZES)
def test_sizes_that_cannot_be_meant_are_refused_when_the_layer_is_made(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("integer", [np.uint8, np.int64])
def test_sizes_may_be_numbers_of_numpys(integer):
    """200 * 3 and 3 * 3 * 200 are more than a uint8 holds."""
    pairs = [
        (lambda n: nn.Linear(n(200), n(3), rng=rng()), (2, 200)),
        (lambda n: nn.Conv2d(n(200), n(3), n(3), n(1), rng=rng()), (2, 3, 4, 200)),
        (lambda n: nn.GroupNorm(n(200), n(100)), (2, 3, 4, 200)),
        (lambda n: nn.Attention(n(200), n(4), rng=rng()), (2, 3, 200)),
    ]
    for make, shape in pairs:
        x = tensor(rng(1).standard_normal(shape).astype(np.float32))
        found, expected = (moved(make(n))(x) for n in (integer, int))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.data, expected.data)


def test_linear_takes_a_plain_array_too():
    layer, x = moved(nn.Linear(3, 2, rng=rng())), tensor(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(nn.to_numpy(layer(x.data).data), nn.to_numpy(layer(x).data))


def test_linear_refuses_an_input_of_another_width():
    with pytest.raises(ValueError, match=r"\(2, 5\), \(3, 4\)"):
        moved(nn.Linear(3, 4, rng=rng()))(tensor(np.ones((2, 5), np.float32)))


# ==== how layers start ====


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(2, 3, rng=rng(), zero=True),
        nn.Conv2d(2, 3, rng=rng(), zero=True),
        nn.Attention(4, 2, rng=rng(), zero=True).to_out,
    ],
    ids=["Linear", "Conv2d", "Attention"],
)
def test_a_layer_that_starts_at_zero_gives_zero(layer):
    assert not any(p.data.any() for p in layer.parameters())


@pytest.mark.parametrize(
    "layer, fan_in",
    [
        (nn.Linear(100, 2000, rng=rng()), 100),
        (nn.Conv2d(50, 400, rng=rng()), 450),
        (nn.Embedding(100, 2000, rng=rng()), 1),
    ],
    ids=["Linear", "Conv2d", "Embedding"],
)
def test_weights_start_normal_with_variance_one_over_fan_in(layer, fan_in):
    w = layer.weight.data.astype(np.float64) * np.sqrt(fan_in)
    assert layer.weight.dtype == np.float32
    assert abs(w.mean()) < 5 / np.sqrt(w.size)  # five standard deviations, as below
    assert abs(w.var() - 1) < 5 * np.sqrt(2 / w.size)


def test_the_same_generator_gives_the_same_weights():
    a, b, c = (nn.Linear(3, 4, rng=rng(seed)).weight.data for seed in (0, 0, 1))
    assert (a == b).all()
    assert (a != c).any()
