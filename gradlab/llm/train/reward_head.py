"""A linear reward on the last hidden states of a language model that stays as it is, fitted by Bradley–Terry.

The logarithm of the likelihood of the pairs is concave in the head's weights, so that the fit has one answer, found
by Newton's method: no learning rate, no seed. Its ridge is chosen by cross-validation over prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from gradlab.checks import count, one_of, positive
from gradlab.llm.data.hold_out import prompt_key
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import Template
from gradlab.llm.model.reward_models import Scorer
from gradlab.llm.train.reward_folder import Started, reward_folder
from gradlab.llm.train.section_settings import LogSettings
from gradlab.llm.train.stage_log import StageLog

RIDGES = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5
_STEPS = 100  # of Newton's method, which needs ten or so


@dataclass(frozen=True)
class HeadSettings:
    """The settings that decide a fitted head; see ``fit_reward_head``."""

    template: Template
    ridges: tuple[float, ...]
    folds: int
    max_length: int
    fitted: str = "head"

    def __post_init__(self) -> None:
        one_of("template", self.template, get_args(Template))
        count("folds", self.folds, 2)
        count("max_length", self.max_length, 8)
        if not self.ridges:
            raise ValueError("ridges must hold one number or more, got none")
        for ridge in self.ridges:
            positive("ridges", ridge)


def fit_reward_head(
    base: str | Path, pairs: Sequence[Pair], out: Path | str, *, held_out: Sequence[Pair] = (),
    template: Template = "plain", ridges: Sequence[float] = RIDGES, folds: int = FOLDS, batch: int = 16,
    max_length: int = 512, device: torch.device | str = "cpu", template_date: str | None = None,
) -> str:  # fmt: skip
    """Fit a linear reward on a model's last hidden states by Bradley–Terry; return the folder of the model.

    The reward is r = w·s, where s is the hidden state (H,) that transformers' classifier reads, that of the text's
    last token. w minimises the mean of −log σ(r_w − r_l) over pairs plus ridge/2 · |w|², in units in which each
    coordinate of s has deviation 1. All other weights stay those of ``base``. Source: ours.

    ridges  the candidates; taken is the one whose mean loss on prompts left out of ``folds`` fits is least.
    batch   texts that are computed at a time.

    The other arguments and the files are those of ``train_reward``; log.jsonl has a row per candidate, in their
    order; ``validation_loss`` is the mean over the pairs that were left out of a fit. ValueError for pairs of a single
    prompt.
    """
    settings = HeadSettings(template, tuple(ridges), folds, max_length)
    names = [prompt_key(pair.prompt) for pair in pairs]
    if pairs and len(set(names)) < 2:
        raise ValueError("pairs must have two prompts or more, so that some can be left out, got 1")

    def fitted(started: Started) -> dict[str, Any]:
        return _fit(started, settings, _folds(names, folds))

    return reward_folder(
        base, pairs, out, settings, fitted, held_out=held_out, batch=count("batch", batch, 1), device=device,
        template_date=template_date,
    )  # fmt: skip


def _folds(names: Sequence[Any], folds: int) -> np.ndarray:
    """Return the fold of each pair, (N,): prompts that follow each other, often of one subject, have one in common."""
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] * folds // len(order) for name in names], int)


def _fit(started: Started, settings: HeadSettings, folds: np.ndarray) -> dict[str, Any]:
    """Put the fitted head into the model; return the ridge and its losses."""
    states = _states(started.scorer, [text for both in started.ids for text in both])
    scale = states.std(0)
    scale[scale == 0] = 1.0
    difference = (states[::2] - states[1::2]) / scale
    rows = [_row(difference, ridge, folds) for ridge in settings.ridges]
    log = LogSettings(sides_every=0, validate_every=0, save_every=0)
    with StageLog(started.out, {"loss": "reward model", **started.header}, 0, log, active=True) as lines:
        for number, row in enumerate(rows, 1):
            lines.write(number, {name: row[name] for name in ("loss", "validation_loss")})
    best = min(rows, key=lambda row: row["validation_loss"])
    weights = newton(difference, best["ridge"]) / scale
    head = started.scorer.model.score.weight
    with torch.no_grad():
        head.copy_(torch.from_numpy(weights)[None].to(head))
    return best


def _row(difference: np.ndarray, ridge: float, folds: np.ndarray) -> dict[str, float]:
    """Return a ridge with the mean loss of its fit, and that of pairs that were left out of a fit."""
    losses = np.empty(len(folds))
    for fold in np.unique(folds):
        out = folds == fold
        losses[out] = np.logaddexp(0.0, -difference[out] @ newton(difference[~out], ridge))
    inside = np.logaddexp(0.0, -difference @ newton(difference, ridge)).mean()
    return {"ridge": float(ridge), "loss": float(inside), "validation_loss": float(losses.mean())}


@torch.no_grad()
def _states(scorer: Scorer, ids: Sequence[list[int]]) -> np.ndarray:
    """Return the hidden states (N, H) that the model's head reads."""
    model = scorer.model.eval()
    head, model.score = model.score, nn.Identity()
    try:
        return scorer.in_batches(ids, lambda part: scorer.outputs(part).logits)
    finally:
        model.score = head


def newton(difference: np.ndarray, ridge: float) -> np.ndarray:
    """Return the weights (H,) that minimise mean −log σ(D w) + ridge/2 · |w|², for differences D (N, H).

    FloatingPointError where Newton's method, with steps halved as long as they do not descend, does not converge.
    """
    number, width = difference.shape
    weights = np.zeros(width)

    def value(weights: np.ndarray) -> float:
        return float(np.logaddexp(0.0, -difference @ weights).mean() + ridge / 2 * weights @ weights)

    for _ in range(_STEPS):
        wrong = 1 / (1 + np.exp(np.clip(difference @ weights, -700, 700)))
        gradient = ridge * weights - difference.T @ wrong / number
        curvature = (difference.T * (wrong * (1 - wrong) / number)) @ difference + ridge * np.eye(width)
        step = np.linalg.solve(curvature, gradient)
        gain = float(gradient @ step)
        if gain < 1e-14:
            return weights
        size, before = 1.0, value(weights)
        while value(weights - size * step) > before - 0.25 * size * gain and size > 1e-6:
            size /= 2
        weights = weights - size * step
    raise FloatingPointError(f"the head's fit did not converge within {_STEPS} steps at ridge {ridge:g}")
