"""The explorer of training logs: what it shows is what the file says, and its stories are true of the samples."""

import json

import numpy as np
import pandas as pd
import pytest

from gradlab.doctor.training_log import append_step, read_log, start_log
from gradlab.widgets.training_log_explorer import POINTS, SAMPLES, TrainingLogExplorer, thinned


@pytest.fixture(scope="module")
def explorer():
    return TrainingLogExplorer()


@pytest.fixture(autouse=True)
def from_the_start(explorer):
    explorer.reset()


def curve(explorer, column, side="A"):
    assert explorer.error is None
    return explorer.result.logs[side].curves[column][1]


def test_unsmoothed_it_shows_what_was_logged(explorer):
    frame = explorer.frame()
    for side, name in (("A", "dpo"), ("B", "bdpo")):
        log = read_log(SAMPLES[f"sample:{name}"])
        shown = frame[frame["log"] == side].reset_index(drop=True)
        assert shown["step"].tolist() == log["step"].tolist()
        for column in ("loss", "validation_loss", "logp_lose", "win_weight_q90", "slope_win", "grad_norm_lose"):
            np.testing.assert_array_equal(shown[column], log[column])
        assert explorer.numbers[f"loss {side}"] == log["loss"].iloc[-1]
        assert explorer.numbers[f"validation {side}"] == log["validation_loss"].dropna().iloc[-1]
        rare = log.dropna(subset="grad_norm")
        expected = np.log(rare["grad_norm_win"] / rare["grad_norm_lose"])
        np.testing.assert_allclose(shown["log_grad_norm_ratio"].dropna(), expected)


def test_smoothing_and_range_act_on_the_curves(explorer):
    explorer.set(smoothing=0.5, first=25, last=75, log_b="")
    values = read_log(SAMPLES["sample:dpo"])["loss"].to_numpy()
    running, weight, expected = 0.0, 0.0, []
    for value in values:
        running, weight = 0.5 * running + value, 0.5 * weight + 1
        expected.append(running / weight)
    np.testing.assert_allclose(curve(explorer, "loss"), expected[29:90])  # steps 30 to 90 of 120
    assert explorer.numbers["steps"] == "30 to 90"
    assert "loss B" not in explorer.numbers


@pytest.mark.parametrize("story", [None, *(story.title for story in TrainingLogExplorer.stories)])
def test_the_code_gives_the_numbers_shown(explorer, story, capsys):
    if story:
        explorer.tell(story)
    made = {}
    exec(explorer.as_python(), made)
    names = {"loss": "loss", "validation_loss": "validation", "grad_cosine": "cos(g_w, g_l)",
             "validation_accuracy": "its accuracy", "win_weight_length_correlation": "λ~length"}  # fmt: skip
    shown = {f"{names[column]} {side}": value for side, ends in made["ends"].items() for column, value in ends.items()}
    assert shown == pytest.approx({key: value for key, value in explorer.numbers.items() if key != "steps"})


def test_story_both_sides_fall(explorer):
    explorer.tell("Both sides fall")
    win, lose = curve(explorer, "logp_win"), curve(explorer, "logp_lose")
    assert win[-1] < win[0] - 5
    assert lose[-1] - lose[0] < win[-1] - win[0] - 5
    assert curve(explorer, "reward_margin")[-1] > 1
    assert curve(explorer, "loss")[-1] < 0.5 * curve(explorer, "loss")[0]


def test_story_of_length(explorer):
    explorer.tell("λ is a length share")
    assert curve(explorer, "win_weight_q10", "B").min() > 0.29
    assert curve(explorer, "win_weight_q90", "B").max() < 0.8
    assert curve(explorer, "win_weight_length_correlation", "B").max() < -0.9


def test_story_of_the_control(explorer):
    at_equal_beta = {name: curve(explorer, name)[-1] for name in ("logp_win", "logp_lose")}
    explorer.tell("The control: DPO at β/2")
    settings = [read_log(SAMPLES[explorer.state[key]]).attrs["settings"] for key in ("log_a", "log_b")]
    assert settings[0]["beta"] == settings[1]["beta"] / 2
    assert (settings[0]["loss"], settings[1]["loss"]) == ("dpo", "bdpo")
    for name, before in at_equal_beta.items():
        half, balanced = curve(explorer, name), curve(explorer, name, "B")
        assert np.abs(half - balanced).max() < 4
        assert abs(half[-1] - balanced[-1]) < abs(before - balanced[-1])
    for name in ("grad_norm_win", "grad_norm_lose", "grad_norm"):
        half, balanced = curve(explorer, name), curve(explorer, name, "B")
        assert np.abs(np.log(half / balanced)).max() < 0.25


