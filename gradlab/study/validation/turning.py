"""The leaning to length at which the sign of b − a turns, on samples of known reward: by formula, then measured.

Raters feel scale · (reward of b − reward of a) + leaning · (length of b − length of a), with noise; lengths are in log
words, or in words. The sign of the expected win-rate − ½ turns where the mean expected answer over the items is ½. To
first order in both parts that is at −(mean difference of rewards)/(mean difference of lengths).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from gradlab.store.artifacts import load_frame
from gradlab.study.answers import longer
from gradlab.study.frozen import Study
from gradlab.study.items import StudyItem, words
from gradlab.study.raters import simulated
from gradlab.study.results import Results
from gradlab.study.validation.plans import plan_for, seed_of, through_files
from gradlab.study.validation.settings import A, B, Turning
from gradlab.study.validation.trials import answered

_FARTHEST = 50.0  # log odds per unit of length, between which the turn is looked for


@dataclass(frozen=True)
class Samples:
    """Two systems' texts for each prompt, with the log odds by which raters without a leaning prefer b's.

    frame  a row per prompt: ``prompt``, ``text_a``, ``text_b``, ``worth``.
    """

    frame: pd.DataFrame

    @property
    def worth(self) -> dict[str, float]:
        """Return the log odds of each prompt."""
        return dict(zip(self.frame["prompt"], self.frame["worth"], strict=True))


def samples_of(turning: Turning, figures: Path) -> Samples | None:
    """Return the samples of both systems in the frames that are there; None where one system's are missing."""
    of_a, of_b = (_of_system(turning, figures, system) for system in (A, B))
    if of_a is None or of_b is None:
        return None
    both = of_a.merge(of_b, on="prompt", suffixes=("_a", "_b"), validate="one_to_one")
    both = both[(both["text_a"] != both["text_b"]) & (both["text_a"] != "") & (both["text_b"] != "")]
    worth = turning.scale * (both["reward_b"] - both["reward_a"])
    return Samples(both[["prompt", "text_a", "text_b"]].assign(worth=worth).reset_index(drop=True))


def _of_system(turning: Turning, figures: Path, system: str) -> pd.DataFrame | None:
    """Return ``prompt``, ``text`` and ``reward`` of a system's samples."""
    parts = []
    for file in sorted(figures.glob(turning.frame.replace("METHOD", system))):
        frame, _ = load_frame(file)
        if "system" in frame:
            part = frame[frame["system"] == system]
            prompt = part["prompt"].str.strip()
        else:  # a run on a pretrained model: the last look's samples
            part = frame[frame["kind"] == "sample"]
            part = part[part["step"] == part["step"].max()]
            turn = part.groupby("index").cumcount()
            seed, index = part["seed"].astype(int), part["index"].astype(int)
            prompt = pd.Series(
                [f"opening {at}, seed {by}, sample {of}" for at, by, of in zip(index, seed, turn, strict=True)],
                part.index,
            )
        text = part["text"].fillna("").str.strip()
        reward = part[turning.reward].astype(float) - turning.per_word * text.map(words)
        parts.append(pd.DataFrame({"prompt": prompt, "text": text, "reward": reward}))
    return pd.concat(parts, ignore_index=True) if parts and any(len(part) for part in parts) else None


def study_of_samples(turning: Turning, samples: Samples, seed: int) -> Study:
    """Return a study of as many of the samples as can be dealt evenly; the seed draws items, order and sides."""
    frame = samples.frame
    plan = plan_for(len(frame), turning.raters, turning.per_item, seed)
    texts = {
        prompt: {A: a, B: b} for prompt, a, b in zip(frame["prompt"], frame["text_a"], frame["text_b"], strict=True)
    }
    return through_files(plan, texts, dict.fromkeys(texts, "all"))


def more_of(turning: Turning, item: StudyItem) -> float:
    """Return by how much b is longer than a in an item, in the unit of the leaning."""
    return longer(item) if turning.unit == "log word" else float(words(item.text_b) - words(item.text_a))


