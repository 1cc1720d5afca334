"""Simulated raters do what they are said to do, and power is that of the plan's own analysis."""

import dataclasses
import json
import math

import numpy as np
import pytest
import small_study

from gradlab.study.answers import read_answers
from gradlab.study.pictures import power_charts
from gradlab.study.plan import Analysis, Design
from gradlab.study.planned_power import DESIGN, answers_asked, power
from gradlab.study.raters import RaterModel, simulated
from gradlab.study.rates import win_rate
from gradlab.study.results import Results
from gradlab.study.terms import left_rate
from gradlab.study.texts import json_page


def _read(study, lines, folder):
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_answers(study, [folder / "answers.jsonl"])


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"), 300)


def test_the_expected_rate_is_that_of_many_answers(study, tmp_path):
    model = RaterModel(raters=0.0, prompts=0.5, tie=0.5)
    answers = _read(study, simulated(study, {"dpo": 0.0, "bdpo": 0.8}, model), tmp_path)
    rate = win_rate(answers.of("item"))
    assert rate.low < model.expected(0.8) < rate.high
    assert (answers.of("item")["choice"] == "tie").mean() > 0.05
    assert (answers.of("attention")["score"] == 1).all()


def test_worth_is_the_inverse_of_the_expected_rate():
    model = RaterModel(position=0.4, tie=0.6)
    for rate in (0.31, 0.5, 0.9):
        assert model.expected(model.worth_of(rate)) == pytest.approx(rate, abs=1e-9)
    assert model.worth_of(0.5) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="rate must"):
        model.worth_of(1.0)


def test_leanings_show_in_the_answers(study, tmp_path):
    leaning = simulated(study, {"dpo": 0.0, "bdpo": 0.0}, RaterModel(position=2.0))
    assert left_rate(_read(study, leaning, tmp_path).of("item")).low > 0.55
    long = simulated(study, {"dpo": 0.0, "bdpo": 0.0}, RaterModel(length=3.0, raters=0.0))  # bdpo's texts are longer
    assert win_rate(_read(study, long, tmp_path).of("item")).low > 0.6


def test_careless_raters_fail_attention_checks(study, tmp_path):
    answers = _read(study, simulated(study, {"dpo": 0.0, "bdpo": 3.0}, RaterModel(careless=1.0)), tmp_path)
    assert abs(win_rate(answers.of("item")).rate - 0.5) < 0.1


def test_equal_seeds_give_equal_answers(study):
    worth = {"dpo": 0.0, "bdpo": 0.5}
    assert simulated(study, worth, seed=2) == simulated(study, worth, seed=2)
    assert simulated(study, worth, seed=2) != simulated(study, worth, seed=3)
    with pytest.raises(ValueError, match="lacks bdpo"):
        simulated(study, {"dpo": 0.0})


def test_power_grows_with_effect_and_items_and_is_the_level_at_none():
    table = power(small_study.plan(60), effects=(0.0, 0.1, 0.25), items=(20, 80), simulations=150)
    frame = table.frame.set_index(["items_per_rater", "effect"])
    assert frame["power"][80, 0.25] > frame["power"][20, 0.25] > frame["power"][20, 0.0]
    assert frame["power"][80, 0.0] < 0.08  # of 2.5%, half of a two-sided test; 150 simulations
    assert (frame["coverage"] > 0.88).all()
    assert frame["half_width"][80, 0.1] < frame["half_width"][20, 0.1]


def test_power_leaves_out_who_fails_the_attention_checks():
    plan, model = small_study.plan(40, raters=tuple("abcdefgh")), RaterModel(careless=0.4)
    strict, lax = (
        power(
            dataclasses.replace(plan, design=dataclasses.replace(plan.design, attention=checks)),
            effects=(0.25,), model=model, simulations=200,
        ).frame.iloc[0]
        for checks in (12, 0)
    )  # fmt: skip
    assert strict["coverage"] > 0.88
    assert lax["coverage"] < 0.8, "careless raters draw the rate to one half"
    assert strict["power"] > lax["power"]
    nobody = power(plan, effects=(0.25,), model=RaterModel(careless=1.0), simulations=40).frame.iloc[0]
    assert nobody["power"] < 0.2


def test_where_everybody_fails_the_checks_there_is_no_power_and_no_width():
    plan = small_study.plan(40)
    plan = dataclasses.replace(plan, design=dataclasses.replace(plan.design, attention=100))
    found = power(plan, effects=(0.25,), model=RaterModel(careless=1.0), simulations=20)
    row = found.frame.iloc[0]
    assert (row["power"], row["equivalent"], row["coverage"]) == (0, 0, 0)
    assert math.isnan(row["half_width"])
    assert found.narrowest(0.2) is None
    assert [len(chart.curves) for chart in power_charts(found)] == [1, 0]
    assert json.loads(json_page(found.frame.to_dict("records")))[0]["half_width"] is None
    some = power(plan, effects=(0.25,), model=RaterModel(careless=0.7), simulations=60).frame.iloc[0]
    assert 0 < some["half_width"] < 1, "studies without any rater left have no width, and the others have"


