"""Drawn programs of `nn`, compared with PyTorch, or with float64 and central differences where PyTorch is missing.

    python tests/faults/programs.py --programs 20000 --seed 0

A difference is reported as the smallest program found that shows it: lines that can be pasted.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from threadpoolctl import threadpool_limits

import nn

sys.path.insert(0, str(Path(__file__).parent))

from drawing import NOT_DRAWN, draw  # noqa: E402

try:
    import peer
except ImportError:
    peer = None

BATCH = 250  # programs that one call of a worker draws
RTOL = {4: 1e-4, 8: 1e-9}  # by the size of the smallest dtype met
LEAST, MOST = 2, 12  # ops of a program
STEP = 1e-5  # of a central difference

# NumPy, but all is float64.
DOUBLE = SimpleNamespace(**vars(np) | {"float32": np.float64})


class Difference(AssertionError):
    """A program that does not do what its peer does."""


def run(program, names):
    """Run the lines under other names; {name: Tensor}."""
    names = dict(names)
    exec("\n".join(program.lines), names)
    return {name: names[name] for name in program.tensors}


def gradients(program, nn_, tensors, np_=np):
    """The gradient of the output with respect to every leaf that has one."""
    cotangent = eval(program.cotangent, {"np": np_})
    return nn_.gradients(tensors[program.output], [tensors[x] for x in program.inputs], cotangent)


def gradients_by_backward(program):
    """The same by `backward`, from `.grad`: arrays that nothing else uses."""
    tensors = program.tensors
    tensors[program.output].backward(eval(program.cotangent, {"np": np}))
    found = [tensors[x].grad for x in program.inputs]
    for i, gradient in enumerate(found):
        others = [t.data for t in tensors.values()] + found[:i]
        if gradient is not None and any(np.shares_memory(gradient, other) for other in others):
            raise Difference(f"the .grad of {program.inputs[i]} shares memory with another array")
    return [np.zeros_like(tensors[x].data) if g is None else g for x, g in zip(program.inputs, found, strict=True)]


class Largest:
    """A hook of the tape that remembers the largest entry of any gradient on the way: the scale of rounding errors."""

    def __init__(self):
        self.value = 1.0

    def __call__(self, event, name, array):
        if event == "backward" and array.size:
            self.value = max(self.value, float(np.max(np.nan_to_num(abs(array), posinf=0))))


def own_gradients(program):
    """(gradients, scale): what `nn` says."""
    largest = Largest()
    nn.op_hooks.append(largest)
    try:
        found = gradients_by_backward(program) if program.backward else gradients(program, nn, program.tensors)
    except Exception as error:
        if isinstance(error, Difference):
            raise
        raise Difference(f"the walk back raises {error!r}") from error
    finally:
        nn.op_hooks.remove(largest)
    return found, max([largest.value, *(float(np.nan_to_num(abs(g)).max(initial=0)) for g in found)])


# ==== against PyTorch ====


def compare_with_torch(program, peer=peer):
    """Raise Difference where value, shape, dtype or gradient are not PyTorch's."""
    try:
        theirs = run(program, {"nn": peer, "np": np})
    except Exception as error:
        if program.error is not None:
            return  # refused by both
        raise Difference(f"PyTorch refuses what nn computes: {error}") from error
    exact = None

    def truth():
        nonlocal exact
        exact = exact or run(program, {"nn": peer, "np": DOUBLE})
        return exact

    if program.error is not None:
        raise Difference(f"nn raises {program.error!r}, where PyTorch does not")
    before = [t.data.copy() for t in program.tensors.values()]
    found = own_gradients(program) if program.cotangent else None
    scale, rtol = max(1.0, program.rounding), RTOL[8]
    for (name, t), kept in zip(program.tensors.items(), before, strict=True):
        if not np.array_equal(t.data, kept, equal_nan=True):
            raise Difference(f"{name} was changed by the walk back")
        scale = max(scale, float(np.nan_to_num(abs(t.data), posinf=0).max(initial=0)))
        rtol = max(rtol, RTOL[t.dtype.itemsize])
        compare(name, t.data, theirs[name].data, rtol * scale, lambda name=name: truth()[name].data)
        if t.requires_grad != theirs[name].requires_grad:
            raise Difference(f"{name}.requires_grad is {t.requires_grad}")
    if found:
        arrays, largest = found
        scale = scale * largest
        expected = gradients(program, peer, theirs)
        for i, (name, mine, other) in enumerate(zip(program.inputs, arrays, expected, strict=True)):
            exactly = lambda i=i: gradients(program, peer, run(program, {"nn": peer, "np": DOUBLE}), DOUBLE)[i]  # noqa: E731
            compare(f"the gradient of {name}", mine, other, rtol * scale, exactly)


