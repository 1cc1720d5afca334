"""TRL's losses, computed by the code of the installed TRL: its trainers, asked with made-up log-probabilities.

A trainer of TRL's is set up as a user would, on a tiny model, and its public ``compute_loss`` is called with another
model: one that returns the log-probabilities that are asked for, through its fused head (``log_probs``) or as logits
over two words. The loss, its settings and their checks are TRL's; no model and no data of the user's is needed.
A response's log-probability lies in equal halves on its first and last token. The reference's are computed first, by
DPOTrainer's ``compute_ref_log_probs``.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gradlab.checks import one_of, shown
from gradlab.console import one_line
from gradlab.losses import PairLogps

WORDS = ("<pad>", "</s>", "<unk>", "a", "b")
PROMPT, ANSWER = 0, 1  # the words of made-up texts: there are two, so that logits are log π of either
_OF_DPO = ("beta", "label_smoothing", "discopop_tau", "f_divergence_type", "f_alpha_divergence_coef", "ld_alpha")
_OF_CPO = ("beta", "label_smoothing", "loss_type", "cpo_alpha", "simpo_gamma", "alpha")


@dataclass(frozen=True)
class Kind:
    """A trainer of TRL's, by the module that has it, the options that its loss depends on, and how it is asked."""

    module: str
    trainer: str
    options: tuple[str, ...]
    ask: Callable[[Any, PairLogps], Tensor]


def trl_loss(name: str, options: Mapping[str, Any]) -> Callable[[PairLogps], Tensor]:
    """Return a loss of the installed TRL as a function of a PairLogps with lengths: the mean over a batch.

    name     a ``loss_type`` of DPOConfig, or cpo, simpo, alphapo or orpo of TRL's experimental trainers.
    options  TRL's own, such as beta, label_smoothing, f_divergence_type, loss_type and cpo_alpha of cpo.

    ImportError where TRL is missing or has no such trainer; ValueError, TRL's included, for options it refuses.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when TRL is imported
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        import trl
    except ImportError as error:
        raise ImportError(f"trl:{name} needs TRL ({error}): pip install 'gradlab[trl]'") from None
    kind, given = _kind(name)
    for key in options:
        one_of(f"option of trl:{name}", key, kind.options)
    trainer = _trainer(kind, {**given, **options}, f"trl:{name}", trl.__version__)

    def ask(pairs: PairLogps) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind.ask(trainer, pairs)

    return ask


def trl_version() -> str | None:
    """Return the version of the installed TRL, without importing it; None where there is none."""
    from importlib import metadata

    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return None


def _kind(name: str) -> tuple[Kind, dict[str, Any]]:
    if name in ("cpo", "simpo", "alphapo"):
        given = {} if name == "cpo" else {"loss_type": name}
        return Kind("trl.experimental.cpo", "CPO", _OF_CPO, _ask_cpo), given
    if name == "orpo":
        return Kind("trl.experimental.orpo", "ORPO", ("beta",), _ask_cpo), {}
    return Kind("trl", "DPO", _OF_DPO, _ask_dpo), {"loss_type": name}


def _trainer(kind: Kind, options: Mapping[str, Any], name: str, version: str) -> Any:
    """Return a trainer of TRL's on a tiny model and one pair, with these settings."""
    import importlib

    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    try:
        module = importlib.import_module(kind.module)
        config, trainer = (getattr(module, kind.trainer + part) for part in ("Config", "Trainer"))
    except (ImportError, AttributeError) as error:
        raise ImportError(f"TRL {version} has no {kind.trainer}Trainer for {name}: {error}") from None
    by_word = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    by_word.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=by_word, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), hidden_size=4, intermediate_size=4, num_hidden_layers=1,
                    num_attention_heads=1, num_key_value_heads=1, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": "a", "chosen": " a </s>", "rejected": " b </s>"}])
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        more = {"precompute_ref_log_probs": True} if kind.trainer == "DPO" else {}
        try:
            args = config(
                output_dir=folder, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True,
                gradient_checkpointing=False, **more, **options,
            )  # fmt: skip
            return trainer(model, args=args, processing_class=tokenizer, train_dataset=data)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"TRL {version} refuses {name} with {shown(dict(options))}: {one_line(error)}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep TRL's set-up from printing bars and warnings."""
    from datasets.utils import logging

    shown_before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown_before:
            logging.enable_progress_bar()


