"""Losses of the margin h_w − h_l: both sides get the same slope in log π, with opposite signs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, SliderRange, ships, with_slider
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps

MARGIN_COLOR = "#A6761D"


class OfMargin(Facts):
    """The facts of a function of m = β(h_w − h_l) alone: its slopes in log π differ only in their sign."""

    antisymmetric = False
    rho = "1"
    weight_range = (0.5, 0.5)
    constant_weight = True

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))  # type: ignore[attr-defined]

    def margin_of(self, logps: PairLogps) -> Tensor:
        """Return m, in the pairs' shape."""
        return self.beta * (logps.win_logratio - logps.lose_logratio)  # type: ignore[attr-defined]


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
    shipped = (
        ships(
            "trl 1.16.0", 'loss_type="sigmoid"', "It ignores label_smoothing, which TRL 0.24 took for cDPO.", beta=0.1,
        ),
        ships("liger-kernel 0.8.5", 'loss_type="sigmoid"', "It ignores label_smoothing.", beta=0.1),
        ships("openrlhf 0.11.2", "train_dpo", beta=0.1),
        ships("llamafactory 0.9.5", "pref_loss: sigmoid", beta=0.1),
        ships("HALOs 4831988", "loss=dpo", beta=0.1),
        ships("oxRL 2a2bd5d", "dpo", beta=0.1),
    )  # fmt: skip
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
class ConservativeDPO(OfMargin):
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
    logistic = True  # a mean of two −log σ; m is antisymmetric, but the loss is not −log σ(m)
    start_value = math.log(2)
    start_equation = "ln 2"
    shipped = (
        ships("HALOs 4831988", "loss=cdpo", "ε is called epsilon.", beta=0.1, label_smoothing=0.2),
        ships("oxRL 2a2bd5d", "cdpo", beta=0.1, label_smoothing=0.1),
        ships(
            "openrlhf 0.11.2",
            "--model.label_smoothing",
            "The default ε is 0, which is DPO.",
            beta=0.1,
            label_smoothing=0.0,
        ),
        ships(
            "llamafactory 0.9.5",
            "dpo_label_smoothing",
            "The default ε is 0, which is DPO.",
            beta=0.1,
            label_smoothing=0.0,
        ),
    )
    notes = (
        "Winner and loser trade places beyond m = log((1 − ε)/ε): EXO is least at the same margin.",
        'TRL 1.16.0 ignores label_smoothing for loss_type="sigmoid": this loss can no longer be asked for there.',
    )
    look = Look("#6B6B00", (0, (5, 1, 1, 1)), "8")

    def __post_init__(self) -> None:
        super().__post_init__()
        smoothing = between("label_smoothing", self.label_smoothing, 0, 0.5, open_high=True)
        keep_plain(self, label_smoothing=smoothing)

    @property
    def winner_down(self) -> bool:
        """Return whether ε > 0."""
        return self.label_smoothing > 0

    @property
    def loser_up(self) -> bool:
        """Return whether ε > 0."""
        return self.label_smoothing > 0

    @property
    def optimum(self) -> str:
        """Return m = log((1 − ε)/ε), which is finite for ε > 0."""
        return "m = log((1 − ε)/ε)" if self.label_smoothing else ""

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; ln 2 at the reference."""
        margin = self.margin_of(logps)
        as_labelled, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
        return (1 - self.label_smoothing) * as_labelled + self.label_smoothing * flipped


@dataclass(frozen=True)
class RobustDPO(OfMargin):
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
        ships(
            "trl 1.16.0", 'loss_type="robust"', "The default ε of 0 is DPO; an ε outside of [0, ½) only warns.",
            beta=0.1, label_smoothing=0.0,
        ),
        ships("liger-kernel 0.8.5", 'loss_type="robust"', "The default ε of 0 is DPO.", beta=0.1, label_smoothing=0.0),
    )  # fmt: skip
    notes = (
        "For ε > 0 the loss is unbounded below: it tends to −εm/(1 − 2ε), and its slope in m to −ε/(1 − 2ε), not to 0.",
        "oxRL 2a2bd5d (May 2026) adds both terms of robust_dpo where the paper subtracts: cDPO divided by 1 − 2ε.",
    )
    look = Look(MARGIN_COLOR, "--", "X")

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
        margin, smoothing = self.margin_of(logps), self.label_smoothing
        # log σ(−m) = log σ(m) − m, so that no large terms cancel.
        return -F.logsigmoid(margin) - (smoothing / (1 - 2 * smoothing)) * margin


@dataclass(frozen=True)
class EXO(OfMargin):
    """σ(m) log(σ(m)/(1 − ε)) + σ(−m) log(σ(−m)/ε): the divergence of the policy's preference from the label's.

    beta             β > 0 (stated: 0.1).
    label_smoothing  ε in (0, ½) (stated: 0.001): the label is 1 − ε for the winner.

    Source: Ji et al. 2024 (arXiv 2402.00856), eq. 16 for two responses. The divergence is KL(policy ‖ label), the
    opposite of cDPO's up to a constant; both are least at m = log((1 − ε)/ε).
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    label_smoothing: float = with_slider(1e-3, SliderRange(-4, -0.35, 0.05, log=True))

    name = "exo"
    label = "EXO"
    equation = "σ(m) log(σ(m)/(1 − ε)) + σ(−m) log(σ(−m)/ε),  m = β(h_w − h_l),  ε = label_smoothing"
    source = "Ji et al. 2024, arXiv 2402.00856"
    start_equation = "−ln 2 − ½ ln(ε(1 − ε))"
    bounded_above = True
    winner_down = loser_up = True
    optimum = "m = log((1 − ε)/ε)"
    published = MappingProxyType({"beta": 0.1, "label_smoothing": 1e-3})
    shipped = (
        ships(
            "trl 1.16.0", 'loss_type="exo_pair"', "The default ε of 0 is refused.", beta=0.1, label_smoothing=1e-3,
        ),
        ships(
            "liger-kernel 0.8.5", 'loss_type="exo_pair"', "The default ε of 0 is refused.",
            beta=0.1, label_smoothing=1e-3,
        ),
        ships("oxRL 2a2bd5d", "exo", beta=0.1, label_smoothing=1e-3),
    )  # fmt: skip
    notes = (
        "The slope in m is σ(m)σ(−m)(m − log((1 − ε)/ε)): it turns beyond that margin, and vanishes for pairs that are "
        "ranked very wrongly.",
    )
    look = Look(MARGIN_COLOR, "-.", "h")

    def __post_init__(self) -> None:
        super().__post_init__()
        smoothing = between("label_smoothing", self.label_smoothing, 0, 0.5, open_low=True, open_high=True)
        keep_plain(self, label_smoothing=smoothing)

    @property
    def start_value(self) -> float:
        """Return −ln 2 − ½ ln(ε(1 − ε)), in nats."""
        return -math.log(2) - (math.log(self.label_smoothing) + math.log1p(-self.label_smoothing)) / 2

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats; 0 at m = log((1 − ε)/ε)."""
        margin, smoothing = self.margin_of(logps), self.label_smoothing
        of_win = margin.sigmoid() * (F.logsigmoid(margin) - math.log1p(-smoothing))
        return of_win + (-margin).sigmoid() * (F.logsigmoid(-margin) - math.log(smoothing))


@dataclass(frozen=True)
class IPO(OfMargin):
    """(h_w − h_l − 1/(2β))²; log-probabilities of whole responses, summed over tokens and not averaged.

    beta: β > 0, the paper's τ (default ours). Source: Azar et al. 2023 (arXiv 2310.12036), eq. 17.
    """

    beta: float = with_slider(1.0, BETA_RANGE)

    name = "ipo"
    label = "IPO"
    equation = "(h_w − h_l − 1/(2β))²"
    source = "Azar et al. 2023, arXiv 2310.12036"
    start_equation = "1/(4β²)"
    winner_down = loser_up = True
    optimum = "h_w − h_l = 1/(2β)"
    convention = "sums over tokens; TRL, HALOs and LLaMA-Factory average: see trl-ipo"
    shipped = (
        ships("eric-mitchell/direct-preference-optimization f8b8c0f", "loss=ipo"),
        ships("openrlhf 0.11.2", "--model.ipo_enable", beta=0.1),
        ships("oat c1a074c", "IPO"),
        ships("oxRL 2a2bd5d", "ipo", beta=0.1),
    )
    notes = (
        "Four conventions are in use: sums over tokens (here), means over tokens (trl-ipo), RainbowPO's (m − ½)², and "
        "HALOs' means over the tokens whose log-ratio is not 0, which is 0/0 at the reference.",
    )
    look = Look(MARGIN_COLOR, (0, (4, 2, 1, 2)), "*")

    @property
    def start_value(self) -> float:
        """Return 1/(4β²), in nats squared."""
        return 0.25 / self.beta / self.beta

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats squared; 1/(4β²) at the reference."""
        return (logps.win_logratio - logps.lose_logratio - 1 / (2 * self.beta)).square()


