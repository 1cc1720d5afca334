"""The experiment two-goals: its cells, its controls, its rules on made-up truth, and the committed numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.experiment import FIRST_SEED
from gradlab.experiments.questions import two_goals, two_goals_answer
from gradlab.experiments.questions.two_goals_contrasts import AT, CONTRASTS, rows_of
from gradlab.experiments.questions.two_goals_worlds import KINDS, SIDES, cells, drawn
from gradlab.lab.training import Training
from gradlab.lab.two_goals import GOALS

FRAME = Path(__file__).parents[1] / "figures" / "data" / "two-goals.parquet"
QUICK = {**two_goals.SETTINGS, **two_goals.QUICK, "training": Training(pairs=20, steps=10, record=1), "worlds": 3,
         "seeds": 2, "cap": 4, "block": 1}  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    return pd.concat([two_goals.run_part(**part) for part in two_goals.parts(QUICK)], ignore_index=True)


def made(helpful, harmless, noise=0.001, kind="hh", changed="nothing", method="bdpo at 2β", seeds=8):
    """Rows of a cell with these gains over DPO."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        base = {"kind": kind, "changed": changed, "level": np.nan, "other": np.nan, "recipe": "usual", "seed": seed}
        start, jitter = rng.random(2), noise * rng.standard_normal(2)
        rows.append({**base, "method": "dpo", "helpful": start[0], "harmless": start[1]})
        rows.append({**base, "method": method, "helpful": start[0] + helpful + jitter[0],
                     "harmless": start[1] + harmless + jitter[1]})  # fmt: skip
    return pd.DataFrame(rows)


# --- cells and parts ---


def test_a_mirrored_cell_has_the_goals_of_the_other_exchanged():
    for one, other in zip(cells("alone"), cells("mirrored"), strict=True):
        assert (one.helpful, one.harmless) == (other.harmless, other.helpful)
        assert [name for name in SIDES if getattr(one.helpful, name) != getattr(one.harmless, name)] == [one.changed]


def test_an_exchanged_cell_differs_from_the_world_like_hh_in_one_property():
    usual, *others = cells("hh")
    for cell in others:
        if "exchanged" in cell.changed:
            name = cell.changed.removesuffix(" exchanged")
            assert usual.helpful.but(**{name: getattr(usual.harmless, name)}) == cell.helpful
            assert usual.harmless.but(**{name: getattr(usual.helpful, name)}) == cell.harmless


def test_a_drawn_world_stays_itself_however_many_are_drawn():
    first = [drawn(number, 7) for number in range(20)]
    assert first == [drawn(number, 7) for number in range(20)]
    assert first[0] != drawn(0, 8)
    assert len({cell.helpful for cell in first} | {cell.harmless for cell in first}) == 40
    lengths = [cell.helpful.length == 1 for cell in first]
    assert 0 < sum(lengths) < 20


def test_judged_seeds_were_not_looked_at_before_and_the_sample_is_a_part():
    parts = two_goals.parts(two_goals.SETTINGS)
    assert {part["first_seed"] for part in parts} == {FIRST_SEED}
    assert all(part in parts for part in two_goals.sample(two_goals.SETTINGS))
    assert len(two_goals.sample(two_goals.SETTINGS)) == 5


@pytest.mark.slow
def test_further_seeds_are_asked_for_by_width_alone(frame):
    wanted = two_goals.more(frame, QUICK)
    assert {part["kind"] for part in wanted} == {"hh", "alone"}
    assert {(part["first_seed"], part["seeds"]) for part in wanted} == {(2, 1)}
    assert {part["method"] for part in wanted} == {*QUICK["methods"], *QUICK["controls"]}
    assert two_goals.more(frame, {**QUICK, "cap": 2}) == []
    flat = frame.assign(**{goal: frame["method"].map({"dpo": 0.0}).fillna(-0.5) for goal in GOALS})
    assert two_goals.more(flat, QUICK) == []  # no spread: precise, whatever the sign


# --- the frame ---


@pytest.mark.slow
def test_the_frame_has_every_declared_cell_once(frame):
    apart = frame[frame["kind"] != "equal KL"].fillna({"level": 0.0, "other": 0.0})
    assert not apart.duplicated(["kind", "changed", "level", "other", "recipe", "method", "seed"]).any()
    assert set(apart["kind"]) == {*KINDS, "drawn"}
    assert set(frame["method"]) == {"dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", AT}
    usual = frame[frame["kind"] == "hh"].query("recipe == 'usual' and changed == 'nothing'")
    assert set(usual["seed"]) == {0, 1}


@pytest.mark.slow
def test_the_verdict_judges_every_contrast(frame):
    rows = two_goals.verdict(frame, QUICK)
    assert [row.statement for row in rows] == list(CONTRASTS)
    absent = {row.statement.label for row in rows if row.word == "not run"}
    assert absent >= {"harmless: shared parameters", "helpful: shared parameters"}
    with pytest.raises(ValueError, match="must have the declared cells"):
        two_goals.verdict(frame[frame["kind"] != "map"], QUICK)


@pytest.mark.slow
def test_towards_the_favoured_goal_follows_the_larger_balance(frame):
    worlds = rows_of(next(one for one in CONTRASTS if one.population == "worlds"), frame)
    ahead = worlds["balance_harmless"] >= worlds["balance_helpful"]
    gap = worlds["harmless"] - worlds["helpful"]
    np.testing.assert_array_equal(worlds["towards"], np.where(ahead, gap, -gap))
    assert (worlds.groupby("level")["balance_helpful"].nunique() == 1).all()


