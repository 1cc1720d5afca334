"""How imbalanced pairs are, in words: the tables of a report, and what their numbers mean for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gradlab.console import wrapped
from gradlab.llm.data.pairs import Report
from gradlab.llm.look.imbalance import CLIP, MEASURES, STATISTICS, length_correlation, shares, summary
from gradlab.llm.look.length_share import about_length, as_lines, by_subset
from gradlab.llm.look.served_goal import about_the_goal
from gradlab.llm.look.side_gradients import COLUMNS, about_the_band

FOLLOWS, PARTLY = 0.8, 0.3  # R² from which λ is said to follow length, or to follow it in part. Ours.
LITTLE = 0.1  # a loss that takes away a smaller share of DPO's imbalance takes away little. Ours.
TWO_VALUED = 0.8  # share of pairs at the ends of λ's range from which it is said to take two values. Ours.
_WIDTH = 100
_STATES = {
    "win_ends": "winners with the end of a turn (EOS)", "lose_ends": "losers with the end of a turn (EOS)",
    "cut": "pairs with a response cut at the limit", "twice": "pairs that the data hold twice or more",
}  # fmt: skip
_Rows = Mapping[str, Mapping[str, float]]  # a table, by name of row and then of column


def report(
    frame: pd.DataFrame,
    read: Report | None = None,
    *,
    title: str = "",
    clip: float = CLIP,
    notes: Sequence[str] = (),
) -> str:
    """Return a frame of ``measured`` as text for a terminal: numbers, then what they mean for a run.

    read  the report on reading the data.
    clip  the clip that the frame was made with.
    notes  more sentences on the data.
    """
    numbers: _Rows = summary(frame).to_dict("index")  # type: ignore[assignment]
    losses = _named(frame, "log_prob_ratio_")
    taken = {name: _percent(numbers[f"corrected_{name}"]["q50"]) for name in losses}
    pushed = {"displaced": [_share_of(frame, f"displaced_{name}") for name in losses]} if _has_gradients(frame) else {}
    naive = {f"weight_{name}": f"λ of {name}, clip {clip:g}" for name in _named(frame, "floor_")}
    ratios = {f"log_prob_ratio_{name}": name for name in losses}
    blocks = [
        [line for text in (title, "" if read is None else str(read), *notes) for line in wrapped(text, _WIDTH)],
        _table("over pairs", numbers, {**MEASURES, **naive}),
        [
            *_table("log(|∂L/∂π_w| / |∂L/∂π_l|), h = 0", numbers, ratios, corrected=list(taken.values()), **pushed),
            "corrected: the share of DPO's imbalance that a loss takes away, in the median pair",
            *(["displaced: the share of pairs whose winner a small step on that pair alone would lower"] * len(pushed)),
        ],
        as_lines(by_subset(frame)),
        _shares_as_lines(frame),
        [line for sentence in sentences(frame, read) for line in wrapped(sentence, _WIDTH, "- ")],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(head: str, numbers: _Rows, rows: Mapping[str, str], **more: Sequence[str]) -> list[str]:
    """Return some rows of ``summary`` as lines, with columns of words after the numbers."""
    texts = [[*STATISTICS.values(), *more]]
    for place, name in enumerate(rows):
        digits = 3 if name.startswith(("win_weight", "weight_", "lose_length")) and name != "weight_ratio" else 2
        texts.append([_number(numbers[name][column], digits) for column in STATISTICS])
        texts[-1] += [words[place] for words in more.values()]
    width = max(map(len, (head, *MEASURES.values()))) + 1
    lines = ["".join(f"{text:>11}" for text in row) for row in texts]
    return [f"{title:<{width}}{line}" for title, line in zip((head, *rows.values()), lines, strict=True)]


def _shares_as_lines(frame: pd.DataFrame) -> list[str]:
    """Return ``shares`` as lines, and a line on the correlation of λ_w with length."""
    titles = {"loser_steeper": "π_w > π_l: DPO's larger gradient is on the loser's probability"}
    for name in _named(frame, "floor_"):
        titles |= {f"floor_{name}": f"λ of {name} at its floor", f"ceiling_{name}": f"λ of {name} at its ceiling"}
    titles |= {name: text for name, text in _STATES.items() if name in frame}
    titles |= {
        "shorter": "preferring the shorter answer is right in",
        "more_probable": "preferring the more probable answer is right in",
        "more_probable_per_token": "preferring the more probable per token is right in",
    }
    width = max(map(len, titles.values())) + 2
    parts: _Rows = shares(frame).to_dict("index")  # type: ignore[assignment]
    lines = [f"{text:<{width}}{parts[name]['share']:6.1%}  {_interval(parts[name])}" for name, text in titles.items()]
    with_loser = length_correlation(frame)
    if not math.isnan(with_loser):
        lines.append(
            f"λ_w of bDPO correlates with the loser's share of the tokens by {with_loser:+.3f}, with the winner's by "
            f"{-with_loser:+.3f}; R² = {with_loser**2:.3f}"
        )
    return lines


def _has_gradients(frame: pd.DataFrame) -> bool:
    return COLUMNS[0] in frame and bool(frame[COLUMNS[0]].notna().any())


def _share_of(frame: pd.DataFrame, column: str) -> str:
    """Return the mean of a column of shares as a percentage; – without a number."""
    return _percent(float(frame[column].mean()))


def _named(frame: pd.DataFrame, prefix: str) -> list[str]:
    """Return the losses that have a column of this prefix."""
    return [name.removeprefix(prefix) for name in frame.columns if name.startswith(prefix)]


def sentences(frame: pd.DataFrame, read: Report | None = None) -> list[str]:
    """Return what the numbers of a frame of ``measured`` mean for a run, in a few plain sentences."""
    numbers: _Rows = summary(frame).to_dict("index")  # type: ignore[assignment]
    parts: _Rows = shares(frame).to_dict("index")  # type: ignore[assignment]
    said = [
        _about_dpo(numbers["imbalance"]["q50"], parts["loser_steeper"]["share"]),
        _about_bdpo(frame, numbers["corrected_bdpo"]["q50"]), _about_lengths(frame),
        about_length(by_subset(frame)), _about_the_clip(frame, parts),
        _about_the_baseline(parts["shorter"]), about_the_goal(frame), about_the_band(frame, ("dpo", "bdpo")),
    ]  # fmt: skip
    cut, number = int(frame["cut"].sum()) if "cut" in frame else 0, len(frame)
    if read is not None:
        cut, number = read.notes.get("response cut", 0), read.kept
    if cut:
        said.append(
            f"{cut:,} of {number:,} pairs ({cut / number:.1%}) have a response cut at the limit: their lengths and "
            "log π are those of what is left, which makes the two sides more alike than they are; a larger "
            "--max-length keeps more."
        )
    return [sentence for sentence in said if sentence]


def _about_dpo(size: float, loser: float) -> str:
    if size == 0:
        return "DPO: in the median pair both responses are equally probable, and so both gradients are equal."
    return (
        f"DPO: in the median pair its gradients on the two probabilities differ by a factor of e^{size:.1f} = "
        f"10^{size / math.log(10):.1f}, though its slopes in log π are equal; the loser's is the larger one in "
        f"{loser:.0%} of the pairs."
    )


def _about_bdpo(frame: pd.DataFrame, taken: float) -> str:
    if math.isnan(taken):
        return ""
    typical = float(np.median(frame[["win", "lose"]].to_numpy(float)))
    if taken < 0:
        return (
            f"bDPO goes beyond balance, as log-probabilities are so near 0 (median {typical:.2g}); it adds imbalance."
        )
    factor = math.exp(min(frame["weight_ratio"].abs().median(), 700.0))  # λ_l may be all but 0
    said = f"its two weights differ by a factor of {factor:.3g} in the median pair"
    if taken < LITTLE:
        return (
            f"Log-probabilities are so low (median {typical:.4g}) that bDPO takes away {_percent(taken)} of that, "
            f"about 1/|log π|: {said}."
        )
    return f"bDPO takes away {_percent(taken)} of that in the median pair, about 1/|log π|: {said}."


def _about_lengths(frame: pd.DataFrame) -> str:
    explained = length_correlation(frame) ** 2
    low, high = frame["win_weight"].quantile([0.1, 0.9])
    spread = f"λ_w of the middle 80% of pairs is {low:.2f} to {high:.2f}"
    if math.isnan(explained):
        return (
            "Whether λ_w follows length cannot be told, as that needs three pairs, and lengths and λ_w that vary; "
            f"{spread}."
        )
    by_token = frame["win_weight_mean"].quantile([0.1, 0.9])
    if explained >= FOLLOWS:
        return (
            f"λ_w follows length: R² = {explained:.2f} with the loser's share of the tokens, so it is mostly that "
            f"share; {spread}, and would be {by_token[0.1]:.3f} to {by_token[0.9]:.3f} with --reduction mean."
        )
    how = "in part" if explained >= PARTLY else "hardly"
    return f"λ_w follows length {how}: R² = {explained:.2f} with the loser's share of the tokens; {spread}."


def _about_the_clip(frame: pd.DataFrame, parts: _Rows) -> str:
    names = _named(frame, "floor_")
    held = {name: parts[f"floor_{name}"]["share"] + parts[f"ceiling_{name}"]["share"] for name in names}
    at_ends = ", ".join(f"{name} {share:.0%}" for name, share in held.items() if share >= TWO_VALUED)
    return at_ends and (
        f"The clip holds λ of the naive variants at an end of its range ({at_ends} of the pairs): λ tells which "
        "response is more probable, and not by how much."
    )


def _about_the_baseline(shorter: Mapping[str, float]) -> str:
    right = f"“Prefer the shorter answer” is right in {shorter['share']:.1%} {_interval(shorter)}"
    if shorter["low"] <= 0.5 <= shorter["high"]:
        return f"{right}: length alone gives no accuracy that differs from chance."
    which = "shorter" if shorter["low"] > 0.5 else "longer"
    best = max(shorter["share"], 1 - shorter["share"])
    return f"{right}: an accuracy up to {best:.1%} is no more than preferring the {which} answer gives."


def _interval(row: Mapping[str, float]) -> str:
    return f"[{row['low']:.1%}, {row['high']:.1%}]"


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.3g}"


def _percent(value: float) -> str:
    """Return a share as a percentage with two significant digits."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value}"
    return f"{value:.0%}" if abs(value) >= 0.095 or value == 0 else f"{100 * value:.2g}%"
