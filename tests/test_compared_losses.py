"""Explorers that compare losses: objects and names, the registry while they are open, kernels, worlds and paint."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from own_losses import Lopsided, SquaredMargin

from gradlab.lab.engine.webassembly import slopes_kernel, training_kernel
from gradlab.lab.training import Training
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import (
    DPO,
    IPO,
    PAIR_LOSSES,
    BalancedDPO,
    DealtLoss,
    SliderRange,
    register_loss,
    unregister_loss,
    with_slider,
)
from gradlab.widgets import EXPLORERS, GridExplorer, PairExplorer
from gradlab.widgets.compared_losses import SLOTS
from gradlab.widgets.explorer import Explorer
from gradlab.widgets.losses_in_page import facts_of
from gradlab.widgets.world_texts import Paint, paint_text, read_paint, read_world, world_lines, world_text

COMPARING = [PairExplorer, GridExplorer]
WITH_MENUS = [kind for kind in EXPLORERS.values() if issubclass(kind, Explorer)]
both = pytest.mark.parametrize("kind", COMPARING, ids=lambda kind: kind.name)
Lopsided.__module__ = SquaredMargin.__module__ = "own_losses"


@dataclass(frozen=True)
class Forked:
    """A loss that no kernel can be made of."""

    name = "forked"
    equation = "(h_w − h_l)², or twice that"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        gap = logps.win_logratio - logps.lose_logratio
        return gap**2 if float(gap.mean()) > 0 else 2 * gap**2


@dataclass(frozen=True)
class Loose:
    """A loss with a real number, a whole number, and a number of neither kind."""

    beta: float = 1
    count: int = 2
    maybe: "float | None" = None
    name = "loose"
    equation = "−β(h_w − h_l)"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        return -self.beta * (logps.win_logratio - logps.lose_logratio)


@dataclass(frozen=True)
class Dealt(DealtLoss):
    name = "dealt"
    equation = "−log σ(n · (h_w − h_l))"
    source = "a test"

    def number(self, logps):
        return logps.win

    def deal(self, pairs, seed):
        return torch.arange(pairs), torch.ones(pairs)

    def margin(self, logps, dealt=None):
        return logps.win_logratio - logps.lose_logratio


@both
def test_losses_are_names_or_objects_with_their_numbers(kind):
    explorer = kind(losses=[Lopsided(0.5), "bdpo", IPO(2.0), SquaredMargin()])
    state = explorer.state
    assert state["count"] == 4
    assert [state[f"loss_{slot}"] for slot in "abcd"] == ["lopsided", "bdpo", "ipo", "squared"]
    assert (state["beta_a"], state["beta_c"]) == (0.5, 2.0)
    assert "lopsided" not in PAIR_LOSSES
    family = {one["name"]: one["family"] for one in explorer.spec()["losses"]}
    assert family["lopsided"] == family["squared"] == "your losses"
    assert family["dpo"] == "margin"
    assert explorer.error is None
    explorer.set(loss_f="lopsided", beta_f=3.0, count=6)
    assert explorer.error is None
    assert explorer.loss(SimpleNamespace(**explorer.state), "f") == Lopsided(3.0)
    explorer.reset()
    assert explorer.state == state
    explorer.close()


@both
def test_a_whole_number_in_a_field_of_real_numbers_has_the_same_control(kind):
    whole, real = kind(losses=[Lopsided(1), DPO(2)]), kind(losses=[Lopsided(1.0), DPO(2.0)])
    assert whole.spec() == real.spec()
    assert whole.spec()["controls"]["beta_a"]["kind"] == "number"
    assert {one["name"]: one["hyper"] for one in whole.spec()["losses"]}["lopsided"] == {"beta": 1.0}
    assert [type(whole.state[name]) for name in ("beta_a", "beta_b")] == [float, float]
    whole.close()
    real.close()


@pytest.mark.parametrize("loss", [DPO(1), Lopsided(2), Loose(1, 3)])
def test_a_page_is_told_of_whole_numbers_in_fields_of_real_numbers(loss):
    assert facts_of(loss)["hyper"] == {"beta": float(loss.beta)}
    assert isinstance(facts_of(loss)["hyper"]["beta"], float)


@both
@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (["dpo"], "losses must be a list of two to six names or losses, got"),
        (["dpo"] * 7, "losses must be a list of two to six"),
        ("dpo", "losses must be a list of two to six"),
        (["dpo", DPO], "losses must be names or losses such as DPO"),
        (["dpo", 3], "losses must be names or losses such as DPO"),
        (["dpo", "no-such-loss"], "loss_b must be one of dpo, cdpo"),
        (["dpo", DPO(1e9)], r"beta_b must be finite and lie in \[0.001, 100\]"),
        (["dpo", Forked()], "losses must be ones that a page can compute; forked is not: "),
        (["dpo", Dealt()], "losses must be ones that a page can compute; dealt is not: its pairs take numbers of"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(kind, losses, said):
    with pytest.raises(ValueError, match=said) as caught:
        kind(losses=losses)
    assert "\n" not in str(caught.value)


def test_two_classes_of_one_name_cannot_be_told_apart():
    @dataclass(frozen=True)
    class Other(Lopsided):
        pass

    @dataclass(frozen=True)
    class NotDPO(DPO):
        pass

    for losses in ([Lopsided(), Other()], ["bdpo", NotDPO()]):
        with pytest.raises(ValueError, match="losses must have names that no other loss has, got"):
            PairExplorer(losses=losses)


@both
def test_a_loss_that_no_kernel_can_be_made_of_is_listed_with_its_reason_and_refused(kind):
    explorer = kind()
    try:
        register_loss(Forked)
        facts = {one["name"]: one["reason"] for one in explorer.front.spec["losses"]}
        assert facts["forked"]
        assert not facts["dpo"]
        with pytest.raises(ValueError, match="loss_a must be one that can be shown; forked cannot: ") as caught:
            explorer.set(loss_a="forked")
        assert facts["forked"] in str(caught.value)
        assert explorer.state["loss_a"] == "dpo"
    finally:
        unregister_loss("forked")
    explorer.close()


@both
def test_only_the_losses_that_are_compared_and_the_numbers_that_they_have_are_seen(kind):
    explorer = kind(losses=["dpo", "cdpo", "nbdpo"])
    hidden = set(explorer.front.hidden)
    seen = {key for key, control in explorer.controls.items() if control.part} - hidden
    assert seen == {
        "loss_a", "beta_a", "loss_b", "beta_b", "label_smoothing_b", "loss_c", "beta_c", "clip_c",
    }  # fmt: skip
    explorer.set(count=6)
    assert {f"loss_{slot}" for slot in SLOTS}.isdisjoint(explorer.front.hidden)
    explorer.close()


def test_kernels_are_made_when_the_page_asks_for_them():
    explorer = PairExplorer(losses=[Lopsided(0.5), "bdpo"])
    asked = {"want": "kernel", "what": "slopes"}
    content, buffers = explorer._answer({**asked, "loss": "bdpo", "hyper": {"beta": 2.0}})
    assert content == {"record": slopes_kernel(BalancedDPO(2.0), general=True).record()}
    assert buffers == []
    content, _ = explorer._answer({**asked, "loss": "lopsided", "hyper": {"beta": 2.0}})
    assert content == {"record": slopes_kernel(Lopsided(2.0), general=True).record()}
    content, _ = explorer._answer({**asked, "loss": "lopsided", "what": "free adam"})
    expected = training_kernel(Lopsided(0.5), Training(policy="free", dtype="float32"), general=True)
    assert content == {"record": expected.record()}
    with pytest.raises(ValueError, match="loss must be one of dpo"):
        explorer._answer({**asked, "loss": "no-such-loss"})
    explorer.close()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"beta": 1.0}, "control must be one of"),
        ({"beta_a": 1e9}, r"beta_a must be finite and lie in \[0.001, 100\], got 1000000000.0"),
        ({"beta_a": float("nan")}, "beta_a must be finite"),
        ({"steps": 70.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"loss_a": "dpoo"}, "loss_a must be one of dpo, cdpo"),
        ({"pairs": -1}, "pairs must be one of exact, 20"),
    ],
)
def test_bad_values_are_refused_in_one_line_and_change_nothing(values, said):
    grid = GridExplorer()
    state = grid.state
    with pytest.raises(ValueError, match=said) as caught:
        grid.set(sigma=5.0, **values)
    assert "\n" not in str(caught.value)
    assert grid.state == state
    with pytest.raises(ValueError, match="story must be one of"):
        grid.tell("no such story")
    with pytest.raises(ValueError, match="control must be one of"):
        GridExplorer(no_such=1)


def test_a_start_of_ones_own_is_where_reset_leads():
    grid = GridExplorer(mask_rate=0.37, beta_a=0.123)
    grid.set(beta_a=2.0)
    grid.reset()
    assert (grid.state["mask_rate"], grid.state["beta_a"]) == (0.37, 0.123)


@dataclass(frozen=True)
class Steep:
    steepness: float = 2.0
    beta: float = 1.0
    name = "steep"
    equation = "(1 − s β(h_w − h_l))²"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        return (1 - self.steepness * self.beta * (logps.win_logratio - logps.lose_logratio)) ** 2


@pytest.mark.parametrize("kind", WITH_MENUS, ids=lambda kind: kind.name)
def test_a_loss_that_is_registered_joins_the_menus_of_explorers_that_are_open(kind):
    explorer = kind()
    menus = {key: control.part["loss"] for key, control in explorer.controls.items() if "loss" in control.part}
    explorer.set(**dict.fromkeys(menus, "ipo"))
    start = explorer._start
    try:
        register_loss(Steep)
        for key, slot in menus.items():
            assert explorer.state[key] == "ipo"
            explorer.set(**{key: "steep", f"steepness_{slot}": 0.5})
        assert explorer.error is None
        spec = explorer.front.spec
        assert ("steep" in [one["name"] for one in spec["losses"]]) == bool(menus)
        assert all(spec["controls"][key]["start"] == value for key, value in start.items())
        explorer.reset()
        explorer.set(**dict.fromkeys(menus, "steep"))
    finally:
        unregister_loss("steep")
    assert all(explorer.state[key] != "steep" for key in menus)
    explorer.reset()
    assert explorer.error is None
    explorer.close()


def test_an_explorer_that_is_closed_is_not_told_of_losses(monkeypatch):
    explorer = PairExplorer()
    explorer.close()
    monkeypatch.setattr(explorer, "losses_changed", lambda: pytest.fail("it is closed"))
    register_loss(Steep)
    unregister_loss("steep")


def test_where_the_page_computes_python_computes_only_when_it_is_asked(monkeypatch):
    explorer = GridExplorer()
    calls = []
    compute = explorer.compute
    monkeypatch.setattr(explorer, "compute", lambda state: calls.append(state) or compute(state))
    for scale in (3.0, 5.0):
        explorer.set(scale=scale)
    assert calls == []
    assert explorer.numbers == explorer.numbers
    assert [state.scale for state in calls] == [5.0]
    assert isinstance(calls[0], SimpleNamespace)
    explorer.close()


def printed(code):
    names = {"print": lambda *_: None}
    exec(code, names)
    return names


@pytest.mark.parametrize("losses", [["dpo", Lopsided(0.5)], [SquaredMargin(), "nbdpo", "cdpo"]], ids=str)
def test_copied_python_has_losses_that_nobody_has_registered(losses):
    grid = GridExplorer(losses=losses, steps=40, seeds=3, seed=5, pairs=20, mask_rate=0.2, when=60)
    made = printed(grid.as_python())
    for slot, side in grid.result.sides.items():
        assert np.array_equal(made["trained"][slot.upper()].policies, side.fit.policies)
    assert made["index"] == grid.result.index
    pair = PairExplorer(losses=losses, win=0.95, lose=0.4)
    results = printed(pair.as_python())["results"]
    for slot, one in pair.result.effects.items():
        np.testing.assert_allclose(results[slot.upper()]["Δπ"], one.change_in_prob, rtol=1e-9)


def a_world(prompts=3, responses=5):
    base = gaussian_world(prompts, responses, reference="random", mask_rate=0.2, mask_kind="pairs", seed=3)
    return World(base.utility, np.arange(prompts * responses).reshape(prompts, responses) != 4, base.ref_logp,
                 base.hidden_pairs, np.arange(1, prompts * responses + 1).reshape(prompts, responses))  # fmt: skip


def same(one, other):
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in vars(one))


@pytest.mark.parametrize("world", [a_world(), gaussian_world(2, 4, seed=1), gaussian_world(4, 3, reference="shifted")])
def test_a_world_is_a_text_and_code_bit_for_bit(world):
    assert same(read_world(world_text(world)), world)
    import gradlab as gl

    names = {"np": np, "gl": gl}
    exec("\n".join(world_lines(world)), names)
    assert same(names["world"], world)


def test_any_world_can_be_trained_on_and_travels_with_the_state(tmp_path):
    world = a_world()
    grid = GridExplorer(world=world, steps=30, seeds=2, pairs=20)
    assert grid.error is None
    assert all(same(each, world) for each in grid.result.worlds)
    assert {"scale", "sigma", "mask_rate", "prompts", "responses", "utility", "shift"} <= set(grid.front.hidden)
    assert grid.result.prompt == 2  # the last
    numbers = grid.numbers
    made = printed(grid.as_python())
    assert np.array_equal(made["trained"]["A"].policies, grid.result.sides["a"].fit.policies)
    grid.save(tmp_path / "state.json")
    link = grid.link()
    other = GridExplorer()
    for source in (link, tmp_path / "state.json"):
        other.reset()
        other.set(steps=30, seeds=2, pairs=20)
        other.load(source) if source != link else other.set(world=world)
        assert other.numbers["E[u] A"] == numbers["E[u] A"]
    assert json.loads((tmp_path / "state.json").read_text())["state"]["world"] == world_text(world)
    other.set(world="")
    assert other.result.world.utility.shape == (20, 20)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"world": "{"}, "a world must be JSON"),
        ({"world": "[[1, 2]]"}, "a world must be JSON with utility and no other parts"),
        ({"world": '{"u": [[1, 2]]}'}, "a world must be JSON with utility and no other parts than utility, observed"),
        ({"world": '{"utility": [[1, 2], [3]]}'}, "utility must be a list of rows of numbers, of one length"),
        ({"world": '{"utility": [[1, NaN]]}'}, "utility must be finite"),
        ({"world": '{"utility": [[1, 2]], "observed": [[1, 2]]}'}, "observed must be 0 or 1"),
        ({"world": '{"utility": [[1, 2]], "observed": [[1, 0]]}'}, "the mask leaves prompt 0 without a pair"),
        (
            {"world": gaussian_world(2, 1001)},
            r"prompts × responses² must be at most 1,000,000 in an explorer, got 2 × 1001²",
        ),
        ({"world": gaussian_world(1001, 2)}, "prompts must be at most 1000 in an explorer, got 1001"),
        ({"world": 7}, "world must be a text, got 7"),
        ({"world": np.zeros((2, 2))}, "world must be a text, got array"),
        ({"world": "[" * 100_000}, "a world must be JSON: "),
        ({"world": '{"utility": [["1", "2"]]}'}, "utility must be a list of rows of numbers, of one length"),
        ({"world": '{"utility": [[null, 2]]}'}, "utility must be a list of rows of numbers, of one length"),
        ({"painted": "12"}, "painted must be a size and marks of paint, such as 2x3:5AB, or nothing, got '12'"),
        ({"painted": "2x3:5A"}, "painted must have 6 marks for 2 prompts and 3 responses, got 5"),
    ],
    ids=range(16),
)
def test_what_is_no_world_or_no_paint_is_refused_in_one_line(values, said):
    grid = GridExplorer()
    state = grid.state
    with pytest.raises(ValueError, match=said) as caught:
        grid.set(**values)
    assert "\n" not in str(caught.value)
    assert grid.state == state
    grid.close()


def some_paint(prompts=4, responses=6):
    rng = np.random.default_rng(0)
    flips = rng.random((prompts, responses)) < 0.2
    return Paint(flips, rng.integers(-1, 2, flips.shape), rng.integers(-4, 5, flips.shape))


def test_paint_is_a_text_and_code_and_is_put_on_worlds_of_its_size_alone():
    paint = some_paint()
    text = paint_text(paint)
    again = read_paint(text)
    assert all(np.array_equal(getattr(paint, key), getattr(again, key)) for key in vars(paint))
    assert paint_text(read_paint("2x2:4A")) == ""
    world = gaussian_world(4, 6, seed=2)
    on = paint.on(world)
    assert np.array_equal(on.observed, world.observed ^ paint.flips)
    assert (on.utility[paint.levels == 1] == world.utility.max()).all()
    assert (on.utility[paint.levels == -1] == world.utility.min()).all()
    moved = on.ref_logp - world.ref_logp - paint.steps
    np.testing.assert_allclose(moved, moved[:, :1] * np.ones(6), atol=1e-12)
    grid = GridExplorer(prompts=4, responses=6, seed=2, steps=20, painted=text)
    assert same(grid.result.world, on)
    made = printed(grid.as_python())
    assert np.array_equal(made["trained"]["B"].policies, grid.result.sides["b"].fit.policies)
    grid.set(prompts=5)
    assert grid.error is None
    assert same(grid.result.world, gaussian_world(5, 6, seed=2))
    assert "flips" not in grid.as_python()


def test_a_world_that_is_too_large_for_a_page_is_said_to_be():
    grid = GridExplorer(prompts=200, responses=200)
    assert "prompts × responses² must be at most 1,000,000 in an explorer, got 200 × 200²" in grid.status
    grid.set(prompts=20, responses=20)
    assert grid.error is None


@dataclass(frozen=True)
class Gentle(Lopsided):
    """README's loss with another default and other stops."""

    beta: float = with_slider(0.02, SliderRange(0.01, 0.5, 0.01))
    slack: float = with_slider(0.25, SliderRange(0.0, 1.0, 0.05))
    name = "gentle"

    def __call__(self, logps):
        return super().__call__(logps) + self.slack


