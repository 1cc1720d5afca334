"""Losses that couple the pairs of a batch: by ranks, by a shared zero point, by soft minima, or by means over it.

Means over a batch, ranks and spreads see the pairs' weights: integer weights, scaled to 1 in sum, give what repeating
the pairs gives.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Look, Shipped, SliderRange, with_slider
from gradlab.losses.pair import BatchLoss, PairLogps
from gradlab.losses.reference_free import GAMMA_RANGE, MEANS, token_means

_COLOR = "#332288"
_LEAST_SPREAD = 1e-6  # in place of a smaller standard deviation as a divisor


class _SortedLoss(BatchLoss):
    """−log σ(β(a_i − b_j)), where a and b are two numbers of each pair, and a_i meets the b_j of its own rank.

    Pairs of unequal weight meet by the quantiles of both weighted samples: a pair's value is the mean over the parts of
    its weight.
    """

    logistic = True
    start_value = math.log(2)
    start_equation = "ln 2"
    published = MappingProxyType({"beta": 0.01, "label_smoothing": 0.0})

    def __post_init__(self) -> None:
        smoothing = between("label_smoothing", self.label_smoothing, 0, 0.5, open_high=True)  # type: ignore[attr-defined]
        keep_plain(self, beta=positive("beta", self.beta), label_smoothing=smoothing)  # type: ignore[attr-defined]

    @property
    def winner_down(self) -> bool:
        """Return whether labels are smoothed."""
        return self.label_smoothing > 0  # type: ignore[attr-defined]

    @property
    def loser_up(self) -> bool:
        """Return whether labels are smoothed."""
        return self.label_smoothing > 0  # type: ignore[attr-defined]

    @property
    def optimum(self) -> str:
        """Return where each β(a_i − b_j) comes to rest under smoothed labels."""
        return "m = log((1 − ε)/ε) in every rank" if self.label_smoothing > 0 else ""  # type: ignore[attr-defined]

    @abstractmethod
    def _sides(self, logps: PairLogps) -> tuple[Tensor, Tensor]:
        """Return a and b."""

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return −(1 − ε) log σ(m) − ε log σ(−m), m = β(a_i − b_j), at the pair i, in nats."""
        first, second = torch.broadcast_tensors(*self._sides(logps))
        return _coupled(first, second, self._cost, _checked(weights, first))

    def _cost(self, lead: Tensor) -> Tensor:
        margin, smoothing = self.beta * lead, self.label_smoothing  # type: ignore[attr-defined]
        return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


@dataclass(frozen=True)
class AOT(_SortedLoss):
    """−log σ(β(d_(i) − r_(i))), d = log π_w − log π_l and r = log π_ref,w − log π_ref,l, each sorted over the batch.

    beta             β > 0.
    label_smoothing  ε in [0, ½).

    Source: Melnyk et al. 2024 (arXiv 2406.05882), alignment by optimal transport, paired. A batch of one pair is DPO.
    """

    beta: float = with_slider(0.01, BETA_RANGE)
    label_smoothing: float = with_slider(0.0, SliderRange(0.0, 0.45, 0.05))

    name = "aot"
    label = "AOT"
    equation = (
        "−log σ(β(d_(i) − r_(i))),  d = log π_w − log π_l,  r = log π_ref,w − log π_ref,l,  sorted over the batch"
    )
    source = "Melnyk et al. 2024, arXiv 2406.05882"
    rho = "1 within a pair"
    weight_range = (0.5, 0.5)
    constant_weight = True
    shipped = (
        Shipped(
            "trl 1.16.0", 'loss_type="aot"', MappingProxyType({"beta": 0.1, "label_smoothing": 0.0}),
            "It sorts the pairs of one device: at one pair per device it is DPO.",
        ),
    )  # fmt: skip
    notes = (
        "A policy's log-ratio meets the reference's of the same rank, which may be another pair's.",
        "TRL 1.16.0 sorts within a device's micro-batch, so its size is part of the loss.",
        "oxRL 2a2bd5d's aot is the unpaired form: see aot-unpaired.",
    )
    look = Look(_COLOR, "-", "o")

    def _sides(self, logps: PairLogps) -> tuple[Tensor, Tensor]:
        return logps.win - logps.lose, logps.ref_win - logps.ref_lose


