"""Models in a GGUF file: quantised weights are made whole once, checked, and kept as a folder that transformers reads.

The folder is in the cache, under the file's SHA-256: ``GRADLAB_CACHE``, or the user's cache folder of this platform.
Whoever needs the model again finds it there; two processes that need it at once make it once.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradlab.checks import input_file
from gradlab.console import one_line, out_of_memory, say
from gradlab.llm.model.finished import check_model, known_hash, read_done, write_done
from gradlab.llm.model.gguf_tokens import begins_with_bos, file_tokens, splits_of
from gradlab.llm.model.reading import check_weights, reading
from gradlab.store.files import write_folder

ENDING = ".gguf"
SENTENCE = "The capital of France is Paris, and the capital of Italy is Rome."
MOST_PERPLEXITY = 500.0  # SmolLM2 has 16; with weights that are drawn anew, the size of the vocabulary
# A model that has learnt any language copies a text that it has just read: SmolLM2 has perplexity 1.7 at the second
# reading, and 127 where queries and keys are in another order, which hardly shows in a single sentence.
PASSAGE = (
    "The old lighthouse keeper climbed ninety-two steps every evening. He carried a lamp, a loaf of bread and 3 "
    "letters from his sister in Lisbon."
)
MOST_COPIED = 20.0
SAMPLE = (
    "Hello, world! It's 3,141.59 metres (or 12000 ft) — they'd said 2nd; we'll see.\n\n  def f(x):\n\treturn x**2  "
    "# π≈3½\nÜnïcode: naïve café, 你好, Привет, 👍🏽… I'M HERE'S  end   \r\n A1b2 007 'tis "
)
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # names of transformers, and of the file
_ARCHITECTURE = "a GGUF file of an architecture that transformers can read"
_FORM = 1  # of what is kept; another number makes kept models anew


def whole_model(source: str | Path) -> str:
    """Return the folder of a model: of a GGUF file, or of a folder with one, that of its whole weights in the cache.

    Any other folder or hub's name is returned as it is. A GGUF file is read by transformers, its weights are made whole
    in float32, and the folder is checked before it is kept: the tokens of a text against the file's own vocabulary,
    merges and pre-tokenizer, the special tokens, the chat template, and the perplexity of a sentence.

    ValueError or OSError with one line for a file that is cut short or damaged, an architecture or tokenizer that
    transformers does not read, a tokenizer beside the file that differs from the file's, and weights that do not give
    a sentence a sensible perplexity; nothing is kept then. ModuleNotFoundError where the package gguf is missing.
    """
    file = _file_of(Path(source))
    if file is None:
        return str(source)
    from filelock import FileLock

    digest = known_hash(input_file("model", file))
    folder = _cache() / f"{_plain(file.stem)}-{digest[:16]}-{_FORM}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not _is_kept(folder):
            _convert(file, digest, folder)
    if (file.parent / "tokenizer.json").is_file():
        _check_neighbour(file, folder / "model")
    return str(folder / "model")


def _file_of(source: Path) -> Path | None:
    """Return the GGUF file that ``source`` is or holds; None where it is another model.

    ValueError for a folder with several such files and no model of another kind.
    """
    if source.suffix.lower() == ENDING and not source.is_dir():
        return source
    if not source.is_dir() or (source / "config.json").exists() or (source / "adapter_config.json").exists():
        return None
    files = sorted(file for file in source.iterdir() if file.suffix.lower() == ENDING)
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise ValueError(f"model must name one GGUF file, got {str(source)!r} with {len(files)}: {names}")
    return files[0] if files else None


def _cache() -> Path:
    """Return the folder of models that were made whole."""
    from platformdirs import user_cache_path

    folder = Path(os.environ.get("GRADLAB_CACHE") or user_cache_path("gradlab", appauthor=False), "models")
    if str(folder).startswith("~"):
        raise OSError(f"no home folder is known for {folder}: set HOME, or GRADLAB_CACHE to a folder")
    return folder.absolute()


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name)[:60]


def _is_kept(folder: Path) -> bool:
    """Return whether the whole model is there, as it was written; what is damaged is made anew, with a notice."""
    try:
        if read_done(folder) is None:
            return False
        check_model(folder / "model")
    except ValueError as error:
        say(f"gradlab: {one_line(error)}; made anew", file=sys.stderr)
        return False
    return True


def _convert(file: Path, digest: str, folder: Path) -> None:
    """Make the model whole, check it, and write it to ``folder``, whole or not at all."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ModuleNotFoundError(
            'a GGUF file needs the package gguf; get it with: pip install "gradlab[pretrained]"'
        ) from None
    metadata, kinds, elements = _read(file)
    needed = 1.1 * 4 * elements
    if shutil.disk_usage(folder.parent).free < needed:
        raise OSError(
            f"{file.name} needs {needed / 1e9:.1f} GB in {folder.parent} as whole weights, and there is less; set "
            "GRADLAB_CACHE to a folder on a larger disk"
        )
    weights = _in_words(kinds)
    _check_architecture(file)
    say(f"{file.name}: {weights}, once; to be kept in {folder / 'model'}", file=sys.stderr)
    tokenizer = _tokenizer(file, metadata)
    model = _model(file, elements, metadata)

    def fill(part: Path) -> None:
        model.save_pretrained(part / "model", safe_serialization=True)
        tokenizer.save_pretrained(part / "model")
        perplexity = _check_saved(file, part / "model", metadata)
        page = {
            "file": file.name, "sha256": digest, "parameters": model.num_parameters(), "weights": weights,
            "perplexity": perplexity,
        }  # fmt: skip
        write_done(part, {"gguf": page})

    try:
        write_folder(folder, fill)
    except (ValueError, OSError):
        raise
    except Exception as error:  # for a full disk safetensors raises a type that is no OSError
        if out_of_memory(error):
            raise
        raise OSError(f"model could not be written to {folder}: {one_line(error)}") from None


