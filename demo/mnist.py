"""Train on MNIST for some minutes, then draw what was learned into a folder. This is what `make demo` runs.

    python demo/mnist.py --minutes 8 --out out

Run again, it goes on training where it stopped. Without MNIST and without a network it takes digits drawn from fonts.
"""

import argparse
import sys
from pathlib import Path

from tinyddpm.program.run import checkpoint_path, evaluate_run, plot_run, run_config, train_run
from tinyddpm.program.train import TrainConfig


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="how long to train (default 8)")
    parser.add_argument("--out", default="out", help="where everything goes (default out)")
    parser.add_argument("--data", default="auto", choices=("auto", "mnist", "glyphs"))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--images", type=int, default=500, help="test images for bits/dim (default 500)")
    arguments = parser.parse_args()

    out = Path(arguments.out)
    run = out / "run"
    resume = checkpoint_path(run).exists()
    config = run_config(run) if resume else TrainConfig(data=arguments.data)
    train_run(run, config, minutes=arguments.minutes, resume=resume, device=arguments.device)
    evaluate_run(run, images=arguments.images, device=arguments.device)
    for path in plot_run(run, out, device=arguments.device):
        print(path)
    print(
        f"\nLook at {out / 'digits.png'}: real digits beside generated ones. Then try:\n"
        f"  tinyddpm sample {run} --label 7 --guidance 2 --out {out / 'sevens.png'}"
    )


if __name__ == "__main__":
    sys.exit(main())
