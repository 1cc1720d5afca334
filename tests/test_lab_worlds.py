"""Worlds of any size in the page's Training lab: from a file, painted, undone, saved, and copied as Python."""

import json

import numpy as np
import pytest
from node import needs_node
from own_losses import Lopsided

from gradlab.lab.fit import fit
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import DPO, register_loss, unregister_loss
from gradlab.widgets import page

pytestmark = [pytest.mark.browser, pytest.mark.slow, needs_node]

SHOWN = "#view=grid&guess=shown"
PAINT = "Paint, or load a world of your own"


def assert_trained(lab, world, loss, seed=0):
    """Loss A's policy is that of ``fit``."""
    fitted = fit(world, loss, seed=seed, dtype="float32")
    np.testing.assert_allclose(lab.policies(), fitted.logp.squeeze(0).double().exp().numpy(), rtol=0, atol=1e-5)


class Deciding(Lopsided):
    """A hinge that looks at its numbers, which the engine cannot fuse."""

    name = "deciding"
    label = "Deciding"

    def __call__(self, logps):
        margin = logps.win_logratio - logps.lose_logratio
        return super().__call__(logps) if (margin > 0).all() else 1 - margin


def test_a_brush_hides_and_raises_cells_and_a_world_without_pairs_is_refused(opened):
    lab = opened(SHOWN + "&seed=5&scale=3")
    before = lab.numbers()
    lab.unfold(PAINT)
    lab.page.get_by_role("checkbox").check()
    assert lab.page.evaluate("scrollY") == 0  # brushes and picture are on one screen
    cell = lab.canvas()
    lab.drag(cell(3, 2), cell(3, 6))
    painted = lab.state("painted")
    assert painted == "20x20:62A5B333A"
    lab.settled()
    assert lab.numbers() != before
    lab.drag(cell(4, 0), cell(4, 19))
    lab.settled()
    assert lab.page.get_by_text("prompt 4 must keep two responses in the data").count() == 1
    lab.press("↶ undo")
    assert lab.state("painted") == painted
    assert lab.trouble() == ""
    lab.page.get_by_role("combobox", name="brush").select_option("best (highest u)")
    lab.drag(cell(19, 0), cell(19, 1))
    assert lab.state("painted") == "20x20:62A5B313A2C18A"
    lab.page.get_by_role("combobox", name="brush").select_option("reference: less likely")
    before_it = lab.state("painted")
    assert lab.page.get_by_role("figure", name="World: reference π_ref").count() == 1
    lab.drag(cell(10, 0), cell(10, 2))
    lab.drag(cell(10, 0), cell(10, 2))
    assert lab.state("painted") == "20x20:62A5B133A3Y177A2C18A"
    lab.settled()
    reference = np.exp(lab.ask("[...view.ground.world.refLogp.slice(200, 220)]"))
    np.testing.assert_allclose(reference, np.r_[[np.exp(-2)] * 3, [1] * 17] / (17 + 3 * np.exp(-2)), rtol=1e-12)
    lab.press("↶ undo")
    lab.press("↶ undo")
    assert lab.state("painted") == before_it  # each stroke is one step
    lab.press("wipe all paint")
    assert lab.numbers() == before


def test_a_world_of_any_size_is_trained_drawn_and_undone(opened):
    lab = opened(SHOWN + "&seed=5&reference=shifted&shift=3&beta_a=0.7&beta_b=2")
    before, picture = lab.state(), lab.picture()
    lab.set(prompts=7, responses=33, prompt=19, mask_rate=0.2)
    world = gaussian_world(7, 33, mask_rate=0.2, reference="shifted", shift=3, seed=5)
    assert_trained(lab, world, DPO(0.7), seed=5)
    assert lab.page.get_by_role("figure", name="Prompt 6").count() == 1
    canvases = lab.page.locator("section:not([hidden]) .gl-pictures canvas").evaluate_all(
        "all => all.map((one) => [one.width, one.height])"
    )
    assert canvases[::2] == [[33, 7]] * 3
    lab.press("↶ undo")
    assert lab.state() == before
    assert lab.picture() == picture
    lab.set(prompts=200, responses=200)
    assert lab.trouble().startswith("prompts × responses² must be at most 1,000,000")
    lab.press("↶ undo")
    assert lab.picture() == picture
    lab.set(painted="20x20:399AC", prompts=19)
    told = "The paint is of another world, 20 prompts × 20 responses, and is not put on this one of 19 × 20."
    assert lab.trouble() == told


