"""Live explorers for JupyterLab, one per file: thin views of the lab and the theory. The only user of ipywidgets.

The explorers are listed in ``__init__.pyi``. Each is imported when its name is first used, so that the first picture of
one does not wait for the imports of the others. ``EXPLORERS`` holds all of them by name.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_attached, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["EXPLORERS"]


def __getattr__(name: str) -> Any:
    """Import the explorer of this name, or all of them for ``EXPLORERS``."""
    if name != "EXPLORERS":
        return _attached(name)
    kinds = [_attached(listed) for listed in __all__ if listed.endswith("Explorer") and listed != "Explorer"]
    return {kind.name: kind for kind in kinds}


def __dir__() -> list[str]:
    """Return the names that can be imported."""
    return __all__
