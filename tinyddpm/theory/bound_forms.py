"""One bound, written four ways, each an estimate from whole paths x_0..x_T of the forward process. (E14-E17)

The forms hold for every diffusion and for every model. A `Diffusion` names the four distributions of a forward
process and the prior it ends in: `gaussian_diffusion` is here, `binomial_diffusion` in binomial.py. A model is a
Markov chain that starts from the prior, `reverse(xt, t) -> p(x_{t-1} | x_t)` for t = T..1; `reverse_model` makes one
of a denoiser. A path is a list [x_0, ..., x_T], drawn by `q_path`. All forms have the same mean over paths; how much
they vary depends on the model. Results are (N,), in nats. Next: log_snr.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tinyddpm.forward import q_bridge, q_marginal, q_posterior, q_transition
from tinyddpm.gaussian import Gaussian
from tinyddpm.reverse import p_mean_variance, predict_x0

__all__ = ["Diffusion", "gaussian_diffusion", "reverse_model", "q_path", "denoising_form", "consistency_form"]
__all__ += ["misprinted_form", "misprint_excess", "entropy_form", "entropy_edge", "path_form"]


@dataclass(frozen=True)
class Diffusion:
    """A forward process of T steps and its prior, as functions that return distributions.

    A distribution is any object with sample(noise), log_prob(x), entropy(), cross_entropy(other) and kl(other).
    """

    T: int
    transition: Callable  # (x_prev, t) -> q(x_t | x_{t-1}), t = 1..T
    marginal: Callable  # (x0, t) -> q(x_t | x_0), t = 1..T
    posterior: Callable  # (x0, xt, t) -> q(x_{t-1} | x_t, x_0), t = 2..T
    bridge: Callable  # (x_prev, x_next, t) -> q(x_t | x_{t-1}, x_{t+1}), t = 1..T-1
    prior: Callable  # x -> p(x_T), of x's shape


def gaussian_diffusion(schedule):
    """The diffusion of forward.py, which ends in N(0, I)."""
    distributions = (partial(q, schedule) for q in (q_transition, q_marginal, q_posterior, q_bridge))
    return Diffusion(schedule.T, *distributions, prior=lambda x: Gaussian(0 * x, 1.0))


def reverse_model(schedule, denoise, variance="beta_tilde", clip=None):
    """The Gaussian chain `reverse(xt, t)` of a denoiser. Arguments as in `p_mean_variance`."""

    def reverse(xt, t):
        return p_mean_variance(schedule, predict_x0(denoise, schedule, xt, t, clip), xt, t, variance)

    return reverse


def q_path(diffusion, x0, noise):
    """[x_0, x_1, ..., x_T], each step drawn with noise(t): what `sample` of the diffusion's distributions takes. (E1)"""
    path = [x0]
    for t in range(1, diffusion.T + 1):
        path.append(diffusion.transition(path[-1], t).sample(noise(t)))
    return path


def check_path(diffusion, path):
    """Raise ValueError unless the path has the states x_0..x_T of the diffusion."""
    if len(path) != diffusion.T + 1:
        raise ValueError(f"a path of T = {diffusion.T} steps has {diffusion.T + 1} states, got {len(path)}")


def denoising_form(diffusion, reverse, path):
    """L_T + sum_{t=2..T} L_{t-1} + L_0: the form that is trained. (Ho et al. 2020 eq. 5; E14)"""
    x0, T = path[0], diffusion.T
    prior = diffusion.marginal(x0, T).kl(diffusion.prior(x0))
    reconstruction = -reverse(path[1], 1).log_prob(x0)
    return prior + denoising_sum(diffusion, reverse, path) + reconstruction  # E14


def denoising_sum(diffusion, reverse, path):
    """sum_{t=2..T} KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at the x_t of the path."""
    check_path(diffusion, path)
    x0, total = path[0], 0.0
    for t in range(2, diffusion.T + 1):
        total = total + diffusion.posterior(x0, path[t], t).kl(reverse(path[t], t))
    return total


def consistency_form(diffusion, reverse, path):
    """The bound by how well p(x_t | x_{t+1}) agrees with q(x_t | x_{t-1}). (Luo 2022, corrected; E15)

    Given both its neighbours on the path, x_t follows the bridge between them: the inner expectation is over that.
    """
    total = consistency_ends(diffusion, reverse, path)
    for t in range(1, diffusion.T):
        bridge = diffusion.bridge(path[t - 1], path[t + 1], t)
        model, step = reverse(path[t + 1], t + 1), diffusion.transition(path[t - 1], t)
        total = total + bridge.cross_entropy(model) - bridge.cross_entropy(step)  # E15
    return total


def misprinted_form(diffusion, reverse, path):
    """The consistency form as printed, NOT the bound: it takes x_t as independent of x_{t+1}. (E15, errata.md)"""
    total = consistency_ends(diffusion, reverse, path)
    for t in range(1, diffusion.T):
        total = total + diffusion.transition(path[t - 1], t).kl(reverse(path[t + 1], t + 1))
    return total


def consistency_ends(diffusion, reverse, path):
    """-log p(x_0 | x_1) + KL(q(x_T | x_{T-1}) || p(x_T))."""
    check_path(diffusion, path)
    reconstruction = -reverse(path[1], 1).log_prob(path[0])
    return reconstruction + diffusion.transition(path[-2], diffusion.T).kl(diffusion.prior(path[-2]))


def misprint_excess(schedule, factor, variance):
    """The excess of `misprinted_form` over the bound, per dimension, for a linear Gaussian model. (E15)

    The model is p(x_{t-1} | x_t) = N(factor_t x_t + anything, variance_t I), tables of T + 1 entries. The
    excess at t + 1 is factor / variance times sqrt(alpha_{t+1}) beta_t, the covariance of x_t and x_{t+1} given
    x_{t-1}.
    """
    covariance = schedule.alpha[2:] ** 0.5 * schedule.beta[1:-1]
    return (factor[2:] * covariance / variance[2:]).sum()  # E15


def entropy_form(diffusion, reverse, path):
    """K: apart from `entropy_edge`, a lower bound of log p(x_0). (Sohl-Dickstein et al. 2015 eq. 14; E16)"""
    x0, T = path[0], diffusion.T
    entropies = diffusion.marginal(x0, T).entropy() - diffusion.marginal(x0, 1).entropy()
    return entropies - diffusion.prior(x0).entropy() - denoising_sum(diffusion, reverse, path)  # E16


def entropy_edge(diffusion, reverse, path):
    """-(the denoising form) - K = [log p(x_0|x_1) + H_q(x_1|x_0)] + [E_q log p(x_T) + H_p(x_T)]. (E16)"""
    x0, T = path[0], diffusion.T
    first = reverse(path[1], 1).log_prob(x0) + diffusion.marginal(x0, 1).entropy()
    last = diffusion.prior(x0).entropy() - diffusion.marginal(x0, T).cross_entropy(diffusion.prior(x0))
    return first + last  # E16


def path_form(diffusion, reverse, path):
    """log q(x_{1:T} | x_0) - log p(x_{0:T}) at the path itself: no expectation is taken exactly. (E17)"""
    check_path(diffusion, path)
    total = -diffusion.prior(path[-1]).log_prob(path[-1])
    for t in range(1, diffusion.T + 1):
        total = total + diffusion.transition(path[t - 1], t).log_prob(path[t])
        total = total - reverse(path[t], t).log_prob(path[t - 1])  # E17
    return total
