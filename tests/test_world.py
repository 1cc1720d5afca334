"""The synthetic world: utilities, masks, references and pairs, each by its formula and its bounds."""

import math
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import numpy as np
import pytest
from rounding import rounding

from gradlab.lab.world import World, draw_pairs, exact_pairs, gaussian_world, resample

UTILITIES = ["gaussian", "gaussian-random", "log-gaussian", "independent"]
REFERENCES = ["uniform", "random", "shifted"]
MASKS = ["responses", "pairs"]

every_variant = pytest.mark.parametrize(
    "world",
    [gaussian_world(6, 7, utility=utility, seed=3) for utility in UTILITIES]
    + [gaussian_world(6, 7, reference=reference, seed=3) for reference in REFERENCES[1:]]
    + [gaussian_world(6, 7, mask_rate=0.4, mask_kind=kind, seed=3) for kind in MASKS],
    ids=[*UTILITIES, *REFERENCES[1:], *MASKS],
)


def uniform(*shape):
    return np.full(shape, -np.log(shape[-1]))


def same_bits(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("utility", "observed", "ref_logp")
    ) and np.array_equal(one.comparable(), other.comparable())


# --- sizes and utilities ---


@pytest.mark.parametrize(("prompts", "responses"), [(1, 2), (1, 20), (20, 2), (3, 5), (20, 20), (7, 33)])
def test_every_size_can_be_had(prompts, responses):
    world = gaussian_world(prompts, responses)
    assert (world.prompts, world.responses) == (prompts, responses)
    assert world.utility.shape == world.observed.shape == world.ref_logp.shape == (prompts, responses)
    assert world.preference().shape == world.comparable().shape == (prompts, responses, responses)


def test_the_defaults_are_the_stated_grid():
    world = gaussian_world()
    assert world.utility.shape == (20, 20)
    assert world.observed.all()
    assert world.hidden_pairs is None
    np.testing.assert_allclose(world.ref_logp, -math.log(20))


def test_the_gaussian_utility_is_its_formula():
    # Without jitter the centre of prompt x is (x + ½) Y/X − ½: here 0.5, 2.5 and 4.5.
    world = gaussian_world(3, 6, sigma=2.0, scale=5.0, jitter=0.0)
    for prompt, centre in enumerate([0.5, 2.5, 4.5]):
        for response in range(6):
            expected = 5.0 * math.exp(-((response - centre) ** 2) / 8.0)
            assert world.utility[prompt, response] == pytest.approx(expected, rel=1e-12)


def test_the_log_gaussian_utility_is_the_exponent_and_has_no_scale():
    gaussian = gaussian_world(5, 9, scale=4.0, seed=2)
    log_gaussian = gaussian_world(5, 9, utility="log-gaussian", scale=7.0, seed=2)
    np.testing.assert_allclose(4.0 * np.exp(log_gaussian.utility), gaussian.utility)


def test_jitter_moves_a_centre_by_no_more_than_its_half_width():
    plain, moved = (gaussian_world(50, 50, utility="log-gaussian", jitter=jitter, seed=1) for jitter in (0.0, 2.0))
    centres = []
    for world in (plain, moved):  # of a parabola −(y − μ)²/2σ², from three of its points
        left, middle, right = world.utility[:, 20], world.utility[:, 21], world.utility[:, 22]
        centres.append(21 + (left - right) / (2 * (left - 2 * middle + right)))
    offset = np.abs(centres[1] - centres[0])
    assert offset.max() <= 2.0 + 1e-9
    assert offset.max() > 1.5


def test_random_centres_cover_the_grid():
    best = gaussian_world(400, 10, utility="gaussian-random").utility.argmax(1)
    assert set(best) == set(range(10))


def test_independent_utilities_are_normal_with_the_scale_as_deviation():
    utility = gaussian_world(200, 50, utility="independent", scale=3.0).utility
    # 10,000 cells: five standard errors of a mean and of a deviation.
    assert abs(utility.mean()) < 5 * 3.0 / 100
    assert abs(utility.std() - 3.0) < 5 * 3.0 / math.sqrt(2 * 10_000)


