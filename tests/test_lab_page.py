"""The live lab in one page: what it is given, and what it does under a hand in a real Chromium, from a file."""

import gzip
import json
import math
import re
import struct
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from node import WEB, in_firefox, needs_firefox, needs_node, needs_packages, with_bundle
from own_losses import Lopsided
from rounding import rounding

from gradlab.cli import lab_command
from gradlab.lab import metrics
from gradlab.lab.descent import recorded_steps
from gradlab.lab.engine import NotFusable
from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import (
    DPO,
    PAIR_LOSSES,
    PairLogps,
    family_of,
    log_prob_ratio,
    pair_loss,
    register_loss,
    slopes,
    unregister_loss,
)
from gradlab.theory import first_order_change, realised_change
from gradlab.widgets import GridExplorer, PairExplorer, page
from scripts.benchmarks import page_speed

MOST = 600_000  # bytes of code and kernels, compressed
ROOT = WEB.parent.parent

# --- numbers, in Node ---


@needs_node
def test_the_steps_that_are_recorded_are_those_of_fit():
    asked = [1, 2, 3, 10, 37, 100, 499, 500, 777, 1000, 1999, 2000]
    found = with_bundle("return given.map((steps) => lab.recordedSteps(steps));", asked)
    assert found == [recorded_steps(steps, 24).tolist() for steps in asked]


@needs_node
def test_a_pair_moves_as_the_theory_says():
    rng = np.random.default_rng(0)
    asked = []
    for n in (3, 5, 20):
        for _ in range(20):
            p = rng.dirichlet(np.full(n, 0.5))
            win, lose = p[:2]
            asked.append([win, lose, n, rng.normal(size=2).tolist(), 10 ** rng.uniform(-3, 1)])
    body = """
      return given.map(([win, lose, n, slopes, step]) => {
        const found = lab.effects.effect(win, lose, n, slopes, step);
        return [found, lab.effects.firstOrder(win, lose, n, slopes.map((slope) => -slope))];
      });
    """
    for (win, lose, n, pull, step), (found, first) in zip(asked, with_bundle(body, asked), strict=True):
        log_p = np.log([win, lose] + [(1 - win - lose) / (n - 2)] * (n - 2))
        weight = np.zeros(n)
        weight[:2] = [-slope for slope in pull]
        change = realised_change(log_p, weight, step)[:3]
        near = {"rtol": 1e-9, "atol": rounding(60, 10.0)}
        np.testing.assert_allclose(found["changeLogp"], change, **near)
        np.testing.assert_allclose(
            found["changeProb"], (np.exp(log_p) * np.expm1(np.r_[change, [0] * (n - 3)]))[:3], **near
        )
        np.testing.assert_allclose(found["byProb"], (weight / np.exp(log_p))[:3], **near)
        np.testing.assert_allclose(first, first_order_change(log_p, weight)[:2], **near)
        assert found["ratio"] == pytest.approx(abs(pull[0]) / abs(pull[1]) * lose / win)


# --- what the page is given ---


def test_the_answer_is_that_of_readme():
    readme = (ROOT / "README.md").read_text("utf-8")
    written = readme.partition("<!-- answer -->")[2].partition("<!-- /answer -->")[0]
    assert len(page.answer()) == 3
    assert " ".join(page.answer()) == " ".join(written.replace("**", "").split())


def test_an_installed_package_reads_the_answer_from_its_metadata(monkeypatch, tmp_path):
    written = SimpleNamespace(
        json={"description": "x <!-- answer -->\n**Does it?** Yes. **Why?** So.\n<!-- /answer --> y"}
    )
    monkeypatch.setattr(page, "_README", tmp_path / "none.md")
    monkeypatch.setattr(page.importlib.metadata, "metadata", lambda name: written)
    assert page.answer() == ["Does it? Yes.", "Why? So."]
    written.json = {"description": "nothing"}
    assert page.answer() == []


def test_text_that_would_end_the_script_does_not():
    code = page.script(data={"x": "</script><!-- \u2028 BUNDLE GIVEN"})
    assert "</script>" not in code
    assert "<!--" not in code
    assert "\u2028" not in code
    assert code.count("</") == 0


@pytest.mark.slow
def test_the_page_is_small_has_every_loss_and_names_no_other_place(lab_file):
    text = lab_file.read_text("utf-8")
    assert len(gzip.compress(text.encode())) < MOST
    given = page.given()
    assert [one["name"] for one in given["losses"]] == list(PAIR_LOSSES)
    assert all(one["trains"] and one["slopes"] for one in given["losses"])
    assert {one["family"] for one in given["losses"]} == {family_of(make()) for make in PAIR_LOSSES.values()}
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    assert "unsafe-eval" not in text.replace("wasm-unsafe-eval", "")


