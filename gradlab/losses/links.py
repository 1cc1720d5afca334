"""Losses −log σ(β(φ(u_w) − φ(u_l))), u = π/π_ref, with another link than φ = log u; and relatives of such a margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Look, Shipped, SliderRange, with_slider
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps

_COLOR = "#E69F00"
_MOST = 60.0  # powers of e beyond this go on along their tangent, so that they are finite in single precision
_TRL_BETA = MappingProxyType({"beta": 0.1})


def grown(exponent: Tensor) -> Tensor:
    """Return e^x; for x > 60 the tangent at e^60, which stays finite, and keeps a slope, in all types but float16."""
    return exponent.clamp(max=_MOST).exp() + math.exp(_MOST) * F.relu(exponent - _MOST)


def grown_power(log: Tensor, power: float) -> Tensor:
    """Return (e^(px) − 1)/p of x and p, with the tangent of ``grown``; x for p = 0, within 1e-6.

    A difference of such numbers needs no −1, which cancels; but e^(px)/p is 1/p and digits that rounding takes, where p
    is small. Far from 0 it is e^(px) less 1, whose slope keeps its digits: that of expm1 is 1 and what it adds.
    """
    if abs(power) < 1e-6:
        return log
    exponent = power * log
    near = exponent.clamp(-1, 1).expm1()
    return torch.where(exponent.abs() < 1, near, grown(exponent) - 1) / power


class _Link(LogisticLoss):
    """The facts that links share: m = β(φ(h_w) − φ(h_l)), ln 2 at the reference."""

    antisymmetric = True

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))  # type: ignore[attr-defined]

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return φ of log u."""
        raise NotImplementedError

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(φ(u_w) − φ(u_l))."""
        return self.beta * (self.link(logps.win_logratio) - self.link(logps.lose_logratio))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class FDPO(_Link):
    """−log σ(β(φ(u_w) − φ(u_l))), φ = (u^(α−1) − 1)/(α − 1): DPO with an α-divergence to the reference.

    beta   β > 0.
    order  α in TRL's convention: 0 is the forward KL divergence, 1 the reverse one, which is DPO, 2 the link u.

    Source: Wang et al. 2023 (arXiv 2309.16240), which writes (1 − u^(−a))/a, a = 1 − α, and tries a of 0.3, 0.5, 0.7.
    Powers beyond e^60 go on along their tangent.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    order: float = with_slider(0.5, SliderRange(-1.0, 3.0, 0.1))

    name = "f-dpo"
    label = "f-DPO"
    equation = "−log σ(β(φ(u_w) − φ(u_l))),  φ = (u^(α−1) − 1)/(α − 1),  u = π/π_ref,  α = order"
    source = "Wang et al. 2023, arXiv 2309.16240"
    rho = "(u_w/u_l)^(α−1)"
    convention = "sums over tokens; α as in TRL since 0.29, 1 − α in the paper"
    published = MappingProxyType({"beta": 0.1, "order": 0.5})
    shipped = (
        Shipped(
            "trl 1.16.0", 'f_divergence_type="alpha_divergence"', MappingProxyType({"beta": 0.1, "order": 0.5}),
            "It lets powers end at e^80, without a slope beyond.",
        ),
    )  # fmt: skip
    notes = (
        "The paper's α is 1 − α here: at 0.5 both agree, elsewhere they turn ρ the other way round.",
        "TRL until 0.24 had other meanings of its coefficient; numbers of α are not comparable across these versions.",
        "oxRL 2a2bd5d leaves β out of its α-divergence.",
    )
    look = Look(_COLOR, "-", "s")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), order=between("order", self.order, -10, 10))

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return 0 and 1, or ½ twice for α = 1, DPO."""
        return (0.5, 0.5) if self.order == 1 else (0.0, 1.0)

    @property
    def constant_weight(self) -> bool:
        """Return whether α = 1."""
        return self.order == 1

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return (u^(α−1) − 1)/(α − 1) of log u; log u for α = 1, within 1e-6 as in TRL."""
        return grown_power(log_ratio, self.order - 1)


