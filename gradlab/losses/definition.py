"""The definition of a user's loss as text: equal for two losses that compute the same by the same code."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from gradlab.losses.pair import PairLoss

# Words about a loss, with which it computes nothing.
_WORDS = frozenset({
    "name", "label", "equation", "source", "start_equation", "optimum", "rho", "convention", "published", "shipped",
    "notes", "look",
})  # fmt: skip
_CACHED = type(cache(repr))
_METHODS = frozenset({"__call__", "__post_init__"})  # methods with such names that a user writes


def definition(loss: PairLoss) -> str:
    """Return what a user's loss computes, as text: its numbers, and the code of its class and of the bases of that.

    Functions, classes and values of the same module that this code names are part of it, and defaults of arguments;
    what other modules define is not. A value counts if it is a number, text, bytes, None or a tensor, or a list, tuple,
    set or mapping of such. Words about a loss, such as ``label``, do not count.
    """
    seen: set[Any] = set()
    return repr((repr(loss), [_of_class(kind, seen) for kind in type(loss).__mro__ if _is_users(kind)]))


def _is_users(thing: Any) -> bool:
    return thing is not object and not (thing.__module__ or "").startswith("gradlab.")


def _of_class(kind: type, seen: set[Any]) -> Any:
    """Return the members of a class with their names; a class that was seen before, by its name."""
    if kind in seen:
        return kind.__qualname__
    seen.add(kind)
    names = [name for name in vars(kind) if name in _METHODS or not (name.startswith("__") or name in _WORDS)]
    return kind.__qualname__, _parts({name: vars(kind)[name] for name in sorted(names)}, _is_users, seen)


def _of_function(function: FunctionType, seen: set[Any]) -> Any:
    """Return a function's code, its defaults, and what it names and closes over; one that was seen before, by name."""
    if function in seen:
        return function.__qualname__
    seen.add(function)
    code, near = function.__code__, function.__globals__

    def is_near(thing: Any) -> bool:
        if isinstance(thing, FunctionType):
            return thing.__globals__ is near
        return thing.__module__ == near.get("__name__")

    named = {name: near[name] for name in _names(code) & near.keys()}
    outer = dict(inspect.getclosurevars(function).nonlocals)
    given = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__}
    return _of_code(code), [_parts(dict(sorted(parts.items())), is_near, seen) for parts in (given, named, outer)]


def _parts(values: Mapping[Any, Any], is_near: Callable[[Any], bool], seen: set[Any]) -> list[tuple[str, Any]]:
    """Return those of the values that are part of a definition, with their names or keys."""
    written = ((repr(name), _written(value, is_near, seen)) for name, value in values.items())
    return [(name, part) for name, part in written if part is not None]


def _written(value: Any, is_near: Callable[[Any], bool], seen: set[Any]) -> Any:
    """Return the code or the value of a member, a default or a named value; None for what is no part of a definition.

    is_near  says of a function or a class whether it is looked into.
    """
    value = _function(value)
    if isinstance(value, FunctionType):
        return _of_function(value, seen) if is_near(value) else None
    if isinstance(value, type):
        return _of_class(value, seen) if is_near(value) else None
    if isinstance(value, Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, Mapping):
        return _parts(value, is_near, seen)
    if isinstance(value, list | tuple):
        return [type(value).__name__, *(_written(part, is_near, seen) for part in value)]
    if isinstance(value, set | frozenset):
        return sorted(repr(part) for part in value)  # their own order differs from process to process
    return repr(value) if value is None or isinstance(value, numbers.Number | str | bytes) else None


def _function(value: Any) -> Any:
    """Return the function of a method, a property, a partial or a cache; anything else as it is."""
    if isinstance(value, staticmethod | classmethod):
        return _function(value.__func__)
    if isinstance(value, property):
        return value.fget
    if isinstance(value, cached_property):
        return value.func
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    return getattr(value, "__wrapped__", value) if type(value) is _CACHED else value


def _names(code: CodeType) -> set[str]:
    """Return the names that a function's code uses, also in functions inside it."""
    inside = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(_names, inside))


def _of_code(code: CodeType) -> Any:
    """Return the instructions of a code with its constants and names, and the code of functions inside it."""
    return code.co_code.hex(), code.co_names, [_constant(constant) for constant in code.co_consts]


def _constant(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return _of_code(constant)
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)
