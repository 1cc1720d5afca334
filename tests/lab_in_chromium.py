"""The lab's page in Chromium, as tests handle it."""

import numpy as np
from web_page import note_problems

UNTIL = """new Promise((done, fail) => {
  const end = performance.now() + %d;
  const look = () => {
    const found = %s;
    if (found) done(found);
    else if (performance.now() > end) fail(new Error("in vain: " + %r));
    else requestAnimationFrame(look);
  };
  look();
})"""
PICTURE = """(async () => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // what waits for a frame, and sizes
  const all = (names) => [...document.querySelectorAll(`section:not([hidden]) :is(${names})`)];
  const drawn = all("canvas").map((one) => one.toDataURL());
  return [...all(".gl-plot, .gl-table, .gl-at").map((one) => one.innerHTML), ...drawn].join("\\n");
})()"""


class Lab:
    """The explorer that the page shows. Its policy forbids what Playwright's ``wait_for_function`` does."""

    def __init__(self, page):
        self.page = page

    @property
    def stage(self):
        return self.page.locator("section:not([hidden])")

    def ask(self, expression):
        """Evaluate with the explorer's shell as ``shell`` and its view as ``view``; a promise is awaited."""
        return self.page.evaluate(
            f"""(() => {{
              const shell = Object.values(globalThis.gradlabLab?.shells ?? {{}}).find((one) => !one.element.hidden);
              const view = shell?.view;
              return {expression};
            }})()"""
        )

    def until(self, expression, *, seconds=60):
        """Wait until an expression holds; return what it then is."""
        return self.ask(UNTIL % (1000 * seconds, expression, expression))

    def begun(self):
        self.page.locator(".gl-explorer").first.wait_for()
        self.until("shell")
        self.settled()

    def settled(self):
        self.until("shell.element.ariaBusy === 'false'")

    def state(self, name=None):
        state = self.ask("shell.history.state")
        return state if name is None else state[name]

    def set(self, **changes):
        self.page.evaluate(
            """changes => Object.values(gradlabLab.shells).find((one) => !one.element.hidden).history.set(changes)""",
            changes,
        )
        self.settled()

    def press(self, button):
        self.stage.get_by_role("button", name=button, exact=True).click()
        self.settled()

    def numbers(self):
        return self.ask("view.numbers()")

    def policies(self, slot="a"):
        """π of a loss at its last step, (prompts, responses)."""
        world = self.ask("[view.ground.world.prompts, view.ground.world.responses]")
        return np.exp(self.ask(f"view.policies().{slot}")).reshape(world)

    def unfold(self, title):
        self.stage.get_by_text(title, exact=True).click()

    def notice(self):
        return self.stage.locator(".gl-notice").inner_text()

    def trouble(self):
        """What is said of why there is nothing new to see."""
        return " ".join(self.stage.locator(".gl-trouble").all_inner_texts()).strip()

    def picture(self):
        """All that is drawn: text, vectors, and the pixels of maps."""
        self.settled()
        return self.ask(PICTURE)

    def canvas(self, number=0):
        """A function of a cell (row, column) to its middle in pixels of the page, on a map of the present world."""
        box = self.stage.locator(".gl-pictures canvas").nth(2 * number).bounding_box()
        rows, columns = self.ask("[view.ground.world.prompts, view.ground.world.responses]")
        return lambda row, column: (
            box["x"] + (column + 0.5) * box["width"] / columns,
            box["y"] + (row + 0.5) * box["height"] / rows,
        )

    def drag(self, start, *stops):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        for stop in stops:
            self.page.mouse.move(*stop, steps=4)
        self.page.mouse.up()


def opener(file, chromium, pages, problems):
    """Return a function that opens the page of ``file``, lists it in ``pages`` and what goes wrong in ``problems``."""

    def open_page(fragment="", width=1280, height=800, script=None, **more):
        one = chromium.new_context(viewport={"width": width, "height": height}, **more).new_page()
        pages.append(one)
        if script:
            one.add_init_script(script)
        note_problems(one, problems)
        one.goto(file.as_uri() + fragment)
        lab = Lab(one)
        if not script:
            lab.begun()
        return lab

    return open_page
