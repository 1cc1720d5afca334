"""The live lab on the first page: the script of ``gradlab.widgets.page``, inside the page.

If the bundle that ``make web`` builds exports ``mountLab``, that function is called with the element ``#gradlab-lab``;
if not, or if anything fails, the picture in that element stays.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gradlab.widgets import page

MOUNT = "mountLab"


def offers_lab(bundle: str) -> bool:
    """Say whether a bundle exports the function that shows the lab."""
    exports = re.findall(r"export\s*\{([^}]*)\}", bundle)
    names = [name.split(" as ")[-1].strip() for names in exports for name in names.split(",")]
    return MOUNT in names


def script(bundle: Path = page.BUNDLE, data: dict[str, Any] | None = None) -> str:
    """Return the script of the first page, "" where there is no lab to show; ``data`` as ``page.script`` takes it.

    The answer stands on the first page already.
    """
    if not bundle.is_file() or not offers_lab(bundle.read_text("utf-8")):
        return ""
    data = {**page.given(), "answer": []} if data is None else data
    return f"<script>\n{page.script(bundle, data)}</script>\n"
