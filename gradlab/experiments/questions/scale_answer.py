"""Predictions on scale, written down before the first full run, and the answer in words from the frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from gradlab.experiments.predictions import Outcome, Prediction, by_interval
from gradlab.experiments.questions.language_models_runs import TASKS
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.scale import LONG, MARGIN, MOST, NEARER, SETTINGS, UNEQUAL
from gradlab.stats.equivalence import mean_of

_KEYS = ["length", "variation", "length_utility", "vocabulary"]
Cell = tuple[str, float, float, float]  # its name, the mean over seeds and the ends of its 95% interval


def cells(frame: pd.DataFrame, value: Callable[[pd.DataFrame], pd.Series], by: Sequence[str]) -> list[Cell]:
    """Return a number's mean over seeds in each cell, with its 95% t interval; of one seed, the number itself."""
    found = []
    for key, rows in frame.groupby(list(by), sort=True):
        mean = mean_of(value(rows).to_numpy(float))
        low, high = (float(np.where(np.isnan(end), mean.effect, end)) for end in mean.interval())
        name = ", ".join(f"{_WORDS.get(one, one)} {number:,.10g}" for one, number in zip(by, key, strict=True))
        found.append((name, float(mean.effect), low, high))
    return found


def in_every_cell(found: Sequence[Cell], *, least: float = -math.inf, most: float = math.inf) -> Outcome:
    """Mark a prediction on every cell: held where it holds in all of them, failed where it fails in one."""
    if not found:
        return Outcome("undecided", "the frame has no such cell")
    outcomes = [by_interval(low, high, name, least=least, most=most) for name, _, low, high in found]
    low, high = (pick(found, key=lambda cell: cell[1]) for pick in (min, max))
    because = f"from {low[1]:.3g} ({low[0]}) to {high[1]:.3g} ({high[0]})"
    failed = [one.because for one in outcomes if one.word == "failed"]
    if failed:
        return Outcome("failed", f"{because}; fails in {len(failed)} of {len(found)} cells: {'; '.join(failed[:4])}")
    held = sum(one.word == "held" for one in outcomes)
    if held < len(found):
        return Outcome("undecided", f"{because}; held in {held} of {len(found)} cells, undecided in the others")
    return Outcome("held", because)


def sequences(frame: pd.DataFrame, where: str, *, all_words: bool = False) -> pd.DataFrame:
    """Return the rows of sequences that a query picks, of the main vocabulary unless all are asked for."""
    rows = frame[frame["kind"] == "sequences"]
    return (rows if all_words else rows[rows["vocabulary"] == SETTINGS["vocabulary"]]).query(where)


def _spread(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, "method == 'reference' and variation == 0 and length >= 16", all_words=True)
    return in_every_cell(
        cells(rows, lambda r: r["weight_sd"] / r["weight_sd_law"], ["length", "vocabulary"]), least=0.9, most=1.1
    )


def _shares(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, "method == 'reference' and variation == 0 and length >= 16", all_words=True)
    found = cells(rows, lambda r: r["corrected"] * r["surprisal"] * r["length"], ["length", "vocabulary"])
    return in_every_cell(found, least=0.9, most=1.1)


def _explained(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, "method == 'reference' and variation >= .1 and length == 1024")
    return in_every_cell(cells(rows, lambda r: r["explained"], _KEYS[:3]), least=0.9)


def _law_of_lengths(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, "method == 'reference' and variation >= .1 and length >= 16", all_words=True)
    return in_every_cell(cells(rows, lambda r: r["explained"] - r["explained_law"], _KEYS), least=-0.1, most=0.1)


def _halved(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, f"method == 'bdpo' and variation == 0 and length >= {LONG}")
    return in_every_cell(cells(rows, lambda r: r["to_half"], ["length"]), most=MARGIN)


def _by_root(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, "method == 'bdpo' and variation == 0 and length >= 16")
    slopes = _slopes(rows, "length")
    return _one(slopes, "log distance over log L has a slope of", least=-0.65, most=-0.35)


