"""Do other ways of sampling pairs change where losses settle, the imbalance of pairs, and what Balanced-DPO gains?

Claims: sampling-limit, sampling-imbalance and sampling-benefit.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Scan, Unit, not_run
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.outcomes import REWARD
from gradlab.experiments.questions import sampling_figures, sampling_runs
from gradlab.experiments.questions.frontier import overlap
from gradlab.experiments.questions.sampling_frames import WEIGHTS, at_beta_one, less_imbalance, settled_means
from gradlab.experiments.questions.sampling_runs import ARRIVED, FRESH
from gradlab.lab.training import Training

_FULL = ["uniform", "reference", "on-policy", "mixture", "tempered", "best-worst", "mix-r", "mix-p", "pilaf",
         "rejection"]  # fmt: skip
TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, record=12)
SETTINGS: dict[str, Any] = {
    "first_seed": FIRST_SEED,
    "shift": 6.0,  # responses, of a shifted reference
    "settling": {  # exact labels, free logits; prompts and seeds of each cell
        "losses": {"dpo": [0.5, 1.0], "bdpo": [1.0], "bdpo at 2β": [1.0]},
        "samplers": _FULL, "scales": [1.0, 2.0, 4.0], "references": ["uniform", "shifted"], "prompts": 10, "seeds": 4,
    },
    "rounds": {"times": 3, "samplers": ["uniform", "on-policy"], "references": ["uniform", "shifted"]},
    "training": TRAINING,
    "betas": [0.2, 0.5, 1.0, 2.0, 5.0],
    "few_betas": [0.5, 1.0, 2.0],  # λ = ½ at β = 1 is DPO at β = ½, and bDPO at 2β is bDPO at β = 2
    "judged": {"methods": ["dpo", "bdpo", "permuted λ"], "samplers": [*_FULL, "top-k"],
               "references": ["uniform", "shifted"], "data": "100", "seeds": 12},
    "other_seeds": 6,
    "other_data": ["population", "1000"],
    "weights": list(WEIGHTS),
    "online": {"samplers": ["uniform", "on-policy", "best-worst"], "data": [FRESH, "8000"]},
    "frozen": ["on-policy", "best-worst"],
    "trained_reference": ["uniform", "reference", "on-policy", "best-worst"],
    "moved": {"every": 100, "samplers": ["uniform", "on-policy"]},
    "support": {"methods": ["dpo", "bdpo", "ipo", "exo"], "samplers": ["top-k", "on-policy"], "steps": 3000},
    "speed": {
        "samplers": ["uniform", "on-policy", "mixture", "tempered", "best-worst", "mix-r", "mix-p", "pilaf",
                     "mix-p, closed-form step"],
        "rates": [0.5, 1.0, 2.0, 4.0, 8.0, 16.0], "steps": 300, "prompts": 4, "seeds": 4,
        "worlds": [["dpo", 1.0, "uniform"], ["dpo", 4.0, "uniform"], ["dpo", 4.0, "shifted"], ["bdpo", 1.0, "uniform"]],
    },
}  # fmt: skip
QUICK: dict[str, Any] = {
    "first_seed": 0,
    "settling": {**SETTINGS["settling"], "samplers": ["uniform", "mixture"], "scales": [1.0],
                 "references": ["shifted"], "prompts": 2, "seeds": 2},
    "rounds": {**SETTINGS["rounds"], "references": ["uniform"]},
    "training": TRAINING.but(steps=20),
    "betas": [0.5, 1.0, 2.0],
    "judged": {**SETTINGS["judged"], "samplers": ["uniform", "on-policy", "top-k"], "references": ["shifted"],
               "seeds": 2},
    "other_seeds": 2,
    "other_data": ["population"],
    "weights": ["wpo"],
    "online": {"samplers": ["uniform"], "data": [FRESH, "8000"]},
    "frozen": ["best-worst"],
    "trained_reference": ["uniform", "on-policy"],
    "support": {"methods": ["dpo"], "samplers": ["top-k"], "steps": 40},
    "speed": {**SETTINGS["speed"], "samplers": ["uniform", "mix-p, closed-form step"], "rates": [1.0], "steps": 40,
              "prompts": 2, "seeds": 2, "worlds": [["dpo", 1.0, "uniform"], ["bdpo", 1.0, "uniform"]]},
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per kind of run, method, sampler, reference and data."""
    shared = {key: settings[key] for key in ("shift", "first_seed")}
    settling, rounds, speed = (settings[name] for name in ("settling", "rounds", "speed"))
    found = [
        {"kind": "points", "loss": loss, "beta": beta, "scale": scale, "reference": reference, **shared,
         **{key: settling[key] for key in ("samplers", "prompts", "seeds")}}
        for loss, betas in settling["losses"].items() for beta in betas
        for scale in settling["scales"] for reference in settling["references"]
    ]  # fmt: skip
    found += [
        {"kind": "rounds", "reference": reference, "times": rounds["times"], "samplers": rounds["samplers"], **shared,
         "prompts": settling["prompts"], "seeds": settling["seeds"]}
        for reference in rounds["references"]
    ]  # fmt: skip
    found += [
        {"kind": "support", "methods": [method], "samplers": settings["support"]["samplers"],
         "training": settings["training"].but(steps=settings["support"]["steps"]),
         "first_seed": settings["first_seed"], "seeds": settings["other_seeds"]}
        for method in settings["support"]["methods"]
    ]  # fmt: skip
    found += [
        {"kind": "speed", "loss": loss, "scale": scale, "reference": reference, **shared,
         **{key: speed[key] for key in ("samplers", "rates", "steps", "prompts", "seeds")}}
        for loss, scale, reference in speed["worlds"]
    ]  # fmt: skip
    return found + _trainings(settings, shared)


