"""The transport experiment: the distribution that draws its worlds, which worlds are added, and how they are judged."""

import dataclasses
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradlab.experiments import frames
from gradlab.experiments.contrasts import Judged
from gradlab.experiments.experiment import FIRST_SEED
from gradlab.experiments.precision import Endpoint, worlds_to_add
from gradlab.experiments.questions import grid, worlds, worlds_drawn
from gradlab.experiments.questions.worlds_drawn import dose, drawn
from gradlab.experiments.report.wording import reversed_units, wide_average
from gradlab.lab.world import gaussian_world
from gradlab.stats.precision import Design

MANY = 2000
QUICK = frames.declared(worlds.EXPERIMENT, quick=True)


@pytest.fixture(scope="module")
def population():
    """Many worlds of the quick draw, as a frame of their settings."""
    return pd.DataFrame([drawn(number, 0, 6).columns() for number in range(MANY)])


# --- the distribution ---


@pytest.mark.parametrize(
    ("column", "options"),
    [
        ("utility_kind", ("gaussian", "gaussian-random", "log-gaussian", "independent")),
        ("mask", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)), ("reference", ("uniform", "random", "shifted")),
        ("pairs", (25, 50, 100, 200, 400)), ("policy", ("free", "shared")),
    ],
)  # fmt: skip
def test_choices_are_uniform(population, column, options):
    found = population[column].value_counts()
    assert set(found.index) == set(options)
    assert stats.chisquare(found).pvalue > 1e-4


@pytest.mark.parametrize(
    ("column", "low", "high", "lacking", "logarithmic"),
    [
        ("scale", 1, 8, {"utility_kind": "log-gaussian"}, True),
        ("sigma", 1.5, 6, {"utility_kind": "independent"}, True), ("shift", 2, 8, None, False),
    ],
)  # fmt: skip
def test_numbers_lie_within_their_bounds_and_follow_their_law(population, column, low, high, lacking, logarithmic):
    there = population[column].notna()
    if lacking is None:
        assert (there == (population["reference"] == "shifted")).all()
    else:
        ((other, value),) = lacking.items()
        assert (there == (population[other] != value)).all()
    values = population.loc[there, column]
    assert values.between(low, high).all()
    shares = np.log(values / low) / np.log(high / low) if logarithmic else (values - low) / (high - low)
    assert stats.kstest(shares, "uniform").pvalue > 1e-4


def test_settings_are_drawn_independently(population):
    codes = population[["utility_kind", "mask", "reference", "pairs", "policy"]].apply(lambda one: pd.factorize(one)[0])
    for one, other in itertools.combinations(codes, 2):
        assert stats.chi2_contingency(pd.crosstab(codes[one], codes[other])).pvalue > 1e-4


def test_a_world_is_the_same_however_many_are_drawn_and_draws_are_disjoint():
    first = [str(drawn(number, 0, 6)) for number in range(3)]
    assert [str(drawn(number, 0, 6)) for number in (2, 0, 1)] == [first[2], first[0], first[1]]
    other = [drawn(number, FIRST_SEED, 6) for number in range(3)]
    for one, two in zip((drawn(number, 0, 6) for number in range(3)), other, strict=True):
        assert one.columns() != two.columns()
    with pytest.raises(ValueError, match="number must be a whole number"):
        drawn(-1, 0, 6)


def test_seeds_are_each_worlds_own_and_those_that_judge_begin_at_1000():
    settings = worlds.SETTINGS
    judging = [seed for number in range(settings["cap"]) for seed in drawn(number, FIRST_SEED, 6).seeds]
    quick = [seed for number in range(QUICK["cap"]) for seed in drawn(number, 0, QUICK["seeds"]).seeds]
    assert (settings["first_seed"], settings["seeds"], QUICK["first_seed"]) == (FIRST_SEED, 6, 0)
    assert min(judging) == FIRST_SEED == 1000
    assert len(set(judging)) == 6 * settings["cap"]
    assert max(quick) < FIRST_SEED


