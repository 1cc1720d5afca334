"""Help for a process that runs one training of many: a single thread, its words in a file, small frames."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread inside: other runs use the other cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def quietly(file: Path) -> Iterator[None]:
    """Write to a file what is printed inside, as several runs print at a time."""
    with open(file, "a", encoding="utf-8") as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield


def in_single(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with numbers in single precision, which is more than they are worth, to be kept in git."""
    wide = frame.select_dtypes("float64").columns
    return frame.astype(dict.fromkeys(wide, "float32"))
