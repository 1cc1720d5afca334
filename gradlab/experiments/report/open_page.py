"""The page of the paper's open questions and next checks, OPEN-QUESTIONS.md: answers in words, and what they rest on.

No result is typed in by hand: answers and marks of predictions are functions of frames, verdicts are the claims'.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gradlab.experiments import EXPERIMENTS
from gradlab.experiments.frames import frame_path, is_current
from gradlab.experiments.gallery import QUICK_MARK
from gradlab.experiments.predictions import WORDS, Outcome, Prediction, by_interval
from gradlab.experiments.report import answers, links, methods_page, wording
from gradlab.experiments.report.confidence import confidence
from gradlab.experiments.report.open_questions import QUESTIONS, TELLERS, OpenQuestion, Teller
from gradlab.experiments.report.saved import as_sentence, line, lines
from gradlab.experiments.report.verdicts import NOT_RUN, UNREADABLE, Settled
from gradlab.store.artifacts import load_frame
from gradlab.store.markdown import markdown_table

PAGE = "OPEN-QUESTIONS.md"
HEAD = ("question", "answer in short", "confidence", "predictions")

_RULES = (  # the rule of how sure an answer is, and that of predictions on a number, by their functions' docstrings
    ("How sure an answer is", "A rule gives this word: it sees the words and intervals of the claims that carry the "
     "answer, and whether they are on what was asked.", confidence),
    ("How a prediction on a number is marked", "Other predictions, such as on a sign or on an identity, say in their "
     "numbers what was counted.", by_interval),
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """A question with its answer.

    text         the answer in words, or why there is none.
    predictions  what was expected of its experiments, each with how it came out; None where that was not run.
    """

    question: OpenQuestion
    text: str
    predictions: tuple[tuple[Prediction, Outcome | None], ...]


def page(settled: Mapping[str, Settled], folder: Path, *, quick: bool) -> str:
    """Return OPEN-QUESTIONS.md. ValueError where an answer cannot be given from a whole and current frame."""
    every = [answered(question, settled, folder, quick=quick) for question in QUESTIONS]
    said = [
        "# The open questions, answered", "", *([QUICK_MARK, ""] if quick else []),
        "The paper leaves three questions open, and its summary proposes three next checks. Here each has its answer,"
        " with what it rests on. Settings, margins, statements and predictions were committed before the first full"
        f" run, which `make questions` repeats. {links.WRITTEN} The same claims by the report's rules:"
        " [CLAIMS.md](CLAIMS.md#claims); the rules: [METHODS.md](METHODS.md).", "",
        *markdown_table(list(HEAD), (_row(one, settled) for one in every)), "",
    ]  # fmt: skip
    for one in every:
        said += [*_section(one, settled, folder, quick), ""]
    for title, opening, rule in _RULES:
        _, _, told = (inspect.getdoc(rule) or "").partition("\n\n")
        said += [f"## {title}", "", opening, "", *methods_page.as_markdown(told), ""]
    return "\n".join(said).rstrip() + "\n"


def answered(question: OpenQuestion, settled: Mapping[str, Settled], folder: Path, *, quick: bool) -> Answered:
    """Return a question with its answer, from the frames in the folder of the figures.

    Where no experiment answers, its claims' sentences do.
    """
    alone = [] if question.experiments else _of(question.claims, settled)
    said, marked = [f"{lines(claim)[0].sentence}." for claim in alone], list[tuple[Prediction, Outcome | None]]()
    for name in question.experiments:
        teller, frame = TELLERS[name], _frame(name, folder, quick)
        marked += [(one, None if frame is None else _marked(one, frame, name, quick)) for one in teller.predictions]
        said.append(_lacking(name, folder) if frame is None else _told(teller, frame, name, quick))
    said += [told(folder) for told in question.measured]
    said += [question.needs] if question.needs else []
    return Answered(question, " ".join(said), tuple(marked))


def _frame(name: str, folder: Path, quick: bool) -> pd.DataFrame | None:
    """Return an experiment's current frame; None where there is none."""
    experiment = EXPERIMENTS[name]
    if not is_current(experiment, folder / "data", quick=quick):
        return None
    return load_frame(frame_path(experiment, folder / "data"))[0]


def _lacking(name: str, folder: Path) -> str:
    """Return in words why there is no frame to answer from."""
    if frame_path(EXPERIMENTS[name], folder / "data").exists():
        return f"Not judged: the frame of {name} is damaged or stale; `gradlab figures {name}` makes it again."
    return f"Not run: it {EXPERIMENTS[name].needs}."


def _marked(prediction: Prediction, frame: pd.DataFrame, name: str, quick: bool) -> Outcome:
    try:
        return prediction.check(frame)
    except UNREADABLE as error:
        if quick:  # whose frame may lack any cell
            return Outcome("undecided", "a quick run has too little for it")
        raise ValueError(_refused(f"the prediction {prediction.text!r}", name, error)) from error


def _told(teller: Teller, frame: pd.DataFrame, name: str, quick: bool) -> str:
    try:
        return teller.answer(frame)
    except UNREADABLE as error:
        if quick:
            return "A quick run has too little for an answer."
        raise ValueError(_refused("the answer", name, error)) from error


def _refused(what: str, name: str, error: Exception) -> str:
    return f"{name}: {what} must be readable from its frame, got {type(error).__name__}: {error}"


def anchor(question: OpenQuestion) -> str:
    """Return the anchor of a question on the page."""
    return question.name.lower().replace(" ", "-")


