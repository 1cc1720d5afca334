"""Training of the upper layers alone, on hidden states that were computed before: the numbers of the whole model."""

import shutil
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from llm_families import tiny_model as family
from llm_two_processes import Killed, stopped_after
from safetensors.torch import load_file
from tiny_llm import quick_collections, tiny_model, tiny_settings, write_inputs
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config

from gradlab.llm.data.batches import Partly, collate, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.loading import with_lora
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.upper_layers import UpperLayers
from gradlab.llm.train.hidden_cache import PART, HiddenCache
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import score
from gradlab.llm.train.stages import train

PAD = 2
PAIRS = [
    Encoded((0, 5, 7, 9), (4, 6, 1), (8, 1)),
    Encoded((0, 8), (3, 3, 3, 9, 10, 1), (5,)),
    Encoded((7,), (9,), (6, 1)),
]
ROWS = pair_rows(PAIRS)
pytestmark = pytest.mark.usefixtures(quick_collections.__name__)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def policy_of(model, tmp_path, first=None, hidden=None, **changed):
    settings = tiny_settings(tmp_path, tmp_path, train_from=first, **changed)
    return PolicyModel(model, Group(), settings, rate=0.01, steps=10, pad=PAD, hidden=hidden)


def never(rows):
    raise AssertionError("all pairs are known")


def gradients(policy):
    """The gradient of Σ log π of some rows, by the names of trained parameters, and log π."""
    policy.clear()
    logps = policy.forward(ROWS)
    logps.sum().backward()
    return logps.detach(), {
        name: value.grad.clone() for name, value in policy.plain.named_parameters() if value.grad is not None
    }


def close(one, other, largest):
    return float((one - other).abs().max()) <= 1e-5 * max(float(largest), 1.0)


