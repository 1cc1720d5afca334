"""A stage of a run: a training with its name, its model, its log and what its numbers depend on."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gradlab.console import say
from gradlab.doctor.training_log import LOG
from gradlab.llm.data.batches import lengths, pair_rows, seen_by, steps_per_epoch
from gradlab.llm.data.prepare import Data, prepare
from gradlab.llm.data.template_dates import fix_date
from gradlab.llm.data.tokens import Encoded, check_positions
from gradlab.llm.model import loading
from gradlab.llm.model.finished import write_done
from gradlab.llm.model.group import Group, precision_on, whole_state
from gradlab.llm.model.origins import origin
from gradlab.llm.model.rewards import check_reward
from gradlab.llm.model.token_cache import TokenCache
from gradlab.llm.train import peak_memory
from gradlab.llm.train.checkpoints import is_done, remove_checkpoints, sweep
from gradlab.llm.train.hidden_cache import HiddenCache
from gradlab.llm.train.loop import Look, Task, run_steps
from gradlab.llm.train.measures import beta_of_rewards
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.run_folder import caches, claim, date_of, describe
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.stage_log import ENDED
from gradlab.llm.train.start_model import start_model
from gradlab.losses import BatchLoss, PairLoss, facts_of
from gradlab.losses.definition import definition
from gradlab.losses.registry import users_losses
from gradlab.store.files import sync
from gradlab.store.provenance import fingerprint

# Settings, by their flat names, that change the numbers of every stage. The data's settings and the stage's own steps
# and rate do so too; all others change the numbers by rounding only, or not at all.
_COMMON = (
    "batch", "seed", "precision", "reduction", "schedule", "warmup", "weight_decay", "max_norm",
    "lora_rank", "lora_alpha", "lora_targets", "lora_dropout",
)  # fmt: skip
_IN_HEADER = ("template", "max_length", "batch", "precision", "reduction", "schedule", "lora_rank", "init", "seed")


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
        return math.ceil(epochs * steps_per_epoch(len(self.data.train), self.settings.batch))

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
        free_memory()  # the model of the stage before
        peak_memory.begin(group.device)
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
        """Return the values of options that older runs lacked, where they are set: so older runs keep their keys."""
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
            **({} if self.loss is None else {"beta": beta_of_rewards(self.loss)}),
            "loss": self.name, "loss_facts": facts, **self.own_definition(), **hyper, **_made_whole(settings.model),
            "learning_rate": self.rate, "steps": self.steps, "start": self.start,
            "reference": self.reference, "parameters": _number(policy.plain.parameters()),
            "trained_parameters": _number(policy.parameters), "pairs": len(data.train),
            **data.overlap.header(), "hold_out": settings.hold_out if settings.validation is None else "file",
            "data": settings.data, "template_date": self.run.template_date,
            **({"response_tokens": _response_tokens(data)} if settings.reduction == "mean" else {}),
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
        peak = peak_memory.reached(policy.group.device)
        if peak is not None:
            page["peak_memory"] = peak

        def write() -> None:
            loading.save_folder(folder / "model", policy.plain, self.run.tokenizer, weights)
            sync(folder / LOG)
            write_done(folder, {**page, "decided": decided}, ("model", LOG))
            remove_checkpoints(folder)

        policy.group.on_main(write)


def hidden_cache(settings: Settings, group: Group) -> HiddenCache:
    """Return the cache of hidden states of the settings' model; its name is a hash of all that the states depend on."""
    kinds = kinds_of(settings, group)
    bits = [] if settings.lora.base == "whole" else [settings.lora.base]
    key = fingerprint("hidden states", 1, loading.weights_hash(settings.model), settings.train_from, *kinds, *bits)
    return HiddenCache(caches(settings) / f"hidden-{key}", key)


def kinds_of(settings: Settings, group: Group) -> tuple[str, bool, bool, str]:
    """Return what decides in which types a model computes: precision, whether LoRA, whether spread out, device.

    In bf16, LoRA's base is in bfloat16, while weights that are all trained stay in float32, see ``start_model``.
    """
    precision = precision_on(group.device, settings.precision)
    return precision, bool(settings.lora.rank), group.spreads(settings.distribution), group.device.type


def _in_words(summary: dict[str, Any]) -> str:
    """Return the summary of a finished training in words."""
    words = [f"{summary['steps']} steps"]
    if summary["tokens"]:  # 0 where the training had been stopped after its last step, and no step was left
        words.append(f"{summary['tokens'] / summary['seconds']:,.0f} tokens per second")
    words += [f"{name.replace('_', ' ')} {summary[name]:.3f}" for name in ENDED if name in summary]
    return ", ".join(words)


def _response_tokens(data: Data) -> float:
    """Return the mean length of the responses that are trained on, of both sides: it turns means of log π into sums."""
    return float(data.part(data.train).sizes[:, 1:].mean())


def _number(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def free_memory() -> None:
    """Free the memory of models that are no longer used, before the next is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _made_whole(model: str) -> dict[str, str]:
    """Return from which quantised weights the run's first model was made; {} for any other model."""
    said = origin(model)
    return {"model_weights": said} if said else {}
