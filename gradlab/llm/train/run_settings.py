"""The settings of a training run: options, their sections, and the recipes behind them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import torch
import tyro

from gradlab.checks import between, count, number_of, one_of, positive
from gradlab.given_once import named_texts
from gradlab.llm.data.hold_out import HoldOut
from gradlab.llm.data.pair_forms import CHOICES
from gradlab.llm.data.template_dates import check_date
from gradlab.llm.data.templates import Template
from gradlab.llm.model.group import AskedPrecision, precision_on
from gradlab.llm.model.loading import located
from gradlab.llm.model.logps import CHUNK
from gradlab.llm.train.reductions import check_reduction
from gradlab.llm.train.section_settings import (
    FLAT,
    SECTIONS,
    LogSettings,
    LoraSettings,
    PPOSettings,
    ReferenceSettings,
    SupervisedSettings,
    from_recipe,
    optional,
)
from gradlab.llm.train.toml_values import kind_of
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, BatchLoss, PairLoss, from_text, hyper_parameters, is_own

PPO = "ppo"
_FOLDERS = ("sft", "reference", PPO, "cache")  # a run's folders that a user's loss must not take
# Values of options that are left out. The paper states beta, clip (naive variants), epochs and reference.steps of
# `paper`; its learning rate, and all of `gentle`, are ours.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"beta": 1.0, "clip": 0.3, "epochs": 2.0, "reference.steps": 300, "learning_rate": 1e-6},
    "gentle": {"beta": 0.1, "clip": 0.3, "epochs": 1.0, "reference.steps": 0, "learning_rate": 5e-7},
}
# Losses for which a recipe's β is meant: the paper's, kin of DPO whose β means the same, and bDPO's kin and controls of
# gradlab's own, which are to be compared with it. Other papers' losses keep the β that their authors chose.
OF_RECIPES = (
    "dpo", "cdpo", "ipo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight", "relative-bdpo", "length-dpo",
)  # fmt: skip
_NUMBER = "NAME=VALUE with a number"
_NONE = tyro.conf.arg(help_behavior_hint="(default: none)")


def _share(words: Sequence[str]) -> float:
    """Return the share that an option's words say; the option alone says 1."""
    if len(words) > 1:
        raise ValueError(f"one share at most, got {' '.join(words)}")
    return number_of("a share", float, words[0]) if words else 1.0


# A share that was once a flag, and may still be given as one.
_SHARE = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[SHARE]",
    instance_from_str=_share,
    is_instance=lambda value: isinstance(value, bool | float),
    str_from_instance=lambda value: [f"{value:g}"],
)


