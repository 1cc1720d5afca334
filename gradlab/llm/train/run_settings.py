"""The settings of a training run: options and their sections, the recipes behind them, and TOML files of both."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from gradlab.checks import between, count, one_of, positive
from gradlab.llm.data.pair_forms import CHOICES
from gradlab.llm.model.loading import located
from gradlab.llm.model.logps import CHUNK
from gradlab.losses import PAIR_LOSSES, PairLoss, hyper_parameters, pair_loss

PPO = "ppo"
_FOLDERS = ("sft", "reference", PPO, "cache")  # a run's folders that a user's loss must not take
# Values of options that are left out. The paper states beta, clip (naive variants), epochs and reference.steps of
# `paper`; its learning rate, and all of `gentle`, are ours.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {"beta": 1.0, "clip": 0.3, "epochs": 2.0, "reference.steps": 300, "learning_rate": 1e-6},
    "gentle": {"beta": 0.1, "clip": 0.3, "epochs": 1.0, "reference.steps": 0, "learning_rate": 5e-7},
}
_NONE = tyro.conf.arg(help_behavior_hint="(default: none)")


def _optional(metavar: str, hint: str = "") -> Any:
    """Return how help shows an option that may be left out; ``hint``: what that means, where its text does not say."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=hint)


def _from_recipe(metavar: str) -> Any:
    return _optional(metavar, "(left out: the recipe's)")


