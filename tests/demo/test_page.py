"""The page: its builder and its Python here, and the page itself in a real browser where there is one."""

import importlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import browser
import numpy as np
import pytest

import tinyddpm as td

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "demo" / "page"


@pytest.fixture(scope="module")
def program():
    """program(name): a module of the page, as the page imports it."""
    sys.path.insert(0, str(PAGE))
    yield importlib.import_module
    sys.path.remove(str(PAGE))


# ==== the builder ====


def test_bits_are_taken_only_with_the_right_bytes(program, tmp_path):
    bits = program("bits")
    name = "pyodide.mjs"
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / name).write_bytes(b"something else")
    assert bits.found_in(tmp_path) == {}


def test_every_reading_is_in_the_repository_as_the_page_shows_it(program):
    build, readings = program("build"), program("readings")
    for name, equation in itertools.chain(*readings.READINGS.values()):
        source, path, line = build.source_of(name)
        lines = (ROOT / path).read_text("utf-8").splitlines(keepends=True)
        assert "".join(lines[line - 1 :]).startswith(source)
        assert equation


@pytest.fixture
def few_bits(tmp_path):
    """Stand-ins for the files of others: the builder packs what it is given."""
    names = ["pyodide.mjs", "numpy-2.whl", "hypothesis-6.whl"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    return {name: tmp_path / name for name in names}


def table_of(page):
    """The table of files in the HTML of a page."""
    return json.loads(re.search(r'id="files">\n(.*?)</script>', page.read_text("utf-8"), re.DOTALL)[1])


def test_the_site_names_every_file_with_its_sha256(program, few_bits, tmp_path):
    page = program("build").build(tmp_path / "site", few_bits, PAGE / "digits.npz")
    table = table_of(page)
    files = [*table["core"].values(), *table["archives"], *table["checker"]]
    assert len(files) == len(few_bits) + 1  # and the project
    for file in files:
        assert (page.parent / file["url"]).exists() and file["integrity"].startswith("sha256-")
    for name in re.findall(r'"\./(\w+\.js)"', page.read_text("utf-8")):
        assert (page.parent / name).exists()


def test_the_single_file_needs_no_other_and_is_the_same_each_time(program, few_bits, tmp_path):
    build = program("build").build
    page = build(tmp_path / "one" / "page.html", few_bits, PAGE / "digits.npz", single=True)
    assert list(page.parent.iterdir()) == [page]
    table = table_of(page)
    assert all(file["url"].startswith("data:") for file in [*table["core"].values(), *table["archives"]])
    assert build(tmp_path / "two.html", few_bits, PAGE / "digits.npz", single=True).read_bytes() == page.read_bytes()


def test_the_page_names_no_other_host():
    for path in PAGE.iterdir():
        if path.suffix in (".html", ".js", ".css"):
            hosts = re.findall(r"https?://[^\s\"'`<>)]+", path.read_text("utf-8"))
            assert set(hosts) <= {"http://www.w3.org/2000/svg"}, path  # the name of a vocabulary, not an address


# ==== its Python ====


def values(program, task, most=None, **options):
    """What a task gives, or the first so many of it."""
    return list(itertools.islice(program("worker").start(task, options), most))


def test_scrub_shows_q_sample_and_the_error_of_the_network(program):
    model = td.load(PAGE / "digits.npz", workers=1)
    image = np.load(PAGE / "examples.npy")[3:4]
    noisy, guess = values(program, "scrub", image=image.ravel().tolist(), t=300, seed=5)
    x0, noise = model.x0(image), model.noise(5, "scrub", 0, np.arange(1))
    xt = td.q_sample(model.schedule, x0, 300, noise)
    assert np.array_equal(noisy["xt"], model.pictures(xt).ravel())
    x0_hat = model.denoiser()(xt, 300)
    eps_hat = td.convert(model.schedule, x0_hat, xt, 300, "x0", "eps")
    assert guess["loss"] == pytest.approx(float(((noise - eps_hat) ** 2).mean()), rel=1e-5)


def test_the_terms_are_large_where_little_noise_hides_much(program):
    image = np.load(PAGE / "examples.npy")[0].ravel().tolist()
    found = values(program, "terms", image=image, seed=0, points=6)
    assert [one["t"] for one in found] == sorted({one["t"] for one in found})
    assert found[0]["loss"] > found[-1]["loss"] > 0 and all(one["bits"] > 0 for one in found)


@pytest.mark.parametrize("label, guidance", [(-1, 1.5), (4, 2.0)])
def test_the_last_of_the_chain_is_what_sample_draws(program, label, guidance):
    last = values(program, "sample", n=2, label=label, seed=7, steps=4, sampler="ddim", guidance=guidance)[-1]
    model = td.load(PAGE / "digits.npz", workers=1)
    chosen = {} if label < 0 else {"labels": label, "guidance_scale": guidance}  # 1.5 is what is taken for none
    images = model.sample(2, sampler="ddim", steps=4, seed=7, progress=None, **chosen)
    assert last["t"] == 0 and np.array_equal(last["xt"], np.asarray(images).ravel())


def test_points_are_learned(program):
    points = program("points")
    learner = points.Learner()
    learner.learn(points.moons, td.named_schedule("cosine", points.T), "v")
    losses = [learner.step() for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])


