"""A whole run, stage by stage: supervised, the reference, then each loss; finished stages are skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from gradlab.llm.data.batches import steps_an_epoch
from gradlab.llm.data.prepare import DECIDING, Data, prepare
from gradlab.llm.data.tokens import check_positions, check_vocabulary
from gradlab.llm.model import loading
from gradlab.llm.model.group import Group, start_group, whole_state
from gradlab.llm.model.rewards import check_reward, reward_hash
from gradlab.llm.train.checkpoints import DONE, differences, is_done
from gradlab.llm.train.loop import ENDED, PairTask, SupervisedTask, lengths, run_steps
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import reference_logps
from gradlab.llm.train.run_settings import PPO, Settings
from gradlab.losses import DPO, PairLoss, facts_of
from gradlab.store.artifacts import write_whole
from gradlab.store.provenance import fingerprint

# Settings that change a stage's numbers, beside its own and the data's; the others change them by rounding, or not.
_COMMON = (
    "batch", "seed", "precision", "reduction", "schedule", "warmup", "weight_decay", "max_norm",
    "lora_rank", "lora_alpha", "lora_targets", "lora_dropout",
)  # fmt: skip
_PPO = ("reward", "samples", "sample_length", "ppo_epochs", "ppo_clip")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training: what starts it, what it is compared with, and for how long."""

    name: str
    start: str
    """The model that it starts from."""
    steps: int
    rate: float
    loss: PairLoss | None = None
    """None: supervised, or PPO."""
    reference: str | None = None
    """The model whose log-probabilities are the reference's; None: none is needed."""


def train(settings: Settings) -> list[Path]:
    """Do whatever of the run is not done yet; the folders of the trained models, one a loss.

    Files in ``settings.out``: ``data.json``; for each stage (``sft``, ``reference``, each loss's name) a folder with
    ``model/``, ``log.jsonl``, ``done.json``, and ``checkpoints/`` until it is done; ``cache/`` of the references.
    One clear line as ValueError, OSError or FloatingPointError where something is wrong; what was finished is kept.
    """
    if settings.wandb and find_spec("wandb") is None:
        raise ValueError("wandb must be installed where the log goes there: pip install wandb, or leave --wandb out")
    with start_group(settings.device) as group, contextlib.ExitStack() as stack:
        group.on_all(lambda: settings.reward and check_reward(settings.reward))  # PPO comes last, after hours
        tokenizer = group.on_all(lambda: loading.load_tokenizer(settings.model))
        data = group.on_all(lambda: prepare(dataclasses.asdict(settings), tokenizer))
        group.on_main(lambda: _claim(settings.out, stack))
        group.on_main(lambda: _describe(settings, data, group))
        base = reference = settings.model
        rate = settings.of("learning_rate")
        if settings.sft_epochs:
            steps = math.ceil(settings.sft_epochs * steps_an_epoch(len(data.train), settings.batch))
            base = reference = _run(
                Stage("sft", base, steps, settings.sft_learning_rate), settings, data, tokenizer, group
            )
        if settings.of("reference_steps"):
            stage = Stage("reference", base, settings.of("reference_steps"), rate, DPO(settings.of("beta")), base)
            reference = _run(stage, settings, data, tokenizer, group)
        steps = settings.steps or math.ceil(settings.of("epochs") * steps_an_epoch(len(data.train), settings.batch))
        start = reference if settings.init == "reference" else base
        made = []
        for name in settings.loss:
            loss = None if name == PPO else settings.made(name)
            made.append(_run(Stage(name, start, steps, rate, loss, reference), settings, data, tokenizer, group))
        return [Path(model).parent for model in made]


