"""``gradlab study power``: how likely a plan finds an effect, and the fewest answers that do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradlab.checks import between, number_of, one_of
from gradlab.cli.options import OPTIONAL
from gradlab.console import say, wrapped
from gradlab.given_once import named_texts

if TYPE_CHECKING:
    from gradlab.study import Plan, Power, RaterModel

PLAN = tyro.conf.arg(metavar="PLAN.toml", help_behavior_hint="(required)")
_PLANS = tyro.conf.arg(help_behavior_hint="(left out: the plan's)")
_RATER = tyro.conf.arg(metavar="NAME=NUMBER", help_behavior_hint="")
_LEANINGS = ("tie", "raters", "prompts", "position", "careless", "fatigue")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerCommand:
    """Simulate power and precision over effects and designs, and propose the fewest answers.

    Raters are simulated, and their answers analysed as the plan says. How raters lean and differ is a guess: try others
    by --rater.
    """

    plan: Annotated[tyro.conf.Positional[Path], PLAN]
    """The plan's TOML file."""
    effects: tuple[float, ...] = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
    """True win-rates − ½."""
    raters: Annotated[tuple[int, ...], _PLANS] = ()
    """Numbers of raters to try."""
    items: Annotated[tuple[int, ...], _PLANS] = ()
    """Numbers of items per rater to try."""
    raters_per_item: Annotated[tuple[int, ...], _PLANS] = ()
    """Numbers of raters per item to try."""
    effect: Annotated[float | None, OPTIONAL] = None
    """The effect at which --target is to be reached; left out: the least of --effects beyond the plan's margin."""
    target: float = 0.8
    """Power to be reached."""
    half_width: Annotated[float | None, OPTIONAL] = None
    """Half-width of the 95% interval to be reached; left out: the stop rule's, or the plan's margin."""
    rater: Annotated[tuple[str, ...], _RATER] = ()
    """The raters who are simulated: tie, raters, prompts, position, careless, fatigue; as in raters=0.5
    careless=0.1."""
    simulations: int = 400
    """Simulated studies per effect and design."""
    seed: int = 0
    """Seed of the simulations."""
    figure: Annotated[Path | None, OPTIONAL] = None
    """Also draw power and precision into this file, which must not exist yet (its name ends in .png or .pdf)."""
    json: bool = False
    """Print JSON in place of a table."""

    def run(self) -> int:
        """Simulate, print, draw."""
        from gradlab.study import Plan, power

        plan = Plan.read(self.plan)
        wanted = (self.half_width, plan.stop.half_width, plan.primary.margin)
        half_width = next(width for width in wanted if width is not None)
        between("half_width", half_width, 0, 0.5, open_low=True, open_high=True)
        between("target", self.target, 0, 1, open_low=True, open_high=True)
        effect = self._effect(plan.primary.margin)
        if self.figure is not None:
            _check_figure(self.figure, self.raters, self.items, self.raters_per_item)
        found = power(
            plan, effects=self.effects, raters=self.raters, items=self.items, raters_per_item=self.raters_per_item,
            simulations=self.simulations, model=rater_model(self.rater), seed=self.seed,
        )  # fmt: skip
        proposals = {
            f"{self.target:.0%} power at a true win-rate of {0.5 + effect:.1%}": found.cheapest(effect, self.target),
            f"a half-width of {half_width:.1%} at every effect": found.narrowest(half_width),
        }
        say(_as_json(found, proposals) if self.json else "\n".join([*_as_text(found), "", *_proposed(proposals)]))
        if self.figure is not None:
            _draw(found, self.target, half_width, self.figure)
            if not self.json:
                say(f"\nsaved: {self.figure}")
        return 0

    def _effect(self, margin: float) -> float:
        if self.effect is not None:
            from gradlab.study.planned_power import check_simulated

            check_simulated(self.effect, self.effects)
            return self.effect
        return min((effect for effect in self.effects if effect > margin), default=max(self.effects, default=margin))


