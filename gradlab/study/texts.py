"""Texts and names of a study: what people can read, what may name a file, and what tells who wrote a text."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradlab.checks import of_kind, shown

LONGEST = 100_000  # characters of a prompt or a response: an hour of reading
LONGEST_NOTE = 10_000  # characters of a question, a title or a reason
_LONGEST_NAME = 64  # characters of a name that becomes part of a file's name
_NAME = re.compile(r"[^\W_][\w .-]*", re.UNICODE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # files that Windows does not make
_LABEL = re.compile(r"\W*(\w[\w .-]{0,28}\w)\W{0,3}?:")  # before a text, such as "DPO:" or "**DPO**:"
_LEAST_LABEL = 3  # letters of a label that may point to a system: two stand in many names


def readable(name: str, value: Any, most: int = LONGEST, *, empty: bool = False) -> str:
    """Return a text that people can read; ValueError for anything else, such as an empty or too long one."""
    text = of_kind(name, value, str, "a text")
    if not text.strip() and not empty:
        raise ValueError(f"{name} must not be empty")
    if len(text) > most:
        raise ValueError(f"{name} must have at most {most:,} characters, since people read it, got {len(text):,}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be text that can be written as UTF-8, got {shown(text)}") from None
    return text


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Return records as the text of a file of JSON lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def json_page(value: Any) -> str:
    """Return numbers and texts as JSON; NaN and infinities, which it lacks, are null."""
    return json.dumps(_plain(value), indent=1, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_file_names(what: str, names: Sequence[str]) -> None:
    """Raise ValueError unless each name can be a file's on every system, and no two are the same file's on any."""
    for name in names:
        apt = _NAME.fullmatch(name) and not name.endswith((".", " ")) and not _RESERVED.fullmatch(name)
        if not apt or len(name) > _LONGEST_NAME:
            raise ValueError(
                f"{what} must have names that files can have: up to {_LONGEST_NAME} letters, digits, spaces, '-', '_' "
                f"and '.', a letter or digit first and no '.' last; got {shown(name)}"
            )
    seen = dict[str, str]()
    for name in names:
        first = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if first != name:
            raise ValueError(
                f"{what} must differ in more than capitals or accents' spelling, since they name files; "
                f"got {first!r} and {name!r}"
            )


def check_spellings(sources: Iterable[tuple[object, Iterable[str]]]) -> None:
    """Raise ValueError where prompts of some files differ only in white space: one prompt to readers, two to a hash.

    sources  files with their prompts.
    """
    seen = dict[str, tuple[str, object]]()
    for source, prompts in sources:
        for prompt in prompts:
            first, place = seen.setdefault(" ".join(prompt.split()), (prompt, source))
            if first != prompt:
                raise ValueError(
                    f"{source} has a prompt that differs only in white space from one in {place}: "
                    f"{prompt[:60]!r} and {first[:60]!r}; spell it alike everywhere"
                )


def named_in(text: str, systems: Iterable[str]) -> str | None:
    """Return the first of the systems whose name stands in a text as a word, in any case of letters; None for none."""
    return next((name for name in systems if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)), None)


def telling(text: str, systems: Sequence[str]) -> str | None:
    """Return how a text tells which system wrote it: by a system's name, or a label that is part of one; else None."""
    name = named_in(text, systems)
    if name is not None:
        return f"holds the name {name!r}"
    label = _LABEL.match(text)
    if label is None:
        return None
    words = {word for word in _parts(label[1]) if len(word) >= _LEAST_LABEL}
    name = next((name for name in systems if words & _parts(name)), None)
    return name and f"begins with the label {label[0].strip()!r}, which is part of the name {name!r}"


def _parts(name: str) -> set[str]:
    return {*re.split(r"[\W_]+", name.casefold())}


def quoted(text: str) -> str:
    """Return a text as it stands in an error: on one line, and not too long."""
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
