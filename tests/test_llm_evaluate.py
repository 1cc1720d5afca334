"""Evaluation: its numbers against plain loops over the samples, its files, and what it refuses in one line."""

import dataclasses
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")

import tiny_llm
import torch
from safetensors.torch import load_file, save_file
from tiny_llm import resealed
from transformers.utils import logging

from gradlab.cli import evaluate_command
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.tokens import encode_prompt
from gradlab.llm.demo.token_task import task_tokenizer, true_reward, write_task
from gradlab.llm.judge import evaluate as module
from gradlab.llm.judge import systems
from gradlab.llm.judge.evaluate import evaluate, evaluate_runs, may_offend
from gradlab.llm.judge.evaluation_table import notes, summary, table, with_interval
from gradlab.llm.judge.systems import models_of, open_run, prompt_ids, prompts_of, response_length
from gradlab.llm.look.samples_page import Shown, samples_page
from gradlab.llm.model.finished import read_done, write_done
from gradlab.llm.model.loading import load_model, model_hash, save_folder, small_llama
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.stages import train
from gradlab.store.artifacts import load_frame
from gradlab.store.ratings import read_comparison
from gradlab.store.sealed import read_sealed

SCRIPT = Path(__file__).parent.parent / "scripts/llm_eval.py"
HOW = {"samples": 3, "length": 12, "prompts": 8}


def shorter(prompts, responses):
    return [-float(len(one.split())) for one in responses]


def raising(prompts, responses):
    return {}["no such answer"]


def cost(prompts, responses):
    return [-one for one in true_reward(prompts, responses)]


