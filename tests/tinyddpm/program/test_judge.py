"""Samples judged: the classifier and its cache, what is said of known samples, and the command."""

import numpy as np
import pytest
from commands import command
from device.strict_device import installed, strict
from small import CONFIG, SQUARES, pictures

import nn
import tinyddpm as td
from tinyddpm.data.images import Data, DataError, Dataset
from tinyddpm.program import classifier
from tinyddpm.program.classifier import Classifier, classifier_of, features_and_probabilities, shifted
from tinyddpm.program.judge import Judge, as_seen, read_samples, said
from tinyddpm.program.model import Model
from tinyddpm.program.quality import frechet_distance, moments

pytest.importorskip("matplotlib", reason="figures need matplotlib")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A user's cache in which the classifier of SQUARES comes to lie."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"):  # Linux, Windows, macOS
            patch.setenv(name, str(folder))
        yield folder


@pytest.fixture(scope="module")
def judge(cache):
    return Judge(SQUARES, td.Compute(workers=1))


def no_training(*arguments, **options):
    pytest.fail("it trains")


# ---- the classifier ----


def test_it_learns_to_name_every_square(judge):
    assert (judge.probabilities.argmax(axis=1) == SQUARES.test.labels).all()
    assert np.allclose(judge.probabilities.sum(axis=1), 1) and judge.features.shape == (20, 96)


def test_it_is_trained_once_for_the_same_data_and_anew_for_others(judge, cache):
    again = classifier_of(SQUARES, td.Compute(workers=1), progress=no_training)
    for name, array in judge.classifier.state_dict().items():
        assert (again.state_dict()[name] == array).all()
    others = Dataset(SQUARES.train.images, SQUARES.train.labels[::-1])
    with pytest.raises(pytest.fail.Exception, match="it trains"):
        classifier_of(Data("squares", others, SQUARES.test), td.Compute(workers=1), progress=no_training)
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 1


def test_a_damaged_one_is_said_and_trained_again(cache, judge, monkeypatch, capsys):
    [path] = [path for path in cache.rglob("*.npz")]
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    classifier_of(SQUARES, td.Compute(workers=2))
    assert path.read_bytes() == whole  # the same bits, also on two workers
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(("image", "around"), [((28, 28, 1), ((2, 2), (2, 2))), ((9, 14, 3), ((3, 4), (1, 1)))])
def test_an_image_of_any_size_is_seen_in_the_middle_of_one_that_halves_three_times(image, around):
    x = np.random.default_rng(0).standard_normal((2, *image), np.float32)
    model = Classifier(image, classes=5)
    padded = np.pad(x, ((0, 0), *around, (0, 0)))
    assert padded.shape[1] % 8 == padded.shape[2] % 8 == 0
    logits = model(nn.Tensor(x)).data
    assert logits.shape == (2, 5) and (logits == model(nn.Tensor(padded)).data).all()


def test_features_and_probabilities_are_those_of_the_network_in_order_for_any_block():
    model, images = Classifier((8, 8, 1), classes=4), pictures(50).images
    x = nn.Tensor(classifier.to_model(images))
    for block in (7, 1000):
        features, probabilities = features_and_probabilities(model, images, td.Compute(workers=1), block)
        assert features.dtype == np.float64
        assert np.allclose(features, model.features(x).data, atol=1e-5)
        assert np.allclose(probabilities, nn.softmax(model(x)).data, atol=1e-5)


def test_images_shift_by_every_amount_up_to_two_and_what_comes_in_is_black():
    dot = np.zeros((1000, 7, 9, 3), np.uint8)
    dot[:, 3, 4] = 1, 2, 3
    moved = shifted(dot, 2, np.random.default_rng(0))
    assert moved.shape == dot.shape and (moved.sum(axis=(1, 2)) == [1, 2, 3]).all()
    places = {divmod(int(image[..., 0].argmax()), 9) for image in moved}
    assert places == {(y, x) for y in range(1, 6) for x in range(2, 7)}
    corner = np.zeros((100, 4, 4), np.uint8)
    corner[:, 0, 0] = 1
    assert {int(image.sum()) for image in shifted(corner, 1, np.random.default_rng(0))} == {0, 1}
    assert (shifted(corner, 0, np.random.default_rng(0)) == corner).all()


