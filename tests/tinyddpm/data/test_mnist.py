"""The files of public data sets: the right arrays or a clear error, whatever lies in a directory, cache or mirror."""

import gzip
import time

import numpy as np
import pytest
from mirrors import FILES, IMAGES, LABELS, Mirror, assert_is_tiny, empty_cache, idx, tiny_source

from tinyddpm.data import download, load, mnist
from tinyddpm.data.download import NoMirrorError
from tinyddpm.data.images import DataError


def put(directory, gzipped=True, **changed):
    """Write the tiny files into `directory`; `changed` has other bytes by short name, None for no file."""
    for name, content in FILES.items():
        written = {"images": IMAGES, "labels": LABELS}
        content = gzip.compress(content) if gzipped else content
        for short, other in changed.items():
            content = other if written[short] == name else content
        if content is not None:
            (directory / (name + ".gz" * gzipped)).write_bytes(content)


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    empty_cache(tmp_path, monkeypatch)


@pytest.fixture
def mirror():
    with Mirror() as server:
        yield server


def error_of(kind=DataError, data_dir=None, source=None):
    with pytest.raises(kind) as error:
        mnist.load(source or tiny_source(), data_dir)
    return str(error.value)


# ---- a directory ----


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("inside", ["", "tiny"])
@pytest.mark.parametrize("through", ["argument", "environment"])
def test_a_directory_that_was_asked_for_is_read(tmp_path, monkeypatch, inside, gzipped, through):
    (tmp_path / inside).mkdir(exist_ok=True)
    put(tmp_path / inside, gzipped)
    if through == "environment":
        monkeypatch.setenv("TINYDDPM_DATA", str(tmp_path))
    assert_is_tiny(mnist.load(tiny_source(), str(tmp_path) if through == "argument" else None))


def test_the_argument_comes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYDDPM_DATA", str(tmp_path / "absent"))
    put(tmp_path)
    assert_is_tiny(mnist.load(tiny_source(), str(tmp_path)))


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (None, f"{IMAGES}.gz, nor the same without .gz"),
        (b"", "not an idx file of shape (5, 28, 28): begins ,"),
        (FILES[IMAGES][:10], "not an idx file of shape (5, 28, 28)"),
        (FILES[IMAGES][:-1], "holds 3935 bytes, expected 3936"),
        (FILES[IMAGES] + b"x", "holds at least 3937 bytes, expected 3936"),
        (gzip.compress(FILES[IMAGES] + b"xyz"), "holds at least 3937 bytes, expected 3936"),
        (gzip.compress(FILES[IMAGES])[:1000], "cut short after 1000 compressed bytes"),
        (b"<html>not found</html>", "begins 3c68746d"),
        (FILES[LABELS] + bytes(50), "begins 00000801"),
        (idx(np.zeros((4, 28, 28), np.uint8)), "begins 000008030000000400"),
        (flipped(FILES[IMAGES], 2000), "not the published contents: SHA-256 is"),
    ],
)
@pytest.mark.parametrize("name", ["mnist", "auto"])
def test_what_is_wrong_with_a_file_that_was_asked_for_is_said_and_nothing_else_is_tried(
    tmp_path, monkeypatch, mirror, images, said, name
):
    put(tmp_path, images=images)
    source = tiny_source(mirror.url)
    monkeypatch.setitem(load.DATASETS, "mnist", lambda data_dir: mnist.load(source, data_dir))
    with pytest.raises(DataError) as error:
        load.load_data(name, tmp_path)
    assert said in str(error.value) and str(tmp_path) in str(error.value)
    assert not mirror.asked and not (tmp_path / "cache").exists()


def test_a_flipped_bit_in_a_gz_file_is_an_error_or_harmless(tmp_path):
    compressed = gzip.compress(FILES[LABELS])
    for at in range(len(compressed)):
        put(tmp_path, labels=flipped(compressed, at))
        try:
            assert_is_tiny(mnist.load(tiny_source(), tmp_path))
        except DataError as error:
            assert LABELS in str(error)


def test_a_directory_that_is_not_there_is_an_error(tmp_path):
    assert f"there is no {tmp_path / 'absent' / IMAGES}.gz" in error_of(data_dir=tmp_path / "absent")


