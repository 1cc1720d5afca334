"""Claims are judged by rule from frames, never typed in; the report leads from each answer to its data and rule."""

import inspect
import itertools
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
import torch
from command_line import complaint
from scipy import stats

from gradlab import cli
from gradlab.experiments import EXPERIMENTS, MEASURED, long_experiments
from gradlab.experiments.contrasts import Contrast, Judged, Scan, judged
from gradlab.experiments.make import make_figures
from gradlab.experiments.report import methods_page, pages, saved, sections, sensitivity, terminal, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.experiments.report.open_claims import OPEN
from gradlab.experiments.report.other_claims import OTHERS
from gradlab.stats.population import STATES
from gradlab.stats.words import WORDS, Evidence
from gradlab.store import provenance
from gradlab.store.artifacts import load_frame, save_frame

ROOT = Path(__file__).parent.parent
CLAIM = "log-ratio"  # one that a single experiment judges
# In a folder without measurements, once `gradlab figures` has run there.
NOT_RUN = [name for name, claim in verdicts.EVERY.items() if set(claim.experiments) <= set(long_experiments())]
PAGES = ("README.md", "CLAIMS.md", "METHODS.md", "PAPER.md", "OPEN-QUESTIONS.md")


@pytest.fixture(scope="module")
def settled(quick):
    """Every claim, judged from the quick run."""
    return verdicts.judge_claims(quick, quick=True)


def settle(rows):
    """The made-up claim as these rows settle it."""
    return made_up.settle(rows)[made_up.CLAIM]


@pytest.fixture(scope="module")
def told():
    """All claims, two of them settled by made-up frames."""
    return made_up.told()


@pytest.fixture(scope="module")
def written(told, tmp_path_factory):
    """A folder with their report."""
    folder = tmp_path_factory.mktemp("figures")
    for name in ("README.md", "answer-grid-reward.png"):
        (folder / name).touch()
    pages.write(told, folder, quick=False)
    return folder


def row(word, effect=0.1, *, role="primary", population="stated", claim=made_up.CLAIM, **changes):
    """An answer with this word, which no correction changes."""
    statement = made_up.contrast(role=role, population=population, claim=claim, **changes)
    state = "for" if effect > 0 else "against"
    rows = pd.DataFrame({"effect": [effect], "low": [effect - 0.01], "high": [effect + 0.01], "state": [state],
                         "reversed": [effect < 0], "seeds": [5], "mask": [0.0], "policy": ["free"]})  # fmt: skip
    return Judged(statement, Evidence(), word, rows, 5, effect, effect - 0.01, effect + 0.01, experiment="grid")


# --- the rules -------------------------------------------------------------------------------------------------------


def test_a_claim_is_as_good_as_its_weakest_primary_as_stated_and_nothing_else_changes_its_word():
    strongest_last = ("undecided", "mixed", "no practical difference", "holds on average", "holds throughout")
    for weak, strong in itertools.combinations(strongest_last, 2):
        for order in ((weak, strong), (strong, weak)):
            others = [row("reversed", -9, role=role, statement=role) for role in ("robustness", "context")]
            others.append(row("reversed", -9, population="worlds", by=("world",)))
            one = settle([*(row(word, effect=len(word), statement=word) for word in order), *others])
            assert (one.word, one.transported, one.because) == (weak, "reversed", "")
            assert one.decisive.effect == len(weak)


def test_where_co_primaries_disagree_the_claim_is_mixed_and_says_both():
    one = settle([row("holds throughout", 0.2, statement="A"), row("reversed", -0.1, statement="B")])
    assert one.word == "mixed"
    assert (
        one.sentence == "bDPO reaches 20.0 points of reward more than DPO; but bDPO reaches 10.0 points of reward "
        "less than DPO"
    )


def test_the_weakest_control_that_could_explain_it_away_answers_whether_it_is_the_balancing():
    controls = [row("holds throughout", 0.3, role="explains away", label="A"),
                row("no practical difference", 0.002, role="explains away", label="B"),
                row("not run", np.nan, role="explains away", label="C")]  # fmt: skip
    one = settle([row("holds throughout"), *controls])
    head = saved.lines(one)[0]
    assert (one.word, one.because, head.control) == ("holds throughout", "no practical difference", "B")
    assert wording.because(head) == "no: B does as well"
    assert wording.because(saved.lines(settle([row("holds throughout"), controls[2]]))[0]) == "—"
    assert wording.because(saved.lines(settle([row("reversed"), controls[1]]))[0]) == "there is no gain to explain"


def test_co_primaries_share_a_correction_and_each_control_has_its_own():
    noise = np.random.default_rng(0).standard_normal(10)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    frame = pd.DataFrame({"method": "bdpo", "seed": range(10), "reward": 2.4 / np.sqrt(10) + noise})  # p = 0.04
    kind = {"baseline": None, "by": (), "margin": 0.1}
    control = made_up.contrast(role="explains away", label="really", **kind)
    for primaries, word in ((1, "holds on average"), (2, "undecided")):
        statements = [made_up.contrast(statement=f"{number}", **kind) for number in range(primaries)]
        one = settle(judged(frame, [*statements, control]))
        assert (one.word, one.because) == (word, "holds on average")


def test_a_claim_without_its_frames_is_not_judged_and_says_why():
    one = verdicts.settle([], {CLAIM: "stale"}, [CLAIM])[CLAIM]
    assert (one.word, one.why, one.sentence) == ("not judged", "stale frames: log-ratio", one.why)
    one = verdicts.settle([row("holds throughout")], {**made_up.FRAMES, "worlds": "missing"})[made_up.CLAIM]
    assert (one.word, one.why, one.rows) == ("not judged", "missing frames: worlds", ())


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_claim_without_its_measurement_is_not_run_and_says_what_it_needs(name):
    one = verdicts.settle([], {}, [name])[name]
    assert one.word == "not run"
    assert one.sentence == "nobody has measured it here"
    assert saved.lines(one)[0].note == one.why
    assert one.why.endswith("none has been committed")
    papers = {"overhead": "make bench", "symmetric-unstable": "make llm-demo", "llm": "gradlab protocol"}
    papers |= dict.fromkeys([name for name in verdicts.EVERY if name.startswith("pretrained-")], "make llm-real")
    (*asked,) = (f"gradlab figures {experiment}" for experiment in one.claim.experiments)
    assert papers.get(name, (*asked, "make atlas")[0]) in one.why  # the atlas judges all claims of other papers


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_row_of_no_claim_and_a_claim_without_a_primary_are_refused():
    with pytest.raises(ValueError, match=r"claim must be one of ratio, .*; got 'log-ration'; did you mean 'log-ratio'"):
        verdicts.settle([row("holds throughout", claim="log-ration")], {})
    with pytest.raises(ValueError, match=r"^grid-reward must have a primary, got rows of context, explains away$"):
        settle([row("holds throughout", role="explains away")])


