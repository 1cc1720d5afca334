"""A world with two goals: helpfulness and harmlessness judge the same responses, and each has labelled pairs.

Everything here is ours. The paper (arXiv 2502.20847) trains on mixed pairs of Anthropic HH and of SafeRLHF and reports
that Balanced-DPO improves harmlessness and leaves helpfulness about level; it leaves open why. In this world each
property by which the two sets could differ is one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from gradlab.checks import between, count, keep_plain, of_kind, one_of, positive, shown
from gradlab.lab.world import MOST_PAIRS, Labels, World, finite_array, log_softmax, sigmoid
from gradlab.streams import Purpose, stream

GoalName = Literal["helpful", "harmless"]
GOALS: tuple[GoalName, GoalName] = ("helpful", "harmless")
TILT = 2.0  # nats between the best response and one far away that a reference of alignment 1 puts in between
TOKENS = 20.0  # length of a response far away from both peaks
SURPRISAL = 0.1  # nats per token by which log π_ref falls with length
APART = (1 / 8, 3 / 8)  # distance of both peaks, over the number of responses: some pairs agree, and some conflict
_HALF = 2 * np.sqrt(2 * np.log(2))  # width of a Gaussian at half of its height, in σ


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """The labelled pairs of one goal.

    utility  (X, Y) float: the goal's u(x, y), in nats of preference.
    noise    probability that a label is wrong, besides the noise of Bradley–Terry, in [0, ½].
    share    > 0: how many of the labels are of this set, relative to the other.
    pairs    (X, Y, Y) float: how often each pair appears, relative to the others of its prompt; symmetric, ≥ 0, zero
             diagonal, some pair in each prompt. None: every pair equally often.

    Raises ValueError, in one line, for anything else.
    """

    utility: np.ndarray
    noise: float = 0.0
    share: float = 1.0
    pairs: np.ndarray | None = None

    def __post_init__(self) -> None:
        keep_plain(self, noise=between("noise", self.noise, 0, 0.5), share=positive("share", self.share))
        utility = finite_array("utility", self.utility)
        if utility.ndim != 2 or utility.shape[0] < 1 or utility.shape[1] < 2:
            raise ValueError(f"utility must have shape (prompts ≥ 1, responses ≥ 2), got {utility.shape}")
        pairs = _all_pairs(*utility.shape) if self.pairs is None else finite_array("pairs", self.pairs)
        wanted = (*utility.shape, utility.shape[1])
        if pairs.shape != wanted or (pairs != pairs.swapaxes(1, 2)).any() or (pairs < 0).any():
            raise ValueError(f"pairs must be symmetric, 0 or more and of shape {wanted}, got {shown(pairs)}")
        if np.einsum("xyy->xy", pairs).any():
            raise ValueError("pairs must be 0 on the diagonal, since no response is compared with itself")
        total = pairs.sum((1, 2), keepdims=True)
        if not total.all():
            raise ValueError(
                f"pairs must have a positive weight in every prompt, got none in {int((~total.astype(bool)).argmax())}"
            )
        for name, array in (("utility", utility), ("pairs", pairs / (total / 2))):
            array = array.copy()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def pair_weights(self) -> np.ndarray:
        """Return how often each pair appears, (X, Y, Y), symmetric; 2 in sum in each prompt."""
        return np.asarray(self.pairs)

    def labels(self, kind: Labels) -> np.ndarray:
        """Return the shares of the ordered pairs, (X, Y, Y), 1 in sum in each prompt: [x, i, j] is where i beats j."""
        one_of("labels", kind, get_args(Labels))
        gap = self.utility[:, :, None] - self.utility[:, None, :]
        right = np.heaviside(gap, 0.5) if kind == "hard" else sigmoid(gap)
        return self.pair_weights() * ((1 - 2 * self.noise) * right + self.noise)


@dataclass(frozen=True, eq=False, kw_only=True)
class TwoGoalWorld(World):
    """One preference problem with two goals, ``helpful`` and ``harmless``, each with its labelled set.

    ``fit`` trains on the mixture of both sets, with exact or finite data, and ``Fit.history`` has ``utility_GOAL`` and
    ``utility_share_GOAL`` of each goal beside the metrics of the mean utility, whose weights are the shares.

    ref_logp, lengths  as of ``World``.

    ``utility``, ``observed`` and ``hidden_pairs`` follow from the sets. Raises ValueError, in one line, for sets whose
    utilities have different shapes, and where ``World`` does.
    """

    utility: np.ndarray = field(init=False)
    observed: np.ndarray = field(init=False)
    hidden_pairs: np.ndarray | None = field(init=False, default=None)
    helpful: LabelledSet
    harmless: LabelledSet

    def __post_init__(self) -> None:
        for name in GOALS:
            of_kind(name, getattr(self, name), LabelledSet, "a LabelledSet")
        shapes = [labelled.utility.shape for labelled in self.sets.values()]
        if shapes[0] != shapes[1]:
            raise ValueError(f"both goals must have utilities of one shape, got {shapes[0]} and {shapes[1]}")
        weights = self.pair_weights()
        observed = weights.sum(2) > 0
        hidden = observed[:, :, None] & observed[:, None, :] & (weights == 0) & ~np.eye(weights.shape[1], dtype=bool)
        object.__setattr__(self, "utility", self._mean(self.goals))
        object.__setattr__(self, "observed", observed)
        object.__setattr__(self, "hidden_pairs", hidden if hidden.any() else None)
        super().__post_init__()

    @property
    def sets(self) -> dict[GoalName, LabelledSet]:
        """The labelled sets by their goals."""
        return {"helpful": self.helpful, "harmless": self.harmless}

    @property
    def goals(self) -> Mapping[str, np.ndarray]:
        """The utilities (X, Y) of both goals."""
        return {name: labelled.utility for name, labelled in self.sets.items()}

    def pair_weights(self) -> np.ndarray:
        """Return how often each pair appears in both sets together, (X, Y, Y); 2 in sum in each prompt."""
        return self._mean({name: labelled.pair_weights() for name, labelled in self.sets.items()})

    def wins(self, labels: Labels) -> np.ndarray:
        """Return the share of a pair's labels in which i beats j, in both sets, (X, Y, Y); ½ without labels."""
        won = self._mean({name: labelled.labels(labels) for name, labelled in self.sets.items()})
        weights = self.pair_weights()
        return np.divide(won, weights, out=np.full_like(won, 0.5), where=weights > 0)

    def preference(self) -> np.ndarray:
        """Return P(i ≻ j | x) among the labels of both sets, shape (X, Y, Y); ½ where a pair has no label."""
        return self.wins("soft")

    def conflict(self) -> dict[GoalName, float]:
        """Return the share of each set's pairs on which the goals disagree, a mean over prompts."""
        opposed = _opposed(self.helpful.utility, self.harmless.utility)
        return {
            name: float((labelled.pair_weights() * opposed).sum((1, 2)).mean() / 2)
            for name, labelled in self.sets.items()
        }

    def balance(self, logp: np.ndarray | None = None) -> dict[GoalName, float]:
        """Return the mean λ_w − ½ of bDPO over each set's labels: what it will favour, known before any training.

        λ_w = log π_l/(log π_w + log π_l) > ½ where the winner is the more probable response. logp (X, Y): the policy;
        None: the reference. Source: ours.
        """
        cost = -(self.ref_logp if logp is None else finite_array("logp", logp))
        if cost.shape != self.utility.shape or (cost < 0).any():
            raise ValueError(f"logp must be log-probabilities ≤ 0 of shape {self.utility.shape}, got {shown(logp)}")
        both = cost[:, :, None] + cost[:, None, :]
        weight = np.divide(cost[:, None, :], both, out=np.full_like(both, 0.5), where=both > 0)
        return {
            name: float((labelled.labels("soft") * (weight - 0.5)).sum((1, 2)).mean())
            for name, labelled in self.sets.items()
        }

    def swapped(self) -> TwoGoalWorld:
        """Return this world with the goals' names exchanged: trained alike, it must give the exchanged numbers."""
        return replace(self, helpful=self.harmless, harmless=self.helpful)

    def _mean(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the mean of the goals' values, weighted by shares; exactly the same with the names exchanged."""
        total = self.helpful.share + self.harmless.share
        first, second = (labelled.share / total * values[name] for name, labelled in self.sets.items())
        return first + second


@dataclass(frozen=True)
class Goal:
    """The properties of a goal and of its labelled pairs, as ``two_goal_world`` takes them. Everything is ours.

    Raises ValueError, in one line, for a number out of range.
    """

    height: float = 4.0
    """Utility of the best response, in nats of preference above a response far away, > 0."""
    noise: float = 0.0
    """Probability that a label is wrong, besides the noise of Bradley–Terry, in [0, ½]."""
    alignment: float = 0.0
    """How the reference leans: −1 to 1 times ``TILT`` nats towards this goal's good responses."""
    basin: float = 7.0
    """How many responses are good: the peak's width at half of its height, in responses, > 0."""
    share: float = 1.0
    """How many of the labels are of this goal, relative to the other, > 0."""
    conflict: float | None = None
    """Share of the goal's pairs on which the other goal disagrees, 0 to 1. None: as they come, all pairs equally
    often."""
    length: float = 1.0
    """By what the length of this goal's best response is multiplied, > 0: refusals are short."""

    def __post_init__(self) -> None:
        checked = {name: positive(name, getattr(self, name)) for name in ("height", "basin", "share", "length")}
        checked["noise"] = between("noise", self.noise, 0, 0.5)
        checked["alignment"] = between("alignment", self.alignment, -1, 1)
        conflict = None if self.conflict is None else between("conflict", self.conflict, 0, 1)
        keep_plain(self, **checked, conflict=conflict)

    def but(self, **changes: Any) -> Goal:
        """Return this goal with some properties changed; ValueError for a name that is no property."""
        for name in changes:
            one_of("a property of Goal", name, [each.name for each in fields(self)])
        return replace(self, **changes)

    def columns(self) -> dict[str, float]:
        """Return the properties by name; NaN for a conflict as it comes."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: float("nan") if value is None else value for name, value in values.items()}


def two_goal_world(
    helpful: Goal = Goal(),
    harmless: Goal = Goal(),
    *,
    prompts: int = 20,
    responses: int = 20,
    utilities: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> TwoGoalWorld:
    """Build a world in which two goals judge the same responses (ours).

    helpful, harmless  the properties of both goals and of their labelled pairs.
    prompts, responses  sizes X and Y.
    utilities  the utilities of both goals, each (X, Y), in place of drawn ones; sizes, heights and basins then follow
               from them, and the seed has no effect.
    seed       draws the places of both peaks in each prompt: one uniformly, the other ⅛ to ⅜ of the responses away.

    Each utility is height · s, where s(y) = exp(−d²/2σ²), d being the distance of y from the goal's peak on a circle of
    all responses, so that no response lies at an edge, and σ follows from the basin. With utilities of your own,
    s = (u − min u)/(max u − min u). Then for both goals g

        L(y) = max(1, TOKENS · Π_g length_g^{s_g(y)}),
        log π_ref(y) = Σ_g alignment_g · TILT · s_g(y) − SURPRISAL · L(y) + const.

    The draws go with the properties: with the arguments ``helpful`` and ``harmless`` exchanged, everything is exchanged
    bit for bit. Raises ValueError, in one line, for an argument out of range, utilities of different shapes, or a
    ``conflict`` for which a prompt lacks pairs.
    """
    for name, goal in zip(GOALS, (helpful, harmless), strict=True):
        of_kind(name, goal, Goal, "a Goal, such as Goal(height=2)")
    if utilities is None:
        shapes = _drawn(helpful, harmless, count("prompts", prompts, 1), count("responses", responses, 2), seed)
        heights = helpful.height * shapes[0], harmless.height * shapes[1]
    else:
        heights = _given(utilities)
        shapes = tuple(map(_shape, heights))
    length = TOKENS * (helpful.length ** shapes[0] * harmless.length ** shapes[1])
    length = np.maximum(length, 1.0)
    logits = TILT * (helpful.alignment * shapes[0] + harmless.alignment * shapes[1]) - SURPRISAL * length
    opposed = _opposed(*heights)
    sets = [
        LabelledSet(utility, goal.noise, goal.share, _pairs(name, goal.conflict, opposed))
        for name, goal, utility in zip(GOALS, (helpful, harmless), heights, strict=True)
    ]
    stated = length if helpful.length != 1 or harmless.length != 1 else None
    return TwoGoalWorld(ref_logp=log_softmax(logits), lengths=stated, helpful=sets[0], harmless=sets[1])


def _drawn(helpful: Goal, harmless: Goal, prompts: int, responses: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both shapes, (X, Y) each; which peaks are drawn first does not depend on the goals' names."""
    if prompts * responses**2 > MOST_PAIRS:
        raise ValueError(f"prompts × responses² must be at most {MOST_PAIRS:,}, got {prompts} × {responses}²")
    rng = stream(seed, Purpose.GOALS)
    first, apart = rng.uniform(0, responses, prompts), rng.uniform(*APART, prompts) * responses
    peaks = np.stack([first, (first + apart * rng.choice([-1, 1], prompts)) % responses])
    if _order(harmless) < _order(helpful):
        peaks = peaks[::-1]
    one, other = (_bump(centre, goal.basin, responses) for centre, goal in zip(peaks, (helpful, harmless), strict=True))
    return one, other


def _order(goal: Goal) -> tuple[float, ...]:
    """Return numbers that tell goals apart and put them in order."""
    return tuple(-1.0 if value is None else value for value in (getattr(goal, one.name) for one in fields(goal)))


def _bump(centre: np.ndarray, basin: float, responses: int) -> np.ndarray:
    away = np.abs(np.arange(responses) - centre[:, None])
    away = np.minimum(away, responses - away)
    with np.errstate(over="ignore"):
        return np.exp(-0.5 * (away * _HALF / basin) ** 2)


def _given(utilities: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(utilities, (tuple, list)) or len(utilities) != 2:
        raise ValueError(f"utilities must be two arrays, helpful and harmless, got {shown(utilities)}")
    first, second = (finite_array(f"utilities[{place}]", utility) for place, utility in enumerate(utilities))
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"utilities must be two arrays of one shape (prompts, responses), got {first.shape} and {second.shape}"
        )
    return first, second


def _shape(utility: np.ndarray) -> np.ndarray:
    low, width = utility.min(1, keepdims=True), np.ptp(utility, axis=1, keepdims=True)
    return np.divide(utility - low, width, out=np.zeros_like(utility), where=width > 0)


def _opposed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return True for the pairs on which two utilities disagree, (X, Y, Y); a tie agrees with everything."""
    signs = [np.sign(utility[:, :, None] - utility[:, None, :]) for utility in (one, other)]
    return signs[0] * signs[1] < 0


def _pairs(name: str, conflict: float | None, opposed: np.ndarray) -> np.ndarray:
    """Return how often each pair appears where a share ``conflict`` of them is ``opposed``, (X, Y, Y)."""
    every = _all_pairs(*opposed.shape[:2])
    if conflict is None:
        return every
    parts = [(conflict, opposed * every), (1 - conflict, ~opposed * every)]
    weights = np.zeros_like(every)
    for share, pairs in parts:
        total = pairs.sum((1, 2), keepdims=True)
        if share and not total.all():
            kind = "conflicting" if pairs is parts[0][1] else "agreeing"
            raise ValueError(
                f"conflict of {name} must leave pairs in every prompt, got {conflict:g} where prompt "
                f"{int((total.ravel() == 0).argmax())} has no {kind} pair"
            )
        weights += share * pairs / np.where(total > 0, total, 1)
    return weights


def _all_pairs(prompts: int, responses: int) -> np.ndarray:
    return np.broadcast_to(1.0 - np.eye(responses), (prompts, responses, responses))