def test_the_dose_is_r_but_for_the_peak_between_responses_and_the_tail():
    for scale, sigma in ((1.0, 1.5), (8.0, 1.5), (4.0, 6.0)):
        # A peak is at most half a response away, the far end of the grid at least half of it.
        peak, tail = np.exp(-0.5 * (0.5 / sigma) ** 2), np.exp(-0.5 * (9.5 / sigma) ** 2)
        found = dose(gaussian_world(scale=scale, sigma=sigma, seed=3))
        assert scale * (peak - tail) <= found <= scale
    world = gaussian_world(prompts=2, utility="independent", scale=3.0, seed=1)
    assert dose(world, 2.0) == pytest.approx((world.utility.max(1) - world.utility.min(1)).mean() / 2)


def test_worlds_are_built_from_their_settings():
    shifted = next(one for one in (drawn(number, 0, 2) for number in range(50)) if one.reference == "shifted")
    first = shifted.worlds()[0]
    sigma, scale = (1.0 if np.isnan(number) else number for number in (shifted.sigma, shifted.scale))  # 1: not used
    same = gaussian_world(
        utility=shifted.utility, sigma=sigma, scale=scale, mask_rate=shifted.mask, reference="shifted",
        shift=shifted.shift, seed=shifted.seeds[0],
    )  # fmt: skip
    assert np.array_equal(first.utility, same.utility)
    assert np.array_equal(first.observed, same.observed)
    assert np.array_equal(first.ref_logp, same.ref_logp)
    assert (~first.observed).sum(1).tolist() == [round(20 * shifted.mask)] * 20


def test_the_stated_population_has_the_stated_utility_alone(monkeypatch):
    """Finding 10: 42 of 186 cells as stated had utilities that the paper does not state."""
    built = []

    def stop(method, made, *arguments, **more):
        built.extend(made)
        raise StopIteration

    monkeypatch.setattr(grid, "train", stop)
    for part in grid.parts(frames.declared(grid.EXPERIMENT, quick=True)):
        with pytest.raises(StopIteration):
            grid.run_part(**part)
    bumps = np.diff(np.log(np.stack([world.utility for world in built]) / 4), 2)
    assert np.allclose(bumps, -1 / 9)  # R = 4, σ = 3: log u is a parabola in every prompt
    assert {contrast.population for contrast in worlds.CONTRASTS} == {"worlds"}


# --- parts ---


def test_every_world_is_trained_once_by_each_method_of_its_policy():
    trained = [
        (number, part["method"], part["training"].policy_name, part["training"].pairs)
        for part in worlds.parts(QUICK) for number in part["numbers"]
    ]  # fmt: skip
    assert len(set(trained)) == len(trained)
    for number in range(QUICK["worlds"]):
        world = drawn(number, 0, QUICK["seeds"])
        found = [one for one in trained if one[0] == number]
        assert {one[1] for one in found} == set(QUICK["methods"][world.policy])
        assert {one[2:] for one in found} == {(world.policy, world.pairs)}


