"""The workbench: a verdict that knows a smaller β when it sees one, and a loss's row, trainings and files at once."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab import cli
from gradlab.atlas import Verdict, verdict, workbench
from gradlab.atlas.against_dpo import BEST, EQUAL_KL, HALF, SAME
from gradlab.atlas.trained import trainings
from gradlab.conformance.vectors import read_vectors, vectors_of
from gradlab.experiments.questions.atlas_runs import SETTINGS
from gradlab.losses import DPO, PAIR_LOSSES, FixedWeightDPO

SEEDS = range(8)
SMALL = {"steps": 20, "pairs": None}


def ends(loss, beta, share, kl, *, preset="grid", spread=0.001):
    """Rows of a frame of trainings, one per seed, around these values."""
    noise = spread * np.sin(7 * np.array(SEEDS) + len(loss))
    return pd.DataFrame({
        "loss": loss, "preset": preset, "beta": beta, "seed": list(SEEDS), "utility_share": share + noise,
        "kl_to_reference": kl + noise,
    })  # fmt: skip


def dpo(**shares):
    """DPO's curve: KL 2 at β = ½, 1 at β = 1 and ½ at β = 2."""
    given = {"half": 0.8, "one": 0.6, "two": 0.4} | shares
    return pd.concat([ends("dpo", 0.5, given["half"], 2.0), ends("dpo", 1.0, given["one"], 1.0),
                      ends("dpo", 2.0, given["two"], 0.5)])  # fmt: skip


def judged(*parts):
    return verdict(pd.concat([*parts, dpo()]), "mine")


def words(found):
    return {contrast.name: contrast.word for contrast in found.contrasts}


def test_a_loss_that_is_dpo_at_half_the_beta_is_called_so():
    grid = [ends("mine", beta, share, kl) for beta, share, kl in ((1.0, 0.8, 2.0), (2.0, 0.6, 1.0))]
    found = judged(*grid, ends("mine", 1.0, 0.8, 1.995, preset="published"))
    assert words(found) == {
        BEST: "no practical difference", EQUAL_KL: "no practical difference", SAME: "better",
        HALF: "no practical difference",
    }  # fmt: skip
    assert found.word == "no practical difference"
    assert found.sentence.endswith("At the same β it does better, but DPO at half that β does no worse: that gain is a "
                                   "smaller β.")  # fmt: skip


def test_a_loss_that_is_better_is_called_better_and_one_that_is_worse_worse():
    for share, word in ((0.9, "better"), (0.5, "worse")):
        own = ends("mine", 1.0, share, 1.5, preset="published")
        found = judged(own, ends("mine", 1.0, share, 1.5))
        assert words(found)[EQUAL_KL] == words(found)[BEST] == found.word == word
    contrast = found.contrasts[0]
    assert contrast.low <= contrast.effect <= contrast.high
    assert contrast.effect == pytest.approx(0.5 - 0.8, abs=0.01)


def test_words_that_differ_are_mixed_and_noise_is_undecided():
    own = ends("mine", 1.0, 0.75, 1.0, preset="published")
    assert judged(own).word == "mixed"  # better at its KL, worse than DPO at its best β
    noisy = ends("mine", 1.0, 0.8, 1.995, preset="published", spread=0.3)
    assert judged(noisy).word == "undecided"


def test_equal_kl_is_interpolated_on_the_way_out_alone():
    back = ends("dpo", 0.1, 0.99, 1.2)  # β too small: the path has turned
    own = ends("mine", 1.0, 0.7, 1.5, preset="published")
    found = verdict(pd.concat([own, dpo(), back]), "mine")
    effect = next(contrast.effect for contrast in found.contrasts if contrast.name == EQUAL_KL)
    assert effect == pytest.approx(0.0, abs=0.003)  # 0.7 lies half-way from 0.6 to 0.8


def test_what_cannot_be_compared_is_not_run():
    far = ends("mine", np.nan, 0.7, 9.0, preset="published")
    found = judged(far)
    assert words(found) == {BEST: "worse", EQUAL_KL: "not run", SAME: "not run", HALF: "not run"}
    assert "not comparable at equal KL" in found.sentence
    failed = far.assign(utility_share=np.nan)
    assert judged(failed).word == "not run"
    assert isinstance(judged(failed), Verdict)


def test_only_the_cell_that_the_atlas_shows_is_judged():
    own = ends("mine", 1.0, 0.8, 1.5, preset="published")
    one = [own, ends("mine", 1.0, 0.8, 1.5), ends("dpo", 0.5, 0.8, 2.0), ends("dpo", 1.0, 0.6, 1.0)]
    base = [part.assign(factor={"published": "base", "grid": "beta"}[part["preset"].iloc[0]]) for part in one]
    cells = [
        [part.assign(reference="shifted", policy="free", factor="cell", utility_share=0.3) for part in base],
        [part.assign(reference="uniform", policy="free") for part in base],
        [part.assign(reference="uniform", policy="shared", factor="cell", utility_share=0.9) for part in base],
        [cell.assign(reference="uniform", policy="free", factor="noise", utility_share=0.0) for cell in base[:1]],
    ]
    for order in (cells, cells[::-1]):
        found = verdict(pd.concat([part for cell in order for part in cell]), "mine")
        assert {contrast.seeds for contrast in found.contrasts} == {len(SEEDS)}
        assert found == verdict(pd.concat(one), "mine")