def test_story_of_two_ratios(explorer):
    explorer.tell("Two ratios that disagree")
    assert curve(explorer, "log_prob_ratio")[-1] < -8
    assert np.abs(curve(explorer, "log_grad_norm_ratio")).max() < 0.2
    assert curve(explorer, "grad_cosine")[-1] < -0.8  # the takeaway: they nearly cancel
    explorer.set(log_a="sample:bdpo")
    assert np.abs(curve(explorer, "log_grad_norm_ratio")).max() < 0.2
    assert curve(explorer, "grad_cosine")[-1] < -0.8


def test_story_learned_or_remembered(explorer):
    explorer.tell("Learned, or remembered?")
    for side in ("A", "B"):
        train, held_out = curve(explorer, "loss", side), curve(explorer, "validation_loss", side)
        assert train[0] - train[-1] > 2 * (held_out[0] - held_out[-1]) > 0
        assert held_out[-1] - train[-1] > held_out[0] - train[0] > 0
    settings = read_log(SAMPLES["sample:dpo"]).attrs["settings"]
    assert (settings["pairs"], 120 * settings["batch"] / settings["pairs"]) == (768, 10)


def test_a_log_of_trl_says_what_it_lacks(explorer, tmp_path):
    rows = [{"loss": 0.7 - 0.01 * step, "rewards/margins": 0.01 * step, "logps/chosen": -100.0, "step": step}
            for step in (10, 20, 30)]  # fmt: skip
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows}))
    explorer.set(log_a=str(path), guess="shown")
    assert explorer.error is None
    assert explorer.numbers["loss A"] == pytest.approx(0.4)
    assert "validation A" not in explorer.numbers
    said = "\n".join(label.text for chart in shown(explorer) for label in chart.labels)
    assert "A has no win_weight here" in said
    assert "A has no grad_norm_win here" in said
    assert "A has no logp_lose here" in said
    assert "no loss" not in said
    assert explorer.numbers["steps"] == "1 to 120"  # the longer log's
    assert "loss" in explorer.frame().query("log == 'A'").dropna(axis=1)


def test_a_log_of_which_nothing_can_be_shown_says_so(explorer, tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("Wall time,Step,Value\n1.5,1,0.7\n")
    explorer.set(log_a=str(path), log_b="")
    assert explorer.error is None
    assert "nothing in it can be shown: beside step, it has Wall time, Value" in explorer.status
    explorer.set(log_a="sample:dpo")
    assert "nothing in it" not in explorer.status


def test_html_in_a_log_or_its_name_is_text(explorer, tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    path = tmp_path / f"{bad}.jsonl"
    path.write_text(json.dumps({"step": 1, bad: 1}))
    for values in ({"log_a": str(path)}, {"log_a": f"{bad}.csv"}):
        explorer.set(**values)
        assert bad in explorer.status  # the page puts texts in as texts


def test_a_running_log_is_read_again_and_a_torn_line_is_said(explorer, tmp_path):
    path = tmp_path / "running.jsonl"
    start_log(path, {"loss": "dpo"})
    append_step(path, 1, loss=0.7)
    explorer.set(log_a=str(path), log_b="")
    assert explorer.error is None  # one step only
    append_step(path, 2, loss=0.6)
    explorer.controls["smoothing"].value = 0.02
    assert len(curve(explorer, "loss")) == 2
    with path.open("a") as log:
        log.write('{"step": 3, "lo')
    explorer.controls["smoothing"].value = 0.0
    assert explorer.numbers["loss A"] == 0.6
    assert "line 4 was cut short" in explorer.status


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"log_a": "nowhere.jsonl"},
            "nowhere.jsonl is no file; a training log is",
        ),
        ({"log_a": "sample:ppo"}, "log must be one of sample:bdpo, sample:dpo-half-beta, sample:dpo; got"),
        ({"log_a": "", "log_b": ""}, "log A and log B are empty"),
        ({"first": 60, "last": 40}, "to must be more than from, got 40% and 60%"),
    ],
)
def test_a_fault_is_one_line_in_the_status(explorer, values, said):
    before = explorer.front.shown
    explorer.set(**values)
    assert explorer.status.startswith(said)
    assert len(explorer.status.splitlines()) == 1
    assert explorer.front.shown == {"error": explorer.status, "asked": 0}  # the page keeps its charts
    explorer.reset()
    assert explorer.error is None
    assert explorer.front.shown == before


