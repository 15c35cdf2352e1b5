"""What depends on weights alone, and need not be computed again while they do not change."""

import contextlib
import contextvars

__all__ = ["constant_weights", "remembered"]

_known = contextvars.ContextVar("known", default=None)


@contextlib.contextmanager
def constant_weights():
    """Inside this block no weight changes: what is `remembered` is computed once. Blocks inside it share with it."""
    token = _known.set({} if _known.get() is None else _known.get())
    try:
        yield
    finally:
        _known.reset(token)


def remembered(what, owner, compute):
    """compute(), or inside `constant_weights` what it gave before for the same `what` of the same object `owner`."""
    known = _known.get()
    if known is None:
        return compute()
    key = what, id(owner)
    if key not in known:
        known[key] = owner, compute()  # holding the owner keeps its id from being given to another
    return known[key][1]
