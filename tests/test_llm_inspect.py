"""How imbalanced a run will be is told from the model's own log-probabilities, and in words that the numbers bear."""

import dataclasses
import inspect as python_inspect
import json
import math
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")

from command_line import complaint
from rounding import rounding

from gradlab import cli
from gradlab.cli import options
from gradlab.cli.inspect_command import InspectCommand
from gradlab.llm.data.pairs import Report
from gradlab.llm.data.tokens import Encoded, encode_pairs
from gradlab.llm.demo.token_task import task_tokenizer, token_task, write_task
from gradlab.llm.look import inspection
from gradlab.llm.look.imbalance import length_correlation, measured, shares, summary
from gradlab.llm.look.imbalance_words import report, sentences
from gradlab.llm.look.inspection import inspect_pairs
from gradlab.llm.look.length_share import by_subset
from gradlab.llm.model.loading import load_model, save_folder, small_llama, with_lora
from gradlab.llm.train.run_settings import RECIPES, Settings
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, PAPER_LOSSES, PairLogps
from gradlab.stats.agreement import wilson_interval
from gradlab.store.artifacts import load_frame

PAIRS = 20


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return task_tokenizer()


def model_of(seed=0, longest=64):
    return small_llama(len(task_tokenizer()), width=16, layers=1, heads=2, longest=longest, seed=seed)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tokenizer):
    """A folder with a model and a file of pairs."""
    folder = tmp_path_factory.mktemp("inputs")
    save_folder(folder / "model", model_of(), tokenizer)
    write_task(folder, PAIRS, 1, seed=0)
    return folder


@pytest.fixture(scope="module")
def encoded(tokenizer):
    return encode_pairs(token_task(PAIRS, 0), tokenizer)[0]


def frame_of(win, lose, win_len=None, lose_len=None, **more):
    columns = {"win": win, "lose": lose, "win_len": win_len or [5] * len(win), "lose_len": lose_len or [5] * len(win)}
    return measured(pd.DataFrame(columns), **more)


def run(inputs, *more):
    return cli.main(["inspect", str(inputs / "model"), str(inputs / "train.jsonl"), *map(str, more)])


# The model's own numbers


def test_what_is_left_of_lambda_beyond_length_is_told_by_subset():
    share = np.array([1 / 3] * 4 + [2 / 3] * 4)
    win_len, lose_len = np.array([8] * 4 + [40] * 4), np.array([4] * 4 + [80] * 4)
    equal = frame_of(list(-2.0 * win_len), list(-2.0 * lose_len), list(win_len), list(lose_len))
    rows = by_subset(equal)  # each token has two nats, so that λ_w is the share
    assert rows["pairs"].to_dict() == {
        "all pairs": 8, "winner shorter": 4, "winner longer": 4, "fewer tokens": 4, "more tokens": 4,
    }  # fmt: skip
    np.testing.assert_allclose(rows.loc[["winner longer", "winner shorter"], "length_share"], [1 / 3, 2 / 3])
    np.testing.assert_allclose(rows["beyond"], 0, atol=1e-12)
    assert rows.loc["all pairs", "r2"] == pytest.approx(1)
    assert math.isnan(rows.loc["winner longer", "r2"])
    off = np.array([0.02, 0.03, 0.02, 0.03] * 2)  # λ_w is the share plus this
    lose = -100.0 * (share + off)
    frame = frame_of(list(-100.0 - lose), list(lose), list(win_len), list(lose_len))
    whole = by_subset(frame).loc["all pairs"]
    reach = 2.364624 * off.std(ddof=1) / math.sqrt(8)  # Student's t with 7 degrees of freedom
    np.testing.assert_allclose([whole["beyond"], whole["low"], whole["high"]], 0.025 + np.array([0, -reach, reach]))
    assert whole["halves"] == "yes"


