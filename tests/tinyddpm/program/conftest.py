"""Runs that tests of the program start from."""

import shutil

import numpy as np
import pytest
from small import OPTIONS, SQUARES

import tinyddpm as td


def saved_squares(folder):
    """A file of images, as a user has it."""
    path, train, test = folder / "squares.npz", SQUARES.train, SQUARES.test
    np.savez(path, images=train.images, labels=train.labels, test_images=test.images, test_labels=test.labels)
    return path


@pytest.fixture
def squares(tmp_path):
    return saved_squares(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a run of a few steps, and one of binomial diffusion: tests get copies of them."""
    folder = tmp_path_factory.mktemp("trained")
    data = td.load_data(saved_squares(folder))
    td.train(data, steps=4, out=folder / "run", **OPTIONS)
    td.train(data, steps=2, out=folder / "bits", diffusion="binomial", **OPTIONS)
    return folder


@pytest.fixture
def finished(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


@pytest.fixture
def bits(trained, tmp_path):
    return shutil.copytree(trained / "bits", tmp_path / "bits")