def test_each_loss_keeps_its_own_stops_and_a_number_follows_the_chosen_loss(registered):
    registered(Gentle)
    explorer = PairExplorer()
    assert explorer.state["beta_a"] == 1.0
    explorer.set(loss_a="gentle")  # untouched numbers take the loss's defaults
    assert (explorer.state["beta_a"], explorer.state["slack_a"]) == (0.02, 0.25)
    with pytest.raises(ValueError, match=r"^beta_a must .*0\.01.*0\.5.* got 1"):
        explorer.set(beta_a=1.0)
    explorer.set(beta_a=0.5, slack_a=0.75)
    explorer.set(loss_a="dpo")  # what was moved stays
    assert (explorer.state["beta_a"], explorer.state["slack_a"]) == (0.5, 0.75)
    explorer.set(beta_a=5.0)
    explorer.loss_a.value = "gentle"  # but for what the loss does not take
    assert (explorer.state["beta_a"], explorer.state["slack_a"]) == (0.02, 0.75)
    explorer.set(loss_a="ipo", beta_a=7.0)
    explorer.set(loss_b="ipo", loss_a="gentle", beta_a=0.1)
    assert explorer.state["beta_a"] == 0.1
    (facts,) = [one for one in explorer.spec()["losses"] if one["name"] == "gentle"]
    assert facts["stops"] == {"beta": [0.01, 0.5, "linear"], "slack": [0.0, 1.0, "linear"]}
