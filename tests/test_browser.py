"""Every notebook in a real JupyterLab in a real Chromium: it runs, sliders move what they should, Reset restores.

Skipped, with the reason, where there is no Chromium.
"""

import json
import shutil
from pathlib import Path

import pytest

from scripts import browser as chrome

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))


pytestmark = [
    pytest.mark.browser, pytest.mark.skipif(chrome.why_not() is not None, reason=str(chrome.why_not())),
]  # fmt: skip


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a copy of the notebooks."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "figures", root / "figures", ignore=shutil.ignore_patterns("*.pdf", "benchmarks", "quick"))
    home = tmp_path_factory.mktemp("home")
    with chrome.lab(root / "notebooks", home) as address:
        yield address


@pytest.fixture
def opened(lab, chromium):
    """A function that opens a notebook and runs it."""
    pages = []

    def run(name, **more):
        page = chrome.Page(chromium, lab, name, **more)
        pages.append(page)
        page.run_all()
        return page

    yield run
    for page in pages:
        page.close()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_moves_and_resets(opened, name):
    page = opened(name)
    assert page.cell_errors() == []
    assert page.explorers() + page.page.locator(".gl-rating").count() > 0
    for index in range(page.explorers()):
        explorer = page.explorer(index)
        explorer.still()
        start = explorer.content()
        assert explorer.trouble() == ""
        sliders = explorer.root.locator('.gl-controls input[type="range"]:visible')
        for slider in sliders.all():
            assert slider.get_attribute("aria-label")
            assert slider.get_attribute("aria-valuetext")
        assert all(image.get_attribute("alt") for image in explorer.root.locator("img").all())
        if sliders.count() == 0:
            continue
        explorer.settled(lambda sliders=sliders: [sliders.first.press("ArrowRight") for _ in range(5)])
        moved = explorer.content()
        assert moved != start
        explorer.press("reset")
        assert explorer.content() == start
        explorer.press("↶ undo")
        assert explorer.content() == moved
        explorer.press("reset")
    assert page.problems == []


