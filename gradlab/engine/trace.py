"""What a loss does to one pair, as a list of elementwise operations, seen while PyTorch runs it.

The loss and its backward pass are run on a few made-up pairs, while a recorder writes down each operation that PyTorch
carries out. Whatever is not elementwise, or depends on more than the pair's own log-probabilities and the loss's
hyper-parameters, is no such list: ``NotFusable``. Numbers are kept apart from operations, so that one list, and the
kernel made from it, serves a loss at any hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.engine.fallback import NotFusable
from gradlab.losses import LogisticLoss, PairLogps, PairLoss


@dataclass(frozen=True)
class Value:
    """What an input or a step gave: inputs come first, then each step's one value."""

    index: int


@dataclass(frozen=True)
class Constant:
    """A number of the loss, such as its β."""

    index: int


@dataclass(frozen=True)
class Step:
    """One operation: its name in PyTorch's ATen library, and its arguments: values, constants, or what is fixed."""

    name: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Trace:
    """Steps from some inputs to some outputs. Traces of a loss at other hyper-parameters are equal."""

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[Value | Constant, ...]

    def replay(
        self, operations: Mapping[str, Callable[..., Any]], inputs: Sequence[Any], constants: Sequence[Any]
    ) -> list[Any]:
        """Carry out the steps by ``operations``, whatever these work on; NotFusable names one that is not there."""
        values = list(inputs)

        def look_up(argument: Any) -> Any:
            if isinstance(argument, Value):
                return values[argument.index]
            return constants[argument.index] if isinstance(argument, Constant) else argument

        for step in self.steps:
            if step.name not in operations:
                raise NotFusable(f"its derivative needs {step.name}, which the engine does not know")
            arguments = [look_up(argument) for argument in step.arguments]
            options = {key: look_up(option) for key, option in step.options}
            try:
                values.append(operations[step.name](*arguments, **options))
            except (TypeError, AttributeError):
                raise NotFusable(f"its derivative needs {step.name} with arguments unknown to the engine") from None
        return [look_up(output) for output in self.outputs]


def trace(
    function: Callable[..., Sequence[Tensor]], inputs: int, dtype: torch.dtype
) -> tuple[Trace, tuple[float, ...]]:
    """The steps of ``function`` on so many tensors of one shape, and the constants in them.

    It is run twice, on other numbers and in another shape: steps or constants that differ depend on what they may not.
    """
    one = _record(function, inputs, (3, 5), dtype, seed=0)
    other = _record(function, inputs, (4, 2), dtype, seed=1)
    if repr(one) != repr(other):  # as text, in which NaN equals NaN
        raise NotFusable("it does not treat every pair alike, by a fixed formula")
    return one


def derivative(loss: PairLoss, dtype: torch.dtype) -> tuple[Trace, tuple[float, ...]]:
    """What a pair adds to the gradient: log π_w, log π_l, log π_ref,w, log π_ref,l and weight → ∂/∂log π_w, ∂/∂log π_l.

    An antisymmetric loss has two weights, as in ``PairObjective``: of both orders in sum, and of the swapped one.
    Also gives the constants of the loss. Raises NotFusable.
    """

    def pull(win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, *weights: Tensor) -> Sequence[Tensor]:
        win, lose = win.requires_grad_(), lose.requires_grad_()
        logps = PairLogps(win, lose, ref_win, ref_lose)
        if isinstance(loss, LogisticLoss):
            value = loss.margin(logps)
            outer = loss.slope(value.detach()) * weights[0]
            outer = outer + weights[1] if len(weights) == 2 else outer
        else:
            value, outer = loss(logps), weights[0]
        value.register_hook(lambda grad: outer)  # and not grad_outputs, for which PyTorch imports sympy: a second
        return torch.autograd.grad(value.sum(), (win, lose))

    return trace(pull, 6 if loss.antisymmetric else 5, dtype)


# Operations that give their first argument unchanged, and those that fill a tensor with one number. Neither is a step.
_SAME = {"detach", "alias", "lift_fresh", "clone", "expand", "view", "_unsafe_view", "contiguous", "_to_copy"}
_FILL = {
    "zeros", "ones", "full", "scalar_tensor", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones",
    "new_full", "zero", "fill",
}  # fmt: skip
_TRUTHS = {
    "lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or",
    "bitwise_not",
}  # fmt: skip
_FIXED = {"pow"}  # its numbers shape the code, and are not constants
_TAKES = {"log_sigmoid_backward": 2}  # how many arguments matter; the rest is scratch of PyTorch's own
_ABOUT_STORAGE = {"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit"}


