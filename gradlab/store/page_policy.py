"""Content security policies of pages in one file: what lets a page's own code in, and nothing else."""

from __future__ import annotations

import base64
import hashlib


def own_source(text: str) -> str:
    """Return the source by which a page's policy lets this very script or style in."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
