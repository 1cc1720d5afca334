"""A study's rating in JupyterLab: the form that raters have in their page, with Python behind it."""

from __future__ import annotations

import base64
import io
import textwrap
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from matplotlib.figure import Figure

from gradlab.study.answers import UNDO, Answers, answer_line, read_answers
from gradlab.study.blind import blind_list, texts_of
from gradlab.study.frozen import Study, read_study
from gradlab.study.rating_file import RatingFile
from gradlab.widgets.parts import page_code


class StudyRating(anywidget.AnyWidget):
    """Rate a frozen study's tasks, blind; each answer is held against the study, and appended to the rater's file.

    ``gradlab/web/src/rating_widget.ts`` is the other side of the traits: ``given``, see ``blind_list``; ``lines``, the
    rater's lines in the file; ``file``, its name.
    """

    _esm = page_code("rating.js") + "\nexport default { render: gradlabRating.render };\n"
    _css = page_code("rating.css")
    given = traitlets.Dict().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    file = traitlets.Unicode().tag(sync=True)

    def __init__(self, study: Study | Path | str, rater: str, answers: Path | str | None = None) -> None:
        """Show a rater's tasks from where the file of answers ends.

        study    a study, or the file in which it was frozen.
        rater    a rater of the plan.
        answers  the file of answers, new or not; left out: ``RATER.answers.jsonl`` beside the study's file, or in the
                 current folder.
        ValueError or OSError in one line: for another study's answers, and for a name that is no rater's.
        """
        beside = "." if isinstance(study, Study) else Path(study).parent
        self.study = study if isinstance(study, Study) else read_study(study)
        self._file = RatingFile(self.study, rater, answers, beside)
        super().__init__(given=blind_list(self.study, rater), lines=self._file.lines(), file=str(self._file.path))
        self.on_msg(self._receive)

    @property
    def path(self) -> Path:
        """The file of answers."""
        return self._file.path

    @property
    def done(self) -> int:
        """The number of tasks that are answered, for all goals."""
        given = self._file.standing().groupby("place")["goal"].nunique()
        return int((given == len(self.study.plan.goals)).sum())

    def answers(self) -> Answers:
        """Return the answers in the file, held against the study."""
        return read_answers(self.study, [self.path] if self.path.exists() else [])

    def answer(self, choice: str, *, reason: str = "", seconds: float | None = None) -> None:
        """Answer the question that is asked now: left, right, tie or skip. ValueError when all are answered."""
        task, (goal, *_) = self._file.open_now(self._file.standing())
        line = answer_line(self.study, task, goal, choice, reason=reason, seconds=seconds, time=_now())
        self._take([line])

    def undo(self) -> None:
        """Take back all answers to the task that was answered last. ValueError before the first answer."""
        task, goals = self._file.last(self._file.standing())
        self._take([answer_line(self.study, task, goal, UNDO, time=_now()) for goal in goals])

    def _take(self, lines: list[Mapping[str, Any]]) -> None:
        try:
            self._file.take(lines)
        finally:
            self.lines = self._file.lines()  # also where another window went on: the page then shows what is open

    def _receive(self, _: Any, message: Any, __: list[bytes]) -> None:
        content: dict[str, Any] = {}
        try:
            self._take(message["lines"])
        except (ValueError, OSError, KeyError, TypeError) as error:  # one line above the texts
            content["error"] = str(error) or type(error).__name__
        self.send({**content, "to": message.get("number") if isinstance(message, Mapping) else None})

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the live widget, and beside it a picture for pages where nothing runs."""
        live, _ = super()._repr_mimebundle_(**kwargs) or ({}, {})
        text = f"StudyRating: {self.study.plan.title}, {self.done} of {len(self._file.tasks)} tasks answered"
        return {**live, "text/plain": text, "image/png": base64.b64encode(self.png()).decode()}

    def png(self) -> bytes:
        """Return a picture of the task that is open, or of the first one where none is."""
        found = self._file.open()
        task = found[0] if found else self._file.tasks[0]
        buffer = io.BytesIO()
        figure = _drawn(self.study, texts_of(self.study, task))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s)Glyph")  # what the font lacks, such as emoji, is a box
            figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()


def _drawn(study: Study, texts: tuple[str, str, str], columns: int = 66, rows: int = 12) -> Figure:
    """Return a task as a figure: its prompt above two texts, and what can be answered below."""
    prompt, left, right = texts
    figure = Figure((11.3, 4.2), dpi=100, facecolor="white")
    words = {"va": "top", "color": "#222222", "fontsize": 10, "linespacing": 1.4, "parse_math": False}
    figure.text(0.02, 0.95, _cut(f"Prompt: {prompt}", 2 * columns, 2), fontweight="bold", **words)
    for at, text in ((0.02, left), (0.51, right)):
        box = figure.add_axes((at, 0.17, 0.47, 0.64), xticks=[], yticks=[])
        for edge in box.spines.values():
            edge.set_color("#c9ced6")
        box.text(0.02, 0.96, _cut(text, columns, rows), transform=box.transAxes, **words)
    goal = study.plan.goals[0].question
    ways = ["← Left is better", *(["↓ Equally good"] if study.plan.design.ties else []), "Right is better →"]
    figure.text(0.5, 0.12, goal, ha="center", fontweight="bold", **words)
    figure.text(0.5, 0.06, "      ".join(ways), ha="center", **words)
    return figure


def _cut(text: str, columns: int, rows: int) -> str:
    """Return a text in lines of so many characters, the first so many of them."""
    lines = [row for line in text.splitlines() for row in textwrap.wrap(line, columns) or [""]]
    return "\n".join(lines if len(lines) <= rows else [*lines[: rows - 1], "…"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
