"""The demos about theory run as their first lines say, each as a program of its own."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def documented(demo):
    """The commands that a demo's docstring gives for itself, in order."""
    lines = ast.get_docstring(ast.parse((ROOT / "demo" / demo).read_text("utf-8"))).splitlines()
    return [line.strip() for line in lines if line.strip().startswith(f"python demo/{demo}")]


def run(command, out=None):
    """The output of a documented command, with its folder replaced by `out`."""
    words = command.split()
    if out is not None:
        words[words.index("--out") + 1] = str(out)
    result = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout


def small(demo):
    """The documented command with a size."""
    (command,) = [command for command in documented(demo) if "--size" in command]
    return command


def test_a_schedule_is_learned_whose_estimate_varies_less(tmp_path):
    printed = run(small("learned_schedule.py"), tmp_path)
    table = {words[0]: float(words[2]) for words in map(str.split, printed.splitlines()) if len(words) == 3}
    assert table["learned"] < table["linear"] / 3 < table["cosine"] / 3
    assert (tmp_path / "learned_schedule.png").exists()
    slopes = [line.partition(": ")[2] for line in printed.splitlines() if "differentiat" in line]
    assert len(slopes) == 2 and slopes[0] == slopes[1]
