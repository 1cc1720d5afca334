"""A linear reward on a language model's hidden states, fitted by Bradley–Terry."""

import copy
import functools
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file
from scipy.optimize import minimize
from test_llm_rewards import TOKENIZER, preferences
from transformers import AutoTokenizer

from gradlab.doctor.training_log import read_log
from gradlab.llm.data.pairs import Pair
from gradlab.llm.model.loading import save_folder, small_llama
from gradlab.llm.model.reward_accuracy import held_out_accuracy
from gradlab.llm.model.rewards import load_reward
from gradlab.llm.train.reward_head import RIDGES, fit_reward_head, newton
from gradlab.llm.train.reward_training import train_reward


def asked(number, seed):
    """Preferences of "good" over "bad" after eight prompts in turn."""
    names = ["day", "night", "there", "hello", "day day", "night night", "there day", "hello day"]
    return [
        Pair(f"{names[place % 8]} ", pair.chosen, pair.rejected, pair.place)
        for place, pair in enumerate(preferences(number, seed))
    ]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A base, and the folder of a head that was fitted on it."""
    folder = tmp_path_factory.mktemp("head")
    save_folder(folder / "lm", small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0), TOKENIZER)
    made = fit_reward_head(folder / "lm", asked(64, 0), folder / "rm", held_out=asked(60, 1), max_length=32)
    return folder, made


def test_the_fit_is_the_minimum_that_another_method_finds():
    rng = np.random.default_rng(0)
    difference = rng.normal([0.5, 0.0, -0.2], size=(40, 3))
    for ridge in (1e-3, 0.1, 10.0):

        def loss(weights, ridge=ridge):
            return np.logaddexp(0, -difference @ weights).mean() + ridge / 2 * weights @ weights

        other = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14})
        assert newton(difference, ridge) == pytest.approx(other.x, abs=1e-6)


def test_pairs_that_a_direction_parts_have_a_finite_fit():
    weights = newton(np.array([[1.0], [2.0]]), 1e-3)
    assert np.isfinite(weights).all()
    assert weights[0] > 3


def test_prompts_that_follow_each_other_are_left_out_together(tmp_path):
    save_folder(tmp_path / "lm", small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0), TOKENIZER)
    subjects = [("day ", "day day ", "there", "hello"), ("night ", "night night ", "hello", "there")]
    pairs = [
        Pair(prompt, chosen, rejected, "here")
        for *prompts, chosen, rejected in subjects for prompt in prompts for _ in range(4)
    ]  # fmt: skip
    fit_reward_head(tmp_path / "lm", pairs, tmp_path / "rm", max_length=32, ridges=[0.01], folds=2)
    page = json.loads((tmp_path / "rm" / "done.json").read_text())
    assert page["validation_loss"] > np.log(2) + 0.1, "what one subject teaches is wrong of the other"


def last_state(model, ids):
    with torch.no_grad():
        return model.model(torch.tensor([ids])).last_hidden_state[0, -1]


ALL = functools.partial(train_reward, learning_rate=0.1)


@pytest.mark.parametrize("make", [fit_reward_head, ALL], ids=["head", "all"])
def test_a_reward_reads_the_end_token_also_where_the_tokenizer_pads_with_it(tmp_path, make):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = tokenizer.eos_token
    save_folder(tmp_path / "lm", small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0), tokenizer)
    made = make(tmp_path / "lm", asked(16, 0), tmp_path / "rm", max_length=32)
    reward = load_reward(made)
    scorer = reward.function
    texts = ["day good", "night night bad bad"]
    weight = scorer.model.score.weight[0].detach()
    ends = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    wanted = [float(weight @ last_state(scorer.model, ids)) for ids in ends]
    assert reward(["", ""], texts) == pytest.approx(wanted, abs=1e-5)
    assert weight.abs().max() > 0
    theirs = AutoTokenizer.from_pretrained(made)
    assert theirs.pad_token_id == scorer.model.config.pad_token_id != theirs.eos_token_id, "transformers reads it, too"


def test_a_classifier_is_read_as_it_was_trained_where_its_tokenizer_names_no_padding(fitted, tmp_path):
    _, made = fitted
    shutil.copytree(made, tmp_path / "rm")
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "rm")
    both = [load_reward(folder) for folder in (made, str(tmp_path / "rm"))]
    texts = ["day good", "night night bad bad"]
    assert both[1](["", ""], texts) == pytest.approx(both[0](["", ""], texts), abs=1e-6)


def test_a_tokenizer_with_one_special_token_alone_is_said_to_hide_the_end(tmp_path, capsys):
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.pad_token = tokenizer.bos_token = tokenizer.unk_token = tokenizer.eos_token
    save_folder(tmp_path / "lm", small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0), tokenizer)
    fit_reward_head(tmp_path / "lm", asked(16, 0), tmp_path / "rm", max_length=32)
    assert "so the reward is read at the token before it" in capsys.readouterr().out


def test_a_fit_that_does_not_converge_is_an_error_of_numbers():
    words = r"^the head's fit did not converge within 100 steps at ridge 0.1$"
    with np.errstate(invalid="ignore"), pytest.raises(FloatingPointError, match=words):
        newton(np.full((2, 1), np.nan), 0.1)


def test_a_head_knows_what_is_preferred_and_all_else_stays(fitted):
    folder, made = fitted
    assert held_out_accuracy(made, asked(60, 1)).accuracy > 0.8
    page = json.loads((folder / "rm" / "done.json").read_text())
    assert page["held_out"]["accuracy"] == held_out_accuracy(made, asked(60, 1)).accuracy
    before, after = (load_file(folder / name / "model.safetensors") for name in ("lm", "rm/model"))
    shared = set(before) & set(after)
    assert len(shared) > 5
    assert all(torch.equal(before[name], after[name]) for name in shared)
    assert after["score.weight"].abs().sum() > 0


def test_the_ridge_with_the_least_loss_on_prompts_left_out_counts(fitted):
    folder, made = fitted
    log = read_log(folder / "rm" / "log.jsonl")
    page = json.loads((folder / "rm" / "done.json").read_text())
    best = log["validation_loss"].to_numpy().argmin()
    assert page["validation_loss"] == log["validation_loss"].iloc[best]
    assert page["ridge"] == RIDGES[best]
    assert (np.diff(log["loss"]) > 0).all(), "the stronger the ridge, the worse the fit"
    reward = load_reward(made)
    win, lose = (
        reward([pair.prompt for pair in asked(64, 0)], [getattr(pair, side) for pair in asked(64, 0)])
        for side in ("chosen", "rejected")
    )
    assert np.logaddexp(0, lose - win).mean() == pytest.approx(log["loss"].iloc[best], abs=1e-5)


def test_a_fit_is_not_repeated_and_equal_bits_come_of_equal_pairs(fitted, tmp_path, capsys):
    folder, made = fitted
    how = {"held_out": asked(60, 1), "max_length": 32}
    assert fit_reward_head(folder / "lm", asked(64, 0), folder / "rm", **how) == made
    assert "done before" in capsys.readouterr().out
    again = fit_reward_head(folder / "lm", asked(64, 0), tmp_path / "rm", **how)
    first, same = (load_file(f"{name}/model.safetensors")["score.weight"] for name in (made, again))
    assert torch.equal(first, same)
    with pytest.raises(ValueError, match="was trained with other settings, data or model"):
        fit_reward_head(folder / "lm", asked(64, 0), folder / "rm", **how, folds=3)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"ridges": ()}, "ridges must hold one number or more, got none"),
        ({"ridges": (0.0,)}, "ridges must be finite and > 0, got 0.0"),
        ({"folds": 1}, "folds must be a whole number ≥ 2, got 1"),
        ({"template": "chatt"}, "template must be one of plain, chat, beaver; got 'chatt'"),
        ({"batch": 0}, "batch must be a whole number ≥ 1, got 0"),
    ],
)
def test_wrong_settings_are_named(fitted, tmp_path, how, words):
    with pytest.raises(ValueError, match=words):
        fit_reward_head(fitted[0] / "lm", asked(8, 0), tmp_path / "x", **how)


def test_pairs_of_one_prompt_leave_nothing_out_and_are_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"^pairs must have two prompts or more, so that some can be left out, got 1$"):
        fit_reward_head(fitted[0] / "lm", preferences(8, 0), tmp_path / "x")
