"""Symbols as they are typeset: pages write π_w plainly, and the site lowers the index."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes

SYMBOL = re.compile(r"(?<![\w.])(Δ?[A-Za-z\u0370-\u03ff])_(ref|min|max|[a-z]{1,2})(?!\w)")
_AS_WRITTEN = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.raw, addnodes.desc_signature)


def parts(text: str) -> list[nodes.Node]:
    """Return a text as nodes, with the index of each symbol as a subscript."""
    out: list[nodes.Node] = []
    for index, part in enumerate(SYMBOL.split(text)):  # text, symbol, its index, text, …
        if index % 3 == 2:
            out.append(nodes.subscript(part, part))
        elif part:
            out.append(nodes.Text(part))
    return out


def typeset(app: Any, doctree: nodes.document, page: str) -> None:
    """Lower the indices of a page's symbols, except in code."""
    for text in list(doctree.findall(nodes.Text)):
        if SYMBOL.search(text) and not _as_written(text):
            text.parent.replace(text, parts(text.astext()))


def _as_written(node: nodes.Node) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, _AS_WRITTEN):
            return True
    return False
