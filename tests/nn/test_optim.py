"""Optimisers against their papers, number by number, and against PyTorch. EMA, clipping, rates, state."""

import math

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor

SHAPES = [(3, 4), (5,), (), (2, 2, 3), (0, 3), (180, 200)]  # the last makes it more than one block
SIZE = 36030


def parameters(seed=0, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [Tensor(there(rng.standard_normal(shape)).astype(dtype), requires_grad=True) for shape in shapes]


def gradients(steps, size=SIZE, dtype=np.float64):
    return there(np.random.default_rng(1).standard_normal((steps, size)).astype(dtype))


def flat(tensors):
    return np.concatenate([nn.to_numpy(p.data).reshape(-1) for p in tensors])


# ==== against the papers, all entries at a time ====


def sgd_by_hand(p, gradients, rate, momentum=0.0):
    v = 0.0
    for k, g in enumerate(gradients, 1):
        v = momentum * v + g
        p = p - rate(k) * v
    return p


def adam_by_hand(p, gradients, rate, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0):
    m = v = 0.0
    for k, g in enumerate(gradients, 1):
        p = p - rate(k) * weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        m_hat, v_hat = m / (1 - betas[0] ** k), v / (1 - betas[1] ** k)
        p = p - rate(k) * m_hat / (np.sqrt(v_hat) + epsilon)
    return p


OPTIMISERS = {
    "SGD": (nn.SGD, sgd_by_hand, {}),
    "SGD with momentum": (nn.SGD, sgd_by_hand, {"momentum": 0.9}),
    "Adam": (nn.Adam, adam_by_hand, {}),
    "Adam, all changed": (nn.Adam, adam_by_hand, {"betas": (0.5, 0.9), "epsilon": 0.1, "weight_decay": 0.3}),
    "AdamW": (nn.AdamW, adam_by_hand, {"weight_decay": 0.01}),
}
every_optimiser = pytest.mark.parametrize("kind, by_hand, settings", OPTIMISERS.values(), ids=OPTIMISERS)


@every_optimiser
@pytest.mark.parametrize("rate", [0.1, nn.rates.warmup(0.1, 5)], ids=["constant", "warmup"])
def test_each_entry_takes_the_steps_of_the_paper(kind, by_hand, settings, rate):
    ps, gs = parameters(), gradients(steps=20)
    start, optimiser = flat(ps), kind(ps, rate, **settings)
    for g in gs:
        optimiser.step(g.copy())
    rate = rate if callable(rate) else nn.rates.constant(rate)
    np.testing.assert_allclose(flat(ps), by_hand(start, nn.to_numpy(gs), rate, **settings), rtol=1e-11, atol=1e-12)


def test_the_weight_decay_of_adamw_is_its_authors():
    one, other = parameters(), parameters()
    a, b = nn.AdamW(one, 0.1), nn.Adam(other, 0.1, weight_decay=0.01)
    for optimiser in (a, b):
        optimiser.step(gradients(1)[0])
    np.testing.assert_array_equal(flat(one), flat(other))


# ==== Muon: matrices as the paper has it, the rest as Adam ====


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (5, 5), (30, 1), (64, 48)])
def test_orthogonalised_keeps_the_singular_vectors_and_brings_their_values_near_1(shape):
    rng = np.random.default_rng(0)
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    values = np.geomspace(1, 0.01, min(shape)) * 37.0
    found = nn.to_numpy(nn.orthogonalised(there((u * values) @ vt)))
    inner = u.T @ found @ vt.T
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-9)
    assert (np.diag(inner) > 0.68).all() and (np.diag(inner) < 1.21).all()
    np.testing.assert_allclose(found, u @ inner @ vt, atol=1e-9)  # nothing outside of these directions


def test_each_step_of_orthogonalised_is_the_polynomial_of_jordan_et_al():
    value = 0.05
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    matrix = there(np.diag([np.sqrt(1 - 0.05**2), 0.05]))
    assert float(nn.orthogonalised(matrix)[1, 1]) == pytest.approx(value, rel=1e-12)


def test_orthogonalised_zeros_are_zeros():
    assert not nn.to_numpy(nn.orthogonalised(there(np.zeros((3, 4))))).any()


