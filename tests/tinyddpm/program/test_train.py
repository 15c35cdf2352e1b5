"""Training: what a step is a function of, exact resumption, and checkpoints that do not fit."""

from dataclasses import replace

import numpy as np
import pytest
from small import CONFIG, every, here, pictures, trainer

import nn
from tinyddpm.program.checkpoint import CheckpointError
from tinyddpm.program.config import Config
from tinyddpm.program.gaussian_diffusion import GaussianDiffusion
from tinyddpm.program.model import Model, shard_size
from tinyddpm.program.train import load_on, timesteps_for
from tinyddpm.schedule import named_schedule

STEPS = GaussianDiffusion(named_schedule("cosine", 1000))


def state(t):
    """Everything that training changes."""
    return {**t.model.network.state_dict(), "average": np.array(t.ema.average.tolist()), "losses": np.array(t.losses)}


def assert_same(a, b):
    for name, array in state(a).items():
        np.testing.assert_array_equal(array, state(b)[name], err_msg=name)


@every
def test_resuming_continues_bit_for_bit(config, tmp_path):
    whole = trainer(config)
    for _ in whole.run(steps=6):
        pass
    half = trainer(config)
    for _ in half.run(steps=3):
        pass
    half.save(tmp_path / "c.npz")
    resumed = trainer(config)
    resumed.restore(tmp_path / "c.npz")
    for _ in resumed.run(steps=6):
        pass
    assert_same(whole, resumed)


def test_dropout_draws_the_same_numbers_after_a_resume(tmp_path):
    config = replace(CONFIG, unet={**CONFIG.unet, "dropout": 0.5})
    whole, half, resumed = trainer(config), trainer(config), trainer(config)
    losses = [float(loss) for _, loss in whole.run(steps=4)]
    assert len(list(half.run(steps=2))) == 2
    half.save(tmp_path / "c.npz")
    resumed.restore(tmp_path / "c.npz")
    assert [float(loss) for _, loss in resumed.run(steps=4)] == losses[2:]


@every
@pytest.mark.cpu
def test_the_number_of_workers_changes_nothing(config):
    one, three = trainer(config, workers=1), trainer(config, workers=3)
    one.model.shard = three.model.shard = 2
    for t in (one, three):
        list(t.run(steps=2))
    assert_same(one, three)


def test_the_first_loss_of_an_eps_network_is_the_mean_square_of_the_noise():
    t = trainer(replace(CONFIG, prediction="eps"))
    _, _, _, noise = t.batch(0)
    assert float(t.step()) == pytest.approx(float((noise**2).mean()), rel=1e-6)


@every
def test_training_lowers_the_loss(config):
    t = trainer(replace(config, learning_rate=5e-3, warmup_steps=5))
    list(t.run(steps=30))
    assert np.mean(t.losses[-5:]) < 0.6 * np.mean(t.losses[:5])


def test_an_epoch_visits_every_image_once():
    t = trainer()
    seen = np.concatenate([nn.to_numpy(t.batch(step)[0]) for step in range(5)])
    images = pictures().images
    expected = np.sort(images.reshape(40, -1).astype(np.float32) @ np.arange(64, dtype=np.float32))
    found = np.sort(np.rint((seen.reshape(40, -1) + 1) * 127.5) @ np.arange(64, dtype=np.float32))
    np.testing.assert_array_equal(found, expected)
    assert (t.batch(0)[0] != t.batch(5)[0]).any()  # the next epoch has another order


def test_timesteps_cover_the_range_evenly_and_depend_on_seed_and_step_alone():
    t = timesteps_for(STEPS, 0, 7, 10)
    assert t.min() >= 1 and t.max() <= 1000
    assert (np.diff(np.sort(t)) <= 112).all() and not np.array_equal(t, np.sort(t))
    np.testing.assert_array_equal(t, timesteps_for(STEPS, 0, 7, 10))
    assert not np.array_equal(t, timesteps_for(STEPS, 0, 8, 10))
    assert not np.array_equal(t, timesteps_for(STEPS, 1, 7, 10))


