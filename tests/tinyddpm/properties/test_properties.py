"""The checks pass on this project's own code, and name the right identity for each planted fault."""

import builtins
from functools import partial

import numpy as np
import pytest
from hypothesis import strategies as st

from tinyddpm import SCHEDULES, NoiseSchedule, named_schedule
from tinyddpm.properties import IDENTITIES, check, checks, schedules
from tinyddpm.properties.adapters import Adapter
from tinyddpm.reverse import ancestral_step
from tinyddpm.samplers import ddim_step, dpm_solver, gradient_estimation, heun_step

LINEAR = NoiseSchedule.linear(10)


def column(table, t):
    return np.reshape(table[t], (-1, 1))


# ---- what is right passes ----


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [2, 10, 1000])
def test_every_identity_holds_for_the_named_schedules(name, T):
    report = check(Adapter(named_schedule(name, T)), examples=20)
    report.raise_if_failed()
    assert report.names("holds") == [identity.name for identity in IDENTITIES]


OPTIONS = {
    "ddim": {"step": ddim_step, "eta": 0.0},
    "ddim, eta 0.5": {"step": partial(ddim_step, eta=0.5), "eta": 0.5},
    "ddim, eta 1": {"step": partial(ddim_step, eta=1.0), "eta": 1.0},
    "heun": {"step": heun_step, "eta": 0.0},
    "dpm_solver": {"step": lambda *arguments: dpm_solver()(*arguments), "eta": 0.0},
    "gradient_estimation, mu 1/2": {"step": lambda *arguments: gradient_estimation(1.0, 0.5)(*arguments)},
    "beta": {"step": partial(ancestral_step, variance="beta"), "variance": "beta"},
    "float32": {"dtype": "float32"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_identity_holds_for_each_sampler_on_any_schedule(options):
    report = check(schedules().map(lambda schedule: Adapter(schedule, **options)), examples=50)
    report.raise_if_failed()
    assert report.names("not checked") == []


def test_every_identity_holds_for_respaced_processes():
    lengths = st.integers(1, 20)
    step = partial(ddim_step, eta=0.3)
    respaced = st.builds(lambda S: Adapter(NoiseSchedule.cosine(50).respace(S), step, 0.3), lengths)
    check(respaced, examples=50).raise_if_failed()


def test_a_chain_of_one_step_has_no_middle_to_check():
    report = check(Adapter(NoiseSchedule.linear(1)), examples=20)
    report.raise_if_failed()
    assert report.names("not checked") == ["E7 mean", "E7 variance", "E30 mean", "E29 variance"]


# ---- each planted fault is named, and nothing else ----


def q_sample_one_step_early(self, x0, t, noise):
    alpha_bar = column(self.alpha_bar, t - 1)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


def q_sample_without_a_root(self, x0, t, noise):
    alpha_bar = column(self.alpha_bar, t)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) * noise


def q_sample_at_the_first_t(self, x0, t, noise):
    return Adapter.q_sample(self, x0, int(np.ravel(t)[0]), noise)


def q_step_as_misprinted(self, x_prev, t, noise):
    return (1 - self.beta[t]) ** 0.5 * x_prev + self.beta[t] * noise


def posterior_of_alpha_bar_t(self, x0, xt, t):
    mean, variance = Adapter.posterior(self, x0, xt, t)
    before, after = self.alpha_bar[t - 1], self.alpha_bar[t]
    return mean + (after**0.5 - before**0.5) * self.beta[t] / (1 - after) * x0, variance


def posterior_with_swapped_means(self, x0, xt, t):
    mean, variance = Adapter.posterior(self, x0, xt, t)
    return (mean if t == 1 else Adapter.posterior(self, xt, x0, t)[0]), variance


def posterior_with_beta(self, x0, xt, t):
    return Adapter.posterior(self, x0, xt, t)[0], self.beta[t]


def posterior_standard_deviation(self, x0, xt, t):
    mean, variance = Adapter.posterior(self, x0, xt, t)
    return mean, variance**0.5


def noise_at_every_step(self, x0_hat, xt, t, noise):
    extra = self.beta[t] ** 0.5 * noise if t == 1 else 0
    return Adapter.step(self, x0_hat, xt, t, noise) + extra


def stops_one_step_early(self, x0_hat, xt, t, noise):
    return xt if t == 1 else Adapter.step(self, x0_hat, xt, t, noise)


def another_eta(self, x0_hat, xt, t, noise):
    return Adapter(self.schedule, partial(ddim_step, eta=0.5)).step(x0_hat, xt, t, noise)


def noise_of_beta(self, x0_hat, xt, t, noise):
    return Adapter(self.schedule, partial(ancestral_step, variance="beta")).step(x0_hat, xt, t, noise)


def variance_times_noise(self, x0_hat, xt, t, noise):
    p = ddim_step(lambda xt, t: x0_hat, self.schedule, xt, t, eta=1.0)
    return p.mean + p.variance * noise


def direction_without_sigma(self, x0_hat, xt, t, noise):
    before = Adapter(self.schedule, ddim_step).step(x0_hat, xt, t, noise)
    return before + Adapter.step(self, x0_hat, xt, t, noise) - Adapter.step(self, x0_hat, xt, t, 0 * noise)


def clips(self, x0_hat, xt, t, noise):
    return Adapter.step(self, x0_hat.clip(-1, 1), xt, t, noise)


def logarithm_for_variance(self, x0_hat, xt, t, noise):
    with np.errstate(invalid="ignore"):
        extra = np.log(self.beta[t]) ** 0.5 * noise if t > 1 else 0
    return Adapter.step(self, x0_hat, xt, t, noise) + extra


def respace_by_skipping_betas(self, timesteps):
    return Adapter(NoiseSchedule.from_beta(self.beta[timesteps]))


def refuses(self, *arguments):
    raise RuntimeError("no")


FAULTS = [
    ("q_sample", q_sample_one_step_early, {"E2 marginal"}),
    ("q_sample", q_sample_without_a_root, {"E2 marginal"}),
    ("q_sample", q_sample_at_the_first_t, {"E2 batch"}),
    ("q_step", q_step_as_misprinted, {"E1 step"}),
    ("posterior", posterior_of_alpha_bar_t, {"E7 mean", "E9 end"}),
    ("posterior", posterior_with_swapped_means, {"E7 mean"}),
    ("posterior", posterior_with_beta, {"E7 variance", "E9 end"}),
    ("posterior", posterior_standard_deviation, {"E7 variance"}),
    ("step", noise_at_every_step, {"E29 last noise"}),
    ("step", stops_one_step_early, {"E29 last mean"}),
    ("step", another_eta, {"E30 mean", "E29 variance"}),
    ("step", noise_of_beta, {"E29 variance"}),
    ("step", variance_times_noise, {"E29 variance"}),
    ("step", direction_without_sigma, {"E30 mean"}),
    ("step", clips, {"E30 mean", "E29 last mean"}),
    ("step", logarithm_for_variance, {"E30 mean", "E29 variance"}),  # NaN, whatever the noise
    ("respace", respace_by_skipping_betas, {"E32 respacing"}),
    ("respace", refuses, {"E32 respacing"}),
]
TABLE_FAULTS = [
    ("beta", np.append(LINEAR.beta[1:], 0.5), {"E2 tables"}),
    ("beta", LINEAR.beta * 1.01, {"E2 tables"}),
    ("alpha_bar", LINEAR.alpha_bar[1:], {"E5 start"}),
    ("alpha_bar", np.array([1.0, 0.5, 0.5]), {"E5 decrease"}),
    ("alpha_bar", np.array([1.0, 0.5, 0.0]), {"E5 decrease"}),
]
CONVERSIONS = [
    ("x0", "eps", "E24 eps from x0"),
    ("eps", "x0", "E24 x0 from eps"),
    ("x0", "v", "E24 v from x0"),
    ("v", "x0", "E24 x0 from v"),
    ("x0", "score", "E25 score from x0"),
    ("score", "x0", "E27 x0 from score"),
    ("x0", "velocity", "E37 velocity from x0"),
    ("velocity", "x0", "E37 x0 from velocity"),
    ("x0", "mean", "E7 mean from x0"),
    ("mean", "x0", "E7 x0 from mean"),
    ("eps", "mean", "E8 mean from eps"),
]


@pytest.mark.parametrize("method, fault, names", FAULTS)
def test_a_planted_fault_is_named_and_nothing_else(method, fault, names):
    broken = type("Broken", (Adapter,), {method: fault})
    assert set(check(broken(LINEAR), examples=40).names("fails")) == names


@pytest.mark.parametrize("method, table, names", TABLE_FAULTS)
def test_a_fault_in_a_table_is_named_and_nothing_else(method, table, names):
    tables = type("Tables", (), {"alpha_bar": LINEAR.alpha_bar, method: table})
    assert set(check(tables(), examples=40).names("fails")) == names


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: 1.01 * x])
@pytest.mark.parametrize("source, target, name", CONVERSIONS)
def test_a_conversion_bent_in_one_direction_is_named_and_nothing_else(source, target, name, change):
    def convert(self, value, xt, t, *kinds):
        right = Adapter.convert(self, value, xt, t, *kinds)
        return change(right) if kinds == (source, target) else right

    broken = type("Broken", (Adapter,), {"convert": convert})
    assert check(broken(LINEAR), examples=15).names("fails") == [name]


