"""Random numbers that depend on what they are for, not on when they are drawn: a counter-based generator.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a block cipher: it encrypts the
counter (block, sample, step) under the key (seed, stream). So the noise of sample 7 at step 100 is the same in any
batch, on any number of workers, after a resume, and, up to the rounding of log and cos, on a GPU.
"""

import zlib

import numpy as np

from nn.backend import to_numpy
from nn.gpu import kernels
from nn.scope import Scope

__all__ = ["philox", "uniform", "normal", "random_state", "next_uniform"]

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter, key, xp=np):
    """Four uint32 words for every counter.

    counter: four uint32 arrays that broadcast; key: two Python ints below 2^32. Returns a list of four uint64 arrays
    whose values are below 2^32 (products of two words need 64 bits, so the words stay in 64 bits throughout).
    """
    x0, x1, x2, x3 = (xp.asarray(c, dtype=xp.uint64) for c in counter)
    k0, k1 = key
    low, shift = xp.uint64(0xFFFFFFFF), xp.uint64(32)
    for _ in range(_ROUNDS):
        p0 = x0 * xp.uint64(_MULTIPLIERS[0])
        p1 = x2 * xp.uint64(_MULTIPLIERS[1])
        x0, x1 = (p1 >> shift) ^ x1 ^ xp.uint64(k0), p1 & low
        x2, x3 = (p0 >> shift) ^ x3 ^ xp.uint64(k1), p0 & low
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return [x0, x1, x2, x3]


def _words(seed, stream, step, samples, count, xp):
    """At least `count` uint32 words for each sample, shape (N, 4, ceil(count / 4)), as uint64."""
    samples = xp.asarray(_checked(seed, step, samples)).reshape(-1, 1)
    blocks = xp.arange(-(-count // 4)).reshape(1, -1)
    counter = (blocks, samples, xp.asarray(step & 0xFFFFFFFF), xp.asarray(step >> 32))
    return xp.stack(xp.broadcast_arrays(*philox(counter, _key(seed, stream), xp)), axis=1)


def _key(seed, stream):
    return seed, zlib.crc32(stream.encode())


def _checked(seed, step, samples):
    """`samples` as a NumPy array; ValueError where one of the three is out of range."""
    samples = to_numpy(samples)
    if not 0 <= seed < 2**32 or not 0 <= step < 2**64:
        raise ValueError(f"seed must be in 0..2^32 - 1 and step in 0..2^64 - 1, got {seed} and {step}")
    if samples.size and not (samples.dtype.kind in "iu" and 0 <= samples.min() and samples.max() < 2**32):
        raise ValueError(
            f"samples must be integers in 0..2^32 - 1, got {samples.dtype} {samples.min()}..{samples.max()}"
        )
    return samples


def _by_kernel(name, seed, stream, step, samples, shape, xp):
    """`uniform` or `normal` on a GPU, in one launch."""
    samples = xp.asarray(_checked(seed, step, samples).astype(np.uint32))
    count = int(np.prod(shape, dtype=int))
    return kernels.random_numbers(name, samples, count, step, _key(seed, stream), xp).reshape(samples.size, *shape)


def uniform(seed, stream, step, samples, shape=(), xp=np):
    """Uniform float32 numbers in (0, 1), shape (N, *shape): 23 random bits and a half, so never 0 and never 1.

    A 24th bit would leave float32 no room for the half: the largest would round to 1. seed: 0..2^32 - 1.
    stream: what they are for, a string. step: an int in 0..2^64 - 1. samples: N sample numbers in 0..2^32 - 1.
    """
    if kernels.used_for(xp):
        return _by_kernel("uniform", seed, stream, step, samples, shape, xp)
    count = int(np.prod(shape, dtype=int))
    words = _words(seed, stream, step, samples, count, xp)
    bits = (words >> xp.uint64(9)).astype(xp.float32).reshape(len(words), -1)[:, :count]
    return ((bits + xp.float32(0.5)) * xp.float32(2**-23)).reshape(len(words), *shape)


def normal(seed, stream, step, samples, shape=(), xp=np):
    """Standard normal float32 numbers, shape (N, *shape), by Box and Muller's transform. Arguments as `uniform`."""
    if kernels.used_for(xp):
        return _by_kernel("normal", seed, stream, step, samples, shape, xp)
    count = int(np.prod(shape, dtype=int))
    pairs = uniform(seed, stream, step, samples, (2, -(-count // 2)), xp)
    radius = xp.sqrt(xp.float32(-2) * xp.log(pairs[:, 0]))
    angle = xp.float32(2 * np.pi) * pairs[:, 1]
    both = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)], axis=1)
    return both[:, :count].reshape(len(both), *shape)


_state = Scope("random_state", None)


def random_state(seed, step, samples):
    """A `with` block in which layers that draw random numbers (dropout) draw those of (seed, step, samples)."""
    return _state.set({"seed": seed, "step": step, "samples": np.asarray(samples), "drawn": 0})


def next_uniform(shape, xp=np):
    """Uniform numbers for the next random layer of the enclosing `random_state`, shape (N, ...) as `shape`."""
    state = _state.get()
    if state is None:
        raise RuntimeError(
            "a layer that draws random numbers was called outside `with nn.random_state(seed, step, samples)`"
        )
    if len(state["samples"]) != shape[0]:
        raise ValueError(f"random_state names {len(state['samples'])} samples, the batch has {shape[0]}")
    state["drawn"] += 1
    stream = f"layer {state['drawn']}"
    return uniform(state["seed"], stream, state["step"], state["samples"], shape[1:], xp)
