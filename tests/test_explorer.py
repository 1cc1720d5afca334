"""The base of explorers: state in controls, links and files, work in pieces, files for the page, and no leaks."""

import asyncio
import base64
import gc
import io
import itertools
import json

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure
from PIL import Image

from gradlab.plotting.charts import Axis, Curve, Curves
from gradlab.widgets import explorer as module
from gradlab.widgets.controls import Choice, Line, Number, Switch, Whole, log_slider, probability, slider
from gradlab.widgets.explorer import Explorer, Reading, Story
from gradlab.widgets.losses_in_page import asked_kernel


class Slope(Explorer):
    """A line of a slope."""

    name, question, prediction, reading, takeaway = "slope", "How steep?", "five", "a line", "it was the slope"
    ask, answers = "Does it rise?", {"up": "it rises", "down": "it falls"}
    stories = (Story("Falling", "it falls", {"slope": -1.0}),)
    unfolds = ("Look",)

    def make_controls(self):
        return {
            "Line": {
                "slope": slider("slope", 1.0, -5, 5, "of the line"), "count": Whole("points", 5, 2, 9),
                "kind": Choice("kind", "line", {"a line": "line", "points": 7}), "shown": Switch("shown", True),
            },
            "Look": {"note": Line("note", "", "a text"), "far": log_slider("far", 1.0, -1, 1)},
        }  # fmt: skip

    def adapt(self, state):
        self.controls["far"].hidden = not state.shown

    def compute(self, state):
        if state.note == "broken":
            raise ValueError("note must be whole, got broken")
        return state.slope * np.arange(state.count)

    def charts(self, result, pinned):
        faint = [] if pinned is None else [Curve("pinned", np.arange(len(pinned)), pinned, "#999999", faint=True)]
        curve = Curve("line", np.arange(len(result)), result, "#000000")
        return [Curves("Line", "a line", Axis("x", 0, 9), Axis("y", -50, 50), [curve, *faint])]

    def readings(self, result):
        return [Reading("end", float(result[-1])), Reading("both", {"A": 1.0, "B": float("nan")}, "nats")]

    def outcome(self, result):
        return ("up", "It rises.") if result[-1] > 0 else ("down", "It falls.")

    def code(self, state):
        return f"print({state.slope!r})"

    def frame(self):
        return pd.DataFrame({"y": self.result})


class Counting(Slope):
    """Works in three pieces."""

    name, ask, stories = "counting", "", ()

    def compute(self, state):
        for part in (1, 2, 3):
            if state.slope == 5 and part == 2:
                raise RuntimeError("broken on the way")
            yield part * state.slope * np.ones(2)


class InPage(Slope):
    """A line that the page computes."""

    name, in_page = "in-page", True
    computed = 0

    def compute(self, state):
        InPage.computed += 1
        return super().compute(state)


@pytest.fixture
def explorer():
    made = Slope()
    yield made
    made.close()


def test_controls_are_read_set_and_observed_by_name(explorer):
    assert explorer.state == {
        "slope": 1.0, "count": 5, "kind": "line", "shown": True, "note": "", "far": 1.0, "guess": "none",
    }  # fmt: skip
    seen = []
    explorer.slope.observe(lambda change: seen.append(change.new), "value")
    explorer.slope.value = 2
    explorer.set(slope=3.0, count=4)
    assert seen == [2.0, 3.0]
    assert explorer.numbers["end"] == 9.0
    assert explorer.front.state == explorer.state
    with pytest.raises(AttributeError, match="Slope has no attribute or control 'beta'"):
        explorer.beta  # noqa: B018


def test_a_state_from_the_page_moves_the_controls_and_is_shown(explorer):
    explorer.front.set_state({"state": {**explorer.state, "slope": -2.0}, "asked": 1})
    assert explorer.slope.value == -2.0
    assert explorer.front.shown["asked"] == 1
    assert explorer.front.shown["outcome"] == ["down", "It falls."]
    (line,) = explorer.front.shown["charts"][0]["curves"]
    assert np.frombuffer(line["y"]["f8"]).tolist() == [-2.0 * x for x in range(5)]
    assert explorer.front.shown["readings"] == [
        {"name": "end", "value": -8.0, "unit": ""}, {"name": "both", "value": {"A": 1.0, "B": "nan"}, "unit": "nats"},
    ]  # fmt: skip


