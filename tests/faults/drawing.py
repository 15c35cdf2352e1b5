"""Programs over the public names of `nn`: lines of Python, each run as it is drawn.

A program makes leaves in many layouts and applies ops to what it has. To draw another op is to add a line to OPS: the
name, and a function from the Program to the text of an expression. Public functions and methods that no line names
are drawn too, if one Tensor of positive numbers is all they need.
"""

import inspect
import math
import re

import numpy as np

import nn

__all__ = ["Program", "draw", "NOT_DRAWN"]

TAME = 30  # entries larger than that are not computed with: rounding errors would grow with them
APART = 1e-3  # entries nearer to each other than that may change their order by rounding
LARGEST = 600  # entries of an array

SIDES = (2, 1, 3, 4, 2, 3, 1, 2, 3, 5, 2, 3, 1, 4, 3, 2, 3, 2, 4, 0)
LAYOUTS = ("plain", "transposed", "fortran", "strided", "reversed", "stretched", "part", "unaligned")


class Refused(Exception):
    """An op raised."""


class Program:
    """The lines so far, and the Tensors that they make.

    kinks: whether there are ties, kinks and detached parts. Their slope is a matter of convention, and central
    differences do not find it.
    """

    def __init__(self, choose, dtype, kinks):
        self.choose, self.dtype, self.kinks = choose, dtype, kinks
        self.lines, self.leaves, self.exact, self.used = [], [], set(), set()
        self.names = {"nn": nn, "np": np}
        self.tensors = {}  # by name, in the order they were made
        self.error = self.output = self.cotangent = None
        self.rounding = 1.0  # by how much ops may have made the rounding errors of others larger
        self.before = ""  # a `with` in front of the next line

    def add(self, text, exact=False):
        """Run `name = text` and return the name. exact: a result of short binary fractions has no rounding error."""
        name = f"x{len(self.tensors)}"
        self.lines.append(f"{self.before}{name} = {text}")
        self.before = ""
        try:
            exec(self.lines[-1], self.names)
        except Exception as error:
            raise Refused(error) from error
        self.tensors[name] = found = self.names[name]
        arguments = set(re.findall(r"\bx\d+\b", text))
        self.used |= arguments
        if exact and arguments <= self.exact and _short_fractions(found.data):
            self.exact.add(name)
        return name

    def finish(self):
        """Join all that no other line uses into one output, and draw its gradient."""
        ends = [name for name in self.tensors if name not in self.used]
        wide = max((self.tensors[name].dtype for name in ends), key=lambda dtype: dtype.itemsize)
        convert = lambda name: f"{name}.astype(np.{wide})" if self.tensors[name].dtype != wide else name  # noqa: E731
        joined = ", ".join(f"{convert(name)}.reshape(-1)" for name in ends)
        self.output = self.add(f"nn.concatenate([{joined}])") if len(ends) > 1 else ends[0]
        out = self.tensors[self.output]
        if out.requires_grad:
            self.cotangent = self.array(out.shape, out.dtype)
            self.backward = self.chance(2)

    @property
    def inputs(self):
        return [name for name in self.leaves if self.tensors[name].requires_grad]

    def __str__(self):
        lines = ["import numpy as np", "import nn", *self.lines]
        if self.cotangent and self.backward:
            lines += [f"{self.output}.backward({self.cotangent})", *(f"print({x}.grad)" for x in self.inputs)]
        elif self.cotangent:
            lines.append(f"print(nn.gradients({self.output}, [{', '.join(self.inputs)}], {self.cotangent}))")
        return "\n".join(lines)

    # ==== choices ====

    def chance(self, one_in):
        return self.choose(1, one_in) == one_in

    def among(self, *choices):
        return choices[self.choose(0, len(choices) - 1)]

    def permuted(self, items):
        items = list(items)
        return [items.pop(self.choose(0, len(items) - 1)) for _ in range(len(items))]

    def whole(self, low, high):
        """An integer, Python's or NumPy's, as text."""
        number = self.choose(low, high)
        return self.among(f"{number}", f"{number}", f"{number}", f"np.int64({number})", f"np.int32({number})")

    def number(self, *choices):
        """A number, Python's or NumPy's, as text."""
        number = self.among(*choices)
        return self.among(f"{number}", f"{number}", f"{number}", f"np.float64({number})", f"np.float32({number})")

    def integers(self, shape, low, high):
        """A constant array of integers, as text."""
        values = np.random.default_rng(self.choose(0, 99)).integers(low, high + 1, shape)
        return _literal(values, self.among("np.int64", "np.int64", "np.int32", "np.uint8" if low >= 0 else "np.int16"))

    def mask(self, shape):
        values = np.random.default_rng(self.choose(0, 99)).integers(0, 2, shape).astype(bool)
        return _literal(values, "bool")

    def shape(self, least=0, most=4, least_side=0):
        sides = [n for n in SIDES if n >= least_side]
        return tuple(self.among(*sides) for _ in range(self.choose(least, most)))

    # ==== Tensors to compute with, by name ====

    def find(self, fits=lambda t: True, same=None):
        """A tame Tensor that `fits`, the latest half of the time; or None. same: of this one's dtype."""
        dtype = None if same is None else self.tensors[same].dtype
        found = [
            name
            for name, t in self.tensors.items()
            if (dtype is None or t.dtype == dtype) and t.size <= LARGEST and _tame(t.data) and fits(t)
        ]
        if not found:
            return None
        back = self.choose(0, 2 * len(found) - 1)
        return found[-1 - max(0, back - len(found))]

    def any(self, fits=lambda t: True, **wanted):
        return self.find(fits) or self.leaf(**wanted)

    def leaf(self, shape=None, like=None, **wanted):
        """A new leaf, in any layout; `wanted` are the arguments of `self.shape`. like: of this one's dtype."""
        shape = self.shape(**wanted) if shape is None else shape
        dtype = self.tensors[like].dtype if like else self.dtype
        flag = "" if self.chance(8) else ", True"
        name = self.add(f"nn.Tensor({self.array(shape, dtype)}{flag})")
        self.leaves.append(name)
        if _short_fractions(self.tensors[name].data):
            self.exact.add(name)
        return name

    def array(self, shape, dtype):
        """A constant array in any layout, as text: quarters, so that ties are met; or finer fractions, mostly apart."""
        dtype, layout = f"np.{np.dtype(dtype).name}", self.among(*LAYOUTS)
        rng = np.random.default_rng(self.choose(0, 9999))
        coarse = self.kinks and self.chance(2)

        def values(shape):
            return _literal(
                rng.integers(-8, 9, shape) / 4 if coarse else rng.integers(-2048, 2048, shape) / 1024, dtype
            )

        if not shape and layout != "unaligned":
            return f"{dtype}({float(rng.integers(-8, 9)) / 4})" if layout == "part" else values(())
        if layout == "transposed":
            return f"{values(shape[::-1])}.T"
        if layout == "fortran":
            return f"np.asfortranarray({values(shape)})"
        if layout == "strided":
            return f"{values((*shape[:-1], 2 * shape[-1]))}[..., ::2]"
        if layout == "reversed":
            return f"{values(shape)}[{', '.join(self.among('::-1', ':') for _ in shape)}]"
        if layout == "stretched":
            return f"np.broadcast_to({values([self.among(1, n) for n in shape])}, {shape})"
        if layout == "part":
            return f"{values((shape[0] + 1, *shape[1:]))}[1:]"
        if layout == "unaligned" and math.prod(shape):
            return f"np.frombuffer(b'-' + {values(shape)}.tobytes(), {dtype}, offset=1).reshape({shape})"
        return values(shape)

    def shaped(self, axes, least_side=1, fits=lambda t: True):
        """A Tensor of so many axes, found, made by reshaping another, or new."""
        fitting = lambda t: t.ndim == axes and min(t.shape, default=1) >= least_side and fits(t)  # noqa: E731
        name = self.find(fitting)
        if name is None and self.chance(2):
            other = self.find(lambda t: 0 < t.size <= LARGEST)
            if other:
                name = self.add(f"{other}.reshape({self.factors(self.tensors[other].size, axes)})", True)
                name = name if fitting(self.tensors[name]) else None
        return name or self.leaf(least=axes, most=axes, least_side=least_side)

    def factors(self, size, axes):
        """A shape of so many axes with so many entries."""
        shape = []
        for _ in range(axes - 1):
            shape.append(self.among(*[d for d in range(1, size + 1) if size % d == 0]) if size else 0)
            size //= shape[-1] or 1
        return tuple(self.permuted([*shape, size]))

    def positive(self):
        """A Tensor of entries of at least 1/8."""
        name = self.any()
        if self.tensors[name].data.min(initial=1) >= 0.125:
            return name
        return self.add(f"{name} * {name} + 0.5", True)

    def apart(self, *kinks, least_side=0, **wanted):
        """A Tensor whose entries are apart from each other and from `kinks`, or exactly equal where that is known."""
        fits = lambda name, t: (self.kinks and name in self.exact) or _all_apart(t.data, kinks)  # noqa: E731
        name = self.any(lambda t: min(t.shape, default=1) >= least_side, least_side=least_side, **wanted)
        while not fits(name, self.tensors[name]):
            name = self.leaf(least_side=least_side, **wanted)
        return name

    def partner(self, name):
        """What broadcasts with a Tensor: a number, an array, another Tensor; as text."""
        t = self.tensors[name]
        kind = self.among("found", "new", "found", "new", "number", "array")
        if kind == "number":
            return self.number(2, 0.5, -1, 0, 3.0)
        other = kind == "found" and self.find(lambda o: _broadcasts(t.shape, o.shape), same=name)
        if other:
            return other
        start = 0 if t.ndim == 0 else self.choose(0, t.ndim)
        shape = tuple(1 if self.chance(3) else n for n in t.shape[start:])
        if start == 0 and t.size < 50 and self.chance(4):
            shape = (self.among(2, 1, 3), *shape)
        return self.array(shape, t.dtype) if kind == "array" else self.leaf(shape, like=name)

    def pair(self):
        """Two operands that broadcast, in either order."""
        x = self.any()
        pair = [x, self.partner(x)]
        return pair if self.chance(2) else pair[::-1]

    # ==== options, as text ====

    def axis(self, name):
        return self.whole(-self.tensors[name].ndim, self.tensors[name].ndim - 1)

    def reduction(self, name):
        """The arguments of a reduction: no axis, one, or several, counted from either end; keepdims."""
        axes = self.tensors[name].ndim
        kind = self.among("all", "one", "several") if axes else "all"
        axis = "None"
        if kind == "one":
            axis = self.axis(name)
        if kind == "several":
            axis = repr(tuple(a - self.among(0, axes) for a in self.permuted(range(axes))[: self.choose(1, axes)]))
        return self.among(f"{axis}", f"axis={axis}", f"axis={axis}, keepdims=True", f"{axis}, True")

    def index(self, name):
        """An index of any kind: slices, integers, None, ..., arrays of integers with repeats, masks, and mixtures."""
        shape = self.tensors[name].shape
        if self.chance(8):
            return self.mask(shape)
        common = self.shape(0, 2, least_side=1)  # what the arrays of integers broadcast to
        parts, kept = [], self.choose(0, len(shape))
        for n in shape[:kept]:
            parts.append(self.part_of_an_index(n, common))
            if self.chance(8):
                parts.append("None")
        if self.chance(4):
            parts += ["...", *(self.part_of_an_index(n, common) for n in shape[kept + 1 :])]
        text = ", ".join(parts) + self.among("", ",") if parts else "()"
        try:
            np.empty(shape)[eval(f"np.s_[{text}]", {"np": np})]
        except IndexError:  # a mask and arrays of integers seldom fit together
            return "..."
        return text

    def part_of_an_index(self, n, common):
        kinds = (":", "slice", "slice", "integer", "integers", "list", "mask") if n else (":", "slice", "mask")
        kind = self.among(*kinds)
        if kind == "slice":
            start, stop = (self.among("", self.choose(-n - 1, n + 1)) for _ in range(2))
            return f"{start}:{stop}{self.among('', ':-1', ':2', ':-2', ':3')}"
        if kind == "integer":
            return self.whole(-n, n - 1)
        if kind == "integers":
            return self.integers(common if self.chance(2) else common[1:], -n, n - 1)
        if kind == "mask":
            return self.mask(n)
        if kind == "list" and len(common) < 2:
            return repr([self.choose(-n, n - 1) for _ in range(common[0] if common else 1)])
        return kind if kind == ":" else "::-1"


