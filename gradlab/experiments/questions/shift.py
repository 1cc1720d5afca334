"""Under distribution shift, where are the responses that a loss raises and lowers most?

Theorem 3: the extrema of DPO's weights lie outside [μ_p, μ_q], the modes of policy and preference; the extrema of
balanced weights lie inside. The scan is over distance, widths, support, grid size, families and the continuous limit.
Claims: shift-dpo, shift-balanced, shift-bdpo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Judged, Scan, judged
from gradlab.experiments.experiment import Experiment
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
    "limit_points": 801,  # at which the continuous weights are evaluated
    "phase": [17, 17],  # points of the phase diagram: distance, ratio of widths
}
QUICK: dict[str, Any] = {
    "grids": [20, 200], "supports": [20.0], "distances": [1.0, 4.0, 12.0], "widths": [1.5, 3.0], "trained_seeds": 1,
    "dirichlet_seeds": 10, "limit_points": 401, "phase": [5, 5],
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
    trained = {"steps": settings["trained_steps"], "seeds": settings["trained_seeds"]}
    dirichlet = {"concentrations": settings["concentrations"], "seeds": settings["dirichlet_seeds"]}
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
    """Return every case with the slack of each statement; its reach is also compared with that of other weights."""
    rows = frame[~frame["kind"].isin(("curves", "phase")) & (frame["distance"] > 0)].copy()
    allowed = ALLOWED_CELLS * rows["cell"]
    rows["outside"] += allowed
    rows["inside"] += allowed
    rows["main_inside"] = np.where(rows["reach"] > 0, allowed - rows["reach"], rows["inside"])
    for other in ("dpo", "balanced"):
        reach = rows.loc[rows["weight"] == other, [*_CASE, "reach"]].rename(columns={"reach": "other"})
        rows[f"nearer_than_{other}"] = (
            rows[_CASE].merge(reach, on=_CASE, how="left")["other"].to_numpy() - rows["reach"]
        )
    return rows


_GAUSSIAN = ("n", "support", "distance", "sigma_p", "sigma_q")
_SCAN = "kind == 'scan' and family == 'gaussian'"
_OTHERS = (  # families and limits on which each statement is judged again, as controls
    ("the continuous limit, no cell allowed", "kind == 'limit'", _GAUSSIAN[1:]),
    ("other unimodal families", "kind == 'scan' and family != 'gaussian'", ("family", *_GAUSSIAN)),
    ("trained policies, uniform reference in w", "kind == 'trained' and reference == 'uniform'", ("step", "distance")),
    ("trained policies, their own reference in w", "kind == 'trained' and reference == 'own'", ("step", "distance")),
    ("Dirichlet draws, which have many modes", "kind == 'dirichlet'", ("alpha",)),
)


def _statements(claim: str, weight: str, place: str, words: str) -> list[Scan]:
    """Return the statement as stated, on Gaussians, and its repetitions elsewhere."""
    on = f"weight == '{weight}' and "
    stated = Scan(
        claim, f"{words} (Gaussians, grids of 20 to 800, one cell allowed)", place, _GAUSSIAN, ROUNDING, on + _SCAN
    )
    return [stated, *(
        Scan(claim, f"{words}: {where}", place, by, ROUNDING, on + query, role="robustness")
        for where, query, by in _OTHERS
    )]  # fmt: skip


def _reach(claim: str, weight: str, other: str, words: str) -> list[Scan]:
    """Return the statement that the lowest and highest point of one weight lie less far out than another's."""
    return [
        Scan(
            claim,
            f"{words}, {where}",
            f"nearer_than_{other}",
            by,
            SAME,
            f"weight == '{weight}' and {query}",
            role="robustness",
        )
        for where, query, by in (("Gaussians", _SCAN, _GAUSSIAN), _OTHERS[0])
    ]


_INSIDE = "the extrema lie inside [μ_p, μ_q]"
STATEMENTS = [
    *_statements("shift-dpo", "dpo", "outside", "DPO: the extrema of w lie outside [μ_p, μ_q]"),
    *_statements("shift-balanced", "balanced", "inside", f"balanced w·p: {_INSIDE}"),
    Scan("shift-balanced", f"balanced w·p, the lowest and the highest point alone: {_INSIDE}, Gaussians", "main_inside",
         _GAUSSIAN, ROUNDING, f"weight == 'balanced' and {_SCAN}", role="robustness"),
    Scan("shift-balanced", f"with baseline, as in logits, (w − E_p[w])·p: {_INSIDE}, Gaussians", "inside", _GAUSSIAN,
         ROUNDING, f"weight == 'balanced, baseline' and {_SCAN}", role="robustness"),
    Scan("shift-balanced", f"advantage log q − log p, times p: {_INSIDE}, Gaussians", "inside", _GAUSSIAN, ROUNDING,
         f"weight == 'balanced, log ratio' and {_SCAN}", role="robustness"),
    *_reach("shift-balanced", "balanced", "dpo", "balanced w·p reaches less far out than DPO's w"),
    *_statements("shift-bdpo", "bdpo", "inside", f"bDPO's own weights: {_INSIDE}"),
    Scan("shift-bdpo", f"bDPO's own weights, in logits: {_INSIDE}, Gaussians", "inside", _GAUSSIAN, ROUNDING,
         f"weight == 'bdpo, logits' and {_SCAN}", role="robustness"),
    *_reach("shift-bdpo", "bdpo", "dpo", "bDPO's weights reach less far out than DPO's"),
    *_reach("shift-bdpo", "bdpo", "balanced", "bDPO's weights reach less far out than balanced w·p"),
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts on the three statements, and on their repetitions elsewhere."""
    return judged(cases(frame), STATEMENTS)


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
