"""Log-probabilities, batches, gradients of micro-batches and of sides: each met by another route."""

import contextlib
import math
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from own_losses import dear_every_name
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

import transformers as hf
from hypothesis import given
from hypothesis import strategies as st
from tiny_llm import tiny_model, tiny_settings
from transformers import LlamaConfig

from gradlab.llm.data.batches import (
    Layout,
    apart,
    batch_at,
    collate,
    dealt,
    lengths,
    padded,
    pair_rows,
    steps_per_epoch,
)
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.checkpointed_layers import checkpoint_layers
from gradlab.llm.model.group import Group, precision_on
from gradlab.llm.model.heads import ApartNotice, HeadNotice
from gradlab.llm.model.loading import with_lora
from gradlab.llm.model.logps import _SCALED, with_logps
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.loop import NotFinite
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel
from gradlab.llm.train.reference import score
from gradlab.llm.train.supervised_task import SupervisedTask
from gradlab.llm.train.trained_model import scheduled
from gradlab.losses import DPO, LogisticLoss, PairLogps, named_loss, pair_loss

PAD = 2
ROWS = [((0, 5, 7, 9), (4, 6, 1)), ((0, 8), (3, 3, 3, 9, 10, 1)), ((0, 11, 12, 13, 14, 15), (20, 1)), ((7,), (9,))]


def encoded(number, seed=0, vocabulary=33):
    rng = np.random.default_rng(seed)

    def ids(low, high):
        return tuple(map(int, rng.integers(3, vocabulary, rng.integers(low, high))))

    return [Encoded((0, *ids(1, 6)), (*ids(1, 8), 1), (*ids(1, 8), 1)) for _ in range(number)]


def policy_of(model, **changed):
    settings = tiny_settings(Path(), Path(), **changed)
    return PolicyModel(model, Group(), settings, rate=0.01, steps=10, pad=PAD)


def task_of(pairs, loss=None, seed=0):
    """Its reference is not the model: noise, of log-probabilities' size."""
    ref = -20 - 10 * torch.rand(len(pairs), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return PairTask(loss or DPO(), pairs, ref, (), ref[:0])


def from_logits(model, rows):
    """Σ log π over each response, from the model's own logits of the row alone."""
    sums = []
    for prompt, response in rows:
        logps = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
        sums.append(logps[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None]).sum())
    return torch.stack(sums)


# A model of one token


class Table(nn.Module):
    """A language model whose next token depends on the last one alone: logits are a row of a table."""

    def __init__(self, size, seed=0):
        super().__init__()
        self.config = LlamaConfig(vocab_size=size)
        self.rows = nn.Embedding(size, size, dtype=torch.float64)
        self.head = nn.Linear(size, size, bias=False, dtype=torch.float64).requires_grad_(False)
        nn.init.eye_(self.head.weight)
        nn.init.normal_(self.rows.weight, generator=torch.Generator().manual_seed(seed))

    def get_decoder(self):
        return lambda input_ids, **_: SimpleNamespace(last_hidden_state=self.rows(input_ids))

    def get_input_embeddings(self):
        return self.rows

    def get_output_embeddings(self):
        return self.head

    def forward(self, input_ids, attention_mask=None):
        return SimpleNamespace(logits=self.head(self.rows(input_ids)))


def one_token_pairs():
    pairs = [(3, 4, 5), (3, 6, 4), (4, 5, 3), (5, 5, 6), (6, 3, 4), (4, 6, 5)]
    return [Encoded((0, x), (win,), (lose,)) for x, win, lose in pairs], torch.tensor(pairs).T


@dear_every_name
def test_a_model_of_one_token_has_the_loss_and_the_gradient_of_the_table(name):
    encoded_pairs, (x, win, lose) = one_token_pairs()
    model, loss = Table(7), pair_loss(name)
    task = task_of(encoded_pairs, loss)
    policy = policy_of(model, batch=6, micro=2)
    row = task.gradient(policy, 1)

    table = model.rows.weight.detach().clone().requires_grad_()
    logp = table.log_softmax(-1)
    one = torch.ones(6, dtype=torch.long)
    value = loss(PairLogps(logp[x, win], logp[x, lose], *task.train_ref.T, one, one)).mean()
    value.backward()
    assert row["loss"] == pytest.approx(float(value.detach()), rel=1e-12)
    torch.testing.assert_close(model.rows.weight.grad, table.grad, rtol=1e-10, atol=1e-14)
    assert row["grad_norm"] == pytest.approx(float(table.grad.norm()), rel=1e-10)


