"""Samples are drawn from the model's own probabilities, and by the seed alone."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")

from tiny_llm import torchrun
from transformers import GenerationConfig

from gradlab.llm.model.group import Group
from gradlab.llm.model.loading import small_llama, train_bpe, with_lora
from gradlab.llm.model.sampling import sample, texts

END, PAD = 1, 2
TOKENS = SimpleNamespace(eos_token_id=END, pad_token_id=PAD)
PROMPTS = [(0, 5, 7), (0, 9), (0, 4, 4, 4, 4, 8), (3,)]


def model_of(seed=0, vocabulary=12, sharp=20.0):
    """A small Llama whose next token depends on what came before."""
    model = small_llama(vocabulary, width=16, layers=1, heads=2, longest=64, seed=seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(sharp)
    return model


def next_probs(model, prompt):
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(prompt)])).logits[0, -1].softmax(-1)


def distance(tokens, probs):
    """Pearson's χ² of the drawn tokens over its degrees of freedom, over tokens expected five times or more."""
    seen = torch.bincount(torch.tensor(tokens), minlength=len(probs)).double()
    expected = probs.double() * len(tokens)
    usual = expected >= 5
    return float(((seen - expected) ** 2 / expected)[usual].sum() / usual.sum())


def test_first_tokens_come_as_often_as_the_model_says_whatever_its_folder_says_of_generation():
    model = model_of()
    model.generation_config = GenerationConfig(
        top_k=2, top_p=0.3, temperature=0.1, repetition_penalty=3.0, max_length=3, eos_token_id=5, do_sample=False,
        suppress_tokens=[6], num_beams=2,
    )  # fmt: skip
    before = model.generation_config.to_dict()
    made = sample(model, TOKENS, PROMPTS, each=2000, longest=1, seed=3, batch=2000)
    for index, prompt in enumerate(PROMPTS):
        drawn = [tokens[0] for tokens, of in zip(made.tokens, made.prompts, strict=True) if of == index]
        probs = next_probs(model, prompt)
        assert distance(drawn, probs) < 2.5
        assert distance(drawn, next_probs(model, PROMPTS[index - 1])) > 20  # the test tells distributions apart
    assert model.generation_config.to_dict() == before


def test_later_tokens_follow_the_model_too_after_prompts_of_unequal_lengths():
    model = model_of(1, vocabulary=6)
    made = sample(model, TOKENS, [(0, 5, 3), (4,)], each=6000, longest=2, batch=4000)
    for index, prompt in enumerate([(0, 5, 3), (4,)]):
        own = [tokens for tokens, of in zip(made.tokens, made.prompts, strict=True) if of == index and len(tokens) == 2]
        for first in range(6):
            second = [tokens[1] for tokens in own if tokens[0] == first]
            if len(second) > 200:
                assert distance(second, next_probs(model, (*prompt, first))) < 3


def test_temperature_divides_the_logits():
    model = model_of()
    logits = next_probs(model, PROMPTS[0]).log()
    for temperature in (0.5, 2.0):
        made = sample(model, TOKENS, PROMPTS[:1], each=4000, longest=1, temperature=temperature, batch=4000)
        drawn = [tokens[0] for tokens in made.tokens]
        assert distance(drawn, (logits / temperature).softmax(-1)) < 2.5
        assert distance(drawn, logits.softmax(-1)) > 10


def test_responses_end_with_eos_or_at_the_limit_and_are_never_empty():
    made = sample(model_of(sharp=10.0), TOKENS, PROMPTS, each=50, longest=8)
    assert made.prompts == [index for index in range(4) for _ in range(50)]
    for tokens, finished in zip(made.tokens, made.finished, strict=True):
        assert 1 <= len(tokens) <= 8
        assert END not in tokens[:-1]
        assert finished == (tokens[-1] == END)
        assert finished or len(tokens) == 8
    assert 0 < sum(made.finished) < 200
    assert any(PAD in tokens for tokens in made.tokens)  # where the model draws it, it is content


def test_eos_may_be_the_padding_too():
    for pad in (END, None):
        tokens = SimpleNamespace(eos_token_id=END, pad_token_id=pad)
        made = sample(model_of(sharp=10.0), tokens, PROMPTS, each=20, longest=8)
        assert all(one.count(END) == end for one, end in zip(made.tokens, made.finished, strict=True))


def test_equal_seeds_draw_equal_samples_and_leave_the_global_generator_alone():
    model = model_of()
    torch.manual_seed(1)
    one = sample(model, TOKENS, PROMPTS, seed=5, longest=6)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert sample(model, TOKENS, PROMPTS, seed=5, longest=6) == one
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    for other in ({"seed": 6}, {"seed": 5, "step": 0}, {"seed": 0, "step": 5}):
        assert sample(model, TOKENS, PROMPTS, **other, longest=6) != one


