"""Checks at the door: each returns its value, or raises an error with one line naming argument, value and remedy."""

from __future__ import annotations

import difflib
import errno
import json
import math
import operator
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
MOST = 2**63 - 1  # what an integer of 64 bits holds
_NOT_REAL = ("bool", "complex", "datetime", "timedelta", "object", "str", "<U", "|S", "void")
_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def count(name: str, value: Any, least: int = 0, most: int = MOST) -> int:
    """Return ``value`` as an int if it is a whole number from ``least`` to ``most``."""
    number = None
    if _is_real(value) and not isinstance(value, float):
        try:
            number = operator.index(value)
        except TypeError:  # a tensor of floats
            number = None
    if number is None or number < least:
        raise ValueError(f"{name} must be a whole number ≥ {least}, got {shown(value)}")
    if number > most:
        raise ValueError(f"{name} must be a whole number ≥ {least} and ≤ {most}, got {shown(value)}")
    return number


def positive(name: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite number > 0; an int beyond 64 bits must be written as a float."""
    if not _is_real(value) or _is_long(value) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be finite and > 0, got {shown(value)}")
    return float(value)


def between(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return ``value`` as a float if it is finite and lies between the ends, which belong to the range unless open."""
    number = float(value) if _is_real(value) and not _is_long(value) else math.nan
    inside = (low < number if open_low else low <= number) and (number < high if open_high else number <= high)
    if not inside or not math.isfinite(number):
        left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
        raise ValueError(f"{name} must be finite and lie in {left}{low:g}, {high:g}{right}, got {shown(value)}")
    return number + 0.0  # −0 is 0


def keep_plain(record: object, /, **checked: float | None) -> None:
    """Put checked numbers into the fields of a frozen dataclass, from its ``__post_init__``.

    Whatever kind of number was given, such as NumPy's or a tensor, the record computes and compares with Python's, and
    settings are saved as numbers. Numbers that are Python's already stay as they are.
    """
    for name, value in checked.items():
        if value is not None and type(getattr(record, name)) not in (int, float):
            object.__setattr__(record, name, value)


def of_kind(name: str, value: Any, kind: type[T] | tuple[type[T], ...], such_as: str) -> T:
    """Return ``value`` if it is of this kind; the error says ``such_as``, with the kind's name and an example."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be {such_as}, got {shown(value)}")
    return value


def several(name: str, values: Any, kind: type[T], such_as: str) -> list[T]:
    """Return a list of the values, all of this kind; a single one is a list of one. ValueError for anything else."""
    if isinstance(values, kind):
        return [values]
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)) or not len(values):
        raise ValueError(f"{name} must be {such_as}, or a sequence with at least one, got {shown(values)}")
    return [of_kind(f"{name}[{place}]", value, kind, such_as) for place, value in enumerate(values)]


def one_of(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return ``value`` if it is among ``choices``; the error names all of them and the nearest."""
    known: Sequence[str] = tuple(choices)
    if not isinstance(value, str) or value not in known:
        near = difflib.get_close_matches(value[:100] if isinstance(value, str) else "", known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {', '.join(known)}; got {shown(value)}{hint}")
    return value


def utf8(name: object, head: bytes) -> None:
    """Raise ValueError where the first bytes of a file, four or more, are those of a text in UTF-16 or UTF-32."""
    encoding = json.detect_encoding(head[:4]) if any(head[:4]) else "utf-8"
    if not encoding.startswith("utf-8"):
        raise ValueError(
            f"{name} must be UTF-8, and is {encoding.upper()}; change it by: "
            f"iconv -f {encoding.removesuffix('-sig')} -t utf-8 OLD > NEW"
        )


def toml_file(name: str, path: Path | str) -> dict[str, Any]:
    """Return what a TOML file in UTF-8 says; errors as in ``input_file``, ValueError for a file of anything else."""
    import tomllib

    content = input_file(name, path).read_bytes()
    utf8(path, content)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None


def input_file(name: str, path: Path | str) -> Path:
    """Return the path of a file that can be read; links are followed.

    Raises FileNotFoundError for a missing file; ValueError for a folder, and for a pipe, a socket or a device, which
    could keep a reader waiting for ever; OSError for links that lead in a circle and folders that cannot be entered.
    """
    text = path_text(name, path)
    try:
        mode = os.stat(text).st_mode
    except OSError as error:
        kind = FileNotFoundError if isinstance(error, (FileNotFoundError, NotADirectoryError)) else type(error)
        raise kind(f"{name} must be a file that can be read, got {in_words(text)}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        what = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise ValueError(f"{name} must be a plain file, got {what}: {in_words(text)}")
    return Path(text)


def in_words(path: object) -> str:
    """Return a path or a name as it stands in an error: quoted where it would not be one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def resolved(name: str, path: Path | str) -> Path:
    """Return a path from the root, without links; it need not exist.

    Raises ValueError for links that lead in a circle, OSError for another path that the system cannot follow, such as
    any relative one where the current folder has been removed.
    """
    text = path_text(name, path)
    try:
        return Path(text).resolve()
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno != errno.ELOOP:  # RuntimeError until Python 3.12
            raise type(error)(f"{name} must be a usable path, got {in_words(text)}: {error.strerror}") from None
        raise ValueError(f"{name} must not be a circle of links, got {in_words(text)}") from None


def output_folder(name: str, path: Path | str) -> Path:
    """Return the path of a folder, or of one that can still be made there; ValueError where something else is.

    Raises what ``resolved`` raises, too.
    """
    resolved(name, path)
    text = os.fspath(path)
    if os.path.lexists(text) and not os.path.isdir(text):
        what = "a link to nowhere" if os.path.islink(text) and not os.path.exists(text) else "the file"
        raise ValueError(f"{name} must be a folder, or not be there yet, got {what} {in_words(text)!r}")
    return Path(text)


def path_text(name: str, path: Path | str) -> str:
    """Return a path as text; ValueError for anything that no file can be called."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    try:
        fits = isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        fits = False
    if not isinstance(text, str) or not fits:
        raise ValueError(f"{name} must be a path, got {shown(path)}")
    return text


def shown(value: Any) -> str:
    """Return a value as it stands in an error: on one line, and not too long."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    try:
        words = " ".join(repr(value).split())
    except Exception:  # whatever the value is
        words = type(value).__name__
    return words if len(words) <= 120 else f"{words[:117]}..."


def _is_long(value: Any) -> bool:
    """Return whether a value is an int of more than 64 bits, with which tensors do not compute."""
    return isinstance(value, int) and abs(value) > MOST


def _is_real(value: Any) -> bool:
    """Return whether a value is a real number, in Python's, numpy's or torch's type: no truth value, date or text."""
    if isinstance(value, (bool, str)):
        return False
    if isinstance(value, int):
        return abs(value) <= sys.float_info.max
    if isinstance(value, float):
        return True
    if not hasattr(value, "__float__") or not hasattr(value, "dtype") or getattr(value, "ndim", 0) != 0:
        return False  # fractions and decimals too: tensors do not compute with them
    kind = str(getattr(value, "dtype", ""))
    if any(word in kind for word in _NOT_REAL) or bool(getattr(value, "mask", False)):
        return False
    try:
        float(value)
    except Exception:  # such as a tensor without values
        return False
    return True


def number_of(name: str, kind: type, text: str) -> float | int | bool:
    """Return the number that a text spells, in its type; ValueError where it spells none."""
    if kind is bool:
        return one_of(name, text.strip().lower(), ("true", "false")) == "true"
    try:
        return kind(text)
    except ValueError:
        words = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {words}, got {shown(text)}") from None


def named_values(accepted: str, owner: str, kinds: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Return what "NAME=VALUE,…" gives, by name: numbers and truths in their types, anything else as a text.

    accepted  opens the error where a part is not of this form, such as "loss must be NAME:NUMBER=VALUE,…".
    owner     of the values, such as "simpo"; ``kinds`` are their types by name, all that it has.
    """
    given = dict[str, Any]()
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ValueError(f"{accepted}, got {shown(part)} after {owner}")
        if not kinds:
            raise ValueError(f"{owner} takes no numbers, got {shown(part)}")
        one_of(f"hyper-parameter of {owner}", name, kinds)
        if name in given:
            raise ValueError(f"{name} of {owner} must be given once, got {shown(text)}")
        what, kind = f"{name} of {owner}", kinds[name]
        given[name] = number_of(what, kind, value) if kind in (bool, int, float) else value
    return given
