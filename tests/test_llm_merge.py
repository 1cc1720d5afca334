"""LoRA adapters merged into their base: the same log π, several added, and refusals that leave nothing."""

import json
import shutil

import pytest
import torch

pytest.importorskip("transformers")
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from tiny_llm import tiny_model, tiny_settings, write_inputs
from transformers import LlamaConfig, LlamaForCausalLM

from gradlab.cli import main
from gradlab.llm.demo.token_task import task_tokenizer
from gradlab.llm.model import merging
from gradlab.llm.model.loading import load_model, load_tokenizer, save_folder, with_lora
from gradlab.llm.model.merging import merge
from gradlab.llm.train.stages import train

IDS = torch.tensor([[0, 5, 7, 9, 11]])


def base(folder, **more):
    save_folder(folder, tiny_model(**more), task_tokenizer())
    return folder


def adapter(folder, of, seed, targets=("q_proj", "down_proj")):
    """A LoRA adapter whose update is not zero."""
    torch.manual_seed(seed)
    model = with_lora(load_model(of), 2, 4.0, targets)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.data.normal_(0, 0.3)
    save_folder(folder, model, task_tokenizer())
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def made(tmp_path):
    of = base(tmp_path / "base")
    return tmp_path, adapter(tmp_path / "one", of, 1), adapter(tmp_path / "two", of, 2)


def test_a_merged_model_is_whole_and_computes_the_same(made):
    folder, one, _ = made
    done = merge([one], folder / "out")
    assert not (folder / "out" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(load_model(folder / "out")), logits(load_model(one)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(load_model(one)), logits(load_model(folder / "base")), atol=1e-3)
    assert done.moved < 1e-5
    assert (done.dtype, done.quantised, done.adapters) == ("float32", None, 1)
    assert f"{folder / 'base'} with its adapter merged, float32; log π" in str(done)
    assert load_tokenizer(folder / "out").get_vocab() == task_tokenizer().get_vocab()


def test_updates_of_two_adapters_are_added(made):
    folder, one, two = made
    assert " with 2 adapters merged, float32; " in str(merge([one, two], folder / "both"))
    sums = {name: load_file(folder / name / "model.safetensors") for name in ("base", "both")}
    for path in (one, two):
        merge([path], folder / f"{path.name}-out")
        sums[path.name] = load_file(folder / f"{path.name}-out" / "model.safetensors")
    for name, value in sums["both"].items():
        added = sums["one"][name] + sums["two"][name] - sums["base"][name]
        torch.testing.assert_close(value, added, rtol=0, atol=1e-6)


def test_the_type_is_the_bases_or_the_one_that_is_asked_for(made):
    folder, one, _ = made
    for dtype, kind in (("bf16", torch.bfloat16), ("auto", torch.float32)):
        merge([one], folder / dtype, dtype=dtype)
        assert {value.dtype for value in load_file(folder / dtype / "model.safetensors").values()} == {kind}


def test_a_base_that_is_stored_in_bf16_keeps_its_positions_in_float32(tmp_path):
    of = tmp_path / "base"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(task_tokenizer()), hidden_size=128, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=2, max_position_embeddings=64, initializer_range=0.15, bos_token_id=0, eos_token_id=1,
        pad_token_id=2,
    )  # fmt: skip
    save_folder(of, LlamaForCausalLM(config).to(torch.bfloat16), task_tokenizer())
    one = adapter(tmp_path / "one", of, 1, ("q_proj", "v_proj"))
    done = merge([one], tmp_path / "out")
    ids = torch.arange(64)[None] * 7919 % len(task_tokenizer())
    with torch.no_grad():
        logps = [
            model.eval()(ids).logits[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])
            for model in (load_model(one), load_model(tmp_path / "out", dtype=torch.bfloat16))
        ]
    assert done.dtype == "bfloat16"
    assert done.moved == pytest.approx(float((logps[0] - logps[1]).abs().max()), rel=1e-6)


def test_adapters_on_different_bases_are_refused(made, capsys):
    folder, one, _ = made
    other = adapter(folder / "other", base(folder / "base-2", seed=3), 1)
    capsys.readouterr()
    assert main(["merge", str(one), str(other), "--out", str(folder / "out")]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"gradlab: adapters must be on one base: that of {one} is {folder / 'base'}, and that of {other} is "
        f"{folder / 'base-2'}\n"
    )
    assert not (folder / "out").exists()
    copy = adapter(folder / "copy", base(folder / "base-3"), 4)  # the same weights elsewhere
    merge([one, copy], folder / "out")


def test_what_cannot_be_merged_is_refused_in_one_line(made, capsys):
    folder, one, two = made
    run = folder / "run"
    adapter(run / "model", folder / "base", 5)
    for arguments, words in (
        ([folder / "base"], "adapters must be folders of LoRA adapters"),
        ([run], f"adapters must be folders of LoRA adapters; {run} holds none; did you mean {run / 'model'}?\n"),
        ([folder / "none"], f"{folder / 'none'} holds none\n"),
        ([one, one], f"adapters must name one or more folders of LoRA adapters, each once, got {one} {one}\n"),
        ([one, two, folder / "run" / ".." / "one"], "each once, got "),
    ):
        assert main(["merge", *map(str, arguments), "--out", str(folder / "out")]) == 2
        assert words in capsys.readouterr().err
        assert not (folder / "out").exists()
    (folder / "out").mkdir()
    assert main(["merge", str(one), "--out", str(folder / "out")]) == 1
    assert "out must be a new folder" in capsys.readouterr().err
    page = json.loads((one / "adapter_config.json").read_text())
    (one / "adapter_config.json").write_text(json.dumps(page | {"base_model_name_or_path": str(folder / "gone")}))
    assert main(["merge", str(one), "--out", str(folder / "new")]) == 1
    assert "base_model_name_or_path" in capsys.readouterr().err


