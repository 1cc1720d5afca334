"""The pairs of a run: read, made into tokens, and split into those to train on and those held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.llm.data.hold_out import Overlap, prompt_key, split
from gradlab.llm.data.pairs import Pair, Report, read_pairs
from gradlab.llm.data.tokens import Encoded, data_fingerprint, encode_pairs

# The settings that decide what the pairs are; a run keeps them, so that evaluation sees the same held-out pairs.
DECIDING = (
    "data", "choice", "split", "template", "template_date", "max_length", "max_prompt", "validation", "held_out",
    "hold_out", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Pairs as text and as tokens, in one order; ``train`` and ``held_out`` are indices into both."""

    pairs: list[Pair]
    encoded: list[Encoded]
    train: np.ndarray
    held_out: np.ndarray
    report: Report
    overlap: Overlap
    """How many of the held-out prompts are trained on too."""
    fingerprint: str
    """A hash of all tokens, and the split."""

    @property
    def seen(self) -> int:
        """Return how many of the held-out pairs are, token for token, among those to train on too."""
        train = set(self.part(self.train))
        return sum(pair in train for pair in self.part(self.held_out))

    @property
    def train_texts(self) -> list[Pair]:
        """Return the pairs to train on, as text."""
        return [self.pairs[index] for index in self.train]

    def part(self, indices: np.ndarray) -> list[Encoded]:
        """Return some of the pairs, as tokens."""
        return [self.encoded[index] for index in indices]


def prepare(settings: Mapping[str, Any], tokenizer: Any) -> Data:
    """Read and split the pairs as these settings (those of ``DECIDING``) and this tokenizer say.

    ``template_dates.fix_date`` gives the tokenizer its date before.

    The pairs of the validation file are held out; or about ``held_out`` pairs drawn by the seed, those of whole prompts
    or single pairs as ``hold_out`` says, see ``hold_out.split``.
    ValueError where no pair is left to train on, or both sources are the same; errors of reading as in ``read_pairs``.
    """
    if settings["validation"] is not None and _same(settings["validation"], settings["data"]):
        raise ValueError(
            f"validation must be other pairs than data, got {settings['validation']} for both; left out, held_out "
            "pairs of data are drawn"
        )
    how = {name: settings[name] for name in ("template", "max_length", "max_prompt")}

    def encoded(source: str, split: str) -> tuple[list[Pair], list[Encoded], Report]:
        pairs, read = read_pairs(source, choice=settings["choice"], split=split)
        tokens, kept, cut = encode_pairs(pairs, tokenizer, **how)
        return [pairs[index] for index in kept], tokens, read.merged(cut)

    pairs, tokens, report = encoded(settings["data"], settings["split"])
    if settings["validation"] is not None:
        more, more_made, more_report = encoded(settings["validation"], settings["split"])
        train, held_out = np.arange(len(tokens)), np.arange(len(tokens), len(tokens) + len(more))
        pairs, tokens, report = pairs + more, tokens + more_made, report + more_report
        keys = [prompt_key(pair.prompt) for pair in pairs]
    else:
        number = settings["held_out"]
        if number >= len(tokens):
            raise ValueError(
                f"data must have more pairs than are held out, got {len(tokens)} from {settings['data']} and held_out "
                f"{number}"
            )
        keys = [prompt_key(pair.prompt) for pair in pairs]
        train, held_out = split(keys, number, settings["seed"], settings["hold_out"])
    overlap = Overlap.of([keys[index] for index in train], [keys[index] for index in held_out])
    whole = data_fingerprint([*(tokens[index] for index in train), *(tokens[index] for index in held_out)])
    return Data(pairs, tokens, train, held_out, report, overlap, f"{whole}-{len(train)}")


def _same(source: str, other: str) -> bool:
    """Say whether two names stand for the same source."""
    paths = Path(source), Path(other)
    return source == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
