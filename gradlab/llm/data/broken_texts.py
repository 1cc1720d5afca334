"""Texts with half of a surrogate pair, which JSON can hold and no tokenizer takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def broken_texts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each broken text in a value, such as "tools[0].name"; keys count as texts too."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield name, value
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield from broken_texts(name, key)
            yield from broken_texts(f"{name}.{key}", held)
    elif isinstance(value, list):
        for index, held in enumerate(value):
            yield from broken_texts(f"{name}[{index}]", held)
