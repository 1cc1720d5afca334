"""Models and tokenizers: loaded from safetensors, never with code of others; LoRA; and small Llamas from scratch."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from gradlab.checks import count

END, PAD, START = "</s>", "<pad>", "<s>"


def load_model(
    source: str | Path, *, dtype: torch.dtype = torch.float32, trainable: bool = False, meta: bool = False
) -> Any:
    """A causal language model from a folder or a hub name; a folder with a LoRA adapter gives base and adapter.

    dtype      of the weights; an adapter that is to be trained has float32.
    trainable  let a LoRA adapter be trained on.
    meta       without weights, on the meta device.
    OSError or ValueError with one line where there is no such model, or none in safetensors.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    adapter = Path(source) / "adapter_config.json"
    if adapter.is_file():
        from peft import PeftConfig, PeftModel

        config = PeftConfig.from_pretrained(str(source))
        base = load_model(_named(config.base_model_name_or_path), dtype=dtype, meta=meta)
        return PeftModel.from_pretrained(base, str(source), is_trainable=trainable, low_cpu_mem_usage=meta)
    try:
        if meta:
            config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        return AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise OSError(_no_model("model", source, error)) from None


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer beside a model, or of a LoRA adapter's base; with a padding token, the end's where it has none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise OSError(_no_model("tokenizer", source, error)) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def with_lora(model: Any, rank: int, alpha: float, targets: Sequence[str], dropout: float = 0.0) -> Any:
    """The model with a new LoRA adapter, the only thing that is trained; its base is frozen.

    targets  names of linear layers, or ``all-linear``.
    """
    from peft import LoraConfig, get_peft_model

    chosen: Any = "all-linear" if list(targets) == ["all-linear"] else list(targets)
    config = LoraConfig(
        r=count("lora_rank", rank, 1), lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=chosen, lora_dropout=dropout,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"lora_targets must name linear layers of the model, got {list(targets)}: {error}") from None


def small_llama(vocabulary: int, *, width: int, layers: int, heads: int, longest: int, seed: int) -> Any:
    """A Llama with random weights: ``width`` wide, its feed-forward layers 8/3 of that, input and output tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=-(-8 * width // 3 // 16) * 16,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=longest, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def train_bpe(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE of ``size`` tokens, trained on these texts; it starts each text with ``<s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    special = [START, END, PAD]
    own.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    own.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token=START, eos_token=END, pad_token=PAD)


def save_folder(folder: Path, model: Any, tokenizer: Any, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write a model and its tokenizer as a folder that transformers reads; the folder is there whole, or not at all."""
    part = folder.with_name(folder.name + ".tmp")
    remove(part)
    model.save_pretrained(part, state_dict=weights, safe_serialization=True)
    tokenizer.save_pretrained(part)
    remove(folder)
    part.rename(folder)


def weights_hash(source: str | Path) -> str:
    """SHA-256 over a model's weights on disk; of a hub's model its name and the commit that is in the cache."""
    from transformers import AutoConfig

    folder = Path(source)
    if not folder.is_dir():
        config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
        return hashlib.sha256(f"{source}@{getattr(config, '_commit_hash', None)}".encode()).hexdigest()
    whole = hashlib.sha256()
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        from peft import PeftConfig

        whole.update(weights_hash(_named(PeftConfig.from_pretrained(str(source)).base_model_name_or_path)).encode())
    for file in sorted(folder.glob("*.safetensors")):
        with open(file, "rb") as data:
            whole.update(hashlib.file_digest(data, "sha256").digest())
    return whole.hexdigest()


def _named(base: str | None) -> str:
    if not base:
        raise ValueError("the LoRA adapter does not say which model it belongs to (base_model_name_or_path)")
    return base


def remove(folder: Path) -> None:
    """Remove a folder, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)


def _no_model(what: str, source: str | Path, error: Exception) -> str:
    first = " ".join(str(error).split())[:300]
    return (
        f"{what} must be a folder that transformers can read, with weights in safetensors, or a hub's name; "
        f"got {str(source)!r} ({first})"
    )
