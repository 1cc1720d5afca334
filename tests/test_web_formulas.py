"""Formulas in the page: charts, numbers, guesses and code are those of Python, at random states and at edges."""

import numpy as np
import pytest
from node import needs_node, with_bundle
from same_charts import assert_equal, flat, told_code
from web_page import note_problems

from gradlab.theory import families
from gradlab.widgets import CreditExplorer, OfflineExplorer, ShiftExplorer, SigmoidExplorer, page
from gradlab.widgets.chart_messages import as_messages
from gradlab.widgets.controls import Choice, Number

STATES = 12
EDGES = {
    "shift": [
        *({"family": family, "n": n} for family in families.SHAPES for n in (10, 800)),
        *({"family": family, "mu_p": 4.0, "sigma_p": 3.0} for family in families.SHAPES),  # no interval
        {"mu_p": 4.0},  # p = q: only rounding
        {"mu_p": -8.0, "mu_q": 8.0, "sigma_p": 0.75, "sigma_q": 0.75, "support": 40.0, "n": 333},
        {"mu_p": 8.0, "mu_q": -8.0, "sigma_p": 8.0, "sigma_q": 0.75, "support": 16.0, "family": "student"},
    ],
}
BODY = """
  const formula = lab.FORMULAS[given.formula];
  return given.states.map((state, at) => ({
    charts: formula.charts(state, at ? given.states[at - 1] : null),
    readings: formula.readings(state), outcome: formula.outcome(state),
    code: lab.python.filled(given.template, state, formula.parts?.(state)),
  }));
"""


def drawn_state(explorer, rng):
    """A state with every control somewhere between its ends, on its own scale."""
    state = {}
    for key, one in explorer.controls.items():
        if isinstance(one, Choice):
            state[key] = [value for _, value in one.options][rng.integers(len(one.options))]
            continue
        ends = np.log([one.low, one.high]) if one.scale == "log" else np.array([one.low, one.high])
        value = ends[0] + rng.random() * (ends[1] - ends[0])
        value = float(np.exp(value)) if one.scale == "log" else float(value)
        state[key] = value if isinstance(one, Number) else round(value)
    return state


def coincide(state):
    """Return whether p and q of this state are equal."""
    return "mu_p" in state and (state["mu_p"], state["sigma_p"]) == (state["mu_q"], state["sigma_q"])


@needs_node
@pytest.mark.parametrize("kind", [SigmoidExplorer, CreditExplorer, OfflineExplorer, ShiftExplorer])
def test_the_page_computes_what_python_computes(kind):
    explorer = kind()
    rng = np.random.default_rng(7)
    told = [{**explorer.state, **state} for state in [*(s.state for s in kind.stories), *EDGES.get(kind.name, [])]]
    states = [*told, *(drawn_state(explorer, rng) for _ in range(max(STATES - len(told), 6)))]
    here, pinned = [], None
    for state in states:
        explorer.set(**state)
        result = explorer.result
        here.append({
            "charts": flat(as_messages(explorer.charts(result, pinned))),
            "readings": [row.message() for row in explorer.readings(result)],
            "outcome": list(explorer.outcome(result)), "code": explorer.as_python(),
        })  # fmt: skip
        pinned = result
    there = with_bundle(BODY, {"formula": kind.name, "template": kind.template, "states": states})
    for at, (one, other) in enumerate(zip(there, here, strict=True)):
        one["code"], other["code"] = (told_code(each["code"]) for each in (one, other))
        # Where p = q, weights of 1e-15, which are rounding, are drawn in units of 1e-9; the next state has them pinned.
        assert_equal(one, other, f"{states[at]}", 1e-6 if any(map(coincide, states[max(at - 1, 0) : at + 1])) else 1e-9)
    explorer.close()


HANDLES = {
    "sigmoid": {"gap Δu": "gap", "margin m": "margin"},
    "credit": {"tokens T, credit for the whole": "length", "tokens T, credit for one's own token": "length"},
    "offline": {"the data's width": "data_width", "the data's centre": "data_centre", "the policy's centre": "centre",
                "the policy's width": "width"},
    "shift": {f"{letter}_{which}, the {what} of {which}": f"{control}_{which}" for which in "pq"
              for letter, what, control in (("μ", "mode", "mu"), ("σ", "width", "sigma"))},
}  # fmt: skip

ROOM = {"shift": "&sigma_p=3&sigma_q=3"}  # settings from which a drag reaches no end


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("foundations") / "page.html"
    page.write_page(file)
    return file.as_uri()


@pytest.mark.browser
@pytest.mark.parametrize("view", HANDLES)
def test_what_can_be_dragged_moves_its_control_by_mouse_and_by_key(view, address, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab, problems = context.new_page(), []
    note_problems(tab, problems)
    tab.goto(f"{address}#view={view}{ROOM.get(view, '')}")
    tab.wait_for_selector(".gl-handle")

    def state():
        return tab.evaluate("view => ({ ...gradlabLab.shells[view].history.state })", view)

    for name, control in HANDLES[view].items():
        handle = tab.locator(f'.gl-handle[aria-label="{name}"]').first
        start = state()
        box = handle.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x, y)
        tab.mouse.down()
        tab.mouse.move(x + 40, y - 10, steps=4)
        tab.mouse.up()
        dragged = state()
        assert {key for key in start if start[key] != dragged[key]} == {control}
        assert handle.bounding_box()["x"] == pytest.approx(box["x"] + 40, abs=3)
        handle.focus()
        tab.keyboard.press("ArrowRight")
        assert (state()[control] - dragged[control]) * (dragged[control] - start[control]) > 0  # the same way
        for _ in range(2):
            tab.keyboard.press("Control+z")
        tab.wait_for_timeout(50)
        assert state() == start
    faint = tab.locator(".gl-explorer:not([hidden]) .gl-curve[stroke-opacity]")
    assert faint.count() == 0  # whatever was moved
    tab.get_by_role("button", name="pin", exact=True).click()
    assert faint.count() > 0
    context.close()
    assert problems == []
