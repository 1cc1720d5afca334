"""The paper's experiments and measurements, each listed once here; ``questions`` has a file for each question."""

from __future__ import annotations

from importlib import import_module

from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.questions import atlas, cost, language_models, pretrained, seven_billion

# A file in ``questions`` that ends with an EXPERIMENT; figures and pages keep this order.
_FILES = (
    "ratios",
    "inner_products",
    "shift",
    "variance",
    "picture",
    "grid",
    "worlds",
    "frontier",
    "starts",
    "stability",
    "ppo_against_dpo",
    "log_ratio",
    "sampling",
    "two_goals",
    "continuous",
    "scale",
)


def _experiment(file: str) -> Experiment:
    return import_module(f"gradlab.experiments.questions.{file}").EXPERIMENT


EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in map(_experiment, _FILES)}
# Another measurement of a claim is a line of its own here, and named last by the claim.
MEASURED: dict[str, Measurement] = {
    one.name: one
    for one in (
        cost.OVERHEAD,
        cost.TRAINER,
        language_models.MEASUREMENT,
        pretrained.MEASUREMENT,
        seven_billion.MEASUREMENT,
        atlas.MEASUREMENT,
    )
}


def long_experiments() -> dict[str, Experiment]:
    """Return the experiments that only their names run, or ``questions``; their frames stand as committed else."""
    return {name: one for name, one in EXPERIMENTS.items() if one.is_long}
