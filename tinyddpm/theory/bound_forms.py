"""One bound, written four ways, each an estimate from whole paths x_0..x_T of the forward process. (E14-E17)

Here a model is any Markov chain of Gaussians, `reverse(xt, t) -> Gaussian` of x_{t-1}, t = 1..T, starting
from N(0, I); `reverse_model` makes one of a denoiser. Every form has the same mean over paths, for every
model; how much they vary differs. A path is the list [x_0, ..., x_T] that `q_path` draws. All results are
(N,), in nats.
"""

from tinyddpm.forward import q_bridge, q_marginal, q_posterior, q_step, q_transition
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian
from tinyddpm.reverse import p_mean_variance, predict_x0

__all__ = ["reverse_model", "q_path", "denoising_form", "consistency_form", "misprinted_form", "misprint_excess"]
__all__ += ["entropy_form", "entropy_edge", "path_form"]


def reverse_model(schedule, denoise, variance="beta_tilde", clip=None):
    """The chain `reverse(xt, t) -> Gaussian` of a denoiser, see `p_mean_variance`."""

    def reverse(xt, t):
        return p_mean_variance(schedule, predict_x0(denoise, schedule, xt, t, clip), xt, t, variance)

    return reverse


def q_path(schedule, x0, noise):
    """[x_0, x_1, ..., x_T] drawn one step after the other with noise(t), standard normal like x0. (E1)"""
    path = [x0]
    for t in range(1, schedule.T + 1):
        path.append(q_step(schedule, path[-1], t, noise(t)))
    return path


def denoising_form(schedule, reverse, path):
    """L_T + sum_{t=2..T} L_{t-1} + L_0: what is trained. (Ho et al. 2020 eq. 5; E14)"""
    x0, T = path[0], schedule.T
    prior = q_marginal(schedule, x0, T).kl(STANDARD_NORMAL)
    reconstruction = -reverse(path[1], 1).log_prob(x0)
    return prior + denoising_sum(schedule, reverse, path) + reconstruction  # E14


def denoising_sum(schedule, reverse, path):
    """sum_{t=2..T} KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) at the x_t of the path."""
    x0, total = path[0], 0.0
    for t in range(2, schedule.T + 1):
        total = total + q_posterior(schedule, x0, path[t], t).kl(reverse(path[t], t))
    return total


def consistency_form(schedule, reverse, path):
    """The bound by what p(x_t | x_{t+1}) makes of q(x_t | x_{t-1}): S2's equation 1.5.8. (E15)

    The inner expectation is over x_t given its neighbours on the path, which is the bridge between them.
    """
    total = consistency_ends(schedule, reverse, path)
    for t in range(1, schedule.T):
        bridge = q_bridge(schedule, path[t - 1], path[t + 1], t)
        model, step = reverse(path[t + 1], t + 1), q_transition(schedule, path[t - 1], t)
        total = total + bridge.cross_entropy(model) - bridge.cross_entropy(step)  # E15
    return total


def misprinted_form(schedule, reverse, path):
    """S2's equation 1.5.9, for show: it takes x_t as independent of x_{t+1}, and is NOT the bound. (E15)"""
    total = consistency_ends(schedule, reverse, path)
    for t in range(1, schedule.T):
        total = total + q_transition(schedule, path[t - 1], t).kl(reverse(path[t + 1], t + 1))
    return total


def consistency_ends(schedule, reverse, path):
    """-log p(x_0 | x_1) + KL(q(x_T | x_{T-1}) || p(x_T))."""
    reconstruction = -reverse(path[1], 1).log_prob(path[0])
    return reconstruction + q_transition(schedule, path[-2], schedule.T).kl(STANDARD_NORMAL)


def misprint_excess(schedule, factor, variance):
    """By how much `misprinted_form` exceeds the bound, per dimension, for a linear model. (E15)

    The model is p(x_{t-1} | x_t) = N(factor_t x_t + anything, variance_t I), tables of T + 1 entries. The
    excess is the covariance of x_t and x_{t+1} given x_{t-1}, sqrt(alpha_{t+1}) beta_t, times factor/variance
    at t + 1.
    """
    covariance = schedule.alpha[2:] ** 0.5 * schedule.beta[1:-1]
    return (factor[2:] * covariance / variance[2:]).sum()  # E15


def entropy_form(schedule, reverse, path):
    """K, a lower bound of log p(x_0) but for `entropy_edge`. (Sohl-Dickstein et al. 2015 eq. 14; E16)"""
    x0, T = path[0], schedule.T
    prior_entropy = Gaussian(0 * x0, 1.0).entropy()
    entropies = q_marginal(schedule, x0, T).entropy() - q_marginal(schedule, x0, 1).entropy() - prior_entropy
    return entropies - denoising_sum(schedule, reverse, path)  # E16


def entropy_edge(schedule, reverse, path):
    """-(the denoising form) - K = [log p(x_0|x_1) + H_q(x_1|x_0)] + [E_q log p(x_T) + H_p(x_T)]. (E16)"""
    x0, T = path[0], schedule.T
    first = reverse(path[1], 1).log_prob(x0) + q_marginal(schedule, x0, 1).entropy()
    last = Gaussian(0 * x0, 1.0).entropy() - q_marginal(schedule, x0, T).cross_entropy(STANDARD_NORMAL)
    return first + last  # E16


def path_form(schedule, reverse, path):
    """log q(x_{1:T} | x_0) - log p(x_{0:T}) at the path itself: nothing is integrated. (E17)"""
    total = -Gaussian(0 * path[-1], 1.0).log_prob(path[-1])
    for t in range(1, schedule.T + 1):
        total = total + q_transition(schedule, path[t - 1], t).log_prob(path[t])
        total = total - reverse(path[t], t).log_prob(path[t - 1])  # E17
    return total
