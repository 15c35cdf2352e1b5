"""The exercises of lesson 7: for each a check, an answer, and the mistake most often made."""

import numpy as np

# ---- 1: levels ----


def check_1(scaled):
    found = scaled(np.array([[[0, 51, 255]]], np.uint8))
    assert np.allclose(found, [[[-1, -0.6, 1]]]), f"0, 51, 255 become -1, -0.6, 1, and not {np.ravel(found)}"
    assert found.dtype == np.float32, f"float32, as the network has it, and not {found.dtype}"


def answer_1(images):
    return images.astype(np.float32) / 127.5 - 1


def mistake_1(images):
    return images.astype(np.float32) / 255  # in [0, 1]: see lesson 1


# ---- 2: an average ----


def check_2(averaged):
    assert np.isclose(averaged([3.0], 0.9), 3.0), "of one number it is that number"
    found = averaged([1.0, 2.0, 4.0], 0.5)
    assert np.isclose(found, 2.75), f"of 1, 2, 4 with the decay 0.5 it is 2.75, and not {found}"


def answer_2(weights, decay):
    average = weights[0]
    for weight in weights[1:]:
        average = decay * average + (1 - decay) * weight
    return average


def mistake_2(weights, decay):
    average = 0.0  # drags this 0 along for 1/(1 - decay) steps
    for weight in weights:
        average = decay * average + (1 - decay) * weight
    return average


# ---- 3: what it has seen ----


def check_3(nearest):
    real = np.array([[[0, 0]], [[200, 0]], [[255, 255]]], np.uint8)
    drawn = np.array([[[210, 5]], [[20, 20]], [[250, 240]]], np.uint8)
    found = list(nearest(drawn, real))
    assert found == [1, 0, 2], f"{found} where it is [1, 0, 2]: what is 5 - 10 in uint8?"


def answer_3(drawn, real):
    drawn, real = (x.reshape(len(x), -1).astype(np.float64) for x in (drawn, real))
    return ((drawn[:, None] - real) ** 2).sum(-1).argmin(1)


def mistake_3(drawn, real):
    difference = drawn[:, None] - real[None]  # wraps around
    return (difference.astype(float) ** 2).sum((-1, -2)).argmin(1)
