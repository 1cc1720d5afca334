"""Live explorers on the site's pages: the files that they share, and the scripts of a page that has a place for one.

The first page holds the lab's picture in ``#gradlab-lab``; a page of a notebook has a ``marker`` before the picture of
each explorer. ``docs/_static/lab.js`` puts the live one in place of the picture, where the bundle that ``make web``
builds offers it: ``mountLab(root, given)``, ``mountExplorer(root, given, name)``. Where it does not, where anything
fails, and without JavaScript, the picture stays.
"""

from __future__ import annotations

import ast
import contextlib
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradlab.store.files import write_whole
from gradlab.widgets import EXPLORERS, page

START = "lab.js"
SHARED = ("lab-bundle.js", "lab-given.js")  # classic scripts: from file:// a page can load neither modules nor JSON
PLACE = re.compile(r'id="gradlab-lab"|class="gradlab-place"')


def write_files(folder: Path, bundle: Path = page.BUNDLE, data: dict[str, Any] | None = None) -> None:
    """Write the two files that all pages share: the front end as a text, and what it is given.

    folder  that of the site's other static files.
    bundle  the front end that ``make web`` builds.
    data    what the lab is given; None: as ``page.given`` says, without the answer, which stands on the first page.
    """
    given = {**page.given(), "answer": []} if data is None else data
    values = {"gradlabBundle": bundle.read_text("utf-8"), "gradlabGiven": given}
    texts = [f"globalThis.{name} = {json.dumps(value, allow_nan=False)};\n" for name, value in values.items()]
    write_whole({folder / name: text for name, text in zip(SHARED, texts, strict=True)})


def scripts(body: str, static: Callable[[str], str]) -> str:
    """Return the script elements of a page, "" where it has no place for an explorer.

    static  gives the address of a static file, as that page must write it.
    """
    names = (*SHARED, START) if PLACE.search(body) else ()
    return "".join(f'<script defer src="{html.escape(static(name))}"></script>\n' for name in names)


def marker(source: str) -> str:
    """Return the element that marks the place of a cell's explorer, "" for a cell that shows none.

    It has the explorer's name and the start values that the cell gives: ``gl.widgets.GridExplorer(mask_rate=0.2)``
    becomes ``data-explorer="grid"``, ``data-start='{"mask_rate": 0.2}'``. An explorer with a start value that is no
    literal, such as a world, keeps its picture.
    """
    names = {explorer.__name__: explorer.name for explorer in EXPLORERS.values()}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            with contextlib.suppress(ValueError):
                start = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
                values = html.escape(json.dumps(start))
                return (
                    f'<span class="gradlab-place" data-explorer="{names[node.func.attr]}" data-start="{values}"></span>'
                )
    return ""
