"""`fit` is the loop that one would write, bit for bit in any batch, and obeys the theory's identities."""

import dataclasses
import json
import math
import pickle
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from own_losses import EVERY_LOSS, Lopsided, SquaredMargin, dear_every_loss, in_turn, product_of

from gradlab.lab import metrics, runs
from gradlab.lab.descent import recorded_steps
from gradlab.lab.fit import dpo_reference, fit
from gradlab.lab.policy import FreeLogits, RadialBasis, log_policy
from gradlab.lab.ppo import PPO, fit_ppo, fit_reward
from gradlab.lab.training import Training
from gradlab.lab.world import World, draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import DPO, PAIR_LOSSES, BalancedDPO, NaiveBalancedDPO, PairLogps

POLICIES = {"free": FreeLogits(), "shared": RadialBasis(4)}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
DATA = {"exact": {}, "finite": {"pairs": 9}, "batches": {"pairs": 9, "batch": 4}}


def worlds_of(prompts, responses, count, **settings):
    """Worlds with masks of different rates, so that they differ in their numbers of pairs too."""
    return [gaussian_world(prompts, responses, mask_rate=0.1 * index, seed=index, **settings) for index in range(count)]


def tensors(world):
    return [torch.tensor(array) for array in (world.utility, world.observed, world.ref_logp)]


