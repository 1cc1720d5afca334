"""Advice on a file of pairs: read the pairs, look at them under a model, load the evidence, and ask the rules."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.advice.data_facts import DataFacts, facts_of_pairs
from gradlab.advice.rules import Advice, ModelFacts, advise, words_of
from gradlab.experiments.questions.atlas_runs import SETTINGS, MislabelledWorld
from gradlab.lab.world import gaussian_world
from gradlab.store.artifacts import load_frame
from gradlab.store.shipped import shipped

TRAINED, CLAIMS = "data/atlas.parquet", "claims.csv"


def advise_on_file(
    source: str, *, choice: str | None = None, split: str = "train", noise: float | None = None,
    model: Mapping[str, Any] | None = None,
) -> tuple[DataFacts, list[Advice]]:  # fmt: skip
    """Return the facts of a source of pairs, and the advice on it.

    source, choice, split  as for ``read_pairs``.
    noise  as for ``advise``.
    model  the arguments of ``inspect_data`` beside the data, such as {"model": "FOLDER"}; None: no model is looked at.

    ValueError or OSError of ``read_pairs`` and ``inspect_data``, in one line; FileNotFoundError where this
    installation lacks the evidence.
    """
    from gradlab.llm.data.pairs import read_pairs

    pairs, _ = read_pairs(source, choice=choice, split=split)
    facts = facts_of_pairs(pairs)
    seen = None
    if model is not None:
        from gradlab.llm.look.inspection import inspect_data

        seen = model_facts(inspect_data(data=source, choice=choice, split=split, **model).frame)
    trained, claims = evidence(shipped("figures"))
    return facts, advise(facts, trained, lab_disagreements(), claims, model=seen, noise=noise)


def evidence(figures: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the atlas's trainings and the word of each claim, from the folder of the figures."""
    trained, _ = load_frame(figures / TRAINED)
    with (figures / CLAIMS).open(encoding="utf-8", newline="") as lines:
        return trained, words_of(list(csv.DictReader(lines)))


def lab_disagreements() -> dict[float, float]:
    """Return how often two labels of one question disagree in the lab, by the share of labels that are flipped.

    The mean of 2P(1 − P) over comparable pairs, P the probability of a label, in the first world of the atlas.
    """
    world = gaussian_world(seed=SETTINGS["first_seed"], **SETTINGS["world"])
    found = {}
    for level in (0.0, *SETTINGS["factors"]["noise"]):
        noisy = MislabelledWorld(**vars(world), flipped=level) if level else world
        wins = noisy.preference()[noisy.comparable()]
        found[float(level)] = float((2 * wins * (1 - wins)).mean())
    return found


def model_facts(frame: pd.DataFrame) -> ModelFacts:
    """Return the facts of an inspection's frame, see ``gradlab.llm.look.imbalance.measured``."""
    from gradlab.llm.look.imbalance import length_correlation

    ahead = frame["win_per_token"] - frame["lose_per_token"]
    shares = {
        name.removeprefix("displaced_"): float(np.nanmean(frame[name]))
        for name in frame.columns if name.startswith("displaced_") and frame[name].notna().any()
    }  # fmt: skip
    correlation = length_correlation(frame)
    return ModelFacts(
        imbalance=float(frame["imbalance"].median()),
        length_r2=math.nan if math.isnan(correlation) else correlation**2,
        preferred=float(((ahead > 0) + 0.5 * (ahead == 0)).mean()),
        displaced=shares,
    )
