"""Charts as data are drawn as one figure: what stands where, gaps, scales, and nothing global."""

import io
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color, to_hex
from matplotlib.quiver import Quiver
from matplotlib.text import Text
from node import needs_node, with_bundle

from gradlab.plotting.chart_figure import drawn
from gradlab.plotting.chart_scales import share, spelt, ticks
from gradlab.plotting.charts import (
    Arrows,
    Axis,
    Band,
    Bar,
    Bars,
    Curve,
    Curves,
    Handle,
    Label,
    Level,
    Map,
    Picture,
    Rule,
    uneven,
)
from gradlab.plotting.palette import MORE_OF_B
from gradlab.plotting.symbols import typeset

UNIT = Axis("x", 0, 1), Axis("y", 0, 1)


def curves(*shown, x=UNIT[0], y=UNIT[1], **more):
    return Curves("Title", "described", x, y, shown, **more)


def line(name="a", x=(0.0, 0.5, 1.0), y=(0.0, 0.5, 1.0), color="#4B3FA7", **more):
    return Curve(name, np.array(x), np.array(y), color, **more)


def a_map(values, columns=None, rows=None, x=None, y=None, **more):
    count = np.shape(values)
    columns = np.arange(count[1]) if columns is None else columns
    rows = np.arange(count[0]) if rows is None else rows
    x = x or Axis("response", -0.5, count[1] - 0.5)
    y = y or Axis("prompt", count[0] - 0.5, -0.5)
    return Map("Map", "described", x, y, columns, rows, np.array(values, float), "π", 0, 1, **more)


def texts(figure):
    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def named(axes, label):
    return next(one for one in axes.lines if one.get_label() == label)


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def color_at(figure, axes, x, y):
    """The colour of the pixel at (x, y) in units of the axes."""
    image = pixels(figure)
    across, up = axes.transData.transform((x, y))
    return to_hex(image[len(image) - 1 - int(up), int(across)][:3] / 255)


def test_a_curve_has_its_points_its_look_and_its_gaps():
    axes = drawn([curves(line(y=(0.0, np.nan, 1.0), dash="dashed", low=np.zeros(3), high=np.ones(3)))]).axes[0]
    shown = named(axes, "a")
    np.testing.assert_array_equal(shown.get_xdata(), (0, 0.5, 1))
    np.testing.assert_array_equal(shown.get_ydata(), (0, np.nan, 1))
    assert same_color(shown.get_color(), "#4B3FA7")
    assert shown.get_linestyle() == "--"
    assert len(axes.collections) == 1  # the band
    assert axes.get_xlabel() == "x"
    assert axes.get_ylabel() == "y"


@pytest.mark.parametrize(
    ("marker", "filled", "symbol", "hollow"),
    [("dot", True, "o", False), ("dot", False, "o", True), ("ring", True, "o", True), ("cross", True, "x", False),
     ("triangle-up", False, "^", True), ("triangle-down", True, "v", False), ("diamond", True, "D", False)],
)  # fmt: skip
def test_points_have_their_markers_and_no_line(marker, filled, symbol, hollow):
    shown = named(drawn([curves(line(marker=marker, line=False, filled=filled))]).axes[0], "a")
    assert shown.get_marker() == symbol
    assert shown.get_linestyle() == "None"
    assert same_color(shown.get_markerfacecolor(), "white") == hollow


def test_a_point_alone_is_seen():
    one = line("one", (0.5,), (0.5,))
    between_gaps = line("between", (0.0, 0.25, 0.5), (np.nan, 0.25, np.nan))
    figure = drawn([curves(one, between_gaps)])
    assert color_at(figure, figure.axes[0], 0.5, 0.5) == "#4b3fa7"
    assert color_at(figure, figure.axes[0], 0.25, 0.25) == "#4b3fa7"
    assert named(figure.axes[0], "one").get_markevery() == [0]
    assert named(drawn([curves(line())]).axes[0], "a").get_marker() == "None"  # a line needs no dots


def test_curves_without_points_leave_axes_with_their_ends():
    axes = drawn([curves(line(x=(), y=())), curves()]).axes
    assert [one.get_xlim() for one in axes] == [(0, 1), (0, 1)]


