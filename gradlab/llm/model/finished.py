"""Finished trainings: the file that says so, and the hashes by which a damaged model is noticed before it is used."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.store.files import file_hash, write_whole
from gradlab.store.sealed import SEAL, Damaged, read_sealed, sealed

DONE = "done.json"  # in the folder of a finished training
STOPPED = "stopped-at-step-{}.json"  # there too: the batch of a step whose numbers were not finite
_WEIGHTS = ".safetensors"
_TEXT = ".md"  # what transformers and peft write for people, who may change it


def write_done(folder: Path, page: Mapping[str, Any], names: Sequence[str] = ("model",)) -> None:
    """Write ``folder``/done.json: the page, and as ``files`` the hashes of these files, and of those in folders.

    The files must be on the disk already.
    """
    paths = [path for name in names for path in (folder / name, *sorted((folder / name).rglob("*")))]
    files = {path.relative_to(folder).as_posix(): file_hash(path) for path in paths if path.is_file()}
    write_whole({folder / DONE: sealed({**page, "files": files})})


def read_done(folder: Path) -> dict[str, Any] | None:
    """Return the page of a finished training; None where it is not finished, ValueError where the page is damaged."""
    if not (folder / DONE).exists():
        return None
    try:
        return read_sealed(folder / DONE)
    except Damaged as error:
        raise ValueError(f"{error}; remove {folder}, and it is trained again") from None


def stopped_at(folder: Path) -> int | None:
    """Return the last step at which a training stopped because a number was not finite; None for any other training.

    A training that went on after such a stop, and is finished, is one of the others.
    """
    before, after = STOPPED.split("{}")
    steps = [file.name.removeprefix(before).removesuffix(after) for file in folder.glob(STOPPED.format("*"))]
    numbers = [int(step) for step in steps if step.isdecimal()]
    return max(numbers) if numbers and not (folder / DONE).is_file() else None


def check_model(source: str | Path, *, weights: bool = True) -> None:
    """Raise ValueError where ``source`` is a finished training's model whose files are not those that it wrote.

    weights  False: the weights, which take long to read, are not looked at.
    Anything else, such as a hub's name or a folder that somebody else made, is left unchecked.
    """
    model = Path(os.path.abspath(source))
    folder = model.parent
    for name, digest in page_beside(model).get("files", {}).items():
        file = folder / name
        if file.suffix == _TEXT or not file.is_relative_to(model) or (file.suffix == _WEIGHTS and not weights):
            continue
        if not file.is_file() or known_hash(file) != digest:
            raise ValueError(
                f"{file} is damaged, it is not what the training wrote; remove {folder}, and it is trained again"
            )


def check_same(source: str | Path, role: str, now: str | None, other: str | Path) -> None:
    """Raise ValueError where ``other`` is no longer the model by which the finished training's ``source`` was made.

    role  that of the other model: ``base`` of a LoRA adapter, or ``reference``. now: its hash by ``model_hash``.
    """
    model = Path(os.path.abspath(source))
    known = page_beside(model).get("weights", {}).get(role)
    if known and now and known != now:
        raise ValueError(
            f"{other} has changed since it was the {role} of {model}; restore it, or remove {model.parent} and train "
            "again"
        )


def page_beside(source: str | Path) -> dict[str, Any]:
    """Return done.json beside a model that gradlab wrote; an empty page beside any other.

    Errors are those of ``read_done``.
    """
    model = Path(os.path.abspath(source))
    done = model.parent / DONE
    if not done.is_file() or SEAL.encode() not in done.read_bytes():
        return {}
    page = read_done(model.parent) or {}
    ours = any((model.parent / name).is_relative_to(model) for name in page.get("files", {}))
    return page if ours else {}


def known_hash(file: Path) -> str:
    """Return the SHA-256 of a file; read once per process, unless somebody has written to the file since."""
    there = file.stat()
    return _hash(file, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)


@functools.cache  # a model of 30 GB takes a minute, and each stage asks
def _hash(file: Path, *_: int) -> str:
    return file_hash(file)
