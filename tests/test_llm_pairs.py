"""Preference pairs: every form is read; what cannot be used is left out and counted; a bad record names its place."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from gradlab.llm.data.pair_forms import messages_of
from gradlab.llm.data.pairs import Pair, Report, json_lines, read_pairs

ROOT = Path(__file__).parent.parent
HH_FILE = ROOT.parent / "shared/data/hh-rlhf/harmless-base-2000.jsonl.gz"
PROMPT = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"
DIALOGUE = {"chosen": PROMPT + " Bye!", "rejected": PROMPT + " No."}
TEXTS = {"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}
SAFE = {
    "prompt": "How?", "response_0": "Like this.", "response_1": "Rather not.", "is_response_0_safe": False,
    "is_response_1_safe": True, "better_response_id": 0, "safer_response_id": 1,
}  # fmt: skip


STEER = {"prompt": "Hi", "response_1": "Hello", "response_2": "No", "preference_strength": -2}


def said(role, content):
    return {"role": role, "content": content}


ASKED = [said("system", "Be kind."), said("user", "Hi")]
MESSAGES = {"prompt": ASKED, "chosen": [said("assistant", "Hello!")], "rejected": [said("assistant", "What?")]}
IMPLICIT = {"chosen": [*ASKED, said("assistant", "Hello!")], "rejected": [*ASKED, said("assistant", "What?")]}


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture
def file(tmp_path):
    return lambda *records: write(tmp_path / "pairs.jsonl", *records)


def only(source, **how):
    (pair,), report = read_pairs(source, **how)
    assert (report.read, report.kept, report.left_out) == (1, 1, {})
    return pair.prompt, pair.chosen, pair.rejected


# The forms


def test_a_dialogues_prompt_ends_with_the_last_turn_of_the_assistant(file):
    assert only(file(DIALOGUE)) == (PROMPT, " Bye!", " No.")


def test_texts_are_taken_as_they_are(file):
    assert only(file(TEXTS | {"chosen": " 4\n "})) == ("2 + 2 =", " 4\n ", " 5")


@pytest.mark.parametrize("record", [MESSAGES, IMPLICIT, IMPLICIT | {"prompt": "Hi", "score_chosen": 8.5}])
def test_messages_with_and_without_a_prompt_of_their_own(file, record):
    assert only(file(record)) == (tuple(ASKED), "Hello!", "What?")


def test_of_a_message_only_role_and_content_are_kept(file):
    record = MESSAGES | {"chosen": [said("assistant", "Hello!") | {"name": None}]}
    assert only(file(record))[1] == "Hello!"


@pytest.mark.parametrize(
    ("choice", "chosen", "rejected"),
    [("helpfulness", "Like this.", "Rather not."), ("safety", "Rather not.", "Like this.")],
)
def test_safe_rlhf_has_two_preferences(file, choice, chosen, rejected):
    assert only(file(SAFE), choice=choice) == ("How?", chosen, rejected)


@pytest.mark.parametrize(("strength", "chosen"), [(-3, "Hello"), (-1.0, "Hello"), (1, "No"), (3, "No")])
def test_a_negative_strength_prefers_help_steers_first_response(file, strength, chosen):
    assert only(file(STEER | {"preference_strength": strength}))[:2] == ("Hi", chosen)


def test_pairs_without_a_preference_are_left_out_and_counted(file, tmp_path):
    strengths = (-1, 0, None, float("nan"))
    _, report = read_pairs(file(*(STEER | {"preference_strength": strength} for strength in strengths)))
    assert (report.read, report.kept) == (4, 1)
    assert report.left_out == {"no preference": 1, "no preference_strength": 2}
    pd.DataFrame([SAFE, SAFE | {"better_response_id": None}]).to_parquet(tmp_path / "a.parquet")  # as floats
    (pair,), report = read_pairs(str(tmp_path / "a.parquet"), choice="helpfulness")
    assert pair.chosen == "Like this."
    assert report.left_out == {"no better_response_id": 1}


def test_safe_rlhf_without_a_choice_says_what_it_must_be(file):
    with pytest.raises(ValueError, match=r"choice must be helpfulness or safety .* got None"):
        read_pairs(file(SAFE))


def test_a_choice_on_other_data_is_refused_rather_than_ignored(file):
    with pytest.raises(ValueError, match=r"choice must be None for .*pairs\.jsonl.*, got 'safety'"):
        read_pairs(file(TEXTS), choice="safety")
    with pytest.raises(ValueError, match=r"choice must be one of helpfulness, safety; got 'helpful'"):
        read_pairs(file(SAFE), choice="helpful")


def test_pairs_know_where_they_stood(file):
    path = file(TEXTS, TEXTS | {"prompt": "1 + 3 ="})
    Path(path).write_text("\n" + Path(path).read_text())  # an empty line is none, but counts
    assert [pair.place for pair in read_pairs(path)[0]] == [f"{path}, line 2", f"{path}, line 3"]


# The files


@pytest.mark.parametrize("record", [DIALOGUE, TEXTS, MESSAGES, IMPLICIT])
def test_every_kind_of_file_gives_the_same_pairs(tmp_path, record):
    lines = write(tmp_path / "a.jsonl", record)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(Path(lines).read_bytes()))
    pd.DataFrame([record]).to_parquet(tmp_path / "c.parquet")
    assert only(lines) == only(str(tmp_path / "b.jsonl.gz")) == only(str(tmp_path / "c.parquet"))


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(TEXTS).encode() + b"\r\n\r\n")
    assert only(str(tmp_path / "a.jsonl")) == tuple(TEXTS.values())


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_utf_16_is_named_with_its_remedy(tmp_path, name):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        content = (json.dumps(TEXTS) + "\n").encode(encoding)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        with pytest.raises(ValueError, match=rf"{name} must be UTF-8, .* iconv -f {encoding} -t utf-8 OLD > NEW$"):
            read_pairs(str(tmp_path / name))


@pytest.mark.parametrize("cut", [5, 30, -4])
def test_a_gzip_file_that_is_cut_short_is_named(tmp_path, cut):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(TEXTS).encode())[:cut])
    with pytest.raises(ValueError, match=r"^\S*a\.jsonl\.gz is cut short or no gzip file \(.*\); fetch it again$"):
        read_pairs(str(tmp_path / "a.jsonl.gz"))


def test_a_file_of_another_kind_than_its_name_says_is_named(tmp_path):
    write(tmp_path / "a.jsonl.gz", TEXTS)
    write(tmp_path / "a.parquet", TEXTS)
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz is cut short or no gzip file"):
        read_pairs(str(tmp_path / "a.jsonl.gz"))
    with pytest.raises(ValueError, match=r"a\.parquet is damaged or no Parquet file"):
        read_pairs(str(tmp_path / "a.parquet"))


def test_a_damaged_page_of_a_parquet_file_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame([TEXTS] * 50).to_parquet(path)
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S*a\.parquet is damaged or no Parquet file"):
        read_pairs(str(path))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.json", "pairs"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    write(tmp_path / name, TEXTS)
    with pytest.raises(ValueError, match=rf"{name} must be a \.jsonl, \.jsonl\.gz or \.parquet file"):
        read_pairs(str(tmp_path / name))


@pytest.mark.parametrize("name", ["nowhere/pairs.jsonl", "./nowhere", "/no/where"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FileNotFoundError, match=rf"^{re.escape(name)} is no file"):
        read_pairs(name)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder; name a \.jsonl"):
        read_pairs(str(tmp_path))


def test_a_file_with_nothing_in_it_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b""))
    pd.DataFrame({"chosen": [], "rejected": []}).to_parquet(tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        with pytest.raises(ValueError, match=rf"{re.escape(name)} is empty"):
            read_pairs(str(tmp_path / name))


def test_a_file_without_a_usable_pair_says_why(file):
    same = TEXTS | {"rejected": " 4"}
    with pytest.raises(ValueError, match=r"has no usable pair: 2 pairs read, 0 kept; left out: identical responses"):
        read_pairs(file(same, same))


# What is left out, and what is an error


def test_pairs_that_cannot_be_used_are_left_out_and_counted(file):
    other = "\n\nHuman: Another\n\nAssistant:"
    pairs, report = read_pairs(
        file(
            DIALOGUE,
            {"chosen": PROMPT + " a", "rejected": other + " b"},
            {"chosen": PROMPT + " \n", "rejected": PROMPT + " b"},
            {"chosen": PROMPT + " b", "rejected": PROMPT},
            {"chosen": PROMPT + " b", "rejected": PROMPT + "  b\n"},
        )
    )
    assert len(pairs) == report.kept == 1
    assert report.read == 5
    assert report.left_out == {"different prompts": 1, "empty response": 2, "identical responses": 1}


@pytest.mark.parametrize("record", [DIALOGUE, TEXTS, MESSAGES, IMPLICIT])
def test_a_response_that_is_null_is_left_out_and_counted_wherever_it_stands(file, record):
    nulls = [record | {"chosen": None}, record | {"rejected": None}, record | {"chosen": None, "rejected": None}]
    for records in ([record, *nulls], [nulls[2], record, *nulls[:2]]):
        (_,), report = read_pairs(file(*records))
        assert (report.read, report.left_out) == (4, {"empty response": 3})


def test_a_prompt_or_content_that_is_null_is_left_out_and_counted(file):
    _, report = read_pairs(file(TEXTS, TEXTS | {"prompt": None}))
    assert report.left_out == {"empty prompt": 1}
    empty = MESSAGES | {"prompt": [said("user", None)]}
    _, report = read_pairs(file(MESSAGES, empty, MESSAGES | {"prompt": None}))
    assert report.left_out == {"message without content": 1, "empty prompt": 1}


def test_messages_of_different_prompts_are_left_out(file):
    other = [said("user", "Hey"), said("assistant", "What?")]
    _, report = read_pairs(file(IMPLICIT, IMPLICIT | {"rejected": other}))
    assert report.left_out == {"different prompts": 1}


@pytest.mark.parametrize("line", ['{"chosen": "a"', "[1, 2]", "null", '"text"', "{} {}", "[" * 100_000, "\x00"])
def test_broken_json_names_file_and_line(file, line):
    path = file(TEXTS)
    with open(path, "a") as lines:
        lines.write(line + "\n")
    with pytest.raises(ValueError, match=rf"^{re.escape(path)}, line 2: (no JSON|must be a JSON object)") as error:
        read_pairs(path)
    assert len(str(error.value)) < 300


def test_bytes_that_are_no_utf8_name_file_and_line(file):
    path = file(TEXTS)
    with open(path, "ab") as lines:
        lines.write(b'{"chosen": "\xff"}\n')
    with pytest.raises(ValueError, match=r"line 2: no JSON"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("record", "change", "fault"),
    [
        (TEXTS, {"chosen": 5}, "field 'chosen' must be a text, got 5"),
        (TEXTS, {"rejected": ...}, "field 'rejected' must be a text, got nothing"),
        (TEXTS, {"prompt": {"a": 1}}, "field 'prompt' must be a text, got {'a': 1}"),
        (TEXTS, {"prompt": "x\ud800"}, "field 'prompt' must be a text of whole characters, got 'x"),
        (DIALOGUE, {"rejected": ...}, "field 'rejected' must be a text, got nothing"),
        (DIALOGUE, {"chosen": "Hi"}, r"field 'chosen' must be a dialogue, .*Assistant: .*, got 'Hi'"),
        (SAFE, {"response_1": ...}, "field 'response_1' must be a text, got nothing"),
        (SAFE, {"better_response_id": "1"}, "field 'better_response_id' must be 0 or 1, got '1'"),
        (SAFE, {"better_response_id": 0.5}, "field 'better_response_id' must be 0 or 1, got 0.5"),
        (STEER, {"preference_strength": 4}, "field 'preference_strength' must be from -3 to 3, got 4"),
        (STEER, {"response_2": ...}, "field 'response_2' must be a text, got nothing"),
        (SAFE, {"better_response_id": 2}, "field 'better_response_id' must be 0 or 1, got 2"),
        (SAFE, {"better_response_id": True}, "field 'better_response_id' must be 0 or 1, got True"),
        (SAFE, {"better_response_id": ...}, "field 'better_response_id' must be 0 or 1, got nothing"),
        (MESSAGES, {"prompt": []}, r"field 'prompt' must be a list of messages, got \[\]"),
        (MESSAGES, {"prompt": [{"role": "user"}]}, r"field 'prompt\[0\].content' must be a text, got nothing"),
        (MESSAGES, {"prompt": ["Hi"]}, r"field 'prompt\[0\]' must be a message .* got 'Hi'"),
        (MESSAGES, {"prompt": [said("judge", "x")]}, r"field 'prompt\[0\].role' must be user, .* or tool, got 'judge'"),
        (MESSAGES, {"chosen": [said("user", "x")]}, r"field 'chosen' must end with a message of the assistant, got"),
        (
            MESSAGES,
            {"rejected": IMPLICIT["rejected"][1:]},
            "field 'rejected' must be one message of the assistant, got",
        ),
        (MESSAGES, {"rejected": ...}, "field 'rejected' must be a list of messages, got nothing"),
        (IMPLICIT, {"chosen": [said("assistant", "x")]}, "field 'chosen' must have a message before the last, got"),
    ],
)
def test_a_wrong_field_names_file_line_and_field(file, record, change, fault):
    bad = {name: value for name, value in (record | change).items() if value is not ...}
    path = file(record, bad)
    choice = "helpfulness" if record is SAFE else None
    with pytest.raises(ValueError, match=rf"^{re.escape(path)}, line 2: {fault}"):
        read_pairs(path, choice=choice)


def test_a_wrong_field_of_a_parquet_file_names_its_row(tmp_path):
    pd.DataFrame([SAFE | {"better_response_id": None}, SAFE, SAFE | {"better_response_id": 2}]).to_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(ValueError, match=r"a\.parquet, row 3: field 'better_response_id' must be 0 or 1, got 2\.0"):
        read_pairs(str(tmp_path / "a.parquet"), choice="helpfulness")


def test_what_is_shown_of_a_wrong_value_is_short(file):
    with pytest.raises(ValueError, match=r"got 'xxx.*…") as error:
        read_pairs(file(TEXTS | {"prompt": ["x" * 9_999], "chosen": []}))
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("other", [TEXTS, SAFE, MESSAGES, IMPLICIT])
def test_forms_are_not_mixed_in_a_file(file, other):
    with pytest.raises(ValueError, match=r"line 2: .* in a file that began with chosen, rejected as dialogues"):
        read_pairs(file(DIALOGUE, other))


def test_a_record_of_no_known_form_lists_the_forms(file):
    with pytest.raises(
        ValueError, match=r"line 1: fields question, answer are of no known form; accepted: .*response_0"
    ):
        read_pairs(file({"question": "a", "answer": "b"}))


# The hub


def hub(monkeypatch, answer):
    calls = []

    def load_dataset(*arguments, **how):
        calls.append((arguments, how))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


class Table(list):
    """What is used of a data set of the hub's library."""

    @property
    def column_names(self):
        return list(self[0])

    features = SimpleNamespace(arrow_schema=())

    def select_columns(self, names):
        return Table({name: row[name] for name in names} for row in self)


