"""Reward models: sequence classifiers of transformers and safe-rlhf's score models, and how they score texts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import one_of
from gradlab.llm.data.batches import dealt, padded
from gradlab.llm.data.fewer_turns import Turns, with_fewer_turns
from gradlab.llm.data.pair_forms import Prompt
from gradlab.llm.data.templates import BEAVER_START, chat_text, prompt_text
from gradlab.llm.data.tokens import begun_once, start_of
from gradlab.llm.model.finished import check_model
from gradlab.llm.model.reading import check_weights, reading
from gradlab.llm.model.reward_functions import ACCEPTED

_APART = ("multi_label_classification", "regression")  # types of classifiers whose outputs do not share one softmax
EXTRA = "gradlab_reward"  # key in the config of a model of ``reward_training``, which says how its texts are made


class Scorer:
    """A function of prompts and responses to a model's scores.

    reads   how prompt and response become a text, see ``CheckedReward``.
    ends    whether the tokenizer's EOS follows each text.
    column  which of the model's outputs counts; None: the model gives scores.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, batch: int, reads: str | None, ends: bool, max_length: int,
        column: int | None,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.batch, self.reads = model, tokenizer, batch, reads
        self.ends, self.max_length, self.column = ends, max_length, column
        self.cut = 0  # texts that were too long
        self.pad, self.start = tokenizer.pad_token_id, start_of(tokenizer)
        config = model.config.get_text_config()
        known = isinstance(config.pad_token_id, int) and 0 <= config.pad_token_id < config.vocab_size
        if column is not None and known:
            self.pad = config.pad_token_id
        self._finds_pad = column is not None and not known

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Return rewards (B,); texts of similar length are scored together.

        A chat that is too long loses turns before its response, see ``with_fewer_turns``.
        """
        ids = self.encoded([self._text(*self._fewer_turns(*both)) for both in zip(prompts, responses, strict=True)])
        return self.in_batches(ids, self.scores) if ids else np.zeros(0)

    def in_batches(self, ids: Sequence[Sequence[int]], of: Callable[[Sequence[Sequence[int]]], Tensor]) -> np.ndarray:
        """Return ``of`` (B, …) of one or more texts, as float64; texts of similar length are computed together."""
        parts = dealt(np.array([len(text) for text in ids]), self.batch)
        found = [of([ids[index] for index in part]).double().cpu().numpy() for part in parts]
        return np.concatenate(found)[np.argsort(np.concatenate(parts))]

    def outputs(self, ids: Sequence[Sequence[int]]) -> Any:
        """Return the model's output for token ids.

        Classifiers on decoders read the last token that is no padding by their own config. Where that names none, no
        text of the batch ends with the token that pads: the tokenizer's may be the one that ends an answer.
        """
        if self._finds_pad:
            config, last = self.model.config.get_text_config(), {text[-1] for text in ids if len(text)}
            self.pad = next(pad for pad in (self.pad, *range(len(last) + 1)) if pad not in last)
            config.pad_token_id = self.pad
        return self.model(**padded(ids, self.pad, self.model.device))

    def scores(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the scores (B,) of token ids, with their graph where gradients are on."""
        output = self.outputs(ids)
        if self.column is None:
            return output
        logits = output.logits.float()
        logit = logits[:, self.column]
        if logits.shape[1] == 1 or self.model.config.problem_type in _APART:
            return logit
        others = [index for index in range(logits.shape[1]) if index != self.column]
        return logit - logits[:, others].logsumexp(1)

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, at most ``max_length`` of each; a longer text loses its beginning.

        The tokenizer's BOS stands before each text once, also where a chat template has written it.
        """
        how = {"add_special_tokens": self.reads != "chat", "verbose": False}
        ids: list[list[int]] = self.tokenizer(list(texts), **how)["input_ids"]
        end = [self.tokenizer.eos_token_id] if self.ends else []
        ids = [begun_once(text if text[-1:] == end else text + end, self.start) for text in ids]
        for index, text in enumerate(ids):
            if len(text) > self.max_length:
                self.cut += 1
                self.tokenizer.truncation_side = "left"
                room = self.max_length - len(end)
                cut = self.tokenizer(texts[index], truncation=True, max_length=room, **how)["input_ids"]
                ids[index] = cut if cut[-1:] == end else cut + end
        return ids

    def _fewer_turns(self, prompt: Prompt, response: str) -> tuple[Prompt, str]:
        """Return a prompt of messages with as many turns as fit before the response; another prompt as it is."""
        if self.reads != "chat" or isinstance(prompt, str):
            return prompt, response

        def excess(turns: Turns) -> int:
            ids = self.tokenizer(self._text(turns, response), add_special_tokens=False, verbose=False)["input_ids"]
            return len(ids) + self.ends - self.max_length

        fewer = with_fewer_turns(prompt, excess, self.tokenizer) if excess(prompt) > 0 else None
        self.cut += fewer is not None
        return (fewer[0] if fewer else prompt), response

    def _text(self, prompt: Prompt, response: str) -> str:
        if self.reads == "beaver":
            if not isinstance(prompt, str) or not prompt.startswith(BEAVER_START):
                prompt = prompt_text(prompt, "beaver", self.tokenizer)
            return prompt + response.strip()
        if isinstance(prompt, str):
            return prompt + response
        messages = [*prompt, {"role": "assistant", "content": response}]
        return chat_text(messages, self.tokenizer)


def config_of(spec: str) -> tuple[Any, bool]:
    """Return the model's config, and whether it is one of safe-rlhf's."""
    from transformers import AutoConfig

    from gradlab.llm.model.score_head import ARCHITECTURES

    if (Path(spec) / "adapter_config.json").is_file():
        raise ValueError(f"reward must be {ACCEPTED}; {spec} is a LoRA adapter: `gradlab merge` makes a whole model")
    check_model(spec, weights=False)
    with reading("reward", spec, ACCEPTED), quiet():
        config = AutoConfig.from_pretrained(spec, trust_remote_code=False)
        named = list(config.architectures or [])
        ours = any(name in ARCHITECTURES for name in named)
        if not ours and any(name.endswith("ForScore") for name in named):
            raise ValueError(f"of safe-rlhf's score models only Llamas are known, this is {named[0]}")
        if not ours and not any(name.endswith("ForSequenceClassification") for name in named):
            raise ValueError(f"{', '.join(named) or 'a model without a named architecture'} is no sequence classifier")
        extra = getattr(config, EXTRA, {})
        if not isinstance(extra, dict) or not isinstance(extra.get("max_length", 1), int):
            raise ValueError(f"{EXTRA} must be an object with max_length, a whole number, got {extra!r}")
        if ours and config.model_type != "llama":
            raise ValueError(f"{named[0]} must be on a llama, got {config.model_type}")
    return config, ours


def model_of(spec: str, dtype: torch.dtype) -> tuple[Any, bool]:
    """Return the model, and whether it is one of safe-rlhf's."""
    from transformers import AutoModelForSequenceClassification

    from gradlab.llm.model.score_head import LlamaForScore

    check_model(spec)
    config, ours = config_of(spec)
    with reading("reward", spec, ACCEPTED), quiet():
        kind: Any = LlamaForScore if ours else AutoModelForSequenceClassification
        model, info = kind.from_pretrained(
            spec, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        check_weights(info)
    return model, ours


def column_of(config: Any, spec: str, label: str | None) -> int:
    """Return which output is the reward."""
    names = {int(index): str(name) for index, name in config.id2label.items()}
    if label is None:
        if config.num_labels == 1:
            return 0
        raise ValueError(
            f"reward {spec} must have one output, got {config.num_labels}; name one of "
            f"{', '.join(names.values())} as {spec}#LABEL"
        )
    one_of(f"label of reward {spec}", label, list(names.values()))
    return next(index for index, name in names.items() if name == label)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from reporting a new head inside: it is wanted, or else an error of one line says so."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
