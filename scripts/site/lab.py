"""The live lab on the first page: the bundle that ``make web`` builds, inside the page.

A page opened from file:// may not load a module from a file, so the bundle's text stands in the page, and one classic
script imports it from a Blob. The bundle decides what is shown: if it exports ``mountLab``, that function is called
with the element ``#gradlab-lab``; if not, or if anything fails, the picture in that element stays.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from scripts.site.sources import ROOT

BUNDLE = ROOT / "gradlab/web/gradlab.js"
MOUNT = "mountLab"
_START = """<script>
(() => {
  const root = document.getElementById("gradlab-lab");
  const url = URL.createObjectURL(new Blob([BUNDLE], { type: "text/javascript" }));
  const failed = (error) => {
    const note = document.createElement("p");
    note.setAttribute("role", "status");
    note.textContent = `The live lab does not run here: ${error.message ?? error}`;
    root.append(note);
  };
  import(url).then((web) => web.MOUNT(root)).catch(failed).finally(() => URL.revokeObjectURL(url));
})();
</script>
"""


def offers_lab(bundle: str) -> bool:
    """Say whether a bundle exports the function that shows the lab."""
    exports = re.findall(r"export\s*\{([^}]*)\}", bundle)
    names = [name.split(" as ")[-1].strip() for names in exports for name in names.split(",")]
    return MOUNT in names


def script(bundle: Path = BUNDLE) -> str:
    """Return the script of the first page, "" where there is no lab to show."""
    text = bundle.read_text("utf-8") if bundle.is_file() else ""
    if not offers_lab(text):
        return ""
    literal = json.dumps(text, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\!--")
    literal = literal.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return _START.replace("MOUNT", MOUNT).replace("BUNDLE", literal)