def _recipes() -> str:
    """Return the recipes in words."""
    recipes = (
        f"`{name}`: " + ", ".join(f"{option.replace('_', '-')} {value:g}" for option, value in recipe.items())
        for name, recipe in RECIPES.items()
    )
    ours = "Learning rates and all of `gentle`, which is near what others use for DPO, are ours."
    return f"Values of options that are left out. {'; '.join(recipes)}. {ours}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Train a causal language model on preference pairs, stage by stage: supervised, reference, then each loss.

    Finished stages are skipped and interrupted ones resumed, with the same numbers. Started by torchrun it uses all
    processes, one per GPU.
    """

    model: str
    """A folder with a transformers model in safetensors, a GGUF file (its weights are made whole), or a hub's name."""
    data: str
    """Preference pairs: a .jsonl, .jsonl.gz or .parquet file, or a hub's name."""
    out: Path
    """The folder for everything that the run makes."""
    loss: tuple[str, ...] = ("bdpo",)
    """Losses to train with, in turn, all from one reference: names of `gradlab losses`, FILE.py:CLASS or MODULE:CLASS
    for a loss of your own, or `ppo`. Numbers may follow a name: `nbdpo:beta=0.5,clip=0.2`."""
    recipe: Annotated[Literal["paper", "gentle"], tyro.conf.arg(help=_recipes())] = "paper"
    """Values of options that are left out, see ``RECIPES``."""

    # The data.
    choice: Annotated[str | None, optional("{" + ",".join(CHOICES) + "}")] = None
    """Which preference of PKU-SafeRLHF counts; needed there, and there only."""
    split: str = "train"
    """Split of a data set from a hub."""
    limit: Annotated[int | None, optional("INT", "(left out: all)")] = None
    """Read only the first usable pairs of the data, this many; the validation file is read whole."""
    template: Template = "plain"
    """How prompt and response become one text: as they are, by the tokenizer's chat template, or safe-rlhf's."""
    template_date: Annotated[str | None, optional("YYYY-MM-DD", "(left out: the day of the first start)")] = None
    """The date that a chat template writes as today's. A run keeps its date, also when it goes on or is evaluated."""
    max_length: int = 512
    """Tokens of prompt and response together; what is longer is cut, and counted. A chat loses whole turns, oldest
    first."""
    max_prompt: Annotated[int | None, optional("INT")] = None
    """Tokens that a prompt keeps where the whole is too long; left out: half of max_length."""
    validation: Annotated[str | None, optional("PAIRS")] = None
    """Held-out pairs; left out: `held_out` pairs of the data, drawn by the seed."""
    held_out: int = 200
    """About how many pairs of the data are held out where there is no validation file."""
    hold_out: HoldOut = "prompts"
    """How they are drawn: `prompts`, all pairs of a prompt on one side, so that held-out prompts are new to the model;
    `pairs`, each pair by itself. Prompts with the same last message of the user count as one."""

    # The stages.
    sft: SupervisedSettings = SupervisedSettings()
    """Supervised training on the chosen responses, before all else."""
    reference: ReferenceSettings = ReferenceSettings()
    """The training by DPO that makes the reference."""
    init: Literal["reference", "base"] = "reference"
    """Where a loss starts: at the reference (our reading of the paper), or at the model before it."""
    epochs: Annotated[float | None, from_recipe("FLOAT")] = None
    """Epochs of training with each loss."""
    steps: Annotated[int | None, optional("INT")] = None
    """Steps of training with each loss, instead of epochs."""

    # The losses.
    beta: Annotated[float | None, from_recipe("FLOAT")] = None
    """Inverse temperature β; of PPO, the weight of the KL penalty. A recipe's β is for PPO, DPO, cDPO, IPO, the paper's
    losses, and fixed-weight, length-dpo and relative-bdpo; any other loss then keeps its own, which `gradlab losses
    KEY` prints."""
    hyper: Annotated[tuple[str, ...], _NONE] = ()
    """Other hyper-parameters, as NAME=VALUE; each goes to the losses that have it, and one or more must."""
    reduction: Literal["sum", "mean"] = "sum"
    """log π of a response: the sum over its tokens, as the paper's weights need it, or their mean. Losses that take
    means by themselves, such as simpo, need the sum."""

    # The optimiser.
    learning_rate: Annotated[float | None, from_recipe("FLOAT")] = None
    """Highest learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the rate falls after the warm-up, down to a tenth."""
    warmup: float = 0.1
    """Share of the steps in which the rate rises."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    batch: int = 64
    """Pairs per step, over all processes."""
    micro: int = 4
    """Pairs that one process holds at a time; without dropout the numbers depend on it by rounding only. But a loss of
    batches, such as `kto`, takes just these pairs as its batch, and PPO draws other samples."""
    tokens_per_micro: Annotated[int | None, optional("INT")] = None
    """Tokens that one process holds at a time, padding included, in place of `micro` pairs: short pairs then fill the
    device as long ones do. It must be at least the longest pair; a loss of batches needs `micro`."""

    # The model and the machines.
    precision: AskedPrecision = "auto"
    """`bf16`: computes in bfloat16, and keeps weights that are trained in float32. `auto`: bf16 on a GPU, and fp32 on a
    CPU, where bf16 may be many times slower."""
    distribution: Literal["ddp", "fsdp"] = "fsdp"
    """Over several processes: each has the whole model, or a part of it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where there is one."""
    gradient_checkpointing: Annotated[bool | float, _SHARE] = 0.0
    """Share of the layers, from the first on, that keep few activations and compute the others again: less memory, more
    time. Without a number (`true` in a file): all layers."""
    chunk: int = CHUNK
    """Tokens whose logits exist at one time."""
    train_from: Annotated[int | None, optional("LAYER")] = None
    """Train only the layers from this one on (the first is 0) and the final norm, all weights or LoRA. The layers below
    are computed once per pair, and their hidden states kept in the cache; embeddings and output stay as they are."""
    cache: Annotated[Path | None, optional("FOLDER", "(left out: `cache` in the run's folder)")] = None
    """The folder of log-probabilities under references and of hidden states. Several runs may share it."""
    seed: int = 0
    """Draws the held-out pairs, the order of the data, dropout, and PPO's samples."""

    # The sections of one kind of training, and of the log.
    lora: LoraSettings = LoraSettings()
    """A LoRA adapter, which is trained in place of all weights."""
    ppo: PPOSettings = PPOSettings()
    """Training by PPO, where `ppo` is among the losses."""
    log: LogSettings = LogSettings()
    """The log, looks at the training on the way, and checkpoints."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", located(self.model))
        for name, hint in _hints().items():
            kind, value = kind_of(hint), self.get(name)
            if get_origin(kind) is Literal and not (value is None and kind is not hint):
                one_of(name, value, get_args(kind))
        check_date("template_date", self.template_date)
        if self.choice is not None:
            one_of("choice", self.choice, CHOICES)
        for name in ("max_length", "batch", "micro", "ppo.samples", "ppo.length", "ppo.epochs", "chunk", "log.keep"):
            count(name, self.get(name), 1)
        looks = ("log.sides_every", "log.validate_every", "log.samples_every", "log.save_every")
        for name in ("held_out", *looks, "lora.rank", "seed"):
            count(name, self.get(name))
        for name in ("max_norm", "ppo.clip", "lora.alpha", "sft.learning_rate"):
            positive(name, self.get(name))
        between("warmup", self.warmup, 0, 1)
        between("weight_decay", self.weight_decay, 0)
        between("sft.epochs", self.sft.epochs, 0)
        if self.sft.turns == "all" and self.template == "plain":
            raise ValueError("sft.turns must be last with template plain, which knows no turns, got 'all'")
        between("lora.dropout", self.lora.dropout, 0, 1, open_high=True)
        one_of("lora.base", self.lora.base, ("whole", "4bit"))
        self._check_lora()
        between("ppo.unfinished_penalty", self.ppo.unfinished_penalty, 0)
        between("ppo.length_penalty", self.ppo.length_penalty, 0)
        if self.ppo.clip_reward is not None:
            positive("ppo.clip_reward", self.ppo.clip_reward)
        share = self.gradient_checkpointing
        share = float(share) if isinstance(share, bool) else between("gradient_checkpointing", share, 0, 1)
        object.__setattr__(self, "gradient_checkpointing", share)
        for name in ("steps", "limit", "train_from", "tokens_per_micro"):
            if self.get(name) is not None:
                count(name, self.get(name), 1)
        known = (*PAIR_LOSSES, *BATCH_LOSSES)
        for text in self.loss:
            if text.partition(":")[0] not in known and not is_own(text):
                one_of("loss", text, (*known, PPO))
        names = self.names
        if not names or len(set(names)) < len(names):
            raise ValueError(f"loss must name one or more losses, each once, got {' '.join(self.loss) or 'none'}")
        for name in names:
            if name in known and name in _FOLDERS:
                raise ValueError(
                    f"loss must have another name than {', '.join(_FOLDERS)}, parts of a run, got {name!r}"
                )
        self._check_ppo()
        for name in ("beta", "learning_rate", "epochs"):
            positive(name, self.of(name))
        count("reference.steps", self.of("reference.steps"))
        self._check_hyper()
        for text in self.loss:
            if text != PPO:
                self._check_loss(text)

    def get(self, name: str) -> Any:
        """Return the value of an option; the name of an option in a section is SECTION.NAME."""
        return functools.reduce(getattr, name.split("."), self)

    def of(self, name: str) -> Any:
        """Return the value of an option, or the recipe's where it was left out; names as for ``get``."""
        value = self.get(name)
        return RECIPES[self.recipe][name] if value is None else value

    def on(self, device: torch.device) -> Settings:
        """Return the settings with the precision that ``auto`` means on a device."""
        return dataclasses.replace(self, precision=precision_on(device, self.precision))

    def flat(self) -> dict[str, Any]:
        """Return all options, those in sections by the flat names that logs and finished stages use: lora_rank."""
        bare = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for section in SECTIONS:
            del bare[section]
        return bare | {flat: self.get(name) for flat, name in FLAT.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the losses, which are those of their folders."""
        return tuple(text if text == PPO else from_text(text).name for text in self.loss)

    def loss_of(self, text: str) -> PairLoss:
        """Return the loss that a text names, with the run's hyper-parameters; the text's own numbers win.

        A recipe's numbers are for ``OF_RECIPES``: what is left out is another loss's own default.
        """
        usual = self._hyper()
        of_recipe = from_text(text).name in OF_RECIPES
        if of_recipe:
            usual = {"clip": RECIPES[self.recipe]["clip"], **usual}
        if self.beta is not None or of_recipe:
            usual["beta"] = self.of("beta")
        return from_text(text, usual)  # type: ignore[return-value]

    def _check_loss(self, text: str) -> None:
        """Raise ValueError for options that do not go with the loss that a text names."""
        loss = self.loss_of(text)
        check_reduction("reduction", self.reduction, loss, text)
        if isinstance(loss, BatchLoss) and self.tokens_per_micro is not None:
            raise ValueError(
                f"tokens_per_micro must be left out with {text}, a loss of batches, which are the pairs of micro; "
                f"got {self.tokens_per_micro}"
            )

    def _check_lora(self) -> None:
        """Raise ValueError for options of an adapter where none is asked for: all weights would be trained."""
        for field in dataclasses.fields(LoraSettings):
            value = getattr(self.lora, field.name)
            if not self.lora.rank and value != field.default:
                raise ValueError(
                    f"lora.{field.name} must be left out where lora.rank is 0, which trains all weights; got {value!r}"
                )

    def _check_ppo(self) -> None:
        """Raise ValueError where PPO has no reward, a reward no PPO, or a checkpoint would split a batch of samples."""
        if PPO not in self.loss:
            for name in ("ppo.reward", "ppo.judge"):
                if self.get(name) is not None:
                    raise ValueError(f"{name} must be left out where loss has no ppo, got {self.get(name)!r}")
            return
        if not self.ppo.reward:
            raise ValueError(
                "ppo.reward must name a reward model, MODULE:FUNCTION or FILE.py:FUNCTION where loss has ppo"
            )
        count("ppo.samples", self.ppo.samples, 2)  # a single sample is its own baseline: its advantage is 0
        if self.log.save_every % self.ppo.epochs:
            raise ValueError(
                f"log.save_every must be a multiple of ppo.epochs, {self.ppo.epochs}, as a run resumes between two "
                f"batches of samples, got {self.log.save_every}"
            )

    def _check_hyper(self) -> None:
        """Raise ValueError for a hyper-parameter that is set and that no loss of the run has."""
        for name in self._hyper():
            known = hyper_parameters(batches=True)[name].defaults
            if not set(known) & set(self.names):
                raise ValueError(
                    f"hyper must belong to a loss of the run, {', '.join(self.names)}; got {name}, which belongs to "
                    f"{', '.join(known)}"
                )

    def _hyper(self) -> dict[str, Any]:
        menu = {name: of for name, of in hyper_parameters(batches=True).items() if name != "beta"}
        values = {}
        for name, value in named_texts("hyper", _NUMBER, self.hyper).items():
            one_of("hyper", name, menu)
            try:
                values[name] = menu[name].kind(value)
            except ValueError:
                raise ValueError(f"hyper must be {_NUMBER}, got {f'{name}={value}'!r}") from None
        return values


def _hints() -> dict[str, Any]:
    """Return the type hints of all options, those in sections by SECTION.NAME."""
    inside = {
        f"{section}.{name}": hint for section, kind in SECTIONS.items() for name, hint in get_type_hints(kind).items()
    }
    return get_type_hints(Settings) | inside


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Return the settings with these options; the name of an option in a section is SECTION.NAME: {"lora.rank": 8}."""
    return Settings(**nested(options))


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``Settings``, sections as objects, from options by name."""
    fields: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        section, dot, field = name.partition(".")
        if dot:
            sections.setdefault(section, {})[field] = value
        else:
            fields[name] = value
    return fields | {name: SECTIONS[name](**values) for name, values in sections.items()}