@pytest.mark.parametrize(
    ("beyond", "mark"),
    [([1, 2, 1, 2], "yes"), ([1, 2, -9, 12], "sign"), ([1, 2, -1, -2], "no"), ([1, 2, 1], "–")],
)
def test_the_split_half_mark(beyond, mark):
    weight = 0.5 + 0.01 * np.array(beyond)
    whole = by_subset(frame_of(list(-(1 - weight) * 1e4), list(-weight * 1e4))).loc["all pairs"]
    assert whole["halves"] == ("sign" if mark == "yes" else mark)  # two pairs in a half: Student's t is wide
    many = np.repeat(weight, 20) + np.tile([1e-4, -1e-4], 10 * len(weight))
    whole = by_subset(frame_of(list(-(1 - many) * 1e4), list(-many * 1e4))).loc["all pairs"]
    if mark in ("yes", "no"):
        assert whole["halves"] == mark


def test_ends_cuts_and_pairs_that_come_twice_are_counted(inputs, tmp_path):
    lines = (inputs / "train.jsonl").read_text().splitlines()
    (tmp_path / "twice.jsonl").write_text("\n".join([*lines, lines[3], lines[5]]) + "\n")
    seen = inspection.inspect_data(str(inputs / "model"), str(tmp_path / "twice.jsonl"))
    assert seen.frame["twice"].sum() == 4
    parts = shares(seen.frame)["share"]
    assert parts["twice"] == pytest.approx(4 / (PAIRS + 2))
    assert (parts["win_ends"], parts["lose_ends"], parts["cut"]) == (1, 1, 0)
    short = inspection.inspect_data(str(inputs / "model"), str(tmp_path / "twice.jsonl"), max_length=20).frame
    assert 0 < short["win_ends"].mean() < 1
    assert (short["cut"] == ~(short["win_ends"] & short["lose_ends"])).all()
    said = str(seen)
    for words in ("pairs that the data hold twice or more", "winners with the end of a turn (EOS)", "halves: whether"):
        assert words in said
    assert "Beyond length, λ_w is off the loser's share of the tokens by" in " ".join(said.split())


def test_log_probabilities_are_the_models_in_the_pairs_order(tokenizer, encoded):
    model = model_of()
    frame = inspect_pairs(model.train(), tokenizer, encoded, batch=3)
    assert model.training
    plain = model_of()
    for side in ("win", "lose"):
        for pair, value in zip(encoded, frame[side], strict=True):
            ids = torch.tensor([[*pair.prompt, *getattr(pair, side)]])
            with torch.no_grad():
                logp = plain(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            answer = logp[len(pair.prompt) - 1 :]
            noise = rounding(len(answer), float(answer.abs().sum()), torch.float32)
            assert value == pytest.approx(float(answer.sum()), abs=noise)
        assert frame[f"{side}_len"].tolist() == [len(getattr(pair, side)) for pair in encoded]
    assert frame["prompt_len"].tolist() == [len(pair.prompt) for pair in encoded]
    again = inspect_pairs(model, tokenizer, encoded, batch=PAIRS)
    np.testing.assert_allclose(frame["win"], again["win"], rtol=rounding(frame["win_len"].max(), 1.0, torch.float32))
    half = inspect_pairs(model, tokenizer, encoded, precision="bf16")
    assert 0 < np.abs(half["win"] - frame["win"]).max() < 1


def test_a_response_without_its_end_is_marked_as_cut(tokenizer):
    kept, _, told = encode_pairs(token_task(PAIRS, 0), tokenizer, max_length=20)
    frame = inspect_pairs(model_of(), tokenizer, kept)
    assert 0 < frame["cut"].sum() == told.notes["response cut"] < len(frame)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
def test_an_adapter_counts(tokenizer, encoded, tmp_path, capsys):
    pytest.importorskip("peft")
    save_folder(tmp_path / "base", model_of(), tokenizer)
    write_task(tmp_path, 6, 1, seed=0)
    adapted = with_lora(load_model(tmp_path / "base"), 2, 4.0, ["all-linear"])
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, generator=torch.Generator().manual_seed(0))
    save_folder(tmp_path / "model", adapted, tokenizer)
    told = inspection.inspect_data(str(tmp_path / "model"), str(tmp_path / "train.jsonl")).frame
    merged = inspect_pairs(adapted.merge_and_unload(), tokenizer, encoded[:6])
    np.testing.assert_allclose(told["win"], merged["win"], rtol=1e-4)
    assert np.abs(told["win"] - inspect_pairs(model_of(), tokenizer, encoded[:6])["win"]).min() > 1e-3
    assert run(tmp_path) == 0
    assert "log π_w" in capsys.readouterr().out


