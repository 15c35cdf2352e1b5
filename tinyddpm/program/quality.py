"""How alike two sets of images are: Frechet distance, precision and recall, nearest neighbours. Next: classifier.py.

Points are NumPy arrays (N, D), one row an image: its features or its pixels.
"""

import numpy as np

__all__ = ["moments", "frechet_distance", "precision_and_recall", "nearest"]

BLOCK = 1 << 24  # distances in memory at a time: 128 MB in float64


def moments(points):
    """The mean (D,) and the covariance (D, D) of points (N, D), N >= 2, in float64."""
    points = np.asarray(points, np.float64)
    return points.mean(axis=0), np.atleast_2d(np.cov(points, rowvar=False))


def frechet_distance(mean_a, covariance_a, mean_b, covariance_b):
    """The squared Frechet distance of two Gaussians, also called their squared 2-Wasserstein distance.

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)) (Dowson & Landau 1982; of features: Heusel et al. 2017).
    The last trace is the sum of the singular values of A^(1/2) B^(1/2). Between estimates from few points the distance
    is too large; it falls with their number.
    """
    apart = ((mean_a - mean_b) ** 2).sum()
    shared = np.linalg.norm(_square_root(covariance_a) @ _square_root(covariance_b), "nuc")
    return float(apart + np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared)


def _square_root(covariance):
    """The symmetric square root of a symmetric matrix; eigenvalues that rounding made negative count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(values.clip(0)) @ vectors.T


def precision_and_recall(real, drawn, k=3):
    """(precision, recall) of drawn points (M, D) against real ones (N, D) (Kynkaanniemi et al. 2019).

    Around each point lies a ball that reaches to its k-th nearest neighbour in its own set. Precision is the share of
    drawn points in a ball of a real one: do they look real? Recall is the share of real points in a ball of a drawn
    one: is every kind drawn? ValueError unless both sets have more than k points.
    """
    if min(len(real), len(drawn)) <= k:
        raise ValueError(f"there must be more than k = {k} points in each set, got {len(real)} and {len(drawn)}")
    real, drawn = np.asarray(real, np.float64), np.asarray(drawn, np.float64)
    return _covered(drawn, real, k), _covered(real, drawn, k)


def _covered(points, centres, k):
    """The share of points in a ball around any of the centres."""
    radii = [np.partition(squared, k, axis=1)[:, k] for squared in _squared_distances(centres, centres)]  # [0]: itself
    radii = np.concatenate(radii)
    return float(
        np.concatenate([(squared <= radii).any(axis=1) for squared in _squared_distances(points, centres)]).mean()
    )


def nearest(images, others):
    """For each of uint8 images (N, ...) the nearest of others (M, ...): its number (N,), and the distance to it (N,).

    The distance is Euclidean over pixels from 0, black, to 1, white.
    """
    a, b = (stack.reshape(len(stack), -1).astype(np.float32) for stack in (images, others))
    found = np.concatenate([squared.argmin(axis=1) for squared in _squared_distances(a, b)])
    return found, np.sqrt(((a - b[found]) ** 2).sum(axis=1)) / 255


def _squared_distances(a, b):
    """Arrays of |a_i - b_j|^2, each for all of b (M, D) and some rows of a (N, D), in order."""
    rows, length_b = max(1, BLOCK // len(b)), np.einsum("nd,nd->n", b, b)
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        yield (part**2).sum(axis=1)[:, None] + length_b - 2 * part @ b.T
