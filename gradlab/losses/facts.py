"""Facts that a loss states beside its formula: look, sliders, who ships it, and what it does to either side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from types import MappingProxyType
from typing import Any, NamedTuple


class Look(NamedTuple):
    """A colour, line and marker by which figures draw a training with a loss, in Matplotlib's names."""

    color: str
    linestyle: Any
    marker: str


PLAIN = Look("#7F3C8D", (0, (3, 1, 1, 1)), "H")  # for a loss or method that names no look


class SliderRange(NamedTuple):
    """The stops of a slider: from ``low`` to ``high`` by ``step``; with ``log``, 10 to the power of these."""

    low: float
    high: float
    step: float
    log: bool = False


BETA_RANGE = SliderRange(-3, 2, 0.05, log=True)


def with_slider(default: float, stops: SliderRange) -> Any:
    """Return a field of a loss: a number with this default, which menus show as a slider over these stops."""
    return field(default=default, metadata={"slider": stops})


class Shipped(NamedTuple):
    """A library's implementation of a loss, as its code stood in the named version."""

    library: str
    """Name and version, such as "trl 1.16.0"."""
    key: str
    """How a user of the library asks for the loss, such as loss_type="sigmoid"."""
    hyper: Mapping[str, float] = MappingProxyType({})
    """The hyper-parameters, in our names, with which our class computes what the library ships by default."""
    remark: str = ""
    """Where the library differs from the source, or surprises; one sentence, or empty."""


def ships(library: str, key: str, remark: str = "", /, **hyper: float) -> Shipped:
    """Return a ``Shipped`` with these hyper-parameters."""
    return Shipped(library, key, MappingProxyType(hyper), remark)


class Facts:
    """The facts of a loss with their usual values; a class of gradlab's states those that differ, see ``KnownLoss``.

    That protocol has their types. Here they are open, since a fact may be a property: it may depend on the numbers.
    """

    start_equation: Any = ""
    weight_range: Any = (0.0, 1.0)
    constant_weight: Any = False
    logistic: Any = False
    bounded_below: Any = True
    bounded_above: Any = False
    needs_lengths: Any = False
    needs_reference: Any = True
    winner_down: Any = False
    loser_up: Any = False
    optimum: Any = ""
    rho: Any = ""
    convention: Any = "sums over tokens"
    published: Any = MappingProxyType({})
    shipped: Any = ()
    notes: Any = ()