def test_points_go_on_with_other_data_and_another_prediction(program):
    options = {"data": "moons", "schedule": "cosine", "prediction": "v", "every": 0.01}
    first, second = values(program, "train_points", 2, fresh=True, **options)
    steps = len(first["t"])
    assert first["path"].size == steps * first["data"].size and len(first["scores"]) % (steps - 1) == 0
    assert np.isfinite(second["losses"]).all()
    learner = program("points")._learner
    options |= {"data": "spiral", "schedule": "linear", "prediction": "eps"}
    more = values(program, "train_points", 2, fresh=False, **options)
    assert np.isfinite(more[-1]["losses"]).all() and program("points")._learner is learner


def test_a_drawing_becomes_points_where_its_ink_is(program):
    cells = np.zeros((4, 4))
    cells[0, 3] = 255  # the corner at the top right
    points = program("points").drawn(cells.ravel(), 4)(np.random.default_rng(0), 100)
    assert points.min() >= 0.5 and points.max() <= 1
    with pytest.raises(ValueError, match="no ink"):
        program("points").drawn(np.zeros(16), 4)


def test_digits_are_trained_and_go_on_with_the_same_weights(program):
    options = {"schedule": "cosine", "prediction": "v", "every": 2}
    found = values(program, "train_digits", 4, fresh=True, **options)
    assert [sorted(one) for one in found[:2]] == [["loss", "seconds"]] * 2 and found[2]["samples"].size == 10 * 14 * 14
    trainer = program("worker")._trainer
    before = [p.data.copy() for p in trainer.parameters]
    generator = program("worker").start("train_digits", {**options, "prediction": "eps", "fresh": False})
    next(generator)
    assert program("worker")._trainer is not trainer
    moved = [abs(p.data - q).max() for p, q in zip(program("worker")._trainer.parameters, before, strict=True)]
    assert max(moved) < 0.02  # by one step of a small rate, not by a new start


FOUND = {  # the identities that fail for each fault
    "nothing wrong": set(),
    "β for its root in a step (a printed misprint)": {"E1 step"},
    "x_t from the ᾱ before": {"E2 marginal"},
    "ᾱ for α in the posterior’s mean": {"E7 mean", "E30 mean"},
    "β for the posterior’s variance": {"E7 variance", "E9 end", "E29 variance"},
    "noise at the last step": {"E29 variance", "E29 last noise"},
    "a table that starts with noise": {"E5 start", "E2 tables", "E9 end", "E29 last mean"},
}


@pytest.mark.parametrize("fault", FOUND)
def test_each_fault_that_the_page_offers_is_found(program, fault):
    right, wrong = program("faults").FAULTS[fault]
    code = (PAGE / "adapter.py").read_text("utf-8")
    assert right == "" or code.count(right) == 1
    found = values(program, "check", code=code.replace(right, wrong) if right else code, examples=15)
    failed = {one["name"]: one["example"] for one in found if one["status"] == "fails"}
    assert failed.keys() >= FOUND[fault] and bool(failed) == bool(FOUND[fault])
    assert all(example.startswith("smallest example: t = ") for example in failed.values())


def test_code_that_cannot_run_is_answered_with_its_line(program):
    (found,) = values(program, "check", code="x = 1\nmine = y\n", examples=5)
    assert found["error"] == "line 2: NameError: name 'y' is not defined"


# ==== in a browser ====


@pytest.fixture(scope="module")
def found(program):
    """The files of others, as `make page` fetched them."""
    bits = program("bits")
    found = bits.found_in(ROOT / "out" / "bits")
    if browser.missing() or found.keys() != bits.SHA256.keys():
        pytest.skip(browser.missing() or "there is no Python in WebAssembly: `make page` fetches it into out/bits")
    return found


