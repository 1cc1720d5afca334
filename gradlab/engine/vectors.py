"""Code for many columns at once: arithmetic on ``Real`` in Python writes instructions on ``LANES`` numbers in LLVM.

Each lane is a column of its own: no instruction here lets one lane see another, so that a column's bits do not depend
on what stands beside it. ``with emitter.loop(n) as i:`` writes a loop; ``rows[i]`` reads and writes a row of lanes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import llvmlite.ir as ir
import numpy as np

# 16 doubles are two registers of AVX-512 or four of AVX2: enough independent work to hide each instruction's latency.
LANES = 16

Kind = Literal["integer", "integers", "scalars", "rows"]
Number = float | int

_I64 = ir.IntType(64)


class Emitter:
    """Writes one function, whose ``arguments`` are whole numbers, or pointers to them, to reals, or to rows of lanes.

    dtype  "float64" or "float32": what a real number is here, and its numpy type.
    """

    def __init__(self, name: str, dtype: str, arguments: Mapping[str, Kind]) -> None:
        double = dtype == "float64"
        self.dtype = np.dtype(dtype)
        self.scalar: Any = ir.DoubleType() if double else ir.FloatType()
        self.vector = ir.VectorType(self.scalar, LANES)
        self.bits = ir.VectorType(ir.IntType(self.dtype.itemsize * 8), LANES)
        self.module = ir.Module(name)
        kinds: dict[Kind, Any] = {
            "integer": _I64,
            "integers": _I64.as_pointer(),
            "scalars": self.scalar.as_pointer(),
            "rows": self.vector.as_pointer(),
        }
        function = ir.Function(
            self.module, ir.FunctionType(ir.VoidType(), [kinds[kind] for kind in arguments.values()]), name
        )
        for argument, kind in zip(function.args, arguments.values(), strict=True):
            if kind != "integer":
                argument.add_attribute("noalias")
        self.build = ir.IRBuilder(function.append_basic_block("entry"))
        wrap = {"integer": Index, "integers": Integers, "scalars": Scalars, "rows": Rows}
        self.arguments = {
            name: wrap[kind](self, value) for (name, kind), value in zip(arguments.items(), function.args, strict=True)
        }

    def finish(self) -> str:
        """End the function; it is LLVM assembly."""
        self.build.ret_void()
        return str(self.module)

    def real(self, value: Real | Truth | Number) -> Real:
        """A number as a vector of it; the truth of something as 1 or 0; a vector as it is."""
        if isinstance(value, Truth):
            return value.where(self.real(1.0), self.real(0.0))
        if isinstance(value, Real):
            return value
        rounded = float(self.dtype.type(value))
        return Real(self, ir.Constant(self.vector, [rounded] * LANES))

    def spread(self, scalar: Any) -> Real:
        """One number in memory or register to all lanes."""
        empty = ir.Constant(self.vector, ir.Undefined)
        one = self.build.insert_element(empty, scalar, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return Real(self, self.build.shuffle_vector(one, empty, zeros))

    def call(self, intrinsic: str, *arguments: Real) -> Real:
        """One of LLVM's own functions of vectors, such as sqrt."""
        name = f"llvm.{intrinsic}.v{LANES}f{self.dtype.itemsize * 8}"
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(self.vector, [self.vector] * len(arguments)), name)
        return Real(self, self.build.call(function, [one.code for one in arguments]))

    @contextlib.contextmanager
    def loop(self, stop: Index, start: Index | int = 0) -> Iterator[Index]:
        """Repeat what is written inside for each whole number from ``start`` to below ``stop``."""
        build, first = self.build, Index.of(self, start).code
        before = build.block
        test, body, after = (build.append_basic_block(name) for name in ("test", "body", "after"))
        build.branch(test)
        build.position_at_end(test)
        index = build.phi(_I64)
        index.add_incoming(first, before)
        build.cbranch(build.icmp_signed("<", index, stop.code), body, after)
        build.position_at_end(body)
        yield Index(self, index)
        index.add_incoming(build.add(index, _I64(1)), build.block)
        build.branch(test)
        build.position_at_end(after)