def compare(what, mine, theirs, tolerance, truth):
    """Raise Difference unless both are alike; errors may be ten times those of PyTorch."""
    if not isinstance(mine, (np.ndarray, np.generic)) or (mine.shape, mine.dtype) != (theirs.shape, theirs.dtype):
        raise Difference(f"{what} is {mine.dtype} {mine.shape}, PyTorch's {theirs.dtype} {theirs.shape}")
    if _near(mine, theirs, tolerance):
        return
    exact = truth()
    with np.errstate(all="ignore"):
        error = np.nan_to_num(abs(theirs - exact)).max(initial=0)
    if not _near(mine, exact, tolerance + 10 * error):
        raise Difference(f"{what} is\n{mine!r}\nand PyTorch's\n{theirs!r}")


def _near(a, b, tolerance):
    with np.errstate(all="ignore"):
        return bool(((abs(a - b) <= tolerance) | (a == b) | (np.isnan(a) & np.isnan(b))).all())


# ==== without PyTorch ====


def compare_with_differences(program):
    """Raise Difference where a value is not that of the same program in float64 on plain leaves, or a gradient not
    that of central differences of it."""
    if program.error is not None:
        raise Difference(f"nn raises {program.error!r}")
    with nn.no_grad():
        plain = run(program, plain_names())
    found = own_gradients(program) if program.cotangent else None
    scale, rtol = max(1.0, program.rounding), RTOL[8]
    for name, t in program.tensors.items():
        scale = max(scale, float(abs(t.data).max(initial=0)))
        rtol = max(rtol, RTOL[t.dtype.itemsize])
        if t.shape != plain[name].shape or not _near(t.data, plain[name].data, 10 * rtol * scale):
            raise Difference(f"{name} is\n{t.data!r}\nand in float64 on plain arrays\n{plain[name].data!r}")
    if found:
        arrays, largest = found
        cotangent = eval(program.cotangent, {"np": DOUBLE})
        rng = np.random.default_rng(0)
        for name, gradient in zip(program.inputs, arrays, strict=True):
            direction = rng.standard_normal(gradient.shape)
            ahead, behind = (moved_output(program, name, sign * STEP * direction) for sign in (1, -1))
            measured = float(((ahead - behind) * cotangent).sum()) / (2 * STEP)
            claimed = float((gradient * direction).sum())
            size = scale * largest * max(1, gradient.size) ** 0.5
            if not abs(measured - claimed) <= max(1e-5, 10 * rtol) * size:
                raise Difference(f"the gradient of {name} is\n{gradient!r}\nits slope {claimed}, measured {measured}")


def moved_output(program, leaf, change):
    with nn.no_grad():
        return run(program, plain_names(program.leaves.index(leaf), change))[program.output].data


def plain_names(moved=None, change=0):
    """Names under which a program's leaves are C-ordered float64 arrays, of which one is moved."""
    made = []

    def plain(data, requires_grad=False):
        made.append(None)
        a = np.array(data, np.float64, order="C")
        return nn.Tensor(a + change if len(made) - 1 == moved else a, requires_grad)

    return {"nn": SimpleNamespace(**vars(nn) | {"Tensor": plain}), "np": DOUBLE}


# ==== drawing, and the search for a smaller program ====


class Choices:
    """A `choose` for drawing.draw: the numbers of a list, then those of rng, or the smallest where there is none.

    Numbers count from the lowest that may be chosen. made: all that were. starts: where in `made` the ops begin.
    """

    def __init__(self, numbers=(), rng=None):
        self.numbers, self.rng, self.made, self.starts = numbers, rng, [], []

    def __call__(self, low, high):
        if len(self.made) < len(self.numbers):
            number = min(self.numbers[len(self.made)], high - low)
        else:
            number = self.rng.randint(0, high - low) if self.rng else 0
        self.made.append(number)
        return low + number

    def begin(self):
        self.starts.append(len(self.made))


