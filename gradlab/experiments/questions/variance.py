"""Does weighting by p lower the variance of the weights, as Theorems 4–5 say: Var[w p] < Var[w] E[p²]?

An exact counterexample and a proof decide. Gaussian and Dirichlet policies and preferences, confident policies, and
DPO's policies show where the theorems are true, each family for itself. Claim: variance.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import log_softmax

from gradlab import plotting
from gradlab.experiments.contrasts import Judged, Scan, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import train
from gradlab.lab.world import gaussian_world
from gradlab.streams import Purpose, stream
from gradlab.theory import balanced_weight, covariance_gap, dpo_weight, families, variance_ratio
from gradlab.theory.weight_variance import noise_to_signal

SETTINGS: dict[str, Any] = {
    "responses": [20, 200],
    "distances": [0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0],  # between the modes, in responses of the 20-grid
    "widths": [0.75, 1.5, 3.0, 6.0],  # σ of p, and of q
    "concentrations": [0.1, 1.0, 10.0],  # of Dirichlet p, and of Dirichlet q
    "draws": 50,  # seeds of each pair of concentrations, and of the confident policies
    "first_seed": FIRST_SEED,
    "peaks": [0.5, 0.9, 0.99, 0.9999],  # probability of a confident policy's one response; the others share the rest
    "trained_steps": [1, 10, 100, 500],  # DPO's policies on the picture world
    "trained_seeds": 5,
    "permutations": 50,  # of p among the responses, the control
    "region": [41, 41],  # points of the picture: distance, σ_p
}
QUICK: dict[str, Any] = {
    "distances": [0.0, 2.0, 8.0], "widths": [1.5, 6.0], "draws": 5, "first_seed": 0, "trained_seeds": 1,
    "permutations": 10, "region": [9, 9],
}  # fmt: skip

REGION_WIDTH = 3.0  # σ_q of the picture
ROUNDING = 1e-9  # of the logarithm of a ratio


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per family."""
    shared = {"permutations": settings["permutations"]}
    of = {key: settings[key] for key in settings}
    families = {
        "gaussian": {key: of[key] for key in ("responses", "distances", "widths")},
        "dirichlet": {key: of[key] for key in ("responses", "concentrations", "first_seed", "draws")},
        "confident": {key: of[key] for key in ("responses", "peaks", "widths", "first_seed", "draws")},
        "trained": {"steps": of["trained_steps"], "first_seed": of["first_seed"], "seeds": of["trained_seeds"]},
        "indifferent": {key: of[key] for key in ("responses", "peaks")},
        "region": {"points": of["region"]},
    }
    return [{"family": family, "settings": one, **shared} for family, one in families.items()]


def run_part(family: str, settings: dict[str, Any], permutations: int) -> pd.DataFrame:
    """Return both sides of the theorem for every case of a family.

    log_ratio     log of Var[w p]/(Var[w] E[p²]): below 0 where the theorem is true. ``_baseline``: of (w − E_p[w]) p;
                  ``_permuted``: the mean ratio with p dealt out at random among the responses.
    gap           the covariance condition, below 0 where the theorem is true.
    log_noise     log of Var/E|·|² of w p, minus that of w: below 0 where weighting by p lowers noise against signal.
    """
    rows = []
    for case, log_p, log_q in _FAMILIES[family](**settings):
        w, p = dpo_weight(log_p, log_q), np.exp(log_p)
        dealt = stream(len(rows), Purpose.DEALT).permuted(np.tile(p, (permutations, 1)), axis=1)
        of_baseline = balanced_weight(log_p, log_q, weight=w, baseline=True)
        rows.append({
            **case, "family": family, "log_ratio": np.log(variance_ratio(w, p)), "gap": covariance_gap(w, p),
            "log_ratio_baseline": np.log(of_baseline.var() / (w.var() * (p**2).mean())),
            "log_ratio_permuted": np.log(variance_ratio(w, dealt).mean()),
            "log_noise": np.log(noise_to_signal(w * p)) - np.log(noise_to_signal(w)),
        })  # fmt: skip
    return pd.DataFrame(rows)


Case = tuple[dict[str, Any], np.ndarray, np.ndarray]


def _gaussian(responses: list[int], distances: list[float], widths: list[float]) -> Iterator[Case]:
    for n, distance, sigma_p, sigma_q in itertools.product(responses, distances, widths, widths):
        if distance == 0 and sigma_p == sigma_q:
            continue  # p = q: there is no weight
        case = {"n": n, "distance": distance, "sigma_p": sigma_p, "sigma_q": sigma_q}
        yield case, *families.gaussian_pair(n, distance, sigma_p, sigma_q)


def _dirichlet(responses: list[int], concentrations: list[float], first_seed: int, draws: int) -> Iterator[Case]:
    seeds = range(first_seed, first_seed + draws)
    for n, alpha_p, alpha_q, seed in itertools.product(responses, concentrations, concentrations, seeds):
        case = {"n": n, "alpha_p": alpha_p, "alpha_q": alpha_q, "seed": seed}
        yield case, *families.dirichlet_pair(n, alpha_p, alpha_q, seed)


def _confident(
    responses: list[int], peaks: list[float], widths: list[float], first_seed: int, draws: int
) -> Iterator[Case]:
    """Yield policies with one likely response, at random, against Gaussian preferences: the one-hot limit."""
    for n, peak, sigma_q, seed in itertools.product(responses, peaks, widths, range(first_seed, first_seed + draws)):
        log_p, at = families.random_peak(n, 1 - peak, seed)
        distance = abs(at + 0.5 - n / 2) * families.SUPPORT / n
        case = {"n": n, "peak": peak, "sigma_q": sigma_q, "distance": distance, "seed": seed}
        yield case, log_p, families.gaussian(n, 0, sigma_q)


