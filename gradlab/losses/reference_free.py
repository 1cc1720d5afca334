"""Losses that never look at a reference: of mean log-probabilities per token, or of sums with a term of likelihood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from gradlab.checks import between, keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, Shipped, SliderRange, with_slider
from gradlab.losses.links import grown_power
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps

GAMMA_RANGE = SliderRange(0.0, 5.0, 0.05)
SFT_RANGE = SliderRange(0.0, 2.0, 0.05)
MEANS = "means over tokens: l̄ = log π/L, with L in tokens"
_COLOR = "#56B4E9"
_NEAREST = -1e-30  # the largest l̄ whose odds p̄/(1 − p̄) are taken; at 0 they are infinite


def token_means(logps: PairLogps, loss: str) -> tuple[Tensor, Tensor]:
    """Return l̄_w = log π_w/L_w and l̄_l = log π_l/L_l; ValueError, which names the loss, for pairs without lengths.

    A length of 0 counts as 1.
    """
    win_len, lose_len = logps.lengths(loss)
    return logps.win / win_len.clamp(min=1), logps.lose / lose_len.clamp(min=1)


_SIMPO = tuple(
    Shipped(
        f"SimPO 1b3e8f3 ({model})",
        f"beta={beta:g}, gamma_beta_ratio={ratio:g}",
        MappingProxyType({"beta": beta, "gamma": beta * ratio}),
    )
    for model, beta, ratio in (
        ("class", 2.0, 0.25), ("Mistral-Base", 2.0, 0.8), ("Mistral-Instruct", 2.5, 0.1), ("Llama-3-Base", 2.0, 0.5),
        ("Llama-3-Instruct", 2.5, 0.55), ("Llama-3-Instruct v0.2", 10.0, 0.3), ("Gemma-2", 10.0, 0.5),
    )
)  # fmt: skip


@dataclass(frozen=True)
class SimPO(LogisticLoss):
    """−log σ(β(l̄_w − l̄_l) − γ), l̄ = log π/L.

    beta   β > 0. A published range is 2 to 2.5; later models of the authors use 10.
    gamma  γ ≥ 0, the target margin, in nats after β: the target in nats per token is γ/β.

    Source: Meng et al. 2024 (arXiv 2405.14734), eq. 6; the defaults are those of its Llama-3-Base.
    """

    beta: float = with_slider(2.0, BETA_RANGE)
    gamma: float = with_slider(1.0, GAMMA_RANGE)

    name = "simpo"
    label = "SimPO"
    equation = "−log σ(β(log π_w/L_w − log π_l/L_l) − γ)"
    source = "Meng et al. 2024, arXiv 2405.14734"
    rho = "L_l/L_w"
    convention = MEANS + "; γ is not multiplied by β, as in the paper, where others set γ/β"
    published = MappingProxyType({"beta": 2.0, "gamma": 1.0})
    shipped = (
        *_SIMPO,
        Shipped("HALOs 4831988", "loss=simpo", MappingProxyType({"beta": 10.0, "gamma": 3.0}), "It sets γ/β, to 0.3."),
        Shipped(
            "llamafactory 0.9.5", "pref_loss: simpo", MappingProxyType({"beta": 0.1, "gamma": 0.5}),
            "The target is 5 nats per token.",
        ),
        Shipped(
            "oxRL 2a2bd5d", "simpo", MappingProxyType({"beta": 0.1, "gamma": 0.5}), "The target is 5 nats per token."
        ),
    )  # fmt: skip
    notes = (
        "The authors' code, HALOs 4831988 and others set γ/β, the target in nats per token; here γ = β · (γ/β).",
        "TRL 1.16.0 and liger-kernel 0.8.5 add a likelihood term unless told not to: see trl-simpo.",
    )
    start_value = None
    start_equation = ""
    constant_weight = False
    needs_lengths = True
    needs_reference = False
    look = Look(_COLOR, "-", "D")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), gamma=between("gamma", self.gamma, 0))

    @property
    def antisymmetric(self) -> bool:
        """Return whether γ = 0."""
        return self.gamma == 0

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(l̄_w − l̄_l) − γ."""
        win, lose = token_means(logps, self.name)
        return self.beta * (win - lose) - self.gamma