@dataclass(frozen=True)
class UnpairedAOT(_SortedLoss):
    """−log σ(β(h_w,(i) − h_l,(i))), h_w and h_l each sorted over the batch: a winner meets the loser of its own rank.

    beta             β > 0.
    label_smoothing  ε in [0, ½).

    Source: Melnyk et al. 2024 (arXiv 2406.05882), unpaired. A batch of one pair is DPO.
    """

    beta: float = with_slider(0.01, BETA_RANGE)
    label_smoothing: float = with_slider(0.0, SliderRange(0.0, 0.45, 0.05))

    name = "aot-unpaired"
    label = "AOT unpaired"
    equation = "−log σ(β(h_w,(i) − h_l,(i))),  h_w and h_l sorted over the batch"
    source = "Melnyk et al. 2024, arXiv 2406.05882"
    rho = "1 between a winner and the loser of its rank"
    shipped = (
        Shipped("trl 1.16.0", 'loss_type="aot_unpaired"', MappingProxyType({"beta": 0.1, "label_smoothing": 0.0})),
        Shipped(
            "oxRL 2a2bd5d", "aot", MappingProxyType({"beta": 0.1, "label_smoothing": 0.0}), "It is called aot there."
        ),
    )  # fmt: skip
    notes = (
        "A pair's value is that of its winner; its loser may stand in another pair's value.",
        "TRL 1.16.0 sorts within a device's micro-batch, so its size is part of the loss.",
    )
    look = Look(_COLOR, "--", "s")

    def _sides(self, logps: PairLogps) -> tuple[Tensor, Tensor]:
        return logps.win_logratio, logps.lose_logratio


@dataclass(frozen=True)
class KTO(BatchLoss):
    """½ v_w (1 − σ(β(h_w − z))) + ½ v_l (1 − σ(β(z − h_l))), z = max(0, mean of h over the batch), detached.

    beta                β > 0.
    desirable_weight    v_w ≥ 0.
    undesirable_weight  v_l ≥ 0.

    Source: Ethayarajh et al. 2024 (arXiv 2402.01306), eq. 8, for data in pairs: the mean over all responses.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    desirable_weight: float = with_slider(1.0, SliderRange(0.0, 4.0, 0.1))
    undesirable_weight: float = with_slider(1.0, SliderRange(0.0, 4.0, 0.1))

    name = "kto"
    label = "KTO"
    equation = "½v_w(1 − σ(β(h_w − z))) + ½v_l(1 − σ(β(z − h_l))),  z = max(0, mean of h over the batch) detached"
    source = "Ethayarajh et al. 2024, arXiv 2402.01306"
    bounded_above = True
    rho = "v_w σ'(β(h_w − z))/(v_l σ'(β(z − h_l)))"
    convention = "sums over tokens; a mean over both sides, so half of the sum of a pair's two terms"
    published = MappingProxyType({"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0})
    shipped = tuple(
        Shipped(
            library, key, MappingProxyType({"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}), remark
        )
        for library, key, remark in (
            ("trl 1.16.0", "KTOConfig()", "Its z is the mean of h over mismatched prompts and responses of the batch."),
            ("HALOs 4831988", "loss=kto", "Its z is the mean of h over mismatched prompts and responses of the batch."),
        )
    )
    notes = (
        "The paper, TRL 1.16.0 and HALOs 4831988 take z over responses to other prompts, which pairs do not carry; "
        "here it is the mean over the batch's own responses.",
        "oxRL 2a2bd5d has −log σ in place of 1 − σ, and as z a running mean over winners without a bound at 0.",
        "The former kto_pair, as in alpha-DPO fab3209, takes the losers' mean as z for winners and the winners' for "
        "losers, and detaches neither.",
    )  # fmt: skip
    look = Look(_COLOR, "-.", "^")

    def __post_init__(self) -> None:
        keep_plain(
            self,
            beta=positive("beta", self.beta),
            desirable_weight=between("desirable_weight", self.desirable_weight, 0),
            undesirable_weight=between("undesirable_weight", self.undesirable_weight, 0),
        )

    @property
    def start_value(self) -> float:
        """Return (v_w + v_l)/4: both sides are at ½."""
        return (self.desirable_weight + self.undesirable_weight) / 4

    start_equation = "(v_w + v_l)/4"

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return half the sum of both sides' losses of each pair."""
        win, lose = torch.broadcast_tensors(logps.win_logratio, logps.lose_logratio)
        zero = _mean(0.5 * (win + lose).detach(), _checked(weights, win)).clamp(min=0)
        desirable = self.desirable_weight * (self.beta * (zero - win)).sigmoid()
        return 0.5 * (desirable + self.undesirable_weight * (self.beta * (lose - zero)).sigmoid())


