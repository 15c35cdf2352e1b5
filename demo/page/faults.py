"""Faults to put into adapter.py by one replacement each, as people make them; the page offers them in its panel Check."""

__all__ = ["FAULTS"]

FAULTS = {
    "nothing wrong": ("", ""),
    "β for its root in a step (a printed misprint)": ("self.beta[t] ** 0.5 * noise", "self.beta[t] * noise"),
    "x_t from the ᾱ before": ("self.alpha_bar[t] ** 0.5 * x0 +", "self.alpha_bar[t - 1] ** 0.5 * x0 +"),
    "ᾱ for α in the posterior’s mean": ("from_xt = (1 - self.beta[t]) ** 0.5", "from_xt = self.alpha_bar[t] ** 0.5"),
    "β for the posterior’s variance": ("before / after * self.beta[t]\n", "self.beta[t]\n"),
    "noise at the last step": ("variance**0.5 * noise if t > 1 else 0", "self.beta[t] ** 0.5 * noise"),
    "a table that starts with noise": ("np.append(0.0, np.linspace(0.02, 0.5, T))", "np.linspace(0.02, 0.5, T + 1)"),
}