def _literal(values, dtype):
    if values.size == 0:
        return f"np.zeros({values.shape}, {dtype})"
    return f"np.array({values.tolist()}, {dtype})"


def _tame(a):
    return bool((abs(a) <= TAME).all())


def _short_fractions(a):
    """Whether all entries are multiples of 2^-12 below 2^10: exact in float32."""
    return bool(((a * 4096 % 1 == 0) & (abs(a) < 1024)).all())


def _all_apart(a, kinks):
    entries = np.sort(np.concatenate([np.ravel(a), kinks]).astype(float))
    return bool((np.diff(entries) > APART).all())


def _broadcasts(a, b):
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= LARGEST
    except ValueError:
        return False


# ==== the ops: a name of nn's or a method of Tensor's, and how to draw an expression with it ====


def _matmul(p):
    x = p.shaped(p.among(2, 2, 3, 4), least_side=0)
    *lead, outer, inner = p.tensors[x].shape
    if p.chance(8):
        return f"{p.array((p.among(2, 1, 3), outer), p.tensors[x].dtype)} @ {x}"
    lead = p.among([], lead, [1 if p.chance(2) else n for n in lead])
    found = p.find(lambda t: t.ndim > 1 and t.shape[-2] == inner and _broadcasts(t.shape[:-2], lead), same=x)
    y = found or p.leaf((*lead, inner, p.among(2, 3, 1)), like=x)
    return p.among(f"{x} @ {y}", f"{x} @ {y}", f"{x} @ {p.array(p.tensors[y].shape, p.tensors[x].dtype)}")


