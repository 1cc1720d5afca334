"""The cases of the distribution-shift experiment: each kind yields rows with the places of a weight's extrema.

outside, inside  signed distances to Theorem 3's statements, in responses: negative where the statement misses.
reach            how far the lowest or the highest point lies outside the modes, in responses.
miss             how far the lowest point lies outside the modes; negative where it is inside.
far              share of the weight's size, Σ|w|, farther than 2 σ_p outside the modes, where p has a σ_p.
extrema          the number of extrema.
cell             width of a grid cell, in responses; 0 in the continuous limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import log_softmax

from gradlab.experiments.methods import train
from gradlab.lab.world import gaussian_world
from gradlab.theory import (
    balanced_weight,
    bdpo_weight,
    bdpo_weight_limit,
    dpo_weight,
    dpo_weight_limit,
    families,
    gaussian_log_density,
    in_logits,
    inside,
    log_ratio_weight,
    outside,
    product_noise,
)

PICTURED = ((3.0, 3.0, 6.0), (1.5, 3.0, 6.0), (3.0, 1.5, 6.0))  # σ_p, σ_q, distance of the drawn weights
PHASE_SUPPORT = 24.0  # in widths of p
PHASE_RESPONSES = 800  # that Balanced-DPO's λ sees in the phase diagram


def scan(
    family: str, responses: int, supports: list[float], distances: list[float], widths: list[float]
) -> Iterator[dict[str, Any]]:
    """Yield rows of two distributions of one family on a grid, at every support, distance and pair of widths."""
    for support, distance, sigma_p, sigma_q in itertools.product(supports, distances, widths, widths):
        y = families.cells(responses, support, 0.0)
        low, high = (support - distance) / 2, (support + distance) / 2
        log_p, log_q = families.on_cells(family, y, low, sigma_p), families.on_cells(family, y, high, sigma_q)
        case = {"family": family, "n": responses, "support": support, "distance": distance, "sigma_p": sigma_p,
                "sigma_q": sigma_q, "cell": support / responses}  # fmt: skip
        yield from ({**case, **places} for places in _places(y, weights(log_p, log_q), log_p, low, high, sigma_p))


def weights(log_p: np.ndarray, log_q: np.ndarray, log_ref: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return every weight function that is judged, by name, for log-distributions (n,)."""
    dpo, bdpo = dpo_weight(log_p, log_q, log_ref), bdpo_weight(log_p, log_q, log_ref)
    return {
        "dpo": dpo,
        "balanced": balanced_weight(log_p, log_q, weight=dpo),
        "balanced, baseline": balanced_weight(log_p, log_q, weight=dpo, baseline=True),
        "balanced, log ratio": balanced_weight(log_p, log_q, weight=log_ratio_weight(log_p, log_q)),
        "bdpo": bdpo,
        "bdpo, logits": in_logits(bdpo, log_p),
    }


def _places(
    y: np.ndarray, found: dict[str, np.ndarray], log_p: np.ndarray, low: float, high: float, sigma_p: float = np.nan
) -> Iterator[dict[str, Any]]:
    """Yield where the extrema of each weight lie; balanced weights are products with p, down to the farthest tails."""
    # A weight without any extremum misses neither statement: as far from the border as the interval is wide.
    bound = max(high - low, float(y[1] - y[0]))
    away = np.maximum(low - y, y - high)
    for name, weight in found.items():
        noise = product_noise(weight, np.exp(log_p)) if name.startswith("balanced") else None
        out, within = outside(y, weight, low, high, noise), inside(y, weight, low, high, noise)
        lowest = min(out.extrema, key=lambda extremum: extremum.value, default=None)
        miss = -bound if lowest is None else max(low - lowest.position, lowest.position - high)
        far = np.abs(weight[away > 2 * sigma_p]).sum() / np.abs(weight).sum() if np.isfinite(sigma_p) else np.nan
        yield {"weight": name, "outside": min(out.slack, bound), "inside": min(within.slack, bound),
               "reach": out.reach, "extrema": len(out.extrema), "miss": miss, "far": far}  # fmt: skip


