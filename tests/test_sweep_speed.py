"""The benchmark of sweeps on a GPU takes every way in turn, says how far both devices agree, and needs a GPU."""

import pandas as pd
import pytest
import torch

from scripts.benchmarks import sweep_page, sweep_speed

pytestmark = pytest.mark.slow


def test_a_quick_run_measures_every_way_of_every_sweep(tmp_path, capsys):
    sweep_speed.bench(tmp_path, quick=True)
    table = pd.read_csv(tmp_path / "sweeps.csv")
    assert (table["seconds"] > 0).all()
    for dtype in sweep_speed.DTYPES:
        ways = table[table["dtype"] == dtype].groupby("runs")["way"].apply(set)
        assert ways[1] == {sweep_page.ONE_THREAD, sweep_page.GPU, sweep_page.LOOP, sweep_page.GPU_LOOP}
        assert ways[2] == {sweep_page.ONE_THREAD, sweep_page.GPU, sweep_page.ALL_CORES}
    page = (tmp_path / "sweeps.md").read_text("utf-8")
    assert page in capsys.readouterr().out
    assert len([line for line in page.splitlines() if line.startswith("| float")]) == len(table)


def test_ratios_say_how_many_times_as_fast():
    seconds = {"fit, one thread": 4.0, "fit, GPU": 1.0, "loop": 8.0}
    rows = [
        {"dtype": "float64", "runs": 1, "steps": 100, "round": turn, "way": way, "seconds": value * (turn + 1)}
        for turn in range(3) for way, value in seconds.items()
    ]  # fmt: skip
    table = sweep_speed.summarise(pd.DataFrame(rows)).set_index("way")
    assert table["times_one_thread"].to_dict() == {"fit, one thread": 1.0, "fit, GPU": 4.0, "loop": 0.5}
    assert table["times_loop"].to_dict() == {"fit, one thread": 2.0, "fit, GPU": 8.0, "loop": 1.0}
    assert table.loc["fit, GPU", "ms_per_run_and_step"] == pytest.approx(20.0)


def test_shares_of_a_sweep_are_the_whole_sweep():
    seen = []
    sweep_speed._at_once(seen.extend, [[0, 2], [1]])
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a CUDA device")
def test_without_a_gpu_nothing_is_measured_or_written(tmp_path, capsys):
    sweep_speed.bench(tmp_path)
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
