"""Preference pairs: read from a file or a hub, checked, those left out counted; and written as JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gradlab.checks import count, one_of
from gradlab.llm.data.pair_files import records
from gradlab.llm.data.pair_forms import (
    CHOICES,
    TOOLS,
    Form,
    Message,
    Prompt,
    Record,
    Response,
    Side,
    Unusable,
    as_messages,
    check_responses,
    form_of,
    messages_of,
    parted,
    unpacked,
)
from gradlab.llm.data.repeated_prompts import Repeats


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses to it, with one preferred.

    prompt    text, or messages.
    chosen    the preferred response's text, with its white space.
    rejected  the other response's text.
    place     where the pair was read, for messages: "file.jsonl, line 3".
    messages  both responses as messages, where one holds more than its text, such as a call of a tool; else None.
    """

    prompt: Prompt
    chosen: str
    rejected: str
    place: str
    messages: tuple[Message, Message] | None = None


@dataclass
class Report:
    """A report of a step on pairs: how many it read, how many it kept, and why it left the others out.

    left_out  reason → number of pairs.
    notes     what was changed and kept → number of pairs.
    unused    field that no model sees → number of pairs that hold a text, a list or an object in it.
    """

    read: int = 0
    kept: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)
    unused: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.read:,} pair{'s' if self.read != 1 else ''} read, {self.kept:,} kept"]
        counts = ("left out", self.left_out), ("changed", self.notes), ("fields not used", self.unused)
        for title, numbers in counts:
            if numbers:
                parts.append(f"{title}: " + ", ".join(f"{name} ({number:,})" for name, number in numbers.items()))
        return "; ".join(parts)

    def merged(self, later: Report) -> Report:
        """Return one report of this step and of a later step, which has read the pairs that this step kept."""
        return Report(self.read, later.kept, *self._sums(later))

    def __add__(self, other: Report) -> Report:
        """Return the report of the same steps on two data sets together."""
        return Report(self.read + other.read, self.kept + other.kept, *self._sums(other))

    def _sums(self, other: Report) -> tuple[dict[str, int], ...]:
        both = (self.left_out, other.left_out), (self.notes, other.notes), (self.unused, other.unused)
        return tuple(dict(Counter(here) + Counter(there)) for here, there in both)


def read_pairs(
    source: str, *, choice: str | None = None, split: str = "train", limit: int | None = None
) -> tuple[list[Pair], Report]:
    """Read the usable pairs of a source, in its order, and a report of the others.

    source  a .jsonl, .jsonl.gz or .parquet file; else a data set of the Hugging Face hub, as OWNER/NAME or
            OWNER/NAME/FOLDER (through ``datasets``; no code of the hub's is run).
    choice  the preference that counts, from ``CHOICES``, where the form has several, as PKU-SafeRLHF; None otherwise.
    split   the split of a hub's data set; a file has no splits.
    limit   the number of usable pairs after which the source is read no further; None: all of it.

    The fields of a record tell its form, see ``pair_forms.FORMS``; a file has one form. What stands beside the prompt
    as ``system``, ``history`` and ``tools`` becomes part of it; fields that are not used are counted by name. A prompt
    that stands in its responses too is taken once, see ``repeated_prompts.Repeats``. Pairs of different prompts,
    without a prompt, a preference or a response, or with one response twice (white space around them aside) are left
    out and counted.

    ValueError names the file, the line and the field of a record that cannot be read, and a source without a usable
    pair; FileNotFoundError names a missing file; OSError says what the hub cannot give; ImportError says that
    ``datasets`` is missing.
    """
    reader = _Reader(str(source), choice, split, limit)
    pairs = list(reader.pairs())
    pairs = list(reader.corrected(pairs, Repeats.of(pairs)))
    return pairs, reader.report(len(pairs))


class PairStream:
    """The pairs of ``read_pairs``, of which one at a time is in memory: the source is read twice.

    Making it reads the source for the first time. Errors are those of ``read_pairs``; that of a source without a usable
    pair comes at the end of the pairs.
    """

    def __init__(
        self, source: str, *, choice: str | None = None, split: str = "train", limit: int | None = None
    ) -> None:
        self._how = (str(source), choice, split, limit)
        self._repeats = Repeats.of(_Reader(*self._how).pairs())
        self.number = self._repeats.number  # pairs, some of which may still be left out
        self._report: Report | None = None

    def __iter__(self) -> Iterator[Pair]:
        """Yield the usable pairs, in the source's order."""
        reader, kept = _Reader(*self._how), 0
        for pair in reader.corrected(reader.pairs(), self._repeats):
            kept += 1
            yield pair
        self._report = reader.report(kept)

    @property
    def report(self) -> Report:
        """Return the report on all pairs, once they have been gone through."""
        if self._report is None:
            raise ValueError("report must be asked for after all pairs have been gone through")
        return self._report


