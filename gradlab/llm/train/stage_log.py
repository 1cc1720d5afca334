"""The log of a training, log.jsonl, and its copies for TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gradlab.console import one_line, say
from gradlab.doctor.training_log import LOG, SAMPLES, append_samples, append_step, keep_steps, read_log, start_log
from gradlab.llm.train.section_settings import LogSettings
from gradlab.store.files import sync, write_all

ENDED = ("validation_loss", "validation_accuracy", "reward")  # columns in a finished training's summary, where known


class StageLog:
    """The log.jsonl in a training's folder, and its copies for TensorBoard and Weights & Biases; a context manager.

    Samples of the training are in samples.jsonl beside it, which a line on the terminal names, and in the copies.
    Samples or a copy that cannot be written, as on a full disk, are given up with a notice; log.jsonl then still has
    all numbers.

    done    steps that the log keeps; later steps are made again.
    active  whether this process writes.
    """

    def __init__(self, folder: Path, header: dict[str, Any], done: int, settings: LogSettings, *, active: bool) -> None:
        self.file, self._active = folder / LOG, active
        self._copies: dict[str, _Copy] = {}
        self._samples: Path | None = folder / SAMPLES
        self._named = False  # whether the terminal has named that file
        self._without_samples: set[str] = set()  # copies that took no samples, and still get the numbers
        if not active:
            return
        if not done:
            self.file.unlink(missing_ok=True)
            self._about_samples(lambda file: file.unlink(missing_ok=True))
        elif self._samples.exists():
            self._about_samples(lambda file: keep_steps(file, done))
        self._rows = 0
        if self.file.exists():
            self._keep(done)
        else:
            start_log(self.file, header)
        if self._rows < done:
            say(f"gradlab: {self.file} lacks {done - self._rows} of the {done} steps that are done", file=sys.stderr)
        if settings.tensorboard:
            self._try("TensorBoard's log", lambda: _TensorBoard(folder / "tensorboard", done))
        if settings.wandb:
            self._try("the log at Weights & Biases", lambda: _WeightsAndBiases(folder, header))

    def write(self, step: int, row: dict[str, float]) -> None:
        """Append a row of a step; nothing for an empty row."""
        if not self._active or not row:
            return
        append_step(self.file, step, **row)
        for name, copy in list(self._copies.items()):
            self._try(name, lambda of=copy: of.write(step, row))

    def show(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Append samples of a step to samples.jsonl, an object per prompt; nothing where there are none."""
        if not self._active or not samples:
            return
        self._about_samples(lambda file: append_samples(file, step, samples))
        if self._samples is not None and not self._named:
            self._named = True
            say(f"gradlab: {self._samples} has responses of the policy on its way", file=sys.stderr)
        for name, copy in list(self._copies.items()):
            if name not in self._without_samples:
                self._show_in(name, copy, step, samples)

    def sync(self) -> None:
        """Wait until the whole log is on the disk."""
        if self._active:
            sync(self.file)

    def ended(self) -> dict[str, float]:
        """Return the columns ``ENDED`` of the last row that is on the disk; {} where it has none."""
        if not self._active or not self._rows:
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
        for name, copy in list(self._copies.items()):
            self._try(name, copy.close)

    def _keep(self, done: int) -> None:
        """Drop the rows after the steps that are done, and count the others; ValueError where the file is damaged."""
        try:
            keep_steps(self.file, done)
            self._rows = len(read_log(self.file))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.file} is damaged ({one_line(error)}); move it away, and the training goes on without its rows"
            ) from None

    def _about_samples(self, work: Callable[[Path], None]) -> None:
        """Do something with the file of samples; where that fails, leave the file alone from then on."""
        if self._samples is None:
            return
        try:
            work(self._samples)
        except (OSError, ValueError, TypeError) as error:
            say(
                f"gradlab: {self._samples} could not be written ({one_line(error)}); the training goes on without it, "
                f"and {self.file} has all numbers",
                file=sys.stderr,
            )
            self._samples = None

    def _show_in(self, name: str, copy: _Copy, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Add samples to a copy; where that fails, it gets numbers alone from then on."""
        try:
            copy.show(step, samples)
        except Exception as error:
            self._without_samples.add(name)
            say(
                f"gradlab: samples could not be added to {name} ({one_line(error)}); its numbers go on",
                file=sys.stderr,
            )

    def _try(self, name: str, work: Callable[[], _Copy | None]) -> None:
        """Begin a copy or write to it; where that fails, give the copy up."""
        try:
            copy = work()
        except Exception as error:
            given_up = self._copies.pop(name, None)
            if given_up is not None:
                with contextlib.suppress(Exception):
                    given_up.close()
            say(
                f"gradlab: {name} could not be written ({one_line(error)}); the training goes on without it, and "
                f"{self.file} has all rows",
                file=sys.stderr,
            )
        else:
            if copy is not None:
                self._copies[name] = copy


class _Copy(Protocol):
    """A copy of the log elsewhere."""

    def write(self, step: int, row: Mapping[str, float], /) -> None: ...
    def show(self, step: int, samples: Sequence[Mapping[str, Any]], /) -> None: ...
    def close(self) -> None: ...


class _TensorBoard:
    """A file of events for TensorBoard.

    PyTorch's SummaryWriter writes in a thread, where an error is a traceback on the terminal, and perhaps a wait for
    ever; here it is raised by the call.
    """

    def __init__(self, folder: Path, done: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard.summary import scalar, text

        proto: Any = event_pb2
        self._event, self._scalar, self._text = proto.Event, scalar, text
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._records = RecordWriter(_Raw(self._file))
        try:
            self._add(file_version="brain.Event:2")
            again = proto.SessionLog(status=proto.SessionLog.START)
            self._add(step=done + 1, session_log=again)  # earlier files may have later steps, which do not count
        except BaseException:
            self.close()
            raise

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        for name, value in row.items():
            self._add(step=step, summary=self._scalar(name.replace("validation_", "validation/"), value))

    def show(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Write the samples of a step, as TensorBoard's tab "Text" shows them."""
        self._add(step=step, summary=self._text("samples", "\n\n".join(map(_as_markdown, samples))))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _add(self, **what: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **what).SerializeToString())


