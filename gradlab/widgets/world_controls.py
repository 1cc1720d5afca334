"""Parts of the explorers that train: the controls of a world, its data and the recipe, and the metrics they draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import torch

from gradlab.lab import metrics
from gradlab.lab.policy import POLICIES
from gradlab.lab.training import FIELDS, Training
from gradlab.lab.world import MaskKind, Reference, Utility, World, gaussian_world
from gradlab.widgets.controls import Choice, Controls, Whole, log_slider, slider

WORLD = ("prompts", "responses", "utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "seed")
TOPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # ends of an axis of probabilities
EXACT = "exact"


def shape_controls() -> Controls:
    """Return the controls of a world's utility and mask that are seen first."""
    return {
        "scale": slider("height R", 4.0, 0.25, 12.0, "log-odds by which the best beats a bad response"),
        "sigma": slider("width σ", 3.0, 0.5, 10.0, "width of the utility's peak, in responses"),
        "mask_rate": slider("mask rate", 0.0, 0.0, 0.8, "share hidden from the data"),
    }


def kind_controls() -> Controls:
    """Return the menus of a world, and the distance of a shifted reference."""
    return {
        "utility": Choice("utility u", "gaussian", get_args(Utility), "how good each response truly is"),
        "mask_kind": Choice("mask hides", "responses", get_args(MaskKind), "whole responses, or single pairs"),
        "reference": Choice("reference", "uniform", get_args(Reference), "where training starts"),
        "shift": slider("its shift", 6.0, 0.0, 15.0, "distance from the best response, in responses"),
    }


def seed_control() -> Whole:
    """Return the control of the seed."""
    return Whole("seed", 0, 0, 99, "draws world and data")


def pairs_control(pairs: str | int = EXACT) -> Choice:
    """Return the menu of data: all pairs, or so many per prompt."""
    sizes = {"all, exact": EXACT, **{f"{size} per prompt": size for size in (20, 100, 500)}}
    return Choice("pairs", pairs, sizes, "all pairs, or so many drawn per prompt")


def recipe_controls() -> Controls:
    """Return the controls of parameters, optimiser and steps."""
    return {
        "policy": Choice("parameters", "free", list(POLICIES), "free: one logit per response; shared: 8 bumps"),
        "optimizer": Choice("optimiser", "adam", {"Adam": "adam", "gd": "gd"}, "gd: plain gradient descent"),
        "learning_rate": log_slider("learning rate", 0.05, -3, 1, "step size of the optimiser"),
        "steps": Whole("steps", 500, 10, 2000, "of the optimiser"),
    }


def adapt_world(controls: Controls) -> None:
    """Hide the shift unless the reference is shifted."""
    controls["shift"].hidden = controls["reference"].value != "shifted"


def arguments_of(state: SimpleNamespace) -> dict[str, Any]:
    """Return the arguments of ``gaussian_world`` that have a control."""
    return {key: getattr(state, key) for key in WORLD if hasattr(state, key)}


def world_of(state: SimpleNamespace) -> World:
    """Return the world that the controls are set to."""
    return gaussian_world(**arguments_of(state))


def world_code(state: SimpleNamespace, **changes: str) -> str:
    """Return that world as Python code; ``changes`` are arguments as code."""
    given = {**{key: repr(value) for key, value in arguments_of(state).items()}, **changes}
    return "gl.gaussian_world(" + ", ".join(f"{key}={value}" for key, value in given.items()) + ")"


def pairs_of(state: SimpleNamespace) -> int | None:
    """Return ``pairs`` as ``fit`` takes it."""
    return None if state.pairs == EXACT else state.pairs


def recipe_of(state: SimpleNamespace, **fixed: Any) -> Training:
    """Return the recipe that the controls are set to; ``fixed`` are fields that have no control."""
    return Training(**{**_recipe(state), **fixed})


def recipe_code(state: SimpleNamespace, **fixed: Any) -> str:
    """Return that recipe as Python code."""
    given = ", ".join(f"{name}={value!r}" for name, value in {**_recipe(state), **fixed}.items())
    return f"gl.Training({given})"


def _recipe(state: SimpleNamespace) -> dict[str, Any]:
    """Return the fields of ``Training`` that have a control."""
    there = {name: getattr(state, name) for name in FIELDS if hasattr(state, name)}
    return {**there, "pairs": pairs_of(state)}


def curves_of(world: World, logp: torch.Tensor) -> dict[str, np.ndarray]:
    """Return expected utility, KL from the reference (nats) and unobserved mass of policies (..., X, Y), each (...)."""
    utility, observed, ref_logp = (
        torch.as_tensor(values.copy()) for values in (world.utility, world.observed, world.ref_logp)
    )
    values = {
        "utility": metrics.expected_utility(logp, utility),
        "kl": metrics.kl_to_reference(logp, ref_logp),
        "unobserved_mass": metrics.unobserved_mass(logp, observed),
    }
    return {name: value.numpy() for name, value in values.items()}


def top_of(highest: float) -> float:
    """Return the least end of an axis of probabilities that has room for this value."""
    return next((top for top in TOPS if highest <= top * (1 + 1e-9)), TOPS[-1])
