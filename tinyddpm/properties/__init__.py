"""The identities of the diffusion as checks that anyone can run on any implementation. Start with checks.py."""

from tinyddpm.properties.adapter import Adapter, AdapterError
from tinyddpm.properties.cases import IDENTITIES
from tinyddpm.properties.chains import sampled_variance
from tinyddpm.properties.checks import arrays, betas, check, drawn_schedules, schedules, timesteps
from tinyddpm.properties.plugin import diffusion_identities
from tinyddpm.properties.report import Report, Result, load_adapters

__all__ = [
    "Adapter",
    "AdapterError",
    "check",
    "diffusion_identities",
    "Report",
    "Result",
    "IDENTITIES",
    "load_adapters",
]
__all__ += ["sampled_variance", "schedules", "drawn_schedules", "betas", "timesteps", "arrays"]
