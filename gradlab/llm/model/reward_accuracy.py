"""The accuracy of a reward: how often it prefers the preferred response, beside length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import Template, responses_of
from gradlab.llm.model.rewards import load_reward
from gradlab.stats.intervals import bootstrap_interval


@dataclass(frozen=True)
class Accuracy:
    """The share of pairs whose preferred response a reward prefers, ties ½; intervals are 95% bootstraps over pairs."""

    pairs: int
    accuracy: float
    low: float
    high: float
    shorter: float
    """How often the preferred response is the shorter one: what "prefer the shorter answer" scores."""
    shorter_low: float
    shorter_high: float
    gain: float
    """The reward's accuracy less that of the shorter, or of the longer answer, whichever is better."""
    gain_low: float
    gain_high: float

    @property
    def beats_length(self) -> bool:
        """Say whether the reward is above chance, and above what length alone scores, beyond their intervals."""
        return self.low > 0.5 and self.gain_low > 0

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.3f} [{self.low:.3f}, {self.high:.3f}] on {self.pairs} held-out pairs; "
            f"'prefer the shorter answer' scores {self.shorter:.3f} [{self.shorter_low:.3f}, {self.shorter_high:.3f}]"
        )


def held_out_accuracy(
    reward: str | Callable[..., Any], pairs: Sequence[Pair], *, template: Template = "plain", tokenizer: Any = None,
    lengths: Sequence[Sequence[int]] | None = None, sign: int = 1,
) -> Accuracy:  # fmt: skip
    """Return how well a reward tells the preferred response of pairs, and how well length alone does.

    template, tokenizer  those of the model whose text the reward reads.
    lengths              lengths of both responses; left out: in characters.
    sign                 −1 for a cost, where less is better.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    reward = load_reward(reward)
    prompts = reward.prompts([pair.prompt for pair in pairs], template, tokenizer)
    both = [responses_of(pair, template, tokenizer) for pair in pairs]
    responses = [chosen for chosen, _ in both] + [rejected for _, rejected in both]
    win, lose = np.split(sign * reward(prompts + prompts, responses), 2)
    right = preferred(win, lose)
    sizes = np.array(lengths if lengths is not None else [(len(chosen), len(rejected)) for chosen, rejected in both])
    shorter = preferred(sizes[:, 1], sizes[:, 0])
    gain = right - (shorter if shorter.mean() >= 0.5 else 1 - shorter)
    figures = [float(x) for values in (right, shorter, gain) for x in (values.mean(), *bootstrap_interval(values))]
    return Accuracy(len(pairs), *figures)


def preferred(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 where the first is larger, ½ where both are equal, else 0."""
    return (first > second) + 0.5 * (first == second)
