"""A LoRA adapter on a base in 4 bits: QLoRA, where bitsandbytes is installed."""

from importlib.util import find_spec

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file
from tiny_llm import quick_collections, tiny_settings, write_inputs

from gradlab.doctor.training_log import read_log
from gradlab.llm.model.group import Group
from gradlab.llm.model.loading import load_model, load_tokenizer
from gradlab.llm.train import stages
from gradlab.llm.train.stages import train
from gradlab.llm.train.start_model import start_model

pytestmark = pytest.mark.usefixtures(quick_collections.__name__)
needs_it = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
CHANGED = {"lora_rank": 2, "lora_base": "4bit"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def test_four_bits_are_for_an_adapters_base_and_need_bitsandbytes(inputs, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"lora\.base must be left out where lora\.rank is 0, .*; got '4bit'"):
        tiny_settings(inputs, tmp_path, lora_base="4bit")
    monkeypatch.setattr(stages, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"bitsandbytes must be installed .*: pip install 'gradlab\[qlora\]'"):
        train(tiny_settings(inputs, tmp_path, **CHANGED))


def test_fsdp_spreads_no_base_in_four_bits(inputs, tmp_path):
    settings = tiny_settings(inputs, tmp_path, **CHANGED)
    with pytest.raises(ValueError, match=r"distribution must be ddp over several processes where lora\.base is 4bit"):
        start_model(str(inputs / "model"), settings, Group(0, 2), load_tokenizer(inputs / "model"))


@pytest.mark.slow
@needs_it
@pytest.mark.parametrize("first", [None, 1])
def test_an_adapter_is_trained_on_a_base_in_four_bits(inputs, tmp_path, first):
    settings = tiny_settings(inputs, tmp_path / "out", **CHANGED, loss=("dpo", "bdpo"), train_from=first)
    model = start_model(str(inputs / "model"), settings, Group(), load_tokenizer(inputs / "model"))
    kinds = {type(part).__name__ for part in model.modules()}
    assert "Linear4bit" in kinds
    for folder in train(settings):
        log = read_log(folder / "log.jsonl")
        assert log["loss"][0] == pytest.approx(0.6931, abs=1e-3)
        assert log["grad_split_error"].max() < 1e-4
        assert log["grad_norm"].min() > 0
        assert log.attrs["settings"]["lora_base"] == "4bit"
        made = load_file(folder / "model" / "adapter_model.safetensors")
        assert all("lora" in name for name in made)
        assert any(value.abs().max() > 0 for name, value in made.items() if "lora_B" in name)
        whole = load_model(folder / "model")  # on the base in full
        assert {value.dtype for value in whole.parameters()} == {torch.float32}


@pytest.mark.slow
@needs_it
def test_a_run_on_four_bits_is_another_than_one_on_the_whole_base(inputs, tmp_path):
    train(tiny_settings(inputs, tmp_path, **CHANGED, steps=1))
    with pytest.raises(ValueError, match="other settings, data or model"):
        train(tiny_settings(inputs, tmp_path, lora_rank=2, steps=1))
