"""The parts of the rules of evidence by hand, and their doors; tests/test_rules_of_evidence.py simulates them."""

import inspect
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradlab.stats import conditions, equivalence, moderators, population, precision, words
from gradlab.stats.words import Evidence, word_of
from gradlab.streams import Purpose, stream

VALUES = np.array([[0.1, 0.2, 0.4, 0.3], [0.0, -0.1, 0.2, 0.1]])
EXACT = 1e-12  # a few roundings of numbers up to 1


# --- tests of a mean ---


def test_a_mean_is_scipys_t_test():
    mean = equivalence.mean_of(VALUES)
    low, high = mean.interval()
    for row, values in enumerate(VALUES):
        found = stats.ttest_1samp(values, 0)
        assert mean.p_differs()[row] == pytest.approx(found.pvalue, rel=EXACT)
        assert (low[row], high[row]) == pytest.approx(tuple(found.confidence_interval(0.95)), rel=EXACT)
        below, above = (stats.ttest_1samp(values, end, alternative=side).pvalue
                        for end, side in ((-0.3, "greater"), (0.3, "less")))  # fmt: skip
        assert mean.p_equivalent(0.3)[row] == pytest.approx(max(below, above), rel=EXACT)


def test_a_replicate_that_was_not_run_is_left_out():
    with_gap = equivalence.mean_of([0.1, np.nan, 0.2, 0.4])
    without = equivalence.mean_of([0.1, 0.2, 0.4])
    assert float(with_gap.p_differs()) == pytest.approx(float(without.p_differs()), rel=EXACT)


def test_one_replicate_has_no_interval_and_none_no_mean():
    mean = equivalence.mean_of([[0.5, np.nan], [np.nan, np.nan]])
    assert float(mean.effect[0]) == 0.5
    for found in (*mean.interval(), mean.p_differs(), mean.p_equivalent(1.0), mean.effect[1:]):
        assert np.isnan(found).all()


def test_a_mean_can_be_read_off_its_interval():
    mean = equivalence.mean_of([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]])
    back = equivalence.mean_of_interval(mean.effect, *mean.interval(), mean.freedom)
    assert back.error == pytest.approx(mean.error)
    assert back.p_equivalent(5.0) == pytest.approx(mean.p_equivalent(5.0))


def test_equal_values_are_exact():
    mean = equivalence.mean_of([[0.1] * 3, [0.0] * 3, [-0.3] * 3])
    assert list(mean.p_differs()) == [0, 1, 0]
    assert list(mean.p_equivalent(0.2)) == [0, 0, 1]
    assert list(mean.p_equivalent(0.3)) == [0, 0, 1]  # at the margin is not within it
    assert float(equivalence.mean_of([0.1 + 0.2, 0.3, 0.3]).error) == 0  # rounding is no spread


def test_false_discoveries_by_hand():
    # .01 · 4/1, .02 · 4/2, .03 · 4/3, NaN as 1
    found = equivalence.false_discoveries_controlled([0.03, 0.01, np.nan, 0.02])
    assert found == pytest.approx([0.04, 0.04, 1.0, 0.04])
    assert equivalence.false_discoveries_controlled([]).shape == (0,)


# --- populations ---


def test_with_equal_seeds_an_average_over_cells_is_the_t_test_of_the_seeds_means():
    average, found = population.average_over_cells(VALUES, 0.1), stats.ttest_1samp(VALUES.mean(0), 0)
    assert (average.p_differs, average.effect) == pytest.approx((found.pvalue, 0.15), rel=EXACT)
    assert (average.low, average.high) == pytest.approx(tuple(found.confidence_interval(0.95)), rel=EXACT)
    assert (average.units, average.replicates) == (2, 4)


def test_each_cell_counts_once_however_many_seeds_it_has():
    values = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, np.nan, np.nan]])
    average = population.average_over_cells(values, 0.1)
    assert (average.effect, average.low, average.high) == (0.5, 0.5, 0.5)


def test_units_are_for_none_against_or_undecided():
    around = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    middles = np.array([0.5, 0.0, -0.5, 0.1, 0.0])
    units = population.judge_units(middles[:, None] + np.array([0.01, 0.01, 0.01, 0.01, 1.0])[:, None] * around, 0.1)
    assert list(units.state) == ["for", "none", "against", "undecided", "undecided"]
    assert list(units.reversed) == [False, False, True, False, False]
    assert units.number("undecided") == 2


