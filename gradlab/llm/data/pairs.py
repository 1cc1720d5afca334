"""Preference pairs: read from a file or a hub, checked, those left out counted; and written as JSON lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gradlab.checks import one_of
from gradlab.llm.data.pair_files import records
from gradlab.llm.data.pair_forms import CHOICES, Form, Message, Prompt, Record, form_of


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses to it, with one preferred.

    prompt    text, or messages.
    chosen    the preferred response's text, with its white space.
    rejected  the other response's text.
    place     where the pair was read, for messages: "file.jsonl, line 3".
    """

    prompt: Prompt
    chosen: str
    rejected: str
    place: str


@dataclass
class Report:
    """A report of a step on pairs: how many it read, how many it kept, and why it left the others out.

    left_out  reason → number of pairs.
    notes     what was changed and kept → number of pairs.
    """

    read: int = 0
    kept: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.read:,} pair{'s' if self.read != 1 else ''} read, {self.kept:,} kept"]
        for title, numbers in (("left out", self.left_out), ("changed", self.notes)):
            if numbers:
                parts.append(f"{title}: " + ", ".join(f"{name} ({number:,})" for name, number in numbers.items()))
        return "; ".join(parts)

    def merged(self, later: Report) -> Report:
        """Return one report of this step and of a later step, which has read the pairs that this step kept."""
        return Report(self.read, later.kept, *self._sums(later))

    def __add__(self, other: Report) -> Report:
        """Return the report of the same steps on two data sets together."""
        return Report(self.read + other.read, self.kept + other.kept, *self._sums(other))

    def _sums(self, other: Report) -> tuple[dict[str, int], dict[str, int]]:
        return dict(Counter(self.left_out) + Counter(other.left_out)), dict(Counter(self.notes) + Counter(other.notes))


def read_pairs(source: str, *, choice: str | None = None, split: str = "train") -> tuple[list[Pair], Report]:
    """Read the usable pairs of a source, in its order, and a report of the others.

    source  a .jsonl, .jsonl.gz or .parquet file; else a data set of the Hugging Face hub, as OWNER/NAME or
            OWNER/NAME/FOLDER (through ``datasets``; no code of the hub's is run).
    choice  the preference that counts, from ``CHOICES``, where the form has several, as PKU-SafeRLHF; None otherwise.
    split   the split of a hub's data set; a file has no splits.

    The fields of a record tell its form, see ``pair_forms.FORMS``; a file has one form. Pairs of different prompts,
    with an empty response, or with one response twice (white space around them aside) are left out and counted.

    ValueError names the file, the line and the field of a record that cannot be read, and a source without a usable
    pair; FileNotFoundError names a missing file; OSError says what the hub cannot give; ImportError says that
    ``datasets`` is missing.
    """
    if choice is not None:
        one_of("choice", choice, CHOICES)
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    form: Form | None = None
    for place, fields in records(str(source), split):
        record_form = form_of(fields, place)
        if form is None:
            form = record_form
            _check_choice(source, form, choice)
        if record_form is not form:
            raise ValueError(f"{place}: {record_form.name} in a file that began with {form.name}; a file has one form")
        (prompt, chosen), (other, rejected) = form.read(Record(fields, place, choice))
        reason = _unusable(prompt, other, chosen.strip(), rejected.strip())
        if reason:
            left_out[reason] += 1
        else:
            pairs.append(Pair(prompt, chosen, rejected, place))
    report = Report(len(pairs) + left_out.total(), len(pairs), dict(left_out))
    if not report.read:
        raise ValueError(f"{source} is empty; it must hold preference pairs")
    if not pairs:
        raise ValueError(f"{source} has no usable pair: {report}")
    return pairs, report


def json_lines(pairs: Iterable[Pair]) -> str:
    """Return pairs as the text of a .jsonl file, from which ``read_pairs`` reads them again."""
    return "".join(json.dumps(_as_record(pair), ensure_ascii=False) + "\n" for pair in pairs)


def _as_record(pair: Pair) -> dict[str, Any]:
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    if isinstance(pair.prompt, str):
        return {"prompt": pair.prompt, **sides}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
    return {"prompt": pair.prompt, **answers}


def messages_of(prompt: str) -> tuple[Message, ...] | None:
    """Return a dialogue of HH-RLHF's form ("\\n\\nHuman: … \\n\\nAssistant: …") as messages; None for any other text.

    White space around a turn is dropped, and so is an empty last turn of the assistant, which asks for a response.
    """
    before, *turns = re.split(r"\n\n(Human|Assistant):", prompt)
    if before or not turns:
        return None
    names = {"Human": "user", "Assistant": "assistant"}
    messages = [
        {"role": names[who], "content": text.strip()} for who, text in zip(turns[::2], turns[1::2], strict=True)
    ]
    if messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return tuple(messages) or None


def _unusable(prompt: Prompt, other: Prompt, chosen: str, rejected: str) -> str | None:
    """Return why a pair cannot be used, or None."""
    if not chosen or not rejected:
        return "empty response"
    if prompt != other:
        return "different prompts"
    return "identical responses" if chosen == rejected else None


def _check_choice(source: str, form: Form, choice: str | None) -> None:
    if form.choices and choice not in form.choices:
        named = " or ".join(form.choices)
        raise ValueError(f"choice must be {named} for {source}, which has both preferences, got {choice}")
    if not form.choices and choice is not None:
        raise ValueError(f"choice must be None for {source}, which has one preference, got {choice!r}")
