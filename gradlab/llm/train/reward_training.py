"""Training a small reward model on preference pairs, from a causal language model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import between, count, one_of, positive
from gradlab.console import say
from gradlab.doctor.log_rows import HEADER
from gradlab.doctor.training_log import read_log
from gradlab.llm.data.batches import batch_at, dealt, steps_an_epoch
from gradlab.llm.data.hold_out import Overlap, prompt_key
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.template_dates import TemplateDate, check_date, fix_date, today
from gradlab.llm.data.templates import Template, prompt_text, responses_of
from gradlab.llm.model.finished import write_done
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.group import Group, Precision, computing
from gradlab.llm.model.loading import is_adapter, load_tokenizer, save_folder, weights_hash
from gradlab.llm.model.reading import check_weights, reading
from gradlab.llm.model.reward_accuracy import Accuracy, held_out_accuracy
from gradlab.llm.model.reward_models import EXTRA, Scorer, quiet
from gradlab.llm.model.rewards import CheckedReward
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.checkpoints import CHECKPOINTS, LOG, is_done, remove, sweep
from gradlab.llm.train.loop import Task, run_steps
from gradlab.llm.train.run_folder import claim, refuse_others
from gradlab.llm.train.run_settings import LogSettings
from gradlab.llm.train.trained_model import TrainedModel
from gradlab.losses import DPO, PairLogps
from gradlab.store.files import is_marked, sync
from gradlab.store.provenance import fingerprint
from gradlab.streams import Purpose, torch_seed


def train_reward(
    base: str | Path, pairs: Sequence[Pair], out: Path | str, *, held_out: Sequence[Pair] = (),
    template: Template = "plain", epochs: float = 1.0, learning_rate: float = 1e-5, batch: int = 16, micro: int = 8,
    max_length: int = 512, weight_decay: float = 0.0, max_norm: float = 1.0, warmup: float = 0.1, seed: int = 0,
    precision: Precision = "fp32", device: torch.device | str = "cpu", template_date: str | None = None,
) -> str:  # fmt: skip
    """Train a reward model on pairs by Bradley–Terry's −log σ(r_w − r_l); return the folder of the model.

    base       a folder or hub name of a causal language model; its head becomes one output, which starts at 0.
    out        gets ``model/``, a sequence classifier that transformers reads, ``log.jsonl`` and ``done.json``. A
               training that is done is not repeated; ValueError where it had other settings, data or base,
               FileExistsError where something else is in its place.
    held_out   pairs on which the finished model is judged, for the log and ``done.json``; both say how many of their
               prompts are trained on too.
    template   how the model whose responses are to be judged sees a prompt. A text is prompt, response and EOS.
    precision  "bf16": computes in bfloat16.
    template_date  the date that a chat template writes as today's, YYYY-MM-DD; left out: the day of the first start.

    The training is a single process. Ctrl-C ends the step and saves a checkpoint, from which the same call goes on.
    Equal seeds give equal weights on one kind of processor.
    """
    count("micro", micro, 1)
    settings = RewardSettings(
        template, epochs, learning_rate, batch, max_length, weight_decay, max_norm, warmup, seed, precision
    )
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    base = whole_model(base)
    if is_adapter(base):
        raise ValueError(f"base must be a whole model, got {str(base)!r}, a LoRA adapter; `gradlab merge` makes one")
    out, device = Path(out), torch.device(device)
    check_date("template_date", template_date)
    tokenizer = load_tokenizer(base)
    date = TemplateDate(template_date, _first_day(out))
    fix_date(tokenizer, date)
    written = date.written_by(tokenizer) if template == "chat" else None
    texts = [_texts(pair, template, tokenizer) for pair in pairs]
    key = fingerprint(asdict(settings), texts, weights_hash(base))
    model = None if is_done(out, key) else _fresh(base, tokenizer, max_length)
    with contextlib.ExitStack() as stack:
        claim(out, stack)
        refuse_others(out, ("model", LOG), ours=model is None or is_marked(out / LOG, HEADER))
        sweep(out, done=model is None)
        if model is None:
            say(f"reward model: done before, {out}")
        else:
            overlap = Overlap.of(*([prompt_key(pair.prompt) for pair in part] for part in (pairs, held_out)))
            if overlap.shared_pairs:
                say(f"reward model: {overlap}")
            _train(
                model, base, tokenizer, texts, out, held_out, settings, micro=micro, key=key, device=device,
                said={**overlap.header(), "template_date": written},
            )  # fmt: skip
    return str(out / "model")


def _train(
    model: Any, base: str | Path, tokenizer: Any, texts: Sequence[tuple[str, str]], out: Path, held_out: Sequence[Pair],
    settings: RewardSettings, *, micro: int, key: str, device: torch.device, said: Mapping[str, Any],
) -> None:  # fmt: skip
    """Train on texts of winners and losers, from the newest checkpoint on, and write the model and ``done.json``.

    said  facts on the data, for the log and ``done.json``.
    """
    length = settings.max_length
    model = model.to(device).train()
    scorer = Scorer(model, tokenizer, batch=2 * micro, reads=None, ends=True, max_length=length, column=0)
    ids = scorer.encoded([text for both in texts for text in both])
    cut = scorer.cut  # texts to train on that were too long: the scorer goes on counting
    task = RewardTask(scorer, [ids[2 * i : 2 * i + 2] for i in range(len(texts))], micro)
    steps = math.ceil(settings.epochs * steps_an_epoch(len(texts), settings.batch))
    trained = RewardModel(model, Group(device=device), settings, rate=settings.learning_rate, steps=steps)
    header = {"loss": "reward model", "steps": steps, "pairs": len(texts), **said, **asdict(settings)}
    summary = run_steps(trained, task, out, key, header, "reward model")
    model.eval()
    accuracy = _accuracy(scorer, held_out, out, settings.template, tokenizer)
    save_folder(out / "model", model, tokenizer)
    page = {
        "key": key, "base": str(base), "pairs": len(texts), "cut": cut, **said, **asdict(settings),
        **summary, "held_out": accuracy and asdict(accuracy),
    }  # fmt: skip
    sync(out / LOG)
    write_done(out, page, ("model", LOG))
    remove(out / CHECKPOINTS)


@dataclass(frozen=True)
class RewardSettings:
    """The settings that decide a reward model's weights; see ``train_reward``."""

    template: Template
    epochs: float
    learning_rate: float
    batch: int
    max_length: int
    weight_decay: float
    max_norm: float
    warmup: float
    seed: int
    precision: Precision

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("max_length", 8), ("seed", 0)):
            count(name, getattr(self, name), least)
        for name in ("epochs", "learning_rate", "max_norm"):
            positive(name, getattr(self, name))
        between("weight_decay", self.weight_decay, 0)
        between("warmup", self.warmup, 0, 1)
        one_of("precision", self.precision, get_args(Precision))

    @property
    def schedule(self) -> str:
        """Return the name of the schedule by which the rate falls after the warm-up."""
        return "cosine"

    @property
    def log(self) -> LogSettings:
        """Return the settings of the log: the training is looked at and saved only at its end."""
        return LogSettings(sides_every=0, validate_every=0, save_every=0)


