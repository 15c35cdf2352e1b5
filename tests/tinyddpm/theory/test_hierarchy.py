"""One bound for every Markov encoder and decoder, with encoders that learn, and diffusion as a case. (E34)"""

import numpy as np
import pytest
from exact import cubature, path_noise, schedules
from hypothesis import given
from strategies import assert_close, seeds

import nn
from tinyddpm import Gaussian, NoiseSchedule, variational_bound
from tinyddpm.theory.binomial import FAIR_COIN, binomial_diffusion, p_transition
from tinyddpm.theory.binomial import q_transition as flip
from tinyddpm.theory.bound_forms import gaussian_diffusion, path_form, q_path, reverse_model
from tinyddpm.theory.hierarchy import diffusion_layers, hierarchical_bound, linear_gaussian, vae_bound

# ---- a linear-Gaussian hierarchy, of which everything is known ----

X, TOP = 3, 1  # dimensions of x; z_1 and z_2 have one each, so that exact posteriors are diagonal


class Toy:
    """p(z_2) = N(0, 1), p(z_1 | z_2) = N(a z_2 + b, v), p(x | z_1) = N(z_1 c + e, w)."""

    def __init__(self, rng):
        self.a, self.b, self.v = rng.normal(), rng.normal(), rng.uniform(0.2, 1)
        self.c, self.e, self.w = rng.normal(size=3), rng.normal(size=3), rng.uniform(0.2, 1, 3)
        self.decoders = [
            linear_gaussian(self.c[None], self.e, self.w),
            linear_gaussian(np.array([[self.a]]), np.array([self.b]), np.array([self.v])),
        ]
        self.mean = self.b * self.c + self.e  # of x
        self.covariance = (self.a**2 + self.v) * np.outer(self.c, self.c) + np.diag(self.w)

    def log_prob(self, x):
        step = x - self.mean
        square = (step * np.linalg.solve(self.covariance, step.T).T).sum(1)
        return -(square + np.linalg.slogdet(2 * np.pi * self.covariance)[1]) / 2

    def posterior(self):
        """p(z_1 | x) and p(z_2 | z_1), by Bayes: precisions add."""
        total = self.a**2 + self.v  # the variance of z_1
        v1 = 1 / (1 / total + (self.c**2 / self.w).sum())
        weight = v1 * self.c / self.w
        offset = v1 * self.b / total - weight @ self.e
        gain = self.a / total
        return [
            linear_gaussian(weight[:, None], np.array([offset]), np.array([v1])),
            linear_gaussian(np.array([[gain]]), np.array([-gain * self.b]), np.array([self.v / total])),
        ]

    def data(self):
        """Points whose mean of any quadratic is that over p(x)."""
        return self.mean + cubature(3) @ np.linalg.cholesky(self.covariance).T


def any_layer(rng, d, e):
    return linear_gaussian(rng.normal(size=(d, e)), rng.normal(size=e), rng.uniform(0.1, 2, e))


def mean_bound(encoders, decoders, x):
    """The mean of the bound over paths from each x, exactly: it is quadratic in the two noises."""
    points = cubature(2)
    rows = np.repeat(x, len(points), axis=0)
    noise = np.tile(points, (len(x), 1))
    each = hierarchical_bound(encoders, decoders, rows, lambda t: np.ascontiguousarray(noise[:, t - 1 : t]))
    return each.reshape(len(x), -1).mean(1)


@given(seeds)
def test_e34_the_bound_is_above_minus_log_likelihood_for_any_encoder(seed):
    rng = np.random.default_rng(seed)
    toy = Toy(rng)
    encoders = [any_layer(rng, d, 1) for d in (3, 1)]
    x = rng.normal(size=(4, 3))
    assert (mean_bound(encoders, toy.decoders, x) > -toy.log_prob(x)).all()


@given(seeds)
def test_e34_with_the_exact_posterior_it_is_minus_log_likelihood_on_every_path(seed):
    rng = np.random.default_rng(seed)
    toy = Toy(rng)
    x = rng.normal(size=(6, 3))
    each = hierarchical_bound(toy.posterior(), toy.decoders, x, lambda t: rng.normal(size=(6, 1)))
    assert_close(each, -toy.log_prob(x), rtol=1e-10, scale=1.0)


