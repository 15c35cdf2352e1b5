# %% [markdown]
"""
# 7. What changes from two moons to digits?

Two things: the data, and the network. The schedule, x_t, the loss and the sampler of lesson 6 stay as they are, to the
letter. This lesson checks that, and trains for about two minutes on two cores.
"""

# %%
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from lesson import digits, show, small

import nn
import tinyddpm as td
from tinyddpm.data.images import to_model
from tinyddpm.program.plots import grid
from tinyddpm.program.train import read

# %% [markdown]
# ## The data
#
# Digits, at half their size, 14 x 14, so that two minutes are enough: 196 numbers a sample, where the moons had two.
# Levels 0..255 become -1..1, as a network's input should be near variance 1, and noise is.

# %%
whole = digits()


def halved(dataset):
    """The mean of every 2 x 2 pixels."""
    means = dataset.images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))
    return td.Dataset(means.round().astype(np.uint8), dataset.labels)


data = td.Data(f"{whole.name} at 14x14", halved(whole.train), halved(whole.test))
x0 = to_model(data.train.images[:8])
print(f"{len(data.train)} images; x_0 is {x0.shape[1:]} in [{x0.min():g}, {x0.max():g}]")

# %% [markdown]
# ## The network
#
# The moons' network multiplied all its inputs with all its units. An image is different: neighbouring pixels belong
# together, and a stroke may be anywhere. So the layers are convolutions. Noise of a low level is seen in a few pixels, a
# digit only in all of them. So the network works at the full and at half the size, and carries what it saw on the way down
# over to the way up: a U-Net. It is still called as network(x, t), and its last layer still starts at 0. It also takes a
# label, which is an embedding that is added to that of t.

# %%
options = {"preset": "tiny", "unet": {"width": 12, "multipliers": (1, 2), "groups": 4, "attention": False}}
model = td.Model(td.Config.of(data, **options))
print(f"{sum(p.size for p in model.network.parameters()):,} parameters")
labels, t = data.train.labels[:8], np.array([1, 100, 300, 500, 600, 700, 900, 1000])
assert not model.predict(x0, t, labels).any()

# %% [markdown]
# ## The loss is the same
#
# The loss of lesson 6, by hand, beside what the trainer computes:

# %%
noise = np.random.default_rng(0).standard_normal(x0.shape, dtype=np.float32)
xt = td.q_sample(model.schedule, x0, t, noise)
v = td.convert(model.schedule, noise, xt, t, "eps", "v")
by_hand = nn.mse(model.network(nn.Tensor(xt), t, labels), v).item()
of_trainer, _ = model.loss_and_gradient(x0, labels, t, noise)
print(f"the loss by hand {by_hand:.6f}, of the trainer {of_trainer:.6f}")
assert np.isclose(by_hand, of_trainer, rtol=1e-5)

# %% [markdown]
# ## Two minutes
#
# `td.train` is the loop of lesson 6 over all cores. Given a folder it keeps checkpoints, and `resume` goes on, bit for bit.
# We stop twice on the way, to look. Every picture starts from the same noise, so a row shows one digit taking shape.

# %%
folder, drawn = tempfile.TemporaryDirectory(), {}
for steps in small((60, 200, 700), (4, 8, 16)):  # in all; or say minutes=2
    model = td.train(data, steps, out=folder.name, resume=bool(drawn), **options)
    losses = read(folder.name)[1]["losses"]
    drawn[len(losses)] = model.sample(20, labels=range(10), steps=small(50, 5), progress=None)
first, last = np.mean(losses[:3]), np.mean(losses[-len(losses) // 5 :])
print(f"{len(losses)} steps of 64 images; the loss fell from {first:.3f} to {last:.3f}")
assert last < small(0.5, 1.0) * first

# %%
fig, axes = plt.subplots(len(drawn) + 1, 1, figsize=(8, 7.5))
shown = {f"after {steps} steps": images for steps, images in drawn.items()}
shown["data"] = np.concatenate([data.test.images[data.test.labels == k][:2] for k in range(10)])[np.r_[0:20:2, 1:20:2]]
for ax, (title, images) in zip(axes, shown.items(), strict=True):
    ax.imshow(grid(images, 10), cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)
show(fig)

# %% [markdown]
# ## How good is it?
#
# *How do I get bits/dim?* From the bound of lesson 4: the bits to send an image, divided by its number of pixels. It sees
# every pixel, so it mostly pays for the exact grey of edges.

# %%
result = model.evaluate(data.test.images[: small(200, 8)], draws=small(4, 1), progress=lambda x, **_: x)
print(result)
assert result.total < small(4, 9)  # 8 bits are what sending the pixels as they are would cost

# %% [markdown]
# *Why does an FID on MNIST mean little?* FID compares the mean and the covariance of features, and its network was trained
# on photographs. To it, all digits are nearly alike: grey strokes of no texture. Two good models then differ by less than
# two random halves of the data. A judge that knows digits says more: `model.judge(data)` trains one. Here is a
# number that needs no judge: how much ink. It shows what is wrong at once, and says nothing about form.

# %%
ink = {name: images.mean() / 255 for name, images in shown.items()}
print(", ".join(f"{name}: {value:.3f}" for name, value in ink.items()))
assert abs(ink[f"after {len(losses)} steps"] - ink["data"]) < small(0.06, 0.5)

# %% [markdown]
# *Why are samples drawn with averaged weights?* Each step of Adam moves the weights by a noisy amount. Their moving average
# is steadier, and costs one more copy. `td.train` returns a model with the average.
#
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/07.py`.)
#
# 1. `scaled(images)`: uint8 levels 0..255 to float32 in [-1, 1]. Then `check(7, 1, scaled)`.
# 2. `averaged(weights, decay)`: the moving average of a list of numbers, average <- decay average + (1 - decay) weight, which
#    starts at the first of them. Then `check(7, 2, averaged)`.
# 3. `nearest(drawn, real)`: for each of drawn (N, H, W) the index of the image of real (M, H, W) nearest to it, both uint8:
#    does the model repeat what it has seen? Then `check(7, 3, nearest)`.
