"""Models and data that would give wrong numbers without a word: refused in one line, put right, or told."""

import json
import math
import re
import shutil

import pytest
import torch

pytest.importorskip("transformers")
from rounding import rounding, starts_at
from tiny_llm import LONGEST_ANSWER, tiny_settings
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from gradlab.doctor import examine_log, report
from gradlab.doctor.training_log import read_log
from gradlab.llm.demo.token_task import task_tokenizer
from gradlab.llm.judge.systems import open_run
from gradlab.llm.model.loading import (
    load_model,
    load_tokenizer,
    located,
    save_folder,
    small_llama,
    weights_hash,
    with_lora,
    without_dropout,
)
from gradlab.llm.train.stages import train
from gradlab.losses import DPO

VOCABULARY = len(task_tokenizer())


def gpt2(positions=64):
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=VOCABULARY, n_positions=positions, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1
    ))  # fmt: skip


def opt():
    return OPTForCausalLM(OPTConfig(
        vocab_size=VOCABULARY, hidden_size=16, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=16, dropout=0.5, attention_dropout=0.5, layerdrop=0.5,
        pad_token_id=2, bos_token_id=0, eos_token_id=1,
    ))  # fmt: skip


@pytest.mark.parametrize("make", [pytest.param(gpt2, marks=pytest.mark.slow), opt])
def test_a_model_with_dropout_of_its_own_starts_at_ln_2(make, inputs, tmp_path):
    save_folder(tmp_path / "model", make(), task_tokenizer())
    (folder,) = train(tiny_settings(inputs, tmp_path / "out", model=str(tmp_path / "model"), steps=1))
    first = read_log(folder / "log.jsonl").iloc[0]
    assert first["loss"] == starts_at(DPO(), math.log(2), *LONGEST_ANSWER)
    logp, tokens = LONGEST_ANSWER
    assert first["reward_win"] == pytest.approx(0, abs=rounding(tokens, abs(logp), torch.float32))


def test_dropout_goes_and_that_of_an_adapter_stays():
    model = with_lora(opt(), 2, 4.0, ["q_proj"], dropout=0.25)
    config = model.config.to_dict()
    without_dropout(model)
    kept = {name: one.p for name, one in model.named_modules() if isinstance(one, torch.nn.Dropout) and one.p}
    assert set(kept.values()) == {0.25}
    assert all("lora_dropout" in name for name in kept)
    assert model.config.to_dict() == config


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(gpt2, marks=pytest.mark.slow),
        lambda n: small_llama(VOCABULARY, width=16, layers=1, heads=2, longest=n, seed=0),
    ],
)
def test_pairs_longer_than_the_models_positions_are_refused(make, inputs, tmp_path):
    save_folder(tmp_path / "model", make(12), task_tokenizer())
    settings = tiny_settings(inputs, tmp_path / "out", model=str(tmp_path / "model"))
    with pytest.raises(
        ValueError, match=r"max_length must be at most 12, the model's positions; a pair has 1[3-9] tokens"
    ):
        train(settings)
    (folder,) = train(tiny_settings(inputs, tmp_path / "cut", model=str(tmp_path / "model"), max_length=12, steps=1))
    assert (folder / "done.json").exists()


def test_pairs_that_are_trained_on_are_no_validation(inputs, tmp_path, capsys):
    data = inputs / "pairs.jsonl"
    for name in (data, inputs / ".." / inputs.name / "pairs.jsonl"):
        with pytest.raises(ValueError, match=r"validation must be other pairs than data, got .*pairs.jsonl for both"):
            train(tiny_settings(inputs, tmp_path / "out", validation=str(name)))
    assert not (tmp_path / "out").exists()
    shutil.copy(data, tmp_path / "copy.jsonl")
    train(tiny_settings(inputs, tmp_path / "out", validation=str(tmp_path / "copy.jsonl"), steps=1))
    assert "14 held-out pairs are among those to train on too" in capsys.readouterr().out
    train(tiny_settings(inputs, tmp_path / "drawn", steps=1))
    assert "among those" not in capsys.readouterr().out