def some_policy(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


def at_beta_1(loss):
    """The loss with slopes large enough to get somewhere in a few steps."""
    return replace(loss, beta=1.0) if hasattr(loss, "beta") else loss


# --- against the loop that one would write ---


def naive_fit(world, loss, policy, optimizer, learning_rate, steps, weights, start):
    theta = torch.zeros(world.prompts, policy.features(world.responses).shape[1], dtype=torch.float64)
    theta.requires_grad_()
    make = {"adam": torch.optim.Adam, "gd": torch.optim.SGD}[optimizer]
    stepper = make([theta], lr=learning_rate)
    square, weights = weights.shape, torch.tensor(weights)
    fixed = torch.tensor(world.ref_logp), torch.tensor(world.token_counts)
    for _ in range(steps):
        tables = log_policy(policy, theta, start), *fixed
        sides = (side.expand(square) for table in tables for side in (table[:, :, None], table[:, None, :]))
        stepper.zero_grad()
        (loss(PairLogps(*sides)) * weights).sum().backward()
        stepper.step()
    return log_policy(policy, theta, start).detach()


@in_turn(
    ("loss", "kind"), EVERY_LOSS,
    product_of(policy=POLICIES, optimizer={"adam": 0.1, "gd": 2.0}, pairs={"exact": None, "finite": 9}), 4,
)  # fmt: skip
def test_a_fit_is_the_naive_loop_with_torchs_optimisers(loss, kind):
    policy, learning_rate, pairs = kind.values()
    optimizer = {0.1: "adam", 2.0: "gd"}[learning_rate]
    world = gaussian_world(3, 6, mask_rate=0.2, reference="random", seed=1)
    weights = exact_pairs(world) if pairs is None else draw_pairs(world, pairs, seed=5)
    start = some_policy(3, 6)
    loss = at_beta_1(loss)
    settings = {"policy": policy, "optimizer": optimizer, "learning_rate": learning_rate, "steps": 6, "start": start}
    fitted = fit(world, loss, **settings, pairs=pairs, seed=5)
    expected = naive_fit(world, loss, policy, optimizer, learning_rate, 6, weights, start)
    assert (fitted.policies.exp() - start.exp()).abs().max() > 0.01  # it went somewhere
    # Where slopes cancel to mere rounding, 1e-17 and more, Adam divides it by as little as its ε of 1e-8, and moves
    # by its rate times that: about 1e-9 in each of six steps. A descent by the gradient itself moves by rounding.
    tolerance = 1e-8 if optimizer == "adam" else 1e-12
    torch.testing.assert_close(fitted.logp.exp(), expected.exp(), rtol=0.0, atol=tolerance)


def test_single_precision_is_double_precision_rounded():
    world = gaussian_world(3, 6)
    single, double = (fit(world, BalancedDPO(), steps=50, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert single.logp.dtype == torch.float32
    torch.testing.assert_close(single.logp.double(), double.logp, rtol=1e-4, atol=1e-4)


# --- a batch is its runs ---


def assert_batch_is_its_runs(worlds, loss, **settings):
    seeds = list(range(10, 10 + len(worlds)))
    together = fit(worlds, loss, seed=seeds, **settings)
    for run in (0, len(worlds) - 1):
        alone = fit(worlds[run], loss, seed=seeds[run], **settings)
        assert torch.equal(together.policies[:, run], alone.policies)
        rows = together.history[together.history["run"] == run].drop(columns="run").reset_index(drop=True)
        assert rows.equals(alone.history.drop(columns="run"))


@in_turn(("loss", "kind"), EVERY_LOSS, product_of(policy=POLICIES, dtype=DTYPES, data=DATA), 6)
def test_a_batch_gives_the_bits_of_each_run_alone(loss, kind):
    policy, dtype, data = kind.values()
    assert_batch_is_its_runs(worlds_of(7, 9, 3), loss, policy=policy, dtype=dtype, steps=3, record=1, **data)


@pytest.mark.parametrize("prompts", [1, 20, 33])
@every_policy
@every_dtype
@pytest.mark.parametrize("optimizer", ["adam", "gd"])
def test_a_batch_gives_the_bits_of_each_run_alone_however_many_prompts(prompts, policy, dtype, optimizer):
    settings = {"policy": policy, "dtype": dtype, "optimizer": optimizer, "steps": 3, "record": 1}
    assert_batch_is_its_runs(worlds_of(prompts, 10, 4), BalancedDPO(), **settings)


def test_blocks_change_no_bit(monkeypatch):
    worlds = worlds_of(20, 6, 5)
    whole = fit(worlds, BalancedDPO(), steps=5, pairs=9)
    monkeypatch.setattr(runs, "BLOCK_SLOTS", 1)
    cut = fit(worlds, BalancedDPO(), steps=5, pairs=9)
    assert torch.equal(whole.policies, cut.policies)
    assert whole.history.equals(cut.history)


def test_pair_masks_in_a_batch_change_no_bit():
    assert_batch_is_its_runs(worlds_of(7, 9, 4, mask_kind="pairs"), DPO(), pairs=9, steps=4)


# --- randomness ---


@pytest.mark.parametrize("data", [{"pairs": 9}, {"pairs": 9, "batch": 4}, {"batch": 4}], ids=str)
def test_equal_seeds_give_equal_bits_and_others_differ(data):
    world = gaussian_world(3, 6)
    one, again, other = (fit(world, DPO(), steps=5, seed=seed, **data) for seed in (1, 1, 2))
    assert torch.equal(one.policies, again.policies)
    assert one.history.equals(again.history)
    assert not torch.equal(one.logp, other.logp)


def test_exact_data_leave_nothing_to_the_seed():
    world = gaussian_world(3, 6)
    assert torch.equal(fit(world, DPO(), steps=5, seed=1).policies, fit(world, DPO(), steps=5, seed=2).policies)


def test_one_seed_for_many_runs_is_that_seed_in_each():
    worlds = worlds_of(3, 6, 2)
    assert torch.equal(
        fit(worlds, DPO(), pairs=5, steps=3, seed=4).logp, fit(worlds, DPO(), pairs=5, steps=3, seed=[4, 4]).logp
    )


@pytest.mark.parametrize("seed", [np.array(4), np.int8(4), torch.tensor(4), np.array([4, 4]), (4, 4)])
def test_seeds_may_be_of_any_type_of_whole_numbers(seed):
    worlds = worlds_of(3, 6, 2)
    assert torch.equal(
        fit(worlds, DPO(), pairs=5, steps=3, seed=seed).logp, fit(worlds, DPO(), pairs=5, steps=3, seed=4).logp
    )


def test_mini_batches_change_from_step_to_step():
    # Of one drawn pair a step, plain gradient descent moves two logits: five steps on one batch would move no others.
    world = gaussian_world(1, 12)
    fitted = fit(world, DPO(), optimizer="gd", learning_rate=1.0, batch=1, steps=5, record=9)
    moved = (fitted.logp - fitted.logp.median()).abs() > 1e-6
    assert moved.sum() > 2


def test_mini_batches_come_from_the_data_set():
    world = gaussian_world(1, 12)
    fitted = fit(world, DPO(), optimizer="gd", learning_rate=1.0, pairs=2, batch=1, steps=20, seed=3)
    weights = draw_pairs(world, 2, seed=3)
    paired = torch.tensor(weights.sum(1) + weights.sum(2) > 0)
    assert paired.sum() <= 4
    unpaired = fitted.logp[~paired]
    torch.testing.assert_close(unpaired, unpaired[:1].expand_as(unpaired), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"pairs": 9, "batch": 3, "gradients": True, "dtype": torch.float32}], ids=str)
def test_training_leaves_the_global_state_alone(settings):
    def state():
        numbers = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002
        modes = torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()
        return numbers, modes, torch.get_num_threads()

    before = state()
    fit(gaussian_world(3, 6), DPO(), steps=3, **settings)
    assert state() == before


def test_the_number_of_threads_comes_back_after_a_failure():
    @dataclass(frozen=True)
    class Broken:
        name = "broken"
        equation = source = "a test"
        antisymmetric = False

        def __call__(self, logps):
            raise RuntimeError("broken on purpose")

    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(RuntimeError, match="broken on purpose"):
            fit(gaussian_world(3, 6), Broken(), steps=3, engine="eager")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_training_works_where_gradients_are_switched_off():
    world = gaussian_world(3, 6)
    with torch.no_grad():
        without = fit(world, DPO(), steps=3, gradients=True)
    assert torch.equal(without.logp, fit(world, DPO(), steps=3).logp)


# --- what a fit holds ---


def test_leading_axes_are_those_of_the_worlds():
    worlds = worlds_of(3, 6, 6)
    nested = fit([worlds[:3], worlds[3:]], DPO(), steps=8, record=4)
    flat = fit(worlds, DPO(), steps=8, record=4)
    assert nested.policies.shape == (len(nested.steps), 2, 3, 3, 6)
    assert nested.logp.shape == (2, 3, 3, 6)
    assert torch.equal(nested.policies.flatten(1, 2), flat.policies)
    assert nested.history.equals(flat.history)
    assert fit(worlds[0], DPO(), steps=8).logp.shape == (3, 6)
    assert fit([worlds[0]], DPO(), steps=8).logp.shape == (1, 3, 6)


def test_the_history_is_the_summary_of_the_policies():
    worlds = worlds_of(3, 6, 2)
    fitted = fit(worlds, DPO(2.0), steps=20, record=5)
    assert list(fitted.history["step"].unique()) == list(fitted.steps)
    assert len(fitted.history) == 2 * len(fitted.steps)
    for _, row in fitted.history.iterrows():
        at, run = list(fitted.steps).index(row["step"]), int(row["run"])
        expected = metrics.summary(fitted.policies[at, run], *tensors(worlds[run]), beta=2.0)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value.item(), rel=1e-10, abs=1e-12), name


