"""The committed figures can be read where GitHub shows them, and each meaning has one palette."""

import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from gradlab import plotting
from gradlab.experiments import EXPERIMENTS, MEASURED, long_experiments
from gradlab.experiments.methods import METHODS
from gradlab.plotting import palette
from gradlab.plotting.looks import WIDTH
from gradlab.plotting.symbols import typeset, typeset_all

FIGURES = Path(__file__).parent.parent / "figures"
SHOWN = 800  # pixels of a figure's width on GitHub
LEAST = 9  # pixels of the smallest text there
DRAWN = {
    name: one for name, one in {**EXPERIMENTS, **MEASURED}.items()
    if one.captions and not (name in long_experiments() and not (FIGURES / "data" / f"{name}.parquet").exists())
    and all((FIGURES / file).exists() for file in (one.files.values() if name in MEASURED else ()))  # else not run yet
}  # fmt: skip


def drawn(name):
    """Return an experiment's figures from its committed frame, laid out as they are saved."""
    one = DRAWN[name]
    if name in EXPERIMENTS:
        frames = pd.read_parquet(FIGURES / "data" / f"{name}.parquet")
    else:
        frames = {key: pd.read_parquet(FIGURES / file) for key, file in one.files.items()}
    with mpl.rc_context(plotting.style()):
        found = one.figures(frames)
        for figure in found.values():
            typeset_all(figure)
            FigureCanvasAgg(figure).draw()
    return found


def texts(figure):
    """Return the texts that are seen; of ticks those within their axis."""
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and not hidden(text):
            yield text


def hidden(text):
    return isinstance(text.axes, Axes) and (not text.axes.get_visible() or (not text.axes.axison and is_tick(text)))


def is_tick(text):
    return any(text in axis.get_ticklabels() for axis in (text.axes.xaxis, text.axes.yaxis))


def boxes(figure):
    """Return the places of titles, names of axes and ticks, and of legends."""
    places = {}
    for axis in (axis for axis in figure.findobj(Axes) if axis.get_visible() and axis.axison):
        ticks = []
        for one, low, high in ((axis.xaxis, *sorted(axis.get_xlim())), (axis.yaxis, *sorted(axis.get_ylim()))):
            slack = 1e-6 * (high - low)
            ticks += [
                tick.label1 for tick in one.get_major_ticks() if low - slack <= tick.get_loc() <= high + slack
            ]  # fmt: skip
        for text in (axis.title, axis.xaxis.label, axis.yaxis.label, *ticks):
            if text.get_visible() and text.get_text().strip():
                places[text] = text.get_window_extent()
    for legend in figure.legends:
        places |= {text: text.get_window_extent() for text in legend.get_texts()}
    return places


def luminance(colour):
    return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_can_be_read_at_800_pixels(name):
    for figure in drawn(name).values():
        assert figure.get_figwidth() <= WIDTH
        pixels = min(SHOWN, 150 * figure.get_figwidth()) / figure.get_figwidth() / 72  # per point
        assert min(text.get_fontsize() for text in texts(figure)) * pixels >= LEAST
        for text in texts(figure):
            outside = "".join(text.get_text().split("$")[::2])
            assert not re.search("[αβκλμπσ∂∇]|_", outside), text.get_text()
        for (one, place), (other, there) in itertools.combinations(boxes(figure).items(), 2):
            across = min(place.x1, there.x1) - max(place.x0, there.x0)
            down = min(place.y1, there.y1) - max(place.y0, there.y0)
            assert min(across, down) < 2, f"{one.get_text()!r} lies over {other.get_text()!r}"


def test_symbols_are_typeset_and_other_text_is_left_alone():
    for plain, wanted in {
        "log(π_l / π_w)": r"log($\pi_{l}$ / $\pi_{w}$)", "2β": r"2$\beta$", "∂L/∂π": r"$\partial L$/$\partial \pi$",
        "π_ref and π_reference": r"$\pi_{\mathrm{ref}}$ and $\pi$_reference", "mine": "mine", "": "",
        r"a $\pi_w$ λ": r"a $\pi_w$ $\lambda$", "costs $5 with β": "costs $5 with β", "utility_share": "utility_share",
        "h_w − h_l, with h_wide": r"$h_{w}$ − $h_{l}$, with h_wide",
    }.items():  # fmt: skip
        assert typeset(plain) == wanted
        assert typeset(wanted) == wanted


def test_names_of_ticks_and_of_legends_are_typeset_too():
    runs = pd.DataFrame({"method": ["fixed λ=0.5", "permuted λ"] * 2, "mask": 0.0, "policy": "free",
                         "kl": [1.0, 2.0, 3.0, 4.0], "value": [1.0, 2.0, 3.0, 4.0]})  # fmt: skip
    ticks = plotting.ends(runs, {"value": "value"}, columns="mask", rows="policy")
    named = plotting.trade(runs, "kl", "value", columns="mask", rows="policy", labels=("KL", "value"))
    for figure in (ticks, named):
        typeset_all(figure)
        FigureCanvasAgg(figure).draw()
    wanted = [r"constant $\lambda$ = 0.5", r"permuted $\lambda$"]
    assert [text.get_text() for text in ticks.axes[0].get_yticklabels()] == wanted
    assert [text.get_text() for text in named.legends[0].get_texts()] == wanted


