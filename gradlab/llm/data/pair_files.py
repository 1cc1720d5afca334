"""Records of pair data from a file, or from a data set of the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gradlab.checks import utf8
from gradlab.console import one_line
from gradlab.llm.data.pair_forms import CONTEXT, FIELDS, UNREAD, form_of
from gradlab.store.files import file_hash

FILES = ".jsonl, .jsonl.gz or .parquet file"


def records(source: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return the records of a source, each with its place.

    ValueError names a file, and the line, that cannot be read; FileNotFoundError names a missing file; OSError says
    what the hub cannot give; ImportError says that ``datasets`` is missing.
    """
    path, name = Path(source), source.lower()
    if not source:
        raise FileNotFoundError(f"'' is no file; accepted is a {FILES}, or the name of a hub's data set")
    if path.is_dir():
        raise ValueError(f"{source} is a folder; name a {FILES} in it")
    if not path.is_file():
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", source) or name.endswith((".jsonl", ".gz", ".parquet")):
            raise FileNotFoundError(f"{source} is no file; accepted is a {FILES}, or the name of a hub's data set")
        return _hub_records(source, split)
    if name.endswith(".parquet"):
        return _parquet_records(path)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_records(path)
    raise ValueError(f"{source} must be a {FILES}")


def source_key(source: str, split: str) -> str | None:
    """Return a hash of a file's bytes, or of a hub's data set as far as ``datasets`` gives one; else None.

    Errors are those of ``records``.
    """
    records(source, split)
    if Path(source).is_file():
        return file_hash(source)
    table = _hub_table(source, split)
    return getattr(table, "_fingerprint", None)


def _json_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        place = f"{path}, line {number}"
        if number == 1:
            utf8(path, line)
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{place}: no JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: must be a JSON object, got {type(record).__name__}")
        yield place, record


def _lines(path: Path) -> Iterator[bytes]:
    if path.suffix.lower() != ".gz":
        with open(path, "rb") as lines:
            yield from lines
        return
    try:
        with gzip.open(path, "rb") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is cut short or no gzip file ({error}); fetch it again") from None


def _parquet_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = _known(file.schema_arrow.names, str(path))
            unread = _unread(file.schema_arrow, columns)
            for batch in file.iter_batches(batch_size=1_000, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record | unread
    except (pa.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged or no Parquet file ({first}); fetch it again") from None


def _hub_records(source: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    table = _hub_table(source, split)
    columns = _known(table.column_names, source)
    unread = _unread(table.features.arrow_schema, columns)
    for number, record in enumerate(table.select_columns(columns), 1):
        yield f"{source}, row {number}", record | unread


def _hub_table(source: str, split: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{source} is no file, and reading it from the hub needs datasets: pip install 'gradlab[llm]'"
        ) from None
    name, folder = re.fullmatch(r"([^/]+(?:/[^/]+)?)/?(.*)", source).groups()  # type: ignore[union-attr]
    try:
        return datasets.load_dataset(name, data_dir=folder or None, split=split)
    except Exception as error:  # of a dozen kinds: offline, not found, no such split, a script in place of data
        first = one_line(error)[:200]
        raise OSError(
            f"{source} is no file, and the hub gave no split {split!r} of that name ({first}); accepted is a {FILES}"
        ) from None


def _known(columns: Iterable[str], source: str) -> list[str]:
    """Return the columns that hold pairs: images and tables of scores beside them need not be read."""
    names = list(columns)
    if not set(names) & set(FIELDS):
        form_of(dict.fromkeys(names), source)
    return [name for name in names if name in (*FIELDS, *CONTEXT)]


def _unread(schema: Any, columns: Collection[str]) -> dict[str, Any]:
    """Return a mark for each other column of an Arrow schema that holds texts, alone or inside lists and structs."""
    kinds = {column.name: str(column.type) for column in schema if column.name not in columns}
    return {name: UNREAD for name, kind in kinds.items() if "string" in kind and "binary" not in kind}