def test_the_keyboard_cannot_delete_a_cell_from_within_an_explorer(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    for place in (explorer.slider("height R"), explorer.root.get_by_role("button", name="reset", exact=True)):
        place.focus()
        for key in "dd":
            page.page.keyboard.press(key)
    page.page.wait_for_timeout(500)
    assert page.explorers() == 1


def test_results_can_be_copied_and_saved(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    explorer.root.get_by_role("button", name="copy as Python").click()
    explorer.root.get_by_text("The code is copied.", exact=True).wait_for()
    code = page.page.evaluate("() => navigator.clipboard.readText()")
    assert code.startswith("import gradlab as gl")
    for kind, start in (("CSV", b"step,"), ("PNG", b"\x89PNG"), ("SVG", b"<svg"), ("PDF", b"%PDF"), ("save", b"{")):
        with page.page.expect_download() as download:
            explorer.root.get_by_role("button", name=kind, exact=True).click()
        assert Path(download.value.path()).read_bytes().startswith(start), kind


def test_python_and_the_page_move_each_other(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    start = explorer.content()
    explorer.settled(lambda: page.do("explorer.set(scale=8.0); explorer.beta_a.value = 0.5"))
    assert explorer.slider("height R").get_attribute("aria-valuetext") == "8"
    explorer.settled(lambda: explorer.root.get_by_label("loss A", exact=True).select_option("ipo"))
    told = page.do("print(explorer.state['loss_a'], explorer.state['scale'], explorer.beta_a.value)")
    assert told.strip() == "ipo 8.0 0.5"
    explorer.press("reset")
    assert explorer.content() == start
    assert page.problems == []


def test_the_numbers_in_the_page_are_those_of_python(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    explorer.settled(lambda: explorer.root.get_by_role("button", name="just show me").click())
    explorer.root.locator(".gl-at", has_text="step 500 of 500").wait_for()  # the training is played once
    explorer.root.get_by_role("button", name="▶ play", exact=True).wait_for()
    shown = explorer.table().split("expected utility E[u], nats")[1].split()[:2]
    ends = page.do("print([explorer.numbers[f'E[u] {side}'] for side in 'AB'])")
    assert [float(text) for text in shown] == pytest.approx(json.loads(ends), abs=1e-3)


def test_a_story_is_told_and_greys_when_it_is_left(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    explorer.root.get_by_role("button", name="just show me").click()
    explorer.press("When bDPO helps")
    story = explorer.root.locator(".gl-story")
    assert "a fifth of the responses" in story.inner_text()
    assert "gl-left" not in story.get_attribute("class")
    explorer.settled(lambda: explorer.slider("height R").press("ArrowRight"))
    assert "You have left this story" in story.inner_text()
    assert "gl-left" in story.get_attribute("class")


def test_a_restart_of_the_kernel_is_told_in_words(opened):
    page = opened("02-grid-training.ipynb")
    explorer = page.explorer()
    page.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    explorer.root.get_by_text("The kernel is gone: run the cell again.").wait_for()


def test_a_cell_that_is_run_again_leaves_one_explorer_and_no_problem(opened):
    page = opened("02-grid-training.ipynb")
    page.explorer()
    for _ in range(3):
        page.run_all()
    page.explorer().still()
    assert page.explorers() == 1
    assert page.problems == []


def test_a_rating_takes_keys_and_takes_answers_back(opened):
    page = opened("08-rating.ipynb")
    explorer = page.explorer()
    assert "0 of 12" in explorer.table()
    page.page.locator(".gradlab-pair > div").first.click()
    cells = page.page.locator(".jp-Cell").count()
    for key in "ddxm":  # JupyterLab would delete the cell, cut it, and make it a text
        page.page.keyboard.press(key)
    assert page.page.locator(".jp-Cell").count() == cells
    explorer.settled(lambda: page.page.keyboard.press("ArrowLeft"))
    assert "1 of 12" in explorer.table()
    explorer.settled(lambda: page.page.keyboard.press("Backspace"))
    assert "0 of 12" in explorer.table()
    for place in (explorer.root.locator(".gl-plot").first, explorer.root.get_by_label("rater", exact=True)):
        place.focus()
        page.page.keyboard.press("ArrowLeft")  # reads in the chart, moves in the text, and answers nothing
    field = explorer.root.get_by_label("rater", exact=True)
    explorer.settled(lambda: (field.press_sequentially("ann"), field.press("Enter")))
    assert "0 of 12" in explorer.table()
    assert "ann" in explorer.table()
    assert page.problems == []


def test_a_claim_is_opened_from_its_row_by_keyboard(opened):
    page = opened("06-claims.ipynb")
    explorer = page.explorer()
    before = explorer.content()
    row = page.page.get_by_role("button", name="grid-reward")
    row.focus()
    explorer.settled(lambda: page.page.keyboard.press("Enter"))
    assert "grid-reward" in explorer.table()
    assert row.get_attribute("aria-pressed") == "true"
    assert explorer.content() != before
    cells = page.page.locator(".jp-Cell").count()
    for key in "ddxm":
        page.page.keyboard.press(key)
    assert page.page.locator(".jp-Cell").count() == cells
    figure = explorer.root.get_by_label("figure", exact=True)
    assert "answer-grid-reward" in figure.locator("option").all_inner_texts()
    explorer.press("↶ undo")  # the claim and its menus come back in one step
    assert explorer.content() == before
    assert explorer.root.get_by_role("button", name="↶ undo").is_disabled()
    assert figure.input_value() in figure.locator("option").all_inner_texts()
    assert page.problems == []


def test_an_end_of_the_steps_is_dragged_and_a_finding_shows_its_own(opened):
    page = opened("07-training-log.ipynb")
    explorer = page.explorer()
    explorer.press("it falls")
    start = explorer.root.get_by_role("slider", name="from", exact=True)
    box = start.bounding_box()
    mouse, middle = page.page.mouse, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    mouse.move(*middle)
    mouse.down()
    mouse.move(middle[0] + 40, middle[1], steps=5)
    explorer.settled(mouse.up)
    first = int(page.do("print(explorer.state['first'])"))
    assert 5 < first < 60
    explorer.settled(lambda: page.page.get_by_role("button", name="A: log-probabilities").click())
    assert page.do("print(explorer.state['first'])") != f"{first}\n"
    assert page.problems == []


def test_checks_are_folded_and_a_takeaway_opens_with_its_mathematics(opened):
    page = opened("01-one-pair.ipynb")
    assert page.page.locator(".jp-CodeCell .jp-InputPlaceholder:visible").count() == 1
    assert page.page.get_by_text("assert start").count() == 0
    takeaway = page.page.locator(".jp-RenderedMarkdown details")
    text = takeaway.get_by_text("calculus gives it to every loss")
    assert takeaway.count() == 1
    assert not text.is_visible()
    takeaway.locator("summary").click()
    text.wait_for()
    assert takeaway.locator("mjx-container").count() == 8
    assert "$" not in takeaway.inner_text()
    assert takeaway.locator("a").first.get_attribute("href")
    assert page.problems == []
