"""The plan of a study: everything that is decided before the first answer, in a TOML file that a person writes.

A plan becomes a study when it is frozen (``gradlab.study.frozen``): the texts of the systems are then part of it, and a
hash of all of it stands in every answer. A changed plan is another study.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from gradlab.checks import between, count, of_kind, one_of, toml_file
from gradlab.store.files import write_whole
from gradlab.study.texts import LONGEST_NOTE, check_file_names, named_in, readable

Rule = Literal["fixed", "precision"]
Population = Literal["like these", "these"]
Identical = Literal["refuse", "tie"]
EVERYBODY = "all raters"  # stands for them in tables, so no rater may be called so


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal by which responses are compared, such as helpfulness; each item is answered once per goal."""

    name: str
    """Name in tables and files."""
    question: str
    """The question that raters read above two responses."""


@dataclass(frozen=True, kw_only=True)
class Primary:
    """The question that the study is made for: is ``b`` preferred to ``a`` by this goal?"""

    a: str
    """The system that is compared with, such as dpo."""
    b: str
    """The system in question, such as bdpo."""
    goal: str
    """The name of a goal; by this one the verdict is said."""
    margin: float
    """The size of win-rate − ½, in (0, ½), below which it does not matter which system one takes."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """Who rates how many items, and how often an item comes back."""

    items_per_rater: int = 50
    """Different items that each rater sees, repeats and attention checks not counted."""
    raters_per_item: int = 2
    """Different raters who see an item."""
    repeats: float = 0.1
    """Share of a rater's items that the same rater sees a second time, with sides exchanged: self-agreement."""
    both_orders: float = 0.5
    """Share of the items that half of their raters see in one order and half in the other; the other items' sides are
    drawn for each rater."""
    attention: int = 4
    """Attention checks per rater: items whose better response is beyond doubt. Two let half of the careless raters
    pass, four a tenth (``figures/STUDY.md``)."""
    ties: bool = True
    """Let raters say that both are equally good."""
    identical: Identical = "refuse"
    """Where both systems wrote the same text: ``refuse`` the plan, or count a ``tie`` that nobody is shown."""


@dataclass(frozen=True, kw_only=True)
class Exclusions:
    """Rules by which a rater's answers are left out, all decided before; the result without them is shown beside it."""

    attention: float = 0.75
    """Attention checks that a rater must pass, as a share. A check is passed where the better response is preferred by
    one goal or more, and the worse one by none: by a goal that it does not touch, both may be equally good."""
    self_agreement: float = 0.0
    """Repeats that a rater must answer alike, as a share."""
    one_side: float = 0.9
    """The largest share of decided answers that may be for one side of the screen."""
    seconds: float = 0.0
    """The shortest median time per task, in seconds, over all its goals."""
    items: int = 5
    """The fewest items that a rater must have answered."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When the study ends."""

    rule: Rule = "fixed"
    """``fixed``: when every item is answered. ``precision``: when the interval of the primary win-rate is narrow
    enough, or the items are used up; it looks at the interval's width and never at its place."""
    half_width: float | None = None
    """Of ``precision``: half the width of the 95% interval at which the study ends."""
    least_items: int = 30
    """Of ``precision``: items that must have been answered before."""


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """How the answers are analysed; anything else in the report is called exploratory."""

    population: Population = "like these"
    """``like these``: raters and prompts are samples, and the interval speaks of others like them. ``these``: it speaks
    of these raters, and of prompts like these."""
    position: bool = True
    """Estimate how much the side of the screen counts."""
    length: bool = True
    """Estimate the win-rate at equal length, beside the one as it is."""
    strata: bool = True
    """Report the win-rate of each stratum of prompts too."""
    pool_judges: bool = False
    """Count judges that are models among the raters; else they are reported beside people."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, checked. ValueError in one line names field, value and what would be accepted.

    Sources of the design are in ``docs/how-to/human-study.md``; its choices are ours.
    """

    title: str
    """A title, which raters read too; it should not say what is hoped for."""
    systems: dict[str, str]
    """Two systems or more, and for each a file of samples or a model folder of ``gradlab train``.

    Samples are JSON lines with ``prompt`` and ``samples``, as ``gradlab evaluate`` writes them, or with ``prompt`` and
    ``response``."""
    goals: tuple[Goal, ...]
    """Goals, one or more."""
    primary: Primary
    """The question of the study."""
    raters: tuple[str, ...]
    """Pseudonyms of the raters, by which their pages and answers are called: up to 64 letters, digits, spaces, '-', '_'
    and '.'; so neither an address nor a path."""
    prompts: str | None = None
    """A file of prompts (JSON lines with ``prompt`` and ``stratum``); left out: the prompts of all systems' samples, in
    one stratum."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of systems that are compared; left out: all."""
    judges: tuple[str, ...] = ()
    """Names of judges that are models: a reward model, a classifier or a function, as ``gradlab evaluate`` takes it."""
    design: Design = field(default_factory=Design)
    exclusions: Exclusions = field(default_factory=Exclusions)
    stop: Stop = field(default_factory=Stop)
    analysis: Analysis = field(default_factory=Analysis)
    content_warning: str = ""
    """A warning that raters read before they begin; empty: none."""
    seed: int = 0
    """Seed by which items, order and sides are drawn."""

    def __post_init__(self) -> None:
        _check_names(self)
        _check_primary(self)
        _check_design(self)
        _check_exclusions(self.exclusions)
        _check_stop(self.stop)
        one_of("analysis.population", self.analysis.population, get_args(Population))
        for name in ("position", "length", "strata", "pool_judges"):
            of_kind(f"analysis.{name}", getattr(self.analysis, name), bool, "true or false")
        count("seed", self.seed)

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """Return the pairs of systems that are compared, the primary one first, each as (a, b)."""
        first = (self.primary.a, self.primary.b)
        pairs = self.pairs or tuple(combinations(self.systems, 2))
        return (first, *(pair for pair in pairs if set(pair) != set(first)))

    @property
    def items(self) -> int:
        """Return how many items, each a prompt and a pair of systems, are rated."""
        return len(self.raters) * self.design.items_per_rater // self.design.raters_per_item

    @classmethod
    def read(cls, path: Path | str) -> Plan:
        """Return the plan in a TOML file, to whose folder its paths are relative; ValueError or OSError in one line."""
        return plan_of(toml_file("plan", path), str(path))

    def write(self, path: Path | str) -> None:
        """Write the plan as TOML, so that ``read`` gives an equal one."""
        import tomli_w

        write_whole({Path(path): tomli_w.dumps(as_page(self))})


