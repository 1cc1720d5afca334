"""Train and measure at scale: sequences of many tokens by chains, and prompts of many responses in the lab."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.experiments.methods import loss_of, seeds_from
from gradlab.lab.chains import Chain, ChainWorld, chain_world, fit_chains
from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import LogisticLoss, PairLogps, balanced_weights, slopes
from gradlab.theory import bdpo_share_corrected, explained_by_length, weight_spread

HALF = "fixed λ=0.5"  # DPO at β/2
LENGTH = "length-dpo"
TO = {"to_half": HALF, "to_full": "dpo", "to_length": LENGTH}  # the columns of distances, and the method each is from
MOST_GROUPS = 200  # of responses alike; more responses than that share utilities


@dataclass(frozen=True)
class OfGroups(LogisticLoss):
    """A loss of responses in groups of ``copies`` that are all alike: log π of one is log π of its group − log copies.

    With free logits, exact pairs and a reference that does not tell them apart, alike responses have equal
    probabilities at every step: their gradients are equal, and pairs of two of them have none. So a prompt of n
    responses is trained as one of n/copies groups. A response's gradient is its group's divided by copies, which Adam
    does not see, but for its ε.
    """

    inner: LogisticLoss
    copies: int

    name = "of-groups"
    equation = "the inner loss at log π − log(copies)"
    source = "ours"
    antisymmetric = True

    def margin(self, logps: PairLogps) -> Tensor:
        """Return the inner loss's margin of two single responses."""
        each = math.log(self.copies)
        return self.inner.margin(PairLogps(
            logps.win - each, logps.lose - each, logps.ref_win - each, logps.ref_lose - each
        ))  # fmt: skip