def _by_number(frame: pd.DataFrame) -> Outcome:
    rows = frame.query("kind == 'responses' and method == 'bdpo' and responses >= 50")
    rows = rows.assign(log_n=np.log(rows["responses"]))
    return _one(_slopes(rows, "log_n"), "log distance over log log n has a slope of", least=-1.5, most=-0.5)


def _never_halved(frame: pd.DataFrame) -> Outcome:
    rows = frame.query(f"kind == 'responses' and method == 'bdpo' and responses <= {MOST}")
    return in_every_cell(cells(rows, lambda r: r["to_half"], ["responses"]), least=MARGIN)


def _nearer(frame: pd.DataFrame) -> Outcome:
    rows = sequences(frame, f"method == 'bdpo' and variation > 0 and length >= {UNEQUAL}")
    return in_every_cell(cells(rows, lambda r: r["to_half"] - r["to_length"], _KEYS[:3]), least=NEARER)


def _slopes(rows: pd.DataFrame, over: str) -> np.ndarray:
    """Return for each seed that has all values of ``over`` the slope of log to_half over its logarithm."""
    whole = rows[over].nunique()
    if whole < 2:
        return np.array([np.nan])
    return np.array([
        np.polyfit(np.log(run[over]), np.log(run["to_half"].to_numpy(float)), 1)[0]
        for _, run in rows.groupby("seed") if len(run) == whole
    ])  # fmt: skip


def _one(values: np.ndarray, words: str, *, least: float, most: float) -> Outcome:
    mean = mean_of(values)
    low, high = map(float, mean.interval())
    return by_interval(low, high, f"{words} {float(mean.effect):.2f} [{low:.2f}, {high:.2f}]", least=least, most=most)


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "With equally long responses of 16 tokens or more, λ spreads about ½ by s/(2√2·a·√L) under the reference, "
        "within a tenth.", _spread,
    ),
    Prediction(
        "There the median share of the imbalance that bDPO corrects is 1/(aL), within a tenth.", _shares,
    ),
    Prediction(
        "With unequal lengths (coefficient of variation .1 or more) and 1,024 tokens, the loser's share of tokens "
        "explains at least 90% of the variance of λ under the reference.", _explained,
    ),
    Prediction(
        "From 16 tokens on, that share of the variance is c²/(c² + s²/(a²L)) to within .1.", _law_of_lengths,
    ),
    Prediction(
        f"With equally long responses of {LONG} tokens or more, bDPO ends within a tenth of the way of DPO at "
        "β/2 from it.",
        _halved,
    ),
    Prediction("That distance falls as 1/√L: its slope on logarithmic axes is −½ ± .15.", _by_root),
    Prediction(
        "With n responses of one token it falls as 1/log n only: the slope of its logarithm over log log n is −1 ± ½.",
        _by_number,
    ),
    Prediction(
        f"So with responses of one token bDPO stays more than a tenth away from DPO at β/2, up to "
        f"{MOST:,} responses.", _never_halved,
    ),
    Prediction(
        f"With unequal lengths of {UNEQUAL} tokens or more bDPO ends nearer to length-weighted DPO than to DPO at β/2, "
        f"by more than {NEARER:g}, in every cell.", _nearer,
    ),
)  # fmt: skip


def answer(frame: pd.DataFrame) -> str:
    """Return the answer to the lab half of the question in words, with the frame's numbers."""
    return " ".join([_in_short(frame), _of_equal_lengths(frame), _of_numbers(frame), _of_unequal_lengths(frame)])


def _in_short(frame: pd.DataFrame) -> str:
    long = sequences(frame, f"method == 'bdpo' and length >= {LONG}")
    halved = cells(long[long["variation"] == 0], lambda r: r["to_half"], ["length"])
    weighted = cells(long[long["variation"] > 0], lambda r: r["to_length"], _KEYS[:3])
    half, length = ("ends" if max(high for *_, high in one) <= MARGIN else "does not end" for one in (halved, weighted))
    return (
        f"From {LONG} tokens on Balanced-DPO {half} where DPO at β/2 ends if lengths are equal, and {length} where "
        "length-weighted DPO ends if they are not, to within a tenth of the way that these go from the reference."
    )


