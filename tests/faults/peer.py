"""PyTorch under the names of `nn`: a program of drawing.py runs on this module as it runs on `nn`.

Images become channels-first for PyTorch and come back channels-last. An index goes through NumPy, which says the
position of every entry that is picked, because PyTorch has no negative steps.
"""

import numpy as np
import torch
from torch.nn import functional as F

from nn.random import next_uniform, random_state  # noqa: F401  programs call random_state

torch.set_num_threads(1)
no_grad = torch.no_grad


class Tensor:
    """A torch.Tensor with the operators and methods of `nn.Tensor`. Those that PyTorch has by the same name are its own."""

    def __init__(self, data, requires_grad=False):
        self.torch = data if isinstance(data, torch.Tensor) else _of(data)
        if not torch.is_grad_enabled():
            self.torch = self.torch.detach()  # PyTorch marks some of its views as differentiable all the same
        if requires_grad:
            self.torch.requires_grad_()

    shape = property(lambda self: tuple(self.torch.shape))
    ndim = property(lambda self: self.torch.ndim)
    requires_grad = property(lambda self: self.torch.requires_grad)
    data = property(lambda self: self.torch.detach().numpy())
    T = property(lambda self: self.transpose())

    def __getattr__(self, name):
        return lambda *arguments, **options: _call(getattr(torch.Tensor, name), self, *arguments, **options)

    def __len__(self):
        return len(self.torch)

    def sum(self, axis=None, keepdims=False):
        return Tensor(torch.sum(self.torch, _axes(axis), keepdims))

    def mean(self, axis=None, keepdims=False):
        return Tensor(torch.mean(self.torch, _axes(axis), keepdims))

    def max(self, axis=None, keepdims=False):
        return Tensor(torch.amax(self.torch, () if axis is None else _axes(axis), keepdims))

    def min(self, axis=None, keepdims=False):
        return Tensor(torch.amin(self.torch, () if axis is None else _axes(axis), keepdims))

    def reshape(self, *shape):
        shape = shape[0] if isinstance(shape[0], (tuple, list)) else shape
        return Tensor(self.torch.reshape([int(n) for n in shape]))

    def transpose(self, *axes):
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return Tensor(self.torch.permute([int(a) for a in order] or list(reversed(range(self.ndim)))))

    def __getitem__(self, index):
        positions = np.arange(self.torch.numel()).reshape(self.shape)[index]
        return Tensor(self.torch.reshape(-1)[_of(positions)])

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def astype(self, dtype):
        return Tensor(self.torch.to(getattr(torch, np.dtype(dtype).name)))

    def detach(self):
        return Tensor(self.torch.detach())

    def __pow__(self, exponent):
        return Tensor(self.torch ** (exponent.torch if isinstance(exponent, Tensor) else float(exponent)))


def _call(function, *arguments, **options):
    """`function` of PyTorch, on Tensors of this module, NumPy arrays and numbers."""
    found = function(*map(_unwrap, arguments), **options)
    return Tensor(found) if isinstance(found, torch.Tensor) else found


def _unwrap(value):
    if isinstance(value, (np.generic, int, float)) or np.ndim(value) == 0 and isinstance(value, np.ndarray):
        return value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, np.ndarray):
        return _of(value)
    return value.torch if isinstance(value, Tensor) else value


def _of(array):
    """A torch.Tensor of a copy: PyTorch takes no negative strides."""
    return torch.tensor(np.array(array, order="C"))


def _axes(axis):
    return axis if axis is None else [int(a) for a in np.atleast_1d(axis)]


def _operator(name, method):
    swapped = name.startswith("__r")
    setattr(Tensor, name, lambda a, b: _call(method, *((b, a) if swapped else (a, b))))


for _name, _method in {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "truediv": torch.div,
    "matmul": torch.matmul,
}.items():
    _operator(f"__{_name}__", _method)
    _operator(f"__r{_name}__", lambda a, b, method=_method: method(torch.as_tensor(a, dtype=b.dtype), b))