def test_the_variance_between_worlds_is_what_seeds_do_not_explain():
    spread = np.array([-1.0, 1.0])
    found = population.over_worlds(np.array([[0.0], [2.0], [4.0]]) + spread, 0.1)
    # means 0, 2, 4 have variance 4; each has a squared standard error of 2/2
    assert found.between == pytest.approx(math.sqrt(3))
    assert (found.average.effect, found.average.replicates) == (2.0, 3)
    half = stats.t.isf(0.025, 2) * math.sqrt(4 + 4 / 3)
    assert found.expected == pytest.approx((2 - half, 2 + half))
    assert population.over_worlds(np.zeros((3, 1)) + 5 * spread, 0.1).between == 0


def test_a_new_world_is_predicted_by_order_where_there_are_many_whatever_their_distribution():
    draw = np.random.default_rng(7)
    means = draw.exponential(size=119)  # k = 3
    found = population.over_worlds(means[:, None] + np.array([-1e-9, 1e-9]), 0.1)
    assert found.expected == pytest.approx((np.sort(means)[2], np.sort(means)[-3]))
    hits = 0
    for _ in range(300):
        low, high = population.over_worlds(draw.exponential(size=(80, 1)) + np.array([-1e-9, 1e-9]), 0.1).expected
        hits += low < draw.exponential() < high
    assert hits / 300 == pytest.approx(1 - 2 * 2 / 81, abs=0.04)


FRAME = pd.DataFrame(
    {"mask": [0.0, 0.0, 0.2, 0.2], "policy": ["free"] * 4, "seed": [0, 1, 0, 1], "difference": [1.0, 2.0, 3.0, 4.0]}
)


def test_a_unit_may_lack_a_factor():
    frame = FRAME.assign(mask=[np.nan, np.nan, 0.2, 0.2])
    table = population.by_unit_and_seed(frame, ["mask", "policy"], declared=[(0.2, "free"), (np.nan, "free")])
    assert sorted(table.to_numpy().tolist()) == [[1, 2], [3, 4]]
    assert len(population.by_unit_and_seed(frame, ["mask"])) == 2


def test_a_frame_becomes_a_table_of_units_and_seeds():
    table = population.by_unit_and_seed(FRAME.iloc[[3, 0, 2, 1]], ["mask", "policy"])
    assert table.to_numpy().tolist() == [[1, 2], [3, 4]]
    assert np.isnan(population.by_unit_and_seed(FRAME[:3], ["mask"]).to_numpy()[1, 1])
    declared = [(0.0, "free"), (0.2, "free")]
    assert len(population.by_unit_and_seed(FRAME, ["mask", "policy"], declared=declared)) == 2


@pytest.mark.parametrize(
    ("frame", "kind", "words_"),
    [
        (
            FRAME.assign(difference=[1.0, np.nan, 3.0, 4.0]),
            {},
            "difference must be finite, got nan at mask 0.0, seed 1",
        ),
        (FRAME.assign(seed=0), {}, "each unit must have a seed once, got it twice at mask 0.0, seed 0"),
        (FRAME, {"declared": [(0.0,), (0.2,), (0.4,)]}, "must have the declared units, mask 0.4 is missing"),
        (FRAME, {"declared": [(0.0,)]}, "must have the declared units, mask 0.2 is not declared"),
        (FRAME.drop(columns="seed"), {}, "must have rows with the columns mask, seed, difference, lacks seed"),
        (FRAME[:0], {}, "must have rows with the columns mask, seed, difference, lacks rows"),
    ],
)
def test_a_frame_that_is_not_whole_is_refused_in_one_line(frame, kind, words_):
    with pytest.raises(ValueError, match=r"must") as error:
        population.by_unit_and_seed(frame, ["mask"], **kind)
    assert words_ in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("margin", [0, -1.0, math.nan, math.inf, None])
@pytest.mark.parametrize("judge", [population.judge_units, population.average_over_cells, population.over_worlds])
def test_a_margin_is_above_0(judge, margin):
    with pytest.raises(ValueError, match=r"^margin must be finite and > 0, got "):
        judge(np.ones((3, 3)), margin)


