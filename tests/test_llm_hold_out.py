"""Held-out prompts: which prompts count as one, how whole prompts are drawn, and who says what is shared."""

import itertools

import numpy as np
import pandas as pd
import pytest
from tiny_llm import quick_collections, tiny_settings, write_inputs

from gradlab.doctor import examine_log
from gradlab.doctor.training_log import read_log
from gradlab.llm.data.hold_out import SHORT, Overlap, prompt_key, repeats, split
from gradlab.llm.data.pairs import Pair, json_lines
from gradlab.llm.data.prepare import prepare
from gradlab.llm.demo.token_task import task_tokenizer, token_task
from gradlab.llm.judge.evaluation_table import notes
from gradlab.llm.train.stages import train
from gradlab.streams import Purpose, stream

pytestmark = pytest.mark.usefixtures(quick_collections.__name__)

QUESTION = "How do tides come about, and when?"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def ten_prompts(seed=0):
    """Ten prompts with six answers each in an order by chance, all pairs: there is nothing that generalises."""
    rng = np.random.default_rng(seed)
    prompts = list(dict.fromkeys(pair.prompt for pair in token_task(40, 0)))[:10]
    pairs = []
    for prompt in prompts:
        answers = list(dict.fromkeys(pair.chosen for pair in token_task(60, int(rng.integers(1000)), longest=8)))[:6]
        best_first = [answers[index] for index in rng.permutation(6)]
        pairs += [Pair(prompt, win, lose, "here") for win, lose in itertools.combinations(best_first, 2)]
    return pairs


@pytest.mark.parametrize(
    "other",
    [
        "  how do TIDES come\nabout,  and when?",
        f"\n\nHuman: Hello there!\n\nAssistant: Hi.\n\nHuman: {QUESTION}\n\nAssistant:",
        (user(QUESTION),),
        ({"role": "system", "content": "Be brief."}, user("Hello there!"), assistant("Hi."), user(QUESTION)),
        (user(QUESTION), assistant("By the moon")),
    ],
)
def test_prompts_with_one_last_message_of_the_user_count_as_one(other):
    assert prompt_key(other) == prompt_key(QUESTION)


def test_a_short_last_message_is_not_enough():
    told, asked = ((user(first), assistant("…"), user("Go on.")) for first in ("Tell a tale.", "What is salt?"))
    assert prompt_key(told) != prompt_key(asked)
    assert prompt_key(told) == prompt_key((user("tell a  TALE."), assistant("…"), user("go on.")))
    assert prompt_key("yes") != prompt_key(told)
    edge = "a" * SHORT
    assert prompt_key((user("One"), assistant("…"), user(edge))) == prompt_key(edge)
    assert prompt_key((user("One"), assistant("…"), user(edge[1:]))) != prompt_key(edge[1:])
    assert prompt_key(()) != prompt_key((assistant("Hi."),))


def test_no_prompt_is_on_both_sides():
    keys = [prompt_key(pair.prompt) for pair in ten_prompts()]
    train_part, held_out = split(keys, 30, 0, "prompts")
    assert sorted([*train_part, *held_out]) == list(range(150))
    assert len(held_out) == 30
    of_both = [[keys[index] for index in part] for part in (train_part, held_out)]
    assert Overlap.of(*of_both) == Overlap(pairs=30, prompts=2, shared_pairs=0, shared_prompts=0)
    by_pairs = split(keys, 30, 0, "pairs")
    one_by_one = Overlap.of(*([keys[index] for index in part] for part in by_pairs))
    assert one_by_one.shared_pairs == one_by_one.pairs == 30


@pytest.mark.parametrize("seed", range(3))
def test_the_split_by_pairs_is_as_it_was_and_equals_that_by_prompts_where_each_has_one_pair(seed):
    order = stream(seed, Purpose.HELD_OUT).permutation(50)
    for by in ("pairs", "prompts"):
        train_part, held_out = split([str(index) for index in range(50)], 12, seed, by)
        np.testing.assert_array_equal(held_out, np.sort(order[:12]))
        np.testing.assert_array_equal(train_part, np.sort(order[12:]))


@pytest.mark.parametrize(
    ("sizes", "number", "held_out"),
    [
        ([15] * 10, 20, {15}),  # 15 is nearer than 30
        ([15] * 10, 25, {30}),
        ([15] * 10, 3, {15}),  # one prompt at the least
        ([90, 5, 5], 20, {10}),
        ([90, 5, 5], 60, {10, 90}),
        ([50, 1], 10, {1}),
        ([4, 4], 7, {4}),  # never all
        ([1] * 9 + [6], 5, {5}),
        ([3, 3], 0, {0}),
    ],
)  # fmt: skip
def test_the_number_is_as_near_as_whole_prompts_allow(sizes, number, held_out):
    keys = [f"{prompt}" for prompt, size in enumerate(sizes) for _ in range(size)]
    for seed in range(8):
        train_part, there = split(keys, number, seed, "prompts")
        assert len(there) in held_out
        assert len(train_part) == len(keys) - len(there) > 0
        assert not {keys[index] for index in train_part} & {keys[index] for index in there}


def test_each_prompt_is_drawn_as_easily_as_any_other():
    keys = ["large"] * 3 + ["a", "b", "c"]
    drawn = [keys[split(keys, 3, seed, "prompts")[1][0]] == "large" for seed in range(400)]
    assert abs(np.mean(drawn) - 1 / 4) < 5 * np.sqrt(3 / 16 / 400)  # the large one comes first, or does not fit


