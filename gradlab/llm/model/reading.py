"""Errors of transformers, peft and safetensors in one line, and weights that a model's files lack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradlab.console import one_line, out_of_memory


def check_weights(info: Mapping[str, Any], new: tuple[str, ...] = ()) -> None:
    """Raise ValueError where a model's files lack weights: transformers draws such weights at random, and says little.

    info   the second value of ``from_pretrained`` with ``output_loading_info`` (and, so that it lists weights of
           another shape, ``ignore_mismatched_sizes``).
    new    beginnings of names of weights that the files may lack, such as a new head's.
    """
    absent = sorted(info["missing_keys"]) + sorted(name for name, *_ in info["mismatched_keys"])
    wrong = [name for name in absent if not name.startswith(new)]
    if wrong:
        raise ValueError(f"it lacks {', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''} of its config's shape")


@contextlib.contextmanager
def reading(what: str, source: str | Path, accepted: str = "") -> Iterator[None]:
    """Turn the errors of transformers, peft and safetensors about a folder or hub name into an OSError of one line.

    what      the argument's name. source: its value.
    accepted  what the value must be; left out: a folder or hub name of a model, or of a tokenizer by ``what``.
    """
    needed = "a tokenizer" if what == "tokenizer" else "weights in safetensors"
    accepted = accepted or f"a folder that transformers can read, with {needed}, or a hub's name"
    try:
        yield
    except Exception as error:  # of any type, where a file is damaged or holds JSON of another type
        if out_of_memory(error):
            raise
        there = Path(source).exists() or not Path(source).is_absolute()  # else it may be a hub's name
        reason = one_line(error)[:200] if there else "not there"
        raise OSError(f"{what} must be {accepted}; got {str(source)!r} ({reason})") from None