def test_a_worlds_rows_do_not_depend_on_the_worlds_beside_it():
    part = next(part for part in worlds.parts(QUICK) if len(part["numbers"]) > 1)
    part = {**part, "training": part["training"].but(steps=5)}
    together = worlds.run_part(**part)
    alone = worlds.run_part(**{**part, "numbers": part["numbers"][1:2]})
    same = together[together["world"] == part["numbers"][1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, alone)
    assert same["dose"].nunique() == 1


# --- precision, and the answers ---


def frame(number, noise=0.001, settings=worlds.SETTINGS, drop=None):
    """Return a frame of worlds in which bDPO is ahead of every method by .03 in those of small dose, else behind."""
    rng = np.random.default_rng(0)
    rows = []
    for world in range(number):
        policy = ("free", "shared")[world % 2]
        shared = {
            "world": world, "dose": float(world % 10 + 1), "mask": world // 2 % 3 / 10, "policy": policy, "pairs": 25,
            "reference": "uniform", "utility_kind": "gaussian",
        }  # fmt: skip
        effect = (0.03 if shared["dose"] < 8 else -0.03) + noise * rng.standard_normal()
        methods = settings["methods"][policy] if world < settings["worlds"] else worlds.PRIMARY_METHODS
        for method, seed in itertools.product(methods, range(3)):
            value = 0.5 + effect * (method == "bdpo") + 0.001 * rng.standard_normal()
            rows.append({**shared, "method": method, "seed": 1000 + 3 * world + seed, "utility_share": value,
                         "unobserved_mass": 1 - value, "win_rate": value})  # fmt: skip
    return pd.DataFrame(rows)


SMALL = {**worlds.SETTINGS, "worlds": 30, "block": 10, "cap": 50}


def test_worlds_are_added_in_blocks_while_an_average_is_wide_and_the_primaries_train_alone():
    wide = frame(30, noise=0.2, settings=SMALL)
    more = worlds.more(wide, SMALL)
    assert sorted({number for part in more for number in part["numbers"]}) == list(range(30, 40))
    assert {part["method"] for part in more} == set(worlds.PRIMARY_METHODS)
    assert worlds.more(frame(50, noise=0.2, settings=SMALL), SMALL) == []  # the cap
    design = Design(0.05, first=30, block=10, cap=50)
    narrow = Endpoint("utility_share", "bdpo", "dpo", ("world",), design)
    assert worlds_to_add(frame(30, settings=SMALL), [narrow]) == range(0)
    assert worlds_to_add(wide, [narrow]) == range(30, 40)


def test_the_design_of_worlds_sees_no_signs_and_counts_all_that_were_drawn():
    wide = frame(30, noise=0.2, settings=SMALL)
    masked = Endpoint("utility_share", "bdpo", "dpo", ("world",), Design(0.01, first=30, block=7, cap=50), "mask > 0")
    assert worlds_to_add(wide, [masked]) == range(30, 37)
    mirrored = wide.assign(utility_share=-wide["utility_share"])
    assert worlds_to_add(mirrored, [masked]) == range(30, 37)
    with pytest.raises(ValueError, match="world must run from 0 on without a gap, got 29 worlds up to 29"):
        worlds_to_add(wide[wide["world"] != 5], [masked])


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("world == 7", "frame must have the declared values of world; 7 is missing"),
        ("world == 39", "frame must have the declared values of world; 39 is missing"),
        ("world == 7 and method == 'dpo'", "'bdpo' and 'dpo' must both have utility_share"),
        ("world == 7 and method == 'permuted λ'", "'bdpo' and 'permuted λ' must both have utility_share"),
        ("world == 7 and seed == 1021", "frame must have 3 seeds in every world; world 7 has 2"),
    ],
)
def test_a_frame_without_a_world_is_refused_in_one_line(lost, words, monkeypatch):
    table = frame(40, settings=SMALL)
    contrasts = [dataclasses.replace(one, where=one.where.replace("120", "30")) for one in worlds.CONTRASTS]
    monkeypatch.setattr(worlds, "CONTRASTS", contrasts)
    with pytest.raises(ValueError, match=words) as caught:
        worlds.verdict(table.query(f"not ({lost})"), SMALL)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def answers():
    return worlds.verdict(frame(120), worlds.SETTINGS)


