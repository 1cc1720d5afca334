"""Losses that are other curves of the margin m = β(h_w − h_l) than −log σ(m): hinges, powers, mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain
from gradlab.losses.facts import BETA_RANGE, Look, SliderRange, ships, with_slider
from gradlab.losses.margin import MARGIN_COLOR, OfMargin
from gradlab.losses.pair import KnownLoss, PairLogps

_GPO = "Tang et al. 2024, arXiv 2402.05749"
_STEEPEST = 40.0  # nats of −m from which the exponential loss goes straight on, for e^−m overflows float32 at 88
_TURNS_BELOW = 0.10978038369275409  # the τ from which on DiscoPOP's loss falls in m everywhere


@dataclass(frozen=True)
class Hinge(OfMargin):
    """max(0, 1 − m), m = β(h_w − h_l): linear up to m = 1, and nothing beyond.

    beta: β > 0 (stated by RSO: 0.05, there called γ). Source: Liu et al. 2023 (arXiv 2309.06657), RSO's hinge loss with
    a reference. SLiC-HF (Zhao et al. 2023, arXiv 2305.10425) has no reference, and a likelihood term: see slic.
    """

    beta: float = with_slider(0.05, BETA_RANGE)

    name = "hinge"
    label = "hinge"
    equation = "max(0, 1 − β(h_w − h_l))"
    source = "Liu et al. 2023, arXiv 2309.06657"
    start_value = 1.0
    start_equation = "1"
    optimum = "m ≥ 1"
    published = MappingProxyType({"beta": 0.05})
    shipped = (
        ships("trl 1.16.0", 'loss_type="hinge"', beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="hinge"', beta=0.1),
        ships("llamafactory 0.9.5", "pref_loss: hinge", beta=0.1),
        ships("oat c1a074c", "SLiC", "It is RSO's loss with a reference, not SLiC-HF's."),
        ships("oxRL 2a2bd5d", "hinge", "It names SLiC-HF as its source, whose loss has no reference.", beta=0.1),
    )
    notes = ("Pairs beyond m = 1 have no slope at all, so a training can come to a halt with a loss of exactly 0.",)
    look = Look(MARGIN_COLOR, "--", "v")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 1 at the reference, 0 from m = 1 on."""
        return F.relu(1 - self.margin_of(logps))


@dataclass(frozen=True)
class SquaredHinge(OfMargin):
    """max(0, 1 − m)², m = β(h_w − h_l): GPO's truncated quadratic.

    beta: β > 0 (0.1 is oxRL's default). Source: Tang et al. 2024 (arXiv 2402.05749), Table 1.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "squared-hinge"
    label = "squared hinge"
    equation = "max(0, 1 − β(h_w − h_l))²"
    source = _GPO
    start_value = 1.0
    start_equation = "1"
    optimum = "m ≥ 1"
    shipped = (ships("oxRL 2a2bd5d", "gpo, truncated_quadratic", beta=0.1),)
    look = Look(MARGIN_COLOR, "-.", "^")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 1 at the reference, 0 from m = 1 on."""
        return F.relu(1 - self.margin_of(logps)).square()


@dataclass(frozen=True)
class ExponentialDPO(OfMargin):
    """e^−m, m = β(h_w − h_l); below m = −40 straight on, along the tangent there.

    beta: β > 0 (0.1 is oxRL's default). Source: Tang et al. 2024 (arXiv 2402.05749), Table 1. The tangent is ours: e^−m
    overflows in float32 at m = −88.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "exp-dpo"
    label = "exponential"
    equation = "e^(−β(h_w − h_l))"
    source = _GPO
    start_value = 1.0
    start_equation = "1"
    shipped = (ships("oxRL 2a2bd5d", "gpo", "It is oxRL's default of GPO's curves.", beta=0.1),)
    notes = (
        "Below m = −40 this loss follows its tangent; the source's e^−m, and that of oxRL 2a2bd5d, is infinite in "
        "float32 below m = −88.",
    )
    look = Look(MARGIN_COLOR, (0, (1, 1)), ">")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 1 at the reference."""
        margin = self.margin_of(logps)
        near = margin.clamp(min=-_STEEPEST)
        return (-near).exp() * (1 + near - margin)


