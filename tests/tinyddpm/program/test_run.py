"""Runs and the command: what is written, what is printed, what a user can do wrong."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from device.strict_device import installed, strict
from small import BITS_CONFIG, CONFIG, pictures

import nn
from tinyddpm.data import images as data
from tinyddpm.data.images import Dataset
from tinyddpm.program import checkpoint, cli, run
from tinyddpm.program.model import ModelConfig
from tinyddpm.program.profile import profile_step

pytest.importorskip("PIL", reason="drawing needs Pillow")
pytest.importorskip("matplotlib", reason="figures need matplotlib")


@pytest.fixture
def squares(monkeypatch):
    """Squares in place of the digits."""
    monkeypatch.setattr(data, "load", lambda name, split="train", data_dir=None: Dataset(*pictures(60), "glyphs", 4))


@pytest.fixture
def finished(squares, tmp_path):
    """A directory with a run of a few steps."""
    run.train_run(tmp_path / "run", CONFIG, steps=4)
    return tmp_path / "run"


def test_a_run_is_saved_and_goes_on_where_it_stopped(finished, capsys):
    trainer = run.train_run(finished, CONFIG, steps=6, resume=True)
    assert trainer.steps_done == 6 and len(trainer.losses) == 6
    out = capsys.readouterr().out
    assert "from step 4" in out and "images/s" in out


def test_a_run_is_never_overwritten(finished):
    with pytest.raises(FileExistsError, match="--resume"):
        run.train_run(finished, CONFIG, steps=1)


def test_checkpoints_and_sample_grids_appear_on_the_way(squares, tmp_path):
    run.train_run(tmp_path, CONFIG, steps=3, save_seconds=0, picture_seconds=0)
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"samples-{k:06d}.png" for k in (1, 2, 3)]


def test_samples_as_arrays(finished, tmp_path):
    run.sample_run(finished, tmp_path / "x.npz", n=5, labels=[0, 2], steps=5)
    with np.load(tmp_path / "x.npz") as f:
        assert f["samples"].shape == (5, 8, 8) and f["samples"].dtype == np.uint8
        np.testing.assert_array_equal(f["labels"], [0, 2, 0, 2, 0])
    run.sample_run(finished, tmp_path / "y.npz", n=2, steps=5)
    with np.load(tmp_path / "y.npz") as f:
        assert f.files == ["samples"]


def test_samples_as_a_picture(finished, tmp_path):
    from PIL import Image

    run.sample_run(finished, tmp_path / "x.png", n=9, steps=3)
    assert Image.open(tmp_path / "x.png").size == (3 * (3 * 10 + 2), 3 * (3 * 10 + 2))


def test_evaluation_prints_its_settings(finished, capsys):
    run.evaluate_run(finished, images=10, draws=1, variance="beta", clip=False)
    out = capsys.readouterr().out
    for words in ("beta_1 at t = 1", "not clipped", "L_T", "L_1:T-1", "L_0", "sum"):
        assert words in out


@pytest.mark.parametrize("config", [CONFIG, BITS_CONFIG], ids=["gaussian", "binomial"])
def test_every_figure_is_drawn(squares, tmp_path, config):
    from PIL import Image

    finished = tmp_path / "run"
    run.train_run(finished, config, steps=2, picture_seconds=0)
    names = {path.name for path in run.plot_run(finished, tmp_path / "figures", images=20)}
    assert names == {
        "loss.png",
        "schedules.png",
        "digits.png",
        "forward.png",
        "reverse.png",
        "x0_prediction.png",
        "loss_per_t.png",
        "bound.png",
        "denoising.gif",
    }
    assert Image.open(tmp_path / "figures" / "denoising.gif").n_frames == 21


def test_a_profile_accounts_for_the_whole_step(capsys, tmp_path):
    profile_step(CONFIG, tmp_path / "p.png", steps=1)
    out = capsys.readouterr().out
    shares = [float(line.split("%")[0].split()[-1]) for line in out.splitlines() if "%" in line]
    assert abs(sum(shares) - 100) < 2 and "conv2d_winograd" in out and (tmp_path / "p.png").exists()


# ==== the command ====


def command(*arguments):
    return cli.main([str(a) for a in arguments])


def test_the_command_trains_samples_and_evaluates(squares, tmp_path, capsys):
    out = tmp_path / "run"
    run.train_run(out, CONFIG, steps=2)
    assert command("train", "--out", out, "--resume", "--steps", 3) == 0
    assert "next: tinyddpm sample" in capsys.readouterr().out
    assert (
        command("sample", out, "--n", 4, "--label", 3, "--guidance", 2, "--steps", 2, "--out", tmp_path / "x.npz") == 0
    )
    assert command("evaluate", out, "--images", 4, "--draws", 1) == 0


@pytest.fixture
def bits(squares, tmp_path):
    """A directory with a run of binomial diffusion."""
    run.train_run(tmp_path / "bits", BITS_CONFIG, steps=2)
    return tmp_path / "bits"


def test_the_command_goes_on_with_bits_as_the_checkpoint_says(bits, tmp_path, capsys):
    assert command("train", "--out", bits, "--resume", "--steps", 3) == 0
    x = tmp_path / "x.npz"
    assert command("sample", bits, "--n", 4, "--label", 3, "--guidance", 2, "--steps", 2, "--out", x) == 0
    with np.load(x) as f:
        assert set(np.unique(f["samples"])) == {0, 255}
    assert command("evaluate", bits, "--images", 4, "--draws", 1) == 0
    assert "a pixel is a bit" in capsys.readouterr().out


def test_the_command_starts_a_run_of_the_diffusion_asked_for_with_its_defaults(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run, "train_run", lambda out, config, *options: asked.append(config.model))
    assert command("train", "--out", tmp_path, "--diffusion", "binomial", "--timesteps", 30) == 0
    assert command("train", "--out", tmp_path, "--diffusion", "binomial", "--schedule", "cosine") == 0
    assert command("train", "--out", tmp_path, "--prediction", "eps") == 0
    assert asked == [
        ModelConfig(diffusion="binomial", schedule="even", prediction="logit", T=30),
        ModelConfig(diffusion="binomial", schedule="cosine", prediction="logit"),
        ModelConfig(diffusion="gaussian", schedule="cosine", prediction="eps"),
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--out", "x.d", "--diffusion", "binomial", "--prediction", "eps"], "there are: logit"),
        (["train", "--out", "x.d", "--prediction", "logit"], "there are: v, eps, x0"),
        (
            ["train", "--out", "BITS", "--resume", "--steps", "9", "--diffusion", "gaussian"],
            "run of binomial diffusion",
        ),
        (["sample", "BITS", "--out", "x.png", "--sampler", "ddim"], "one sampler, ancestral"),
        (["evaluate", "BITS", "--images", "4", "--variance", "beta"], "no variance to choose"),
        (["evaluate", "BITS", "--images", "4", "--no-clip"], "no x0_hat to clip"),
    ],
)
def test_what_bits_do_not_have_is_refused_with_what_they_have(bits, capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert command(*[bits if a == "BITS" else a for a in arguments]) == 1
    error = capsys.readouterr().err
    assert "tinyddpm: error:" in error and words in error
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "RUN", "--out", "x.jpg"], "png"),
        (["sample", "RUN", "--out", "x.png", "--label", "7000"], "labels must be in"),
        (["sample", "RUN", "--out", "x.png", "--guidance", "2"], "needs labels"),
        (["sample", "RUN", "--out", "x.png", "--steps", "21"], "between 1 and T = 20"),
        (["sample", "nowhere", "--out", "x.png"], "no such checkpoint"),
        (["evaluate", "RUN", "--images", "100000"], "--images"),
        (["train", "--out", "RUN", "--steps", "3"], "--resume"),
        (["train", "--out", "nowhere", "--precision", "bf16"], "precision bf16 needs a GPU"),
        (
            ["sample", "RUN", "--out", "x.png", "--precision", "tf32"],
            "only fp32: use --device cuda or --precision fp32",
        ),
        (["train", "--out", "RUN", "--resume", "--steps", "9", "--batch", "5"], "batch"),
        (["train", "--out", "nowhere", "--resume", "--steps", "9"], "no such checkpoint"),
    ],
)
def test_mistakes_are_answered_in_one_line_with_status_1(finished, capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert command(*[finished if a == "RUN" else a for a in arguments]) == 1
    error = capsys.readouterr().err
    assert "tinyddpm: error:" in error and words in error
    assert not list(tmp_path.glob("x.*"))


def test_the_whole_program_runs_on_a_device_that_refuses_arrays_of_the_host(squares, tmp_path, monkeypatch):
    monkeypatch.setattr(nn, "choose_device", lambda device: strict)
    with installed(), nn.gpu.kernels.plain_versions():
        run.train_run(tmp_path, CONFIG, steps=3, save_seconds=0, picture_seconds=0)
        assert len(run.plot_run(tmp_path, images=10)) == 9
        run.sample_run(tmp_path, tmp_path / "x.npz", n=3, labels=[1], guidance_scale=2.0, steps=3)
        run.evaluate_run(tmp_path, images=4, draws=1)


def test_auto_says_which_device_it_took(finished, tmp_path, monkeypatch, capsys):
    for cupy, words in ((np, "took the CPU"), (strict, "took the GPU (CuPy strict)")):
        monkeypatch.setattr(nn, "choose_device", lambda device, cupy=cupy: cupy)
        with installed(), nn.gpu.kernels.plain_versions():
            assert (
                command("sample", finished, "--n", 1, "--steps", 1, "--device", "auto", "--out", tmp_path / "x.npz")
                == 0
            )
        assert f"--device auto {words}" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_refused_by_every_command(finished, capsys):
    path = run.checkpoint_path(finished)
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


def test_a_checkpoint_from_before_there_were_two_diffusions_is_refused_by_every_command(finished, capsys):
    path = run.checkpoint_path(finished)
    arrays, values = checkpoint.load(path)
    del values["model"]["diffusion"]
    checkpoint.save(path, arrays, values)
    for arguments in (
        ["sample", finished, "--out", "x.png"],
        ["evaluate", finished],
        ["train", "--out", finished, "--resume", "--steps", 9],
        ["plot", finished],
    ):
        assert command(*arguments) == 1
        assert "not a checkpoint of this program's models" in capsys.readouterr().err


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from small import CONFIG, pictures
from tinyddpm.data import images as data
from tinyddpm.program import run
data.load = lambda *a, **k: data.Dataset(*pictures(60), "glyphs", 4)
run.train_run({out!r}, CONFIG, steps=100000, resume={resume})
"""


def start(out, resume=False):
    script = SCRIPT.format(tests=str(Path(__file__).parents[2]), out=str(out), resume=resume)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")
def test_interrupted_runs_save_and_say_how_to_resume_and_killed_ones_keep_their_checkpoint(tmp_path):
    process = start(tmp_path)
    assert "from step 0" in process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "--resume" in out and run.checkpoint_path(tmp_path).exists()

    saved = run.checkpoint_path(tmp_path).read_bytes()
    process = start(tmp_path, resume=True)
    assert "from step 0" not in process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    assert run.checkpoint_path(tmp_path).read_bytes() == saved


def test_a_data_set_smaller_than_a_batch_is_refused(squares, tmp_path):
    with pytest.raises(ValueError, match="batches of 64"):
        run.train_run(tmp_path, replace(CONFIG, batch=64), steps=1)
