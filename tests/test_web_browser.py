"""Pictures drawn in the page, in a real Chromium, from a file without a server: pointer, keyboard, themes, sizes.

The same page in a stock Firefox, too. Skipped, with the reason, where there is no Chromium, or no Firefox.
"""

import struct

import pytest
from node import in_firefox, needs_firefox, needs_node, needs_packages
from web_page import STEPS, note_problems, write_page

from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, BalancedDPO

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_page(file)
    return file.as_uri()


@pytest.fixture
def opened(address, chromium):
    """A function that opens the page; at the end it must have met no error and asked for nothing from outside."""
    pages, problems = [], []

    def open_page(width=1280, height=900, **more):
        page = chromium.new_context(viewport={"width": width, "height": height}, **more).new_page()
        note_problems(page, problems)
        page.goto(address)
        page.wait_for_function("document.body.dataset.ready === 'yes'")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.context.close()
    assert problems == []


def reading(page, plot):
    return page.locator(".gl-plot").nth(plot).locator("output").inner_text()


def over_cell(page, plot, row, column):
    """The middle of a cell of a map, in pixels of the page."""
    box = page.locator(".gl-plot").nth(plot).locator("canvas").first.bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / 20, box["y"] + (row + 0.5) * box["height"] / 20


def test_the_pointer_reads_a_cell_in_both_maps_and_a_click_chooses_it(opened):
    page = opened()
    page.mouse.move(*over_cell(page, 1, 7, 6))
    value = page.evaluate("lab.reading.spelt(Math.exp(trained.DPO.at(-1)[7 * 20 + 6]))")
    assert reading(page, 1) == f"prompt 7, response 6: π {value}" + ", in no pair" * (
        not page.evaluate("world.observed[146]")
    )
    assert reading(page, 2).startswith("prompt 7, response 6: π ")
    assert reading(page, 2) != reading(page, 1)
    page.mouse.click(*over_cell(page, 1, 19, 0))
    assert page.evaluate("chosen") == [[19, 0]]
    page.mouse.move(2, 2)
    assert reading(page, 1) == reading(page, 2) == ""


def test_the_keyboard_does_all_that_the_pointer_does(opened):
    page = opened()
    page.locator(".gl-plot").nth(1).focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "End", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert reading(page, 1).startswith("prompt 1, response 18: π ")
    assert reading(page, 2).startswith("prompt 1, response 18: π ")
    assert page.evaluate("chosen") == [[1, 18]]
    page.keyboard.press("Escape")
    assert reading(page, 1) == ""
    page.locator(".gl-plot").nth(0).focus()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert reading(page, 0).startswith(f"step {STEPS[2]}: DPO 1.")


def test_curves_say_the_values_of_the_nearest_step(opened):
    page = opened()
    place = page.evaluate("(() => { const box = curves.element.querySelector('.gl-axis-x').getBoundingClientRect();"
                          "return [box.left + curves.x(195) - curves.x(0), box.top - 60]; })()")  # fmt: skip
    page.mouse.move(*place)
    utility = "lab.reading.spelt(lab.metricsOf([trained.{}[8]], world)[0].utility)"
    both = [page.evaluate(utility.format(name)) for name in ("DPO", "bDPO")]
    assert reading(page, 0) == f"step 200: DPO {both[0]}, bDPO {both[1]}"


