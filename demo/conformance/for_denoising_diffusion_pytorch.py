"""The samplers of denoising-diffusion-pytorch as adapters: its DDPM, its DDIM, and Karras's in `ElucidatedDiffusion`.

All of them clip to [-1, 1], as the images are that they are made for.
"""

from importlib.metadata import version
from unittest.mock import patch

import numpy as np
import torch
from denoising_diffusion_pytorch import ElucidatedDiffusion, GaussianDiffusion

from tinyddpm.properties import Adapter

__all__ = ["DDPM", "DDIM", "Elucidated", "adapters", "NAME", "VERSION", "FINDINGS"]

NAME, VERSION = "denoising-diffusion-pytorch", version("denoising-diffusion-pytorch")


class Network(torch.nn.Module):
    """Stands where the U-Net is: `answer(x, t)` is its output."""

    channels = out_dim = 1
    self_condition = False

    def __init__(self, sinusoidal=False):
        super().__init__()
        self.random_or_learned_sinusoidal_cond = sinusoidal
        self.weight = torch.nn.Parameter(torch.zeros(()))  # it says on what device the network is

    def forward(self, x, t, *_):
        return self.answer(x, t)


class Images(Adapter):
    dtype, from_dlpack = "float32", staticmethod(torch.from_dlpack)
    clip = -1.0, 1.0
    shown = ()

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.shown)})"


class DDPM(Images):
    """GaussianDiffusion of T steps; index t is its t - 1."""

    batched, predictions = True, ("eps", "v")
    shown = "schedule", "T", "objective"

    def __init__(self, schedule="sigmoid", T=12, objective="pred_v", **options):
        self.schedule, self.T, self.objective, self.network = schedule, T, objective, Network()
        self.weighting = "min-snr" if options.get("min_snr_loss_weight") else "bound"
        given = {"beta_schedule": schedule, "timesteps": T, "objective": objective, "auto_normalize": False}
        self.diffusion = GaussianDiffusion(self.network, image_size=8, **given, **options)
        self.alpha_bar = np.append(1.0, self.diffusion.alphas_cumprod.numpy().astype(np.float64))
        self.beta = np.append(0.0, self.diffusion.betas.numpy())

    def at(self, t, x):
        return torch.tensor(np.broadcast_to(np.asarray(t) - 1, len(x)).copy())

    def q_sample(self, x0, t, noise):
        return self.diffusion.q_sample(x0, self.at(t, x0), noise)

    def posterior(self, x0, xt, t):
        return self.diffusion.q_posterior(x0, xt, self.at(t, x0))[:2]

    def convert(self, value, xt, t, source, target):
        there = {"eps": self.diffusion.predict_start_from_noise, "v": self.diffusion.predict_start_from_v}
        if target == "x0":
            return there[source](xt, self.at(t, xt), value)
        if source != "x0":
            raise NotImplementedError
        eps = self.diffusion.predict_noise_from_start(xt, self.at(t, xt), value)
        return eps if target == "eps" else self.diffusion.predict_v(value, self.at(t, xt), eps)

    def output(self, x0_hat, x, t):
        kind = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}[self.objective]
        return x0_hat if kind == "x0" else self.convert(x0_hat, x, t, "x0", kind)

    def step(self, x0_hat, xt, t, noise):
        self.network.answer = lambda x, _: self.output(x0_hat, x, t)
        with patch.object(torch, "randn_like", lambda _: noise):
            return self.diffusion.p_sample(xt, t - 1)[0]

    def loss_weight(self, kind, t):
        if self.weighting == "bound" or kind != {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}[self.objective]:
            raise NotImplementedError
        return self.diffusion.loss_weight[t - 1]


