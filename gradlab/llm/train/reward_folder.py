"""The folder of a reward model that is made from a causal language model and preference pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gradlab.console import say
from gradlab.doctor.log_rows import HEADER
from gradlab.doctor.training_log import LOG, SAMPLES, read_log
from gradlab.llm.data.hold_out import Overlap, prompt_key
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.template_dates import TemplateDate, check_date, fix_date, today
from gradlab.llm.data.templates import Template, prompt_text, responses_of
from gradlab.llm.model.finished import write_done
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.loading import is_adapter, load_tokenizer, save_folder, weights_hash
from gradlab.llm.model.reading import check_weights, reading
from gradlab.llm.model.reward_accuracy import Accuracy, held_out_accuracy
from gradlab.llm.model.reward_models import EXTRA, Scorer, quiet
from gradlab.llm.model.rewards import CheckedReward
from gradlab.llm.train.checkpoints import CHECKPOINTS, is_done, remove_checkpoints, sweep
from gradlab.llm.train.run_folder import claim, refuse_others
from gradlab.store.files import is_marked, sync
from gradlab.store.provenance import fingerprint


@dataclass(frozen=True)
class Started:
    """A reward model before it is trained.

    scorer  gives its scores; its model has one output, which starts at 0.
    ids     token ids of winner and loser of each pair, each after its prompt.
    out     the folder, which gets log.jsonl; ``key``: a hash of all that the model depends on.
    header  facts on data and settings, for the log.
    """

    scorer: Scorer
    ids: Sequence[Sequence[list[int]]]
    out: Path
    key: str
    header: Mapping[str, Any]


def reward_folder(
    base: str | Path, pairs: Sequence[Pair], out: Path | str, settings: Any, train: Callable[[Started], dict[str, Any]],
    *, held_out: Sequence[Pair], batch: int, device: torch.device | str, template_date: str | None,
) -> str:  # fmt: skip
    """Make a reward model, unless that has been done; return the folder of the model.

    settings  a dataclass of all that decides the weights; it has ``template`` and ``max_length``.
    train     changes the weights of the model that has been started, and returns a summary.
    batch     texts that are scored at a time.
    The other arguments, files and errors are those of ``train_reward``.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    base = whole_model(base)
    if is_adapter(base):
        raise ValueError(f"base must be a whole model, got {str(base)!r}, a LoRA adapter; `gradlab merge` makes one")
    out, template = Path(out), settings.template
    check_date("template_date", template_date)
    tokenizer = load_tokenizer(base)
    date = TemplateDate(template_date, _first_day(out))
    fix_date(tokenizer, date)
    padding = _pad_apart(tokenizer)
    written = date.written_by(tokenizer) if template == "chat" else None
    texts = [_texts(pair, template, tokenizer) for pair in pairs]
    key = fingerprint(asdict(settings), texts, weights_hash(base), *padding)
    model = None if is_done(out, key) else _fresh(base, tokenizer, settings.max_length)
    with contextlib.ExitStack() as stack:
        claim(out, stack)
        refuse_others(out, ("model", LOG, SAMPLES, CHECKPOINTS), ours=model is None or is_marked(out / LOG, HEADER))
        sweep(out, done=model is None)
        if model is None:
            say(f"reward model: done before, {out}")
            return str(out / "model")
        overlap = Overlap.of(*([prompt_key(pair.prompt) for pair in part] for part in (pairs, held_out)))
        if overlap.shared_pairs:
            say(f"reward model: {overlap}")
        scorer = Scorer(
            model.to(torch.device(device)), tokenizer, batch=batch, reads=None, ends=True,
            max_length=settings.max_length, column=0,
        )  # fmt: skip
        ids = scorer.encoded([text for both in texts for text in both])
        cut = scorer.cut  # texts to train on that were too long: the scorer goes on counting
        header = {"pairs": len(texts), **overlap.header(), "template_date": written, **asdict(settings)}
        summary = train(Started(scorer, [ids[2 * i : 2 * i + 2] for i in range(len(texts))], out, key, header))
        model.eval()
        accuracy = _accuracy(scorer, held_out, out, template, tokenizer)
        save_folder(out / "model", model, tokenizer)
        page = {"key": key, "base": str(base), "cut": cut, **header, **summary,
                "held_out": accuracy and asdict(accuracy)}  # fmt: skip
        sync(out / LOG)
        write_done(out, page, ("model", LOG))
        remove_checkpoints(out)
    return str(out / "model")


def _pad_apart(tokenizer: Any) -> list[str]:
    """Let another special token pad where EOS does, and return it: a classifier reads the last token but padding.

    With EOS as padding it would read the token before EOS, and could not tell a text that has ended.
    """
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return []
    others = [token for token in tokenizer.all_special_tokens if token != tokenizer.eos_token]
    if not others:
        say(f"reward model: the tokenizer has no special token but {tokenizer.eos_token!r}, which ends and pads texts, "
            "so the reward is read at the token before it")  # fmt: skip
        return []
    tokenizer.pad_token = others[0]
    return others[:1]


def _first_day(out: Path) -> str:
    """Return the date that a chat template wrote in the training in ``out``, which may be unfinished; else today."""
    try:
        log = out / LOG
        written = read_log(log).attrs["settings"].get("template_date") if log.is_file() else None
    except (OSError, ValueError):
        written = None
    return written if isinstance(written, str) else today()


def _fresh(base: str | Path, tokenizer: Any, max_length: int) -> Any:
    """Return the base as a classifier with one output, whose weights are 0; the base must hold all other weights."""
    from transformers import AutoModelForSequenceClassification

    with reading("base", base, "a causal language model in safetensors, as folder or hub name"), quiet():
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            str(base), num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        model, info = loaded
        head = getattr(model, "score", None)
        if not isinstance(head, torch.nn.Linear):
            raise ValueError(f"type {model.config.model_type} is no decoder such as Llama")
        check_weights(info, new=("score.",))
    torch.nn.init.zeros_(head.weight)
    setattr(model.config, EXTRA, {"ends": True, "max_length": max_length})
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _accuracy(
    scorer: Scorer, held_out: Sequence[Pair], out: Path, template: Template, tokenizer: Any
) -> Accuracy | None:
    """Return and print the accuracy of the trained model on held-out pairs; None without such pairs."""
    if not held_out:
        return None
    lengths = [
        tuple(map(len, tokenizer(list(responses_of(pair, template, tokenizer)))["input_ids"])) for pair in held_out
    ]
    accuracy = held_out_accuracy(
        CheckedReward(scorer, str(out)), held_out, template=template, tokenizer=tokenizer, lengths=lengths
    )
    say(f"reward model: {accuracy}")
    return accuracy


def _texts(pair: Pair, template: Template, tokenizer: Any) -> tuple[str, str]:
    """Return winner and loser, each after its prompt, as the model sees them."""
    prompt = prompt_text(pair.prompt, template, tokenizer)
    chosen, rejected = responses_of(pair, template, tokenizer)
    return prompt + chosen, prompt + rejected
