"""What can happen to a run, and what a user can ask that cannot be: nothing is lost, and nothing is silent."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from commands import command, start
from small import CONFIG, OPTIONS, SQUARES

import nn
import tinyddpm as td
from tinyddpm.program import checkpoint, run
from tinyddpm.program.compute import Compute
from tinyddpm.program.config import Config


class Saboteur(nn.Module):
    """A network that turns the folder of its run into a file at its second step: nothing can be saved there any more."""

    def __init__(self, folder):
        self.scale, self.folder, self.calls = nn.Tensor(np.ones(1, np.float32), True), str(folder), 0

    def __call__(self, x, t, labels=None):
        self.calls += 1
        if self.calls == 2 and os.path.isdir(self.folder):
            os.rename(self.folder, self.folder + ".gone")
            Path(self.folder).write_text("no folder")
        return x * self.scale


@pytest.mark.cpu
def test_a_last_checkpoint_that_cannot_be_written_is_written_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "PATIENCE", (0.0,))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    network = Saboteur(tmp_path / "run")
    with pytest.raises(run.SavedElsewhere, match="tinyddpm-step-5.npz") as error:
        run.train_run(
            SQUARES, Compute(workers=1), tmp_path / "run", steps=5, save_seconds=0, network=network, batch=40, T=20
        )
    assert "will be tried again later" in capsys.readouterr().err
    elsewhere = re.search("saved as (.*) instead", str(error.value))[1]
    assert td.load(elsewhere, network=Saboteur(tmp_path), workers=1).config.T == 20


def test_a_folder_that_cannot_be_written_is_said_before_any_training(tmp_path, squares, capsys):
    (tmp_path / "file").write_text("")
    assert command("train", "--data", squares, "--out", tmp_path / "file" / "run", "--steps", 1) == 1
    assert "step 1" not in capsys.readouterr().out


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_one_goes_on(squares, tmp_path, capsys):
    first = start(squares, tmp_path / "run")
    try:
        assert "from step 0" in first.stdout.readline()
        while not (tmp_path / "run" / checkpoint.RUN_FILE).exists():
            time.sleep(0.05)
        assert command("train", "--out", tmp_path / "run", "--resume", "--steps", 3) == 1
        assert f"process {first.pid}" in capsys.readouterr().err
    finally:
        first.kill()
        first.communicate(timeout=300)


@pytest.mark.parametrize("minutes", ["inf", "nan", "-1"])
def test_minutes_that_cannot_be_meant_are_refused(minutes, squares, tmp_path, capsys):
    assert command("train", "--data", squares, "--out", tmp_path / "run", f"--minutes={minutes}") == 1
    assert "minutes must be" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_numbers_of_numpy_in_a_configuration_are_saved_as_numbers(tmp_path):
    options = {**OPTIONS, "batch": np.int64(8), "T": np.uint8(20), "unet": {"width": np.int32(8), "heads": np.int64(2)}}
    model = td.train(SQUARES, steps=np.int64(1), out=tmp_path / "run", **options)
    assert td.load(tmp_path / "run").config == model.config == CONFIG
    with pytest.raises(TypeError, match="batch must be an integer, got 8.5"):
        Config.of(SQUARES, batch=8.5)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([10, 10], ValueError, r"integers in 0\.\.3"),
        ([0.9], TypeError, "integers"),
        ([0, 1, 2], ValueError, r"1\.\.2 integers"),
        ([-1], ValueError, r"0\.\.3"),
        ([], TypeError, "integers"),
        ([True], TypeError, "integers"),
    ],
)
def test_labels_that_the_model_does_not_have_are_refused(labels, error, words):
    model = td.train(SQUARES, steps=0, **OPTIONS)
    with pytest.raises(error, match=words):
        model.sample(2, labels=labels, steps=1)
    assert (model.sample(2, labels=3, steps=1) == model.sample(2, labels=[3, 3], steps=1)).all()


def test_labels_outside_the_classes_of_a_configuration_are_refused_before_training():
    with pytest.raises(ValueError, match=r"3 classes needs labels in 0\.\.2, got 0\.\.3"):
        td.train(SQUARES, steps=1, classes=3, **OPTIONS)


def test_a_checkpoint_without_a_part_it_needs_says_which(finished, capsys):
    arrays, values = checkpoint.load(finished)
    for part in ("ema/average", "adam/mean", "losses", "model/first.weight"):
        checkpoint.save(finished / checkpoint.RUN_FILE, {k: v for k, v in arrays.items() if k != part}, values)
        assert command("train", "--out", finished, "--resume", "--steps", 9) == 1
        assert part.split("/")[-1] in capsys.readouterr().err


def test_a_schedule_without_a_name_is_kept_as_a_table_and_another_one_is_refused(tmp_path):
    schedule = td.NoiseSchedule.from_alpha_bar(np.linspace(0.9, 0.01, 20))
    options = {name: value for name, value in OPTIONS.items() if name != "T"}
    model = td.train(SQUARES, steps=1, out=tmp_path / "run", schedule=schedule, **options)
    found = td.load(tmp_path / "run")
    for table in ("beta", "alpha", "alpha_bar"):
        np.testing.assert_array_equal(getattr(found.schedule, table), getattr(schedule, table))
    np.testing.assert_array_equal(found.sample(2, labels=0, steps=3), model.sample(2, labels=0, steps=3))
    td.train(SQUARES, steps=2, out=tmp_path / "run", resume=True, schedule=schedule)
    other = td.NoiseSchedule.from_alpha_bar(np.linspace(0.8, 0.01, 20))
    with pytest.raises(checkpoint.CheckpointError, match="another schedule|the schedule handed over is another one"):
        td.train(SQUARES, steps=3, out=tmp_path / "run", resume=True, schedule=other)


def test_a_model_is_saved_and_loaded_with_the_weights_it_samples_with(tmp_path):
    model = td.train(SQUARES, steps=3, **OPTIONS)
    td.save(model, tmp_path / "model.npz")
    found = td.load(tmp_path / "model.npz")
    assert found.config == model.config
    np.testing.assert_array_equal(found.sample(2, labels=1, steps=3), model.sample(2, labels=1, steps=3))


def test_an_unknown_option_is_refused_with_the_ones_there_are():
    with pytest.raises(TypeError, match="unknown options .*bach.*there are: .*batch"):
        td.train(SQUARES, steps=1, bach=3)
    with pytest.raises(ValueError, match="either how many steps in all, or how many minutes"):
        td.train(SQUARES)
