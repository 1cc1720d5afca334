"""A token task whose true reward is known and says nothing about length, so that no weak reward model blurs a verdict.

A prompt names three topics. A response is a row of words from ten opposites (warm or cold, …). Each topic likes one
word of an opposite as much as it dislikes the other. It makes some opposites more frequent than others, but never one
word of an opposite more than the other. Exchanging all words for their opposites therefore leaves a response as likely
as before and changes the sign of its reward: at every length, rewards lie symmetrically around 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradlab.checks import count
from gradlab.llm.data.pairs import Pair, json_lines
from gradlab.llm.model.loading import END, PAD, SPECIAL, START
from gradlab.store.files import write_whole
from gradlab.streams import Purpose, stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OPPOSITES = (
    ("warm", "cold"), ("bright", "dark"), ("quick", "slow"), ("soft", "hard"), ("near", "far"),
    ("loud", "quiet"), ("early", "late"), ("high", "low"), ("sweet", "bitter"), ("new", "old"),
)  # fmt: skip
# For each topic: how much it likes the first word of each opposite, and how frequent it makes the opposite.
TOPICS = {
    "river": ((0, -2, 0, -1, -1, 2, -1, -1, -1, -1), (1, 2, 2, 2, 1, 2, 3, 0, 0, 1)),
    "winter": ((2, 0, -2, -2, 0, -2, 1, -1, 1, 0), (3, 1, 3, 0, 3, 1, 3, 2, 2, 1)),
    "night": ((0, 2, 0, -1, 0, 2, 1, 0, -2, -1), (3, 0, 1, 1, 1, 2, 1, 3, 2, 1)),
    "market": ((1, 1, -2, -1, 2, 0, 0, 2, -1, -1), (1, 3, 0, 2, 1, 2, 0, 3, 2, 3)),
    "stone": ((-2, 1, 0, -1, -2, 0, -1, -1, -1, -1), (3, 2, 1, 1, 1, 0, 1, 3, 0, 0)),
    "garden": ((-1, -2, -2, 1, 0, 1, 1, 0, 0, -1), (0, 2, 1, 1, 1, 1, 1, 2, 1, 1)),
    "letter": ((-2, -1, 0, 0, 0, 0, 1, -1, -1, 1), (0, 1, 0, 1, 3, 2, 1, 0, 0, 0)),
    "engine": ((-1, 0, -1, -1, -1, -1, -1, 2, -1, 1), (0, 3, 3, 3, 3, 1, 0, 3, 0, 3)),
}
SEPARATOR = ":"  # ends a prompt
UNKNOWN = "<unk>"
_NAMED = 3  # topics of a prompt
_SCALE = 4.2  # makes two responses' rewards differ by about 2
_WORDS = {word: (index, sign) for index, pair in enumerate(OPPOSITES) for word, sign in zip(pair, (1, -1), strict=True)}


def token_task(pairs: int, seed: int, *, shortest: int = 4, longest: int = 24) -> list[Pair]:
    """Return preference pairs: two responses from the prompt's distribution, labelled by Bradley–Terry on the reward.

    shortest, longest  the range of a response's number of words; all lengths in it are equally likely.

    The first pairs of a seed are the same, however many pairs are drawn.
    """
    count("pairs", pairs)
    rng = stream(seed, Purpose.TOKEN_TASK)
    longest = count("longest", longest, count("shortest", shortest, 1))
    return [
        _pair(rng, shortest, longest, f"token task of seed {seed}, pair {number}") for number in range(1, pairs + 1)
    ]


def true_reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return the reward of each response: the mean of what its words earn.

    A word earns as much as the prompt's topics like it, and nothing where it repeats the word before; unknown words
    earn nothing. Special tokens do not count as words. Any text has a reward; that of an empty response is 0.
    """
    return [_reward(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def task_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word of the task; it starts each text with ``START``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, UNKNOWN, *TOPICS, SEPARATOR, *_WORDS]
    by_word = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    by_word.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    by_word.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{START} $A", special_tokens=[(START, words.index(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=by_word, bos_token=START, eos_token=END, pad_token=PAD, unk_token=UNKNOWN
    )


def write_task(folder: Path | str, pairs: int, held_out: int, seed: int) -> tuple[Path, Path]:
    """Write the first ``pairs`` pairs of a seed to train.jsonl and the next ``held_out`` to held_out.jsonl.

    Both files are written whole, or neither is touched. Returns their paths.
    """
    task = token_task(count("pairs", pairs) + count("held_out", held_out), seed)
    train, rest = Path(folder) / "train.jsonl", Path(folder) / "held_out.jsonl"
    write_whole({train: json_lines(task[:pairs]), rest: json_lines(task[pairs:])})
    return train, rest


def _pair(rng: np.random.Generator, shortest: int, longest: int, place: str) -> Pair:
    topics = [list(TOPICS)[index] for index in rng.permutation(len(TOPICS))[:_NAMED]]
    share = np.exp(np.mean([TOPICS[topic][1] for topic in topics], axis=0))
    prompt = " ".join([*topics, SEPARATOR, ""])

    def response() -> str:
        length = rng.integers(shortest, longest + 1)
        opposites, sides = rng.choice(len(OPPOSITES), length, p=share / share.sum()), rng.integers(2, size=length)
        return " ".join(OPPOSITES[index][side] for index, side in zip(opposites, sides, strict=True))

    first, second = response(), response()
    preferred = rng.random() < 1 / (1 + math.exp(_reward(prompt, second) - _reward(prompt, first)))
    return Pair(prompt, first, second, place) if preferred else Pair(prompt, second, first, place)


def _reward(prompt: str, response: str) -> float:
    liked = [TOPICS[word][0] for word in _split(prompt) if word in TOPICS]
    words = _split(response)
    earned = 0
    for before, word in zip(["", *words], words, strict=False):
        if word in _WORDS and word != before:
            index, sign = _WORDS[word]
            earned += sign * sum(likes[index] for likes in liked)
    return _SCALE * earned / math.sqrt(len(liked) or 1) / (len(words) or 1)


def _split(text: str) -> list[str]:
    for special in SPECIAL:
        text = text.replace(special, " ")
    return text.split()