def _transpose(p):
    x = p.any()
    axes = p.tensors[x].ndim
    order = [a - axes if p.chance(3) else a for a in p.permuted(range(axes))]
    return f"{x}.transpose({p.among(*([str(order)[1:-1], str(tuple(order))] if axes else ['']), '')})"


def _broadcast_to(p):
    x = p.any()
    shape = tuple(p.among(n, 2, 3) if n == 1 else n for n in p.tensors[x].shape)
    return f"{x}.broadcast_to({p.among(shape, (p.among(2, 1), *shape))})"


def _getitem(p):
    x = p.any(least=1)
    return f"{x}[{p.index(x)}]"


def _reshape(p):
    x = p.any(least_side=1)
    t = p.tensors[x]
    shape = [str(n) for n in p.factors(t.size, p.among(1, 2, 3))]
    if t.size and p.chance(2):
        shape[p.choose(0, len(shape) - 1)] = "-1"
    return f"{x}.reshape({p.among(', '.join(shape), f'({chr(44).join(shape)},)')})"


def _astype(p):
    x = p.any()
    return f"{x}.astype({p.among('np.float64', 'np.float32')})"


def _where(p):
    x = p.any()
    y = p.partner(x)
    shape = np.broadcast_shapes(p.tensors[x].shape, getattr(eval(y, p.names), "shape", ()))
    mask = p.mask([1 if p.chance(4) else n for n in shape[p.choose(0, len(shape)) :]])
    return f"nn.where({mask}, {', '.join([x, y] if p.chance(2) else [y, x])})"


