"""From answers to panels of a figure, see ``gradlab.plotting.effects``."""

from __future__ import annotations

from collections.abc import Mapping

from gradlab.experiments.contrasts import Contrast, Judged
from gradlab.plotting import DosePanel


def dose_panel(answer: Judged, name: str, beside: Mapping[str, Judged] | None = None) -> DosePanel:
    """Return the panel of an answer in worlds: the worlds by dose, their average, and the averages beside it.

    name    the label of the answer's own average.
    beside  answers in the same unit by their labels, such as those of controls.
    Raises ValueError for an answer without a dose.
    """
    statement = answer.statement
    if not isinstance(statement, Contrast) or not statement.moderators:
        raise ValueError(f"answer must be on worlds with a dose, got {statement.statement!r}")
    dose = statement.moderators[0]
    shown = {name: answer, **(beside or {})}
    return DosePanel(
        worlds=answer.rows.rename(columns={dose: "dose"})[["dose", "effect", "state"]],
        by_dose=answer.moderators[dose],
        averages={label: (one.effect, one.low, one.high) for label, one in shown.items()},
        margin=statement.margin, scale=statement.unit.scale, unit=statement.unit.words,
    )  # fmt: skip