def test_a_state_from_the_page_that_no_control_takes_is_said_and_changes_nothing(explorer):
    explorer.front.set_state({"state": {**explorer.state, "slope": 99.0}, "asked": 1})
    assert explorer.slope.value == 1.0
    assert explorer.front.shown["refused"] == "slope must be finite and lie in [-5, 5], got 99.0"
    assert explorer.front.shown["charts"]
    assert explorer.front.state == explorer.state
    assert explorer.error is None
    assert explorer.png()
    explorer.front.set_state({"state": {**explorer.state, "slope": 2.0}, "asked": 2})
    assert "refused" not in explorer.front.shown
    assert explorer.slope.value == 2.0


@pytest.mark.parametrize(
    "sent", [{}, {"slope": 1.0}, {"nothing": 3}, {"__proto__": 1, "slope": "steep"}, {"count": None}]
)
@pytest.mark.parametrize("kind", [Slope, InPage])
def test_a_state_with_other_parts_changes_nothing_and_the_page_gets_the_former_back(kind, sent):
    explorer = kind()
    explorer.front.set_state({"state": sent, "asked": 1})
    assert explorer.state == explorer.front.state == explorer._start
    assert explorer.error is None
    if not kind.in_page:
        assert explorer.front.shown["asked"] == 1
    explorer.close()


def test_a_state_that_the_page_sends_again_is_answered_too(explorer):
    explorer.front.set_state({"state": {**explorer.state, "slope": 2.0}, "asked": 1})
    shown = explorer.front.shown
    explorer.front.set_state({"state": {**explorer.state, "slope": 2.0}, "asked": 3})  # a host may leave out the second
    assert explorer.front.shown == {**shown, "asked": 3}
    explorer.note.value = "broken"
    explorer.front.set_state({"state": explorer.state, "asked": 4})
    assert explorer.front.shown == {"error": "note must be whole, got broken", "asked": 4}


