"""Train many runs with a kernel: pack their columns into blocks of lanes, call it block by block, unpack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from gradlab.engine.kernel import Plan, schedule
from gradlab.engine.machine import Kernel
from gradlab.engine.vectors import ALIGNMENT, LANES

PANEL = 2**19  # numbers in the weights of one panel: few calls of numpy, and still in the processor's outer cache
CALL = 2**26  # pairs × lanes × steps of one call: some hundredths of a second, after which Python can be interrupted


@dataclass(frozen=True)
class Columns:
    """The problems of C = runs × prompts columns, as numpy has them.

    weights (C, Y, Y) shares of the ordered pairs; reference, start (C, Y) log π_ref, and log π at step 0.
    """

    weights: np.ndarray
    reference: np.ndarray
    start: np.ndarray


def follow(
    plan: Plan,
    kernel: Kernel,
    constants: tuple[float, ...],
    columns: Columns,
    features: np.ndarray,
    learning_rate: float,
    wanted: np.ndarray,
    tick: Callable[[int], None],
) -> np.ndarray:
    """Log π at the ``wanted`` steps, (S, C, Y). ``tick`` is told how many column-steps are done, now and then.

    features  Φ, (Y, K).
    """
    result = np.empty((len(wanted), *columns.start.shape), plan.dtype)
    numbers = np.array(constants, plan.dtype)
    rates = schedule(plan.optimizer, learning_rate, int(wanted[-1]), plan.dtype)
    for panel in _panels(plan, columns, features):
        stops = _stops(wanted, len(panel.partner))
        records = panel.run(kernel, stops, rates, numbers, tick)
        panel.unpack(records[:, np.searchsorted(stops, wanted)], result)
    return result


@dataclass(frozen=True)
class _Panel:
    """Some blocks of lanes. Arrays named as in ``kernel.ARGUMENTS`` are (blocks, rows, LANES).

    columns  which of all columns these are.
    order    (columns, Y): each has the responses that occur in some pair first.
    """

    columns: slice
    order: np.ndarray
    partners: np.ndarray
    partner: np.ndarray
    weight: np.ndarray
    reference: np.ndarray
    start: np.ndarray
    features: np.ndarray
    parameters: int

    def run(
        self, kernel: Kernel, stops: np.ndarray, rates: np.ndarray, numbers: np.ndarray, tick: Callable[[int], None]
    ) -> np.ndarray:
        """Take all steps; log π at the stops, (blocks, S, Y, LANES)."""
        blocks, responses, _ = self.start.shape
        record = _rows(blocks, len(stops) * responses, self.start.dtype)
        state, scratch = (_rows(3, rows, self.start.dtype) for rows in (self.parameters, responses))
        ends = np.concatenate([[0], stops]).astype(np.int64)
        shared = {
            "responses": responses, "parameters": self.parameters, "schedule": _at(rates), "constants": _at(numbers),
            "partners": _at(self.partners), "partner": _at(self.partner),
            **{name: _at(state[row]) for row, name in enumerate(("theta", "momentum", "square"))},
            **{name: _at(scratch[row]) for row, name in enumerate(("logp", "prob", "slope"))},
        }  # fmt: skip
        own = {
            name: (_at(array), array.strides[0])
            for name, array in (
                ("weight", self.weight), ("reference", self.reference), ("start", self.start),
                ("features", self.features), ("record", record),
            )
        }  # fmt: skip
        calls = list(_calls(ends, len(self.partner)))
        for block in range(blocks):
            state[:] = 0
            live = min(LANES, len(self.order) - block * LANES)
            places = {name: address + block * stride for name, (address, stride) in own.items()}
            for first, last in calls:
                stop = _at(ends) + first * ends.itemsize
                kernel(**shared, **places, stops=last - first, stop=stop)
                places["record"] += (last - first) * responses * record.strides[1]
                tick(int(ends[last] - ends[first]) * live)
        return record.reshape(blocks, len(stops), responses, LANES)

    def unpack(self, records: np.ndarray, result: np.ndarray) -> None:
        """Log π (blocks, S, Y, LANES), each column's responses back in their places, into its part of (S, C, Y)."""
        logp = records.transpose(1, 0, 3, 2).reshape(records.shape[1], -1, records.shape[2])[:, : len(self.order)]
        back = self.order.argsort(1)
        result[:, self.columns] = logp if _is_one_order(back) else np.take_along_axis(logp, back[None], 2)


