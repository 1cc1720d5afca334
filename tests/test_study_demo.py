"""The example of a study: everything from samples to report, by one command."""

import json
import re

import pytest
import small_study

from gradlab.cli import main
from gradlab.study.answers import read_answers
from gradlab.study.frozen import read_study


def test_a_complete_example_is_written(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["study", "demo", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    study = read_study(out / "study.json")
    answers = read_answers(study, sorted((out / "answers").glob("*.jsonl")))
    assert not answers.notes
    assert set(answers.frame["goal"]) == {goal.name for goal in study.plan.goals}
    for rater in study.plan.raters:
        page = (out / f"pages/{rater}.html").read_text("utf-8")
        assert not re.search(r"wordy|terse", page)  # a page names no system
    report = json.loads((out / "report/report.json").read_text("utf-8"))
    assert report["study"] == study.hash
    assert any("longer responses" in line for line in report["cautions"])
    for name in ("plan.toml", "study.json", "pages", "answers", "report/report.html"):
        assert str(out / name) in said
    assert main(["study", "demo", "--out", str(out)]) == 0  # a former example is replaced
    answers = out / "answers/ash.answers.jsonl"
    answers.write_text("those of a person\n")  # who rated the example's page
    capsys.readouterr()
    assert main(["study", "demo", "--out", str(out)]) != 0
    assert "it holds something else: answers/ash.answers.jsonl" in capsys.readouterr().err
    assert answers.read_text() == "those of a person\n"


def test_a_study_of_people_is_no_former_example(tmp_path, capsys):
    small_study.study(tmp_path).write(tmp_path / "study.json")
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/ada.answers.jsonl").write_text("{}\n")
    assert main(["study", "demo", "--out", str(tmp_path)]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "study.json").is_file()
    assert (tmp_path / "answers/ada.answers.jsonl").read_text() == "{}\n"


def test_another_folder_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["study", "demo", "--out", str(tmp_path)]) != 0
    assert "must be empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_quick_validation_writes_its_page(tmp_path, monkeypatch):
    from gradlab.study.validation import settings

    few = settings.Settings(cases=settings.CASES[:2], turnings=(), share=0.02, promises=20, seed=0)
    monkeypatch.setattr(settings, "QUICK", few)
    assert main(["study", "validate", "--quick", "--folder", str(tmp_path), "--out", str(tmp_path / "runs")]) == 0
    assert "QUICK run" in (tmp_path / "quick/STUDY.md").read_text("utf-8")
