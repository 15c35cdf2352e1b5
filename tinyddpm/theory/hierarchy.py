"""The Markovian hierarchical VAE: one bound for every Markov encoder and decoder. (Luo 2022; E34)

x = z_0 is encoded layer by layer into z_1, ..., z_T, and decoded back; a VAE is T = 1, and diffusion is the
case of fixed encoders. A layer is a function from a batch (N, ...) to a distribution of another, any object
with `sample(noise)` and `log_prob(x) -> (N,)`: a `Gaussian`, a `Bernoulli`. All is made of operators, so that
layers may hold tensors, and learn; nothing asks the layers to be alike in size. Read continuous.py next.
"""

from functools import partial

from tinyddpm.forward import q_transition
from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian
from tinyddpm.theory.bound_forms import reverse_model

__all__ = ["hierarchical_bound", "vae_bound", "linear_gaussian", "diffusion_layers"]


def hierarchical_bound(encoders, decoders, x, noise, prior=STANDARD_NORMAL):
    """log q(z_{1:T} | x) - log p(x, z_{1:T}) on one path drawn from q: (N,), in nats. (S2 1.5.3; E34)

    Its mean over paths is at least -log p(x), whatever the layers, and is it if q is the decoder's posterior;
    then it does not vary either. encoders: [q(z_1 | x), ..., q(z_T | z_{T-1})]; decoders: [p(x | z_1), ...,
    p(z_{T-1} | z_T)]; noise(t): what layer t's `sample` takes. Raises ValueError if their numbers differ.
    """
    if not 1 <= len(encoders) == len(decoders):
        raise ValueError(f"every encoder needs its decoder, got {len(encoders)} and {len(decoders)} of them")
    z, total = x, 0.0
    for t, (encode, decode) in enumerate(zip(encoders, decoders, strict=True), start=1):
        q = encode(z)
        z_next = q.sample(noise(t))
        total = total + q.log_prob(z_next) - decode(z_next).log_prob(z)
        z = z_next
    return total - prior.log_prob(z)  # E34


def vae_bound(encoder, decoder, x, noise, prior=STANDARD_NORMAL):
    """KL(q(z | x) || p(z)) - log p(x | z), z drawn from q with `noise`: (N,). (S2 1.4; E34)

    `hierarchical_bound` of T = 1 with half of its expectation taken exactly: the same mean.
    """
    q = encoder(x)
    return q.kl(prior) - decoder(q.sample(noise)).log_prob(x)  # E34


def linear_gaussian(weight, offset, variance):
    """The layer z -> N(z weight + offset, variance). z: (N, d); weight: (d, e); offset, variance: (e,)."""
    return lambda z: Gaussian(z @ weight + offset, variance)


def diffusion_layers(schedule, denoise, variance="beta_tilde"):
    """(encoders, decoders) of diffusion, by the three constraints of a VDM: the mean of its bound is E14's.

    Latents are as large as the data; encoders are fixed and linear Gaussian; and the last latent is standard
    normal. denoise, variance: as in `p_mean_variance`. (S2 1.5.4-1.5.6; E34)
    """
    steps = range(1, schedule.T + 1)
    reverse = reverse_model(schedule, denoise, variance)
    return [partial(q_transition, schedule, t=t) for t in steps], [partial(reverse, t=t) for t in steps]