def _panels(plan: Plan, columns: Columns, features: np.ndarray) -> Iterator[_Panel]:
    count, responses = columns.start.shape
    width = max(1, PANEL // (responses**2 * LANES)) * LANES
    for first in range(0, count, width):
        part = slice(first, min(first + width, count))
        yield _pack(plan, part, columns.weights[part], columns.reference[part], columns.start[part], features)


def _pack(
    plan: Plan, part: slice, weights: np.ndarray, reference: np.ndarray, start: np.ndarray, features: np.ndarray
) -> _Panel:
    seen = weights.any(1) | weights.any(2)
    order = np.argsort(~seen, axis=1, kind="stable")
    one, other = np.triu_indices(int(seen.sum(1).max()), 1)
    won, lost = _between(weights, order, one, other), _between(weights, order, other, one)
    weight = np.stack([won + lost if plan.antisymmetric else won, lost], 2)
    live = won.any(0) | lost.any(0)
    if not live.all():  # pairs that no column has data on need no time
        one, other, weight = one[live], other[live], weight[:, live]
    shared = features[order] if plan.shared else np.empty((len(order), 0))
    return _Panel(
        columns=part,
        order=order,
        partners=np.searchsorted(one, np.arange(start.shape[1] + 1)).astype(np.int64),
        partner=other.astype(np.int64),
        weight=_lanes(weight.reshape(len(order), -1), plan.dtype),
        reference=_lanes(np.take_along_axis(reference, order, 1), plan.dtype),
        start=_lanes(np.take_along_axis(start, order, 1), plan.dtype),
        features=_lanes(shared.reshape(len(order), shared[0].size), plan.dtype),
        parameters=features.shape[1],
    )


def _between(weights: np.ndarray, order: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Each column's weights of its response ``one`` over ``other``, both counted in its own order; (columns, pairs)."""
    flat, responses = weights.reshape(len(weights), -1), weights.shape[1]
    if _is_one_order(order):
        return flat.take(one * responses + other, axis=1)
    return np.take_along_axis(flat, order[:, one] * responses + order[:, other], 1)


def _is_one_order(order: np.ndarray) -> bool:
    """Whether every column has its responses in the order in which they came: then there is less to do."""
    return bool((order == np.arange(order.shape[1])).all())


def _stops(wanted: np.ndarray, pairs: int) -> np.ndarray:
    """The wanted steps, and some between where these lie so far apart that one call would take too long."""
    return np.union1d(wanted, np.arange(0, wanted[-1], _steps_a_call(pairs))).astype(np.int64)


def _calls(ends: np.ndarray, pairs: int) -> Iterator[tuple[int, int]]:
    """Cut the stretches between ``ends`` into calls that each take few enough steps: first and last end."""
    first = 0
    for last in range(1, len(ends)):
        if last == len(ends) - 1 or ends[last + 1] - ends[first] > _steps_a_call(pairs):
            yield first, last
            first = last


def _steps_a_call(pairs: int) -> int:
    return max(1, CALL // (pairs * LANES))


def _lanes(values: np.ndarray, dtype: str) -> np.ndarray:
    """(columns, rows) to (blocks, rows, LANES), filled up with columns of zeros."""
    count, rows = values.shape
    packed = _rows(-(-count // LANES), rows, dtype)
    padded = np.zeros((len(packed) * LANES, rows), dtype)
    padded[:count] = values
    packed[:] = padded.reshape(len(packed), LANES, rows).transpose(0, 2, 1)
    return packed


def _rows(blocks: int, rows: int, dtype: np.dtype | str) -> np.ndarray:
    """Zeros (blocks, rows, LANES), every row on a boundary of ALIGNMENT."""
    size = blocks * rows * LANES * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + size].view(dtype).reshape(blocks, rows, LANES)


def _at(array: np.ndarray) -> int:
    """Where it begins in memory."""
    return array.ctypes.data
