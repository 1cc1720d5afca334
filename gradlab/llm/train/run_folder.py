"""The folder of a run: taken for this run alone, and described by its data."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock, Timeout

from gradlab.console import say
from gradlab.llm.data.prepare import DECIDING, Data
from gradlab.llm.data.template_dates import TemplateDate, today
from gradlab.llm.model.group import Group
from gradlab.llm.model.origins import origin_note
from gradlab.llm.train.checkpoints import differences
from gradlab.llm.train.run_settings import Settings
from gradlab.store.files import remove_leftovers, write_whole
from gradlab.store.sealed import Damaged, read_sealed, sealed

CACHE = "cache"  # folder in a run's: log-probabilities under its references, hidden states


def caches(settings: Settings) -> Path:
    """Return the folder of the run's caches: its own, or the one that its settings name, which others may share."""
    return settings.cache or settings.out / CACHE


def claim(out: Path, stack: contextlib.ExitStack) -> None:
    """Make the run's folder, keep other runs out of it until the stack is closed, and remove what killed ones left."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"out must be a folder, or a name for one, got {out}") from None
    try:
        stack.enter_context(FileLock(out / ".lock", timeout=0))
    except Timeout:
        raise ValueError(f"out must be a folder that no other run is using, got {out}") from None
    for folder in (out, out / CACHE):
        remove_leftovers(folder)


def refuse_others(out: Path, names: Iterable[str], *, ours: bool) -> None:
    """Raise FileExistsError, which names the file or folder, where one of these is in ``out`` and is not known as ours.

    ours  whether what is there is known to be a training's.
    """
    there = next((out / name for name in names if os.path.lexists(out / name)), None)
    if there is not None and not ours:
        raise FileExistsError(f"{there} is there and was not written by gradlab; name another out, or move it away")


def date_of(out: Path, given: str | None = None) -> TemplateDate:
    """Return the date of chat templates in the run of this folder, today's in a new run; ``given``: the settings'."""
    file = out / "data.json"
    try:
        page = read_sealed(file)
        return TemplateDate(given or page["settings"]["template_date"], page["started"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # ``describe`` complains of a damaged file
        return TemplateDate(given, today())


def describe(settings: Settings, data: Data, group: Group, date: TemplateDate, written: str | None) -> None:
    """Write data.json and print the report on the data; ValueError where the folder holds a run on other data.

    FileExistsError where it holds something else in the place of a stage.

    written  the date that the chat template writes, if it does.
    """
    file = settings.out / "data.json"
    refuse_others(settings.out, ("sft", "reference", *settings.names, CACHE), ours=file.exists())
    say(data.report)
    if (made := origin_note(settings.model)) is not None:
        say(made)
    if written is not None:
        say(f"the chat template writes a date: {written} in all of this run, see --template-date")
    say(f"{len(data.train)} pairs to train on, {len(data.held_out)} held out")
    if settings.validation is None and len(data.held_out) >= len(data.train):
        say("as many pairs are held out as are trained on, or more; held_out says how many")
    if group.size > settings.batch:
        say(f"{group.size - settings.batch} of {group.size} processes have nothing to do: batch is {settings.batch}")
    if settings.validation is None and len(data.held_out) != settings.held_out:
        say(f"held_out is {settings.held_out}, and whole prompts are held out; --hold-out pairs draws single pairs")
    if data.seen:
        say(f"{data.seen} held-out pairs are among those to train on too, so they show less than they seem to")
    if data.overlap.shared_pairs:
        say(data.overlap)
    page = {
        "settings": {name: settings.get(name) for name in DECIDING}, "fingerprint": data.fingerprint,
        "report": dataclasses.asdict(data.report), "model": settings.model, "started": date.started,
    }  # fmt: skip
    if file.exists():
        try:
            before = read_sealed(file)
            other = before["fingerprint"] != data.fingerprint
            changed = differences(before["settings"], page["settings"])
        except Damaged as error:
            raise ValueError(f"{error}; name another out, or remove {settings.out}") from None
        if other:
            raise ValueError(
                f"{settings.out} holds a run on other data, or split otherwise{changed}; name another out, or remove it"
            )
    write_whole({file: sealed(page)})