def test_the_gradient_of_dpo_on_one_pair_by_hand():
    """−β σ(−m) (e_w − e_l) in the row of its prompt: the normaliser cancels."""
    model, task = Table(7), task_of([Encoded((0, 3), (4,), (5,))], DPO(0.7))
    policy = policy_of(model, batch=1)
    row = task.gradient(policy, 1)
    values = model.rows.weight[3].detach()
    margin = 0.7 * float(values[4] - values[5] - task.train_ref[0, 0] + task.train_ref[0, 1])
    slope = -0.7 / (1 + math.exp(margin))
    expected = torch.zeros(7, 7, dtype=torch.float64)
    expected[3, 4], expected[3, 5] = slope, -slope
    torch.testing.assert_close(model.rows.weight.grad, expected, rtol=1e-10, atol=1e-14)
    assert row["loss"] == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-10)


# Log-probabilities


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_chunks_give_the_log_probabilities_and_gradients_of_whole_logits(chunk, mean):
    model = with_logps(tiny_model().double(), chunk=chunk)
    found = model(**collate(ROWS, PAD), mean=mean)
    whole = from_logits(model, ROWS)
    if mean:
        whole = whole / torch.tensor([3, 6, 2, 1])
    torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    parameters = list(model.parameters())
    one, other = (torch.autograd.grad((value * weights).sum(), parameters) for value in (found, whole))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_only_chunks_before_the_last_are_computed_again():
    model, calls = with_logps(tiny_model(), chunk=5), []
    model.get_output_embeddings().register_forward_hook(lambda *_: calls.append(1))
    total = model(**collate(ROWS, PAD)).sum()  # 12 tokens
    assert len(calls) == 3
    total.backward()
    assert len(calls) == 5


def test_padding_and_the_rest_of_a_batch_change_nothing():
    model = with_logps(tiny_model().double())
    with torch.no_grad():
        alone = torch.cat([model(**collate([row], PAD)) for row in ROWS])
        for layout in (None, model.layout):
            for order in ([0, 1, 2, 3], [3, 1], [2, 0, 3]):
                found = model(**collate([ROWS[one] for one in order], PAD, layout=layout))
                torch.testing.assert_close(found, alone[order], rtol=1e-12, atol=1e-12)
        scored = score(lambda **batch: model(**batch), ROWS, Group(), pad=PAD, micro=3)
    torch.testing.assert_close(scored, alone, rtol=1e-12, atol=1e-12)


_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 33}
_LLAMA = {**_SIZES, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
FAMILIES = {
    "llama, untied": hf.LlamaConfig(**_LLAMA, tie_word_embeddings=False),
    "mistral": hf.MistralConfig(**_LLAMA, sliding_window=4),
    "qwen": hf.Qwen3Config(**_LLAMA),
    "phi": hf.Phi3Config(**_LLAMA, pad_token_id=PAD),
    "pythia": hf.GPTNeoXConfig(**_SIZES, intermediate_size=32),
    "gpt2": hf.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=33),
    "opt": hf.OPTConfig(**_SIZES, ffn_dim=32, word_embed_proj_dim=16),
    "gemma": hf.GemmaConfig(**_LLAMA),
    "gemma 2": hf.Gemma2Config(**_LLAMA, final_logit_softcapping=0.05),
    "cohere": hf.CohereConfig(**_LLAMA, logit_scale=0.3),
    "granite": hf.GraniteConfig(**_LLAMA, logits_scaling=3.0),
}
CAPPED = ("gemma 2", "cohere", "granite")  # their logits are capped or scaled
APART = ("mistral",)  # its window is too short to be tried


