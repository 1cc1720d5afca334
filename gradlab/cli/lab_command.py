"""Open the notebooks in JupyterLab, live: when you drag a slider, policies are trained again.

In a checkout they are opened where they are. Elsewhere they are copied into a folder first, never over files that
you have changed there.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
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
    """Copy, and do not open JupyterLab."""

    def run(self) -> int:
        """Copy, start JupyterLab, and wait for it."""
        from gradlab.store.shipped import copy_notebooks

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


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(LabCommand, "lab", __doc__, arguments).run()


def _is_checkout() -> bool:
    """Return whether the current folder is a checkout of gradlab."""
    return Path("notebooks/00-start.ipynb").is_file() and Path("gradlab/__init__.py").is_file()
