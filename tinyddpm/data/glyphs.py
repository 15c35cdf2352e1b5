"""Handwritten-looking digits, drawn from a pen font: data that needs no network and no file. Next: download.py.

The font below says how a pen writes each digit, in up to three ways. Every image takes one of them, bends,
slants, stretches and turns it, fits it, as MNIST does, into 20x20 pixels near the middle of 28x28, and draws
it with a pen of its own thickness, white on black, anti-aliased. 20,000 take about two seconds.
"""

import numpy as np

__all__ = ["draw"]

# A line for each way to write a digit: the digit, then strokes between "|", each a smooth curve through points "x,y" on a
# 10x10 grid, y downwards. A corner is where one stroke ends and the next begins.
FONT = """
0 5,0 2.4,2 1.6,5 2.5,8.4 5,10 7.6,8.2 8.4,5 7.6,1.8 5,0
0 6.4,0.6 4.2,0.3 2.5,3 2.2,6.8 3.8,9.8 6.2,9 7.6,6 7.5,2.6 6,0.4 4.8,1
1 5,0 5,10
1 3.2,2.4 5.2,0 | 5.2,0 5.2,10
1 3.2,2.2 5.2,0 | 5.2,0 5.2,10 | 3.2,10 7.2,10
2 2,2.6 3.2,0.5 5.4,0 7.4,1.4 7.2,4 5,6.8 2,10 | 2,10 8.2,9.8
2 2.2,2 4.8,0 7.2,1.8 6.6,5 4.2,8.4 2.4,9.6 1.9,8.6 3.2,8 5.4,9.3 8.4,9.2
3 2.2,1.4 4.6,0 7,1.3 6.7,3.7 4.4,4.7 | 4.4,4.7 7.2,5.5 7.7,7.8 5.6,9.8 3.4,9.8 1.8,8.4
3 2.2,0.3 7.4,0.2 | 7.4,0.2 4.6,4.1 | 4.6,4.1 7.2,5 7.8,7.6 5.6,9.9 2,8.8
4 2.8,0.6 2,5.6 | 2,5.6 8.2,5.3 | 7,0.2 6.4,10
4 6.4,0 1.6,6.6 | 1.6,6.6 8.4,6.5 | 6.4,0 6.3,10
4 2.4,0.8 2.2,4 3.6,5.5 5.8,5.1 7.3,3.6 | 7.5,0.4 7.1,5 6.7,10
5 7.6,0.1 3,0.3 | 3,0.3 2.5,4.5 | 2.5,4.5 5,3.7 7.5,5 7.7,7.8 5.6,9.8 3.2,9.8 1.8,8.6
5 3.2,0.4 2.7,4.6 5,4.3 7.2,5.8 6.8,8.6 4.6,10 2.2,9.4 | 3.2,0.4 8,0
6 6.8,0.2 4.2,2.4 2.5,5.6 2.5,8.6 4.6,10 7,8.9 7.2,6.6 5.2,5.4 2.8,6.8
6 4.6,0 3,3.6 2.3,7 3.4,9.6 5.9,9.8 7.4,7.8 6.2,5.8 3.8,6.2 2.4,7.8
7 1.8,0.5 8,0.4 | 8,0.4 5.6,5 4.2,10
7 1.9,0.5 7.8,0.3 | 7.8,0.3 5.4,5.2 4.4,10 | 3.4,5.2 7.4,4.9
7 1.9,2 2.2,0.5 | 2.2,0.5 7.8,0.5 | 7.8,0.5 6.4,3.6 5.4,7 5.2,10
8 7,1.5 5.2,0 3.2,1.2 3.4,3.3 5.2,4.8 7,6.4 7.2,8.6 5,10 2.8,8.7 3,6.5 5,4.8 6.7,3.2 7,1.5
8 5,0 3.1,1 3,3.4 5,4.6 7,3.4 6.9,1 5,0 | 5,4.6 2.6,6 2.5,8.7 5,10 7.5,8.7 7.4,6 5,4.6
9 7.2,2.2 5.2,0 2.9,1.6 2.9,4 5,5.1 7.2,3 | 7.4,0.6 7.1,4 6.6,10
9 7.2,2.4 5.2,0 2.8,1.7 3,4.4 5.2,5.1 7.2,2.4 7.3,5.6 6,9 3,9.6
"""

_POINTS = 64  # along the pen's whole path: under a pixel apart, so the dots it is drawn with join up
_CHUNK = 256  # images drawn at a time, so that they stay in the cache


