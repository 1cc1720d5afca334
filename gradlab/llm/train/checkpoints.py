"""Checkpoints, and whether a training is done: whole or not at all, hashed, in safetensors and JSON alone."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from gradlab.checks import input_file
from gradlab.console import say
from gradlab.doctor.training_log import LOG
from gradlab.llm.model.finished import check_model, known_hash, read_done
from gradlab.llm.model.group import Group, local, trainable
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.store.files import remove_leftovers, sync, write_whole
from gradlab.store.sealed import SEAL, Damaged, read_sealed, sealed

FORMAT = 2
CHECKPOINTS = "checkpoints"  # folder in that of a training which is not done yet
PART = ".tmp"  # ends the names of folders that are being written or removed
_NAME = re.compile(r"step-(\d+)")
_STATE = "state.json"


def save_checkpoint(
    folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer, group: Group, key: str, *, keep: int = 2
) -> None:
    """Write what training after ``step`` needs into ``folder``/step-N; every process writes its part of a spread model.

    key   what the run depends on; another run's checkpoint is refused by it.
    keep  how many of the newest checkpoints stay.
    OSError, such as for a full disk, leaves the former checkpoints as they were.
    """
    final = folder / f"step-{step:08d}"
    part = final.with_name(final.name + PART)

    def begin() -> None:
        remove(part)
        part.mkdir(parents=True)

    def write() -> None:
        if group.is_main or _is_spread(model):
            tensors = {**_weights(model), **_moments(model, optimizer)}
            write_tensors(part / _part(group.rank if _is_spread(model) else 0), tensors, key=key, step=str(step))

    def finish() -> None:
        sizes = {file.name: file.stat().st_size for file in sorted(part.glob("*.safetensors"))}
        state = {
            "format": FORMAT, "step": step, "key": key, "parts": _parts(group, model), "processes": group.size,
            "files": sizes,
        }  # fmt: skip
        write_whole({part / _STATE: sealed(state)})
        sync(part)
        remove(final)
        part.rename(final)
        sync(folder)
        for _, old in _all(folder)[:-keep]:
            remove(old)

    try:
        group.on_main(begin)
        group.on_all(write)
        group.on_main(finish)
    except Exception as error:
        group.on_main(lambda: shutil.rmtree(part, ignore_errors=True))
        if not group.is_main:
            raise
        raise OSError(
            f"checkpoint of step {step} could not be written to {folder}: {error}; the former ones are kept"
        ) from None


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer, group: Group, key: str) -> int:
    """Load the newest whole checkpoint into model and optimizer; return its step, or 0 where there is no checkpoint.

    A damaged checkpoint, which has not the content that was written, is passed over with a notice. Any number of
    processes goes on from a checkpoint of any other, spread or not, with a notice where the number is another.

    ValueError where the checkpoint belongs to another run; and where all checkpoints are damaged: their steps may have
    taken days, so it is for the user to say that these start again. OSError, in all processes, where one of them cannot
    read a file or does not see it: nothing is known of its content.
    """
    there = group.on_main(lambda: [(str(path), _state(path)) for _, path in reversed(_all(folder))])
    for name, state in there:
        path = Path(name)
        if state is not None:
            _check_fits(path, state, key)
        tensors = None if state is None else group.on_all(partial(_seen, path, state, model, group))
        if not group.total(torch.tensor(float(tensors is None))):
            assert tensors is not None
            assert state is not None
            if group.is_main:
                _say_moved(path, state, group)
            _restore(model, optimizer, tensors)
            return int(state["step"])
        if group.is_main:
            say(f"gradlab: {path} is damaged and is passed over", file=sys.stderr)
    if there:
        raise ValueError(
            f"{folder} has no checkpoint that is not damaged; remove it, and the training starts again from step 1"
        )
    return 0


def sweep(folder: Path, *, done: bool) -> None:
    """Remove what killed processes have left in a training's folder, which no other process may use meanwhile.

    done  whether the training is finished, and needs no checkpoints any more.
    """
    remove_leftovers(folder)
    for part in (*folder.glob(f"{CHECKPOINTS}.old{PART}"), *(folder / CHECKPOINTS).glob(f"step-*{PART}")):
        remove(part)
    if done:
        remove_checkpoints(folder)


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a training's folder, and then their folder, unless it holds something else."""
    for _, path in _all(folder / CHECKPOINTS):
        remove(path)
    with contextlib.suppress(OSError):  # it is not there, or holds something else
        (folder / CHECKPOINTS).rmdir()


def remove(folder: Path) -> None:
    """Remove a folder, if it is there; a process that is killed meanwhile leaves no part of it under its name."""
    if not folder.exists():
        return
    gone = folder
    if not folder.name.endswith(PART):
        gone = folder.with_name(f"{folder.name}.old{PART}")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
    shutil.rmtree(gone)


def is_done(folder: Path, key: str, decided: Mapping[str, Any] | None = None) -> bool:
    """Say whether ``folder`` holds the finished training of this key.

    decided  the values that the key was made of, so that an error can say which of them differ from those in
             ``done.json``.
    ValueError where the folder holds another training, or ``done.json`` is damaged.
    """
    page = read_done(folder)
    if page is None:
        return False
    if page.get("key") != key:
        changed = differences(page.get("decided"), decided)
        raise ValueError(
            f"{folder} was trained with other settings, data or model{changed}; go on with those, name another out, or "
            "remove it"
        )
    check_model(folder / "model")
    log = folder / LOG
    if LOG in page["files"] and not (log.is_file() and known_hash(log) == page["files"][LOG]):
        say(f"gradlab: {log} is not as the training wrote it; its numbers may be wrong", file=sys.stderr)
    return True


