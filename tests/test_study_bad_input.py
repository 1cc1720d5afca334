"""Bad input to a study: one clear line that names file, line or field, and no file is touched."""

import dataclasses
import hashlib
import json

import pytest
import small_study

from gradlab.store.sealed import sealed
from gradlab.study.answers import read_answers
from gradlab.study.frozen import freeze, read_study
from gradlab.study.plan import Design, Goal, Plan, Primary


@pytest.fixture
def unchanged(tmp_path):
    """Hold the files of the folder to what they are when they are marked."""
    held = {}

    def mark():
        held.update({file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()})

    yield mark
    assert held
    assert {file: file.read_bytes() for file in held} == held


def _refused(call, said, kind: type[Exception] = ValueError):
    """Return the one line with which a call refuses."""
    with pytest.raises(kind, match=said) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def _samples(folder, *lines, name="samples.jsonl"):
    file = folder / name
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


# The plan


@pytest.mark.parametrize(
    "rater",
    [
        "../ada",
        "ada/1",
        "a\\b",
        ".ada",
        "-ada",
        "ada.",
        "CON",
        "nul.txt",
        "ada@host.org",
        "a:b",
        "a*",
        "x" * 65,
    ],
)
def test_a_pseudonym_that_no_file_should_be_called_is_refused(rater):
    said = _refused(lambda: small_study.plan(raters=("ben", "cleo", rater)), "raters must")
    assert "letters, digits" in said


def test_pseudonyms_that_some_systems_take_for_one_file_are_refused():
    _refused(lambda: small_study.plan(raters=("ada", "Ada", "cleo")), "raters must differ in more than .*'Ada'")
    _refused(lambda: small_study.plan(raters=("Zo\u00eb", "Zoe\u0308", "cleo")), "raters must")
    assert small_study.plan(raters=("rater 1", "r-2", "Zo\u00eb")).raters[2] == "Zo\u00eb"


def test_a_goal_names_a_table_and_so_a_file(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless/honest", question="Which is better?"))
    _refused(lambda: small_study.plan(goals=goals), "goals must .*'harmless/honest'")


def test_a_plan_that_is_torn_or_of_another_encoding_is_refused_with_its_file(tmp_path, unchanged):
    file = tmp_path / "plan.toml"
    small_study.plan().write(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.index(b"[primary]") + 4])
    unchanged()
    _refused(lambda: Plan.read(file), f"{file} is no TOML")
    other = tmp_path / "other.toml"
    other.write_bytes(whole.replace(b"small study", b"k\xfchle Studie"))
    _refused(lambda: Plan.read(other), f"{other} is no TOML.*utf-8")
    other.write_bytes(whole.decode().encode("utf-16"))
    _refused(lambda: Plan.read(other), "must be UTF-8, and is UTF-16")
    _refused(lambda: Plan.read(tmp_path / "none.toml"), "must be a file", FileNotFoundError)


def test_a_plan_without_a_margin_and_one_with_fewer_items_than_raters_need_are_refused(tmp_path, unchanged):
    file = tmp_path / "plan.toml"
    small_study.plan().write(file)
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("margin")))
    small_study.write_samples(tmp_path, 10)
    unchanged()
    _refused(lambda: Plan.read(file), rf"{file}: primary\.margin must be given")
    said = _refused(lambda: freeze(small_study.plan(), tmp_path), "need 24 items, and there are 10")
    assert "3 raters with 16 items, 2 raters per item" in said


# Samples


def _freeze(folder, *lines, **changes):
    """Freeze a plan of one rater and as many items as there are lines."""
    _samples(folder, *lines)
    design = Design(items_per_rater=len(lines), raters_per_item=1, attention=1, **changes.pop("design", {}))
    return freeze(small_study.plan(raters=("ada",), design=design, **changes), folder)


def _line(number, dpo=None, bdpo=None):
    return {"prompt": f"question {number}", "samples": {"dpo": dpo or f"one {number}", "bdpo": bdpo or f"two {number}"}}


@pytest.mark.parametrize("text", ["DPO: it is so", "[dpo] it is so", "As dpo I say so", "**Dpo**: it is so"])
def test_a_text_that_names_its_system_is_refused(tmp_path, text):
    _refused(lambda: _freeze(tmp_path, _line(1), _line(2, dpo=text)), "must not reveal their system: .*'question 2'")


@pytest.mark.parametrize("label", ["DPO:", "(DPO):", "Helpful DPO:"])
def test_a_label_before_a_text_that_is_part_of_a_systems_name_is_refused(tmp_path, label):
    lines = [{"prompt": "q", "samples": {"sft-1": "first", "helpful-dpo-2": f"{label} second"}}]
    primary = Primary(a="sft-1", b="helpful-dpo-2", goal="helpful", margin=0.05)
    systems = {"sft-1": "samples.jsonl", "helpful-dpo-2": "samples.jsonl"}
    said = _refused(lambda: _freeze(tmp_path, *lines, systems=systems, primary=primary), "must not reveal")
    assert "label" in said
    lines[0]["samples"]["helpful-dpo-2"] = "Note: the helpful one is second"
    assert _freeze(tmp_path, *lines, systems=systems, primary=primary).items


