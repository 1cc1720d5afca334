"""The claims report: verdicts (CLAIMS.md, claims.csv), rules (METHODS.md), the paper's map (PAPER.md), and findings.

No result is typed in by hand: verdicts and numbers come from frames, rules from the docstrings of the code that applies
them, statements from ``claims``, places in the paper from ``paper_map``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from gradlab.experiments import EXPERIMENTS, MEASURED, contrasts
from gradlab.experiments.experiment import Experiment, Measurement
from gradlab.experiments.frames import declared
from gradlab.experiments.gallery import QUICK_MARK
from gradlab.experiments.questions import language_models
from gradlab.experiments.report import verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.paper_map import PAPER, Place
from gradlab.experiments.report.verdicts import Settled
from gradlab.lab.training import Training
from gradlab.stats import intervals
from gradlab.store.artifacts import between_markers, load_manifest
from gradlab.store.files import write_whole
from gradlab.store.markdown import markdown_table

_WRITTEN = "Written by `make figures`; do not edit."


def write(settled: Mapping[str, Settled], folder: Path, *, quick: bool) -> None:
    """Write the whole report into the folder of the figures."""
    every = list(settled.values())
    pages = [_claims_page(every, folder, quick), _methods_page(every, folder, quick)]
    texts = ["\n".join(lines).rstrip() + "\n" for lines in pages]
    write_whole({
        folder / "CLAIMS.md": texts[0], folder / "METHODS.md": texts[1],
        folder / "PAPER.md": paper_page({one.name: one.verdict for one in every}, folder, quick=quick),
        folder / verdicts.REPORT: verdicts.as_csv(every),
    })  # fmt: skip


def write_findings(readme: Path, settled: Collection[Settled], folder: str = "figures") -> None:
    """Put one line per claim between README's markers."""
    lines = markdown_table(
        ["claim", "verdict", "effect, 95% interval", "the control beside it"],
        (
            [f"[{one.name}]({folder}/CLAIMS.md#{one.name}): {one.claim.claimed}", f"**{one.verdict}**",
             wording.effect_and_interval(one.decisive), wording.beside(one, "*")]
            for one in settled
        ),
    )  # fmt: skip
    write_whole({readme: between_markers(readme.read_text(encoding="utf-8"), "findings", "\n".join(lines))})


def paper_page(verdict_of: Mapping[str, str], folder: Path, *, quick: bool) -> str:
    """Return the paper's map as a page.

    verdict_of  the verdict on each claim, by name.
    """
    lines = [
        "# The paper, place by place", "", *([QUICK_MARK, ""] if quick else []),
        "Find a place of the paper ([arXiv 2502.20847](https://arxiv.org/abs/2502.20847)) by its number or its subject:"
        " its row leads to our code, figures, a command and the verdict. We worked from a summary of the paper:"
        " *stated* is what the summary says, *ours* what it leaves open and we chose, *absent* what has no result here."
        f" {_WRITTEN}",
    ]  # fmt: skip
    head = ["place", "what it says", "standing", "here", "verdict"]
    for part, places in PAPER.items():
        rows = (
            [f"**{place.name}**", place.says, f"*{place.standing}*", _here(place, folder, quick),
             "<br>".join(f"[{claim}](CLAIMS.md#{claim}): {verdict_of[claim]}" for claim in place.claims) or "—"]
            for place in places
        )  # fmt: skip
        lines += ["", f"## {part}", "", *markdown_table(head, rows)]
    return "\n".join(lines) + "\n"


def _here(place: Place, folder: Path, quick: bool) -> str:
    """Return links to the functions and the figures of a place, and its command."""
    paths = (path.rpartition(".") for path in place.functions)
    code = [_code(wording.file_of(module), quick, f"`{name}`") for module, _, name in paths]
    drawn = [_picture(name, folder) for name in place.figures]
    return "<br>".join(filter(None, [", ".join(code), ", ".join(drawn), place.command and f"`{place.command}`"])) or "—"


def _picture(figure: str, folder: Path) -> str:
    """Return a link to a figure, or its name alone where it has not been drawn."""
    return f"[{figure}]({figure}.png)" if (folder / f"{figure}.png").exists() else figure


