"""Bring frames, figures, the gallery and the claims report up to date, with no more work than they need."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from joblib import delayed
from tqdm import tqdm

from gradlab.atlas import page as atlas_page
from gradlab.checks import one_of, output_folder, resolved
from gradlab.console import say
from gradlab.experiments import EXPERIMENTS, MEASURED, frames, gallery, long_experiments, samples
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.questions import atlas, atlas_frames
from gradlab.experiments.report import open_page, pages, saved, verdicts
from gradlab.store.artifacts import our_manifest
from gradlab.store.files import is_marked, remove_leftovers
from gradlab.store.pool import calm, pool_of, processes

ATLAS = atlas.MEASUREMENT.name
QUESTIONS = "questions"  # in place of the names of all long experiments


def make_figures(
    names: Sequence[str] = (),
    *,
    folder: Path | str = "figures",
    quick: bool = False,
    fresh: bool = False,
    workers: int | None = None,
) -> list[Path]:
    """Bring the figures of these experiments (left out: all) up to date, with the gallery and the claims report.

    names    of experiments; "questions" stands for the long ones, which answer the paper's open questions, and "atlas"
             trains what the atlas of losses lacks: each takes minutes. Left out, these two are only drawn, and a sample
             of their runs is checked where a source has changed.
    folder   holds the figures (PNG and PDF), README.md (the gallery), CLAIMS.md, METHODS.md, PAPER.md, claims.csv and
             OPEN-QUESTIONS.md (the report), ATLAS.md, atlas.csv and atlas/ (the losses), and data/ (frames and
             manifests).
    quick    fewer seeds and steps, marked so on every figure, in ``folder``/quick.
    fresh    do everything again, also what is not stale.
    workers  processes; left out: one per core. The numbers do not depend on it.

    Settings, sources and versions decide what is stale. Returns the figures that were drawn.
    Raises ValueError for an unknown name, a folder that is a file, or a folder where a file of another kind has the
    name of one of ours.
    """
    folder = Path(folder) / "quick" if quick else Path(folder)
    chosen = _chosen(names, folder)
    ran = frames.bring_up_to_date(list(chosen.values()), folder / "data", quick=quick, fresh=fresh, workers=workers)
    standing = {} if names else long_experiments()
    current = {name: one for name, one in standing.items() if frames.is_current(one, folder / "data", quick=quick)}
    todo = [
        name
        for name, experiment in {**chosen, **current}.items()
        if experiment in ran or not gallery.is_drawn(experiment, folder, quick=quick)
    ]
    if ATLAS in names:
        trained = atlas_frames.bring_up_to_date(folder, quick=quick, fresh=fresh, workers=workers)
        say(f"{ATLAS:>16}: {f'{len(trained)} losses trained' if trained else 'frames up to date'}")
    drawn = _draw(todo, folder, quick, workers)
    for name, experiment in chosen.items():
        state = f"{len(drawn[name])} figures drawn" if name in drawn else "up to date"
        say(f"{name:>16}: {'run' if experiment in ran else 'frame up to date'}, {state}")
    for name in standing:
        state = f"{len(drawn[name])} figures drawn" if name in drawn else "up to date"
        say(f"{name:>16}: {f'as committed, {state}' if name in current else standing[name].needs}")
    measured = gallery.draw_measured(folder, fresh=fresh and not names)
    for name, files in measured.items():
        say(f"{name:>16}: as committed, {f'{len(files)} figures drawn' if files else 'up to date'}")
    if not names:
        for fault in atlas_frames.check_sample(folder, fresh=fresh, workers=workers):
            say(f"gradlab: {folder / atlas_frames.FILES['ends']}: {fault}", file=sys.stderr)
        for experiment in standing.values():
            for fault in samples.check_long(experiment, folder / "data", quick=quick, fresh=fresh, workers=workers):
                say(f"gradlab: {frames.frame_path(experiment, folder / 'data')}: {fault}", file=sys.stderr)
    of_losses = _write_atlas(folder, quick=quick, fresh=fresh) if ATLAS in names or not (names or quick) else []
    _write_pages(folder, quick=quick)
    return [*(file for files in (*drawn.values(), *measured.values()) for file in files), *of_losses]


def make_frames(
    names: Sequence[str],
    *,
    folder: Path | str = "figures",
    fresh: bool = False,
    workers: int | None = None,
) -> None:
    """Bring the frames of these experiments up to date, and draw nothing; arguments and errors as ``make_figures``."""
    folder = Path(folder)
    chosen = _chosen(names, folder)
    frames.bring_up_to_date(list(chosen.values()), folder / "data", quick=False, fresh=fresh, workers=workers)


def _chosen(names: Sequence[str], folder: Path) -> dict[str, Experiment]:
    """Return the experiments to run, those that are not long for no name, once a run into the folder is allowed."""
    for name in names:
        one_of("experiment", name, (*EXPERIMENTS, ATLAS, QUESTIONS))
    for place in (folder.parent, folder, folder / "data"):
        output_folder("folder", place)
    _refuse_others(folder)
    return {
        name: one for name, one in EXPERIMENTS.items()
        if name in names or (QUESTIONS in names and one.is_long) or not (names or one.is_long)
    }  # fmt: skip


def _refuse_others(folder: Path) -> None:
    """Raise ValueError, which names the file, where a run would write over a file that is not ours."""
    for place in (folder, folder / "data"):
        remove_leftovers(place)
    for file, is_ours in _written(folder):
        if os.path.lexists(file) and (file.is_symlink() or not is_ours):
            raise ValueError(
                f"folder must hold nothing else under the names of the figures; {file} was not written by "
                "`gradlab figures`: name another folder, or move it away"
            )


def _written(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the files that a run may write over, each with whether what is there is known to be ours."""
    for page in ("README.md", "CLAIMS.md", "METHODS.md", "PAPER.md", open_page.PAGE):
        yield folder / page, is_marked(folder / page, "Written by `make figures`")
    yield folder / saved.REPORT, (folder / "CLAIMS.md").exists()  # written with it
    for file in atlas_page.files(folder):
        yield file, is_marked(folder / atlas_page.PAGE, "Written by `make figures`")
    for name, experiment in EXPERIMENTS.items():
        frame = frames.frame_path(experiment, folder / "data")
        ours = our_manifest(frame) is not None
        checked = [samples.stamp_of(experiment, folder / "data")] if experiment.is_long else []
        for file in (frame.with_suffix(".json"), frame, *checked, *gallery.files_of(name, experiment.captions, folder)):
            yield file, ours
    files = gallery.files_of(gallery.ANSWERS, map("answer-{}".format, verdicts.EVERY), folder)
    yield from ((file, (folder / "CLAIMS.md").exists()) for file in files)
    for name, measurement in MEASURED.items():
        files = gallery.files_of(name, measurement.captions, folder)
        ours = any(map(os.path.lexists, files)) and measurement.is_in(folder)
        yield from ((file, ours) for file in files)