def differences(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> str:
    """Return, in brackets, the values that both have and that differ; an empty text where none is known."""
    old, new = there or {}, json.loads(json.dumps(dict(here or {}), default=str))
    changed = [
        f"{name}: {old[name]} there, {value} here" for name, value in new.items() if old.get(name, value) != value
    ]
    return f" ({'; '.join(changed)})" if changed else ""


def _weights(model: Any) -> dict[str, Tensor]:
    return {f"weight/{name}": local(value.detach()) for name, value in trainable(model).items()}


def _moments(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{moment}/{name}": local(value)
        for name, parameter in trainable(model).items()
        for moment, value in optimizer.state[parameter].items()
    }


def _moment_names(tensors: Mapping[str, Tensor], name: str) -> list[str]:
    names = [key.removesuffix(f"/{name}") for key in tensors if key.endswith(f"/{name}")]
    return [moment for moment in names if moment != "weight"]


def _restored(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a moment as the optimizer holds it: spread as its parameter is; the count of steps is one number."""
    tensor = tensor.to(parameter.device)
    if tensor.ndim and isinstance(parameter, DTensor):
        return DTensor.from_local(
            tensor, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )
    return tensor


def _is_spread(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def _parts(group: Group, model: Any) -> int:
    """Return the number of files that a checkpoint of the model has: one per process where it is spread."""
    return group.size if _is_spread(model) else 1


def _part(rank: int) -> str:
    return f"part-{rank:04d}.safetensors"


def _all(folder: Path) -> list[tuple[int, Path]]:
    names = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in names if match)


def _state(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint's state; None where it is damaged, or not all of its files have their full size.

    OSError where a file is there and cannot be read.
    """
    try:
        state = read_sealed(path / _STATE)
        return state if all((path / name).stat().st_size == size for name, size in state["files"].items()) else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return _older(path / _STATE)


def _older(file: Path) -> dict[str, Any] | None:
    """Return the state of a checkpoint that an older version of gradlab wrote, without a seal."""
    try:
        state = json.loads(input_file("state", file).read_bytes())
        return state if SEAL not in state and state["format"] < FORMAT else None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _check_fits(path: Path, state: Mapping[str, Any], key: str) -> None:
    """Raise ValueError where this training cannot go on from a checkpoint."""
    if state["format"] != FORMAT:
        raise ValueError(f"{path} has format {state['format']!r}; this version of gradlab reads format {FORMAT}")
    if state["key"] != key:
        raise ValueError(
            f"{path} is of a run with other settings, data or model; go on with those, name another out, or remove it"
        )


def _say_moved(path: Path, state: Mapping[str, Any], group: Group) -> None:
    """Say where another number of processes goes on; a checkpoint of a former version may not know its number."""
    before = state.get("processes", group.size)
    if before != group.size:
        say(
            f"gradlab: {path} was written by {before} processes, and {group.size} go on: the numbers are the same up "
            "to rounding, dropout's draws and the batches of a loss of batches aside",
            file=sys.stderr,
        )


def _seen(path: Path, state: Mapping[str, Any], model: Any, group: Group) -> dict[str, Tensor] | None:
    """Return ``_mine``; OSError where this process lacks a file that the main process has seen."""
    try:
        return _mine(path, state, model, group)
    except FileNotFoundError as error:
        raise OSError(
            f"{error.filename} must be seen by every process, but process {group.rank} does not find it; all machines "
            "need the run's folder at the same path"
        ) from None


def _mine(path: Path, state: Mapping[str, Any], model: Any, group: Group) -> dict[str, Tensor] | None:
    """Return this process's part of a checkpoint's tensors; None where a file that it needs is damaged."""
    if state["parts"] == _parts(group, model):
        return _read(path / _part(group.rank if _is_spread(model) else 0), state)
    parts = [_read(path / _part(rank), state) for rank in range(state["parts"])]
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        return None
    return {
        f"{kind}/{name}": _share([part[f"{kind}/{name}"] for part in there], parameter)
        for name, parameter in trainable(model).items()
        for kind in ("weight", *_moment_names(there[0], name))
    }


def _share(parts: Sequence[Tensor], parameter: Tensor) -> Tensor:
    """Return this process's share of a tensor that other processes had in parts, in the order of their ranks."""
    if parts[0].ndim == 0:  # the count of steps
        return parts[0]
    if not isinstance(parameter, DTensor):
        return torch.cat(list(parts))
    placement, mesh = parameter.placements[0], parameter.device_mesh
    assert isinstance(placement, Shard)  # as ``fully_shard`` spreads: along the first axis, by torch.chunk
    assert placement.dim == 0
    shares = torch.cat(list(parts)).chunk(mesh.size())
    rank = mesh.get_local_rank()
    return shares[rank].clone() if rank < len(shares) else parts[0][:0]


def _read(file: Path, state: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the tensors of a checkpoint's part; None where they are damaged, or of another checkpoint."""
    try:
        tensors, about = read_tensors(file)
    except Damaged:
        return None
    return tensors if about == {"key": state["key"], "step": str(state["step"])} else None


def _restore(model: Any, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put weights and moments into model and optimizer."""
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            local(parameter).copy_(tensors[f"weight/{name}"])
            optimizer.state[parameter] = {
                moment: _restored(tensors[f"{moment}/{name}"], parameter) for moment in _moment_names(tensors, name)
            }
