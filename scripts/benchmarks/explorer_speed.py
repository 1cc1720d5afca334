"""How fast the explorers answer, in a real browser: from the key press to the last, exact pixels on the screen.

Part of ``make bench``. Writes ``explorers.md``, ``explorers.csv`` and ``explorers.png`` to ``figures/benchmarks``.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.store.artifacts import write_whole
from gradlab.store.provenance import versions
from scripts import browser as chrome

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = {  # notebook and the names of the sliders that are pressed, by what is measured
    "Grid training, both losses anew": ("02-grid-training", ("width σ",)),
    "Grid training, one loss anew": ("02-grid-training", ("β of A",)),
    "Grid training, scrubber": ("02-grid-training", ("when",)),
    "Pair": ("01-one-pair", ("β of A",)),
    "Distribution shift": ("03-distribution-shift", ("μ_q",)),
    "Variance": ("04-variance", ("distance",)),
    "Frontier, β": ("05-frontier", ("β",)),
}
TARGETS = {name: 120 if "anew" in name else 60 for name in CASES}
FIRST_PICTURE = 4.0  # seconds, the target
PRESSES = 40
# Notes the time of every key and of every picture that has come to the screen.
_WATCH = """root => {
  window.gradlabKeys = []; window.gradlabFrames = [];
  root.addEventListener('keydown', () => window.gradlabKeys.push(performance.now()), true);
  new MutationObserver(() => requestAnimationFrame(() => window.gradlabFrames.push(performance.now())))
    .observe(root, { subtree: true, attributeFilter: ['data-frame'] });
}"""


def press(page: Any, handle: Any, count: int) -> list[float]:
    """Milliseconds from each key press to the last picture that it brought."""
    took = []
    handle.focus()
    for number in range(count):
        page.evaluate("() => { window.gradlabKeys.length = 0; window.gradlabFrames.length = 0; }")
        page.keyboard.press("ArrowLeft" if number // 5 % 2 == 0 else "ArrowRight")
        page.wait_for_timeout(600)
        keys, frames = page.evaluate("() => [window.gradlabKeys, window.gradlabFrames]")
        if frames:
            took.append(frames[-1] - keys[0])
    return took


def drag(page: Any, handle: Any, seconds: float = 3.0) -> float:
    """Moments a second at which new pictures came, while the mouse drags the slider to and fro."""
    box = handle.bounding_box()
    across, up = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across, up)
    page.mouse.down()
    page.evaluate("() => { window.gradlabFrames.length = 0; }")
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        page.mouse.move(across + 25 * np.sin(3 * (time.perf_counter() - start)), up)
        page.wait_for_timeout(16)
    frames = page.evaluate("() => window.gradlabFrames")
    page.mouse.up()
    page.wait_for_timeout(800)
    return len(np.unique(np.round(frames))) / seconds


def measure(lab: str, running: Any, name: str) -> list[dict[str, Any]]:
    """Latency, frames of a drag, and time to the first picture, of one notebook's cases."""
    page = chrome.Page(running, lab, f"{name}.ipynb", (1920, 1000))
    start = time.perf_counter()
    page.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    explorer = page.explorer()
    first = time.perf_counter() - start
    page.run_all()  # waits for the driving cell, and leaves everything at its start
    explorer = page.explorer()
    explorer.still()
    explorer.root.evaluate(_WATCH)
    rows = []
    for case, (notebook, sliders) in CASES.items():
        if notebook != name:
            continue
        for slider in sliders:
            handle = explorer.root.locator(f'.noUi-handle[aria-label="{slider}"]')
            handle.scroll_into_view_if_needed()
            press(page.page, handle, 4)  # warms up
            took = press(page.page, handle, PRESSES)
            rows.append({"what": case, "slider": slider, "median_ms": np.median(took), "presses": len(took),
                         "p95_ms": np.percentile(took, 95), "frames_per_second": drag(page.page, handle),
                         "target_ms": TARGETS[case], "first_picture_s": first})  # fmt: skip
    page.close()
    return rows


def screenshot(lab: str, running: Any) -> bytes:
    """Grid training in JupyterLab, for the README."""
    page = chrome.Page(running, lab, "02-grid-training.ipynb", (1920, 1200))
    page.run_all()
    explorer = page.explorer()
    explorer.press("When bDPO helps")
    explorer.root.evaluate("root => root.scrollIntoView({ block: 'start' })")
    picture = explorer.root.screenshot()
    page.close()
    return picture


def main() -> int:
    """Measure all, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "figures/benchmarks")
    folder = parser.parse_args().out
    if reason := chrome.why_not():
        print(f"the explorers are not measured: {reason}", file=sys.stderr)
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as place:
        root, home = Path(place, "lab"), Path(place, "home")
        home.mkdir()
        shutil.copytree(ROOT / "notebooks", root)
        with chrome.lab(root, home) as lab, chrome.browser() as running:
            for name in dict.fromkeys(notebook for notebook, _ in CASES.values()):
                rows += measure(lab, running, name)
                print(pd.DataFrame(rows).iloc[-1].to_dict())
            picture = screenshot(lab, running)
    frame = pd.DataFrame(rows)
    write_whole({
        folder / "explorers.csv": frame.round(3).to_csv(index=False), folder / "explorers.md": page_of(frame),
        folder / "explorers.png": picture,
    })  # fmt: skip
    return 0


def page_of(frame: pd.DataFrame) -> str:
    """The results as a page, with the targets beside them."""
    lines = [
        "# How fast the explorers answer", "",
        "From the key press on a slider to the last, exact picture on the screen of a real Chromium, with JupyterLab "
        "and kernel on the same machine; nothing is approximated on the way, and both losses really train 500 steps. "
        f"Median and 95th percentile of {PRESSES} single presses; frames a second while the mouse drags for 3 s; and "
        "the time from *run all*, in a kernel just started, to the first picture.", "",
        "| | presses with a new picture | median (ms) | 95% (ms) | target (ms) | frames/s in a drag "
        "| first picture (s) |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row['what']} | {row['presses']} | {row['median_ms']:.0f} | {row['p95_ms']:.0f} | {row['target_ms']} "
        f"| {row['frames_per_second']:.1f} | {row['first_picture_s']:.1f} |"
        for row in frame.to_dict("records")
    ]
    used = versions()
    lines += [
        "", f"First picture: the target is {FIRST_PICTURE:g} s, imports of torch and matplotlib included.", "",
        f"Measured on {os.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
        + ", ".join(f"{name} {number}" for name, number in used.items()) + ".", "",
        "Again with: `make bench`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