@pytest.mark.parametrize("name", FAMILIES)
def test_models_of_other_kinds_agree_with_their_own_logits(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(FAMILIES[name]).double().eval()
    notice = HeadNotice if name in CAPPED else ApartNotice if name in APART else None
    with pytest.warns(notice) if notice else contextlib.nullcontext():
        with_logps(model)
    with torch.no_grad():
        found = model(**collate(ROWS, PAD, layout=model.layout)).double()
        torch.testing.assert_close(found, from_logits(model, ROWS), rtol=1e-6, atol=1e-6)


def test_names_of_what_is_done_to_logits_are_known():
    known = ("logit_scale", "logits_scaling", "final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
    assert all(_SCALED.fullmatch(name) for name in (*known, "lm_head_multiplier"))
    others = ("attn_logit_softcapping", "router_logits_scaling", "rope_scaling", "num_logits_to_keep")
    assert not any(_SCALED.fullmatch(name) for name in others)


def test_a_model_that_gives_log_probabilities_is_saved_and_called_as_before(tmp_path):
    model = tiny_model().eval()
    ids = torch.tensor([[0, 5, 7]])
    before = model(ids).logits
    with_logps(model).save_pretrained(tmp_path)
    again = hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(model(ids).logits, before)
    assert torch.equal(again(ids).logits, before)
    assert model.generate(ids, max_new_tokens=2, min_new_tokens=2, do_sample=False).shape == (1, 5)


# Batches


@pytest.mark.parametrize("mean", [False, True])
def test_responses_that_share_a_row_have_the_log_probabilities_and_gradients_of_rows_of_their_own(mean):
    rows = [(*row, *more) for row, more in zip(ROWS, ([(5,), (4, 4)], [(4, 6), (7,)], [(9,) * 5, (9, 1)], [(8, 3), ()]),
                                               strict=True)]  # fmt: skip
    model = with_logps(tiny_model().double())
    assert model.layout == Layout(once=True, masked=False)
    weights, found = torch.linspace(-1, 2, 12, dtype=torch.float64), []
    for layout in (Layout(), model.layout):
        logps = model(**collate(rows, PAD, layout=layout), mean=mean)
        found.append((logps, *torch.autograd.grad((logps * weights).sum(), list(model.parameters()))))
    for one, other in zip(*found, strict=True):  # the norms' gradients are rounded to float32 whatever the weights are
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_every_epoch_sees_each_pair_once_in_an_order_of_its_own(number, batch, seed):
    steps = steps_per_epoch(number, batch)
    epochs = [
        np.concatenate([batch_at(epoch * steps + step, number, batch, seed) for step in range(steps)])
        for epoch in range(2)
    ]
    for one in epochs:
        assert sorted(one) == list(range(number))
    assert number < 10 or not np.array_equal(*epochs)
    assert max(len(batch_at(step, number, batch, seed)) for step in range(steps)) <= batch
    assert np.array_equal(batch_at(3, number, batch, seed), batch_at(3, number, batch, seed))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 5))
def test_processes_share_a_batch_in_as_many_turns_each(lengths, micro, ranks):
    lengths = np.array(lengths)
    every = [dealt(lengths, micro, rank, ranks) for rank in range(ranks)]
    assert len({len(parts) for parts in every}) == 1
    assert sorted(np.concatenate([part for parts in every for part in parts])) == list(range(len(lengths)))
    assert max(len(part) for parts in every for part in parts) <= micro
    assert all(len(parts[0]) for parts in every) or len(lengths) < ranks or len(every[0]) == 1
    in_turn = [part for turn in zip(*every, strict=True) for part in turn if len(part)]
    shortest = [lengths[part].min() for part in in_turn]
    assert shortest == sorted(shortest, reverse=True)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(50, 200), st.integers(1, 5))
def test_a_budget_of_tokens_is_kept_and_used(lengths, budget, ranks):
    lengths = np.array(lengths)
    every = [dealt(lengths, 1, rank, ranks, budget=budget) for rank in range(ranks)]
    assert len({len(parts) for parts in every}) == 1
    assert sorted(np.concatenate([part for parts in every for part in parts])) == list(range(len(lengths)))
    in_turn = [part for turn in zip(*every, strict=True) for part in turn if len(part)]
    held = [len(part) * lengths[part].max() for part in in_turn]
    assert max(held) <= budget
    full = [len(part) == math.ceil(len(lengths) / ranks) or all_ + lengths[part].max() > budget
            for part, all_ in zip(in_turn, held, strict=True)]  # fmt: skip
    assert all(full[:-1])  # one more pair would be too much, or leave a process without any