def test_the_committed_trainings_are_judged_world_by_world():
    trained = trainings(Path(__file__).parents[1] / "figures/data/atlas.parquet")
    for loss in ("bdpo", "ipo"):
        found = verdict(trained, loss)
        assert found.word != "not run"
        assert {contrast.seeds for contrast in found.contrasts if contrast.word != "not run"} == {SETTINGS["seeds"]}


def test_trainings_that_are_there_twice_are_refused():
    own = ends("mine", np.nan, 0.7, 1.5, preset="published")
    said = "trained must hold one row per loss, preset, beta, seed, got two of loss {}, seed 0"
    for parts, run in (([own, own], "mine, preset published, beta nan"), ([own, dpo()], "dpo, preset grid, beta 0.5")):
        with pytest.raises(ValueError, match=re.escape(said.format(run))) as caught:
            judged(*parts)
        assert len(str(caught.value).splitlines()) == 1


def test_the_workbench_shows_a_loss_beside_dpo():
    seen = workbench(FixedWeightDPO(1.0), seeds=4)
    assert list(seen.comparison.losses) == ["fixed-weight", "dpo"]
    assert seen.verdict.word_of(HALF) == "no practical difference"
    assert next(one.effect for one in seen.verdict.contrasts if one.name == HALF) == pytest.approx(0, abs=1e-6)
    assert seen.row["key"] == "fixed-weight"
    assert set(seen.frontier()["loss"]) == {"fixed-weight", "dpo"}
    same = workbench(DPO(0.5), seeds=4)
    assert same.verdict.word == "no practical difference"


@pytest.mark.parametrize(
    ("loss", "seeds", "match"),
    [
        ("dpoo", 8, "loss must be one of"), ("dpo", 3, "seeds must be a whole number ≥ 4"),
        (3, 8, "loss must be a loss"),
        ("kto", 8, "loss must be a loss of pairs, got KTO.* a loss of batches"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_refused(loss, seeds, match):
    with pytest.raises((ValueError, TypeError), match=match):
        workbench(loss, seeds=seeds)


@pytest.fixture
def unnamed():
    """Take the losses that a test registers out again."""
    from gradlab.losses import unregister_loss

    before = set(PAIR_LOSSES)
    yield
    for name in set(PAIR_LOSSES) - before:
        unregister_loss(name)


@pytest.mark.slow
def test_the_command_prints_row_frontier_and_verdict_and_writes_files(tmp_path, capsys, unnamed):
    formula = "-logsigmoid(beta * (h_w - h_l))"
    out = tmp_path / "out"
    assert cli.main(["workbench", "--formula", formula, "--number", "beta=0.5", "--seeds", "4", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"equation {formula}" in said
    assert "Against DPO, mine is no different at each one's best β" in said
    assert "dpo(beta=0.5) fits" in said
    assert {file.name for file in out.iterdir()} == {
        "row.csv", "trainings.csv", "verdict.csv", "workbench.png", "vectors.json",
    }  # fmt: skip
    ours = json.loads((out / "vectors.json").read_text())
    assert ours["cases"][0]["loss"] == "mine"
    assert cli.main(["workbench", "dpo", "--out", str(out)]) == 1
    assert "row.csv is there already; name another folder" in capsys.readouterr().err


def test_the_vectors_of_a_loss_are_those_of_the_file():
    [case] = vectors_of(DPO(0.1))["cases"]
    known = next(one for one in read_vectors()["cases"] if one["loss"] == "dpo" and one["hyper"] == {"beta": 0.1})
    for name in ("value", "win_slope", "lose_slope"):
        assert case[name] == pytest.approx(known[name], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "loss must be a name or --formula, one of both"),
        (["dpo", "--formula", "h_l"], "loss must be a name or --formula, one of both"),
        (["dpo", "--number", "beta=1"], "number must go with --formula"),
        (["--formula", "-h_w", "--number", "beta"], "number must be NAME=NUMBER"),
        (["--formula", "-h_w", "--number", "b=1", "b=2"], "number must have each name once, got b twice"),
        (["--formula", "-h_w", "--number", "beta=1"], "beta of mine must be used by its formula"),
        (["--formula", "-h_w.real"], "got an attribute"),
        (["--formula", "-name*h_w"], "hyper-parameter of mine must have a name with no other meaning, got 'name'"),
        (["--formula", "-h_w*expression"], "must have a name with no other meaning, got 'expression'"),
        (["--formula", "-h_w", "--name", "dpo"], "name of dpo must be one that no registered loss has"),
        (["dpoo"], "loss must be one of"),
    ],
)
def test_bad_arguments_of_the_command_are_one_line(arguments, words, capsys, unnamed):
    assert cli.main(["workbench", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("gradlab: ")
    assert words in line
