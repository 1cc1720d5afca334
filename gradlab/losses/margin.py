"""Losses that depend only on h_w − h_l: both sides get the same slope in log π, with opposite signs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, Shipped, SliderRange, with_slider
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps


@dataclass(frozen=True)
class DPO(LogisticLoss):
    """−log σ(β(h_w − h_l)).

    beta: β > 0, inverse temperature (stated: 1). Source: Rafailov et al. 2023 (arXiv 2305.18290), eq. 7.
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "dpo"
    label = "DPO"
    equation = "−log σ(β(h_w − h_l))"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    rho = "1"
    published = MappingProxyType({"beta": 0.1})
    antisymmetric = True
    weight_range = (0.5, 0.5)
    constant_weight = True
    look = Look("#000000", "-", "o")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(h_w − h_l)."""
        return self.beta * (logps.win_logratio - logps.lose_logratio)


@dataclass(frozen=True)
class ConservativeDPO(Facts):
    """−(1 − ε) log σ(m) − ε log σ(−m), m = β(h_w − h_l): DPO expected under labels that are wrong with probability ε.

    beta             β > 0, inverse temperature.
    label_smoothing  ε in [0, ½); 0 is DPO, exactly. For ε > 0 the loss is least at m = log((1 − ε)/ε).

    Source: Mitchell 2023, "A note on DPO with noisy preferences & relationship to IPO", eq. 3. The defaults are ours.
    """

    beta: float = with_slider(1.0, BETA_RANGE)
    label_smoothing: float = with_slider(0.1, SliderRange(0.0, 0.45, 0.05))

    name = "cdpo"
    label = "cDPO"
    equation = "−(1 − ε) log σ(m) − ε log σ(−m),  m = β(h_w − h_l),  ε = label_smoothing"
    source = "Mitchell 2023, https://ericmitchell.ai/cdpo.pdf"
    rho = "1"
    antisymmetric = False  # m is antisymmetric, but the loss is not −log σ(m)
    logistic = True  # a mean of two −log σ
    start_value = math.log(2)
    start_equation = "ln 2"
    weight_range = (0.5, 0.5)
    constant_weight = True
    winner_down = loser_up = True
    optimum = "m = log((1 − ε)/ε)"
    look = Look("#6B6B00", (0, (5, 1, 1, 1)), "8")

    def __post_init__(self) -> None:
        smoothing = between("label_smoothing", self.label_smoothing, 0, 0.5, open_high=True)
        keep_plain(self, beta=positive("beta", self.beta), label_smoothing=smoothing)

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; ln 2 at the reference."""
        margin = self.beta * (logps.win_logratio - logps.lose_logratio)
        as_labelled, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return (1 - self.label_smoothing) * as_labelled + self.label_smoothing * flipped


@dataclass(frozen=True)
class IPO(Facts):
    """(h_w − h_l − 1/(2β))²; log-probabilities of whole responses, summed over tokens and not averaged.

    beta: β > 0, the paper's τ (default ours). Source: Azar et al. 2023 (arXiv 2310.12036), eq. 17.
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "ipo"
    label = "IPO"
    equation = "(h_w − h_l − 1/(2β))²"
    source = "Azar et al. 2023, arXiv 2310.12036"
    rho = "1"
    antisymmetric = False
    start_equation = "1/(4β²)"
    weight_range = (0.5, 0.5)
    constant_weight = True
    winner_down = loser_up = True
    optimum = "h_w − h_l = 1/(2β)"
    look = Look("#A6761D", (0, (4, 2, 1, 2)), "*")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    @property
    def start_value(self) -> float:
        """Return 1/(4β²), in nats squared."""
        return 0.25 / self.beta / self.beta

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats squared; 1/(4β²) at the reference."""
        return (logps.win_logratio - logps.lose_logratio - 1 / (2 * self.beta)).square()


class _OfMargin(Facts):
    """The facts of a function of m = β(h_w − h_l) alone: its slopes in log π differ only in their sign."""

    antisymmetric = False
    rho = "1"
    weight_range = (0.5, 0.5)
    constant_weight = True

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))  # type: ignore[attr-defined]

    def _margin(self, logps: PairLogps) -> Tensor:
        return self.beta * (logps.win_logratio - logps.lose_logratio)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class RobustDPO(_OfMargin):
    """[−(1 − ε) log σ(m) + ε log σ(−m)]/(1 − 2ε): DPO's loss of true labels, in expectation over labels with noise.

    beta             β > 0 (stated: 0.1).
    label_smoothing  ε in [0, ½) (stated: 0.1); 0 is DPO, exactly. For ε > 0 the loss falls without end in m.

    Source: Chowdhury et al. 2024 (arXiv 2403.00409), the unbiased loss of section 3.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    label_smoothing: float = with_slider(0.1, SliderRange(0.0, 0.45, 0.05))

    name = "robust"
    label = "robust DPO"
    equation = "[−(1 − ε) log σ(m) + ε log σ(−m)]/(1 − 2ε),  m = β(h_w − h_l),  ε = label_smoothing"
    source = "Chowdhury et al. 2024, arXiv 2403.00409"
    start_value = math.log(2)
    start_equation = "ln 2"
    published = MappingProxyType({"beta": 0.1, "label_smoothing": 0.1})
    shipped = (
        Shipped(
            "trl 1.16.0", 'loss_type="robust"', MappingProxyType({"beta": 0.1, "label_smoothing": 0.0}),
            "The default ε of 0 is DPO; an ε outside of [0, ½) only warns.",
        ),
    )  # fmt: skip
    notes = (
        "For ε > 0 the loss is unbounded below: it tends to −εm/(1 − 2ε), and its slope in m to −ε/(1 − 2ε), not to 0.",
        "oxRL 2a2bd5d (May 2026) adds both terms of robust_dpo where the paper subtracts: cDPO divided by 1 − 2ε.",
    )
    look = Look("#A6761D", "--", "X")

    def __post_init__(self) -> None:
        super().__post_init__()
        smoothing = between("label_smoothing", self.label_smoothing, 0, 0.5, open_high=True)
        keep_plain(self, label_smoothing=smoothing)

    @property
    def logistic(self) -> bool:
        """Return whether ε = 0: elsewhere a term −log σ has a negative weight."""
        return self.label_smoothing == 0

    @property
    def bounded_below(self) -> bool:
        """Return whether ε = 0."""
        return self.label_smoothing == 0

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; ln 2 at the reference."""
        margin, smoothing = self._margin(logps), self.label_smoothing
        # log σ(−m) = log σ(m) − m, so that no large terms cancel.
        return -F.logsigmoid(margin) - (smoothing / (1 - 2 * smoothing)) * margin


FAMILY = "margin"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (DPO, ConservativeDPO, RobustDPO, IPO)  # registered, each under its name