def test_a_point_is_dragged_by_mouse_touch_and_keyboard(opened):
    page = opened(has_touch=True)
    handle = page.locator(".gl-handle")
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 30, y + 20, steps=4)
    page.mouse.up()
    after = page.evaluate("handle.at")
    assert after[0] < 100
    assert after[1] < 2
    page.mouse.move(x - 30, y + 20)
    page.mouse.down()
    page.mouse.move(x, y, steps=4)
    page.mouse.up()
    assert page.evaluate("handle.at") == pytest.approx([100, 2], rel=1e-6)  # there and back
    handle.focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("handle.at[1]") > 2
    assert handle.get_attribute("aria-valuetext").startswith("step 100, E[u], nats 2.0")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(-500, 5000, steps=3)
    page.mouse.up()
    assert page.evaluate("handle.at") == [0, 0]  # kept inside the axes
    session = page.context.new_cdp_session(page)
    box = handle.bounding_box()
    at = {"x": box["x"] + box["width"] / 2 + 11, "y": box["y"] + box["height"] / 2 - 5}  # as a finger misses it
    for kind, points in (
        ("touchStart", [at]),
        ("touchMove", [{"x": at["x"] + 80, "y": at["y"] - 60}]),
        ("touchEnd", []),
    ):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert page.evaluate("handle.at[0] > 0 && handle.at[1] > 0")


@pytest.mark.parametrize("width", [360, 390, 1280, 1920])
def test_it_fits_any_width_without_a_scroll_bar(opened, width):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for plot in range(3):
        svg = page.locator(".gl-plot").nth(plot).locator("svg")
        parent = page.locator(".gl-plot").nth(plot).bounding_box()["width"]
        assert parent - 1 <= svg.bounding_box()["width"] <= parent
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function("document.documentElement.scrollWidth <= 700")


def test_a_map_has_one_pixel_per_cell_and_is_not_blurred_at_any_ratio(opened):
    page = opened(device_scale_factor=2)
    canvas = page.locator(".gl-plot").nth(1).locator("canvas").first
    assert canvas.evaluate("one => [one.width, one.height]") == [20, 20]
    assert canvas.evaluate("one => getComputedStyle(one).imageRendering") == "pixelated"


