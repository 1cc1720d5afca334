"""Batches as pure functions of seed and step: a run that is resumed, or spread over more processes, sees the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.tokens import Encoded
from gradlab.streams import Purpose, stream

Row = tuple[Sequence[int], Sequence[int]]  # token ids of a prompt and of a response


def steps_an_epoch(number: int, batch: int) -> int:
    """Return the number of steps that see ``number`` items once; the last step of an epoch may be smaller."""
    return math.ceil(number / batch)


def batch_at(step: int, number: int, batch: int, seed: int, purpose: Purpose = Purpose.ORDER) -> np.ndarray:
    """Return the indices of the items in step 0, 1, …: each epoch is a permutation that seed and purpose decide."""
    epoch, place = divmod(step, steps_an_epoch(number, batch))
    order = stream(seed, purpose, epoch).permutation(number)
    return order[place * batch : (place + 1) * batch]


def seen_by(steps: int, number: int, batch: int, seed: int) -> np.ndarray:
    """Return the indices of the items that the first steps of ``batch_at`` see, sorted."""
    if steps >= steps_an_epoch(number, batch):
        return np.arange(number)
    return np.sort(stream(seed, Purpose.ORDER, 0).permutation(number)[: steps * batch])


def dealt(lengths: np.ndarray, micro: int, rank: int = 0, ranks: int = 1) -> list[np.ndarray]:
    """Return the places (in the batch) of this process's micro-batches, sorted by length, so that little is padding.

    lengths  (B,) tokens of each item.

    Micro-batches of ``micro`` items, or of fewer where the processes would outnumber them, are dealt to the processes
    in turn, the longest first. All processes get equally many, as FSDP needs; the last ones may be empty.
    """
    micro = min(micro, max(math.ceil(len(lengths) / ranks), 1))
    order = np.argsort(-lengths, kind="stable")
    parts = [order[start : start + micro] for start in range(0, len(order), micro)]
    turns = math.ceil(len(parts) / ranks)
    parts += [order[:0]] * (turns * ranks - len(parts))
    return parts[rank::ranks]


def collate(
    rows: Sequence[Row], pad: int, device: torch.device | str | None = None, *, left: bool = False
) -> dict[str, Tensor]:
    """Return rows as tensors (B, T), T the longest row: ``input_ids``, ``attention_mask``, ``answer_mask`` (responses).

    Padding, of id ``pad``, stands on the right, or on the left as sampling needs it.
    """
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    batch = {
        "input_ids": torch.full((len(rows), longest), pad, dtype=torch.long),
        "attention_mask": torch.zeros(len(rows), longest, dtype=torch.long),
        "answer_mask": torch.zeros(len(rows), longest, dtype=torch.long),
    }
    for index, (prompt, response) in enumerate(rows):
        whole = [*prompt, *response]
        start = longest - len(whole) if left else 0
        stop = start + len(whole)
        batch["input_ids"][index, start:stop] = torch.tensor(whole, dtype=torch.long)
        batch["attention_mask"][index, start:stop] = 1
        batch["answer_mask"][index, stop - len(response) : stop] = 1
    return {name: tensor.to(device) for name, tensor in batch.items()}


def rows_of(pairs: Sequence[Encoded]) -> list[Row]:
    """Return all winners, then all losers."""
    return [*((pair.prompt, pair.win) for pair in pairs), *((pair.prompt, pair.lose) for pair in pairs)]


def side_rows(pairs: Sequence[Encoded]) -> list[Row]:
    """Return each pair's winner and loser, pair by pair."""
    return [(pair.prompt, side) for pair in pairs for side in (pair.win, pair.lose)]


def lengths(pairs: Sequence[Encoded]) -> np.ndarray:
    """Return the tokens of the longer side of each pair, its prompt included, (N,)."""
    return np.array([len(pair.prompt) + max(len(pair.win), len(pair.lose)) for pair in pairs])


def len_of(pairs: Sequence[Encoded], side: str) -> Tensor:
    """Return the tokens of one side's responses, (N,)."""
    return torch.tensor([len(getattr(pair, side)) for pair in pairs])