HERE, ELSEWHERE = made_up.frame(seeds=3), made_up.worlds(number=4, seeds=3)
LEVELS = {"mask": (0.0, 0.2, 0.4)}
FRAMES = {
    "without a cell": (HERE.query("mask != 0.2"), made_up.contrast(), LEVELS, "frame must have the declared values of "
                       "mask; 0.2 is missing"),
    "without a combination": (HERE.query("mask != 0.2 or policy != 'free'"), made_up.contrast(), LEVELS,
                              "frame must have the declared units, mask 0.2, policy free is missing"),
    "without a world": (ELSEWHERE.query("world != 2"), made_up.elsewhere(), None,
                        "frame must have the worlds from 0 to 3; world 2 is missing"),
    "with a seed twice": (pd.concat([HERE, HERE]), made_up.contrast(), None,
                          "'bdpo' and 'dpo' must have one reward for each mask, policy, seed"),
    "with NaN": (HERE.assign(reward=HERE["reward"].where(HERE["seed"] != 1)), made_up.contrast(), None,
                 "'bdpo' and 'dpo' must both have reward for the same mask, policy, seed"),
    "of another version": (HERE.rename(columns={"reward": "utility"}), made_up.contrast(), None,
                           "frame must be a data frame with the columns method, mask, policy, seed, reward, got one "
                           "without reward"),
    "without a column of the query": (HERE, made_up.contrast(where="data != 'exact'"), None,
                                      "frame must have the columns of \"data != 'exact'\", got one where name "
                                      "'data' is not defined"),
    "without the method": (HERE.query("method != 'dpo'"), made_up.contrast(), None,
                           "'bdpo' and 'dpo' must both have reward for the same mask, policy, seed"),
    "of cases with a gap": (made_up.cases([1.0, np.nan]), made_up.scan(), None,
                            "'the left side is the smaller one' must have slack in every case, got 2 with gaps"),
    "of cases of another version": (made_up.cases().rename(columns={"slack": "gap"}), made_up.scan(), None,
                                    "frame must be a data frame with the columns family, slack, got one without slack"),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_cannot_be_judged_is_one_line(name):
    frame, statement, levels, words = FRAMES[name]
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        judged(frame, [statement], levels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("margin", [0, -0.01, float("nan")])
def test_a_margin_is_above_0(margin):
    with pytest.raises(ValueError, match=r"^margin of 'reward at the end, bDPO against DPO' must be finite and > 0"):
        made_up.contrast(margin=margin)


# --- in words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [*WORDS, verdicts.NOT_JUDGED])
def test_every_word_has_an_answer_in_three_sentences(word):
    control = row("no practical difference", role="explains away", label="λ = ½")
    rows = [] if word == verdicts.NOT_JUDGED else [row(word, np.nan if word == "not run" else 0.1), control]
    one = settle(rows) if rows else verdicts.settle([], {})[made_up.CLAIM]
    said = wording.three_sentences(one)
    assert len(said) == 3
    assert all(sentence.endswith(".") and sentence.count(". ") == 0 and "nan" not in sentence for sentence in said)
    assert one.word == word


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_a_control_says_whether_it_is_the_balancing(word):
    one = settle([row("holds throughout"), row(word, role="explains away", label="λ = ½")])
    said = wording.because(saved.lines(one)[0])
    assert said
    assert (said == "—") == (word == "not run")
    assert wording.three_sentences(one)[2].startswith("**Is it the balancing?** ")


def test_the_three_sentences_follow_the_frames():
    one = settle(made_up.answers(ahead_elsewhere=lambda dose, mask: 0.08 - 0.02 * dose, half=0.002))
    helps, where, why = wording.three_sentences(one)
    start = r"\*\*Does Balanced-DPO help\?\*\* Yes, throughout: on the paper's grid, "
    assert re.match(start + r"bDPO reaches \d\.\d points of reward "
                    r"\(95% interval 5\.\d to 6\.\d\) more than DPO\.$", helps)  # fmt: skip
    assert "It depends: in 60 worlds that were drawn at random" in where
    assert re.search(r"depends most on the dose .*: \+\d\.\d where it is .* and -\d\.\d where it is", where)
    assert "No, what balances nothing does as well: bDPO reaches 0." in why
    worlds = judged(made_up.worlds(lambda dose, mask: 0.0), [made_up.elsewhere(role="explains away")])
    why = wording.three_sentences(settle([*made_up.answers(), *worlds]))[2]
    assert "No, what balances nothing does as well: in 60 drawn worlds, bDPO reaches 0." in why


def test_no_table_says_that_something_fails_by_a_positive_number():
    for effects in ((0.06,), (0.06, -0.06), (0.0,), (-0.06,)):
        one = settle(made_up.answers(effects))
        said = wording.summary(saved.lines(one))
        assert not set("".join(said).split()) & {"fails", "inconclusive"}
        assert ("less than DPO" in said[1]) == (one.decisive.effect < 0)
        assert said[2] in ("holds throughout", "mixed", "no practical difference", "reversed")
        assert re.fullmatch(r"\d : \d : \d cells(, \d undecided)?", said[3])


def test_numbers_are_in_the_unit_of_their_row():
    head, stated, *_ = saved.lines(settle(made_up.answers(noise=0.0)))
    assert (stated.effect, stated.unit, stated.margin) == (pytest.approx(6.0), "points of reward", pytest.approx(1.0))
    assert wording.effect(head) == "+6.0 points of reward, equal in all 12 seeds"
    assert wording.counts(head) == "6 : 0 : 0 cells"
    scan = saved.line(*judged(made_up.cases(), [made_up.scan(refutes=True)]))
    assert (wording.effect(scan), wording.counts(scan)) == ("—", "2 : 0 : 1 cases")
    assert wording.effect(replace(stated, effect=-0.001, low=-0.2, high=0.2)) == "+0.0 [-0.2, +0.2] points of reward"
    assert "%" not in scan.sentence


def test_worlds_are_told_with_spread_reversals_factors_and_the_searched_condition():
    (answer,) = judged(made_up.worlds(lambda dose, mask: 0.08 - 0.02 * dose), [made_up.elsewhere()])
    text = " ".join(wording.new_worlds(answer))
    shown = answer.transport
    assert f"standard deviation of {100 * shown.between:.1f} points of reward" in text
    assert f"between {100 * shown.expected[0]:+.1f} and {100 * shown.expected[1]:+.1f} (95%)" in text
    assert f"{answer.number('for')} worlds for the claim (" in text
    assert f"{answer.number('against')} worlds against it (" in text
    turned = wording.reversed_units(answer)
    assert turned[-1] == f"{answer.rows['reversed'].sum() - 12} more"
    assert f"Reversed worlds (below 0 at a false discovery rate of 5%; lowest first): {'; '.join(turned)}." in text
    assert f"{answer.search.searched:,} conditions were tried on one half" in text
    assert "the other half confirms it" in text
    table = wording.moderators(answer)
    assert table[0][0].startswith("dose (max − min of u, over β): explains 9")
    assert len(table) == sum(map(len, answer.moderators.values()))
    assert wording.strongest(answer).startswith("dose")
    (calm,) = judged(made_up.worlds(), [made_up.elsewhere()])
    assert "lowest first): none." in " ".join(wording.new_worlds(calm))


def test_of_worlds_the_counts_are_those_of_the_primary_that_stands_for_them():
    """Of two with one word it is the one with the lowest effect in margins, whichever was declared first."""
    rows = [
        judged(made_up.worlds(lambda dose, mask, ahead=ahead: ahead), [made_up.elsewhere(label=label)])[0]
        for label, ahead in (("far", 0.05), ("near", 0.012))
    ]
    one = made_up.settle([*made_up.answers()[:3], *rows])[made_up.CLAIM]
    assert one.in_worlds.statement.label == "near"
    far, near = (wording.counts(saved.line(row)) for row in rows)
    assert far != near
    assert wording.elsewhere(saved.lines(one)).endswith(f"; {near}")


def test_a_mixed_average_without_a_sure_sign_says_so_with_both_counts():
    (row,) = judged(made_up.frame((0.05, -0.05), noise=0.01), [made_up.contrast()])
    assert row.word == "mixed"
    assert row.low < 0 < row.high
    assert row.sentence.endswith("on average, which decides nothing: it is true in 3 of 6 cells, and the opposite in 3")


def test_an_average_that_is_equal_in_all_seeds_shows_no_interval():
    (row,) = judged(made_up.frame((0.05,), seeds=3, noise=0.0), [made_up.contrast()])
    assert wording.interval(saved.line(row)) == "+5.0, equal in all 3 seeds"


def test_cells_at_the_cap_are_named_and_undecided_rows_say_what_they_need():
    (answer,) = judged(made_up.frame((0.0, 0.004), noise=0.05), [made_up.contrast()])
    answer = replace(answer, experiment="grid")
    assert answer.wide == 6
    assert "6 of 6 cells hit the cap of seeds with half-widths above" in wording.wide_cells(answer)
    fixed = wording.wide_cells(replace(answer, experiment="sampling"))
    assert "6 of 6 cells have, with the declared number of seeds, half-widths above" in fixed
    assert "mask 0, policy free" in wording.wide_cells(answer)
    measured = wording.wide_cells(replace(answer, experiment="overhead"))
    assert "6 of 6 cells were measured once, and have half-widths above" in measured
    (control,) = judged(made_up.frame((0.0, 0.004), noise=0.05), [made_up.contrast(role="explains away")])
    assert wording.wide_cells(control) == ""
    assert answer.word == "undecided"
    assert answer.sentence.endswith(", but that decides nothing")
    assert re.fullmatch(r"DPO: undecided with 12 seeds; about \d+ would decide\.", wording.needs(answer))


# --- claims, experiments and figures belong together -----------------------------------------------------------------


def test_the_claims_are_the_declared_ones_in_their_order():
    assert list(CLAIMS) == [
        "ratio", "inner-product", "shift-dpo", "shift-balanced", "shift-bdpo", "variance", "ratio-corrected",
        "grid-reward", "grid-unobserved", "grid-stability", "ablation", "symmetric-unstable", "ppo", "log-ratio",
        "overhead", "llm",
    ]  # fmt: skip
    for name, claim in CLAIMS.items():
        assert all((claim.claimed, claim.stated, claim.ours, claim.rule, claim.changes)), name
        assert bool(claim.needs) == (not claim.experiments and not claim.measurements), name


def test_each_claim_is_judged_by_the_experiments_that_it_names(settled):
    for name, one in settled.items():
        if name in NOT_RUN:
            continue
        assert set(one.claim.experiments) <= {row.experiment for row in one.rows}, name
        assert one.decisive, name
        for found in one.rows:
            assert sum(map(found.number, STATES)) == len(found.rows)


@pytest.fixture(scope="module")
def statements(settled):
    """Every statement that a quick run judges."""
    return [found.statement for one in settled.values() for found in one.rows]


PURE = {"inner-product", "log-ratio"}  # claims on cosines and correlations, which have no unit


def test_every_contrast_says_in_a_plain_sentence_what_is_true(statements):
    contrasts = [one for one in statements if isinstance(one, Contrast)]
    sizes = [one for one in contrasts if one.baseline is None and one.role == "context"]  # such as a share
    sentences = [f"{one.claim}: {one.statement}" for one in contrasts
                 if "{size}" not in one.better or ("{size}" not in one.worse and one not in sizes)]  # fmt: skip
    assert not sentences
    assert not [one.statement for one in contrasts if not one.unit.words and one.claim not in PURE]
    assert not [one.statement for one in contrasts if one.role == "explains away" and not one.label]


def test_every_scan_says_what_is_true_and_primaries_rest_on_a_proof(statements):
    scans = [one for one in statements if isinstance(one, Scan)]
    first = [one for one in scans if one.role == "primary"]
    assert not [one.statement for one in first if not (one.fails if one.refutes else one.holds)]
    assert not [one.statement for one in first if one.proof not in methods_page.PROOFS]


def test_no_statement_has_a_result_typed_in(statements, settled):
    """A statement is the same whatever the frame says; settings and thresholds have their own numbers."""
    for one in statements:
        assert not re.search(r"measured:|mean slope|median share|\d+ in \d+ runs", one.statement), one.statement
        assert not re.search(r"[+−-]\d+\.\d", one.statement), one.statement


def test_every_figure_belongs_to_a_claim_and_every_claim_has_the_figures_that_it_names():
    drawn = {figure for experiment in EXPERIMENTS.values() for figure in experiment.captions}
    drawn |= {figure for one in MEASURED.values() for figure in one.captions}
    named = {
        figure
        for claim in verdicts.EVERY.values()
        if not set(claim.experiments) - set(EXPERIMENTS)
        for figure in claim.figures
    }
    assert drawn <= {figure for claim in verdicts.EVERY.values() for figure in claim.figures}
    assert named <= drawn


# --- the pages -------------------------------------------------------------------------------------------------------


def anchors(page):
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page, re.M)}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name, quick):
    check_links(quick, name, "../../")


