"""Losses of batches against plain loops in NumPy: values, slopes, weights as repetitions, starts, facts, doors."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, PairLogps, named_loss

every_batch_loss = pytest.mark.parametrize("name", BATCH_LOSSES)
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def random_pairs(count=7, columns=(), seed=3, least=-8.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *columns)
    sides = [least * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.01 for _ in range(4)]
    return PairLogps(*(side.to(dtype) for side in sides), *torch.randint(1, 40, (2, *shape), generator=generator))


def sigma(x):
    return 1 / (1 + np.exp(-x))


# Each takes a loss, the pairs' six columns, and the numbers that the paper holds fixed (the same columns), and returns
# the batch's mean. Only the former are moved for slopes.
def aot(loss, now, fixed):
    w, v, rw, rv = now[:4]
    return smoothed(loss, np.sort(w - v) - np.sort(rw - rv))


def aot_unpaired(loss, now, fixed):
    w, v, rw, rv = now[:4]
    return smoothed(loss, np.sort(w - rw) - np.sort(v - rv))


def smoothed(loss, lead):
    p, e = sigma(loss.beta * lead), loss.label_smoothing
    return np.mean(-(1 - e) * np.log(p) - e * np.log(1 - p))


def kto(loss, now, fixed):
    w, v, rw, rv = now[:4]
    z = max(0.0, np.mean(np.concatenate([fixed[0] - fixed[2], fixed[1] - fixed[3]])))
    winners = loss.desirable_weight * (1 - sigma(loss.beta * (w - rw - z)))
    losers = loss.undesirable_weight * (1 - sigma(loss.beta * (z - (v - rv))))
    return np.mean(np.concatenate([winners, losers]))


def dr_dpo(loss, now, fixed):
    w, v, rw, rv = now[:4]
    losses = -np.log(sigma(loss.beta * (w - rw - v + rv)))
    return -loss.outlier_scale * np.log(np.mean(np.exp(-losses / loss.outlier_scale)))


def beta_dpo(loss, now, fixed):
    gap = fixed[0] - fixed[2] - fixed[1] + fixed[3]
    beta = np.maximum(loss.beta * (1 + loss.sensitivity * (gap - gap.mean())), 1e-3)
    w, v, rw, rv = now[:4]
    return np.mean(-np.log(sigma(beta * (w - rw - v + rv))))


def alpha_dpo(loss, now, fixed):
    w, v, rw, rv, win_len, lose_len = fixed
    gap = (w - rw) / win_len - (v - rv) / lose_len
    target = loss.margin_spread * (gap - gap.mean()) / gap.std() + loss.gamma / loss.beta
    return np.mean(-np.log(sigma(loss.beta * (now[0] / win_len - now[1] / lose_len - target))))


FORMULAS = {
    "aot": aot, "aot-unpaired": aot_unpaired, "kto": kto, "dr-dpo": dr_dpo, "beta-dpo": beta_dpo, "alpha-dpo": alpha_dpo
}  # fmt: skip


def exactly(name, loss, pairs, step=1e-5):
    """The batch's loss, and its slopes at each pair by differences of fourth order: (1 + 2n,)."""
    columns = np.stack([side.double().numpy() for side in vars(pairs).values()])
    value, slopes = FORMULAS[name](loss, columns, columns), []
    for side in (0, 1):
        for pair in range(columns.shape[1]):

            def at(distance, side=side, pair=pair):
                moved = columns.copy()
                moved[side, pair] += distance * step
                return FORMULAS[name](loss, moved, columns)

            slopes.append((8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step))
    return torch.tensor([value, *slopes], dtype=torch.float64)


def computed(loss, pairs, weights=None):
    """The same by the loss itself and autograd."""
    win, lose = (side.clone().requires_grad_() for side in (pairs.win, pairs.lose))
    values = loss(replace(pairs, win=win, lose=lose), weights)
    total = values.mean() if weights is None else (weights * values).sum()
    return torch.cat([total.detach()[None], *torch.autograd.grad(total, (win, lose))])