def from_on(true: Sequence[bool]) -> int | None:
    """Return the first place from which on everything is true; None where the last is not."""
    return next((at for at in range(len(true)) if all(true[at:])), None)


def _of_equal_lengths(frame: pd.DataFrame) -> str:
    rows = sequences(frame, "method == 'bdpo' and variation == 0")
    found = cells(rows, lambda r: r["to_half"], ["length"])
    lengths = sorted(rows["length"].unique())
    stays = from_on([high <= MARGIN for *_, high in found])
    where = f"from {lengths[stays]:,g} tokens on" if stays is not None else "at none of these lengths"
    return (
        "With equally long responses bDPO ends where DPO at β/2 ends, within a tenth of the way that this loss goes "
        f"from the reference, {where} (at a distance of {found[0][1]:.0%} of that way with L = {lengths[0]:,g}, "
        f"{found[-1][1]:.1%} with {lengths[-1]:,g})."
    )


def _of_numbers(frame: pd.DataFrame) -> str:
    found = cells(frame.query("kind == 'responses' and method == 'bdpo'"), lambda r: r["to_half"], ["responses"])
    stays = from_on([high <= MARGIN for *_, high in found])
    said = f"from {found[stays][0]} on" if stays is not None else "at none of these numbers"
    return (
        f"With n responses of one token it comes as near {said} (at a distance of {found[0][1]:.0%} with "
        f"{found[0][0]}, {found[-1][1]:.0%} with {found[-1][0]})."
    )


def _of_unequal_lengths(frame: pd.DataFrame) -> str:
    """Return what unequal lengths do, in words, by coefficient of variation."""
    under = sequences(frame, "method == 'reference' and length_utility == 0 and variation > 0")
    said = []
    for variation, rows in under.groupby("variation"):
        explained = rows.groupby("length")["explained"].mean()
        stays = from_on(list(explained >= 0.9))
        where = f"from {explained.index[stays]:g} tokens on" if stays is not None else "at no length"
        said.append(f"{where} at a variation of {variation:g}")
    ends = sequences(frame, f"method == 'bdpo' and variation > 0 and length >= {LONG} and length_utility == 0")
    half, length = (ends[name].mean() for name in ("to_half", "to_length"))
    return (
        "With unequal lengths, and labels that do not depend on them, the loser's share of tokens explains 90% of the "
        "variance of λ under the reference "
        f"{', '.join(said)} (the coefficient of variation of the lengths); from {LONG} tokens on bDPO ends at "
        f"{half:.0%} of the way from DPO at β/2, and at {length:.1%} from length-weighted DPO."
    )


def in_language_models(pairs: pd.DataFrame) -> str:
    """Return what committed pairs of language models say of the same, in words.

    pairs: the frame ``pairs`` of the language models' run, one row per held-out pair, see ``language_models``.
    """
    weights = weighed(pairs[pairs["method"] == "reference"])
    explained = length_explains(weights).groupby("task")["r2"].mean()
    said = []
    for task, rows in weights.groupby("task", sort=False):
        tokens = rows[["win_len", "lose_len"]].to_numpy(float)
        said.append(
            f"{explained[task]:.0%} on {TASKS.get(str(task), str(task))} (mean length {tokens.mean():.0f} tokens, "
            f"coefficient of variation {tokens.std() / tokens.mean():.2f}; in the median pair bDPO corrects "
            f"{rows['share'].median():.1%} of the imbalance)"
        )
    return (
        "Small language models: under the reference the loser's share of tokens explains, of the variance of λ, "
        f"{' and '.join(said)}. No run of length-weighted DPO on them has been committed."
    )


_WORDS = {"length": "L =", "variation": "variation", "length_utility": "length utility", "vocabulary": "vocabulary",
          "responses": "n ="}  # fmt: skip
