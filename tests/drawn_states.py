"""States of explorers that are drawn at random, ends of controls among them."""

import math

from gradlab.widgets.controls import Choice, Line, Number

TRACKS = {
    "linear": (lambda value: value, lambda place: place),
    "log": (math.log, math.exp),
    "logit": (lambda p: math.log(p / (1 - p)), lambda place: 1 / (1 + math.exp(-place))),
}


def drawn_state(explorer, rng):
    """A state with every control at an end or between its ends, on its own scale; texts stay as they are."""
    return {key: drawn_value(one, rng) for key, one in explorer.controls.items()}


def drawn_value(control, rng):
    if isinstance(control, Line):
        return control.value
    if isinstance(control, Choice):
        return [value for _, value in control.options][rng.integers(len(control.options))]
    to, back = TRACKS[control.scale]
    place = rng.choice([0.0, 1.0, *rng.random(3)])
    value = back(to(control.low) + place * (to(control.high) - to(control.low)))
    value = min(max(value, control.low), control.high)
    return float(value) if isinstance(control, Number) else round(value)
