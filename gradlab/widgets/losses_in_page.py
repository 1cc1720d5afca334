"""Losses as a page knows them: facts for menus, and kernels as WebAssembly, made when they are asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from gradlab.checks import between, one_of, shown
from gradlab.lab.engine.webassembly import refusal, slopes_kernel, training_kernel
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.policy import POLICIES
from gradlab.lab.training import Training
from gradlab.losses import PAIR_LOSSES, PairLoss, family_of, pair_loss
from gradlab.losses.registry import numbers_of
from gradlab.widgets.controls import NO_LOSSES, Losses, Stops, fields_of, loss_names, with_numbers

SLOPES = "slopes"  # the kernel of ∂L/∂log π of pairs; others are named by what trains: "free adam"


def facts_of_losses(given: Losses = NO_LOSSES) -> list[dict[str, Any]]:
    """Return the facts of every registered loss and of those that were given, in the order of menus."""
    others = (loss for name, loss in given.items() if name not in PAIR_LOSSES)
    return [facts_of(loss) for loss in (*(make() for make in PAIR_LOSSES.values()), *others)]


def facts_of(loss: PairLoss) -> dict[str, Any]:
    """Return what a page says of a loss; ``reason`` says why the engine cannot compile it, "" if it can."""
    # gradlab's losses depend on their fields alone. For other losses nobody knows: a global may have changed.
    ours = type(loss).__module__.startswith("gradlab.losses.")
    return dict(_kept_facts(loss)) if ours else _facts(loss)


def _facts(loss: PairLoss) -> dict[str, Any]:
    return {
        "name": loss.name, "label": getattr(loss, "label", loss.name), "title": _title(loss),
        "equation": loss.equation, "source": loss.source, "family": family_of(loss),
        "hyper": _movable(loss), "stops": _stops(loss), "reason": refusal(loss), "atlas": stated(loss),
    }  # fmt: skip


def stated(loss: PairLoss) -> dict[str, str]:
    """Return what a loss states of itself, as a page's table says it; "" for what it does not state."""
    start = getattr(loss, "start_value", None)
    below, above = getattr(loss, "bounded_below", None), getattr(loss, "bounded_above", None)
    bounded = {(True, True): "below and above", (True, False): "below", (False, True): "above", (False, False): "no"}
    return {
        "rho": getattr(loss, "rho", ""),
        "start": getattr(loss, "start_equation", "") or ("" if start is None else f"{start:.6g}"),
        "optimum": getattr(loss, "optimum", ""), "bounded": bounded.get((below, above), ""),  # type: ignore[arg-type]
        "convention": getattr(loss, "convention", ""),
    }  # fmt: skip


_kept_facts = functools.lru_cache(maxsize=256)(_facts)  # every menu asks for those of all losses


def kernel_of(loss: PairLoss, what: str) -> dict[str, Any]:
    """Return the record of a loss's kernel, general where laws of its hyper-parameters are found.

    what  ``SLOPES``, or a policy and an optimizer such as "shared gd". NotFusable for a loss that cannot be compiled.
    """
    if what == SLOPES:
        return slopes_kernel(loss, general=True).record()
    policy, optimizer = what.split()
    return training_kernel(loss, Training(policy=policy, optimizer=optimizer, dtype="float32"), general=True).record()


def asked_kernel(message: Mapping[str, Any], given: Losses = NO_LOSSES) -> dict[str, Any]:
    """Return the kernel that a page asks for by a loss's name, its hyper-parameters and what it does.

    given  losses by name that the registry does not have. ValueError or NotFusable, in one line, for what is not there.
    """
    name = one_of("loss", message.get("loss"), loss_names(given))
    what = one_of(
        "kernel", message.get("what"), [SLOPES, *(f"{one} {other}" for one in POLICIES for other in OPTIMIZERS)]
    )
    sent = message.get("hyper") or {}
    if not isinstance(sent, Mapping):
        raise ValueError(f"hyper must be numbers by name, got {shown(sent)}")
    known = fields_of(name, given)
    # The page writes 1.0 as 1.
    hyper = {one_of("hyper", key, known): between(str(key), value, -math.inf) for key, value in sent.items()}
    loss = pair_loss(name, **hyper) if name in PAIR_LOSSES else with_numbers(given[name], hyper)
    return kernel_of(loss, what)


def _title(loss: PairLoss) -> str:
    """Return a loss's label, with "{name}" for each hyper-parameter whose number is in it."""
    label = title = getattr(loss, "label", loss.name)
    for name, value in _movable(loss).items():
        other = value * 0.75
        try:
            moved = getattr(with_numbers(loss, {name: other}), "label", label)
        except Exception:  # a loss of one's own may refuse it in any way
            continue
        if moved != label and moved.replace(f"{other:g}", f"{value:g}") == label:
            title = title.replace(f"{value:g}", f"{{{name}}}")
    return title


def _stops(loss: PairLoss) -> dict[str, list[Any]]:
    """Return the ends and the scale of each movable hyper-parameter's track; null is no end."""
    sliders = {field.name: field.metadata.get("slider") for field in fields(loss)} if is_dataclass(loss) else {}
    stops = {name: Stops.of(sliders[name]) for name in _movable(loss)}
    ends = {name: [end if math.isfinite(end) else None for end in (of.low, of.high)] for name, of in stops.items()}
    return {name: [*pair, stops[name].scale] for name, pair in ends.items()}


def _movable(loss: PairLoss) -> dict[str, float]:
    """Return the hyper-parameters that a page can move."""
    return {name: value for name, value in numbers_of(loss).items() if isinstance(value, float)}