@dataclass(frozen=True)
class DrDPO(BatchLoss):
    """−β′ log Σ_i p_i σ(m_i)^(1/β′), m = β(h_w − h_l), p the pairs' weights: DPO, robust to wrong labels.

    beta           β > 0.
    outlier_scale  β′ > 0, in nats: a pair whose loss lies that far above the others' counts e times less.

    Source: Wu et al. 2024 (arXiv 2407.07880), eq. 11. Every pair's value is the batch's.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    outlier_scale: float = with_slider(1.0, SliderRange(-1, 2, 0.05, log=True))

    name = "dr-dpo"
    label = "Dr. DPO"
    equation = "−β′ log mean σ(β(h_w − h_l))^(1/β′) over the batch,  β′ = outlier_scale"
    source = "Wu et al. 2024, arXiv 2407.07880"
    start_value = math.log(2)
    start_equation = "ln 2"
    rho = "1"
    weight_range = (0.5, 0.5)
    constant_weight = True
    published = MappingProxyType({"beta": 0.1, "outlier_scale": 1.0})
    shipped = (
        Shipped("Dr_DPO 3c0678f", "mode_loss=DrDPO", MappingProxyType({"beta": 0.1, "outlier_scale": 1.0})),
        Shipped("oxRL 2a2bd5d", "drdpo", MappingProxyType({"beta": 0.1, "outlier_scale": 1.0})),
    )
    notes = (
        "Both codes take exp before the mean: a batch of losses that are all far above β′ gives an infinite loss.",
        "As β′ → ∞ this is DPO.",
    )
    look = Look(_COLOR, ":", "D")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), outlier_scale=positive("outlier_scale", self.outlier_scale))

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return the batch's loss at each pair, in nats."""
        lead = logps.win_logratio - logps.lose_logratio
        weights = _checked(weights, lead)
        share = torch.full_like(lead, 1 / max(len(lead), 1)) if weights is None else weights
        powers = F.logsigmoid(self.beta * lead) / self.outlier_scale + share.log()
        return (-self.outlier_scale * powers.logsumexp(0, keepdim=True)).expand(lead.shape)


