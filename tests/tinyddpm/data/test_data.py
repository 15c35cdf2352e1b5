"""What `load_data` returns under each name, what a Dataset accepts, and the way of grey levels to the model and back."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mirrors import Mirror, assert_is_tiny, empty_cache, tiny_source

from tinyddpm.data import images as data
from tinyddpm.data import load, mnist
from tinyddpm.data.download import NoMirrorError
from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.data.load import load_data

REAL = os.environ.get("TINYDDPM_DATA")


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    empty_cache(tmp_path, monkeypatch)


@pytest.fixture
def mnist_is_at(monkeypatch):
    """Let "mnist" be the tiny data set of these mirrors."""

    def at(*mirrors):
        source = tiny_source(*mirrors)
        monkeypatch.setitem(load.DATASETS, "mnist", lambda data_dir: mnist.load(source, data_dir))

    return at


def levels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ---- names ----


def test_auto_falls_back_on_drawn_digits_and_says_so_loudly(mnist_is_at, monkeypatch, capsys):
    mnist_is_at()
    glyphs = Data("glyphs", Dataset(levels(40, 28, 28)))
    monkeypatch.setitem(load.DATASETS, "glyphs", lambda data_dir: glyphs)
    assert load_data("auto") is glyphs
    said = capsys.readouterr().err
    assert "NOT MNIST" in said and "TINYDDPM_DATA" in said and "could not be downloaded" in said


def test_mnist_raises_where_it_cannot_be_had(mnist_is_at):
    mnist_is_at()
    with pytest.raises(NoMirrorError, match="could not be downloaded"):
        load_data("mnist")


def test_auto_takes_mnist_where_a_mirror_has_it(mnist_is_at, capsys):
    with Mirror() as mirror:
        mnist_is_at(mirror.url)
        assert_is_tiny(load_data("auto"))
    assert "NOT MNIST" not in capsys.readouterr().err


def test_glyphs_need_no_mirror_and_train_and_test_share_no_image():
    loaded = load_data("glyphs")
    assert (len(loaded.train), len(loaded.test), loaded.name, loaded.classes) == (20_000, 2_000, "glyphs", 10)
    assert loaded.image == (28, 28, 1)
    assert not {image.tobytes() for image in loaded.train.images} & {image.tobytes() for image in loaded.test.images}


def test_an_unknown_name_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(DataError, match="'fashion' is no file or folder, and no data set: .*glyphs.*fashion-mnist"):
        load_data("fashion")
    with pytest.raises(DataError, match="is no file or folder"):
        load_data(tmp_path / "mnist")


def test_a_data_set_is_added_by_one_entry(monkeypatch):
    monkeypatch.setitem(load.DATASETS, "noise", lambda data_dir: Data("noise", Dataset(levels(40, 8, 8))))
    assert load_data("noise").image == (8, 8, 1)


@pytest.mark.parametrize("name", ["glyphs", "mnist"])
def test_a_size_for_images_that_have_one_is_refused(name):
    with pytest.raises(DataError, match="size is for a folder of images"):
        load_data(name, size=(32, 32))


@pytest.mark.skipif(not REAL, reason="TINYDDPM_DATA names no directory with MNIST")
def test_the_real_mnist_is_accepted():
    real = load_data("mnist", data_dir=REAL)
    assert (real.name, real.classes, real.image) == ("mnist", 10, (28, 28, 1))
    for dataset, n, first in ((real.train, 60_000, [5, 0, 4, 1, 9]), (real.test, 10_000, [7, 2, 1, 0, 4])):
        assert dataset.images.shape == (n, 28, 28) and dataset.labels[:5].tolist() == first
        assert np.bincount(dataset.labels).min() > n / 12


# ---- a Dataset ----


def test_slices_masks_and_lists_choose_images_with_their_labels():
    dataset = Dataset(levels(5, 4, 6), [3, 1, 4, 1, 5])
    for rows in (slice(1, 4), [4, 0, 0], dataset.labels == 1, np.array([2]), slice(None, None, -1)):
        chosen = dataset[rows]
        np.testing.assert_array_equal(chosen.images, dataset.images[rows])
        np.testing.assert_array_equal(chosen.labels, dataset.labels[rows])
    assert dataset[:2].labels.dtype == np.int64 and len(dataset[:2]) == 2
    assert Dataset(levels(5, 4, 6))[1:].labels is None


def test_a_number_gives_one_image_and_its_label_so_a_dataset_can_be_iterated():
    dataset = Dataset(levels(3, 4, 6, 3), [7, 8, 9])
    image, label = dataset[-1]
    np.testing.assert_array_equal(image, dataset.images[2])
    assert label == 9 and [label for _, label in dataset] == [7, 8, 9]
    assert Dataset(levels(3, 4, 6))[0][1] is None


def test_a_dataset_says_what_it_is_and_prints_no_pixels():
    assert repr(Dataset(levels(5, 4, 6), np.arange(5))) == "<5 images of 4 x 6, labels>"
    assert repr(Dataset(levels(5, 4, 6, 3))) == "<5 images of 4 x 6 x 3, no labels>"


@pytest.mark.parametrize("rows", [5, -6, (slice(2), slice(2)), None, True, [[0, 1]], np.ones(4, bool), [0.5]])
def test_what_chooses_no_images_is_refused_and_never_crops_them(rows):
    with pytest.raises(IndexError):
        Dataset(levels(5, 4, 6))[rows]


def test_choosing_no_image_is_refused():
    with pytest.raises(DataError, match=r"N >= 1, got \(0, 4, 6\)"):
        Dataset(levels(5, 4, 6))[:0]


def test_a_grey_channel_of_its_own_is_dropped_and_layout_does_not_matter():
    images = levels(5, 4, 6)
    for same in (images[..., None], np.asfortranarray(images), images[::-1][::-1]):
        checked = Dataset(same).images
        np.testing.assert_array_equal(checked, images)
        assert checked.flags.c_contiguous


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (levels(5, 4, 6) / 255, r"must be an array of uint8.*got float64.*\(255 \* images\)"),
        (np.zeros((5, 4, 6), np.float32), "got float32"),
        (levels(5, 4, 6).astype(np.int64), "got int64"),
        (levels(5, 4, 6) > 99, "got bool"),
        ([[[0, 255]]], "got <class 'list'>"),
        (levels(4, 6), r"got \(4, 6\)"),
        (levels(32, 32, 3), r"got \(32, 32, 3\)"),  # one image in colour is no stack of 32 grey ones
        (levels(5, 3, 32, 32), r"got \(5, 3, 32, 32\)"),
        (levels(5, 32, 32, 4), r"got \(5, 32, 32, 4\)"),
        (levels(5, 32, 32, 2), r"got \(5, 32, 32, 2\)"),
        (levels(0, 4, 6), r"N >= 1, got \(0, 4, 6\)"),
        (levels(5, 0, 6), r"got \(5, 0, 6\)"),
        (levels(2, 5, 4, 6, 3), r"got \(2, 5, 4, 6, 3\)"),
    ],
)
def test_images_that_are_none_are_refused_with_the_reason(images, said):
    with pytest.raises(DataError, match=said):
        Dataset(images)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 2, 3], r"one for each of 5 images, got int64 \(4,\)"),
        ([0, 1, 2, 3, 4, 5], r"got int64 \(6,\)"),
        (3, r"got int64 \(\)"),
        (np.eye(5, dtype=int), r"got int64 \(5, 5\)"),
        ([0.0, 1, 2, 3, 4], "must be integers.* got float64"),
        ([0.9, 1, 2, 3, 4], "got float64"),
        ([True, False, True, False, True], "got bool"),
        (list("01234"), "got <U1"),
        ([0, 1, -1, 3, 4], r"must be in 0..65535, got -1..4"),
        ([0, 1, 2, 3, 65536], "must be in 0..65535, got 0..65536"),
        ([0, 1, 2, 3, 1 << 40], "got 0..1099511627776"),
        (np.array([0, 1, 2, 3, 2**64 - 1], np.uint64), "got 0..18446744073709551615"),
    ],
)
def test_labels_that_are_none_are_refused_with_the_reason(labels, said):
    with pytest.raises(DataError, match=said):
        Dataset(levels(5, 4, 6), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64, ">i4"])
def test_labels_of_any_integer_type_become_int64(dtype):
    assert Dataset(levels(2, 4, 6), [0, 65535]).labels.tolist() == [0, 65535]
    labels = Dataset(levels(5, 4, 6), np.array([0, 1, 2, 3, 99], dtype)).labels
    assert labels.dtype == np.int64 and labels.tolist() == [0, 1, 2, 3, 99]


# ---- Data ----


def test_classes_and_image_are_those_of_both_parts():
    train, test = Dataset(levels(5, 4, 6, 3), [0, 0, 1, 2, 2]), Dataset(levels(3, 4, 6, 3), [0, 0, 7])
    assert (Data("x", train, test).classes, Data("x", train, test).image) == (8, (4, 6, 3))
    assert Data("x", Dataset(levels(50, 4, 6))).classes == 0
    assert Data("x", Dataset(levels(50, 4, 6), np.zeros(50, int))).classes == 1


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (Dataset(levels(3, 4, 6), [0, 0, 1]), "differ in shape"),
        (Dataset(levels(3, 6, 4, 3), [0, 0, 1]), "differ in shape"),
        (Dataset(levels(3, 4, 6, 3)), "either both or neither must have labels"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(test, said):
    with pytest.raises(DataError, match=said):
        Data("x", Dataset(levels(5, 4, 6, 3), [0, 0, 1, 2, 2]), test)


def test_without_a_test_set_a_tenth_is_held_out_and_that_is_said(capsys):
    dataset = Dataset(levels(199, 4, 6), np.arange(199))
    split = Data("mine", dataset)
    assert (len(split.train), len(split.test)) == (180, 19)
    assert "mine: 19 of 199 images are held out for test" in capsys.readouterr().err
    together = np.concatenate([split.train.labels, split.test.labels])
    assert sorted(together) == list(range(199))
    for part in (split.train, split.test):
        np.testing.assert_array_equal(part.images, dataset.images[part.labels])
        assert (np.diff(part.labels) > 0).all()  # the order stays


def test_the_images_held_out_are_the_same_in_any_order():
    images = levels(200, 4, 6)
    one, other = Data("x", Dataset(images)), Data("x", Dataset(images[np.random.default_rng(1).permutation(200)]))
    assert {image.tobytes() for image in one.test.images} == {image.tobytes() for image in other.test.images}


def test_labels_that_go_round_in_tens_are_all_in_the_test_set():
    split = Data("x", Dataset(levels(1000, 4, 6), np.arange(1000) % 10))
    assert np.bincount(split.test.labels, minlength=10).min() >= 3


@pytest.mark.parametrize("n", [1, 2, 19])
def test_of_few_images_none_is_held_out_and_that_is_said(n, capsys):
    split = Data("mine", Dataset(levels(n, 4, 6)))
    assert len(split.train) == len(split.test) == n
    assert f"mine: {n} images are too few" in capsys.readouterr().err


def test_of_twenty_images_two_are_held_out():
    split = Data("mine", Dataset(levels(20, 4, 6)))
    assert (len(split.train), len(split.test)) == (18, 2)


def test_images_that_are_all_alike_can_be_split():
    split = Data("x", Dataset(np.zeros((50, 4, 6), np.uint8)))
    assert (len(split.train), len(split.test)) == (45, 5)


# ---- to the model and back ----


def test_every_grey_level_goes_to_the_model_and_comes_back():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    x = data.to_model(every)
    assert x.shape == (1, 16, 16, 1) and x.dtype == np.float32
    assert x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(x.ravel(), (2 * np.arange(256) / 255 - 1).astype(np.float32))
    np.testing.assert_array_equal(data.from_model(x), every)


@pytest.mark.parametrize("there", [data.to_model, data.to_bits])
@pytest.mark.parametrize("shape", [(3, 20, 36), (3, 20, 36, 3)])
def test_images_of_any_size_and_colour_keep_their_shape(shape, there):
    back = {data.to_model: data.from_model, data.to_bits: data.from_bits}[there]
    images = levels(*shape)
    x = there(images)
    assert x.shape == (*shape, 1)[:4] and x.dtype == np.float32
    assert back(x).shape == shape
    expected = images if there is data.to_model else np.where(images > 127, 255, 0)
    np.testing.assert_array_equal(back(x), expected)


@given(hnp.arrays(np.float32, (1, 4, 4, 1), elements=st.floats(-3, 3, width=32)))
def test_what_a_model_returns_becomes_the_nearest_grey_level(x):
    grey = data.from_model(x)
    assert grey.dtype == np.uint8 and grey.shape == (1, 4, 4)
    error = abs(data.to_model(grey) - x.clip(-1, 1))
    assert error.max() <= 1 / 255 + 1e-6  # half the distance of two levels, and float32


def test_a_bit_is_one_above_the_middle_of_the_grey_levels_and_white_on_the_way_back():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    bits = data.to_bits(every)
    assert bits.shape == (1, 16, 16, 1) and bits.dtype == np.float32
    np.testing.assert_array_equal(bits.ravel(), [0] * 128 + [1] * 128)
    np.testing.assert_array_equal(data.from_bits(bits).ravel(), [0] * 128 + [255] * 128)
    shades = data.from_bits(np.array([0.0, 0.2, 0.5, 1.0]).reshape(1, 2, 2, 1))
    np.testing.assert_array_equal(shades, [[[0, 51], [128, 255]]])


@pytest.mark.parametrize("function", [data.to_model, data.to_bits])
@pytest.mark.parametrize("images", [np.zeros((2, 28, 28)), np.zeros((28, 28), np.uint8)])
def test_what_is_no_stack_of_images_is_refused(images, function):
    with pytest.raises(ValueError, match="uint8"):
        function(images)


@pytest.mark.parametrize(
    "x", [np.zeros((2, 28, 28, 1), np.uint8), np.zeros((2, 28, 28)), np.full((1, 1, 1, 1), np.nan)]
)
@pytest.mark.parametrize("function", [data.from_model, data.from_bits])
def test_other_shapes_integers_and_nan_are_refused(x, function):
    with pytest.raises(ValueError, match="x must be"):
        function(x)