def luminance(color):
    red, green, blue = (float(part) for part in color.strip("rgb()").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_in_both_themes_and_jupyterlabs_colours_win(opened, scheme):
    page = opened(color_scheme=scheme)
    ground = luminance(page.evaluate("getComputedStyle(curves.element).backgroundColor"))
    assert (ground < 0.2) == (scheme == "dark")
    text = page.evaluate("getComputedStyle(curves.element.querySelector('text')).fill")
    assert abs(luminance(text) - ground) > 0.6
    exported = page.evaluate("curves.svgText()")
    assert "color-mix" not in exported
    assert "color(" not in exported
    page.evaluate("document.body.style.setProperty('--jp-ui-font-color1', 'rgb(1, 2, 3)')")
    assert page.evaluate("getComputedStyle(curves.element.querySelector('text')).fill") == "rgb(1, 2, 3)"


def test_pictures_are_saved_as_they_are_seen(opened):
    page = opened()
    for plot in ("curves", "maps[0]"):
        text = page.evaluate(f"{plot}.svgText()")
        kinds = page.evaluate(
            """text => {
              const made = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
              return [made.nodeName, made.querySelector("title").textContent, made.querySelectorAll("image").length,
                      made.querySelectorAll("path").length > 1];
            }""",
            text,
        )
        title = "Expected utility" if plot == "curves" else "π of DPO"
        assert kinds == ["svg", title, 0 if plot == "curves" else 2, True]
        png = bytes(page.evaluate(f"{plot}.png(3).then(async one => [...new Uint8Array(await one.arrayBuffer())])"))
        width = page.evaluate(f"{plot}.element.querySelector('svg').width.baseVal.value")
        assert struct.unpack(">II", png[16:24]) == (3 * width, 3 * 260)


def test_a_reader_who_cannot_see_it_is_told(opened):
    page = opened()
    assert page.get_by_role("img", name="Expected utility of both policies over training").count() == 1
    assert page.get_by_role("slider", name="the point").count() == 1
    assert page.get_by_role("figure", name="π of bDPO").locator("output").count() == 1  # a live region


def test_many_moves_leave_nothing_behind_and_a_removed_picture_is_gone(opened):
    page = opened()
    count = "document.querySelectorAll('*').length"
    page.mouse.move(*over_cell(page, 1, 0, 0))
    before = page.evaluate(count)
    page.evaluate(
        """() => {
          for (let move = 0; move < 2000; move++) {
            maps[0].show(trained.DPO[move % 10].map(Math.exp));
            maps[0].mark([move % 20, 3]);
            handle.move([move % 500, 1]);
          }
          maps[0].show(trained.DPO.at(-1).map(Math.exp), world.observed.map((seen) => 1 - seen));
        }"""
    )
    assert page.evaluate(count) == before
    page.evaluate("[curves, ...maps].forEach((plot) => plot.remove())")
    assert page.locator(".gl-plot").count() == 0


def test_2000_moves_leave_no_memory_element_listener_address_or_worker_behind(charts):
    page = charts()
    page.evaluate(
        """() => {
          globalThis.kept = 0;
          const [make, revoke, Before] = [URL.createObjectURL, URL.revokeObjectURL, Worker];
          URL.createObjectURL = (blob) => (kept++, make.call(URL, blob));
          URL.revokeObjectURL = (url) => (kept--, revoke.call(URL, url));
          globalThis.Worker = class extends Before {
            constructor(url) { super(url); kept++; }
            terminate() { super.terminate(); kept--; }
          };
          const moved = [];
          const handle = (at) => ({ name: "the case", color: "#01665E", at, move: (place) => moved.push(place) });
          const wave = (move) => across.map((one) => Math.sin(one + move));
          globalThis.moves = async (count) => {
            const pool = new lab.Pool(2);
            for (let move = 0; move < count; move++) {
              weight.frameTo([-10, 10], [-1.2, 1.6 + (move % 3)]);
              weight.show([{ name: "w", color: "#4B3FA7", x: across, y: wave(move), marker: "dot" }], [handle([0, 1])],
                { labels: [{ x: 1, y: 1, text: String(move % 9) }] });
              draws.mark((move % 20) / 10 - 1);
              map.show(values.map((value) => value + (move % 7) / 7), undefined, { handles: [handle([move % 12, 2])] });
              map.mark([move % 17, move % 25]);
              if (move % 50 === 0) await pool.train({ ...job("DPO"), wanted: [0, 20] });
            }
            draws.mark(null);
            map.mark(null);
            pool.close();
          };
        }"""
    )
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def held():
        session.send("HeapProfiler.collectGarbage")
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return [found["Nodes"], found["JSEventListeners"], page.evaluate("kept"), found["JSHeapUsedSize"]]

    page.evaluate("moves(100)")
    *before, memory = held()
    page.evaluate("moves(2000)")
    *after, memory_after = held()
    assert after[0] - before[0] < 50  # ticks of axes come and go
    assert after[1:] == before[1:]
    assert memory_after - memory < 1e6  # bytes


POOLS = {
    "workers": "new lab.Pool(2)",
    "no workers": "(() => { globalThis.Worker = undefined; return new lab.Pool(2); })()",
    "workers that do not start": "(() => { const Before = Worker; globalThis.Worker = class extends Before {"
    " constructor() { super('data:text/javascript,throw 1'); } }; return new lab.Pool(2); })()",
}


@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_a_pool_trains_as_the_page_does_and_stops_what_nobody_wants(opened, pool):
    page = opened()
    answer = page.evaluate(
        f"""async () => {{
          const pool = {pool};
          const name = (error) => error.name + ": " + error.message;
          const both = await Promise.all(["DPO", "bDPO"].map((name) => pool.train(job(name))));
          const equal = (name, logp) =>
            trained[name].flatMap((one) => [...one]).every((value, at) => value === logp[at]);
          const alone = await pool.train(job("bDPO")); // its columns are shared out
          const same = equal("DPO", both[0]) && equal("bDPO", both[1]) && equal("bDPO", alone);
          const stops = Array.from({{ length: 6 }}, () => new AbortController());
          const waiting = stops.map(({{ signal }}) => pool.train(job("DPO"), signal).then(() => "trained", name));
          stops.slice(1).forEach((one) => one.abort());
          const long = new AbortController();
          const columns = job("bDPO").columns;
          const many = {{ ...columns, count: 4000 }};
          for (const part of ["weights", "reference", "start"]) {{
            const once = columns[part];
            many[part] = new Float64Array(200 * once.length).map((_, at) => once[at % once.length]);
          }}
          const running = pool.train({{ ...job("bDPO"), columns: many }}, long.signal).then(() => "trained", name);
          await Promise.all(waiting);
          long.abort(); // a worker has begun it, for the others are over
          const stopped = await running;
          const bad = await pool.train({{ ...job("DPO"), wanted: [] }}).catch(name);
          const after = await pool.train(job("DPO"));
          const last = pool.train(job("DPO")).catch(name);
          pool.close();
          return [same, await Promise.all(waiting), stopped, bad, after.length];
        }}"""
    )
    aborted = "AbortError: the training was stopped"
    same, waiting, stopped, bad, length = answer
    assert same
    assert waiting[0] == "trained"
    assert waiting[2:] == [aborted] * 4
    assert stopped == aborted
    assert bad == "Error: wanted must be whole steps that rise, got "
    assert length == len(STEPS) * 400


@pytest.mark.parametrize("pointer", ["mouse", "touch"])
def test_a_stroke_paints_every_cell_that_it_passes(opened, pointer):
    page = opened(has_touch=True)
    page.evaluate(
        "() => { globalThis.painted = []; maps[0].painting = true; maps[0].onpaint = (cell) => painted.push(cell); }"
    )
    (x, y), (end_x, end_y) = over_cell(page, 1, 4, 3), over_cell(page, 1, 4, 8)
    if pointer == "mouse":
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(end_x, end_y)  # in one jump
        page.mouse.up()
        page.mouse.move(x, y)
    else:
        session = page.context.new_cdp_session(page)
        for kind, points in (("Start", [(x, y)]), ("Move", [(end_x, end_y)]), ("End", [])):
            places = [{"x": at_x, "y": at_y} for at_x, at_y in points]
            session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})
    assert page.evaluate("painted") == [*([4, column] for column in range(3, 9)), None]
    assert page.evaluate("chosen") == []
    page.evaluate("maps[0].painting = false")
    page.mouse.click(x, y)
    assert page.evaluate("chosen") == [[4, 3]]
    assert page.evaluate("painted.length") == 7


