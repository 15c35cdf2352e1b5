"""A tensor that differentiates itself, and the layers of a small network. Knows nothing of diffusion.

Read tensor.py first (the Tensor and its operators), then tape.py (the walk back), ops.py, norm.py, conv.py and
resampling.py (one function per op), layers.py, optim.py and parallel.py. For a GPU: backend.py, kernels.py, precision.py.
"""

from nn import random
from nn.backend import array_module, choose_device, to_device, to_numpy
from nn.conv import conv2d
from nn.gradcheck import gradcheck
from nn.layers import (
    Attention,
    Conv2d,
    Dropout,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    Module,
    Sequential,
)
from nn.norm import group_norm, group_norm_silu, layer_norm
from nn.ops import (
    attention,
    clip,
    concatenate,
    cross_entropy,
    dropout,
    embedding,
    exp,
    log,
    log_softmax,
    mse,
    pad,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    sqrt,
    tanh,
    where,
)
from nn.optim import EMA, SGD, Adam, AdamW, clip_by_global_norm, constant, cosine, linear, warmup
from nn.parallel import Parallel, available_cores
from nn.precision import PRECISIONS, check_precision, precision
from nn.profile import profile
from nn.random import random_state
from nn.remember import constant_weights
from nn.resampling import average_pool, upsample_nearest
from nn.tape import gradients, no_grad
from nn.tensor import Tensor, node, tensor

__all__ = [
    "Tensor", "tensor", "node", "gradients", "no_grad", "gradcheck",
    "exp", "log", "sqrt", "tanh", "sigmoid", "silu", "relu", "softplus", "clip", "where", "concatenate", "pad",
    "softmax", "log_softmax", "embedding", "dropout", "attention", "mse", "cross_entropy",
    "group_norm", "group_norm_silu", "layer_norm", "conv2d", "upsample_nearest", "average_pool",
    "Module", "Linear", "Conv2d", "GroupNorm", "LayerNorm", "Embedding", "Dropout", "Attention", "Sequential",
    "SGD", "Adam", "AdamW", "EMA", "clip_by_global_norm", "constant", "warmup", "linear", "cosine",
    "Parallel", "available_cores", "constant_weights", "profile", "random", "random_state",
    "array_module", "choose_device", "to_device", "to_numpy", "PRECISIONS", "check_precision", "precision",
]  # fmt: skip