# ---- what is said ----


def test_what_the_probabilities_say_of_each_class():
    p = np.array([[0.96, 0.04, 0], [0.94, 0.06, 0], [0.01, 0.99, 0], [0.5, 0.4, 0.1]])
    sure, agreement, found, class_sure, class_agreement = said(p, np.array([0, 0, 1, 1]))
    assert (sure, agreement) == (0.5, 0.75) and found.tolist() == [0.75, 0.25, 0]
    assert np.allclose(class_sure, [0.5, 0.5, np.nan], equal_nan=True)
    assert np.allclose(class_agreement, [1, 0.5, np.nan], equal_nan=True)


def test_without_labels_the_classes_are_those_found_and_nothing_is_said_of_agreement():
    p = np.array([[0.96, 0.04, 0], [0.94, 0.06, 0], [0.01, 0.99, 0]])
    sure, agreement, found, class_sure, class_agreement = said(p, None)
    assert sure == 2 / 3 and np.isnan(agreement) and np.allclose(found, [2 / 3, 1 / 3, 0])
    assert np.allclose(class_sure, [0.5, 1, np.nan], equal_nan=True) and np.isnan(class_agreement).all()


def test_the_test_images_as_samples_are_perfect(judge):
    found = judge(SQUARES.test)
    assert abs(found.samples.distance) < 1e-10 and found.real.distance > 0
    assert (found.samples.precision, found.samples.recall) == (1, 1)
    for name in ("sure", "agreement", "found", "class_sure", "class_agreement"):
        assert (getattr(found.samples, name) == getattr(found.real, name)).all()
    assert np.isclose(found.samples.apart, found.real.apart[:, None]).any(axis=0).all()  # the same, in another order


def test_copies_of_training_images_show_and_measure_as_the_floor(judge):
    order = np.random.default_rng(0).permutation(len(SQUARES.train))[:20]
    found = judge(SQUARES.train[order])
    assert found.samples.distance == pytest.approx(found.real.distance)
    features, _ = features_and_probabilities(judge.classifier, found.images, judge.compute)
    variance = judge.features.var(axis=0, ddof=1).sum()
    squared = frechet_distance(*moments(features), *moments(judge.features))
    assert found.samples.distance == pytest.approx(100 * squared / variance)
    assert (found.samples.apart == 0).all() and (found.neighbours == found.images).all()
    assert (found.training, found.test) == (20, 20)


def test_noise_is_told_from_images(judge):
    noise = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)
    found = judge(noise, np.arange(200) % 4)
    assert found.samples.distance > 2 * found.real.distance and found.samples.apart.min() > found.real.apart.max()
    assert max(found.samples.sure, found.samples.agreement) < 0.6 and found.real.sure > 0.9


def test_a_class_that_is_missing_and_labels_that_are_not_there_print_as_a_dash(judge):
    text = str(judge(SQUARES.test.images[SQUARES.test.labels != 2]))
    assert "nan" not in text and text.splitlines()[-2].split()[:4] == ["2", "0.000", "0.150", "-"]


def test_colour_images_of_any_size_are_judged(cache):
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).integers(0, 100, (60, 5, 7, 3), dtype=np.uint8)
    images[labels == 1, :, :, 2] += 100
    found = Judge(Data("colours", Dataset(images[:40], labels[:40]), Dataset(images[40:], labels[40:])))(images, labels)
    assert found.real.agreement == found.samples.agreement == 1 and found.samples.found.tolist() == [0.5, 0.5]
    assert (found.samples.apart[:40] == 0).all() and (found.neighbours[:40] == images[:40]).all()


# ---- what cannot be judged ----


