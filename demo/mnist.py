"""Train on MNIST for some minutes, then draw what was learned into a folder. This is what `make demo` runs.

    python demo/mnist.py --minutes 8 --out out

Run again, it goes on training where it stopped. Without MNIST and without a network it takes digits drawn by a pen font.
"""

import argparse
import sys
from pathlib import Path

import tinyddpm as td
from tinyddpm.program import figures, plots
from tinyddpm.program.arguments import at_least
from tinyddpm.program.checkpoint import RUN_FILE
from tinyddpm.program.cli import answered, command_line
from tinyddpm.program.train import read


def asked():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="how long to train (default 8)")
    parser.add_argument("--out", default="out", type=Path, help="where everything goes (default out)")
    parser.add_argument("--data", help="as for tinyddpm train (default auto: MNIST, or digits drawn here)")
    parser.add_argument("--data-dir", help="where MNIST's files are (default: $TINYDDPM_DATA, cache, download)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--images", type=at_least(2), default=500, help="test images for bits/dim (default 500)")
    return parser.parse_args()


def main(arguments):
    plots.drawing_works()
    run, compute = arguments.out / "run", td.Compute(arguments.device)
    resume = (run / RUN_FILE).exists()
    before = read(run)[0].data if resume else "auto"
    data = td.load_data(arguments.data or before, arguments.data_dir)
    test = data.test[: arguments.images]
    if len(test) < 2:
        raise ValueError(f"bits/dim are measured on at least 2 test images, and {data.name} has {len(test)}")
    model = td.train(data, minutes=arguments.minutes, out=run, resume=resume, compute=compute)

    print(model.evaluate(test))
    for path in plots.save_all(arguments.out, figures.all_figures(model, test, read(run)[1]["losses"])):
        print(path)
    label = ["--label", min(7, data.classes - 1), "--guidance", 2] if model.config.classes else []
    again = command_line("sample", run, *label, "--out", arguments.out / "more.png")
    print(f"\nLook at {arguments.out / 'digits.png'}: real digits beside generated ones. Then try:\n  {again}")


if __name__ == "__main__":
    sys.exit(answered(main, asked()))
