"""The synthetic world: utilities, observed responses, a reference policy, and Bradley–Terry preference pairs.

The paper (arXiv 2502.20847) states some of the choices; the others are our reconstruction:

==================  ============================================  ========
choice              value                                         source
==================  ============================================  ========
grid                20 prompts × 20 responses                     stated
utility             a Gaussian preference utility                 stated
its form            R exp(−(y − μ_x)² / 2σ²), R = 4, σ = 3        ours
its centres μ_x     the diagonal, jittered by ±½ response         ours
mask rates          0, 0.2, 0.4                                   stated
what a mask hides   round(rate · Y) responses per prompt          ours
labels              Bradley–Terry, P(i ≻ j) = σ(u_i − u_j)        ours
reference           uniform                                       ours
==================  ============================================  ========
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from gradlab.arrays import bool_array, real_array
from gradlab.checks import between, count, one_of, positive
from gradlab.streams import Purpose, stream

Utility = Literal["gaussian", "gaussian-random", "log-gaussian", "independent"]
MaskKind = Literal["responses", "pairs"]
Reference = Literal["uniform", "random", "shifted"]
Labels = Literal["soft", "hard"]
MOST_PAIRS = 2**30  # of all prompts: a table of them takes 8 GiB


@dataclass(frozen=True, eq=False)
class World:
    """One preference problem: X prompts, each with the same Y responses.

    utility   (X, Y) float: u(x, y), in nats of preference: P(i ≻ j) = σ(u_i − u_j).
    observed  (X, Y) bool: False where a response never appears in any pair.
    ref_logp  (X, Y) float: log π_ref(y|x), each row normalised.
    hidden_pairs  (X, Y, Y) bool, symmetric, or None: True for pairs that never appear, although both responses may
        appear in other pairs.
    lengths   (X, Y) float: length of each response in tokens, ≥ 1, for the losses that need it. None: 1 each.

    Raises ValueError when shapes disagree, a number is not finite, a reference row is not normalised, or a prompt
    keeps no pair.
    """

    utility: np.ndarray
    observed: np.ndarray
    ref_logp: np.ndarray
    hidden_pairs: np.ndarray | None = None
    lengths: np.ndarray | None = None

    def __post_init__(self) -> None:
        utility = finite_array("utility", self.utility)
        if utility.ndim != 2 or utility.shape[0] < 1 or utility.shape[1] < 2:
            raise ValueError(f"utility must have shape (prompts ≥ 1, responses ≥ 2), got {utility.shape}")
        ref_logp = finite_array("ref_logp", self.ref_logp)
        observed = bool_array("observed", self.observed)
        for name, array in (("ref_logp", ref_logp), ("observed", observed)):
            if array.shape != utility.shape:
                raise ValueError(f"{name} must have utility's shape {utility.shape}, got {array.shape}")
        with np.errstate(over="ignore"):  # an infinite sum raises a ValueError below
            totals = np.exp(ref_logp).sum(-1)
        if not np.allclose(totals, 1.0, atol=1e-6):
            worst = totals[np.abs(totals - 1).argmax()]
            raise ValueError(f"ref_logp must sum to one over responses in every prompt, got a sum of {worst:.6g}")
        arrays = {"utility": utility, "observed": observed, "ref_logp": ref_logp}
        if self.hidden_pairs is not None:
            hidden = bool_array("hidden_pairs", self.hidden_pairs)
            wanted = (*utility.shape, utility.shape[1])
            if hidden.shape != wanted or (hidden != hidden.swapaxes(1, 2)).any():
                raise ValueError(f"hidden_pairs must be boolean, symmetric and of shape {wanted}, got {hidden.shape}")
            arrays["hidden_pairs"] = hidden
        if self.lengths is not None:
            arrays["lengths"] = lengths = finite_array("lengths", self.lengths)
            if lengths.shape != utility.shape or (lengths < 1).any():
                got = lengths.shape if lengths.shape != utility.shape else f"{lengths.min():g}"
                raise ValueError(f"lengths must have utility's shape {utility.shape} and be 1 or more, got {got}")
        for name, array in arrays.items():
            array = array.copy()
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        pairless = ~self.comparable().any((1, 2))
        if pairless.any():
            prompt = int(pairless.argmax())
            raise ValueError(f"the mask leaves prompt {prompt} without a pair; it needs two observed responses")

    @property
    def prompts(self) -> int:
        """The number of prompts, X."""
        return self.utility.shape[0]

    @property
    def responses(self) -> int:
        """The number of responses of each prompt, Y."""
        return self.utility.shape[1]

    @property
    def token_counts(self) -> np.ndarray:
        """The length of each response in tokens, (X, Y): ``lengths``, or 1 where the world states none."""
        return np.ones_like(self.utility) if self.lengths is None else self.lengths

    def preference(self) -> np.ndarray:
        """Return P(i ≻ j | x) = σ(u_i − u_j), shape (X, Y, Y); ½ on the diagonal."""
        return sigmoid(self.utility[:, :, None] - self.utility[:, None, :])

    def comparable(self) -> np.ndarray:
        """Return True for the pairs that can appear in data, (X, Y, Y) bool: symmetric, False on the diagonal."""
        pairs = self.observed[:, :, None] & self.observed[:, None, :] & ~np.eye(self.responses, dtype=bool)
        return pairs if self.hidden_pairs is None else pairs & ~self.hidden_pairs

    def pair_weights(self) -> np.ndarray:
        """Return how often each pair appears, relative to the others of its prompt: (X, Y, Y), symmetric, ≥ 0.

        Here every comparable pair is equally likely, so a weight is 1 or 0.
        """
        return self.comparable().astype(float)

    def wins(self, labels: Labels) -> np.ndarray:
        """Return the share of a pair's labels in which i beats j, (X, Y, Y); see ``exact_pairs`` for the labels."""
        if one_of("labels", labels, get_args(Labels)) == "hard":
            return np.heaviside(self.utility[:, :, None] - self.utility[:, None, :], 0.5)
        return self.preference()

    @property
    def goals(self) -> Mapping[str, np.ndarray]:
        """The utilities (X, Y) by name, where a world judges its responses by several goals; else empty."""
        return {}

    def ideal_logp(self, beta: float = 1.0) -> np.ndarray:
        """Return log π of the policy that maximises E[u] − β KL(π‖π_ref): log-softmax of log π_ref + u/β, (X, Y)."""
        return log_softmax(self.ref_logp + self.utility / positive("beta", beta))

    def with_reference(self, ref_logp: np.ndarray) -> World:
        """Return this world with another reference, (X, Y) log-probabilities, such as a trained policy."""
        return replace(self, ref_logp=ref_logp)


