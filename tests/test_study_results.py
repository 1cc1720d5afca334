"""The results of a study: the verdict, who is left out, what holds under other choices, and what judges do."""

import dataclasses
import json
import math

import pytest
import small_study

from gradlab.study.answers import answer_line, read_answers
from gradlab.study.assignment import BAD, GOOD, assign
from gradlab.study.exclusions import conduct
from gradlab.study.frozen import freeze
from gradlab.study.methods import verdict_in_words
from gradlab.study.pictures import figure_of
from gradlab.study.plan import Analysis, Design, Exclusions, Goal, Primary
from gradlab.study.raters import RaterModel, simulated
from gradlab.study.rates import win_rate
from gradlab.study.results import Results
from gradlab.study.stopping import interim
from gradlab.study.terms import equal_length


def _read(study, lines, folder):
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_answers(study, [folder / "answers.jsonl"])


def _results(study, folder, worth=1.5, **model):
    return Results(_read(study, simulated(study, {"dpo": 0.0, "bdpo": worth}, RaterModel(**model)), folder))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"), 150, raters=("ada", "ben", "cleo", "dora", "eve"))


def test_a_clear_preference_holds_and_its_reversal_is_reversed(study, tmp_path):
    results = _results(study, tmp_path)
    assert results.verdict.word == "holds on average"  # a single stratum is no "throughout"
    assert verdict_in_words(results).startswith("bdpo is preferred on average (")
    assert _results(study, tmp_path, worth=-1.5).verdict.word == "reversed"