def _trained(steps: list[int], first_seed: int, seeds: int) -> Iterator[Case]:
    numbers = range(first_seed, first_seed + seeds)
    worlds = [gaussian_world(seed=seed) for seed in numbers]
    for step in steps:
        fitted = train("dpo", worlds, steps=step, seeds=numbers)
        for seed, world, logp in zip(numbers, worlds, fitted.logp, strict=True):
            for prompt, log_p in enumerate(logp.numpy()):
                yield {"n": 20, "step": step, "prompt": prompt, "seed": seed}, log_p, log_softmax(world.utility[prompt])


def _indifferent(responses: list[int], peaks: list[float]) -> Iterator[Case]:
    """Yield the counterexample: one likely response, the others alike, and a uniform preference."""
    for n, peak in itertools.product(responses, peaks):
        yield {"n": n, "peak": peak}, families.one_peak(n, 0, 1 - peak), np.full(n, -np.log(n))


def _region(points: list[int]) -> Iterator[Case]:
    distances, widths = np.linspace(0, 12, points[0]), np.geomspace(REGION_WIDTH / 8, 4 * REGION_WIDTH, points[1])
    for distance, sigma_p in itertools.product(distances, widths):
        # Off the centre line, where p = q leaves nothing to weigh.
        case = {"n": 200, "distance": distance, "sigma_p": sigma_p, "sigma_q": REGION_WIDTH}
        yield case, *families.gaussian_pair(200, distance, sigma_p * 1.0001, REGION_WIDTH)


_FAMILIES = {
    "gaussian": _gaussian, "dirichlet": _dirichlet, "confident": _confident, "trained": _trained,
    "indifferent": _indifferent, "region": _region,
}  # fmt: skip


def cases(frame: pd.DataFrame) -> pd.DataFrame:
    """Return every case except the picture's, with the slack of each statement."""
    rows = frame[frame["family"] != "region"]
    return rows.assign(
        less=-rows["log_ratio"], less_baseline=-rows["log_ratio_baseline"], less_noise=-rows["log_noise"],
        less_than_chance=rows["log_ratio_permuted"] - rows["log_ratio"],
        # The two sides of the equivalence must not disagree in sign, beyond rounding.
        disagree=((rows["gap"] < 0) != (rows["log_ratio"] < 0)) & (rows["log_ratio"].abs() > ROUNDING),
    )  # fmt: skip


_BY = {
    "gaussian": ("Gaussian p and q", ("n", "distance", "sigma_p", "sigma_q")),
    "dirichlet": ("Dirichlet p and q", ("n", "alpha_p", "alpha_q")),
    "confident": ("confident p, Gaussian q", ("n", "peak", "sigma_q", "distance")),
    "trained": ("policies that DPO trained", ("step",)),
}
_THEOREM = "Var[w p] < Var[w] E[p²]"
_ALSO = {  # other statements, by the column of their slack
    "less": _THEOREM,
    "less_than_chance": "the ratio is lower than with p dealt out at random among the responses",
    "less_baseline": "with a baseline, as in logits: Var[(w − E_p[w]) p] < Var[w] E[p²]",
    "less_noise": "noise against signal, Var/E|·|², is lower for w p than for w",
}
STATEMENTS = [
    Scan("variance", f"{_THEOREM}, one likely response among equals, uniform q", "less", ("n", "peak"), ROUNDING,
         "family == 'indifferent'", proof="variance", refutes=True,
         fails="The inequality holds if and only if Cov(w², p²) < (E[w p])²; it is false for every policy that prefers "
         "one response and treats the others alike, where the preference is uniform."),
    Scan("variance", "it is true exactly where Cov(w², p²) < (E[w p])²", "disagree", ("family",), 0.0, identity=True,
         role="context", proof="variance", holds="The covariance condition decides in every case."),
    *(
        Scan("variance", f"{words}: {of}", slack, by, ROUNDING, f"family == '{family}'", role="context")
        for slack, words in _ALSO.items() for family, (of, by) in _BY.items()
    ),
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return answers on the theorem, on what makes it true, and on whether it means less noise.

    Cases are the rows whose family is not "region". ``less`` is −log_ratio, ``less_noise`` −log_noise,
    ``less_baseline`` −log_ratio_baseline, ``less_than_chance`` log_ratio_permuted − log_ratio.
    log_ratio is the logarithm of Var[w p]/(Var[w] E[p²]), and gap is Cov(w², p²) − E[w p]² + E[w]² E[p²]. ``disagree``
    is 1 where just one of both is below 0, rounding of log_ratio apart, else 0.
    """
    return judged(cases(frame), STATEMENTS, {"family": set(_FAMILIES) - {"region"}})


CAPTIONS = {
    "variance-region": (
        "Where weighting by p lowers the variance as Theorems 4–5 say. Left: Gaussian p and q on 200 responses, σ_q = "
        "3; colour, and the numbers on the lines, are the logarithm (base 10) of Var[w p]/(Var[w] E[p²]): teal and "
        "negative where the theorem is true, brown where it is not, with the border as a thick line. Middle: the same "
        "with noise against signal, Var/E|·|², of w p over that of w. Right: the first ratio for Dirichlet policies "
        "and preferences, one dot per draw; numbers are the shares for which the theorem is true."
    )
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the region."""
    return {"variance-region": plotting.variance_region(frame)}


EXPERIMENT = Experiment(
    name="variance",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