def _read(file: Path) -> tuple[dict[str, Any], Counter[str], int]:
    """Return a file's metadata, its elements by the type that holds them, and the number of elements."""
    import gguf

    with open(file, "rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ValueError(f"model must be a GGUF file, got {str(file)!r}, which does not begin with GGUF")
    try:
        reader = gguf.GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # of any type: numpy's, struct's, an IndexError
        if out_of_memory(error):
            raise
        size = file.stat().st_size
        raise ValueError(
            f"model {str(file)!r} is cut short or damaged: its {size:,} bytes end before its header or weights do "
            f"({one_line(error)[:120]})"
        ) from None
    kinds: Counter[str] = Counter()
    for tensor in reader.tensors:
        kinds[tensor.tensor_type.name] += int(tensor.n_elements)
    return metadata, kinds, kinds.total()


def _in_words(kinds: Mapping[str, int]) -> str:
    """Say in what types the weights are stored, the largest part first, and that they are made whole."""
    total = sum(kinds.values())
    parts = sorted(kinds.items(), key=lambda item: -item[1])
    names = ", ".join(f"{name} {number / total:.0%}" for name, number in parts if number / total >= 0.005)
    bits = re.search(r"\d+", parts[0][0])
    return f"{bits[0] if bits else '?'}-bit weights ({names}) made whole in float32"


def _tokenizer(file: Path, metadata: Mapping[str, Any]) -> Any:
    """Return the file's tokenizer as transformers reads it, with three corrections.

    Transformers forgets some splits, such as those of digits; adds its GPT-2's special tokens to vocabularies without
    them, one more token than the model has; and takes their names in place of the file's.
    """
    from tokenizers import Regex, Tokenizer, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    with reading("model", file, "a GGUF file with a tokenizer that transformers can read"):
        tokens = metadata.get("tokenizer.ggml.tokens")
        if not tokens:
            raise ValueError("it has no tokenizer.ggml.tokens")
        read: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
        page = json.loads(read.backend_tokenizer.to_str())
        page["added_tokens"] = [token for token in page["added_tokens"] if token["id"] < len(tokens)]
        backend = Tokenizer.from_str(json.dumps(page))
        if metadata["tokenizer.ggml.model"] == "gpt2":
            splits = [pre_tokenizers.Split(Regex(split), "isolated") for split in splits_of(metadata)]
            backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
                [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
            )
        ids = {f"{name}_token": metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _SPECIAL.items()}
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, chat_template=metadata.get("tokenizer.chat_template"),
            clean_up_tokenization_spaces=False, add_bos_token=begins_with_bos(metadata),
            add_eos_token=bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
            **{name: tokens[place] for name, place in ids.items() if place is not None},
        )  # fmt: skip


def _check_architecture(file: Path) -> None:
    from transformers import AutoConfig

    with reading("model", file, _ARCHITECTURE):
        AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)