def test_every_meaning_has_colours_of_its_own():
    methods = {plotting.look(method)["color"].upper() for method in METHODS}
    roles = (palette.TRUE, palette.NOT_TRUE, palette.WINNER, palette.LOSER, *palette.CHOSEN)
    assert len(set(roles)) == len(roles)
    assert not methods & set(roles)
    assert not methods & set(palette.SETTINGS)


def test_winner_and_loser_and_the_two_sides_differ_in_grey():
    assert luminance(palette.LOSER) - luminance(palette.WINNER) > 0.15
    assert luminance(palette.CHOSEN[1]) - luminance(palette.CHOSEN[0]) > 0.1


def picture():
    prompt, response = np.indices((2, 3)).reshape(2, -1)
    values = {
        "utility": [0, 1, 2, 3, 4, 5], "observed": [1, 1, 0, 1, 1, 1], "reference": [1 / 3] * 6,
        "dpo": [0.2, 0.8, 1e-9, 0.01, 0.09, 0.9],
    }  # fmt: skip
    return pd.concat(
        pd.DataFrame({"panel": name, "prompt": prompt, "response": response, "value": np.array(one, float)})
        for name, one in values.items()
    )


def test_policies_share_one_logarithmic_scale_with_its_bar_and_crosses_lie_on_unobserved_responses():
    figure = plotting.heatmaps(picture())
    reference, dpo = figure.axes[2].images[0], figure.axes[3].images[0]
    assert reference.norm is dpo.norm
    assert dpo.norm(0.1) - dpo.norm(0.01) == pytest.approx(dpo.norm(1) - dpo.norm(0.1))
    assert np.asarray(dpo.get_array()).ravel() == pytest.approx([0.2, 0.8, 1e-9, 0.01, 0.09, 0.9])
    assert dpo.norm(1e-9) == dpo.norm(0) == dpo.norm(1e-3) == 0
    crosses = np.concatenate([line.get_xydata() for line in figure.axes[3].lines])
    assert crosses.tolist() == [[2, 0]]
    assert figure.axes[-1].get_xlabel() == r"probability $\pi$"


def test_validation_losses_have_one_panel_per_method_task_and_size_with_rings_at_spikes():
    frame = pd.DataFrame([
        {"task": task, "size": size, "method": method, "seed": seed, "step": step, "validation_loss": seed + step,
         "spike": (task, size, method, seed, step) == ("a", "1M", "dpo", 1, 2)}
        for task in "ab" for size in ("1M", "2M") for method in ("dpo", "bdpo", "nbdpo") for seed in (0, 1)
        for step in (1, 2)
    ])  # fmt: skip
    figure = plotting.validation_losses(frame, tasks={"a": "A", "b": "B"})
    assert len(figure.axes) == 12
    rings = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert rings == [[], [[2, 3]]]
    assert all(not len(line.get_xdata()) for line in figure.axes[1].lines if line.get_marker() == "o")
    curves = [line for line in figure.axes[0].lines if line.get_marker() != "o"]
    assert [line.get_ydata().tolist() for line in curves] == [[1, 2], [2, 3]]
    assert len({line.get_linestyle() for line in curves}) == 2


def test_more_than_three_levels_go_on_in_further_rows():
    frame = pd.DataFrame([
        {"start": start, "policy": policy, "method": "dpo", "seed": seed, "step": step, "value": level + seed}
        for level, start in enumerate("abcd") for policy in ("free", "shared") for seed in (0, 1) for step in (0, 1)
    ])  # fmt: skip
    figure = plotting.curves(frame, {"value": "value"}, columns="start", methods=("dpo",), split="policy")
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["a", "b", "c", "", "", "", "d", ""]
    assert panels[6].lines[0].get_ydata().tolist() == [3.5, 3.5]
    assert panels[6].get_ylim() == panels[0].get_ylim()


def test_ppo_on_the_true_utility_lies_below_dpo_for_the_reason_that_the_caption_gives():
    grid = pd.read_parquet(FIGURES / "data" / "grid.parquet")
    last = grid[(grid["step"] == grid["step"].max()) & (grid["training"] == "adam 0.05")]
    cell = last[(last["mask"] == 0) & (last["policy"] == "free")]
    means = (
        cell.assign(trade=cell["utility"] - cell["kl"]).groupby(["data", "method"])[["utility", "kl", "trade"]].mean()
    )
    finite, oracle = means.loc["100 pairs", "dpo"], means.loc["100 pairs", "ppo oracle"]
    assert finite["utility"] > oracle["utility"]
    assert finite["kl"] == pytest.approx(2 * oracle["kl"], rel=0.3)
    assert finite["trade"] < oracle["trade"]
    assert means.loc["exact", "dpo"].to_numpy() == pytest.approx(oracle.to_numpy(), abs=0.01)
