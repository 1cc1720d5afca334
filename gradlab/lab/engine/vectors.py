"""Code for many columns at once: arithmetic on ``Value`` in Python writes instructions on ``lanes`` numbers in LLVM.

Each lane is a separate column: no instruction here lets one lane see another, so a column's bits do not depend on its
neighbours; only ``Array.gather`` reads other lanes, at places that are given. ``with emitter.loop(n) as i:`` writes a
loop; ``rows[i]`` reads and writes a row of lanes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import llvmlite.ir as ir
import numpy as np

# 16 doubles are two registers of AVX-512 or four of AVX2: enough independent work to hide each instruction's latency.
LANES = 16
ALIGNMENT = 128  # bytes: where LLVM expects a row of so many doubles to begin

Kind = Literal["integer", "integers", "places", "scalars", "rows"]
Number = float | int

_INTEGER = ir.IntType(64)


class Emitter:
    """A writer of one function, whose ``arguments`` are whole numbers, or pointers to them, to reals, or to rows.

    "places" are whole numbers of 32 bits, ``lanes`` per row, which say where each lane reads.

    dtype  "float64" or "float32": what a real number is here, and its numpy type.
    lanes  how many columns a row holds.
    """

    def __init__(self, name: str, dtype: str, arguments: Mapping[str, Kind], lanes: int = LANES) -> None:
        self.dtype, self.lanes = np.dtype(dtype), lanes
        self.scalar: Any = ir.DoubleType() if dtype == "float64" else ir.FloatType()
        self.reals = ir.VectorType(self.scalar, lanes)
        self.bits = ir.VectorType(ir.IntType(self.dtype.itemsize * 8), lanes)
        types = {"integer": _INTEGER, "integers": _INTEGER.as_pointer(), "places": ir.IntType(32).as_pointer()}
        types |= {"scalars": self.scalar.as_pointer(), "rows": self.reals.as_pointer()}
        self.module = ir.Module(name)
        signature = ir.FunctionType(ir.VoidType(), [types[kind] for kind in arguments.values()])
        function = ir.Function(self.module, signature, name)
        self.build = ir.IRBuilder(function.append_basic_block("entry"))
        self.arguments: dict[str, Any] = {}
        for (name, kind), code in zip(arguments.items(), function.args, strict=True):
            self.arguments[name] = Value(self, code) if kind == "integer" else Array(self, code)
            if kind != "integer":
                code.add_attribute("noalias")

    def finish(self) -> str:
        """End the function; return it as LLVM assembly."""
        self.build.ret_void()
        return str(self.module)

    def real(self, value: Value | Number) -> Value:
        """Return a number as a value with that number in every lane; a value as it is."""
        return value if isinstance(value, Value) else Value(self, ir.Constant(self.reals, [float(value)] * self.lanes))

    def call(self, intrinsic: str, *arguments: Value) -> Value:
        """Call one of LLVM's built-in functions of vectors, such as sqrt."""
        name = f"llvm.{intrinsic}.v{self.lanes}f{self.dtype.itemsize * 8}"
        kind = ir.FunctionType(self.reals, [self.reals] * len(arguments))
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return Value(self, self.build.call(function, [argument.code for argument in arguments]))

    def cell(self, value: Value | Number) -> Array:
        """Return one row of lanes that a loop can add to, in registers and not in memory."""
        with self.build.goto_entry_block():
            cell = Array(self, self.build.alloca(self.reals))
        cell[0] = self.real(value)
        return cell

    @contextlib.contextmanager
    def loop(self, stop: Value, start: Value | int = 0) -> Iterator[Value]:
        """Repeat what is written inside for each whole number from ``start`` to below ``stop``."""
        build, before, first = self.build, self.build.block, stop.like(start)
        test, body, after = (build.append_basic_block(name) for name in ("test", "body", "after"))
        build.branch(test)
        build.position_at_end(test)
        index = build.phi(_INTEGER)
        index.add_incoming(first.code, before)
        build.cbranch(build.icmp_signed("<", index, stop.code), body, after)
        build.position_at_end(body)
        yield Value(self, index)
        index.add_incoming(build.add(index, _INTEGER(1)), build.block)
        build.branch(test)
        build.position_at_end(after)


def _operator(reals: str, integers: str = "", swapped: bool = False) -> Callable[[Value, Value | Number], Value]:
    """Return an operator of ``Value``, from LLVM's instructions for reals, and for whole numbers and truths."""

    def apply(self: Value, other: Value | Number) -> Value:
        left, right = (self.like(other), self) if swapped else (self, self.like(other))
        instruction = reals if self.code.type == self.emitter.reals else integers
        return Value(self.emitter, getattr(self.emitter.build, instruction)(left.code, right.code))

    return apply


class Value:
    """A real number, a whole number or a truth in each lane; or one whole number, such as an index."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    __add__ = __radd__ = _operator("fadd", "add")
    __sub__, __rsub__ = _operator("fsub", "sub"), _operator("fsub", "sub", swapped=True)
    __mul__ = __rmul__ = _operator("fmul", "mul")
    __truediv__, __rtruediv__ = _operator("fdiv"), _operator("fdiv", swapped=True)
    __and__, __or__ = _operator("", "and_"), _operator("", "or_")
    __lshift__, __rshift__ = _operator("", "shl"), _operator("", "lshr")

    def __neg__(self) -> Value:
        return Value(self.emitter, self.emitter.build.fneg(self.code))

    def __invert__(self) -> Value:
        return Value(self.emitter, self.emitter.build.not_(self.code))

    def __lt__(self, other: Value | Number) -> Value:
        return self.compare("<", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.compare(">", other)

    def compare(self, sign: str, other: Value | Number) -> Value:
        """Compare reals: the result is false where either is NaN, but != is true there."""
        build = self.emitter.build
        compare = build.fcmp_unordered if sign == "!=" else build.fcmp_ordered
        return Value(self.emitter, compare(sign, self.code, self.like(other).code))

    def divides(self, other: Value) -> Value:
        """Return, for whole numbers, 1 where this one divides the other, and 0 elsewhere."""
        build = self.emitter.build
        divided = build.icmp_signed("==", build.srem(other.code, self.code), _INTEGER(0))
        return Value(self.emitter, build.zext(divided, _INTEGER))

    def where(self, yes: Value | Number, no: Value | Number) -> Value:
        """Return ``yes`` in the lanes where this truth holds, ``no`` in the others; both are reals."""
        yes, no = self.emitter.real(yes), self.emitter.real(no)
        return Value(self.emitter, self.emitter.build.select(self.code, yes.code, no.code))

    def times_plus(self, factor: Value | Number, term: Value | Number) -> Value:
        """Return ``self · factor + term``, rounded once where the processor can do so."""
        return self.emitter.call("fmuladd", self, self.like(factor), self.like(term))

    def like(self, other: Value | Number) -> Value:
        """Return a Python number as a value of this type, in every lane; a value as it is."""
        if isinstance(other, Value):
            return other
        kind = self.code.type
        return Value(
            self.emitter, ir.Constant(kind, [other] * self.emitter.lanes if isinstance(kind, ir.VectorType) else other)
        )

    def real(self) -> Value:
        """Return whole numbers as reals, truths as 1 and 0, and reals as they are."""
        real = self.code.type == self.emitter.reals
        return self if real else Value(self.emitter, self.emitter.build.uitofp(self.code, self.emitter.reals))

    def view(self, kind: ir.VectorType) -> Value:
        """Return the same bits as ``emitter.reals`` or as ``emitter.bits``, which are whole numbers."""
        return Value(self.emitter, self.emitter.build.bitcast(self.code, kind))


class Array:
    """Numbers or rows of lanes in memory; a real number that is no row is read into every lane."""

    def __init__(self, emitter: Emitter, code: Any) -> None:
        self.emitter, self.code = emitter, code

    def __getitem__(self, index: Value | int) -> Value:
        build, code = self.emitter.build, self.emitter.build.load(self._at(index))
        if code.type == self.emitter.scalar:
            empty, integer = ir.Constant(self.emitter.reals, ir.Undefined), ir.IntType(32)
            lane = build.insert_element(empty, code, integer(0))
            code = build.shuffle_vector(
                lane, empty, ir.Constant(ir.VectorType(integer, self.emitter.lanes), [0] * self.emitter.lanes)
            )
        return Value(self.emitter, code)

    def __setitem__(self, index: Value | int, value: Value) -> None:
        self.emitter.build.store(value.code, self._at(index))

    def begin(self, index: Value) -> Array:
        """Return the numbers or rows from an index on."""
        return Array(self.emitter, self._at(index))

    def gather(self, places: Array, row: Value) -> Value:
        """Return, in each lane, the number at the place which a row of ``places`` names: row · lanes + lane."""
        build, lane = self.emitter.build, ir.IntType(32)
        numbers = build.bitcast(self.code, self.emitter.scalar.as_pointer())
        code = ir.Constant(self.emitter.reals, ir.Undefined)
        for number in range(self.emitter.lanes):
            place = build.zext(build.load(places._at(row * self.emitter.lanes + number)), _INTEGER)
            code = build.insert_element(code, build.load(build.gep(numbers, [place])), lane(number))
        return Value(self.emitter, code)

    def _at(self, index: Value | int) -> Any:
        return self.emitter.build.gep(self.code, [index.code if isinstance(index, Value) else _INTEGER(index)])