@pytest.mark.parametrize("lora", [0, 2])
def test_log_pi_and_gradient_are_the_whole_models_with_the_others_frozen(tmp_path, lora):
    def model():
        made = tiny_model(layers=4)
        return with_lora(made, lora, 16.0, ("all-linear",), first=2) if lora else made

    def nudged(policy):  # a new adapter gives nothing
        with torch.no_grad():
            for value in policy.parameters:
                value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
        return policy

    upper = nudged(policy_of(model(), tmp_path, 2, lora_rank=lora))
    names = [name for name, value in upper.plain.named_parameters() if value.requires_grad]
    assert names
    assert all(".layers.2." in name or ".layers.3." in name or name == "model.norm.weight" for name in names)
    assert ("model.norm.weight" in names) == (not lora)
    whole = policy_of(model(), tmp_path, lora_rank=lora)
    whole.plain.load_state_dict(upper.plain.state_dict())
    (logps, parts), (expected, all_parts) = gradients(upper), gradients(whole)
    assert torch.allclose(logps, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert set(parts) == set(names)
    for name in names:
        assert close(parts[name], all_parts[name], all_parts[name].abs().max()), name


def test_hidden_states_of_the_cache_give_the_same_log_pi(tmp_path):
    policy = policy_of(tiny_model(layers=4), tmp_path, 3)
    cache = HiddenCache(tmp_path / "hidden", "key")
    assert cache.hidden(ROWS) is None
    expected = score(policy, ROWS, Group(), pad=PAD)
    with frozen(policy):
        cache.fill(PAIRS, policy.below, Group(), title="hidden")
        policy.hidden, policy.below = cache, never
        known = policy.forward(ROWS).double()
    assert torch.allclose(known, expected, rtol=0, atol=1e-5)
    assert cache.hidden([((1,), (2,))]) is None


def test_a_row_with_earlier_answers_has_its_pairs_hidden_states(tmp_path):
    policy = policy_of(tiny_model(layers=4), tmp_path, 3)
    cache = HiddenCache(tmp_path / "hidden", "key")
    asked = np.array([False, True, False, True, True, True])
    rows = [((0,), Partly.of((5, 7, 9, 4, 6, 1), asked)), (PAIRS[1].prompt, PAIRS[1].win)]  # of two of the pairs
    expected = score(policy, rows, Group(), pad=PAD)
    with frozen(policy):
        cache.fill(PAIRS, policy.below, Group(), title="hidden")
        policy.hidden, policy.below = cache, never
        known = policy.forward(rows).double()
    assert torch.allclose(known, expected, rtol=0, atol=1e-5)
    whole = Partly.of((5, 7), np.array([True, True]))  # a row of its own, no pair's
    assert cache.hidden([((0,), whole)]) is None


def test_a_pairs_hidden_states_depend_on_no_other_pair_and_a_full_cache_computes_nothing(tmp_path, capsys):
    policy = policy_of(tiny_model(layers=3), tmp_path, 1)
    one, other, third = (HiddenCache(tmp_path / name, "key") for name in "abb")
    with frozen(policy):
        one.fill(PAIRS, policy.below, Group(), title="hidden")
        other.fill(PAIRS[::-1][:2], policy.below, Group(), title="hidden")
        assert "2 pairs, 0 of them known before" in capsys.readouterr().out
        other.fill(PAIRS, policy.below, Group(), title="hidden")
        assert "3 pairs, 2 of them known before" in capsys.readouterr().out
        third.fill(PAIRS, never, Group(), title="hidden")
    states, *others = (cache.hidden(ROWS) for cache in (one, other, third))
    assert states is not None
    assert all(same is not None and torch.equal(states, same) for same in others)


def test_a_pair_is_known_when_both_its_sides_are(tmp_path, capsys):
    policy = policy_of(tiny_model(layers=3), tmp_path, 1)
    cache = HiddenCache(tmp_path / "hidden", "key")
    pair = PAIRS[0]
    others = [Encoded(pair.prompt, pair.win, (6, 6, 1)), Encoded(pair.prompt, (3,), pair.lose)]
    with frozen(policy):
        for one in (pair, *others):
            cache.fill([one], policy.below, Group(), title="hidden")
            assert cache.hidden(pair_rows([one])) is not None
    assert capsys.readouterr().out.count("0 of them known before") == 3


def test_a_cache_that_was_stopped_goes_on_and_a_damaged_part_is_made_again(tmp_path, capsys):
    policy = policy_of(tiny_model(layers=3), tmp_path, 1)
    pairs = [Encoded((0, 5 + place % 7, place % 19), (3, 1), (4, place % 11, 1)) for place in range(PART + 40)]
    calls = []

    def below(rows, most):
        calls.append(rows)
        if len(calls) > most:
            raise KeyboardInterrupt
        return policy.below(rows)

    folder = tmp_path / "hidden"
    with pytest.raises(KeyboardInterrupt), frozen(policy):
        HiddenCache(folder, "key").fill(pairs, lambda rows: below(rows, PART + 5), Group(), title="hidden")
    assert len(list(folder.glob("part-*"))) == 1
    number = len(set(pairs))
    calls.clear()
    with frozen(policy):
        HiddenCache(folder, "key").fill(pairs, lambda rows: below(rows, 1000), Group(), title="hidden")
    assert len(calls) == number - PART
    part = sorted(folder.glob("part-*"))[0]
    data = bytearray(part.read_bytes())
    data[-3] ^= 1
    part.write_bytes(data)
    calls.clear()
    capsys.readouterr()
    cache = HiddenCache(folder, "key")
    with frozen(policy):
        cache.fill(pairs, lambda rows: below(rows, 1000), Group(), title="hidden")
    assert "damaged, and is made again" in capsys.readouterr().err
    assert 0 < len(calls) <= PART
    assert cache.hidden(pair_rows(pairs)) is not None


def test_a_cache_without_room_is_one_line(tmp_path, monkeypatch):
    policy = policy_of(tiny_model(layers=3), tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(OSError, match=r"cache must be on a disk with room for .* of hidden states"), frozen(policy):
        HiddenCache(tmp_path / "hidden", "key").fill(PAIRS, policy.below, Group(), title="hidden")


@pytest.mark.parametrize("first", [4, 9])
def test_a_layer_that_is_not_there_is_one_line(tmp_path, first):
    with pytest.raises(ValueError, match=f"train_from must be from 1 to 3 for LlamaForCausalLM.*got {first}"):
        policy_of(tiny_model(layers=4), tmp_path, first)
    with pytest.raises(ValueError, match=f"train_from must be from 1 to 3 for LlamaForCausalLM.*got {first}"):
        with_lora(tiny_model(layers=4), 2, 4.0, ("all-linear",), first=first)


def test_an_adapter_on_layers_without_its_targets_is_one_line():
    words = r"^lora.targets must name linear layers in the model's layers from train_from, 2, on; got up down$"
    with pytest.raises(ValueError, match=words):
        with_lora(tiny_model(layers=4), 2, 4.0, ("up", "down"), first=2)
    with pytest.raises(ValueError, match=r"^rank must be a whole number ≥ 1, got 0$"):
        with_lora(tiny_model(layers=4), 0, 4.0, ("all-linear",))


def sliding():
    """A model whose layers see three tokens back and all tokens, in turn, with scaled embeddings."""
    config = Gemma2Config(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, head_dim=8,
        num_key_value_heads=2, sliding_window=3,
    )  # fmt: skip
    assert len(set(config.layer_types or ())) == 2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def absolute():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40, n_positions=64, n_embd=16, n_layer=4, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.filterwarnings("ignore::gradlab.llm.model.heads.HeadNotice")
@pytest.mark.filterwarnings("ignore::gradlab.llm.model.heads.ApartNotice")
@pytest.mark.parametrize("made", [sliding, absolute])
@pytest.mark.parametrize("first", [1, 2, 3])
def test_each_layer_keeps_its_kind_and_embeddings_their_scale(tmp_path, made, first):
    rows = [((0, 5, 7, 9, 11, 13, 6), (4, 6, 8, 3, 3, 1)), ((0, 8), (3, 1))]
    whole, upper = policy_of(made(), tmp_path), policy_of(made(), tmp_path, first)
    expected, logps = whole.forward(rows), upper.forward(rows)
    assert torch.allclose(logps, expected, rtol=0, atol=1e-5)
    logps.sum().backward()
    expected.sum().backward()
    parts = dict(whole.plain.named_parameters())
    for name, value in upper.plain.named_parameters():
        if value.requires_grad:
            assert close(value.grad, parts[name].grad, parts[name].grad.abs().max()), name


def parted(name, first=2):
    """Hold a family's log π by parts against the whole model's."""
    model = with_logps(family(name))
    rows = [((0, 5, 7, 9), (4, 6, 1)), ((0, 8), (3, 3, 3, 9, 10, 1))]
    batch = collate(rows, PAD)
    with torch.no_grad():
        whole = model(**batch)
    upper = UpperLayers(model, first)
    with torch.no_grad():
        with upper.below() as seen:
            model(**batch)
        with upper.above(seen[0]):
            logps = model(**batch)
    assert torch.allclose(logps, whole, rtol=0, atol=1e-5), name


@pytest.mark.parametrize(
    "name", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "gpt2", "opt", "bloom"]
)
def test_common_families_are_parted(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parted(name)


@pytest.mark.parametrize(
    ("name", "words"), [("bert", "whose decoder has no list of layers"), ("xlm", "log π of a text is .* off")]
)
def test_other_families_are_refused_in_one_line(name, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = with_logps(family(name))
    with pytest.raises(ValueError, match=f"^train_from cannot be used with .*{words}[^\n]*$"):
        UpperLayers(model, 2)


# Whole runs


@pytest.mark.slow
@pytest.mark.parametrize("lora", [0, 2])
def test_a_run_trains_the_upper_layers_alone_and_resumes_with_equal_bits(inputs, tmp_path, lora):
    changed = {"train_from": 1, "lora_rank": lora, "loss": ("dpo", "bdpo"), "sft_epochs": 1.0, "reference_steps": 2}
    straight = tmp_path / "straight"
    train(tiny_settings(inputs, straight, **changed))
    assert len(list((straight / "cache").glob("hidden-*/part-*.safetensors"))) == 1  # all stages share it
    start = load_file(inputs / "model" / "model.safetensors")
    for stage in ("sft", "reference", "dpo", "bdpo"):
        [file] = (straight / stage / "model").glob("*.safetensors")
        made = load_file(file)
        if lora:
            assert all(".layers.1." in name for name in made)
            continue
        assert made.keys() == start.keys()
        moved = {name for name in start if not torch.equal(start[name], made[name])}
        assert moved
        assert all(".layers.1." in name or name == "model.norm.weight" for name in moved)
    assert AutoModelForCausalLM.from_pretrained(str(straight / "dpo" / "model")) is not None
    out = tmp_path / "stopped"
    with pytest.raises(Killed), stopped_after(3):
        train(tiny_settings(inputs, out, **changed))
    train(tiny_settings(inputs, out, **changed))
    for stage in ("sft", "dpo", "bdpo"):
        name = "model/adapter_model.safetensors" if lora else "model/model.safetensors"
        assert (out / stage / name).read_bytes() == (straight / stage / name).read_bytes()
    with pytest.raises(ValueError, match=r"other settings, data or model .*train_from: 1 there, 2 here"):
        train(tiny_settings(inputs, out, **{**changed, "train_from": 2}))
