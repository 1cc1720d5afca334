"""Parse a command's options with tyro, and check those that several commands have."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from gradlab.console import one_line

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
OPTIONAL = tyro.conf.arg(help_behavior_hint="")  # the option's help text says what leaving it out means


def parsed(options: type[T], name: str, description: str | None, arguments: Sequence[str]) -> T:
    """Return the options of ``gradlab NAME`` as the arguments set them.

    ``--help`` and options that do not exist end the program, with status 0 and 2.
    """
    return tyro.cli(
        options, prog=f"gradlab {name}", description=description, args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
    )  # fmt: skip


def check_save(file: Path | None) -> None:
    """Refuse a file that --save cannot write; better before the work than after it."""
    if file is not None and file.suffix != ".parquet":
        raise ValueError(f"save must name a file that ends in .parquet, got {str(file)!r}")


def save(frame: pd.DataFrame, file: Path, manifest: dict[str, Any], *, overwrite: bool) -> None:
    """Write a frame with its manifest and say where; FileExistsError names the option that would replace another."""
    from gradlab.store.artifacts import save_frame

    try:
        path = save_frame(frame, file, manifest, overwrite=overwrite)
    except FileExistsError as error:
        raise FileExistsError(f"{one_line(error)} (--overwrite)") from None
    print(f"\nsaved: {path}")


def need(extra: str, *modules: str) -> None:
    """Refuse to go on without modules that only an extra of gradlab brings; ImportError says how to get them."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f'{module} is not installed; get it with: pip install "gradlab[{extra}]"')


def quiet_transformers() -> None:
    """Keep transformers from showing progress bars."""
    from transformers.utils import logging

    logging.disable_progress_bar()