def test_two_named_curves_have_a_legend_and_faint_ones_are_not_in_it():
    one, two = drawn(
        [curves(line("A"), line("was", faint=True)), curves(line("A"), line("B"), line("w", faint=True))]
    ).axes
    assert one.get_legend() is None
    assert [text.get_text() for text in two.get_legend().get_texts()] == ["A", "B"]
    faint = [shown for shown in two.lines if shown.get_alpha()]
    assert [shown.get_alpha() for shown in faint] == [0.4]


def test_an_axis_can_run_downwards():
    axes = drawn([curves(line(), x=Axis("x", 1, 0), y=Axis("y", 2, -2))]).axes[0]
    assert axes.get_xlim() == (1, 0)
    assert axes.get_ylim() == (2, -2)
    assert [one.get_text() for one in axes.get_yticklabels()] == ["−2", "−1", "0", "1", "2"]


def test_logarithmic_axes_have_powers_of_ten():
    axes = drawn([curves(line(), x=Axis("step", 0, 500, "symlog"), y=Axis("p", 1e-3, 1, "log"))]).axes[0]
    assert [one.get_text() for one in axes.get_xticklabels()] == ["0", "1", "10", "100"]
    assert [one.get_text() for one in axes.get_yticklabels()] == ["0.001", "0.01", "0.1", "1"]
    across = axes.transData.transform([(0, 1), (9, 1), (99, 1)])[:, 0]
    np.testing.assert_allclose(across[2] - across[0], 2 * (across[1] - across[0]))  # log(1 + x)


def test_bands_rules_labels_and_handles_stand_where_they_belong():
    chart = curves(
        line(), bands=[Band(0.2, 0.4, "unsure")], labels=[Label(0.1, 0.9, "π_w falls", "#C2418B")],
        rules=[Rule(x=0.3, label="here"), Rule(y=0.6, dash="dotted"), Rule(x=0.0, y=0.5, label="equal")],
        handles=[Handle("point", 0.7, 0.1, "#C2418B", shape="diamond")],
    )  # fmt: skip
    figure = drawn([chart])
    axes = figure.axes[0]
    upright, level, slope = [one for one in axes.lines if one.get_label() == "_rule"]
    assert list(upright.get_xdata()) == [0.3, 0.3]
    assert list(level.get_ydata()) == [0.6, 0.6]
    np.testing.assert_allclose(slope.get_ydata() - slope.get_xdata(), 0.5)
    assert slope.get_xdata().max() == pytest.approx(0.5, abs=0.01)  # it leaves the axes there
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((0.2, 0.4))
    handle = named(axes, "_handle")
    assert (*handle.get_xdata(), *handle.get_ydata(), handle.get_marker()) == (0.7, 0.1, "D")
    assert {"unsure", "here", "equal", typeset("π_w falls")} <= set(texts(figure))


def test_the_line_of_slope_1_follows_logarithmic_axes():
    chart = curves(x=Axis("a", 0.01, 10, "log"), y=Axis("b", 10, 0.01, "log"), rules=[Rule(x=1.0, y=1.0)])
    slope = named(drawn([chart]).axes[0], "_rule")
    np.testing.assert_allclose(slope.get_ydata(), slope.get_xdata())
    assert (slope.get_xdata()[0], slope.get_xdata()[-1]) == pytest.approx((0.01, 10))


def test_a_map_has_its_cells_where_the_axes_say():
    figure = drawn([a_map([[0, 1, np.nan], [1, 0, 0.25]], colors="moreOfB")])
    axes, bar = figure.axes
    low, middle, high = (to_hex(MORE_OF_B(value)) for value in (0.0, 0.25, 1.0))
    shown = [[color_at(figure, axes, column, row) for column in range(3)] for row in range(2)]
    assert shown == [[low, high, "#ffffff"], [high, low, middle]]
    assert bar.get_ylabel() == typeset("π")
    assert [one.get_text() for one in bar.get_yticklabels()][::5] == ["0", "1"]


def test_rows_of_a_map_rise_with_an_axis_that_rises():
    figure = drawn([a_map([[0.0], [1.0]], y=Axis("prompt", -0.5, 1.5), colors="moreOfB")])
    low, high = (to_hex(MORE_OF_B(value)) for value in (0.0, 1.0))
    assert [color_at(figure, figure.axes[0], 0, row) for row in (0, 1)] == [low, high]


