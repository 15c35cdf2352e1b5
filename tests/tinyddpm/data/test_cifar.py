"""CIFAR-10's archive: the right pixels in the right channel, read without unpacking it, or a clear error."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from mirrors import Mirror, empty_cache

from tinyddpm.data import cifar, load
from tinyddpm.data.images import DataError

NAME = "cifar-10-binary.tar.gz"
N = 4  # images in a part


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    empty_cache(tmp_path, monkeypatch)


def records(part):
    """Labels (N,) and pixels (N, 3, 32, 32), as an archive has them."""
    rng = np.random.default_rng(part)
    return rng.integers(0, 10, N, np.uint8), rng.integers(0, 256, (N, 3, 32, 32), np.uint8)


def archive():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for i, part in enumerate(["readme.html", *(f"{part}.bin" for part in cifar.PARTS)]):
            labels, pixels = records(i)
            content = np.concatenate([labels[:, None], pixels.reshape(N, -1)], axis=1).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{part}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


ARCHIVE = archive()


def source(*mirrors):
    return cifar.cifar_source(mirrors, len(ARCHIVE), hashlib.sha256(ARCHIVE).hexdigest())


def assert_right(data):
    assert (data.name, data.image, len(data.train), len(data.test)) == ("cifar10", (32, 32, 3), 5 * N, N)
    for dataset, parts in ((data.train, range(1, 6)), (data.test, [6])):
        labels, pixels = map(np.concatenate, zip(*map(records, parts), strict=True))
        np.testing.assert_array_equal(dataset.labels, labels)
        for channel in range(3):
            np.testing.assert_array_equal(dataset.images[..., channel], pixels[:, channel])


def test_an_archive_in_a_directory_is_read_and_nothing_is_unpacked(tmp_path):
    (tmp_path / NAME).write_bytes(ARCHIVE)
    assert_right(cifar.load(source(), tmp_path))
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_an_archive_is_downloaded_once(tmp_path):
    with Mirror(pages={f"/{NAME}": ARCHIVE}) as mirror:
        assert_right(cifar.load(source(mirror.url)))
        assert_right(cifar.load(source(mirror.url)))
        assert mirror.asked == [f"/{NAME}"]


@pytest.mark.parametrize("content", [b"", ARCHIVE[:-1], ARCHIVE[:99] + b"x" + ARCHIVE[100:], b"<html>"])
def test_other_contents_are_refused_before_they_are_unpacked(tmp_path, content):
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(DataError, match=f"{NAME}: not the published contents: {len(content)} bytes"):
        cifar.load(source(), tmp_path)


def test_load_data_takes_the_published_archive_only(tmp_path):
    (tmp_path / NAME).write_bytes(ARCHIVE)
    with pytest.raises(DataError, match="expected c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"):
        load.load_data("cifar10", tmp_path)