def test_data_without_labels_or_of_one_class_or_without_test_images_are_refused():
    images, labels = SQUARES.train.images, SQUARES.train.labels
    for train, test in (
        (Dataset(images), Dataset(images)),
        (Dataset(images, 0 * labels), Dataset(images, 0 * labels)),
        (SQUARES.train, SQUARES.test[:3]),
    ):
        with pytest.raises(ValueError, match="learns from labels of at least two classes"):
            Judge(Data("x", train, test))
    with pytest.raises(TypeError, match="must be a Data"):
        Judge(SQUARES.train)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (Dataset(np.zeros((9, 8, 9), np.uint8)), "at least 4 images like"),
        (SQUARES.test[:3], "at least 4 images like"),
        (Dataset(SQUARES.test.images, SQUARES.test.labels + 1), r"labels must be in 0\.\.3, got 4"),
        (SQUARES.test.images / 255, "uint8"),
    ],
)
def test_samples_unlike_the_data_are_refused(samples, said, judge):
    with pytest.raises(ValueError, match=said):
        judge(samples)


def test_a_file_that_holds_no_samples_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", images=SQUARES.test.images)
    (tmp_path / "y.npz").write_bytes(b"PK")
    np.save(tmp_path / "z.npz.npy", SQUARES.test.images)
    for name in ("x.npz", "y.npz", "z.npz.npy"):
        with pytest.raises(DataError, match=f"{name}: not a .npz with `samples`"):
            read_samples(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_samples(tmp_path / "none.npz")


# ---- models and the command ----


def test_a_model_is_judged_by_samples_of_its_own(judge):
    options = {"n": 5, "labels": [0, 1], "seed": 3, "steps": 2}
    model = Model(CONFIG, td.Compute(workers=1))
    found = model.judge(SQUARES, **options)
    assert (found.images == model.sample(**options)).all()
    expected = judge(found.images, [0, 1, 0, 1, 0]).samples
    assert (found.samples.agreement, found.samples.distance) == (expected.agreement, expected.distance)
    drawn = model.judge(SQUARES, n=5, seed=3, steps=2)
    assert (drawn.images == model.sample(5, seed=3, steps=2)).all() and not np.isnan(drawn.samples.agreement)


def test_bits_are_judged_beside_images_in_black_and_white(bits):
    grey = Data("grey", Dataset(SQUARES.train.images // 2 + 40, SQUARES.train.labels), SQUARES.test)
    seen = as_seen(td.load(bits), grey)
    assert set(np.unique(seen.train.images)) == {0, 255}
    assert (seen.train.images == SQUARES.train.images).all() and (seen.train.labels == SQUARES.train.labels).all()


def test_the_command_judges_a_run_and_a_file_and_draws_the_nearest(finished, tmp_path, capsys, cache):
    assert command("evaluate", finished, "--quality", "--n", 6, "--labels", "0,1", "--steps", 2, "--seed", 1) == 0
    own = capsys.readouterr().out
    assert own.startswith("6 samples") and own.splitlines()[-1] == str(finished / "nearest.png")
    x = tmp_path / "x.npz"
    assert command("sample", finished, "--n", 6, "--labels", "0,1", "--steps", 2, "--seed", 1, "--out", x) == 0
    capsys.readouterr()
    assert command("evaluate", finished, "--samples", x) == 0
    assert capsys.readouterr().out == own
    image = pytest.importorskip("PIL.Image").open(finished / "nearest.png")
    assert image.width > 500


def test_a_run_is_judged_on_a_device_that_refuses_arrays_of_the_host(finished, cache, capsys):
    with installed(), nn.gpu.kernels.plain_versions():
        found = Judge(SQUARES, td.Compute("cuda"), progress=no_training)
        assert found.classifier.logits.weight.xp is strict
        fresh = Classifier((8, 8, 1), 4).to(strict)
        classifier.train_classifier(fresh, SQUARES.train, found.compute, steps=2)
        assert command("evaluate", finished, "--quality", "--n", 5, "--steps", 2, "--device", "cuda") == 0
