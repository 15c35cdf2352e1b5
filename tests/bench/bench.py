"""The same U-Net here and in PyTorch, on the same cores, in turn. Run by `make bench`; prints a table in Markdown.

Each framework runs in a process of its own; they take turns, so that a machine whose speed drifts is fair to all.
Outputs are compared before anything is timed.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

import gpu
import numpy as np
from worker import NAMES

import nn

WORKER = Path(__file__).with_name("worker.py")
CASES = ["train 1", "train 16", "train 128", "sample 1", "sample 16", "sample 64", "sample 128"]  # of batches so large


def start(name):
    """A worker process, and the outputs it computed for the common weights and inputs."""
    process = subprocess.Popen([sys.executable, WORKER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, np.array(json.loads(process.stdout.readline()))


def measure(process, case, batch):
    """Seconds of one run in a worker."""
    print(case, batch, file=process.stdin, flush=True)
    return json.loads(process.stdout.readline())


def peak_memory(name, case, batch):
    """MB above the imports at the peak of three runs, in a fresh process."""
    command = [sys.executable, WORKER, name, "--memory", case, str(batch)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def environment():
    """What these numbers depend on."""
    from threadpoolctl import threadpool_info

    blas = [f"{i['internal_api']} {i['version']} ({i.get('architecture', '?')})" for i in threadpool_info()]
    lines = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, {nn.available_cores()} cores",
        "processor": processor(),
        "Python, NumPy": f"{platform.python_version()}, {np.__version__}",
        "BLAS of NumPy": ", ".join(blas),
        "OPENBLAS variables": ", ".join(f"{k}={v}" for k, v in os.environ.items() if k.startswith("OPENBLAS"))
        or "none",
    }
    if importlib.util.find_spec("torch"):
        import torch

        lines["PyTorch"] = f"{torch.__version__}, {torch.get_num_threads()} threads"
    return "\n".join(f"- {key}: {value}" for key, value in lines.items())


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def frameworks():
    """The names that can run here."""
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed: pip install -e '.[bench]' to compare with it\n", file=sys.stderr)
        return ["tinyddpm", "numpy-im2col"]
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    return [name for name in NAMES if name != "torch-compile" or compiler]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each case (default 5)")
    parser.add_argument("--only", nargs="+", choices=NAMES, help="frameworks to run")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=f"of {CASES}")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        gpu.main(arguments.rounds)
        return
    names = [n for n in frameworks() if arguments.only is None or n in arguments.only]

    workers = {}
    for name in names:
        workers[name], outputs = start(name)
        if name == names[0]:
            expected = outputs
        difference = np.abs(outputs - expected).max() / np.abs(expected).max()
        assert difference < 1e-4, f"{name} computes something else: relative difference {difference:.1e}"

    print(
        f"{environment()}\n\nSeconds: median (min to max) of {arguments.rounds}; in brackets, its ratio to tinyddpm's.\n"
    )
    print("| case | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for case, batch in ((case, int(batch)) for case, batch in map(str.split, arguments.cases)):
        times = {name: [] for name in names}
        for turn in range(arguments.rounds + 2):
            for name in names:
                if name == "numpy-im2col" and turn > 2:  # slow, and one timed run shows it
                    continue
                seconds = measure(workers[name], case, batch)
                if turn >= 2:  # the first two turns warm up
                    times[name].append(seconds)
        base = statistics.median(times[names[0]])
        cells = [
            f"{statistics.median(s):.4f} ({min(s):.4f} to {max(s):.4f}) [{statistics.median(s) / base:.2f}]"
            for s in times.values()
        ]
        print(f"| {case}, batch {batch} | " + " | ".join(cells) + " |", flush=True)
        if (case, batch) == ("train", 128):
            rates = [f"{batch / statistics.median(s):.0f} images/s" for s in times.values()]
            print("| train, batch 128 | " + " | ".join(rates) + " |", flush=True)
    for process in workers.values():
        process.stdin.close()
        process.wait()
    if not arguments.no_memory:
        for case, batch in (("train", 128), ("train", 1024)):
            eager = [n for n in names if n != "torch-compile" and (batch == 128 or n != "numpy-im2col")]
            cells = {name: f"{peak_memory(name, case, batch):.0f} MB" for name in eager}
            print(
                f"| peak memory, {case}, batch {batch} | " + " | ".join(cells.get(n, "") for n in names) + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
