"""The controls of a world and its data, for the explorer that is not yet drawn by the page."""

from __future__ import annotations

from typing import get_args

from ipywidgets import Dropdown

from gradlab.lab.policy import POLICIES
from gradlab.lab.world import MaskKind, Reference, Utility
from gradlab.widgets.controls import Controls, choice, slider, whole_slider
from gradlab.widgets.drawn_world import (
    EXACT,
    arguments_of,
    curves_of,
    recipe_code,
    recipe_of,
    top_of,
    world_code,
    world_of,
)

__all__ = [
    "EXACT", "adapt_world", "arguments_of", "curves_of", "policy_control", "recipe_code", "recipe_of", "top_of",
    "world_code", "world_controls", "world_of",
]  # fmt: skip


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
