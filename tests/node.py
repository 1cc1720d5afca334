"""Node, for tests of what runs in a browser: the built file, on numbers that the library computed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent.parent / "gradlab/web"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node on the PATH (make node installs it)")


def packages_missing():
    """Return why the front end cannot be built here, or None."""
    installed = WEB / "node_modules/.package-lock.json"
    if not installed.exists():
        return "no packages in gradlab/web/node_modules (make node installs them)"
    wanted = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    there = json.loads(installed.read_text("utf-8"))["packages"]
    others = [name for name, one in there.items() if wanted.get(name, {}).get("version") != one["version"]]
    return f"other versions than package-lock.json's are installed: {', '.join(others)}" if others else None


needs_packages = pytest.mark.skipif(packages_missing() is not None, reason=str(packages_missing()))


def node(*arguments, given=None):
    """Run Node in the front end's folder, with ``given`` as JSON on standard input; return what it prints."""
    run = subprocess.run(["node", *arguments], input=json.dumps(given), capture_output=True, text=True, cwd=WEB)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