def _of(names: Sequence[str], settled: Mapping[str, Settled]) -> list[Settled]:
    return [settled[name] for name in names if name in settled]


def _row(one: Answered, settled: Mapping[str, Settled]) -> list[str]:
    question = one.question
    level, _ = confidence(_of(question.claims, settled), question.gap)
    return [f"[{question.name}](#{anchor(question)}). {question.asked}", _first_sentence(one.text), f"**{level}**",
            _tally(one)]  # fmt: skip


def _tally(one: Answered) -> str:
    """Return how many predictions came out how, such as "5 held, 2 failed"."""
    outcomes = [outcome.word if outcome else NOT_RUN for _, outcome in one.predictions]
    numbers = ((outcomes.count(word), word) for word in (*WORDS, NOT_RUN))
    return ", ".join(f"{number} {word}" for number, word in numbers if number) or "—"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s+(?=[^\W\d_a-z])", text, maxsplit=1)[0]


def _section(one: Answered, settled: Mapping[str, Settled], folder: Path, quick: bool) -> list[str]:
    """Return the section of one question."""
    question, claims = one.question, _of(one.question.claims, settled)
    level, because = confidence(claims, question.gap)
    said = [f"## {question.name}", "", f"**{question.asked}** Asked by {question.source}.", "",
            f"**Answer.** {one.text}", "", f"**Confidence: {level}**, since {because}."]  # fmt: skip
    said += _pictures(question, folder)
    beside = _of(question.beside, settled)
    said += _verdicts("What carries the answer", claims) + _verdicts("Beside it", beside)
    claims = [*claims, *beside]
    said += _controls(question, claims)
    if one.predictions:
        said += ["", f"**What was predicted: {_tally(one)}.**", "", *markdown_table(
            ["prediction, as written down before the first run", "came out", "numbers"],
            (_prediction(*marked) for marked in one.predictions),
        )]  # fmt: skip
    changes = [question.changes, *(f"*{claim.name}*: {claim.claim.changes}" for claim in claims)]
    said += ["", f"**What would change the answer.** {' '.join(filter(None, changes))}"] if any(changes) else []
    return [*said, "", *_places(question, claims, folder, quick)]


def _verdicts(title: str, claims: Sequence[Settled]) -> list[str]:
    """Return claims with their answers as a table with a title; nothing without claims."""
    rows = ([f"[{row[0]}](CLAIMS.md#{row[0]})", row[1], f"**{row[2]}**", *row[3:]]
            for row in (wording.summary(lines(claim)) for claim in claims))  # fmt: skip
    head = ["verdict on", *wording.HEAD[1:-1], "does it withstand its controls"]
    return ["", f"**{title}.**", "", *markdown_table(head, rows)] if claims else []


def _prediction(prediction: Prediction, outcome: Outcome | None) -> list[str]:
    added = as_sentence(prediction.added.rstrip(".")) if prediction.added else ""
    word, because = (f"**{outcome.word}**", outcome.because) if outcome else (NOT_RUN, "—")
    return [f"{prediction.text}{f' *{added}.*' if added else ''}", word, because]


def _pictures(question: OpenQuestion, folder: Path) -> list[str]:
    """Return the figures that are there, each with how to read it."""
    captions = {name: caption for one in question.experiments
                for name, caption in EXPERIMENTS[one].captions.items()}  # fmt: skip
    drawn = [name for name in question.figures or captions if (folder / f"{name}.png").exists()]
    said = []
    for name in drawn:
        said += ["", f"![{name}]({name}.png)", "", f"*{name}* ([PDF]({name}.pdf)). {captions.get(name, '')}".rstrip()]
    return said


def _controls(question: OpenQuestion, claims: Sequence[Settled]) -> list[str]:
    """Return the controls that a referee would ask for, with what came out; what is context is folded away."""
    said = [f"- {control}" for control in question.controls]
    for roles, fold in ((("explains away", "robustness"), False), (("context",), True)):
        rows = [(claim, role, row) for claim in claims for role in roles for row in claim.of(role)]
        table = markdown_table(
            ["of", "kind", "control", "in one sentence", "word", "average, 95% interval"],
            ([f"[{claim.name}](CLAIMS.md#{claim.name})", wording.ROLE[role], *wording.row(line(row))[:3],
              wording.interval(line(row))] for claim, role, row in rows),
        )  # fmt: skip
        if rows and fold:
            table = ["<details>", f"<summary>Further looks, which change no word: {len(rows)} rows</summary>", "",
                     *table, "", "</details>"]  # fmt: skip
        said += ["", *table] if rows else []
    return ["", "**Controls that a referee would ask for.**", "", *said] if said else []


def _places(question: OpenQuestion, claims: Sequence[Settled], folder: Path, quick: bool) -> list[str]:
    """Return where the answers' pictures, data, code and commands are."""
    shown = [links.picture(answers.figure_of(claim), folder) for claim in claims if answers.has_answer(claim)]
    files = dict.fromkeys(file for claim in claims for file in wording.data_files(claim.claim, folder))
    frames = [links.frame(file) for file in files]
    code = dict.fromkeys(path for claim in claims for path in wording.code_files(claim.claim))
    again = dict.fromkeys(command for claim in claims for command in wording.commands(claim.claim, quick=quick))
    places = {
        "Answers at a glance": ", ".join(shown), "Data": "; ".join(frames),
        "Code": ", ".join(links.code(path, quick) for path in (*code, *question.tools)),
        "Regenerate": "; ".join(f"`{command}`" for command in again),
    }  # fmt: skip
    return [f"- {name}: {text}." for name, text in places.items() if text]
