"""The forms of pair data, one record per form: what it is called, how it is recognised, and how it is read.

A new form is one more ``Form`` in ``FORMS``: its fields, its choices and its name in messages follow from that.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gradlab.llm.data.broken_texts import broken_texts

Message = dict[str, Any]
"""A turn: ``role``, ``content`` (a text), and what else its record holds for the chat template, such as tool_calls."""
Prompt = str | tuple[Message, ...]
"""A text, or turns. The tools that the assistant may call stand before the turns: a message of the role ``TOOLS``."""
Response = str | Message
Side = tuple[Prompt, Response]  # a prompt and its response

ROLES = ("user", "assistant", "system", "developer", "tool")
TOOLS = "tools"
TURN = "\n\nAssistant:"  # of HH-RLHF's dialogues; what comes after the last one is the response
CONTEXT = ("system", "history", "tools")  # fields of any form, which become part of the prompt
_MISSING: Any = object()
UNREAD: Any = object()  # the value of a column that is not read, as it is not used
_OBJECTS = re.compile(r"\s*\[\s*\{")  # begin a list of objects that is written as text
_ROLE = re.compile(rf"""['"]role['"]\s*:\s*['"]({"|".join(ROLES)})['"]""")


class Unusable(ValueError):
    """An error: a pair is left out; the text is the reason under which it is counted."""


@dataclass(frozen=True)
class Record:
    """A record of a file: looks up its fields, and says what is wrong with them.

    place   where it stands, for messages.
    choice  the preference that counts, where its form has several.
    notes   what was changed while it was read.
    """

    fields: Mapping[str, Any]
    place: str
    choice: str | None = None
    notes: set[str] = field(default_factory=set)

    def wrong(self, name: str, must: str, value: Any) -> ValueError:
        """Return the error that says what the field must be, and what it is."""
        got = "nothing" if value is _MISSING else repr(value)
        return ValueError(f"{self.place}: field {name!r} must {must}, got {got if len(got) < 80 else got[:79] + '…'}")

    def get(self, name: str) -> Any:
        """Return a field's value, whatever it is; None for NaN, which is how tables and some JSON write a null."""
        value = self.fields.get(name, _MISSING)
        return None if isinstance(value, float) and math.isnan(value) else value

    def text(self, name: str) -> str:
        """Return a field that is a text; Unusable where it is null."""
        return self._text(name, self._present(name))

    def messages(self, name: str) -> tuple[Message, ...]:
        """Return a field that is a list of messages; Unusable where it is null."""
        value = self._present(name)
        if not isinstance(value, list) or not value:
            raise self.wrong(name, "be a list of messages", value)
        return tuple(self._message(f"{name}[{index}]", message) for index, message in enumerate(value))

    def answered(self, name: str) -> tuple[tuple[Message, ...], Response]:
        """Return the messages of a field before its last one, and the last, which must be the assistant's.

        Of the last it is the text, or the whole message where it holds more.
        """
        *before, last = self.messages(name)
        if last["role"] != "assistant":
            raise self.wrong(name, "end with a message of the assistant", self.get(name))
        return tuple(before), last if len(last) > 2 else last["content"]

    def label(self, name: str, accepted: Iterable[int]) -> int:
        """Return a field that is one of some whole numbers; Unusable where it is null or NaN."""
        value, accepted = self.get(name), list(accepted)
        if value is None:
            raise Unusable(f"no {name}")
        if isinstance(value, bool) or not isinstance(value, int | float) or value not in accepted:
            span = " or ".join(map(str, accepted)) if len(accepted) == 2 else f"from {accepted[0]} to {accepted[-1]}"
            raise self.wrong(name, f"be {span}", value)
        return int(value)

    def context(self) -> tuple[Message, ...]:
        """Return the tools, the system's text and the former turns that stand beside the prompt, as messages."""
        context = []
        tools, system = self._list("tools"), self.get("system")
        if tools:
            if not all(isinstance(tool, Mapping) for tool in tools):
                raise self.wrong("tools", "be a list of objects, one per tool", tools)
            self._check_whole("tools", tools)
            context.append({"role": TOOLS, "content": json.dumps(_without_nulls(tools), ensure_ascii=False)})
        if system not in (_MISSING, None, ""):
            context.append({"role": "system", "content": self._text("system", system)})
        for index, turn in enumerate(self._list("history")):
            name = f"history[{index}]"
            if isinstance(turn, list) and len(turn) == 2:
                both = zip(("user", "assistant"), turn, strict=True)
                context += [{"role": role, "content": self._text(name, text)} for role, text in both if text]
            else:
                context.append(self._message(name, turn))
        return tuple(context)

    def unused(self, used: Iterable[str]) -> list[str]:
        """Return the fields that hold texts, lists or objects, are not ``used``, and repeat nothing that is."""
        known = {*used, *CONTEXT}
        said = [self.fields[name] for name in self.fields if name in known]
        texts = [message.get("content") for some in said if isinstance(some, list) for message in some if _is(message)]
        return [
            name for name, value in self.fields.items()
            if name not in known and (value is UNREAD or (_holds(value) and value not in said))
            and not (isinstance(value, str) and value in texts)
        ]  # fmt: skip

    def _present(self, name: str) -> Any:
        value = self.get(name)
        if value is None:
            raise Unusable("empty prompt" if name == "prompt" else "empty response")
        return value

    def _list(self, name: str) -> list[Any]:
        """Return a field that is a list, or the JSON text of a list; empty where there is none."""
        value = self.get(name)
        if value is _MISSING or not value:
            return []
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self.wrong(name, "be a list, or its JSON", value) from None
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "be a list, or its JSON", value)
        return value or []

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(name, "be a text", value)
        self._check_whole(name, value)
        return value

    def _check_whole(self, name: str, value: Any) -> None:
        """Raise ValueError, which names the place, where a text in a value is broken."""
        for place, text in broken_texts(name, value):
            raise self.wrong(place, "be a text of whole characters", text)

    def _message(self, name: str, value: Any) -> Message:
        if not isinstance(value, Mapping):
            raise self.wrong(name, "be a message with role and content", value)
        role = value.get("role", _MISSING)
        if role not in ROLES:
            raise self.wrong(f"{name}.role", f"be {', '.join(ROLES[:-1])} or {ROLES[-1]}", role)
        more = {key: _without_nulls(held) for key, held in value.items() if key not in ("role", "content")}
        more = {key: held for key, held in more.items() if held not in (None, "", [], {})}
        if isinstance(more.get("tool_calls"), list):
            more["tool_calls"] = [self._call(call) for call in more["tool_calls"]]
        for key, held in more.items():
            self._check_whole(f"{name}.{key}", held)
        content = self._content(f"{name}.content", value.get("content", _MISSING), called="tool_calls" in more)
        return {"role": role, "content": content, **more}

    def _call(self, call: Any) -> Any:
        """Return a call of a tool whose arguments, where they are the JSON text of an object, are that object."""
        function: Any = call.get("function", call) if _is(call) else None
        text = function.get("arguments") if _is(function) else None
        if not isinstance(text, str):
            return call
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            return call
        if not _is(arguments):
            return call
        self.notes.add(ARGUMENTS)
        read = {**function, "arguments": arguments}
        return {**call, "function": read} if "function" in call else read

    def _content(self, name: str, value: Any, *, called: bool) -> str:
        """Return a message's text; parts that are texts are joined, and a message that calls tools needs none."""
        if called and value in (_MISSING, None):
            return ""
        if value is None:
            raise Unusable("message without content")
        if not isinstance(value, list):
            return self._text(name, value)
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in value]
        if not all(_is(part) and isinstance(part.get("type"), str) for part in parts):
            raise self.wrong(name, "be a text, or a list of parts with their types", value)
        other = sorted({part["type"] for part in parts} - {"text"})
        if other:
            raise Unusable(f"content that is no text: {', '.join(other)}")
        self.notes.add("parts of a message's text joined")
        return "".join(self._text(f"{name}[{index}].text", part.get("text")) for index, part in enumerate(parts))


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


