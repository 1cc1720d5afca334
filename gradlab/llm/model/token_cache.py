"""A folder that keeps pairs as tokens, each set of pairs in a file that is named by its hash."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gradlab.console import say
from gradlab.llm.model.tensor_file import read_tensors, write_tensors
from gradlab.store.files import write_whole
from gradlab.store.sealed import Damaged


@dataclass(frozen=True)
class TokenCache:
    """The token files of a folder, which may be missing; a ``source_tokens.Cache``."""

    folder: Path

    def read(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, str]] | None:
        """Return the arrays and texts of this key; None without them, and for a damaged file, with a notice."""
        try:
            tensors, about = read_tensors(self._file(key))
        except (FileNotFoundError, NotADirectoryError):  # a folder that cannot be is told by who writes there
            return None
        except Damaged as error:
            say(f"gradlab: {error}, and is made again", file=sys.stderr)
            return None
        return ({name: tensor.numpy() for name, tensor in tensors.items()}, about) if about["key"] == key else None

    def write(self, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> None:
        """Write arrays and texts under this key. Raises OSError, such as for a full disk."""
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        write_whole({self._file(key): lambda name: write_tensors(name, tensors, key=key, **about)})

    def _file(self, key: str) -> Path:
        return self.folder / f"tokens-{key}.safetensors"
