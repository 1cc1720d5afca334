"""Charts that Python describes, drawn by a real Chromium: every kind, set by hand, linked, kept up to date in place."""

import base64
import io
import json

import numpy as np
import pytest
from matplotlib.figure import Figure
from node import WEB
from web_page import note_problems

from gradlab.plotting.charts import (
    Arrows,
    Axis,
    Band,
    Bar,
    Bars,
    Curve,
    Curves,
    Handle,
    Label,
    Level,
    Map,
    Move,
    Picture,
    Rule,
    Track,
    uneven,
)
from gradlab.plotting.palette import CHOSEN, LOSER, WINNER
from gradlab.widgets.chart_messages import as_messages

pytestmark = pytest.mark.browser

CONTROLS = {
    "p": {"kind": "number", "low": 0.0, "high": 0.8, "scale": "linear"},
    "beta": {"kind": "number", "low": 0.01, "high": 10.0, "scale": "log"},
    "prompt": {"kind": "whole", "low": 0, "high": 4, "scale": "linear"},
    "u": {"kind": "number", "low": -10.0, "high": 10.0, "scale": "linear"},
}
SCRIPT = """
  const lab = await import(URL.createObjectURL(new Blob([atob(CODE)], { type: "text/javascript" })));
  const view = ({ base64 }) => new DataView(Uint8Array.from(atob(base64), (one) => one.charCodeAt(0)).buffer);
  const read = (text) => JSON.parse(text, (_, value) => value?.base64 === undefined ? value : view(value));
  const calls = [];
  const onset = (...call) => calls.push(call);
  const board = new lab.ChartBoard(document.querySelector("main"), onset, (name) => CONTROLS[name]);
  const show = (text) => board.show(read(text));
  const elements = () => [...board.element.children];
  Object.assign(globalThis, { lab, board, calls, show, elements });
  document.body.dataset.ready = "yes";
"""
X = np.linspace(0, 10, 41)


def png(width=300, height=100):
    file = io.BytesIO()
    Figure(figsize=(width / 100, height / 100), facecolor=CHOSEN[0]).savefig(file)
    return file.getvalue()


def curves(phase=0.0, **more):
    y = np.sin(X + phase)
    y[10:12] = np.nan
    given = {
        "handles": [
            Handle("the point", 0.4 * 10, 0.5, CHOSEN[2], moves=[Move("p", "x", factor=0.1), Move("u", "y")]),
            Handle("along the curve", 2.0, np.sin(2.0), CHOSEN[0], shape="diamond",
                   track=Track("beta", np.geomspace(0.01, 10, 41), X, np.sin(X))),
        ],
        "bands": [Band(6, 8, "unsure")], "labels": [Label(9, -0.5, "π_w falls", CHOSEN[2])],
        "rules": [Rule(y=0.0, label="none"), Rule(x=5.0, dash="dotted"), Rule(x=0.0, y=-1.0, label="slope 1")], **more,
    }  # fmt: skip
    shown = [
        Curve("A", X, y, CHOSEN[0], low=y - 0.2, high=y + 0.2), Curve("B", X, np.cos(X), CHOSEN[1], "dashed"),
        Curve("was", X, y / 2, CHOSEN[0], faint=True),
        Curve("worlds", X[::8], X[::8] / 10, CHOSEN[2], marker="triangle-up", line=False, filled=False),
    ]  # fmt: skip
    return Curves("Waves", "two waves", Axis("time", 0, 10), Axis("value", -1.5, 1.5), shown, link="time", **given)


def policy():
    values = np.random.default_rng(0).dirichlet(np.ones(6), 5)
    x, y = Axis("response", -0.5, 5.5), Axis("prompt", 4.5, -0.5)
    return Map("π", "policy", x, y, np.arange(6), np.arange(5), values, "π", 1e-3, 1, logarithmic=True,
               struck=values < 0.03, struck_means="never seen", link="cells",
               picks=("", "prompt"))  # fmt: skip