def test_a_damaged_file_is_named(explorer, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"step": 1, "loss": 0.7}\nnot json\n{"step": 2, "loss": 0.7}\n')
    explorer.set(log_a=str(path))
    assert explorer.status.startswith(f"{path}, line 2, is no JSON object")


def test_every_value_at_the_ends_of_a_long_uneven_log(explorer, tmp_path):
    path = tmp_path / "long.csv"
    steps = np.arange(1, 3000)
    loss = np.where(steps == 700, np.inf, 1 / np.sqrt(steps))
    pd.DataFrame({"step": steps, "loss": loss, "eval_loss": np.where(steps % 500, np.nan, 0.5)}).to_csv(path)
    for smoothing in (0.0, 0.98):
        for first, last in ((0, 5), (95, 100), (0, 100)):
            explorer.set(log_a=str(path), log_b="sample:dpo", smoothing=smoothing, first=first, last=last)
            assert explorer.error is None
            assert shown(explorer)
    assert explorer.png()
    assert "loss is not finite, first at line 701" in explorer.status
    assert len(curve(explorer, "loss")) == len(steps) - 1


@pytest.mark.parametrize("uneven", [False, True])
def test_a_long_curve_is_drawn_with_all_its_spikes(uneven):
    random = np.random.default_rng(0)
    steps = np.cumsum(random.integers(1, 50, 100_000)) if uneven else np.arange(100_000)
    values, parts = random.normal(size=(2, 100_000)), 600
    spikes = random.choice(100_000, 50, replace=False)
    values[0, spikes] = np.where(np.arange(50) % 2, 1e3, -1e3) + np.arange(50)
    values[1, random.random(100_000) < 0.5] = np.nan
    edges = np.linspace(steps[0], steps[-1], parts, endpoint=False)
    bucket = np.searchsorted(edges, steps, side="right") - 1
    for shown, row in zip(thinned(steps, values, parts), values, strict=True):
        assert len(shown) <= 2 * parts + 2
        assert (np.diff(shown) > 0).all()
        there = np.flatnonzero(np.isfinite(row))
        assert (shown[0], shown[-1]) == (there[0], there[-1])
        assert np.isfinite(row[shown]).all()
        for extreme, nothing in ((np.fmin, np.inf), (np.fmax, -np.inf)):
            every, kept = np.full(parts, nothing), np.full(parts, nothing)
            extreme.at(every, bucket[there], row[there])
            extreme.at(kept, bucket[shown], row[shown])
            np.testing.assert_array_equal(kept, every)
    short = thinned(steps[:1_000], values[:, :1_000], parts)
    assert [len(one) for one in short] == np.isfinite(values[:, :1_000]).sum(axis=1).tolist()
    assert [len(one) for one in thinned(steps[:0], values[:, :0], parts)] == [0, 0]


def shown(explorer, pinned=None):
    """The charts of the present result."""
    return explorer.charts(explorer.result, pinned)


def size(message):
    """About how many bytes a message has on its way to the page."""
    if isinstance(message, memoryview):
        return message.nbytes
    if isinstance(message, dict):
        return sum(size(key) + size(value) + 4 for key, value in message.items())
    return sum(size(part) + 2 for part in message) if isinstance(message, list) else len(str(message))


def test_the_message_of_a_long_log_stays_small_and_no_spike_is_lost(explorer, tmp_path):
    path, steps = tmp_path / "long.csv", np.arange(1, 20_001)
    columns = ("loss", "accuracy", "reward_margin", "logp_win", "logp_lose", "win_weight", "win_weight_q10",
               "win_weight_q90", "slope_win", "slope_lose", "grad_norm_win", "grad_norm_lose", "grad_norm")  # fmt: skip
    random = np.random.default_rng(1)
    log = pd.DataFrame({name: random.random(20_000) for name in columns}, index=steps)
    log.loc[7_001, "loss"] = 50.0
    log.to_csv(path, index_label="step")
    explorer.set(log_a=str(path), log_b=str(path), guess="shown")
    explorer.front.pinned = True
    explorer.controls["smoothing"].value = 0.5
    explorer.controls["smoothing"].value = 0.0
    assert explorer.pinned is not None
    assert size(explorer.front.shown) < 200_000
    drawn = [curve for chart in shown(explorer, explorer.pinned) for curve in chart.curves]
    assert sum(curve.x.size for curve in drawn) < 1.3 * POINTS  # bands have four numbers per point
    loss = next(chart for chart in shown(explorer) if "loss" in chart.title)
    assert max(loss.curves[0].y) == 50.0
    assert loss.y.high > 50.0
    explorer.front.pinned = False