def _tokens(logps: Tensor, lengths: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Return log-probabilities by token, half on either end of a response, and the mask; both (rows, places)."""
    at = torch.arange(places)
    mask = at < lengths[:, None]
    first, last = at == 0, at == lengths[:, None] - 1
    halves = (first.to(logps.dtype) + last.to(logps.dtype)) / 2
    return logps[:, None] * halves, mask


class _Prepared(torch.nn.Module):
    """A model that returns prepared log-probabilities of tokens, whatever its input."""

    def __init__(self, by_token: Tensor) -> None:
        super().__init__()
        self.by_token = by_token

    def forward(self, *_: Any, fused_lm_head: bool = False, **__: Any) -> Any:
        by_token = self.by_token
        nothing = torch.zeros_like(by_token).detach()
        if fused_lm_head:
            return SimpleNamespace(
                log_probs=by_token,
                entropy=nothing,
                mean_logits=nothing,
                is_top1=nothing.bool(),
                log_sum_sq_probs=nothing,
            )
        certain = by_token == 0
        inside = torch.where(certain, torch.full_like(by_token, -1.0), by_token)
        other = torch.where(certain, torch.full_like(by_token, -1e4), torch.log(-torch.expm1(inside)))
        logits = torch.stack([other, by_token], -1)  # their exponentials sum to 1
        return SimpleNamespace(logits=torch.cat([logits, torch.zeros_like(logits[:, :1])], 1))


def _sides(pairs: PairLogps) -> tuple[Tensor, Tensor, int]:
    """Return log-probabilities and lengths of winners, then losers, and the largest length."""
    lengths = torch.cat(pairs.lengths("a loss of TRL's")).long()
    return torch.cat([pairs.win, pairs.lose]), lengths, int(lengths.max())


def _ask_dpo(trainer: Any, pairs: PairLogps) -> Tensor:
    """Return the loss of DPOTrainer for a batch."""
    logps, lengths, places = _sides(pairs)
    by_token, mask = _tokens(logps, lengths, places)
    inputs, mask = _inputs(mask)
    inputs["completion_mask"] = mask.long()
    ref_tokens, _ = _tokens(torch.cat([pairs.ref_win, pairs.ref_lose]), lengths, places)
    reference = trainer.compute_ref_log_probs(_Prepared(ref_tokens), inputs)
    inputs |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True))
    return trainer.compute_loss(_Prepared(by_token), inputs)


def _inputs(mask: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return made-up texts with responses of this mask after a prompt of one word, and the mask of the whole."""
    prompt = torch.zeros_like(mask[:, :1])
    whole = torch.cat([prompt, mask], 1)
    return {
        "input_ids": torch.where(whole, ANSWER, PROMPT),
        "attention_mask": torch.cat([~prompt, mask], 1).long(),
    }, whole


def _ask_cpo(trainer: Any, pairs: PairLogps) -> Tensor:
    """Return the loss of CPOTrainer or ORPOTrainer for a batch."""
    by_token, mask = _tokens(*_sides(pairs))
    inputs, whole = _inputs(mask)
    labels = inputs["input_ids"].masked_fill(~whole, -100)
    parts = {**inputs, "labels": labels}
    batch = {f"{side}_{name}": part for name, both in parts.items()
             for side, part in zip(("chosen", "rejected"), both.chunk(2), strict=True)}  # fmt: skip
    return trainer.compute_loss(_Prepared(by_token), batch)
