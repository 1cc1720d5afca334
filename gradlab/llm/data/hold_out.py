"""Hold out pairs, whole prompts of them or single ones, and count the prompts that two sets of pairs share.

Pairs of one prompt tell about one another: of six answers to a prompt in an order that is pure chance, the pairs that
are trained on give away the order of the others. So accuracy on held-out pairs of prompts that were trained on says
how well a model remembers, and whole prompts are held out unless single pairs are asked for.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from gradlab.checks import one_of
from gradlab.llm.data.pair_forms import Prompt, as_messages
from gradlab.streams import Purpose, stream

HoldOut = Literal["prompts", "pairs"]
HOLD_OUT = get_args(HoldOut)
# A last message of the user of fewer bytes (UTF-8) is no question of its own, such as "yes" or "go on". Ours: of 1,992
# pairs of HH-RLHF, all last messages that stand in different dialogues by chance have at most 15 bytes.
SHORT = 20


def prompt_key(prompt: Prompt) -> str:
    """Return a hash that is equal for prompts which count as one: those with the same last message of the user.

    Case, white space and variants of a character (Unicode NFKC) make no difference. A text that is no dialogue of
    HH-RLHF's form is one message of the user. Where the last message is shorter than ``SHORT`` bytes, or the user says
    nothing, the whole prompt counts, in the same way. A dialogue and its continuation are two prompts.
    """
    turns = [(str(message["role"]), _plain(message.get("content"))) for message in as_messages(prompt)]
    last = next((text for role, text in reversed(turns) if role == "user"), "")
    said = last.encode(errors="surrogatepass")
    if len(said) < SHORT:
        said = "\n".join(f"{role}: {text}" for role, text in turns).encode(errors="surrogatepass")
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def split(keys: Sequence[str], number: int, seed: int, by: HoldOut) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the pairs to train on and of those held out, both in order, drawn by the seed.

    keys    the ``prompt_key`` of each pair.
    number  pairs to hold out. Whole prompts are drawn until that number is reached; a prompt with more pairs than are
            still missing is passed over, except at the end, if the number is nearer with a small such prompt.
    by      "prompts": all pairs of a prompt are on one side; "pairs": each pair is drawn by itself.

    Where each prompt has one pair, both ways give the same split. ValueError where whole prompts are to be held out of
    pairs that all have one.
    """
    one_of("hold_out", by, HOLD_OUT)
    order = stream(seed, Purpose.HELD_OUT).permutation(len(keys))
    if by == "pairs" or not number:
        return np.sort(order[number:]), np.sort(order[:number])
    chosen = _whole_prompts(keys, number, order)
    there = np.array([key in chosen for key in keys], bool)
    return np.flatnonzero(~there), np.flatnonzero(there)


def _whole_prompts(keys: Sequence[str], number: int, order: np.ndarray) -> set[str]:
    """Return the keys of the prompts to hold out; ``order`` is a permutation of the pairs."""
    sizes = Counter(keys)
    if len(sizes) == 1:
        raise ValueError(
            f"data must have pairs of two prompts or more where whole prompts are held out, got {len(keys)} pairs of "
            "one; hold out pairs (hold_out), none (held_out 0), or name a validation file"
        )
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    rank = np.argsort(order)  # a prompt's turn is that of its first pair: every prompt is drawn as easily as any other
    drawn = sorted(first, key=lambda key: rank[first[key]])
    chosen: set[str] = set()
    missing = number
    for key in drawn:
        if sizes[key] <= missing:
            chosen.add(key)
            missing -= sizes[key]
    rest = [key for key in drawn if key not in chosen]
    least = min(rest, key=lambda key: sizes[key])
    if len(rest) > 1 and (not chosen or sizes[least] - missing < missing):
        chosen.add(least)
    return chosen


@dataclass(frozen=True)
class Overlap:
    """A count of held-out pairs and prompts, and of those whose prompt is trained on too, by ``prompt_key``."""

    pairs: int
    """Held-out pairs."""
    prompts: int
    """Different prompts of these."""
    shared_pairs: int
    """Held-out pairs whose prompt is trained on too."""
    shared_prompts: int
    """Different prompts of these."""

    @classmethod
    def of(cls, train: Sequence[str], held_out: Sequence[str]) -> Overlap:
        """Return the overlap of two lists of keys, one key per pair."""
        there = set(train)
        sizes = Counter(held_out)
        shared = [key for key in sizes if key in there]
        return cls(len(held_out), len(sizes), sum(sizes[key] for key in shared), len(shared))

    def __str__(self) -> str:
        return (
            f"{self.shared_prompts:,} of the {self.prompts:,} held-out prompts, with {self.shared_pairs:,} of "
            f"{self.pairs:,} pairs, are trained on too: on those, accuracy shows what is remembered"
        )

    def header(self) -> dict[str, int]:
        """Return the overlap as values of a log's header."""
        return {
            "validation_pairs": self.pairs, "validation_prompts": self.prompts,
            "validation_pairs_seen": self.shared_pairs, "validation_prompts_seen": self.shared_prompts,
        }  # fmt: skip


def repeats(keys: Sequence[str]) -> str:
    """Return in words how many prompts the pairs have, and how many of these are repeated; one key per pair."""
    sizes = Counter(keys)
    repeated = [size for size in sizes.values() if size > 1]
    if not repeated:
        return f"{_counted(len(sizes), 'prompt')}, none repeated"
    return (
        f"{_counted(len(sizes), 'prompt')}, {len(repeated):,} repeated, with {sum(repeated):,} of the {len(keys):,} "
        f"pairs (at most {max(repeated):,} pairs of one prompt)"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def _plain(text: object) -> str:
    """Return a message's text without differences of case, white space and variants of characters."""
    said = text if isinstance(text, str) else ""
    return " ".join(unicodedata.normalize("NFKC", said).casefold().split())
