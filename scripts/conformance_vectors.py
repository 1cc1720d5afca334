"""Write gradlab/conformance/vectors-1.json: pairs, and what each registered loss and both of its slopes are there.

The numbers depend on no machine: PyTorch traces a loss and its backward pass into elementary operations, and these are
carried out with 60 digits by mpmath, then rounded once to float64. The inputs are exact in float32 and float64 alike,
so one number serves for both. None stands where the number lies beyond float64, and for slopes at a kink of the loss.

    python -m scripts.conformance_vectors           writes the file
    python -m scripts.conformance_vectors --check   exit status 1 where the committed file is another
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from gradlab.conformance.vectors import ABOUT, FILE, FORMAT, INPUTS
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, PairLogps
from gradlab.store.files import write_whole

mpmath.mp.dps = 60
STEP = mpmath.mpf(10) ** -30  # to either side of a kink
JUMP = mpmath.mpf(10) ** -12  # slopes that differ by more, as a share, have a kink between them

ORDINARY = (  # win, lose, ref_win, ref_lose, win_len, lose_len
    (-12.5, -18.25, -14.0, -17.5, 9, 14),
    (-31.0, -22.75, -30.5, -25.0, 24, 17),
    (-7.125, -9.5, -9.25, -8.0, 5, 8),
    (-55.5, -61.0, -50.25, -52.0, 40, 38),
    (-16.0, -13.5, -12.75, -15.25, 11, 6),
    (-88.25, -70.5, -90.75, -64.0, 75, 50),
    (-24.5, -40.0, -28.125, -34.5, 30, 52),
    (-3.5, -5.75, -4.0, -5.0, 3, 4),
    (-140.0, -152.5, -141.5, -147.25, 160, 120),
    (-45.75, -33.0, -41.5, -36.25, 33, 29),
    (-19.25, -27.0, -18.5, -26.75, 20, 20),
    (-66.0, -58.5, -62.25, -63.5, 61, 44),
    (-10.0, -11.5, -17.75, -6.25, 13, 7),
    (-36.5, -29.0, -29.25, -38.0, 18, 31),
    (-28.0, -28.75, -27.5, -28.25, 22, 25),
)
EDGES = {
    "policy equals reference": (-20.0, -24.0, -20.0, -24.0, 12, 15),
    "all four equal": (-15.5, -15.5, -15.5, -15.5, 10, 10),
    "equal sides": (-18.0, -18.0, -16.5, -17.0, 14, 14),
    "near 0": (-0.0009765625, -0.0029296875, -0.015625, -0.0078125, 1, 1),
    "small differences": (-21.0, -23.0, -21.00390625, -22.99609375, 16, 19),
    "all near -1000": (-1000.0, -1003.5, -1001.25, -1002.0, 400, 410),
    "winner at -1000": (-1000.0, -25.0, -20.0, -24.0, 350, 18),
    "loser at -1000": (-18.0, -1000.0, -20.0, -24.0, 12, 350),
    "both at -1000": (-1000.0, -1000.0, -20.0, -24.0, 350, 350),
    "references at -1000": (-20.0, -24.0, -1000.0, -1000.0, 15, 18),
    "one token against 4096": (-2.25, -900.0, -3.0, -896.5, 1, 4096),
    "4096 tokens against one": (-900.0, -2.25, -903.5, -1.75, 4096, 1),
}
BATCHES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11, 12, 13, 14), (15, 18, 0, 13, 19))  # places of pairs


def pairs() -> dict[str, list[Any]]:
    """Return the pairs as columns: their names, and the six inputs."""
    named = {f"ordinary {place + 1}": numbers for place, numbers in enumerate(ORDINARY)} | EDGES
    return {"pair": list(named), **dict(zip(INPUTS, map(list, zip(*named.values(), strict=True)), strict=True))}


# Elementary operations, by PyTorch's names, over arrays of mpmath's numbers.
def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    return np.frompyfunc(function, function.__code__.co_argcount, 1)


def _log1p_exp(x: Any) -> Any:
    return mpmath.log1p(mpmath.exp(x)) if x < 0 else x + mpmath.log1p(mpmath.exp(-x))


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x)) if x > 0 else mpmath.exp(x) / (1 + mpmath.exp(x))


def _arrays(*values: Any) -> list[np.ndarray]:
    return [np.asarray(value, dtype=object) for value in values]


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, (list, tuple)) and dim else None if dim in (None, []) else dim


def _mean(x: Any, dim: Any = None, keep: bool = False, **_: Any) -> Any:
    total = np.sum(x, axis=_axes(dim), keepdims=keep)
    return total * np.size(total) / mpmath.mpf(np.size(x))


def _log_sum_exp(x: Any, dim: Any = None, keep: bool = False) -> Any:
    top = np.max(x, axis=_axes(dim), keepdims=True)
    inside = np.sum(_each(lambda a: mpmath.exp(a))(x - top), axis=_axes(dim), keepdims=True)
    result = top + _each(lambda a: mpmath.log(a))(inside)
    return result if keep else np.squeeze(result, axis=_axes(dim))


def _sorted(x: Any, dim: int = -1, descending: bool = False, **_: Any) -> tuple[Any, Any]:
    order = np.argsort(-x if descending else x, axis=dim, kind="stable")
    return np.take_along_axis(x, order, dim), order


def _scatter(into: Any, dim: int, index: Any, source: Any) -> Any:
    result = into.copy()
    np.put_along_axis(result, index, source, dim)
    return result


def _scatter_add(into: Any, dim: int, index: Any, source: Any) -> Any:
    result = into.copy()
    for place in np.ndindex(index.shape):
        target = (*place[:dim], index[place], *place[dim + 1 :])
        result[target] += source[place]
    return result


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b, alpha=1: a + b * alpha, "sub": lambda a, b, alpha=1: a - b * alpha,
    "rsub": lambda a, b, alpha=1: b - a * alpha, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "neg": lambda a: -a, "reciprocal": lambda a: 1 / a, "pow": lambda a, b: a**b, "square": lambda a: a * a,
    "exp": _each(lambda a: mpmath.exp(a)), "log": _each(lambda a: mpmath.log(a)),
    "expm1": _each(lambda a: mpmath.expm1(a)), "log1p": _each(lambda a: mpmath.log1p(a)),
    "sqrt": _each(lambda a: mpmath.sqrt(a)), "tanh": _each(lambda a: mpmath.tanh(a)),
    "atan": _each(lambda a: mpmath.atan(a)), "erf": _each(lambda a: mpmath.erf(a)), "abs": abs,
    "sigmoid": _each(_sigmoid), "softplus": lambda a, beta=1, threshold=20: _each(_log1p_exp)(a * beta) / beta,
    "log_sigmoid_forward": lambda a: (-_each(_log1p_exp)(-a), None),
    "sgn": _each(lambda a: mpmath.sign(a)), "sign": _each(lambda a: mpmath.sign(a)),
    "sigmoid_backward": lambda g, s: g * s * (1 - s), "tanh_backward": lambda g, t: g * (1 - t * t),
    "softplus_backward": lambda g, a, beta, threshold: g * _each(_sigmoid)(a * beta),
    "log_sigmoid_backward": lambda g, a, buffer: g * _each(_sigmoid)(-a),
    "threshold_backward": lambda g, a, threshold: np.where(a > threshold, g, mpmath.mpf(0)),
    "relu": lambda a: np.maximum(a, mpmath.mpf(0)),
    "silu": lambda a: a * _each(_sigmoid)(a),
    "silu_backward": lambda g, a: g * _each(_sigmoid)(a) * (1 + a * _each(_sigmoid)(-a)),
    "clamp": _clamp, "clamp_min": lambda a, low: _clamp(a, low), "clamp_max": lambda a, high: _clamp(a, None, high),
    "maximum": np.maximum, "minimum": np.minimum, "where": np.where,
    "masked_fill": lambda a, mask, b: np.where(mask, b, a),
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_not": np.logical_not, "bitwise_and": np.logical_and, "bitwise_or": np.logical_or,
    "bitwise_not": np.logical_not,
    "sum": lambda a, dim=None, keep=False, **_: np.sum(a, axis=_axes(dim), keepdims=keep), "mean": _mean,
    "logsumexp": _log_sum_exp, "sort": _sorted, "gather": lambda a, dim, index, **_: np.take_along_axis(a, index, dim),
    "scatter": _scatter, "scatter_add": _scatter_add, "argsort": lambda a, *rest, **_: _sorted(a, *rest)[1],
    "amax": lambda a, dim=None, keep=False: np.max(a, axis=_axes(dim), keepdims=keep),
    "amin": lambda a, dim=None, keep=False: np.min(a, axis=_axes(dim), keepdims=keep),
    "expand": lambda a, shape, **_: np.broadcast_to(a, [n if m == -1 else m for m, n in zip(
        shape, (*(1,) * (len(shape) - a.ndim), *a.shape), strict=True)]),
    "unsqueeze": np.expand_dims, "squeeze": lambda a, dim=None: np.squeeze(a, axis=_axes(dim)),
    "view": np.reshape, "reshape": np.reshape, "_unsafe_view": np.reshape, "flip": np.flip,
    "full": lambda shape, fill, **_: np.full(shape, _exact(fill), object),
    "full_like": lambda a, fill, **_: np.full(np.shape(a), _exact(fill), object),
    "ones_like": lambda a, **_: np.full(np.shape(a), mpmath.mpf(1), object),
    "zeros_like": lambda a, **_: np.full(np.shape(a), mpmath.mpf(0), object),
    "new_zeros": lambda a, shape, **_: np.full(shape, mpmath.mpf(0), object),
    "scalar_tensor": lambda a, **_: np.asarray(_exact(a), object), "roll": np.roll, "cat": np.concatenate,
    "_to_copy": lambda a, **_: a, "clone": lambda a, **_: a, "detach": lambda a: a, "alias": lambda a: a,
    "lift_fresh_copy": lambda a: a, "empty_like": lambda a, **_: a,
}  # fmt: skip


def _exact(value: Any) -> Any:
    """Return a number of Python's, or a tensor's numbers, as mpmath's; truth values, and all else, as they are."""
    if isinstance(value, Tensor):
        cells = [_exact(cell) for cell in value.flatten().tolist()]
        return (
            np.array([*cells, None], object)[:-1].reshape(value.shape) if value.is_floating_point() else value.numpy()
        )
    return mpmath.mpf(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


class Exact(torch.fx.Interpreter):
    """A traced function carried out with mpmath's numbers."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Carry out one operation; NotImplementedError for one that has no exact form here."""
        if getattr(target, "__name__", "") == "getitem":
            return args[0][args[1]]
        name = target.overloadpacket.__name__.removesuffix("_")
        if name not in _OPERATIONS:
            raise NotImplementedError(f"{target} of PyTorch has no exact form in scripts/conformance_vectors.py")
        whole = name in ("pow", "sort", "gather", "sum", "mean", "expand", "view", "reshape", "unsqueeze", "squeeze")
        given = args if whole or name.startswith(("scatter", "am", "full", "new", "roll")) else tuple(map(_exact, args))
        with np.errstate(all="ignore"):
            return _OPERATIONS[name](*given, **{key: value for key, value in kwargs.items() if key not in _PLACES})

    def fetch_attr(self, target: str) -> Any:
        """Return a constant of the traced function."""
        return _exact(super().fetch_attr(target))


_PLACES = ("dtype", "layout", "device", "pin_memory", "memory_format", "requires_grad")


def traced(loss: Any, count: int) -> Exact:
    """Return a loss and both slopes of its mean's ``count`` times, as a function of the six inputs, (count,) each."""

    def numbers(*inputs: Tensor) -> tuple[Tensor, ...]:
        win, lose = (side.detach().requires_grad_() for side in inputs[:2])
        value = loss(PairLogps(win, lose, *inputs[2:]))
        slopes = torch.autograd.grad(value.sum(), (win, lose), allow_unused=True, materialize_grads=True)
        return value, *slopes

    made_up = [-torch.arange(1.0, count + 1, dtype=torch.float64) - place / 3 for place in range(4)]
    lengths = [torch.arange(3.0, count + 3, dtype=torch.float64) for _ in range(2)]
    return Exact(make_fx(numbers)(*made_up, *lengths))


def exact(loss: Any, columns: Mapping[str, Sequence[Any]], *, together: bool = False) -> dict[str, list[float | None]]:
    """Return value, win_slope and lose_slope of each pair, rounded to float64; together: of the batch of all pairs."""
    count = len(columns["win"]) if together else 1
    program = traced(loss, count)
    size = len(columns["win"])
    results: dict[str, list[float | None]] = {"value": [], "win_slope": [], "lose_slope": []}
    for first in range(0, size, count):
        inputs = [
            np.array([*map(mpmath.mpf, columns[name][first : first + count]), None], object)[:-1] for name in INPUTS
        ]
        value, *slopes = program.run(*inputs)
        results["value"] += [_rounded(number) for number in np.broadcast_to(value, count)]
        beside = [program.run(*_moved(inputs, side, sign))[1:] for side in (0, 1) for sign in (1, -1)]
        for place, slope in enumerate(slopes):
            others = [np.broadcast_to(numbers[place], count) for numbers in beside]
            for at, number in enumerate(np.broadcast_to(slope, count)):
                smooth = all(abs(other[at] - number) <= JUMP * (1 + abs(number)) for other in others)
                results[("win_slope", "lose_slope")[place]].append(_rounded(number) if smooth else None)
    return results


def _moved(inputs: list[np.ndarray], side: int, sign: int) -> list[np.ndarray]:
    return [one + sign * STEP if place == side else one for place, one in enumerate(inputs)]


def _rounded(number: Any) -> float | None:
    value = float(number)
    return value if abs(value) < np.inf else None  # NaN too


def presets(loss: Any) -> dict[str, dict[str, Any]]:
    """Return the hyper-parameters under which a loss is known: by default, as published, and as libraries ship it."""
    named = {"default": {}, "published": dict(loss.published)}
    named |= {f"{one.library} {one.key}": dict(one.hyper) for one in loss.shipped}
    return {name: {key.name: hyper.get(key.name, getattr(loss, key.name)) for key in fields(loss)}
            for name, hyper in named.items()}  # fmt: skip


def cases(makers: Mapping[str, Callable[..., Any]], numbers: Callable[[Any], Mapping[str, Any]]) -> Iterable[dict]:
    """Yield the cases of each loss: one per set of hyper-parameters, with all names of that set."""
    for name, make in makers.items():
        by_hyper: dict[str, list[str]] = {}
        for preset, hyper in presets(make()).items():
            by_hyper.setdefault(json.dumps(hyper), []).append(preset)
        for hyper, names in by_hyper.items():
            given = json.loads(hyper)
            yield {"loss": name, "hyper": given, "presets": names, **numbers(make(**given))}


def text() -> str:
    """Return the file's content: JSON with one case per line."""
    columns = pairs()
    batch = [{key: [column[place] for place in places] for key, column in columns.items()} for places in BATCHES]
    parts = {
        "pairs": json.dumps(columns),
        "batches": json.dumps(BATCHES),
        "cases": _lines(cases(PAIR_LOSSES, lambda loss: exact(loss, columns))),
        "batch_cases": _lines(cases(BATCH_LOSSES, lambda loss: {
            "batches": [exact(loss, one, together=True) for one in batch]})),
    }  # fmt: skip
    body = ",\n".join(f'"{key}": {value}' for key, value in parts.items())
    return f'{{"gradlab_conformance": {FORMAT},\n"about": {json.dumps(ABOUT)},\n{body}}}\n'


def _lines(rows: Iterable[dict]) -> str:
    return "[" + ",".join("\n" + json.dumps(row) for row in rows) + "]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    content = text()
    if "--check" in sys.argv:
        sys.exit(FILE.read_text("utf-8") != content)
    write_whole({FILE: content})
    print(f"{FILE}: {len(content) / 1e3:.0f} kB")
