"""The forms of pair data, one record per form: what it is called, how it is recognised, and how it is read.

A new form is one more ``Form`` in ``FORMS``: its fields, its choices and its name in messages follow from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]  # {"role": one of ROLES, "content": text}
Prompt = str | tuple[Message, ...]
Side = tuple[Prompt, str]  # a prompt and its response

ROLES = ("user", "assistant", "system")
TURN = "\n\nAssistant:"  # of HH-RLHF's dialogues; what comes after the last one is the response
_MISSING: Any = object()


@dataclass(frozen=True)
class Record:
    """A record of a file: looks up its fields, and says what is wrong with them.

    place   where it stands, for messages.
    choice  the preference that counts, where its form has several.
    """

    fields: Mapping[str, Any]
    place: str
    choice: str | None

    def wrong(self, name: str, must: str, value: Any) -> ValueError:
        """Return the error that says what the field must be, and what it is."""
        got = "nothing" if value is _MISSING else repr(value)
        return ValueError(f"{self.place}: field {name!r} must {must}, got {got if len(got) < 80 else got[:79] + '…'}")

    def get(self, name: str) -> Any:
        """Return a field's value, whatever it is."""
        return self.fields.get(name, _MISSING)

    def text(self, name: str) -> str:
        """Return a field that is a text."""
        return self._text(name, self.get(name))

    def messages(self, name: str) -> tuple[Message, ...]:
        """Return a field that is a list of messages."""
        value = self.get(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "be a list of messages", value)
        return tuple(self._message(f"{name}[{index}]", message) for index, message in enumerate(value))

    def answered(self, name: str) -> tuple[tuple[Message, ...], str]:
        """Return the messages before a field's last, and the text of the last, which is the assistant's."""
        *before, last = self.messages(name)
        if last["role"] != "assistant":
            raise self.wrong(name, "end with a message of the assistant", self.get(name))
        return tuple(before), last["content"]

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, "be a text", value)
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and no tokenizer takes
            raise self.wrong(name, "be a text of whole characters", value) from None
        return value

    def _message(self, name: str, value: Any) -> Message:
        if not isinstance(value, Mapping):
            raise self.wrong(name, "be a message with role and content", value)
        role = value.get("role", _MISSING)
        if role not in ROLES:
            raise self.wrong(f"{name}.role", "be user, assistant or system", role)
        return {"role": role, "content": self._text(f"{name}.content", value.get("content", _MISSING))}


@dataclass(frozen=True)
class Form:
    """A form of pair data.

    name        in messages.
    fields      that it reads; others need not be read.
    recognised  whether a record is meant to have this form, though its fields may be wrong.
    read        the two sides of a record, the preferred one first.
    choices     preferences of which one must be named, with the field of each; most forms have none.
    """

    name: str
    fields: tuple[str, ...]
    recognised: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Record], tuple[Side, Side]]
    choices: Mapping[str, str] = field(default_factory=dict)


def _both(side: Callable[[str], Side]) -> tuple[Side, Side]:
    return side("chosen"), side("rejected")


def _dialogues(record: Record) -> tuple[Side, Side]:
    def side(name: str) -> Side:
        text = record.text(name)
        before, turn, response = text.rpartition(TURN)
        if not turn:
            raise record.wrong(
                name, r"be a dialogue, '\n\nHuman: … \n\nAssistant: …' (or the record needs a prompt)", text
            )
        return before + turn, response

    return _both(side)


def _texts(record: Record) -> tuple[Side, Side]:
    prompt = record.text("prompt")
    return _both(lambda name: (prompt, record.text(name)))


def _messages(record: Record) -> tuple[Side, Side]:
    prompt = record.messages("prompt")

    def side(name: str) -> Side:
        before, response = record.answered(name)
        if before:
            raise record.wrong(name, "be one message of the assistant", record.get(name))
        return prompt, response

    return _both(side)


def _whole_messages(record: Record) -> tuple[Side, Side]:
    def side(name: str) -> Side:
        before, response = record.answered(name)
        if not before:
            raise record.wrong(name, "have a message before the last", record.get(name))
        return before, response

    return _both(side)


_PREFERENCES = {"helpfulness": "better_response_id", "safety": "safer_response_id"}


def _safe_rlhf(record: Record) -> tuple[Side, Side]:
    prompt = record.text("prompt")
    responses = record.text("response_0"), record.text("response_1")
    name = _PREFERENCES[record.choice or "helpfulness"]
    better = record.get(name)
    if better not in (0, 1) or not isinstance(better, int) or isinstance(better, bool):
        raise record.wrong(name, "be 0 or 1", better)
    return (prompt, responses[better]), (prompt, responses[1 - better])


def _listed(record: Mapping[str, Any], *names: str) -> bool:
    return any(isinstance(record.get(name), list) for name in names)


_PAIR = ("prompt", "chosen", "rejected")
# The first form that recognises a record counts: special forms stand before general ones.
FORMS = (
    Form(
        "prompt, response_0, response_1 with better_response_id and safer_response_id, as in PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", *_PREFERENCES.values()),
        lambda record: "response_0" in record or "response_1" in record, _safe_rlhf, _PREFERENCES,
    ),
    Form("prompt, chosen, rejected as messages", _PAIR, lambda record: _listed(record, "prompt"), _messages),
    Form(  # a text beside whole dialogues, as in UltraFeedback, says nothing new
        "chosen, rejected as messages", ("chosen", "rejected"), lambda record: _listed(record, "chosen", "rejected"),
        _whole_messages,
    ),
    Form("prompt, chosen, rejected as texts", _PAIR, lambda record: "prompt" in record, _texts),
    Form("chosen, rejected as dialogues", ("chosen", "rejected"), lambda record: True, _dialogues),
)  # fmt: skip
FIELDS = tuple(dict.fromkeys(name for form in FORMS for name in form.fields))
CHOICES = tuple(choice for form in FORMS for choice in form.choices)


def form_of(record: Mapping[str, Any], place: str) -> Form:
    """Return the form that a record is meant to have, though its fields may be wrong; ValueError where none fits."""
    if not set(FIELDS) & set(record):
        names = ", ".join(list(map(str, record))[:10]) or "none"
        accepted = "; ".join(form.name for form in FORMS)
        raise ValueError(f"{place}: fields {names} are of no known form; accepted: {accepted}")
    return next(form for form in FORMS if form.recognised(record))
