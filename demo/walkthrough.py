"""From -log p(x_0) to ||eps - eps_hat||^2, number by number, on a mixture of two Gaussians in one dimension.

    python demo/walkthrough.py
    python demo/walkthrough.py --out out/walkthrough --size 0.05

Read it from top to bottom. Each section ends where the next begins, every claim is an assertion, and four figures are
drawn. There is no network: the best possible model of such data is known, so no training blurs the numbers. The
E-numbers are those of docs/equations.md. --size scales the number of random draws; 1 takes about ten seconds.
"""

import argparse
from pathlib import Path

import numpy as np
from walkthrough_figures import draw_bound, draw_estimators, draw_last_term, draw_score

from tinyddpm import Gaussian, NoiseSchedule, loss, q_posterior, q_sample, q_step, variational_bound
from tinyddpm.bound import denoising_term, prior_term, reconstruction_term
from tinyddpm.prediction import eps_from_x0, mean_from_eps, score_from_x0, x0_from_score
from tinyddpm.reverse import p_mean_variance
from tinyddpm.theory import bound_forms as forms
from tinyddpm.theory.mixture import mixture_data
from tinyddpm.theory.oracle import Oracle

DATA = mixture_data([0.3, 0.7], [[-0.7], [0.5]], [[0.04], [0.02]])
X0 = np.array([[0.4]])  # the one data point that we follow, (N, d) = (1, 1)
T = 40


def schedule_of(T):
    """log SNR falls evenly from 6 to -9 in T steps."""
    return NoiseSchedule.from_alpha_bar(1 / (1 + np.exp(-np.linspace(6, -9, T))))


SCHEDULE = schedule_of(T)
MODEL = Oracle(DATA, SCHEDULE).denoise  # (x_t, t) -> E[x_0 | x_t], what a perfect network would say
SIGMA2 = "beta"  # the variance of the reverse steps: sigma_t^2 = beta_t
RNG = np.random.default_rng(0)

# E f(eps) = WEIGHTS @ f(NODES) for standard normal eps: expectations without sampling error.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
NODES, WEIGHTS = NODES[:, None], WEIGHTS / WEIGHTS.sum()
MANY_X0 = np.repeat(X0, len(NODES), axis=0)


def same(name, a, b, tolerance=1e-11):
    """Print both sides of an equality, and insist on it."""
    print(f"  {name:82} {a:+.10f} = {b:+.10f}")
    assert abs(a - b) <= tolerance * max(1, abs(a)), name


def normal(shape):
    return lambda t: RNG.standard_normal(shape)


# ---- 1. what is to be minimised: -log p(x_0) ----


def model_log_likelihood(schedule, x0):
    """log p(x_0), x_1..x_T integrated out on a grid: what cannot be done for images."""
    denoise = Oracle(DATA, schedule).denoise
    grid = np.linspace(-6, 6, 601)[:, None]  # wider and finer than any kernel: the sums are exact to 1e-8
    density = np.exp(Gaussian(0 * grid, 1.0).log_prob(grid))  # p(x_T)
    for t in range(schedule.T, 0, -1):
        p = p_mean_variance(schedule, denoise(grid, t), grid, t, SIGMA2)
        square = ((x0 if t == 1 else grid) - p.mean.T) ** 2
        kernel = np.exp(-square / (2 * p.variance)) / np.sqrt(2 * np.pi * p.variance)  # p(x_{t-1} | x_t)
        density = kernel @ density * (grid[1, 0] - grid[0, 0])
    return float(np.log(density[0]))


def likelihood():
    print("1. -log p(x_0): the model is a chain, and its likelihood an integral over x_1..x_T")
    logs = Gaussian(np.zeros((3000, 1)), 1.0).log_prob(RNG.standard_normal((3000, 1)))
    print(
        f"  why the log: of {len(logs)} densities the product is {np.exp(logs).prod()} in floating point, "
        f"the sum of logarithms {logs.sum():.1f}"
    )
    assert np.exp(logs).prod() == 0
    nll = -model_log_likelihood(SCHEDULE, X0)
    print(f"  -log p(x_0) of the model, integrated on a grid      {nll:.6f} nats")
    print(f"  -log q(x_0) of the data                             {-DATA.log_prob(X0)[0]:.6f} nats")
    return nll


# ---- 2. the bound, and its three terms ----


