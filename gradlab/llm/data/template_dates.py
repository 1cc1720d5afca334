"""The date that a chat template writes as today's: fixed once per run, so that a run's texts outlive midnight.

Templates of Llama 3.2 and Granite call ``strftime_now``, which reads the clock. Those of Llama 3 write ``date_string``
where they are given one; without one, Llama 3.1's writes a fixed date.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CLOCK = "strftime_now"
_STRING = "date_string"
_PERCENT = "\ue000"  # stands for %% while directives are replaced: a character that no date has


class TemplateDate(NamedTuple):
    """The date of chat templates, both as YYYY-MM-DD.

    given    the date that a user set, or None.
    started  the day of the first start, which ``strftime_now`` gives where no date is set.
    """

    given: str | None
    started: str

    def written_by(self, tokenizer: PreTrainedTokenizerBase) -> str | None:
        """Return the date that this tokenizer's chat template writes, as far as it is decided here; else None."""
        if reads_clock(tokenizer):
            return self.given or self.started
        return self.given if any(_STRING in template for template in _templates(tokenizer)) else None


def today() -> str:
    """Return the local date."""
    return datetime.date.today().isoformat()


def check_date(name: str, value: str | None) -> None:
    """Raise ValueError for a date that is not YYYY-MM-DD; None may be left out."""
    if value is None:
        return
    try:
        good = isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{name} must be a date such as 2024-07-26, or left out, got {value!r}")


def reads_clock(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Say whether the tokenizer's chat template asks for today's date."""
    return any(_CLOCK in template for template in _templates(tokenizer))


def fix_date(tokenizer: PreTrainedTokenizerBase, date: TemplateDate) -> None:
    """Let ``tokenizer.apply_chat_template`` write this date, whenever it is called; the files of a tokenizer stay.

    A template's ``strftime_now`` gives midnight of that day. ``date_string`` is given only where a user set the date,
    as "26 Jul 2024", so that without one the text is what transformers writes on the day of the first start.
    """
    tokenizer.apply_chat_template = _Dated(tokenizer, date)  # type: ignore[method-assign]


@dataclass(frozen=True)
class _Dated:
    """A tokenizer's ``apply_chat_template`` with a date; it can be sent to another process together with it."""

    tokenizer: PreTrainedTokenizerBase
    date: TemplateDate

    def __call__(
        self, conversation: Any, tools: Any = None, documents: Any = None, chat_template: str | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        template = _dated(
            _day(self.date.given or self.date.started), self.tokenizer.get_chat_template(chat_template, tools)
        )
        variables = {_STRING: _day(self.date.given).strftime("%d %b %Y")} if self.date.given else {}
        return type(self.tokenizer).apply_chat_template(
            self.tokenizer, conversation, tools, documents, chat_template=template, **{**variables, **options}
        )


@functools.lru_cache(maxsize=16)
def _dated(day: datetime.datetime, template: str) -> str:
    """Return the template with a clock that stands at midnight of this day, where it asks for one."""
    return _clock_at(day, template) + template if _CLOCK in template else template


def _templates(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    given: Any = tokenizer.chat_template
    return [] if not given else list(given.values()) if isinstance(given, dict) else [given]


def _day(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _clock_at(day: datetime.datetime, template: str) -> str:
    """Return the head of a template in which ``strftime_now`` gives this time; the rest then reads as it does alone.

    It is a macro of the template, since transformers hands no function over to a template. It knows the directives
    that stand in the template: with all of them it would be slow. The line's end after it is dropped (``trim_blocks``).
    """
    steps = "".join(f"|replace({_quoted(name)}, {_quoted(text)})" for name, text in _directives(day, template))
    whole = f"format|replace('%%', '{_PERCENT}'){steps}|replace('{_PERCENT}', '%')"
    return f"{{% macro {_CLOCK}(format) %}}{{{{ {whole} }}}}{{% endmacro %}}\n"


def _directives(day: datetime.datetime, template: str) -> Iterator[tuple[str, str]]:
    """Return the directives of ``strftime`` in a template, each with its text."""
    for letter in string.ascii_letters:
        for name in (f"%{letter}", f"%-{letter}"):
            with contextlib.suppress(ValueError):  # unknown to this system
                if name in template and day.strftime(name) != name:
                    yield name, day.strftime(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