@dataclass
class _Reader:
    """A reader of a source's records, which counts what it leaves out, changes and does not use."""

    source: str
    choice: str | None
    split: str
    limit: int | None = None
    form: Form | None = None
    read: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.choice is not None:
            one_of("choice", self.choice, CHOICES)
        if self.limit is not None:
            count("limit", self.limit, 1)

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs of the records, ``limit`` of them; ValueError where a record cannot be read."""
        usable = 0
        for place, fields in records(self.source, self.split):
            self.read += 1
            try:
                pair = self._pair(place, fields)
            except Unusable as reason:
                self.left_out[str(reason)] += 1
                continue
            yield pair
            usable += 1
            if usable == self.limit:
                return

    def corrected(self, pairs: Iterable[Pair], repeats: Repeats) -> Iterator[Pair]:
        """Yield the pairs with a prompt that stands in its responses too taken once."""
        for pair in pairs:
            try:
                changes, note = repeats.corrected(pair)
                self.notes.update([note] if note else [])
                yield _usable(replace(pair, **changes)) if changes else pair
            except Unusable as reason:
                self.left_out[str(reason)] += 1

    def report(self, kept: int) -> Report:
        """Return the report on all pairs; ValueError where there is none, or none is kept."""
        if not self.read:
            raise ValueError(f"{self.source} is empty; it must hold preference pairs")
        report = Report(self.read, kept, dict(self.left_out), dict(self.notes), dict(self.unused))
        if not kept:
            raise ValueError(f"{self.source} has no usable pair: {report}")
        return report

    def _pair(self, place: str, fields: Mapping[str, Any]) -> Pair:
        """Return the pair of a record; Unusable where it is left out, ValueError where it cannot be read."""
        check_responses(fields)
        fields, was_text = unpacked(fields, place)
        form = self._form(place, fields)
        record = Record(fields, place, self.choice)
        if was_text:
            record.notes.add("messages written as JSON text, read as messages")
        pair = _pair(record, *form.read(record))
        self.notes.update(record.notes)
        self.unused.update(record.unused(form.fields))
        return pair

    def _form(self, place: str, fields: Mapping[str, Any]) -> Form:
        form = form_of(fields, place)
        if self.form is None:
            self.form = form
            _check_choice(self.source, form, self.choice)
        if form is not self.form:
            if "prompt" in fields and fields["prompt"] is None:  # which tells no form
                raise Unusable("empty prompt")
            raise ValueError(f"{place}: {form.name} in a file that began with {self.form.name}; a file has one form")
        return form


def _pair(record: Record, chosen: Side, rejected: Side) -> Pair:
    """Return the pair of two sides, with the context of its record; Unusable where they make no pair."""
    prompt, sides, context = chosen[0], (chosen[1], rejected[1]), record.context()
    if context:
        if isinstance(prompt, str) and messages_of(prompt):  # a dialogue's white space stands between its turns
            sides = tuple(side.strip() if isinstance(side, str) else side for side in sides)
        prompt = _in_context(record, context, as_messages(prompt))
    texts = [side if isinstance(side, str) else side["content"] for side in sides]
    messages = None if sides == tuple(texts) else (_as_message(sides[0]), _as_message(sides[1]))
    pair = Pair(prompt, texts[0], texts[1], record.place, messages)
    return _usable(pair, same_prompt=chosen[0] == rejected[0])


def _in_context(record: Record, context: tuple[Message, ...], turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns of a prompt after their context, of which nothing is said twice."""
    after = tuple(message for message in context if message["role"] != TOOLS)
    if turns[: len(after)] == after:
        return context[: len(context) - len(after)] + turns
    if turns[0]["role"] in ("system", "developer") and any(message["role"] == "system" for message in after):
        system = next(message for message in after if message["role"] == "system")
        if turns[0]["content"] != system["content"]:
            raise record.wrong("system", "be the prompt's first message, which is another", system["content"])
        turns = turns[1:]
    return context + turns


def _as_message(response: Response) -> Message:
    return {"role": "assistant", "content": response} if isinstance(response, str) else response


def _usable(pair: Pair, *, same_prompt: bool = True) -> Pair:
    """Return the pair; Unusable where a response holds nothing, the prompts differ, or both responses are the same."""
    sides = pair.chosen.strip(), pair.rejected.strip()
    called = ["tool_calls" in message for message in pair.messages or ({}, {})]
    if not all(text or call for text, call in zip(sides, called, strict=True)):
        raise Unusable("empty response")
    if not same_prompt:
        raise Unusable("different prompts")
    if sides[0] == sides[1] if pair.messages is None else pair.messages[0] == pair.messages[1]:
        raise Unusable("identical responses")
    return pair


def json_lines(pairs: Iterable[Pair]) -> str:
    """Return pairs as the text of a .jsonl file, from which ``read_pairs`` reads them again."""
    return "".join(json.dumps(_as_record(pair), ensure_ascii=False) + "\n" for pair in pairs)


def _as_record(pair: Pair) -> dict[str, Any]:
    if isinstance(pair.prompt, str):
        return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    chosen, rejected = pair.messages or (_as_message(pair.chosen), _as_message(pair.rejected))
    tools, turns = parted(pair.prompt)
    record = {"prompt": turns, "chosen": [chosen], "rejected": [rejected]}
    return record | ({"tools": tools} if tools else {})


def _check_choice(source: str, form: Form, choice: str | None) -> None:
    if form.choices and choice not in form.choices:
        named = " or ".join(form.choices)
        raise ValueError(f"choice must be {named} for {source}, which has both preferences, got {choice}")
    if not form.choices and choice is not None:
        raise ValueError(f"choice must be None for {source}, which has one preference, got {choice!r}")