def test_a_reward_that_does_not_vary_is_no_underflow(inputs, tmp_path):
    (tmp_path / "same.py").write_text("def one(prompts, responses):\n    return [1.0] * len(responses)\n")
    (folder,) = train(tiny_settings(
        inputs, tmp_path / "out", loss=("ppo",), reward=f"{tmp_path}/same.py:one", samples=2, sample_length=4, steps=2
    ))  # fmt: skip
    log = read_log(folder / "log.jsonl")
    assert not log["grad_norm"].any()
    said = " ".join(report(examine_log(log)).split())
    assert "all samples of a prompt earn the same" in said
    assert "float16" not in said


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("precision", "fp16", "precision must be one of auto, fp32, bf16; got 'fp16'; did you mean 'bf16'?"),
        ("reduction", "avg", "reduction must be one of sum, mean; got 'avg'"),
        ("schedule", "cosin", "schedule must be one of constant, linear, cosine; got 'cosin'; did you mean 'cosine'?"),
        ("init", "bse", "init must be one of reference, base; got 'bse'; did you mean 'base'?"),
        ("template", "chatt", "template must be one of plain, chat, beaver; got 'chatt'; did you mean 'chat'?"),
        ("device", "cuda:1", "device must be one of auto, cpu, cuda; got 'cuda:1'; did you mean 'cuda'?"),
        ("choice", "safe", "choice must be one of helpfulness, safety; got 'safe'; did you mean 'safety'?"),
        ("recipe", "ppaer", "recipe must be one of paper, gentle; got 'ppaer'; did you mean 'paper'?"),
        ("distribution", None, "distribution must be one of ddp, fsdp; got None"),
    ],
)
def test_a_word_that_an_option_does_not_have_is_refused(tmp_path, name, value, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        tiny_settings(tmp_path, tmp_path / "out", **{name: value})


def test_choice_may_be_left_out(tmp_path):
    assert tiny_settings(tmp_path, tmp_path / "out", choice=None).choice is None
    assert tiny_settings(tmp_path, tmp_path / "out", choice="safety").choice == "safety"


@pytest.mark.parametrize(
    ("loss", "hyper", "line"),
    [
        (("dpo",), "clip=0.5", "hyper must belong to a loss of the run, dpo; got clip, which belongs to nbdpo, nbd"),
        (("dpo", "cdpo"), "win_weight=0.5", "hyper must belong to a loss of the run, dpo, cdpo; got win_weight, whi"),
    ],
)
def test_a_hyper_parameter_that_no_loss_has_is_refused(tmp_path, loss, hyper, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        tiny_settings(tmp_path, tmp_path / "out", loss=loss, hyper=(hyper,))
    had = tiny_settings(tmp_path, tmp_path / "out", loss=("dpo", "nbdpo"), hyper=("clip=0.5",))
    assert had.loss_of("nbdpo").clip == 0.5


def test_a_reward_without_ppo_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^ppo.reward must be left out where loss has no ppo, got 'm:f'$"):
        tiny_settings(tmp_path, tmp_path / "out", reward="m:f")


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("nomod:fn", "^reward nomod:fn: there is no module 'nomod'; or give FILE.py:FUNCTION$"),
        ("{folder}/own.py:fn", "own.py has no 'fn'; it has other"),
        ("{folder}/none.py:fn", "none.py is no file"),
        ("{folder}/nowhere", r"^reward must be a folder or hub name .*nowhere' \(not there\)"),
        ("{inputs}/model", "LlamaForCausalLM is no sequence classifier"),
    ],
)
def test_a_wrong_reward_is_refused_before_anything_is_trained(inputs, tmp_path, reward, words):
    (tmp_path / "own.py").write_text("def other(prompts, responses):\n    return [0.0] * len(responses)\n")
    named = reward.format(folder=tmp_path, inputs=inputs)
    with pytest.raises((ValueError, OSError), match=words) as caught:
        train(tiny_settings(inputs, tmp_path / "out", loss=("dpo", "ppo"), reward=named, sft_epochs=1.0))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_is_trained_on_a_folder_nearby_is_found_from_elsewhere(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    adapted = with_lora(load_model("model"), 2, 4.0, ["q_proj"])
    save_folder(tmp_path / "adapter", adapted, load_tokenizer("model"))
    (folder,) = train(tiny_settings(inputs, tmp_path / "out", model="model", lora_rank=2, steps=1))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    for place in (tmp_path / "adapter", folder / "model"):
        assert json.loads((place / "adapter_config.json").read_text())["base_model_name_or_path"] == f"{inputs}/model"
        assert load_model(place).peft_config
        assert weights_hash(place)
    assert open_run(tmp_path / "out").systems[0].model == f"{inputs}/model"  # the reference is the base itself


def test_an_adapter_whose_base_is_not_to_be_had_is_named(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(inputs)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert [located(name) for name in ("model", "someone/model")] == [str(inputs / "model"), "someone/model"]
    save_folder(tmp_path / "adapter", with_lora(load_model("model"), 2, 4.0, ["q_proj"]), load_tokenizer("model"))
    file = tmp_path / "adapter" / "adapter_config.json"
    for base in ("someone/model", str(tmp_path / "gone")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": base}))
        words = f"^base_model_name_or_path in {file}: model must be .*got '{base}'"
        for asked in (load_model, weights_hash):
            with pytest.raises(OSError, match=words) as caught:
                asked(tmp_path / "adapter")
            assert "\n" not in str(caught.value)
