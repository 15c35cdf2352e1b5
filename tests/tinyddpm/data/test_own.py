"""One's own images, from a .npy, a .npz or a folder: the very pixels, or the reason why not, before any training."""

import io
import zipfile

import numpy as np
import pytest

from tinyddpm.data.images import DataError
from tinyddpm.data.load import load_data

rng = np.random.default_rng(0)


def levels(*shape):
    return rng.integers(0, 256, shape, np.uint8)


def same_rows(data, images):
    """The images to train and to test on, in any order, are `images`."""
    found = np.concatenate([data.train.images, data.test.images])
    order = [np.lexsort(stack.reshape(len(stack), -1).T) for stack in (found, images)]
    np.testing.assert_array_equal(found[order[0]], images[order[1]])


# ---- arrays ----


@pytest.mark.parametrize("shape", [(2000, 32, 32, 3), (60, 20, 36), (60, 20, 36, 1)])
def test_a_npy_holds_images_grey_or_colour_square_or_not(tmp_path, shape):
    images = levels(*shape)
    np.save(tmp_path / "x.npy", images)
    data = load_data(tmp_path / "x.npy")
    assert data.name == str(tmp_path / "x.npy") and data.classes == 0 and data.image == (*shape[1:], 1)[:3]
    assert len(data.test) == shape[0] // 10
    same_rows(data, images.reshape(shape[:3] if shape[-1] == 1 else shape))


