"""Sequences of tokens: chain policies, whose token log-probabilities add up, and their training by the pair losses.

A response is a sequence of L tokens of a small vocabulary. A chain gives it

    log π(y) = log q(L) + log p(y₁) + Σ_t log P(y_t | y_{t−1}),

a distribution over all sequences of all lengths in its table. The losses see log π(y) and L, as they see a language
model's. All of this is ours: the paper's lab has responses of one token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import ndtri
from torch import Tensor

from gradlab.arrays import real_array
from gradlab.checks import between, count, of_kind, positive, several, shown
from gradlab.lab.descent import steady
from gradlab.lab.optimizers import optimizer_of
from gradlab.losses import BatchLoss, PairLogps, PairLoss
from gradlab.streams import Purpose, stream

MOST_TOKENS = 10**5  # of one sequence
MOST_WORDS = 1_000  # of a vocabulary
_LENGTHS = 16  # equally likely lengths of a table, where they differ
MOST_VARIATION = 3.0  # largest coefficient of variation of so many equally likely lengths
_PAD = -1  # after a sequence's last token in a table of tokens


@dataclass(frozen=True, eq=False)
class Chain:
    """A chain policy.

    lengths       (K,) the table of lengths that the chain can produce: whole numbers ≥ 1, increasing.
    length_probs  (K,) q: their probabilities.
    first         (V,) p: the probabilities of the first token, V ≥ 2.
    following     (V, V) P: row by row, the probabilities of the token after this one.

    All are > 0 and sum to one; they are kept as float64. ValueError, in one line, for anything else.
    """

    lengths: np.ndarray
    length_probs: np.ndarray
    first: np.ndarray
    following: np.ndarray

    def __post_init__(self) -> None:
        lengths = real_array("lengths", self.lengths)
        if lengths.ndim != 1 or not len(lengths):
            raise ValueError(f"lengths must have shape (K ≥ 1,), got {lengths.shape}")
        for length in lengths:
            _check_length("lengths", length, MOST_TOKENS)
        if (np.diff(lengths) <= 0).any():
            raise ValueError(f"lengths must increase, got {shown(lengths.tolist())}")
        probs = {name: real_array(name, getattr(self, name)) for name in ("length_probs", "first", "following")}
        words = check_vocabulary("first", probs["first"].shape[0] if probs["first"].ndim == 1 else 0)
        shapes = {"length_probs": lengths.shape, "first": (words,), "following": (words, words)}
        for name, values in probs.items():
            if values.shape != shapes[name]:
                raise ValueError(f"{name} must have shape {shapes[name]}, got {values.shape}")
            if not (values > 0).all() or not np.allclose(values.sum(-1), 1, atol=1e-9):
                raise ValueError(f"{name} must be probabilities > 0 that sum to one, got {shown(values.tolist())}")
        for name, values in (("lengths", lengths.astype(int)), *probs.items()):
            object.__setattr__(self, name, values)

    @property
    def vocabulary(self) -> int:
        """The number of different tokens, V."""
        return len(self.first)

    @property
    def mean_length(self) -> float:
        """The mean length of a sequence, in tokens."""
        return float(self.length_probs @ self.lengths)

    @property
    def length_variation(self) -> float:
        """The coefficient of variation of the lengths: their standard deviation over their mean."""
        return float(np.sqrt(self.length_probs @ (self.lengths - self.mean_length) ** 2) / self.mean_length)

    @property
    def log_probs(self) -> np.ndarray:
        """The logarithms of q, p and P in one row, (K + V + V²,), in the order of ``counts``."""
        return np.log(np.concatenate([self.length_probs, self.first, self.following.ravel()]))

    def counts(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return how often each length, first token and step from token to token is in each sequence.

        tokens   (N, T) whole numbers from 0 to V − 1: one sequence per row. What follows its end is not looked at.
        lengths  (N,) the number of tokens of each sequence, in the chain's table, and at most T.

        Returns (N, K + V + V²) float64, so that log π = counts · ``log_probs``. ValueError, in one line, for a sequence
        that is longer than the table, a length that the chain cannot produce, and an unknown token.
        """
        tokens, lengths = _checked_sequences(tokens, lengths, self.lengths, self.vocabulary)
        words, rows = self.vocabulary, np.arange(len(tokens))
        result = np.zeros((len(tokens), len(self.lengths) + words + words**2))
        result[rows, np.searchsorted(self.lengths, lengths)] = 1
        result[rows, len(self.lengths) + tokens[:, 0]] = 1
        steps = result[:, len(self.lengths) + words :]
        for place in range(1, lengths.max()):
            there = rows[lengths > place]
            steps[there, words * tokens[there, place - 1].astype(int) + tokens[there, place]] += 1
        return result

    def logp(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return log π of each sequence, (N,); arguments and errors as in ``counts``."""
        return self.counts(tokens, lengths) @ self.log_probs

    def expected_counts(self) -> np.ndarray:
        """Return the mean of ``counts`` of the chain's own sequences, (K + V + V²,), exactly."""
        words = self.vocabulary
        # (x, s) ↦ (x P, s + x): after n steps s is the sum of the first n distributions of a token.
        step = np.block([[self.following, np.eye(words)], [np.zeros((words, words)), np.eye(words)]])
        start = np.concatenate([self.first, np.zeros(words)])
        visits = np.zeros(words)
        for share, length in zip(self.length_probs, self.lengths, strict=True):
            visits += share * (start @ np.linalg.matrix_power(step, length - 1))[words:]
        return np.concatenate([self.length_probs, self.first, (visits[:, None] * self.following).ravel()])

    def kl(self, other: Chain) -> float:
        """Return KL(this‖other) over whole sequences, in nats, exactly. ValueError for another table or vocabulary."""
        of_kind("other", other, Chain, "a Chain")
        if not np.array_equal(self.lengths, other.lengths) or self.vocabulary != other.vocabulary:
            raise ValueError(
                f"other must have the same lengths and vocabulary, got {len(other.lengths)} lengths up to "
                f"{other.lengths[-1]} and {other.vocabulary} tokens"
            )
        return max(0.0, float(self.expected_counts() @ (self.log_probs - other.log_probs)))

    def sample(self, sequences: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return so many sequences of the chain: tokens (N, T), −1 after the end, and lengths (N,)."""
        sequences = count("sequences", sequences, least=1)
        of_kind("rng", rng, np.random.Generator, "a numpy.random.Generator")
        lengths = self.lengths[_inverse(np.cumsum(self.length_probs), rng.random(sequences))]
        tokens = np.full((sequences, lengths.max()), _PAD, np.int16)
        tokens[:, 0] = _inverse(np.cumsum(self.first), rng.random(sequences))
        ends = np.cumsum(self.following, axis=1)
        for place in range(1, tokens.shape[1]):
            there = np.flatnonzero(lengths > place)
            tokens[there, place] = _inverse(ends[tokens[there, place - 1]], rng.random(len(there)))
        return tokens, lengths

    def surprisal(self) -> tuple[float, float]:
        """Return a and s: the mean of a token's surprisal −log P, and its long-run standard deviation, in nats.

        s² is the limit of Var(−log π)/L. It is the variance of one token's surprisal where tokens are independent.
        """
        return long_run(self.following, -np.log(self.following))


@dataclass(frozen=True, eq=False)
class ChainWorld:
    """Preference pairs of token sequences, which a reference chain has drawn.

    reference   π_ref.
    utility     (K + V + V²,) what each length, first token and step adds to u, in nats of preference.
    win, lose   (N, K + V + V²) counts of the winners and of the losers, as ``Chain.counts`` gives them.
    """

    reference: Chain
    utility: np.ndarray
    win: np.ndarray
    lose: np.ndarray

    def lengths(self, counts: np.ndarray) -> np.ndarray:
        """Return the lengths of sequences by their counts, (N,)."""
        return counts[:, : len(self.reference.lengths)] @ self.reference.lengths

    def _check(self, policy: Chain) -> None:
        of_kind("policy", policy, Chain, "a Chain")
        sizes = [(len(chain.lengths), chain.vocabulary) for chain in (policy, self.reference)]
        if not np.array_equal(policy.lengths, self.reference.lengths) or sizes[0] != sizes[1]:
            raise ValueError(f"policy must have the reference's lengths and vocabulary, {sizes[1]}, got {sizes[0]}")

    def pairs(self, policy: Chain) -> PairLogps:
        """Return the pairs under a policy, (N,) float64 each, with lengths."""
        self._check(policy)
        given = [counts @ chain.log_probs for chain in (policy, self.reference) for counts in (self.win, self.lose)]
        return PairLogps(*map(torch.from_numpy, [*given, self.lengths(self.win), self.lengths(self.lose)]))

    def gain(self, policy: Chain) -> float:
        """Return E_π[u] − E_ref[u], in nats of preference, exactly."""
        self._check(policy)
        return float((policy.expected_counts() - self.reference.expected_counts()) @ self.utility)


def long_run(following: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return mean and long-run standard deviation of numbers on the steps of a chain.

    following  (V, V) P, all > 0; values (V, V), one for each step from token to token.

    The variance of a sum over L steps grows as L σ². With f the values less their mean and h = (I − P + 1 ν)⁻¹ (P ∘ f)1
    (Poisson's equation), σ² = E[f² + 2 f h(next)] under the stationary ν.
    """
    following, values = real_array("following", following), real_array("values", values)
    words = len(following) if following.ndim else 0
    for name, array in (("following", following), ("values", values)):
        if array.shape != (words, words) or not words:
            raise ValueError(f"{name} must have shape (V, V), as following, got {array.shape}")
    balance = np.vstack([following.T - np.eye(words), np.ones(words)])
    stationary = np.linalg.lstsq(balance, np.append(np.zeros(words), 1.0), rcond=None)[0]
    weights = stationary[:, None] * following
    mean = float((weights * values).sum())
    excess = values - mean
    ahead = np.linalg.solve(np.eye(words) - following + stationary, (following * excess).sum(1))
    return mean, math.sqrt(max(0.0, float((weights * (excess**2 + 2 * excess * ahead)).sum())))


def length_table(mean: float, variation: float = 0.0) -> np.ndarray:
    """Return the lengths of sequences, (16,), which are equally likely; only one where the variation is 0.

    mean       mean length in tokens, ≥ 1.
    variation  coefficient of variation, from 0 to 3, before lengths become whole numbers ≥ 1.

    Quantiles of a log-normal distribution, whose width is chosen so that the 16 have this variation.
    """
    mean = between("mean length", mean, 1, MOST_TOKENS)
    variation = between("variation of lengths", variation, 0, MOST_VARIATION)
    if variation == 0:
        return np.array([max(1, round(mean))])
    normal = ndtri((np.arange(_LENGTHS) + 0.5) / _LENGTHS)

    def scaled(width: float) -> np.ndarray:
        return np.exp(width * normal) / np.exp(width * normal).mean()

    width = brentq(lambda width: float(scaled(width).std()) - variation, 0.0, 20.0)
    return np.maximum(1, np.round(mean * scaled(float(width)))).astype(int)


def chain_world(
    length: float = 64,
    variation: float = 0.0,
    *,
    vocabulary: int = 8,
    peak: float = 1.0,
    scale: float = 1.5,
    length_utility: float = 0.0,
    pairs: int = 1_000,
    seed: int = 0,
) -> ChainWorld:
    """Return preference pairs of sequences that a random chain has drawn; one seed has one chain at all lengths.

    length, variation  mean and coefficient of variation of the lengths, see ``length_table``.
    vocabulary      number of different tokens, ≥ 2.
    peak            standard deviation of the reference's logits, > 0: the larger, the less a token surprises.
    scale           standard deviation of a long sequence's utility under the reference, in nats, > 0, at most 100. Each
                    step adds a random number, 0 on average, over the root of the mean length: so L does not change how
                    strong preferences are, and the utility of tokens does not depend on the length.
    length_utility  what a length one standard deviation above the mean adds, in nats: 0, labels do not depend on it.
    pairs           number of pairs; both responses are drawn alike, labels by Bradley–Terry.

    The first token has the chain's stationary distribution. ValueError, in one line, for a bad argument.
    """
    table = length_table(length, variation)
    words = check_vocabulary("vocabulary", vocabulary)
    peak, scale = positive("peak", peak), between("scale", scale, 0, 100, open_low=True)
    length_utility, pairs = between("length_utility", length_utility, -100, 100), count("pairs", pairs, least=1)
    reference = _reference(table, words, peak, seed)
    utility = _utility(reference, scale, length_utility, seed)
    drawn = [reference.counts(*reference.sample(pairs, stream(seed, Purpose.CHAIN, part))) for part in (2, 3)]
    lead = (drawn[0] - drawn[1]) @ utility
    with np.errstate(over="ignore"):
        first_wins = stream(seed, Purpose.CHAIN, 4).random(pairs) < 1 / (1 + np.exp(-lead))
    win, lose = (np.where(chosen[:, None], *drawn) for chosen in (first_wins, ~first_wins))
    return ChainWorld(reference, utility, win, lose)


@steady("cpu")
def fit_chains(
    worlds: Sequence[ChainWorld], loss: PairLoss, *, steps: int = 500, learning_rate: float = 0.05,
    optimizer: str = "adam",
) -> list[Chain]:  # fmt: skip
    """Train one chain per world on the mean loss of its pairs, from its reference; return the chains at the end.

    The parameters are the logarithms of q, p and P, up to constants; float64 on a CPU. A step moves each of them by
    about ``learning_rate`` over the root of the mean length, since that is how far a utility of one size moves a
    token's. The worlds have one vocabulary and tables of one size. A run has the same bits in a batch and alone.

    Raises ValueError for a bad argument, FloatingPointError where a probability becomes 0 or no number.
    """
    if isinstance(loss, type | BatchLoss) or not isinstance(loss, PairLoss):
        raise ValueError(f"loss must be a PairLoss such as DPO(beta=1.0) or pair_loss('dpo'), got {shown(loss)}")
    steps, rate = count("steps", steps, least=1), positive("learning_rate", learning_rate)
    worlds = several("worlds", worlds, ChainWorld, "a ChainWorld, such as chain_world(16)")
    sizes = {(len(world.reference.lengths), world.reference.vocabulary, *world.win.shape) for world in worlds}
    if len(sizes) != 1:
        raise ValueError(f"worlds must be one or more of one size, got {len(sizes)} sizes")
    ((table, words, number, _),) = sizes
    start = torch.tensor(np.stack([world.reference.log_probs for world in worlds]))
    scales = torch.tensor([[world.reference.mean_length**-0.5] for world in worlds], dtype=torch.float64)
    counts = [torch.from_numpy(np.concatenate([world.win, world.lose])) for world in worlds]
    lengths = [torch.tensor(np.stack([w.lengths(side) for w, side in zip(worlds, sides, strict=True)]))
               for sides in ([w.win for w in worlds], [w.lose for w in worlds])]  # fmt: skip

    def sides(log_probs: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.stack([one @ row for one, row in zip(counts, log_probs, strict=True)])
        return both[:, :number], both[:, number:]

    reference = sides(start)
    parameters = torch.zeros_like(start, requires_grad=True)
    stepper = optimizer_of(optimizer).stepper([parameters], rate)
    for _ in range(steps):
        logps = PairLogps(*sides(_normalised(start + scales * parameters, table, words)), *reference, *lengths)
        (parameters.grad,) = torch.autograd.grad(loss(logps).mean(-1).sum(), parameters)
        stepper.step()
    end = _normalised(start + scales * parameters.detach(), table, words)
    if not (end.exp() > 0).all():  # no number, or a probability of 0
        raise FloatingPointError(f"probabilities must stay above 0: learning_rate {rate:g} is too large for this")
    return [_chain(world.reference, row.numpy()) for world, row in zip(worlds, end, strict=True)]


def check_vocabulary(name: str, value: Any) -> int:
    """Return the size of a vocabulary, a whole number ≥ 2; ValueError, in one line, for another."""
    return count(name if name == "vocabulary" else f"the number of tokens in {name}", value, least=2, most=MOST_WORDS)


def _check_length(name: str, value: float, most: int) -> None:
    if not 1 <= value <= most or value != int(value):
        raise ValueError(f"{name} must be whole numbers from 1 to {most}, got {value:g}")


def _checked_sequences(
    tokens: np.ndarray, lengths: np.ndarray, table: np.ndarray, words: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and lengths of sequences; ValueError, in one line, for those that a chain cannot produce."""
    tokens, lengths = np.asarray(tokens), real_array("lengths", lengths)
    if tokens.ndim != 2 or tokens.dtype.kind not in "iu" or 0 in tokens.shape:
        raise ValueError(f"tokens must be whole numbers of shape (N ≥ 1, T ≥ 1), got {tokens.dtype} {tokens.shape}")
    if lengths.shape != tokens.shape[:1]:
        raise ValueError(f"lengths must have shape {tokens.shape[:1]}, got {lengths.shape}")
    for length in np.unique(lengths):
        _check_length("lengths", length, MOST_TOKENS)
        if length > tokens.shape[1]:
            raise ValueError(
                f"lengths must be at most {tokens.shape[1]}, the columns of the table of tokens, got {length:g}"
            )
        if length not in table:
            known = ", ".join(map(str, table[:8])) + (", …" if len(table) > 8 else "")
            raise ValueError(f"lengths must be in the chain's table ({known}), got {length:g}")
    wrong = tokens[((tokens < 0) | (tokens >= words)) & (np.arange(tokens.shape[1]) < lengths[:, None])]
    if len(wrong):
        raise ValueError(f"tokens must be from 0 to {words - 1}, got {wrong[0]}")
    return tokens, lengths.astype(int)


def _inverse(ends: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return where points in [0, 1) fall among the ends of intervals: of all points, or of each."""
    return np.minimum((points[:, None] >= ends).sum(1), ends.shape[-1] - 1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True))


def _reference(table: np.ndarray, words: int, peak: float, seed: int) -> Chain:
    lengths, times = np.unique(table, return_counts=True)
    following = _softmax(peak * stream(seed, Purpose.CHAIN, 0).standard_normal((words, words)))
    stationary = np.linalg.matrix_power(following, 2**20)[0]  # all rows are equal by then
    return Chain(lengths, times / len(table), stationary / stationary.sum(), following)


def _utility(reference: Chain, scale: float, length_utility: float, seed: int) -> np.ndarray:
    words, root = reference.vocabulary, math.sqrt(reference.mean_length)
    drawn = stream(seed, Purpose.CHAIN, 1).standard_normal((words + 1, words))
    first, steps = drawn[0], drawn[1:]
    first = first - reference.first @ first
    first = first / math.sqrt(reference.first @ first**2)
    mean, spread = long_run(reference.following, steps)
    away = reference.lengths - reference.mean_length
    deviation = reference.length_variation * reference.mean_length
    of_length = length_utility * (away / deviation if deviation > 0 else away)
    return np.concatenate([of_length, scale / root * first, (scale / root / spread * (steps - mean)).ravel()])


def _normalised(logits: Tensor, table: int, words: int) -> Tensor:
    """Return the logits of q, p and P, (R, K + V + V²), as logarithms of probabilities."""
    rows = logits[:, table:].unflatten(1, (words + 1, words)).log_softmax(-1)
    return torch.cat([logits[:, :table].log_softmax(-1), rows.flatten(1)], 1)


def _chain(like: Chain, log_probs: np.ndarray) -> Chain:
    table, words = len(like.lengths), like.vocabulary
    probs = np.exp(log_probs)
    return replace(
        like, length_probs=probs[:table], first=probs[table : table + words],
        following=probs[table + words :].reshape(words, words),
    )  # fmt: skip