@dataclass(frozen=True)
class ODPO(LogisticLoss):
    """−log σ(β(h_w − h_l) − γ): DPO with an offset, the same for all pairs.

    beta   β > 0.
    gamma  γ ≥ 0, the offset of the margin m, in nats; 0 is DPO.

    Source: Amini et al. 2024 (arXiv 2402.10571), whose offset grows with the difference of the two responses' scores,
    pair by pair. A constant one, and both defaults, are oxRL's.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    gamma: float = with_slider(1.0, SliderRange(0.0, 5.0, 0.05))

    name = "odpo"
    label = "ODPO, constant"
    equation = "−log σ(β(h_w − h_l) − γ)"
    source = "Amini et al. 2024, arXiv 2402.10571; with a constant offset, as oxRL ships it"
    start_equation = "ln(1 + e^γ)"
    rho = "1"
    weight_range = (0.5, 0.5)
    constant_weight = True
    shipped = (ships("oxRL 2a2bd5d", "odpo", "The offset is constant.", beta=0.1, gamma=1.0),)
    notes = ("The paper's offset is a function of the scores of both responses; these losses know no scores.",)
    look = Look(MARGIN_COLOR, ":", "d")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), gamma=between("gamma", self.gamma, 0))

    @property
    def antisymmetric(self) -> bool:
        """Return whether γ = 0: elsewhere the swapped pair has another margin."""
        return self.gamma == 0

    @property
    def start_value(self) -> float:
        """Return ln(1 + e^γ), in nats."""
        return self.gamma + math.log1p(math.exp(-self.gamma))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return β(h_w − h_l) − γ."""
        return self.beta * (logps.win_logratio - logps.lose_logratio) - self.gamma


