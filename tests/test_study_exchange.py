"""Other tools for rating: tasks go out blind, and answers come back equal, or are refused in one line."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
import small_study

from gradlab.study.answers import answer_line, answers_of, append, read_answers
from gradlab.study.assignment import assign
from gradlab.study.exchange import FORMS, export, imported
from gradlab.study.exclusions import conduct
from gradlab.study.plan import Design, Exclusions, Goal

GOALS = (small_study.QUESTION, Goal(name="no harm", question='Which does "less" harm & <hurt>?'))
CYCLE = ("left", "right", "tie", "skip")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"), goals=GOALS)


def _answers(study, rater):
    """Return the lines of a rater who gives every kind of answer, both goals apart."""
    lines = []
    for task in assign(study)[rater]:
        for number, goal in enumerate(study.plan.goals):
            choice = CYCLE[(task.place + number) % 4]
            lines.append(answer_line(study, task, goal.name, choice, reason="why" if choice == "skip" else ""))
    return lines


def _by_place(lines, goal):
    return {line["place"]: line for line in lines if line["goal"] == goal}


def _label_studio(study, folder, rater, lines, person=7):
    """Fill a rater's tasks in as Label Studio exports them."""
    tasks = json.loads((folder / f"{rater}.label-studio.json").read_text())
    for number, task in enumerate(tasks, 1):
        results = []
        for count, goal in enumerate(study.plan.goals, 1):
            line = _by_place(lines, goal.name).get(number - 1)
            if line is None:
                continue
            if line["choice"] in ("left", "right"):
                results.append(_result(f"goal{count}", "pairwise", {"selected": line["choice"]}))
            else:
                results.append(_result(f"goal{count}_aside", "choices", {"choices": [line["choice"]]}))
            if line["reason"]:
                results.append(_result(f"goal{count}_reason", "textarea", {"text": [line["reason"]]}))
        annotation = {"id": 100 + number, "completed_by": person, "was_cancelled": False, "result": results}
        task |= {"id": number, "annotations": [annotation], "drafts": [], "predictions": [], "meta": {}}
    return tasks


def _result(name, kind, value):
    return {"id": "x", "from_name": name, "to_name": "prompt", "type": kind, "value": value, "origin": "manual"}


