"""Strengths of all systems at once: Bradley and Terry's, with Davidson's ties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import logsumexp

from gradlab.stats.equivalence import Mean
from gradlab.study.plan import Population
from gradlab.study.rates import estimated

COLUMNS = ("system", "strength", "low", "high", "win_rate")
_PULL = 0.05  # of log strengths towards 0, in answers: a system that never lost has a finite strength


def strengths(
    answers: pd.DataFrame, systems: Sequence[str], population: Population = "like these"
) -> tuple[pd.DataFrame, float]:
    """Return each system's strength with its 95% interval, strongest first, and Davidson's ν of ties.

    answers  rows of one goal, with ``rater``, ``prompt``, ``a``, ``b`` and ``score``.

    Columns: ``COLUMNS``. With strengths s, P(i beats j) = e^{s_i}/(e^{s_i} + e^{s_j} + ν e^{(s_i + s_j)/2}), and a tie
    has the rest; strengths are log odds, their mean is 0, and ``win_rate`` is the mean over the other systems of
    P(win) + ½ P(tie). An interval is that of the difference from the mean of all, and no narrower than the
    model has it for independent answers: a system that always wins has no certain strength. Source: Davidson 1970.

    ValueError where a system has no answer, or where the answers do not link all systems.
    """
    kept = answers[answers["score"].notna()]
    place = {system: number for number, system in enumerate(systems)}
    apart = unlinked(answers, systems)
    if apart:
        raise ValueError(f"answers must link all systems; none links {apart[0]} with {systems[0]}")
    first, second = (kept[side].map(place).to_numpy(int) for side in ("a", "b"))
    score = kept["score"].to_numpy(float)
    kind = np.select([score == 1, score == 0], [0, 1], 2)  # b, a, a tie
    count = len(systems)
    found = minimize(
        _loss, np.zeros(count + 1), args=(first, second, kind, count), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    centred = found.x[:count] - found.x[:count].mean()
    gradients = _gradients(found.x, first, second, kind, count)
    inverse = np.linalg.pinv(_information(found.x, first, second, count))
    nu = float(np.exp(found.x[count]))
    rows = []
    for number, system in enumerate(systems):
        toward = inverse[number] - inverse[:count].mean(0)
        least = math.sqrt(max(toward[number] - toward[:count].mean(), 0.0))  # were all answers independent
        low, high = _around(kept, gradients @ toward * len(kept), least, population)
        others = np.delete(centred, number)
        rows.append({
            "system": system, "strength": float(centred[number]), "low": float(centred[number]) + low,
            "high": float(centred[number]) + high, "win_rate": float(_expected(centred[number] - others, nu).mean()),
        })  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("strength", ascending=False, ignore_index=True)
    return frame, nu


def _around(kept: pd.DataFrame, values: np.ndarray, least: float, population: Population) -> tuple[float, float]:
    """Return the ends of a strength's 95% interval, less the strength.

    values  (n,) the first-order change of the strength by each answer, times n.
    least   the smallest standard error, which the model gives.
    """
    rater, prompt = (pd.factorize(kept[name])[0] for name in ("rater", "prompt"))
    weight = np.full(len(kept), 1 / len(kept))
    spread = estimated(0.5, values, weight, rater, prompt, raters_vary=population == "like these")
    error, freedom = (spread.error, spread.freedom) if spread.error > least else (least, math.inf)
    low, high = Mean(np.zeros(()), np.asarray(error), np.asarray(freedom)).interval()
    return float(low), float(high)


def _expected(ahead: np.ndarray, nu: float) -> np.ndarray:
    """Return P(win) + ½ P(tie) of a system that is so far ahead of others."""
    up, down = np.exp(ahead / 2), np.exp(-ahead / 2)
    return (up + nu / 2) / (up + down + nu)


def _logits(theta: np.ndarray, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return (n, 3): logits of b, a and a tie."""
    ahead = theta[second] - theta[first]
    return np.column_stack([ahead / 2, -ahead / 2, np.full(len(ahead), theta[count])])


def _loss(
    theta: np.ndarray, first: np.ndarray, second: np.ndarray, kind: np.ndarray, count: int
) -> tuple[float, np.ndarray]:
    """Return minus the log likelihood per answer with a weak pull to 0, and its gradient."""
    logits = _logits(theta, first, second, count)
    whole = logits[np.arange(len(kind)), kind] - logsumexp(logits, axis=1)
    pull = _PULL * theta / len(kind)
    gradient = -_gradients(theta, first, second, kind, count).mean(0) + pull
    return float(-whole.mean() + (pull @ theta) / 2), gradient


def _gradients(theta: np.ndarray, first: np.ndarray, second: np.ndarray, kind: np.ndarray, count: int) -> np.ndarray:
    """Return (n, k + 1): the gradient of each answer's log likelihood."""
    logits = _logits(theta, first, second, count)
    rest = np.eye(3)[kind] - np.exp(logits - logsumexp(logits, axis=1)[:, None])
    ahead = (rest[:, 0] - rest[:, 1]) / 2
    gradient = np.zeros((len(kind), count + 1))
    rows = np.arange(len(kind))
    gradient[rows, second] += ahead
    gradient[rows, first] -= ahead
    gradient[:, count] = rest[:, 2]
    return gradient


def _information(theta: np.ndarray, first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """Return the expected information of all answers, (k + 1, k + 1)."""
    logits = _logits(theta, first, second, count)
    chance = np.exp(logits - logsumexp(logits, axis=1)[:, None])
    total = np.zeros((count + 1, count + 1))
    for kind in range(3):
        gradient = _gradients(theta, first, second, np.full(len(first), kind), count)
        total += (gradient * chance[:, [kind]]).T @ gradient
    return total


def unlinked(answers: pd.DataFrame, systems: Sequence[str]) -> list[str]:
    """Return the systems that no answer, however indirectly, links with the first; skips are no answers."""
    kept = answers[answers["score"].notna()]
    linked, grown = {systems[0]}, True
    pairs = {*zip(kept["a"], kept["b"], strict=True)}
    while grown:
        more = {side for pair in pairs for side in pair if linked & {*pair}} - linked
        linked, grown = linked | more, bool(more)
    return [system for system in systems if system not in linked]


def ties(nu: float) -> float:
    """Return the share of ties between two equally strong systems."""
    return nu / (2 + nu) if math.isfinite(nu) else 1.0
