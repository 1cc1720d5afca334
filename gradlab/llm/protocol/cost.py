"""The cost of a plan, from the shape of its model and its rates: GPU hours, disk and memory; and its power."""

from __future__ import annotations

import dataclasses

import pandas as pd
import torch

from gradlab.llm.model.group import precision_on
from gradlab.llm.model.memory import memory
from gradlab.llm.model.shapes import shape_of
from gradlab.llm.protocol.plan import Plan
from gradlab.llm.train.command_line import read_settings
from gradlab.llm.train.run_settings import Settings
from gradlab.stats.equivalence import ALPHA
from gradlab.stats.power import fewest_seeds, power, power_of_equivalence, spread_of_difference

_WEIGHT = 4  # bytes of a saved weight
_CHECKPOINT = 12  # bytes per weight of a checkpoint: weight and two moments
_FORWARD = 1 / 3  # of a step's operations: the reference is scored by a forward pass
_CHOSEN = 1 / 2  # of a pair's tokens: the chosen response with its prompt


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a part of a plan.

    trained  GPU hours of training, with the reference's scores. sampled: GPU hours of the evaluations.
    disk     bytes of the finished models.
    """

    runs: int
    trained: float
    sampled: float
    disk: float

    @property
    def hours(self) -> float:
        """Return all GPU hours."""
        return self.trained + self.sampled


def training_of(plan: Plan) -> Settings:
    """Return the options that all trainings of a plan share; model, data and folder are placeholders."""
    return read_settings(
        ["--config", plan.beside(plan.training), "--model", plan.model, "--data", plan.arms[0].data, "--out", "out"],
        "gradlab protocol",
    )


def cost(plan: Plan, *, core: bool, mfu: float | None = None) -> Cost:
    """Return what the plan's core costs, or the rest.

    mfu  another share of the GPU's peak than that of the plan's rate.

    Tokens of training: batch × steps × tokens per pair; of supervised training half of a pair's, the chosen response
    with its prompt. The first group makes the supervised model and the reference, where the training has them. Before
    each group the reference scores every pair that is trained on by a forward pass, a third of a step's operations.
    Each evaluation samples from its models and from the reference.
    """
    settings = training_of(plan)
    rate = plan.trained_per_second * (1 if mfu is None else mfu / plan.mfu)
    groups = [group for group in plan.groups if group.core == core]
    shared = settings.of("reference.steps") * settings.batch
    stages = bool(shared) + bool(settings.sft.epochs)
    tokens = models = answers = 0.0
    for group in groups:
        first = group == plan.groups[0]
        for arm in plan.arms:
            alone = settings.of("epochs") * arm.pairs if settings.steps is None else settings.steps * settings.batch
            before = shared + _CHOSEN * settings.sft.epochs * arm.pairs if first else 0
            scored = _FORWARD * min(alone, arm.pairs)
            tokens += (len(group.loss) * alone + before + scored) * plan.tokens_per_pair
        models += len(plan.arms) * (len(group.loss) + first * stages)
        answers += len(plan.arms) * (len(group.loss) + 1)
    seeds = len(plan.seeds)
    sampled = answers * plan.prompts * plan.samples * plan.length / plan.sampled_per_second
    return Cost(
        runs=seeds * len(plan.arms) * sum(len(group.loss) for group in groups),
        trained=seeds * tokens / rate / 3600, sampled=seeds * sampled / 3600,
        disk=seeds * models * _WEIGHT * _trained(plan),
    )  # fmt: skip


def checkpoint_bytes(plan: Plan) -> float:
    """Return the bytes that the checkpoints of one training take for a moment, beside the finished models."""
    log = training_of(plan).log
    return (log.keep + 1) * _CHECKPOINT * _trained(plan) if log.save_every else 0.0


def gpu_memory(plan: Plan) -> int:
    """Return the bytes on each GPU at the peak of a step, as ``memory`` computes them from the settings.

    Without GPUs, those of one process on the device of the settings. It is too much for trainings that ``memory`` does
    not know: of the upper layers alone, and on a base in 4 bits.
    """
    settings = training_of(plan)
    on_gpu = plan.gpus or settings.device == "cuda"
    micro = settings.micro
    if settings.tokens_per_micro is not None:
        micro = -(-settings.tokens_per_micro // (2 * settings.max_length))
    return memory(
        plan.config(), gpus=max(plan.gpus, 1), sharded=settings.distribution == "fsdp", lora_rank=settings.lora.rank,
        lora_targets=settings.lora.targets, micro_pairs=micro, length=settings.max_length,
        checkpointing=settings.gradient_checkpointing,
        precision=precision_on(torch.device("cuda" if on_gpu else "cpu"), settings.precision),
        sides=bool(settings.log.sides_every), chunk=settings.chunk,
    ).total  # fmt: skip


def _trained(plan: Plan) -> int:
    """Return how many weights a training trains, and its model holds when it is finished."""
    lora = training_of(plan).lora
    return shape_of(plan.config()).trained(lora.rank, lora.targets)


def power_table(plan: Plan, *, bound: float) -> pd.DataFrame:
    """Return the plan's power per arm and spread over seeds, by the rules of ``gradlab.stats.words``.

    bound  the margin of the judged differences.

    Columns: arm, expected (the difference that the paper reports), between_seeds, spread (of one seed's difference).
    Then the power at the plan's seeds to find that difference beyond the margin, *holds throughout*: ``power``, that of
    half of it, ``half``, and ``seeds``, the fewest with 80% of the latter. At last ``none``, the power to
    find *no practical difference* where there is none, and ``none_seeds``, the fewest with 80% of it. Numbers of seeds
    are missing where 10,000 do not suffice. Each arm is one of as many co-primaries, at Holm's first step.
    """
    alpha = ALPHA / len(plan.arms)
    rows = []
    for arm in plan.arms:
        for between in plan.between_seeds:
            theirs = arm.level + arm.expected
            spread, alike = (
                spread_of_difference(min(max(share, 0.0), 1.0), arm.level, plan.prompts, between)
                for share in (theirs, arm.level)
            )

            def beyond(seeds: int, effect: float, spread: float = spread) -> float:
                return power(effect, spread, seeds, bound=bound, differs=alpha)

            def equivalent(seeds: int, spread: float = alike) -> float:
                return power_of_equivalence(0.0, spread, seeds, margin=bound, alpha=alpha)

            half, now = arm.expected / 2, len(plan.seeds)
            rows.append({
                "arm": arm.name, "expected": arm.expected, "between_seeds": between, "spread": spread,
                "power": beyond(now, arm.expected), "half": beyond(now, half),
                "seeds": fewest_seeds(lambda seeds, effect=half, of=beyond: of(seeds, effect)),
                "none": equivalent(now), "none_seeds": fewest_seeds(equivalent),
            })  # fmt: skip
    return pd.DataFrame(rows).astype({"seeds": "Int64", "none_seeds": "Int64"})