def test_every_identity_is_broken_by_one_of_these_faults():
    named = set().union(*(names for *_, names in FAULTS + TABLE_FAULTS), [name for *_, name in CONVERSIONS])
    assert named == {identity.name for identity in IDENTITIES}


# ---- the report ----


def failure(adapters, name):
    return next(result for result in check(adapters, examples=40).results if result.identity.name == name)


def test_the_example_is_made_as_small_as_it_can_be():
    broken = type("Broken", (Adapter,), {"q_step": q_step_as_misprinted})
    case = failure(schedules().map(broken), "E1 step").example
    assert case.t == 1 and len(case.adapter.beta) == 2
    assert case.x0.tolist() == [[0.0]] and abs(case.noise).tolist() == [[1.0]]


def test_the_report_says_what_was_found_and_expected_and_is_always_the_same():
    broken = type("Broken", (Adapter,), {"respace": refuses, "posterior": posterior_with_beta})
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
    table = type("Table", (), {"alpha_bar": LINEAR.alpha_bar})
    assert check(table()).names("holds") == ["E5 start", "E5 decrease"]
    assert len(check(table()).names("not checked")) == len(IDENTITIES) - 2

    def convert(self, value, xt, t, source, target):
        if source == "x0":
            raise NotImplementedError
        return Adapter.convert(self, value, xt, t, source, target)

    some = type("Some", (Adapter,), {"convert": convert, "predictions": ("eps", "v"), "posterior": None})
    report = check(some(LINEAR))
    assert report.names("fails") == []
    checked = [name for name in report.names("holds") if name.startswith(("E24", "E27", "E37", "E7", "E9"))]
    assert checked == ["E24 x0 from eps", "E24 x0 from v"]


