"""A person rates: the page from a file in Chromium and Firefox, and the widget in JupyterLab; keys, mouse, bad files.

Skipped, with the reason, where there is no Chromium, or no Firefox.
"""

import json

import pytest
from node import WEB, in_firefox, needs_firefox, needs_node, needs_packages
from small_study import answers_of, plan, study, write_samples
from web_page import note_problems

from gradlab.study.answers import read_answers
from gradlab.study.assignment import assign, tasks_of
from gradlab.study.blind import blind_list
from gradlab.study.frozen import freeze
from gradlab.study.rater_page import rating_page
from gradlab.study.report_page import report
from scripts import browser as chrome

pytestmark = pytest.mark.browser
WARNING = "Some texts are rude."
LONG = "The keeper counted the waves, and wrote each number down. " * 60


def text(system, place):
    """Return texts of which some look like markup, and some are too long for the screen."""
    return [None, f"<b>bold</b> {place} {len(system)}", f"{LONG} {place} {len(system)}"][place % 3]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study in which each rater has 22 tasks."""
    folder = tmp_path_factory.mktemp("study")
    write_samples(folder, text=text)
    return freeze(plan(content_warning=WARNING), folder)


class Form:
    """The form in a page or a notebook, as a person uses it."""

    def __init__(self, page):
        self.page, self.root = page, page.locator(".gl-rating")

    def begin(self, button="Begin"):
        start = self.root.get_by_role("button", name=button, exact=True)
        assert start.is_disabled()  # until the warning is accepted
        self.page.keyboard.press("ArrowLeft")  # answers nothing yet
        self.root.get_by_role("checkbox").check()
        start.click()

    def key(self, *names):
        for name in names:
            self.page.keyboard.press(name)

    def click(self, name):
        self.root.get_by_role("button", name=name, exact=True).click()

    def done(self, number):
        """Wait until so many tasks are answered."""
        self.page.locator(f'.gl-rating[data-done="{number}"]').wait_for()

    def said(self, words):
        """Wait until the form says something."""
        self.root.locator(".gl-trouble, .gl-status").filter(has_text=words).first.wait_for()

    def rate(self, first, last):
        """Answer tasks with keys and mouse in turn, from ``first`` on until ``last`` are done."""
        for number in range(first, last):
            if number % 4 == 3:
                self.click("Right is better →")
            else:
                self.key(["ArrowLeft", "ArrowRight", "ArrowDown"][number % 4])
            self.done(number + 1)

    def skip(self, done):
        """Skip a task with a reason that is typed, after looking at the list."""
        self.key("s")
        dialog = self.root.get_by_role("dialog")
        dialog.wait_for()
        assert dialog.get_by_role("button", name="Skip").is_enabled()  # no reason need be given
        dialog.get_by_label("another reason", exact=True).fill("s is no key here")
        self.key("Enter")
        self.done(done)

    def export(self):
        with self.page.expect_download() as download:
            self.click("Export answers")
        return download.value

    def bring(self, path):
        self.root.locator("input[type=file]").set_input_files(path)


def choices(number):
    return [["left", "right", "tie", "right"][place % 4] for place in range(number)]


@pytest.fixture
def opened(made, tmp_path, chromium):
    """A function that opens a rater's page; at the end none must have met an error or asked for anything."""
    contexts, problems = [], []

    def open_page(rater="ada", context=None, script=None, width=1280, **more):
        file = tmp_path / f"{rater}.html"
        file.write_text(rating_page(made, rater), "utf-8")
        if context is None:
            context = chromium.new_context(viewport={"width": width, "height": 800}, **more)
            contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        note_problems(page, problems)
        page.goto(file.as_uri())
        page.locator(".gl-rating").wait_for()  # the page shows it when the browser has taken the page up
        return Form(page)

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def file_of(tmp_path, *lines, name="ada.answers.jsonl", cut=0):
    """Write lines to a file, without so many of its last letters; return its path."""
    file = tmp_path / name
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file.write_text(text[: len(text) - cut], "utf-8")
    return file