def test_cells_of_a_logarithmic_axis_are_equally_wide():
    figure = drawn(
        [a_map([[0, 1, 0]], columns=np.array([0.01, 0.1, 1]), x=Axis("p", 0.01, 1, "log"), colors="moreOfB")]
    )
    low, high = (to_hex(MORE_OF_B(value)) for value in (0.0, 1.0))
    places = (0.0033, 0.031, 0.033, 0.31, 0.33, 3.0)
    assert [color_at(figure, figure.axes[0], p, 0) for p in places] == [low, low, high, high, low, low]


def test_cells_of_a_signed_logarithmic_axis_are_equally_wide_around_zero():
    columns = uneven(np.array([-2.0, 0.0, 2.0]), "symlog")  # edges at ±1 and ±3 of the ruler
    figure = drawn([a_map([[0, 1, 0]], columns=columns, x=Axis("h", -9, 9, "symlog"), colors="moreOfB")])
    low, high = (to_hex(MORE_OF_B(value)) for value in (0.0, 1.0))
    places = uneven(np.array([-2.9, -1.1, -0.9, 0.9, 1.1, 2.9]), "symlog")
    assert [color_at(figure, figure.axes[0], h, 0) for h in places] == [low, low, high, high, low, low]


def test_a_map_with_logarithmic_colours_shows_what_is_below_them_in_the_first():
    chart = Map("π", "described", Axis("response", -0.5, 2.5), Axis("prompt", -0.5, 0.5), np.arange(3), np.arange(1),
                np.array([[0.0, 1e-3, 1.0]]), "π", 1e-3, 1, logarithmic=True)  # fmt: skip
    figure = drawn([chart])
    shown = [color_at(figure, figure.axes[0], column, 0) for column in range(3)]
    assert shown[0] == shown[1] != shown[2]
    assert [one.get_text() for one in figure.axes[1].get_yticklabels()] == ["0.001", "0.01", "0.1", "1"]


def test_a_map_has_contours_a_ring_and_struck_cells():
    x = np.linspace(0, 1, 11)
    values = np.add.outer(x * 0, x)
    values[0, 0] = np.nan
    levels = [Level(0.55, "#C2418B", "equal"), Level(7, "#000000")]
    chart = a_map(values, x, x, *UNIT, levels=levels, struck=values > 0.85, ring=(0.2, 0.3))
    figure = drawn([chart])
    axes = figure.axes[0]
    contour = next(one for one in axes.lines if same_color(one.get_color(), "#C2418B"))
    np.testing.assert_allclose(contour.get_xdata()[np.isfinite(contour.get_xdata())], 0.55)
    assert "equal" in texts(figure)
    assert [(*one.get_xdata(), *one.get_ydata()) for one in axes.lines if one.get_marker() == "o"] == [(0.2, 0.3)] * 2
    strokes = [one for one in axes.lines if one.get_transform() == axes.transAxes]
    assert len(strokes[0].get_xdata()) == 3 * np.count_nonzero(values > 0.85)


