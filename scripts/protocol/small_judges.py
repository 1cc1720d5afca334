"""Judges for the small run of the protocol, which any machine has: they have no meaning beyond being there."""

from __future__ import annotations

from collections.abc import Sequence


def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return the number of different words of each response."""
    return [float(len(set(response.lower().split()))) for response in responses]


def cost(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return below 0 where a response has a comma or a full stop."""
    return [-1.0 if set(response) & {",", "."} else 1.0 for response in responses]
