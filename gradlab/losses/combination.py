"""A weighted sum of losses, of pairs and of batches, as one loss of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradlab.checks import between
from gradlab.losses.pair import BatchLoss, PairLogps, PairLoss
from gradlab.losses.registry import measured_facts

_MEASURED = measured_facts()


@dataclass(frozen=True)
class WeightedLosses(BatchLoss):
    """Σ_k w_k L_k (ours): ``WeightedLosses(((DPO(0.1), 1.0), (SimPO(), 0.5)))``.

    parts  losses with their weights, which are finite and not 0; one part or more.

    ``beta``, by which trainers scale the rewards that they log, is that of the first part; 1 where it has none. Signs
    are measured at made-up pairs, as those of parts may cancel; a sum is bounded where all parts are.
    TypeError for a part that is no loss with a weight, ValueError for a weight out of range and for no parts.
    """

    parts: tuple[tuple[PairLoss | BatchLoss, float], ...]

    source = "ours (a weighted sum)"
    winner_down = _MEASURED["winner_down"]
    loser_up = _MEASURED["loser_up"]

    def __post_init__(self) -> None:
        if not isinstance(self.parts, tuple) or not self.parts:
            raise ValueError(f"parts must be losses with weights, such as ((DPO(0.1), 1.0),), got {self.parts!r:.80}")
        for part in self.parts:
            if not isinstance(part, tuple) or len(part) != 2 or not isinstance(part[0], PairLoss):
                raise TypeError(f"a part must be a loss and its weight, such as (DPO(0.1), 1.0), got {part!r:.80}")
            if isinstance(part[0], type):
                raise TypeError(
                    f"a part's loss must be an instance, such as DPO(0.1), got the class {part[0].__name__}"
                )
            if between("weight", part[1], -math.inf, open_low=True) == 0:
                raise ValueError("weight must not be 0, got 0; leave the part out")

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return the sum of the parts' values, one per pair."""
        values = (
            share * (loss(logps, weights) if isinstance(loss, BatchLoss) else loss(logps)) for loss, share in self.parts
        )
        return sum(values)  # type: ignore[return-value]

    @property
    def name(self) -> str:  # type: ignore[override]
        """Return the names with their weights, such as dpo+0.5*simpo."""
        return "+".join(loss.name if share == 1 else f"{share:g}*{loss.name}" for loss, share in self.parts)

    @property
    def label(self) -> str:  # type: ignore[override]
        """Return the name."""
        return self.name

    @property
    def equation(self) -> str:  # type: ignore[override]
        """Return the parts' equations with their weights."""
        return " + ".join(f"{share:g} · [{loss.equation}]" for loss, share in self.parts)

    @property
    def beta(self) -> float:
        """Return the first part's β, or 1."""
        return getattr(self.parts[0][0], "beta", 1.0)

    @property
    def needs_lengths(self) -> bool:  # type: ignore[override]
        """Return whether some part needs lengths."""
        return any(getattr(loss, "needs_lengths", False) for loss, _ in self.parts)

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Return whether some part depends on the reference."""
        return any(getattr(loss, "needs_reference", True) for loss, _ in self.parts)

    @property
    def bounded_below(self) -> bool:  # type: ignore[override]
        """Return whether each part is bounded on the side that its weight turns down."""
        return all(_is_bounded(loss, below=share > 0) for loss, share in self.parts)

    @property
    def bounded_above(self) -> bool:  # type: ignore[override]
        """Return whether each part is bounded on the side that its weight turns up."""
        return all(_is_bounded(loss, below=share < 0) for loss, share in self.parts)

    @property
    def start_value(self) -> float | None:
        """Return the sum of the parts' starts; None where one is not known."""
        starts: list[Any] = [getattr(loss, "start_value", None) for loss, _ in self.parts]
        if any(start is None for start in starts):
            return None
        return sum(share * start for (_, share), start in zip(self.parts, starts, strict=True))


def _is_bounded(loss: PairLoss | BatchLoss, *, below: bool) -> bool:
    return getattr(loss, "bounded_below" if below else "bounded_above", False)
