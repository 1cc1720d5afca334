"""A loss in one line: the same numbers as the class, facts that are measured, and one line for every refusal."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
import torch

import gradlab as gl
from gradlab.losses import DPO, IPO, PAIR_LOSSES, LogisticLoss, PairLogps, family_of, slopes
from gradlab.losses.definition import definition
from gradlab.losses.formula import MOST_LETTERS, unregistered
from gradlab.losses.registry import YOURS, hyper_parameters, restore_losses, users_losses

MARGIN = "-logsigmoid(beta * (h_w - h_l) + gamma * (L_w - L_l))"


@pytest.fixture
def formula(registered):
    """``gl.formula_loss``, whose losses are taken out after the test."""

    def register(*given, **hyper):
        return registered(unregistered(*given, **hyper))

    return register


def pairs(shape=(40,), seed=0, reach=6.0):
    generator = torch.Generator().manual_seed(seed)
    sides = (-reach * torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(4))
    lengths = (torch.randint(1, 40, shape, generator=generator) for _ in range(2))
    return PairLogps(*sides, *lengths)


SAME = {  # a formula, and the same by PyTorch
    "-logsigmoid(2 * (h_w - h_l))": DPO(2.0),
    "-log(sigmoid(2 * (h_w - h_l)))": DPO(2.0),
    "(h_w - h_l - 1/(2*2))**2": IPO(2.0),
    "softplus(2*h_l - 2*h_w)": DPO(2.0),
    "max(0, 1 - (h_w - h_l))": lambda p: (1 - p.win_logratio + p.lose_logratio).clamp(min=0),
    "relu(1 - h_w + h_l)": lambda p: (1 - p.win_logratio + p.lose_logratio).relu(),
    "-l_w / L_w + detach(h_l) * r_l": lambda p: -p.win / p.win_len + p.lose_logratio.detach() * p.ref_lose,
    "2 ** h_w + h_l ** 3": lambda p: 2**p.win_logratio + p.lose_logratio**3,
    "min(h_w, h_l, 1) + min(2, 3) + clamp(r_w, h_l, 1)": lambda p: (
        torch.minimum(p.win_logratio, p.lose_logratio).clamp(max=1)
        + 2
        + torch.maximum(p.ref_win, p.lose_logratio).clamp(max=1)
    ),
    "-log(1/2 + atan(h_w - h_l)/pi)": lambda p: -(0.5 + (p.win_logratio - p.lose_logratio).atan() / math.pi).log(),
    "abs(h_w)*sign(h_l) + square(tanh(h_w)) + expm1(h_l) + log1p(exp(h_w)) + sqrt(1+h_w**2)": lambda p: (
        p.win_logratio.abs() * p.lose_logratio.sign()
        + p.win_logratio.tanh().square()
        + p.lose_logratio.expm1()
        + p.win_logratio.exp().log1p()
        + (1 + p.win_logratio**2).sqrt()
    ),
    "exp(1) * h_w − +sigmoid(0) * h_l": lambda p: math.e * p.win_logratio - 0.5 * p.lose_logratio,
}


@pytest.mark.parametrize("text", SAME)
def test_a_formula_is_the_loss_that_it_states(text):
    given, expected = unregistered("same", text), SAME[text]
    torch.testing.assert_close(given(pairs()), expected(pairs()), rtol=1e-12, atol=1e-12)
    for here, there in zip(slopes(given, pairs()), slopes(expected, pairs()), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-10, atol=1e-12)


def test_log_sigma_does_not_underflow():
    far = PairLogps(*(torch.tensor([x], dtype=torch.float64) for x in (-2000.0, -1.0, -1.0, -1.0)))
    assert unregistered("far", "-log(sigmoid(h_w - h_l))")(far).item() == 1999


def test_a_formula_is_registered_and_its_facts_are_measured(formula):
    mine = formula("mine", MARGIN, beta=1, gamma=0.1)
    assert gl.pair_loss("mine", gamma=0.2) == replace(mine, gamma=0.2)
    assert (mine.label, mine.equation, mine.start_value) == ("mine", MARGIN, None)
    assert (mine.needs_lengths, mine.antisymmetric, mine.logistic) == (True, True, True)
    assert (mine.bounded_below, mine.bounded_above, mine.winner_down, mine.loser_up) == (True, False, False, False)
    assert family_of(mine) == YOURS
    assert isinstance(mine, LogisticLoss)
    assert hyper_parameters()["gamma"].defaults["mine"] == 0.1
    hinge = formula("other", "max(0, 1 - beta * (h_w - h_l))", beta=0.5)
    assert (hinge.start_value, hinge.needs_lengths, hinge.antisymmetric, hinge.logistic) == (1.0, False, False, False)
    assert hinge.needs_reference
    assert not formula("free", "-logsigmoid(l_w - l_l)").needs_reference


@pytest.mark.parametrize(
    ("text", "below", "above"),
    [
        ("h_l - h_w", False, False),
        ("-log1p(h_w**2)", False, True),
        ("tanh(h_w)", True, True),
        ("exp(h_l)", True, False),
    ],
)
def test_bounds_are_measured(text, below, above):
    loss = unregistered("bounds", text)
    assert (loss.bounded_below, loss.bounded_above) == (below, above)


@pytest.mark.parametrize(
    ("margin", "holds"),
    [
        ("h_w - h_l", True),
        ("2*h_w - 2*h_l", True),
        ("-(h_l - h_w)/3", True),
        ("tanh(h_w - h_l) * (h_w + h_l)", True),
        ("(h_w - h_l)**3 * abs(h_w - h_l)", True),
        ("max(h_w, h_l) * (l_w - l_l)", True),
        ("detach(l_l/(l_w + l_l)) * h_w - detach(l_w/(l_l + l_w)) * h_l", True),  # bDPO's
        ("detach(l_l/(l_w + l_l)) * h_w - detach(l_w/(l_l + l_w)) * h_l + 0", False),
        ("h_w - h_l + relu(h_w - 100)", False),  # not seen on usual pairs
        ("h_w - 2*h_l", False),
        ("h_w - h_l + 1", False),
        ("(h_w - h_l)**2", False),
        ("h_w - l_l", False),
    ],
)
def test_antisymmetric_is_what_the_form_proves(margin, holds):
    loss = unregistered("form", f"-logsigmoid({margin})")
    assert loss.antisymmetric is holds
    if holds:
        assert torch.equal(loss.margin(pairs().swapped()), -loss.margin(pairs()))


def test_a_formula_trains_as_its_class_does(formula):
    world = gl.gaussian_world(2, 4)
    mine = formula("mine", "-logsigmoid(beta * (h_w - h_l))", beta=0.5)
    assert torch.equal(gl.fit(world, mine, steps=20).logp, gl.fit(world, DPO(0.5), steps=20).logp)


def test_a_formula_travels_and_comes_back(formula):
    mine = formula("mine", MARGIN, beta=1.0, gamma=0.1)
    changed = replace(mine, beta=2.0)
    for loss in (mine, changed):
        assert pickle.loads(pickle.dumps(loss)) == copy.copy(loss) == loss
        torch.testing.assert_close(pickle.loads(pickle.dumps(loss))(pairs()), loss(pairs()), rtol=0, atol=0)
    assert repr(changed) == f"formula_loss('mine', '{MARGIN}', beta=2.0, gamma=0.1)"
    (sent,) = users_losses(["mine"])
    gl.losses.unregister_loss("mine")
    restore_losses(pickle.loads(pickle.dumps([sent])))
    assert PAIR_LOSSES["mine"]() == mine


def test_a_cell_that_runs_again_replaces_its_formula(formula):
    first = formula("mine", "-logsigmoid(beta * h_w)", beta=1.0)
    again = formula("mine", "-logsigmoid(beta * h_w)", beta=1.0)
    assert type(first) is type(again)
    other = formula("mine", "-logsigmoid(beta * h_w - 1)", beta=1.0)
    assert PAIR_LOSSES["mine"]() == other != first
    assert definition(first) == definition(again) != definition(other)


REFUSED = {
    "x + h_w": "name in formula of bad must be one of h_w, .*; got 'x'; a hyper-parameter needs its number: x=1.0",
    "h_w.real": "got an attribute: 'h_w.real'",
    "h_w[0]": "got a subscript",
    "(lambda: 1)()": "must call one of logsigmoid, .*; got '.lambda: 1...'",
    "__import__('os')": "function in formula of bad must be one of logsigmoid, .*got '__import__'",
    "h_w.__class__()": "must call one of",
    "h_w < 1": "got a comparison",
    "h_w if 1 else 2": "got an if",
    "[h_w]": "got a List",
    "f'{h_w}'": "got a JoinedStr",
    "h_w // 2": "got another operator",
    "~h_w": "got another operator",
    "'a'": "got a value that is no number",
    "True * h_w": "got a value that is no number: 'True'",
    "2j * h_w": "got a value that is no number: '2j'",
    "exp(h_w, 2)": "exp in formula of bad takes 1 argument, got 2",
    "clamp(h_w, min=1)": "clamp in formula of bad takes no arguments by name",
    "max(*h_w)": "must not unpack arguments",
    "1 + 2": "must depend on log π of a pair, by h_w, h_l, l_w or l_l, got '1 . 2'",
    "r_w - r_l": "must depend on log π",
    "log(h_w)": "bad must be finite at π = π_ref, got -inf",
    "sqrt(abs(h_w))": "bad must have finite slopes at π = π_ref, got nan in log π_w",
    "(-1)**0.5 * h_w": "must be finite at π = π_ref: '.-1. .. 0.5' is a complex number",
    "1/0 * h_w": "'1 / 0' has no value .float division by zero.",
    "log(0) * h_w": "'log.0.' has no value",
    "10**10**10 * h_w": "has no value",
    "1e999 * h_w": "must have finite numbers, got '1e309'",
    "h_w + " * 300 + "h_w": "at most 400 parts, 100 within each other",
    "-" * 1000 + "h_w": "at most 400 parts, 100 within each other",
    "h_w" + " " * MOST_LETTERS: "at most 2000 characters, got 2003",
    "(" * 900 + "h_w" + ")" * 900: "must be an expression",
    "h_w +": "must be an expression of Python",
    "h_w\0": "must be an expression",
    "": "must be an expression such as",
    "h_w = 1": "must be an expression of Python",
    "import os": "must be an expression of Python",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_what_is_no_formula_is_refused_in_one_line(text):
    before = dict(PAIR_LOSSES)
    with pytest.raises(ValueError, match=REFUSED[text]) as caught:
        gl.formula_loss("bad", text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert dict(PAIR_LOSSES) == before


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"beta": math.nan}, "beta of bad must be a finite number, got nan"),
        ({"beta": "1"}, "beta of bad must be a finite number, got '1'"),
        ({"beta": True}, "beta of bad must be a finite number, got True"),
        ({"beta": 1, "gamma": 2}, "gamma of bad must be used by its formula, got 'beta . h_w'"),
        ({"beta": 1, "margin": 2}, "hyper-parameter of bad must have a name with no other meaning, got 'margin'"),
        ({"beta": 1, "pi": 2}, "no other meaning, got 'pi'"),
        ({"beta": 1, "exp": 2}, "no other meaning, got 'exp'"),
        ({}, "got 'beta'; a hyper-parameter needs its number: beta=1.0"),
    ],
)
def test_numbers_of_a_formula_are_checked(hyper, words):
    with pytest.raises(ValueError, match=words):
        gl.formula_loss("bad", "beta * h_w", **hyper)


def test_a_name_that_is_taken_or_is_none_is_refused():
    for name, words in [("dpo", "must be one that no registered loss has"), ("a b", "one word"), ("", "one word")]:
        with pytest.raises(ValueError, match=words):
            gl.formula_loss(name, "h_l - h_w")


def test_a_number_that_a_slider_gives_is_checked(formula):
    inverse = formula("mine", "-logsigmoid(h_w * (1 / beta))", beta=1.0)
    with pytest.raises(ValueError, match="'1 / beta' has no value"):
        replace(inverse, beta=0.0)


def test_pairs_without_lengths_are_refused_by_name(formula):
    mine = formula("mine", MARGIN, beta=1.0, gamma=0.1)
    bare = replace(pairs(), win_len=None)
    with pytest.raises(ValueError, match="win_len must be given, since mine needs the lengths"):
        mine(bare)


def test_sliders_hold_their_defaults(formula):
    given = {"beta": 0.5, "gamma": 0.0, "a": 3.0, "b": -20.0, "c": 1e-3}
    formula("mine", "-logsigmoid(beta*h_w - gamma*h_l + a*r_w + b*r_l + c)", **given)
    menu = hyper_parameters()
    for key, value in given.items():
        low, high, step, log = menu[key].sliders["mine"]
        assert low <= (math.log10(value) if log else value) <= high
        assert step > 0