def as_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Return a prompt as messages: a dialogue of HH-RLHF's form is taken apart, other text is a message of the user."""
    if isinstance(prompt, str):
        return messages_of(prompt) or ({"role": "user", "content": prompt},)
    return prompt


def parted(messages: Iterable[Message]) -> tuple[list[Any], list[Message]]:
    """Return the tools of a prompt's messages, and its turns."""
    tools, turns = [], []
    for message in messages:
        if message["role"] == TOOLS:
            tools += json.loads(message["content"])
        else:
            turns.append(message)
    return tools, turns


def unpacked(fields: Mapping[str, Any], place: str) -> tuple[Mapping[str, Any], bool]:
    """Return a record with its messages read where they are JSON text, and whether any was; ValueError if broken.

    A list of other objects, such as users who have a role of another name, is a text like any other.
    """
    read = {}
    for name in FIELDS:
        text = fields.get(name)
        if not (isinstance(text, str) and _OBJECTS.match(text) and _ROLE.search(text)):
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise Record(fields, place).wrong(name, "be messages, or their JSON", text) from None
        if all(_is(message) and message.get("role") in ROLES for message in value):
            read[name] = value
    return {**fields, **read}, bool(read)


def _is(value: Any) -> bool:
    return isinstance(value, Mapping)


