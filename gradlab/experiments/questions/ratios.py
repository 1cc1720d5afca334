"""How unequal are the two sides of a pair, in which coordinates, and how much of it does Balanced-DPO take away?

Gradients of several losses by autograd, on a grid of (π_w, π_l) and at the scale of whole sequences, the first-order
step that they cause, and the share that Balanced-DPO corrects on the pairs that trainings in the lab meet. Both claims
are decided by proofs; cases illustrate them. Claims: ratio, ratio-corrected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Scan, Unit, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import PairLogps, log_prob_ratio, pair_loss, slopes
from gradlab.streams import Purpose, stream
from gradlab.theory import (
    bdpo_share_corrected,
    first_order_change,
    in_probabilities,
    logarithmic_mean,
    share_corrected,
)

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=20)

SETTINGS: dict[str, Any] = {
    "losses": ["dpo", "cdpo", "ipo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"],
    "log10_grid": [-6.0, 0.0, 0.25],  # of π_w and π_l: first, last (not included), step
    "field": [0.02, 0.98, 13],  # of π_w and π_l, evenly spaced, for the picture of the field
    "sequences": 200,  # pairs per seed
    "seeds": 20,
    "first_seed": FIRST_SEED,
    "length": [60.0, 0.7],  # tokens of a response: log-normal, median and σ
    "nll": [1.2, 0.25],  # nats per token, one rate per response: log-normal, median and σ
    "trained": ["dpo", "bdpo"],  # in the picture world, on finite data
    "policies": ["free", "shared"],
    "training": TRAINING,
    "training_seeds": 6,
}
QUICK: dict[str, Any] = {
    "log10_grid": [-6.0, 0.0, 0.5], "sequences": 50, "seeds": 3, "first_seed": 0, "training_seeds": 2,
    "training": TRAINING.but(steps=100),
}  # fmt: skip

RESPONSES = 20  # responses of a uniform reference; no ratio below depends on it
ROUNDING = 1e-10
_AT = ("log10_win", "log10_lose")
MARGIN = 0.01  # of a share


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per loss, which all see the same pairs, and one per method and policy that is trained."""
    shared = {
        key: settings[key] for key in ("log10_grid", "field", "sequences", "seeds", "first_seed", "length", "nll")
    }
    first, seeds = settings["first_seed"], settings["training_seeds"]
    return [
        *({"kind": "pairs", "settings": {"loss": loss, **shared}} for loss in settings["losses"]),
        *({"kind": "training", "settings": {"method": method, "policy": policy, "training": settings["training"],
                                            "first_seed": first, "seeds": seeds}}
          for method in settings["trained"] for policy in settings["policies"]),
    ]  # fmt: skip


def run_part(kind: str, settings: dict[str, Any]) -> pd.DataFrame:
    """Return gradients of a loss on pairs, or what Balanced-DPO corrects along a training."""
    return _KINDS[kind](**settings)


def _along(method: str, policy: str, training: Training, first_seed: int, seeds: int) -> pd.DataFrame:
    """Train; return for each seed and recorded step medians over all pairs of responses to a prompt.

    log_mean is the logarithmic mean of −log π_w and −log π_l, share the share of DPO's imbalance that Balanced-DPO's
    weights correct there, whichever loss is trained; neither depends on which response has won.
    """
    numbers = range(first_seed, first_seed + seeds)
    fitted = train(method, [gaussian_world(seed=seed) for seed in numbers], training.but(policy=policy), seeds=numbers)
    logp = fitted.policies.double().numpy()  # (steps, runs, prompts, responses)
    one, other = (logp[..., side] for side in np.triu_indices(logp.shape[-1], 1))
    log_mean, share = logarithmic_mean(-one, -other), bdpo_share_corrected(one, other)
    return pd.DataFrame([
        {"kind": "training", "loss": "bdpo", "method": method, "policy": policy, "seed": seed, "step": int(step),
         "log_mean": np.median(log_mean[k, run]), "share": np.median(share[k, run])}
        for k, step in enumerate(fitted.steps) for run, seed in enumerate(numbers)
    ])  # fmt: skip


