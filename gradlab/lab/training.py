"""The recipe of a training: one frozen record of how to train, the same for pair losses, reward models and PPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gradlab.checks import count, keep_plain, one_of, positive, shown
from gradlab.lab.optimizers import optimizer_of
from gradlab.lab.policy import FREE_LOGITS, Policy, check_policy, tabular_policy
from gradlab.lab.samplers import Sampler, Uniform, sampler_of
from gradlab.lab.world import Labels

Engine = Literal["auto", "eager", "fused"]


@dataclass(frozen=True)
class Training:
    """The settings of a training: ``fit(worlds, loss, Training(pairs=100))``, or ``fit(worlds, loss, pairs=100)``.

    Raises ValueError, in one line, for a field that is out of range.
    """

    policy: Policy | str = FREE_LOGITS
    """"free", which is ``FreeLogits()``: one logit for each prompt and response. "shared", which is ``RadialBasis()``:
    neighbouring responses share parameters."""
    optimizer: str = "adam"
    """Name of an optimiser in ``gradlab.lab.optimizers``, such as "adam" (β₁ = 0.9, β₂ = 0.999), or "gd" for plain
    gradient descent."""
    learning_rate: float = 0.05
    """Step size of the optimiser, > 0."""
    steps: int = 500
    """Steps of the optimiser, ≥ 1."""
    pairs: int | None = None
    """Size of a finite data set, in pairs per prompt. None: the exact expectation over all comparable pairs."""
    batch: int | None = None
    """Pairs per prompt in a mini-batch, drawn afresh for every step from that data. None: full batch."""
    labels: Labels | None = None
    """"soft": probabilities of preference. "hard": one winner, sampled in finite data, the better response in exact
    data. None: soft for exact data, hard for finite."""
    sampler: Sampler | str = "uniform"
    """How often each pair is seen: a name in ``gradlab.lab.samplers``, with numbers, such as "on-policy" or
    "tempered:temperature=2". The data's shares are multiplied by the sampler's weights. Labels of finite data stay as
    they are; mini-batches of exact data are drawn from the sampler, with fresh labels."""
    sampler_every: int = 1
    """The sampler follows the policy every so many steps, ≥ 1: weights are those of the last multiple. As many as
    ``steps``: those of the start, for ever."""
    reference_every: int | None = None
    """The reference becomes the current policy every so many steps, ≥ 1. None: it stays. Metrics and losses of the
    history keep the first reference."""
    record: int = 25
    """About how many log-spaced steps to keep, besides the start."""
    gradients: bool = False
    """Also keep the gradient log, see ``gradlab.lab.gradient_log``."""
    device: str = "cpu"
    """The device to train on, by PyTorch's name for it; this machine must have it."""
    dtype: torch.dtype | str = torch.float64
    """The precision to train in: float64, which is the reference, or float32; as a type of PyTorch or its name."""
    engine: Engine = "auto"
    """"eager": step by step in PyTorch, the reference. "fused": all steps in one compiled function, many times as
    fast, see ``gradlab.lab.engine``; where that is impossible, eager with a notice. "auto": fused, but eager without a
    notice for mini-batches, for sampled PPO and off the CPU."""

    def __post_init__(self) -> None:
        optimizer_of(self.optimizer)
        keep_plain(self, learning_rate=positive("learning_rate", self.learning_rate))
        for name in ("steps", "record", "sampler_every", "pairs", "batch", "reference_every"):
            if name in ("steps", "record", "sampler_every") or getattr(self, name) is not None:
                keep_plain(self, **{name: count(name, getattr(self, name), least=1, most=MOST)})
        if self.labels is not None:
            one_of("labels", self.labels, get_args(Labels))
        one_of("engine", self.engine, get_args(Engine))
        if not isinstance(self.gradients, bool):
            raise ValueError(f"gradients must be True or False, got {shown(self.gradients)}")
        if self.gradients and self.reference_every is not None:
            raise ValueError(f"reference_every must be None with gradients, got {self.reference_every}")
        object.__setattr__(self, "device", _usable(self.device))
        if isinstance(self.policy, str):
            object.__setattr__(self, "policy", tabular_policy(self.policy))
        check_policy(self.policy)
        object.__setattr__(self, "sampler", sampler_of(self.sampler))
        object.__setattr__(self, "dtype", _floating(self.dtype))

    @property
    def precision(self) -> torch.dtype:
        """The type of PyTorch that ``dtype`` names."""
        return _floating(self.dtype)

    @property
    def policy_name(self) -> str:
        """Name of the kind of policy, such as "free"."""
        return self.policy if isinstance(self.policy, str) else self.policy.name

    @property
    def law(self) -> Sampler:
        """The sampler."""
        return sampler_of(self.sampler)

    @property
    def plain(self) -> bool:
        """True if every step has the same pair weights and the same reference."""
        return isinstance(self.sampler, Uniform) and self.reference_every is None

    def features(self, responses: int) -> Tensor:
        """Return Φ of the policy, (Y, K) float64."""
        policy = self.policy if not isinstance(self.policy, str) else tabular_policy(self.policy)
        return policy.features(responses)

    def but(self, **changes: Any) -> Training:
        """Return this recipe with some fields changed; ValueError for a name that is not a field."""
        for name in changes:
            one_of("a field of Training", name, FIELDS)
        return replace(self, **changes) if changes else self

    def settings(self) -> dict[str, Any]:
        """Return every field by name as JSON-able data, for manifests; a plain recipe leaves out those of samplers."""
        names = [name for name in FIELDS if not (self.plain and name in _SAMPLING)]
        return {
            name: value if value is None or isinstance(value, (bool, int, float, str)) else _text(value)
            for name, value in ((name, getattr(self, name)) for name in names)
        }


