"""What happens where a training cannot be fused: it runs eager, and says so once."""

from __future__ import annotations

import warnings


class NotFusable(Exception):
    """Why a training cannot run as one kernel, in words that go on after "since …"."""


class EagerNotice(UserWarning):
    """A training runs eager, to the same result but more slowly."""


def notice(label: str, reason: NotFusable) -> None:
    """Say once in this process that ``label`` trains eager, and why."""
    text = f"{label} trains eager, which is slower, since {reason}"
    if text not in _SAID:
        _SAID.add(text)
        warnings.warn(text, EagerNotice, stacklevel=5)  # the line that calls ``fit``


_SAID: set[str] = set()
