"""The identities of the diffusion as checks that anyone can run on any implementation. Start with checks.py."""

from tinyddpm.properties.checks import (
    IDENTITIES,
    Report,
    Result,
    arrays,
    betas,
    check,
    drawn_schedules,
    schedules,
    timesteps,
)

__all__ = ["check", "Report", "Result", "IDENTITIES", "schedules", "drawn_schedules", "betas", "timesteps", "arrays"]