@every_variant
def test_preferences_are_bradley_terry(world):
    preference = world.preference()
    for prompt, i, j in [(0, 1, 2), (3, 6, 0), (5, 4, 4)]:
        gap = world.utility[prompt, i] - world.utility[prompt, j]
        assert preference[prompt, i, j] == pytest.approx(1 / (1 + math.exp(-gap)), rel=1e-12)
    np.testing.assert_allclose(preference + preference.swapaxes(1, 2), 1.0, rtol=rounding(8))


def test_preferences_stay_probabilities_at_huge_gaps():
    world = World(np.array([[0.0, 1e4]]), np.ones((1, 2), bool), uniform(1, 2))
    assert world.preference().tolist() == [[[0.5, 0.0], [1.0, 0.5]]]


# --- masks ---


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.25, 0.4, 0.6])
@pytest.mark.parametrize("responses", [5, 20, 33])
def test_a_mask_hides_exactly_the_rounded_share_of_each_prompts_responses(responses, rate):
    observed = gaussian_world(9, responses, mask_rate=rate).observed
    assert ((~observed).sum(1) == round(rate * responses)).all()


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.55, 0.9])
def test_a_pair_mask_hides_exactly_the_rounded_share_of_each_prompts_pairs(rate):
    world = gaussian_world(9, 7, mask_rate=rate, mask_kind="pairs")
    assert (world.observed == world.comparable().any(2)).all()  # who loses every pair is unobserved
    assert (world.hidden_pairs == world.hidden_pairs.swapaxes(1, 2)).all()
    assert (world.hidden_pairs.sum((1, 2)) == 2 * round(rate * 21)).all()
    assert (world.comparable().sum((1, 2)) == 42 - 2 * round(rate * 21)).all()


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_one_seed_are_nested(kind):
    kept = [gaussian_world(5, 20, mask_rate=rate, mask_kind=kind).comparable() for rate in (0.0, 0.2, 0.4, 0.8)]
    for more, fewer in pairwise(kept):
        assert (fewer <= more).all()
        assert fewer.sum() < more.sum()


def test_prompts_hide_different_responses():
    observed = gaussian_world(20, 20, mask_rate=0.4).observed
    assert len(np.unique(observed, axis=0)) > 10


@every_variant
def test_pairs_are_comparable_where_both_are_observed_and_the_pair_is_not_hidden(world):
    hidden = world.hidden_pairs
    comparable = world.comparable()
    for prompt, i, j in np.ndindex(comparable.shape):
        expected = i != j and world.observed[prompt, i] and world.observed[prompt, j]
        assert comparable[prompt, i, j] == (expected and not (hidden is not None and hidden[prompt, i, j]))


# --- references ---


@every_variant
def test_references_are_normalised(world):
    np.testing.assert_allclose(np.exp(world.ref_logp).sum(1), 1.0, rtol=1e-12)


def test_a_shifted_reference_stands_the_distance_away_on_the_side_with_more_room():
    world = gaussian_world(20, 20, reference="shifted", shift=6.0, jitter=0.0)
    best = world.utility.argmax(1)
    np.testing.assert_array_equal(best, np.arange(20))
    expected = np.where(best <= 9, best + 6, best - 6)
    np.testing.assert_array_equal(world.ref_logp.argmax(1), expected)


def test_a_shifted_reference_is_a_gaussian_of_the_given_width():
    logp = gaussian_world(20, 20, reference="shifted", shift=5.0, reference_sigma=2.5, jitter=0.0).ref_logp[0]
    assert logp[5] - logp[8] == pytest.approx(9 / (2 * 2.5**2), rel=1e-12)
    assert logp[5] - logp[3] == pytest.approx(4 / (2 * 2.5**2), rel=1e-12)


def test_a_shift_beyond_the_grid_stops_at_its_end():
    world = gaussian_world(10, 10, reference="shifted", shift=100.0, jitter=0.0)
    assert world.ref_logp.argmax(1).tolist() == [9] * 5 + [0] * 5


def test_a_shift_of_nothing_stands_on_the_best_response():
    world = gaussian_world(10, 10, reference="shifted", shift=0.0)
    np.testing.assert_array_equal(world.ref_logp.argmax(1), world.utility.argmax(1))


