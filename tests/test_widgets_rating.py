"""Ratings: the arithmetic against numbers worked out by hand, the file on disk, and the explorer that is blind."""

import json
import math
import random
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest

from gradlab.stats.agreement import agreement, preference_rates, wilson_interval
from gradlab.store.ratings import (
    CHOICES,
    AnswerFile,
    append_answer,
    read_answers,
    read_comparison,
    shuffled,
    sides,
)
from gradlab.widgets.rating_explorer import ANSWERS, SAMPLES, RatingExplorer
from scripts import record_sample_ratings

SECRET = ("zebra-7b", "yak-dpo")  # names that no text and no widget contains by chance


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def samples(tmp_path):
    """Eight prompts, two systems; a third has answered one."""
    path = tmp_path / "mine.jsonl"
    texts = [{SECRET[0]: f"one {k}", SECRET[1]: f"two <b>{k}</b>\n  &"} for k in range(8)]
    rows = [{"prompt": f"p{k}", "samples": samples} for k, samples in enumerate(texts)]
    rows[0]["samples"]["third"] = "three"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rate(path, comparison, rater, choices):
    """Answers that prefer A, B, tie or skip, in the comparison's order."""
    for item, choice in zip(comparison.items, choices, strict=False):
        left, right = (comparison.systems[side] for side in sides(comparison, item, rater))
        wanted = {"A": comparison.systems[0], "B": comparison.systems[1]}.get(choice)
        append_answer(path, rater, item.key, left, right, "left" if wanted == left else "right" if wanted else choice)


def test_rates_by_hand(samples, tmp_path):
    comparison, path = read_comparison(samples), tmp_path / "a.jsonl"
    rate(path, comparison, "ann", ["B", "B", "B", "A", "tie", "skip"])
    rate(path, comparison, "bob", ["B", "A", "tie", "A"])
    rates = preference_rates(read_answers(path, comparison)).set_index("rater")
    assert rates.loc["ann", ["items", "a", "b", "tie", "skip"]].tolist() == [5, 1, 3, 1, 1]
    assert rates.loc["ann", "rate"] == pytest.approx(3.5 / 5)
    assert rates.loc["bob", "rate"] == pytest.approx(1.5 / 4)
    # by items: (1 + 1)/2, (1 + 0)/2, (1 + ½)/2, 0, ½ of ann alone; the skip is no answer
    assert rates.loc["all raters", "rate"] == pytest.approx((1 + 0.5 + 0.75 + 0 + 0.5) / 5)
    assert rates.loc["all raters", "items"] == 5
    assert rates.loc["bob", ["low", "high"]].tolist() == pytest.approx(list(wilson_interval(1.5 / 4, 4)))


def test_agreement_by_hand(samples, tmp_path):
    comparison, path = read_comparison(samples), tmp_path / "a.jsonl"
    rate(path, comparison, "ann", ["A", "B", "A", "tie", "A", "B"])
    rate(path, comparison, "bob", ["A", "B", "B", "tie", "skip"])
    rate(path, comparison, "cat", ["A"])
    agreed = agreement(read_answers(path, comparison))
    assert agreed.items == 4
    assert agreed.raw == (3 + 1 + 0 + 1) / 6  # pairs of answers: three to the first item, one to each other
    # 9 answers: A 4, B 3, tie 2; unequal coincidences 2 (the third item), by chance (81 − 16 − 9 − 4)/(9·8)
    assert agreed.alpha == pytest.approx(1 - (2 / 9) / (52 / 72))
    alone = agreement(read_answers(path, comparison).query("rater == 'ann'"))
    assert alone.items == 0
    assert math.isnan(alone.raw)
    assert math.isnan(alone.alpha)