def test_a_budget_below_the_longest_pair_is_one_line():
    with pytest.raises(ValueError, match=r"^tokens_per_micro must be at least 9, the tokens of the longest .* got 8$"):
        dealt(np.array([3, 9]), 1, budget=8)
    with pytest.raises(ValueError, match="tokens_per_micro must be left out with kto, a loss of batches"):
        tiny_settings(Path(), Path(), tokens_per_micro=100, loss=("dpo", "kto"))


def test_a_budget_of_tokens_changes_a_step_by_rounding_only():
    pairs, found = encoded(9), []
    for budget in (None, 30, 60, 1000):
        policy, rows = policy_of(tiny_model(), batch=9, micro=2, tokens_per_micro=budget), []
        forward = policy.forward
        policy.forward = lambda row, width=None, rows=rows, forward=forward: rows.append(row) or forward(row, width)
        row = task_of(pairs).gradient(policy, 1)
        found.append((row["loss"], row["grad_norm"]))
        if budget:
            assert max(len(one) * max(sum(map(len, row)) for row in one) for one in rows) <= budget
    assert [one == pytest.approx(found[0], rel=1e-5) for one in found] == 4 * [True]


def test_no_process_idles_in_a_batch_that_has_a_pair_for_each():
    assert [len(dealt(np.arange(8), 8, rank, 4)[0]) for rank in range(4)] == [2, 2, 2, 2]


def test_a_batch_of_tensors_by_hand():
    def lists(batch):
        return {name: tensor.tolist() for name, tensor in batch.items()}

    assert lists(padded([(5, 6, 7), (8, 9)], PAD, left=True)) == {
        "input_ids": [[5, 6, 7], [PAD, 8, 9]], "attention_mask": [[1, 1, 1], [0, 1, 1]],
    }  # fmt: skip
    asked = {"targets": [7, 9, 10, 11], "responses": [0, 1, 1, 2], "lengths": [1, 2, 1]}
    rows = [((5, 6), (7,)), ((8,), (9, 10)), ((8,), (11,))]
    ids = [[5, 6, 7], [8, 9, 10], [8, 11, PAD]]
    plain = {"input_ids": ids, "places": [1, 3, 4, 6], **asked}
    assert lists(collate(rows, PAD)) == {**plain, "attention_mask": [[1, 1, 1], [1, 1, 1], [1, 1, 0]]}
    assert lists(collate(rows, PAD, layout=Layout(once=True, masked=False))) == plain


def test_responses_that_share_a_row_by_hand():
    rows = [((5, 6), (7, 8), (9, 10, 11)), ((4,), (), (3,))]
    made = collate(rows, PAD, layout=Layout(once=True))
    assert {name: tensor.tolist() for name, tensor in made.items()} == {
        "input_ids": [[5, 6, 7, 8, 9, 10, 11], [4, 3, PAD, PAD, PAD, PAD, PAD]],
        "segments": [[0, 0, 1, 1, 2, 2, 2], [0, 2, 3, 3, 3, 3, 3]],
        "position_ids": [[0, 1, 2, 3, 2, 3, 4], [0, 1, 0, 0, 0, 0, 0]],
        "places": [1, 2, 1, 4, 5, 7], "targets": [7, 8, 9, 10, 11, 3],
        "responses": [0, 0, 1, 1, 1, 3], "lengths": [2, 3, 0, 1],
    }  # fmt: skip
    with pytest.raises(ValueError, match="rows must each have a prompt of one or more tokens"):
        collate([((), (4,))], PAD)


def test_a_layout_counts_tokens_and_keeps_long_rows_apart():
    rows = [((5, 6), (7, 8), (9, 10, 11)), ((4,), (5,), (3,))]
    once, two = Layout(once=True), Layout()
    assert (once.tokens(rows).tolist(), two.tokens(rows).tolist()) == ([7, 3], [10, 4])
    assert (once.real_tokens(rows), two.real_tokens(rows)) == (10, 13)
    assert "segments" in collate(rows, PAD, layout=Layout(once=True, window=5))
    assert "segments" not in collate(rows, PAD, layout=Layout(once=True, window=4))
    assert not once.of(apart(rows)).once
    assert apart(rows)[:2] == [((5, 6), (7, 8)), ((5, 6), (9, 10, 11))]


