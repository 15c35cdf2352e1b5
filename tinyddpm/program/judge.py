"""How good samples are, by a classifier and by the training images nearest to them. Next: run.py."""

import functools
from dataclasses import dataclass

import numpy as np

from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.data.progress import progress as progress_bar
from tinyddpm.program.classifier import classifier_of, features_and_probabilities
from tinyddpm.program.compute import Compute
from tinyddpm.program.quality import frechet_distance, moments, nearest, precision_and_recall

__all__ = ["Judge", "Judgement", "Measures", "as_seen", "read_samples"]

SURE = 0.95
K = 3  # a ball of precision and recall reaches to this neighbour


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of samples, and of real images beside them.

    distance: Frechet distance of the features to those of the test images, in percent of the variance of those, since
    each classifier has a scale of its own: 100 is that of one point at their mean. precision, recall: against as many
    test images. sure: the share of images for which a class has a probability over 0.95. agreement: the share whose
    most probable class is the label; NaN without labels. found (classes,): the share in which each class is found.
    class_sure, class_agreement (classes,): `sure` and `agreement` of the images labelled so (without labels: found
    so); NaN where there are none. apart (N,): each image's distance to the nearest training image, over pixels in 0..1.
    """

    distance: float
    precision: float
    recall: float
    sure: float
    agreement: float
    found: np.ndarray
    class_sure: np.ndarray
    class_agreement: np.ndarray
    apart: np.ndarray


class Judge:
    """judge(images, labels) -> `Judgement`, by the classifier of `data` (see `classifier_of`), which must have labels.

    What does not depend on the samples is computed once, so judge many sets of samples by one Judge. ValueError for data
    without labels, of one class, or with too few test images.
    """

    def __init__(self, data, compute=None, progress=progress_bar):
        if not isinstance(data, Data):
            raise TypeError(f"the data must be a Data, as load_data returns it, got {type(data).__name__}")
        if data.classes < 2 or len(data.test) <= K:
            raise ValueError(
                f"samples are judged by a classifier, which learns from labels of at least two classes, against more "
                f"than {K} test images; {data.name} has {data.classes} classes and {len(data.test)} test images"
            )
        self.data, self.compute = data, compute or Compute()
        self.classifier = classifier_of(data, self.compute, progress)
        self.features, self.probabilities = self._look(data.test.images)
        self.moments = moments(self.features)
        self.real = functools.cache(self._real)

    def __call__(self, images, labels=None):
        """Judge a Dataset, or uint8 images (N, H, W) or (N, H, W, 3), N >= 4, and their labels (N,) if there are any."""
        samples, data = images if isinstance(images, Dataset) else Dataset(images, labels), self.data
        if samples.images.shape[1:] != data.test.images.shape[1:] or len(samples) <= K:
            raise ValueError(f"the samples must be at least {K + 1} images like {data.test}, got {samples}")
        if samples.labels is not None and samples.labels.max() >= data.classes:
            raise ValueError(f"labels must be in 0..{data.classes - 1}, got {samples.labels.max()}")
        features, probabilities = self._look(samples.images)
        neighbours, apart = nearest(samples.images, data.train.images)
        drawn = Measures(*self._compared(features), *said(probabilities, samples.labels), apart)
        counts = min(len(samples), len(data.train)), len(data.test)
        return Judgement(drawn, self.real(len(samples)), *counts, samples.images, data.train.images[neighbours])

    def _real(self, n):
        """Measures of real images to stand beside those of n samples: see `Judgement`."""
        train, test = self.data.train, self.data.test
        floor = self._compared(self._look(some(train.images, n))[0])
        _, apart = nearest(some(test.images, n), train.images)
        return Measures(*floor, *said(self.probabilities, test.labels), apart)

    def _look(self, images):
        return features_and_probabilities(self.classifier, images, self.compute)

    def _compared(self, features):
        """The distance, precision and recall of these features against those of the test images."""
        n = min(len(features), len(self.features))
        balls = precision_and_recall(some(self.features, n), some(features, n), K)
        distance = frechet_distance(*moments(features), *self.moments)
        return 100 * distance / float(np.trace(self.moments[1])), *balls


def some(rows, n):
    """n of the rows, or all if they are fewer, always the same: MNIST's first test images are easier than its last."""
    return rows[np.random.default_rng(0).permutation(len(rows))[:n]]