def check_links(folder, name, root):
    page = (folder / name).read_text("utf-8")
    for link in re.findall(r"\]\((?!https://)([^)]+)\)", page):
        path, _, anchor = link.partition("#")
        if path.startswith(root):
            assert (ROOT / path.removeprefix(root)).exists(), link
        else:
            assert (folder / path).exists(), link
            assert not anchor or anchor in anchors((folder / (path or name)).read_text("utf-8")), link


@pytest.mark.parametrize("name", ["CLAIMS.md", "METHODS.md"])
def test_every_link_between_the_pages_leads_somewhere(name, written):
    page = (written / name).read_text("utf-8")
    links = set(re.findall(r"\]\(((?:CLAIMS|METHODS)\.md)?#([^)]+)\)", page))
    assert len(links) > len(CLAIMS)
    for path, anchor in links:
        assert anchor in anchors((written / (path or name)).read_text("utf-8")), anchor


def test_claims_of_other_papers_stand_apart_and_say_whose_they_are(told, written):
    page = (written / "CLAIMS.md").read_text("utf-8")
    ours, _, others = page.partition(f"**{sections.OTHER_PAPERS.title}**: ")
    for name, claim in OTHERS.items():
        assert f"| [{name}](#{name}) |" not in ours
        assert f"| [{name}](#{name}) |" in others
        assert f"Claim of another paper: {claim.source}." in section(page, name)
        assert f"Expected beforehand: {claim.predicted}" in section((written / "METHODS.md").read_text("utf-8"), name)
    assert wording.tally_of_words(told[name].word for name in CLAIMS) in ours
    table = terminal.table(told.values()).splitlines()
    divider = next(place for place, line in enumerate(table) if line.startswith(sections.OTHER_PAPERS.title))
    assert [line.split()[0] for line in table[divider + 1 :] if line[:1].isalpha()] == list(OTHERS)