def gaussian_world(
    prompts: int = 20,
    responses: int = 20,
    *,
    utility: Utility = "gaussian",
    sigma: float = 3.0,
    scale: float = 4.0,
    jitter: float = 0.5,
    mask_rate: float = 0.0,
    mask_kind: MaskKind = "responses",
    reference: Reference = "uniform",
    shift: float = 6.0,
    reference_sigma: float = 3.0,
    length: float = 1.0,
    length_spread: float = 0.0,
    seed: int = 0,
) -> World:
    """Build the paper's synthetic world, or one of our variants of it.

    utility     ``gaussian``: R exp(−(y − μ_x)²/2σ²), μ_x on the jittered diagonal (stated: Gaussian; form ours);
                ``gaussian-random``: as ``gaussian``, with μ_x uniform over the grid (ours);
                ``log-gaussian``: −(y − μ_x)²/2σ², without a scale (ours);
                ``independent``: R · N(0, 1) in each cell, without a width (ours).
    sigma       σ, in responses.
    scale       R, in nats of preference.
    jitter      half-width of the uniform jitter of the diagonal centres, in responses.
    mask_rate   share hidden from the data, in [0, 1).
    mask_kind   ``responses`` hides exactly round(rate · Y) responses of each prompt; ``pairs`` hides exactly
                round(rate · Y(Y−1)/2) of its pairs. Masks of one seed are nested: a higher rate hides more.
    reference   ``uniform``; ``random``: softmax of N(0, 1) logits; ``shifted``: a Gaussian of width
                ``reference_sigma`` centred ``shift`` responses away from the prompt's best response, towards the
                side with more room, and clipped to the grid. A fourth reference, k steps of DPO, needs a
                training: see ``gradlab.lab.fit.dpo_reference``.
    length, length_spread  mean of the responses' lengths in tokens, ≥ 1, and their standard deviation over that
                mean, ≥ 0: lengths are log-normal, rounded, at least 1, and independent of all else (ours). They
                matter only to losses that need lengths.
    seed        draws centres, utilities, mask, reference and lengths, each from a separate stream.

    Raises ValueError in one line that names the argument, its value and what would be accepted.
    """
    prompts, responses = count("prompts", prompts, least=1), count("responses", responses, least=2)
    if prompts * responses**2 > MOST_PAIRS:
        raise ValueError(
            f"prompts × responses² must be at most {MOST_PAIRS:,}, since tables of all pairs must fit into the memory, "
            f"got {prompts} × {responses}²"
        )
    sigma, scale = positive("sigma", sigma), positive("scale", scale)
    reference_sigma = positive("reference_sigma", reference_sigma)
    jitter, shift = between("jitter", jitter, 0, 1e300), between("shift", shift, 0)
    mask_rate = between("mask_rate", mask_rate, 0, 1, open_high=True)
    length, length_spread = between("length", length, 1, 1e9), between("length_spread", length_spread, 0, 100)
    one_of("utility", utility, get_args(Utility))
    one_of("mask_kind", mask_kind, get_args(MaskKind))
    one_of("reference", reference, get_args(Reference))

    values = _utility(utility, prompts, responses, sigma, scale, jitter, seed)
    observed = np.ones((prompts, responses), dtype=bool)
    hidden_pairs = None
    if mask_kind == "responses":
        observed = _response_mask(prompts, responses, mask_rate, stream(seed, Purpose.MASK))
    else:
        hidden_pairs = _pair_mask(prompts, responses, mask_rate, stream(seed, Purpose.MASK))
        observed = np.any(~hidden_pairs & ~np.eye(responses, dtype=bool), axis=2)  # a response may lose all its pairs
    if reference == "uniform":
        ref_logits = np.zeros((prompts, responses))
    elif reference == "random":
        ref_logits = stream(seed, Purpose.REFERENCE).standard_normal((prompts, responses))
    else:
        with np.errstate(all="ignore"):
            ref_logits = _shifted_logits(values, shift, reference_sigma)
        if not np.isfinite(ref_logits).all():
            raise ValueError(f"reference_sigma must not be so small for this grid, got {reference_sigma:g}")
    lengths = None
    if length != 1 or length_spread:
        lengths = _lengths(prompts, responses, length, length_spread, stream(seed, Purpose.LENGTHS))
    return World(values, observed, log_softmax(ref_logits), hidden_pairs, lengths)