def settings(folder, seed):
    return tiny_llm.settings(
        model=str(folder / "base"), data=str(folder / "data" / "train.jsonl"), out=folder / f"run{seed}",
        loss=("bdpo", "dpo"), max_length=40, held_out=20, sft_epochs=5, sft_learning_rate=1e-2, reference_steps=3,
        learning_rate=1e-2, steps=3, batch=16, micro=16, precision="fp32", seed=seed, sides_every=0, validate_every=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(whole_runs, tmp_path_factory):
    """Two runs, seeds 0 and 1, of a tiny model."""
    made = tmp_path_factory.mktemp("runs")
    write_task(made / "data", 60, 1, seed=3)
    tokenizer = task_tokenizer()
    model = small_llama(len(tokenizer), width=16, layers=1, heads=2, longest=64, seed=0)
    save_folder(made / "base", model, tokenizer)
    for seed in (0, 1):
        train(settings(made, seed))
    return made


@pytest.fixture(scope="module")
def run(folder):
    return folder / "run0"


@pytest.fixture(scope="module")
def frame(run):
    return evaluate(run, reward=true_reward, cost=cost, **HOW).set_index("run", drop=False)


@pytest.fixture(scope="module")
def part(run, frame):
    """What was kept of each system: samples and log-probabilities."""
    return {name: json.loads((run / "evaluation" / "parts" / f"{name}.json").read_text()) for name in frame["run"]}


def texts_of(run, page):
    tokenizer = task_tokenizer()
    return [tokenizer.decode(one, skip_special_tokens=True) for one in page["tokens"]]


def rewards_of(run, page, function):
    pairs, _ = prompts_of(open_run(run), HOW["prompts"], HOW["length"])
    prompts = [pair.prompt for pair in pairs for _ in range(HOW["samples"])]
    return np.array(function(prompts, texts_of(run, page))).reshape(len(pairs), -1)


@torch.no_grad()
def plain_logp(model, prompt, response):
    """Σ log π, one sequence at a time, from the logits of them all."""
    ids = torch.tensor([[*prompt, *response]])
    logps = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
    return float(sum(logps[place, ids[0, place + 1]] for place in range(len(prompt) - 1, ids.shape[1] - 1)))


# The numbers


def test_the_reference_is_its_own_equal_exactly(frame):
    own = frame.loc["reference"]
    assert (own["accuracy"], own["margin"], own["kl"], own["win_rate"], own["reward_gain"]) == (0.5, 0, 0, 0.5, 0)
    assert own["shorter_wins"] == 0.5
    assert frame["run"].tolist() == ["reference", "sft", "dpo", "bdpo"]
    assert (frame["kl"].drop("reference") != 0).all()


def test_accuracy_and_margin_are_those_of_the_held_out_pairs(run, frame):
    opened = open_run(run)
    model, reference = load_model(run / "dpo" / "model"), load_model(run / "reference" / "model")
    margins = []
    for _, one in opened.held_out:
        win, lose = ([plain_logp(m, one.prompt, side) for m in (model, reference)] for side in (one.win, one.lose))
        margins.append((win[0] - win[1]) - (lose[0] - lose[1]))
    assert frame.loc["dpo", "pairs"] == len(margins) == 20
    assert frame.loc["dpo", "margin"] == pytest.approx(np.mean(margins), abs=1e-4)
    assert frame.loc["dpo", "accuracy"] == np.mean(np.array(margins) > 0)
    assert frame.loc["dpo", "margin_low"] < frame.loc["dpo", "margin"] < frame.loc["dpo", "margin_high"]
    sizes = [(len(one.win), len(one.lose)) for _, one in opened.held_out]
    expected = np.mean([1.0 if a < b else 0.5 if a == b else 0.0 for a, b in sizes])
    assert frame["shorter_accuracy"].tolist() == [expected] * 4


def test_kl_is_the_mean_log_ratio_of_the_systems_own_samples(run, frame, part):
    model, reference = load_model(run / "bdpo" / "model"), load_model(run / "reference" / "model")
    _, prompts = prompts_of(open_run(run), HOW["prompts"], HOW["length"])
    tokens = part["bdpo"]["tokens"]
    ratios = [
        plain_logp(model, prompts[index // 3], one) - plain_logp(reference, prompts[index // 3], one)
        for index, one in enumerate(tokens)
    ]
    assert len(ratios) == 24
    assert frame.loc["bdpo", "kl"] == pytest.approx(np.mean(ratios), abs=1e-4)
    assert frame.loc["bdpo", "kl_token"] == pytest.approx(np.sum(ratios) / sum(map(len, tokens)), abs=1e-4)
    assert frame.loc["bdpo", "length"] == pytest.approx(np.mean([len(one) for one in tokens]))
    assert frame.loc["bdpo", "finished"] == np.mean([one[-1] == 1 for one in tokens])
    assert max(map(len, tokens)) == HOW["length"]


def test_win_rate_is_over_all_pairs_of_samples_then_over_prompts(run, frame, part):
    own, other = (rewards_of(run, part[name], true_reward) for name in ("dpo", "reference"))
    by_prompt = [
        np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in mine for b in theirs])
        for mine, theirs in zip(own, other, strict=True)
    ]
    row = frame.loc["dpo"]
    assert row["win_rate"] == pytest.approx(np.mean(by_prompt))
    assert row["win_rate_low"] < row["win_rate"] < row["win_rate_high"]
    assert row["reward"] == pytest.approx(own.mean())
    assert row["reward_gain"] == pytest.approx(own.mean() - other.mean())
    assert row["reward_model"] == "true_reward"


def test_safe_better_and_both(run, frame, part):
    own, other = (rewards_of(run, part[name], true_reward) for name in ("dpo", "reference"))
    success = [
        np.mean([(a > 0) * (1.0 if a > b else 0.5 if a == b else 0.0) for a in mine for b in theirs])  # cost is −reward
        for mine, theirs in zip(own, other, strict=True)
    ]
    assert frame.loc["dpo", "safe"] == pytest.approx((own > 0).mean())
    assert frame.loc["dpo", "success"] == pytest.approx(np.mean(success))
    assert frame.loc["dpo", "cost"] == pytest.approx(-own.mean())
    assert frame.loc["dpo", "cost_accuracy"] == frame.loc["dpo", "reward_accuracy"]
    assert frame.loc["dpo", "success"] < min(frame.loc["dpo", ["safe", "win_rate"]])


def test_a_reward_of_length_is_found_out(run, frame, part):
    found = evaluate(run, ["dpo"], reward=shorter, save_as="length", **HOW)
    assert found["run"].tolist() == ["reference", "dpo"]
    own, other = (rewards_of(run, part[name], shorter) for name in ("dpo", "reference"))
    sizes, others = (
        np.array([len(one) for one in part[name]["tokens"]]).reshape(8, 3) for name in ("dpo", "reference")
    )
    whole, wins = [], []
    for prompt, i, j in np.ndindex(8, 3, 3):
        a, b = sizes[prompt, i], others[prompt, j]
        whole.append(1.0 if a < b else 0.5 if a == b else 0.0)
        wins += whole[-1:] if own[prompt, i] > other[prompt, j] else []
    row = found.iloc[1]
    assert row["shorter_wins"] == pytest.approx(np.mean(whole))
    assert row["wins_shorter"] == pytest.approx(np.mean(wins))
    assert row["wins_shorter"] > 0.6
    assert not found["reward_beats_length"].any()
    assert "win-rates by it decide nothing" in table(found)
    known = {pair.chosen for pair, _ in open_run(run).held_out}
    knowing = evaluate(run, ["dpo"], reward=lambda p, r: [float(one in known) for one in r], save_as="known", **HOW)
    assert knowing["reward_accuracy"].tolist() == [1.0, 1.0]
    assert knowing["reward_beats_length"].all()
    assert "decide nothing" not in table(knowing)


def test_without_a_reward_there_are_no_win_rates(run):
    found = evaluate(run, ["dpo"], save_as="bare", **HOW)
    assert {"kl", "accuracy"} <= set(found) & set(summary(found))
    assert not {"win_rate", "reward", "safe"} & set(found)
    assert "win-rate" not in table(found)


# Again, elsewhere, otherwise


def test_equal_seeds_give_equal_rows_and_nothing_is_sampled_twice(run, frame, tmp_path, monkeypatch):
    fresh = tmp_path / "fresh"
    shutil.copytree(run, fresh, ignore=shutil.ignore_patterns("evaluation"))
    again = evaluate(fresh, reward=true_reward, cost=cost, **HOW)
    pd.testing.assert_frame_equal(again.drop(columns="out"), frame.reset_index(drop=True).drop(columns="out"))

    def never(*args, **how):
        raise AssertionError("sampled, or loaded, again")

    monkeypatch.setattr(systems, "sample", never)
    monkeypatch.setattr(systems, "load_model", never)
    kept = evaluate(fresh, reward=true_reward, cost=cost, **HOW)
    pd.testing.assert_frame_equal(kept, again)
    with pytest.raises(AssertionError):
        evaluate(fresh, reward=true_reward, **(HOW | {"samples": 2}))
    with pytest.raises(AssertionError):
        evaluate(fresh, reward=true_reward, seed=1, **HOW)


def test_what_was_cut_short_of_the_kept_samples_is_made_anew(run, frame, tmp_path):
    fresh = tmp_path / "fresh"
    shutil.copytree(run, fresh)
    (fresh / "evaluation" / "parts" / "dpo.json").write_text('{"key": "')
    again = evaluate(fresh, reward=true_reward, cost=cost, **HOW)
    pd.testing.assert_frame_equal(again.drop(columns="out"), frame.reset_index(drop=True).drop(columns="out"))


def test_a_run_that_was_moved_is_compared_with_its_own_reference(folder, tmp_path):
    shutil.copytree(folder / "run0", tmp_path / "moved")
    opened = open_run(tmp_path / "moved")
    assert opened.systems[0].model == str(tmp_path / "moved" / "reference" / "model")
    kept = {"base": None, "reference": model_hash(folder / "base")}
    resealed(tmp_path / "moved" / "dpo" / "done.json", reference=str(folder / "base"), weights=kept)
    with pytest.raises(ValueError, match="has runs with different references"):
        open_run(tmp_path / "moved")
    alone = open_run(tmp_path / "moved", ["bdpo"]).systems[0].model
    assert alone == str(tmp_path / "moved" / "reference" / "model")
    for name in ("bdpo", "sft"):
        shutil.rmtree(tmp_path / "moved" / name)
    assert [(one.name, one.model) for one in open_run(tmp_path / "moved").systems] == [
        ("reference", str(folder / "base")), ("dpo", str(tmp_path / "moved" / "dpo" / "model")),
    ]  # fmt: skip


def test_a_reward_model_in_a_runs_folder_is_no_system(run, folder, tmp_path):
    own = copied(run, tmp_path)
    pairs = [Pair("a ", "b", "c", "")]
    train_reward(folder / "base", pairs, own / "judge", held_out=pairs, epochs=1, batch=1, micro=1, max_length=16)
    (own / "others").mkdir()
    (own / "others" / "done.json").write_text('{"by": "another program"}')
    assert models_of(own) == models_of(run)
    assert [system.name for system in open_run(own).systems] == [system.name for system in open_run(run).systems]
    with pytest.raises(ValueError, match=rf"names for {own} must be one of reference, .*; got 'judge'"):
        open_run(own, ["judge"])
    for name in ("sft", "reference", "dpo", "bdpo"):
        shutil.rmtree(own / name)
    with pytest.raises(FileNotFoundError, match="copy has no finished model"):
        open_run(own)


def test_two_ways_to_write_a_path_are_one_reference(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "run0", tmp_path / "run")
    kept = {"base": None, "reference": model_hash(folder / "base")}
    for name, base in (("dpo", folder / "base"), ("bdpo", "base")):
        resealed(tmp_path / "run" / name / "done.json", reference=str(base), weights=kept)
    monkeypatch.chdir(folder)
    assert open_run(tmp_path / "run").systems[0].model == str(folder / "base")


def test_means_are_compared_with_means(run, frame, tmp_path):
    """Where a loss took means over tokens, its implicit rewards are means too; the reference's follow."""
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    for name, reductions in (("dpo", "mean"), ("bdpo", "sum")):
        resealed(moved / name / "done.json", reduction=reductions)
    row = evaluate(moved, ["dpo"], **HOW).iloc[1]
    parts = {name: json.loads((moved / "evaluation" / "parts" / f"{name}.json").read_text()) for name in
             ("dpo", "reference")}  # fmt: skip
    sizes = np.array([(len(one.win), len(one.lose)) for _, one in open_run(moved).held_out])
    whole = {name: json.loads((run / "evaluation" / "parts" / f"{name}.json").read_text())["pairs"] for name in parts}
    h = (np.array(whole["dpo"]) - whole["reference"]).reshape(-1, 2) / sizes
    assert row["margin"] == pytest.approx((h[:, 0] - h[:, 1]).mean(), abs=1e-5)


def test_responses_are_sampled_after_the_tokens_that_were_trained_on(run):
    """Where tokens merge over a prompt's end, these are fewer than the prompt's text has."""
    opened = open_run(run)
    merged = [dataclasses.replace(pair, prompt=pair.prompt[:-1]) for pair in opened.data.encoded]
    opened = dataclasses.replace(opened, data=dataclasses.replace(opened.data, encoded=merged))
    pairs, ids = prompts_of(opened, None, 12)
    trained = {pair.prompt: list(encoded.prompt) for pair, encoded in reversed(opened.held_out)}
    assert ids == [trained[pair.prompt] for pair in pairs]
    assert [len(one) for one in ids] == [4] * len(ids)
    assert [prompt_ids(opened, pair.prompt, 12) for pair in pairs] == ids, "a study asks the same"
    whole = encode_prompt(pairs[0].prompt, opened.tokenizer, "plain")
    assert prompt_ids(opened, pairs[0].prompt, 37) == [whole[0], *whole[-2:]], "no room: shortened as text"
    assert pairs[0].prompt + pairs[1].prompt not in trained
    asked = pairs[0].prompt + pairs[1].prompt
    assert prompt_ids(opened, asked, 12) == encode_prompt(asked, opened.tokenizer, "plain")


def test_prompts_are_asked_once_and_a_long_one_keeps_its_end(run):
    opened = open_run(run)
    pairs, ids = prompts_of(opened, None, 12)
    asked = [pair.prompt for pair in pairs]
    assert len(asked) == len(set(asked)) < 21
    assert [len(one) for one in ids] == [5] * len(ids)  # <s>, three topics and ":"
    _, short = prompts_of(opened, 2, 37)  # 40 − 37 tokens are left
    assert [one[0] for one in short] == [0, 0]
    assert [one[1:] for one in short] == [one[-2:] for one in ids[:2]]
    doubled = dataclasses.replace(opened, data=dataclasses.replace(
        opened.data, held_out=np.concatenate([opened.data.held_out, opened.data.held_out])
    ))  # fmt: skip
    assert [pair.prompt for pair in prompts_of(doubled, None, 12)[0]] == asked


# Files


def test_files_are_whole_ignored_by_git_and_read_again(run, frame):
    folder = run / "evaluation"
    assert (folder / ".gitignore").read_text() == "*\n"
    saved, manifest = load_frame(folder / "evaluation.parquet")
    pd.testing.assert_frame_equal(saved, frame.reset_index(drop=True))
    assert manifest["sampling"]["longest"] == 12
    assert manifest["reward"]["accuracy"] == frame["reward_accuracy"].iloc[0]
    assert "ours" in manifest["success"]


def test_the_rating_notebook_reads_the_samples(run, frame, part):
    comparison = read_comparison(run / "evaluation" / "samples.jsonl", "dpo", "reference")
    pairs, _ = prompts_of(open_run(run), HOW["prompts"], HOW["length"])
    assert [item.prompt for item in comparison.items] == [pair.prompt for pair in pairs]
    own, other = (texts_of(run, part[name])[::3] for name in ("dpo", "reference"))
    assert [item.texts for item in comparison.items] == list(zip(own, other, strict=True))


def test_the_page_shows_what_was_sampled(run, frame, part):
    page = (run / "evaluation" / "samples.html").read_text()
    for name in part:
        assert all(text in page for text in texts_of(run, part[name]) if text)
    assert "win-rate" in page
    assert "success (ours)" in page
    assert module.WARNING not in page


def test_the_page_escapes_everything_and_needs_nothing_else():
    bad = "<script>alert('x')</script>\" & <img src=x>"
    page = samples_page(bad, [bad], {bad: [[Shown(bad, 3, False, 0.5, -1.0), Shown("", 1, True)]]}, bad, [bad],
                        warning=bad, left_out=2)  # fmt: skip
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("&lt;script&gt;") == 8
    assert page.index("alert(") < page.index("<h1>")  # title, warning, then the rest
    assert "http://" not in page
    assert "https://" not in page
    assert all(words in page for words in ("(empty)", "cut", "reward 0.5", "cost -1", "2 more prompts are not shown"))


def test_texts_that_may_offend_are_announced(folder, run):
    named = folder / "hh-rlhf.jsonl"
    shutil.copy(folder / "data" / "train.jsonl", named)
    for how in ({"data": str(named)}, {"warn": True}):
        evaluate(run, ["dpo"], save_as="warned", **HOW, **how)
        assert module.WARNING in (run / "evaluation" / "warned-samples.html").read_text()
        assert module.WARNING in (run / "evaluation" / "warned-samples.jsonl").read_text().splitlines()[0]
        assert read_comparison(run / "evaluation" / "warned-samples.jsonl").systems == ("reference", "dpo")
    plain = {"data": "pairs.jsonl", "choice": None}
    assert not may_offend(plain, [Pair("Hello", "a", "b", "")])
    assert may_offend(plain, [Pair("\n\nHuman: Hello\n\nAssistant:", "a", "b", "")])
    assert may_offend(plain | {"choice": "safety"}, [])
    assert may_offend(plain | {"data": "PKU-Alignment/PKU-SafeRLHF"}, [])


# Several runs, and the command


def test_a_summary_pairs_methods_within_each_run():
    rows = [
        {"run": name, "out": out, "seed": index, "accuracy": value, "accuracy_low": 0.0, "accuracy_high": 1.0}
        for index, out in enumerate(("a", "b", "c"))
        for name, value in (("dpo", 0.5 + index / 10), ("bdpo", 0.6 + index / 5))
    ]
    found = summary(pd.DataFrame(rows)).set_index("run")
    assert found["runs"].tolist() == [3, 3]
    assert found.loc["bdpo", "accuracy"] == pytest.approx(0.8)
    assert found.loc["bdpo", "accuracy_gain"] == pytest.approx(0.2)
    assert 0.099 < found.loc["bdpo", "accuracy_gain_low"] < 0.2 < found.loc["bdpo", "accuracy_gain_high"] < 0.301
    assert math.isnan(found.loc["dpo", "accuracy_gain"])
    alone = summary(pd.DataFrame(rows[:2])).set_index("run")
    assert (alone.loc["bdpo", "accuracy_low"], alone.loc["bdpo", "accuracy_high"]) == (0.0, 1.0)
    assert "accuracy_gain" not in alone
    lacking = summary(pd.DataFrame(rows[1:]))  # not every run has the baseline
    assert "accuracy_gain" not in lacking


def frame_of(runs):
    """A small frame as ``evaluate_runs`` gives it, without a reward."""
    return pd.DataFrame([
        {"run": name, "out": out, "seed": out, "pairs": 20, "prompts": 8, "samples": 3, "shorter_accuracy": 0.4,
         **with_interval("accuracy", np.array([value, value + out / 10])),
         **with_interval("margin", np.array([value, value + out])), **with_interval("kl", np.array([-0.01, 0.0]))}
        for out in range(runs) for name, value in (("reference", 0.5), ("dpo", 0.6), ("bdpo", 0.7))
    ])  # fmt: skip


def test_without_a_reward_accuracy_and_margin_are_paired():
    head, *rows = table(frame_of(3)).splitlines()[:4]
    assert [part.strip() for part in re.split("  +", head)[-2:]] == ["accuracy − dpo's", "margin − dpo's"]
    assert re.split("  +", rows[2])[-2:] == ["0.100 [0.100, 0.100]", "0.100 [0.100, 0.100]"]
    assert re.split("  +", table(frame_of(3), "reference").splitlines()[3])[-2:] == ["0.200 [0.200, 0.200]"] * 2
    assert "dpo's" not in table(frame_of(1))


def test_controls_that_were_not_run_are_named():
    frame = frame_of(1)
    both = frame.assign(run=frame["run"].replace({"reference": "length-dpo"}))
    all_ = pd.concat([both, frame.iloc[:1].assign(run="fixed-weight")])
    open_ = [[line for line in notes(of) if "stays open" in line] for of in (frame, both, all_, frame[:2])]
    assert open_[0] == [
        "Without a run of fixed-weight and of length-dpo it stays open whether what bdpo does is balance, or the "
        "halved β and the lengths."
    ]
    assert open_[1] == [
        "Without a run of fixed-weight it stays open whether what bdpo does is balance, or the halved β."
    ]
    assert open_[2:] == [[], []]  # all are there; there is no bdpo


def test_it_is_said_what_the_intervals_are_over():
    said = [notes(frame_of(runs))[0] for runs in (1, 3, 4)]
    assert said[0].startswith("1 run; [low, high]: 95% bootstrap, of accuracy over held-out pairs, of all else over")
    assert said[1].startswith("Means over 3 runs; [low, high]: 95% bootstrap over runs, which over three or fewer is")
    assert said[2].startswith("Means over 4 runs; [low, high]: 95% bootstrap over runs. ")
    assert all("Ties count ½" in one and "KL is an estimate" in one for one in said)
    for runs in (3, 4):  # of three the interval is their range, of four it is not
        values = np.arange(runs) * 1.0
        low, high = with_interval("x", values)["x_low"], with_interval("x", values)["x_high"]
        assert ((low, high) == (values.min(), values.max())) == (runs == 3)
    assert notes(frame_of(4).iloc[:-3])[0].startswith("Means over 3 runs")
    assert notes(frame_of(4).iloc[:-1])[0].startswith("Means over 3 to 4 runs")


def test_the_shorter_answers_accuracy_is_a_mean_over_runs_however_many_models_each_has():
    frame = frame_of(2)
    first = frame["out"].iloc[0]
    frame = frame.assign(shorter_accuracy=np.where(frame["out"] == first, 0.7, 0.5))
    frame = pd.concat([frame, frame[frame["out"] == first].assign(run="another")])
    assert "scores 0.600" in notes(frame)[1]


def test_the_command_prints_one_table_of_all_seeds(folder, capsys):
    reward = folder / "own.py"
    reward.write_text("from gradlab.llm.demo.token_task import true_reward\n")
    status = evaluate_command.run([
        str(folder / "run0"), str(folder / "run1"), "--reward", f"{reward}:true_reward", "--samples", "3", "--length",
        "12", "--prompts", "8", "--names", "dpo", "bdpo",
    ])  # fmt: skip
    said = capsys.readouterr()
    assert status == 0, said.err
    lines = said.out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("method"))
    assert all(title in lines[at] for title in ("win-rate", "KL", "accuracy", "margin", "reward", "win-rate − dpo's"))
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["reference", "dpo", "bdpo"]
    assert "[" in lines[at + 3].rsplit("  ", 1)[1]
    assert (folder / "run1" / "evaluation" / "samples.html").exists()
    both = evaluate_runs([folder / "run0", folder / "run1"], ["dpo"], reward="{out}/../own.py:true_reward", **HOW)
    assert both["seed"].tolist() == [0, 0, 1, 1]
    assert both["reward_model"].iloc[-1] == f"{folder / 'run1'}/../own.py:true_reward"
    assert len(notes(both)) == 3