def test_a_broken_model_is_no_result(tokenizer, encoded):
    model = model_of()
    with torch.no_grad():
        model.get_input_embeddings().weight[5] = math.nan
    with pytest.raises(FloatingPointError, match=f"log π is not finite for {PAIRS} of {PAIRS} pairs"):
        inspect_pairs(model, tokenizer, encoded)
    with pytest.raises(ValueError, match="encoded must hold one pair or more"):
        inspect_pairs(model, tokenizer, [])
    with pytest.raises(ValueError, match="max_length must be at most 16, the model's positions; a pair has 18 tokens"):
        inspect_pairs(model_of(longest=16), tokenizer, [Encoded((0,) * 10, (5,) * 7, (6,) * 8)])


# What follows from them


def test_one_pair_by_hand():
    frame = frame_of([-2.0], [-8.0], [4], [8])
    one = frame.iloc[0]
    assert one["log_ratio"] == one["log_prob_ratio_dpo"] == -6
    assert one["magnitude"] == pytest.approx(6 / math.log(10))
    assert one["win_weight"] == pytest.approx(0.8)
    assert one["win_weight_mean"] == pytest.approx(1 / 1.5)  # −1/2 and −1 a token
    assert one["weight_ratio"] == pytest.approx(math.log(4))
    assert one["log_prob_ratio_bdpo"] == pytest.approx(-6 + math.log(4))
    assert one["corrected_dpo"] == 0
    assert one["corrected_bdpo"] == pytest.approx(math.log(4) / 6)
    assert one["log_prob_ratio_nbdpo"] == pytest.approx(-6 + math.log(1.3))


def test_bdpo_takes_away_one_over_the_logarithmic_mean():
    win, lose = -np.geomspace(2, 900, 12), -np.geomspace(700, 3, 12)
    mean = (win - lose) / np.log(win / lose)
    np.testing.assert_allclose(frame_of(win, lose)["corrected_bdpo"], 1 / np.abs(mean), rtol=1e-9)


@pytest.mark.parametrize(
    ("win", "clip", "asymmetric", "symmetric"),
    [(-9.0, 0.3, 1.3, 1.3), (-9.9, 0.3, 1.1, 1.1), (-10.1, 0.3, 1.0, 0.9), (-11.0, 0.3, 1.0, 1 / 1.3),
     (-9.0, 0.5, 1.5, 1.5), (-10.0, 0.5, 1.0, 1.0)],
)  # fmt: skip
def test_naive_weights_and_the_ends_that_hold_them(win, clip, asymmetric, symmetric):
    one = frame_of([win], [-10.0], clip=clip).iloc[0]
    for name, weight, floor in (("nbdpo", asymmetric, 1.0), ("nbdpo-symmetric", symmetric, 1 / (1 + clip))):
        assert one[f"weight_{name}"] == pytest.approx(weight)
        assert one[f"floor_{name}"] == (abs(weight - floor) < 1e-6)
        assert one[f"ceiling_{name}"] == (weight == 1 + clip)


def test_quantiles_are_over_the_pairs_that_have_a_number():
    win = np.linspace(-30, -10, 21)
    frame = frame_of(win, np.full(21, -20.0))
    rows = summary(frame)
    assert rows.loc["win", ["q10", "q50", "q90", "mean"]].tolist() == pytest.approx([-28, -20, -12, -20])
    assert rows.at["imbalance", "q50"] == 5
    assert rows.at["log_ratio", "mean"] == pytest.approx(0)
    assert rows.at["win", "pairs"] == 21
    assert rows.at["corrected_bdpo", "pairs"] == 20  # one pair has no imbalance


def test_shares_count_ties_as_a_half_and_have_wilsons_intervals():
    frame = frame_of([-1.0, -2.0, -3.0, -9.0], [-2.0, -2.0, -2.0, -2.0], [1, 2, 3, 30], [2, 2, 2, 2])
    rows = shares(frame)
    assert rows["share"].loc[["loser_steeper", "shorter", "more_probable"]].tolist() == [0.25, 0.375, 0.375]
    assert rows.at["more_probable_per_token", "share"] == pytest.approx((3 * 0.5 + 1) / 4)  # −1 each, but for −0.3
    for row in rows.itertuples():
        assert (row.low, row.high) == wilson_interval(row.share, 4)


