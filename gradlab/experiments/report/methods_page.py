"""The page of rules, METHODS.md: rules as the docstrings of what applies them, statements, proofs and settings."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gradlab.experiments import EXPERIMENTS, MEASURED, contrasts
from gradlab.experiments import precision as further_seeds
from gradlab.experiments.contrasts import Contrast, Judged, Scan
from gradlab.experiments.experiment import FIRST_SEED, Experiment, Measurement
from gradlab.experiments.frames import declared
from gradlab.experiments.gallery import QUICK_MARK
from gradlab.experiments.questions import language_models, stability, stability_losses
from gradlab.experiments.report import links, saved, sensitivity, verdicts, wording
from gradlab.experiments.report.proofs import PROOFS, SETTING
from gradlab.experiments.report.sections import by_section, section_of
from gradlab.experiments.report.verdicts import Settled, primaries
from gradlab.lab import metrics
from gradlab.lab.training import FIELDS, Training
from gradlab.stats import agreement, conditions, equivalence, moderators, population, precision, words
from gradlab.stats.equivalence import ALPHA
from gradlab.store.artifacts import load_manifest
from gradlab.store.markdown import markdown_table

# The functions and records whose docstrings are the rules, in the order in which they are applied.
_RULES: tuple[tuple[str, ModuleType, tuple[Any, ...]], ...] = (
    ("A difference and its interval", equivalence,
     (population.paired_differences, equivalence.mean_of, equivalence.Mean.half_width, equivalence.Mean.p_above,
      equivalence.Mean.p_differs, equivalence.Mean.p_equivalent, equivalence.false_discoveries_controlled,
      equivalence.holm)),
    ("A population", population,
     (population.judge_units, population.Units, population.average_over_cells, population.over_worlds,
      population.Transport, agreement.wilson_interval)),
    ("A word", words, (words.word_of, words.word_of_cases, words.corrected, words.joint_word,
      words.word_of_no_difference, words.weakest_word)),
    ("Precision", precision, (precision.Design, precision.factor, precision.seeds_to_add, precision.replicates_for)),
    ("Further seeds", further_seeds, (further_seeds.Endpoint, further_seeds.runs_to_add)),
    ("A condition", conditions, (conditions.search_condition, conditions.Search, conditions.halves)),
    ("What moderates an effect", moderators,
     (moderators.effect_by_dose, moderators.effect_by_value, moderators.variance_explained)),
    ("A statement", contrasts, (Contrast, Scan)),
    ("A claim", verdicts, ()),
    ("Language models", language_models, ()),
)  # fmt: skip


def page(settled: list[Settled], folder: Path, quick: bool) -> list[str]:
    """Return the lines of METHODS.md."""
    said = [
        "# How the claims are judged", "", *([QUICK_MARK, ""] if quick else []),
        "For each claim: the sentence of the paper's summary that it rests on, our reconstruction, the rule, every"
        " statement with its numbers, and what would change the word. Before that the rules, which are the docstrings"
        f" of the code that applies them; after it proofs, figures and settings. {links.WRITTEN} The answers:"
        " [CLAIMS.md](CLAIMS.md).", "",
        *_ORDER, "", *_BY_HAND, "",
    ]  # fmt: skip
    for title, module, parts in _RULES:
        said += [f"## The rules: {title.lower()}", "", f"{links.code(wording.file_of(module.__name__), quick)}:", "",
                 *as_markdown(_rules(module)), ""]  # fmt: skip
        for part in parts:
            first, *more = as_markdown(inspect.getdoc(part))
            said += [f"`{part.__qualname__}`. {first}", *more, ""]
    said += _columns_of_frames(quick)
    said += ["## The columns of claims.csv", "", *as_markdown(inspect.getdoc(saved.Line)), ""]
    told = {one.name: one for one in settled}
    for section, names in by_section(told):
        said += [f"## {section.title or 'The claims'}", ""]
        for name in names:
            said += [*_method(told[name], quick), ""]
    said += ["## Proofs", "", SETTING, ""]
    for proof in PROOFS.values():
        said += [
            f"### Proof: {proof.name}",
            "",
            f"**{proof.theorem}**",
            "",
            proof.proof,
            "",
            f"Checked on random cases by {links.code('tests/test_proofs.py', quick, f'`{proof.test}`')}.",
            "",
        ]
    said += ["## The figures", "", *markdown_table(["figure", "claims", "made by"], _figures(folder)), ""]
    said += ["## The settings", "", "*Stated* and *ours*: see the claims above, and for the world and the losses"
             f" {links.code('gradlab/lab/world.py', quick)} and `gradlab losses`.", ""]  # fmt: skip
    for experiment in EXPERIMENTS.values():
        said += [*_settings(experiment, quick), ""]
    for one in MEASURED.values():
        said += [*_measured_settings(one, folder, quick), ""]
    return said


_ORDER = (
    "## What was decided when",
    "",
    "These rules were written after the first results, because the former rules were found wanting: under “one failing"
    " cell refutes”, two words changed with the number of seeds. The first report used seeds from 0 to 99 at most."
    " Rules, margins, settings and primaries were then committed before any frame was run again. What they decide is"
    f" confirmed on seeds from {FIRST_SEED} on and on worlds of another draw, which nobody had looked at.",
    "",
    "Chosen after the first results: the three co-primaries of *grid-stability*, where the first report had drift"
    " alone; the win-rate at equal KL in *ablation*; λ = ½, bDPO at 2β and permuted λ as controls that explain away,"
    " where they were controls without a direction; whole steps of language models in *overhead*; the correlation in"
    " *log-ratio*; the proofs of *shift-balanced* and *ratio-corrected*. A statement that was added later says so.",
    "",
    "Changed after a first look at the frames of these seeds, because a reader who had computed the answers again from"
    " this page objected: Holm corrects over the controls that could explain an effect away, where nothing did; on the"
    " grid these controls get as many seeds as the primaries, where they had the first 24; a new world is predicted by"
    " the order of the worlds, where a normal law was assumed. No primary's word depends on these changes.",
)
_BY_HAND = (
    "## A word by hand",
    "",
    "1. Load the frame that a statement's table names, `data/NAME.parquet`. Not all of its rows are judged: keep those"
    " that the line “What is judged” of the experiment names, under “The settings”. That line also says how a column"
    " that is not in the frame follows from others; “The columns of the frames” gives the formulas of the rest.",
    "2. Keep the rows of the statement's query. In each cell (the values of the columns under “a cell is one”) and for"
    " each seed, take *value* of the method minus *value* of the baseline, and turn its sign where the table says that"
    " less is better. So a positive difference speaks for the method.",
    "3. Stated cells: the effect is the mean of the cells' means, and `average_over_cells` says how its interval is"
    " computed. With equal seeds in all cells this is the t interval of the seeds' means. Worlds: the effect is the"
    " mean of the worlds' means, with the t interval over worlds.",
    "4. Each cell or world is *for*, *none*, *against* or undecided by its t interval and both one-sided tests at the"
    " margin (`Units`). Two words are easily mixed up: a cell or world is *against* if it is decided to lie below minus"
    " the margin, and *reversed* if it is decided to lie below 0, by however little, after Benjamini and Hochberg's"
    f" correction over all cells or worlds at a false discovery rate of {ALPHA:.0%}. Tallies count *against*; *holds"
    " throughout* and the search of a condition look at *reversed*.",
    "5. Holm corrects the p-values of difference, and those of equivalence, over a claim's primaries in one population"
    " (`corrected`); with one primary nothing changes. `word_of` then gives the word on each, and `joint_word` that on"
    " the claim. Of a claim that there is no difference it is `word_of_no_difference`, which also takes the two-sided"
    " p-value of a mean beyond the margin, corrected by Holm over the primaries. Holm corrects likewise over the"
    " controls that could explain the effect away; the weakest of them answers whether it is the balancing.",
    "",
    "[claims.csv](claims.csv) has the results in the unit of each row: a number x of the frame, converted as the"
    " table gives.",
)

# Columns of the frames that statements judge: the function that computes each, and its formula. π is the policy of a
# run at a step, over the responses y of a prompt; π_ref the reference, u the utility, L the held-out loss.
COLUMNS: dict[str, tuple[Callable[..., Any], str]] = {
    "utility": (metrics.expected_utility, "Σ π(y) u(y)"),
    "utility_share": (metrics.utility_share, "Σ (π(y) − π_ref(y)) u(y) / (max u − Σ π_ref(y) u(y))"),
    "win_rate": (metrics.win_rate, "Σ Σ π(y) π_ref(y') / (1 + exp(u(y') − u(y))): the opponent is the reference"),
    "kl": (metrics.kl_to_reference, "Σ π(y) log(π(y)/π_ref(y))"),
    "unobserved_mass": (metrics.unobserved_mass, "Σ π(y) over the y that the mask leaves out of all pairs"),
    "drift": (stability.run_part, "½ Σ |π(y) − π'(y)|, π' at the recorded step nearest to half the row's"),
    "rise": (stability_losses.rise_at_the_end, "L at the last step − the least L of all recorded steps"),
    "jump": (stability_losses.largest_rise, "the largest L at a recorded step − L at the one before, and at least 0"),
}  # fmt: skip


def anchor(name: str) -> str:
    """Return the anchor of a proof on the page."""
    return f"proof-{name}"


def _method(one: Settled, quick: bool) -> list[str]:
    """Return how a claim is judged, with a table of its statements."""
    claim, section = one.claim, section_of(one.name)
    said = [
        f"### {one.name}", "", f"{claim.claimed} [Answer](CLAIMS.md#{one.name}).", "",
        *([f"- {section.whose}: {claim.source}."] if section.whose else []),
        f"- The {section.states} states: {claim.stated}",
        f"- Our reconstruction: {claim.ours}", f"- Rule: {claim.rule}",
        *([f"- Expected beforehand: {claim.predicted}"] if claim.predicted else []),
        f"- What would change the word: {claim.changes}",
        f"- Code: {', '.join(links.code(path, quick) for path in wording.code_files(claim)) or 'none'}.",
    ]  # fmt: skip
    said += [f"- With other margins: {said_of}" for said_of in sensitivity.sentences(one)]
    said += [f"- {searched}" for searched in dict.fromkeys(map(_searched, primaries(one.rows, "worlds"))) if searched]
    measured = [row for row in one.rows if isinstance(row.statement, Contrast)]
    cases = [row for row in one.rows if isinstance(row.statement, Scan)]
    if measured:
        said += ["", *markdown_table(CONTRAST, map(_contrast, measured))]
    if cases:
        said += ["", *markdown_table(SCAN, map(_scan, cases))]
    return said


ALL = "all that are judged"
CONTRAST = ["role", "population", "statement", "frame", "value", "method − baseline", "rows", "a cell is one", "margin",
            "target half-width", "co-primaries", "unit"]  # fmt: skip
SCAN = ["role", "statement", "frame", "value", "rows", "a case is for it where", "proof"]


def _contrast(row: Judged) -> list[str]:
    """Return a contrast's row of the table with the columns ``CONTRAST``."""
    contrast = row.statement
    assert isinstance(contrast, Contrast)
    sides = f"`{contrast.method}` − {f'`{contrast.baseline}`' if contrast.baseline is not None else '0'}"
    unit = contrast.unit.words or "as in the frame"
    factor = f", {contrast.unit.factor}" if contrast.unit.factor else ""
    target = f"{contrast.target:.4g}" if contrast.role == "primary" else "—"
    return [
        contrast.role, contrast.population, contrast.statement, row.experiment,
        f"`{contrast.value}`{', less is better' if contrast.lower_is_better else ''}", sides, _query(contrast.where),
        ", ".join(f"`{name}`" for name in contrast.by) or "all together", f"±{contrast.margin:g}", target,
        f"{contrast.co_primaries}" if contrast.role == "primary" else "—",
        f"{unit}{factor}",
    ]  # fmt: skip