def lines_of(made, rater="ada"):
    return [line for line in answers_of(made) if line["rater"] == rater]


def test_a_person_rates_all_items_closes_the_page_goes_on_and_exports_what_the_report_takes(made, opened, tmp_path):
    number = len(tasks_of(made, "ada"))
    assert number >= 20
    form = opened()
    form.begin()
    form.rate(0, 5)
    form.key("Backspace", "Backspace")
    form.done(3)
    form.rate(3, 9)
    form.skip(10)
    form.page.close()
    form = opened(context=form.page.context)
    form.root.get_by_text(f"You have answered 10 of {number}. Go on where you stopped.").wait_for()
    form.begin("Go on")
    form.rate(10, number)
    form.root.get_by_role("heading", name="Thank you!").wait_for()
    form.key("Backspace")
    form.done(number - 1)
    form.rate(number - 1, number)
    saved = form.export()
    assert saved.suggested_filename == "ada.answers.jsonl"
    file = tmp_path / "exported.jsonl"
    saved.save_as(file)
    frame = read_answers(made, [file]).frame.sort_values("place")
    expected = choices(number)
    expected[9] = "skip"
    assert list(frame["choice"]) == expected
    assert frame["reason"].iloc[9] == "s is no key here"
    assert (frame["seconds"] < 60).all()
    others = [line for line in answers_of(made) if line["rater"] != "ada"]
    assert report(made, [file, file_of(tmp_path, *others, name="others.jsonl")]).results.verdict.word


def test_another_browser_goes_on_with_the_exported_file(made, opened, tmp_path):
    lines = lines_of(made)
    form = opened()
    form.begin()
    form.bring(file_of(tmp_path, *lines[:7]))
    form.said(f"ada.answers.jsonl is imported: 7 of {len(lines)} are done.")
    form.rate(7, 8)
    form.bring(file_of(tmp_path, *lines[:7]))  # once more: what is here stays
    form.done(8)
    form.page.close()
    again = opened(context=form.page.context)
    again.done(8)


def test_a_file_that_does_not_fit_is_refused_in_one_line_and_nothing_is_lost(made, opened, tmp_path):
    form = opened()
    form.begin()
    form.rate(0, 2)
    lines = lines_of(made)
    other = study(tmp_path, seed=9)
    refusals = {
        "line 1: study must be": lines_of(other)[:2],
        'line 1: rater must be "ada", got "ben": answers of another rater': lines_of(made, "ben")[:2],
        "line 2: version must be 1, got 2: a file of another version": [lines[0], {**lines[1], "version": 2}],
        "it differs from the answers here": [{**lines[0], "choice": "tie"}],
        "line 2: item must be the one assigned there": [lines[0], {**lines[1], "item": "x"}],
        "it holds no answers": [],
    }
    for said, some in refusals.items():
        form.bring(file_of(tmp_path, *some))
        form.said(f"ada.answers.jsonl was not imported: {said}")
        assert "\n" not in form.root.locator(".gl-trouble").inner_text()
        form.done(2)
    (tmp_path / "ada.answers.jsonl").write_text("no answers at all")
    form.bring(tmp_path / "ada.answers.jsonl")
    form.said("line 1 is no JSON object; a file of answers has one per line")
    form.key("Backspace", "Backspace")
    form.done(0)
    form.bring(file_of(tmp_path, *lines[:4], cut=9))
    form.done(3)
    form.said("Its last line was cut short, and does not count.")


def test_damaged_storage_keeps_the_answers_before_the_damage_and_the_rest_aside(made, opened, tmp_path):
    form = opened()
    form.begin()
    form.rate(0, 4)
    damage = """() => {
      const key = Object.keys(localStorage).find((one) => one.startsWith("gradlab study"));
      const rows = localStorage.getItem(key).split("\\n");
      rows[2] = rows[2].slice(0, 40);
      localStorage.setItem(key, rows.join("\\n"));
    }"""
    form.page.evaluate(damage)
    form.page.close()
    form = opened(context=form.page.context)
    form.said("What this browser had kept is damaged (line 3 is no JSON object")
    form.done(2)
    with form.page.expect_download() as download:
        form.click("Export damaged answers")
    download.value.save_as(tmp_path / "damaged")
    assert len((tmp_path / "damaged").read_text().splitlines()) == 4
    form.begin("Go on")
    form.rate(2, 3)


