"""The four figures of walkthrough.py. Numbers come in as they are, nothing is computed here."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

INK, RED, BLUE, GREEN, GREY = "#1f2933", "#d1495b", "#30638e", "#3c896d", "#9aa5b1"


def axes(columns):
    fig, row = plt.subplots(1, columns, figsize=(5.2 * columns, 3.7), constrained_layout=True, squeeze=False)
    for ax in row[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return fig, row[0]


def save(fig, path):
    for ax in fig.axes:
        if ax.get_legend_handles_labels()[0]:
            ax.legend(frameon=False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def draw_bound(path, x0, prior, steps, last, by_length, data_nll):
    """The terms by t; and the bound and the exact value by T, by_length: {T: (bound, exact)}."""
    fig, (left, right) = axes(2)
    left.bar(range(2, len(steps) + 2), steps, color=BLUE, label="$L_{t-1}$, t = 2..T")
    left.bar([1], [last], color=RED, label="$L_0$, at t = 1 (negative: a density)")
    left.bar([len(steps) + 2], [prior], color=GREEN, label=f"$L_T$ = {prior:.0e}")
    left.axhline(0, color=INK, lw=0.8)
    left.set(xlabel="t", ylabel="nats", title=f"The bound's terms at $x_0$ = {x0}")
    lengths, (bounds, exact) = list(by_length), np.transpose(list(by_length.values()))
    right.semilogx(lengths, bounds, "o-", color=BLUE, label="the bound")
    right.semilogx(lengths, exact, "o-", color=RED, label="$-\\log p(x_0)$, integrated on a grid")
    right.axhline(data_nll, color=GREY, ls="--", label="$-\\log q(x_0)$ of the data")
    right.set_xticks(lengths, lengths)
    right.minorticks_off()
    right.set(xlabel="steps T", ylabel="nats", title="The bound closes as T grows")
    save(fig, path)


def draw_last_term(path, l0, best, beta_tilde_2, beta_1):
    """L_0 as a function of sigma_1^2."""
    fig, (ax,) = axes(1)
    variances = np.geomspace(best / 30, best * 300, 300)
    ax.semilogx(variances, l0(variances), color=INK)
    points = ("$E|x_0 - \\hat x_0|^2$, the best", best, GREEN), ("$\\tilde\\beta_2$", beta_tilde_2, BLUE)
    for name, variance, color in (*points, ("$\\beta_1$", beta_1, RED)):
        ax.plot(variance, l0(variance), "o", color=color, ms=8, label=f"{name} = {variance:.4f}")
    ax.set(
        xlabel="$\\sigma_1^2$ (0 would make it infinite)",
        ylabel="$L_0$ in nats",
        title="Which variance at t = 1",
        ylim=(l0(best) - 0.3, l0(best) + 4),
    )
    save(fig, path)


def draw_score(path, x, t, conditional, score, densities):
    """conditional: scores given some x_0, one line each. densities: {t: q(x_t) at x}."""
    fig, (left, right) = axes(2)
    lines = left.plot(x, np.transpose(conditional), color=GREY, lw=0.9)
    lines[0].set_label(f"conditional scores, {len(conditional)} of the $x_0$")
    left.plot(x, score, color=RED, lw=2.5, label="their posterior mean: the score")
    left.set(xlabel="$x_t$", title=f"The score at t = {t}", ylim=(-12, 12), xlim=(-1.6, 1.6))
    for (s, density), color in zip(densities.items(), (GREY, RED, BLUE), strict=True):
        right.plot(x, density, color=color, label=f"$q(x_{{{s}}})$")
    right.set(xlabel="$x_t$", title="The densities whose logarithm it is the slope of", xlim=(-2, 2))
    save(fig, path)


def draw_estimators(path, forms, samplers):
    """Variances. forms: {model: {form: variance}}; samplers: {sampler: variance}."""
    fig, (left, right) = axes(2)
    for shift, color, (model, variances) in zip((-0.2, 0.2), (BLUE, RED), forms.items(), strict=True):
        places = np.arange(len(variances)) + shift
        bars = left.bar(places, list(variances.values()), 0.4, color=color, label=model)
        left.bar_label(bars, fmt="%.2g")
        left.set_xticks(range(len(variances)), list(variances))
    left.set(title="The bound in four forms", ylabel="variance of one path, nats$^2$", yscale="log")
    bars = right.bar(list(samplers), list(samplers.values()), color=[RED, BLUE, GREEN])
    right.bar_label(bars, fmt="%.1e")
    right.set(title="$\\sum L_{t-1}$ from 8 timesteps", ylabel="variance, nats$^2$", yscale="log")
    save(fig, path)