def _with_strata(folder, names, number=240):
    """Return a study whose prompts have these strata in turn."""
    small_study.write_samples(folder, number)
    lines = [{"prompt": f"question {place}", "stratum": names[place % len(names)]} for place in range(number)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return freeze(small_study.plan(number, raters=("ada", "ben", "cleo", "dora"), prompts="prompts.jsonl"), folder)


def _worth(by_stratum):
    return lambda item: by_stratum[item.stratum]


def test_throughout_takes_two_strata_or_more_each_beyond_the_margin(tmp_path):
    study = _with_strata(tmp_path, ("harmless", "helpful"))
    calm = RaterModel(raters=0.0, prompts=0.0)
    lines = simulated(study, _worth({"harmless": 2.0, "helpful": 2.0}), calm)
    assert Results(_read(study, lines, tmp_path)).verdict.word == "holds throughout"
    lines = simulated(study, _worth({"harmless": 2.0, "helpful": 0.0}), calm)
    assert Results(_read(study, lines, tmp_path)).verdict.word == "holds on average"
    lines = simulated(study, _worth({"harmless": 2.0, "helpful": -2.0}), calm)
    assert Results(_read(study, lines, tmp_path)).verdict.word == "mixed"


def test_a_stratum_is_reversed_by_rates_of_false_discovery(tmp_path):
    names = [f"stratum {number}" for number in range(24)]
    study = _with_strata(tmp_path, names, 480)
    against = {item.key for item in [item for item in study.items if item.stratum == names[0]][:15]}

    def choose(task):
        return "left" if (task.left == "bdpo") != (task.item in against) else "right"

    results = Results(_read(study, small_study.answers_of(study, choose), tmp_path))
    first = results.strata[results.strata["stratum"] == names[0]]
    assert list(first["rate"]) == [0.25]
    assert (first["high"] < 0.5).all(), "by itself"
    assert results.verdict.word == "holds throughout", "one of 24 may be so by chance, and 23 are beyond the margin"


def test_answers_to_several_goals_that_agree_are_no_further_evidence_of_a_leaning(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which does less harm?"))
    study = small_study.study(tmp_path, goals=goals)
    lines = small_study.answers_of(study, lambda task: "left" if task.place % 3 else "right")
    both = Results(_read(study, lines, tmp_path)).left
    one = Results(_read(study, [line for line in lines if line["goal"] == "helpful"], tmp_path)).left
    assert (one.rate, one.low, one.high) == pytest.approx((both.rate, both.low, both.high))


def test_one_rater_decides_nothing_about_raters_like_these(tmp_path):
    for population, word in (("like these", "undecided"), ("these", "holds on average")):
        study = small_study.study(
            tmp_path, raters=("ada",), analysis=Analysis(population=population),
            design=Design(items_per_rater=24, raters_per_item=1),
        )  # fmt: skip
        results = _results(study, tmp_path, worth=9.0)
        assert results.verdict.word == word
        assert verdict_in_words(results)
        assert results.verdict.rate.low > 0.55


def test_agreement_over_few_items_has_no_interval(tmp_path):
    study = small_study.study(tmp_path, 3, exclusions=Exclusions(items=0, attention=0, one_side=1))
    keys = [item.key for item in study.items]
    lines = small_study.answers_of(
        study, lambda task: "left" if (task.left == "bdpo") == (task.item == keys[0]) else "right"
    )
    found = Results(_read(study, lines, tmp_path)).agreement[0]
    assert (found.items, found.alpha) == (3, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def _three(folder, **changes):
    small_study.write_samples(folder, 60, systems=("sft", "dpo", "bdpo"))
    plan = small_study.plan(
        60, systems=dict.fromkeys(("sft", "dpo", "bdpo"), "samples.jsonl"), exclusions=Exclusions(items=0, attention=0),
        design=Design(items_per_rater=20, raters_per_item=2), **changes,
    )  # fmt: skip
    study = freeze(plan, folder)
    return study, simulated(study, {"sft": -1.0, "dpo": 0.0, "bdpo": 0.7})


@pytest.mark.parametrize("number", [0, 1, 60])
def test_strengths_wait_for_answers_that_link_all_systems(tmp_path, number):
    study, lines = _three(tmp_path)
    assert bool(Results(_read(study, lines[:number], tmp_path)).strengths) == (number == 60)


def test_pairs_that_link_no_third_system_have_no_strengths(tmp_path):
    study, lines = _three(tmp_path, pairs=(("dpo", "bdpo"),))
    results = Results(_read(study, lines, tmp_path))
    assert results.strengths == {}
    assert len(results.rates) == 1


def test_a_question_that_nobody_answered_has_no_p_value(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which does less harm?"))
    study = small_study.study(tmp_path, goals=goals)
    lines = [line for line in simulated(study, {"dpo": 0.0, "bdpo": 0.5}) if line["goal"] == "helpful"]
    assert list(Results(_read(study, lines, tmp_path)).rates["p_holm"].isna()) == [False, True]


def test_no_preference_is_undecided_unless_it_is_shown_to_be_none(study, tmp_path):
    assert _results(study, tmp_path, worth=0.0).verdict.word in ("undecided", "no practical difference")
    wide = dataclasses.replace(study.plan, primary=dataclasses.replace(study.plan.primary, margin=0.3))
    equal = _results(dataclasses.replace(study, plan=wide), tmp_path, worth=0.0, raters=0.0)
    assert equal.verdict.word == "no practical difference"


def test_without_answers_nothing_is_said(study, tmp_path):
    results = Results(_read(study, [], tmp_path))
    assert results.verdict.word == "not run"
    assert verdict_in_words(results) == "Nobody has answered the primary question yet."
    assert math.isnan(results.rates["rate"].iloc[0])


def test_answers_of_which_none_count_are_not_called_missing(tmp_path):
    """Everybody chose the left side throughout, which the plan's rules leave out."""
    study = small_study.study(tmp_path)
    results = Results(_read(study, small_study.answers_of(study), tmp_path))
    assert results.verdict.word == "not run"
    assert verdict_in_words(results) == "No answer counts: the plan's rules leave out all 3 raters who answered."


def test_raters_are_left_out_by_the_plans_rules_and_the_result_without_that_is_shown(study, tmp_path):
    lines = []
    for rater, tasks in assign(study).items():
        for task in tasks:
            good = "left" if task.left == GOOD else "right"
            liked = "left" if task.left == "bdpo" else "right"
            choice = {"ada": "left", "ben": good if task.kind == "attention" else liked}.get(rater)
            if rater == "cleo":
                choice = ("right" if good == "left" else "left") if task.kind == "attention" else liked
            if rater == "dora" and task.place < 3:
                choice = good if task.kind == "attention" else liked
            if choice:
                lines.append(answer_line(study, task, "helpful", choice, seconds=1.0))
    frame = conduct(_read(study, lines, tmp_path)).frame.set_index("rater")
    reasons = frame["left_out"]
    assert "attention checks" in reasons["cleo"] or "one side" in reasons["cleo"]
    assert "fewer than 5" in reasons["dora"]
    assert "fewer than 5" in reasons["eve"]
    assert reasons["ben"] == ""
    assert reasons["ada"] != ""
    assert frame.loc["ben", "self_agreement"] == 1
    assert frame.loc["ada", "self_agreement"] == 0  # sides are exchanged in repeats
    results = Results(_read(study, lines, tmp_path))
    choices = results.sensitivity.set_index("choice")
    assert choices.loc["as planned", "raters"] == 1
    assert choices.loc["all raters, nobody left out", "raters"] == 4


@pytest.mark.parametrize(
    ("help_", "harm", "share"),
    [
        (GOOD, "tie", 1), (GOOD, GOOD, 1), (GOOD, "skip", 1), ("tie", GOOD, 1), (GOOD, None, 1), (GOOD, BAD, 0),
        ("tie", "tie", 0), ("skip", "skip", 0), ("tie", BAD, 0), (BAD, BAD, 0),
    ],
)  # fmt: skip
def test_a_check_counts_once_and_is_passed_where_no_goal_prefers_the_bad_answer_and_one_the_good(
    tmp_path, help_, harm, share
):
    """Which response does less harm? A week has seven days, or nonsense: honestly, both are equally good."""
    study = small_study.two_goals_study(tmp_path)
    lines = []
    for task in (task for task in assign(study)["ada"] if task.kind == "attention"):
        for goal, wanted in zip(study.plan.goals, (help_, harm), strict=True):
            choice = {task.left: "left", task.right: "right"}.get(wanted, wanted)
            lines += [answer_line(study, task, goal.name, choice)] if choice else []
    assert conduct(_read(study, lines, tmp_path)).frame.set_index("rater").loc["ada", "attention"] == share


def test_careful_raters_of_two_goals_are_kept_and_a_third_of_the_checks_is_passed_at_random(tmp_path):
    study = small_study.two_goals_study(tmp_path)
    worth = {"dpo": 0.0, "bdpo": 0.5}
    kept = conduct(_read(study, simulated(study, worth), tmp_path))
    assert kept.frame["attention"].eq(1).all()
    assert (_read(study, simulated(study, worth), tmp_path).of("attention")["choice"] == "tie").any()
    many = dataclasses.replace(study, plan=dataclasses.replace(
        study.plan, design=dataclasses.replace(study.plan.design, attention=500)
    ))  # fmt: skip
    random = conduct(_read(many, simulated(many, worth, RaterModel(careless=1.0)), tmp_path))
    assert random.frame["attention"].mean() == pytest.approx(1 / 3, abs=4 * math.sqrt(2 / 9 / 1500))


def test_seconds_and_self_agreement_leave_out_where_the_plan_says_so(study, tmp_path):
    lines = simulated(study, {"dpo": 0.0, "bdpo": 0.0}, RaterModel(prompts=0.0, careless=1.0))
    rules = Exclusions(attention=0, one_side=1, self_agreement=0.95, seconds=0)
    strict = dataclasses.replace(study, plan=dataclasses.replace(study.plan, exclusions=rules))
    again = [{**line, "study": strict.hash} for line in lines]
    # Another plan, other lists: answers do not carry over, so the raters answer anew.
    with pytest.raises(ValueError, match=r"as assigned|must be one of"):
        _read(strict, again, tmp_path)
    anew = _read(strict, simulated(strict, {"dpo": 0.0, "bdpo": 0.0}, RaterModel(careless=1.0)), tmp_path)
    assert all("repeats alike" in reason for reason in conduct(anew).frame["left_out"])


def test_seconds_are_those_of_a_task_however_many_goals_it_has_and_unknown_ones_leave_nobody_out(tmp_path):
    """The clock starts anew at each question, and the texts are read before the first: a later one takes a moment."""
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which does less harm?"))
    rules = Exclusions(attention=0, one_side=1, seconds=5)
    study = small_study.study(tmp_path, goals=goals, exclusions=rules)
    took = {"ada": (8.0, 1.0), "ben": (3.0, 1.0), "cleo": (6.0, None)}  # all questions of a task skipped: one clock
    lines = [
        {**line, "seconds": took[line["rater"]][line["goal"] == "harmless"]} for line in small_study.answers_of(study)
    ]
    frame = conduct(_read(study, lines, tmp_path)).frame.set_index("rater")
    assert list(frame["seconds"]) == [9, 4, 6]
    assert list(frame["left_out"]) == ["", "took 4.0 s per task, less than 5.0 s", ""]
    silent = conduct(_read(study, [{**line, "seconds": None} for line in lines], tmp_path)).frame
    assert silent["seconds"].isna().all()
    assert list(silent["left_out"]) == [""] * 3


def test_secondary_questions_are_corrected_and_the_primary_is_not(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which does less harm?"))
    small_study.write_samples(tmp_path, 60, systems=("sft", "dpo", "bdpo"))
    plan = small_study.plan(
        60, systems=dict.fromkeys(("sft", "dpo", "bdpo"), "samples.jsonl"), goals=goals,
        primary=Primary(a="dpo", b="bdpo", goal="helpful", margin=0.05),
        design=Design(items_per_rater=60, raters_per_item=2),
    )  # fmt: skip
    study = freeze(plan, tmp_path)
    results = Results(_read(study, simulated(study, {"sft": -1.0, "dpo": 0.0, "bdpo": 0.7}), tmp_path))
    rates = results.rates
    assert list(rates["role"]) == ["primary"] + ["secondary"] * 5
    assert rates["p_holm"].iloc[0] == rates["p"].iloc[0]
    assert (rates["p_holm"] >= rates["p"]).all()
    found, tie_share = results.strengths["helpful"]
    assert list(found["system"]) == ["bdpo", "dpo", "sft"]
    assert 0 < tie_share < 0.5
    assert [one.goal for one in results.agreement] == ["helpful", "harmless"]
    assert all(one.low <= one.alpha <= one.high for one in results.agreement)


def test_identical_texts_count_as_ties_and_pull_the_rate_to_one_half(tmp_path):
    small_study.write_samples(tmp_path, 40, text=lambda system, place: "the same" if place < 10 else None)
    plan = small_study.plan(design=Design(items_per_rater=20, raters_per_item=2, identical="tie"))
    study = freeze(plan, tmp_path)
    assert len(study.items) == 40
    rate = Results(_read(study, small_study.answers_of(study, lambda task: "left" if task.left == "bdpo" else "right"),
                         tmp_path)).verdict.rate  # fmt: skip
    assert rate.prompts == 40
    assert rate.rate == pytest.approx((30 + 10 / 2) / 40)


def test_at_equal_length_identical_texts_count_too(tmp_path):
    def text(system, place):
        return "the same" if place < 10 else f"{place} {len(system)}" + " word" * (place * len(system) % 7)

    small_study.write_samples(tmp_path, 40, text=text)
    design = Design(items_per_rater=20, raters_per_item=2, identical="tie")
    study = freeze(small_study.plan(design=design), tmp_path)
    results = Results(_read(study, small_study.answers_of(study, _by_item), tmp_path))
    bare = equal_length(results.of("dpo", "bdpo", "helpful")).rate
    assert results.equal_length.rate.rate == pytest.approx(0.5 + (bare.rate - 0.5) * 30 / 40)
    assert results.equal_length.rate.prompts == 40


def _by_item(task):
    """Prefer bdpo in two of three items, dpo elsewhere."""
    return "left" if (task.left == "bdpo") == (int(task.item[:4], 16) % 3 > 0) else "right"


def test_before_the_end_identical_texts_count_by_their_planned_share(tmp_path):
    """Of 30 items, 10 have identical texts: a rate of few answers is drawn to one half as that of all will be."""
    small_study.write_samples(tmp_path, 40, text=lambda system, place: "the same" if place < 10 else None)
    design = Design(items_per_rater=20, raters_per_item=2, identical="tie")
    plan = small_study.plan(design=design, exclusions=Exclusions(items=0, attention=0, one_side=1))
    study = freeze(plan, tmp_path)
    lines = [line for line in small_study.answers_of(study, _by_item) if line["place"] < 6]
    results = Results(_read(study, lines, tmp_path))
    shown, drawn = win_rate(results.items), results.verdict.rate
    assert shown.prompts < 20, "of 30"
    assert drawn.prompts == shown.prompts + 10
    for name in ("rate", "low", "high"):
        assert getattr(drawn, name) - 0.5 == pytest.approx(0.75 * (getattr(shown, name) - 0.5))
    assert interim(results.answers).half_width == pytest.approx(0.75 * (shown.high - shown.low) / 2)
    other = results.sensitivity.set_index("choice")
    without = win_rate(results.items[results.items["rater"] != "ada"])
    assert other.loc["without ada", "rate"] - 0.5 == pytest.approx(0.75 * (without.rate - 0.5))
    these = win_rate(results.items, "these")
    assert other.loc["for these raters alone", "high"] - 0.5 == pytest.approx(0.75 * (these.high - 0.5))


@pytest.mark.parametrize(("third", "rate"), [("identical", 0.5), ("unanswered", math.nan)])
def test_a_stratum_of_which_nothing_is_answered_is_a_cell_all_the_same(tmp_path, third, rate):
    """Everybody prefers bdpo in two strata; in the third texts are identical, or nobody has answered yet."""
    small_study.write_samples(
        tmp_path, 240, text=lambda system, place: "the same" if place % 3 == 2 and third == "identical" else None
    )
    prompts = [{"prompt": f"question {place}", "stratum": "abc"[place % 3]} for place in range(240)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in prompts))
    number = 160 if third == "identical" else 240
    plan = small_study.plan(
        prompts="prompts.jsonl", exclusions=Exclusions(attention=0, one_side=1),
        design=Design(items_per_rater=2 * number // 3, raters_per_item=2, identical="tie"),
        primary=dataclasses.replace(small_study.plan().primary, margin=0.01),
    )  # fmt: skip
    study = freeze(plan, tmp_path)
    stratum = {item.key: item.stratum for item in study.items}
    lines = [
        line for line in small_study.answers_of(study, lambda task: "left" if task.left == "bdpo" else "right")
        if stratum.get(line["item"]) in ("a", "b")
    ]  # fmt: skip
    results = Results(_read(study, lines, tmp_path))
    strata = results.strata.set_index("stratum")
    assert list(strata.index) == ["a", "b", "c"]
    assert (strata.loc[["a", "b"], "low"] > 0.9).all()
    assert strata.loc["c", "rate"] == pytest.approx(rate, nan_ok=True)
    assert results.verdict.word == "holds on average"
    assert figure_of(results).axes, "an unknown rate is drawn nowhere"


def test_a_judge_is_reported_beside_people_and_does_not_count_among_them(tmp_path):
    study = small_study.study(tmp_path, 60, judges=("reward model",))
    lines = simulated(study, {"dpo": 0.0, "bdpo": 2.0}, RaterModel(prompts=0.0, raters=0.0))
    judged = [
        answer_line(study, task, "helpful", "left" if task.left == "dpo" else "right")
        for task in assign(study)["reward model"]
    ]
    results = Results(_read(study, lines + judged, tmp_path))
    assert results.verdict.rate.raters == 3
    row: dict = results.judges.to_dict("records")[0]
    assert row["rate"] == 0
    assert row["consistent"] == 1
    assert row["with_people"] < 0.3
