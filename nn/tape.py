"""The tape: which ops are recorded, and the walk back along them (reverse-mode differentiation). Next: ops.py."""

from nn.scope import Scope

__all__ = ["Node", "no_grad", "grad_enabled", "gradients", "walk", "unbroadcast", "op_hooks"]

_grad_enabled = Scope("grad_enabled", True)

# Called as hook(event, name, array) at the end of every op, forward and backward; profile.py is the one user.
op_hooks = []


class Node:
    """Where a Tensor came from: what the walk back needs, and not its data, which lives while some vjp names it.

    name: the op's. parents: for each of its inputs a Node, or the Tensor itself if it is a leaf, or None if it needs no
    gradient.
    """

    __slots__ = ("name", "parents", "vjp", "shape")

    def __init__(self, name, tensors, vjp, shape):
        self.parents = tuple((t.node or t) if t.requires_grad else None for t in tensors)
        self.name, self.vjp, self.shape = name, vjp, shape


def grad_enabled():
    """Whether ops are being recorded (see `no_grad`)."""
    return _grad_enabled.get()


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
    return [found[id(x)][1] if id(x) in found else x.xp.zeros_like(x.data) for x in inputs]


def walk(output, output_gradient):
    """Reverse-mode differentiation: {id(leaf): (leaf, gradient)} for every leaf that `output` depends on."""
    if not output.requires_grad:
        raise RuntimeError("nothing to differentiate: no input of this Tensor has requires_grad=True")
    start = output.node or output
    pending = {id(start): _initial_gradient(output, output_gradient)}
    owned = set()  # ids of those nodes whose pending gradient the engine allocated, and so may add to in place
    leaves = {}
    for current in _topological_order(start):
        gradient = pending.pop(id(current), None)
        if gradient is None:
            continue
        if not isinstance(current, Node):
            leaves[id(current)] = (current, gradient)
            continue
        parent_gradients = current.vjp(gradient)
        for hook in op_hooks:
            hook("backward", current.name, gradient)
        for parent, contribution in zip(current.parents, parent_gradients, strict=True):
            if contribution is None or parent is None:
                continue
            contribution = unbroadcast(contribution, parent.shape, current.name)
            key = id(parent)
            if key not in pending:
                pending[key] = contribution  # may be shared with another parent: not ours to write into
            elif key in owned:
                pending[key] += contribution
            else:
                pending[key] = pending[key] + contribution
                owned.add(key)
        current.parents, current.vjp = (), _released  # what the closure kept is freed as the walk goes
    return leaves


def _initial_gradient(output, gradient):
    if gradient is None:
        if output.data.size != 1:
            raise ValueError(f"an output that is not a scalar needs a gradient; its shape is {output.shape}")
        return output.xp.ones_like(output.data)
    if getattr(gradient, "shape", None) != output.shape or gradient.dtype != output.dtype:
        given = f"shape {gradient.shape} and dtype {gradient.dtype}" if hasattr(gradient, "shape") else repr(gradient)
        raise ValueError(f"the output's gradient must be an array {output.shape} of {output.dtype}, got {given}")
    return gradient


def _topological_order(start):
    """Every node `start` depends on, each before its parents. Iterative: a deep graph must not exhaust the stack."""
    order, seen, stack = [], set(), [(start, False)]
    while stack:
        current, parents_done = stack.pop()
        if parents_done:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            parents = current.parents if isinstance(current, Node) else ()
            stack.extend((p, False) for p in parents if p is not None and id(p) not in seen)
    return reversed(order)


def _released(_):
    raise RuntimeError("this graph has been walked already and is released; run the forward pass again")


def unbroadcast(gradient, shape, name):
    """Sum `gradient`, given by the op `name`, back to `shape`, that before broadcasting. ValueError if it cannot be."""
    if gradient.shape == shape:
        return gradient
    added = gradient.ndim - len(shape)
    stretched = tuple(i for i, n in enumerate(gradient.shape) if i < added or shape[i - added] != n)
    if added < 0 or any(shape[i - added] != 1 for i in stretched if i >= added):
        raise ValueError(f"{name}: the vjp gave shape {gradient.shape} for the gradient of an input {shape}")
    return gradient.sum(axis=stretched, keepdims=True).reshape(shape)
