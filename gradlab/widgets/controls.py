"""Controls of explorers: a value each, with a name, a hint and what it accepts; the page draws them from these facts.

They are ipywidgets, so that ``observe``, ``jslink`` and other boxes work; a control reaches the page only when it
is linked or shown by itself, since the explorer's front end draws all of an explorer's controls.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import ipywidgets as widgets
import traitlets

from gradlab.checks import between, count, shown
from gradlab.losses import PAIR_LOSSES, HyperParameter, PairLoss, SliderRange, hyper_parameters, pair_loss
from gradlab.losses.registry import numbers_of

Scale = Literal["linear", "log", "logit"]


class Control:
    """The part that all controls share.

    Attributes
    ----------
    title, hint  the control's name in the page, and words on what it is.
    hidden       whether the control has no effect in the present state; explorers set it in ``adapt``.
    part         {} or what the control belongs to, such as ``{"loss": "a"}``: the menu of loss A.
    """

    kind: str
    value: Any

    def __init__(self, label: str, value: Any, hint: str = "", **more: Any) -> None:
        """Make a control with this value; ``more`` as the ipywidget takes it."""
        self.title, self.hint, self.hidden = label, hint, False
        self.part: dict[str, str] = {}
        super().__init__(value=value, description=label, tooltip=hint or label, **more)  # type: ignore[call-arg]

    def open(self) -> None:
        """Leave the page alone until something shows or links the control."""

    @property
    def model_id(self) -> str:
        """The control's name in the page, which knows it from now on."""
        if self.comm is None:  # type: ignore[attr-defined]
            super().open()  # type: ignore[misc]
        return self.comm.comm_id  # type: ignore[attr-defined]

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        assert self.model_id
        return super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]

    def accepted(self, key: str, value: Any) -> Any:
        """Return the value if the control takes it; ValueError in one line if not, which names it ``key``."""
        raise NotImplementedError

    def parsed(self, text: str) -> Any:
        """Return the value that a link writes as this text; the text itself where it is none, to be refused."""
        return text

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control."""
        return {"kind": self.kind, "label": self.title, "hint": self.hint, "start": self.value, **self.part}

    def offers(self) -> dict[str, Any]:
        """Return the facts that change with other controls, as in ``spec``; {} for a control whose facts stay."""
        return {}

    @traitlets.validate("value")
    def _validate_value(self, proposal: Any) -> Any:
        try:
            return self.accepted(self.title, proposal.value)
        except (ValueError, TypeError) as error:
            raise traitlets.TraitError(str(error)) from error


class Number(Control, widgets.FloatText):
    """A number between two ends, on a linear, logarithmic or logit track."""

    kind = "number"

    def __init__(self, label: str, value: float, low: float, high: float, hint: str = "", scale: Scale = "linear"):
        """Make the control; ``low`` and ``high`` are the ends of the track and of what is accepted."""
        self.low, self.high, self.scale = low, high, scale
        super().__init__(label, float(value), hint)

    def accepted(self, key: str, value: Any) -> float:
        """Return the value as a float; ValueError unless it is a number between the ends."""
        return float(between(key, value, self.low, self.high))

    def parsed(self, text: str) -> Any:
        """Return the number that a link writes as this text; the text itself where it is none, to be refused."""
        try:
            return float(text)
        except ValueError:
            return text

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control; null is no end."""
        low, high = (end if math.isfinite(end) else None for end in (self.low, self.high))
        return {**super().spec(), "low": low, "high": high, "scale": self.scale}


class FreeNumber(Number):
    """A number whose label and track an explorer changes; any finite number is accepted."""

    def accepted(self, key: str, value: Any) -> float:
        """Return the value as a float; ValueError unless it is a finite number."""
        return float(between(key, value, -math.inf))

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control."""
        return {**super().spec(), "changing": True}

    def offers(self) -> dict[str, Any]:
        """Return label, ends and scale."""
        return {"label": self.title, "low": self.low, "high": self.high, "scale": self.scale}


class Stops(NamedTuple):
    """The ends and the scale of a slider's track; an infinite end is none."""

    low: float
    high: float
    scale: Scale = "linear"

    @classmethod
    def of(cls, slider: SliderRange | None) -> Stops:
        """Return the stops that a loss's field states; None: any number, typed."""
        if slider is None:
            return cls(-math.inf, math.inf)
        low, high, _, log = slider
        return cls(float(f"{10**low:.12g}"), float(f"{10**high:.12g}"), "log") if log else cls(low, high)


