"""Many worlds as one batch of runs: stacked arrays, their data, and blocks of runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.arrays import real_array
from gradlab.checks import count, one_of, shown
from gradlab.lab import metrics
from gradlab.lab.objective import COLUMNS
from gradlab.lab.world import Labels, World, draw_pairs, exact_pairs

Worlds = World | Sequence["Worlds"]

# Rows × columns of one block: large enough to make a step's overhead small, small enough to stay in the cache.
BLOCK_SLOTS = 2**17


@dataclass(frozen=True, eq=False)
class Runs:
    """The worlds as arrays over one flat axis of R runs, and how to draw their data."""

    worlds: list[World]
    shape: tuple[int, ...]
    seeds: list[int]
    pairs: int | None
    labels: Labels

    @classmethod
    def of(cls, worlds: Worlds, pairs: int | None, labels: Labels | None, seed: int | Sequence[int]) -> Runs:
        """Flatten nested worlds of one size; one seed for all runs, or one per run. ValueError for a bad argument."""
        flat, shape = _flatten(worlds)
        sizes = {world.utility.shape for world in flat}
        if len(sizes) > 1:
            raise ValueError(f"worlds must have one size to train together, got {sorted(sizes)}")
        several = isinstance(seed, Sequence) or (isinstance(seed, np.ndarray) and seed.ndim > 0)
        given: list[Any] = list(seed) if several else [seed] * len(flat)  # type: ignore[arg-type]
        if len(given) != len(flat):
            raise ValueError(f"seed must be one number or one per run: {len(flat)} runs, got {len(given)} seeds")
        seeds = [count("seed", each) for each in given]
        if pairs is not None:
            count("pairs", pairs, least=1)
        if labels is None:
            labels = "soft" if pairs is None else "hard"
        one_of("labels", labels, get_args(Labels))
        return cls(flat, shape, seeds, pairs, labels)

    @property
    def count(self) -> int:
        """R, the number of runs."""
        return len(self.worlds)

    @property
    def prompts(self) -> int:
        """X, the number of prompts."""
        return self.worlds[0].prompts

    @property
    def responses(self) -> int:
        """Y, the number of responses."""
        return self.worlds[0].responses

    @functools.cached_property
    def ref_logp(self) -> np.ndarray:
        """The references, log π_ref, (R, X, Y)."""
        return np.stack([world.ref_logp for world in self.worlds])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The lengths of responses in tokens, (R, X, Y); 1 where a world states none."""
        return np.stack([world.token_counts for world in self.worlds])

    @functools.cached_property
    def utility(self) -> np.ndarray:
        """The utilities, (R, X, Y), in nats of preference."""
        return np.stack([world.utility for world in self.worlds])

    @functools.cached_property
    def comparable(self) -> np.ndarray:
        """True for the pairs that can appear in data, (R, X, Y, Y)."""
        return np.stack([world.comparable() for world in self.worlds])

    def data(self, split: int = 0) -> np.ndarray:
        """Return pair weights (R, X, Y, Y); split 0 is for training, 1 holds fresh pairs."""
        if self.pairs is None:
            return np.stack([exact_pairs(world, labels=self.labels) for world in self.worlds])
        drawn = (
            draw_pairs(world, self.pairs, labels=self.labels, seed=seed, split=split)
            for world, seed in zip(self.worlds, self.seeds, strict=True)
        )
        return np.stack(list(drawn))

    def start(self, start: np.ndarray | Tensor | None) -> Tensor:
        """Return log π at step 0, (R, X, Y), checked."""
        if start is None:
            return torch.as_tensor(self.ref_logp)
        given = self.spread("start", start)
        if not torch.allclose(given.logsumexp(-1), torch.zeros(()).to(given), atol=1e-6):
            raise ValueError("start must hold log-probabilities that sum to one over responses in every prompt")
        return given

    def spread(self, name: str, values: np.ndarray | Tensor) -> Tensor:
        """Broadcast values to (..., X, Y); return a tensor (R, X, Y), float64 on the CPU. ValueError if not finite."""
        given = torch.from_numpy(real_array(name, values).copy())  # a copy: torch warns of read-only arrays
        wanted = (*self.shape, self.prompts, self.responses)
        try:
            given = given.broadcast_to(wanted)
        except RuntimeError:
            raise ValueError(f"{name} must broadcast to shape {wanted}, got {tuple(given.shape)}") from None
        if not given.isfinite().all():
            raise ValueError(f"{name} must be finite everywhere, got {given[~given.isfinite()][0].item()}")
        return given.reshape(-1, self.prompts, self.responses)

    def unflatten(self, policies: Tensor) -> Tensor:
        """Turn (S, R, X, Y) into (S, ..., X, Y), with the leading axes of the worlds."""
        return policies.reshape(len(policies), *self.shape, self.prompts, self.responses)

    def history(self, policies: Tensor, steps: np.ndarray, beta: float) -> pd.DataFrame:
        """Return one row per run and recorded step, from log π (S, R, X, Y); columns as in ``metrics.summary``.

        Where all worlds have the same goals, also ``utility_GOAL`` and ``utility_share_GOAL`` of each.
        """
        stacked = {
            name: torch.as_tensor(np.stack([getattr(world, name) for world in self.worlds]))
            for name in ("utility", "observed", "ref_logp")
        }
        logp = policies.double().cpu()
        numbers = metrics.summary(logp, **stacked, beta=beta)
        for name in self._goals():
            utility = torch.as_tensor(np.stack([world.goals[name] for world in self.worlds]))
            numbers[f"utility_{name}"] = metrics.expected_utility(logp, utility).numpy()
            numbers[f"utility_share_{name}"] = metrics.utility_share(logp, utility, stacked["ref_logp"]).numpy()
        rows = {"step": np.repeat(steps, self.count), "run": np.tile(np.arange(self.count), len(steps))}
        return pd.DataFrame({**rows, **{name: value.ravel() for name, value in numbers.items()}})

    def _goals(self) -> list[str]:
        """Return the names of the goals that all worlds have, in the first world's order."""
        return [name for name in self.worlds[0].goals if all(name in world.goals for world in self.worlds)]

    def blocks(self, slots: int, device: str) -> Iterator[slice]:
        """Cut the runs into blocks whose tensors, ``slots`` rows by columns, stay in the cache; a GPU takes more."""
        room = BLOCK_SLOTS * (1 if torch.device(device).type == "cpu" else 1000)
        width = max(1, room // slots // COLUMNS * COLUMNS // self.prompts)
        return (slice(first, min(first + width, self.count)) for first in range(0, self.count, width))


def _flatten(worlds: Worlds) -> tuple[list[World], tuple[int, ...]]:
    if isinstance(worlds, World):
        return [worlds], ()
    if not isinstance(worlds, Sequence) or isinstance(worlds, str) or len(worlds) == 0:
        raise ValueError(f"worlds must be a World or a sequence with at least one, got {shown(worlds)}")
    parts = [_flatten(part) for part in worlds]
    if len({shape for _, shape in parts}) > 1:
        raise ValueError("worlds must nest evenly: every sequence at one depth needs the same length")
    return [world for flat, _ in parts for world in flat], (len(parts), *parts[0][1])
