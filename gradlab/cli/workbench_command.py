"""See a loss of your own with the eyes of the atlas: its row, its training, its frontier beside DPO's, its verdict.

LOSS is a registered loss (with numbers, as simpo:beta=2), FILE.py:CLASS or MODULE:CLASS; or --formula states one in one
line: gradlab workbench --formula "-logsigmoid(beta * (h_w - h_l) - gamma)" --number beta=2 gamma=0.5. A formula is made
of h_w, h_l (log π − log π_ref of winner and loser), l_w, l_l (log π), r_w, r_l (log π_ref), L_w, L_l (lengths in
tokens), your numbers, + - * / ** and functions such as logsigmoid, exp, max and clamp; nothing else is run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from gradlab.checks import number_of, output_folder
from gradlab.cli.options import OPTIONAL, parsed
from gradlab.console import say, wrapped
from gradlab.given_once import named_texts

if TYPE_CHECKING:
    from gradlab.atlas import Workbench

_LOSS = tyro.conf.arg(metavar="[LOSS]", help_behavior_hint="")
_FILES = ("row.csv", "trainings.csv", "verdict.csv", "workbench.png", "vectors.json")
_ENDS = {
    "reward": "expected utility, nats", "kl": "KL to the reference, nats", "unobserved": "mass on unobserved responses",
    "win": "change of the winners' log π, nats", "lose": "change of the losers' log π, nats",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class WorkbenchCommand:
    """The options of ``gradlab workbench``."""

    loss: Annotated[tyro.conf.Positional[str | None], _LOSS] = None
    """The loss: a name, FILE.py:CLASS or MODULE:CLASS, each also with :NAME=NUMBER,…."""
    formula: Annotated[str | None, tyro.conf.arg(metavar="EXPR", help_behavior_hint="")] = None
    """The loss as a formula, in place of LOSS."""
    name: str = "mine"
    """The name of the formula's loss."""
    number: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=NUMBER", help_behavior_hint="")] = ()
    """Numbers of the formula; those left out are 1."""
    seeds: int = 8
    """Worlds in which it is trained beside DPO."""
    out: Annotated[Path | None, OPTIONAL] = None
    """Also write the row, the trainings, the verdict, the figure and the conformance vectors into this folder."""

    def run(self) -> int:
        """Build the loss, train, print, save."""
        if (self.loss is None) == (self.formula is None):
            raise ValueError("loss must be a name or --formula, one of both")
        if self.number and self.formula is None:
            raise ValueError("number must go with --formula; numbers of a loss follow its name, as in dpo:beta=0.5")
        if self.out is not None:
            _check_free(output_folder("out", self.out))
        loss = self._loss()
        from gradlab.atlas import workbench

        seen = workbench(loss, seeds=self.seeds)
        say(_report(seen))
        conformance = _conformance(loss)
        say("\n" + "\n".join(wrapped(conformance, 100)))
        if self.out is not None:
            for path in _save(seen, self.out):
                say(f"saved: {path}")
        return 0

    def _loss(self) -> Any:
        """Return the loss that is named or stated; a formula is registered for this process."""
        from gradlab.atlas.rows import losses_of
        from gradlab.losses import formula_loss
        from gradlab.losses.formula import free_names

        if self.formula is None:
            return losses_of([str(self.loss)])[0]
        given = {}
        for key, value in named_texts("number", "NAME=NUMBER", self.number).items():
            given[key] = number_of(f"number {key}", float, value)
        return formula_loss(self.name, self.formula, **{**dict.fromkeys(free_names(self.formula), 1.0), **given})


def _check_free(folder: Path) -> None:
    for name in _FILES:
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already; name another folder")


def _report(seen: Workbench) -> str:
    """Return what the workbench found as text."""
    row = seen.row
    facts = [name for name in row.index if name not in _ENDS and name != "shipped"]
    said = {name: f"{row[name]:.6g}" if isinstance(row[name], float) else str(row[name]) for name in facts}
    lines = [f"{name:<13}{text}" for name, text in said.items() if text not in ("", "nan")]
    names = list(seen.comparison.losses)
    table = seen.comparison.table.set_index("key")
    lines += ["", f"{'trained as it is':<40}" + "".join(f"{name:>18}" for name in names)]
    lines += [
        f"{title:<40}" + "".join(f"{table.loc[name, key]:>18.3f}" for name in names) for key, title in _ENDS.items()
    ]
    frontier = seen.frontier().set_index(["beta", "loss"])
    lines += ["", f"{'frontier: β':<14}" + "".join(f"{name + ': KL, E[u]':>28}" for name in names)]
    for beta in sorted(frontier.index.levels[0], reverse=True):  # type: ignore[attr-defined]
        cells = [frontier.loc[beta, name] if (beta, name) in frontier.index else None for name in names]
        texts = [f"{cell['kl_to_reference']:.3f}, {cell['expected_utility']:.3f}" if cell is not None else ""
                 for cell in cells]  # fmt: skip
        lines.append(f"{beta:<14g}" + "".join(f"{text:>28}" for text in texts))
    lines += ["", *wrapped(seen.verdict.sentence, 100)]
    for contrast in seen.verdict.contrasts:
        if contrast.word != "not run":
            ends = ", ".join(f"{100 * end:+.1f}" for end in (contrast.low, contrast.high))
            number = f"{100 * contrast.effect:+.1f} [{ends}] points of the reachable reward, {contrast.seeds} worlds"
            lines.append(f"  {contrast.name:<26}{contrast.word:<26}{number}")
    return "\n".join(lines)


def _conformance(loss: Any) -> str:
    """Say which of gradlab's losses gives the numbers of this one, if any does."""
    from gradlab.conformance import check
    from gradlab.losses import PAIR_LOSSES

    frame = check(loss, among=[name for name in PAIR_LOSSES if name != loss.name])
    return frame.attrs["summary"]


def _save(seen: Workbench, folder: Path) -> list[Path]:
    """Write all files; return their paths."""
    import io

    import matplotlib as mpl

    from gradlab.conformance.vectors import vectors_of
    from gradlab.plotting.looks import style
    from gradlab.store.csv_text import csv_text
    from gradlab.store.files import write_whole

    image = io.BytesIO()
    with mpl.rc_context(style()):
        seen.comparison.figure().savefig(image, format="png", dpi=110)
    contents: tuple[str | bytes, ...] = (
        csv_text(seen.comparison.table), csv_text(seen.comparison.trained), csv_text(seen.verdict.table()),
        image.getvalue(), json.dumps(vectors_of(seen.loss), ensure_ascii=False, indent=1),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in _FILES]
    write_whole(dict(zip(paths, contents, strict=True)))
    return paths


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(WorkbenchCommand, "workbench", __doc__, _joined(list(arguments))).run()


def _joined(words: list[str]) -> list[str]:
    """Return the arguments with a formula as part of its option: it may begin with a minus sign."""
    if "--formula" in words[:-1]:
        at = words.index("--formula")
        words[at : at + 2] = [f"--formula={words[at + 1]}"]
    return words