def rater_model(numbers: Sequence[str]) -> RaterModel:
    """Return simulated raters from texts NAME=NUMBER; ValueError in one line for anything else."""
    from gradlab.study import RaterModel

    given = {}
    for name, value in named_texts("rater", "NAME=NUMBER, as in careless=0.1", numbers).items():
        given[one_of("rater", name, _LEANINGS)] = number_of(f"rater {name}", float, value)
    return RaterModel(**given)


def design_in_words(plan: Plan) -> str:
    """Return who rates how much by a plan, and how many answers that takes."""
    from gradlab.study.planned_power import answers_asked

    design, raters = plan.design, len(plan.raters)
    return (
        f"{raters} raters, {design.items_per_rater} items each, {design.raters_per_item} per item: {plan.items} items, "
        f"{answers_asked(plan):,} answers"
    )


def _as_text(found: Power) -> list[str]:
    from gradlab.study.planned_power import DESIGN, NOT_SIMULATED, with_design

    primary = found.plan.primary
    lines = []
    for _, rows in found.frame.groupby(DESIGN):
        design = with_design(found.plan, *(int(rows[name].iloc[0]) for name in DESIGN))
        lines += [design_in_words(design), f"{'win-rate':>10}{primary.b + ' preferred':>26}{'beyond margin':>15}"
                  f"{'no difference':>15}{'half-width':>12}{'coverage':>10}"]  # fmt: skip
        for row in rows.to_dict("records"):
            power = f"{row['power']:.1%} [{row['power_low']:.1%}, {row['power_high']:.1%}]"
            lines.append(f"{0.5 + row['effect']:>10.1%}{power:>26}{row['beyond_margin']:>15.1%}"
                         f"{row['equivalent']:>15.1%}{row['half_width']:>12.1%}{row['coverage']:>10.1%}")  # fmt: skip
        lines.append("")
    model = ", ".join(f"{name} {value:g}" for name, value in vars(found.model).items() if name in _LEANINGS)
    return [*lines, *wrapped(f"Simulated raters: {model}; log odds, and shares. {NOT_SIMULATED}", 100)]


def _proposed(proposals: dict[str, Plan | None]) -> list[str]:
    lines = []
    for aim, plan in proposals.items():
        said = "reached by no design that was tried; try more --raters or --items" if plan is None else (
            f"the fewest answers: {design_in_words(plan)}"
        )  # fmt: skip
        lines += wrapped(f"{aim}: {said}.", 100)
    return lines


def _as_json(found: Power, proposals: dict[str, Plan | None]) -> str:
    from gradlab.study.planned_power import NOT_SIMULATED, answers_asked
    from gradlab.study.texts import json_page

    designs = {
        aim: None if plan is None else {
            "raters": len(plan.raters), "items_per_rater": plan.design.items_per_rater,
            "raters_per_item": plan.design.raters_per_item, "answers": answers_asked(plan),
        }
        for aim, plan in proposals.items()
    }  # fmt: skip
    page = {
        "rows": found.frame.to_dict("records"), "proposals": designs, "raters": vars(found.model),
        "not_simulated": NOT_SIMULATED,
    }  # fmt: skip
    return json_page(page)


def _check_figure(file: Path, *tried: Sequence[int]) -> None:
    """Raise ValueError or FileExistsError for a figure that cannot be drawn; better before the work than after."""
    from gradlab.study.pictures import MOST

    number = math.prod(len(set(numbers)) or 1 for numbers in tried)
    if number > MOST:
        raise ValueError(f"figure must have at most {MOST} designs, got {number}; try fewer raters or items")
    if file.suffix not in (".png", ".pdf"):
        raise ValueError(f"figure must name a file that ends in .png or .pdf, got {str(file)!r}")
    if file.exists():
        raise FileExistsError(f"figure must name a file that is not there yet, got {str(file)!r}")


def _draw(found: Power, target: float, half_width: float, file: Path) -> None:
    from gradlab.plotting.chart_figure import drawn
    from gradlab.plotting.looks import WIDTH, draw
    from gradlab.study.pictures import power_charts

    charts = power_charts(found, target, half_width)
    draw(lambda: {file.stem: drawn(charts, width=WIDTH)}, file.parent, kinds=(file.suffix.removeprefix("."),))