def draw(n, seed=0):
    """`n` digits: (images uint8 (n, 28, 28), labels uint8 (n,)). Image i depends on (seed, i), not on n."""
    styles, owner = _styles()
    images, labels = np.empty((n, 28, 28), np.uint8), np.empty(n, np.uint8)
    rng = np.random.default_rng(seed)
    for start in range(0, n, _CHUNK):
        u = rng.random((min(_CHUNK, n - start), 15), dtype=np.float32)
        label = (10 * u[:, 0]).astype(np.uint8)
        first, count = np.searchsorted(owner, label), np.bincount(owner)[label]
        path = styles[first + (count * u[:, 1]).astype(int)]
        radius = _between(0.8, 1.7, u[:, 2])
        images[start : start + len(u)] = _ink(_place(_bend(path, u[:, 3:9]), radius, u[:, 9:15]), radius)
        labels[start : start + len(u)] = label
    return images, labels


def _between(low, high, u):
    return np.float32(low) + np.float32(high - low) * u


# ---- the font ----


def _styles():
    """All ways to write a digit: paths (ways, points, 2) in [-1/2, 1/2], and the digit each one writes."""
    digits, styles = zip(*(line.split(" ", 1) for line in FONT.split("\n")[1:-1]), strict=True)
    return np.stack([_path(style) for style in styles]), np.array(digits, int)


def _path(style):
    """Points evenly spread along all the strokes of one string of the font, (points, 2)."""
    strokes = [_smooth([point.split(",") for point in stroke.split()]) for stroke in style.split("|")]
    ends = np.cumsum([len(stroke) for stroke in strokes])[:-1]
    points = np.concatenate(strokes)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    steps[ends - 1] = 0  # the pen is lifted here
    length = np.concatenate([[0], np.cumsum(steps)])
    at = np.linspace(0, length[-1], _POINTS)
    points = np.stack([np.interp(at, length, points[:, axis]) for axis in (0, 1)], axis=1)
    return points.astype(np.float32) / 10 - 0.5


def _smooth(knots):
    """A Catmull-Rom curve through the knots (closed if the last is the first), 50 points between each two."""
    p = np.array(knots, float)
    before, after = (p[-2], p[1]) if (p[0] == p[-1]).all() else (p[0], p[-1])
    p = np.stack([before, *p, after])
    s = np.linspace(0, 1, 50)[:, None]
    pieces = [
        b + s / 2 * (c - a + s * (2 * a - 5 * b + 4 * c - d + s * (3 * (b - c) + d - a)))
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.concatenate(pieces)


# ---- one hand ----


def _bend(path, u):
    """Move each point by a smooth random wave in x and one in y, so that joined strokes stay joined."""
    for axis in (0, 1):
        direction = _between(-4, 4, u[:, None, 3 * axis : 3 * axis + 2])
        phase = _between(0, 2 * np.pi, u[:, None, 3 * axis + 2])
        wave = np.sin((path * direction).sum(-1) + phase)
        path = path + np.float32(0.09) * wave[..., None] * np.eye(2, dtype=np.float32)[axis]
    return path


def _place(path, radius, u):
    """Turn, slant and stretch; then fit into 20x20 pixels, pen included, near the middle of 28x28."""
    angle = _between(-0.2, 0.2, u[:, 0])
    slant, width = _between(-0.15, 0.45, u[:, 1:2]), _between(0.8, 1.3, u[:, 2:3])
    path = np.stack([width * path[..., 0] - slant * path[..., 1], path[..., 1]], axis=-1)
    turn = np.stack([np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
    path = (path[:, :, None] * turn[:, None]).sum(-1)
    extent = np.ptp(path, axis=1, keepdims=True).max(-1, keepdims=True)
    room = _between(18, 20, u[:, 3]) - 2 * radius
    shift = _between(-1, 1, u[:, None, 4:6])
    path = (path - path.mean(1, keepdims=True)) * room[:, None, None] / extent + np.float32(13.5) + shift
    margin = radius[:, None, None] + 1  # the outermost pixels stay black
    path = path + (margin - path.min(1, keepdims=True)).clip(0)
    return path - (path.max(1, keepdims=True) - (27 - margin)).clip(0)


def _ink(path, radius):
    """Grey levels uint8 (n, 28, 28) of a round pen of that radius in pixels on paths (n, points, 2)."""
    pixel = np.arange(28, dtype=np.float32)
    dx2 = (path[:, :, 0, None] - pixel) ** 2  # (n, points, 28)
    dy2 = (path[:, :, 1, None] - pixel) ** 2
    nearest = np.full((len(path), 28, 28), np.inf, np.float32)
    for i in range(path.shape[1]):
        np.minimum(nearest, dy2[:, i, :, None] + dx2[:, i, None, :], out=nearest)
    ink = radius[:, None, None] + np.float32(0.5) - np.sqrt(nearest)  # over 1 inside, below 0 outside
    return (255 * ink.clip(0, 1)).round().astype(np.uint8)
