"""Pictures: digits in grids and strips, schedule and loss curves, the bound's terms, a GIF. Next: cli.py.

matplotlib and Pillow draw; both come with the extra `demo` and are imported when the first picture is asked for.
Images are uint8 (N, H, W), and black is always 0: nothing is rescaled one image at a time, which would hide errors.
"""

import numpy as np

from tinyddpm.data.files import write_atomically

__all__ = ["grid", "save_png", "save_gif", "real_and_generated", "strip", "schedule_curves", "loss_curve"]
__all__ += ["loss_by_timestep", "bound_terms", "time_by_op"]

_INK, _ACCENT, _MUTED = "#1f2933", "#d1495b", "#30638e"


def _import(module, package):
    """An optional library; if it is missing, a RuntimeError that says what to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"drawing needs {package}: pip install 'tinyddpm[demo]'") from error


# ==== images ====


def grid(images, columns, gap=2, scale=3):
    """uint8 images (N, H, W) in rows of `columns`, `gap` pixels apart, each pixel scale x scale: one (H', W') image."""
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype != np.uint8 or columns < 1:
        raise ValueError(
            f"grid takes uint8 images (N, H, W) and columns >= 1, got {images.dtype} {images.shape}, {columns}"
        )
    n, h, w = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap), 40, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        canvas[y : y + h, x : x + w] = image
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def save_png(path, image):
    """Write a uint8 image (H, W) to `path`."""
    pillow = _import("PIL.Image", "Pillow")
    with write_atomically(path) as file:
        pillow.fromarray(image).save(file, format="PNG")


def save_gif(path, frames, milliseconds=80, hold=1500):
    """Write uint8 images (H, W) as an endless GIF; the last one stays for `hold` milliseconds."""
    pillow = _import("PIL.Image", "Pillow")
    first, *rest = [pillow.fromarray(frame) for frame in frames]
    times = [milliseconds] * len(rest) + [hold]
    with write_atomically(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=rest, duration=times, loop=0)


# ==== figures ====


def _figure(width, height):
    """A figure that needs no display."""
    return _import("matplotlib.figure", "matplotlib").Figure(figsize=(width, height), layout="constrained")


def _save(figure, path):
    with write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _show(axes, image, title):
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=10, color=_INK)
    axes.axis("off")


def _plain(axes, xlabel, ylabel, title):
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def real_and_generated(path, real, generated, columns=8, titles=("real", "generated")):
    """Two grids side by side, both uint8 (N, H, W), in rows of `columns` (one row a class, if sorted so)."""
    figure = _figure(10, 0.62 * max(len(real), len(generated)) / columns + 0.5)
    left, right = figure.subplots(1, 2)
    _show(left, grid(real, columns, scale=2), titles[0])
    _show(right, grid(generated, columns, scale=2), titles[1])
    _save(figure, path)


def strip(path, rows, timesteps, title):
    """Rows of images against the timestep. rows: uint8 (R, S, H, W). timesteps: S numbers, one for each column."""
    count, columns = rows.shape[:2]
    figure = _figure(1.05 * columns, 1.05 * count + 0.8)
    axes = figure.subplots()
    image = grid(rows.reshape(-1, *rows.shape[2:]), columns, scale=3)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    centres = (np.arange(columns) + 0.5) * image.shape[1] / columns
    axes.set_xticks(centres, [f"t = {t}" for t in timesteps])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, fontsize=11, color=_INK)
    _save(figure, path)


def schedule_curves(path, schedules, used=None):
    """beta, alpha_bar and log-SNR against t / T for {name: NoiseSchedule}; the one named `used` stands out."""
    figure = _figure(11, 3.2)
    panels = zip(
        figure.subplots(1, 3),
        ("beta", "alpha_bar", "log_snr"),
        (r"$\beta_t$, the noise of one step", r"$\bar\alpha_t$, the signal left", "log SNR"),
        strict=True,
    )
    for axes, table, title in panels:
        for name, schedule in schedules.items():
            t = np.arange(1, schedule.T + 1)
            style = {"linewidth": 2.4, "zorder": 3} if name == used else {"linewidth": 1.1, "alpha": 0.8}
            axes.plot(t / schedule.T, getattr(schedule, table)[1:], label=name, **style)
        _plain(axes, "t / T", "", title)
        if table == "beta":
            axes.set_yscale("log")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def loss_curve(path, losses, batch, name):
    """The training loss of every step, and its running mean, on a logarithmic axis. name: what loss it is."""
    losses = np.asarray(losses)
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color=_MUTED, alpha=0.25, linewidth=0.7, label="each step")
    window = max(1, len(losses) // 50)
    running = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps[window - 1 :], running, color=_ACCENT, linewidth=2, label=f"mean of the last {window}")
    axes.set_yscale("log")
    _plain(axes, f"step ({batch} images each)", name, "training loss")
    axes.legend(fontsize=8, frameon=False)
    _save(figure, path)


def loss_by_timestep(path, timesteps, losses, name):
    """The simple loss, of that name, at each of some timesteps."""
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    axes.plot(timesteps, losses, "o-", color=_MUTED, markersize=4)
    axes.set_yscale("log")
    _plain(axes, "t", name, "the loss at each timestep, on test images")
    _save(figure, path)


def bound_terms(path, evaluation):
    """The three terms of the bound as bars, in bits/dim."""
    names = ["$L_T$\nprior", "$L_{1:T-1}$\ndenoising", "$L_0$\nreconstruction", "sum"]
    values = [evaluation.prior, evaluation.denoising, evaluation.reconstruction, evaluation.total]
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    bars = axes.bar(names, values, color=[_MUTED, _MUTED, _MUTED, _ACCENT])
    axes.bar_label(bars, fmt="%.3g", fontsize=9)
    _plain(axes, "", "bits/dim", f"the bound on {evaluation.images} test images\n{evaluation.settings}")
    _save(figure, path)


def time_by_op(path, times, total, shown=14):
    """The largest of [(op, seconds)] as bars, beside all the others together; `total` is the whole step's seconds."""
    largest = times[:shown]
    largest = [*largest, ("all else", total - sum(seconds for _, seconds in largest))]
    figure = _figure(8, 0.3 * len(largest) + 1)
    axes = figure.subplots()
    names, seconds = zip(*reversed(largest), strict=True)
    bars = axes.barh(names, [1e3 * s for s in seconds], color=_MUTED)
    axes.bar_label(bars, [f"{s / total:.0%}" for s in seconds], fontsize=8, padding=3)
    _plain(axes, "ms", "", f"where a training step goes ({1e3 * total:.0f} ms on one thread)")
    _save(figure, path)