def test_lambda_is_the_losers_share_of_the_tokens_where_all_tokens_are_alike():
    rng = np.random.default_rng(0)
    win_len, lose_len = rng.integers(5, 100, (2, 200))
    alike = frame_of(-7.6 * win_len, -7.6 * lose_len, list(win_len), list(lose_len))
    assert length_correlation(alike) == pytest.approx(1)
    assert "λ_w follows length: R² = 1.00" in report(alike)
    assert "by +1.000, with the winner's by -1.000; R² = 1.000" in report(alike)
    noise = frame_of(-rng.uniform(50, 90, 200), -rng.uniform(50, 90, 200), list(win_len), list(lose_len))
    assert abs(length_correlation(noise)) < 0.3
    assert "λ_w follows length hardly" in report(noise)


def ratios_in(text):
    """The first words of the lines of the table of ratios."""
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("log(|"))
    return [line.split()[0] for line in lines[first + 1 : lines.index("", first) - 1]]


def test_the_papers_losses_are_listed_and_those_that_are_asked_for():
    columns = [-5.0, -30.0], [-9.0, -20.0]
    assert ratios_in(report(frame_of(*columns))) == list(PAPER_LOSSES)
    some = frame_of(*columns, losses=["simpo:beta=5", "ipo", "dpo"])
    assert ratios_in(report(some)) == [*PAPER_LOSSES, "simpo:beta=5", "ipo"]
    every = report(frame_of(*columns, losses=["ipo", "all"]))
    assert set(ratios_in(every)) == set(PAIR_LOSSES)
    assert max(map(len, every.splitlines())) <= 110
    for bad in ("ipp", "simpo:bta=1"):
        with pytest.raises(ValueError, match=r"must be one of .*; got .*; did you mean") as error:
            frame_of(*columns, losses=[bad])
        assert "\n" not in str(error.value)


@pytest.mark.skipif(not BATCH_LOSSES, reason="no losses of batches")
def test_a_loss_of_batches_has_no_ratio():
    name = next(iter(BATCH_LOSSES))
    with pytest.raises(ValueError, match=f"losses must be losses of pairs; {name} is one of batches"):
        frame_of([-5.0], [-9.0], losses=[name])


def test_a_loss_may_leave_a_side_alone(registered):
    @dataclasses.dataclass(frozen=True)
    class WinnersOnly:
        name = "winners-only"
        equation, source, antisymmetric = "−log π_w", "a test", False

        def __call__(self, logps: PairLogps) -> torch.Tensor:
            return -logps.win

    registered(WinnersOnly)
    frame = frame_of([-5.0, -30.0], [-9.0, -20.0], losses=["winners-only"])
    assert frame["log_prob_ratio_winners-only"].tolist() == [math.inf, math.inf]
    line = next(line for line in report(frame).splitlines() if line.startswith("winners-only"))
    assert line.split()[1:] == ["inf", "inf", "inf", "inf", "-inf"]
    for name in PAPER_LOSSES:
        assert re.search(rf"^{name} .*%$", report(frame), re.MULTILINE)


# Words


def drawn(scale, pairs=400, seed=0, **lengths):
    win, lose = -scale * np.random.default_rng(seed).uniform(0.5, 1.5, (2, pairs))
    return frame_of(win, lose, **lengths)


def test_sentences_say_what_the_numbers_say():
    low = " ".join(sentences(drawn(200)))
    size = summary(drawn(200)).at["imbalance", "q50"]
    assert f"a factor of e^{size:.1f} = 10^{size / math.log(10):.1f}" in low
    assert "so low (median -20" in low
    taken = drawn(200)["corrected_bdpo"].median()
    assert 1 / 220 < taken < 1 / 180
    assert f"takes away {100 * taken:.2g}% of that" in low
    assert "clip holds λ of the naive variants at an end of its range (nbdpo 100%, nbdpo-symmetric 9" in low
    middle = " ".join(sentences(drawn(3)))
    assert "so low" not in middle
    taken = drawn(3)["corrected_bdpo"].median()
    assert 0.3 < taken < 0.4
    assert f"bDPO takes away {taken:.0%} of that in the median pair" in middle
    high = " ".join(sentences(drawn(0.1)))
    assert "beyond balance" in high
    assert "The clip holds" not in high


