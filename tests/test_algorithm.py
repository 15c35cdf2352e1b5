"""docs/algorithm.md runs as it stands there, and each line gives what its comment says."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "algorithm.md").read_text("utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def names():
    found = {}
    exec(CODE, found)
    return found


def test_the_page_is_forty_lines():
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 42


def test_every_file_that_it_links_to_is_there():
    for path in re.findall(r"\]\((\S+?)\)", PAGE):
        assert (Path(__file__).parents[1] / "docs" / path).exists(), path


def test_the_forward_process_erases_the_data(names):
    schedule, q = names["schedule"], names["q499"]
    assert abs(names["x1"] - names["x0"]).max() < 0.1
    assert names["x500"].var() == pytest.approx(1, abs=0.15)
    assert q.variance == schedule.beta_tilde[500]


def test_the_loss_of_the_ideal_model_is_below_that_of_no_model(names):
    assert 0.02 < names["loss"] < 0.9 and names["weighted"] > 0
    assert ((names["eps"] - names["eps_hat"]) ** 2).mean() == pytest.approx(names["loss"])


@pytest.mark.parametrize("drawn", ["x", "x_ancestral", "x_ddim"])
def test_every_way_of_sampling_draws_the_mixture(names, drawn):
    x, x0 = names[drawn], names["x0"]
    assert (x < -0.1).mean() == pytest.approx(0.3, abs=0.08)
    assert x.mean() == pytest.approx(x0.mean(), abs=0.12) and x.std() == pytest.approx(x0.std(), abs=0.05)


def test_the_bound_is_above_the_entropy_and_near_it(names):
    entropy = -names["ideal"].log_prob(names["x0"], 0).mean()
    nats = names["bound"].total.mean()
    assert entropy - 0.05 < nats < entropy + 0.6  # beta_tilde costs 0.442 nats however many steps there are (E18)
    assert names["bits"] == pytest.approx(nats / np.log(2))