def _argilla(study, folder, rater, lines, person="7b7f", ranks=False):
    """Fill a rater's records in as Argilla's SDK exports them, or its server, which has ranks."""
    records = [json.loads(line) for line in (folder / f"{rater}.argilla.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        values = {}
        for count, goal in enumerate(study.plan.goals, 1):
            line = _by_place(lines, goal.name).get(number)
            if line is None:
                continue
            first = "right" if line["choice"] == "right" else "left"
            order = [first, "left" if first == "right" else "right"]
            values[f"goal{count}"] = order
            if ranks:
                places = (1, 1) if line["choice"] == "tie" else (1, 2)
                values[f"goal{count}"] = [{"value": v, "rank": r} for v, r in zip(order, places, strict=True)]
            if line["choice"] == "skip" or (line["choice"] == "tie" and not ranks):
                values[f"goal{count}_aside"] = line["choice"]
            if line["reason"]:
                values[f"goal{count}_reason"] = line["reason"]
        if ranks:
            given = {name: {"value": value} for name, value in values.items()}
            record["responses"] = [{"values": given, "status": "submitted", "user_id": person}]
        else:
            record["responses"] = {name: [{"value": value, "user_id": person}] for name, value in values.items()}
    return records


FILLED = {
    "label-studio": _label_studio,
    "argilla": _argilla,
    "argilla, from its server": lambda *given, **named: {"items": _argilla(*given, **named, ranks=True)},
}


def _written(study, folder, how, lines=None, rater="ada"):
    """Return the form, and the file of a tool's export in which a rater has given these answers."""
    form = how.split(",")[0]
    export(study, form, folder, rater)
    file = folder / "export.json"
    page = FILLED[how](study, folder, rater, _answers(study, rater) if lines is None else lines)
    file.write_text(json.dumps(page))
    return form, file


TABLE = {"7": "ada", "7b7f": "ada"}


@pytest.mark.parametrize("how", FILLED)
def test_answers_come_back_as_they_were_given(study, tmp_path, how):
    lines = _answers(study, "ada")
    form, file = _written(study, tmp_path, how, lines)
    before = file.read_bytes()
    back = imported(study, form, file, TABLE)
    assert [{**line, "time": ""} for line in back.lines] == lines
    assert back.notes == ()
    for line in back.lines:
        append(tmp_path / "answers.jsonl", line)
    frame = read_answers(study, [tmp_path / "answers.jsonl"]).frame
    assert set(frame["choice"]) == {*CYCLE}
    assert file.read_bytes() == before


def test_the_time_of_a_task_counts_once_however_many_goals_it_has(tmp_path):
    """2.5 s for both questions are faster than 4 s per task."""
    study = small_study.study(tmp_path, goals=GOALS, exclusions=Exclusions(items=0, attention=0, one_side=1, seconds=4))
    form, file = _written(study, tmp_path, "label-studio")
    page = json.loads(file.read_text())
    for task in page:
        task["annotations"][0]["lead_time"] = 2.5
    file.write_text(json.dumps(page))
    back = imported(study, form, file, TABLE)
    found = conduct(answers_of(study, [("export", line) for line in back.lines])).frame.set_index("rater")
    assert found.loc["ada", "seconds"] == 2.5
    assert found.loc["ada", "left_out"] == "took 2.5 s per task, less than 4.0 s"


@pytest.mark.parametrize("form", FORMS)
def test_an_export_replaces_no_file_with_other_content(study, tmp_path, form):
    files = export(study, form, tmp_path)
    assert export(study, form, tmp_path) == files  # the same again
    files[-1].write_text("what the tool gave back\n")
    files[0].unlink()
    with pytest.raises(FileExistsError, match="is there already, with other content"):
        export(study, form, tmp_path)
    assert files[-1].read_text() == "what the tool gave back\n"
    assert not files[0].exists()


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_blind_and_has_a_file_per_rater(study, tmp_path, form):
    files = export(study, form, tmp_path)
    assert len(files) == len(study.plan.raters) + 1
    for file in files:
        text = file.read_text()
        assert not {"dpo", "bdpo"} & {*text.lower().replace('"', " ").replace(",", " ").split()}
        assert "attention" not in text
        assert "repeat" not in text
    with pytest.raises(ValueError, match="rater must be one of ada, ben, cleo; got 'dora'"):
        export(study, form, tmp_path, "dora")
    with pytest.raises(ValueError, match="form must be one of label-studio, argilla; got 'prodigy'"):
        export(study, "prodigy", tmp_path)


def test_the_labelling_config_has_a_pair_of_texts_and_choices_per_goal(study, tmp_path):
    export(study, "label-studio", tmp_path)
    root = ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    names = {tag.get("name") for tag in root.iter() if tag.get("name")}
    pairs = [tag.get("toName", "").split(",") for tag in root.iter("Pairwise")]
    assert len(pairs) == 2
    assert {name for pair in pairs for name in pair} <= names
    assert len({name for pair in pairs for name in pair}) == 4, "a text's click belongs to one Pairwise"
    assert GOALS[1].question in [tag.get("value") for tag in root.iter("Header")]
    assert [tag.get("alias") for tag in root.iter("Choice")] == ["tie", "skip"] * 2
    values = {tag.get("value", "") for tag in root.iter("Text")}
    data = json.loads((tmp_path / "ada.label-studio.json").read_text())[0]["data"]
    assert {value.lstrip("$") for value in values} <= set(data)


def test_argillas_settings_ask_what_its_records_hold(study, tmp_path):
    export(study, "argilla", tmp_path)
    page = json.loads((tmp_path / "argilla-settings.json").read_text())
    record = json.loads((tmp_path / "ada.argilla.jsonl").read_text().splitlines()[0])
    assert {field["name"] for field in page["fields"]} == set(record["fields"])
    rankings = [one for one in page["questions"] if one["settings"]["type"] == "ranking"]
    assert [one["title"] for one in rankings] == [goal.question for goal in GOALS]
    assert all([option["value"] for option in one["settings"]["options"]] == ["left", "right"] for one in rankings)


def test_without_ties_no_tool_offers_one(tmp_path):
    study = small_study.study(tmp_path, design=Design(items_per_rater=16, raters_per_item=2, ties=False))
    for form, file in (("label-studio", "label-studio.xml"), ("argilla", "argilla-settings.json")):
        export(study, form, tmp_path)
        assert '"tie"' not in (tmp_path / file).read_text()
    lines = [answer_line(study, task, "helpful", "left") for task in assign(study)["ada"]]
    form, file = _written(study, tmp_path, "argilla, from its server", lines)
    page = json.loads(file.read_text())
    for entry in page["items"][3]["responses"][0]["values"]["goal1"]["value"]:
        entry["rank"] = 1
    file.write_text(json.dumps(page))
    _refused(study, form, file, "record 4: choice must be one of left, right, skip")


def test_skipped_tasks_and_discarded_records_are_skips_of_all_goals(study, tmp_path):
    form, file = _written(study, tmp_path, "label-studio")
    page = json.loads(file.read_text())
    page[2]["annotations"][0] |= {"was_cancelled": True, "result": [], "lead_time": 3.5}
    file.write_text(json.dumps(page))
    skipped = [line for line in imported(study, form, file, TABLE).lines if line["place"] == 2]
    assert [(line["choice"], line["seconds"]) for line in skipped] == [("skip", 3.5), ("skip", None)]  # one clock
    form, file = _written(study, tmp_path, "argilla, from its server")
    page = json.loads(file.read_text())
    page["items"][2]["responses"][0] |= {"status": "discarded", "values": None}
    page["items"][3]["responses"][0]["status"] = "draft"
    file.write_text(json.dumps(page))
    back = imported(study, form, file, TABLE)
    assert {line["choice"] for line in back.lines if line["place"] == 2} == {"skip"}
    assert back.notes == (f"2 of {2 * len(assign(study)['ada'])} answers of ada are missing, the first at place 3 for "
                          "'helpful'",)  # fmt: skip


@pytest.mark.parametrize("how", FILLED)
def test_what_is_missing_is_noted_and_the_rest_is_kept(study, tmp_path, how):
    lines = _answers(study, "ada")
    form, file = _written(study, tmp_path, how, lines[:5] + lines[6:])
    back = imported(study, form, file, TABLE)
    assert len(back.lines) == len(lines) - 1
    assert back.notes == (f"1 of {len(lines)} answers of ada are missing, the first at place 2 for 'no harm'",)
    form, file = _written(study, tmp_path, how, [])
    assert imported(study, form, file, TABLE).notes == ("the export holds no answer",)


def _refused(study, form, file, said, table=TABLE):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=said) as error:
        imported(study, form, file, table)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == before


def _about(page):
    """Return what an export carries about its second task."""
    page = page["items"] if isinstance(page, dict) else page
    return page[1]["data"]["gradlab"] if "data" in page[1] else page[1]["metadata"]


CARRIED = [
    (lambda about: about.update(study="0" * 64), ", (task|record) 2: study must be .*another plan's"),
    (lambda about: about.update(export=2), ", (task|record) 2: export must be 1, got 2"),
    (lambda about: about.update(version=2), ", (task|record) 2: version must be 1, got 2"),
    (lambda about: about.update(place=999), ", (task|record) 2: place must be one of ada's tasks, got 999"),
    (lambda about: about.update(place=[1]), ", (task|record) 2: place must be one of ada's tasks"),
    (lambda about: about.update(shown="0" * 16), ", (task|record) 2: shown must be"),
    (lambda about: about.update(item="feed"), ", (task|record) 2: item must be"),
    (lambda about: about.update(rater="ben"), "stands for ada, and the task is ben's"),
    (lambda about: about.clear(), ", (task|record) 2 is no task of a study"),
]


@pytest.mark.parametrize("how", FILLED)
@pytest.mark.parametrize(("change", "said"), CARRIED)
def test_tasks_that_do_not_belong_are_refused(study, tmp_path, how, change, said):
    form, file = _written(study, tmp_path, how)
    page = json.loads(file.read_text())
    change(_about(page))
    file.write_text(json.dumps(page))
    _refused(study, form, file, said)


@pytest.mark.parametrize("how", FILLED)
def test_annotators_are_raters_by_a_table_or_by_their_name(study, tmp_path, how):
    form, file = _written(study, tmp_path, how)
    _refused(study, form, file, "annotator '7.*' must have a rater's pseudonym, given by raters such as .*'ada'", None)
    _refused(study, form, file, "stands for ben, and the task is ada's", dict.fromkeys(TABLE, "ben"))
    with pytest.raises(ValueError, match=r"raters\['7'\] must be one of ada, ben, cleo; got 'dora'"):
        imported(study, form, file, {"7": "dora"})
    file.write_text(file.read_text().replace('"7b7f"', '"ada"').replace('"completed_by": 7', '"completed_by": "ada"'))
    assert imported(study, form, file).lines
    person = '"completed_by": {"id": 3, "email": "ada"}'
    file.write_text(file.read_text().replace('"completed_by": "ada"', person))
    assert imported(study, form, file).lines


@pytest.mark.parametrize("how", FILLED)
def test_equal_answers_count_once_and_different_ones_are_refused(study, tmp_path, how):
    form, file = _written(study, tmp_path, how)
    page = json.loads(file.read_text())
    tasks = page["items"] if isinstance(page, dict) else page
    tasks.append(tasks[0])
    file.write_text(json.dumps(page))
    back = imported(study, form, file, TABLE)
    assert back.notes == ("2 lines stand twice, and count once",)
    assert len(back.lines) == len(_answers(study, "ada"))
    other = json.dumps(tasks[0]).replace('"left"', '"@"').replace('"right"', '"left"').replace('"@"', '"right"')
    tasks[-1] = {**json.loads(other), **{name: tasks[0][name] for name in ("data", "metadata") if name in tasks[0]}}
    file.write_text(json.dumps(page))
    _refused(study, form, file, "ada has answered place 0 for 'helpful' already")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda task: task.pop("annotations"), "task 1 has no data and annotations; an export of Label Studio"),
        (lambda task: task["annotations"][0].pop("result"), "task 1: result must be a list"),
        (lambda task: task["annotations"][0]["result"][0].update(from_name="pw"), "from_name must be a tag of .*'pw'"),
        (lambda task: task["annotations"][0]["result"][0]["value"].update(selected="none"), "selected must be one of"),
        (lambda task: task["annotations"][0]["result"].append(_result("goal1_aside", "choices", {"choices": ["tie"]})),
         "task 1 says two things for 'helpful', left and tie"),
        (lambda task: task["annotations"][0]["result"].append(_result("goal1", "pairwise", {"selected": "right"})),
         "task 1 has two answers of goal1: 'left' and 'right'"),
        (lambda task: task["annotations"][0].update(lead_time="long"), "task 1: seconds must"),
        (lambda task: task["annotations"][0].update(completed_by=None), "annotator 'nobody' must have"),
    ],
)  # fmt: skip
def test_exports_of_label_studio_that_say_something_else_are_refused(study, tmp_path, change, said):
    form, file = _written(study, tmp_path, "label-studio")
    page = json.loads(file.read_text())
    change(page[0])
    file.write_text(json.dumps(page))
    _refused(study, form, file, said)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["left"], "record 1: goal1 must rank left and right, each once"),
        (["left", "left"], "must rank left and right"),
        (["left", "middle"], "must rank left and right"),
        ("left", "must be a list of left and right"),
        ([{"value": "left", "rank": 1}, {"value": "right"}], "must give a rank to left and to right"),
        ([{"value": "left", "rank": "1"}, {"value": "right", "rank": 2}], "must give a rank"),
        ([{"value": "left", "rank": 1}, "right"], "must give a rank to left and to right"),
    ],
)
def test_rankings_that_rank_something_else_are_refused(study, tmp_path, value, said):
    form, file = _written(study, tmp_path, "argilla")
    page = json.loads(file.read_text())
    page[0]["responses"]["goal1"][0]["value"] = value
    file.write_text(json.dumps(page))
    _refused(study, form, file, said)


@pytest.mark.parametrize("form", FORMS)
def test_files_that_are_no_export_are_refused(study, tmp_path, form):
    file = tmp_path / "export.json"
    for content, said in (
        (b"", "is torn or no JSON; an export of"),
        (b'[{"data": ', "is torn or no JSON"),
        (b"3", "holds no list of objects"),
        (b"[3]", "holds no list of objects"),
        (b'{"prompt": "q"}', "(task|record) 1 has no"),
        (b'{"data": {}, "annotations": []}\n{"data": ', "ends within a line"),
        (b"k\xfche", "is torn or no JSON"),
        ("[]".encode("utf-16"), "must be UTF-8, and is UTF-16"),
    ):
        file.write_bytes(content)
        _refused(study, form, file, said)
