"""Runs and the command: what is written, what is printed, what a user can do wrong."""

import re
import shlex
import signal
import subprocess
import sys
import time

import device
import numpy as np
import pytest
from commands import command, start
from device.strict_device import installed, strict
from small import BITS_CONFIG, CONFIG, OPTIONS, SQUARES, pictures

import nn
import tinyddpm as td
from tinyddpm.data.images import Data
from tinyddpm.program import checkpoint, run
from tinyddpm.program.compute import Compute
from tinyddpm.program.profile import profile_step

pytest.importorskip("PIL", reason="drawing needs Pillow")
pytest.importorskip("matplotlib", reason="figures need matplotlib")


def test_a_run_is_saved_and_goes_on_where_it_stopped(finished, squares, capsys):
    trainer, _ = run.train_run(td.load_data(squares), Compute(), finished, steps=6, resume=True)
    assert trainer.steps_done == 6 and len(trainer.losses) == 6
    out = capsys.readouterr().out
    assert "from step 3, before its learning rate fell" in out and "images/s" in out


def test_a_run_is_never_overwritten(finished, squares):
    before = checkpoint.checkpoint_path(finished).read_bytes()
    with pytest.raises(FileExistsError, match="holds a run"):
        td.train(td.load_data(squares), steps=1, out=finished, **OPTIONS)
    assert checkpoint.checkpoint_path(finished).read_bytes() == before


def test_checkpoints_and_sample_grids_appear_on_the_way(tmp_path):
    run.train_run(SQUARES, Compute(), tmp_path, steps=3, save_seconds=0, picture_seconds=0, **{**OPTIONS, "T": 4})
    assert sorted(p.name for p in tmp_path.glob("*.png")) == [f"samples-{k:06d}.png" for k in (1, 2, 3)]


@pytest.mark.parametrize("config", [CONFIG, BITS_CONFIG], ids=["gaussian", "binomial"])
def test_every_figure_is_drawn(tmp_path, config, finished, bits):
    from PIL import Image, ImageSequence

    folder = finished if config is CONFIG else bits
    assert command("plot", folder, "--out", tmp_path / "figures") == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"loss.png", "digits.png", "reverse.png", "denoising.gif"} <= names and len(names) >= 9
    gif = Image.open(tmp_path / "figures" / "denoising.gif")
    shown = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
    assert sum(shown) == 20 * 80 + 1500 and len(shown) > 15  # 21 states; Pillow joins those that look alike


def test_a_profile_accounts_for_the_whole_step(capsys, tmp_path):
    profile_step(CONFIG, tmp_path / "p.png", steps=1)
    out = capsys.readouterr().out
    shares = [float(line.split("%")[0].split()[-1]) for line in out.splitlines() if "%" in line]
    assert abs(sum(shares) - 100) < 2 and "conv2d_winograd" in out and (tmp_path / "p.png").exists()


# ==== the command ====


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
        assert set(f["labels"]) <= {0, 1, 2, 3}, "drawn, and said"


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
        ("c", ["--prediction", "eps"], {"diffusion": "gaussian", "schedule": "fine_cosine", "prediction": "eps"}),
        ("d", ["--loss-weight", "min-snr", "--min-snr-gamma", 3], {"loss_weight": "min-snr", "min_snr_gamma": 3.0}),
    ):
        asked = ["--data", squares, "--steps", 0, "--batch", 8, "--preset", "tiny", *options]
        assert command("train", "--out", tmp_path / name, *asked) == 0
        config = td.load(tmp_path / name).config
        assert {key: getattr(config, key) for key in expected} == expected


def test_the_rate_for_a_larger_batch_is_offered_where_none_was_asked_for(tmp_path, squares, capsys):
    for name, options, offered in (
        ("larger", ["--batch", 256], "--learning-rate 0.004\n"),
        ("a little larger", ["--batch", 96], "--learning-rate 0.0024\n"),
        ("no larger", ["--batch", 64], None),
        ("asked for", ["--batch", 256, "--learning-rate", 1e-3], None),
    ):
        asked = ["--data", squares, "--steps", 0, "--preset", "tiny", *options]
        assert command("train", "--out", tmp_path / name, *asked) == 0
        out = capsys.readouterr().out
        assert offered in out if offered else "--learning-rate" not in out


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
        few = {**OPTIONS, "T": 4}
        run.train_run(td.load_data(squares), compute, out, steps=2, save_seconds=0, picture_seconds=0, **few)
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent the POSIX way")
def test_interrupted_runs_save_and_say_how_to_resume_and_killed_ones_keep_their_checkpoint(squares, tmp_path):
    out = tmp_path / "run"
    process = start(squares, out)
    assert "from step 0" in process.stdout.readline()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0
    again = shlex.split(re.search("go on with: (.*)", said)[1])
    saved = checkpoint.checkpoint_path(out).read_bytes()

    process = start(squares, out, "--resume")
    assert "from step 0" not in process.stdout.readline()
    process.kill()
    process.communicate(timeout=300)
    assert checkpoint.checkpoint_path(out).read_bytes() == saved

    again[again.index("--steps") + 1] = str(len(checkpoint.load(out)[0]["losses"]) + 1)
    finished = subprocess.run(again, capture_output=True, text=True, timeout=300)  # what is printed can be pasted
    assert finished.returncode == 0, finished.stderr


def test_a_data_set_smaller_than_a_batch_is_one_batch():
    model = td.train(Data("few", pictures(5), pictures(2)), steps=3, **{**OPTIONS, "batch": 64})
    assert model.sample(2, labels=0).shape == (2, 8, 8)