def _scan(row: Judged) -> list[str]:
    """Return a scan's row of the table with the columns ``SCAN``."""
    scan = row.statement
    assert isinstance(scan, Scan)
    rule = f"|value| ≤ {scan.tolerance:g}" if scan.identity else f"value > {scan.tolerance:g}"
    proof = f"[{scan.proof}](#{anchor(scan.proof)}){' refutes it' if scan.refutes else ''}" if scan.proof else "none"
    return [scan.role, scan.statement, row.experiment, f"`{scan.value}`", _query(scan.where), rule, proof]


def _query(where: str) -> str:
    return f"`{where}`" if where else ALL


def _figures(folder: Path) -> Iterable[list[str]]:
    kinds = {"experiment": EXPERIMENTS, "measurement": MEASURED}
    all_of = [(kind, name, one.captions) for kind, registry in kinds.items() for name, one in registry.items()]
    for kind, name, captions in all_of:
        for figure in captions:
            claims = [f"[{claim}](#{claim})" for claim, one in verdicts.EVERY.items() if figure in one.figures]
            yield [links.picture(figure, folder), ", ".join(claims), f"[{name}](#{kind}-{name})"]


def _settings(experiment: Experiment, quick: bool) -> list[str]:
    judged = " ".join((inspect.getdoc(experiment.verdict) or "").split())
    return [f"### Experiment {experiment.name}", "", _asked(experiment, quick), "", f"What is judged: {judged}", "",
            f"{_listed(declared(experiment, quick))}."]  # fmt: skip