# What is refused


def copied(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("evaluation", "cache"))
    return tmp_path / "copy"


def test_a_folder_that_is_no_finished_run_is_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no run's folder, it has no data.json"):
        evaluate(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere is no run's folder"):
        evaluate_runs([run, tmp_path / "nowhere"])
    own = copied(run, tmp_path)
    for name in ("sft", "reference", "dpo"):
        shutil.rmtree(own / name)
    shutil.rmtree(own / "bdpo" / "model")
    with pytest.raises(FileNotFoundError, match="bdpo has no model/ though it was finished"):
        evaluate(own)
    (own / "bdpo" / "done.json").write_text("[")
    (own / "bdpo" / "model").mkdir()
    with pytest.raises(ValueError, match=r"bdpo/done.json is damaged"):
        evaluate(own)
    shutil.rmtree(own / "bdpo")
    with pytest.raises(FileNotFoundError, match="copy has no finished model"):
        evaluate(own)
    (own / "data.json").write_text('{"model": "x"}')
    with pytest.raises(ValueError, match=r"data.json is damaged, or of another version"):
        evaluate(own)


def test_unfinished_runs_without_losses_are_compared_with_what_there_is(run, tmp_path):
    own = copied(run, tmp_path)
    for name in ("reference", "dpo", "bdpo"):
        shutil.rmtree(own / name)
    assert [(one.name, one.model) for one in open_run(own).systems] == [("reference", str(own / "sft" / "model"))]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"names": ["dpi"]}, "names for .*run0 must be one of reference, sft, dpo, bdpo; got 'dpi'; did you mean 'dp"),
        ({"length": 40}, "length must be at most 38 for .*run0, as its max_length is 40 and a prompt needs 2, got 40"),
        ({"reward": raising}, "reward raising failed: KeyError: 'no such answer'"),
        ({"length": 0}, "length must be a whole number ≥ 1, got 0"),
        ({"prompts": 0}, "prompts must be a whole number ≥ 1, got 0"),
        ({"precision": "fp16"}, "precision must be one of auto, fp32, bf16; got 'fp16'; did you mean 'bf16'?"),
        ({"reward_template": "chatt"}, "reward_template must be chat or None, got 'chatt'"),
        ({"shown": -1}, "shown must be a whole number ≥ 0, got -1"),
        ({"samples": 0}, "samples must be a whole number ≥ 1, got 0"),
        ({"temperature": 0}, "temperature must be finite and > 0, got 0"),
        ({"reward": lambda p, r: [1.0]}, "reward <lambda> must give one number per response"),
        ({"reward": lambda p, r: [math.nan] * len(r)}, "reward <lambda> must give finite numbers, got nan"),
        ({"cost": "no_such_module:cost"}, "there is no module 'no_such_module'"),
    ],
)
def test_arguments_that_cannot_be_are_named(run, how, words):
    with pytest.raises(ValueError, match=words) as caught:
        evaluate(run, **(HOW | how))
    assert "\n" not in str(caught.value)


