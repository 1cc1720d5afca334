"""Under distribution shift, where are the responses that a loss raises and lowers most?

Theorem 3: the extrema of DPO's weights lie outside [μ_p, μ_q], the modes of policy and preference; the extrema of
balanced weights lie inside. Proofs decide; the cases show them at work, and by how much a statement is missed: over
distance, widths, support, grid size, families and the continuous limit. Claims: shift-dpo, shift-balanced, shift-bdpo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Judged, Scan, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.questions.shift_cases import KINDS
from gradlab.theory.extrema import ALLOWED_CELLS, ROUNDING

SETTINGS: dict[str, Any] = {
    "grids": [20, 50, 200, 800],  # responses on the support
    "supports": [20.0, 40.0],  # of uniform sampling, centred between the modes; a unit is one response of the 20-grid
    "distances": [1.0, 2.0, 4.0, 6.0, 8.0, 12.0],  # between the modes
    "widths": [0.75, 1.5, 3.0, 6.0],  # σ of p, and of q
    "shapes": ["laplace", "student"],  # other unimodal families, on 20 and 200 responses
    "trained_steps": [1, 10, 100, 500],  # DPO's policies on the picture world, from a shifted reference
    "trained_seeds": 5,
    "concentrations": [0.3, 1.0, 10.0],  # Dirichlet p and q on 20 responses: many modes
    "dirichlet_seeds": 100,
    "first_seed": FIRST_SEED,
    "limit_points": 801,  # at which the continuous weights are evaluated
    "phase": [17, 17],  # points of the phase diagram: distance, ratio of widths
}
QUICK: dict[str, Any] = {
    "grids": [20, 200], "supports": [20.0], "distances": [1.0, 4.0, 12.0], "widths": [1.5, 3.0], "trained_seeds": 1,
    "dirichlet_seeds": 10, "first_seed": 0, "limit_points": 401, "phase": [5, 5],
}  # fmt: skip

SAME = 0.01  # reaches within this many responses of each other are the same


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per family, and for Gaussians one part per grid."""
    scan = {key: settings[key] for key in ("supports", "distances", "widths")}
    grids = [{"kind": "scan", "settings": {**scan, "family": "gaussian", "responses": n}} for n in settings["grids"]]
    shapes = [
        {"kind": "scan", "settings": {**scan, "family": shape, "responses": n, "supports": settings["supports"][:1]}}
        for shape in settings["shapes"]
        for n in (20, 200)
    ]
    first = {"first_seed": settings["first_seed"]}
    trained = {"steps": settings["trained_steps"], "seeds": settings["trained_seeds"], **first}
    dirichlet = {"concentrations": settings["concentrations"], "seeds": settings["dirichlet_seeds"], **first}
    limits = [
        {"kind": "limit", "settings": {**scan, "supports": [support], "points": settings["limit_points"]}}
        for support in settings["supports"]
    ]
    return [
        *grids, *shapes, *limits, {"kind": "trained", "settings": trained},
        {"kind": "dirichlet", "settings": dirichlet}, {"kind": "phase", "settings": {"points": settings["phase"]}},
        {"kind": "curves", "settings": {"grids": [20, settings["grids"][-1]]}},
    ]  # fmt: skip


def run_part(kind: str, settings: dict[str, Any]) -> pd.DataFrame:
    """Return where the extrema of every weight lie, one row per case and weight; for ``curves``, the weights."""
    return pd.DataFrame(list(KINDS[kind](**settings))).assign(kind=kind)


_CASE = [
    "kind", "family", "n", "support", "distance", "sigma_p", "sigma_q", "step", "prompt", "reference", "alpha", "seed",
]  # fmt: skip


def cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every case with the slack of each statement; its reach and its far share are also compared with DPO's."""
    rows = frame[~frame["kind"].isin(("curves", "phase")) & (frame["distance"] > 0)].copy()
    allowed = ALLOWED_CELLS * rows["cell"]
    rows["outside"] += allowed
    rows["inside"] += allowed
    rows["lowest_inside"] = allowed - rows["miss"]
    rows["miss_in_widths"] = rows["miss"] / rows["sigma_p"]
    rows["within_a_width"] = 1 - rows["miss_in_widths"]
    of_dpo = rows.loc[rows["weight"] == "dpo", [*_CASE, "reach", "far"]]
    of_dpo = rows[_CASE].merge(of_dpo, on=_CASE, how="left")
    rows["nearer_than_dpo"] = of_dpo["reach"].to_numpy() - rows["reach"]
    rows["less_far_than_dpo"] = of_dpo["far"].to_numpy() - rows["far"]
    return rows