def test_labels_are_hidden_at_the_null_rate_only():
    shown = trainer(replace(CONFIG, null_rate=0.0)).batch(0)[1]
    assert (shown < 4).all()
    hidden = np.concatenate([trainer(replace(CONFIG, null_rate=0.5)).batch(step)[1] for step in range(20)])
    assert 0.3 < (hidden == CONFIG.classes).mean() < 0.7


@pytest.mark.parametrize("change", [{"batch": 4}, {"seed": 1}, {"shard": 3}, {"schedule": "linear"}])
def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(tmp_path, change):
    trainer().save(tmp_path / "c.npz")
    with pytest.raises(CheckpointError, match=next(iter(change))):
        trainer(replace(CONFIG, **change)).restore(tmp_path / "c.npz")


def test_a_run_may_say_how_many_images_a_core_takes_at_a_time():
    assert Model(replace(CONFIG, shard=3), here()).shard == 3
    with pytest.raises(ValueError, match="shard must be at least 1, got 0"):
        replace(CONFIG, shard=0)


def test_a_loaded_model_has_the_averaged_weights(tmp_path):
    t = trainer()
    list(t.run(steps=3))
    t.save(tmp_path / "c.npz")
    model = load_on(here(), tmp_path / "c.npz")
    assert model.config == t.config
    flat = np.concatenate([a.reshape(-1) for a in model.network.state_dict().values()])
    np.testing.assert_array_equal(flat, t.ema.average)
    last = load_on(here(), tmp_path / "c.npz", average=False)
    for name, array in t.model.network.state_dict().items():
        np.testing.assert_array_equal(array, last.network.state_dict()[name])


def test_a_checkpoint_with_an_unknown_field_is_refused_and_one_with_a_missing_field_takes_its_default(tmp_path):
    from tinyddpm.program import checkpoint

    t = trainer()
    t.save(tmp_path / "c.npz")
    arrays, values = checkpoint.load(tmp_path / "c.npz")
    for change, words in (
        ({"colour": "blue"}, "unknown fields.*colour"),
        ({"diffusion": "poisson"}, "unknown diffusion"),
    ):
        checkpoint.save(tmp_path / "other.npz", arrays, values | change)
        with pytest.raises(CheckpointError, match=words):
            load_on(here(), tmp_path / "other.npz")
    missing = {name: value for name, value in values.items() if name not in ("loss_weight", "fingerprint", "diffusion")}
    checkpoint.save(tmp_path / "old.npz", arrays, missing)
    assert load_on(here(), tmp_path / "old.npz").config == replace(t.config, fingerprint="")
    trainer().restore(tmp_path / "old.npz")


def test_a_checkpoint_whose_configuration_was_nested_as_until_version_0_1_is_read(tmp_path):
    from tinyddpm.program import checkpoint

    t = trainer()
    t.save(tmp_path / "c.npz")
    arrays, values = checkpoint.load(tmp_path / "c.npz")
    inner = {name: values.pop(name) for name in ("diffusion", "preset", "schedule", "T", "classes", "image", "unet")}
    checkpoint.save(tmp_path / "old.npz", arrays, {**values, "model": {**inner, "seed": 0}})
    assert load_on(here(), tmp_path / "old.npz").config == t.config


def test_a_file_of_another_program_is_refused(tmp_path):
    from tinyddpm.program import checkpoint

    checkpoint.save(tmp_path / "c.npz", {"a": np.zeros(2)}, {"what": "else"})
    with pytest.raises(CheckpointError, match="unknown fields.*what"):
        load_on(here(), tmp_path / "c.npz")