def test_batches_have_seeds_of_their_own():
    made = sample(model_of(sharp=1.0), TOKENS, [(0, 5)] * 2, each=8, longest=6, batch=8)
    assert made.tokens[:8] != made.tokens[8:]


class Unjoined(Group):
    """One of several processes, which is told of its own part alone."""

    def total(self, tensor):
        return tensor


def test_the_shares_of_several_processes_are_what_one_alone_draws():
    model, how = model_of(sharp=5.0), {"each": 6, "longest": 6, "batch": 4}
    shares = [sample(model, TOKENS, PROMPTS, group=Unjoined(rank, 4), **how).tokens for rank in range(4)]
    assert [sum(map(bool, share)) for share in shares] == [8, 8, 4, 4]
    joined = [max(share, key=len) for share in zip(*shares, strict=True)]
    assert joined == sample(model, TOKENS, PROMPTS, **how).tokens


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
def test_the_models_mode_is_put_back_and_dropout_is_off():
    model = with_lora(model_of(vocabulary=40), 4, 8.0, ["all-linear"], dropout=0.9)
    torch.nn.init.normal_(next(value for name, value in model.named_parameters() if "lora_B" in name))
    model.train()
    one = sample(model, TOKENS, PROMPTS, longest=6)
    assert model.training
    model.eval()
    assert sample(model, TOKENS, PROMPTS, longest=6) == one
    assert not model.training
    with pytest.raises(ValueError, match="whole number"):
        sample(model, TOKENS, PROMPTS, longest=0)


def test_texts_leave_out_eos_and_ids_beyond_the_tokenizer(capfd):
    tokenizer = train_bpe(["a cat and a dog and a bird"] * 3, 300)
    model = model_of(vocabulary=len(tokenizer) + 200, sharp=1.0)
    made = sample(model, tokenizer, [tokenizer("a cat")["input_ids"]], each=30, longest=12)
    assert any(one >= len(tokenizer) for tokens in made.tokens for one in tokens)
    read = texts(made, tokenizer)
    assert [type(one) for one in read] == [str] * 30
    assert not any("</s>" in one or "<pad>" in one for one in read)
    known = tokenizer(" and a", add_special_tokens=False)["input_ids"]
    assert texts(type(made)([0], [(*known, tokenizer.eos_token_id)], [True]), tokenizer) == [" and a"]
    assert "".join(capfd.readouterr()) == ""  # generate() has many warnings


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": -1}, "temperature must be finite and > 0, got -1"),
        ({"each": 0}, "each must be a whole number ≥ 1, got 0"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16; got 'fp16'"),
        ({"seed": -1}, "seed must be a whole number ≥ 0, got -1"),
        ({"prompts": [(0,), ()]}, "prompts must each have one or more tokens, got none in prompt 1"),
        ({"longest": 60}, "a response's length must be at most 58, .* 64 positions .* got 60"),
        ({"tokenizer": SimpleNamespace(eos_token_id=None, pad_token_id=2)}, "tokenizer must have an eos token"),
    ],
)
def test_what_cannot_be_sampled_is_said_in_one_line(wrong, line):
    given = {"tokenizer": TOKENS, "prompts": PROMPTS, "longest": 8, **wrong}
    with pytest.raises(ValueError, match=line) as caught:
        sample(model_of(), **given)
    assert "\n" not in str(caught.value)


SPREAD = """
import sys, torch, pickle
from types import SimpleNamespace
sys.path.insert(0, {here!r})
from test_llm_sampling import PROMPTS, TOKENS, model_of
from gradlab.console import leave
from gradlab.llm.data.batches import collate
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.loading import with_lora
from gradlab.llm.model.group import spread, start_group
from gradlab.llm.model.sampling import sample
torch.set_num_threads(1)
with start_group("cpu") as group:
    for kind in ("ddp", "fsdp"):
        for lora in (False, True):
            model = model_of()
            if lora:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    model = with_lora(model, 2, 4.0, ["all-linear"])
            model = spread(with_logps(model), group, kind, "fp32")
            one = sample(model, TOKENS, PROMPTS, each=5, longest=6, batch=3, group=group)
            loss = model(**collate([((0, 5), (7,))], 2)).sum()
            loss.backward()  # training goes on as before
            again = sample(model, TOKENS, PROMPTS, each=5, longest=6, batch=3, group=group)
            assert again == one and model.training
            if group.is_main:
                print(kind, lora, one.tokens)
    group.on_all(lambda: None)
leave(0)
"""


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path):
    script = tmp_path / "spread.py"
    script.write_text(SPREAD.format(here=os.path.dirname(__file__)))
    stdout, _ = torchrun(script)
    alone = sample(model_of(), TOKENS, PROMPTS, each=5, longest=6, batch=3).tokens
    lines = [line for line in stdout.splitlines() if line]
    assert lines == [f"{kind} {lora} {alone}" for kind in ("ddp", "fsdp") for lora in (False, True)]