def _concatenate(p):
    x = p.any(lambda t: t.ndim > 0, least=1)
    t = p.tensors[x]
    axis = p.whole(-t.ndim, t.ndim - 1)
    at = eval(axis, p.names) % t.ndim
    others = [x]
    for _ in range(p.choose(0, 2)):
        found = p.find(
            lambda o: o.ndim == t.ndim and np.delete(o.shape, at).tolist() == np.delete(t.shape, at).tolist(), x
        )
        others.append(found or p.leaf((*t.shape[:at], p.among(1, 2, 0), *t.shape[at + 1 :]), like=x))
    return f"nn.concatenate([{', '.join(others)}], axis={axis})"


def _pad(p):
    x = p.any(lambda t: t.ndim > 0, least=1)  # numpy.pad refuses arrays of no axes
    return f"nn.pad({x}, {[(p.among(1, 0, 2), p.among(0, 1, 2)) for _ in p.tensors[x].shape]})"


def _softmax(p):
    x = p.any(lambda t: t.ndim > 0 and t.size > 0, least=1, least_side=1)
    return f"{x}, {p.axis(x)}"


def _embedding(p):
    table = p.shaped(2)
    return f"nn.embedding({table}, {p.integers(p.shape(0, 2), 0, len(p.tensors[table]) - 1)})"


