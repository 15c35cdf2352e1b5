"""The checks pass on this project's own code, and name the right identity for each planted fault."""

from functools import partial

import numpy as np
import pytest
from hypothesis import strategies as st
from whole import LINEAR, Whole, posterior_with_beta, q_step_as_misprinted, refuses

from tinyddpm import SCHEDULES, NoiseSchedule, named_schedule
from tinyddpm.properties import IDENTITIES, Adapter, check, schedules
from tinyddpm.properties.own import Own
from tinyddpm.reverse import ancestral_step
from tinyddpm.samplers import ddim_step, dpm_solver, gradient_estimation, heun_step

CHAINS = {"E29 chain", "E26 chain", "E43 point", "E29 batch", "E31 order"}  # a wrong step is seen in these too


def column(table, t):
    return np.reshape(table[t], (-1, 1))


# ---- what is right passes ----


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("T", [2, 10, 1000])
def test_every_identity_holds_for_the_named_schedules(name, T):
    report = check(Whole(named_schedule(name, T), order=None), examples=20)
    report.raise_if_failed()
    assert report.names("not checked") == ["E31 order"]


def always(step):
    return lambda: step


OPTIONS = {
    "ddim": {"make_step": always(ddim_step), "eta": 0.0},
    "ddim, eta 0.5": {"make_step": always(partial(ddim_step, eta=0.5)), "eta": 0.5},
    "ddim, eta 1": {"make_step": always(partial(ddim_step, eta=1.0)), "eta": 1.0},
    "heun": {"make_step": always(heun_step), "eta": 0.0, "solver": None},
    "dpm_solver": {"make_step": dpm_solver, "eta": 0.0, "solver": "2m"},
    "gradient_estimation, mu 1/2": {"make_step": lambda: gradient_estimation(1.0, 0.5), "solver": None},
    "beta": {"make_step": always(partial(ancestral_step, variance="beta")), "variance": "beta"},
    "clipped": {"clip": (-1.0, 1.0)},
    "min-snr": {"weighting": "min-snr"},
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_identity_holds_for_each_sampler_on_any_schedule(options):
    report = check(schedules().map(lambda schedule: Own(schedule, **options)), examples=50)
    report.raise_if_failed()
    assert len(report.names("holds")) > 30


@pytest.mark.parametrize("make_step, order", [(always(ddim_step), 1), (always(heun_step), 2), (dpm_solver, 2)])
def test_samplers_converge_with_the_order_that_they_claim_and_with_no_higher_one(make_step, order):
    def status(claimed):
        claims = {"eta": 0.0, "solver": None, "order": claimed}
        (found,) = [
            r
            for r in check(Own(NoiseSchedule.cosine(200), make_step, **claims), examples=2).results
            if r.identity.name == "E31 order"
        ]
        return found.status

    assert status(order) == "holds" and status(order + 1) == "fails"


def test_every_identity_holds_for_respaced_processes():
    lengths = st.integers(1, 20)
    step = partial(ddim_step, eta=0.3)
    respaced = st.builds(lambda S: Own(NoiseSchedule.cosine(50).respace(S), always(step), eta=0.3), lengths)
    check(respaced, examples=50).raise_if_failed()


def test_a_chain_of_one_step_has_no_middle_to_check():
    report = check(Own(NoiseSchedule.linear(1)), examples=20)
    report.raise_if_failed()
    assert {"E7 mean", "E7 variance", "E30 mean", "E29 variance"} <= set(report.names("not checked"))


# ---- each planted fault is named, and nothing else ----


def q_sample_one_step_early(self, x0, t, noise):
    alpha_bar = column(self.alpha_bar, t - 1)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) ** 0.5 * noise


def q_sample_without_a_root(self, x0, t, noise):
    alpha_bar = column(self.alpha_bar, t)
    return alpha_bar**0.5 * x0 + (1 - alpha_bar) * noise


def q_sample_at_the_first_t(self, x0, t, noise):
    return Own.q_sample(self, x0, int(np.ravel(t)[0]), noise)


def posterior_of_alpha_bar_t(self, x0, xt, t):
    mean, variance = Own.posterior(self, x0, xt, t)
    before, after = self.alpha_bar[t - 1], self.alpha_bar[t]
    return mean + (after**0.5 - before**0.5) * self.beta[t] / (1 - after) * x0, variance


def posterior_with_swapped_means(self, x0, xt, t):
    mean, variance = Own.posterior(self, x0, xt, t)
    return (mean if t == 1 else Own.posterior(self, xt, x0, t)[0]), variance


def posterior_standard_deviation(self, x0, xt, t):
    mean, variance = Own.posterior(self, x0, xt, t)
    return mean, variance**0.5


def noise_at_every_step(self, x0_hat, xt, t, noise):
    extra = self.beta[t] ** 0.5 * noise if t == 1 else 0
    return Own.step(self, x0_hat, xt, t, noise) + extra


def stops_one_step_early(self, x0_hat, xt, t, noise):
    return xt if t == 1 else Own.step(self, x0_hat, xt, t, noise)


