"""The identities of the diffusion as checks that anyone can run on any implementation, this one or another.

    from tinyddpm.properties import check

    def test_my_diffusion():
        check(MyAdapter()).raise_if_failed()

An adapter is a subclass of `Adapter`, see adapter.py; own.py has the one of this project. With pytest each identity is
a test of its own, see plugin.py; `tinyddpm check package.module:factory` prints a table. Examples are drawn by
hypothesis, which is needed here only. Next: report.py.
"""

import math
from random import Random

import numpy as np

from tinyddpm.properties import chains, identities, terms  # noqa: F401  (each registers its identities)
from tinyddpm.properties.adapter import PRECISIONS, check_adapter
from tinyddpm.properties.cases import IDENTITIES, Case, verdict
from tinyddpm.properties.report import Report, Result
from tinyddpm.schedule import SCHEDULES, NoiseSchedule, named_schedule

__all__ = ["check", "schedules", "drawn_schedules", "betas", "timesteps", "arrays", "cases", "hypothesis"]


# ---- strategies: how examples are drawn ----


def hypothesis():
    """The library, imported when it is needed; ImportError says how to get it."""
    try:
        import hypothesis.extra.numpy  # noqa: F401
    except ImportError as error:
        raise ImportError("tinyddpm.properties draws with hypothesis: pip install hypothesis") from error
    return hypothesis


def betas(smallest=1e-6, largest=0.999):
    """Strategy: one beta, log-uniform."""
    return hypothesis().strategies.floats(math.log(smallest), math.log(largest)).map(math.exp)


def drawn_schedules(max_T=64):
    """Strategy: a NoiseSchedule of any betas, T in 1..max_T."""
    lists = hypothesis().strategies.lists
    return lists(betas(), min_size=1, max_size=max_T).map(NoiseSchedule.from_beta)


def schedules(max_T=64):
    """Strategy: a NoiseSchedule of any betas or one of the named ones, T in 1..max_T."""
    st = hypothesis().strategies
    named = st.builds(named_schedule, st.sampled_from(list(SCHEDULES)), st.integers(1, max_T))
    return drawn_schedules(max_T) | named


def timesteps(T, first=1):
    """Strategy: a timestep in first..T; the ends, where most faults are, come more often."""
    st = hypothesis().strategies
    return st.sampled_from([first, min(first + 1, T), T]) | st.integers(first, T)


def arrays(shape, dtype="float64", largest=3.0):
    """Strategy: an array of that shape and precision, with elements up to `largest` in size."""
    st, numpy = hypothesis().strategies, hypothesis().extra.numpy
    width = 16 if dtype in ("float16", "bfloat16") else 32
    elements = st.floats(-largest, largest, width=width, allow_subnormal=False)
    if dtype == "bfloat16":
        elements = st.integers(-int(32 * largest), int(32 * largest)).map(lambda i: i / 32)
    nothing = st.nothing()  # every element is drawn, and made small, by itself
    return numpy.arrays(
        PRECISIONS[str(np.dtype(dtype) if dtype not in PRECISIONS else dtype)][0],
        shape,
        elements=elements,
        fill=nothing,
    )


def cases(adapters, first=1):
    """Strategy: a Case, t in first..T, of an adapter that the strategy `adapters` draws."""
    st = hypothesis().strategies

    @st.composite
    def case(draw):
        adapter = draw(adapters)
        check_adapter(adapter)
        T = len(adapter.alpha_bar) - 1
        t = draw(timesteps(T, min(first, T)))
        shape = 3, draw(st.integers(1, 3)), draw(st.integers(1, 2))
        return Case(adapter, t, *draw(arrays(shape, adapter.dtype)))

    return case()


# ---- checking ----


def check(adapter, examples=100):
    """Check each identity that the adapter has the methods for: a Report, always the same for the same code.

    adapter: an Adapter; or a strategy that draws adapters, such as `schedules().map(MyAdapter)`, for which the smallest
    schedule that fails is found too. examples: the number of cases tried. An exception in the code counts as a
    failure, but NotImplementedError as "not checked"; a method that returns another form than it promises, or raises
    by itself, as a "mistake" of the adapter. Raises TypeError for another object than an Adapter, and AdapterError for
    one whose tables and claims have another form.
    """
    st = hypothesis().strategies
    drawn = cases(adapter if isinstance(adapter, st.SearchStrategy) else st.just(adapter))
    verdicts = {one: [] for one in IDENTITIES}

    def look(case):
        for one, found in verdicts.items():
            if sum(v != "not checked" for v in found) < one.most and not {"fails", "mistake"} & set(found):
                found.append(verdict(one, case))
        return False

    smallest_example(drawn, look, examples)
    return Report(tuple(result(one, set(verdicts[one]), drawn, min(examples, one.most)) for one in IDENTITIES))


def result(identity, verdicts, drawn, examples):
    """The Result of an identity whose verdicts are known, with the smallest example if it fails."""
    bad = next((status for status in ("mistake", "fails") if status in verdicts), None)
    if bad:
        example = smallest_example(drawn, lambda case: verdict(identity, case) == bad, 2 * examples)
        return Result(identity, bad, example)
    return Result(identity, "holds" if "holds" in verdicts else "not checked")


def smallest_example(strategy, condition, examples):
    """The smallest example that the condition holds for, or None. The same examples are drawn each time."""
    h = hypothesis()
    settings = h.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(h.Phase.generate, h.Phase.shrink),
        suppress_health_check=list(h.HealthCheck),
    )
    shown = []
    try:
        return h.find(
            strategy, lambda case: condition(case) and not shown.append(case), settings=settings, random=Random(0)
        )
    except h.errors.NoSuchExample:
        return None
    except h.errors.Flaky:  # what the code keeps from run to run: the same example may hold the next time
        return shown[-1]
