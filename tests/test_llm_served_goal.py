"""Whom bDPO is predicted to serve: the sign by subset with its interval, and in words that say how sure they are."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")

from scipy import stats

from gradlab import cli
from gradlab.llm.demo.token_task import task_tokenizer, write_task
from gradlab.llm.look.imbalance import measured
from gradlab.llm.look.imbalance_words import sentences
from gradlab.llm.look.served_goal import about_the_goal, difference, joined, lead, side_by_side
from gradlab.llm.model.loading import save_folder, small_llama, train_bpe
from gradlab.store.artifacts import load_frame

REAL = Path(__file__).parents[2] / "shared" / "data" / "hh-rlhf" / "harmless-base-2000.jsonl.gz"


def frame_of(lead_in_nats, pairs=40, spread=1.0, seed=0):
    """Pairs whose winner is more probable by so many nats on average."""
    rng = np.random.default_rng(seed)
    lose = -40 + rng.standard_normal(pairs)
    win = lose + lead_in_nats + spread * rng.standard_normal(pairs)
    win_len = np.where(lead_in_nats + rng.standard_normal(pairs) > 0, 9, 12)
    return measured(pd.DataFrame({"win": win, "lose": lose, "win_len": win_len, "lose_len": 10}))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        tokenizer = task_tokenizer()
        model = small_llama(len(tokenizer), width=16, layers=1, heads=2, longest=64, seed=0)
        save_folder(folder / "model", model, tokenizer)
        for name, seed in (("helpful", 0), ("harmless", 1)):
            (folder / name).mkdir()
            write_task(folder / name, 20, 1, seed=seed)
        yield folder


def test_the_lead_is_the_mean_weight_less_a_half_with_its_t_interval():
    frame = frame_of(3.0)
    weight = frame["lose"] / (frame["win"] + frame["lose"])
    found, interval = lead(frame), stats.ttest_1samp(weight - 0.5, 0).confidence_interval()
    assert found.mean == pytest.approx((weight - 0.5).mean())
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert [lead(frame_of(nats)).sign for nats in (3.0, 0.0, -3.0)] == [1, 0, -1]


def test_the_difference_of_two_sets_has_welchs_interval():
    one, other = frame_of(3.0), frame_of(1.0, pairs=15, spread=3.0, seed=1)
    interval = stats.ttest_ind(one["win_weight"], other["win_weight"], equal_var=False).confidence_interval()
    found = difference(one, other)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert np.isnan(difference(one, other.head(1)).low)
    assert difference(one, other.head(1)).sign == 0


@pytest.mark.parametrize(
    ("nats", "said"), [(3.0, "to do more for"), (-3.0, "to do less for"), (0.0, "nothing is predicted")]
)
def test_the_words_follow_the_sign_and_say_how_sure_they_are(nats, said):
    frame = frame_of(nats)
    sentence = about_the_goal(frame)
    assert said in sentence
    assert sentence in sentences(frame)
    assert ("not been tested on language models" in sentence) == (nats != 0)
    assert ("at equal KL" in sentence) == (nats != 0)
    alone = about_the_goal(frame.head(1))
    assert "nan" not in alone
    assert "nothing is predicted" in alone


def test_two_sets_side_by_side_name_the_one_that_is_served():
    frames = {"helpful.jsonl": frame_of(-2.0), "harmless.jsonl": frame_of(2.0, seed=1)}
    said = " ".join(side_by_side(frames).split())
    assert "serve the goal of harmless.jsonl more than that of helpful.jsonl" in said
    for name, frame in frames.items():
        assert f"{name} {len(frame)} {lead(frame)}" in said
    turned = dict(zip(frames, reversed(frames.values()), strict=True))
    assert "serve the goal of helpful.jsonl more" in " ".join(side_by_side(turned).split())
    alike = {"a": frame_of(1.0), "b": frame_of(1.0)}
    assert "nothing is predicted" in side_by_side(alike)
    many = side_by_side({"x" * 90: frame_of(1.0), **frames})
    assert all(len(line) <= 100 for line in many.splitlines())


def test_one_frame_stays_as_it_is_and_several_are_named():
    one, other = frame_of(1.0), frame_of(0.0)
    assert joined({"a": one}) is one
    both = joined({"a": one, "b": other})
    assert both["data"].tolist() == ["a"] * len(one) + ["b"] * len(other)


def test_the_command_puts_data_sets_side_by_side_and_saves_both(inputs, tmp_path, capsys):
    data = [str(inputs / name / "train.jsonl") for name in ("helpful", "harmless")]
    file = tmp_path / "both.parquet"
    assert cli.main(["inspect", str(inputs / "model"), *data, "--save", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.count("log π_l/π_w, DPO's imbalance") == 2
    assert "before any training" in out
    frame, manifest = load_frame(file)
    assert set(frame["data"]) == set(data)
    assert [one["data"] for one in manifest["data_sets"]] == data
    table = out[out.index("before any training") :]
    for name, rows in frame.groupby("data"):
        assert str(lead(rows)) in next(line for line in table.splitlines() if str(name)[-30:] in line)


@pytest.mark.parametrize("data", [[], ["same.jsonl", "same.jsonl"]])
def test_no_data_and_data_given_twice_are_refused(inputs, data, capsys):
    assert cli.main(["inspect", str(inputs / "model"), *data]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("gradlab: PAIRS must name one data set or several, each once, got ")
    assert err.count("\n") == 1


def test_one_file_by_two_names_is_refused(inputs, tmp_path, capsys):
    data = inputs / "helpful" / "train.jsonl"
    (link := tmp_path / "link.jsonl").symlink_to(data)
    for other in (link, data.parent / ".." / "helpful" / "train.jsonl"):
        assert cli.main(["inspect", str(inputs / "model"), str(data), str(other)]) == 2
        assert "each once, got" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty.jsonl", "missing.jsonl", ""])
def test_every_data_set_is_read_before_any_is_scored(inputs, tmp_path, capsys, name):
    (tmp_path / "empty.jsonl").touch()
    other = str(tmp_path / name) if name else ""
    assert cli.main(["inspect", str(inputs / "model"), str(inputs / "helpful" / "train.jsonl"), other]) in (1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gradlab: {other or repr(other)} is ")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="the real pairs of HH-RLHF are not here")
def test_real_pairs_are_told_by_length(tmp_path, capsys):
    """To a model at its start all tokens are about equally surprising, so λ_w is the loser's share of the length."""
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        pairs = list(itertools.islice(lines, 60))
    tokenizer = train_bpe(pairs, 300)
    model = small_llama(len(tokenizer), width=16, layers=1, heads=2, longest=512, seed=0)
    save_folder(tmp_path / "model", model, tokenizer)
    files = [tmp_path / f"{name}.jsonl" for name in ("first", "second")]
    for place, file in enumerate(files):
        file.write_text("".join(pairs[place::2]), "utf-8")
    saved = tmp_path / "real.parquet"
    assert cli.main(["inspect", str(tmp_path / "model"), *map(str, files), "--save", str(saved)]) == 0
    frame = load_frame(saved)[0]
    share = frame["lose_len"] / (frame["win_len"] + frame["lose_len"])
    assert np.corrcoef(share, frame["win_weight"])[0, 1] > 0.99
    assert frame["data"].nunique() == 2
    assert "Mean λ_w − ½ is" in capsys.readouterr().out