def test_order_and_sides_depend_on_seed_rater_and_item_alone(samples):
    comparison = read_comparison(samples)
    swapped = read_comparison(samples, a=SECRET[1], b=SECRET[0])
    assert {item.key for item in comparison.items} == {item.key for item in swapped.items}
    on_left = {"ann": [], "bob": []}
    for rater, found in on_left.items():
        order = [item.key for item in shuffled(comparison, rater, 3)]
        assert order == [item.key for item in shuffled(swapped, rater, 3)]
        for one, other in zip(comparison.items, swapped.items, strict=True):
            left = comparison.systems[sides(comparison, one, rater, 3)[0]]
            assert left == swapped.systems[sides(swapped, other, rater, 3)[0]]
            found.append(left)
    assert len(set(on_left["ann"])) == 2
    assert on_left["ann"] != on_left["bob"]
    assert shuffled(comparison, "ann", 3) != shuffled(comparison, "ann", 4)


def test_sides_are_fair_coins():
    comparison = read_comparison(SAMPLES["sample"])
    left = [sides(comparison, item, f"r{k}", k)[0] for k in range(40) for item in comparison.items]
    assert binomtest(sum(left), len(left)).pvalue > 0.001


def test_answers_that_come_one_by_one_stand_as_if_the_file_were_read_whole(samples, tmp_path):
    comparison, path, draw = read_comparison(samples), tmp_path / "a.jsonl", random.Random(3)
    growing = AnswerFile(path, comparison)
    for _ in range(120):
        rater, item = draw.choice(["ann", "bob"]), draw.choice(comparison.items)
        append_answer(path, rater, item.key, *draw.sample(comparison.systems, 2), draw.choice([*CHOICES, "undo"]))
        if draw.random() < 0.1:  # somebody edits the file
            path.write_text("".join(path.read_text().splitlines(keepends=True)[3:]))
        growing.update()
        whole = read_answers(path, comparison)
        pd.testing.assert_frame_equal(growing.frame(), whole)
        assert growing.numbers() == whole["rater"].value_counts().to_dict()
        assert list(growing.of("ann")) == list(whole.loc[whole["rater"] == "ann", "item"])


def test_an_answer_that_another_page_gave_is_seen_at_the_next_one(samples):
    first, second = (RatingExplorer(samples=samples, rater=rater) for rater in ("ann", "bob"))
    first.answer("left")
    second.answer("left")
    assert first.result.numbers == {"ann": 1}
    first.answer("left")
    assert first.result.numbers == {"ann": 2, "bob": 1}


def test_a_torn_answer_is_not_written_and_the_next_one_is(samples, tmp_path):
    comparison, path = read_comparison(samples), tmp_path / "a.jsonl"
    rate(path, comparison, "ann", ["A", "B"])
    path.write_bytes(path.read_bytes()[:-9])
    assert len(read_answers(path, comparison)) == 1
    rate(path, comparison, "bob", ["A"])
    assert read_answers(path, comparison)["rater"].tolist() == ["ann", "bob"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "p"}\n', "line 1: samples must give a text for each system"),
        ('{"prompt": 1, "samples": {}}\n', "line 1: prompt must be a text, got 1"),
        ('{"prompt": "p", "samples": {"a": 1, "b": "x"}}\n', "line 1: samples must give a text"),
        ('{"prompt": "p", "samples": {"a": "x"}}\n', "names 1 systems, two are needed"),
        (
            '{"prompt": "p", "samples": {"a": "x"}}\n{"prompt": "p", "samples": {"b": "x"}}\n',
            "has no prompt with",
        ),
        ('{"prompt": "p", "samples": {"a": "x", "b": "y"}}\n' * 2, "line 2, repeats a prompt"),
        ('{"prompt": "p", "samples": {"a": "x", "b": "y"}}\n{"pro', "ends within a line"),
        ("prompt, a, b\n\n", "line 1, is no JSON object; a file of samples has"),
        ("", "names 0 systems"),
    ],
)
def test_a_bad_file_of_samples_is_named(tmp_path, content, said):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_comparison(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)
    assert str(path) in RatingExplorer(samples=path).status


