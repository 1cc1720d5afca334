"""Losses that weigh the two sides differently: Balanced-DPO, its naive variants, and a constant weight as control."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Look, SliderRange, with_slider
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps


@dataclass(frozen=True)
class BalancedDPO(LogisticLoss):
    """−log σ(β λ_w h_w − β λ_l h_l), λ_w = log π_l/(log π_w + log π_l), λ_l = 1 − λ_w, both detached.

    beta: β > 0 (stated: 1). Source: Ma et al. 2025 (arXiv 2502.20847), Balanced-DPO. Since λ_w + λ_l = 1, the
    effective β is about half of DPO's: ``BalancedDPO(2 * beta)`` matches DPO's scale (ours).
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "bdpo"
    label = "bDPO"
    equation = "−log σ(β λ_w h_w − β λ_l h_l),  λ_w = log π_l / (log π_w + log π_l),  λ_l = 1 − λ_w"
    source = "Ma et al. 2025, arXiv 2502.20847"
    rho = "log π_l/log π_w"
    published = MappingProxyType({"beta": 1.0})
    antisymmetric = True
    weight_range = (0.0, 1.0)
    constant_weight = False
    look = Look("#D55E00", "-", "s")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ_w h_w − λ_l h_l)."""
        win_weight, lose_weight = balanced_weights(logps.win, logps.lose)
        return self.beta * (win_weight * logps.win_logratio - lose_weight * logps.lose_logratio)


@dataclass(frozen=True)
class NaiveBalancedDPO(LogisticLoss):
    """−log σ(β(λ h_w − h_l)), λ = 1 + clip(log π_w − log π_l, Δ_min, Δ_max), detached.

    beta       β > 0 (stated: 1).
    clip       Δ_max > 0 (stated: 0.5 on the grid, 0.3 for language models).
    symmetric  False: Δ_min = 0, so only the winner can gain (stated). True: Δ_min = 1/(1 + Δ_max) − 1 (stated).

    Source: Ma et al. 2025 (arXiv 2502.20847), naive bDPO. That λ multiplies β h_w while h_l keeps β is our reading,
    and so is taking the paper's undefined "naive v2" for the symmetric one.
    """

    beta: float = with_slider(1.0, BETA_RANGE)
    clip: float = with_slider(0.5, SliderRange(0.05, 2.0, 0.05))
    symmetric: bool = False

    source = "Ma et al. 2025, arXiv 2502.20847 (placement of λ: ours)"
    rho = "λ"
    published = MappingProxyType({"beta": 1.0, "clip": 0.5})
    antisymmetric = False
    constant_weight = False

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), clip=positive("clip", self.clip))

    @property
    def equation(self) -> str:
        """Return the formula with the variant's Δ_min; c stands for ``clip``."""
        least = "1/(1 + c) − 1" if self.symmetric else "0"
        return f"−log σ(β(λ h_w − h_l)),  λ = 1 + clip(log π_w − log π_l, {least}, c)"

    @property
    def name(self) -> str:
        """Return ``nbdpo``, or ``nbdpo-symmetric``."""
        return "nbdpo-symmetric" if self.symmetric else "nbdpo"

    @property
    def label(self) -> str:
        """Return ``nbDPO``, or ``nbDPO symmetric``."""
        return "nbDPO symmetric" if self.symmetric else "nbDPO"

    @property
    def look(self) -> Look:
        """Return green, light where symmetric."""
        return Look("#66C2A5", "-.", "v") if self.symmetric else Look("#009E73", "-.", "^")

    @property
    def clip_range(self) -> tuple[float, float]:
        """Return the least and the largest λ: 1 + Δ_min and 1 + Δ_max."""
        return 1 / (1 + self.clip) if self.symmetric else 1.0, 1 + self.clip

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return the ends of λ_w = λ/(λ + 1)."""
        floor = 1 / (2 + self.clip) if self.symmetric else 0.5
        return floor, (1 + self.clip) / (2 + self.clip)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ h_w − h_l)."""
        least = 1 / (1 + self.clip) - 1 if self.symmetric else 0.0
        weight = 1 + (logps.win - logps.lose).detach().clamp(least, self.clip)
        return self.beta * (weight * logps.win_logratio - logps.lose_logratio)


@dataclass(frozen=True)
class FixedWeightDPO(LogisticLoss):
    """−log σ(β λ h_w − β(1 − λ) h_l) with a constant λ: the control for bDPO's adaptive one.

    beta        β > 0.
    win_weight  λ in (0, 1); ½ is DPO at β/2, exactly.

    Source: ours.
    """

    beta: float = with_slider(1.0, BETA_RANGE)
    win_weight: float = with_slider(0.5, SliderRange(0.05, 0.95, 0.05))

    name = "fixed-weight"
    equation = "−log σ(β λ h_w − β(1 − λ) h_l),  λ constant"
    source = "ours (a control)"
    rho = "λ/(1 − λ)"
    constant_weight = True

    def __post_init__(self) -> None:
        weight = between("win_weight", self.win_weight, 0, 1, open_low=True, open_high=True)
        keep_plain(self, beta=positive("beta", self.beta), win_weight=weight)

    @property
    def antisymmetric(self) -> bool:
        """Return whether λ = ½: elsewhere the swapped pair has another margin."""
        return self.win_weight == 0.5

    @property
    def label(self) -> str:
        """Return the name with λ."""
        return f"constant λ = {self.win_weight:g}"

    @property
    def look(self) -> Look:
        """Return grey, the darker the larger λ; the marker tells on which side of ½ λ is."""
        grey = round(136 - 510 * min(max(self.win_weight - 0.5, -0.15), 0.25))
        marker = "P" if self.win_weight == 0.5 else "<" if self.win_weight < 0.5 else ">"
        return Look("#" + f"{grey:02X}" * 3, ":", marker)

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return λ, twice."""
        return self.win_weight, self.win_weight

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ h_w − (1 − λ) h_l)."""
        win_weight, lose_weight = self.win_weight, 1 - self.win_weight
        return self.beta * (win_weight * logps.win_logratio - lose_weight * logps.lose_logratio)


def balanced_weights(win: Tensor, lose: Tensor) -> tuple[Tensor, Tensor]:
    """Return λ_w = log π_l/(log π_w + log π_l) and λ_l = log π_w/(log π_w + log π_l), detached; ½ where both are 0.

    win, lose: log-probabilities ≤ 0, of one shape. λ_l is computed as a quotient and not as 1 − λ_w, whose rounding
    would break λ_w log π_w = λ_l log π_l in the corners. Source: Ma et al. 2025.
    """
    # Both shifted by the smallest normal number, which changes nothing but 0/0: that becomes ½.
    tiny = torch.finfo(win.dtype).tiny
    win, lose = win.detach() - tiny, lose.detach() - tiny
    total = win + lose
    return lose / total, win / total


FAMILY = "reweighted"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    BalancedDPO, NaiveBalancedDPO, partial(NaiveBalancedDPO, symmetric=True), FixedWeightDPO,
)  # fmt: skip