class DDIM(Images):
    """ddim_sample of a GaussianDiffusion of 1000 steps, on the S steps that it chooses."""

    shown = "schedule", "S", "eta"

    def __init__(self, schedule="sigmoid", S=12, eta=0.0):
        self.schedule, self.S, self.eta, self.order = schedule, S, eta, 1 if eta == 0 else None
        self.process = DDPM(schedule, 1000, sampling_timesteps=S, ddim_sampling_eta=eta)
        zero = torch.zeros(1, 1)
        self.sampled(lambda x, t: x, zero, lambda _: zero)
        self.alpha_bar = self.process.alpha_bar[[0, *self.visited[::-1]]]

    def with_steps(self, S):
        return DDIM(self.schedule, S, self.eta)

    def sampled(self, answer, x_T, noise):
        """What ddim_sample returns; `visited` are the t at which it asked the network."""
        self.visited = []

        def asked(x, t):
            self.visited.append(int(t[0]) + 1)
            return answer(x, self.visited[-1])

        self.process.network.answer = asked
        drawn = patch.object(torch, "randn_like", lambda _: noise(self.S + 1 - len(self.visited)))
        with patch.object(torch, "randn", lambda *_, **__: x_T), drawn:
            return self.process.diffusion.ddim_sample(x_T.shape, return_all_timesteps=True)

    def chain(self, denoise, x_T, noise):
        def answer(x, t):
            return self.process.output(denoise(x, self.process.alpha_bar[t]), x, t)

        return list(self.sampled(answer, x_T, noise).unbind(1)[1:])


class Elucidated(Images):
    """ElucidatedDiffusion without churn: Heun's method, or DPM-Solver++(2M)."""

    coordinates, sigma_data, eta, order = "sigma", 0.5, 0.0, 2
    shown = "solver", "S"

    def __init__(self, solver="heun", S=12):
        self.solver, self.S, self.network = solver, S, Network(sinusoidal=True)
        self.diffusion = ElucidatedDiffusion(self.network, image_size=1, S_churn=0, num_sample_steps=S)
        self.sigmas = self.diffusion.sample_schedule()
        self.alpha_bar = 1 / (1 + self.sigmas.numpy().astype(np.float64)[::-1] ** 2)

    def with_steps(self, S):
        return Elucidated(self.solver, S)

    def scalings(self, t):
        sigma = self.sigmas[self.S - t]
        return [getattr(self.diffusion, name)(sigma) for name in ("c_skip", "c_out", "c_in")]

    def chain(self, denoise, x_T, noise):
        seen = {}  # at each sigma, the last x that the network was asked about

        def answer(scaled, quarter_log):
            i = int(abs(self.diffusion.c_noise(self.sigmas[:-1]) - quarter_log[0]).argmin())
            skip, out, into = self.scalings(self.S - i)
            seen[i] = scaled[..., 0, 0] / into
            x0_hat = denoise(seen[i], 1 / (1 + float(self.sigmas[i]) ** 2)).clamp(*self.clip)
            return (x0_hat[..., None, None] - skip * seen[i][..., None, None]) / out

        self.network.answer = answer
        sample = self.diffusion.sample if self.solver == "heun" else self.diffusion.sample_using_dpmpp
        with patch.object(torch, "randn", lambda *_, **__: x_T[..., None, None] / self.sigmas[0]):
            last = sample(len(x_T))
        return [*(seen[i] for i in range(1, self.S)), 2 * last[..., 0, 0] - 1]


def adapters():
    return [
        *(DDPM(schedule) for schedule in ("sigmoid", "cosine")),
        *(DDPM("linear", 1000, objective) for objective in ("pred_noise", "pred_x0", "pred_v")),
        DDPM("cosine", 12, "pred_v", min_snr_loss_weight=True),
        *(DDIM(eta=eta) for eta in (0.0, 0.5, 1.0)),
        *(Elucidated(solver) for solver in ("heun", "2m")),
    ]


FINDINGS = {
    "ElucidatedDiffusion: one step gives no number": """
import torch
from denoising_diffusion_pytorch import ElucidatedDiffusion, Unet
net = Unet(8, dim_mults=(1,), channels=1, random_fourier_features=True)
print(ElucidatedDiffusion(net, image_size=8, channels=1).sample_schedule(1))
"""
}
