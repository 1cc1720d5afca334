"""Responses that begin with their prompt: which do, and what prompt and responses are when it is taken once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradlab.llm.data.pair_forms import TAKEN_ONCE, TURN, Prompt, Unusable, messages_of

if TYPE_CHECKING:
    from gradlab.llm.data.pairs import Pair

SHARE = 0.9  # of a source's pairs repeat their prompt: then it is the form of the source, and no answer's own words
LENGTH = 20  # characters that such a prompt has; a shorter one, such as "Hi", may well begin two answers
KEPT = "both responses repeat the prompt, kept as they are"
KEPT_ONE = "one response begins with the prompt, kept as it is"


@dataclass(frozen=True)
class Repeats:
    """A finding on a whole source, by which each of its pairs is then corrected, one at a time.

    begin   whether ``SHARE`` of the pairs have two responses that begin with their prompt.
    inside  whether ``SHARE`` of them have two that repeat it after the same words.
    number  of pairs.

    - Where both responses begin with a prompt that is a dialogue of HH-RLHF's form, the prompt is taken off.
    - Where both are whole dialogues of that form beside a shorter prompt, the prompt is what they share up to the last
      turn; they are left out if it differs, or does not hold the prompt's words.
    - Where both begin with another prompt, of ``LENGTH`` characters or more, it is taken off if ``SHARE`` of the pairs
      of the source begin with theirs. Else nothing is changed, and the pairs are counted; so are those whose responses
      both repeat a prompt after the same words, as in a template that is not the tokenizer's: such a prompt, or a
      shorter one if ``SHARE`` of the pairs do so. Pairs of which one response begins with such a prompt are counted.
    """

    begin: bool = False
    inside: bool = False
    number: int = 0

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> Repeats:
        """Return the finding on pairs, which are looked at one at a time."""
        kinds = Counter(map(_kind, pairs))
        number = sum(kinds.values())
        return cls(kinds["begin"] >= SHARE * number, kinds["inside"] + kinds["inside, short"] >= SHARE * number, number)

    def corrected(self, pair: Pair) -> tuple[dict[str, Any], str]:
        """Return the fields of a pair that change, and a note or an empty text; Unusable where it is left out."""
        kind = _kind(pair)
        if kind == "dialogues":
            return _of_dialogues(_asked(pair.prompt), pair), TAKEN_ONCE
        if kind == "begin":
            asked = _asked(pair.prompt)
            if messages_of(asked) or (self.begin and len(asked.strip()) >= LENGTH):
                return {"chosen": pair.chosen[len(asked) :], "rejected": pair.rejected[len(asked) :]}, TAKEN_ONCE
            return {}, KEPT
        if kind == "inside" or (kind == "inside, short" and self.inside):
            return {}, KEPT
        return {}, KEPT_ONE if kind == "one" else ""


def _kind(pair: Pair) -> str:
    """Return how the responses of a pair repeat its prompt; an empty text where they do not, or it does not matter."""
    asked = _asked(pair.prompt)
    words = asked.strip()
    if pair.messages is not None:
        return ""
    dialogues = all(text.startswith("\n\nHuman:") and TURN in text for text in (pair.chosen, pair.rejected))
    begins = [bool(words) and text.startswith(asked) for text in (pair.chosen, pair.rejected)]
    if all(begins) and (not dialogues or asked.rstrip().endswith(TURN)):
        return "begin"
    if dialogues:
        return "dialogues"
    if any(begins):
        return "one" if len(words) >= LENGTH else ""
    if words and _inside_both(words, pair):
        return "inside" if len(words) >= LENGTH else "inside, short"
    return ""


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
