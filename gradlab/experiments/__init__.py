"""The paper's experiments: one question a file, each settings + run + verdict + figures, listed once here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from gradlab.checks import one_of
from gradlab.experiments import (
    frontier,
    gallery,
    grid,
    log_ratio,
    picture,
    ppo_against_dpo,
    stability,
    starts,
    sweep,
    worlds,
)

EXPERIMENTS: dict[str, ModuleType] = {
    sweep.short_name(module): module
    for module in (picture, grid, worlds, frontier, starts, stability, ppo_against_dpo, log_ratio)
}


def make_figures(
    names: Sequence[str] = (),
    *,
    folder: Path | str = "figures",
    quick: bool = False,
    fresh: bool = False,
    workers: int | None = None,
) -> list[Path]:
    """Bring the figures of these experiments (default: all) up to date, and the gallery page with them.

    folder   holds the figures (PNG and PDF), README.md (the gallery) and data/ (frames and manifests).
    quick    fewer seeds and steps, marked so on every figure, in ``folder``/quick.
    fresh    do everything again, also what is not stale.
    workers  processes; default: one a core. The numbers do not depend on it.

    What is stale is decided by settings, sources and versions. Returns the figures that were drawn.
    Raises ValueError for an unknown name.
    """
    for name in names:
        one_of("experiment", name, EXPERIMENTS)
    folder = Path(folder) / "quick" if quick else Path(folder)
    drawn: list[Path] = []
    chosen = [EXPERIMENTS[name] for name in names or EXPERIMENTS]
    for experiment in chosen:
        ran = sweep.load_or_run(experiment, folder / "data", quick=quick, fresh=fresh, workers=workers)
        figures = gallery.draw(experiment, folder, quick=quick, redo=ran or fresh)
        state = f"{len(figures)} figures drawn" if figures else "up to date"
        print(f"{sweep.short_name(experiment):>16}: {'run' if ran else 'frame up to date'}, {state}")
        drawn += figures
    done = [one for one in EXPERIMENTS.values() if sweep.is_current(one, folder / "data", quick=quick)]
    table = gallery.verdicts(done, folder / "data")
    print(f"gallery: {gallery.write_page(done, list(EXPERIMENTS.values()), folder, table, quick=quick)}")
    readme = folder.resolve().parent / "README.md"
    if (
        not quick
        and len(done) == len(EXPERIMENTS)
        and readme.exists()
        and "<!-- findings -->" in readme.read_text("utf-8")
    ):
        gallery.write_findings(readme, table)
    return drawn
