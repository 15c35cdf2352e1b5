"""Pictures: images in grids and strips, schedule and loss curves, the bound's terms, a GIF. Next: figures.py.

matplotlib and Pillow draw; both come with the extra `demo` and are imported when the first picture is asked for.
Images are uint8, (N, H, W) or (N, H, W, 3), and black is always 0: nothing is rescaled one image at a time, which would
hide errors. Functions return a figure, which shows itself in a notebook; `save_figure` writes it to a file.
"""

import io

import numpy as np

from tinyddpm.data.files import write_atomically

__all__ = ["Pictures", "grid", "png", "save_png", "save_gif", "save_figure", "save_all", "drawing_works"]
__all__ += [
    "real_and_generated",
    "strip",
    "schedule_curves",
    "loss_curve",
    "loss_by_timestep",
    "bound_terms",
    "time_by_op",
]

_INK, _ACCENT, _MUTED = "#1f2933", "#d1495b", "#30638e"


def _import(module, package):
    """An optional library; if it is missing, a RuntimeError that says what to install."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RuntimeError(f"drawing needs {package}: pip install 'tinyddpm[demo]'") from error


def drawing_works():
    """RuntimeError, saying what to install, where Pillow or matplotlib is missing: to be asked before the work is done."""
    _import("PIL.Image", "Pillow")
    _import("matplotlib.figure", "matplotlib")


# ==== images ====


class Pictures(np.ndarray):
    """uint8 images (N, H, W) or (N, H, W, 3) that show themselves as a picture in a notebook; an array all the same."""

    def _repr_png_(self):
        if self.dtype != np.uint8 or self.ndim not in (3, 4) or not self.size:  # after indexing or arithmetic
            return None
        return png(grid(self, max(1, round(len(self) ** 0.5))))


def grid(images, columns, gap=2, scale=3):
    """uint8 images in rows of `columns`, `gap` pixels apart, each pixel scale x scale: one image (H', W') or (H', W', 3)."""
    images = np.asarray(images)
    colour = images.ndim == 4 and images.shape[3] == 3
    if not (images.ndim == 3 or colour) or images.dtype != np.uint8 or columns < 1:
        given = f"{images.dtype} {images.shape} in {columns} columns"
        raise ValueError(f"grid takes uint8 images (N, H, W) or (N, H, W, 3) and columns >= 1, got {given}")
    n, h, w = images.shape[:3]
    rows = -(-n // columns)
    canvas = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, *images.shape[3:]), 40, np.uint8)
    for i, image in enumerate(images):
        y, x = gap + (i // columns) * (h + gap), gap + (i % columns) * (w + gap)
        canvas[y : y + h, x : x + w] = image
    return canvas.repeat(scale, axis=0).repeat(scale, axis=1)


def png(image):
    """The bytes of a PNG file of a uint8 image (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    _import("PIL.Image", "Pillow").fromarray(np.asarray(image)).save(file, format="PNG")
    return file.getvalue()


def save_png(path, image):
    """Write a uint8 image (H, W) or (H, W, 3) to `path`."""
    with write_atomically(path) as file:
        file.write(png(image))


def save_gif(path, frames, milliseconds=80, hold=1500):
    """Write uint8 images, all of one size, as an endless GIF; the last one stays for `hold` milliseconds."""
    pillow = _import("PIL.Image", "Pillow")
    first, *rest = [pillow.fromarray(frame) for frame in frames]
    times = [milliseconds] * len(rest) + [hold]
    with write_atomically(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=rest, duration=times, loop=0)


# ==== figures ====


def _figure(width, height):
    """A figure that needs no display, and shows itself in a notebook."""
    figure = _import("matplotlib.figure", "matplotlib").Figure(figsize=(width, height), layout="constrained")
    figure._repr_png_ = lambda: _png(figure)
    return figure


def _png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def save_figure(path, figure):
    """Write a figure to `path`, as PNG."""
    with write_atomically(path) as file:
        file.write(_png(figure))


def save_all(folder, figures):
    """Write {name: figure, or the frames of a GIF} into `folder`; yields each path when it is written."""
    for name, figure in figures.items():
        path = folder / f"{name}.{'gif' if isinstance(figure, list) else 'png'}"
        (save_gif if isinstance(figure, list) else save_figure)(path, figure)
        yield path


def _show(axes, image, title):
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_title(title, fontsize=10, color=_INK)
    axes.axis("off")


def _plain(axes, xlabel, ylabel, title):
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title(title, fontsize=10, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def real_and_generated(real, generated, columns=8, titles=("real", "generated")):
    """Two grids side by side, both uint8 images, in rows of `columns` (one row a class, if sorted so)."""
    figure = _figure(10, 0.62 * max(len(real), len(generated)) / columns + 0.5)
    left, right = figure.subplots(1, 2)
    _show(left, grid(real, columns, scale=2), titles[0])
    _show(right, grid(generated, columns, scale=2), titles[1])
    return figure


def strip(rows, timesteps, title):
    """Rows of images against the timestep. rows: uint8 (R, S, H, W) or (R, S, H, W, 3). timesteps: S numbers, one for each column."""
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
    return figure


def schedule_curves(schedules, used=None):
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
    return figure


def schedule_ends(times, levels, costs):
    """The log-SNR against time in [0, 1], and what its two ends cost.

    costs: for the high end, then the low end, (axis label, ends (n,), bits/dim (n,), the end taken, its bits/dim).
    """
    figure = _figure(11, 3.2)
    curve, *panels = figure.subplots(1, 3)
    curve.plot(times, levels, color=_ACCENT, linewidth=2)
    curve.plot(times[[0, -1]], levels[[0, -1]], "o", color=_ACCENT)
    _plain(curve, "time u", "log SNR", f"the schedule, from {levels[0]:.3g} to {levels[-1]:.3g}")
    for axes, (label, ends, bits, taken, cost) in zip(panels, costs, strict=True):
        axes.plot(ends, bits, color=_MUTED)
        axes.plot([taken], [cost], "o", color=_ACCENT)
        axes.set(yscale="log", ylim=(1e-5, 2))
        _plain(axes, label, "bits/dim", f"at {taken:.3g} it costs {cost:.2g} bits/dim")
    return figure


def loss_curve(losses, batch, name):
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
    return figure


def loss_by_timestep(timesteps, losses, name):
    """The simple loss, of that name, at each of some timesteps."""
    figure = _figure(7, 3.6)
    axes = figure.subplots()
    axes.plot(timesteps, losses, "o-", color=_MUTED, markersize=4)
    axes.set_yscale("log")
    _plain(axes, "t", name, "the loss at each timestep, on test images")
    return figure


def bound_terms(evaluation):
    """The terms of the bound as bars, in bits/dim."""
    names = {"prior": "$L_T$\n", "denoising": "$L_{1:T-1}$\n", "reconstruction": "$L_0$\n"}
    bars = {prefix + name: getattr(evaluation, name) for name, prefix in names.items()}
    bars |= {"label": evaluation.label} if evaluation.label else {}
    figure = _figure(6, 3.6)
    axes = figure.subplots()
    drawn = axes.bar([*bars, "sum"], [*bars.values(), evaluation.total], color=[_MUTED] * len(bars) + [_ACCENT])
    axes.bar_label(drawn, fmt="%.3g", fontsize=9)
    _plain(axes, "", "bits/dim", f"the bound on {evaluation.images} test images\n{evaluation.settings}")
    return figure


def time_by_op(times, total, shown=14):
    """The largest of [(op, seconds)] as bars, beside all the others together; `total` is the whole step's seconds."""
    largest = times[:shown]
    largest = [*largest, ("all else", total - sum(seconds for _, seconds in largest))]
    figure = _figure(8, 0.3 * len(largest) + 1)
    axes = figure.subplots()
    names, seconds = zip(*reversed(largest), strict=True)
    bars = axes.barh(names, [1e3 * s for s in seconds], color=_MUTED)
    axes.bar_label(bars, [f"{s / total:.0%}" for s in seconds], fontsize=8, padding=3)
    _plain(axes, "ms", "", f"where a training step goes ({1e3 * total:.0f} ms on one thread)")
    return figure
