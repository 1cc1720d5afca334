"""Mathematics as MathML, made when the site is built: a page needs no script and no font for it, and works offline."""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

_SIZED = re.compile(r"\\(?:big|Big|bigg|Bigg)(?![lrA-Za-z])")
_SHORT_FRACTION = re.compile(r"\\[td]?frac\s*(\d)\s*(\d)")


def mathml(tex: str, *, block: bool) -> str:
    """Return LaTeX as MathML; ValueError for what cannot be said in it."""
    tex = _SHORT_FRACTION.sub(r"\\frac{\1}{\2}", _SIZED.sub(r"\\bigl", tex))
    try:
        return tex2mathml(tex, as_block=block)
    except MathError as error:
        raise ValueError(f"{error} in the formula {tex}") from error


def _write(writer: Any, node: Any, *, block: bool) -> None:
    try:
        text = mathml(node.astext(), block=block)
    except ValueError as error:
        logging.getLogger(__name__).warning(str(error), location=node)
        text = writer.encode(node.astext())
    writer.body.append(f'<div class="formula">{text}</div>' if block else text)


def visit_inline(writer: Any, node: Any) -> None:
    """Write a formula in a line of text."""
    _write(writer, node, block=False)
    raise SkipNode


def visit_block(writer: Any, node: Any) -> None:
    """Write a formula that stands alone."""
    _write(writer, node, block=True)
    raise SkipNode
