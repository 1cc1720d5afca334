"""The workbench in a notebook: a formula, sliders of its numbers, and the same verdict as the library's."""

from types import SimpleNamespace

import pytest

import gradlab as gl
from gradlab.atlas import workbench
from gradlab.atlas.against_dpo import EQUAL_KL
from gradlab.losses import DPO, PAIR_LOSSES
from gradlab.losses.formula import unregistered
from gradlab.plotting.charts import Map
from gradlab.widgets import AtlasExplorer, WorkbenchExplorer

DPO_AT = "-logsigmoid(beta * (h_w - h_l))"


@pytest.fixture(scope="module")
def made():
    explorer = WorkbenchExplorer(DPO_AT, {"beta": 0.5})
    yield explorer
    explorer.close()


@pytest.fixture
def explorer(made):
    """The workbench at its start, with DPO at β = 1/2."""
    made.reset()
    made.finish()
    return made


def titles(explorer):
    return [chart.title for chart in explorer.charts(explorer.result, None)]


def names(explorer):
    return [control.title for control in explorer.controls.values() if not control.hidden]


def test_a_formula_that_is_dpo_is_no_different_from_dpo(explorer):
    explorer.set(guess="neither")
    assert explorer.loss.beta == 0.5
    assert explorer.numbers["E[u] A"] == explorer.numbers["E[u] B"]
    assert explorer.result.verdict.word == "no practical difference"
    assert explorer.outcome(explorer.result)[0] == "neither"
    assert explorer.numbers[EQUAL_KL + " A"].startswith("no practical difference: +0.0 [")


def test_the_verdict_is_that_of_the_library(explorer):
    explorer.set(formula="-logsigmoid(beta * (h_w - weight * h_l))", number_1=1.0, number_2=0.5)
    explorer.finish()
    known = workbench(unregistered("mine", "-logsigmoid(beta * (h_w - weight * h_l))", beta=1.0, weight=0.5))
    assert explorer.result.verdict == known.verdict
    assert set(explorer.frame()["loss"]) == {"mine", "dpo"}
    code = explorer.as_python()
    assert "gl.formula_loss(\"mine\", '-logsigmoid(beta * (h_w - weight * h_l))', beta=1.0, weight=0.5)" in code


def test_sliders_follow_the_names_of_the_formula(explorer):
    assert names(explorer)[:2] == ["formula of the loss", "beta"]
    assert "your guess" in names(explorer)
    explorer.controls["formula"].value = "-logsigmoid(scale * h_w - beta * h_l)"
    explorer.finish()
    assert names(explorer)[1:3] == ["scale", "beta"]
    assert (explorer.loss.scale, explorer.loss.beta) == (1.0, 0.5)  # β went with its name
    assert explorer.front.offers["number_2"] == {"label": "beta", "low": 0.01, "high": 100.0, "scale": "log"}
    explorer.set(formula="-logsigmoid(h_w - h_l)")
    assert names(explorer)[1:] == ["your guess"]


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("h_w.data", "got an attribute: 'h_w.data'"),
        ("open(h_w)", "function in formula of this loss must be one of"),
        ("log(h_w)", "mine must be finite at π = π_ref, got -inf"),
        ("a*h_w+b*h_w+c*h_w+d*h_w+e*h_w+f*h_w+g*h_w", "formula must have at most 6 numbers of its own"),
        ("a", "must depend on log π"),
        ("h_w +", "must be an expression"),
        ("", "must be an expression"),
    ],
)
def test_a_formula_at_fault_is_said_beside_the_field_and_nothing_is_lost(explorer, formula, words):
    before, shown = explorer.result, titles(explorer)
    explorer.set(formula=formula)
    explorer.finish()
    note = explorer.controls["formula"].note
    assert words in note
    assert "\n" not in note
    assert explorer.front.offers["formula"] == {"note": note}
    assert explorer.state["formula"] == formula
    assert explorer.error is None
    assert explorer.result.loss == before.loss
    assert titles(explorer) == shown
    assert "mine" not in PAIR_LOSSES
    explorer.set(formula="-logsigmoid(beta * (h_w - h_l))", number_1=2.0)
    assert explorer.controls["formula"].note == ""
    assert explorer.loss.beta == 2.0


def test_before_the_guess_neither_frontier_nor_verdict_is_shown(explorer):
    assert "what it buys" not in titles(explorer)
    assert not any(
        isinstance(chart, Map) and "directions" in chart.title for chart in explorer.charts(explorer.result, None)
    )
    assert EQUAL_KL + " A" not in explorer.numbers
    explorer.set(guess="shown")
    explorer.finish()
    assert titles(explorer)[-1] == "what it buys"
    assert any("directions" in title for title in titles(explorer))


def test_a_loss_that_is_registered_joins_the_menus_of_others(explorer, registered):
    atlas = AtlasExplorer()
    loss = explorer.register("bench-test")
    try:
        assert gl.pair_loss("bench-test") == loss
        assert "bench-test" in dict(atlas.controls["loss_b"].options)
        with pytest.raises(ValueError, match="must be one that no registered loss has"):
            explorer.register("dpo")
    finally:
        gl.losses.unregister_loss("bench-test")
        atlas.close()


def test_a_loss_that_reads_lengths_gets_some(explorer):
    explorer.set(formula="-logsigmoid(beta * (h_w - h_l) + gamma * (L_w - L_l))", number_1=1.0, number_2=0.2)
    explorer.finish()
    assert explorer.error is None
    with_lengths = explorer.numbers["E[u] A"]
    assert with_lengths != pytest.approx(explorer.numbers["E[u] B"], abs=1e-3)


def test_bad_numbers_of_a_start_are_refused():
    with pytest.raises(ValueError, match="numbers must be of the formula, beta; got 'gamma'"):
        WorkbenchExplorer("-beta * h_w", {"gamma": 1.0})
    with pytest.raises(ValueError, match="got an attribute"):
        WorkbenchExplorer("h_w.x")


def test_the_first_picture_of_a_new_loss_waits_for_its_own_training_alone(explorer):
    explorer.set(formula="-logsigmoid(beta * (h_w - h_l) - 2 * tanh(h_w))")
    explorer.finish()
    assert explorer.result.baseline == DPO(0.5)
    assert set(explorer.result.trained["loss"]) == {"mine", "dpo"}
    assert explorer.result.verdict is not None
    first = next(explorer.compute(SimpleNamespace(**explorer.state)))
    assert len(first.paths["a"])
    assert set(first.trained["loss"]) == {"mine"}
    assert first.verdict is None
