"""How unequal are the two sides of a pair, in which coordinates, and how much of it does Balanced-DPO take away?

Gradients of every registered loss by autograd, on a grid of (π_w, π_l) and at the scale of whole sequences, and the
first-order step that they cause. Claims: ratio, ratio-corrected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Scan, judged
from gradlab.experiments.experiment import Experiment
from gradlab.losses import PairLogps, log_prob_ratio, pair_loss, slopes
from gradlab.streams import Purpose, stream
from gradlab.theory import first_order_change, in_probabilities, share_corrected

SETTINGS: dict[str, Any] = {
    "losses": ["dpo", "cdpo", "ipo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"],
    "log10_grid": [-6.0, 0.0, 0.25],  # of π_w and π_l: first, last (not included), step
    "field": [0.02, 0.98, 13],  # of π_w and π_l, evenly spaced, for the picture of the field
    "sequences": 200,  # pairs per seed
    "seeds": 20,
    "length": [60.0, 0.7],  # tokens of a response: log-normal, median and σ
    "nll": [1.2, 0.25],  # nats per token, one rate per response: log-normal, median and σ
}
QUICK: dict[str, Any] = {"log10_grid": [-6.0, 0.0, 0.5], "sequences": 50, "seeds": 3}

RESPONSES = 20  # responses of a uniform reference; no ratio below depends on it
ROUNDING = 1e-10
BALANCED = 1.25  # sides within this factor of each other count as symmetric
IMBALANCED = 2.0  # symmetry can be restored where DPO's sides differ by more than this factor
HALF = 0.5  # share of the imbalance to be corrected, and of λ's variance to be explained by length


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per loss; all losses see the same pairs."""
    shared = {key: value for key, value in settings.items() if key != "losses"}
    return [{"loss": loss, **shared} for loss in settings["losses"]]


def run_part(
    loss: str, log10_grid: list[float], field: list[float], sequences: int, seeds: int, length: list[float],
    nll: list[float],
) -> pd.DataFrame:  # fmt: skip
    """Return gradients and first-order steps of one loss on all pairs.

    log_prob_ratio is log(|∂L/∂π_w|/|∂L/∂π_l|). pull_* is −∂L/∂π, step_* the first-order change of π under gradient
    descent on softmax logits, at unit step size, with all other responses as one. length_share is the loser's share.
    """
    first, last, step = log10_grid
    line = np.arange(first, last - step / 2, step)
    pairs = pd.concat([
        _square("grid", np.log(10) * line), _square("field", np.log(np.linspace(field[0], field[1], int(field[2])))),
        *(_sequences(seed, sequences, length, nll) for seed in range(seeds)),
    ], ignore_index=True)  # fmt: skip
    win, lose = (torch.tensor(pairs[side].to_numpy()) for side in ("log_win", "log_lose"))
    reference = torch.full_like(win, -np.log(RESPONSES))
    logps = PairLogps(win, lose, reference, reference)
    value = pair_loss(loss)
    pulls = [-slope.numpy() for slope in slopes(value, logps)]  # −∂L/∂log π
    probs = np.exp(pairs[["log_win", "log_lose"]].to_numpy())
    steps = probs * _realised(probs, np.stack(pulls, 1))
    return pairs.assign(
        loss=loss, log_prob_ratio=log_prob_ratio(value, logps).numpy(),
        pull_win=_divide(pulls[0], probs[:, 0]), pull_lose=_divide(pulls[1], probs[:, 1]),
        step_win=steps[:, 0], step_lose=steps[:, 1],
    )  # fmt: skip


def _square(kind: str, line: np.ndarray) -> pd.DataFrame:
    """Return all pairs of log-probabilities on a line whose probabilities leave a rest for a third response."""
    win, lose = (side.ravel() for side in np.meshgrid(line, line, indexing="ij"))
    room = np.exp(win) + np.exp(lose) < 1 - 1e-9
    pairs = pd.DataFrame({"log_win": win[room], "log_lose": lose[room]})
    return pairs.assign(kind=kind, seed=np.nan, length_share=np.nan)