def test_charts_say_what_is_smoothed_cut_and_read(explorer):
    explorer.set(smoothing=0.5, first=25, last=75, guess="shown")
    strip, *panels = shown(explorer)
    assert len(panels) == 9
    assert {chart.link for chart in (strip, *panels)} == {"step"}
    assert {chart.x.label for chart in panels} == {"step"}
    assert all(chart.y.label for chart in panels)
    assert {(chart.x.low, chart.x.high) for chart in panels} == {(30, 90)}
    loss = next(curve for curve in panels[0].curves if curve.name == "A")
    np.testing.assert_array_equal(loss.y, curve(explorer, "loss"))
    slope = next(curve for curve in panels[5].curves if curve.name == "B w")
    np.testing.assert_array_equal(slope.y, curve(explorer, "slope_win", "B"))
    assert (slope.y > 0).all()
    weight = next(curve for curve in panels[4].curves if curve.name == "B")
    np.testing.assert_array_equal(weight.low, curve(explorer, "win_weight_q10", "B"))
    pinned = explorer.result
    explorer.set(smoothing=0.0)
    axes = [chart.y for chart in panels]
    assert [chart.y for chart in shown(explorer)[1:]] == axes  # of what was logged
    faint = [curve for chart in shown(explorer, pinned)[1:] for curve in chart.curves if curve.faint]
    assert len(faint) == sum(len(chart.curves) for chart in panels)


def test_a_drag_of_an_end_chooses_the_steps_and_a_finding_shows_its_own(explorer):
    strip = shown(explorer)[0]
    assert [(handle.name, handle.x) for handle in strip.handles] == [("from", 0), ("to", 120)]
    (move,) = strip.handles[0].moves
    assert (move.control, move.axis, (30 - move.origin) * move.factor) == ("first", "x", 25)
    assert len(strip.curves[0].x) == 120
    explorer.set(first=25)
    strip = shown(explorer)[0]
    assert (strip.bands[0].low, strip.bands[0].high) == (30, 120)
    assert len(strip.curves[0].x) == 120  # all steps, whatever is shown
    explorer.set(guess="falls", first=0)
    table = explorer._findings
    assert table.rows[0][:3] == ["A: log-probabilities of both sides falling", "warning", "steps 97 to 120"]
    table.chosen = 0  # as the page does
    assert (explorer.state["first"], explorer.state["last"]) == (78, 100)
    assert table.chosen == 0
    explorer.controls["first"].value = 0
    assert table.chosen == -1  # so that it can be chosen again
    table.chosen = 0
    assert explorer.state["first"] == 78


def test_nothing_tells_before_the_guess(explorer):
    assert explorer.state["guess"] == "none"
    closed = next(chart for chart in shown(explorer) if "log π" in chart.title)
    assert [label.text for label in closed.labels] == ["choose what you expect, above"]
    assert not closed.curves
    assert explorer._findings.layout.display == "none"
    assert explorer.figure()  # a notebook on paper cannot be asked
    explorer.set(guess="rises")
    assert explorer.outcome(explorer.result)[0] == "falls"
    assert "−37.14 to −48.89 nats" in explorer.outcome(explorer.result)[1]
    opened = next(chart for chart in shown(explorer) if "log π" in chart.title)
    assert [curve.name for curve in opened.curves] == ["A w", "A l", "B w", "B l"]
    explorer.set(log_a="")
    assert explorer.outcome(explorer.result)[0] == ""


def test_the_band_is_drawn_around_the_ratio_of_both_gradients(explorer):
    explorer.set(guess="shown")
    chart = next(chart for chart in shown(explorer) if "band" in chart.title)
    log = read_log(SAMPLES["sample:dpo"]).dropna(subset=["grad_cosine"])
    ratio, low, high = (
        next(curve for curve in chart.curves if curve.name == f"A {name}") for name in ("r", "low", "high")
    )
    np.testing.assert_allclose(ratio.y, np.log(log["grad_norm_win"] / log["grad_norm_lose"]))
    np.testing.assert_allclose(low.y, np.log(-log["grad_cosine"]))
    np.testing.assert_allclose(high.y, -low.y, rtol=1e-12)
