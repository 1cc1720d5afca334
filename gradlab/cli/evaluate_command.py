"""Evaluate runs of `gradlab train` against their references, and print the table of an ablation.

Each folder gets evaluation/: a frame, samples for blind rating, and a page of samples.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gradlab.cli.guard import guarded
from gradlab.cli.options import need, parsed, quiet_transformers
from gradlab.console import say

_DPO = "(left out: dpo, where every folder has it)"
_ALL = tyro.conf.arg(help_behavior_hint="(left out: all)")
_FOLDERS = tyro.conf.arg(metavar="OUT [OUT ...]", help_behavior_hint="(required)")
_LENGTH = "(left out: 128, or half of the training's --max-length where that is less)"
_NONE = tyro.conf.arg(metavar="SPEC", help_behavior_hint="(left out: none)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """The options of ``gradlab evaluate``."""

    out: Annotated[tyro.conf.Positional[tuple[Path, ...]], _FOLDERS]
    """One or more folders of runs, such as one per seed; methods are compared within each."""
    names: Annotated[tuple[str, ...], _ALL] = ()
    """Models of a run, as dpo or bdpo."""
    reward: Annotated[str | None, _NONE] = None
    """The reward by which responses are compared: a sequence classifier or a safe-rlhf score model, as folder or hub
    name (SPEC#LABEL names one of several outputs), MODULE:FUNCTION or FILE.py:FUNCTION. A function takes a list of
    prompts and a list of as many responses, all of them texts, and returns one number per response. {out} stands for
    the run's folder."""
    cost: Annotated[str | None, _NONE] = None
    """A cost, named as a reward is; a response is safe where its cost is below 0."""
    reward_template: Literal["run", "chat"] = "run"
    """The text that a classifier reads: `run`, what the model's template writes; `chat`, the messages in the
    classifier's chat template."""
    prompts: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: all)")] = None
    """How many of the held-out prompts are answered."""
    samples: int = 4
    """Responses per prompt."""
    length: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=_LENGTH)] = None
    """The most tokens in a response."""
    temperature: float = 1.0
    """Temperature of sampling. At temperatures other than 1 the samples are not the policy's own, and the column kl
    does not estimate the KL divergence."""
    seed: int = 0
    """Seed of sampling."""
    batch: int = 16
    """Responses that are sampled at a time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the models compute; auto: a GPU where there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the models; auto: fp32 on a CPU, that of the training on a GPU."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="(left out: where they were)")] = None
    """Where the pairs are, if they were moved."""
    baseline: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint=_DPO)] = None
    """The method that others are paired with where there are several folders: by win-rate, without a reward by accuracy
    and margin."""
    shown: int = 40
    """Prompts on the page of samples."""
    warn: bool = False
    """Say on the page of samples that texts may offend; the page says so for HH-RLHF and SafeRLHF in any case."""

    def run(self) -> int:
        """Evaluate, print."""
        need("llm", "transformers", "safetensors", "tokenizers")
        from gradlab.llm.judge.evaluate import FOLDER, evaluate_runs
        from gradlab.llm.judge.evaluation_table import BASELINE, table

        given = dataclasses.asdict(self)
        outs, names, baseline = (given.pop(name) for name in ("out", "names", "baseline"))
        given["reward_template"] = None if self.reward_template == "run" else self.reward_template
        with quiet_transformers():
            frame = evaluate_runs(outs, names, baseline=baseline, **given)
        say(table(frame, baseline or BASELINE))
        for out in outs:
            say(f"{out / FOLDER}: evaluation.parquet, samples.jsonl for blind rating, samples.html")
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    command = parsed(EvaluateCommand, "evaluate", __doc__, arguments)
    return guarded(command.run, smaller="a smaller --batch or --length, or --precision bf16")
