"""The sampler of smalldiffusion, which two numbers make DDPM, DDIM or the accelerated one, as adapters."""

from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import smalldiffusion
import torch

from tinyddpm.properties import Adapter

__all__ = ["Sampler", "adapters", "NAME", "VERSION"]

NAME, VERSION = "smalldiffusion", version("smalldiffusion")


class Sampler(Adapter):
    """`samples` on the grid of `sample_sigmas`, which ends at the smallest sigma, and one more step to 0."""

    dtype, from_dlpack = "float32", staticmethod(torch.from_dlpack)
    coordinates = "sigma"

    def __init__(self, schedule, S=12, gam=1.0, mu=0.0, **claims):
        self.schedule, self.gam, self.mu, self.claims = schedule, gam, mu, claims
        vars(self).update(claims)
        self.sigmas = torch.cat([schedule.sample_sigmas(S - 1), torch.zeros(1)])
        self.alpha_bar = 1 / (1 + self.sigmas.numpy().astype(np.float64)[::-1] ** 2)

    def __repr__(self):
        return f"samples({type(self.schedule).__name__}, S={len(self.sigmas) - 1}, gam={self.gam}, mu={self.mu})"

    def with_steps(self, S):
        if S < 2:
            raise NotImplementedError
        return Sampler(self.schedule, S, self.gam, self.mu, **self.claims)

    def chain(self, denoise, x_T, noise):
        T, states = len(self.sigmas) - 1, []

        def eps(x, sigma, *_):
            return (x - denoise(x, 1 / (1 + float(sigma) ** 2))) / sigma

        def drawn(n):
            return noise(T - len(states))

        model = SimpleNamespace(eval=lambda: None, predict_eps_cfg=eps, rand_input=drawn)
        device = SimpleNamespace(device="cpu")
        for x in smalldiffusion.samples(model, self.sigmas, self.gam, self.mu, xt=x_T, accelerator=device):
            states.append(x)
        return states


def adapters():
    schedules = smalldiffusion.ScheduleDDPM(), smalldiffusion.ScheduleLogLinear(1000)
    return [
        *(Sampler(schedule, mu=0.5) for schedule in schedules),
        *(Sampler(schedule, eta=0.0, order=1) for schedule in schedules),
        *(Sampler(schedule, gam=2.0, eta=0.0, solver=None) for schedule in schedules),
    ]
