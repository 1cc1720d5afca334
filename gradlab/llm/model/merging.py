"""Merging LoRA adapters into their base: a whole model, as servers and other trainers want it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import torch

from gradlab.checks import in_words, one_of
from gradlab.given_once import each_once
from gradlab.llm.data.tokens import check_vocabulary
from gradlab.llm.model import loading
from gradlab.llm.model.finished import check_model, check_same, page_beside
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.group import AskedPrecision
from gradlab.llm.model.origins import CONFIG, origin
from gradlab.llm.model.reading import reading

_TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUNDING = 0.01  # nats by which log π of a token may move by merging in float32, or from memory to the folder
_SEEN = 64  # tokens of the text by which the merged model is compared with base and adapter


@dataclass(frozen=True)
class Merged:
    """A merged model: its folder, base, type of the weights, and how far log π moved.

    adapters  how many were merged.
    moved     the largest difference of a token's log π (nats) between base with adapters and the merged model in its
              type, over the tokens of a text: rounding of the weights.
    quantised from which quantised weights the base was made whole, also in the merged config; None for
              any other base.
    """

    folder: Path
    base: str
    adapters: int
    dtype: str
    moved: float
    quantised: str | None

    def __str__(self) -> str:
        whole = f" The base is from {self.quantised}." if self.quantised else ""
        several = "its adapter" if self.adapters == 1 else f"{self.adapters} adapters"
        return (
            f"{self.folder}: {self.base} with {several} merged, {self.dtype}; log π of a token moved by at most "
            f"{self.moved:.2g} nats.{whole}"
        )


def merge(adapters: Sequence[str | Path], out: str | Path, *, dtype: AskedPrecision = "auto") -> Merged:
    """Write base plus adapters as a whole model, with the first adapter's tokenizer, to a new folder.

    adapters  folders of LoRA adapters on one base; the updates of several are added, each once: a training that began
              with an adapter went on with it, and its own holds that one's update.
    out       a folder that is not there yet; it is written whole or not at all.
    dtype     the type of the weights written, "auto": the type in which the base is stored. Sums are in float32.

    FileExistsError where ``out`` is there. ValueError for a model that is no adapter, for an adapter that is named
    twice, for adapters on different bases, for adapters that hold one update, for an adapter that is damaged or whose
    base has changed since, for a tokenizer with tokens that the base does not have, and where the merged model is not
    what base and adapters compute; OSError for what cannot be read or written. Nothing is written then.
    """
    one_of("dtype", dtype, get_args(AskedPrecision))
    out, folders = Path(out), each_once("adapters", "one or more folders of LoRA adapters", adapters)
    if os.path.lexists(out):
        raise FileExistsError(f"out must be a new folder, got {str(out)!r}, which is there")
    base = _shared_base(folders)
    for folder in folders:
        check_model(folder)
        check_same(folder, "base", loading.model_hash(loading.base_of(folder)), loading.base_of(folder))
    _check_apart(folders)
    tokenizer = loading.load_tokenizer(folders[0])
    model = loading.load_model(folders[0])
    base = whole_model(base)
    check_vocabulary(tokenizer, model.config)
    kind = _stored(base) if dtype == "auto" else _TORCH[dtype]
    with torch.no_grad():
        for folder in folders[1:]:
            model = loading.put_on(model.merge_and_unload(), folder)
        model.eval()
        ids = _text(model.config, model.device)
        wanted = _logps(model, ids)
        whole = model.merge_and_unload()
        _check_near(_logps(whole, ids), wanted, "after merging")
        rounded = _logps(_stored_in(whole, kind), ids)
    whole.generation_config = loading.generation_of(base) or whole.generation_config

    def check(part: Path) -> None:
        _check_near(_logps(loading.load_model(part, dtype=kind).eval(), ids), rounded, "in the folder")

    quantised = origin(base)
    if quantised:
        setattr(whole.config, CONFIG, quantised)
    loading.save_folder(out, whole, tokenizer, check=check)
    moved = float((rounded - wanted).abs().max())
    return Merged(out, base, len(folders), str(kind).removeprefix("torch."), moved, quantised)


def _stored_in(model: Any, kind: torch.dtype) -> Any:
    """Return the model with all that its folder holds in another type.

    Buffers that are not saved, such as the frequencies of rotary positions, stay in float32: loading makes them anew.
    """
    saved = set(model.state_dict())
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in saved and value.is_floating_point():
            value.data = value.data.to(kind)
    return model


def _check_near(logps: torch.Tensor, wanted: torch.Tensor, where: str) -> None:
    """Raise ValueError where log π of a token is off by more than rounding in one type."""
    off = float((logps - wanted).abs().max())
    if not off <= ROUNDING:
        raise ValueError(f"log π of a token is {off:.3g} nats off {where}, more than by rounding")


def _shared_base(folders: Sequence[Path]) -> str:
    """Return the base of all adapters; ValueError where one is no adapter, or has another base."""
    for folder in folders:
        if not loading.is_adapter(folder):
            near = f"; did you mean {folder / 'model'}?" if loading.is_adapter(folder / "model") else ""
            raise ValueError(f"adapters must be folders of LoRA adapters; {in_words(folder)} holds none{near}")
    bases = [loading.base_of(folder) for folder in folders]
    for folder, base in zip(folders[1:], bases[1:], strict=True):
        if base != bases[0] and (loading.model_hash(base) or base) != (loading.model_hash(bases[0]) or bases[0]):
            raise ValueError(
                f"adapters must be on one base: that of {folders[0]} is {bases[0]}, and that of {folder} is {base}"
            )
    return bases[0]


def _check_apart(folders: Sequence[Path]) -> None:
    """Raise ValueError where two adapters hold one update, which would be added twice."""
    for one, other in combinations(map(_Updates.of, folders), 2):
        shared = one.hashes & other.hashes or (one.hashes & {other.began}) or (other.hashes & {one.began})
        if shared:
            raise ValueError(
                f"adapters must hold different updates: {one.folder} and {other.folder} share the one that a training "
                "began with, which would be added twice; merge the later one alone"
            )


@dataclass(frozen=True)
class _Updates:
    """The updates in an adapter: its own, and those of the adapters that its training and earlier ones began with.

    hashes  of these adapters, by ``weights_hash``.
    began   that of the model, adapter or not, that the training began with; empty where nothing says it.
    """

    folder: Path
    hashes: frozenset[str]
    began: str

    @classmethod
    def of(cls, folder: Path) -> _Updates:
        """Read the updates in the adapter of this folder, and in those that its trainings' records name."""
        start, first = _start(folder)
        hashes, began = {loading.weights_hash(folder)}, first
        while start and began not in hashes and loading.is_adapter(start):
            hashes.add(began)
            start, began = _start(start)
        return cls(folder, frozenset(hashes), first)


def _start(model: str | Path) -> tuple[str, str]:
    """Return the model that a finished training began with, and its hash then; empty texts where nothing says it."""
    page = page_beside(model)
    return page.get("start") or "", page.get("decided", {}).get("start") or ""


def _stored(base: str) -> torch.dtype:
    """Return the type in which a model is stored, float32 where its config does not say."""
    from transformers import AutoConfig

    with reading("base", base):
        return getattr(AutoConfig.from_pretrained(base, trust_remote_code=False), "dtype", None) or torch.float32


def _text(config: Any, device: torch.device) -> torch.Tensor:
    """Return ids over the whole vocabulary, (1, ``_SEEN``) or as many as the model has positions for."""
    number = min(_SEEN, getattr(config, "max_position_embeddings", None) or _SEEN)
    vocabulary = config.get_text_config().vocab_size
    return (torch.arange(number, device=device) * 7919 % vocabulary)[None]


def _logps(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return log π of each token after the first, in float32."""
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
