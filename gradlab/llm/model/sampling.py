"""Responses sampled from a model, with nothing between its probabilities and the draw; for PPO and for evaluation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from torch.distributed.fsdp import FSDPModule
from tqdm import tqdm

from gradlab.checks import count, one_of, positive
from gradlab.console import printable
from gradlab.llm.data.batches import dealt, padded
from gradlab.llm.data.turn_ends import turn_ends
from gradlab.llm.model.group import Group, Precision, computing, plain
from gradlab.llm.model.heads import unwrapped
from gradlab.llm.model.seeded import drawing
from gradlab.streams import Purpose, torch_seed


@dataclass(frozen=True)
class Samples:
    """Sampled responses, those to one prompt together, in the prompts' order."""

    prompts: list[int]
    """The index of each response's prompt."""
    tokens: list[tuple[int, ...]]
    """The token ids of each response, one or more; the last is an end of turn where the model ended it."""
    finished: list[bool]
    """True where the model ended a response, and not the limit of its length."""


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], *, each: int = 4, longest: int = 64,
    temperature: float = 1.0, seed: int = 0, step: int | None = None, batch: int = 16, precision: Precision = "fp32",
    group: Group | None = None, title: str = "",
) -> Samples:  # fmt: skip
    """Draw ``each`` responses to every prompt (token ids, as the model is to see them) from π at this temperature.

    tokenizer    gives, with the model's ``generation_config``, the ids that end a response (``turn_ends``), and
                 ``pad_token_id``.
    longest      the most tokens in a response, its end included.
    temperature  > 0, divides the logits; at 1 the responses are drawn from π itself. No top-k, top-p or other setting
                 of the model's folder counts, except the ids that end a turn.
    seed         a whole number ≥ 0. Equal seeds, steps, prompts, ``each``, ``longest`` and ``batch`` give equal
                 responses, whatever the global generators hold, which stay as they are; and on any number of
                 processes, as far as their rounding is the same.
    step         the step of PPO, as each step draws other samples; left out: the samples of an evaluation.
    batch        responses that one process draws at a time.
    precision    ``bf16`` computes as training in ``bf16`` does.
    group        the processes that draw, which all make the same call; each gets all samples. Under FSDP each holds
                 the whole model meanwhile. Left out: only this process, on the model's device.
    title        title of a progress bar; left out: no bar.

    The model's training or evaluation mode is restored. Raises ValueError, in one line, for settings or prompts that
    do not allow sampling.
    """
    positive("temperature", temperature)
    one_of("precision", precision, get_args(Precision))
    for name, value in (("each", each), ("longest", longest), ("batch", batch)):
        count(name, value, 1)
    base = unwrapped(plain(model))
    ends = turn_ends(tokenizer, getattr(base, "generation_config", None), base.config.get_text_config().vocab_size)
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    check_room(prompts, longest, base.config)
    group = group or Group(device=base.device)
    seed = count("seed", seed)
    purpose, steps = (Purpose.SAMPLES, []) if step is None else (Purpose.PPO_SAMPLES, [step])
    rows = [prompt for prompt in prompts for _ in range(each)]
    drawn_ids = torch.zeros(len(rows), longest + 1, dtype=torch.long)  # each response's length, then its tokens
    # Unlike training's batches, these are the same on any number of processes: each batch has its seed.
    parts = dealt(np.array([len(row) for row in rows], int), batch)[group.rank :: group.size]
    with _still(model, group), _bare(base, ends, pad, longest, temperature), computing(group.device, precision):
        for turn, part in enumerate(
            tqdm(parts, desc=printable(title), unit="batch", disable=not (title and group.is_main), leave=False)
        ):
            inputs = padded([rows[place] for place in part], pad, group.device, left=True)
            with drawing(torch_seed(seed, purpose, *steps, turn * group.size + group.rank), group.device):
                drawn = base.generate(**inputs, synced_gpus=False)[:, inputs["input_ids"].shape[1] :].cpu()
            for place, row in zip(part, drawn, strict=True):
                ended = torch.isin(row, torch.tensor(ends)).nonzero()
                length = int(ended[0]) + 1 if len(ended) else len(row)  # what follows an end is padding
                drawn_ids[place, 0], drawn_ids[place, 1 : length + 1] = length, row[:length]
    drawn_ids = group.total(drawn_ids)
    tokens = [tuple(row[1 : 1 + row[0]]) for row in drawn_ids.tolist()]
    return Samples(
        [index for index in range(len(prompts)) for _ in range(each)],
        tokens,
        [not set(ends).isdisjoint(response[-1:]) for response in tokens],
    )


def texts(samples: Samples, tokenizer: Any) -> list[str]:
    """Return the responses as text, without their end, special tokens, and ids that the tokenizer does not know."""
    known = len(tokenizer)
    return [
        str(tokenizer.decode([token for token in (tokens[:-1] if finished else tokens) if token < known],
                             skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for tokens, finished in zip(samples.tokens, samples.finished, strict=True)
    ]  # fmt: skip


def check_room(prompts: Sequence[Sequence[int]], longest: int, config: Any) -> None:
    """Raise ValueError where a prompt is empty, or leaves no room for ``longest`` tokens in the model's positions."""
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(f"prompts must each have one or more tokens, got none in prompt {index}")
    room = getattr(config.get_text_config(), "max_position_embeddings", None)
    most = max((len(prompt) for prompt in prompts), default=0)
    if room is not None and most + longest > room:
        raise ValueError(
            f"a response's length must be at most {max(room - most, 0)}, so that it fits into the model's {room} "
            f"positions after the longest prompt ({most} tokens), got {longest}"
        )


@contextlib.contextmanager
def _bare(base: Any, ends: Sequence[int], pad: int, longest: int, temperature: float) -> Iterator[None]:
    """Let generate() follow only these settings inside.

    It would take settings that a call leaves out from the model's folder, or else its defaults, such as top_k 50.
    """
    from transformers import GenerationConfig

    kept = getattr(base, "generation_config", None)
    base.generation_config = GenerationConfig(
        do_sample=True, temperature=temperature, top_k=0, top_p=1.0, max_new_tokens=longest,
        eos_token_id=list(ends), pad_token_id=pad, use_cache=True,
    )  # fmt: skip
    try:
        yield
    finally:
        base.generation_config = kept


@contextlib.contextmanager
def _still(model: Any, group: Group) -> Iterator[None]:
    """Turn gradients and dropout off inside; under FSDP gather all weights, so that no process waits for another."""
    training, parts = model.training, [part for part in model.modules() if isinstance(part, FSDPModule)]
    model.eval()
    try:
        with torch.no_grad():
            for part in parts:
                part.set_reshard_after_forward(False, recurse=False)
            if parts:  # the first forward gathers the weights, and it must be the outermost model's
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=group.device))
            yield
    finally:
        model.train(training)
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)  # as fully_shard has it by default
