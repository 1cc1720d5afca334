"""Models and tokenizers: loaded from safetensors, never with code of others; LoRA; and small Llamas from scratch."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gradlab.checks import count
from gradlab.console import one_line
from gradlab.llm.model.finished import check_model, check_same, known_hash
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.heads import layers_of
from gradlab.llm.model.reading import check_weights, reading
from gradlab.store.files import write_folder
from gradlab.streams import Purpose, torch_seed

START, END, PAD = "<s>", "</s>", "<pad>"
SPECIAL = (START, END, PAD)  # special tokens of gradlab's tokenizers; a place here is an id, also in ``small_llama``
_ADAPTER = "adapter_config.json"
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json")  # one is in its folder
_DECIDING = ("*.safetensors", "config.json", _ADAPTER)  # files that decide log π of given tokens
_READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # files from which models and tokenizers are read


def load_model(
    source: str | Path, *, dtype: torch.dtype = torch.float32, trainable: bool = False, meta: bool = False,
    four_bits_on: torch.device | None = None,
) -> Any:  # fmt: skip
    """Load a causal language model from a folder or a hub name; a folder with a LoRA adapter gives base and adapter.

    dtype      the type of the weights; an adapter that is to be trained has float32.
    trainable  whether a LoRA adapter is to be trained further.
    meta       load no weights: the model is on the meta device.
    four_bits_on  keep the weights of linear layers, an adapter's aside, in 4 bits on this device, by bitsandbytes; they
               compute in ``dtype``.
    OSError or ValueError with one line where there is no such model, or not in safetensors.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = whole_model(source)
    check_model(source, weights=not meta)
    if is_adapter(source):
        return _with_adapter(Path(source), dtype, trainable, meta, four_bits_on)
    with reading("model", source):
        if meta:
            config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
            model.generation_config = generation_of(source) or model.generation_config
            return model
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(source), dtype=dtype, use_safetensors=True, trust_remote_code=False, ignore_mismatched_sizes=True,
            output_loading_info=True, **({} if four_bits_on is None else _four_bits(dtype, four_bits_on)),
        )  # fmt: skip
        model, info = loaded
        check_weights(info)
        for part in model.modules() if four_bits_on else ():
            # On some CPUs bitsandbytes takes another path outside training, which has no gradient afterwards.
            if hasattr(part, "support_avx512bf16_for_cpu"):
                part.support_avx512bf16_for_cpu = False
        return model


def _four_bits(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the options by which transformers quantises linear layers as QLoRA does (Dettmers et al. 2023)."""
    from transformers import BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": how, "device_map": {"": device}}


def generation_of(source: str | Path) -> Any:
    """Return the settings of generation beside a model, or an adapter's base; None where there are none."""
    from transformers import GenerationConfig

    source = whole_model(source)
    if is_adapter(source):
        with _base_of(Path(source)) as base:
            return generation_of(base)
    try:
        with reading("generation_config", source, "JSON that transformers can read, beside the model"):
            return GenerationConfig.from_pretrained(str(source))
    except OSError:
        if (Path(source) / "generation_config.json").is_file():
            raise
        return None


def _with_adapter(
    folder: Path, dtype: torch.dtype, trainable: bool, meta: bool, four_bits_on: torch.device | None
) -> Any:
    with _base_of(folder) as source:
        if not meta:
            check_same(folder, "base", model_hash(source), source)
        base = load_model(source, dtype=dtype, meta=meta, four_bits_on=four_bits_on)
    return put_on(base, folder, trainable=trainable, meta=meta)


def put_on(base: Any, folder: Path, *, trainable: bool = False, meta: bool = False) -> Any:
    """Return a loaded base with the LoRA adapter in ``folder``; OSError where that does not fit the base."""
    from peft import PeftModel

    with reading("LoRA adapter", folder), _without_old_name():
        warnings.filterwarnings("error", message=".*missing adapter keys")
        return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable, low_cpu_mem_usage=meta)


def is_adapter(source: str | Path) -> bool:
    """Return whether ``source`` is a folder with a LoRA adapter."""
    return (Path(source) / _ADAPTER).is_file()


