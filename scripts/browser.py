"""A real JupyterLab in a real Chromium, for the browser tests and the benchmark of the explorers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOKEN = "gradlab"
WAIT = 120_000  # ms
# anywidget reports this after 2 s of loading on a busy machine; an explorer that it cuts off answers no test.
_LATE = "[anywidget] Failed to initialize model."
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
          "--disable-background-networking", "--disable-component-update", "--disable-sync")  # fmt: skip
_SETTINGS = {  # no news, no updates, no pop-ups; and every cell in the page, not only those in sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
_PLACES = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")


def chromium() -> str | None:
    """Return the path of a Chromium or Chrome that is installed here, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def why_not() -> str | None:
    """Return in words what is missing for a browser; None if nothing is missing."""
    if chromium() is None:
        return "no Chromium on the PATH (on Debian: apt-get install chromium)"
    try:
        import jupyterlab  # noqa: F401
        import playwright  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return None


@contextlib.contextmanager
def lab(root: Path, home: Path, *, dark: bool = False) -> Iterator[str]:
    """Run JupyterLab on the notebooks in ``root``, with all its settings below ``home``; give its address."""
    settings = dict(_SETTINGS)
    if dark:
        settings["apputils-extension/themes"] = {"theme": "JupyterLab Dark"}
    for name, values in settings.items():
        file = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {name: str(home / name.lower()) for name in _PLACES}
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={root}", f"--LabApp.user_settings_dir={home / 'settings'}",
    ]  # fmt: skip
    environment = {**os.environ, **places, "HOME": str(home)}
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status?token={TOKEN}", server, home / "lab.log")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start; its log ends: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Run a headless Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=chromium(), args=list(_FLAGS))
        try:
            yield running
        finally:
            running.close()


class Page:
    """A notebook in JupyterLab; ``problems`` holds the console's errors and the page's exceptions."""

    def __init__(self, browser: Any, address: str, notebook: str, size: tuple[int, int] = (1280, 900)) -> None:
        """Open the notebook and wait for its kernel."""
        self.problems: list[str] = []
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
        context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        context.set_default_timeout(WAIT)
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: str(error) == _LATE or self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.page.goto(f"{address}/lab/tree/{notebook}?token={TOKEN}&reset")
        self._until("window.jupyterapp?.shell.currentWidget?.context?.isReady")
        self._until("jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status === 'idle'")

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def _until(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=WAIT)

    def run_all(self) -> None:
        """Run every cell, and wait until the kernel has nothing more to do."""
        self.page.evaluate(
            """async () => {
              await jupyterapp.commands.execute('notebook:run-all-cells');
              await jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestKernelInfo();
            }"""
        )
        self._until("""[...jupyterapp.shell.currentWidget.content.model.cells]
                       .every(cell => cell.type !== 'code' || cell.executionState === 'idle' && cell.executionCount)""")

    def do(self, code: str) -> str:
        """Run code in the notebook's kernel; return what it prints. RuntimeError where it raises."""
        told = self.page.evaluate(
            """async code => {
              const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              const future = kernel.requestExecute({ code, store_history: false });
              let printed = "", problem = null;
              future.onIOPub = ({ header, content }) => {
                if (header.msg_type === 'stream' && content.name === 'stdout') printed += content.text;
                if (header.msg_type === 'error') problem = `${content.ename}: ${content.evalue}`;
              };
              await future.done;
              return { printed, problem };
            }""",
            code,
        )
        if told["problem"]:
            raise RuntimeError(told["problem"])
        return told["printed"]

    def cell_errors(self) -> list[str]:
        """Return the error outputs of all cells."""
        return self.page.evaluate(
            """() => [...jupyterapp.shell.currentWidget.content.model.cells]
                  .flatMap(cell => cell.type === 'code' ? cell.outputs.toJSON() : [])
                  .filter(output => output.output_type === 'error').map(output => output.evalue)"""
        )

    def explorers(self) -> int:
        """Return how many explorers there are, once all outputs of the cells, ratings too, are on the page."""
        self._until(
            """[...jupyterapp.shell.currentWidget.content.model.cells]
                 .flatMap(cell => cell.type === 'code' ? cell.outputs.toJSON() : [])
                 .filter(output => output.data?.['application/vnd.jupyter.widget-view+json']).length
               === document.querySelectorAll('.gl-explorer, .gl-rating').length"""
        )
        return self.page.locator(".gl-explorer").count()

    def explorer(self, index: int = 0) -> Explorer:
        """Return one of the explorers on the page, once it is drawn."""
        found = self.page.locator(".gl-explorer").nth(index)
        found.wait_for()
        self._until(f"Number(document.querySelectorAll('.gl-explorer')[{index}].dataset.drawn) > 0")
        return Explorer(self.page, found)

    def close(self) -> None:
        """Close the page, and forget unsaved changes."""
        self.page.context.close()


class Explorer:
    """An explorer in the page."""

    def __init__(self, page: Any, root: Any) -> None:
        """Take the explorer whose outermost element is ``root``."""
        self.page, self.root = page, root

    def table(self) -> str:
        """Return the text of the table of numbers."""
        return self.root.locator(".gl-table").first.inner_text()

    def trouble(self) -> str:
        """Return what the explorer says of its troubles; "" for none."""
        return "".join(self.root.locator(".gl-trouble").all_inner_texts())

    def content(self) -> list[str]:
        """Return all charts and tables, so that two equal contents look equal to the last pixel.

        Left out is what cannot be seen: the order of attributes, and the numbers in the names of clipping frames, which
        count the charts that were ever made.
        """
        script = r"""root => {
          const told = part => part.nodeType === Node.TEXT_NODE ? part.data : `<${part.nodeName} ` +
            [...part.attributes].map(({ name, value }) => `${name}="${value}"`).sort().join(" ") + ">" +
            [...part.childNodes].map(told).join("");
          return [...root.querySelectorAll('.gl-stage-all :is(svg, canvas, img, table)')].map(part =>
            part.tagName === 'CANVAS' ? part.toDataURL() : part.tagName === 'IMG' ? part.alt
              : told(part).replace(/gl-frame-\d+/g, 'gl-frame'));
        }"""
        return self.root.evaluate(script)

    def slider(self, label: str) -> Any:
        """Return the track of the slider with this label."""
        return self.root.locator('input[type="range"]').and_(self.root.get_by_role("slider", name=label, exact=True))

    def settled(self, act: Any) -> None:
        """Do something, and wait until its effect is drawn."""
        count = self.drawn()
        act()
        self.page.wait_for_function(
            "([root, count]) => Number(root.dataset.drawn) > count", arg=[self.root.element_handle(), count]
        )
        self.still()

    def still(self) -> None:
        """Wait until nothing has changed for a while: coalesced moves and longer work are then over."""
        script = """async root => {
          let last = "", since = performance.now();
          while (performance.now() - since < 300) {
            await new Promise(requestAnimationFrame);
            const here = `${root.dataset.drawn} ${root.ariaBusy}`;
            if (here !== last || root.ariaBusy === "true") [last, since] = [here, performance.now()];
          }
        }"""
        self.root.evaluate(script)

    def press(self, name: str) -> None:
        """Click the button of that name, and wait until its effect is drawn."""
        self.settled(lambda: self.root.get_by_role("button", name=name, exact=True).click())

    def drawn(self) -> int:
        """Return how often the explorer was drawn for the last state."""
        return int(self.root.get_attribute("data-drawn") or 0)
