"""Rewards of responses: sequence classifiers, safe-rlhf score models, or any Python callable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gradlab.arrays import real_array
from gradlab.checks import count, shown
from gradlab.console import out_of_memory
from gradlab.llm.data.pair_forms import Prompt, as_messages
from gradlab.llm.data.template_dates import TemplateDate, fix_date, today
from gradlab.llm.data.templates import Template, prompt_text
from gradlab.llm.model.loading import load_tokenizer, weights_hash
from gradlab.llm.model.reward_functions import function_of, is_function
from gradlab.llm.model.reward_models import EXTRA, Scorer, column_of, config_of, model_of
from gradlab.store.files import file_hash


class Reward(Protocol):
    """A function of prompts, as the model's template writes them, and as many responses; it returns as many rewards.

    A prompt is whole, also where the model saw a shorter one, which fits into its ``max_length``.
    """

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], /) -> Sequence[float]: ...  # noqa: D102


class CheckedReward:
    """A reward that gives one finite number per response, as (B,) float64, or raises ValueError.

    name      what messages and tables call it.
    template  "chat": it reads messages, through its own chat template; "beaver": safe-rlhf's text; None: the text that
              the model's template writes. All are whole, also where the model's prompt was shortened.
    """

    def __init__(self, function: Callable[..., Any], name: str, template: str | None = None) -> None:
        self.function, self.name, self.template = function, name, template

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Return rewards (B,); ValueError in one line where they are not what they must be, or the function fails."""
        if not len(prompts):
            return np.zeros(0)
        try:
            given = self.function(list(prompts), list(responses))
        except Exception as error:  # anyone may have written the function
            if out_of_memory(error):  # the machine's fault, not the function's
                raise
            raise ValueError(f"reward {self.name} failed: {type(error).__name__}: {error}") from error
        if isinstance(given, Tensor):
            given = given.detach().float().cpu()
        try:
            rewards = real_array("rewards", given)
        except ValueError:
            raise ValueError(f"reward {self.name} must give one number per response, got {shown(given)}") from None
        if rewards.shape != (len(responses),):
            raise ValueError(
                f"reward {self.name} must give one number per response, got shape {rewards.shape} for {len(responses)}"
            )
        strange = np.flatnonzero(~np.isfinite(rewards))
        if len(strange):
            raise ValueError(
                f"reward {self.name} must give finite numbers, got {rewards[strange[0]]} for response {strange[0] + 1} "
                f"of {len(rewards)}"
            )
        return rewards

    def prompts(self, prompts: Sequence[Prompt], template: Template, tokenizer: Any) -> list[Prompt]:
        """Return prompts of pairs as this reward reads them; ``template`` and ``tokenizer`` are those of the model."""
        if self.template is None:
            return [prompt_text(prompt, template, tokenizer) for prompt in prompts]
        if self.template == "chat":
            return [as_messages(prompt) for prompt in prompts]
        return list(prompts)


def load_reward(
    spec: str | Callable[..., Any], *, device: torch.device | str = "cpu", batch: int = 16, label: str | None = None,
    template: Literal["chat"] | None = None, dtype: torch.dtype | None = None, max_length: int | None = None,
    date: TemplateDate | None = None,
) -> CheckedReward:  # fmt: skip
    """Load the reward that ``spec`` names.

    spec   - a folder or hub name of a sequence classifier of transformers with one output. It reads prompt and response
             as one text. Where it has several outputs, ``label``, or "SPEC#LABEL", names the one that counts. The
             reward is its log p/(1 − p), or the output itself where ``problem_type`` in its config is "regression";
           - that of a safe-rlhf score model, which reads "BEGINNING OF CONVERSATION: USER: … ASSISTANT:…" and EOS;
           - "MODULE:FUNCTION" or "FILE.py:FUNCTION", which takes lists of prompts and responses; or such a callable.
    batch       texts at a time.
    template    "chat": a classifier's chat template writes the text, from messages.
    dtype       left out: bfloat16 on a GPU, else float32.
    max_length  tokens; longer texts lose their beginning, chats whole turns. Left out: as many as the model can take.
    date        the date that its chat template writes as today's; left out: today.

    Weights come from safetensors, and no code from a model's folder is run. OSError or ValueError with one line says
    what is wrong with ``spec``.
    """
    count("batch", batch, 1)
    check_template("template", template)
    if callable(spec):
        return spec if isinstance(spec, CheckedReward) else CheckedReward(spec, _called(spec))
    if is_function(spec):
        return CheckedReward(function_of(spec), spec)
    spec, label = (spec, label) if label is not None else _labelled(spec)
    device = torch.device(device)
    dtype = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    model, score_head = model_of(spec, dtype)
    tokenizer = load_tokenizer(spec)
    fix_date(tokenizer, date or TemplateDate(None, today()))
    extra = getattr(model.config, EXTRA, {})
    limits = (
        max_length, extra.get("max_length"), getattr(model.config, "max_position_embeddings", None),
        tokenizer.model_max_length,
    )  # fmt: skip
    reads = "beaver" if score_head else template
    if reads == "chat" and not tokenizer.chat_template:
        raise ValueError(f"template must be None for reward {spec}, whose tokenizer has no chat template, got 'chat'")
    if tokenizer.pad_token_id is None:
        raise ValueError(f"reward {spec} must have a tokenizer with a padding or an end token")
    scorer = Scorer(
        model.to(device).eval(), tokenizer, batch=batch, reads=reads, ends=score_head or extra.get("ends", False),
        max_length=min(limit for limit in limits if limit),
        column=None if score_head else column_of(model.config, spec, label),
    )  # fmt: skip
    return CheckedReward(scorer, spec if label is None else f"{spec}#{label}", reads)


def check_reward(spec: str) -> None:
    """Raise the errors that ``load_reward`` would raise for ``spec``, as far as they show without a model's weights.

    A function is imported. For a model, config and tokenizer are read, and the label is looked up.
    """
    if is_function(spec):
        function_of(spec)
        return
    name, label = _labelled(spec)
    config, score_head = config_of(name)
    if not score_head:
        column_of(config, name, label)
    load_tokenizer(name)


def reward_hash(spec: str) -> str:
    """Return a text that tells a reward from others: hash of the weights and label for a model, a function's name."""
    if is_function(spec):
        return spec
    name, label = _labelled(spec)
    return f"{weights_hash(name)}#{label or ''}"


def reward_code(spec: str) -> str | None:
    """Return the SHA-256 of the file of FILE.py:FUNCTION; None for any other reward."""
    file = Path(spec.rpartition(":")[0])
    return file_hash(file) if is_function(spec) and file.suffix == ".py" and file.is_file() else None


def check_template(name: str, template: Any) -> None:
    """Raise ValueError for a template that ``load_reward`` does not know."""
    if template not in (None, "chat"):
        raise ValueError(f"{name} must be chat or None, got {template!r}")


def _labelled(spec: str) -> tuple[str, str | None]:
    """Return the model and the label of "SPEC#LABEL"; the label is None where there is no "#LABEL"."""
    if "#" not in spec or Path(spec).is_dir():
        return spec, None
    name, _, label = spec.partition("#")
    return name, label


def _called(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)
