"""Say before any training how imbalanced a run will be: log π, λ and lengths of its pairs under its first model.

Nothing is trained. It prints a report on the data, log π_l/π_w, λ and losses' gradient ratios at the start, how
far length alone predicts the preferences, and what that means for a run. With several data sets, such as helpful and
harmless pairs, it also says which of them Balanced-DPO is predicted to serve.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gradlab.cli.options import OPTIONAL, check_save, need, parsed, quiet_transformers, save
from gradlab.console import say
from gradlab.given_once import each_once
from gradlab.llm.data.pair_forms import CHOICES

_DATE = tyro.conf.arg(metavar="YYYY-MM-DD", help_behavior_hint="(left out: today)")
_CHOICE = tyro.conf.arg(metavar="{" + ",".join(CHOICES) + "}", help_behavior_hint="")


@dataclasses.dataclass(frozen=True)
class InspectCommand:
    """The options of ``gradlab inspect``."""

    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """The model that training starts from: a folder with weights in safetensors or a LoRA adapter, a GGUF file (its
    weights are made whole, once), or a hub's name."""
    data: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="PAIRS …")]
    """Preference pairs: a .jsonl, .jsonl.gz or .parquet file, or a hub's name; several are put side by side."""
    choice: Annotated[str | None, _CHOICE] = None
    """Which preference of PKU-SafeRLHF counts; needed there, and there only."""
    split: str = "train"
    """Split of a data set from a hub."""
    template: Literal["plain", "chat", "beaver"] = "plain"
    """How prompt and response become one text: as they are, by the tokenizer's chat template, or safe-rlhf's."""
    template_date: Annotated[str | None, _DATE] = None
    """The date that a chat template writes as today's."""
    max_length: int = 512
    """Tokens of prompt and response together; what is longer is cut, and counted. A chat loses whole turns, oldest
    first."""
    max_prompt: Annotated[int | None, OPTIONAL] = None
    """Tokens that a prompt keeps where the whole is too long; left out: half of max_length."""
    pairs: int = 500
    """How many pairs are scored, drawn from all that can be used; 0: all."""
    seed: int = 0
    """Seed that draws the pairs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bfloat16 on a GPU, float32 on a CPU."""
    batch: int = 8
    """Pairs scored at a time; the numbers depend on it by rounding only."""
    clip: float = 0.3
    """Clip of the naive variants; 0.3 is the paper's for language models."""
    gradients: int = 0
    """Also take the gradients of log π in the model's parameters for this many pairs, two backward passes each, and
    say which losses would push winners down (the disentanglement band)."""
    losses: Annotated[tuple[str, ...], tyro.conf.arg(metavar="[LOSS …]", help_behavior_hint="")] = ()
    """Losses beside the paper's whose gradient ratios are printed: names of `gradlab losses`, also with numbers, as in
    simpo:beta=2, or FILE.py:CLASS; `all`: every registered one."""
    save: Annotated[Path | None, OPTIONAL] = None
    """Also write one row per pair to this file (Parquet; its name ends in .parquet), with a manifest beside it; of
    several data sets, with a column `data`."""
    overwrite: bool = False
    """Let --save replace a file that holds another result."""

    def run(self) -> int:
        """Score, print, save."""
        check_save(self.save)
        each_once("PAIRS", "one data set or several", self.data)
        need("llm", "transformers")
        from gradlab.llm.data.pairs import PairStream
        from gradlab.llm.look.inspection import inspect_data
        from gradlab.llm.look.served_goal import joined, side_by_side

        given = {name: value for name, value in vars(self).items() if name not in ("data", "save", "overwrite")}
        title = "log π" if sys.stderr.isatty() else ""
        if len(self.data) > 1:  # a fault of any is told before the first is scored
            for data in self.data:
                collections.deque(PairStream(data, choice=self.choice, split=self.split), maxlen=0)
        seen = {}
        for data in self.data:
            with quiet_transformers():
                seen[data] = inspect_data(**given, data=data, title=title)
            say(f"\n{seen[data]}" if len(seen) > 1 else seen[data])
        if len(seen) > 1:
            say(f"\n{side_by_side({data: one.frame for data, one in seen.items()})}")
        if self.save is not None:
            settings = [one.settings for one in seen.values()]
            several = {"data_sets": settings} if len(seen) > 1 else settings[0]
            frame = joined({data: one.frame for data, one in seen.items()})
            save(frame, self.save, {"command": "gradlab inspect", **several}, overwrite=self.overwrite)
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(InspectCommand, "inspect", __doc__, arguments).run()
