"""Losses that look at each side by itself, not at the margin h_w − h_l alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, ships, with_slider
from gradlab.losses.pair import KnownLoss, PairLogps

_COLOR = "#3B4CC0"


class _Pointwise(Facts):
    """The facts that these losses share; β is checked."""

    antisymmetric = False
    winner_down = False
    loser_up = False

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))  # type: ignore[attr-defined]

    def _rewards(self, logps: PairLogps) -> tuple[Tensor, Tensor]:
        """Return βh_w and βh_l."""
        beta = self.beta  # type: ignore[attr-defined]
        return beta * logps.win_logratio, beta * logps.lose_logratio


@dataclass(frozen=True)
class NCA(_Pointwise):
    """−log σ(βh_w) − ½ log σ(−βh_w) − ½ log σ(−βh_l): the winner's reward comes to rest at ln 2.

    beta: β > 0 (stated: 0.01). Source: Chen et al. 2024 (arXiv 2402.05369), the loss for two responses of which one is
    preferred.
    """

    beta: float = with_slider(0.01, BETA_RANGE)

    name = "nca"
    label = "NCA"
    equation = "−log σ(βh_w) − ½ log σ(−βh_w) − ½ log σ(−βh_l)"
    source = "Chen et al. 2024, arXiv 2402.05369"
    start_value = 2 * math.log(2)
    start_equation = "2 ln 2"
    winner_down = True
    optimum = "βh_w = ln 2"
    rho = "|σ(−βh_w) − ½σ(βh_w)| / ½σ(βh_l)"
    published = MappingProxyType({"beta": 0.01})
    shipped = (
        ships("trl 1.16.0", 'loss_type="nca_pair"', "β is 0.1, the paper's 0.01.", beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="nca_pair"', "β is 0.1, the paper's 0.01.", beta=0.1),
        ships("oxRL 2a2bd5d", "nca", "β is 0.1, the paper's 0.01.", beta=0.1),
    )
    notes = (
        "The winner is pushed down where βh_w > ln 2; the loser is pushed down everywhere, so only the winner has an "
        "optimum.",
    )
    look = Look(_COLOR, "-", "d")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; 2 ln 2 at the reference."""
        win, lose = self._rewards(logps)
        return -F.logsigmoid(win) - 0.5 * F.logsigmoid(-win) - 0.5 * F.logsigmoid(-lose)


