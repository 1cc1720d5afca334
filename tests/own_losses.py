"""The losses that the tests run over: the registered ones, README's, and another of a user's own."""

import itertools
from dataclasses import dataclass

import pytest

from gradlab.losses import PAIR_LOSSES, LogisticLoss, PairLoss


@dataclass(frozen=True)
class Lopsided:
    beta: float = 1.0
    name = "lopsided"
    equation = "max(0, 1 − β(2h_w − h_l))"
    source = "ours: a hinge that counts the winner twice"
    antisymmetric = False  # only a logistic loss can be

    def __call__(self, logps):
        return (1 - self.beta * (2 * logps.win_logratio - logps.lose_logratio)).clamp(min=0)


@dataclass(frozen=True)
class SquaredMargin:
    """Another of a user's own: no kink, and no β."""

    name = "squared"
    equation = "(h_w − 2h_l − 1)²"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        return (logps.win_logratio - 2 * logps.lose_logratio - 1) ** 2


@dataclass(frozen=True)
class PerToken(LogisticLoss):
    """Another, of log-probabilities per token."""

    beta: float = 1.0
    name = "per-token"
    equation = "−log σ(β(h_w/L_w − h_l/L_l))"
    source = "a test"
    antisymmetric = True
    needs_lengths = True

    def margin(self, logps):
        win_len, lose_len = logps.lengths(self.name)
        return self.beta * (logps.win_logratio / win_len - logps.lose_logratio / lose_len)


REGISTERED: dict[str, PairLoss] = {name: make() for name, make in PAIR_LOSSES.items()}
EVERY_LOSS: dict[str, PairLoss] = {**REGISTERED, "README's lopsided": Lopsided()}
LOGISTIC_LOSSES = {name: loss for name, loss in EVERY_LOSS.items() if isinstance(loss, LogisticLoss)}

# What every PairLoss owes, kinks and slopes of zero allowed; and what −log σ(m) owes beyond that.
every_loss = pytest.mark.parametrize("loss", EVERY_LOSS.values(), ids=EVERY_LOSS)
# For dear tests, which run over all losses in the slow tier alone, and elsewhere over one for each structure.
SOME = (
    "dpo",  # antisymmetric
    "cdpo",  # a function of the margin, and not antisymmetric
    "nbdpo",  # its weight depends on the policy, and is clipped
    "nca",  # pointwise
    "hinge",  # with a kink, beyond which no slope is left
    "bpo",  # with a kink at the reference
    "sigmoid-norm",  # of lengths
    "simpo",  # of lengths, and without a reference
    "README's lopsided",  # a user's own
    "per token",  # a user's own, of lengths
)
KINKED = ("bpo", "dpop", "minor-dpo")  # at the reference, where rounding would choose between two slopes


def dear(losses):
    """Run over these losses, by name; those that are not in ``SOME`` in the slow tier alone."""
    params = [
        pytest.param(one, id=name, marks=() if name in SOME else pytest.mark.slow) for name, one in losses.items()
    ]
    return pytest.mark.parametrize("loss", params)


def in_turn(arguments, rows, kinds, every=None, some=SOME):
    """Run every row with every kind, by tiers.

    A quick run has some rows, each with the kinds whose turn it is; a slow run these rows with all kinds, and the
    others with the kinds whose turn it is. The rest runs weekly.

    arguments  the two names of the test's arguments.
    rows       what to run over, by name.
    kinds      what to run it with, by name.
    every      one kind in how many has its turn, and the next with the next row; None: as many as there are. Where
               there are as many rows, every kind has its turn.
    some       the names of rows that a quick run has.
    """
    places = {name: place for place, name in enumerate(sorted(rows, key=lambda name: name not in some))}
    tiers = {(True, True): (), (True, False): pytest.mark.slow, (False, True): pytest.mark.slow}
    return pytest.mark.parametrize(
        arguments,
        [
            pytest.param(
                row,
                kind,
                id=f"{name}-{other}",
                marks=tiers.get((name in some, (places[name] + turn) % (every or len(kinds)) == 0), pytest.mark.long),
            )
            for name, row in rows.items()
            for turn, (other, kind) in enumerate(kinds.items())
        ],
    )


def product_of(**axes):
    """Return all combinations of these values, by name: dictionaries of one value per axis."""
    return {
        "-".join(names): dict(zip(axes, values, strict=True))
        for names, values in zip(
            itertools.product(*axes.values()),
            itertools.product(*(axis.values() for axis in axes.values())),
            strict=True,
        )
    }


dear_every_loss = dear(EVERY_LOSS)
dear_every_name = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOME else pytest.mark.slow) for name in PAIR_LOSSES]
)
every_logistic_loss = pytest.mark.parametrize("loss", LOGISTIC_LOSSES.values(), ids=LOGISTIC_LOSSES)
