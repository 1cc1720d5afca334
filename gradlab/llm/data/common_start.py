"""How far texts, or lists of tokens, begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def common_start(*several: Sequence[Any]) -> int:
    """Return how many places from the start on are equal in all of these sequences."""
    same = [all(one == place[0] for one in place[1:]) for place in zip(*several, strict=False)]
    return [*same, False].index(False)
