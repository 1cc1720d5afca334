"""Are the gradients of a prompt's responses opposed, E[c_ij] < 0, or orthogonal, c_ij ≈ 0?

c_ij = ⟨∇_θ π_i, ∇_θ π_j⟩ of two responses i ≠ j of one prompt. Over all responses the entries sum to zero for every
model, because probabilities sum to one: their mean over i ≠ j is −(mean of c_ii)/(n − 1), negative by algebra. The mean
over a subset drawn at random is also negative in expectation. Over a given subset of m responses, such as those that
the data cover, the entries sum to ‖∇Σπ‖² ≥ 0, and the mean is positive where that exceeds Σ c_ii. Every c_ij is tiny
where n is large, so "≈ 0" is judged on a scale: by the cosine. Claim: inner-product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Role, Scan, Unit, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import seeds_from, train
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.experiments.questions.inner_products_network import (
    gradient_kernels,
    initial_weights,
    network_inputs,
    train_network,
)
from gradlab.lab.policy import RadialBasis
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO
from gradlab.stats.precision import Design
from gradlab.streams import Purpose, stream
from gradlab.theory import gradient_cosines, gradient_inner_products, mean_off_diagonal
from gradlab.theory.families import random_policy

SETTINGS: dict[str, Any] = {
    # Each family's levels: concentration α; width as a share of n (centre at random); probability of the peak (the
    # rest Dirichlet(1)); steps of DPO from a uniform policy.
    "levels": {
        "dirichlet": [0.1, 1.0, 10.0],
        "gaussian": [0.075, 0.15, 0.3],
        "one-hot": [0.9, 0.99, 0.999999],
        "trained": [0, 50, 500],
    },
    "sizes": {"dirichlet": [4, 8, 20, 50, 200], "gaussian": [4, 8, 20, 50, 200], "one-hot": [20], "trained": [20]},
    "parameters": ["free", "shared", "mlp"],
    "observed": 0.6,  # share of a prompt's responses: for trained policies those that the data cover, else at random
    "first_seed": FIRST_SEED,
    # At PICTURED responses, which are judged, each cell has this many seeds, and gets blocks up to the cap where it is
    # too wide.
    "seeds": 24,
    "block": 24,
    "cap": 96,
    "other_seeds": 6,  # at other numbers of responses
    # For trained policies: the picture world, a mean over its prompts.
    "training": Training(optimizer="adam", learning_rate=0.05, pairs=100, record=1),
    "network_learning_rate": 0.01,
}
QUICK: dict[str, Any] = {
    "levels": {"dirichlet": [0.1, 10.0], "gaussian": [0.15], "one-hot": [0.9], "trained": [0, 100]},
    "sizes": {"dirichlet": [4, 20], "gaussian": [4, 20], "one-hot": [20], "trained": [20]},
    "first_seed": 0, "seeds": 2, "block": 2, "cap": 4, "other_seeds": 2,
}  # fmt: skip

FAMILIES = {
    "dirichlet": "Dirichlet policies", "gaussian": "Gaussian policies", "one-hot": "peaked policies",
    "trained": "policies trained by DPO",
}  # fmt: skip
NEAR_ZERO = 0.1  # c_ij ≈ 0 where the mean |cosine| is below this
MARGIN = 0.01  # of that statement
_SIGN = 0.001  # margin of the statements on signs
_ROUNDING = 1e-10  # of Σ c_ij against Σ c_ii
PICTURED = 20  # responses, as on the grid: each family has as many cells at this n; of its first seed entries are kept

_BY = ("family", "level", "n", "parameters")
_CELL = {"claim": "inner-product", "method": "policy", "baseline": None, "by": _BY, "complete": False}


def _near_zero(label: str, where: str, role: Role) -> Contrast:
    """Return the contrast on whether the gradients of these policies are nearly orthogonal."""
    return Contrast(
        statement=f"c_ij ≈ 0, {label}: mean |cosine| over all responses below {NEAR_ZERO:g}", label=label,
        value="below", margin=MARGIN, where=f"set == 'full' and {where}", role=role, unit=Unit("", 1, 3),
        better=f"gradients of two responses are nearly orthogonal ({label}): their mean |cosine| lies {{size}} below "
        f"{NEAR_ZERO:g}",
        worse=f"gradients of two responses are not nearly orthogonal ({label}): their mean |cosine| lies {{size}} "
        f"above {NEAR_ZERO:g}",
        same=f"the mean |cosine| of two responses' gradients is {NEAR_ZERO:g}, within {{margin}} ({label})", **_CELL,
    )  # fmt: skip


def _opposed(value: str, words: str, of: str, unit: str) -> Contrast:
    """Return the contrast on whether a mean over i ≠ j is negative."""
    which = "all" if of == "full" else of
    return Contrast(
        statement=f"the mean {words} is negative over {which} responses", label=f"{words}, {which} responses",
        value=value, where=f"set == '{of}'", margin=_SIGN, lower_is_better=True, role="robustness",
        unit=Unit(unit, 1, 3), better=f"over {which} responses the mean {words} is negative, {{size}} below 0",
        worse=f"over {which} responses the mean {words} is positive, {{size}} above 0",
        same=f"over {which} responses the mean {words} is 0, within {{margin}}", **_CELL,
    )  # fmt: skip


STATEMENTS: list[Contrast | Scan] = [
    Scan(
        claim="inner-product", value="total", by=_BY, tolerance=_ROUNDING, where="set == 'full'", identity=True,
        statement="E[c_ij] < 0 over all responses: the c_ij sum to zero, so their mean over i ≠ j is negative",
        label="sum of all c_ij", proof="inner-product",
        holds="over all responses the inner products sum to zero, so their mean over i ≠ j is negative for any policy",
        fails="there are policies whose inner products over all responses do not sum to zero",
    ),
    _near_zero(f"{PICTURED} responses", f"n == {PICTURED}", "primary"),
    _near_zero("other numbers of responses", f"n != {PICTURED}", "robustness"),
    _opposed("raw", "inner product", "observed", "times the mean squared length"),
    _opposed("cosine", "cosine", "full", ""),
    _opposed("cosine", "cosine", "observed", ""),
    *(_near_zero(words, f"n == {PICTURED} and family == '{family}'", "context") for family, words in FAMILIES.items()),
]  # fmt: skip

LEVELS = {"dirichlet": "α = {:g}", "gaussian": "width {:g} n", "one-hot": "peak {:g}", "trained": "{:g} steps of DPO"}


@dataclass(frozen=True, eq=False)
class Case:
    """Policies (S, X, n), the kernels ⟨∇z_i, ∇z_j⟩ of their logits, and the observed responses (S, X, m)."""

    p: np.ndarray
    kernel: np.ndarray | None
    observed: np.ndarray


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return two parts per family and kind of parameters, one of them for PICTURED responses; the longest first."""
    return [
        _part(settings, family, parameters, levels, sizes, 0, settings[seeds])
        for family, levels in reversed(settings["levels"].items())
        for parameters in reversed(settings["parameters"])
        for sizes, seeds in (
            ([PICTURED], "seeds"), ([n for n in settings["sizes"][family] if n != PICTURED], "other_seeds")
        ) if sizes
    ]  # fmt: skip


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the next block of seeds of each cell of PICTURED responses that is not yet precise enough."""
    means = frame[(frame["kind"] == "mean") & (frame["set"] == "full") & (frame["n"] == PICTURED)]
    design = Design(MARGIN, 1, settings["seeds"], settings["block"], settings["cap"])
    cell = ("family", "level", "parameters")
    asked = runs_to_add(means, [Endpoint("abs_cosine", "policy", None, cell, design)], cell)
    numbers = {LEVELS[family].format(level): level for family, levels in settings["levels"].items() for level in levels}
    return [
        _part(
            settings, row["family"], row["parameters"], [numbers[row["level"]]], [PICTURED], row["seeds"], row["more"]
        )
        for row in asked.to_dict("records")
    ]


def _part(
    settings: dict[str, Any], family: str, parameters: str, levels: list[float], sizes: list[int], before: int,
    seeds: int,
) -> dict[str, Any]:  # fmt: skip
    """Return a part with so many seeds, after those ``before``."""
    training = settings["training"]
    if parameters == "mlp":
        training = training.but(learning_rate=settings["network_learning_rate"])
    return {
        "family": family, "parameters": parameters, "levels": levels, "sizes": sizes, "training": training,
        "observed": settings["observed"], "first_seed": settings["first_seed"] + before, "seeds": seeds,
        "entries": sizes == [PICTURED] and before == 0,
    }  # fmt: skip


def run_part(
    family: str, parameters: str, levels: list[float], sizes: list[int], observed: float, first_seed: int, seeds: int,
    training: Training, entries: bool,
) -> pd.DataFrame:  # fmt: skip
    """Return a frame with two kinds of rows.

    ``mean``: one row per level, n, set of responses and seed, a mean over prompts. ``raw`` is the mean of c_ij over
    i ≠ j, divided by the mean of c_ii; ``cosine`` and ``abs_cosine`` are means of the cosines; ``total`` is
    |Σ c_ij| / Σ c_ii.
    ``entry``, only with ``entries``, of the first seed: the cosine of responses ``row`` and ``column``, and the
    probability ``prob`` of the column.
    """
    frames, drawn = [], seeds_from(first_seed, seeds)
    for n in sizes:
        if family == "trained":
            cases = _trained(parameters, [int(level) for level in levels], n, 1 - observed, drawn, training)
        else:
            cases = _drawn(family, parameters, levels, n, observed, drawn)
        for level, case in zip(levels, cases, strict=True):
            keys = {"family": family, "level": LEVELS[family].format(level), "n": n, "parameters": parameters}
            frames += [rows.assign(**keys) for rows in _rows(case, drawn, entries)]
    frame = pd.concat(frames, ignore_index=True).assign(method="policy")
    keys = ["kind", "method", *_BY, "set", "seed"]
    return frame[[*keys, *(name for name in frame if name not in keys)]]


def _drawn(family: str, parameters: str, levels: list[float], n: int, observed: float, seeds: range) -> Iterator[Case]:
    """Draw one policy per seed, for one prompt; the kernel and the observed responses do not depend on p."""
    key = list(LEVELS).index(family)
    kernel = _kernel(parameters, n, seeds)
    size = max(round(observed * n), 2)
    dealt = [stream(seed, Purpose.OBSERVED_RESPONSES, key, n).permutation(n) for seed in seeds]
    chosen = np.stack([np.sort(order[:size]) for order in dealt])
    for level in levels:
        p = np.stack([random_policy(family, n, level, stream(seed, Purpose.DRAWN_POLICY, key, n)) for seed in seeds])
        yield Case(p[:, None], kernel, chosen[:, None])


def _kernel(parameters: str, n: int, seeds: range) -> np.ndarray | None:
    """Return kernels of one prompt, (S or 1, 1, n, n); a network is at its random start, its prompt drawn from 20."""
    if parameters == "free":
        return None
    if parameters == "shared":
        features = RadialBasis().features(n).numpy()
        return (features @ features.T)[None, None]
    inputs = network_inputs(20, n)
    kernels = []
    for seed in seeds:
        prompt = int(stream(seed, Purpose.PROMPT).integers(20))
        kernels.append(gradient_kernels(initial_weights([seed]), inputs[prompt : prompt + 1]))
    return torch.cat(kernels).numpy()


def _trained(
    parameters: str, steps: list[int], n: int, mask_rate: float, seeds: range, training: Training
) -> Iterator[Case]:
    """Train DPO for some steps on the picture world; observed are the responses that the data cover."""
    worlds = [gaussian_world(responses=n, mask_rate=mask_rate, seed=seed) for seed in seeds]
    observed = np.stack([[np.flatnonzero(row) for row in world.observed] for world in worlds])
    if parameters == "mlp":
        found = train_network(
            worlds, DPO(), seeds=seeds, steps=steps, pairs=training.pairs,
            learning_rate=training.learning_rate,
        )  # fmt: skip
        inputs = network_inputs(worlds[0].prompts, n)
        for one in found:
            yield Case(one.logp.exp().numpy(), gradient_kernels(one.weights, inputs).numpy(), observed)
        return
    for step in steps:
        logp = np.stack([world.ref_logp for world in worlds])
        if step:
            recipe = training.but(policy=parameters, steps=step)
            logp = train("dpo", worlds, recipe, seeds=seeds).logp.numpy()
        yield Case(np.exp(logp), _kernel(parameters, n, seeds), observed)


def _rows(case: Case, drawn: range, entries: bool) -> list[pd.DataFrame]:
    """Return the rows of one case, without its keys, of these seeds."""
    products, cosines = gradient_inner_products(case.p, case.kernel), gradient_cosines(case.p, case.kernel)
    seeds, n = np.asarray(drawn), case.p.shape[-1]
    everything = np.broadcast_to(np.arange(n), case.p.shape)
    frames = []
    for name, chosen in (("full", everything), ("observed", case.observed)):
        inner, angles = _subset(products, chosen), _subset(cosines, chosen)
        trace = np.trace(inner, axis1=-2, axis2=-1)
        values = {
            "raw": mean_off_diagonal(inner) / (trace / inner.shape[-1]), "cosine": mean_off_diagonal(angles),
            "abs_cosine": mean_off_diagonal(np.abs(angles)), "total": np.abs(inner.sum((-2, -1))) / trace,
        }  # fmt: skip
        means = {key: value.mean(1) for key, value in values.items()}
        frames.append(pd.DataFrame({"kind": "mean", "set": name, "seed": seeds, **means}))
    if entries:
        prompt = case.p.shape[1] // 2
        row, column = np.indices((n, n)).reshape(2, -1)
        frames.append(pd.DataFrame({
            "kind": "entry", "set": "full", "seed": drawn[0], "cosine": cosines[0, prompt].ravel(), "row": row,
            "column": column, "prob": case.p[0, prompt][column],
        }))  # fmt: skip
    return frames


def _subset(matrix: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return rows and columns ``chosen`` (S, X, m) of (S, X, n, n): (S, X, m, m)."""
    rows = np.take_along_axis(matrix, chosen[..., :, None], -2)
    return np.take_along_axis(rows, chosen[..., None, :], -1)


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge in every family, size and kind of parameters: is the mean negative, are gradients nearly orthogonal?

    Judged are the rows whose ``kind`` is "mean". Of the c_ij of a prompt, ``raw`` is the mean over i ≠ j divided by the
    mean of c_ii, ``cosine`` the mean over i ≠ j of c_ij/√(c_ii c_jj), and abs_cosine that of its size; ``total`` is
    |Σ c_ij|/Σ c_ii, over all i and j. All of them are means over prompts. ``below`` is the claim's threshold minus
    abs_cosine.
    """
    means = frame[frame["kind"] == "mean"]
    levels = {"family": settings["levels"], "parameters": settings["parameters"], "set": ("full", "observed")}
    return judged(means.assign(below=NEAR_ZERO - means["abs_cosine"]), STATEMENTS, levels)


CAPTIONS = {
    "inner-products": (
        "Cosines of ∇π(i) and ∇π(j) for the responses of one prompt (n = 20, the first seed). Columns: policies, drawn "
        "above each matrix as bars, each on its own scale; rows: free logits, shared parameters (eight bumps), a small "
        "network. Grey is orthogonal; dark gradients oppose each other, light gradients agree. A light band beside the "
        "diagonal: neighbours move together. A dark cross: all other responses oppose the most probable one, and so "
        "agree among themselves. Below each: the mean over i ≠ j. It has no fixed sign, although the inner products "
        "sum to zero in every one of these matrices."
    ),
    "inner-products-families": (
        "Means over i ≠ j of n = 20 responses by family, level and kind of parameters: mean over 24 seeds or more with "
        "95% t intervals. Inner products are divided by the mean of c_ii. The first panel is algebra: over all "
        "responses it is −1/(n − 1), the dotted line, for every policy, and says nothing about a model. Over observed "
        "responses (for trained policies those that the data cover, else 60% at random) it varies, and turns positive "
        "where a policy's peak is not among them; each subset is divided by the mean c_ii of that subset. The cosine "
        "weights all pairs equally. Right of 0, gradients agree on average; left of it, they oppose each other."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the matrices of a few policies, and the means of all families at one n."""
    entries = frame[frame["kind"] == "entry"]
    entries = entries.assign(policy=_names(entries))
    first, *_, last = [name for name in entries["policy"].unique() if name.startswith("trained")]
    drawn = ("Gaussian, width 0.15 $n$", "one-hot, peak 0.9")
    chosen = {first: "uniform", **dict(zip(drawn, drawn, strict=True)), last: last.removeprefix("trained, ")}
    return {
        "inner-products": plotting.matrices(entries, chosen),
        "inner-products-families": plotting.family_means(*_by_family(frame), (-1 / (PICTURED - 1), "$-1/(n-1)$")),
    }


def _names(frame: pd.DataFrame) -> pd.Series:
    """Return family and level in words."""
    family = frame["family"].replace({"dirichlet": "Dirichlet", "gaussian": "Gaussian"})
    return family + ", " + frame["level"].str.replace(" n", " $n$")


def _by_family(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Return the second drawing's frame, one row per seed at n = PICTURED, its panels, and its lines from the top."""
    means = frame[(frame["kind"] == "mean") & (frame["n"] == PICTURED)]
    means = means.assign(line=_names(means))
    wide = means.pivot(index=["family", "line", "parameters", "seed"], columns="set", values=["raw", "cosine"])
    wide.columns = [f"{value} {name}" for value, name in wide.columns]
    panels = {
        "raw full": "inner product,\nall responses", "raw observed": "inner product,\nobserved responses",
        "cosine full": "cosine,\nall responses", "cosine observed": "cosine,\nobserved responses",
    }  # fmt: skip
    lines = [line for family in LEVELS for line in means.loc[means["family"] == family, "line"].unique()]
    return wide.reset_index(), panels, lines


EXPERIMENT = Experiment(
    name="inner-products",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
    more=more,
)