class LossNumber(Number):
    """A hyper-parameter of the losses of a menu, with stops and a default of its own for each loss.

    Its own ends are the outermost of all losses. ``explorer.set`` holds it to those of the chosen loss.

    within  ends that an explorer sets beyond those of the losses.
    """

    within: tuple[float, float] = (-math.inf, math.inf)

    def __init__(self, label: str, value: float, of: HyperParameter, hint: str = ""):
        """Make the control from the facts of a registry's hyper-parameter."""
        self.take(of)
        super().__init__(label, value, self.low, self.high, hint, self.scale)

    def take(self, of: HyperParameter) -> None:
        """Take the stops and defaults of the losses that have the hyper-parameter now."""
        self.defaults = of.defaults
        self.stops = {loss: Stops.of(slider) for loss, slider in of.sliders.items()}
        lows, highs, scales = zip(*self.stops.values(), strict=True)
        self.low, self.high, self.scale = min(lows), max(highs), scales[0]
        self.hold(*self.within)

    def hold(self, low: float, high: float) -> None:
        """Hold the value to these ends for every loss."""
        self.within = low, high
        self.low, self.high = max(low, self.low), min(high, self.high)

    def accepted_of(self, loss: str, key: str, value: Any) -> float:
        """Return the value as a float; ValueError unless the loss takes it, or does not have it at all."""
        return float(between(key, value, *self._ends(loss)))

    def following(self, former: str, chosen: str, start: float) -> float:
        """Return the value after the menu has gone from one loss to another.

        It is the new loss's default, where the value was untouched, at the former's default or at ``start``, or is
        none that the new loss takes; otherwise the value stays.
        """
        low, high = self._ends(chosen)
        untouched = self.value == self.defaults.get(former, start)
        value = self.defaults.get(chosen, start) if untouched or not low <= self.value <= high else self.value
        return min(max(value, low), high)

    def _ends(self, loss: str) -> tuple[float, float]:
        low, high, _ = self.stops.get(loss, (self.low, self.high, ""))
        return max(low, self.low), min(high, self.high)


