"""The network against PyTorch's (torch_unet.py): same weights, same output, same gradients."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import nn
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
