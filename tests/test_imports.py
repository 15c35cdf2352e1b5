"""Who may import whom, how long it takes, and what every file promises: read from the files themselves."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NN = sorted((ROOT / "nn").glob("*.py"))
TINYDDPM = sorted((ROOT / "tinyddpm").glob("*.py"))
DEMO = sorted((ROOT / "demo").glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# The only modules that know both sides; every other one is mathematics.
PROGRAM = {
    "__main__", "checkpoint", "cli", "data", "evaluate", "files", "glyphs", "mnist", "model", "plots",
    "process", "profile", "progress", "run", "train", "unet",
}  # fmt: skip
MATHEMATICS = [path for path in TINYDDPM if path.stem not in PROGRAM]
# The identities as checks: the part of the mathematics that hypothesis drives.
CHECKS = {"properties", "adapters", "identities"}


def name(path):
    return str(path.relative_to(ROOT))


def module_of(path):
    return f"{path.parent.name}.{path.stem}".removesuffix(".__init__")


def every(paths):
    return pytest.mark.parametrize("path", paths, ids=name)


def imported(path):
    """Full names of all that a file imports, anywhere in it: modules, and `module.name` for a name taken."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, [path.parent.name if node.level else "", node.module]))
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def modules_imported(path):
    """The modules of tinyddpm and nn that a file imports, or takes a name from."""
    names = imported(path)
    modules = [f"{other.parent.name}.{other.stem}" for other in NN + TINYDDPM]
    return {module for module in modules if any(f"{taken}.".startswith(f"{module}.") for taken in names)}


def top(names):
    return {full.split(".")[0] for full in names}


# ---- who imports whom ----


@every(NN)
def test_nn_knows_nothing_of_diffusion(path):
    assert "tinyddpm" not in top(imported(path))


@every(MATHEMATICS)
def test_the_mathematics_imports_numpy_and_itself_only(path):
    allowed = {"numpy", "tinyddpm", "cupy"}  # CuPy inside functions: see what importing loads, below
    if path.stem in CHECKS:
        allowed.add("hypothesis")
    assert top(imported(path)) - set(sys.stdlib_module_names) <= allowed
    assert not {module.split(".")[1] for module in modules_imported(path)} & PROGRAM


def test_no_module_imports_itself_in_a_circle():
    edges = {f"{path.parent.name}.{path.stem}": modules_imported(path) for path in NN + TINYDDPM}
    while leaves := [module for module, needs in edges.items() if not needs]:
        for leaf in leaves:
            del edges[leaf]
        for needs in edges.values():
            needs.difference_update(leaves)
    assert not edges


@every(DEMO)
def test_the_demo_uses_public_names_only(path):
    for full in imported(path):
        module, _, taken = full.rpartition(".")
        if module.split(".")[0] in ("nn", "tinyddpm"):
            public = importlib.import_module(module).__all__
            submodule = (ROOT / module.replace(".", "/") / f"{taken}.py").exists()
            assert taken in public or submodule, f"{full} is not public"


# ---- import tinyddpm ----


def test_import_tinyddpm_takes_under_a_third_of_a_second():
    """The best of several, numpy included; CPU time, which others on the machine disturb least."""
    measure = "import time; start = time.process_time(); import tinyddpm; print(time.process_time() - start)"
    times = []
    while len(times) < 10 and min(times, default=1) >= 0.3:
        times.append(float(subprocess.check_output([sys.executable, "-c", measure], cwd=ROOT)))
    assert min(times) < 0.3


def test_importing_loads_no_optional_package():
    modules = [module_of(path) for path in NN + TINYDDPM if path.stem not in CHECKS | {"__main__"}]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = top(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split())
    assert not loaded & {"matplotlib", "PIL", "tqdm", "cupy", "torch", "hypothesis", "mpi4py", "scipy"}


# ---- what every file promises ----


@every(NN + TINYDDPM + DEMO + TESTS)
def test_a_file_can_be_held_in_the_head(path):
    limit = 400 if path in TESTS else 300  # tests are a list, read a piece at a time
    assert len(path.read_text("utf-8").splitlines()) <= limit


@every(NN + TINYDDPM + DEMO)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@every(NN + [path for path in TINYDDPM if path.stem != "__main__"])
def test_all_is_true(path):
    module = importlib.import_module(module_of(path))
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [public for public in module.__all__ if not hasattr(module, public)]