def _claims_page(settled: list[Settled], folder: Path, quick: bool) -> list[str]:
    lines = [
        "# Claims", "", *([QUICK_MARK, ""] if quick else []),
        "Each claim of the paper, judged from frames by rules that were committed before them: [METHODS.md](METHODS.md)"
        " has the rules. We worked from a summary of the paper: what it says is *stated*, the rest is ours."
        f" {_WRITTEN} `gradlab claims` judges again and says whether a verdict has changed; [claims.csv](claims.csv)"
        " holds all rows. Rows that were added after the first results of their frames say so;"
        f" {_code('CHANGELOG.md', quick)} lists the other changes made then.",
        "",
        "A cell is one setting (mask, policy, world, …), a case one point of a scan. A row *holds* only if every cell"
        " holds; it *holds when* a simple condition picks out cells that all hold. It *fails* if some cell says the"
        " opposite, or most show no difference, even where the mean effect is positive. A claim is as good as its"
        " weakest row as stated. Effects are means over cells, positive in favour of the statement; effects of scans"
        " are shares of cases. A control is a row that could explain a claim away, or refute it; the control beside a"
        " claim is the least favourable.",
        "",
        *markdown_table(
            ["claim", "statement", "verdict", "effect, 95% interval", "seeds or cases", "the control beside it"],
            (
                [f"[{one.name}](#{one.name})", one.claim.claimed, f"**{one.verdict}**",
                 wording.effect_and_interval(one.decisive), wording.evidence(one.decisive), wording.beside(one, "*")]
                for one in settled
            ),
        ),
    ]  # fmt: skip
    for one in settled:
        lines += ["", *_section(one, folder, quick)]
    return lines


def _section(one: Settled, folder: Path, quick: bool) -> list[str]:
    """Return the section of one claim: statement, verdict, where to find everything, its figure, and every row."""
    row = one.decisive
    numbers = f", {wording.finding(row)}. Decided by: {row.statement}" if row else ""
    frames = [f"[{name}]({name}), [manifest]({Path(name).with_suffix('.json')})" for name in wording.data_files(one)]
    code = [_code(path, quick) for path in wording.code_files(one)]
    again = "; ".join(f"`{command}`" for command in wording.commands(one, quick=quick))
    drawn = [name for name in one.claim.figures if one.rows and (folder / f"{name}.png").exists()]
    lines = [
        f"## {one.name}", "", one.claim.claimed, "",
        f"- **Verdict: {one.verdict}**{numbers}{wording.because(one)}.",
        f"- Stated: {one.claim.stated}", f"- Ours: {one.claim.ours}",
        f"- Rule: [METHODS.md](METHODS.md#{one.name}){', code ' if code else ''}{', '.join(code)}.",
        f"- Data: {'; '.join(frames) or 'none'}. Regenerate: {again or 'nothing does yet'}.",
    ]  # fmt: skip
    if drawn:
        more = ", ".join(f"[{name}]({name}.png)" for name in drawn[1:])
        lines += [f"- Figure: [{drawn[0]}]({drawn[0]}.png){f'; also {more}' if more else ''}. How to read them: "
                  "[README.md](README.md).", "", f"![{drawn[0]}]({drawn[0]}.png)"]  # fmt: skip
    if one.rows:
        lines += ["", *_rows(one)]
    return lines


def _rows(one: Settled) -> list[str]:
    """Return every row of a claim as a table; those as stated are printed bold."""
    rows = wording.rows(one)
    bold = ([f"**{kind}**" if kind == "as stated" else kind, *words] for kind, *words in rows)
    return markdown_table(wording.ROW, bold)