def section(page, title):
    return re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("name", list(verdicts.EVERY))
def test_every_claim_has_a_section_with_its_answer_and_the_way_to_rule_and_code(name, told, written):
    one, page = told[name], (written / "CLAIMS.md").read_text("utf-8")
    head, *rows = saved.lines(one)
    text, rule = section(page, name), section((written / "METHODS.md").read_text("utf-8"), name)
    assert f"**{head.sentence}.** Word: **{one.word}**." in text
    assert page.count(f"| [{name}](#{name}) | {head.sentence.replace('|', chr(92) + '|')} | **{one.word}** | ") == 1
    for words in (one.claim.stated, one.claim.ours, one.claim.rule, one.claim.changes):
        assert words in text
        assert words in rule
    assert f"(METHODS.md#{name})" in text
    assert f"(CLAIMS.md#{name})" in rule
    for experiment in one.claim.experiments:
        assert f"/gradlab/experiments/questions/{experiment.replace('-', '_')}.py)" in text
    for line in rows:
        assert line.sentence in text
        assert line.statement in rule


def test_a_section_says_where_the_claim_holds_on_what_it_depends_and_whether_it_is_the_balancing(told, written):
    text = section((written / "CLAIMS.md").read_text("utf-8"), made_up.CLAIM)
    order = ("What the claim stands on", "Elsewhere", "On what it depends", "Is it the balancing?", "Robustness",
             "Context")  # fmt: skip
    places = [text.index(f"**{title}") for title in order]
    assert places == sorted(places)
    assert "![answer-grid-reward](answer-grid-reward.png)" in text
    (worlds,) = verdicts.primaries(told[made_up.CLAIM].rows, "worlds")
    assert " ".join(wording.new_worlds(worlds)) in text
    assert "**On what it depends.** Each row has a 95% interval, not corrected for the number of rows." in text
    assert "**Is it the balancing?** Yes: ahead of every control." in text


def test_what_algebra_settles_has_its_proof_and_no_percentage(written):
    text = section((written / "CLAIMS.md").read_text("utf-8"), "variance")
    assert "[Proof](METHODS.md#proof-variance)" in text
    answer = text.partition("- Stated")[0].partition("**Proof")[0]
    assert "%" not in answer
    assert "for : none : against: 2 : 0 : 1 cases" in answer
    proof = section((written / "METHODS.md").read_text("utf-8"), "Proof: variance")
    assert "(../tests/test_proofs.py)" in proof


def test_tables_are_whole(written):
    for name in PAGES[1:]:
        page = (written / name).read_text("utf-8")
        for _, lines in itertools.groupby(page.splitlines(), key=lambda line: line.startswith("|")):
            widths = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
            assert len(widths) <= 1


def test_the_rules_are_the_docstrings_of_what_applies_them(written):
    page = (written / "METHODS.md").read_text("utf-8")
    for words in (
        "`average_over_cells`. Return the mean over fixed cells",
        "`word_of`. Return the word on one endpoint",
        "- `holds throughout`: p_differs ≤ 5% and an effect above 0; a share beyond + margin of at least 95%, and no",
        "`holm`. Return Holm's step-down correction",
        "were written after the first results",
        "confirmed on seeds from 1000 on",
    ):
        assert words in page
    for experiment in EXPERIMENTS.values():
        assert all(f"`{key}` " in page for key in experiment.settings)
    assert methods_page.as_markdown("Do it.\n\na      what\n       more\nb, c   ``that``\n") == [
        "Do it.", "", "- `a`: what more", "- `b`, `c`: `that`",
    ]  # fmt: skip


