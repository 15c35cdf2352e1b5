"""The network against PyTorch's (torch_unet.py), and layers at odd sizes: same weights, same output, same gradients."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import nn
from nn import Tensor
from tinyddpm.program.unet import UNet, UNetConfig

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra 'bench')")

from torch_unet import TorchUNet, copy_weights  # noqa: E402

CONFIGS = {
    "one level": UNetConfig(width=8, groups=4, multipliers=(1,)),
    "small": UNetConfig(width=16, multipliers=(1, 2, 2)),
    "two blocks a level": UNetConfig(width=8, groups=4, multipliers=(1, 2), blocks=2),
    "no attention": UNetConfig(width=8, groups=2, multipliers=(2, 1), attention=False),
    "classes": UNetConfig(channels=3, width=8, groups=4, multipliers=(1, 3), heads=2, classes=10, T=100),
}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose more to threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def networks(config, dtype):
    """Ours and theirs with the same random weights everywhere: a layer that starts at zero hides the rest."""
    ours, rng = UNet(config).astype(dtype), np.random.default_rng(1)
    for p in ours.parameters():
        p.data += 0.05 * rng.standard_normal(p.shape).astype(dtype)
    return ours, copy_weights(ours, TorchUNet(config).to(getattr(torch, dtype)))


def batch(config, dtype, n=3, side=12):
    rng = np.random.default_rng(2)
    x, eps = rng.standard_normal((2, n, side, side, config.channels)).astype(dtype)
    labels = np.array([0, config.classes, 3]) if config.classes else None  # the null class among them
    return x, np.array([1, config.T // 2, config.T]), labels, eps


class Named:
    """Gradients by name, as something that `copy_weights` can lay out as PyTorch does."""

    def __init__(self, arrays):
        self.state_dict = lambda: arrays


def ours_and_theirs(config, dtype):
    """(output, loss, {name: gradient}) of each, in PyTorch's layout."""
    ours, theirs = networks(config, dtype)
    x, t, labels, eps = batch(config, dtype)
    y = ours(x, t, labels)
    loss = nn.mse(y, eps)
    named = ours.named_parameters()
    gradients = Named(dict(zip(named, nn.gradients(loss, list(named.values())), strict=True)))
    laid_out = copy_weights(gradients, TorchUNet(config).to(getattr(torch, dtype)))

    x, eps = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (x, eps))
    their_y = theirs(x, t, labels)
    their_loss = torch.nn.functional.mse_loss(their_y, eps)
    their_loss.backward()
    found = {name: p.detach().numpy() for name, p in laid_out.named_parameters()}
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    y, their_y = y.data.transpose(0, 3, 1, 2), their_y.detach().numpy()
    return (y, loss.item(), found), (their_y, their_loss.item(), expected)


