"""The diffusions that the program can train, by name. Next: gaussian_diffusion.py.

Their mathematics is elsewhere (forward.py to bound.py, theory/continuous.py and theory/binomial.py). The classes have the
same methods: images to x_0 and back, the noise, the network's input and the meaning of its output, the timesteps and the
loss to train with, the sampler, the bound. To add a diffusion, write such a class and add it here.
"""

from tinyddpm.program.binomial_diffusion import BinomialDiffusion
from tinyddpm.program.gaussian_diffusion import GaussianDiffusion
from tinyddpm.program.hybrid_diffusion import HybridDiffusion
from tinyddpm.program.learned_schedule import LearnedScheduleDiffusion
from tinyddpm.program.variational_diffusion import VariationalDiffusion

__all__ = ["DIFFUSIONS", "GaussianDiffusion", "HybridDiffusion", "VariationalDiffusion", "LearnedScheduleDiffusion"]
__all__ += ["BinomialDiffusion"]

DIFFUSIONS = {
    "gaussian": GaussianDiffusion,
    "hybrid": HybridDiffusion,
    "vdm": VariationalDiffusion,
    "vdm_learned": LearnedScheduleDiffusion,
    "binomial": BinomialDiffusion,
}
