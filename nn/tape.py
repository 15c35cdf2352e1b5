"""The tape: which ops are recorded, and the walk back along them (reverse-mode differentiation). Next: ops.py."""

import contextlib
import contextvars

__all__ = ["no_grad", "grad_enabled", "gradients", "walk", "unbroadcast", "op_hooks", "op_name"]

_grad_enabled = contextvars.ContextVar("grad_enabled", default=True)

# Called as hook(event, name, array) at the end of every op, forward and backward; profile.py is the one user.
op_hooks = []


def grad_enabled():
    """Whether ops are being recorded (see `no_grad`)."""
    return _grad_enabled.get()


@contextlib.contextmanager
def no_grad():
    """Inside this block nothing is recorded: ops keep no inputs alive, and results cannot be differentiated."""
    token = _grad_enabled.set(False)
    try:
        yield
    finally:
        _grad_enabled.reset(token)


def gradients(output, inputs, output_gradient=None):
    """Gradients of `output` with respect to each Tensor of `inputs`, as a list of arrays (zeros where unconnected).

    output_gradient: the cotangent, an array of output's shape; may be left out for a scalar output. The graph is
    released on the way: a second walk raises RuntimeError. Touches no `.grad`, so several threads may share leaves.
    """
    found = walk(output, output_gradient)
    return [found[id(x)][1] if id(x) in found else x.xp.zeros_like(x.data) for x in inputs]


def walk(output, output_gradient):
    """Reverse-mode differentiation: {id(leaf): (leaf, gradient)} for every leaf that `output` depends on."""
    if not output.requires_grad:
        raise RuntimeError("nothing to differentiate: no input of this Tensor has requires_grad=True")
    pending = {id(output): _initial_gradient(output, output_gradient)}
    owned = set()  # ids of those nodes whose pending gradient the engine allocated, and so may add to in place
    leaves = {}
    for current in _topological_order(output):
        gradient = pending.pop(id(current), None)
        owned.discard(id(current))
        if gradient is None:
            continue
        if current.vjp is None:
            leaves[id(current)] = (current, gradient)
            continue
        parent_gradients = current.vjp(gradient)
        for hook in op_hooks:
            hook("backward", op_name(current.vjp), gradient)
        for parent, contribution in zip(current.parents, parent_gradients, strict=True):
            if contribution is None or not parent.requires_grad:
                continue
            contribution = unbroadcast(contribution, parent.shape)
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
            raise ValueError(f"a gradient must be given for an output that is not a scalar; its shape is {output.shape}")
        return output.xp.ones_like(output.data)
    if gradient.shape != output.shape or gradient.dtype != output.dtype:
        raise ValueError(
            f"the output's gradient has shape {gradient.shape} and dtype {gradient.dtype}, "
            f"the output {output.shape} and {output.dtype}"
        )
    return gradient


def _topological_order(output):
    """Every node `output` depends on, each before its parents. Iterative: a deep graph must not exhaust the stack."""
    order, seen, stack = [], set(), [(output, False)]
    while stack:
        current, parents_done = stack.pop()
        if parents_done:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((p, False) for p in current.parents if p.requires_grad and id(p) not in seen)
    return reversed(order)


def _released(_):
    raise RuntimeError("this graph has been walked already and is released; run the forward pass again")


def op_name(vjp):
    """`silu` for the lambda inside `silu`, `add` for the one inside `Tensor.__add__`."""
    return vjp.__qualname__.split(".<locals>")[0].split(".")[-1].strip("_")


def unbroadcast(gradient, shape):
    """Sum `gradient` back to `shape`, the shape it had before broadcasting."""
    if gradient.shape == shape:
        return gradient
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=stretched, keepdims=True) if stretched else gradient


