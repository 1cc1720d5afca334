"""How imbalanced pairs are, from their log-probabilities: λ, each loss's gradient ratio, what length alone can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from gradlab.llm.look.side_gradients import COLUMNS, displaced
from gradlab.llm.train.run_settings import RECIPES
from gradlab.losses import (
    PAIR_LOSSES,
    PAPER_LOSSES,
    BatchLoss,
    NaiveBalancedDPO,
    PairLogps,
    PairLoss,
    balanced_weights,
    from_text,
    log_prob_ratio,
    slopes,
)
from gradlab.stats.agreement import wilson_interval

CLIP = RECIPES["paper"]["clip"]
EVERY = "all"  # in place of the names of all registered losses
# The measures that are rows of ``summary``, with their titles in a report.
MEASURES = {
    "win": "log π_w",
    "lose": "log π_l",
    "win_per_token": "log π_w per token",
    "lose_per_token": "log π_l per token",
    "win_len": "tokens of the winner",
    "lose_len": "tokens of the loser",
    "lose_length_share": "loser's share of the tokens",
    "log_ratio": "log π_l/π_w, DPO's imbalance",
    "imbalance": "its size, |log π_l/π_w|",
    "magnitude": "its size in orders of magnitude",
    "win_weight": "λ_w of bDPO",
    "win_weight_mean": "λ_w of bDPO, --reduction mean",
    "weight_ratio": "log λ_w/λ_l, which bDPO adds",
}
STATISTICS = {"q10": "10%", "q50": "50%", "q90": "90%", "mean": "mean"}  # columns of ``summary``, with their titles
STATES = ("win_ends", "lose_ends", "cut", "twice")  # columns on the state of a pair's tokens, see ``inspect_pairs``
_OF_LOSSES = ("weight_", "log_prob_ratio_", "corrected_")  # beginnings of names of columns about a loss
_PAIRS_TO_CORRELATE = 3  # two always lie on a line


def measured(frame: pd.DataFrame, *, clip: float = CLIP, losses: Sequence[str] = ()) -> pd.DataFrame:
    """Return the frame with columns that follow from ``win``, ``lose`` (nats, ≤ 0), ``win_len`` and ``lose_len``.

    Policy and reference are equal, h = 0, and each loss has its default hyper-parameters, ``clip`` aside.

    losses  losses beside the paper's, as for ``chosen_losses``.

    - ``win_per_token``, ``lose_per_token``: log π over the tokens; ``lose_length_share``: L_l/(L_w + L_l);
    - ``log_ratio``: log π_l/π_w, which is DPO's log(|∂L/∂π_w| / |∂L/∂π_l|); ``imbalance``: its size;
      ``magnitude``: the same over ln 10;
    - ``win_weight``: λ_w of bDPO, ``win_weight_mean``: the same from ``…_per_token``; ``weight_ratio``: log λ_w/λ_l;
    - ``weight_NAME``, ``floor_NAME``, ``ceiling_NAME`` of each naive variant: its λ, and whether the clip holds it;
    - ``log_prob_ratio_NAME`` of each loss; ``corrected_NAME``: the share of DPO's imbalance that the loss takes away:
      1 all, 0 nothing, negative where it adds imbalance; NaN where DPO has no imbalance;
    - ``displaced_NAME`` of each loss, where the frame has the columns of ``score_gradients``, see ``displaced``.

    Source: ours.
    """
    win, lose, win_len, lose_len = (
        torch.tensor(frame[name].to_numpy(float)) for name in ("win", "lose", "win_len", "lose_len")
    )
    logps = PairLogps(win, lose, win, lose, win_len, lose_len)
    ratio = lose - win
    weights = balanced_weights(win, lose)
    columns = {
        "win_per_token": win / win_len, "lose_per_token": lose / lose_len,
        "lose_length_share": lose_len / (win_len + lose_len), "log_ratio": ratio, "imbalance": ratio.abs(),
        "magnitude": ratio.abs() / math.log(10), "win_weight": weights[0],
        "win_weight_mean": balanced_weights(win / win_len, lose / lose_len)[0],
        "weight_ratio": weights[0].log() - weights[1].log(),
    }  # fmt: skip
    for name, loss in chosen_losses(losses, clip).items():
        if isinstance(loss, NaiveBalancedDPO):
            steep, other = slopes(loss.margin, logps)
            weight, (floor, ceiling) = -steep / other, loss.clip_range
            columns |= {
                f"weight_{name}": weight, f"floor_{name}": weight <= floor + 1e-9,
                f"ceiling_{name}": weight >= ceiling - 1e-9,
            }  # fmt: skip
        loss_ratio = log_prob_ratio(loss, logps)
        columns[f"log_prob_ratio_{name}"] = loss_ratio
        columns[f"corrected_{name}"] = torch.where(ratio != 0, 1 - loss_ratio.abs() / ratio.abs(), math.nan)
        if COLUMNS[0] in frame:
            columns[f"displaced_{name}"] = torch.from_numpy(displaced(frame, loss))
    new = pd.DataFrame({name: values.numpy() for name, values in columns.items()}, index=frame.index)
    return pd.concat([frame[frame.columns.difference(new.columns, sort=False)], new], axis=1)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return quantiles and mean over the pairs of a frame of ``measured``: one row per measure, indexed by its name.

    Columns: ``q10``, ``q50``, ``q90``, ``mean``, and ``pairs``, the number of pairs that have the measure.
    """
    names = [name for name in frame.columns if name in MEASURES or name.startswith(_OF_LOSSES)]
    rows = [_quantiles(frame[name].dropna().to_numpy(float)) for name in names]
    return pd.DataFrame(rows, columns=[*STATISTICS, "pairs"], index=pd.Index(names, name="measure"))


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """Return shares of the pairs of a frame of ``measured``, with 95% Wilson intervals: ``share``, ``low``, ``high``.

    Index: ``loser_steeper`` (π_w > π_l: DPO's gradient on the loser's probability is the larger); ``floor_NAME``,
    ``ceiling_NAME`` (see ``measured``); and how often a rule without training prefers the winner, ties ½:
    ``shorter``, ``more_probable``, ``more_probable_per_token``. And, where the frame has them, the columns ``STATES``.
    """
    rules = {
        "shorter": frame["lose_len"] - frame["win_len"],
        "more_probable": frame["win"] - frame["lose"],
        "more_probable_per_token": frame["win_per_token"] - frame["lose_per_token"],
    }
    parts = {"loser_steeper": (frame["win"] > frame["lose"]).mean()}
    ends = [name for name in frame.columns if name.startswith(("floor_", "ceiling_"))]
    parts |= {name: frame[name].mean() for name in (*ends, *(name for name in STATES if name in frame))}
    parts |= {name: ((value > 0) + 0.5 * (value == 0)).mean() for name, value in rules.items()}
    rows = {name: (float(share), *wilson_interval(float(share), len(frame))) for name, share in parts.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["share", "low", "high"])


