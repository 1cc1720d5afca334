"""Where libraries differ from papers, from each other, or from what a user expects: seen by running, or cited."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import torch

from gradlab.losses import BATCH_LOSSES, DPO, PAIR_LOSSES, PairLogps, named_loss, slopes

SEEN = "trl 1.16.0"  # the version by which the sentences below were last confirmed
COLUMNS = ("loss", "library", "key", "disagreement", "how")
Ask = Callable[..., Callable[[PairLogps], torch.Tensor]]  # (loss type, **options) -> a loss of TRL's


class Disagreement(NamedTuple):
    """A difference that a few lines can confirm with the installed TRL."""

    loss: str
    """The name of our loss that it is about."""
    key: str
    """How a user of TRL asks for it."""
    what: str
    """The difference, one sentence."""
    confirm: Callable[[Ask], bool]
    """Takes ``trl_loss`` with options by name; returns whether it is so."""


def _is_backward(both: tuple[torch.Tensor, torch.Tensor]) -> bool:
    """Say whether descent pushes the winner down and the loser up."""
    return float(both[0]) > 0 > float(both[1])


def disagreements(losses: list[str] | None = None) -> pd.DataFrame:
    """Return the known differences between sources and code, one row each: loss, library, key, disagreement, how.

    losses  names of losses; by default all registered ones.

    ``how`` is "run" where our code has called the library's and seen it (``confirm`` does it again), "cited" where the
    loss states it in ``shipped`` or ``notes``. ``library`` has the version; it is empty for notes, which name it.
    """
    rows = [(one.loss, SEEN, one.key, one.what, "run") for one in TRL]
    for name in (*PAIR_LOSSES, *BATCH_LOSSES):
        loss: Any = named_loss(name)
        rows += [(name, one.library, one.key, one.remark, "cited") for one in loss.shipped if one.remark]
        rows += [(name, "", "", note, "cited") for note in loss.notes]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame if losses is None else frame[frame["loss"].isin(losses)].reset_index(drop=True)


def confirm() -> pd.DataFrame:
    """Run every difference of TRL's again; return loss, key, disagreement and ``holds`` for the installed version.

    ImportError without TRL. ``attrs["trl"]`` has the version.
    """
    from gradlab.conformance.trl_losses import trl_loss, trl_version

    def ask(name: str, **options: Any) -> Callable[[PairLogps], torch.Tensor]:
        return trl_loss(name, options)

    rows = [(one.loss, one.key, one.what, one.confirm(ask)) for one in TRL]
    frame = pd.DataFrame(rows, columns=["loss", "key", "disagreement", "holds"])
    frame.attrs["trl"] = trl_version()
    return frame


def _pair(win: float, lose: float, lengths: tuple[int, int] = (8, 16), size: int = 1) -> PairLogps:
    """Return pairs in float32 with these log-ratios h_w and h_l, from a reference at −40 and −48 nats."""
    sides = (win - 40, lose - 48, -40, -48)
    return PairLogps(
        *(torch.full((size,), float(side)) for side in sides),
        *(torch.full((size,), length) for length in lengths),
    )


def _is(asked: Callable[[PairLogps], torch.Tensor], ours: Callable[[PairLogps], torch.Tensor]) -> bool:
    """Return whether two losses agree, in value and slopes, at some pairs one by one."""
    for pair in (_pair(1.5, -0.5), _pair(-2.0, 1.0), _pair(4.0, 3.0, (20, 5))):
        numbers = [torch.cat([loss(pair).mean()[None], *slopes(loss, pair)]) for loss in (asked, ours)]
        if not torch.allclose(*numbers, rtol=1e-4, atol=1e-5):
            return False
    return True


def _refuses(ask: Ask, name: str) -> bool:
    try:
        ask(name)
    except ValueError:
        return True
    return False


def _uneven(asked: Callable[[PairLogps], torch.Tensor]) -> bool:
    """Return whether a batch's loss differs from the mean over its pairs."""
    short, long = _pair(1.5, -0.5, (2, 8)), _pair(-2.0, 1.0, (40, 8))
    both = PairLogps(*(torch.cat(side) for side in zip(vars(short).values(), vars(long).values(), strict=True)))
    return abs(float(asked(both)) - float(asked(short) + asked(long)) / 2) > 1e-3


def _of(name: str, **hyper: float) -> Callable[[PairLogps], torch.Tensor]:
    return named_loss(name, **hyper)


