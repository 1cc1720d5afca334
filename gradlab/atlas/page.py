"""The atlas as files: ATLAS.md with a picture per loss, and atlas.csv."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.atlas import multiples
from gradlab.atlas.measure import measured
from gradlab.atlas.rows import TRAINED, Known, as_published, in_words, table
from gradlab.atlas.trained import trainings
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, BatchLoss, family_of
from gradlab.losses.registry import YOURS, numbers_of
from gradlab.plotting.chart_scales import spelt
from gradlab.plotting.looks import draw
from gradlab.store.csv_text import csv_text
from gradlab.store.files import write_whole
from gradlab.store.markdown import markdown_table
from gradlab.store.provenance import fingerprint, module_hash, versions
from gradlab.store.stamps import read_stamp, write_stamp

PAGE, CSV, PICTURES, HOW, MAP = "ATLAS.md", "atlas.csv", "atlas", "how-to-read", "atlas-map"
OF_TRAININGS = {
    MAP: "All losses around DPO: what they do to winners, losers and all else",
    "atlas-frontier-reward": "reward against KL",
    "atlas-frontier-unobserved": "unobserved mass against KL", "atlas-factors": "one factor at a time",
}  # fmt: skip
"""Figures of the trainings, drawn elsewhere, which the page shows or links where they are there."""
FIRST = ("key", "family", "convention", "source", "rho", "start", "winner_down", "loser_up", "bounded", "lengths")
"""The first columns of atlas.csv, which others read; more may follow them."""
TOKENS = 200  # length of the answers for which conventions are converted
WRITTEN = "Written by `make figures`"


def write(
    folder: Path, trained: pd.DataFrame | Path | None = None, *, note: str = "", fresh: bool = False
) -> list[Path]:
    """Write ATLAS.md, atlas.csv and, where they are not current, the pictures; return the pictures that were drawn.

    A picture that an earlier call drew of a loss that is no longer registered is removed; other files stay.

    folder   that of the figures; the pictures go into ``atlas`` in it.
    trained  trainings, see ``table``, or their file; None: the page has what is measured, and no trainings.
    note     a line below the page's title, such as that this is only a quick run.
    fresh    draw all pictures again.
    """
    frame = None if trained is None else trainings(trained)
    losses = registered()
    drawn = _draw(losses, frame, folder, fresh)
    rows = table(losses, frame)
    write_whole({folder / PAGE: page(losses, rows, note, _of_trainings(folder)), folder / CSV: as_csv(rows)})
    return drawn


def registered() -> list[Known]:
    """Return gradlab's losses as published, of pairs and of batches, family by family; a user's own are left out."""
    every = [as_published(make()) for make in (*PAIR_LOSSES.values(), *BATCH_LOSSES.values())]
    families = [family for family in dict.fromkeys(map(family_of, every)) if family != YOURS]
    return sorted(
        (loss for loss in every if family_of(loss) != YOURS), key=lambda loss: families.index(family_of(loss))
    )


def as_csv(rows: pd.DataFrame) -> str:
    """Return the table of the atlas as CSV, with the columns in ``FIRST`` first."""
    rest = [column for column in rows if column not in FIRST]
    return csv_text(rows[[*FIRST, *rest]])


def files(folder: Path) -> list[Path]:
    """Return the files that ``write`` writes into a folder."""
    names = (HOW, *(loss.name for loss in registered()))
    return [folder / PAGE, folder / CSV, _stamp(folder), *(folder / PICTURES / f"{name}.png" for name in names)]


def _stamp(folder: Path) -> Path:
    return folder / "data" / "atlas-page.figures.json"


def _draw(losses: Sequence[Known], trained: pd.DataFrame | None, folder: Path, fresh: bool) -> list[Path]:
    """Draw what is not current: a picture depends on the loss, its trainings, the sources and the library."""
    stamp = _stamp(folder)
    code = fingerprint(module_hash(multiples.__name__), versions(["matplotlib"]))
    keys = {loss.name: fingerprint(code, repr(loss), _part(trained, loss.name)) for loss in losses} | {HOW: code}
    former = read_stamp(stamp)
    place = folder / PICTURES
    todo = [name for name, key in keys.items()
            if fresh or former.get(name) != key or not (place / f"{name}.png").exists()]  # fmt: skip
    by_name = {loss.name: loss for loss in losses}
    found = []
    for name in todo:
        make = functools.partial(_figures, name, by_name.get(name), trained)
        found += draw(make, place, kinds=("png",))
    for file in place.glob("*.png"):  # what else lies there is not ours
        if file.stem in former.keys() - keys.keys():
            file.unlink()
    if todo or former.keys() != keys.keys():
        write_stamp(stamp, keys, indent=1)
    return found


def _figures(name: str, loss: Known | None, trained: pd.DataFrame | None) -> dict[str, Any]:
    if loss is not None:
        return {name: multiples.row(measured(loss), trained)}
    shown = (measured(PAIR_LOSSES[key]()) for key in ("bdpo", "cdpo", "dpo"))
    return {name: multiples.how_to_read(*shown)}


def _part(trained: pd.DataFrame | None, name: str) -> str:
    """Return the trainings that a picture shows, as text: those of the loss, and DPO's."""
    return "" if trained is None else trained[trained["loss"].isin((name, "dpo"))].to_json()


