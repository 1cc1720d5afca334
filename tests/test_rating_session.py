"""A rater's work in the page, in Node: its lines are Python's; it goes on where it stopped, and refuses other lines."""

import dataclasses
import json

import pytest
from node import needs_node, with_rating
from small_study import TWO_GOALS, answers_of, plan, study, two_goals_study

from gradlab.study.answers import answer_line, read_answers
from gradlab.study.assignment import tasks_of
from gradlab.study.blind import blind_list

pytestmark = needs_node
MADE = "const session = new rating.RatingSession(given.list, given.lines ?? []);"
TIME = "2026-01-02T03:04:05.678Z"


@pytest.fixture
def made(tmp_path):
    return study(tmp_path)


@pytest.fixture
def two_goals(tmp_path):
    return two_goals_study(tmp_path)


def run(study, body, lines=(), rater="ada"):
    """Return what a function's body returns that has a session of this rater with some lines."""
    return with_rating(MADE + body, {"list": blind_list(study, rater), "lines": list(lines)})


def refused(study, lines, rater="ada"):
    """Return the sentence by which lines are refused."""
    body = (
        "try { new rating.RatingSession(given.list, given.lines); return ''; } catch (error) { return error.message; }"
    )
    return with_rating(body, {"list": blind_list(study, rater), "lines": list(lines)})


def lines_of(study, rater="ada", choose=lambda task: "left"):
    return [line for line in answers_of(study, choose) if line["rater"] == rater]


ALL = """
  const choices = ["left", "right", "tie", "skip"];
  for (let at = 0; session.task; at++) {
    session.take([session.answer(choices[at % 4], at / 8, "2026-01-02T03:04:05.678Z", at % 4 === 3 ? "cut off" : "")]);
  }
  return { lines: session.lines, text: rating.textOfLines(session.lines), done: session.done };
"""


def test_its_lines_are_those_of_python_and_the_file_is_read(two_goals, tmp_path):
    found = run(two_goals, ALL)
    tasks, choices = tasks_of(two_goals, "ada"), ["left", "right", "tie", "skip"]
    asked = [(task, goal.name) for task in tasks for goal in TWO_GOALS]
    expected = [
        answer_line(two_goals, task, goal, choices[at % 4], seconds=at / 8, reason="cut off" * (at % 4 == 3), time=TIME)
        for at, (task, goal) in enumerate(asked)
    ]
    assert found["lines"] == expected
    assert [list(line) for line in found["lines"]] == [list(line) for line in expected]  # the order of keys too
    assert found["done"] == len(tasks)
    file = tmp_path / "ada.answers.jsonl"
    file.write_text(found["text"], "utf-8")
    answers = read_answers(two_goals, [file])
    assert len(answers.frame) == len(expected)
    assert answers.notes == ()


def test_the_last_task_is_taken_back_with_all_its_questions_and_python_agrees(two_goals, tmp_path):
    body = """
      const say = (choice) => session.take([session.answer(choice, 1, `t${session.lines.length}`)]);
      ["left", "left", "right", "tie"].forEach(say);
      session.take(session.undo("t4"));
      const after = [session.task.place, session.goal, session.done];
      say("tie"); // a part of the task
      session.take(session.undo("t7"));
      session.take(session.undo("t8"));
      const empty = [session.task.place, session.undo("t9").length];
      ["right", "right"].forEach(say);
      return { after, empty, text: rating.textOfLines(session.lines) };
    """
    found = run(two_goals, body)
    assert found["after"] == [1, "help", 1]
    assert found["empty"] == [0, 0]
    file = tmp_path / "ada.answers.jsonl"
    file.write_text(found["text"])
    frame = read_answers(two_goals, [file]).frame
    assert list(zip(frame["place"], frame["goal"], frame["choice"], strict=True)) == [
        (0, "help", "right"),
        (0, "harm", "right"),
    ]


def test_it_goes_on_where_lines_end_within_a_task_too(two_goals):
    lines = lines_of(two_goals)[:5]
    found = run(two_goals, "return [session.done, session.task.place, session.goal, session.openGoals(2)];", lines)
    assert found == [2, 2, "harm", ["harm"]]
    twice = run(two_goals, "return [session.done, session.lines.length];", [*lines, *lines[1:3]])
    assert twice == [2, 5]


def test_a_skip_may_hold_for_all_open_questions(two_goals):
    body = """
      session.take(session.skipAll(3.5, "t", "not my subject"));
      return [session.task.place, session.lines.map((one) => [one.goal, one.choice, one.reason, one.seconds])];
    """
    place, lines = run(two_goals, body)
    assert place == 1
    assert lines == [["help", "skip", "not my subject", 3.5], ["harm", "skip", "not my subject", None]]


def test_a_tie_is_offered_where_the_plan_allows_it_alone(tmp_path):
    base = plan()
    without = study(tmp_path, design=dataclasses.replace(base.design, ties=False))
    assert run(without, "return session.choices;") == ["left", "right", "skip"]
    (line, *_) = lines_of(without)
    assert refused(without, [{**line, "choice": "tie"}]) == (
        'line 1: choice must be left, right, skip, undo, got "tie"'
    )


