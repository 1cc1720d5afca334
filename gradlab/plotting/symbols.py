"""Symbols of plain text as mathematics: figures say π_w in source, tests and menus, and print it typeset."""

from __future__ import annotations

import re
from collections.abc import Callable

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

_GREEK = {
    "α": r"\alpha", "β": r"\beta", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "π": r"\pi", "σ": r"\sigma",
    "Δ": r"\Delta", "∂": r"\partial", "∇": r"\nabla",
}  # fmt: skip
_SYMBOL = re.compile(r"([∂∇Δ]?[αβκλμπσ])(?:_(ref|[a-z])(?![a-z]))?|∂L|[∇∂Δ]|\bh_[wl]\b")


def typeset(text: str) -> str:
    """Return the text with Greek letters and their indices in Matplotlib's notation of mathematics.

    Parts between dollar signs stay as they are. So does a text with an odd number of them, which is no notation.
    """
    parts = text.split("$")
    if len(parts) % 2 == 0:
        return text
    return "$".join(part if place % 2 else _SYMBOL.sub(_replaced, part) for place, part in enumerate(parts))


def typeset_all(figure: Figure) -> None:
    """Typeset every still text of a figure: titles, labels, legends, notes, and ticks with names."""
    for axis in figure.findobj(Axis):
        formatter = axis.get_major_formatter()  # ticks with names have one of these two
        if isinstance(formatter, FuncFormatter):
            formatter.func = _then_typeset(formatter.func)
        elif isinstance(formatter, FixedFormatter):
            formatter.seq = [typeset(name) for name in formatter.seq]
    typeset_texts(figure)


def typeset_texts(figure: Figure) -> None:
    """Typeset the still texts of a figure, without the names of ticks; those that may not hold mathematics stay."""
    for text in figure.findobj(Text):
        if text.get_parse_math() and not text.get_animated():
            text.set_text(typeset(text.get_text()))


def _then_typeset(name: Callable[..., str]) -> Callable[..., str]:
    return lambda *tick: typeset(name(*tick))


def _replaced(found: re.Match[str]) -> str:
    letters, index = found.group(1) or found.group(), found.group(2)
    if letters.startswith("h_"):
        letters, index = letters.split("_")
    written = " ".join(_GREEK.get(letter, letter) for letter in letters)
    if index is None:
        return f"${written}$"
    small = rf"\mathrm{{{index}}}" if len(index) > 1 else index
    return f"${written}_{{{small}}}$"