def test_the_random_reference_is_a_softmax_of_standard_normals():
    logp = gaussian_world(200, 50, reference="random").ref_logp
    spread = (logp - logp.mean(1, keepdims=True)).std()
    assert abs(spread - 1) < 5 / math.sqrt(2 * 10_000) + 0.02  # each row loses one degree of freedom in 50


def test_another_reference_changes_nothing_else():
    world = gaussian_world(4, 5, mask_rate=0.2, seed=1)
    logits = np.random.default_rng(0).standard_normal((4, 5))
    given = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    other = world.with_reference(given)
    np.testing.assert_array_equal(other.ref_logp, given)
    np.testing.assert_array_equal(other.utility, world.utility)
    np.testing.assert_array_equal(other.observed, world.observed)
    with pytest.raises(ValueError, match=r"^ref_logp must sum to one"):
        world.with_reference(logits)


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_the_ideal_policy_is_the_reference_tilted_by_utility(beta):
    world = gaussian_world(4, 6, reference="random")
    tilted = np.exp(world.ref_logp) * np.exp(world.utility / beta)
    np.testing.assert_allclose(np.exp(world.ideal_logp(beta)), tilted / tilted.sum(1, keepdims=True), rtol=1e-12)


@pytest.mark.parametrize("beta", [0, -1.0, math.nan, math.inf, True])
def test_the_ideal_policy_needs_a_positive_beta(beta):
    with pytest.raises(ValueError, match=r"^beta must be finite and > 0, got "):
        gaussian_world(2, 3).ideal_logp(beta)


# --- pairs ---


@every_variant
@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_exact_shares_sum_to_one_and_sit_on_comparable_pairs(world, labels):
    weights = exact_pairs(world, labels=labels)
    np.testing.assert_allclose(weights.sum((1, 2)), 1.0, rtol=1e-12)
    assert (weights[~world.comparable()] == 0).all()
    for both_orders, comparable in zip(weights + weights.swapaxes(1, 2), world.comparable(), strict=True):
        np.testing.assert_allclose(both_orders[comparable], 2 / comparable.sum(), rtol=1e-12)


def test_soft_shares_are_the_probabilities_of_winning():
    world = gaussian_world(3, 5)
    weights = exact_pairs(world)
    gap = world.utility[1, 4] - world.utility[1, 2]
    assert weights[1, 4, 2] == pytest.approx(1 / (1 + math.exp(-gap)) / 10, rel=1e-12)  # 10 pairs of 5 responses


def test_hard_shares_go_to_the_better_response_and_split_ties():
    world = World(np.array([[1.0, 2.0, 1.0]]), np.ones((1, 3), bool), uniform(1, 3))
    third = 1 / 3
    expected = [[0, 0, third / 2], [third, 0, third], [third / 2, 0, 0]]
    np.testing.assert_allclose(exact_pairs(world, labels="hard")[0], expected)


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_drawn_shares_sum_to_one_and_sit_on_comparable_pairs(kind, labels):
    world = gaussian_world(6, 7, mask_rate=0.4, mask_kind=kind)
    weights = draw_pairs(world, 50, labels=labels)
    np.testing.assert_allclose(weights.sum((1, 2)), 1.0, rtol=1e-12)
    assert (weights[~world.comparable()] == 0).all()


def test_hard_draws_are_counts():
    counts = draw_pairs(gaussian_world(4, 5), 30) * 30
    np.testing.assert_allclose(counts, counts.round(), atol=1e-12)
    assert (counts.round().sum((1, 2)) == 30).all()


def test_soft_draws_split_each_pair_by_its_probability():
    world = gaussian_world(4, 5)
    weights = draw_pairs(world, 30, labels="soft")
    counts = (weights + weights.swapaxes(1, 2)) * 30
    np.testing.assert_allclose(counts, counts.round(), atol=1e-12)
    np.testing.assert_allclose(weights, counts / 30 * world.preference(), rtol=1e-12)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_many_draws_approach_the_exact_shares(labels):
    world = gaussian_world(3, 5, mask_rate=0.2)
    exact, pairs = exact_pairs(world), 100_000
    standard_error = np.sqrt(exact * (1 - exact) / pairs)
    assert (np.abs(draw_pairs(world, pairs, labels=labels) - exact) <= 5 * standard_error).all()