def test_bad_answers_and_systems_are_named(samples, tmp_path):
    comparison, path = read_comparison(samples), tmp_path / "a.jsonl"
    with pytest.raises(ValueError, match="choice must be one of left, right, tie, skip, undo; got 'up'"):
        append_answer(path, "ann", "k", "a", "b", "up")
    assert not path.exists()
    path.write_text('{"rater": "ann", "item": 3}\n')
    with pytest.raises(ValueError, match="line 1: item must be a text, got 3"):
        read_answers(path, comparison)
    line = {"rater": "ann", "item": comparison.items[0].key, "left": "x", "right": "y", "choice": "left"}
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="line 1: left and right must be zebra-7b and yak-dpo"):
        read_answers(path, comparison)
    with pytest.raises(ValueError, match="system B must be one of zebra-7b, yak-dpo, third; got 'ape'"):
        read_comparison(samples, b="ape")
    with pytest.raises(ValueError, match="must differ, got 'third' twice"):
        read_comparison(samples, "third", "third")
    with pytest.raises(FileNotFoundError, match="is no file; a file of samples has"):
        read_comparison(tmp_path / "none")
    assert read_comparison(samples, "third").left_out == 7
    rows = [{"prompt": f"{i}", "samples": {"one": "a", "other": None if i else "b"}} for i in range(3)]
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_comparison(samples).left_out == 2


def press(explorer, act):
    """What the browser sends for a key or a button."""
    explorer._keys._receive(None, {"act": act, "token": explorer._keys.token}, [])


def test_a_whole_rating_blind_resumed_undone_and_revealed(samples):
    answers = samples.with_suffix(".ratings.jsonl")
    explorer = RatingExplorer(samples=samples, rater="ann")
    assert not answers.exists()
    seen = []
    for act in ("left", "right", "tie", "skip", "left"):
        seen.append(explorer.result.item.key)
        before = explorer._pane.value
        press(explorer, act)
        assert explorer._pane.value != before
    assert len(answers.read_text().splitlines()) == 5
    explorer.close()

    explorer = RatingExplorer(samples=samples, rater="ann")  # resumes
    assert explorer.numbers["answered"] == "5 of 8"
    assert explorer.result.item.key not in seen
    press(explorer, "undo")
    assert explorer.result.item.key == seen[-1]
    assert explorer.numbers["answered"] == "4 of 8"
    assert len(answers.read_text().splitlines()) == 6  # nothing is ever taken out of the file
    for act in ("right", "left", "left", "left"):
        press(explorer, act)
    assert "ann has answered all 8 items" in explorer._pane.value
    press(explorer, "left")
    assert explorer.status == "ann has answered all 8 items"
    explorer.set(reveal=True)
    assert {"B over A", "from", "to"} <= set(explorer.numbers)
    press(explorer, "undo")
    assert "no answers are taken while names and rates are shown" in explorer.status
    explorer.set(reveal=False, rater="bob")
    assert explorer.numbers["answered"] == "0 of 8"
    press(explorer, "undo")
    assert explorer.status == "bob has no answer to take back"
    press(explorer, "tie")
    assert explorer.numbers["answered"] == "1 of 8"

    comparison = read_comparison(samples)
    stand = read_answers(answers, comparison)
    rows = preference_rates(stand).set_index("rater")
    explorer.set(reveal=True)
    assert explorer.numbers["B over A"] == rows.loc["all raters", "rate"]
    by_hand = stand.query("rater == 'ann' and choice in ('left', 'right')")
    won = (by_hand["left"].where(by_hand["choice"] == "left", by_hand["right"]) == SECRET[1]).sum()
    assert rows.loc["ann", "b"] == won


def test_nothing_says_which_is_which_before_the_reveal(samples):
    explorer = RatingExplorer(samples=samples, rater="ann")
    press(explorer, "left")
    assert not told(explorer)
    explorer.set(reveal=True)
    assert SECRET[0] in explorer.frame().to_csv()
    assert told(explorer)


def told(explorer):
    """Whether anything that the page gets names a system, or a position after the answers is drawn."""
    sent = [json.dumps(widget.get_state(), default=lambda one: bytes(one).hex()) for widget in explorer.children]
    files = [explorer._answer({"want": kind})[1][0].decode() for kind in ("csv", "python")]
    texts = [chart.title + repr(chart) for chart in explorer.charts(explorer.result, explorer.pinned)]
    return any(name in part for name in SECRET for part in [*sent, *files, *texts])


