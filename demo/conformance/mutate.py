"""How many one-line faults in other libraries' samplers the identities notice.

    python demo/conformance/mutate.py
    python demo/conformance/mutate.py --limit 20 --examples 10

The steps of DDPM, DDIM and DPM-Solver++ are read from the installed package, changed in memory one operator, constant or
condition at a time, and put back. A change counts only if it changes what the samplers of for_diffusers.py return; the
other changes are in branches for options that these do not use, or change nothing.
"""

import argparse
import ast
import copy
import inspect
import textwrap
from unittest.mock import patch

import diffusers
import for_diffusers as library
import numpy as np

from tinyddpm.properties import check
from tinyddpm.properties.cases import Case
from tinyddpm.properties.chains import run

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
SWAPS |= {ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
SWAPS |= {ast.And: ast.Or, ast.Or: ast.And}

leading = {"starts_at_T": False}
TARGETS = {  # scheduler: its methods, and the adapters that use them
    "DDPMScheduler": (
        ("step", "_get_variance", "add_noise", "get_velocity", "previous_timestep"),
        lambda: (
            [library.DDPM(steps=20, claims=leading, prediction_type=p) for p in ("epsilon", "v_prediction", "sample")]
            + [library.DDPM(steps=20, claims={**leading, "variance": "beta"}, variance_type="fixed_large")]
        ),
    ),
    "DDIMScheduler": (
        ("step", "_get_variance", "add_noise"),
        lambda: [library.DDIM(steps=20, claims={**leading, "eta": eta, "order": None}) for eta in (0.0, 1.0)],
    ),
    "DPMSolverMultistepScheduler": (
        ("step", "convert_model_output", "dpm_solver_first_order_update", "multistep_dpm_solver_second_order_update"),
        lambda: [library.sampler("DPMSolverMultistepScheduler", solver="2m", order=2, steps=20)],
    ),
}


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


def compiled(kind, method, tree):
    names = {}
    exec(compile(ast.fix_missing_locations(tree), f"{method} changed", "exec"), vars(inspect.getmodule(kind)), names)
    return names[method]


def behaviour(adapters):
    """What the adapters return for fixed inputs, as bytes; the exception where there is one."""
    rng, found = np.random.default_rng(0), []
    for adapter in adapters():
        case = Case(adapter, 7, *rng.standard_normal((3, 2, 2)).astype("float32"))
        asked = [lambda c=case: run(c, lambda x, alpha_bar: np.tanh(x)), lambda c=case: c.q_sample(7)]
        asked += [lambda c=case: c.convert(c.eps, "eps", "x0"), lambda c=case: c.convert(c.x0, "x0", "v")]
        for ask in asked:
            try:
                found.append(ask().tobytes())
            except Exception as error:
                found.append(type(error))
    return found


def main():
    parser = argparse.ArgumentParser(description="Change the samplers of diffusers place by place, and check each.")
    parser.add_argument("--examples", default=25, type=int, help="for each identity (default 25)")
    parser.add_argument("--limit", default=10**6, type=int, help="changes of each scheduler, evenly chosen")
    arguments = parser.parse_args()
    for name, (methods, adapters) in TARGETS.items():
        kind, right = getattr(diffusers, name), behaviour(adapters)
        trees = {m: ast.parse(textwrap.dedent(inspect.getsource(getattr(kind, m)))) for m in methods}
        every = [(m, *mutant) for m, tree in trees.items() for mutant in mutants(tree)]
        counted, lived = 0, []
        for method, words, tree in every[:: -(-len(every) // arguments.limit)]:
            with patch.object(kind, method, compiled(kind, method, tree)):
                try:
                    if behaviour(adapters) == right:
                        continue
                    noticed = not all(check(adapter, arguments.examples).passed for adapter in adapters())
                except Exception:
                    noticed = True
            counted += 1
            lived += [] if noticed else [f"{method}, {words}"]
        print(f"{name}: {counted - len(lived)} of {counted} changes noticed", *lived, sep="\n    ", flush=True)


if __name__ == "__main__":
    main()
