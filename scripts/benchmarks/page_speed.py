"""Latency of the live lab's page in a real Chromium: ``python -m scripts.benchmarks.page_speed``.

Each number is a median from an input event of a real mouse to the end of the frame in which the last picture changed.
Moves are further apart than they take; "drag" is a fast drag, and counts pictures per second. A check is printed
beside: the numbers that are shown are those of ``fit``.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import pair_loss
from gradlab.widgets.page import write_page
from scripts import browser as chrome

WATCH = """() => {
  globalThis.took = [];
  globalThis.shell = Object.values(gradlabLab.shells)[0];
  let began = 0;
  const port = new MessageChannel();
  port.port1.onmessage = () => {
    if (began) took.push(performance.now() - began);
    began = 0;
  };
  const listen = (event) => (began ||= event.timeStamp);
  for (const kind of ["input", "pointermove", "mousemove"]) {
    document.addEventListener(kind, (event) => (kind === "input" || event.buttons) && listen(event), { capture: true });
  }
  new MutationObserver(() => requestAnimationFrame(() => port.port2.postMessage(0)))
    .observe(shell.element, { attributes: true, attributeFilter: ["data-drawn"] });
}"""
MOVES = 40
SCRUBBER = "how far through training, %"
CASES = (  # name, settings in the address, slider, and how far it is dragged in pixels
    ("pair, two losses, policy dragged", "#view=pair&guess=shown", "policy", 60.0),
    ("pair, six losses, β", "#view=pair&guess=shown&count=6", "β of A", 60.0),
    ("grid, two losses, R: both trained anew", "#view=grid&guess=shown", "height R", 60.0),
    ("grid, two losses, β of A: one trained anew", "#view=grid&guess=shown", "β of A", 60.0),
    ("grid, two losses, scrubber", "#view=grid&guess=shown", SCRUBBER, 200.0),
    ("grid, six losses, R", "#view=grid&guess=shown&count=6", "height R", 60.0),
)


def measured(page: Any, place: Any, far: float) -> list[float]:
    """Drag from the middle of a place to the right in small moves; return each move's latency in ms."""
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate("took.length = 0")
    for move in range(MOVES):
        page.mouse.move(x + far * (move + 1) / MOVES, y)
        page.wait_for_timeout(60)
        while page.evaluate("shell.element.ariaBusy === 'true'"):
            page.wait_for_timeout(10)
        page.wait_for_timeout(40)
    page.mouse.up()
    return page.evaluate("took")


def pictures(page: Any, place: Any, far: float) -> float:
    """Drag as fast as events come; return changes of the picture per second."""
    box = place.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(
        """() => {
          globalThis.drawn = 0;
          const draw = shell.view.draw.bind(shell.view);
          shell.view.draw = (state) => { drawn++; draw(state); };
        }"""
    )
    page.mouse.move(x, y)
    page.mouse.down()
    start = time.perf_counter()
    for move in range(150):
        page.mouse.move(x + far * (move + 1) / 150, y)
    seconds = time.perf_counter() - start
    page.mouse.up()
    return page.evaluate("drawn") / seconds


def check(page: Any) -> str:
    """Return how far the shown utilities are from those of ``fit``."""
    state, numbers = page.evaluate("[shell.history.state, shell.view.numbers()]")
    world = gaussian_world(scale=state["scale"])
    gaps = []
    for slot in "ab":
        loss = pair_loss(state[f"loss_{slot}"], beta=state[f"beta_{slot}"])
        utility = fit(world, loss, dtype="float32").history["utility"].iloc[-1]
        gaps.append(abs(numbers[slot]["utility"] - utility))
    return f"numbers beside fit: {max(gaps):.1e} nats apart"


def main() -> None:
    """Print a line per case."""
    parser = argparse.ArgumentParser(prog="python -m scripts.benchmarks.page_speed", description=__doc__)
    parser.add_argument("--page", type=Path, help="a page that is there; default: a new one")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in pixels; default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="pixels of the screen per pixel; default: %(default)s")
    arguments = parser.parse_args()
    file, size = arguments.page, {"width": arguments.width, "height": 800}
    if file is not None and not file.is_file():
        parser.error(f"--page must be a file that is there, got {file}")
    with tempfile.TemporaryDirectory() as folder, chrome.browser() as running:
        if file is None:
            file = Path(folder) / "lab.html"
            write_page(file)
        code = file.read_bytes()
        print(f"page: {len(code) / 1e3:.0f} kB, {len(gzip.compress(code)) / 1e3:.0f} kB compressed")
        for name, fragment, slider, far in CASES:
            page = running.new_context(viewport=size, device_scale_factor=arguments.scale).new_page()
            start = time.perf_counter()
            page.goto(file.resolve().as_uri() + fragment)
            page.locator(".gl-stage-all tbody td").first.wait_for()
            opened = time.perf_counter() - start
            page.wait_for_timeout(500)
            page.evaluate(WATCH)
            place = page.get_by_role("slider", name=slider, exact=True).first
            if slider == SCRUBBER:
                place.fill("300")
            took = measured(page, place, far)
            quarter, middle, _ = statistics.quantiles(took, n=4)
            line = f"{name}: {middle:.1f} ms, a quarter below {quarter:.1f} ms, opened in {opened:.2f} s"
            if "trained anew" in name:
                page.wait_for_timeout(300)
                line += f", {check(page)}, drag {pictures(page, place, -far):.0f} pictures/s"
            print(line, flush=True)
            page.context.close()


if __name__ == "__main__":
    main()
