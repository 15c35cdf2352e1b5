"""What every test shares: the hypothesis profile, the option --device, the fixture xp. See strategies.py."""

import contextlib
import os

import device
import numpy as np
import pytest
from device import strict_device
from hypothesis import settings

settings.register_profile("tinyddpm", derandomize=True, deadline=None, database=None)
settings.load_profile("tinyddpm")


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        choices=("cpu", "cuda", "strict"),
        default="cpu",
        help="where the tests' arrays live: "
        "NumPy; a GPU; or a stand-in for CuPy that needs no GPU and refuses what CuPy does",
    )


session = contextlib.ExitStack()


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "cpu: is about NumPy or about processes and threads of the CPU; runs with --device cpu only"
    )
    # One BLAS thread in each process that is started from here on: pytest-xdist starts one for every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    name = config.getoption("--device")
    if name == "strict":
        device.use(session.enter_context(strict_device.installed()))
        if strict_device.COMPILER is None:
            from nn.gpu.kernels import plain_versions

            session.enter_context(plain_versions())
    if name == "cuda":
        device.use(working_cupy())


def working_cupy():
    import nn

    try:
        return nn.choose_device("cuda")
    except RuntimeError as error:
        raise pytest.UsageError(f"--device cuda: {error}") from error


def pytest_unconfigure(config):
    session.close()


def pytest_collection_modifyitems(config, items):
    for item in items:
        if device.xp is not np and item.get_closest_marker("cpu"):
            item.add_marker(pytest.mark.skip(reason="is about the CPU: run with --device cpu"))


@pytest.fixture(scope="session")
def xp():
    """The array module of the device asked for: numpy, cupy with --device cuda, or the stand-in of strict_device.py."""
    return device.xp


@pytest.fixture(scope="module")
def cupy():
    """CuPy with --device cuda, else its stand-in, which runs kernels as C++ (skips where there is no compiler)."""
    if device.xp is not np and device.xp is not strict_device.strict:
        yield device.xp
    elif strict_device.COMPILER is None:
        pytest.skip("kernels need a GPU or a C++ compiler")
    else:
        with strict_device.installed() as module:
            yield module
