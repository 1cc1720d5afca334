"""Elementary functions of vectors, and PyTorch's elementwise operations in terms of them.

LLVM has no vector exp or log. The functions below are short series after a reduction of the argument, right to 2 units
in the last place (``tests/test_engine.py``) where argument and result are normal numbers; smaller results are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gradlab.lab.engine.vectors import Number, Value


class _Format(NamedTuple):
    """The format of a type: ``mantissa`` bits, an exponent shifted by ``bias``, and constants that follow from them.

    ln2  ln 2 in two parts, the first with so few digits that its product with an exponent is exact.
    exp  coefficients of (e^r − 1)/r on |r| ≤ ½ ln 2: its Taylor series, shortened by Chebyshev polynomials.
    """

    mantissa: int
    bias: int
    ln2: tuple[float, float]
    exp: tuple[float, ...]


_FORMATS = {
    "float64": _Format(52, 1023, (6.93147180369123816490e-01, 1.90821492927058770002e-10), (
        1.0, 0.5000000000000006, 0.1666666666666668, 0.041666666666573135, 0.0083333333333196, 0.001388888893249112,
        0.00019841269890049292, 2.4801504344197243e-05, 2.755724091650479e-06, 2.7626358277676567e-07,
        2.5110038296706784e-08)),
    "float32": _Format(23, 127, (0.693359375, -2.12194440e-4), (
        1.0, 0.5, 0.16666505, 0.04166635, 0.00836915, 0.001394111)),
}  # fmt: skip


def exp(x: Value) -> Value:
    """Return e^x; 0 or ∞ where that is not a normal number."""
    return (x > _most(x)).where(math.inf, _exp(x))


def sigmoid(x: Value) -> Value:
    """Return 1/(1 + e^−x), between the smallest normal number and 1."""
    return 1.0 / (_exp(clamp(-x, most=_most(x))) + 1.0)


def opposite_sigmoid(x: Value) -> Value:
    """Return σ(−x). All but the last step is the same for −x, so LLVM computes it once for both."""
    small = _exp(-absolute(x))
    return (x < 0.0).where(1.0, small) * (1.0 / (small + 1.0))


def _most(x: Value) -> float:
    """Return the greatest argument whose exp is a finite number."""
    return (_FORMATS[x.emitter.dtype.name].bias + 0.499) * math.log(2)


def _exp(x: Value) -> Value:
    """Return e^x for x up to ``_most``."""
    form = _FORMATS[x.emitter.dtype.name]
    x = clamp(x, least=-form.bias * math.log(2))  # where 2^n is 0
    shift = 1.5 * 2.0**form.mantissa + form.bias  # adding it leaves no digits after the point
    shifted = x.times_plus(1 / math.log(2), shift)  # its last bits are n + bias, for x = n ln 2 + r, |r| ≤ ½ ln 2
    integer = shifted - shift
    rest = integer.times_plus(-form.ln2[1], integer.times_plus(-form.ln2[0], x))
    scale = (shifted.view(x.emitter.bits) << form.mantissa).view(x.emitter.reals)  # 2^n
    return (rest * _polynomial(rest, form.exp)).times_plus(scale, scale)


def log(x: Value) -> Value:
    """Return ln x; −∞ at 0, NaN below."""
    kind = x.emitter.dtype
    form = _FORMATS[kind.name]
    # x = 2^n · m with m in [√½, √2). Counted from √½, the exponent's bits are n + bias, and those below them m's place.
    root_half = int(kind.type(math.sqrt(0.5)).view(f"u{kind.itemsize}"))
    moved = x.view(x.emitter.bits) + ((form.bias << form.mantissa) - root_half)
    exponent = (moved >> form.mantissa).real() - float(form.bias)
    mantissa = ((moved & ((1 << form.mantissa) - 1)) + root_half).view(x.emitter.reals)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 artanh of it; ten terms do for both types
    series = _polynomial(ratio * ratio, [2 / (2 * term + 1) for term in range(10)])
    result = exponent.times_plus(form.ln2[0], exponent.times_plus(form.ln2[1], ratio * series))
    result = (x < 2.0 ** (1 - form.bias)).where((x < 0.0).where(math.nan, -math.inf), result)
    return (x < math.inf).where(result, x)


def _polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Return Σ c_k x^k."""
    result = x.like(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result.times_plus(x, coefficient)
    return result


def power(x: Value, exponent: Any) -> Value:
    """Return x to the power of a fixed small whole number."""
    if exponent not in range(-8, 9):
        raise TypeError("only small whole exponents")
    result = x.like(1.0)
    for _ in range(abs(int(exponent))):
        result = result * x
    return 1.0 / result if exponent < 0 else result


def sqrt(x: Value) -> Value:
    """Return √x, correctly rounded."""
    return x.emitter.call("sqrt", x)


def absolute(x: Value) -> Value:
    """Return |x|."""
    return x.emitter.call("fabs", x)


def minimum(x: Value, other: Value) -> Value:
    """Return the lesser of two values; NaN where either is NaN."""
    return ((x < other) | x.compare("!=", x)).where(x, other)


def maximum(x: Value, other: Value) -> Value:
    """Return the greater of two values; NaN where either is NaN."""
    return ((x > other) | x.compare("!=", x)).where(x, other)


def clamp(x: Value, least: Value | Number | None = None, most: Value | Number | None = None) -> Value:
    """Return x limited to [``least``, ``most``]; NaN stays NaN."""
    if least is not None:
        x = (x < least).where(least, x)
    return x if most is None else (x > most).where(most, x)


# PyTorch's elementwise operations, by their names in ATen. Derivatives follow PyTorch's derivatives.yaml.
OPERATIONS: Mapping[str, Callable[..., Value]] = {
    "add": lambda x, other: x.real() + other.real(),
    "sub": lambda x, other: x.real() - other.real(),
    "rsub": lambda x, other: other.real() - x.real(),
    "mul": lambda x, other: x.real() * other.real(),
    "div": lambda x, other: x.real() / other.real(),
    "neg": lambda x: -x,
    "reciprocal": lambda x: 1.0 / x,
    "pow": power,
    "square": lambda x: x * x,
    "sqrt": sqrt,
    "abs": absolute,
    "sign": lambda x: (x > 0.0).real() - (x < 0.0).real(),
    "sgn": lambda x: (x > 0.0).real() - (x < 0.0).real(),
    "exp": exp,
    "log": log,
    "sigmoid": sigmoid,
    "sigmoid_backward": lambda grad, result: grad * ((1.0 - result) * result),
    "log_sigmoid_backward": lambda grad, x: grad * opposite_sigmoid(x),
    "relu": lambda x: clamp(x, 0.0),
    "threshold_backward": lambda grad, x, threshold: (x > threshold).where(grad, 0.0),
    "clamp": clamp,
    "minimum": minimum,
    "maximum": maximum,
    "where": lambda condition, yes, no: condition.where(yes, no),
    "masked_fill": lambda x, mask, value: mask.where(value, x),
    "logical_and": lambda x, other: x & other,
    "bitwise_and": lambda x, other: x & other,
    "bitwise_or": lambda x, other: x | other,
    "bitwise_not": lambda x: ~x,
    "_to_copy": lambda x: x.real(),
    "lt": lambda x, other: x < other,
    "le": lambda x, other: x.compare("<=", other),
    "gt": lambda x, other: x > other,
    "ge": lambda x, other: x.compare(">=", other),
    "eq": lambda x, other: x.compare("==", other),
    "ne": lambda x, other: x.compare("!=", other),
}