def _as_markdown(sample: Mapping[str, Any]) -> str:
    """Return a prompt and its responses as Markdown; what the model wrote is in blocks of code, so it marks nothing."""
    same = ", its responses all have one reward" if sample["same_reward"] else ""
    parts = [f"**prompt**{same}", _block(sample["prompt"])]
    for response in sample["responses"]:
        numbers = {name: value for name, value in response.items() if name != "text"}
        parts += [", ".join(f"{name} {_short(value)}" for name, value in numbers.items()), _block(response["text"])]
    return "\n\n".join(parts)


def _block(text: Any) -> str:
    """Return a text, or the messages of a chat, as a block of code in Markdown."""
    return "\n".join(f"    {line}" for line in _flat(text).splitlines() or [""])


def _flat(text: Any) -> str:
    return text if isinstance(text, str) else json.dumps(text, ensure_ascii=False, indent=1)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class _Raw:
    """An open file for TensorBoard's writer of records, which takes all or nothing of what is written."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def write(self, data: bytes) -> None:
        """Append the data."""
        write_all(self._handle, data)


class _WeightsAndBiases:
    """A run at Weights & Biases."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        import wandb  # type: ignore[import-not-found]

        self._table = wandb.Table
        self._run = wandb.init(project="gradlab", name=folder.name, config=dict(header), dir=str(folder))

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        self._run.log(row, step=step)

    def show(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Send the samples of a step as a table, a row per response."""
        rows = [
            {"prompt": _flat(one["prompt"]), "same_reward": one["same_reward"], **response}
            for one in samples for response in one["responses"]
        ]  # fmt: skip
        columns = list(rows[0])
        self._run.log({"samples": self._table(columns=columns, data=[list(row.values()) for row in rows])}, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()
