"""How many one-line faults in other libraries' samplers the identities notice.

    python demo/conformance/mutate.py
    python demo/conformance/mutate.py --limit 20 --examples 10

The steps of DDPM, DDIM and DPM-Solver++ are read from the installed packages, changed in memory one operator, constant or
condition at a time, and put back. A change counts only if it changes what the adapters of that library return; the other
changes are in branches for options that these do not use, or change nothing. The last section of docs/conformance.md has
the result.
"""

import argparse
import ast
import copy
import functools
import importlib
import inspect
import os
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from report import put

from tinyddpm.properties import check
from tinyddpm.properties.cases import Case
from tinyddpm.properties.chains import run

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
SWAPS |= {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
SWAPS |= {ast.And: ast.Or, ast.Or: ast.And}


def ddpm_of_diffusers(library):
    leading = {"starts_at_T": False}
    kinds = "epsilon", "v_prediction", "sample"
    return [
        *(library.DDPM(steps=20, claims=leading, prediction_type=kind) for kind in kinds),
        library.DDPM(steps=20, claims={**leading, "variance": "beta"}, variance_type="fixed_large"),
    ]


def ddim_of_diffusers(library):
    claims = {"starts_at_T": False, "order": None}
    return [library.DDIM(steps=20, claims={**claims, "eta": eta}) for eta in (0.0, 1.0)]


def dpm_solver_of_diffusers(library):
    return [library.sampler("DPMSolverMultistepScheduler", solver="2m", order=2, steps=20)]


def ddpm_of_lucidrains(library):
    return [library.DDPM("cosine", 12, kind) for kind in ("pred_noise", "pred_x0", "pred_v")]


def ddim_of_lucidrains(library):
    return [library.DDIM(eta=eta) for eta in (0.0, 1.0)]


def karras_of_lucidrains(library):
    return [library.Elucidated(solver) for solver in ("heun", "2m")]


def named(*names):
    """Those adapters of a library whose name begins with one of these."""
    return lambda library: [adapter for adapter in library.adapters() if repr(adapter).startswith(names)]


CONVERSIONS = "predict_start_from_noise", "predict_noise_from_start", "predict_v", "predict_start_from_v"
TARGETS = [  # the module with the adapters, where the functions are, their names, and the adapters that use them
    (
        "for_diffusers",
        "diffusers:DDPMScheduler",
        ("step", "_get_variance", "add_noise", "get_velocity", "previous_timestep"),
        ddpm_of_diffusers,
    ),
    ("for_diffusers", "diffusers:DDIMScheduler", ("step", "_get_variance", "add_noise"), ddim_of_diffusers),
    (
        "for_diffusers",
        "diffusers:DPMSolverMultistepScheduler",
        ("step", "convert_model_output", "dpm_solver_first_order_update", "multistep_dpm_solver_second_order_update"),
        dpm_solver_of_diffusers,
    ),
    (
        "for_denoising_diffusion_pytorch",
        "denoising_diffusion_pytorch:GaussianDiffusion",
        (*CONVERSIONS, "q_sample", "q_posterior", "model_predictions", "p_mean_variance", "p_sample"),
        ddpm_of_lucidrains,
    ),
    (
        "for_denoising_diffusion_pytorch",
        "denoising_diffusion_pytorch:GaussianDiffusion",
        ("ddim_sample",),
        ddim_of_lucidrains,
    ),
    (
        "for_denoising_diffusion_pytorch",
        "denoising_diffusion_pytorch:ElucidatedDiffusion",
        ("sample", "sample_using_dpmpp", "c_skip", "c_out", "c_in"),
        karras_of_lucidrains,
    ),
    ("for_azula", "azula.sample:DDPMSampler", ("step",), named("DDPMSampler")),
    ("for_azula", "azula.sample:DDIMSampler", ("step",), named("DDIMSampler")),
    ("for_azula", "azula.sample:xEABSampler", ("__call__", "_exponential_adams_bashforth"), named("xEABSampler")),
    (
        "for_k_diffusion",
        "k_diffusion.sampling:",
        ("sample_euler_ancestral", "get_ancestral_step", "sample_heun", "sample_dpmpp_2m", "to_d"),
        named("sample_euler", "sample_heun", "sample_dpmpp_2m"),
    ),
]


def mutants(tree):
    """Each one-place change of a function's tree: (what was changed, the tree)."""
    for number, node in enumerate(ast.walk(tree)):
        for words, change in changes(node):
            other = copy.deepcopy(tree)
            change(next(n for i, n in enumerate(ast.walk(other)) if i == number))
            yield f"line {node.lineno}: {words}", other


def changes(node):
    """The ways to change one node: (words, function that does it)."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]
        yield f"{type(node.op).__name__} to {new.__name__} in {ast.unparse(node)}", lambda n: setattr(n, "op", new())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]
        yield f"{new.__name__} in {ast.unparse(node)}", lambda n: setattr(n, "ops", [new()])
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield f"{node.value} plus 1", lambda n: setattr(n, "value", n.value + 1)
    if isinstance(node, ast.If | ast.IfExp):
        yield f"not ({ast.unparse(node.test)})", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield f"no minus in {ast.unparse(node)}", lambda n: setattr(n, "op", ast.UAdd())


def compiled(owner, name, tree):
    names = {}
    exec(compile(ast.fix_missing_locations(tree), f"{name} changed", "exec"), vars(inspect.getmodule(owner)), names)
    return names[name]


def behaviour(adapters):
    """What the adapters return for fixed inputs, as bytes; the exception where there is one."""
    rng, found = np.random.default_rng(0), []
    for adapter in adapters():
        given = 2 * rng.standard_normal((3, 2, 2))
        case = Case(adapter, 7, *given.astype(adapter.dtype))
        asked = [functools.partial(run, case, lambda x, alpha_bar: np.tanh(x)), functools.partial(case.q_sample, 7)]
        asked += [functools.partial(one.step, case.noise) for one in (case, replace(case, t=1))]
        asked += [functools.partial(case.convert, case.eps, "eps", "x0")]
        asked += [functools.partial(case.convert, case.x0, "x0", "v")]
        for ask in asked:
            try:
                found.append(ask().tobytes())
            except Exception as error:
                found.append(type(error))
    return found


def score(owner, names, adapters, examples, limit):
    """How many changes changed something, and those among them that no identity noticed, in words."""
    right = behaviour(adapters)
    sources = {name: textwrap.dedent(inspect.getsource(getattr(owner, name))) for name in names}
    every = [(name, *mutant) for name, source in sources.items() for mutant in mutants(ast.parse(source))]
    counted, lived = 0, []
    for name, words, tree in every[:: -(-len(every) // limit)]:
        try:
            with patch.object(owner, name, compiled(owner, name, tree)):
                if behaviour(adapters) == right:
                    continue
                noticed = not all(check(adapter, examples).passed for adapter in adapters())
        except Exception:
            noticed = True
        counted += 1
        lived += [] if noticed else [f"{name}, {words}"]
    return counted, lived


def main():
    parser = argparse.ArgumentParser(description="Change the samplers of other libraries place by place; check each.")
    parser.add_argument("--examples", default=25, type=int, help="for each identity (default 25)")
    parser.add_argument("--limit", default=10**6, type=int, help="changes of each sampler, evenly chosen")
    parser.add_argument("--only", default="", help="targets whose name has this in it, such as azula")
    parser.add_argument("--out", default=Path(__file__).parents[2] / "docs/conformance.md", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")  # before a library imports it
    most = f", at most {arguments.limit} of each sampler, evenly chosen" if arguments.limit < 10**6 else ""
    lines = [
        f"`python demo/conformance/mutate.py` changes the code of the samplers in one place at a time{most}. Counted are"
    ]
    lines += ["the changes that change what the samplers return, and those among them that no identity notices.", ""]
    lines += ["| code | changes | noticed | lived |\n|---|---|---|---|"]
    for module, place, names, adapters in TARGETS:
        if arguments.only not in place:
            continue
        try:
            library = importlib.import_module(module)
        except ImportError as error:
            print(f"{place}: not checked, {error}", file=sys.stderr)
            continue
        package, _, kind = place.partition(":")
        owner = importlib.import_module(package)
        owner = getattr(owner, kind) if kind else owner
        found = score(owner, names, functools.partial(adapters, library), arguments.examples, arguments.limit)
        lived = "; ".join(f"`{words.replace('|', ' or ')}`" for words in found[1])
        shown = ", ".join(names)
        lines += [f"| {package} {kind} {shown} | {found[0]} | {found[0] - len(found[1])} | {lived} |"]
        print(lines[-1], flush=True)
    put(arguments.out, "Mutation", "", lines)


if __name__ == "__main__":
    main()
