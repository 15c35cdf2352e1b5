# %% [markdown]
"""
# 1. How does an image turn into noise?

(being written)
"""

# %%
import matplotlib.pyplot as plt
from lesson import show, small

fig, ax = plt.subplots()
ax.plot([1, small(3, 2)])
show(fig)

# %% [markdown]
# ## Exercises
#
# 1. `check(1, 1, f)`
# 2. `check(1, 2, f)`
# 3. `check(1, 3, f)`
