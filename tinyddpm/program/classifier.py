"""The classifier that judges samples. It is trained here, on the data's labels, and kept in the cache. Next: judge.py.

Inception, by whose features the FID compares images, was trained on photographs. To it, all digits look nearly alike.
"""

import hashlib
from pathlib import Path

import numpy as np

import nn
from tinyddpm.data.download import cache_directory
from tinyddpm.data.files import check_folder
from tinyddpm.data.images import to_model
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.data.progress import say
from tinyddpm.program import checkpoint
from tinyddpm.program.compute import enough_memory

__all__ = ["Classifier", "classifier_of", "train_classifier", "shifted", "features_and_probabilities"]

BATCH, STEPS, EPOCHS = 64, 2812, 100  # as many steps as three epochs of MNIST, but at most so many epochs


class Classifier(nn.Module):
    """Three levels of two 3x3 convolutions with group norm and silu, averaged to `features`, and from them the logits.

    image: (H, W, C). It is called with x (N, H, W, C), a Tensor in [-1, 1], and returns logits (N, classes).
    """

    def __init__(self, image, classes, width=24, seed=0):
        rng, inputs = np.random.default_rng(seed), image[2]
        self.blocks = []
        for outputs in (width, 2 * width, 4 * width):
            for _ in range(2):
                self.blocks.append([nn.Conv2d(inputs, outputs, rng=rng), nn.GroupNorm(outputs, silu=True)])
                inputs = outputs
        self.logits = nn.Linear(inputs, classes, rng=rng)

    def features(self, x):
        """(N, 4 width): the numbers that the logits are computed from."""
        _, height, width, _ = x.shape
        around = [(-size % 8 // 2, (-size % 8 + 1) // 2) for size in (height, width)]  # sizes that halve three times
        x = nn.pad(x, ((0, 0), *around, (0, 0)))
        for i, (conv, norm) in enumerate(self.blocks):
            x = norm(conv(x))
            x = nn.average_pool(x) if i % 2 else x
        return x.mean(axis=(1, 2))

    def __call__(self, x):
        return self.logits(self.features(x))


def classifier_of(data, compute, progress=progress_bar):
    """The trained Classifier of a labelled `Data`, on the device of `compute`: from the user's cache, or trained.

    Its file is named after a checksum of the training set and of this source file: when either changes, a new
    classifier is trained. OSError, before that, where the cache cannot be written.
    """
    digest = hashlib.sha256(f"{data.image} {data.classes}".encode())
    for part in (Path(__file__).read_bytes(), data.train.images, data.train.labels):
        digest.update(part)
    path = cache_directory("classifiers") / f"{digest.hexdigest()[:32]}.npz"
    model = Classifier(data.image, data.classes).to(compute.xp)
    try:
        return model.load_state_dict(checkpoint.load(path)[0])
    except (checkpoint.CheckpointError, ValueError) as error:
        if path.exists():
            say(f"{error}\nThat is in the cache, so the classifier is trained again.")
    check_folder(path.parent)
    train_classifier(model, data.train, compute, progress=progress)
    checkpoint.save(path, {name: nn.to_numpy(array) for name, array in model.state_dict().items()}, {})
    return model


def train_classifier(model, dataset, compute, steps=None, seed=0, progress=progress_bar):
    """Adam on the cross entropy, at a rate that falls as a cosine. steps: by default STEPS, or EPOCHS if they are fewer.

    Each image is moved by up to two pixels (a fourteenth of a small image), so that places are not learned by heart.
    """
    rng, n = np.random.default_rng(seed), len(dataset)
    steps = min(STEPS, EPOCHS * -(-n // BATCH)) if steps is None else steps
    reach = min(2, min(dataset.images.shape[1:3]) // 14)
    optimiser = nn.AdamW(model.parameters(), nn.rates.warmup(nn.rates.cosine(3e-3, steps), 50))
    for _ in progress(range(steps), desc="training the classifier that judges"):
        chosen = rng.integers(n, size=BATCH)
        x = nn.to_device(to_model(shifted(dataset.images[chosen], reach, rng)), compute.xp)
        _, gradient = compute.loss_and_gradient(8, _loss, model, x, dataset.labels[chosen])
        nn.clip_by_global_norm(gradient, 1.0)
        optimiser.step(gradient)


def shifted(images, reach, rng):
    """Each image (N, H, W[, C]) moved by up to `reach` pixels up or down, left or right; what comes in is black."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0))[: images.ndim])
    corners = rng.integers(0, 2 * reach + 1, (len(images), 2))
    return np.stack([image[y : y + height, x : x + width] for image, (y, x) in zip(padded, corners, strict=True)])


def _loss(model, x, labels):
    return nn.cross_entropy(model(nn.Tensor(x)), labels)


def features_and_probabilities(model, images, compute, block=1000):
    """The features (N, F) of uint8 images, in float64, and the probabilities of the classes (N, K)."""
    found = []
    for start in range(0, len(images), block):
        x = nn.to_device(to_model(images[start : start + block]), compute.xp)
        with enough_memory("judging", len(x)):
            found.append(nn.to_numpy(compute.map(32, _features_and_probabilities, model, x)))
    found = np.concatenate(found).astype(np.float64)
    return np.split(found, [model.logits.weight.shape[0]], axis=1)


def _features_and_probabilities(model, x):
    features = model.features(nn.Tensor(x))
    return nn.concatenate([features, nn.softmax(model.logits(features))])
