"""The pairs of a run: read, made into tokens, and split into those to train on and those held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.llm.data.pairs import Pair, Report, read_pairs
from gradlab.llm.data.tokens import Encoded, data_fingerprint, encode_pairs
from gradlab.streams import Purpose, stream

# The settings that decide what the pairs are; a run keeps them, so that evaluation sees the same held-out pairs.
DECIDING = ("data", "choice", "split", "template", "max_length", "max_prompt", "validation", "held_out", "seed")


@dataclass(frozen=True)
class Data:
    """Pairs as text and as tokens, in one order; ``train`` and ``held_out`` are indices into both."""

    pairs: list[Pair]
    encoded: list[Encoded]
    train: np.ndarray
    held_out: np.ndarray
    report: Report
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

    The pairs of the validation file are held out, or ``held_out`` pairs drawn by the seed.
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
    order = stream(settings["seed"], Purpose.HELD_OUT).permutation(len(tokens))
    if settings["validation"] is not None:
        more, more_made, more_report = encoded(settings["validation"], settings["split"])
        train, held_out = np.arange(len(tokens)), np.arange(len(tokens), len(tokens) + len(more))
        pairs, tokens, report = pairs + more, tokens + more_made, report + more_report
    else:
        held_out, train = np.sort(order[: settings["held_out"]]), np.sort(order[settings["held_out"] :])
    if not len(train):
        raise ValueError(
            f"data must have more pairs than are held out, got {len(tokens)} from {settings['data']} and held_out "
            f"{settings['held_out']}"
        )
    whole = data_fingerprint([*(tokens[index] for index in train), *(tokens[index] for index in held_out)])
    return Data(pairs, tokens, train, held_out, report, f"{whole}-{len(train)}")


def _same(source: str, other: str) -> bool:
    """Say whether two names stand for the same source."""
    paths = Path(source), Path(other)
    return source == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
