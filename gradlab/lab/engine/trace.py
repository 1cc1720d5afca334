"""Trace a loss: list the elementwise operations on one pair, recorded while PyTorch differentiates the loss.

The loss and its backward pass run on a few random pairs under a recorder. Numbers of the loss are kept apart from its
operations, so that one list, and the kernel written from it, serves a loss at any hyper-parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.lab.objective import value_and_slope
from gradlab.lab.surrogate import PPO
from gradlab.losses import BatchLoss, DealtLoss, PairLogps, PairLoss, reads_lengths
from gradlab.streams import Purpose, torch_seed

INPUTS = ("win", "lose", "ref_win", "ref_lose", "weight", "swapped_weight")
LENGTHS = ("win_len", "lose_len")  # further inputs of a loss that reads them
OF_SURROGATE = ("logp", "old_logp", "advantage", "share")
DEALT = "dealt"  # a further input of a ``DealtLoss``, whose traces have one output more, the number that a pair gives


_SWAPPED = {  # the inputs of the swapped pair
    "win": "lose", "lose": "win", "ref_win": "ref_lose", "ref_lose": "ref_win", "win_len": "lose_len",
    "lose_len": "win_len", "weight": "swapped_weight",
}  # fmt: skip
_ODD = {"mul", "div", "atan", "tanh"}  # f(−x) = −f(x) in each argument, exactly
_EVEN = {"abs", "square"}
_COMMUTING = {"add", "mul"}
SIGMOID_OF_BOTH = "sigmoid of both"  # the sigmoid of a number whose opposite has one, too: both share an exponential


class NotFusable(Exception):
    """The reason why a training cannot run as one kernel, worded to continue "since …"."""


class Trace(NamedTuple):
    """The steps, each an operation of PyTorch's ATen library and its arguments, and the names of the outputs.

    Values have names: an input its name, the value of step n "%n", and number n of the loss "#n".
    """

    steps: tuple[tuple[str, tuple[Any, ...]], ...]
    outputs: tuple[str, ...]

    def replay(
        self,
        operations: Mapping[str, Callable[..., Any]],
        inputs: Mapping[str, Any],
        constants: Any,
        outputs: slice = slice(None),
    ) -> list[Any]:
        """Carry out the steps that these outputs need by ``operations``; NotFusable if that takes an unknown one."""
        values, wanted = dict(inputs), self.outputs[outputs]
        needed = self._needed(wanted)

        def look_up(argument: Any) -> Any:
            if not isinstance(argument, str):
                return argument
            return constants[int(argument[1:])] if argument[0] == "#" else values[argument]

        for number in needed:
            name, arguments = self.steps[number]
            try:
                if name not in operations:
                    raise NotFusable(f"its derivative needs {name}, which the engine does not know")
                values[f"%{number}"] = operations[name](*map(look_up, arguments))
            except NotFusable:
                raise
            except Exception as error:  # any failure, such as at a truth where a number is expected
                raise NotFusable(f"its derivative needs {name} with arguments unknown to the engine") from error
        return [look_up(output) for output in wanted]

    def in_both_orders(self) -> Trace:
        """Return the trace of a pair in both its orders: outputs of the pair, and then those of the swapped pair.

        What both orders share is there once, and −x where they differ in sign alone, as a margin does that changes sign
        with the sides. All numbers keep their bits, but for the sign of 0.
        """
        both = _Sharing()
        outputs = [both.follow(self, names) for names in ({name: name for name in _SWAPPED}, _SWAPPED)]
        return Trace(both.finished(), tuple(outputs[0] + outputs[1]))

    def reads(self, *names: str) -> bool:
        """Return whether some output depends on one of these inputs."""
        read = {argument for number in self._needed(self.outputs) for argument in self.steps[number][1]}
        return any(name in read or name in self.outputs for name in names)

    def opposite(self, one: int, other: int) -> bool:
        """Return whether of these two outputs one is the negation of the other."""
        pair = self.outputs[one], self.outputs[other]
        steps = [self.steps[int(name[1:])] if name[0] == "%" else ("", ()) for name in pair]
        return ("neg", pair[:1]) == steps[1] or ("neg", pair[1:]) == steps[0]

    def needed_steps(self) -> dict[int, tuple[str, tuple[Any, ...]]]:
        """Return the steps on which some output depends, by number."""
        return {number: self.steps[number] for number in self._needed(self.outputs)}

    def _needed(self, outputs: Sequence[str]) -> list[int]:
        """Return the steps on which these outputs depend, in order."""
        needed, open_ = set(), list(outputs)
        while open_:
            name = open_.pop()
            if isinstance(name, str) and name[:1] == "%" and int(name[1:]) not in needed:
                needed.add(int(name[1:]))
                open_ += self.steps[int(name[1:])][1]
        return sorted(needed)


class _Sharing:
    """A list of steps in which no value stands twice, and opposite values are one value and its negation."""

    def __init__(self) -> None:
        self._steps: list[tuple[str, tuple[Any, ...]]] = []
        self._known: dict[str, str] = {}
        self._opposite: dict[str, str] = {}  # of each negation

    def follow(self, trace: Trace, inputs: Mapping[str, str]) -> list[str]:
        """Add the steps that a trace's outputs need, under other names of its inputs; return the outputs' names."""
        values = dict(inputs)
        for number in trace._needed(trace.outputs):
            name, arguments = trace.steps[number]
            values[f"%{number}"] = self._step(name, *(values.get(one, one) for one in arguments))
        return [values.get(output, output) for output in trace.outputs]

    def finished(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """Return the steps; sigmoids of opposite numbers are to share their exponential."""
        sigmoids = {arguments[0] for name, arguments in self._steps if name == "sigmoid"}
        both = {side for side, other in self._opposite.items() if {side, other} <= sigmoids}
        both |= {self._opposite[side] for side in both}
        return tuple(
            (SIGMOID_OF_BOTH if name == "sigmoid" and arguments[0] in both else name, arguments)
            for name, arguments in self._steps
        )

    def _step(self, name: str, *arguments: Any) -> str:
        if name == "neg" and arguments[0] in self._opposite:
            return self._opposite[arguments[0]]
        if name in _ODD | _EVEN:
            positive = [self._opposite.get(one, one) for one in arguments]
            changes = sum(one != other for one, other in zip(arguments, positive, strict=True))
            if changes:
                value = self._step(name, *positive)
                return self._step("neg", value) if changes % 2 and name in _ODD else value
        if name == "sub" and len(arguments) == 2 and (turned := self._known.get(repr((name, arguments[::-1])))):
            return self._step("neg", turned)
        key = repr((name, sorted(arguments, key=repr) if name in _COMMUTING else arguments))
        if key not in self._known:
            self._known[key] = f"%{len(self._steps)}"
            self._steps.append((name, arguments))
            if name == "neg":
                self._opposite[self._known[key]] = arguments[0]
        return self._known[key]


def derivative(loss: PairLoss, dtype: torch.dtype) -> tuple[Trace, list[float]]:
    """Return the trace from a pair's ``INPUTS`` to its part of ∂/∂log π_w and ∂/∂log π_l; and the loss's constants.

    An antisymmetric loss has two weights, as in ``PairObjective``: the sum over both orders, and that of the swapped
    order. A loss of lengths has ``LENGTHS`` too. A ``DealtLoss`` has the input ``DEALT`` too, and a third output: its
    number. Raises NotFusable for a loss that is not a fixed formula of the numbers of one pair.
    """
    if isinstance(loss, BatchLoss):
        raise NotFusable("its pairs depend on all others of their batch")
    # gradlab's losses depend on their fields alone. For other losses nobody knows: a global may have changed.
    ours = type(loss).__module__.startswith("gradlab.losses.")
    return _cached_derivative(loss, dtype) if ours else _derivative(loss, dtype)


@functools.lru_cache(maxsize=128)
def surrogate_derivative(update: PPO, dtype: torch.dtype) -> tuple[Trace, list[float]]:
    """Return the trace from ``OF_SURROGATE`` to a response's part of ∂/∂log π of PPO's surrogate; and the constants."""

    def gradient(logp: Tensor, old_logp: Tensor, advantage: Tensor, share: Tensor) -> Any:
        value = update.loss(logp.requires_grad_(), old_logp, advantage)
        value.register_hook(lambda grad: share)
        return torch.autograd.grad(value.sum(), logp)

    return _traced(gradient, OF_SURROGATE, dtype)


def _derivative(loss: PairLoss, dtype: torch.dtype) -> tuple[Trace, list[float]]:
    names = INPUTS if loss.antisymmetric else INPUTS[:-1]
    names += LENGTHS if reads_lengths(loss) else ()
    names += (DEALT,) if isinstance(loss, DealtLoss) else ()
    return _traced(functools.partial(_pair_gradient, loss), names, dtype)


def _traced(
    function: Callable[..., Sequence[Tensor]], names: Sequence[str], dtype: torch.dtype
) -> tuple[Trace, list[float]]:
    """Record a function three times, on other numbers and in other shapes: all records must agree."""
    shapes = enumerate([(3, 5), (4, 2), (190, 32)])
    first, *others = (_record(function, names, dtype, shape, seed) for seed, shape in shapes)
    if any(repr(first) != repr(other) for other in others):  # as text, in which NaN equals NaN
        raise NotFusable("it does not treat every pair alike, by a fixed formula")
    return first


_cached_derivative = functools.lru_cache(maxsize=1024)(_derivative)  # of all losses, at a few numbers each


@torch.enable_grad()
def _record(
    function: Callable[..., Sequence[Tensor]],
    names: Sequence[str],
    dtype: torch.dtype,
    shape: tuple[int, int],
    seed: int,
) -> tuple[Trace, list[float]]:
    generator = torch.Generator().manual_seed(torch_seed(seed, Purpose.TRACED))
    # Below zero, as log-probabilities are, and spread out: code that looks at them sees other numbers each time.
    inputs = {name: -4 * torch.rand(shape, generator=generator, dtype=dtype) - 0.1 for name in names}
    inputs |= {name: 1 - 9 * inputs[name] for name in LENGTHS if name in names}
    recorder = _Recorder(inputs, dtype)
    try:
        with torch.random.fork_rng(devices=[]), _NoPeeking(), recorder:
            outputs = function(**inputs)
    except NotFusable:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise NotFusable(f"tracing it raised {type(error).__name__}: {reason}") from error
    return Trace(tuple(recorder.steps), tuple(map(recorder.read, outputs))), recorder.constants


def _pair_gradient(
    loss: PairLoss, win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, **given: Tensor
) -> Any:
    lengths = {name: given.pop(name) for name in LENGTHS if name in given}
    logps = PairLogps(win.requires_grad_(), lose.requires_grad_(), ref_win, ref_lose, **lengths)
    value, outer = value_and_slope(loss, logps, **given)
    value.register_hook(lambda grad: outer)  # not grad_outputs, for which PyTorch imports sympy: that takes a second
    gradient = torch.autograd.grad(value.sum(), (win, lose))
    return (*gradient, loss.number(logps)) if isinstance(loss, DealtLoss) else gradient


_UNCHANGED = {"detach", "alias", "lift_fresh", "clone", "expand", "view", "_to_copy"}  # if type and shape stay the same
_TRUTHS = {"lt", "le", "gt", "ge", "eq", "ne", "where"} | {
    f"{kind}_{name}" for kind in ("logical", "bitwise") for name in ("and", "or", "not")
}
_FILLED = {"zeros", "ones", "full", "scalar_tensor", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones"}


class _Recorder(TorchDispatchMode):
    """A recorder of the operations on tensors, and of the name of the value that each tensor holds.

    A tensor is identified by its storage, so that a change in place is seen through all its views. Taking a part of a
    tensor is a step that the engine does not know; the value is then unusable through all its views.
    """

    def __init__(self, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.steps: list[tuple[str, tuple[Any, ...]]] = []
        self.constants: list[float] = []
        self._dtype = dtype
        self._held = {_storage(tensor): name for name, tensor in inputs.items()}
        self._alive: list[Any] = []  # so that no storage is used twice

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import torch._dynamo, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive.append(result)
        first = result[0] if isinstance(result, (tuple, list)) else result
        name = str(func.overloadpacket).removeprefix("aten.").removesuffix("_")
        if not isinstance(first, Tensor):
            raise NotFusable(f"it decides by the values that it is given ({name})")
        self._held[_storage(first)] = self._value(name, args, kwargs or {}, first)
        for other in result[1:] if first is not result else ():
            self._held[_storage(other)] = self._step(f"another output of {name}")
        return result

    def read(self, tensor: Tensor) -> str:
        """Return the name of a tensor's value; NotFusable for a tensor of several numbers that comes from elsewhere."""
        known = self._held.get(_storage(tensor))
        if known is None and tensor.numel() > 1:
            raise NotFusable(f"it uses a tensor from elsewhere, of shape {tuple(tensor.shape)}")
        return known or self._constant(tensor.item())

    def _value(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Tensor) -> str:
        if name in _UNCHANGED and result.dtype == args[0].dtype and args[0].shape in (result.shape, ()):
            return self.read(args[0])
        truth = result.dtype == torch.bool
        if (not truth and result.dtype != self._dtype) or (truth and name not in _TRUTHS) or "out" in kwargs:
            raise NotFusable(f"it computes in {result.dtype} ({name})")
        if name in _FILLED:
            return self._constant(result.flatten()[0].item())
        if kwargs and name != "_to_copy":
            name += f" with {', '.join(kwargs)}"
        if name == "log_sigmoid_backward":
            args = args[:2]  # the third is scratch space of PyTorch

        def operand(argument: Any) -> Any:
            if isinstance(argument, Tensor):
                return self.read(argument)
            if type(argument) in (int, float) and name != "pow":  # an exponent shapes the code, and is not a constant
                return self._constant(argument)
            return argument if argument is None or isinstance(argument, (int, float)) else repr(argument)

        return self._step(name, *map(operand, args))

    def _step(self, name: str, *arguments: Any) -> str:
        self.steps.append((name, arguments))
        return f"%{len(self.steps) - 1}"

    def _constant(self, number: float) -> str:
        self.constants.append(float(number))
        return f"#{len(self.constants) - 1}"


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _NoPeeking(TorchFunctionMode):
    """A mode that refuses functions which take numbers out of tensors unseen by the recorder."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in ("numpy", "__array__", "__dlpack__", "tolist", "data_ptr", "storage"):
            raise NotFusable(f"it decides by the values that it is given ({name})")
        return func(*args, **(kwargs or {}))
