"""Open the notebooks in JupyterLab, live: when you drag, click or type, policies are trained again.

In a checkout they are opened where they are. Elsewhere they are copied into a folder first, never over files that
you have changed there. With --page, a browser opens the live lab as one file, which needs no server, no network and no
Python; it has the explorers that a browser can compute by itself.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.checks import resolved
from gradlab.cli.options import need, parsed
from gradlab.console import say


@dataclasses.dataclass(frozen=True)
class LabCommand:
    """The options of ``gradlab lab``."""

    folder: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[FOLDER]", help_behavior_hint="")
    ] = None  # fmt: skip
    """Where to copy the notebooks to; left out: `gradlab-notebooks`, or no copy where a checkout is opened."""
    copy_only: bool = False
    """Copy (with --page: write), and do not open JupyterLab or a browser."""
    page: bool = False
    """Write the live lab into FOLDER as gradlab-lab.html, and open it in a browser; left out, FOLDER is a new one among
    temporary files."""

    def run(self) -> int:
        """Copy, start JupyterLab, and wait for it; or write the page and open it."""
        from gradlab.store.shipped import copy_notebooks

        if self.page:
            return self._open_page()

        if not self.copy_only:
            need("lab", "jupyterlab", "anywidget")
        folder = self.folder or (Path("gradlab-notebooks") if self.copy_only or not _is_checkout() else None)
        if folder is not None:
            for name in copy_notebooks(folder):
                say(f"gradlab: kept {folder / name}, which you have changed; there is a newer one", file=sys.stderr)
            say(f"notebooks: {folder}")
        if self.copy_only:
            return 0
        start = resolved("folder", folder or Path("notebooks")) / "00-start.ipynb"
        command = [sys.executable, "-P", "-m", "jupyterlab", str(start)]  # -P: no jupyterlab.py of the current folder
        return subprocess.run(command, check=False).returncode

    def _open_page(self) -> int:
        need("lab", "ipywidgets", "anywidget")
        from gradlab.widgets.page import NAME, write_page

        file = resolved("folder", self.folder or Path(tempfile.mkdtemp(prefix="gradlab-"))) / NAME
        say("gradlab: compiling the registered losses to WebAssembly", file=sys.stderr)
        write_page(file)
        say(f"page: {file}")
        if not self.copy_only and not webbrowser.open(file.as_uri()):
            say("gradlab: no browser was found here; open the file in one", file=sys.stderr)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(LabCommand, "lab", __doc__, arguments).run()


def _is_checkout() -> bool:
    """Return whether the current folder is a checkout of gradlab."""
    return Path("notebooks/00-start.ipynb").is_file() and Path("gradlab/__init__.py").is_file()