@dataclass(frozen=True)
class LengthRegularizedDPO(LogisticLoss):
    """−log σ(β(h_w − h_l) + α(L_w − L_l)): R-DPO; a winner that is longer is pushed up less.

    beta            β > 0.
    length_penalty  α in nats per token; 0 is DPO, a negative number favours longer winners.

    Source: Park et al. 2024 (arXiv 2403.19159), eq. 9. The defaults are oxRL's. The sign follows from the paper's
    objective: a reward r less α tokens' worth has the optimum π ∝ π_ref exp((r − αL)/β), so that r = βh + αL + const.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    length_penalty: float = with_slider(0.01, SliderRange(0.0, 0.5, 0.005))

    name = "r-dpo"
    label = "R-DPO"
    equation = "−log σ(β(h_w − h_l) + α(L_w − L_l)),  α = length_penalty"
    source = "Park et al. 2024, arXiv 2403.19159"
    start_equation = "ln(1 + e^(−α(L_w − L_l)))"
    needs_lengths = True
    rho = "1"
    antisymmetric = True
    weight_range = (0.5, 0.5)
    constant_weight = True
    shipped = (
        ships(
            "oat c1a074c", "LR_DPO", "It adds (α/β)(L_w − L_l) to h_w − h_l, which is this loss; α is 0 by default.",
            length_penalty=0.0,
        ),
        ships(
            "oxRL 2a2bd5d", "rdpo", "It subtracts α(L_w − L_l), with α = 0.01: the opposite sign.",
            beta=0.1, length_penalty=-0.01,
        ),
    )  # fmt: skip
    notes = (
        "oxRL 2a2bd5d subtracts the term, which weighs pairs with a longer winner more, against its docstring and the "
        "paper's aim; oat c1a074c adds it.",
    )
    look = Look(MARGIN_COLOR, (0, (5, 1)), "P")

    def __post_init__(self) -> None:
        penalty = between("length_penalty", self.length_penalty, -math.inf)
        keep_plain(self, beta=positive("beta", self.beta), length_penalty=penalty)

    @property
    def start_value(self) -> float | None:
        """Return None, since the lengths differ from pair to pair; ln 2 without a penalty."""
        return None if self.length_penalty else math.log(2)

    def margin(self, logps: PairLogps) -> Tensor:
        """Return β(h_w − h_l) + α(L_w − L_l). ValueError for pairs without lengths."""
        win_len, lose_len = logps.lengths(self.name)
        by_length = self.length_penalty * (win_len - lose_len)
        return self.beta * (logps.win_logratio - logps.lose_logratio) + by_length


FAMILY = "margin"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    DPO, ConservativeDPO, RobustDPO, EXO, IPO, ODPO, LengthRegularizedDPO,
)  # fmt: skip