def page(losses: Sequence[Known], rows: pd.DataFrame, note: str = "", of_trainings: Sequence[str] = ()) -> str:
    """Return ATLAS.md.

    rows  the table of these losses. note: a line below the title. of_trainings: lines about the trained losses.
    """
    lines = [
        "# The atlas of preference losses", "", *([note, ""] if note else []),
        f"{len(losses)} losses, each measured in the same way from its values and slopes, with the numbers that its"
        f" source sets. `gradlab atlas` prints the rows, [{CSV}]({CSV}) has them, and"
        f' `gl.atlas.compare(["dpo", "ipo"])` puts losses beside each other in a notebook. {WRITTEN}; do not edit.',
        "", "## Which losses do what", "", *_opening(losses, rows), "", *_SYMBOLS.splitlines(), *of_trainings,
        "", "## All losses", "", *_table(rows),
        "", "## How to read the pictures", "", *_reading(rows),
    ]  # fmt: skip
    family = None
    for place, loss in enumerate(losses):
        if family_of(loss) != family:
            family = family_of(loss)
            lines += ["", f"## Family: {family}"]
        lines += ["", *_section(loss, rows.iloc[place])]
    lines += ["", "## Where papers and code disagree", "", *_disagreements(losses)]
    return "\n".join(lines) + "\n"


def _opening(losses: Sequence[Known], rows: pd.DataFrame) -> Iterator[str]:
    """Yield which losses do what, one line per answer."""
    optima = [measured(loss).optimum for loss in losses]
    attained = pd.Series([one is not None and one.attained for one in optima], rows.index)
    partly = pd.Series([one is not None and not one.attained for one in optima], rows.index)
    against = (rows["win_slope"] > 0) | (rows["lose_slope"] < 0)
    shares = [_shares(loss) for loss in losses]
    even = pd.Series([max(abs(end - 0.5) for end in ends) < 1e-9 for ends in shares], rows.index)
    answers = [
        ("Never lower a winner and never raise a loser", ~rows["winner_down"] & ~rows["loser_up"]),
        ("Lower the winner on some pairs", rows["winner_down"]),
        ("Raise the loser on some pairs", rows["loser_up"]),
        ("Go against the label at π = π_ref", against),
        ("Push both sides equally hard in log π on every pair (ρ = 1), and never turn", even & ~rows["winner_down"]),
        ("Are least at finite log-probabilities, so that they stop by themselves", attained),
        ("Stop one side by themselves, and never the other", partly),
        ("Have no lower bound", ~rows["bounded"].isin(["below", "both"])),
        ("Have an upper bound, so that very wrong pairs hardly count", rows["bounded"].isin(["above", "both"])),
        ("Need the lengths of responses", rows["lengths"]),
        ("Need no reference model", ~rows["reference"]),
        ("Couple the pairs of a batch", rows["key"].isin(list(BATCH_LOSSES))),
    ]  # fmt: skip
    for words, chosen in answers:
        names = [f"[{key}](#{key})" for key in rows.loc[chosen, "key"]]
        yield f"- **{words}**: {', '.join(names) if names else 'none'}."
    if "win" in rows:
        for words, chosen in (
            (
                "Raised the winners' mean log π in the lab (responses of one token), trained as published",
                rows["win"] > 0,
            ),
            ("Lowered it", rows["win"] < 0),
        ):
            names = [f"[{key}](#{key})" for key in rows.loc[chosen, "key"]]
            yield f"- **{words}**: {', '.join(names) if names else 'none'}."


