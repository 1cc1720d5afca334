"""The rows in the file of a training log, one by one, by the file's form."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradlab.checks import utf8
from gradlab.doctor.log_columns import known_tag
from gradlab.store.json_lines import stream_lines

FORMAT = 1
HEADER = "gradlab_training_log"  # key of the first line, whose value is the format
ACCEPTED = (
    "a training log is gradlab's JSON lines, TRL's trainer_state.json, or rows with a step as CSV, JSON or JSON lines"
)
CURVE = ["Wall time", "Step", "Value"]  # the first line of the CSV file that TensorBoard exports: one curve
Rows = Iterator[tuple[int, dict[str, Any]]]  # each with the number of its line, or of its row in a list
_NAMELESS = (
    "TensorBoard's CSV holds one curve, and this file's name tells no column that gradlab knows; name it as "
    "TensorBoard does, such as run-NAME-tag-train_loss.csv"
)
_EVENTS = "*.tfevents.*"
_SPACE = re.compile(r"\s*")


def log_rows(path: Path, settings: dict[str, Any], notes: list[str]) -> Rows:
    """Yield the rows of a log; add to ``settings`` and ``notes`` what the file says beside them.

    ValueError with one line that names the file, the place and the fault.
    """
    if path.is_dir():
        return _curves(path, notes)
    read = {".csv": _csv_rows, ".json": _json_rows}.get(path.suffix.lower())
    return read(path, notes) if read else _json_lines(path, settings, notes)


def place_of(path: Path, number: int) -> str:
    """Return the place of a row, in words."""
    return f"{'row' if path.suffix.lower() == '.json' or path.is_dir() else 'line'} {number}"


def _json_lines(path: Path, settings: dict[str, Any], notes: list[str]) -> Rows:
    def torn(number: int) -> None:
        notes.append(f"line {number} was cut short, as by a killed run, and is left out")

    first = True
    for number, row in stream_lines(path, ACCEPTED, torn):
        if first and HEADER in row:
            settings.update(_header(path, row))
        else:
            yield number, _flat(row)
        first = False


def _header(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in the header of gradlab's log."""
    if row[HEADER] != FORMAT:
        raise ValueError(f"{path} has format {row[HEADER]!r}; this version of gradlab reads format {FORMAT}")
    recorded = row.get("settings", {})
    if not isinstance(recorded, dict):
        raise ValueError(f"{path}, line 1: settings must be an object, got {recorded!r}")
    return recorded


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of verl's file logger, {"step": …, "data": {…}}, as one object; any other row as it is."""
    if row.keys() == {"step", "data"} and isinstance(row["data"], dict):
        return {"step": row["step"], **row["data"]}
    return row


def _json_rows(path: Path, notes: list[str]) -> Rows:
    """Yield the rows of TRL's trainer_state.json, or of a list."""
    content = path.read_bytes()
    rows = 0
    try:
        text = content.decode(json.detect_encoding(content))
        del content
        for row in _listed(text):
            if not isinstance(row, dict):
                rows = 0
                break
            rows += 1
            yield rows, row
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no JSON ({error}); {ACCEPTED}") from None
    if not rows:
        raise ValueError(f"{path} has no list of rows, as trainer_state.json has in log_history; {ACCEPTED}")


def _listed(text: str) -> Iterator[Any]:
    """Yield the items of a list in JSON, or of the list log_history of an object, without holding all of them."""
    decoder = json.JSONDecoder()
    at = _skip(text, 1 if text.startswith("\ufeff") else 0)
    if text[at : at + 1] == "[":
        at = yield from _items(decoder, text, at)
    elif text[at : at + 1] != "{":
        _, at = decoder.raw_decode(text, at)
    else:
        at = _skip(text, at + 1)
        more = text[at : at + 1] != "}"
        while more:
            _expect(text, at, '"')
            key, at = decoder.raw_decode(text, at)
            at = _skip(text, _expect(text, _skip(text, at), ":"))
            if key == "log_history" and text[at : at + 1] == "[":
                at = yield from _items(decoder, text, at)
            else:
                _, at = decoder.raw_decode(text, at)
            more, at = _comma(text, at)
        at = _expect(text, at, "}")
    if _skip(text, at) < len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def _items(decoder: json.JSONDecoder, text: str, at: int) -> Iterator[Any]:
    """Yield the items of the list that begins at ``at``; return the place after the list."""
    at = _skip(text, at + 1)
    more = text[at : at + 1] != "]"
    while more:
        item, at = decoder.raw_decode(text, at)
        yield item
        more, at = _comma(text, at)
    return _expect(text, at, "]")


