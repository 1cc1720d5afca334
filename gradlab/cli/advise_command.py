"""Say which loss, which β and why, from the pairs themselves and from what the lab's trainings and claims found.

Each piece of advice names what was seen, its evidence, and what would change it. Nothing is trained. With --model the
pairs are also scored under the model that training starts from, as `gradlab inspect` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

import tyro

from gradlab.cli.options import OPTIONAL, need, parsed, quiet_transformers
from gradlab.console import say, wrapped
from gradlab.llm.data.pair_forms import CHOICES

_CHOICE = tyro.conf.arg(metavar="{" + ",".join(CHOICES) + "}", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class AdviseCommand:
    """The options of ``gradlab advise``."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PAIRS")]
    """Preference pairs: a .jsonl, .jsonl.gz or .parquet file, or a hub's name."""
    model: Annotated[str | None, OPTIONAL] = None
    """The model that training starts from: a folder, a GGUF file or a hub's name; left out: only the pairs are read."""
    noise: Annotated[float | None, OPTIONAL] = None
    """The share of labels that are flipped, where you know it; left out: estimated where questions have two labels."""
    pairs: int = 200
    """How many pairs are scored under the model; 0: all."""
    gradients: int = 0
    """How many of these pairs have their parameter gradients taken, see `gradlab inspect`."""
    choice: Annotated[str | None, _CHOICE] = None
    """Which preference of PKU-SafeRLHF counts; needed there, and there only."""
    split: str = "train"
    """Split of a data set from a hub."""
    template: str = "plain"
    """How prompt and response become one text under the model, see `gradlab inspect`."""
    max_length: int = 512
    """Tokens of prompt and response together under the model."""
    json: bool = False
    """Print JSON: the facts, and one object per piece of advice."""

    def run(self) -> int:
        """Look, advise, print."""
        from gradlab.advice.from_files import advise_on_file

        if self.model is not None:
            need("llm", "transformers")
        names = ("model", "pairs", "gradients", "template", "max_length")
        model = None if self.model is None else {name: getattr(self, name) for name in names}
        with quiet_transformers() if model else contextlib.nullcontext():
            facts, pieces = advise_on_file(
                self.data, choice=self.choice, split=self.split, noise=self.noise, model=model
            )
        if self.json:
            answer = {"facts": dataclasses.asdict(facts), "advice": [piece.record() for piece in pieces]}
            say(json.dumps(answer, indent=1, ensure_ascii=False))
            return 0
        say("\n\n".join("\n".join(_lines(str(piece))) for piece in pieces))
        return 0


def _lines(text: str) -> list[str]:
    """Return a piece of advice as lines for a terminal, its first line flush and the others under it."""
    first, *others = text.splitlines()
    return [*wrapped(first, 100), *(line for other in others for line in wrapped(other.strip(), 100, "  "))]


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(AdviseCommand, "advise", __doc__, arguments).run()
