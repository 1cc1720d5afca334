"""A protocol's plan: models, data, groups of losses, seeds, judges, and what is assumed of its cost; a TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from gradlab.checks import between, count, one_of, positive, resolved, toml_file
from gradlab.llm.model.shapes import LLAMAS
from gradlab.llm.train.toml_values import toml_value
from gradlab.losses import from_text
from gradlab.store.files import file_hash

SHAPES = {
    **LLAMAS,
    "SmolLM2-135M": {
        "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "num_hidden_layers": 30,
        "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
    },
}  # fmt: skip
ENDPOINTS = ("success", "safe", "win_rate", "accuracy")  # columns of an evaluation that an arm may be judged by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A data set of the plan, on which every group is trained."""

    name: str
    """The arm's name, which is that of its folder."""
    data: str
    """The pairs, as ``gradlab train --data`` takes them."""
    endpoint: str
    """The column of the evaluation that is primary."""
    expected: float
    """The difference to DPO that the paper reports for it, as a share: .18 is 18 percentage points."""
    level: float
    """DPO's own share that the power is computed at; a guess."""
    pairs: int
    """Pairs of the training set, for the cost."""
    choice: str | None = None
    """Which preference of PKU-SafeRLHF counts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Losses that are trained from one reference, in one folder; a plan's first group also makes that reference."""

    name: str
    """The group's name, which is that of its folder."""
    loss: tuple[str, ...]
    """Losses, as ``gradlab train --loss`` takes them."""
    core: bool = True
    """False: the claims can be judged without the group."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A protocol. What the paper states is in the training's file; all else is ours."""

    name: str
    """The plan's name."""
    model: str
    """The model that everything starts from, as a folder or a hub's name."""
    shape: str
    """A known shape, for memory and time: one of ``SHAPES``, or a model's folder."""
    gpus: int
    """GPUs of one machine that train a run together; 0: one process, on whatever there is."""
    seeds: tuple[int, ...]
    """Seeds: each draws the held-out prompts, the order of the data and the samples."""
    training: str
    """A file of training options, beside the plan."""
    reward: str
    """The judge of helpfulness, as ``gradlab evaluate --reward`` takes it; a file is looked for beside the plan."""
    cost: str
    """The judge of harm; below 0 is safe."""
    prompts: int
    """Held-out prompts that are answered in each evaluation."""
    samples: int
    """Answers per prompt and model."""
    length: int
    """The most tokens of an answer."""
    tokens_per_pair: float
    """Tokens of a pair, both sides with their prompts, without padding, for the cost."""
    trained_per_second: float
    """Tokens per second that one GPU trains on, without padding: measured, or an assumption."""
    mfu: float
    """The share of the GPU's peak that this rate is."""
    sampled_per_second: float
    """Tokens per second that one GPU samples: an assumption."""
    between_seeds: tuple[float, ...]
    """Standard deviations of the true difference over seeds at which the power is computed: assumptions."""
    arms: tuple[Arm, ...]
    """The data sets."""
    groups: tuple[Group, ...]
    """The groups of losses; the first one makes the reference of all."""
    counts: bool = True
    """False: the plan only shows that everything runs, and no claim is judged by its numbers."""
    folder: Path = Path()
    """Where the plan's file lies."""
    digest: str = ""
    """The SHA-256 of the plan's file."""

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "length"):
            count(name, getattr(self, name), 1)
        count("gpus", self.gpus)
        for name in ("tokens_per_pair", "trained_per_second", "sampled_per_second"):
            positive(name, getattr(self, name))
        between("mfu", self.mfu, 0, 1, open_low=True)
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be two or more, each once, got {list(self.seeds)}")
        for seed in self.seeds:
            count("seeds", seed)
        for spread in self.between_seeds:
            between("between_seeds", spread, 0)
        for kind, parts in (("arms", self.arms), ("groups", self.groups)):
            names = [part.name for part in parts]
            if not names or len(set(names)) < len(names) or any(not name or "/" in name for name in names):
                raise ValueError(f"{kind} must have names, each once and without /, got {names}")
        for arm in self.arms:
            one_of(f"endpoint of {arm.name}", arm.endpoint, ENDPOINTS)
            between(f"level of {arm.name}", arm.level, 0, 1)
            between(f"expected of {arm.name}", arm.expected, -1, 1)
            count(f"pairs of {arm.name}", arm.pairs, 1)
        for group in self.groups:
            if not group.loss:
                raise ValueError(f"loss of {group.name} must name one or more losses, got none")
            for text in group.loss:
                from_text(text)
        losses = [text for group in self.groups for text in group.loss]
        if twice := next((text for text in losses if losses.count(text) > 1), None):
            raise ValueError(f"groups must train each loss once, got {twice} twice")
        if "dpo" not in self.groups[0].loss or "bdpo" not in self.groups[0].loss:
            raise ValueError(f"the first group must train dpo and bdpo, got {' '.join(self.groups[0].loss)}")

    @property
    def runs(self) -> int:
        """Return how many trainings with a loss the plan has."""
        return len(self.arms) * len(self.seeds) * sum(len(group.loss) for group in self.groups)

    @property
    def core(self) -> tuple[str, ...]:
        """Return the losses by which the claims can be judged."""
        return tuple(text for group in self.groups if group.core for text in group.loss)

    def config(self) -> Any:
        """Return what the plan's shape names: a known config, or a model's folder as it is."""
        return SHAPES.get(self.shape, self.shape)

    def moved(
        self, *, model: str | None = None, data: Mapping[str, str] | None = None, reward: str | None = None,
        cost: str | None = None,
    ) -> Plan:  # fmt: skip
        """Return the plan with other places of its model, pairs (by the arm's name) and judges, such as copies.

        Files are looked for in the current folder, not beside the plan. ValueError for pairs of an unknown arm.
        """
        for name in data or {}:
            one_of("arm of data", name, [arm.name for arm in self.arms])
        arms = tuple(dataclasses.replace(arm, data=(data or {}).get(arm.name, arm.data)) for arm in self.arms)
        judges = {name: _from_here(name, spec) for name, spec in (("reward", reward), ("cost", cost)) if spec}
        return dataclasses.replace(self, model=model or self.model, arms=arms, **judges)

    def beside(self, name: str) -> str:
        """Return a file's path beside the plan where there is such a file, else the name as it is."""
        file, colon, rest = name.partition(":")
        return f"{self.folder / file}{colon}{rest}" if (self.folder / file).is_file() else name


