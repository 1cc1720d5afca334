"""The page of the explorers' benchmark shows every number that was measured; measuring needs a browser and minutes."""

import pandas as pd

from scripts.benchmarks import explorer_page, explorer_speed, timing


def test_the_page_shows_the_committed_measurements():
    frame = pd.read_csv(timing.RESULTS / "explorers.csv")
    text = explorer_page.page(frame, explorer_speed.PRESSES)
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if line[:3] == "| G"]
    measured = frame[frame["what"].str.startswith("G")]
    assert [(row[0], float(row[2]), float(row[5])) for row in rows] == [
        (row.what, round(row.median_ms), round(row.frames_per_second, 1)) for row in measured.itertuples()
    ]
    committed = (timing.RESULTS / "explorers.md").read_text("utf-8")
    assert text.splitlines()[0] == committed.splitlines()[0]


def test_every_case_has_a_notebook_and_a_target():
    for case, (notebook, sliders) in explorer_speed.CASES.items():
        assert (timing.ROOT / "notebooks" / f"{notebook}.ipynb").exists()
        assert sliders
        assert explorer_speed.TARGETS[case] > 0


def test_without_a_browser_nothing_is_measured_or_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explorer_speed.chrome, "why_not", lambda: "no Chromium")
    explorer_speed.bench(tmp_path)
    assert "not measured: no Chromium" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