def examined(choices, compare):
    """(program, its Difference or None) of these choices."""
    kinks = compare is not compare_with_differences
    program = draw(choices, LEAST if choices.rng else 0, MOST, kinks, choices.begin)
    try:
        compare(program)
    except Difference as difference:
        return program, difference
    return program, None


def smallest(choices, compare, budget=600):
    """(program, difference), the shortest found with a difference by leaving out choices and ops, and by lowering."""
    best = None

    def try_out(numbers):
        nonlocal best, choices, budget
        budget -= 1
        tried = Choices(numbers)
        program, difference = examined(tried, compare)
        size = len(program.lines), len(str(program)), len(tried.made), sum(tried.made)
        if difference is None or (best and size >= best[0]):
            return False
        best, choices = (size, program, difference), tried
        return True

    try_out(choices.made)
    improved = True
    while improved and budget > 0:
        improved = False
        for first, last in _parts(choices):
            made = choices.made
            shorter = made[:first] + made[last:]
            zeroed = made[:first] + [0] * (last - first) + made[last:]
            if budget > 0 and last <= len(made) and (try_out(shorter) or (any(made[first:last]) and try_out(zeroed))):
                improved = True
                break
    return best[1:]


def _parts(choices):
    """Pieces to leave out, from large to small: (first, last) of ops, the last op first, and of neighbouring choices."""
    starts, end = choices.starts, len(choices.made)
    for ops in (4, 2, 1):
        yield from reversed([(a, b) for a, b in zip(starts, starts[ops:], strict=False)])
    for length in (8, 3, 1):
        yield from ((at, at + length) for at in range(max(0, end - length), -1, -length))


def report(program, difference):
    return "\n".join([str(program), *(f"# {line}" for line in str(difference).splitlines())])


def find_difference(count, number, compare):
    """The smallest program for which `compare` raises Difference, among `count` drawn under the seed `number`; or None."""
    return next(iter(examine_batch(count, number, compare, kinds=1)[2].values()), None)


def examine_batch(count, number, compare, kinds=10):
    """Draw `count` programs under the seed `number`: (digests of all, ops in all, {kind of difference: report}).

    Ends early at that many kinds.
    """
    rng, texts, ops, found = random.Random(number), set(), 0, {}
    with np.errstate(all="ignore"), threadpool_limits(1):
        for _ in range(count):
            if len(found) == kinds:
                break
            choices = Choices(rng=rng)
            program, difference = examined(choices, compare)
            texts.add(hashlib.sha1(str(program).encode()).digest())
            ops += len(program.lines) - len(program.leaves)
            if difference:
                kind = re.sub(r"[^a-z ]+", "", str(difference))[:60]
                if kind not in found:
                    found[kind] = report(*smallest(choices, compare))
    return texts, ops, found


# ==== the command ====


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=20000, help="how many to draw (20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (one a core)")
    parser.add_argument("--without-torch", action="store_true", help="compare with central differences")
    options = parser.parse_args()
    compare, start = compare_with_torch, time.monotonic()
    if peer is None or options.without_torch:
        compare = compare_with_differences
    print(f"{options.programs} programs of {LEAST} to {MOST} ops; {compare.__name__.replace('_', ' ')}")
    if NOT_DRAWN:
        print(f"not drawn, for want of a line in drawing.py: {', '.join(NOT_DRAWN)}")
    numbers = range(-(-options.programs // BATCH))
    counts = [min(BATCH, options.programs - BATCH * i) for i in numbers]
    seeds = [10**6 * options.seed + i for i in numbers]
    different, ops, found = set(), 0, {}
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for i, (more, more_ops, reports) in enumerate(pool.map(examine_batch, counts, seeds, [compare] * len(seeds))):
            different, ops = different | more, ops + more_ops
            for kind, text in reports.items():
                if kind not in found:
                    found[kind] = text
                    print(f"\rdifference {len(found)}:\n\n{text}\n", flush=True)
            if sys.stdout.isatty():
                print(f"\r{sum(counts[: i + 1])} programs", end="", flush=True)
    seconds = time.monotonic() - start
    print(
        f"\r{options.programs} programs, {len(different)} different ones, of {ops} ops: "
        f"{len(found)} kinds of difference, {seconds:.0f} s"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
