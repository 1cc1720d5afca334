"""A study's rating in a notebook: each answer is held against the study, appended to the file, and gone on from."""

import contextlib
import json
import multiprocessing
import re

import pytest
from small_study import answers_of, plan, study, two_goals_study, write_samples

from gradlab.study.answers import answer_line, append, read_answers
from gradlab.study.assignment import tasks_of
from gradlab.study.blind import blind_list
from gradlab.study.frozen import freeze, read_study
from gradlab.study.rating_file import RatingFile
from gradlab.study.results import Results
from gradlab.widgets import StudyRating


@pytest.fixture
def made(tmp_path):
    return study(tmp_path)


@pytest.fixture
def two_goals(tmp_path):
    return two_goals_study(tmp_path)


class Recorded(StudyRating):
    """A rating that keeps what it sends to the page in ``sent``."""

    def __init__(self, *given):
        self.sent = []
        super().__init__(*given)

    def send(self, content, buffers=None):
        self.sent.append(content)


@pytest.fixture
def shown(tmp_path):
    """A function that shows a rating."""
    widgets = []

    def show(study, rater="ada", answers=None):
        rating = Recorded(study, rater, answers if answers is not None else tmp_path / f"{rater}.answers.jsonl")
        widgets.append(rating)
        return rating

    yield show
    for rating in widgets:
        rating.close()


def lines_of(study, rater="ada"):
    return [line for line in answers_of(study) if line["rater"] == rater]


def press(rating, *lines, number=1):
    """Send lines as the page does; return what is said against them, or ""."""
    rating._handle_custom_msg({"lines": list(lines), "number": number}, [])
    assert rating.sent[-1]["to"] == number
    return rating.sent[-1].get("error", "")


def test_a_page_is_given_the_blind_list_and_its_answers_are_a_file_that_the_report_takes(made, shown):
    rating = shown(made)
    assert rating.given == blind_list(made, "ada")
    assert rating.lines == []
    for line in lines_of(made):
        assert press(rating, line) == ""
    assert rating.lines == lines_of(made)
    assert [json.loads(line) for line in rating.path.read_text().splitlines()] == lines_of(made)
    assert rating.done == len(tasks_of(made, "ada"))
    others = rating.path.with_name("others.jsonl")
    others.write_text("".join(json.dumps(line) + "\n" for line in answers_of(made) if line["rater"] != "ada"))
    assert Results(read_answers(made, [rating.path, others])).verdict.word


def test_it_goes_on_where_the_file_ends_also_within_a_task(two_goals, shown):
    first = shown(two_goals)
    for _ in range(3):
        first.answer("left", seconds=2.0)
    again = shown(two_goals)
    assert (again.done, again.lines) == (1, first.lines)
    again.answer("tie")
    assert again.done == 2
    assert list(again.answers().frame["goal"]) == ["help", "harm", "help", "harm"]


def test_the_last_task_is_taken_back_with_all_its_goals(two_goals, shown):
    rating = shown(two_goals)
    for choice in ("left", "right", "tie"):
        rating.answer(choice)
    rating.undo()
    assert rating.done == 1
    rating.undo()
    assert rating.done == 0
    assert rating.answers().frame.empty
    assert [line["choice"] for line in rating.lines] == ["left", "right", "tie", "undo", "undo", "undo"]
    with pytest.raises(ValueError, match=r"^ada has no answer to take back$"):
        rating.undo()


def test_a_skip_keeps_its_reason(made, shown):
    rating = shown(made)
    rating.answer("skip", reason="a text is cut off")
    assert list(rating.answers().frame[["choice", "reason"]].iloc[0]) == ["skip", "a text is cut off"]


def test_no_answer_is_taken_after_the_last_one(made, shown):
    rating = shown(made)
    for line in lines_of(made):
        append(rating.path, line)
    number = len(tasks_of(made, "ada"))
    with pytest.raises(ValueError, match=f"^ada has answered all {number} tasks$"):
        rating.answer("left")
    assert press(rating, lines_of(made)[0]) == f"ada has answered all {number} tasks"