def length_correlation(frame: pd.DataFrame, weight: str = "win_weight") -> float:
    """Return the correlation of λ_w with the loser's share of the tokens; with the winner's share it is the opposite.

    NaN with fewer than three pairs, and where λ_w or the share does not vary.
    """
    both = frame[[weight, "lose_length_share"]].to_numpy(float)
    if len(both) < _PAIRS_TO_CORRELATE or (both.std(0) < 1e-9).any():
        return math.nan
    return float(np.corrcoef(both.T)[0, 1])


def _quantiles(values: np.ndarray) -> list[float]:
    """Return quantiles, mean and number of the values."""
    if not len(values):
        return [math.nan] * len(STATISTICS) + [0]
    # A loss without slope on one side has an infinite ratio, and between infinities nothing can be interpolated.
    method = "linear" if np.isfinite(values).all() else "nearest"
    with np.errstate(invalid="ignore"):
        return [*np.quantile(values, [0.1, 0.5, 0.9], method=method), values.mean(), len(values)]


def chosen_losses(losses: Sequence[str], clip: float = CLIP) -> dict[str, PairLoss]:
    """Return the paper's losses, which the report's sentences are about, and these, by the texts that name them.

    losses  as for ``from_text``; ``EVERY``: all registered ones. ValueError for what is no loss of pairs.
    """
    named = [name for one in losses for name in (PAIR_LOSSES if one == EVERY else (one,))]
    chosen = {name: from_text(name, {"clip": clip}) for name in dict.fromkeys((*PAPER_LOSSES, *named))}
    for name, loss in chosen.items():
        if isinstance(loss, BatchLoss):
            raise ValueError(f"losses must be losses of pairs; {name} is one of batches")
    return chosen  # type: ignore[return-value]
