"""One framework in one process: `python worker.py NAME [cuda PRECISION]`, then lines "case batch" on stdin to measure.

Answers each line with the seconds of one step, as JSON. Cases: train (loss, gradients, clipping, Adam, EMA), sample (a
network evaluation without gradients, and the step from x_t to x_{t-1}; several in a row, as a sampler does). With
`--memory case batch` it runs the case three times and prints the megabytes by which the peak memory passed what the
imports had taken. On a GPU the inputs lie there before the clock starts, several steps are queued, and the clock stops
when all are done; see gpu.py.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = map(str, reversed(Path(__file__).parents[1:3]))  # the packages first, then tests/ for torch_unet.py

CONFIG = {"width": 32, "multipliers": (1, 2, 2), "blocks": 1}  # 1.1 million parameters, attention at 7x7
STEPS = {"train": 1, "sample": 20}  # in a measurement, which is divided by them: a sampler makes many in a row
NAMES = ("tinyddpm", "torch-nchw", "torch-channels-last", "torch-compile", "numpy-im2col")


def inputs(batch):
    """The same images, noise and timesteps for everyone."""
    rng = np.random.default_rng(batch)
    x = rng.standard_normal((batch, 28, 28, 1), dtype=np.float32)
    return x, rng.standard_normal(x.shape, dtype=np.float32), rng.integers(1, 1001, batch)


def our_model(seed=0):
    """The network with every weight random: where the last layers are zero, no gradient would flow to the others."""
    from tinyddpm.program.unet import UNet, UNetConfig

    model, rng = UNet(UNetConfig(**CONFIG)), np.random.default_rng(seed)
    for p in model.parameters():
        p.data[...] = p.data + 0.02 * rng.standard_normal(p.shape, dtype=np.float32)
    return model


def tinyddpm_cases(parallel=None, gpu=None):
    import nn
    from tinyddpm import NoiseSchedule, p_mean_variance
    from tinyddpm.prediction import x0_from_eps
    from tinyddpm.program.config import Config
    from tinyddpm.program.model import shard_size

    model = our_model()
    if gpu is not None:
        model.to(gpu.xp)
        parallel = nn.Parallel(workers=1, shard=1 << 30)
    parameters, schedule = model.parameters(), NoiseSchedule.linear(1000)
    optimiser, ema = nn.Adam(parameters, 1e-4), nn.EMA(parameters)
    parallel = parallel or nn.Parallel(shard=shard_size(Config(preset="base")))

    def train(x, noise, t):
        value, gradient = parallel.loss_and_gradient(squared_error, model, x, t, noise)
        nn.clip_by_global_norm(gradient, 1.0)
        optimiser.step(gradient)
        ema.update()
        return value if gpu is not None else float(value)

    def sample(x, noise, t):
        with nn.constant_weights():
            for _ in range(STEPS["sample"]):
                eps = parallel.map(predict, model, x, t)
                x = p_mean_variance(schedule, x0_from_eps(schedule, eps, x, 500), x, 500).sample(noise)

    return train, sample, lambda x, t: nn.to_numpy(parallel.map(predict, model, x, t))


def squared_error(model, x, t, noise):
    import nn

    return nn.mse(model(x, t), nn.Tensor(noise))


def predict(model, x, t):
    return model(x, t)


def numpy_im2col_cases():
    """What a first version in NumPy looks like: whole batches, convolution by a kept im2col, norms op by op."""
    import plain

    import nn

    nn.conv.conv2d, nn.norm.group_norm, nn.norm.group_norm_silu = plain.conv2d, plain.group_norm, plain.group_norm_silu
    return tinyddpm_cases(plain.WholeBatch())


def torch_cases(channels_last=False, compiled=False, gpu=None):
    import torch
    from torch.nn import functional as F
    from torch_unet import TorchUNet, copy_weights

    ours = our_model()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    device = "cpu" if gpu is None else gpu.torch_device
    model = copy_weights(ours, TorchUNet(ours.config)).to(device, memory_format=layout)
    average = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    network = torch.compile(model) if compiled else model

    def lower_precision():
        """What `--precision bf16` is to PyTorch."""
        return torch.autocast("cuda", torch.bfloat16, enabled=gpu is not None and gpu.precision == "bf16")

    def image(x):
        return torch.as_tensor(x, device=device).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def train(x, noise, t):
        optimiser.zero_grad()
        with lower_precision():
            prediction = network(image(x), t)
        loss = F.mse_loss(prediction.float(), image(noise))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.001)
        return loss.detach() if gpu is not None else loss.item()

    def sample(x, noise, t):
        now, before = float(alpha_bar[499]), float(alpha_bar[498])
        alpha = now / before
        with torch.no_grad(), lower_precision():
            xt, noise = image(x), image(noise)
            for _ in range(STEPS["sample"]):
                x0 = (xt - (1 - now) ** 0.5 * network(xt, t).float()) / now**0.5
                mean = alpha**0.5 * (1 - before) / (1 - now) * xt + before**0.5 * (1 - alpha) / (1 - now) * x0
                xt = mean + ((1 - before) / (1 - now) * (1 - alpha)) ** 0.5 * noise

    def predict(x, t):
        with torch.no_grad(), lower_precision():
            return network(image(x), t).float().permute(0, 2, 3, 1).cpu().numpy()

    return train, sample, predict


def cases(name, gpu=None):
    """(train, sample, predict) of a framework."""
    if name == "tinyddpm":
        return tinyddpm_cases(gpu=gpu)
    if name == "numpy-im2col":
        return numpy_im2col_cases()
    channels_last = name == "torch-channels-last" or gpu is not None  # on a GPU the faster layout, compiled too
    return torch_cases(channels_last, name == "torch-compile", gpu)


def main():
    name = sys.argv[1]
    if "cuda" in sys.argv:
        from gpu import Gpu, answer

        answer(name, Gpu(name, sys.argv[3]), cases)
        return
    if "--memory" in sys.argv:
        print(json.dumps(memory_taken(name, sys.argv[3], int(sys.argv[4]))))
        return
    train, sample, predict = cases(name)
    x, _, t = inputs(4)
    print(json.dumps(predict(x, t).tolist()), flush=True)  # the first answer: outputs, to be compared
    for line in sys.stdin:
        which, batch = line.split()
        data = inputs(int(batch))
        start = time.perf_counter()
        (train if which == "train" else sample)(*data)
        print(json.dumps((time.perf_counter() - start) / STEPS[which]), flush=True)


def memory_taken(name, case, batch):
    """MB that three runs took at their peak, over all processes, above what the imports had taken."""
    import nn
    import tinyddpm.program.model  # noqa: F401

    if name.startswith("torch"):
        import torch  # noqa: F401
    elif name == "tinyddpm":
        nn.Parallel(shard=1).map(idle, None, np.zeros(nn.available_cores()))  # starts the workers, which import too
    before = peak_megabytes()
    run = dict(zip(("train", "sample"), cases(name), strict=False))[case]
    for _ in range(3):
        run(*inputs(batch))
    return peak_megabytes() - before


def idle(model, x):
    import nn

    return nn.Tensor(x)


def peak_megabytes():
    """The most memory this process has held, and each of its worker processes, in MB."""
    try:  # Linux: getrusage would count what the parent process held when it started this one
        workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        files = [Path(f"/proc/{process}/status").read_text().splitlines() for process in ("self", *workers)]
        return sum(int(next(line for line in file if line.startswith("VmHWM")).split()[1]) for file in files) / 1024
    except OSError:  # elsewhere the workers are not counted
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main()