def test_a_text_that_names_a_third_system_is_refused(tmp_path):
    lines = [{"prompt": f"q {n}", "samples": {"sft": f"a {n}", "dpo": f"b {n}", "bdpo": "I am SFT"}} for n in range(3)]
    systems = dict.fromkeys(("sft", "dpo", "bdpo"), "samples.jsonl")
    _refused(lambda: _freeze(tmp_path, *lines, systems=systems, pairs=(("dpo", "bdpo"),)), "must not reveal.*'sft'")


def test_texts_that_differ_only_in_white_space_at_their_ends_are_identical(tmp_path):
    lines = [_line(1), _line(2, "the same", "the same\n")]
    _refused(lambda: _freeze(tmp_path, *lines), "1 of 2 items have the same text")
    small_study.write_samples(
        tmp_path, 26, text=lambda system, place: "same" + "\n" * len(system) if place < 2 else None
    )
    design = Design(items_per_rater=8, raters_per_item=2, identical="tie")
    study = freeze(small_study.plan(design=design), tmp_path)
    assert (len(study.shown), len(study.items)) == (12, 13)


def test_empty_texts_and_empty_prompts_are_refused(tmp_path):
    _refused(
        lambda: _freeze(tmp_path, _line(1), _line(2, bdpo=" \n")), "line 2: the sample of 'bdpo' must not be empty"
    )
    _refused(lambda: _freeze(tmp_path, _line(1), {**_line(2), "prompt": " "}), "line 2: prompt must not be empty")


def test_a_text_of_a_megabyte_is_refused_since_nobody_reads_it(tmp_path):
    said = _refused(
        lambda: _freeze(tmp_path, _line(1, dpo="word " * 200_000)), "line 1: the sample of 'dpo' must have at most"
    )
    assert len(said) < 300
    assert "1,000,000" in said
    _refused(lambda: _freeze(tmp_path, {**_line(1), "prompt": "why " * 250_000}), "line 1: prompt must have at most")


def test_prompts_that_differ_only_in_white_space_are_refused(tmp_path):
    lines = [_line(1), {**_line(2), "prompt": "question  1 "}]
    _refused(
        lambda: _freeze(tmp_path, *lines), "differs only in white space from one in .*: .question  1 . and .question 1."
    )
    _samples(tmp_path, {"prompt": "question 1", "response": "one"}, name="dpo.jsonl")
    _samples(tmp_path, {"prompt": "question 1\n", "response": "two"}, name="bdpo.jsonl")
    plan = small_study.plan(systems={"dpo": "dpo.jsonl", "bdpo": "bdpo.jsonl"}, raters=("ada",),
                            design=Design(items_per_rater=1, raters_per_item=1))  # fmt: skip
    said = _refused(lambda: freeze(plan, tmp_path), "differs only in white space")
    assert "dpo.jsonl" in said
    assert "bdpo.jsonl" in said
    _samples(tmp_path, {"prompt": "question 1", "response": "two"}, name="bdpo.jsonl")
    _samples(tmp_path, {"prompt": "question 1 ", "stratum": "helpful"}, name="prompts.jsonl")
    planned = dataclasses.replace(plan, prompts="prompts.jsonl")
    assert "prompts.jsonl" in _refused(lambda: freeze(planned, tmp_path), "differs only in white space")


def test_samples_that_are_torn_or_of_another_encoding_are_refused_and_stay(tmp_path, unchanged):
    file = small_study.write_samples(tmp_path)
    whole = file.read_bytes()
    plan = small_study.plan()
    file.write_bytes(whole[:-9])
    unchanged()
    _refused(lambda: freeze(plan, tmp_path), "samples.jsonl ends within a line")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "k\xfche"}\n', "line 1, is no JSON object"),
        ('{"prompt": "q"}\n'.encode("utf-16"), "must be UTF-8, and is UTF-16"),
        (b"[1]\n", "line 1, is no JSON object"),
        (b"", "must hold samples of 'dpo', and holds none"),
        (b'{"prompt": 3, "response": "x"}\n', "line 1: prompt must be a text, got 3"),
        (
            b'{"prompt": "q", "response": "\\ud800"}\n',
            "line 1: the sample of 'dpo' must be text that can be written as UTF-8",
        ),
    ],
)
def test_samples_of_another_kind_are_refused(tmp_path, content, said):
    (tmp_path / "samples.jsonl").write_bytes(content)
    _refused(lambda: freeze(small_study.plan(), tmp_path), said)


# The frozen study


def test_a_study_that_is_torn_edited_or_of_another_encoding_is_refused_and_stays(tmp_path, unchanged):
    file = tmp_path / "study.json"
    small_study.study(tmp_path).write(file)
    whole = file.read_bytes()
    for number, content in enumerate((whole[:-40], b"", b"\xff\xfe\x00", whole.replace(b"style", b"Style", 1))):
        other = tmp_path / f"study-{number}.json"
        other.write_bytes(content)
        _refused(lambda other=other: read_study(other), f"{other} is no frozen study as it was written")
    unchanged()
    _refused(lambda: read_study(tmp_path / "none.json"), "must be a file", FileNotFoundError)