def _run(stage: Stage, settings: Settings, data: Data, tokenizer: Any, group: Group) -> str:
    """Train one stage unless it is done; its model's folder."""
    folder = settings.out / stage.name
    decided = _decided(stage, settings, data, group)
    key = fingerprint(stage.name, decided)
    if group.on_main(lambda: is_done(folder, key, decided)):
        if group.is_main:
            print(f"{stage.name}: done before, {folder}")
        return str(folder / "model")
    group.on_main(lambda: folder.mkdir(parents=True, exist_ok=True))
    _free()  # of the stage before
    policy, task = _prepared(stage, settings, data, tokenizer, group)
    header = _header(stage, settings, data, policy)
    said = run_steps(policy, task, folder, key, header, stage.name)
    weights = whole_state(policy.model)
    if group.device.type == "cuda":
        said["peak_memory"] = torch.cuda.max_memory_allocated(group.device)

    def finish() -> None:
        loading.save_folder(folder / "model", policy.plain, tokenizer, weights)
        page = {"key": key, **header, **said, "decided": decided}
        write_whole({folder / DONE: json.dumps(page, indent=1, default=str) + "\n"})
        loading.remove(folder / "checkpoints")

    group.on_main(finish)
    if group.is_main:
        words = [f"{said['steps']} steps"]
        if said["tokens"]:  # some are left, after it was stopped at the very end, for none
            words.append(f"{said['tokens'] / said['seconds']:,.0f} tokens a second")
        words += [f"{name.replace('_', ' ')} {said[name]:.3f}" for name in ENDED if name in said]
        print(f"{stage.name}: {', '.join(words)}, {folder}")
    return str(folder / "model")


def _prepared(stage: Stage, settings: Settings, data: Data, tokenizer: Any, group: Group) -> tuple[PolicyModel, Any]:
    """The policy, and what it is to be trained on."""
    pad = tokenizer.pad_token_id

    def policy_of(source: str) -> PolicyModel:
        model = group.on_all(lambda: _loaded(source, settings, group, tokenizer))
        check_positions(model.config, int(lengths(data.encoded).max()))
        return PolicyModel(model, group, settings, rate=stage.rate, steps=stage.steps, pad=pad)

    def scored(policy: PolicyModel, part: str) -> torch.Tensor:
        assert stage.reference is not None
        pairs = data.part(getattr(data, part))
        cache = fingerprint(
            group.on_main(lambda: loading.weights_hash(str(stage.reference))), data.fingerprint, part,
            settings.precision, settings.reduction,
        )  # fmt: skip
        folder = Path(stage.reference).parent
        name = folder.name if folder.parent == settings.out else "model"  # one cache for all that share a reference
        with frozen(policy):
            return reference_logps(
                settings.out / "cache" / f"{name}-{part}.safetensors", cache, policy, pairs, group,
                pad=pad, micro=2 * settings.micro, title=f"reference, {part.replace('_', '-')} pairs",
            )  # fmt: skip

    texts = [data.pairs[index] for index in data.train]
    if stage.loss is None and stage.name != PPO:
        rows = {
            part: [(one.prompt, one.win) for one in data.part(getattr(data, part))] for part in ("train", "held_out")
        }
        return policy_of(stage.start), SupervisedTask(**rows, texts=texts)
    assert stage.reference is not None
    policy = policy_of(stage.reference)  # scores before it is trained, or in the place of the one that is
    parts = ("held_out",) if stage.loss is None else ("train", "held_out")
    refs = {f"{part}_ref": scored(policy, part) for part in parts}
    if stage.reference != stage.start:
        del policy
        _free()
        policy = policy_of(stage.start)
    if stage.loss is None:
        from gradlab.llm.train.ppo_task import PPOTask, frozen_reference

        reference = frozen_reference(
            stage.reference, stage.start, policy, lambda source: _loaded(source, settings, group, tokenizer)
        )
        return policy, PPOTask.prepared(policy, data, tokenizer, reference, refs["held_out_ref"])
    return policy, PairTask(stage.loss, data.part(data.train), held_out=data.part(data.held_out), texts=texts, **refs)


def _loaded(source: str, settings: Settings, group: Group, tokenizer: Any) -> Any:
    """A model to be trained, with its adapter where LoRA is asked for."""
    spread_out = group.size > 1 and settings.distribution == "fsdp"
    # An adapter's base is not trained, so bfloat16 is enough; FSDP wants one type for all.
    half = settings.precision == "bf16" and settings.lora_rank and not spread_out
    model = loading.load_model(
        source, dtype=torch.bfloat16 if half else torch.float32, trainable=True, meta=spread_out and not group.is_main
    )
    check_vocabulary(tokenizer, model.config)
    loading.without_dropout(model)
    adapters = getattr(model, "peft_config", {})
    if adapters:
        own_config = adapters["default"]
        there = {
            "lora_rank": own_config.r,
            "lora_alpha": own_config.lora_alpha,
            "lora_dropout": own_config.lora_dropout,
        }
        for name, value in there.items():
            if value != getattr(settings, name):
                raise ValueError(
                    f"{name} must be that of the adapter in {source}, {value:g}, got {getattr(settings, name):g}"
                )
    elif settings.lora_rank:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = loading.with_lora(
                model, settings.lora_rank, settings.lora_alpha, settings.lora_targets, settings.lora_dropout
            )
    return model