def terms(schedule, x0):
    """L_T, [L_{t-1} for t = 2..T], L_0: expectations over x_t by quadrature, no sampling. (E14)"""
    denoise, many = Oracle(DATA, schedule).denoise, np.repeat(x0, len(NODES), axis=0)
    steps = [denoising_term(schedule, denoise, many, t, NODES, SIGMA2) for t in range(2, schedule.T + 1)]
    last = reconstruction_term(schedule, denoise, many, NODES, SIGMA2, decoder=Gaussian.log_prob)
    return float(prior_term(schedule, x0)[0]), np.array(steps) @ WEIGHTS, float(WEIGHTS @ last)


def three_terms(nll, n):
    print("2. -log p(x_0) <= L_T + sum L_{t-1} + L_0, nothing but Gaussians that are known (E14)")
    prior, steps, last = terms(SCHEDULE, X0)
    bound = prior + steps.sum() + last
    print(f"  L_T {prior:.2e} (small, not zero), sum of L_1..L_T-1 {steps.sum():.6f}, L_0 {last:.6f}")
    print(f"  the bound {bound:.6f}, {bound - nll:.6f} above -log p(x_0)")
    assert prior > 0 and bound > nll
    drawn = variational_bound(
        SCHEDULE, MODEL, np.repeat(X0, n, axis=0), normal((n, 1)), SIGMA2, decoder=Gaussian.log_prob
    ).total
    error = drawn.std() / len(drawn) ** 0.5
    print(f"  the same from one random x_t for each t, {n} times: {drawn.mean():.6f} +- {error:.6f}")
    assert abs(drawn.mean() - bound) < 4 * error
    return prior, steps, last


def by_length(lengths):
    """{T: (the bound, -log p(x_0))}: the bound closes as T grows."""
    results = {}
    for n in lengths:
        schedule = schedule_of(n)
        prior, steps, last = terms(schedule, X0)
        results[n] = prior + steps.sum() + last, -model_log_likelihood(schedule, X0)
        assert results[n][0] > results[n][1]
    return results


# ---- 3. one term: from a KL to ||eps - eps_hat||^2 ----


def one_term(steps, t=20):
    print(f"3. one term, L_{{t-1}} at t = {t}: from a KL to the loss, c_t dropped on the way (E19, E22)")
    xt = q_sample(SCHEDULE, MANY_X0, t, NODES)
    x0_hat = MODEL(xt, t)
    q, p = q_posterior(SCHEDULE, MANY_X0, xt, t), p_mean_variance(SCHEDULE, x0_hat, xt, t, SIGMA2)
    ratio = SCHEDULE.beta_tilde[t] / SCHEDULE.beta[t]
    c_t = (ratio - 1 - np.log(ratio)) / 2  # the KL of the two variances: no parameters in it
    eps_hat = eps_from_x0(SCHEDULE, x0_hat, xt, t)

    def expected_square(error):
        return WEIGHTS @ error[:, 0] ** 2

    kl = WEIGHTS @ q.kl(p)
    mean = expected_square(q.mean - p.mean) / (2 * SCHEDULE.beta[t])
    x0 = loss.loss_weight(SCHEDULE, "x0", t, SIGMA2) * expected_square(MANY_X0 - x0_hat)
    snr = loss.snr_weight(SCHEDULE, t) * expected_square(MANY_X0 - x0_hat)
    weight = loss.loss_weight(SCHEDULE, "eps", t, SIGMA2)
    eps = weight * expected_square(NODES - eps_hat)
    same("E KL(q(x_t-1|x_t,x_0) || p(x_t-1|x_t)), as summed above", kl, steps[t - 2])
    same(f"E |mu_tilde - mu|^2 / (2 sigma^2) + c_t, the KL of the variances, {c_t:.7f}", mean + c_t, kl)
    same("alpha_bar_t-1 beta^2 / (2 sigma^2 (1 - alpha_bar)^2) E |x_0 - x0_hat|^2", x0, mean)
    same("(SNR(t-1) - SNR(t))/2 E |x_0 - x0_hat|^2, times beta_tilde/sigma^2", snr * ratio, x0)
    same("beta^2 / (2 sigma^2 alpha (1 - alpha_bar)) E |eps - eps_hat|^2", eps, x0)
    simple = WEIGHTS @ loss.l_simple(NODES, eps_hat)
    same("weight L_simple; drop the weight, and this is what is trained (E23)", weight * simple, eps)


# ---- 4. two misconceptions ----


