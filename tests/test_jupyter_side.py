"""The widget's side in the browser, with a model as hosts give it: late answers, controls that join, refusals."""

import json

import pytest
from node import WEB
from web_page import note_problems

from gradlab.widgets import GridExplorer, SigmoidExplorer, VarianceExplorer, WorkbenchExplorer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODEL = """
  const lab = await import(URL.createObjectURL(new Blob([CODE], { type: "text/javascript" })));
  const listeners = {};
  const model = {
    data: GIVEN, sent: 0, asked: [],
    get: (name) => model.data[name],
    set: (name, value) => model.update({ [name]: value }),
    save_changes: () => model.sent++,
    send: (question) => model.asked.push(question),
    tell: (answer) => (listeners["msg:custom"] ?? []).forEach((listener) => listener(answer, [])),
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    off: (event, listener) => (listeners[event] = (listeners[event] ?? []).filter((one) => one !== listener)),
    update(changes) {  // all at once, then told one by one, as Backbone does
      model.data = { ...model.data, ...changes };
      for (const name of Object.keys(changes)) {
        for (const listener of [...(listeners[`change:${name}`] ?? [])]) listener();
      }
    },
  };
  const views = [0, 1].map(() => document.body.appendChild(document.createElement("div")));
  const closes = views.map((el) => lab.default.render({ model, el }));
  Object.assign(globalThis, { model, views, closes });
"""


def traits(explorer):
    front = explorer.front
    names = ("spec", "state", "hidden", "offers", "asked", "pinned", "busy")
    return {**{name: getattr(front, name) for name in names}, "shown": {}}


@pytest.fixture
def shown(chromium):
    """A function that shows an explorer's widget twice; at the end there must have been no error."""
    pages, problems = [], []

    def show(explorer, *, clock=False):
        one = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
        note_problems(one, problems)
        pages.append(one)
        one.goto("about:blank")
        if clock:
            one.clock.install()
        code = json.dumps((WEB / "gradlab.js").read_text("utf-8"))
        one.evaluate(f"async () => {{ const CODE = {code}; const GIVEN = {json.dumps(traits(explorer))}; {MODEL} }}")
        explorer.close()
        return one

    yield show
    for one in pages:
        one.context.close()
    assert problems == []


def test_controls_that_join_are_shown_whatever_is_told_first(shown):
    page = shown(SigmoidExplorer())
    for first in ("state", "hidden", "offers", "spec"):
        page.evaluate(
            """(first) => {
              const name = `joined_${first}`;
              const spec = structuredClone(model.data.spec);
              const options = [{ label: "one", value: 1 }];
              spec.controls[name] = { kind: "choice", label: name, hint: "", start: 1, options };
              spec.groups[0].controls.push(name);
              const all = {
                state: { ...model.data.state, [name]: 1 }, hidden: [],
                offers: { [name]: { options: [...options, { label: "two", value: 2 }] } }, spec,
              };
              model.update({ [first]: all[first], ...all });
            }""",
            first,
        )
        assert page.get_by_label(f"joined_{first}").count() == 2  # in both views


def test_python_hears_of_a_drag_when_it_rests_and_before_it_is_asked(shown):
    page = shown(SigmoidExplorer())
    moves = """() => {
      const slider = document.querySelector(".gl-slider input[type=range]");
      for (const value of [100, 200, 300]) {
        slider.value = value;
        slider.dispatchEvent(new Event("input"));
      }
      return model.sent;
    }"""
    assert page.evaluate(moves) == 0  # the page computes; Python is told when the hand rests
    page.wait_for_function("model.sent === 1")
    shown_values = "() => document.querySelectorAll('.gl-slider input[type=text]')[0].value"
    name = next(
        name for name, one in page.evaluate("() => model.data.spec.controls").items() if one["kind"] == "number"
    )
    value = page.evaluate(f"() => model.data.state.{name}")
    assert float(page.evaluate(shown_values).replace("−", "-")) == pytest.approx(value, rel=1e-3)
    page.evaluate("() => { model.send = ({ want }) => { globalThis.asked = [want, model.sent]; }; }")
    page.evaluate(moves.replace("100, 200, 300", "400"))
    page.get_by_role("button", name="copy as Python").first.click()
    assert page.evaluate("() => asked") == ["python", 2]  # what is copied is what is seen


