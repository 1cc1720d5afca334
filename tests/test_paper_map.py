"""The paper's map leads from each place in the paper to things that exist, and its answers are those of the report."""

import contextlib
import re
import shlex
from dataclasses import astuple, replace
from importlib import import_module
from pathlib import Path

import pytest

from gradlab import cli
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.report import pages, saved, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.open_claims import OPEN
from gradlab.experiments.report.paper_map import PAPER

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
PLACES = [place for places in PAPER.values() for place in places]
FUNCTIONS = sorted({function for place in PLACES for function in place.functions})
COMMANDS = sorted({place.command for place in PLACES if place.command})
HEAVY = re.compile(r"gradlab\.(llm|widgets)\.")  # rooms that are slow to import
NUMBERED = re.compile(r"(Theorem|Eq\.|[Ss]ection|[Ee]quation)s? ([\d.]*\d)(?:(?:–| and | to )(\d+))?")


def numbered(text):
    """Return the numbered places that a text names: "Theorems 4–5" names two."""
    return {
        (kind.lower(), number) for kind, first, last in NUMBERED.findall(text) for number in (first, last) if number
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_function_is_named_by_the_module_that_defines_it(function):
    module, _, name = function.rpartition(".")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text("utf-8")
    assert re.search(rf"^(def|class) {name}\b", source, re.MULTILINE)


@pytest.mark.parametrize(
    "function", [pytest.param(one, marks=pytest.mark.slow if HEAVY.match(one) else ()) for one in FUNCTIONS]
)
def test_every_function_can_be_imported(function):
    if HEAVY.match(function):
        pytest.importorskip("transformers" if ".llm." in function else "ipywidgets")
    module, _, name = function.rpartition(".")
    assert getattr(import_module(module), name).__doc__


def test_every_figure_is_one_of_an_experiment():
    papers = [one for name, one in {**EXPERIMENTS, **MEASURED}.items() if name != "atlas"]  # which judges other papers
    drawn = {figure for one in papers for figure in one.captions}
    shown = {figure for place in PLACES for figure in place.figures}
    assert shown - set(MEASURED["atlas"].captions) == drawn


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_of_gradlab(command, capsys):
    program, name, *arguments = shlex.split(command)
    assert program == "gradlab"
    assert name in cli.COMMANDS
    named = {"figures": {*EXPERIMENTS, "atlas"}, "claims": verdicts.EVERY}
    assert set(arguments) <= set(named.get(name, arguments))
    options = [argument for argument in arguments if argument.startswith("--")]
    if options:
        with contextlib.suppress(SystemExit):
            assert cli.main([name, "--help"]) == 0
        assert set(options) <= set(re.findall(r"--[\w.-]+", capsys.readouterr().out))


def test_every_claim_is_on_the_map_and_no_other():
    assert {claim for place in PLACES for claim in place.claims} == {*CLAIMS, *OPEN}


def test_names_differ_and_what_is_absent_has_no_verdict():
    for place in PLACES:
        assert place.standing in ("stated", "ours", "absent")
        assert place.standing != "absent" or not (place.claims or place.figures), place.name
    assert len({place.name for place in PLACES}) == len(PLACES)


def test_numbers_that_the_code_names_are_on_the_map():
    assert numbered("Theorems 4–5, Eq. 2") == {("theorem", "4"), ("theorem", "5"), ("eq.", "2")}
    texts = [str(astuple(claim)) for claim in CLAIMS.values()]
    texts += [path.read_text("utf-8") for path in (ROOT / "gradlab/theory").glob("*.py")]
    named = set().union(*map(numbered, texts))
    assert {("theorem", "3"), ("theorem", "4"), ("theorem", "5")} <= named
    on_the_map = set().union(*(numbered(f"{part}: {place.name}") for part in PAPER for place in PAPER[part]))
    assert on_the_map >= named | {("eq.", "2"), ("section", "3.1"), ("section", "6.1")}


def committed():
    """The answers of the committed report in brief."""
    report = saved.former(FIGURES)
    assert report is not None
    lines = saved.lines_of(report)
    told = {name: wording.in_brief([line for line in lines if line.claim == name]) for name in report["claim"].unique()}
    return invented(**told)


def invented(**answers):
    return {name: answers.get(name, "not run") for name in verdicts.EVERY}


def test_the_committed_page_is_that_of_the_map_and_of_the_committed_answers():
    page = (FIGURES / "PAPER.md").read_text("utf-8")
    assert page == pages.paper_page(committed(), FIGURES, quick=False), "run make figures"


def test_answers_are_filled_in_from_the_report():
    page = pages.paper_page(invented(ratio="of another report"), FIGURES, quick=False)
    assert "[ratio](CLAIMS.md#ratio): of another report |" in page


def test_an_answer_in_brief_has_the_words_that_were_asked_for():
    """As stated; in drawn worlds; and whether it is the balancing."""
    (head,) = saved.lines(verdicts.settle([], {}, ["ratio"])["ratio"])
    assert wording.in_brief([head]) == "not judged"
    elsewhere = replace(head, word="holds on average", transported="mixed")
    assert wording.in_brief([elsewhere]) == "holds on average; elsewhere mixed"
    explained = replace(elsewhere, because="no practical difference", control="λ = ½")
    assert wording.in_brief([explained]) == "holds on average; elsewhere mixed; no: λ = ½ does as well"


def test_the_page_names_figures_that_are_not_drawn_yet_without_a_link(tmp_path):
    page = pages.paper_page(invented(), tmp_path, quick=False)
    assert "png" not in page
    assert ", ".join(dict.fromkeys(next(place.figures for place in PLACES if len(place.figures) > 1))) in page


def test_every_link_of_the_page_leads_somewhere():
    page = (FIGURES / "PAPER.md").read_text("utf-8")
    texts = [(FIGURES / name).read_text("utf-8") for name in ("CLAIMS.md", "OPEN-QUESTIONS.md")]
    titles = {title.lower().replace(" ", "-") for text in texts for title in re.findall(r"^## (.+)$", text, re.M)}
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page) if "://" not in link]
    assert len(links) > 2 * len(PLACES)
    for link in links:
        path, _, anchor = link.partition("#")
        assert (FIGURES / path).is_file(), link
        assert not anchor or anchor in titles, link


def test_the_page_has_a_row_per_place_with_short_cells():
    page = (FIGURES / "PAPER.md").read_text("utf-8")
    for place in PLACES:
        assert page.count(f"\n| **{place.name}** | ") == 1
        assert len(place.says) <= 160, place.name
        assert len(place.command) <= 80, place.name