def _shares(loss: Known) -> tuple[float, float]:
    """Return the ends of λ_w: for a loss of batches as it states them, since a batch of one pair shows another loss."""
    return loss.weight_range if isinstance(loss, BatchLoss) else measured(loss).weight_range


_SYMBOLS = """\
h = log π − log π_ref, of the winner w and the loser l; L: tokens of a response; σ: the logistic function;
ρ = |∂L/∂log π_w| / |∂L/∂log π_l|. Signs are searched for at log-ratios up to 10⁴ nats, with equal and unequal lengths
and references, and bounds up to 10⁶ nats. Slopes at π_ref are in log π_w and log π_l, for responses of 100 tokens with
one nat each. Signs and bounds of losses of batches are as stated, the rest is that of batches of one pair."""
_READING = """\
First, log₂ ρ over the probabilities of winner and loser, for responses of one token and π_ref = 0.05 (the ring): grey
where both slopes are equal, dark where the winner's is larger, light where the loser's is; at the ends of the scale it
is eight times as large, or more. Second, over h_w and h_l, for responses of 100 tokens with one nat each under π_ref:
white where descent raises the winner, grey where it leaves it, brown where it lowers it; cells are struck through where
it raises the loser. Third, where a small step of descent on the logits leads, over the probabilities: dark arrows where
the winner moves farther, light ones where the loser does. Axes of h are linear near 0, and logarithmic beyond 1. Losses
of batches are drawn in batches of one pair."""
_TRAININGS = """\
Last, reward against KL as β moves, in the lab (means over seeds); DPO's curve is grey and dashed."""
_HEAD = ("loss", "family", "winner down", "loser up", "ρ", "least at", "bounded", "value at π_ref", "slope of winner",
         "slope of loser", "lengths", "reference")  # fmt: skip
_TRAINED_HEAD = {"reward": "E[u]", "kl": "KL", "unobserved": "unobserved mass", "win": "Δ log π_w", "lose": "Δ log π_l"}


def _of_trainings(folder: Path) -> list[str]:
    """Return the map of trained losses as a picture, and links to the further figures; [] where nothing is drawn."""
    there = {name: words for name, words in OF_TRAININGS.items() if (folder / f"{name}.png").exists()}
    if MAP not in there:
        return []
    links = ", ".join(f"[{words}]({name}.png)" for name, words in there.items() if name != MAP)
    further = f" More of the trainings: {links}." if links else ""
    return ["", f"![{there[MAP]}]({MAP}.png)", "", f"How to read it: [README.md](README.md).{further}"]


def _table(rows: pd.DataFrame) -> list[str]:
    columns = [column for column in TRAINED if column in rows]
    head = [*_HEAD, *(_TRAINED_HEAD[column] for column in columns)]
    return markdown_table(head, [_cells(row, columns) for _, row in rows.iterrows()])


def _cells(row: pd.Series, columns: Sequence[str]) -> list[str]:
    return [
        f"[{row['key']}](#{row['key']})", row["family"], _yes(row["winner_down"]), _yes(row["loser_up"]),
        row["rho"] or "—", row["optimum"] or "—", row["bounded"], _number(row["start"], "differs"),
        _number(row["win_slope"]), _number(row["lose_slope"]), _yes(row["lengths"]), _yes(row["reference"]),
        *(_number(row[column], "—") for column in columns),
    ]  # fmt: skip