def _pairs(
    loss: str, log10_grid: list[float], field: list[float], sequences: int, seeds: int, first_seed: int,
    length: list[float], nll: list[float],
) -> pd.DataFrame:  # fmt: skip
    """Return gradients and first-order steps of one loss on all pairs.

    log_prob_ratio is log(|∂L/∂π_w|/|∂L/∂π_l|). pull_* is −∂L/∂π, step_* the first-order change of π under gradient
    descent on softmax logits, at unit step size, with all other responses as one. length_share is the loser's share.
    """
    first, last, step = log10_grid
    line = np.arange(first, last - step / 2, step)
    pairs = pd.concat([
        _square("grid", np.log(10) * line), _square("field", np.log(np.linspace(field[0], field[1], int(field[2])))),
        *(_sequences(seed, sequences, length, nll) for seed in range(first_seed, first_seed + seeds)),
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


_KINDS = {"pairs": _pairs, "training": _along}


def cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every pair with what the statements need; the grid's factors are log10_win and log10_lose."""
    rows = frame[frame["kind"] != "training"].copy()
    win, lose, ratio = (rows[name].to_numpy() for name in ("log_win", "log_lose", "log_prob_ratio"))
    of_dpo = in_probabilities(0.0, win, lose)
    rows["log_rho"] = ratio - of_dpo
    rows["imbalance"] = np.abs(of_dpo)
    rows["log_mean"] = logarithmic_mean(-win, -lose)
    with np.errstate(divide="ignore"):
        rows["law_error"] = ratio - of_dpo * (1 - 1 / rows["log_mean"])
    rows["share"] = share_corrected(ratio, win, lose)
    size = rows[["step_win", "step_lose"]].abs().sum(axis=1)
    rows["winner_moves_more"] = (rows["step_win"] + rows["step_lose"]) / size.where(size > 0, 1.0)
    rows["log10_win"], rows["log10_lose"] = (win / np.log(10)).round(2), (lose / np.log(10)).round(2)
    return rows


_OF_IMBALANCE = Unit("percent of DPO's imbalance", 100, 1)
STATEMENTS = [
    Scan("ratio", "DPO: |∂L/∂π_w| : |∂L/∂π_l| = π_l : π_w, so the loser's is larger once π_w > π_l", "log_rho",
         ("kind",), ROUNDING, "loss == 'dpo'", identity=True, proof="ratio",
         holds="DPO's derivatives with respect to the probabilities π_w of the winner and π_l of the loser stand as "
         "π_l : π_w, so the loser's is the larger one exactly where π_w > π_l."),
    Scan("ratio", "cDPO and IPO have the same ratio as DPO", "log_rho", ("kind",), ROUNDING, "loss in ('cdpo', 'ipo')",
         identity=True, role="context", proof="ratio",
         holds="The ratio is not DPO's alone: every loss of log π_w − log π_l has it."),
    Scan("ratio", "in a small step on free logits the winner's π rises by more than the loser's falls, where π_w > π_l",
         "winner_moves_more", _AT, ROUNDING, "loss == 'dpo' and kind == 'grid' and log_win > log_lose + 1e-9",
         role="context", proof="ratio-step",
         holds="In a real step it is the other way round: where π_w > π_l, the winner's π rises by more than the "
         "loser's falls."),
    Scan("ratio-corrected", "bDPO restores symmetry: |∂L/∂π_w| = |∂L/∂π_l|", "log_prob_ratio", ("kind",), ROUNDING,
         "loss == 'bdpo' and imbalance > 0", identity=True, proof="ratio-corrected", refutes=True,
         fails="bDPO corrects the share 1 − |1 − 1/LM| of DPO's imbalance, LM being the logarithmic mean of −log π_w "
         "and −log π_l: all of it only where LM = 1, and the share 1/LM above that, where probabilities are small."),
    Scan("ratio-corrected", "the law: log(|∂L/∂π_w| : |∂L/∂π_l|) = log(π_l/π_w) · (1 − 1/LM)", "law_error", ("kind",),
         ROUNDING, "loss == 'bdpo'", identity=True, role="context", proof="ratio-corrected",
         holds="The law of the correction is exact in every pair."),
    Scan("ratio-corrected", "bDPO is nearer to symmetry than DPO", "share", _AT, ROUNDING,
         "loss == 'bdpo' and imbalance > 0", role="context", proof="ratio-nearer",
         holds="For two responses to one prompt bDPO is always nearer to symmetry than DPO."),
]  # fmt: skip
CORRECTED = [
    *(Contrast(
        claim="ratio-corrected", method=method,
        statement=f"the share corrected at the end of {words} training in the lab, median pair",
        baseline=None, value="share", by=("policy",), margin=MARGIN, role="context",
        where="kind == 'training' and step == step.max()",
        unit=_OF_IMBALANCE, better=f"At the end of {words} training in the lab bDPO's weights correct {{size}} in the "
        "median pair.",
    ) for method, words in (("bdpo", "bDPO"), ("dpo", "DPO"))),
]  # fmt: skip
_WHOLE = "kind == 'sequence' and loss == 'bdpo'"
SEQUENCES = [
    Contrast(
        claim="ratio-corrected", statement="the share corrected at the scale of whole sequences, median pair",
        method="bdpo", baseline=None, value="share", by=(), margin=MARGIN, role="context", unit=_OF_IMBALANCE,
        where=_WHOLE,
        better="Of whole sequences bDPO's weights correct {size} in the median pair.",
    ),
    Contrast(
        claim="ratio-corrected", statement="how much of λ_w's variance length explains, whole sequences",
        method="bdpo", baseline=None, value="explained", by=(), margin=MARGIN, role="context", where=_WHOLE,
        unit=Unit("percent of λ_w's variance", 100, 1),
        better="Of whole sequences the loser's share of tokens explains {size}.",
    ),
]  # fmt: skip


def of_sequences(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each seed of whole sequences the median share corrected, and R² of λ_w on the loser's tokens."""
    rows = frame.query(_WHOLE)
    rows = rows.assign(
        weight=rows["log_lose"] / (rows["log_win"] + rows["log_lose"]),
        share=bdpo_share_corrected(rows["log_win"], rows["log_lose"]),
    )
    together = rows.groupby("seed")[["weight", "length_share"]].corr().iloc[::2, 1].droplevel(1)
    return pd.DataFrame({
        "kind": "sequence", "loss": "bdpo", "method": "bdpo", "share": rows.groupby("seed")["share"].median(),
        "explained": together**2,
    }).reset_index()  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return answers on the ratio and on its correction.

    Cases are the rows whose ``kind`` is not "training". There ``log_prob_ratio`` is the logarithm of
    |∂L/∂π_w|/|∂L/∂π_l|; with r = log_lose − log_win, which it is for DPO, ``log_rho`` is log_prob_ratio − r, and
    ``law_error`` is log_prob_ratio − r (1 − 1/LM), LM the logarithmic mean of −log_win and −log_lose; ``imbalance`` is
    |r|, ``share`` 1 − |log_prob_ratio|/|r|, and ``winner_moves_more`` (step_win + step_lose)/(|step_win| +
    |step_lose|). Of trainings, ``share`` is the frame's, in the rows of the last step. Of whole sequences there is one
    number per seed, from the rows with the kind "sequence" and the loss "bdpo": ``share`` is their median share, and
    ``explained`` the squared correlation of λ_w = log_lose/(log_win + log_lose) with length_share, the loser's share of
    tokens.
    """
    answers = judged(frame[frame["kind"] != "training"], [], {"loss": settings["losses"]})
    answers += judged(cases(frame), STATEMENTS)
    levels = {"method": settings["trained"], "policy": settings["policies"]}
    trainings = frame[frame["kind"] == "training"]
    answers += judged(trainings, CORRECTED, levels)
    return [*answers, *judged(of_sequences(frame), SEQUENCES)]


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
        "How much of DPO's imbalance |log(π_l/π_w)| Balanced-DPO corrects: 1 is all of it, 0 none. Left: the law, 1 − "
        "|1 − 1/LM|, where LM is the logarithmic mean of −log π_w and −log π_l. At the dotted line the two sides are "
        "equal; left of it the loss corrects too much, but two responses to one prompt never come to LM = ½. The "
        "hollow mark is where trainings in the lab start, filled marks are where they end, medians over all "
        "pairs of responses. Middle: the share along these trainings, means over seeds. Right: whole sequences, one "
        "dot per pair: λ_w follows the loser's share of tokens (the diagonal)."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the field, and the law of the correction."""
    # With a constant weight a loss draws the same arrows as DPO.
    reweighted = [loss for loss in frame["loss"].unique() if not pair_loss(loss).constant_weight]
    fields = frame[(frame["kind"] == "field") & frame["loss"].isin(["dpo", *reweighted])]
    trainings = frame[frame["kind"] == "training"]
    sequences = cases(frame[(frame["kind"] == "sequence") & (frame["loss"] == "bdpo")])
    return {
        "gradient-field": plotting.gradient_field(fields),
        "ratio-correction": plotting.correction(sequences, trainings),
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
