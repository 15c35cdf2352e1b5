"""Ways in which the bytes of a file go wrong."""

__all__ = ["damaged", "KINDS"]


def _flip(data, rng):
    at = rng.integers(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1 :]


def _some(data, rng):
    """The place and length of a part of the file."""
    length = min(int(rng.choice([1, 4, 64, 512, 4096, 65536])), len(data))
    at = int(rng.integers(len(data) - length + 1))
    return at, length


def _cut(data, rng):
    return data[: rng.integers(len(data))]


def _cut_from_the_front(data, rng):
    return data[rng.integers(1, len(data)) :]


def _hole(data, rng):
    at, length = _some(data, rng)
    return data[:at] + bytes(length) + data[at + length :]


def _noise(data, rng):
    at, length = _some(data, rng)
    return data[:at] + rng.bytes(length) + data[at + length :]


def _missing(data, rng):
    at, length = _some(data, rng)
    return data[:at] + data[at + length :]


def _repeat(data, rng):
    at, length = _some(data, rng)
    return data[: at + length] + data[at:]


def _exchange(data, rng):
    """Two parts of one length in each other's place."""
    length = min(int(rng.choice([1, 64, 512, 4096])), len(data) // 2)
    a, b = sorted(int(at) for at in rng.integers(0, len(data) - length + 1, 2))
    b = max(b, a + length)
    if b + length > len(data):
        return _flip(data, rng)
    return data[:a] + data[b : b + length] + data[a + length : b] + data[a : a + length] + data[b + length :]


def _more(data, rng):
    return data + rng.bytes(int(rng.choice([1, 100, 10000])))


def _flips(data, rng):
    for _ in range(rng.integers(2, 20)):
        data = _flip(data, rng)
    return data


def _line_ends(data, rng):
    """What a transfer as text does."""
    return data.replace(b"\n", b"\r\n") if rng.integers(2) else data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


KINDS = [_flip, _cut, _cut_from_the_front, _hole, _noise, _missing, _repeat, _exchange, _more, _flips, _line_ends]


def damaged(data, rng):
    """`data` in one of these ways, other than before; half of the time in its first or last 2 KiB, where formats live."""
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        place = rng.integers(4)
        if place == 0 and len(data) > 4096:
            found = kind(data[:2048], rng) + data[2048:]
        elif place == 1 and len(data) > 4096:
            found = data[:-2048] + kind(data[-2048:], rng)
        else:
            found = kind(data, rng)
        if found != data:
            return found