def variants(name):
    """The loss with its defaults, at a β that matters, and with each other number changed."""
    loss = replace(BATCH_LOSSES[name](), beta=0.7)
    changed = {"label_smoothing": 0.2, "outlier_scale": 0.3}
    others = [field.name for field in fields(loss) if field.name != "beta"]
    altered = [replace(loss, **{key: changed.get(key, 1.3 * getattr(loss, key))}) for key in others]
    return [BATCH_LOSSES[name](), loss, *altered]


def test_every_loss_of_batches_has_its_formula_here():
    assert list(FORMULAS) == list(BATCH_LOSSES)


@every_batch_loss
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_over_equal_pairs_and_its_slopes_are_the_formulas(name, seed):
    for loss in variants(name):
        pairs = random_pairs(seed=seed)
        torch.testing.assert_close(computed(loss, pairs), exactly(name, loss, pairs), rtol=1e-8, atol=1e-9)


@every_batch_loss
def test_equal_weights_are_no_weights(name):
    pairs = random_pairs(9, (2, 3))
    for loss in variants(name):
        values = loss(pairs), loss(pairs, torch.full((9, 2, 3), 1 / 9, dtype=torch.float64))
        torch.testing.assert_close(*values, **EXACT)
        assert values[0].shape == (9, 2, 3)


@every_batch_loss
@pytest.mark.parametrize("counts", [(1, 2, 3, 1, 1, 4, 2), (0, 5, 1, 0, 2, 1, 1), (1, 0, 0, 0, 0, 0, 0)])
def test_whole_weights_repeat_pairs(name, counts):
    counts, pairs = torch.tensor(counts), random_pairs()
    repeated = PairLogps(*(side.repeat_interleave(counts) for side in vars(pairs).values()))
    for loss in variants(name):
        weighted = computed(loss, pairs, counts / counts.sum(dtype=torch.float64))
        value, win, lose = computed(loss, repeated).split([1, int(counts.sum()), int(counts.sum())])
        place = torch.arange(7).repeat_interleave(counts)
        sums = [torch.zeros(7, dtype=torch.float64).index_add(0, place, side) for side in (win, lose)]
        torch.testing.assert_close(weighted, torch.cat([value, *sums]), **EXACT)


@every_batch_loss
def test_columns_are_batches_by_themselves_and_pairs_may_stand_in_any_order(name):
    pairs, shares = random_pairs(8, (3,)), torch.rand(8, 3, generator=torch.Generator().manual_seed(1)).double()
    shares, order = shares / shares.sum(0), torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    loss = variants(name)[1]
    together = loss(pairs, shares)
    for column in range(3):
        alone = loss(PairLogps(*(side[:, column] for side in vars(pairs).values())), shares[:, column])
        torch.testing.assert_close(together[:, column], alone, **EXACT)
    turned = loss(PairLogps(*(side[order] for side in vars(pairs).values())), shares[order])
    torch.testing.assert_close(turned, together[order], **EXACT)


@every_batch_loss
def test_a_batch_of_one_pair_is_a_loss_of_pairs(name):
    pairs, dpo = random_pairs(1), PAIR_LOSSES["dpo"](beta=0.7)
    alone = {"kto": None, "alpha-dpo": PAIR_LOSSES["simpo"](beta=0.7, gamma=4.0)}.get(name, dpo)
    if alone is not None:
        torch.testing.assert_close(variants(name)[1](pairs), alone(pairs), **EXACT)


@every_batch_loss
def test_the_start_is_what_is_stated(name):
    for loss in variants(name):
        pairs = random_pairs(5)
        values = loss(replace(pairs, ref_win=pairs.win, ref_lose=pairs.lose))
        if loss.start_value is None:
            assert len({round(value, 9) for value in values.tolist()}) == 5
        elif loss.name != "aot":
            assert values.tolist() == pytest.approx([loss.start_value] * 5, rel=1e-12)
        else:  # both sorts are of the same numbers
            assert values.tolist() == pytest.approx([math.log(2)] * 5, rel=1e-12)