@pytest.fixture(scope="module")
def chromium(found):
    with browser.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def page(program, found, chromium, tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    program("build").build(site, found, PAGE / "digits.npz")
    with browser.served(site) as address:
        opened = browser.opened(chromium, address, viewport={"width": 1280, "height": 900})
        opened.address = address
        yield opened


def test_the_page_asks_no_other_host_and_complains_of_nothing(page):
    assert all(url.startswith((page.address, "blob:", "data:")) for url in page.requests)
    assert page.complaints == []
    assert "NumPy" in page.inner_text("#status")


def test_tabs_are_chosen_with_the_keys(page):
    page.focus("#tab-scrub")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#sample") and page.is_hidden("#scrub")
    page.keyboard.press("Home")
    assert page.is_visible("#scrub")


def test_a_drawn_digit_is_noised_as_q_sample_does(page):
    page.click("#tab-scrub")
    page.focus("#pad canvas")
    for key in ["ArrowUp", "Space"] * 4 + ["ArrowRight", "Space"] * 4:
        page.keyboard.press(key)
    page.focus("#scrub [name=t]")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    t = int(page.input_value("#scrub [name=t]"))
    page.wait_for_selector("#scrub[aria-busy=false]")
    model = td.load(PAGE / "digits.npz", workers=1)
    x0 = model.x0(np.array(browser.grey_levels(page, "pad-canvas"), np.uint8)[None])
    xt = td.q_sample(model.schedule, x0, t, model.noise(0, "scrub", 0, np.arange(1)))
    assert np.array_equal(browser.grey_levels(page, "xt"), model.pictures(xt)[0])


def border_distance(label, guidance, sampler, steps, seed):
    """How far each pixel of image 0 is from where its grey level would round to another: (14, 14), in grey levels."""
    model = td.load(PAGE / "digits.npz", workers=1)
    labels = None if label < 0 else model.labels(label, 1)
    *_, (_, x0, _) = model.chain(np.arange(1), labels, guidance, sampler, steps, seed)
    levels = 127.5 * (x0[0, :, :, 0].astype(np.float64).clip(-1, 1) + 1)
    return abs(levels % 1 - 0.5)


@pytest.mark.parametrize(
    "sampler, label, guidance", [("ddim", -1, 1), ("sde_dpm_solver", 5, 1.5), ("dpm_solver", 3, 2)]
)
def test_the_same_seed_draws_the_same_digit_as_the_command_line(page, tmp_path, sampler, label, guidance):
    page.click("#tab-sample")
    for name, value in {"seed": 11, "steps": 12, "n": 1, "guidance": guidance}.items():
        page.fill(f"#sample [name={name}]", str(value))
    page.select_option("#sample [name=label]", str(label))
    page.select_option("#sample [name=sampler]", sampler)
    browser.run_to_its_end(page, "sample")
    assert page.inner_text("#sample .said").startswith("t = 0")
    command = page.inner_text("#command").replace("digits.png", str(tmp_path / "digits.npz")).split()
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True)
    with np.load(tmp_path / "digits.npz") as drawn:
        differ = browser.grey_levels(page, "chain-x") != drawn["samples"].reshape(14, 14)
    # WebAssembly has no BLAS: sums are rounded in another order, by up to about 2e-4 of a grey level at the end.
    assert not (differ & (border_distance(label, guidance, sampler, 12, 11) > 2e-3)).any()
    assert differ.sum() <= 1


def steps_said(page, panel, more_than=0):
    """How many steps of training a panel says were made, once they are more than so many."""
    steps = f"parseInt(document.querySelector('#{panel} .said').textContent)"
    page.wait_for_function(f"{steps} > {more_than}")
    return page.evaluate(steps)


def test_points_train_stop_and_go_on(page):
    page.click("#tab-points")
    page.click("#points .go")
    steps_said(page, "points")
    page.click("#points .stop")
    page.wait_for_selector("#points .go:not(:disabled)")
    stopped_at = steps_said(page, "points")
    page.wait_for_timeout(1500)
    assert steps_said(page, "points") == stopped_at
    page.select_option("#points [name=prediction]", "eps")
    page.click("#points .go")
    steps_said(page, "points", stopped_at)  # it goes on, and does not start over
    page.click("#points .stop")
    page.wait_for_selector("#points .go:not(:disabled)")


def test_digits_train_and_stop(page):
    page.click("#tab-digits")
    page.click("#digits .go")
    steps_said(page, "digits", 2)
    page.click("#digits .stop")
    page.wait_for_selector("#digits .go:not(:disabled)")
    assert "ms each" in page.inner_text("#digits .said")


def test_a_fault_is_found_and_its_smallest_example_shown(page):
    page.click("#tab-check")
    page.select_option("#fault", "noise at the last step")
    page.fill("#check [name=examples]", "10")
    browser.run_to_its_end(page, "check")
    assert "fail" in page.inner_text("#check .said")
    failed = page.inner_text("#verdicts")
    assert "fails: E29 last noise" in failed and "smallest example: t = 1" in failed


def test_more_than_one_worker_is_refused_with_a_sentence(page):
    page.click("#tab-check")
    page.fill("#check textarea", "import tinyddpm as td\ntd.Compute(workers=2)")
    browser.run_to_its_end(page, "check")
    assert "workers must be 1" in page.inner_text("#check .said")


def test_code_that_never_ends_is_ended_and_the_page_goes_on(page):
    page.click("#tab-check")
    page.fill("#check textarea", "while True: pass")
    page.click("#check .go")
    page.wait_for_timeout(500)
    page.click("#check .stop")
    page.wait_for_selector("#check .go:not(:disabled)")
    assert "started anew" in page.inner_text("#check .said")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_telephone_and_the_colours_that_are_wished_for(page, scheme):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    for tab in page.query_selector_all("[role=tab]"):
        tab.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert (brightness < 150) == (scheme == "dark")


def test_the_single_file_works_from_a_disk(program, found, chromium, tmp_path):
    single = program("build").build(tmp_path / "page.html", found, PAGE / "digits.npz", single=True)
    page = browser.opened(chromium, single.as_uri())
    page.click("#tab-sample")
    page.fill("#sample [name=steps]", "3")
    browser.run_to_its_end(page, "sample")
    assert page.inner_text("#sample .said").startswith("t = 0")
    assert {url.split(":")[0] for url in page.requests} <= {"file", "blob", "data"}
