"""The example of the README, typed as it stands: in a notebook, at a prompt, on stdin, in a script without a guard."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = re.search(r"```python\n(import tinyddpm as td\n.*?)```", README, re.DOTALL)[1]
# In seconds: fewer images, fewer steps, and digits that need no file.
SHORT = EXAMPLE.replace("minutes=5", "steps=2, batch=8, T=10, preset='tiny', workers=2").replace(
    "data.test)", "data.test[:4])"
)
SHORT = SHORT.replace('"mnist"', "SQUARES").replace("range(10)", "range(4)").replace("judge(data)", "judge(data, n=8)")
OWN = """
import nn

class Own(nn.Module):
    def __init__(self):
        self.scale = nn.Tensor(nn.array_module(0).ones(1, "float32"), True)
    def __call__(self, x, t, labels=None):
        return x * self.scale

own = td.train(data, steps=2, batch=8, T=10, workers=2, network=Own(), loss_weight=lambda schedule, kind, t: 1.0 + 0 * t)
print("own", own.sample(4, labels=0, steps=2).shape)
"""
DONE = "own (4, 8, 8)"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's lines, on a file of squares, in a folder of its own."""
    import numpy as np
    from small import SQUARES

    np.savez(tmp_path / "squares.npz", images=SQUARES.train.images, labels=SQUARES.train.labels)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return SHORT.replace("SQUARES", '"squares.npz"') + OWN


def finished(process):
    assert process.returncode == 0 and DONE in process.stdout, process.stdout + process.stderr


def test_it_runs_in_a_script_without_a_guard(example, tmp_path):
    (tmp_path / "script.py").write_text(example)
    finished(subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=300))


def test_it_runs_from_stdin(example):
    finished(subprocess.run([sys.executable, "-"], input=example, capture_output=True, text=True, timeout=300))


def test_it_runs_at_a_prompt(example):
    typed = re.sub(r"\n(?=\S)", "\n\n", example) + "\n"  # a blank line ends a block
    finished(subprocess.run([sys.executable, "-i", "-q"], input=typed, capture_output=True, text=True, timeout=300))


def test_it_runs_in_a_notebook_and_images_show_themselves(example):
    manager = pytest.importorskip("jupyter_client.manager", reason="jupyter_client is not installed (extra 'test')")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra 'test')")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    shown, printed = [], []

    def watch(message):
        content = message["content"]
        shown.extend(content.get("data", {}))
        printed.append(content.get("text", "") + "\n".join(content.get("traceback", [])))

    try:
        for cell in (f"import sys; sys.path.insert(0, {str(ROOT)!r})", example, "images"):
            reply = client.execute_interactive(cell, timeout=300, output_hook=watch)
            assert reply["content"]["status"] == "ok", "".join(printed)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert "image/png" in shown and DONE in "".join(printed)
