"""The samplers of diffusers as adapters.

diffusers counts its steps from 0, and the first of them is noisy. Here 0 is the data, so index t stands for the t-th of
its timesteps in increasing order. There is no model: each step is given the right prediction. Noise is handed to a
scheduler by replacing the function that draws it.
"""

import sys
from unittest.mock import patch

import diffusers
import numpy as np
import torch

from tinyddpm.properties import Adapter

__all__ = ["DDPM", "DDIM", "Sampler", "adapters", "NAME", "VERSION", "FINDINGS"]

NAME, VERSION = "diffusers", diffusers.__version__


class Scheduler(Adapter):
    """A scheduler of the library. steps: how many of its 1000 to visit; options: its own; claims: see Adapter."""

    dtype, from_dlpack = "float32", staticmethod(torch.from_dlpack)
    shown = {}  # arguments of a step, for the name of the adapter

    def __init__(self, name, steps=1000, claims=(), **options):
        self.name, self.steps, self.claims, self.options = name, steps, dict(claims), options
        self.scheduler = getattr(diffusers, name)(**options)
        self.scheduler.set_timesteps(steps)
        vars(self).update(self.claims)
        self.alpha_bar = self.levels()

    def __repr__(self):
        words = [f"{name}={value!r}" for name, value in {**self.options, **self.shown, "steps": self.steps}.items()]
        return f"{self.name}({', '.join(words)})"

    def with_steps(self, S):
        return type(self)(self.name, S, self.claims, **self.options)

    def output(self, x0_hat, x, alpha_bar):
        """What a network would return where it means x0_hat."""
        if self.coordinates == "flow":
            u = 1 / (1 + (alpha_bar / (1 - alpha_bar)) ** 0.5)
            return (x - x0_hat) / u  # eps - x_0
        signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        eps = (x * (signal if self.coordinates == "sigma" else 1) - signal * x0_hat) / noise
        kind = getattr(self.scheduler.config, "prediction_type", "epsilon")
        return {"epsilon": eps, "sample": x0_hat, "v_prediction": signal * eps - noise * x0_hat}[kind]

    def call(self, output, timestep, x, noise, **options):
        """One step, with its random numbers replaced by `noise`."""
        module = sys.modules[type(self.scheduler).__module__]
        with patch.object(module, "randn_tensor", lambda *_, **__: noise, create=True):
            return self.scheduler.step(output, timestep, x, **options)


class DDPM(Scheduler):
    """The schedulers without a memory, whose steps can be taken one by one."""

    batched, predictions, extra = True, ("eps", "v"), {}

    def __init__(self, name="DDPMScheduler", steps=1000, claims=(), **options):
        super().__init__(name, steps, claims, **{"clip_sample": False, **options})
        if steps == 1000:
            self.beta = np.append(0.0, self.scheduler.betas.numpy())
        if "eta" in self.claims:
            self.extra = self.shown = {"eta": self.eta}

    def levels(self):
        self.timesteps = np.append(-1, self.scheduler.timesteps.numpy()[::-1])
        return np.append(1.0, self.scheduler.alphas_cumprod.numpy().astype(np.float64)[self.timesteps[1:]])

    def q_sample(self, x0, t, noise):
        timesteps = torch.tensor(np.broadcast_to(self.timesteps[np.asarray(t)], len(x0)).copy())
        return self.scheduler.add_noise(x0, noise, timesteps)

    def convert(self, value, xt, t, source, target):
        """The two conversions that diffusers has: v from x_0 and eps; and, inside its `step`, x_0 from a prediction."""
        if (source, target) == ("x0", "v"):
            timesteps = torch.full((len(xt),), int(self.timesteps[t]))
            eps = (xt - self.alpha_bar[t] ** 0.5 * value) / (1 - self.alpha_bar[t]) ** 0.5
            return self.scheduler.get_velocity(value, eps, timesteps)
        if target != "x0":
            raise NotImplementedError
        before = self.scheduler.config.prediction_type
        self.scheduler.register_to_config(prediction_type={"eps": "epsilon", "v": "v_prediction"}[source])
        found = self.call(value, int(self.timesteps[t]), xt, 0 * xt, **self.extra).pred_original_sample
        self.scheduler.register_to_config(prediction_type=before)
        return found

    def step(self, x0_hat, xt, t, noise):
        output = self.output(x0_hat, xt, self.alpha_bar[t])
        return self.call(output, int(self.timesteps[t]), xt, noise, **self.extra).prev_sample


class DDIM(DDPM):
    def __init__(self, name="DDIMScheduler", steps=1000, claims=(), **options):
        super().__init__(name, steps, {"eta": 0.0, "order": 1, **dict(claims)}, **options)


class Sampler(Scheduler):
    """The schedulers with a memory: their own loop, which resets them."""

    def levels(self):
        """alpha_bar from its sigmas, one for each state; PNDM has only timesteps."""
        if not hasattr(self.scheduler, "sigmas"):
            cumprod = self.scheduler.alphas_cumprod.numpy().astype(np.float64)
            self.at = cumprod[self.scheduler.timesteps.numpy()]
            return np.append(1.0, np.unique(self.at)[::-1])
        sigma = self.scheduler.sigmas.numpy().astype(np.float64)
        flow = self.coordinates == "flow"
        self.at = (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2) if flow else 1 / (1 + sigma**2)
        return self.at[np.append(np.diff(self.at) != 0, True)][::-1]

    def chain(self, denoise, x_T, noise):
        self.scheduler.set_timesteps(self.steps)
        x, states = x_T, []
        for timestep, level in zip(self.scheduler.timesteps, self.at, strict=False):
            t = len(self.alpha_bar) - 1 - len(states)
            if hasattr(self.scheduler, "scale_model_input"):
                self.scheduler.scale_model_input(x, timestep)  # for the model, which is asked by alpha_bar here
            x = self.call(self.output(denoise(x, level), x, level), timestep, x, noise(t)).prev_sample
            states.append(x)
            if self.waits(len(states)):
                states.pop()
        return states

    def waits(self, calls):
        """Whether the state is one inside a step, of which a second call of the model comes next."""
        if self.name == "PNDMScheduler":
            return self.scheduler.counter == 1
        return not getattr(self.scheduler, "state_in_first_order", True) and calls < len(self.alpha_bar) - 1