def said(probabilities, labels):
    """(sure, agreement, found, class_sure, class_agreement), as in `Measures`, by probabilities (N, classes)."""
    best, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) > SURE
    agrees = np.full(len(best), np.nan) if labels is None else best == labels
    count = functools.partial(np.bincount, minlength=probabilities.shape[1])
    of = best if labels is None else labels
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no such image
        by_class = [count(of, weights=mark) / count(of) for mark in (sure, agrees)]
    return sure.mean(), agrees.mean(), count(best) / len(best), *by_class


@dataclass(frozen=True, eq=False)
class Judgement:
    """Measures of the samples beside those of real images, as `print` shows them.

    real: its distance, precision and recall are of `training` training images, the floor for as many samples; the rest
    is of `test` test images, `apart` of as many as there are samples. images, neighbours: the samples, and the
    training image nearest to each.
    """

    samples: Measures
    real: Measures
    training: int
    test: int
    images: np.ndarray
    neighbours: np.ndarray

    def __str__(self):
        a, b, near = self.samples, self.real, np.quantile(self.real.apart, 0.01)
        lines = [
            f"{len(self.images):,} samples, judged by a classifier that names {b.agreement:.2%} of the test images rightly",
            "(no FID: that takes a network trained on photographs, to which all digits look alike)",
            "                             samples     real",
            f"Frechet distance, %        {a.distance:9.2f}{b.distance:9.2f}   real: {self.training:,} training images",
            f"precision                  {a.precision:9.3f}{b.precision:9.3f}   the same",
            f"recall                     {a.recall:9.3f}{b.recall:9.3f}   the same",
            f"over {SURE:.0%} sure              {a.sure:9.3f}{b.sure:9.3f}   real: {self.test:,} test images",
            f"agrees with the label      {a.agreement:9.3f}{b.agreement:9.3f}   the same",
            f"nearest training image, median {np.median(a.apart):5.2f}{np.median(b.apart):9.2f}   real: test images",
            f"                      smallest {a.apart.min():5.2f}{b.apart.min():9.2f}   the same",
            f"                at most {near:5.2f}  {np.mean(a.apart <= near):5.3f}{np.mean(b.apart <= near):9.3f}   the same",
            "The distance is in % of the variance of the test images' features. It is larger between fewer images: compare",
            "equal numbers only.",
            "class    found     real     sure     real   agrees     real",
        ]
        columns = a.found, b.found, a.class_sure, b.class_sure, a.class_agreement, b.class_agreement
        for k, row in enumerate(zip(*columns, strict=True)):
            lines.append(f"{k:5d}" + "".join(f"{value:9.3f}" for value in row))
        return "\n".join(lines).replace("nan", "  -")

    __repr__ = __str__


def as_seen(model, data):
    """`data` as `model` sees it: a binomial model sees black and white."""

    def seen(dataset, block=1000):
        parts = [dataset.images[start : start + block] for start in range(0, len(dataset), block)]
        return Dataset(np.concatenate([model.pictures(model.x0(part)) for part in parts]), dataset.labels)

    return Data(data.name, seen(data.train), seen(data.test))


def read_samples(path):
    """The samples in a .npz of `tinyddpm sample`, and their labels if there are any, as a Dataset. DataError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Dataset(file["samples"], file["labels"] if "labels" in file else None)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for a damaged file
        raise DataError(f"{path}: not a .npz with `samples`, as `tinyddpm sample` writes it: {error}") from error