@dataclass(frozen=True)
class TrlSimPO(Facts):
    """−log σ(β(l̄_w − l̄_l) − γ) − w l̄_w: SimPO with the likelihood term that TRL's CPO trainer adds to it.

    beta        β > 0.
    gamma       γ ≥ 0, the target margin in nats after β, as ``simpo_gamma``.
    sft_weight  w ≥ 0, as ``cpo_alpha``; 0 is SimPO.

    Source: TRL 1.16.0, ``CPOConfig(loss_type="simpo")`` with its defaults.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    gamma: float = with_slider(0.5, GAMMA_RANGE)
    sft_weight: float = with_slider(1.0, SFT_RANGE)

    name = "trl-simpo"
    label = "CPO-SimPO"
    equation = "−log σ(β(log π_w/L_w − log π_l/L_l) − γ) − w log π_w/L_w,  w = sft_weight"
    source = 'TRL 1.16.0, CPOTrainer with loss_type="simpo"; SimPO is Meng et al. 2024, arXiv 2405.14734'
    rho = "(L_l/L_w)(1 + w/(β σ(−m)))"
    convention = MEANS + "; γ is not multiplied by β"
    antisymmetric = False
    shipped = (
        Shipped(
            "trl 1.16.0", 'CPOConfig(loss_type="simpo")',
            MappingProxyType({"beta": 0.1, "gamma": 0.5, "sft_weight": 1.0}),
            "It means −log π over all tokens of a batch, not within each response.",
        ),
        Shipped(
            "axolotl 0.19.0", "rl: simpo", MappingProxyType({"beta": 0.1, "sft_weight": 1.0}),
            "It replaces TRL's default of simpo_gamma by nothing: γ must be set, and cpo_alpha: 0 for SimPO.",
        ),
        Shipped(
            "liger-kernel 0.8.5", "LigerFusedLinearSimPOLoss",
            MappingProxyType({"beta": 0.1, "gamma": 0.5, "sft_weight": 1.0}),
            "Its likelihood term goes with compute_nll_loss=False.",
        ),
        Shipped("oxRL 2a2bd5d", "cposimpo", MappingProxyType({"beta": 0.1, "gamma": 0.5, "sft_weight": 1.0})),
    )  # fmt: skip
    notes = (
        "TRL 1.16.0 divides simpo_gamma by β and multiplies by β again: simpo_gamma is the paper's γ, not γ/β.",
        "At TRL's defaults the target is γ/β = 5 nats per token, far beyond what responses differ by.",
        "TRL 1.16.0 averages the likelihood term over the batch's tokens: a long winner counts more than a short one.",
    )
    start_value = None
    needs_lengths = True
    needs_reference = False
    look = Look(_COLOR, "--", "D")

    def __post_init__(self) -> None:
        keep_plain(
            self,
            beta=positive("beta", self.beta),
            gamma=between("gamma", self.gamma, 0),
            sft_weight=between("sft_weight", self.sft_weight, 0),
        )

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats."""
        win, lose = token_means(logps, self.name)
        return -F.logsigmoid(self.beta * (win - lose) - self.gamma) - self.sft_weight * win


