"""Kinks, zeros, ties and infinities: the value and the slope of every op where it is not smooth or not finite."""

import numpy as np
import pytest
from device import there

import nn
from nn import Tensor, to_numpy

inf, nan = np.inf, np.nan

# op: (call, {x: (value, slope)})
ELEMENTWISE = {
    "abs": (abs, {-2: (2, -1), -0.0: (0, 0), inf: (inf, 1), -inf: (inf, -1), nan: (nan, nan)}),
    "relu": (nn.relu, {-1: (0, 0), 0: (0, 0), 1: (1, 1), inf: (inf, 1), -inf: (0, 0), nan: (nan, 1)}),
    "clip": (
        lambda x: x.clip(-1, 2),
        {-1: (-1, 1), 2: (2, 1), -1.5: (-1, 0), inf: (2, 0), -inf: (-1, 0), nan: (nan, 0)},
    ),
    "clip to one value": (lambda x: x.clip(1, 1), {1: (1, 1), 0: (1, 0)}),
    "clip to a half-line": (lambda x: x.clip(0, inf), {-1: (0, 0), 0: (0, 1), inf: (inf, 1)}),
    "sqrt": (nn.sqrt, {0: (0, inf), 4: (2, 0.25), inf: (inf, 0), -1: (nan, nan)}),
    "log": (nn.log, {0: (-inf, inf), 1: (0, 1), inf: (inf, 0)}),
    "exp": (nn.exp, {0: (1, 1), -inf: (0, 0), inf: (inf, inf)}),
    "tanh": (nn.tanh, {0: (0, 1), inf: (1, 0), -inf: (-1, 0), nan: (nan, nan)}),
    "sigmoid": (nn.sigmoid, {0: (0.5, 0.25), inf: (1, 0), -inf: (0, 0)}),
    "softplus": (nn.softplus, {inf: (inf, 1), -inf: (0, 0), 1e4: (1e4, 1), -1e4: (0, 0)}),
    "silu": (nn.silu, {0: (0, 0.5), 1e4: (1e4, 1), -1e4: (0, 0)}),
    "1 / x": (lambda x: 1 / x, {-2: (-0.5, -0.25), 0: (inf, -inf), inf: (0, 0)}),
    "x ** 0": (lambda x: x**0, {x: (1, 0) for x in (-2, 0, 3, inf, -inf, nan)}),
    "x ** 1": (lambda x: x**1, {-2: (-2, 1), 0: (0, 1), inf: (inf, 1)}),
    "x ** 2": (lambda x: x**2, {-3: (9, -6), 0: (0, 0), inf: (inf, inf), -inf: (inf, -inf)}),
    "x ** 3": (lambda x: x**3, {-2: (-8, 12), 0: (0, 0)}),
    "x ** -1": (lambda x: x**-1, {-2: (-0.5, -0.25), 0: (inf, -inf), inf: (0, 0)}),
    "x ** -2": (lambda x: x**-2, {-2: (0.25, 0.25), 0: (inf, -inf)}),
    "x ** 0.5": (lambda x: x**0.5, {0: (0, inf), 4: (2, 0.25), -1: (nan, nan)}),
    "x ** 1.5": (lambda x: x**1.5, {0: (0, 0), 4: (8, 3), -1: (nan, nan)}),
    "x ** -0.5": (lambda x: x**-0.5, {0: (inf, -inf), 4: (0.5, -1 / 16)}),
    "x * 0": (lambda x: x * 0, {0: (0, 0), 5: (0, 0), inf: (nan, 0)}),
    "x * x": (lambda x: x * x, {0: (0, 0), -3: (9, -6)}),
    "x / x": (lambda x: x / x, {2: (1, 0), 0: (nan, nan)}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("call, points", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_the_value_and_the_slope_at_a_point_that_is_special(xp, dtype, call, points):
    x = Tensor(xp.asarray(np.array(list(points), dtype)), requires_grad=True)
    with np.errstate(all="ignore"):
        y = call(x)
        (slope,) = nn.gradients(y, [x], xp.ones_like(y.data))
    values, slopes = np.array(list(points.values()), dtype).T
    np.testing.assert_array_equal(to_numpy(y.data), values)
    np.testing.assert_array_equal(to_numpy(slope), slopes)


# op of rows: (call, row, the gradient of what it returns)
TIES = {
    "max": (lambda x: x.max(axis=1), [1, 2, 2], [0, 0.5, 0.5]),
    "max of all equal": (lambda x: x.max(), [3, 3, 3], [1 / 3, 1 / 3, 1 / 3]),
    "max of zeros of both signs": (lambda x: x.max(axis=1), [0.0, -0.0, -1], [0.5, 0.5, 0]),
    "max of infinities": (lambda x: x.max(axis=1), [inf, 1, inf], [0.5, 0, 0.5]),
    "max of -infinities": (lambda x: x.max(axis=1), [-inf, -inf], [0.5, 0.5]),
    "max of what is no number": (lambda x: x.max(axis=1), [nan, 1], [nan, nan]),
    "min": (lambda x: x.min(axis=1), [1, 2, 1], [0.5, 0, 0.5]),
    "min of -infinity": (lambda x: x.min(axis=1), [-inf, 1], [1, 0]),
    "softmax of a masked entry": (lambda x: nn.softmax(x)[:, 0], [0, 0, -inf], [0.25, -0.25, 0]),
    "log_softmax of a masked entry": (lambda x: nn.log_softmax(x)[:, 0], [0, 0, -inf], [0.5, -0.5, 0]),
    "sum of infinities": (lambda x: x.sum(), [inf, -inf], [1, 1]),
    "where, infinite in the branch not taken": (lambda x: nn.where(x > 1, 2 * x, -inf), [inf, 1], [2, 0]),
}


@pytest.mark.parametrize("call, row, expected", TIES.values(), ids=TIES.keys())
def test_ties_and_infinities_in_a_row(call, row, expected):
    x = Tensor(there(np.array([row], float)), requires_grad=True)
    with np.errstate(all="ignore"):
        (found,) = nn.gradients(call(x).sum(), [x])
    np.testing.assert_allclose(to_numpy(found)[0], expected, rtol=1e-12)


def test_where_gives_a_safe_argument_a_finite_gradient():
    """sqrt has an infinite slope at 0, and 0 * inf is NaN: so the docstring of `where` says what to write."""
    x = Tensor(there([0.0, 4.0]), requires_grad=True)
    y = nn.where(x > 0, nn.sqrt(nn.where(x > 0, x, 1)), 0)
    assert nn.gradients(y.sum(), [x])[0].tolist() == [0, 0.25]