@pytest.mark.parametrize(("changes", "said"), [
    ({"study": "0" * 64}, 'line 2: study must be "SHORT…", got "000000000000…": answers of another study'),
    ({"version": 2}, "line 2: version must be 1, got 2: a file of another version"),
    ({"rater": "ben"}, 'line 2: rater must be "ada", got "ben": answers of another rater'),
    ({"place": 99}, "line 2: place must be 0 to LAST, got 99"),
    ({"item": "x"}, 'line 2: item must be the one assigned there, got "x"'),
    ({"goal": "wit"}, 'line 2: goal must be helpful, got "wit"'),
    ({"choice": "both"}, 'line 2: choice must be left, tie, right, skip, undo, got "both"'),
    ({"seconds": -1}, "line 2: seconds must be 0 or more, or null, got -1"),
    ({"seconds": "fast"}, 'line 2: seconds must be 0 or more, or null, got "fast"'),
    ({"reason": None}, "line 2: reason must be a text, got null"),
    ({"place": 0, "choice": "right"}, "line 2: item must be the one assigned there, got "),
])  # fmt: skip
def test_what_is_not_its_own_is_refused_in_one_sentence(made, changes, said):
    first, second, *_ = lines_of(made)
    said = said.replace("SHORT", made.hash[:12]).replace("LAST", str(len(tasks_of(made, "ada")) - 1))
    assert refused(made, [first, {**second, **changes}]).startswith(said)
    assert refused(made, [first, second]) == ""


def test_two_answers_to_one_question_are_refused_and_nothing_of_them_counts(made):
    first, second, *_ = lines_of(made)
    other = {**first, "choice": "right" if first["choice"] == "left" else "left"}
    body = """
      let said = "";
      try { session.take(given.more); } catch (error) { said = error.message; }
      return [said, session.done, session.lines.length];
    """
    given = {"list": blind_list(made, "ada"), "lines": [first], "more": [second, other]}
    said, done, number = with_rating(MADE + body, given)
    assert said == (f'line 2: place 0 has an answer to "helpful" already, {first["choice"]}; got {other["choice"]}')
    assert (done, number) == (1, 1)


def test_two_files_are_joined_in_whichever_order_they_fit(made):
    first, second, *_ = lines_of(made)
    other = {**first, "choice": "tie", "time": "later"}
    undo, undo_other = {**first, "choice": "undo", "time": "u"}, {**other, "choice": "undo", "time": "v"}
    cases = [
        ([first], [first, second], 2),
        ([first, undo], [other, second], 2),  # taken back here, answered there
        ([first], [other, undo_other, first, second], 2),  # the other way round
        ([first], [first, undo, other], 1),
        ([first], [other], None),
        ([first, undo, other], [first, {**undo, "time": "w"}, {**first, "choice": "right", "time": "x"}], None),
        ([first, undo, other], [first, {**undo, "time": "w"}], 1),  # an answer stays, whoever took the former one back
        ([first, {**undo, "time": "w"}], [first, undo, other], 1),
    ]
    body = """
      return given.cases.map(([here, there]) => {
        try { return rating.joined(given.list, here, there).done; } catch { return null; }
      });
    """
    found = with_rating(body, {"list": blind_list(made, "ada"), "cases": cases})
    assert found == [expected for *_, expected in cases]


def test_a_file_whose_last_line_was_cut_short_is_read_without_it(made):
    lines = lines_of(made)[:3]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    body = (
        "return given.texts.map((text) => { const { lines, torn } = rating.linesOfText(text); return [lines, torn]; });"
    )
    whole, torn, marked = with_rating(body, {"texts": [text, text[:-20], "\ufeff" + text.replace("\n", "\r\n")]})
    assert whole == marked == [lines, False]
    assert torn == [lines[:2], True]


@pytest.mark.parametrize("text", ["nothing", '{"a": 1}\n[2]\n', '{"a": 1}\n{"a": \n{"a": 2}\n', '{"a"'])
def test_a_file_that_holds_something_else_is_refused_by_its_line(text):
    body = "try { rating.linesOfText(given); return ''; } catch (error) { return error.message; }"
    line = 1 if text in ("nothing", '{"a"') else 2
    assert with_rating(body, text) == f"line {line} is no JSON object; a file of answers has one per line"


def test_seconds_count_while_the_page_is_seen_alone():
    body = """
      let now = 1000;
      const watch = new rating.Stopwatch(() => now);
      const seen = [];
      const wait = (more) => { now += more; seen.push(watch.seconds); };
      wait(500);
      watch.run(true); watch.run(true);
      wait(1500);
      watch.run(false);
      wait(60000);
      watch.run(true);
      wait(250);
      watch.restart();
      wait(2000);
      watch.run(false);
      watch.restart();
      wait(9);
      return seen;
    """
    assert with_rating(body, None) == [0, 1.5, 1.5, 1.75, 2, 0]
