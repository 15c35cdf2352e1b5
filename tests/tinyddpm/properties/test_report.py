"""What the report says: of a fault, of a mistake in the adapter, of what cannot be checked."""

import builtins

import numpy as np
import pytest
from whole import LINEAR, Whole, failure, posterior_with_beta, q_step_as_misprinted, refuses

from tinyddpm.properties import IDENTITIES, Adapter, AdapterError, check, checks, schedules
from tinyddpm.properties.own import Own


def test_the_example_is_made_as_small_as_it_can_be():
    broken = type("Broken", (Whole,), {"q_step": q_step_as_misprinted})
    case = failure(schedules().map(broken), "E1 step").example
    assert case.t == 1 and len(case.adapter.beta) == 2
    assert case.x0.tolist() == [[0.0]] and abs(case.noise).tolist() == [[1.0]]


def test_the_report_says_what_was_found_and_expected_and_is_always_the_same():
    broken = type("Broken", (Whole,), {"respace": refuses, "posterior": posterior_with_beta})
    reports = [check(broken(LINEAR), examples=40) for _ in range(2)]
    assert str(reports[0]) == str(reports[1])
    with pytest.raises(AssertionError) as error:
        reports[0].raise_if_failed()
    for words in (
        "3 identities fail",
        "E7 variance: the posterior's variance is beta_tilde_t",
        "found [[",
        "smallest example: t = 2, x0 = [[0.0]], ",
        "raised RuntimeError: no",
    ):
        assert words in str(error.value)
    assert "holds" not in str(error.value) and "holds       E2 marginal" in str(reports[0])


def test_what_an_adapter_does_not_have_is_not_checked():
    table = type("Table", (Adapter,), {"alpha_bar": LINEAR.alpha_bar})
    report = check(table(), examples=20)
    assert report.names("holds") == ["E5 start", "E5 decrease"]
    assert len(report.names("not checked")) == len(IDENTITIES) - 2

    def convert(self, value, xt, t, source, target):
        if source == "x0":
            raise NotImplementedError
        return Own.convert(self, value, xt, t, source, target)

    some = type("Some", (Whole,), {"convert": convert, "predictions": ("eps", "v"), "posterior": Adapter.posterior})
    report = check(some(LINEAR), examples=20)
    assert report.names("fails") == []
    checked = [name for name in report.names("holds") if name.startswith(("E24", "E27", "E7", "E9"))]
    assert checked == ["E24 x0 from eps", "E24 x0 from v"]


@pytest.mark.parametrize("alpha_bar", [None, [1.0], 0.5, [[1.0, 0.5]], ["1", "0.5"]])
def test_an_adapter_must_have_a_table_alpha_bar(alpha_bar):
    with pytest.raises(AdapterError, match="alpha_bar, a NumPy table of T \\+ 1 entries"):
        check(type("Bad", (Adapter,), {"alpha_bar": alpha_bar})())


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("alpha_bar", LINEAR.alpha_bar[::-1], "alpha_bar must fall: index 0 is the data"),
        ("dtype", "float8", "an adapter's dtype must be float64 or float32 or float16 or bfloat16, got 'float8'"),
        ("coordinates", "ve", "an adapter's coordinates must be vp or sigma or flow, got 've'"),
        ("beta", LINEAR.beta[1:], "an adapter's beta must be 11 entries, got array"),
        (
            "predictions",
            ("eps", "noise"),
            "an adapter's predictions must be among eps, x0, v, score, mean, velocity, got",
        ),
        ("eta", 2.0, r"an adapter's eta must be in \[0, 1\], got 2.0"),
        ("variance", "large", "an adapter's variance must be beta_tilde or beta, got 'large'"),
        ("solver", "euler", "an adapter's solver must be ddim, heun, 2m or None, got 'euler'"),
    ],
)
def test_tables_and_claims_of_another_form_are_refused_by_name(name, value, words):
    odd = type("Odd", (Adapter,), {"alpha_bar": LINEAR.alpha_bar, name: value})
    with pytest.raises(AdapterError, match=words):
        check(odd())


def test_another_object_than_an_adapter_is_refused():
    with pytest.raises(TypeError, match="inherits from tinyddpm.properties.Adapter, got NoiseSchedule"):
        check(LINEAR)