def _trainings(settings: dict[str, Any], shared: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts that train: the judged cells, then one thing at a time changed."""
    judged, few = settings["judged"], settings["few_betas"]
    given: dict[str, Any] = {
        "kind": "trained", **shared, "training": settings["training"], "seeds": settings["other_seeds"],
        "frozen": False, "moved": None, "levels": False, "betas": few, "data": judged["data"],
    }  # fmt: skip
    found = [
        {**given, "method": method, "sampler": sampler, "reference": reference, "seeds": judged["seeds"],
         "betas": settings["betas"], "levels": True}
        for reference in judged["references"] for sampler in judged["samplers"] for method in judged["methods"]
    ]  # fmt: skip
    both = [(method, reference) for reference in judged["references"] for method in ("dpo", "bdpo")]
    for method, reference in both:
        here = {**given, "method": method, "reference": reference}
        found += [{**here, "sampler": sampler, "data": data}
                  for data in settings["other_data"] for sampler in judged["samplers"]]  # fmt: skip
        found += [{**here, "sampler": sampler, "data": data, "betas": [0.5, 1.0] if method == "dpo" else [1.0, 2.0]}
                  for data in settings["online"]["data"] for sampler in settings["online"]["samplers"]]  # fmt: skip
        found += [{**here, "sampler": sampler, "frozen": True} for sampler in settings["frozen"]]
        found += [{**here, "sampler": sampler} for sampler in settings["weights"]]
    for method in ("dpo", "bdpo"):
        here = {**given, "method": method}
        found += [{**here, "sampler": sampler, "reference": "trained"} for sampler in settings["trained_reference"]]
        found += [{**here, "sampler": sampler, "reference": "uniform", "data": "population", "betas": [1.0],
                   "moved": settings["moved"]["every"]} for sampler in settings["moved"]["samplers"]]  # fmt: skip
    return found


def sample(every: dict[str, Any]) -> list[dict[str, Any]]:
    """Return some parts from a uniform reference: points of bDPO, and trainings of DPO on-policy and by mix-P."""
    return [
        part for part in parts(every) if part.get("reference") == "uniform" and (
            (part["kind"] == "points" and part["loss"] == "bdpo" and part["scale"] == 1.0)
            or (part["kind"] == "trained" and part["method"] == "dpo" and part["sampler"] in ("on-policy", "mix-p")
                and part["levels"])
        )
    ]  # fmt: skip


def run_part(kind: str, **given: Any) -> pd.DataFrame:
    """Return the rows of one part, measured numbers as float32."""
    rows = getattr(sampling_runs, kind)(**given)
    return rows.astype({name: "float32" for name in rows.select_dtypes("float64") if name != "kl_ideal"})


# --- what is judged ---

_SETTLED = Unit("nats", 1, 4)
_IMBALANCE = Unit("nats", 1, 2)
_TRAINED = ("sampler", "reference")
LESS = 0.1  # nats of |log π_l/π_w| that do not matter


def limit_contrasts() -> list[Contrast | Scan]:
    """Return what sampling-limit stands or falls with."""
    given: dict[str, Any] = {
        "claim": "sampling-limit", "value": "kl_uniform", "by": ("sampler", "reference", "scale"), "margin": ARRIVED,
        "unit": _SETTLED, "complete": False,
    }  # fmt: skip
    return [
        Scan(
            claim="sampling-limit", statement="DPO settles at π_ref e^(u/β) under every sampler with full support",
            value="kl_ideal", by=("sampler", "reference", "scale", "beta"), tolerance=1e-9, identity=True,
            where="kind == 'point' and method == 'dpo' and settled == 1", label="DPO", proof="sampling-dpo",
            holds="DPO settles at one policy under every sampler with full support",
            fails="DPO settles elsewhere under another sampler",
        ),
        Contrast(
            statement="bDPO at β = 1: KL from where it settles under uniform sampling", method="bdpo", baseline=None,
            label="bDPO", better="bDPO settles elsewhere under another sampler, {size} away",
            worse="bDPO settles at one policy", same="bDPO settles within {margin} of one policy under all samplers",
            **given,
        ),
        Contrast(
            statement="bDPO against a constant λ = ½, which is DPO at β/2", method="bdpo", baseline="fixed λ=0.5",
            label="λ = ½", role="explains away", better="bDPO's policy moves with the sampler, λ = ½'s less by {size}",
            worse="bDPO's policy moves less than λ = ½'s, by {size}", **given,
        ),
        Contrast(
            statement="bDPO at 2β, which has DPO's effective β: KL from where it settles under uniform sampling",
            method="bdpo at 2β", baseline=None, label="bDPO at 2β", role="explains away",
            better="bDPO at 2β settles elsewhere under another sampler, {size} away",
            worse="bDPO at 2β settles at one policy",
            same="bDPO at 2β settles within {margin} of one policy under all samplers", **given,
        ),
    ]  # fmt: skip


def imbalance_contrasts() -> list[Contrast]:
    """Return what sampling-imbalance stands or falls with."""
    given: dict[str, Any] = {
        "claim": "sampling-imbalance", "baseline": None, "by": _TRAINED, "margin": LESS, "unit": _IMBALANCE,
        "complete": False, "better": "{what} under uniform sampling than under another, by {{size}}",
        "worse": "{what} under another sampler than under uniform sampling, by {{size}}",
    }  # fmt: skip

    def one(method: str, value: str, where: str, statement: str, what: str, **changes: Any) -> Contrast:
        said = {name: given[name].format(what=what) for name in ("better", "worse")}
        return Contrast(method=method, value=value, where=where, statement=statement, **{**given, **said, **changes})

    judged = "data == '100' and frozen == 0 and reference != 'trained' and weights == 0"
    seen = "pairs that are seen are more imbalanced"
    return [
        one("dpo", "less_imbalance", judged, "DPO at β = 1: |log π_l/π_w| along training, uniform − sampler", seen,
            label="DPO"),
        one("dpo", "less_imbalance_all", judged, "DPO: the same over all pairs, so of the policies alone",
            "all pairs are more imbalanced", label="all pairs", role="context"),
        one("bdpo", "less_imbalance", judged, "bDPO at β = 1: the same of the pairs seen", seen, label="bDPO",
            role="robustness"),
        *(one("dpo", "less_imbalance", f"data == '{data}' and frozen == 0 and moved == 0 and weights == 0",
              f"DPO, {words}", seen, label=words, role="robustness")
          for data, words in (("population", "exact labels"), ("1000", "1,000 pairs"),
                              (FRESH, "16 fresh pairs a step"))),
        one("dpo", "less_imbalance", "data == '100' and frozen == 0 and reference == 'trained'",
            "DPO from a reference of 300 DPO steps", seen, label="trained reference", role="robustness"),
        one("dpo", "less_imbalance", "frozen == 1", "DPO, the sampler frozen at the start: drift of data without drift "
            "of the policy", seen, label="frozen sampler", role="context"),
        one("dpo", "less_imbalance", "weights == 1", "DPO under WPO's and importance weights", seen,
            label="weights in place of draws", role="context"),
    ]  # fmt: skip


def benefit_contrasts() -> list[Contrast]:
    """Return what sampling-benefit stands or falls with, but for equal KL."""
    judged = "data == '100' and frozen == 0 and reference != 'trained' and weights == 0"

    def one(statement: str, method: str, baseline: str, label: str, where: str = judged, **changes: Any) -> Contrast:
        return REWARD.contrast(statement, method, baseline, changes.pop("by", _TRAINED), **{
            "claim": "sampling-benefit", "words": "over samplers, {}", "label": label, "where": where,
            "complete": False, "role": "robustness", **changes,
        })  # fmt: skip

    pair = ("bdpo", "dpo")
    return [
        one("bDPO against DPO at β = 1", *pair, "DPO", role="primary"),
        one("bDPO against a constant λ = ½, which is DPO at β/2", "bdpo", "fixed λ=0.5", "λ = ½", role="explains away"),
        one("bDPO at 2β, which has DPO's effective β, against DPO", "bdpo at 2β", "dpo", "DPO at equal scale",
            role="explains away"),
        one("bDPO against its λ permuted among the pairs", "bdpo", "permuted λ", "λ permuted among pairs",
            role="explains away"),
        *(one(f"bDPO against DPO at β = 1, {words}", *pair, words,
              f"data == '{data}' and frozen == 0 and moved == 0 and weights == 0")
          for data, words in (("population", "exact labels"), ("1000", "1,000 pairs"),
                              (FRESH, "16 fresh pairs a step"), ("8000", "8,000 pairs, as many as the fresh ones"))),
        one("bDPO against DPO at β = 1, from a reference of 300 DPO steps", *pair, "trained reference",
            "data == '100' and reference == 'trained'", value="utility", margin=0.04,
            unit=Unit("nats of utility", 1, 3), better="from a reference of 300 DPO steps, bDPO ends {size} above DPO",
            worse="from a reference of 300 DPO steps, bDPO ends {size} below DPO"),
        one("bDPO against DPO at β = 1, the sampler frozen at the start", *pair, "frozen sampler", "frozen == 1",
            role="context"),
        one("bDPO against DPO at β = 1, the reference moved every 100 steps", *pair, "moved reference", "moved > 0",
            role="context"),
        one("bDPO against DPO at β = 1, under WPO's and importance weights", *pair, "weights in place of draws",
            "weights == 1", role="context"),
        one("bDPO's distance to the frontier against DPO's at β = 1, in nats", *pair, "distance to the frontier",
            value="frontier_gap", lower_is_better=True, margin=0.01, unit=Unit("nats", 1, 3), role="context",
            better="bDPO ends {size} nearer to the frontier than DPO",
            worse="bDPO ends {size} farther from the frontier than DPO"),
        one("on-policy against uniform sampling, DPO, 16 fresh pairs a step: an equal number of labels", "on-policy",
            "uniform", "DPO's own gain from sampling", f"data == '{FRESH}' and loss == 'dpo'", by=("reference",),
            role="context", better="DPO reaches {size} more on-policy than by uniform sampling",
            worse="DPO reaches {size} less on-policy than by uniform sampling"),
    ]  # fmt: skip


_AT_KL = REWARD.contrast(
    "bDPO against DPO at equal KL, β and checkpoints pooled", "bdpo", "dpo", ("sampler", "reference", "kl"),
    claim="sampling-benefit", label="DPO at equal KL", words="over samplers at equal KL, {}", role="explains away",
    complete=False,
)  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge where losses settle, the imbalance of pairs, and bDPO − DPO, in cells of a sampler and a reference.

    *Where losses settle* (``kind`` "point"): a seed's value is the mean of ``kl_uniform`` over its prompts that have
    settled both under the sampler and under uniform sampling; a cell (sampler, reference, scale) counts if every seed
    has such a prompt. Uniform sampling itself, and the reference as a sampler where it is uniform, are left out. λ = ½
    at β = 1 is DPO at β = ½.

    *Trainings* (``kind`` "end"): rows with β = 1; "fixed λ=0.5" are those of DPO at β = ½, "bdpo at 2β" those of bDPO
    at β = 2. ``less_imbalance`` is the mean along training of uniform sampling with the same method, reference, data
    and seed, minus the sampler's. ``weights`` is 1 of WPO's and importance weights. Equal KL: rows of kind "level", by
    ``level``; a level counts as in *frontier*. A trained reference leaves little to reach, so there the utility itself
    is compared.
    """
    check_rows(
        frame[frame["kind"] == "end"], ["method", "beta", "sampler", "reference", "data", "frozen", "moved", "seed"],
        ["utility_share", "imbalance", "corrected", "kl"],
        {"method": settings["judged"]["methods"], "sampler": settings["judged"]["samplers"],
         "reference": settings["judged"]["references"]},
    )  # fmt: skip
    scan, *contrasts = limit_contrasts()
    points = settled_means(frame)
    rows = [scan.judged(frame), *(_judged(one, points) for one in contrasts)]
    ends = at_beta_one(frame)
    less = less_imbalance(ends)
    rows += [_judged(one, less) for one in imbalance_contrasts()]
    by_sampler = ends[ends["sampler"].isin(("uniform", "on-policy"))].assign(loss=ends["method"])
    by_sampler = by_sampler.assign(method=by_sampler["sampler"])
    rows += [_judged(one, by_sampler if one.method == "on-policy" else ends) for one in benefit_contrasts()]
    levels = frame[frame["kind"] == "level"].drop(columns="kl").rename(columns={"level": "kl"})
    both = overlap(levels, "bdpo", "dpo", list(_AT_KL.by))
    rows.append(_judged(_AT_KL, both))
    return rows


def _judged(contrast: Contrast | Scan, frame: pd.DataFrame) -> Judged:
    """Return the answer on what the frame has for a contrast; a cell counts with two seeds and every method."""
    rows = frame.query(contrast.where) if contrast.where else frame
    if isinstance(contrast, Contrast):
        wanted = {contrast.method, contrast.baseline} - {None}
        rows = rows[rows["method"].isin(wanted)]
        cells = rows.groupby(list(contrast.by))
        rows = rows[(cells["method"].transform("nunique") == len(wanted)) & (cells["seed"].transform("nunique") > 1)]
    return contrast.judged(rows) if len(rows) else not_run(contrast, "no such runs")


EXPERIMENT = Experiment(
    name="sampling",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=sampling_figures.figures,
    captions=sampling_figures.CAPTIONS,
    version=1,
    sample=sample,
)
