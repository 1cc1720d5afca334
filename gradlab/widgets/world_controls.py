"""Common parts of the explorers that train: the controls of a world and its data, and the metrics they draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import torch
from ipywidgets import Dropdown

from gradlab.lab import metrics
from gradlab.lab.policy import POLICIES
from gradlab.lab.training import FIELDS, Training
from gradlab.lab.world import MaskKind, Reference, Utility, World, gaussian_world
from gradlab.widgets.controls import Controls, choice, slider, whole_slider

WORLD = ("utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "seed")
TOPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # ends of an axis of probabilities
EXACT = "exact"


def world_controls(pairs: str | int = EXACT) -> Controls:
    """Return controls for the arguments of ``gaussian_world``, and ``pairs``, the number of pairs of a training."""
    return {
        "utility": choice("utility u", "gaussian", get_args(Utility), "how good each response truly is"),
        "sigma": slider("width σ", 3.0, 0.5, 10.0, 0.25, "width of the utility's peak, in responses"),
        "scale": slider("height R", 4.0, 0.25, 12.0, 0.25, "log-odds by which the best beats a bad response"),
        "mask_rate": slider("mask rate", 0.0, 0.0, 0.8, 0.05, "share hidden from the data"),
        "mask_kind": choice("mask hides", "responses", get_args(MaskKind), "whole responses, or single pairs"),
        "reference": choice("reference", "uniform", get_args(Reference), "where training starts"),
        "shift": slider("its shift", 6.0, 0.0, 15.0, 0.5, "distance from the best response, in responses"),
        "seed": whole_slider("seed", 0, 0, 99, "draws world and data"),
        "pairs": choice("data", pairs, [EXACT, 20, 100, 500], "all pairs, or so many drawn per prompt"),
    }


def policy_control() -> Dropdown:
    """Return the menu of policies."""
    return choice("parameters", "free", list(POLICIES), "free: one logit per response; shared: 8 bumps")


def adapt_world(controls: Controls) -> None:
    """Show the shift only for a shifted reference."""
    controls["shift"].layout.display = None if controls["reference"].value == "shifted" else "none"


def arguments_of(state: SimpleNamespace) -> dict[str, Any]:
    """Return the arguments of ``gaussian_world``."""
    return {key: getattr(state, key) for key in WORLD}


def world_of(state: SimpleNamespace) -> World:
    """Return the world that the controls are set to."""
    return gaussian_world(**arguments_of(state))


def world_code(state: SimpleNamespace) -> str:
    """Return that world as Python code."""
    return "gl.gaussian_world(" + ", ".join(f"{key}={value!r}" for key, value in arguments_of(state).items()) + ")"


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