@dataclass(frozen=True)
class Savage(OfMargin):
    """σ(−m)², m = β(h_w − h_l): bounded, so that a pair that is ranked very wrongly counts little.

    beta: β > 0 (0.1 is oxRL's default). Source: Tang et al. 2024 (arXiv 2402.05749), Table 1.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "savage"
    label = "Savage"
    equation = "σ(−β(h_w − h_l))²"
    source = _GPO
    start_value = 0.25
    start_equation = "1/4"
    bounded_above = True
    shipped = (ships("oxRL 2a2bd5d", "gpo, savage", beta=0.1),)
    notes = ("The curve is not convex: it is steepest at m = −ln 2 and flat for pairs that are ranked very wrongly.",)
    look = Look(MARGIN_COLOR, (0, (3, 1, 1, 1)), "<")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, between 0 and 1; 1/4 at the reference."""
        return (-self.margin_of(logps)).sigmoid().square()


@dataclass(frozen=True)
class CauchyDPO(OfMargin):
    """−log(½ + atan(m)/π), m = β(h_w − h_l): Cauchy's distribution function where DPO has the logistic one.

    beta: β > 0 (0.1 is RainbowPO's default). Source: the code of RainbowPO (Zhao et al. 2024, arXiv 2410.04203).
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "cauchy"
    label = "Cauchy"
    equation = "−log(½ + atan(m)/π),  m = β(h_w − h_l)"
    source = "RainbowPO's code 6dccae3 (Zhao et al. 2024, arXiv 2410.04203)"
    start_value = math.log(2)
    start_equation = "ln 2"
    shipped = (ships("RainbowPO 6dccae3", 'loss_type="cauchy"', beta=0.1),)
    notes = (
        "For pairs that are ranked very wrongly the loss grows as ln(−πm) only, and its slope falls as 1/|m|.",
        "½ + atan(m)/π cancels there: RainbowPO 6dccae3 is infinite in float32 from about m = −1e7 on; here it is "
        "atan(−1/m)/π below m = −1.",
    )
    look = Look(MARGIN_COLOR, (0, (5, 1, 1, 1, 1, 1)), "H")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; ln 2 at the reference."""
        margin = self.margin_of(logps)
        far = (-1 / margin.clamp(max=-1.0)).atan()  # ½π + atan(m) for m ≤ −1, without cancelling
        angle = torch.where(margin < -1, far, math.pi / 2 + margin.clamp(min=-1.0).atan())
        return math.log(math.pi) - angle.log()


@dataclass(frozen=True)
class FocalPO(OfMargin):
    """−σ(m)^γ log σ(m), m = β(h_w − h_l), with σ(m)^γ detached: DPO that counts pairs the more, the better they rank.

    beta   β > 0.
    focus  γ ≥ 0; 0 is DPO, exactly.

    Source: Liu et al. 2025 (arXiv 2501.06645). The factor that is held fixed, and both defaults, are oxRL's.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    focus: float = with_slider(1.0, SliderRange(0.0, 3.0, 0.05))

    name = "focal-po"
    label = "FocalPO"
    equation = "−sg[σ(m)^γ] log σ(m),  m = β(h_w − h_l),  γ = focus,  sg: no gradient"
    source = "Liu et al. 2025, arXiv 2501.06645; with the factor held fixed, as oxRL ships it"
    start_equation = "2^−γ ln 2"
    shipped = (ships("oxRL 2a2bd5d", "focalpo", beta=0.1, focus=1.0),)
    notes = (
        "Whether the paper differentiates the factor is not settled here: its repository (9e55dc6) has no code.",
        "With the factor differentiated the slope in m is −σ(m)^γ σ(−m)(1 + γ log σ(m)): it turns at σ(m) = e^(−1/γ).",
        "The slopes are not those of the value: the value falls again for pairs that are ranked very wrongly.",
    )
    look = Look(MARGIN_COLOR, (0, (2, 1)), "p")

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_plain(self, focus=between("focus", self.focus, 0))

    @property
    def logistic(self) -> bool:
        """Return whether γ = 0."""
        return self.focus == 0

    @property
    def bounded_above(self) -> bool:
        """Return whether γ > 0."""
        return self.focus > 0

    @property
    def start_value(self) -> float:
        """Return 2^−γ ln 2, in nats."""
        return 2**-self.focus * math.log(2)

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; 2^−γ ln 2 at the reference."""
        log_share = F.logsigmoid(self.margin_of(logps))
        return -(self.focus * log_share.detach()).exp() * log_share


