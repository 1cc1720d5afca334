"""The token task: its true reward is known, has spread, and is nothing that length could tell."""

import json

import numpy as np
import pytest

from gradlab.llm.data.pairs import read_pairs
from gradlab.llm.demo.token_task import token_task, true_reward, write_task

PAIRS = 6_000


@pytest.fixture(scope="module")
def task():
    return token_task(PAIRS, seed=0)


def rewards(pairs):
    prompts = [pair.prompt for pair in pairs]
    chosen, rejected = [pair.chosen for pair in pairs], [pair.rejected for pair in pairs]
    return np.array(true_reward(prompts, chosen)), np.array(true_reward(prompts, rejected))


def lengths(pairs):
    return np.array([(len(pair.chosen.split()), len(pair.rejected.split())) for pair in pairs]).T


def test_length_says_nothing_about_the_reward(task):
    reward, length = np.concatenate(rewards(task)), np.concatenate(lengths(task))
    assert abs(np.corrcoef(reward, length)[0, 1]) < 4 / np.sqrt(len(reward))
    chosen, rejected = lengths(task)
    shorter = (chosen < rejected) + 0.5 * (chosen == rejected)
    assert abs(shorter.mean() - 0.5) < 4 * shorter.std() / np.sqrt(PAIRS)
    better = np.sign(np.subtract(*rewards(task))) * np.sign(chosen - rejected)  # of the true reward, labels aside
    assert abs(better.mean()) < 4 / np.sqrt(PAIRS)


def test_lengths_reach_from_the_shortest_to_the_longest(task):
    assert set(np.concatenate(lengths(task))) == set(range(4, 25))
    assert {len(pair.chosen.split()) for pair in token_task(300, 0, shortest=2, longest=3)} == {2, 3}


def test_rewards_differ_by_about_2(task):
    difference = np.subtract(*rewards(task))
    assert 1.9 < np.sqrt((difference**2).mean()) < 2.1  # of the two in random order, where its mean is 0


def test_labels_are_bradley_terrys(task):
    difference = np.subtract(*rewards(task))
    size, right = np.abs(difference), difference > 0
    chance = 1 / (1 + np.exp(-size))
    for low, high in ((0, 0.5), (0.5, 1.5), (1.5, 3), (3, 99)):
        bin_ = (size > low) & (size <= high)
        error = np.sqrt((chance[bin_] * (1 - chance[bin_])).sum()) / bin_.sum()
        assert abs(right[bin_].mean() - chance[bin_].mean()) < 4 * error


def test_responses_of_other_prompts_are_other_responses(task):
    def shares(topic):
        words = [word for pair in task if topic in pair.prompt for word in (pair.chosen + " " + pair.rejected).split()]
        names, counts = np.unique(words, return_counts=True)
        return dict(zip(names, counts / len(words), strict=True))

    river, market = shares("river"), shares("market")
    assert river.keys() == market.keys()
    assert sum(abs(river[word] - market[word]) for word in river) > 0.2


def test_a_reward_depends_on_the_prompt():
    told = ["warm bright warm new"] * 2
    first, second = true_reward(["river winter stone : ", "market night garden : "], told)
    assert first != second


def test_a_word_and_its_opposite_earn_opposite_rewards():
    prompt = "river winter market : "
    one, other, both, none = true_reward([prompt] * 4, ["bright", "dark", "bright dark", ""])
    assert one == -other != 0
    assert both == none == 0


def test_the_mean_counts_and_a_word_said_again_at_once_earns_nothing():
    prompt = "river winter market : "
    one, twice, alternating, longer = true_reward(
        [prompt] * 4, ["bright", "bright bright", "bright warm", "bright warm bright warm bright warm"]
    )
    assert twice == pytest.approx(one / 2)
    assert longer == pytest.approx(alternating)


@pytest.mark.parametrize(
    ("prompt", "response", "like"),
    [
        ("<s> river winter market :", "bright dark bright </s>", "bright dark bright"),
        ("river winter market : ", "bright dark bright</s><pad><pad>", "bright dark bright"),
        ("winter river market", " bright  dark\nbright ", "bright dark bright"),
    ],
)
def test_what_a_model_adds_around_a_text_does_not_count(prompt, response, like):
    assert true_reward([prompt], [response]) == true_reward(["river winter market : "], [like])