def _linear(p):
    x, outputs = p.any(lambda t: t.ndim > 0 and t.shape[-1] > 0, least=1), p.among(2, 1, 3)
    return f"{x}, {p.leaf((p.tensors[x].shape[-1], outputs), x)}, {p.leaf((outputs,), x)}"


def _attention(p):
    q = p.shaped(p.among(3, 2, 4))
    *lead, _, width = p.tensors[q].shape
    lead, length = [1 if p.chance(3) else n for n in lead], p.among(2, 1, 3)
    return f"nn.attention({q}, {p.leaf((*lead, length, width), q)}, {p.leaf((*lead, length, p.among(2, 1, 3)), q)})"


def _twin(p):
    x = p.any(lambda t: t.size > 0, least_side=1)
    shape = p.tensors[x].shape
    return f"{x}, {p.find(lambda t: t.shape == shape, same=x) or p.leaf(shape, like=x)}"


def _cross_entropy(p):
    x = p.shaped(2)
    n, k = p.tensors[x].shape
    return f"nn.cross_entropy({x}, {p.integers(n, 0, k - 1)})"


def _dropout(p):
    x = p.any(lambda t: t.ndim > 0, least=1)
    p.before = f"with nn.random_state(3, 5, range({len(p.tensors[x])})): "
    return f"nn.dropout({x}, {p.number(0.5, 0.25, 0.0)})"


