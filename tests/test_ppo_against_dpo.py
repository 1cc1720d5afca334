"""The claim on PPO rests on what can differ from DPO: no row that is equal by algebra is in its average."""

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.contrasts import Contrast
from gradlab.experiments.questions import ppo_against_dpo as question
from gradlab.lab.fit import fit
from gradlab.lab.policy import tabular_policy
from gradlab.lab.ppo import fit_ppo, fit_reward
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO

SETTINGS = {**question.SETTINGS, "first_seed": 0, "seeds": 8, "block": 8, "cap": 16, "other_seeds": 6}


def reward_of(part):
    return "dpo" if part["reward"] is None else "ppo oracle" if part["reward"][0] == "oracle" else (
        f"ppo {part['reward'][1]} {part['reward'][0]}")  # fmt: skip


def ends(shift=0.0, identity=0.0, noise=1e-4):
    """Invented ends: what is judged lies ``shift`` above DPO, what is equal by algebra ``identity`` above it."""
    rng = np.random.default_rng(0)
    rows = []
    for part in question.parts(SETTINGS):
        above = 0.0
        if part["reward"] is not None and part["reward"][0] == "model":
            above = identity if part["reward"][1] == part["policy"] else shift
        rows += [
            {"method": reward_of(part), "mask": part["mask_rate"], "policy": part["policy"], "seed": seed,
             "utility_share": 0.5 + above + noise * rng.standard_normal()}
            for seed in range(part["first_seed"], part["first_seed"] + part["seeds"])
        ]  # fmt: skip
    return pd.DataFrame(rows)


def answers(frame):
    return {row.statement.label: row for row in question.verdict(frame, SETTINGS)}


@pytest.mark.parametrize(
    ("shift", "word"), [(0.05, "holds throughout"), (-0.05, "reversed"), (0.0, "no practical difference")]
)
@pytest.mark.parametrize("identity", [0.0, 0.3, -0.3])
def test_rows_that_are_equal_by_algebra_are_in_no_average(shift, word, identity):
    """Finding 5: what identity 14 decides moves neither the word nor the effect."""
    rows = answers(ends(shift, identity))
    primary = rows["other parameters"]
    assert (primary.word, primary.role, len(primary.rows)) == (word, "primary", 6)
    assert primary.effect == pytest.approx(shift, abs=1e-3)
    assert [label for label, row in rows.items() if row.role == "primary"] == ["other parameters"]
    assert rows["the policy's parameters"].role == "context"
    assert rows["the policy's parameters"].effect == pytest.approx(identity, abs=1e-3)


def test_every_cell_of_the_primary_has_other_parameters_than_its_policy():
    frame = question.by_parameters(ends())
    kinds = ends().assign(kind=lambda rows: rows["method"].str.split(" ").str[1])
    for policy, rows in frame[frame["method"] == "other model"].groupby("policy"):
        judged = kinds[(kinds["method"] == f"ppo {question.other_kind(policy)} model") & (kinds["policy"] == policy)]
        assert sorted(rows["utility_share"]) == sorted(judged["utility_share"])
    assert question.is_evidence(["model", "free"], "shared")
    for reward, policy in (
        (["model", "free"], "free"),
        (["minimum", "shared"], "free"),
        (["oracle", "free"], "shared"),
    ):
        assert not question.is_evidence(reward, policy)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["free", "shared"])
def test_with_the_policys_parameters_ppo_ends_where_dpo_ends(policy):
    """The algebra behind the rule, for both kinds of parameters: full descent on exact data."""
    worlds, training = [gaussian_world(4, 6, mask_rate=0.3, seed=0)], Training(
        policy=policy, optimizer="gd", learning_rate=1.0, steps=3000, pairs=None, record=1
    )  # fmt: skip
    scores = fit_reward(worlds, training)
    ppo = fit_ppo(worlds, scores, training=training, learning_rate=0.2).logp
    dpo = fit(worlds, DPO(), training).logp
    assert (ppo - dpo).abs().max() < 0.02


@pytest.mark.slow
def test_free_logits_on_a_shared_reward_model_end_where_dpo_with_shared_parameters_does():
    worlds = [gaussian_world(4, 6, mask_rate=0.3, seed=0)]
    training = Training(optimizer="gd", learning_rate=1.0, steps=3000, pairs=None, record=1)
    scores = fit_reward(worlds, training.but(policy=tabular_policy("shared")))
    ppo = fit_ppo(worlds, scores, training=training, learning_rate=0.2).logp
    dpo = fit(worlds, DPO(), training, policy="shared").logp
    free = fit(worlds, DPO(), training).logp
    assert (ppo - dpo).abs().max() < 0.02
    assert (free - dpo).abs().max() > 0.1


def test_seeds_are_added_to_ppo_and_dpo_of_a_wide_cell_only():
    frame = ends()
    wide = (frame["policy"] == "shared") & (frame["mask"] == 0.2) & (frame["method"] == "ppo free model")
    frame.loc[wide, "utility_share"] += 0.1 * np.random.default_rng(1).standard_normal(wide.sum())
    added = question.more(frame, SETTINGS)
    assert [(part["reward"], part["policy"], part["mask_rate"]) for part in added] == [
        (["model", "free"], "shared", 0.2), (None, "shared", 0.2)
    ]  # fmt: skip
    assert all((part["first_seed"], part["seeds"]) == (8, 8) for part in added)


def test_a_missing_cell_is_refused():
    frame = ends()
    with pytest.raises(ValueError, match="policy; shared is missing"):
        question.verdict(frame[frame["policy"] == "free"], SETTINGS)
    gap = (frame["method"] == "ppo free model") & (frame["policy"] == "shared") & (frame["mask"] == 0.4)
    with pytest.raises(ValueError, match=r"mask|dpo|paired|missing"):
        question.verdict(frame[~gap], SETTINGS)


def test_sentences_are_plain():
    rows = answers(ends(0.05))
    assert rows["other parameters"].sentence == (
        "PPO on a reward model with other parameters than the policy's reaches 5.0 points of the reachable reward more "
        "than DPO"
    )
    assert rows["the policy's parameters"].sentence.endswith(
        "ends where DPO ends, within 1.0 points of the reachable reward, as algebra says"
    )
    for contrast in question.contrasts(SETTINGS):
        assert isinstance(contrast, Contrast)
        assert all((contrast.label, contrast.better, contrast.worse, contrast.unit.words, contrast.margin > 0))
