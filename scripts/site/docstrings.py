"""gradlab's docstrings as reStructuredText: tables of names become lists of definitions, symbols stay what they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

NAMES = re.compile(r"^(?P<indent> *)(?P<names>\*{0,2}\w+(?:,? \*{0,2}\w+)*)  +(?P<text>\S.*)$")
_LITERAL = re.compile(r"(``.+?``|:\w+:`[^`]+`)")


def rendered(lines: Sequence[str]) -> list[str]:
    """Return the lines of a docstring with tables of names as definitions, and without accidental markup.

    A table has one line per name, of one word or more: the name, two spaces or more, its shape, type and unit; longer
    texts go on in lines with a deeper indent.
    """
    out: list[str] = []
    state = _State()
    for line in lines:
        found = None if state.verbatim else NAMES.match(line)
        indent = len(line) - len(line.lstrip())
        if re.match(r"^ *={3,}", line):
            state.verbatim = True
        if not line.strip():
            state = _State()
            out.append("")
        elif found and (state.table == indent or state.fresh):
            if out and out[-1].strip():
                out.append("")
            out += [f"{found['indent']}``{found['names']}``", f"{found['indent']}    {plain(found['text'])}"]
            state = _State(table=indent, fresh=False)
        elif state.table is not None and indent > state.table:
            out.append(f"{' ' * (state.table + 4)}{plain(line.strip())}")
        elif state.table is not None and indent == state.table:
            out += ["", plain(line)]
            state = _State(fresh=False)
        else:
            out.append(line if state.verbatim else plain(line))
            state = _State(verbatim=state.verbatim, fresh=False)
    return out


class _State:
    """A reader's place: at the start of a paragraph, in a table of names, or in text that is kept as it is."""

    def __init__(self, *, table: int | None = None, fresh: bool = True, verbatim: bool = False) -> None:
        self.table, self.fresh, self.verbatim = table, fresh, verbatim


def plain(line: str) -> str:
    """Return a line with the characters escaped that would be markup, except in ``literals``."""
    parts = _LITERAL.split(line)
    parts[::2] = [re.sub(r"([*|`\\])|(?<=\w)(_)(?!\w)", r"\\\1\2", part) for part in parts[::2]]
    return "".join(parts)


def for_readers(signature: str) -> str:
    """Return a signature without a record's private fields, which stand at its end, and with plain names of types."""
    plain_names = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", signature)
    return re.sub(r"(?:, |(?<=\())_\w+: .*\)$", ")", plain_names)
