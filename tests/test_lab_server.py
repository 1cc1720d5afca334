"""`gradlab lab` runs no file of the current folder, listens on this machine alone, and asks for a token."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLANTED = (
    "ipykernel_launcher", "jupyter_config", "jupyter_core", "jupyter_lab_config", "jupyter_server_config", "jupyterlab",
    "notebook", "runpy", "tornado", "traitlets", "zmq",
)  # fmt: skip
_HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server as a user gets it, started in a folder with planted modules: its file, the folder and its process."""
    pytest.importorskip("jupyterlab")
    psutil = pytest.importorskip("psutil")
    base = tmp_path_factory.mktemp("lab")
    folder, home = base / "work", base / "home"
    folder.mkdir()
    (home / "settings").mkdir(parents=True)
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(base / 'RAN')!r}, 'a').write(__name__)\n")
    settings = {"ServerApp": {"allow_root": True, "open_browser": False}, "LabApp": {"open_browser": False}}
    (home / "settings/jupyter_server_config.json").write_text(json.dumps(settings))
    places = {"HOME": home, "JUPYTER_CONFIG_DIR": home / "settings", "JUPYTER_DATA_DIR": home / "data",
              "JUPYTER_RUNTIME_DIR": home / "runtime", "IPYTHONDIR": home / "ipython", "PYTHONPATH": ROOT}  # fmt: skip
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    code = "import sys; from gradlab.cli import main; sys.exit(main(['lab']))"
    with (base / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-P", "-c", code], cwd=folder, env=environment,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        files = []
        while time.monotonic() < end and started.poll() is None and not files:
            time.sleep(0.1)
            files = list((home / "runtime").glob("jpserver-*.json"))
        assert files, (base / "log").read_text(errors="replace")[-2000:]
        page = json.loads(files[0].read_text())
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError), get(page, "api/status"):
                break
            time.sleep(0.1)
        yield page, base, psutil.Process(page["pid"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()


def get(page, path, *, token=True, data=None):
    headers = {"Authorization": f"token {page['token']}"} if token else {}
    body = None if data is None else json.dumps(data).encode()
    return _HTTP.open(urllib.request.Request(page["url"] + path, body, headers), timeout=20)


@pytest.mark.slow
def test_the_server_runs_nothing_of_the_current_folder(server):
    _, base, _ = server
    assert not (base / "RAN").exists(), (base / "RAN").read_text()


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(server):
    _, _, process = server
    listening = {seen.laddr.ip for seen in process.net_connections("inet") if seen.status == "LISTEN"}
    assert listening
    assert listening <= {"127.0.0.1", "::1"}


@pytest.mark.slow
def test_it_asks_for_a_token(server):
    page, _, _ = server
    assert len(page["token"]) >= 32
    with get(page, "api/contents") as answer:
        assert answer.status == 200
    for path in ("api/contents", "api/kernels"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            get(page, path, token=False)


@pytest.mark.slow
def test_a_kernel_imports_from_its_notebooks_folder(server):
    page, base, _ = server
    from jupyter_client import BlockingKernelClient

    notebooks = base / "work/gradlab-notebooks"
    (notebooks / "beside.py").write_text("value = 6 * 7\n")
    asked = {"path": "00-start.ipynb", "name": "", "type": "notebook", "kernel": {"name": "python3"}}
    with get(page, "api/sessions", data=asked) as answer:
        kernel = json.load(answer)["kernel"]["id"]
    client = BlockingKernelClient(connection_file=str(base / f"home/runtime/kernel-{kernel}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(30)
        said = []
        client.execute_interactive("import beside; print(beside.value)", timeout=30, output_hook=said.append)
        assert [message["content"].get("text") for message in said if message["msg_type"] == "stream"] == ["42\n"]
    finally:
        client.stop_channels()
