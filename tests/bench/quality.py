"""How good are samples for how many evaluations of the network: every sampler and spacing, at several counts.

python tests/bench/quality.py runs/mnist --out out/quality [--n 1000] [--evaluations 5,10,20,50,100] [--samplers ddim:t,...]

Each is judged as `tinyddpm evaluate --quality` does, on the same noise and labels. Results are kept in OUT/quality.json
as they come, so a run that is stopped goes on; OUT/quality.png draws all that is there, and a table in Markdown is printed.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from tinyddpm import load_data
from tinyddpm.data.files import write_atomically
from tinyddpm.program import plots
from tinyddpm.program.compute import Compute
from tinyddpm.program.judge import Judge, as_seen
from tinyddpm.program.train import load_on
from tinyddpm.samplers import named_sampler

CHOICES = "ancestral:angle,ancestral:t,sde_dpm_solver:angle,sde_dpm_solver:log_snr,sde_dpm_solver:karras,"
CHOICES += "ddim:angle,dpm_solver:angle,dpm_solver:log_snr,dpm_solver_2s:log_snr,dpm_solver_3m:log_snr,heun:log_snr"
COLUMNS = "distance", "sure", "agreement", "precision", "recall"


def counted(step, calls):
    """The step, with each call of the model noted in the list `calls`."""

    def counting(denoise, schedule, xt, t):
        def asked(x, t):
            calls.append(t)
            return denoise(x, t)

        return step(asked, schedule, xt, t)

    return counting


def steps_for(sampler, evaluations):
    """The steps that take so many evaluations, or one less: Heun's method asks twice, but once in its last step."""
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def measure(model, judge, n, sampler, spacing, evaluations, guidance):
    """One row of the table."""
    labels, calls = np.arange(n) % model.config.classes, []
    batch = min(n, 128)
    step = counted(named_sampler(sampler), calls)
    options = {"guidance_scale": guidance, "steps": steps_for(sampler, evaluations), "spacing": spacing, "batch": batch}
    found = judge(model.sample(n, labels, sampler=step, **options), labels).samples
    row = {"sampler": sampler, "spacing": spacing, "asked": evaluations, "n": n, "guidance": guidance}
    row["evaluations"] = len(calls) // -(-n // batch)
    return row | {name: round(float(getattr(found, name)), 4) for name in COLUMNS}


def picture(rows):
    """Distance and the share of sure samples against evaluations, a line for each sampler and spacing."""
    figure = plots._figure(13, 4)
    panels = figure.subplots(1, 2)
    for i, name in enumerate(dict.fromkeys((row["sampler"], row["spacing"]) for row in rows)):
        mine = sorted((r for r in rows if (r["sampler"], r["spacing"]) == name), key=lambda r: r["evaluations"])
        style = {"color": f"C{i}", "ls": "-" if i < 10 else "--", "label": f"{name[0]}, {name[1]}"}
        for axes, column in zip(panels, ("distance", "sure"), strict=True):
            axes.plot([row["evaluations"] for row in mine], [row[column] for row in mine], marker="o", ms=3, **style)
    for axes, label in zip(panels, ("Frechet distance, percent", "share over 95% sure"), strict=True):
        axes.set_xscale("log")
        plots._plain(axes, "evaluations of the network", label, "")
        ticks = sorted({row["asked"] for row in rows})
        axes.set_xticks(ticks, ticks)
        axes.minorticks_off()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def table(rows):
    lines = ["| sampler | spacing | evaluations | " + " | ".join(COLUMNS) + " |", "|---" * (3 + len(COLUMNS)) + "|"]
    for row in rows:
        values = [row["sampler"], row["spacing"], row["evaluations"], *(f"{row[name]:.3f}" for name in COLUMNS)]
        lines.append("| " + " | ".join(map(str, values)) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run of a model with labels")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--n", type=int, default=1000, help="samples of each (default 1000)")
    parser.add_argument("--evaluations", default="5,8,10,15,20,30,50,100")
    parser.add_argument("--samplers", default=CHOICES, help="sampler:spacing, with commas between")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()

    plots.drawing_works()
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / "quality.json"
    rows = json.loads(kept.read_text()) if kept.exists() else []
    done = {(r["sampler"], r["spacing"], r["asked"], r["n"], r["guidance"]) for r in rows}
    model = load_on(Compute(workers=arguments.workers), arguments.run)
    data = load_data(model.config.data, arguments.data_dir, **model.config.data_options)
    judge = Judge(as_seen(model, data), model.compute)
    for choice in arguments.samplers.split(","):
        for evaluations in map(int, arguments.evaluations.split(",")):
            case = (*choice.split(":"), evaluations, arguments.n, arguments.guidance)
            if case in done:
                continue
            rows.append(measure(model, judge, arguments.n, *case[:3], arguments.guidance))
            with write_atomically(kept) as file:
                file.write(json.dumps(rows, indent=1).encode())
            print(rows[-1], flush=True)
    shown = [row for row in rows if (row["n"], row["guidance"]) == (arguments.n, arguments.guidance)]
    plots.save_figure(arguments.out / "quality.png", picture(shown))
    print(table(shown))


if __name__ == "__main__":
    main()
