"""Controls of each kind, all of one width, each with a name and a hint; and the menu of losses from the registry."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets as widgets
import traitlets

from gradlab.losses import PAIR_LOSSES, HyperParameter, PairLoss, SliderRange, hyper_parameters, pair_loss

Controls = dict[str, Any]  # widgets with a value and a layout
_SHAPE = {"style": {"description_width": "92px"}, "layout": {"width": "300px", "margin": "1px 12px 1px 0"}}


class Slider(widgets.SelectionSlider):
    """A slider over stops, with exact values.

    Not a FloatSlider: the page of a FloatSlider moves a value that lies between its steps to the nearest step, and
    sends it back, late enough to undo what Python has done in the meantime.
    """

    def __init__(self, name: str, value: float, stops: Iterable[float], hint: str = "") -> None:
        """Make the slider; ``value`` becomes a stop too. Where all stops are whole numbers, others are refused."""
        self._own = {*stops, value}
        super().__init__(options=_named(self._own), value=value, description=name, tooltip=hint or name, **_SHAPE)

    @property
    def stops(self) -> list[float]:
        """The values that the slider can take, in order."""
        return [value for _, value in self.options]

    @traitlets.validate("value")
    def _validate_value(self, proposal: Any) -> float:
        if proposal.value not in self.stops:
            raise traitlets.TraitError(
                f"{self.description} must be one of its stops, {self.stops[0]:g} to {self.stops[-1]:g}, got "
                f"{proposal.value!r}; explorer.set(…) takes values between them too"
            )
        return proposal.value

    def include(self, value: float) -> None:
        """Make a value between the ends a stop, in place of the last stop added so, and go there."""
        if value not in self.stops:
            self.options = _named({*self._own, value})
        self.value = value


def slider(name: str, value: float, low: float, high: float, step: float, hint: str = "") -> Slider:
    """Return a slider over evenly spaced numbers from ``low`` to ``high``."""
    count = round((high - low) / step)
    return Slider(name, float(value), (round(low + k * step, 9) for k in range(count + 1)), hint)


def log_slider(name: str, value: float, low: float, high: float, hint: str = "", step: float = 0.05) -> Slider:
    """Return a logarithmic slider over numbers of two digits, with 1 and both ends, 10**low and 10**high."""
    inside = range(math.ceil(low / step), math.floor(high / step) + 1)
    ends = {float(f"{10**end:.12g}") for end in (low, high)}
    stops = {float(f"{10 ** (k * step):.2g}") for k in inside}
    return Slider(name, float(value), {stop for stop in stops if min(ends) < stop < max(ends)} | ends, hint)


def whole_slider(name: str, value: int, low: int, high: int, hint: str = "", step: int = 1) -> Slider:
    """Return a slider over whole numbers from ``low`` to ``high``."""
    return Slider(name, value, range(low, high + 1, step), hint)


def choice(name: str, value: Any, options: Iterable[Any] | Mapping[str, Any], hint: str = "") -> widgets.Dropdown:
    """Return a menu; a mapping gives shown text and value."""
    listed = list(options.items()) if isinstance(options, Mapping) else list(options)
    return widgets.Dropdown(options=listed, value=value, description=name, tooltip=hint or name, **_SHAPE)


def switch(name: str, value: bool, hint: str = "") -> widgets.Checkbox:
    """Return a tick box."""
    return widgets.Checkbox(value, description=name, tooltip=hint or name, **_SHAPE)


def text(name: str, value: str, hint: str) -> widgets.Text:
    """Return a line to type in, read when Enter is pressed or the line is left."""
    return widgets.Text(value, description=name, tooltip=hint, placeholder=hint, continuous_update=False, **_SHAPE)


def loss_controls(label: str, key: str, loss: str, beta: float = 1.0) -> Controls:
    """Return a menu of all registered losses, and a control for each number of any loss, with β first.

    The control is a slider where the loss names its stops, and else a field to type in.

    label, key  of the controls: ``loss_a``, ``beta_a``, … for key ``_a``.
    """
    controls: Controls = {
        f"loss{key}": choice(label, loss, list(PAIR_LOSSES), "from the registry of losses"),
    }
    for name, of in _hyper_parameters().items():
        value, title, hint = next(iter(of.defaults.values())), name.replace("_", " "), ""
        if name == "beta":
            value, title, hint = beta, "β", "inverse temperature; the paper's is 1"
        controls[f"{name}{key}"] = _control(f"{title} of {label}", value, of.slider, hint)
    return controls


def chosen_loss(state: Mapping[str, Any], key: str) -> PairLoss:
    """Return the loss that ``loss_controls`` of that key are set to."""
    name = state[f"loss{key}"]
    return pair_loss(name, **{field: state[f"{field}{key}"] for field in _fields(name)})


def loss_code(state: Mapping[str, Any], key: str) -> str:
    """Return that loss as Python code."""
    name = state[f"loss{key}"]
    return f"gl.pair_loss({name!r}, " + ", ".join(f"{field}={state[field + key]!r}" for field in _fields(name)) + ")"


def hide_unused(controls: Controls, key: str) -> None:
    """Show only the numbers that the chosen loss has."""
    fields = _fields(controls[f"loss{key}"].value)
    for field in _hyper_parameters():
        controls[f"{field}{key}"].layout.display = None if field in fields else "none"


def _fields(loss: str) -> list[str]:
    return [name for name, of in _hyper_parameters().items() if loss in of.defaults]


def _hyper_parameters() -> dict[str, HyperParameter]:
    """Return ``hyper_parameters()``, computed once per registry, since each move of a control asks many times."""
    return _of_registry(tuple(PAIR_LOSSES.items()))


@functools.lru_cache(maxsize=1)
def _of_registry(registry: tuple[Any, ...]) -> dict[str, HyperParameter]:
    return hyper_parameters()


def _named(stops: Iterable[float]) -> list[tuple[str, float]]:
    return [(f"{stop:.4g}".replace("-", "−"), stop) for stop in sorted(stops)]


def _control(name: str, value: float, stops: SliderRange | None, hint: str) -> Any:
    if stops is None:
        return _field(name, value)
    low, high, step, log = stops
    return log_slider(name, value, low, high, hint, step) if log else slider(name, value, low, high, step, hint)


def _field(name: str, value: float) -> widgets.FloatText:
    return widgets.FloatText(value, description=name, tooltip=name, **_SHAPE)
