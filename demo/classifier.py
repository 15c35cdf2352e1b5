"""A digit classifier on `nn`, and a judge of samples: how many would it call a digit with certainty?

tinyddpm sample runs/mnist --n 1000 --labels 0,1,2,3,4,5,6,7,8,9 --out samples.npz
python demo/classifier.py --samples samples.npz
"""

import argparse

import numpy as np

import nn
from tinyddpm import load_data
from tinyddpm.data.files import write_atomically
from tinyddpm.data.images import to_model
from tinyddpm.data.progress import progress


class Classifier(nn.Module):
    """Three levels of 3x3 convolution, group norm and silu, averaged down to ten logits."""

    def __init__(self, rng, width=24):
        self.blocks, inputs = [], 1
        for outputs in (width, 2 * width, 4 * width):
            for _ in range(2):
                self.blocks.append([nn.Conv2d(inputs, outputs, rng=rng), nn.GroupNorm(outputs, silu=True)])
                inputs = outputs
        self.logits = nn.Linear(inputs, 10, rng=rng)

    def __call__(self, x):
        x = nn.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))  # 28 to 32, which halves three times
        for i, (conv, norm) in enumerate(self.blocks):
            x = norm(conv(x))
            x = nn.average_pool(x) if i % 2 else x
        return self.logits(x.mean(axis=(1, 2)))


def shifted(images, rng):
    """Each image moved by up to two pixels, so that the classifier does not learn positions by heart."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    moves = rng.integers(0, 5, (len(images), 2))
    return np.stack([image[y : y + 28, x : x + 28] for image, (y, x) in zip(padded, moves, strict=True)])


def train(model, data, epochs, batch=64, seed=0):
    """Adam with a cosine learning rate, on cross entropy."""
    rng, cores = np.random.default_rng(seed), nn.Parallel(shard=8)
    steps = epochs * len(data.images) // batch
    optimiser = nn.AdamW(model.parameters(), nn.rates.warmup(nn.rates.cosine(3e-3, steps), 50))
    for _ in progress(range(steps), desc="training the classifier"):
        chosen = rng.integers(len(data.images), size=batch)
        x = to_model(shifted(data.images[chosen], rng))
        _, gradient = cores.loss_and_gradient(loss, model, x, data.labels[chosen])
        nn.clip_by_global_norm(gradient, 1.0)
        optimiser.step(gradient)


def loss(model, x, labels):
    return nn.cross_entropy(model(nn.Tensor(x)), labels)


def softmax_of_logits(model, x):
    return nn.softmax(model(nn.Tensor(x)))


def probabilities(model, images):
    """softmax of the logits of uint8 images (N, 28, 28): (N, 10)."""
    return nn.Parallel(shard=32).map(softmax_of_logits, model, to_model(images))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", help=".npz written by `tinyddpm sample`, to be judged")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", default="classifier.npz", help="where the trained weights are kept")
    arguments = parser.parse_args()

    samples = None
    if arguments.samples:  # before the training: it may not be there
        with np.load(arguments.samples) as file:
            samples = dict(file)
    model, data = Classifier(np.random.default_rng(0)), load_data("auto")
    try:
        with np.load(arguments.weights) as state:
            model.load_state_dict(dict(state))
    except FileNotFoundError:
        with write_atomically(arguments.weights) as file:  # a name without .npz stays as it is
            train(model, data.train, arguments.epochs)
            np.savez(file, **model.state_dict())

    test = data.test
    p = probabilities(model, test.images)
    report("real test digits", p, test.labels)
    if samples is not None:
        report("samples", probabilities(model, samples["samples"]), samples.get("labels"))


def report(name, p, labels):
    """Print how sure the classifier is, and how often it agrees with the labels where there are any."""
    line = f"{name}: over 95% sure of {np.mean(p.max(axis=1) > 0.95):.1%} of {len(p)}"
    print(line if labels is None else f"{line}; agrees with {np.mean(p.argmax(axis=1) == labels):.2%} of the labels")


if __name__ == "__main__":
    main()