@dataclass(frozen=True)
class LinkU(_Link):
    """−log σ(β(u_w − u_l)), u = π/π_ref: DPO with Pearson's χ²-divergence; balanced in u for any reference.

    beta: β > 0. Source: Wang et al. 2023 (arXiv 2309.16240), the α-divergence with α = 2 in TRL's convention. Beyond
    e^60 u goes on along its tangent.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "link-u"
    label = "link u"
    equation = "−log σ(β(u_w − u_l)),  u = π/π_ref"
    source = "Wang et al. 2023, arXiv 2309.16240"
    rho = "u_w/u_l"
    shipped = (
        Shipped(
            "trl 1.16.0", 'f_divergence_type="alpha_divergence", f_alpha_divergence_coef=2', _TRL_BETA,
            "It lets powers end at e^80, without a slope beyond.",
        ),
    )  # fmt: skip
    notes = ("∂L/∂u_w = −∂L/∂u_l; in π the sides are balanced only where π_ref is equal on both.",)
    look = Look(_COLOR, "-", "^")

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return u of log u."""
        return grown(log_ratio)


@dataclass(frozen=True)
class ForwardKL(_Link):
    """−log σ(β(1/u_l − 1/u_w)), u = π/π_ref: DPO with the forward KL divergence KL(π_ref ‖ π).

    beta: β > 0. Source: Wang et al. 2023 (arXiv 2309.16240). Beyond e^60 1/u goes on along its tangent.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "forward-kl"
    label = "forward KL"
    equation = "−log σ(β(1/u_l − 1/u_w)),  u = π/π_ref"
    source = "Wang et al. 2023, arXiv 2309.16240"
    rho = "u_l/u_w"
    published = MappingProxyType({"beta": 0.1})
    shipped = (Shipped("trl 1.16.0", 'f_divergence_type="forward_kl"', _TRL_BETA, "It does not bound 1/u."),)
    notes = (
        "TRL 1.16.0 does not bound e^(−h): in single precision the margin is no number where both h are below −88.",
        "oxRL 2a2bd5d adds e^(−h_w) − e^(−h_l) to DPO's margin: the wrong sign, and a sum of two divergences.",
    )
    look = Look(_COLOR, "--", "v")

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return −1/u of log u."""
        return -grown(-log_ratio)


@dataclass(frozen=True)
class JensenShannon(_Link):
    """−log σ(β(φ(u_w) − φ(u_l))), φ = log(2u/(1 + u)), u = π/π_ref: DPO with the Jensen–Shannon divergence.

    beta: β > 0. Source: Wang et al. 2023 (arXiv 2309.16240).
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "js"
    label = "Jensen–Shannon"
    equation = "−log σ(β(φ(u_w) − φ(u_l))),  φ = log(2u/(1 + u)),  u = π/π_ref"
    source = "Wang et al. 2023, arXiv 2309.16240"
    rho = "σ(−h_w)/σ(−h_l)"
    published = MappingProxyType({"beta": 0.1})
    shipped = (Shipped("trl 1.16.0", 'f_divergence_type="js_divergence"', _TRL_BETA),)
    notes = ("oxRL 2a2bd5d subtracts log(1 + u) without β.",)
    look = Look(_COLOR, "-.", "o")

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return log(u/(1 + u)) of log u: the log 2 cancels."""
        return F.logsigmoid(log_ratio)


