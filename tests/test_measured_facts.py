"""Facts that a class inherits are measured, those of sums of losses too; powers near 0 keep their digits."""

import math
from dataclasses import dataclass

import pytest
import torch

from gradlab.losses import (
    DPO,
    IPO,
    PAIR_LOSSES,
    BatchLoss,
    LogisticLoss,
    PairLogps,
    WeightedLosses,
    formula_loss,
    pair_loss,
    register_loss,
    unregister_loss,
)

FACTS = ("needs_lengths", "needs_reference", "winner_down", "loser_up", "bounded_below", "bounded_above")


@pytest.fixture(autouse=True)
def kept():
    """Take out of the registry what a test has added."""
    before = set(PAIR_LOSSES)
    yield
    for name in set(PAIR_LOSSES) - before:
        unregister_loss(name)


@dataclass(frozen=True)
class Backwards(LogisticLoss):
    """A margin of lengths, without a reference, that pushes both sides the wrong way, and is not 0 at the start."""

    beta: float = 1.0
    name = "backwards"
    equation = "−log σ(1 + β tanh(log π_l/L_l − log π_w/L_w))"
    source = "a test"
    antisymmetric = False

    def margin(self, logps):
        win_len, lose_len = logps.lengths(self.name)
        return 1 + self.beta * torch.tanh(logps.lose / lose_len - logps.win / win_len)


@dataclass(frozen=True)
class Kept(Backwards):
    """Another, whose base states what it does."""

    name = "kept"
    needs_reference = True


def test_what_a_logistic_loss_inherits_is_measured():
    loss = register_loss(Backwards)()
    assert [getattr(loss, fact) for fact in FACTS] == [True, False, True, True, True, True]
    assert loss.logistic
    assert loss.start_value is None
    assert loss.start_equation == ""


def test_what_a_class_of_the_users_states_is_kept():
    register_loss(Kept)
    assert Kept().needs_reference
    assert Kept().winner_down


def test_what_a_loss_of_a_batch_inherits_is_measured():
    @dataclass(frozen=True)
    class Centred(BatchLoss):
        name = "centred"
        label = "centred"
        equation = "h_l − mean h_w"
        source = "a test"

        def __call__(self, logps, weights=None):
            return logps.lose_logratio - logps.win_logratio.mean(0)

    register_loss(Centred)
    assert [getattr(Centred(), fact) for fact in FACTS] == [False, True, False, False, False, False]


def test_gradlabs_classes_stay_as_they_are():
    before = dict(vars(DPO))
    with pytest.raises(ValueError, match="must be one that no registered loss has"):
        register_loss(DPO)
    assert dict(vars(DPO)) == before


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_sum_of_one_loss_has_its_facts(name):
    loss = pair_loss(name)
    summed = WeightedLosses(((loss, 1.0),))
    assert {fact: getattr(summed, fact) for fact in FACTS} == {fact: getattr(loss, fact) for fact in FACTS}


def test_the_facts_of_a_sum_are_those_of_the_sum():
    """IPO pushes a winner down whose margin is too large; from below it is bounded, times −1 from above."""
    assert not WeightedLosses(((DPO(1.0), 1.0), (DPO(0.5), 2.0))).winner_down
    upside_down = WeightedLosses(((IPO(1.0), -1.0),))
    assert (upside_down.bounded_below, upside_down.bounded_above) == (False, True)


def shaped(name, power, dtype):
    """Return the margin of a loss whose power is near 0, at l̄ = h = −1.98 and −2.02."""
    sides = [torch.tensor([side], dtype=torch.float64).to(dtype) for side in (-1.98, -2.02, 0.0, 0.0)]
    ones = torch.ones(1)
    loss = pair_loss(name, **power)
    return loss.margin(PairLogps(*sides, ones, ones)).item()


@pytest.mark.parametrize("power", [2e-6, 1e-5, 1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_power_near_0_keeps_its_digits_in_float32(power, sign):
    """Each side is about 2, which float32 rounds by 1.2e-7, and four roundings in 0.04 are 1e-5 of it."""
    alpha = {"beta": 50.0, "gamma": 0.0, "reward_shape": sign * power}
    order = {"beta": 50.0, "order": 1 + sign * power}
    for name, hyper in (("alphapo", alpha), ("f-dpo", order)):
        exact = 50 * (math.expm1(-1.98 * (p := -sign * power if name == "alphapo" else hyper["order"] - 1))
                      - math.expm1(-2.02 * p)) / p  # fmt: skip
        assert shaped(name, hyper, torch.float64) == pytest.approx(exact, rel=1e-9)
        assert shaped(name, hyper, torch.float32) == pytest.approx(exact, rel=2e-5)


def test_a_hyper_parameter_has_no_name_of_an_argument():
    for name in ("name", "expression"):
        with pytest.raises(ValueError, match=f"must have a name with no other meaning, got '{name}'"):
            formula_loss("mine", f"-logsigmoid({name} * (h_w - h_l))", **{name: 1.0})