def test_one_rater_promises_nothing_about_raters_like_these():
    alone = small_study.plan(40, raters=("ada",), design=Design(items_per_rater=40, raters_per_item=1))
    these = dataclasses.replace(alone, analysis=Analysis(population="these"))
    assert power(alone, effects=(0.4,), simulations=30).frame["power"].item() == 0
    assert power(these, effects=(0.4,), simulations=30).frame["power"].item() > 0.9


def test_the_cheapest_plan_reaches_the_target_and_costs_least():
    table = power(small_study.plan(60), effects=(0.25,), items=(10, 40, 120), raters=(3, 6), simulations=100)
    chosen = table.cheapest(0.25, 0.5)
    rows = table.frame.query("power_low >= 0.5")
    assert chosen is not None
    assert answers_asked(chosen) == rows["answers"].min()
    assert table.cheapest(0.25, 0.999) is None
    with pytest.raises(ValueError, match=r"effect must be one of the effects that are simulated, 0\.25; got 0\.1"):
        table.cheapest(0.1)


def test_the_fewest_answers_that_reach_a_half_width_are_found_over_raters_per_item_too():
    table = power(small_study.plan(60), effects=(0.0, 0.2), raters=(6, 12), items=(20, 60), raters_per_item=(1, 3),
                  simulations=40)  # fmt: skip
    assert table.frame[DESIGN].drop_duplicates().shape[0] == 8
    widest = table.frame.groupby([*DESIGN, "answers"])["half_width"].max().reset_index()
    wanted = float(widest["half_width"].median())
    chosen = table.narrowest(wanted)
    assert chosen is not None
    assert answers_asked(chosen) == widest.loc[widest["half_width"] <= wanted, "answers"].min()
    assert table.narrowest(float(widest["half_width"].min()) / 2) is None
    with pytest.raises(ValueError, match="half_width must"):
        table.narrowest(0.0)


def test_more_raters_per_item_cost_prompts_where_prompts_differ_much():
    these = small_study.plan(60, analysis=Analysis(population="these"))
    model = RaterModel(prompts=3.0, raters=0.0)
    table = power(these, effects=(0.0,), items=(40,), raters_per_item=(1, 3), simulations=60, model=model)
    one, three = table.frame["half_width"]
    assert one < three
    assert table.frame["answers"].nunique() == 1


def test_a_design_that_cannot_be_is_tried_once_with_all_raters():
    frame = power(small_study.plan(60), effects=(0.0,), raters=(3,), raters_per_item=(3, 5), simulations=5).frame
    assert list(frame["raters_per_item"]) == [3]


@pytest.mark.parametrize("ties", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_fast_path_agrees_with_answers_that_are_assigned_and_read(ties, tmp_path):
    """Two routes to one number, each with the error of its simulations: four standard errors apart at most."""
    effect, number = 0.15, 30
    design = Design(items_per_rater=32, raters_per_item=2, repeats=0.1, attention=1, ties=ties)
    study = small_study.study(tmp_path, 48, design=design)
    model = RaterModel(raters=0.4, prompts=0.8, tie=0.5 if ties else 0.0, position=0.5)
    row = power(study.plan, effects=(effect,), simulations=200, model=model).frame.iloc[0]
    verdicts = []
    for seed in range(number):
        lines = simulated(study, {"dpo": 0.0, "bdpo": model.worth_of(0.5 + effect)}, model, seed)
        verdicts.append(Results(_read(study, lines, tmp_path)).verdict)
    widths = np.array([(one.rate.high - one.rate.low) / 2 for one in verdicts])
    apart = 4 * np.hypot(widths.std() / number**0.5, row["half_width_error"])
    assert widths.mean() == pytest.approx(row["half_width"], abs=apart)
    found = np.mean([one.word in ("holds throughout", "holds on average") for one in verdicts])
    assert found == pytest.approx(row["power"], abs=4 * 0.5 * (1 / number + 1 / 200) ** 0.5)
    assert 0.1 < found < 0.99


def test_what_cannot_be_simulated_is_refused():
    plan = small_study.plan()
    for changes, said in (({"effects": (0.5,)}, "effects must"), ({"effects": ()}, "effects must"),
                          ({"raters": (0,)}, "raters must"),
                          ({"simulations": 0}, "simulations must")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            power(plan, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="careless must"):
        RaterModel(careless=1.2)
    assert np.isfinite(RaterModel().worth_of(0.6))