@contextlib.contextmanager
def _base_of(folder: Path) -> Iterator[str]:
    """Give the model that a LoRA adapter belongs to; an error on the way names the adapter."""
    from peft import PeftConfig

    with reading("LoRA adapter", folder):
        if not (folder / "adapter_model.safetensors").is_file():
            raise ValueError("it has no adapter_model.safetensors")
        config = PeftConfig.from_pretrained(str(folder))
        kind = getattr(config.peft_type, "value", config.peft_type)
        if kind != "LORA":
            raise ValueError(f"its peft_type must be LORA, got {kind}")
        base = config.base_model_name_or_path
        if not base or not isinstance(base, str):
            raise ValueError("it does not say which model it belongs to, as base_model_name_or_path")
    try:
        yield base
    except OSError as error:
        raise OSError(f"base_model_name_or_path in {folder / _ADAPTER}: {error}") from None


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer beside a model or LoRA adapter; without a padding token, it pads with the end token.

    Of an adapter without a tokenizer, as peft alone writes it, it is the base's.
    """
    from transformers import AutoTokenizer

    source = whole_model(source)
    check_model(source, weights=False)
    if is_adapter(source) and not any((Path(source) / name).is_file() for name in _TOKENIZER):
        return load_tokenizer(base_of(source))
    with reading("tokenizer" if Path(source).is_dir() else "model", source):
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise ValueError(f"model_max_length must be a number, got {tokenizer.model_max_length!r}")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def with_lora(
    model: Any, rank: int, alpha: float, targets: Sequence[str], dropout: float = 0.0, *, first: int = 0
) -> Any:
    """Return the model with a new LoRA adapter, which alone is trained; the base is frozen.

    targets  names of linear layers, or ``all-linear``. first: the lowest of the decoder's layers that gets any.

    ValueError for targets that the layers do not have, and for a ``first`` beyond the last layer.
    """
    from peft import LoraConfig, get_peft_model

    every = list(targets) == ["all-linear"]
    chosen: Any = "all-linear" if every else list(targets)
    if first:
        chosen = _linear_from(model, first, [] if every else targets)
    config = LoraConfig(
        r=count("rank", rank, 1), lora_alpha=alpha,  # type: ignore[arg-type]
        target_modules=chosen, lora_dropout=dropout,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with _without_old_name():
            return get_peft_model(model, config)
    except ValueError as error:
        raise ValueError(f"lora.targets must name linear layers of the model, got {list(targets)}: {error}") from None


def _linear_from(model: Any, first: int, targets: Sequence[str]) -> list[str]:
    """Return the whole names of linear layers in the decoder's layers from ``first`` on; targets: ends, or [] for all.

    ValueError where there are none.
    """
    from transformers.pytorch_utils import Conv1D

    _, layers = layers_above(model, first)
    there = {id(part) for layer in layers[first:] for part in layer.modules()}
    names = [
        name
        for name, part in model.named_modules()
        if id(part) in there and isinstance(part, torch.nn.Linear | Conv1D)
        and (not targets or any(name.endswith(f".{target}") for target in targets))
    ]  # fmt: skip
    if not names:
        raise ValueError(
            f"lora.targets must name linear layers in the model's layers from train_from, {first}, on; got "
            f"{' '.join(targets) or 'all-linear'}"
        )
    return names


def layers_above(base: Any, first: int) -> tuple[str, torch.nn.ModuleList]:
    """Return ``layers_of`` a model's decoder; ValueError unless layer ``first`` (the lowest is 0) has some below it."""
    name, layers = layers_of(base)
    kind = type(base).__name__
    if not layers:
        raise ValueError(f"train_from cannot be used with {kind}, whose decoder has no list of layers")
    if not 0 < first < len(layers):
        raise ValueError(
            f"train_from must be from 1 to {len(layers) - 1} for {kind}, which has {len(layers)} layers; got {first}"
        )
    return name, layers


def without_dropout(model: Any) -> None:
    """Turn a model's dropout off, except a LoRA adapter's: it would be noise in log π/π_ref, also at the start.

    The model's config stays as it is.
    """
    for name, module, field in _dropouts(model):
        if "lora_dropout" not in name:
            setattr(module, field, 0.0)


def has_dropout(model: Any) -> bool:
    """Say whether a model in training draws random numbers for dropout."""
    return any(getattr(module, field) for _, module, field in _dropouts(model))


