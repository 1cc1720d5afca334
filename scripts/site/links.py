"""Look at a built site: every link inside it leads somewhere, and nothing is loaded from anywhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href", "video": "src"}
_IN_STYLE = re.compile(r"""(?:url\(|@import\s+)\s*["']?((?:https?:)?//[^"')\s]+)""")
_NOT_LOADED = {"canonical", "next", "prev", "index", "search", "author"}


@dataclass
class _Page(HTMLParser):
    """A page's anchors, its links, and the addresses that it loads."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag says."""
        have = {name: value or "" for name, value in attrs}
        self.anchors |= {have[name] for name in ("id", "name") if name in have}
        if tag == "a" and "href" in have:
            self.links.append(have["href"])
        if _LOADED.get(tag) in have and have.get("rel") not in _NOT_LOADED:
            self.loaded.append(have[_LOADED[tag]])


def problems(folder: Path) -> list[str]:
    """Return a line per link that leads nowhere, and per thing that is loaded from a foreign host."""
    folder = folder.resolve()
    pages = {path: _read(path) for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts}
    out = []
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        for target in page.loaded:
            if urlsplit(target).netloc:
                out.append(f"{name} loads {target}")
            elif wrong := _wrong(target, path, folder, pages):
                out.append(f"{name}: {target} {wrong}")
        out += [f"{name}: {link} {wrong}" for link in page.links if (wrong := _wrong(link, path, folder, pages))]
    for path in sorted(folder.rglob("*.css")):
        name = path.relative_to(folder).as_posix()
        out += [f"{name} loads {target}" for target in _IN_STYLE.findall(path.read_text("utf-8"))]
    return out


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf-8"))
    return page


def _wrong(link: str, path: Path, folder: Path, pages: dict[Path, _Page]) -> str:
    """Return why a link of a page leads nowhere, "" where it leads somewhere or out of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(folder) or not target.is_file():
        return "is not there"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "has no such anchor"
    return ""
