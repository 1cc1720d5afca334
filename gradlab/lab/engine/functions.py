"""Elementary functions of vectors, and PyTorch's elementwise operations in terms of them.

LLVM has no vector exp or log. The functions below are short series after a reduction of the argument, right to 2 units
in the last place (``tests/test_engine.py``) where argument and result are normal numbers; smaller results are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gradlab.lab.engine.trace import SIGMOID_OF_BOTH
from gradlab.lab.engine.vectors import Number, Value


class _Format(NamedTuple):
    """The format of a type: ``mantissa`` bits, an exponent shifted by ``bias``, and constants that follow from them.

    ln2   ln 2 in two parts, the first with so few digits that its product with an exponent is exact.
    exp   coefficients of (e^r − 1)/r on |r| ≤ ½ ln 2: its Taylor series, shortened by Chebyshev polynomials.
    pi    π in two parts, of which the first is rounded to this type.
    atan  coefficients of (atan t − t)/t³ as a series in t², on |t| ≤ tan(π/8), through Chebyshev's points.
    """

    mantissa: int
    bias: int
    ln2: tuple[float, float]
    exp: tuple[float, ...]
    pi: tuple[float, float]
    atan: tuple[float, ...]


_FORMATS = {
    "float64": _Format(52, 1023, (6.93147180369123816490e-01, 1.90821492927058770002e-10), (
        1.0, 0.5000000000000006, 0.1666666666666668, 0.041666666666573135, 0.0083333333333196, 0.001388888893249112,
        0.00019841269890049292, 2.4801504344197243e-05, 2.755724091650479e-06, 2.7626358277676567e-07,
        2.5110038296706784e-08), (3.141592653589793, 1.2246467991473532e-16), (
        -0.3333333333333333, 0.19999999999999804, -0.14285714285659779, 0.11111111105150588, -0.09090908753259112,
        0.07692296368042296, -0.0666642476020052, 0.05878927554473807, -0.05230443640686948, 0.045515447340221615,
        -0.03456931506332609, 0.016284375050043393)),
    "float32": _Format(23, 127, (0.693359375, -2.12194440e-4), (
        1.0, 0.5, 0.16666505, 0.04166635, 0.00836915, 0.001394111), (3.1415927410125732, -8.74227800037248e-08), (
        -0.33333331760434554, 0.1999954031495797, -0.14263949753605723, 0.10743668324830098, -0.06451718869358958)),
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


def expm1(x: Value) -> Value:
    """Return e^x − 1; ∞ where e^x is no finite number."""
    form, most = _FORMATS[x.emitter.dtype.name], _most(x)
    given, x = x, clamp(x, -form.bias * math.log(2), most)
    shift = 1.5 * 2.0**form.mantissa + form.bias
    shifted = x.times_plus(1 / math.log(2), shift)  # as in ``_exp``, x = n ln 2 + rest
    integer = shifted - shift
    high, low = integer.times_plus(-form.ln2[0], x), integer * form.ln2[1]
    rest = high - low
    lost = (high - rest) - low  # by rounding
    scale = (shifted.view(x.emitter.bits) << form.mantissa).view(x.emitter.reals)  # 2^n
    # e^x − 1 = 2^n (e^rest − 1) + 2^n − 1, of which the sum of all but rest² and higher powers is nearly exact.
    higher = (rest * rest).times_plus(_polynomial(rest, form.exp[1:]), lost)
    result = higher.times_plus(scale, rest.times_plus(scale, scale - 1.0))
    return (given > most).where(math.inf, result)


def tanh(x: Value) -> Value:
    """Return tanh x."""
    more = expm1(absolute(x) * 2.0)  # tanh |x| = more/(more + 2) = 1 − 2/(more + 2)
    large, half = more > 2.0, more * 0.5
    taken = large.where(2.0, half * more) / (more + 2.0)
    size = large.where(1.0, half) - taken
    return (x < 0.0).where(-size, size)


def log(x: Value) -> Value:
    """Return ln x; −∞ at 0, NaN below."""
    form = _FORMATS[x.emitter.dtype.name]
    exponent, mantissa = _exponent_and_mantissa(x)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 artanh of it; ten terms do for both types
    series = _polynomial(ratio * ratio, [2 / (2 * term + 1) for term in range(10)])
    result = exponent.times_plus(form.ln2[0], exponent.times_plus(form.ln2[1], ratio * series))
    result = (x < 2.0 ** (1 - form.bias)).where((x < 0.0).where(math.nan, -math.inf), result)
    return (x < math.inf).where(result, x)


def log1p(x: Value) -> Value:
    """Return ln(1 + x); −∞ at −1, NaN below."""
    form = _FORMATS[x.emitter.dtype.name]
    total = x + 1.0
    lost = (x < 1.0).where(x - (total - 1.0), 1.0 - (total - x))  # by rounding; ln(1 + x) = ln total + lost/total
    exponent, mantissa = _exponent_and_mantissa(total)
    # With f = m − 1 and s = f/(2 + f), ln m = f − (½f² − s(½f² + s² Σ 2 s^2k/(2k + 3))): f itself is not rounded.
    over = mantissa - 1.0
    ratio, half = over / (over + 2.0), over * over * 0.5
    square = ratio * ratio
    series = square * _polynomial(square, [2 / (2 * term + 3) for term in range(9)])
    below = ratio * (half + series) + (exponent * form.ln2[1] + lost / total)
    result = exponent * form.ln2[0] - ((half - below) - over)
    result = (x > -1.0).where(result, (x < -1.0).where(math.nan, -math.inf))
    return (x < math.inf).where(result, x)


def _exponent_and_mantissa(x: Value) -> tuple[Value, Value]:
    """Return n and m of x = 2^n · m, with m in [√½, √2)."""
    kind = x.emitter.dtype
    form = _FORMATS[kind.name]
    # Counted from √½, the exponent's bits are n + bias, and those below them m's place.
    root_half = int(kind.type(math.sqrt(0.5)).view(f"u{kind.itemsize}"))
    moved = x.view(x.emitter.bits) + ((form.bias << form.mantissa) - root_half)
    exponent = (moved >> form.mantissa).real() - float(form.bias)
    return exponent, ((moved & ((1 << form.mantissa) - 1)) + root_half).view(x.emitter.reals)


def softplus(x: Value) -> Value:
    """Return ln(1 + e^x)."""
    return clamp(x, 0.0) + log1p(_exp(-absolute(x)))


def log_sigmoid(x: Value) -> Value:
    """Return ln σ(x)."""
    return clamp(x, most=0.0) - log1p(_exp(-absolute(x)))


def silu(x: Value) -> Value:
    """Return x σ(x)."""
    return x / (exp(-x) + 1.0)


def atan(x: Value) -> Value:
    """Return the arc tangent of x, in (−π/2, π/2)."""
    high, low = _FORMATS[x.emitter.dtype.name].pi
    size = absolute(x)
    steep, middle = size > math.tan(3 * math.pi / 8), size > math.tan(math.pi / 8)
    # atan x = π/2 + atan(−1/x) = π/4 + atan((x − 1)/(x + 1)): the argument left is at most tan(π/8).
    rest = steep.where(-1.0 / size, middle.where((size - 1.0) / (size + 1.0), size))
    turn, turn_low = (steep.where(part / 2, middle.where(part / 4, 0.0)) for part in (high, low))
    square = rest * rest
    series = rest * square * _polynomial(square, _FORMATS[x.emitter.dtype.name].atan)
    result = turn + (rest + (series + turn_low))
    return (x < 0.0).where(-result, result)


def _polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Return Σ c_k x^k."""
    result = x.like(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = result.times_plus(x, coefficient)
    return result


def power(x: Value, exponent: Any) -> Value:
    """Return x to the power of a fixed small number, whole or half of an odd one."""
    if 2 * exponent not in range(-16, 17):
        raise TypeError("only small exponents, whole or half of an odd number")
    result = sqrt(x) if exponent % 1 else x.like(1.0)
    for _ in range(int(abs(exponent))):
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


def _softplus(x: Value, beta: Value | Number = 1.0, threshold: Value | Number = 20.0) -> Value:
    """Return ln(1 + e^βx)/β, or x above the threshold of βx, as PyTorch does."""
    inner = x * beta
    return (inner > threshold).where(x, softplus(inner) / beta)


def _softplus_backward(grad: Value, x: Value, beta: Value | Number, threshold: Value | Number) -> Value:
    inner = x * beta
    return grad * (inner > threshold).where(1.0, opposite_sigmoid(-inner))


def _silu_slope(x: Value) -> Value:
    share = sigmoid(x)
    return share * ((1.0 - share) * x + 1.0)


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
    "expm1": expm1,
    "tanh": tanh,
    "tanh_backward": lambda grad, result: grad * (1.0 - result * result),
    "log": log,
    "log1p": log1p,
    "atan": atan,
    "sigmoid": sigmoid,
    SIGMOID_OF_BOTH: lambda x: opposite_sigmoid(-x),
    "sigmoid_backward": lambda grad, result: grad * ((1.0 - result) * result),
    "log_sigmoid_forward": log_sigmoid,
    "log_sigmoid_backward": lambda grad, x: grad * opposite_sigmoid(x),
    "softplus": _softplus,
    "softplus_backward": _softplus_backward,
    "silu": silu,
    "silu_backward": lambda grad, x: grad * _silu_slope(x),
    "logaddexp": lambda x, other: maximum(x, other) + log1p(_exp(-absolute(x - other))),
    "relu": lambda x: clamp(x, 0.0),
    "threshold_backward": lambda grad, x, threshold: (x > threshold).where(grad, 0.0),
    "clamp": clamp,
    "clamp_min": lambda x, least: clamp(x, least),
    "clamp_max": lambda x, most: clamp(x, None, most),
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