def test_a_loss_without_beta_has_no_ideal_policy_to_compare_with():
    worlds = worlds_of(3, 6, 2)
    without, with_beta = (fit(worlds, loss, steps=2).history for loss in (SquaredMargin(), DPO()))
    assert without["unobserved_mass_ideal"].isna().all()
    assert without.drop(columns="unobserved_mass_ideal").notna().all().all()
    assert with_beta["unobserved_mass_ideal"].notna().all()


def test_the_first_policy_is_the_start_and_the_last_the_result():
    world = gaussian_world(3, 6, reference="random")
    fitted = fit(world, DPO(), steps=5)
    torch.testing.assert_close(fitted.policies[0], torch.tensor(world.ref_logp), rtol=1e-12, atol=1e-12)
    assert torch.equal(fitted.logp, fitted.policies[-1])
    assert (fitted.steps[0], fitted.steps[-1]) == (0, 5)


@pytest.mark.parametrize(("steps", "record"), [(1, 1), (1, 25), (7, 3), (500, 25), (1000, 1)])
def test_recorded_steps_are_log_spaced_with_both_ends(steps, record):
    recorded = recorded_steps(steps, record)
    assert (recorded[0], recorded[-1]) == (0, steps)
    assert (np.diff(recorded) > 0).all()
    assert len(recorded) <= record + 1 + (record == 1)
    if record > 2 and steps > 100:
        later = recorded[recorded > 20]
        assert np.ptp(later[1:] / later[:-1]) < 0.2  # equal ratios, up to rounding


def test_what_is_recorded_does_not_change_what_is_trained():
    world = gaussian_world(3, 6)
    sparse, dense = fit(world, DPO(), steps=30, record=1), fit(world, DPO(), steps=30, record=100, gradients=True)
    assert list(sparse.steps) == [0, 30]
    assert torch.equal(sparse.logp, dense.logp)


