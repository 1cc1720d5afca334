"""Losses that also hold log-ratios in place: a squared term ties each side, or the sum of both, to a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, SliderRange, ships, with_slider
from gradlab.losses.pair import KnownLoss, PairLogps

_COLOR = "#117733"


class _Anchored(Facts):
    """The facts that these losses share; both numbers are checked."""

    antisymmetric = False

    def __post_init__(self) -> None:
        weight = between("anchor_weight", self.anchor_weight, 0)  # type: ignore[attr-defined]
        keep_plain(self, beta=positive("beta", self.beta), anchor_weight=weight)  # type: ignore[attr-defined]

    @property
    def logistic(self) -> bool:
        """Return whether λ = 0."""
        return self.anchor_weight == 0  # type: ignore[attr-defined]

    @property
    def winner_down(self) -> bool:
        """Return whether λ > 0."""
        return self.anchor_weight > 0  # type: ignore[attr-defined]

    @property
    def loser_up(self) -> bool:
        """Return whether λ > 0."""
        return self.anchor_weight > 0  # type: ignore[attr-defined]

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return the ends of λ_w: without the squared term both sides weigh the same."""
        return (0.0, 1.0) if self.anchor_weight else (0.5, 0.5)  # type: ignore[attr-defined]

    @property
    def constant_weight(self) -> bool:
        """Return whether λ = 0."""
        return self.anchor_weight == 0  # type: ignore[attr-defined]


@dataclass(frozen=True)
class CalDPO(_Anchored):
    """−log σ(h_w − h_l) + λ[(h_w − 1/(2β))² + (h_l + 1/(2β))²]: each side has a target of its own.

    beta           β > 0; it sets the targets ±1/(2β) nats, and is not in the logistic term.
    anchor_weight  λ ≥ 0 (½ in the authors' code); 0 is DPO at β = 1.

    Source: Xiao et al. 2024 (arXiv 2412.14516), with the authors' code (7d16b46, December 2024), whose script trains
    with β = 0.01.
    """

    beta: float = with_slider(0.01, BETA_RANGE)
    anchor_weight: float = with_slider(0.5, SliderRange(-4, 1, 0.05, log=True))

    name = "cal-dpo"
    label = "Cal-DPO"
    equation = "−log σ(h_w − h_l) + λ[(h_w − 1/(2β))² + (h_l + 1/(2β))²],  λ = anchor_weight"
    source = "Xiao et al. 2024, arXiv 2412.14516"
    start_equation = "ln 2 + λ/(2β²)"
    optimum = "h_w = −h_l = 1/(2β) + z,  2λz = σ(−1/β − 2z)"
    rho = "|−σ(h_l − h_w) + 2λ(h_w − 1/(2β))| / |σ(h_l − h_w) + 2λ(h_l + 1/(2β))|"
    shipped = (
        ships(
            "tengxiao1/Cal-DPO 7d16b46", "loss_type=Cal-DPO", "β is that of its script.",
            beta=0.01, anchor_weight=0.5,
        ),
        ships("oxRL 2a2bd5d", "caldpo", "The squares weigh twice what the authors' code gives them.",
              beta=0.1, anchor_weight=1.0),
    )  # fmt: skip
    notes = (
        "The authors' code has ½ before the squares, oxRL 2a2bd5d has 1: the slopes of these terms double.",
        "Beyond its target a side is pushed back: the winner down, the loser up.",
    )
    look = Look(_COLOR, "-", "P")

    @property
    def start_value(self) -> float:
        """Return ln 2 + λ/(2β²)."""
        return math.log(2) + self.anchor_weight / 2 / self.beta / self.beta

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; ln 2 + λ/(2β²) at the reference."""
        win, lose, target = logps.win_logratio, logps.lose_logratio, 1 / (2 * self.beta)
        return -F.logsigmoid(win - lose) + self.anchor_weight * ((win - target).square() + (lose + target).square())


@dataclass(frozen=True)
class C2DPO(_Anchored):
    """−log σ(β(h_w − h_l)) + λ(h_w + h_l)²: what one side gains, the other loses.

    beta           β > 0 (0.1 is oxRL's default).
    anchor_weight  λ ≥ 0 (2e-4 is oxRL's default, which it calls the paper's); 0 is DPO.

    Source: Asadi et al. 2025 (arXiv 2502.17507), the form with log-ratios and a squared constraint, as in oxRL.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    anchor_weight: float = with_slider(2e-4, SliderRange(-4, 1, 0.05, log=True))

    name = "c2-dpo"
    label = "C2-DPO"
    equation = "−log σ(β(h_w − h_l)) + λ(h_w + h_l)²,  λ = anchor_weight"
    source = "Asadi et al. 2025, arXiv 2502.17507"
    start_value = math.log(2)
    start_equation = "ln 2"
    rho = "|−βσ(−m) + 2λ(h_w + h_l)| / |βσ(−m) + 2λ(h_w + h_l)|,  m = β(h_w − h_l)"
    shipped = (ships("oxRL 2a2bd5d", "c2dpo", beta=0.1, anchor_weight=2e-4),)
    notes = (
        "The paper has several constraints on a pair's probability mass; this is one of them, after oxRL 2a2bd5d.",
        "The docstring of oxRL 2a2bd5d says that both sides must rise together; the term ties h_w to −h_l instead.",
    )
    look = Look(_COLOR, "--", "s")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; ln 2 at the reference."""
        win, lose = logps.win_logratio, logps.lose_logratio
        return -F.logsigmoid(self.beta * (win - lose)) + self.anchor_weight * (win + lose).square()


FAMILY = "anchored"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (CalDPO, C2DPO)  # registered, each under its name
