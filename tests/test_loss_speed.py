"""The benchmark of all losses measures each of them beside DPO, and says what a first training takes."""

import os

import pandas as pd
import pytest

from gradlab.lab.engine import fusion
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES
from scripts.benchmarks import loss_speed
from scripts.benchmarks.loss_page import page


@pytest.mark.slow
def test_a_quick_run_measures_every_loss(tmp_path, capsys):
    loss_speed.bench(tmp_path, quick=True)
    table = pd.read_csv(tmp_path / "losses.csv")
    assert list(table["loss"]) == [*PAIR_LOSSES, *BATCH_LOSSES] * 2
    assert (table["ns_per_slot_and_step"] > 0).all()
    assert (table[table["loss"] == "dpo"]["times_dpo"] == 1).all()
    assert table["first_seconds"].notna().tolist() == table["loss"].isin([*PAIR_LOSSES]).tolist()
    text = (tmp_path / "losses.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + len(PAIR_LOSSES) + len(
        BATCH_LOSSES
    )


@pytest.mark.parametrize(
    ("name", "functions"),
    [("dpo", 1), ("ipo", 0), ("cdpo", 1), ("robust", 1), ("nbdpo", 2), ("exp-dpo", 2), ("exo", 2), ("kto", None)],
)
def test_functions_that_both_orders_share_count_once(name, functions):
    assert loss_speed.functions_of(name) == functions


def test_a_first_training_finds_no_kernel_and_leaves_the_others(monkeypatch):
    monkeypatch.delenv("GRADLAB_CACHE", raising=False)
    before = dict(fusion._KERNELS)
    assert loss_speed.first_training("dpo", loss_speed.QUICK) > 0
    assert before.items() <= fusion._KERNELS.items()
    assert "GRADLAB_CACHE" not in os.environ


def test_the_page_names_the_slowest():
    rows = [
        {"dtype": dtype, "loss": name, "family": "margin", "functions": 1, "measurements": 3,
         "ns_per_slot_and_step": 0.5 * times, "times_dpo": times, "first_seconds": 0.2 * times}
        for dtype in ("float64", "float32") for name, times in (("dpo", 1.0), ("other", 1.25))
    ]  # fmt: skip
    text = page(pd.DataFrame(rows), quick=False)
    assert "takes 1.25 times DPO's time; the limit is 1.5. The slowest\nfirst training takes 0.25 s" in text
