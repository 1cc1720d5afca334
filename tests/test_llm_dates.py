"""Chat templates that write today's date: one date per run, also after midnight."""

import datetime
import json
from types import SimpleNamespace

import pytest
from tiny_llm import quick_collections, tiny_settings
from transformers.utils import chat_template_utils

from gradlab.llm.data import template_dates
from gradlab.llm.data.pairs import Pair, json_lines
from gradlab.llm.data.template_dates import TemplateDate, fix_date
from gradlab.llm.demo.token_task import task_tokenizer
from gradlab.llm.judge.evaluate import evaluate
from gradlab.llm.look.inspection import inspect_data
from gradlab.llm.model.loading import load_tokenizer, save_folder, small_llama, train_bpe
from gradlab.llm.model.rewards import load_reward
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.stages import train

pytestmark = pytest.mark.usefixtures(quick_collections.__name__)

_TURNS = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
LLAMA = (
    "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n'
    '        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n{%- endif %}\n'
    '{{- "Today: " + date_string + "\\n" }}\n' + _TURNS
)
GRANITE = (
    "\n   {% macro day() %}{{ strftime_now('%B %-d, %Y: %A, 100 %%d') }}{% endmacro %}\n  It is {{ day() }}.\n" + _TURNS
)
BOTH = "{{ strftime_now('%Y-%m-%d') }}{% if date_string is defined %} {{ date_string }}{% endif %}\n" + _TURNS
FIXED = (
    '{% if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}{{ date_string }}\n' + _TURNS
)
ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture
def clock(monkeypatch):
    """A function that moves the clock to a day, for templates and for runs."""

    def move(text):
        day = datetime.datetime.fromisoformat(text)

        class Date(datetime.date):
            @classmethod
            def today(cls):
                return day.date()

        class Datetime(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return day

        monkeypatch.setattr(chat_template_utils, "datetime", Datetime)
        monkeypatch.setattr(template_dates, "datetime", SimpleNamespace(date=Date, datetime=datetime.datetime))

    return move


def with_template(template):
    tokenizer = task_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def said(tokenizer):
    return tokenizer.apply_chat_template(ASK, tokenize=False)


@pytest.mark.parametrize("template", [LLAMA, GRANITE, BOTH, FIXED, _TURNS])
def test_a_day_s_text_is_that_of_transformers_on_that_day(clock, template):
    tokenizer = with_template(template)
    clock("2026-03-05")
    then = said(tokenizer)
    clock("2026-03-06")
    assert (said(tokenizer) == then) == (template in (FIXED, _TURNS))
    fix_date(tokenizer, TemplateDate(None, "2026-03-05"))
    assert said(tokenizer) == then
    assert tokenizer.apply_chat_template([ASK, ASK], tokenize=False) == [then, then]
    fix_date(tokenizer, TemplateDate(None, "2026-03-06"))
    assert (said(tokenizer) == then) == (template in (FIXED, _TURNS))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LLAMA, "Today: 01 Feb 2025\n"), (GRANITE, "It is February 1, 2025: Saturday, 100 %d."),
        (BOTH, "2025-02-01 01 Feb 2025<user>"), (FIXED, "01 Feb 2025\n"),
    ],
)  # fmt: skip
def test_a_date_that_is_given_is_written(template, words):
    tokenizer = with_template(template)
    date = TemplateDate("2025-02-01", "2026-03-05")
    fix_date(tokenizer, date)
    assert words in said(tokenizer)
    assert date.written_by(tokenizer) == "2025-02-01"


def test_which_date_is_written_by_whom():
    date = TemplateDate(None, "2026-03-05")
    found = [date.written_by(with_template(template)) for template in (LLAMA, GRANITE, FIXED, _TURNS, None)]
    assert found == ["2026-03-05", "2026-03-05", None, None, None]
    assert TemplateDate("2025-02-01", "2026-03-05").written_by(with_template(_TURNS)) is None


def test_the_files_of_a_tokenizer_stay(tmp_path):
    tokenizer = with_template(GRANITE)
    fix_date(tokenizer, TemplateDate("2025-02-01", "2026-03-05"))
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == GRANITE


@pytest.mark.parametrize("wrong", ["today", "26.07.2024", "2024-02-30", "20240726", ""])
def test_a_date_must_be_a_date(tmp_path, wrong):
    with pytest.raises(
        ValueError, match=f"template_date must be a date such as 2024-07-26, or left out, got '{wrong}'"
    ):
        tiny_settings(tmp_path, tmp_path, template_date=wrong)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dates")
    pairs = [Pair(f"What is {number}?", f"It is {number}.", f"No, {number * 7}!", "here") for number in range(12)]
    (folder / "pairs.jsonl").write_text(json_lines(pairs), encoding="utf-8")
    tokenizer = train_bpe(["Today: 05 Mar 2026 What is it?"] * 9, 300)
    tokenizer.chat_template = LLAMA
    save_folder(
        folder / "model", small_llama(len(tokenizer), width=16, layers=1, heads=2, longest=128, seed=0), tokenizer
    )
    return folder