def test_a_slider_is_dragged_typed_and_moved_by_keys_and_comes_back(opened):
    page = opened(390)
    page.evaluate(
        """() => {
          globalThis.moves = [];
          const options = { label: "π_w", low: 0.001, high: 0.999, scale: "logit" };
          globalThis.slider = new lab.Slider(document.querySelector("main"), options, 0.5);
          slider.onmove = (value, settled) => moves.push([value, settled]);
        }"""
    )
    track, field = page.get_by_role("slider", name="π_w", exact=True), page.get_by_role("textbox", name="π_w, typed")
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    assert box["width"] > 350
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 40, middle[1], steps=5)
    assert page.evaluate("slider.value") == 0.999
    page.mouse.move(*middle, steps=5)
    page.mouse.up()
    assert page.evaluate("slider.value") == pytest.approx(0.5, abs=0.02)
    assert page.evaluate("moves.at(-1)[1]")  # the drag has settled
    field.fill("0,123456")
    field.press("Enter")
    assert page.evaluate("moves.at(-1)") == [0.123456, True]
    assert track.get_attribute("aria-valuetext") == "0.1235"
    track.press("ArrowRight")
    assert 0.1235 < page.evaluate("slider.value") < 0.13
    before = page.evaluate("slider.value")
    field.fill("1.5")
    field.press("Enter")
    assert page.locator(".gl-slider output").inner_text() == 'π_w must be a number from 0.001 to 0.999, got "1.5"'
    assert page.evaluate("slider.value") == before
    page.evaluate("""() => {
      const options = { label: "steps", low: 1, high: 500, scale: "log", whole: true };
      globalThis.whole = new lab.Slider(document.querySelector("main"), options, 1);
    }""")
    for key, value in (("ArrowRight", 2), ("ArrowUp", 3), ("ArrowLeft", 2), ("ArrowLeft", 1), ("ArrowLeft", 1)):
        page.get_by_role("slider", name="steps").press(key)
        assert page.evaluate("whole.value") == value
    page.get_by_role("textbox", name="steps, typed").fill("1,000")  # a thousand to some, one to others
    page.get_by_role("textbox", name="steps, typed").press("Enter")
    assert page.locator(".gl-slider output").last.inner_text().endswith('got "1,000"')


