# %% [markdown]
"""
# 11. What else can a trained model do than draw?

It can fill in what is missing, go from one picture to another, and follow a label closely. None of this needs new training.
Each is a function of some ten lines in `instrument.py`, and each has an exact answer where the data are Gaussian. So we ask
both: does it work on digits, and how far is it from the truth? (Lesson 14 sends pictures, and asks how likely they are.)
"""

# %%
import inspect
from pathlib import Path

import instrument
import matplotlib.pyplot as plt
import numpy as np
from instrument import inpainting, interpolate, interpolate_at, law_of, precision_recall
from lesson import digits, show, small

import nn
import tinyddpm as td
from tinyddpm.program.plots import grid
from tinyddpm.theory.mixture import gaussian_data
from tinyddpm.theory.oracle import Oracle, guided_variances

here = Path(inspect.getfile(instrument)).parent
model = td.load(here.parent / "page" / "digits.npz")  # MNIST at 14x14, ten minutes of training
x0 = model.x0(np.load(here.parent / "page" / "examples.npy"))  # a test image of each digit
few, rng = small(50, 5), np.random.default_rng(0)
rows = {"test images": model.pictures(x0)}

# %% [markdown]
# ## Inpainting
#
# Keep the upper half of each digit, and let the model draw the lower half. The sampler's step is as ever. But after each
# step the seen part is replaced by the image noised to t - 1 (E2). A sampler is a function, so this is one more:

# %%
print(inspect.getsource(inpainting))
seen = (np.arange(14) < 7)[:, None, None]
x_T = rng.standard_normal(x0.shape, dtype=np.float32)
with nn.constant_weights():
    for repeats in (1, small(10, 2)):
        step = inpainting(x0, seen, lambda: rng.standard_normal(x0.shape, dtype=np.float32), repeats)
        drawn = td.sample(model.denoiser(), model.visited(few), x_T, lambda t: None, step, clip=(-1, 1))
        rows[f"lower half drawn, {repeats} x"] = model.pictures(drawn)
assert all(np.array_equal(images[:, :7], rows["test images"][:, :7]) for images in rows.values())

# %% [markdown]
# *Why repeat?* The missing part is drawn given x_t, in which the seen part is noisy. The seen part of x_{t-1} then gets another
# noise, of which the missing part knows nothing. Noised to t again and drawn again, they come to agree (RePaint).
#
# *How far is it from the truth?* Take two numbers of correlation 0.8, of which one is seen. The law of the other is known
# (E40). With an ideal model the method is affine in its noises, so its law can be read off too, without sampling error.

# %%
pair, schedule = gaussian_data([0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]]), td.NoiseSchedule.cosine(20)
denoise, first_seen = Oracle(pair, schedule).denoise, np.array([True, False])


def inpainted(repeats):
    def method(draw):
        x_T = draw()
        step = inpainting(np.full_like(x_T, 1.5), first_seen, draw, repeats, variance="beta")
        return td.sample(denoise, schedule, x_T, None, step)

    mean, covariance = law_of(method, 2)
    return mean[1], covariance[1, 1]


exact = pair.given_part(first_seen, [1.5])
print(f"exact: N({exact.mean()[0]:.3f}, {exact.covariance()[0, 0]:.3f})")
found = {repeats: inpainted(repeats) for repeats in (1, 2, 5, small(20, 10))}
for repeats, (mean, variance) in found.items():
    print(f"{repeats:2} x: N({mean:.3f}, {variance:.3f})")
errors = [abs(mean - 1.2) for mean, _ in found.values()]
assert errors == sorted(errors, reverse=True) and errors[0] > 0.4 and errors[-1] < 0.1

# %% [markdown]
# Once, the seen number is hardly felt: the mean is 41% short. Twenty times, 4%, at twenty times the cost. A model that was
# trained with the seen part as a condition needs no repeats: see the end.
#
# ## Interpolation
#
# DDIM without noise goes from x_T to x_0 on a path that can be gone backwards. So an image has a code. Codes are mixed on a
# great circle: noise of 196 numbers has a length near 14, and the mean of two has only 10. Ho et al. mix at a chosen noise
# level instead, and draw from there. What is above that level is mixed; what is below is drawn anew.

