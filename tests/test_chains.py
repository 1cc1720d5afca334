"""Chains of tokens: their probabilities against sums over tokens and over all sequences, laws, training, refusals."""

import itertools

import numpy as np
import pytest
import torch

from gradlab.lab.chains import Chain, chain_world, fit_chains, length_table, long_run
from gradlab.losses import DPO, BalancedDPO, balanced_weights, named_loss, pair_loss
from gradlab.streams import Purpose, stream
from gradlab.theory import explained_by_length, weight_spread


def small(lengths=(1, 3, 4), vocabulary=3, seed=0) -> Chain:
    rng = np.random.default_rng(seed)
    probs = [rng.dirichlet(np.ones(size)) for size in (len(lengths), vocabulary)]
    return Chain(np.array(lengths), *probs, rng.dirichlet(np.ones(vocabulary), vocabulary))


def everything(chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """All sequences that the chain can produce."""
    rows = [one for length in chain.lengths for one in itertools.product(range(chain.vocabulary), repeat=int(length))]
    tokens = np.full((len(rows), chain.lengths.max()), -1)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
    return tokens, np.array([len(row) for row in rows])


def test_log_pi_is_the_sum_over_tokens():
    chain = small()
    tokens, lengths = chain.sample(50, stream(3, Purpose.CHAIN, 2))
    for row, length, found in zip(tokens, lengths, chain.logp(tokens, lengths), strict=True):
        steps = [np.log(chain.following[a, b]) for a, b in itertools.pairwise(row[:length])]
        wanted = (
            np.log(chain.length_probs[list(chain.lengths).index(length)]) + np.log(chain.first[row[0]]) + sum(steps)
        )
        assert found == pytest.approx(wanted, abs=1e-13)


def test_probabilities_of_all_sequences_sum_to_one_and_give_the_expected_counts():
    chain = small()
    tokens, lengths = everything(chain)
    probs = np.exp(chain.logp(tokens, lengths))
    assert probs.sum() == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose(probs @ chain.counts(tokens, lengths), chain.expected_counts(), atol=1e-13)


def test_kl_is_that_over_all_sequences():
    one, other = small(seed=1), small(seed=2)
    sequences = everything(one)
    log_one, log_other = one.logp(*sequences), other.logp(*sequences)
    assert one.kl(other) == pytest.approx((np.exp(log_one) * (log_one - log_other)).sum(), abs=1e-12)
    assert one.kl(one) == 0


def test_samples_come_with_the_chain_s_probabilities():
    chain, draws = small(), 20_000
    tokens, lengths = chain.sample(draws, stream(0, Purpose.CHAIN, 2))
    counts = chain.counts(tokens, lengths)
    error = counts.std(0) / np.sqrt(draws)
    assert (np.abs(counts.mean(0) - chain.expected_counts()) < 4.5 * error).all()


def test_the_long_run_deviation_is_the_limit_of_exact_variances():
    chain = small(vocabulary=4)
    values = -np.log(chain.following)
    mean, deviation = long_run(chain.following, values)
    # The variance of a sum over L steps, by the moments of all its prefixes: E[S; state], E[S²; state].
    state, first, second, found = chain.first.copy(), np.zeros(4), np.zeros(4), []
    for _ in range(2000):
        sums = first[:, None] + state[:, None] * values
        squares = second[:, None] + 2 * first[:, None] * values + state[:, None] * values**2
        state = state @ chain.following
        first, second = (chain.following * sums).sum(0), (chain.following * squares).sum(0)
        found.append(second.sum() - first.sum() ** 2)
    assert found[-1] - found[-2] == pytest.approx(deviation**2, rel=1e-6)  # cancels nine of sixteen digits
    assert first.sum() / 2000 == pytest.approx(mean, rel=1e-3)


def test_the_variance_is_that_of_a_token_where_tokens_are_independent():
    p = np.array([0.5, 0.3, 0.2])
    mean, deviation = long_run(np.tile(p, (3, 1)), np.tile(-np.log(p), (3, 1)))
    assert mean == pytest.approx(-(p * np.log(p)).sum())
    assert deviation == pytest.approx(np.sqrt((p * np.log(p) ** 2).sum() - mean**2))


@pytest.mark.parametrize("length", [64, 1024])
def test_weights_of_equally_long_sequences_spread_by_the_law(length):
    world = chain_world(length, pairs=2_000, seed=5)
    weight = balanced_weights(*(getattr(world.pairs(world.reference), side) for side in ("win", "lose")))[0]
    law = weight_spread(*world.reference.surprisal(), length)
    assert float(((weight - 0.5) ** 2).mean() ** 0.5) == pytest.approx(law, rel=0.08)  # √(1/(2·2,000)) is 1.6%


def test_lengths_explain_weights_by_the_law():
    world = chain_world(64, 0.1, pairs=4_000, seed=6)
    logps = world.pairs(world.reference)
    weight = balanced_weights(logps.win, logps.lose)[0]
    share = logps.lose_len / (logps.win_len + logps.lose_len)
    found = float(torch.corrcoef(torch.stack([weight, share]))[0, 1] ** 2)
    law = explained_by_length(*world.reference.surprisal(), 64, world.reference.length_variation)
    assert found == pytest.approx(law, abs=0.05)


@pytest.mark.parametrize(("mean", "variation"), [(1, 0.0), (64, 0.1), (256, 0.5), (1024, 1.0), (1000, 3.0)])
def test_tables_of_lengths_have_the_mean_and_the_variation_that_were_asked_for(mean, variation):
    table = length_table(mean, variation)
    assert table.mean() == pytest.approx(mean, rel=0.01)
    assert table.std() / table.mean() == pytest.approx(variation, abs=0.02)


def test_one_seed_has_one_chain_at_all_lengths_and_preferences_of_one_strength():
    worlds = [chain_world(length, pairs=2_000, seed=7) for length in (64, 1024)]
    np.testing.assert_array_equal(worlds[0].reference.following, worlds[1].reference.following)
    for world in worlds:
        assert np.concatenate([world.win, world.lose]).dot(world.utility).std() == pytest.approx(1.5, rel=0.1)


def test_training_has_the_same_bits_in_a_batch_and_alone():
    worlds = [chain_world(8, 0.5, pairs=40, seed=seed) for seed in (1, 2)]
    together = fit_chains(worlds, BalancedDPO(), steps=20)
    for chain, world in zip(together, worlds, strict=True):
        (alone,) = fit_chains([world], BalancedDPO(), steps=20)
        np.testing.assert_array_equal(chain.log_probs, alone.log_probs)


def test_training_comes_near_to_the_ideal_policy_where_the_chain_can_be_it():
    """With sequences of one token a chain is a table, and DPO's optimum is π_ref exp(u/β)."""
    world = chain_world(1, vocabulary=3, pairs=20_000, seed=2)
    (chain,) = fit_chains([world], DPO(), steps=300)
    ideal = world.reference.first * np.exp(world.utility[1:4])
    np.testing.assert_allclose(chain.first, ideal / ideal.sum(), atol=0.03)  # labels of 20,000 pairs
    assert world.gain(chain) > 0.5


def test_with_equal_lengths_length_weighted_dpo_is_dpo_at_half_of_beta():
    worlds = [chain_world(16, pairs=50, seed=1)]
    one, other = (fit_chains(worlds, loss, steps=30)[0] for loss in (pair_loss("length-dpo"), DPO(0.5)))
    assert one.kl(other) < 1e-20


def test_values_of_a_seed():
    """A change of these numbers makes the frame of the experiment scale stale: raise its version."""
    world = chain_world(16, 0.5, pairs=50, length_utility=1.0, seed=3)
    (chain,) = fit_chains([world], BalancedDPO(), steps=50)
    found = [world.reference.surprisal()[0], world.reference.mean_length, float(world.win.sum()), world.gain(chain)]
    assert found == pytest.approx(VALUES, rel=1e-9)


VALUES = [1.7854606752049649, 16.0625, 982.0, 1.3436988380133914]


REFUSED = [
    (lambda: small().logp(np.zeros((2, 3), int), [3, 4]), "lengths must be at most 3, the columns of the table of tok"),
    (lambda: small().logp(np.zeros((2, 4), int), [2, 4]), r"lengths must be in the chain's table \(1, 3, 4\), got 2"),
    (lambda: small().logp(np.full((1, 4), 3), [4]), "tokens must be from 0 to 2, got 3"),
    (lambda: small().logp(np.zeros((1, 4)), [4]), "tokens must be whole numbers of shape"),
    (lambda: small().logp(np.zeros((1, 4), int), [0]), "lengths must be whole numbers from 1 to 100000, got 0"),
    (lambda: small().logp(np.zeros((1, 4), int), [1, 1]), r"lengths must have shape \(1,\), got \(2,\)"),
    (lambda: small(vocabulary=1), "the number of tokens in first must be a whole number ≥ 2, got 1"),
    (lambda: small(lengths=(0, 1)), "lengths must be whole numbers from 1 to 100000, got 0"),
    (lambda: small(lengths=(3, 1)), "lengths must increase"),
    (lambda: Chain(np.array([1]), np.ones(1), np.array([0.5, 0.4]), np.full((2, 2), 0.5)), "first must be prob"),
    (lambda: small().kl(small(vocabulary=4)), "other must have the same lengths and vocabulary"),
    (lambda: small().kl(None), "other must be a Chain, got None"),
    (lambda: small().sample(-1, stream(0, Purpose.CHAIN, 2)), "sequences must be a whole number ≥ 1, got -1"),
    (lambda: small().sample(3, 0), "rng must be a numpy.random.Generator, got 0"),
    (lambda: long_run(small().following, np.ones(3)), r"values must have shape \(V, V\), as following, got \(3,\)"),
    (lambda: chain_world(4, pairs=2).pairs(3), "policy must be a Chain, got 3"),
    (lambda: chain_world(4, pairs=2).pairs(small()), r"policy must have the reference's lengths .* got \(3, 3\)"),
    (lambda: chain_world(4, pairs=2).gain(small()), r"policy must have the reference's lengths .*\(1, 8\), got"),
    (lambda: chain_world(4, scale=1e308), r"scale must be finite and lie in \(0, 100\], got 1e\+308"),
    (lambda: fit_chains(3, DPO()), r"worlds must be a ChainWorld, such as chain_world\(16\), or a sequence .* got 3"),
    (lambda: fit_chains([3], DPO()), r"worlds\[0\] must be a ChainWorld, such as chain_world\(16\), got 3"),
    (lambda: chain_world(vocabulary=1), "vocabulary must be a whole number ≥ 2, got 1"),
    (lambda: chain_world(0), r"mean length must be finite and lie in \[1, 100000\], got 0"),
    (lambda: chain_world(8, -0.1), r"variation of lengths must be finite and lie in \[0, 3\], got -0.1"),
    (lambda: chain_world(8, pairs=0), "pairs must be a whole number ≥ 1, got 0"),
    (lambda: fit_chains([], DPO()), "worlds must be a ChainWorld, such as .* or a sequence with at least one, got"),
    (lambda: fit_chains([chain_world(4, pairs=2)], DPO), "loss must be a PairLoss"),
    (lambda: fit_chains([chain_world(4, pairs=2)], named_loss("aot")), r"loss must be a PairLoss .* got AOT\("),
    (lambda: weight_spread(0, 1, 1), "mean must be > 0, got 0"),
    (lambda: weight_spread(1, -1, 1), "spread must be ≥ 0, got -1"),
    (lambda: weight_spread(1, 1, 0), "length must be ≥ 1, got 0"),
    (lambda: explained_by_length(1, 1, 1, -1), "variation must be ≥ 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(("act", "message"), REFUSED)
def test_refusals_are_one_line(act, message):
    with pytest.raises(ValueError, match=message) as error:
        act()
    assert "\n" not in str(error.value)


def test_a_learning_rate_that_is_too_large_is_an_error():
    with pytest.raises(FloatingPointError, match="learning_rate 1e\\+300 is too large"):
        fit_chains([chain_world(4, pairs=10)], DPO(), steps=5, learning_rate=1e300)