@dataclass(frozen=True)
class BetaDPO(BatchLoss):
    """−log σ(β_i(h_w − h_l)), β_i = β(1 + a(h_w − h_l − mean over the batch)) ≥ 0.001, detached.

    beta         β > 0.
    sensitivity  a ≥ 0, per nat; 0 is DPO.

    Source: Wu et al. 2024 (arXiv 2407.08639), the form per pair, with the batch's mean as threshold.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    sensitivity: float = with_slider(0.6, SliderRange(0.0, 2.0, 0.05))

    name = "beta-dpo"
    label = "β-DPO"
    equation = "−log σ(β_i(h_w − h_l)),  β_i = max(0.001, β(1 + a(h_w − h_l − batch mean))) detached,  a = sensitivity"
    source = "Wu et al. 2024, arXiv 2407.08639"
    logistic = True
    start_value = math.log(2)
    start_equation = "ln 2"
    rho = "1"
    weight_range = (0.5, 0.5)
    constant_weight = True
    published = MappingProxyType({"beta": 0.1, "sensitivity": 0.6})
    shipped = (
        Shipped(
            "beta-DPO 1629047", "mode_loss=beta_DPO, a=0.6", MappingProxyType({"beta": 0.1, "sensitivity": 0.6}),
            "It has one β per batch, from the mean of 80% of the batch drawn near a running mean.",
        ),
        Shipped(
            "oxRL 2a2bd5d", "betadpo", MappingProxyType({"beta": 0.1, "sensitivity": 0.5}),
            "It does not detach β_i, and its threshold is a running mean.",
        ),
    )  # fmt: skip
    notes = (
        "The authors' code 1629047 has one β per batch, β(1 + a(batch mean − running mean)), and drops a fifth of the "
        "pairs, drawn far from the running mean rather; without a running mean that β is constant, so that here each "
        "pair has its own, as in the paper's form per pair.",
        "oxRL 2a2bd5d lets gradients flow through β_i, so that a pair that is far behind may be pushed either way.",
    )
    look = Look(_COLOR, (0, (5, 1)), "v")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), sensitivity=between("sensitivity", self.sensitivity, 0))

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return the loss of each pair, in nats."""
        lead = logps.win_logratio - logps.lose_logratio
        fixed = lead.detach()
        beyond = fixed - _mean(fixed, _checked(weights, lead))
        beta = (self.beta * (1 + self.sensitivity * beyond)).clamp(min=1e-3)
        return -F.logsigmoid(beta * lead)


@dataclass(frozen=True)
class AlphaDPO(BatchLoss):
    """−log σ(β(l̄_w − l̄_l) − γ − β a z), l̄ = log π/L, z the standard score of l̄_w − l̄_l − r̄_w + r̄_l in the batch.

    beta           β > 0.
    gamma          γ ≥ 0, the target margin, in nats after β.
    margin_spread  a ≥ 0; 0 is SimPO.

    Source: Wu et al. 2024 (arXiv 2410.10148), with the numbers of its Llama-3-Instruct v0.2. r̄ = log π_ref/L; z is
    detached, and 0 in a batch without spread.
    """

    beta: float = with_slider(10.0, BETA_RANGE)
    gamma: float = with_slider(4.0, GAMMA_RANGE)
    margin_spread: float = with_slider(0.2, SliderRange(0.0, 1.0, 0.05))

    name = "alpha-dpo"
    label = "α-DPO"
    equation = "−log σ(β(log π_w/L_w − log π_l/L_l) − γ − βa z),  z = score of h_w/L_w − h_l/L_l,  a = margin_spread"
    source = "Wu et al. 2024, arXiv 2410.10148"
    logistic = True
    start_value = None
    rho = "L_l/L_w"
    convention = MEANS + "; γ is not multiplied by β, where the authors set γ/β"
    needs_lengths = True
    published = MappingProxyType({"beta": 10.0, "gamma": 4.0, "margin_spread": 0.2})
    shipped = (
        *(
            Shipped(
                f"alpha-DPO fab3209 ({model})", f"beta={beta:g}, gamma_beta_ratio={ratio:g}, alpha={spread:g}",
                MappingProxyType({"beta": beta, "gamma": beta * ratio, "margin_spread": spread}),
                "Its mean and deviation are running ones.",
            )
            for model, beta, ratio, spread in (
                ("Llama-3-Instruct v0.2", 10.0, 0.4, 0.2), ("Gemma-2", 10.0, 0.4, 0.05),
                ("Llama-3-Instruct", 2.5, 0.6, 0.2), ("Mistral-Instruct", 2.5, 0.15, 0.05),
            )
        ),
        Shipped(
            "oxRL 2a2bd5d", "alpha_dpo", MappingProxyType({"beta": 0.1, "gamma": 0.03, "margin_spread": 0.1}),
            "It sets γ/β, to 0.3; its mean and deviation are running ones.",
        ),
    )  # fmt: skip
    notes = (
        "The authors' code fab3209 scores with a running mean and deviation, 0.9 of the former; here both are the "
        "batch's, and the deviation divides by n, not n − 1.",
    )  # fmt: skip
    look = Look(_COLOR, (0, (3, 1, 1, 1)), "P")

    def __post_init__(self) -> None:
        keep_plain(
            self,
            beta=positive("beta", self.beta),
            gamma=between("gamma", self.gamma, 0),
            margin_spread=between("margin_spread", self.margin_spread, 0),
        )

    def __call__(self, logps: PairLogps, weights: Tensor | None = None) -> Tensor:
        """Return the loss of each pair, in nats; ValueError for pairs without lengths."""
        win, lose = token_means(logps, self.name)
        ref_win, ref_lose = token_means(replace(logps, win=logps.ref_win, lose=logps.ref_lose), self.name)
        lead = win - lose
        score = _score((lead - (ref_win - ref_lose)).detach(), _checked(weights, lead))
        return -F.logsigmoid(self.beta * (lead - self.margin_spread * score) - self.gamma)


