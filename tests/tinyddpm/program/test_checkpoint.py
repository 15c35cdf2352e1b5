"""A checkpoint is what was saved, bit for bit, or it is refused: never something in between."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyddpm.data.files import write_atomically
from tinyddpm.program import checkpoint
from tinyddpm.program.checkpoint import CheckpointError

CONFIG = {"preset": "small", "steps": 1000, "widths": [16, 32], "lr": 3e-4, "label": None}


def small_arrays():
    rng = np.random.default_rng(0)
    return {
        "model/down.0.conv.weight": rng.standard_normal((3, 3, 1, 2)).astype(np.float32),
        "model/a": np.arange(5),
        "file": np.array([0.0, -0.0, np.nan, np.inf, 5e-324]),
        "step": np.int64(17),
        "empty": np.zeros((0, 4), np.float16),
    }


def assert_same(arrays, expected):
    assert list(arrays) == list(expected)
    for name, array in arrays.items():
        wanted = np.asarray(expected[name])
        assert array.dtype == wanted.dtype and array.shape == wanted.shape, name
        assert array.tobytes() == wanted.tobytes(), name


def refused(path, **options):
    with pytest.raises(CheckpointError) as error:
        checkpoint.load(path, **options)
    assert str(path) in str(error.value)
    return str(error.value)


def test_what_is_loaded_is_what_was_saved_in_the_order_it_was_saved(tmp_path):
    checkpoint.save(tmp_path / "c.npz", small_arrays(), CONFIG)
    arrays, config = checkpoint.load(tmp_path / "c.npz")
    assert_same(arrays, small_arrays())
    assert config == CONFIG
    assert all(array.flags.writeable for array in arrays.values())


@given(
    st.dictionaries(
        st.text("abz019./_-é", max_size=12),
        hnp.arrays(st.sampled_from("f4 f8 >f8 i8 u1 ? c16".split()), hnp.array_shapes(min_dims=0, min_side=0)),
    )
)
def test_any_names_and_any_plain_arrays_survive(tmp_path_factory, arrays):
    path = tmp_path_factory.getbasetemp() / "any.npz"
    checkpoint.save(path, arrays, {})
    assert_same(checkpoint.load(path)[0], arrays)


def test_memory_order_is_kept_so_that_a_resumed_product_takes_the_same_path(tmp_path):
    column_major = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    checkpoint.save(tmp_path / "c.npz", {"w": column_major, "strided": np.arange(9)[::2]}, {})
    arrays, _ = checkpoint.load(tmp_path / "c.npz")
    assert arrays["w"].flags.f_contiguous and not arrays["w"].flags.c_contiguous
    np.testing.assert_array_equal(arrays["w"], column_major)
    np.testing.assert_array_equal(arrays["strided"], [0, 2, 4, 6, 8])


def test_the_file_is_a_plain_npz_and_the_time_of_saving_is_not_in_it(tmp_path):
    checkpoint.save(tmp_path / "c.npz", small_arrays(), CONFIG)
    with np.load(tmp_path / "c.npz", allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["model/a"], small_arrays()["model/a"])
    with zipfile.ZipFile(tmp_path / "c.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# ---- damage ----


def same_or_refused(path, data, original):
    """Load `data`: True if it is refused, False if it is `original` all the same; anything else fails."""
    path.write_bytes(data)
    try:
        arrays, config = checkpoint.load(path)
    except CheckpointError:
        return True
    assert_same(arrays, original)
    assert config == CONFIG
    return False


def test_a_flip_of_any_bit_is_refused_or_changes_nothing(tmp_path):
    path, original = tmp_path / "c.npz", {"w": np.arange(3, dtype=np.float32), "step": np.int64(1)}
    checkpoint.save(path, original, CONFIG)
    data = path.read_bytes()
    for at in range(len(data)):
        for bit in range(8):
            same_or_refused(path, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], original)


def test_a_flip_in_the_contents_is_always_refused(tmp_path):
    path, weights = tmp_path / "c.npz", np.random.default_rng(1).standard_normal(50_000)
    checkpoint.save(path, {"w": weights}, CONFIG)
    data = path.read_bytes()
    first = data.index(weights.tobytes())
    for at in range(first, first + weights.nbytes, 7919):
        assert same_or_refused(path, data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :], {})


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, {"w": np.arange(3, dtype=np.float32), "step": np.int64(1)}, CONFIG)
    data = path.read_bytes()
    for length in range(len(data)):
        assert same_or_refused(path, data[:length], {}), f"{length} of {len(data)} bytes were accepted"


def test_what_is_missing_or_is_something_else_is_refused(tmp_path):
    assert "no such checkpoint" in refused(tmp_path / "absent.npz")
    np.savez(tmp_path / "foreign.npz", w=np.zeros(3))
    assert "not a checkpoint" in refused(tmp_path / "foreign.npz")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("config.json", '{"format": "something else", "version": 1}')
    assert "not a tinyddpm checkpoint" in refused(tmp_path / "other.npz")


def test_a_later_format_version_is_refused_by_number(tmp_path, monkeypatch):
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "VERSION", 2)
        checkpoint.save(tmp_path / "c.npz", {}, {})
    assert "version 2, not 1" in refused(tmp_path / "c.npz")


def test_a_pickle_is_neither_written_nor_read(tmp_path):
    with pytest.raises(TypeError, match="objects"):
        checkpoint.save(tmp_path / "c.npz", {"w": np.array([{}], dtype=object)}, {})
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        about = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, "arrays": ["w"], "config": {}}
        archive.writestr("config.json", json.dumps(about))
        with archive.open("w.npy", "w") as member:
            np.lib.format.write_array(member, np.array([{}], dtype=object))
    assert "allow_pickle=False" in refused(tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arrays", "config", "named"),
    [
        ({"w": [1, 2]}, {}, "w: .*list"),
        ({1: np.zeros(1)}, {}, "names"),
        ({}, {"x": np.zeros(1)}, "JSON"),
        ({}, {"x": float("nan")}, "JSON"),
        ({}, None, "config must be a dict"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path, arrays, config, named):
    with pytest.raises(TypeError, match=named):
        checkpoint.save(tmp_path / "c.npz", arrays, config)
    assert not list(tmp_path.iterdir())


# ---- a crash while writing ----


@pytest.mark.parametrize("fails", ["write", "rename"])
def test_an_exception_while_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, fails):
    (tmp_path / "f").write_bytes(b"old")
    if fails == "rename":
        monkeypatch.setattr(os, "replace", lambda source, target: 1 / 0)
    with pytest.raises(ZeroDivisionError), write_atomically(tmp_path / "f") as file:
        file.write(b"half of the n")
        if fails == "write":
            raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_process_killed_while_writing_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.npz"
    checkpoint.save(path, small_arrays(), CONFIG)
    killed = """if True:
        import os, sys
        import numpy as np
        from tinyddpm.program import checkpoint
        write = np.lib.format.write_array
        def write_then_die(file, array, **options):
            write(file, array, **options)
            file._fileobj.flush()
            os._exit(9)
        np.lib.format.write_array = write_then_die
        checkpoint.save(sys.argv[1], {"a": np.zeros(100_000), "b": np.zeros(9)}, {})
    """
    here = os.path.dirname(os.path.dirname(checkpoint.__file__))
    assert subprocess.run([sys.executable, "-c", killed, path], cwd=here).returncode == 9
    (part,) = tmp_path.glob(".*.part")
    assert part.stat().st_size > 800_000
    arrays, config = checkpoint.load(path)
    assert_same(arrays, small_arrays())
    assert config == CONFIG


def test_a_new_file_has_the_permissions_and_parents_any_new_file_would_have(tmp_path):
    with write_atomically(tmp_path / "deep" / "er" / "f") as file:
        file.write(b"x")
    (tmp_path / "usual").touch()
    assert (tmp_path / "deep" / "er" / "f").stat().st_mode == (tmp_path / "usual").stat().st_mode