def surface(down=False):
    p, u = np.geomspace(0.01, 1, 30), np.linspace(-3, 3, 20)
    values = np.add.outer(u, np.log(p))
    values[:3, :3] = np.nan
    x, y = Axis("p", 0.01, 1, "log"), Axis("Δu", *((3, -3) if down else (-3, 3)))
    return Map("Ratio", "log ratio", x, y, p, u, values, "log ratio, nats", -6, 6, "signed",
               levels=[Level(-2.0, CHOSEN[2], "even")], ring=(0.1, 1.0),
               picks=("beta", "u"))  # fmt: skip


def arrows():
    at = [(a, b) for a in np.arange(0.1, 1, 0.2) for b in np.arange(0.1, 1, 0.2) if a + b < 1]
    x, y = np.array(at).T
    return Arrows("Field", "arrows", Axis("π_w", 0, 1), Axis("π_l", 0, 1), x, y, y, -x,
                  [WINNER if a > b else LOSER for a, b in at], trail=[(0.2, 0.3), (0.4, 0.2)],
                  handles=[Handle("policy", 0.2, 0.3, CHOSEN[2], moves=[Move("p", "x")])])  # fmt: skip


def bars(value=1.0):
    return Bars("Sides", "bars", "∂L/∂π", ["π_w", "π_l"], [Bar("A", np.array([value, -3.0]), CHOSEN[0]),
                Bar("B", np.array([0.5, np.nan]), CHOSEN[1], dashed=True)])  # fmt: skip


def every():
    return [
        curves(),
        curves(1.0, handles=()),
        policy(),
        surface(),
        arrows(),
        bars(),
        Picture("Before", "violet", png()),
    ]


