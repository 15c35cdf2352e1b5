"""Modules: which Tensors are found and by what names, what is trained and what is saved, restored and moved."""

import device
import numpy as np
import pytest
from device import there

import nn
from nn import Module, Tensor


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


def test_a_state_is_a_copy_and_so_is_what_is_loaded():
    net = Net()
    state = net.state_dict()
    net.scale.data += 1
    assert state["scale"].tolist() == [1, 1]
    net.load_state_dict(state)
    state["scale"] += 7
    assert net.scale.data.tolist() == [1, 1]


def test_an_optimiser_goes_on_from_what_was_loaded():
    net = Net()
    optimiser, ema, state = nn.SGD(net.parameters(), 1.0), nn.EMA(net.parameters(), 0.0), net.state_dict()
    net.load_state_dict({name: array + 5 for name, array in state.items()})
    optimiser.step(there(np.ones(optimiser.flat.shape, np.float32)))
    ema.update()
    assert net.scale.data.tolist() == [5, 5]
    assert ema.average[:2].tolist() == [5, 5]


@pytest.mark.cpu
def test_loading_into_an_array_that_cannot_be_written_into_works():
    net = Net()
    net.scale.data = np.frombuffer(b"\0" * 8, np.float32)
    net.load_state_dict({name: array + 5 for name, array in net.state_dict().items()})
    assert net.scale.data.tolist() == [5, 5]


def test_a_frozen_parameter_stays_in_the_state_and_is_moved_and_converted_but_not_trained():
    net, other = Net(), Net()
    net.pair[0].weight.requires_grad = False
    assert list(net.named_parameters()) == [name for name in NAMES if name != "pair.0.weight"]
    assert list(net.state_dict()) == list(other.state_dict()) == [NAMES[0], "frozen", *NAMES[1:]]
    other.load_state_dict(net.state_dict())
    net.load_state_dict(other.state_dict())
    net.pair[0].weight.grad = there(np.ones((2, 3), np.float32))
    net.astype(np.float64)
    assert {p.dtype for p in net.named_tensors().values()} == {np.dtype(np.float64)}
    assert net.pair[0].weight.grad.dtype == np.float64


class Child(Module):
    def __init__(self, parent):
        self.parent, self.weight = parent, Tensor(there(np.ones(2, np.float32)), requires_grad=True)


class Parent(Module):
    def __init__(self):
        self.children = [Child(self)]
        self.children.append(self.children)


def test_a_layer_may_refer_to_its_parent():
    net = Parent()
    assert list(net.named_parameters()) == ["children.0.weight"]
    assert not net.eval().children[0].training
    assert list(net.children[0].named_parameters()) == ["weight"]


def holding(**attributes):
    net = Module()
    vars(net).update(attributes)
    return net


def weight():
    return Tensor(there(np.ones(2, np.float32)), requires_grad=True)


NESTED = {
    "dicts in lists in tuples": (([{"a": weight()}, (weight(),)],), ["w.0.0.a", "w.0.1.0"]),
    "numbers as keys": ({3: weight(), (1, 2): weight()}, ["w.3", "w.(1, 2)"]),
    "a dot in a name": ({"a.b": weight()}, ["w.a.b"]),
    "what holds no tensor": ([{1, 2}, "text", None, range(3), np.ones(2), nn.relu], []),
}


@pytest.mark.parametrize("value, names", NESTED.values(), ids=NESTED)
def test_parameters_are_found_in(value, names):
    assert list(holding(w=value).named_parameters()) == names


REFUSED = {
    "0 and '0'": (lambda: holding(w={0: weight(), "0": weight()}), ValueError, "two tensors of Module are named 'w.0'"),
    "a dot in a name": (lambda: holding(**{"a.b": weight(), "a": {"b": weight()}}), ValueError, "are named 'a.b'"),
    "a set": (lambda: holding(w={weight()}), TypeError, "w is a set, whose order changes from run to run"),
    "layers in a set": (lambda: holding(w=[frozenset([Module()])]), TypeError, "w.0 is a set"),
    "a result": (lambda: holding(w=weight() * 0.1), ValueError, "w was computed by an op, so it is no parameter"),
}


@pytest.mark.parametrize("make, error, words", REFUSED.values(), ids=REFUSED)
def test_what_would_be_trained_under_no_name_or_in_no_order_is_refused(make, error, words):
    net = make()
    for use in (net.parameters, net.state_dict):
        with pytest.raises(error, match=words):
            use()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda net: net.to("cuda"), "moves to a module, numpy or cupy .* got 'cuda'"),
        (lambda net: net.astype(int), "floating dtype, got int64"),
    ],
)
def test_a_network_moves_to_a_module_and_converts_to_a_floating_dtype(call, words):
    net = Net()
    with pytest.raises(TypeError, match=words):
        call(net)


def test_inside_constant_weights_what_was_made_of_the_old_weights_is_not_used_after_a_change():
    net, x = moved(nn.Conv2d(8, 8, rng=rng())), tensor(rng(1).standard_normal((1, 4, 4, 8)).astype(np.float32))
    changes = [
        (lambda: net.load_state_dict({name: 2 * a for name, a in net.state_dict().items()}), np.float32),
        (lambda: net.astype(np.float64), np.float64),
    ]
    with nn.constant_weights():
        before = net(x)
        for change, dtype in changes:
            change()
            after = net(x.astype(dtype))
            assert after.dtype == dtype
            np.testing.assert_allclose(after.data, 2 * before.data, rtol=1e-5, atol=1e-5)


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