def test_learning_rates_by_hand():
    assert [scheduled(step, 4, 2.0, "constant", 0.5) for step in (1, 2, 3, 4)] == [1.0, 2.0, 2.0, 2.0]
    linear = [scheduled(step, 4, 1.0, "linear", 0.0) for step in (1, 2, 3, 4)]
    assert linear == pytest.approx([0.775, 0.55, 0.325, 0.1])
    cosine = [scheduled(step, 5, 1.0, "cosine", 0.2) for step in (1, 3, 5)]
    assert cosine == pytest.approx([1.0, 0.55, 0.1])


# Gradients


@pytest.mark.parametrize("micro", [1, 2, 3, 7])
def test_micro_batches_add_up_to_the_batch(micro):
    """Of 7 pairs, so that the last one is smaller; against one backward pass through the mean loss."""
    pairs = encoded(7)
    task = task_of(pairs, pair_loss("bdpo"))
    policy = policy_of(tiny_model().double(), batch=7, micro=micro)
    row = task.gradient(policy, 1)
    model = with_logps(tiny_model().double())
    by_side = model(**collate(pair_rows(pairs), PAD, layout=model.layout)).view(7, 2)
    value = task.loss(task.logps(pairs, by_side, task.train_ref)).mean()
    expected = torch.autograd.grad(value, list(model.parameters()))
    assert row["loss"] == pytest.approx(float(value.detach()), rel=1e-12)
    for found, own in zip(policy.gradient(), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=1e-9, atol=1e-12)


def test_gradient_accumulation_equals_the_large_batch_in_single_precision():
    norms = []
    for micro in (1, 3, 8):
        policy = policy_of(tiny_model(), batch=8, micro=micro)
        row = task_of(encoded(8)).gradient(policy, 1)
        norms.append((row["loss"], row["grad_norm"], torch.cat([one.flatten() for one in policy.gradient()])))
    for loss, norm, gradient in norms[1:]:
        assert (loss, norm) == pytest.approx(norms[0][:2], rel=1e-6)
        torch.testing.assert_close(gradient, norms[0][2], rtol=0, atol=1e-6 * norm)


@pytest.mark.parametrize("name", ["dpo", "bdpo", "ipo"])
def test_the_gradients_of_the_sides_are_those_of_each_side_alone(name):
    """Up to float32, to which the model's norms round gradients: a shared row adds a prompt's up before that."""
    pairs, model = encoded(5), tiny_model().double()
    task = task_of(pairs, pair_loss(name))
    policy = policy_of(model, batch=5, micro=2, sides_every=1)
    row = task.gradient(policy, 1)

    other = with_logps(tiny_model().double())
    sides = []
    for side in (0, 1):
        by_side = other(**collate(pair_rows(pairs), PAD, layout=other.layout)).view(5, 2).T
        kept = [by_side[one] if one == side else by_side[one].detach() for one in (0, 1)]
        value = task.loss(task.logps(pairs, torch.stack(kept, 1), task.train_ref)).mean()
        gradient = torch.autograd.grad(value, list(other.parameters()))
        sides.append(torch.cat([one.flatten() for one in gradient]))
    win, lose = sides
    whole = torch.cat([one.flatten() for one in policy.gradient()])
    torch.testing.assert_close(whole, win + lose, rtol=1e-4, atol=1e-6)
    assert row["grad_norm_win"] == pytest.approx(float(win.norm()), rel=1e-6)
    assert row["grad_norm_lose"] == pytest.approx(float(lose.norm()), rel=1e-6)
    assert row["grad_norm"] == pytest.approx(float((win + lose).norm()), rel=1e-6)
    assert row["grad_cosine"] == pytest.approx(float(win @ lose / win.norm() / lose.norm()), rel=1e-6)
    assert row["grad_split_error"] < 1e-6


@pytest.mark.parametrize(("dropout", "responses"), [(0.0, [10, 5, 5]), (0.3, [10, 10, 10])])
def test_a_side_is_looked_at_by_itself_unless_dropout_would_draw_otherwise(dropout, responses):
    model = with_lora(tiny_model(), 2, 4.0, ("all-linear",), dropout)
    policy = policy_of(model, batch=5, micro=5, sides_every=1, lora_rank=2, lora_dropout=dropout)
    forward, seen = policy.forward, []
    policy.forward = lambda rows, width=None: seen.append(sum(len(row) - 1 for row in rows)) or forward(rows, width)
    row = task_of(encoded(5)).gradient(policy, 1)
    assert seen == responses
    assert row["grad_split_error"] < 1e-5