def test_muon_moves_a_matrix_by_its_orthogonalised_nesterov_momentum_and_other_parameters_as_adam():
    ps, gs = parameters(), gradients(steps=8)
    starts = [nn.to_numpy(p.data).copy() for p in ps]
    optimiser = nn.Muon(ps, lambda step: 0.1 / step, (0.9, 0.99), 1e-8, 0.3)
    for g in gs:
        optimiser.step(g.copy())
    ends = np.cumsum([p.size for p in ps])
    for p, start, end in zip(ps, starts, ends, strict=True):
        mine = nn.to_numpy(gs)[:, end - p.size : end]
        if p.ndim < 2:
            expected = adam_by_hand(start.reshape(-1), mine, lambda k: 0.1 / k, (0.9, 0.99), 1e-8, 0.3)
        else:
            expected, mean = start.reshape(-1), 0.0
            for k, g in enumerate(mine, 1):
                mean = 0.9 * mean + 0.1 * g
                ahead = (0.9 * mean + 0.1 * g).reshape(-1, p.shape[-1])
                move = nn.to_numpy(nn.orthogonalised(there(ahead))) if p.size else ahead
                scale = np.sqrt(max(ahead.shape))
                expected = (1 - 0.1 / k * 0.3) * expected - 0.1 / k * scale * move.reshape(-1)
        np.testing.assert_allclose(nn.to_numpy(p.data).reshape(-1), expected, rtol=1e-9, atol=1e-10)


def test_the_root_mean_square_of_muons_update_is_about_the_learning_rate():
    ps = parameters()
    start, optimiser = nn.to_numpy(ps[-1].data).copy(), nn.Muon(ps, 0.01)
    optimiser.step(gradients(1)[0])
    assert 0.6 < np.sqrt(np.mean((nn.to_numpy(ps[-1].data) - start) ** 2)) / 0.01 < 1.2


@pytest.mark.parametrize(
    "name, settings",
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9}),
        ("Adam", {}),
        ("Adam", {"betas": (0.8, 0.95)}),
        ("AdamW", {}),
        ("AdamW", {"weight_decay": 0.5}),
    ],
)
def test_steps_are_those_of_pytorch(name, settings):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'bench')")
    ps, gs = parameters(), gradients(steps=20)
    theirs = torch.nn.Parameter(torch.from_numpy(flat(ps)))
    ours = getattr(nn, name)(ps, 0.1, **settings)
    peer = getattr(torch.optim, name)([theirs], lr=0.1, **settings)
    for g in gs:
        ours.step(g)
        theirs.grad = torch.from_numpy(nn.to_numpy(g))
        peer.step()
    np.testing.assert_allclose(flat(ps), theirs.detach().numpy(), rtol=1e-12, atol=1e-13)


# ==== gradients and numbers ====


def test_the_gradient_is_collected_from_grad_and_is_zero_where_there_is_none():
    ps = parameters()
    optimiser = nn.SGD(ps, 1.0)
    before = flat(ps)
    (ps[1] * 3).sum().backward()
    optimiser.step()
    assert (flat(ps) - before)[:20] == pytest.approx([0.0] * 12 + [-3.0] * 5 + [0.0] * 3, abs=1e-15)
    optimiser.zero_grad()
    assert all(p.grad is None for p in ps)
    with pytest.raises(RuntimeError, match="no parameter has a gradient: call backward"):
        optimiser.step()
    ps[0].grad = there(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"parameter 0, of shape \(3, 4\), has a gradient of shape \(4, 3\)"):
        optimiser.step()


@every_optimiser
def test_float32_stays_float32(kind, by_hand, settings):
    ps = parameters(dtype=np.float32)
    optimiser = kind(ps, nn.rates.cosine(0.1, 10), **settings)
    optimiser.step(gradients(1, dtype=np.float32)[0])
    assert {p.dtype for p in ps} == {np.dtype(np.float32)}
    assert {getattr(optimiser, name).dtype for name in optimiser.moments} == {np.dtype(np.float32)}


