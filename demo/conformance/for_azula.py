"""The samplers of azula as adapters, on its variance-preserving schedule.

Its schedules end at sigma_min, not at the data. Here sigma_min rounds to nothing beside 1; it is the library's own for
samplers whose last step needs it, which interpolate in log sigma or divide by sigma.
"""

from importlib.metadata import version
from unittest.mock import patch

import azula.noise
import azula.sample
import numpy as np
import torch
from azula.denoise import Denoiser, DiracPosterior

from tinyddpm.properties import Adapter

__all__ = ["Sampler", "adapters", "NAME", "VERSION", "FINDINGS"]

NAME, VERSION = "azula", version("azula")


class Oracle(Denoiser):
    """Stands where the denoiser is; keeps the last x that it was asked about at each time."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.seen = schedule, {}

    def forward(self, x_t, t):
        self.seen[float(t)] = x_t
        alpha, sigma = self.schedule(t)
        return DiracPosterior(self.denoise(x_t, float(alpha**2 / (alpha**2 + sigma**2))))


class Sampler(Adapter):
    """A class of azula.sample with S even steps in its time; claims: see Adapter."""

    dtype, from_dlpack = "float64", staticmethod(torch.from_dlpack)
    eta = 0.0

    def __init__(self, name, S=12, options=(), **claims):
        self.name, self.S, self.options, self.claims = name, S, dict(options), claims
        vars(self).update(claims)
        self.oracle = Oracle(azula.noise.VPSchedule(**{"sigma_min": 1e-20} if self.ends_at_data else {}))
        given = {"steps": S, "silent": True, "dtype": torch.float64, **self.options}
        self.sampler = getattr(azula.sample, name)(self.oracle, **given)
        self.times = self.sampler.timesteps.tolist()
        alpha, sigma = self.oracle.schedule(self.sampler.timesteps)
        self.alpha_bar = np.append(1.0, (alpha**2 / (alpha**2 + sigma**2)).numpy()[-2::-1])

    def __repr__(self):
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in {**self.options, 'S': self.S}.items())})"

    def with_steps(self, S):
        return Sampler(self.name, S, self.options, **self.claims)

    def chain(self, denoise, x_T, noise):
        seen = self.oracle.seen = {}
        self.oracle.denoise = denoise
        with patch.object(torch, "randn_like", lambda _: noise(self.S + 1 - len(seen))):
            last = self.sampler(x_T)
        return [*(seen[t] for t in self.times[1:-1]), last]


def adapters():
    return [
        Sampler("DDPMSampler", solver="ddim", eta=1.0),
        Sampler("DDIMSampler", solver="ddim", order=1),
        Sampler("DDIMSampler", options={"eta": 1.0}, solver="ddim", eta=1.0),
        Sampler("EulerSampler", solver="ddim", order=1),
        Sampler("ItoSampler", options={"eta": 0.0}, solver="ddim", order=1),
        *(Sampler(f"{name}ABSampler", solver=None, order=2) for name in ("z", "v")),
        *(
            Sampler(f"{name}Sampler", solver=None, order=2, ends_at_data=False)
            for name in ("Heun", "zEAB", "xEAB", "REAB")
        ),
    ]


FINDINGS = {
    "REABSampler of order 2 has errors of order 1; xEABSampler's are of order 2 (in 25, 50, 100 and 200 steps)": """
import torch, azula.denoise, azula.noise, azula.sample
from azula.linalg.covariance import IsotropicCovariance
model = azula.denoise.GaussianDenoiser(torch.zeros(1), IsotropicCovariance(0.25), azula.noise.VPSchedule())
alpha, sigma = model.schedule(torch.tensor(0.2, dtype=torch.float64))
for kind in (azula.sample.xEABSampler, azula.sample.REABSampler):
    samplers = [kind(model, steps=n, stop=0.2, silent=True, dtype=torch.float64) for n in (25, 50, 100, 200)]
    ends = [float(sampler(torch.ones(1, dtype=torch.float64))) for sampler in samplers]
    print([round(end - float(alpha**2 / 4 + sigma**2) ** 0.5, 6) for end in ends])
"""
}