def limit(supports: list[float], distances: list[float], widths: list[float], points: int) -> Iterator[dict[str, Any]]:
    """Yield rows of the Gaussians on a continuous axis."""
    for support, distance, sigma_p, sigma_q in itertools.product(supports, distances, widths, widths):
        y = np.linspace(0, support, points)
        low, high = (support - distance) / 2, (support + distance) / 2
        log_p, log_q = gaussian_log_density(low, sigma_p), gaussian_log_density(high, sigma_q)
        dpo = dpo_weight_limit(y, log_p, log_q, 0, support)
        found = {
            "dpo": dpo, "balanced": dpo * np.exp(log_p(y)),
            "balanced, log ratio": (log_q(y) - log_p(y)) * np.exp(log_p(y)),
            "bdpo": bdpo_weight_limit(y, log_p, log_q, 0, support),
        }  # fmt: skip
        case = {"family": "gaussian", "n": np.inf, "support": support, "distance": distance, "sigma_p": sigma_p,
                "sigma_q": sigma_q, "cell": 0.0}  # fmt: skip
        yield from ({**case, **places} for places in _places(y, found, log_p(y), low, high, sigma_p))


def trained(steps: list[int], first_seed: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield rows of DPO's policies from a shifted reference, against the utilities' softmax; one case per prompt."""
    y = np.arange(20.0)
    numbers = range(first_seed, first_seed + seeds)
    worlds = [gaussian_world(reference="shifted", seed=seed) for seed in numbers]
    for step in steps:
        fitted = train("dpo", worlds, steps=step, seeds=numbers)
        for seed, world, logp in zip(numbers, worlds, fitted.logp, strict=True):
            for prompt, log_p in enumerate(logp.numpy()):
                log_q, log_ref = log_softmax(world.utility[prompt]), world.ref_logp[prompt]
                low, high = sorted(float(y[values.argmax()]) for values in (log_p, log_q))
                case = {"family": "trained", "n": 20, "step": step, "prompt": prompt, "seed": seed, "cell": 1.0,
                        "distance": high - low}  # fmt: skip
                for reference, ref in (("uniform", None), ("own", log_ref)):
                    places = _places(y, weights(log_p, log_q, ref), log_p, low, high)
                    yield from ({**case, "reference": reference, **place} for place in places)


def dirichlet(concentrations: list[float], first_seed: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Yield rows of random policies and preferences on 20 responses."""
    y = np.arange(20.0)
    for alpha, seed in itertools.product(concentrations, range(first_seed, first_seed + seeds)):
        log_p, log_q = families.dirichlet_twins(20, alpha, seed)
        low, high = sorted(float(y[values.argmax()]) for values in (log_p, log_q))
        case = {"family": "dirichlet", "n": 20, "alpha": alpha, "seed": seed, "distance": high - low, "cell": 1.0}
        yield from ({**case, **places} for places in _places(y, weights(log_p, log_q), log_p, low, high))


def phase(points: list[int]) -> Iterator[dict[str, Any]]:
    """Yield rows of the continuous limit over distance in σ_p and ratio of widths, also bDPO on 800 responses."""
    support, y = PHASE_SUPPORT, np.linspace(0, PHASE_SUPPORT, 601)
    distances, ratios = np.linspace(0.25, 6, points[0]), np.geomspace(0.25, 4, points[1])
    for distance, ratio in itertools.product(distances, ratios):
        low, high = (support - distance) / 2, (support + distance) / 2
        log_p, log_q = gaussian_log_density(low, 1.0), gaussian_log_density(high, ratio)
        dpo = dpo_weight_limit(y, log_p, log_q, 0, support)
        bdpo = bdpo_weight_limit(y, log_p, log_q, 0, support, cells=PHASE_RESPONSES)
        case = {"family": "gaussian", "n": np.inf, "distance": distance, "sigma_p": 1.0, "sigma_q": ratio}
        found = {"dpo": dpo, "balanced": dpo * np.exp(log_p(y)), "bdpo": bdpo}
        yield from ({**case, **places} for places in _places(y, found, log_p(y), low, high))


def curves(grids: list[int]) -> Iterator[dict[str, Any]]:
    """Yield rows of the weights, one row per response, for the picture."""
    support = families.SUPPORT
    for (sigma_p, sigma_q, distance), n in itertools.product(PICTURED, grids):
        y = families.cells(n, support, 0.0)
        low, high = (support - distance) / 2, (support + distance) / 2
        log_p, log_q = families.on_cells("gaussian", y, low, sigma_p), families.on_cells("gaussian", y, high, sigma_q)
        case = {"n": n, "distance": distance, "sigma_p": sigma_p, "sigma_q": sigma_q}
        shown = {"policy": np.exp(log_p), "preference": np.exp(log_q), **weights(log_p, log_q)}
        for name in ("policy", "preference", "dpo", "balanced", "bdpo"):
            for position, value in zip(y, shown[name], strict=True):
                yield {**case, "weight": name, "y": position, "value": value}


KINDS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    "scan": scan, "limit": limit, "trained": trained, "dirichlet": dirichlet, "phase": phase, "curves": curves,
}  # fmt: skip