@pytest.mark.parametrize("name", ["dpo", "cdpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"])
@every_policy
def test_the_loss_starts_at_ln_2(name, policy):
    world = gaussian_world(3, 6, mask_rate=0.3, reference="random")
    first = fit(world, PAIR_LOSSES[name](), policy=policy, pairs=9, steps=1).history.iloc[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert first["held_out_loss"] == pytest.approx(math.log(2), abs=1e-12)


@dear_every_loss
def test_the_recorded_loss_is_the_mean_over_pairs_and_prompts(loss):
    world = gaussian_world(3, 6, mask_rate=0.3, reference="random", seed=1)
    fitted = fit(world, loss, pairs=9, steps=5, seed=2)
    tables = fitted.logp, torch.tensor(world.ref_logp), torch.tensor(world.token_counts)
    for column, split in (("loss", 0), ("held_out_loss", 1)):
        weights = draw_pairs(world, 9, seed=2, split=split)
        total = 0.0
        for prompt, win, lose in np.argwhere(weights):
            pair = PairLogps(*(table[prompt, side] for table in tables for side in (win, lose)))
            total += weights[prompt, win, lose] * loss(pair).item() / 3
        assert fitted.history[column].iloc[-1] == pytest.approx(total, rel=1e-10)


def test_the_held_out_loss_of_exact_data_is_the_loss():
    history = fit(gaussian_world(3, 6), DPO(), steps=5).history
    assert (history["loss"] == history["held_out_loss"]).all()


def test_the_settings_say_how_it_was_trained():
    settings = fit(gaussian_world(3, 6), DPO(0.5), steps=3, pairs=4, learning_rate=0.2, optimizer="gd").settings
    assert settings == {
        "loss": "DPO(beta=0.5)", "policy": "FreeLogits()", "optimizer": "gd", "learning_rate": 0.2,
        "steps": 3, "pairs": 4, "batch": None, "labels": "hard", "seed": [0], "started": "reference",
        "dtype": "torch.float64", "device": "cpu", "engine": "fused", "record": 25, "gradients": False,
    }  # fmt: skip
    assert json.loads(json.dumps(settings)) == settings


def test_ppo_keeps_the_same_promises_about_its_settings():
    world = gaussian_world(3, 6)
    pair = fit(world, DPO(), steps=3, learning_rate=0.2).settings
    ppo = fit_ppo(world, world.utility, PPO(beta=2.0), steps=3, learning_rate=0.2).settings
    assert ppo == {**pair, "loss": "PPO(beta=2.0, clip=0.2, epochs=4, samples=None)"}
    assert fit_ppo(world, world.utility, steps=3, samples=8).settings["engine"] == "eager"


# --- the recipe ---


def test_a_recipe_and_its_fields_as_arguments_are_the_same_training():
    world, recipe = gaussian_world(3, 6), Training(policy="shared", pairs=7, steps=9, optimizer="gd")
    by_recipe = fit(world, DPO(), recipe, seed=2)
    by_fields = fit(world, DPO(), policy=RadialBasis(), pairs=7, steps=9, optimizer="gd", seed=2)
    assert torch.equal(by_recipe.policies, by_fields.policies)
    assert by_recipe.settings == by_fields.settings
    assert torch.equal(fit(world, DPO(), recipe, pairs=5).policies, fit(world, DPO(), recipe.but(pairs=5)).policies)


every_training = pytest.mark.parametrize("train", [
    lambda world, **given: fit(world, DPO(), **given),
    lambda world, **given: fit_reward(world, **given),
    lambda world, **given: fit_ppo(world, world.utility, **given),
], ids=["fit", "fit_reward", "fit_ppo"])  # fmt: skip


@every_training
def test_an_unknown_field_of_the_recipe_is_refused_with_the_known_ones(train):
    with pytest.raises(ValueError, match=r"^a field of (PPO or )?Training must be one of .*; got 'lerning_rate'; did"):
        train(gaussian_world(2, 3), lerning_rate=0.1)


@every_training
@pytest.mark.parametrize("given", [None, {"steps": 3}, Training, DPO()])
def test_what_is_no_recipe_is_refused(train, given):
    with pytest.raises(ValueError, match=r"^training must be a Training, such as .*, got "):
        train(gaussian_world(2, 3), training=given)


@pytest.mark.parametrize("device", ["cudaa", "meta", "mps", None, 3])
def test_a_device_that_this_machine_does_not_compute_on_is_refused(device):
    with pytest.raises(ValueError, match=rf"^device must name a device of this machine, .*, got {device!r}$"):
        Training(device=device)
    assert Training(device=torch.device("cpu")) == Training()


@pytest.mark.parametrize("gradients", ["yes", 1, None])
def test_gradients_are_logged_or_not(gradients):
    with pytest.raises(ValueError, match=r"^gradients must be True or False, got "):
        Training(gradients=gradients)


@pytest.mark.parametrize("name", ["float16", "flaot32", "randn"])
def test_a_precision_by_name_is_one_of_the_two_that_are_meant(name):
    with pytest.raises(ValueError, match=rf"^dtype must be one of float64, float32; got '{name}'"):
        Training(dtype=name)


def test_what_is_no_update_of_ppo_no_world_and_no_array_is_refused():
    world = gaussian_world(2, 3)
    with pytest.raises(ValueError, match=r"^update must be a PPO, such as PPO\(beta=1.0\), got "):
        fit_ppo(world, world.utility, Training())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^world must be a World, got \["):
        dpo_reference([world])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^start must be an array of numbers, got 'reference'$"):
        fit(world, DPO(), start="reference")  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), [("batch", 3), ("gradients", True)])