@pytest.mark.slow
@pytest.mark.usefixtures("own_loss")
def test_a_loss_of_a_user_is_in_the_page_at_once():
    (own,) = [one for one in page.given()["losses"] if one["name"] == Lopsided.name]
    assert own["family"] == "your losses"
    assert own["hyper"] == vars(Lopsided())
    assert len(own["trains"]) == 4


@pytest.fixture
def own_loss():
    register_loss(Lopsided)
    yield
    unregister_loss(Lopsided.name)


@pytest.mark.slow
def test_a_loss_that_the_engine_cannot_train_is_named_with_the_reason(monkeypatch):
    def refuse(*arguments, **more):
        raise NotFusable("it does not treat every pair alike")

    monkeypatch.setattr(page, "kernel_of", refuse)
    entry = page._loss.__wrapped__(DPO)
    assert entry["trains"] is entry["slopes"] is None
    assert entry["reason"] == "it does not treat every pair alike"


@pytest.mark.slow
def test_the_command_writes_the_page_where_it_is_told(lab_file, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(lab_command.webbrowser, "open", lambda address: opened.append(address) or True)
    assert lab_command.run(["--page", "--copy-only", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / page.NAME).read_bytes() == lab_file.read_bytes()
    assert opened == []
    assert lab_command.run(["--page"]) == 0
    assert len(opened) == 1
    assert opened[0].endswith(page.NAME)
    assert "page: " in capsys.readouterr().out


def test_the_speed_of_a_page_that_is_not_there_is_not_measured(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["page_speed", "--page", "nowhere.html"])
    with pytest.raises(SystemExit, match="2"):
        page_speed.main()
    assert capsys.readouterr().err.endswith("--page must be a file that is there, got nowhere.html\n")


# --- in Chromium ---

browser_test = pytest.mark.browser
VIEWS = ["pair", "grid"]

SHARED = [  # settings, and the losses of A and B
    ({}, {"dpo": {}, "bdpo": {}}),
    ({"mask_rate": 0.2, "policy": "shared", "pairs": 100, "seed": 3}, {"dpo": {"beta": 0.5}, "nbdpo": {"clip": 1.0}}),
    (
        {"scale": 8.0, "sigma": 1.5, "optimizer": "gd", "learning_rate": 1.0, "steps": 200, "reference": "shifted",
         "mask_kind": "pairs", "mask_rate": 0.5},
        {"ipo": {"beta": 2.0}, "fixed-weight": {"win_weight": 0.7}},
    ),
]  # fmt: skip
WORLD = ("utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "seed")


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize(("settings", "losses"), SHARED)
def test_policies_and_numbers_are_those_of_fit(opened, settings, losses):
    changes = dict(settings)
    for slot, (name, hyper) in zip("ab", losses.items(), strict=True):
        changes |= {f"loss_{slot}": name, **{f"{key}_{slot}": value for key, value in hyper.items()}}
    lab = opened("#view=grid&guess=shown&" + "&".join(f"{name}={value}" for name, value in changes.items()))
    found, policies = lab.ask("[view.numbers(), view.policies()]")
    world = gaussian_world(**{name: value for name, value in settings.items() if name in WORLD})
    recipe = {name: value for name, value in settings.items() if name not in WORLD}
    for slot, (name, hyper) in zip("ab", losses.items(), strict=True):
        fitted = fit(
            world, pair_loss(name, **hyper), **recipe, seed=settings.get("seed", 0), dtype="float32", record=24
        )
        there = np.exp(policies[slot]).reshape(20, 20)
        np.testing.assert_allclose(there, fitted.logp.squeeze(0).double().exp().numpy(), rtol=0, atol=1e-5)
        last = fitted.history.iloc[-1]
        for key, column in {"utility": "utility", "kl": "kl", "unobserved": "unobserved_mass"}.items():
            assert found[slot][key] == pytest.approx(last[column], abs=2e-4)
        share = metrics.utility_share(
            torch.tensor(there).log(), *(torch.tensor(array) for array in (world.utility, world.ref_logp))
        )
        assert found[slot]["share"] == pytest.approx(float(share), abs=1e-4)
    cells = lab.stage.locator("tbody td").all_inner_texts()
    assert float(cells[0].replace("−", "-")) == pytest.approx(found["a"]["utility"], rel=1e-3)


@browser_test
@pytest.mark.slow
def test_gradients_of_a_pair_are_those_of_the_library(opened):
    lab = opened("#view=pair&count=3&loss_c=nbdpo&beta_b=0.5&guess=shown")
    for place in (
        {}, {"win": 1e-9, "lose": 1e-12}, {"win": 0.01, "lose": 0.7, "step": 0.1},
        {"reference": "own values", "ref_win": 0.6, "ref_lose": 0.3, "responses": 9},
    ):  # fmt: skip
        lab.set(**place)
        state, found = lab.state(), lab.numbers()
        n, win, lose = state["responses"], state["win"], state["lose"]
        ref = [1 / n] * 2 if state["reference"] == "uniform" else [state["ref_win"], state["ref_lose"]]
        pair = PairLogps(*(torch.tensor(math.log(p), dtype=torch.float64) for p in (win, lose, *ref)))
        for slot in "abc":
            loss = pair_loss(state[f"loss_{slot}"], beta=state[f"beta_{slot}"])
            pulls = [-float(one) for one in slopes(loss, pair)]
            assert found[slot]["byLogp"][:2] == pytest.approx(pulls, rel=1e-12)
            assert found[slot]["ratio"] == pytest.approx(float(log_prob_ratio(loss, pair).exp()), rel=1e-10)
            log_p = np.log([win, lose] + [(1 - win - lose) / (n - 2)] * (n - 2))
            change = realised_change(log_p, pulls + [0.0] * (n - 2), state["step"])[:3]
            assert found[slot]["changeLogp"] == pytest.approx(change.tolist(), rel=1e-9, abs=1e-14)


SLIDERS = {
    "pair": {
        "β of A": "beta_a", "β of B": "beta_b", "π_w": "win", "π_l": "lose", "responses n": "responses",
        "step size": "step", "π_ref of the winner": "ref_win", "π_ref of the loser": "ref_lose",
    },
    "grid": {
        "β of A": "beta_a", "β of B": "beta_b", "height R": "scale", "width σ": "sigma", "mask rate": "mask_rate",
        "learning rate": "learning_rate", "steps": "steps", "seed": "seed", "its shift": "shift", "prompts": "prompts",
        "responses": "responses", "seeds, with bands": "seeds", "how far through training, %": "when",
    },
}  # fmt: skip
MENUS = {
    "pair": {"loss A": "loss_a", "loss B": "loss_b", "axes": "axes", "arrows": "arrows", "reference": "reference"},
    "grid": {
        "loss A": "loss_a",
        "loss B": "loss_b",
        "pairs": "pairs",
        "parameters": "policy",
        "optimiser": "optimizer",
        "utility u": "utility",
        "mask hides": "mask_kind",
        "reference": "reference",
    },
}
START = {
    "pair": "reference=own values&ref_win=0.4&win=0.3",
    "grid": "reference=shifted&shift=3&mask_rate=0.3&when=50&seed=5",
}


def begun(opened, view, **more):
    lab = opened(f"#view={view}&guess=shown&beta_a=0.7&beta_b=2&{START[view]}", **more)
    lab.ask("shell.element.querySelectorAll('.gl-controls details').forEach((one) => { one.open = true; })")
    return lab


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_every_control_does_what_its_name_says_and_undo_brings_the_picture_back(opened, view):
    lab = begun(opened, view)
    listed = [one for one in lab.stage.locator("input[type=range]").all() if one.is_visible()]
    assert sorted(one.get_attribute("aria-label") for one in listed) == sorted(SLIDERS[view])
    for role, controls in (("slider", SLIDERS[view]), ("combobox", MENUS[view])):
        for name, key in controls.items():
            before, picture = lab.state(), lab.picture()
            control = lab.stage.get_by_role(role, name=name, exact=True)
            if role == "slider":
                control.press("PageUp")
            else:
                there = control.input_value()
                others = control.locator("option").evaluate_all("all => all.map((one) => one.value)")
                control.select_option(next(one for one in others if one != there))
            changed = {one for one, value in lab.state().items() if value != before[one]}
            assert changed == {key}, name
            assert lab.picture() != picture or key == "seeds", name
            lab.press("↶ undo")
            assert lab.state() == before, name
            assert lab.picture() == picture, name
    lab.press("↷ redo")
    assert lab.state() != before
    lab.page.keyboard.press("Control+z")
    assert lab.state() == before
    lab.press("reset")
    assert lab.state() == lab.ask("shell.defaults")
    lab.press("↶ undo")
    assert lab.picture() == picture


def centre(locator):
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@browser_test
@pytest.mark.slow
def test_policy_and_reference_are_dragged_on_the_map_and_come_back(opened):
    lab = opened("#view=pair&guess=shown")
    policy = lab.page.get_by_role("slider", name="policy").first
    picture, before = lab.picture(), lab.state()
    x, y = centre(policy)
    lab.drag((x, y), (x - 80, y - 40))
    assert lab.state("win") < 0.4
    assert lab.state("lose") > 0.15
    assert lab.picture() != picture
    lab.press("↶ undo")  # one step for the whole drag
    assert lab.state() == before
    lab.page.mouse.move(2, 2)
    assert lab.picture() == picture
    lab.drag((x, y), (x + 600, y - 300))  # beyond all policies
    assert lab.state("win") + lab.state("lose") <= 1 - 1e-4 + 1e-12
    lab.press("↶ undo")
    reference = lab.page.get_by_role("slider", name="reference").first
    x, y = centre(reference)
    lab.drag((x, y), (x + 40, y - 50))
    assert lab.state("reference") == "own values"
    assert lab.state("ref_win") > 0.25
    policy.focus()
    lab.page.keyboard.press("ArrowLeft")
    assert lab.state("win") == pytest.approx(0.49)
    assert policy.get_attribute("aria-valuetext").startswith("π_w 0.49, π_l 0.1")
    lab.set(axes="log π")
    policy.focus()
    lab.page.keyboard.press("ArrowDown")
    assert lab.state("lose") == pytest.approx(0.1 * 10**-0.12)


@browser_test
@pytest.mark.slow
def test_hover_reads_every_panel_that_shares_the_thing(opened):
    lab = begun(opened, "grid")
    cell = lab.canvas(1)
    lab.page.mouse.move(*cell(10, 7))
    lab.picture()  # a hover is told at the next frame
    readings = lab.stage.locator(".gl-plot output").all_inner_texts()
    assert [one.split(":")[0] for one in readings] == ["prompt 10, response 7"] * 3 + [""] * 3 + ["response 7"]
    lab.page.mouse.click(*cell(2, 7))
    assert lab.state("prompt") == 2
    assert lab.page.get_by_role("figure", name="Prompt 2").count() == 1


@browser_test
@pytest.mark.slow
def test_a_prediction_is_chosen_then_both_policies_train_before_the_eyes(opened):
    lab = opened("#view=grid")
    cells = lab.stage.locator("tbody td")
    takeaway = lab.stage.get_by_text("What to take away")
    assert set(cells.all_inner_texts()) == {"?"}
    assert not takeaway.is_visible()
    lab.page.evaluate(
        """() => {
          const at = document.querySelector(".gl-at");
          globalThis.steps = [];
          new MutationObserver(() => steps.push(at.textContent)).observe(at, { childList: true });
        }"""
    )
    lab.stage.get_by_role("button", name="A DPO").click()
    lab.until("steps.at(-1) === 'step 500 of 500'")
    assert len(set(lab.ask("steps"))) > 5
    assert takeaway.is_visible()
    assert "?" not in cells.all_inner_texts()
    assert re.match(r"(As|Not as) expected: ", lab.stage.locator(".gl-told").inner_text())
    lab.press("↶ undo")
    assert set(cells.all_inner_texts()) == {"?"}


@browser_test
@pytest.mark.slow
def test_a_play_gives_way_to_a_newer_place(opened):
    lab = opened("#view=grid&guess=shown")
    lab.press("▶ play")
    lab.until("view.player.playing")
    lab.page.evaluate("location.hash = 'view=grid&guess=shown&when=30'")
    lab.until("!view.player.playing")
    assert lab.state("when") == 30
    lab.press("▶ play")
    lab.stage.get_by_role("slider", name="how far through training, %").press("ArrowLeft")
    # A step back from where it was, be it from the play's end, and no play goes on to 100.
    assert lab.until("!view.player.playing && shell.history.state.when < 100 && shell.history.state.when") >= 29


AT_31 = """new Promise((done) => {
  const look = () => {
    if (view.player.when === 31) return done(true);
    if (!view.player.playing || view.player.when > 31) {
      view.player.halt();
      view.player.start();
    }
    requestAnimationFrame(look);
  };
  look();
}).then(() => {
  const track = document.querySelector("section:not([hidden]) .gl-time input[type=range]");
  track.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
})"""


@browser_test
@pytest.mark.slow
def test_a_step_back_to_where_the_play_began_ends_it(opened):
    lab = opened("#view=grid&guess=shown&when=30")
    began = lab.stage.locator(".gl-at").inner_text()
    lab.ask(AT_31)  # one frame on, so the key's place is that of the state
    assert not lab.ask("view.player.playing")
    assert lab.state("when") == 30
    assert lab.stage.locator(".gl-at").inner_text() == began


@browser_test
@pytest.mark.slow
def test_the_end_of_a_play_leaves_what_was_undone_meanwhile(opened):
    lab = opened("#view=grid&guess=shown&when=40")
    lab.set(scale=5)
    lab.press("▶ play")
    lab.ask("shell.history.undo()")
    lab.until("!view.player.playing")
    assert lab.state("when") == 100
    lab.press("↷ redo")
    assert lab.state("scale") == 5


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_who_moves_a_control_before_guessing_is_shown_what_it_does(opened, view):
    lab = opened(f"#view={view}")
    cells = lab.stage.locator("tbody td")
    assert "?" in cells.all_inner_texts()
    lab.stage.get_by_role("slider", name="β of A").press("ArrowRight")
    assert lab.state("guess") == "shown"
    lab.settled()
    assert "?" not in cells.all_inner_texts()
    lab.press("↶ undo")  # what follows from the move goes with it
    assert lab.state() == lab.ask("shell.defaults")
    assert "?" in cells.all_inner_texts()


@browser_test
@pytest.mark.slow
def test_a_link_brings_the_state_back_and_a_broken_one_is_said(opened):
    lab = begun(opened, "grid")
    lab.set(scale=7.25, count=4, painted="20x20:399AC")
    link = lab.until("location.hash.includes('7.25') && location.hash")
    again = opened(link)
    assert again.state() == lab.state()
    assert again.picture() == lab.picture()
    broken = opened("#view=grid&scale=high&sigma=2&cookie=1&loss_a=nope&painted=777")
    assert broken.notice().startswith('The link was read in part: scale must be a number from 0.25 to 12, got "high"')
    assert broken.notice().endswith("(and 3 more).")
    assert broken.state("sigma") == 2
    assert broken.state("scale") == 4
    broken.set(scale=5)
    assert broken.numbers()["a"]["utility"] > 0
    beyond = opened("#view=pair&loss_a=exo&label_smoothing_a=0")
    assert beyond.notice().startswith("The link was read in part: label_smoothing_a must be a number from 1e−4 to ")
    assert "got 0 (EXO" in beyond.notice()
    assert 1e-4 <= beyond.state("label_smoothing_a") < 0.45
    broken.page.evaluate("location.hash = 'view=grid&scale=3'")
    broken.until("shell.history.state.scale === 3")
    assert broken.notice() == ""


@browser_test
@pytest.mark.slow
def test_links_lead_to_each_explorer_while_the_page_is_open(opened):
    lab = opened()
    assert lab.ask("[shell.spec.name, Object.keys(gradlabLab.shells)]") == ["pair", ["pair"]]
    lab.set(win=0.25)
    lab.page.evaluate("location.hash = 'view=grid&scale=3'")
    lab.until("shell.spec.name === 'grid' && shell.history.state.scale === 3")
    assert lab.ask("shell.history.canUndo") is False  # the state with which it begins
    lab.page.evaluate("location.hash = 'view=grid&scale=5'")
    lab.until("shell.history.state.scale === 5")
    lab.press("↶ undo")
    assert lab.state("scale") == 3
    lab.page.evaluate("location.hash = 'view=nowhere&scale=3'")
    lab.until("shell.spec.name === 'pair'")
    names = ", ".join(page.given()["explorers"])
    assert lab.notice() == f'The link was not read: view must be one of {names}, got "nowhere".'
    assert lab.state("win") == 0.25  # each explorer keeps its own state
    lab.page.evaluate("location.hash = 'view=pair&win=2&%ff=%&__proto__=1'")
    lab.until("shell.element.querySelector('.gl-notice').textContent.includes('in part')")
    assert lab.notice().endswith("win must be a number from 1e−12 to 0.999, got 2 (and 2 more).")


@browser_test
@pytest.mark.slow
def test_a_link_that_is_followed_before_a_change_is_noted_in_the_address_is_not_lost(opened):
    late = """
      addEventListener("hashchange", (event) => event.isTrusted && event.stopImmediatePropagation());
      const set = globalThis.setTimeout.bind(globalThis);
      globalThis.notes = [];
      globalThis.setTimeout = (what, ms, ...more) => (ms === 250 ? notes.push(what) : set(what, ms, ...more));
    """  # the test says when the page notes a change, and when it hears of a link
    lab = opened("#view=grid&scale=3", script=late)
    lab.begun()
    lab.set(sigma=2)
    lab.page.evaluate("() => { location.hash = 'view=grid&scale=5'; notes.at(-1)(); }")
    lab.page.evaluate("dispatchEvent(new HashChangeEvent('hashchange'))")
    lab.until("shell.history.state.scale === 5")
    assert lab.page.evaluate("location.hash").startswith("#view=grid&scale=5")
    lab.press("↶ undo")
    assert (lab.state("scale"), lab.state("sigma")) == (3, 2)


@browser_test
@pytest.mark.slow
def test_a_loss_is_found_in_the_list_and_brings_its_own_numbers(opened):
    lab = opened("#view=pair&guess=shown&beta_b=0.3")
    search = lab.stage.get_by_role("searchbox", name="find a loss")
    shown = lab.stage.locator("dialog .gl-family button:visible .gl-entry")
    for slot, words in (("A", "liu 2309"), ("B", "max(0 margin hinge")):
        lab.press(f"find loss {slot}")
        assert shown.count() == len(PAIR_LOSSES)
        search.fill(words)
        assert "hinge" in shown.all_inner_texts()
        search.fill("no such loss")
        assert shown.count() == 0
        search.fill("hinge max")
        assert shown.first.inner_text() == "hinge"
        search.press("Enter")
        lab.settled()
    hinge = pair_loss("hinge")
    state = lab.state()
    assert (state["loss_a"], state["beta_a"]) == ("hinge", hinge.beta)  # as it begins
    assert (state["loss_b"], state["beta_b"]) == ("hinge", 0.3)  # which somebody has set
    lab.press("↶ undo")
    assert (lab.state("loss_b"), lab.state("beta_b")) == ("bdpo", 0.3)
    lab.press("find loss B")
    lab.page.keyboard.press("ArrowDown")  # from the field to the first loss
    lab.page.keyboard.press("Escape")
    assert shown.count() == 0
    assert lab.state("loss_b") == "bdpo"


@browser_test
@pytest.mark.slow
def test_link_and_code_are_copied(opened):
    lab = opened("#view=pair&win=0.25", permissions=["clipboard-read", "clipboard-write"])
    for button, seen in (
        ("copy link", "#view=pair&win=0.25"),
        ("copy as Python", "n, step = 5, 1\nwin, lose = 0.25, 0.1"),
    ):
        lab.press(button)
        lab.page.get_by_text("is copied.").wait_for()
        assert seen in lab.page.evaluate("navigator.clipboard.readText()")


@browser_test
@pytest.mark.slow
def test_undo_by_key_leaves_typed_text_alone_and_tabs_turn_by_arrows(opened):
    lab = opened("#view=pair&guess=shown")
    lab.set(win=0.3)
    field = lab.page.get_by_role("textbox", name="π_w, typed")
    field.press("Control+z")
    assert lab.state("win") == 0.3
    field.fill("1 − 1e-1")
    field.press("Enter")
    assert lab.state("win") == 0.9
    lab.page.get_by_role("slider", name="π_w", exact=True).press("Control+z")
    assert lab.state("win") == 0.3
    lab.page.evaluate("document.activeElement.blur()")
    lab.page.keyboard.press("Control+z")  # with nothing in focus
    assert lab.state("win") == 0.5
    lab.page.keyboard.press("Control+Shift+z")
    assert lab.state("win") == 0.3
    lab.page.get_by_role("tab", name="One pair").press("ArrowRight")
    assert lab.ask("shell.spec.name") == "grid"
    assert lab.page.get_by_role("tab", name="Training").get_attribute("aria-selected") == "true"
    assert lab.stage.get_attribute("role") == "tabpanel"
    lab.settled()
    lab.page.get_by_role("tab", name="Training").press("ArrowLeft")
    assert lab.state("win") == 0.3


@browser_test
@pytest.mark.slow
def test_a_file_brings_the_state_back_and_a_wrong_one_is_said(opened, tmp_path):
    lab = opened("#view=pair&win=0.2", accept_downloads=True)
    with lab.page.expect_download() as download:
        lab.press("save")
    saved, state = tmp_path / "state.json", lab.state()
    download.value.save_as(saved)
    assert json.loads(saved.read_text("utf-8")) == {"explorer": "pair", "state": state}
    lab.press("reset")
    assert lab.state("win") == 0.5
    chooser = lab.page.get_by_label("a file with a state")
    chooser.set_input_files(saved)
    lab.until("shell.history.state.win === 0.2")
    assert lab.state() == state
    for text, seen in (
        ("{", "it must be JSON, as the lab saves it"),
        ("[1]", 'it must have "explorer" and "state"'),
        ('{"explorer": "grid", "state": {}}', 'it must be of the explorer "pair", got "grid"'),
        ('{"explorer": "pair", "state": {"win": "NaN"}}', 'win must be a number from 1e−12 to 0.999, got "NaN"'),
        ('{"explorer": "pair", "state": {"cookie": 1}}', 'there is no setting "cookie" here'),
        (
            '{"explorer": "pair", "state": {"loss_a": "exo", "label_smoothing_a": 0}}',
            "label_smoothing_a must be a number from 1e−4 to 0.4467, got 0 (EXO)",
        ),
    ):
        (tmp_path / "bad.json").write_text(text)
        chooser.set_input_files(tmp_path / "bad.json")
        lab.page.get_by_text(f"The file was not loaded: {seen}.").wait_for()
        assert lab.state() == state


@browser_test
@pytest.mark.slow
def test_the_copied_python_computes_what_is_seen(opened, capsys):
    lab = begun(opened, "grid")
    lab.set(painted="20x20:380AB9C10E", when=100)
    exec(lab.ask("view.code()"), {})
    head, *rows = capsys.readouterr().out.split("\n")[:4]
    numbers = lab.numbers()
    for side, row in zip("ab", (rows[0], rows[2]), strict=True):
        computed = dict(zip(head.split()[1:], map(float, row.split()), strict=True))
        assert computed["utility"] == pytest.approx(numbers[side]["utility"], abs=2e-4)
        assert computed["unobserved_mass"] == pytest.approx(numbers[side]["unobserved"], abs=1e-5)


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("kind", [PairExplorer, GridExplorer])
def test_the_copied_python_is_that_of_the_explorer_in_python(kind, opened):
    lab = begun(opened, kind.name)
    if kind is GridExplorer:
        lab.set(seeds=3, when=40, policy="shared")
    explorer = kind(**lab.state())
    plain = [re.sub(r"(\d)\.0\b", r"\1", code) for code in (lab.ask("view.code()"), explorer.as_python())]
    explorer.close()
    assert plain[0] == plain[1]


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_any_width_and_the_first_screen_holds_losses_controls_and_picture(opened, view):
    lab = opened(f"#view={view}&guess=shown")
    for width in (360, 390, 768, 1920, 1280):
        lab.page.set_viewport_size({"width": width, "height": 800})
        for losses in (6, 2):
            lab.set(count=losses)
            lab.picture()
            assert lab.page.evaluate("document.documentElement.scrollWidth") <= width
            rights = lab.stage.locator(".gl-plot").evaluate_all(
                "all => all.map((one) => one.getBoundingClientRect().right)"
            )
            assert max(rights) <= width
    bottoms = lab.stage.locator(".gl-controls, .gl-plot").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().bottom)"
    )
    assert max(bottoms) <= 800


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize(("view", "moved", "to"), [("pair", "win", [0.9, 0.001, 1e-9]), ("grid", "sigma", [0.7, 2, 9])])
def test_what_to_do_first_is_said_until_there_is_an_answer_and_then_nothing_moves_under_a_hand(opened, view, moved, to):
    lab = opened(f"#view={view}")
    first = page.given()["explorers"][view]["firstMove"]
    told = lab.stage.locator(".gl-told")
    assert told.inner_text() == first
    closed = lab.stage.locator("[data-waits]")
    assert {one.get_attribute("data-waits") for one in closed.all()} == {"opens with your guess"}

    def tops():
        return lab.stage.locator(".gl-plot").evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")

    before = tops()
    lab.press("just show me")
    assert first not in told.inner_text()
    assert closed.count() == 0
    for value in to:
        lab.set(**{moved: value})
        lab.picture()
        assert tops() == before
    lab.press(page.given()["explorers"][view]["stories"][1]["title"])
    lab.picture()
    before = tops()
    lab.set(**{moved: to[0]})
    assert "You have left" in lab.stage.locator(".gl-story").inner_text()
    assert tops() == before
    lab.press("reset")
    assert not lab.stage.locator(".gl-story").is_visible()
    cut = """all => all.filter((one) => {
      const wide = one.cloneNode(true);
      wide.style.cssText = "position: absolute; width: max-content";
      one.after(wide);
      const cut = wide.offsetWidth > one.offsetWidth + 1;
      wide.remove();
      return cut;
    }).map((one) => one.ariaLabel)"""
    for width in (1280, 880):
        lab.page.set_viewport_size({"width": width, "height": 800})
        assert lab.stage.locator(".gl-choice select:visible").evaluate_all(cut) == []


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize(("view", "moved"), [("pair", "win"), ("grid", "sigma")])
def test_stories_set_their_state_and_say_when_it_is_left(opened, view, moved):
    lab = opened(f"#view={view}&guess=shown")
    told = lab.stage.locator(".gl-story")
    for story in page.given()["explorers"][view]["stories"]:
        lab.press(story["title"])
        assert told.inner_text().startswith(story["title"])
        assert {name: lab.state(name) for name in story["state"]} == story["state"]
        lab.set(**{moved: 0.987})
        assert told.inner_text().endswith("You have left this story.")
        lab.press("↶ undo")
        assert told.inner_text().startswith(story["title"])


@browser_test
@pytest.mark.slow
def test_pinned_curves_stay_faintly_and_are_not_read(opened):
    lab = opened("#view=grid&guess=shown")
    lab.press("pin")
    pinned = lab.stage.locator(".gl-lines path[stroke-opacity]")
    drawn = pinned.first.get_attribute("d")
    assert pinned.count() == 6
    lab.set(loss_a="ipo")
    assert lab.stage.locator(".gl-lines path.gl-curve").nth(2).get_attribute("d") != drawn
    lab.stage.locator(".gl-plot").nth(3).focus()
    lab.page.keyboard.press("End")
    assert lab.stage.locator(".gl-plot output").nth(3).inner_text().count("DPO") == 1
    lab.press("unpin")
    assert pinned.count() == 0


@browser_test
@pytest.mark.slow
def test_seeds_fill_in_as_bands(opened):
    lab = opened("#view=grid&guess=shown&seeds=4&mask_rate=0.2")
    bands = lab.stage.locator(".gl-bands path")
    bands.first.wait_for()
    assert bands.count() == 6
    caption = lab.stage.locator(".gl-table caption")
    assert caption.inner_text() == "At the step that is shown: means over 4 seeds"
    ends = lab.ask("view.runs.map(({ band }) => band.map(({ utility }) => utility.at(-1)))")
    means = [sum(one) / 4 for one in ends]
    shown = lab.stage.locator(".gl-table tbody tr").first.locator("td").all_inner_texts()
    assert [float(text) for text in shown[:2]] == pytest.approx(means, rel=1e-3)
    by = re.search(r"by ([\d.]+) nats", lab.ask("view.outcome()")[1])[1]
    assert float(by) == pytest.approx(abs(means[0] - means[1]), rel=0.02)
    lab.set(seeds=1)
    assert bands.count() == 0
    assert caption.inner_text() == "At the step that is shown"


@browser_test
@pytest.mark.slow
def test_without_webassembly_one_sentence_is_said_and_what_was_there_stays(opened):
    lab = opened(script="delete globalThis.WebAssembly")
    lab.page.get_by_text("The live lab does not run here: this browser has no WebAssembly").wait_for()
    assert lab.page.get_by_text("The lab begins as soon as its script runs").is_visible()


@browser_test
@pytest.mark.slow
def test_many_moves_leave_nothing_behind(opened):
    lab = opened("#view=pair&guess=shown")
    lab.page.evaluate("gradlabLab.open('grid').history.set({ guess: 'shown', when: 100 })")
    lab.settled()
    lab.until("!view.player.playing")
    count = "document.querySelectorAll('*').length"
    before = lab.page.evaluate(count)
    lab.page.evaluate(
        """async () => {
          const { shells: { pair, grid }, open } = gradlabLab;
          for (let move = 0; move < 1000; move++) {
            if (move % 50 < 2) open(move % 50 ? "grid" : "pair");
            grid.history.set({ scale: 1 + (move % 70) / 10, when: move % 100 }, "drag");
            pair.history.set({ win: 0.1 + (move % 70) / 100 }, "drag");
            if (move % 20 === 0) await new Promise((done) => setTimeout(done));
          }
          open("grid");
          grid.history.set({ scale: 4, when: 100 }, "drag");
          pair.history.set({ win: 0.5 }, "drag");
          for (const { history } of [pair, grid]) history.rest();
        }"""
    )
    lab.settled()
    assert abs(lab.page.evaluate(count) - before) < 20  # ticks of axes come and go
    assert lab.ask("gradlabLab.shells.pair.history.canUndo") is False
    lab.press("↶ undo")  # the step that the test began with
    assert lab.stage.get_by_role("button", name="undo").is_disabled()


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_the_pictures_are_saved_as_they_are_seen(opened, view):
    lab = begun(opened, view, accept_downloads=True)
    with lab.page.expect_download() as download:
        lab.press("SVG")
    made = ElementTree.fromstring(Path(download.value.path()).read_text("utf-8"))
    titles = [one.text for one in made.findall("{http://www.w3.org/2000/svg}text")]
    assert (
        titles[:3] == {"pair": ["A DPO", "B bDPO", "Gradient"], "grid": ["World: utility u", "A DPO", "B bDPO"]}[view]
    )
    with lab.page.expect_download() as download:
        lab.press("PNG")
    width, height = struct.unpack(">II", Path(download.value.path()).read_bytes()[16:24])
    assert (width, height) == (2 * int(made.get("width")), 2 * int(made.get("height")))


@browser_test
@pytest.mark.slow
def test_a_finger_drags_the_policy_and_still_scrolls_beside_it(opened):
    lab = opened("#view=pair&guess=shown", width=390, height=844, has_touch=True)
    policy = lab.page.get_by_role("slider", name="policy").first
    policy.scroll_into_view_if_needed()
    x, y = centre(policy)
    session = lab.page.context.new_cdp_session(lab.page)
    for kind, points in (("Start", [(x, y)]), ("Move", [(x - 30, y - 30)]), ("Move", [(x - 60, y - 40)]), ("End", [])):
        places = [{"x": at_x, "y": at_y} for at_x, at_y in points]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})
    assert lab.state("win") < 0.4
    assert lab.ask("getComputedStyle(shell.element.querySelector('.gl-stage')).touchAction") == "pan-y"


