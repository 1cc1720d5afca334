"""Pairs as token ids: both sides share their prompt, whole responses end, and what is shortened is counted."""

import hashlib
import logging
import struct
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import prompt_text
from gradlab.llm.data.token_pairs import TokenPairs, data_fingerprint
from gradlab.llm.data.tokens import Encoded, check_vocabulary, encode_pairs, encode_prompt

PAD, BOS, EOS = 0, 1, 2
DIALOGUE = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"
MESSAGES = (
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye?"},
)
CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STRICT = (  # as Llama's and Gemma's: says no to turns that do not alternate
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FORGETFUL = (  # earlier answers are dropped once there is a new one, as "thinking" is by some
    "{% for m in messages %}{% if m.role == 'user' or loop.last %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% else %} bye{% endif %}"
)


def wrapped(own, *, bos=True, **how):
    if bos:
        own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=own, **({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"} | how)
    )


def of_letters(**how):
    """A token a letter: lengths are what a test says they are."""
    vocabulary = {name: index for index, name in enumerate(["<pad>", "<s>", "</s>", "<unk>", *"abcdefghij:"])}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return wrapped(own, **how)


def of_bytes(texts, **how):
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    own.train_from_iterator(texts, trainer)
    return wrapped(own, **how)


LETTERS = of_letters()
BPE = of_bytes([DIALOGUE + " Goodbye, and see you soon!", "<|user|>Hi<|assistant|>", "[user] [assistant] bye"] * 3)


def pair(prompt, chosen, rejected, place="a.jsonl, line 1"):
    return Pair(prompt, chosen, rejected, place)


def one(given, tokenizer, **how):
    (encoded,), kept, report = encode_pairs([given], tokenizer, **how)
    assert kept == [0]
    return encoded, report


def text(tokenizer, *ids):
    return tokenizer.decode([index for part in ids for index in part])


# How a pair becomes tokens


def test_prompt_and_responses_are_the_tokens_of_the_whole_texts():
    encoded, report = one(pair(DIALOGUE, " Bye!", " No, stay."), BPE)
    assert encoded.prompt[0] == BOS
    assert list(encoded.prompt) == encode_prompt(DIALOGUE, BPE, "plain")
    for side, response in ((encoded.win, " Bye!"), (encoded.lose, " No, stay.")):
        assert [*encoded.prompt, *side] == [*BPE(DIALOGUE + response)["input_ids"], EOS]
        assert text(BPE, side) == response + "</s>"
    assert (report.read, report.kept, report.left_out, report.notes) == (1, 1, {}, {})


def test_a_tokenizer_without_bos_gets_none():
    encoded, _ = one(pair("ab", "c", "d"), of_letters(bos=False))
    assert encoded == Encoded((4, 5), (6, EOS), (7, EOS))


def test_a_text_that_begins_with_bos_gets_no_second():
    assert encode_prompt("<s>ab", LETTERS, "plain") == [BOS, 4, 5]


def test_where_tokens_merge_over_the_boundary_both_sides_share_what_is_before():
    merging = of_bytes(["xyz xyz xyz abc"] * 9)
    assert len(merging("xyz", add_special_tokens=False)["input_ids"]) == 1  # else nothing merges, and nothing is tested
    encoded, report = one(pair("abc xy", "z", "a"), merging)
    assert report.notes == {"tokens merged over the prompt's end": 1}
    assert text(merging, encoded.prompt, encoded.win) == "<s>abc xyz</s>"
    assert text(merging, encoded.prompt, encoded.lose) == "<s>abc xya</s>"
    assert text(merging, encoded.prompt) == "<s>abc"


def test_a_response_that_ends_in_eos_gets_no_second():
    encoded, _ = one(pair("ab", "c</s>", "d"), LETTERS)
    assert (encoded.win, encoded.lose) == ((6, EOS), (7, EOS))


def test_an_end_in_the_midst_of_a_response_is_noted():
    encoded, report = one(pair("ab", "c</s>d", "d"), LETTERS)
    assert encoded.win == (6, EOS, 7, EOS)
    assert report.notes == {"end token inside a response": 1}


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(ValueError, match=r"tokenizer must have an eos token"):
        encode_pairs([pair("ab", "c", "d")], of_letters(eos_token=None))


def test_pairs_are_the_same_alone_and_among_many():
    letters = "abcdefghij"
    many = [pair(letters[i % 7 :], letters[i % 5 :], letters[: 1 + i % 9], f"line {i}") for i in range(2_500)]
    encoded, kept, _ = encode_pairs(many, LETTERS)
    assert kept == list(range(2_500))
    for position in (0, 997, 2_000, len(kept) - 1):
        assert encode_pairs([many[kept[position]]], LETTERS)[0][0] == encoded[position]


# Templates


def test_beaver_is_safe_rlhfs_template():
    ask = "BEGINNING OF CONVERSATION: USER: How? ASSISTANT:"
    assert prompt_text("How?", "beaver", BPE) == ask
    encoded, _ = one(pair("How?", "So.", "No."), BPE, template="beaver")
    assert text(BPE, encoded.prompt, encoded.win) == f"<s>{ask}So.</s>"


@pytest.mark.parametrize("prompt", [DIALOGUE, MESSAGES])
def test_beaver_ends_earlier_answers_with_eos(prompt):
    assert prompt_text(prompt, "beaver", BPE) == (
        "BEGINNING OF CONVERSATION: USER: Hi ASSISTANT:Hello.</s>USER: Bye? ASSISTANT:"
    )


def test_the_space_before_a_dialogues_response_belongs_to_the_dialogue():
    beaver = of_bytes([DIALOGUE], chat_template=CHATML)
    for template in ("beaver", "chat"):
        encoded, _ = one(pair(DIALOGUE, " Bye!", " No.\n"), beaver, template=template)
        assert (text(beaver, encoded.win), text(beaver, encoded.lose)) == ("Bye!</s>", "No.</s>")


def test_chat_is_the_tokenizers_template():
    chat = of_bytes([DIALOGUE], chat_template=CHATML)
    ask = "<|user|>Hi</s>\n<|assistant|>Hello.</s>\n<|user|>Bye?</s>\n<|assistant|>"
    assert prompt_text(DIALOGUE, "chat", chat) == prompt_text(MESSAGES, "chat", chat) == ask
    encoded, report = one(pair(MESSAGES, "Bye!", "No."), chat, template="chat")
    assert text(chat, encoded.prompt) == ask  # its own bos, or none
    assert text(chat, encoded.win) == "Bye!</s>"  # what the template writes after the end is not the response's
    assert list(encoded.prompt) == encode_prompt(MESSAGES, chat, "chat")
    assert report.notes == {}


def test_a_text_that_is_no_dialogue_is_one_message_of_the_user():
    chat = of_bytes([DIALOGUE], chat_template=CHATML)
    assert prompt_text("How?", "chat", chat) == "<|user|>How?</s>\n<|assistant|>"


def test_a_template_with_bos_and_without_an_end():
    chat = of_bytes([DIALOGUE], chat_template=STRICT)
    encoded, _ = one(pair(MESSAGES, "Bye! ", "No."), chat, template="chat")
    assert text(chat, encoded.prompt, encoded.win) == "<s>[user]Hi[assistant]Hello.[user]Bye?[assistant]Bye!</s>"


def test_a_template_that_tells_the_prompt_anew_does_not_move_it_into_the_response():
    chat = of_bytes([DIALOGUE], chat_template=FORGETFUL)
    ask = "[user]Hi[user]Bye?[assistant]"
    broken = of_bytes([DIALOGUE], chat_template=FORGETFUL.replace("[assistant]", "[assistant]{{ 'x' * 3 }}"))
    assert text(chat, one(pair(MESSAGES, "A", "B"), chat, template="chat")[0].prompt).startswith("[user]Hi[user]Bye?")
    encoded, _ = one(pair(MESSAGES, "A", "B"), broken, template="chat")
    assert text(broken, encoded.prompt, encoded.win) == f"{ask}xxxA</s>"


def test_pairs_that_a_template_refuses_are_left_out():
    chat = of_bytes([DIALOGUE], chat_template=STRICT)
    twice = pair("\n\nHuman: a\n\nHuman: b\n\nAssistant:", " c", " d", "b.jsonl, line 7")
    system = pair(({"role": "system", "content": "Be kind."}, MESSAGES[0]), "c", "d", "c.jsonl, line 2")
    for template in ("chat", "beaver"):
        _, kept, report = encode_pairs([twice, pair(DIALOGUE, " a", " b"), system], chat, template=template)
        assert kept == [1]
        assert report.left_out == {"turns that the template refuses": 2}
    with pytest.raises(ValueError, match=r"no pair is left: .*refuses \(1\); the first: b\.jsonl, line 7: .*alternate"):
        encode_pairs([twice], chat, template="chat")
    with pytest.raises(ValueError, match=r"c\.jsonl, line 2: template 'beaver' takes turns of user and assistant"):
        encode_pairs([system], chat, template="beaver")


def test_chat_without_a_template_names_the_remedy():
    with pytest.raises(ValueError, match=r"template must be plain or beaver for a tokenizer without a chat template"):
        encode_pairs([pair("ab", "c", "d")], LETTERS, template="chat")


def test_messages_are_no_plain_text():
    with pytest.raises(ValueError, match=r"template must be chat or beaver for a prompt of messages, got 'plain'"):
        encode_pairs([pair(MESSAGES, "c", "d")], LETTERS)


def test_an_unknown_template_is_refused():
    with pytest.raises(ValueError, match=r"template must be one of plain, chat, beaver; got 'beever'; did you mean"):
        encode_pairs([pair("ab", "c", "d")], LETTERS, template="beever")


# Lengths


def test_what_fits_is_not_touched():
    encoded, report = one(pair("abcde", "fgh", "i"), LETTERS, max_length=10)  # 1 + 5 + 3 + 1
    assert (len(encoded.prompt), len(encoded.win)) == (6, 4)
    assert report.notes == {}


def test_a_prompt_is_shortened_from_the_left_and_only_as_far_as_needed():
    encoded, report = one(pair("abcdefghij", "abc", "d"), LETTERS, max_length=11)
    assert text(LETTERS, encoded.prompt).replace(" ", "") == "<s>efghij"
    assert text(LETTERS, encoded.win).replace(" ", "") == "abc</s>"
    assert report.notes == {"prompt shortened": 1}


def test_then_responses_are_cut_from_the_right_and_do_not_end():
    encoded, report = one(pair("abcdefghij", "abcdefgh", "dc"), LETTERS, max_length=8)
    assert text(LETTERS, encoded.prompt).replace(" ", "") == "<s>hij"
    assert text(LETTERS, encoded.win).replace(" ", "") == "abcd"
    assert text(LETTERS, encoded.lose).replace(" ", "") == "dc</s>"
    assert report.notes == {"prompt shortened": 1, "response cut": 1}


def test_a_short_prompt_leaves_its_room_to_the_responses():
    encoded, report = one(pair("a", "abcdefgh", "dc"), LETTERS, max_length=8)
    assert (len(encoded.prompt), len(encoded.win)) == (2, 6)
    assert report.notes == {"response cut": 1}


def test_max_prompt_is_what_a_prompt_keeps():
    encoded, _ = one(pair("abcdefghij", "abcdefgh", "d"), LETTERS, max_length=8, max_prompt=6)
    assert (len(encoded.prompt), len(encoded.win)) == (6, 2)


@settings(max_examples=200, deadline=None)
@given(
    prompt=st.text("abcdefghij", min_size=1, max_size=20),
    chosen=st.text("abc", min_size=1, max_size=20),
    rejected=st.text("defg", min_size=1, max_size=20),
    limits=st.integers(3, 30).flatmap(lambda most: st.tuples(st.just(most), st.integers(2, most - 1))),
)
def test_whatever_the_lengths(prompt, chosen, rejected, limits):
    most, most_prompt = limits
    whole, _ = one(pair(prompt, chosen, rejected), LETTERS)
    encoded, report = one(pair(prompt, chosen, rejected), LETTERS, max_length=most, max_prompt=most_prompt)
    longest = max(len(encoded.win), len(encoded.lose))
    fits = len(whole.prompt) + max(len(whole.win), len(whole.lose)) <= most
    assert fits == (encoded == whole) == (report.notes == {})
    assert fits or len(encoded.prompt) + longest == most  # no room is wasted
    assert encoded.prompt[0] == BOS
    assert len(encoded.prompt) >= min(len(whole.prompt), most_prompt)
    assert whole.prompt[len(whole.prompt) - len(encoded.prompt) + 1 :] == encoded.prompt[1:]
    for side, own in ((encoded.win, whole.win), (encoded.lose, whole.lose)):
        assert side
        assert own[: len(side)] == side


def test_pairs_that_become_the_same_by_cutting_are_left_out():
    same, different = pair("ab", "cdefgh", "cdefij"), pair("ab", "c", "d")
    _, kept, report = encode_pairs([same, different], LETTERS, max_length=7)
    assert kept == [1]
    assert report.left_out == {"identical after cutting": 1}
    assert report.notes == {}  # of kept pairs alone
    with pytest.raises(
        ValueError, match=r"no pair is left: 1 pair read, 0 kept; left out: identical after cutting \(1\)"
    ):
        encode_pairs([same], LETTERS, max_length=7)


def test_pairs_that_the_tokenizer_cannot_tell_apart_are_left_out():
    _, kept, report = encode_pairs([pair("ab", "X", "Y"), pair("ab", "c", "d"), pair("ab", "c</s>", "c")], LETTERS)
    assert kept == [1]
    assert report.left_out == {"identical as tokens": 2}


def test_a_response_without_a_token_is_left_out():
    skipping = of_letters()
    skipping.backend_tokenizer.normalizer = normalizers.Replace("j", "")
    _, kept, report = encode_pairs([pair("ab", "j", "d"), pair("ab", "c", "d")], skipping)
    assert kept == [1]
    assert report.left_out == {"empty response": 1}


def test_a_prompt_without_a_token_is_left_out():
    _, kept, report = encode_pairs([pair("", "c", "d"), pair("ab", "c", "d")], of_letters(bos=False))
    assert kept == [1]
    assert report.left_out == {"empty prompt": 1}
    assert one(pair("", "c", "d"), LETTERS)[0].prompt == (BOS,)


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ({"max_length": 2}, "max_length must be a whole number ≥ 3, got 2"),
        ({"max_length": "long"}, "max_length must be a whole number ≥ 3, got 'long'"),
        ({"max_length": 9, "max_prompt": 1}, "max_prompt must be a whole number ≥ 2, got 1"),
        ({"max_length": 9, "max_prompt": 9}, "max_prompt must be a whole number from 2 to 8, got 9"),
        ({"max_length": 9, "max_prompt": 2.5}, "max_prompt must be a whole number ≥ 2, got 2.5"),
    ],
)
def test_limits_that_leave_nothing_are_refused(limits, fault):
    with pytest.raises(ValueError, match=fault):
        encode_pairs([pair("ab", "c", "d")], LETTERS, **limits)


