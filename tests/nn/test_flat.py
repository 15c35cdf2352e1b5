"""The flat array of an optimiser: the entry that has the gradient is the one that changes, wherever it lies.

Whatever the data of a parameter are views of, and in whichever lists the parameter is.
"""

import copy
import pickle
from array import array as buffer

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor

SHAPES = [(3, 4), (5,), (), (2, 2, 3), (0, 3)]
SIZE = 30


def parameters(dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [Tensor(there(rng.standard_normal(shape)).astype(dtype), requires_grad=True) for shape in shapes]


def flat(tensors):
    return np.concatenate([nn.to_numpy(p.data).reshape(-1) for p in tensors])


def test_parameters_become_views_of_one_flat_array_in_order():
    ps = parameters()
    before = flat(ps)
    optimiser, ema = nn.SGD(ps), nn.EMA(ps)
    np.testing.assert_array_equal(optimiser.flat, before)
    ema.flat[...] += 1  # an optimiser and an average share it
    np.testing.assert_array_equal(optimiser.flat, before + 1)
    np.testing.assert_array_equal(flat(ps), before + 1)
    assert [p.shape for p in ps] == SHAPES


def swapped(array):
    """The same numbers, most significant byte first."""
    return array.astype(array.dtype.newbyteorder(">"))


def read_only(array):
    array.flags.writeable = False
    return array


def a_part_of(array):
    """The same numbers as a strided view of a one-dimensional array."""
    wide = np.zeros(3 * array.size, array.dtype)
    wide[1::3] = array.reshape(-1)
    return wide[1::3].reshape(array.shape)


LAYOUTS = {
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "transposed, of one axis": lambda a: np.ascontiguousarray(a.T).reshape(-1).reshape(a.T.shape).T,
    "in Fortran's order": np.asfortranarray,
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "reversed, of one axis": lambda a: a.reshape(-1)[::-1].copy()[::-1].reshape(a.shape),
    "every third of one axis": a_part_of,
    "repeated by broadcasting": lambda a: np.broadcast_to(a[:1], a.shape),
    "on bytes": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "on array.array": lambda a: np.asarray(buffer("d", a.reshape(-1).tolist())).reshape(a.shape),
    "on a bytearray": lambda a: np.frombuffer(bytearray(a.tobytes()), a.dtype).reshape(a.shape),
    "of other bytes": swapped,
    "read only": read_only,
}


@pytest.mark.cpu
@pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", [nn.SGD, nn.Adam])
def test_the_entry_that_has_the_gradient_is_the_one_that_changes(kind, lay):
    """However the data lies in memory, and it stays as it was for those who hold it too."""
    given = lay(np.arange(12.0).reshape(3, 4))
    start = given.copy()
    w = Tensor(given, requires_grad=True)
    optimiser, ema = kind([w], 0.5), nn.EMA([w], 0.0)
    w[0, 1].backward()
    optimiser.step()
    ema.update()
    changed = start - w.data
    assert np.argwhere(changed).tolist() == [[0, 1]] and changed[0, 1] == pytest.approx(0.5)
    np.testing.assert_array_equal(ema.average.reshape(3, 4), w.data)
    np.testing.assert_array_equal(given, start)
    assert w.dtype.isnative


@pytest.mark.cpu
def test_data_in_a_file_is_read_in_and_the_file_stays(tmp_path):
    np.save(tmp_path / "w.npy", np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    before = (tmp_path / "w.npy").read_bytes()
    w = Tensor(np.load(tmp_path / "w.npy", mmap_mode="r+"), requires_grad=True)
    optimiser = nn.SGD([w], 1.0)
    w[0, 1].backward()
    optimiser.step()
    assert w.data.tolist() == [[0, 0, 2], [3, 4, 5]]
    assert (tmp_path / "w.npy").read_bytes() == before


def test_an_array_that_is_flat_already_but_belongs_to_another_is_not_written_into():
    whole = there(np.arange(6.0))
    ps = [Tensor(whole[:4].reshape(2, 2), requires_grad=True), Tensor(whole[4:], requires_grad=True)]
    nn.SGD(ps, 1.0).step(there(np.ones(6)))
    assert flat(ps).tolist() == [-1, 0, 1, 2, 3, 4]
    assert whole.tolist() == [0, 1, 2, 3, 4, 5]


def test_parameters_that_were_given_new_data_are_followed():
    """By assignment, by loading, by a copy: what the network computes with is what is trained."""
    ps = parameters()
    optimiser, ema = nn.SGD(ps, 1.0), nn.EMA(ps, 0.0)
    for p in ps:
        p.data = p.data * 2
    before = flat(ps)
    optimiser.step(there(np.ones(SIZE)))
    np.testing.assert_array_equal(flat(ps), before - 1)
    ema.update()
    np.testing.assert_allclose(ema.average, before - 1, atol=1e-12)


def test_two_tensors_that_exchanged_their_data_are_followed():
    a, b = ps = parameters(shapes=[(2, 2), (2, 2)])
    optimiser, first, second = nn.SGD(ps, 1.0), nn.to_numpy(a.data).copy(), nn.to_numpy(b.data).copy()
    a.data, b.data = b.data, a.data.T
    optimiser.step(there(np.zeros(8)))
    np.testing.assert_array_equal(a.data, second)
    np.testing.assert_array_equal(b.data, first.T)


def test_a_network_may_be_converted_before_another_optimiser_is_made():
    ps = parameters()
    optimiser = nn.SGD(ps, 1.0)
    for p in ps:
        p.data = p.data.astype(np.float32)
    again, before = nn.SGD(ps, 1.0), flat(ps)
    again.step(there(np.ones(SIZE, np.float32)))
    np.testing.assert_array_equal(flat(ps), before - 1)
    with pytest.raises(RuntimeError, match="before its optimiser and its average are made"):
        optimiser.flat  # noqa: B018


def test_an_optimiser_may_be_made_between_forward_and_backward():
    w = Tensor(there(np.array([3.0])), requires_grad=True)
    loss = (w * w).sum()
    optimiser = nn.SGD([w], 0.5)
    loss.backward()
    optimiser.step()
    assert w.data.tolist() == [0]


@pytest.mark.cpu
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copied", "pickled"]
)
def test_a_copy_of_a_network_and_its_optimiser_train_together_and_leave_the_first_alone(duplicate):
    network = nn.Linear(2, 1, rng=np.random.default_rng(0))
    first = network, nn.SGD(network.parameters(), 1.0), nn.EMA(network.parameters(), 0.0)
    before = flat(network.parameters())
    network2, optimiser2, ema2 = duplicate(first)
    optimiser2.step(np.ones(3, np.float32))
    ema2.update()
    np.testing.assert_array_equal(flat(network2.parameters()), before - 1)
    np.testing.assert_array_equal(ema2.average, before - 1)
    np.testing.assert_array_equal(flat(network.parameters()), before)


ORDERS = {
    "the same": ([0, 1, 2], [0, 1, 2]),
    "the average covers more": ([1, 2], [0, 1, 2, 3]),
    "the average covers more, with gaps": ([0, 2], [0, 1, 2, 3]),
    "the average covers fewer": ([0, 1, 2], [2]),
    "another order": ([0, 1, 2], [2, 0, 1]),
    "one in common": ([0, 1], [1, 2]),
    "none in common": ([0, 1], [2, 3]),
}


@pytest.mark.parametrize("trained, averaged", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("average_first", [False, True])
def test_lists_may_overlap_in_any_order(trained, averaged, average_first):
    ps = parameters(shapes=[(2, 3), (4,), (), (3, 2)])
    start, gs = [p.data.copy() for p in ps], [there(np.full(p.shape, float(i + 1))) for i, p in enumerate(ps)]
    makers = [lambda: nn.SGD([ps[i] for i in trained], 1.0), lambda: nn.EMA([ps[i] for i in averaged], 0.0)]
    made = [make() for make in (reversed(makers) if average_first else makers)]
    optimiser, ema = reversed(made) if average_first else made
    for _ in range(3):
        optimiser.step(there(np.concatenate([nn.to_numpy(gs[i]).reshape(-1) for i in trained])))
        ema.update()
    for i, p in enumerate(ps):
        np.testing.assert_allclose(p.data, start[i] - 3 * gs[i] if i in trained else start[i], rtol=1e-12)
    np.testing.assert_array_equal(ema.average, flat([ps[i] for i in averaged]))
    ema.average[...] = 7
    ema.swap()
    assert all((nn.to_numpy(ps[i].data) == 7).all() for i in averaged)


def test_two_optimisers_each_move_their_own_parameters():
    """Weights with decay, biases without: the two lists interleave in the network."""
    ps = parameters(shapes=[(2, 2), (2,), (2, 1), (1,)])
    start = [nn.to_numpy(p.data).copy() for p in ps]
    weights, biases = nn.SGD(ps[::2], 1.0), nn.SGD(ps[1::2], 10.0)
    for _ in range(2):
        weights.step(there(np.ones(6)))
        biases.step(there(np.ones(3)))
    for p, before, change in zip(ps, start, [2, 20, 2, 20], strict=True):
        np.testing.assert_allclose(p.data, before - change, rtol=1e-12)


def test_parameters_that_do_not_go_together_are_refused():
    ps = parameters()
    with pytest.raises(ValueError, match="no parameters"):
        nn.Adam([])
    with pytest.raises(ValueError, match="float32.*float64"):
        nn.Adam(ps + parameters(dtype=np.float32))
    with pytest.raises(ValueError, match=r"parameters 1 and 5, of shape \(5,\) and \(5,\), share their memory"):
        nn.Adam([*ps, ps[1]])
    for what in (ps[0], {"weight": ps[0]}, [p.data for p in ps]):
        with pytest.raises(TypeError, match="must be a list of Tensors, as network.parameters"):
            nn.EMA(what)
    with pytest.raises(ValueError, match=r"parameter 0, of shape \(3, 4\), was computed by an op"):
        nn.Adam([ps[0] * 1])
    with pytest.raises(ValueError, match="requires_grad=True only"):
        nn.Adam([Tensor(ps[0].data)])


@pytest.mark.cpu
def test_two_tensors_on_one_memory_are_refused():
    """Each could be changed without the other after they were laid flat; they were tied before."""
    a = np.zeros((2, 3))
    with pytest.raises(ValueError, match="parameters 0 and 1, .* share their memory"):
        nn.SGD([Tensor(a, requires_grad=True), Tensor(a[:, 1:], requires_grad=True)])
    nn.SGD([Tensor(a[:, :1], requires_grad=True), Tensor(a[:, 1:], requires_grad=True)])


@pytest.mark.parametrize("change", [lambda a: a.astype(np.float32), lambda a: a.reshape(4, 3)], ids=["dtype", "shape"])
@pytest.mark.parametrize("use", [lambda ps: nn.Adam(ps), nn.EMA], ids=["optimiser", "average"])
def test_parameters_that_were_converted_are_noticed(use, change):
    """The moments are of the dtype and in the order of what the parameters were."""
    ps = parameters(shapes=[(3, 4)])
    made = use(ps)
    ps[0].data = change(ps[0].data)
    with pytest.raises(RuntimeError, match="convert a network before its optimiser and its average are made"):
        made.update() if isinstance(made, nn.EMA) else made.step(there(np.ones(12)))