def _draw(names: Sequence[str], folder: Path, quick: bool, workers: int | None) -> dict[str, list[Path]]:
    """Draw the figures of these experiments, in ``workers`` processes at most; return the files of each experiment."""
    size = min(processes(workers), len(names) or 1)
    # The largest frame first: the figures that take longest should not come last.
    names = sorted(names, key=lambda name: -frames.frame_path(EXPERIMENTS[name], folder / "data").stat().st_size)
    jobs = (delayed(_draw_one)(name, folder, quick) for name in names)
    with calm():
        done: Any = pool_of(size, "generator")(jobs)
        bar = tqdm(done, total=len(names), desc="figures", unit="experiment", disable=not names)
        return dict(zip(names, bar, strict=True))


def _draw_one(name: str, folder: Path, quick: bool) -> list[Path]:
    return gallery.draw(EXPERIMENTS[name], folder, quick=quick)


def _write_atlas(folder: Path, *, quick: bool, fresh: bool) -> list[Path]:
    """Write the atlas of losses, with its trainings where there are some; return the pictures that were drawn."""
    trained = folder / atlas_frames.FILES["ends"]
    note = gallery.QUICK_MARK if quick else ""
    drawn = atlas_page.write(folder, trained if trained.exists() else None, note=note, fresh=fresh)
    say(
        f"{ATLAS:>16}: {folder / atlas_page.PAGE}, {f'{len(drawn)} pictures drawn' if drawn else 'pictures up to date'}"
    )
    return drawn


def _write_pages(folder: Path, *, quick: bool) -> None:
    """Write the gallery, the claims report and README's findings, and print which words have changed."""
    done = [
        experiment for experiment in EXPERIMENTS.values() if frames.is_current(experiment, folder / "data", quick=quick)
    ]
    settled = verdicts.judge_claims(folder, quick=quick)
    gallery.draw_answers(settled.values(), folder, quick=quick)
    page = gallery.write_page(done, list(EXPERIMENTS.values()), settled.values(), folder, quick=quick)
    say(f"gallery: {page}")
    former = None
    with contextlib.suppress(ValueError):  # a report that cannot be read is replaced
        former = saved.former(folder)
    pages.write(settled, folder, quick=quick)
    say(f" claims: {folder / 'CLAIMS.md'}")
    changed = saved.changes(former, settled) if former is not None else []
    if changed:
        say(f"words changed: {'; '.join(changed)}")
    readme = resolved("folder", folder).parent / "README.md"
    if (
        not quick
        and all(experiment in done for experiment in EXPERIMENTS.values() if not experiment.is_long)
        and readme.exists()
        and f"<!-- {pages.FINDINGS} -->" in readme.read_text("utf-8")
    ):
        pages.write_findings(readme, settled)