class Real:
    """LANES real numbers, one a column."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    def _with(self, instruction: str, other: Any, swapped: bool = False) -> Real:
        pair = (self, self.emitter.real(other))
        left, right = reversed(pair) if swapped else pair
        return Real(self.emitter, getattr(self.emitter.build, instruction)(left.code, right.code))

    def __add__(self, other: Real | Truth | Number) -> Real:
        return self._with("fadd", other)

    def __radd__(self, other: Number) -> Real:
        return self._with("fadd", other, swapped=True)

    def __sub__(self, other: Real | Truth | Number) -> Real:
        return self._with("fsub", other)

    def __rsub__(self, other: Number) -> Real:
        return self._with("fsub", other, swapped=True)

    def __mul__(self, other: Real | Truth | Number) -> Real:
        return self._with("fmul", other)

    def __rmul__(self, other: Number) -> Real:
        return self._with("fmul", other, swapped=True)

    def __truediv__(self, other: Real | Truth | Number) -> Real:
        return self._with("fdiv", other)

    def __rtruediv__(self, other: Number) -> Real:
        return self._with("fdiv", other, swapped=True)

    def __neg__(self) -> Real:
        return Real(self.emitter, self.emitter.build.fneg(self.code))

    def __lt__(self, other: Real | Number) -> Truth:
        return self.compare("<", other)

    def __le__(self, other: Real | Number) -> Truth:
        return self.compare("<=", other)

    def __gt__(self, other: Real | Number) -> Truth:
        return self.compare(">", other)

    def __ge__(self, other: Real | Number) -> Truth:
        return self.compare(">=", other)

    def compare(self, sign: str, other: Real | Number) -> Truth:
        """False where either is not a number; but != is True there."""
        build = self.emitter.build
        compare = build.fcmp_unordered if sign == "!=" else build.fcmp_ordered
        return Truth(self.emitter, compare(sign, self.code, self.emitter.real(other).code))

    def times_plus(self, factor: Real | Number, term: Real | Number) -> Real:
        """``self · factor + term``, rounded once where the processor can."""
        return self.emitter.call("fmuladd", self, self.emitter.real(factor), self.emitter.real(term))

    def to_bits(self) -> Bits:
        """The same bits, as whole numbers."""
        return Bits(self.emitter, self.emitter.build.bitcast(self.code, self.emitter.bits))


class Truth:
    """What holds in which lanes."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.emitter, self.emitter.build.and_(self.code, _truth(other).code))

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.emitter, self.emitter.build.or_(self.code, _truth(other).code))

    def __invert__(self) -> Truth:
        return Truth(self.emitter, self.emitter.build.not_(self.code))

    def where(self, yes: Real | Number, no: Real | Number) -> Real:
        """``yes`` in the lanes where this holds, ``no`` in the others."""
        if isinstance(yes, Truth) or isinstance(no, Truth):
            raise TypeError("a choice between truth values is not a real number")
        real = self.emitter.real
        return Real(self.emitter, self.emitter.build.select(self.code, real(yes).code, real(no).code))


class Bits:
    """LANES whole numbers without a sign, as wide as a real."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    def _with(self, instruction: str, number: int) -> Bits:
        constant = ir.Constant(self.emitter.bits, [number] * LANES)
        return Bits(self.emitter, getattr(self.emitter.build, instruction)(self.code, constant))

    def __add__(self, number: int) -> Bits:
        return self._with("add", number)

    def __and__(self, number: int) -> Bits:
        return self._with("and_", number)

    def __or__(self, number: int) -> Bits:
        return self._with("or_", number)

    def __lshift__(self, places: int) -> Bits:
        return self._with("shl", places)

    def __rshift__(self, places: int) -> Bits:
        return self._with("lshr", places)

    def to_real(self) -> Real:
        """The same bits, as real numbers."""
        return Real(self.emitter, self.emitter.build.bitcast(self.code, self.emitter.vector))


class Index:
    """A whole number: how many, or which."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    @classmethod
    def of(cls, emitter: Emitter, value: Index | int) -> Index:
        """A Python number as one in the code."""
        return value if isinstance(value, Index) else cls(emitter, _I64(value))

    def __add__(self, other: Index | int) -> Index:
        return Index(self.emitter, self.emitter.build.add(self.code, self.of(self.emitter, other).code))

    def __mul__(self, other: Index | int) -> Index:
        return Index(self.emitter, self.emitter.build.mul(self.code, self.of(self.emitter, other).code))


class _Array:
    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    def _load(self, index: Index | int, align: int | None = None) -> Any:
        return self.emitter.build.load(self._at(index), align=align)

    def _at(self, index: Index | int) -> Any:
        return self.emitter.build.gep(self.code, [Index.of(self.emitter, index).code])


class Integers(_Array):
    """Whole numbers in memory."""

    def __getitem__(self, index: Index | int) -> Index:
        return Index(self.emitter, self._load(index))


class Scalars(_Array):
    """Real numbers in memory, each for all lanes."""

    def __getitem__(self, index: Index | int) -> Real:
        return self.emitter.spread(self._load(index))


class Rows(_Array):
    """Rows of LANES reals in memory, each on a cache line's boundary."""

    def __getitem__(self, index: Index | int) -> Real:
        return Real(self.emitter, self._load(index, ALIGNMENT))

    def __setitem__(self, index: Index | int, value: Real) -> None:
        self.emitter.build.store(value.code, self._at(index), align=ALIGNMENT)


class Cell:
    """A row that changes within a loop, kept in registers."""

    def __init__(self, emitter: Emitter, value: Real | Number) -> None:
        self.emitter = emitter
        with emitter.build.goto_entry_block():
            self._place = emitter.build.alloca(emitter.vector)
        self.value = emitter.real(value)

    @property
    def value(self) -> Real:
        """What it holds now."""
        return Real(self.emitter, self.emitter.build.load(self._place))

    @value.setter
    def value(self, value: Real) -> None:
        self.emitter.build.store(value.code, self._place)


ALIGNMENT = 64


def _truth(value: Any) -> Truth:
    if not isinstance(value, Truth):
        raise TypeError(f"expected truth values, got {type(value).__name__}")
    return value