def as_page(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain dictionaries, lists, texts and numbers, without the fields that are None."""
    return _without_none(dataclasses.asdict(plan))


_SECTIONS: dict[str, type] = {
    "primary": Primary, "design": Design, "exclusions": Exclusions, "stop": Stop, "analysis": Analysis,
}  # fmt: skip


def plan_of(page: Mapping[str, Any], place: str = "plan") -> Plan:
    """Return the plan that a page says, as ``as_page`` makes it; ValueError in one line that begins with ``place``."""
    try:
        given = _fields(Plan, page, "")
        for name, kind in _SECTIONS.items():
            if name in given:
                given[name] = kind(**_fields(kind, given[name], f"{name}."))
        if "goals" in given:
            goals = _list("goals", given["goals"], "tables [[goals]] with name and question")
            given["goals"] = tuple(Goal(**_fields(Goal, goal, "goals.")) for goal in goals)
        for name in ("raters", "judges"):
            if name in given:
                given[name] = tuple(_list(name, given[name], "a list of names"))
        if "pairs" in given:
            pairs = [_list("pairs", pair, 'lists like ["dpo", "bdpo"]') for pair in _list("pairs", given["pairs"], "")]
            given["pairs"] = tuple((pair[0], pair[1]) if len(pair) == 2 else tuple(pair) for pair in pairs)
        return Plan(**given)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _fields(kind: type, page: Any, section: str) -> dict[str, Any]:
    """Return the fields that a table gives for a record of this kind; ValueError for unknown and missing ones."""
    known = {item.name: item for item in dataclasses.fields(kind)}
    table = of_kind(section.rstrip(".") or "the file", page, Mapping, "a table")
    for name in table:
        one_of("field", f"{section}{name}", [f"{section}{other}" for other in known])
    missing = dataclasses.MISSING
    for name, item in known.items():
        if item.default is missing and item.default_factory is missing and name not in table:
            raise ValueError(f"{section}{name} must be given")
    return dict(table)


def _list(name: str, value: Any, such_as: str) -> list[Any]:
    return list(of_kind(name, value, (list, tuple), such_as or "a list"))


def _without_none(page: Any) -> Any:
    if isinstance(page, dict):
        return {name: _without_none(value) for name, value in page.items() if value is not None}
    return [_without_none(value) for value in page] if isinstance(page, (list, tuple)) else page


# Checks


def _check_names(plan: Plan) -> None:
    readable("title", plan.title, LONGEST_NOTE, empty=True)
    readable("content_warning", plan.content_warning, LONGEST_NOTE, empty=True)
    of_kind("systems", plan.systems, Mapping, "a table of names and files")
    if len(plan.systems) < 2:
        raise ValueError(f"systems must name two or more, got {', '.join(map(str, plan.systems)) or 'none'}")
    for name, source in plan.systems.items():
        _check_name("systems", name)
        of_kind(f"systems.{name}", source, str, "a file of samples or a model folder")
    if plan.prompts is not None and not (isinstance(plan.prompts, str) and plan.prompts.strip()):
        raise ValueError(f"prompts must be a file of prompts, got {plan.prompts!r}")
    _check_unique("goals", [goal.name for goal in plan.goals])
    check_file_names("goals", [goal.name for goal in plan.goals])
    for goal in plan.goals:
        readable("goals.question", goal.question, LONGEST_NOTE)
    _check_unique("raters", plan.raters)
    check_file_names("raters", plan.raters)
    if EVERYBODY in [rater.casefold() for rater in plan.raters]:
        raise ValueError(f"raters must have other names than {EVERYBODY!r}, which stands for all of them")
    if plan.judges:
        _check_unique("raters and judges", (*plan.raters, *plan.judges))
    read = [("title", plan.title), ("content_warning", plan.content_warning)]
    for what, text in (*read, *(("goals.question", goal.question) for goal in plan.goals)):
        name = named_in(text, plan.systems)
        if name is not None:
            raise ValueError(f"{what} must not name a system, since raters read it; got {text!r} with {name!r}")


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not name or name.strip() != name or not name.isprintable():
        raise ValueError(f"{what} must have names on one line, without white space around them, got {name!r}")


def _check_unique(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ValueError(f"{what} must be one or more, got none")
    for name in names:
        _check_name(what, name)
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ValueError(f"{what} must have each name once, got {twice!r} twice")


def _check_primary(plan: Plan) -> None:
    primary = plan.primary
    for side, system in (("a", primary.a), ("b", primary.b)):
        one_of(f"primary.{side}", system, plan.systems)
    if primary.a == primary.b:
        raise ValueError(f"primary.a and primary.b must differ, got {primary.a!r} twice")
    one_of("primary.goal", primary.goal, [goal.name for goal in plan.goals])
    between("primary.margin", primary.margin, 0, 0.5, open_low=True, open_high=True)
    for pair in plan.pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"pairs must each name two different systems, got {list(pair)}")
        for system in pair:
            one_of("pairs", system, plan.systems)
    if plan.pairs and not any(set(pair) == {primary.a, primary.b} for pair in plan.pairs):
        raise ValueError(f"pairs must hold the primary one, {primary.a} and {primary.b}")
    seen = [frozenset(pair) for pair in plan.pairs]
    twice = next((pair for place, pair in enumerate(plan.pairs) if seen[place] in seen[:place]), None)
    if twice is not None:
        raise ValueError(f"pairs must each stand once, in either order, got {list(twice)} twice")


def _check_design(plan: Plan) -> None:
    design, raters = plan.design, len(plan.raters)
    count("design.items_per_rater", design.items_per_rater, 1)
    count("design.raters_per_item", design.raters_per_item, 1)
    count("design.attention", design.attention)
    of_kind("design.ties", design.ties, bool, "true or false")
    one_of("design.identical", design.identical, get_args(Identical))
    for name in ("repeats", "both_orders"):
        between(f"design.{name}", getattr(design, name), 0, 1)
    if design.raters_per_item > raters:
        raise ValueError(
            f"design.raters_per_item must be at most the number of raters, {raters}, got {design.raters_per_item}"
        )
    if plan.items < len(plan.compared):
        raise ValueError(
            f"design.items_per_rater must give each of the {len(plan.compared)} pairs of systems an item; "
            f"{raters} raters with {design.items_per_rater} items each, {design.raters_per_item} raters per item, "
            f"are {plan.items} items"
        )


def _check_exclusions(rules: Exclusions) -> None:
    for name in ("attention", "self_agreement"):
        between(f"exclusions.{name}", getattr(rules, name), 0, 1)
    between("exclusions.one_side", rules.one_side, 0.5, 1)
    between("exclusions.seconds", rules.seconds, 0)
    count("exclusions.items", rules.items)


def _check_stop(stop: Stop) -> None:
    one_of("stop.rule", stop.rule, get_args(Rule))
    count("stop.least_items", stop.least_items, 2)
    if stop.rule == "fixed" and stop.half_width is not None:
        raise ValueError(f"stop.half_width must be left out where stop.rule is fixed, got {stop.half_width!r}")
    if stop.rule == "precision":
        value = math.nan if stop.half_width is None else stop.half_width
        between("stop.half_width", value, 0, 0.5, open_low=True, open_high=True)
