"""A plan as Markdown: what is trained, what it costs, and how likely it is to show what the paper reports."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gradlab.llm.protocol.cost import checkpoint_bytes, cost, gpu_memory, power_table, training_of
from gradlab.llm.protocol.plan import Plan
from gradlab.store.markdown import markdown_table

GOAL_MFU = 0.4  # the share of the peak at which the cost is shown beside the measured one


def page(plan: Plan, *, bound: float) -> str:
    """Return three tables: the plan, its cost, its power; ``bound`` is the margin of the judged differences."""
    return "\n".join([*_plan(plan), "", *_cost(plan), "", *_power(plan, bound)]) + "\n"


def _plan(plan: Plan) -> list[str]:
    settings = training_of(plan)
    seeds = ", ".join(map(str, plan.seeds))
    arms = "; ".join(
        f"`{arm.name}`: {arm.data}{f', choice {arm.choice}' if arm.choice else ''}, {arm.pairs:,} pairs, judged by "
        f"`{arm.endpoint}`" for arm in plan.arms
    )  # fmt: skip
    groups = "; ".join(
        f"`{group.name}`{'' if group.core else ' (not core)'}: {', '.join(f'`{loss}`' for loss in group.loss)}"
        for group in plan.groups
    )
    reference = settings.of("reference.steps")
    losses = [vars(settings.loss_of(text)) for group in plan.groups for text in group.loss]
    clips = "".join(f"clip {clip:g}, " for clip in sorted({loss["clip"] for loss in losses if "clip" in loss}))
    return markdown_table(["", "frozen"], [
        ["model", plan.model], ["data, primary endpoint", arms], ["losses, by group", groups],
        ["seeds", seeds],
        ["training", f"β = {settings.of('beta'):g}, {settings.of('epochs'):g} epochs, reference by {reference} "
         f"{'step' if reference == 1 else 'steps'} of DPO, {clips}rate {settings.of('learning_rate'):g}, "
         f"batch {settings.batch}, length {settings.max_length}, {settings.precision}"],
        ["judges", f"reward {plan.reward}, cost {plan.cost}"],
        ["evaluation", f"{plan.prompts} held-out prompts, {plan.samples} answers per prompt and model of at most "
         f"{plan.length} tokens, temperature 1"],
        ["trainings", f"{plan.runs}"],
    ])  # fmt: skip


def _cost(plan: Plan) -> list[str]:
    rows = []
    for name, core in (("core", True), ("the rest", False)):
        if not any(group.core == core for group in plan.groups):
            continue
        now, goal = cost(plan, core=core), cost(plan, core=core, mfu=GOAL_MFU)
        rows.append([
            name, f"{now.runs}", *map(_amount, (now.trained, goal.trained, now.sampled, now.disk / 1e9)),
        ])  # fmt: skip
    head = ["", "trainings", f"GPU hours of training, MFU {plan.mfu:.1%}", f"at MFU {GOAL_MFU:.0%}",
            "GPU hours of evaluation", "GB of finished models"]  # fmt: skip
    table = markdown_table(head, rows, ["---", *["---:"] * 5])
    return [
        *table, "", f"Each GPU needs {gpu_memory(plan) / 1e9:.1f} GB at the peak of a step; the checkpoints of the "
        f"training that is running take {_amount(checkpoint_bytes(plan) / 1e9)} GB for a moment. Rates: "
        f"{plan.trained_per_second:,g} tokens per second and GPU in training, {plan.sampled_per_second:,g} in "
        f"sampling; {plan.tokens_per_pair:g} tokens per pair.",
    ]  # fmt: skip


def _amount(value: float) -> str:
    """Return an amount in whole units, and one below ten with two digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _power(plan: Plan, bound: float) -> list[str]:
    rows = [
        [row["arm"], f"{row['expected']:+.0%}", f"{row['between_seeds']:.0%}", f"{row['spread']:.1%}",
         f"{row['power']:.1%}", f"{row['half']:.1%}", _number(row["seeds"]), f"{row['none']:.1%}",
         _number(row["none_seeds"])]
        for row in power_table(plan, bound=bound).to_dict("records")
    ]  # fmt: skip
    head = ["data", "the paper's difference", "seeds differ by (sd)", "spread of one seed", f"power, {len(plan.seeds)} "
            "seeds", "power for half of it", "seeds for 80% power for half of it", "power to show no difference, "
            f"{len(plan.seeds)} seeds", "seeds for 80% of it"]  # fmt: skip
    return markdown_table(head, rows, ["---", *["---:"] * 8])


def _number(seeds: Any) -> str:
    """Return a number of seeds, or that none will do."""
    return "none" if pd.isna(seeds) else f"{seeds}"
