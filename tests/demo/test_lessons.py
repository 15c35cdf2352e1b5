"""Every lesson runs from top to bottom and draws its picture; its exercises have answers, and refuse a usual mistake."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the lessons draw with matplotlib: pip install matplotlib pillow")

ROOT = Path(__file__).resolve().parents[2]
LEARN = ROOT / "demo" / "learn"
LESSONS = sorted(LEARN.glob("[0-9]*.py"))
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


@every_lesson
def test_a_lesson_runs_as_a_script_and_draws_its_picture(path, tmp_path):
    from PIL import Image

    result = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TINYDDPM_SMALL": "1", "TINYDDPM_OUT": str(tmp_path / "pictures")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    with Image.open(tmp_path / "pictures" / f"{path.stem}.png") as picture:
        assert min(picture.size) >= 300 and len(picture.convert("RGB").getcolors(1 << 24)) > 10


@every_lesson
def test_a_lesson_opens_as_a_notebook(path):
    jupytext = pytest.importorskip("jupytext", reason="converts a lesson into a notebook: pip install jupytext")
    cells = jupytext.read(path).cells
    first, kinds = cells[0].source, {cell.cell_type for cell in cells}
    assert first.startswith(f"# {int(path.stem[:2])}. ") and kinds == {"markdown", "code"}
    question, _, rest = first.partition("\n")
    assert question.endswith("?") and rest.strip()
    assert any("show(" in cell.source for cell in cells if cell.cell_type == "code")


def test_a_lesson_runs_in_a_notebook_and_shows_its_progress_and_its_picture():
    """Converted by jupytext, and run from top to bottom by a kernel: the lesson that also trains and samples."""
    jupytext = pytest.importorskip("jupytext", reason="converts a lesson into a notebook: pip install jupytext")
    nbclient = pytest.importorskip("nbclient", reason="runs a notebook: pip install nbclient")
    pytest.importorskip("ipykernel", reason="the kernel of a notebook: pip install ipykernel")
    notebook = jupytext.read(LEARN / "12_own_data.py")
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(LEARN)}}
    )
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT), "TINYDDPM_SMALL": "1"})
    outputs = {
        marker: [output for cell in notebook.cells if marker in cell.source for output in cell.get("outputs", ())]
        for marker in ("td.train(", "show(fig)")
    }
    assert any("training" in output.get("text", "") + str(output.get("data")) for output in outputs["td.train("])
    pictures = [output for output in outputs["show(fig)"] if "image/png" in output.get("data", {})]
    assert len(pictures) == 1 and pictures[0]["output_type"] == "execute_result"  # once, as the value of the cell


@every_lesson
def test_the_readme_lists_a_lesson(path):
    assert f"[{path.name}]({path.name})" in (LEARN / "README.md").read_text("utf-8")


@every_lesson
@pytest.mark.parametrize("exercise", [1, 2, 3])
def test_an_exercise_accepts_its_answer_and_refuses_the_usual_mistake(path, exercise):
    assert re.search(rf"check\({int(path.stem[:2])}, {exercise}, ", path.read_text("utf-8"))
    solutions = runpy.run_path(str(LEARN / "solutions" / f"{path.stem[:2]}.py"))
    solutions[f"check_{exercise}"](solutions[f"answer_{exercise}"])
    with pytest.raises(AssertionError, match="."):  # which says what is wrong
        solutions[f"check_{exercise}"](solutions[f"mistake_{exercise}"])


def test_a_reader_is_told_that_an_answer_is_right(monkeypatch, capsys):
    monkeypatch.syspath_prepend(LEARN)
    from lesson import check

    answer = runpy.run_path(str(LEARN / "solutions" / "01.py"))["answer_1"]
    check(1, 1, answer)
    assert capsys.readouterr().out == "right\n"