class RewardModel(TrainedModel[RewardSettings]):
    """A reward model with its optimiser, in one process."""


@dataclass(frozen=True)
class RewardTask(Task[RewardModel]):
    """A task of the loop: a scorer learns to tell winner from loser, given as ids, by Bradley–Terry's loss.

    micro  pairs that are scored at a time.
    """

    scorer: Scorer
    pairs: Sequence[Sequence[list[int]]]
    micro: int

    def gradient(self, policy: RewardModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the model; return its row of the log."""
        settings, device = policy.settings, policy.group.device
        places = batch_at(step - 1, len(self.pairs), settings.batch, settings.seed, Purpose.REWARD_ORDER)
        chosen = [self.pairs[place] for place in places]
        row = dict.fromkeys(("loss", "accuracy"), 0.0)
        with drawing(torch_seed(settings.seed, Purpose.REWARD_DROPOUT, step), device):
            for part in dealt(np.array([max(map(len, pair)) for pair in chosen]), self.micro):
                win, lose = self._scores([chosen[place] for place in part], policy)
                # On unnormalised scores, and with a reference of 0, DPO is Bradley–Terry's loss.
                zero = torch.zeros_like(win)
                value = DPO()(PairLogps(win, lose, zero, zero)).sum() / len(chosen)
                value.backward()
                row["loss"] += float(value.detach())
                row["accuracy"] += float(((win > lose) + 0.5 * (win == lose)).sum()) / len(chosen)
        policy.tokens += sum(len(ids) for pair in chosen for ids in pair)
        norm = policy.norm()
        if not math.isfinite(norm) or not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"reward model, step {step}: the gradient is not finite; try a lower learning_rate"
            )
        return {**row, "grad_norm": norm}

    def _scores(self, pairs: Sequence[Sequence[list[int]]], policy: RewardModel) -> tuple[Tensor, ...]:
        """Return the scores of winners and of losers."""
        with computing(policy.group.device, policy.settings.precision):
            return self.scorer.scores([ids for side in zip(*pairs, strict=True) for ids in side]).chunk(2)


def _first_day(out: Path) -> str:
    """Return the date that a chat template wrote in the training in ``out``, which may be unfinished; else today."""
    try:
        log = out / "log.jsonl"
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