class Whole(Control, widgets.IntText):
    """A whole number between two ends."""

    kind = "whole"

    def __init__(
        self, label: str, value: int, low: int, high: int, hint: str = "", scale: Literal["linear", "log"] = "linear"
    ) -> None:
        """Make the control; ``low`` and ``high`` are accepted too."""
        self.low, self.high, self.scale = low, high, scale
        super().__init__(label, value, hint)

    def accepted(self, key: str, value: Any) -> int:
        """Return the value; ValueError unless it is a whole number between the ends."""
        return count(key, value, self.low, self.high)

    def parsed(self, text: str) -> Any:
        """Return the number that a link writes as this text; the text itself where it is none, to be refused."""
        return int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else text

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control."""
        return {**super().spec(), "low": self.low, "high": self.high, "scale": self.scale}


class Choice(Control, widgets.Dropdown):
    """One of several values, each with a text that is shown; ``refused`` says why some cannot be chosen, by value.

    Where its options change with other controls (``changing``), Python alone checks a value.
    """

    kind = "choice"

    def __init__(
        self, label: str, value: Any, options: Iterable[Any] | Mapping[str, Any], hint: str = "", changing: bool = False
    ) -> None:
        """Make the menu; a mapping gives shown text and value."""
        self.changing = changing
        listed = list(options.items()) if isinstance(options, Mapping) else [(str(one), one) for one in options]
        self.refused: dict[Any, str] = {}
        super().__init__(label, value, hint, options=listed)

    def accepted(self, key: str, value: Any) -> Any:
        """Return the value; ValueError unless it is one of the menu's that can be chosen."""
        values = [each for _, each in self.options]
        if not any(type(each) is type(value) and each == value for each in values):
            raise ValueError(f"{key} must be one of {', '.join(map(str, values))}; got {shown(value)}")
        if value in self.refused:
            raise ValueError(f"{key} must be one that can be shown; {value} cannot: {self.refused[value]}")
        return value

    def parsed(self, text: str) -> Any:
        """Return the option that a link writes as this text; the text itself where it is none, to be refused."""
        return next((value for _, value in self.options if str(value) == text), text)

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control."""
        return {**super().spec(), "options": self.listed(), **({"changing": True} if self.changing else {})}

    def offers(self) -> dict[str, Any]:
        """Return the options of a menu that changes."""
        return {"options": self.listed()} if self.changing else {}

    def listed(self) -> list[dict[str, Any]]:
        """Return the options as the page takes them."""
        return [{"label": label, "value": value} for label, value in self.options]


class Switch(Control, widgets.Checkbox):
    """A tick box."""

    kind = "flag"

    def accepted(self, key: str, value: Any) -> bool:
        """Return the value; ValueError unless it is True or False."""
        if not isinstance(value, bool):
            raise ValueError(f"{key} must be True or False, got {shown(value)}")
        return value

    def parsed(self, text: str) -> Any:
        """Return the truth that a link writes as this text; the text itself where it is none, to be refused."""
        return {"true": True, "false": False}.get(text, text)


class Line(Control, widgets.Text):
    """A line to type in, read when Enter is pressed or the line is left."""

    kind = "text"

    def __init__(self, label: str, value: str, hint: str = "", rows: int = 1) -> None:
        """Make the line with this text; a long one is seen in so many rows.

        ``note`` says what an explorer has to say of the text; None: it never will.
        """
        self.note: str | None = None
        self.rows = rows
        super().__init__(label, value, hint, continuous_update=False, placeholder=hint)

    def accepted(self, key: str, value: Any) -> str:
        """Return the value; ValueError unless it is a text."""
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a text, got {shown(value)}")
        return value

    def spec(self) -> dict[str, Any]:
        """Return the facts from which the page draws the control."""
        return {**super().spec(), **({"rows": self.rows} if self.rows > 1 else {})}

    def offers(self) -> dict[str, Any]:
        """Return the note."""
        return {} if self.note is None else {"note": self.note}


Controls = dict[str, Any]  # Control by name; Any, since a type that is both Control and Widget cannot be written


def slider(label: str, value: float, low: float, high: float, hint: str = "") -> Number:
    """Return a slider over the numbers from ``low`` to ``high``."""
    return Number(label, value, low, high, hint)


def log_slider(label: str, value: float, low: float, high: float, hint: str = "") -> Number:
    """Return a logarithmic slider over the numbers from 10**low to 10**high."""
    return Number(label, value, float(f"{10**low:.12g}"), float(f"{10**high:.12g}"), hint, "log")


def probability(label: str, value: float, low: float, high: float, hint: str = "") -> Number:
    """Return a slider over probabilities, with as much room near 0 as near 1."""
    return Number(label, value, low, high, hint, "logit")


Losses = Mapping[str, PairLoss]  # losses by name that the registry does not have
NO_LOSSES: Losses = MappingProxyType({})


def loss_controls(
    slots: str, losses: Iterable[str], beta: Mapping[str, float] | float = 1.0, given: Losses = NO_LOSSES
) -> Controls:
    """Return the menus of losses A, B, … and a control for each number of any loss, with β first.

    slots   the letters of the losses, such as "ab": controls are ``loss_a``, ``beta_a``, ….
    losses  the loss with which each begins. beta: with which β, for all, or by letter.
    given   losses by name that the registry does not have.
    """
    controls: Controls = {}
    for slot, loss in zip(slots, losses, strict=True):
        menu = Choice(f"loss {slot.upper()}", loss, loss_names(given), "from the registry of losses")
        menu.part = {"loss": slot}
        controls[f"loss_{slot}"] = menu
        start = beta if isinstance(beta, float | int) else beta.get(slot, 1.0)
        controls |= hyper_controls(slot, known_hyper_parameters(given), start, loss)
    return controls


def hyper_controls(slot: str, parameters: Mapping[str, HyperParameter], beta: float = 1.0, loss: str = "") -> Controls:
    """Return a control for each of these hyper-parameters of a slot, by its name and the slot's letter.

    beta  with which β it begins. loss: the loss whose defaults are the start values of the others.
    """
    controls: Controls = {}
    for name, of in parameters.items():
        start = beta if name == "beta" else of.defaults.get(loss, next(iter(of.defaults.values())))
        control: Any = _hyper_control(name, start, of)
        control.part = {"hyper": name, "of": slot}
        control.description = f"{control.title} of {slot.upper()}"  # where it is shown by itself
        controls[f"{name}_{slot}"] = control
    return controls


def loss_names(given: Losses = NO_LOSSES) -> list[str]:
    """Return the names of a menu of losses: the registered ones, then those that were given."""
    return list(dict.fromkeys([*PAIR_LOSSES, *given]))


def chosen_loss(state: Mapping[str, Any], slot: str, given: Losses = NO_LOSSES) -> PairLoss:
    """Return the loss that the controls of this letter are set to."""
    name = state[f"loss_{slot}"]
    hyper = {field: state[f"{field}_{slot}"] for field in fields_of(name, given)}
    return pair_loss(name, **hyper) if name in PAIR_LOSSES else with_numbers(given[name], hyper)


def with_numbers(loss: PairLoss, hyper: Mapping[str, Any]) -> PairLoss:
    """Return a loss with other hyper-parameters."""
    return replace(loss, **hyper) if hyper else loss  # type: ignore[type-var]


def loss_code(state: Mapping[str, Any], slot: str, given: Losses = NO_LOSSES) -> str:
    """Return that loss as Python code; a loss that was given is written as its class's call."""
    name = state[f"loss_{slot}"]
    if name not in PAIR_LOSSES:
        return repr(chosen_loss(state, slot, given))
    numbers = [f"{field}={state[f'{field}_{slot}']!r}" for field in fields_of(name)]
    return f"gl.pair_loss({', '.join([repr(name), *numbers])})"


