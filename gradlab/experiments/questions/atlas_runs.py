"""The runs of the atlas: every registered loss trained in the lab, as published, over β, and one factor at a time.

A *method* is a loss with its hyper-parameters: each registered loss as its source publishes it, and the variants that a
claim needs (``VARIANTS``). It is trained

- in four cells (a uniform or a shifted reference, free logits or shared parameters), as published and over the grid of
  β, which gives its frontier;
- at its *matched* β, which on the grid brings it nearest to KL = ``MATCHED`` nats from a uniform reference with free
  logits, where one factor at a time is then varied. The choice sees distances, never rewards.

Under Adam the scale of a loss does not matter, so one learning rate serves all. Everything here is ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.atlas.endpoints import NUMBERS, ended, trained_paths
from gradlab.checks import between, keep_plain
from gradlab.experiments.questions.frontier import at_levels
from gradlab.lab.descent import steady
from gradlab.lab.training import Training
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, named_loss

VERSION = 1  # of the numbers: raise it by hand when a change of any source changes them
MATCHED = 1.0  # nats
STRENGTHS = ("beta", "odds_weight", "gamma")  # what stands for β: λ of ORPO, and δ of SLiC, which has no β
VALUES = ["utility_share", "unobserved_mass", "win_logp_change", "lose_logp_change", "rest_logp_change"]
ENDPOINTS = [*NUMBERS]
KEYS = ["loss", "preset", "beta", "factor", "level", "reference", "policy", "seed"]
BASE = ("uniform", "free")

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=15)
SETTINGS: dict[str, Any] = {
    "betas": [0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
    "cells": [["uniform", "free"], ["shifted", "free"], ["uniform", "shared"], ["shifted", "shared"]],
    "world": {"mask_rate": 0.2, "scale": 4.0, "sigma": 3.0, "shift": 6.0},
    "factors": {
        "mask": [0.0, 0.4],
        "scale": [1.0, 2.0, 8.0],
        "pairs": [25.0, 400.0],
        "noise": [0.1, 0.2, 0.3],
        "shift": [3.0, 6.0],
        "lengths": [10.0, 100.0],
        "spread": [0.5, 1.0],
    },
    "training": TRAINING,
    "first_seed": 2000,
    "seeds": 16,
    "batch_seeds": 4,  # of losses of batches, which train eager, in the cell BASE alone and without factors
}
QUICK: dict[str, Any] = {
    "betas": [0.1, 0.5, 1.0, 10.0],
    "cells": [["uniform", "free"]],
    "factors": {"mask": [0.4], "noise": [0.2], "spread": [1.0]},
    "training": TRAINING.but(steps=100),
    "first_seed": 0,
    "seeds": 4,
    "batch_seeds": 2,
}
SPREAD_AT = 10.0  # tokens: the mean length at which the spread of lengths is varied
OF_LENGTHS = ("lengths", "spread")  # factors that only losses with lengths see


@dataclass(frozen=True)
class Method:
    """A loss with its hyper-parameters. ``preset`` is "published", or the name of a variant."""

    loss: str
    preset: str
    hyper: Mapping[str, float]

    @property
    def name(self) -> str:
        """Return the loss's name, and the variant's behind it."""
        return self.loss if self.preset == "published" else f"{self.loss} {self.preset}"

    def make(self, beta: float | None = None) -> Any:
        """Return the loss, at another β where one is given."""
        changed = {} if beta is None or self.strength is None else {self.strength: beta}
        return named_loss(self.loss, **{**self.hyper, **changed})

    def beta_of(self, loss: Any) -> float:
        """Return what stands for β of such a loss; NaN where nothing does."""
        return float(getattr(loss, self.strength)) if self.strength else np.nan

    @property
    def strength(self) -> str | None:
        """Return the name of the hyper-parameter that stands for β: the first of ``STRENGTHS`` that the loss has."""
        loss: Any = named_loss(self.loss)
        there = {field.name for field in dataclasses.fields(loss)}
        return next(filter(there.__contains__, STRENGTHS), None)

    @property
    def is_of_pairs(self) -> bool:
        """Return whether each pair has a loss by itself."""
        return self.loss in PAIR_LOSSES

    def arguments(self) -> dict[str, Any]:
        """Return the method as plain data, for another process."""
        return {"loss": self.loss, "preset": self.preset, "hyper": dict(self.hyper)}


# What a claim needs beside the published ones: without the β, which the grid sets.
VARIANTS: dict[tuple[str, str], dict[str, float]] = {("ada-dpo", "unclipped"): {"clip": 1e9}}


def methods() -> list[Method]:
    """Return every registered loss as published, and the variants of registered losses."""
    every = [*PAIR_LOSSES, *BATCH_LOSSES]
    published = [Method(name, "published", _published(name)) for name in every]
    return published + [Method(loss, preset, hyper) for (loss, preset), hyper in VARIANTS.items() if loss in every]


def _published(name: str) -> dict[str, float]:
    """Return the hyper-parameters as the loss's source has them, where they differ from the class's defaults."""
    loss: Any = named_loss(name)
    values = {field.name: getattr(loss, field.name) for field in dataclasses.fields(loss)}
    return {key: value for key, value in loss.published.items() if key in values and values[key] != value}


@dataclass(frozen=True, eq=False)
class MislabelledWorld(World):
    """A world whose labels are wrong with a probability ``flipped``, besides the noise of Bradley–Terry (ours)."""

    flipped: float = 0.0

    def __post_init__(self) -> None:
        keep_plain(self, flipped=between("flipped", self.flipped, 0, 0.5))
        super().__post_init__()

    def preference(self) -> np.ndarray:
        """Return the probability that i is labelled as better than j, (X, Y, Y)."""
        return (1 - 2 * self.flipped) * super().preference() + self.flipped


def grid(loss: str, preset: str, hyper: Mapping[str, float], reference: str, policy: str, **settings: Any) -> Any:
    """Return the rows of a method in one cell, as published and over β: ends of training, then KL levels.

    Rows of both kinds are in one frame; ``kl`` and ``how`` are those of a level, and empty for an end. Of ends,
    ``factor`` is "base" as published and "beta" on the grid in the cell ``BASE``, and "cell" in the others.
    """
    method, training = Method(loss, preset, hyper), settings["training"].but(policy=policy)
    world = {**settings["world"], "reference": reference}
    ends, paths = [], []
    betas: list[float | None] = [None, *(settings["betas"] if method.strength else [])]
    for beta in betas:
        trained = method.make(beta)
        kind = ("published", "base") if beta is None else ("grid", "beta")
        named = {
            "loss": loss, "preset": kind[0] if preset == "published" else preset, "beta": method.beta_of(trained),
            "factor": kind[1] if (reference, policy) == BASE else "cell", "reference": reference, "policy": policy,
        }  # fmt: skip
        rows = measured(trained, world, training, settings["first_seed"], settings["seeds"])
        ends.append(ended(rows).assign(**named, level=named["beta"]))
        if beta is not None or not method.strength:
            paths.append(rows.assign(beta=named["beta"]))
    levels = _levels(pd.concat(paths)).assign(loss=loss, preset=preset, reference=reference, policy=policy)
    return pd.concat([*ends, levels], ignore_index=True)


def factors(loss: str, preset: str, hyper: Mapping[str, float], beta: float | None, **settings: Any) -> pd.DataFrame:
    """Return the rows of a method at one β, and with one factor at a time varied: ends of training."""
    method, base, found = Method(loss, preset, hyper), settings["world"], []
    trained = method.make(beta)
    for factor, level in _factors(settings["factors"], trained.needs_lengths, method.beta_of(trained)):
        world, training = dict(base), settings["training"]
        if factor == "mask":
            world["mask_rate"] = level
        elif factor == "shift":
            world |= {"reference": "shifted", "shift": level}
        elif factor == "lengths":
            world["length"] = level
        elif factor == "spread":
            world |= {"length": SPREAD_AT, "length_spread": level}
        elif factor == "pairs":
            training = training.but(pairs=int(level))
        elif factor != "base":
            world[{"noise": "flipped"}.get(factor, factor)] = level
        rows = ended(measured(trained, world, training, settings["first_seed"], settings["seeds"]))
        named = {"loss": loss, "preset": "", "beta": method.beta_of(trained), "factor": factor, "level": level}
        reference = "shifted" if factor == "shift" else BASE[0]
        found.append(rows.assign(**named, reference=reference, policy=BASE[1]))
    return pd.concat(found, ignore_index=True)


def _factors(levels: Mapping[str, Sequence[float]], lengths: bool, beta: float) -> list[tuple[str, float]]:
    every = [(name, level) for name, values in levels.items() for level in values if lengths or name not in OF_LENGTHS]
    return [("base", beta), *every]


@steady("cpu")
def measured(loss: Any, world: Mapping[str, Any], training: Training, first_seed: int, seeds: int) -> pd.DataFrame:
    """Return the endpoints along the trainings of one loss, a row per seed and recorded step.

    world  the arguments of ``gaussian_world``, and ``flipped``. A run whose policy stops being finite has only NaN.
    """
    numbers = list(range(first_seed, first_seed + seeds))
    worlds = [_world(seed=seed, **world) for seed in numbers]
    return trained_paths(loss, worlds, training, numbers)


def _world(seed: int, flipped: float = 0.0, **given: Any) -> World:
    world = gaussian_world(seed=seed, **given)
    return MislabelledWorld(**vars(world), flipped=flipped) if flipped else world


def _levels(paths: pd.DataFrame) -> pd.DataFrame:
    """Return a method's values at the KL levels: β and checkpoints pooled, and from the ends of training alone."""
    rows = paths.dropna(subset=ENDPOINTS).rename(columns={"kl_to_reference": "kl"}).fillna({"beta": 0.0})
    found = []
    for how in ("pooled", "ends"):
        if how == "pooled":
            keys, ordered = ["seed", "beta"], rows.sort_values(["seed", "beta", "step"])
        else:
            ends = rows[rows["step"] == rows["step"].max()]
            keys, ordered = ["seed"], ends.sort_values(["seed", "beta"], ascending=[True, False])
        if len(ordered):
            levels = at_levels(ordered, keys, VALUES).groupby(["seed", "kl"], as_index=False)[VALUES].mean()
            found.append(levels.assign(how=how))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=["seed", "kl", "how", *VALUES])