def _comma(text: str, at: int) -> tuple[bool, int]:
    """Return whether a comma follows, and the place of what is next."""
    at = _skip(text, at)
    return (True, _skip(text, at + 1)) if text[at : at + 1] == "," else (False, at)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting {sign!r}", text, at)
    return at + 1


def _csv_rows(path: Path, notes: list[str]) -> Rows:
    with open(path, "rb") as file:
        utf8(path, file.read(4))
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            lines = csv.reader(text, strict=True)
            names = next(lines, [])
            if len(set(names)) < len(names):
                raise _Refused(f"{path} has a column more than once: {', '.join(names)}; {ACCEPTED}")
            names = _curve_names(path, names, notes) if names == CURVE else names
            before: tuple[int, list[str]] | None = None  # one row behind: the last one may be cut short
            for cells in lines:
                if not cells:
                    continue
                if len(cells) > len(names):
                    raise _Refused(f"{path}, line {lines.line_num}, has more fields than the first line; {ACCEPTED}")
                if before:
                    yield before[0], dict(zip(names, before[1], strict=False))
                before = lines.line_num, cells
    except _Refused:
        raise
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged, or no CSV ({error}); {ACCEPTED}") from None
    if before and len(before[1]) < len(names):
        notes.append(f"line {before[0]} was cut short and is left out")
    elif before:
        yield before[0], dict(zip(names, before[1], strict=True))


def _curves(folder: Path, notes: list[str]) -> Rows:
    """Yield one row per step from a folder of TensorBoard: the curves that it exported as CSV, or its event files."""
    steps: dict[Any, dict[str, Any]] = {}
    for file in filter(_is_curve, sorted(folder.glob("*.csv"))):
        said: list[str] = []
        for _, row in _csv_rows(file, said):
            value = row.pop("Value", None)  # of a curve that gradlab does not know
            steps.setdefault(row["Step"], {}).update(row if value is None else row | {file.stem: value})
        notes += [note for note in said if note != _NAMELESS]
    for step, tag, value in _events(folder) if any(folder.glob(_EVENTS)) else ():
        steps.setdefault(step, {"step": step})[tag] = value
    yield from enumerate(steps.values(), 1)


def is_board(path: Path) -> bool:
    """Return whether a path is a folder with curves of TensorBoard: CSV files that it exported, or its event files."""
    if not path.is_dir():
        return False
    curves = list(path.glob("*.csv"))
    return any(path.glob(_EVENTS)) or (bool(curves) and all(map(_is_curve, curves)))


def _is_curve(file: Path) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as text:
        return text.readline(100).strip() == ",".join(CURVE)


def _events(folder: Path) -> Iterator[tuple[int, str, float]]:
    """Yield step, tag and value of each number in a folder of event files."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise ModuleNotFoundError(f"{folder} has event files; to read them: pip install tensorboard") from None
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0: all of them
    events.Reload()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            yield event.step, tag, event.value


class _Refused(ValueError):
    """A fault that already has its words."""


def _curve_names(path: Path, names: list[str], notes: list[str]) -> list[str]:
    """Return the names of a curve that TensorBoard exported, whose column the file's name tells."""
    column = known_tag(path.name)
    if column is None:
        notes.append(_NAMELESS)
    return [names[0], names[1], column or names[2]]
