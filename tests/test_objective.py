"""The fast objective is the mean pair loss by its definition, and worlds as runs lose nothing."""

import numpy as np
import pytest
import torch
from own_losses import EVERY_LOSS, PerToken, SquaredMargin, every_logistic_loss

from gradlab.lab import runs as runs_module
from gradlab.lab.objective import COLUMNS, MATMUL_COLUMNS, PairObjective, from_columns, mix, pair_slots, to_columns
from gradlab.lab.runs import Runs
from gradlab.lab.world import World, draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import PAIR_LOSSES, LogisticLoss, PairLogps

EXACT = {"rtol": 1e-10, "atol": 1e-14}


LOSSES = {**EVERY_LOSS, "squared": SquaredMargin(), "per token": PerToken()}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def ragged_world():
    """Prompts with 2, 3 and 5 observed responses of several lengths, and a reference that is not uniform."""
    generator = np.random.default_rng(5)
    logits = generator.standard_normal((3, 5))
    observed = np.array([[0, 1, 0, 0, 1], [1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], dtype=bool)
    ref_logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return World(generator.standard_normal((3, 5)), observed, ref_logp, lengths=generator.integers(1, 9, (3, 5)))


def case(world, weights=None):
    return world, exact_pairs(world) if weights is None else weights


CASES = {
    "all pairs": case(gaussian_world(4, 6, seed=1)),
    "hard labels": case(gaussian_world(4, 6), exact_pairs(gaussian_world(4, 6), labels="hard")),
    "masked responses": case(gaussian_world(4, 6, mask_rate=0.4, reference="random", length=20, length_spread=0.5)),
    "masked pairs": case(gaussian_world(4, 6, mask_rate=0.4, mask_kind="pairs", reference="random")),
    "ragged": case(ragged_world()),
    "finite data": case(gaussian_world(4, 6), draw_pairs(gaussian_world(4, 6), 5)),
    "one pair a prompt": case(gaussian_world(4, 6), draw_pairs(gaussian_world(4, 6), 1)),
    "40 prompts": case(gaussian_world(40, 3)),
}
every_case = pytest.mark.parametrize(("world", "weights"), CASES.values(), ids=CASES)


def some_policy(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


def naive_loss(loss, logp, world, weights):
    """The mean pair loss of each prompt, (X,), by its definition: all (Y, Y) ordered pairs, weighted and added up."""
    square = weights.shape
    fixed = [torch.as_tensor(table.copy()) for table in (world.ref_logp, world.token_counts)]
    sides = [
        side for table in (logp, *fixed) for side in (table[:, :, None].expand(square), table[:, None].expand(square))
    ]
    return (loss(PairLogps(*sides)) * torch.as_tensor(weights)).sum((1, 2))


def objective_of(loss, weights, world):
    ref_logp, lengths = (np.stack([table]) for table in (world.ref_logp, world.token_counts))
    return PairObjective(loss, weights[None], ref_logp, "cpu", torch.float64, lengths=lengths)


@every_loss
@every_case
def test_value_and_gradient_are_those_of_the_naive_mean_loss(loss, world, weights):
    logp = some_policy(*world.utility.shape).requires_grad_()
    expected = naive_loss(loss, logp, world, weights)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logp)
    objective = objective_of(loss, weights, world)
    columns = to_columns(logp.detach()[None], "cpu", torch.float64)
    value = objective.value(columns)
    gradient = from_columns(objective.gradient(columns), 1, world.prompts)[0]
    torch.testing.assert_close(value[: world.prompts], expected.detach(), **EXACT)
    torch.testing.assert_close(gradient, expected_gradient, **EXACT)


@every_loss
@every_case
def test_what_takes_no_part_gets_no_gradient(loss, world, weights):
    objective = objective_of(loss, weights, world)
    columns = to_columns(some_policy(1, *world.utility.shape), "cpu", torch.float64)
    gradient = objective.gradient(columns)
    assert gradient.shape == columns.shape
    assert gradient.shape[1] % COLUMNS == 0
    assert (gradient[:, world.prompts :] == 0).all()
    assert (objective.value(columns)[world.prompts :] == 0).all()
    paired = torch.as_tensor(weights.sum(1) + weights.sum(2) > 0)
    assert (gradient[:, : world.prompts].T[~paired] == 0).all()


@every_logistic_loss
@every_case
def test_under_a_logistic_loss_whatever_takes_part_gets_a_gradient(loss, world, weights):
    if loss.name in ("bpo", "minor-dpo"):
        pytest.skip("one side of a pair may have no slope")
    columns = to_columns(some_policy(1, *world.utility.shape), "cpu", torch.float64)
    gradient = objective_of(loss, weights, world).gradient(columns)
    paired = torch.as_tensor(weights.sum(1) + weights.sum(2) > 0)
    assert (gradient[:, : world.prompts].T[paired] != 0).all()


@every_loss
def test_runs_of_different_pairs_share_an_objective_and_stay_apart(loss):
    worlds = [ragged_world(), gaussian_world(3, 5), gaussian_world(3, 5, mask_rate=0.4, reference="shifted")]
    weights = np.stack([exact_pairs(world) for world in worlds])
    ref_logp, lengths = (np.stack([getattr(world, name) for world in worlds]) for name in ("ref_logp", "token_counts"))
    together = PairObjective(loss, weights, ref_logp, "cpu", torch.float64, lengths=lengths)
    logp = some_policy(3, 3, 5)
    columns = to_columns(logp, "cpu", torch.float64)
    gradients, values = from_columns(together.gradient(columns), 3, 3), together.value(columns)
    for run in range(3):
        alone = objective_of(loss, weights[run], worlds[run])
        own = to_columns(logp[run : run + 1], "cpu", torch.float64)
        assert torch.equal(gradients[run], from_columns(alone.gradient(own), 1, 3)[0])
        assert torch.equal(values[3 * run : 3 * run + 3], alone.value(own)[:3])


@every_loss
def test_other_weights_on_the_same_pairs_are_as_good_as_a_new_objective(loss):
    world = gaussian_world(4, 6, mask_rate=0.2)
    columns = to_columns(some_policy(1, 4, 6), "cpu", torch.float64)
    objective = objective_of(loss, exact_pairs(world), world)
    drawn = draw_pairs(world, 10)
    objective.reweight(drawn[None])
    fresh = objective_of(loss, drawn, world)
    torch.testing.assert_close(objective.gradient(columns), fresh.gradient(columns), **EXACT)
    torch.testing.assert_close(objective.value(columns), fresh.value(columns), **EXACT)


@every_loss
def test_the_gradient_does_not_need_grad_mode(loss):
    world, weights = CASES["ragged"]
    objective = objective_of(loss, weights, world)
    columns = to_columns(some_policy(1, 3, 5), "cpu", torch.float64)
    with torch.no_grad():
        without = objective.gradient(columns)
    assert not without.requires_grad
    assert torch.equal(without, objective.gradient(columns))


@every_loss
@every_case
def test_the_announced_number_of_slots_is_the_objectives(loss, world, weights):
    objective = objective_of(loss, weights, world)
    assert pair_slots(loss, weights[None]) == len(objective.win)


def test_one_order_of_each_pair_serves_an_antisymmetric_loss():
    world, weights = CASES["all pairs"]
    slots = {name: len(objective_of(make(), weights, world).win) for name, make in PAIR_LOSSES.items()}
    for name, make in PAIR_LOSSES.items():
        halved = isinstance(make(), LogisticLoss) and make().antisymmetric
        assert slots[name] == (15 if halved else 30)


# --- columns ---


@pytest.mark.parametrize(("runs", "prompts"), [(1, 1), (3, 7), (2, 16), (1, 33)])
def test_columns_and_back_is_the_identity(runs, prompts):
    values = torch.randn(runs, prompts, 5, dtype=torch.float64)
    columns = to_columns(values, "cpu", torch.float64)
    assert columns.shape == (5, -(-runs * prompts // COLUMNS) * COLUMNS)
    assert columns.is_contiguous()
    assert (columns[:, runs * prompts :] == 0).all()
    assert torch.equal(from_columns(columns, runs, prompts), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [8, 20])
def test_a_mixed_column_has_the_same_bits_whatever_stands_beside_it(dtype, rows):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(rows, 20, generator=generator, dtype=dtype)
    columns = torch.randn(20, 5 * COLUMNS, generator=generator, dtype=dtype)
    whole = mix(matrix, columns)
    assert MATMUL_COLUMNS % COLUMNS == 0
    torch.testing.assert_close(whole, matrix @ columns)
    for first in range(5):
        part = columns[:, first * COLUMNS : (first + 1) * COLUMNS].contiguous()
        assert torch.equal(mix(matrix, part), whole[:, first * COLUMNS : (first + 1) * COLUMNS])


# --- worlds as runs ---


def test_nested_worlds_become_runs_in_order_and_back():
    worlds = [[gaussian_world(2, 3, seed=3 * row + column) for column in range(3)] for row in range(2)]
    runs = Runs.of(worlds, None, None, 0)
    assert (runs.count, runs.prompts, runs.responses, runs.shape) == (6, 2, 3, (2, 3))
    flat = torch.arange(6.0)[None, :, None, None].expand(4, 6, 2, 3)
    nested = runs.unflatten(flat)
    assert nested.shape == (4, 2, 3, 2, 3)
    for row, column in np.ndindex(2, 3):
        assert (nested[:, row, column] == 3 * row + column).all()
        assert runs.worlds[3 * row + column] is worlds[row][column]


@pytest.mark.parametrize("slots", [1, 100, 10**4, 10**7])
@pytest.mark.parametrize("prompts", [1, 20, 50])
def test_blocks_cover_every_run_once(slots, prompts):
    runs = Runs.of([gaussian_world(prompts, 2)] * 77, None, None, 0)
    covered = [run for block in runs.blocks(slots, "cpu") for run in range(block.start, block.stop)]
    assert covered == list(range(77))


def test_a_block_keeps_to_its_room(monkeypatch):
    monkeypatch.setattr(runs_module, "BLOCK_SLOTS", 100 * COLUMNS)
    runs = Runs.of([gaussian_world(4, 2)] * 50, None, None, 0)
    assert [block.stop - block.start for block in runs.blocks(100, "cpu")] == [8] * 6 + [2]
    assert [block.stop - block.start for block in runs.blocks(1000, "cpu")] == [1] * 50  # at least one, however big


def test_data_are_what_the_world_gives():
    worlds = [gaussian_world(3, 5, seed=seed) for seed in (0, 1)]
    exact = Runs.of(worlds, None, None, 0).data()
    assert all(np.array_equal(data, exact_pairs(world)) for data, world in zip(exact, worlds, strict=True))
    better = Runs.of(worlds, None, "hard", 0).data()
    assert np.array_equal(better[1], exact_pairs(worlds[1], labels="hard"))
    drawn = Runs.of(worlds, 7, None, (3, 4))
    for split in (0, 1):
        expected = [draw_pairs(world, 7, seed=seed, split=split) for world, seed in zip(worlds, (3, 4), strict=True)]
        assert np.array_equal(drawn.data(split), np.stack(expected))
    split_by_probability = Runs.of(worlds, 7, "soft", 5).data()
    assert np.array_equal(split_by_probability[0], draw_pairs(worlds[0], 7, labels="soft", seed=5))


ONE = gaussian_world(2, 3)

BAD_RUNS = [
    ((), {}, r"worlds must be a World or a sequence with at least one, got \(\)"),
    ("abc", {}, "worlds must be a World or a sequence with at least one, got 'abc'"),
    (3, {}, "worlds must be a World or a sequence with at least one, got 3"),
    ([ONE, None], {}, "worlds must be a World or a sequence with at least one, got None"),
    ([[ONE, ONE], [ONE]], {}, "worlds must nest evenly: every sequence at one depth needs the same length"),
    ([ONE, gaussian_world(2, 4)], {}, r"worlds must have one size to train together, got \[\(2, 3\), \(2, 4\)\]"),
    ([ONE] * 3, {"seed": [1, 2]}, "seed must be one number or one per run: 3 runs, got 2 seeds"),
    (ONE, {"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
    (ONE, {"seed": 1.5}, "seed must be a whole number ≥ 0, got 1.5"),
    (ONE, {"seed": None}, "seed must be a whole number ≥ 0, got None"),
    ([ONE] * 2, {"seed": [1, True]}, "seed must be a whole number ≥ 0, got True"),
    (ONE, {"pairs": 0}, "pairs must be a whole number ≥ 1, got 0"),
    (ONE, {"pairs": 2.5}, "pairs must be a whole number ≥ 1, got 2.5"),
    (ONE, {"labels": "medium"}, "labels must be one of soft, hard; got 'medium'"),
    (ONE, {"labels": ""}, "labels must be one of soft, hard; got ''"),
]


@pytest.mark.parametrize(("worlds", "options", "message"), BAD_RUNS, ids=range(len(BAD_RUNS)))
def test_bad_runs_are_refused_in_one_line(worlds, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Runs.of(worlds, **{"pairs": None, "labels": None, "seed": 0, **options})
