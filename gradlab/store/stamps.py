"""Stamps: small JSON files that note by which keys something was made or checked; a lost or torn one says nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gradlab.checks import input_file
from gradlab.store.files import write_whole


def read_stamp(path: Path) -> dict[str, str]:
    """Return what a stamp notes, by name; nothing for a missing or torn stamp."""
    try:
        found = json.loads(input_file("stamp", path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_stamp(path: Path, noted: Mapping[str, str], *, indent: int | None = None) -> None:
    """Write a stamp, whole or not at all."""
    write_whole({path: json.dumps(noted, indent=indent) + "\n"})
