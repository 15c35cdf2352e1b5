"""What every lesson uses: its size, its picture, and the check of an exercise."""

import os
import runpy
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from threadpoolctl import threadpool_limits

import tinyddpm as td
from tinyddpm.data import glyphs

IN_NOTEBOOK = "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None
if not IN_NOTEBOOK:
    plt.switch_backend("agg")  # a script saves its pictures and opens no window

threadpool_limits(1)  # the matrices here are small: several threads of BLAS would mostly wait for each other

COLOURS = INK, RED, BLUE, GREEN, GREY = "#1f2933", "#d1495b", "#30638e", "#3c896d", "#9aa5b1"
plt.rcParams |= {"figure.constrained_layout.use": True, "savefig.dpi": 120, "legend.frameon": False}
plt.rcParams |= {"axes.prop_cycle": plt.cycler(color=COLOURS), "axes.spines.top": False, "axes.spines.right": False}


def small(full, tiny):
    """`full`, or `tiny` where TINYDDPM_SMALL is set, as the tests do: every size in a lesson goes through here."""
    return tiny if os.environ.get("TINYDDPM_SMALL") else full


def digits():
    """`td.load_data("auto")`: MNIST, or where it cannot be had, drawn digits. If lessons run small, a few of those."""
    if not small(False, True):
        return td.load_data("auto")
    return td.Data("glyphs", *(td.Dataset(*glyphs.draw(n, seed)) for seed, n in enumerate((500, 100))))


def show(figure, part=""):
    """The figure, as the last value of a notebook's cell; a script saves it in TINYDDPM_OUT (out/learn if not set)."""
    plt.close(figure)  # or a notebook shows it twice
    if not IN_NOTEBOOK:
        path = Path(os.environ.get("TINYDDPM_OUT", "out/learn")) / f"{Path(sys.argv[0]).stem}{part}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        print(path)
    return figure


def check(lesson, exercise, answer):
    """Say "right" if the function `answer` solves the exercise; raise AssertionError, with a hint, if it does not."""
    solutions = runpy.run_path(str(Path(__file__).parent / "solutions" / f"{lesson:02}.py"))
    solutions[f"check_{exercise}"](answer)
    print("right")
