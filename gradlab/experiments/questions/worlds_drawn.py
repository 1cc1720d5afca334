"""The distribution that draws the worlds to which claims are transported, declared before the first of them was drawn.

All of it is ours. Each setting is drawn independently; β = 1 everywhere:

==================  ====================================================================
setting             distribution
==================  ====================================================================
kind of utility     uniform over the four kinds of ``gaussian_world``
scale R             log-uniform on [1, 8]; a log-Gaussian utility has none
width σ             log-uniform on [1.5, 6] responses; an independent utility has none
mask rate           uniform over 0, 0.1, …, 0.5
reference           uniform over uniform, random and shifted; the shift on [2, 8] responses
pairs per prompt    uniform over 25, 50, 100, 200 and 400, hard labels
policy              uniform over free logits and shared parameters
==================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np

from gradlab.checks import count
from gradlab.lab.world import Reference, Utility, World, gaussian_world
from gradlab.streams import Purpose, stream

UTILITIES: tuple[Utility, ...] = get_args(Utility)
SCALES = (1.0, 8.0)
SIGMAS = (1.5, 6.0)
MASK_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
REFERENCES: tuple[Reference, ...] = get_args(Reference)
SHIFTS = (2.0, 8.0)
PAIRS = (25, 50, 100, 200, 400)
POLICIES = ("free", "shared")
BETA = 1.0
WORDS = (
    f"a kind of utility, uniform over {', '.join(UTILITIES)}; R log-uniform on [{SCALES[0]:g}, {SCALES[1]:g}] and σ on "
    f"[{SIGMAS[0]:g}, {SIGMAS[1]:g}]; a mask rate, uniform over {', '.join(f'{rate:g}' for rate in MASK_RATES)}; a "
    f"reference, uniform over {', '.join(REFERENCES)} (by {SHIFTS[0]:g} to {SHIFTS[1]:g} responses); pairs per prompt, "
    f"uniform over {', '.join(map(str, PAIRS))}; free logits or shared parameters; β = {BETA:g}"
)
T = TypeVar("T")


@dataclass(frozen=True)
class DrawnWorld:
    """The settings of one world, and the seeds that draw what is random within it.

    number  of the world in its draw, from 0 on.
    scale, sigma, shift  NaN where the kind of utility or reference has none.
    """

    number: int
    seeds: tuple[int, ...]
    utility: Utility
    scale: float
    sigma: float
    mask: float
    reference: Reference
    shift: float
    pairs: int
    policy: str

    def worlds(self) -> list[World]:
        """Return the world once per seed: with the centres, utilities, mask and reference that the seed draws."""
        numbers = {"scale": self.scale, "sigma": self.sigma, "shift": self.shift}
        given: dict[str, Any] = {name: value for name, value in numbers.items() if not np.isnan(value)}
        return [
            gaussian_world(utility=self.utility, mask_rate=self.mask, reference=self.reference, seed=seed, **given)
            for seed in self.seeds
        ]

    def columns(self) -> dict[str, Any]:
        """Return the world's number and settings as they are called in the frame."""
        return {
            "world": self.number, "utility_kind": self.utility, "scale": self.scale, "sigma": self.sigma,
            "mask": self.mask, "reference": self.reference, "shift": self.shift, "pairs": self.pairs,
            "policy": self.policy,
        }  # fmt: skip


def drawn(number: int, first_seed: int, seeds: int) -> DrawnWorld:
    """Return a world of a draw: the same one, however many are drawn.

    first_seed  names the draw: the worlds of two draws are independent. World k has the seeds from first_seed +
                k · seeds on, so no two worlds of a draw share one.
    seeds       how many seeds each world has.
    """
    number, seeds = count("number", number), count("seeds", seeds, least=1)
    draws = iter(stream(first_seed, Purpose.DRAWN_WORLD, number).random(8))
    utility: Utility = _one_of(UTILITIES, next(draws))
    scale, sigma = _log(SCALES, next(draws)), _log(SIGMAS, next(draws))
    mask = _one_of(MASK_RATES, next(draws))
    reference: Reference = _one_of(REFERENCES, next(draws))
    shift = SHIFTS[0] + (SHIFTS[1] - SHIFTS[0]) * float(next(draws))
    pairs, policy = _one_of(PAIRS, next(draws)), _one_of(POLICIES, next(draws))
    first = first_seed + number * seeds
    return DrawnWorld(
        number, tuple(range(first, first + seeds)), utility, np.nan if utility == "log-gaussian" else scale,
        np.nan if utility == "independent" else sigma, mask, reference,
        shift if reference == "shifted" else np.nan, pairs, policy,
    )  # fmt: skip


def dose(world: World, beta: float = BETA) -> float:
    """Return the mean over prompts of (max u − min u)/β: R/β for a Gaussian utility, less what its tail keeps."""
    return float(np.ptp(world.utility, axis=1).mean() / beta)


def _one_of(options: tuple[T, ...], draw: float) -> T:
    return options[int(draw * len(options))]


def _log(ends: tuple[float, float], draw: float) -> float:
    return float(ends[0] * (ends[1] / ends[0]) ** draw)
