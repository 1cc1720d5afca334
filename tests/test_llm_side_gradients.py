"""Gradients of both sides of a pair in a model's parameters, and which losses would displace the winner."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")

from gradlab import cli
from gradlab.llm.data.tokens import encode_pairs
from gradlab.llm.demo.token_task import task_tokenizer, token_task, write_task
from gradlab.llm.look.inspection import inspect_pairs
from gradlab.llm.look.side_gradients import COLUMNS, displaced
from gradlab.llm.model.loading import save_folder, small_llama
from gradlab.losses import DPO, BalancedDPO, FixedWeightDPO, PairLogps

PAIRS = 12


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tokenizer():
    return task_tokenizer()


@pytest.fixture(scope="module")
def pairs(tokenizer):
    return encode_pairs(token_task(PAIRS, 0), tokenizer)[0]


def model_of():
    return small_llama(len(task_tokenizer()), width=16, layers=1, heads=2, longest=64, seed=3)


def logp(model, pair, side):
    ids = torch.tensor([[*pair.prompt, *getattr(pair, side)]])
    by_token = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return by_token[len(pair.prompt) - 1 :].sum()


def gradient(model, pair, side):
    model.zero_grad()
    logp(model, pair, side).backward()
    return torch.cat([value.grad.flatten() for value in model.parameters()]).double()


def test_norms_and_cosine_are_those_of_plain_autograd(tokenizer, pairs):
    model = model_of()
    before = [value.requires_grad for value in model.parameters()]
    frame = inspect_pairs(model, tokenizer, pairs, gradients=PAIRS)
    assert [value.requires_grad for value in model.parameters()] == before
    assert all(value.grad is None for value in model.parameters())
    plain = model_of()
    for pair, row in zip(pairs, frame.itertuples(), strict=True):
        win, lose = gradient(plain, pair, "win"), gradient(plain, pair, "lose")
        # In float32 a sum of some thousand products; 1e-4 is far above that, far below any other gradient's norm.
        assert row.score_norm_win == pytest.approx(float(win.norm()), rel=1e-4)
        assert row.score_norm_lose == pytest.approx(float(lose.norm()), rel=1e-4)
        assert row.score_cosine == pytest.approx(float(win @ lose / win.norm() / lose.norm()), abs=1e-4)


@pytest.mark.parametrize("loss", [DPO(1.0), BalancedDPO(1.0), FixedWeightDPO(1.0, 0.15)])
def test_a_small_step_on_one_pair_lowers_the_winner_where_it_is_said(tokenizer, pairs, loss):
    frame = inspect_pairs(model_of(), tokenizer, pairs, gradients=PAIRS)
    said = displaced(frame, loss)
    checked = 0
    for pair, is_displaced in zip(pairs, said, strict=True):
        model = model_of().double()
        sides = [logp(model, pair, side) for side in ("win", "lose")]
        before = float(sides[0].detach())
        value = loss(PairLogps(*sides, *(side.detach() for side in sides)))
        gradients = torch.autograd.grad(value, list(model.parameters()))
        size = math.sqrt(sum(float(part.square().sum()) for part in gradients))
        with torch.no_grad():
            for parameter, part in zip(model.parameters(), gradients, strict=True):
                parameter -= 1e-5 / size * part
            change = float(logp(model, pair, "win")) - before
        if abs(change) > 1e-8:  # the second order is about the step's square
            assert (change < 0) == bool(is_displaced)
            checked += 1
    assert checked > PAIRS // 2


def test_only_some_pairs_have_gradients_and_only_slopes_of_the_usual_signs_are_judged(tokenizer, pairs):
    frame = inspect_pairs(model_of(), tokenizer, pairs, gradients=3)
    assert frame[COLUMNS[0]].notna().sum() == 3
    assert frame["displaced_dpo"].notna().sum() == 3
    assert frame.loc[[0, PAIRS - 1], COLUMNS[0]].notna().all()
    assert COLUMNS[0] not in inspect_pairs(model_of(), tokenizer, pairs)

    class Odd:
        def __call__(self, logps):
            return logps.win - logps.lose

    assert np.isnan(displaced(frame, Odd())).all()
    of_each = {"win": -3.0, "lose": -4.0, "win_len": 1, "lose_len": 1, "score_norm_win": 1.0, "score_norm_lose": 1.5}
    two = pd.DataFrame([{**of_each, "score_cosine": cosine} for cosine in (0.7, 0.6)])
    assert displaced(two, DPO(0.1)).tolist() == [1.0, 0.0]  # R = 2/3 against −C = 0.7 and 0.6


def test_the_command_shows_the_share_of_each_loss(tokenizer, tmp_path, capsys):
    save_folder(tmp_path / "model", model_of(), tokenizer)
    write_task(tmp_path, PAIRS, 1, seed=0)
    where = [str(tmp_path / "model"), str(tmp_path / "train.jsonl")]
    assert cli.main(["inspect", *where, "--gradients", "5"]) == 0
    out = capsys.readouterr().out
    assert "displaced: the share of pairs" in out
    assert "2604.18239) of 5 pairs" in " ".join(out.split())
    assert cli.main(["inspect", *where]) == 0
    assert "displaced" not in capsys.readouterr().out
    assert cli.main(["inspect", *where, "--gradients", "-1"]) != 0
    assert "gradients must be a whole number" in capsys.readouterr().err
