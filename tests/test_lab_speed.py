"""The benchmark runs, compares like with like, and writes what it says."""

import platform
from pathlib import Path

import pandas as pd
import pytest
import torch

from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import pair_loss
from scripts.benchmarks import lab_page
from scripts.benchmarks import lab_speed as bench

pytestmark = pytest.mark.slow


def test_the_loop_learns_what_fit_learns():
    world = gaussian_world(5, 6, mask_rate=0.2, reference="random")
    for name in bench.LOSSES:
        loss = pair_loss(name)
        by_hand = bench.hand_written_loop(world, loss, 20)
        lab = fit(world, loss, steps=20, learning_rate=bench.LEARNING_RATE).logp
        torch.testing.assert_close(by_hand, lab, rtol=0, atol=1e-9)


def test_a_quick_run_writes_table_and_data(tmp_path, capsys):
    bench.bench(tmp_path / "out", readme=tmp_path / "untouched.md", quick=True)
    page = (tmp_path / "out/lab.md").read_text("utf-8")
    assert page in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out/lab.csv")
    assert list(table["case"]) == ["loop", "fit 1", "fit 2", "fit 4"]
    assert (table["seconds_per_run"] > 0).all()
    assert table["ratio_to_loop"].iloc[0] == 1
    assert table["peak_mb"].iloc[0] > 0
    assert table["imports_mb"].iloc[0] > 50
    assert "torch" in page
    assert "cores" in page
    for private in (platform.node(), str(Path.home()), str(Path(bench.__file__).parent)):
        assert private not in page
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "lab.md", "lab.csv"}, "nothing half-written is left"


def test_targets_are_judged_plainly():
    table = pd.DataFrame(
        {"loss": ["dpo", "bdpo"] * 2, "case": ["fit 1"] * 2 + ["fit 60"] * 2, "ratio_to_loop": [0.9, 0.8, 0.2, 0.3]}
    )
    met, missed = lab_page.targets(table)
    assert met.endswith("met.")
    assert missed.endswith("missed by bdpo at 0.30.")


def test_the_table_goes_between_the_markers():
    page = "# Speed\n\n| a |\n|---|\n| 1 |\n\nwords\n"
    readme = "before\n<!-- benchmark -->\n| old |\n<!-- /benchmark -->\nafter\n"
    wanted = "before\n<!-- benchmark -->\n| a |\n|---|\n| 1 |\n<!-- /benchmark -->\nafter\n"
    assert lab_page.with_table(readme, page) == wanted
    assert lab_page.with_table(wanted, page) == wanted