@given(seeds)
def test_e34_with_one_layer_it_is_the_vae_bound(seed):
    rng = np.random.default_rng(seed)
    encoder, decoder = any_layer(rng, 3, 2), any_layer(rng, 2, 3)
    x, points = np.tile(rng.normal(size=3), (4, 1)), cubature(2)
    means = []
    for prior in ((), (Gaussian(0.5, 2.0),)):  # the standard normal, unless another is given
        vae = vae_bound(encoder, decoder, x, points, *prior)
        one_layer = hierarchical_bound([encoder], [decoder], x, lambda t: points, *prior)
        assert_close(vae.mean(), one_layer.mean(), rtol=1e-11, scale=1.0)
        assert vae.std() != pytest.approx(one_layer.std())
        means.append(vae.mean())
    assert abs(means[0] - means[1]) > 1e-9


# ---- diffusion is a case of it ----


def linear_denoiser(rng, T):
    factor, offset = rng.normal(size=(2, T + 1))
    return lambda xt, t: factor[t] * xt + offset[t]


@given(schedules(8), seeds)
def test_e34_diffusion_is_the_case_whose_path_form_it_is(schedule, seed):
    rng = np.random.default_rng(seed)
    denoise = linear_denoiser(rng, schedule.T)
    x0, noise = rng.normal(size=(5, 2)), rng.normal(size=(schedule.T + 1, 5, 2))
    diffusion, reverse = gaussian_diffusion(schedule), reverse_model(schedule, denoise, "beta")
    found = hierarchical_bound(*diffusion_layers(diffusion, reverse), x0, lambda t: noise[t])
    expected = path_form(diffusion, reverse, q_path(diffusion, x0, lambda t: noise[t]))
    assert_close(found, expected, rtol=1e-11, scale=1.0)


@given(schedules(8), seeds)
def test_e34_diffusion_has_the_mean_of_the_denoising_bound(schedule, seed):
    rng = np.random.default_rng(seed)
    denoise, x0 = linear_denoiser(rng, schedule.T), rng.normal(size=2)
    noise = path_noise(schedule.T, 2)
    rows = np.tile(x0, (len(noise(1)), 1))
    layers = diffusion_layers(gaussian_diffusion(schedule), reverse_model(schedule, denoise))
    found = hierarchical_bound(*layers, rows, noise)

    points = cubature(2)
    rows = np.tile(x0, (4, 1))
    bound = variational_bound(schedule, denoise, rows, lambda t: points, decoder=Gaussian.log_prob)
    assert_close(found.mean(), bound.total.mean(), rtol=1e-9, scale=abs(found).mean())


def test_layers_of_bits_make_a_hierarchy_too():
    rng = np.random.default_rng(0)
    schedule = NoiseSchedule.from_beta([0.3, 0.5])
    encoders, decoders = diffusion_layers(
        binomial_diffusion(schedule), lambda xt, t: p_transition(schedule, 0.2 + 0.5 * xt, xt, t)
    )
    x, uniform = rng.integers(0, 2, (5, 4)).astype(float), rng.random((3, 5, 4))
    z1 = flip(schedule, x, 1).sample(uniform[1])
    z2 = flip(schedule, z1, 2).sample(uniform[2])
    expected = flip(schedule, x, 1).log_prob(z1) + flip(schedule, z1, 2).log_prob(z2) + 4 * np.log(2)
    expected -= decoders[0](z1).log_prob(x) + decoders[1](z2).log_prob(z1)
    found = hierarchical_bound(encoders, decoders, x, lambda t: uniform[t], FAIR_COIN)
    assert_close(found, expected)


