"""The identities of tinyddpm.properties, checked on the schedulers of the library diffusers.

    pip install diffusers torch hypothesis
    python demo/check_diffusers.py
    python demo/check_diffusers.py --size 0.05

diffusers counts its steps from 0, and the first of them is noisy. Here 0 is the data, so index t stands for the t-th
of its timesteps in increasing order. It computes in float32, and the tolerances are those of float32. Options are
tried one at a time. There is no model: each step is given the right prediction. --size scales the number of examples.

With diffusers 0.42.1 and torch 2.13.0, at size 1, all holds for the defaults of DDPM and DDIM. What fails:
- DDPM, variance_type="fixed_large_log": NaN (the root of a negative logarithm) at all steps but the last.
- DDPM, variance_type="fixed_large", timestep_spacing="trailing": noise is added at the last step.
- DDIM, timestep_spacing="linspace", or "trailing" with a number of steps that does not divide 1000: a step
  leads to timestep - 1000 // steps, which is not the next one visited; with eta = 1 it is not DDPM.
- DDIM, set_alpha_to_one=False: the last step ends at the noise of timestep 0 instead of x_0, as documented.
"""

import argparse
import sys
from unittest.mock import patch

import numpy as np

from tinyddpm.properties import check

try:
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler, __version__
except ImportError:
    sys.exit("diffusers is not installed; this demo is about it: pip install diffusers torch hypothesis")


class Scheduler:
    """A scheduler as an adapter, see tinyddpm/properties/checks.py. steps: how many of its 1000 to visit."""

    dtype = "float32"
    batched = True
    predictions = ("eps", "v")
    eta, variance = 1.0, "beta_tilde"
    kind, extra = DDPMScheduler, {}  # extra: what else its `step` takes

    def __init__(self, steps=1000, prediction_type="epsilon", **options):
        self.options = dict(steps=steps, prediction_type=prediction_type, **options)
        self.scheduler = self.kind(prediction_type=prediction_type, clip_sample=False, **options)
        self.scheduler.set_timesteps(steps)
        self.timesteps = np.append(-1, self.scheduler.timesteps.numpy()[::-1])  # of index t = 1..T
        cumprod = self.scheduler.alphas_cumprod.numpy().astype(np.float64)
        self.alpha_bar = np.append(1.0, cumprod[self.timesteps[1:]])
        if steps == 1000:
            self.beta = np.append(0.0, self.scheduler.betas.numpy())

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.kind.__name__}({options})"

    def q_sample(self, x0, t, noise):
        timesteps = torch.tensor(np.broadcast_to(self.timesteps[t], len(x0)).copy())
        return self.scheduler.add_noise(torch.tensor(x0), torch.tensor(noise), timesteps).numpy()

    def convert(self, value, xt, t, source, target):
        """The two conversions that diffusers has: v from x_0 and eps; and, inside its `step`, x_0 from a prediction."""
        if (source, target) == ("x0", "v"):
            timesteps = torch.full((len(xt),), int(self.timesteps[t]))
            eps = torch.tensor((xt - self.signal(t) * value) / self.noise(t))
            return self.scheduler.get_velocity(torch.tensor(value), eps, timesteps).numpy()
        if target != "x0":
            raise NotImplementedError
        self.scheduler.register_to_config(prediction_type={"eps": "epsilon", "v": "v_prediction"}[source])
        result = self.call_step(value, xt, t, 0 * xt)
        self.scheduler.register_to_config(prediction_type=self.options["prediction_type"])
        return result.pred_original_sample.numpy()

    def step(self, x0_hat, xt, t, noise):
        eps_hat = (xt - self.signal(t) * x0_hat) / self.noise(t)
        v_hat = self.signal(t) * eps_hat - self.noise(t) * x0_hat
        outputs = {"epsilon": eps_hat, "v_prediction": v_hat, "sample": x0_hat}
        return self.call_step(outputs[self.options["prediction_type"]], xt, t, noise).prev_sample.numpy()

    def call_step(self, output, xt, t, noise):
        """One step, with its random numbers replaced by `noise`."""
        arguments = torch.tensor(output), int(self.timesteps[t]), torch.tensor(xt)
        module = sys.modules[self.kind.__module__]
        with patch.object(module, "randn_tensor", lambda *_, **__: torch.tensor(noise)):
            return self.scheduler.step(*arguments, **self.extra)

    def signal(self, t):
        return np.float32(self.alpha_bar[t] ** 0.5)

    def noise(self, t):
        return np.float32((1 - self.alpha_bar[t]) ** 0.5)


class DDPM(Scheduler):
    def __init__(self, variance_type="fixed_small", **options):
        super().__init__(variance_type=variance_type, **options)
        self.variance = "beta" if "large" in variance_type else "beta_tilde"


class DDIM(Scheduler):
    kind = DDIMScheduler

    def __init__(self, eta=0.0, **options):
        super().__init__(**options)
        self.eta = self.options["eta"] = eta
        self.extra = {"eta": eta}


ADAPTERS = [
    *(DDPM(prediction_type=name) for name in ("epsilon", "v_prediction", "sample")),
    *(DDPM(beta_schedule=name) for name in ("scaled_linear", "squaredcos_cap_v2", "sigmoid")),
    *(DDPM(variance_type=name) for name in ("fixed_small_log", "fixed_large", "fixed_large_log")),
    *(DDPM(steps=50, timestep_spacing=name) for name in ("leading", "linspace", "trailing")),
    DDPM(steps=50, timestep_spacing="trailing", variance_type="fixed_large"),
    *(DDIM(eta=eta) for eta in (0.0, 0.5, 1.0)),
    *(
        DDIM(eta=eta, steps=50, timestep_spacing=name)
        for name in ("leading", "linspace", "trailing")
        for eta in (0.0, 1.0)
    ),
    DDIM(steps=30, timestep_spacing="trailing"),
    DDIM(steps=50, set_alpha_to_one=False),
]


def main():
    parser = argparse.ArgumentParser(description="Check the identities on the schedulers of diffusers.")
    parser.add_argument("--size", default=1.0, type=float, help="share of 100 examples a scheduler (default 1)")
    examples = max(3, round(100 * parser.parse_args().size))
    print(f"diffusers {__version__}, torch {torch.__version__}")
    for adapter in ADAPTERS:
        report = check(adapter, examples)
        held, failed = len(report.names("holds")), [r for r in report.results if r.status == "fails"]
        print(f"\n{adapter!r}\n    {held} identities hold, {len(failed)} fail")
        for result in failed:
            print("    " + str(result).replace("\n", "\n    ").replace(f" for {adapter!r}", ""))


if __name__ == "__main__":
    main()