def test_nothing_that_was_revealed_comes_back_when_answers_are_taken_again(samples):
    explorer = RatingExplorer(samples=samples, rater="ann")
    press(explorer, "left")
    explorer.set(reveal=True)
    explorer.front.pinned = True  # the reader keeps the rates to compare with
    explorer.reveal.value = False
    assert explorer.pinned.revealed
    assert not told(explorer)
    before = explorer.front.shown
    explorer.front.pinned = False
    assert explorer.front.shown["charts"] == before["charts"]


def test_undo_of_settings_and_links_leave_answers_alone(samples):
    explorer = RatingExplorer(samples=samples, rater="ann")
    before = explorer.state
    explorer.rater.value = "bob"
    press(explorer, "left")
    assert explorer.state == {**before, "rater": "bob"}  # an answer is no setting
    lines = samples.with_suffix(".ratings.jsonl").read_bytes()
    explorer.front.state = before  # as the page does for undo
    assert explorer.numbers["answered"] == "0 of 8"
    explorer.front.state = {**before, "rater": "bob"}  # and for redo
    assert explorer.numbers["answered"] == "1 of 8"
    explorer.load(explorer.link())
    assert samples.with_suffix(".ratings.jsonl").read_bytes() == lines


def test_the_chart_shows_how_far_each_is_and_then_the_rates(samples):
    explorer = RatingExplorer(samples=samples, rater="bob")
    comparison = read_comparison(samples)
    rate(samples.with_suffix(".ratings.jsonl"), comparison, "ann", ["A", "B", "tie"])
    press(explorer, "tie")
    (chart,) = explorer.charts(explorer.result, None)
    assert chart.title == "answered so far"
    assert [label.text for label in chart.labels] == ["bob", "ann"]  # the present one first
    assert chart.curves[1].x.tolist() == [1 / 8, 3 / 8]
    explorer.set(reveal=True)
    (chart,) = explorer.charts(explorer.result, None)
    assert chart.title == "how often B (yak-dpo) is preferred to A (zebra-7b)"
    assert [label.text for label in chart.labels] == ["bob", "ann", "all raters"]
    rates = preference_rates(read_answers(samples.with_suffix(".ratings.jsonl"), comparison)).set_index("rater")
    intervals, raters, every = chart.curves
    for row, name in enumerate(["bob", "ann", "all raters"]):
        assert intervals.x[3 * row : 3 * row + 2].tolist() == rates.loc[name, ["low", "high"]].tolist()
    assert [*raters.x, *every.x] == rates.loc[["bob", "ann", "all raters"], "rate"].tolist()


def test_texts_are_shown_as_they_are(samples):
    explorer = RatingExplorer(samples=samples, rater="ann")
    assert "<b>" not in explorer._pane.value.split("</p>")[1]
    assert "&lt;b&gt;" in explorer._pane.value
    assert "\n  &amp;" in explorer._pane.value
    explorer.set(rater="<img src=x onerror=alert(1)>")
    for _ in range(8):
        press(explorer, "skip")
    assert "<img" not in explorer._pane.value


def test_a_key_for_what_is_no_longer_shown_does_nothing(samples):
    explorer = RatingExplorer(samples=samples, rater="ann")
    stale = {"act": "left", "token": explorer._keys.token}
    for _ in range(3):  # a key that bounces
        explorer._keys._receive(None, stale, [])
    assert explorer.numbers["answered"] == "1 of 8"


def test_by_default_answers_go_to_the_current_folder_and_only_when_there_are_any(tmp_path):
    explorer = RatingExplorer()
    explorer.set(seed="4", rater="ann")
    assert list(tmp_path.iterdir()) == []
    explorer.answer("left")
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["ratings.jsonl"]
    given = RatingExplorer(answers=tmp_path / "sub.jsonl", rater="bob")
    given.answer("tie")
    assert (tmp_path / "sub.jsonl").exists()
    given.set(answers="sample:rules")
    before = ANSWERS["sample:rules"].read_bytes()
    with pytest.raises(ValueError, match="can only be viewed"):
        given.answer("tie")
    assert ANSWERS["sample:rules"].read_bytes() == before