def another_eta(self, x0_hat, xt, t, noise):
    return Own(self.schedule, always(partial(ddim_step, eta=0.5))).step(x0_hat, xt, t, noise)


def noise_of_beta(self, x0_hat, xt, t, noise):
    return Own(self.schedule, always(partial(ancestral_step, variance="beta"))).step(x0_hat, xt, t, noise)


def variance_times_noise(self, x0_hat, xt, t, noise):
    p = ddim_step(lambda xt, t: x0_hat, self.schedule, xt, t, eta=1.0)
    return p.mean + p.variance * noise


def direction_without_sigma(self, x0_hat, xt, t, noise):
    before = Own(self.schedule, lambda: ddim_step).step(x0_hat, xt, t, noise)
    return before + Own.step(self, x0_hat, xt, t, noise) - Own.step(self, x0_hat, xt, t, 0 * noise)


def clips(self, x0_hat, xt, t, noise):
    return Own.step(self, x0_hat.clip(-1, 1), xt, t, noise)


def logarithm_for_variance(self, x0_hat, xt, t, noise):
    with np.errstate(invalid="ignore"):
        extra = np.log(self.beta[t]) ** 0.5 * noise if t > 1 else 0
    return Own.step(self, x0_hat, xt, t, noise) + extra


def respace_by_skipping_betas(self, timesteps):
    return Own(NoiseSchedule.from_beta(self.beta[timesteps]))


def chain_without_noise(self, denoise, x_T, noise):
    return Own.chain(self, denoise, x_T, lambda t: 0 * x_T)


def chain_at_the_level_before(self, denoise, x_T, noise):
    before = dict(zip(self.alpha_bar.tolist(), [1.0, *self.alpha_bar[:-1]], strict=True))
    return Own.chain(self, lambda x, alpha_bar: denoise(x, 0.5 * (alpha_bar + before[alpha_bar])), x_T, noise)


def chain_with_a_memory(self, denoise, x_T, noise):
    self.runs = getattr(self, "runs", 0) + 1
    return [x + 1e-3 * self.runs for x in Own.chain(self, denoise, x_T, noise)]


def chain_that_mixes(self, denoise, x_T, noise):
    return Own.chain(self, lambda x, alpha_bar: denoise(x - x.mean(0), alpha_bar), x_T, noise)


def chain_that_stops_early(self, denoise, x_T, noise):
    states = Own.chain(self, denoise, x_T, noise)
    return [*states[:-1], 0.9 * states[-1]]


def skips_a_step(self, S):
    return Whole.with_steps(self, max(S - 1, 1))


def scaled(method):
    """The fault of a result 1% too large."""

    def fault(self, *arguments):
        right = getattr(Whole, method)(self, *arguments)
        return tuple(1.01 * x for x in right) if isinstance(right, tuple) else 1.01 * right

    return method, fault


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
    ("chain", chain_without_noise, {"E29 chain", "E26 chain"}),
    ("chain", chain_at_the_level_before, {"E29 chain", "E26 chain"}),
    ("chain", chain_with_a_memory, {"E29 again"}),
    ("chain", chain_that_mixes, {"E29 batch"}),
    ("chain", chain_that_stops_early, {"E43 point"}),
    ("with_steps", skips_a_step, {"E32 grid"}),
    (*scaled("rescale"), {"E5 rescaled"}),
    (*scaled("threshold"), {"E29 threshold"}),
    (*scaled("learned_variance"), {"E19 learned variance"}),
    (*scaled("scalings"), {"E37 scalings"}),
    (*scaled("loss_weight"), {"E22 weight of x0", "E22 weight of eps", "E22 weight of v"}),
    (*scaled("prior_term"), {"E20 prior term"}),
    (*scaled("denoising_term"), {"E19 denoising term"}),
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
    broken = type("Broken", (Whole,), {method: fault})
    found = set(check(broken(LINEAR), examples=40).names("fails"))
    assert names <= found and found - CHAINS == names - CHAINS


@pytest.mark.parametrize("method, table, names", TABLE_FAULTS)
def test_a_fault_in_a_table_is_named_and_nothing_else(method, table, names):
    tables = type("Tables", (Adapter,), {"alpha_bar": LINEAR.alpha_bar, method: table})
    assert set(check(tables(), examples=40).names("fails")) == names


@pytest.mark.parametrize("change", [lambda x: -x, lambda x: 1.01 * x])
@pytest.mark.parametrize("source, target, name", CONVERSIONS)
def test_a_conversion_bent_in_one_direction_is_named_and_nothing_else(source, target, name, change):
    def convert(self, value, xt, t, *kinds):
        right = Own.convert(self, value, xt, t, *kinds)
        return change(right) if kinds == (source, target) else right

    broken = type("Broken", (Whole,), {"convert": convert})
    assert check(broken(LINEAR), examples=15).names("fails") == [name]


def test_every_identity_is_broken_by_one_of_these_faults():
    named = set().union(*(names for *_, names in FAULTS + TABLE_FAULTS), [name for *_, name in CONVERSIONS])
    assert named == {identity.name for identity in IDENTITIES} - {"E31 order"}  # which has a test of its own
