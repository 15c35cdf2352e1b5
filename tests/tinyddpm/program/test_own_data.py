"""Images of one's own through every command: colour and grey, square and not, from a file and from a folder."""

import numpy as np
import pytest

import tinyddpm as td
from tinyddpm.data.images import DataError
from tinyddpm.program import cli

Image = pytest.importorskip("PIL.Image", reason="a folder of images needs Pillow")
pytest.importorskip("matplotlib", reason="figures need matplotlib")

TINY = ["--preset", "tiny", "--batch", "8", "--timesteps", "4", "--workers", "1"]


def command(*words):
    return cli.main([str(word) for word in words])


def colour_file(folder):
    """40 colour images of 8 x 8 in a .npy, without labels."""
    path = folder / "colour.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8))
    return path, (8, 8, 3)


def grey_folder(folder):
    """40 grey images of 6 x 10 in a folder, in two sub-folders that are their labels."""
    rng = np.random.default_rng(0)
    for i in range(40):
        path = folder / "grey" / "ab"[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 10), dtype=np.uint8)).save(path)
    return folder / "grey", (6, 10, 1)


@pytest.mark.parametrize("make", [colour_file, grey_folder])
def test_they_are_trained_resumed_sampled_evaluated_and_drawn(make, tmp_path, capsys):
    data, shape = make(tmp_path)
    run, x = tmp_path / "run", tmp_path / "x.npz"
    assert command("train", "--data", data, "--out", run, "--steps", 2, *TINY) == 0
    assert command("train", "--out", run, "--resume", "--steps", 3, "--workers", 1) == 0
    assert command("sample", run, "--n", 3, "--steps", 2, "--out", x, "--workers", 1) == 0
    assert command("sample", run, "--n", 3, "--steps", 2, "--out", tmp_path / "x.png", "--workers", 1) == 0
    assert command("evaluate", run, "--images", 3, "--draws", 1, "--workers", 1) == 0
    assert command("plot", run, "--images", 4, "--workers", 1) == 0, capsys.readouterr().err
    with np.load(x) as f:
        assert f["samples"].shape == (3, *shape[: 3 if shape[2] == 3 else 2])
    assert td.load(run).config.image == shape and (run / "plots" / "denoising.gif").exists()


def test_a_run_is_not_continued_on_other_data(tmp_path, capsys):
    path, _ = colour_file(tmp_path)
    assert command("train", "--data", path, "--out", tmp_path / "run", "--steps", 1, *TINY) == 0
    np.save(path, np.load(path)[::-1])
    assert command("train", "--out", tmp_path / "run", "--resume", "--steps", 2) == 1
    assert "fingerprint" in capsys.readouterr().err


def test_what_cannot_be_trained_on_is_refused_before_there_is_a_folder(tmp_path, capsys):
    np.save(tmp_path / "floats.npy", np.zeros((30, 8, 8)))
    assert command("train", "--data", tmp_path / "floats.npy", "--out", tmp_path / "run", "--steps", 1) == 1
    assert "uint8" in capsys.readouterr().err and not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="uint8"):
        td.load_data(tmp_path / "floats.npy")


@pytest.mark.parametrize("labels", [None, np.zeros(30, int)], ids=["no labels", "one class"])
def test_data_without_labels_and_of_one_class_work(labels):
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 7), dtype=np.uint8)
    model = td.train(td.Data("odd", td.Dataset(images, labels)), steps=2, preset="tiny", batch=8, T=10)
    assert model.sample(2, labels=None if labels is None else 0).shape == (2, 9, 7)
