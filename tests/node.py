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


FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
needs_firefox = pytest.mark.skipif(FIREFOX is None, reason="no Firefox on the PATH (make firefox installs it)")
needs_packages = pytest.mark.skipif(packages_missing() is not None, reason=str(packages_missing()))


def node(*arguments, given=None):
    """Run Node in the front end's folder, with ``given`` as JSON on standard input; return what it prints."""
    run = subprocess.run(["node", *arguments], input=json.dumps(given), capture_output=True, text=True, cwd=WEB)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def with_bundle(body, given):
    """Run the body of a function that has the built file as ``lab``, and ``given``; return what it returns."""
    return _with(f'import * as lab from "{(WEB / "gradlab.js").as_posix()}";', body, given)


def with_rating(body, given):
    """Run the body of a function that has the built file of ratings as ``rating``; return what it returns."""
    file = (WEB / "rating.js").as_posix()
    return _with(f'const rating = Function(readFileSync("{file}", "utf8") + "; return gradlabRating")();', body, given)


def _with(start, body, given):
    code = f"""
      import {{ readFileSync }} from "node:fs";
      {start}
      const given = JSON.parse(readFileSync(0, "utf8"));
      const answer = await (async () => {{ {body} }})();
      console.log(JSON.stringify(answer, (key, value) => ArrayBuffer.isView(value) ? [...value] : value));
    """
    return json.loads(node("--input-type=module", "-e", code, given=given))


def in_firefox(file, address):
    """Open an address in Firefox as a file of ``gradlab/web/test`` does; return what that prints."""
    return json.loads(node(f"test/{file}", FIREFOX, address))
