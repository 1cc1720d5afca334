"""Kernels as WebAssembly modules, so that a browser tab trains and differentiates with the same definitions.

A module comes from the assembly that ``kernel`` writes, with four columns per row: WebAssembly's registers hold four
numbers, and 20 prompts fill five such blocks. LLVM's object is nearly a module already: it imports a memory as
``env.__linear_memory`` and needs no linker, since a kernel has neither constants in memory nor a stack. It lacks the
export of its function. ``gradlab/web/src/kernel.ts`` calls the modules.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import torch

from gradlab.lab.engine.constants import Law, laws
from gradlab.lab.engine.functions import OPERATIONS
from gradlab.lab.engine.fusion import ready
from gradlab.lab.engine.kernel import ARGUMENTS, NAME, Plan, write
from gradlab.lab.engine.trace import INPUTS, LENGTHS, NotFusable, derivative
from gradlab.lab.engine.vectors import Emitter, Kind
from gradlab.lab.optimizers import optimizer_of
from gradlab.lab.policy import FreeLogits
from gradlab.lab.training import Training
from gradlab.losses import DealtLoss, PairLoss

LANES = 4
TRIPLE = "wasm32-unknown-unknown"
_DEALT = "its pairs take numbers of other pairs, which a page does not deal out"
FEATURES = "+simd128,+bulk-memory,+nontrapping-fptoint"

SLOPES = "slopes"
_SLOPE_ARGUMENTS: dict[str, Kind] = {
    "count": "integer",  # rows of pairs
    "constants": "scalars",  # of the loss
    "win": "rows", "lose": "rows", "ref_win": "rows", "ref_lose": "rows",  # log-probabilities
    "win_len": "rows", "lose_len": "rows",  # lengths in tokens
    "win_slope": "rows", "lose_slope": "rows",  # written: ∂L/∂log π of both sides
}  # fmt: skip


@dataclass(frozen=True)
class WebKernel:
    """A kernel for a page: a WebAssembly module, and all that a caller must know of it.

    function       name of the exported function, "descend" or "slopes".
    arguments      its arguments in order, each a name and a kind of ``vectors.Kind``: whole numbers are BigInt, arrays
                   are places in the memory that the module imports, in bytes.
    dtype          "float64" or "float32", the type of scalars and rows; a row has ``lanes`` numbers.
    constants      numbers of the loss, for the argument of that name.
    antisymmetric  True if the sum of a pair's two weights, and that of the swapped order, are its weights.
    shared         True if logits are features × parameters, False if each response has its own.
    optimizer      name in ``gradlab.lab.optimizers``.
    memories       how many numbers the optimiser keeps per parameter.
    laws           how ``constants`` follow from hyper-parameters, for a general kernel; None: not known.
    hyper          the loss's hyper-parameters that ``laws`` serve, by name, with the loss's own values.
    """

    module: bytes
    function: str
    arguments: tuple[tuple[str, Kind], ...]
    dtype: str
    lanes: int
    constants: tuple[float, ...]
    antisymmetric: bool
    shared: bool
    optimizer: str
    memories: int
    laws: tuple[Law, ...] | None = None
    hyper: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return the kernel as JSON-able data, the module in base64; ``Kernel.load`` in ``kernel.ts`` reads it."""
        return {**vars(self), "module": base64.b64encode(self.module).decode()}


def training_kernel(loss: PairLoss, training: Training = Training(), *, general: bool = False) -> WebKernel:
    """Return the kernel that trains on a loss, with the recipe's optimiser, precision, and free or shared parameters.

    general  return one that serves the loss at all hyper-parameters, with ``laws``. Its ``constants`` are those of
             some others than the loss's. Where no laws are found, it is the loss's own, and ``laws`` is None.

    Equal arguments give equal bytes. Raises NotFusable where the engine cannot train so, and RuntimeError where
    llvmlite cannot compile to WebAssembly; both in one line.
    """
    if general:
        return _general(loss, training, lambda other: training_kernel(other, training))
    plan, constants = _examined(loss, training)
    return _kernel(write(plan, LANES), NAME, ARGUMENTS, plan, constants)


def slopes_kernel(loss: PairLoss, dtype: str = "float64", *, general: bool = False) -> WebKernel:
    """Return the kernel that computes ``gradlab.losses.slopes`` of rows of pairs: ∂L/∂log π_w and ∂L/∂log π_l.

    ``general`` and errors are as in ``training_kernel``.
    """
    training = Training(dtype=dtype)
    if general:
        return _general(loss, training, lambda other: slopes_kernel(other, dtype))
    plan, constants = _examined(loss, training)
    return _kernel(_write_slopes(plan), SLOPES, _SLOPE_ARGUMENTS, plan, constants)


def refusal(loss: PairLoss) -> str:
    """Return why no kernel can be made of a loss, "" if none is known; found by tracing alone, in milliseconds."""
    try:
        derivative(loss, torch.float64)
    except NotFusable as error:
        return str(error)
    return _DEALT if isinstance(loss, DealtLoss) else ""


def module(loss: PairLoss, training: Training = Training()) -> bytes:
    """Return the bytes of ``training_kernel``'s WebAssembly module."""
    return training_kernel(loss, training).module