@pytest.mark.parametrize(
    ("win_len", "told"),
    [(4, "right in 100.0% [99.0%, 100.0%]: an accuracy up to 100.0% is no more than preferring the shorter answer"),
     (6, "right in 0.0% [0.0%, 1.0%]: an accuracy up to 100.0% is no more than preferring the longer answer"),
     (5, "right in 50.0% [45.1%, 54.9%]: length alone gives no accuracy that differs from chance")],
)  # fmt: skip
def test_the_length_baseline_is_told(win_len, told):
    assert told in " ".join(sentences(drawn(50, win_len=[win_len] * 400)))


def test_cut_pairs_are_told_of_all_data_where_it_is_known():
    frame = drawn(50, pairs=10)
    assert "cut" not in " ".join(sentences(frame))
    assert "3 of 10 pairs (30.0%) have a response cut" in " ".join(
        sentences(frame.assign(cut=[True] * 3 + [False] * 7))
    )
    read = Report(1000, 998, {"empty response": 2}, {"response cut": 100})
    assert "100 of 998 pairs (10.0%) have a response cut" in " ".join(sentences(frame, read))
    assert "1,000 pairs read, 998 kept; left out: empty response (2)" in report(frame, read)


@pytest.mark.parametrize(
    ("win", "lose", "told"),
    [([-7.0], [-9.0], "e^2.0 = 10^0.9"), ([0.0], [0.0], "equally probable"), ([0.0], [-5.0], "e^5.0 = 10^2.2"),
     ([-5.0] * 4, [-5.0] * 4, "equally probable"), ([-5.0, -6.0, -7.0], [-9.0, -2.0, -3.0], "e^4.0 = 10^1.7")],
)  # fmt: skip
def test_ends_are_told_without_a_number_that_is_none(win, lose, told):
    frame = frame_of(win, lose)
    text = report(frame, Report(len(win), len(win)))
    assert told in " ".join(text.split())
    assert "nan" not in text
    assert "Whether λ_w follows length cannot be told" in text  # equal lengths, or one pair
    assert frame["win_weight"].between(0, 1).all()
    assert np.isfinite(frame["weight_ratio"]).all()


# The command


def test_the_command_prints_and_saves(inputs, tmp_path, capsys):
    file = tmp_path / "pairs.parquet"
    assert run(inputs, "--save", file) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{PAIRS} pairs read, {PAIRS} kept" in out
    assert re.search(r"\d+ prompts, (none|\d+) repeated", out)
    assert f"saved: {file}" in out
    frame, manifest = load_frame(file)
    assert len(frame) == PAIRS
    assert frame["place"].iloc[1].endswith("train.jsonl, line 2")
    assert {
        "command": "gradlab inspect",
        "max_length": 512,
        "clip": 0.3,
        "precision": "fp32",
    }.items() <= manifest.items()
    assert report(frame).split("\n\n")[0] in out, "the table can be made again from the file"
    number = re.search(r"^log π_w +\S+ +(\S+)", out, re.MULTILINE)
    assert number is not None
    assert float(number[1]) == pytest.approx(frame["win"].median(), abs=0.006)
    assert run(inputs, "--save", file) == 0, "the same result again is no conflict"
    capsys.readouterr()
    assert run(inputs, "--save", file, "--pairs", 3) == 1
    assert "holds another result" in (err := capsys.readouterr().err)
    assert "(--overwrite)" in err
    assert run(inputs, "--save", file, "--pairs", 3, "--overwrite") == 0
    assert len(load_frame(file)[0]) == 3