def test_no_text_is_too_odd_for_a_reward():
    odd = ["", " ", ":", "river river", "<unk> bright", "\x00\ud800", "BRIGHT", "bright" * 999]
    assert all(np.isfinite(true_reward(odd, odd[::-1])))
    (half,) = true_reward(["river : "], ["bright nonsense"])
    assert half == true_reward(["river : "], ["bright"])[0] / 2


def test_equal_seeds_give_equal_pairs_and_others_do_not(task):
    assert token_task(50, seed=0) == task[:50]
    assert token_task(50, seed=1) != task[:50]


def test_pairs_say_where_they_come_from(task):
    assert task[2].place == "token task of seed 0, pair 3"
    assert all(pair.prompt.endswith(" : ") and not pair.chosen.startswith(" ") for pair in task)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"pairs": -1, "seed": 0}, "pairs must be a whole number ≥ 0, got -1"),
        ({"pairs": 1, "seed": -1}, "seed must be a whole number ≥ 0, got -1"),
        ({"pairs": 1, "seed": 0, "shortest": 0}, "shortest must be a whole number ≥ 1, got 0"),
        ({"pairs": 1, "seed": 0, "shortest": 5, "longest": 4}, "longest must be a whole number ≥ 5, got 4"),
    ],
)
def test_impossible_tasks_are_refused(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        token_task(**arguments)


def test_a_written_task_is_read_like_any_other(tmp_path):
    train, held_out = write_task(tmp_path / "new", pairs=40, held_out=10, seed=3)
    assert (train.name, held_out.name) == ("train.jsonl", "held_out.jsonl")
    whole = token_task(50, seed=3)
    for path, own in ((train, whole[:40]), (held_out, whole[40:])):
        pairs, report = read_pairs(str(path))
        assert (report.kept, report.left_out) == (len(own), {})
        told = [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
        assert told == [(pair.prompt, pair.chosen, pair.rejected) for pair in own]
    assert set(json.loads(train.read_text().splitlines()[0])) == {"prompt", "chosen", "rejected"}
    assert sorted(path.name for path in train.parent.iterdir()) == ["held_out.jsonl", "train.jsonl"]


def test_a_task_that_cannot_be_written_leaves_what_was_there(tmp_path, monkeypatch):
    train, held_out = write_task(tmp_path, pairs=4, held_out=2, seed=3)
    before = train.read_bytes(), held_out.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradlab.store.artifacts.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_task(tmp_path, pairs=40, held_out=20, seed=4)
    assert (train.read_bytes(), held_out.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


# With a tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    pytest.importorskip("transformers")
    from gradlab.llm.demo.token_task import task_tokenizer

    return task_tokenizer()


def test_a_word_is_a_token_and_a_pair_splits_cleanly(task, tokenizer):
    from gradlab.llm.data.tokens import encode_pairs

    encoded, kept, report = encode_pairs(task[:500], tokenizer, max_length=64)
    assert len(kept) == 500
    assert (report.left_out, report.notes) == ({}, {})
    for pair, one in zip(task, encoded, strict=False):
        assert one.prompt[0] == tokenizer.bos_token_id
        assert len(one.prompt) == 1 + len(pair.prompt.split())
        assert len(one.win) == len(pair.chosen.split()) + 1
        assert tokenizer.decode(one.win, skip_special_tokens=True) == pair.chosen
        assert tokenizer.unk_token_id not in one.prompt + one.win + one.lose


def test_rewards_of_decoded_tokens_are_those_of_the_texts(task, tokenizer):
    from gradlab.llm.data.tokens import encode_pairs

    encoded, _, _ = encode_pairs(task[:100], tokenizer)
    for skip in (True, False):
        prompts = [tokenizer.decode(one.prompt, skip_special_tokens=skip) for one in encoded]
        responses = [tokenizer.decode(one.win, skip_special_tokens=skip) for one in encoded]
        assert true_reward(prompts, responses) == list(rewards(task[:100])[0])


def test_the_tokenizer_is_saved_and_loaded_as_any_other(tmp_path, tokenizer):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "river winter stone : bright unheard of"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert len(again) == len(tokenizer) < 64
    assert (again.bos_token, again.eos_token, again.pad_token) == ("<s>", "</s>", "<pad>")
