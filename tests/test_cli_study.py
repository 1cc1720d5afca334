"""``gradlab study`` leads from a plan to a verdict, and answers bad input with one line and nothing lost."""

import json
import secrets

import pytest
import small_study
from command_line import complaint

from gradlab import cli
from gradlab.cli import study_questions
from gradlab.study.answers import answer_line
from gradlab.study.assignment import assign
from gradlab.study.frozen import freeze, read_study
from gradlab.study.plan import Plan, Stop
from gradlab.study.raters import RaterModel, simulated


def write_lines(file, lines):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a plan and its samples, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(secrets, "token_hex", lambda number: "5a" * number)  # every test sees the same sides
    small_study.write_samples(tmp_path, 40)
    small_study.plan(40).write(tmp_path / "plan.toml")
    return tmp_path


@pytest.fixture
def study(folder, capsys):
    """The frozen study of that folder."""
    assert cli.main(["study", "plan", "plan.toml", "--freeze", "study.json"]) == 0
    capsys.readouterr()
    return read_study("study.json")


@pytest.fixture
def answers(folder, study):
    """A file of answers of simulated raters, to whom bdpo is better."""
    return write_lines(folder / "answers.jsonl", simulated(study, {"dpo": 0.0, "bdpo": 2.0}, RaterModel()))


# ---- plan


