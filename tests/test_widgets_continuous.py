"""The explorer of continuous responses: what each story says is what it shows."""

import numpy as np
import pytest

from gradlab.widgets import ContinuousExplorer


@pytest.fixture(scope="module")
def explorer():
    made = ContinuousExplorer()
    yield made
    made.close()


def told(explorer, title, **values):
    """The explorer after a story, with all of its trainings."""
    explorer.tell(title)
    explorer.set(**values)
    explorer.finish()
    assert explorer.error is None, explorer.status
    return explorer


def test_in_a_tenth_of_the_unit_weights_leave_0_to_1_on_both_sides(explorer):
    of = told(explorer, "Weights outside [0, 1]").result
    weights = of.weights(of.end)
    assert weights.min() < 0
    assert weights.max() > 1
    assert explorer.numbers["library"] == "refused"
    assert explorer.outcome(of)[0] == "other"


def test_in_a_thousandth_the_less_probable_side_has_the_larger_weight(explorer):
    of = told(explorer, "Turned round").result
    weights = of.weights(of.start)
    inside = (weights >= 0) & (weights <= 1)
    assert inside.mean() > 0.95
    lead = (of.start.win - of.start.lose).numpy()
    assert (np.sign(weights - 0.5) == -np.sign(lead))[inside].all()


def test_a_large_unit_comes_near_dpo_at_half_beta(explorer):
    of = told(explorer, "A large unit is DPO at β/2").result
    seen_in_y = told(explorer, "A large unit is DPO at β/2", unit=1.0).result
    spread = [np.abs(one.weights(one.end) - 0.5).mean() for one in (of, seen_in_y)]
    assert spread[0] < 0.1 < spread[1]
    explorer.tell("A large unit is DPO at β/2")
    assert explorer.numbers["library"] == "trained"
    large = of.fit.logp.exp()
    half = told(explorer, "A large unit is DPO at β/2", loss="fixed-weight").result.fit.logp.exp()
    near = float(of.world.interval.integral((large - half).abs())) / 2
    assert near < 0.5 * of.distance


def test_where_the_reference_is_uniform_weights_start_at_half_by_convention(explorer):
    of = told(explorer, "No unit at all").result
    assert np.abs(of.weights(of.start)).max() <= 1
    np.testing.assert_allclose(of.start.win.numpy(), 0, atol=1e-12)
    assert explorer.numbers["outside end"] > 0.1


@pytest.mark.parametrize("loss", ["relative-bdpo", "dpo", "fixed-weight"])
def test_losses_of_ratios_train_one_policy_in_all_coordinates(explorer, loss):
    of = told(explorer, "Relative to the reference", loss=loss, coordinate="sinh").result
    assert explorer.outcome(of)[0] == "same"
    assert explorer.numbers["distance"] < 1e-12
    np.testing.assert_allclose(of.weights(of.start), 0.5, atol=1e-12)


def test_only_the_last_chart_waits_for_the_guess(explorer):
    charts = told(explorer, "Turned round").charts(explorer.result, None)
    assert len(charts) == 4
    assert list(explorer.before_guess(charts)) == list(charts[:3])
    assert len(charts[3].curves) == 10


def test_the_unit_costs_one_training_and_keeps_the_others(explorer):
    told(explorer, "Turned round")
    others = explorer.result.others
    explorer.set(unit=20.0)
    explorer.finish()
    assert explorer.result.others is others


def test_the_copied_code_gives_the_numbers_that_are_shown(explorer, capsys):
    told(explorer, "Weights outside [0, 1]")
    exec(compile(explorer.as_python(), "<copied>", "exec"), {})
    shown = capsys.readouterr().out.splitlines()[-1]
    assert f"'utility': {explorer.numbers['E[u]']!r}"[:22] in shown
