"""Run the notebooks again and keep what belongs in git: outputs and static pictures, no widget state, no timings.

``make notebooks``, after a change to a notebook or to what it shows. Where nothing has changed, no file changes. Cells
of checks are folded.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
from pathlib import Path

import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

from gradlab.store.files import write_whole

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
LIVE = "application/vnd.jupyter.widget-view+json"
THUMBNAIL = 360  # pixels across
CHECK = "assert "  # in a cell for tests, which gives answers away
FOLDED = {"jupyter": {"source_hidden": True}}


def executed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook after a run from its first cell, cleaned; raises where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    return cleaned(notebook)


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return the notebook without what changes from run to run or is useless where nothing is live; checks fold."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        checks = cell.cell_type == "code" and CHECK in cell.source
        cell.metadata = nbformat.from_dict(FOLDED if checks else {})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(LIVE, None)
            if "metadata" in output:
                output.metadata = {}
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[np.ndarray]:
    """Return the pictures among the outputs, as pixels."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))))
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def main() -> int:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", type=Path, help="notebooks to run; left out: all")
    parser.add_argument("--out", type=Path, help="folder to write to; left out: over the notebooks themselves")
    given = parser.parse_args()
    for path in given.names or sorted(FOLDER.glob("*.ipynb")):
        folder = given.out or path.parent
        notebook = executed(path)
        write_whole({folder / path.name: nbformat.writes(notebook) + "\n"})
        if shown := pictures(notebook):
            write_whole({folder / "images" / f"{path.stem}.png": thumbnail(shown[0])})
        print(path)
    return 0


def thumbnail(pixels: np.ndarray) -> bytes:
    """Return a small picture for the start page, as PNG."""
    image = Image.fromarray(pixels)
    image = image.resize((THUMBNAIL, round(image.height * THUMBNAIL / image.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
