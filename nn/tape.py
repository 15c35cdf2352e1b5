"""The tape: which ops are recorded, and the walk back along them. The walk is that of bare.py, made fit for networks.

What is recorded is a graph of Nodes, one for each op. A Node does not hold the op's result: an array lives only as long
as some vjp names it, and the walk drops each vjp once it is used. Next: tensors.py.
"""

import itertools
import operator

from nn.arrays import described, is_array
from nn.backend import array_module
from nn.scope import Scope

__all__ = ["Node", "no_grad", "grad_enabled", "gradients", "walk", "op_hooks"]

_grad_enabled = Scope("grad_enabled", True)
grad_enabled = _grad_enabled.get  # grad_enabled(): whether ops are being recorded (see `no_grad`)

# Called as hook(event, name, array) at the end of every op, forward and backward, as `profile` does.
op_hooks = []

# Counts the ops recorded and the changes of weights, in the order in which they happen.
clock = itertools.count(1)


class Node:
    """How a result was computed.

    name: the op's. parents: for each input its Node, or the Tensor itself if it is a leaf, or None if it needs no
    gradient. shape, dtype: of the result. time: of the op, by the clock, so parents have earlier times.
    """

    __slots__ = ("name", "parents", "vjp", "shape", "dtype", "time")
    changed = 0  # only the data of a leaf are ever written into

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
    RuntimeError. Touches no `.grad`, so several threads may share leaves. What is returned may share memory.
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
    pending = {start: _initial_gradient(output, output_gradient)}  # of Nodes and leaves: what their uses have added
    owned = set()  # those of them whose gradient was allocated here, and may be added to in place
    for node in _latest_first(start):
        gradient = pending.pop(node, None)
        if gradient is None:  # no use of it gave a gradient
            continue
        for parent, part in zip(node.parents, _parts(node, gradient), strict=True):
            if parent is None or part is None:
                continue
            part = _fitted(part, parent, node)
            if parent not in pending:
                pending[parent] = part  # perhaps the same array as another parent's: not to be written into
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
    """Every Node behind `start`, and `start`, each before its parents, which were made before it."""
    found, todo = set(), [start]
    while todo:  # not recursive: a deep graph must not exhaust the stack
        current = todo.pop()
        if isinstance(current, Node) and current not in found:
            found.add(current)
            todo.extend(current.parents)
    return sorted(found, key=operator.attrgetter("time"), reverse=True)


def _parts(node, gradient):
    """What the vjp of `node` gives its parents, one for each. TypeError where it gives something else."""
    parts = node.vjp(gradient)
    for hook in op_hooks:
        hook("backward", node.name, gradient)
    if not isinstance(parts, (tuple, list)) or len(parts) != len(node.parents):
        given = f"{len(parts)} of them" if isinstance(parts, (tuple, list)) else type(parts).__name__
        raise TypeError(f"{node.name}: the vjp must return a tuple of gradients, one per input, got {given}")
    return parts


def _fitted(gradient, parent, node):
    """`gradient`, which the vjp of `node` gave, summed over the axes along which `parent` was broadcast.

    TypeError or ValueError where it is not like the parent, RuntimeError where the parent's data have changed since.
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
