"""Lay out the sources of the site: the pages of docs/, and every page of the repository from where it is.

A page keeps its path in the repository; docs/ itself becomes the root. Links are rewritten, so that they lead to a page
of the site, to the text of a source file, or to a copy of any other file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.site import lab

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (
    "docs/**/*.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md",
    "scripts/README.md", "figures/*.md", "figures/benchmarks/*.md", "figures/benchmarks/cuda/*.md",
    "notebooks/[!.]*.ipynb",
)  # fmt: skip
CODE = (".py", ".pyi", ".toml", ".cff", ".sh")  # shown as pages of source text
LINK = re.compile(r"(?P<open>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\)")
_CODE_BLOCK = re.compile(r"(^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)\s*?$)", re.DOTALL | re.MULTILINE)
_INCLUDE = re.compile(r'^```\{include\} (\S*README\.md)\n:start-after: "?(.+?)"?\n', re.MULTILINE)
_FROM_HERE = re.compile(r"^(```\{include\} )[./]*(README\.md)$", re.MULTILINE)


def lay_out(folder: Path, generated: Mapping[str, str], root: Path = ROOT) -> set[str]:
    """Write the sources of all pages below ``folder``; return the paths of files whose text the site shows.

    ``generated`` has the text of further pages, by their path among the sources; its links are those of docs/. Files
    that have not changed are left alone, and files that no longer belong there are deleted. Raises ValueError for links
    that lead nowhere.
    """
    pages = {path.relative_to(root).as_posix() for pattern in PAGES for path in root.glob(pattern)}
    links = Links(root, pages | {f"docs/{path}" for path in generated})
    written = {}
    for page in sorted(pages):
        text = (root / page).read_text("utf-8")
        rewrite = notebook if page.endswith(".ipynb") else markdown
        written[place(page)] = rewrite(text, lambda target, page=page: links.of(target, page)).encode()
    for path, text in generated.items():
        written[path] = markdown(text, lambda target, path=path: links.of(target, f"docs/{path}")).encode()
    if links.broken:
        raise ValueError("links that lead nowhere: " + "; ".join(sorted(links.broken)))
    written |= {path: (root / path).read_bytes() for path in links.copied}
    for path, content in written.items():
        target = folder / path
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in written:
            path.unlink()
    return links.shown


def place(page: str) -> str:
    """Return the path of a page among the site's sources, given its path in the repository."""
    return page.removeprefix("docs/")


class Links:
    """The targets of the links of all pages; paths are those of the repository.

    copied  files that pages show or offer; shown  files whose text the site shows as a page; broken  links that lead
    nowhere, each with its page.
    """

    def __init__(self, root: Path, pages: set[str]) -> None:
        """Take the repository's root and the paths of all pages."""
        self.root, self.pages = root, pages
        self.copied: set[str] = set()
        self.shown: set[str] = set()
        self.broken: set[str] = set()
        self.sections = readme_sections(root)

    def of(self, target: str, page: str) -> str | None:
        """Return what a link of a page becomes; None where only its text can stay, as for a folder."""
        if "://" in target or target.startswith(("mailto:", "#", "{")):
            return target
        path, _, anchor = target.partition("#")
        path = _normal(PurePosixPath(page).parent / path)
        after = f"#{anchor}" if anchor else ""
        file = self.root / path
        if path == "README.md":
            return self.sections.get(anchor, "/index.md")
        if path in self.pages:
            return f"/{place(path)}{after}"
        if not file.exists() or path.startswith(".."):
            self.broken.add(f"{page}: {target}")
            return target
        if file.is_dir():
            return None
        if path.endswith(CODE) or file.suffix == "":
            self.shown.add(path)
            return f"source:{path}"
        self.copied.add(path)
        return f"/{path}"


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def readme_sections(root: Path) -> dict[str, str]:
    """Return the page of the site that includes each section of README.md, by the section's anchor on GitHub."""
    found = {}
    for path in sorted((root / "docs").rglob("*.md")):
        for _, start in _INCLUDE.findall(path.read_text("utf-8")):
            if start.startswith("## "):
                found[anchor_of(start.removeprefix("## "))] = "/" + place(path.relative_to(root).as_posix())
    return found


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _anchor_here(target: str) -> str:
    """Return a link of a notebook; one within it, which has Jupyter's anchor, gets GitHub's."""
    return f"#{anchor_of(target[1:].replace('-', ' '))}" if target.startswith("#") else target


def markdown(text: str, link: Callable[[str], str | None]) -> str:
    """Return a page with its links rewritten, except in blocks of code; README is included from the sources' root."""
    parts = re.split(_CODE_BLOCK, text)  # text, block, its fence, text, …
    parts[::3] = [_relinked(part, link) for part in parts[::3]]
    parts[1::3] = [_FROM_HERE.sub(r"\1/\2", part) for part in parts[1::3]]
    del parts[2::3]
    return "".join(parts)


def _relinked(text: str, link: Callable[[str], str | None]) -> str:
    def one(match: re.Match[str]) -> str:
        inner = _relinked(match["text"], link) if "](" in match["text"] else match["text"]
        target = link(match["target"])
        if target is None:
            return inner
        return f"{match['open']}[{inner}]({target})"

    return LINK.sub(one, text)


def notebook(text: str, link: Callable[[str], str | None]) -> str:
    """Return a notebook with its links rewritten, folded cells folded, words for its pictures, places for explorers."""
    content: dict[str, Any] = json.loads(text)
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = markdown(source, lambda target: link(_anchor_here(target)))
            continue
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"] = {"tags": ["hide-cell"]}
        for output in list(cell["outputs"]):
            if "image/png" in output.get("data", {}):
                words = "".join(output["data"].get("text/plain", "a picture")).replace('"', "”")
                cell["metadata"] = {**cell["metadata"], "mystnb": {"image": {"alt": words}}}
                cell["outputs"] = [*_place(source), *cell["outputs"]]
    return json.dumps(content, ensure_ascii=False, indent=1)


def _place(source: str) -> list[dict[str, Any]]:
    """Return the output that marks the place of a cell's explorer; none where it shows none."""
    marker = lab.marker(source)
    return [{"output_type": "display_data", "data": {"text/html": marker}, "metadata": {}}] if marker else []
