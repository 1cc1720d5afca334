"""Explorers that compare two to six losses: registered ones by name, and loss objects that nobody has registered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

from gradlab.checks import shown
from gradlab.losses import PAIR_LOSSES, PairLoss, pair_loss
from gradlab.plotting.charts import Dash
from gradlab.plotting.palette import CHOSEN, SETTINGS
from gradlab.widgets.controls import (
    Controls,
    Whole,
    chosen_loss,
    fields_of,
    hide_unused,
    loss_code,
    loss_controls,
)
from gradlab.widgets.explorer import Explorer
from gradlab.widgets.losses_in_page import asked_kernel, facts_of_losses

SLOTS = "abcdef"
LOOKS: dict[str, tuple[str, Dash]] = {
    "a": (CHOSEN[0], ""), "b": (CHOSEN[1], "dashed"), "c": (CHOSEN[2], "dotted"),
    "d": (SETTINGS[2], "dashdot"), "e": (SETTINGS[5], ""), "f": (SETTINGS[1], "dashed"),
}  # fmt: skip
_STARTS = ("dpo", "bdpo", "nbdpo", "fixed-weight", "ipo", "cdpo")


class ComparingExplorer(Explorer):
    """An explorer with ``count`` losses, A, B, …, whose kernels the page runs."""

    in_page: ClassVar[bool] = True

    def __init__(self, losses: Sequence[str | PairLoss] | None = None, **start: Any) -> None:
        """Build the explorer and show it.

        losses  two to six losses to compare: names in the registry, or objects, whose numbers the controls then have.
                A loss need not be registered; it joins the menus of this explorer. ValueError, in one line, for one
                that cannot be compiled for a page.
        start   start values of controls, also for ``reset()``.
        """
        super().__init__(**start, **({} if losses is None else {"losses": losses}))

    def take_losses(self, start: dict[str, Any]) -> None:
        """Take ``losses`` out of the start values: menus, numbers and count of losses take their place."""
        if "losses" not in start:
            return
        losses = start.pop("losses")
        if not isinstance(losses, list | tuple) or not 2 <= len(losses) <= len(SLOTS):
            raise ValueError(f"losses must be a list of two to six names or losses, got {shown(losses)}")
        given = {}
        for loss in losses:
            if not isinstance(loss, str):
                given[_checked(loss, given).name] = loss
        self.given_losses = {name: loss for name, loss in given.items() if name not in PAIR_LOSSES}
        reasons = self.refused_losses()
        values: dict[str, Any] = {"count": len(losses)}
        for slot, loss in zip(SLOTS, losses, strict=False):
            name = loss if isinstance(loss, str) else loss.name
            if reasons.get(name):
                raise ValueError(f"losses must be ones that a page can compute; {name} is not: {reasons[name]}")
            values[f"loss_{slot}"] = name
            if not isinstance(loss, str):
                values |= {f"{field}_{slot}": getattr(loss, field) for field in fields_of(name, self.given_losses)}
        start |= {**values, **start}

    def refused_losses(self) -> dict[str, str]:
        """Return why losses of the menus cannot be chosen, by name: a page has no kernel of them."""
        facts = facts_of_losses(self.given_losses)
        return {one["name"]: one["reason"] for one in facts if one["reason"]}

    def slots(self, state: SimpleNamespace) -> str:
        """Return the letters of the losses that are compared."""
        return SLOTS[: state.count]

    def loss_group(self) -> Controls:
        """Return the controls of all losses, and of their number."""
        count = Whole("losses", 2, 2, len(SLOTS), "how many losses are compared")
        return {"count": count, **loss_controls(SLOTS, _STARTS, given=self.given_losses)}

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide the losses that are not compared, and numbers that the chosen ones lack."""
        hide_unused(self.controls, SLOTS, self.given_losses)
        for control in self.controls.values():
            slot = control.part.get("loss", control.part.get("of", ""))
            if slot:
                control.hidden = slot not in self.slots(state) or ("hyper" in control.part and control.hidden)

    def loss(self, state: SimpleNamespace, slot: str) -> PairLoss:
        """Return the loss of a letter."""
        return chosen_loss(vars(state), slot, self.given_losses)

    def losses_code(self, state: SimpleNamespace) -> tuple[str, str]:
        """Return lines that import the losses' classes, and the losses by letter, as Python code."""
        given, imports = self.given_losses, {}
        for slot in self.slots(state):
            name = state.__dict__[f"loss_{slot}"]
            kind = type(given[name]) if name in given and name not in PAIR_LOSSES else None
            if kind is not None and kind.__module__ != "__main__" and "<" not in kind.__qualname__:
                imports[f"from {kind.__module__} import {kind.__qualname__}"] = None
        listed = [f'"{slot.upper()}": {loss_code(vars(state), slot, given)}' for slot in self.slots(state)]
        return "".join(f"{line}\n" for line in imports), "{" + ", ".join(listed) + "}"

    def reply(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return the kernel of a loss that the page asks for."""
        if message.get("want") == "kernel":
            return {"record": asked_kernel(message, self.given_losses)}, []
        return super().reply(message)


def title_of(slot: str, loss: PairLoss) -> str:
    """Return a loss's name in pictures, such as "A DPO"."""
    return f"{slot.upper()} {getattr(loss, 'label', loss.name)}"


def _checked(loss: Any, others: Mapping[str, PairLoss]) -> PairLoss:
    """Return the loss; ValueError in one line unless it is one whose name no other loss has."""
    if isinstance(loss, type) or not isinstance(loss, PairLoss):
        raise ValueError(f"losses must be names or losses such as DPO(beta=0.5), got {shown(loss)}")
    former = pair_loss(loss.name) if loss.name in PAIR_LOSSES else others.get(loss.name)
    if former is not None and type(former) is not type(loss):
        raise ValueError(f"losses must have names that no other loss has, got {loss.name!r} of {type(loss).__name__}")
    return loss