@pytest.mark.parametrize("judge", [population.judge_units, population.average_over_cells, population.over_worlds])
@pytest.mark.parametrize(
    ("values", "words_"),
    [
        (np.ones(3), r"differences must have shape \(units, seeds\), got \(3,\)"),
        (np.ones((0, 3)), r"differences must have shape \(units, seeds\), got \(0, 3\)"),
        (
            [[1.0, 2.0], [1.0, np.nan], [1.0, 2.0]],
            "differences must have at least 2 seeds in each unit, got 1 in number 1",
        ),
        ([[1.0, 2.0], [1.0, np.inf], [1.0, 2.0]], "must be finite"),
    ],
)
def test_differences_are_whole(judge, values, words_):
    with pytest.raises(ValueError, match=words_):
        judge(values, 0.1)


def test_two_worlds_are_no_population():
    with pytest.raises(ValueError, match=r"^differences must have at least 3 worlds, got 2$"):
        population.over_worlds(np.ones((2, 4)), 0.1)


# --- words ---

BASE = {"effect": 0.05, "p_differs": 0.001, "p_equivalent": 0.9, "units": 20}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"algebra": "refuted", "above": 20}, "refuted"),
        ({"algebra": "proved", "units": 0}, "proved"),
        ({"units": 0}, "not run"),
        ({"above": 2, "below": 2, "p_equivalent": 0.0}, "mixed"),  # precedes
        ({"above": 17, "below": 1}, "holds on average"),
        ({"above": 19, "p_equivalent": 0.05}, "no practical difference"),
        ({"above": 19}, "holds throughout"),
        ({"above": 18}, "holds on average"),
        ({"above": 19, "reversed": 1}, "holds on average"),
        ({"effect": -0.05, "below": 20}, "reversed"),
        ({"p_differs": 0.06}, "undecided"),
        ({"p_differs": math.nan, "p_equivalent": math.nan}, "undecided"),
        # A sample of worlds: 20 of 20 do not show 95%, 73 of 73 do, 72 of 73 do not; 5 of 20 show 10%, 4 do not.
        ({"above": 20, "sampled": True}, "holds on average"),
        ({"units": 73, "above": 73, "sampled": True}, "holds throughout"),
        ({"units": 73, "above": 72, "sampled": True}, "holds on average"),
        ({"above": 10, "below": 5, "sampled": True}, "mixed"),
        ({"above": 10, "below": 4, "sampled": True}, "holds on average"),
    ],
)
def test_the_word_by_hand(changes, word):
    assert word_of(Evidence(**{**BASE, **changes})) == word


def test_counts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^units must be at least those above and below, got "):
        word_of(Evidence(**BASE, above=15, below=6))
    with pytest.raises(ValueError, match=r"^algebra must be one of proved, refuted; got 'true'"):
        word_of(Evidence(algebra="true"))  # pyright: ignore[reportArgumentType]


def test_holm_corrects_each_question_over_measured_endpoints():
    family = [
        Evidence(**{**BASE, "p_differs": 0.02, "p_equivalent": 0.01}),
        Evidence(algebra="proved"),
        Evidence(**{**BASE, "p_differs": 0.03, "p_equivalent": 0.04}),
        Evidence(),
    ]
    first, proof, second, nothing = words.corrected(family)
    assert (first.p_differs, second.p_differs) == pytest.approx((0.04, 0.04))
    assert (first.p_equivalent, second.p_equivalent) == pytest.approx((0.02, 0.04))
    assert (proof, nothing) == (family[1], family[3])


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (["holds throughout", "holds on average"], "holds on average"),
        (["holds throughout", "reversed"], "mixed"),
        (["holds on average", "no practical difference"], "no practical difference"),
        (["holds on average", "undecided"], "undecided"),
        (["holds on average", "reversed", "not run"], "not run"),
        (["reversed", "reversed"], "reversed"),
        (["proved"], "proved"),
    ],
)
def test_co_primaries_together_are_as_weak_as_the_weakest(said, word):
    assert words.joint_word(said) == word


@pytest.mark.parametrize(("effect", "word"), [(3.0, "undecided"), (-3.0, "undecided")])
def test_a_difference_that_holm_leaves_open_is_open_whatever_its_sign(effect, word):
    """One cell, whose own interval lies beyond the margin, and whose p-value is corrected."""
    sides = {"above": int(effect > 0), "below": int(effect < 0)}
    one = Evidence(effect=effect, p_differs=0.0557, p_equivalent=1.0, units=1, **sides)
    assert words.word_of(one) == word
    assert words.word_of(replace(one, p_differs=0.01)) == ("holds throughout" if effect > 0 else "reversed")


