"""Losses of the margin h_w − h_l alone: both sides get the same slope in log π."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gradlab.checks import positive
from gradlab.losses.pair import LogisticLoss, PairLogps


@dataclass(frozen=True)
class DPO(LogisticLoss):
    """−log σ(β(h_w − h_l)).

    beta: β > 0, inverse temperature (stated: 1). Source: Rafailov et al. 2023 (arXiv 2305.18290), eq. 7.
    """

    beta: float = 1.0

    name = "dpo"
    equation = "−log σ(β(h_w − h_l))"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    antisymmetric = True

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    def margin(self, logps: PairLogps) -> Tensor:
        """m = β(h_w − h_l)."""
        return self.beta * (logps.win_logratio - logps.lose_logratio)