def test_a_name_that_is_no_file_is_one_of_the_hub(monkeypatch):
    calls = hub(monkeypatch, Table([TEXTS | {"image": b""}]))
    pairs, _ = read_pairs("someone/pairs", split="test")
    assert pairs == [Pair("2 + 2 =", " 4", " 5", "someone/pairs, row 1")]
    assert calls == [(("someone/pairs",), {"data_dir": None, "split": "test"})]


def test_a_part_of_a_data_set_of_the_hub_has_its_folder_in_the_name(monkeypatch):
    calls = hub(monkeypatch, Table([DIALOGUE]))
    read_pairs("Anthropic/hh-rlhf/harmless-base")
    assert calls == [(("Anthropic/hh-rlhf",), {"data_dir": "harmless-base", "split": "train"})]


def test_the_librarys_own_tables_are_read(monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([SAFE, SAFE | {"better_response_id": 1}])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    pairs, _ = read_pairs("PKU-Alignment/PKU-SafeRLHF", choice="helpfulness")
    assert [pair.chosen for pair in pairs] == ["Like this.", "Rather not."]


@pytest.mark.parametrize("error", [ConnectionError("no\nnet"), ValueError("Unknown split"), FileNotFoundError("none")])
def test_what_the_hub_cannot_give_is_one_line(monkeypatch, error):
    hub(monkeypatch, error)
    with pytest.raises(OSError, match=r"^someone/pairs is no file, and .*; accepted is a .*\.parquet file") as caught:
        read_pairs("someone/pairs")
    assert "\n" not in str(caught.value)


def test_without_the_hubs_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"someone/pairs is no file, .*pip install 'gradlab\[llm\]'"):
        read_pairs("someone/pairs")


