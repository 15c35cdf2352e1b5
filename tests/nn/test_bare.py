"""The bare engine, which is read first: the one of the networks computes the same, on any program of their common ops."""

import numpy as np
from device import there
from hypothesis import given
from hypothesis import strategies as st

import nn
from nn import bare, to_numpy

STEPS = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "matmul": lambda a, b: a @ b,
    "tanh of a sum": lambda a, b: (a + b).tanh() if isinstance(a, bare.Tensor) else nn.tanh(a + b),
}
programs = st.lists(
    st.tuples(st.sampled_from(list(STEPS)), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12
)


def run(program, *inputs):
    """The sum of what the last step of the program gives; each step takes two of the results before it."""
    results = list(inputs)
    for name, i, j in program:
        results.append(STEPS[name](results[i % len(results)], results[j % len(results)]))
    return results[-1].sum()


@given(programs, st.integers(0, 2**32 - 1))
def test_the_engine_of_the_networks_gives_the_gradients_of_the_bare_one(program, seed):
    arrays = np.random.default_rng(seed).uniform(-1, 1, (2, 3, 3))
    simple = [bare.Tensor(a) for a in arrays]
    fast = [nn.Tensor(there(a), requires_grad=True) for a in arrays]
    expected, found = run(program, *simple), run(program, *fast)
    expected.backward()
    np.testing.assert_allclose(found.item(), expected.data, rtol=1e-12)
    for x, gradient in zip(simple, nn.gradients(found, fast), strict=True):
        np.testing.assert_allclose(to_numpy(gradient), x.grad, rtol=1e-9, atol=1e-12 * (1 + abs(x.grad).max()))


def test_gradients_of_two_uses_are_added_once_each():
    x = bare.Tensor([3.0])
    shared = x * x
    (shared + shared * x).sum().backward()  # x^2 + x^3
    assert x.grad.tolist() == [2 * 3 + 3 * 9]