def test_an_adapter_without_a_tokenizer_has_its_bases(made):
    folder, one, _ = made
    for file in one.glob("*token*"):
        file.unlink()
    assert sorted(file.name for file in one.iterdir() if file.suffix != ".md") == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    assert load_tokenizer(one).get_vocab() == load_tokenizer(folder / "base").get_vocab()
    merge([one], folder / "out")
    assert load_tokenizer(folder / "out").get_vocab() == load_tokenizer(folder / "base").get_vocab()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_that_is_not_lora_is_refused_in_one_line(made, capsys):
    folder, _, _ = made
    model = get_peft_model(load_model(folder / "base"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    model.save_pretrained(folder / "prompts")
    capsys.readouterr()
    assert main(["merge", str(folder / "prompts"), "--out", str(folder / "out")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "its peft_type must be LORA, got PROMPT_TUNING" in said
    with pytest.raises(OSError, match="peft_type must be LORA"):
        load_model(folder / "prompts")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("place", "error", "words"),
    [
        (1, ValueError, r"log π of a token is 1 nats off after merging, more than by rounding"),
        (3, OSError, r"could not be written to .*: log π of a token is 1 nats off in the folder"),
    ],
)
def test_a_merged_model_that_is_off_is_not_kept(made, monkeypatch, dtype, place, error, words):
    folder, one, _ = made
    own, seen = merging._logps, []

    def logps(model, ids):
        seen.append(1.0 if len(seen) == place else 0.0)  # base with adapter, merged, in its type, as it was written
        return own(model, ids) + seen[-1]

    monkeypatch.setattr(merging, "_logps", logps)
    with pytest.raises(error, match=words):
        merge([one], folder / "out", dtype=dtype)
    assert not (folder / "out").exists()


def test_a_tokenizer_with_more_tokens_than_the_base_is_refused(made):
    folder, one, _ = made
    tokenizer = load_tokenizer(one)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(one)
    with pytest.raises(ValueError, match=r"tokenizer gives ids up to .* \('<new>'\)"):
        merge([one], folder / "out")
    assert not (folder / "out").exists()


LORA = {"lora_rank": 2, "steps": 1, "reference_steps": 1, "validate_every": 0, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with LoRA: its reference, and two losses that went on with the reference's adapter."""
    folder = tmp_path_factory.mktemp("run")
    write_inputs(folder)
    train(tiny_settings(folder, folder / "out", loss=("dpo", "bdpo"), **LORA))
    return folder


def refused(folders, out, words):
    with pytest.raises(ValueError, match=words):
        merge(folders, out)
    assert not out.exists()


def test_one_update_is_not_added_twice(run, tmp_path):
    reference, dpo, bdpo = (run / "out" / name / "model" for name in ("reference", "dpo", "bdpo"))
    words = "adapters must hold different updates: {} and {} share the one that a training began with"
    for pair in ((reference, dpo), (dpo, reference), (dpo, bdpo)):  # the two losses both hold the reference's update
        refused(pair, tmp_path / "out", words.format(*pair))
    moved = shutil.copytree(run / "out", tmp_path / "moved")
    pair = [moved / name / "model" for name in ("reference", "dpo")]
    refused(pair, tmp_path / "out", words.format(*pair))
    merge([dpo], tmp_path / "alone")


def test_adapters_that_began_with_the_base_are_added(run, tmp_path):
    train(tiny_settings(run, tmp_path / "two", loss=("dpo", "bdpo"), **LORA | {"reference_steps": 0}))
    merge([tmp_path / "two" / name / "model" for name in ("dpo", "bdpo")], tmp_path / "out")


@pytest.mark.parametrize("order", [1, -1])
def test_each_adapter_must_be_what_its_training_wrote(run, tmp_path, order):
    train(tiny_settings(run, tmp_path / "two", loss=("dpo", "bdpo"), **LORA | {"reference_steps": 0}))
    folders = [tmp_path / "two" / name / "model" for name in ("dpo", "bdpo")]
    file = folders[1] / "adapter_model.safetensors"
    bits = bytearray(file.read_bytes())
    bits[-3] ^= 1
    file.write_bytes(bits)
    refused(folders[::order], tmp_path / "out", f"^{file} is damaged, it is not what the training wrote")


@pytest.mark.parametrize("order", [1, -1])
def test_each_adapters_base_must_be_that_of_its_training(tmp_path, order):
    write_inputs(tmp_path)
    options = {**LORA, "reference_steps": 0}
    train(tiny_settings(tmp_path, tmp_path / "one", **options))
    write_inputs(tmp_path, seed=1)  # another model in the same place
    train(tiny_settings(tmp_path, tmp_path / "two", **options))
    folders = [tmp_path / name / "dpo" / "model" for name in ("one", "two")]
    refused(folders[::order], tmp_path / "out", f"model has changed since it was the base of {folders[0]}")
    merge(folders[1:], tmp_path / "out")
