"""The drawn digits: each is the digit its label says, whole, MNIST-like, and always the same."""

import os

import numpy as np
import pytest

from tinyddpm.data import glyphs
from tinyddpm.data.load import load_data


@pytest.fixture(scope="module")
def drawn():
    return glyphs.draw(2000, seed=0)


def nearest_neighbour_accuracy(train, test):
    """Share of `test` whose nearest image in `train`, by squared distance, has the same label."""
    (a, a_labels), (b, b_labels) = train, test
    a, b = (images.reshape(len(images), -1).astype(np.float32) / 255 for images in (a, b))
    distance = (a * a).sum(1) - 2 * b @ a.T
    return (a_labels[distance.argmin(1)] == b_labels).mean()


def test_images_are_uint8_28x28_and_every_digit_comes_about_equally_often(drawn):
    images, labels = drawn
    assert images.shape == (2000, 28, 28) and images.dtype == labels.dtype == np.uint8
    counts = np.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert (abs(counts - 200) < 5 * np.sqrt(200 * 0.9)).all()  # five standard deviations of a fair draw


def test_labels_say_what_is_drawn(drawn):
    assert nearest_neighbour_accuracy(drawn, glyphs.draw(500, seed=1)) > 0.95


def test_they_resemble_mnist_closely_enough_to_read_mnist():
    if not os.environ.get("TINYDDPM_DATA"):
        pytest.skip("TINYDDPM_DATA names no directory with MNIST")
    mnist = load_data("mnist").test
    assert nearest_neighbour_accuracy(glyphs.draw(5000), (mnist.images[:1000], mnist.labels[:1000])) > 0.7


def test_each_digit_is_in_one_piece(drawn):
    """Flooding from one inked pixel reaches all the ink: no digit of the font is in two parts."""
    ink = np.pad(drawn[0][:500] > 64, ((0, 0), (1, 1), (1, 1)))
    flood = np.zeros_like(ink).reshape(len(ink), -1)
    flood[np.arange(len(ink)), ink.reshape(len(ink), -1).argmax(1)] = True
    flood = flood.reshape(ink.shape)
    for _ in range(150):
        for axis in (1, 2):
            flood |= (np.roll(flood, 1, axis) | np.roll(flood, -1, axis)) & ink
    assert (flood == ink).all((1, 2)).all()


def test_the_pen_does_not_draw_where_it_is_lifted():
    path = glyphs._path("0,0 10,0 | 0,10 10,10")
    np.testing.assert_allclose(abs(path[:, 1]), 0.5, atol=1e-6)
    assert (path[:, 1] < 0).sum() == (path[:, 1] > 0).sum()


def test_they_are_white_on_black_inside_a_black_frame_and_anti_aliased(drawn):
    images, _ = drawn
    assert not images[:, [0, -1], :].any() and not images[:, :, [0, -1]].any()
    assert (images.max((1, 2)) == 255).all()
    black, white = (images == 0).mean(), (images == 255).mean()
    assert 0.75 < black < 0.9 and white < black / 5
    assert 1 - black - white > 0.05


def test_they_are_about_20_pixels_large_and_in_the_middle(drawn):
    images = drawn[0].astype(float)
    rows, columns = images.any(2).sum(1), images.any(1).sum(1)
    assert np.maximum(rows, columns).min() >= 17 and np.maximum(rows, columns).max() <= 21
    at = np.arange(28) - 13.5
    total = images.sum((1, 2))
    for axis in (1, 2):
        centre = (images.sum(axis) * at).sum(1) / total
        assert abs(centre.mean()) < 0.2 and abs(centre).max() < 3


def test_image_i_depends_on_the_seed_and_i_alone(drawn):
    images, labels = glyphs.draw(300, seed=0)
    np.testing.assert_array_equal(images, drawn[0][:300])
    np.testing.assert_array_equal(labels, drawn[1][:300])
    assert (glyphs.draw(300, seed=1)[0] != images).any((1, 2)).all()


def test_no_two_images_are_the_same(drawn):
    assert len(np.unique(drawn[0].reshape(2000, -1), axis=0)) == 2000


def test_drawing_none_gives_empty_arrays():
    images, labels = glyphs.draw(0)
    assert images.shape == (0, 28, 28) and labels.shape == (0,)
