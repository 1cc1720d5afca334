"""Every explorer takes the ends of all controls, all stories and losses, says what is wrong, and leaks nothing."""

import asyncio
import base64
import gc
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from ipywidgets.widgets.widget import _instances
from matplotlib.figure import Figure
from PIL import Image

from gradlab import widgets as widgets_package
from gradlab.losses import PAIR_LOSSES
from gradlab.widgets import EXPLORERS, Explorer
from gradlab.widgets import explorer as module
from gradlab.widgets.controls import Slider, log_slider, slider, whole_slider
from gradlab.widgets.view import View


@pytest.fixture(scope="module", autouse=True)
def a_folder_of_our_own(tmp_path_factory):
    """Explorers that keep something do so in the current folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("explorers"))
        yield


SLOW = ["frontier"]  # explorers that train whole policies at each move
OLD = {name: kind for name, kind in EXPLORERS.items() if issubclass(kind, Explorer)}  # test_drawn_explorers.py: others
EACH = [pytest.param(kind, id=name, marks=pytest.mark.slow if name in SLOW else ()) for name, kind in OLD.items()]


@pytest.fixture(scope="module", params=EACH)
def made(request):
    explorer = request.param()
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(made):
    """Each of the explorers, at its start."""
    made.reset()
    made.finish()
    return made


def ends(control):
    """The values at the ends of a control, or all there are where it has no ends."""
    if isinstance(control, Slider):
        return [control.stops[0], control.stops[-1]]
    if isinstance(control, ipywidgets.Dropdown):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    return [not control.value, control.value] if isinstance(control, ipywidgets.Checkbox) else [control.value]


def test_every_control_works_at_its_ends(explorer):
    for key, control in explorer.controls.items():
        before = control.value
        for value in ends(control):
            control.value = value
            explorer.finish()
            assert explorer.error is None, f"{key} = {value!r}: {explorer.status}"
            assert explorer.controls[key].value == value
        explorer.reset()
        assert control.value == before


def test_every_registered_loss_is_on_every_menu_of_losses(explorer):
    for key in [key for key in explorer.controls if key.startswith("loss")]:
        options = ends(explorer.controls[key])
        assert set(PAIR_LOSSES) <= set(options)


def test_reset_brings_back_state_numbers_and_every_pixel(explorer):
    explorer.finish()
    state, numbers, png = explorer.state, dict(explorer.numbers), explorer.png()
    for key, control in explorer.controls.items():
        control.value = ends(control)[-1]
        assert explorer.controls[key] is control
    explorer.buttons["Reset"].click()
    explorer.finish()
    assert explorer.state == state
    assert explorer.numbers == numbers
    assert explorer.png() == png


def test_every_story_has_a_button_shows_something_else_and_says_what(explorer):
    assert len(explorer.stories) >= 3 or not explorer.controls
    start = explorer.png()
    for story in explorer.stories:
        explorer.buttons[story.title].click()
        explorer.finish()
        assert explorer.error is None, explorer.status
        assert (explorer.png() != start) == (explorer.state != explorer._start)
        assert story.look_at in explorer._story.value
        assert {**explorer._start, **story.state} == explorer.state


def test_results_can_be_taken_out(explorer):
    explorer.finish()
    frame = explorer.frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame)
    compile(explorer.as_python(), "<copied>", "exec")
    pixels = np.asarray(Image.open(io.BytesIO(explorer.png())))
    assert not explorer.views or pixels.shape[1] <= module.PAGE  # a saved figure is as wide as it is
    assert pixels.min() < 100 < pixels.max()  # not an empty page
    state = explorer.state
    explorer.set(**state)
    assert explorer.state == state


def test_a_page_where_nothing_is_live_gets_the_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == explorer.png()
    assert explorer.question in bundle["text/plain"]


def test_everything_has_a_name(explorer):
    for control in explorer.controls.values():
        assert control.description
        assert control.tooltip
        assert None not in ends(control), "a menu shows None as an empty box"
    for view in explorer.views.values():
        assert len(view.picture.alt) > 20
    names = [control.description for control in explorer.controls.values()]
    assert len(names) == len(set(names)), "two controls of one name cannot be told apart"
    for text in (explorer.question, explorer.prediction, explorer.reading, explorer.takeaway):
        assert text
        # What the report measures is read there, and not typed here, where it would grow old.
        assert not re.search(r"\d ?%|\d of \d", text.replace("95% Wilson", "").replace("95% interval", "")), text


def test_an_exception_is_shown_and_the_explorer_goes_on(explorer, monkeypatch):
    def broken(state):
        raise RuntimeError("the <world> is flat")

    explorer.finish()
    with monkeypatch.context() as patch:
        patch.setattr(explorer, "compute", broken)
        explorer.buttons["Reset"].click()
        assert "RuntimeError: the <world> is flat" in explorer.status
        assert isinstance(explorer.error, RuntimeError)
    explorer.buttons["Reset"].click()
    explorer.finish()
    assert explorer.error is None
    assert "RuntimeError" not in explorer.status


def test_sliders_have_exact_stops_and_take_more():
    assert slider("s", 0.3, 0, 1, 0.1).stops == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    beta = log_slider("β", 1.0, -1, 1)
    assert {0.1, 0.5, 1.0, 2.0, 5.0, 10.0} <= set(beta.stops)
    beta.include(0.123)
    assert beta.value == 0.123
    assert beta.stops == sorted(beta.stops)
    count = len(beta.stops)
    beta.include(0.456)
    assert len(beta.stops) == count  # own values do not pile up
    assert log_slider("σ", 1.0, -0.43, 1, step=0.1).stops[0] == pytest.approx(10**-0.43)
    assert whole_slider("n", 10, 0, 50, step=25).stops == [0, 10, 25, 50]
    with pytest.raises(Exception, match=r"β must be one of its stops, 0\.1 to 10, got 3\.21; explorer\.set"):
        beta.value = 3.21


def test_equal_pictures_are_sent_once():
    view = View(200, 100, "a line")
    line = view.live(view.figure.subplots().plot([0, 1], [0, 1])[0])
    assert view.redraw()
    sent = view.picture.png
    assert not view.redraw()
    line.set_ydata([1, 0])
    assert view.redraw()
    assert view.picture.png != sent


class Counting(Explorer):
    """Works in three pieces."""

    name, question, prediction, reading, takeaway = "counting", "How far?", "three", "a line", "three it was"

    def make_controls(self):
        return {"": {"by": whole_slider("by", 1, 1, 9)}}

    def make_views(self):
        view = View(200, 100, "a line that goes up")
        self.line = view.live(view.figure.subplots().plot([0, 1], [0, 0])[0])
        return {"line": view}

    def compute(self, state):
        for count in (1, 2, 3):
            if state.by == 9 and count == 2:
                raise RuntimeError("broken on the way")
            yield count * state.by

    def show(self, result, former):
        self.line.set_ydata([0, result])
        return {"sum": result}

    def code(self, state):
        return ""

    def frame(self):
        return pd.DataFrame({"sum": [self.result]})


def test_longer_work_shows_its_first_result_at_once_and_gives_way_to_the_next_move():
    async def drag():
        counting = Counting()
        assert counting.numbers == {"sum": 1}
        counting.controls["by"].value = 5
        assert counting.numbers == {"sum": 5}
        seen = []
        while counting._work is not None:
            await asyncio.sleep(0)
            seen.append(counting.numbers["sum"])
        assert seen[-1] == 15
        assert set(seen) <= {5, 10, 15}  # nothing of the former work
        counting.controls["by"].value = 9
        await counting._task
        assert "broken on the way" in counting.status
        counting.reset()
        counting.finish()
        assert counting.numbers == {"sum": 3}

    asyncio.run(drag())


def test_a_live_redraw_has_the_pixels_of_a_full_one():
    counting = Counting()
    (view,) = counting.views.values()
    for by in (2, 5):
        counting.set(by=by)
        live = view.pixels.copy()
        view.restyle()
        view.redraw()
        np.testing.assert_array_equal(view.pixels, live)


def test_without_an_event_loop_the_work_is_done_at_once():
    assert Counting().numbers == {"sum": 3}


@pytest.mark.parametrize(
    ("runs", "moves", "others"),
    [
        (5, 10, []),
        pytest.param(10, 100, OLD.values(), marks=pytest.mark.slow),
        pytest.param(200, 2000, OLD.values(), marks=pytest.mark.long),
    ],
    ids=["few", "some", "many"],
)
def test_runs_of_a_cell_and_moves_leak_nothing(monkeypatch, runs, moves, others):
    runs_of_the_cell = itertools.count()
    monkeypatch.setattr(module, "_cell", lambda: ("the one cell", str(next(runs_of_the_cell))))

    def count():
        gc.collect()
        figures = sum(type(one) is Figure for one in gc.get_objects())
        return figures, len(_instances)

    for kind, times in [(Counting, runs), *((kind, 1 + runs // 100) for kind in others)]:
        kind()
        before = count()
        for _ in range(times):
            kind()
        assert count() == before, kind.name
    moved = Counting()
    before = count()
    observers = {key: len(control._trait_notifiers["value"]["change"]) for key, control in moved.controls.items()}
    artists = {name: len(view.figure.findobj()) for name, view in moved.views.items()}
    for move in range(moves):
        moved.controls["by"].value = 1 + move % 8
    assert moved.error is None
    assert count() == before
    assert observers == {key: len(one._trait_notifiers["value"]["change"]) for key, one in moved.controls.items()}
    assert artists == {name: len(view.figure.findobj()) for name, view in moved.views.items()}


def test_two_explorers_of_one_cell_live_side_by_side_until_it_is_run_again(monkeypatch):
    run = "first"
    monkeypatch.setattr(module, "_cell", lambda: ("a cell", run))
    one, other = Counting(), Counting()
    assert one.comm is not None
    run = "second"
    again = Counting()
    assert one.comm is other.comm is None
    assert again.comm is not None


def test_a_start_that_is_refused_leaves_no_widget_behind():
    before = len(_instances)
    with pytest.raises(ValueError, match="by must be"):
        Counting(by=-1)
    assert len(_instances) == before


@pytest.mark.slow
def test_an_explorer_brings_only_what_it_needs():
    code = "import sys; from gradlab.widgets import GridExplorer; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["scipy.stats", "gradlab.experiments", "gradlab.widgets.claims_explorer"]
    ran = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_explorer_has_a_file_and_is_listed():
    files = {
        path.stem
        for path in Path(module.__file__).parent.glob("*.py")
        if re.search(r"Explorer\((Drawn|Comparing)?Explorer\)", path.read_text()) and path.stem.endswith("_explorer")
    }
    assert {kind.__module__.rpartition(".")[2] for kind in EXPLORERS.values()} == files
    assert {kind.__name__ for kind in EXPLORERS.values()} < set(widgets_package.__all__) == set(dir(widgets_package))
    with pytest.raises(AttributeError, match="NoExplorer"):
        widgets_package.NoExplorer  # noqa: B018