def test_a_later_look_runs_the_winners_alone_and_leaves_the_gradient_as_it_was():
    policy, plain = (policy_of(tiny_model(), batch=5, micro=5, sides_every=every) for every in (1, 0))
    forward, seen = policy.forward, []
    policy.forward = lambda rows, width=None: seen.append(sum(len(row) - 1 for row in rows)) or forward(rows, width)
    row = task_of(encoded(5)).gradient(policy, 2)
    task_of(encoded(5)).gradient(plain, 2)
    assert seen == [10, 5]
    assert "grad_split_error" not in row
    both = row["grad_norm_win"] ** 2 + row["grad_norm_lose"] ** 2
    both += 2 * row["grad_cosine"] * row["grad_norm_win"] * row["grad_norm_lose"]
    assert both == pytest.approx(row["grad_norm"] ** 2, rel=1e-6)
    assert all(map(torch.equal, policy.gradient(), plain.gradient()))
    assert policy.tokens == plain.tokens


@pytest.mark.parametrize(("checkpointing", "times"), [(0, 1), (0.5, 1), (1, 4)])
def test_weights_are_cast_once_per_step_unless_memory_is_short(checkpointing, times):
    how = {"precision": "bf16", "gradient_checkpointing": checkpointing, "sides_every": 0}
    policy = policy_of(tiny_model(), batch=4, micro=1, **how)
    weight = policy.plain.model.layers[0].self_attn.q_proj.weight

    class Casts(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            cast = function is torch.ops.aten._to_copy.default
            self.number += cast and args[0].data_ptr() == weight.data_ptr()
            return function(*args, **(kwargs or {}))

    with Casts() as casts:
        task_of(encoded(4)).gradient(policy, 1)
    assert casts.number >= times if times > 1 else casts.number == times
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_a_side_without_a_gradient_has_no_cosine():
    class WinnersAlone(LogisticLoss):
        name = "winners"

        def margin(self, logps):
            return logps.win - logps.ref_win + 0 * logps.lose

    row = task_of(encoded(3), WinnersAlone()).gradient(policy_of(tiny_model(), batch=3, sides_every=1), 1)
    assert row["grad_norm_lose"] == 0 < row["grad_norm_win"]
    assert "grad_cosine" not in row


def test_the_log_row_of_a_step_is_that_of_its_log_probabilities():
    pairs = encoded(4)
    task = task_of(pairs, pair_loss("nbdpo"))
    row = task.gradient(policy_of(tiny_model(), batch=4, micro=4, sides_every=0), 1)
    with torch.no_grad():
        win, lose = (
            from_logits(tiny_model().double(), [(pair.prompt, getattr(pair, side)) for pair in pairs])
            for side in ("win", "lose")
        )
    beta, clip = task.loss.beta, task.loss.clip
    h_win, h_lose = win - task.train_ref[:, 0], lose - task.train_ref[:, 1]
    times = 1 + (win - lose).clamp(0, clip)  # λ of naive bDPO
    margin = beta * (times * h_win - h_lose)
    share = times / (times + 1)
    tokens = torch.tensor([len(pair.win) / (len(pair.win) + len(pair.lose)) for pair in pairs]).double()
    expected = {
        "loss": F.softplus(-margin), "logp_win": win, "logp_lose": lose, "reward_win": beta * h_win,
        "reward_lose": beta * h_lose, "reward_margin": beta * (h_win - h_lose), "margin": margin,
        "accuracy": (h_win > h_lose).double(), "slope_win": -margin.neg().sigmoid() * beta * times,
        "slope_lose": margin.neg().sigmoid() * beta, "win_weight": share,
        "log_prob_ratio": times.log() + lose - win,
    }  # fmt: skip
    expected = {name: float(value.mean()) for name, value in expected.items()}
    expected |= {f"win_weight_q{tenth}0": float(share.quantile(tenth / 10)) for tenth in (1, 5, 9)}
    expected["win_weight_length_correlation"] = float(torch.corrcoef(torch.stack([share, tokens]))[0, 1])
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert set(row) - set(expected) == {"grad_norm"}


def test_micro_batches_are_the_batches_of_a_loss_of_batches():
    pairs, loss = encoded(5), named_loss("dr-dpo", beta=0.3)
    task = task_of(pairs, loss)
    row = task.gradient(policy_of(tiny_model(), batch=5, micro=2, sides_every=1), 1)
    model = with_logps(tiny_model())
    by_side = model(**collate(pair_rows(pairs), PAD, layout=model.layout)).view(5, 2)
    parts = dealt(lengths(pairs), 2)
    expected = sum(
        loss(task.logps([pairs[place] for place in part], by_side[part], task.train_ref[part])).sum() for part in parts
    )
    (expected / 5).backward()
    norm = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None]).norm()
    assert row["loss"] == pytest.approx(float(expected.detach()) / 5, rel=1e-6)
    assert row["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    assert row["grad_split_error"] < 1e-4  # the sides' slopes are those of the micro-batches
    whole = task.gradient(policy_of(tiny_model(), batch=5, micro=5, sides_every=0), 1)
    assert whole["loss"] != pytest.approx(row["loss"], rel=1e-4)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_supervised_loss_is_that_of_transformers(reduction):
    rows = [(one.prompt, one.win) for one in encoded(5)]
    policy = policy_of(tiny_model(), batch=5, micro=2, reduction=reduction)
    row = SupervisedTask(rows, rows).gradient(policy, 1)
    batch = padded([(*prompt, *response) for prompt, response in rows], PAD)
    before = torch.tensor([len(prompt) for prompt, _ in rows])
    asked = batch["attention_mask"].bool() & (torch.arange(batch["input_ids"].shape[1]) >= before[:, None])
    labels = batch["input_ids"].masked_fill(~asked, -100)
    model = tiny_model()
    model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss.backward()
    expected = torch.cat([one.grad.flatten() for one in model.parameters()])
    torch.testing.assert_close(torch.cat([one.flatten() for one in policy.gradient()]), expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert row["loss"] == pytest.approx(float(loss), rel=1e-6)
    assert row["grad_norm"] == pytest.approx(float(expected.norm()), rel=1e-5)
    assert SupervisedTask(rows, rows).validate(policy)["validation_loss"] == pytest.approx(float(loss), rel=1e-6)


def test_gradient_checkpointing_gives_the_same_gradient():
    for lora in (False, True):
        found = []
        for checkpointing in (0, 0.3, 1):
            model = tiny_model()
            if lora:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    model = with_lora(model, 2, 4.0, ["all-linear"], 0.2)
            policy = policy_of(model, gradient_checkpointing=checkpointing, lora_rank=2 * lora)
            row = task_of(encoded(4)).gradient(policy, 1)
            found.append((row["loss"], torch.cat([one.flatten() for one in policy.gradient()])))
        for loss, gradient in found[1:]:
            assert loss == found[0][0]
            torch.testing.assert_close(found[0][1], gradient, rtol=1e-5, atol=1e-7)
        assert found[0][1].abs().max() > 0


@pytest.mark.parametrize(("share", "number"), [(0.0, 0), (False, 0), (0.01, 1), (0.5, 2), (0.51, 3), (1, 4), (True, 4)])
def test_the_first_layers_are_checkpointed(share, number):
    policy = policy_of(tiny_model(layers=4), gradient_checkpointing=share)
    assert [layer.gradient_checkpointing for layer in policy.model.model.layers] == [
        place < number for place in range(4)
    ]


def test_a_model_without_layers_of_a_kind_is_checkpointed_whole_or_not_at_all():
    class Old(torch.nn.Module):
        """A model that turns its checkpointing on and off as a whole, as older ones do."""

    with pytest.raises(ValueError, match=r"gradient_checkpointing must be 0 or 1 for Old, got 0\.5"):
        checkpoint_layers(Old(), 0.5)


def test_random_numbers_are_only_kept_apart_where_there_is_dropout():
    for dropout in (0.0, 0.2):
        model = with_lora(tiny_model(), 2, 4.0, ["all-linear"], dropout)
        policy = policy_of(model, lora_rank=2, lora_dropout=dropout)
        with patch("gradlab.llm.train.policy_model.drawing", wraps=drawing) as apart:
            task_of(encoded(4)).gradient(policy, 1)
        assert apart.called == bool(dropout)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_layers_that_compute_again_keep_random_numbers_only_where_there_is_dropout(share):
    for dropout in (0.0, 0.2):
        model = with_lora(tiny_model(), 2, 4.0, ["all-linear"], dropout).train()
        policy_of(model, lora_rank=2, lora_dropout=dropout, gradient_checkpointing=share)
        again = [part for part in model.modules() if getattr(part, "gradient_checkpointing", False)]
        assert again
        assert {part._gradient_checkpointing_func.keywords["preserve_rng_state"] for part in again} == {bool(dropout)}


def test_auto_is_single_precision_on_a_cpu():
    assert policy_of(tiny_model(), precision="auto").precision == "fp32"
    assert precision_on(torch.device("cuda"), "auto") == "bf16"
    assert precision_on(torch.device("cuda"), "fp32") == "fp32"


def test_bfloat16_is_near_single_precision():
    rows = []
    for precision in ("fp32", "bf16"):
        policy = policy_of(tiny_model(), batch=6, precision=precision)
        rows.append(task_of(encoded(6)).gradient(policy, 1))
        assert {one.dtype for one in policy.gradient()} == {torch.float32}
    single, half = rows
    assert half["logp_win"] == pytest.approx(single["logp_win"], rel=0.01)
    assert half["logp_win"] != single["logp_win"]
    assert half["grad_norm"] == pytest.approx(single["grad_norm"], rel=0.05)


def test_a_step_shortens_long_gradients_alone():
    for most, length in ((0.5, 0.5), (1e9, None)):
        policy = policy_of(tiny_model(), max_norm=most, schedule="constant")
        norm = task_of(encoded(4)).gradient(policy, 1)["grad_norm"]
        assert policy.step(1, norm) == 0.01
        first = torch.cat([policy.optimizer.state[one]["exp_avg"].flatten() for one in policy.parameters])
        assert float(first.norm()) / (1 - 0.9) == pytest.approx(length or norm, rel=1e-5)
        assert all(one.grad is None for one in policy.parameters)


def test_the_fused_step_is_adamws_by_another_route():
    made = []
    for fused in (True, False):
        policy = policy_of(tiny_model(), max_norm=0.5, weight_decay=0.1)
        if not fused:  # a loop over the parameters, which are shortened before
            policy.optimizer = torch.optim.AdamW(policy.parameters, weight_decay=0.1, betas=(0.9, 0.95), foreach=False)
        task = task_of(encoded(4))
        for step in (1, 2, 3):
            norm = task.gradient(policy, step)["grad_norm"]
            if not fused:
                torch.nn.utils.clip_grads_with_norm_(policy.parameters, 0.5, torch.tensor(norm))
            policy.step(step, norm if fused else 0.0)
        made.append(torch.cat([one.detach().flatten() for one in policy.parameters]))
    assert torch.allclose(*made, rtol=0, atol=2e-6)
    assert not torch.equal(made[0], torch.cat([one.detach().flatten() for one in tiny_model().parameters()]))


def test_draws_are_the_seeds_and_leave_others_alone():
    device = torch.device("cpu")
    before = torch.random.get_rng_state()
    made = []
    for seed in (1, 1, 2):
        with drawing(seed, device):
            made.append(F.dropout(torch.ones(20)))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_tokens_that_are_read_are_counted_once_a_pair():
    pairs = encoded(5)
    for layout, prompts in ((None, 1), (Layout(), 2)):
        policy = policy_of(tiny_model(), batch=5, micro=2, sides_every=1)
        policy.layout = layout or policy.layout
        task_of(pairs).gradient(policy, 1)
        assert policy.tokens == sum(prompts * len(one.prompt) + len(one.win) + len(one.lose) for one in pairs)


def test_numbers_that_are_not_finite_name_the_pairs():
    pairs = encoded(4)
    task = task_of(pairs)
    model = tiny_model()
    model.lm_head.weight.data[pairs[2].win[0]] = math.nan
    with pytest.raises(NotFinite, match="step 1: log π is not finite") as caught:
        task.gradient(policy_of(model), 1)
    assert sorted(caught.value.batch["training_pairs"]) == [0, 1, 2, 3]
    [told] = task.described([2])
    assert told == {"text": None, "tokens": {"prompt": pairs[2].prompt, "win": pairs[2].win, "lose": pairs[2].lose}}
