"""Contrasts and scans give the words that their rules say, and refuse frames and declarations with one line."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.contrasts import Contrast, Scan, Unit, judged, not_run
from gradlab.experiments.report.verdicts import settle

SEEDS = 12
POINTS = Unit("points", 100, 1)


def frame(effects, seeds=SEEDS, noise=0.001, method="a", population="cell"):
    """Return a frame in which ``method`` is better than "b" by the effect of each cell, up to noise by seed."""
    rng = np.random.default_rng(1)
    rows = []
    for cell, effect in enumerate(effects):
        base, drawn = rng.standard_normal(seeds), effect + noise * rng.standard_normal(seeds)
        for seed in range(seeds):
            shared = {population: cell, "seed": seed}
            rows += [
                {**shared, "method": "b", "x": base[seed]},
                {**shared, "method": method, "x": base[seed] + drawn[seed]},
            ]
    return pd.DataFrame(rows)


def contrast(**changes):
    given = {
        "claim": "grid-reward", "statement": "a is more than b", "method": "a", "baseline": "b", "value": "x",
        "by": ("cell",), "margin": 0.01, "unit": POINTS, "better": "a is {size} more", "worse": "a is {size} less",
    }  # fmt: skip
    return Contrast(**{**given, **changes})


def answer(table, **changes):
    return judged(table, [contrast(**changes)])[0]


def test_an_answer_says_how_much_in_the_unit_of_the_claim():
    one = answer(frame([0.05, 0.05, 0.05]))
    assert one.word == "holds throughout"
    assert one.sentence == "a is 5.0 points more"
    assert [one.number(state) for state in ("for", "none", "against", "undecided")] == [3, 0, 0, 0]
    assert answer(frame([-0.05] * 3)).sentence == "a is 5.0 points less"
    assert answer(frame([0.06, 0.06, 0.01])).sentence == "a is 4.3 points more on average"
    assert answer(frame([0.06] * 2 + [-0.02])).sentence.endswith("on average; the opposite is true in 1 of 3 cells")
    assert answer(frame([0.002, -0.001], noise=0.05)).sentence.endswith(", but that decides nothing")
    same = answer(frame([0.001] * 3))
    assert (same.word, same.sentence) == (
        "no practical difference", "a is 0.1 points more, too little to matter",
    )  # fmt: skip


def test_a_sentence_counts_the_opposite_as_the_tally_does():
    one = answer(frame([0.06] * 4 + [-0.005] * 2))
    assert (one.word, one.number("none"), one.number("against")) == ("holds on average", 2, 0)
    assert one.rows["reversed"].sum() == 2
    assert one.sentence == "a is 3.8 points more on average"


def test_where_a_rule_of_the_question_decides_no_seeds_would():
    one = answer(frame([0.002, -0.001], noise=0.05))
    assert one.needs > 0
    assert one.ruled("undecided", "the judge is weak").needs == 0


def test_texts_and_truths_are_no_numbers():
    for kind in (str, bool):
        with pytest.raises(ValueError, match=rf"^frame must have numbers in x, got {kind.__name__}"):
            answer(frame([0.05] * 3).astype({"x": kind}))


def test_less_is_better_where_it_is_said():
    assert answer(frame([-0.05] * 3), lower_is_better=True).word == "holds throughout"


def test_a_few_cells_against_do_not_turn_an_average_and_many_make_it_mixed():
    assert answer(frame([0.06] * 19 + [-0.02])).word == "holds on average"
    assert answer(frame([0.06] * 17 + [-0.02] * 3)).word == "mixed"


def test_an_undecided_answer_names_the_seeds_that_would_do():
    one = answer(frame([0.002, -0.001], noise=0.05))
    assert one.word == "undecided"
    assert one.needs > SEEDS
    assert answer(frame([0.05] * 3)).needs == 0


def test_cells_wider_than_their_design_are_counted():
    assert answer(frame([0.05, 0.05], noise=0.05)).wide == 2
    assert answer(frame([0.05, 0.05])).wide == 0


def test_worlds_have_a_spread_a_new_world_and_moderators():
    rng = np.random.default_rng(3)
    effects = np.linspace(0.02, 0.2, 40) + 0.01 * rng.standard_normal(40)
    table = frame(effects, seeds=4, population="world")
    dose = {number: float(number + 1) for number in range(40)}
    table = table.assign(dose=table["world"].map(dose), policy=np.where(table["world"] % 2, "free", "shared"))
    one = answer(table, by=("world",), population="worlds", moderators=("dose", "policy"))
    assert one.word in ("holds throughout", "holds on average")
    assert one.transport.between == pytest.approx(effects.std(ddof=1), rel=0.05)
    assert one.transport.expected[0] < one.effect < one.transport.expected[1]
    assert len(one.moderators["dose"]) == 6
    assert list(one.moderators["policy"]["value"]) == ["free", "shared"]
    assert one.search is not None
    with pytest.raises(ValueError, match="one value of dose per world, got several"):
        answer(table.assign(dose=np.arange(len(table.index), dtype=float)), by=("world",), population="worlds",
               moderators=("dose",))  # fmt: skip


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("world == 5", "frame must have the worlds from 0 to 9; world 5 is missing"),
        ("world == 5 and seed == 2", "frame must have 4 seeds in every world; world 5 has 3"),
        ("world == 5 and method == 'b'", "must both have x"),
    ],
)
@pytest.mark.parametrize("where", ["", "world < 8"])
def test_no_world_may_be_missing_also_where_only_some_are_judged(lost, words, where):
    worlds = {"by": ("world",), "population": "worlds", "where": where}
    table = frame([0.05] * 10, seeds=4, population="world")
    assert len(answer(table, **worlds).rows) == (8 if where else 10)
    with pytest.raises(ValueError, match=words):
        answer(table.query(f"not ({lost})"), **worlds)


def test_seeds_that_are_each_worlds_own_fill_the_table():
    table = frame([0.05] * 5, seeds=4, population="world")
    own = table.assign(seed=1000 + 4 * table["world"] + table["seed"])
    found = [contrast(by=("world",), population="worlds").table(one) for one in (table, own)]
    assert found[1].shape == (5, 4)
    pd.testing.assert_frame_equal(*found)


def test_a_scan_takes_its_word_from_its_proof_and_a_case_can_contradict_it():
    cases = pd.DataFrame({"case": [0, 1, 2], "slack": [1.0, 2.0, 3.0]})
    scan = {"claim": "shift-dpo", "statement": "s", "value": "slack", "by": ("case",)}

    def word(table, **changes):
        return judged(table, [Scan(**{**scan, **changes})])[0].word

    against = cases.assign(slack=[1.0, -2.0, 3.0])
    assert word(cases, proof="p") == "proved"
    assert word(against, proof="p") == "refuted"
    assert word(against, proof="p", refutes=True) == "refuted"
    assert word(cases, proof="p", refutes=True) == "undecided"
    assert word(cases) == "holds throughout"
    assert word(against) == "mixed"
    errors = cases.assign(slack=[0.0, 1e-12, -1e-12])
    assert word(errors, identity=True, tolerance=1e-10, proof="p") == "proved"
    assert word(errors.assign(slack=1e-3), identity=True, tolerance=1e-10, proof="p") == "refuted"


def spoilt(table, how):
    if how == "a missing cell":
        return table[table["cell"] != 1]
    if how == "a seed twice":
        return pd.concat([table, table.iloc[:1]])
    if how == "NaN":
        return table.assign(x=table["x"].where(table.index != 3))
    if how == "a method without a seed":
        return table.drop(table.index[0])
    return table.rename(columns={"x": "y"})


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a missing cell", "frame must have the declared values of cell; 1 is missing"),
        ("a seed twice", "must have one x for each cell, seed"),
        ("NaN", "must both have x for the same cell, seed"),
        ("a method without a seed", "must both have x for the same cell, seed"),
        ("another version's columns", "x"),
    ],
)
def test_a_frame_that_cannot_be_judged_is_refused_in_one_line(how, words):
    table = frame([0.05] * 3)
    with pytest.raises(ValueError, match=words) as caught:
        judged(spoilt(table, how), [contrast()], {"cell": [0, 1, 2]})
    assert "\n" not in str(caught.value)


def test_a_cell_that_the_product_of_the_factors_lacks_is_missing():
    table = frame([0.05] * 4).assign(mask=lambda rows: rows["cell"] // 2, policy=lambda rows: rows["cell"] % 2)
    by = {"by": ("mask", "policy")}
    assert len(answer(table, **by).rows) == 4
    with pytest.raises(ValueError, match="mask 1, policy 1 is missing"):
        answer(table[table["cell"] != 3], **by)
    assert len(answer(table[table["cell"] != 3], **by, complete=False).rows) == 3


@pytest.mark.parametrize("margin", [0, -0.01, float("nan")])
def test_a_margin_must_be_above_0(margin):
    with pytest.raises(ValueError, match="margin of 'a is more than b' must be"):
        contrast(margin=margin)


def test_a_claim_without_a_primary_is_refused():
    rows = judged(frame([0.05] * 3), [contrast(role="explains away")])
    rows = [replace(row, experiment=name) for row in rows for name in ("grid", "worlds", "frontier")]
    with pytest.raises(ValueError, match="grid-reward must have a primary, got rows of explains away"):
        settle(rows, {}, ["grid-reward"])


def test_a_word_that_a_rule_of_the_question_has_set_is_corrected_by_nothing():
    rows = [
        replace(answer(frame([0.05] * 3), statement=name, by=("cell",), co_primaries=2), experiment=experiment)
        for name, experiment in (("first", "grid"), ("second", "worlds"))
    ]
    ruled = rows[0].ruled("undecided", "The judge is weak")
    frames = dict.fromkeys(("grid", "worlds", "frontier"), "current")
    context = replace(answer(frame([0.05] * 3), role="context"), experiment="frontier")
    one = settle([ruled, rows[1], context], frames, ["grid-reward"])["grid-reward"]
    assert [row.word for row in one.of("primary")] == ["undecided", "holds throughout"]
    assert one.word == "undecided"
    assert one.of("primary")[0].note == "The judge is weak"
    assert one.of("primary")[0].effect == rows[0].effect  # the numbers stay
    with pytest.raises(ValueError, match=r"^word must be one of .*; got 'fails'"):
        ruled.ruled("fails", "")


@pytest.mark.parametrize("role", ["primary", "explains away"])
def test_a_declared_statement_that_nobody_has_measured_has_its_word_and_no_numbers(role):
    one = not_run(contrast(role=role), "no runs")
    assert (one.word, one.sentence, one.note) == ("not run", "not measured", "no runs")
    assert (one.seeds, one.replicates, one.needs, len(one.rows)) == (0, 0, 0, 0)
    assert [one.number(state) for state in ("for", "none", "against", "undecided")] == [0] * 4
    assert np.isnan([one.effect, one.low, one.high]).all()
    assert one.corrected(one.evidence).word == "not run"


@pytest.mark.parametrize("role", ["explains away", "primary"])
def test_effects_of_different_units_are_compared_in_margins(role):
    """The first report took 0.05 of the reward for less than 0.3 nats, whatever the margins were."""
    by_reward = answer(frame([0.05] * 3), label="reward", role=role, margin=0.01)
    by_nats = answer(frame([0.3] * 3), label="nats", role=role, margin=0.2, unit=Unit("nats"))
    assert by_reward.word == by_nats.word == "holds throughout"
    others = [] if role == "primary" else [answer(frame([0.05] * 3))]
    experiments = ["grid", "worlds", "frontier"]
    for order in ([by_reward, by_nats], [by_nats, by_reward]):
        rows = [*others, *order]
        context = [replace(answer(frame([0.05] * 3)), statement=contrast(role="context"))] * (3 - len(rows))
        rows = [replace(row, experiment=name) for row, name in zip([*rows, *context], experiments, strict=True)]
        one = settle(rows, dict.fromkeys(experiments, "current"), ["grid-reward"])["grid-reward"]
        found = one.decisive if role == "primary" else one.explains
        assert found.statement.label == "nats"  # 1.5 margins, against 5