def test_long_texts_draw_no_warning(caplog):
    logging.getLogger("transformers").addHandler(caplog.handler)
    short = of_letters(model_max_length=4)
    one(pair("abcdefghij" * 9, "abc", "d"), short, max_length=40)
    encode_prompt("abcdefghij", short, "plain")
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert caplog.records == []


def test_no_pairs_give_nothing():
    encoded, kept, report = encode_pairs([], LETTERS)
    assert (encoded, kept, report.read) == ([], [], 0)


# Vocabulary and fingerprint


def test_a_vocabulary_that_is_too_large_for_the_model_is_refused():
    check_vocabulary(LETTERS, LlamaConfig(vocab_size=15))
    with pytest.raises(ValueError, match=r"tokenizer gives ids up to 14 \(':'\), but the model has embeddings for 14"):
        check_vocabulary(LETTERS, LlamaConfig(vocab_size=14))
    more = of_letters()
    more.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"ids up to 15 \('new'\)"):
        check_vocabulary(more, LlamaConfig(vocab_size=15))


def test_the_vocabulary_of_a_model_of_several_parts_is_its_texts():
    nested = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=14))
    with pytest.raises(ValueError, match="embeddings for 14"):
        check_vocabulary(LETTERS, nested)


def test_pairs_that_come_twice_are_found_in_little_memory():
    pairs, size = 500, 800
    ids = np.arange(pairs * size, dtype=np.uint32)
    ids[-size:] = ids[:size]
    encoded = TokenPairs.of(ids, np.tile([[400, 200, 200]], (pairs, 1)))
    tracemalloc.start()
    found = encoded.repeated()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(found).tolist() == [0, pairs - 1]
    assert peak < 1_000 * pairs  # bytes: less than a third of the ids themselves


def test_a_fingerprint_tells_data_apart():
    base = [Encoded((1, 4), (5, 2), (6, 2)), Encoded((1, 7), (5, 2), (8, 2))]
    others = [
        base[::-1],
        base[:1],
        [base[0], Encoded((1, 7), (8, 2), (5, 2))],
        [Encoded((1, 4, 5), (2,), (6, 2)), base[1]],  # the same ids with other ends
        [Encoded((1, 4), (5, 2, 6), (2,)), base[1]],
        [],
    ]
    marks = [data_fingerprint(data) for data in (base, *others)]
    assert len(set(marks)) == len(marks)
    assert data_fingerprint(list(base)) == marks[0]
    numbers = [2, 2, 2, 1, 4, 5, 2, 6, 2, 2, 2, 2, 1, 7, 5, 2, 8, 2]  # lengths before the ids of each
    assert marks[0] == hashlib.sha256(struct.pack("<18I", *numbers)).hexdigest()