def test_a_sample_is_drawn_by_the_seed(inputs):
    def places(**how):
        return (
            inspection.inspect_data(str(inputs / "model"), str(inputs / "train.jsonl"), **how).frame["place"].tolist()
        )

    every = places(pairs=0)
    assert len(every) == PAIRS
    assert places(pairs=8) == places(pairs=8) == [place for place in every if place in places(pairs=8)]
    assert places(pairs=8, seed=1) != places(pairs=8)
    told = str(inspection.inspect_data(str(inputs / "model"), str(inputs / "train.jsonl"), pairs=8, seed=3))
    assert f"8 of {PAIRS} pairs, drawn by seed 3" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save", "pairs.csv"], "save must name a file that ends in .parquet, got 'pairs.csv'"),
        (["--pairs", "-1"], "pairs must be a whole number ≥ 0, got -1"),
        (["--batch", "0"], "batch must be a whole number ≥ 1, got 0"),
        (["--clip", "0"], "clip must be finite and > 0, got 0.0"),
        (["--choice", "safety"], "choice must be None for"),
        (["--template", "chat"], "template must be plain or beaver for a tokenizer without a chat template"),
        (["--max-length", "2"], "max_length must be a whole number ≥ 3, got 2"),
    ],
)
def test_bad_options_are_one_line_and_status_2(inputs, arguments, message, capsys):
    assert run(inputs, *arguments) == 2
    assert message in complaint(capsys)


def test_bad_inputs_are_one_line(inputs, tokenizer, tmp_path, capsys):
    model, data = str(inputs / "model"), str(inputs / "train.jsonl")
    assert cli.main(["inspect", str(tmp_path / "none"), data]) == 1
    assert re.search(r"model must be .*got '\S+none'", complaint(capsys))
    assert cli.main(["inspect", model, str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl" in complaint(capsys)
    row = {"prompt": "river : ", "chosen": "warm", "rejected": "warm"}
    (tmp_path / "same.jsonl").write_text(json.dumps(row) + "\n")
    assert cli.main(["inspect", model, str(tmp_path / "same.jsonl")]) == 2
    assert "has no usable pair: 1 pair read, 0 kept; left out: identical responses (1)" in complaint(capsys)
    row["rejected"] = "cold"
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n")
    assert cli.main(["inspect", model, str(tmp_path / "one.jsonl")]) == 0
    assert "1 of 1 pairs" in capsys.readouterr().out
    save_folder(tmp_path / "small", small_llama(5, width=16, layers=1, heads=2, longest=64, seed=0), tokenizer)
    capsys.readouterr()  # the bar of writing it
    assert cli.main(["inspect", str(tmp_path / "small"), data]) == 2
    assert "embeddings for 5 tokens" in complaint(capsys)


def test_without_transformers_it_says_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["inspect", "model", "pairs.jsonl"]) == 1
    assert complaint(capsys) == 'gradlab: transformers is not installed; get it with: pip install "gradlab[llm]"\n'


def test_defaults_are_those_of_the_run():
    ours = {field.name: field.default for field in dataclasses.fields(InspectCommand)}
    function = python_inspect.signature(inspection.inspect_data).parameters
    for name, default in ours.items():
        if name not in ("data", "save", "overwrite"):
            assert function[name].default in (default, python_inspect.Parameter.empty), name
    training = {field.name: field.default for field in dataclasses.fields(Settings)}
    for name in ("choice", "split", "template", "max_length", "max_prompt", "seed"):
        assert ours[name] == training[name], name
    assert ours["clip"] == RECIPES["paper"]["clip"]


def test_faults_of_several_files_are_told_first_without_holding_the_files(tmp_path, capsys, monkeypatch):
    def unexpected(*_, **__):
        raise AssertionError("nothing is scored before all files have been read")

    monkeypatch.setattr(inspection, "inspect_data", unexpected)
    large, torn = tmp_path / "large.jsonl", tmp_path / "torn.jsonl"
    pairs = ({"prompt": f"{n}", "chosen": f"{n} a" * 500, "rejected": f"{n} b" * 500} for n in range(1500))
    large.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    torn.write_text('{"prompt": "x", "chosen": "a", "rejected": "b"}\n{"prompt"\n', encoding="utf-8")
    assert cli.main(["inspect", "none", str(torn), str(large)]) == 2  # the modules are imported before the count
    tracemalloc.start()
    try:
        assert cli.main(["inspect", "none", str(large), str(torn)]) == 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "torn.jsonl, line 2" in capsys.readouterr().err
    assert peak < large.stat().st_size / 2
