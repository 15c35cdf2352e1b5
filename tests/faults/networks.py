"""Random small networks, trained for three steps here and by PyTorch from the same weights: same losses, same weights.

python tests/faults/networks.py --networks 300 --seed 0
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import nn

sys.path.insert(0, str(Path(__file__).parent))

try:
    import peer
    import torch
    from torch.nn import functional as F
except ImportError:
    torch = None

warnings.filterwarnings("ignore", "Using padding='same' with even")  # PyTorch says that it is slow
STEPS = 3
# Adam divides by the size of the gradient: where that is nothing but rounding errors, epsilon must be larger.
TOLERANCE, EPSILON = {"float32": 1e-5, "float64": 1e-10}, {"float32": 1e-2, "float64": 1e-3}


class Network(nn.Module):
    """Images or tokens through drawn layers to one number for each sample."""

    def __init__(self, rng):
        choose = lambda *choices: choices[rng.integers(len(choices))]  # noqa: E731
        self.described, width = [], choose(2, 4, 6)
        self.vocabulary = choose(3, 5)
        self.embedding = nn.Embedding(self.vocabulary, width, rng=rng)
        self.layers = []
        for _ in range(rng.integers(1, 5)):
            kind = choose("linear", "conv", "group norm", "layer norm", "attention", "silu", "dropout")
            outputs = choose(2, 3, 4, 8, 9)
            if kind == "linear":
                layer, width = nn.Linear(width, outputs, rng=rng), outputs
            elif kind == "conv":
                options = {"size": choose(1, 2, 3, 4, 5), "stride": choose(1, 1, 2), "bias": choose(True, False)}
                layer, width = nn.Conv2d(width, outputs, rng=rng, **options), outputs
            elif kind == "group norm":
                layer = nn.GroupNorm(
                    width, choose(*(d for d in range(1, width + 1) if width % d == 0)), choose(True, False)
                )
            elif kind == "attention":
                layer = nn.Attention(width, choose(*(d for d in range(1, width + 1) if width % d == 0)), rng=rng)
            else:
                layer = {"layer norm": nn.LayerNorm(width), "silu": nn.silu, "dropout": nn.Dropout(0.25)}[kind]
            self.layers.append(layer)
        self.last = nn.Linear(width, 1, rng=rng)

    def __call__(self, index):
        x = self.embedding(index)
        for layer in self.layers:
            x = _call(layer, x, lambda layer, x: layer(x))
        return self.last(x).mean(axis=(1, 2, 3))


def _call(layer, x, call):
    """A layer on images; those that want tokens get the pixels as tokens."""
    if not isinstance(layer, nn.Attention):
        return call(layer, x)
    n, h, w, c = x.shape
    return call(layer, x.reshape(n, h * w, c)).reshape(n, h, w, c)


def forward_in_torch(network, weights, index):
    """`network(index)` by PyTorch. weights: {id of our Tensor: peer.Tensor}."""
    of = lambda layer: (weights[id(layer.weight)], None if layer.bias is None else weights[id(layer.bias)])  # noqa: E731

    def linear(layer, x):
        weight, bias = of(layer)
        return peer.Tensor(F.linear(x.torch, weight.torch.T, bias.torch))

    def call(layer, x):
        if isinstance(layer, nn.Linear):
            return linear(layer, x)
        if isinstance(layer, nn.Conv2d):
            weight, bias = of(layer)
            y = F.conv2d(
                x.torch.permute(0, 3, 1, 2),
                weight.torch.permute(3, 2, 0, 1).contiguous(),
                None if bias is None else bias.torch,
                padding="same",  # then a stride picks from the result
            )
            return peer.Tensor(y.permute(0, 2, 3, 1)[:, :: layer.stride, :: layer.stride])
        if isinstance(layer, nn.GroupNorm):
            return (peer.group_norm_silu if layer.silu else peer.group_norm)(x, *of(layer), layer.groups)
        if isinstance(layer, nn.LayerNorm):
            return peer.layer_norm(x, *of(layer))
        if isinstance(layer, nn.Dropout):
            return peer.dropout(x, layer.rate)
        if isinstance(layer, nn.Attention):
            n, length, channels = x.shape
            qkv = linear(layer.to_qkv, x).reshape(n, length, 3, layer.heads, channels // layer.heads)
            qkv = qkv.transpose(2, 0, 3, 1, 4)
            mixed = peer.attention(qkv[0], qkv[1], qkv[2]).transpose(0, 2, 1, 3).reshape(n, length, channels)
            return linear(layer.to_out, mixed)
        return peer.Tensor(F.silu(x.torch))

    x = peer.embedding(weights[id(network.embedding.weight)], index)
    for layer in network.layers:
        x = _call(layer, x, call)
    return linear(network.last, x).mean(axis=(1, 2, 3))


def optimisers(rng, parameters, peers, epsilon):
    """The same optimiser twice: (its name, ours, PyTorch's)."""
    rate = float(rng.choice([1e-3, 1e-2, 0.1]))
    options = {"betas": (float(rng.choice([0.0, 0.5, 0.9])), float(rng.choice([0.9, 0.99, 0.999])))}
    kind = rng.choice(["SGD", "Adam", "AdamW"])
    if kind == "SGD":
        momentum = float(rng.choice([0.0, 0.5, 0.9]))
        return kind, nn.SGD(parameters, rate, momentum), torch.optim.SGD(peers, rate, momentum)
    if kind == "Adam":
        return (
            kind,
            nn.Adam(parameters, rate, epsilon=epsilon, **options),
            torch.optim.Adam(peers, rate, eps=epsilon, **options),
        )
    options["weight_decay"] = float(rng.choice([0.0, 0.01, 0.5]))
    return (
        kind,
        nn.AdamW(parameters, rate, epsilon=epsilon, **options),
        torch.optim.AdamW(peers, rate, eps=epsilon, **options),
    )


def clip(parameters, limit):
    """PyTorch's own clip_grad_norm_ adds 1e-6 to the norm."""
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in parameters))
    for p in parameters:
        p.grad *= limit / max(norm, limit) if np.isfinite(limit) else 1


