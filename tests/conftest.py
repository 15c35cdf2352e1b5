"""What every test shares: the hypothesis profile, the option --device, the fixture xp. See strategies.py."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("tinyddpm", derandomize=True, deadline=None, database=None)
settings.load_profile("tinyddpm")


def pytest_addoption(parser):
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="where the tests' arrays live")


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU; runs with --device cuda only")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--device") == "cpu":
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a GPU: run with --device cuda"))


@pytest.fixture(scope="session")
def xp(request):
    """The array module of the device asked for: numpy, or cupy with --device cuda (skips without a GPU)."""
    if request.config.getoption("--device") == "cpu":
        return np
    cupy = pytest.importorskip("cupy", reason="--device cuda needs cupy")
    try:
        cupy.zeros(1) + 1
    except Exception as error:
        pytest.skip(f"--device cuda needs a GPU: {error}")
    return cupy
