"""Real pairs as a task of the pretrained model's runs: which are chosen, how they are trained on, what is measured."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("transformers")

from tiny_llm import tiny_model

from gradlab.cli import main
from gradlab.experiments.questions import pretrained_runs
from gradlab.experiments.questions.pretrained_runs import looks_of
from gradlab.llm.data.hold_out import prompt_key
from gradlab.llm.data.pair_forms import as_messages
from gradlab.llm.data.pairs import json_lines, read_pairs
from gradlab.llm.demo.token_task import task_tokenizer, token_task
from gradlab.llm.model.loading import save_folder
from gradlab.llm.real.pairs_task import PairsTask, chosen_pairs
from gradlab.llm.real.runs import TASKS, part_of, run_unit
from gradlab.llm.real.task import REFERENCE, Place, Unit
from gradlab.llm.real.text_reward import PER_WORD
from gradlab.store.artifacts import save_frame

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
SMALL = {"longest": 40, "pairs": 12, "held_out": 6, "batch": 4, "lora": 2, "train_from": 1, "prompts": 3, "sampled": 4,
         "steps": 2, "looks": [1, 2], "sides_every": 1, "validate_every": 1}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A tiny model with a chat template, pairs for it, and the task's settings as small."""
    tokenizer = task_tokenizer()
    tokenizer.chat_template = TEMPLATE
    save_folder(tmp_path / "model", tiny_model(), tokenizer)
    (tmp_path / "pairs.jsonl").write_text(json_lines(token_task(40, 0, longest=10)), encoding="utf-8")
    monkeypatch.setattr(PairsTask, "smoke", {**PairsTask.smoke, **SMALL})
    return Place(str(tmp_path / "model"), tmp_path / "out", tmp_path / "figures", str(tmp_path / "pairs.jsonl"), True)


def test_methods_and_seeds_are_those_that_the_claims_are_judged_by():
    for task in TASKS.values():
        assert list(task.settings["seeds"]) == list(pretrained_runs.SEEDS)
        assert {REFERENCE, *pretrained_runs.CORE} == set(task.settings["methods"])
        assert set(task.settings["beyond"]) <= set(pretrained_runs.BEYOND[task.name])
    assert pretrained_runs.PER_WORD == PER_WORD
    assert TASKS["known"].settings["longest"] == pretrained_runs.LONGEST
    assert set(TASKS) == set(pretrained_runs.TASKS)
    of_pairs = [TASKS["hh"].settings[name] for name in ("sampled", "pairs", "held_out")]
    assert of_pairs == [pretrained_runs.SAMPLED, pretrained_runs.TRAINED, pretrained_runs.HELD_OUT]


def test_methods_are_one_loss_at_half_of_beta_beta_and_twice_beta():
    for task in TASKS.values():
        methods = task.settings["methods"]
        beta = {name: float(methods[name].split("beta=")[1].split(",")[0]) for name in pretrained_runs.CORE}
        whole = beta["dpo"]
        assert beta == {
            name: whole * (0.5 if name.endswith("-half") else 2 if name.endswith("-double") else 1) for name in beta
        }


def test_training_sees_every_pair_as_often_as_the_paper():
    settings = PairsTask.settings
    assert settings["steps"] * settings["batch"] == 2 * settings["pairs"]


def test_chosen_pairs_are_short_and_their_prompts_apart(place):
    tokenizer = task_tokenizer()
    tokenizer.chat_template = TEMPLATE
    for seed in (1, 2):
        train, held_out = chosen_pairs(place.data, tokenizer, {**PairsTask.settings, **SMALL}, seed)
        assert len(train) == SMALL["pairs"]
        assert abs(len(held_out) - SMALL["held_out"]) <= 1
        assert not {prompt_key(pair.prompt) for pair in train} & {prompt_key(pair.prompt) for pair in held_out}
    with pytest.raises(ValueError, match=r"data must hold 18 pairs of at most 12 tokens, of .*; got 13$"):
        chosen_pairs(place.data, tokenizer, {**PairsTask.settings, **SMALL, "longest": 12}, 1)