def _dropouts(model: Any) -> Iterator[tuple[str, Any, str]]:
    """Give each share of dropout in a model: the module's name, the module, and the field that holds the share."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            yield name, module, "p"
        for field, value in list(vars(module).items()):  # some models have a number and no module for it
            if isinstance(value, float) and ("dropout" in field or field.endswith(("pdrop", "layerdrop"))):
                yield name, module, field


def small_llama(vocabulary: int, *, width: int, layers: int, heads: int, longest: int, seed: int) -> Any:
    """Return a Llama with random weights: ``width`` wide, feed-forward layers 8/3 of that, input and output tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=-(-8 * width // 3 // 16) * 16,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=longest, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, Purpose.MODEL_WEIGHTS))
        return LlamaForCausalLM(config)


def train_bpe(texts: Iterable[str], size: int) -> Any:
    """Return a byte-level BPE of ``size`` tokens, trained on these texts; it starts each text with ``<s>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )  # fmt: skip
    bpe.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=START, eos_token=END, pad_token=PAD)


def save_folder(
    folder: Path, model: Any, tokenizer: Any, weights: dict[str, torch.Tensor] | None = None, *,
    check: Callable[[Path], object] = lambda _: None,
) -> None:  # fmt: skip
    """Write a model and its tokenizer as a folder that transformers reads; the folder is written whole or not at all.

    check  a function that looks at the written folder before it is in its place; its error is one of writing.
    A LoRA adapter names its base as ``located`` does, and its layers in order, so that equal adapters give equal files.
    OSError, such as for a full disk, leaves the former folder as it was.
    """
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.base_model_name_or_path:
            adapter.base_model_name_or_path = located(adapter.base_model_name_or_path)
        if not isinstance(adapter.target_modules, str):  # peft has a set, whose order differs from process to process
            adapter.target_modules = sorted(adapter.target_modules or ())

    def fill(part: Path) -> None:
        model.save_pretrained(part, state_dict=weights, safe_serialization=True)
        tokenizer.save_pretrained(part)
        check(part)

    try:
        write_folder(folder, fill)
    except Exception as error:  # for a full disk safetensors raises a type that is no OSError, and tokenizers another
        raise OSError(f"model could not be written to {folder}: {one_line(error)}") from None


def weights_hash(source: str | Path) -> str:
    """Return the SHA-256 of all files of a model and its tokenizer, or of a hub model's name and commit in the cache.

    ValueError where the folder is a finished training's and was damaged since.
    """
    from transformers import AutoConfig

    source = whole_model(source)
    folder = Path(source)
    if not folder.is_dir():
        with reading("model", source):
            config = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
        return hashlib.sha256(f"{source}@{getattr(config, '_commit_hash', None)}".encode()).hexdigest()
    check_model(source)
    whole = hashlib.sha256()
    if is_adapter(folder):
        with _base_of(folder) as base:
            whole.update(weights_hash(base).encode())
    for file in sorted(path for kind in _READ for path in folder.glob(kind)):
        whole.update(f"{file.name} {known_hash(file)}\n".encode())
    return whole.hexdigest()


def model_hash(source: str | Path) -> str | None:
    """Return the SHA-256 of a folder's files that decide log π, and of its adapter's base; None for a hub's name.

    ValueError where the folder is a finished training's and was damaged since.
    """
    source = whole_model(source)
    folder = Path(source)
    if not folder.is_dir():
        return None
    check_model(source)
    whole = hashlib.sha256()
    if is_adapter(folder):
        whole.update(f"{model_hash(base_of(folder))}\n".encode())
    for file in sorted(path for kind in _DECIDING for path in folder.glob(kind)):
        whole.update(f"{file.name} {known_hash(file)}\n".encode())
    return whole.hexdigest()


def base_of(source: str | Path) -> str:
    """Return the folder or hub name of a LoRA adapter's base; ``source`` itself where it is no adapter."""
    if not is_adapter(source):
        return str(source)
    with _base_of(Path(source)) as base:
        return base


def located(source: str) -> str:
    """Return a folder's absolute path, which holds in any working folder; or a hub's name as it is."""
    return str(Path(source).absolute()) if Path(source).is_dir() else source


@contextlib.contextmanager
def _without_old_name() -> Iterator[None]:
    """Silence transformers' warning that peft asks for an attribute by a former name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.* is deprecated")
        yield