def test_the_rules_made_the_sample_again(tmp_path):
    record_sample_ratings.record(tmp_path)
    assert (tmp_path / "rules.ratings.jsonl").read_bytes() == ANSWERS["sample:rules"].read_bytes()


def test_stories_are_true():
    explorer = RatingExplorer()
    explorer.tell("Three rules rate")
    rates = explorer.result.revealed[0].set_index("rater")
    assert explorer.result.comparison.systems == ("terse", "wordy")
    assert rates.loc["rule: shorter", ["a", "b", "tie"]].tolist() == [12, 0, 0]
    assert rates.loc["rule: shorter", "high"] < 0.5
    assert rates.loc["rule: left", "low"] < 0.5 < rates.loc["rule: left", "high"]
    width = (rates["high"] - rates["low"]).max()
    assert 0.4 < width < 0.55  # the takeaway: one half
    explorer.tell("Do they agree?")
    agreed = explorer.result.revealed[1]
    assert round(agreed.raw, 2) == 0.42
    assert -0.2 < agreed.alpha < 0
    number, counts = 36, rates.loc["all raters", ["a", "b", "tie"]]
    assert counts["a"] == 2 / 3 * number
    assert round(float((counts * (counts - 1)).sum()) / (number * (number - 1)), 2) == 0.49
    explorer.tell("The other way round")
    mirrored = explorer.result.revealed[0].set_index("rater")
    pd.testing.assert_series_equal(mirrored["rate"], 1 - rates["rate"])
    pd.testing.assert_series_equal(mirrored["low"], 1 - rates["high"], check_names=False)
    assert explorer.result.revealed[1].alpha == pytest.approx(agreed.alpha)
    explorer.tell("Still blind")
    assert set(explorer.numbers) == {"rater", "answered"}
    assert "rule: left has answered all 12 items" in explorer._pane.value


@pytest.mark.parametrize("story", [None, *(story.title for story in RatingExplorer.stories)])
def test_the_code_gives_the_numbers_shown(story, capsys):
    explorer = RatingExplorer()
    if story:
        explorer.tell(story)
    made = {}
    exec(explorer.as_python(), made)
    assert len(made["comparison"].items) == 12
    assert ("rates" in made) == ("B over A" in explorer.numbers)
    if "rates" in made:
        assert made["rates"]["rate"].iloc[-1] == explorer.numbers["B over A"]
        assert made["agreed"].alpha == explorer.numbers["α"]


def test_an_answer_holds_for_what_was_on_the_page_or_not_at_all(samples):
    one, other = (RatingExplorer(samples=samples, rater="x") for _ in range(2))
    one.answer("left")
    other._keys._receive(None, {"act": "left", "token": other._keys.token}, [])
    assert "the files have changed meanwhile" in other.status
    assert other.result.done == 1  # it shows the next item now, and takes an answer to that
    other._keys._receive(None, {"act": "left", "token": other._keys.token}, [])
    assert other.result.done == 2


def test_names_are_texts_whatever_they_look_like(samples):
    for rater in ("$x_$", "a$^$b", "<b>bold</b>"):
        explorer = RatingExplorer(samples=samples, rater=rater)
        explorer.answer("left")
        explorer.set(reveal=True)
        assert explorer.error is None, explorer.status
        assert explorer.png()


def test_nobody_is_called_as_all_of_them_are(samples):
    explorer = RatingExplorer(samples=samples, rater="all raters")
    explorer.reset()
    with pytest.raises(ValueError, match="rater must be another name than 'all raters'"):
        append_answer("x.jsonl", "all raters", "k", "a", "b", "left")
    explorer.close()


def test_the_shipped_answers_are_only_looked_at_by_whatever_path():
    (shipped,) = ANSWERS.values()
    content = shipped.read_bytes()
    here = Path.cwd()
    way_round = Path(*[".."] * (len(here.parts) - 1), *shipped.resolve().parts[1:])
    explorer = RatingExplorer(answers=way_round)
    with pytest.raises(ValueError, match="can only be viewed"):
        explorer.answer("left")
    assert shipped.read_bytes() == content
