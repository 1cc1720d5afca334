"""Pages of the site that are written from code: the theory with its proofs, the reference of the public names."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import pkgutil
from types import ModuleType

import gradlab
from gradlab import cli
from gradlab.experiments.report.proofs import PROOFS, SETTING
from scripts.site import docstrings
from scripts.site.sources import ROOT

COLUMNS = 72  # of the help of a command
PROOFS_PAGE = "explanation/proofs.md"
_TOC = "```{{toctree}}\n:hidden:\n\n{}\n```\n"


def generated() -> dict[str, str]:
    """Return the text of all pages written from code, by their path among the sources of the site."""
    return {PROOFS_PAGE: proofs(), "reference/command-line.md": command_line(), **api()}


def proofs() -> str:
    """Return the page of docs/ with every proof as a section: theorem, proof, and the test that could refute it."""
    lines = ["```{admonition} The setting of the theorems on weights", SETTING, "```"]
    for name, proof in PROOFS.items():
        lines += ["", f"## {name}", "", f"**Theorem.** {proof.theorem}", "", f"*Proof.* {proof.proof}", ""]
        lines += [f"Checked by `{proof.test}`."]
    page = (ROOT / "docs" / PROOFS_PAGE).read_text("utf-8")
    return page.replace("<!-- proofs -->", "\n".join(lines))


def command_line() -> str:
    """Return a page with the help of every command, as the command prints it."""
    lines = ["# The command line", "", "[Commands by example](commands.md) shows how to start.", ""]
    for name in cli.COMMANDS:
        lines += [f"## gradlab {name}", "", "```text", _help(name), "```", ""]
    return "\n".join(lines)


def _help(name: str) -> str:
    """Return what ``gradlab NAME --help`` prints into a file."""
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(COLUMNS)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
            cli.main([name, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return printed.getvalue().strip()


def api() -> dict[str, str]:
    """Return the reference: a page of the names of ``gradlab`` itself, and a page per room that it names."""
    modules = {name: getattr(gradlab, name) for name in gradlab.__all__}
    rooms = {name: room for name, room in modules.items() if isinstance(room, ModuleType)}
    own = sorted(set(gradlab.__all__) - set(rooms), key=lambda name: (inspect.isclass(modules[name]), name))
    pages = {"reference/api/gradlab.md": _page("gradlab", gradlab, [f"gradlab.{name}" for name in own])}
    for name, room in rooms.items():
        pages[f"reference/api/{name}.md"] = _page(f"gradlab.{name}", room, _members(room, set(own)))
    names = "\n".join(path.removeprefix("reference/api/") for path in pages)
    index = [
        "# Python",
        "",
        "What stands here is promised: `import gradlab as gl`, and these names are there. Each is imported when it is",
        "first used. Shapes, units and errors stand in the docstrings; `[source]` leads to the code.",
        "",
        *(f"- [{name}]({name}.md): {_first_line(room)}" for name, room in {"gradlab": gradlab, **rooms}.items()),
        "",
        _TOC.format(names),
    ]
    return {"reference/api/index.md": "\n".join(index), **pages}


def _first_line(thing: object) -> str:
    text = inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0]
    return " ".join(text.split()).replace("``", "`")


def _members(room: ModuleType, elsewhere: set[str]) -> list[str]:
    """Return the full names of what a room offers, except the names that ``gradlab`` itself has."""
    offered = list(getattr(room, "__all__", ())) or _defined(room)
    if offered:
        return [f"{room.__name__}.{name}" for name in offered if name not in elsewhere]
    parts = [importlib.import_module(f"{room.__name__}.{part.name}") for part in pkgutil.iter_modules(room.__path__)]
    return [f"{part.__name__}.{name}" for part in parts for name in _defined(part)]


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and callable(thing) and getattr(thing, "__module__", None) == module.__name__
    ]


def _page(title: str, module: ModuleType, names: list[str]) -> str:
    """Return a page of names. A room has a section per file, with the file's docstring, which says what shapes mean."""
    files: dict[str, list[str]] = {}
    for name in sorted(names, key=_is_data):
        files.setdefault(module.__name__ if module is gradlab else _file(name), []).append(name)
    lines = [f"# {title}", "", _first_line(module)]
    for file, its in files.items():
        if file != module.__name__:
            lines += ["", f"## {file.removeprefix(f'{module.__name__}.')}"]
        text = inspect.cleandoc(importlib.import_module(file).__doc__ or "") if len(files) > 1 else ""
        more = docstrings.rendered(text.splitlines()) if file != module.__name__ else []
        lines += ["", "```{eval-rst}", *more, "", *(f"{_directive(name, _thing(name))}\n" for name in its), "```"]
    return "\n".join([*lines, ""])


def _thing(name: str) -> object:
    home, _, last = name.rpartition(".")
    return getattr(importlib.import_module(home), last)


def _file(name: str) -> str:
    """Return the module in whose file a thing is defined; that of its full name where it does not say."""
    found = getattr(_thing(name), "__module__", None)
    return found if found and found.startswith("gradlab.") else name.rpartition(".")[0]


def _is_data(name: str) -> bool:
    thing = _thing(name)
    return not (inspect.isclass(thing) or inspect.isroutine(thing) or isinstance(thing, ModuleType))


def _directive(name: str, thing: object) -> str:
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :member-order: bysource"
    if isinstance(thing, ModuleType):
        return f".. automodule:: {name}\n   :members:"
    if inspect.isroutine(thing):
        return f".. autofunction:: {name}"
    home, _, last = name.rpartition(".")
    value = f"\n   :value: {thing!r}" if isinstance(thing, (int, float, str)) else ""
    return f".. py:data:: {last}\n   :module: {home}\n   :type: {type(thing).__name__}{value}"
