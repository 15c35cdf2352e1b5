"""Layers: which parameters are found and by what names, saving and restoring, what each layer computes."""

import device
import numpy as np
import pytest
from device import there

import nn
from nn import Module, Tensor, gradients, ops
from nn.conv import conv2d_loops


def moved(layer):
    """The layer on the device that the tests run on."""
    return layer.to(device.xp)


def tensor(array):
    return Tensor(there(array))


def rng(seed=0):
    return np.random.default_rng(seed)


class Net(Module):
    """One of everything a parameter may sit in."""

    def __init__(self):
        self.scale = Tensor(there(np.ones(2, np.float32)), requires_grad=True)
        self.frozen = Tensor(there(np.ones(2, np.float32)))
        self.blocks = [{"conv": nn.Conv2d(1, 2, rng=rng()), "drop": nn.Dropout(0.5)}, nn.GroupNorm(2, 1)]
        self.pair = (nn.Linear(2, 3, rng=rng()), None)
        self.size = 3
        self.again = self.blocks[1]
        self.to(device.xp)


NAMES = [
    "scale",
    "blocks.0.conv.weight",
    "blocks.0.conv.bias",
    "blocks.1.weight",
    "blocks.1.bias",
    "pair.0.weight",
    "pair.0.bias",
]


def test_parameters_are_named_in_order_through_lists_tuples_and_dicts_and_shared_ones_once():
    net = Net()
    assert list(net.named_parameters()) == NAMES
    assert net.parameters()[3] is net.again.weight


def test_train_and_eval_reach_every_layer():
    net = Net()
    for mode in (net.eval(), net.train(), net.train(False)):
        assert mode is net
        assert net.training == net.blocks[0]["drop"].training == net.pair[0].training
    assert not net.training


def test_the_state_of_one_network_makes_another_equal():
    net, other = Net(), Net()
    for p in net.parameters():
        p.data += np.float32(0.5)
    assert other.load_state_dict(net.state_dict()) is other
    for name, p in other.named_parameters().items():
        np.testing.assert_array_equal(p.data, net.named_parameters()[name].data)


def test_a_state_is_a_copy_and_loading_copies_into_the_same_arrays():
    net = Net()
    state, before = net.state_dict(), net.scale.data
    net.scale.data += 1
    assert state["scale"].tolist() == [1, 1]
    net.load_state_dict(state)
    assert net.scale.data is before  # an optimiser's flat array is made of these
    state["scale"] += 7
    assert net.scale.data.tolist() == [1, 1]


LAST = NAMES[-1]
BROKEN = {
    "missing": (lambda s: s.pop("scale"), r"missing \['scale'\], unknown \[\]"),
    "unknown": (lambda s: s.update(more=s["scale"]), r"missing \[\], unknown \['more'\]"),
    "shape": (lambda s: s.update({LAST: np.ones(4, np.float32)}), r"pair.0.bias: .*, got float32 \(4,\)"),
    "dtype": (lambda s: s.update({LAST: np.ones(3)}), r"pair.0.bias: expected float32 \(3,\), got float64"),
}


@pytest.mark.parametrize("spoil, words", BROKEN.values(), ids=BROKEN.keys())
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, words):
    net = Net()
    before = net.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    spoil(state)
    with pytest.raises(ValueError, match=words):
        net.load_state_dict(state)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_astype_converts_every_parameter_and_to_leaves_them_where_they_are():
    net = Net().astype(np.float64).to(device.xp)
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}


# ==== each layer ====

LAYERS = {
    "Linear": (nn.Linear(3, 4, rng=rng()), (2, 3), lambda x, p: x @ p["weight"] + p["bias"]),
    "Linear on tokens": (nn.Linear(3, 4, rng=rng()), (2, 5, 3), lambda x, p: x @ p["weight"] + p["bias"]),
    "Linear on one": (nn.Linear(3, 4, rng=rng()), (3,), lambda x, p: x @ p["weight"] + p["bias"]),
    "Conv2d": (
        nn.Conv2d(2, 3, stride=2, rng=rng()),
        (1, 6, 8, 2),
        lambda x, p: conv2d_loops(x, p["weight"], p["bias"], 2, 1),
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
        mixed[..., 2 * head : 2 * head + 2] = ops.attention(q, k, v).data
    expected = mixed @ weights["to_out.weight"] + weights["to_out.bias"]
    np.testing.assert_allclose(layer(tensor(x)).data, expected, rtol=1e-5, atol=1e-6)


def test_attention_refuses_heads_that_do_not_divide_its_channels():
    with pytest.raises(ValueError, match="6 channels do not divide into 4 heads"):
        nn.Attention(6, heads=4, rng=rng())


def test_linear_refuses_an_input_of_another_width():
    with pytest.raises(ValueError, match=r"\(2, 5\) @ \(3, 4\)"):
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
