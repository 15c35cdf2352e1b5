"""The U-Net of tinyddpm/unet.py in PyTorch, under the same names: the peer of the parity test and of the benchmark."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tinyddpm.program.features import timestep_embedding


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, embedding, config):
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.project = nn.Linear(embedding, outputs)
        self.norm2 = nn.GroupNorm(config.groups, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.project(embedding)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.skip is None else self.skip(x))


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x):
        n, length, channels = x.shape
        qkv = self.to_qkv(x).reshape(n, length, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.to_out(mixed.permute(0, 2, 1, 3).reshape(n, length, channels))


class AttentionBlock(nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels)
        self.attention = Attention(channels, config.heads)

    def forward(self, x):
        n, c, h, w = x.shape
        tokens = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)
        return x + self.attention(tokens).reshape(n, h, w, c).permute(0, 3, 1, 2)


class TorchUNet(nn.Module):
    """model(x, t, labels): x (N, C, H, W), t and labels NumPy integers, as `tinyddpm.unet.UNet` in channels-first."""

    def __init__(self, config):
        super().__init__()
        widths = [config.width * m for m in config.multipliers]
        size = 4 * config.width
        self.config = config
        self.time1, self.time2 = nn.Linear(config.width, size), nn.Linear(size, size)
        self.label = nn.Embedding(config.classes + 1, size) if config.classes else None
        self.first = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.down, skips, current = nn.ModuleList(), [widths[0]], widths[0]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(self._stage(current, width, size, level == len(widths) - 1))
                current = width
                skips.append(current)
            if level < len(widths) - 1:
                self.down.append(nn.ModuleDict({"downsample": nn.Conv2d(current, current, 3, padding=1)}))
                skips.append(current)
        self.middle1 = ResidualBlock(current, current, size, config)
        self.middle_attention = AttentionBlock(current, config) if config.attention else None
        self.middle2 = ResidualBlock(current, current, size, config)
        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(config.blocks + 1):
                self.up.append(self._stage(current + skips.pop(), width, size, level == len(widths) - 1))
                current = width
            if level > 0:
                self.up.append(nn.ModuleDict({"upsample": nn.Conv2d(current, current, 3, padding=1)}))
        self.norm = nn.GroupNorm(config.groups, current)
        self.last = nn.Conv2d(current, config.channels, 3, padding=1)

    def _stage(self, inputs, outputs, embedding, lowest):
        stage = {"block": ResidualBlock(inputs, outputs, embedding, self.config)}
        if lowest and self.config.attention:
            stage["attention"] = AttentionBlock(outputs, self.config)
        return nn.ModuleDict(stage)

    def forward(self, x, t, labels=None):
        t = torch.from_numpy(timestep_embedding(t, self.config.width, self.config.T)).to(x)
        e = self.time2(F.silu(self.time1(t)))
        if self.label is not None:
            labels = np.full(len(x), self.config.classes) if labels is None else labels
            e = e + self.label(torch.from_numpy(np.asarray(labels)).to(x.device))
        e = F.silu(e)
        h = self.first(x)
        skips = [h]
        for stage in self.down:
            h = stage["downsample"](F.avg_pool2d(h, 2)) if "downsample" in stage else self._run(stage, h, e)
            skips.append(h)
        h = self.middle1(h, e)
        if self.middle_attention is not None:
            h = self.middle_attention(h)
        h = self.middle2(h, e)
        for stage in self.up:
            if "upsample" in stage:
                h = stage["upsample"](F.interpolate(h, scale_factor=2, mode="nearest"))
            else:
                h = self._run(stage, torch.cat([h, skips.pop()], dim=1), e)
        return self.last(F.silu(self.norm(h)))

    @staticmethod
    def _run(stage, h, e):
        h = stage["block"](h, e)
        return stage["attention"](h) if "attention" in stage else h


def to_torch_layout(ours, theirs):
    """Our array for a parameter of theirs: (KH, KW, C, O) -> (O, C, KH, KW), and Linear's (in, out) -> (out, in)."""
    if ours.ndim == 4:
        return ours.transpose(3, 2, 0, 1)
    if theirs.ndim == 4:
        return ours.T[:, :, None, None]  # our 1x1 convolutions are Linear layers
    return ours


def copy_weights(model, peer):
    """Give the PyTorch `peer` the weights of our `model`; every parameter of either must have its counterpart."""
    state, named = model.state_dict(), dict(peer.named_parameters())
    assert state.keys() == named.keys(), state.keys() ^ named.keys()
    linears = {name for name, module in peer.named_modules() if isinstance(module, nn.Linear)}
    with torch.no_grad():
        for name, p in named.items():
            array = to_torch_layout(state[name], p)
            if name.endswith(".weight") and name.removesuffix(".weight") in linears:
                array = array.T
            p.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return peer