# %%
weights, visited = np.linspace(0, 1, 10), model.visited(few)
with nn.constant_weights():
    mixed = interpolate(model.denoiser(), visited, x0[2:3], x0[7:8], weights, clip=(-1, 1))
    rows["2 to 7, by DDIM's codes"] = model.pictures(np.concatenate(mixed))
    t, noise = visited.T // 2, lambda t: model.noise(0, "sampler", t, np.arange(1))
    mixed = interpolate_at(model.denoiser(), visited, x0[2:3], x0[7:8], weights, t, noise, clip=(-1, 1))
    rows[f"2 to 7, mixed at t = {visited.timesteps[t]}"] = model.pictures(np.concatenate(mixed))
back = abs(rows["2 to 7, by DDIM's codes"][[0, -1]].astype(float) - rows["test images"][[2, 7]]).mean()
print(f"an image encoded and decoded again is {back:.1f} of 255 levels off")
assert back < small(25, 255)

# %% [markdown]
# ## Guidance
#
# null + s (conditional - null) goes further in the direction in which the label points (E39). On Gaussian data the guided
# score is that of a narrower Gaussian at each t. But these are the diffusion of no data: where diffusion of the guided data
# would have the variance 0.618, the guided density has 0.375. So a guided sampler does not draw what its last step
# promises. To guide only at middle t keeps the variety (Kynkaanniemi et al. 2024).

# %%
guided, diffused = guided_variances(td.NoiseSchedule.linear(1000), 1.0, 0.1, 3.0)
assert round(guided[300], 3) == 0.375 and round(diffused[300], 3) == 0.618

test = digits().test[: small(300, 20)]
real, labels = test.images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)) / 127.5 - 1, test.labels
x_T = model.noise(0, "x_T", 0, np.arange(len(labels)))
of_label, guided = model.denoiser(labels), model.denoiser(labels, guidance_scale=4.0)
drawn = {}
with nn.constant_weights():
    models = {"scale 1": of_label, "4": guided, "4, t in 333..667": model.denoiser(labels, 4.0, (333, 667))}
    for name, denoise in models.items():
        drawn[name] = td.sample(denoise, model.visited(small(25, 4)), x_T, None, td.ddim_step, clip=(-1, 1))
        rows[f"guidance {name}"] = model.pictures(drawn[name][:10])
found = {name: precision_recall(real, x) for name, x in drawn.items()}
for name, (precision, recall) in found.items():
    print(f"guidance {name}: {precision:.2f} of the drawn lie among the real, {recall:.2f} of the real among the drawn")
recall = [recall for _, recall in found.values()]
assert small(recall[1] < recall[2] < recall[0], True)  # a high scale leaves out much of the data

# %%
fig, axes = plt.subplots(len(rows), 1, figsize=(8, 0.7 * len(rows)))
for ax, (name, images) in zip(axes, rows.items(), strict=True):
    ax.imshow(grid(images, 10), cmap="gray", vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([24], [name], fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
show(fig)

# %% [markdown]
# ## Conditioning on something else
#
# A condition is one more argument of the network, in training and in sampling; the diffusion does not change. For an image as
# the condition, show it as further channels beside x_t. `docs/gallery.md` has digits enlarged from 14x14 to 28x28 so.

# %%
print(inspect.getsource(instrument.Conditioned))
print(inspect.getsource(instrument.learn))

# %% [markdown]
# ## Exercises
#
# Write a function, then `from lesson import check` and ask. (The answers are in `solutions/11.py`.)
#
# 1. `replaced(schedule, x0, x_prev, seen, t, noise)`: x_{t-1} with its seen part replaced, as in the inpainting step.
#    Then `check(11, 1, replaced)`.
# 2. `great_circle(a, b, weight)`: of two vectors (d,), at the angle weight times theirs. Then `check(11, 2, great_circle)`.
# 3. `guided_variance(V, V_c, s)`: of the density whose score is null + s (conditional - null), where the two are N(0, V) and
#    N(0, V_c). Then `check(11, 3, guided_variance)`.