@pytest.mark.parametrize("dtype, rtol", [("float32", 1e-4), ("float64", 1e-9)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_same_weights_same_output_and_same_gradients_as_pytorch(config, dtype, rtol):
    (y, loss, gradients), (their_y, their_loss, their_gradients) = ours_and_theirs(config, dtype)
    assert y.dtype == dtype
    assert abs(y).max() > 0.1, "a network that says nothing would agree with any other"
    np.testing.assert_allclose(y, their_y, rtol=0, atol=rtol * abs(their_y).max())
    assert loss == pytest.approx(their_loss, rel=rtol)
    assert gradients.keys() == their_gradients.keys()
    for name, theirs in their_gradients.items():
        error, scale = abs(gradients[name] - theirs).max(), abs(theirs).max()
        assert scale > 0, f"no gradient for {name}"
        assert error <= rtol * scale, f"{name}: off by {error / scale:.1e} of its largest entry"


def test_the_count_of_parameters_is_pytorchs():
    for config in CONFIGS.values():
        ours, theirs = UNet(config).parameters(), TorchUNet(config).parameters()
        assert sum(p.size for p in ours) == sum(p.numel() for p in theirs)


# ==== ops and layers at odd sizes, in float64 ====

sides = st.integers(1, 9)


def values_and_gradients(op, cotangent, *arrays):
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = op(*tensors)
    return [y.data, *nn.gradients(y, tensors, cotangent(y.shape))]


def theirs(op, cotangent, *arrays):
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    y = op(*tensors)
    y.backward(torch.from_numpy(cotangent(y.shape)))
    return [y.detach().numpy(), *[t.grad.numpy() for t in tensors]]


def compare(ours, peer, rng, *arrays, rtol=1e-10):
    """ours and peer: functions of Tensors of one or the other library, of the same arrays."""
    seed = int(rng.integers(1000))
    cotangent = lambda shape: np.random.default_rng(seed).standard_normal(tuple(shape))  # noqa: E731
    for a, b in zip(values_and_gradients(ours, cotangent, *arrays), theirs(peer, cotangent, *arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * (1 + abs(b).max(initial=0)))


@settings(max_examples=150)
@given(
    st.integers(0, 2),
    st.tuples(sides, sides),
    st.sampled_from([1, 2, 8]),
    st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.just((3, 3)),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 99),
)
def test_convolutions_of_any_stride_and_padding_are_pytorchs(n, size, c, filters, stride, padding, bias, seed):
    assume(all(k <= side + 2 * padding for k, side in zip(filters, size, strict=True)))
    rng = np.random.default_rng(seed)
    shapes = [(n, *size, c), (*filters, c, 3)] + [(3,)] * bias
    compare(
        lambda x, w, *b: nn.conv2d(x, w, *b, stride=stride, padding=padding),
        lambda x, w, *b: torch.nn.functional.conv2d(
            x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), *b, stride=stride, padding=padding
        ).permute(0, 2, 3, 1),
        rng,
        *[rng.standard_normal(shape) for shape in shapes],
    )


@pytest.mark.parametrize("size", range(1, 7))
def test_the_layers_padding_is_pytorchs_same(size):
    """Of a filter of even size, too: PyTorch's users write padding="same" for it, or (4, 2, 1) to halve an image."""
    rng = np.random.default_rng(0)
    x, layer = rng.standard_normal((2, 8, 6, 2)), nn.Conv2d(2, 3, size, rng=rng).astype(np.float64)
    halving = nn.Conv2d(2, 3, 4, stride=2, rng=rng).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch copies for an even filter, and says so
        for ours, options in ((layer, {"padding": "same"}), (halving, {"stride": 2, "padding": 1})):
            compare(
                ours,
                lambda x, ours=ours, options=options: torch.nn.functional.conv2d(
                    x.permute(0, 3, 1, 2), torch.tensor(ours.weight.data.transpose(3, 2, 0, 1).copy()), **options
                ).permute(0, 2, 3, 1),
                rng,
                x,
            )


@settings(max_examples=100)
@given(
    st.lists(st.integers(1, 4), max_size=3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1, 30]), sides
)
def test_norms_are_pytorchs(pixels, groups, width, mean, seed):
    assume(width * np.prod(pixels) > 1)  # PyTorch refuses a group of one number
    rng, channels = np.random.default_rng(seed), groups * width
    arrays = [rng.standard_normal(shape) for shape in ((2, *pixels, channels), (channels,), (channels,))]
    arrays[0] += mean
    group_norm = lambda x, w, b: torch.nn.functional.group_norm(x.movedim(-1, 1), groups, w, b).movedim(1, -1)  # noqa: E731
    silu = torch.nn.functional.silu
    compare(lambda *a: nn.group_norm(*a, groups), group_norm, rng, *arrays, rtol=1e-8)
    compare(lambda *a: nn.group_norm_silu(*a, groups), lambda *a: silu(group_norm(*a)), rng, *arrays, rtol=1e-8)
    if channels > 1:
        layer_norm = lambda x, w, b: torch.nn.functional.layer_norm(x, (channels,), w, b)  # noqa: E731
        compare(nn.layer_norm, layer_norm, rng, *arrays, rtol=1e-8)


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_attention_is_pytorchs(heads, width, tokens, seed):
    rng, channels = np.random.default_rng(seed), heads * width
    ours = nn.Attention(channels, heads, rng=rng).astype(np.float64)
    peer = torch.nn.MultiheadAttention(channels, heads, batch_first=True, dtype=torch.float64)
    for their_weight, weight in ((peer.in_proj_weight, ours.to_qkv.weight), (peer.out_proj.weight, ours.to_out.weight)):
        their_weight.data = torch.from_numpy(weight.data.T.copy())
    peer.in_proj_bias.data.zero_()
    compare(ours, lambda x: peer(x, x, x, need_weights=False)[0], rng, rng.standard_normal((2, tokens, channels)))
