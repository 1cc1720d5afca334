"""Node, for tests of what runs in a browser: the built file, on numbers that the library computed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parent.parent / "gradlab/web"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node on the PATH (make node installs it)")


def node(*arguments, given=None):
    """Run Node in the front end's folder, with ``given`` as JSON on standard input; return what it prints."""
    run = subprocess.run(["node", *arguments], input=json.dumps(given), capture_output=True, text=True, cwd=WEB)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout
