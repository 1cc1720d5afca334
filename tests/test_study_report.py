"""The report of a study: a page that needs nothing else, tables, numbers and sentences that say what they rest on."""

import json
import re
from html import escape

import pandas as pd
import pytest
import small_study

from gradlab.study.answers import answers_of, read_answers
from gradlab.study.assignment import assign
from gradlab.study.frozen import freeze
from gradlab.study.methods import BEYOND, cautions, methods, verdict_in_words
from gradlab.study.pictures import figure_of, power_charts
from gradlab.study.plan import Design, Goal, Primary
from gradlab.study.planned_power import power
from gradlab.study.raters import RaterModel, simulated
from gradlab.study.report_page import PAGE, report
from gradlab.study.results import Results


def _report(study, folder, worth=None, **model):
    lines = simulated(study, worth or {"dpo": 0.0, "bdpo": 1.0}, RaterModel(**model))
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return report(study, [folder / "answers.jsonl"])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"), 90, title="<b>which</b> is preferred")


def test_the_page_holds_everything_and_loads_nothing(study, tmp_path):
    page = _report(study, tmp_path).page()
    assert "&lt;b&gt;which&lt;/b&gt;" in page
    assert "<b>which</b>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "default-src 'none'" in page
    assert study.hash[:16] in page


def test_the_folder_has_tables_that_say_what_the_page_says(study, tmp_path):
    made = _report(study, tmp_path)
    page = made.write(tmp_path / "report")
    assert page.name == PAGE
    rates = pd.read_csv(tmp_path / "report/rates.csv")
    assert rates["rate"].iloc[0] == pytest.approx(made.results.verdict.rate.rate)
    assert len(pd.read_csv(tmp_path / "report/answers.csv")) == len(made.results.answers.frame)
    numbers = json.loads((tmp_path / "report/report.json").read_text())
    assert numbers["verdict"]["word"] == made.results.verdict.word
    made.write(tmp_path / "report")  # a former report gives way
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds something else"):
        made.write(tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"


@pytest.mark.parametrize("name", ["ada.answers.jsonl", "files.json", "methods.txt"])
def test_a_report_with_a_file_that_is_not_as_it_was_written_stays(study, tmp_path, name):
    made = _report(study, tmp_path)
    page = made.write(tmp_path / "report")
    (page.parent / name).write_text("somebody's\n")
    with pytest.raises(FileExistsError, match="a former report as it was written, or not there; it holds something"):
        made.write(page.parent)
    assert (page.parent / name).read_text() == "somebody's\n"
    assert page.is_file()


def test_a_page_of_another_program_is_no_former_report(study, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / PAGE).write_text("<p>of another program</p>")
    with pytest.raises(FileExistsError, match=f"holds something else: {PAGE}"):
        _report(study, tmp_path).write(tmp_path / "other")
    assert (tmp_path / "other" / PAGE).read_text() == "<p>of another program</p>"


def test_methods_name_the_design_the_hash_and_who_was_left_out(study, tmp_path):
    said = methods(_report(study, tmp_path).results)
    for words in (
        "3 raters",
        "90 prompts",
        study.hash[:16],
        "60 items",
        "2 raters",
        "15 items per rater were to come back with sides exchanged; 45 of 45",
        "5.0%",
        "No rater was left out",
    ):
        assert words in said
    assert "..  " not in said


def test_methods_say_what_was_seen_and_not_what_was_planned(tmp_path):
    """With one rater per item none is seen in both orders; who never came has seen nothing."""
    alone = Design(items_per_rater=8, raters_per_item=1, repeats=0.25, attention=2, identical="tie")
    small_study.write_samples(tmp_path, 30, text=lambda system, place: "the same" if place < 5 else None)
    study = freeze(small_study.plan(design=alone), tmp_path)
    same = len(study.items) - len(study.shown)
    some = [
        line for line in small_study.answers_of(study)
        if line["rater"] == "ada" or (line["rater"] == "ben" and line["place"] < 4)
    ]  # fmt: skip
    said = methods(Results(answers_of(study, [("answers", line) for line in some])))
    ben = sum(task.kind == "item" for task in assign(study)["ben"][:4])
    checks = 2 + sum(task.kind == "attention" for task in assign(study)["ben"][:4])
    for words in (
        f"2 of 3 raters compared responses of dpo and bdpo to {8 + ben} prompts",
        f"Identical texts, of {same} items, count as ties and were shown to nobody.",
        "Each rater was assigned 8 items, each item to 1 rater; sides were drawn per rater and item.",
        f"Those who answered saw {ben} to 8 items each; each item was seen by 0 to 1 rater, 0% of the items in both",
        "2 items per rater were to come back with sides exchanged; 2 of 6 were answered.",
        f"2 attention checks per rater were to stand among them; {checks} of 6 were answered.",
    ):
        assert words in said
    nobody = methods(Results(answers_of(study, [])))
    assert "0 of 3 raters compared responses of dpo and bdpo to 0 prompts" in nobody
    assert "saw" not in nobody


def test_methods_count_the_items_that_were_seen_in_both_orders(tmp_path):
    every = Design(items_per_rater=8, raters_per_item=2, both_orders=1)
    study = small_study.study(tmp_path, 12, design=every)
    lines = [("answers", line) for line in small_study.answers_of(study)]
    said = methods(Results(answers_of(study, lines)))
    assert "sides were drawn per rater and item, balanced over the raters of 100% of the items." in said
    assert "each item was seen by 2 raters, 100% of the items in both orders" in said


def test_the_page_opens_with_the_question_says_what_its_numbers_are_and_labels_what_is_not_planned(study, tmp_path):
    made = _report(study, tmp_path)
    page = made.page()
    opening = page[: page.index("<img")]
    for words in ("Which response helps more?", "the win-rate of bdpo over dpo", "95% interval", "margin is 5.0%"):
        assert words in opening
    assert "180 of 180 answers to items were given, 0 of them skips" in page
    assert list(made.tables["terms"]["choice"]) == ["as it is", "at equal length", "left over right"]
    assert made.tables["terms"]["rate"].iloc[2] == made.results.left.rate
    assert page.index("Under other choices") < page.index("exploratory: not in the plan")
    assert "for these raters alone" in page


def test_a_look_before_the_end_is_called_one(study, tmp_path):
    lines = [line for line in simulated(study, {"dpo": 0.0, "bdpo": 1.0}) if line["rater"] != "cleo"]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    some = report(study, [tmp_path / "some.jsonl"]).results
    assert cautions(some)[0].startswith("The study has not ended by the plan's rule (60 tasks are open)")
    assert "2 of 3 raters" in methods(some)
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if line["rater"] == "ada"))
    assert "One rater says nothing about others" in " ".join(cautions(report(study, [tmp_path / "one.jsonl"]).results))
    assert "2 raters say little about others" in " ".join(cautions(some))
    assert "120 of 180 answers to items were given" in methods(some)
    assert not any("ended" in said for said in cautions(_report(study, tmp_path).results))


def test_a_leaning_is_said_and_a_sign_that_length_turns_too(study, tmp_path):
    leaning = " ".join(cautions(_report(study, tmp_path, position=3.0, raters=0.0).results))
    assert "lean to the left side" in leaning

    def text(system, place):
        return f"{system[0]} {place}" + " more" * (place % 9 + (4 if system == "bdpo" else 0))

    small_study.write_samples(tmp_path, 240, text=text)
    lengths = freeze(small_study.plan(240), tmp_path)
    worth = {"dpo": 0.0, "bdpo": -0.8}  # what bdpo says is worse, and it says it longer
    turned = _report(lengths, tmp_path, worth=worth, length=3.0, raters=0.0, prompts=0.3)
    assert turned.results.verdict.rate.rate > 0.5
    said = " ".join(cautions(turned.results))
    assert "lean to longer responses" in said
    assert "At equal length the preference points the other way" in said
    assert BEYOND in said, "bdpo's response was longer everywhere"
    assert escape(BEYOND) in turned.page()
    assert re.search(r"would be preferred in [\d.]+% \[[\d.]+%, [\d.]+%\] of the comparisons", turned.page())


def test_a_rate_at_equal_length_within_the_lengths_that_were_rated_goes_not_beyond_them(tmp_path):
    small_study.write_samples(
        tmp_path, 60, text=lambda system, place: f"{system[0]} {place}" + " more" * ((place + (system == "bdpo")) % 2)
    )
    made = _report(freeze(small_study.plan(60), tmp_path), tmp_path)
    assert not made.results.equal_length.beyond
    assert escape(BEYOND) not in made.page()


