"""A file of the user's that is named as a package of ours."""

import pytest
from subprocesses import run_python


@pytest.mark.parametrize("name", ["nn.py", "nn/__init__.py"])
@pytest.mark.parametrize("text", ["", "import torch_of_mine", "from tinyddpm.program import model"])
def test_a_user_s_own_nn_beside_the_script_is_named_with_what_to_do(tmp_path, name, text):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    (tmp_path / "script.py").write_text("import tinyddpm as td\nprint(td.gather)\ntd.train")
    done = run_python(tmp_path / "script.py")
    assert "function gather" in done.stdout  # the mathematics needs no nn
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: tinyddpm needs its own package `nn`, but `import nn` finds"), done.stderr
    assert str(tmp_path / name) in last and last.endswith("rename that file or folder")


def test_a_script_called_nn_is_named_too(tmp_path):
    (tmp_path / "nn.py").write_text("import tinyddpm as td\nprint(td.train)")
    done = run_python(tmp_path / "nn.py")
    assert "rename that file or folder" in done.stderr.splitlines()[-1]