@dataclass(frozen=True)
class CPO(Facts):
    """−log σ(β(log π_w − log π_l)) − w log π_w.

    beta        β > 0.
    sft_weight  w ≥ 0, weight of the likelihood term.

    Source: Xu et al. 2024 (arXiv 2401.08417), eq. 5 and 6, whose terms are sums over tokens.
    """

    beta: float = with_slider(0.1, BETA_RANGE)
    sft_weight: float = with_slider(1.0, SFT_RANGE)

    name = "cpo"
    label = "CPO"
    equation = "−log σ(β(log π_w − log π_l)) − w log π_w,  w = sft_weight"
    source = "Xu et al. 2024, arXiv 2401.08417"
    rho = "1 + w/(β σ(−β(log π_w − log π_l)))"
    published = MappingProxyType({"beta": 0.1, "sft_weight": 1.0})
    antisymmetric = False
    shipped = (
        Shipped(
            "DisentangledPreferenceOptimization ea4ce38", "CPO", MappingProxyType({"beta": 0.1, "sft_weight": 1.0})
        ),
    )
    notes = ("The paper's likelihood term is a sum over tokens; TRL 1.16.0 and others take a mean: see trl-cpo.",)
    start_value = None
    needs_reference = False
    look = Look(_COLOR, "-", "X")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta), sft_weight=between("sft_weight", self.sft_weight, 0))

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return ½ + the likelihood term's share at σ(−m) = 1, and 1."""
        if self.sft_weight == 0:
            return 0.5, 0.5
        return (self.beta + self.sft_weight) / (2 * self.beta + self.sft_weight), 1.0

    @property
    def constant_weight(self) -> bool:
        """Return whether there is no likelihood term."""
        return self.sft_weight == 0

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats."""
        return -F.logsigmoid(self.beta * (logps.win - logps.lose)) - self.sft_weight * logps.win


@dataclass(frozen=True)
class TrlCPO(CPO):
    """−log σ(β(log π_w − log π_l)) − w log π_w/L_w: CPO with a mean over tokens in the likelihood term.

    beta        β > 0.
    sft_weight  w ≥ 0, weight of the likelihood term, as ``cpo_alpha``.

    Source: TRL 1.16.0, ``CPOConfig()`` with its defaults.
    """

    name = "trl-cpo"
    label = "CPO (TRL)"
    equation = "−log σ(β(log π_w − log π_l)) − w log π_w/L_w,  w = sft_weight"
    source = "TRL 1.16.0, CPOTrainer; CPO is Xu et al. 2024, arXiv 2401.08417"
    rho = "1 + (w/L_w)/(β σ(−β(log π_w − log π_l)))"
    convention = "the preference term sums over tokens, the likelihood term is a mean over tokens"
    shipped = (
        Shipped(
            "trl 1.16.0", "CPOConfig()", MappingProxyType({"beta": 0.1, "sft_weight": 1.0}),
            "It means −log π over all tokens of a batch, not within each response.",
        ),
        Shipped("liger-kernel 0.8.5", "LigerFusedLinearCPOLoss", MappingProxyType({"beta": 0.1, "sft_weight": 1.0})),
        Shipped("oxRL 2a2bd5d", "cpo", MappingProxyType({"beta": 0.1, "sft_weight": 1.0})),
    )  # fmt: skip
    notes = (
        "TRL 1.16.0 averages the likelihood term over the batch's tokens: a long winner counts more than a short one.",
    )
    needs_lengths = True
    look = Look(_COLOR, "--", "X")

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return ½ and 1: the likelihood term vanishes for long winners."""
        return 0.5, 0.5 if self.sft_weight == 0 else 1.0

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats."""
        win_mean, _ = token_means(logps, self.name)
        return -F.logsigmoid(self.beta * (logps.win - logps.lose)) - self.sft_weight * win_mean

    def summed(self, length: float) -> tuple[CPO, float]:
        """Return CPO with sft_weight/L, and 1: at equal lengths L the loss is that times this factor."""
        return CPO(self.beta, self.sft_weight / positive("length", length)), 1.0


@dataclass(frozen=True)
class SLiC(Facts):
    """max(0, γ − log π_w + log π_l) − w log π_w.

    gamma       γ ≥ 0, the target margin, in nats of the summed log-probabilities; the paper's δ.
    sft_weight  w ≥ 0, weight of the likelihood term; the paper's λ.

    Source: Zhao et al. 2023 (arXiv 2305.10425), eq. 4 with its regularizer; the numbers are HALOs'.
    """

    gamma: float = with_slider(1.0, GAMMA_RANGE)
    sft_weight: float = with_slider(0.1, SFT_RANGE)

    name = "slic"
    label = "SLiC"
    equation = "max(0, γ − log π_w + log π_l) − w log π_w,  w = sft_weight"
    source = "Zhao et al. 2023, arXiv 2305.10425"
    rho = "1 + w while log π_w − log π_l < γ, else ∞"
    antisymmetric = False
    shipped = (
        Shipped(
            "HALOs 4831988", "loss=slic", MappingProxyType({"gamma": 1.0, "sft_weight": 0.1}),
            "Its loss adds one number per pair to one per token: an error for more than one pair.",
        ),
        Shipped(
            "DisentangledPreferenceOptimization ea4ce38", "SLIC", MappingProxyType({"gamma": 1.0, "sft_weight": 0.1})
        ),
    )  # fmt: skip
    notes = (
        "The paper's likelihood term is of the fine-tuning target, which is no part of a pair; here it is the winner, "
        "as in HALOs 4831988.",
        'TRL\'s loss_type="hinge" is another loss: it has a reference and no likelihood term.',
        "HALOs 4831988 calls γ beta.",
    )
    start_value = None
    needs_reference = False
    look = Look(_COLOR, ":", "d")

    def __post_init__(self) -> None:
        keep_plain(self, gamma=between("gamma", self.gamma, 0), sft_weight=between("sft_weight", self.sft_weight, 0))

    @property
    def weight_range(self) -> tuple[float, float]:
        """Return λ_w short of the target margin, and beyond it, where only the likelihood term is left."""
        short = (1 + self.sft_weight) / (2 + self.sft_weight)
        return short, 1.0 if self.sft_weight else short

    @property
    def constant_weight(self) -> bool:
        """Return whether there is no likelihood term."""
        return self.sft_weight == 0

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats."""
        return F.relu(self.gamma - logps.win + logps.lose) - self.sft_weight * logps.win