def which_noise(n, t=20):
    print("4a. the network predicts the TOTAL noise in x_t, not that of the last step (E4, E8)")
    x0, total, last = RNG.standard_normal((3, n, 1))
    x_prev = q_sample(SCHEDULE, x0, t - 1, total)
    xt = q_step(SCHEDULE, x_prev, t, last)
    eps = eps_from_x0(SCHEDULE, x0, xt, t)
    mean = q_posterior(SCHEDULE, x0, xt, t).mean
    right = mean_from_eps(SCHEDULE, eps, xt, t)
    worst = abs(right - mean).argmax()
    same("the posterior's mean from the total noise, at its worst", right[worst, 0], mean[worst, 0])
    wrong = float(np.mean((mean_from_eps(SCHEDULE, last, xt, t) - mean) ** 2) ** 0.5)
    print(
        f"  with the last step's noise instead it is off by {wrong:.4f}; one step is only "
        f"{SCHEDULE.beta[t] ** 0.5:.4f} wide"
    )
    assert wrong > 0.1 * SCHEDULE.beta[t] ** 0.5
    share, measured = (SCHEDULE.beta[t] / SCHEDULE.one_minus_alpha_bar[t]) ** 0.5, float(np.mean(eps * last))
    print(f"  their correlation is sqrt(beta/(1 - alpha_bar)) = {share:.4f}, measured {measured:.4f}")
    assert abs(share - measured) < 5 / len(x0) ** 0.5


def which_variance(out, last):
    print("4b. which variance at t = 1: beta_tilde_1 = 0, and a likelihood needs more (E9, E21)")
    x1 = q_sample(SCHEDULE, MANY_X0, 1, NODES)
    square = WEIGHTS @ (MANY_X0 - MODEL(x1, 1))[:, 0] ** 2

    def l0(variance):
        return square / (2 * variance) + np.log(2 * np.pi * variance) / 2  # E12

    used, other = SCHEDULE.beta[1], SCHEDULE.beta_tilde[2]
    same("L_0 at sigma_1^2 = beta_1, as summed above", l0(used), last)
    print(f"  at beta_tilde_2 {l0(other):.4f}, at the best, E|x_0 - x0_hat|^2, {l0(square):.4f}")
    print("  a sampler adds no noise at t = 1: x_0 is the mean itself")
    assert SCHEDULE.beta_tilde[1] == 0 and l0(square) <= min(l0(used), l0(other))
    draw_last_term(out / "2_variance_at_1.png", l0, square, other, used)


# ---- 5. the score ----


def the_score(out, t=14):
    print("5. the score of x_t is the posterior mean of conditional scores, and -eps_hat scaled (E25-E27)")
    oracle = Oracle(DATA, SCHEDULE)
    x = np.linspace(-2, 2, 201)[:, None]
    points = np.linspace(-2, 2, 4001)[:, None]  # x_0, to be integrated over
    step = x - SCHEDULE.alpha_bar[t] ** 0.5 * points.T
    log_joint = DATA.log_prob(points) - step**2 / (2 * SCHEDULE.one_minus_alpha_bar[t])
    posterior = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    posterior /= posterior.sum(axis=1, keepdims=True)  # q(x_0 | x_t) on the points, for each x_t
    conditional = score_from_x0(SCHEDULE, np.broadcast_to(points.T, step.shape).copy(), x + 0 * step, t)
    marginal = (posterior * conditional).sum(axis=1, keepdims=True)
    i = 130
    score, x0_hat = oracle.score(x, t), MODEL(x, t)
    name = f"E[conditional score | x_t = {x[i, 0]:.2f}], and grad log q(x_t)"
    same(name, marginal[i, 0], score[i, 0], 1e-9)
    assert np.allclose(marginal, score, rtol=1e-8, atol=1e-8)
    from_eps = -eps_from_x0(SCHEDULE, x0_hat, x, t) / SCHEDULE.one_minus_alpha_bar[t] ** 0.5
    same("-eps_hat / sqrt(1 - alpha_bar)", from_eps[i, 0], score[i, 0])
    tweedie = x0_from_score(SCHEDULE, score, x, t)
    same("Tweedie: (x_t + (1 - alpha_bar) score) / sqrt(alpha_bar)", tweedie[i, 0], x0_hat[i, 0])
    some_x0 = -0.9, -0.7, -0.5, 0.3, 0.5, 0.7
    several = [score_from_x0(SCHEDULE, np.full_like(x, x0), x, t)[:, 0] for x0 in some_x0]
    densities = {s: np.exp(oracle.log_prob(x, s)) for s in (1, t, 26)}
    draw_score(out / "3_score.png", x[:, 0], t, several, score[:, 0], densities)


