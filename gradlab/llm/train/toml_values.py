"""Values of a TOML file in the types of a record's fields."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from gradlab.checks import one_of

_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {  # a field's type: its types in TOML, and their name in messages
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool | float: ((bool, int, float), "true, false or a number"),
    str: ((str,), "a text"),
    Path: ((str,), "a text"),
}
_LISTS: dict[Any, str] = {int: "a list of whole numbers", float: "a list of numbers", str: "a text or a list of texts"}


def kind_of(hint: Any) -> Any:
    """Return a field's type hint, without the None of a field that may be left out."""
    return get_args(hint)[0] if NoneType in get_args(hint) else hint


def toml_value(name: str, value: Any, hint: Any) -> Any:
    """Return a value of a TOML file in its field's type: a list becomes a tuple, and a text alone may be a list of one.

    hint  a type, a Literal of texts, or a tuple of any length; each of them also with None.

    ValueError where the field does not accept the value.
    """
    kind = kind_of(hint)
    if get_origin(kind) is Literal:
        return one_of(name, value, get_args(kind))
    if get_origin(kind) is tuple:
        inside = get_args(kind)[0]
        items = [value] if inside is str and isinstance(value, str) else value
        if not isinstance(items, list) or any(type(item) not in _KINDS[inside][0] for item in items):
            raise ValueError(f"{name} must be {_LISTS[inside]}, got {value!r}")
        return tuple(map(inside, items))
    types, words = _KINDS[kind]
    if type(value) not in types:
        raise ValueError(f"{name} must be {words}, got {value!r}")
    return kind(value) if isinstance(kind, type) else value
