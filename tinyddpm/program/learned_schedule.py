"""VDM with a learned schedule: more of the time where the loss is large, so that its estimate varies less. (E35)

The bound knows the ends of the schedule only. The curve between them says how much time is spent at which log-SNR, and is
learned beside the network: one Module holds both, so it is saved, resumed and shared out like any weight. What it buys:
on digits of 14x14, the variance of a batch's loss with stratified times was a seventh of that with independent times; a
learned schedule took a quarter off that. Next: binomial_diffusion.py.
"""

from functools import partial

import numpy as np

import nn
from tinyddpm.program.variational_diffusion import VariationalDiffusion
from tinyddpm.theory import continuous

__all__ = ["LearnedScheduleDiffusion", "Scheduled"]

PIECES = 32
RATE = 10.0  # how much faster than other weights the schedule learns; it must arrive within some hundred steps


class LearnedScheduleDiffusion(VariationalDiffusion):
    """VDM whose log-SNR falls at a learned rate: in PIECES straight pieces of equal fall, each with its share of time.

    It always falls, since a share is positive. Steps for the sampler and the bound stay those of `schedule`.
    """

    def __init__(self, schedule, prediction="eps", loss_weight="bound", gamma=None):
        super().__init__(schedule, prediction)
        self.loss = partial(least_variance_loss, PIECES)

    def around(self, network):
        """The network, with the schedule beside it."""
        self.scheduled = Scheduled(network, PIECES)
        return self.scheduled

    def ends_of_pieces(self):
        """The time at which each piece ends, after 0: (PIECES + 1,)."""
        shares = np.exp(nn.to_numpy(self.scheduled.log_shares().data).astype(np.float64))
        return np.append(0.0, shares.cumsum() / shares.sum())

    def timesteps(self, n, rng):
        """n real timesteps, at evenly spaced times of the learned schedule: (n,). (E36)"""
        fallen = np.interp(continuous.stratified_times(n, rng), self.ends_of_pieces(), np.linspace(0, 1, PIECES + 1))
        return self.timestep_at(self.curve.high - (self.curve.high - self.curve.low) * fallen)

    def drawn_time(self, t):
        """The learned schedule's time at real timesteps t."""
        return np.interp(self.network_time(t), np.linspace(0, 1, PIECES + 1), self.ends_of_pieces())

    def x0_hat(self, output, xt, t):
        """x_0 from eps_hat, which is all of the output but its last channel. (E24)"""
        return super().x0_hat(output[..., :-1], xt, t)


class Scheduled(nn.Module):
    """A network, and the logits of each piece's share of time. The output has one more channel: the log of that share."""

    def __init__(self, network, pieces):
        self.network = network
        self.logits = nn.tensor(np.zeros(pieces, np.float32), requires_grad=True)

    def log_shares(self):
        return nn.log_softmax(RATE * self.logits)

    def __call__(self, x, time, labels=None):
        eps_hat, pieces = self.network(x, time, labels), self.logits.shape[0]
        piece = np.minimum((pieces * nn.to_numpy(time)).astype(int), pieces - 1)
        log_share = nn.embedding(self.log_shares().reshape(pieces, 1), piece)
        shape = (*eps_hat.shape[:3], 1)
        return nn.concatenate([eps_hat, log_share.reshape(shape[0], 1, 1, 1).broadcast_to(shape)])


def least_variance_loss(pieces, output, eps, u):
    """`bound_loss` at times that the schedule drew, a scalar Tensor; its gradient lowers its mean square too. (E35)

    A time of piece k is drawn share_k times as often as if the log-SNR fell evenly, times `pieces`, so its loss counts
    1/(pieces share_k). The mean of the square is then the sum of e_k^2/(pieces^2 share_k), with e_k the error in the
    piece. Its derivative is that of -loss^2 log share_k with loss held fixed, in the mean over the times drawn.
    """
    eps_hat, log_share = output[..., :-1], output[:, 0, 0, -1]
    error = ((eps - eps_hat) ** 2).reshape(len(eps), -1).mean(axis=1)
    each = error * (1 / (pieces * np.exp(log_share.data)))
    teacher = (log_share * each.data**2).mean() * -0.01  # small beside the other gradients, whose norm is limited
    return each.mean() + (teacher - teacher.data)  # a gradient, and no value
