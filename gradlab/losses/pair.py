"""The contract of a pairwise loss: its argument, its facts, its slopes, and the gradient ratio that it is judged by."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.losses.facts import Facts, Look, Shipped


@dataclass(frozen=True, eq=False)
class PairLogps:
    """Log-probabilities of preference pairs. All fields have one shape, or shapes that broadcast.

    TypeError for a field that is no floating-point tensor (lengths may be whole numbers); ValueError for shapes that do
    not broadcast.

    win, lose          log π(y_w|x), log π(y_l|x) under the policy, in nats.
    ref_win, ref_lose  the same under the frozen reference.
    win_len, lose_len  response lengths in tokens, for the losses that need them.
    """

    win: Tensor
    lose: Tensor
    ref_win: Tensor
    ref_lose: Tensor
    win_len: Tensor | None = None
    lose_len: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in ("win_len", "lose_len"):
                continue
            if not isinstance(value, Tensor) or not (
                value.is_floating_point() or field.name in ("win_len", "lose_len")
            ):
                got = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{field.name} must be a floating-point tensor, got {got}")
            if value.layout is not torch.strided:
                raise TypeError(f"{field.name} must be a dense tensor, got one of {value.layout}")
        shapes = {name: value.shape for name, value in vars(self).items() if value is not None}
        if any(shape != self.win.shape for shape in shapes.values()):
            _check_shapes({name: tuple(shape) for name, shape in shapes.items()})

    @property
    def win_logratio(self) -> Tensor:
        """Return h_w = log π(y_w) − log π_ref(y_w)."""
        return self.win - self.ref_win

    @property
    def lose_logratio(self) -> Tensor:
        """Return h_l = log π(y_l) − log π_ref(y_l)."""
        return self.lose - self.ref_lose

    def lengths(self, loss: str) -> tuple[Tensor, Tensor]:
        """Return L_w and L_l in the type of ``win``; ValueError, which names the loss, for pairs without lengths."""
        for name in ("win_len", "lose_len"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"{name} must be given, since {loss} needs the lengths of responses in tokens, got None"
                )
        return self.win_len.to(self.win.dtype), self.lose_len.to(self.win.dtype)  # type: ignore[union-attr]

    def swapped(self) -> PairLogps:
        """Return the same pairs with winner and loser exchanged."""
        return PairLogps(self.lose, self.win, self.ref_lose, self.ref_win, self.lose_len, self.win_len)


@runtime_checkable
class PairLoss(Protocol):
    """A pairwise preference loss: a frozen dataclass whose fields are its hyper-parameters.

    A call returns one loss per pair, in the pairs' shape, never reduced. ``name`` is the key in the registry.
    ``equation`` and ``source`` say in one line what the loss is and where it comes from. ``antisymmetric`` promises
    a ``LogisticLoss`` whose margin changes sign, exactly, when winner and loser trade places.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def equation(self) -> str: ...  # noqa: D102

    @property
    def source(self) -> str: ...  # noqa: D102

    @property
    def antisymmetric(self) -> bool: ...  # noqa: D102

    def __call__(self, logps: PairLogps) -> Tensor: ...  # noqa: D102


