"""Run the paper's experiments and draw their figures, with a gallery page.

Results are kept: what is already there and still true is not computed again. Can be stopped and resumed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.cli.options import parsed


@dataclasses.dataclass(frozen=True)
class FiguresCommand:
    """The options of ``gradlab figures``."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME …]", help_behavior_hint="")
    ] = ()
    """Experiments to run; left out: all of them."""
    quick: bool = False
    """A look in under a minute: fewer seeds, marked so on every figure, in a folder of its own."""
    fresh: bool = False
    """Compute everything again."""
    folder: Path = Path("figures")
    """Where figures and data go."""

    def run(self) -> int:
        """Hand over to the experiments."""
        from gradlab.experiments.make import make_figures

        make_figures(list(self.names), folder=self.folder, quick=self.quick, fresh=self.fresh)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(FiguresCommand, "figures", __doc__, arguments).run()
