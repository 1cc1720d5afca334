"""gradlab's part of Sphinx: docstrings, mathematics and symbols, pages of source text, the lab, and llms.txt."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.util import ClassNotFound

from gradlab.store.files import write_whole
from scripts.site import docstrings, lab, mathml, symbols, versions
from scripts.site.sources import ROOT

SCHEME = "source:"
FOLDER = "source"
LONG = 60  # characters of a cell


def setup(app: Any) -> dict[str, Any]:
    """Add the parts to Sphinx."""
    app.add_config_value("shown", [], "env", types=(list,))
    app.add_config_value("one_sentence", "", "html", types=(str,))
    app.add_html_math_renderer("mathml", (mathml.visit_inline, None), (mathml.visit_block, None))
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-skip-member", _skip_unexplained_fields)
    app.connect("autodoc-process-signature", _signature)
    app.connect("doctree-resolved", _lead_to_sources)
    app.connect("doctree-resolved", _mark_long_cells)
    app.connect("doctree-resolved", symbols.typeset)
    app.connect("html-collect-pages", _source_pages)
    app.connect("html-page-context", _lab)
    app.connect("build-finished", _scripts)
    app.connect("build-finished", _llms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def linkcode(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of a documented name is shown, for sphinx.ext.linkcode."""
    try:
        thing: Any = importlib.import_module(info["module"])
        for name in info["fullname"].split("."):
            thing = getattr(thing, name)
        thing = inspect.unwrap(getattr(thing, "fget", thing))
        path = Path(inspect.getsourcefile(thing) or "").resolve().relative_to(ROOT)
        return f"{SCHEME}{path.as_posix()}#L{inspect.getsourcelines(thing)[1]}"
    except (AttributeError, ImportError, OSError, TypeError, ValueError):
        return None


def _docstring(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    lines[:] = docstrings.rendered(lines)


def _skip_unexplained_fields(app: Any, what: str, name: str, thing: object, skip: bool, options: Any) -> bool | None:
    """Skip the fields of a named tuple, which its class explains."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def _signature(
    app: Any, what: str, name: str, thing: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    return None if signature is None else (docstrings.for_readers(signature), returned)


def _lead_to_sources(app: Any, doctree: nodes.document, page: str) -> None:
    """Turn links to source files into links to their pages."""
    for node in doctree.findall(nodes.reference):
        target = node.get("refuri", "")
        if target.startswith(SCHEME):
            path, _, line = target.removeprefix(SCHEME).partition("#")
            _pages(app).add(path)
            node["refuri"] = app.builder.get_relative_uri(page, f"{FOLDER}/{path}") + (f"#{line}" if line else "")
            node["internal"] = True


def _mark_long_cells(app: Any, doctree: nodes.document, page: str) -> None:
    """Give long cells of tables a class, by which they stay wide enough to read."""
    for cell in doctree.findall(nodes.entry):
        if len(cell.astext()) > LONG:
            cell["classes"].append("long")


def _pages(app: Any) -> set[str]:
    """Return the paths of the files that pages show; kept with the builder."""
    if not hasattr(app.builder, "shown_sources"):
        app.builder.shown_sources = set(app.config.shown)
    return app.builder.shown_sources


def _source_pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page per file of source text, each line of it with an anchor."""
    form = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=False, nowrap=False)
    for path in sorted(_pages(app)):
        try:
            lexer = get_lexer_for_filename(path)
        except ClassNotFound:
            lexer = get_lexer_by_name("text")
        body = highlight((ROOT / path).read_text("utf-8"), lexer, form).replace('name="L-', 'id="L')
        yield f"{FOLDER}/{path}", {"title": path, "body": f"<h1>{path}</h1>{body}", "display_toc": False}, "page.html"


def _lab(app: Any, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Add the scripts of live explorers to the pages that have a place for one."""
    if "body" in context:
        context["body"] += lab.scripts(context["body"], lambda name: context["pathto"](f"_static/{name}", 1))


def _scripts(app: Any, error: Exception | None) -> None:
    """Write the scripts that pages share: those of live explorers, and the menu of versions."""
    if error is None and app.builder.name == "html":
        lab.write_files(Path(app.outdir) / "_static")
        write_whole({Path(app.outdir) / versions.MENU: versions.menu()})


def _llms(app: Any, error: Exception | None) -> None:
    """Write llms.txt: what the site is, and every page with its title and its first sentence."""
    if error is not None or app.builder.name != "html":
        return
    lines = [f"# {app.config.project}", "", f"> {app.config.one_sentence}", ""]
    for page in sorted(app.env.found_docs, key=lambda page: (page != "index", page)):
        title = app.env.titles[page].astext() if page in app.env.titles else page
        lines.append(f"- [{title}]({page}.html): {_first_sentence(app.env.get_doctree(page))}".rstrip(": "))
    write_whole({Path(app.outdir) / "llms.txt": "\n".join([*lines, ""])})


def _first_sentence(doctree: nodes.document) -> str:
    for node in doctree.findall(nodes.paragraph):
        text = " ".join(node.astext().split())
        return re.split(r"(?<=[.?!])\s", text)[0]
    return ""