def exact_pairs(world: World, *, labels: Labels = "soft") -> np.ndarray:
    """Return the weights of all ordered pairs, (X, Y, Y): entry [x, i, j] is the share of pairs in which i beats j.

    Every comparable pair is equally likely, unless the world weighs its pairs. ``soft`` labels split a pair's weight by
    Bradley–Terry probability; ``hard`` labels give it to the better response (half each at a tie). Weights sum to one
    in each prompt.
    """
    one_of("labels", labels, get_args(Labels))
    weights = world.pair_weights()
    return weights * world.wins(labels) / (weights.sum((1, 2), keepdims=True) / 2)


def draw_pairs(world: World, pairs: int, *, labels: Labels = "hard", seed: int = 0, split: int = 0) -> np.ndarray:
    """Return the weights of a finite data set, (X, Y, Y): ``pairs`` pairs per prompt, drawn with replacement.

    Pairs are drawn by their weights, in most worlds uniformly from the comparable pairs. ``hard`` labels are
    Bradley–Terry draws, so the weights are counts divided by ``pairs``; ``soft`` labels split each drawn pair by its
    probability. Splits of one seed (0: training, 1: held out) are independent draws. Weights sum to one in each prompt.
    """
    count("pairs", pairs, least=1)
    one_of("labels", labels, get_args(Labels))
    rng = stream(seed, Purpose.DATA, count("split", split))
    if labels == "hard":
        return resample(exact_pairs(world), pairs, rng)
    upper = np.triu(world.pair_weights())
    drawn = resample(upper / upper.sum((1, 2), keepdims=True), pairs, rng)
    return (drawn + drawn.swapaxes(1, 2)) * world.wins("soft")