@pytest.mark.parametrize("alpha_bar", [None, [1.0], 0.5, [[1.0, 0.5]], ["1", "0.5"]])
def test_an_adapter_must_have_a_table_alpha_bar(alpha_bar):
    with pytest.raises(ValueError, match="alpha_bar, a table of T \\+ 1 entries"):
        check(type("Bad", (), {"alpha_bar": alpha_bar})())


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("dtype", "float16", "dtype must be float32 or float64, got 'float16'"),
        ("beta", LINEAR.beta[1:], "beta must be 11 entries, got array"),
        ("predictions", ("eps", "noise"), "predictions must be among eps, mean, score, v, velocity, x0, got"),
        ("eta", 2.0, r"eta must be in \[0, 1\], got 2.0"),
        ("variance", "large", "variance must be beta_tilde or beta, got 'large'"),
    ],
)
def test_tables_and_claims_of_another_form_are_refused_by_name(name, value, words):
    odd = type("Odd", (), {"alpha_bar": LINEAR.alpha_bar, name: value})
    with pytest.raises(ValueError, match="an adapter's " + words):
        check(odd())


WRONG_RESULTS = [
    ("q_sample", lambda self, x0, t, noise: None, "E2 marginal", "found shape (), expected (1, 1)"),
    ("posterior", lambda self, x0, xt, t: x0, "E7 mean", "posterior must return a pair, the mean and the variance"),
    ("q_step", lambda self, x, t, noise: Adapter.q_step(self, x, t, noise).astype("float32"), "E1 step", "found dtype"),
]


@pytest.mark.parametrize("method, fault, name, words", WRONG_RESULTS)
def test_a_result_of_another_form_fails_with_a_word_about_what_was_expected(method, fault, name, words):
    found = failure(type("Odd", (Adapter,), {method: fault})(LINEAR), name)
    assert found.status == "fails" and words in str(found)


def test_the_example_of_the_documentation_runs():
    """The indented lines of the docstring of checks.py, as they stand, with an adapter of the name that they use."""
    lines = [line[4:] for line in checks.__doc__.splitlines() if line.startswith("    ")]
    example = "\n".join(lines[: 1 + next(i for i, line in enumerate(lines) if "raise_if_failed" in line)])
    names = {"MyAdapter": lambda: Adapter(LINEAR)}
    exec(example, names)
    names["test_my_diffusion"]()
    names["MyAdapter"] = lambda: type("Broken", (Adapter,), {"q_step": q_step_as_misprinted})(LINEAR)
    with pytest.raises(AssertionError, match="E1 step"):
        names["test_my_diffusion"]()


def test_a_wrong_shape_fails_and_says_so():
    flat = type("Flat", (Adapter,), {"q_sample": lambda self, x0, t, noise: np.ravel(x0)})
    found = failure(flat(LINEAR), "E2 marginal")
    assert found.status == "fails" and "found shape (1,), expected (1, 1)" in str(found)


def test_float32_is_held_to_its_own_rounding_only():
    def q_sample(self, *arguments):
        return Adapter.q_sample(self, *arguments) * (1 + 1e-7)

    coarse = type("Coarse", (Adapter,), {"q_sample": q_sample})
    assert check(coarse(LINEAR, dtype="float32")).names("fails") == []
    assert check(coarse(LINEAR), examples=40).names("fails") == ["E2 marginal"]


def test_without_hypothesis_it_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("hypothesis"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install hypothesis"):
        check(Adapter(LINEAR))