@dataclass(frozen=True)
class ChiPO(_Link):
    """−log σ(clip(β(φ(u_w) − φ(u_l)), −2R, 2R)), φ = u + log u, u = π/π_ref.

    beta           β > 0.
    reward_bound   R > 0, the largest reward there is; beyond a margin of 2R no side has a slope.

    Source: Huang et al. 2024 (arXiv 2407.13399), algorithm 1, which leaves both numbers open; here R is the height of
    the synthetic world. Beyond e^60 u goes on along its tangent.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    reward_bound: float = with_slider(4.0, SliderRange(-1, 2, 0.05, log=True))

    name = "chi-po"
    label = "χPO"
    equation = "−log σ(clip(β(φ(u_w) − φ(u_l)), −2R, 2R)),  φ = u + log u,  u = π/π_ref,  R = reward_bound"
    source = "Huang et al. 2024, arXiv 2407.13399"
    rho = "(1 + u_w)/(1 + u_l), and 0/0 beyond the clip"
    bounded_above = True
    optimum = "β(φ(u_w) − φ(u_l)) ≥ 2R"
    notes = ("oxRL 2a2bd5d clamps h at ±20 in e^h, and does not clip the margin; the paper clips the margin.",)
    look = Look(_COLOR, ":", "P")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), reward_bound=positive("reward_bound", self.reward_bound))

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return λ_w = σ(±x), 2 sinh x + 2x = 2R/β: the most uneven pair at the clip has u_w = 1/u_l = e^x."""
        wanted = 2 * self.reward_bound / self.beta
        x = math.asinh(wanted / 2)  # too far, so Newton's steps come down to x
        for _ in range(60):
            x -= (2 * math.sinh(x) + 2 * x - wanted) / (2 * math.cosh(x) + 2)
        return 1 / (1 + math.exp(x)), 1 / (1 + math.exp(-x))

    def link(self, log_ratio: Tensor) -> Tensor:
        """Return u + log u of log u."""
        return grown(log_ratio) + log_ratio

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = clip(β(φ(u_w) − φ(u_l)), −2R, 2R)."""
        return super().margin(logps).clamp(-2 * self.reward_bound, 2 * self.reward_bound)


@dataclass(frozen=True)
class BoundedDPO(LogisticLoss):
    """−log σ(β(h_w − log(λ u_l + 1 − λ))), u_l = π_l/π_ref: the loser against a mixture with the reference.

    beta     β > 0.
    mixture  λ in (0, 1), the policy's share; the loser's term is bounded by log(1 − λ), and at 1 the loss is DPO.

    Source: Cho et al. 2025 (arXiv 2506.12725), by its abstract and formula; the numbers are ours.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    mixture: float = with_slider(0.5, SliderRange(0.05, 0.95, 0.05))

    name = "bounded-dpo"
    label = "Bounded-DPO"
    equation = "−log σ(β(h_w − log(λ π_l/π_ref,l + 1 − λ))),  λ = mixture"
    source = "Cho et al. 2025, arXiv 2506.12725"
    rho = "1 + ((1 − λ)/λ)/u_l"
    antisymmetric = False
    weight_range = (0.5, 1.0)
    notes = ("The paper calls it BDPO, which is also short for Balanced-DPO, another loss.",)
    look = Look(_COLOR, (0, (3, 1, 1, 1)), "X")

    def __post_init__(self) -> None:
        mixture = between("mixture", self.mixture, 0, 1, open_low=True, open_high=True)
        keep_plain(self, beta=positive("beta", self.beta), mixture=mixture)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(h_w − log(λ u_l + 1 − λ))."""
        rest = math.log1p(-self.mixture)
        loser = rest - F.logsigmoid(rest - math.log(self.mixture) - logps.lose_logratio)
        return self.beta * (logps.win_logratio - loser)


@dataclass(frozen=True)
class HDPO(LogisticLoss):
    """−log σ(β(a(log π_w − log π_l) − (log π_ref,w − log π_ref,l))): the policy's part of the margin times a.

    beta            β > 0.
    entropy_weight  a > 0: below 1 the optimum is sharper than DPO's, above 1 flatter; 1 is DPO.

    Source: Omura et al. 2024 (arXiv 2411.07595); a = 0.95 is among the values that it tries.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    entropy_weight: float = with_slider(0.95, SliderRange(0.5, 1.5, 0.05))

    name = "h-dpo"
    label = "H-DPO"
    equation = "−log σ(β(a(log π_w − log π_l) − (log π_ref,w − log π_ref,l))),  a = entropy_weight"
    source = "Omura et al. 2024, arXiv 2411.07595"
    rho = "1"
    antisymmetric = True
    weight_range = (0.5, 0.5)
    constant_weight = True
    shipped = (
        Shipped(
            "oxRL 2a2bd5d", "hdpo", MappingProxyType({"beta": 0.1, "entropy_weight": 1.0}),
            "Its a is 1 unless set, so that this is DPO.",
        ),
    )  # fmt: skip
    notes = ("At a ≠ 1 the loss at π = π_ref differs from pair to pair: the margin there is β(a − 1) log π_w/π_l.",)
    look = Look(_COLOR, (0, (5, 1)), "D")

    def __post_init__(self) -> None:
        keep_plain(
            self, beta=positive("beta", self.beta), entropy_weight=positive("entropy_weight", self.entropy_weight)
        )

    @property
    def start_value(self) -> float | None:
        """Return ln 2 for a = 1, else None."""
        return math.log(2) if self.entropy_weight == 1 else None

    @property
    def start_equation(self) -> str:
        """Return "ln 2" for a = 1, else nothing."""
        return "ln 2" if self.entropy_weight == 1 else ""

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(a(log π_w − log π_l) − (log π_ref,w − log π_ref,l))."""
        return self.beta * (self.entropy_weight * (logps.win - logps.lose) - (logps.ref_win - logps.ref_lose))


FAMILY = "links"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    FDPO, LinkU, ForwardKL, JensenShannon, ChiPO, BoundedDPO, HDPO,
)  # fmt: skip