@pytest.mark.parametrize("numbers", [(0, 0), (1, 2), (2, 1)])
def test_layers_without_partner_are_refused(numbers):
    layer = linear_gaussian(np.eye(1), np.zeros(1), np.ones(1))
    layers = [[layer] * n for n in numbers]
    with pytest.raises(ValueError, match=f"got {numbers[0]} and {numbers[1]}"):
        hierarchical_bound(*layers, np.zeros((1, 1)), lambda t: np.zeros((1, 1)))


def test_a_linear_layer_refuses_shapes_that_do_not_fit():
    weight, offset = np.ones((2, 3)), np.zeros(3)
    with pytest.raises(ValueError, match=r"shapes \(d, e\), \(e,\) and \(e,\), got \(2, 3\), \(3,\), \(2,\)"):
        linear_gaussian(weight, offset, np.ones(2))
    for z in (np.zeros((4, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"takes z of shape \(N, 2\), got"):
            linear_gaussian(weight, offset, np.ones(3))(z)


# ---- encoders that learn ----


def learned_layer(rng, d, e):
    """Parameters of a linear-Gaussian layer, and the layer made of them."""
    start = rng.normal(size=(d, e)), rng.normal(size=e), np.zeros(e)
    weight, offset, log_variance = parameters = [nn.tensor(a, requires_grad=True) for a in start]
    return parameters, lambda z: linear_gaussian(weight, offset, nn.exp(log_variance))(z)


def what_was_learned(parameters):
    """The layer with plain arrays in it."""
    weight, offset, log_variance = (p.data for p in parameters)
    return linear_gaussian(weight, offset, np.exp(log_variance))


def minimise(parameters, loss, steps=1500, rate=0.1):
    optimiser = nn.Adam(parameters, nn.rates.cosine(rate, steps))
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def test_e34_learned_encoders_of_two_layers_find_the_posterior_and_close_the_gap():
    rng = np.random.default_rng(1)
    toy, points = Toy(rng), cubature(2)
    (first, q1), (second, q2) = learned_layer(rng, 3, 1), learned_layer(rng, 1, 1)
    x = np.repeat(toy.data(), 4, axis=0)
    noise = np.tile(points, (6, 1))

    def loss():
        draw = [noise[:, :1].copy(), noise[:, 1:].copy()]
        return hierarchical_bound([q1, q2], toy.decoders, nn.tensor(x), lambda t: draw[t - 1]).mean()

    minimise([*first, *second], loss)
    learned = [what_was_learned(first), what_was_learned(second)]
    inputs = [toy.data(), rng.normal(size=(5, 1))]
    for layer, exact, z in zip(learned, toy.posterior(), inputs, strict=True):
        np.testing.assert_allclose(layer(z).mean, exact(z).mean, atol=1e-4)
        np.testing.assert_allclose(layer(z).variance, exact(z).variance, rtol=1e-4)
    gap = mean_bound(learned, toy.decoders, toy.data()) + toy.log_prob(toy.data())
    assert (abs(gap) < 1e-6).all()


def test_e34_a_learned_vae_encoder_finds_the_posterior_of_probabilistic_pca():
    # x = z W + e + noise of variance w, the rows of W orthogonal: p(z | x) has precisions 1 + |W_i|^2/w.
    rng = np.random.default_rng(2)
    W, e, w = np.array([[1.0, 2.0, 0.0], [-0.8, 0.4, 0.5]]), rng.normal(size=3), 0.3
    assert abs(W[0] @ W[1]) < 1e-15
    parameters, encoder = learned_layer(rng, 3, 2)
    decoder = linear_gaussian(W, e, np.full(3, w))
    data = e + cubature(3) @ np.linalg.cholesky(W.T @ W + w * np.eye(3)).T
    x, noise = np.repeat(data, 4, axis=0), np.tile(cubature(2), (6, 1))
    minimise(parameters, lambda: vae_bound(encoder, decoder, nn.tensor(x), noise).mean())
    learned, variance = what_was_learned(parameters)(x), 1 / (1 + (W**2).sum(1) / w)
    np.testing.assert_allclose(learned.variance, variance, rtol=1e-4)
    np.testing.assert_allclose(learned.mean, variance * ((x - e) @ W.T) / w, atol=1e-4)