def trained(number, dtype):
    """Losses and weights after each step, ours and PyTorch's: two dicts by what they are."""
    rng = np.random.default_rng(number)
    network = Network(rng).astype(dtype)
    parameters = network.parameters()
    weights = {id(p): peer.Tensor(p.data, True) for p in parameters}
    theirs = [t.torch for t in weights.values()]
    n, h, w = rng.integers(1, 4), rng.integers(1, 6), rng.integers(1, 6)
    index, target = rng.integers(0, network.vocabulary, (n, h, w)), rng.standard_normal(n).astype(dtype)
    kind, optimiser, their_optimiser = optimisers(rng, parameters, theirs, EPSILON[dtype])
    limit = float(rng.choice([0.1, 1.0, np.inf]))
    found, expected = {}, {}
    for step in range(1, STEPS + 1):
        with nn.random_state(number, step, range(n)):
            loss = nn.mse(network(index), target)
        loss.backward()
        gradient = optimiser.gradient()
        nn.clip_by_global_norm(gradient, limit)
        optimiser.step(gradient)
        optimiser.zero_grad()

        with nn.random_state(number, step, range(n)):
            their_loss = peer.mse(forward_in_torch(network, weights, index), target)
        their_optimiser.zero_grad()
        their_loss.torch.backward()
        clip(theirs, limit)
        their_optimiser.step()

        what = f"network {number} in {dtype} by {kind}, step {step}: "
        found[f"{what}the loss"], expected[f"{what}the loss"] = loss.data, their_loss.data.copy()
        for name, p in network.named_parameters().items():
            found[what + name], expected[what + name] = p.data.copy(), weights[id(p)].data.copy()
    return found, expected


def difference(number):
    """What differs most in the network that `number` draws, as text; None if nothing does."""
    dtype = ("float32", "float64")[number % 2]
    found, expected = trained(number, dtype)
    errors = distances(found, expected)
    what = max(errors, key=errors.get)
    if errors[what] <= TOLERANCE[dtype]:
        return None
    if dtype == "float32":  # it may be the network that is sensitive: how far from float64 is PyTorch?
        exact = {key.replace("float64", dtype): value for key, value in trained(number, "float64")[1].items()}
        if max(distances(found, exact).values()) <= 30 * max(distances(expected, exact).values()):
            return None
    return f"{what} differs by {errors[what]:.1e} of its largest entry"


def distances(some, others):
    """The largest difference of each, as a share of the largest entry or of 1."""
    return {key: abs(some[key] - other).max() / max(1.0, abs(other).max()) for key, other in others.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if torch is None:
        print("networks are compared with PyTorch, which is not installed (extra 'bench')")
        return 0
    start, found = time.monotonic(), []
    for number in range(options.seed * 10**6, options.seed * 10**6 + options.networks):
        text = difference(number)
        if text:
            found.append(text)
            print(text, flush=True)
    print(f"{options.networks} networks: {len(found)} differences, {time.monotonic() - start:.0f} s")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
