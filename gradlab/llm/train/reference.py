"""Log-probabilities under the frozen reference: computed once, by the model before it is trained, and kept."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.console import printable, say
from gradlab.llm.data.batches import Layout, Row, collate, dealt, lengths, pair_rows, token_by_token
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.store.files import write_whole
from gradlab.store.sealed import Damaged

BLOCK = 64  # pairs per process that are scored between two chances to save
SAVE_EVERY = 20.0  # seconds


@torch.no_grad()
def score(
    forward: Callable[..., Tensor], rows: Sequence[Row], group: Group, *, pad: int, micro: int = 8,
    budget: int | None = None, layout: Layout | None = None, title: str = "", width: int | None = None,
) -> Tensor:  # fmt: skip
    """Return log π of each response under a model with ``with_logps``, in nats, in every process.

    The rows have equally many responses each; the result is flat, (N · responses,), those of a row together. With
    ``width`` it is log π of each token, (N · responses, width), see ``batches.token_by_token``.

    forward  the model, or a wrapper of it; called with the tensors of ``collate``, or as its ``batch`` makes them of
             rows, where it has that (a ``PolicyModel``).
    micro, budget  rows, or tokens, of a micro-batch, as for ``dealt``.
    layout   the model's own; left out: one that suits every model.
    title    the progress bar's; there is no bar without it.
    """
    layout = (layout or Layout()).of(rows)
    parts = dealt(layout.tokens(rows), micro, group.rank, group.size, budget=budget)
    tokens = [] if width is None else [width]
    scores = torch.zeros(len(rows), len(rows[0]) - 1 if rows else 0, *tokens, dtype=torch.float64)
    whole = functools.partial(collate, pad=pad, device=group.device, layout=layout)
    batch_of = getattr(forward, "batch", None) or whole
    for part in tqdm(parts, desc=printable(title), unit="batch", disable=not (title and group.is_main), leave=False):
        chosen = [rows[index] for index in part] or rows[:1]  # FSDP needs every process in every forward
        batch = batch_of(chosen)
        logps = forward(**batch) if width is None else token_by_token(forward, batch, width)
        scores[part] = logps.double().cpu().view(len(chosen), -1, *tokens)[: len(part)]
    return group.total(scores.flatten(0, 1))


def reference_logps(
    file: Path,
    key: str,
    forward: Callable[..., Tensor],
    pairs: Sequence[Encoded],
    group: Group,
    *,
    used: np.ndarray | None = None,
    title: str = "",
    **how: Any,
) -> Tensor:
    """Return log π_ref of both responses of each pair, (N, 2) in nats: read from ``file``, else scored and kept there.

    key    names all that they depend on: model, data, kind of mean. ValueError where the file has another key; a
           damaged file is made again, with a notice.
    used   the places of the pairs that are needed, sorted; None: all. The others are NaN, unless the file has them.
    title  the progress bar's, which counts tokens and says how much time is left; there is no bar without it.
    how    options of ``score``.

    The pairs are scored in blocks, the longest first, and the file is written every ``SAVE_EVERY`` seconds: a run that
    was stopped goes on with the block that it was at, on any number of processes. On as many processes as before it
    gives the same bits as one that was not stopped. FloatingPointError where a score is not finite; those are not kept.
    """
    kept = group.on_main(lambda: _read(file, key, len(pairs)))
    if kept is None:
        kept = torch.full((len(pairs), 2), torch.nan, dtype=torch.float64)
    used = np.arange(len(pairs)) if used is None else used
    missing = used[kept[used].isnan().any(1).numpy()]
    if not len(missing):
        return kept
    tokens = lengths(pairs)
    if title and group.is_main and (len(missing) < len(used) or len(used) < len(pairs)):
        there = f", of which {len(used) - len(missing):,} are kept in {file}" if len(missing) < len(used) else ""
        say(f"{title}: {len(used):,} of {len(pairs):,} are needed{there}")
    saver = _Saver(file, key, group)
    with tqdm(
        total=int(tokens[used].sum()), initial=int(tokens[used].sum() - tokens[missing].sum()), desc=printable(title),
        unit="token", unit_scale=True, disable=not (title and group.is_main), leave=False,
    ) as bar:  # fmt: skip
        for block in _blocks(missing, tokens, group.size):
            kept[block] = score(forward, pair_rows([pairs[index] for index in block]), group, **how).view(-1, 2)
            check_finite(kept[block], title or "reference", "the precision")
            bar.update(int(tokens[block].sum()))
            saver.save(kept)
    saver.save(kept, last=True)
    return kept


def _blocks(places: np.ndarray, tokens: np.ndarray, processes: int) -> Iterator[np.ndarray]:
    """Yield the places in blocks, those of the longest pairs first, each block in its order.

    tokens  (N,) of all pairs.
    """
    by_length = places[np.argsort(-tokens[places], kind="stable")]
    size = BLOCK * processes
    for start in range(0, len(places), size):
        yield np.sort(by_length[start : start + size])


def check_finite(logps: Tensor, of: str, precision: str) -> None:
    """Raise FloatingPointError where a pair's log π, (N, 2), is not finite; ``of`` says whose they are."""
    strange = int((~logps.isfinite()).any(1).sum())
    if strange:
        raise FloatingPointError(
            f"{of}: log π is not finite for {strange} of {len(logps)} pairs: the model's weights are broken, or too "
            f"large for {precision}"
        )


@dataclass
class _Saver:
    """A keeper of scores, which writes their file when ``SAVE_EVERY`` seconds have passed by the main process's clock.

    saved  the time of the last writing.
    """

    file: Path
    key: str
    group: Group
    saved: float = field(default_factory=time.monotonic)

    def save(self, logps: Tensor, *, last: bool = False) -> None:
        """Write the scores, (N, 2), where it is time or they are the last ones."""

        def write() -> None:
            if last or time.monotonic() - self.saved >= SAVE_EVERY:
                write_whole({self.file: lambda name: write_tensors(name, {"logps": logps}, key=self.key)})
                self.saved = time.monotonic()

        self.group.on_main(write)


def _read(file: Path, key: str, number: int) -> Tensor | None:
    try:
        tensors, about = read_tensors(file)
    except FileNotFoundError:
        return None
    except Damaged as error:
        say(f"gradlab: {error}, and is made again", file=sys.stderr)
        return None
    if about.get("key") != key or tensors["logps"].shape != (number, 2):
        raise ValueError(f"{file} is the cache of another model or of other data; remove it, and it is made again")
    return tensors["logps"]
