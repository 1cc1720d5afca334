"""The engine's benchmark compares the same trainings, says what it measured, and judges it plainly."""

import contextlib
import platform
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab.lab.fit import fit
from gradlab.lab.world import exact_pairs, gaussian_world
from gradlab.losses import pair_loss
from scripts.benchmarks import engine_page as pages
from scripts.benchmarks import engine_speed as bench

pytestmark = pytest.mark.slow

DTYPES = ("float64", "float32")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder of a quick run where there is no JAX."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "has_jax", lambda: False)
        bench.bench(folder, quick=True)
    return folder


def test_a_quick_run_writes_page_data_and_figure(quick):
    assert {path.name for path in quick.iterdir()} == {"engine.md", "engine.csv", "engine.png"}
    assert (quick / "engine.png").read_bytes().startswith(b"\x89PNG")
    text = (quick / "engine.md").read_text("utf-8")
    for word in ("quick", "cores", "torch", "Vectorisation is not judged", "One run", "Sweeps", "Growth", "Memory"):
        assert word in text
    for private in (platform.node(), str(Path.home()), str(Path(bench.__file__).parent)):
        assert not re.search(rf"\b{re.escape(private)}\b", text)
    table = pd.read_csv(quick / "engine.csv")
    timed = table.dropna(subset=["wall_seconds"])
    assert (timed["wall_seconds"] > 0).all() or (timed.loc[timed["wall_seconds"] <= 0, "part"] == "warm start").all()
    assert table.loc[table["part"] == "memory", "imports_mb"].iloc[0] > 50


def rows_of(text, section):
    part = text.split(f"## {section}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in part.splitlines() if line[:1] == "|"]


def test_the_tables_show_what_was_measured(quick):
    text, table = (quick / "engine.md").read_text("utf-8"), pd.read_csv(quick / "engine.csv")
    shown = {cells[1]: cells[2:] for cells in rows_of(text, "One run")}
    for way in ("loop", "eager", "fit", "engine"):
        for place, dtype in enumerate(DTYPES):
            row = table[(table["part"] == "one run") & (table["way"] == way) & (table["dtype"] == dtype)].iloc[0]
            found = [float(cell) for cell in shown[pages.WAYS[way]][4 * place : 4 * place + 4]]
            expected = [
                row["wall_seconds"] * 1e3,
                row["cpu_seconds"] * 1e3,
                row["wall_ns"],
                row["times_as_fast_as_loop"],
            ]
            assert found == pytest.approx(expected, rel=6e-3)
            assert row["wall_ns"] == pytest.approx(row["wall_seconds"] / (8000 * row["steps"]) * 1e9, rel=1e-4)
    grown = {(cells[0], cells[1]): cells[3:] for cells in rows_of(text, "Growth")}
    for what in ("responses", "prompts", "runs"):
        for _, row in table[table["part"] == what].iterrows():
            cell = grown[what, f"{row[what]:.0f}"][DTYPES.index(row["dtype"])]
            assert float(cell) == pytest.approx(row["wall_ns"], rel=6e-3)


def test_without_jax_its_rows_say_so(quick):
    text = (quick / "engine.md").read_text("utf-8")
    assert "| bdpo | JAX | jax is not installed |" in text
    assert any("jax is not installed" in cells for cells in rows_of(text, "Sweeps"))
    assert "not measured" in text


@pytest.mark.parametrize("tuned", [False, True], ids=["plain", "tuned"])
@pytest.mark.parametrize("loss", ["dpo", "bdpo"])
def test_jax_learns_what_fit_learns(loss, tuned):
    pytest.importorskip("jax")
    from scripts.benchmarks import jax_reference

    worlds = [gaussian_world(4, 6, reference="random", seed=seed) for seed in range(2)]
    weights = np.stack([exact_pairs(world) for world in worlds])
    reference = np.stack([world.ref_logp for world in worlds])
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-4)):
        found = jax_reference.training(loss, weights, reference, dtype, 60, 0.05, tuned)()
        expected = fit(worlds, pair_loss(loss), steps=60, learning_rate=0.05, engine="eager").logp
        assert found.dtype == dtype
        np.testing.assert_allclose(np.exp(found), expected.exp().numpy(), rtol=0, atol=tolerance)


def test_a_jax_that_learns_something_else_is_an_error(monkeypatch):
    monkeypatch.setattr(bench, "has_jax", lambda: True)
    extent = replace(bench.QUICK, losses=("dpo", "nbdpo"))

    def as_fit(case, tuned):
        worlds = [gaussian_world(seed=seed) for seed in range(case.runs)]
        logp = fit(worlds, pair_loss(case.loss), steps=case.steps, learning_rate=bench.LEARNING_RATE).logp.numpy()
        return lambda: np.log(np.exp(logp) + wrong)

    monkeypatch.setattr(bench, "train_with_jax", as_fit)
    wrong = 0.0
    assert max(bench.compare_with_jax(extent).values()) < 1e-9
    wrong = 1e-5
    with pytest.raises(RuntimeError, match="jax and fit do not agree: probabilities of dpo differ by 1e-05 in float64"):
        bench.compare_with_jax(extent)