@needs_node
@needs_packages
@needs_firefox
def test_a_stock_firefox_trains_draws_and_reads(address):
    told = in_firefox("firefox.mjs", address)
    assert told["problems"] == []
    assert told["pool"]
    world = gaussian_world(mask_rate=0.2)
    for there, loss in zip(told["utility"], (DPO(), BalancedDPO()), strict=True):
        assert there == pytest.approx(fit(world, loss, dtype="float32").history["utility"].iloc[-1], abs=1e-4)
    assert [one.partition(":")[0] for one in told["readings"]] == ["", *["prompt 7, response 6"] * 2]
    assert [one.partition(":")[0] for one in told["typed"]] == ["", *["prompt 9, response 6"] * 2]


CHARTS = """() => {
  document.querySelector("main").replaceChildren();
  const stage = document.querySelector("main");
  const x = Array.from({ length: 41 }, (_, at) => at / 2 - 10);
  const weight = new lab.CurvePlot(stage, {
    title: "Weight", description: "A weight and its extrema", height: 260,
    x: { label: "y", domain: [-10, 10] }, y: { label: "w", domain: [-1.2, 1.6] },
  });
  weight.show(
    [
      { name: "w", color: "#4B3FA7", x, y: x.map((at) => Math.sin(at / 2)), marker: "dot", size: 2 },
      { name: "limit", color: "#444444", dash: "1 3", x, y: x.map((at) => 0.9 * Math.sin(at / 2.2)) },
      { name: "minima", color: "#4B3FA7", x: [-3, 9.4], y: [-1, -1], marker: "triangle-down", line: false, size: 6 },
      { name: "maxima", color: "#4B3FA7", x: [3, -9.4], y: [1, 1], marker: "triangle-up", line: false, size: 6,
        filled: [true, false] },
    ],
    [],
    {
      bands: [{ from: -4, to: 4, label: "[μ_p, μ_q]" }],
      rules: [{ y: 0 }, { x: 6, label: "β", dash: "4 2" }, { y: 99 }],
      labels: [{ x: 3, y: 1, text: "highest", color: "#01665E" }, { x: 77, y: 1, text: "nowhere" }],
    },
  );
  const draws = new lab.CurvePlot(stage, {
    title: "Draws", description: "Draws for which a theorem holds, and others", height: 260,
    x: { label: "log ratio", domain: [-1, 1] }, y: { label: "seed", domain: [-1, 20] },
  });
  const seeds = Array.from({ length: 20 }, (_, at) => at);
  const part = (name, color, marker, holds) => {
    const some = seeds.filter((at) => Math.sin(7 * at) < 0 === holds);
    return { name, color, marker, line: false, x: some.map((at) => Math.sin(7 * at)), y: some };
  };
  draws.show(
    [part("hold", "#01665E", "dot", true), part("fail", "#8C510A", "cross", false),
     { name: "this draw", color: "#444444", marker: "ring", line: false, size: 9, x: [Math.sin(21)], y: [3] },
     { name: "", color: "#C2418B", marker: "diamond", line: false, faint: true, x: [0.5], y: [10] }],
    [], { rules: [{ x: 0 }] },
  );
  const across = Array.from({ length: 25 }, (_, at) => at / 2);
  const up = Array.from({ length: 17 }, (_, at) => 0.375 * 2 ** (at * 5 / 16));
  const value = (one, two) => Math.log10(two) + (one - 6) / 8;
  const map = new lab.HeatMap(stage, {
    title: "Ratio", description: "Where a theorem holds", rows: 17, columns: 25, height: 260, quantity: "log ratio",
    colors: "signed", reversed: true, ends: [-1, 1], smooth: true, ring: [3, 2],
    x: { label: "distance", values: across }, y: { label: "σ_p", values: up, kind: "log" },
    levels: [{ value: 0, color: "#000000", label: "equal" }],
  });
  const values = up.flatMap((two) => across.map((one) => value(one, two)));
  map.show(values, undefined, { ghost: [8, 6] });
  globalThis.picked = [];
  map.onpick = (...at) => picked.push(at);
  draws.onpick = (curve, at) => picked.push([curve.name, at]);
  Object.assign(globalThis, { weight, draws, map, across, up, values });
}"""


