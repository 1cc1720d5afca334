"""The reward model and PPO: their optimum is the closed form, their path is DPO's, and no run feels its neighbours."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import rounding

from gradlab.lab.engine import EagerNotice, functions
from gradlab.lab.fit import fit
from gradlab.lab.policy import FREE_LOGITS, RadialBasis
from gradlab.lab.ppo import PPO, fill_unobserved, fit_ppo, fit_reward, ideal_logp
from gradlab.lab.world import World, draw_pairs, gaussian_world
from gradlab.losses import DPO

SHARED = RadialBasis(4)
POLICIES = pytest.mark.parametrize("policy", [FREE_LOGITS, SHARED], ids=["free", "shared"])
SAMPLES = pytest.mark.parametrize(
    ("samples", "engine"), [(None, "fused"), (None, "eager"), (16, "auto")], ids=["exact", "eager", "sampled"]
)
ENGINES = pytest.mark.parametrize("engine", ["fused", "eager"])


def small(**settings) -> World:
    return gaussian_world(4, 8, **settings)


def tensor(values) -> torch.Tensor:
    return torch.tensor(np.array(values))


def centred(values) -> torch.Tensor:
    """Up to a constant per prompt."""
    values = torch.as_tensor(values)
    return values - values.mean(-1, keepdim=True)


def kl(logp, other) -> torch.Tensor:
    """KL of each prompt."""
    return (logp.exp() * (logp - other)).sum(-1)


def objective(logits, reward, ref_logp, beta) -> torch.Tensor:
    logp = torch.log_softmax(logits, -1)
    return (logp.exp() * (reward - beta * (logp - ref_logp))).sum()


@pytest.mark.parametrize("policy", [RadialBasis, None, 3])
def test_what_is_no_policy_is_refused_in_the_same_words_everywhere(policy):
    world = small()
    doors = (
        lambda: fit(world, DPO(), policy=policy, steps=2),
        lambda: fit_reward(world, policy=policy, steps=2),
        lambda: fit_ppo(world, world.utility, policy=policy, steps=2),
    )
    said = set()
    for door in doors:
        with pytest.raises(
            ValueError, match=r"^policy must be one of free, shared, FreeLogits\(\) or RadialBasis\(\), got .*$"
        ) as error:
            door()
        said.add(str(error.value))
    assert len(said) == 1


# --- the reward model


def test_exact_pairs_give_the_utility_back_up_to_a_constant():
    world = small()
    reward = fit_reward(world, optimizer="gd", learning_rate=20.0, steps=100)
    assert reward.shape == (4, 8)
    torch.testing.assert_close(centred(reward), centred(tensor(world.utility)), atol=1e-10, rtol=0)


def test_adam_gives_the_same_differences():
    world = small()
    torch.testing.assert_close(centred(fit_reward(world)), centred(tensor(world.utility)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("policy", "rate", "steps", "atol"), [(FREE_LOGITS, 10.0, 500, 1e-10), (SHARED, 4.0, 800, 1e-3)]
)
def test_the_reward_is_a_stationary_point_of_the_penalised_likelihood(policy, rate, steps, atol):
    # Written out here, from pair weights and −log σ, to meet the trainer by another route.
    world, pairs, l2 = small(), 12, 0.03
    settings = {"optimizer": "gd", "learning_rate": rate, "steps": steps, "pairs": pairs, "l2": l2, "seed": 3}
    reward = fit_reward(world, policy=policy, **settings)
    weights = torch.as_tensor(draw_pairs(world, pairs, seed=3))
    scores = reward.clone().requires_grad_()
    margins = scores[:, :, None] - scores[:, None, :]
    loss = -(torch.nn.functional.logsigmoid(margins) * weights).sum() + 0.5 * l2 * scores.square().sum()
    loss.backward()
    assert scores.grad is not None
    assert (scores.grad @ policy.features(8)).abs().max() < atol
    assert reward.abs().max() > 0.1


def test_the_ridge_pulls_towards_zero_and_is_off_by_default():
    world = small()
    plain, pulled = fit_reward(world), fit_reward(world, l2=0.1)
    assert torch.equal(plain, fit_reward(world, l2=0.0))
    assert (pulled.norm(dim=-1) < plain.norm(dim=-1)).all()


def test_unobserved_scores_stay_at_zero_with_free_logits_and_not_with_shared_ones():
    world = small(mask_rate=0.25)
    hidden = ~tensor(world.observed)
    assert (fit_reward(world)[hidden] == 0).all()
    assert (fit_reward(world, policy=SHARED)[hidden].abs() > 1e-3).all()


# --- unobserved responses


def test_fill_unobserved_by_hand():
    reward = torch.tensor([[1.0, 5.0, 3.0, -9.0], [2.0, 2.0, 7.0, -4.0]])
    observed = np.array([[True, True, True, False], [True, False, True, True]])
    filled = {how: fill_unobserved(reward, observed, how) for how in ("model", "minimum", "mean", "maximum")}
    for how, (first, second) in {"model": (-9, 2), "minimum": (1, -4), "mean": (3, 5 / 3), "maximum": (5, 7)}.items():
        assert filled[how][0, 3] == pytest.approx(first)
        assert filled[how][1, 1] == pytest.approx(second)
        assert torch.equal(filled[how][tensor(observed)], reward[tensor(observed)])
    assert filled["model"] is not reward
    found = fill_unobserved(reward.double().numpy(), observed, "mean")
    single = rounding(4, 5.0, torch.float32)  # the sum of three rewards, and its share
    torch.testing.assert_close(found, filled["mean"].double(), rtol=0, atol=single)


def test_fill_unobserved_takes_leading_axes():
    reward = torch.randn(3, 2, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    observed = small(mask_rate=0.5).observed
    filled = fill_unobserved(reward, observed, "minimum")
    assert torch.equal(filled[2, 1], fill_unobserved(reward[2, 1], observed, "minimum"))


def test_under_gradient_descent_the_model_and_the_mean_are_one_filling():
    # A likelihood step moves the scores of a prompt by a sum of zero, so the observed ones keep their mean of 0.
    world = small(mask_rate=0.25)
    by_descent = fit_reward(world, optimizer="gd", learning_rate=3.0, steps=200)
    torch.testing.assert_close(fill_unobserved(by_descent, world.observed, "mean"), by_descent, atol=1e-12, rtol=0)
    by_adam = fit_reward(world)
    assert (fill_unobserved(by_adam, world.observed, "mean") - by_adam).abs().max() > 0.1


# --- the optimum


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_exact_ppo_reaches_the_closed_form(beta):
    worlds = [[small(reference=reference, mask_rate=0.25)] * 2 for reference in ("uniform", "shifted")]
    ref_logp = tensor([[world.ref_logp for world in row] for row in worlds])
    reward = torch.stack([torch.stack([tensor(row[0].utility), fit_reward(row[0])]) for row in worlds])
    made = fit_ppo(worlds, reward, beta=beta, optimizer="gd", learning_rate=0.5 / beta, steps=2000)
    torch.testing.assert_close(made.logp, ideal_logp(reward, ref_logp, beta), atol=1e-3, rtol=0)
    # The best value is β log Σ π_ref exp(r/β); the history holds minus that.
    best = beta * torch.logsumexp(ref_logp + reward / beta, -1).mean(-1).flatten()
    np.testing.assert_allclose(made.history["loss"][-4:], -best, atol=1e-8)


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_exact_ppo_reaches_the_closed_form_with_adam(beta):
    world = small()
    made = fit_ppo(world, world.utility, beta=beta, epochs=1, steps=1000)
    assert kl(made.logp, ideal_logp(world.utility, world.ref_logp, beta)).max() < 1e-6


def test_adam_with_several_epochs_ends_in_a_small_cycle_around_it():
    world = small()
    made = fit_ppo(world, world.utility, epochs=4, steps=2000)
    assert 1e-5 < kl(made.logp, ideal_logp(world.utility, world.ref_logp)).max() < 0.05


def test_with_shared_features_the_closed_form_is_reached_where_the_features_hold_it():
    # Independent utilities are not linear in four bumps: a shared reward model's closed form is within the reach of a
    # shared policy, the oracle's is not.
    world = small(reference="shifted", utility="independent", scale=1.0)
    reward = torch.stack([fit_reward(world, policy=SHARED), tensor(world.utility)])
    made = fit_ppo([world] * 2, reward, policy=SHARED, epochs=1, steps=1000)
    model, oracle = kl(made.logp, ideal_logp(reward, world.ref_logp)).amax(-1)
    assert model < 2e-3
    assert oracle > 0.05


def test_ideal_logp_is_the_worlds_own_for_the_oracle():
    world = small(reference="random")
    ideal = ideal_logp(world.utility, world.ref_logp, 2.0)
    torch.testing.assert_close(ideal, tensor(world.ideal_logp(2.0)), atol=rounding(20, 5.0), rtol=0)


# --- identity 14: DPO's route and the reward model's are one


@pytest.mark.parametrize("pairs", [None, 12], ids=["exact", "finite"])
@POLICIES
def test_identity_14_the_paths_agree_step_by_step(policy, pairs):
    world, beta, rate = small(reference="shifted", mask_rate=0.25), 2.0, 3.0
    common = {"policy": policy, "optimizer": "gd", "pairs": pairs}
    dpo = fit(world, DPO(beta), learning_rate=rate / beta**2, steps=6, record=100, **common)
    assert dpo.steps.tolist() == list(range(7))
    for step in range(1, 7):
        reward = fit_reward(world, learning_rate=rate, steps=step, **common)
        logratio = dpo.policies[step] - tensor(world.ref_logp)
        torch.testing.assert_close(centred(reward / beta), centred(logratio), atol=1e-12, rtol=0)
        torch.testing.assert_close(ideal_logp(reward, world.ref_logp, beta), dpo.policies[step], atol=1e-12, rtol=0)
    # Another ratio of rates takes another path.
    dpo = fit(world, DPO(beta), learning_rate=rate / beta, steps=6, record=1, **common)
    assert (ideal_logp(reward, world.ref_logp, beta) - dpo.logp).abs().max() > 0.05


@POLICIES
def test_under_adam_the_paths_agree_at_a_ratio_of_beta(policy):
    # Adam's step does not scale with the gradient, so here lr_DPO = lr_RM/β, but for its ε = 1e-8.
    world, beta = small(mask_rate=0.25), 2.0
    dpo = fit(world, DPO(beta), policy=policy, learning_rate=0.05 / beta, steps=50)
    reward = fit_reward(world, policy=policy, learning_rate=0.05, steps=50)
    torch.testing.assert_close(ideal_logp(reward, world.ref_logp, beta), dpo.logp, atol=1e-5, rtol=0)


def test_identity_14_ppo_ends_where_dpo_ends_on_observed_and_unobserved_cells():
    worlds = [small(reference=reference, mask_rate=0.25) for reference in ("uniform", "shifted")]
    ref_logp, utility, observed = (
        tensor([getattr(world, name) for world in worlds]) for name in ("ref_logp", "utility", "observed")
    )
    beta, rate = 2.0, 20.0
    dpo = fit(worlds, DPO(beta), optimizer="gd", learning_rate=rate / beta**2, steps=200)
    reward = fit_reward(worlds, optimizer="gd", learning_rate=rate, steps=200)
    torch.testing.assert_close(ideal_logp(reward, ref_logp, beta), dpo.logp, atol=1e-10, rtol=0)
    ppo = fit_ppo(worlds, reward, beta=beta, optimizer="gd", learning_rate=0.5, steps=1500)
    torch.testing.assert_close(ppo.logp, dpo.logp, atol=1e-6, rtol=0)
    # The observed cells have found the true differences, and have mean zero; the unobserved ones are still at zero.
    seen = torch.where(observed, utility, 0)
    ideal = torch.where(observed, utility - seen.sum(-1, keepdim=True) / observed.sum(-1, keepdim=True), 0)
    torch.testing.assert_close(ppo.logp, ideal_logp(ideal, ref_logp, beta), atol=1e-6, rtol=0)


# --- the update


@ENGINES
def test_one_unclipped_epoch_is_the_exact_policy_gradient(engine):
    world, beta, rate = small(reference="random"), 0.7, 0.3
    start = torch.log_softmax(torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), -1)
    expected = start.clone()
    for _ in range(5):
        logits = expected.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective(logits, tensor(world.utility), tensor(world.ref_logp), beta), logits)
        expected = torch.log_softmax(expected + rate * slope, -1)
    for clip in (None, 1e9):
        made = fit_ppo(
            world,
            world.utility,
            beta=beta,
            clip=clip,
            epochs=1,
            optimizer="gd",
            learning_rate=rate,
            steps=5,
            start=start,
            engine=engine,
        )
        torch.testing.assert_close(made.policies[0], start, atol=rounding(8, 3.0), rtol=0)  # a log-softmax more
        torch.testing.assert_close(made.logp, expected, atol=1e-13, rtol=0)


def test_clipping_limits_what_one_batch_can_do():
    world = small()
    settings = {"epochs": 400, "steps": 400, "optimizer": "gd", "learning_rate": 0.3, "record": 4000}
    clipped = fit_ppo(world, world.utility, clip=0.2, **settings)
    free = fit_ppo(world, world.utility, clip=None, **settings)
    ratio = (clipped.policies - tensor(world.ref_logp)).exp()
    # A ratio past 1 + ε gets no further push: only the last step's overshoot is above it, and then little moves.
    assert 1.2 < ratio.max() < 1.3
    assert (clipped.policies[-1] - clipped.policies[-100]).abs().max() < 0.1
    assert (free.logp - tensor(world.ref_logp)).exp().max() > 5
    assert clipped.history["kl"].iloc[-1] < 0.05 < 1 < free.history["kl"].iloc[-1]


def test_a_batch_is_kept_for_its_epochs():
    # The first step is on-policy whatever the epochs; from the second on, the stale advantage shows.
    world = small()
    one, four = (fit_ppo(world, world.utility, epochs=epochs, steps=3, record=9) for epochs in (1, 4))
    assert torch.equal(one.policies[:2], four.policies[:2])
    assert not torch.equal(one.policies[2], four.policies[2])


# --- sampled responses


@pytest.mark.parametrize("reference", ["uniform", "shifted"])
def test_sampled_ppo_comes_near_the_optimum(reference):
    # Near it all advantages vanish, and with them the sampling noise; what is left is that rare responses are rare.
    world = small(reference=reference)
    made = fit_ppo(world, world.utility, samples=64, epochs=1, steps=1500)
    assert kl(made.logp, ideal_logp(world.utility, world.ref_logp)).max() < 0.01


def test_many_samples_approach_the_exact_step():
    world = small(reference="random")
    settings = {"optimizer": "gd", "learning_rate": 1.0, "steps": 1}
    exact = fit_ppo(world, world.utility, **settings).logp
    errors = [
        (fit_ppo(world, world.utility, samples=n, **settings).logp - exact).square().mean().sqrt()
        for n in (100, 10_000)
    ]
    assert errors[1] < 0.01
    assert 4 < errors[0] / errors[1] < 25  # 1/√N: 10 on average


def test_seeds():
    world = small()
    one, again, other = (fit_ppo(world, world.utility, samples=8, steps=20, seed=seed).policies for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one[1:], other[1:])
    exact = [fit_ppo(world, world.utility, steps=20, seed=seed).policies for seed in (1, 2)]
    assert torch.equal(*exact)


# --- the engine


def both(train, **settings):
    return [train(engine=engine, **settings) for engine in ("fused", "eager")]


@pytest.mark.parametrize("descent", [("adam", 0.01), ("gd", 0.3)], ids=["adam", "gd"])
@pytest.mark.parametrize("update", [PPO(), PPO(0.5, 0.05, 7), PPO(2.0, None, 1)], ids=["usual", "clipped", "plain"])
@POLICIES
def test_fused_ppo_is_the_eager_one(policy, update, descent):
    worlds = [small(reference="random", mask_rate=0.25, seed=seed) for seed in range(5)]
    start = np.stack([world.ref_logp - 0.3 * world.utility for world in worlds])
    start -= np.logaddexp.reduce(start, axis=-1, keepdims=True)
    settings = {"policy": policy, "optimizer": descent[0], "learning_rate": descent[1], "start": start, "steps": 200}
    reward = np.stack([world.utility for world in worlds])
    fused, eager = both(lambda **given: fit_ppo(worlds, reward, update, **given), **settings)
    assert [made.settings["engine"] for made in (fused, eager)] == ["fused", "eager"]
    torch.testing.assert_close(fused.policies.exp(), eager.policies.exp(), rtol=0, atol=1e-10)
    pd.testing.assert_frame_equal(fused.history, eager.history, check_exact=False, rtol=0, atol=1e-8)
    assert (fused.logp - fused.policies[0]).abs().max() > 0.1


@pytest.mark.parametrize("pairs", [None, 20], ids=["exact", "finite"])
@pytest.mark.parametrize("l2", [0.0, 0.03])
@POLICIES
def test_a_fused_reward_model_is_the_eager_one(policy, l2, pairs):
    worlds = [small(mask_rate=0.25, seed=seed) for seed in range(5)]
    settings = {"policy": policy, "l2": l2, "pairs": pairs, "seed": range(5), "steps": 200}
    for descent in ({"optimizer": "gd", "learning_rate": 1.0}, {"learning_rate": 0.01}):
        fused, eager = both(lambda **given: fit_reward(worlds, **given), **settings, **descent)
        # Slopes that cancel, of 1 in sum at most, leave rounding, which Adam divides by its ε of 1e-8.
        atol = 1e-10 if descent["learning_rate"] == 1.0 else 200 * 0.01 * rounding(8) / 1e-8
        torch.testing.assert_close(fused, eager, rtol=0, atol=atol)
        assert fused.abs().max() > 0.1


def test_sampled_ppo_is_eager_and_says_so_where_the_engine_was_asked_for(monkeypatch):
    monkeypatch.setattr("gradlab.lab.engine.fusion._SAID", set())
    world = small()
    quiet = fit_ppo(world, world.utility, samples=8, steps=3)
    with pytest.warns(EagerNotice, match="^ppo trains eager, which is slower, since every batch is a new sample$"):
        asked = fit_ppo(world, world.utility, samples=8, steps=3, engine="fused")
    assert torch.equal(quiet.policies, asked.policies)
    assert asked.settings["engine"] == "eager"


@pytest.mark.parametrize("operation", ["minimum", "exp", "sigmoid"])
def test_a_kernel_of_another_surrogate_or_score_is_found_out(operation, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path))
    monkeypatch.setattr("gradlab.lab.engine.fusion._KERNELS", {})
    monkeypatch.setattr("gradlab.lab.engine.fusion._SAID", set())
    right = functions.OPERATIONS[operation]
    wrong = {**functions.OPERATIONS, operation: lambda *given: right(*given) * 1.01}
    monkeypatch.setattr("gradlab.lab.engine.kernel.OPERATIONS", wrong)
    world = small()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if operation == "sigmoid":
            fit_reward(world, steps=3)
        else:
            engine = fit_ppo(world, world.utility, steps=3).settings["engine"]
            assert engine == ("eager" if operation == "exp" else "fused")  # a gradient has no need of the minimum
    assert [str(each.message).split(", since")[0] for each in said] == {
        "sigmoid": ["reward model trains eager, which is slower"], "exp": ["ppo trains eager, which is slower"]
    }.get(operation, [])  # fmt: skip


# --- many runs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@SAMPLES
@POLICIES
def test_a_batch_gives_the_bits_that_each_run_gives_alone(policy, samples, engine, dtype):
    worlds = [gaussian_world(3, 11, seed=seed, mask_rate=0.2, reference="random") for seed in range(7)]
    rewards = np.stack([world.utility for world in worlds])
    seeds = list(range(7))
    settings = {"policy": policy, "samples": samples, "steps": 30, "dtype": dtype, "engine": engine}
    together = fit_ppo(worlds, rewards, seed=seeds, **settings)
    assert together.policies.dtype == dtype
    assert together.policies.shape[1:] == (7, 3, 11)
    for seed in seeds:
        alone = fit_ppo(worlds[seed], rewards[seed], seed=seed, **settings)
        assert torch.equal(alone.policies, together.policies[:, seed])
        row = together.history[together.history["run"] == seed].reset_index(drop=True).drop(columns="run")
        pd.testing.assert_frame_equal(row, alone.history.drop(columns="run"), check_exact=True)


@ENGINES
@POLICIES
def test_a_batch_of_reward_models_gives_the_bits_that_each_gives_alone(policy, engine):
    worlds = [gaussian_world(3, 11, seed=seed, mask_rate=0.2) for seed in range(7)]
    settings = {"policy": policy, "steps": 30, "pairs": 20, "l2": 0.01, "engine": engine}
    together = fit_reward(worlds, seed=list(range(7)), **settings)
    for seed in range(7):
        assert torch.equal(fit_reward(worlds[seed], seed=seed, **settings), together[seed])


def test_blocks_of_many_runs_change_nothing(monkeypatch):
    worlds = [small(seed=seed) for seed in range(20)]
    rewards = [world.utility for world in worlds]
    settings = {"samples": 4, "steps": 10, "seed": list(range(20))}
    whole = fit_ppo(worlds, rewards, **settings)
    monkeypatch.setattr("gradlab.lab.runs.BLOCK_SLOTS", 8 * 32)
    assert torch.equal(fit_ppo(worlds, rewards, **settings).policies, whole.policies)


def test_nested_worlds_and_a_reward_that_broadcasts():
    worlds = [[small(seed=seed) for seed in range(3)] for _ in range(2)]
    made = fit_ppo(worlds, worlds[0][0].utility, steps=10, samples=4)
    assert made.logp.shape == (2, 3, 4, 8)
    assert fit_reward(worlds, steps=3).shape == (2, 3, 4, 8)


def test_the_history_joins_the_one_of_fit():
    world = small()
    ppo, dpo = fit_ppo(world, world.utility, steps=10), fit(world, DPO(), steps=10)
    assert list(ppo.history.columns) == list(dpo.history.columns)
    joined = pd.concat({"ppo": ppo.history, "dpo": dpo.history})
    assert len(joined) == len(ppo.history) + len(dpo.history)
    assert ppo.history["held_out_loss"].isna().all()
    assert ppo.gradients is None
    assert ppo.settings["loss"] == "PPO(beta=1.0, clip=0.2, epochs=4, samples=None)"
    first = ppo.history.iloc[0]
    assert first["kl"] == pytest.approx(0, abs=1e-12)
    assert first["loss"] == pytest.approx(-first["utility"])


def test_recorded_policies_are_not_written_to():
    world = small()
    few, many = (fit_ppo(world, world.utility, steps=12, record=record) for record in (1, 100))
    assert torch.equal(few.policies[-1], many.policies[-1])
    torch.testing.assert_close(many.policies.logsumexp(-1), torch.zeros(13, 4, dtype=torch.float64), atol=1e-12, rtol=0)


# --- bad input


BAD_SETTINGS = [
    ({"beta": 0.0}, "beta must be finite and > 0, got 0.0"),
    ({"beta": -1}, "beta must be finite and > 0, got -1"),
    ({"clip": 0}, "clip must be finite and > 0, got 0"),
    ({"clip": float("nan")}, "clip must be finite and > 0, got nan"),
    ({"epochs": 0}, "epochs must be a whole number ≥ 1, got 0"),
    ({"samples": 0}, "samples must be a whole number ≥ 2, got 0"),
    ({"samples": 1}, "samples must be a whole number ≥ 2, got 1"),
    ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
    ({"optimizer": "sgd"}, "optimizer must be one of adam, gd"),
    ({"learning_rate": 0.0}, "learning_rate must be finite and > 0, got 0.0"),
    ({"reward": np.full((4, 8), np.nan)}, "reward must be finite everywhere, got nan"),
    ({"reward": torch.full((8,), -torch.inf)}, "reward must be finite everywhere, got -inf"),
    ({"reward": np.zeros((4, 7))}, "reward must broadcast to shape (4, 8), got (4, 7)"),
    ({"start": np.zeros((4, 8))}, "start must hold log-probabilities"),
    ({"start": np.zeros((2, 8))}, "start must broadcast to shape (4, 8), got (2, 8)"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS)
def test_bad_settings_of_ppo(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}") as caught:
        fit_ppo(small(), **{"reward": np.zeros(8), **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2": -1.0}, "l2 must be finite and lie in [0, inf), got -1.0"),
        ({"steps": 0}, "steps must be a whole number ≥ 1, got 0"),
        ({"pairs": 0}, "pairs must be a whole number ≥ 1, got 0"),
        ({"labels": "firm"}, "labels must be one of soft, hard; got 'firm'"),
    ],
)
def test_bad_settings_of_the_reward_model(settings, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        fit_reward(small(), **settings)


def test_bad_fillings():
    reward, observed = np.zeros((2, 3)), np.ones((2, 3), bool)
    with pytest.raises(ValueError, match=r"^how must be one of model, minimum, mean, maximum; got 'min'; did you mean"):
        fill_unobserved(reward, observed, "min")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^observed must broadcast to reward's shape \(2, 3\), got \(2, 4\)"):
        fill_unobserved(reward, np.ones((2, 4), bool), "mean")
    with pytest.raises(ValueError, match=r"^observed must hold a response in every prompt, got 1 without"):
        fill_unobserved(reward, np.array([[True] * 3, [False] * 3]), "mean")
    with pytest.raises(ValueError, match=r"^beta must be finite and > 0, got 0"):
        ideal_logp(reward, reward, 0)


def test_training_works_without_gradients_around_it_and_leaves_the_threads_alone():
    threads = torch.get_num_threads()
    with torch.no_grad():
        inside = fit_ppo(small(), small().utility, steps=3, samples=4).logp
    assert torch.equal(inside, fit_ppo(small(), small().utility, steps=3, samples=4).logp)
    assert torch.get_num_threads() == threads


def test_a_policy_that_breaks_is_reported_as_such():
    for samples in (None, 8):
        with pytest.raises(FloatingPointError, match="learning_rate=1e\\+308 is too large"):
            fit_ppo(small(), 1e3 * small().utility, samples=samples, optimizer="gd", learning_rate=1e308, steps=30)