def of_run(inputs, out, **changed):
    return tiny_settings(inputs, out, **{"template": "chat", "max_length": 96, "validate_every": 0, **changed})


def weights(out):
    return (out / "dpo/model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_goes_on_and_is_evaluated_on_another_day(inputs, tmp_path, clock, monkeypatch, capsys):
    clock("2026-03-05")
    train(of_run(inputs, tmp_path / "straight"))
    assert "the chat template writes a date: 2026-03-05 in all of this run" in capsys.readouterr().out

    run, gradient = tmp_path / "run", PairTask.gradient

    def failing(self, policy, step):
        return gradient(self, policy, step) if step < 3 else 1 / 0

    with monkeypatch.context() as patched:
        patched.setattr(PairTask, "gradient", failing)
        with pytest.raises(ZeroDivisionError):
            train(of_run(inputs, run))
    clock("2026-03-06")
    train(of_run(inputs, run))
    assert json.loads((run / "dpo/done.json").read_text("utf-8"))["resumed_at"] == 2
    assert weights(run) == weights(tmp_path / "straight")
    assert (run / "dpo/log.jsonl").read_bytes() == (tmp_path / "straight/dpo/log.jsonl").read_bytes()

    train(of_run(inputs, run, loss=("dpo", "bdpo")))  # a later stage
    how = {"samples": 1, "length": 4, "device": "cpu", "prompts": 2}
    frames = [evaluate(out, ["dpo"], **how).drop(columns="out") for out in (run, tmp_path / "straight")]
    assert frames[0].equals(frames[1])
    clock("2026-03-05")
    assert evaluate(run, ["dpo"], save_as="before", **how).drop(columns="out").equals(frames[0])


@pytest.mark.slow
def test_runs_of_one_date_are_equal_on_every_day(inputs, tmp_path, clock, capsys):
    outs = [tmp_path / name for name in ("first", "second", "other")]
    for out, day, given in zip(
        outs, ("2026-03-05", "2026-03-06", "2026-03-06"), ("2024-07-26",) * 2 + (None,), strict=True
    ):
        clock(day)
        train(of_run(inputs, out, template_date=given, steps=2))
    assert weights(outs[0]) == weights(outs[1]) != weights(outs[2])
    pages = [json.loads((out / "data.json").read_text("utf-8")) for out in outs]
    assert pages[0]["fingerprint"] == pages[1]["fingerprint"] != pages[2]["fingerprint"]
    assert [page["settings"]["template_date"] for page in pages] == ["2024-07-26", "2024-07-26", None]
    assert [page["started"] for page in pages] == ["2026-03-05", "2026-03-06", "2026-03-06"]
    train(of_run(inputs, outs[0], steps=2))  # the run's date holds where none is given
    with pytest.raises(ValueError, match=r"\(template_date: 2024-07-26 there, 2024-07-27 here\); name another out"):
        train(of_run(inputs, outs[0], template_date="2024-07-27", steps=2))


def test_inspect_says_the_date(inputs, clock):
    clock("2026-03-05")
    how = {"template": "chat", "max_length": 96}
    seen = inspect_data(str(inputs / "model"), str(inputs / "pairs.jsonl"), **how)
    assert "the chat template writes a date: 2026-03-05, see --template-date" in str(seen)
    assert seen.settings["template_date"] == "2026-03-05"
    clock("2026-03-06")
    again = inspect_data(str(inputs / "model"), str(inputs / "pairs.jsonl"), template_date="2026-03-05", **how)
    assert again.frame.equals(seen.frame)
    plain = inspect_data(str(inputs / "model"), str(inputs / "pairs.jsonl"))
    assert "writes a date" not in str(plain)


def test_a_reward_model_keeps_the_date_of_its_first_start(inputs, tmp_path, clock, capsys):
    pairs = [Pair(f"What is {number}?", "Yes.", "No!", "here") for number in range(4)]
    how = {"template": "chat", "batch": 2, "max_length": 96}
    clock("2026-03-05")
    made = train_reward(inputs / "model", pairs, tmp_path / "reward", **how)
    clock("2026-03-06")
    assert train_reward(inputs / "model", pairs, tmp_path / "reward", **how) == made
    assert "done before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings, data or model"):
        train_reward(inputs / "model", pairs, tmp_path / "reward", template_date="2026-03-06", **how)


def test_a_reward_s_chat_template_has_the_date_that_it_is_given(inputs, tmp_path, clock):
    clock("2026-03-05")
    made = train_reward(inputs / "model", [Pair("What?", "Yes.", "No!", "here")], tmp_path, max_length=96)
    date = TemplateDate(None, "2026-03-05")
    before = load_reward(made, template="chat", date=date)
    clock("2026-03-06")
    assert "06 Mar" in said(load_reward(made, template="chat").function.tokenizer)
    assert "05 Mar" in said(load_reward(made, template="chat", date=date).function.tokenizer)
    assert "05 Mar" in said(before.function.tokenizer)
