"""Preference pairs from a file or a hub: read, checked, and what is left out is counted; and written as JSON lines."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gradlab.checks import one_of

Message = dict[str, str]  # {"role": one of ROLES, "content": text}
Prompt = str | tuple[Message, ...]
Choice = Literal["helpfulness", "safety"]
Side = tuple[Prompt, str]  # a prompt and its response

ROLES = ("user", "assistant", "system")
TURN = "\n\nAssistant:"  # of HH-RLHF's dialogues; what comes after the last one is the response
FILES = ".jsonl, .jsonl.gz or .parquet file"
_CHOICES = {"helpfulness": "better_response_id", "safety": "safer_response_id"}
_FIELDS = ("prompt", "chosen", "rejected", "response_0", "response_1", *_CHOICES.values())
_MISSING: Any = object()


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses to it, of which one was preferred.

    prompt    text, or messages.
    chosen    the preferred response's text, with its white space.
    rejected  the other's.
    place     where it was read, for messages: "file.jsonl, line 3".
    """

    prompt: Prompt
    chosen: str
    rejected: str
    place: str


@dataclass
class Report:
    """What a step made of pairs: how many it was given, how many it kept, and why it left the others out.

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
        """What this step and a later one, which was given the pairs that this one kept, come to together."""
        return Report(self.read, later.kept, *self._sums(later))

    def __add__(self, other: Report) -> Report:
        """What the same steps did to two data sets."""
        return Report(self.read + other.read, self.kept + other.kept, *self._sums(other))

    def _sums(self, other: Report) -> tuple[dict[str, int], dict[str, int]]:
        return dict(Counter(self.left_out) + Counter(other.left_out)), dict(Counter(self.notes) + Counter(other.notes))


def read_pairs(source: str, *, choice: Choice | None = None, split: str = "train") -> tuple[list[Pair], Report]:
    """The usable pairs of a source, in its order, and a report of the others.

    source  a .jsonl, .jsonl.gz or .parquet file; else a data set of the Hugging Face hub, as OWNER/NAME or
            OWNER/NAME/FOLDER (through ``datasets``; no code of the hub's is run).
    choice  which preference of PKU-SafeRLHF counts; None for other data.
    split   of a hub's data set; a file has none.

    The form of the records is told by their fields, and is one in a file: HH-RLHF (``chosen`` and ``rejected``, each a
    whole dialogue), PKU-SafeRLHF, ``prompt, chosen, rejected`` as texts or as lists of messages, or lists of messages
    that begin with the same prompt. Pairs of different prompts, with an empty response, or with one response twice
    (white space around them aside) are left out and counted.

    ValueError names the file, the line and the field of a record that is none, and a source without a usable pair;
    FileNotFoundError a file that is not there; OSError what the hub cannot give; ImportError a missing ``datasets``.
    """
    if choice is not None:
        one_of("choice", choice, _CHOICES)
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    form = ""
    for place, record in _records(str(source), split):
        own = _form(record, place)
        if not form:
            form = own
            _check_choice(source, form, choice)
        if own != form:
            raise ValueError(f"{place}: {own} in a file that began with {form}; a file has one form")
        (prompt, chosen), (other, rejected) = _FORMS[form](_Record(record, place, choice))
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
    """Pairs as the text of a .jsonl file, from which ``read_pairs`` reads the same ones."""
    return "".join(json.dumps(_as_record(pair), ensure_ascii=False) + "\n" for pair in pairs)


def _as_record(pair: Pair) -> dict[str, Any]:
    sides = {"chosen": pair.chosen, "rejected": pair.rejected}
    if isinstance(pair.prompt, str):
        return {"prompt": pair.prompt, **sides}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
    return {"prompt": pair.prompt, **answers}


def messages_of(prompt: str) -> tuple[Message, ...] | None:
    """A dialogue of HH-RLHF's form ("\\n\\nHuman: … \\n\\nAssistant: …") as messages; None where the text is none.

    White space around a turn is dropped, and so is an empty last turn of the assistant, which asks for a response.
    """
    before, *turns = re.split(r"\n\n(Human|Assistant):", prompt)
    if before or not turns:
        return None
    names = {"Human": "user", "Assistant": "assistant"}
    told = [{"role": names[who], "content": text.strip()} for who, text in zip(turns[::2], turns[1::2], strict=True)]
    if told[-1] == {"role": "assistant", "content": ""}:
        told.pop()
    return tuple(told) or None


def _unusable(prompt: Prompt, other: Prompt, chosen: str, rejected: str) -> str | None:
    """Why a pair cannot be used, if so."""
    if not chosen or not rejected:
        return "empty response"
    if prompt != other:
        return "different prompts"
    return "identical responses" if chosen == rejected else None


def _check_choice(source: str, form: str, choice: Choice | None) -> None:
    if form == _SAFE and choice is None:
        raise ValueError(f"choice must be helpfulness or safety for {source}, which has both preferences, got None")
    if form != _SAFE and choice is not None:
        raise ValueError(f"choice must be None for {source}, which has one preference, got {choice!r}")


# Records and their forms


@dataclass(frozen=True)
class _Record:
    """A record and its place: looks up its fields, and says what is wrong with them."""

    fields: Mapping[str, Any]
    place: str
    choice: Choice | None

    def wrong(self, name: str, must: str, value: Any) -> ValueError:
        got = "nothing" if value is _MISSING else repr(value)
        return ValueError(f"{self.place}: field {name!r} must {must}, got {got if len(got) < 80 else got[:79] + '…'}")

    def get(self, name: str) -> Any:
        return self.fields.get(name, _MISSING)

    def text(self, name: str) -> str:
        return self._text(name, self.get(name))

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, "be a text", value)
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and no tokenizer takes
            raise self.wrong(name, "be a text of whole characters", value) from None
        return value

    def messages(self, name: str) -> tuple[Message, ...]:
        value = self.get(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "be a list of messages", value)
        return tuple(self._message(f"{name}[{index}]", one) for index, one in enumerate(value))

    def _message(self, name: str, value: Any) -> Message:
        if not isinstance(value, Mapping):
            raise self.wrong(name, "be a message with role and content", value)
        role = value.get("role", _MISSING)
        if role not in ROLES:
            raise self.wrong(f"{name}.role", "be user, assistant or system", role)
        return {"role": role, "content": self._text(f"{name}.content", value.get("content", _MISSING))}

    def answered(self, name: str) -> tuple[tuple[Message, ...], str]:
        """Messages before the last, and the last one's text."""
        *before, last = self.messages(name)
        if last["role"] != "assistant":
            raise self.wrong(name, "end with a message of the assistant", self.get(name))
        return tuple(before), last["content"]


def _dialogues(record: _Record) -> tuple[Side, Side]:
    def side(name: str) -> Side:
        text = record.text(name)
        before, turn, response = text.rpartition(TURN)
        if not turn:
            raise record.wrong(
                name, r"be a dialogue, '\n\nHuman: … \n\nAssistant: …' (or the record needs a prompt)", text
            )
        return before + turn, response

    return side("chosen"), side("rejected")


def _texts(record: _Record) -> tuple[Side, Side]:
    prompt = record.text("prompt")
    return (prompt, record.text("chosen")), (prompt, record.text("rejected"))


def _messages(record: _Record) -> tuple[Side, Side]:
    prompt = record.messages("prompt")

    def side(name: str) -> Side:
        before, response = record.answered(name)
        if before:
            raise record.wrong(name, "be one message of the assistant", record.get(name))
        return prompt, response

    return side("chosen"), side("rejected")


def _whole_messages(record: _Record) -> tuple[Side, Side]:
    def side(name: str) -> Side:
        before, response = record.answered(name)
        if not before:
            raise record.wrong(name, "have a message before the last", record.get(name))
        return before, response

    return side("chosen"), side("rejected")


def _safe_rlhf(record: _Record) -> tuple[Side, Side]:
    prompt = record.text("prompt")
    responses = record.text("response_0"), record.text("response_1")
    name = _CHOICES[record.choice or "helpfulness"]
    better = record.get(name)
    if better not in (0, 1) or not isinstance(better, int) or isinstance(better, bool):
        raise record.wrong(name, "be 0 or 1", better)
    return (prompt, responses[better]), (prompt, responses[1 - better])


_SAFE = "prompt, response_0, response_1 with better_response_id and safer_response_id, as in PKU-SafeRLHF"
_FORMS: dict[str, Callable[[_Record], tuple[Side, Side]]] = {
    "chosen, rejected as dialogues": _dialogues,
    "prompt, chosen, rejected as texts": _texts,
    "prompt, chosen, rejected as messages": _messages,
    "chosen, rejected as messages": _whole_messages,
    _SAFE: _safe_rlhf,
}


def _form(record: Mapping[str, Any], place: str) -> str:
    """Which of ``_FORMS`` a record is meant to have, though its fields may be wrong."""
    dialogues, texts, messages, whole_messages, safe = _FORMS
    if not set(_FIELDS) & set(record):
        names = ", ".join(list(map(str, record))[:10]) or "none"
        raise ValueError(f"{place}: fields {names} are of no known form; accepted: {'; '.join(_FORMS)}")
    if "response_0" in record or "response_1" in record:
        return safe
    listed = any(isinstance(record.get(name), list) for name in ("chosen", "rejected"))
    if isinstance(record.get("prompt"), list):
        return messages
    if listed:  # a text beside whole dialogues, as in UltraFeedback, says nothing new
        return whole_messages
    return texts if "prompt" in record else dialogues


# Files and the hub


def _records(source: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of a source, each with its place."""
    path, name = Path(source), source.lower()
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


def _json_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        place = f"{path}, line {number}"
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
            for batch in file.iter_batches(batch_size=1_000, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except (pa.ArrowException, OSError) as error:
        first = str(error).partition("\n")[0]
        raise ValueError(f"{path} is damaged or no Parquet file ({first}); fetch it again") from None


def _hub_records(source: str, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        import datasets
    except ImportError:
        raise ImportError(
            f"{source} is no file, and reading it from the hub needs datasets: pip install 'gradlab[llm]'"
        ) from None
    name, folder = re.fullmatch(r"([^/]+(?:/[^/]+)?)/?(.*)", source).groups()  # type: ignore[union-attr]
    try:
        table: Any = datasets.load_dataset(name, data_dir=folder or None, split=split)
    except Exception as error:  # of a dozen kinds: offline, not found, no such split, a script in place of data
        first = " ".join(str(error).split())[:200]
        raise OSError(
            f"{source} is no file, and the hub gave no split {split!r} of that name ({first}); accepted is a {FILES}"
        ) from None
    for number, record in enumerate(table.select_columns(_known(table.column_names, source)), 1):
        yield f"{source}, row {number}", record


def _known(columns: Iterable[str], source: str) -> list[str]:
    """The columns that hold pairs: images and tables of scores beside them need not be read."""
    known = [name for name in columns if name in _FIELDS]
    if not known:
        _form(dict.fromkeys(columns), source)
    return known