@pytest.mark.cpu
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change():
    t = trainer()
    before = state(t)
    t.model.network.last.bias.data[...] = np.inf
    with pytest.raises(FloatingPointError, match="loss"), np.errstate(all="ignore"):
        t.step()
    for name, array in t.model.network.state_dict().items():
        if name != "last.bias":
            np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("where", ["model/", "ema/average", "adam/mean", "adam/square"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_averages_and_moments_that_are_not_finite_are_not_saved(tmp_path, where, bad):
    t = trainer()
    t.step()
    t.save(tmp_path / "c.npz")
    before = (tmp_path / "c.npz").read_bytes()
    o = t.optimiser
    {"model/": o.flat, "ema/average": t.ema.average, "adam/mean": o.mean, "adam/square": o.square}[where][3] = bad
    with pytest.raises(FloatingPointError, match=f"{where}.* is not finite at step 1"):
        t.save(tmp_path / "c.npz")
    assert (tmp_path / "c.npz").read_bytes() == before


def rates(t, **amount):
    """The learning rate of every step of a run."""
    return [t.optimiser.learning_rate(step) for step, _ in t.run(**amount)]


def test_the_learning_rate_warms_up_holds_and_falls_to_zero_at_the_end_of_the_run():
    config = replace(CONFIG, learning_rate=1e-3, warmup_steps=4, fall=0.4)
    held = [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates(trainer(config), steps=10) == pytest.approx([1e-3 * r for r in [*held, 1, 0.75, 0.5, 0.25]])
    assert rates(trainer(replace(config, fall=0)), steps=8) == pytest.approx([1e-3 * r for r in [*held, 1, 1]])
    by_the_clock = rates(trainer(replace(config, warmup_steps=0, fall=0.9)), minutes=0.02)
    assert by_the_clock == sorted(by_the_clock, reverse=True) and 1e-3 == by_the_clock[0] > by_the_clock[-1]


@every
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_run_that_is_continued_goes_on_from_the_state_before_its_rate_fell_bit_for_bit(
    config, through_a_file, tmp_path
):
    whole, short = trainer(config), trainer(config)
    list(whole.run(steps=6))
    list(short.run(steps=3))
    assert short.steps_done == 3 and short.before_fall is not None
    if through_a_file:
        short.save(tmp_path / "c.npz")
        short = trainer(config)
        short.restore(tmp_path / "c.npz")
        assert short.steps_done == 3  # the finished run, to sample from; only more steps go back
    list(short.run(steps=3))
    assert short.steps_done == 3
    assert next(iter(short.run(steps=6)))[0] == 3  # the third again, at the full rate
    list(short.run(steps=6))
    assert_same(whole, short)


def test_a_file_that_names_no_optimiser_was_trained_by_adam_at_a_constant_rate_on_the_image_alone():
    older = {name: value for name, value in CONFIG.as_dict().items() if name not in ("optimiser", "fall")}
    unet = {"fourier": 0, "extremes": False, **CONFIG.unet}
    assert Config.from_dict(older | {"decay_steps": 0}) == replace(CONFIG, optimiser="adam", fall=0.0, unet=unet)
    with pytest.raises(ValueError, match="decay_steps"):
        Config.from_dict(older | {"decay_steps": 100})


def test_the_network_fits_the_images_and_the_diffusion_unless_another_is_asked_for():
    assert [Config(diffusion=name).preset for name in ("gaussian", "vdm", "binomial")] == ["small", "fine", "small"]
    assert Config(diffusion="vdm", image=(32, 32, 3)).preset == "base"
    assert Config(diffusion="vdm", preset="small").preset == "small"


def test_configurations_survive_json_and_refuse_unknown_names():
    import json

    assert Config.from_dict(json.loads(json.dumps(CONFIG.as_dict()))) == CONFIG
    with pytest.raises(ValueError, match="preset.*huge.*tiny"):
        Config(preset="huge")
    with pytest.raises(ValueError, match="prediction.*noise.*eps"):
        Config(prediction="noise")
    with pytest.raises(ValueError, match="unknown fields.*bach"):
        Config.from_dict({"bach": 3})


def test_a_shard_fills_a_cache_whatever_the_network_is():
    assert shard_size(Config(preset="base")) == 8
    assert shard_size(Config(preset="small")) == 16
