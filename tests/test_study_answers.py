"""Assignment and answers of a study: balanced, blind, and each answer held against the plan."""

import json
from collections import Counter
from itertools import permutations

import pytest
import small_study

from gradlab.study.answers import UNDO, answers_of, append, read_answers
from gradlab.study.assignment import GOOD, as_frame, assign, tasks_of
from gradlab.study.plan import Design, Goal


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"), 60)


def test_items_are_dealt_evenly_and_to_as_many_raters_as_planned(study):
    tasks = as_frame(assign(study))
    first = tasks[tasks["kind"] == "item"]
    assert set(first.groupby("rater").size()) == {40}
    assert set(first.groupby("item")["rater"].nunique()) == {2}
    assert len(first["item"].unique()) == 60
    assert set(tasks[tasks["kind"] == "attention"].groupby("rater").size()) == {2}
    assert set(tasks[tasks["kind"] == "repeat"].groupby("rater").size()) == {10}
    together = Counter(frozenset(raters) for _, raters in first.groupby("item")["rater"])
    assert min(together.values()) > 10, "every two raters share items, else their differences cannot be told"


def test_sides_are_blind_and_half_of_the_items_are_seen_in_both_orders(study):
    tasks = as_frame(assign(study))
    first = tasks[tasks["kind"] == "item"]
    assert 0.35 < (first["left"] == "bdpo").mean() < 0.65
    orders = first.groupby("item")["left"].nunique()
    assert 0.5 <= (orders == 2).mean() <= 0.95  # half by plan, and half of the others by lot


def test_a_repeat_exchanges_the_sides_and_comes_after_the_first(study):
    for rater, tasks in assign(study).items():
        first = {task.item: task for task in tasks if task.kind == "item"}
        assert [task.place for task in tasks] == list(range(len(tasks)))
        for task in tasks:
            assert task.rater == rater
            if task.kind == "repeat":
                assert task.left == first[task.item].right
                assert task.place > first[task.item].place


def test_lists_are_the_same_again_and_others_with_another_seed(study, tmp_path):
    assert assign(study) == assign(study)
    other = small_study.study(tmp_path, 60, seed=4)
    assert assign(other)["ada"] != assign(study)["ada"]
    with pytest.raises(ValueError, match="rater must be one of ada, ben, cleo; got 'dora'"):
        tasks_of(study, "dora")


def test_a_judge_sees_every_item_in_both_orders(tmp_path):
    study = small_study.study(tmp_path, judges=("reward model",))
    tasks = assign(study)["reward model"]
    seen = Counter((task.item, task.left) for task in tasks)
    assert len(seen) == 2 * len(study.shown) == len(tasks)


def test_answers_are_read_with_what_they_are_about(study, tmp_path):
    file = tmp_path / "ada.jsonl"
    small_study.answers_of(study, lambda task: "left" if task.left == "bdpo" else "right", file)
    answers = read_answers(study, [file])
    first = answers.of("item")
    assert len(first) == 120
    assert (first["score"] == 1).all(), "everybody prefers bdpo, wherever it stands"
    assert (answers.of("attention")["score"] == 1).all()
    assert first["longer"].iloc[0] == pytest.approx(first["longer"].mean())
    assert first["longer"].iloc[0] > 0
    assert (first["b_left"] == (first["left"] == "bdpo")).all()


def test_ties_and_skips_have_their_scores(study, tmp_path):
    file = tmp_path / "answers.jsonl"
    small_study.answers_of(study, lambda task: ("tie", "skip")[task.place % 2], file)
    first = read_answers(study, [file]).of("item")
    assert set(first["score"].dropna()) == {0.5}
    assert first["score"].isna().sum() == (first["choice"] == "skip").sum() > 0


def _first(of, **changes):
    return {**small_study.answers_of(of)[0], **changes}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": "0" * 64}, "another plan's"),
        ({"version": 2}, "version must be 1, got 2"),
        ({"rater": "dora"}, "rater must be one of ada, ben, cleo; got 'dora'"),
        ({"place": 999}, "place must be one of ada's tasks, got 999"),
        ({"item": "feed"}, "item must be"),
        ({"shown": "0" * 16}, "shown must be"),
        ({"goal": "harmless"}, "goal must be one of helpful"),
        ({"choice": "both"}, "choice must be one of left, right, tie, skip, undo"),
        ({"seconds": -1}, "seconds must"),
    ],
)
def test_an_answer_that_does_not_belong_is_refused_with_file_and_line(study, tmp_path, changes, said):
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps(_first(study, **changes)) + "\n")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=said) as error:
        read_answers(study, [file])
    assert f"{file}, line 1" in str(error.value)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == before


@pytest.mark.parametrize("order", [1, -1])
def test_two_files_that_go_on_differently_from_one_answer_are_no_answer(study, tmp_path, order):
    files = []
    for name, choice in (("x", "right"), ("y", "tie")):
        files.append(tmp_path / f"{name}.jsonl")
        undone = _first(study, choice=UNDO, time=f"2{name}")
        for line in (_first(study, time="1"), undone, _first(study, choice=choice, time=f"3{name}")):
            append(files[-1], line)
    with pytest.raises(ValueError, match=r"takes back left at place .* another file has (right|tie) there"):
        read_answers(study, files[::order])


