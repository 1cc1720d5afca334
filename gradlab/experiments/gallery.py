"""From frames to pictures and the gallery page: drawn anew only where frame, code or library changed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from gradlab import plotting
from gradlab.artifacts import load_frame, load_manifest, write_whole
from gradlab.experiments.frames import frame_path, short_name
from gradlab.provenance import fingerprint, source_hash, versions

QUICK_MARK = "**QUICK run: few seeds, worlds and steps. These are not results; captions describe the full run.**"


def draw(experiment: ModuleType, folder: Path, *, quick: bool) -> list[Path]:
    """Draw the experiment's figures as PNG and PDF into ``folder``, and note what they were drawn from; the files."""
    frame, _ = load_frame(frame_path(experiment, folder / "data"))
    mark = "QUICK: few seeds, short budget, not a result" if quick else None
    drawn = plotting.draw(lambda: experiment.figures(frame), folder, mark)
    write_whole(_stamp(experiment, folder), json.dumps({"key": _key(experiment, folder, quick)}) + "\n")
    return drawn


def is_drawn(experiment: ModuleType, folder: Path, *, quick: bool) -> bool:
    """Whether the figures are there, drawn from the frame that is there, by the sources and library that are here."""
    files = [folder / f"{name}.{kind}" for name in experiment.CAPTIONS for kind in ("png", "pdf")]
    return _stamped(_stamp(experiment, folder), _key(experiment, folder, quick)) and all(map(Path.exists, files))


def _stamp(experiment: ModuleType, folder: Path) -> Path:
    return folder / "data" / f"{short_name(experiment)}.figures.json"


def _key(experiment: ModuleType, folder: Path, quick: bool) -> str:
    return fingerprint(
        load_manifest(frame_path(experiment, folder / "data"))["sha256"], inspect.getsource(experiment),
        source_hash(experiment.__name__), quick, versions(["matplotlib"]),
    )  # fmt: skip


def _stamped(stamp: Path, key: str) -> bool:
    """Whether the figures were drawn under this key; a missing or torn stamp says no."""
    try:
        return json.loads(stamp.read_text(encoding="utf-8")) == {"key": key}
    except (OSError, ValueError):
        return False


def write_page(experiments: Sequence[ModuleType], every: Sequence[ModuleType], folder: Path, *, quick: bool) -> Path:
    """Write README.md of the figures: every figure with how to read it.

    experiments  those whose frames are current; of ``every`` one, the others are named as not shown.
    """
    root, again = ("../..", " --quick --fresh") if quick else ("..", " --fresh")
    lines = [
        "# Figures", "", *([QUICK_MARK, ""] if quick else []),
        "What the figures say about the paper's claims: [CLAIMS.md](CLAIMS.md). How each claim is judged, and with",
        "which settings: [METHODS.md](METHODS.md). Written by `make figures` from the frames in [data/](data); do not",
        f"edit. Settings marked *stated* and *ours*: [gradlab/world.py]({root}/gradlab/world.py).", "",
    ]  # fmt: skip
    if len(experiments) < len(every):
        missing = ", ".join(short_name(one) for one in every if one not in experiments)
        lines += [f"**Not shown, because stale or never run: {missing}.** Run `gradlab figures`.", ""]
    for one in experiments:
        lines += [f"## {question(one)}", ""]
        for name, caption in one.CAPTIONS.items():
            lines += [f"![{name}]({name}.png)", "", f"**{name}** ([PDF]({name}.pdf)). {caption}", ""]
        frame = frame_path(one, Path("data"))
        lines += [f"Data: [{frame.name}]({frame}), [manifest]({frame.with_suffix('.json')}). "
                  f"Regenerate: `gradlab figures {short_name(one)}{again}`.", ""]  # fmt: skip
    page = folder / "README.md"
    write_whole(page, "\n".join(lines).rstrip() + "\n")
    return page


def question(experiment: ModuleType) -> str:
    """The question that an experiment asks, as its file opens with it."""
    return (inspect.getdoc(experiment) or "").split("\n\n")[0].replace("\n", " ")
