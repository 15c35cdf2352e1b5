"""What is checked: `Adapter`, a class with a method for everything that the identities can be about.

    class MyAdapter(Adapter):
        alpha_bar = np.append(1.0, my_scheduler.alphas_cumprod)

        def q_sample(self, x0, t, noise):
            return my_scheduler.add_noise(x0, noise, t - 1)

Overwrite the methods that your code has an answer to. The others raise NotImplementedError, and what is about them is
reported as not checked. The index is the paper's: t = 1..T are the noisy steps, 0 is the data. Arrays are (N, d), of
the dtype and the library that the adapter names. Next: cases.py.
"""

import traceback

import numpy as np

__all__ = ["Adapter", "AdapterError", "ask", "as_numpy", "check_adapter", "PRECISIONS", "KINDS", "COORDINATES"]

KINDS = ("eps", "x0", "v", "score", "mean", "velocity")
PRECISIONS = {  # the NumPy dtype that carries it, and its eps; NumPy has no bfloat16
    "float64": (np.float64, 2.0**-52),
    "float32": (np.float32, 2.0**-23),
    "float16": (np.float16, 2.0**-10),
    "bfloat16": (np.float32, 2.0**-7),
}
COORDINATES = {  # what x_t is multiplied by where it is not sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps (E37)
    "vp": lambda alpha_bar: 1.0,
    "sigma": lambda alpha_bar: alpha_bar**-0.5,  # x_0 + sigma eps
    "flow": lambda alpha_bar: 1 / (alpha_bar**0.5 + (1 - alpha_bar) ** 0.5),  # (1 - u) x_0 + u eps
}


class AdapterError(Exception):
    """A mistake in the adapter, not in the code that it adapts: the message says what was expected."""


class Adapter:
    """The code under test. Only `alpha_bar` is required; see the top of this file."""

    # ---- what it is ----
    alpha_bar = None  # a table of T + 1 numbers, alpha_bar[0] = 1: the share of the data's variance in x_t
    beta = None  # a table of T + 1 numbers, beta[0] = 0
    coordinates = "vp"  # of every x_t: "vp", "sigma" or "flow", see COORDINATES
    dtype = "float64"  # the precision it computes in: "float32", "float16", "bfloat16" (float32 arrays, rounded)
    from_dlpack = None  # staticmethod(torch.from_dlpack) where methods take torch's arrays; what they return has DLPack
    batched = False  # whether q_sample and convert also take integers t (N,)
    predictions = ()  # those among eps, x0, v, score, mean, velocity that `convert` knows

    # ---- what its sampler claims ----
    eta, variance = 1.0, "beta_tilde"  # noise of eta^2 times "beta_tilde" or "beta": this is DDPM, eta = 0 is DDIM
    clip = None  # (low, high), where it clips x0_hat
    solver = "ddim"  # of `chain`: "ddim" (any eta; Euler too), "heun", "2m" (DPM-Solver++(2M)), or None for another
    order = None  # the order of convergence to the probability flow
    starts_at_T, ends_at_data = True, True  # whether a chain of fewer steps begins at T, and ends with x_0
    zero_terminal_snr = False  # whether alpha_bar[T] = 0
    weighting, min_snr_gamma = "bound", 5.0  # of `loss_weight`: "bound" (E22) or "min-snr" (E38)
    sigma_data = 1.0  # of `scalings`
    threshold_quantile = 0.995  # of `threshold`

    # ---- the forward process ----

    def q_sample(self, x0, t, noise):
        """x_t from x_0. (E2)"""
        raise NotImplementedError

    def q_step(self, x_prev, t, noise):
        """x_t from x_{t-1}. (E1)"""
        raise NotImplementedError

    def posterior(self, x0, xt, t):
        """The mean and the variance of q(x_{t-1} | x_t, x_0): a pair; the variance may be a number. (E7)"""
        raise NotImplementedError

    def convert(self, value, xt, t, source, target):
        """A prediction of the kind `source` as one of the kind `target`. (E24)"""
        raise NotImplementedError

    # ---- sampling ----

    def step(self, x0_hat, xt, t, noise):
        """x_{t-1} from x_t, given the prediction of x_0 and the noise that the step may use. (E29, E30)"""
        raise NotImplementedError

    def chain(self, denoise, x_T, noise):
        """The sampler's own loop: a list of x_{T-1}, ..., x_0.

        denoise(x, alpha_bar) -> x0_hat is the model; x is of that alpha_bar, which need not be in the table. noise(t)
        is standard normal noise for the step from t. Without this method, `step` is called for t = T..1.
        """
        states = [x_T]
        for t in range(len(self.alpha_bar) - 1, 0, -1):
            states.append(self.step(denoise(states[-1], self.alpha_bar[t]), states[-1], t, noise(t)))
        return states[1:]

    def threshold(self, x0_hat):
        """Dynamic thresholding: x0_hat clipped to a quantile of its sample's sizes, and divided by it. (E29)"""
        raise NotImplementedError

    def learned_variance(self, fraction, t):
        """The variance between beta_tilde_t (fraction 0) and beta_t (fraction 1), like `fraction`. (E19)"""
        raise NotImplementedError

    # ---- grids and tables ----

    def respace(self, timesteps):
        """The Adapter of the process that visits only these steps, increasing integers in 1..T. (E32)"""
        raise NotImplementedError

    def with_steps(self, S):
        """The Adapter of the process of S steps that the code itself chooses. (E32)"""
        raise NotImplementedError

    def rescale(self, alpha_bar):
        """A table of T + 1 numbers rescaled so that its last is 0: zero terminal SNR. (E5)"""
        raise NotImplementedError

    def scalings(self, t):
        """Karras's c_skip, c_out and c_in at t, for data of the standard deviation `sigma_data`. (E37)"""
        raise NotImplementedError

    # ---- the loss and the bound ----

    def loss_weight(self, kind, t):
        """The factor of the squared error of a prediction of the kind "eps", "x0" or "v" in the loss. (E22, E38)"""
        raise NotImplementedError

    def prior_term(self, x0):
        """KL(q(x_T | x_0) || N(0, I)) in nats, (N,). (E20)"""
        raise NotImplementedError

    def denoising_term(self, x0, x0_hat, xt, t):
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) in nats, (N,), for t >= 2. (E19)"""
        raise NotImplementedError


# ---- asking an adapter ----


def ask(adapter, method, *arguments):
    """adapter.method(*arguments): copies of NumPy arrays go in, in the adapter's own kind of array.

    Raises AdapterError for an exception that the method itself raised, and not something that it called.
    """
    given = [own_kind(adapter, a) for a in arguments]
    try:
        return getattr(adapter, method)(*given)
    except (NotImplementedError, AdapterError):
        raise
    except Exception as error:
        frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
        if frame.f_code in {getattr(f, "__code__", None) for one in type(adapter).__mro__ for f in vars(one).values()}:
            words = f"{method} raised {type(error).__name__}: {error}"
            raise AdapterError(f"{words} ({frame.f_code.co_filename}:{line})") from error
        raise


def own_kind(adapter, value):
    """A copy of a NumPy array as the adapter's kind of array; what is none as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return value.copy() if adapter.from_dlpack is None else adapter.from_dlpack(value.copy())