@dataclass(frozen=True)
class BCO(_Pointwise):
    """−log σ(βh_w) − log σ(−βh_l), as TRL ships it: the paper's shift of the rewards is left out.

    beta: β > 0 (stated: 0.01). Source: Jung et al. 2024 (arXiv 2404.04656), with δ = 0.
    """

    beta: float = with_slider(0.01, BETA_RANGE)

    name = "bco"
    label = "BCO, δ = 0"
    equation = "−log σ(βh_w) − log σ(−βh_l)"
    source = "Jung et al. 2024, arXiv 2404.04656; without its shift δ, as TRL ships it"
    start_value = 2 * math.log(2)
    start_equation = "2 ln 2"
    rho = "σ(−βh_w)/σ(βh_l)"
    published = MappingProxyType({"beta": 0.01})
    shipped = (
        ships("trl 1.16.0", 'loss_type="bco_pair"', "β is 0.1, the paper's 0.01.", beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="bco_pair"', "β is 0.1, the paper's 0.01.", beta=0.1),
        ships("oxRL 2a2bd5d", "bco", "β is 0.1, the paper's 0.01.", beta=0.1),
    )
    notes = (
        "The paper shifts both rewards by δ, a running mean of rewards: −log σ(βh_w − δ) − log σ(δ − βh_l), with "
        "ρ = σ(δ − βh_w)/σ(βh_l − δ); TRL 1.16.0, liger-kernel 0.8.5 and oxRL 2a2bd5d do not.",
        "llamafactory 0.9.5 has the shift, in the term that pref_bco_weight adds to another loss.",
    )
    look = Look(_COLOR, "--", "D")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; 2 ln 2 at the reference."""
        win, lose = self._rewards(logps)
        return -F.logsigmoid(win) - F.logsigmoid(-lose)


@dataclass(frozen=True)
class APOZero(_Pointwise):
    """1 − σ(βh_w) + σ(βh_l): the winner up and the loser down, each the less the farther it has come.

    beta: β > 0 (stated: 0.1). Source: D'Oosterlinck et al. 2024 (arXiv 2408.06266), eq. 7.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "apo-zero"
    label = "APO-zero"
    equation = "1 − σ(βh_w) + σ(βh_l)"
    source = "D'Oosterlinck et al. 2024, arXiv 2408.06266"
    start_value = 1.0
    start_equation = "1"
    bounded_above = True
    rho = "σ′(βh_w)/σ′(βh_l),  σ′(z) = σ(z)σ(−z)"
    published = MappingProxyType({"beta": 0.1})
    shipped = (
        ships("trl 1.16.0", 'loss_type="apo_zero"', beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="apo_zero"', beta=0.1),
        ships("oxRL 2a2bd5d", "apo", "Its value is less by 1; slopes are the same.", beta=0.1),
    )
    notes = ("Both slopes vanish far from the reference on either side, also for a pair that is ranked wrongly.",)
    look = Look(_COLOR, "-.", "p")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, between 0 and 2; 1 at the reference."""
        win, lose = self._rewards(logps)
        return (-win).sigmoid() + lose.sigmoid()


@dataclass(frozen=True)
class APODown(_Pointwise):
    """σ(βh_w) + 1 − σ(β(h_w − h_l)): both sides down, the loser more.

    beta: β > 0 (stated: 0.1). Source: D'Oosterlinck et al. 2024 (arXiv 2408.06266), eq. 8.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "apo-down"
    label = "APO-down"
    equation = "σ(βh_w) + 1 − σ(β(h_w − h_l))"
    source = "D'Oosterlinck et al. 2024, arXiv 2408.06266"
    start_value = 1.0
    start_equation = "1"
    bounded_above = True
    winner_down = True
    rho = "|σ′(βh_w) − σ′(β(h_w − h_l))| / σ′(β(h_w − h_l)),  σ′(z) = σ(z)σ(−z)"
    published = MappingProxyType({"beta": 0.1})
    shipped = (
        ships("trl 1.16.0", 'loss_type="apo_down"', beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="apo_down"', beta=0.1),
        ships("oxRL 2a2bd5d", "apo, down", "Its value is less by 1; slopes are the same.", beta=0.1),
    )
    notes = (
        "At the reference the winner has no slope: a training begins by moving losers only.",
        "The winner is pushed down wherever |h_w − h_l| > |h_w|, as intended: the loss is for winners worse than what "
        "the model writes.",
    )
    look = Look(_COLOR, ":", "v")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, between 0 and 2; 1 at the reference."""
        win, lose = self._rewards(logps)
        return win.sigmoid() + (lose - win).sigmoid()


@dataclass(frozen=True)
class SPPO(_Pointwise):
    """(h_w − 1/(2β))² + (h_l + 1/(2β))², as TRL ships it: the winner always wins, the loser never does.

    beta: β > 0, the paper's 1/η (stated: 0.001, so that the targets are ±500 nats). Source: Wu et al. 2024
    (arXiv 2405.00675), eq. 4.7 with win rates of 1 and 0. The paper estimates win rates from samples of the policy, and
    the reference is the policy of the round before.
    """

    beta: float = with_slider(1e-3, BETA_RANGE)

    name = "sppo"
    label = "SPPO, hard"
    equation = "(h_w − 1/(2β))² + (h_l + 1/(2β))²"
    source = "Wu et al. 2024, arXiv 2405.00675; with hard labels, as TRL ships it"
    start_equation = "1/(2β²)"
    winner_down = loser_up = True
    optimum = "h_w = 1/(2β),  h_l = −1/(2β)"
    rho = "|h_w − 1/(2β)| / |h_l + 1/(2β)|"
    published = MappingProxyType({"beta": 1e-3})
    shipped = (
        ships("trl 1.16.0", 'loss_type="sppo_hard"', "β is 0.1, the paper's 0.001.", beta=0.1),
        ships("liger-kernel 0.8.5", 'loss_type="sppo_hard"', "β is 0.1, the paper's 0.001.", beta=0.1),
        ships("oxRL 2a2bd5d", "sppo", "β is 0.1, the paper's 0.001.", beta=0.1),
    )
    notes = (
        "The paper has soft win rates, samples of the policy itself, and the last round's policy as reference; TRL "
        "1.16.0 has none of the three.",
        "Value and slopes grow as β falls, so a learning rate belongs to one β.",
        "Beyond its target a side is pushed back: the winner down, the loser up.",
    )
    look = Look(_COLOR, (0, (4, 2, 1, 2)), "*")

    @property
    def start_value(self) -> float:
        """Return 1/(2β²), in nats squared."""
        return 0.5 / self.beta / self.beta

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats squared; 1/(2β²) at the reference."""
        target = 1 / (2 * self.beta)
        return (logps.win_logratio - target).square() + (logps.lose_logratio + target).square()


FAMILY = "pointwise"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    NCA, BCO, APOZero, APODown, SPPO,
)  # fmt: skip