@pytest.mark.parametrize("how", ["getItem", "setItem"])
def test_a_browser_that_keeps_nothing_is_named_and_answers_can_be_exported(made, opened, tmp_path, how):
    broken = f'Storage.prototype.{how} = () => {{ throw new DOMException("closed", "QuotaExceededError"); }};'
    form = opened(script=broken)
    form.said("This browser keeps nothing for this page")
    form.begin()
    form.rate(0, 3)
    form.said("This browser keeps nothing for this page")
    form.export().save_as(tmp_path / "saved.jsonl")
    assert list(read_answers(made, [tmp_path / "saved.jsonl"]).frame["choice"]) == choices(3)


ORDER = """
    window.order = [];
    const { request } = LockManager.prototype, { getItem } = Storage.prototype;
    LockManager.prototype.request = async function (...given) {
      await new Promise((resolve) => setTimeout(resolve, 300));
      await request.apply(this, given);
      order.push("answered");
    };
    Storage.prototype.getItem = function (key) { order.push("storage"); return getItem.call(this, key); };
"""


TOUCHED = """
    const { getItem } = Storage.prototype;
    Storage.prototype.getItem = function (key) {
      window.touched ??= performance.now();
      return getItem.call(this, key);
    };
"""


@pytest.mark.parametrize("locks", [True, False])
def test_the_storage_is_not_touched_before_the_browser_has_taken_the_page_up(opened, locks):
    """Chromium may cut off a page that does, without an error: its answers would be gone when it closes."""
    form = opened(script=ORDER if locks else f"delete Navigator.prototype.locks; {TOUCHED}")
    form.begin()
    form.rate(0, 1)
    if locks:
        assert form.page.evaluate("order.slice(0, 2)") == ["answered", "storage"]
    else:
        assert form.page.evaluate("touched") > 490  # ms since the page began
    form.page.reload()
    form.begin("Go on")
    form.done(1)


def test_two_windows_of_one_browser_follow_each_other(opened):
    here = opened()
    there = opened(context=here.page.context)
    here.begin()
    there.begin()
    here.rate(0, 3)
    there.done(3)
    there.rate(3, 4)
    here.done(4)


def test_a_double_click_and_a_key_that_is_held_answer_one_task(made, opened):
    form = opened()
    form.begin()
    left = form.root.get_by_role("button", name="← Left is better", exact=True)
    left.dblclick()
    form.done(1)
    left.focus()
    for _ in range(3):
        form.page.keyboard.down("Enter")  # the second and the third are repeats
    form.page.keyboard.up("Enter")
    form.done(2)
    assert form.page.evaluate("Object.values(localStorage).join('').trim().split('\\n').length") == 2


DEAF = "addEventListener('storage', (event) => event.stopImmediatePropagation(), true)"


def test_a_window_that_heard_nothing_of_another_keeps_the_answers_of_both(opened, tmp_path):
    deaf = opened(script=DEAF)
    other = opened(context=deaf.page.context)
    file = tmp_path / "ada.answers.jsonl"
    for form in (deaf, other):
        form.begin()
    deaf.rate(0, 1)
    other.done(1)
    deaf.export().save_as(file)
    other.rate(1, 3)
    deaf.page.wait_for_function("Object.values(localStorage).join('').trim().split('\\n').length === 3")
    deaf.bring(file)
    deaf.said("is imported")
    deaf.done(3)
    assert other.page.evaluate("Object.values(localStorage).join('').trim().split('\\n').length") == 3