def _kernel(
    assembly: str, name: str, arguments: Mapping[str, Kind], plan: Plan, constants: Sequence[float]
) -> WebKernel:
    facts = plan.antisymmetric, plan.shared, plan.optimizer, optimizer_of(plan.optimizer).memories
    module = _compiled(assembly, name)
    return WebKernel(module, name, tuple(arguments.items()), plan.dtype, LANES, tuple(constants), *facts)


def _general(loss: PairLoss, training: Training, kernel: Callable[[PairLoss], WebKernel]) -> WebKernel:
    try:
        found = _kept_laws(loss, training.precision)
    except TypeError:  # a loss that has no hash
        found = laws(loss, training.precision)
    if found is None:
        return kernel(loss)
    other, lawful, hyper = found
    return replace(kernel(other), laws=lawful, hyper=hyper)


_kept_laws = functools.lru_cache(maxsize=256)(laws)  # for all kernels of a loss


def _examined(loss: PairLoss, training: Training) -> tuple[Plan, list[float]]:
    """Return the plan and the loss's constants, after this machine's kernel of the loss has passed its examination.

    That kernel is the one of free logits and plain descent, for all kernels of a loss: they differ in what no loss has.
    """
    if not training.plain:
        raise NotFusable("a page's kernels have fixed pairs and a fixed reference")
    run = ready(loss, training.but(policy="free", optimizer="gd"), shared=False)
    if run.plan.dealt:
        raise NotFusable(_DEALT)
    shared = not isinstance(training.policy, FreeLogits)
    return replace(run.plan, shared=shared, optimizer=training.optimizer), list(run.constants)


def _write_slopes(plan: Plan) -> str:
    """Return LLVM assembly of the loss's derivative at each row of pairs, whose weights are 1, and 0 when swapped."""
    emitter = Emitter(SLOPES, plan.dtype, _SLOPE_ARGUMENTS, LANES)
    given: dict[str, Any] = emitter.arguments
    with emitter.loop(given["count"]) as row:
        inputs = {name: given[name][row] for name in (*INPUTS[:4], *LENGTHS)}
        inputs |= {"weight": emitter.real(1.0), "swapped_weight": emitter.real(0.0)}
        win, lose = plan.derivative.replay(OPERATIONS, inputs, given["constants"])
        given["win_slope"][row], given["lose_slope"][row] = win, lose
    return emitter.finish()


@functools.lru_cache(maxsize=256)
def _compiled(assembly: str, name: str) -> bytes:
    """Return the module of assembly that defines one function of this name."""
    machine = _target_machine()
    code = llvm.parse_assembly(assembly)
    code.triple, code.data_layout = TRIPLE, str(machine.target_data)
    code.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(code, passes)
    return linked(machine.emit_object(code), name)


def _target_machine() -> llvm.TargetMachine:
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(TRIPLE)
    except (RuntimeError, AttributeError) as error:
        raise RuntimeError(
            f"llvmlite {llvmlite.__version__} cannot compile to WebAssembly here, since its LLVM lacks {TRIPLE}"
        ) from error
    return target.create_target_machine(features=FEATURES, opt=3, reloc="static")


# --- from LLVM's object to a module: https://webassembly.github.io/spec/core/binary/modules.html ---

_HEADER = b"\0asm\1\0\0\0"
_CUSTOM, _IMPORTS, _EXPORTS, _CODE = 0, 2, 7, 10


def linked(code: bytes, name: str) -> bytes:
    """Return a module that exports the object's first function under ``name``, without the object's custom sections.

    Raises RuntimeError for an object that would need a linker: it has relocations, or imports more than a memory.
    """
    if not code.startswith(_HEADER):
        raise RuntimeError("LLVM's object must begin as a WebAssembly module does")
    export = _vector(_text(name) + b"\0\0")  # of kind 0, a function, number 0
    result = bytearray(_HEADER)
    for kind, content in _sections(code[len(_HEADER) :]):
        if kind == _CUSTOM:
            if content[1:].startswith(b"reloc."):
                raise RuntimeError(f"{name} must need no linker, but its object has relocations")
            continue
        if kind == _IMPORTS and (content[:1] != b"\1" or not content[1:].startswith(_MEMORY)):
            raise RuntimeError(f"{name} must import a memory alone, but its object imports more")
        if kind == _CODE:
            result += _section(_EXPORTS, export)
        result += _section(kind, content)
    return bytes(result)


def _sections(code: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each section's kind and content."""
    at = 0
    while at < len(code):
        kind, (size, start) = code[at], _number(code, at + 1)
        yield kind, code[start : start + size]
        at = start + size


def _section(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + _leb128(len(content)) + content


def _vector(*items: bytes) -> bytes:
    return _leb128(len(items)) + b"".join(items)


def _text(text: str) -> bytes:
    return _leb128(len(text.encode())) + text.encode()


def _leb128(number: int) -> bytes:
    """Return a whole number in WebAssembly's format: seven bits per byte, the lowest first."""
    *more, last = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(part | 128 for part in more), last])


def _number(code: bytes, at: int) -> tuple[int, int]:
    """Return the number in that format which begins at ``at``, and where it ends."""
    value = shift = 0
    while True:
        value |= (code[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if code[at - 1] < 128:
            return value, at


_MEMORY = _text("env") + _text("__linear_memory") + b"\2"  # an import of kind 2
