"""The gallery draws each of its pictures, and its page shows those and no others, all small enough to be opened anywhere."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyddpm as td
from tinyddpm.data import glyphs

pytest.importorskip("matplotlib", reason="the gallery is drawn by matplotlib: pip install matplotlib pillow")

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "inpainting": {"steps": 2, "repeats": (1, 2), "columns": 2},
    "interpolation": {"steps": 4, "columns": 2},
    "guidance": {"steps": 2, "count": 10},
    "coding": {"steps": 4, "count": 10, "shown": 2, "columns": 2},
}


@pytest.fixture(scope="module")
def gallery():
    sys.path.insert(0, str(ROOT / "demo" / "learn"))
    try:
        import gallery
    finally:
        sys.path.remove(str(ROOT / "demo" / "learn"))
    return gallery


@pytest.fixture(scope="module")
def model():
    return td.load(ROOT / "demo" / "page" / "digits.npz", workers=1)


@pytest.fixture(scope="module")
def large():
    return td.Dataset(*glyphs.draw(20))


@pytest.mark.parametrize("name", SIZES)
def test_a_picture_is_drawn_by_any_sizes(gallery, model, large, name):
    test = td.Dataset(gallery.halved(large.images), large.labels)
    figure = getattr(gallery, f"{name}_picture")(model, test, **SIZES[name])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_digits_are_enlarged_by_a_network_that_was_shown_the_small_ones(gallery, model, large):
    figure = gallery.enlarging_picture(model, large, large, training_steps=2, steps=2, columns=10)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_half_the_size_is_the_mean_of_four_pixels(gallery):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0, 0, :2] = 200
    assert gallery.halved(image)[0, 0, :2].tolist() == [100, 0]


def test_the_page_shows_the_pictures_that_are_there():
    page, folder = (ROOT / "docs" / "gallery.md").read_text("utf-8"), ROOT / "docs" / "gallery"
    shown = re.findall(r"\]\(gallery/([\w-]+\.png)\)", page)
    assert sorted(shown) == sorted(path.name for path in folder.iterdir())
    assert {Path(name).stem for name in shown} == {*SIZES, "coding-28x28", "enlarging"}
    assert all((folder / name).stat().st_size < 150_000 for name in shown)
