"""Claims are judged by rule from frames, never typed in; the report leads from each verdict to its data and rule."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import cli
from gradlab.experiments import EXPERIMENTS, MEASURED
from gradlab.experiments.contrasts import Contrast, judged
from gradlab.experiments.make import make_figures
from gradlab.experiments.report import pages, verdicts, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.store import provenance
from gradlab.store.artifacts import load_frame, save_frame

ROOT = Path(__file__).parent.parent
CLAIM = "log-ratio"  # one that a single experiment judges
NOT_RUN = [name for name, claim in CLAIMS.items() if not claim.experiments]  # in a folder without measurements
PAGES = ("README.md", "CLAIMS.md", "METHODS.md", "PAPER.md")


@pytest.fixture(scope="module")
def settled(quick):
    """Every claim, judged from the quick run."""
    return verdicts.judge_claims(quick, quick=True)


def row(verdict, effect=0.1, *, control=False, statement="it is so", claim=CLAIM, experiment="log-ratio", **more):
    """A row of a table of verdicts, of five seeds and one cell."""
    counts = dict.fromkeys(("holds", "fails", "no_difference", "inconclusive"), 0) | {"holds": 1}
    return {
        "claim": claim, "control": control, "statement": statement, "value": "utility", "by": ("mask",),
        "verdict": verdict, "effect": effect, "low": effect - 0.01, "high": effect + 0.01, "margin": 0.0, "seeds": 5,
        "cells": 1, **counts, "evidence": pd.DataFrame({"verdict": ["holds"]}), "experiment": experiment, **more,
    }  # fmt: skip


def settle(*rows, frames=None):
    """The verdict on the claim that these rows judge."""
    return verdicts.settle(pd.DataFrame(rows), frames or {CLAIM: "current"})[CLAIM]


# --- the rules -------------------------------------------------------------------------------------------------------


def test_a_claim_is_as_good_as_its_weakest_row_as_stated():
    strongest_last = ("fails", "inconclusive", "no difference", "holds when mask ≥ 0.2", "holds", "identity")
    for weak, strong in itertools.combinations(strongest_last, 2):
        for order in ((weak, strong), (strong, weak)):
            one = settle(*(row(verdict, effect=len(verdict)) for verdict in order))
            assert one.verdict == weak
            assert one.decisive.effect == len(weak)
    assert settle(row("holds", 0.3), row("fails", 0.2), row("fails", 0.1)).decisive.effect == 0.2  # ties: the first


def test_controls_are_counted_and_do_not_change_the_verdict():
    controls = [row("holds", control=True, statement="A"), row("fails", 0.2, control=True, statement="B"),
                row("fails", -0.2, control=True, statement="C"), row("identity", control=True, statement="D"),
                row("holds when mask ≥ 0.2", -9, control=True, statement="E")]  # fmt: skip
    one = settle(row("holds"), *controls)
    assert one.verdict == "holds"
    assert "".join(control.statement for control in one.controls) == "BCEAD"
    assert one.beside.statement == "C"
    assert wording.of_controls(one) == "2 of 5 controls hold"
    assert settle(row("holds")).beside is None


def test_the_rows_that_state_a_claim_share_one_correction_and_each_control_has_its_own():
    noise = np.random.default_rng(0).standard_normal(10)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    frame = pd.DataFrame({"method": "a", "seed": range(10), "x": 2.4 / np.sqrt(10) + noise})  # t = 2.4, p = 0.04
    alone = Contrast(CLAIM, "x is positive", "a", None, "x", (), 0.001)
    control = Contrast(CLAIM, "x is positive, really", "a", None, "x", (), 0.001, control=True)
    for stated, verdict in ((1, "holds"), (2, "inconclusive")):
        table = judged(frame, [*[alone] * stated, control]).assign(experiment="log-ratio")
        one = verdicts.settle(table, {CLAIM: "current"})[CLAIM]
        assert one.verdict == verdict
        assert one.beside.verdict == "holds"


def test_a_claim_without_its_frames_is_not_judged_and_says_why():
    assert settle(frames={CLAIM: "stale"}).verdict == "not judged"
    assert settle(frames={CLAIM: "stale"}).why == "stale frames: log-ratio"
    frames = {"grid": "current", "worlds": "missing"}
    one = verdicts.settle(pd.DataFrame([row("holds", claim="ablation", experiment="grid")]), frames)["ablation"]
    assert (one.verdict, one.why) == ("not judged", "missing frames: worlds")
    assert one.rows == ()


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_claim_without_its_measurement_is_not_run_here_and_says_what_it_needs(name, settled):
    assert settled[name].verdict == "not run here"
    assert settled[name].why.endswith("none has been committed")
    command = {"overhead": "make bench", "symmetric-unstable": "make llm-demo", "llm": "-m gradlab.llm"}[name]
    assert command in settled[name].why


def test_a_row_of_no_claim_is_refused():
    with pytest.raises(ValueError, match=r"claim must be one of ratio, .*; got 'log-ration'; did you mean 'log-ratio'"):
        settle(row("holds", claim="log-ration"))


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


def test_each_claim_is_judged_by_the_experiments_that_it_names_with_controls(settled):
    for name, one in settled.items():
        if set(one.claim.experiments) - set(EXPERIMENTS) or name in NOT_RUN:
            continue
        assert {row.experiment for row in one.rows} == set(one.claim.experiments), name
        assert one.decisive, name
        assert one.controls, name
        for found in one.rows:
            assert found.holds + found.fails + found.no_difference + found.inconclusive == found.cells


def test_every_figure_belongs_to_a_claim_and_every_claim_has_the_figures_that_it_names():
    drawn = {figure for experiment in EXPERIMENTS.values() for figure in experiment.captions}
    drawn |= {figure for one in MEASURED.values() for figure in one.captions}
    named = {
        figure for claim in CLAIMS.values() if not set(claim.experiments) - set(EXPERIMENTS) for figure in claim.figures
    }
    assert drawn <= {figure for claim in CLAIMS.values() for figure in claim.figures}
    assert named <= drawn


# --- the pages -------------------------------------------------------------------------------------------------------


def anchors(page):
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page, re.M)}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name, quick):
    page = (quick / name).read_text("utf-8")
    planned = {f"gradlab/experiments/questions/{one.replace('-', '_')}.py" for one in PLANNED}
    for link in re.findall(r"\]\((?!https://)([^)]+)\)", page):
        path, _, anchor = link.partition("#")
        if path.startswith("../../"):
            assert (ROOT / path[6:]).exists() or path[6:] in planned, link
        else:
            assert (quick / path).exists(), link
            assert not anchor or anchor in anchors((quick / (path or name)).read_text("utf-8")), link


PLANNED = {one for claim in CLAIMS.values() for one in claim.experiments if one not in EXPERIMENTS}


def section(page, title):
    return re.search(rf"^##+ {title}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_has_a_section_that_leads_to_figure_data_and_rule(name, quick, settled):
    one, page = settled[name], (quick / "CLAIMS.md").read_text("utf-8")
    text = section(page, name)
    assert f"**Verdict: {one.verdict}**" in text
    assert f"(METHODS.md#{name})" in text
    assert page.count(f"| [{name}](#{name}) | {one.claim.claimed} | **{one.verdict}** |") == 1
    rule = section((quick / "METHODS.md").read_text("utf-8"), name)
    for words in (one.claim.stated, one.claim.ours, one.claim.rule, one.claim.changes, f"CLAIMS.md#{name}"):
        assert words in rule
    if one.rows:
        assert f"![{one.claim.figures[0]}]({one.claim.figures[0]}.png)" in text
        assert f"`gradlab figures {' '.join(one.claim.experiments)} --quick --fresh`" in text
        for experiment in one.claim.experiments:
            assert all(f"(data/{experiment}.{kind})" in text for kind in ("parquet", "json"))
            assert f"/gradlab/experiments/questions/{experiment.replace('-', '_')}.py)" in text
            assert f"/gradlab/experiments/questions/{experiment.replace('-', '_')}.py)" in rule
        for found in one.rows:
            assert found.statement.replace("|", "\\|") in text
            assert found.statement.replace("|", "\\|") in rule
    else:
        assert one.why in text


def test_the_pages_mark_a_quick_run_and_hold_whole_tables(quick):
    for name in PAGES:
        page = (quick / name).read_text("utf-8")
        assert "These are not results" in page
        for _, lines in itertools.groupby(page.splitlines(), key=lambda line: line.startswith("|")):
            widths = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
            assert len(widths) <= 1
    methods = (quick / "METHODS.md").read_text("utf-8")
    for experiment in EXPERIMENTS.values():
        assert all(f"`{key}` " in methods for key in experiment.settings)
        assert all(f"[{figure}]({figure}.png)" in methods for figure in experiment.captions)
    assert "A claim is as good as its weakest row as stated" in methods
    assert "corrected by Holm" in methods


def test_findings_are_a_line_a_claim_in_the_readme(settled, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("x\n<!-- findings -->\n<!-- /findings -->\ny\n")
    pages.write_findings(readme, settled.values())
    lines = [line for line in readme.read_text("utf-8").splitlines() if line.startswith("| [")]
    assert len(lines) == len(CLAIMS)
    for line, (name, one) in zip(lines, settled.items(), strict=True):
        assert line.startswith(f"| [{name}](figures/CLAIMS.md#{name}): ")
        assert f"| **{one.verdict}** |" in line


def test_the_report_as_csv_comes_back_and_equal_verdicts_give_equal_bytes(settled, quick):
    text = verdicts.as_csv(settled.values())
    assert text == (quick / "claims.csv").read_text("utf-8")
    back = verdicts.from_csv(text)
    pd.testing.assert_frame_equal(back, verdicts.records(settled.values()), rtol=1e-5, check_dtype=False)
    assert list(back["claim"].unique()) == list(CLAIMS)
    assert set(back["row"]) == {"claim", "as stated", "control"}
    assert verdicts.changes(back, settled) == []
    for wrong in ("", "a,b\n1,2\n"):
        with pytest.raises(ValueError, match=r"claims\.csv must be a report"):
            verdicts.from_csv(wrong)


def test_numbers_are_words_that_do_not_promise_too_much():
    def scan(effect, low=float("nan"), **more):
        return settle(row("holds", effect, value="share of cases", low=low, high=low, **more)).decisive

    assert wording.effect_and_interval(scan(1.0)) == "100% of cases, exact"
    assert wording.effect_and_interval(scan(0.99999)) == "over 99.9% of cases, exact"
    assert wording.effect(scan(0.0001)) == "under 0.1% of cases"
    assert wording.effect_and_interval(scan(0.5, low=0.25)) == "50.0% of cases [25.0%, 25.0%]"
    assert wording.evidence(scan(1.0, cells=1200)) == "1,200 cases"
    assert wording.evidence(scan(1.0, low=0.9)) == "5 seeds, 1 case"
    difference = settle(row("holds", -0.00001)).decisive
    assert wording.effect_and_interval(difference) == "+0.000 [-0.010, +0.010]"
    assert wording.evidence(difference) == "5 seeds, 1 cell"


# --- nothing is typed in ---------------------------------------------------------------------------------------------


def break_identity(folder):
    """Alter one number of the log-ratio frame, so that what must be equal is not."""
    path = folder / "data" / "log-ratio.parquet"
    frame, manifest = load_frame(path)
    frame.loc[frame["method"] == "dpo", "prob_ratio"] *= 2
    save_frame(frame, path, {name: manifest[name] for name in ("key", "settings", "quick")}, overwrite=True)


def test_another_frame_gives_another_verdict_in_report_and_terminal(copy, capsys):
    folder = copy / "quick"
    command = ["claims", CLAIM, "--folder", str(folder)]
    assert cli.main(command) == 0
    assert re.search(r"^verdict +identity$", capsys.readouterr().out, re.MULTILINE)
    break_identity(folder)
    assert cli.main(command) == 3
    assert "changed against the committed report: log-ratio: identity → fails\n" in capsys.readouterr().out
    make_figures([CLAIM], folder=copy, quick=True)
    assert "verdicts changed: log-ratio: identity → fails\n" in capsys.readouterr().out
    assert "**Verdict: fails**" in section((folder / "CLAIMS.md").read_text("utf-8"), CLAIM)
    assert cli.main(command) == 0


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_table_names_every_claim_and_verdict_within_its_width(quick, settled, capsys):
    assert cli.main(["claims", "--folder", str(quick)]) == 0
    out, err = capsys.readouterr()
    assert max(map(len, out.splitlines())) <= 120
    for name, one in settled.items():
        assert re.search(rf"^{name} +{one.verdict.split()[0]}", out, re.MULTILINE), name
    assert "QUICK frames, these are not results" in err


def test_a_claim_is_explained_with_its_paths(quick, settled, capsys):
    assert cli.main(["claims", CLAIM, "--folder", str(quick)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    one = settled[CLAIM]
    for words in (one.claim.stated, one.claim.ours, one.claim.rule, one.claim.changes, one.beside.statement):
        assert words in out
    for path in (
        quick / "log-ratio.png",
        quick / "data/log-ratio.parquet",
        "gradlab/experiments/questions/log_ratio.py",
    ):
        assert str(path) in out
    assert "gradlab figures log-ratio --quick --fresh" in out
    assert "0 of 3 controls hold" in out


def test_an_unknown_claim_and_a_folder_without_results_are_one_line(quick, tmp_path, capsys):
    for arguments, message in (
        (["log-ration", "--folder", str(quick)], "got 'log-ration'; did you mean 'log-ratio'?"),
        (["--folder", str(tmp_path)], f"folder must be one that `gradlab figures` has filled, got '{tmp_path}'"),
    ):
        assert cli.main(["claims", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert err.count("\n") == 1


def test_stale_and_missing_frames_are_told_and_what_cannot_be_judged_has_changed(copy, capsys):
    data = copy / "quick" / "data"
    stamp = data / "log-ratio.json"
    stamp.write_text(re.sub(r'"key": "\w+"', '"key": "of other sources"', stamp.read_text("utf-8")))
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 0
    out, err = capsys.readouterr()
    assert "gradlab: stale frames: log-ratio; `gradlab figures` brings them up to date\n" in err
    assert re.search(r"^verdict +identity$", out, re.MULTILINE)

    frame, manifest = load_frame(data / "log-ratio.parquet")
    kept = {"key": manifest["key"], "quick": True}
    save_frame(frame.rename(columns={"prob_ratio": "ratio"}), data / "log-ratio.parquet", kept, overwrite=True)
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 3
    assert "log-ratio: identity → not judged" in capsys.readouterr().out
    (data / "log-ratio.parquet").unlink()
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 3
    assert "missing frames: log-ratio" in capsys.readouterr().err


def test_without_a_report_there_is_nothing_to_compare_with(copy, capsys):
    (copy / "quick" / "claims.csv").unlink()
    assert cli.main(["claims", CLAIM, "--folder", str(copy / "quick")]) == 0
    assert "there is no report to compare with" in capsys.readouterr().err


@pytest.fixture
def checkout(copy):
    """The copy as a git checkout, its report committed with another verdict on the claim than the one on disk."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    path = copy / "quick" / "claims.csv"
    now = path.read_text("utf-8")
    path.write_text(now.replace(f"{CLAIMS[CLAIM].claimed},identity", f"{CLAIMS[CLAIM].claimed},holds"), "utf-8")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "quick/claims.csv"], [*who, "commit", "-qm", "Report"]):
        subprocess.run(["git", "-C", str(copy), *arguments], check=True)
    path.write_text(now, "utf-8")
    return copy / "quick"


def test_the_committed_report_is_the_one_of_the_last_commit(checkout, capsys, monkeypatch):
    assert cli.main(["claims", CLAIM, "--folder", str(checkout)]) == 3
    assert "log-ratio: holds → identity" in capsys.readouterr().out
    assert provenance.text_at_head(checkout / "CLAIMS.md") is None  # was never committed
    (checkout / "claims.csv").unlink()
    assert "log-ratio,claim" in provenance.text_at_head(checkout / "claims.csv")

    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(provenance.subprocess, "run", no_git)
    assert provenance.text_at_head(checkout / "claims.csv") is None


def test_a_damaged_frame_is_called_so(copy, capsys):
    path = copy / "quick" / "data" / "log-ratio.parquet"
    path.write_bytes(path.read_bytes()[:100])
    cli.main(["claims", "--folder", str(copy / "quick")])
    assert "damaged frames: log-ratio" in capsys.readouterr().err
