"""The Markovian hierarchical VAE: one bound for every Markov encoder and decoder. (Luo 2022; E34)

Encoders turn the data x = z_0 into z_1, ..., z_T, layer by layer; decoders go back. T = 1 is a VAE; diffusion is the
case of fixed encoders. A layer is a function from a batch (N, ...) to the distribution of another batch: an object
with `sample(noise)` and `log_prob(x) -> (N,)`, such as `Gaussian` or `Bernoulli`. Layers may hold tensors, and
learn; they may differ in size. Next: binomial.py.
"""

from functools import partial

from tinyddpm.gaussian import STANDARD_NORMAL, Gaussian

__all__ = ["hierarchical_bound", "vae_bound", "linear_gaussian", "diffusion_layers"]


def hierarchical_bound(encoders, decoders, x, noise, prior=STANDARD_NORMAL):
    """log q(z_{1:T} | x) - log p(x, z_{1:T}) on one path drawn from q: (N,), in nats. (Luo 2022; E34)

    Its mean over paths is an upper bound on -log p(x) for any layers. If q is the decoder's exact posterior, every
    path gives -log p(x). encoders: [q(z_1 | x), ..., q(z_T | z_{T-1})]; decoders: [p(x | z_1), ..., p(z_{T-1} | z_T)];
    prior: p(z_T); noise(t): the argument of layer t's `sample`. Raises ValueError unless there are as many decoders
    as encoders, at least one.
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
    """KL(q(z | x) || p(z)) - log p(x | z), z drawn from q with `noise`: (N,), in nats. (Kingma & Welling 2014; E34)

    It has the mean of `hierarchical_bound` at T = 1; the part of the expectation that is a KL is exact here.
    """
    q = encoder(x)
    return q.kl(prior) - decoder(q.sample(noise)).log_prob(x)  # E34


def linear_gaussian(weight, offset, variance):
    """The layer z -> N(z weight + offset, variance). z: (N, d); weight: (d, e); offset, variance: (e,).

    Raises ValueError for other shapes, of z when the layer is called.
    """
    if len(weight.shape) != 2 or not tuple(offset.shape) == tuple(variance.shape) == tuple(weight.shape[1:]):
        shapes = ", ".join(str(tuple(a.shape)) for a in (weight, offset, variance))
        raise ValueError(f"weight, offset and variance must have shapes (d, e), (e,) and (e,), got {shapes}")

    def layer(z):
        if len(z.shape) != 2 or z.shape[1] != weight.shape[0]:
            raise ValueError(f"the layer takes z of shape (N, {weight.shape[0]}), got {tuple(z.shape)}")
        return Gaussian(z @ weight + offset, variance)

    return layer


def diffusion_layers(diffusion, reverse):
    """(encoders, decoders) of a diffusion and a model `reverse(xt, t)`, both as in bound_forms.py. (Luo 2022; E34)

    A variational diffusion model is the hierarchy under three constraints: latents are as large as the data, encoders
    are fixed, and the last latent has a known law. Its bound is the path form, with the mean of E14.
    """
    steps = range(1, diffusion.T + 1)
    return [partial(diffusion.transition, t=t) for t in steps], [partial(reverse, t=t) for t in steps]
