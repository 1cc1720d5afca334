"""Batches as pure functions of seed and step: a run that is resumed, or spread over more processes, sees the same.

A row is a prompt and one or more responses to it, (prompt, winner, loser) for a pair: ``pair_rows``. Log π comes
response by response in this order, whatever the layout of the tensors: ``forward(**collate(rows, …)).view(-1, 2)`` for
pairs. ``Layout`` says how rows become tensors for a model; the check at load finds it (``heads.way_of``).

- *Once*: one row of a tensor holds prompt, winner, loser, padding. The loser's positions go on from the prompt's end,
  and a mask of blocks hides the winner from the loser: a token sees the prompt's and its own block's tokens before it.
  ``segments`` (B, T) names the blocks: 0 the prompt, 1 the first response, …, one more than the last for padding.
- *Apart*: one row of a tensor holds a prompt and one response, so that a pair takes two, the winner first.

In both, padding is on the right. Where nothing of a batch is shared, no mask and no positions are needed, and none are
given where the model's check allows that. ``collate`` has the keys and shapes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.token_pairs import Encoded, TokenPairs
from gradlab.streams import Purpose, stream

Row = tuple[Sequence[int], ...]  # token ids of a prompt, and of one or more responses


class Partly(tuple[int, ...]):
    """The tokens of a response of which only some are asked for: the others are read, and their log π is not taken.

    asked  (N,) bool, one or more of them true.
    """

    asked: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[int], asked: np.ndarray) -> Partly:
        """Return a response of these tokens."""
        made = cls(tokens)
        made.asked = asked
        return made


def asked_of(response: Sequence[int]) -> np.ndarray:
    """Return the places of the tokens of a response that are asked for."""
    return np.flatnonzero(response.asked) if isinstance(response, Partly) else np.arange(len(response))


@dataclass(frozen=True)
class Layout:
    """The way from rows to tensors.

    once    responses to one prompt share a row of the tensor with it; else each has a row with the prompt of its own.
    masked  an attention mask tells padding, where responses are apart.
    window  most tokens of a prompt and one response that may share a row, where attention reaches no further than that.
    """

    once: bool = False
    masked: bool = True
    window: int | None = None

    def of(self, rows: Sequence[Row]) -> Layout:
        """Return the layout for these rows: apart where they share nothing, or one is longer than the window."""
        shared = any(len(row) > 2 for row in rows)
        long = self.window is not None and any(_longest(row) > self.window for row in rows)
        return replace(self, once=self.once and shared and not long)

    def tokens(self, rows: Sequence[Row]) -> np.ndarray:
        """Return how many tokens of a tensor each row takes, where it is the longest of its micro-batch; (N,)."""
        once = self.of(rows).once
        return np.array([sum(map(len, row)) if once else (len(row) - 1) * _longest(row) for row in rows], int)

    def real_tokens(self, rows: Sequence[Row]) -> int:
        """Return how many tokens a model reads for these rows, padding left out."""
        once = self.of(rows).once
        return sum(sum(map(len, row)) + (0 if once else (len(row) - 2) * len(row[0])) for row in rows)


def steps_per_epoch(number: int, batch: int) -> int:
    """Return the number of steps that see ``number`` items once; the last step of an epoch may be smaller."""
    return math.ceil(number / batch)


def batch_at(step: int, number: int, batch: int, seed: int, purpose: Purpose = Purpose.ORDER) -> np.ndarray:
    """Return the indices of the items in step 0, 1, …: each epoch is a permutation that seed and purpose decide."""
    epoch, place = divmod(step, steps_per_epoch(number, batch))
    order = stream(seed, purpose, epoch).permutation(number)
    return order[place * batch : (place + 1) * batch]


def seen_by(steps: int, number: int, batch: int, seed: int) -> np.ndarray:
    """Return the indices of the items that the first steps of ``batch_at`` see, sorted."""
    if steps >= steps_per_epoch(number, batch):
        return np.arange(number)
    return np.sort(stream(seed, Purpose.ORDER, 0).permutation(number)[: steps * batch])


def dealt(
    lengths: np.ndarray, micro: int, rank: int = 0, ranks: int = 1, *, budget: int | None = None
) -> list[np.ndarray]:
    """Return the places (in the batch) of this process's micro-batches, sorted by length, so that little is padding.

    lengths  (B,) tokens of each item.
    budget   most tokens of a micro-batch, its padding included, in place of ``micro`` items.

    Micro-batches of ``micro`` items, or of fewer where the processes would outnumber them, are dealt to the processes
    in turn, the longest first. All processes get equally many, as FSDP needs; the last ones may be empty. ValueError
    where the longest item is above the budget.
    """
    if budget is not None and len(lengths) and lengths.max() > budget:
        raise ValueError(
            f"tokens_per_micro must be at least {lengths.max()}, the tokens of the longest pair or response with its "
            f"prompt, got {budget}"
        )
    most = max(math.ceil(len(lengths) / ranks), 1)
    micro = most if budget is not None else min(micro, most)
    order = np.argsort(-lengths, kind="stable")
    parts, start = [], 0
    while start < len(order):
        fit = micro if budget is None else budget // max(int(lengths[order[start]]), 1)
        parts.append(order[start : start + min(fit, micro)])
        start += len(parts[-1])
    turns = math.ceil(len(parts) / ranks)
    parts += [order[:0]] * (turns * ranks - len(parts))
    return parts[rank::ranks]


def collate(
    rows: Sequence[Row], pad: int, device: torch.device | str | None = None, *, layout: Layout | None = None
) -> dict[str, Tensor]:
    """Return rows as tensors for a model with ``with_logps``, padded on the right with the id ``pad``.

    layout  by default one that suits every model: responses apart, with a mask.

    Keys, all of whole numbers; N tokens of R responses are asked for, in the rows' order:

    - ``input_ids`` (B, T);
    - ``places`` (N,), where in the flattened (B·T) each token is predicted: the place before it, or the prompt's end;
    - ``targets`` (N,), the tokens; ``responses`` (N,), the response of each, from 0; ``lengths`` (R,), their tokens
      that are asked for, all but in a ``Partly``;
    - ``attention_mask`` (B, T), 0 at padding: where responses are apart and the layout is masked;
    - ``segments`` and ``position_ids`` (B, T): where responses share a row, see above.

    ValueError for a prompt without tokens.
    """
    layout = (layout or Layout()).of(rows)
    if not all(len(row[0]) for row in rows):
        raise ValueError("rows must each have a prompt of one or more tokens, got one without")
    rows = rows if layout.once else apart(rows)
    ids, real = _filled(rows, pad)
    made = {"input_ids": ids}
    if layout.once:
        made["segments"], made["position_ids"] = _blocks(rows, ids.shape[1])
    elif layout.masked:
        made["attention_mask"] = real.astype(np.int64)
    made |= _asked(rows, ids.shape[1])
    return {name: moved(torch.from_numpy(array), device) for name, array in made.items()}


def moved(tensor: Tensor, device: torch.device | str | None) -> Tensor:
    """Return a tensor of the CPU on a device; a GPU copies it while the host goes on."""
    if device is not None and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def token_by_token(forward: Callable[..., Tensor], batch: dict[str, Tensor], width: int) -> Tensor:
    """Return log π of each token of each response of a collated batch, (R, width), 0 after a response's end.

    forward  a model with ``with_logps``, to which each token counts as a response of its own.
    width    tokens of the longest response, or more.
    """
    responses, lengths = batch["responses"], batch["lengths"]
    every = torch.arange(len(responses), device=responses.device)
    logps = forward(**{**batch, "responses": every, "lengths": torch.ones_like(every)})
    place = every - (lengths.cumsum(0) - lengths)[responses]
    return logps.new_zeros(len(lengths) * width).index_add(0, responses * width + place, logps).view(-1, width)


def padded(
    texts: Sequence[Sequence[int]], pad: int, device: torch.device | str | None = None, *, left: bool = False
) -> dict[str, Tensor]:
    """Return texts as ``input_ids`` and ``attention_mask`` (B, T), T the longest, padded on the right or the left."""
    ids, real = _filled([(text,) for text in texts], pad, left=left)
    arrays = {"input_ids": ids, "attention_mask": real.astype(np.int64)}
    return {name: moved(torch.from_numpy(array), device) for name, array in arrays.items()}


def apart(rows: Sequence[Row]) -> list[Row]:
    """Return a row for each response, with its prompt."""
    return [(prompt, response) for prompt, *responses in rows for response in responses]


def pair_rows(pairs: Sequence[Encoded]) -> list[Row]:
    """Return each pair as a row: prompt, winner, loser."""
    return [(pair.prompt, pair.win, pair.lose) for pair in pairs]


def lengths(pairs: Sequence[Encoded]) -> np.ndarray:
    """Return the tokens of the longer side of each pair, its prompt included, (N,)."""
    return pairs.lengths if isinstance(pairs, TokenPairs) else np.array(list(map(_longest, pair_rows(pairs))), int)


def len_of(pairs: Sequence[Encoded], side: str) -> Tensor:
    """Return the tokens of one side's responses, (N,)."""
    return torch.tensor([len(getattr(pair, side)) for pair in pairs])