def test_a_path_may_be_a_string_and_is_absolute_afterwards(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", levels(20, 4, 6))
    monkeypatch.chdir(tmp_path)
    assert load_data("x.npy").name == str(tmp_path / "x.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_npz_holds_images_labels_and_a_test_set_of_its_own(tmp_path, save):
    images, labels, others = levels(7, 4, 6), np.arange(7, dtype=np.uint8), levels(3, 4, 6)
    save(tmp_path / "x.npz", images=images, labels=labels, test_images=others, test_labels=np.array([0, 8, 1]))
    data = load_data(tmp_path / "x.npz")
    np.testing.assert_array_equal(data.train.images, images)
    np.testing.assert_array_equal(data.train.labels, labels)
    np.testing.assert_array_equal(data.test.images, others)
    assert data.test.labels.tolist() == [0, 8, 1] and data.classes == 9


def test_a_npz_without_a_test_set_is_split_with_its_labels(tmp_path):
    images = levels(200, 4, 6)
    np.savez(tmp_path / "x.npz", images=images, labels=images[:, 0, 0])
    data = load_data(tmp_path / "x.npz")
    for part, n in ((data.train, 180), (data.test, 20)):
        assert len(part) == n
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": levels(5, 4, 6) / 255}, "got float64; floats in .0, 1. become that by"),
        ({"images": levels(0, 4, 6)}, "N >= 1"),
        ({"images": levels(5, 4, 6), "labels": np.arange(4)}, "one for each of 5 images"),
        ({"images": levels(5, 4, 6), "labels": np.arange(5) - 1}, "got -1..3"),
        ({"images": levels(5, 4, 6), "labels": np.arange(5) / 2}, "got float64"),
        ({"images": levels(5, 4, 6), "label": np.arange(5)}, "x.npz: label: may hold images, labels"),
        ({"images": levels(5, 4, 6), "test_labels": np.arange(5)}, "test_labels: may hold"),
        ({"images": levels(5, 4, 6), "labels": np.arange(5), "test_images": levels(5, 4, 6)}, "either both or neither"),
        ({"images": levels(5, 4, 6), "test_images": levels(5, 6, 4)}, "differ in shape"),
        ({"x_train": levels(5, 4, 6)}, "images"),
        ({"images": np.array([None] * 5)}, "allow_pickle"),
    ],
)
def test_what_is_wrong_with_a_npz_is_said_with_its_name(tmp_path, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=said):
        load_data(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.npy", b"", "x.npy: No data left"),
        ("x.npy", b"not an array", "x.npy: .*pickle"),
        ("x.npz", b"not a zip", "x.npz: .*pickle"),
        ("x.png", b"", "x.png: must be a .npy or a .npz"),
        ("images", b"", "images: must be a .npy or a .npz"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        load_data(tmp_path / name)


def test_python_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[[print]]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_data(tmp_path / "x.npy")


def test_two_arrays_in_one_npy_are_not_taken_for_one(tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        np.save(file, levels(20, 4, 6))
        np.save(file, levels(20, 4, 6))
    with pytest.raises(DataError, match="more follows the array"):
        load_data(tmp_path / "x.npy")


def damaged(content, how):
    """`content` cut, with a bit flipped, with a hole, or with a part twice."""
    at = int(how.integers(len(content)))
    kind = how.integers(4)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes([content[at] ^ 1 << how.integers(8)]) + content[at + 1 :]
    if kind == 2:
        return content[:at] + bytes(len(content[at : at + 30])) + content[at + 30 :]
    return content[:at] + content[at - 20 : at] + content[at:]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_refused_or_holds_the_same(tmp_path, save):
    images, file = levels(30, 4, 6), io.BytesIO()
    save(file, images=images, labels=np.arange(30))
    whole, how = file.getvalue(), np.random.default_rng(1)
    refused = 0
    for _ in range(150):
        (tmp_path / "x.npz").write_bytes(damaged(whole, how))
        try:
            same_rows(load_data(tmp_path / "x.npz"), images)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_damaged_npy_is_refused_unless_the_pixels_alone_differ(tmp_path):
    images, file = levels(30, 4, 6), io.BytesIO()
    np.save(file, images)
    whole, how = file.getvalue(), np.random.default_rng(2)
    for _ in range(150):
        (tmp_path / "x.npy").write_bytes(damaged(whole, how))
        try:
            data = load_data(tmp_path / "x.npy")
        except DataError:
            continue
        assert len(data.train) + len(data.test) == 30  # a .npy has no checksum


def test_a_flipped_bit_in_a_stored_array_is_found(tmp_path):
    np.savez(tmp_path / "x.npz", images=levels(30, 4, 6))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[zipfile.ZipFile(tmp_path / "x.npz").infolist()[0].header_offset + 400] ^= 4
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        load_data(tmp_path / "x.npz")


# ---- folders ----


Image = pytest.importorskip("PIL.Image")


def draw(folder, images, ending=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}{ending}")


@pytest.mark.parametrize("shape", [(500, 20, 36), (25, 32, 32, 3)])
@pytest.mark.parametrize("ending", [".png", ".BMP"])
def test_a_folder_of_images_grey_or_colour(tmp_path, shape, ending):
    images = levels(*shape)
    draw(tmp_path / "x", images, ending)
    data = load_data(tmp_path / "x")
    assert data.classes == 0 and data.image == (*shape[1:], 1)[:3] and data.name == str(tmp_path / "x")
    same_rows(data, images)


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path, capsys):
    for value, name in ((2, "frog"), (1, "dog"), (0, "cat")):
        draw(tmp_path / name, np.full((10, 4, 6), value, np.uint8))
    data = load_data(tmp_path)
    assert data.classes == 3
    for part in (data.train, data.test):
        np.testing.assert_array_equal(part.labels, part.images[:, 0, 0])
    assert "the classes are 0 cat, 1 dog, 2 frog" in capsys.readouterr().err


def test_one_sub_folder_is_no_class(tmp_path):
    draw(tmp_path / "cat", levels(20, 4, 6))
    assert load_data(tmp_path).classes == 0


@pytest.mark.parametrize("classes", [("",), ("a", "b")])
def test_folders_named_train_and_test_are_that(tmp_path, classes):
    images = levels(2, 5, 4, 6)
    for part, stack in zip(("train", "test"), images, strict=True):
        for name in classes:
            draw(tmp_path / part / name, stack)
    data = load_data(tmp_path)
    n = len(classes)
    np.testing.assert_array_equal(data.train.images, np.concatenate([images[0]] * n))
    np.testing.assert_array_equal(data.test.images, np.concatenate([images[1]] * n))
    assert data.classes == (0 if n == 1 else 2)


def test_train_and_test_of_other_classes_are_refused(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/c"):
        draw(tmp_path / name, levels(2, 4, 6))
    with pytest.raises(DataError, match=r"train holds the classes \['a', 'b'\], test holds \['a', 'c'\]"):
        load_data(tmp_path)


def test_sizes_that_differ_are_refused_with_the_list_of_them(tmp_path):
    draw(tmp_path, levels(3, 20, 36))
    draw(tmp_path / "y", levels(1, 36, 20))
    (tmp_path / "y" / "0000.png").rename(tmp_path / "y.png")
    (tmp_path / "y").rmdir()
    with pytest.raises(DataError, match=r"say size=\(H, W\).* 20x36 \(3 images\), 36x20 \(1 images\)"):
        load_data(tmp_path)


@pytest.mark.parametrize(("fit", "left"), [("crop", 255), ("stretch", 0)])
def test_a_size_crops_or_stretches_and_that_is_said(tmp_path, capsys, fit, left):
    image = np.full((1, 20, 40), 255, np.uint8)
    image[..., :9] = 0  # a crop to a square leaves this out, a stretch keeps it
    draw(tmp_path, image)
    data = load_data(tmp_path, size=(10, 10), fit=fit)
    assert data.image == (10, 10, 1) and abs(int(data.train.images[0, 5, 0]) - left) < 20
    assert f"made 10x10 by fit='{fit}' from 20x40 (1 images)" in capsys.readouterr().err


def test_a_size_that_the_images_have_changes_no_pixel(tmp_path):
    images = levels(20, 20, 36)
    draw(tmp_path, images)
    same_rows(load_data(tmp_path, size=(20, 36)), images)


@pytest.mark.parametrize("size", [28, (28,), (0, 28), (-1, 28), (28.0, 28.0), (28, 28, 1), "28", ("28", "28")])
def test_a_size_that_is_none_is_refused(tmp_path, size):
    draw(tmp_path, levels(1, 4, 6))
    with pytest.raises(DataError, match=r"size must be \(H, W\)"):
        load_data(tmp_path, size=size)


def test_an_unknown_fit_is_refused(tmp_path):
    draw(tmp_path, levels(1, 4, 6))
    with pytest.raises(DataError, match="fit must be one of crop, stretch, got 'zoom'"):
        load_data(tmp_path, size=(4, 4), fit="zoom")


def test_a_grey_image_among_coloured_ones_becomes_grey_in_colour(tmp_path):
    grey, colour = levels(1, 4, 6), levels(1, 4, 6, 3)
    draw(tmp_path / "x", grey)
    (tmp_path / "x" / "0000.png").rename(tmp_path / "x" / "a.png")
    draw(tmp_path / "x", colour)
    np.testing.assert_array_equal(
        load_data(tmp_path / "x").train.images, np.concatenate([colour, np.stack([grey] * 3, -1)])
    )


def test_an_image_is_turned_as_its_camera_held_it(tmp_path):
    pixels = levels(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(load_data(tmp_path).train.images[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_an_alpha_channel_without_transparency_is_dropped(tmp_path, mode):
    colour = np.stack([levels(4, 6)] * 3, -1)
    image = Image.fromarray(colour).convert(mode)
    image.save(tmp_path / "x.png")
    expected = image.convert("L" if mode == "LA" else "RGB")
    np.testing.assert_array_equal(load_data(tmp_path).train.images[0], np.asarray(expected))


def transparent(path):
    Image.fromarray(levels(4, 6, 4)).save(path)


def sixteen_bits(path):
    Image.fromarray(levels(4, 6).astype(np.uint16) * 256).save(path)


def animated(path):
    frames = [Image.fromarray(levels(4, 6)) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], format="GIF")


def cut(path):
    Image.fromarray(levels(40, 60)).save(path)
    path.write_bytes(path.read_bytes()[:500])


def text(path):
    path.write_text("this is no image")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (transparent, "transparent"),
        (sixteen_bits, "mode I;16, not 8 bits"),
        (animated, "an animation"),
        (cut, "truncated"),
        (text, "cannot identify"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path, make, said):
    draw(tmp_path, levels(3, 4, 6))
    make(tmp_path / "bad.png")
    with pytest.raises(DataError, match=f"bad.png: no image that can be used: .*{said}"):
        load_data(tmp_path)


def test_what_is_no_image_file_is_left_out_and_said(tmp_path, capsys):
    draw(tmp_path, levels(3, 4, 6))
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / ".hidden.png").write_text("")
    assert len(load_data(tmp_path).train) == 3
    assert "1 entries are left out, being no image files, such as notes.txt" in capsys.readouterr().err


def nothing(folder):
    folder.mkdir()


def no_images(folder):
    folder.mkdir()
    (folder / "notes.txt").write_text("")


def an_empty_class(folder):
    draw(folder / "a", levels(2, 4, 6))
    (folder / "b").mkdir()


def both(folder):
    draw(folder / "a", levels(2, 4, 6))
    draw(folder, levels(2, 4, 6))


def too_deep(folder):
    draw(folder / "a" / "b", levels(2, 4, 6))


@pytest.mark.parametrize("make", [nothing, no_images, an_empty_class, both, too_deep])
def test_a_folder_without_images_where_they_should_be_is_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(DataError, match="image files must lie in one folder, or some in each of its sub-folders"):
        load_data(tmp_path / "x")


def test_without_pillow_that_is_said(tmp_path, monkeypatch):
    draw(tmp_path, levels(3, 4, 6))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match="pip install pillow"):
        load_data(tmp_path)
