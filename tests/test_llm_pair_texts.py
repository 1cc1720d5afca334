"""Nothing of a record is lost in silence, and no text says its prompt or its template twice."""

import json
import re

import pandas as pd
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gradlab.llm.data.pair_forms import ARGUMENTS, TOOLS
from gradlab.llm.data.pairs import Pair, Report, json_lines, read_pairs
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.templates import LOST, REWORDED, prompt_text, responses_of
from gradlab.llm.data.tokens import encode_pairs

CHATML = """{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}
{%- for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PLAIN = (
    CHATML.replace("m.tool_calls or []", "[]").replace("if tools", "if false").replace("m.reasoning_content %", "0 %")
)
FULL = {"template": "chat", "max_length": 4_000}
ASKED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def tokenizer_of(template):
    """One token per byte, and the markers of ChatML."""
    alphabet = ["<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    own = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, [], unk_token="<unk>"))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<pad>",
        chat_template=template,
    )  # fmt: skip


CHAT, NARROW = tokenizer_of(CHATML), tokenizer_of(PLAIN)


@pytest.fixture
def file(tmp_path):
    def written(*records):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return str(path)

    return written


def said(role, content, **more):
    return {"role": role, "content": content, **more}


def called(city, content="One moment."):
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
    return said("assistant", content, tool_calls=[call])


def seen(source, tokenizer=CHAT, **how):
    """Return the texts of each pair as the model sees them, prompt, winner and loser, and the report."""
    pairs, report = read_pairs(source)
    encoded, _, later = encode_pairs(pairs, tokenizer, **(FULL | how))
    texts = [[tokenizer.decode(ids) for ids in (one.prompt, one.win, one.lose)] for one in encoded]
    return texts, report.merged(later)


TEXTS = {"prompt": "Greet me.", "chosen": "Salut !", "rejected": "Hello!"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLS = {"prompt": [said("user", "Weather in Oslo?")], "chosen": [called("Oslo")], "rejected": [called("Rome")]}


# What stands beside a prompt


def test_a_system_text_is_part_of_the_prompt(file):
    other = {"prompt": "Greet me.", "chosen": "Hello!", "rejected": "Salut !", "system": "Answer in English."}
    texts, report = seen(file(TEXTS | {"system": "Answer in French."}, other, TEXTS | {"system": ""}))
    system = "<|im_start|>system\nAnswer in {}.<|im_end|>\n"
    ask = ASKED.format("Greet me.")
    assert [three[0] for three in texts] == [system.format("French") + ask, system.format("English") + ask, ask]
    assert report == Report(3, 3)


@pytest.mark.parametrize("name", ["system", "history", "tools"])
def test_nan_beside_a_pair_is_nothing_as_null_is(file, name):
    assert seen(file(TEXTS | {name: float("nan")}))[0] == seen(file(TEXTS | {name: None}))[0] == seen(file(TEXTS))[0]


def test_a_system_text_without_a_chat_template_is_refused(file):
    with pytest.raises(ValueError, match=r"template must be chat or beaver .* a system text, former turns or tools"):
        seen(file(TEXTS | {"system": "Answer in French."}), template="plain")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [said("user", "Hi")], "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]},
        {name: [said("user", "Hi"), said("assistant", word)] for name, word in (("chosen", "a"), ("rejected", "b"))},
        {"prompt": "Hi", "chosen": "a", "rejected": "b"},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"},
        {"prompt": "Hi", "response_1": "a", "response_2": "b", "preference_strength": -1},
    ],
)  # fmt: skip
def test_every_form_has_a_context(file, record):
    more = {"system": "Be kind.", "history": [["One?", "Two."]], "tools": json.dumps([TOOL])}
    ((prompt, *sides),), report = seen(file(record | more))
    head, turns = prompt.split("<|im_end|>\n", 1)
    assert json.loads(head.removeprefix("<|im_start|>system\n")) == [TOOL]
    assert turns == (
        f"<|im_start|>system\nBe kind.<|im_end|>\n{ASKED.format('One?')}Two.<|im_end|>\n{ASKED.format('Hi')}"
    )
    assert sides == ["a<|im_end|>", "b<|im_end|>"]
    assert report == Report(1, 1)


def test_a_context_that_the_prompt_holds_already_is_said_once(file):
    prompt = [said("system", "Be kind."), said("user", "One?"), said("assistant", "Two."), said("user", "And?")]
    record = {"prompt": prompt, "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]}
    (pair,), _ = read_pairs(file(record | {"system": "Be kind.", "history": prompt[1:3]}))
    assert pair.prompt == tuple(prompt)
    (pair,), _ = read_pairs(file(record | {"system": "Be kind."}))
    assert pair.prompt == tuple(prompt)
    with pytest.raises(
        ValueError, match=r"line 1: field 'system' must be the prompt's first message, .* got 'Be cruel"
    ):
        read_pairs(file(record | {"system": "Be cruel."}))


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("system", 3, "'system' must be a text, got 3"),
        ("history", "before", "'history' must be a list, or its JSON, got 'before'"),
        ("history", [["a", 5]], r"'history\[0\]' must be a text, got 5"),
        ("history", [["a", "b", "c"]], r"'history\[0\]' must be a message with role and content"),
        ("tools", ["weather"], "'tools' must be a list of objects, one per tool, got"),
        ("tools", {"name": "weather"}, "'tools' must be a list, or its JSON, got"),
    ],
)
def test_a_wrong_context_names_its_field(file, field, value, fault):
    with pytest.raises(ValueError, match=rf"pairs\.jsonl, line 1: field {fault}"):
        read_pairs(file(TEXTS | {field: value}))


# Calls, reasoning, parts


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (CALLS | {"tools": [{"name": "weather", "description": "\ud83d"}]}, "tools[0].description"),
        (CALLS | {"tools": json.dumps([{"\ud83d": 1}])}, "tools[0]"),
        (CALLS | {"chosen": [said("assistant", "a", reasoning_content="\udc00")]}, "chosen[0].reasoning_content"),
        (CALLS | {"prompt": [said("user", "a", name="\ud83d")]}, "prompt[0].name"),
        (CALLS | {"chosen": [called("\ud83d")]}, "chosen[0].tool_calls[0].function.arguments.city"),
        (CALLS | {"chosen": [said("assistant", "a", tool_calls=[{"function": {"arguments": '{"a": "\\ud83d"}'}}])]},
         "chosen[0].tool_calls[0].function.arguments.a"),
    ],
)  # fmt: skip
def test_half_a_character_is_refused_wherever_it_stands(file, record, field):
    with pytest.raises(ValueError, match=rf"line 1: field '{re.escape(field)}' must be a text of whole characters"):
        read_pairs(file(record))


def test_pairs_that_differ_in_a_call_alone_are_not_identical(file):
    (three,), report = seen(file(CALLS | {"tools": [TOOL]}))
    assert three[1] == (
        'One moment.<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><|im_end|>'
    )
    assert '"Rome"' in three[2]
    assert '"weather"' in three[0]
    assert report == Report(1, 1)


@pytest.mark.slow
def test_a_conversation_with_tools_is_the_text_of_trl(file):
    data_utils = pytest.importorskip("trl.data_utils")
    answer = said("tool", "It rains.", name="weather")
    prompt = [said("user", "Weather?"), called("Oslo", None), answer]
    record = {
        "prompt": prompt, "chosen": [said("assistant", "Rain.", reasoning_content="It rains, so rain.")],
        "rejected": [called("Rome")],
    }  # fmt: skip
    theirs = data_utils.apply_chat_template(
        record | {"prompt": [prompt[0], called("Oslo", ""), answer]}, CHAT, tools=[TOOL]
    )
    (three,), report = seen(file(record | {"tools": [TOOL]}))
    assert three == [theirs["prompt"], theirs["chosen"].rstrip(), theirs["rejected"].rstrip()]
    assert report == Report(1, 1, unused={"name": 1})  # which this template does not write, ours or theirs


def test_what_a_template_does_not_write_is_counted_by_name(file):
    thought = [said("assistant", "Yes.", reasoning_content="Hm.", weight=1)]
    other = [said("assistant", "No.")]
    thinks = {"prompt": CALLS["prompt"], "chosen": thought, "rejected": other, "tools": [TOOL]}
    _, report = seen(file(thinks, thinks | {"rejected": [called("Oslo")]}, CALLS), NARROW)
    assert report.left_out == {"identical as tokens": 1}  # two calls that nobody sees, and so they are counted too
    assert report.unused == {"reasoning_content": 2, "tools": 2, "tool_calls": 2}
    assert str(report).endswith("; fields not used: reasoning_content (2), tools (2), tool_calls (2)")
    (three,), report = seen(file(thinks))
    assert three[1] == "<think>Hm.</think>Yes.<|im_end|>"
    assert report == Report(1, 1)


def test_a_prompt_whose_question_is_reworded_before_a_call_is_shared_as_far_as_it_goes(file):
    thinks = CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif")
    (three,), _ = seen(file(CALLS), tokenizer_of(thinks))
    assert three[0] == ASKED.format("Weather in Oslo?")
    forgets = CHATML.replace("{{ m.content }}", "{{ m.content if loop.last or not loop.first else 'x' }}")
    with pytest.raises(ValueError, match=r"rewords the prompt before a response that is more than a text"):
        seen(file(CALLS), tokenizer_of(forgets))


def test_beaver_has_no_place_for_tools_and_says_so(file):
    record = {"prompt": CALLS["prompt"], "chosen": [called("Oslo")], "rejected": [said("assistant", "No.")]}
    (three,), report = seen(file(record | {"tools": [TOOL]}), template="beaver")
    assert three[1] == "One moment.<|im_end|>"
    assert report.unused == {"tool_calls": 1, "tools": 1}


def test_a_call_needs_no_words_and_an_answer_does(file):
    silent = called("Oslo", None)
    del silent["content"]
    (pair,), report = read_pairs(file(CALLS | {"chosen": [silent]}, CALLS | {"rejected": [said("assistant", " ")]}))
    assert (pair.chosen, pair.messages[0]) == ("", silent | {"content": ""})
    assert report.left_out == {"empty response": 1}


def test_nulls_that_tables_write_into_calls_are_no_arguments(tmp_path):
    frame = pd.DataFrame([CALLS, CALLS | {"chosen": [said("assistant", "No.")]}])
    frame.to_parquet(tmp_path / "pairs.parquet")
    pairs, _ = read_pairs(str(tmp_path / "pairs.parquet"))
    assert pairs[0].messages == (called("Oslo"), called("Rome"))
    assert pairs[1].messages == (said("assistant", "No."), called("Rome"))


def test_texts_in_parts_are_joined_and_images_left_out(file):
    parts = [{"type": "text", "text": "How "}, {"type": "text", "text": "now?"}]
    shown = [{"type": "image", "url": "x.png"}, *parts]
    records = [CALLS | {"prompt": [said("user", content)]} for content in (parts, shown)]
    (pair,), report = read_pairs(file(*records))
    assert pair.prompt == (said("user", "How now?"),)
    assert report.left_out == {"content that is no text: image": 1}
    assert report.notes == {"parts of a message's text joined": 1}


def test_a_reward_reads_the_call_as_the_model_writes_it(file):
    (pair,), _ = read_pairs(file(CALLS | {"tools": [TOOL]}))
    chosen, rejected = responses_of(pair, "chat", CHAT)
    assert chosen == 'One moment.<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
    assert "Rome" in rejected
    assert json.loads(pair.prompt[0]["content"]) == [TOOL]
    assert pair.prompt[0]["role"] == TOOLS
    assert "weather" in prompt_text(pair.prompt, "chat", CHAT)


def test_pairs_with_calls_and_tools_are_written_and_read_again(file, tmp_path):
    pairs, _ = read_pairs(file(CALLS | {"tools": [TOOL], "system": "Be kind."}))
    again, _ = read_pairs(file(*map(json.loads, json_lines(pairs).splitlines())))
    assert again == pairs


def test_a_context_is_in_the_fingerprint(file):
    how = {
        "choice": None, "split": "train", "template": "chat", "max_length": 4_000, "max_prompt": None,
        "validation": None, "held_out": 0, "seed": 0, "hold_out": "pairs",
    }  # fmt: skip
    records = [TEXTS, TEXTS | {"system": "Answer."}, CALLS, CALLS | {"tools": [TOOL]}]
    prints = {prepare(how | {"data": file(record)}, CHAT).fingerprint for record in records}
    assert len(prints) == 4


# Fields that nobody reads


def test_fields_that_are_not_used_are_named_once(file, tmp_path):
    more = {"thinking": "Hm.", "tool_calls": [{"name": "x"}], "score": 3.5, "empty": "", "none": None, "ids": [1]}
    (_,), report = read_pairs(file(TEXTS | more))
    assert report.unused == {"thinking": 1, "tool_calls": 1, "ids": 1}
    pd.DataFrame([TEXTS | more]).drop(columns="ids").to_parquet(tmp_path / "a.parquet")
    _, report = read_pairs(str(tmp_path / "a.parquet"))
    assert report.unused == {"thinking": 1, "tool_calls": 1, "empty": 1}
    assert str(report) == "1 pair read, 1 kept; fields not used: thinking (1), tool_calls (1), empty (1)"


def test_a_field_that_repeats_what_is_used_is_no_loss(file):
    whole = [said("user", "Hi"), said("assistant", "a")]
    record = {"prompt": "Hi", "chosen": whole, "rejected": [whole[0], said("assistant", "b")], "messages": whole}
    _, report = read_pairs(file(record))
    assert report.unused == {}
    _, report = read_pairs(file(record | {"prompt": "Another"}))
    assert report.unused == {"prompt": 1}


# The prompt once


def test_a_long_prompt_that_all_responses_begin_with_is_taken_once(file):
    asks = [f"Question: what is {i} and {i}?\nAnswer:" for i in range(10)]
    records = [{"prompt": ask, "chosen": ask + " It is.", "rejected": ask + " Maybe."} for ask in asks]
    records[9] |= {"chosen": " It is.", "rejected": " Maybe."}
    pairs, report = read_pairs(file(*records))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        (ask, " It is.", " Maybe.") for ask in asks
    ]
    assert report.notes == {"prompt inside the responses, taken once": 9}
    _, report = read_pairs(file(*records[:8], *[TEXTS | {"prompt": f"{i}"} for i in range(2)]))
    assert report.notes == {"both responses repeat the prompt, kept as they are": 8}  # of ten: not the source's form


def test_two_answers_that_begin_with_a_short_prompt_are_kept(file):
    (pair,), report = read_pairs(file({"prompt": "Hi", "chosen": "Hi there", "rejected": "Hi."}))
    assert (pair.chosen, pair.rejected) == ("Hi there", "Hi.")
    assert report.notes == {"both responses repeat the prompt, kept as they are": 1}


def test_a_prompt_inside_a_foreign_template_is_counted(file):
    ask = "What is two and two, please?"
    whole = f"### Human: {ask} ### Assistant:"
    _, report = read_pairs(file({"prompt": ask, "chosen": whole + " Four.", "rejected": whole + " Nine."}))
    assert report.notes == {"both responses repeat the prompt, kept as they are": 1}


def test_short_prompts_inside_a_foreign_template_are_counted_if_most_pairs_have_them(file):
    whole = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    records = [
        {"prompt": ask, "chosen": whole.format(ask) + "a", "rejected": whole.format(ask) + "b"}
        for ask in ("What is two?", "What is three?")
    ]
    _, report = read_pairs(file(*records))
    assert report.notes == {"both responses repeat the prompt, kept as they are": 2}
    _, report = read_pairs(file(*records[:1], TEXTS, {"prompt": "Hi", "chosen": "So, Hi.", "rejected": "So, Hi!"}))
    assert report.notes == {}


def test_a_prompt_that_one_response_begins_with_is_counted(file):
    ask = "Question: what is two and two?\nAnswer:"
    records = [{"prompt": prompt, "chosen": prompt + " It is.", "rejected": " Maybe."} for prompt in (ask, HH, "Hi")]
    pairs, report = read_pairs(file(*records, {"prompt": HH, "chosen": " Two.", "rejected": HH + " Nine."}))
    assert [pair.chosen for pair in pairs] == [record["chosen"] for record in records] + [" Two."]
    assert report.notes == {"one response begins with the prompt, kept as it is": 3}


def test_what_is_nothing_after_its_prompt_is_left_out(file):
    ask = "A prompt of many characters:"
    records = [{"prompt": ask, "chosen": ask + more, "rejected": ask + " no"} for more in ("", " no", " yes")]
    _, report = read_pairs(file(*records))
    assert report.left_out == {"empty response": 1, "identical responses": 1}


HH = "\n\nHuman: What is two?\n\nAssistant:"


@pytest.mark.parametrize("prompt", [HH, "\n\nHuman: What is two?", "What is two?"])
def test_whole_dialogues_beside_a_prompt_hold_it_once(file, prompt):
    (pair,), report = read_pairs(file({"prompt": prompt, "chosen": HH + " Two.", "rejected": HH + " Nine."}))
    assert (pair.prompt, pair.chosen, pair.rejected) == (HH, " Two.", " Nine.")
    assert report.notes == {"prompt inside the responses, taken once": 1}


def test_dialogues_beside_another_prompt_are_left_out(file):
    other = "\n\nHuman: What is three?\n\nAssistant: Nine."
    records = [
        {"prompt": "What is two?", "chosen": HH + " Two.", "rejected": rejected} for rejected in (HH + " Nine.", other)
    ]
    _, report = read_pairs(file(*records, records[0] | {"prompt": "What is four?"}))
    assert report.left_out == {"different prompts": 1, "prompt beside dialogues that do not hold it": 1}


def test_messages_that_repeat_their_prompt_are_taken_once(file):
    ask = said("user", "Hi")
    record = {"prompt": [ask], "chosen": [ask, said("assistant", "a")], "rejected": [ask, said("assistant", "b")]}
    (pair,), report = read_pairs(file(record))
    assert pair == Pair((ask,), "a", "b", pair.place)
    assert report.notes == {"prompt inside the responses, taken once": 1}


def test_messages_written_as_json_text_are_read_as_messages(file):
    turns = [[said("user", "Hi"), said("assistant", word)] for word in ("Hello", "No")]
    record = {"prompt": "Hi", "chosen": json.dumps(turns[0]), "rejected": json.dumps(turns[1], indent=1)}
    (pair,), report = read_pairs(file(record))
    assert pair == Pair((said("user", "Hi"),), "Hello", "No", pair.place)
    assert report.notes == {"messages written as JSON text, read as messages": 1}
    with pytest.raises(ValueError, match=r"line 1: field 'chosen' must be messages, or their JSON, got \"\[{'role'"):
        read_pairs(file(record | {"chosen": str(turns[0])}))


def test_messages_written_as_json_text_may_have_their_keys_in_any_order(file):
    turns = [[{"name": "Ann", **said("user", "Hi")}, {"weight": 1, **said("assistant", word)}] for word in ("Ho", "No")]
    (pair,), report = read_pairs(file({"chosen": json.dumps(turns[0]), "rejected": json.dumps(turns[1])}))
    assert (pair.prompt, pair.chosen) == ((turns[0][0],), "Ho")
    assert report.notes == {"messages written as JSON text, read as messages": 1}


@pytest.mark.parametrize("text", [
    '[{"role": "admin", "name": "Ann"}]', '[{"role": "admin"}, {"role": "user"}]', '[{"content": "cut',
    "[{role: 'user'",
])  # fmt: skip
def test_json_that_is_an_answer_stays_a_text(file, text):
    pairs, report = read_pairs(file(TEXTS, {"prompt": "Name all users, as JSON.", "chosen": text, "rejected": "No."}))
    assert pairs[1].chosen == text
    assert report.notes == {}


# The template once

TEMPLATED = {"prompt": ASKED.format("Two?"), "chosen": "It is.<|im_end|>", "rejected": "Maybe.<|im_end|>"}


def test_a_text_that_is_templated_already_gets_no_second_template(file):
    for template in ("chat", "beaver"):
        with pytest.raises(
            ValueError, match=r"templated already \(1\); .*line 1: prompt holds .*<\|im_start\|>.*must be plain"
        ):
            seen(file(TEMPLATED), template=template)
    (three,), report = seen(file(TEMPLATED), template="plain")
    assert three == [TEMPLATED["prompt"], TEMPLATED["chosen"], TEMPLATED["rejected"]]
    assert report == Report(1, 1)
    _, report = seen(file(TEMPLATED, TEXTS))
    assert report.left_out == {"templated already": 1}


@pytest.mark.parametrize("template", ["plain", "chat", "beaver"])
def test_a_whole_templated_text_is_no_response(file, template):
    whole = ASKED.format("Two?")
    record = {"prompt": "Two?", "chosen": whole + "It is.<|im_end|>\n", "rejected": whole + "Maybe.<|im_end|>\n"}
    with pytest.raises(ValueError, match=r"templated already \(1\); .*line 1: chosen holds .*keep the response alone"):
        seen(file(record), template=template)


def test_an_end_of_turn_that_a_response_brings_along_is_taken_once(file):
    (three,), report = seen(file(TEMPLATED | {"prompt": "Two?"}))
    assert three == [ASKED.format("Two?"), "It is.<|im_end|>", "Maybe.<|im_end|>"]
    assert report.notes == {"end of turn in a response, taken once": 1}


def test_one_marker_of_each_turn_is_enough(file):
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(ValueError, match=r"line 1: prompt holds '<\|im_end\|>'"):
        seen(file(TEXTS | {"prompt": "<|im_start|>Two?<|im_end|>"}), tokenizer_of(template))
    _, report = seen(file(TEXTS | {"prompt": "What is <|im_end|>?"}), tokenizer_of(template))
    assert report.notes == {"the tokenizer's turn markers in a text": 1}


def test_a_text_that_speaks_of_a_marker_is_kept_and_noted(file):
    record = {"prompt": "What does <|im_start|> mean?", "chosen": "A turn begins.", "rejected": "Nothing."}
    (three,), report = seen(file(record))
    assert three[1:] == ["A turn begins.<|im_end|>", "Nothing.<|im_end|>"]
    assert report.notes == {"the tokenizer's turn markers in a text": 1}


# What a chat template leaves out, or says twice

R1 = """{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user
{{ m.content }}<|im_end|>
{% elif m.role == 'assistant' %}<|im_start|>assistant
{{ m.content.split('</think>')[-1] }}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""  # it drops what an answer thought, and any system's turn
THINKS = R1.removesuffix("{% endif %}") + "<think>\n{% endif %}"
THOUGHT = {"prompt": "2 + 2?", "chosen": "<think>\nSum.</think>four", "rejected": "<think>\nSum.</think>five"}


@pytest.mark.parametrize(
    "record", [THOUGHT, TEXTS | {"system": "Be kind."}, TEXTS | {"history": [["Who?", "<think>Hm.</think>I."]]}]
)
def test_a_turn_or_a_part_of_it_that_the_template_drops_is_counted(file, record):
    _, report = seen(file(record, TEXTS), tokenizer_of(R1))
    assert report == Report(2, 2, notes={LOST: 1})
    assert seen(file(record))[1] == Report(1, 1)


@pytest.mark.parametrize("gap", ["", "\n"])
def test_words_that_prompt_and_response_share_are_said_once(file, gap):
    record = {name: text.replace("<think>\n", f"<think>{gap}") for name, text in THOUGHT.items()}
    thinks = tokenizer_of(THINKS)
    (three,), report = seen(file(record), thinks)
    ask = f"{ASKED.format('2 + 2?')}<think>\n"
    assert three == [ask, "Sum.</think>four<|im_end|>", "Sum.</think>five<|im_end|>"]
    assert report.notes == {REWORDED: 1}
    (pair,), _ = read_pairs(file(record))
    assert responses_of(pair, "chat", thinks) == ("Sum.</think>four", "Sum.</think>five")


@pytest.mark.parametrize("template", [THINKS, R1, CHATML.replace("<|im_start|>assistant\n{%", "<think>\n{%")])
def test_a_field_that_the_template_does_not_write_changes_nothing(file, template):
    bare = {"prompt": CALLS["prompt"], "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")]}
    extra = {name: [turn | {"id": "x", "name": "y"} for turn in turns] for name, turns in bare.items()}
    plain, given = (seen(file(record), tokenizer_of(template)) for record in (bare, extra))
    assert given[0] == plain[0]
    assert given[1].notes == plain[1].notes
    assert given[1].unused == {"id": 1, "name": 1}


