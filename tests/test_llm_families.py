"""log π of every family of causal language models is that of its own logits; a family that has none is refused."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

import transformers as hf
from llm_families import FAMILIES, VOCABULARY, tiny_model
from transformers.utils import logging

from gradlab.llm.data.batches import Layout, apart, collate
from gradlab.llm.model.heads import ApartNotice, HeadNotice, Way, way_of
from gradlab.llm.model.loading import with_lora
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.sampling import sample

PAD = 2
ROWS = [((0, 5, 7, 9), (4, 6, 1)), ((0, 8), (3, 3, 3, 9, 10, 1)), ((0, 11, 12, 13, 14, 15), (20, 1)), ((7,), (9,))]
SAMPLE = (
    "llama", "llama4_text", "minicpm3", "bert", "roberta", "xlm-roberta", "electra", "big_bird", "gemma2", "cohere",
    "granite", "mamba", "bloom", "opt", "gpt2", "recurrent_gemma",
)  # fmt: skip
LOOK_AHEAD = {"cpmant", "prophetnet", "xlnet"}
PAIRS = [(*row, other) for row, other in zip(ROWS, ((5,), (4, 6, 1), (9, 9), (8, 3, 3, 1)), strict=True)]
ONCE = Layout(once=True, masked=False)


@pytest.fixture(autouse=True)
def quiet():
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.set_verbosity(level)


def from_own_logits(model):
    """log π of each response from the logits that the model gives of its row alone, and how far rounding goes.

    A log π has at most six tokens. Each token's log-softmax is off by twice its logits' rounding: √H roundings of the
    size of the largest logit, eight times that for the layers below. Each sum rounds by its own size.
    """
    unit = torch.finfo(torch.float32).eps
    expected, largest = [], 0.0
    for prompt, response in apart(PAIRS):
        ids = torch.tensor([[*prompt, *response]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        expected.append(logits.log_softmax(-1)[torch.arange(len(response)), list(response)].sum())
        largest = max(largest, float(logits[logits.isfinite()].abs().max()))
    total = torch.stack(expected)
    return total, 6 * unit * (2 * 8 * 32**0.5 * largest + float(total.abs().max()))


def check(name):
    """Hold log π of padded rows against the model's own logits of each row alone; return the model."""
    model = tiny_model(name)
    with torch.no_grad():
        with_logps(model, chunk=3)
        expected, rounding = from_own_logits(model)
        for layout in (Layout(), model.layout):
            found = model(**collate(PAIRS, PAD, layout=layout))
            torch.testing.assert_close(
                found, expected, rtol=0, atol=rounding, msg=lambda said, how=layout: f"{name}, {how}: {said}"
            )
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_family_has_the_log_probabilities_of_its_own_logits_and_can_be_sampled(name):
    model = check(name)
    tokens = SimpleNamespace(eos_token_id=1, pad_token_id=PAD)
    made = sample(model, tokens, [(0, 5, 7), (4,)], each=3, longest=4)
    assert all(1 <= len(one) <= 4 and max(one) < VOCABULARY for one in made.tokens)
    model.train()
    model(**collate(PAIRS, PAD, layout=model.layout)).sum().backward()
    assert any(float(p.grad.abs().max()) > 0 for p in model.parameters() if p.grad is not None)


