"""Parse a command's options with tyro, and check options that several commands share."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import itertools
import os
import textwrap
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from gradlab.console import one_line, printable_errors, say

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
OPTIONAL = tyro.conf.arg(help_behavior_hint="")  # the option's help text says what leaving it out means


def parsed(options: type[T], name: str, description: str | None, arguments: Sequence[str]) -> T:
    """Return the options of ``gradlab NAME`` as the arguments set them.

    ``--help`` and options that do not exist end the program, with status 0 and 2.
    """
    with printable_errors():
        return tyro.cli(
            options, prog=f"gradlab {name}", description=description, args=list(arguments),
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
        )  # fmt: skip


def option_of(kind: type, name: str) -> tuple[str, Any, Any]:
    """Return a field of a frozen record as an option, for ``dataclasses.make_dataclass``: name, type, default.

    Its help is the field's docstring, in which "None:" reads "Left out:". A type that no command line can spell, such
    as an object, or a choice that is checked elsewhere, is a text there.
    """
    hint, default = typing.get_type_hints(kind)[name], kind.__dataclass_fields__[name].default
    spelled = [part for part in (typing.get_args(hint) or (hint,)) if part in (bool, int, float)]
    optional = type(None) in typing.get_args(hint)
    shown: Any = spelled[0] if spelled else str
    if not isinstance(default, (str, int, float, type(None))):
        default = _SPELLED[type(default).__name__](default)
    help_text = field_texts(kind)[name].replace("None:", "Left out:")
    argument = tyro.conf.arg(help=help_text, help_behavior_hint="" if optional else None)
    annotation = Annotated[shown | None if optional else shown, argument]
    return name, annotation, dataclasses.field(default=default, kw_only=True)


_SPELLED = {"FreeLogits": lambda policy: policy.name, "dtype": lambda kind: str(kind).removeprefix("torch.")}


def field_texts(kind: type) -> dict[str, str]:
    """Return the docstring below each field of a class, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in itertools.pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                texts[name] = " ".join(text.split())
    return texts


def check_save(file: Path | None) -> None:
    """Raise ValueError or OSError for a file that --save may not or cannot write; better before the work than after."""
    if file is None:
        return
    if file.suffix != ".parquet":
        raise ValueError(f"save must name a file that ends in .parquet, got {str(file)!r}")
    folder = next(place for place in Path(os.path.abspath(file)).parents if os.path.lexists(place))
    if not folder.is_dir():
        raise ValueError(f"save must name a file in a folder; {str(folder)!r} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"save must name a file in a folder that can be written to, got {str(file)!r}")
    if os.path.lexists(file) or os.path.lexists(file.with_suffix(".json")):
        from gradlab.store.artifacts import check_ours

        check_ours(file)


def save(frame: pd.DataFrame, file: Path, manifest: dict[str, Any], *, overwrite: bool) -> None:
    """Write a frame with its manifest and print the path; FileExistsError names the option that replaces a file."""
    from gradlab.store.artifacts import is_ours, save_frame

    try:
        path = save_frame(frame, file, manifest, overwrite=overwrite)
    except FileExistsError as error:
        hint = " (--overwrite)" if is_ours(file) and file.exists() else ""
        raise FileExistsError(f"{one_line(error)}{hint}") from None
    say(f"\nsaved: {path}")


def need(extra: str, *modules: str) -> None:
    """Raise ModuleNotFoundError, which says how to get it, for a missing module that an extra of gradlab brings."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f'{module} is not installed; get it with: pip install "gradlab[{extra}]"')


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers and its hub from showing progress bars inside; restore their settings afterwards."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    of_models, of_hub = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if of_models:
            logging.enable_progress_bar()  # the hub's as well
        if not of_hub:
            disable_progress_bars()
