"""Random numbers of PyTorch as functions of a seed, so that no checkpoint needs to hold their state."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Let dropout and sampling inside draw by this seed (see ``torch_seed``), and leave the global generators alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
