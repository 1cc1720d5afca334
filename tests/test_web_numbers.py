"""Numbers of one pair and of trainings in the page are those of the explorers in Python, for states drawn at random."""

import re

import numpy as np
import pytest
from drawn_states import drawn_state
from node import needs_node, with_bundle
from own_losses import KINKED, SOME
from rounding import rounding

from gradlab.lab.fit import fit
from gradlab.losses import PAIR_LOSSES, FixedWeightDPO
from gradlab.widgets import GridExplorer, PairExplorer
from gradlab.widgets.compared_losses import title_of
from gradlab.widgets.grid_explorer import RECORD, _metrics_of
from gradlab.widgets.losses_in_page import facts_of, kernel_of
from gradlab.widgets.world_controls import recipe_of
from gradlab.widgets.world_texts import Paint, paint_text

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


def of_some(state, rng):
    """The state with losses of one per structure: others' slopes may cancel, which amplifies rounding.

    A kink at the reference amplifies it, too: there the last bit of a logarithm chooses between two slopes, and
    processors differ in that bit.
    """
    names = [name for name in SOME if name in PAIR_LOSSES and name not in KINKED]
    return {**state, **{name: str(rng.choice(names)) for name in state if name.startswith("loss_")}}


def chosen_in(states):
    """The names of all losses that the menus of these states are set to."""
    return {value: None for state in states for name, value in state.items() if name.startswith("loss_")}


def pairs_in_node(states):
    chosen = [PAIR_LOSSES[name]() for name in chosen_in(states)]
    losses = [{**facts_of(loss), "slopes": kernel_of(loss, "slopes")} for loss in chosen]
    return with_bundle(PAIR, {"states": states, "losses": losses, "template": PairExplorer.template})


def as_written(code):
    """Code without the ".0" of whole numbers, which the page does not write."""
    return re.sub(r"(\d)\.0\b", r"\1", code)


@pytest.mark.slow
def test_numbers_of_a_pair_are_those_of_the_explorer_in_python():
    explorer = PairExplorer()
    rng = np.random.default_rng(1)
    states = [of_some(drawn_state(explorer, rng), rng) for _ in range(40)]
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


# --- trainings ---

GRID = """
  const pool = new lab.Pool(1);
  const answers = [];
  for (const { state, settings } of given.states) {
    const slots = lab.slotsOf(state, given.losses);
    const seeds = Array.from({ length: state.seeds }, (_, at) => state.seed + at);
    try {
      const runs = [];
      for (const seed of seeds) {
        const ground = new lab.Ground(settings, seed);
        const kernel = ({ loss }) => given.kernels[loss.name][`${state.policy} ${state.optimizer}`];
        for (const slot of slots) runs.push({ name: slot.name, ...await ground.train(slot, kernel(slot), pool) });
      }
      answers.push(runs);
    } catch (error) {
      answers.push(error.message);
    }
  }
  return answers;
"""


def drawn_training(grid, rng):
    """A state of the grid at usual learning rates, sometimes painted: others amplify rounding."""
    shape = int(rng.choice([2, 3, 7, 20])), int(rng.choice([3, 5, 20]))
    state = of_some(drawn_state(grid, rng), rng)
    state |= {"prompts": shape[0], "responses": shape[1], "seeds": int(rng.choice([1, 1, 3]))}
    state |= {f"beta_{slot}": float(np.exp(rng.uniform(-3, 1))) for slot in "abcdef"}
    state |= {"scale": rng.uniform(0.5, 8), "learning_rate": float(rng.choice([0.001, 0.05])), "steps": 150}
    if rng.random() < 0.5:
        flips, levels, steps = (rng.random(shape) < share for share in (0.05, 0.2, 0.3))
        state["painted"] = paint_text(
            Paint(flips, rng.integers(-1, 2, shape) * levels, rng.integers(-4, 5, shape) * steps)
        )
    return state


@pytest.mark.slow
def test_trainings_are_those_of_the_explorer_in_python_or_refused_by_both():
    grid, rng = GridExplorer(), np.random.default_rng(5)
    states = [drawn_training(grid, rng) for _ in range(20)]
    own = [key for key, one in grid.controls.items() if key != "count" and not one.part]
    asked = [{"state": state, "settings": {key: state[key] for key in own}} for state in states]
    losses = {name: PAIR_LOSSES[name]() for name in chosen_in(states)}
    whats = [f"{policy} {optimizer}" for policy in ("free", "shared") for optimizer in ("adam", "gd")]
    kernels = {name: {what: kernel_of(loss, what) for what in whats} for name, loss in losses.items()}
    given = {"states": asked, "losses": list(map(facts_of, losses.values())), "kernels": kernels}
    compared = 0
    for state, there in zip(states, with_bundle(GRID, given), strict=True):
        grid.set(**state)
        result = grid.result
        assert (grid.error is None) == isinstance(there, list), (state, grid.error, there)
        if grid.error is not None:
            continue
        runs = iter(there)
        for run, world in enumerate(result.worlds):
            for slot, side in result.sides.items():
                found = next(runs)
                assert found["name"] == title_of(slot, side.loss)
                recipe = recipe_of(result.state, record=RECORD, dtype="float32")  # as the page trains
                here = fit([world], side.loss, recipe, seed=[state["seed"] + run]).policies[:, 0]
                logp, words = np.reshape(found["logp"], here.shape), str((state, side.loss))
                np.testing.assert_allclose(np.exp(logp), here.double().exp().numpy(), rtol=0, atol=1e-5, err_msg=words)
                for name, values in _metrics_of(world, here).items():
                    shown = np.array(found[{"unobserved_mass": "unobserved"}.get(name, name)], float)
                    np.testing.assert_allclose(shown, values, rtol=1e-5, atol=1e-4, err_msg=words)
                compared += 1
    assert compared > 20
    grid.close()