def test_the_answers_are_the_declared_ones(answers):
    primaries = [one.statement for one in answers if one.role == "primary"]
    assert [(one.claim, one.value, one.baseline, one.margin, one.co_primaries) for one in primaries] == [
        ("grid-reward", "utility_share", "dpo", 0.01, 1), ("grid-unobserved", "unobserved_mass", "dpo", 0.005, 1),
        ("ablation", "win_rate", "nbdpo", 0.01, 2), ("ablation", "win_rate", "nbdpo-symmetric", 0.01, 2),
    ]  # fmt: skip
    controls = [(one.statement.claim, one.statement.label) for one in answers if one.role == "explains away"]
    assert controls == [
        (claim, label)
        for claim in ("grid-reward", "grid-unobserved")
        for label in ("DPO at β/2", "DPO at equal scale", "λ permuted among pairs")
    ]
    for one in answers:
        assert one.population == "worlds"
        assert one.statement.moderators == ("dose", "mask", "policy", "pairs", "reference", "utility_kind")
        assert "{" not in one.sentence
        assert one.sentence.startswith("in drawn worlds, ")
    masked = next(one for one in answers if one.statement.claim == "grid-unobserved")
    assert len(masked.rows) == 80


def test_worlds_that_say_the_opposite_are_named_with_their_settings_and_a_condition_leaves_them_out(answers):
    first: Judged = answers[0]
    assert first.word == "mixed"
    named = reversed_units(first, most=3)
    assert len(named) == 4
    assert named[-1] == f"{int(first.rows['reversed'].sum()) - 3} more"
    worst = first.rows.sort_values("effect").iloc[0]
    assert named[0] == (
        f"world {worst['world']} (dose {worst['dose']:g}, mask {worst['mask']:g}, policy {worst['policy']}, pairs 25, "
        "reference uniform, utility gaussian)"
    )
    assert first.search is not None
    assert first.search.condition is not None
    assert first.search.condition.words == "dose ≤ 7"
    assert first.search.confirmed
    assert reversed_units(answers[1], most=0)


def test_an_average_that_stopped_at_the_cap_says_how_wide_it_is():
    wide, narrow = (frame(120, noise=noise) for noise in (0.2, 0.001))
    primary = worlds.CONTRASTS[0]
    said = wide_average(primary.judged(wide))
    assert re.fullmatch(
        r"The average is known to ± \d\.\d points of the reachable reward\. The design asks for ± 0\.5 points of the "
        r"reachable reward, which would take about \d,\d{3} worlds; the draw stopped at its cap before\.", said,
    )  # fmt: skip
    narrow = narrow.assign(utility_share=narrow["utility_share"].where(narrow["method"] != "bdpo", 0.6))
    assert wide_average(primary.judged(narrow)) == ""
    control = next(one for one in worlds.CONTRASTS if one.role == "explains away")
    assert wide_average(control.judged(wide)) == ""


def test_the_figures_show_every_world_and_the_controls_beside():
    drawn_figures = worlds.figures(frame(120))
    assert set(drawn_figures) == set(worlds.CAPTIONS)
    reward = drawn_figures["worlds-reward"]
    titles = ("bDPO − DPO", "averages over worlds", "bDPO − (λ = ½)", "bDPO at 2β − DPO", "bDPO − permuted λ")
    assert tuple(axis.get_title() for axis in reward.axes) == titles
    first, beside = reward.axes[:2]
    states = [line for line in first.lines if line.get_label() in ("for", "against", "none", "undecided")]
    assert sum(np.size(line.get_xdata()) for line in states) == 120
    assert len({str(line.get_marker()) for line in states}) == 4  # told apart in grey
    assert [text.get_text() for text in beside.texts] == ["+1.2", "+1.2", "+0.0", "+1.2"]
    assert first.get_xscale() == "log"


def test_the_words_of_the_distribution_are_those_of_the_code():
    assert worlds_drawn.WORDS == (
        "a kind of utility, uniform over gaussian, gaussian-random, log-gaussian, independent; R log-uniform on [1, 8] "
        "and σ on [1.5, 6]; a mask rate, uniform over 0, 0.1, 0.2, 0.3, 0.4, 0.5; a reference, uniform over uniform, "
        "random, shifted (by 2 to 8 responses); pairs per prompt, uniform over 25, 50, 100, 200, 400; free logits or "
        "shared parameters; β = 1"
    )