def test_the_methods_page_has_a_key_to_every_column_of_the_report(written):
    key = section((written / "METHODS.md").read_text("utf-8"), "The columns of claims.csv")
    columns = (written / "claims.csv").read_text("utf-8").partition("\n")[0].split(",")
    assert not [name for name in columns if f"`{name}`" not in key]


def test_the_formulas_of_columns_are_what_their_functions_compute():
    draw = np.random.default_rng(5)
    p, ref = draw.dirichlet(np.ones(4), size=(2, 3))
    u, observed, losses = draw.normal(size=(3, 4)), draw.random((3, 4)) < 0.5, draw.normal(size=(6, 2))
    beats = 1 / (1 + np.exp(u[:, None, :] - u[:, :, None]))
    base = (ref * u).sum(1)
    by_hand = {
        "utility": (p * u).sum(1), "utility_share": ((p - ref) * u).sum(1) / (u.max(1) - base),
        "win_rate": (p[:, :, None] * ref[:, None, :] * beats).sum((1, 2)), "kl": (p * np.log(p / ref)).sum(1),
        "unobserved_mass": np.where(observed, 0, p).sum(1),
    }  # fmt: skip
    tensors = {"logp": np.log(p), "ref_logp": np.log(ref), "opponent_logp": np.log(ref), "utility": u,
               "observed": observed}  # fmt: skip
    for name, value in by_hand.items():
        function, _ = methods_page.COLUMNS[name]
        given = {key: torch.as_tensor(tensors[key]) for key in inspect.signature(function).parameters}
        assert function(**given).item() == pytest.approx(value.mean())
    rise, jump = (methods_page.COLUMNS[name][0] for name in ("rise", "jump"))
    assert rise(losses) == pytest.approx([column[-1] - min(column) for column in losses.T])
    assert jump(losses) == pytest.approx([max(0, *(b - a for a, b in itertools.pairwise(c))) for c in losses.T])


def test_every_column_that_is_judged_has_its_formula_on_the_methods_page(settled, quick):
    page = (quick / "METHODS.md").read_text("utf-8")
    formulas = section(page, "The columns of the frames")
    for one in itertools.chain(*(claim.rows for claim in settled.values())):
        if one.experiment in EXPERIMENTS:
            name = one.statement.value
            said = section(page, f"Experiment {one.experiment}")
            assert f"- `{name}`: " in formulas or f"``{name}``" in said, (one.experiment, name)


def test_what_is_judged_of_ratios_can_be_picked_from_its_frame_by_the_query_alone(settled, quick):
    frame = pd.read_parquet(quick / "data" / "ratios.parquet")
    answers = [one for one in settled["ratio-corrected"].rows if isinstance(one.statement, Contrast)
               and one.experiment == "ratios"]  # fmt: skip
    assert len(answers) == 4
    for one in answers:
        picked = frame.query(one.statement.where)
        assert set(picked["kind"]) <= {"training", "sequence"}
        if set(picked["kind"]) == {"training"}:
            means = picked.query("method == @one.statement.method").groupby("policy")["share"].mean()
            assert one.rows["effect"].tolist() == pytest.approx(means.tolist())
        assert one.seeds == picked["seed"].nunique()


@pytest.mark.parametrize("multiple", [0.5, 1, 2])
@pytest.mark.parametrize("kind", ["stated", "worlds"])
def test_the_word_with_another_margin_is_that_of_judging_again(kind, multiple):
    for effect in np.linspace(-0.06, 0.06, 13):
        if kind == "stated":
            frame, statement = made_up.frame((effect, 2 * effect), noise=0.01), made_up.contrast()
        else:
            frame = made_up.worlds(lambda dose, mask, size=effect: size - dose * size / 4, number=20)
            statement = made_up.elsewhere()
        (answer,) = judged(frame, [statement])
        (again,) = judged(frame, [replace(statement, margin=multiple * statement.margin)])
        assert sensitivity.words_by_margin([answer])[multiple] == again.word


def test_the_methods_page_says_with_which_margins_a_word_stays(written, told):
    said = section((written / "METHODS.md").read_text("utf-8"), made_up.CLAIM)
    sentences = sensitivity.sentences(told[made_up.CLAIM])
    assert [line.split()[0] for line in sentences] == ["As", "In"]
    assert all(f"- With other margins: {line}" in said for line in sentences)
    wide, narrow = (made_up.settle(made_up.answers((effect,)))[made_up.CLAIM] for effect in (0.06, 0.015))
    stays = "and stays so with half the margin and with twice the margin."
    assert sensitivity.sentences(wide)[0] == f"As stated the word is *holds throughout*, {stays}"
    assert "with twice the margin it would be *no practical difference*." in sensitivity.sentences(narrow)[0]
    assert sensitivity.sentences(settle([row("holds throughout")])) == []  # a rule of the question has set the word


def test_the_pages_mark_a_quick_run(quick):
    for name in PAGES:
        assert "These are not results" in (quick / name).read_text("utf-8")


def test_findings_and_the_answer_stand_between_the_readmes_markers(told, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("x\n<!-- answer -->\n<!-- /answer -->\n<!-- findings -->\n<!-- /findings -->\ny\n")
    pages.write_findings(readme, told)
    page = readme.read_text("utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| [")]
    assert len(lines) == len(CLAIMS)
    for line, name in zip(lines, CLAIMS, strict=True):
        one = told[name]
        assert line.startswith(f"| [{name}](figures/CLAIMS.md#{name}) | ")
        assert f" | **{one.word}** | " in line
    answer = page.partition("<!-- answer -->\n")[2].partition("\n<!-- /answer -->")[0]
    assert answer == " ".join(wording.three_sentences(told[made_up.CLAIM]))


def test_the_readme_has_the_markers():
    page = (ROOT / "README.md").read_text("utf-8")
    for name in (pages.ANSWER, pages.FINDINGS):
        assert page.count(f"<!-- {name} -->") == page.count(f"<!-- /{name} -->") == 1


