"""Runs and the command: what is written, what is printed, what a user can do wrong."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import device
import numpy as np
import pytest
from device.strict_device import installed, strict
from small import BITS_CONFIG, CONFIG, OPTIONS, SQUARES, pictures

import nn
import tinyddpm as td
from tinyddpm.data.images import Data
from tinyddpm.program import checkpoint, cli, run
from tinyddpm.program.compute import Compute
from tinyddpm.program.config import Config
from tinyddpm.program.profile import profile_step

pytest.importorskip("PIL", reason="drawing needs Pillow")
pytest.importorskip("matplotlib", reason="figures need matplotlib")


@pytest.fixture
def squares(tmp_path):
    """A file of images, as a user has it."""
    path, train, test = tmp_path / "squares.npz", SQUARES.train, SQUARES.test
    np.savez(path, images=train.images, labels=train.labels, test_images=test.images, test_labels=test.labels)
    return path


@pytest.fixture
def finished(squares, tmp_path):
    """The folder of a run of a few steps."""
    td.train(td.load_data(squares), steps=4, out=tmp_path / "run", **OPTIONS)
    return tmp_path / "run"


@pytest.fixture
def bits(squares, tmp_path):
    """The folder of a run of binomial diffusion."""
    td.train(td.load_data(squares), steps=2, out=tmp_path / "bits", diffusion="binomial", **OPTIONS)
    return tmp_path / "bits"


def test_a_run_is_saved_and_goes_on_where_it_stopped(finished, squares, capsys):
    trainer, _ = run.train_run(td.load_data(squares), Compute(), finished, steps=6, resume=True)
    assert trainer.steps_done == 6 and len(trainer.losses) == 6
    out = capsys.readouterr().out
    assert "from step 4" in out and "images/s" in out


def test_a_run_is_never_overwritten(finished, squares):
    before = checkpoint.checkpoint_path(finished).read_bytes()
    with pytest.raises(FileExistsError, match="holds a run"):
        td.train(td.load_data(squares), steps=1, out=finished, **OPTIONS)
    assert checkpoint.checkpoint_path(finished).read_bytes() == before


def test_checkpoints_and_sample_grids_appear_on_the_way(tmp_path):
    run.train_run(SQUARES, Compute(), tmp_path, steps=3, save_seconds=0, picture_seconds=0, **OPTIONS)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"samples-{k:06d}.png" for k in (1, 2, 3)]


@pytest.mark.parametrize("config", [CONFIG, BITS_CONFIG], ids=["gaussian", "binomial"])
def test_every_figure_is_drawn(tmp_path, config, finished, bits):
    from PIL import Image

    folder = finished if config is CONFIG else bits
    assert command("plot", folder, "--out", tmp_path / "figures") == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"loss.png", "digits.png", "reverse.png", "denoising.gif"} <= names and len(names) >= 9
    assert Image.open(tmp_path / "figures" / "denoising.gif").n_frames == 21


def test_a_profile_accounts_for_the_whole_step(capsys, tmp_path):
    profile_step(CONFIG, tmp_path / "p.png", steps=1)
    out = capsys.readouterr().out
    shares = [float(line.split("%")[0].split()[-1]) for line in out.splitlines() if "%" in line]
    assert abs(sum(shares) - 100) < 2 and "conv2d_winograd" in out and (tmp_path / "p.png").exists()


# ==== the command ====


def command(*arguments):
    return cli.main([str(a) for a in arguments])


def test_the_command_trains_samples_and_evaluates(finished, tmp_path, capsys):
    assert command("train", "--out", finished, "--resume", "--steps", 5) == 0
    assert "sample" in capsys.readouterr().out.split("next: ")[1]
    x = tmp_path / "x.npz"
    assert command("sample", finished, "--n", 4, "--label", 3, "--guidance", 2, "--steps", 2, "--out", x) == 0
    assert command("evaluate", finished, "--images", 4, "--draws", 1) == 0


def test_the_command_goes_on_with_bits_as_the_checkpoint_says(bits, tmp_path, capsys):
    assert command("train", "--out", bits, "--resume", "--steps", 3) == 0
    x = tmp_path / "x.npz"
    assert command("sample", bits, "--n", 4, "--label", 3, "--guidance", 2, "--steps", 2, "--out", x) == 0
    with np.load(x) as f:
        assert set(np.unique(f["samples"])) == {0, 255}
    assert command("evaluate", bits, "--images", 4, "--draws", 1) == 0
    assert "a pixel is a bit" in capsys.readouterr().out


def test_samples_as_arrays(finished, tmp_path):
    command("sample", finished, "--out", tmp_path / "x.npz", "--n", 5, "--labels", "0,2", "--steps", 5)
    with np.load(tmp_path / "x.npz") as f:
        assert f["samples"].shape == (5, 8, 8) and f["samples"].dtype == np.uint8
        np.testing.assert_array_equal(f["labels"], [0, 2, 0, 2, 0])
    command("sample", finished, "--out", tmp_path / "y.npz", "--n", 2, "--steps", 5)
    with np.load(tmp_path / "y.npz") as f:
        assert f.files == ["samples"]


def test_samples_as_a_picture(finished, tmp_path):
    from PIL import Image

    command("sample", finished, "--out", tmp_path / "x.png", "--n", 9, "--steps", 3)
    assert Image.open(tmp_path / "x.png").size == (3 * (3 * 10 + 2), 3 * (3 * 10 + 2))


def test_python_and_the_command_draw_the_same_images(finished, tmp_path):
    command("sample", finished, "--out", tmp_path / "x.npz", "--n", 3, "--label", 1)
    with np.load(tmp_path / "x.npz") as f:
        np.testing.assert_array_equal(f["samples"], td.load(finished).sample(3, labels=1))


def test_evaluation_prints_its_settings(finished, capsys):
    assert command("evaluate", finished, "--images", 10, "--draws", 1, "--variance", "beta", "--no-clip") == 0
    out = capsys.readouterr().out
    for words in ("beta_1 at t = 1", "not clipped", "L_T", "L_1:T-1", "L_0", "sum"):
        assert words in out


def test_the_command_starts_a_run_of_the_diffusion_asked_for_with_its_defaults(tmp_path, squares):
    for name, options, expected in (
        ("a", ["--diffusion", "binomial", "--timesteps", 30], {"schedule": "even", "prediction": "logit", "T": 30}),
        ("b", ["--diffusion", "binomial", "--schedule", "cosine"], {"schedule": "cosine", "prediction": "logit"}),
        ("c", ["--prediction", "eps"], {"diffusion": "gaussian", "schedule": "cosine", "prediction": "eps"}),
        ("d", ["--loss-weight", "min-snr", "--min-snr-gamma", 3], {"loss_weight": "min-snr", "min_snr_gamma": 3.0}),
    ):
        asked = ["--data", squares, "--steps", 0, "--batch", 8, "--preset", "tiny", *options]
        assert command("train", "--out", tmp_path / name, *asked) == 0
        config = td.load(tmp_path / name).config
        assert {key: getattr(config, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["train", "--out", "x.d", "--data", "DATA", "--diffusion", "binomial", "--prediction", "eps"],
            "there are: logit",
        ),
        (["train", "--out", "x.d", "--data", "DATA", "--prediction", "logit"], "there are: v, eps, x0"),
        (
            ["train", "--out", "BITS", "--resume", "--steps", "9", "--diffusion", "gaussian"],
            "run of binomial diffusion",
        ),
        (["sample", "BITS", "--out", "x.png", "--sampler", "ddim"], "there are: ancestral"),
        (["evaluate", "BITS", "--images", "4", "--variance", "beta"], "no variance to choose"),
        (["evaluate", "BITS", "--images", "4", "--no-clip"], "no x0_hat to clip"),
    ],
)
def test_what_bits_do_not_have_is_refused_with_what_they_have(
    bits, squares, capsys, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert command(*[{"BITS": bits, "DATA": squares}.get(a, a) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert "tinyddpm: error:" in error and words in error
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "RUN", "--out", "x.jpg"], "png"),
        (["sample", "RUN", "--out", "x.png", "--label", "7000"], "integers in 0..3"),
        (["sample", "RUN", "--out", "x.png", "--guidance", "2"], "needs labels"),
        (["sample", "RUN", "--out", "x.png", "--steps", "21"], "between 1 and T = 20"),
        (["sample", "nowhere", "--out", "x.png"], "no such checkpoint"),
        (["train", "--out", "RUN", "--data", "DATA", "--steps", "3"], "--resume"),
        (["train", "--out", "nowhere", "--precision", "bf16"], "precision bf16 needs a GPU"),
        (["sample", "RUN", "--out", "x.png", "--precision", "tf32"], "only fp32"),
        (["train", "--out", "RUN", "--resume", "--steps", "9", "--batch", "5"], "batch"),
        (["train", "--out", "nowhere", "--resume", "--steps", "9"], "no such checkpoint"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_status_1(
    finished, squares, capsys, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    assert command(*[{"RUN": finished, "DATA": squares}.get(a, a) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert "tinyddpm: error:" in error and words in error
    assert not list(tmp_path.glob("x.*"))


def test_the_whole_program_runs_on_a_device_that_refuses_arrays_of_the_host(tmp_path, squares):
    with installed(), nn.gpu.kernels.plain_versions():
        compute, out = Compute("cuda"), tmp_path / "run"
        assert compute.xp is strict
        run.train_run(td.load_data(squares), compute, out, steps=3, save_seconds=0, picture_seconds=0, **OPTIONS)
        assert command("plot", out, "--device", "cuda") == 0
        x = tmp_path / "x.npz"
        assert (
            command(
                "sample", out, "--out", x, "--n", 3, "--label", 1, "--guidance", 2, "--steps", 3, "--device", "cuda"
            )
            == 0
        )
        assert command("evaluate", out, "--images", 4, "--draws", 1, "--device", "cuda") == 0


def test_auto_takes_what_works_and_says_so_once(squares, tmp_path, capsys):
    train = ["train", "--data", squares, "--steps", 1, "--preset", "tiny", "--batch", 8, "--device", "auto"]
    with installed(), nn.gpu.kernels.plain_versions():
        assert command(*train, "--out", tmp_path / "gpu") == 0
    assert capsys.readouterr().out.count("cupy strict") == 1
    if device.xp is np:
        assert command(*train, "--out", tmp_path / "cpu") == 0
        assert capsys.readouterr().out.count(f"numpy {np.__version__}") == 1


def test_a_damaged_checkpoint_is_refused_by_every_command(finished, capsys):
    path = checkpoint.checkpoint_path(finished)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for arguments in (
        ["sample", finished, "--out", "x.png"],
        ["evaluate", finished],
        ["train", "--out", finished, "--resume", "--steps", 9],
        ["plot", finished],
    ):
        assert command(*arguments) == 1
        assert "damaged" in capsys.readouterr().err


def start(squares, out, *options):
    words = ["train", "--data", squares, "--out", out, "--steps", 100000, "--preset", "tiny", "--batch", 8, *options]
    return subprocess.Popen([sys.executable, "-m", "tinyddpm", *map(str, words)], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")
def test_interrupted_runs_save_and_say_how_to_resume_and_killed_ones_keep_their_checkpoint(squares, tmp_path):
    out = tmp_path / "run"
    process = start(squares, out)
    assert "from step 0" in process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    again = shlex.split(re.search("go on with: (.*)", said)[1])
    saved = checkpoint.checkpoint_path(out).read_bytes()

    process = start(squares, out, "--resume")
    assert "from step 0" not in process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    assert checkpoint.checkpoint_path(out).read_bytes() == saved

    again[again.index("--steps") + 1] = str(len(checkpoint.load(out)[0]["losses"]) + 1)
    finished = subprocess.run(again, capture_output=True, text=True, timeout=60)  # what is printed can be pasted
    assert finished.returncode == 0, finished.stderr


def test_a_data_set_smaller_than_a_batch_is_one_batch():
    model = td.train(Data("few", pictures(5), pictures(2)), steps=3, **{**OPTIONS, "batch": 64})
    assert model.sample(2, labels=0).shape == (2, 8, 8)


# ==== a run is never lost ====


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
        first.communicate(timeout=60)


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
