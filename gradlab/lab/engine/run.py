"""Train many runs with a kernel: pack their columns into blocks of lanes, call it block by block, unpack."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gradlab.lab.engine.kernel import Plan
from gradlab.lab.engine.machine import Kernel
from gradlab.lab.engine.vectors import ALIGNMENT, LANES
from gradlab.lab.objective import Deal, paired_first
from gradlab.lab.optimizers import Optimizer, optimizer_of

PANEL = 2**19  # numbers in the weights of one panel: few calls of numpy, and still in the processor's outer cache
CALL = 2**26  # pairs × lanes × steps of one call: some hundredths of a second, after which Python can be interrupted

Arrays = dict[str, np.ndarray]  # the arrays by their names in ``kernel.ARGUMENTS``


class Columns(NamedTuple):
    """The problems of C = runs × prompts columns.

    weights (C, Y, Y) shares of the ordered pairs; reference, start (C, Y) log π_ref, and log π at step 0; features
    (C, Y, K) Φ, if shared; reward (C, Y), of PPO; lengths (C, Y) in tokens; utility (C, Y) and comparable (C, Y, Y), of
    samplers. A problem without pairs or reward has zeros there. The prompts of a run follow each other.
    """

    weights: np.ndarray
    reference: np.ndarray
    start: np.ndarray
    features: np.ndarray
    reward: np.ndarray
    lengths: np.ndarray
    utility: np.ndarray
    comparable: np.ndarray


@dataclass(frozen=True)
class KernelRun:
    """A kernel, with the constants of its loss, and how to train.

    penalty, epochs  as in ``kernel.ARGUMENTS``.
    deal             that of a ``DealtLoss``.
    law, sampler_every, reference_every  as in ``sampling.ARGUMENTS``.
    tick             is called with column-steps now and then.
    """

    plan: Plan
    kernel: Kernel
    constants: Sequence[float]
    learning_rate: float
    wanted: np.ndarray
    penalty: float = 0.0
    epochs: int = 1
    deal: Deal | None = None
    law: Sequence[float] = ()
    sampler_every: int = 1
    reference_every: int | None = None
    tick: Callable[[int], None] = lambda done: None

    def follow(self, columns: Columns) -> np.ndarray:
        """Return log π at the ``wanted`` steps, (S, C, Y)."""
        count, responses = columns.start.shape
        result = np.empty((len(self.wanted), count, responses), self.plan.dtype)
        group, prompts = LANES, 1
        if self.deal is not None:  # the fewest whole runs that fill their lanes
            prompts = count // len(self.deal.seeds)
            group = min(math.lcm(prompts, LANES), -(-count // LANES) * LANES)
        width = max(1, PANEL // (responses**2 * group)) * group
        for first in range(0, count, width):
            panel = Columns(*(values[first : first + width] for values in columns))
            rows, pairs, order = self._pack(panel, slice(first // prompts, (first + width) // prompts), group)
            logp = self._run(rows, pairs, len(order), group // LANES)
            result[:, first : first + width] = _reordered(logp, order.argsort(1))
        return result

    def _pack(self, columns: Columns, runs: slice, group: int) -> tuple[Arrays, Arrays, np.ndarray]:
        """Return the kernel's rows (blocks, rows, LANES), its pairs, and the order (C, Y) of each column's responses.

        Responses that occur in some pair come first: then few pairs serve all columns. But a sampler that ranks them
        has all pairs, in the order of utility.
        """
        rule = self.plan.rule
        mean, ranked = rule is not None and rule.mean, rule is not None and rule.draws > 0
        present = columns.comparable if mean else columns.weights
        seen = present.any(1) | present.any(2)
        order, responses = np.argsort(~seen, axis=1, kind="stable"), columns.start.shape[1]
        deal, sizes = None if self.deal is None else Deal(self.deal.loss, self.deal.seeds[runs]), np.empty(0, int)
        if ranked:
            order, seen = np.argsort(-columns.utility, axis=1, kind="stable"), np.ones_like(seen)
        if deal is not None:
            order, sizes = paired_first(columns.weights.reshape(len(deal.seeds), -1, responses, responses))
        in_order = _is_sorted(order)

        def between(table: np.ndarray, first: np.ndarray, other: np.ndarray) -> np.ndarray:
            flat = table.reshape(len(order), -1)
            if in_order:
                return flat.take(first * responses + other, 1)
            return np.take_along_axis(flat, order[:, first] * responses + order[:, other], 1)

        first, other = np.triu_indices(int(seen.sum(1).max()), 1)
        won, lost = between(columns.weights, first, other), between(columns.weights, other, first)
        live = between(present, first, other).any(0) if mean else won.any(0) | lost.any(0)
        if deal is None and not ranked and not live.all():  # pairs that no column has data on need no time
            first, other, won, lost = first[live], other[live], won[:, live], lost[:, live]
        rows = {
            "weight": np.stack([won + lost if self.plan.antisymmetric else won, lost], 2),
            "reference": _reordered(columns.reference, order),
            "start": _reordered(columns.start, order),
            "reward": _reordered(columns.reward, order),
            "features": np.take_along_axis(columns.features, order[:, :, None], 1),
        }
        packed = {name: _lanes(values, self.plan.dtype, group) for name, values in rows.items()}
        if self.plan.lengths:
            packed["length"] = _lanes(_reordered(columns.lengths, order), self.plan.dtype, group, filling=1.0)
        if rule is not None:
            packed["utility"] = _lanes(_reordered(columns.utility, order), self.plan.dtype, group)
        if mean:
            packed["comparable"] = _lanes(between(columns.comparable, first, other), self.plan.dtype, group)
        if deal is not None:
            source, sign = deal.places(sizes, np.stack([first, other]), len(order) // len(sizes))
            packed["sign"] = _lanes(sign.transpose(0, 2, 1).reshape(len(order), -1), self.plan.dtype, group)
            packed["source"] = _lanes(_places(source, group), "int32", group)
        partners = np.searchsorted(first, np.arange(responses + 1))
        pairs = {"partners": partners.astype(np.int64), "partner": other.astype(np.int64)}
        return packed, pairs, order

    def _run(self, rows: Arrays, pairs: Arrays, count: int, together: int) -> np.ndarray:
        """Take all steps, ``together`` blocks at a time; return ``count`` columns at the wanted steps, (S, C, Y)."""
        plan, (blocks, responses) = self.plan, rows["start"].shape[:2]
        parameters = rows["features"].shape[1] // responses if plan.shared else responses
        ends, calls = _calls(self.wanted, max(len(pairs["partner"]), responses) * together)
        record = _rows(blocks // together, (len(ends) - 1) * together * responses, plan.dtype)
        rule = optimizer_of(plan.optimizer)
        sizes = {"theta": parameters, "memory": rule.memories * parameters, "number": len(pairs["partner"])}
        sizes |= dict.fromkeys(("logp", "prob", "slope", "old_logp", "share", "advantage"), responses)
        if plan.rule is not None:
            sizes |= {"density": plan.rule.densities * responses, "factor": plan.rule.factors}
            sizes |= {"chance": len(pairs["partner"]) if plan.rule.draws else 0}
        common = {
            **pairs,
            **{name: _rows(1, together * size, plan.dtype)[0] for name, size in sizes.items()},
            "schedule": _schedule(rule, self.learning_rate, int(self.wanted[-1]), plan.dtype),
            "constants": np.array(self.constants, plan.dtype),
            "penalty": np.array([self.penalty], plan.dtype),
            "law": np.array(self.law, plan.dtype),
        }
        given = {"responses": responses, "parameters": parameters, "blocks": together, "epochs": self.epochs}
        given |= {"sampler_every": self.sampler_every, "reference_every": self.reference_every or 0}
        given |= {name: values.ctypes.data for name, values in common.items()}
        by_group = {name: (values.ctypes.data, values.strides[0] * together) for name, values in rows.items()}
        by_group["record"] = (record.ctypes.data, record.strides[0])
        first_stop = ends.ctypes.data
        for group in range(blocks // together):
            common["theta"][:] = common["memory"][:] = 0
            places = {name: address + group * stride for name, (address, stride) in by_group.items()}
            for first, last in calls:
                self.kernel(**given, **places, stop=first_stop + first * ends.itemsize, stops=last - first)
                places["record"] += (last - first) * together * responses * record.strides[1]
                columns = min(together * LANES, count - group * together * LANES)
                self.tick(int(ends[last] - ends[first]) * columns)
        record = record.reshape(len(record), -1, together, responses, LANES)[:, np.searchsorted(ends[1:], self.wanted)]
        return record.transpose(1, 0, 2, 4, 3).reshape(len(self.wanted), -1, responses)[:, :count]


def _places(source: np.ndarray, group: int) -> np.ndarray:
    """Return where in the numbers of its group each pair of each column finds what it gets, (C, pairs).

    source (R, pairs, X) as ``Deal.places`` returns it. A group's numbers are (blocks, pairs, LANES).
    """
    runs, pairs, prompts = source.shape
    slot, prompt = np.divmod(source, prompts)
    column = (np.arange(runs)[:, None, None] * prompts + prompt) % group
    places = (column // LANES * pairs + slot) * LANES + column % LANES
    return places.transpose(0, 2, 1).reshape(runs * prompts, pairs)


def _schedule(rule: Optimizer, learning_rate: float, steps: int, dtype: str) -> np.ndarray:
    """Return the optimiser's factors of every step, (steps, 2), in the kernel's precision."""
    with np.errstate(over="ignore"):  # too large a learning rate shows later, in a policy that is not finite
        return rule.factors(learning_rate, steps).astype(dtype)


def _reordered(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return values (..., C, Y) with the last axis in each column's order (C, Y)."""
    order = order.reshape((1,) * (values.ndim - 2) + order.shape)
    return values if _is_sorted(order) else np.take_along_axis(values, order, -1)