def test_plan_says_who_rates_what_how_long_and_by_which_rule(folder, capsys):
    assert cli.main(["study", "plan", "plan.toml"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "is bdpo preferred to dpo, by helpful? margin 5.0%", "3 raters, 26 items each, 2 per item: 39 items",
        "26 items, 6 repeats, 2 attention checks", "in all", "holds throughout the interval lies beyond 55.0%",
        "39 items of 39 prompts", "next: gradlab study power plan.toml", "--freeze plan.study.json",
    ):  # fmt: skip
        assert words in said
    assert cli.main(["study", "plan", "plan.toml", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["plan"]["primary"]["margin"] == 0.05
    assert facts["answers"] == 3 * facts["tasks_per_rater"] == 3 * 34
    assert facts["hours"] == pytest.approx(3 * 34 * 30 / 3600)


def test_freezing_writes_the_study_once_and_refuses_another_in_its_place(folder, study, capsys):
    assert cli.main(["study", "plan", "plan.toml", "--freeze", "study.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["study"] == study.hash
    small_study.plan(40, seed=4).write("plan.toml")
    assert cli.main(["study", "plan", "plan.toml", "--freeze", "study.json"]) == 1
    assert "is not this study" in complaint(capsys)
    assert read_study("study.json").hash == study.hash


def test_each_frozen_study_has_a_salt_that_stays_when_it_is_frozen_again(folder, monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    for file in ("one.json", "two.json", "one.json"):
        assert cli.main(["study", "plan", "plan.toml", "--freeze", file]) == 0
    one, two = read_study("one.json"), read_study("two.json")
    assert len(one.salt) == len(two.salt) == 32
    assert one.salt != two.salt
    assert one.hash != two.hash
    freeze(one.plan).write("former.json")  # as before there were salts: it has none, and stays as it is
    before = (folder / "former.json").read_bytes()
    assert cli.main(["study", "plan", "plan.toml", "--freeze", "former.json"]) == 0
    assert (folder / "former.json").read_bytes() == before


def test_files_that_are_not_there_yet_are_named(folder, capsys):
    small_study.plan(40, systems={"dpo": "later.jsonl", "bdpo": "samples.jsonl"}).write("plan.toml")
    assert cli.main(["study", "plan", "plan.toml"]) == 0
    assert "not there yet: dpo (later.jsonl)" in capsys.readouterr().out


def test_without_a_terminal_a_missing_plan_is_one_line(tmp_path, capsys):
    assert cli.main(["study", "plan", str(tmp_path / "plan.toml")]) == 1
    assert "on a terminal, gradlab study plan" in complaint(capsys)
    assert not (tmp_path / "plan.toml").exists()


def _answering(given, seen=None):
    """A person at the terminal who answers as told, and else takes what is offered."""
    queues = {field: list(answers) for field, answers in given.items()}

    def ask(text):
        field = text.split(" ")[0].rstrip(":")
        if seen is not None:
            seen.append(field)
        return queues[field].pop(0) if queues.get(field) else ""

    return ask


def test_a_plan_is_asked_for_with_the_meaning_of_each_field(capsys):
    plan = study_questions.asked(_answering({"systems": ["dpo=a.jsonl bdpo=b.jsonl"], "raters": ["ada, ben"]}))
    assert plan.systems == {"dpo": "a.jsonl", "bdpo": "b.jsonl"}
    assert plan.raters == ("ada", "ben")
    assert plan.primary.margin == 0.05
    assert plan.goals[0].question == "Which response is more helpful?"
    assert plan.design.repeats == 0.1
    said = " ".join(capsys.readouterr().out.split())
    assert "The size of win-rate − ½, in (0, ½), below which it does not matter which system one takes" in said


def test_answers_that_cannot_be_are_asked_for_again(capsys):
    seen = []
    plan = study_questions.asked(_answering({
        "systems": ["dpo", "dpo=a.jsonl bdpo=b.jsonl"], "primary.margin": ["much", "0.7", "0.1"],
        "title": ["bdpo is better", "which is better"], "goals": ["helpful, harmless"],
        "goals.question": ["only one?", "Which helps?|Which harms less?"], "primary.goal": ["harmless"],
        "stop.rule": ["precision"], "design.ties": ["perhaps", "no"], "raters": ["3"],
    }, seen))  # fmt: skip
    assert (plan.title, plan.primary.margin, plan.primary.goal) == ("which is better", 0.1, "harmless")
    assert [goal.question for goal in plan.goals] == ["Which helps?", "Which harms less?"]
    assert plan.stop == Stop(rule="precision", half_width=0.05)
    assert not plan.design.ties
    assert plan.raters == ("rater-1", "rater-2", "rater-3")
    assert seen.count("title") == seen.count("systems") == seen.count("goals.question") == 2
    said = capsys.readouterr().out
    assert "title must not name a system" in said
    assert "the answer must be a number, got 'much'" in said


def test_a_plan_that_was_asked_for_is_written_and_reads_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", _answering({"systems": ["dpo=a.jsonl bdpo=b.jsonl"]}))
    assert cli.main(["study", "plan", "plan.toml"]) == 0
    assert len(Plan.read("plan.toml").raters) == 6
    assert "next: gradlab study power plan.toml" in capsys.readouterr().out


def test_a_plan_whose_answers_end_is_not_written(tmp_path, monkeypatch, capsys):
    def ends(text):
        raise EOFError

    with pytest.raises(ValueError, match="the answers ended before title; no plan was written"):
        study_questions.asked(ends)


# ---- power


def test_power_prints_a_table_with_proposals_and_what_is_not_simulated(folder, capsys):
    command = ["study", "power", "plan.toml", "--simulations", "20", "--effects", "0", "0.2", "--items", "10", "60"]
    assert cli.main([*command, "--target", "0.3", "--half-width", "0.01", "--figure", "power.png"]) == 0
    said = capsys.readouterr().out
    assert "bdpo preferred" in said
    assert "Not simulated: the other exclusions" in " ".join(said.split())
    assert "30% power at a true win-rate of 70.0%: the fewest answers: 3 raters" in " ".join(said.split())
    assert "a half-width of 1.0% at every effect: reached by no design that was tried" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 100
    assert (folder / "power.png").stat().st_size > 10_000
    assert cli.main([*command, "--json", "--rater", "raters=0.6", "careless=0.1"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert len(page["rows"]) == 4
    assert page["raters"]["careless"] == 0.1
    assert [*page["proposals"]] == ["80% power at a true win-rate of 70.0%", "a half-width of 5.0% at every effect"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--effects", "0.6"], "effects must be finite and lie in (-0.5, 0.5), got 0.6"),
        (["--effects"], "effects must be one or more, got none"),
        (["--effect", "0.3"], "effect must be one of the effects that are simulated, 0, 0.025, 0.05"),
        (["--half-width", "0"], "half_width must be finite and lie in (0, 0.5), got 0"),
        (["--raters", "0"], "raters must be a whole number ≥ 1, got 0"),
        (["--target", "1"], "target must be"),
        (["--half-width", "0.7"], "half_width must be"),
        (["--rater", "tired=1"], "rater must be one of tie, raters, prompts, position, careless, fatigue"),
        (["--rater", "careless=x"], "rater careless must be a number, got 'x'"),
        (["--rater", "careless"], "rater must be NAME=NUMBER"),
        (["--rater", "careless=0", "careless=1"], "rater must have each name once, got careless twice"),
        (["--figure", "power.jpg"], "figure must name a file that ends in .png or .pdf"),
        (["--figure", "p.png", "--raters", *map(str, range(3, 17))], "figure must have at most 12 designs, got 14"),
    ],
)
def test_power_refuses_what_cannot_be_in_one_line(arguments, message, folder, capsys):
    assert cli.main(["study", "power", "plan.toml", "--simulations", "2", *arguments]) == 2
    assert message in complaint(capsys)


def test_power_looks_at_the_effect_before_it_simulates(folder, capsys):
    command = ["study", "power", "plan.toml", "--effects", "0.1", "--effect", "0.3", "--simulations", str(10**9)]
    assert cli.main(command) == 2
    assert "effect must be one of the effects that are simulated, 0.1; got 0.3" in complaint(capsys)


# ---- assign


def test_assign_writes_a_blind_page_per_rater_and_a_table_for_the_researcher(folder, study, capsys):
    assert cli.main(["study", "assign", "study.json", "--out", "pages"]) == 0
    said = capsys.readouterr().out
    assert "pages/ada.html: 34 comparisons" in said
    assert "for the researcher alone, as it names the systems: pages/tasks.csv" in said
    files = {file.name for file in (folder / "pages").iterdir()}
    assert {"ada.html", "ben.html", "cleo.html", "tasks.csv"} <= files
    assert "bdpo" not in (folder / "pages/ada.html").read_text().partition('id="list">')[2].partition("</script>")[0]
    assert "bdpo" in (folder / "pages/tasks.csv").read_text()
    assert cli.main(["study", "assign", "study.json", "--out", "pages"]) == 0, "the same pages again are no conflict"
    capsys.readouterr()
    (folder / "pages/ben.html").write_text("mine")
    assert cli.main(["study", "assign", "study.json", "--out", "pages"]) == 1
    assert "pages/ben.html is there already, with other content" in complaint(capsys)
    assert (folder / "pages/ben.html").read_text() == "mine"


# ---- report


def test_report_says_the_verdict_and_writes_the_page(folder, answers, capsys):
    assert cli.main(["study", "report", "study.json", "answers.jsonl", "--out", "report"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("bdpo is preferred")
    assert "saved: report/report.html" in said
    assert (folder / "report/report.html").is_file()
    assert cli.main(["study", "report", "study.json", "answers.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["rate"]["rate"] > 0.5


def test_answers_may_be_a_folder(folder, answers, capsys):
    (folder / "all").mkdir()
    assert cli.main(["study", "report", "study.json", "all"]) == 2
    assert "folders with files *.jsonl, got 'all' without any" in complaint(capsys)
    answers.rename(folder / "all/answers.jsonl")
    assert cli.main(["study", "report", "study.json", "all"]) == 0
    assert "bdpo is preferred" in capsys.readouterr().out


def test_a_look_before_the_end_says_nothing_about_the_direction(folder, study, capsys):
    lines = simulated(study, {"dpo": 0.0, "bdpo": 3.0})
    write_lines(folder / "half.jsonl", lines[: len(lines) // 2])
    assert cli.main(["study", "report", "study.json", "half.jsonl", "--interim"]) == 0
    said = capsys.readouterr().out
    assert "The study goes on" in said
    assert cli.main(["study", "report", "study.json", "half.jsonl", "--interim", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert set(page) == {"may_stop", "reason", "half_width", "wanted", "items", "of", "open"}
    for text in (said, json.dumps(page)):
        assert not any(word in text for word in ("dpo", "prefer", "rate", "win"))
    assert cli.main(["study", "report", "study.json", "half.jsonl", "--interim", "--out", "report"]) == 2
    assert "out must be left out with --interim" in complaint(capsys)
    assert not (folder / "report").exists()


# ---- bad input: one line each, and nothing is lost


def _changed(frozen, **changes):
    """Return all lines, the first of them changed."""
    first, *others = small_study.answers_of(frozen)
    return [{**first, **changes}, *others]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"study": "0" * 64}, "answers.jsonl, line 1: study must be"),
        ({"version": 2}, "answers.jsonl, line 1: version must be 1, got 2"),
        ({"rater": "zoe"}, "answers.jsonl, line 1: rater must be one of ada, ben, cleo; got 'zoe'"),
        ({"place": 999}, "answers.jsonl, line 1: place must be one of ada's tasks, got 999"),
        ({"item": "0123456789abcdef"}, "answers.jsonl, line 1: item must be"),
        ({"choice": "both"}, "answers.jsonl, line 1: choice must be one of left, right, tie, skip, undo"),
    ],
)
def test_answers_that_do_not_belong_to_the_study_are_refused(changes, message, folder, study, capsys):
    file = write_lines(folder / "answers.jsonl", _changed(study, **changes))
    before = file.read_bytes()
    assert cli.main(["study", "report", "study.json", "answers.jsonl", "--out", "report"]) == 2
    assert message in complaint(capsys)
    assert file.read_bytes() == before
    assert not (folder / "report").exists()


def test_two_different_answers_are_refused_and_a_repeated_line_is_said(folder, study, capsys):
    task = assign(study)["ada"][0]
    one, other = (answer_line(study, task, "helpful", choice) for choice in ("left", "right"))
    write_lines(folder / "answers.jsonl", [one, other])
    assert cli.main(["study", "report", "study.json", "answers.jsonl"]) == 2
    assert "ada has answered place 0 for 'helpful' already, otherwise (left)" in complaint(capsys)
    lines = small_study.answers_of(study)
    write_lines(folder / "answers.jsonl", [*lines, lines[0]])
    assert cli.main(["study", "report", "study.json", "answers.jsonl"]) == 0
    assert "1 line stands twice, and counts once" in capsys.readouterr().out


def test_a_torn_last_line_counts_as_not_written_and_other_torn_files_are_refused(folder, study, answers, capsys):
    answers.write_bytes(answers.read_bytes()[:-20])
    before = answers.read_bytes()
    assert cli.main(["study", "report", "study.json", "answers.jsonl"]) == 0
    assert "the last line of answers.jsonl was cut short" in " ".join(capsys.readouterr().out.split())
    assert answers.read_bytes() == before
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text[: len(text) // 2])
    assert cli.main(["study", "report", "study.json", "answers.jsonl"]) == 2
    assert "study.json" in complaint(capsys)
    samples = folder / "samples.jsonl"
    samples.write_text(samples.read_text()[:-20])
    assert cli.main(["study", "plan", "plan.toml"]) == 2
    assert "samples.jsonl ends within a line" in complaint(capsys)


def _without_margin(text):
    return text.replace("margin = 0.05\n", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_margin, "plan.toml: primary.margin must be given"),
        (
            lambda text: text.replace("margin = 0.05", "margin = 0.5"),
            "primary.margin must be finite and lie in",
        ),
        (lambda text: text.replace("margin =", "margins ="), "did you mean 'primary.margin'?"),
        (
            lambda text: text.replace("rater = 26", "rater = 60"),
            "systems must share enough prompts",
        ),
        (lambda text: text[:-5] + '"', "plan.toml is no TOML"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message, folder, capsys):
    file = folder / "plan.toml"
    file.write_text(change(file.read_text()))
    for more in ([], ["--freeze", "study.json"]):
        assert cli.main(["study", "plan", "plan.toml", *more]) == 2
        assert message in complaint(capsys)
    assert not (folder / "study.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda system, place: f"I am {system}, answer {place}", "samples must not reveal their system"),
        (lambda system, place: f"answer {place}", "samples must differ: 40 of 40 items have the same text"),
    ],
)
def test_samples_that_cannot_be_rated_are_refused(text, message, folder, capsys):
    small_study.write_samples(folder, 40, text=text)
    for more in ([], ["--freeze", "study.json"]):
        assert cli.main(["study", "plan", "plan.toml", *more]) == 2
        assert message in complaint(capsys)
    assert not (folder / "study.json").exists()


# ---- judges and other tools


def test_a_judge_that_is_a_model_answers_both_orders_and_stands_beside_people(folder, capsys):
    small_study.plan(40, judges=("short",)).write("judged.toml")
    (folder / "mine.py").write_text("def shorter(prompts, responses):\n    return [-len(text) for text in responses]\n")
    assert cli.main(["study", "plan", "judged.toml", "--freeze", "judged.json"]) == 0
    command = ["study", "judge", "judged.json", "--judge", "short=mine.py:shorter", "--out", "short.jsonl"]
    assert cli.main(command) == 0
    assert f"saved: short.jsonl, {2 * 39} answers" in capsys.readouterr().out
    assert cli.main(["study", "report", "judged.json", "short.jsonl", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["tables"]["judges"]
    assert row["rate"] == 0.0, "bdpo's responses are the longer ones"
    assert cli.main(command) == 1
    assert "out must name a file that is not there yet, got 'short.jsonl'" in complaint(capsys)
    for judge, message in (("short", "judge must be NAME=SPEC"), ("long=mine.py:shorter", "name must be one of short")):
        assert cli.main([*command[:4], judge, "--out", "other.jsonl"]) == 2
        assert message in complaint(capsys)


def test_tasks_go_to_other_tools(folder, study, capsys):
    for form in ("label-studio", "argilla"):
        assert cli.main(["study", "export", "study.json", "--form", form, "--out", form]) == 0
        assert len([*(folder / form).iterdir()]) >= 4
        said = capsys.readouterr().out
        assert f"next: gradlab study import study.json EXPORT --form {form}" in " ".join(said.split())


def test_an_export_that_is_none_is_refused_in_one_line(folder, study, capsys):
    command = ["study", "import", "study.json", "export.json", "--form", "label-studio", "--out", "answers.jsonl"]
    (folder / "export.json").write_text("[{")
    assert cli.main(command) == 2
    assert "export.json is torn or no JSON" in complaint(capsys)
    assert cli.main([*command, "--annotators", "ada"]) == 2
    assert "annotators must be ANNOTATOR=RATER, got 'ada'" in complaint(capsys)
    assert cli.main([*command, "--annotators", "a=b=rater-1", "a=b=rater-2"]) == 2
    assert "annotators must have each annotator once, got a=b twice" in complaint(capsys)
    (folder / "answers.jsonl").write_text("mine")
    assert cli.main(command) == 1
    assert "out must name a file that is not there yet" in complaint(capsys)
    assert (folder / "answers.jsonl").read_text() == "mine"