# Written


def test_pairs_as_json_lines_are_read_as_the_same_pairs(file, tmp_path):
    for record in (DIALOGUE, TEXTS | {"chosen": " 4\n\u2028 é"}, MESSAGES, IMPLICIT):
        pairs, _ = read_pairs(file(record, record))
        (tmp_path / "again.jsonl").write_text(json_lines(pairs), encoding="utf-8")
        again, _ = read_pairs(str(tmp_path / "again.jsonl"))
        told = [[(one.prompt, one.chosen, one.rejected) for one in some] for some in (pairs, again)]
        assert told[0] == told[1]
    assert json_lines([Pair("é ", "a", "b", "")]) == '{"prompt": "é ", "chosen": "a", "rejected": "b"}\n'
    assert json_lines([]) == ""


# The rest


def test_a_dialogue_as_messages():
    assert messages_of(PROMPT) == (said("user", "Hi"), said("assistant", "Hello."), said("user", "Bye?"))
    assert messages_of("\n\nHuman: a\n\nb \n\nAssistant:") == (said("user", "a\n\nb"),)
    assert messages_of("\n\nHuman: a\n\nHuman: b\n\nAssistant:") == (said("user", "a"), said("user", "b"))
    assert messages_of("\n\nHuman: Human: is a word. Assistant: too") == (
        said("user", "Human: is a word. Assistant: too"),
    )
    for text in ("Hi", "", "Human: Hi", "What did he say?\n\nHuman: Hi\n\nAssistant:"):
        assert messages_of(text) is None