def _normed(p, layer=False):
    x = p.shaped(p.among(2, 3, 4, *([1] if layer else [])))
    a = p.tensors[x].data
    channels = a.shape[-1]
    groups = 1 if layer else p.among(*[d for d in range(1, channels + 1) if channels % d == 0])
    grouped = a.reshape(-1, channels) if layer else np.moveaxis(a.reshape(len(a), -1, groups, channels // groups), 2, 1)
    spread = grouped.reshape(*grouped.shape[: 1 if layer else 2], -1).std(-1).min()
    p.rounding /= math.hypot(spread, 0.003)  # a norm divides by the spread, rounding errors too
    of_channels = lambda: p.find(lambda t: t.shape == (channels,), same=x) or p.leaf((channels,), like=x)  # noqa: E731
    return f"({x}, {of_channels()}, {of_channels()}{'' if layer else f', {groups}'})"


def _conv2d(p):
    if p.chance(4):  # many channels: Winograd
        x = p.leaf((p.among(1, 2), p.among(4, 5, 1, 8), p.among(4, 3, 1, 9), 8))
        kernel, stride, padding = (3, 3), 1, 1
    else:
        x = p.shaped(4)
        kernel, stride, padding = (p.among(3, 1, 2), p.among(3, 1, 2)), p.among(1, 2, 3), p.among(0, 1, 2)
    n, h, w, c = p.tensors[x].shape
    kernel = [min(k, side + 2 * padding) for k, side in zip(kernel, (h, w), strict=True)]
    out = p.among(2, 1, 3)
    shape = (*kernel, c, out)
    weight = p.find(lambda t: t.shape == shape, same=x) or p.leaf(shape, like=x)
    bias = p.chance(4) or p.leaf(p.among((out,), (n, out)), like=x)
    given = [x, weight, "None" if bias is True else bias, f"stride={stride}", f"padding=np.int64({padding})"]
    given[3:] = p.among([f"{stride}", f"{padding}"], given[3:])
    return f"nn.{p.among('conv2d', 'conv2d', 'conv2d_im2col')}({', '.join(given)})"


def _average_pool(p):
    factor = p.among(2, 1, 3)
    divides = lambda t: t.size and t.shape[1] % factor == t.shape[2] % factor == 0  # noqa: E731
    x = p.find(lambda t: t.ndim == 4 and divides(t)) or p.leaf((2, 2 * factor, factor, p.among(2, 1)))
    return f"nn.average_pool({x}, {p.among(factor, f'np.int64({factor})')})"


EXACT = True
OPS = [
    ("__add__", EXACT, lambda p: "{} + {}".format(*p.pair())),
    ("__sub__", EXACT, lambda p: "{} - {}".format(*p.pair())),
    ("__mul__", EXACT, lambda p: "{} * {}".format(*p.pair())),
    ("__radd__", EXACT, lambda p: "sum([{0}, {1}, {0}])".format(*p.pair())),
    ("__iter__", EXACT, lambda p: f"sum({p.any(lambda t: t.ndim and len(t), least=1, least_side=1)})"),
    ("__neg__", EXACT, lambda p: f"-{p.any()}"),
    ("__truediv__", False, lambda p: f"{p.any()} / {p.number(2, -0.5, 3)}"),
    ("__truediv__", False, lambda p: " / ".join([x := p.positive(), p.partner(x)][::-1])),
    ("__pow__", False, lambda p: f"{p.positive()} ** {p.among(2, -1, 0.5, -2, 3, 1, 0, 1.5)}"),
    ("__pow__", EXACT, lambda p: f"{p.any()} ** {p.number(2, 3, 1, 0)}"),
    ("__matmul__", EXACT, _matmul),
    ("sum", EXACT, lambda p: f"{(x := p.any())}.sum({p.reduction(x)})"),
    ("mean", False, lambda p: f"{(x := p.any(lambda t: t.size, least_side=1))}.mean({p.reduction(x)})"),
    ("max", EXACT, lambda p: f"{(x := p.apart(least_side=1))}.max({p.reduction(x)})"),
    ("min", EXACT, lambda p: f"{(x := p.apart(least_side=1))}.min({p.reduction(x)})"),
    ("abs", EXACT, lambda p: f"abs({p.apart(0)})"),
    ("broadcast_to", EXACT, _broadcast_to),
    ("reshape", EXACT, _reshape),
    ("transpose", EXACT, _transpose),
    ("__getitem__", EXACT, _getitem),
    ("__getitem__", EXACT, _getitem),
    ("astype", EXACT, _astype),
    ("detach", EXACT, lambda p: f"{p.any()}.detach()" if p.kinks else f"+1 * {p.any()}"),
    ("exp", False, lambda p: f"nn.exp({p.any(lambda t: (t.data < 4).all())})"),
    ("log", False, lambda p: f"nn.log({p.positive()})"),
    ("sqrt", False, lambda p: f"nn.sqrt({p.positive()})"),
    ("tanh", False, lambda p: f"nn.tanh({p.any()})"),
    ("sigmoid", False, lambda p: f"nn.sigmoid({p.any()})"),
    ("silu", False, lambda p: f"nn.silu({p.any()})"),
    ("relu", EXACT, lambda p: f"nn.relu({p.apart(0)})"),
    ("softplus", False, lambda p: f"nn.softplus({p.any()})"),
    ("clip", EXACT, lambda p: f"nn.clip({p.apart(-0.5, 1.25)}, {p.number(-0.5)}, {p.number(1.25)})"),
    ("where", EXACT, _where),
    ("concatenate", EXACT, _concatenate),
    ("pad", EXACT, _pad),
    ("softmax", False, lambda p: f"nn.softmax({_softmax(p)})"),
    ("log_softmax", False, lambda p: f"nn.log_softmax({_softmax(p)})"),
    ("embedding", EXACT, _embedding),
    ("dropout", False, _dropout),
    ("linear", False, lambda p: f"nn.linear({_linear(p)})"),
    ("attention", False, _attention),
    ("mse", False, lambda p: f"nn.mse({_twin(p)})"),
    ("cross_entropy", False, _cross_entropy),
    ("group_norm", False, lambda p: f"nn.group_norm{_normed(p)}"),
    ("group_norm_silu", False, lambda p: f"nn.group_norm_silu{_normed(p)}"),
    ("layer_norm", False, lambda p: f"nn.layer_norm{_normed(p, layer=True)}"),
    ("conv2d", False, _conv2d),
    ("conv2d_im2col", False, _conv2d),
    ("upsample_nearest", EXACT, lambda p: f"nn.upsample_nearest({p.shaped(4)}, {p.whole(1, 3)})"),
    ("average_pool", False, _average_pool),
]
_NO_OPS = {"backward", "item", "operand", "conv2d_loops"}
_LISTED = {name for name, _, _ in OPS} | _NO_OPS


def _public():
    """The names of public ops, and how to call each on a Tensor's name."""
    for module in (nn.ops, nn.norm, nn.conv, nn.resampling, nn.products):
        yield from ((name, f"nn.{name}({{}})", getattr(nn, name)) for name in module.__all__)
    for name, value in vars(nn.Tensor).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            yield name, f"{{}}.{name}()", value


def _takes_one(function):
    """Whether one Tensor is all that a call of this function needs."""
    parameters = inspect.signature(function).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    return len(needed) == 1


def _with(call):
    return lambda p: call.format(p.find(lambda t: t.size and _all_apart(t.data, (0,))) or p.positive())


OPS += [
    (name, False, _with(call)) for name, call, function in _public() if name not in _LISTED and _takes_one(function)
]
NOT_DRAWN = sorted({name for name, _, _ in _public()} - {name for name, _, _ in OPS} - _NO_OPS)


def draw(choose, least=2, most=12, kinks=True, begin=lambda: None):
    """A Program of so many ops, which has been run; it ends with a line that joins all that no other line uses.

    choose: a function from (low, high) to an integer between them, or one of them. The smallest make small programs.
    begin: called before the choices of each op.
    """
    p = Program(choose, (np.float32, np.float64)[choose(0, 1)], kinks)
    p.leaf()
    for number in range(most):
        begin()
        if choose(0, 9) == 0 and number >= least:
            break
        _, exact, text = OPS[choose(0, len(OPS) - 1)]
        try:
            expression = text(p)
            if not p.before and kinks and p.chance(40):
                p.before = "with nn.no_grad(): "
            p.add(expression, exact)
        except Refused as refused:  # the program ends here, and the peer says whether it may
            p.error = refused.__cause__
            return p
    p.finish()
    return p
