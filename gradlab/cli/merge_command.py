"""Merge LoRA adapters into their base: a whole model for servers, such as vLLM, and for other trainers.

The base is the one that the adapters name. The updates of several adapters on one base are added. What was written is
compared with base and adapters: by how much log π of a token moved is printed.
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

_FOLDERS = tyro.conf.arg(metavar="ADAPTER [ADAPTER ...]", help_behavior_hint="(required)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeCommand:
    """The options of ``gradlab merge``."""

    adapters: Annotated[tyro.conf.Positional[tuple[Path, ...]], _FOLDERS]
    """Folders of LoRA adapters, such as OUT/bdpo/model of a run."""
    out: Path
    """The folder of the merged model, which must not exist yet."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """The type of its weights; auto: the base's."""

    def run(self) -> int:
        """Merge, compare, print."""
        need("llm", "transformers", "peft", "safetensors")
        from gradlab.llm.model.merging import merge

        with quiet_transformers():
            say(merge(self.adapters, self.out, dtype=self.dtype))
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    command = parsed(MergeCommand, "merge", __doc__, arguments)
    return guarded(command.run, smaller="more memory: base and merged model are held, the base in float32")
