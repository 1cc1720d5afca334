"""The stages of a run, each a training: supervised, the reference, then each loss; finished stages are skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.console import say
from gradlab.doctor.training_log import read_log
from gradlab.llm.data.batches import Partly, Row, lengths, pair_rows, seen_by, steps_an_epoch
from gradlab.llm.data.earlier_answers import AnswerMarks
from gradlab.llm.data.prepare import Data, prepare
from gradlab.llm.data.template_dates import fix_date
from gradlab.llm.data.tokens import Encoded, check_positions
from gradlab.llm.model import loading
from gradlab.llm.model.finished import write_done
from gradlab.llm.model.gguf_file import origin, whole_model
from gradlab.llm.model.group import Group, precision_on, start_group, whole_state
from gradlab.llm.model.rewards import check_reward, reward_code, reward_hash
from gradlab.llm.model.token_cache import TokenCache
from gradlab.llm.train.checkpoints import CHECKPOINTS, LOG, is_done, remove, sweep
from gradlab.llm.train.hidden_cache import HiddenCache
from gradlab.llm.train.loop import Look, Task, run_steps
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import reference_logps
from gradlab.llm.train.run_folder import caches, claim, date_of, describe
from gradlab.llm.train.run_settings import PPO, Settings, flat_defaults
from gradlab.llm.train.stage_log import ENDED
from gradlab.llm.train.start_model import start_model
from gradlab.llm.train.supervised_task import SupervisedTask
from gradlab.losses import DPO, BatchLoss, PairLoss, facts_of
from gradlab.losses.registry import definition, users_losses
from gradlab.store.files import sync
from gradlab.store.provenance import fingerprint

# Settings, by their flat names, that change the numbers of every stage. The data's settings and the stage's own steps
# and rate do so too; all others change the numbers by rounding only, or not at all.
_COMMON = (
    "batch", "seed", "precision", "reduction", "schedule", "warmup", "weight_decay", "max_norm",
    "lora_rank", "lora_alpha", "lora_targets", "lora_dropout",
)  # fmt: skip
# Settings that change PPO's numbers; the later ones only count where they differ from the default, so that runs from
# before they existed go on.
_OF_PPO = ("samples", "sample_length", "ppo_epochs", "ppo_clip")
_OF_PPO_LATER = (
    "ppo_baseline", "ppo_normalize", "ppo_level", "ppo_kl", "ppo_unfinished_penalty", "ppo_length_penalty",
    "ppo_clip_reward", "ppo_whiten",
)  # fmt: skip
_IN_HEADER = ("template", "max_length", "batch", "precision", "reduction", "schedule", "lora_rank", "init", "seed")


def train(settings: Settings, look: Look | None = None) -> list[Path]:
    """Train the stages that are not done yet; return the folders of the trained models, one per loss.

    look  sees the model of each stage after each step, see ``run_steps``.

    Files in ``settings.out``: ``data.json``; for each stage (``sft``, ``reference``, each loss's name) a folder with
    ``model/``, ``log.jsonl``, ``done.json``, and ``checkpoints/`` until it is done; ``cache/`` of the references.
    Raises ValueError, OSError or FloatingPointError with a message of one line; finished stages are kept.
    """
    if settings.log.wandb and find_spec("wandb") is None:
        raise ValueError(
            "wandb must be installed where the log goes there: pip install wandb, or leave --log.wandb out"
        )
    if settings.lora.base == "4bit" and find_spec("bitsandbytes") is None:
        raise ValueError(
            "bitsandbytes must be installed for a base in 4 bits: pip install bitsandbytes, or leave --lora.base out"
        )
    with start_group(settings.device) as group, contextlib.ExitStack() as stack:
        settings = dataclasses.replace(settings, model=group.on_all(lambda: whole_model(settings.model)))
        run = dataclasses.replace(Run.opened(settings, group, stack), look=look)
        base = reference = settings.model
        if settings.sft.epochs:
            base = reference = SupervisedStage(run, base).model()
        if settings.of("reference.steps"):
            reference = ReferenceStage(run, base, base).model()
        start = reference if settings.init == "reference" else base
        models = [loss_stage(run, text, start, reference).model() for text in settings.loss]
        return [Path(model).parent for model in models]


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings, data and processes, which all stages of a run share."""

    settings: Settings
    data: Data
    tokenizer: Any
    group: Group
    template_date: str | None = None
    """The date that the chat template writes, if it does."""
    look: Look | None = None
    """Sees the model of each stage after each step."""
    hidden: HiddenCache | None = None
    """Hidden states before the layers that are trained; all stages have those of the first model."""

    @classmethod
    def opened(cls, settings: Settings, group: Group, stack: contextlib.ExitStack) -> Run:
        """Read the run's data and take its folder, which no other run may use until the stack is closed."""
        for reward in filter(None, (settings.ppo.reward, settings.ppo.judge)):  # PPO comes last, after hours
            group.on_all(lambda spec=reward: check_reward(spec))
        tokenizer = group.on_all(lambda: loading.load_tokenizer(settings.model))
        date = group.on_main(lambda: date_of(settings.out, settings.template_date))
        settings = dataclasses.replace(settings.on(group.device), template_date=date.given)
        fix_date(tokenizer, date)
        written = date.written_by(tokenizer) if settings.template == "chat" else None
        data = group.on_main(lambda: prepare(settings.flat(), tokenizer, TokenCache(caches(settings))))
        group.on_main(lambda: claim(settings.out, stack))
        group.on_main(lambda: describe(settings, data, group, date, written))
        group.on_main(lambda: data.keep(TokenCache(caches(settings))))
        hidden = None if settings.train_from is None else group.on_main(lambda: hidden_cache(settings, group))
        return cls(settings, data, tokenizer, group, written, hidden=hidden)

    def steps(self, epochs: float) -> int:
        """Return the number of steps in epochs."""
        return math.ceil(epochs * steps_an_epoch(len(self.data.train), self.settings.batch))

    def start_model(self, source: str) -> Any:
        """Return a model to be trained, with its adapter where LoRA is asked for."""
        return self.group.on_all(lambda: start_model(source, self.settings, self.group, self.tokenizer))


class Stage(ABC):
    """A training of a run: its name, the values that its numbers depend on, its model and its task.

    start      the model that the training starts from.
    reference  the model whose log-probabilities are the reference's; None where no reference is needed.
    """

    name: str
    loss: PairLoss | None = None

    def __init__(self, run: Run, start: str, reference: str | None = None) -> None:
        self.run, self.start, self.reference = run, start, reference

    @property
    def steps(self) -> int:
        """Return the number of steps: that of training with a loss, unless the stage has another."""
        settings = self.run.settings
        return settings.steps or self.run.steps(settings.of("epochs"))

    @property
    def rate(self) -> float:
        """Return the highest learning rate."""
        return self.run.settings.of("learning_rate")

    @abstractmethod
    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that is to be trained, and the task that trains it."""

    def model(self) -> str:
        """Train, unless that has been done; return the folder of the trained model."""
        folder, group = self.run.settings.out / self.name, self.run.group
        decided = self.decided()
        key = fingerprint(self.name, decided)
        done = group.on_main(lambda: is_done(folder, key, decided))
        group.on_main(lambda: sweep(folder, done=done))
        if done:
            if group.is_main:
                say(f"{self.name}: done before, {folder}")
            return str(folder / "model")
        group.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
        weights = group.on_main(self.weights)
        _free()  # the model of the stage before
        policy, task = self.task()
        header = self.header(policy)
        summary = run_steps(policy, task, folder, key, header, self.name, self.run.look)
        self._finish(policy, folder, {"key": key, **header, **summary, "weights": weights}, decided)
        if group.is_main:
            say(f"{self.name}: {_in_words(summary)}, {folder}")
        return str(folder / "model")

    def decided(self) -> dict[str, Any]:
        """Return the values that the stage's numbers depend on, by names that a user knows; its key is made of them."""
        flat = self.run.settings.flat()
        sources = {source for source in (self.start, self.reference) if source}
        hashes = self.run.group.on_main(lambda: {source: loading.weights_hash(source) for source in sources})
        return {
            "steps": self.steps, "learning_rate": self.rate, "loss": repr(self.loss),
            "data": self.run.data.fingerprint, "start": hashes[self.start],
            "reference": hashes[self.reference] if self.reference else None, **{name: flat[name] for name in _COMMON},
            **({"micro": flat["micro"]} if isinstance(self.loss, BatchLoss) else {}), **self.own_definition(),
            **self.later(),
        }  # fmt: skip

    def later(self) -> dict[str, Any]:
        """Return the values of options that came later and that are not left out: the keys of older runs lack them."""
        settings = self.run.settings
        options = {"train_from": settings.train_from, "lora_base": settings.lora.base}
        return {name: value for name, value in options.items() if value not in (None, "whole")}

    def own_definition(self) -> dict[str, str]:
        """Return the hash of what a user's own loss computes; {} for a loss of gradlab's, and without a loss."""
        if self.loss is None or not users_losses([self.loss.name]):
            return {}
        return {"loss_definition": fingerprint(definition(self.loss))}

    def weights(self) -> dict[str, str | None]:
        """Return the hashes of the models without which this stage's model means nothing: adapter's base, reference."""
        lora = self.run.settings.lora.rank
        return {
            "base": loading.model_hash(loading.base_of(self.start)) if lora else None,
            "reference": loading.model_hash(self.reference) if self.reference else None,
        }

    def header(self, policy: PolicyModel) -> dict[str, Any]:
        """Return the log's first line: the facts about this training that readers of the log need."""
        settings, data = self.run.settings, self.run.data
        hyper = {} if self.loss is None else dataclasses.asdict(self.loss)  # type: ignore[arg-type]
        held_out = data.part(data.held_out)
        shorter = [len(pair.win) < len(pair.lose) for pair in held_out]
        ties = [len(pair.win) == len(pair.lose) for pair in held_out]
        facts = {"logistic": False} if self.loss is None else facts_of(self.loss)
        flat = settings.flat()
        return {
            "loss": self.name, "loss_facts": facts, **self.own_definition(), **hyper, **_made_whole(settings.model),
            "learning_rate": self.rate, "steps": self.steps, "start": self.start,
            "reference": self.reference, "parameters": _number(policy.plain.parameters()),
            "trained_parameters": _number(policy.parameters), "pairs": len(data.train),
            **data.overlap.header(), "hold_out": settings.hold_out if settings.validation is None else "file",
            "data": settings.data, "template_date": self.run.template_date,
            "length_baseline": (sum(shorter) + 0.5 * sum(ties)) / len(shorter) if shorter else None,
            **{name: flat[name] for name in _IN_HEADER}, **self.later(), "processes": policy.group.size,
        }  # fmt: skip

    def policy_of(self, source: str) -> PolicyModel:
        """Load the model named ``source``; return it as this stage trains it."""
        run = self.run
        model = run.start_model(source)
        check_positions(model.config, int(lengths(run.data.encoded).max()))
        policy = PolicyModel(
            model, run.group, run.settings, rate=self.rate, steps=self.steps, pad=run.tokenizer.pad_token_id,
            hidden=run.hidden,
        )  # fmt: skip
        policy.parts(pair_rows(run.data.encoded), run.settings.micro)  # ValueError where a pair is above the budget
        if run.hidden is not None:
            title = f"hidden states before layer {run.settings.train_from}"
            with frozen(policy):
                run.hidden.fill(self.seen(), policy.below, run.group, title=title)
        return policy

    def seen(self) -> Sequence[Encoded]:
        """Return the pairs that the stage computes log π of: those of its steps, and the held-out ones."""
        data, settings = self.run.data, self.run.settings
        used = seen_by(self.steps, len(data.train), settings.batch, settings.seed)
        return [*data.part(data.train[used]), *(data.part(data.held_out) if settings.log.validate_every else ())]

    def _finish(self, policy: PolicyModel, folder: Path, page: dict[str, Any], decided: dict[str, Any]) -> None:
        """Write the finished model, and ``done.json`` with ``page`` and ``decided``; remove the checkpoints."""
        weights = whole_state(policy.model)
        if policy.group.device.type == "cuda":
            page["peak_memory"] = torch.cuda.max_memory_allocated(policy.group.device)

        def write() -> None:
            loading.save_folder(folder / "model", policy.plain, self.run.tokenizer, weights)
            sync(folder / LOG)
            write_done(folder, {**page, "decided": decided}, ("model", LOG))
            remove(folder / CHECKPOINTS)

        policy.group.on_main(write)


class SupervisedStage(Stage):
    """Supervised training on the chosen responses."""

    name = "sft"

    @property
    def steps(self) -> int:
        """Return the number of steps in ``sft.epochs`` epochs."""
        return self.run.steps(self.run.settings.sft.epochs)

    @property
    def rate(self) -> float:
        """Return ``sft.learning_rate``, the highest learning rate."""
        return self.run.settings.sft.learning_rate

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the chosen responses as its task."""
        data = self.run.data
        train, held_out = (self._rows(data.part(part)) for part in (data.train, data.held_out))
        return self.policy_of(self.start), SupervisedTask(train, held_out, texts=data.train_texts)

    def decided(self) -> dict[str, Any]:
        """Return the values that the stage's numbers depend on, with the answers that are learned if these are all."""
        turns = self.run.settings.sft.turns
        return {**super().decided(), **({} if turns == "last" else {"sft_turns": turns})}

    def _rows(self, pairs: Sequence[Encoded]) -> list[Row]:
        """Return prompts and chosen responses, with earlier answers where they are to be learned too."""
        run = self.run
        if run.settings.sft.turns == "last":
            return [(pair.prompt, pair.win) for pair in pairs]
        marks = AnswerMarks.of(run.tokenizer, run.settings.template)
        rows = [marks.row(pair.prompt, pair.win) for pair in pairs]
        if run.group.is_main:
            number = sum(isinstance(row[1], Partly) for row in rows)
            say(f"sft: {number:,} of {len(rows):,} pairs have earlier answers, which are learned too")
        return rows


class PairStage(Stage):
    """Training with a preference loss, against a reference."""

    reference: str

    def __init__(self, run: Run, start: str, reference: str, loss: PairLoss) -> None:
        super().__init__(run, start, reference)
        self.name, self.loss = loss.name, loss

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the pairs as its task."""
        assert self.loss is not None
        data = self.run.data
        policy, train_ref, held_out_ref = scored(self, "train", "held_out")
        train, held_out = data.part(data.train), data.part(data.held_out)
        return policy, PairTask(self.loss, train, train_ref, held_out, held_out_ref, data.train_texts)


class ReferenceStage(PairStage):
    """Training by DPO that makes the reference."""

    def __init__(self, run: Run, start: str, reference: str) -> None:
        super().__init__(run, start, reference, DPO(run.settings.of("beta")))
        self.name = "reference"

    @property
    def steps(self) -> int:
        """Return ``reference.steps``, or the recipe's where that is left out."""
        return self.run.settings.of("reference.steps")


class PPOStage(Stage):
    """Training by PPO, on responses that the model samples."""

    name = PPO
    reference: str

    def model(self) -> str:
        """Train, unless that has been done; say first where the file of the reward was edited after the start."""
        self.run.group.on_main(self._say_edited)
        return super().model()

    def header(self, policy: PolicyModel) -> dict[str, Any]:
        """Return the log's first line, with PPO's settings, and the hash of the reward's file if FILE.py:FUNCTION."""
        settings, flat = self.run.settings, self.run.settings.flat()
        return {
            **super().header(policy), "beta": settings.of("beta"), "ppo_reward": settings.ppo.reward,
            "ppo_judge": settings.ppo.judge, **{name: flat[name] for name in (*_OF_PPO, *_OF_PPO_LATER)},
            "reward_code": reward_code(str(settings.ppo.reward)),
        }  # fmt: skip

    def _say_edited(self) -> None:
        """Say where the reward's file is no longer that of the log: a repair may be wanted, so it is no error."""
        folder, spec = self.run.settings.out / self.name, str(self.run.settings.ppo.reward)
        try:
            known = read_log(folder / LOG).attrs["settings"].get("reward_code") if (folder / LOG).is_file() else None
        except (OSError, ValueError):  # a damaged log, which is said elsewhere
            return
        if known and known != reward_code(spec):
            say(
                f"gradlab: the file of reward {spec} was edited after {folder} began; what was trained before keeps "
                "the former rewards",
                file=sys.stderr,
            )

    def decided(self) -> dict[str, Any]:
        """Return the values that the stage's numbers depend on, with PPO's settings and the hash of the reward."""
        settings = self.run.settings
        reward = self.run.group.on_main(lambda: reward_hash(str(settings.ppo.reward)))
        flat, usual = settings.flat(), flat_defaults()
        later = {name: flat[name] for name in _OF_PPO_LATER if flat[name] != usual[name]}
        return {
            **super().decided(), "reward": reward, **{name: flat[name] for name in _OF_PPO}, **later,
            "beta": settings.of("beta"),
        }  # fmt: skip

    def seen(self) -> Sequence[Encoded]:
        """Return the held-out pairs: the steps are on responses of the model's own."""
        return self.run.data.part(self.run.data.held_out) if self.run.settings.log.validate_every else []

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the prompts with their reward as its task."""
        from gradlab.llm.train.ppo_task import PPOTask, frozen_reference

        run = self.run
        policy, held_out_ref = scored(self, "held_out")
        reference = frozen_reference(self.reference, self.start, policy, run.start_model)
        return policy, PPOTask.prepared(policy, run.data, run.tokenizer, reference, held_out_ref)


def loss_stage(run: Run, text: str, start: str, reference: str) -> Stage:
    """Return the stage that trains by the loss that a text names, or by PPO."""
    if text == PPO:
        return PPOStage(run, start, reference)
    return PairStage(run, start, reference, run.settings.loss_of(text))


def scored(stage: PairStage | PPOStage, *parts: str) -> tuple[Any, ...]:
    """Return the model that a stage starts from, and log π_ref of the pairs in each of these parts of the data."""
    policy = stage.policy_of(stage.reference)  # scores the pairs before training, or before it makes room for ``start``
    logps = [_reference_logps(stage, policy, part) for part in parts]
    if stage.reference != stage.start:
        del policy
        _free()
        policy = stage.policy_of(stage.start)
    return policy, *logps


def _reference_logps(stage: PairStage | PPOStage, policy: PolicyModel, part: str) -> Tensor:
    """Return log π_ref of both sides of each pair in a part of the data, (N, 2), from the cache where that has it.

    It is NaN for training pairs that no step of the stage sees, and for held-out pairs where nothing looks at them.
    """
    run = stage.run
    settings, data = run.settings, run.data
    cache = fingerprint(
        run.group.on_main(lambda: loading.weights_hash(stage.reference)), data.fingerprint, part, settings.precision,
        settings.reduction, *stage.later().values(),
    )  # fmt: skip
    folder = Path(stage.reference).parent
    name = folder.name if folder.parent == settings.out else "model"  # stages with one reference share its cache
    number = len(getattr(data, part))
    used = seen_by(stage.steps, number, settings.batch, settings.seed) if part == "train" else np.arange(number)
    if part == "held_out" and not settings.log.validate_every:
        used = used[:0]
    file = caches(settings) / f"{name}-{part}{f'-{cache}' if settings.cache else ''}.safetensors"
    with frozen(policy):
        return reference_logps(
            file, cache, policy, data.part(getattr(data, part)), run.group, used=used, pad=policy.pad,
            micro=settings.micro, budget=settings.tokens_per_micro, layout=policy.layout,
            title=f"reference, {part.replace('_', '-')} pairs",
        )  # fmt: skip


def hidden_cache(settings: Settings, group: Group) -> HiddenCache:
    """Return the cache of hidden states of the settings' model, which all that decides them names."""
    spread_out = group.size > 1 and settings.distribution == "fsdp"
    kinds = precision_on(group.device, settings.precision), bool(settings.lora.rank), spread_out, group.device.type
    bits = [] if settings.lora.base == "whole" else [settings.lora.base]
    key = fingerprint("hidden states", 1, loading.weights_hash(settings.model), settings.train_from, *kinds, *bits)
    return HiddenCache(caches(settings) / f"hidden-{key}", key)


def _in_words(summary: dict[str, Any]) -> str:
    """Return the summary of a finished training in words."""
    words = [f"{summary['steps']} steps"]
    if summary["tokens"]:  # 0 where the training had been stopped after its last step, and no step was left
        words.append(f"{summary['tokens'] / summary['seconds']:,.0f} tokens per second")
    words += [f"{name.replace('_', ' ')} {summary[name]:.3f}" for name in ENDED if name in summary]
    return ", ".join(words)


def _number(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _free() -> None:
    """Free the memory of models that are no longer used, before the next is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _made_whole(model: str) -> dict[str, str]:
    """Return from which quantised weights the run's first model was made; {} for any other model."""
    said = origin(model)
    return {"model_weights": said} if said else {}