def _model(file: Path, elements: int, metadata: Mapping[str, Any]) -> Any:
    """Return the model with its weights made whole, as one that was never quantised."""
    from transformers import AutoModelForCausalLM

    with reading("model", file, _ARCHITECTURE):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
        quantised, info = loaded
        check_weights(info)
        settings = quantised.config.to_dict()
        settings.pop("quantization_config", None)
        settings.pop("_name_or_path", None)
        config = type(quantised.config)(**settings)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        model.load_state_dict(quantised.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = quantised.generation_config
        used = sum(parameter.numel() for parameter in model.parameters())
        if used != elements:
            raise ValueError(f"the file has {elements:,} weights, and transformers reads {used:,} of them")
        _check_positions(config, metadata)
    return model


def _check_positions(config: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where the file stretches its positions and the config that transformers made does not."""
    kind = metadata.get(f"{metadata['general.architecture']}.rope.scaling.type", "none")
    known = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind != "none" and known == "default":
        raise ValueError(f"its positions are scaled ({kind}), which transformers does not read")


def _check_saved(file: Path, folder: Path, metadata: Mapping[str, Any]) -> float:
    """Check a whole model, as it is read from its folder, against the file; return the perplexity of ``SENTENCE``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    try:
        _check_tokenizer(tokenizer, metadata)
        sentence, passage, again = (file_tokens(metadata, text) for text in (SENTENCE, PASSAGE, f" {PASSAGE}"))
    except (ValueError, KeyError) as error:
        raise ValueError(f"model {str(file)!r} is not read as it is meant: {one_line(error)}") from None
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, use_safetensors=True).eval()
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    perplexity = _perplexity(model, start + sentence, len(start) or 1)
    copied = _perplexity(model, start + passage + again, len(start) + len(passage) + 1)
    if not (perplexity <= MOST_PERPLEXITY and copied <= MOST_COPIED):
        raise ValueError(
            f"model {str(file)!r} gives an English sentence the perplexity {perplexity:,.0f} (at most "
            f"{MOST_PERPLEXITY:.0f}), and a text that it has just read {copied:,.0f} (at most {MOST_COPIED:.0f}): its "
            "weights are damaged, or were not read as they are meant"
        )
    return perplexity


def _perplexity(model: Any, ids: Sequence[int], first: int) -> float:
    """Return the perplexity of tokens from the place ``first`` on, given those before; or infinity."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, first - 1 : -1]
    loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[first:])))
    return math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.inf


def _check_tokenizer(tokenizer: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where a tokenizer gives other tokens, special tokens or a template than the file has."""
    wanted, got = file_tokens(metadata, SAMPLE), tokenizer.encode(SAMPLE, add_special_tokens=False)
    if wanted != got:
        place = int(np.argmax([left != right for left, right in zip(wanted, got, strict=False)] + [True]))
        raise ValueError(
            f"its tokenizer differs from the file's: token {place} of a sample text is {got[place : place + 1]} and "
            f"not {wanted[place : place + 1]}"
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    if len(tokenizer) != len(tokens):
        raise ValueError(f"its tokenizer has {len(tokenizer)} tokens, and the file {len(tokens)}")
    for name, key in _SPECIAL.items():
        said, there = metadata.get(f"tokenizer.ggml.{key}_token_id"), getattr(tokenizer, f"{name}_token_id")
        if said is not None and said != there:
            raise ValueError(f"its tokenizer's {name} token is {there}, and the file's {said}")
    first = tokenizer.encode("a")[:1] == [tokenizer.bos_token_id]
    if first != begins_with_bos(metadata):
        raise ValueError(f"its tokenizer {'starts' if first else 'does not start'} a text with BOS, unlike the file's")
    if tokenizer.chat_template != metadata.get("tokenizer.chat_template"):
        raise ValueError("its chat template is not the file's")


def _check_neighbour(file: Path, folder: Path) -> None:
    """Raise ValueError where the folder of a GGUF file holds a tokenizer that differs from the file's."""
    from transformers import AutoTokenizer

    with reading("tokenizer", file.parent):
        beside: Any = AutoTokenizer.from_pretrained(str(file.parent), trust_remote_code=False)
    ours: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    same = beside.get_vocab() == ours.get_vocab() and all(
        beside.encode(text, add_special_tokens=False) == ours.encode(text, add_special_tokens=False)
        for text in (SAMPLE, SENTENCE)
    )
    if not same:
        raise ValueError(f"the tokenizer in {file.parent} differs from the tokenizer of {file.name}; remove it")
