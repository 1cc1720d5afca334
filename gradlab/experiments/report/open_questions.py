"""The paper's three open questions and the three next checks of its summary, each with what answers it here.

No answer is here: words and numbers come from frames and verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gradlab.experiments import MEASURED
from gradlab.experiments.predictions import Prediction
from gradlab.experiments.questions import (
    continuous_answer,
    cost,
    pretrained,
    pretrained_answer,
    sampling_answer,
    scale_answer,
    two_goals_answer,
)


@dataclass(frozen=True)
class OpenQuestion:
    """A question that the paper leaves open, or a check that its summary proposes.

    name         "Open question 1", or "Next check 1".
    asked        the question in our words.
    source       who asks, and where.
    experiments  experiments that answer it, the main one first.
    claims       claims that carry the verdict, the main one first.
    beside       further claims of its experiments, on which the answer does not rest.
    figures      figures that show the answer, the main one first; empty: all of its experiments.
    controls     controls that a referee would ask for, each with what it excludes; results are rows of the claims.
    changes      what would change the answer, beside what would change its claims.
    gap          what lies between the worlds that answer and what was asked; empty where nothing does.
    measured     functions that say what committed measurements add, given the folder of the figures.
    needs        what nothing here answers, and what it would take.
    tools        files of the repository that would do it.
    """

    name: str
    asked: str
    source: str
    experiments: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    changes: str = ""
    gap: str = ""
    measured: tuple[Callable[[Path], str], ...] = ()
    needs: str = ""
    tools: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Teller:
    """The say of an experiment on an open question, given its whole frame.

    predictions  what was expected of it.
    answer       the answer in words.
    """

    predictions: tuple[Prediction, ...]
    answer: Callable[[pd.DataFrame], str]


TELLERS: dict[str, Teller] = {  # by experiment
    "two-goals": Teller(two_goals_answer.PREDICTIONS, two_goals_answer.answer),
    "continuous": Teller(continuous_answer.PREDICTIONS, continuous_answer.answer),
    "scale": Teller(scale_answer.PREDICTIONS, scale_answer.answer),
    "sampling": Teller(sampling_answer.PREDICTIONS, sampling_answer.answer),
}


def _of_pairs(told: Callable[[pd.DataFrame], str]) -> Callable[[Path], str]:
    """Return a function that says what the committed pairs of language models add, or that there are none."""

    def said(folder: Path) -> str:
        models = MEASURED["language-models"]
        if not models.is_in(folder):
            return f"In language models: not run; it {models.needs}."
        return told(models.load(folder)["pairs"])

    return said


QUESTIONS: tuple[OpenQuestion, ...] = (
    OpenQuestion(
        "Open question 1", "Why does Balanced-DPO gain so much in harmlessness, and so little in helpfulness?",
        "the paper, of its runs on Anthropic HH", ("two-goals",),
        ("two-goals-pattern", "two-goals-stated", "two-goals-cause"),
        controls=(
            "names of the goals exchanged: the result must follow the properties, bit for bit (a prediction)",
            "a constant λ = ½ at 2β: it is DPO itself, so bDPO at 2β against DPO is this control",
        ),
        changes="Language models trained on helpful and harmless pairs, with the mean λ_w − ½ of either set known "
        "before training; properties of real pairs that differ from our guess.",
        gap="it is asked of language models on real pairs, and answered in the lab",
        measured=(_of_pairs(two_goals_answer.in_language_models),),
        needs="Not run with language models: the helpful subset of HH is not at hand here.",
    ),
    OpenQuestion(
        "Open question 2", "Does the theory, made for a finite set of responses, extend to continuous ones?",
        "the paper, as future work", ("continuous",),
        ("continuous-units", "continuous-theory"),
        figures=("continuous-units", "continuous-frontier", "continuous-cells"),
        controls=(
            "DPO, λ = ½ and relative bDPO in the same coordinates: not the optimiser",
            "bDPO in the unit 1 + 1e-15, added after the first results: not rounding, which a pole of λ amplifies",
            "the same responses and the same parameters in every coordinate: only the densities change",
            "cells, from 20 to 1e8: where the finite theory goes", "equal KL: not the distance from the reference",
            "three kinds of policy, two references", "Theorems 3 to 5 on densities, by quadrature, with a proof",
        ),
        changes="A formula for λ that sees more than the densities of both responses under policy and reference; "
        "responses of more than one dimension, such as actions or images, which nobody has trained here. That the "
        "answer does not rest on continuous-repair was decided after the first results, in which that claim was mixed; "
        "resting on it, the answer would be less sure.",
        gap="it is answered on a line, with one prompt", beside=("continuous-repair",),
    ),
    OpenQuestion(
        "Open question 3", "Does it stay so for larger models, and for more data?",
        "the paper, as a limitation", ("scale",), ("scale-halved", "scale-lengths"),
        controls=(
            "DPO at β beside bDPO at β: does the measure see that two losses differ?",
            "length-weighted DPO, λ = L_l/(L_w + L_l): what bDPO does beyond it is balance, the rest is length",
            "bDPO at 2β against DPO at β: not only at one scale",
            "labels that depend on length, and labels that do not",
            "number of responses and length of responses apart: which of them is it?",
            "laws by algebra beside what was measured: λ's spread, and the share of its variance that length explains",
        ),
        measured=(_of_pairs(scale_answer.in_language_models), pretrained_answer.in_words),
        changes="More language models trained with length-weighted DPO beside bDPO, which shows what balance is left: "
        f"further seeds of the pretrained model (`{pretrained.COMMAND}` runs those that are declared), and a "
        "model of 7 billion parameters, for which a plan is frozen (docs/how-to/seven-billion.md).",
        gap="it is asked of large language models, and answered in the lab and with small ones",
        beside=(pretrained.CONTROL, pretrained.GAIN, pretrained.LIKELIHOOD),
    ),
    OpenQuestion(
        "Next check 1", "Do people prefer the answers of Balanced-DPO to those of DPO, on prompts of SafeRLHF and HH?",
        "the summary of the paper",
        needs="Not run: it needs people. Needed are answers of models that were trained with either loss to the same "
        "prompts; several raters per item, blind, with random sides; and a plan that is fixed before the first answer: "
        "primary question, margin, number of items by a computation of power, rule of stopping, exclusions, analysis. "
        "The tools are here, an explorer for rating and the intervals of agreement and preference; the models at 7B "
        "and the raters are not.",
        tools=("gradlab/widgets/rating_explorer.py", "gradlab/stats/agreement.py"),
    ),
    OpenQuestion(
        "Next check 2", "Do other ways of sampling pairs change the imbalance, and what Balanced-DPO gains?",
        "the summary of the paper", ("sampling",), ("sampling-limit", "sampling-imbalance", "sampling-benefit"),
        controls=(
            "policies that have settled, found as the end of gradient flow: a budget cannot pass for a sampler",
            "a constant λ = ½, and bDPO at 2β: not the halved β",
            "λ permuted among the pairs: not some weights, but the right ones",
            "DPO at equal KL: not the distance from the reference",
            "the sampler frozen at the start: drift of the data against drift of the policy",
            "fresh pairs against as many fixed ones: equal numbers of labels",
            "all pairs in place of those seen: what the policy does, and not which pairs are shown",
            "a uniform, a shifted and a trained reference, fixed or moved",
        ),
        changes="Language models trained on pairs that they sample themselves.",
    ),
    OpenQuestion(
        "Next check 3", "What do time, memory and convergence cost at 7, 13 and 34 billion parameters?",
        "the summary of the paper", (), ("overhead",),
        gap="it is asked of models from 7 billion parameters on, and judged on small ones",
        measured=(cost.at_seven_billion,),
        needs="Memory and seconds per step at all three sizes are in scripts/README.md: computed from configs, with "
        "what was measured beside it. "
        "Not run: 13 and 34 billion parameters, and how fast either loss converges at any of these sizes. "
        "That needs whole trainings with either loss at each size, with several seeds.",
        tools=("scripts/benchmarks/llm_speed.py", "gradlab/llm/model/memory_table.py"),
    ),
)  # fmt: skip