# ---- 6. estimators: the same mean, another variance ----


def four_forms(n):
    print("6a. the bound in four forms, from the same paths, for a good and for a bad model (E14-E17)")
    diffusion = forms.gaussian_diffusion(SCHEDULE)
    path = forms.q_path(diffusion, np.repeat(X0, n, axis=0), normal((n, 1)))
    ends = [MANY_X0, q_sample(SCHEDULE, MANY_X0, 1, NODES)]
    models = {"the ideal model": MODEL, "0.4 times that": lambda xt, t: 0.4 * MODEL(xt, t)}
    variances = {}
    for name, model in models.items():
        reverse = forms.reverse_model(SCHEDULE, model, SIGMA2)
        edge = WEIGHTS @ forms.entropy_edge(diffusion, reverse, ends)  # what E16 leaves out
        values = {
            "denoising": forms.denoising_form(diffusion, reverse, path),
            "entropy": -forms.entropy_form(diffusion, reverse, path) - edge,
            "consistency": forms.consistency_form(diffusion, reverse, path),
            "whole path": forms.path_form(diffusion, reverse, path),
        }
        print(f"  {name}: " + ", ".join(f"{v.mean():.3f} +- {v.std() / n**0.5:.3f}" for v in values.values()))
        for value in values.values():  # the same bound on average, path by path another number
            difference = value - values["denoising"]
            assert abs(difference.mean()) <= 4 * difference.std() / n**0.5
        variances[name] = {form: value.var() for form, value in values.items()}
    print("  which varies least depends on the model: for a perfect one every whole path tells -log p(x_0)")
    return variances


def three_samplers(steps, repeats):
    print("6b. the sum over t from 8 timesteps: uniform, stratified, importance-sampled (E36)")
    mean = np.concatenate([[0, 0], steps])  # by t = 0..T; t = 1 is L_0, a term of its own
    probabilities = loss.importance_probabilities(mean**2, uniform=0.05)
    n = 8
    alike = np.append(0.0, np.full(T, 1 / T))
    samplers = {
        "uniform": lambda: loss.uniform_timesteps(T, n, RNG),
        "stratified": lambda: loss.stratified_timesteps(T, n, RNG),
        "importance": lambda: loss.importance_timesteps(probabilities, n, RNG),
    }
    predicted = {
        "uniform": loss.draw_variance(mean, mean**2, alike) * T**2 / n,
        "importance": loss.draw_variance(mean, mean**2, probabilities) * T**2 / n,
    }
    measured = {}
    for name, draw in samplers.items():
        sums = np.array([T * np.mean(weights * mean[t]) for t, weights in (draw() for _ in range(repeats))])
        measured[name] = sums.var()
        known = f", predicted {predicted[name]:.5f}" if name in predicted else ""
        print(f"  {name:12} {sums.mean():.4f}, variance {sums.var():.5f}{known}; the sum is {mean.sum():.4f}")
        assert abs(sums.mean() - mean.sum()) < 5 * sums.std() / repeats**0.5
        assert name not in predicted or abs(sums.var() / predicted[name] - 1) < 10 / repeats**0.5
    assert measured["uniform"] > max(measured["stratified"], measured["importance"])
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="out/walkthrough", help="folder for the figures")
    parser.add_argument("--size", default=1.0, type=float, help="share of the random draws, at least 0.05 (default 1)")
    arguments = parser.parse_args()
    out, draws = Path(arguments.out), round(20_000 * max(arguments.size, 0.05))
    out.mkdir(parents=True, exist_ok=True)
    prior, steps, last = three_terms(likelihood(), draws)
    lengths = by_length([10, 20, 40, 80])
    draw_bound(out / "1_bound.png", X0[0, 0], prior, steps, last, lengths, -DATA.log_prob(X0)[0])
    one_term(steps)
    which_noise(5 * draws)
    which_variance(out, last)
    the_score(out)
    draw_estimators(out / "4_estimators.png", four_forms(draws), three_samplers(steps, draws // 5))
    print(*sorted(out.glob("*.png")), sep="\n")


if __name__ == "__main__":
    main()