def by_hand(frame, cells):
    """Effect, interval, tally and word of a primary, from its row of METHODS.md alone."""
    value, less = re.fullmatch(r"`(\w+)`(, less is better)?", cells["value"]).groups()
    method, baseline = re.fullmatch(r"`([^`]+)` − `([^`]+)`", cells["method − baseline"]).groups()
    by, margin = re.findall(r"`(\w+)`", cells["a cell is one"]), float(cells["margin"].strip("±"))
    rows = frame if cells["rows"] == methods_page.ALL else frame.query(cells["rows"].strip("`"))
    sides = [rows[rows["method"] == name].set_index([*by, "seed"])[value] for name in (method, baseline)]
    differences = (sides[0] - sides[1]) * (-1 if less else 1)
    table = differences.unstack("seed")
    run, means = table.notna(), table.mean(axis=1)
    if cells["population"] == "stated":
        moves = (table.sub(means, axis=0).div(len(table) * run.sum(axis=1), axis=0)).sum(axis=0)
        seeds, freedom = len(moves), run.sum(axis=1).min() - 1
        error = np.sqrt(seeds / (seeds - 1) * (moves**2).sum())
    else:
        error, freedom = means.std(ddof=1) / np.sqrt(len(means)), len(means) - 1
    half = stats.t.ppf(0.975, freedom) * error
    tally = {"for": 0, "none": 0, "against": 0, "undecided": 0}
    for values in (row[~np.isnan(row)] for row in table.to_numpy()):
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        sided = [stats.ttest_1samp(values, end, alternative=side).pvalue
                 for end, side in ((-margin, "greater"), (margin, "less"))]  # fmt: skip
        state = (
            "for" if low > margin else "against" if high < -margin else "none" if max(sided) <= 0.05 else "undecided"
        )
        tally[state] += 1
    return means.mean(), means.mean() - half, means.mean() + half, tally


def primaries_by_hand(folder, claim, frames):
    """Each primary of a claim in the saved report, beside what the methods page and a frame give by hand."""
    text = section((folder / "METHODS.md").read_text("utf-8"), claim)
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")]
                      for line in text.splitlines() if line.startswith("|")]  # fmt: skip
    assert head == methods_page.CONTRAST
    report = saved.from_csv((folder / "claims.csv").read_text("utf-8"))
    ours = [line for line in saved.lines_of(report) if (line.claim, line.row) == (claim, "primary")]
    lines = {(line.population, line.statement): line for line in ours}
    for cells in (dict(zip(head, row, strict=True)) for row in rows if row[0] == "primary"):
        effect, low, high, tally = by_hand(frames[cells["population"]], cells)
        factor = float(cells["unit"].rpartition("× ")[2])
        yield lines[cells["population"], cells["statement"]], [effect * factor, low * factor, high * factor], tally


def test_an_answer_can_be_computed_again_from_the_methods_page_and_the_frame(written):
    frames = {"stated": made_up.frame(half=0.02, double=0.08),
              "worlds": made_up.worlds(lambda dose, mask: 0.08 - 0.02 * dose)}  # fmt: skip
    found = list(primaries_by_hand(written, made_up.CLAIM, frames))
    assert [line.population for line, *_ in found] == ["stated", "worlds"]
    for line, numbers, tally in found:
        assert numbers == pytest.approx([line.effect, line.low, line.high], rel=1e-5)
        assert tally == line.states


@pytest.mark.parametrize("claim", ["grid-reward", "grid-unobserved", "ablation"])
def test_three_claims_can_be_computed_again_from_the_methods_page_and_the_saved_frames(claim, quick):
    grid = pd.read_parquet(quick / "data" / "grid.parquet")
    frames = {"stated": grid[grid["step"] == grid["step"].max()],
              "worlds": pd.read_parquet(quick / "data" / "worlds.parquet")}  # fmt: skip
    found = list(primaries_by_hand(quick, claim, frames))
    assert {line.population for line, *_ in found} == {"stated", "worlds"}
    for line, numbers, tally in found:
        assert numbers == pytest.approx([line.effect, line.low, line.high], rel=1e-4)
        assert tally == line.states


def test_the_report_as_csv_comes_back_and_equal_answers_give_equal_bytes(told, written):
    text = saved.as_csv(told.values())
    assert text == (written / "claims.csv").read_text("utf-8")
    back = saved.from_csv(text)
    pd.testing.assert_frame_equal(back, saved.records(told.values()), rtol=1e-5, check_dtype=False)
    assert list(back["claim"].unique()) == [*CLAIMS, *OPEN, *OTHERS]
    assert set(back["row"]) == {"claim", "primary", "explains away", "robustness", "context"}
    assert saved.changes(back, told) == saved.moved(back, told.values()) == []
    for one, line in zip(saved.lines_of(back), itertools.chain(*map(saved.lines, told.values())), strict=True):
        assert (one.sentence, one.states, wording.effect(one)) == (line.sentence, line.states, wording.effect(line))
    last = text.splitlines()[-1]
    twice, half = f"{text}{last}\n", re.sub(r"(points of reward),\d+,", r"\1,2.5,", text)
    assert half != text
    for wrong in ("", "a,b\n1,2\n", text.replace(",between,", ",among,"), twice, half):
        with pytest.raises(ValueError, match=r"^claims\.csv must be a report .* of this version"):
            saved.from_csv(wrong)


def test_words_that_changed_and_effects_that_moved_are_told_apart(told):
    report = saved.records(told.values())
    more = made_up.settle(made_up.answers((0.08,), ahead_elsewhere=lambda dose, mask: 0.08 - 0.02 * dose))
    only = {made_up.CLAIM: more[made_up.CLAIM]}
    assert saved.changes(report, only) == []
    said = saved.moved(report, only.values())
    assert [line.split(":")[1] for line in said] == [" reward at the end, bDPO against DPO", " without masks"]
    assert re.search(r"bDPO against DPO: \+5\.9 \[.*\] → \+7\.9 \[.*\] points of reward$", said[0])
    less = made_up.settle(made_up.answers((-0.06,), half=-0.06))
    assert "grid-reward: holds throughout → reversed" in saved.changes(report, less)
    assert "grid-reward, elsewhere: mixed → holds on average" in saved.changes(report, less)