@pytest.fixture
def charts(opened):
    def open_charts(*sizes, **more):
        page = opened(*sizes, **more)
        page.evaluate(CHARTS)
        page.wait_for_function("map.width > 0")
        return page

    return open_charts


def inside(page, plot, x, y):
    """The place of a point of a plot's axes, in pixels of the page."""
    return page.evaluate(
        "([name, x, y]) => { const plot = globalThis[name];"
        "const box = plot.element.querySelector('svg').getBoundingClientRect();"
        "return [box.left + plot.margin.left + plot.x(x), box.top + plot.margin.top + plot.y(y)]; }",
        [plot, x, y],
    )


def test_marks_bands_rules_and_labels_stand_where_they_belong(charts):
    page = charts()
    counts = {".gl-lines path": 2, ".gl-points path": 4, ".gl-spans rect": 1, ".gl-rules path": 2, ".gl-words text": 3}
    for look, count in counts.items():
        assert page.locator(".gl-plot").nth(0).locator(look).count() == count, look
    assert page.locator(".gl-plot").nth(0).locator(".gl-hollow").count() == 1  # one maximum of two
    band = page.locator(".gl-spans rect").bounding_box()
    assert [band["x"], band["x"] + band["width"]] == pytest.approx(
        [inside(page, "weight", -4, 0)[0], inside(page, "weight", 4, 0)[0]], abs=0.5
    )
    words = page.locator(".gl-plot").nth(0).locator(".gl-words").text_content()
    assert "highest" in words
    assert "nowhere" not in words
    legend = page.locator(".gl-plot").nth(1).locator(".gl-legend text").all_text_contents()
    assert legend == ["hold", "fail", "this draw"]


def test_a_mark_is_read_by_pointer_and_keys_and_picked(charts):
    page = charts()
    page.mouse.move(*(part + 5 for part in inside(page, "draws", page.evaluate("Math.sin(35)"), 5)))
    assert reading(page, 1) == f"hold: log ratio {page.evaluate('lab.reading.spelt(Math.sin(35))')}, seed 5"
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(*inside(page, "draws", 0.03, -0.9))
    assert page.evaluate("picked.length") == 1
    name, at = page.evaluate("picked[0]")
    assert name == "hold"
    assert page.evaluate("at => seeds = Array.from({ length: 20 }, (_, n) => n).filter((n) => Math.sin(7 * n) < 0)[at]",
                         at) == 5  # fmt: skip
    page.locator(".gl-plot").nth(1).focus()
    page.keyboard.press("Home")
    first = reading(page, 1)
    page.keyboard.press("ArrowRight")
    assert reading(page, 1) != first
    page.keyboard.press("Enter")
    assert page.evaluate("picked.length") == 2
    page.keyboard.press("Escape")
    assert reading(page, 1) == ""