def test_every_way_trains_what_eager_trains():
    case = bench.Case("sweep", "eager", "float64", runs=3, steps=15)
    with contextlib.ExitStack() as stack:
        eager, fused = (bench.PREPARE[way](replace(case, way=way), stack)().logp for way in ("eager", "fit"))
        bare = bench.PREPARE["engine"](replace(case, way="engine"), stack)()[-1]
        loop = bench.PREPARE["loop"](replace(case, way="loop"), stack)()
    torch.testing.assert_close(fused.exp(), eager.exp(), rtol=0, atol=1e-9)
    torch.testing.assert_close(bare, fused, rtol=0, atol=0)
    torch.testing.assert_close(loop.exp(), eager[0].exp(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_is_made_of_sigmoids(dtype):
    case = bench.Case("bound", "sigmoid", dtype, prompts=1, responses=8, steps=3)
    with contextlib.ExitStack() as stack:
        raw = bench.vector_sigmoid(case, stack)()
    expected = np.zeros(64)
    for _ in range(3):
        expected = 1 / (1 + np.exp(-expected))
    found = raw.view(dtype)
    np.testing.assert_allclose(found[found != 0], expected.astype(dtype), rtol=1e-6)


def test_ratios_are_taken_within_a_round():
    case = {**bench.asdict(bench.Case("one run", "fit", "float64")), "slots": 8000}
    seconds = {"loop": [[8.0, 8.0, 9.0], [80.0] * 3, [4.0] * 3], "fit": [[1.0, 2.0, 1.0], [10.0] * 3, [1.0] * 3]}
    rows = [
        {**case, "way": way, "round": turn, "wall_seconds": one, "cpu_seconds": one / 2}
        for way, rounds in seconds.items()
        for turn, measured in enumerate(rounds)
        for one in measured
    ]
    loop, lab = bench.summarise(pd.DataFrame(rows)).to_dict("records")
    assert (loop["way"], lab["way"]) == ("loop", "fit")
    assert loop["times_as_fast_as_loop"] == 1
    assert lab["times_as_fast_as_loop"] == 8  # of 8, 8 and 4
    assert np.isnan(lab["times_as_fast_as_jax"])
    assert lab["measurements"] == 9
    assert (lab["wall_seconds"], lab["cpu_seconds"]) == (1, 0.5)
    assert lab["wall_ns"] == pytest.approx(1e9 / (8000 * 500))
    assert bench.processor_share(pd.DataFrame(rows)).to_dict() == {"loop": 0.5, "fit": 0.5}


def made_up(ns):
    """A table in which a slot and step of the kernels takes ``ns``, and a sigmoid takes 1."""
    shape = {"loss": "bdpo", "steps": 500, "slots": 8000, "responses": 20}
    rows = []
    for dtype in DTYPES:
        for part, way, runs, time in [
            ("bound", "sigmoid", 1, 1.0), ("bound", "torch.sigmoid", 1, 1.0), ("sweep", "engine", 200, ns),
            ("sweep", "fit", 200, ns), ("one run", "engine", 1, ns + 3), ("one run", "fit", 1, ns + 4),
            ("one run, twice the steps", "engine", 1, 2 * ns + 3),
        ]:  # fmt: skip
            seconds = time * 8000 * 500 / 1e9
            clocks = {f"{clock}_{unit}": value for clock in ("wall", "cpu")
                      for unit, value in (("ns", time), ("seconds", seconds))}  # fmt: skip
            ratios = {"times_as_fast_as_jax": 6.0, "times_as_fast_as_jax_tuned": 4.0}
            rows.append({**shape, "part": part, "way": way, "dtype": dtype, "runs": runs, **clocks, **ratios})
    return pd.DataFrame(rows)


def test_the_steps_alone_are_what_more_steps_take():
    table = pages.with_steps_alone(made_up(0.5))
    alone = table[table["way"] == "steps alone"]
    assert alone["wall_ns"].tolist() == pytest.approx([0.5, 0.5])
    assert alone["wall_seconds"].tolist() == pytest.approx([0.002, 0.002])


def test_targets_are_judged_plainly():
    text = pages.targets(made_up(0.9))
    one, sweep, jax, _, tuned, _ = text.splitlines()[2:8]
    missed = ["19.6 ms: **missed** by 145%", "15.6 ms: **missed** by 95%"]
    assert one == f"| {' | '.join(['one run of bdpo, 8 ms', *missed, *missed])} |"
    assert sweep.count("0.9 ns: met") == 2
    assert sweep.count("0.9 ns: **missed** by 50%") == 2
    assert jax.count("6 ×: met") == 4
    assert tuned.count("4 ×: **missed** by 20%") == 4


def test_lost_vectors_are_noticed():
    assert pages.lost_vectors(made_up(2.0)) == []
    lines = pages.lost_vectors(made_up(14.0))
    assert len(lines) == 4, "the sweep and the steps of one run, in both types"
    assert lines[0].startswith("WARNING: the kernel of bdpo in float64 may have lost its vectors: 14.00 ns a slot")
    slow = made_up(2.0)
    slow.loc[(slow["way"] == "sigmoid") & (slow["dtype"] == "float32"), "cpu_ns"] = 5.0
    (line,) = pages.lost_vectors(slow)
    assert line.startswith("WARNING: the engine's sigmoid in float32 takes 5.0 times PyTorch's")
