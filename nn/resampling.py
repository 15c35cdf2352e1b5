"""Images made larger and smaller. They are channels-last: (N, H, W, C). Next: products.py."""

from nn.options import whole
from nn.tensors import node

__all__ = ["upsample_nearest", "average_pool"]


def upsample_nearest(x, factor=2):
    """Each pixel of x (N, H, W, C) repeated factor x factor times."""
    factor = _checked_factor(x, factor)
    n, h, w, c = x.shape
    xp = x.xp
    blocks = xp.broadcast_to(x.data[:, :, None, :, None], (n, h, factor, w, factor, c))
    return node(
        "upsample_nearest", blocks.reshape(n, h * factor, w * factor, c), (x,), lambda g: (_sum_blocks(g, factor),)
    )


def average_pool(x, factor=2):
    """Mean over blocks of factor x factor pixels of x (N, H, W, C). ValueError unless factor divides H and W."""
    factor = _checked_factor(x, factor)
    n, h, w, c = x.shape
    if h % factor or w % factor:
        raise ValueError(f"average_pool by {factor} needs height and width it divides, got {h} x {w}")
    xp, scale = x.xp, 1.0 / factor**2
    small = _sum_blocks(x.data, factor)
    small *= scale

    def vjp(g):
        blocks = xp.broadcast_to((g * scale)[:, :, None, :, None], (n, h // factor, factor, w // factor, factor, c))
        return (blocks.reshape(n, h, w, c),)

    return node("average_pool", small, (x,), vjp)


def _checked_factor(x, factor):
    """`factor` as an int. ValueError where x is no batch of images."""
    if x.ndim != 4:
        raise ValueError(f"resampling needs x (N, H, W, C), got {x.shape}")
    return whole("the factor", factor, least=1)


def _sum_blocks(a, factor):
    """Sum over blocks of factor x factor pixels, one strided slice at a time (NumPy's sum over two axes is slow)."""
    parts = [a[:, i::factor, j::factor] for i in range(factor) for j in range(factor)]
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