# --- nothing is typed in ---------------------------------------------------------------------------------------------


def halve(folder):
    """Alter the log-ratio frame, so that nothing correlates any more."""
    path = folder / "data" / "log-ratio.parquet"
    frame, manifest = load_frame(path)
    frame["grad_norm"] = np.random.default_rng(0).standard_normal(len(frame))
    save_frame(frame, path, {name: manifest[name] for name in ("key", "settings", "quick")}, overwrite=True)


def test_another_frame_gives_another_word_in_report_and_terminal(copy, settled, capsys):
    folder = copy / "quick"
    command, word = ["claims", CLAIM, "--folder", str(folder)], settled[CLAIM].word
    assert cli.main(command) == 0
    assert re.search(rf"^word +{word}$", capsys.readouterr().out, re.MULTILINE)
    halve(folder)
    assert cli.main(command) == 3
    said = capsys.readouterr().out
    assert f"changed against the committed report: log-ratio: {word} → " in said
    assert "moved against the committed report: log-ratio: " in said
    make_figures([CLAIM], folder=copy, quick=True)
    assert f"words changed: log-ratio: {word} → " in capsys.readouterr().out
    assert f"Word: **{word}**." not in section((folder / "CLAIMS.md").read_text("utf-8"), CLAIM)
    assert cli.main(command) == 0


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(told, tmp_path, monkeypatch):
    """A folder with frames and a report, whose claims are the made-up ones."""
    folder = tmp_path / "figures"
    (folder / "data").mkdir(parents=True)
    pages.write(told, folder, quick=False)
    monkeypatch.setattr(
        verdicts, "judge_claims", lambda _, names, **kind: {name: told[one] for one in names for name in (one,)}
    )
    return folder