def chain_rows(
    length: float, variation: float, length_utility: float, vocabulary: int, methods: Sequence[str], first_seed: int,
    seeds: int, pairs: int, steps: int, learning_rate: float,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per seed and method of sequences of one kind; the method "reference" has not been trained."""
    numbers = seeds_from(first_seed, seeds)
    worlds = [
        chain_world(length, variation, vocabulary=vocabulary, length_utility=length_utility, pairs=pairs, seed=seed)
        for seed in numbers
    ]
    ends = {"reference": [world.reference for world in worlds]}
    for method in methods:
        ends[method] = fit_chains(worlds, loss_of(method), steps=steps, learning_rate=learning_rate)
    keys = {"kind": "sequences", "length": length, "variation": variation, "length_utility": length_utility,
            "vocabulary": vocabulary, "responses": 0}  # fmt: skip
    rows = []
    for at, (seed, world) in enumerate(zip(numbers, worlds, strict=True)):
        own = {method: chains[at] for method, chains in ends.items()}
        rows += [{**keys, "method": method, "seed": seed, **numbers} for method, numbers in _of_chains(world, own)]
    return pd.DataFrame(rows)


def response_rows(responses: int, methods: Sequence[str], first_seed: int, seeds: int, **recipe: Any) -> pd.DataFrame:
    """Return one row per seed and method of one prompt with so many responses of one token; utilities of one shape.

    More than ``MOST_GROUPS`` responses are so many groups of responses that are alike, see ``OfGroups``.
    """
    numbers = seeds_from(first_seed, seeds)
    groups = min(responses, MOST_GROUPS)
    copies = responses // groups
    worlds = [gaussian_world(1, groups, utility="gaussian-random", sigma=0.15 * groups, seed=seed) for seed in numbers]
    ends = {"reference": np.stack([world.ref_logp[0] for world in worlds])}
    for method in methods:
        loss = loss_of(method)
        assert isinstance(loss, LogisticLoss)
        loss = OfGroups(loss, copies) if copies > 1 else loss
        ends[method] = fit(worlds, loss, Training(record=1, **recipe), seed=list(numbers)).logp[:, 0].numpy()
    keys = {"kind": "responses", "length": 1.0, "variation": 0.0, "length_utility": 0.0, "vocabulary": 0,
            "responses": groups * copies}  # fmt: skip
    rows = []
    for at, (seed, world) in enumerate(zip(numbers, worlds, strict=True)):
        own = {method: policies[at] for method, policies in ends.items()}
        found = _of_responses(world, own, math.log(copies))
        rows += [{**keys, "method": method, "seed": seed, **numbers} for method, numbers in found]
    return pd.DataFrame(rows)


def _of_chains(world: ChainWorld, ends: dict[str, Chain]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the numbers of each method in one world of sequences."""
    reference, at_half = world.reference, world.pairs(ends.get(HALF, world.reference))
    mean, spread = reference.surprisal()
    for method, chain in ends.items():
        logps = world.pairs(chain)
        yield method, {
            "length_cv": reference.length_variation, "surprisal": mean, "surprisal_sd": spread,
            **_laws(mean, spread, reference.mean_length, reference.length_variation),
            **_of_weights(logps), **_slope_gap(method, at_half, np.ones(len(world.win))),
            **_distances(ends, method), "variation_distance": np.nan,
            "gain": world.gain(chain), "kl": chain.kl(reference),
        }  # fmt: skip


def _of_responses(
    world: World, ends: dict[str, np.ndarray], each: float
) -> Iterator[tuple[str, dict[str, float]]]:  # fmt: skip
    """Yield the numbers of each method in one world of groups; a response's log π is its group's less ``each``."""
    win, lose = (side.ravel() for side in np.indices((world.responses, world.responses)))
    win, lose = win[win != lose], lose[win != lose]
    wins = 1 / (1 + np.exp(world.utility[0, lose] - world.utility[0, win]))

    def pairs(logp: np.ndarray) -> PairLogps:
        sides = (logp[win], logp[lose], world.ref_logp[0, win], world.ref_logp[0, lose])
        return PairLogps(*(torch.from_numpy(side - each) for side in sides))

    reference, half = ends["reference"], ends[HALF]
    for method, logp in ends.items():
        mean, spread = each - logp.mean(), logp.std()
        yield method, {
            "length_cv": 0.0, "surprisal": mean, "surprisal_sd": spread, **_laws(mean, spread),
            **_of_weights(pairs(logp)), **_slope_gap(method, pairs(half), wins), **_distances(ends, method),
            "variation_distance": float(np.abs(np.exp(logp) - np.exp(half)).sum() / 2),
            "gain": float((np.exp(logp) - np.exp(reference)) @ world.utility[0]), "kl": _kl(logp, reference),
        }  # fmt: skip


def _laws(mean: float, spread: float, length: float = 1.0, variation: float = 0.0) -> dict[str, float]:
    """Return what the laws of ``gradlab.theory.sequences`` say of ``weight_sd`` and ``explained``."""
    return {
        "weight_sd_law": float(weight_spread(mean, spread, length)),
        "explained_law": float(explained_by_length(mean, spread, length, variation)),
    }


def _of_weights(logps: PairLogps) -> dict[str, float]:
    """Return of bDPO's weights on pairs: their spread, R² on the loser's share of tokens, the share corrected.

    The spread about ½ is the root of the mean of (λ_w − ½)², which does not depend on which side has won.
    """
    weight = balanced_weights(logps.win, logps.lose)[0].numpy()
    explained = 0.0
    if logps.win_len is not None and logps.lose_len is not None:
        share = (logps.lose_len / (logps.win_len + logps.lose_len)).numpy()
        if min(np.ptp(share), np.ptp(weight)) > 0:
            explained = float(np.corrcoef(share, weight)[0, 1] ** 2)
    return {
        "weight_sd": float(np.sqrt(np.mean((weight - 0.5) ** 2))), "explained": explained,
        "corrected": float(np.median(bdpo_share_corrected(logps.win.numpy(), logps.lose.numpy()))),
    }  # fmt: skip


def _slope_gap(method: str, logps: PairLogps, weights: np.ndarray) -> dict[str, float]:
    """Return the root mean square difference of a loss's slopes from those of DPO at β/2, in units of the latter's.

    Both at the policy of DPO at β/2, on both sides of all pairs, each pair with its weight.
    """
    if method == "reference" or (method == LENGTH and logps.win_len is None):
        return {"slope_gap": np.nan}
    one, other = (torch.stack(slopes(loss_of(name), logps)).numpy() for name in (method, HALF))
    return {"slope_gap": float(np.sqrt((weights * (one - other) ** 2).sum() / (weights * other**2).sum()))}


def _distances(ends: dict[str, Any], method: str) -> dict[str, float]:
    """Return how far a policy is from those of three methods: √(KL(theirs‖it)/KL(theirs‖π_ref))."""
    return {
        name: float(np.sqrt(_kl(ends[target], ends[method]) / _kl(ends[target], ends["reference"])))
        if target in ends and method != "reference"
        else np.nan
        for name, target in TO.items()
    }


def _kl(one: Any, other: Any) -> float:
    """Return KL(one‖other) of two chains, or of two tables of log π, (n,)."""
    if isinstance(one, Chain):
        return one.kl(other)
    return max(0.0, float(np.exp(one) @ (one - other)))