def as_text(charts):
    return json.dumps(as_messages(charts), default=lambda view: {"base64": base64.b64encode(view).decode()})


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    given = {"CODE": base64.b64encode((WEB / "gradlab.js").read_bytes()).decode(), "CONTROLS": CONTROLS}
    constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    file = tmp_path_factory.mktemp("charts") / "page.html"
    file.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Charts</title><style>:root {{ color-scheme: '
        f"light dark }}</style><main></main><script type='module'>{constants}{SCRIPT}</script></html>",
        "utf-8",
    )
    return file.as_uri()


@pytest.fixture
def shown(address, chromium):
    """A function that opens a page with charts; at the end it must have met no error and asked for nothing outside."""
    pages, problems = [], []

    def open_page(charts, **more):
        page = chromium.new_context(**{"viewport": {"width": 1130, "height": 1000}, **more}).new_page()
        note_problems(page, problems)
        page.goto(address)
        page.wait_for_function("document.body.dataset.ready === 'yes'")
        again(page, charts)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert problems == []


def again(page, charts):
    page.evaluate("show", as_text(charts))
    page.wait_for_function("board.plots.every((plot) => plot.element.querySelector('.tick'))")


def reading(page, at):
    return page.locator(".gl-plot").nth(at).locator("output").inner_text()


def place(page, at, x, y):
    """The place of (x, y) of a plot, in pixels of the page."""
    return page.evaluate(
        """([at, x, y]) => {
          const { element, x: across, y: up } = board.plots[at];
          const inner = element.querySelector("svg > g").getScreenCTM();
          return [inner.e + across(x), inner.f + up(y)];
        }""",
        [at, x, y],
    )


def drag(page, handle, to):
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(*to, steps=4)
    page.mouse.up()


def test_every_kind_of_chart_is_drawn(shown):
    page = shown(every())
    assert page.evaluate("board.plots.map(({ constructor }) => constructor.name.length > 0)") == [True] * 6
    first = page.locator(".gl-plot").nth(0)
    assert [first.locator(f".gl-{name} > *").count() for name in ("lines", "rules", "spans", "handles", "legend")] == [
        3, 3, 1, 2 * 2, 3,
    ]  # fmt: skip
    assert {"unsure", "none", "slope 1", "π_w falls"} <= set(first.locator("text").all_text_contents())
    assert page.locator(".gl-plot").nth(3).locator(".gl-contour").get_attribute("d").startswith("M")
    assert page.locator(".gl-plot").nth(3).locator(".gl-rings path").count() == 2
    assert page.locator(".gl-plot").nth(4).locator(".gl-arrows path").count() == 10
    assert page.locator(".gl-plot").nth(5).locator(".gl-bars rect").count() == 3  # no bar for NaN
    assert page.locator(".gl-plot").nth(5).locator(".gl-legend text").all_text_contents() == ["A", "B"]
    image = page.locator("img")
    assert image.get_attribute("alt") == "violet"
    assert image.evaluate("(image) => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [
        300,
        100,
    ]


def test_a_line_that_turns_back_is_read_by_its_marks(shown):
    across, up = np.array([1.0, 4.0, 8.0, 6.0, 3.0]), np.array([-1.0, 0.0, 0.5, 1.0, 1.2])
    lines = [Curve("even", X, 0 * X, CHOSEN[1]), Curve("turns", across, up, CHOSEN[0], marker="dot")]
    page = shown([Curves("Turns", "a turn", Axis("time", 0, 10), Axis("value", -1.5, 1.5), lines)])
    for x, y in zip(across, up, strict=True):
        page.mouse.move(*place(page, 0, x, y))
        assert reading(page, 0).endswith(f"turns: time {x:g}, value {y:g}".replace("-", "−"))
    page.mouse.move(*place(page, 0, 2.0, 1.0))
    assert reading(page, 0) == "time 2: even 0"


def test_the_line_of_slope_1_is_where_it_belongs(shown):
    page = shown([curves()])
    ends = page.evaluate("""() => {
      const path = elements()[0].querySelectorAll(".gl-rules path")[2];
      const { x, y } = board.plots[0];
      const ends = [0, path.getTotalLength()].map((at) => path.getPointAtLength(at));
      return ends.map((at) => [x.invert(at.x), y.invert(at.y)]);
    }""")
    assert ends[0] == pytest.approx([0, -1], abs=0.02)
    assert ends[1][1] - ends[1][0] == pytest.approx(-1, abs=0.02)
    assert ends[1][1] == pytest.approx(1.5, abs=0.05)


def test_a_handle_moves_its_controls_within_their_ends(shown):
    page = shown([curves()])
    handle = page.locator(".gl-handle").nth(0)
    drag(page, handle, place(page, 0, 6.0, 1.0))
    *moves, last = page.evaluate("calls")
    assert all(gesture == "the point" and not settled for _, gesture, settled in moves)
    assert last[0] == {"p": pytest.approx(0.6, abs=0.02), "u": pytest.approx(1.0, abs=0.05)}
    assert last[2] is True
    assert last[0]["p"] == round(last[0]["p"], 4)  # as the slider rounds
    drag(page, handle, place(page, 0, 9.9, 0.0))
    assert page.evaluate("calls.at(-1)[0].p") == 0.8
    box = handle.bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(place(page, 0, 8.0, 0)[0], abs=1)  # where the control is


def test_a_handle_in_hand_stays_while_late_answers_arrive(shown):
    page = shown([curves()])
    handle = page.locator(".gl-handle").nth(0)
    box = handle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(*place(page, 0, 6.0, 1.0), steps=3)
    before = handle.bounding_box()
    again(page, [curves(0.5)])
    assert handle.bounding_box() == before
    page.mouse.up()
    again(page, [curves(0.5)])
    assert handle.bounding_box() == pytest.approx(box)


def test_arrow_keys_move_a_handle(shown):
    page = shown([curves()])
    handle = page.locator(".gl-handle").nth(0)
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("calls") == [
        [{"p": 0.41, "u": 0.5}, "the point", False],
        [{"p": 0.41, "u": 0.5}, "the point", True],
    ]
    page.keyboard.press("ArrowDown")
    assert page.evaluate("calls.at(-1)") == [{"p": 0.41, "u": 0.47}, "the point", True]


def test_a_key_moves_a_whole_control_by_one_at_least(shown):
    handle = Handle("prompt", 2.0, 0.0, CHOSEN[0], moves=[Move("prompt", "x")])
    page = shown([curves(handles=[handle])])
    page.locator(".gl-handle").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("calls.at(-1)") == [{"prompt": 3}, "prompt", True]
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("calls.at(-1)") == [{"prompt": 2}, "prompt", True]


def test_a_handle_runs_along_its_track(shown):
    page = shown([curves()])
    values = np.geomspace(0.01, 10, 41)
    handle = page.locator(".gl-handle").nth(1)
    drag(page, handle, place(page, 0, 4.1, 1.2))  # beside the track
    [control, gesture, settled] = page.evaluate("calls.at(-1)")
    at = int(np.argmin(abs(values - control["beta"])))
    assert control == {"beta": pytest.approx(values[at], rel=1e-12)}
    assert (gesture, settled) == ("along the curve", True)
    box = handle.bounding_box()
    assert (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) == pytest.approx(
        place(page, 0, X[at], np.sin(X[at])), abs=1
    )
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("calls.at(-1)[0].beta") == pytest.approx(values[at + 1])
    page.keyboard.press("ArrowDown")
    assert page.evaluate("calls.at(-1)[0].beta") == pytest.approx(values[at])


def test_a_click_sets_what_a_chart_picks(shown):
    page = shown([curves(picks=("u", "")), policy(), surface()])
    page.mouse.click(*place(page, 0, 6.2, 1.2))
    [changes, gesture, settled] = page.evaluate("calls.at(-1)")
    assert changes == {"u": pytest.approx(6.2, abs=0.05)}
    assert (gesture, settled) == ("pick u ", True)
    page.mouse.click(*place(page, 1, 2, 3))
    assert page.evaluate("calls.at(-1)[0]") == {"prompt": 3}
    page.mouse.click(*place(page, 2, 0.05, -1.5))
    assert page.evaluate("calls.at(-1)[0]") == {
        "beta": pytest.approx(0.05, rel=0.03),
        "u": pytest.approx(-1.5, abs=0.03),
    }
    page.mouse.click(*place(page, 1, -1.5, 3))  # beside the cells
    assert page.evaluate("calls.length") == 3


def test_a_click_on_a_signed_logarithmic_map_sets_its_place(shown):
    places = uneven(np.linspace(-2, 2, 21), "symlog")
    x, y = Axis("h_w", -7, 7, "symlog"), Axis("h_l", -7, 7, "symlog")
    values = np.add.outer(places, -places)
    chart = Map("Margin", "h", x, y, places, places, values, "h", -12, 12, "signed", picks=("u", ""))
    page = shown([chart])
    page.mouse.click(*place(page, 0, 5.0, -0.5))
    assert page.evaluate("calls.at(-1)[0]") == {"u": pytest.approx(5.0, rel=0.02)}


def test_enter_picks_at_the_keyboards_place(shown):
    page = shown([curves(picks=("u", "")), policy(), surface()])
    for at, keys in enumerate(
        (["Home", "ArrowRight"], ["ArrowDown", "ArrowDown"], ["ArrowUp", "ArrowUp", "ArrowRight"])
    ):
        page.locator(".gl-plot").nth(at).focus()
        for key in [*keys, "Enter"]:
            page.keyboard.press(key)
    assert page.evaluate("calls.map(([changes]) => changes)") == [
        {"u": 0.25}, {"prompt": 1}, {"beta": pytest.approx(0.0117, rel=0.01), "u": pytest.approx(-2.68, abs=0.02)},
    ]  # fmt: skip


def test_a_chart_without_picks_and_a_clicked_handle_set_nothing(shown):
    page = shown([curves(), curves(picks=("u", ""))])
    page.mouse.click(*place(page, 0, 6.0, 1.2))
    box = page.locator(".gl-plot").nth(1).locator(".gl-handle").nth(0).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.evaluate("calls") == []


def test_charts_of_one_link_share_the_pointer(shown):
    page = shown([curves(), curves(1.0, handles=()), policy(), policy(), surface()])
    page.mouse.move(*place(page, 0, 7.5, -1.0))
    assert reading(page, 0).startswith("time 7.5: A ")
    assert reading(page, 1).startswith("time 7.5: A ")
    assert reading(page, 2) == ""
    page.mouse.move(*place(page, 2, 2, 3))
    assert reading(page, 2).startswith("prompt 3, response 2: π ")
    assert reading(page, 2) == reading(page, 3)
    assert reading(page, 0) == reading(page, 1) == ""
    page.mouse.move(2, 2)
    assert [reading(page, at) for at in range(5)] == [""] * 5


def test_a_struck_cell_says_what_that_means(shown):
    chart = policy()
    page = shown([chart])
    row, column = np.argwhere(chart.struck)[0]
    page.mouse.move(*place(page, 0, int(column), int(row)))
    assert reading(page, 0).endswith(", never seen")


@pytest.mark.parametrize("down", [False, True])
def test_rows_of_numbers_run_as_their_axis_says(shown, down):
    page = shown([surface(down)])
    high = place(page, 0, 0.5, 2.9)[1]
    low = place(page, 0, 0.5, -2.9)[1]
    assert (high > low) == down
    page.mouse.move(*place(page, 0, 0.5, 2.9))
    assert "Δu 3" in reading(page, 0)
    value = float(reading(page, 0).split("nats ")[1].replace("−", "-"))
    assert value == pytest.approx(3 + np.log(0.5), abs=0.15)


def test_alike_charts_keep_their_elements_and_others_are_replaced_in_their_place(shown):
    page = shown([curves(), bars(), Picture("Before", "violet", png())])
    page.evaluate(
        "globalThis.kept = elements(); globalThis.gone = []; URL.revokeObjectURL = (one) => gone.push(one); 0"
    )
    page.locator(".gl-handle").nth(0).focus()
    source = page.locator("img").get_attribute("src")
    again(page, [curves(0.7, labels=[]), bars(2.0), Picture("After", "lilac", png(200))])
    assert page.evaluate("elements().map((one, at) => one === kept[at])") == [True, True, True]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "the point"
    assert page.locator("img").get_attribute("alt") == "lilac"
    assert page.locator("figcaption").inner_text() == "After"
    assert page.evaluate("gone") == [source]
    again(page, [bars(), policy(), curves(), surface()])
    assert page.evaluate("elements().map((one) => kept.includes(one))") == [False] * 4
    assert page.evaluate("gone.length") == 2
    assert page.evaluate("board.plots.map(({ element }) => element).every((one, at) => one === elements()[at])")
    again(page, [])
    assert page.evaluate("[elements().length, board.plots.length]") == [0, 0]


def test_titles_words_and_ends_change_in_place(shown):
    page = shown([curves()])
    page.evaluate("globalThis.kept = elements()[0]")
    chart = curves()
    other = Curves("Later", "other words", Axis("time", 0, 20), chart.y, chart.curves, link="time")
    again(page, [other])
    first = page.locator(".gl-plot").nth(0)
    assert page.evaluate("elements()[0] === kept")
    assert first.locator(".gl-title").inner_text() == "Later"
    assert first.locator("svg").get_attribute("aria-label") == "other words"
    assert "20" in first.locator(".gl-axis-x").text_content()


def test_a_chart_of_an_unknown_type_is_one_sentence(shown):
    page = shown([bars()])
    page.evaluate('board.show([{ type: "constructor" }])')
    words = 'This page cannot draw a chart of the type "constructor": reload it, so that it is of '
    assert page.locator(".gl-charts").inner_text() == words + "gradlab's present version."


def test_an_axis_that_runs_downwards_is_read_and_dragged(shown):
    curve = Curve("A", X[::-1], np.sin(X[::-1]), CHOSEN[0])
    chart = Curves("Down", "d", Axis("x", 10, 0), Axis("y", 1.5, -1.5), [curve],
                   handles=[Handle("h", 5.0, 0.0, CHOSEN[1], moves=[Move("u", "x")])])  # fmt: skip
    page = shown([chart])
    page.mouse.move(*place(page, 0, 2.5, 1.0))
    assert reading(page, 0).startswith("x 2.5: A 0.598")
    drag(page, page.locator(".gl-handle"), place(page, 0, 8.0, 0.5))
    assert page.evaluate("calls.at(-1)[0].u") == pytest.approx(8, abs=0.1)


def test_charts_are_files_too(shown):
    page = shown(every())
    for text in page.evaluate("board.plots.map((plot) => plot.svgText())"):
        assert text.startswith("<svg")


def test_an_update_is_quick(shown):
    page = shown(every()[:6])
    took = page.evaluate(
        """(text) => {
          const times = Array.from({ length: 20 }, () => {
            const began = performance.now();
            show(text);
            return performance.now() - began;
          });
          return times.sort((one, other) => one - other)[10];
        }""",
        as_text(every()[:6]),
    )
    assert took < 60