def _recipes() -> str:
    """Return the recipes in words."""
    recipes = (
        f"`{name}`: " + ", ".join(f"{option.replace('_', '-')} {value:g}" for option, value in recipe.items())
        for name, recipe in RECIPES.items()
    )
    ours = "Learning rates and all of `gentle`, which is near what others use for DPO, are ours."
    return f"Values of options that are left out. {'; '.join(recipes)}. {ours}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedSettings:
    """Supervised training on the chosen responses, before all else."""

    epochs: float = 0.0
    """Epochs of supervised training; 0: none."""
    learning_rate: float = 1e-5
    """Learning rate of the supervised training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceSettings:
    """The training by DPO that makes the reference."""

    steps: Annotated[int | None, _from_recipe("INT")] = None
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Training by PPO, where `ppo` is among the losses."""

    reward: Annotated[str | None, _optional("SPEC")] = None
    """PPO's reward, and only PPO's: a sequence classifier or a safe-rlhf score model, as folder or hub name
    (SPEC#LABEL names one of several outputs), MODULE:FUNCTION or FILE.py:FUNCTION. A function takes a list of prompts
    and a list of as many responses, all of them texts, and returns one number per response."""
    samples: int = 4
    """Responses that PPO samples per prompt, two or more, whose mean reward is the baseline."""
    length: int = 128
    """The most tokens in a response that PPO samples."""
    epochs: int = 1
    """Steps of PPO on each batch of samples."""
    clip: float = 0.2
    """ε of PPO's clipped surrogate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSettings:
    """The log, looks at the training on the way, and checkpoints."""

    sides_every: int = 50
    """Steps between two looks at the parameter gradient of each side; 0: none. Training does not depend on it."""
    validate_every: int = 50
    """Steps between two looks at the held-out pairs; 0: none."""
    save_every: int = 200
    """Steps between two checkpoints; 0: only the finished stage is kept."""
    keep: int = 2
    """How many of the newest checkpoints are kept."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""
    wandb: bool = False
    """Send the log to Weights & Biases too, which must be installed and set up."""


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Train a causal language model on preference pairs, stage by stage: supervised, reference, then each loss.

    Finished stages are skipped and interrupted ones resumed, with the same numbers. Started by torchrun it uses all
    processes, one per GPU.
    """

    model: str
    """A folder with a transformers model in safetensors, or a hub's name."""
    data: str
    """Preference pairs: a .jsonl, .jsonl.gz or .parquet file, or a hub's name."""
    out: Path
    """The folder for everything that the run makes."""
    loss: tuple[str, ...] = ("bdpo",)
    """Losses to train with, in turn, all from one reference: names of `gradlab losses`, or `ppo`."""
    recipe: Annotated[Literal["paper", "gentle"], tyro.conf.arg(help=_recipes())] = "paper"
    """Values of options that are left out, see ``RECIPES``."""

    # The data.
    choice: Annotated[str | None, _optional("{" + ",".join(CHOICES) + "}")] = None
    """Which preference of PKU-SafeRLHF counts; needed there, and there only."""
    split: str = "train"
    """Split of a data set from a hub."""
    template: Literal["plain", "chat", "beaver"] = "plain"
    """How prompt and response become one text: as they are, by the tokenizer's chat template, or safe-rlhf's."""
    max_length: int = 512
    """Tokens of prompt and response together; what is longer is cut, and counted."""
    max_prompt: Annotated[int | None, _optional("INT")] = None
    """Tokens that a prompt keeps where the whole is too long; left out: half of max_length."""
    validation: Annotated[str | None, _optional("PAIRS")] = None
    """Held-out pairs; left out: `held_out` pairs of the data, drawn by the seed."""
    held_out: int = 200
    """How many pairs of the data are held out where there is no validation file."""

    # The stages.
    sft: SupervisedSettings = SupervisedSettings()
    """Supervised training on the chosen responses, before all else."""
    reference: ReferenceSettings = ReferenceSettings()
    """The training by DPO that makes the reference."""
    init: Literal["reference", "base"] = "reference"
    """Where a loss starts: at the reference (our reading of the paper), or at the model before it."""
    epochs: Annotated[float | None, _from_recipe("FLOAT")] = None
    """Epochs of training with each loss."""
    steps: Annotated[int | None, _optional("INT")] = None
    """Steps of training with each loss, instead of epochs."""

    # The losses.
    beta: Annotated[float | None, _from_recipe("FLOAT")] = None
    """Inverse temperature β; of PPO, the weight of the KL penalty."""
    hyper: Annotated[tuple[str, ...], _NONE] = ()
    """Other hyper-parameters, as NAME=VALUE; each goes to the losses that have it, and one or more must."""
    reduction: Literal["sum", "mean"] = "sum"
    """log π of a response: the sum over its tokens, as the paper's weights need it, or their mean."""

    # The optimiser.
    learning_rate: Annotated[float | None, _from_recipe("FLOAT")] = None
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
    """Pairs that one process holds at a time; without dropout the numbers depend on it by rounding only."""

    # The model and the machines.
    precision: Literal["fp32", "bf16"] = "bf16"
    """`bf16`: computes in bfloat16, and keeps weights that are trained in float32."""
    distribution: Literal["ddp", "fsdp"] = "fsdp"
    """Over several processes: each has the whole model, or a part of it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where there is one."""
    gradient_checkpointing: bool = False
    """Keep few activations, and compute the others again: less memory, more time."""
    chunk: int = CHUNK
    """Tokens whose logits exist at one time."""
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
        for name, hint in get_type_hints(Settings).items():
            kind, value = _kind(hint), getattr(self, name)
            if get_origin(kind) is Literal and not (value is None and kind is not hint):
                one_of(name, value, get_args(kind))
        if self.choice is not None:
            one_of("choice", self.choice, CHOICES)
        for name in ("max_length", "batch", "micro", "ppo.samples", "ppo.length", "ppo.epochs", "chunk", "log.keep"):
            count(name, self.get(name), 1)
        looks = ("log.sides_every", "log.validate_every", "log.save_every")
        for name in ("held_out", *looks, "lora.rank", "seed"):
            count(name, self.get(name))
        for name in ("max_norm", "ppo.clip", "lora.alpha", "sft.learning_rate"):
            positive(name, self.get(name))
        between("warmup", self.warmup, 0, 1)
        between("weight_decay", self.weight_decay, 0)
        between("sft.epochs", self.sft.epochs, 0)
        between("lora.dropout", self.lora.dropout, 0, 1, open_high=True)
        if self.steps is not None:
            count("steps", self.steps, 1)
        if not self.loss or len(set(self.loss)) < len(self.loss):
            raise ValueError(f"loss must name one or more losses, each once, got {' '.join(self.loss) or 'none'}")
        for name in self.loss:
            one_of("loss", name, (*PAIR_LOSSES, PPO))
            if name in PAIR_LOSSES and name in _FOLDERS:
                raise ValueError(
                    f"loss must have another name than {', '.join(_FOLDERS)}, parts of a run, got {name!r}"
                )
        self._check_ppo()
        for name in ("beta", "learning_rate", "epochs"):
            positive(name, self.of(name))
        count("reference.steps", self.of("reference.steps"))
        self._check_hyper()
        for name in self.loss:
            if name != PPO:
                self.loss_of(name)

    def get(self, name: str) -> Any:
        """Return the value of an option; the name of an option in a section is SECTION.NAME."""
        return functools.reduce(getattr, name.split("."), self)

    def of(self, name: str) -> Any:
        """Return the value of an option, or the recipe's where it was left out; names as for ``get``."""
        value = self.get(name)
        return RECIPES[self.recipe][name] if value is None else value

    def flat(self) -> dict[str, Any]:
        """Return all options, those in sections by the flat names that logs and finished stages use: lora_rank."""
        bare = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for section in SECTIONS:
            del bare[section]
        return bare | {flat: self.get(name) for flat, name in FLAT.items()}

    def loss_of(self, name: str) -> PairLoss:
        """Return the registered loss of this name with the run's hyper-parameters."""
        menu = hyper_parameters()
        given = {"clip": RECIPES[self.recipe]["clip"], **self._hyper(), "beta": self.of("beta")}
        return pair_loss(name, **{key: value for key, value in given.items() if name in menu[key].defaults})

    def _check_ppo(self) -> None:
        """Raise ValueError where PPO has no reward, a reward no PPO, or a checkpoint would split a batch of samples."""
        if PPO not in self.loss:
            if self.ppo.reward is not None:
                raise ValueError(f"ppo.reward must be left out where loss has no ppo, got {self.ppo.reward!r}")
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
            known = hyper_parameters()[name].defaults
            if not set(known) & set(self.loss):
                raise ValueError(
                    f"hyper must belong to a loss of the run, {', '.join(self.loss)}; got {name}, which belongs to "
                    f"{', '.join(known)}"
                )

    def _hyper(self) -> dict[str, Any]:
        menu = {name: parameter for name, parameter in hyper_parameters().items() if name != "beta"}
        values = {}
        for text in self.hyper:
            name, equals, value = text.partition("=")
            one_of("hyper", name, menu)
            try:
                values[name] = menu[name].kind(value)
            except ValueError:
                equals = ""
            if not equals:
                raise ValueError(f"hyper must be NAME=VALUE with a number, got {text!r}")
        return values


