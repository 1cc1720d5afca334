"""Losses that weigh the two sides differently, by their probabilities, by which is ahead, by lengths or constantly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, Shipped, SliderRange, with_slider
from gradlab.losses.margin import DPO
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


@dataclass(frozen=True)
class RelativeBalancedDPO(LogisticLoss):
    """−log σ(β λ_w h_w − β λ_l h_l), λ_w = c(u_l)/(c(u_w) + c(u_l)), λ_l = 1 − λ_w, c(u) = log(1 + 1/u), u = π/π_ref.

    The weights are detached. Since they see u alone, the loss does not change with the unit in which a continuous
    response is measured, as Balanced-DPO does. λ_w is ½ at the reference. The margin is bounded by
    −β log(1 + u_l) < m < β log(1 + u_w), and tends to 0 where both sides fall.

    beta: β > 0; as for Balanced-DPO, the effective β is about half of DPO's. Source: ours.
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "relative-bdpo"
    label = "relative bDPO"
    equation = "−log σ(β λ_w h_w − β λ_l h_l),  λ_w = c(u_l)/(c(u_w) + c(u_l)),  c(u) = log(1 + 1/u),  u = π/π_ref"
    source = "ours (after Ma et al. 2025, arXiv 2502.20847)"
    rho = "log(1 + 1/u_l)/log(1 + 1/u_w)"
    antisymmetric = True
    constant_weight = False
    notes = (
        "For large u both sides are balanced in ∂L/∂u; in ∂L/∂π only where π_ref is equal on both.",
        "Where both sides fall the margin tends to 0, so that strong preferences drift.",
    )
    look = Look("#D55E00", "--", "D")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ_w h_w − λ_l h_l)."""
        win, lose = logps.win_logratio, logps.lose_logratio
        lead = (_log_cost(lose) - _log_cost(win)).detach()
        return self.beta * (lead.sigmoid() * win - (-lead).sigmoid() * lose)


_FLAT = 36.0  # log u beyond which log(1 + 1/u) is 1/u, to the last digit of a double


def _log_cost(log_ratio: Tensor) -> Tensor:
    """Return log log(1 + 1/u) of log u: log(−log u) where u is small, and −log u where it is large."""
    return (-F.logsigmoid(log_ratio.clamp(max=_FLAT))).log() - F.relu(log_ratio - _FLAT)


@dataclass(frozen=True)
class LengthWeightedDPO(LogisticLoss):
    """−log σ(β λ_w h_w − β λ_l h_l), λ_w = L_l/(L_w + L_l), λ_l = L_w/(L_w + L_l): a control for Balanced-DPO.

    At the scale of sequences −log π is about proportional to the length L, and Balanced-DPO's weights come near these:
    what it does beyond this loss is balance, and the rest is length. At equal lengths this is DPO at β/2.

    beta: β > 0. Source: ours. A length of 0 counts as 1.
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "length-dpo"
    label = "length-weighted DPO"
    equation = "−log σ(β λ_w h_w − β λ_l h_l),  λ_w = L_l/(L_w + L_l),  λ_l = 1 − λ_w"
    source = "ours (a control)"
    rho = "L_l/L_w"
    convention = "sums over tokens, weighted by lengths"
    antisymmetric = True
    constant_weight = False
    needs_lengths = True
    look = Look("#888888", "--", "X")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ_w h_w − λ_l h_l)."""
        win_len, lose_len = (length.clamp(min=1) for length in logps.lengths(self.name))
        total = win_len + lose_len
        return self.beta * (lose_len / total * logps.win_logratio - win_len / total * logps.lose_logratio)

    def summed(self, length: float) -> tuple[DPO, float]:
        """Return DPO(β/2) and 1: at equal lengths L the loss is that times this factor."""
        positive("length", length)
        return DPO(self.beta / 2), 1.0


@dataclass(frozen=True)
class AdaDPO(LogisticLoss):
    """−log σ(β λ h_w − β h_l), λ = min(π_w/π_l, c), detached.

    beta  β > 0.
    clip  c > 0, the largest λ.

    Source: AdaDPO 2026 (arXiv 2605.28440), there in practice per token; here of whole responses.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    clip: float = with_slider(2.0, SliderRange(0.05, 2.0, 0.05))

    name = "ada-dpo"
    label = "AdaDPO"
    equation = "−log σ(β λ h_w − β h_l),  λ = min(π_w/π_l, c),  c = clip"
    source = "AdaDPO 2026, arXiv 2605.28440"
    rho = "min(π_w/π_l, c)"
    published = MappingProxyType({"clip": 2.0})
    antisymmetric = False
    constant_weight = False
    notes = (
        "The paper takes the ratio per token in practice, which needs token-level information; this loss takes it of "
        "whole responses.",
        "Below the clip ∂L/∂π_w = −∂L/∂π_l exactly; at the clip it is smaller on the winner's side.",
    )
    look = Look("#D55E00", ":", "P")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), clip=positive("clip", self.clip))

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return 0, and λ_w at the clip."""
        return 0.0, self.clip / (1 + self.clip)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(λ h_w − h_l)."""
        weight = (logps.win - logps.lose).detach().clamp(max=math.log(self.clip)).exp()
        return self.beta * (weight * logps.win_logratio - logps.lose_logratio)


