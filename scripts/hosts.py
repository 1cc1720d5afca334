"""Try an explorer in the hosts that can be installed here: ``python -m scripts.hosts``, with a picture of each.

Each host is started and opened in Chromium, the first slider of the explorer moves by five key presses, and then the
explorer must look different. docs/how-to/hosts.md says what was found. ``pip install voila marimo`` first; a host that
is not installed is passed over.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts import browser as chrome

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks/02-grid-training.ipynb"
SLIDER = ".gradlab-explorer :is([role=slider], input[type=range]), .gl-explorer input[type=range]"
REVEAL = "just show me"
WAIT = 60  # seconds until an explorer is there, and until it answers
_MARIMO = """import marimo

app = marimo.App()


@app.cell
def _():
    import gradlab as gl

    explorer = gl.widgets.GridExplorer()
    explorer.front
    return
"""


@dataclass
class Tried:
    """How an explorer did in a host.

    moved     whether it looked different after the slider had moved.
    outside   addresses beyond this machine that the host's page asked for.
    problems  errors in the page's console, and what the explorer itself complains of.
    """

    moved: bool = False
    outside: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _served(command: Callable[[int], list[str]], folder: Path) -> Iterator[str]:
    """Run a server that is started by a command with a free port; give its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", *command(port)], cwd=folder, stdout=log, stderr=log)
    try:
        _until_answers(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _until_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 2 * WAIT
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=WAIT):
            return
        time.sleep(0.3)
    raise RuntimeError(f"no answer from {' '.join(map(str, server.args))}")  # type: ignore[arg-type]


def _voila(folder: Path) -> AbstractContextManager[str]:
    shutil.copy(NOTEBOOK, folder)
    return _served(lambda port: ["voila", NOTEBOOK.name, "--no-browser", f"--port={port}"], folder)


def _marimo(folder: Path) -> AbstractContextManager[str]:
    (folder / "app.py").write_text(_MARIMO, "utf-8")
    return _served(lambda port: ["marimo", "run", "app.py", "--headless", "--no-token", f"--port={port}"], folder)


SERVED: dict[str, Callable[[Path], AbstractContextManager[str]]] = {"voila": _voila, "marimo": _marimo}
HOSTS = ("jupyterlab", *SERVED)


def missing(host: str) -> str | None:
    """Return in words what a trial of a host lacks; None if nothing."""
    return chrome.why_not() or (None if importlib.util.find_spec(host) else f"{host} is not installed")


def tried(host: str, browser: Any, picture: Path | None = None) -> Tried:
    """Start a host, open it in a browser and move the explorer; ``picture`` is where to keep a screenshot (PNG)."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        seen = Tried()
        if host == "jupyterlab":
            for part in ("root", "home"):
                (folder / part).mkdir()
            shutil.copy(NOTEBOOK, folder / "root")
            address = stack.enter_context(chrome.lab(folder / "root", folder / "home"))
            notebook = chrome.Page(browser, address, NOTEBOOK.name)
            notebook.run_all()
            page, seen.problems = notebook.page, notebook.problems
        else:
            address = stack.enter_context(SERVED[host](folder))
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        stack.callback(page.context.close)
        page.on("request", lambda request: _note(request.url, address, seen.outside))
        page.on("console", lambda said: seen.problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: seen.problems.append(str(error)))
        if host != "jupyterlab":
            page.goto(address, timeout=1000 * WAIT)
        seen.moved = _moved(page)
        seen.problems += page.locator(".gl-trouble:visible").all_inner_texts()
        if picture:
            page.locator(SLIDER).first.scroll_into_view_if_needed()
            page.screenshot(path=picture)
        return seen


def _note(url: str, address: str, outside: list[str]) -> None:
    if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
        outside.append(url)


def _moved(page: Any) -> bool:
    """Move the first slider, and say whether the explorer then looks different beside its sliders."""
    from playwright.sync_api import TimeoutError as TooLate

    try:
        page.locator(SLIDER).first.wait_for(timeout=1000 * WAIT)
    except TooLate:
        return False
    if (button := page.get_by_role("button", name=REVEAL, exact=True)).count():
        button.first.click()  # before a guess, what it is about is not drawn
    slider = page.locator(SLIDER).first
    slider.scroll_into_view_if_needed()
    shown = slider.locator(
        "xpath=ancestor::*[contains(@class, 'gradlab-explorer') or contains(@class, 'gl-explorer')][1]"
    )
    shown = shown.locator("canvas, svg, .gradlab-picture").locator("visible=true")
    before = _still(page, shown)
    for _ in range(5):
        slider.press("ArrowRight")
    page.wait_for_timeout(500)
    return bool(before) and _still(page, shown) != before


def _still(page: Any, shown: Any) -> list[bytes]:
    """Return the pictures of an explorer once they no longer change."""
    end, before = time.monotonic() + WAIT, [b""]
    while time.monotonic() < end:
        now = [one.screenshot() for one in shown.all()]
        if now == before:
            break
        before = now
        page.wait_for_timeout(700)
    return before


def main() -> int:
    """Try the hosts and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m scripts.hosts", description=__doc__)
    parser.add_argument("hosts", nargs="*", help=f"of {', '.join(HOSTS)}; left out: all")
    parser.add_argument("--out", type=Path, default=Path("build/hosts"), help="folder of the pictures")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.hosts) - set(HOSTS)):
        parser.error(f"hosts: {', '.join(unknown)} is unknown; accepted: {', '.join(HOSTS)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    with chrome.browser() as browser:
        for host in asked.hosts or HOSTS:
            if lacks := missing(host):
                print(f"{host}: not tried, {lacks}")
                continue
            seen = tried(host, browser, asked.out / f"{host}.png")
            print(f"{host} {importlib.metadata.version(host)}: {'moves' if seen.moved else 'does not move'}")
            print(*(f"  asks for {url}" for url in seen.outside), *(f"  {text}" for text in seen.problems), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