@browser_test
@pytest.mark.slow
def test_a_world_that_cannot_be_trained_on_gives_the_shown_curves_no_bands(opened):
    lab = opened("#view=grid&guess=shown")
    seen = np.flatnonzero(gaussian_world(mask_rate=0.8).observed[0])
    painted = "20x20:" + "".join(
        "B" if at in seen[:-1] else "A" for at in range(400)
    )  # one is left; in other seeds, more
    lab.set(mask_rate=0.8, seeds=2, painted=painted)
    assert lab.trouble().startswith("prompt 0 must keep two responses")
    lab.until("!view.pool.running.size")
    assert lab.ask("view.runs.map(({ band }) => band ?? null)") == [None, None]


@browser_test
@pytest.mark.slow
@needs_node
@needs_packages
@needs_firefox
def test_a_stock_firefox_opens_it_trains_and_drags(lab_file):
    told = in_firefox("firefox_lab.mjs", lab_file.as_uri() + "#view=grid&guess=shown")
    assert told["problems"] == []
    for slot, loss in (("a", "dpo"), ("b", "bdpo")):
        fitted = fit(gaussian_world(), pair_loss(loss), dtype="float32")
        assert told["numbers"][slot]["utility"] == pytest.approx(fitted.history["utility"].iloc[-1], abs=1e-4)
    assert told["dragged"] < 0.45
    assert told["undone"] == 0.5
