"""List the losses by family, or print all that is known of some: source, convention, ratio, signs, who ships them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gradlab.cli.options import parsed
from gradlab.console import say, wrapped

if TYPE_CHECKING:
    from gradlab.losses import BatchLoss, KnownLoss

_WIDTH = 110
_SYMBOLS = (
    "h_w = log π(y_w)/π_ref(y_w) of the preferred response y_w, h_l the same of the dispreferred one.",
    "`gradlab losses KEY` prints all that is known of a loss: source, convention, signs, who ships it, ….",
)


@dataclasses.dataclass(frozen=True)
class LossesCommand:
    """The options of ``gradlab losses``."""

    keys: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[KEY …]", help_behavior_hint="")] = ()
    """Losses whose whole entry is printed, as registered or as FILE.py:CLASS; none: one line for every loss."""

    def run(self) -> int:
        """Print the registry, or entries of it."""
        if not self.keys:
            say(losses_table())
            return 0
        from gradlab.losses import from_text

        say("\n\n".join([entry(from_text(key)) for key in self.keys]))
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(LossesCommand, "losses", __doc__, arguments).run()


def losses_table() -> str:
    """Return the registry as text: name and equation of each loss, by family; then the meaning of the symbols."""
    from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, family_of

    losses = [make() for make in (*PAIR_LOSSES.values(), *BATCH_LOSSES.values())]
    width = max(len(loss.name) for loss in losses) + 4
    lines = []
    for family in dict.fromkeys(map(family_of, losses)):
        lines.append(family)
        for loss in losses:
            if family_of(loss) == family:
                lines += wrapped(loss.equation, _WIDTH, f"{'  ' + loss.name:<{width}}")
        lines.append("")
    return "\n".join([*lines, *_SYMBOLS])


def entry(loss: KnownLoss | BatchLoss) -> str:
    """Return all that is known of a loss as text: a line for each fact that it states."""
    facts = [(title, text) for title, text in _facts(loss) if text]
    width = max(len(title) for title, _ in facts) + 4
    lines = [f"{loss.name}: {loss.label}"]
    for title, text in facts:
        lines += wrapped(text, _WIDTH, f"{'  ' + title:<{width}}")
    return "\n".join(lines)


def _facts(loss: KnownLoss | BatchLoss) -> Iterator[tuple[str, str]]:
    from gradlab.losses import family_of
    from gradlab.losses.registry import numbers_of

    known = {name: getattr(loss, name, "") for name in ("convention", "rho", "optimum", "start_equation")}
    yield "equation", loss.equation
    yield "source", loss.source
    yield "family", family_of(loss)
    yield "numbers", _numbers({name: value for name, value in numbers_of(loss).items() if not isinstance(value, bool)})
    yield "published", _numbers(getattr(loss, "published", {}))
    yield "convention", known["convention"]
    yield "needs", _needs(loss)
    yield "ρ", known["rho"]
    yield "at π = π_ref", _start(loss, known["start_equation"])
    yield "signs", _signs(loss)
    yield "least at", known["optimum"]
    yield "bounded", _bounds(loss)
    if _truth(loss, "antisymmetric"):
        yield "symmetry", "antisymmetric: −log σ of what changes sign when the two responses trade places"
    for at, one in enumerate(getattr(loss, "shipped", ())):
        parts = [f"{one.library}: {one.key}", f"here {_numbers(one.hyper)}" if one.hyper else "", one.remark]
        yield "" if at else "shipped", "; ".join(part for part in parts if part)
    for at, note in enumerate(getattr(loss, "notes", ())):
        yield "" if at else "notes", note


def _numbers(numbers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in numbers.items())


def _truth(loss: Any, name: str) -> bool:
    return bool(getattr(loss, name, False))


def _needs(loss: Any) -> str:
    needed = [("lengths", _truth(loss, "needs_lengths")), ("a reference", getattr(loss, "needs_reference", True))]
    return " and ".join(name for name, yes in needed if yes) or "neither lengths nor a reference"


def _start(loss: Any, equation: str) -> str:
    value = getattr(loss, "start_value", None)
    if value is None:
        return "differs from pair to pair"
    return f"{equation} = {value:.4g}" if equation and equation != f"{value:g}" else f"{value:.4g}"


def _signs(loss: Any) -> str:
    down = "lowers log π_w of some pairs" if _truth(loss, "winner_down") else "never lowers log π_w"
    up = "raises log π_l of some pairs" if _truth(loss, "loser_up") else "never raises log π_l"
    return f"{down}, {up}"


def _bounds(loss: Any) -> str:
    ends = [name for name in ("below", "above") if _truth(loss, f"bounded_{name}")]
    return " and ".join(ends) or "neither below nor above"
