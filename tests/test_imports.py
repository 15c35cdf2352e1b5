"""Who may import whom, how long it takes, and what every file promises: read from the files themselves."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NN = sorted((ROOT / "nn").rglob("*.py"))
TINYDDPM = sorted((ROOT / "tinyddpm").rglob("*.py"))
DEMO = sorted((ROOT / "demo").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
PROGRAM = [path for path in TINYDDPM if path.parent.name == "program"]
COMMAND = [path for path in TINYDDPM if path.name == "__main__.py"]


def name(path):
    return str(path.relative_to(ROOT))


def module_of(path):
    """The dotted name of the module in a file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def folder_of(path):
    """The folder inside its package that a file lies in: "" at the top, "theory", "cpu"."""
    return "/".join(path.relative_to(ROOT).parts[1:-1])


def every(paths):
    return pytest.mark.parametrize("path", paths, ids=name)


def imported(path, at_import=False):
    """Full names of all that a file imports: modules, and `module.name` for a name taken. at_import: not in functions."""
    names, stack = set(), [ast.parse(path.read_text("utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if not (at_import and isinstance(node, ast.FunctionDef)):
            stack.extend(ast.iter_child_nodes(node))
    return names


def modules_imported(path, at_import=False):
    """The modules of tinyddpm and nn that a file imports, or takes a name from."""
    modules = set(map(module_of, NN + TINYDDPM))
    return {full if full in modules else full.rpartition(".")[0] for full in imported(path, at_import)} & modules


def top(names):
    return {full.split(".")[0] for full in names}


# ---- who imports whom: by folder ----


@every(NN)
def test_nn_knows_nothing_of_diffusion(path):
    assert "tinyddpm" not in top(imported(path))


@every([path for path in TINYDDPM if path not in PROGRAM + COMMAND])
def test_only_the_program_imports_nn(path):
    assert "nn" not in top(imported(path))


@every([path for path in TINYDDPM if folder_of(path) in ("", "theory") and path not in COMMAND])
def test_the_mathematics_imports_numpy_and_the_standard_library_only(path):
    allowed = {"numpy", "tinyddpm", "cupy"}  # CuPy inside functions: see what importing loads, below
    assert top(imported(path)) - set(sys.stdlib_module_names) <= allowed


@every([path for path in TINYDDPM if folder_of(path) == "" and path not in COMMAND])
def test_the_evenings_read_imports_no_folder_below(path):
    """`__init__` hands names of the program over when they are asked for, inside a function."""
    modules = modules_imported(path, at_import=path.name == "__init__.py")
    assert not [module for module in modules if module.count(".") > 1]


@every([path for path in TINYDDPM if folder_of(path) != "program" and path not in COMMAND])
def test_nothing_imports_the_program(path):
    modules = modules_imported(path, at_import=path.name == "__init__.py")
    assert not [module for module in modules if module.startswith("tinyddpm.program")]


def test_no_module_imports_itself_in_a_circle():
    edges = {module_of(path): modules_imported(path, at_import=True) - {module_of(path)} for path in NN + TINYDDPM}
    while leaves := [module for module, needs in edges.items() if not needs]:
        for leaf in leaves:
            del edges[leaf]
        for needs in edges.values():
            needs.difference_update(leaves)
    assert not edges


@every(NN + TINYDDPM)
def test_no_name_of_a_package_shadows_one_of_its_modules(path):
    if path.name == "__init__.py":
        package = importlib.import_module(module_of(path))
        for module in path.parent.glob("[!_]*.py"):
            value = getattr(package, module.stem, None)
            assert not callable(value), f"{module_of(path)}.{module.stem} is a function and a module"


@every(DEMO)
def test_the_demo_uses_public_names_only(path):
    for full in imported(path):
        module, _, taken = full.rpartition(".")
        if module.split(".")[0] in ("nn", "tinyddpm"):
            submodule = (ROOT / module.replace(".", "/") / f"{taken}.py").exists()
            public = getattr(importlib.import_module(module), "__all__", dir(importlib.import_module(module)))
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
    modules = [module_of(path) for path in NN + TINYDDPM if path not in COMMAND]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = top(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split())
    assert not loaded & {"matplotlib", "PIL", "tqdm", "cupy", "torch", "hypothesis", "mpi4py", "scipy"}


# ---- what every file promises ----


@every(NN + TINYDDPM + DEMO + TESTS)
def test_a_file_can_be_held_in_the_head(path):
    limit = 600 if path.parent.name == "faults" else 400 if path in TESTS else 300  # lists, read a piece at a time
    assert len(path.read_text("utf-8").splitlines()) <= limit


@every(NN + TINYDDPM + DEMO)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("package", ["nn", "tinyddpm"])
def test_the_docstrings_lead_through_a_package_in_one_chain_without_a_circle(package):
    """Each module says "Next: file.py", where the file is named from its own folder or from the package's."""
    paths = [path for path in NN + TINYDDPM if module_of(path).split(".")[0] == package and path.name[0] != "_"]
    following = {}
    for path in paths:
        named = re.search(r"Next: ([\w/]+\.py)", ast.get_docstring(ast.parse(path.read_text("utf-8"))))
        if named:
            places = [path.parent / named[1], ROOT / package / named[1]]
            following[path] = next((place for place in places if place in paths), None)
            assert following[path], f"{name(path)} leads to {named[1]}, which is no module"
    first = [path for path in paths if path not in following.values()]
    assert len(first) == 1, f"no module leads to {', '.join(map(name, first))}"
    walked = [first[0]]
    while walked[-1] in following:
        walked.append(following[walked[-1]])
        assert walked[-1] not in walked[:-1], f"{name(walked[-2])} leads back to {name(walked[-1])}"
    assert set(walked) == set(paths), f"not in the chain: {', '.join(map(name, set(paths) - set(walked)))}"


@every([path for path in NN + TINYDDPM if path not in COMMAND and module_of(path) != "nn"])
def test_all_is_true(path):
    module = importlib.import_module(module_of(path))
    assert len(set(module.__all__)) == len(module.__all__)
    assert not [public for public in module.__all__ if not hasattr(module, public)]