@pytest.mark.parametrize(("changes", "said"), [
    ({"place": 1}, "place must be 0, the one that is open; got 1: the answers went on"),
    ({"choice": "undo"}, "ada has no answer to take back"),
    ({"choice": "both"}, "choice must be one of left, right, tie, skip, undo; got 'both'"),
    ({"goal": "wit"}, "goal must be one of helpful; got 'wit'"),
    ({"goal": None}, "goal must be one of helpful; got None"),
    ({"study": "0"}, "study must be '"),
    ({"rater": "ben"}, "rater must be 'ada', got 'ben'"),
    ({"shown": "0"}, "shown must be '"),
    ({"version": 0}, "version must be 1, got 0"),
    ({"seconds": -1}, "seconds must be "),
    ({"seconds": float("nan")}, "seconds must be "),
    ({"reason": None}, "reason must be a text, got None"),
    ({"more": 1}, "more must be None, got 1"),
])  # fmt: skip
def test_a_line_that_the_study_would_not_write_is_refused_and_nothing_is_written(made, shown, changes, said):
    rating = shown(made)
    error = press(rating, {**lines_of(made)[0], **changes})
    assert error.startswith(said)
    assert "\n" not in error
    assert not rating.path.exists()


@pytest.mark.parametrize("message", [None, {}, {"lines": 3}, {"lines": [None]}, {"lines": ["x"]}])
def test_a_message_that_holds_no_lines_is_answered_by_an_error(made, shown, message):
    rating = shown(made)
    rating._handle_custom_msg(message, [])
    assert rating.sent[-1]["error"]
    assert not rating.path.exists()


def test_two_windows_on_one_file_take_no_answer_to_what_is_not_open(made, shown):
    here, there = shown(made), shown(made)
    first, second, *_ = lines_of(made)
    assert press(here, first) == ""
    assert press(there, first) == "place must be 1, the one that is open; got 0: the answers went on"
    assert there.lines == here.lines == [first]  # the page shows now what is open
    assert press(there, second) == ""
    assert [line["place"] for line in RatingFile(made, "ada", here.path).lines()] == [0, 1]


def race(folder, start):
    """Answer a rater's tasks until the file refuses; runs in another process."""
    made = read_study(folder / "study.json")
    file = RatingFile(made, "ada", folder / "ada.answers.jsonl")
    start.wait(30)
    while (found := file.open()) is not None:
        with contextlib.suppress(ValueError):  # another was faster
            file.take([answer_line(made, found[0], "helpful", "left", seconds=1.0)])


@pytest.mark.slow
def test_processes_that_write_at_once_leave_one_answer_per_task(made, tmp_path):
    made.write(tmp_path / "study.json")
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    writers = [context.Process(target=race, args=(tmp_path, start)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    frame = read_answers(made, [tmp_path / "ada.answers.jsonl"]).frame
    assert list(frame["place"]) == list(range(len(tasks_of(made, "ada"))))


def test_a_line_that_was_cut_short_counts_as_not_written(made, shown):
    rating = shown(made)
    rating.answer("left")
    rating.answer("right")
    rating.path.write_text(rating.path.read_text()[:-10])
    again = shown(made)
    assert again.done == 1
    again.answer("tie")
    assert list(again.answers().frame["choice"]) == ["left", "tie"]


def test_files_and_names_that_do_not_fit_are_refused_in_one_line(made, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^rater must be one of ada, ben, cleo; got 'dora'$"):
        StudyRating(made, "dora")
    other = study(tmp_path, seed=4)
    file = tmp_path / "other.jsonl"
    append(file, lines_of(other)[0])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}, line 1: study must be {made.hash[:12]}"):
        StudyRating(made, "ada", file)
    with pytest.raises(FileNotFoundError, match=r"^answers must be a file in a folder that is there, got .*/none/a$"):
        StudyRating(made, "ada", tmp_path / "none/a")
    assert not list(tmp_path.glob("*.answers.jsonl"))


def test_answers_stand_beside_the_studys_file(made, tmp_path):
    made.write(tmp_path / "study.json")
    rating = StudyRating(tmp_path / "study.json", "ben")
    assert rating.path == tmp_path / "ben.answers.jsonl"
    rating.close()


def test_a_notebook_shows_a_picture_of_the_open_task_where_nothing_runs(made, shown):
    rating = shown(made)
    bundle = rating._repr_mimebundle_()
    number = len(tasks_of(made, "ada"))
    assert bundle["text/plain"] == f"StudyRating: a small study, 0 of {number} tasks answered"
    assert "application/vnd.jupyter.widget-view+json" in bundle
    first = rating.png()
    assert first.startswith(b"\x89PNG")
    assert first == rating.png()
    rating.answer("left")
    assert rating.png() != first


def test_a_text_of_letters_that_the_font_lacks_has_its_picture_without_a_warning(tmp_path):
    texts = {"dpo": "\U0001f389 party", "bdpo": "\u0915\u094d\u0937 words"}
    write_samples(tmp_path, text=lambda system, place: f"{texts[system]} {place}")
    assert StudyRating(freeze(plan(), tmp_path), "ada", tmp_path / "ada.jsonl").png().startswith(b"\x89PNG")
