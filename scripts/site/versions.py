"""Versions of the site side by side: one folder per version, and in each the same menu, which needs no network.

``latest`` is main's; a release has its number. A page that is opened from a folder can read no JSON, so the menu is a
classic script in every version, written anew when a version is added.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.version import Version

from gradlab.store.files import write_whole
from scripts.release import TAG, version_of

LATEST = "latest"
MENU = "_static/versions.js"
_TITLE = "Versions of this site:"
_START = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url={newest}/index.html">
<title>gradlab</title>
<p>{title}</p>
<ul>
{links}
</ul>
</html>
"""


def menu(here: str = "", versions: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the script of the menu: the version ``here``, and the pages of each version, by its name.

    Without arguments it is that of a site that stands alone, which shows no menu.
    """
    value = {"here": here, "pages": {name: list(pages) for name, pages in (versions or {}).items()}}
    return f"globalThis.gradlabVersions = {json.dumps(value)};\n"


def add(site: Path, folder: Path, tag: str = "") -> None:
    """Put a built site among the versions in ``folder``, in place of an older one of that name; menus follow.

    tag  v1.2.3; "": the version is ``latest``.

    ValueError in one line for a tag that names no version, and for a folder with files that were not written here.
    """
    name = version_of(tag) if tag else LATEST
    ours = {"index.html": _TITLE in _text(folder / "index.html"), name: (folder / name / MENU).is_file()}
    foreign = [path for path, written_here in ours.items() if (folder / path).exists() and not written_here]
    if foreign:
        raise ValueError(
            f"versions: {folder / foreign[0]} was not written by make site; accepted: a new folder, or its own"
        )
    if (folder / name).exists():
        shutil.rmtree(folder / name)
    shutil.copytree(site, folder / name)
    found = names(folder)
    pages = {each: _pages(folder / each) for each in found}
    write_whole({folder / each / MENU: menu(each, pages) for each in found})
    best = newest(found)
    links = "\n".join(f'<li><a href="{each}/index.html">{each}</a></li>' for each in found)
    listed = (folder / best / "llms.txt").read_text("utf-8").replace("](", f"]({best}/")
    write_whole(
        {folder / "index.html": _START.format(title=_TITLE, newest=best, links=links), folder / "llms.txt": listed}
    )


def names(folder: Path) -> list[str]:
    """Return the names of the versions in a folder: ``latest``, then releases from the newest on."""
    found = [path.parent.name for path in folder.glob("*/index.html")]
    releases = sorted((name for name in found if TAG.fullmatch(f"v{name}")), key=Version, reverse=True)
    return [*([LATEST] if LATEST in found else []), *releases]


def newest(found: Sequence[str]) -> str:
    """Return the version that the start page leads to: the newest release, if there is one, and no trial of one."""
    releases = [name for name in found if name != LATEST and not Version(name).is_prerelease]
    return releases[0] if releases else found[0]


def _text(file: Path) -> str:
    return file.read_text("utf-8", errors="replace") if file.is_file() else ""


def _pages(version: Path) -> list[str]:
    """Return the pages of a version, without ``.html``; source texts are left out."""
    found = (path.relative_to(version).as_posix() for path in version.rglob("*.html"))
    return sorted(re.sub(r"\.html$", "", page) for page in found if not page.startswith(("source/", "_")))