@pytest.mark.parametrize(
    ("said", "p_beyond", "word"),
    [
        (["no practical difference"] * 2, [1.0, 1.0], "no practical difference"),
        (["no practical difference", "holds throughout"], [1.0, 0.01], "reversed"),
        (["no practical difference", "reversed"], [1.0, 0.01], "reversed"),
        (["undecided", "holds throughout"], [0.6, 0.01], "reversed"),
        (["no practical difference", "holds on average"], [1.0, 0.2], "undecided"),
        (["undecided", "no practical difference"], [0.6, 1.0], "undecided"),
        (["mixed", "holds throughout"], [0.6, 0.01], "mixed"),
        (["not run", "holds throughout"], [1.0, 0.01], "not run"),
    ],
)
def test_a_claim_of_no_difference_is_decided_against_on_either_side(said, p_beyond, word):
    assert words.word_of_no_difference(said, p_beyond) == word


def test_a_joint_word_needs_words():
    with pytest.raises(ValueError, match=r"^words must be at least one, got none$"):
        words.word_of_no_difference([], [])
    with pytest.raises(ValueError, match=r"^words must be at least one, got none$"):
        words.joint_word([])
    with pytest.raises(ValueError, match=r"^word must be one of .*; got 'fails'"):
        words.joint_word(["fails"])
    assert [words.joint_word([word]) for word in words.WORDS] == list(words.WORDS)


# --- precision ---


def test_the_widths_by_number_of_co_primaries():
    assert [precision.factor(number) for number in (1, 2, 3)] == [0.5, 0.46, 0.43]
    assert precision.Design(0.1, co_primaries=2).target == pytest.approx(0.046)


def test_seeds_are_added_in_blocks_until_cells_are_precise_or_at_the_cap():
    design = precision.Design(1.0, first=12, block=6, cap=20)
    half, seeds = np.array([np.nan, np.nan, 0.4, 0.6, 0.6, 0.6, 0.5]), np.array([0, 6, 6, 12, 18, 20, 12])
    assert list(precision.seeds_to_add(half, seeds, design)) == [12, 6, 6, 6, 2, 0, 0]
    assert list(precision.at_the_cap(half, seeds, design)) == [False] * 5 + [True, False]


def test_the_stop_rule_cannot_see_signs():
    assert list(inspect.signature(precision.seeds_to_add).parameters) == ["half_widths", "seeds", "design"]
    with pytest.raises(ValueError, match=r"^half_widths must be finite and ≥ 0, or NaN below two seeds, got -0.1$"):
        precision.seeds_to_add([-0.1], [12], precision.Design(1.0))


def test_replicates_for_a_width_by_hand():
    # The spread is 2 √10 / t(9); the least n with t(n − 1) spread/√n ≤ 1, counted up.
    spread = 2 * math.sqrt(10) / stats.t.isf(0.025, 9)
    wanted = next(n for n in range(10, 99) if stats.t.isf(0.025, n - 1) * spread / math.sqrt(n) <= 1)
    assert precision.replicates_for(2.0, 10, 1.0) == wanted
    assert precision.replicates_for(0.9, 10, 1.0) == 10
    assert precision.replicates_for(0.0, 10, 1.0) == 10


def test_worlds_for_a_share():
    assert precision.worlds_for_share(0.95) == 73
    assert precision.worlds_for_share(0.1, 0.25) == next(
        n for n in range(1, 99) if precision.wilson_interval(0.25, n)[0] >= 0.1
    )


@pytest.mark.parametrize(
    ("call", "words_"),
    [
        (lambda: precision.Design(0.0), "margin must be finite and > 0, got 0.0"),
        (lambda: precision.Design(1.0, co_primaries=0), "co_primaries must be a whole number ≥ 1, got 0"),
        (lambda: precision.Design(1.0, cap=6), "cap must be at least first = 12, got 6"),
        (lambda: precision.seeds_to_add([0.1], [1.5], precision.Design(1.0)), "seeds must be whole numbers ≥ 0"),
        (lambda: precision.seeds_to_add([0.1], [1, 2], precision.Design(1.0)), "seeds must be whole numbers ≥ 0"),
        (lambda: precision.replicates_for(math.nan, 10, 1.0), "half_width must be finite and ≥ 0, got nan"),
        (lambda: precision.replicates_for(1.0, 1, 1.0), "replicates must be a whole number ≥ 2, got 1"),
        (lambda: precision.replicates_for(1.0, 10, 1e-9), "target must be within reach of a billion replicates"),
        (lambda: precision.worlds_for_share(0.95, 0.9), "observed must lie in (0.95, 1] to show a share in (0, 1)"),
        (lambda: precision.worlds_for_share(0.95, 0.95 + 1e-9), "by more than a billion worlds can show"),
    ],
)
def test_the_design_has_doors(call, words_):
    with pytest.raises(ValueError, match=r"must") as error:
        call()
    assert words_ in str(error.value)
    assert "\n" not in str(error.value)