TRL: tuple[Disagreement, ...] = (
    Disagreement(
        "cdpo", 'loss_type="sigmoid"',
        "label_smoothing is ignored: the loss is DPO, and cDPO cannot be asked for.",
        lambda ask: _is(ask("sigmoid", label_smoothing=0.2), DPO(0.1)),
    ),
    Disagreement(
        "ipo", 'loss_type="ipo"',
        "Log-ratios are averaged over tokens, where eq. 17 of the paper has those of whole responses.",
        lambda ask: _is(ask("ipo"), _of("trl-ipo", beta=0.1)) and not _is(ask("ipo"), _of("ipo", beta=0.1)),
    ),
    Disagreement(
        "sigmoid-norm", 'loss_type="sigmoid_norm"',
        "The default β is 0.1, where its source, Tülu 3, has 5: slopes at the reference are 50 times smaller.",
        lambda ask: _is(ask("sigmoid_norm"), _of("sigmoid-norm", beta=0.1)),
    ),
    Disagreement(
        "robust", 'loss_type="robust"',
        "For ε > 0 the loss falls without bound: −2.5 at m = 20 and ε = 0.1; for the default ε of 0 it is DPO.",
        lambda ask: (
            abs(float(ask("robust", label_smoothing=0.1)(_pair(100.0, -100.0))) + 2.5) < 1e-4
            and _is(ask("robust"), DPO(0.1))
        ),
    ),
    Disagreement(
        "exo", 'loss_type="exo_pair"', "The default label_smoothing of 0 is refused.",
        lambda ask: _refuses(ask, "exo_pair"),
    ),
    Disagreement(
        "bco", 'loss_type="bco_pair"',
        "The paper's reward shift δ is left out.", lambda ask: _is(ask("bco_pair"), _of("bco", beta=0.1)),
    ),
    Disagreement(
        "sppo", 'loss_type="sppo_hard"',
        "The default β is 0.1, where the paper has 0.001: the targets are ±5 nats in place of ±500.",
        lambda ask: _is(ask("sppo_hard"), _of("sppo", beta=0.1)),
    ),
    Disagreement(
        "discopop", 'loss_type="discopop"',
        "At the default τ of 0.05 the first step from π = π_ref pushes the winner down and the loser up.",
        lambda ask: _is_backward(slopes(ask("discopop"), _pair(0.0, 0.0))),
    ),
    Disagreement(
        "discopop", 'loss_type="discopop"',
        "The loss is not finite in float32 where m < −88, since e^−m is computed by itself.",
        lambda ask: not math.isfinite(float(ask("discopop")(_pair(-500.0, 400.0)))),
    ),
    Disagreement(
        "apo-down", 'loss_type="apo_down"',
        "At π = π_ref the winner's slope is exactly 0: the first step moves losers only.",
        lambda ask: float(slopes(ask("apo_down"), _pair(0.0, 0.0))[0]) == 0,
    ),
    Disagreement(
        "forward-kl", 'f_divergence_type="forward_kl"',
        "The loss is not finite in float32 where both log-ratios are below −88.",
        lambda ask: not math.isfinite(float(ask("sigmoid", f_divergence_type="forward_kl")(_pair(-100.0, -101.0)))),
    ),
    Disagreement(
        "f-dpo", 'f_divergence_type="alpha_divergence"',
        "Powers end at e^80, without a slope beyond.",
        lambda ask: (
            float(slopes(ask("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=2),
                         _pair(100.0, 101.0))[0]) == 0
        ),
    ),
    Disagreement(
        "aot", 'loss_type="aot"',
        "Pairs are sorted within a device's micro-batch: at one pair per device the loss is DPO.",
        lambda ask: _is(ask("aot"), DPO(0.1)),
    ),
    Disagreement(
        "simpo", 'CPOConfig(loss_type="simpo")',
        "A likelihood term stays in the loss unless cpo_alpha is set to 0: the default is CPO-SimPO.",
        lambda ask: (
            _is(ask("simpo"), _of("trl-simpo", beta=0.1, gamma=0.5, sft_weight=1.0))
            and _is(ask("simpo", cpo_alpha=0.0), _of("simpo", beta=0.1, gamma=0.5))
        ),
    ),
    Disagreement(
        "simpo", 'CPOConfig(loss_type="simpo")',
        "simpo_gamma is γ, where the authors' code has γ/β: at the defaults the target is 5 nats per token.",
        lambda ask: _is(ask("simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=1.0), _of("simpo", beta=2.0, gamma=1.0)),
    ),
    Disagreement(
        "alphapo", 'CPOConfig(loss_type="alphapo")',
        "The default alpha is 0, where the paper recommends 0.25: unless it is set, the loss is SimPO.",
        lambda ask: _is(ask("alphapo"), _of("simpo", beta=0.1, gamma=0.5)),
    ),
    Disagreement(
        "cpo", "CPOConfig()",
        "The likelihood term is a mean over the batch's winning tokens, where the paper sums over a response.",
        lambda ask: _is(ask("cpo"), _of("trl-cpo", beta=0.1, sft_weight=1.0)) and _uneven(ask("cpo")),
    ),
    Disagreement(
        "orpo", "ORPOConfig()",
        "The likelihood term is a mean over the batch's tokens: pairs weigh by the lengths of their winners.",
        lambda ask: _is(ask("orpo"), _of("orpo", odds_weight=0.1)) and _uneven(ask("orpo")),
    ),
)  # fmt: skip
