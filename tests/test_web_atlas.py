"""The atlas in the page: maps, numbers, guess and code as in Python, by the losses' own kernels."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from node import needs_node, with_bundle
from same_charts import assert_equal, flat, told_code

from gradlab.atlas import measured
from gradlab.losses import PAIR_LOSSES, pair_loss
from gradlab.plotting.charts import Map
from gradlab.widgets import AtlasExplorer
from gradlab.widgets.atlas_explorer import Atlas, maps_of, rows_of
from gradlab.widgets.chart_messages import as_messages
from gradlab.widgets.controls import fields_of
from gradlab.widgets.losses_in_page import facts_of_losses, kernel_of

pytestmark = needs_node
BODY = f"""
  const TEMPLATE = {json.dumps(AtlasExplorer.template)};
  const all = [];
  for (const state of given.states) {{
    const slots = lab.slotsOf(state, given.losses);
    const seen = [];
    for (const slot of slots) seen.push(lab.atlas.seenBy(await lab.Kernel.load(given.kernels[slot.loss.name]), slot));
    const charts = seen.flatMap((one) => [lab.atlas.ratioMap(one), lab.atlas.signMap(one), lab.atlas.stepField(one)]);
    all.push({{
      charts, readings: lab.atlas.readings(seen, true), lowered: lab.atlas.lowered(seen),
      code: lab.python.filled(TEMPLATE, state, lab.python.frontierParts(state, slots, [])),
    }});
  }}
  return all;
"""


def plain(part):
    """Return a message with its colours as numbers, arrays as lists, and NaN for null."""
    if isinstance(part, dict):
        return {key: plain(value) for key, value in part.items() if key != "struck_means"}
    if isinstance(part, list):
        return [np.nan if value is None else plain(value) for value in part]
    if isinstance(part, str) and part.startswith("#"):
        return [int(part[at : at + 2], 16) for at in (1, 3, 5)]
    return part


def in_the_page(states):
    names = {state[f"loss_{slot}"] for state in states for slot in "abcdef"}
    kernels = {name: kernel_of(pair_loss(name), "slopes") for name in names}
    return with_bundle(BODY, {"losses": facts_of_losses(), "kernels": kernels, "states": states})


def here(explorer, state):
    losses = {slot: explorer.loss(SimpleNamespace(**state), slot) for slot in "abcdef"[: state["count"]]}
    seen = {slot: measured(loss) for slot, loss in losses.items()}
    known = {slot: PAIR_LOSSES[loss.name]() for slot, loss in losses.items()}
    return {
        "charts": plain(flat(as_messages(maps_of(seen, revealed=True)))),
        "readings": [row.message() for row in rows_of(seen, known, revealed=True)],
        "lowered": [Atlas(seen, None).lowered(slot) for slot in seen], "code": explorer.code(SimpleNamespace(**state)),
    }  # fmt: skip


def assert_same(there, ours):
    assert told_code(there["code"]) == told_code(ours["code"])
    assert there["lowered"] == ours["lowered"]
    for one, other in zip(there["readings"], ours["readings"], strict=True):
        # The map's signs round otherwise where slopes vanish, see below.
        assert_equal(
            one, other, place=ours["charts"][0]["title"], atol=0.03 if one["name"].startswith("share") else 1e-9
        )
    for one, other in zip(plain(there["charts"]), ours["charts"], strict=True):
        for key in other:
            place = f"{other['title']} {key}"
            if key in ("values", "struck") and "directions" in other["title"]:
                # PyTorch's expm1 and sigmoid round slopes away, to 0, that the kernels keep; where the parts of a slope
                # cancel, as on both sides of a border, its sign is rounding.
                pairs = np.array(one[key], float), np.array(other[key], float)
                differ = ~np.isclose(*pairs, equal_nan=True)
                assert (differ & (pairs[1] != 0)).mean() < 0.03, place
                assert differ.mean() < 0.25, place
            elif key in ("colors", "values", "struck") and isinstance(other[key], list):
                np.testing.assert_allclose(
                    np.array(one[key], float), np.array(other[key], float),
                    atol=1 if key == "colors" else 1e-6, err_msg=place,
                )  # fmt: skip
            else:
                assert_equal(one[key], other[key], place=place, atol=1e-7)


SOME = ("hinge", "nca", "trl-ipo", "simpo", "link-u", "dpop")  # one of each kind


@pytest.mark.parametrize(
    "names",
    [pytest.param(SOME, marks=pytest.mark.slow), pytest.param(tuple(PAIR_LOSSES), marks=pytest.mark.long)],
    ids=["some", "all"],
)
def test_the_maps_of_losses_are_pythons(names):
    explorer = AtlasExplorer(guess="a", steps=10, pairs=20)
    states = []
    for first in range(0, len(names), 6):
        chosen = (names[first:] + names)[:6]
        state = explorer.state | {"count": 6}
        for slot, name in zip("abcdef", chosen, strict=True):
            loss = PAIR_LOSSES[name]()
            state[f"loss_{slot}"] = name
            state |= {f"{field}_{slot}": getattr(loss, field) for field in fields_of(name)}
        states.append(state)
    for state, there in zip(states, in_the_page(states), strict=True):
        assert_same(there, here(explorer, state))
    explorer.close()


def test_two_losses_at_other_numbers_are_pythons():
    explorer = AtlasExplorer(guess="a", steps=10, pairs=20)
    states = [explorer.state | {"beta_a": 0.3, "beta_b": 2.0}, explorer.state | {"loss_b": "ipo", "beta_b": 0.4}]
    for state, there in zip(states, in_the_page(states), strict=True):
        assert_same(there, here(explorer, state))
    explorer.close()


def test_before_the_guess_no_map_answers_it():
    explorer = AtlasExplorer(steps=10, pairs=20)
    titles = [chart.title for chart in explorer.charts(explorer.result, None)]
    assert not any("directions" in title for title in titles)
    assert "winner down A" not in explorer.numbers
    explorer.set(guess="a", loss_b="ipo")
    charts = explorer.charts(explorer.result, None)
    assert sum("directions" in chart.title for chart in charts if isinstance(chart, Map)) == 2
    assert explorer.outcome(explorer.result) == (
        "b", "On the map A DPO never lowers the winner, and B IPO lowers the winner for some pairs.",
    )  # fmt: skip
    assert set(explorer.frame()["map"]) == {"ratio", "direction"}
    explorer.close()
