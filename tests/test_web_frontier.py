"""The frontier in the page: charts, numbers, guess and code as in Python, its trainings, and marks under a hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from node import needs_node, with_bundle
from same_charts import assert_equal, flat, told_code
from web_page import note_problems

from gradlab.losses import pair_loss
from gradlab.widgets import FrontierExplorer, page, world_controls
from gradlab.widgets.chart_messages import as_messages
from gradlab.widgets.frontier_explorer import Frontiers, _ends_of, _ideal, beta_of, betas_of
from gradlab.widgets.losses_in_page import facts_of_losses, kernel_of

pytestmark = needs_node

SEEN = (
    f"const TEMPLATE = {json.dumps(FrontierExplorer.template)};"
    + """
  const seen = (shown, pinned, state) => ({
    charts: lab.frontier.charts(shown, pinned), readings: lab.frontier.readings(shown),
    outcome: lab.frontier.outcome(shown) ?? ["", ""],
    code: lab.python.filled(TEMPLATE, state, lab.python.frontierParts(state, shown.slots, lab.frontier.BETAS)),
  });
"""
)
STATES = [
    {},
    {"beta_a": 0.37, "value": "unobserved_mass", "mask_rate": 0.4, "pairs": "exact"},
    {"count": 6, "beta_c": 2.5, "beta_f": 0.1, "reference": "shifted", "shift": 9.5, "scale": 7.25, "seed": 3},
    {"loss_b": "dpo", "beta_b": 3.0, "utility": "independent", "policy": "shared", "mask_kind": "pairs"},
]


def seen(explorer, result, pinned, state):
    """What Python shows."""
    return {
        "charts": flat(as_messages(explorer.charts(result, pinned))),
        "readings": [row.message() for row in explorer.readings(result)],
        "outcome": list(explorer.outcome(result)), "code": explorer.code(SimpleNamespace(**state)),
    }  # fmt: skip


def assert_same(one, other, atol=1e-9):
    one["code"], other["code"] = (told_code(each["code"]) for each in (one, other))
    assert_equal(one, other, atol=atol)


def invented(explorer, state, rng):
    """Frontiers with ends of training that nobody trained, of which some are missing."""
    given = SimpleNamespace(**state)
    world = world_controls.world_of(given)
    losses = {slot: explorer.loss(given, slot) for slot in explorer.slots(given)}
    curves = {}
    for slot, loss in losses.items():
        beta = np.array([one for one in betas_of(loss) if one == beta_of(loss) or rng.random() < 0.7])
        kl = np.sort(rng.uniform(0, 4, len(beta)))[::-1] + rng.normal(0, 0.1, len(beta))
        mass = {key: rng.uniform(0, 1, len(beta)) for key in ("utility", "unobserved_mass")}
        curves[slot] = {"beta": beta, "kl": kl, **mass}
    return Frontiers(given.value, losses, curves, _ideal(world), _ends_of(world))


def test_charts_numbers_guess_and_code_are_pythons():
    explorer, rng = FrontierExplorer(), np.random.default_rng(7)
    states = [explorer.state | changes for changes in STATES * 3]
    results = [invented(explorer, state, rng) for state in states]
    before = [None, *results[:-1]]
    here = [seen(explorer, *each) for each in zip(results, before, states, strict=True)]
    body = f"""
      {SEEN}
      const plain = {{ prompts: 20, responses: 20, world: "", painted: "" }};
      const all = given.cases.map(({{ state, lines }}) => {{
        const world = lab.worldOf({{ ...plain, ...state }}, state.seed);
        const slots = lab.slotsOf(state, given.losses);
        const value = state.value === "utility" ? "utility" : "unobserved";
        return {{ value, slots, lines, ideal: lab.frontier.idealOf(world), ends: lab.frontier.endsOf(world) }};
      }});
      return all.map((shown, at) => seen(shown, all[at - 1] ?? null, given.cases[at].state));
    """
    lines = [
        [
            [dict(zip(("beta", "kl", "utility", "unobserved"), map(float, point), strict=True))
             for point in zip(*line.values(), strict=True)]
            for line in result.curves.values()
        ]
        for result in results
    ]  # fmt: skip
    cases = [{"state": state, "lines": line} for state, line in zip(states, lines, strict=True)]
    assert {one["outcome"][0] for one in here} >= {"a", "b", ""}
    for each in zip(with_bundle(body, {"losses": facts_of_losses(), "cases": cases}), here, strict=True):
        assert_same(*each)
    explorer.close()


TRAINED = f"""
  {SEEN}
  const shelf = {{ record: async ({{ loss }}, what) => given.kernels[`${{loss.name}} ${{what}}`] }};
  const pool = new lab.Pool();
  const trainings = new lab.Trainings(shelf, pool);
