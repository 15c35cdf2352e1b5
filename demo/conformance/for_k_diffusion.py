"""The samplers of k-diffusion as adapters: each is a function over a grid of sigmas."""

from importlib.metadata import version

import k_diffusion
import numpy as np
import torch

from tinyddpm.properties import Adapter

__all__ = ["Sampler", "adapters", "NAME", "VERSION"]

NAME, VERSION = "k-diffusion", version("k-diffusion")
SIGMAS = 0.02, 80.0  # the ends of the grid


class Sampler(Adapter):
    """A function of k_diffusion.sampling on Karras's grid of S steps; claims: see Adapter."""

    dtype, from_dlpack = "float32", staticmethod(torch.from_dlpack)
    coordinates, sigma_data, eta = "sigma", 0.5, 0.0

    def __init__(self, name, S=12, **claims):
        self.name, self.claims = name, claims
        vars(self).update(claims)
        self.sigmas = k_diffusion.sampling.get_sigmas_karras(S, *SIGMAS)
        self.alpha_bar = 1 / (1 + self.sigmas.numpy().astype(np.float64)[::-1] ** 2)

    def __repr__(self):
        return f"{self.name}(S={len(self.sigmas) - 1})"

    def with_steps(self, S):
        return Sampler(self.name, S, **self.claims)

    def chain(self, denoise, x_T, noise):
        states = []  # before each step
        options = {"callback": lambda seen: states.append(seen["x"]), "disable": True}
        if self.eta:
            options["noise_sampler"] = lambda sigma, sigma_next: noise(len(self.sigmas) - len(states))

        def model(x, sigma):
            return denoise(x, 1 / (1 + float(sigma[0]) ** 2))

        last = getattr(k_diffusion.sampling, self.name)(model, x_T, self.sigmas, **options)
        return [*states[1:], last]

    def scalings(self, t):
        denoiser = k_diffusion.layers.Denoiser(torch.nn.Identity(), sigma_data=self.sigma_data)
        return denoiser.get_scalings(self.sigmas[len(self.sigmas) - 1 - t])


def adapters():
    return [
        Sampler("sample_euler", solver="ddim", order=1),
        Sampler("sample_euler_ancestral", solver="ddim", eta=1.0),
        Sampler("sample_heun", solver="heun", order=2),
        Sampler("sample_dpm_2", solver=None, order=2),
        Sampler("sample_dpmpp_2m", solver="2m", order=2),
    ]
