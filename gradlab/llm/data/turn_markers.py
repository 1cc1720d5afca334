"""The texts that a tokenizer's chat template writes around turns, and texts that hold them already."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradlab.llm.data.common_start import common_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_USER, _ANSWER = "first words", "last words"  # of a probe


@dataclass(frozen=True)
class TurnMarkers:
    """The markers of turns in the texts of a chat template.

    begin   the special token that begins the user's turn; "" without one.
    ask     text between the user's words and the assistant's, without white space at its ends; "" if it marks nothing.
    tokens  the special tokens in it, in order.
    end     text after the assistant's words, likewise; "" if no special token is in it.
    space   text after the assistant's words, if it is nothing but white space; else "".
    opening text before an answer that the template writes only where it asks for one, such as "<think>"; else "".
    """

    begin: str = ""
    ask: str = ""
    tokens: tuple[str, ...] = ()
    end: str = ""
    space: str = ""
    opening: str = ""

    def asked(self, text: str) -> str | None:
        """Return the part of a text that asks the assistant for an answer, as the template does; None without one."""
        if self.ask and self.ask in text and self.begin in text.partition(self.ask)[0]:
            return self.ask
        if not self.begin or not self.tokens or self.tokens[-1] not in text:
            return None
        asks = "[^\\n]{0,20}\\s*".join(map(re.escape, self.tokens))
        match = re.search(f"{re.escape(self.begin)}.*?({asks})", text, re.DOTALL)
        return match[1] if match else None

    def inside(self, *texts: str, ends: bool = True) -> bool:
        """Return whether a special token of the markers is in a text; ``ends``: also one of an answer's end."""
        tokens = [token for token in self.tokens if ends or token not in self.end]
        return any(token in text for token in tokens for text in texts)

    def without_end(self, text: str) -> str:
        """Return a response without the end of turn that it brings along."""
        bare = text.rstrip()
        return bare.removesuffix(self.end) if self.end and bare.endswith(self.end) else text

    def unopened(self, response: str, prompt: str) -> str:
        """Return a response without the words of ``opening`` that it begins with, where its prompt ends with them."""
        words, bare = self.opening.strip(), response.lstrip()
        if not words or not bare.startswith(words) or not prompt.endswith(self.opening):
            return response
        return bare.removeprefix(words).removeprefix(self.opening[len(self.opening.rstrip()) :])


def turn_markers(tokenizer: PreTrainedTokenizerBase, chat: Callable[..., str]) -> TurnMarkers:
    """Return the markers that ``chat`` writes: a function of messages and ``ask``, the tokenizer's chat template."""
    user = {"role": "user", "content": _USER}
    try:
        asks, whole = chat([user], ask=True), chat([user, {"role": "assistant", "content": _ANSWER}])
    except ValueError:
        return TurnMarkers()
    asking, answering, after = asks.partition(_USER)[2], whole.partition(_USER)[2], whole.partition(_ANSWER)[2]
    ask, end = asking.strip(), after.strip()
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    begin = _in_order(special, asks.partition(_USER)[0])
    tokens = _in_order(special, ask)
    marks = bool(tokens) or bool(re.search(r"[<>\[\]{}|#]", ask))  # and no word of everyday, such as "Assistant:"
    return TurnMarkers(
        begin[-1] if begin else "", ask if marks else "", tokens, end if any(token in end for token in special) else "",
        "" if end else after, asking[common_start(asking, answering) :],
    )  # fmt: skip


def _in_order(tokens: Iterable[str], text: str) -> tuple[str, ...]:
    """Return the tokens in a text, in the order in which they stand there."""
    places = [(match.start(), token) for token in tokens for match in re.finditer(re.escape(token), text)]
    return tuple(token for _, token in sorted(places))
