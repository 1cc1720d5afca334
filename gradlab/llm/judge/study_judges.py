"""Judges that are models, as raters of a study: they answer every item in both orders.

A reward model, a sequence classifier or a function scores each response alone, so that both orders agree by
construction; the lines say so, and the report does. Only a pairwise judge, which sees both responses, can lean to a
side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gradlab.checks import between, one_of, shown
from gradlab.console import one_line
from gradlab.llm.data.pair_forms import as_messages
from gradlab.llm.model.reward_functions import function_of
from gradlab.llm.model.rewards import CheckedReward, load_reward
from gradlab.study.answers import SCORED, answer_line
from gradlab.study.assignment import Task, tasks_of
from gradlab.study.blind import texts_of
from gradlab.study.frozen import Study

PAIRWISE = "pairwise:"  # before MODULE:FUNCTION or FILE.py:FUNCTION
_CHOICES = ("left", "right", "tie")


@dataclass(frozen=True)
class Pairwise:
    """A judge that sees both responses: ``function(prompt, left, right)`` returns left, right or tie."""

    function: Callable[[str, str, str], Any]


def judged(
    study: Study, name: str, score: str | Callable[..., Any] | Pairwise, *, tie: float = 0.0, goal: str | None = None
) -> list[dict[str, Any]]:
    """Return the lines by which a judge answers all its tasks, each item in both orders.

    name   one of the plan's judges.
    score  a reward as ``load_reward`` takes it: a model, "MODULE:FUNCTION", "FILE.py:FUNCTION" or a callable of lists
           of prompts and responses; functions do without transformers. Or ``Pairwise``, or
           "pairwise:FILE.py:FUNCTION".
    tie    the largest difference of scores that counts as a tie; where the plan has no ties, it counts as a skip.
    goal   the goal that it judges; left out: the primary one.

    ValueError in one line for an unknown judge or goal, and for a judge that fails or returns something else.
    """
    one_of("name", name, study.plan.judges)
    between("tie", tie, 0)
    goal = study.plan.primary.goal if goal is None else goal
    tasks = tasks_of(study, name)
    seen = [texts_of(study, task) for task in tasks]
    if isinstance(score, str) and score.startswith(PAIRWISE):
        score = Pairwise(function_of(score.removeprefix(PAIRWISE)))
    if isinstance(score, Pairwise):
        choices, reason = [_compared(score, name, *texts) for texts in seen], ""
    else:
        choices, reason = _by_scores(load_reward(score), seen, tie), SCORED
    return [_line(study, task, goal, choice, reason) for task, choice in zip(tasks, choices, strict=True)]


def _by_scores(reward: CheckedReward, seen: Sequence[tuple[str, str, str]], tie: float) -> list[str]:
    """Return for each prompt, left and right the side with the higher score; every response is scored once."""
    responses = list(dict.fromkeys((prompt, text) for prompt, *both in seen for text in both))
    prompts = [as_messages(prompt) if reward.template == "chat" else prompt for prompt, _ in responses]
    scores = dict(zip(responses, reward(prompts, [text for _, text in responses]).tolist(), strict=True))
    ahead = [scores[prompt, left] - scores[prompt, right] for prompt, left, right in seen]
    return ["tie" if abs(more) <= tie else "left" if more > 0 else "right" for more in ahead]


def _compared(judge: Pairwise, name: str, prompt: str, left: str, right: str) -> str:
    """Return what a pairwise judge says."""
    try:
        said = judge.function(prompt, left, right)
    except Exception as error:  # anyone may have written the function
        raise ValueError(f"judge {name} failed: {one_line(f'{type(error).__name__}: {error}')}") from error
    if not isinstance(said, str) or said not in _CHOICES:
        raise ValueError(f"judge {name} must return one of {', '.join(_CHOICES)}, got {shown(said)}")
    return said


def _line(study: Study, task: Task, goal: str, choice: str, reason: str) -> dict[str, Any]:
    if choice == "tie" and not study.plan.design.ties:
        choice = "skip"
    return answer_line(study, task, goal, choice, reason=reason)