@dataclass(frozen=True)
class SPO(OfMargin):
    """−m σ(m), m = β(h_w − h_l), as oxRL ships it: it falls without end in m, and rises with m below m = −1.28.

    beta: β > 0 (0.1 is oxRL's default). Source: oxRL, after Sun et al. 2025 (Findings of EMNLP 2025, 300).
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "spo"
    label = "SPO, oxRL"
    equation = "−m σ(m),  m = β(h_w − h_l)"
    source = "oxRL 2a2bd5d, after Sun et al. 2025, doi 10.18653/v1/2025.findings-emnlp.300"
    start_value = 0.0
    start_equation = "0"
    bounded_below = False
    bounded_above = True
    winner_down = loser_up = True
    shipped = (ships("oxRL 2a2bd5d", "spo", "Its docstring calls the loss bounded below.", beta=0.1),)
    notes = (
        "The paper's abstract says that its loss is least at a finite margin, which prevents over-optimisation: this "
        "holds for −m σ(−m), least at m = 1.278; oxRL 2a2bd5d has −m σ(m), unbounded below.",
        "Where m < −1.278 the slope turns: the winner goes down and the loser up.",
    )
    look = Look(MARGIN_COLOR, (0, (3, 2, 1, 2, 1, 2)), "X")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 0 at the reference."""
        margin = self.margin_of(logps)
        return -margin * margin.sigmoid()


@dataclass(frozen=True)
class DiscoPOP(OfMargin):
    """(1 − σ(m/τ))(−log σ(m)) + σ(m/τ) e^−m, m = β(h_w − h_l): a mixture that was found by search.

    beta         β > 0 (stated: 0.05).
    temperature  τ in (0, 1] (stated: 0.05). Below τ = 0.11 the loss rises with m somewhere; beyond τ = 1 it would grow
                 exponentially for pairs that are ranked wrongly.

    Source: Lu et al. 2024 (arXiv 2406.08414), eq. 5. e^−m is never computed alone, since it overflows.
    """

    beta: float = with_slider(0.05, BETA_RANGE)
    temperature: float = with_slider(0.05, SliderRange(-2, 0, 0.05, log=True))

    name = "discopop"
    label = "DiscoPOP"
    equation = "(1 − σ(m/τ))(−log σ(m)) + σ(m/τ) e^(−m),  m = β(h_w − h_l),  τ = temperature"
    source = "Lu et al. 2024, arXiv 2406.08414"
    start_value = (1 + math.log(2)) / 2
    start_equation = "½ ln 2 + ½"
    published = MappingProxyType({"beta": 0.05, "temperature": 0.05})
    shipped = (
        ships("trl 1.16.0", 'loss_type="discopop"', beta=0.1, temperature=0.05),
        ships("liger-kernel 0.8.5", 'loss_type="discopop"', beta=0.1, temperature=0.05),
        ships("oxRL 2a2bd5d", "discopop", beta=0.1, temperature=0.05),
    )
    notes = (
        "At τ = 0.05 the loss rises with m from m = −0.119 to 0.072: at the reference, where a training begins, it "
        "pushes the winner down and the loser up.",
        "TRL 1.16.0, liger-kernel 0.8.5 and oxRL 2a2bd5d compute e^−m by itself: in float32 infinite times 0, which is "
        "NaN, for m < −88; here that product is exp(log σ(m/τ) − m).",
    )
    look = Look(MARGIN_COLOR, (0, (1, 2)), "D")

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_plain(self, temperature=between("temperature", self.temperature, 0, 1, open_low=True))

    @property
    def winner_down(self) -> bool:
        """Return whether τ < 0.10978."""
        return self.temperature < _TURNS_BELOW

    @property
    def loser_up(self) -> bool:
        """Return whether τ < 0.10978."""
        return self.temperature < _TURNS_BELOW

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; (1 + ln 2)/2 at the reference."""
        margin = self.margin_of(logps)
        scaled = margin / self.temperature
        return -(-scaled).sigmoid() * F.logsigmoid(margin) + (F.logsigmoid(scaled) - margin).exp()


FAMILY = "margin"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    Hinge, SquaredHinge, ExponentialDPO, Savage, CauchyDPO, FocalPO, SPO, DiscoPOP,
)  # fmt: skip