def test_the_table_names_every_claim_and_word_within_its_width(shown, told, capsys):
    assert cli.main(["claims", "--folder", str(shown)]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 120
    for name, one in told.items():
        assert re.search(rf"^{name} +{one.word.split()[0]}", out, re.MULTILINE), name
    assert "6 : 0 : 0 cells" in out
    assert "missing frames: " in err


def test_a_claim_is_explained_with_its_parts_and_its_paths(shown, told, capsys):
    (shown / "grid-reward.png").touch()
    (shown / "data" / "grid.parquet").touch()
    assert cli.main(["claims", made_up.CLAIM, "--folder", str(shown)]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    one, text = told[made_up.CLAIM], " ".join(out.split())
    for words in (one.claim.stated, one.claim.ours, one.claim.rule, one.claim.changes, one.sentence,
                  *(found.replace("**", "") for row in one.rows for found in wording.new_worlds(row)),
                  *(found.sentence for found in one.rows)):  # fmt: skip
        assert " ".join(words.split()) in text.replace(" - ", " ")
    for path in (shown / "grid-reward.png", shown / "data/grid.parquet", "gradlab/experiments/questions/grid.py"):
        assert str(path) in out
    assert "gradlab figures grid worlds frontier --fresh" in text


def test_an_unknown_claim_and_a_folder_without_results_are_one_line(tmp_path, capsys):
    (tmp_path / "here" / "data").mkdir(parents=True)
    for arguments, message in (
        (["log-ration", "--folder", str(tmp_path / "here")], "got 'log-ration'; did you mean 'log-ratio'?"),
        (["--folder", str(tmp_path)], f"folder must be one that `gradlab figures` has filled, got '{tmp_path}'"),
    ):
        assert one_line(["claims", *arguments], capsys).endswith(message)


def one_line(command, capsys):
    """The one line that a command says, which ends with status 2 and prints nothing else."""
    assert cli.main(command) == 2
    return complaint(capsys).rstrip()


@pytest.mark.parametrize("name", FRAMES)
def test_the_command_refuses_a_frame_that_cannot_be_judged_in_one_line(name, tmp_path, monkeypatch, capsys):
    frame, statement, levels, words = FRAMES[name]
    save_frame(frame.reset_index(drop=True), tmp_path / "data" / "log-ratio.parquet", {})
    experiment = replace(EXPERIMENTS[CLAIM], verdict=lambda frame, _: judged(frame, [statement], levels))
    monkeypatch.setitem(verdicts.EXPERIMENTS, CLAIM, experiment)
    monkeypatch.setattr(verdicts, "is_current", lambda *_, **__: True)
    said = one_line(["claims", CLAIM, "--folder", str(tmp_path)], capsys)
    assert said.startswith(
        f"gradlab: {tmp_path / 'data' / 'log-ratio.parquet'} must be a frame that today's rules can "
    )
    assert f"judge: {words}" in said.replace("judge: judge: ", "judge: ")
    assert said.endswith("; `gradlab figures log-ratio --fresh` makes it again")
    monkeypatch.setattr(verdicts, "is_current", lambda *_, **__: False)
    assert verdicts.judge_claims(tmp_path, [CLAIM], stale_too=True)[CLAIM].why == "stale frames: log-ratio"


def test_a_frame_of_other_columns_is_one_line_for_every_experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "is_current", lambda *_, **__: True)
    for name in EXPERIMENTS:
        if EXPERIMENTS[name].captions and any(name in claim.experiments for claim in verdicts.EVERY.values()):
            claim = next(one for one, claim in verdicts.EVERY.items() if name in claim.experiments)
            monkeypatch.setattr(verdicts, "EXPERIMENTS", {name: EXPERIMENTS[name]})
            save_frame(pd.DataFrame({"x": [1.0]}), tmp_path / "data" / f"{name}.parquet", {}, overwrite=True)
            said = one_line(["claims", claim, "--folder", str(tmp_path)], capsys)
            assert f"{name}.parquet must be a frame that today's rules can judge: " in said


def test_a_frame_without_rows_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(verdicts, "is_current", lambda *_, **__: True)
    monkeypatch.setattr(verdicts, "EXPERIMENTS", {"worlds": EXPERIMENTS["worlds"]})
    save_frame(pd.DataFrame({"world": [], "method": []}), tmp_path / "data" / "worlds.parquet", {})
    assert ": it must have rows, got none; " in one_line(["claims", "grid-reward", "--folder", str(tmp_path)], capsys)


def test_a_claim_without_a_primary_is_one_line(tmp_path, monkeypatch, capsys):
    save_frame(made_up.frame(), tmp_path / "data" / "log-ratio.parquet", {})
    statement = made_up.contrast(claim=CLAIM, role="context")
    experiment = replace(EXPERIMENTS[CLAIM], verdict=lambda frame, _: judged(frame, [statement]))
    monkeypatch.setitem(verdicts.EXPERIMENTS, CLAIM, experiment)
    monkeypatch.setattr(verdicts, "is_current", lambda *_, **__: True)
    said = one_line(["claims", CLAIM, "--folder", str(tmp_path)], capsys)
    assert said == "gradlab: log-ratio must have a primary, got rows of context, robustness"


@pytest.fixture
def checkout(shown):
    """The folder in a git checkout, whose commits have the report with other words or effects than today's."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    path, base = shown / "claims.csv", shown.parent
    now = path.read_text("utf-8")
    for name, text in {
        "before": None,
        "other-version": "a,b\n1,2\n",
        "word": now.replace(",refuted,", ",proved,"),
        "effect": re.sub(r"(?m)^(grid-reward,primary,stated,.*),5\.9\d*,5\.\d*,6\.\d*,", r"\1,1.5,1.4,1.6,", now),
        "same": now,
    }.items():
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text, "utf-8")
            assert name in ("other-version", "same") or text != now
        git(base, "init", "-q")
        git(base, "add", "-A", ".")
        git(base, "commit", "-qm", name, "--allow-empty")
        git(base, "tag", name)
    return shown


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_against_a_revision_it_says_which_words_and_which_effects_moved(checkout, capsys):
    command = ["claims", made_up.CLAIM, "--folder", str(checkout), "--against"]
    assert cli.main([*command, "same"]) == 0
    assert "against" not in capsys.readouterr().out.partition("command  ")[2]
    assert cli.main([*command, "effect"]) == 0  # words alone change the status
    out = capsys.readouterr().out
    assert "moved against effect: grid-reward: reward at the end, bDPO against DPO: +1.5 [+1.4, +1.6] → +5.9 [" in out
    assert "changed against" not in out
    assert cli.main([*command, "word"]) == 0
    assert cli.main(["claims", "--folder", str(checkout), "--against", "word"]) == 3
    assert "changed against word: variance: proved → refuted\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("nowhere", "revision must be a commit of the git checkout around .*, got 'nowhere'"),
        ("--help", "revision must be a commit of the git checkout around .*, got '--help'"),
        ("before", "revision must be one that has .*claims.csv, got 'before'"),
        (
            "other-version",
            "revision must be one whose claims.csv is a report by the rules of this version, got "
            "'other-version', which has another",
        ),
    ],
)
def test_a_revision_without_a_report_of_this_version_is_one_line(checkout, revision, words, capsys):
    said = one_line(["claims", "--folder", str(checkout), f"--against={revision}"], capsys)
    assert re.fullmatch(f"gradlab: {words}", said)


def test_outside_a_checkout_there_is_no_revision(shown, capsys):
    assert "must be a commit of the git checkout" in one_line(
        ["claims", "--folder", str(shown), "--against", "HEAD"], capsys
    )


def test_the_committed_report_is_the_one_of_the_last_commit(checkout, told, capsys, monkeypatch):
    path = checkout / "claims.csv"
    path.write_text(path.read_text("utf-8").replace(",refuted,", ",proved,"), "utf-8")
    assert cli.main(["claims", "variance", "--folder", str(checkout)]) == 0  # the commit has today's word
    git(checkout.parent, "commit", "-qam", "Another word")
    assert cli.main(["claims", "variance", "--folder", str(checkout)]) == 3
    assert "changed against the committed report: variance: proved → refuted" in capsys.readouterr().out
    assert provenance.text_at_head(checkout / "nothing.md") is None  # was never committed
    path.unlink()
    assert "variance,claim" in provenance.text_at_head(path)

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", no_git)
    assert provenance.text_at_head(path) is None


def test_stale_and_missing_frames_are_told_and_what_cannot_be_judged_has_changed(copy, settled, capsys):
    data, word = copy / "quick" / "data", settled[CLAIM].word
    stamp = data / "log-ratio.json"
    stamp.write_text(re.sub(r'"key": "\w+"', '"key": "of other sources"', stamp.read_text("utf-8")))
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 0
    out, err = capsys.readouterr()
    assert "gradlab: stale frames: log-ratio; `gradlab figures` brings them up to date\n" in err
    assert re.search(rf"^word +{word}$", out, re.MULTILINE)

    frame, manifest = load_frame(data / "log-ratio.parquet")
    kept = {"key": manifest["key"], "quick": True}
    save_frame(frame.rename(columns={"grad_norm": "ratio"}), data / "log-ratio.parquet", kept, overwrite=True)
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 3
    assert f"log-ratio: {word} → not judged" in capsys.readouterr().out
    (data / "log-ratio.parquet").unlink()
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 3
    assert "missing frames: log-ratio" in capsys.readouterr().err


def test_without_a_report_there_is_nothing_to_compare_with(shown, capsys):
    (shown / "claims.csv").unlink()
    assert cli.main(["claims", CLAIM, "--folder", str(shown)]) == 0
    assert "there is no report to compare with" in capsys.readouterr().err


def test_a_damaged_frame_is_called_so(tmp_path, capsys):
    path = tmp_path / "data" / "log-ratio.parquet"
    save_frame(made_up.frame(), path, {})
    path.write_bytes(path.read_bytes()[:100])
    assert cli.main(["claims", CLAIM, "--folder", str(tmp_path)]) == 0
    assert "damaged frames: log-ratio" in capsys.readouterr().err


def test_one_of_several_controls_explains_an_effect_only_after_correction():
    """Alone, a control that is equivalent at p = .03 explains the effect away; one of three may do so by chance."""
    (control,) = judged(made_up.frame((0.0,), noise=0.02), [made_up.contrast(role="explains away")])
    control = replace(control, evidence=replace(control.evidence, p_equivalent=0.03, p_differs=0.8, above=0, below=0))
    others = judged(made_up.frame((0.3,)), [made_up.contrast(role="explains away", label=name) for name in "AB"])
    stated = row("holds throughout", 0.3)
    assert settle([stated, control]).because == "no practical difference"
    assert settle([stated, control, *others]).because == "undecided"