def test_what_only_a_pair_loss_can_follow_is_refused_elsewhere(field, value):
    world = gaussian_world(2, 3)
    for train in (lambda **given: fit_reward(world, **given), lambda **given: fit_ppo(world, world.utility, **given)):
        with pytest.raises(ValueError, match=f"^{field} must be "):
            train(**{field: value})


def test_a_recipe_is_json_able_and_its_types_have_names():
    assert Training(dtype="float32") == Training(dtype=torch.float32)
    settings = Training(policy="shared", dtype="float32").settings()
    assert json.loads(json.dumps(settings)) == settings
    assert (settings["policy"], settings["dtype"]) == ("RadialBasis(centres=8, width=1.0)", "torch.float32")
    names = {field.name for field in dataclasses.fields(Training)}
    assert set(settings) == names - {"sampler", "sampler_every", "reference_every"}  # as before there were samplers
    sampled = Training(sampler="top-k:k=3").settings()
    assert set(sampled) == names
    assert Training(sampler=sampled["sampler"]) == Training(sampler="top-k:k=3")


# --- start and reference ---


def test_a_start_is_where_training_begins_and_not_its_reference():
    world, start = gaussian_world(3, 6), some_policy(3, 6)
    fitted = fit(world, DPO(), steps=3, start=start)
    torch.testing.assert_close(fitted.policies[0], start, rtol=1e-12, atol=1e-12)
    expected = metrics.kl_to_reference(start, torch.tensor(world.ref_logp))
    assert fitted.history["kl"].iloc[0] == pytest.approx(expected.item())


def test_a_start_broadcasts_over_runs_or_is_one_a_run():
    worlds, starts = worlds_of(3, 6, 2), some_policy(2, 3, 6)
    shared = fit(worlds, DPO(), steps=2, start=starts[0])
    own = fit(worlds, DPO(), steps=2, start=starts.numpy())
    torch.testing.assert_close(shared.policies[0], starts[:1].expand(2, 3, 6), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own.policies[0], starts, rtol=1e-12, atol=1e-12)


def test_training_can_go_on_where_it_stopped():
    world = gaussian_world(3, 6, reference="random")
    settings = {"optimizer": "gd", "learning_rate": 1.0}
    half = fit(world, DPO(), steps=10, **settings)
    resumed = fit(world, DPO(), steps=10, start=half.logp, **settings)
    torch.testing.assert_close(resumed.logp, fit(world, DPO(), steps=20, **settings).logp, rtol=1e-10, atol=1e-10)


def test_a_dpo_reference_is_the_policy_after_so_many_steps():
    world = gaussian_world(3, 6, mask_rate=0.2)
    shifted = dpo_reference(world, 7, learning_rate=0.1)
    expected = fit(world, DPO(), steps=7, learning_rate=0.1).logp.numpy()
    np.testing.assert_array_equal(shifted.ref_logp, expected)
    np.testing.assert_array_equal(shifted.utility, world.utility)
    np.testing.assert_array_equal(shifted.observed, world.observed)


def test_a_dpo_reference_takes_another_loss_and_precision():
    world = gaussian_world(3, 6)
    shifted = dpo_reference(world, 5, loss=DPO(3.0), dtype=torch.float32)
    expected = fit(world, DPO(3.0), steps=5).logp.numpy()
    np.testing.assert_allclose(shifted.ref_logp, expected, atol=1e-5)


# --- identities of the theory, by number ---


def one_pair_world(responses=5):
    """Responses 1 and 3 make the only pair, and 3 is the better one; hard labels put all weight on that order."""
    observed = np.zeros((1, responses), dtype=bool)
    observed[0, [1, 3]] = True
    utility = np.arange(float(responses))[None]
    return World(utility, observed, np.full((1, responses), -math.log(responses)))


def first_order_change(loss, start, learning_rate=1e-7):
    """Change of π and of log π per unit of learning rate, in one step of gradient descent."""
    settings = {"optimizer": "gd", "learning_rate": learning_rate, "steps": 1, "labels": "hard"}
    after = fit(one_pair_world(), loss, start=start, **settings).logp[0]
    before = start[0]
    return (after.exp() - before.exp()) / learning_rate, (after - before) / learning_rate