"""


def kernels_of(states):
    """The kernels that these states train with."""
    needed = {(state[f"loss_{slot}"], f"{state['policy']} adam") for state in states for slot in "abcdef"}
    return {f"{name} {what}": kernel_of(pair_loss(name), what) for name, what in needed}


@pytest.mark.slow
def test_trainings_in_the_page_end_where_those_of_python_do():
    explorer = FrontierExplorer()
    states = [explorer.state | changes for changes in (*STATES, {"pairs": "exact", "steps": 20, "count": 3})]
    here = []
    for state in states:
        explorer.set(**state)
        here.append(seen(explorer, explorer.result, None, state))
    body = f"""
      {TRAINED}
      const all = [];
      for (const state of given.states) {{
        const slots = lab.slotsOf(state, given.losses);
        await trainings.marks(state, slots);
        await trainings.rest(state, slots, () => {{}});
        all.push(seen(trainings.seen(state, slots), null, state));
      }}
      return all;
    """
    given = {"losses": facts_of_losses(), "kernels": kernels_of(states), "states": states}
    for state, *each in zip(states, with_bundle(body, given), here, strict=True):
        rare = state["reference"] == "shifted"  # its responses of π ≈ 1e-8 have gradients that float32 rounds away
        assert_same(*each, atol=1e-3 if rare else 1e-4)
    explorer.close()


@pytest.mark.slow
def test_the_chosen_beta_comes_first_a_new_one_costs_one_training_and_what_is_stopped_goes_on_later():
    explorer = FrontierExplorer(steps=10, pairs=20)
    state = explorer.state
    body = f"""
      {TRAINED}
      const jobs = [];
      const train = pool.train.bind(pool);
      pool.train = (job, signal) => {{ jobs.push(job.hyper.beta); return train(job, signal); }};
      const at = (changes) => {{
        const state = {{ ...given.state, ...changes }};
        return [state, lab.slotsOf(state, given.losses)];
      }};
      const sizes = (...at) => trainings.seen(...at)?.lines.map((line) => line.length) ?? null;
      const took = () => jobs.splice(0);
      const told = [sizes(...at({{}}))];
      await trainings.marks(...at({{}}));
      told.push(took(), sizes(...at({{}})));
      const stop = new AbortController();
      const sizesSeen = [];
      const grown = () => {{ sizesSeen.push(sizes(...at({{}}))); if (sizesSeen.length === 4) stop.abort(); }};
      const ended = await trainings.rest(...at({{}}), grown, stop.signal).then(() => "done", (error) => error.name);
      told.push(ended, sizesSeen[3], took().length);
      await trainings.rest(...at({{}}), () => {{}});
      told.push(took().length <= 16, sizes(...at({{}})));
      await trainings.marks(...at({{ beta_a: 0.3, value: "unobserved_mass" }}));
      await trainings.rest(...at({{ beta_a: 0.3 }}), () => {{}});
      told.push(took(), sizes(...at({{ beta_a: 0.3 }})), sizes(...at({{ scale: 2 }})));
      await trainings.marks(...at({{}}));
      return [...told, took()];
    """
    told = with_bundle(body, {"losses": facts_of_losses(), "kernels": kernels_of([state]), "state": state})
    assert told == [None, [1, 1], [1, 1], "AbortError", [3, 3], 20, True, [11, 11], [0.3], [12, 11], None, []]
    explorer.close()


def test_a_loss_without_beta_has_one_point_and_no_mark_to_drag():
    body = """
      const loss = { name: "own", label: "own", hyper: {}, reason: "" };
      const slot = (key, hyper) => ({ key, name: key, loss: { ...loss, hyper }, color: "#000000", hyper });
      const point = { beta: 1, kl: 1, utility: 1, unobserved: 0 };
      const shown = {
        value: "utility", slots: [slot("a", {}), slot("b", { beta: 1 })], lines: [[point], [point]],
        ideal: [{ ...point, beta: 2 }], ends: [0, 3],
      };
      return lab.frontier.charts(shown, null).map(({ handles }) => handles.map(({ name }) => name));
    """
    assert with_bundle(body, None) == [["β of B"], ["β of B, how far"]]


# --- in a browser ---


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("frontier") / "page.html"
    page.write_page(file)
    return file.as_uri()


SHELL = "gradlabLab.shells.frontier"


@pytest.mark.browser
def test_a_mark_is_dragged_along_its_curve_and_comes_back(address, chromium):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab, problems = context.new_page(), []
    note_problems(tab, problems)

    def still():
        tab.wait_for_selector(".gl-explorer[aria-busy=false]:not([hidden])")

    def trained():
        return tab.locator("tr:has-text('trainings so far') td").all_inner_texts()

    tab.goto(f"{address}#view=frontier")
    still()
    assert trained() == ["11", "11", "0"]
    start = tab.evaluate(f"() => ({{ ...{SHELL}.history.state }})")
    handle = tab.locator('.gl-handle[aria-label="β of A"]')
    box, place = handle.bounding_box(), handle.get_attribute("transform")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x - 60, y + 60, steps=5)
    tab.mouse.up()
    still()
    state = tab.evaluate(f"() => ({{ ...{SHELL}.history.state }})")
    assert {key for key in start if start[key] != state[key]} == {"beta_a"}
    assert state["beta_a"] > 1
    assert trained() == ["12", "11", "-1".replace("-", "−")]
    moved = handle.bounding_box()
    assert moved["x"] < box["x"] - 30
    handle.focus()
    tab.keyboard.press("ArrowRight")
    still()
    assert tab.evaluate(f"() => {SHELL}.history.state.beta_a") < state["beta_a"]
    for _ in range(2):
        tab.keyboard.press("Control+z")
    still()
    assert tab.evaluate(f"() => ({{ ...{SHELL}.history.state }})") == start
    assert handle.get_attribute("transform") == place
    tab.get_by_role("button", name="pin", exact=True).click()
    tab.evaluate(f"() => {SHELL}.history.set({{ scale: 2, count: 6 }})")
    still()
    assert trained() == ["11"] * 6
    assert tab.locator('[stroke-opacity="0.4"]').count() >= 2
    context.close()
    assert problems == []