class _Recorder(TorchDispatchMode):
    """Writes down the operations on tensors of one shape. A tensor is known by its storage, so that what is done to
    it in place is seen through every other name that it has.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.shape, self.dtype = inputs[0].shape, inputs[0].dtype
        self.steps: list[Step] = []
        self.constants: list[float] = []
        self.inputs = len(inputs)
        self._kept: list[Tensor] = []  # alive, so that no storage is used twice
        self._known: dict[int, Value | Constant] = {}
        for index, tensor in enumerate(inputs):
            self._write(tensor, Value(index))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.removesuffix("_")
        if func.namespace != "aten":
            name = f"{func.namespace}::{name}"
        arguments, options = self._arguments(name, args, kwargs)
        result = func(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else [result]
        outputs = [one for one in results if isinstance(one, Tensor)]
        if not outputs:
            raise NotFusable(f"it decides by the values that it is given ({name})")
        self._note(name, arguments, options, outputs, args)
        if func._schema.is_mutable and not _is_whole(outputs[0]):
            self._write(outputs[0], self._step(f"{name} (in a part of a tensor)"))
        return result

    def read(self, tensor: Tensor) -> Value | Constant:
        """The value that a tensor holds."""
        known = self._known.get(_storage(tensor))
        if known is not None:
            return known
        if tensor.numel() == 1:
            return self._constant(tensor.item())
        return self._step(f"a tensor of shape {tuple(tensor.shape)} of its own")

    def _note(self, name: str, arguments: Any, options: Any, outputs: list[Tensor], args: Any) -> None:
        first, *scratch = outputs
        same = name in _SAME and (first.shape == args[0].shape or args[0].numel() == 1) and first.dtype == args[0].dtype
        if same:
            self._write(first, arguments[0])
        elif name == "copy" and args[1].dtype == first.dtype:
            self._write(first, arguments[1])
        elif name in _FILL and first.dtype == self.dtype:
            self._write(first, self._constant(first.flatten()[0].item()))
        else:
            self._write(first, self._step(name + self._oddity(name, first), arguments, options))
        for number, one in enumerate(scratch, 1):
            self._write(one, self._step(f"output {number} of {name}"))

    def _oddity(self, name: str, tensor: Tensor) -> str:
        """What keeps an output from being one real number, or the truth of a comparison, a pair."""
        if tensor.dtype == torch.bool and name not in _TRUTHS:
            return " (of truth values)"
        if tensor.shape != self.shape and tensor.numel() > 1:
            return " (which changes the shape)"
        return "" if tensor.dtype in (self.dtype, torch.bool) else f" (in {tensor.dtype})"

    def _arguments(self, name: str, args: Any, kwargs: Any) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
        if name in _FILL:
            return (), ()
        args = args[: 1 if name in _SAME else _TAKES.get(name)]

        def operand(argument: Any) -> Any:
            if isinstance(argument, Tensor):
                return self.read(argument)
            if isinstance(argument, (int, float)) and not isinstance(argument, bool) and name not in _FIXED:
                return self._constant(argument)
            return argument if argument is None or isinstance(argument, (bool, int, float)) else repr(argument)

        options = [(key, operand(kwargs[key])) for key in sorted(kwargs) if key not in _ABOUT_STORAGE]
        return tuple(operand(argument) for argument in args), tuple(options)

    def _write(self, tensor: Tensor, value: Value | Constant) -> None:
        self._kept.append(tensor)
        self._known[_storage(tensor)] = value

    def _step(self, name: str, arguments: tuple[Any, ...] = (), options: Any = ()) -> Value:
        self.steps.append(Step(name, arguments, options))
        return Value(self.inputs + len(self.steps) - 1)

    def _constant(self, number: float) -> Constant:
        self.constants.append(float(number))
        return Constant(len(self.constants) - 1)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_whole(tensor: Tensor) -> bool:
    """Whether it is all of its storage, in order, and not a part or another view of it."""
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


class _NoPeeking(TorchFunctionMode):
    """Refuses what takes numbers out of tensors past the recorder."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "__dlpack__", "tolist", "data_ptr", "storage"):
            raise NotFusable(f"it decides by the values that it is given ({name})")
        return func(*args, **(kwargs or {}))


@torch.enable_grad()
def _record(
    function: Callable[..., Sequence[Tensor]], inputs: int, shape: tuple[int, int], dtype: torch.dtype, seed: int
) -> tuple[Trace, tuple[float, ...]]:
    generator = torch.Generator().manual_seed(seed)
    # Below zero, as log-probabilities are, and spread out: whatever looks at them sees other numbers each time.
    given = [-4 * torch.rand(shape, generator=generator, dtype=dtype) - 0.1 for _ in range(inputs)]
    recorder = _Recorder(given)
    try:
        with _NoPeeking(), recorder:
            results = function(*given)
        outputs = [recorder.read(result) for result in results]
    except NotFusable:
        raise
    except Exception as error:
        raise NotFusable(f"tracing it raised {type(error).__name__}: {str(error).splitlines()[0]}") from error
    if any(result.shape != shape for result in results):
        raise NotFusable("it does not give one number a pair")
    return _needed(recorder, outputs)


def _needed(recorder: _Recorder, outputs: list[Value | Constant]) -> tuple[Trace, tuple[float, ...]]:
    """Only the steps and constants that lead to the outputs, numbered anew."""
    first = recorder.inputs
    todo, kept = list(outputs), set()
    while todo:
        one = todo.pop()
        if isinstance(one, Value) and one.index >= first and one.index not in kept:
            kept.add(one.index)
            step = recorder.steps[one.index - first]
            todo += [*step.arguments, *(option for _, option in step.options)]
    number = {index: place for place, index in enumerate([*range(first), *sorted(kept)])}
    constants: dict[int, int] = {}

    def renumber(argument: Any) -> Any:
        if isinstance(argument, Value):
            return Value(number[argument.index])
        return (
            Constant(constants.setdefault(argument.index, len(constants)))
            if isinstance(argument, Constant)
            else argument
        )

    steps = []
    for step in (recorder.steps[index - first] for index in sorted(kept)):
        options = tuple((key, renumber(option)) for key, option in step.options)
        steps.append(Step(step.name, tuple(map(renumber, step.arguments)), options))
    final = tuple(map(renumber, outputs))
    return Trace(first, tuple(steps), final), tuple(recorder.constants[index] for index in constants)