def as_numpy(value, what):
    """What an adapter returned as a NumPy array, by DLPack. AdapterError where that cannot be."""
    if isinstance(value, np.ndarray | np.generic | float | int):
        return np.asarray(value)
    if not hasattr(value, "__dlpack__"):
        raise AdapterError(f"{what} must be an array, got {type(value).__name__}")
    try:
        return np.from_dlpack(value, device="cpu")
    except Exception as error:  # each library has its own
        reason = f"{type(error).__name__}: {error}"
        raise AdapterError(
            f"{what} must be an array that NumPy can read by DLPack, without a gradient; {reason}"
        ) from None


def shaped(value, shape, dtype, what):
    """`as_numpy`, of that shape and dtype. AdapterError for another."""
    found = as_numpy(value, what)
    if found.shape != shape or found.dtype != dtype:
        wanted = f"shape {shape} and dtype {np.dtype(dtype)}"
        raise AdapterError(f"{what} must be of {wanted}, got shape {found.shape} and dtype {found.dtype}")
    return found


def check_adapter(adapter):
    """Raise TypeError or AdapterError, saying what is accepted, unless the tables and claims have the form above."""
    if not isinstance(adapter, Adapter):
        raise TypeError(f"an adapter inherits from tinyddpm.properties.Adapter, got {type(adapter).__name__}")
    alpha_bar = adapter.alpha_bar
    if np.ndim(alpha_bar) != 1 or len(alpha_bar) < 2 or np.asarray(alpha_bar).dtype.kind not in "fiu":
        raise AdapterError(f"an adapter needs alpha_bar, a NumPy table of T + 1 entries, got {alpha_bar!r}")
    if alpha_bar[0] < alpha_bar[-1]:
        raise AdapterError("alpha_bar must fall: index 0 is the data and T is noise. This table is the other way round")
    accepted = {
        "dtype": (lambda value: value in PRECISIONS, " or ".join(PRECISIONS)),
        "coordinates": (lambda value: value in COORDINATES, " or ".join(COORDINATES)),
        "beta": (lambda value: value is None or np.shape(value) == np.shape(alpha_bar), f"{len(alpha_bar)} entries"),
        "predictions": (lambda value: set(value) <= set(KINDS), "among " + ", ".join(KINDS)),
        "eta": (lambda value: 0 <= value <= 1, "in [0, 1]"),
        "variance": (lambda value: value in ("beta_tilde", "beta"), "beta_tilde or beta"),
        "solver": (lambda value: value in ("ddim", "heun", "2m", None), "ddim, heun, 2m or None"),
        "weighting": (lambda value: value in ("bound", "min-snr"), "bound or min-snr"),
    }
    for name, (holds, words) in accepted.items():
        if not holds(getattr(adapter, name)):
            raise AdapterError(f"an adapter's {name} must be {words}, got {getattr(adapter, name)!r}")