def _longest(row: Row) -> int:
    """Return the tokens of a prompt and its longest response."""
    return len(row[0]) + max(map(len, row[1:]), default=0)


def _filled(rows: Sequence[Row], pad: int, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows' tokens and which of them are no padding, (B, T)."""
    sizes = np.array([sum(map(len, row)) for row in rows])
    place = np.arange(sizes.max())
    real = place >= sizes.max() - sizes[:, None] if left else place < sizes[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = list(itertools.chain.from_iterable(itertools.chain.from_iterable(rows)))
    return ids, real


def _blocks(rows: Sequence[Row], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of each place, and its position, which is 0 at padding; (B, T)."""
    segments, positions = np.empty((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for row, block, position in zip(rows, segments, positions, strict=True):
        sizes = [len(part) for part in row]
        total = sum(sizes)
        block[:total], block[total:] = np.repeat(np.arange(len(row)), sizes), len(row)
        starts = [0, *(sizes[0] for _ in sizes[1:])]
        position[:total] = np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])
    return segments, positions


def _asked(rows: Sequence[Row], width: int) -> dict[str, np.ndarray]:
    """Return the places, targets, responses and lengths of ``collate``."""
    places, targets, lengths = [], [], []
    for index, (prompt, *responses) in enumerate(rows):
        start = len(prompt)
        for response in responses:
            before = np.arange(start - 1, start - 1 + len(response))
            before[:1] = len(prompt) - 1
            asked = asked_of(response)
            places.append(index * width + before[asked])
            targets.extend(response if len(asked) == len(response) else (response[place] for place in asked))
            lengths.append(len(asked))
            start += len(response)
    return {
        "places": np.concatenate(places), "targets": np.array(targets, np.int64),
        "responses": np.repeat(np.arange(len(lengths)), lengths), "lengths": np.array(lengths, np.int64),
    }  # fmt: skip