def _methods_page(settled: list[Settled], folder: Path, quick: bool) -> list[str]:
    lines = [
        "# How the claims are judged", "", *([QUICK_MARK, ""] if quick else []),
        "For each claim: the sentence of the paper's summary that it rests on, our reconstruction, the rule, and what"
        f" would change the verdict. Then the figures and the settings of every experiment. {_WRITTEN} The verdicts:"
        " [CLAIMS.md](CLAIMS.md). The rules below are the docstrings of the code that applies them.", "",
    ]  # fmt: skip
    for title, module in (
        ("A contrast", intervals), ("A scan", contrasts), ("Language models", language_models), ("A claim", verdicts),
    ):  # fmt: skip
        lines += [f"## The rules: {title.lower()}", "", f"{_code(wording.file_of(module.__name__), quick)}:", "",
                  *_rules(module.__doc__), ""]  # fmt: skip
    lines += ["## The claims", ""]
    for one in settled:
        lines += [*_method(one, quick), ""]
    lines += ["## The figures", "", *markdown_table(["figure", "claims", "made by"], _figures(folder)), ""]
    lines += ["## The settings", "", "*Stated* and *ours*: see the claims above, and for the world and the losses"
              f" {_code('gradlab/lab/world.py', quick)} and `gradlab losses`.", ""]  # fmt: skip
    for experiment in EXPERIMENTS.values():
        lines += [*_settings(experiment, quick), ""]
    for one in MEASURED.values():
        if one.captions:
            lines += [*_measured_settings(one, folder, quick), ""]
    return lines


def _method(one: Settled, quick: bool) -> list[str]:
    claim = one.claim
    lines = [
        f"### {one.name}", "", f"{claim.claimed} [Verdict](CLAIMS.md#{one.name}).", "",
        f"- The summary states: {claim.stated}", f"- Our reconstruction: {claim.ours}", f"- Rule: {claim.rule}",
        f"- What would change the verdict: {claim.changes}",
        f"- Code: {', '.join(_code(path, quick) for path in wording.code_files(one)) or 'none'}.",
    ]  # fmt: skip
    rows = [
        ["control" if row.control else "**as stated**", row.statement, ", ".join(row.by) or "all together",
         f"±{row.margin:g}"]
        for row in one.rows
    ]  # fmt: skip
    head = ["row", "statement", "a cell is one", "margin or tolerance"]
    return [*lines, "", *markdown_table(head, rows)] if rows else lines


def _figures(folder: Path) -> Iterable[list[str]]:
    kinds = {"experiment": EXPERIMENTS, "measurement": MEASURED}
    all_of = [(kind, name, one.captions) for kind, registry in kinds.items() for name, one in registry.items()]
    for kind, name, captions in all_of:
        for figure in captions:
            claims = [f"[{claim}](#{claim})" for claim, one in CLAIMS.items() if figure in one.figures]
            yield [_picture(figure, folder), ", ".join(claims), f"[{name}](#{kind}-{name})"]


def _settings(experiment: Experiment, quick: bool) -> list[str]:
    return [f"### Experiment {experiment.name}", "", _asked(experiment, quick), "",
            f"{_listed(declared(experiment, quick))}."]  # fmt: skip


def _measured_settings(one: Measurement, folder: Path, quick: bool) -> list[str]:
    settings: dict[str, Any] = {}
    if one.is_in(folder):
        settings = load_manifest(folder / next(iter(one.files.values()))).get("settings", {})
    return [f"### Measurement {one.name}", "", f"{_asked(one, quick)}; `{one.command}`", "",
            f"{_listed(settings) or 'None has been committed'}."]  # fmt: skip


def _asked(one: Experiment | Measurement, quick: bool) -> str:
    """Return the question, with a link to its file."""
    return f"{one.question} {_code(wording.file_of(one.module), quick)}"


def _listed(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"`{key}` {_compact(value)}" for key, value in settings.items())


def _compact(value: Any) -> str:
    """Return a setting in one line; methods and other words without quotes."""
    return json.dumps(value, ensure_ascii=False, default=_changed).replace('"', "").replace("null", "none")


def _changed(training: Training) -> dict[str, Any]:
    """Return optimiser, learning rate and steps of a recipe, and the other fields that are not the usual ones."""
    usual, shown = Training().settings(), ("optimizer", "learning_rate", "steps")
    return {name: value for name, value in training.settings().items() if name in shown or value != usual[name]}


def _rules(docstring: str | None) -> list[str]:
    """Return the rules in a module's docstring: all but its first paragraph, as Markdown."""
    return inspect.cleandoc(docstring or "").partition("\n\n")[2].replace("``", "`").splitlines()


def _code(path: str, quick: bool, text: str = "") -> str:
    """Return a link to a file of the repository, by its path or another text."""
    return f"[{text or path}]({'../..' if quick else '..'}/{path})"
