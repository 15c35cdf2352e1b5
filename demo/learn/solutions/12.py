"""The exercises of lesson 12: for each a check, an answer, and the mistake most often made."""

import tempfile
from pathlib import Path

import numpy as np

import tinyddpm as td

# ---- 1: levels ----


def check_1(levels):
    found = levels(np.array([[[0.0, 0.25, 0.999, 1.0]]]))
    assert found.dtype == np.uint8, f"uint8, and not {found.dtype}"
    assert found.ravel().tolist() == [0, 64, 255, 255], (
        f"{found.ravel()} where it is 0, 64, 255, 255: the nearest level"
    )


def answer_1(floats):
    return (255 * floats).round().astype(np.uint8)


def mistake_1(floats):
    return (255 * floats).astype(np.uint8)  # cuts off: every image gets darker


# ---- 2: a file ----


def check_2(pack):
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.npz"
        pack(path, images, np.arange(30) % 3)
        try:
            data = td.load_data(path)
        except ValueError as error:
            raise AssertionError(f"load_data refused it: {error}") from None
        assert data.classes == 3 and len(data.train) + len(data.test) == 30, "all images, with their labels"


def answer_2(path, images, labels):
    np.savez(path, images=images, labels=labels)


def mistake_2(path, images, labels):
    np.savez(path, images, labels)  # named arr_0 and arr_1


# ---- 3: classes ----


def check_3(numbered):
    found = numbered(["b", "a", "c", "b"])
    assert np.asarray(found).dtype.kind in "iu", "labels are integers"
    assert list(found) == [1, 0, 2, 1], f"{list(found)} where it is [1, 0, 2, 1]"


def answer_3(names):
    return np.unique(names, return_inverse=True)[1]


def mistake_3(names):
    order = list(dict.fromkeys(names))  # by first appearance: another order for every folder
    return np.array([order.index(name) for name in names])