def hide_unused(controls: Controls, slots: str, given: Losses = NO_LOSSES) -> None:
    """Hide the numbers that the chosen losses lack."""
    for slot in slots:
        fields = fields_of(controls[f"loss_{slot}"].value, given)
        for field in known_hyper_parameters(given):
            controls[f"{field}_{slot}"].hidden = field not in fields


def following_numbers(
    controls: Controls, menus: Mapping[str, tuple[str, str]], start: Mapping[str, Any]
) -> dict[str, float]:
    """Return the numbers that go with losses, by name of control; ``LossNumber.following`` has the rule.

    menus  names of menus, each with the former and the chosen loss. start: the explorer's usual values.
    """
    return {
        key: control.following(*menus[f"loss_{control.part['of']}"], start[key])
        for key, control in controls.items()
        if isinstance(control, LossNumber) and f"loss_{control.part['of']}" in menus
    }


def fields_of(loss: str, given: Losses = NO_LOSSES) -> list[str]:
    """Return the names of the numbers that a loss has."""
    return [name for name, of in known_hyper_parameters(given).items() if loss in of.defaults]


def known_hyper_parameters(given: Losses = NO_LOSSES) -> dict[str, HyperParameter]:
    """Return ``hyper_parameters()``, with those of losses that were given.

    Those of the registry are computed once per registry, since each move of a control asks many times.
    """
    registered = _of_registry(tuple(PAIR_LOSSES.items()))
    others = {name: loss for name, loss in given.items() if name not in PAIR_LOSSES}
    if not others:
        return registered
    parameters = {
        name: of._replace(defaults=dict(of.defaults), sliders=dict(of.sliders)) for name, of in registered.items()
    }
    for title, loss in others.items():
        sliders = {field.name: field.metadata.get("slider") for field in fields(loss)} if is_dataclass(loss) else {}
        for name, value in numbers_of(loss).items():
            of = parameters.setdefault(name, HyperParameter(type(value), {}, {}))
            of.defaults[title], of.sliders[title] = value, sliders[name]
    return parameters


@functools.lru_cache(maxsize=1)
def _of_registry(registry: tuple[Any, ...]) -> dict[str, HyperParameter]:
    return hyper_parameters()


def _hyper_control(name: str, start: float, of: HyperParameter) -> Control:
    title, hint = ("β", "inverse temperature; the paper's is 1") if name == "beta" else (name.replace("_", " "), "")
    if of.kind is bool:
        return Switch(title, bool(start), hint)
    if of.kind is int:
        return Whole(title, int(start), -(2**53), 2**53, hint)
    return LossNumber(title, start, of, hint)
