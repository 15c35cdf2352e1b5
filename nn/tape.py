"""The tape: which ops are recorded, and the walk back along them. The walk is that of bare.py, made fit for networks.

The record is a graph of Nodes, one for each op. A Node does not hold the op's result: an array lives only as long as
some vjp names it, and the walk drops each vjp once it is used. Next: tensors.py.
"""

import itertools
import operator

from nn.arrays import described, is_array
from nn.backend import array_module
from nn.scope import Scope

__all__ = ["Node", "no_grad", "grad_enabled", "gradients", "walk", "op_hooks"]

_grad_enabled = Scope("grad_enabled", True)
grad_enabled = _grad_enabled.get  # a function: whether ops are being recorded (see `no_grad`)

# Each is called as hook("forward" or "backward", op's name, array) at the end of every op. profiling.py adds one.
op_hooks = []

# A counter that each recorded op, and each change of weights, takes its time from.
clock = itertools.count(1)


class Node:
    """How a result was computed.

    name: the op's name. parents: for each input its Node, or the Tensor itself if it is a leaf, or None if it needs no
    gradient. shape, dtype: those of the result. time: the op's, by `clock`; it is later than its parents'.
    """

    __slots__ = ("name", "parents", "vjp", "shape", "dtype", "time")
    changed = 0  # a leaf has the time of its last change here; results of ops never change

    def __init__(self, name, inputs, vjp, result):
        self.parents = [(x.node or x) if x.requires_grad else None for x in inputs]
        self.name, self.vjp, self.shape, self.dtype = name, vjp, result.shape, result.dtype
        self.time = next(clock)


def no_grad():
    """A `with` block in which nothing is recorded: ops keep no inputs alive, and results cannot be differentiated."""
    return _grad_enabled.set(False)


def gradients(output, inputs, output_gradient=None):
    """Gradients of `output` with respect to each Tensor of `inputs`, as a list of arrays (zeros where unconnected).

    inputs: leaves with requires_grad (ValueError otherwise). output_gradient: the cotangent, an array of output's
    shape and dtype; may be left out for a scalar output. The graph is released on the way: a second walk raises
    RuntimeError. Touches no `.grad`, so several threads may share leaves. The returned arrays may share memory.
    """
    for index, x in enumerate(inputs):
        if x.node is not None or not x.requires_grad:
            raise ValueError(f"input {index} is not a leaf with requires_grad=True: only those get gradients")
    found = walk(output, output_gradient)
    return [found[x] if x in found else x.xp.zeros_like(x.data) for x in inputs]


def walk(output, output_gradient=None):
    """Reverse-mode differentiation: {leaf: gradient} for every leaf that `output` depends on. Errors as `gradients`."""
    if not output.requires_grad:
        raise RuntimeError("nothing to differentiate: no input of this Tensor has requires_grad=True")
    start = output.node or output
    pending = {start: _initial_gradient(output, output_gradient)}  # by Node or leaf: the sum of the gradients so far
    owned = set()  # the keys of `pending` whose array was allocated here: it may be added to in place
    for node in _latest_first(start):
        gradient = pending.pop(node, None)
        if gradient is None:  # every vjp gave None for it
            continue
        for parent, part in zip(node.parents, _parts(node, gradient), strict=True):
            if parent is None or part is None:
                continue
            part = _fitted(part, parent, node)
            if parent not in pending:
                pending[parent] = part  # may be shared with another parent, so never written into
            elif parent in owned:
                pending[parent] += part
            else:
                pending[parent] = pending[parent] + part
                owned.add(parent)
        node.parents, node.vjp = (), _released  # frees what the vjp kept
    return pending  # a leaf is never popped


def _initial_gradient(output, gradient):
    if gradient is None:
        if output.size != 1:
            raise ValueError(f"an output that is not a scalar needs a gradient; its shape is {output.shape}")
        return output.xp.ones_like(output.data)
    given = (gradient.shape, gradient.dtype, array_module(gradient)) if is_array(gradient) else None
    if given != (output.shape, output.dtype, output.xp):
        got = f"shape {given[0]} and dtype {given[1]} of {given[2].__name__}" if given else repr(gradient)
        raise ValueError(f"the output's gradient must be an array {output.shape} of {output.dtype}, got {got}")
    return gradient


def _latest_first(start):
    """`start` and every Node that it depends on, the latest first: so each comes before its parents."""
    found, todo = set(), [start]
    while todo:  # not recursive: a deep graph must not exhaust the stack
        current = todo.pop()
        if isinstance(current, Node) and current not in found:
            found.add(current)
            todo.extend(current.parents)
    return sorted(found, key=operator.attrgetter("time"), reverse=True)


def _parts(node, gradient):
    """The gradients that the vjp of `node` returns, one per parent. TypeError if it returns something else."""
    parts = node.vjp(gradient)
    for hook in op_hooks:
        hook("backward", node.name, gradient)
    if not isinstance(parts, (tuple, list)) or len(parts) != len(node.parents):
        given = f"{len(parts)} of them" if isinstance(parts, (tuple, list)) else type(parts).__name__
        raise TypeError(f"{node.name}: the vjp must return a tuple of gradients, one per input, got {given}")
    return parts


def _fitted(gradient, parent, node):
    """`gradient`, which the vjp of `node` gave, summed over the axes along which `parent` was broadcast.

    TypeError or ValueError if its dtype or shape does not fit the parent, RuntimeError if the parent's data have
    changed since the op.
    """
    if parent.changed > node.time:
        raise RuntimeError(
            f"{node.name}: the data of an input {parent.shape} have changed since, as by an optimiser's step, so the "
            "gradient would be wrong; call backward before the change, or run the forward pass again"
        )
    if not is_array(gradient) or gradient.dtype != parent.dtype:
        given = described(gradient)
        raise TypeError(f"{node.name}: the vjp gave {given} for the gradient of an input of {parent.dtype}")
    shape = parent.shape
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(i for i, n in enumerate(gradient.shape) if i < added or shape[i - added] != n)
    if added < 0 or any(shape[i - added] != 1 for i in stretched if i >= added):
        raise ValueError(f"{node.name}: the vjp gave shape {gradient.shape} for the gradient of an input {shape}")
    return gradient.sum(axis=stretched, keepdims=True).reshape(shape)


def _released(_):
    raise RuntimeError("this graph has been walked already and is released; run the forward pass again")
