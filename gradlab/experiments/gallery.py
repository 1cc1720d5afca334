"""From frames to pictures and the gallery page: drawn anew only where frame, code or library changed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from gradlab import plotting
from gradlab.artifacts import (
    between_markers,
    fingerprint,
    load_frame,
    load_manifest,
    source_hash,
    versions,
    write_whole,
)
from gradlab.experiments.sweep import frame_path, short_name

CLAIMS = {
    "grid-reward": "On the 20×20 grid, bDPO reaches a higher reward than DPO.",
    "grid-unobserved": "bDPO puts less mass on responses that the data do not cover.",
    "grid-stability": "bDPO trains more stably.",
    "ablation": "Naive bDPO, its symmetric variant and full bDPO: full bDPO wins most against the reference.",
    "ppo": "PPO-based RLHF beats DPO.",
    "log-ratio": "The logged gradient ratio follows π_l/π_w during DPO training.",
}


def draw(experiment: ModuleType, folder: Path, *, quick: bool, redo: bool) -> list[Path]:
    """Draw the experiment's figures as PNG and PDF into ``folder``, unless they are current; those drawn."""
    path = frame_path(experiment, folder / "data")
    key = fingerprint(
        load_manifest(path)["sha256"], inspect.getsource(experiment), source_hash(experiment.__name__), quick,
        versions(["matplotlib"]),
    )  # fmt: skip
    stamp = path.with_name(f"{short_name(experiment)}.figures.json")
    files = [folder / f"{name}.{kind}" for name in experiment.CAPTIONS for kind in ("png", "pdf")]
    if not redo and _stamped(stamp, key) and all(map(Path.exists, files)):
        return []
    frame, _ = load_frame(path)
    mark = "QUICK: few seeds, short budget, not a result" if quick else None
    drawn = plotting.draw(lambda: experiment.figures(frame), folder, mark)
    write_whole(stamp, json.dumps({"key": key}) + "\n")
    return drawn


def _stamped(stamp: Path, key: str) -> bool:
    """Whether the figures were drawn under this key; a missing or torn stamp says no."""
    try:
        return json.loads(stamp.read_text(encoding="utf-8")) == {"key": key}
    except (OSError, ValueError):
        return False


def verdicts(experiments: Sequence[ModuleType], data: Path) -> pd.DataFrame:
    """The verdicts of these experiments from their saved frames, one row a contrast."""
    tables = [
        table.assign(experiment=short_name(one))
        for one in experiments
        if len(table := one.verdict(load_frame(frame_path(one, data))[0]))
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def write_page(
    experiments: Sequence[ModuleType], every: Sequence[ModuleType], folder: Path, table: pd.DataFrame, *, quick: bool
) -> Path:
    """Write README.md of the figures: every figure with how to read it, and every verdict with its evidence.

    experiments  those whose frames are current; of ``every`` one, the others are named as not shown.
    """
    lines = ["# Figures", ""]
    if quick:
        lines += [
            "**QUICK run: few seeds, worlds and steps. These are not results; captions describe the full run.**",
            "",
        ]
    lines += [
        "Written by `make figures` from the frames in [data/](data); do not edit. Settings marked *stated* and *ours*:",
        "[gradlab/world.py](../gradlab/world.py). Rules of the verdicts, fixed before any result:",
        "[gradlab/intervals.py](../gradlab/intervals.py). Contrasts and settings: one file an experiment in",
        "[gradlab/experiments/](../gradlab/experiments).", "",
    ]  # fmt: skip
    if quick:
        lines = [line.replace("](../", "](../../") for line in lines]
    if len(experiments) < len(every):
        missing = ", ".join(short_name(one) for one in every if one not in experiments)
        lines += [f"**Not shown, because stale or never run: {missing}.** Run `gradlab figures`.", ""]
    words = _verdict_lines(table)
    if quick:
        words = [line.replace("](../", "](../../") for line in words]
    lines += ["## Verdicts", "", *words, "## Gallery", ""]
    again = " --quick" if quick else ""
    for one in experiments:
        question = (inspect.getdoc(one) or "").split("\n\n")[0].replace("\n", " ")
        lines += [f"### {question}", ""]
        for name, caption in one.CAPTIONS.items():
            lines += [f"![{name}]({name}.png)", "", f"**{name}** ([PDF]({name}.pdf)). {caption}", ""]
        frame = frame_path(one, Path("data"))
        lines += [f"Data: [{frame.name}]({frame}), [manifest]({frame.with_suffix('.json')}). "
                  f"Regenerate: `gradlab figures {short_name(one)}{again} --fresh`.", ""]  # fmt: skip
    page = folder / "README.md"
    write_whole(page, "\n".join(lines).rstrip() + "\n")
    return page


def write_findings(readme: Path, table: pd.DataFrame) -> None:
    """Put the verdicts on the claims as stated, scale-matched, and at equal KL between README's markers."""
    lines = ["| claim | contrast | verdict | effect | 95% interval |", "|---|---|---|---|---|"]
    shown = table[~table["control"] | table["statement"].str.contains("scale-matched|against DPO at equal KL")]
    for row in shown.sort_values("claim", kind="stable").itertuples():
        words = str(row.statement).replace("|", "\\|")
        statement = f"*{words}*" if row.control else words
        lines.append(f"| {row.claim} | {statement} | **{row.verdict}** | {row.effect:+.3f} | {_interval(row, 3)} |")
    page = readme.read_text(encoding="utf-8")
    write_whole(readme, between_markers(page, "findings", "\n".join(lines)))


def _interval(row: Any, digits: int) -> str:
    return f"[{row.low:+.{digits}f}, {row.high:+.{digits}f}]"


def _verdict_lines(table: pd.DataFrame) -> list[str]:
    lines = [
        "A cell is one setting (mask, policy, world, …); the last column counts the cells that say holds / fails /",
        "no difference / inconclusive. A contrast *holds* only if every cell does, or *holds when* a simple",
        "condition picks out cells that all do. It *fails* if some cell says the opposite, or most show no",
        "difference, even where the mean effect is positive; it is *inconclusive* if none does but some cells",
        "cannot tell. Effects are means over cells, positive in favour of the first-named method, with 95%",
        "bootstrap intervals over seeds. A row in *italics* is a control: what would explain the claim away.",
        "",
        "Holm's correction runs over the cells of one contrast. One family over all contrasts of a claim would be",
        "stricter: it decides fewer cells, and some verdicts would change. Rows that were added after the first",
        "results say so; what else was changed then is in [CHANGELOG.md](../CHANGELOG.md).",
        "",
    ]  # fmt: skip
    for claim, claimed in CLAIMS.items():
        rows = table[table["claim"] == claim] if len(table) else table
        if not len(rows):
            continue
        lines += [f"**{claim}**: {claimed}", "", "| contrast | verdict | effect | 95% interval | seeds | cells |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        for row in rows.itertuples():
            words = str(row.statement).replace("|", "\\|")
            statement = f"*{words}*" if row.control else f"**{words}**"
            tally = f"{row.holds} / {row.fails} / {row.no_difference} / {row.inconclusive}"
            lines.append(
                f"| {statement} | {row.verdict} | {row.effect:+.4f} | {_interval(row, 4)} | {row.seeds} | {tally} |"
            )
        lines.append("")
    return lines