def _measured_settings(one: Measurement, folder: Path, quick: bool) -> list[str]:
    settings: dict[str, Any] = {}
    if one.is_in(folder):
        settings = load_manifest(folder / next(iter(one.there(folder).values()))).get("settings", {})
    lacking = "The frames were committed without settings" if one.is_in(folder) else "None has been committed"
    judged = " ".join((inspect.getdoc(one.verdict) or "").split())
    files = ", ".join(f"`{file}`" for file in one.places())
    return [f"### Measurement {one.name}", "", f"{_asked(one, quick)}; `{one.command}`", "", f"Frames: {files}.",
            "", *([f"What is judged: {judged}", ""] if judged else []),
            f"{_listed(settings) or lacking}."]  # fmt: skip


def _asked(one: Experiment | Measurement, quick: bool) -> str:
    """Return the question, with a link to its file."""
    return f"{one.question} {links.code(wording.file_of(one.module), quick)}"


def _listed(settings: Mapping[str, Any]) -> str:
    return "; ".join(f"`{key}` {_compact(value)}" for key, value in settings.items())


def _compact(value: Any) -> str:
    """Return a setting in one line; methods and other words without quotes."""
    return json.dumps(value, ensure_ascii=False, default=_changed).replace('"', "").replace("null", "none")


