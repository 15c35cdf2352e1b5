"""The short form of campaign.py: each fault once, and damaged files some dozen times. And its own tools."""

import pytest

pytest.importorskip("resource", reason="the campaign limits processes as POSIX does")
pytest.importorskip("PIL", reason="samples are drawn by Pillow")

import campaign  # noqa: E402
import numpy as np  # noqa: E402
from damage import KINDS, damaged  # noqa: E402

pytestmark = pytest.mark.cpu
TRIALS = {"damaged checkpoint": 40, "damaged data file": 30, "NaN or infinity in a run": 4}
LONG = ("drawing", "between saves", "gone", "SIGTERM in sampling")  # up to ten seconds each, or like another


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return campaign.prepare(tmp_path_factory.mktemp("faults"), figures=False)


@pytest.mark.parametrize("name", [name for name in campaign.FAULTS if not any(word in name for word in LONG)])
def test_no_fault_is_silent_loses_work_or_ends_in_a_traceback(name, base):
    for number in range(TRIALS.get(name, 1)):
        end, _, note = campaign.attempt(name, number, base, times=1)
        assert end in campaign.GOOD, f"{end}: {note}"


def test_a_run_that_went_on_differently_is_silent(base, tmp_path):
    trial = campaign.Trial(base, tmp_path, np.random.default_rng(0))
    trial.expected = base.checkpoint[:-1] + b"?"
    assert trial.finish()[0] == "silent"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_changes_a_file(kind):
    rng = np.random.default_rng(0)
    for size in (100, 10000):
        data = rng.bytes(size - 1) + b"\n"
        assert any(kind(data, rng) != data for _ in range(20))
        assert damaged(data, rng) != data