@dataclass(frozen=True)
class ORPO(Facts):
    """−l̄_w − λ log σ(z), z = log(p̄_w/(1 − p̄_w)) − log(p̄_l/(1 − p̄_l)), p̄ = exp(log π/L).

    odds_weight  λ > 0, weight of the odds ratio; TRL calls it beta.

    Source: Hong et al. 2024 (arXiv 2403.07691), eq. 6 and 7. Odds are taken of l̄ ≤ −1e-30: at 0 they are infinite.
    """

    odds_weight: float = with_slider(0.1, SliderRange(-2, 1, 0.05, log=True))

    name = "orpo"
    label = "ORPO"
    equation = "−log π_w/L_w − λ log σ(log(p̄_w/(1−p̄_w)) − log(p̄_l/(1−p̄_l))),  p̄ = π^(1/L),  λ = odds_weight"
    source = "Hong et al. 2024, arXiv 2403.07691"
    rho = "(L_l/L_w)(1 + λ σ(−z)/(1−p̄_w))/(λ σ(−z)/(1−p̄_l))"
    convention = MEANS + "; λ weighs the odds ratio, and the likelihood term has weight 1"
    published = MappingProxyType({"odds_weight": 0.1})
    antisymmetric = False
    shipped = (
        Shipped(
            "trl 1.16.0", "ORPOConfig(beta=0.1)", MappingProxyType({"odds_weight": 0.1}),
            "Its likelihood term is a mean over the batch's tokens of prompt and answer.",
        ),
        Shipped(
            "llamafactory 0.9.5", "pref_loss: orpo", MappingProxyType({"odds_weight": 0.1}),
            "Its log1p(−exp(l̄)) has no slope at l̄ → 0.",
        ),
        Shipped(
            "liger-kernel 0.8.5", "LigerFusedLinearORPOLoss", MappingProxyType({"odds_weight": 0.1}),
            "Its log1p(−exp(l̄)) has no slope at l̄ → 0.",
        ),
        Shipped("oxRL 2a2bd5d", "orpo", MappingProxyType({"odds_weight": 0.1}), "It clamps p̄ at 1 − 1e-7."),
    )  # fmt: skip
    notes = (
        "TRL 1.16.0's likelihood term covers the prompt, too, and is a mean over the batch's tokens.",
        "log1p(−exp(l̄)), as in LLaMA-Factory 0.9.5 and Liger 0.8.5, gives slopes that are no number at l̄ → 0.",
    )
    start_value = None
    needs_lengths = True
    needs_reference = False
    look = Look(_COLOR, "-.", "p")

    def __post_init__(self) -> None:
        keep_plain(self, odds_weight=positive("odds_weight", self.odds_weight))

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in nats."""
        win, lose = token_means(logps, self.name)
        return -win - self.odds_weight * F.logsigmoid(_log_odds(win) - _log_odds(lose))


def _log_odds(mean: Tensor) -> Tensor:
    """Return log(p̄/(1 − p̄)) of l̄ = log p̄, without a loss of digits at either end."""
    mean = mean.clamp(max=_NEAREST)
    return mean - (-mean.expm1()).log()


@dataclass(frozen=True)
class AlphaPO(LogisticLoss):
    """−log σ(β(r_w − r_l) − γ), r = (1 − p̄^(−a))/a, p̄ = exp(log π/L).

    beta          β > 0.
    gamma         γ ≥ 0, the target margin, in nats after β.
    reward_shape  a; at 0 the reward is log p̄, and the loss SimPO.

    Source: Gupta et al. 2025 (arXiv 2501.03884), with the a that it recommends; β and γ are SimPO's. Powers beyond
    e^60 go on along their tangent.
    """

    beta: float = with_slider(2.0, BETA_RANGE)
    gamma: float = with_slider(1.0, GAMMA_RANGE)
    reward_shape: float = with_slider(0.25, SliderRange(-1.0, 1.0, 0.05))

    name = "alphapo"
    label = "AlphaPO"
    equation = "−log σ(β(r_w − r_l) − γ),  r = (1 − p̄^(−a))/a,  p̄ = π^(1/L),  a = reward_shape"
    source = "Gupta et al. 2025, arXiv 2501.03884"
    rho = "(L_l/L_w) exp(−a(log π_w/L_w − log π_l/L_l))"
    convention = MEANS + "; γ is not multiplied by β"
    published = MappingProxyType({"reward_shape": 0.25})
    shipped = (
        Shipped(
            "trl 1.16.0", 'CPOConfig(loss_type="alphapo")',
            MappingProxyType({"beta": 0.1, "gamma": 0.5, "reward_shape": 0.0}),
            "Its alpha is 0 unless set, so that this is SimPO.",
        ),
        Shipped(
            "oxRL 2a2bd5d", "alphapo", MappingProxyType({"beta": 0.1, "gamma": 0.5, "reward_shape": 1.0}),
            "It lets powers end at e^50.",
        ),
    )  # fmt: skip
    notes = (
        "TRL 1.16.0 computes p̄^(−a) without a bound: in single precision it overflows where −a l̄ is above 88.",
        "oxRL 2a2bd5d ships a = 1, the paper recommends 0.25.",
    )
    start_value = None
    start_equation = ""
    constant_weight = False
    needs_lengths = True
    needs_reference = False
    look = Look(_COLOR, (0, (5, 1)), "h")

    def __post_init__(self) -> None:
        keep_plain(
            self,
            beta=positive("beta", self.beta),
            gamma=between("gamma", self.gamma, 0),
            reward_shape=between("reward_shape", self.reward_shape, -10, 10),
        )

    @property
    def antisymmetric(self) -> bool:
        """Return whether γ = 0."""
        return self.gamma == 0

    def margin(self, logps: PairLogps) -> Tensor:
        """Return m = β(r_w − r_l) − γ."""
        win, lose = (self._reward(mean) for mean in token_means(logps, self.name))
        return self.beta * (win - lose) - self.gamma

    def _reward(self, mean: Tensor) -> Tensor:
        """Return (1 − p̄^(−a))/a of l̄; l̄ for a = 0, within 1e-6."""
        return grown_power(mean, -self.reward_shape)


FAMILY = "reference-free"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (  # registered, each under its name
    SimPO, TrlSimPO, CPO, TrlCPO, ORPO, AlphaPO, SLiC,
)  # fmt: skip
