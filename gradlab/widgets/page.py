"""The live lab as one page without a server: the registry, its kernels and the front end in one HTML file.

The page opens from a file manager, asks for nothing from anywhere, and needs no Python once it is written. Kernels come
from llvmlite, so that writing it needs no Node.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlab.lab.engine.trace import NotFusable
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.policy import POLICIES
from gradlab.losses import PAIR_LOSSES, KnownLoss
from gradlab.store.files import write_whole
from gradlab.store.page_policy import own_source
from gradlab.widgets.losses_in_page import SLOPES, facts_of, kernel_of

if TYPE_CHECKING:
    from gradlab.widgets.explorer import Explorer

BUNDLE = Path(__file__).parents[1] / "web/gradlab.js"
NAME = "gradlab-lab.html"
LEAD = (
    "DPO raises the winner of a pair of responses and lowers the loser.",
    "The less probable of the two gets the larger gradient, by the ratio of their probabilities: gradient imbalance.",
    "Balanced-DPO (bDPO) brings both gradients closer, but not to equality; and the larger gradient need not be the "
    "larger change.",
)
_README = Path(__file__).parents[2] / "README.md"
_START = """(() => {
  const root = document.getElementById("gradlab-lab");
  const url = URL.createObjectURL(new Blob([BUNDLE], { type: "text/javascript" }));
  const failed = (error) => {
    const note = document.createElement("p");
    note.setAttribute("role", "status");
    note.textContent = `The live lab does not run here: ${error.message ?? error}`;
    root.append(note);
  };
  import(url).then((web) => web.mountLab(root, GIVEN)).then((lab) => { globalThis.gradlabLab = lab; }, failed)
    .finally(() => URL.revokeObjectURL(url));
})();
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="POLICY">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gradlab: the live lab</title>
<style>
:root { color-scheme: light dark; --gl-page-paper: #fff; }
body { margin: 0 auto; padding: 8px 14px 24px; max-width: 1840px; font: 14px/1.4 system-ui, sans-serif; }
h1 { font-size: 17px; margin: 0 0 2px; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e4e4e4; } }
</style>
</head>
<body>
<main>
<h1>gradlab: what a preference loss really does to a policy</h1>
<div id="gradlab-lab"><p>The lab begins as soon as its script runs; without JavaScript it cannot.</p></div>
</main>
<script>SCRIPT</script>
</body>
</html>
"""


def write_page(file: Path) -> None:
    """Write the whole page to ``file``; its folder is made if need be. Errors as in ``given``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole({file: page()})


def page() -> str:
    """Return the page as HTML, with a policy that lets nothing in but its own script. Errors as in ``given``."""
    code = script()
    policy = (
        f"default-src 'none'; script-src {own_source(code)} blob: 'wasm-unsafe-eval'; worker-src blob:; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return _PAGE.replace("POLICY", policy).replace("SCRIPT", code)


def script(bundle: Path = BUNDLE, data: dict[str, Any] | None = None) -> str:
    """Return a classic script that shows the lab in the element ``#gradlab-lab``; what is there stays if it fails.

    bundle  the front end that ``make web`` builds.
    data    what the lab is given; None: ``given()``, with its errors.
    """
    parts = {"BUNDLE": bundle.read_text("utf-8"), "GIVEN": given() if data is None else data}
    return re.sub("BUNDLE|GIVEN", lambda found: _literal(parts[found[0]]), _START)


def given() -> dict[str, Any]:
    """Return what the page knows: the answer, the registered losses with their kernels, and the explorers' texts.

    ``Given`` in ``gradlab/web/src/spec.ts`` describes it. RuntimeError in one line where llvmlite cannot compile to
    WebAssembly; ImportError without ipywidgets, since the texts are those of the explorers.
    """
    return _given(tuple(PAIR_LOSSES.items()))


@functools.lru_cache(maxsize=1)
def _given(registry: tuple[tuple[str, Callable[..., KnownLoss]], ...]) -> dict[str, Any]:
    from gradlab import widgets

    kinds = (
        widgets.PairExplorer, widgets.GridExplorer, widgets.FrontierExplorer, widgets.AtlasExplorer,
        widgets.SigmoidExplorer, widgets.CreditExplorer, widgets.OfflineExplorer, widgets.ShiftExplorer,
    )  # fmt: skip
    return {
        "lead": list(LEAD),
        "answer": answer(),
        "losses": [_loss(make) for _, make in registry],
        "explorers": {kind.name: _spec(kind) for kind in kinds},
    }


def _spec(kind: type[Explorer]) -> dict[str, Any]:
    """Return an explorer's texts and controls, without the losses, which the page has once."""
    explorer = kind()
    try:
        return {name: part for name, part in explorer.spec().items() if name != "losses"}
    finally:
        explorer.close()


def answer() -> list[str]:
    """Return the sentences in which README answers whether Balanced-DPO helps; the report writes them. [] without."""
    if _README.is_file():
        text = _README.read_text("utf-8")
    else:
        text = importlib.metadata.metadata("gradlab").json.get("description") or ""
    found = re.search(r"<!-- answer -->(.*?)<!-- /answer -->", str(text), re.DOTALL)
    parts = re.split(r"(?=\*\*[^*]+\?\*\*)", found[1] if found else "")
    return [" ".join(part.replace("**", "").split()) for part in parts if part.strip()]


@functools.lru_cache(maxsize=256)
def _loss(make: Callable[..., KnownLoss]) -> dict[str, Any]:
    """Return a loss's facts with all its kernels; null for kernels that cannot be made, and why."""
    loss = make()
    try:
        trains = {
            f"{policy} {optimizer}": kernel_of(loss, f"{policy} {optimizer}")
            for policy in POLICIES
            for optimizer in OPTIMIZERS
        }
        return {**facts_of(loss), "trains": trains, "slopes": kernel_of(loss, SLOPES)}
    except NotFusable as error:
        return {**facts_of(loss), "trains": None, "slopes": None, "reason": str(error)}


def _literal(value: Any) -> str:
    """Return a value as JavaScript that may stand in a page's script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
