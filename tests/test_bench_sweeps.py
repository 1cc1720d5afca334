"""The benchmark of sweeps on a GPU takes every way in turn, says how far both devices agree, and needs a GPU."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

SCRIPT = Path(__file__).parent.parent / "scripts/bench_sweeps.py"


@pytest.fixture(scope="module")
def bench_sweeps():
    spec = importlib.util.spec_from_file_location("bench_sweeps", SCRIPT)
    module = sys.modules["bench_sweeps"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_run_measures_every_way_of_every_sweep(bench_sweeps, tmp_path, capsys):
    bench_sweeps.bench(tmp_path, quick=True)
    table = pd.read_csv(tmp_path / "sweeps.csv")
    assert (table["seconds"] > 0).all()
    for dtype in bench_sweeps.DTYPES:
        ways = table[table["dtype"] == dtype].groupby("runs")["way"].apply(set)
        assert ways[1] == {bench_sweeps.ONE_THREAD, bench_sweeps.GPU, bench_sweeps.LOOP, bench_sweeps.GPU_LOOP}
        assert ways[2] == {bench_sweeps.ONE_THREAD, bench_sweeps.GPU, bench_sweeps.ALL_CORES}
    page = (tmp_path / "sweeps.md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert len([line for line in page.splitlines() if line.startswith("| float")]) == len(table)


def test_ratios_say_how_many_times_as_fast(bench_sweeps):
    seconds = {"fit, one thread": 4.0, "fit, GPU": 1.0, "loop": 8.0}
    rows = [
        {"dtype": "float64", "runs": 1, "steps": 100, "round": turn, "way": way, "seconds": value * (turn + 1)}
        for turn in range(3) for way, value in seconds.items()
    ]  # fmt: skip
    table = bench_sweeps.summarise(pd.DataFrame(rows)).set_index("way")
    assert table["times_one_thread"].to_dict() == {"fit, one thread": 1.0, "fit, GPU": 4.0, "loop": 0.5}
    assert table["times_loop"].to_dict() == {"fit, one thread": 2.0, "fit, GPU": 8.0, "loop": 1.0}
    assert table.loc["fit, GPU", "ms_per_run_and_step"] == pytest.approx(20.0)


def test_shares_of_a_sweep_are_the_whole_sweep(bench_sweeps):
    seen = []
    bench_sweeps._at_once(seen.extend, [[0, 2], [1]])
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a CUDA device")
def test_without_a_gpu_nothing_is_measured_or_written(bench_sweeps, tmp_path, capsys):
    bench_sweeps.bench(tmp_path)
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