def test_without_answers_the_page_says_so(study, tmp_path):
    (tmp_path / "answers.jsonl").write_text("")
    made = report(study, [tmp_path / "answers.jsonl"])
    assert verdict_in_words(made.results) == "Nobody has answered the primary question yet."
    assert "<img" not in made.page()
    assert json.loads(made.json())["verdict"]["rate"]["rate"] is None


def test_three_systems_have_their_strengths_on_the_page(tmp_path):
    small_study.write_samples(tmp_path, 40, systems=("sft", "dpo", "bdpo"))
    study = freeze(small_study.plan(
        40, systems=dict.fromkeys(("sft", "dpo", "bdpo"), "samples.jsonl"),
        goals=(small_study.QUESTION, Goal(name="harmless", question="Which does less harm?")),
        primary=Primary(a="dpo", b="bdpo", goal="harmless", margin=0.1),
        design=Design(items_per_rater=60, raters_per_item=2),
    ), tmp_path)  # fmt: skip
    made = _report(study, tmp_path, worth={"sft": -1.0, "dpo": 0.0, "bdpo": 1.0})
    assert "Strengths of all systems, harmless" in made.page()
    assert {"strengths-helpful", "strengths-harmless"} <= set(made.tables)


def test_a_report_takes_the_files_of_study_and_answers_too(study, tmp_path):
    whole = _report(study, tmp_path)
    study.write(tmp_path / "study.json")
    assert report(tmp_path / "study.json", tmp_path / "answers.jsonl").json() == whole.json()
    with pytest.raises(ValueError, match="study must be a study or a path, got 3"):
        report(3, [])  # type: ignore[arg-type]


def test_another_studys_answers_are_refused(study, tmp_path):
    other = small_study.study(tmp_path, 30)
    (tmp_path / "answers.jsonl").write_text("")
    with pytest.raises(ValueError, match="answers must be those of study"):
        report(study, read_answers(other, [tmp_path / "answers.jsonl"]))


def test_power_and_precision_are_drawn_with_a_curve_per_design():
    table = power(small_study.plan(), effects=(0.0, 0.2), items=(8, 16), simulations=20)
    found, precise = power_charts(table, 0.9, 0.1)
    assert [curve.name for curve in found.curves] == ["3 raters, 8 items each", "3 raters, 16 items each"]
    assert [rule.y for rule in (*found.rules, *precise.rules)] == [0.9, 0.1]
    [curve] = precise.curves
    assert list(curve.x) == [8, 16]
    assert list(curve.y) == list(table.frame.groupby("items_per_rater")["half_width"].max())
    assert (curve.low < curve.y).all()
    many = power(small_study.plan(), effects=(0.0,), items=range(2, 15), simulations=2)
    with pytest.raises(ValueError, match="designs must be at most 12"):
        power_charts(many)


def test_rows_of_rates_have_names_and_no_numbers_beside_them(study, tmp_path):
    figure = figure_of(_report(study, tmp_path).results)
    for axes in figure.axes:
        assert not [tick for tick in axes.get_yticklabels() if tick.get_text()]
        assert [tick for tick in axes.get_xticklabels() if tick.get_text()]