@every_batch_loss
def test_slopes_have_the_signs_that_are_stated(name):
    for loss in variants(name):
        found = [computed(loss, random_pairs(9, seed=seed, least=-60.0))[1:].split(9) for seed in range(8)]
        win, lose = (torch.stack(side) for side in zip(*found, strict=True))
        assert bool((win > 0).any()) is loss.winner_down
        assert bool((lose < 0).any()) is loss.loser_up


@every_batch_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_extreme_log_probabilities_give_numbers(name, dtype, weighted):
    ends = torch.tensor([-1e6, -1e3, -1.0, -1e-6, -0.0], dtype=dtype)
    sides = torch.cartesian_prod(ends, ends, ends, ends).T
    pairs = PairLogps(*sides, torch.full_like(sides[0], 1), torch.full_like(sides[0], 1000))
    shares = torch.ones_like(sides[0])
    shares[::3] = 0
    weights = shares / shares.sum() if weighted else None
    for beta in (1e-3, 1.0, 1e3):
        found = computed(replace(BATCH_LOSSES[name](), beta=beta), pairs, weights)
        assert found.dtype == dtype
        assert found.isfinite().all()


@every_batch_loss
def test_single_precision_is_double_precision_rounded(name):
    low = random_pairs(dtype=torch.float32)
    double = PairLogps(*(side.double() for side in vars(low).values()))
    loss = variants(name)[1]
    torch.testing.assert_close(computed(loss, low).double(), computed(loss, double), rtol=1e-4, atol=1e-5)


@every_batch_loss
def test_presets_are_hyper_parameters_and_defaults_are_published(name):
    loss = BATCH_LOSSES[name]()
    assert {key: getattr(loss, key) for key in loss.published} == dict(loss.published)
    for shipped in loss.shipped:
        assert named_loss(name, **shipped.hyper).name == name


# --- doors ---


@every_batch_loss
def test_pairs_without_a_batch_and_weights_of_another_shape_are_refused(name):
    loss, pairs = BATCH_LOSSES[name](), random_pairs(4)
    with pytest.raises(ValueError, match=r"^weights must have the pairs' shape \(4,\), got \(3,\)$"):
        loss(pairs, torch.full((3,), 1 / 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"^pairs of a batch must have a first dimension, got shape \(\)$"):
        loss(PairLogps(*(side[0] for side in vars(pairs).values())))


@pytest.mark.parametrize("side", ["win_len", "lose_len"])
def test_missing_lengths_are_named_in_one_line(side):
    with pytest.raises(ValueError, match=f"^{side} must be given, since alpha-dpo needs the lengths of .* got None$"):
        BATCH_LOSSES["alpha-dpo"]()(replace(random_pairs(), **{side: None}))


@every_batch_loss
def test_only_alpha_dpo_needs_lengths(name):
    loss, pairs = BATCH_LOSSES[name](), random_pairs()
    assert loss.needs_lengths is (name == "alpha-dpo")
    if not loss.needs_lengths:
        assert torch.equal(loss(replace(pairs, win_len=None, lose_len=None)), loss(pairs))


BAD = {
    "beta": (0.0, "must be finite and > 0"), "label_smoothing": (0.5, "must be finite and lie in [0, 0.5)"),
    "desirable_weight": (-1.0, "must be finite and lie in [0, inf)"), "outlier_scale": (0.0, "must be finite and > 0"),
    "undesirable_weight": (-1.0, "must be finite and lie in [0, inf)"),
    "sensitivity": (math.nan, "must be finite and lie in [0, inf)"),
    "gamma": (-0.1, "must be finite and lie in [0, inf)"),
    "margin_spread": (-0.1, "must be finite and lie in [0, inf)"),
}  # fmt: skip


@every_batch_loss
def test_bad_hyper_parameters_are_refused_by_name_and_value(name):
    for field in fields(BATCH_LOSSES[name]()):
        value, message = BAD[field.name]
        with pytest.raises(ValueError, match=f"^{field.name} ") as error:
            named_loss(name, **{field.name: value})
        assert str(error.value) == f"{field.name} {message}, got {value!r}"
