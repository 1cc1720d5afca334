"""The most memory that a stage of training has held on its device."""

from __future__ import annotations

import torch


def begin(device: torch.device) -> None:
    """Forget what was held before: from now on the peak is that of the stage that begins."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def reached(device: torch.device) -> int | None:
    """Return the most bytes that tensors have held on a GPU since ``begin``; None for a CPU, which does not count."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