def _decided(stage: Stage, settings: Settings, data: Data, group: Group) -> dict[str, Any]:
    """What the stage's numbers depend on, by names that its user knows."""
    own_settings = {name: getattr(settings, name) for name in (*_COMMON, *(_PPO if stage.name == PPO else ()))}
    if stage.name == PPO:
        own_settings["beta"] = settings.of("beta")
        own_settings["reward"] = group.on_main(lambda: reward_hash(str(settings.reward)))
    hashes = group.on_main(lambda: {one: loading.weights_hash(one) for one in {stage.start, stage.reference} if one})
    return {
        "steps": stage.steps, "learning_rate": stage.rate, "loss": repr(stage.loss), "data": data.fingerprint,
        "start": hashes.get(stage.start), "reference": hashes.get(stage.reference), **own_settings,
    }  # fmt: skip


def _header(stage: Stage, settings: Settings, data: Data, policy: PolicyModel) -> dict[str, Any]:
    """What the log says of the run in its first line."""
    hyper = {} if stage.loss is None else dataclasses.asdict(stage.loss)  # type: ignore[arg-type]
    numbers = [sum(one.numel() for one in group) for group in (policy.plain.parameters(), policy.parameters)]
    shorter = [len(pair.win) < len(pair.lose) for pair in data.part(data.held_out)]
    ties = [len(pair.win) == len(pair.lose) for pair in data.part(data.held_out)]
    chosen = ("template", "max_length", "batch", "precision", "reduction", "schedule", "lora_rank", "init", "seed")
    return {
        "loss": stage.name, "loss_facts": {"logistic": False} if stage.loss is None else facts_of(stage.loss), **hyper,
        "learning_rate": stage.rate, "steps": stage.steps, "start": stage.start,
        "reference": stage.reference, "parameters": numbers[0], "trained_parameters": numbers[1],
        "pairs": len(data.train), "validation_pairs": len(data.held_out), "data": settings.data,
        "length_baseline": (sum(shorter) + 0.5 * sum(ties)) / len(shorter) if shorter else None,
        **{name: getattr(settings, name) for name in chosen}, "processes": policy.group.size,
    }  # fmt: skip


def _claim(out: Path, stack: contextlib.ExitStack) -> None:
    """Make the run's folder, and keep other runs out of it until the stack is closed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"out must be a folder, or a name for one, got {out}") from None
    try:
        stack.enter_context(FileLock(out / ".lock", timeout=0))
    except Timeout:
        raise ValueError(f"out must be a folder that no other run is using, got {out}") from None


def _describe(settings: Settings, data: Data, group: Group) -> None:
    """Write what the data are, and say what became of them."""
    print(data.report)
    print(f"{len(data.train)} pairs to train on, {len(data.held_out)} held out")
    if settings.validation is None and len(data.held_out) >= len(data.train):
        print("as many pairs are held out as are trained on, or more; held_out says how many")
    if group.size > settings.batch:
        print(f"{group.size - settings.batch} of {group.size} processes have nothing to do: batch is {settings.batch}")
    if data.seen:
        print(f"{data.seen} held-out pairs are among those to train on too, so they show less than they seem to")
    page = {
        "settings": {name: getattr(settings, name) for name in DECIDING}, "fingerprint": data.fingerprint,
        "report": dataclasses.asdict(data.report), "model": settings.model,
    }  # fmt: skip
    file = settings.out / "data.json"
    if file.exists():
        try:
            before = json.loads(file.read_text("utf-8"))
            other, changed = (
                before["fingerprint"] != data.fingerprint,
                differences(before["settings"], page["settings"]),
            )
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file} is damaged; name another out, or remove {settings.out}") from None
        if other:
            raise ValueError(f"{settings.out} holds a run on other data{changed}; name another out, or remove it")
    write_whole({file: json.dumps(page, indent=1, ensure_ascii=False) + "\n"})


def _free() -> None:
    """Let go of a model before the next one comes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
