"""Prompts of turns that are too long: they lose whole turns, oldest first, and never the header of one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from gradlab.llm.data.pair_forms import TOOLS, Message, Prompt, as_messages

Turns = tuple[Message, ...]
# Notes, under which a pair is counted.
EARLIER = "earlier turns left out"
SYSTEM = "system turn left out"
BEGINNING = "beginning of a turn cut"


def with_fewer_turns(prompt: Prompt, excess: Callable[[Turns], int], tokenizer: Any) -> tuple[Turns, list[str]] | None:
    """Return the last turns of a prompt, as many as fit, and notes on what it lost; None where nothing fits.

    excess  tokens by which turns are too long; 0 or less where they fit.

    An exchange is what the user says, with all that follows until the user speaks again. Whole exchanges are left out,
    the oldest first: so roles still alternate, and no tool's result loses its call. Where the last exchange fits
    without the system's turn and the tools alone, these go too. A last exchange that is too long by itself keeps them
    if it can, and loses the beginning of its longest text. Nothing fits where no character of that text is left.
    """
    turns = as_messages(prompt)
    number = next((place for place, turn in enumerate(turns) if turn["role"] not in _CONTEXT), len(turns))
    context, rest = turns[:number], turns[number:]
    starts = [place for place, turn in enumerate(rest) if place and turn["role"] == "user"]
    fewer = [context + rest[start:] for start in starts]
    fitting = bisect_left(fewer, True, key=lambda some: excess(some) <= 0)
    if fitting < len(fewer):
        return fewer[fitting], [EARLIER]
    last, notes = (rest[starts[-1] :], [EARLIER]) if starts else (rest, [])
    if not last:
        return None
    if context and excess(last) <= 0:
        return last, [*notes, SYSTEM]
    for kept, more in ((context, []), ((), [SYSTEM])) if context else (((), []),):
        cut = _cut(kept, last, excess, tokenizer)
        if cut is not None:
            return cut, [*notes, *more, BEGINNING]
    return None


_CONTEXT = (TOOLS, "system", "developer")  # stand before the turns


def _cut(context: Turns, last: Turns, excess: Callable[[Turns], int], tokenizer: Any) -> Turns | None:
    """Return the turns with as much of the longest text's beginning cut as is needed; None where all of it is."""
    place = max(range(len(last)), key=lambda index: len(last[index]["content"]))
    text = last[place]["content"]
    while text:
        turns = (*context, *last[:place], {**last[place], "content": text}, *last[place + 1 :])
        over = excess(turns)
        if over <= 0:
            return turns
        text = _without_beginning(text, over, tokenizer)
    return None


def _without_beginning(text: str, tokens: int, tokenizer: Any) -> str:
    """Return a text without its first tokens, one character at least."""
    if not tokenizer.is_fast:  # such a tokenizer does not say where its tokens are
        number = max(len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]), 1)
        return text[-(-len(text) * tokens // number) :].lstrip()
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return text[max(places[tokens][0], 1) :].lstrip() if tokens < len(places) else ""
