"""Log-probabilities under the frozen reference: computed once, by the model itself before it is trained, and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.console import printable, say
from gradlab.llm.data.batches import Row, collate, dealt, side_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.store.files import write_whole
from gradlab.store.sealed import Damaged


@torch.no_grad()
def score(
    forward: Callable[..., Tensor], rows: Sequence[Row], group: Group, *, pad: int, micro: int = 8, title: str = ""
) -> Tensor:
    """Return log π of each row's response under a model with ``with_logps``, (N,) in nats, in every process.

    forward  the model, or a wrapper of it; called with tensors and ``answer_mask``.
    title    the progress bar's; there is no bar without it.
    """
    lengths = np.array([len(prompt) + len(response) for prompt, response in rows])
    scores = torch.zeros(len(rows), dtype=torch.float64)
    parts = dealt(lengths, micro, group.rank, group.size)
    for part in tqdm(parts, desc=printable(title), unit="batch", disable=not (title and group.is_main), leave=False):
        chosen = part if len(part) else np.zeros(1, int)  # FSDP needs every process in every forward
        logps = forward(**collate([rows[index] for index in chosen], pad, group.device)).double().cpu()
        scores[part] = logps[: len(part)]
    return group.total(scores)


def reference_logps(
    file: Path, key: str, forward: Callable[..., Tensor], pairs: Sequence[Encoded], group: Group, **how: Any
) -> Tensor:
    """Return log π_ref of both responses of each pair, (N, 2) in nats: read from ``file``, else scored and kept there.

    key  names all that they depend on: model, data, kind of mean. ValueError where the file has another key; a damaged
         file is made again, with a notice.
    how  options of ``score``.
    """
    kept = group.on_main(lambda: _read(file, key, len(pairs)))
    if kept is None:
        kept = score(forward, side_rows(pairs), group, **how).view(-1, 2)
        group.on_main(lambda: write_whole({file: lambda name: write_tensors(name, {"logps": kept}, key=key)}))
    return kept


def _read(file: Path, key: str, number: int) -> Tensor | None:
    if not file.exists():
        return None
    try:
        tensors, about = read_tensors(file)
    except Damaged as error:
        say(f"gradlab: {error}, and is made again", file=sys.stderr)
        return None
    if about.get("key") != key or tensors["logps"].shape != (number, 2):
        raise ValueError(f"{file} is the cache of another model or of other data; remove it, and it is made again")
    return tensors["logps"]
