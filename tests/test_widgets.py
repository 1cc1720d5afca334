"""Every explorer that the page draws: controls, stories, handles, the guess, what is sent, and what stays behind."""

import base64
import gc
import io
import itertools
import re
import threading

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure
from own_losses import SOME
from PIL import Image

from gradlab.losses import PAIR_LOSSES
from gradlab.plotting.charts import Arrows, Curves, Picture
from gradlab.widgets import EXPLORERS, SigmoidExplorer
from gradlab.widgets import explorer as module
from gradlab.widgets.chart_messages import as_messages
from gradlab.widgets.controls import Choice, Number, Whole
from gradlab.widgets.explorer import Explorer, Reading

SLOW = ["atlas", "continuous", "frontier", "grid", "sampling", "scale", "workbench"]  # these train at each move
EACH = [
    pytest.param(kind, id=name, marks=pytest.mark.slow if name in SLOW else ())
    for name, kind in EXPLORERS.items()
    if issubclass(kind, Explorer)
]


@pytest.mark.parametrize("kind", EXPLORERS.values(), ids=list(EXPLORERS))
def test_an_explorer_says_in_one_sentence_what_to_do_first(kind):
    assert re.fullmatch(r"(Drag|Choose|Click|Read|Type) [^.]+\.", kind.first_move)


@pytest.fixture(scope="module", params=EACH)
def made(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("explorers"))  # explorers that keep something do so in the current folder
        explorer = request.param()
        yield explorer
        explorer.close()


@pytest.fixture
def explorer(made):
    """Each of the explorers, at its start."""
    made.reset()
    made.finish()
    return made


def some_of(control):
    """The values at the ends of a control and between them, or all there are where it has no ends."""
    if isinstance(control, Number) and np.isfinite([control.low, control.high]).all():
        return [control.low, control.low + 0.38196601125 * (control.high - control.low), control.high]
    if isinstance(control, Whole):
        return [control.low, (control.low + control.high) // 2, control.high]
    if isinstance(control, Choice):
        values = [value for _, value in control.options]
        return [value for value in values if value in SOME] if set(values) >= set(PAIR_LOSSES) else values
    return [not control.value, control.value] if isinstance(control, ipywidgets.Checkbox) else [control.value]


def ends_of(explorer):
    """The names of controls with two values each, the present one not second."""
    for key, control in explorer.controls.items():
        values = some_of(control)
        if key != "guess" and len(values) > 1:
            yield key, (values[0], values[-1]) if control.value != values[-1] else (values[-1], values[0])


def seen(explorer):
    """What the page draws."""
    return as_messages(explorer.charts(explorer.result, explorer.pinned))


def handles_of(explorer):
    """Every handle with the chart that it is on."""
    charts = explorer.charts(explorer.result, None)
    return [(chart, one) for chart in charts if isinstance(chart, Curves | Arrows) for one in chart.handles]


def test_every_control_works_at_its_ends_and_between_them(explorer):
    for key, control in explorer.controls.items():
        before = control.value
        for value in some_of(control):
            control.value = value
            explorer.finish()
            assert explorer.error is None, f"{key} = {value!r}: {explorer.status}"
            assert explorer.controls[key].value == value
            explorer.charts(explorer.result, explorer.pinned)
        explorer.reset()
        assert control.value == before


def test_every_registered_loss_is_on_every_menu_of_losses(explorer):
    for control in explorer.controls.values():
        if "loss" in control.part:
            assert set(PAIR_LOSSES) <= {value for _, value in control.options}


def test_reset_brings_back_state_numbers_and_charts(explorer):
    state, numbers, charts = explorer.state, dict(explorer.numbers), seen(explorer)
    for control in explorer.controls.values():
        control.value = some_of(control)[-1]
    explorer.reset()
    explorer.finish()
    assert explorer.state == state
    assert explorer.numbers == numbers
    assert seen(explorer) == charts


def test_stories_move_the_controls_and_keep_the_guess(explorer):
    guess = {"guess": next(iter(explorer.answers))} if explorer.ask else {}
    explorer.set(**guess)
    start = seen(explorer)
    for story in explorer.stories:
        explorer.tell(story.title)
        explorer.finish()
        assert explorer.error is None, explorer.status
        assert (seen(explorer) != start) == any(explorer._start[key] != value for key, value in story.state.items())
        assert {**explorer._start, **story.state, **guess} == explorer.state


def test_the_guess_is_judged(explorer):
    assert bool(explorer.ask) == bool(explorer.answers)
    for title in (None, *(story.title for story in explorer.stories)):
        if title:
            explorer.tell(title)
            explorer.finish()
        if explorer.ask:
            truth, sentence = explorer.outcome(explorer.result)
            assert truth in explorer.answers
            assert sentence.endswith(".")
            assert "nan" not in sentence


def test_results_can_be_taken_out(explorer):
    frame = explorer.frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame)
    compile(explorer.as_python(), "<copied>", "exec")
    bundle = explorer._repr_mimebundle_()  # a page where nothing is live gets the picture
    assert explorer.question in bundle["text/plain"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))))
    assert pixels.min() < 100 < pixels.max()  # not an empty page
    state = explorer.state
    explorer.set(**state)
    assert explorer.state == state