def read_plan(path: Path | str) -> Plan:
    """Read a plan from its TOML file; ValueError with one line for a field that is missing, unknown or of another kind.

    Errors of reading as in ``checks.toml_file``.
    """
    page = toml_file("plan", path)
    parts = {"arms": Arm, "groups": Group}
    inside = {
        name: tuple(_made(kind, table, f"{name} in {path}") for table in _tables(page.pop(name, []), name, path))
        for name, kind in parts.items()
    }
    return _made(Plan, page, str(path), **inside, folder=Path(path).parent, digest=file_hash(path))


def _from_here(name: str, spec: str) -> str:
    """Return a judge with the path of its FILE.py from the root, so that none beside the plan is taken for it."""
    file, colon, rest = spec.partition(":")
    return f"{resolved(name, file)}{colon}{rest}" if Path(file).is_file() else spec


def _tables(value: Any, name: str, path: Path | str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise ValueError(f"{name} in {path} must be tables, as [[{name}]], got {value!r}")
    return value


def _made(kind: Any, given: dict[str, Any], where: str, **made: Any) -> Any:
    """Return a record from a table of TOML, and from fields that were made of other tables."""
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in made}
    hints = get_type_hints(kind)
    for name in given:
        one_of(f"option of {where}", name, fields)
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ValueError(f"{where} must have {name}, which it lacks")
    return kind(**{name: toml_value(f"{name} in {where}", value, hints[name]) for name, value in given.items()}, **made)
