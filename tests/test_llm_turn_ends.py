"""A response ends where the model's turn does, whatever token ends it: as trained, as sampled, as judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from tiny_llm import tiny_settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.tokens import encode_pairs, encode_prompt
from gradlab.llm.data.turn_ends import template_ends, turn_ends
from gradlab.llm.judge.evaluate import evaluate
from gradlab.llm.look.inspection import inspect_pairs
from gradlab.llm.model.loading import generation_of, load_model, save_folder, with_lora
from gradlab.llm.model.sampling import sample, texts
from gradlab.llm.train.stages import train

WORDS = ["<s>", "</s>", "<pad>", "<unk>", "[user]", "[assistant]", "<turn>", "<stop>", "why", "good", "bad", "so", "."]
ID = {word: place for place, word in enumerate(WORDS)}
SPOKEN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}"  # a turn, up to its end
ASK = "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
GEMMA = SPOKEN + "<turn>\n" + ASK
PHI = SPOKEN + "<turn>\n" + ASK.replace("{% endif %}", "{% else %}</s>{% endif %}")


def tokenizer_of(template: str | Mapping[str, str] | None = GEMMA, special=True):
    own = Tokenizer(models.WordLevel(ID, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    own.add_special_tokens(["[user]", "[assistant]"])
    (own.add_special_tokens if special else own.add_tokens)(["<turn>", "<stop>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=own, chat_template=template, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip


def talker(*said, generation=None):
    """A Llama that says these words after [assistant], one after the other, and the last of them for ever."""
    size = len(WORDS) + 3
    config = LlamaConfig(
        vocab_size=size, hidden_size=size, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(size))
        model.get_output_embeddings().weight.zero_()
        for before, word in zip(("[assistant]", *said), (*said, said[-1]), strict=True):
            model.get_output_embeddings().weight[ID[word], ID[before]] = 20.0
    if generation is not None:
        model.generation_config = GenerationConfig(eos_token_id=generation)
    return model


def drawn(model, tokenizer, **how):
    """The texts of two responses to "why", and whether they ended."""
    prompt = encode_prompt("why", tokenizer, "chat" if tokenizer.chat_template else "plain")
    made = sample(model, tokenizer, [[*prompt[:-1], ID["[assistant]"]]], each=2, longest=8, **how)
    return texts(made, tokenizer), made.finished


def reward(prompts, responses):
    return [float(response == "good") for response in responses]


ON = ("<turn>", "[user]", "why", "bad")  # a turn of somebody else, invented


@pytest.mark.parametrize("special", [True, False])
def test_an_answer_ends_with_the_template_s_token_and_its_reward_is_that_of_the_answer(special):
    tokenizer = tokenizer_of(special=special)
    read, finished = drawn(talker("good", *ON), tokenizer)
    assert read == ["good", "good"]
    assert finished == [True, True]
    assert np.mean(reward(None, read)) == 1.0


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
@pytest.mark.parametrize("generation", [ID["<stop>"], [1, ID["<stop>"]], [ID["so"], ID["<stop>"], 999, -1]])
def test_an_answer_ends_with_the_ids_of_generation_also_under_an_adapter(generation):
    plain = tokenizer_of(None)
    model = talker("good", "<stop>", "bad", "bad", generation=generation)
    assert drawn(model, plain) == (["good", "good"], [True, True])
    assert model.generation_config.eos_token_id == generation
    assert drawn(with_lora(model, 2, 4.0, ["q_proj"]), plain) == (["good", "good"], [True, True])


def test_an_answer_that_does_not_end_is_unfinished_and_whole():
    for generation in (None, [ID["<stop>"]]):
        read, finished = drawn(talker("good", "bad", "<s>", "so", generation=generation), tokenizer_of())
        assert read == ["good bad so so so so so"] * 2
        assert finished == [False, False]


def test_a_model_without_settings_of_generation_ends_by_its_tokenizer():
    model = talker("good", "<turn>", "bad")
    model.generation_config = None
    assert turn_ends(tokenizer_of(), model.generation_config) == (ID["</s>"], ID["<turn>"])
    assert turn_ends(SimpleNamespace(eos_token_id=1, pad_token_id=2)) == (1,)
    assert turn_ends(tokenizer_of(None), GenerationConfig(eos_token_id=None)) == (1,)


def test_defaults_of_a_config_s_class_are_no_ends_where_they_are_words():
    def derived(id_):
        return LlamaForCausalLM(
            LlamaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=1, intermediate_size=8, num_attention_heads=2,
                        eos_token_id=id_)
        ).generation_config  # fmt: skip

    assert turn_ends(tokenizer_of(None), derived(ID["good"])) == (1,)
    assert turn_ends(tokenizer_of(None), derived(ID["<stop>"])) == (1, ID["<stop>"])
    assert turn_ends(tokenizer_of(None), GenerationConfig(eos_token_id=ID["good"]), len(WORDS)) == (1, ID["good"])


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (GEMMA, ["<turn>"]),
        (PHI, ["<turn>", "</s>"]),
        (SPOKEN + "{{ eos_token }}" + ASK, ["</s>"]),
        (SPOKEN + "<stop><turn>" + ASK, ["<turn>"]),
        (SPOKEN + "{% if loop.last %}<stop>{% else %}<turn>{% endif %}" + ASK, ["<stop>"]),
        (SPOKEN + "." + ASK, []),
        (SPOKEN + ASK, []),
        (SPOKEN + "<turn>{% endfor %}[assistant] so", []),  # asks whether it is asked to or not
        ("{% for m in messages %}[{{ m.role }}]{% endfor %}<turn>", []),
        ("{{ raise_exception('never') }}", []),
        ("{{ messages[0].content + 1 }}", []),  # a TypeError
        ("{{ messages[0].tools.names }}", []),  # an UndefinedError
        (SPOKEN + "{% if loop.index > 2 %}{{ raise_exception('no more') }}{% endif %}<turn>" + ASK, ["<turn>"]),
        ({"a": GEMMA, "b": GEMMA}, []),
        (None, []),
    ],
)  # fmt: skip
def test_ends_of_a_template(template, ends):
    assert template_ends(tokenizer_of(template)) == tuple(ID[end] for end in ends)


@pytest.mark.parametrize(("template", "end"), [(GEMMA, "<turn>"), (PHI, "<turn>"), (SPOKEN + ASK, "</s>")])
def test_a_response_as_trained_ends_as_one_that_is_sampled(template, end):
    tokenizer = tokenizer_of(template)
    (encoded,), _, report = encode_pairs([Pair("why", "good so", "bad", "line 1")], tokenizer, template="chat")
    assert [encoded.win, encoded.lose] == [(ID["good"], ID["so"], ID[end]), (ID["bad"], ID[end])]
    assert report.notes == {}
    made = sample(talker("good", "so", end, "bad"), tokenizer, [encoded.prompt], each=1, longest=8)
    assert made.tokens == [encoded.win]
    frame = inspect_pairs(talker("good", "bad"), tokenizer, [encoded])
    assert not frame["cut"].any()


@pytest.mark.parametrize("template", [GEMMA, PHI])
def test_eos_at_the_end_of_a_text_gives_way_to_the_end_that_the_template_writes(template):
    pairs = [Pair("why", "good", "bad</s>", "line 1"), Pair("why", "good</s>", "bad <turn>", "line 2")]
    for pair in encode_pairs(pairs, tokenizer_of(template), template="chat")[0]:
        assert [pair.win, pair.lose] == [(ID["good"], ID["<turn>"]), (ID["bad"], ID["<turn>"])]


def test_an_end_inside_a_response_is_noted_and_an_empty_one_is_left_out():
    given = [Pair("why", chosen, "bad", "line 1") for chosen in ("good<turn>so", "good</s>so", "", "<turn>")]
    encoded, kept, report = encode_pairs(given, tokenizer_of(), template="chat")
    assert kept == [0, 1]
    assert report.notes == {"end token inside a response": 2}
    assert report.left_out == {"empty response": 2}
    assert encoded[0].win == (ID["good"], ID["<turn>"], ID["so"], ID["<turn>"])


def test_every_process_reads_the_same_ends(tmp_path):
    """Under FSDP only one process has weights; the others must not end elsewhere."""
    for generation in (None, [1, ID["<stop>"]]):
        save_folder(tmp_path / "model", talker("good", "bad", generation=generation), tokenizer_of(None))
        if generation is None:
            (tmp_path / "model" / "generation_config.json").unlink()
        loaded, meta = (load_model(tmp_path / "model", meta=meta).generation_config for meta in (False, True))
        assert turn_ends(tokenizer_of(None), meta) == turn_ends(tokenizer_of(None), loaded)
        assert len(turn_ends(tokenizer_of(None), meta)) == (1 if generation is None else 2)
    assert generation_of(tmp_path / "model").eos_token_id == [1, ID["<stop>"]]
    assert generation_of(tmp_path) is None


@pytest.mark.slow
def test_training_and_evaluation_see_answers_that_end(tmp_path):
    """The rewards were 0, and no response was finished."""
    save_folder(tmp_path / "model", talker("good", *ON), tokenizer_of())
    rows = [{"prompt": f"why {'so ' * turn}", "chosen": "good", "rejected": "bad"} for turn in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = "def reward(prompts, responses): return [float(response == 'good') for response in responses]"
    (tmp_path / "judge.py").write_text(judge)
    settings = tiny_settings(
        tmp_path, tmp_path / "run", template="chat", loss=("dpo", "ppo"), steps=2, learning_rate=1e-9, samples=2,
        sample_length=8, reward=f"{tmp_path / 'judge.py'}:reward", reference_steps=0,
    )  # fmt: skip
    train(settings)
    log = [json.loads(line) for line in (tmp_path / "run" / "ppo" / "log.jsonl").read_text().splitlines()]
    steps = [row for row in log if "reward" in row and "finished" in row]
    assert [(row["reward"], row["finished"], row["response_length"]) for row in steps] == [(1.0, 1.0, 2.0)] * 2
    frame = evaluate(tmp_path / "run", reward=reward, samples=2, length=8)
    assert frame["reward"].tolist() == [1.0] * len(frame)
    assert frame["finished"].tolist() == [1.0] * len(frame)