@pytest.mark.parametrize("message", [None, [], "csv", 7, {"want": ["csv"]}, {"want": {"a": 1}}, {"want": None}, {}])
def test_a_message_that_is_none_is_answered_in_one_line(explorer, monkeypatch, message):
    sent = []
    monkeypatch.setattr(explorer.front, "send", lambda content, buffers=None: sent.append(content))
    explorer.front._receive(None, message, [])
    (content,) = sent
    assert content["error"].startswith("message must be")
    assert "\n" not in content["error"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "loss must be one of dpo"), ({"loss": ["dpo"]}, "loss must be one of dpo"),
        ({"loss": "dpo"}, "kernel must be one of slopes"), ({"loss": "dpo", "what": "free"}, "kernel must be one of"),
        ({"loss": "dpo", "what": "slopes", "hyper": [1]}, r"hyper must be numbers by name, got \[1\]"),
        ({"loss": "dpo", "what": "slopes", "hyper": {"beta": "x"}}, "beta must be finite"),
        ({"loss": "dpo", "what": "slopes", "hyper": {"beta": float("nan")}}, "beta must be finite"),
        ({"loss": "dpo", "what": "slopes", "hyper": {"beta": -1}}, "beta must be finite and > 0"),
        ({"loss": "dpo", "what": "slopes", "hyper": {"__class__": 1}}, "hyper must be one of beta"),
    ],
)  # fmt: skip
def test_a_kernel_that_nobody_has_is_refused_in_one_line(message, said):
    with pytest.raises(ValueError, match=said) as caught:
        asked_kernel(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"nothing": 1.0}, "control must be one of"), ({"slope": 9}, r"slope must be finite and lie in \[-5, 5\]"),
        ({"slope": float("nan")}, "slope must be finite"), ({"count": 2.5}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"), ({"kind": "7"}, "kind must be one of line, 7; got '7'"),
        ({"shown": 1}, "shown must be True or False, got 1"), ({"note": 3}, "note must be a text, got 3"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_in_one_line_and_change_nothing(explorer, values, said):
    state = explorer.state
    with pytest.raises(ValueError, match=said) as caught:
        explorer.set(far=2.0, **values)
    assert "\n" not in str(caught.value)
    assert explorer.state == state
    with pytest.raises(ValueError, match=said):
        Slope(**values)


def test_a_control_refuses_by_itself_in_one_line(explorer):
    with pytest.raises(Exception, match=r"slope must be finite and lie in \[-5, 5\], got 7"):
        explorer.slope.value = 7
    assert explorer.slope.value == 1.0


def test_the_page_gets_all_facts_of_the_controls(explorer):
    spec = explorer.front.spec
    assert json.loads(json.dumps(spec)) == spec
    assert spec["controls"]["slope"] == {
        "kind": "number", "label": "slope", "hint": "of the line", "start": 1.0, "usual": 1.0, "low": -5, "high": 5,
        "scale": "linear",
    }  # fmt: skip
    assert spec["controls"]["kind"]["options"] == [
        {"label": "a line", "value": "line"},
        {"label": "points", "value": 7},
    ]
    assert [(group["heading"], group["folded"]) for group in spec["groups"]] == [("Line", False), ("Look", True)]
    assert spec["answers"] == [["up", "it rises"], ["down", "it falls"]]
    assert probability("π", 0.5, 1e-9, 0.9).spec()["scale"] == "logit"
    assert Number("free", 1.0, -np.inf, np.inf).spec()["low"] is None
    explorer.shown.value = False
    assert explorer.front.hidden == ["far"]


def test_a_link_and_a_file_bring_a_state_back(explorer, tmp_path):
    explorer.set(slope=-2.5, kind=7, shown=False, note="a=b & c#d", guess="up")
    state, link = explorer.state, explorer.link()
    assert link.startswith("gradlab-lab.html#view=slope&slope=-2.5&kind=7&shown=false&note=")
    file = tmp_path / "state.json"
    explorer.save(file)
    for source in (link, link.partition("#")[2], file, json.loads(file.read_text())):
        explorer.reset()
        explorer.load(source)
        assert explorer.state == state


def test_start_values_are_in_a_link_too_and_another_explorer_need_not_have_them():
    steep, plain = Slope(slope=3.0, kind=7), Slope()
    assert steep.link() == "gradlab-lab.html#view=slope&slope=3.0&kind=7"
    plain.load(steep.link())
    assert plain.state == steep.state
    assert (steep.spec()["controls"]["slope"]["start"], steep.spec()["controls"]["slope"]["usual"]) == (3.0, 1.0)
    plain.reset()
    steep.load(plain.link())
    assert steep.state == plain.state
    steep.reset()
    assert steep.state["slope"] == 3.0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("#view=grid&slope=1", 'state must be of the explorer "slope", got \'grid\''),
        ("#view=slope&slope=steep", "slope must be finite and lie in"), ("#slop=1", "control must be one of"),
        ({"state": 3}, 'state must be JSON with "explorer" and "state"'), ({"state": {"slope": None}}, "slope must be"),
        ({"state": {1: 2}}, "control must be one of"), ("#count=--5", "count must be a whole number"),
        (f"#count={'9' * 5000}", "count must be a whole number"), ("#count=٣", "count must be a whole number"),
        ("#kind=left-out", "kind was too long for this link, which goes without it; load a saved file"),
        (f"#view={'y' * 5000}", "state must be of the explorer"), (f"#kind={'y' * 5000}", "kind must be one of"),
    ],
)  # fmt: skip
def test_a_broken_state_is_refused_in_one_line_and_changes_nothing(explorer, source, said):
    with pytest.raises(ValueError, match=said) as caught:
        explorer.load(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert explorer.state == explorer._start


def test_saving_never_replaces_what_is_no_state(explorer, tmp_path):
    file = tmp_path / "notes.json"
    for text in ("my notes", "[]", '{"state": 3}'):
        file.write_text(text)
        with pytest.raises(FileExistsError, match="is no state that an explorer saved; name another file"):
            explorer.save(file)
        assert file.read_text() == text
    with pytest.raises(FileExistsError):
        explorer.save(tmp_path)
    explorer.save(tmp_path / "state.json")
    explorer.set(slope=2.0)
    explorer.save(tmp_path / "state.json")
    assert json.loads((tmp_path / "state.json").read_text())["state"]["slope"] == 2.0


def test_a_file_that_is_no_state_is_refused_in_one_line(explorer, tmp_path):
    file = tmp_path / "state.json"
    for content in (b"{", b"", b"\xff\xfe{", b"[" * 100_000, b'{"state": {"count": ' + b"9" * 5000 + b"}}"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="state must be a link of the lab, or JSON"):
            explorer.load(file)
    for content in (b"[1]", b"null", b"3", b'{"state": [1]}'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match='state must be JSON with "explorer" and "state"'):
            explorer.load(file)
    with pytest.raises(OSError, match="nowhere"):
        explorer.load(tmp_path / "nowhere.json")


def test_a_story_keeps_the_guess_and_says_where_it_is_told(explorer):
    explorer.set(guess="up", far=3.0)
    explorer.tell("Falling")
    assert (explorer.state["slope"], explorer.state["far"], explorer.state["guess"]) == (-1.0, 1.0, "up")
    with pytest.raises(ValueError, match="story must be one of Falling"):
        explorer.tell("Rising")


def test_the_faint_curves_are_the_pinned_ones_and_those_alone(explorer):
    start = explorer.front.shown["charts"]
    explorer.slope.value = 2
    explorer.slope.value = 1
    assert explorer.front.shown["charts"] == start  # what is seen follows from the state
    pinned = explorer.result
    explorer.front.pinned = True
    explorer.slope.value = -1
    explorer.reset()
    assert explorer.pinned is pinned
    assert [curve["faint"] for curve in explorer.front.shown["charts"][0]["curves"]] == [False, True]
    explorer.front.pinned = False
    assert explorer.pinned is None
    assert explorer.front.shown["charts"] == start


def test_an_exception_is_shown_and_the_explorer_goes_on(explorer):
    explorer.note.value = "broken"
    assert isinstance(explorer.error, ValueError)
    assert explorer.front.shown["error"] == explorer.status == "note must be whole, got broken"
    for kind in ("csv", "python", "png"):
        explorer.front._receive(None, {"want": kind, "number": 1}, [])
    with pytest.raises(ValueError, match="nothing is shown for these controls: note must be whole"):
        explorer.figure()
    explorer.note.value = ""
    assert explorer.error is None
    assert "error" not in explorer.front.shown


def test_the_page_gets_code_numbers_and_pictures(explorer, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer.front, "send", lambda message, buffers=None: sent.append((message, buffers)))
    starts = {"python": b"print(1.0)", "csv": b"y\n0.0", "png": b"\x89PNG", "pdf": b"%PDF"}
    for number, (kind, start) in enumerate(starts.items()):
        explorer.front._receive(None, {"want": kind, "number": number}, [])
        message, (content,) = sent[-1]
        assert message == {"to": number}
        assert content.startswith(start)
    explorer.front._receive(None, {"want": "the moon", "number": 9}, [])
    assert sent[-1][0]["to"] == 9
    assert "message must be one that the explorer knows" in sent[-1][0]["error"]


def test_a_page_where_nothing_is_live_gets_the_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert bundle["text/plain"] == "Slope: How steep?"
    pixels = np.asarray(Image.open(io.BytesIO(explorer.png())))
    assert pixels.shape[1] == pytest.approx(100 * module.PAGE, abs=1)
    assert isinstance(explorer.figure(), Figure)


def test_where_the_page_computes_python_does_so_only_when_asked():
    explorer = InPage()
    InPage.computed = 0
    for slope in (2, 3, 4):
        explorer.slope.value = slope
    assert InPage.computed == 0
    assert explorer.numbers["end"] == 16.0
    assert explorer.error is None
    explorer.figure()
    assert InPage.computed == 1
    assert explorer.front.shown == {}
    explorer.note.value = "broken"
    assert "note must be whole" in explorer.status
    assert "note must be whole" in explorer.front.shown["error"]
    explorer.note.value = ""
    assert "error" not in explorer.front.shown  # the page computes this state, and nothing is wrong with it


def test_longer_work_shows_its_first_result_at_once_and_gives_way_to_the_next_move():
    async def drag():
        counting = Counting()
        assert counting._result.tolist() == [1, 1]
        assert counting.front.busy
        counting.slope.value = 2
        assert counting._result.tolist() == [2, 2]
        seen = []
        while counting._work is not None:
            await asyncio.sleep(0)
            seen.append(counting._result[0])
        assert seen[-1] == 6
        assert set(seen) <= {2, 4, 6}  # nothing of the former work
        assert not counting.front.busy
        counting.slope.value = 5
        await counting._task
        assert "broken on the way" in counting.status
        counting.reset()
        counting.finish()
        assert counting.numbers["end"] == 3

    asyncio.run(drag())


def test_without_an_event_loop_the_work_is_done_at_once():
    assert Counting().numbers["end"] == 3


def test_explorers_stand_in_boxes_and_controls_are_linked_in_the_page(explorer):
    box = ipywidgets.HBox([explorer, Slope()])
    assert box.children[0] is explorer
    other = ipywidgets.FloatSlider()
    assert explorer.slope.comm is None
    link = ipywidgets.jslink((explorer.slope, "value"), (other, "value"))
    state = link.get_state()
    assert state["source"] == (f"IPY_MODEL_{explorer.slope.model_id}", "value") or explorer.slope.comm is not None
    assert explorer.slope.comm is not None  # the page knows it from now on


@pytest.mark.parametrize(("runs", "moves"), [(5, 10), pytest.param(50, 500, marks=pytest.mark.slow)])
def test_runs_of_a_cell_and_moves_leak_nothing(monkeypatch, runs, moves):
    runs_of_the_cell = itertools.count()
    monkeypatch.setattr(module, "_cell", lambda: ("the one cell", str(next(runs_of_the_cell))))

    def count():
        gc.collect()
        return sum(type(one) is Figure for one in gc.get_objects()), len(_instances)

    Slope()
    before = count()
    for _ in range(runs):
        explorer = Slope()
    assert count() == before
    for move in range(moves):
        explorer.slope.value = move % 5
    explorer.png()
    assert count() == before


def test_two_explorers_of_one_cell_live_side_by_side_until_it_is_run_again(monkeypatch):
    run = "first"
    monkeypatch.setattr(module, "_cell", lambda: ("a cell", run))
    one, other = Slope(), Slope()
    assert one.comm is not None
    run = "second"
    again = Slope()
    assert one.comm is other.comm is None
    assert again.comm is not None


def test_a_start_that_is_refused_leaves_no_widget_behind():
    before = len(_instances)
    with pytest.raises(ValueError, match="slope must be finite"):
        Slope(slope=9)
    gc.collect()
    assert len(_instances) == before


def test_a_start_of_ones_own_is_where_reset_leads():
    explorer = Slope(slope=0.123)
    explorer.set(slope=2.0)
    explorer.reset()
    assert explorer.state["slope"] == 0.123
    assert explorer.front.spec["controls"]["slope"]["start"] == 0.123


def test_a_kernel_that_the_page_asks_for_moves_whatever_the_number_looks_like():
    record = asked_kernel({"loss": "dpo", "what": "free adam", "hyper": {"beta": 1}})  # as JavaScript writes 1.0
    assert record["hyper"] == {"beta": 1.0}
    assert record["laws"]


def test_a_story_is_told_where_its_text_is_true_whatever_the_explorer_begins_with():
    explorer = Slope(far=3.0)
    explorer.tell("Falling")
    assert (explorer.state["slope"], explorer.state["far"]) == (-1.0, 1.0)