@pytest.mark.long
def test_every_family_has_the_log_probabilities_of_its_own_logits(capsys):
    right, refused, not_built = [], {}, {}
    for name in FAMILIES:
        try:
            tiny_model(name)
        except Exception as error:
            not_built[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
            continue
        try:
            check(name)
            right.append(name)
        except ValueError as error:
            refused[name] = str(error)[:200]
    with capsys.disabled():
        print(f"\n{len(FAMILIES)} families: {len(right)} agree with their own logits; {len(refused)} are refused:")
        print("\n".join(f"  {name}: {why}" for name, why in refused.items()))
        print(f"{len(not_built)} do not build at a tiny size:")
        print("\n".join(f"  {name}: {why}" for name, why in not_built.items()))
    assert not set(SAMPLE) & (set(refused) | set(not_built))
    assert len(right) > 0.8 * len(FAMILIES)
    assert LOOK_AHEAD & set(FAMILIES) <= set(refused)


# Fast cases


def small(kind, **changed) -> Any:
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "num_key_value_heads": 2, "head_dim": 8,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return hf.AutoModelForCausalLM.from_config(kind(**{**sizes, **changed})).eval()


def test_a_head_with_a_transform_is_the_model_s_own_with_a_notice():
    model = small(hf.BertConfig, is_decoder=True)
    with torch.no_grad():
        expected, rounding = from_own_logits(model)
    with pytest.warns(HeadNotice, match=r"^BertLMHeadModel does more to its logits .* 0 MiB .* per 1,000"):
        with_logps(model)
    with torch.no_grad():
        torch.testing.assert_close(model(**collate(PAIRS, PAD)), expected, rtol=0, atol=rounding)


def test_hidden_states_that_are_scaled_first_are_the_model_s_own():
    model = tiny_model("minicpm3")
    with pytest.warns(HeadNotice, match=r"^MiniCPM3ForCausalLM does more"):
        assert way_of(model.forward, model) == Way(whole=True, layout=ONCE)


def test_a_model_that_takes_itself_for_its_decoder_needs_no_whole_logits():
    model = small(hf.Llama4TextConfig, intermediate_size_mlp=16, num_local_experts=2)
    with torch.no_grad():
        expected, rounding = from_own_logits(model)
        assert way_of(model.forward, model) == Way(whole=False, layout=replace(ONCE, window=8192))
        torch.testing.assert_close(with_logps(model)(**collate(PAIRS, PAD)), expected, rtol=0, atol=rounding)


def test_positions_that_do_not_begin_at_zero_are_the_model_s_own_and_responses_are_apart_with_a_notice():
    model = small(hf.RobertaConfig, is_decoder=True, pad_token_id=1)
    with pytest.warns(ApartNotice, match=r"^RobertaForCausalLM gives other log-probabilities where both responses"):
        assert not with_logps(model).layout.once


class Deaf(hf.LlamaForCausalLM):
    """A model that ignores an argument."""

    ignored = ""

    def __init__(self, config):
        super().__init__(config)
        inner = self.model.forward
        self.model.forward = lambda **given: inner(**{name: one for name, one in given.items() if name != self.ignored})


@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids", ""])
@pytest.mark.parametrize("large", [False, True], ids=["logits that rounding hides", "larger logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_ignores_the_mask_or_the_positions_reads_responses_apart(dtype, large, ignored):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Deaf(small(hf.LlamaConfig).config).to(dtype)
        for one in model.parameters() if large else ():
            nn.init.normal_(one, std=0.3)
    model.ignored = ignored
    with pytest.warns(ApartNotice) if ignored else contextlib.nullcontext():
        assert way_of(model.forward, model).layout == (Layout(masked=False) if ignored else ONCE)


def test_responses_are_apart_where_attention_reaches_less_far_than_they_do():
    model = small(hf.MistralConfig, sliding_window=6)
    with torch.no_grad():
        expected, rounding = from_own_logits(model)
        assert with_logps(model).layout == Layout(once=True, masked=False, window=6)
        found = [model(**collate([row], PAD, layout=model.layout)) for row in PAIRS]
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=rounding)


def test_a_model_that_looks_ahead_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"logits that depend on what follows it.* needs is_decoder") as caught:
        with_logps(small(hf.BertConfig))
    assert "\n" not in str(caught.value)


def test_trying_a_model_leaves_it_and_the_generator_as_they_were():
    model = with_lora(small(hf.LlamaConfig), 2, 4.0, ["q_proj"], dropout=0.5).train()
    model.get_base_model().model.layers[0].eval()
    before, state = [part.training for part in model.modules()], torch.get_rng_state()
    with_logps(model)
    assert [part.training for part in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_rounding_of_a_type_is_no_difference_and_a_scale_is_one(dtype):
    model = small(hf.LlamaConfig).to(dtype)
    assert way_of(model.forward, model) == Way(whole=False, layout=ONCE)
    forward = model.forward

    def scaled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 1.5
        return output

    assert way_of(scaled, model) == Way(whole=True, layout=ONCE)


def test_weights_that_are_not_finite_are_left_to_those_who_see_their_numbers():
    model = small(hf.LlamaConfig)
    nn.init.constant_(model.lm_head.weight, float("nan"))
    assert way_of(model.forward, model) == Way(whole=False, layout=Layout())


def test_lack_of_memory_is_no_fault_of_the_model():
    model = small(hf.LlamaConfig)

    def full(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        way_of(full, model)

    def broken(**inputs):
        raise TypeError("no\nimage")

    with pytest.raises(ValueError, match=r"must give logits of a text alone; it says TypeError: no image"):
        way_of(broken, model)
