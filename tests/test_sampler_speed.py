"""The benchmark of samplers compares the same trainings and names those beyond its limit."""

import pandas as pd
import pytest

from scripts.benchmarks import sampler_speed


@pytest.mark.slow
def test_a_quick_run_compares_samplers_with_uniform(tmp_path, capsys):
    sampler_speed.bench(tmp_path, quick=True)
    text, table = (tmp_path / "samplers.md").read_text("utf-8"), pd.read_csv(tmp_path / "samplers.csv")
    assert capsys.readouterr().out.startswith(text)
    assert len(table) == 2 * 2 * 2 * 2 * 3  # runs, policies, types, periods, samplers
    assert (table["us_per_run_and_step"] > 0).all()
    assert (table.loc[table["sampler"] == "uniform", "times_uniform"] == 1).all()
    assert "best-worst:draws=1000" in text


def test_samplers_beyond_the_limit_are_named():
    table = pd.DataFrame({"sampler": ["uniform", "fast", "slow", "slow"], "times_uniform": [1.0, 1.5, 2.0, 3.2]})
    assert sampler_speed._beyond(table) == (
        "The slowest sampler within it takes 1.50 times uniform's time (fast). Beyond it: slow (3.2)."
    )
