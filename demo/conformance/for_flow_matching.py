"""The paths and the solver of flow-matching as adapters.

There t = 0 is noise and t = 1 the data, and the velocity points to the data. The grid of times is even.
"""

from importlib.metadata import version

import torch
from flow_matching.path import AffineProbPath
from flow_matching.path import scheduler as schedules
from flow_matching.solver import ODESolver

from tinyddpm.properties import Adapter

__all__ = ["Flow", "adapters", "NAME", "VERSION"]

NAME, VERSION = "flow-matching", version("flow-matching")


class Flow(Adapter):
    """A path of the library, followed on S even steps by a method of its solver."""

    dtype, from_dlpack = "float32", staticmethod(torch.from_dlpack)
    batched, eta = True, 0.0

    def __init__(self, schedule="CondOTScheduler", method="euler", order=1, S=12):
        straight = schedule == "CondOTScheduler"
        self.given = schedule, method, order
        self.path = AffineProbPath(getattr(schedules, schedule)())
        self.times = torch.linspace(0, 1, S + 1)
        self.alpha_bar = self.level(self.times).numpy()[::-1]
        self.zero_terminal_snr = self.alpha_bar[-1] == 0
        self.coordinates = "flow" if straight else "vp"
        self.predictions = ("eps", "velocity") if straight else ("eps",)
        self.solver = "ddim" if straight and method == "euler" else None
        self.ends_at_data = straight  # elsewhere the last step is no straight line
        self.method, self.order = method, order

    def __repr__(self):
        return f"Flow({self.given[0]}, {self.method}, S={len(self.times) - 1})"

    def with_steps(self, S):
        return Flow(*self.given, S)

    def level(self, time):
        at = self.path.scheduler(time.double())
        return at.alpha_t**2 / (at.alpha_t**2 + at.sigma_t**2)

    def time(self, t):
        return self.times[len(self.times) - 1 - t]

    def q_sample(self, x0, t, noise):
        return self.path.sample(noise, x0, self.time(t).expand(len(x0))).x_t

    def convert(self, value, xt, t, source, target):
        names = {"eps": "epsilon", "x0": "target", "velocity": "velocity"}
        found = getattr(self.path, f"{names[source]}_to_{names[target]}")
        value = -value if source == "velocity" else value  # theirs points to the data, ours to the noise
        converted = found(value, xt, self.time(t))
        return -converted if target == "velocity" else converted

    def chain(self, denoise, x_T, noise):
        def velocity(x, t):
            return self.path.target_to_velocity(denoise(x, self.level(t)), x, t)

        states = ODESolver(velocity).sample(
            x_T, step_size=None, method=self.method, time_grid=self.times, return_intermediates=True
        )
        return list(states[1:])


def adapters():
    return [
        *(Flow(method=method, order=order) for method, order in (("euler", 1), ("midpoint", 2), ("heun3", 3))),
        *(Flow(name) for name in ("CosineScheduler", "VPScheduler")),
        Flow("CosineScheduler", "midpoint", 2),
    ]