def test_a_state_travels_as_link_and_as_file(explorer, tmp_path):
    story = explorer.stories[-1]
    explorer.tell(story.title)
    state, link = explorer.state, explorer.link()
    explorer.save(tmp_path / "state.json")
    for source in (link, tmp_path / "state.json"):
        explorer.reset()
        explorer.load(source)
        assert explorer.state == state


def test_everything_has_a_name(explorer):
    for control in explorer.controls.values():
        assert control.description
        assert control.tooltip
        assert None not in some_of(control), "a menu shows None as an empty box"
    for chart in explorer.charts(explorer.result, None):
        assert chart.title
        assert len(chart.description) > 20
        if isinstance(chart, Curves | Arrows):
            names = [handle.name for handle in chart.handles]
            assert len(names) == len(set(names))
    for text in (explorer.question, explorer.prediction, explorer.reading, explorer.takeaway):
        assert text
        # What the report measures is read there, and not typed here, where it would grow old.
        assert not re.search(r"\d ?%|\d of \d", re.sub("95% (Wilson|interval)|80% of the seeds", "", text)), text


def test_handles_lie_inside_their_charts_where_their_controls_say(explorer):
    for chart, handle in handles_of(explorer):
        for at, axis in ((handle.x, chart.x), (handle.y, chart.y)):
            assert min(axis.low, axis.high) <= at <= max(axis.low, axis.high), handle
        for move in handle.moves:
            at = (getattr(handle, move.axis) - move.origin) * move.factor
            assert at == pytest.approx(explorer.controls[move.control].value, rel=1e-9, abs=1e-9)
        if handle.track is not None:
            track = handle.track
            values = [explorer.controls[track.control].accepted(track.control, float(one)) for one in track.values]
            nearest = np.abs(np.log(np.array(values) / explorer.controls[track.control].value)).argmin()
            assert (track.x[nearest], track.y[nearest]) == pytest.approx((handle.x, handle.y), rel=0.02, abs=0.02)
        assert handle.moves or handle.track is not None


def test_what_picks_names_are_controls(explorer):
    for chart in explorer.charts(explorer.result, None):
        for key in () if isinstance(chart, Picture) else getattr(chart, "picks", ()):
            assert not key or key in explorer.controls


def test_a_state_of_the_page_is_answered_with_charts_and_numbers(explorer):
    if explorer.in_page:
        pytest.skip("the page computes")
    shown = explorer.front.shown
    assert {chart["type"] for chart in shown["charts"]} <= {"curves", "map", "arrows", "bars", "picture"}
    readings = [] if explorer.readings_answer else explorer.readings(explorer.result)  # nobody has guessed yet
    assert [row["name"] for row in shown["readings"]] == [row.name for row in readings]
    key, value = next((key, two[1]) for key, two in ends_of(explorer))
    explorer.front.state = {**explorer.state, key: value}
    explorer.finish()
    assert explorer.state[key] == value
    assert explorer.front.shown != shown


