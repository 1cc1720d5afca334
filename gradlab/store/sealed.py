"""JSON objects on disk that carry the hash of what they say, so that a flipped bit in them is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradlab.checks import input_file

SEAL = "sealed"  # key of the hash: the SHA-256 of everything else in the object


class Damaged(ValueError):
    """An error: a file is not what was written to it."""


def sealed(page: Mapping[str, Any]) -> str:
    """Return the text of a JSON object with its seal; what JSON does not have is written as text, by ``str``."""
    plain = json.loads(json.dumps(dict(page), default=str))
    return json.dumps({**plain, SEAL: _seal(plain)}, indent=1, ensure_ascii=False) + "\n"


def read_sealed(file: Path | str) -> dict[str, Any]:
    """Read an object that ``sealed`` has written, without its seal.

    Raises OSError where there is no such file, and Damaged where it holds anything but a sealed object as it was
    written: other JSON, an object without a seal, or with changed content.
    """
    try:
        page = json.loads(input_file("file", file).read_bytes())
        seal = page.pop(SEAL)
        whole = seal == _seal(page)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole, page = False, {}
    if not whole:
        raise Damaged(f"{file} is damaged, or of another version of gradlab")
    return page


def _seal(page: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(page, sort_keys=True).encode()).hexdigest()
