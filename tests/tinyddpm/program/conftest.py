"""Runs that tests of the program start from."""

import numpy as np
import pytest
from small import OPTIONS, SQUARES

import tinyddpm as td


@pytest.fixture
def squares(tmp_path):
    """A file of images, as a user has it."""
    path, train, test = tmp_path / "squares.npz", SQUARES.train, SQUARES.test
    np.savez(path, images=train.images, labels=train.labels, test_images=test.images, test_labels=test.labels)
    return path


@pytest.fixture
def finished(squares, tmp_path):
    """The folder of a run of a few steps."""
    td.train(td.load_data(squares), steps=4, out=tmp_path / "run", **OPTIONS)
    return tmp_path / "run"


@pytest.fixture
def bits(squares, tmp_path):
    """The folder of a run of binomial diffusion."""
    td.train(td.load_data(squares), steps=2, out=tmp_path / "bits", diffusion="binomial", **OPTIONS)
    return tmp_path / "bits"
