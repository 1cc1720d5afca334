"""Losses as a page knows them: facts for menus, and kernels as WebAssembly, made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradlab.lab.engine.webassembly import refusal, slopes_kernel, training_kernel
from gradlab.lab.training import Training
from gradlab.losses import PAIR_LOSSES, KnownLoss, pair_loss
from gradlab.losses.registry import FAMILIES

SLOPES = "slopes"  # the kernel of ∂L/∂log π of pairs; others are named by what trains: "free adam"


def facts_of_losses() -> list[dict[str, Any]]:
    """Return the facts of every registered loss, in the order of menus."""
    return [facts_of(make()) for make in PAIR_LOSSES.values()]


def facts_of(loss: KnownLoss) -> dict[str, Any]:
    """Return what a page says of a loss; ``reason`` says why the engine cannot compile it, "" if it can."""
    return {
        "name": loss.name, "label": loss.label, "equation": loss.equation, "source": loss.source,
        "family": _family(loss), "hyper": _numbers_of(loss), "reason": refusal(loss),
    }  # fmt: skip


def kernel_of(loss: KnownLoss, what: str) -> dict[str, Any]:
    """Return the record of a loss's kernel, general where laws of its hyper-parameters are found.

    what  ``SLOPES``, or a policy and an optimizer such as "shared gd". NotFusable for a loss that cannot be compiled.
    """
    if what == SLOPES:
        return slopes_kernel(loss, general=True).record()
    policy, optimizer = what.split()
    return training_kernel(loss, Training(policy=policy, optimizer=optimizer, dtype="float32"), general=True).record()


def asked_kernel(message: Mapping[str, Any], losses: Mapping[str, KnownLoss] | None = None) -> dict[str, Any]:
    """Return the kernel that a page asks for by a loss's name, its hyper-parameters and what it does.

    losses  losses by name that the registry does not have.
    """
    name, hyper = message["loss"], dict(message.get("hyper", {}))
    known = (losses or {}).get(name)
    loss = pair_loss(name, **hyper) if known is None else known
    return kernel_of(loss, message["what"])


def _numbers_of(loss: KnownLoss) -> dict[str, float]:
    return {one.name: value for one in fields(loss) if isinstance(value := getattr(loss, one.name), float)}  # type: ignore[arg-type]


def _family(loss: KnownLoss) -> str:
    """Return the file in which a loss is defined, which is its family; a user's losses are a family of their own."""
    names = {family.__name__: family.__name__.rpartition(".")[2] for family in FAMILIES}
    return names.get(type(loss).__module__, "your losses")
