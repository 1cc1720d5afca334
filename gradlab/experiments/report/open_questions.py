"""The paper's three open questions and the three next checks of its summary, each with what answers it here.

No answer is here: words and numbers come from frames and verdicts. An experiment that answers a question has, in its
file in ``questions`` or in ``NAME_answer.py`` beside it, ``PREDICTIONS`` and ``answer``, see ``hooks``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import pandas as pd

from gradlab.experiments.predictions import Prediction


@dataclass(frozen=True)
class OpenQuestion:
    """A question that the paper leaves open, or a check that its summary proposes.

    name         "Open question 1", or "Next check 1".
    asked        the question in our words.
    source       where it stands.
    experiments  experiments that answer it, the main one first.
    claims       claims that carry the verdict, the main one first.
    figures      figures that show the answer, the main one first.
    controls     the controls that a referee would ask for, each with what it excludes.
    changes      what would change the answer.
    needs        what is needed where nothing here answers it, or for the part that nothing here answers.
    """

    name: str
    asked: str
    source: str
    experiments: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    changes: str = ""
    needs: str = ""


QUESTIONS: tuple[OpenQuestion, ...] = (
    OpenQuestion(
        "Open question 1", "Why does Balanced-DPO gain so much in harmlessness, and so little in helpfulness?",
        "the paper, on Anthropic HH", ("two-goals",), ("two-goals-pattern",),
    ),
    OpenQuestion(
        "Open question 2", "Does the theory, made for a finite set of responses, extend to continuous ones?",
        "the paper, as future work", ("continuous",), ("continuous-units",),
    ),
    OpenQuestion(
        "Open question 3", "Does it stay so for larger models, and for more data?",
        "the paper, as a limitation", ("scale",), ("scale-halved", "scale-lengths"),
    ),
    OpenQuestion(
        "Next check 1", "Do people prefer the answers of Balanced-DPO, on prompts of SafeRLHF and HH?",
        "the summary of the paper",
        needs="not run: needs people. Needed are answers of DPO and Balanced-DPO models to the same prompts, several "
        "raters per pair, blind and with random sides, and a plan that is fixed before the first answer: primary "
        "question, margin, number of items, rule of stopping, exclusions. Tools for rating and for agreement are here.",
    ),
    OpenQuestion(
        "Next check 2", "Do other ways of sampling pairs change the imbalance, and what Balanced-DPO gains?",
        "the summary of the paper", ("sampling",), ("sampling-limit", "sampling-imbalance", "sampling-benefit"),
    ),
    OpenQuestion(
        "Next check 3", "What do time, memory and convergence cost at 7, 13 and 34 billion parameters?",
        "the summary of the paper", (), ("overhead",),
    ),
)  # fmt: skip


def hooks(experiment: str) -> tuple[tuple[Prediction, ...], Callable[[pd.DataFrame], str]] | None:
    """Return an experiment's predictions, and the function that answers in words given its frame; None without them."""
    stem = f"gradlab.experiments.questions.{experiment.replace('-', '_')}"
    for module in (f"{stem}_answer", stem):
        if find_spec(module) and hasattr(found := import_module(module), "PREDICTIONS"):
            return found.PREDICTIONS, found.answer
    return None
