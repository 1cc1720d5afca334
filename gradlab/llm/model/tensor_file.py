"""Tensors in a safetensors file that carries the hash of what was meant to be written to it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradlab.console import one_line, out_of_memory
from gradlab.store.files import sync
from gradlab.store.sealed import Damaged

_ABOUT = "gradlab"  # the only key in the file's metadata, as safetensors writes several in an order by chance
_HASH = "sha256"
_OF_SYSTEM = re.compile(r"\(os error \d+\)")  # ends safetensors' errors that are the system's, such as of a disk


def write_tensors(path: Path | str, tensors: Mapping[str, Tensor], **about: str) -> None:
    """Write tensors to a file, down to the disk, with ``about`` as its metadata and the hash of all of this.

    Equal tensors give equal bytes. The hash is taken from the tensors in memory, so that also a bit flipped on its way
    to the disk is noticed.
    Raises OSError, such as for a full disk.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        save_file(whole, path, {_ABOUT: json.dumps({**about, _HASH: _hash(whole, about)}, sort_keys=True)})
    except SafetensorError as error:
        raise OSError(f"{path}: {error}") from None
    sync(path)


def read_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors in a file of ``write_tensors``, and its metadata.

    Raises Damaged where they are not as written; OSError for a file that is not there or cannot be read, of which
    nothing is known.
    """
    try:
        with open(path, "rb"), safe_open(path, "pt") as opened:
            about = json.loads(opened.metadata()[_ABOUT])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        whole = about.pop(_HASH, None) == _hash(tensors, about)
    except Exception as error:  # safetensors' error is no ValueError, and torch has its own for a strange shape
        if isinstance(error, OSError) or out_of_memory(error):
            raise
        if _OF_SYSTEM.search(str(error)):
            raise OSError(f"{path} cannot be read: {one_line(error)}") from None
        whole, tensors, about = False, {}, {}
    if not whole:
        raise Damaged(f"{path} is damaged")
    return tensors, about


def _hash(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    whole = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        for part in identity(name, value):
            whole.update(part)
    return whole.hexdigest()


def identity(name: str, value: Tensor) -> tuple[bytes, memoryview]:
    """Return what counts in a hash of a tensor on the CPU: name, type and shape in one line, then the bits."""
    return f"{name} {value.dtype} {tuple(value.shape)}\n".encode(), value.reshape(-1).view(torch.uint8).numpy().data
