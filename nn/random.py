"""Random numbers that depend on what they are for, not on when they are drawn: a counter-based generator.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a block cipher: it encrypts the
counter (block, sample, step) under the key (seed, stream). So the noise of sample 7 at step 100 is the same in any
batch, on any number of workers, after a resume, and, up to the rounding of log and cos, on a GPU. Next: options.py.
"""

import zlib

import numpy as np

from nn.backend import to_numpy
from nn.gpu import kernels
from nn.options import whole
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
    """`count` uint32 words for each sample, shape (N, count), as uint64."""
    seed, step, samples = _checked(seed, step, samples)
    blocks = xp.arange(-(-count // 4)).reshape(1, -1)
    counter = (blocks, xp.asarray(samples).reshape(-1, 1), xp.asarray(step & 0xFFFFFFFF), xp.asarray(step >> 32))
    words = xp.stack(xp.broadcast_arrays(*philox(counter, _key(seed, stream), xp)), axis=1)
    return words.reshape(samples.size, 4 * blocks.size)[:, :count]


def _key(seed, stream):
    return seed, zlib.crc32(stream.encode())


def _checked(seed, step, samples):
    """`seed` and `step` as ints and `samples` as a NumPy array; ValueError where one of the three is out of range."""
    seed, step, samples = whole("seed", seed), whole("step", step), to_numpy(samples)
    if seed >= 2**32 or step >= 2**64:
        raise ValueError(f"seed must be in 0..2^32 - 1 and step in 0..2^64 - 1, got {seed} and {step}")
    if samples.ndim != 1:
        raise ValueError(f"samples must be N sample numbers in a list or an array, got shape {samples.shape}")
    if samples.size and not (samples.dtype.kind in "iu" and 0 <= samples.min() and samples.max() < 2**32):
        raise ValueError(
            f"samples must be integers in 0..2^32 - 1, got {samples.dtype} {samples.min()}..{samples.max()}"
        )
    return seed, step, samples


def _by_kernel(name, seed, stream, step, samples, shape, xp):
    """`uniform` or `normal` on a GPU, in one launch."""
    seed, step, samples = _checked(seed, step, samples)
    count = int(np.prod(shape, dtype=int))
    samples = xp.asarray(samples.astype(np.uint32))
    return kernels.random_numbers(name, samples, count, step, _key(seed, stream), xp).reshape(samples.size, *shape)


def uniform(seed, stream, step, samples, shape=(), xp=np):
    """Uniform float32 numbers in (0, 1), shape (N, *shape): 23 random bits and a half, so never 0 and never 1.

    A 24th bit would leave float32 no room for the half: the largest would round to 1. seed: 0..2^32 - 1.
    stream: what they are for, a string. step: an int in 0..2^64 - 1. samples: N sample numbers in 0..2^32 - 1.
    """
    if kernels.used_for(xp):
        return _by_kernel("uniform", seed, stream, step, samples, shape, xp)
    count = int(np.prod(shape, dtype=int))
    numbers = _unit_interval(_words(seed, stream, step, samples, count, xp), xp)
    return numbers.reshape(len(numbers), *shape)


def _unit_interval(words, xp):
    """uint32 words, held in uint64, as float32 numbers in (0, 1)."""
    return ((words >> xp.uint64(9)).astype(xp.float32) + xp.float32(0.5)) * xp.float32(2**-23)


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
    """A `with` block in which layers that draw random numbers (dropout) draw those of (seed, step, samples).

    Each layer that is called draws from a stream of its own. Arguments and errors as `uniform`.
    """
    seed, step, samples = _checked(seed, step, samples)
    return _state.set({"seed": seed, "step": step, "samples": samples, "drawn": 0})


def next_uniform(shape, xp=np):
    """Uniform numbers for the next random layer of the enclosing `random_state`, shape (N, ...) as `shape`."""
    state = _state.get()
    if state is None:
        raise RuntimeError(
            "a layer that draws random numbers (dropout) was called outside a random state: enter `with "
            "nn.random_state(seed, step, samples)` in training, or call network.eval() after it"
        )
    if not shape or len(state["samples"]) != shape[0]:
        raise ValueError(f"random_state names {len(state['samples'])} samples, the batch has the shape {shape}")
    state["drawn"] += 1
    return uniform(state["seed"], f"layer {state['drawn']}", state["step"], state["samples"], shape[1:], xp)