def _sequences(seed: int, pairs: int, length: list[float], nll: list[float]) -> pd.DataFrame:
    """Draw pairs of whole responses: log π = −tokens × nats per token."""
    rng = stream(seed, Purpose.SEQUENCES)
    tokens = np.ceil(length[0] * np.exp(length[1] * rng.standard_normal((pairs, 2))))
    rate = nll[0] * np.exp(nll[1] * rng.standard_normal((pairs, 2)))
    win, lose = (-tokens * rate).T
    share = tokens[:, 1] / tokens.sum(1)
    return pd.DataFrame({"kind": "sequence", "seed": seed, "log_win": win, "log_lose": lose, "length_share": share})


def _realised(probs: np.ndarray, pulls: np.ndarray) -> np.ndarray:
    """Return first-order Δ log π of winner and loser, (N, 2); a third response has the rest of the probability."""
    with np.errstate(divide="ignore"):
        log_p = np.log(np.column_stack([probs, 1 - probs.sum(1)]))
    return first_order_change(np.maximum(log_p, -1e6), np.column_stack([pulls, np.zeros(len(pulls))]))[:, :2]


def _divide(pull: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Return −∂L/∂π from −∂L/∂log π; missing where π underflows."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where(prob > 0, pull / prob, np.nan)


def cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every pair with what the statements need; the grid's factors are log10_win and log10_lose."""
    rows = frame.copy()
    win, lose, ratio = (rows[name].to_numpy() for name in ("log_win", "log_lose", "log_prob_ratio"))
    of_dpo = in_probabilities(0.0, win, lose)
    rows["dpo_error"] = ratio - of_dpo
    with np.errstate(divide="ignore"):
        rows["bdpo_error"] = ratio - (of_dpo + np.log(-lose) - np.log(-win))
    rows["beyond_dpo"] = np.abs(ratio - of_dpo)
    rows["imbalance"] = np.abs(of_dpo)
    rows["balanced"] = np.log(BALANCED) - np.abs(ratio)
    rows["nearer"] = np.where(rows["imbalance"] > 0, share_corrected(ratio, win, lose), 0.0)
    rows["half"] = rows["nearer"] - HALF
    rows["log_rho"] = np.abs(ratio - of_dpo)
    rows["loser_moves_more"] = -rows["step_lose"] - rows["step_win"]
    size = rows[["step_win", "step_lose"]].abs().sum(axis=1)
    rows["loser_moves_more"] /= size.where(size > 0, 1.0)
    rows["log10_win"], rows["log10_lose"] = (win / np.log(10)).round(2), (lose / np.log(10)).round(2)
    return rows


_AT = ("log10_win", "log10_lose")
_IMBALANCED = f"kind == 'grid' and imbalance > {np.log(IMBALANCED)} and loss == "
_CORRECTED = {"claim": "ratio-corrected", "by": _AT}
STATEMENTS = [
    Scan("ratio", "DPO: |∂L/∂π_w| : |∂L/∂π_l| = π_l : π_w, so the loser's is larger once π_w > π_l", "dpo_error",
         ("kind",), ROUNDING, "loss == 'dpo'", identity=True),
    Scan("ratio", "DPO differs in this ratio from other margin losses (cDPO, IPO)", "beyond_dpo",
         ("kind",), ROUNDING, "loss in ('cdpo', 'ipo')", role="robustness"),
    Scan("ratio", "DPO's two sides differ in log π too (|log ρ| > 0)", "log_rho",
         ("kind",), ROUNDING, "loss == 'dpo'", role="robustness"),
    Scan("ratio", "in a real step the loser's π falls by more than the winner's rises, where π_w > π_l",
         "loser_moves_more", _AT, ROUNDING, "loss == 'dpo' and kind == 'grid' and log_win > log_lose + 1e-9",
         role="robustness"),
    Scan("ratio-corrected", "bDPO: the ratio is π_l log π_l : π_w log π_w", "bdpo_error", ("kind",), ROUNDING,
         "loss == 'bdpo'", identity=True),
    Scan(statement=f"bDPO restores symmetry: sides within a factor {BALANCED:g}, where DPO's differ by more than "
         f"{IMBALANCED:g}", value="balanced", where=_IMBALANCED + "'bdpo'", **_CORRECTED),
    Scan("ratio-corrected", f"bDPO restores symmetry (factor {BALANCED:g}) where probabilities are evenly spaced, so "
         "mostly large (added after the first results)", "balanced", _AT, 0.0,
         _IMBALANCED.replace("grid", "field") + "'bdpo'", role="robustness"),
    Scan(statement="bDPO is nearer to symmetry than DPO, same pairs", value="nearer", tolerance=ROUNDING,
         where=_IMBALANCED + "'bdpo'", role="robustness", **_CORRECTED),
    Scan(statement="bDPO takes away at least half of DPO's imbalance, same pairs", value="half",
         where=_IMBALANCED + "'bdpo'", role="robustness", **_CORRECTED),
    Scan("ratio-corrected", "bDPO takes away at least half of DPO's imbalance, whole sequences", "half", (), 0.0,
         "kind == 'sequence' and loss == 'bdpo' and imbalance > 0", role="robustness"),
]  # fmt: skip
LENGTH = Contrast(
    "ratio-corrected", f"λ is more than a share of length: that share explains less than {HALF:.0%} of its variance, "
    "whole sequences", "bdpo", None, "unexplained", (), 0.02, role="robustness",
)  # fmt: skip


def length_explains(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each seed HALF − R² of bDPO's λ_w on the loser's share of tokens; columns as for a contrast."""
    rows = frame[(frame["kind"] == "sequence") & (frame["loss"] == "bdpo")]
    weight = rows["log_lose"] / (rows["log_win"] + rows["log_lose"])
    together = rows.assign(weight=weight).groupby("seed")[["weight", "length_share"]].corr().iloc[::2, 1]
    unexplained = HALF - together.to_numpy() ** 2
    return pd.DataFrame({"method": "bdpo", "seed": range(len(together)), "unexplained": unexplained})


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts on the ratio and on its correction."""
    return [*judged(cases(frame), STATEMENTS), *judged(length_explains(frame), [LENGTH])]


CAPTIONS = {
    "gradient-field": (
        "The gradient field of each loss over (π_w, π_l), β = 1, uniform reference over 20 responses. Top: the partial "
        "derivatives −∂L/∂π; bottom: the change in a real step on softmax logits, to first order, with all other "
        "responses as one. All arrows have the same length; angle and colour say which side moves more (steep and "
        "purple: the loser; flat and green: the winner). The paper's imbalance is the purple below the diagonal of the "
        "top row; in the bottom row the winner moves more there. Other losses of the margin, such as cDPO and IPO, "
        "have DPO's ratios and are left out."
    ),
    "ratio-correction": (
        "How much of DPO's imbalance |log π_l/π_w| a re-weighted loss takes away. Left: over (π_w, π_l), logarithmic "
        "axes. 1: symmetry is restored. 0: as DPO. Below 0, which would be worse than DPO, would be brown. Blank: no "
        "imbalance. Between the black lines the sides are within a factor 1.25. Right: Balanced-DPO at the scale of "
        "whole sequences, one dot per pair: almost nothing is corrected, and λ_w = log π_l/(log π_w + log π_l) follows "
        "the share of tokens (the diagonal)."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the field, and the map of the correction."""
    # With a constant weight a loss corrects nothing, and draws the same arrows as DPO.
    reweighted = [loss for loss in frame["loss"].unique() if not pair_loss(loss).constant_weight]
    fields = frame[(frame["kind"] == "field") & frame["loss"].isin(["dpo", *reweighted])]
    return {
        "gradient-field": plotting.gradient_field(fields),
        "ratio-correction": plotting.correction(cases(frame[frame["loss"].isin(reweighted)])),
    }


EXPERIMENT = Experiment(
    name="ratios",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
