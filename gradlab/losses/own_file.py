"""Losses as a command line names them: a registered one, or a class in a user's own file or module."""

from __future__ import annotations

import copyreg
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from gradlab.checks import named_values, shown
from gradlab.losses.pair import BatchLoss, KnownLoss
from gradlab.losses.registry import (
    BATCH_LOSSES,
    PAIR_LOSSES,
    measure_facts,
    named_loss,
    register_loss,
    users_losses,
)
from gradlab.user_code import file_module, member_of

ACCEPTED = "the name of a registered loss, FILE.py:CLASS or MODULE:CLASS, each also with :NAME=NUMBER,…"
_OWN = re.compile(r"(.+):([^\W\d][\w.]*)(?::([^:]*=[^:]*))?")  # place, name, numbers


def from_text(text: str, usual: Mapping[str, Any] = MappingProxyType({})) -> KnownLoss | BatchLoss:
    """Return the loss that a text names: "dpo", "simpo:beta=2,gamma=0.5", "mine.py:Mine" or "package.module:Mine".

    A class of a user's, or an instance, is registered as by ``register_loss``; a file that has changed replaces what
    it registered before. Its instances can be pickled: another process needs no access to the file.

    usual  numbers in place of the loss's defaults, by name; the text's own win, and the loss need not have them.

    ValueError or TypeError, or OSError for a file that cannot be read, in one line; then nothing is registered.
    """
    loss, numbers = _named(text)
    hints = get_type_hints(type(loss))
    known = {field.name: hints[field.name] for field in fields(loss)}
    given = {} if numbers is None else named_values(f"loss must be {ACCEPTED}", loss.name, known, numbers)
    changes = {**{name: value for name, value in usual.items() if name in known}, **given}
    return replace(loss, **changes) if changes else loss


def registered_name(text: str) -> str:
    """Return the name in the registry of the loss that a text names, which is registered if it is a user's.

    Errors as for ``from_text``; ValueError for a text that states numbers, which are settings of their own.
    """
    loss, numbers = _named(text)
    if numbers is not None:
        raise ValueError(f"loss must be named without numbers here, as they are settings of their own, got {text!r}")
    return loss.name


def _named(text: Any) -> tuple[Any, str | None]:
    """Return the loss that a text names, with its defaults, and the text of its numbers; None where it has none."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"loss must be {ACCEPTED}, got {shown(text)}")
    if not is_own(text):
        name, colon, numbers = text.partition(":")
        if name.endswith(".py"):
            raise ValueError(f"loss must be {ACCEPTED}; {shown(text)} names no class: write {name}:CLASS")
        return named_loss(name), numbers if colon else None
    parts = _OWN.fullmatch(text)
    if parts is None:
        raise ValueError(f"loss must be {ACCEPTED}, got {shown(text)}")
    place, name, numbers = parts.groups()
    return own_loss(place, name), numbers


def is_own(text: str) -> bool:
    """Return whether a text names a loss in a user's own file or module, and not one of the registry."""
    name, colon, rest = text.partition(":")
    if name not in {*PAIR_LOSSES, *BATCH_LOSSES}:
        return bool(colon)
    return bool(colon) and "=" not in rest and bool(users_losses([name]))  # a module that is called as its loss


def own_loss(place: str, name: str) -> KnownLoss:
    """Register a class of a file or a module, or an instance there, and return it with its default numbers."""
    what = f"loss {place}:{name}"
    found = member_of(what, place, name, _is_loss, "CLASS")
    kind = found if isinstance(found, type) else type(found)
    if not _is_loss(found):
        raise TypeError(f"{what} must be a frozen dataclass with a __call__, see PairLoss, got {shown(found)}")
    registered = register_loss(found)
    if not kind.__module__.startswith("gradlab."):
        _make_portable(kind, place, name)
    return registered() if isinstance(registered, type) else registered


def _is_loss(value: Any) -> bool:
    kind = value if isinstance(value, type) else type(value)
    return is_dataclass(kind) and "__call__" in dir(kind)


def _make_portable(kind: type, place: str, name: str) -> None:
    """Let instances of a class be pickled with the text of its file, or with the name of its module."""
    source = file_module(f"loss {place}", Path(place)).__source__ if place.endswith(".py") else None
    copyreg.pickle(kind, lambda loss: (_restored, (place, source, name, vars(loss))))  # type: ignore[arg-type]


def _restored(place: str, source: str | None, name: str, values: Mapping[str, Any]) -> Any:
    """Return an instance that was pickled, in any process; its class then has all facts of ``KnownLoss``."""
    what = f"loss {place}:{name}"
    if source is not None:
        found = reduce(getattr, name.split("."), file_module(what, Path(place), source))
    else:
        found = member_of(what, place, name, _is_loss, "CLASS")
    kind = found if isinstance(found, type) else type(found)
    measure_facts(kind)
    loss = object.__new__(kind)
    for key, value in values.items():
        object.__setattr__(loss, key, value)
    return loss