def test_an_exception_is_shown_and_the_explorer_goes_on(explorer, monkeypatch):
    def broken(state):
        raise RuntimeError("the <world> is flat")

    with monkeypatch.context() as patch:
        patch.setattr(explorer, "compute", broken)
        explorer.reset()
        assert "RuntimeError: the <world> is flat" in explorer.status
        assert isinstance(explorer.error, RuntimeError)
        with pytest.raises(ValueError, match="nothing is shown for these controls: the <world> is flat"):
            explorer.png()
    explorer.reset()
    explorer.finish()
    assert explorer.error is None
    assert "RuntimeError" not in explorer.status


@pytest.mark.parametrize(
    ("runs", "others"),
    [pytest.param(10, EACH, marks=pytest.mark.slow), pytest.param(200, EACH, marks=pytest.mark.long)],
    ids=["some", "many"],
)
def test_runs_of_a_cell_and_moves_leak_nothing(monkeypatch, runs, others):
    runs_of_the_cell = itertools.count()
    monkeypatch.setattr(module, "_cell", lambda: ("the one cell", str(next(runs_of_the_cell))))

    def count():
        gc.collect()
        return sum(type(one) is Figure for one in gc.get_objects()), len(_instances)

    kinds = [(SigmoidExplorer, runs), *((param.values[0], 1 + runs // 100) for param in others)]
    for kind, times in kinds:
        kind()
        before = count()
        for _ in range(times):
            last = kind()
        assert count() == before, kind.name
        observers = {key: len(one._trait_notifiers["value"]["change"]) for key, one in last.controls.items()}
        key, two = next(ends_of(last))
        for move in range(times):
            last.controls[key].value = two[move % 2]
        assert count() == before, (kind.name, key)
        assert observers == {key: len(one._trait_notifiers["value"]["change"]) for key, one in last.controls.items()}


def test_equal_settings_look_equal_however_they_were_reached():
    one = SigmoidExplorer()
    one.gap.value = 3.0
    one.set(**one.state)
    assert one.png() == SigmoidExplorer(gap=3.0).png()
    assert one.pdf().startswith(b"%PDF")


def test_a_question_that_overtakes_its_state_is_answered_for_that_state():
    explorer, other = SigmoidExplorer(), SigmoidExplorer(gap=3.0)
    former = {**explorer.state}
    explorer.front.set_state({"state": {**former, "gap": 1.5}, "asked": 1})
    later = {**former, "gap": 3.0}
    assert explorer._answer({"want": "csv", "state": later}) == other._answer({"want": "csv"})
    explorer.front.set_state({"state": later, "asked": 2})  # it comes at last
    assert explorer.front.state == explorer.state == later
    with pytest.raises(ValueError, match="gap must be"):
        explorer._answer({"want": "csv", "state": {**later, "gap": 1e9}})
    assert explorer.state == later
    explorer.close()
    other.close()


class InTwoPieces(Explorer):
    """An explorer that shows its setting twice, the second time when it may."""

    name = question = prediction = reading = takeaway = "two pieces"

    def make_controls(self):
        self.begun, self.may = threading.Event(), threading.Event()
        return {"": {"setting": Whole("setting", 0, 0, 9, "")}}

    def compute(self, state):
        yield state.setting
        if state.setting == 1:
            self.begun.set()
            self.may.wait(60)
        yield state.setting + 0.5

    def charts(self, result, pinned):
        return []

    def readings(self, result):
        return [Reading("setting", result)]


def test_a_former_state_is_not_shown_as_the_answer_to_a_later_one_that_came_in_another_thread():
    explorer = InTwoPieces()
    shown = []
    explorer.front.observe(lambda change: shown.append(change.new), "shown")
    ask = [
        threading.Thread(target=explorer.front.set_state, args=({"state": {"setting": number}, "asked": number},))
        for number in (1, 2)
    ]
    ask[0].start()
    assert explorer.begun.wait(60)
    ask[1].start()
    ask[1].join(0.5)  # most often it waits by then; the numbers are right in either order
    explorer.may.set()
    for one in ask:
        one.join(60)
    assert [(one["asked"], one["readings"][0]["value"]) for one in shown] == [(1, 1), (1, 1.5), (2, 2), (2, 2.5)]
    explorer.close()
