"""What is installed: the packages `tinyddpm` and `nn`, and the command `tinyddpm`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
init = (here / "tinyddpm" / "__init__.py").read_text("utf-8")
readme = here / "README.md"

setup(
    name="tinyddpm",
    version=re.search(r'^__version__ = "(.+)"', init, re.MULTILINE)[1],
    description="Denoising diffusion from the array up: the mathematics, the network, its gradients",
    long_description=readme.read_text("utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author="the tinyddpm authors",
    license="MIT",
    packages=find_packages(include=["nn", "nn.*", "tinyddpm", "tinyddpm.*"]),
    package_data={"nn.gpu": ["*.cu"]},
    python_requires=">=3.11",
    install_requires=["numpy>=2", "threadpoolctl>=3", "cloudpickle>=3,<4"],
    extras_require={
        "demo": ["matplotlib>=3.8", "pillow>=10", "tqdm>=4.60"],
        "learn": ["jupytext>=1.16", "hypothesis>=6.100"],  # the lessons as notebooks; lesson 10 tests by properties
        "cuda12": ["cupy-cuda12x>=13"],
        "cuda13": ["cupy-cuda13x>=13"],
        "ctk": ["nvidia-cuda-nvrtc-cu12"],  # to compile kernels.cu without a GPU
        "mpi": ["mpi4py>=4", "mpich"],
        "test": ["pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.5"]
        + ["ipykernel>=6", "jupytext>=1.16", "nbclient>=0.8"],  # for the lessons as notebooks
        "page": ["playwright>=1.40"],  # to use the page in a browser, in tests
        "bench": ["torch>=2.4"],
        "mutation": ["mutmut>=3.6"],
    },
    entry_points={
        "console_scripts": ["tinyddpm = tinyddpm.program.cli:main"],
        "pytest11": ["tinyddpm = tinyddpm.properties.plugin"],
    },
)