Tensor.__neg__ = lambda self: Tensor(-self.torch)
Tensor.__abs__ = lambda self: Tensor(abs(self.torch))
Tensor.__array_ufunc__ = None


def __getattr__(name):
    """A function of PyTorch by the same name, such as exp or softplus."""
    function = getattr(torch, name, None) or getattr(F, name, None)
    if function is None:
        raise AttributeError(f"PyTorch has no function {name}; give peer.py one")
    return lambda *arguments, **options: _call(function, *arguments, **options)


def clip(x, low, high):
    return Tensor(torch.clamp(x.torch, _unwrap(low), _unwrap(high)))


def where(condition, x, y):
    one = x if isinstance(x, Tensor) else y
    x, y = (torch.as_tensor(_unwrap(v), dtype=one.torch.dtype) for v in (x, y))
    return Tensor(torch.where(_of(condition), x, y))


def concatenate(tensors, axis=-1):
    return Tensor(torch.cat([_unwrap(t) for t in tensors], dim=int(axis)))


def pad(x, widths):
    return Tensor(F.pad(x.torch, [int(n) for pair in reversed(widths) for n in pair]))


def softmax(x, axis=-1):
    return Tensor(torch.softmax(x.torch, int(axis)))


def log_softmax(x, axis=-1):
    return Tensor(torch.log_softmax(x.torch, int(axis)))


def embedding(table, index):
    return Tensor(F.embedding(_of(np.asarray(index).astype(np.int64)), table.torch))


def dropout(x, rate):
    if rate == 0:
        return x
    kept = _of(next_uniform(x.shape) >= rate)
    return Tensor(x.torch * kept / (1 - float(rate)))


def linear(x, weight, bias):
    return Tensor(x.torch @ weight.torch + bias.torch)


def attention(query, key, value):
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    return Tensor(F.scaled_dot_product_attention(*(t.torch.expand(*lead, *t.shape[-2:]) for t in (query, key, value))))


def mse(prediction, target):
    return Tensor(F.mse_loss(prediction.torch, _unwrap(target)))


def cross_entropy(logits, labels):
    return Tensor(F.cross_entropy(logits.torch, _of(labels.astype(np.int64))))


def group_norm(x, weight, bias, groups):
    """By its definition: F.group_norm refuses a group of one entry."""
    groups = int(groups)
    g = x.torch.reshape(x.shape[0], int(np.prod(x.shape[1:-1])), groups, x.shape[-1] // groups)
    variance, mean = torch.var_mean(g, (1, 3), correction=0, keepdim=True)
    return Tensor(((g - mean) / torch.sqrt(variance + 1e-5)).reshape(x.shape) * weight.torch + bias.torch)


def group_norm_silu(x, weight, bias, groups):
    return Tensor(F.silu(group_norm(x, weight, bias, groups).torch))


def layer_norm(x, weight, bias):
    return Tensor(F.layer_norm(x.torch, x.shape[-1:], weight.torch, bias.torch))


def conv2d(x, weight, bias=None, stride=1, padding=0):
    stride, padding = int(stride), int(padding)
    filters = weight.torch.permute(3, 2, 0, 1).contiguous()  # PyTorch 2.13 refuses others in some sizes of float64
    y = F.conv2d(x.torch.permute(0, 3, 1, 2), filters, None, stride, padding).permute(0, 2, 3, 1)
    return Tensor(y if bias is None else y + bias.torch.reshape(-1, 1, 1, bias.shape[-1]))


conv2d_im2col = conv2d


def _on_channels_first(function):
    return lambda x, factor=2: Tensor(function(x.torch.permute(0, 3, 1, 2), int(factor)).permute(0, 2, 3, 1))


upsample_nearest = _on_channels_first(lambda x, factor: F.interpolate(x, scale_factor=factor, mode="nearest"))
average_pool = _on_channels_first(F.avg_pool2d)


def gradients(output, inputs, output_gradient):
    found = torch.autograd.grad(output.torch, [x.torch for x in inputs], _of(output_gradient), allow_unused=True)
    return [torch.zeros_like(x.torch).numpy() if g is None else g.numpy() for x, g in zip(inputs, found, strict=True)]