def test_a_report_is_one_readable_paragraph():
    read = Report(2_000, 1_992, {"empty response": 4, "different prompts": 4}, {})
    cut = Report(1_992, 1_990, {"identical after cutting": 2}, {"response cut": 31})
    assert str(read) == "2,000 pairs read, 1,992 kept; left out: empty response (4), different prompts (4)"
    assert str(read.merged(cut)) == (
        "2,000 pairs read, 1,990 kept; left out: empty response (4), different prompts (4), identical after "
        "cutting (2); changed: response cut (31)"
    )
    assert str(Report(1, 1)) == "1 pair read, 1 kept"


def test_reports_of_two_data_sets_add_up():
    both = Report(5, 4, {"empty response": 1}, {"response cut": 2}) + Report(3, 2, {"empty response": 1}, {})
    assert both == Report(8, 6, {"empty response": 2}, {"response cut": 2})


def test_the_real_pairs():
    if not HH_FILE.is_file():
        pytest.skip(f"needs the 2,000 pairs of HH-RLHF, and there is no {HH_FILE}")
    pairs, report = read_pairs(str(HH_FILE))
    assert (report.read, report.left_out) == (2_000, {"different prompts": 4, "empty response": 4})
    assert len(pairs) == report.kept == 1_992
    assert all(pair.prompt.endswith("\n\nAssistant:") and pair.chosen.startswith(" ") for pair in pairs)
    assert all((messages_of(pair.prompt) or [{}])[-1].get("role") == "user" for pair in pairs)


def test_reading_needs_neither_torch_nor_the_hub():
    code = "import sys; import gradlab.llm.data.pairs; print({'torch', 'datasets', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
