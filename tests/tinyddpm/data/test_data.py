"""What `load` returns under each name, and the way of grey levels to the model and back."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mirrors import Mirror, assert_is_tiny, empty_cache, tiny_source

from tinyddpm.data import images as data
from tinyddpm.data.mnist import NoMirrorError

REAL = os.environ.get("TINYDDPM_DATA")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    empty_cache(tmp_path, monkeypatch)


def test_auto_falls_back_on_drawn_digits_and_says_so_loudly(capsys):
    loaded = data.load("auto", "test", source=tiny_source())
    assert loaded.name == "glyphs" and len(loaded) == 2000
    said = capsys.readouterr().err
    assert "NOT MNIST" in said and "TINYDDPM_DATA" in said and "could not be downloaded" in said


def test_mnist_raises_where_it_cannot_be_had():
    with pytest.raises(NoMirrorError, match="could not be downloaded"):
        data.load("mnist", source=tiny_source())


def test_auto_takes_mnist_where_a_mirror_has_it(capsys):
    with Mirror() as mirror:
        loaded = data.load("auto", source=tiny_source(mirror.url))
    assert (loaded.name, loaded.classes, len(loaded)) == ("mnist", 10, 5)
    assert_is_tiny("train", (loaded.images, loaded.labels))
    assert "NOT MNIST" not in capsys.readouterr().err


def test_glyphs_need_no_mirror_and_train_and_test_share_no_image():
    train, test = (data.load("glyphs", split, source=tiny_source()) for split in data.SPLITS)
    assert (len(train), len(test), train.name, train.classes) == (20_000, 2_000, "glyphs", 10)
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}


@pytest.mark.parametrize(
    ("arguments", "accepted"), [(("fashion",), "auto, mnist, glyphs"), (("glyphs", "valid"), "train, test")]
)
def test_an_unknown_name_or_split_is_refused_with_those_there_are(arguments, accepted):
    with pytest.raises(ValueError, match=f"{accepted}, got '{arguments[-1]}'"):
        data.load(*arguments)


@pytest.mark.skipif(not REAL, reason="TINYDDPM_DATA names no directory with MNIST")
@pytest.mark.parametrize(
    ("split", "n", "first"), [("train", 60_000, [5, 0, 4, 1, 9]), ("test", 10_000, [7, 2, 1, 0, 4])]
)
def test_the_real_mnist_is_accepted(split, n, first):
    real = data.load("mnist", split, data_dir=REAL)
    assert real.images.shape == (n, 28, 28) and real.labels[:5].tolist() == first
    assert np.bincount(real.labels).min() > n / 12


# ---- to the model and back ----


def test_every_grey_level_goes_to_the_model_and_comes_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x = data.to_model(levels)
    assert x.shape == (1, 16, 16, 1) and x.dtype == np.float32
    assert x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(x.ravel(), (2 * np.arange(256) / 255 - 1).astype(np.float32))
    np.testing.assert_array_equal(data.from_model(x), levels)


@given(hnp.arrays(np.float32, (1, 4, 4, 1), elements=st.floats(-3, 3, width=32)))
def test_what_a_model_returns_becomes_the_nearest_grey_level(x):
    levels = data.from_model(x)
    assert levels.dtype == np.uint8 and levels.shape == (1, 4, 4)
    error = abs(data.to_model(levels) - x.clip(-1, 1))
    assert error.max() <= 1 / 255 + 1e-6  # half the distance of two levels, and float32


def test_a_bit_is_one_above_the_middle_of_the_grey_levels_and_white_on_the_way_back():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    bits = data.to_bits(levels)
    assert bits.shape == (1, 16, 16, 1) and bits.dtype == np.float32
    np.testing.assert_array_equal(bits.ravel(), [0] * 128 + [1] * 128)
    np.testing.assert_array_equal(data.from_bits(bits).ravel(), [0] * 128 + [255] * 128)
    shades = data.from_bits(np.array([0.0, 0.2, 0.5, 1.0]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(shades, [[[0, 51], [128, 255]]])


@pytest.mark.parametrize("function", [data.to_model, data.to_bits])
@pytest.mark.parametrize("images", [np.zeros((2, 28, 28)), np.zeros((28, 28), np.uint8)])
def test_what_is_no_stack_of_grey_images_is_refused(images, function):
    with pytest.raises(ValueError, match="uint8"):
        function(images)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 28, 28, 1), np.uint8),
        np.zeros((2, 28, 28)),
        np.zeros((2, 28, 28, 3)),
        np.full((1, 1, 1, 1), np.nan),
    ],
)
@pytest.mark.parametrize("function", [data.from_model, data.from_bits])
def test_other_shapes_integers_and_nan_are_refused(x, function):
    with pytest.raises(ValueError, match="x must be"):
        function(x)
