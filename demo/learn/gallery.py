"""Draw docs/gallery/ with the instruments of lesson 11, from one checkpoint. This is what `make gallery` runs.

python demo/learn/gallery.py                         # with the model of the page, demo/page/digits.npz
python demo/learn/gallery.py --model runs/mnist      # with one's own
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from instrument import (
    Conditioned,
    conditioned_denoiser,
    enlarged,
    inpainting,
    interpolate,
    interpolate_at,
    learn,
    precision_recall,
    progressive,
)

import nn
import tinyddpm as td
from tinyddpm.data.images import to_model
from tinyddpm.data.progress import progress
from tinyddpm.program import plots
from tinyddpm.program.unet import UNet, UNetConfig

ROOT = Path(__file__).resolve().parents[2]
CLIP = (-1.0, 1.0)


def halved(images):
    """uint8 (N, 28, 28) at half their size, (N, 14, 14): the mean of every 2 x 2 pixels."""
    n, height, width = images.shape
    return images.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4)).round().astype(np.uint8)


def labelled(rows, names, title, scale=3):
    """A figure of rows of uint8 images (rows, columns, H, W), each row with its name."""
    rows = np.stack(rows)
    image = plots.grid(rows.reshape(-1, *rows.shape[2:]), rows.shape[1], scale=scale)
    figure = plots._figure(0.62 * rows.shape[1] + 1.8, 0.62 * len(rows) + 0.5)
    axes = figure.subplots()
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks((np.arange(len(rows)) + 0.5) * image.shape[0] / len(rows), names, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=10)
    return figure


def noise_of(model, count, seed=0):
    """noise(t) for a chain of `count` samples, the same at each call, as `model.sample` has it."""
    return lambda t: model.noise(seed, "sampler", t, np.arange(count))


def drawing(model, count, seed=0):
    """draw(): new noise for `count` samples at each call."""
    numbers = iter(range(1 << 31))
    return lambda: model.noise(seed, "drawn", next(numbers), np.arange(count))


def inpainting_picture(model, test, steps=50, repeats=(1, 5, 20), columns=10):
    """The lower half of test digits is hidden and drawn anew, without a label."""
    x0 = model.x0(test.images[:columns])
    seen = (np.arange(x0.shape[1]) < x0.shape[1] / 2)[:, None, None]
    rows, names = [model.pictures(x0), model.pictures(np.where(seen, x0, 0))], ["image", "seen"]
    for times in repeats:
        step = inpainting(x0, seen, drawing(model, columns), times)
        rows.append(draw(model, model.denoiser(), columns, steps, step))
        names.append(f"repeats {times}")
    return labelled(rows, names, "inpainting by replacement, with resampling (RePaint)")


def interpolation_picture(model, test, steps=100, levels=(0.25, 0.5, 0.75), columns=9):
    """From one digit to another: by DDIM's codes, and by Ho's way at three noise levels."""
    schedule, weights = model.visited(steps), np.linspace(0, 1, columns)
    a, b = model.x0(test.images[[0, 2, 1]]), model.x0(test.images[[5, 8, 7]])
    mixed = interpolate(model.denoiser(), schedule, a, b, weights, CLIP)
    rows, names = [model.pictures(np.stack([x[i] for x in mixed])) for i in range(3)], ["DDIM's codes", "", ""]
    for level in levels:
        t = round(level * schedule.T)
        mixed = interpolate_at(model.denoiser(), schedule, a[:1], b[:1], weights, t, noise_of(model, 1), CLIP)
        rows.append(model.pictures(np.concatenate(mixed)))
        names.append(f"Ho's, t = {schedule.timesteps[t]}")
    return labelled(rows, names, "interpolation of two test digits, left and right")


def draw(model, denoise, count, steps, step=td.ancestral_step, seed=0):
    """`count` pictures drawn with a denoiser."""
    x_T = model.noise(seed, "x_T", 0, np.arange(count))
    x0 = td.sample(denoise, model.visited(steps), x_T, noise_of(model, count, seed), step, CLIP)
    return model.pictures(x0)


def guidance_picture(model, test, steps=50, count=400):
    """One row a scale, one column a label; the last rows guide over an interval of t only."""
    labels, T = np.arange(10), model.schedule.T
    rows = {f"scale {s:g}": (s, None) for s in (0, 1, 2, 4, 8)}
    rows |= {f"8, t in {low}..{high}": (8, (low, high)) for low, high in ((1, T // 3), (T // 3, 2 * T // 3))}
    drawn = [draw(model, model.denoiser(labels, *choice), 10, steps) for choice in rows.values()]
    for scale, interval, precision, recall in guidance_table(model, test, count, min(steps, 25)):
        print(f"guidance: scale {scale}, t in {interval or 'all'}: precision {precision:.3f}, recall {recall:.3f}")
    return labelled(drawn, list(rows), "guidance: the noise of a column is one, its label 0 to 9")


def guidance_table(model, test, count, steps):
    """[(scale, interval, precision, recall)] of `count` drawn against as many real ones, by their pixels."""
    T, table = model.schedule.T, []
    real, labels = to_model(test.images[:count]), test.labels[:count]
    for scale, interval in ((1, None), (2, None), (4, None), (4, (T // 3, 2 * T // 3))):
        drawn = draw(model, model.denoiser(labels, scale, interval), count, steps, td.ddim_step)
        table.append((scale, interval, *precision_recall(real, to_model(drawn))))
    return table


def coding_picture(model, test, steps=None, count=32, shown=6, columns=16):
    """Rate and distortion of test images as more of each is sent, and the receiver's picture at some rates.

    These are figure 5 and table 4 of Ho et al. 2020. steps: T unless given.
    """
    schedule = model.visited(steps or model.schedule.T)
    x0, parts, T = model.x0(test.images[:count]), [], model.schedule.T
    sent = progressive(model.denoiser(), schedule, x0, noise_of(model, count), CLIP)
    for t, nats, x0_hat in progress(sent, total=schedule.T + 1, desc="coding"):
        rate, error = td.bits_per_dim(nats, x0[0].size).mean(), 127.5 * ((x0 - x0_hat) ** 2).mean() ** 0.5
        parts.append((schedule.timesteps[t], rate, error, model.pictures(x0_hat[:columns])))
    *parts, whole = parts
    t, rates, errors = np.array([part[:3] for part in parts]).T
    print(f"coding {count} test images:\n\n| T - t + 1 | rate, bits/dim | distortion, of 255 |\n|---|---|---|")
    for i in np.searchsorted(-t, -np.arange(1, T + 1, max(1, T // 10))).clip(max=len(t) - 1):
        print(f"| {T - t[i] + 1:.0f} | {rates[i]:.4f} | {errors[i]:.2f} |")
    print(f"\nwith L_0, which makes it lossless: {whole[1]:.3f} bits/dim")
    chosen = np.searchsorted(rates, np.linspace(0, 1, shown) ** 2 * rates[-1]).clip(0, len(rates) - 1)
    figure = plots._figure(11, 3.2 + 0.5 * (shown + 1))
    above, below = figure.subfigures(2, 1, height_ratios=(3.2, 0.5 * (shown + 1)))
    steps_done, by_rate = "steps of the reverse process, T - t", "rate, bits/dim"
    curves = (T - t, errors, steps_done), (T - t, rates, steps_done), (rates, errors, by_rate)
    names = "distortion: root mean square of 0..255", by_rate, "distortion"
    for axes, (x, y, below_it), name in zip(above.subplots(1, 3), curves, names, strict=True):
        axes.plot(x, y, color=plots._MUTED)
        axes.plot(x[chosen], y[chosen], "o", color=plots._ACCENT)
        plots._plain(axes, below_it, name, "")
    axes = below.subplots()
    rows = np.concatenate([*(parts[i][3] for i in chosen), whole[3]])
    image = plots.grid(rows, columns, scale=2)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    labels = [f"{rates[i]:.2f} bits/dim" for i in chosen] + ["image"]
    axes.set_yticks((np.arange(shown + 1) + 0.5) * image.shape[0] / (shown + 1), labels, fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def enlarging_picture(model, train, test, training_steps=400, steps=50, columns=10):
    """A second network learns 28x28 given 14x14; it enlarges test images, and what the first model draws."""
    schedule = td.NoiseSchedule.cosine(1000)
    network = Conditioned(UNet(UNetConfig(channels=2, width=12, multipliers=(1, 2), groups=4, attention=False)))

    def pairs(rng, n):
        images = train.images[rng.integers(len(train), size=n)]
        return to_model(images), enlarged(to_model(halved(images)))

    losses = learn(
        network, schedule, pairs, training_steps, batch=16, progress=partial(progress, desc="learning to enlarge")
    )
    print(f"enlarging: loss {np.mean(losses[-50:]):.3f} after {training_steps} steps of 16")

    def large(small, seed=0):
        condition, noise = enlarged(to_model(small)), np.random.default_rng(seed)
        x_T = noise.standard_normal(condition.shape, dtype=np.float32)
        denoise = conditioned_denoiser(network, schedule, condition)
        x0 = td.sample(denoise, schedule.respace(steps), x_T, lambda t: None, td.ddim_step, CLIP)
        return model.pictures(x0)

    real = test.images[:columns]
    drawn = model.sample(columns, labels=range(10), steps=steps, progress=None)
    rows = [enlarged(halved(real)[..., None])[..., 0], large(halved(real)), real]
    rows += [enlarged(np.asarray(drawn)[..., None])[..., 0], large(np.asarray(drawn))]
    return labelled(rows, ["test, 14x14", "enlarged", "test, 28x28", "drawn, 14x14", "enlarged"], "14x14 to 28x28", 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "demo" / "page" / "digits.npz", help="a model or a run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery", help="(default docs/gallery)")
    parser.add_argument("--steps", type=int, default=400, help="to train the enlarging network for (default 400)")
    parser.add_argument("--only", help="draw this one picture")
    options = parser.parse_args()
    model, data = td.load(options.model), td.load_data("auto")
    small = model.config.image == (14, 14, 1)
    test = td.Dataset(halved(data.test.images), data.test.labels) if small else data.test
    options.out.mkdir(parents=True, exist_ok=True)
    pictures = {
        "inpainting": lambda: inpainting_picture(model, test),
        "interpolation": lambda: interpolation_picture(model, test),
        "guidance": lambda: guidance_picture(model, test),
        "coding": lambda: coding_picture(model, test),
    }
    if small:
        pictures["enlarging"] = lambda: enlarging_picture(model, data.train, data.test, options.steps)
    for name, picture in pictures.items():
        if options.only in (None, name):
            with nn.constant_weights():
                figure = picture()
            plots.save_figure(options.out / f"{name}.png", figure)
            print(options.out / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