def _resealed(file, change):
    """Edit a study and seal it again, as somebody who knows how might do."""
    page = json.loads(file.read_text())
    page.pop("sealed")
    change(page)
    file.write_text(sealed(page))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda page: page["plan"]["primary"].update(margin=0.2), "was changed after it was frozen"),
        (lambda page: page["items"][0].update(text_a="better"), "was changed after it was frozen"),
        (lambda page: page.pop("items"), "must have items"),
        (lambda page: page.update(items=3), "items must be"),
        (lambda page: page["items"].append({"key": "x"}), "items.24. must have texts as key, prompt"),
        (lambda page: page.update(checks=None), "checks must be"),
        (lambda page: page.update(format=2), "must be a study of format 1, got .* 2"),
        (lambda page: page.update(kind="gradlab run"), "must be a study of format 1, got 'gradlab run'"),
        (lambda page: page.pop("hash"), "must have hash"),
        (lambda page: page["plan"].pop("primary"), "primary must be given"),
    ],
)
def test_a_study_that_was_edited_and_sealed_again_is_refused(tmp_path, change, said):
    file = tmp_path / "study.json"
    small_study.study(tmp_path).write(file)
    _resealed(file, change)
    assert str(file) in _refused(lambda: read_study(file), said)


# Answers


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return small_study.study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rater": ["ada"]}, "rater must be one of"),
        ({"place": [0]}, "place must be"),
        ({"place": "0"}, "place must be"),
        ({"place": False}, "place must be"),
        ({"goal": None}, "goal must be one of"),
        ({"choice": 1}, "choice must be one of"),
        ({"version": True}, "version must be 1, got True"),
        ({"version": 2}, "version must be 1, got 2"),
        ({"seconds": "long"}, "seconds must"),
        ({"reason": "\ud800"}, "reason must be text that can be written as UTF-8"),
        ({"reason": "x" * 1_000_000}, "reason must have at most"),
        ({"reason": {"a": 1}}, "reason must be a text"),
        ({"time": "\ud800"}, "time must be text"),
    ],
)
def test_an_answer_with_a_value_of_another_kind_is_refused(study, tmp_path, change, said, unchanged):
    file = _samples(tmp_path, {**small_study.answers_of(study)[0], **change}, name="answers.jsonl")
    unchanged()
    assert f"{file}, line 1" in _refused(lambda: read_answers(study, [file]), said)


def test_an_answer_without_a_field_is_refused(study, tmp_path):
    line = small_study.answers_of(study)[0]
    for name in ("study", "version", "rater", "place", "item", "shown", "goal", "choice"):
        file = _samples(tmp_path, {key: value for key, value in line.items() if key != name}, name="answers.jsonl")
        _refused(lambda file=file: read_answers(study, [file]), name)


def test_answers_of_another_plan_with_the_same_texts_are_refused(study, tmp_path, unchanged):
    other = small_study.study(tmp_path, seed=4)
    lines = small_study.answers_of(other)
    file = _samples(tmp_path, *lines, name="answers.jsonl")
    unchanged()
    said = _refused(lambda: read_answers(study, [file]), "another plan's")
    assert study.hash[:12] in said
    assert other.hash[:12] in said


def test_answers_that_are_torn_within_or_of_another_encoding_are_refused_and_stay(study, tmp_path, unchanged):
    file = tmp_path / "answers.jsonl"
    first, second, *_ = (json.dumps(line) + "\n" for line in small_study.answers_of(study))
    file.write_text(first + second[:20] + "\n" + second)
    unchanged()
    _refused(lambda: read_answers(study, [file]), f"{file}, line 2, is no JSON object")
    other = tmp_path / "other.jsonl"
    other.write_bytes(first.encode("utf-16"))
    _refused(lambda: read_answers(study, [other]), "must be UTF-8, and is UTF-16")
    _refused(lambda: read_answers(study, [tmp_path]), "must be a plain file, got a folder")
    _refused(lambda: read_answers(study, [tmp_path / "none"]), "must be a file", FileNotFoundError)


def test_the_same_file_given_twice_counts_once(study, tmp_path):
    file = _samples(tmp_path, *small_study.answers_of(study), name="answers.jsonl")
    once, twice = read_answers(study, [file]), read_answers(study, [file, file])
    assert twice.frame.equals(once.frame)
    assert "count once" in twice.notes[0]


def test_the_hash_of_a_study_is_over_what_is_in_its_file(study, tmp_path):
    study.write(tmp_path / "study.json")
    page = json.loads((tmp_path / "study.json").read_text())
    kept = {name: page[name] for name in ("plan", "items", "checks")}
    again = json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()
    assert hashlib.sha256(again).hexdigest() == page["hash"] == study.hash