def _changed(training: Training) -> dict[str, Any]:
    """Return optimiser, learning rate and steps of a recipe, and the other fields that are not the usual ones."""
    usual, shown = Training(), ("optimizer", "learning_rate", "steps")
    unusual = {name for name in FIELDS if getattr(training, name) != getattr(usual, name)}
    return {name: value for name, value in training.settings().items() if name in shown or name in unusual}


def _columns_of_frames(quick: bool) -> list[str]:
    """Return the formulas of the columns that statements judge, with the functions that compute them."""
    said = ["## The columns of the frames", "",
            "Sums go over the responses to a prompt, and each number is a mean over prompts. π is the policy at the"
            " row's step, π_ref the reference, u the true utility, L the run's own loss on held-out pairs."
            " The reachable reward is max u − Σ π_ref(y) u(y); prompts without any are left out of its share."
            " Columns that only one experiment has are explained under “The settings”.", ""]  # fmt: skip
    for name, (function, formula) in COLUMNS.items():
        file = links.code(wording.file_of(function.__module__), quick, f"`{function.__name__}`")
        said.append(f"- `{name}`: {formula}. Computed by {file}.")
    return [*said, ""]


def _searched(row: Judged) -> str:
    """Return by which factors the effect of worlds is shown, and how many conditions on them were tried, in words."""
    if row.search is None or not isinstance(row.statement, Contrast):
        return ""
    factors = ", ".join(f"`{name}`" for name in row.statement.moderators)
    number = row.search.searched
    tried = f"{number:,} conditions were tried" if number else "too few worlds are for, or reversed, to try a condition"
    return f"Moderators, and the factors of conditions ({verdicts.named(row)}): {factors}; {tried}."


def _rules(module: ModuleType) -> str:
    """Return a module's docstring without its first paragraph, which says what the module is."""
    return (inspect.getdoc(module) or "").partition("\n\n")[2]


_DEFINITION = re.compile(r"^([\w`][\w,` ]*?) {2,}(\S.*)$")


def as_markdown(docstring: str | None) -> list[str]:
    """Return a docstring as Markdown: code in single marks, and definitions ("name  what it is") as a list."""
    said = list[str]()
    for text in (docstring or "").replace("``", "`").splitlines():
        found = _DEFINITION.match(text)
        if found:
            said.append(f"- `{found[1].replace('`', '').replace(', ', '`, `')}`: {found[2]}")
        elif text.startswith("  ") and said and said[-1]:
            said[-1] += f" {text.strip()}"
        else:
            said.append(text)
    return said