def test_a_kernel_that_does_not_answer_is_said_until_it_does(shown):
    explorer = GridExplorer()
    answer = explorer.front._answer
    page = shown(explorer, clock=True)
    said = page.locator(".gl-trouble")
    questions = "() => model.asked.splice(0)"
    assert page.evaluate("() => model.asked.length") > 0
    page.clock.fast_forward(19_000)
    assert not any(said.all_inner_texts())
    page.clock.fast_forward(2_000)
    late = [text.startswith("The kernel has not answered for 20 seconds") for text in said.all_inner_texts()]
    assert sum(late) == 2  # one per view
    while found := page.evaluate(questions):
        for question in found:
            reply, _ = answer(question)
            page.evaluate("given => model.tell(given)", {**reply, "to": question["number"]})
        page.clock.run_for(100)
    page.wait_for_function("() => [...document.querySelectorAll('.gl-trouble')].every((one) => one.textContent === '')")


CHARTS = {"charts": [], "outcome": ["", ""]}


def test_what_is_being_typed_stays_whatever_python_shows(shown):
    page = shown(WorkbenchExplorer())
    field = page.locator(".gl-controls textarea, .gl-controls label.gl-choice input[type=text]").first
    before = field.input_value()
    field.fill("h_w -")
    page.evaluate("given => model.update({ shown: given, busy: true })", {**CHARTS, "asked": 0, "readings": []})
    assert field.input_value() == "h_w -"
    page.evaluate("() => model.update({ state: { ...model.data.state, formula: '-h_w' } })")
    assert field.input_value() == "-h_w" != before


def test_a_question_for_a_file_brings_the_state_that_is_seen(shown):
    page = shown(VarianceExplorer())
    slider = page.locator(".gl-slider input[type=text]").first
    slider.fill("0.25")
    slider.press("Enter")
    page.get_by_role("button", name="CSV").first.click()
    (question,) = page.evaluate("() => model.asked")
    assert question["want"] == "csv"
    assert question["state"] == page.evaluate("() => model.data.state")
    assert 0.25 in question["state"].values()


def test_a_pin_that_python_keeps_is_known_to_a_page_that_comes_later(shown):
    page = shown(VarianceExplorer())
    pins = page.locator("button[aria-pressed]", has_text="pin")
    assert pins.all_inner_texts() == ["pin", "pin"]
    page.evaluate("() => model.update({ pinned: true })")
    assert pins.all_inner_texts() == ["unpin", "unpin"]
    pins.first.click()
    assert page.evaluate("() => model.data.pinned") is False
    assert pins.all_inner_texts() == ["pin", "pin"]


def test_a_state_that_python_refuses_leaves_no_step_to_undo(shown):
    page = shown(SigmoidExplorer())
    former = page.evaluate("() => model.data.state")
    slider = page.locator(".gl-slider input[type=text]").first
    slider.fill("0.25")
    slider.press("Enter")
    page.wait_for_function("model.sent === 1")
    undo = page.get_by_role("button", name="↶ undo").first
    assert undo.is_enabled()
    page.evaluate("(former) => model.update({ state: { ...former } })", former)
    assert undo.is_disabled()


def test_an_answer_to_a_former_state_leaves_the_mark_that_more_is_to_come(shown):
    page = shown(VarianceExplorer())
    busy = "() => [...document.querySelectorAll('.gl-explorer')].map((one) => one.ariaBusy)"

    def answer(asked, value):
        readings = [{"name": "number", "value": value, "unit": ""}]
        page.evaluate("given => model.update({ shown: given })", {**CHARTS, "asked": asked, "readings": readings})

    answer(0, 1)
    assert page.evaluate(busy) == ["false", "false"]
    slider = page.locator(".gl-slider input[type=text]").first
    for number in (1, 2):
        slider.fill(f"0.{number}5")
        slider.press("Enter")
    assert page.evaluate("() => model.data.asked") == 2
    answer(1, 2)
    assert page.evaluate(busy) == ["true", "true"]
    answer(2, 3)
    assert page.evaluate(busy) == ["false", "false"]
    assert page.locator(".gl-table td").all_inner_texts() == ["3", "3"]
    page.evaluate("() => model.update({ shown: { ...model.data.shown, refused: 'it must be so', asked: 2 } })")
    assert page.locator(".gl-trouble").all_inner_texts().count("it must be so.") == 2
    page.evaluate("() => closes.forEach((close) => close())")
    assert page.locator(".gl-explorer").count() == 0
