"""The lab's page under a hand: trainings that a quick one overtakes, paint by keys, and pins to compare with."""

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOWN = "#view=grid&guess=shown"
LARGE = SHOWN + "&prompts=100&responses=100&steps=200"


# --- a training that the state has left ---


def test_a_training_that_was_overtaken_is_stopped_and_the_last_state_is_shown(opened):
    lab = opened(LARGE)
    lab.page.evaluate(
        """async () => {
          const { shells: { grid: { history, view } } } = gradlabLab;
          const train = view.pool.train.bind(view.pool);
          globalThis.told = [];
          view.pool.train = (job, signal) => train(job, signal).then(
            (found) => (told.push("done"), found), (error) => { told.push(error.name); throw error; });
          for (let scale = 5.1; scale < 5.95; scale += 0.1) {
            history.set({ scale }, "drag");
            await new Promise((done) => setTimeout(done, 40));
          }
          history.set({ scale: 6 }, "drag");
          history.rest();
        }"""
    )
    lab.settled()
    told = lab.ask("told")
    assert told.count("done") == 2  # those of the last state
    assert told.count("AbortError") == len(told) - 2 >= 2
    assert lab.ask("JSON.parse(view.runs[0].key)[0].scale") == 6


def test_a_short_training_that_was_overtaken_is_shown_so_that_a_drag_moves_pictures(opened):
    lab = opened(SHOWN)
    shown = lab.page.evaluate(
        """async () => {
          const { shells: { grid: { history, view } } } = gradlabLab;
          const shown = new Set();
          for (let move = 0; move < 40; move++) {
            history.set({ scale: 4 + move / 20 }, "drag");
            await new Promise((done) => setTimeout(done, 16));
            shown.add(view.runs[0].key);
          }
          history.rest();
          return shown.size;
        }"""
    )
    assert shown >= 5


def test_undo_while_a_training_is_under_way_brings_the_picture_back(opened):
    lab = opened(LARGE)
    picture, key = lab.picture(), lab.ask("view.runs[0].key")
    lab.ask("(shell.history.set({ scale: 5 }), shell.history.undo())")
    lab.settled()
    assert lab.ask("view.runs[0].key") == key
    assert lab.picture() == picture
    lab.ask("(shell.history.set({ scale: 5 }), shell.history.set({ when: 50 }))")  # not another training
    lab.settled()
    assert lab.ask("JSON.parse(view.runs[0].key)[0].scale") == 5


def test_undo_during_a_play_ends_it(opened):
    lab = opened("#view=grid&when=60")
    lab.stage.get_by_role("button", name="A DPO").click()
    lab.until("view.player.playing")
    lab.ask("shell.history.undo()")
    assert not lab.ask("view.player.playing")
    lab.stage.get_by_role("button", name="A DPO").click()
    lab.until("!view.player.playing && shell.history.state.when === 100")
    lab.press("↶ undo")  # where the play ended goes with the guess
    assert (lab.state("guess"), lab.state("when")) == ("none", 60)


# --- painting by keys ---


def test_paint_is_laid_on_by_keys_and_the_map_says_so(opened):
    lab = opened(SHOWN)
    world = lab.page.get_by_role("figure", name="World: utility u")
    words = world.locator("svg").first
    before = words.get_attribute("aria-label")
    lab.unfold("Paint, or load a world of your own")
    lab.page.get_by_role("checkbox").check()
    assert words.get_attribute("aria-label") == f"{before}; arrow keys go from cell to cell, and the space bar paints"
    world.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Space", "ArrowRight", "Space"):
        lab.page.keyboard.press(key)
    assert lab.state("painted") == "20x20:21A2B377A"
    lab.settled()
    assert world.locator("output").inner_text().endswith("in no pair")
    assert lab.state("prompt") == lab.ask("shell.defaults.prompt")
    lab.press("↶ undo")  # each cell is one stroke
    assert lab.state("painted") == "20x20:21AB378A"
    lab.page.get_by_role("checkbox").uncheck()
    assert words.get_attribute("aria-label") == before
    lab.picture()
    world.focus()
    lab.page.keyboard.press("ArrowDown")
    lab.page.keyboard.press("ArrowDown")
    lab.page.keyboard.press("Enter")
    assert lab.state("prompt") == 1
    assert lab.state("painted") == "20x20:21AB378A"


# --- pins ---


def test_a_pinned_pair_stays_faintly_and_is_not_read(opened):
    lab = opened("#view=pair&guess=shown")
    faint = lab.stage.locator(".gl-bars rect[opacity]")
    kept = lab.stage.locator(".gl-kept path")
    plain = lab.picture()
    lab.press("pin")
    assert faint.count() == 2 * 2 * 3  # two charts, two losses, three groups
    assert kept.count() == 2 * 2  # on each map the policy and its step
    place, bar = kept.first.get_attribute("d"), faint.first.get_attribute("width")
    lab.set(win=0.2)
    assert (kept.first.get_attribute("d"), lab.stage.locator(".gl-trail path").first.get_attribute("d")) != (
        place,
        place,
    )
    assert kept.first.get_attribute("d") == place
    gradient = lab.stage.locator(".gl-grouped").first
    gradient.focus()
    lab.page.keyboard.press("ArrowDown")
    assert gradient.locator("output").inner_text().count("DPO") == 2  # "A DPO", and within "B bDPO"
    lab.page.keyboard.press("Escape")
    lab.press("↶ undo")
    assert lab.stage.get_by_role("button", name="unpin").get_attribute("aria-pressed") == "true"
    assert faint.first.get_attribute("width") == bar
    lab.set(guess="none")
    assert kept.count() == 0  # a step is concealed, also one that is kept
    lab.set(guess="shown")
    lab.press("unpin")
    assert faint.count() == kept.count() == 0
    assert lab.picture() == plain


def test_a_pin_of_another_world_is_let_go(opened):
    lab = opened(SHOWN)
    pinned = lab.stage.locator(".gl-lines path[stroke-opacity]")
    lab.press("pin")
    lab.set(mask_rate=0.4)  # the same prompts and responses
    assert pinned.count() == 6
    lab.set(prompts=7)
    assert pinned.count() == 0
    assert lab.stage.get_by_role("button", name="pin", exact=True).get_attribute("aria-pressed") == "false"
    lab.press("↶ undo")
    assert pinned.count() == 0
