"""Checkpoints, and the file that says a training is done: whole or not at all, in safetensors and JSON alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from gradlab.llm.model.group import Group, local, trainable
from gradlab.llm.model.loading import remove
from gradlab.store.files import sync

FORMAT = 1
_NAME = re.compile(r"step-(\d+)")
_STATE = "state.json"
DONE = "done.json"  # in the folder of a finished training, with its key


def save_checkpoint(
    folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer, group: Group, key: str, *, keep: int = 2
) -> None:
    """Write what training after ``step`` needs into ``folder``/step-N; every process writes its part of a spread model.

    key   what the run depends on; another run's checkpoint is refused by it.
    keep  how many of the newest checkpoints stay.
    OSError, such as for a full disk, leaves the former checkpoints as they were.
    """
    final = folder / f"step-{step:08d}"
    part = folder / f"step-{step:08d}.tmp"

    def begin() -> None:
        remove(part)
        part.mkdir(parents=True)

    def write() -> None:
        if group.is_main or _is_spread(model):
            _write(part / _file(group, model), {**_weights(model), **_moments(model, optimizer)})

    def finish() -> None:
        sizes = {file.name: file.stat().st_size for file in sorted(part.glob("*.safetensors"))}
        state = {"format": FORMAT, "step": step, "key": key, "parts": _parts(group, model), "files": sizes}
        (part / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        sync(part / _STATE)
        sync(part)
        remove(final)
        part.rename(final)
        sync(folder)
        for _, old in _all(folder)[:-keep]:
            shutil.rmtree(old)

    try:
        group.on_main(begin)
        group.on_all(write)
        group.on_main(finish)
    except Exception as error:  # for a full disk safetensors raises a type that is no OSError
        group.on_main(lambda: shutil.rmtree(part, ignore_errors=True))
        if not group.is_main:
            raise
        raise OSError(
            f"checkpoint of step {step} could not be written to {folder}: {error}; the former ones are kept"
        ) from None


def load_checkpoint(folder: Path, model: Any, optimizer: torch.optim.Optimizer, group: Group, key: str) -> int:
    """Load the newest whole checkpoint into model and optimizer; return its step, or 0 where there is no checkpoint.

    ValueError where the checkpoint belongs to another run, or was written by another number of processes.
    """
    newest = group.on_main(lambda: _newest(folder))
    if newest is None:
        return 0
    path, state = Path(newest[0]), newest[1]
    if state.get("format") != FORMAT:
        raise ValueError(f"{path} has format {state.get('format')!r}; this version of gradlab reads format {FORMAT}")
    if state["key"] != key:
        raise ValueError(
            f"{path} is of a run with other settings, data or model; go on with those, name another out, or remove it"
        )
    parts = _parts(group, model)
    if state["parts"] != parts:
        raise ValueError(
            f"{path} is of FSDP over {state['parts']} processes (1: of DDP, or a single process); resume it likewise, "
            f"got {parts}"
        )
    tensors = load_file(path / _file(group, model))
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            local(parameter).copy_(tensors[f"weight/{name}"])
            optimizer.state[parameter] = {
                moment: _restored(tensors[f"{moment}/{name}"], parameter) for moment in _moment_names(tensors, name)
            }
    return int(state["step"])


def is_done(folder: Path, key: str, decided: Mapping[str, Any] | None = None) -> bool:
    """Say whether ``folder`` holds the finished training of this key.

    decided  the values that the key was made of, so that an error can say which of them differ from those in ``DONE``.
    ValueError where the folder holds another training, or ``DONE`` is damaged.
    """
    file = folder / DONE
    if not file.exists():
        return False
    try:
        page = json.loads(file.read_text("utf-8"))
        same = page["key"] == key
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{file} is damaged; remove {folder}, and it is trained again") from None
    if not same:
        changed = differences(page.get("decided"), decided)
        raise ValueError(
            f"{folder} was trained with other settings, data or model{changed}; go on with those, name another out, or "
            "remove it"
        )
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


def _moment_names(tensors: dict[str, Tensor], name: str) -> list[str]:
    names = [key.removesuffix(f"/{name}") for key in tensors if key.endswith(f"/{name}")]
    return [moment for moment in names if moment != "weight"]


def _restored(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a moment as the optimizer holds it: spread as its parameter is; the count of steps stays on the CPU."""
    if tensor.ndim == 0:
        return tensor
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return DTensor.from_local(
            tensor, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
        )
    return tensor


def _is_spread(model: Any) -> bool:
    return isinstance(model, FSDPModule)


def _parts(group: Group, model: Any) -> int:
    """Return the number of files that a checkpoint of the model has: one per process where it is spread."""
    return group.size if _is_spread(model) else 1


def _file(group: Group, model: Any) -> str:
    return f"part-{group.rank if _is_spread(model) else 0:04d}.safetensors"


def _all(folder: Path) -> list[tuple[int, Path]]:
    names = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in names if match)


def _newest(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return the newest checkpoint whose files are all there at their full size, and its state."""
    for _, path in reversed(_all(folder)):
        try:
            state = json.loads((path / _STATE).read_text("utf-8"))
            if all((path / name).stat().st_size == size for name, size in state["files"].items()):
                return str(path), state
        except (OSError, ValueError, KeyError):
            continue
    return None


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    sync(path)
