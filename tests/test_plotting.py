"""Figures show what the frame says, in a style that changes nothing outside."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.methods import METHODS


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


def test_a_method_without_a_look_of_its_own_is_not_taken_for_ppo():
    own = plotting.look("hinge")
    assert own["label"] == "hinge"
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