NUMBERS = [float, np.float64, np.float32, lambda value: np.array(value)]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_of_numpys_give_what_pythons_give_in_float32(number):
    """np.float64(0.1) times float32 data is float64: none of them may reach the data."""

    def trained(number):
        ps = parameters(dtype=np.float32)
        ema = nn.EMA(ps, number(0.5))
        optimisers = [
            nn.SGD(ps, number(0.25), number(0.5)),
            nn.AdamW(ps, lambda step: number(0.25), (number(0.5), number(0.75)), number(0.125), number(0.25)),
        ]
        for optimiser in optimisers:
            optimiser.step(gradients(1, dtype=np.float32)[0])
            ema.update()
        return [optimisers[0].velocity, optimisers[1].mean, optimisers[1].square, ema.average, optimisers[0].flat]

    for found, expected in zip(trained(number), trained(float), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_a_parameter_that_was_frozen_is_not_moved_by_its_momentum():
    ps = parameters()
    optimiser = nn.Adam(ps, 0.1, weight_decay=0.1)
    optimiser.step(gradients(1)[0])
    before = flat(ps)
    ps[1].requires_grad = False
    with pytest.raises(RuntimeError, match="was frozen since the optimiser was made"):
        optimiser.step(gradients(1)[0])
    np.testing.assert_array_equal(flat(ps), before)
    assert optimiser.steps == 1


def test_an_average_covers_frozen_tensors_too():
    frozen = Tensor(there(np.ones(3)))
    assert nn.EMA([*parameters(), frozen]).average.size == SIZE + 3


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda ps: nn.SGD(ps, -0.1), r"the learning rate must be in \[0, inf\), got -0.1"),
        (lambda ps: nn.SGD(ps, np.nan), "the learning rate .* got nan"),
        (lambda ps: nn.SGD(ps, np.inf), "the learning rate .* got inf"),
        (lambda ps: nn.SGD(ps, momentum=1.0), r"momentum must be in \[0, 1\), got 1"),
        (lambda ps: nn.Adam(ps, betas=(0.9, 1.0)), r"each beta must be in \[0, 1\)"),
        (lambda ps: nn.Adam(ps, betas=(-0.1, 0.9)), "each beta"),
        (lambda ps: nn.Adam(ps, weight_decay=-1), "weight_decay must be in"),
        (lambda ps: nn.Adam(ps, epsilon=0), "epsilon = 0 is too small"),
        (lambda ps: nn.Adam(parameters(dtype=np.float16)), "epsilon = 1e-08 is too small: in float16"),
        (lambda ps: nn.Adam(ps, lambda step: math.nan).step(gradients(1)[0]), "the learning rate .* got nan"),
        (lambda ps: nn.EMA(ps, -0.1), r"the EMA decay must be in \[0, 1\), got -0.1"),
        (lambda ps: nn.EMA(ps, 1.0), r"must be in \[0, 1\), got 1"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make(parameters())


def test_a_gradient_that_does_not_fit_is_refused():
    optimiser = nn.SGD(parameters(), 0.1)
    with pytest.raises(ValueError, match=r"\(29,\) float64, the parameters \(36030,\)"):
        optimiser.step(there(np.zeros(29)))
    with pytest.raises(ValueError, match="float32, the parameters .* float64"):
        optimiser.step(there(np.zeros(SIZE, np.float32)))


# ==== saved and restored ====


@every_optimiser
def test_a_restored_optimiser_goes_on_bit_for_bit(kind, by_hand, settings):
    rate, gs = nn.rates.warmup(0.1, 5), gradients(steps=10, dtype=np.float32)
    ps = parameters(dtype=np.float32)
    through = kind(ps, rate, **settings)
    for k, g in enumerate(gs):
        if k == 6:
            weights, state = flat(ps), through.state_dict()
        through.step(g)
    again = parameters(seed=7, dtype=np.float32)
    resumed = kind(again, rate, **settings)
    resumed.flat[...] = there(weights)
    resumed.load_state_dict(state)
    for g in gs[6:]:
        resumed.step(g)
    assert resumed.steps == 10
    np.testing.assert_array_equal(flat(again), flat(ps))
    for name, moment in resumed.state_dict().items():
        np.testing.assert_array_equal(moment, through.state_dict()[name])


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda s: s.pop("square"), r"expected \['steps', 'mean', 'square'\], got \['steps', 'mean'\]"),
        (lambda s: s.update(square=np.zeros(29)), r"square: expected float64 \(36030,\), got float64 \(29,\)"),
        (lambda s: s.update(steps=np.array([1, 2])), "steps must be an integer"),
        (lambda s: s.update(steps=np.asarray(-1)), "steps must be at least 0, got -1"),
        (lambda s: s.update(square=np.zeros(SIZE, np.float32)), r"square: .* got float32 \(36030,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, words):
    optimiser = nn.Adam(parameters())
    optimiser.step(gradients(1)[0])
    before = optimiser.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    spoil(state)
    with pytest.raises((ValueError, TypeError), match=words):
        optimiser.load_state_dict(state)
    for name, array in optimiser.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ==== EMA ====


def test_the_average_is_the_recursion_with_its_growing_decay():
    ps = parameters()
    ema, average, weights = nn.EMA(ps, decay=0.7), flat(ps), gradients(60)
    for k in range(1, 60):
        ema.flat[...] = weights[k]
        ema.update()
        decay = min(0.7, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * flat(ps)
        np.testing.assert_allclose(ema.average, average, rtol=1e-12, atol=1e-13)
    assert (1 + 59) / (10 + 59) > 0.7  # both sides of the min were in use


def test_swapping_twice_restores_both():
    ps = parameters()
    ema = nn.EMA(ps)
    ema.flat[...] += 1
    weights, average = flat(ps), ema.average.copy()
    ema.swap()
    np.testing.assert_array_equal(flat(ps), average)
    np.testing.assert_array_equal(ema.average, weights)
    ema.swap()
    np.testing.assert_array_equal(flat(ps), weights)


def test_the_state_of_an_average_must_fit_too():
    ema = nn.EMA(parameters())
    with pytest.raises(ValueError, match=r"expected \['updates', 'average'\], got \['average'\]"):
        ema.load_state_dict({"average": np.zeros(SIZE)})
    with pytest.raises(ValueError, match=r"average: expected float64 \(36030,\), got float64 \(3,\)"):
        ema.load_state_dict({"average": np.zeros(3), "updates": np.asarray(3)})
    assert ema.updates == 0


# ==== clipping ====


def test_clipping_returns_the_norm_and_shortens_only_what_is_longer():
    g = there([3.0, 4.0])
    assert nn.clip_by_global_norm(g, 6) == 5
    assert g.tolist() == [3, 4]
    assert nn.clip_by_global_norm(g, 1) == 5
    np.testing.assert_allclose(g, [0.6, 0.8], rtol=1e-15)
    assert nn.clip_by_global_norm(there(np.zeros(2)), 1) == 0


@pytest.mark.parametrize("limit", [np.inf, math.inf, np.float32(6), np.float64(6), np.float64(1e300), 6])
def test_a_limit_that_is_not_reached_changes_nothing(limit):
    g = there(np.array([3, 4], np.float32))
    assert float(nn.clip_by_global_norm(g, limit)) == 5
    assert (g.tolist(), g.dtype) == ([3, 4], np.float32)


def test_no_gradient_has_the_norm_0():
    assert float(nn.clip_by_global_norm(there(np.zeros(0, np.float32)), 1)) == 0


EXTREMES = [(np.float32, 3e30), (np.float32, 3e-30), (np.float64, 3e200), (np.float64, 3e-200), (np.float16, 3e4)]


@pytest.mark.cpu
@pytest.mark.parametrize("dtype, size", EXTREMES)
def test_squares_that_overflow_or_vanish_do_not_spoil_the_norm(dtype, size):
    g = np.array([3, 4, 0], dtype) * dtype(size / 3)
    expected = g.astype(np.longdouble)
    norm = nn.clip_by_global_norm(g, 1)
    assert norm == pytest.approx(5 * size / 3, rel=1e-2 if dtype == np.float16 else 1e-6)
    expected = expected / max(norm, 1)
    np.testing.assert_allclose(g.astype(np.longdouble), expected, rtol=2e-3 if dtype == np.float16 else 1e-6)


@pytest.mark.cpu
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(bad):
    with pytest.raises(FloatingPointError, match="norm is (nan|inf)"):
        nn.clip_by_global_norm(np.array([1.0, bad]), 1)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match="a limit above 0, got 1 axes and"):
        nn.clip_by_global_norm(there(np.ones(2)), limit)


def test_a_gradient_that_is_not_flat_is_refused():
    with pytest.raises(ValueError, match="needs a flat gradient .* got 2 axes"):
        nn.clip_by_global_norm(there(np.ones((2, 2))), 1)