def test_answers_that_contradict_those_of_another_window_write_over_none(opened):
    deaf = opened(script=DEAF)
    other = opened(context=deaf.page.context, script=DEAF)
    for form in (deaf, other):
        form.begin()
    deaf.key("ArrowLeft")
    deaf.done(1)
    kept = "Object.values(localStorage).join('')"
    other.page.evaluate("text => localStorage.setItem(Object.keys(localStorage)[0], text)",
                        deaf.page.evaluate(kept).replace('"left"', '"right"'))  # fmt: skip
    deaf.page.wait_for_function(f"""{kept}.includes('"right"')""")  # windows may be processes of their own
    written = deaf.page.evaluate(kept)
    for _ in range(2):
        deaf.key("ArrowLeft")
        deaf.said("Another window wrote something else")
        assert deaf.page.evaluate(kept) == written
    assert deaf.export().suggested_filename == "ada.answers.jsonl"


def test_a_question_about_skipping_ends_with_its_task(opened):
    here = opened()
    there = opened(context=here.page.context)
    here.begin()
    there.begin()
    here.key("s")
    dialog = here.root.get_by_role("dialog")
    dialog.wait_for()
    there.rate(0, 1)
    here.done(1)
    assert not dialog.is_visible()


def test_texts_are_shown_as_they_are_and_long_ones_scroll_by_keys(made, opened):
    form = opened()
    form.begin()
    shown = {}
    for number, task in enumerate(tasks_of(made, "ada")):
        shown[task.place] = form.root.locator(".gl-pair .gl-words").all_inner_texts()
        left = form.root.get_by_role("region", name="left response")
        if "waves" in shown[task.place][0]:
            left.click()
            form.key("ArrowDown")  # scrolls, and is no tie
            form.page.wait_for_timeout(300)
            assert left.evaluate("one => one.scrollTop") > 0
            form.done(number)
        form.key("ArrowLeft")
        form.done(number + 1)
    assert any("<b>bold</b>" in words for pair in shown.values() for words in pair)
    assert form.root.locator("b").count() == 0


