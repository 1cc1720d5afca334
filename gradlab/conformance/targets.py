"""Targets: a function, a loss of TRL's or a table of numbers, and the numbers that each gives at the questions."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import one_of, shown
from gradlab.conformance.numbers import Numbers, Questions
from gradlab.conformance.vectors import INPUTS, read_vectors, vector_pairs
from gradlab.losses import PairLogps
from gradlab.user_code import member_of

DTYPES = {"float64": torch.float64, "float32": torch.float32}
SIGNATURE = (
    "one argument, a gradlab.PairLogps; or log-probabilities by name, such as win, lose, ref_win, ref_lose, or "
    "policy_chosen_logps and so on; with win_len, lose_len for lengths"
)


@dataclass(frozen=True, eq=False)
class Target:
    """A target's answers.

    name        how the target is called.
    questions   the pairs for which it was asked one by one.
    got         its numbers there; NaN for those that it does not state, ±∞ for those that are not finite.
    dtype       the type that it computes in.
    slack       how far off its numbers may be because they are written with few digits, (3, pairs).
    notes       sentences on what was seen on the way.
    of_batches  the same for batches, where its loss of a pair depends on the other pairs of the batch.
    """

    name: str
    questions: Questions
    got: Numbers
    dtype: str
    slack: np.ndarray
    notes: list[str] = field(default_factory=list)
    of_batches: tuple[Questions, Numbers] | None = None

    def in_batches(self) -> Target:
        """Return the answers for whole batches."""
        assert self.of_batches is not None
        questions, got = self.of_batches
        return replace(self, questions=questions, got=got, slack=np.zeros_like(got.table()), of_batches=None)


def target_of(target: Any, dtype: str | None, options: Mapping[str, Any]) -> Target:
    """Return the answers of a target: a text as the command takes it, a Path of a table, or a Python object.

    ValueError, TypeError, ImportError or OSError in one line for a target that cannot be asked.
    """
    if dtype is not None:
        one_of("dtype", dtype, DTYPES)
    if isinstance(target, Path) or (isinstance(target, str) and target.lower().endswith(".csv")):
        if options:
            raise ValueError(f"a table of numbers takes no options, got {', '.join(options)}")
        from gradlab.conformance.tables import read_table

        return read_table(target, dtype or "float32")
    if isinstance(target, str):
        text, given = _options(target)
        given |= options
        if text.startswith("trl:"):
            from gradlab.conformance.trl_losses import trl_loss

            return answers(trl_loss(text.removeprefix("trl:"), given), target, dtype or "float32")
        return answers(_called(_imported(text), text, given), target, dtype or "float64")
    return answers(_called(target, shown(target), options), _name(target), dtype or "float64")


def answers(function: Callable[[PairLogps], Tensor], name: str, dtype: str) -> Target:
    """Return what a function of a PairLogps gives at the vectors' pairs: one value per pair, or one for all of them."""
    kind, pairs = DTYPES[dtype], vector_pairs()
    size, notes = len(pairs.win), []
    labels = tuple(read_vectors()["pairs"]["pair"])
    alone = _asked(function, name, _typed(pairs, kind), one_by_one=True)
    batches = _in_batches(pairs)
    together = [_asked(function, name, _typed(one, kind), one_by_one=False) for one in batches]
    places = read_vectors()["batches"]
    expected = [np.stack([row[where] for row in alone]) for where in places]
    of_batches = None
    if _coupled([np.stack(one) for one in together], expected):
        stacked = PairLogps(
            *(torch.stack(side, 1) for side in zip(*(vars(one).values() for one in batches), strict=True))
        )
        names = tuple(labels[where[row]] for row in range(len(places[0])) for where in places)
        table = np.stack([np.stack(one) for one in together], axis=2).reshape(3, -1)
        of_batches = Questions(stacked, names, batches=True), Numbers(*table)
    if dtype == "float64":
        notes += _only_in_float32(function, name, pairs, alone, labels)
    return Target(name, Questions(pairs, labels), alone, dtype, np.zeros((3, size)), notes, of_batches)


def _typed(pairs: PairLogps, dtype: torch.dtype) -> PairLogps:
    return PairLogps(*(side.to(dtype) for side in vars(pairs).values()))


def _in_batches(pairs: PairLogps) -> list[PairLogps]:
    return [PairLogps(*(side[where] for side in vars(pairs).values())) for where in read_vectors()["batches"]]


