"""Earlier answers that supervised training learns too."""

import pytest

pytest.importorskip("transformers")

import torch
from test_llm_pair_texts import CHAT, CHATML, called, said, tokenizer_of
from tiny_llm import settings, tiny_model, tiny_settings

from gradlab.doctor.training_log import read_log
from gradlab.llm.data.batches import Partly, asked_of, collate
from gradlab.llm.data.earlier_answers import AnswerMarks
from gradlab.llm.data.pairs import Pair, json_lines
from gradlab.llm.data.templates import Template
from gradlab.llm.data.tokens import encode_pairs, encode_prompt
from gradlab.llm.model.loading import save_folder, small_llama
from gradlab.llm.model.logps import with_logps
from gradlab.llm.train.stages import train

TURNS = (said("system", "Be kind."), said("user", "One?"), said("assistant", "Two."), said("user", "Three?"))
HH = "\n\nHuman: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nAssistant: Four.\n\nHuman: Five?\n\nAssistant:"


def learned(prompt, template: Template = "chat", tokenizer=CHAT):
    """The text that is learned of a prompt with an answer."""
    (pair,), _, _ = encode_pairs([Pair(prompt, "Yes.", "No.", "")], tokenizer, template=template, max_length=999)
    row = AnswerMarks.of(tokenizer, template).row(pair.prompt, pair.win)
    assert [*row[0], *row[1]] == [*pair.prompt, *pair.win]
    return tokenizer.decode([row[1][place] for place in asked_of(row[1])])


def test_answers_and_their_ends_are_learned_and_nothing_else():
    assert learned(TURNS) == "Two.<|im_end|>Yes.<|im_end|>"
    assert learned(HH) == "Two.<|im_end|>Four.<|im_end|>Yes.<|im_end|>"
    assert learned("One?") == "Yes.<|im_end|>"
    asks = (said("user", "Oslo?"), called("Oslo", ""), said("tool", "cold"))
    assert learned((*asks, said("assistant", "Cold."), said("user", "And Rome?"))) == (
        '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call><|im_end|>'
        "Cold.<|im_end|>Yes.<|im_end|>"
    )


def test_safe_rlhfs_answers_end_with_eos():
    assert learned(HH, "beaver") == "Two.<|im_end|>Four.<|im_end|>Yes.<|im_end|>"


def test_a_template_that_writes_earlier_answers_otherwise_shows_none():
    thinks = tokenizer_of(CHATML.replace("<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif"))
    assert AnswerMarks.of(thinks, "chat").spans(encode_prompt(TURNS, thinks, "chat")) == []


def test_a_template_without_a_header_is_refused():
    silent = tokenizer_of("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match=r"sft\.turns must be last for this tokenizer, .* template chat begins"):
        AnswerMarks.of(silent, "chat")
    with pytest.raises(ValueError, match=r"sft\.turns must be last with template plain"):
        settings(model="a", data="b", out="c", sft_turns="all")


def test_log_pi_is_that_of_each_answer_alone():
    model = with_logps(tiny_model())
    before, first, between, last = [4, 5], [6, 7], [8, 9, 10], [11, 2]
    whole = Partly.of([*first, *between, *last], torch.tensor([1, 1, 0, 0, 0, 1, 1]).bool().numpy())
    with torch.no_grad():
        once = model(**collate([(before, whole)], 2))
        each = model(**collate([(before, first), ([*before, *first, *between], last)], 2))
    torch.testing.assert_close(once[0], each.sum())
    assert collate([(before, whole)], 2)["lengths"].tolist() == [4]


@pytest.mark.slow
def test_a_run_learns_earlier_answers_on_request(tmp_path, capsys):
    save_folder(tmp_path / "model", small_llama(len(CHAT), width=16, layers=1, heads=2, longest=256, seed=0), CHAT)
    pairs = [Pair(HH if place % 2 else "Hi", f" {place}", f" {place + 1}", "") for place in range(8)]
    (tmp_path / "pairs.jsonl").write_text(json_lines(pairs), encoding="utf-8")
    losses = {}
    for turns in ("last", "all"):
        how = {"template": "chat", "max_length": 256, "sft_epochs": 1.0, "steps": 1, "limit": 6, "held_out": 2}
        train(tiny_settings(tmp_path, tmp_path / turns, **how, hold_out="pairs", sft_turns=turns))
        losses[turns] = read_log(tmp_path / turns / "sft" / "log.jsonl")["loss"][0]
        said = "of 4 pairs have earlier answers, which are learned too" in capsys.readouterr().out
        assert said == (turns == "all")
    assert losses["last"] != losses["all"]
    assert len(list((tmp_path / "all" / "cache").glob("tokens-*.safetensors"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{}, {"lora_rank": 2}], ids=["all-weights", "lora"])
def test_earlier_answers_are_learned_alike_in_packed_rows_and_on_kept_hidden_states(adapter, tmp_path):
    save_folder(tmp_path / "model", small_llama(len(CHAT), width=16, layers=2, heads=2, longest=256, seed=0), CHAT)
    pairs = [Pair(HH if place % 2 else "Hi", f" {place}", f" {place + 1}", "") for place in range(8)]
    (tmp_path / "pairs.jsonl").write_text(json_lines(pairs), encoding="utf-8")

    def losses(name, **more):
        how = {"template": "chat", "max_length": 256, "sft_epochs": 2.0, "sft_turns": "all", "sft_learning_rate": 1e-2,
               "steps": 2, "held_out": 2, "hold_out": "pairs", **adapter, **more}  # fmt: skip
        train(tiny_settings(tmp_path, tmp_path / name, **how))
        return [read_log(tmp_path / name / stage / "log.jsonl")["loss"].dropna().tolist() for stage in ("sft", "dpo")]

    apart, packed = losses("apart", train_from=1), losses("packed", train_from=1, tokens_per_micro=300)
    assert len(apart[0]) == 4
    for one, other in zip(apart, packed, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert losses("whole")[0][0] == pytest.approx(apart[0][0], rel=1e-6), "the first step has seen no training"
    with pytest.raises(ValueError, match=r"^tokens_per_micro must be at least \d+, the tokens of the longest pair"):
        losses("tight", train_from=1, tokens_per_micro=30)