def test_dialogues_are_held_out_with_what_goes_on_from_them(place):
    tokenizer = task_tokenizer()
    tokenizer.chat_template = TEMPLATE
    pairs = token_task(40, 0, longest=10)
    begun = [as_messages(pair.prompt) for pair in pairs]
    more = [
        replace(pair, prompt=(*turns, {"role": "assistant", "content": pair.chosen}, dict(turns[0])))
        for pair, turns in zip(pairs, begun, strict=True)
    ]
    Path(place.data).write_text(
        json_lines([replace(pair, prompt=turns) for pair, turns in zip(pairs, begun, strict=True)] + more),
        encoding="utf-8",
    )
    train, held_out = chosen_pairs(place.data, tokenizer, {**PairsTask.settings, **SMALL, "longest": 80}, 1)
    firsts = [{as_messages(pair.prompt)[0]["content"] for pair in part} for part in (train, held_out)]
    assert not firsts[0] & firsts[1]
    assert {len(as_messages(pair.prompt)) for pair in held_out} == {1, 3}


def test_a_question_that_is_asked_in_two_dialogues_is_on_one_side(place):
    tokenizer = task_tokenizer()
    tokenizer.chat_template = TEMPLATE
    question = {"role": "user", "content": "cold high warm quick bitter low new old"}
    pairs = [
        replace(pair, prompt=(*as_messages(pair.prompt), {"role": "assistant", "content": pair.chosen}, question))
        for pair in token_task(40, 0, longest=10)
    ]
    Path(place.data).write_text(json_lines(pairs), encoding="utf-8")
    few = r"of dialogues that can be parted; got 0 to train on beside \d held out$"
    with pytest.raises(ValueError, match=few):
        chosen_pairs(place.data, tokenizer, {**PairsTask.settings, **SMALL, "longest": 80}, 1)


def test_a_run_has_looks_log_and_seconds_and_no_text(place):
    frame = run_unit("hh", "dpo", 1, place)
    assert set(frame["kind"]) == {"pair", "sample", "log", "run"}
    looks = looks_of(frame)
    assert list(looks["step"]) == [1, 2]
    assert looks[["kl", "accuracy", "controlled", "elsewhere", "win_moved"]].notna().all(axis=None)
    log = frame[frame["kind"] == "log"]
    assert log[["grad_norm_win", "grad_norm_lose", "delta_win", "validation_loss"]].notna().any().all()
    said = {name for name in frame if frame[name].map(lambda value: isinstance(value, str)).any()}
    assert said == {"kind", "task", "method"}
    reference = looks_of(run_unit("hh", REFERENCE, 1, place))
    assert reference["kl"].item() == 0 == reference["elsewhere"].item()


def test_pairs_that_the_run_took_are_kept_and_taken_again(place):
    files = PairsTask().inputs(place, 1)
    texts = [file.read_text("utf-8") for file in files]
    assert PairsTask().inputs(place, 1) == files
    assert [file.read_text("utf-8") for file in files] == texts
    assert len(read_pairs(str(files[0]))[0]) == SMALL["pairs"]
    assert json.loads(texts[0].splitlines()[0])["chosen"]


def test_frames_that_were_kept_on_another_machine_are_done(place, capsys):
    part = part_of(Unit(PairsTask(), REFERENCE, 1), place)
    save_frame(pd.DataFrame({"kind": ["run"], "seconds": [1.0]}), part.file, {"key": part.key})
    for file in PairsTask().inputs(place, 1):
        file.unlink()
    options = ["--model", place.model, "--data", place.data, "--out", str(place.out), "--tasks", "hh", "--smoke"]
    assert main(["real", *options, "--open"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "done  hh-reference-1"
    assert last == "1 of 3 runs are done"


def test_without_pairs_the_task_is_refused_in_one_line(place, capsys):
    with pytest.raises(ValueError, match="data must name HH-RLHF's pairs for the task hh"):
        PairsTask().inputs(Place(place.model, place.out, place.figures), 1)
    assert main(["real", "--model", place.model, "--tasks", "hh", "--open", "--smoke", "--out", str(place.out)]) == 2
    assert "data must name HH-RLHF's pairs" in capsys.readouterr().err
    assert main(["real", "--model", place.model, "--tasks", "hhh", "--open"]) == 2
    assert "tasks must be one of" in capsys.readouterr().err