def test_a_map_with_numeric_axes_reads_picks_and_draws_a_line_where_values_are_equal(charts):
    page = charts()
    assert page.evaluate("[map.x.domain(), map.y.domain().map(Math.log2)]") == [
        pytest.approx([-0.25, 12.25]),
        pytest.approx([-1.4150 - 5 / 32, 3.5850 + 5 / 32], abs=1e-3),
    ]
    ticks = page.locator(".gl-plot").nth(2).locator(".gl-axis-y .tick text").all_text_contents()
    assert ticks == ["0.5", "1", "2", "5", "10"]
    page.mouse.move(*inside(page, "map", 3.1, 0.375))
    value = page.evaluate("lab.reading.spelt(values[6])")
    assert reading(page, 2) == f"distance 3, σ_p 0.375: log ratio {value}"
    page.mouse.click(*inside(page, "map", 4.2, 2.5))
    assert page.evaluate("picked[0]") == pytest.approx([4.2, 2.5], rel=0.02)
    page.locator(".gl-plot").nth(2).focus()
    page.keyboard.press("Escape")
    for key in ("ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert page.evaluate("picked[1]") == pytest.approx([0, page.evaluate("up[1]")])
    places = page.evaluate(
        """() => {
          const line = document.querySelector(".gl-contour");
          const total = line.getTotalLength();
          return Array.from({ length: 9 }, (_, at) => {
            const { x, y } = line.getPointAtLength((total * (at + 0.5)) / 9);
            return Math.log10(map.y.invert(y)) + (map.x.invert(x) - 6) / 8;
          });
        }"""
    )
    assert places == pytest.approx([0] * 9, abs=0.01)
    left = page.evaluate("[...map.canvas.getContext('2d').getImageData(0, 0, 1, 17).data]")  # distance 0
    red, _, blue, _ = left[-4:]  # the least σ_p and the lowest value: teal, since colours are reversed
    assert blue > red
    red, _, blue, _ = left[:4]
    assert blue < red
    exported = page.evaluate("map.svgText()")
    assert "equal" in exported
    with pytest.raises(Exception, match="distance must rise evenly"):
        page.evaluate("new lab.HeatMap(document.body, { title: '', description: '', rows: 2, columns: 3, quantity: '',"
                      "colors: 'signed', ends: [-1, 1], x: { label: 'distance', values: [0, 1, 3] },"
                      "y: { label: 'σ', values: [0, 1] } })")  # fmt: skip


def test_a_tap_reads_and_stays_until_the_next_and_a_finger_that_drags_a_point_does_not_scroll(charts):
    page = charts(390, 500, has_touch=True)
    page.touchscreen.tap(*inside(page, "weight", 0.1, 0.3))
    assert reading(page, 0).startswith("y 0: w 0, limit 0")
    page.evaluate("document.querySelectorAll('.gl-plot')[2].scrollIntoView({ block: 'center' })")
    page.touchscreen.tap(*inside(page, "map", 6, 1))
    assert reading(page, 2).startswith("distance 6, σ_p ")
    assert reading(page, 0) == ""
    page.evaluate("""() => {
      globalThis.moved = [];
      map.show(values, undefined, { handles: [
        { name: "the case", color: "#01665E", at: [6, 2], move: (at) => moved.push(at) },
      ] });
    }""")
    before = page.evaluate("scrollY")
    x, y = inside(page, "map", 6, 2)
    session = page.context.new_cdp_session(page)
    for kind, points in (("Start", [(x, y)]), ("Move", [(x, y - 30)]), ("Move", [(x, y - 60)]), ("End", [])):
        places = [{"x": at_x, "y": at_y} for at_x, at_y in points]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})
    assert page.evaluate("scrollY") == before
    assert page.evaluate("moved.at(-1)[1]") > 3