_GAUSSIAN = ("n", "support", "distance", "sigma_p", "sigma_q")
_GRIDS = "kind == 'scan' and family == 'gaussian'"
_LIMIT = "kind == 'limit'"
_OTHERS = {  # where each statement is looked at again
    "the continuous limit": (_LIMIT, _GAUSSIAN[1:]),
    "other unimodal families": ("kind == 'scan' and family != 'gaussian'", ("family", *_GAUSSIAN)),
    "trained policies, uniform reference in w": ("kind == 'trained' and reference == 'uniform'", ("step", "distance")),
    "trained policies, their own reference in w": ("kind == 'trained' and reference == 'own'", ("step", "distance")),
    "Dirichlet draws, which have many modes": ("kind == 'dirichlet'", ("alpha",)),
}


def _elsewhere(claim: str, weight: str, value: str, words: str, **proof: Any) -> list[Scan]:
    """Return a statement on other cases; those on unimodal p and q have the proof, if one is given."""
    return [
        Scan(claim, f"{words}: {where}", value, by, ROUNDING, f"weight == '{weight}' and {query}", role="context",
             **(proof if "limit" in where or "unimodal" in where else {}))
        for where, (query, by) in _OTHERS.items()
    ]  # fmt: skip


def _nearer(claim: str, weight: str, words: str) -> Scan:
    """Return the statement that a weight's lowest and highest points lie less far out than those of DPO's."""
    return Scan(claim, f"{words} reaches less far out than DPO's w, in the continuous limit", "nearer_than_dpo",
                _GAUSSIAN[1:], SAME, f"weight == '{weight}' and {_LIMIT}", role="context")  # fmt: skip


_OUTSIDE, _INSIDE = "DPO: the extrema of w lie outside [μ_p, μ_q]", "the extrema lie inside [μ_p, μ_q]"
_LEVELS: dict[str, Any] = {"role": "context", "proof": "shift-levels", "refutes": True}
STATEMENTS = [
    Scan("shift-dpo", f"{_OUTSIDE} (Gaussians, grids of 20 to 800, one cell allowed)", "outside", _GAUSSIAN, ROUNDING,
         f"weight == 'dpo' and {_GRIDS}", proof="shift-dpo",
         holds="Between the modes μ_p of the policy and μ_q of the preference DPO's weight only increases, so all its "
         "extrema lie outside [μ_p, μ_q]."),
    *_elsewhere("shift-dpo", "dpo", "outside", _OUTSIDE, proof="shift-dpo"),
    Scan("shift-balanced", f"balanced w·p: {_INSIDE} (Gaussians, the continuous limit)", "lowest_inside", _GAUSSIAN[1:],
         ROUNDING, f"weight == 'balanced' and {_LIMIT}", proof="shift-balanced", refutes=True,
         fails="For smooth p and q with one mode each, on a continuous axis, the lowest value of w·p, our "
         "reconstruction of the balanced weight, always lies outside [μ_p, μ_q]."),
    Scan("shift-balanced", f"balanced w·p: {_INSIDE} (Gaussians, grids of 20 to 800, one cell allowed)", "inside",
         _GAUSSIAN, ROUNDING, f"weight == 'balanced' and {_GRIDS}", role="context",
         holds="On coarse grids the miss of w·p may hide in one cell.",
         fails="On coarse grids the miss of w·p may hide in one cell."),
    *_elsewhere("shift-balanced", "balanced", "inside", f"balanced w·p: {_INSIDE}")[1:],
    Scan("shift-balanced", f"with baseline, as in logits, (w − E_p[w])·p: {_INSIDE}, Gaussians", "inside", _GAUSSIAN,
         ROUNDING, f"weight == 'balanced, baseline' and {_GRIDS}", **_LEVELS),
    Scan("shift-balanced", f"advantage log q − log p, times p: {_INSIDE}, Gaussians, the continuous limit",
         "lowest_inside", _GAUSSIAN[1:], ROUNDING, f"weight == 'balanced, log ratio' and {_LIMIT}", **_LEVELS),
    _nearer("shift-balanced", "balanced", "balanced w·p"),
    Scan("shift-bdpo", f"bDPO's own weights: {_INSIDE} (Gaussians, grids of 20 to 800, one cell allowed)", "inside",
         _GAUSSIAN, ROUNDING, f"weight == 'bdpo' and {_GRIDS}", proof="shift-bdpo", refutes=True,
         fails="On a continuous axis the lowest of bDPO's own weights lies outside [μ_p, μ_q], however many responses "
         "there are; on ever finer grids they become DPO's weights at β/2, which have no extremum inside."),
    *_elsewhere("shift-bdpo", "bdpo", "inside", f"bDPO's own weights: {_INSIDE}"),
    Scan("shift-bdpo", f"bDPO's own weights, in logits: {_INSIDE}, Gaussians", "inside", _GAUSSIAN, ROUNDING,
         f"weight == 'bdpo, logits' and {_GRIDS}", **_LEVELS),
    _nearer("shift-bdpo", "bdpo", "bDPO's weight"),
]  # fmt: skip


