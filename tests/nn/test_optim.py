"""Optimisers against their papers, number by number, and against PyTorch. EMA, clipping, rates, state."""

import math

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor, optim

SHAPES = [(3, 4), (5,), (1,), (2, 2, 3)]


def parameters(seed=0, dtype=np.float64, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [Tensor(there(rng.standard_normal(shape).astype(dtype)), requires_grad=True) for shape in shapes]


def gradients(steps, size=30, dtype=np.float64):
    return there(np.random.default_rng(1).standard_normal((steps, size)).astype(dtype))


def flat(tensors):
    return np.concatenate([nn.to_numpy(p.data).reshape(-1) for p in tensors])


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Blocks of seven entries, so that these thirty take several, the last one short."""
    monkeypatch.setattr(optim, "_BLOCK", 7)


# ==== against the papers, one number at a time ====


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
        p = p - rate(k) * m_hat / (math.sqrt(v_hat) + epsilon)
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
    expected = [by_hand(p, nn.to_numpy(gs)[:, i], rate, **settings) for i, p in enumerate(start)]
    np.testing.assert_allclose(flat(ps), expected, rtol=1e-12, atol=1e-13)


def test_the_weight_decay_of_adamw_is_its_authors():
    one, other = parameters(), parameters()
    a, b = nn.AdamW(one, 0.1), nn.Adam(other, 0.1, weight_decay=0.01)
    for optimiser in (a, b):
        optimiser.step(gradients(1)[0])
    np.testing.assert_array_equal(flat(one), flat(other))


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


# ==== where parameters and gradients live ====


def test_parameters_become_views_of_one_flat_array_in_order():
    ps = parameters()
    before = flat(ps)
    together = optim.flatten(ps)
    np.testing.assert_array_equal(together, before)
    together += 1
    np.testing.assert_array_equal(flat(ps), before + 1)
    assert [p.shape for p in ps] == SHAPES
    assert optim.flatten(ps) is together  # an optimiser and an EMA share it


def test_the_gradient_is_collected_from_grad_and_is_zero_where_there_is_none():
    ps = parameters()
    optimiser = nn.SGD(ps, 1.0)
    before = flat(ps)
    (ps[1] * 3).sum().backward()
    optimiser.step()
    assert flat(ps) - before == pytest.approx([0.0] * 12 + [-3.0] * 5 + [0.0] * 13, abs=1e-15)
    optimiser.zero_grad()
    assert all(p.grad is None for p in ps)


@every_optimiser
def test_float32_stays_float32(kind, by_hand, settings):
    ps = parameters(dtype=np.float32)
    optimiser = kind(ps, nn.rates.cosine(0.1, 10), **settings)
    optimiser.step(gradients(1, dtype=np.float32)[0])
    assert {p.dtype for p in ps} == {np.dtype(np.float32)}
    assert {getattr(optimiser, name).dtype for name in optimiser.moments} == {np.dtype(np.float32)}


def test_parameters_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="no parameters"):
        nn.Adam([])
    with pytest.raises(ValueError, match="float32.*float64"):
        nn.Adam(parameters() + parameters(dtype=np.float32))


def test_a_gradient_that_does_not_fit_is_refused():
    optimiser = nn.SGD(parameters(), 0.1)
    with pytest.raises(ValueError, match=r"\(29,\) float64, the parameters \(30,\)"):
        optimiser.step(there(np.zeros(29)))
    with pytest.raises(ValueError, match="float32, the parameters .* float64"):
        optimiser.step(there(np.zeros(30, np.float32)))


USES = {
    "step": lambda ps: nn.Adam(ps).step,
    "average": lambda ps: nn.EMA(ps).update,
    "swap": lambda ps: nn.EMA(ps).swap,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_parameters_that_have_moved_away_are_noticed(use):
    """Otherwise the flat array would be trained, and the network would stay as it is."""
    ps = parameters()
    use_it = use(ps)
    ps[2].data = ps[2].data.copy()
    with pytest.raises(RuntimeError, match="left the flat array"):
        use_it()


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
        (lambda s: s.update(square=np.zeros(29)), r"square: expected float64 \(30,\), got float64 \(29,\)"),
        (lambda s: s.update(square=np.zeros(30, np.float32)), r"square: .* got float32 \(30,\)"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil, words):
    optimiser = nn.Adam(parameters())
    optimiser.step(gradients(1)[0])
    before = optimiser.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    spoil(state)
    with pytest.raises(ValueError, match=words):
        optimiser.load_state_dict(state)
    for name, array in optimiser.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


# ==== EMA ====


def test_the_average_is_the_recursion_with_its_growing_decay():
    ps = parameters()
    ema, average = nn.EMA(ps, decay=0.7), flat(ps)
    for k in range(1, 60):
        optim.flatten(ps)[...] = gradients(60)[k]
        ema.update()
        decay = min(0.7, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * flat(ps)
        np.testing.assert_allclose(ema.average, average, rtol=1e-12, atol=1e-13)
    assert (1 + 59) / (10 + 59) > 0.7  # both sides of the min were in use


def test_swapping_twice_restores_both():
    ps = parameters()
    ema = nn.EMA(ps)
    optim.flatten(ps)[...] += 1
    weights, average = flat(ps), ema.average.copy()
    ema.swap()
    np.testing.assert_array_equal(flat(ps), average)
    np.testing.assert_array_equal(ema.average, weights)
    ema.swap()
    np.testing.assert_array_equal(flat(ps), weights)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_does_not_average_is_refused(decay):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\), got"):
        nn.EMA(parameters(), decay)


# ==== clipping ====


def test_clipping_returns_the_norm_and_shortens_only_what_is_longer():
    g = there([3.0, 4.0])
    assert nn.clip_by_global_norm(g, 6) == 5
    assert g.tolist() == [3, 4]
    assert nn.clip_by_global_norm(g, 1) == 5
    np.testing.assert_allclose(g, [0.6, 0.8], rtol=1e-15)
    assert nn.clip_by_global_norm(there(np.zeros(2)), 1) == 0


@pytest.mark.cpu
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_refused(bad):
    with pytest.raises(FloatingPointError, match="norm is (nan|inf)"):
        nn.clip_by_global_norm(np.array([1.0, bad]), 1)


@pytest.mark.parametrize("limit", [0, -1.0, np.nan])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match="must be positive, got"):
        nn.clip_by_global_norm(np.ones(2), limit)


# ==== learning rates ====

RATES = {
    "constant": (nn.rates.constant(3.0), {1: 3, 1000: 3}),
    "warmup": (nn.rates.warmup(8.0, 4), {1: 2, 2: 4, 4: 8, 5: 8, 1000: 8}),
    "warmup of no steps": (nn.rates.warmup(8.0, 0), {1: 8}),
    "warmup, then cosine": (nn.rates.warmup(8.0, 4, nn.rates.cosine(8.0, 12)), {2: 4, 4: 8, 6: 4, 12: 0}),
    "linear": (nn.rates.linear(8.0, 4, final=2), {1: 6.5, 2: 5, 4: 2, 9: 2}),
    "cosine": (nn.rates.cosine(8.0, 12), {4: 6, 6: 4, 8: 2, 12: 0, 13: 0}),
    "cosine to a floor": (nn.rates.cosine(8.0, 12, final=2), {4: 6.5, 6: 5, 12: 2, 99: 2}),
}


@pytest.mark.parametrize("rate, expected", RATES.values(), ids=RATES.keys())
def test_rates_at_chosen_steps(rate, expected):
    assert [rate(step) for step in expected] == pytest.approx(list(expected.values()), rel=1e-12, abs=1e-12)
