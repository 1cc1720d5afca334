"""How fast the explorers answer, in a real browser: from the key press to the last, exact pixels on the screen.

Part of ``make bench``. Writes ``explorers.md``, ``explorers.csv`` and ``explorers.png`` to ``figures/benchmarks``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from scripts import browser as chrome
from scripts.benchmarks.explorer_page import page
from scripts.benchmarks.timing import RESULTS, ROOT, write_results

CASES = {  # notebook and the names of the sliders that are pressed, by what is measured
    "Grid training, both losses anew": ("02-grid-training", "width σ"),
    "Grid training, one loss anew": ("02-grid-training", "β of A"),
    "Grid training, scrubber": ("02-grid-training", "how far through training, %"),
    "Pair": ("01-one-pair", "β of A"),
    "Distribution shift": ("03-distribution-shift", "μ_q"),
    "Variance": ("04-variance", "distance"),
    "Frontier, β": ("05-frontier", "β of A"),
}
TARGETS = {name: 33 if "anew" in name else 20 for name in CASES}
PRESSES = 40
# Notes the time of every key, and of the frame after every time that all is drawn.
_WATCH = """root => {
  window.gradlabKeys = []; window.gradlabFrames = [];
  root.addEventListener('keydown', ({ timeStamp }) => window.gradlabKeys.push(timeStamp), true);
  const port = new MessageChannel();
  port.port1.onmessage = () => window.gradlabFrames.push(performance.now());
  new MutationObserver(() => requestAnimationFrame(() => port.port2.postMessage(0)))
    .observe(root, { attributeFilter: ['data-drawn'] });
}"""


def press(page: Any, slider: Any, count: int) -> list[float]:
    """Return the milliseconds from each key press to the frame with the last picture that it brought."""
    took = []
    slider.focus()
    for number in range(count):
        page.evaluate("() => { window.gradlabKeys.length = 0; window.gradlabFrames.length = 0; }")
        page.keyboard.press("ArrowLeft" if number // 5 % 2 == 0 else "ArrowRight")
        page.wait_for_timeout(400)
        keys, frames = page.evaluate("() => [window.gradlabKeys, window.gradlabFrames]")
        if frames:
            took.append(frames[-1] - keys[0])
    return took


def drag(page: Any, slider: Any, seconds: float = 3.0) -> float:
    """Return how many pictures per second came, while the mouse drags the slider to and fro."""
    box = slider.bounding_box()
    across, up = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(across, up)
    page.mouse.down()
    page.evaluate("() => { window.gradlabFrames.length = 0; }")
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        page.mouse.move(across + 25 * np.sin(3 * (time.perf_counter() - start)), up)
        page.wait_for_timeout(8)
    frames = page.evaluate("() => window.gradlabFrames")
    page.mouse.up()
    page.wait_for_timeout(800)
    return len(np.unique(np.round(frames))) / seconds


def measure(lab: str, running: Any, name: str) -> list[dict[str, Any]]:
    """Measure latency, frames of a drag, and time to the first picture, of one notebook's cases."""
    opened = chrome.Page(running, lab, f"{name}.ipynb", (1920, 1000))
    start = time.perf_counter()
    opened.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
    opened.explorer()
    first = time.perf_counter() - start
    opened.run_all()  # waits for the driving cell, and leaves everything at its start
    explorer = opened.explorer()
    guess = explorer.root.get_by_role("button", name="just show me", exact=True)
    if guess.count():
        guess.click()
    opened.page.wait_for_timeout(3000)  # a training is played once
    explorer.still()
    explorer.root.evaluate(_WATCH)
    rows = []
    for case, (notebook, label) in CASES.items():
        if notebook != name:
            continue
        slider = explorer.slider(label)
        slider.scroll_into_view_if_needed()
        press(opened.page, slider, 4)  # warms up
        took = press(opened.page, slider, PRESSES)
        rows.append({"what": case, "slider": label, "median_ms": np.median(took), "presses": len(took),
                     "p95_ms": np.percentile(took, 95), "frames_per_second": drag(opened.page, slider),
                     "target_ms": TARGETS[case], "first_picture_s": first})  # fmt: skip
    opened.close()
    return rows


def former_medians(checkout: Path) -> dict[str, float]:
    """Return the medians in ms of another checkout's explorers, by what is measured; its benchmark is run here."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "scripts.benchmarks.explorer_speed", "--folder", place]
        subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)}, check=True)
        frame = pd.read_csv(Path(place, "explorers.csv"))
    return dict(zip(frame["what"], frame["median_ms"], strict=True))


def screenshot(lab: str, running: Any) -> bytes:
    """Return a picture of Grid training in JupyterLab, for the README."""
    opened = chrome.Page(running, lab, "02-grid-training.ipynb", (1920, 1200))
    opened.run_all()
    explorer = opened.explorer()
    explorer.root.get_by_role("button", name="just show me", exact=True).click()
    explorer.press("When bDPO helps")
    explorer.still()
    explorer.root.evaluate("root => root.scrollIntoView({ block: 'start' })")
    picture = explorer.root.screenshot()
    opened.close()
    return picture


def bench(folder: Path = RESULTS, former: Path | None = None) -> None:
    """Measure all, print and save.

    Args:
        folder: Where explorers.md, explorers.csv and explorers.png go.
        former: A checkout of another version, with its packages in this environment; its medians stand beside ours.
    """
    if reason := chrome.why_not():
        print(f"the explorers are not measured: {reason}", file=sys.stderr)
        return
    rows = []
    before = {} if former is None else former_medians(former.resolve())
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
    frame["former_ms"] = frame["what"].map(before).astype(float)
    write_results(folder, "explorers", frame.round(3), page(frame, PRESSES), picture)


if __name__ == "__main__":
    tyro.cli(bench)