def pull(loss, start):
    """β σ(−m) of the pair: ∂L/∂log π is that, times each side's weight."""
    ref = torch.full((), -math.log(5), dtype=torch.float64)
    margin = loss.margin(PairLogps(start[0, 3], start[0, 1], ref, ref))
    return loss.beta * torch.sigmoid(-margin)


STARTS = {seed: some_policy(1, 5, seed=seed) for seed in range(4)}
every_start = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)


@every_start
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_identity_9_what_a_dpo_step_does_to_both_sides_is_not_the_partial_derivative(start, beta):
    moved, _ = first_order_change(DPO(beta), start)
    prob = start[0].exp()
    win, lose = prob[3], prob[1]
    expected = win * (1 - win + lose) / (lose * (1 + win - lose))
    assert (moved[3] / moved[1].abs()).item() == pytest.approx(expected.item(), rel=1e-5)
    assert (moved[3] / moved[1].abs()).item() != pytest.approx((lose / win).item(), rel=1e-2)


@every_start
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_identity_9_a_dpo_step_moves_unobserved_responses_by_the_gap_of_the_pair(start, beta):
    _, change = first_order_change(DPO(beta), start)
    prob = start[0].exp()
    expected = -pull(DPO(beta), start) * (prob[3] - prob[1])
    for unobserved in (0, 2, 4):
        assert change[unobserved].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


@every_start
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_identity_9_a_bdpo_step_moves_unobserved_responses_by_their_own_probability_too(start, beta):
    _, change = first_order_change(BalancedDPO(beta), start)
    prob = start[0].exp()
    total = start[0, 3] + start[0, 1]
    win_weight, lose_weight = start[0, 1] / total, start[0, 3] / total
    for unobserved in (0, 2, 4):
        direction = -(win_weight * prob[3] - lose_weight * prob[1])
        direction = direction + (win_weight - lose_weight) * ((prob**2).sum() - prob[unobserved])
        expected = pull(BalancedDPO(beta), start) * direction
        assert change[unobserved].item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize(("optimizer", "learning_rate", "steps"), [("gd", 8.0, 100), ("adam", 0.1, 600)])