# --- conditions and moderators ---


def worlds_of(effect_of, number=40):
    factors = pd.DataFrame({"mask": np.tile([0.0, 0.2, 0.4, 0.6], number // 4),
                            "policy": np.repeat(["free", "shared"], number // 2)})  # fmt: skip
    effects = np.array([effect_of(row) for row in factors.itertuples()])
    return (
        effects[:, None] + np.array([-1e-3, 0.0, 1e-3]),
        factors,
        stream(0, Purpose.SIMULATED, 99).permutation(number),
    )


def test_a_condition_is_chosen_on_every_other_seed_and_confirmed_on_the_rest():
    values, factors, seeds = worlds_of(lambda row: 0.1 if row.mask >= 0.3 else -0.1)
    found = conditions.search_condition(values, factors, seeds, 0.02, ["mask", "policy"])
    assert found.condition is not None
    assert found.condition.words == "mask ≥ 0.4"
    assert found.confirmed
    assert found.effect == pytest.approx(0.1)
    terms = 6 + 2  # on masks, on policies
    assert found.searched == terms + 6 * 2
    chooses, confirms = conditions.halves([30, 10, 20, 40])
    assert (list(chooses), list(confirms)) == ([True, True, False, False], [False, False, True, True])


def test_two_terms_are_chosen_only_where_one_does_not_do():
    values, factors, seeds = worlds_of(lambda row: 0.1 if row.mask >= 0.3 and row.policy == "free" else -0.1, 80)
    found = conditions.search_condition(values, factors, seeds, 0.02, ["mask", "policy"])
    assert found.condition is not None
    assert found.condition.words == "mask ≥ 0.4 and policy is free"


def test_no_condition_is_searched_where_no_world_is_reversed():
    found = conditions.search_condition(
        np.tile([0.5, 0.51, 0.52], (20, 1)), pd.DataFrame({"dose": np.arange(20.0)}), np.arange(20), 0.1, ["dose"]
    )
    assert (found.condition, found.searched, found.confirmed) == (None, 0, False)


def test_undecided_worlds_choose_nothing_and_are_listed():
    values, factors, seeds = worlds_of(lambda row: 0.1)
    found = conditions.search_condition(values, factors, seeds, 0.02, ["mask", "policy"])
    assert (found.condition, found.confirmed, found.undecided) == (None, False, ())  # none is reversed
    values[0] = [-1, 0, 1]
    found = conditions.search_condition(values, factors, np.arange(40), 0.02, ["mask"])
    assert found.undecided == (0,)


def test_a_missing_factor_meets_no_condition():
    factors = pd.DataFrame({"mask": [0.0, np.nan], "policy": ["free", None]})
    for term in (("mask", "≤", 1.0), ("policy", "is not", "shared")):
        assert list(conditions.Condition((term,)).holds(factors)) == [True, False]


def test_the_doors_of_conditions():
    values, factors, seeds = worlds_of(lambda row: 0.1)
    with pytest.raises(
        ValueError, match=r"^seeds must be one per world, each once, got shape \(40,\) with 1 different"
    ):
        conditions.search_condition(values, factors, 0 * seeds, 0.02, ["mask"])
    with pytest.raises(
        ValueError, match=r"^factors and seeds must have a row per world, 40, got 40 and 40, without dose$"
    ):
        conditions.search_condition(values, factors, seeds, 0.02, ["dose"])


def test_the_effect_by_dose_has_a_row_per_value_or_per_bin():
    found = moderators.effect_by_dose([1.0, 2.0, 3.0, 5.0, 9.0], [1, 1, 2, 2, 4])
    assert found[["dose", "effect", "worlds"]].to_numpy().tolist() == [[1, 1.5, 2], [2, 4, 2], [4, 9, 1]]
    assert np.isnan(found["low"].iloc[2])
    binned = moderators.effect_by_dose(np.arange(30.0), np.arange(30.0), bins=3)
    assert list(binned["worlds"]) == [10, 10, 10]
    assert list(moderators.effect_by_dose(np.arange(30.0), [0.0] * 20 + [*range(1, 11)], bins=3)["worlds"]) == [20, 10]


def test_a_slope_is_least_squares_and_the_effect_by_value_a_mean():
    dose, effects = np.arange(6.0), np.array([0.1, 0.0, 0.3, 0.5, 0.4, 0.6])
    found = moderators.slope_over_dose(effects, dose)
    assert found.slope == pytest.approx(stats.linregress(dose, effects).slope, rel=EXACT)
    assert found.low < found.slope < found.high
    by_value = moderators.effect_by_value(effects, pd.Series(list("aabbab"), index=range(6, 12)))
    assert by_value[["value", "worlds"]].to_numpy().tolist() == [["a", 3], ["b", 3]]
    assert by_value["effect"].tolist() == pytest.approx([0.5 / 3, 1.4 / 3])


def test_the_variance_that_a_factor_explains_is_omega_squared():
    effects = np.array([0.1, 0.3, 0.5, 0.9])
    table = moderators.effect_by_value(effects, pd.Series(list("aabb")))
    found = stats.f_oneway(effects[:2], effects[2:]).statistic
    assert moderators.variance_explained(effects, table) == pytest.approx((found - 1) / (found + 3))  # (F − 1)/(F + 3)
    assert math.isnan(moderators.variance_explained(np.ones(4), table.assign(effect=1.0)))
    draw = stream(0, Purpose.SIMULATED, 7)
    idle = [moderators.variance_explained(values, moderators.effect_by_value(values, pd.Series(list("abc") * 20)))
            for values in draw.normal(size=(200, 60))]  # fmt: skip
    assert abs(np.mean(idle)) < 4 * np.std(idle) / math.sqrt(200)
    with pytest.raises(ValueError, match=r"^table must be made of the 3 effects, got one of 4$"):
        moderators.variance_explained(effects[:3], table)


def test_values_of_a_factor_are_in_their_order():
    found = moderators.effect_by_value(np.arange(4.0), pd.Series([100, 25, 400, 25]))
    assert found["value"].tolist() == [25, 100, 400]


@pytest.mark.parametrize(
    ("call", "words_"),
    [
        (lambda: moderators.effect_by_dose([1.0], [1.0, 2.0]), "effects and dose must be one number per world"),
        (lambda: moderators.effect_by_dose([math.nan], [1.0]), "effects and dose must be finite"),
        (
            lambda: moderators.slope_over_dose([1.0, 2.0, 3.0], [1.0] * 3),
            "dose must have at least 3 worlds and 2 values",
        ),
        (lambda: moderators.effect_by_value([1.0], pd.Series([None])), "factor must have a value per effect"),
        (lambda: moderators.effect_by_dose([1.0], [1.0], bins=0), "bins must be a whole number ≥ 1, got 0"),
    ],
)
def test_the_doors_of_moderators(call, words_):
    with pytest.raises(ValueError, match=f"^{words_}"):
        call()


HIDES = np.ma.array([[0.1, 0.2], [0.3, 9.0], [0.2, 0.1]], mask=[[False] * 2, [False, True], [False] * 2])
DOORS = {
    "values": lambda: equivalence.mean_of(HIDES),
    "p_values": lambda: equivalence.false_discoveries_controlled(HIDES[1]),
    "differences": lambda: population.judge_units(HIDES, 0.1),
    "differences of a search": lambda: conditions.search_condition(HIDES, FRAME[:3], range(3), 0.1, ["mask"]),
    "effects": lambda: moderators.effect_by_dose(HIDES[1], [1.0, 2.0]),
    "effects by value": lambda: moderators.effect_by_value(HIDES[1], pd.Series(["a", "b"])),
    "dose": lambda: moderators.slope_over_dose([1.0, 2.0], HIDES[1]),
    "half_widths": lambda: precision.at_the_cap(HIDES[1], np.array([2, 2]), precision.Design(0.1)),
}


@pytest.mark.parametrize("door", DOORS)
def test_numbers_under_a_mask_are_never_used(door):
    with pytest.raises(ValueError, match=rf"^{door.partition(' ')[0]} must not hide entries under a mask"):
        DOORS[door]()
