"""The log of a training, log.jsonl, and its copies for TensorBoard and Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradlab.doctor.training_log import append_step, keep_steps, read_log, start_log
from gradlab.llm.train.run_settings import LogSettings
from gradlab.store.files import sync

ENDED = ("validation_loss", "validation_accuracy", "reward")  # columns in a finished training's summary, where known


class StageLog:
    """The log.jsonl in a training's folder, and its copies for TensorBoard and Weights & Biases; a context manager.

    done    steps that the log keeps; later steps are made again.
    active  whether this process writes.
    """

    def __init__(self, folder: Path, header: dict[str, Any], done: int, settings: LogSettings, *, active: bool) -> None:
        self.file, self._active = folder / "log.jsonl", active
        self._board = self._run = None
        if not active:
            return
        if self.file.exists() and not done:
            self.file.unlink()
        if self.file.exists():
            keep_steps(self.file, done)
        else:
            start_log(self.file, header)
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        if settings.wandb:
            import wandb  # type: ignore[import-not-found]

            self._run = wandb.init(project="gradlab", name=folder.name, config=header, dir=str(folder))

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append a row of a step; nothing for an empty row."""
        if not self._active or not row:
            return
        append_step(self.file, step, **row)
        if self._board is not None:
            for name, value in row.items():
                self._board.add_scalar(name.replace("validation_", "validation/"), value, step)
        if self._run is not None:
            self._run.log(row, step=step)

    def sync(self) -> None:
        """Wait until the whole log is on the disk."""
        if self._active:
            sync(self.file)

    def ended(self) -> dict[str, float]:
        """Return the columns ``ENDED`` of the last row that is on the disk."""
        if not self._active:
            return {}
        row = {str(name): float(value) for name, value in read_log(self.file).iloc[-1].items()}
        return self.ending({name: value for name, value in row.items() if not math.isnan(value)})

    @staticmethod
    def ending(row: Mapping[str, float]) -> dict[str, float]:
        """Return the columns ``ENDED`` of a row, as far as it has them."""
        return {name: value for name, value in row.items() if name in ENDED}

    def __enter__(self) -> StageLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()
        if self._run is not None:
            self._run.finish()
