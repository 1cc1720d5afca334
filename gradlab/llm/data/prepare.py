"""The pairs of a run: read, made into tokens, and split into those to train on and those held out."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.llm.data.hold_out import Overlap, split
from gradlab.llm.data.pairs import Pair, Report
from gradlab.llm.data.source_tokens import Cache, Encoding, Source, SourceTokens, keep, tokens_of
from gradlab.llm.data.token_pairs import TokenPairs, data_fingerprint, joined

# The settings that decide what the pairs are; a run keeps them, so that evaluation sees the same held-out pairs.
DECIDING = (
    "data", "choice", "split", "template", "template_date", "max_length", "max_prompt", "validation", "held_out",
    "hold_out", "seed", "limit",
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """The pairs of a run as tokens, those of all its sources in one order; ``train`` and ``held_out`` are indices."""

    sources: tuple[SourceTokens, ...]
    encoded: TokenPairs
    train: np.ndarray
    held_out: np.ndarray
    report: Report
    overlap: Overlap
    """How many of the held-out prompts are trained on too."""
    fingerprint: str
    """A hash of all tokens, and the split."""

    @functools.cached_property
    def pairs(self) -> list[Pair]:
        """Return the pairs as text; the sources are read again for them."""
        return [pair for source in self.sources for pair in source.texts()]

    @property
    def places(self) -> list[str]:
        """Return where each pair was read."""
        return [place for source in self.sources for place in source.places()]

    @property
    def keys(self) -> list[str]:
        """Return the ``prompt_key`` of each pair."""
        return [key for source in self.sources for key in source.keys]

    @property
    def seen(self) -> int:
        """Return how many of the held-out pairs are, token for token, among those to train on too."""
        held_out = list(self.part(self.held_out).marks())
        sought = set(held_out)
        train = sought.intersection(self.part(self.train).marks())
        return sum(mark in train for mark in held_out)

    @property
    def train_texts(self) -> Sequence[Pair]:
        """Return the pairs to train on, as text; the sources are read only where one is asked for."""
        return _Texts(self, self.train)

    def part(self, indices: np.ndarray) -> TokenPairs:
        """Return some of the pairs, as tokens."""
        return self.encoded[indices]

    def keep(self, cache: Cache) -> None:
        """Write the tokens into a cache, from which ``prepare`` reads them."""
        for source in self.sources:
            keep(source, cache)


@dataclass(frozen=True)
class _Texts(Sequence[Pair]):
    """Some of the pairs of a run as text, read when the first is asked for."""

    data: Data
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return _Texts(self.data, self.indices[place])
        return self.data.pairs[self.indices[place]]


def prepare(settings: Mapping[str, Any], tokenizer: Any, cache: Cache | None = None) -> Data:
    """Read and split the pairs as these settings (those of ``DECIDING``) and this tokenizer say.

    ``template_dates.fix_date`` gives the tokenizer its date before.

    The pairs of the validation file are held out; or about ``held_out`` pairs drawn by the seed, those of whole prompts
    or single pairs as ``hold_out`` says, see ``hold_out.split``.
    cache  where ``Data.keep`` may have written the tokens before.
    ValueError where no pair is left to train on, or both sources are the same; errors of reading as in ``read_pairs``.
    """
    data, validation = settings["data"], settings["validation"]
    if validation is not None and _same(validation, data):
        raise ValueError(
            f"validation must be other pairs than data, got {validation} for both; left out, held_out pairs of data "
            "are drawn"
        )
    encoding = Encoding(settings["template"], settings["max_length"], settings["max_prompt"])
    choice, parts = settings["choice"], settings["split"]
    first = tokens_of(Source(data, choice, parts, settings.get("limit")), tokenizer, encoding, cache)
    number = settings["held_out"]
    if validation is not None:
        more = tokens_of(Source(validation, choice, parts), tokenizer, encoding, cache)
        sources: tuple[SourceTokens, ...] = (first, more)
        train = np.arange(len(first.encoded))
        held_out = len(train) + np.arange(len(more.encoded))
    elif number >= len(first.encoded):
        raise ValueError(
            f"data must have more pairs than are held out, got {len(first.encoded)} from {data} and held_out {number}"
        )
    else:
        sources = (first,)
        train, held_out = split(first.keys, number, settings["seed"], settings["hold_out"])
    encoded = joined(*(source.encoded for source in sources))
    keys = [key for source in sources for key in source.keys]
    overlap = Overlap.of([keys[index] for index in train], [keys[index] for index in held_out])
    whole = data_fingerprint(encoded[np.concatenate([train, held_out])])
    report = functools.reduce(operator.add, (source.report for source in sources))
    return Data(sources, encoded, train, held_out, report, overlap, f"{whole}-{len(train)}")


def _same(source: str, other: str) -> bool:
    """Say whether two names stand for the same source."""
    paths = Path(source), Path(other)
    return source == other or (all(path.exists() for path in paths) and paths[0].samefile(paths[1]))
