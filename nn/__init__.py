"""A tensor that differentiates itself, and the layers of a small network. Knows nothing of diffusion.

Read bare.py first: the idea, whole, on one page. Then tape.py (the walk back), tensors.py (the Tensor and its
operators), ops.py, norm.py, conv.py, resampling.py and products.py (one function per op), layers.py, optim.py. Folders
below: cpu (many cores) and gpu (kernels, precision).

Every public name of these modules is a name of `nn`: the lists `__all__` of the modules say which.
"""

from nn import random, rates
from nn.backend import *
from nn.cache import *
from nn.checking import *
from nn.conv import *
from nn.cpu.parallel import *
from nn.gpu.precision import *
from nn.layers import *
from nn.muon import *
from nn.norm import *
from nn.ops import *
from nn.optim import *
from nn.products import *
from nn.profiling import *
from nn.random import random_state
from nn.resampling import *
from nn.tape import *
from nn.tensors import *
from nn.winograd import *