@pytest.mark.parametrize("width", [400, 1280, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_and_can_be_read_in_both_themes(opened, width, scheme):
    form = opened(width=width, color_scheme=scheme)
    for begin in (False, True):
        if begin:
            form.begin()
            left, right = (form.root.locator(".gl-pair .gl-words").nth(side).bounding_box() for side in (0, 1))
            assert (left["x"] == right["x"]) == (width == 400)
            assert min(left["height"], right["height"]) > 100
            for name in ("left", "tie", "right", "skip"):
                box = form.root.locator(f"[data-choice={name}]").bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
                assert box["y"] + box["height"] <= 800
        assert form.page.evaluate("document.documentElement.scrollWidth") <= width
        ink, paper = form.page.evaluate(
            """() => {
              const { color, backgroundColor } = getComputedStyle(document.querySelector(".gl-rating"));
              return [color, backgroundColor].map((one) => one.match(/[\\d.]+/g).slice(0, 3).map(Number));
            }"""
        )
        assert abs(sum(ink) - sum(paper)) > 450
        assert (sum(paper) > 384) == (scheme == "light")


def test_a_reader_who_cannot_see_it_is_told(opened):
    form = opened()
    form.begin()
    assert form.page.get_by_role("group", name="Which response helps more?").get_by_role("button").count() == 3
    assert form.page.get_by_role("progressbar", name="progress").get_attribute("value") == "0"
    form.key("Tab", "Tab", "Tab")
    form.page.get_by_role("region", name="right response").press("Tab")
    assert form.page.evaluate("document.activeElement.dataset.choice") == "left"
    form.key("Enter")
    form.done(1)
    assert form.page.get_by_role("status").inner_text().startswith("Saved. 1 of ")
    assert form.page.evaluate("document.activeElement.dataset.choice") == "left"  # the focus stays


@needs_node
@needs_packages
@needs_firefox
def test_the_page_rates_and_goes_on_in_firefox_too(made, tmp_path):
    file = tmp_path / "ada.html"
    file.write_text(rating_page(made, "ada"), "utf-8")
    found = in_firefox("firefox_rating.mjs", file.as_uri())
    assert found["problems"] == []
    assert found["again"] == "3"
    saved = tmp_path / "ada.answers.jsonl"
    saved.write_text(found["kept"], "utf-8")
    assert list(read_answers(made, [saved]).frame["choice"]) == ["left", "right", "tie", "left"]


HOST = """({ code, given }) => {
  globalThis.gradlabRating = new Function(`${code}; return gradlabRating;`)();
  const listeners = {};
  globalThis.model = {
    data: { given, lines: [], file: "ada.answers.jsonl" }, asked: [],
    get: (name) => model.data[name], set: () => {}, save_changes: () => {},
    send: (question) => model.asked.push(question),
    on: (event, listener) => (listeners[event] ??= []).push(listener), off: () => {},
    tell: (event, ...all) => listeners[event].forEach((listener) => listener(...all)),
  };
  const cell = document.body.appendChild(document.createElement("input"));
  gradlabRating.render({ model, el: document.body.appendChild(document.createElement("div")) });
  cell.focus();
}"""


def test_a_rating_in_a_notebook_waits_for_python_in_words_and_leaves_other_cells_alone(made, chromium):
    context = chromium.new_context()
    page = context.new_page()
    page.goto("about:blank")
    page.clock.install()
    given = {"code": (WEB / "rating.js").read_text("utf-8"), "given": blind_list(made, "ada")}
    page.evaluate(HOST, given)
    form = Form(page)
    form.root.get_by_role("checkbox").check()
    form.click("Begin")
    form.key("ArrowLeft", "ArrowLeft")
    form.said("The last answer is still being kept; this one does not count.")
    (question,) = page.evaluate("model.asked")
    page.clock.fast_forward(21_000)
    form.said("The kernel has not answered for 20 seconds")
    page.locator("body > input").focus()
    page.evaluate(
        """({ lines, number }) => {
          model.tell("msg:custom", { to: number });
          model.data.lines = lines;
          model.tell("change:lines");
        }""",
        question,
    )
    form.done(1)
    page.keyboard.type("x")
    assert page.locator("body > input").input_value() == "x"
    assert page.evaluate("document.querySelector('.gl-trouble').textContent") == ""
    context.close()


@pytest.fixture
def notebook(made, tmp_path, chromium):
    """A notebook in JupyterLab whose one cell shows a rating, once it has run."""
    import nbformat

    made.write(tmp_path / "study.json")
    code = 'import gradlab as gl\nrating = gl.widgets.StudyRating("study.json", "ada")\nrating'
    kernel = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}}
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "rate.ipynb")
    home = tmp_path / "home"
    home.mkdir()
    with chrome.lab(tmp_path, home) as address:
        page = chrome.Page(chromium, address, "rate.ipynb")
        page.run_all()
        yield page
        page.close()


def test_the_same_items_are_rated_in_jupyterlab(made, notebook, tmp_path):
    number, form = len(assign(made)["ada"]), Form(notebook.page)
    form.root.wait_for()
    form.begin()
    form.rate(0, 5)
    form.key("Backspace", "d", "d", "x")  # JupyterLab would delete the cell
    form.done(4)
    form.rate(4, 9)
    form.skip(10)
    assert notebook.page.locator(".jp-CodeCell").count() == 1
    notebook.run_all()
    form = Form(notebook.page)
    form.done(10)
    form.begin("Go on")
    form.rate(10, number)
    form.root.get_by_role("heading", name="Thank you!").wait_for()
    frame = read_answers(made, [tmp_path / "ada.answers.jsonl"]).frame.sort_values("place")
    expected = choices(number)
    expected[9] = "skip"
    assert list(frame["choice"]) == expected
    notebook.do("rating.undo()")  # Python and the page go on from each other
    form.done(number - 1)
    assert notebook.do("print(rating.done)").strip() == str(number - 1)
    notebook.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    form.said("The kernel is gone: run the cell again.")
    assert notebook.problems == []
