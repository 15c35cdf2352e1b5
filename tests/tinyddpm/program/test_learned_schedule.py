"""The learned schedule: it finds the shares of time of least variance, and leaves the mean of the loss alone. (E35)"""

import numpy as np
from small import LEARNED_CONFIG, SQUARES, pictures

import nn
from tinyddpm.program import figures
from tinyddpm.program.learned_schedule import PIECES, LearnedScheduleDiffusion, least_variance_loss
from tinyddpm.program.model import Model
from tinyddpm.program.train import Trainer
from tinyddpm.schedule import named_schedule


class Errs(nn.Module):
    """A network that returns eps with an error that depends on the time: x (1 + e(time)) where eps = x."""

    def __call__(self, x, time, labels=None):
        return x * (1 + error_at(time)).astype(np.float32).reshape(-1, 1, 1, 1)


def error_at(time):
    return 0.2 + np.sin(3 * time) ** 4


def diffusion(schedule="even_log_snr"):
    made = LearnedScheduleDiffusion(named_schedule(schedule, 50))
    made.around(Errs())
    return made


def batch_loss(made, n, rng):
    """The loss of a batch, of images whose noise has the square 1 everywhere."""
    t, x = made.timesteps(n, rng), np.ones((n, 2, 2, 1), np.float32)
    return made.loss(made.scheduled(nn.Tensor(x), made.network_time(t)), *made.loss_inputs(x, x, t, x))


def exact(n=20000):
    u = (np.arange(n) + 0.5) / n
    return u, error_at(u) ** 2


def test_e35_it_learns_the_shares_whose_estimate_varies_least_and_they_are_known():
    made, rng = diffusion(), np.random.default_rng(0)
    optimiser = nn.Adam([made.scheduled.logits], lambda step: 0.01 if step < 300 else 0.002)
    for _ in range(600):
        optimiser.zero_grad()
        batch_loss(made, 256, rng).backward()
        optimiser.step()
    _, error = exact()
    root = (error.reshape(PIECES, -1) ** 2).mean(1) ** 0.5  # the best shares: as the root mean square (E36)
    np.testing.assert_allclose(np.diff(made.ends_of_pieces()), root / root.sum(), rtol=0.15)


def test_e35_the_mean_of_the_loss_does_not_depend_on_the_schedule_and_no_value_is_added_to_it():
    rng, (_, error) = np.random.default_rng(1), exact()
    for schedule in ("even_log_snr", "cosine"):  # the steps of the sampler do not matter
        made = diffusion(schedule)
        for _ in range(3):
            made.scheduled.logits.data = rng.uniform(-0.15, 0.15, PIECES).astype(np.float32)
            losses = [batch_loss(made, 64, rng).item() for _ in range(200)]
            assert abs(np.mean(losses) - error.mean()) < 5 * np.std(losses) / 200**0.5


def test_times_go_where_the_share_is_large_and_cover_the_log_snr_from_end_to_end():
    made = diffusion("cosine")
    made.scheduled.logits.data[:] = np.where(np.arange(PIECES) < PIECES // 2, np.log(3) / 10, 0)
    time = made.network_time(made.timesteps(4000, np.random.default_rng(0)))
    assert abs((time < 0.5).mean() - 0.75) < 1e-3
    assert time.min() < 1e-3 and time.max() > 0.999
    t = np.array([1.0, 20.0, 50.0])
    np.testing.assert_allclose(made.drawn_time(t)[[0, 2]], [0, 1], atol=1e-12)
    np.testing.assert_allclose(made.timestep_at(made.log_snr(t)), t)


def test_the_gradient_of_the_network_is_that_of_the_weighted_error_alone():
    rng = np.random.default_rng(2)
    output, eps = nn.tensor(rng.standard_normal((3, 2, 2, 2)), requires_grad=True), rng.standard_normal((3, 2, 2, 1))
    (found,) = nn.gradients(least_variance_loss(PIECES, output, eps, None), [output])
    weight = 1 / (PIECES * np.exp(output.data[:, 0, 0, 1]))
    np.testing.assert_allclose(found[..., :1], 2 * (output.data[..., :1] - eps) * weight.reshape(3, 1, 1, 1) / 12)


def test_the_schedule_learns_while_the_network_does_and_is_drawn_in_the_figure():
    trainer = Trainer(LEARNED_CONFIG, pictures())
    list(trainer.run(steps=4))
    assert len(np.unique(trainer.network.logits.data)) > 3
    assert {"network.last.bias", "logits"} < trainer.network.state_dict().keys()
    curve = figures.schedule_ends(trainer.model, SQUARES.test.images[:4]).axes[0].lines[0]
    assert abs(np.diff(curve.get_ydata()) / np.diff(curve.get_xdata()) + 18.3).max() > 1e-3, "it is no longer straight"
    assert Model(LEARNED_CONFIG).sample(2, steps=3).shape == (2, 8, 8)
