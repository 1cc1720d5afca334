"""Losses that fit a density ratio u = π/π_ref: a term of the winner and a term of the loser, without a margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor

from gradlab.losses.facts import Facts, Look, Shipped
from gradlab.losses.links import grown
from gradlab.losses.pair import KnownLoss, PairLogps

_COLOR = "#44AA99"
_NONE: MappingProxyType[str, float] = MappingProxyType({})
_REPOSITORY = "DisentangledPreferenceOptimization ea4ce38"
_EDGE = 1e-6  # how near to 2 u_l comes before DDRO's loss goes on along its tangent


class _Density(Facts):
    """The facts that these losses share."""

    antisymmetric = False


@dataclass(frozen=True)
class LSIF(_Density):
    """−u_w + ½u_l², u = π/π_ref: least-squares importance fitting.

    Source: Xiao et al. 2025 (arXiv 2503.05079), with Kanamori et al. 2009. Beyond e^60 powers go on along their
    tangent.
    """

    name = "lsif"
    label = "LSIF"
    equation = "−u_w + ½u_l²,  u = π/π_ref"
    source = "Xiao et al. 2025, arXiv 2503.05079"
    start_value = -0.5
    start_equation = "−½"
    bounded_below = False
    rho = "u_w/u_l²"
    shipped = (Shipped(_REPOSITORY, "LSIF", _NONE, "It does not bound u."),)
    notes = (f"{_REPOSITORY} does not bound u: in single precision u_l² overflows for h_l above 44.",)
    look = Look(_COLOR, "-", "o")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; −½ at the reference."""
        return 0.5 * grown(2 * logps.lose_logratio) - grown(logps.win_logratio)


@dataclass(frozen=True)
class UKL(_Density):
    """−log π_w + u_l, u = π/π_ref: the unnormalised Kullback–Leibler fit of a density ratio.

    Source: Xiao et al. 2025 (arXiv 2503.05079). Beyond e^60 u goes on along its tangent.
    """

    name = "ukl"
    label = "UKL"
    equation = "−log π_w + u_l,  u = π/π_ref"
    source = "Xiao et al. 2025, arXiv 2503.05079"
    start_value = None
    rho = "1/u_l"
    shipped = (Shipped(_REPOSITORY, "UKL", _NONE, "It does not bound u."),)
    notes = ("Written with log u_w in place of log π_w the loss differs by a constant, and its slopes are the same.",)
    look = Look(_COLOR, "--", "s")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 1 − log π_w at the reference."""
        return grown(logps.lose_logratio) - logps.win


@dataclass(frozen=True)
class DDRO(_Density):
    """log 2 − log u_w + log 2 − log(2 − u_l), u = π/π_ref.

    Source: Higuchi and Suzuki 2025 (arXiv 2505.07558). For u_l > 2 − 1e-6 the loss goes on along its tangent there, as
    in the code that ships it, and beyond e^60 u does.
    """

    name = "ddro"
    label = "DDRO"
    equation = "2 log 2 − log u_w − log(2 − u_l),  u = π/π_ref"
    source = "Higuchi and Suzuki 2025, arXiv 2505.07558"
    start_value = 2 * math.log(2)
    start_equation = "2 ln 2"
    bounded_below = False
    rho = "(2 − u_l)/u_l for u_l < 2"
    shipped = (Shipped(_REPOSITORY, "DDRO"),)
    notes = ("log(2 − u_l) has no value for u_l ≥ 2, which a policy may reach wherever π_ref is below ½.",)
    look = Look(_COLOR, "-.", "^")

    def __call__(self, logps: PairLogps) -> Tensor:
        """Return the loss of each pair; 2 ln 2 at the reference."""
        ratio = grown(logps.lose_logratio)
        left = (2 - ratio).clamp(min=_EDGE)
        beyond = F.relu(ratio - (2 - _EDGE)) / _EDGE
        return 2 * math.log(2) - logps.win_logratio - left.log() + beyond


FAMILY = "density ratio"
LOSSES: tuple[Callable[..., KnownLoss], ...] = (LSIF, UKL, DDRO)  # registered, each under its name