class _Draft(Settings):
    """Settings that are not checked yet: tyro would print a failed check as a box of many lines."""

    def __post_init__(self) -> None:
        pass


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Return the settings with these options; the name of an option in a section is SECTION.NAME: {"lora.rank": 8}."""
    return Settings(**_nested(options))


def read_settings(arguments: Sequence[str], prog: str) -> Settings:
    """Read settings from a command line; ``--config FILE`` gives defaults, and options win over it.

    FILE is TOML: keys are options' names, and a table is a section, such as ``[lora]`` with ``rank``.
    ValueError with one line for a file that cannot be used and for a former name of an option; a wrong option ends the
    program as command lines do.
    """
    given: dict[str, Any] = dict.fromkeys(("model", "data", "out"), tyro.MISSING_NONPROP)
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, file = word.partition("=")
        if name != "--config":
            rest.append(word)
            continue
        file = file if equals else next(words, "")
        if not file:
            raise ValueError("config must name a TOML file, got none")
        given |= _read_config(Path(file))
    _check_names(rest)
    values = _nested(given)
    start: Any = object.__new__(_Draft)
    for field in dataclasses.fields(Settings):
        default = None if field.default is dataclasses.MISSING else field.default
        object.__setattr__(start, field.name, values.get(field.name, default))
    draft = tyro.cli(
        _Draft, prog=prog, args=rest, default=start,
        description=f"{inspect.getdoc(Settings)}\n\n--config FILE: a TOML file of these options, with a table for each "
        "section; options that are given here win.",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
    )  # fmt: skip
    return Settings(**vars(draft))


def _nested(options: Mapping[str, Any]) -> dict[str, Any]:
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


def _check_names(words: Sequence[str]) -> None:
    """Raise ValueError for an option in a section that is given by its former, flat name."""
    names = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    moved = [(name, FLAT[name.replace("-", "_")].replace("_", "-")) for name in names if name.replace("-", "_") in FLAT]
    if moved:
        raise ValueError("; ".join(f"--{name} is now --{new}" for name, new in moved))


def _read_config(path: Path) -> dict[str, Any]:
    """Return the options in a TOML file, those in a table by TABLE.NAME."""
    try:
        page = tomllib.loads(path.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"config {path} is no TOML: {error}") from None
    options: dict[str, Any] = {}
    hints = get_type_hints(Settings)
    for name, value in page.items():
        if name in FLAT:
            section, _, field = FLAT[name].partition(".")
            raise ValueError(f"{name} in {path} is now {field} in the table [{section}]")
        hint = hints[one_of(f"option in {path}", name, hints)]
        if name not in SECTIONS:
            options[name] = _fitting(name, value, hint, path)
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{name} in {path} must be a table, got {value!r}")
        inside = get_type_hints(SECTIONS[name])
        for field, part in value.items():
            one_of(f"option of [{name}] in {path}", field, inside)
            options[f"{name}.{field}"] = _fitting(f"{name}.{field}", part, inside[field], path)
    return options


def _kind(hint: Any) -> Any:
    """Return an option's type hint, without the None of an option that may be left out."""
    return get_args(hint)[0] if NoneType in get_args(hint) else hint


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {  # an option's type: its types in TOML, and their name in messages
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    Path: ((str,), "a text"),
    tuple: ((str, list), "a text or a list of texts"),
}


def _fitting(name: str, value: Any, hint: Any, path: Path) -> Any:
    """Return a value of a TOML file in its option's type; ValueError where the option does not accept it."""
    kind = _kind(hint)
    if get_origin(kind) is Literal:
        return one_of(f"{name} in {path}", value, get_args(kind))
    wanted = get_origin(kind) or kind
    types, words = _KINDS[wanted]
    items = [value] if wanted is tuple and isinstance(value, str) else value
    if type(value) not in types or (wanted is tuple and not all(isinstance(item, str) for item in items)):
        raise ValueError(f"{name} in {path} must be {words}, got {value!r}")
    return wanted(items)