def formula(turning: Turning, samples: Samples) -> float:
    """Return −(mean difference of worths)/(mean difference of lengths), where the sign turns to first order."""
    worth, more = _sides(turning, samples)
    return float(-worth.mean() / more.mean()) if more.mean() else math.inf


def predicted(turning: Turning, samples: Samples) -> float:
    """Return the leaning at which the mean expected answer is ½; NaN where none within ± 50 turns the sign."""

    def beyond(leaning: float) -> float:
        return expected_rate(turning, samples, leaning) - 0.5

    first = formula(turning, samples)
    near = (first - abs(first) - 1, first + abs(first) + 1) if math.isfinite(first) else (-_FARTHEST, _FARTHEST)
    for low, high in (near, (-_FARTHEST, _FARTHEST)):
        if beyond(low) * beyond(high) < 0:
            return float(brentq(beyond, low, high, xtol=1e-6))
    return math.nan


def expected_rate(turning: Turning, samples: Samples, leaning: float) -> float:
    """Return the expected win-rate of b over all samples, of raters with this leaning."""
    worth, more = _sides(turning, samples)
    return float(np.mean([turning.model.expected(felt) for felt in worth + leaning * more]))


def leanings(turning: Turning, samples: Samples) -> np.ndarray:
    """Return the leanings that are simulated: around the predicted one, as far as moves the rate by ``reach``."""
    middle = predicted(turning, samples)
    step = 1e-3 * max(abs(middle), 1.0)
    slope = (expected_rate(turning, samples, middle + step) - expected_rate(turning, samples, middle - step)) / 2 / step
    return middle + np.linspace(-1, 1, turning.steps) * turning.reach / abs(slope)


def turning_trials(
    turning: Turning, figures: Path, leaning: float, number: int, per_study: int, seed: int
) -> pd.DataFrame:
    """Return ``rate``, ``equal`` (at equal length) and ``slope`` of so many simulated studies at one leaning."""
    samples = samples_of(turning, figures)
    assert samples is not None
    worth, rows = samples.worth, []
    per_word = turning.unit == "word"
    model = turning.model if per_word else dataclasses.replace(turning.model, length=leaning)

    def felt(item: StudyItem) -> float:
        return worth[item.prompt] + (leaning * more_of(turning, item) if per_word else 0.0)

    judged: Callable[[StudyItem], float] = felt
    for block in range(0, number, per_study):
        study = study_of_samples(turning, samples, seed_of(seed, turning.name, "study", block))
        for place in range(block, min(block + per_study, number)):
            answers = simulated(study, judged, model, seed_of(seed, turning.name, "answers", round(leaning, 6), place))
            results = Results(answered(study, answers))
            equal = results.equal_length
            rows.append({
                "turning": turning.name, "leaning": leaning, "number": place, "rate": results.verdict.rate.rate,
                "equal": equal.rate.rate, "slope": equal.slope,
            })  # fmt: skip
    return pd.DataFrame(rows)


def crossing(leaning: np.ndarray, rate: np.ndarray) -> tuple[float, float]:
    """Return where a straight line through the rates crosses ½, and its standard error by the delta method."""
    design = np.column_stack([np.ones(len(leaning)), leaning])
    (start, slope), rest, *_ = np.linalg.lstsq(design, rate - 0.5, rcond=None)
    variance = float(rest[0]) / (len(rate) - 2) * np.linalg.inv(design.T @ design)
    root = -start / slope
    toward = np.array([-1.0, -root]) / slope
    return float(root), float(np.sqrt(toward @ variance @ toward))


def _sides(turning: Turning, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    frame = samples.frame
    number = [(words(a), words(b)) for a, b in zip(frame["text_a"], frame["text_b"], strict=True)]
    more = [math.log(max(b, 1) / max(a, 1)) if turning.unit == "log word" else float(b - a) for a, b in number]
    return frame["worth"].to_numpy(float), np.array(more)