def test_splits_are_independent_draws():
    world = gaussian_world(200, 5)
    one, other = (draw_pairs(world, 20, split=split) - exact_pairs(world) for split in (0, 1))
    upper = exact_pairs(world) > 0
    assert abs(np.corrcoef(one[upper], other[upper])[0, 1]) < 5 / math.sqrt(upper.sum())


def test_resampling_never_crosses_into_an_empty_slot_or_another_prompt():
    weights = np.zeros((3, 2, 2))
    weights[0, 0, 1] = weights[1, 1, 0] = 1.0
    weights[2, 0, 1], weights[2, 1, 0] = 0.25, 0.75
    shares = resample(weights, 1000, np.random.default_rng(0))
    np.testing.assert_array_equal(shares[:2], weights[:2])
    np.testing.assert_allclose(shares[2], weights[2], atol=5 * math.sqrt(0.1875 / 1000))
    assert shares[2, 0, 0] == shares[2, 1, 1] == 0


@pytest.mark.parametrize(("point", "slot"), [(0.0, 1), (0.25, 3), (1 - 2**-53, 3)])
def test_a_point_on_an_edge_belongs_to_the_slot_that_it_opens(point, slot):
    class Fixed:
        def random(self, shape):
            return np.full(shape, point)

    shares = resample(np.tile([[0, 0.25], [0, 0.75]], (3, 1, 1)), 4, Fixed())
    assert shares.reshape(3, 4).argmax(1).tolist() == [slot] * 3
    assert shares.max() == 1


# --- randomness ---


@pytest.mark.parametrize(
    "options",
    [
        {"utility": "gaussian-random"},
        {"utility": "independent"},
        {"reference": "random"},
        {"mask_rate": 0.4},
        {"mask_rate": 0.4, "mask_kind": "pairs"},
    ],
    ids=str,
)
def test_equal_seeds_give_equal_bits_and_others_differ(options):
    assert same_bits(gaussian_world(5, 8, seed=4, **options), gaussian_world(5, 8, seed=4, **options))
    # Without jitter these options are all that is random, so the difference is theirs.
    one, other = (gaussian_world(5, 8, jitter=0.0, seed=seed, **options) for seed in (4, 5))
    assert not same_bits(one, other)