def test_pairs_of_one_prompt_cannot_be_held_out_as_whole_prompts():
    with pytest.raises(ValueError, match=r"two prompts or more .* got 6 pairs of one; hold out pairs \(hold_out\)"):
        split(["one"] * 6, 2, 0, "prompts")
    with pytest.raises(ValueError, match="hold_out must be one of prompts, pairs; got 'prompt'"):
        split(["one", "two"], 1, 0, "prompt")


def test_repeated_prompts_in_words():
    assert repeats(["a", "b"]) == "2 prompts, none repeated"
    assert repeats(["a", "b", "a", "c", "a", "b"]) == (
        "3 prompts, 2 repeated, with 5 of the 6 pairs (at most 3 pairs of one prompt)"
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hold-out")
    write_inputs(folder)
    (folder / "pairs.jsonl").write_text(json_lines(ten_prompts()), encoding="utf-8")
    return folder


def prepared(inputs, **changed):
    return prepare(tiny_settings(inputs, inputs, **changed).flat(), task_tokenizer())


def test_a_validation_file_is_counted_against_the_training(inputs):
    pairs = ten_prompts()
    (inputs / "some.jsonl").write_text(json_lines(pairs[15:45]), encoding="utf-8")
    (inputs / "more.jsonl").write_text(json_lines([*pairs[:15], *pairs[20:30]]), encoding="utf-8")
    found = prepared(inputs, data=str(inputs / "some.jsonl"), validation=str(inputs / "more.jsonl"))
    assert found.overlap == Overlap(pairs=25, prompts=2, shared_pairs=10, shared_prompts=1)


def test_the_way_to_hold_out_decides_the_data(inputs):
    prompts, pairs = (prepared(inputs, held_out=30, hold_out=by) for by in ("prompts", "pairs"))
    assert prompts.fingerprint != pairs.fingerprint
    assert not prompts.overlap.shared_pairs


def settings_by(inputs, out, by):
    return tiny_settings(inputs, out, hold_out=by, held_out=20, steps=1, validate_every=0, sides_every=0)


def test_a_run_says_what_is_held_out_and_goes_on_only_with_that(inputs, tmp_path, capsys):
    train(settings_by(inputs, tmp_path / "prompts", "prompts"))
    said = capsys.readouterr().out
    assert "held_out is 20, and whole prompts are held out; --hold-out pairs draws single pairs" in said
    assert "trained on too" not in said
    train(settings_by(inputs, tmp_path, "pairs"))
    said = capsys.readouterr().out
    assert (
        "held-out prompts, with 20 of 20 pairs, are trained on too: on those, accuracy shows what is remembered" in said
    )
    with pytest.raises(
        ValueError, match=r"or split otherwise \(hold_out: pairs there, prompts here\); name another out"
    ):
        train(settings_by(inputs, tmp_path, "prompts"))

    logs = {by: read_log(tmp_path / part / "dpo/log.jsonl") for by, part in (("prompts", "prompts"), ("pairs", ""))}
    for by, log in logs.items():
        settings = log.attrs["settings"]
        assert settings["hold_out"] == by
        assert settings["validation_pairs"] == {"prompts": 15, "pairs": 20}[by]
        assert settings["validation_pairs_seen"] == {"prompts": 0, "pairs": 20}[by]
        warned = {finding.sign: finding for finding in examine_log(log)}.get("seen-prompts")
        assert (warned is None) == (by == "prompts")
        if warned:
            assert warned.severity == "warning"
            assert "share 100% of their prompts with training" in warned.what


def test_the_table_of_an_evaluation_says_what_is_remembered():
    row = {"run": "dpo", "out": "here", "pairs": 40, "prompts": 9, "samples": 1, "shorter_accuracy": 0.5}
    for seen, said in ((10, True), (0, False), (None, False)):
        counted = {} if seen is None else {"pairs_seen": seen}
        text = " ".join(notes(pd.DataFrame([row | counted])))
        assert ("Of these pairs 25% have prompts that were trained on too" in text) == said


def test_the_doctor_counts_shared_prompts_only_where_the_log_does():
    log = pd.DataFrame({"step": range(1, 60), "loss": 0.5})
    counted = {"validation_pairs": 200, "validation_prompts": 20, "validation_prompts_seen": 1}

    def found(**settings):
        log.attrs = {"settings": settings, "notes": []}
        return [finding for finding in examine_log(log) if finding.sign == "seen-prompts"]

    assert not found(**counted, validation_pairs_seen=10)
    (warned,) = found(**counted | {"validation_prompts_seen": 9}, validation_pairs_seen=100)
    assert "share 45% of their prompts with training (9 of 20, with 100 of 200 pairs)" in warned.what
    assert "do not say" in found(validation_pairs=200)[0].what
    assert found(validation_pairs=0, validation_prompts=0)[0].what == "no pairs are held out"


@pytest.mark.slow
def test_accuracy_on_remembered_prompts_means_nothing(inputs, tmp_path):
    """Equal trainings, two ways to hold out: only the answers' order per prompt is learnt, by heart."""
    found = {}
    for by in ("pairs", "prompts"):
        train(tiny_settings(
            inputs, tmp_path / by, hold_out=by, held_out=30, steps=120, batch=30, micro=30, learning_rate=2e-2,
            validate_every=120, sides_every=0, save_every=0,
        ))  # fmt: skip
        found[by] = read_log(tmp_path / by / "dpo/log.jsonl")["validation_accuracy"].dropna().iloc[-1]
    assert found["pairs"] > 0.7
    assert found["prompts"] < 0.65