def test_files_that_both_go_on_are_read_in_the_order_in_which_they_fit(study, tmp_path):
    left, right = _first(study, time="1"), _first(study, choice="right", time="4")
    one, other = (_first(study, choice=UNDO, time=time) for time in "23")
    merged, second, undone = tmp_path / "merged.jsonl", tmp_path / "own.jsonl", tmp_path / "undone.jsonl"
    for file, lines in ((merged, (left, one, other, right)), (second, (left, other, right)), (undone, (left, one))):
        for line in lines:
            append(file, line)
    for files in permutations((merged, second, undone)):
        assert list(read_answers(study, files).frame["choice"]) == ["right"]
    for files in permutations((second, undone)):
        assert list(read_answers(study, files).frame["choice"]) == ["right"]


def test_a_line_that_stands_twice_in_a_file_says_nothing_new(study, tmp_path):
    left, file = _first(study, time="1"), tmp_path / "answers.jsonl"
    undone = [_first(study, choice=UNDO, time=time) for time in "25"]
    for line in (left, undone[0], _first(study, choice="right", time="3"), left, undone[1]):
        append(file, line)
    append(file, _first(study, choice="tie", time="6"))
    assert list(read_answers(study, [file]).frame["choice"]) == ["tie"]


def test_an_answer_is_changed_by_taking_it_back(study, tmp_path):
    file = tmp_path / "answers.jsonl"
    append(file, _first(study))
    append(file, _first(study, choice="right"))
    with pytest.raises(ValueError, match=r"already, otherwise .left.; an answer is changed by taking it back"):
        read_answers(study, [file])
    append(file, _first(study, time="later"))
    file.write_text("".join(file.read_text().splitlines(keepends=True)[::2]))
    with pytest.raises(ValueError, match=r"already, with another time or reason .left."):
        read_answers(study, [file])
    file.unlink()
    for line in (_first(study), _first(study, choice=UNDO), _first(study, choice="right")):
        append(file, line)
    assert list(read_answers(study, [file]).frame["choice"]) == ["right"]


def test_equal_lines_count_once_and_a_torn_one_not_at_all(study, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text(2 * (json.dumps(_first(study)) + "\n") + '{"study": "')
    answers = read_answers(study, [file])
    assert len(answers.frame) == 1
    assert answers.notes == (f"the last line of {file} was cut short, and counts as not written",
                             "1 line stands twice, and counts once")  # fmt: skip


_TIME = "2026-01-01T10:00:00.000Z"


@pytest.mark.parametrize(
    ("names", "time"),
    [
        *(((*names,), time) for names in ("no", "on", "nn", "non") for time in ("", _TIME)),
        (("both",), _TIME),  # without times nothing tells such a file from one in which the answer was given anew
    ],
)
@pytest.mark.parametrize(
    ("after", "left"), [((), []), (("right",), ["right"]), (("left",), ["left"]), (("left", UNDO), [])]
)
def test_an_earlier_file_changes_nothing_beside_a_later_one(study, tmp_path, time, names, after, left):
    """A browser calls the second export ``ada.answers (1).jsonl``, which comes first by name."""
    lines = [
        json.dumps(_first(study, choice=choice, time=time and time.replace("00Z", f"0{number}Z"))) + "\n"
        for number, choice in enumerate(("left", UNDO, *after))
    ]
    files = {"o": lines[:1], "n": lines, "both": [*lines, *lines[:1]]}
    for name, content in files.items():
        (tmp_path / name).write_text("".join(content))
    answers = read_answers(study, [tmp_path / name for name in names])
    assert list(answers.frame["choice"]) == left


def test_an_answer_without_a_time_may_be_given_again_after_it_was_taken_back(study):
    lines = [_first(study, choice=choice, time="") for choice in ("left", UNDO, "left", "left")]
    answers = answers_of(study, [("here", line) for line in lines])
    assert list(answers.frame["choice"]) == ["left"]
    assert answers.notes == ("1 line stands twice, and counts once",)


def test_an_answer_names_no_system(study):
    for line in small_study.answers_of(study):
        assert not {"dpo", "bdpo", "good", "bad"} & {str(value) for value in line.values()}


def test_ties_can_be_forbidden(tmp_path):
    study = small_study.study(tmp_path, design=Design(items_per_rater=16, raters_per_item=2, ties=False))
    with pytest.raises(ValueError, match="choice must be one of left, right, skip, undo"):
        small_study.answers_of(study, lambda task: "tie")


def test_each_goal_has_its_answer(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which response does less harm?"))
    study = small_study.study(tmp_path, goals=goals)
    small_study.answers_of(study, path=tmp_path / "answers.jsonl")
    frame = read_answers(study, [tmp_path / "answers.jsonl"]).of("item")
    assert set(frame.groupby("goal").size()) == {48}
    assert GOOD not in set(frame["left"])
