"""Elementary functions of vectors, and what each of PyTorch's elementwise operations is in terms of them.

LLVM has no vector exp or log of its own. Those below are short series after a reduction of the argument. Measured
against longer arithmetic (``tests/test_engine.py``) they are within 2 units in the last place wherever the result is a
normal number, tanh and log1p within 4. A result of exp that would be smaller is 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from gradlab.engine.vectors import Number, Real, Truth


@dataclass(frozen=True)
class _Format:
    """How a type stores a number, ``mantissa`` bits and an exponent shifted by ``bias``, and what follows from it.

    ln2         ln 2 in two parts, the first with so few digits that its product with an exponent is exact.
    exp_terms   of expm1's series on |r| ≤ ½ ln 2: the next would be below half a unit in the last place.
    log_terms   likewise of log's, on [√½, √2].
    """

    mantissa: int
    bias: int
    ln2: tuple[float, float]
    exp_terms: int
    log_terms: int

    @property
    def rounder(self) -> float:
        """Adding it leaves no digits after the point: the last bits then hold the rounded number."""
        return 1.5 * 2.0**self.mantissa

    @property
    def least(self) -> float:
        """The least x for which 2^n, n the whole number nearest to x/ln 2, is a normal number."""
        return (0.501 - self.bias) * math.log(2)

    @property
    def most(self) -> float:
        """The greatest."""
        return (0.499 + self.bias) * math.log(2)


_FORMATS = {
    "float64": _Format(52, 1023, (6.93147180369123816490e-01, 1.90821492927058770002e-10), exp_terms=11, log_terms=10),
    "float32": _Format(23, 127, (0.693359375, -2.12194440e-4), exp_terms=6, log_terms=5),
}


def exp(x: Real) -> Real:
    """e^x; 0 and ∞ where that is no normal number."""
    growth, scale = _grown(x)
    return _bounded(x, growth.times_plus(scale, scale), below=0.0)


def expm1(x: Real) -> Real:
    """e^x − 1, exact to the last digits near 0 too."""
    growth, scale = _grown(x)
    return _bounded(x, growth.times_plus(scale, scale - 1.0), below=-1.0)


def log(x: Real) -> Real:
    """ln x; −∞ at 0, NaN below."""
    form = _FORMATS[x.emitter.dtype.name]
    tiny = x < 2.0 ** (1 - form.bias)  # no normal number: make it one
    lifted = tiny.where(x * 2.0 ** (form.mantissa + 2), x)
    exponent, mantissa = _split(lifted, form)
    exponent = exponent - tiny.where(form.mantissa + 2.0, 0.0)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # ln m = 2 artanh of it
    square = ratio * ratio
    series = _polynomial(square, [2 / (2 * term + 1) for term in range(form.log_terms)])
    high, low = form.ln2
    result = exponent.times_plus(high, exponent.times_plus(low, ratio * series))
    result = x.compare("==", math.inf).where(math.inf, result)
    result = x.compare("==", 0.0).where(-math.inf, result)
    return (x >= 0.0).where(result, math.nan)


def log1p(x: Real) -> Real:
    """ln(1 + x): the error that 1 + x makes is put right by x over what was really added (Kahan)."""
    whole = x + 1.0
    added = whole - 1.0
    corrected = log(whole) * (x / added)
    return (added.compare("==", 0.0) | whole.compare("==", math.inf)).where(x, corrected)


def sigmoid(x: Real) -> Real:
    """1/(1 + e^−x), between the smallest normal number and 1."""
    form = _FORMATS[x.emitter.dtype.name]
    growth, scale = _grown(clamp(-x, form.least, form.most))
    return 1.0 / (growth.times_plus(scale, scale) + 1.0)


def opposite_sigmoid(x: Real) -> Real:
    """σ(−x). All but the last step is the same for −x, so that LLVM computes it once for both."""
    form = _FORMATS[x.emitter.dtype.name]
    growth, scale = _grown(clamp(-abs_(x), min=form.least))
    small = growth.times_plus(scale, scale)
    return (x < 0.0).where(1.0, small) * (1.0 / (small + 1.0))


def tanh(x: Real) -> Real:
    """From expm1 of twice the size, with the sign put back."""
    size = minimum(abs_(x), 40.0)  # it is 1 long before
    double = expm1(size + size)
    return _sign_of(x, double / (double + 2.0))


def log_sigmoid(x: Real) -> Real:
    """ln σ(x), without overflow."""
    return minimum(x, 0.0) - log1p(exp(-abs_(x)))


def softplus(x: Real, beta: Real | Number = 1.0, threshold: Real | Number = 20.0) -> Real:
    """ln(1 + e^βx)/β, and x itself where βx is above the threshold, as in PyTorch."""
    scaled = x * beta
    return (scaled > threshold).where(x, log1p(exp(scaled)) / x.emitter.real(beta))


def power(x: Real, exponent: Any) -> Real:
    """x to a fixed small whole number, or to ±½."""
    if not isinstance(exponent, (int, float)) or abs(exponent) > 8 or exponent not in (0.5, -0.5, round(exponent)):
        raise TypeError("only small whole exponents, and ±½")
    if exponent < 0:
        return 1.0 / power(x, -exponent)
    if exponent == 0.5:
        return sqrt(x)
    result = x.emitter.real(1.0) if exponent == 0 else x
    for _ in range(int(exponent) - 1):
        result = result * x
    return result


def sqrt(x: Real) -> Real:
    """√x, correctly rounded."""
    return x.emitter.call("sqrt", x)


def abs_(x: Real) -> Real:
    """|x|."""
    return x.emitter.call("fabs", x)


def sign(x: Real) -> Real:
    """1, 0 or −1."""
    return (x > 0.0).where(1.0, (x < 0.0).where(-1.0, x * 0.0))


def minimum(x: Real, other: Real | Number) -> Real:
    """The lesser; NaN where either is."""
    return ((x < other) | x.compare("!=", x)).where(x, other)


def maximum(x: Real, other: Real | Number) -> Real:
    """The greater; NaN where either is."""
    return ((x > other) | x.compare("!=", x)).where(x, other)


def clamp(x: Real, min: Real | Number | None = None, max: Real | Number | None = None) -> Real:
    """X, but no less than ``min`` and no more than ``max``; NaN stays NaN."""
    if min is not None:
        x = (x < min).where(min, x)
    return x if max is None else (x > max).where(max, x)


def _grown(x: Real) -> tuple[Real, Real]:
    """x = n ln 2 + r with n whole and |r| ≤ ½ ln 2: gives e^r − 1 and 2^n."""
    form = _FORMATS[x.emitter.dtype.name]
    high, low = form.ln2
    shifted = x.times_plus(1 / math.log(2), form.rounder + form.bias)  # its last bits are n + bias
    whole = shifted - (form.rounder + form.bias)
    rest = whole.times_plus(-low, whole.times_plus(-high, x))
    series = _polynomial(rest, _expm1_series(form.exp_terms))
    return rest * series, (shifted.to_bits() << form.mantissa).to_real()


@functools.cache
def _expm1_series(terms: int) -> list[float]:
    """So many coefficients of (e^r − 1)/r on |r| ≤ ½ ln 2.

    Its Taylor series with more terms, each highest power in turn replaced by the lower ones that the Chebyshev
    polynomial of its degree has beside it (Lanczos): on the interval that errs least. Exact until the end.
    """
    reach = Fraction(math.log(2)) / 2
    series = [Fraction(1, math.factorial(power + 1)) for power in range(terms + 6)]
    while len(series) > terms:
        chebyshev = _chebyshev(len(series) - 1)
        share = series[-1] * reach ** (len(series) - 1) / chebyshev[-1]
        series = [c - share * t / reach**power for power, (c, t) in enumerate(zip(series, chebyshev, strict=True))][:-1]
    return [float(coefficient) for coefficient in series]


def _chebyshev(degree: int) -> list[int]:
    """Coefficients of T_n: T_n+1 = 2x T_n − T_n−1."""
    before, last = [1], [0, 1]
    for _ in range(degree - 1):
        before, last = last, [2 * up - down for up, down in zip([0, *last], [*before, 0, 0], strict=True)]
    return last


def _bounded(x: Real, result: Real, below: float) -> Real:
    """``result`` where 2^n is a normal number; ``below`` and ∞ outside."""
    form = _FORMATS[x.emitter.dtype.name]
    return (x < form.least).where(below, (x > form.most).where(math.inf, result))


def _split(x: Real, form: _Format) -> tuple[Real, Real]:
    """x = 2^n · m with m in [√½, √2), for a normal x > 0: gives n and m."""
    one, root_half = (form.bias << form.mantissa), _ROOT_HALF[x.emitter.dtype.name]
    # Counted from √½, the exponent's bits are n + bias, and the bits below them are the place within [√½, √2).
    moved = x.to_bits() + (one - root_half)
    exponent = ((moved >> form.mantissa) | _bits_of(2.0**form.mantissa, form)).to_real() - (
        2.0**form.mantissa + form.bias
    )
    mantissa = ((moved & ((1 << form.mantissa) - 1)) + root_half).to_real()
    return exponent, mantissa


_ROOT_HALF = {"float64": 0x3FE6A09E667F3BCD, "float32": 0x3F3504F3}  # the bits of √½


def _bits_of(power_of_two: float, form: _Format) -> int:
    return (int(math.log2(power_of_two)) + form.bias) << form.mantissa


def _polynomial(x: Real, coefficients: Sequence[float]) -> Real:
    """Σ c_k x^k."""
    result = x.emitter.real(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result.times_plus(x, coefficient)
    return result


def _sign_of(x: Real, size: Real) -> Real:
    return x.emitter.call("copysign", size, x)


def _real(x: Real | Truth) -> Real:
    return x.emitter.real(x)


def _arithmetic(combine: Callable[[Real, Any], Real]) -> Callable[..., Real]:
    """Addition or subtraction, in which PyTorch may multiply the second side by ``alpha`` first."""

    def operation(x: Real | Truth, other: Any, alpha: Any = None) -> Real:
        return combine(_real(x), other if alpha is None else _real(other) * alpha)

    return operation


def _compare(name: str) -> Callable[[Real, Any], Truth]:
    return lambda x, other: x.compare(name, other)


# PyTorch's elementwise operations, by their names in ATen. The derivatives are those of its derivatives.yaml.
OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": _arithmetic(lambda x, other: x + other),
    "sub": _arithmetic(lambda x, other: x - other),
    "rsub": _arithmetic(lambda x, other: _real(x.emitter.real(other)) - x),
    "mul": lambda x, other: _real(x) * other,
    "div": lambda x, other: _real(x) / other,
    "neg": lambda x: -x,
    "reciprocal": lambda x: 1.0 / x,
    "pow": power,
    "square": lambda x: x * x,
    "sqrt": sqrt,
    "rsqrt": lambda x: 1.0 / sqrt(x),
    "abs": abs_,
    "sign": sign,
    "sgn": sign,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "tanh": tanh,
    "tanh_backward": lambda grad, result: grad * (1.0 - result * result),
    "sigmoid": sigmoid,
    "sigmoid_backward": lambda grad, result: grad * ((1.0 - result) * result),
    "log_sigmoid_forward": log_sigmoid,
    "log_sigmoid_backward": lambda grad, x: grad * opposite_sigmoid(x),
    "softplus": softplus,
    "softplus_backward": lambda grad, x, beta, threshold: (x * beta > threshold).where(grad, grad * sigmoid(x * beta)),
    "relu": lambda x: clamp(x, min=0.0),
    "threshold_backward": lambda grad, x, threshold: (x <= threshold).where(0.0, grad),
    "clamp": clamp,
    "clamp_min": lambda x, low: clamp(x, min=low),
    "clamp_max": lambda x, high: clamp(x, max=high),
    "minimum": minimum,
    "maximum": maximum,
    "where": lambda condition, yes, no: condition.where(yes, no),
    "masked_fill": lambda x, mask, value: mask.where(value, x),
    "lt": _compare("<"),
    "le": _compare("<="),
    "gt": _compare(">"),
    "ge": _compare(">="),
    "eq": _compare("=="),
    "ne": _compare("!="),
    "logical_and": lambda one, other: one & other,
    "logical_or": lambda one, other: one | other,
    "logical_not": lambda one: ~one,
    "bitwise_and": lambda one, other: one & other,
    "bitwise_or": lambda one, other: one | other,
    "bitwise_not": lambda one: ~one,
    "_to_copy": _real,
}