def resample(weights: np.ndarray, pairs: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``pairs`` ordered pairs per prompt from ``weights``, a distribution; return their shares; both (X, Y, Y)."""
    prompts, slots = weights.shape[0], weights.shape[1] * weights.shape[2]
    cumulative = weights.reshape(prompts, slots).cumsum(1)
    # One search serves all prompts: prompt x has the interval [x, x + 1).
    edges = (cumulative / cumulative[:, -1:] + np.arange(prompts)[:, None]).ravel()
    points = rng.random((prompts, pairs)) + np.arange(prompts)[:, None]
    points = np.minimum(points, np.nextafter(np.arange(prompts) + 1.0, 0)[:, None])  # rounding must not cross over
    drawn = np.searchsorted(edges, points.ravel(), side="right")
    return np.bincount(drawn, minlength=prompts * slots).reshape(weights.shape) / pairs


def _utility(
    kind: Utility, prompts: int, responses: int, sigma: float, scale: float, jitter: float, seed: int
) -> np.ndarray:
    if kind == "independent":
        with np.errstate(over="ignore"):
            return scale * stream(seed, Purpose.UTILITY).standard_normal((prompts, responses))
    rng = stream(seed, Purpose.CENTRES)
    if kind == "gaussian-random":
        centres = rng.uniform(0, responses - 1, prompts)
    else:
        diagonal = (np.arange(prompts) + 0.5) / prompts * responses - 0.5
        centres = np.clip(diagonal + rng.uniform(-jitter, jitter, prompts), 0, responses - 1)
    with np.errstate(over="ignore"):  # a width near zero may overflow; ``World`` then raises a ValueError
        exponent = -0.5 * ((np.arange(responses) - centres[:, None]) / sigma) ** 2
    return exponent if kind == "log-gaussian" else scale * np.exp(exponent)


def _response_mask(prompts: int, responses: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    hidden = round(rate * responses)
    if responses - hidden < 2:
        raise ValueError(
            f"mask_rate={rate} hides {hidden} of {responses} responses and leaves every prompt without a pair; "
            f"accepted here: at most {(responses - 2) / responses:.4g}"
        )
    ranks = rng.random((prompts, responses)).argsort(1).argsort(1)
    return ranks >= hidden


def _pair_mask(prompts: int, responses: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.triu_indices(responses, 1)
    hidden = round(rate * len(rows))
    if hidden >= len(rows):
        raise ValueError(f"mask_rate={rate} hides all {len(rows)} pairs of every prompt; accepted here: less")
    ranks = rng.random((prompts, len(rows))).argsort(1).argsort(1)
    mask = np.zeros((prompts, responses, responses), dtype=bool)
    mask[:, rows, columns] = mask[:, columns, rows] = ranks < hidden
    return mask


def _shifted_logits(utility: np.ndarray, shift: float, sigma: float) -> np.ndarray:
    last = utility.shape[1] - 1
    best = utility.argmax(1)
    centre = np.clip(np.where(best <= last / 2, best + shift, best - shift), 0, last)
    return -((np.arange(last + 1) - centre[:, None]) ** 2) / (2 * sigma**2)


def _lengths(prompts: int, responses: int, mean: float, spread: float, rng: np.random.Generator) -> np.ndarray:
    variance = np.log1p(spread**2)
    return np.maximum(
        1.0, np.round(rng.lognormal(np.log(mean) - variance / 2, np.sqrt(variance), (prompts, responses)))
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return normalised log-probabilities over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def sigmoid(value: np.ndarray) -> np.ndarray:
    """Return σ of each value; nothing overflows."""
    return 0.5 * (1 + np.tanh(0.5 * value))


def finite_array(name: str, value: np.ndarray) -> np.ndarray:
    """Return ``value`` as an array of float64; ValueError, which names it, unless all its numbers are finite."""
    array = real_array(name, value)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite everywhere, got {array[~np.isfinite(array)][0]}")
    return array