@pytest.mark.parametrize("reference", ["uniform", "random"])
def test_identity_10_dpo_reaches_the_tilted_reference(beta, optimizer, learning_rate, steps, reference):
    world = gaussian_world(3, 5, scale=2.0, reference=reference)
    if optimizer == "gd":
        learning_rate /= beta**2  # the curvature goes with β²
    fitted = fit(world, DPO(beta), optimizer=optimizer, learning_rate=learning_rate, steps=steps)
    np.testing.assert_allclose(fitted.logp.exp(), np.exp(world.ideal_logp(beta)), rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("mask", [{"mask_rate": 0.4}, {"mask_rate": 0.3, "mask_kind": "pairs"}], ids=str)
def test_identity_10_holds_on_observed_responses_up_to_their_mass(mask):
    world = gaussian_world(3, 6, scale=2.0, reference="random", seed=1, **mask)
    fitted = fit(world, DPO(), optimizer="gd", learning_rate=8.0, steps=300)
    gap = np.where(world.observed, fitted.logp.numpy() - world.ideal_logp(), np.nan)
    np.testing.assert_allclose(gap, np.nanmean(gap, 1, keepdims=True) * np.where(world.observed, 1, np.nan), atol=1e-8)
    if not world.observed.all():
        assert np.nanmax(np.abs(gap)) > 1e-3  # the mass itself is another one


@dear_every_loss
def test_identity_10_no_loss_lies_above_dpo_in_utility_for_its_kl(loss):
    world = gaussian_world(3, 5, scale=2.0)
    history = fit(world, loss, steps=100, learning_rate=0.2).history
    for beta in (1.0, 2.0):
        best = fit(world, DPO(beta), optimizer="gd", learning_rate=8.0 / beta**2, steps=100).history.iloc[-1]
        assert (history["utility"] - beta * history["kl"] <= best["utility"] - beta * best["kl"] + 1e-9).all()


def two_component_world():
    """Pairs only within {0, 1} and within {2, 3, 4}; response 5 is in none."""
    component = np.array([0, 0, 1, 1, 1, 2])
    hidden = (component[:, None] != component)[None]
    observed = (component < 2)[None]
    utility = np.array([[0.0, 2.0, -1.0, 0.5, 3.0, 1.0]])
    return World(utility, observed, np.full((1, 6), -math.log(6)), hidden)


def component_drifts(loss, **settings):
    """How far the mean logit of each component has moved against the unobserved response's, which DPO leaves alone."""
    start = some_policy(1, 6)
    fitted = fit(two_component_world(), loss, start=start, steps=60, **settings)
    drift = (fitted.logp - start)[0]
    assert drift.abs().max() > 0.1
    drift = drift - drift[5]
    return drift[:2].mean().item(), drift[2:5].mean().item()


@pytest.mark.parametrize("data", [{}, {"pairs": 5}, {"pairs": 5, "batch": 2}], ids=str)
def test_identity_11_under_gradient_descent_each_component_keeps_its_logit_sum(data):
    drifts = component_drifts(DPO(), optimizer="gd", learning_rate=0.5, **data)
    assert drifts == pytest.approx((0.0, 0.0), abs=1e-10)


def test_identity_11_adam_does_not_keep_logit_sums():
    assert max(map(abs, component_drifts(DPO(), optimizer="adam", learning_rate=0.05))) > 1e-2


def test_identity_11_bdpo_does_not_leave_unobserved_logits_alone():
    assert max(map(abs, component_drifts(BalancedDPO(), optimizer="gd", learning_rate=0.5))) > 1e-2


@pytest.mark.parametrize("optimizer", ["gd", "adam"])
def test_identity_11_dpo_moves_all_unobserved_logits_alike(optimizer):
    world = gaussian_world(4, 10, mask_rate=0.4, reference="random")
    fitted = fit(world, DPO(), optimizer=optimizer, learning_rate=0.5, steps=50)
    moved = fitted.logp - torch.tensor(world.ref_logp)
    for prompt in range(4):
        unobserved = moved[prompt, ~torch.tensor(world.observed[prompt])]
        torch.testing.assert_close(unobserved, unobserved[:1].expand_as(unobserved), rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("mask_kind", ["responses", "pairs"])
def test_identity_11_from_a_uniform_start_unobserved_mass_never_rises_above_the_references(mask_kind):
    worlds = [
        gaussian_world(5, 8, utility="independent", mask_rate=0.4, mask_kind=mask_kind, seed=seed) for seed in range(8)
    ]
    if mask_kind == "pairs":  # hide a response as well, so that there is mass to watch
        observed = np.ones((5, 8), bool)
        observed[:, 2] = False
        worlds = [replace(world, observed=observed) for world in worlds]
    fitted = fit(worlds, DPO(), optimizer="gd", learning_rate=3.0, steps=100, pairs=10, record=50)
    for index, world in enumerate(worlds):
        hidden = torch.tensor(~world.observed)
        by_prompt = (fitted.policies[:, index].exp() * hidden).sum(-1)
        assert (by_prompt <= torch.tensor(np.exp(world.ref_logp)).mul(hidden).sum(-1) + 1e-12).all()
        assert by_prompt[-1].sum() < by_prompt[0].sum() - 1e-3


# --- failure, progress, the door ---


@every_policy
@every_dtype
def test_a_policy_that_is_no_longer_finite_is_an_error_that_names_the_learning_rate(policy, dtype):
    rate = 1e308 if dtype == torch.float64 else 1e38
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+; learning_rate=1e\+\d+ is too large$"):
        fit(gaussian_world(2, 3), DPO(1e3), policy=policy, optimizer="gd", learning_rate=rate, steps=20, dtype=dtype)


def test_progress_is_a_bar_on_stderr_that_fills(capsys):
    fit(worlds_of(2, 4, 3), DPO(), steps=60, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "dpo: 3 runs: 100%" in err
    assert "180/180" in err


def test_without_progress_nothing_is_printed(capsys):
    fit(gaussian_world(2, 4), DPO(), steps=60)
    assert capsys.readouterr() == ("", "")


BAD_ARGUMENTS = [
    ({"optimizer": "adamw"}, r"optimizer must be one of adam, gd.*; got 'adamw'; did you mean 'adam'\?"),
    *[
        ({"learning_rate": value}, "learning_rate must be finite and > 0, got .*")
        for value in (0, -0.1, math.nan, math.inf, True, "0.1")
    ],
    *[({"steps": value}, "steps must be a whole number ≥ 1, got .*") for value in (0, -5, 2.0, True, None)],
    *[({"record": value}, "record must be a whole number ≥ 1, got .*") for value in (0, 2.5, None)],
    *[({"batch": value}, "batch must be a whole number ≥ 1, got .*") for value in (0, -1, 2.5, True)],
    *[({"pairs": value}, "pairs must be a whole number ≥ 1, got .*") for value in (0, -1, 2.5, True)],
    ({"labels": "mixed"}, "labels must be one of soft, hard; got 'mixed'"),
    ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
    ({"start": np.zeros((3, 4))}, r"start must broadcast to shape \(2, 3\), got \(3, 4\)"),
    ({"start": np.zeros((2, 3))}, "start must hold log-probabilities that sum to one .*"),
    ({"start": np.full((2, 3), np.nan)}, "start must be finite everywhere, got nan"),
    ({"start": torch.tensor([0.0, -math.inf, -math.inf])}, "start must be finite everywhere, got -inf"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_ARGUMENTS, ids=range(len(BAD_ARGUMENTS)))
def test_a_bad_argument_is_refused_in_one_line_with_its_name_and_value(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$") as error:
        fit(gaussian_world(2, 3), DPO(), **{"steps": 2, **arguments})
    name, value = next(iter(arguments.items()))
    assert name in str(error.value)
    assert name == "start" or f"got {value!r}" in str(error.value)


def test_antisymmetry_is_believed_of_a_logistic_loss_only():
    class Pretender(Lopsided):
        antisymmetric = True

    with pytest.raises(ValueError, match=r"^antisymmetric must be False of .*Pretender\(beta=2\.0\): .*$") as error:
        fit(gaussian_world(2, 3), Pretender(2.0), steps=2)
    assert "\n" not in str(error.value)


# --- another device ---


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    @pytest.mark.parametrize("loss", [DPO(), BalancedDPO(), NaiveBalancedDPO(symmetric=True)], ids=lambda one: one.name)
    @every_policy
    @pytest.mark.parametrize("data", DATA.values(), ids=DATA)
    def test_it_agrees_with_the_cpu(self, loss, policy, data):
        worlds = worlds_of(7, 9, 3)
        cpu, cuda = (fit(worlds, loss, policy=policy, steps=50, device=device, **data) for device in ("cpu", "cuda"))
        # Adam makes steps of a gradient that is 0 but for rounding: 50 of 0.05 · 1e-17 / 1e-8 and more.
        torch.testing.assert_close(cuda.logp.cpu().exp(), cpu.logp.exp(), rtol=0.0, atol=1e-8)
        np.testing.assert_allclose(cuda.history["loss"], cpu.history["loss"], atol=1e-9)

    def test_equal_seeds_give_equal_bits(self):
        one, again = (fit(gaussian_world(7, 9), BalancedDPO(), pairs=9, steps=20, device="cuda") for _ in range(2))
        assert torch.equal(one.policies, again.policies)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("loss", "dpo"),
        ("loss", DPO),
        ("policy", "fre"),
        ("policy", RadialBasis),
        ("dtype", torch.int64),
        ("dtype", "int"),
    ],
)
def test_names_and_classes_where_objects_belong_are_refused_in_one_line(argument, value):
    arguments = {"loss": DPO(), argument: value}
    with pytest.raises(ValueError, match=f"{argument} must be") as error:
        fit(gaussian_world(2, 3), **arguments)
    assert "\n" not in str(error.value)


def test_a_history_is_made_when_it_is_read_once_and_travels_with_a_pickled_fit():
    trained = fit(gaussian_world(4, 5), DPO(), steps=3, pairs=10)
    sent = pickle.loads(pickle.dumps(trained))
    assert trained.history is trained.history
    pd.testing.assert_frame_equal(sent.history, trained.history)
    assert {"utility", "kl", "loss", "held_out_loss"} <= set(trained.history)


def test_a_pickled_fit_leaves_its_data_behind():
    trained = fit(gaussian_world(20, 20), DPO(), steps=1, pairs=1000, record=1)
    sent = pickle.dumps(trained)
    assert len(sent) < len(pickle.dumps(trained._history)) / 5  # which has counts of all pairs, 20 times the policies
    once = pickle.loads(sent)
    twice = pickle.loads(pickle.dumps(once))
    for one in (once, twice):
        pd.testing.assert_frame_equal(one.history, trained.history)
        assert torch.equal(one.policies, trained.policies)
        assert one.settings == trained.settings


# --- kinds of numbers ---


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("engine", ["eager", "fused"])
def test_a_number_of_numpys_or_pytorchs_trains_as_pythons_does(kind, engine):
    world, plain = gaussian_world(2, 3), {"learning_rate": 0.5, "engine": engine}
    given = fit(world, DPO(kind(2.0)), steps=3, **{**plain, "learning_rate": kind(0.5)})
    expected = fit(world, DPO(2.0), steps=3, **plain)
    assert torch.equal(given.logp, expected.logp)
    assert given.settings == expected.settings
    assert type(given.settings["learning_rate"]) is float
