"""What a user can hand over by mistake: refused with a sentence before any work, or taken as it was meant."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import CONFIG, OPTIONS, SQUARES, pictures

import nn
import tinyddpm as td
from tinyddpm.data.images import Data
from tinyddpm.program import checkpoint, cli
from tinyddpm.program.config import Config
from tinyddpm.program.model import Model
from tinyddpm.program.run import train_run
from tinyddpm.program.train import Trainer, check_amount

DEMO = Path(__file__).parents[3] / "demo" / "mnist.py"


def command(*arguments):
    return cli.main([str(a) for a in arguments])


def run_of(folder):
    td.train(SQUARES, steps=2, out=folder, **OPTIONS)
    return folder


# ---- numbers of NumPy's ----


def test_ten_minutes_as_a_small_integer_are_ten_minutes():
    assert check_amount(None, np.uint8(10)) == (None, 10.0)
    assert 60 * check_amount(None, np.uint8(10))[1] == 600  # 60 * np.uint8(10) is 88


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        ({"steps": np.inf}, TypeError),
        ({"steps": 2.0}, TypeError),
        ({"steps": -1}, ValueError),
        ({"minutes": "1"}, TypeError),
        ({"minutes": np.nan}, ValueError),
    ],
)
def test_an_amount_that_cannot_be_meant_is_named(amount, error):
    with pytest.raises(error, match="^(steps|minutes) must be"):
        td.train(SQUARES, **amount, **OPTIONS)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_batch_that_is_a_small_integer_evaluates_all_images(kind):
    model, images = Model(CONFIG), np.tile(pictures(30).images, (10, 1, 1))
    found = model.evaluate(images, draws=1, batch=kind(100))
    assert (found.images, found.total) == (300, model.evaluate(images, draws=1, batch=100).total)


def test_batches_and_draws_that_cannot_be_meant_are_named():
    for options in ({"batch": 0}, {"batch": 2.0}, {"draws": 0}, {"draws": "4"}):
        with pytest.raises((ValueError, TypeError), match=f"{next(iter(options))} must be"):
            Model(CONFIG).evaluate(SQUARES.test, **options)


def test_a_configuration_of_arrays_and_paths_can_be_saved(tmp_path):
    data = Data(tmp_path / "x", pictures(), pictures(20))
    model = td.train(data, steps=1, **{**OPTIONS, "unet": {"width": 8, "heads": 2, "multipliers": np.array([1, 2])}})
    td.save(model, tmp_path / "m.npz")
    loaded = td.load(tmp_path / "m.npz")
    assert loaded.config.unet["multipliers"] == [1, 2] and loaded.config.data == str(tmp_path / "x")


@pytest.mark.parametrize("options", [{"image": (8, 8)}, {"unet": {"groups": 0}}, {"unet": {"multipliers": ()}}])
def test_a_configuration_of_no_shape_is_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        Config(**options)


def test_a_number_out_of_range_is_quoted_in_full():
    with pytest.raises(ValueError, match=r"seed must be finite and in 0..4294967295, got 4294967296"):
        Config(seed=2**32)


@pytest.mark.parametrize("choice", [{"clip": 2}, {"clip": (1,)}, {"clip": "a"}, {"variance": 0.1}, {"variance": ""}])
def test_a_clip_that_is_no_range_and_a_variance_without_a_name_are_refused(choice):
    with pytest.raises(ValueError, match="clip must be a pair|unknown variance"):
        Model(CONFIG).evaluate(SQUARES.test, **choice)


# ---- labels, objects ----


@pytest.mark.parametrize("labels", [7, [1], np.zeros(19, int), np.zeros(21, int)])
def test_evaluating_takes_one_label_for_each_image(labels):
    with pytest.raises(ValueError, match="one label is needed for each of 20 images"):
        Model(CONFIG).evaluate(SQUARES.test, labels=labels)


def test_a_loss_weight_of_ones_own_is_never_the_simple_one_instead(tmp_path):
    options = {**OPTIONS, "out": tmp_path / "run"}
    with pytest.raises(ValueError, match="loss weight"):
        td.train(SQUARES, steps=1, loss_weight="own", **OPTIONS)
    td.train(SQUARES, steps=1, loss_weight=lambda schedule, prediction, t: 1.0 / t, **options)
    with pytest.raises(ValueError, match="loss weight"):
        td.train(SQUARES, steps=2, resume=True, **{"out": tmp_path / "run"})


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("glyphs", {}, "data must be a Data"),
        (pictures(), {}, "data must be a Data"),
        (SQUARES, {"network": 3}, "network must be"),
        (SQUARES, {"schedule": 3}, "schedule must be"),
        (SQUARES, {"loss_weight": 3}, "loss_weight must be"),
        (SQUARES, {"resume": True}, "in which folder"),
    ],
)
def test_what_is_no_data_no_network_no_schedule_and_no_folder_is_named(data, options, said):
    with pytest.raises((TypeError, ValueError), match=said):
        td.train(data, steps=1, **options)


def test_none_is_the_default_of_schedule_network_and_loss_weight():
    model = td.train(SQUARES, steps=0, schedule=None, network=None, loss_weight=None, **OPTIONS)
    assert (model.config.schedule, model.config.preset, model.config.loss_weight) == ("fine_cosine", "tiny", "simple")


class Two(nn.Module):
    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.first, self.last = nn.Conv2d(1, 4, rng=rng), nn.Conv2d(4, 1, rng=rng)

    def __call__(self, x, t, labels):
        return self.last(nn.silu(self.first(x)))


def test_a_run_with_frozen_weights_loads_into_a_network_that_is_not_frozen(tmp_path):
    network = Two()
    network.first.weight.requires_grad = False
    model = td.train(SQUARES, steps=3, network=network, out=tmp_path / "run", T=20, batch=8)
    loaded = td.load(tmp_path / "run", network=Two(seed=1))
    assert not loaded.network.first.weight.requires_grad
    for name, array in model.network.state_dict().items():
        assert (loaded.network.state_dict()[name] == array).all()


def without(path, name):
    arrays, config = checkpoint.load(path)
    arrays.pop(name)
    checkpoint.save(path, arrays, config)


@pytest.mark.parametrize("name", ["ema/average", "ema/updates"])
def test_a_run_without_its_average_is_not_one_with_other_weights(name, tmp_path):
    path = run_of(tmp_path / "run") / "checkpoint.npz"
    without(path, name)
    with pytest.raises(checkpoint.CheckpointError, match="state does not fit"):
        td.load(path)
    td.load(path, average=False)


@pytest.mark.parametrize(
    "losses", [np.float64(1), np.zeros(1), np.zeros((2, 2)), np.array(["a", "b"]), np.zeros(2) * 1j]
)
def test_a_run_goes_on_only_with_one_loss_for_each_step(losses, tmp_path):
    path = run_of(tmp_path / "run") / "checkpoint.npz"
    arrays, config = checkpoint.load(path)
    checkpoint.save(path, {**arrays, "losses": losses}, config)
    with pytest.raises(checkpoint.CheckpointError, match="2 steps have as many losses"):
        td.train(SQUARES, steps=3, out=path.parent, resume=True)


# ---- what is said, and when ----


def test_integers_and_sizes_on_the_command_line_are_explained(capsys):
    for words in (["sample", "r", "--out", "x.png", "--labels", "0,x"], ["train", "--out", "r", "--size", "28"]):
        with pytest.raises(SystemExit):
            command(*words)
        said = capsys.readouterr().err
        assert "must be" in said and "_integers" not in said and "_size" not in said


@pytest.mark.parametrize("labels", [True, False])
def test_what_the_demo_prints_last_can_be_pasted_for_any_data(labels, tmp_path):
    parts, path = {"": SQUARES.train, "test_": SQUARES.test}, tmp_path / "x.npz"
    arrays = {f"{part}images": dataset.images[:, ::2, ::2] for part, dataset in parts.items()}
    arrays |= {f"{part}labels": dataset.labels for part, dataset in parts.items()} if labels else {}
    np.savez(path, **arrays)
    words = [sys.executable, DEMO, "--data", path, "--out", tmp_path / "out", "--minutes", 0.001, "--images", 2]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    again = shlex.split(done.stdout.splitlines()[-1])
    assert ("--label" in again) == labels
    done = subprocess.run([*again, "--n", "1", "--steps", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_demo_asks_for_two_test_images_before_it_trains(squares, tmp_path):
    few = SQUARES.test
    np.savez(squares, images=few.images, labels=few.labels, test_images=few.images[:1], test_labels=few.labels[:1])
    words = [sys.executable, DEMO, "--data", squares, "--out", tmp_path / "out", "--minutes", 10]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, "at least 2 test images" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["plot", "profile"])
def test_a_place_that_cannot_be_written_is_said_before_the_work(name, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    words = ["plot", run_of(tmp_path / "run"), "--out", tmp_path / "file"]
    words = words if name == "plot" else ["profile", "--out", tmp_path / "file" / "x.png"]
    monkeypatch.setattr(Model, "sample", lambda *_, **__: pytest.fail("it has begun to work"))
    monkeypatch.setattr(Trainer, "step", lambda *_, **__: pytest.fail("it has begun to work"))
    capsys.readouterr()
    assert command(*words) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said and "--resume" not in said


def test_the_printed_number_of_steps_can_be_pasted(tmp_path, capsys, monkeypatch):
    def stopped(data, compute, out, **options):
        return None, True

    monkeypatch.setattr("tinyddpm.program.run.train_run", stopped)
    path = tmp_path / "x.npz"
    np.savez(path, images=SQUARES.train.images)
    assert command("train", "--data", path, "--out", tmp_path / "run", "--steps", 1234567) == 0
    assert "--steps 1234567" in capsys.readouterr().out


def test_a_user_without_a_home_gets_the_last_checkpoint_in_the_temporary_folder(tmp_path, monkeypatch):
    save = Trainer.save

    def full(trainer, path):
        if trainer.steps_done and str(path).startswith(str(tmp_path / "run")):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(trainer, path)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Trainer, "save", full)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("tinyddpm.program.run.PATIENCE", ())
    with pytest.raises(Exception, match="saved as .*tinyddpm-step-1.npz instead"):
        train_run(SQUARES, td.Compute(workers=1), tmp_path / "run", steps=1, **OPTIONS)
    assert (tmp_path / "tinyddpm-step-1.npz").exists()


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX")
def test_a_reader_who_goes_away_costs_no_step(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=SQUARES.train.images)
    words = ["train", "--data", path, "--out", tmp_path / "run", "--steps", 3, "--preset", "tiny", "--batch", 4]
    process = subprocess.Popen([sys.executable, "-m", "tinyddpm", *map(str, words)], stdout=subprocess.PIPE)
    process.stdout.readline()  # as `head -1` does
    process.stdout.close()
    process.wait(timeout=300)
    assert len(np.load(tmp_path / "run" / "checkpoint.npz")["losses"]) == 3