def test_the_jitter_is_drawn_by_the_seed():
    assert not np.array_equal(gaussian_world(seed=0).utility, gaussian_world(seed=1).utility)


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_data_of_equal_seeds_have_equal_bits_and_others_differ(labels):
    world = gaussian_world(5, 8)
    data = [draw_pairs(world, 40, labels=labels, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(data[0], data[1])
    assert not np.array_equal(data[0], data[2])


@pytest.mark.parametrize("utility", UTILITIES)
def test_each_random_ingredient_has_a_stream_of_its_own(utility):
    base = gaussian_world(6, 10, utility=utility, reference="random", mask_rate=0.2, seed=7)
    masked = gaussian_world(6, 10, utility=utility, reference="random", mask_rate=0.5, seed=7)
    shifted = gaussian_world(6, 10, utility=utility, reference="shifted", mask_rate=0.2, seed=7)
    other = gaussian_world(6, 10, utility="independent", scale=9.0, reference="random", mask_rate=0.2, seed=7)
    assert np.array_equal(base.utility, masked.utility)
    assert np.array_equal(base.ref_logp, masked.ref_logp)
    assert np.array_equal(base.utility, shifted.utility)
    assert np.array_equal(base.observed, shifted.observed)
    assert np.array_equal(base.ref_logp, other.ref_logp)
    assert np.array_equal(base.observed, other.observed)


def test_the_global_generator_is_neither_read_nor_moved():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    world = gaussian_world(3, 4, reference="random", mask_rate=0.25)
    draw_pairs(world, 10)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


# --- what is given stays as it was ---


def test_a_world_is_frozen_and_keeps_copies():
    utility, observed, ref_logp = np.zeros((1, 3)), np.ones((1, 3), bool), uniform(1, 3)
    hidden = np.zeros((1, 3, 3), bool)
    world = World(utility, observed, ref_logp, hidden)
    utility[:] = observed[:] = ref_logp[:] = hidden[:] = 1
    assert world.utility.tolist() == [[0, 0, 0]]
    assert not world.hidden_pairs.any()
    for name in ("utility", "observed", "ref_logp", "hidden_pairs"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(world, name)[0] = 1
        with pytest.raises(FrozenInstanceError):
            setattr(world, name, None)


# --- the door ---

BAD_SETTINGS = [
    *[({"prompts": value}, "prompts must be a whole number ≥ 1") for value in (0, -3, 2.0, True, "5", None)],
    *[({"responses": value}, "responses must be a whole number ≥ 2") for value in (1, 0, -3, 4.5, False)],
    *[
        ({name: value}, f"{name} must be finite and > 0")
        for name in ("sigma", "scale", "reference_sigma")
        for value in (0, -1.0, math.nan, math.inf, True, "3")
    ],
    *[
        ({name: value}, f"{name} must be finite and lie in [0, ")
        for name in ("jitter", "shift")
        for value in (-0.1, math.nan, math.inf, "1")
    ],
    *[({"mask_rate": value}, "mask_rate must be finite and lie in [0, 1)") for value in (-0.1, 1, 1.5, math.nan, True)],
    *[({"seed": value}, "seed must be a whole number ≥ 0") for value in (-1, 0.5, None, "0")],
    ({"utility": "gausian"}, "utility must be one of gaussian, gaussian-random, log-gaussian, independent; got"),
    ({"mask_kind": "pair"}, "mask_kind must be one of responses, pairs; got"),
    ({"reference": "unifrom"}, "reference must be one of uniform, random, shifted; got"),
]


@pytest.mark.parametrize("sizes", [{"prompts": 10**9}, {"responses": 10**6}, {"prompts": 2**30 // 400 + 1}], ids=str)
def test_a_grid_whose_pairs_no_memory_holds_is_refused_before_it_is_built(sizes):
    with pytest.raises(ValueError, match=r"prompts × responses² must be at most 1,073,741,824, .* got \d+ × \d+²$"):
        gaussian_world(**sizes)


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=str)
def test_a_bad_setting_is_refused_in_one_line_with_its_name_and_value(settings, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        gaussian_world(**settings)
    line = str(error.value)
    assert line.startswith(message)
    assert f"got {next(iter(settings.values()))!r}" in line
    assert "\n" not in line


@pytest.mark.parametrize(("responses", "rate"), [(2, 0.5), (5, 0.8), (20, 0.95)])
def test_a_mask_that_leaves_no_pair_says_how_much_would_do(responses, rate):
    most = (responses - 2) / responses
    with pytest.raises(ValueError, match=rf"^mask_rate={rate} .* without a pair; accepted here: at most {most:g}$"):
        gaussian_world(3, responses, mask_rate=rate)
    assert gaussian_world(3, responses, mask_rate=most).observed.sum(1).tolist() == [2, 2, 2]


def test_a_pair_mask_that_leaves_no_pair_is_refused():
    with pytest.raises(ValueError, match=r"^mask_rate=0\.9 hides all 3 pairs of every prompt; accepted here: less$"):
        gaussian_world(3, 3, mask_rate=0.9, mask_kind="pairs")


GOOD = {"utility": np.zeros((2, 3)), "observed": np.ones((2, 3), bool), "ref_logp": uniform(2, 3)}
LOPSIDED = np.zeros((2, 3, 3), bool)
LOPSIDED[0, 0, 1] = True
ALL_BUT_ONE = np.array([[True, True, True], [True, False, False]])

BAD_ARRAYS = [
    ({"utility": np.zeros(3)}, "utility must have shape (prompts ≥ 1, responses ≥ 2), got (3,)"),
    ({"utility": np.zeros((2, 1))}, "utility must have shape (prompts ≥ 1, responses ≥ 2), got (2, 1)"),
    ({"utility": np.zeros((0, 3))}, "utility must have shape (prompts ≥ 1, responses ≥ 2), got (0, 3)"),
    ({"utility": np.full((2, 3), np.nan)}, "utility must be finite everywhere, got nan"),
    ({"utility": np.full((2, 3), np.inf)}, "utility must be finite everywhere, got inf"),
    ({"observed": np.ones((3, 2), bool)}, "observed must have utility's shape (2, 3), got (3, 2)"),
    ({"observed": np.ones((2, 3))}, "observed must be boolean, got float64"),
    ({"ref_logp": uniform(3)}, "ref_logp must have utility's shape (2, 3), got (3,)"),
    ({"ref_logp": np.full((2, 3), -np.inf)}, "ref_logp must be finite everywhere, got -inf"),
    ({"ref_logp": np.zeros((2, 3))}, "ref_logp must sum to one over responses in every prompt, got a sum of 3"),
    ({"ref_logp": np.full((2, 3), 1e3)}, "ref_logp must sum to one over responses in every prompt, got a sum of inf"),
    ({"hidden_pairs": LOPSIDED}, "hidden_pairs must be boolean, symmetric and of shape (2, 3, 3), got (2, 3, 3)"),
    ({"hidden_pairs": np.zeros((2, 3, 3))}, "hidden_pairs must be boolean, got float64"),
    ({"hidden_pairs": np.zeros((2, 3), bool)}, "hidden_pairs must be boolean, symmetric and of shape (2, 3, 3), got"),
    ({"observed": ALL_BUT_ONE}, "the mask leaves prompt 1 without a pair; it needs two observed responses"),
    ({"hidden_pairs": np.ones((2, 3, 3), bool)}, "the mask leaves prompt 0 without a pair"),
]


@pytest.mark.parametrize(("arrays", "message"), BAD_ARRAYS, ids=[f"{n}" for n in range(len(BAD_ARRAYS))])
def test_a_bad_array_is_refused_in_one_line_with_its_name(arrays, message):
    World(**GOOD)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        World(**{**GOOD, **arrays})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pairs", [0, -1, 2.0, True, None])
def test_a_bad_number_of_pairs_is_refused(pairs):
    with pytest.raises(ValueError, match=r"^pairs must be a whole number ≥ 1, got "):
        draw_pairs(gaussian_world(2, 3), pairs)


@pytest.mark.parametrize("split", [-1, 0.5, None])
def test_a_bad_split_is_refused(split):
    with pytest.raises(ValueError, match=r"^split must be a whole number ≥ 0, got "):
        draw_pairs(gaussian_world(2, 3), 5, split=split)


def test_unknown_labels_are_refused():
    message = r"^labels must be one of soft, hard; got 'sofft'; did you mean 'soft'\?$"
    with pytest.raises(ValueError, match=message):
        exact_pairs(gaussian_world(2, 3), labels="sofft")
    with pytest.raises(ValueError, match=message):
        draw_pairs(gaussian_world(2, 3), 5, labels="sofft")


def test_lengths_have_their_mean_and_spread_and_a_stream_of_their_own():
    world = gaussian_world(200, 50, length=40, length_spread=0.5, seed=3)
    assert world.lengths is not None
    assert (world.lengths == world.lengths.round()).all()
    # 10,000 draws: the mean's standard error is 40 · 0.5/100 = 0.2, that of the spread about 0.006 (heavy tail).
    assert world.lengths.mean() == pytest.approx(40, abs=0.8)
    assert world.lengths.std() / world.lengths.mean() == pytest.approx(0.5, abs=0.03)
    assert np.array_equal(world.utility, gaussian_world(200, 50, seed=3).utility)
    assert gaussian_world(2, 3).lengths is None
    assert (gaussian_world(3, 4, length=5).lengths == 5).all()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"length": 0.5}, "length must be"),
        ({"length": float("nan")}, "length must be"),
        ({"length_spread": -0.1}, "length_spread must be"),
    ],
)
def test_bad_lengths_are_refused_in_one_line(changes, line):
    with pytest.raises(ValueError, match=line) as error:
        gaussian_world(2, 3, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("lengths", [np.ones((2, 4)), np.zeros((2, 3)), np.full((2, 3), np.nan)])
def test_a_world_refuses_lengths_of_another_shape_or_below_one(lengths):
    with pytest.raises(ValueError, match="lengths must"):
        replace(gaussian_world(2, 3), lengths=lengths)