@dataclass(frozen=True)
class DPOShift(LogisticLoss):
    """−log σ(β h_w − β λ h_l) with a constant λ.

    beta          β > 0.
    loser_weight  λ in (0, 1]; 1 is DPO.

    Source: Yang et al. 2025 (arXiv 2502.07599), DPO-Shift with a fixed λ; 0.5 is the least that it tries.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    loser_weight: float = with_slider(0.5, SliderRange(0.05, 1.0, 0.05))

    name = "dpo-shift"
    label = "DPO-Shift"
    equation = "−log σ(βh_w − βλh_l),  λ = loser_weight"
    source = "Yang et al. 2025, arXiv 2502.07599"
    rho = "1/λ"
    constant_weight = True
    shipped = (Shipped("oxRL 2a2bd5d", "dposhift", MappingProxyType({"beta": 0.1, "loser_weight": 0.5})),)
    look = Look("#D55E00", "-.", ">")

    def __post_init__(self) -> None:
        weight = between("loser_weight", self.loser_weight, 0, 1, open_low=True)
        keep_plain(self, beta=positive("beta", self.beta), loser_weight=weight)

    @property
    def antisymmetric(self) -> bool:
        """Return whether λ = 1, DPO."""
        return self.loser_weight == 1

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return λ_w = 1/(1 + λ), twice."""
        return 1 / (1 + self.loser_weight), 1 / (1 + self.loser_weight)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(h_w − λh_l)."""
        return self.beta * (logps.win_logratio - self.loser_weight * logps.lose_logratio)


@dataclass(frozen=True)
class BPO(LogisticLoss):
    """−log σ(β min(h_w, −αh_l)): only the side that is behind has a slope; at a tie each side has half of its own.

    beta          β > 0.
    loser_weight  α in (0, 1]; the paper's gap adaptor.

    Source: Sun et al. 2025 (arXiv 2506.03557).
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    loser_weight: float = with_slider(0.3, SliderRange(0.05, 1.0, 0.05))

    name = "bpo"
    label = "BPO"
    equation = "−log σ(β min(h_w, −αh_l)),  α = loser_weight"
    source = "Sun et al. 2025, arXiv 2506.03557"
    rho = "∞ where h_w < −αh_l, 0 where h_w > −αh_l, 1/α at a tie"
    published = MappingProxyType({"loser_weight": 0.3})
    antisymmetric = False
    constant_weight = False
    shipped = (Shipped("oxRL 2a2bd5d", "bpo", MappingProxyType({"beta": 0.1, "loser_weight": 0.3})),)
    notes = (
        "Every pair ties at π = π_ref; PyTorch's minimum splits the slope there in halves, so that ρ is 1/α.",
        "The authors' settings name a hinge with α = 0.3; the logistic form is one of the paper's, and oxRL's.",
    )
    look = Look("#D55E00", (0, (1, 1)), "<")

    def __post_init__(self) -> None:
        weight = between("loser_weight", self.loser_weight, 0, 1, open_low=True)
        keep_plain(self, beta=positive("beta", self.beta), loser_weight=weight)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β min(h_w, −αh_l)."""
        return self.beta * torch.minimum(logps.win_logratio, -self.loser_weight * logps.lose_logratio)


@dataclass(frozen=True)
class DPOP(LogisticLoss):
    """−log σ(β(h_w − h_l − λ max(0, −h_w))): DPO-Positive, a penalty where the winner is below the reference.

    beta     β > 0.
    penalty  λ ≥ 0; 0 is DPO.

    Source: Pal et al. 2024 (arXiv 2402.13228), eq. 3; its λ is 5, 50 or 500. At h_w = 0 the penalty has no slope.
    """

    beta: float = with_slider(0.3, BETA_RANGE)
    penalty: float = with_slider(50.0, SliderRange(0.0, 100.0, 1.0))

    name = "dpop"
    label = "DPOP"
    equation = "−log σ(β(h_w − h_l − λ max(0, −h_w))),  λ = penalty"
    source = "Pal et al. 2024, arXiv 2402.13228"
    rho = "1 + λ where h_w < 0, else 1"
    published = MappingProxyType({"beta": 0.3, "penalty": 50.0})
    shipped = (
        Shipped("oxRL 2a2bd5d", "dpop", MappingProxyType({"beta": 0.1, "penalty": 5.0})),
    )  # fmt: skip
    notes = (
        "The penalty is multiplied by β, as in the paper's equation, in oxRL 2a2bd5d and in oat: its strength is βλ.",
        "With a penalty outside of σ, as some write it, ρ is 1 + λ/(β σ(−m)) where h_w < 0.",
    )
    look = Look("#D55E00", (0, (5, 1)), "h")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), penalty=between("penalty", self.penalty, 0))

    @property
    def antisymmetric(self) -> bool:
        """Return whether λ = 0, DPO."""
        return self.penalty == 0

    @property
    def constant_weight(self) -> bool:
        """Return whether λ = 0."""
        return self.penalty == 0

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return ½, and λ_w under the penalty."""
        return 0.5, (1 + self.penalty) / (2 + self.penalty)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(h_w − h_l − λ max(0, −h_w))."""
        win = logps.win_logratio
        return self.beta * (win - logps.lose_logratio - self.penalty * F.relu(-win))


@dataclass(frozen=True)
class MinorDPO(LogisticLoss):
    """−log σ(β(h_w − max(0, h_l))): the loser is pushed down only while it is above the reference.

    beta: β > 0. Source: Xie et al. 2024 (arXiv 2408.09834). At h_l = 0 the loser has its slope, as in oxRL.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "minor-dpo"
    label = "MinorDPO"
    equation = "−log σ(β(h_w − max(0, h_l)))"
    source = "Xie et al. 2024, arXiv 2408.09834"
    rho = "1 where h_l ≥ 0, else ∞"
    antisymmetric = False
    constant_weight = False
    weight_range = (0.5, 1.0)
    shipped = (Shipped("oxRL 2a2bd5d", "minor_dpo", MappingProxyType({"beta": 0.1})),)
    notes = (
        "Every pair lies on the kink at π = π_ref; there the loser has its slope, as torch.clamp gives it to oxRL "
        "2a2bd5d, so that ρ is 1, where torch.relu would give ∞.",
    )
    look = Look("#D55E00", (0, (4, 2, 1, 2)), "d")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(h_w − max(0, h_l))."""
        return self.beta * (logps.win_logratio - logps.lose_logratio.clamp(min=0))


@dataclass(frozen=True)
class WPO(Facts):
    """−w log σ(β(h_w − h_l)), w = exp(log π_w/L_w + log π_l/L_l), detached: DPO, weighted by how likely the pair is.

    beta: β > 0. Source: Zhou et al. 2024 (arXiv 2406.11827), eq. 2, without its alignment of weights: this divides each
    token's probability by Σp² over the vocabulary, which only token-level information tells. A length of 0 counts as 1.
    """

    beta: float = with_slider(0.01, BETA_RANGE)

    name = "wpo"
    label = "WPO"
    equation = "−w log σ(β(h_w − h_l)),  w = exp(log π_w/L_w + log π_l/L_l) detached"
    source = "Zhou et al. 2024, arXiv 2406.11827"
    rho = "1"
    convention = "sums over tokens in the margin, means over tokens in the weight"
    published = MappingProxyType({"beta": 0.01})
    antisymmetric = False
    start_value = None
    constant_weight = True
    weight_range = (0.5, 0.5)
    needs_lengths = True
    notes = (
        "TRL 1.16.0's use_weighting divides by Σp² of each token, as the paper's sampled alignment does; this loss "
        "does not, for want of token-level information.",
        "oxRL 2a2bd5d divides by the sum of the batch's weights, and lets gradients flow through them.",
        "open-instruct's wpo_loss multiplies summed log-probabilities by a mask of tokens, which fails for more than "
        "one pair.",
    )
    look = Look("#D55E00", (0, (3, 1, 1, 1, 1, 1)), "*")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; ValueError for pairs without lengths."""
        win_len, lose_len = (length.clamp(min=1) for length in logps.lengths(self.name))
        weight = (logps.win / win_len + logps.lose / lose_len).detach().exp()
        return -weight * F.logsigmoid(self.beta * (logps.win_logratio - logps.lose_logratio))


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
    BalancedDPO, NaiveBalancedDPO, partial(NaiveBalancedDPO, symmetric=True), FixedWeightDPO, RelativeBalancedDPO,
    LengthWeightedDPO, AdaDPO, DPOShift, BPO, DPOP, MinorDPO, WPO,
)  # fmt: skip
