# %% [markdown]
"""
# 12. How do I get from a folder of pictures to new ones?

Put the pictures into a folder, one sub-folder a class if there are classes. The rest is four lines: load, train, sample,
save. This lesson makes a folder of its own, so that it runs anywhere; put the path of yours in its place.
"""

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from lesson import show, small
from PIL import Image, ImageDraw

import tinyddpm as td
from tinyddpm.program.plots import grid

# %% [markdown]
# ## A folder
#
# Three kinds of fruit, 20 x 16 pixels, in colour. Sizes may differ, as they do in photographs.

# %%
folder, rng = Path(tempfile.mkdtemp()), np.random.default_rng(0)
COLOURS = {"apple": (200, 40, 40), "lemon": (230, 210, 60), "plum": (90, 50, 140)}


def fruit(kind, width, height):
    """A picture of one fruit, somewhere near the middle, drawn four times as large and made smaller: smooth edges."""
    image = Image.new("RGB", (4 * width, 4 * height), (235, 235, 225))
    x, y = 4 * (np.array([width, height]) / 2 + rng.uniform(-1, 1, 2))
    stretch = {"apple": (1, 1), "lemon": (1.4, 0.8), "plum": (0.8, 1.1)}[kind]
    rx, ry = 4 * rng.uniform(4, 5.5) * np.array(stretch)
    colour = tuple((np.array(COLOURS[kind]) + rng.integers(-20, 21, 3)).clip(0, 255).tolist())
    pen = ImageDraw.Draw(image)
    pen.ellipse([x - rx, y - ry, x + rx, y + ry], fill=colour)
    if kind != "lemon":
        pen.line([x, y - ry, x + 4, y - ry - 10], fill=(90, 60, 30), width=4)
    return image.resize((width, height), Image.Resampling.LANCZOS)


for kind in COLOURS:
    (folder / kind).mkdir()
    for i in range(small(400, 24)):
        fruit(kind, 20, 16 if i % 2 else 18).save(folder / kind / f"{i:03}.png")
print(sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# ## Load
#
# Images of several sizes need one to be made to: `size=(H, W)`. They are scaled and cut in the middle (`fit="crop"`), or
# scaled unevenly (`fit="stretch"`). A tenth is held out for test: images whose bytes have the smallest CRC-32, so the same ones
# every time, and a copy of an image mostly lands on the same side.

# %%
try:
    td.load_data(folder)
    raise SystemExit("sizes that differ should have been refused")
except ValueError as error:
    print(f"refused: {error}\n")
data = td.load_data(folder, size=(16, 16))
print(data.train, data.test, data.image, data.classes)
n = small(1200, 72)
assert data.image == (16, 16, 3) and data.classes == 3 and len(data.test) == n // 10

# %% [markdown]
# **Look at what the model will see**, before training. Mixed-up classes, black borders and swapped colours show here, and
# cost a minute. Later they cost a night.

# %%
kinds = np.arange(24) // 8
real = np.concatenate([data.train.images[data.train.labels == k][:8] for k in range(3)])
means = [real[kinds == k, 6:10, 6:10].mean((0, 1, 2)).round() for k in range(3)]
print("mean colour of the middle:", {k: mean.tolist() for k, mean in zip(COLOURS, means, strict=True)})
assert means[1].argmin() == 2 and means[0].argmax() == 0  # a lemon has little blue, an apple much red

# %% [markdown]
# ## Train
#
# *How many pictures are enough?* To learn what they have in common some hundreds of simple ones do, as here; photographs of many
# things need tens of thousands. A network that sees few pictures often repeats them: see below.
#
# *How long?* Until the samples are good enough. The loss hardly says: most of it is noise that nobody can predict (lesson 6).

# %%
options = {"preset": "tiny", "unet": {"attention": False}, "batch": 32}
model = td.train(data, small(500, 6), **options)

# %% [markdown]
# ## Sample, save, load
#
# A saved model holds its weights and its configuration. The same seed gives the same picture, on any number of workers, and
# from the file as from memory.

# %%
drawn = model.sample(24, labels=kinds, steps=small(50, 4), progress=None)
td.save(model, folder / "fruit.npz")
again = td.load(folder / "fruit.npz").sample(24, labels=kinds, steps=small(50, 4), progress=None)
assert np.array_equal(drawn, again)

fig, axes = plt.subplots(1, 2, figsize=(9, 2.9))
for ax, images, title in zip(axes, (real, drawn), ("the folder", "drawn"), strict=True):
    ax.imshow(grid(images, 8))
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
show(fig)

# %% [markdown]
# ## Is it right, and is it new?
#
# Ask for two numbers. Do the drawn ones have the colour of their class? And is each further from the nearest picture it has
# seen than a held-out picture is? A model that repeats its data is much nearer.

# %%
found = [drawn[kinds == k, 6:10, 6:10].mean((0, 1, 2)) for k in range(3)]
off = np.abs(np.array(found) - means).mean()
print(f"colours are {off:.0f} of 255 levels off")
assert off < small(40, 255)


def to_nearest(images, seen):
    """The distance of each image to the nearest one in `seen`: root mean square of 0..255."""
    images, seen = (x.reshape(len(x), -1).astype(np.float32) for x in (images, seen))
    return np.array([((image - seen) ** 2).mean(1).min() for image in images]) ** 0.5


of_drawn, of_test = to_nearest(drawn, data.train.images), to_nearest(data.test.images, data.train.images)
print(f"to the nearest picture of the training: drawn {np.median(of_drawn):.1f}, held out {np.median(of_test):.1f}")
assert np.median(of_drawn) > np.median(of_test) / 2

# %% [markdown]
# At the command line the same is:
#
#     tinyddpm train --data photos/ --size 32x32 --out runs/photos --minutes 30
#     tinyddpm sample runs/photos --n 64 --out drawn.png
#     tinyddpm train --data photos/ --size 32x32 --out runs/photos --minutes 30 --resume
#
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/12.py`.)
#
# 1. `levels(floats)`: images in [0, 1] to uint8 0..255, each to the nearest level. Then `check(12, 1, levels)`.
# 2. `pack(path, images, labels)`: a .npz that `td.load_data` reads. Then `check(12, 2, pack)`.
# 3. `numbered(names)`: for each of the names of classes its number, in the order of the alphabet as folders are: ["b", "a", "b"]
#    gives an integer array 1, 0, 1. Then `check(12, 3, numbered)`.
