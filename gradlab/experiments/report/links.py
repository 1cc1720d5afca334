"""The common parts of the report's pages: their mark, and links to figures and to the code."""

from __future__ import annotations

from pathlib import Path

WRITTEN = "Written by `make figures`; do not edit."


def picture(figure: str, folder: Path) -> str:
    """Return a link to a figure, or its name alone where it has not been drawn."""
    return f"[{figure}]({figure}.png)" if (folder / f"{figure}.png").exists() else figure


def code(path: str, quick: bool, text: str = "") -> str:
    """Return a link to a file of the repository, by its path or another text."""
    return f"[{text or path}]({'../..' if quick else '..'}/{path})"


def frame(name: str) -> str:
    """Return the links to a frame and its manifest, or to a folder of frames, each of which has its manifest there."""
    file = Path(name)
    return (
        f"[{name}]({name}), [manifest]({file.with_suffix('.json').as_posix()})" if file.suffix else f"[{name}]({name})"
    )