def _holds(value: Any) -> bool:
    return isinstance(value, str | list | Mapping) and bool(value)


def _without_nulls(value: Any) -> Any:
    """Return a value without the nulls inside: tables write them for the keys that only other rows have."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(held) for key, held in value.items() if held is not None}
    return [_without_nulls(held) for held in value] if isinstance(value, list) else value


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
        if before == prompt:
            record.notes.add(TAKEN_ONCE)
        elif before:
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
    better = record.label(_PREFERENCES[record.choice or "helpfulness"], (0, 1))
    return (prompt, responses[better]), (prompt, responses[1 - better])


def _help_steer(record: Record) -> tuple[Side, Side]:
    prompt = record.text("prompt")
    first, second = ((prompt, record.text(name)) for name in ("response_1", "response_2"))
    strength = record.label("preference_strength", range(-3, 4))
    if not strength:
        raise Unusable("no preference")
    return (first, second) if strength < 0 else (second, first)


def _listed(record: Mapping[str, Any], *names: str) -> bool:
    return any(isinstance(record.get(name), list) for name in names)


ARGUMENTS = "arguments of a tool's call written as JSON text, read as an object"
TAKEN_ONCE = "prompt inside the responses, taken once"
_PAIR = ("prompt", "chosen", "rejected")
# The first form that recognises a record counts: special forms stand before general ones.
FORMS = (
    Form(
        "prompt, response_1, response_2 with preference_strength, as in HelpSteer2",
        ("prompt", "response_1", "response_2", "preference_strength"),
        lambda record: "response_2" in record or "preference_strength" in record, _help_steer,
    ),
    Form(
        "prompt, response_0, response_1 with better_response_id and safer_response_id, as in PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", *_PREFERENCES.values()),
        lambda record: "response_0" in record or "response_1" in record, _safe_rlhf, _PREFERENCES,
    ),
    Form("prompt, chosen, rejected as messages", _PAIR, lambda record: _listed(record, "prompt"), _messages),
    Form("chosen, rejected as messages", _PAIR[1:], lambda record: _listed(record, *_PAIR[1:]), _whole_messages),
    Form("prompt, chosen, rejected as texts", _PAIR, lambda record: "prompt" in record, _texts),
    Form("chosen, rejected as dialogues", _PAIR[1:], lambda record: True, _dialogues),
)  # fmt: skip
FIELDS = tuple(dict.fromkeys(name for form in FORMS for name in form.fields))
CHOICES = tuple(choice for form in FORMS for choice in form.choices)
_RESPONSES = ("chosen", "rejected", "response_0", "response_1", "response_2")


def form_of(record: Mapping[str, Any], place: str) -> Form:
    """Return the form that a record is meant to have, though its fields may be wrong; ValueError where none fits."""
    if not set(FIELDS) & set(record):
        names = ", ".join(list(map(str, record))[:10]) or "none"
        accepted = "; ".join(form.name for form in FORMS)
        raise ValueError(f"{place}: fields {names} are of no known form; accepted: {accepted}")
    return next(form for form in FORMS if form.recognised(record))


def check_responses(record: Mapping[str, Any]) -> None:
    """Raise Unusable where all responses of a record are null, which tell no form."""
    responses = [record[name] for name in _RESPONSES if name in record]
    if responses and all(response is None for response in responses):
        raise Unusable("empty response")
