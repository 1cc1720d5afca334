"""The benchmark of large inputs measures every case of both checkouts, and fails where a case does."""

import pandas as pd
import pytest

from scripts.benchmarks import large_inputs

pytestmark = pytest.mark.slow


def test_a_quick_run_measures_every_case(tmp_path, capsys):
    large_inputs.bench(tmp_path, quick=True)
    table = pd.read_csv(tmp_path / "large-inputs.csv")
    assert table["case"].tolist() == [case.does for case in large_inputs.cases(large_inputs.QUICK)]
    assert (table["seconds"] > 0).all()
    assert (table["peak_mb"] > 20).all()
    assert (tmp_path / "large-inputs.md").read_text("utf-8") in capsys.readouterr().out


def test_two_checkouts_stand_side_by_side():
    rows = [("a", "before", 2.0, 300.0), ("a", "now", 0.5, 200.0)]
    page = large_inputs.page(pd.DataFrame(rows, columns=["case", "checkout", "seconds", "peak_mb"]), quick=False)
    head, _, row = [line for line in page.splitlines() if line.startswith("|")]
    assert head == "|  | seconds, before | seconds, now | peak MB, before | peak MB, now |"
    assert row == "| a | 2 | 0.5 | 300 | 200 |"


def test_the_time_that_a_case_prints_counts_and_else_all_of_it(tmp_path):
    seconds, peak = large_inputs.run("print('words'); print(0.25)", tmp_path, large_inputs.ROOT)
    assert seconds == 0.25
    assert 1 < peak < 1_000
    assert large_inputs.run("import time; time.sleep(0.2); print('words')", tmp_path, large_inputs.ROOT)[0] > 0.2


def test_a_case_that_fails_is_no_measurement(tmp_path):
    with pytest.raises(RuntimeError, match="status 1"):
        large_inputs.run("raise SystemExit(1)", tmp_path, large_inputs.ROOT)