MOST = 10**12  # steps, records, pairs: more than any memory holds
FIELDS = tuple(field.name for field in fields(Training))
_SAMPLING = ("sampler", "sampler_every", "reference_every")
_DTYPES = ("float64", "float32")


def recipe_of(training: Training, changes: Mapping[str, Any]) -> Training:
    """Return a recipe with some fields changed; ValueError, in one line, for something that is not a recipe."""
    if not isinstance(training, Training):
        raise ValueError(f"training must be a Training, such as Training(steps=100), got {shown(training)}")
    return training.but(**changes)


def refuse_sampler(training: Training, what: str) -> None:
    """Raise a ValueError for a recipe with a sampler or a moving reference, where ``what`` takes neither."""
    if not training.plain:
        name, wanted = ("sampler", "uniform") if training.reference_every is None else ("reference_every", "None")
        got = getattr(training, name)
        raise ValueError(f"{name} must be {wanted} for {what}, got {got}: samplers are for pairs of a tabular policy")


def _floating(kind: torch.dtype | str) -> torch.dtype:
    """Return a floating-point type, given as a type, or by the name of one of the two that training is meant for."""
    if isinstance(kind, str):
        return getattr(torch, one_of("dtype", kind, _DTYPES))
    if not isinstance(kind, torch.dtype) or kind not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be a floating-point type such as torch.float64, got {shown(kind)}")
    return kind


def _usable(device: str) -> str:
    """Return the name of a device on which this machine can compute; ValueError for any other."""
    name = str(device) if isinstance(device, torch.device) else device
    try:
        if name != "cpu":
            torch.zeros(1, device=name).cpu()  # what PyTorch raises depends on the device
    except (RuntimeError, AssertionError, TypeError, ValueError):
        name = None
    if not isinstance(name, str):
        raise ValueError(f"device must name a device of this machine, such as cpu or cuda, got {shown(device)}")
    return name


def _text(value: Any) -> str:
    return str(value) if isinstance(value, (torch.dtype, Sampler)) else repr(value)
