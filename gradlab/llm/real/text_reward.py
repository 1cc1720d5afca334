"""The true reward of the task of openings: a lexicon's sentiment, and as a second goal brevity."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

PER_WORD = 0.03  # what each word costs
SCALE = 4.0  # nats of preference per point of the true reward


def sentiment(text: str) -> float:
    """Return VADER's compound sentiment of a text, from −1 to 1; 0 where no word is in its lexicon.

    Source: Hutto and Gilbert (2014), as the package vaderSentiment computes it.
    """
    return float(_analyzer().polarity_scores(text)["compound"])


def words(text: str) -> int:
    """Return the number of words of a text, as white space parts them."""
    return len(text.split())


def true_reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return each response's true reward: its sentiment less ``PER_WORD`` per word; the prompt does not count."""
    return [sentiment(text) - PER_WORD * words(text) for _, text in zip(prompts, responses, strict=True)]


def utility(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Return each response's utility in nats, ``SCALE`` times the true reward: what labels and PPO go by."""
    return [SCALE * reward for reward in true_reward(prompts, responses)]


@functools.cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
