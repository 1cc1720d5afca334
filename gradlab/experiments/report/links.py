"""What the pages of the report have in common: their mark, and links to figures and to the code."""

from __future__ import annotations

from pathlib import Path

WRITTEN = "Written by `make figures`; do not edit."


def picture(figure: str, folder: Path) -> str:
    """Return a link to a figure, or its name alone where it has not been drawn."""
    return f"[{figure}]({figure}.png)" if (folder / f"{figure}.png").exists() else figure


def code(path: str, quick: bool, text: str = "") -> str:
    """Return a link to a file of the repository, by its path or another text."""
    return f"[{text or path}]({'../..' if quick else '..'}/{path})"
