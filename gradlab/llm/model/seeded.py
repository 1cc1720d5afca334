"""Random numbers of PyTorch as functions of a seed and a step, so that no checkpoint needs to hold their state."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch


@contextlib.contextmanager
def drawing(seed: Sequence[int], device: torch.device) -> Iterator[None]:
    """Let dropout and sampling inside draw by this seed, and leave the global generators as they were."""
    words = hashlib.sha256(repr(tuple(map(int, seed))).encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(words[:8], "little") >> 1)
        yield