class KnownLoss(PairLoss, Protocol):
    """A loss with the facts that menus, figures and the doctor need; ``register_loss`` adds those a class leaves out.

    label            the loss's name in figures and menus.
    start_value      the loss at π = π_ref; None where that differs from pair to pair.
    start_equation   ``start_value`` as a formula, such as "ln 2"; may be empty.
    weight_range     least and largest λ_w that these hyper-parameters allow; two equal numbers where λ_w is constant.
                     λ_w is the winner's share in the slopes of the margin, or of the loss if it is no ``LogisticLoss``.
    constant_weight  whether λ_w is constant.
    logistic         whether the loss is a mean of terms −log σ(·): in nats, and never exactly 0.
    bounded_below, bounded_above  whether the loss has a lower, an upper bound.
    needs_lengths    whether it reads ``win_len`` and ``lose_len``.
    needs_reference  whether it depends on the reference at all.
    winner_down      whether descent lowers log π_w for some pair: ∂L/∂log π_w > 0 somewhere.
    loser_up         whether descent raises log π_l for some pair: ∂L/∂log π_l < 0 somewhere.
    optimum          where the loss is least, as an equation, if that is at finite log-probabilities; or empty.
    rho              ρ = |∂L/∂log π_w| / |∂L/∂log π_l| as a formula; or empty.
    convention       what stands for a response's log-probability, and what else implementations do differently.
    published        hyper-parameters as the source sets them, where it does.
    shipped          the libraries that ship the loss.
    notes            ambiguities, and differences between sources and code, each one sentence with a version.
    look             colour, line and marker in figures.
    """

    @property
    def label(self) -> str: ...  # noqa: D102

    @property
    def start_value(self) -> float | None: ...  # noqa: D102

    @property
    def start_equation(self) -> str: ...  # noqa: D102

    @property
    def weight_range(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def constant_weight(self) -> bool: ...  # noqa: D102

    @property
    def logistic(self) -> bool: ...  # noqa: D102

    @property
    def bounded_below(self) -> bool: ...  # noqa: D102

    @property
    def bounded_above(self) -> bool: ...  # noqa: D102

    @property
    def needs_lengths(self) -> bool: ...  # noqa: D102

    @property
    def needs_reference(self) -> bool: ...  # noqa: D102

    @property
    def winner_down(self) -> bool: ...  # noqa: D102

    @property
    def loser_up(self) -> bool: ...  # noqa: D102

    @property
    def optimum(self) -> str: ...  # noqa: D102

    @property
    def rho(self) -> str: ...  # noqa: D102

    @property
    def convention(self) -> str: ...  # noqa: D102

    @property
    def published(self) -> Mapping[str, float]: ...  # noqa: D102

    @property
    def shipped(self) -> tuple[Shipped, ...]: ...  # noqa: D102

    @property
    def notes(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def look(self) -> Look: ...  # noqa: D102


class LogisticLoss(Facts, ABC):
    """The family −log σ(m): a subclass defines the margin m, and this class loss and slope.

    The facts stated here hold for a margin that is 0 at π = π_ref; one of gradlab's with another margin states its
    start, and those of a user's class are measured, unless it states them.
    """

    logistic = True
    start_value = math.log(2)
    start_equation = "ln 2"
    bounded_below = True
    bounded_above = False

    @abstractmethod
    def margin(self, logps: PairLogps) -> Tensor:
        """Return m, the argument of log σ, in the pairs' shape."""

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return −log σ(m) of each pair, in nats."""
        return -F.logsigmoid(self.margin(logps))

    @staticmethod
    def slope(margin: Tensor) -> Tensor:
        """Return ∂L/∂m = −σ(−m) in closed form, for speed; a test compares it with autograd."""
        return torch.neg(margin).sigmoid_().neg_()


class BatchLoss(Facts, ABC):
    """A loss of a batch of pairs: each pair's value depends on the batch's other pairs, too.

    The first dimension of the pairs is the batch; further dimensions are separate batches. The loss of a batch is the
    sum of its values times the weights, and its slopes are those of this sum: no pair has slopes by itself. ``fit``
    takes all pairs of a run for one batch, and trains eager; the trainer takes a micro-batch of each process.
    Facts and hyper-parameters are stated as by a ``PairLoss``.
    """

    name: str
    label: str
    equation: str
    source: str
    antisymmetric = False

    @abstractmethod
    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return one value per pair, in the pairs' shape.

        weights  of the pairs, in their shape, ≥ 0 and 1 in sum over the first dimension; None: equal ones.
        """


class DealtLoss(LogisticLoss):
    """The family −log σ(m) whose margin also takes a number of another pair: weights that are dealt out anew (ours).

    At every step each pair of a run gives one number, which depends on the policy, and gets that of the pair that
    ``deal`` names, times a sign. ``gradlab.lab.fit`` does the dealing. A loss that is called by itself deals nothing:
    each pair keeps its own number. The engine fuses it if ``antisymmetric`` holds, with numbers that change sign, too.
    """

    antisymmetric = True

    @abstractmethod
    def number(self, logps: PairLogps) -> Tensor:
        """Return the number that each pair gives, in the pairs' shape; no gradient flows through it."""

    @abstractmethod
    def deal(self, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return for each pair of the run of this seed which pair's number it gets, and the sign; both (pairs,).

        A run's pairs stand in order: all prompts of the first pair of responses, then of the next; those without data
        too. The deal is drawn once per run.
        """

    @abstractmethod
    def margin(self, logps: PairLogps, dealt: Tensor | None = None) -> Tensor:
        """Return m in the pairs' shape; ``dealt`` has what each pair gets, None: its own number."""

    def __call__(self, logps: PairLogps, dealt: Tensor | None = None) -> Tensor:
        """Return −log σ(m) of each pair, in nats."""
        return -F.logsigmoid(self.margin(logps, dealt))


def slopes(value: Callable[[PairLogps], Tensor], logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Return ∂L/∂log π_w and ∂L/∂log π_l of each pair by autograd, both in the pairs' shape.

    value  a loss, or the margin of a ``LogisticLoss``; then L stands for the margin.
    logps  of any shapes that broadcast; a side that several pairs share has one slope per pair. They are not changed.

    A side that the value does not depend on has slope 0.
    """
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"value must be a loss, or a function of PairLogps, got {type(value).__name__}")
    if not isinstance(logps, PairLogps):
        raise TypeError(f"logps must be a PairLogps, got {type(logps).__name__}")
    shared = {name: side for name, side in vars(logps).items() if side is not None}
    pairs = dict(zip(shared, torch.broadcast_tensors(*shared.values()), strict=True))
    win, lose = (pairs.pop(name).detach().clone().requires_grad_() for name in ("win", "lose"))
    with torch.enable_grad():
        result = value(replace(logps, win=win, lose=lose, **pairs))
        if not isinstance(result, Tensor):
            raise TypeError(f"value must return one loss per pair, a tensor, got {type(result).__name__}")
        total = result.sum()
        win_slope, lose_slope = torch.autograd.grad(total, (win, lose), allow_unused=True, materialize_grads=True)
    return win_slope, lose_slope


def reads_lengths(loss: PairLoss | BatchLoss) -> bool:
    """Return whether to give lengths to a loss: True unless it states that it needs none, so that no loss lacks them.

    A class of a user's own may state nothing before it is registered.
    """
    return getattr(loss, "needs_lengths", True)


def differentiated(loss: PairLoss) -> Callable[[PairLogps], Tensor]:
    """Return the function whose slopes give λ_w and ρ: the margin of a ``LogisticLoss``, or else the loss.

    Both sides of a ``LogisticLoss`` share the factor σ(−m), which cancels in λ_w and ρ, and might underflow.
    """
    return loss.margin if isinstance(loss, LogisticLoss) else loss


def log_prob_ratio(loss: PairLoss, logps: PairLogps) -> Tensor:
    """Return log(|∂L/∂π_w| / |∂L/∂π_l|) of each pair by autograd, in nats and in the pairs' shape.

    By the chain rule it is log|∂L/∂log π_w| − log|∂L/∂log π_l| + log π_l − log π_w, which stays finite at
    log π = −1000. For a ``LogisticLoss`` it is computed from the margin, see ``differentiated``. NaN where neither side
    has a gradient.
    """
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(f"loss must be a loss, such as DPO(beta=1.0), got {type(loss).__name__}")
    win, lose = slopes(differentiated(loss), logps)
    return win.abs().log() - lose.abs().log() + (logps.lose.detach() - logps.win.detach())


def _check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless the shapes broadcast; it names the field without which the others would broadcast."""
    if _broadcast(shapes.values()):
        return
    names = list(shapes)
    odd = [name for name in names if _broadcast(shape for other, shape in shapes.items() if other != name)]
    first = next(name for name in names if not _broadcast(shapes[other] for other in names[: names.index(name) + 1]))
    name = odd[0] if len(odd) == 1 else first
    others = ", ".join(f"{other} {shape}" for other, shape in shapes.items() if other != name)
    raise ValueError(f"{name} must have a shape that broadcasts with the others ({others}), got {shapes[name]}")


def _broadcast(shapes: Iterable[tuple[int, ...]]) -> bool:
    """Return whether the shapes broadcast: at each axis, counted from the last, all sizes other than 1 are equal."""
    reversed_shapes = (shape[::-1] for shape in shapes)
    return all(len({size for size in sizes if size != 1}) <= 1 for sizes in zip_longest(*reversed_shapes, fillvalue=1))
