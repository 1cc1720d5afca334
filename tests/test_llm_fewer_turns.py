"""Prompts that are too long lose whole turns, oldest first, the system's last, and never a header."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_llm_pair_texts import ASKED, CHAT, TOOL, called, said

from gradlab.llm.data.fewer_turns import BEGINNING, EARLIER, SYSTEM, with_fewer_turns
from gradlab.llm.data.pair_forms import TOOLS
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import chat_text, prompt_text
from gradlab.llm.data.tokens import encode_pairs, encode_prompt
from gradlab.llm.model.reward_models import Scorer

KIND = said("system", "Be kind.")
HH = "\n\nHuman: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nAssistant: Four.\n\nHuman: Five?\n\nAssistant:"
TURNS = (said("user", "One?"), said("assistant", "Two."), said("user", "Three?"), said("assistant", "Four."),
         said("user", "Five?"))  # fmt: skip


def size(turns):
    """Tokens, which are bytes and markers, of a prompt."""
    return len(encode_prompt(turns, CHAT, "chat"))


def fitted(turns, room):
    """The turns that fit into so many tokens, and the notes."""
    return with_fewer_turns(turns, lambda some: size(some) - room, CHAT)


def encoded(prompt, max_length, *, template="chat", chosen="Yes.", rejected="No.", tokenizer=CHAT, **how):
    """The texts of a prompt and its winner, and the report."""
    pairs, _, report = encode_pairs(
        [Pair(prompt, chosen, rejected, "line 1")], tokenizer, template=template, max_length=max_length, **how
    )
    return tokenizer.decode(pairs[0].prompt), tokenizer.decode(pairs[0].win), report


# Which turns go


@pytest.mark.parametrize("context", [(), (KIND,), (said(TOOLS, "[]"), KIND)])
@pytest.mark.parametrize("number", [1, 2])
def test_exchanges_go_oldest_first_and_the_system_stays(context, number):
    rest = context + TURNS[2 * number :]
    assert fitted(context + TURNS, size(rest)) == (rest, [EARLIER])
    assert fitted(context + TURNS, size(rest) + 1) == (rest, [EARLIER])  # no more than is needed


def test_the_system_goes_last():
    assert fitted((KIND, *TURNS), size(TURNS[4:])) == (TURNS[4:], [EARLIER, SYSTEM])
    assert fitted((KIND, *TURNS[4:]), size(TURNS[4:])) == (TURNS[4:], [SYSTEM])


def test_a_tools_result_does_not_lose_its_call():
    asks = (said("user", "Oslo?"), called("Oslo"), said("tool", "cold"))
    before = (*asks, said("assistant", "Cold."))
    assert fitted((*TURNS[:2], *asks), size(asks)) == (asks, [EARLIER])
    assert fitted((*before, *TURNS[4:]), size(before[1:] + TURNS[4:])) == (TURNS[4:], [EARLIER])


def test_an_answer_that_comes_first_goes_alone():
    greets = (said("assistant", "Hello!"), said("user", "Hi"))
    assert fitted(greets, size(greets[1:])) == (greets[1:], [EARLIER])


def test_the_longest_text_of_a_last_turn_that_is_too_long_loses_its_beginning():
    long = said("user", "abcdefgh" * 6)
    turns, notes = fitted((KIND, *TURNS[:4], long), size((KIND, long)) - 45)
    assert (turns, notes) == ((KIND, said("user", "fgh")), [EARLIER, BEGINNING])
    # Where nothing would be left of it beside the system's turn, that goes too.
    assert fitted((KIND, long), size((long,)) - 45) == ((said("user", "fgh"),), [SYSTEM, BEGINNING])
    asks = (said("user", "Oslo?"), called("Oslo"), said("tool", "very, very cold and dark in winter, with wind"))
    cut = said("tool", "cold and dark in winter, with wind")
    assert fitted(asks, size(asks) - 10) == ((*asks[:2], cut), [BEGINNING])


def test_where_not_even_a_header_fits_there_is_nothing():
    assert fitted(TURNS, size((said("user", ""),))) is None
    assert fitted((KIND,), 3) is None


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text("ab é🙂\n", max_size=12), min_size=1, max_size=7),
    system=st.none() | st.text("xy", max_size=9),
    room=st.integers(1, 200),
)
def test_whatever_the_turns(texts, system, room):
    roles = ("user", "assistant")
    turns = tuple(said(roles[(len(texts) - 1 - place) % 2], text) for place, text in enumerate(texts))
    turns = turns if system is None else (said("system", system), *turns)
    if size(turns) <= room:
        return
    found = fitted(turns, room)
    if found is None:
        assert size(turns[-1:]) > room
        return
    fewer, notes = found
    assert size(fewer) <= room
    assert turns[-1]["content"].endswith(fewer[-1]["content"])
    assert fewer[-1]["content"] or not turns[-1]["content"]
    assert (BEGINNING in notes) == (fewer[-1] != turns[-1])
    before = [[turn for turn in some[:-1] if turn["role"] != "system"] for some in (fewer, turns)]
    assert before[0] == before[1][len(before[1]) - len(before[0]) :]


# Pairs


def test_a_pair_loses_turns_and_says_so():
    whole = len(encode_pairs([Pair(HH, " Yes.", " No.", "")], CHAT, template="chat", max_length=999)[0][0].prompt)
    prompt, win, report = encoded(HH, whole, chosen=" Yes.", rejected=" No.")
    three = "<|im_start|>user\nThree?<|im_end|>\n<|im_start|>assistant\nFour.<|im_end|>\n"
    assert (prompt, win) == (three + ASKED.format("Five?"), "Yes.<|im_end|>")
    assert report.notes == {EARLIER: 1}


def test_messages_and_tools_lose_turns_too():
    tools = said(TOOLS, json.dumps([TOOL]))
    asks = (tools, KIND, *TURNS, called("Oslo"), said("tool", "cold"))
    prompt, _, report = encoded(asks, size(asks))
    assert prompt == prompt_text((tools, KIND, *asks[4:]), "chat", CHAT)
    assert report.notes == {EARLIER: 1}


def test_responses_keep_what_max_prompt_leaves_them():
    most = size((KIND, *TURNS)) + 5
    prompt, win, report = encoded((KIND, *TURNS), most, chosen="y" * 60, max_prompt=most - 20)
    assert prompt == prompt_text((KIND, *TURNS[2:]), "chat", CHAT)
    assert size((KIND, *TURNS[2:])) + len(win) == most  # the response takes the room that whole turns leave
    assert report.notes == {EARLIER: 1, "response cut": 1}


def test_safe_rlhfs_template_has_turns():
    prompt, _, report = encoded(HH, 76, template="beaver")
    assert prompt == "BEGINNING OF CONVERSATION: USER: Five? ASSISTANT:"
    assert report.notes == {EARLIER: 1}


def test_a_plain_text_has_none():
    prompt, _, report = encoded(HH, 30, template="plain")
    assert prompt == HH[-(30 - 5) :]
    assert report.notes == {"prompt shortened": 1}


def test_a_pair_whose_last_turn_leaves_no_room_is_left_out():
    fits, calls = Pair("Hi", "Yes.", "No.", ""), Pair((said("user", "a"), called("b" * 99)), "Yes.", "No.", "")
    _, kept, report = encode_pairs([calls, fits], CHAT, template="chat", max_length=60)
    assert (kept, report.left_out) == ([1], {"last turn too long": 1})


def test_pairs_stay_in_their_order():
    long, short = Pair(HH, " a", " b", ""), Pair("Hi", "c", "d", "")
    pairs, kept, _ = encode_pairs([long, short, long, short], CHAT, template="chat", max_length=60)
    assert kept == [0, 1, 2, 3]
    assert [CHAT.decode(pair.win) for pair in pairs] == ["a<|im_end|>", "c<|im_end|>"] * 2


def test_a_prompt_alone_is_shortened_alike():
    room = size(TURNS) - 1
    assert CHAT.decode(encode_prompt(TURNS, CHAT, "chat", room)) == prompt_text(TURNS[2:], "chat", CHAT)
    with pytest.raises(ValueError, match="a prompt's last turn must fit into 3 tokens, got"):
        encode_prompt(TURNS, CHAT, "chat", 3)


def test_a_chat_before_a_reward_model_is_shortened_alike():
    of_text = SimpleNamespace(pad_token_id=None, vocab_size=1)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: of_text))
    answer = said("assistant", "Six.")
    whole = [len(CHAT(chat_text([*turns, answer], CHAT))["input_ids"]) for turns in (TURNS, TURNS[2:])]
    for room, turns in zip((whole[0], whole[0] - 1), (TURNS, TURNS[2:]), strict=True):
        scorer = Scorer(model, CHAT, batch=2, reads="chat", ends=False, max_length=room, column=0)
        seen = []
        scorer.scores = lambda ids, seen=seen: seen.extend(ids) or torch.zeros(len(ids))
        scorer([TURNS], ["Six."])
        assert CHAT.decode(seen[0]) == chat_text([*turns, answer], CHAT)
        assert scorer.cut == (turns != TURNS)