def _asked(function: Callable[[PairLogps], Any], name: str, pairs: PairLogps, *, one_by_one: bool) -> Numbers:
    """Return the numbers of each pair by itself, or those of a batch: its mean, and the slopes of its sum."""
    size = len(pairs.win)
    if one_by_one:
        parts = [
            _asked(
                function, name, PairLogps(*(side[place : place + 1] for side in vars(pairs).values())), one_by_one=False
            )
            for place in range(size)
        ]
        return Numbers(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    win, lose = (side.detach().clone().requires_grad_() for side in (pairs.win, pairs.lose))
    with torch.enable_grad():
        value = _tensor(function(PairLogps(win, lose, *list(vars(pairs).values())[2:])), name, size)
        mean = value.mean()
        slopes = [torch.full_like(win, torch.nan)] * 2
        if mean.requires_grad:
            slopes = torch.autograd.grad(mean * size, (win, lose), allow_unused=True, materialize_grads=True)
            slopes = [_stated(slope) for slope in slopes]
    arrays = (side.detach().double().numpy() for side in (_stated(mean.expand(size)), *slopes))
    return Numbers(*arrays)


def _stated(numbers: Tensor) -> Tensor:
    """Return numbers with ∞ in place of NaN, which stands for what is not stated."""
    return torch.where(numbers.isnan(), torch.inf, numbers)


def _tensor(value: Any, name: str, size: int) -> Tensor:
    """Return a function's loss: one value per pair or one for all, first in a tuple where it returns more."""
    value = value[0] if isinstance(value, tuple) and value else value
    value = value if isinstance(value, Tensor) else _as_tensor(value)
    if value is None or value.shape not in ((size,), (), (1,)):
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else "something else"
        raise ValueError(f"{name} must return one loss per pair, or their mean, here of shape ({size},), got {got}")
    return value


def _as_tensor(value: Any) -> Tensor | None:
    try:
        return torch.as_tensor(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        return None


def _coupled(together: list[np.ndarray], alone: list[np.ndarray]) -> bool:
    """Return whether batches give other slopes than their pairs do one by one, whether their mean or sum is taken."""
    apart = []
    for batch, single in zip(together, alone, strict=True):
        slopes, wanted = (table[1:] if np.isfinite(table[1:]).any() else table[:1] for table in (batch, single))
        mean = np.full_like(wanted, wanted.mean()) if len(slopes) == 1 else wanted
        known = np.isfinite(slopes) & np.isfinite(mean)
        size = np.abs(wanted[known]).max(initial=1e-30)
        ways = [mean[known], mean[known] * batch.shape[1]]  # a sum is as many times larger
        apart.append(min(float(np.abs(slopes[known] - way).max(initial=0.0)) / size for way in ways) > 1e-3)
    return any(apart)


def _only_in_float32(
    function: Callable[[PairLogps], Any], name: str, pairs: PairLogps, alone: Numbers, labels: tuple[str, ...]
) -> list[str]:
    """Return a note on pairs whose numbers are finite in float64, and not in float32."""
    try:
        single = _asked(function, name, _typed(pairs, torch.float32), one_by_one=True).table()
    except Exception:  # whatever a function that takes float64 alone may raise
        return ["It does not take float32."]
    small = np.abs(alone.table()) < float(torch.finfo(torch.float32).max)
    lost = (np.isfinite(alone.table()) & small & ~np.isfinite(single)).any(axis=0)
    where = ", ".join(labels[place] for place in np.flatnonzero(lost))
    return [f"In float32 it is not finite at: {where}."] if where else []


def _options(text: str) -> tuple[str, dict[str, Any]]:
    """Return a target without its options, and these: NAME,key=value,…; values as in Python, or else words."""
    name, *rest = re.split(r"[,:](?=[^,:=]*=)", text, maxsplit=1)
    name, *more = name.split(",")
    given = {}
    for part in (*more, *(piece for options in rest for piece in options.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key.isidentifier():
            raise ValueError(f"target must be NAME,option=value,…, got {shown(part)} in {shown(text)}")
        if key in given:
            raise ValueError(f"target must have each option once, got {key} twice in {shown(text)}")
        try:
            given[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            given[key] = value
    return name, given


def _imported(text: str) -> Any:
    """Return what ``module:name`` or ``file.py:name`` names; its code is run."""
    home, colon, name = text.rpartition(":")
    if not colon or not home or not name:
        raise ValueError(
            f"target must be module:function, file.py:function, trl:LOSS_TYPE or a .csv file, got {shown(text)}"
        )
    return member_of(f"target {text}", home, name, callable, "FUNCTION")


def _called(function: Any, name: str, options: Mapping[str, Any]) -> Callable[[PairLogps], Any]:
    """Return a target's object as a function of a PairLogps; its own options are set, ValueError where it lacks one."""
    if isinstance(function, type):
        try:
            function, options = function(**options), {}
        except TypeError as error:
            raise ValueError(f"{name} must take its options: {error}") from None
    if not callable(function):
        raise TypeError(f"{name} must be a function of log-probabilities, got {type(function).__name__}")
    call = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        parameters = list(inspect.signature(call).parameters.values())
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a function whose arguments Python can see: {SIGNATURE}") from None
    names = [one.name for one in parameters]
    if not any(one.kind is one.VAR_KEYWORD for one in parameters):
        for key in options:
            one_of(f"option of {name}", key, names)
    needed = [one for one in parameters if one.default is one.empty and one.name not in options
              and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]  # fmt: skip
    places = {one.name: _place(one.name) for one in parameters if one.name not in options}
    if len(needed) == 1 and places[needed[0].name] is None:
        return lambda pairs: function(pairs, **options)
    strange = [one.name for one in needed if places[one.name] is None]
    if strange or not needed:
        raise ValueError(
            f"{name} must take {SIGNATURE}; got {', '.join(strange) or 'no argument'} (set it as an option?)"
        )
    known = {key: place for key, place in places.items() if place is not None}
    if len(set(known.values())) < len(known):
        raise ValueError(f"{name} must take each log-probability once, got {', '.join(known)}")
    by_place = [one.name for one in needed if one.kind is one.POSITIONAL_ONLY]

    def ask(pairs: PairLogps) -> Any:
        given = {key: getattr(pairs, place) for key, place in known.items()}
        return function(*(given.pop(key) for key in by_place), **given, **options)

    return ask


def _place(name: str) -> str | None:
    """Return which of ``INPUTS`` an argument of such a name takes, or None."""
    if name in INPUTS:
        return name
    lower = name.lower()
    winner, loser = (any(word in lower for word in words) for words in (("win", "chosen"), ("lose", "reject")))
    if winner == loser:
        return None
    side = "win" if winner else "lose"
    if "len" in lower:
        return f"{side}_len"
    return f"ref_{side}" if "ref" in lower else side


def _name(target: Any) -> str:
    if hasattr(target, "equation") and hasattr(target, "name"):
        return str(target.name)
    return getattr(target, "__qualname__", type(target).__qualname__)
