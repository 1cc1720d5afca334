"""The settings of a training run from a command line and from TOML files."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from gradlab.checks import one_of, toml_file
from gradlab.console import printable_errors
from gradlab.llm.train.run_settings import Settings, nested
from gradlab.llm.train.section_settings import FLAT, SECTIONS
from gradlab.llm.train.toml_values import toml_value


class _Draft(Settings):
    """Settings that are not checked yet: tyro would print a failed check as a box of many lines."""

    def __post_init__(self) -> None:
        pass


def read_settings(arguments: Sequence[str], prog: str) -> Settings:
    """Read settings from a command line; ``--config FILE`` gives defaults, and options win over it.

    FILE is TOML: keys are options' names, and a table is a section, such as ``[lora]`` with ``rank``.
    ValueError with one line for a file that cannot be used and for a former name of an option; a wrong option ends the
    program as command lines do.
    """
    given: dict[str, Any] = dict.fromkeys(("model", "data", "out"), tyro.MISSING_NONPROP)
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, file = word.partition("=")
        if name != "--config":
            rest.append(word)
            continue
        file = file if equals else next(words, "")
        if not file:
            raise ValueError("config must name a TOML file, got none")
        given |= _read_config(Path(file))
    _check_names(rest)
    values = nested(given)
    start: Any = object.__new__(_Draft)
    for field in dataclasses.fields(Settings):
        default = None if field.default is dataclasses.MISSING else field.default
        object.__setattr__(start, field.name, values.get(field.name, default))
    with printable_errors():
        draft = tyro.cli(
            _Draft, prog=prog, args=rest, default=start,
            description=f"{inspect.getdoc(Settings)}\n\n--config FILE: a TOML file of these options, with a table for "
            "each section; options that are given here win.",
            config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
        )  # fmt: skip
    return Settings(**vars(draft))


def _check_names(words: Sequence[str]) -> None:
    """Raise ValueError for an option in a section that is given by its former, flat name."""
    names = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    moved = [(name, FLAT[name.replace("-", "_")].replace("_", "-")) for name in names if name.replace("-", "_") in FLAT]
    if moved:
        raise ValueError("; ".join(f"--{name} is now --{new}" for name, new in moved))


def _read_config(path: Path) -> dict[str, Any]:
    """Return the options in a TOML file, those in a table by TABLE.NAME."""
    page = toml_file("config", path)
    options: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    for name, value in page.items():
        if name in FLAT:
            section, _, field = FLAT[name].partition(".")
            raise ValueError(f"{name} in {path} is now {field} in the table [{section}]")
        hint = hints[one_of(f"option in {path}", name, hints)]
        if name not in SECTIONS:
            options[name] = toml_value(f"{name} in {path}", value, hint)
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{name} in {path} must be a table, got {value!r}")
        inside = get_type_hints(SECTIONS[name])
        for field, part in value.items():
            one_of(f"option of [{name}] in {path}", field, inside)
            options[f"{name}.{field}"] = toml_value(f"{name}.{field} in {path}", part, inside[field])
    return options
