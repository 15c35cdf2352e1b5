"""Nothing of the host gets into what runs on the device, and nothing waits that need not: on strict_device.py, always."""

import contextlib

import numpy as np
import pytest
from device import strict_device
from device.strict_device import strict, synchronisations
from small import CONFIG, pictures

import nn
from tinyddpm.program import train
from tinyddpm.program.compute import Compute
from tinyddpm.program.evaluate import evaluate, loss_per_timestep
from tinyddpm.program.train import Trainer, load_on
from tinyddpm.samplers import SAMPLERS

pytestmark = pytest.mark.cpu  # with --device strict or cuda, all other tests are about this


@pytest.fixture(scope="module", autouse=True, params=["kernels", "plain"])
def device(request):
    """The stand-in, with kernels where a compiler is and with their plain versions."""
    if request.param == "kernels" and strict_device.COMPILER is None:
        pytest.skip("running kernels needs a C++ compiler")
    plain = nn.gpu.kernels.plain_versions() if request.param == "plain" else contextlib.nullcontext()
    with strict_device.installed(), plain, pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "READ_EVERY", 4)
        yield


def on(xp):
    return Compute("cpu" if xp is np else "cuda")


@pytest.fixture(scope="module")
def runs(device, tmp_path_factory):
    """{device: (the checkpoint of a run of three steps on it, the losses when it has gone on to six)}."""
    found = {}
    for xp in (strict, np):
        trainer, path = Trainer(CONFIG, pictures(), on(xp)), tmp_path_factory.mktemp("run") / "c.npz"
        list(trainer.run(steps=3))
        trainer.save(path)
        list(trainer.run(steps=6))
        found[xp] = path, trainer.losses
    return found


def resumed(xp, path):
    trainer = Trainer(CONFIG, pictures(), on(xp))
    trainer.restore(path)
    return trainer


def awake(model):
    """The model, with weights that are not near those of the start, where its output is 0."""
    rng = np.random.default_rng(1)
    for p in model.network.parameters():
        p.data += p.xp.asarray(np.float32(0.05) * rng.standard_normal(p.shape, dtype=np.float32))
    return model


# ==== the stand-in is as strict as it says ====


def test_the_stand_in_refuses_what_cupy_refuses():
    there, here = strict.ones(3), np.ones(3)
    for mixed in (
        lambda: there + here,
        lambda: here + there,
        lambda: strict.maximum(there, here),
        lambda: np.where(there > 0, there, here),
        lambda: there.dot(here),
    ):
        with pytest.raises(TypeError, match="numpy.ndarray"):
            mixed()
    with pytest.raises(TypeError, match="numpy.ndarray"):
        there[:] = here
    with pytest.raises(TypeError, match="numpy.ndarray"):
        there += here
    for asked in (np.asarray, np.array, lambda a: np.ones(3) @ np.stack([np.asarray(a)])):
        with pytest.raises(TypeError, match="Implicit conversion"):
            asked(there)


def test_the_stand_in_gives_arrays_where_cupy_does_and_counts_each_wait():
    there, before = strict.arange(4.0), synchronisations()
    total = there.sum() * 2
    assert isinstance(total, strict.ndarray) and total.shape == ()
    assert synchronisations() == before
    assert float(total) == 12 and there.get().tolist() == [0, 1, 2, 3] and bool(total > 1)
    assert synchronisations() == before + 3
    assert there[2:].base is there and there.reshape(2, 2)[0].base is there and (there + 1).base is None


# ==== training ====


def test_steps_of_training_do_not_wait_for_the_device_between_two_readings_of_the_loss():
    trainer = Trainer(CONFIG, pictures(), on(strict))
    list(trainer.run(steps=1))
    before = synchronisations()
    for _ in range(3):
        trainer.step()
    assert synchronisations() == before
    assert len(trainer.losses) == 1
    trainer.step()  # the fourth since the last reading
    assert synchronisations() == before + 1
    assert len(trainer.losses) == 5


def test_training_takes_the_steps_it_takes_on_the_cpu(runs):
    (_, there), (_, here) = runs[strict], runs[np]
    np.testing.assert_allclose(there, here, rtol=1e-4)
    assert len(there) == 6


def test_a_loss_that_is_not_finite_is_told_when_it_is_read_and_nothing_is_saved(runs, tmp_path):
    trainer = resumed(strict, runs[strict][0])
    trainer.model.network.last.bias.data[...] = np.inf
    with np.errstate(all="ignore"):
        trainer.step()
        with pytest.raises(FloatingPointError, match="the loss is (inf|nan) at step 3"):
            trainer.save(tmp_path / "c.npz")
    assert not list(tmp_path.iterdir())


# ==== checkpoints cross ====


@pytest.mark.parametrize("first, then", [(strict, np), (np, strict)], ids=["GPU, then CPU", "CPU, then GPU"])
def test_a_run_goes_on_on_the_other_device(runs, first, then):
    trainer = resumed(then, runs[first][0])
    list(trainer.run(steps=6))
    np.testing.assert_allclose(trainer.losses, runs[np][1], rtol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_checkpoint_gives_the_same_digits_on_both_devices_up_to_rounding(runs, sampler):
    models = [awake(load_on(on(xp), runs[strict][0])) for xp in (strict, np)]
    there, here = (model.sample(3, np.arange(3), 1.5, sampler, steps=3, seed=2) for model in models)
    assert there.dtype == np.uint8
    assert abs(there.astype(int) - here).max() <= 1  # a level, where rounding fell to the other side


def test_a_chain_waits_for_the_device_at_its_end_alone(runs):
    model, waits = load_on(on(strict), runs[strict][0]), []
    for steps in (2, 5):
        before = synchronisations()
        model.sample(2, steps=steps)
        waits.append(synchronisations() - before)
    assert waits[0] == waits[1]


def test_the_bound_and_the_loss_per_timestep_are_those_of_the_cpu(runs):
    images = pictures(6).images
    results = []
    for xp in (strict, np):
        model = load_on(on(xp), runs[np][0])
        bound = evaluate(model, images, np.zeros(6, int), draws=2)
        results.append(
            [bound.prior, bound.denoising, bound.reconstruction, *loss_per_timestep(model, images, points=3)[1]]
        )
    np.testing.assert_allclose(*results, rtol=1e-4)


# ==== out of memory ====


@pytest.mark.parametrize(
    "act, batch",
    [
        (lambda trainer: trainer.step(), 8),
        (lambda trainer: trainer.model.sample(5, batch=3), 3),
        (lambda trainer: evaluate(trainer.model, pictures(5).images, batch=4), 4),
    ],
    ids=["training", "sampling", "evaluating"],
)
def test_a_batch_too_large_for_the_memory_is_named_with_what_to_try(monkeypatch, act, batch):
    trainer = Trainer(CONFIG, pictures(), on(strict))

    def full(*arguments):
        raise strict_device.OutOfMemoryError("Out of memory allocating 512 bytes")

    monkeypatch.setattr(type(trainer.model.network), "__call__", full)
    with pytest.raises(MemoryError, match=f"batch of {batch}; try a smaller batch .*allocating 512 bytes"):
        act(trainer)
