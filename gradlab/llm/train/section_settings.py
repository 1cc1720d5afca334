"""The sections of a run's settings: supervised training, reference, LoRA, PPO, log; and their options' flat names."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from gradlab.losses.policy_gradient import KLEstimator

Baseline = Literal["group-mean", "leave-one-out"]
Level = Literal["sequence", "token"]


def optional(metavar: str, hint: str = "") -> Any:
    """Return how help shows an option that may be left out; ``hint``: what that means, where its text does not say."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


def from_recipe(metavar: str) -> Any:
    """Return how help shows an option that the recipe decides where it is left out."""
    return optional(metavar, "(left out: the recipe's)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedSettings:
    """Supervised training on the chosen responses, before all else."""

    epochs: float = 0.0
    """Epochs of supervised training; 0: none."""
    learning_rate: float = 1e-5
    """Learning rate of the supervised training."""
    turns: Literal["last", "all"] = "last"
    """Answers that are learned: the chosen responses, or also the assistant's earlier answers in their prompts. `all`
    needs a template with turns."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """The training by DPO that makes the reference."""

    steps: Annotated[int | None, from_recipe("INT")] = None
    """Steps of DPO that make the reference; 0: the model itself is the reference."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """A LoRA adapter, which is trained in place of all weights."""

    rank: int = 0
    """Train a LoRA adapter of this rank; 0: all weights."""
    alpha: float = 16.0
    """Scale α of the LoRA adapter, whose output is multiplied by α/rank."""
    targets: tuple[str, ...] = ("all-linear",)
    """Linear layers that get a LoRA adapter, by name, or `all-linear`."""
    dropout: float = 0.0
    """Dropout before the LoRA adapter, as a share."""
    base: Literal["whole", "4bit"] = "whole"
    """`4bit`: the base's linear layers in 4 bits (NF4), as QLoRA has them; needs bitsandbytes. The adapter fits the
    whole base too, which evaluation and merging take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Training by PPO, where `ppo` is among the losses."""

    reward: Annotated[str | None, optional("SPEC")] = None
    """PPO's reward, and only PPO's: a sequence classifier or a safe-rlhf score model, as folder or hub name
    (SPEC#LABEL names one of several outputs), MODULE:FUNCTION or FILE.py:FUNCTION. A function takes a list of prompts
    and a list of as many responses, all of them texts, and returns one number per response. Prompts are whole, also
    where `max_length` shortens what the model sees."""
    judge: Annotated[str | None, optional("SPEC")] = None
    """A second reward, as for `reward`, that judges PPO's samples and is never trained on: it shows a reward that is
    won at the cost of what was meant."""
    samples: int = 4
    """Responses that PPO samples per prompt, two or more."""
    length: int = 128
    """The most tokens in a response that PPO samples."""
    epochs: int = 1
    """Steps of PPO on each batch of samples."""
    clip: float = 0.2
    """ε of PPO's clipped surrogate."""
    baseline: Baseline = "group-mean"
    """The baseline of a reward: the mean over all responses of its prompt, or over the others (RLOO)."""
    normalize: bool = False
    """Divide rewards by their deviation among the responses of a prompt, as GRPO does; β then counts in deviations."""
    level: Level = "sequence"
    """The level at which there is a ratio π/π_old, a clip and a KL: a whole response has one, or each of its tokens."""
    kl: KLEstimator = "k1"
    """Estimate of the KL penalty: `k1`, log π/π_ref, is taken from the reward; `k2`, half its square, and `k3`, GRPO's,
    are terms of the loss."""
    unfinished_penalty: float = 0.0
    """Taken from the reward of a response that does not end by itself."""
    length_penalty: float = 0.0
    """Taken from the reward for each token of a response."""
    clip_reward: Annotated[float | None, optional("FLOAT")] = None
    """Rewards beyond ± this number count as it, before any penalty."""
    whiten: bool = False
    """Give the rewards of a batch mean 0 and standard deviation 1; β then counts in deviations."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The log, looks at the training on the way, and checkpoints."""

    sides_every: int = 50
    """Steps between two looks at the parameter gradient of each side; 0: none. Training does not depend on it."""
    validate_every: int = 50
    """Steps between two looks at the held-out pairs; 0: none."""
    samples_every: int = 50
    """Steps between two looks at the responses that PPO samples, in samples.jsonl and the log's copies: of a few
    prompts, first of those whose responses all have one reward; 0: none."""
    save_every: int = 200
    """Steps between two checkpoints; 0: only the finished stage is kept."""
    keep: int = 2
    """How many of the newest checkpoints are kept."""
    tensorboard: bool = False
    """Write the log for TensorBoard too, with samples in its tab "Text"."""
    wandb: bool = False
    """Send the log to Weights & Biases too, prompts and responses of PPO among it; it must be installed and set up."""


SECTIONS: dict[str, type] = {
    "sft": SupervisedSettings, "reference": ReferenceSettings, "lora": LoraSettings, "ppo": PPOSettings,
    "log": LogSettings,
}  # fmt: skip
_BARE = ("reward", "samples")  # options of PPO whose flat names do not begin with the section's name


def _flat_name(section: str, field: str) -> str:
    if section == "log" or field in _BARE:
        return field
    return "sample_length" if (section, field) == ("ppo", "length") else f"{section}_{field}"


# Options in sections, by their flat names. Logs and the records of finished stages use the flat names, which the
# options had before there were sections.
FLAT: dict[str, str] = {
    _flat_name(section, field.name): f"{section}.{field.name}"
    for section, kind in SECTIONS.items()
    for field in dataclasses.fields(kind)
}


def flat_defaults() -> dict[str, Any]:
    """Return the defaults of all options in sections, by their flat names."""
    parted = {flat: name.split(".") for flat, name in FLAT.items()}
    return {flat: getattr(SECTIONS[section](), field) for flat, (section, field) in parted.items()}