def test_a_world_from_a_file_is_trained_undone_saved_and_left_out_of_a_link(opened, tmp_path, capsys):
    lab = opened(SHOWN, accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
    before, picture = lab.state(), lab.picture()
    lab.unfold(PAINT)
    rng = np.random.default_rng(0)
    utility = 2 * rng.standard_normal((20, 19))
    np.save(tmp_path / "utility.npy", utility)
    observed = np.ones((20, 19), int)
    observed[:, 3] = 0
    np.savetxt(tmp_path / "observed.csv", observed, fmt="%d", delimiter=",")
    reference = rng.dirichlet(np.ones(19), 20)
    np.save(tmp_path / "reference.npy", np.asfortranarray(reference))
    chooser = lab.page.get_by_label("a file with a world")
    kinds = lab.page.get_by_role("combobox", name="what a file holds")
    for name, kind in (("utility.npy", "utility"), ("observed.csv", "observed"), ("reference.npy", "ref_logp")):
        kinds.select_option(kind)
        former = lab.state("world")
        chooser.set_input_files(tmp_path / name)
        lab.until(f"shell.history.state.world !== {former!r}")
        lab.settled()
    world = World(utility, observed > 0, np.log(reference))
    assert_trained(lab, world, DPO())
    assert not lab.page.get_by_role("slider", name="width σ", exact=True).is_visible()
    exec(lab.ask("view.code()"), {})
    head, row = capsys.readouterr().out.splitlines()[:2]
    printed = dict(zip(head.split()[1:], row.split(), strict=True))
    assert float(printed["utility"]) == pytest.approx(lab.numbers()["a"]["utility"], abs=2e-4)
    lab.press("copy link")
    lab.page.get_by_text("The link is copied, without world, too long for a link").wait_for()
    again = opened("#" + lab.page.evaluate("navigator.clipboard.readText()").split("#")[1])
    assert "world was too long for a link" in again.page.locator(".gl-notice").inner_text()
    with lab.page.expect_download() as download:
        lab.page.get_by_role("button", name="save").click()
    download.value.save_as(tmp_path / "state.json")
    own = lab.state()
    again.page.get_by_label("a file with a state").set_input_files(tmp_path / "state.json")
    again.until("shell.history.state.world !== ''")
    again.settled()
    assert again.state() == own
    assert np.array_equal(again.policies(), lab.policies())
    for _ in range(3):
        lab.press("↶ undo")
        lab.settled()
    assert lab.state() == before
    assert lab.picture() == picture


def test_a_file_is_dropped_and_one_that_is_no_world_is_said_and_nothing_changes(opened):
    lab = opened(SHOWN)

    def drop(name, text):
        lab.page.evaluate(
            """([name, text]) => {
              const data = new DataTransfer();
              data.items.add(new File([text], name));
              const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
              document.querySelector("section:not([hidden]) canvas").dispatchEvent(event);
            }""",
            [name, text],
        )

    state, picture = lab.state(), lab.picture()
    for text, told in (
        ("", "bad.csv was not loaded: the file must hold a table of numbers, but it is empty."),
        ("1,2\n3", "bad.csv was not loaded: every line must have 2 numbers as the first has, got 1 in line 2."),
        ("1,nan", 'bad.csv was not loaded: every cell must be a number, got "nan" in line 1.'),
    ):
        drop("bad.csv", text)
        lab.until("view.refusal.textContent !== ''")
        assert lab.trouble() == told
        assert lab.state() == state
        lab.ask("(view.refusal.textContent = '')")
    assert lab.picture() == picture
    drop("good.csv", "1,2,3\n4,5,7\n")
    lab.until("shell.history.state.world !== ''")
    lab.settled()
    assert lab.state("world") == '{"utility":[[1,2,3],[4,5,7]]}'
    assert lab.page.get_by_role("figure", name="Prompt 1").count() == 1
    lab.page.evaluate(
        """() => gradlabLab.shells.grid.view.tools.loadWorld({
          prompts: 1, responses: 2, utility: Float64Array.of(0, 0), observed: Uint8Array.of(1, 1),
          refLogp: Float64Array.of(Math.log(0.25), Math.log(0.75)),
        })"""
    )
    lab.settled()
    assert lab.policies().sum() == pytest.approx(1)
    lab.unfold(PAINT)
    lab.press("back to a drawn world")
    assert lab.state() == state


HELD = """async () => {
  const { view, history } = gradlabLab.shells.grid;
  const train = view.pool.train.bind(view.pool);
  let go;
  const gate = new Promise((done) => (go = done));
  view.pool.train = async (...given) => (await gate, train(...given));
  globalThis.letGo = go;
}"""


def test_a_part_from_a_file_joins_the_world_of_the_state_and_not_one_that_was_trained_before(opened):
    lab = opened(SHOWN)
    lab.page.evaluate(HELD)
    told = lab.page.evaluate(
        """async () => {
          const { view: { tools }, history } = gradlabLab.shells.grid;
          await tools.loadFile(new File(["1,2,3\\n4,5,7\\n"], "u.csv"), "utility");
          await tools.loadFile(new File(["1,1,0\\n1,1,1\\n"], "o.csv"), "observed");
          return [history.state.world, document.querySelector(".gl-trouble").textContent];
        }"""
    )
    world = json.loads(told[0])
    assert world["utility"] == [[1, 2, 3], [4, 5, 7]]
    assert np.array(world["observed"]).tolist() == [[1, 1, 0], [1, 1, 1]]
    lab.page.evaluate("letGo()")
    lab.settled()
    assert lab.trouble() == ""


def test_what_is_said_of_a_file_stays_when_a_training_ends(opened):
    lab = opened(SHOWN)
    lab.page.evaluate(HELD)
    lab.ask("shell.history.set({ scale: 5 })")
    lab.ask("view.tools.loadFile(new File(['1,nan'], 'bad.csv'))")
    lab.page.evaluate("letGo()")
    lab.settled()
    assert lab.trouble().startswith("bad.csv was not loaded")
    lab.set(world='{"utility":[[1,2],[3,4]]}')
    assert lab.trouble() == ""


def test_why_there_are_no_bands_stays_until_bands_are_asked_anew(opened):
    lab = opened(SHOWN)
    lab.page.evaluate(
        """() => {
          const { view: { pool } } = gradlabLab.shells.grid;
          pool.train = () => Promise.reject(new Error("there is no room"));
        }"""
    )
    lab.set(seeds=2)
    lab.until("view.trouble.textContent === 'there is no room.'")
    lab.set(prompt=3)  # which trains nothing
    assert lab.trouble() == "there is no room."
    lab.set(seeds=1)
    assert lab.trouble() == ""


def test_menus_say_why_a_loss_and_ppo_run_in_python_only(chromium, tmp_path):
    register_loss(Deciding)
    try:
        refused = page._loss(Deciding)
    finally:
        unregister_loss(Deciding.name)
    given = page.given()
    data = given | {"losses": [*given["losses"], refused]}
    policy = "<!doctype html><meta charset=utf-8><div id=gradlab-lab></div><script>SCRIPT</script>"
    (tmp_path / "lab.html").write_text(policy.replace("SCRIPT", page.script(data=data)), "utf-8")
    shown = chromium.new_page()
    shown.goto((tmp_path / "lab.html").as_uri() + SHOWN)
    menu = shown.locator("section:not([hidden])").get_by_role("combobox", name="loss A")
    menu.wait_for()
    disabled = menu.locator("option:disabled").all_inner_texts()
    assert disabled == [
        "Deciding (in Python only: it computes in torch.bool (all))",
        "PPO (in Python only: gl.fit_ppo(world, world.utility))",
    ]
    shown.close()
