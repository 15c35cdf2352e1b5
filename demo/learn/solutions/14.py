"""The exercises of lesson 14: for each a check, an answer, and the mistake most often made."""

import numpy as np

# ---- 1: what has been sent ----


def check_1(rates):
    found = np.asarray(rates(0.5, np.array([0.0, 0.0, 8.0, 4.0, 1.0])))
    assert found.shape == (5,), f"a table of T + 1 = 5 rows, got shape {found.shape}"
    assert found[4] == 0.5, "x_T comes first, and costs L_T"
    assert found[3] == 1.5, "x_3 is sent given x_4, which is row 4 of kl"
    assert found.tolist() == [0, 13.5, 5.5, 1.5, 0.5], f"{found} where it is 0, 13.5, 5.5, 1.5, 0.5"


def answer_1(prior, kl):
    sums = prior + np.cumsum(kl[:1:-1])[::-1]  # kl[t] + ... + kl[T] for t = 2..T: what x_{t-1} took
    return np.concatenate([[0.0], sums, [prior]])


def mistake_1(prior, kl):
    return prior + np.cumsum(kl)  # as if x_1 were sent first


# ---- 2: Shannon's least ----


def check_2(least_bits):
    assert np.isclose(least_bits(1.0, 1 / 16), 2.0), "a quarter of the deviation takes 2 bits: one for each halving"
    assert np.isclose(least_bits(0.25, 1 / 16), 1.0), "the ratio of V and D counts"
    assert least_bits(0.25, 0.25) == 0 and least_bits(0.25, 0.5) == 0, "an error of V costs nothing: say the mean"


def answer_2(V, D):
    return max(0.0, np.log2(V / D) / 2)


def mistake_2(V, D):
    return np.log2(V / D)  # of the ratio of deviations it would be right


# ---- 3: from a density to bits ----


def check_3(bits_of_density):
    flat = 10 * np.log(1 / 2)  # uniform on [-1, 1], ten values
    found = bits_of_density(flat, 10, 256)
    assert np.isclose(found, np.log2(255)), f"{found:.3f} where 255 bins of equal density take log2(255) bits"
    assert np.isclose(bits_of_density(flat + 10 * np.log(2), 10, 256), np.log2(255) - 1), (
        "twice the density, a bit less"
    )
    assert np.isclose(bits_of_density(flat, 10, 5), 2.0), "five levels from -1 to 1 are four bins apart"


def answer_3(log_p, d, levels):
    return -(log_p + d * np.log(2 / (levels - 1))) / (d * np.log(2))


def mistake_3(log_p, d, levels):
    return -log_p / (d * np.log(2))  # a density is no probability: it lacks the bin's width
