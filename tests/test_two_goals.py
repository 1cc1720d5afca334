"""A world of two goals: its properties by their formulas, its identities bit for bit, and what it refuses."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import rounding

import gradlab as gl
from gradlab.lab.two_goals import SURPRISAL, TILT, TOKENS, Goal, LabelledSet, TwoGoalWorld, two_goal_world
from gradlab.lab.world import draw_pairs, exact_pairs
from gradlab.losses import pair_loss

PLAIN = Goal()
APART = {
    "height": Goal(height=2.0), "noise": Goal(noise=0.2), "alignment": Goal(alignment=0.5), "basin": Goal(basin=3.0),
    "share": Goal(share=2.0), "conflict": Goal(conflict=0.8), "length": Goal(length=0.5),
}  # fmt: skip
QUICK = {"steps": 30, "record": 3}


def uniform(*shape):
    return np.full(shape, -np.log(shape[-1]))


def utilities(seed=0, shape=(3, 6)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape), rng.normal(size=shape)


def goal_columns(history, goal):
    return history[[f"utility_{goal}", f"utility_share_{goal}"]].to_numpy()


# --- properties, each by its formula ---


def test_the_two_utilities_are_bumps_of_their_height_and_basin_on_a_circle():
    world = two_goal_world(Goal(height=3.0, basin=5.0), Goal(height=1.0, basin=9.0), prompts=50, responses=41, seed=3)
    for goal, height, basin in (("helpful", 3.0, 5.0), ("harmless", 1.0, 9.0)):
        utility = world.goals[goal]
        assert (utility.max(1) <= height).all()
        assert (utility.max(1) > 0.9 * height).all()
        good = (utility >= height / 2).sum(1)
        assert (np.abs(good - basin) <= 1).all()


def test_the_reference_leans_as_far_as_the_alignment_and_the_lengths_say():
    u_h, u_s = utilities()
    world = two_goal_world(
        Goal(alignment=0.5, length=2.0), Goal(alignment=-1.0, length=0.5), utilities=(u_h, u_s)
    )  # fmt: skip
    shape_h, shape_s = ((u - u.min(1, keepdims=True)) / np.ptp(u, axis=1, keepdims=True) for u in (u_h, u_s))
    length = TOKENS * 2.0**shape_h * 0.5**shape_s
    logits = TILT * (0.5 * shape_h - shape_s) - SURPRISAL * length
    expected = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(world.lengths, length)
    np.testing.assert_allclose(world.ref_logp, expected, atol=1e-12)
    np.testing.assert_allclose(two_goal_world().ref_logp, -np.log(20), atol=1e-12)
    assert two_goal_world().lengths is None


@pytest.mark.parametrize("conflict", [0.0, 0.3, 1.0])
def test_the_share_of_conflicting_pairs_is_what_was_asked_for(conflict):
    world = two_goal_world(Goal(conflict=conflict), Goal(conflict=1 - conflict), seed=2)
    assert world.conflict() == pytest.approx({"helpful": conflict, "harmless": 1 - conflict}, abs=1e-12)
    opposed = (world.helpful.utility[:, :, None] - world.helpful.utility[:, None, :]) * (
        world.harmless.utility[:, :, None] - world.harmless.utility[:, None, :]
    ) < 0
    if conflict in (0.0, 1.0):
        assert (world.helpful.pairs[opposed] == 0).all() == (conflict == 0)
        assert (world.helpful.pairs[~opposed] == 0).all() == (conflict == 1)


def test_the_mixture_is_the_sum_of_both_sets_by_their_shares():
    world = two_goal_world(Goal(share=3.0, noise=0.1), Goal(share=1.0, conflict=0.7), seed=4)
    u = {name: utility[:, :, None] - utility[:, None, :] for name, utility in world.goals.items()}
    right = {name: 1 / (1 + np.exp(-gap)) for name, gap in u.items()}
    by_hand = (
        0.75 * world.helpful.pairs * (0.8 * right["helpful"] + 0.1) + 0.25 * world.harmless.pairs * right["harmless"]
    )
    np.testing.assert_allclose(exact_pairs(world), by_hand, atol=1e-15)
    np.testing.assert_allclose(exact_pairs(world).sum((1, 2)), 1.0)
    np.testing.assert_allclose(world.utility, 0.75 * world.goals["helpful"] + 0.25 * world.goals["harmless"])


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_drawn_pairs_tend_to_the_exact_ones(labels):
    world = two_goal_world(Goal(noise=0.1), Goal(conflict=0.9, share=2.0), prompts=2, responses=5, seed=1)
    drawn = draw_pairs(world, 200_000, labels=labels, seed=0)
    exact = exact_pairs(world)
    # hard and soft labels have the same mean; a share p of n draws has a standard error of at most √(p/n)
    assert (np.abs(drawn - exact) <= 5 * np.sqrt(exact / 200_000) + 1e-12).all()


def test_the_balance_is_the_mean_weight_of_the_winner_less_one_half():
    world = two_goal_world(Goal(alignment=-0.5), Goal(alignment=0.5, noise=0.1), prompts=3, responses=5, seed=1)
    cost = -world.ref_logp
    for name, labelled in world.sets.items():
        total = 0.0
        for x in range(3):
            for i in range(5):
                for j in range(5):
                    if i != j:
                        total += labelled.labels("soft")[x, i, j] * (cost[x, j] / (cost[x, i] + cost[x, j]) - 0.5)
        assert world.balance()[name] == pytest.approx(total / 3, abs=1e-14)
    assert world.balance()["helpful"] < 0 < world.balance()["harmless"]
    assert two_goal_world().balance() == pytest.approx({"helpful": 0.0, "harmless": 0.0}, abs=1e-15)


# --- training ---


def test_the_history_has_each_goals_metrics():
    worlds = [two_goal_world(seed=seed) for seed in range(2)]
    fitted = gl.fit(worlds, gl.DPO(), pairs=50, seed=[0, 1], **QUICK)
    for goal in ("helpful", "harmless"):
        utility = torch.as_tensor(np.stack([world.goals[goal] for world in worlds]))
        reference = torch.as_tensor(np.stack([world.ref_logp for world in worlds]))
        expected = gl.metrics.expected_utility(fitted.policies, utility).flatten().numpy()
        shares = gl.metrics.utility_share(fitted.policies, utility, reference).flatten().numpy()
        np.testing.assert_array_equal(fitted.history[f"utility_{goal}"], expected)
        np.testing.assert_array_equal(fitted.history[f"utility_share_{goal}"], shares)
    assert {"kl", "unobserved_mass"} <= set(fitted.history)
    assert "utility_helpful" not in gl.fit(gl.gaussian_world(), gl.DPO(), **QUICK).history


@pytest.mark.parametrize("loss", ["dpo", "bdpo", "length-dpo"])
@pytest.mark.parametrize("pairs", [None, 40])
@pytest.mark.parametrize("changed", APART)
def test_exchanged_names_exchange_the_result_bit_for_bit(changed, pairs, loss):
    one = two_goal_world(PLAIN, APART[changed], prompts=4, responses=8, seed=5)
    other = two_goal_world(APART[changed], PLAIN, prompts=4, responses=8, seed=5)
    for swapped in (one.swapped(), other):
        for name in ("utility", "ref_logp", "observed", "token_counts"):
            assert np.array_equal(getattr(swapped, name), getattr(one, name)), name
        assert np.array_equal(swapped.goals["helpful"], one.goals["harmless"])
        former, latter = (gl.fit(w, pair_loss(loss), pairs=pairs, seed=7, **QUICK) for w in (one, swapped))
        assert torch.equal(former.policies, latter.policies)
        np.testing.assert_array_equal(goal_columns(former.history, "helpful"), goal_columns(latter.history, "harmless"))
        np.testing.assert_array_equal(goal_columns(former.history, "harmless"), goal_columns(latter.history, "helpful"))
        pd.testing.assert_series_equal(former.history["utility_share"], latter.history["utility_share"])


@pytest.mark.parametrize("engine", ["fused", "eager"])
def test_two_equal_sets_train_as_one_goal_does(engine):
    plain = gl.gaussian_world(5, 8, mask_rate=0.0, reference="random", seed=3)
    labelled = LabelledSet(plain.utility)
    world = TwoGoalWorld(ref_logp=plain.ref_logp, helpful=labelled, harmless=labelled)
    np.testing.assert_allclose(exact_pairs(world), exact_pairs(plain), atol=4e-18, rtol=1e-15)
    for loss in (gl.DPO(), gl.BalancedDPO()):
        one, two = (gl.fit(w, loss, steps=200, engine=engine).logp for w in (plain, world))
        # Adam divides by |g|: roundings of a gradient near 0 move a step by up to the learning rate's rounding
        assert float((one.exp() - two.exp()).abs().max()) < 200 * rounding(8 * 8, 1.0)
    drawn = [draw_pairs(w, 50, seed=1) for w in (plain, world)]
    np.testing.assert_array_equal(*drawn)


def test_a_share_near_one_leaves_the_other_set_out():
    u_h, u_s = utilities()
    world = two_goal_world(Goal(share=1e12), Goal(), utilities=(u_h, u_s))
    np.testing.assert_allclose(exact_pairs(world), world.helpful.labels("soft"), atol=1e-11)


def test_a_batch_gives_the_bits_of_a_run_alone_and_a_world_is_pickled_whole():
    worlds = [two_goal_world(Goal(alignment=0.5), APART[name], seed=seed) for seed, name in enumerate(APART)]
    worlds = [pickle.loads(pickle.dumps(world)) for world in worlds]
    together = gl.fit(worlds, gl.BalancedDPO(), pairs=30, seed=list(range(len(worlds))), **QUICK)
    for place, world in enumerate(worlds):
        alone = gl.fit(world, gl.BalancedDPO(), pairs=30, seed=place, **QUICK)
        assert torch.equal(alone.logp, together.logp[place])


def test_another_reference_keeps_both_sets():
    world = gl.dpo_reference(two_goal_world(seed=1), steps=20)
    assert isinstance(world, TwoGoalWorld)
    assert np.array_equal(world.goals["harmless"], two_goal_world(seed=1).goals["harmless"])


# --- what is refused ---


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: two_goal_world(utilities=(np.zeros((2, 3)), np.zeros((2, 4)))),
         r"utilities must be two arrays of one shape (prompts, responses), got (2, 3) and (2, 4)"),
        (lambda: TwoGoalWorld(ref_logp=uniform(2, 3), helpful=LabelledSet(np.zeros((2, 3))),
                              harmless=LabelledSet(np.zeros((3, 3)))),
         "both goals must have utilities of one shape, got (2, 3) and (3, 3)"),
        (lambda: TwoGoalWorld(ref_logp=uniform(2, 4), helpful=LabelledSet(np.zeros((2, 3))),
                              harmless=LabelledSet(np.zeros((2, 3)))),
         "ref_logp must have utility's shape (2, 3), got (2, 4)"),
        (lambda: TwoGoalWorld(ref_logp=uniform(2, 3), helpful=np.zeros((2, 3)), harmless=None),
         "helpful must be a LabelledSet, got"),
        (lambda: two_goal_world(utilities=np.zeros((2, 3))), "utilities must be two arrays, helpful and harmless, got"),
        (lambda: two_goal_world(utilities=(np.full((2, 3), np.nan), np.zeros((2, 3)))),
         "utilities[0] must be finite everywhere, got nan"),
        (lambda: two_goal_world(Goal(), {"height": 2}), "harmless must be a Goal, such as Goal(height=2), got"),
        (lambda: two_goal_world(prompts=0), "prompts must be"),
        (lambda: two_goal_world(responses=1), "responses must be"),
        (lambda: two_goal_world(seed=-1), "seed must be"),
        (lambda: two_goal_world(Goal(conflict=1.0), utilities=(np.arange(6.0).reshape(2, 3),) * 2),
         "conflict of helpful must leave pairs in every prompt, got 1 where prompt 0 has no conflicting pair"),
        (lambda: two_goal_world(Goal(), Goal(conflict=0.5), utilities=([[0.0, 1, 2]], [[2.0, 1, 0]])),
         "conflict of harmless must leave pairs in every prompt, got 0.5 where prompt 0 has no agreeing pair"),
        (lambda: Goal(height=0), "height must be"),
        (lambda: Goal(noise=0.6), "noise must be"),
        (lambda: Goal(alignment=1.5), "alignment must be"),
        (lambda: Goal(basin=-1), "basin must be"),
        (lambda: Goal(share=0), "share must be"),
        (lambda: Goal(conflict=2), "conflict must be"),
        (lambda: Goal(length=float("nan")), "length must be"),
        (lambda: two_goal_world().balance(np.zeros(20)), "logp must be log-probabilities ≤ 0 of shape (20, 20), got"),
        (lambda: two_goal_world().balance(np.ones((20, 20))), "logp must be log-probabilities ≤ 0 of shape (20, 20)"),
        (lambda: two_goal_world().helpful.labels("x"), "labels must be one of soft, hard; got 'x'"),
        (lambda: two_goal_world().wins("x"), "labels must be one of soft, hard; got 'x'"),
        (lambda: gl.gaussian_world().wins(None), "labels must be one of soft, hard; got None"),
        (lambda: LabelledSet(np.zeros((2, 3)), noise=0.7), "noise must be"),
        (lambda: LabelledSet(np.zeros(3)), "utility must have shape (prompts ≥ 1, responses ≥ 2), got (3,)"),
        (lambda: LabelledSet(np.zeros((1, 2)), pairs=np.ones((1, 2, 3))),
         "pairs must be symmetric, 0 or more and of shape (1, 2, 2), got"),
        (lambda: LabelledSet(np.zeros((1, 2)), pairs=-(1 - np.eye(2))[None]), "pairs must be symmetric, 0 or more"),
        (lambda: LabelledSet(np.zeros((1, 2)), pairs=np.ones((1, 2, 2))), "pairs must be 0 on the diagonal"),
        (lambda: LabelledSet(np.zeros((1, 2)), pairs=np.zeros((1, 2, 2))),
         "pairs must have a positive weight in every prompt, got none in 0"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(made, told):
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        made()
    assert "\n" not in str(raised.value)


def test_a_goal_is_changed_by_its_own_properties_alone():
    assert PLAIN.but(basin=3.0) == Goal(basin=3.0)
    with pytest.raises(ValueError, match=r"^a property of Goal must be one of height, .*got 'hight'; did you mean"):
        PLAIN.but(hight=2.0)
