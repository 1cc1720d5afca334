"""Figures show what the frame says, in a style that changes nothing outside."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import same_color, to_rgb
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from scipy import stats

from gradlab import plotting
from gradlab.experiments.methods import METHODS
from gradlab.losses import PAIR_LOSSES
from gradlab.plotting.looks import errors


def runs(methods=("dpo", "bdpo")):
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"method": method, "mask": mask, "policy": policy, "seed": seed, "step": step, "beta": beta,
         "kl": beta + rng.random(), "value": rng.random() + (method == "bdpo")}
        for method in methods for mask in (0.0, 0.2) for policy in ("free", "shared")
        for seed in range(4) for step in (0, 1, 10) for beta in (0.5, 1.0)
    ])  # fmt: skip


def test_importing_changes_no_setting():
    code = (
        "import matplotlib as mpl; before = dict(mpl.rcParams)\n"
        "import gradlab.plotting; print(dict(mpl.rcParams) == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_style_is_a_fresh_dict_of_real_settings_and_leaves_none_behind():
    assert plotting.style() is not plotting.style()
    assert set(plotting.style()) <= set(mpl.rcParams)
    before = dict(mpl.rcParams)
    with mpl.rc_context(plotting.style()):
        pass
    assert dict(mpl.rcParams) == before


def test_every_method_has_a_look_of_its_own():
    looks = [plotting.look(method) for method in METHODS]
    assert len({(one["color"], one["linestyle"]) for one in looks}) == len(looks)
    assert len({one["marker"] for one in looks}) == len(looks)
    assert all(to_rgb(one["color"]) for one in looks)


def test_a_registered_loss_is_drawn_as_it_says_itself():
    for name, make in PAIR_LOSSES.items():
        assert plotting.look(name) == {"label": make().label, **make().look._asdict()}
    fixed = {share: plotting.look(f"fixed λ={share}") for share in (0.4, 0.5, 0.6)}
    assert [one["label"] for one in fixed.values()] == [f"constant λ = {share}" for share in fixed]
    assert fixed[0.5] == plotting.look("fixed-weight")


def test_a_method_without_a_look_of_its_own_is_not_taken_for_ppo():
    own = plotting.look("mine")
    assert own["label"] == "mine"
    assert own["color"] not in {one["color"] for one in plotting.LOOK.values()}
    assert own["marker"] not in {one["marker"] for one in plotting.LOOK.values()}
    assert plotting.look("ppo minimum")["color"] == plotting.look("ppo")["color"]


def test_curves_draw_the_mean_and_band_of_every_method():
    frame = runs()
    figure = plotting.curves(frame, {"value": "value"}, columns="mask", methods=("dpo", "bdpo"))
    axis = figure.axes[0]
    line = next(line for line in axis.lines if line.get_label() == "bDPO")
    wanted = frame.query("method == 'bdpo' and mask == 0").groupby("step")["value"].mean()
    assert line.get_ydata() == pytest.approx(wanted.to_numpy())
    assert len(axis.collections) == 2  # a band a method


def test_ends_shows_each_seed_and_the_mean():
    frame = runs().query("step == 10 and beta == 1")
    figure = plotting.ends(frame, {"value": "value"}, columns="mask", rows="policy")
    axis = figure.axes[0]
    drawn = np.concatenate([line.get_xdata() for line in axis.lines])
    cell = frame.query("mask == 0 and policy == 'free'")
    assert set(cell["value"].round(9)) <= set(drawn.round(9))
    assert cell.query("method == 'dpo'")["value"].mean().round(9) in set(drawn.round(9))
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["DPO", "bDPO"]


def test_every_interval_over_seeds_is_the_t_interval():
    """Of few seeds the percentile bootstrap covers the mean too seldom, see tests/test_rules_of_evidence.py."""
    points = np.array([0.1, 0.4, 0.2])
    wanted = stats.ttest_1samp(points, 0).confidence_interval(0.95)
    frame = pd.DataFrame({
        "method": "dpo", "mask": 0.0, "policy": "free", "seed": range(3), "step": 1, "value": points,
        "task": "a", "size": "1M",
    })  # fmt: skip
    band = plotting.curves(frame, {"value": "value"}, columns="mask", methods=("dpo",)).axes[0].collections[0]
    bars = [
        plotting.ends(frame, {"value": "value"}, columns="mask", rows="policy").axes[0].lines[1].get_xdata(),
        plotting.by_method(frame, {"value": "value"}, tasks={"a": "A"}, at={"value": 0.0}).axes[0].lines[1].get_xdata(),
        points.mean() + errors(points)[:, 0] * [-1, 1],
        np.unique(band.get_paths()[0].vertices[:, 1]),
    ]
    for bar in bars:
        assert np.asarray(bar, float).ravel() == pytest.approx(tuple(wanted))


def test_a_single_seed_and_uneven_numbers_of_seeds_are_drawn():
    assert errors(np.array([0.3])).tolist() == [[0], [0]]
    frame = runs().query("beta == 1 and policy == 'free'")
    uneven = frame[(frame["step"] < 10) | (frame["seed"] < 3)]
    axis = plotting.curves(uneven, {"value": "value"}, columns="mask", methods=("bdpo",)).axes[0]
    wanted = uneven.query("method == 'bdpo' and mask == 0").groupby("step")["value"].mean()
    assert axis.lines[0].get_ydata() == pytest.approx(wanted.to_numpy())


def test_the_frontier_rings_beta_one():
    figure = plotting.frontier(runs().query("step == 10"), "value", "value")
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert len(rings) == 2


def test_saving_is_reproducible_whole_and_marked(tmp_path):
    frame = runs()

    def make():
        return {"a": plotting.curves(frame, {"value": "value"}, columns="mask", methods=("dpo",))}

    first = plotting.draw(make, tmp_path / "one")
    second = plotting.draw(make, tmp_path / "two")
    assert [path.name for path in first] == ["a.png", "a.pdf"]
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes() == right.read_bytes()
    marked = plotting.draw(make, tmp_path / "three", "QUICK")
    assert marked[0].read_bytes() != first[0].read_bytes()


def test_figures_do_not_pile_up_in_pyplot():
    import matplotlib.pyplot as plt

    plotting.curves(runs(), {"value": "value"}, columns="mask", methods=("dpo",))
    assert plt.get_fignums() == []
    assert isinstance(plotting.scatter(runs(), "kl", "value", labels=("a", "b")), Figure)


# The theory's drawings: small frames in, and the numbers drawn are the frame's.


def field():
    pairs = [(0.2, 0.2), (0.2, 0.4), (0.4, 0.2)]
    return pd.DataFrame([
        {"kind": "field", "loss": loss, "log_win": np.log(win), "log_lose": np.log(lose), "pull_win": scale / win,
         "pull_lose": -1 / lose, "step_win": win, "step_lose": -scale * lose}
        for loss, scale in (("dpo", 1.0), ("bdpo", 2.0)) for win, lose in pairs
    ])  # fmt: skip


def corrected():
    """Two pairs of whole sequences, and trainings on the law; two seeds, one on each side of it."""
    pairs = pd.DataFrame({"log_win": [-90.0, -20.0], "log_lose": [-30.0, -60.0], "length_share": [0.3, 0.7],
                          "log_mean": [54.0, 36.0], "share": [1 / 54, 1 / 36]})  # fmt: skip
    trainings = [
        {"method": method, "policy": policy, "seed": seed, "step": step, "log_mean": 3.0 + step * scale + seed - 0.5,
         "share": 1 / (3.0 + step * scale) + 0.01 * seed - 0.005}
        for method in ("dpo", "bdpo") for policy, scale in (("free", 0.01), ("shared", 0.02)) for seed in (0, 1)
        for step in (0, 10, 500)
    ]  # fmt: skip
    return pairs, pd.DataFrame(trainings)


def weights():
    rows = []
    for n in (20, 100):
        y = (np.arange(n) + 0.5) * 20 / n
        for name in ("policy", "preference", "dpo", "balanced", "bdpo"):
            value = np.exp(-((y - 7) ** 2) / 8) if name in ("policy", "preference") else np.sin(np.pi * (y - 10) / 8)
            rows.append(pd.DataFrame({"n": n, "weight": name, "y": y, "value": 3 * value}))
    return pd.concat(rows, ignore_index=True).assign(sigma_p=2.0, sigma_q=2.0, distance=6.0, kind="curves")


def phase():
    return pd.DataFrame([
        {"kind": "phase", "weight": weight, "distance": distance, "sigma_p": 1.0, "sigma_q": ratio,
         "outside": distance - ratio, "inside": ratio - 5.0}
        for weight in ("dpo", "balanced", "bdpo") for distance in (1.0, 2.0, 3.0) for ratio in (0.5, 1.5, 3.5)
    ])  # fmt: skip


def reaches():
    return pd.DataFrame([
        {"weight": weight, "n": n, "distance": distance, "sigma_p": p, "sigma_q": q, "cell": 20 / n,
         "reach": p + 0.1 * q + 1 / n + distance}
        for weight in ("dpo", "balanced", "bdpo") for n in (200.0, 20.0, np.inf) for distance in (1.0, 4.0)
        for p in (1.5, 3.0) for q in (1.5, 3.0)
    ])  # fmt: skip


def variances():
    region = [{"family": "region", "distance": distance, "sigma_p": width, "log_ratio": distance - 2 * width,
               "log_noise": width} for distance in (0.0, 4.0, 8.0) for width in (1.0, 2.0, 4.0)]  # fmt: skip
    draws = [{"family": "dirichlet", "n": n, "alpha_p": alpha, "alpha_q": 1.0, "log_ratio": ratio}
             for n in (20, 200) for alpha in (0.1, 1.0) for ratio in (-1.0, 0.5, 1.0, 2.0)]  # fmt: skip
    return pd.DataFrame([*region, *draws, {"family": "gaussian", "log_ratio": 9.0}])


THEORY = {
    "gradient_field": field, "correction": corrected, "weight_functions": weights, "phases": phase,
    "refinement": reaches, "variance_region": variances,
}  # fmt: skip


WEIGHT_TITLES = ["DPO: $w$", r"balanced: $w\cdot p$", "bDPO"]


def titled(figure):
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def mesh_of(axis):
    return next(one for one in axis.collections if isinstance(one, QuadMesh))


def points_of(axis, *, dots=True):
    """All points of lines without (``dots``) or with a stroke."""
    lines = [line for line in axis.lines if (line.get_linestyle() == "None") == dots]
    return np.concatenate([line.get_xydata() for line in lines])


@pytest.mark.slow
@pytest.mark.parametrize("name", THEORY)
def test_the_theorys_drawings_are_reproducible_and_fit_a_page(name, tmp_path):
    def make():
        frames = THEORY[name]()
        return {name: getattr(plotting, name)(*(frames if isinstance(frames, tuple) else (frames,)))}

    first, second = (plotting.draw(make, tmp_path / folder) for folder in ("one", "two"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert make()[name].get_figwidth() <= 10


def test_the_gradient_field_points_where_the_frame_says():
    frame = field()
    panels = plotting.gradient_field(frame).axes
    arrows = [one for axis in panels for one in axis.collections if isinstance(one, Quiver)]
    assert [axis.get_title() for axis in panels[:2]] == ["DPO", "bDPO"]
    assert len(arrows) == 4
    for drawn, (arrow, loss) in zip(arrows, [(a, b) for a in ("pull", "step") for b in ("dpo", "bdpo")], strict=True):
        part = frame[frame["loss"] == loss]
        win, lose = part[f"{arrow}_win"].to_numpy(), part[f"{arrow}_lose"].to_numpy()
        assert np.asarray(drawn.XY) == pytest.approx(np.exp(part[["log_win", "log_lose"]].to_numpy()))
        assert np.hypot(drawn.U, drawn.V) == pytest.approx(np.ones(3))
        assert np.asarray(drawn.V / drawn.U) == pytest.approx(lose / win)
        assert np.asarray(drawn.get_array()) == pytest.approx(np.log2(-win / lose))


def test_the_law_of_the_correction_is_drawn_with_trainings_from_start_to_end():
    figure = plotting.correction(*corrected())
    axes = titled(figure)
    assert list(axes) == ["the law: 1 − |1 − 1/LM|", "along trainings in the lab", "whole sequences"]
    law, *marks = axes["the law: 1 − |1 − 1/LM|"].lines[:-1]
    mean, share = law.get_xydata().T
    assert mean[0] == pytest.approx(0.5)
    np.testing.assert_allclose(share, np.where(mean < 1, 2 - 1 / mean, 1 / mean))
    points = [mark.get_xydata()[0] for mark in marks]
    assert points[0] == pytest.approx([3, 1 / 3])
    assert points[1] == pytest.approx([8, 1 / 8])
    assert points[3] == pytest.approx([13, 1 / 13])
    assert points[-1] == pytest.approx([45, (1 / 54 + 1 / 36) / 2])
    along = axes["along trainings in the lab"].lines
    assert [line.get_label() for line in along] == ["DPO, free", "DPO, shared", "bDPO, free", "bDPO, shared"]
    assert along[1].get_xydata() == pytest.approx(np.array([[0, 1 / 3], [10, 1 / 3.2], [500, 1 / 13]]))


def test_whole_sequences_show_the_weight_of_each_pair():
    weight = titled(plotting.correction(*corrected()))["whole sequences"]
    assert points_of(weight) == pytest.approx(np.array([[0.3, 30 / 120], [0.7, 60 / 80]]))


def test_weight_functions_are_scaled_and_marked_where_theorem_3_is_true():
    figure = plotting.weight_functions(weights())
    axes = titled(figure)
    assert list(axes) == ["policy $p$, preference $q$", *WEIGHT_TITLES]
    assert len(figure.axes) == 4
    # A minimum at 6, a maximum at 14.
    for title, wanted in ((WEIGHT_TITLES[0], [True, True]), ("bDPO", [False, False])):
        dots, line, *marks = axes[title].lines
        assert dots.get_ydata() == pytest.approx(np.sin(np.pi * (dots.get_xdata() - 10) / 8), abs=0.02)
        assert len(dots.get_xdata()) == 20
        assert len(line.get_xdata()) == 100
        assert np.abs(line.get_ydata()).max() == 1
        inner = [mark for mark in marks if 5 < mark.get_xdata()[0] < 15]
        assert [mark.get_xdata()[0] for mark in inner] == pytest.approx([6, 14], abs=0.05)
        assert [mark.get_marker() for mark in inner] == ["v", "^"]
        assert [not same_color(mark.get_markerfacecolor(), "white") for mark in inner] == wanted


def test_phases_colour_the_statement_of_each_weight():
    frame = phase()
    axes = [axis for axis in plotting.phases(frame).axes if axis.get_xlabel().startswith("distance")]
    assert [axis.get_title().splitlines() for axis in axes] == [
        ["DPO: extrema", "of $w$ outside"],
        ["balanced: extrema", r"of $w\cdot p$ inside"],
        ["bDPO: extrema", "inside"],
    ]
    for axis, (weight, place) in zip(
        axes, {"dpo": "outside", "balanced": "inside", "bdpo": "inside"}.items(), strict=True
    ):
        wide = frame[frame["weight"] == weight].pivot(index="sigma_q", columns="distance", values=place)
        mesh = mesh_of(axis)
        assert np.asarray(mesh.get_array()).reshape(wide.shape) == pytest.approx(wide.to_numpy())
        above, below = mesh.cmap(mesh.norm(0.5)), mesh.cmap(mesh.norm(-0.5))
        assert above[2] > above[0]  # teal where true
        assert below[0] > below[2]  # brown where not
    border = axes[0].collections[-1]
    assert border.get_linewidths().max() > 1
    assert axes[1].collections[-1].get_linewidths().max() < 1  # no border where nothing is true


def test_refinement_draws_each_grid_and_the_limit_last():
    frame = reaches()
    figure = plotting.refinement(frame)
    assert list(titled(figure)) == WEIGHT_TITLES
    axis = titled(figure)["bDPO"]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["20", "200", "∞"]
    cell = next(line for line in axis.lines if line.get_label() == "one cell")
    assert cell.get_xydata() == pytest.approx(np.array([[20, 1], [200, 0.1]]))
    line = next(line for line in axis.lines if line.get_label() == "σ_p = 1.5, σ_q = 3")
    assert line.get_xydata() == pytest.approx(np.array([[20, 5.85], [200, 5.805]]))
    limit = axis.lines[axis.lines.index(line) + 2]
    assert limit.get_xydata() == pytest.approx(np.array([[800, 5.8]]))


def test_the_variance_region_is_in_powers_of_ten_with_shares_of_draws():
    frame = variances()
    figure = plotting.variance_region(frame)
    axes = titled(figure)
    region = frame[frame["family"] == "region"]
    for title, name in (
        (r"Var$[w\,p]$ / (Var$[w]$ E$[p^2]$)", "log_ratio"),
        (r"noise of $w\,p$ / noise of $w$", "log_noise"),
    ):
        wide = region.pivot(index="sigma_p", columns="distance", values=name) / np.log(10)
        mesh = mesh_of(axes[title])
        assert np.asarray(mesh.get_array()).reshape(wide.shape) == pytest.approx(wide.to_numpy())
        true = mesh.cmap(mesh.norm(-0.5))
        assert true[2] > true[0]  # teal below zero, where the theorem is true
    draws = next(axis for axis in figure.axes if axis.get_ylabel().startswith("Dirichlet"))
    assert [text.get_text() for text in draws.texts] == ["25%"] * 4
    assert [tick.get_text() for tick in draws.get_yticklabels()] == ["0.1, 1", "1, 1"]
    wanted = np.sort(np.tile([-1.0, 0.5, 1.0, 2.0], 4) / np.log(10))
    assert np.sort(points_of(draws)[:, 0]) == pytest.approx(wanted)
