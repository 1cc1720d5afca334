"""Responses that begin with their prompt: which do, and what prompt and responses are when it is taken once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradlab.llm.data.pair_forms import TAKEN_ONCE, TURN, Prompt, Unusable, messages_of

if TYPE_CHECKING:
    from gradlab.llm.data.pairs import Pair

SHARE = 0.9  # of a source's pairs repeat their prompt: then it is the form of the source, and no answer's own words
LENGTH = 20  # characters that such a prompt has; a shorter one, such as "Hi", may well begin two answers
KEPT = "both responses repeat the prompt, kept as they are"
KEPT_ONE = "one response begins with the prompt, kept as it is"


def repeated(pairs: Sequence[Pair]) -> tuple[dict[int, dict[str, Any]], dict[int, Unusable], dict[str, int]]:
    """Return the changes of pairs whose prompt is taken once, why others are left out, and how many were changed.

    The first two are by index.

    - Where both responses begin with a prompt that is a dialogue of HH-RLHF's form, the prompt is taken off.
    - Where both are whole dialogues of that form beside a shorter prompt, the prompt is what they share up to the last
      turn; they are left out if it differs, or does not hold the prompt's words.
    - Where both begin with another prompt, of ``LENGTH`` characters or more, it is taken off if ``SHARE`` of the pairs
      of the source begin with theirs. Else nothing is changed, and the pairs are counted; so are those whose responses
      both repeat a prompt after the same words, as in a template that is not the tokenizer's: such a prompt, or a
      shorter one if ``SHARE`` of the pairs do so. Pairs of which one response begins with such a prompt are counted.
    """
    texts, left_out, notes = {}, {}, {}
    begin: list[int] = []
    kept = inside = sides = 0  # inside: of shorter prompts
    for index, pair in enumerate(pairs):
        if pair.messages is not None:
            continue
        asked = _asked(pair.prompt)
        dialogues = all(text.startswith("\n\nHuman:") and TURN in text for text in (pair.chosen, pair.rejected))
        begins = asked.strip() and [text.startswith(asked) for text in (pair.chosen, pair.rejected)]
        if begins and all(begins) and (not dialogues or asked.rstrip().endswith(TURN)):
            begin.append(index)
        elif dialogues:
            try:
                texts[index] = _of_dialogues(asked, pair)
            except Unusable as reason:
                left_out[index] = reason
        elif begins and any(begins):
            sides += len(asked.strip()) >= LENGTH
        elif asked.strip() and _inside_both(asked.strip(), pair):
            kept += len(asked.strip()) >= LENGTH
            inside += len(asked.strip()) < LENGTH
    many = len(begin) >= SHARE * len(pairs)
    kept += inside if kept + inside >= SHARE * len(pairs) else 0
    for index in begin:
        pair, asked = pairs[index], _asked(pairs[index].prompt)
        if messages_of(asked) or (many and len(asked.strip()) >= LENGTH):
            texts[index] = {"chosen": pair.chosen[len(asked) :], "rejected": pair.rejected[len(asked) :]}
        else:
            kept += 1
    if texts:
        notes[TAKEN_ONCE] = len(texts)
    counts = {KEPT: kept, KEPT_ONE: sides}
    return texts, left_out, notes | {note: number for note, number in counts.items() if number}


def _asked(prompt: Prompt) -> str:
    """Return the text that a response would repeat: the prompt, or the words of its last turn."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _inside_both(asked: str, pair: Pair) -> bool:
    """Say whether both responses hold the prompt, and the same words before it."""
    end = pair.chosen.find(asked) + len(asked)
    return asked in pair.chosen and pair.chosen[:end] == pair.rejected[:end]


def _of_dialogues(asked: str, pair: Pair) -> dict[str, Any]:
    (before, turn, chosen), (other, _, rejected) = (text.rpartition(TURN) for text in (pair.chosen, pair.rejected))
    if before != other:
        raise Unusable("different prompts")
    if asked.strip() not in before + turn:
        raise Unusable("prompt beside dialogues that do not hold it")
    if isinstance(pair.prompt, str):
        return {"prompt": before + turn, "chosen": chosen, "rejected": rejected}
    prompt = (*pair.prompt[:-1], *(messages_of(before + turn) or ()))
    return {"prompt": prompt, "chosen": chosen.strip(), "rejected": rejected.strip()}
