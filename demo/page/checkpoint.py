"""Train the page's model, digits.npz: MNIST at half its size, 14x14, on a network of 90,625 parameters (394 kB).

    python demo/page/checkpoint.py                      # 4,000 steps: about 10 minutes on two quiet cores
    python demo/page/checkpoint.py --data glyphs --steps 600 --out /tmp/digits.npz

The file holds the averaged weights and the configuration; `tinyddpm sample demo/page/digits.npz --out x.png` reads it.
"""

import argparse
from pathlib import Path

import numpy as np

import tinyddpm as td
from tinyddpm.data.images import Data, Dataset

NETWORK = {"width": 12, "multipliers": (1, 2), "groups": 4, "attention": False}


def halved(dataset):
    """The images of a Dataset at half their size: the mean of every 2 x 2 pixels."""
    n, height, width = dataset.images.shape
    means = dataset.images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return Dataset(means.round().astype(np.uint8), dataset.labels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="mnist (default), or glyphs, which need no download")
    parser.add_argument("--steps", type=int, default=4_000, help="of 64 images each (default 4,000)")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("digits.npz"), help="(default digits.npz beside this)"
    )
    options = parser.parse_args()
    data = td.load_data(options.data)
    data = Data(f"{data.name} at 14x14", halved(data.train), halved(data.test))
    model = td.train(data, options.steps, preset="tiny", unet=NETWORK)
    td.save(model, options.out)
    first = [np.flatnonzero(data.test.labels == label)[0] for label in range(data.classes)]
    np.save(options.out.with_name("examples.npy"), data.test.images[first])
    print(f"saved as {options.out}, with a test image of each class beside it")


if __name__ == "__main__":
    main()
