"""Lists of which no item may come twice: paths by where they lead, and options of the form NAME=TEXT."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gradlab.checks import in_words, path_text, resolved, shown


def each_once(name: str, accepted: str, paths: Iterable[Path | str]) -> list[Path]:
    """Return one or more paths as they are, if no two of them lead to one file or folder.

    accepted  what the paths must name, such as "one data set or several": for the error, which lists the paths.

    Raises what ``resolved`` raises, too.
    """
    given = [Path(path_text(name, path)) for path in paths]
    if not given or len({resolved(name, path) for path in given}) < len(given):
        raise ValueError(f"{name} must name {accepted}, each once, got {' '.join(map(in_words, given)) or 'none'}")
    return given


def named_texts(name: str, form: str, texts: Iterable[str], *, last: bool = False) -> dict[str, str]:
    """Return what texts of the form NAME=TEXT give, by name; ValueError for another form, or a name that comes twice.

    form  says what is accepted, with the names' word first: "ARM=PAIRS".
    last  split at a text's last = instead of its first, as the names may hold some.
    """
    given = dict[str, str]()
    for text in texts:
        key, equals, value = text.rpartition("=") if last else text.partition("=")
        if not (key and equals and value):
            raise ValueError(f"{name} must be {form}, got {shown(text)}")
        if key in given:
            raise ValueError(f"{name} must have each {form.partition('=')[0].lower()} once, got {key} twice")
        given[key] = value
    return given