def _is_sorted(order: np.ndarray) -> bool:
    """Say whether every column keeps the order of its responses: then there is less to do."""
    return bool((np.diff(order) > 0).all())


def _calls(wanted: np.ndarray, pairs: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return where stretches of steps end, with 0 and the wanted steps; and the first and last end of each call."""
    cuts = np.append(np.arange(0, wanted[-1], max(1, CALL // (max(pairs, 1) * LANES))), wanted[-1])
    ends = np.append(0, np.union1d(wanted, cuts)).astype(np.int64)
    return ends, list(pairwise(np.searchsorted(ends, cuts).tolist()))


def _lanes(values: np.ndarray, dtype: str, group: int, filling: float = 0.0) -> np.ndarray:
    """Return columns (C, ...) as (blocks, rows, LANES), filled up with columns of one number to a whole ``group``."""
    blocks, size = -(-len(values) // group) * (group // LANES), math.prod(values.shape[1:])
    padded = np.full((blocks * LANES, size), filling, dtype)
    padded[: len(values)] = values.reshape(len(values), size)
    packed = _rows(blocks, size, dtype)
    packed[:] = padded.reshape(blocks, LANES, size).transpose(0, 2, 1)
    return packed


def _rows(blocks: int, rows: int, dtype: np.dtype | str) -> np.ndarray:
    """Return zeros (blocks, rows, LANES) that begin on a boundary of ALIGNMENT."""
    size = blocks * rows * LANES * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + size].view(dtype).reshape(blocks, rows, LANES)