@pytest.mark.parametrize("values", [[[0.5]], [[0.2, 0.4]], [[np.nan]], np.zeros((3, 3))])
def test_small_and_empty_maps_are_drawn(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels(drawn([a_map(values, levels=[Level(0.3, "#000000")], struck=np.zeros(np.shape(values)))]))


def test_arrows_point_where_they_say_with_one_length_and_a_colour_each():
    chart = Arrows("Field", "described", *UNIT, np.array([0.2, 0.5, 0.1]), np.array([0.2, 0.1, 0.1]),
                   np.array([1.0, 0.0, 0.0]), np.array([0.0, -5.0, 0.0]), ["#0F3D21", "#C77FD6", "#000000"],
                   handles=[Handle("point", 0.3, 0.3, "#C2418B")], trail=[(0.3, 0.3), (0.4, 0.2)])  # fmt: skip
    axes = drawn([chart]).axes[0]
    arrows = next(one for one in axes.collections if isinstance(one, Quiver))
    np.testing.assert_allclose(arrows.U, [1, 0])  # an arrow without length is none
    np.testing.assert_allclose(arrows.V, [0, -1])
    assert [to_hex(color) for color in arrows.get_facecolor()] == ["#0f3d21", "#c77fd6"]
    np.testing.assert_allclose(arrows.XY, [(0.2, 0.2), (0.5, 0.1)])
    assert any(list(one.get_xdata()) == [0.3, 0.4] for one in axes.lines)


def test_bars_stand_in_groups_from_the_top():
    shown = [Bar("A", np.array([1.0, -3.0]), "#4B3FA7"), Bar("B", np.array([0.5, np.nan]), "#9A7400", dashed=True)]
    chart = Bars("Gradient", "described", "∂L/∂π", ["π_w", "π_l"], shown)
    axes = drawn([chart]).axes[0]
    widths = [[bar.get_width() for bar in group] for group in axes.containers]
    np.testing.assert_array_equal(widths, [[1, -3], [0.5, np.nan]])
    assert axes.get_xlim() == (-5, 5)
    assert axes.get_ylim() == (2, 0)
    assert [one.get_text() for one in axes.get_yticklabels()] == [typeset("π_w"), typeset("π_l")]
    solid, dashed = axes.containers
    assert solid[0].get_hatch() is None
    assert dashed[0].get_hatch()
    assert [one.get_text() for one in axes.get_legend().get_texts()] == ["A", "B"]


def png_of(figure):
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def test_a_picture_keeps_its_shape():
    figure = drawn([Picture("Before", "described", png_of(drawn([curves(line())], width=6)))])
    shown = figure.axes[0].images[0].get_array()
    box = figure.axes[0].get_window_extent()
    assert box.width / box.height == pytest.approx(shown.shape[1] / shown.shape[0], rel=0.01)
    assert not figure.axes[0].axison


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_rows_fill_the_width_and_nothing_lies_over_anything_else(count):
    kinds = [curves(line("A"), line("B")), a_map(np.eye(3)), Arrows("F", "d", *UNIT, *(np.ones(1),) * 4, ["#000000"]),
             Bars("B", "d", "x", ["g"], [Bar("A", np.ones(1), "#000000")])]  # fmt: skip
    figure = drawn([kinds[at % 4] for at in range(count)])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [one.get_tightbbox(renderer) for one in figure.axes]
    boxes += [one.get_window_extent(renderer) for one in figure.texts]
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    over = [
        (a.bounds, b.bounds)
        for at, a in enumerate(boxes)
        for b in boxes[at + 1 :]
        if a.padded(-3).overlaps(b.padded(-3))
    ]
    assert not over
    assert max(box.x1 for box in boxes) > 0.93 * page.x1
    assert all(one.get_fontsize() >= 8 for one in figure.findobj(Text))


@pytest.mark.parametrize(("count", "rows"), [(3, [3]), (4, [2, 2]), (5, [3, 2]), (7, [3, 2, 2])])
def test_the_first_rows_have_the_most_charts(count, rows):
    bottoms = [round(axes.get_position().y0, 6) for axes in drawn([curves(line())] * count).axes]
    assert [bottoms.count(bottom) for bottom in dict.fromkeys(bottoms)] == rows


def test_long_titles_and_labels_are_wrapped_into_the_page():
    words = "a label of very many words that says everything about its axis and its unit, nats"
    figure = drawn([curves(line(), y=Axis(words, 0, 1)), a_map(np.eye(2)), curves(line())], width=8)
    pixels(figure)
    box = figure.axes[0].yaxis.label.get_window_extent()
    assert "\n" in figure.axes[0].get_ylabel()
    assert box.height <= figure.axes[0].bbox.height * 1.1


def test_a_dollar_sign_is_a_dollar_sign():
    chart = curves(line("a$^$b"), line("$x_$"), labels=[Label(0, 0, "$β$")], x=Axis("5 $", 0, 1))
    figure = drawn([chart, Bars("100 $ and $\\", "described", "$", ["$_$"], [Bar("$", np.zeros(1), "#000000")])])
    pixels(figure)
    assert "a\\$^\\$b" in texts(figure)


def test_drawing_changes_no_setting():
    before = dict(mpl.rcParams)
    figure = drawn([curves(line())])
    assert dict(mpl.rcParams) == before
    assert figure.get_figwidth() == 11.3


def test_equal_charts_are_equal_files():
    assert png_of(drawn([curves(line())])) == png_of(drawn([curves(line())]))


@pytest.mark.parametrize("ends", [(0, 1), (-1, 10)])
def test_a_logarithmic_axis_without_positive_ends_is_refused(ends):
    with pytest.raises(ValueError, match=r"ends of the log axis 'p' must be above 0, got \("):
        Axis("p", *ends, "log")


def test_an_axis_without_ends_is_refused():
    with pytest.raises(ValueError, match=r"ends of the axis 'p' must be two finite numbers, got \(nan, 1\)"):
        Axis("p", np.nan, 1)


def test_an_axis_without_length_is_drawn():
    pixels(drawn([curves(line(), x=Axis("x", 1, 1), y=Axis("y", 2, 2, "log"))]))


def test_a_map_whose_positions_are_not_those_of_its_values_is_refused():
    with pytest.raises(ValueError, match=r"values must be \(2, 3\), as there are rows and columns, got \(3, 2\)"):
        a_map(np.zeros((3, 2)), columns=np.arange(3), rows=np.arange(2))


@pytest.mark.parametrize(
    ("places", "axis", "words"),
    [([1, 2, 4], Axis("p", 1, 4), r"columns must rise evenly on the linear axis 'p'"),
     ([3, 2, 1], Axis("p", 1, 3), r"columns must rise evenly"),
     ([1, 2, 3], Axis("p", 1, 4, "log"), r"columns must rise evenly on the log axis"),
     ([-1, 0, 2], Axis("h", -1, 2, "symlog"), r"columns must rise evenly on the symlog axis 'h'"),
     ([1, 2, 3], Axis("p", 4, 1), r"the x axis of a map must run to the right, got 4 to 1")],
)  # fmt: skip
def test_a_map_whose_cells_have_no_place_is_refused(places, axis, words):
    with pytest.raises(ValueError, match=words):
        a_map(np.zeros((2, 3)), columns=np.array(places), x=axis)


def test_a_map_ends_at_the_edges_of_its_cells():
    axes = drawn([a_map(np.zeros((2, 3)), columns=np.array([0.01, 0.1, 1]), x=Axis("p", 0.01, 1, "log"))]).axes[0]
    assert axes.get_xlim() == pytest.approx((10**-2.5, 10**0.5))
    assert axes.get_ylim() == (1.5, -0.5)


def test_a_curve_of_other_lengths_is_refused():
    with pytest.raises(ValueError, match=r"curve 'a' must have as many y as x, got 2 and 3"):
        line(y=(0, 1))


def test_no_chart_is_refused():
    with pytest.raises(ValueError, match="at least one chart, got none"):
        drawn([])


def test_what_is_no_chart_is_refused():
    with pytest.raises(TypeError, match="got str"):
        drawn(["curves"])


# --- scales, as the page has them ---


NUMBERS = [0, 1, -0.5, 1234567, 0.001, 0.0009, 1.5e-5, -1e-3, 1e-3 - 1e-9, 100, 99999, 0.12345678, 1e-12, 2.5e21]


@needs_node
def test_numbers_are_spelt_as_in_the_page():
    assert [spelt(one) for one in NUMBERS] == with_bundle("return given.map(lab.reading.spelt)", NUMBERS)
    assert [spelt(one) for one in (np.nan, np.inf, -np.inf)] == ["no value", "∞", "−∞"]


def test_ticks_are_few_and_within_the_ends():
    assert ticks(Axis("", 0.2, 0.5, "log"), 5) == [0.2, 0.5]
    assert ticks(Axis("", 0, 1), 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(Axis("", -200, 200, "symlog"), 9) == [-100, -10, -1, 0, 1, 10, 100]
    assert len(ticks(Axis("", 1e-12, 1, "log"), 5)) <= 5


def test_shares_of_an_axis_run_from_its_low_end():
    np.testing.assert_allclose(share(np.array([4, 2, 0]), Axis("", 4, 0)), [0, 0.5, 1])
    assert share(0.1, Axis("", 0.01, 1, "log")) == pytest.approx(0.5)
