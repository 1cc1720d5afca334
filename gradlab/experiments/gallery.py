"""From frames to pictures and the gallery page: drawn again only where frame, code or library changed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments import MEASURED
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.frames import frame_path
from gradlab.experiments.report import answers
from gradlab.experiments.report.verdicts import Settled
from gradlab.store.artifacts import load_frame, load_manifest
from gradlab.store.files import write_whole
from gradlab.store.provenance import fingerprint, module_hash, versions
from gradlab.store.stamps import read_stamp, write_stamp

ANSWERS = "answers"  # the name under which the figures of claims are stamped
_QUICK_FIGURE = "QUICK: few seeds, short budget, not a result"
QUICK_MARK = "**QUICK run: few seeds, worlds and steps. These are not results; captions describe the full run.**"


def draw(experiment: Experiment, folder: Path, *, quick: bool) -> list[Path]:
    """Draw the experiment's figures as PNG and PDF into ``folder``, and note their sources; return the files."""
    frame, _ = load_frame(frame_path(experiment, folder / "data"))
    make = functools.partial(experiment.figures, frame)
    mark = _QUICK_FIGURE if quick else None
    return _draw(make, folder, experiment.name, _key(experiment, folder, quick), mark)


def is_drawn(experiment: Experiment, folder: Path, *, quick: bool) -> bool:
    """Return whether the figures are there, drawn from the present frame by today's sources and library."""
    return _is_drawn(experiment.captions, folder, experiment.name, _key(experiment, folder, quick))


def draw_measured(folder: Path, *, fresh: bool = False) -> dict[str, list[Path]]:
    """Draw the figures of measurements whose frames are there, unless they are current; return the files by name."""
    drawn = {}
    for name, measurement in MEASURED.items():
        if measurement.figures is None or not measurement.is_whole(folder):
            continue
        digests = [load_manifest(folder / file)["sha256"] for file in measurement.there(folder).values()]
        key = fingerprint(digests, module_hash(measurement.module), versions(["matplotlib"]))
        make = functools.partial(measurement.figures, measurement.load(folder))
        stale = fresh or not _is_drawn(measurement.captions, folder, name, key)
        drawn[name] = _draw(make, folder, name, key) if stale else []
    return drawn


def draw_answers(settled: Iterable[Settled], folder: Path, *, quick: bool, fresh: bool = False) -> list[Path]:
    """Draw the figure of every claim that has measured comparisons, unless they are current; return the files."""
    chosen = {answers.figure_of(one): one for one in settled if answers.has_answer(one)}
    shown = {name: answers.facts(one) for name, one in chosen.items()}
    key = fingerprint(shown, module_hash(answers.__name__), quick, versions(["matplotlib"]))
    if not fresh and _is_drawn(chosen, folder, ANSWERS, key):
        return []
    make = functools.partial(_answers, chosen)
    return _draw(make, folder, ANSWERS, key, _QUICK_FIGURE if quick else None)


def _answers(chosen: Mapping[str, Settled]) -> dict[str, Figure]:
    return {name: answers.answer(one) for name, one in chosen.items()}


def _draw(
    make: Callable[[], dict[str, Figure]], folder: Path, name: str, key: str, mark: str | None = None
) -> list[Path]:
    drawn = plotting.draw(make, folder, mark)
    write_stamp(_stamp(name, folder), {"key": key})
    return drawn


def _is_drawn(figures: Iterable[str], folder: Path, name: str, key: str) -> bool:
    stamp, *files = files_of(name, figures, folder)
    return read_stamp(stamp) == {"key": key} and all(map(Path.exists, files))


def files_of(name: str, figures: Iterable[str], folder: Path) -> list[Path]:
    """Return the files that are drawn for an experiment or a measurement: the note of their sources, then the figures.

    figures  their names.
    """
    return [_stamp(name, folder), *(folder / f"{figure}.{kind}" for figure in figures for kind in ("png", "pdf"))]


def _stamp(name: str, folder: Path) -> Path:
    return folder / "data" / f"{name}.figures.json"


def _key(experiment: Experiment, folder: Path, quick: bool) -> str:
    digest = load_manifest(frame_path(experiment, folder / "data"))["sha256"]
    return fingerprint(digest, module_hash(experiment.module), quick, versions(["matplotlib"]))


def write_page(
    experiments: Sequence[Experiment], every: Sequence[Experiment], settled: Iterable[Settled], folder: Path, *,
    quick: bool,
) -> Path:  # fmt: skip
    """Write README.md of the figures: every figure with how to read it.

    experiments  those whose frames are current; of ``every`` one, the others are named as not shown.
    settled      the claims, whose figures come first.
    """
    root, again = ("../..", " --quick --fresh") if quick else ("..", " --fresh")
    lines = [
        "# Figures", "", *([QUICK_MARK, ""] if quick else []),
        "What the figures say about the paper's claims: [CLAIMS.md](CLAIMS.md). How each claim is judged, and with",
        "which settings: [METHODS.md](METHODS.md). The paper, place by place, with what is here for each:",
        "[PAPER.md](PAPER.md). The questions that the paper leaves open, with their answers:",
        "[OPEN-QUESTIONS.md](OPEN-QUESTIONS.md). Written by `make figures` from the frames in [data/](data); do not",
        f"edit. Settings marked *stated* and *ours*: [gradlab/lab/world.py]({root}/gradlab/lab/world.py).", "",
    ]  # fmt: skip
    lines += _not_shown([one for one in every if one not in experiments])
    lines += ["## The answers", "", answers.CAPTION, ""]
    for one in filter(answers.has_answer, settled):
        name = answers.figure_of(one)
        lines += [f"**[{one.name}](CLAIMS.md#{one.name})** ([PDF]({name}.pdf)). {one.claim.claimed}", "",
                  f"![{name}]({name}.png)", ""]  # fmt: skip
    for one in experiments:
        file = frame_path(one, Path("data"))
        lines += _shown(one.question, one.captions, [file], f"gradlab figures {one.name}{again}")
    for one in MEASURED.values():
        if one.captions and one.is_whole(folder):
            lines += _shown(one.question, one.captions, map(Path, one.places(folder)), one.command)
    page = folder / "README.md"
    write_whole({page: "\n".join(lines).rstrip() + "\n"})
    return page


def _not_shown(lacking: Sequence[Experiment]) -> list[str]:
    """Return which experiments have no current frame, and what runs them; a line for those that take long."""
    said = []
    for is_long, which in ((False, ""), (True, " questions")):
        if names := ", ".join(one.name for one in lacking if one.is_long == is_long):
            said += [f"**Not shown, because stale or never run: {names}.** Run `gradlab figures{which}`.", ""]
    return said


def _shown(title: str, captions: Mapping[str, str], files: Iterable[Path], command: str) -> list[str]:
    lines = [f"## {title}", ""]
    for name, caption in captions.items():
        lines += [f"![{name}]({name}.png)", "", f"**{name}** ([PDF]({name}.pdf)). {caption}", ""]
    data = "; ".join(
        f"[{file.name}]({file}), [manifest]({file.with_suffix('.json')})" if file.suffix else f"[{file}]({file})"
        for file in files
    )
    return [*lines, f"Data: {data}. Regenerate: `{command}`.", ""]
