"""Numbers of one pair and of trainings in the page are those of the explorers in Python, for states drawn at random."""

import re

import numpy as np
import pytest
from drawn_states import drawn_state
from node import needs_node, with_bundle
from rounding import rounding

from gradlab.losses import PAIR_LOSSES, FixedWeightDPO
from gradlab.widgets import PairExplorer
from gradlab.widgets.compared_losses import title_of
from gradlab.widgets.losses_in_page import facts_of, kernel_of

pytestmark = needs_node

PAIR = """
  const losses = Object.fromEntries(given.losses.map((loss) => [loss.name, loss]));
  const kernels = {};
  for (const { name, slopes } of given.losses) kernels[name] = await lab.Kernel.load(slopes);
  return given.states.map((state) => {
    const [win, lose] = lab.effects.policyOf(state);
    const [refWin, refLose] = lab.effects.referenceOf(state);
    const slots = lab.slotsOf(state, given.losses);
    const effects = slots.map(({ loss, hyper }) => {
      const logs = { win: [win], lose: [lose], refWin: [refWin], refLose: [refLose] };
      const pairs = Object.fromEntries(Object.entries(logs).map(([name, all]) => [name, all.map(Math.log)]));
      const found = lab.slopes(kernels[loss.name].at(hyper), pairs);
      return lab.effects.effect(win, lose, state.responses, [found.win[0], found.lose[0]], state.step);
    });
    const outcome = lab.effects.movedMore(effects[0]);
    const words = (one) => Object.entries(one).map(([name, all]) => [name, [all].flat().map(String)]);
    const code = lab.python.filled(given.template, state, lab.python.pairParts(state, slots));
    const names = slots.map(({ name }) => name);
    return { effects: effects.map((one) => Object.fromEntries(words(one))), outcome, names, code };
  });
"""


def pairs_in_node(states):
    losses = [{**facts_of(make()), "slopes": kernel_of(make(), "slopes")} for make in PAIR_LOSSES.values()]
    return with_bundle(PAIR, {"states": states, "losses": losses, "template": PairExplorer.template})


def as_written(code):
    """Code without the ".0" of whole numbers, which the page does not write."""
    return re.sub(r"(\d)\.0\b", r"\1", code)


@pytest.mark.slow
def test_numbers_of_a_pair_are_those_of_the_explorer_in_python():
    explorer = PairExplorer()
    rng = np.random.default_rng(1)
    states = [drawn_state(explorer, rng) for _ in range(40)]
    for state, there in zip(states, pairs_in_node(states), strict=True):
        explorer.set(**state)
        here = explorer.result
        assert there["names"] == [title_of(slot, one.loss) for slot, one in here.effects.items()]
        assert tuple(there["outcome"]) == explorer.outcome(here), state
        assert as_written(there["code"]) == as_written(explorer.as_python())
        for one, found in zip(here.effects.values(), there["effects"], strict=True):
            number = {name: np.array(all, float) for name, all in found.items()}
            # A slope below 1e-290 may be none.
            np.testing.assert_allclose(number["byProb"], one.by_prob, rtol=1e-9, atol=1e-270, err_msg=str(state))
            for name, value in (("changeLogp", one.change), ("changeProb", one.change_in_prob)):
                np.testing.assert_allclose(number[name], value, rtol=1e-9, atol=rounding(100), err_msg=str(state))
            if np.abs(one.by_logp[:2]).min() > 1e-290:
                np.testing.assert_allclose(number["rho"], one.rho, rtol=1e-9)
                np.testing.assert_allclose(number["ratio"], one.ratio, rtol=1e-9)
    explorer.close()


@pytest.mark.parametrize("reference", ["the policy", "own values"])
def test_the_loser_gives_way_in_the_pages_numbers_and_code_too(reference):
    explorer = PairExplorer(win=0.9, lose=0.8, ref_win=0.7, ref_lose=0.6, reference=reference)
    (there,) = pairs_in_node([explorer.state])
    assert as_written(there["code"]) == as_written(explorer.as_python())
    for one, number in zip(explorer.result.effects.values(), there["effects"], strict=True):
        assert [float(value) for value in number["byLogp"]] == pytest.approx(one.by_logp.tolist(), rel=1e-9)
    explorer.close()


def test_a_step_that_is_rounding_alone_moves_neither():
    explorer = PairExplorer(losses=["dpo", "bdpo"], beta_a=100.0, win=0.5, lose=1e-12, reference="uniform")
    (there,) = pairs_in_node([explorer.state])
    assert explorer.outcome(explorer.result)[0] == there["outcome"][0] == "equal"
    explorer.close()


def test_a_label_has_the_number_that_is_set():
    facts = {name: facts_of(make()) for name, make in PAIR_LOSSES.items()}
    assert facts["fixed-weight"]["title"] == "constant λ = {win_weight}"
    assert all(one["title"] == one["label"] for name, one in facts.items() if name != "fixed-weight")
    asked = [0.05, 0.5, 1 / 3, 0.95]
    body = """
      return given.asked.map((win_weight) => {
        const state = { loss_a: "fixed-weight", beta_a: 1, win_weight_a: win_weight };
        return lab.slotsOf(state, given.losses)[0].name;
      });
    """
    found = with_bundle(body, {"asked": asked, "losses": list(facts.values())})
    assert found == [title_of("a", FixedWeightDPO(win_weight=weight)) for weight in asked]