# --- predictions and answer, on known truth ---


@pytest.mark.parametrize(
    ("helpful", "harmless", "noise", "word"),
    [
        (0.0, 0.06, 0.001, "shown"), (0.01, 0.03, 0.001, "shown"), (0.05, 0.06, 0.001, "absent"),
        (-0.05, 0.06, 0.001, "absent"), (0.0, 0.01, 0.001, "absent"), (0.0, 0.02, 0.05, "open"),
    ],
)  # fmt: skip
def test_the_pattern_is_told_by_both_intervals(helpful, harmless, noise, word):
    assert two_goals_answer.pattern(two_goals_answer.gains(made(helpful, harmless, noise))) == word


def test_a_gain_is_a_paired_difference_with_a_t_interval():
    found = two_goals_answer.gains(made(0.0, 0.05, 0.0))
    assert found["harmless"].mean == pytest.approx(0.05)
    assert found["harmless"].low == pytest.approx(found["harmless"].high)


def test_an_exchange_turns_a_gain_round_where_the_other_goal_is_then_ahead():
    gains = {"nothing": (-0.08, 0.06), "basin exchanged": (-0.06, 0.05), "length exchanged": (0.03, -0.02),
             "share exchanged": (0.0, 0.0)}  # fmt: skip
    made_up = pd.concat([made(*gain, changed=changed) for changed, gain in gains.items()])
    assert two_goals_answer.turning(made_up) == ["length"]


def test_equal_lengths_and_signs_are_marked_by_their_rules():
    of_lengths = next(one for one in two_goals_answer.PREDICTIONS if "Equal lengths" in one.text)

    def marked(usual, equal):
        return of_lengths.check(pd.concat([made(0, usual), made(0, equal, changed="equal lengths")])).word

    assert (marked(0.06, 0.01), marked(0.06, 0.05), marked(-0.06, 0.05)) == ("held", "failed", "undecided")
    sign = next(one for one in two_goals_answer.PREDICTIONS if "The sign" in one.text)
    worlds = [made(gain, -gain, kind="drawn", changed="all").assign(level=float(number), balance_helpful=balance,
                                                                 balance_harmless=-balance)
              for number, (gain, balance) in enumerate([(0.05, 0.01), (-0.05, -0.01)] * 6)]  # fmt: skip
    assert sign.check(pd.concat(worlds)).word == "held"
    assert sign.check(pd.concat(worlds).assign(balance_helpful=-0.01, balance_harmless=-0.01)).word == "undecided"
    turned = [rows.assign(balance_helpful=-rows["balance_helpful"], balance_harmless=-rows["balance_harmless"])
              for rows in worlds]  # fmt: skip
    assert sign.check(pd.concat(turned)).word == "failed"


@pytest.mark.slow
def test_the_exchanged_names_are_compared_bit_for_bit(frame):
    swap = next(one for one in two_goals_answer.PREDICTIONS if "names of the goals" in one.text)
    assert swap.check(frame).word == "held"
    moved = frame.assign(helpful=frame["helpful"] + (frame["kind"] == "mirrored") * 1e-9)
    assert swap.check(moved).word == "failed"


@pytest.mark.slow
def test_every_prediction_is_marked_and_the_answer_begins_with_a_short_sentence(frame):
    for prediction in two_goals_answer.PREDICTIONS:
        assert prediction.check(frame).because
    said = two_goals_answer.answer(frame)
    assert said.endswith(".")
    assert len(said.partition(". ")[0]) < 300
    assert "nan" not in said


def test_the_committed_frame_is_todays_by_its_first_numbers():
    committed = pd.read_parquet(FRAME)
    usual = "kind == 'hh' and changed == 'nothing' and recipe == 'usual' and seed == 1000"
    rows = committed.query(usual).set_index("method")
    cell = cells("hh")[0]
    for method in ("dpo", "bdpo at 2β"):
        again = two_goals._trained(method, 1.0, [(cell, FIRST_SEED)], two_goals.TRAINING).iloc[0]
        for column in (*GOALS, "kl", "balance_helpful", "balance_harmless"):
            assert rows.loc[method, column] == pytest.approx(again[column], abs=1e-6), (method, column)


def test_the_answer_at_equal_kl_has_the_numbers_of_the_judged_rows():
    frame = pd.read_parquet(FRAME)
    told = two_goals_answer.at_equal_kl(frame)
    judged = [one for one in CONTRASTS if one.claim == "two-goals-pattern" and "kl" in one.by]
    rows = {one.value: one.judged(rows_of(one, frame)) for one in judged}
    for goal in GOALS:
        row = rows[goal]
        assert (told[goal].mean, told[goal].low, told[goal].high) == pytest.approx((row.effect, row.low, row.high))


def test_the_committed_language_models_are_told_by_hand():
    pairs = pd.read_parquet(FRAME.parents[1] / "llm" / "pairs.parquet")
    means = []
    for _, rows in pairs.query("method == 'reference' and task == 'hh'").groupby(["size", "seed"]):
        means.append(
            np.mean([lose / (win + lose) - 0.5 for win, lose in zip(rows["ref_win"], rows["ref_lose"], strict=True)])
        )
    assert f"is {np.mean(means):+.3f} [" in two_goals_answer.in_language_models(pairs)
