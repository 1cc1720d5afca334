"""The questions by which ``gradlab study plan`` makes a plan; each shows its field's docstring."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from typing import Any

from gradlab.checks import number_of, one_of
from gradlab.cli.options import field_texts
from gradlab.console import one_line, say, wrapped
from gradlab.given_once import named_texts
from gradlab.study.plan import Analysis, Design, Goal, Plan, Primary, Stop, plan_of

Page = dict[str, Any]  # the answers so far, by the path of the field, such as design.ties
_KINDS = {"": Plan, "goals": Goal, "primary": Primary, "design": Design, "stop": Stop, "analysis": Analysis}


@dataclasses.dataclass(frozen=True)
class _Question:
    """A question about one field."""

    field: str
    """The field's path, such as ``design.ties``."""
    default: Callable[[Page], str]
    read: Callable[[str], Any]
    asked: Callable[[Page], bool] = lambda page: True
    more: str = ""
    """How the answer is written."""

    @property
    def meaning(self) -> str:
        """Return what the field means."""
        section, _, name = self.field.rpartition(".")
        return field_texts(_KINDS[section])[name]


def asked(ask: Callable[[str], str]) -> Plan:
    """Return the plan that a person's answers make.

    ask  shows a text and returns the answer, as ``input`` does. An empty answer takes the default; an answer that
         cannot be is asked for again. ValueError where the answers end before the last question.
    """
    page: Page = {}
    say("Return takes the answer in brackets; Ctrl-C leaves without writing anything.")
    for question in _QUESTIONS:
        if question.asked(page):
            _put(question, page, ask)
    while True:
        try:
            return plan_of(_nested(page), "")
        except ValueError as error:
            again = _about(error)
            if again is None:
                raise
            say(f"\n{one_line(error).removeprefix(': ')}")
            _put(again, page, ask)


def _put(question: _Question, page: Page, ask: Callable[[str], str]) -> None:
    """Ask until an answer can be read, and note it."""
    say("\n".join(["", *wrapped(question.meaning.replace("``", ""), 88)]))
    default = question.default(page)
    shown = f" [{default}]" if default else ""
    hint = f" ({question.more})" if question.more else ""
    while True:
        try:
            answer = ask(f"{question.field}{hint}{shown}: ").strip() or default
            page[question.field] = question.read(answer)
            return
        except EOFError:
            raise ValueError(f"the answers ended before {question.field}; no plan was written") from None
        except ValueError as error:
            say(one_line(error))


def _about(error: ValueError) -> _Question | None:
    """Return the question whose field an error of the plan names first."""
    words = str(error).removeprefix(": ").split()
    named = words[0] if words else ""
    exact = [question for question in _QUESTIONS if question.field == named]
    section = [question for question in _QUESTIONS if question.field == named.partition(".")[0]]
    return next(iter([*exact, *section]), None)


def _nested(page: Page) -> Page:
    """Return the answers as the plan's file has them."""
    whole: Page = {}
    for path, value in page.items():
        section, _, name = path.rpartition(".")
        if section == "goals" or value is None:
            continue
        (whole.setdefault(section, {}) if section else whole)[name] = value
    names, questions = whole["goals"], page["goals.question"]
    if len(names) != len(questions):
        raise ValueError(f"goals.question must be one per goal, with | between, got {len(questions)} for {len(names)}")
    whole["goals"] = [{"name": name, "question": text} for name, text in zip(names, questions, strict=True)]
    return whole


def _systems(answer: str) -> dict[str, str]:
    systems = named_texts("systems", "NAME=FILE, two or more with spaces between", shlex.split(answer))
    if len(systems) < 2:
        raise ValueError("systems must be two or more, as in dpo=runs/a/dpo/model bdpo=runs/a/bdpo/model")
    return systems


def _raters(answer: str) -> list[str]:
    if answer.isdecimal():
        return [f"rater-{number + 1}" for number in range(int(answer))]
    return _names(answer)


def _names(answer: str) -> list[str]:
    return [name.strip() for name in answer.split(",") if name.strip()]


def _questions(answer: str) -> list[str]:
    return [text.strip() for text in answer.split("|") if text.strip()]


def _truth(answer: str) -> bool:
    return one_of("the answer", answer.lower(), ("yes", "no")) == "yes"


def _number(kind: type) -> Callable[[str], Any]:
    return lambda answer: number_of("the answer", kind, answer)


def _plain(default: str) -> Callable[[Page], str]:
    return lambda page: default


def _of_design(name: str) -> _Question:
    """Return the question about a field of the design, with the field's default."""
    default = getattr(Design(), name)
    if isinstance(default, bool):
        return _Question(f"design.{name}", _plain("yes" if default else "no"), _truth, more="yes or no")
    return _Question(f"design.{name}", _plain(f"{default:g}"), _number(type(default)))


def _is_precise(page: Page) -> bool:
    return page["stop.rule"] == "precision"


_QUESTIONS = (
    _Question("title", _plain("Which response is better?"), str),
    _Question("systems", _plain(""), _systems, more="NAME=FILE NAME=FILE …"),
    _Question("prompts", _plain(""), lambda answer: answer or None, more="a file, or nothing"),
    _Question("goals", _plain("helpful"), _names, more="names with commas between"),
    _Question(
        "goals.question", lambda page: " | ".join(f"Which response is more {name}?" for name in page["goals"]),
        _questions, more="one per goal, with | between",
    ),
    _Question("primary.a", lambda page: next(iter(page["systems"])), str),
    _Question("primary.b", lambda page: [*page["systems"]][1], str),
    _Question("primary.goal", lambda page: page["goals"][0], str, lambda page: len(page["goals"]) > 1),
    _Question("primary.margin", _plain("0.05"), _number(float)),
    _Question("raters", _plain("6"), _raters, more="a number, or names with commas between"),
    *map(_of_design, ("items_per_rater", "raters_per_item", "repeats", "both_orders", "attention", "ties")),
    _Question("stop.rule", _plain("fixed"), str, more="fixed or precision"),
    _Question("stop.half_width", _plain("0.05"), _number(float), _is_precise),
    _Question("analysis.population", _plain("like these"), str, more="like these, or these"),
    _Question("judges", _plain(""), _names, more="names with commas between, or nothing"),
    _Question("content_warning", _plain(""), str),
)  # fmt: skip
