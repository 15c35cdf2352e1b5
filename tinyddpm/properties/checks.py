"""The identities of the diffusion as checks that anyone can run on any implementation, this one or another.

    from tinyddpm.properties import check

    def test_my_diffusion():
        check(MyAdapter()).raise_if_failed()

An adapter is any object that offers some of the following. The index is the paper's: t = 1..T are the noisy
steps, 0 is the data. Arrays are NumPy, (N, d), of the adapter's dtype. Identities about a method that the adapter does
not have are reported as not checked.

    alpha_bar                         a table of T + 1 entries, alpha_bar[0] = 1; this one is required
    dtype                             the precision it computes in, "float64" (if absent) or "float32"
    beta                              a table of T + 1 entries, beta[0] = 0
    q_sample(x0, t, noise)            x_t from x_0; t is an int, and if `batched` is True also integers (N,)
    q_step(x_prev, t, noise)          x_t from x_{t-1}
    posterior(x0, xt, t)              the mean and the variance of q(x_{t-1} | x_t, x_0)
    predictions                       names among eps, x0, v, score, mean, velocity that it can convert:
    convert(value, xt, t, source, target)
    step(x0_hat, xt, t, noise)        x_{t-1} from x_t and a prediction of x_0, as the sampler has it
    eta, variance                     what the step claims: a variance of eta^2 times "beta_tilde" or "beta";
                                      if absent 1 and "beta_tilde", which is DDPM. eta = 0 is DDIM
    respace(timesteps)                the adapter of the process that visits only these steps

adapters.py has the adapter of this project. Examples are drawn by hypothesis, which is needed here only.
Next: identities.py.
"""

import math
from dataclasses import dataclass
from random import Random

import numpy as np

from tinyddpm.properties.identities import IDENTITIES, VARIANCES, Case, Identity, disagreement, verdict
from tinyddpm.schedule import SCHEDULES, NoiseSchedule, named_schedule

__all__ = ["check", "Report", "Result", "IDENTITIES", "schedules", "drawn_schedules", "betas", "timesteps", "arrays"]


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
    """Strategy: an array of that shape and dtype, with elements up to `largest` in size."""
    elements = hypothesis().strategies.floats(-largest, largest, width=32, allow_subnormal=False)
    nothing = hypothesis().strategies.nothing()  # every element is drawn, and made small, by itself
    return hypothesis().extra.numpy.arrays(np.dtype(dtype), shape, elements=elements, fill=nothing)


def cases(adapters):
    """Strategy: a Case, t in 1..T, of an adapter that the strategy `adapters` draws."""
    st = hypothesis().strategies

    @st.composite
    def case(draw):
        adapter = draw(adapters)
        check_adapter(adapter)
        t = draw(timesteps(len(adapter.alpha_bar) - 1))
        shape = 3, draw(st.integers(1, 3)), draw(st.integers(1, 2))
        values = arrays(shape, getattr(adapter, "dtype", "float64"))
        return Case(adapter, t, *draw(values))

    return case()


def check_adapter(adapter):
    """Raise ValueError, saying what is accepted, unless the adapter's tables and claims have the form described above."""
    alpha_bar = getattr(adapter, "alpha_bar", None)
    if np.ndim(alpha_bar) != 1 or len(alpha_bar) < 2 or np.asarray(alpha_bar).dtype.kind not in "fiu":
        raise ValueError(f"an adapter needs alpha_bar, a table of T + 1 entries, got {alpha_bar!r}")
    kinds = {"x0"} | {one.kind for one in IDENTITIES} - {None}
    accepted = {
        "dtype": ("float64", lambda value: value in ("float32", "float64"), "float32 or float64"),
        "beta": (alpha_bar, lambda value: np.shape(value) == np.shape(alpha_bar), f"{len(alpha_bar)} entries"),
        "predictions": ((), lambda value: set(value) <= kinds, "among " + ", ".join(sorted(kinds))),
        "eta": (1.0, lambda value: 0 <= value <= 1, "in [0, 1]"),
        "variance": ("beta_tilde", lambda value: value in VARIANCES, " or ".join(VARIANCES)),
    }
    for name, (default, holds, words) in accepted.items():
        if not holds(getattr(adapter, name, default)):
            raise ValueError(f"an adapter's {name} must be {words}, got {getattr(adapter, name)!r}")


# ---- checking ----


@dataclass(frozen=True)
class Result:
    """The result for one identity. status: "holds", "fails" or "not checked". example: the smallest Case that fails."""

    identity: Identity
    status: str
    example: Case | None = None

    def __str__(self):
        line = f"{self.status:12}{self.identity.name}: {self.identity.statement}"
        if self.example is None:
            return line
        words = disagreement(self.identity, self.example)
        return f"{line}\n    smallest example: {self.example}\n    {words}"


@dataclass(frozen=True)
class Report:
    """One Result for each identity, in the order of IDENTITIES."""

    results: tuple

    def names(self, status):
        """The names of the identities of that status: "holds", "fails" or "not checked"."""
        return [result.identity.name for result in self.results if result.status == status]

    def __str__(self):
        return "\n".join(str(result) for result in self.results)

    def raise_if_failed(self):
        """Raise AssertionError if an identity fails; it names each and gives its smallest example."""
        failed = [str(result) for result in self.results if result.status == "fails"]
        if failed:
            raise AssertionError(f"{len(failed)} identities fail\n" + "\n".join(failed))


def check(adapter, examples=100):
    """Check each identity that the adapter has the methods for: a Report, always the same for the same code.

    adapter: see the top of this file; or a strategy that draws adapters, such as `schedules().map(MyAdapter)`, for
    which the smallest schedule that fails is found too. examples: the number of cases tried. An exception in the
    adapter counts as a failure, but NotImplementedError as "not checked". Raises ValueError for an adapter without a
    table alpha_bar, or with tables or claims of another form.
    """
    st = hypothesis().strategies
    drawn = cases(adapter if isinstance(adapter, st.SearchStrategy) else st.just(adapter))
    verdicts = {one: set() for one in IDENTITIES}

    def look(case):
        for one in IDENTITIES:
            verdicts[one].add(verdict(one, case))
        return False

    smallest_example(drawn, look, examples)
    return Report(tuple(result(one, verdicts[one], drawn, examples) for one in IDENTITIES))


def result(identity, verdicts, drawn, examples):
    """The Result of an identity whose verdicts are known, with the smallest example if it fails."""
    if "fails" in verdicts:
        example = smallest_example(drawn, lambda case: verdict(identity, case) == "fails", examples)
        return Result(identity, "fails", example)
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
    try:
        return h.find(strategy, condition, settings=settings, random=Random(0))
    except h.errors.NoSuchExample:
        return None
