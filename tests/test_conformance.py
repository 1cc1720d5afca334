"""Conformance: the vectors are what the losses give; a target's loss and its departures are found; bad input."""

import json
import math
import re
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import gradlab as gl
from gradlab.cli import main
from gradlab.conformance import check, disagreements, read_vectors, vector_pairs, write_table
from gradlab.conformance.checking import UNITS
from gradlab.conformance.numbers import Questions
from gradlab.conformance.vectors import FILE, INPUTS, NUMBERS
from gradlab.losses import BATCH_LOSSES, DPO, IPO, PAIR_LOSSES, BalancedDPO, ConservativeDPO, PairLogps
from gradlab.losses.batch import KTO
from scripts import conformance_vectors

VECTORS = read_vectors()
CASES = {f"{case['loss']} {json.dumps(case['hyper'])}": case for case in VECTORS["cases"]}
LABELS = tuple(VECTORS["pairs"]["pair"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_losses_give_the_vectors_to_within_rounding(case, dtype):
    """Our formulas take some twenty operations, each of which may round by half a unit, and most far less."""
    case, kind = CASES[case], torch.finfo(dtype)
    loss = PAIR_LOSSES[case["loss"]](**case["hyper"])
    want = np.array([[math.nan if cell is None else cell for cell in case[name]] for name in NUMBERS])
    unit = Questions(vector_pairs(), LABELS).units(loss)
    got = Questions(vector_pairs(dtype), LABELS).numbers(loss).table()
    stated = np.isfinite(want) & (np.abs(want) < kind.max)
    assert stated[:, : len(conformance_vectors.ORDINARY)].mean() > 0.9
    assert np.isfinite(got[stated]).all()
    unit = np.where(np.isfinite(unit), unit, np.nanmax(np.where(np.isfinite(unit), unit, 0)))
    assert (np.abs(got - want)[stated] <= 10 * kind.eps * unit[stated] + kind.tiny).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", VECTORS["batch_cases"], ids=lambda case: f"{case['loss']} {json.dumps(case['hyper'])}")
def test_losses_of_batches_give_the_vectors_to_within_rounding(case, dtype):
    loss = BATCH_LOSSES[case["loss"]](**case["hyper"])
    pairs, kind = vector_pairs(dtype), torch.finfo(dtype)
    for places, want in zip(VECTORS["batches"], case["batches"], strict=True):
        batch = PairLogps(*(side[places] for side in vars(pairs).values()))
        value = loss(batch).double().numpy()
        slopes = [side.double().numpy() for side in gl.losses.slopes(loss, batch)]
        for got, name in zip((value, *slopes), NUMBERS, strict=True):
            wanted = np.array([math.nan if cell is None else cell for cell in want[name]])
            smooth = np.isfinite(wanted)
            assert smooth.mean() > 0.5
            size = np.abs(wanted[smooth]).max() + 100 * np.abs(slopes[0]).max()  # slopes times log-probabilities
            assert np.abs(got - wanted)[smooth].max() <= 10 * kind.eps * size


def test_the_vectors_have_every_loss_under_all_its_known_numbers():
    wanted = [(case["loss"], case["hyper"], case["presets"])
              for case in conformance_vectors.cases(PAIR_LOSSES, lambda loss: {})]  # fmt: skip
    assert [(case["loss"], case["hyper"], case["presets"]) for case in VECTORS["cases"]] == wanted, (
        "python -m scripts.conformance_vectors"
    )
    of_batches = [case["loss"] for case in conformance_vectors.cases(BATCH_LOSSES, lambda loss: {})]
    assert [case["loss"] for case in VECTORS["batch_cases"]] == of_batches


def test_inputs_are_exact_in_float32_and_hold_the_edges():
    pairs, single = vector_pairs(), vector_pairs(torch.float32)
    for side, short in zip(vars(pairs).values(), vars(single).values(), strict=True):
        assert torch.equal(side, short.double())
    assert VECTORS["pairs"] == conformance_vectors.pairs()
    assert pairs.win.max() > -0.001
    assert pairs.win.min() == -1000
    assert (pairs.win == pairs.lose).any()
    assert ((pairs.win == pairs.ref_win) & (pairs.lose == pairs.ref_lose)).any()
    assert {1, 4096} <= set(pairs.win_len.tolist())


@pytest.mark.parametrize("loss", [DPO(), IPO(), BalancedDPO()], ids=lambda loss: loss.name)
def test_the_file_has_what_the_script_computes(loss):
    numbers = conformance_vectors.exact(loss, conformance_vectors.pairs())
    case = next(case for case in VECTORS["cases"] if case["loss"] == loss.name)
    assert {name: case[name] for name in NUMBERS} == numbers


@pytest.mark.slow
def test_the_whole_file_is_what_the_script_writes():
    done = subprocess.run([sys.executable, "-m", "scripts.conformance_vectors", "--check"], check=False)
    assert done.returncode == 0


def test_exact_numbers_are_those_of_closed_forms():
    """DPO at 60 digits, by another expression: ln(1 + e^−m), and ∓βe^−m/(1 + e^−m)."""
    columns = {name: [value] for name, value in zip(INPUTS, (-3.0, -5.0, -4.0, -4.5, 2, 3), strict=True)}
    numbers = conformance_vectors.exact(DPO(beta=0.5), columns)
    odds = math.exp(-0.75)
    assert numbers["value"] == pytest.approx([math.log1p(odds)], rel=4e-16)
    assert numbers["win_slope"] == pytest.approx([-0.5 * odds / (1 + odds)], rel=4e-16)
    assert numbers["lose_slope"] == pytest.approx([0.5 * odds / (1 + odds)], rel=4e-16)


def test_slopes_at_a_kink_are_left_out():
    def kinked(pairs):
        return (1 - (pairs.win_logratio - pairs.lose_logratio)).clamp(min=0)

    columns = dict(zip(INPUTS, ([-3.0, -3.0], [-5.0, -5.5], [-3.0, -3.0], [-4.0, -4.0], [2, 2], [3, 3]), strict=True))
    numbers = conformance_vectors.exact(kinked, columns)
    assert numbers["value"] == [0.0, 0.0]
    assert numbers["win_slope"] == [None, 0.0]


def preference_loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta):
    logits = policy_chosen_logps - policy_rejected_logps - (reference_chosen_logps - reference_rejected_logps)
    return -F.logsigmoid(beta * logits), policy_chosen_logps.detach(), policy_rejected_logps.detach()


FEW = ("dpo", "cdpo", "ipo", "bdpo", "nbdpo", "fixed-weight")  # the search takes longer over all
FOUND = {
    "others' names, and a first result": (preference_loss, {"beta": 0.07}, "dpo", {"beta": 0.07}),
    "a mean": (lambda pairs: DPO(0.3)(pairs).mean(), {}, "dpo", {"beta": 0.3}),
    "arrays": (
        lambda win, lose, ref_win, ref_lose: np.logaddexp(
            0, -0.5 * (win - ref_win - lose + ref_lose).detach().numpy()), {}, "dpo", {"beta": 0.5}),
    "a loss of ours": (BalancedDPO(0.4), {}, "bdpo", {"beta": 0.4}),
    "a class and its options": (ConservativeDPO, {"beta": 0.2, "label_smoothing": 0.23}, "cdpo",
                                {"beta": 0.2, "label_smoothing": 0.23}),
    "a module": (type("Module", (torch.nn.Module,), {"forward": lambda self, win, lose, ref_win, ref_lose: DPO(2.0)(
        PairLogps(win, lose, ref_win, ref_lose))})(), {}, "dpo", {"beta": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_the_loss_of_a_target_is_found_with_its_numbers(case):
    target, options, name, hyper = FOUND[case]
    frame = check(target, among=FEW, **options)
    first = frame.iloc[0]
    assert first["loss"] == name
    assert first["fits"]
    assert first["units"] <= UNITS
    assert first["departs"] == ""
    assert dict(part.split("=") for part in first["hyper"].split(", ")) == {key: f"{hyper[key]:g}" for key in hyper}
    assert f"{name}({first['hyper']}) fits" in frame.attrs["summary"]


def test_a_loss_with_two_names_is_found_under_both():
    frame = check(ConservativeDPO(0.3, 0.0), among=FEW)
    assert frame["fits"].all()
    found = dict(zip(frame["loss"], frame["hyper"], strict=True))
    assert found["dpo"] == "beta=0.3"
    assert found["fixed-weight"] == "beta=0.6, win_weight=0.5"
    assert frame["loss"].iloc[0] == "dpo"


def test_what_is_published_or_shipped_with_these_numbers_is_said():
    assert "published" in check(DPO(0.1), among=FEW)["known_as"].iloc[0]


DEPARTS = {
    "value and slopes are -1 times as large": lambda pairs: -DPO(0.3)(pairs),
    "value and slopes are 0.25 times as large": lambda pairs: DPO(0.3)(pairs) / 4,
    "the value is +1 off everywhere; slopes agree": lambda pairs: DPO(0.3)(pairs) + 1,
    "winner and loser are exchanged": lambda pairs: DPO(0.3)(pairs.swapped()),
    "no gradient flows through the loser": lambda win, lose, ref_win, ref_lose: DPO(0.3)(
        PairLogps(win, lose.detach(), ref_win, ref_lose)),
    "the slopes have the opposite sign; the value agrees": lambda pairs: (
        2 * DPO(0.3)(pairs).detach() - DPO(0.3)(pairs)),
    "log-probabilities are averaged over tokens": lambda p: DPO(0.3)(PairLogps(
        p.win / p.win_len, p.lose / p.lose_len, p.ref_win / p.win_len, p.ref_lose / p.lose_len)),
}  # fmt: skip


@pytest.mark.slow  # as all searches beyond the plain losses
@pytest.mark.parametrize("words", [words for words in DEPARTS if "averaged" not in words])
def test_a_departure_from_a_loss_is_said(words):
    frame = check(DEPARTS[words], among=FEW)
    first = frame.iloc[0]
    assert (first["loss"], first["hyper"], first["departs"]) == ("dpo", "beta=0.3", words)
    assert not first["fits"]
    assert first["units"] <= UNITS
    assert words in frame.attrs["summary"]


@pytest.mark.slow
def test_an_average_in_place_of_a_sum_is_said_of_the_loss_that_is_expected():
    """The average of DPO is another registered loss; beside it, the departure from DPO itself is wanted."""
    frame = check(DEPARTS["log-probabilities are averaged over tokens"], DPO(0.3), among=FEW)
    assert "log-probabilities are averaged over tokens" in frame.attrs["summary"]
    assert frame.attrs["summary"].startswith("It is not dpo(beta=0.3).")


@pytest.mark.slow
def test_what_fits_nothing_has_the_nearest_and_how_far_off():
    frame = check(lambda pairs: DPO(0.1)(pairs) * DPO(0.3)(pairs).sqrt(), among=FEW)
    assert not frame["fits"].any()
    assert "No loss fits. Nearest:" in frame.attrs["summary"]
    assert frame["value_error"].iloc[0] > 0.01
    assert frame["worst"].iloc[0] in LABELS


def test_an_expected_loss_is_compared_with_what_fits():
    frame = check(IPO(0.1), "ipo:beta=0.2", among=FEW)
    assert frame.attrs["summary"].startswith("It is not ipo(beta=0.2). ipo(beta=0.1) fits (beta acts as beta / 2)")
    assert not frame["fits"].iloc[0]
    assert check(IPO(0.1), IPO(0.1), among=FEW).attrs["summary"] == "It is ipo(beta=0.1), as expected."


@pytest.mark.parametrize(
    ("target", "expect", "found", "why"),
    [
        (DPO(0.1), "kto:beta=0.1", "dpo(beta=0.1) fits", "its value of a pair depends on the batch"),
        (KTO(), DPO(0.1), "kto(beta=0.1, ", "the target's value of a pair depends on the batch"),
    ],
    ids=["of a batch", "of pairs"],
)
def test_an_expected_loss_of_the_other_kind_does_not_fit(target, expect, found, why):
    frame = check(target, expect, among=("dpo", "kto"))
    summary = frame.attrs["summary"]
    assert summary.startswith(f"It is not {expect.partition(':')[0] if isinstance(expect, str) else expect.name}(")
    assert why in summary
    assert found in summary
    assert frame["fits"].tolist() == [False, True]
    assert frame["loss"].tolist() == (["kto", "dpo"] if target == DPO(0.1) else ["dpo", "kto"])
    assert frame[["value_error", "slope_error"]].iloc[0].isna().all()


def test_a_loss_that_is_one_of_ours_for_single_pairs_alone_does_not_fit():
    """Weights that are 1 on average over a batch: by itself, each pair has DPO's loss."""

    def weighted(pairs):
        weight = torch.exp((pairs.win / pairs.win_len).detach())
        return weight / weight.mean() * DPO(0.1)(pairs)

    frame = check(weighted, DPO(0.1), among=["dpo"])
    assert not frame["fits"].any()
    assert frame["loss"].iloc[0] == "dpo"
    assert frame["value_error"].iloc[0] < 1e-9
    assert frame.attrs["summary"].startswith("It is not dpo(beta=0.1). No loss fits as it is.")
    assert "the loss of a pair depends on the other pairs of its batch" in frame.attrs["summary"]


def test_the_commands_status_is_3_where_a_loss_of_the_other_kind_is_expected(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gradlab.conformance.checking.PAIR_LOSSES", {"dpo": DPO})  # the search over all takes longer
    (tmp_path / "mine.py").write_text(MINE)
    assert main(["conformance", f"{tmp_path}/mine.py:loss", "--expect", "kto:beta=0.1"]) == 3
    printed = capsys.readouterr().out
    assert "It is not kto(beta=0.1, " in printed
    assert "nan" not in printed


def with_nan(loss, part, of="value"):
    """Return a loss that is NaN, or whose slopes are, at the pairs whose winner's log-probability is below a quantile.

    part  the share of the pairs.
    """
    bound = vector_pairs().win.quantile(part, interpolation="lower")

    def spoilt(pairs):
        where = pairs.win.detach() <= bound
        if of == "value":
            return loss(pairs) * torch.where(where, math.nan, 1.0)
        return loss(pairs) + torch.where(where, 0.0 * pairs.win, 1.0).sqrt() - (~where).to(pairs.win.dtype)

    return spoilt


@pytest.mark.parametrize("of", ["value", "slopes"])
def test_a_target_without_numbers_at_most_pairs_does_not_fit(of):
    frame = check(with_nan(DPO(0.1), 0.7, of), DPO(0.1), among=["dpo"])
    assert not frame["fits"].any()
    assert frame.attrs["summary"].startswith("It is not dpo(beta=0.1). No loss fits as it is.")
    assert re.search(r"it is not finite at \d\d of 27 pairs", frame["departs"].iloc[0])


def test_slopes_that_are_nan_everywhere_are_stated_and_wrong():
    frame = check(with_nan(DPO(0.1), 1.0, "slopes"), DPO(0.1), among=["dpo"])
    assert not frame["fits"].any()
    assert "it is not finite at 27 of 27 pairs" in frame["departs"].iloc[0]
    assert not any("gives no slopes" in note for note in frame.attrs["notes"])


def test_a_few_pairs_without_numbers_are_named():
    frame = check(with_nan(DPO(0.1), 0.05), DPO(0.1), among=["dpo"])
    assert frame["fits"].all()
    assert frame["departs"].str.startswith("they agree except at: ").all()
    assert frame.attrs["summary"] == "It is dpo(beta=0.1), as expected, where it is finite."


def test_a_kink_of_the_target_is_no_departure():
    """At π = π_ref λ of the naive variants jumps to its clip, and autograd may take either side."""
    assert check(gl.NaiveBalancedDPO(0.3, 0.25), among=FEW).iloc[0]["loss"] == "nbdpo"


def test_numbers_that_are_lost_in_float32_are_named():
    def odds(pairs):
        return torch.log1p(torch.exp(-0.3 * (pairs.win_logratio - pairs.lose_logratio)))

    (note,) = check(odds, among=FEW).attrs["notes"]
    assert note.startswith("In float32 it is not finite at: ")
    assert "winner at -1000" in note
    frame = check(odds, dtype="float32", among=FEW)
    assert frame.iloc[0]["loss"] == "dpo"
    assert "It is not finite at: winner at -1000" in frame.attrs["notes"][0]


def table(tmp_path, loss, *, digits=17, columns=("value", "win_slope", "lose_slope"), drop=()):
    path = write_table(tmp_path / "numbers.csv")
    frame = pd.read_csv(path)
    numbers = Questions(vector_pairs(), LABELS).numbers(loss)
    names = {"value": "loss", "win_slope": "win_slope", "lose_slope": "lose_slope"}
    for column in columns:
        frame[names[column]] = [f"{number:.{digits}g}" for number in getattr(numbers, column)]
    frame.drop(columns=list(drop)).to_csv(path, index=False)
    return path


def test_a_table_of_numbers_is_read(tmp_path):
    frame = check(table(tmp_path, ConservativeDPO(0.2, 0.1)), dtype="float64", among=FEW)
    assert (frame["loss"].iloc[0], frame["hyper"].iloc[0]) == ("cdpo", "beta=0.2, label_smoothing=0.1")
    assert frame.attrs["pairs"] == len(LABELS)


def test_a_table_with_few_digits_and_no_slopes_fits_as_far_as_it_goes(tmp_path):
    frame = check(table(tmp_path, IPO(0.2), digits=5, columns=["value"]), among=FEW)
    assert (frame["loss"].iloc[0], frame["hyper"].iloc[0]) == ("ipo", "beta=0.2")
    assert "It gives no slopes" in frame.attrs["notes"][0]


@pytest.mark.parametrize("cell", ["nan", "inf", ""])
def test_cells_that_are_empty_are_not_judged_and_those_that_are_not_finite_are(tmp_path, cell):
    path = table(tmp_path, IPO(0.2))
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.loc[frame.index[::2], "win_slope"] = cell
    frame.to_csv(path, index=False)
    found = check(path, "ipo:beta=0.2", dtype="float64", among=["ipo"])
    assert found["fits"].tolist() == [not cell] * 2
    assert ("it is not finite at 14 of 27 pairs" in found["departs"].iloc[0]) is bool(cell)


def test_the_table_of_questions_is_not_replaced(tmp_path):
    write_table(tmp_path / "numbers.csv")
    with pytest.raises(FileExistsError, match="is there already"):
        write_table(tmp_path / "numbers.csv")


BAD_TABLES = {
    "must have the columns win, lose, loss, got win, lose": "win,lose\n-1,-2\n",
    "must have the columns win, lose, loss, got none": "",
    "column of": "win,lose,loss,gamma\n-1,-2,1,1\n",
    "must have a loss in at least 4 rows, got 1": "win,lose,loss\n-1,-2,0.5\n-1,-2,\n",
    "row 3: lose must be a number, got 'x'": "win,lose,loss\n-1,-2,1\n-1,x,1\n-1,-2,1\n-1,-2,1\n",
    "row 2: win must be finite, got nan": "win,lose,loss\nnan,-2,1\n-1,-3,1\n-1,-2,1\n-1,-2,1\n",
    "must have both of win_len and lose_len, or neither": "win,lose,loss,win_len\n" + 4 * "-1,-2,1,3\n",
    "row 2: win_len must be > 0, got 0": "win,lose,loss,win_len,lose_len\n" + 4 * "-1,-2,1,0,3\n",
}


@pytest.mark.parametrize("words", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_line(tmp_path, words):
    path = tmp_path / "bad.csv"
    path.write_text(BAD_TABLES[words])
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        check(path)
    assert "\n" not in str(error.value)
    assert "bad.csv" in str(error.value)


BAD_TARGETS = {
    "target must be module:function": "nothing",
    "target no_such_module_of_mine:f: ": "no_such_module_of_mine:f",
    "math has no 'preference'": "math:preference",
    "target missing.py:loss: missing.py is no file": "missing.py:loss",
    "target must be NAME,option=value,…, got 'beta' in": "math:log,beta",
    "target must have each option once, got beta twice in": "math:log,beta=1,beta=2",
    "option of gradlab.losses:policy_gradient must be one of": "gradlab.losses:policy_gradient,gamma=1",
    "must be a function of log-probabilities, got int": 3,
    "must take one argument, a gradlab.PairLogps; or": lambda one, two: one,
    "must take each log-probability once, got win, winner": lambda win, winner, lose: win,
    "must return one loss per pair, or their mean, here of shape (1,), got shape (2,)": lambda pairs: torch.zeros(2),
    "must return one loss per pair, or their mean, here of shape (1,), got something else": lambda pairs: "text",
    "must give a finite loss at some pair, got none": lambda pairs: pairs.win * math.nan,
}


@pytest.mark.parametrize("words", BAD_TARGETS)
def test_a_target_that_cannot_be_asked_is_refused_in_one_line(words):
    with pytest.raises((ValueError, TypeError, ImportError, OSError), match=re.escape(words)) as error:
        check(BAD_TARGETS[words])
    assert "\n" not in str(error.value)


def test_a_loss_to_compare_with_must_be_registered():
    with pytest.raises(ValueError, match="among must be one of"):
        check(DPO(), among=["nope"])


@pytest.mark.parametrize(("among", "got"), [([], "none"), (["kto"], "kto")], ids=["none", "of another kind"])
def test_a_loss_to_compare_with_must_be_of_the_targets_kind(among, got):
    words = f"among must name a loss that dpo can be compared with, such as dpo, got {got}"
    with pytest.raises(ValueError, match=re.escape(words)):
        check(DPO(0.1), among=among)


def test_losses_to_compare_with_may_be_a_generator_or_of_batches_alone():
    assert check(DPO(0.1), among=(name for name in ("dpo", "kto")))["loss"].tolist() == ["dpo"]
    assert check(KTO(), among=["kto"])["loss"].tolist() == ["kto"]


@pytest.mark.slow
def test_a_loss_of_batches_that_is_none_of_those_to_compare_with_has_the_nearest():
    assert "No loss fits" in check(KTO(), among=["aot"]).attrs["summary"]


def test_options_stand_behind_a_comma_or_a_colon(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    for text in (f"{tmp_path}/mine.py:loss,beta=0.5", f"{tmp_path}/mine.py:loss:beta=0.5"):
        assert check(text, among=["dpo"])["hyper"].tolist() == ["beta=0.5"]


def test_a_file_that_fails_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("raise KeyError('x')\n")
    with pytest.raises(ValueError, match=r"mine.py cannot be imported \(KeyError"):
        check(f"{tmp_path}/mine.py:loss")


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ("nope", "loss must be one of"),
        ("dpo:beta=x", "beta of dpo must be a number"),
        (3, "expect must be a registered"),
    ],
)
def test_a_bad_expectation_is_refused(expect, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check(DPO(), expect)


MINE = textwrap.dedent("""
    from torch.nn.functional import logsigmoid

    def loss(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta=0.1):
        return -logsigmoid(beta * (chosen_logps - rejected_logps - ref_chosen_logps + ref_rejected_logps)).mean()
""")


@pytest.mark.slow
def test_the_command_names_the_loss_and_its_status_says_whether_it_fits(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(MINE)
    assert main(["conformance", f"{tmp_path}/mine.py:loss,beta=0.2", "--save", f"{tmp_path}/found.csv"]) == 0
    printed = capsys.readouterr().out
    assert "dpo(beta=0.2) fits" in printed
    assert "27 pairs in float64" in printed
    assert pd.read_csv(tmp_path / "found.csv")["loss"][0] == "dpo"
    assert main(["conformance", f"{tmp_path}/mine.py:loss", "--expect", "dpo:beta=0.3", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["summary"].startswith("It is not dpo(beta=0.3). dpo(beta=0.1) fits")
    assert found["losses"][1]["fits"] is True


def test_the_command_writes_the_questions(tmp_path, capsys):
    assert main(["conformance", "--vectors", f"{tmp_path}/out.csv"]) == 0
    assert list(pd.read_csv(tmp_path / "out.csv")["pair"]) == list(LABELS)
    assert main(["conformance", "--vectors", f"{tmp_path}/out.csv"]) == 1
    assert "(--overwrite)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "target must be given"),
        (["math:log", "--save", "out.txt"], "save must name a file that ends in .csv"),
        (["--vectors", "out"], "vectors must name a file that ends in .csv"),
    ],
)
def test_a_bad_command_is_one_line(arguments, words, capsys):
    assert main(["conformance", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_vectors_travel_with_the_package():
    assert FILE.name == "vectors-1.json"
    assert VECTORS["gradlab_conformance"] == 1
    assert gl.conformance.check is check


def test_disagreements_are_sentences_about_registered_losses_with_their_versions():
    frame = disagreements()
    assert set(frame["loss"]) <= {*PAIR_LOSSES, *BATCH_LOSSES}
    assert frame["disagreement"].str.endswith(".").all()
    assert frame.loc[frame["how"] == "run", "library"].str.fullmatch(r"trl \d+\.\d+\.\d+").all()
    assert (frame["how"] == "run").sum() > 10
    assert set(disagreements(["ipo"])["loss"]) == {"ipo"}