@pytest.mark.parametrize(
    "record",
    [
        TEXTS | {"prompt": "\n\nHuman: q\n\nAssistant: Sure,"},
        {"prompt": [said("user", "q"), said("assistant", "Sure")], "chosen": [said("assistant", "a")],
         "rejected": [said("assistant", "b")]},
    ],
)  # fmt: skip
def test_a_prompt_that_ends_with_an_answer_is_left_out_of_a_chat(file, record):
    with pytest.raises(ValueError, match=r"ends with an answer \(1\); the first: .*line 1: template 'chat' takes"):
        seen(file(record))


def test_white_space_after_an_answer_is_not_learned_where_the_template_writes_no_end(file):
    bare = "{% for m in messages %}[{{ m.role }}] {{ m.content }} \n{% endfor %}[assistant] "
    open_ended = tokenizer_of(bare.replace("[assistant] ", "{% if add_generation_prompt %}[assistant] {% endif %}"))
    (three,), report = seen(file(TEXTS | {"chosen": "Salut ! "}), open_ended)
    assert three == ["[user] Greet me. \n[assistant] ", "Salut ! <|im_end|>", "Hello!<|im_end|>"]
    assert report == Report(1, 1)


# Calls of tools


@pytest.mark.parametrize("bare", [False, True])
def test_arguments_as_json_text_are_what_they_are_as_an_object(file, bare):
    def with_text(turn):
        calls = [json.loads(json.dumps(call)) for call in turn["tool_calls"]]
        for call in calls:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
        return turn | {"tool_calls": [call["function"] if bare else call for call in calls]}

    def as_object(turn):
        return turn | {"tool_calls": [call["function"] for call in turn["tool_calls"]] if bare else turn["tool_calls"]}

    tokenizer = tokenizer_of(CHATML.replace("call.function | tojson", "(call.function or call) | tojson"))
    earlier = [said("user", "Oslo?"), called("Oslo"), said("tool", "cold"), said("user", "And Rome?")]

    def record(change):
        return {
            "prompt": [earlier[0], change(earlier[1]), *earlier[2:]],
            "chosen": [change(called("Rome"))], "rejected": [said("assistant", "No.")],
        }  # fmt: skip

    texts, report = seen(file(record(with_text)), tokenizer)
    expected, untouched = seen(file(record(as_object)), tokenizer)
    assert texts == expected
    assert '{"city": "Oslo"}' in texts[0][0]
    assert report.notes == {ARGUMENTS: 1}
    assert untouched.notes == {}


@pytest.mark.parametrize("arguments", ["no JSON", "[1]", "3"])
def test_arguments_that_are_no_objects_json_stay(file, arguments):
    call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    (pair,), report = read_pairs(file(CALLS | {"chosen": [said("assistant", "", tool_calls=[call])]}))
    assert pair.messages[0]["tool_calls"] == [call]
    assert report.notes == {}