# ---- mirrors ----


def test_all_files_are_downloaded_once_and_then_read_from_the_cache(tmp_path, mirror):
    assert_is_tiny(mnist.load(tiny_source(mirror.url)))
    assert sorted(mirror.asked) == sorted(f"/{name}.gz" for name in FILES)
    assert_is_tiny(mnist.load(tiny_source()))
    assert {entry.name for entry in (tmp_path / "cache").iterdir()} == {f"{name}.gz" for name in FILES}


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("404", "HTTP Error 404"),
        ("hang", "timed out"),
        ("hang half way", "timed out"),
        ("half", "cut short"),
        ("other pixels", "SHA-256"),
        ("half without a length", "cut short"),
        ("a page", "not an idx file"),
        ("endless", "too long"),
        ("trickle", "too slow"),
        ("no http", ""),
    ],
)
def test_a_failing_mirror_is_left_for_the_next_and_leaves_the_cache_empty(tmp_path, mirror, behaviour, said):
    with Mirror(behaviour) as bad:
        options = {"timeout": 0.2, "patience": 0.5}
        start = time.monotonic()
        message = error_of(NoMirrorError, source=tiny_source(bad.url, **options))
        assert time.monotonic() - start < 10  # a mirror may take a second here, never as long as it likes
        assert bad.url in message and said in message
        assert not (tmp_path / "cache").exists()
        assert_is_tiny(mnist.load(tiny_source(bad.url, mirror.url, **options)))


def test_what_each_mirror_said_is_in_the_error(mirror):
    with Mirror("404") as absent:
        closed = "http://127.0.0.1:9/"
        message = error_of(NoMirrorError, source=tiny_source(closed, absent.url))
    assert closed in message and "refused" in message.lower()
    assert absent.url in message and "404" in message


def test_a_mirror_is_not_asked_again_after_it_failed(mirror):
    with Mirror("404") as bad:
        mnist.load(tiny_source(bad.url, mirror.url))
        assert len(bad.asked) == 1


def test_a_damaged_file_in_the_cache_is_said_to_be_and_fetched_again(tmp_path, mirror, capsys):
    (tmp_path / "cache").mkdir()
    put(tmp_path / "cache", images=gzip.compress(FILES[IMAGES])[:99])
    assert_is_tiny(mnist.load(tiny_source(mirror.url)))
    said = capsys.readouterr().err
    assert "cut short after 99" in said and "fetched again" in said
    assert mirror.asked == [f"/{IMAGES}.gz"]
    mirror.asked.clear()
    assert_is_tiny(mnist.load(tiny_source(mirror.url)))
    assert not mirror.asked


def test_a_cache_that_cannot_be_written_is_named(tmp_path, mirror):
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert str(tmp_path / "cache") in error_of(OSError, source=tiny_source(mirror.url))


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "{base}/tinyddpm/mnist"),
        ("linux", None, "{home}/.cache/tinyddpm/mnist"),
        ("darwin", None, "{home}/Library/Caches/tinyddpm/mnist"),
        ("win32", "LOCALAPPDATA", "{base}/tinyddpm/mnist"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_caches(tmp_path, monkeypatch, platform, variable, expected):
    monkeypatch.undo()
    monkeypatch.setattr(download.sys, "platform", platform)
    monkeypatch.setattr(download.Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "base"))
    expected = expected.format(home=tmp_path / "home", base=tmp_path / "base")
    assert download.cache_directory("mnist") == download.Path(expected)


# ---- the data sets that have mirrors ----


def test_every_source_has_a_name_mirrors_and_four_digests():
    for source in mnist.SOURCES:
        assert load.DATASETS[source.name].args == (source,)
        assert len(source.mirrors) > 1 and all(url.endswith("/") for url in source.mirrors)
        digests = [decode.args[1] for _, decode in source.files.values()]
        assert len(set(digests)) == 4 and all(len(bytes.fromhex(digest)) == 32 for digest in digests)


def test_mnists_digits_are_not_taken_for_fashion(tmp_path):
    put(tmp_path)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz: not an idx file of shape"):
        load.load_data("fashion-mnist", tmp_path)