def sizes(rows: pd.DataFrame) -> list[Scan]:
    """Return how far the lowest balanced weight misses, and how much weight lies far out, with the sizes in words."""
    limit = rows.query(_LIMIT)
    miss = limit.loc[limit["weight"] == "balanced", "miss_in_widths"].to_numpy()
    far = {name: float(case["far"].median()) for name, case in limit.groupby("weight")}
    said = (
        f"The lowest value of w·p lies {np.median(miss):.2f} σ_p outside [μ_p, μ_q] in the median case, and from "
        f"{miss.min():.2f} to {miss.max():.2f} σ_p over the declared cases."
    )
    fair = (
        f"In fairness, farther than 2 σ_p outside [μ_p, μ_q] lie {far['balanced']:.1%} of w·p, {far['bdpo']:.0%} of "
        f"bDPO's weight and {far['dpo']:.0%} of DPO's, in the median case."
    )
    on = f"weight == 'balanced' and {_LIMIT}"
    return [
        Scan("shift-balanced", "balanced w·p: the lowest value lies within one σ_p of [μ_p, μ_q], in the continuous "
             "limit", "within_a_width", _GAUSSIAN[1:], ROUNDING, on, role="context", holds=said, fails=said),
        Scan("shift-balanced", "farther than 2 σ_p outside [μ_p, μ_q] there is less of w·p than of DPO's w",
             "less_far_than_dpo", _GAUSSIAN[1:], ROUNDING, on, role="context", holds=fair, fails=fair),
    ]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return answers on the three statements, and what is true of them elsewhere.

    Cases are the rows with a distance above 0 whose ``kind`` is neither "curves" nor "phase". ``inside`` and
    ``outside`` are those of the frame, signed distances that are negative where the statement misses, plus the width of
    one cell of the response grid, the column cell. ``lowest_inside`` is cell − miss, ``within_a_width`` is 1 −
    miss/sigma_p, miss being how far the lowest point lies outside [μ_p, μ_q]. ``nearer_than_dpo`` and
    ``less_far_than_dpo`` are the columns reach and far of DPO's weight in the same case minus those of the row: how far
    the farther one of the lowest and the highest point lies outside, and the share of Σ|w| farther than 2 σ_p outside.
    """
    rows = cases(frame)
    return [*judged(frame, [], {"kind": KINDS}), *judged(rows, [*STATEMENTS, *sizes(rows)])]


CAPTIONS = {
    "weight-functions": (
        "Which responses are raised (above zero) and lowered when policy p and preference q differ. Each weight is "
        "scaled to a largest size of 1: lines for 800 responses, dots for 20. Triangles are the extrema of the lines. "
        "The shaded band is [μ_p, μ_q]: Theorem 3 puts the extrema of DPO outside, and those of the balanced weight "
        "w·p inside; a triangle is filled where that is true, and hollow where not. bDPO has different weights."
    ),
    "shift-phase": (
        "Where Theorem 3's statements hold on a continuous response axis (support 24 σ_p). x axis: distance of the "
        "modes; y axis: σ_q/σ_p. Colours and numbers give the signed distance by which the worst extremum meets the "
        "statement, in units of σ_p: teal and positive where it is true, brown and negative where it is not; a "
        "thick line is the border, where there is one. bDPO's λ sees 800 responses."
    ),
    "shift-refinement": (
        "How far the lowest or the highest point lies outside [μ_p, μ_q] as the grid is refined (Gaussians, support "
        "20, distance of the modes 4). Lines are pairs of widths; hollow marks at the dashed ends are the continuous "
        "limit. Above the grey line, which is one cell, a coarse grid can no longer be the reason."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the weights, the phase diagram and the refinement."""
    reach = frame[
        frame["kind"].isin(("scan", "limit")) & (frame["family"] == "gaussian") & (frame["support"] == 20)
        & frame["weight"].isin(("dpo", "balanced", "bdpo"))
    ]  # fmt: skip
    return {
        "weight-functions": plotting.weight_functions(frame[frame["kind"] == "curves"]),
        "shift-phase": plotting.phases(frame[frame["kind"] == "phase"]),
        "shift-refinement": plotting.refinement(reach),
    }


EXPERIMENT = Experiment(
    name="shift",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
