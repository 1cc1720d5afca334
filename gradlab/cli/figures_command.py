"""Run the paper's experiments and draw their figures, with a gallery page.

Results are kept: frames and figures that are still current are not computed again. Can be stopped and resumed.
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
    """Experiments to run; left out: all but those that take minutes. These are "questions", which runs the experiments
    on the paper's open questions, each of which has a name too, and "atlas", which trains what the atlas lacks."""
    quick: bool = False
    """A look in under a minute: fewer seeds, marked so on every figure, in the subfolder quick."""
    fresh: bool = False
    """Compute everything again."""
    folder: Path = Path("figures")
    """The folder of figures and data."""

    def run(self) -> int:
        """Hand over to the experiments."""
        from gradlab.experiments.make import make_figures

        make_figures(list(self.names), folder=self.folder, quick=self.quick, fresh=self.fresh)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(FiguresCommand, "figures", __doc__, arguments).run()
