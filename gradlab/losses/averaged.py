"""Losses of log-ratios that are averaged over a response's tokens: the shorter response has the larger slope."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from gradlab.checks import keep_plain, positive
from gradlab.losses.facts import BETA_RANGE, Facts, Look, ships, with_slider
from gradlab.losses.margin import DPO, IPO
from gradlab.losses.pair import KnownLoss, LogisticLoss, PairLogps

_COLOR = "#AA3377"


def mean_logratios(logps: PairLogps, loss: str) -> tuple[Tensor, Tensor]:
    """Return h_w/L_w and h_l/L_l in nats per token; a length of 0 counts as 1. ValueError for pairs without lengths."""
    win_len, lose_len = logps.lengths(loss)
    return logps.win_logratio / win_len.clamp(min=1), logps.lose_logratio / lose_len.clamp(min=1)


@dataclass(frozen=True)
class TrlIPO(Facts):
    """(h_w/L_w − h_l/L_l − 1/(2β))²: IPO with log-ratios averaged over tokens, as TRL ships it.

    beta: β > 0 (0.1 is TRL's default). Source: Azar et al. 2023 (arXiv 2310.12036), eq. 17, whose log-probabilities are
    those of whole responses; ``IPO`` takes them so.
    """

    beta: float = with_slider(0.1, BETA_RANGE)

    name = "trl-ipo"
    label = "IPO per token"
    equation = "(h_w/L_w − h_l/L_l − 1/(2β))²"
    source = "TRL 1.16.0, after Azar et al. 2023, arXiv 2310.12036"
    antisymmetric = False
    start_equation = "1/(4β²)"
    needs_lengths = True
    winner_down = loser_up = True
    optimum = "h_w/L_w − h_l/L_l = 1/(2β)"
    rho = "L_l/L_w"
    convention = "means over tokens"
    shipped = (
        ships("trl 1.16.0", 'loss_type="ipo"', "The target at the default β is 5 nats per token.", beta=0.1),
        ships("llamafactory 0.9.5", "pref_loss: ipo", "It follows TRL's averages.", beta=0.1),
        ships(
            "HALOs 4831988",
            "loss=ipo",
            "It averages over tokens whose log-ratio is not 0: 0/0 at the reference.",
            beta=0.1,
        ),
    )
    notes = (
        "A comment in TRL 1.16.0 says that the authors confirmed means over tokens; eq. 17 of the paper has none.",
        "At β = 0.1 the target of 5 nats per token is out of reach, so the loss is nearly linear.",
    )
    look = Look(_COLOR, (0, (4, 2, 1, 2)), "*")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    @property
    def start_value(self) -> float:
        """Return 1/(4β²), in (nats per token)²."""
        return 0.25 / self.beta / self.beta

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair, in (nats per token)²; 1/(4β²) at the reference. ValueError without lengths."""
        win, lose = mean_logratios(logps, self.name)
        return (win - lose - 1 / (2 * self.beta)).square()

    def summed(self, length: float) -> tuple[IPO, float]:
        """Return IPO(β/L) and 1/L²: where both responses have L tokens, this loss is IPO's value times that number."""
        length = positive("length", length)
        return IPO(self.beta / length), 1 / length**2


@dataclass(frozen=True)
class NormalizedDPO(LogisticLoss):
    """−log σ(β(h_w/L_w − h_l/L_l)): DPO with log-ratios averaged over tokens.

    beta: β > 0 (stated: 5). Source: Lambert et al. 2024 (Tülu 3, arXiv 2411.15124), length-normalised DPO.
    """

    beta: float = with_slider(5.0, BETA_RANGE)

    name = "sigmoid-norm"
    label = "DPO per token"
    equation = "−log σ(β(h_w/L_w − h_l/L_l))"
    source = "Lambert et al. 2024, arXiv 2411.15124"
    antisymmetric = True
    needs_lengths = True
    rho = "L_l/L_w"
    convention = "means over tokens"
    published = MappingProxyType({"beta": 5.0})
    shipped = (
        ships("open-instruct e6c3044", "loss_type=dpo_norm", "It is the default there.", beta=5.0),
        ships("trl 1.16.0", 'loss_type="sigmoid_norm"', "β is 0.1, Tülu's 5: slopes are 50 times smaller.", beta=0.1),
    )
    look = Look(_COLOR, "-", "o")

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def margin(self, logps: PairLogps) -> Tensor:
        """Return β(h_w/L_w − h_l/L_l). ValueError for pairs without lengths."""
        win, lose = mean_logratios(logps, self.name)
        return self.beta * (win - lose)

    def summed(self, length: float) -> tuple[DPO, float]:
        """Return DPO(β/L) and 1: where both responses have L tokens, this loss is DPO's value times that number."""
        return DPO(self.beta / positive("length", length)), 1.0


FAMILY = "averaged"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (NormalizedDPO, TrlIPO)  # registered, each under its name