def _reading(rows: pd.DataFrame) -> list[str]:
    text = [*_READING.splitlines(), *_TRAININGS.splitlines() * ("win" in rows)]
    return [f"![How to read the pictures]({PICTURES}/{HOW}.png)", "", *text]


def _section(loss: Known, row: pd.Series) -> list[str]:
    """Return the section of one loss; its heading is the key, to which the tables lead."""
    value = _number(row["start"], "another one for every pair")
    value = f"{loss.start_equation} = {value}" if loss.start_equation and not math.isnan(row["start"]) else value
    lines = [
        f"### {loss.name}", "", f"**{loss.label}**: `{loss.equation}`. Source: {_linked(loss.source)}.", "",
        f"![{loss.name}: maps of ρ, of directions and of a step]({PICTURES}/{loss.name}.png)", "",
        f"- ρ = {loss.rho or 'not stated'}.",
        f"- At π = π_ref the value is {value}; the slopes in log π_w and log π_l are {_number(row['win_slope'])} and"
        f" {_number(row['lose_slope'])}.",
        f"- {_turning(row)} Least at: {row['optimum'] or 'no finite log-probabilities'}. Bounded: {row['bounded']}.",
        f"- Convention: {loss.convention or 'not stated'}.{_converted(loss)}",
        f"- Numbers: {row['numbers']}; {_of_source(loss)}.",
    ]  # fmt: skip
    if isinstance(loss, BatchLoss):
        lines.append("- It couples the pairs of a batch: `fit` takes all pairs of a run for one.")
    lines += [f"- {note}" for note in loss.notes]
    if loss.shipped:
        head = ["shipped by", "as", "with", "remark"]
        cells = ([one.library, f"`{one.key}`", in_words(one.hyper), one.remark or "—"] for one in loss.shipped)
        lines += ["", *markdown_table(head, cells)]
    return lines


def _turning(row: pd.Series) -> str:
    turned = [
        words
        for column, words in (("winner_down", "lowers the winner"), ("loser_up", "raises the loser"))
        if row[column]
    ]
    if not turned:
        return "It raises winners and lowers losers, or leaves them, on every pair."
    return f"On some pairs it {' and '.join(turned)}."


def _converted(loss: Any) -> str:
    """Return how a loss of averages becomes one of sums, for answers of one length."""
    if not hasattr(loss, "summed"):
        return ""
    summed, factor = loss.summed(TOKENS)
    times = "" if math.isclose(factor, 1) else f"{_number(factor)} times "
    return f" On answers of {TOKENS} tokens each it is {times}`{summed.name}` with {in_words(numbers_of(summed))}."


def _disagreements(losses: Sequence[Known]) -> list[str]:
    found = [(loss.name, "", note) for loss in losses for note in loss.notes]
    found += [
        (loss.name, f"{one.library}, `{one.key}`", one.remark) for loss in losses for one in loss.shipped if one.remark
    ]
    order = {loss.name: place for place, loss in enumerate(losses)}
    rows = (
        [f"[{key}](#{key})", words, where or "—"] for key, where, words in sorted(found, key=lambda one: order[one[0]])
    )
    return markdown_table(["loss", "what differs, or surprises", "code"], rows)


def _of_source(loss: Known) -> str:
    """Say which of a loss's numbers its source sets."""
    if not loss.published:
        return "ours, since the source sets none"
    rest = [name for name in numbers_of(loss) if name not in loss.published]
    return f"the source sets {', '.join(loss.published)}" + (f", not {', '.join(rest)}" if rest else "")


def _linked(source: str) -> str:
    """Return a source with its arXiv number as a link."""
    before, found, after = source.partition("arXiv ")
    number = after[:10]
    if not found or not (number[:4].isdigit() and number[4:5] == "."):
        return source
    return f"{before}[arXiv {number}](https://arxiv.org/abs/{number}){after[10:]}"


def _number(value: float, missing: str = "—") -> str:
    return missing if math.isnan(value) else spelt(float(f"{value:.3g}") + 0.0)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