def raises_by_itself(self, x, t, noise):
    return x.no_such_thing


WRONG_RESULTS = [  # what the method promised something else about: a mistake of the adapter
    ("q_sample", lambda self, x0, t, noise: None, "E2 marginal", "x_t must be an array, got NoneType"),
    (
        "q_sample",
        lambda self, x0, t, noise: np.ravel(x0),
        "E2 marginal",
        "must be of shape (1, 1) and dtype float64, got",
    ),
    ("posterior", lambda self, x0, xt, t: x0, "E7 mean", "posterior must return a pair, the mean and the variance"),
    ("posterior", lambda self, x0, xt, t: (x0, np.ones(7)), "E7 mean", "the variance must fit (1, 1), got shape (7,)"),
    ("q_step", lambda self, x, t, noise: Own.q_step(self, x, t, noise).astype("float32"), "E1 step", "dtype float32"),
    ("q_step", raises_by_itself, "E1 step", "q_step raised AttributeError"),
    ("chain", lambda self, denoise, x_T, noise: [x_T], "E29 chain", "chain must return T = 10 states"),
    ("with_steps", lambda self, S: None, "E32 grid", "with_steps must return an Adapter, got NoneType"),
    ("scalings", lambda self, t: (1.0,), "E37 scalings", "c_skip, c_out and c_in, got 1 values"),
    ("loss_weight", lambda self, kind, t: np.ones(3), "E22 weight of v", "must return a number, got shape (3,)"),
]


@pytest.mark.parametrize("method, fault, name, words", WRONG_RESULTS)
def test_a_mistake_of_the_adapter_is_told_from_a_fault_of_the_code(method, fault, name, words):
    report = check(type("Odd", (Whole,), {method: fault})(LINEAR), examples=40)
    (found,) = [result for result in report.results if result.identity.name == name]
    assert found.status == "mistake" and words in str(found)
    with pytest.raises(AssertionError, match="the adapter is wrong"):
        report.raise_if_failed()


def test_the_example_of_the_documentation_runs():
    """The indented lines of the docstring of checks.py, as they stand, with an adapter of the name that they use."""
    lines = [line[4:] for line in checks.__doc__.splitlines() if line.startswith("    ")]
    example = "\n".join(lines[: 1 + next(i for i, line in enumerate(lines) if "raise_if_failed" in line)])
    names = {"MyAdapter": lambda: Own(LINEAR)}
    exec(example, names)
    names["test_my_diffusion"]()
    names["MyAdapter"] = lambda: type("Broken", (Whole,), {"q_step": q_step_as_misprinted})(LINEAR)
    with pytest.raises(AssertionError, match="E1 step"):
        names["test_my_diffusion"]()


def test_float32_is_held_to_its_own_rounding_only():
    def q_sample(self, *arguments):
        return Own.q_sample(self, *arguments) * (1 + 1e-7)

    coarse = type("Coarse", (Whole,), {"q_sample": q_sample})
    assert check(coarse(LINEAR, dtype="float32")).names("fails") == []
    assert check(coarse(LINEAR), examples=40).names("fails") == ["E2 marginal"]


def to_bfloat16(x):
    """The nearest number of eight bits, ties to even, as float32."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("method", ["q_sample", "q_step", "posterior", "step", "convert"])
def test_bfloat16_is_held_to_its_own_rounding_only(method):
    def rounded(self, *arguments):
        found = getattr(Own, method)(self, *arguments)
        return tuple(map(to_bfloat16, found)) if isinstance(found, tuple) else to_bfloat16(found)

    coarse = type("Coarse", (Own,), {method: rounded})
    check(coarse(LINEAR, dtype="bfloat16"), examples=20).raise_if_failed()
    assert check(coarse(LINEAR, dtype="float32"), examples=20).names("fails")


def test_without_hypothesis_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        check(Own(LINEAR))


def test_code_that_fails_in_its_first_runs_only_is_reported():
    class Warming(Whole):
        calls = 0

        def q_sample(self, x0, t, noise):
            self.calls += 1
            return Own.q_sample(self, x0, t, noise) + (self.calls < 20)

    assert "another result the next time" in str(check(Warming(LINEAR), examples=5))