def _checked(weights: Tensor | None, values: Tensor) -> Tensor | None:
    """Return the weights; ValueError for pairs without a first dimension, and for weights of another shape."""
    if values.dim() == 0:
        raise ValueError("pairs of a batch must have a first dimension, got shape ()")
    if weights is not None and weights.shape != values.shape:
        raise ValueError(f"weights must have the pairs' shape {tuple(values.shape)}, got {tuple(weights.shape)}")
    return weights


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over the batch, whose dimension stays with size 1."""
    return values.mean(0, keepdim=True) if weights is None else (weights * values).sum(0, keepdim=True)


def _score(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the values less their mean over the batch, divided by their standard deviation there."""
    away = values - _mean(values, weights)
    return away / _mean(away.square(), weights).sqrt().clamp(min=_LEAST_SPREAD)


def _coupled(first: Tensor, second: Tensor, cost: Callable[[Tensor], Tensor], weights: Tensor | None) -> Tensor:
    """Return the cost of first − second at each pair, where both are matched by rank, or by weighted quantile.

    Under weights a pair meets as many others as its share of the quantiles spans: its cost is their weighted mean, and
    0 for a pair without weight.
    """
    order, other_order = first.argsort(stable=True, dim=0), second.argsort(stable=True, dim=0)
    ranked, other_ranked = first.gather(0, order), second.gather(0, other_order)
    if weights is None:
        return torch.zeros_like(first).scatter(0, order, cost(ranked - other_ranked))
    shares = weights.to(torch.promote_types(weights.dtype, torch.float32))
    ends, other_ends = shares.gather(0, order).cumsum(0), shares.gather(0, other_order).cumsum(0)
    upper = torch.cat([ends, other_ends]).sort(0).values
    lower = torch.cat([torch.zeros_like(upper[:1]), upper[:-1]])
    middle = (lower + upper) / 2
    place, other_place = _places(ends, middle), _places(other_ends, middle)
    parts = (upper - lower).to(ranked.dtype) * cost(ranked.gather(0, place) - other_ranked.gather(0, other_place))
    total = torch.zeros_like(ranked).scatter_add(0, place, parts)
    return torch.zeros_like(first).scatter(0, order, total) / weights.clamp(min=torch.finfo(weights.dtype).tiny)


def _places(ends: Tensor, at: Tensor) -> Tensor:
    """Return the index of the part that holds each number, for parts along the first dimension that end at ``ends``."""
    columns, numbers = (side.movedim(0, -1).contiguous() for side in (ends, at))
    return torch.searchsorted(columns, numbers).clamp(max=len(ends) - 1).movedim(-1, 0)


FAMILY = "batch"
LOSSES: tuple[Callable[..., BatchLoss], ...] = (AOT, UnpairedAOT, KTO, DrDPO, BetaDPO, AlphaDPO)