def sampler(name, order=1, solver=None, steps=1000, **options):
    claims = {"eta": 0.0, "solver": solver, "order": order}
    claims |= {
        key: options.pop(key) for key in ("coordinates", "starts_at_T", "eta", "zero_terminal_snr") if key in options
    }
    return Sampler(name, steps, claims, **options)


def adapters():
    """One of each option that the documentation names, tried one at a time."""
    leading, sigma = {"starts_at_T": False}, {"coordinates": "sigma", "timestep_spacing": "linspace"}
    large = {"variance": "beta"}
    return [
        *(DDPM(claims=leading, prediction_type=name) for name in ("epsilon", "v_prediction", "sample")),
        *(DDPM(claims=leading, beta_schedule=name) for name in ("scaled_linear", "squaredcos_cap_v2", "sigmoid")),
        DDPM(claims=leading, variance_type="fixed_small_log"),
        *(DDPM(claims={**leading, **large}, variance_type=name) for name in ("fixed_large", "fixed_large_log")),
        *(DDPM(steps=30, timestep_spacing=name) for name in ("linspace", "trailing")),
        DDPM(steps=30, timestep_spacing="trailing", variance_type="fixed_large", claims=large),
        DDPM(
            claims={**leading, "zero_terminal_snr": True}, rescale_betas_zero_snr=True, prediction_type="v_prediction"
        ),
        DDPM(claims={**leading, "clip": (-1.0, 1.0), "predictions": ()}, clip_sample=True),
        *(DDIM(claims={**leading, "eta": eta, "order": 1 if eta == 0 else None}) for eta in (0.0, 0.5, 1.0)),
        *(DDIM(steps=30, timestep_spacing=name) for name in ("linspace", "trailing")),
        DDIM(steps=30, timestep_spacing="linspace", claims={"eta": 1.0, "order": None}),
        DDIM(claims={**leading, "ends_at_data": False}, set_alpha_to_one=False),
        sampler("EulerDiscreteScheduler", solver="ddim", **sigma),
        sampler("EulerAncestralDiscreteScheduler", solver="ddim", order=None, eta=1.0, **sigma),
        sampler("HeunDiscreteScheduler", solver="heun", order=2, **sigma),
        sampler("DPMSolverMultistepScheduler", solver="2m", order=2),
        sampler(
            "UniPCMultistepScheduler"
        ),  # of order 3: not yet from 20 to 40 steps, near which its error changes sign
        sampler("UniPCMultistepScheduler", order=2, solver_type="bh1"),
        sampler("UniPCMultistepScheduler", order=3, solver_order=3),
        sampler("PNDMScheduler", starts_at_T=False, skip_prk_steps=True, set_alpha_to_one=True),
        sampler("FlowMatchEulerDiscreteScheduler", solver="ddim", coordinates="flow", zero_terminal_snr=True),
    ]


FINDINGS = {  # each in five lines that use the library alone; report.py runs them
    "DDPM with fixed_large_log gives NaN": """
import torch
from diffusers import DDPMScheduler
s, x = DDPMScheduler(variance_type="fixed_large_log"), torch.zeros(1, 3, 2, 2)
print(s.step(x, 500, x).prev_sample.flatten()[0])
""",
    "DDPM with fixed_large and trailing spacing ends with noise": """
import torch
from diffusers import DDPMScheduler
s, x = DDPMScheduler(variance_type="fixed_large", timestep_spacing="trailing"), torch.zeros(1, 3, 64, 64)
s.set_timesteps(30)
print(s.step(x, s.timesteps[-1], x, generator=torch.manual_seed(0)).prev_sample.std())
""",
    "DDIM: a step does not lead to the next timestep with linspace spacing, nor with trailing where the steps do not "
    "divide 1000 (x_0 is 0; the noise left, and the right one)": """
import torch
from diffusers import DDIMScheduler
for spacing in ("linspace", "trailing"):
    s = DDIMScheduler(timestep_spacing=spacing, clip_sample=False)
    s.set_timesteps(30)
    here, after = ((1 - s.alphas_cumprod[t]) ** 0.5 for t in s.timesteps[-2:])
    print(s.step(torch.ones(1), s.timesteps[-2], here * torch.ones(1)).prev_sample, after)
""",
    "UniPC with bh1 gives NaN at the last sigma, which is 0 by default": """
import torch
from diffusers import UniPCMultistepScheduler
s, x = UniPCMultistepScheduler(solver_type="bh1"), torch.ones(1, 1)
s.set_timesteps(8)
for t in s.timesteps:
    x = s.step(x, t, x).prev_sample
print(x)
""",
    "One step with linspace spacing starts at timestep 0, where there is nearly no noise": """
from diffusers import DDPMScheduler
s = DDPMScheduler(timestep_spacing="linspace")
s.set_timesteps(1)
print(s.timesteps)
""",
}