def test_a_judge_that_fails_does_so_before_anything_is_sampled(run, monkeypatch):
    monkeypatch.setattr(module, "draw", lambda *_: pytest.fail("sampled"))
    with pytest.raises(ValueError, match=r"reward raising failed"):
        evaluate(run, reward=true_reward, cost=raising, **HOW)


@pytest.mark.parametrize("prompts", [8, 1000])
def test_it_is_said_where_fewer_prompts_are_held_out_than_asked_for(prompts, run, capsys):
    with pytest.raises(ValueError, match="no such answer"):  # before anything is sampled
        evaluate(run, reward=true_reward, cost=raising, **(HOW | {"prompts": prompts}))
    there = len(open_run(run).asked)
    words = f"gradlab: {run} has {there} held-out prompts, fewer than the 1000 asked for\n"
    assert (words in capsys.readouterr().err) == (prompts > there)


def test_a_baseline_that_not_all_have_is_refused_before_anything_is_evaluated(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    both = [run, folder / "run1"]
    line = "baseline must be one of reference, sft, dpo, bdpo; got 'dpoo'; did you mean 'dpo'?"
    for outs in (both, [run]):
        with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
            evaluate_runs(outs, baseline="dpoo")
    with pytest.raises(ValueError, match=r"^baseline must be one of reference, bdpo; got 'dpo'"):
        evaluate_runs(both, ["bdpo"], baseline="dpo")
    with pytest.raises(ValueError, match=r"^baseline must be left out for one folder, .* over folders, got 'dpo'$"):
        evaluate_runs([run], baseline="dpo")
    lacking = copied(run, tmp_path)
    shutil.rmtree(lacking / "dpo")
    with pytest.raises(ValueError, match=r"^baseline must be one of reference, sft, bdpo; got 'dpo'"):
        evaluate_runs([run, lacking], baseline="dpo")


def test_a_name_that_not_all_have_is_refused_before_anything_is_evaluated(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    lacking = copied(run, tmp_path)
    shutil.rmtree(lacking / "dpo")
    with pytest.raises(ValueError, match=r"^names for .* must be one of reference, sft, bdpo; got 'dpo'"):
        evaluate_runs([run, lacking], ["dpo"])


def test_a_response_has_half_of_the_room_where_nothing_else_is_said(run):
    opened = open_run(run)
    longer = dataclasses.replace(opened, settings={**opened.settings, "max_length": 512})
    assert [response_length(one, None) for one in (opened, longer)] == [20, 128]
    assert [response_length(one, 38) for one in (opened, longer)] == [38, 38]


def test_other_data_and_broken_models_are_refused(folder, run, tmp_path):
    write_task(tmp_path, 60, 1, seed=4)
    with pytest.raises(ValueError, match=r"train.jsonl is not the data that .*run0 was trained on"):
        evaluate(run, data=str(tmp_path / "train.jsonl"))
    own = copied(run, tmp_path)
    file = own / "dpo" / "model" / "model.safetensors"
    weights = {name: torch.full_like(value, math.nan) for name, value in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{file} is damaged, .*; remove {own / 'dpo'}, and it is trained again"):
        evaluate(own, ["dpo"], **HOW)
    write_done(own / "dpo", read_done(own / "dpo"))
    with pytest.raises(ValueError, match="dpo/model must give finite log-probabilities; its training went wrong"):
        evaluate(own, ["dpo"], **HOW)
    page = read_sealed(own / "data.json")
    none = prepare(page["settings"] | {"held_out": 0}, task_tokenizer())
    resealed(own / "data.json", settings=page["settings"] | {"held_out": 0}, fingerprint=none.fingerprint)
    with pytest.raises(ValueError, match="has no held-out pairs to be evaluated on"):
        evaluate(own)
    with pytest.raises(ValueError, match="out must name one or more folders of runs, each once"):
        evaluate_runs([run, folder / "data" / ".." / "run0"])


def test_the_command_says_what_is_wrong_in_one_line(run, tmp_path, capsys):
    assert evaluate_command.run([str(tmp_path)]) == 1
    assert capsys.readouterr().err.strip() == (
        f"gradlab: {tmp_path} is no run's folder, it has no data.json; gradlab train makes one"
    )
    own = tmp_path / "own.py"
    own.write_text("def boom(prompts, responses):\n    raise KeyError('no')\n")
    for words, said in {
        (str(run), "--names", "dpi"): f"names for {run} must be one of ",
        (): "out must name one or more folders of runs, each once, got none",
        (str(run), "--baseline", "dpoo"): "baseline must be one of reference, sft, dpo, bdpo; got 'dpoo'",
        (str(run), "--reward", f"{own}:boom"): f"reward {own}:boom failed: KeyError: 'no'",
    }.items():
        assert evaluate_command.run(words) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"gradlab: {said}")
        assert err.count("\n") == 1


def test_without_the_extra_the_command_says_so_in_one_line(run):
    missing = "import runpy, sys; sys.modules.update(dict.fromkeys(['transformers', 'safetensors', 'tokenizers']))"
    code = f"{missing}; sys.argv = ['llm_eval.py', {str(run)!r}]; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"gradlab: .*(transformers|safetensors).*\n", done.stderr)


def test_the_command_lets_transformers_show_no_bars(run, capfd):
    logging.enable_progress_bar()
    assert evaluate_command.run([str(run), "--names", "dpo", "--samples", "1", "--length", "4", "--prompts", "2"]) == 0
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()  # as it was before


@pytest.mark.parametrize("name", ["a-samples.jsonl", "a-samples.html", "a.parquet", "a.json", ".gitignore"])
def test_files_of_others_are_not_written_over(run, name):
    theirs = run / "evaluation" / name
    before = theirs.read_text() if theirs.exists() else None
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name} is there and is no"):
        evaluate(run, ["dpo"], save_as="a", **HOW)
    assert theirs.read_text() == "mine"
    theirs.unlink()
    if before is not None:
        theirs.write_text(before)
