"""Scores of the reference: of the pairs that steps use, saved on the way, gone on with after a stop."""

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file
from tiny_llm import tiny_model

from gradlab.llm.data.batches import batch_at, seen_by
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.logps import with_logps
from gradlab.llm.train import reference
from gradlab.llm.train.reference import reference_logps

NUMBER = 10


@pytest.fixture(scope="module")
def model():
    return with_logps(tiny_model())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(reference, "BLOCK", 3)
    monkeypatch.setattr(reference, "SAVE_EVERY", 0.0)


def pairs_of(number=NUMBER):
    """Pairs of which the later ones are longer."""
    return [Encoded((4, 5, 6), (7,) * (1 + index), (8,) * (2 + index)) for index in range(number)]


class Forward:
    """A model that counts the tokens of its responses, and is stopped before a call."""

    def __init__(self, model, stop_at=None):
        self.model, self.calls, self.tokens, self.stop_at = model, 0, 0, stop_at

    def __call__(self, **inputs):
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.calls += 1
        logps = self.model(**inputs)
        self.tokens += int(inputs["attention_mask"].sum())
        return logps


def scores(file, forward, used=None, **how):
    return reference_logps(file, "key", forward, pairs_of(), Group(), used=used, pad=2, micro=2, **how)


def sides(places):
    """The tokens of both sides of these pairs."""
    pairs = pairs_of()
    return sum(2 * len(pairs[i].prompt) + len(pairs[i].win) + len(pairs[i].lose) for i in places)


@pytest.mark.parametrize(("steps", "number", "batch"), [(1, 10, 4), (2, 10, 4), (3, 10, 4), (9, 10, 4), (1, 3, 8)])
def test_the_pairs_that_steps_see(steps, number, batch):
    seen = {place for step in range(steps) for place in batch_at(step, number, batch, seed=5)}
    assert seen_by(steps, number, batch, 5).tolist() == sorted(seen)


def test_only_the_pairs_that_are_needed_are_scored(model, tmp_path):
    file, used = tmp_path / "a.safetensors", np.array([1, 4, 7])
    forward = Forward(model)
    kept = scores(file, forward, used)
    assert kept.isnan().any(1).tolist() == [index not in used for index in range(NUMBER)]
    assert forward.tokens == sides(used)
    more = Forward(model)
    whole = scores(file, more, np.array([4, 8]))
    assert more.tokens == sides([8])
    assert torch.equal(whole[used], kept[used])
    assert torch.equal(load_file(file)["logps"].nan_to_num(), whole.nan_to_num())


def test_nothing_is_scored_and_no_file_is_made_where_no_pair_is_needed(tmp_path):
    assert scores(tmp_path / "a.safetensors", None, np.zeros(0, int)).isnan().all()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop_at", [1, 3, 6])
def test_a_stopped_scoring_goes_on_where_it_was_with_the_same_bits(model, tmp_path, stop_at):
    file = tmp_path / "a.safetensors"
    whole = Forward(model)
    expected = scores(tmp_path / "whole.safetensors", whole)
    first = Forward(model, stop_at)
    with pytest.raises(KeyboardInterrupt):
        scores(file, first)
    kept = [not row.isnan().any() for row in load_file(file)["logps"]] if file.exists() else []
    later = Forward(model)
    assert torch.equal(scores(file, later), expected)
    assert later.tokens == whole.tokens - sides([index for index, is_kept in enumerate(kept) if is_kept])


def test_the_number_of_processes_may_change_while_it_is_stopped(model, tmp_path, monkeypatch):
    file = tmp_path / "a.safetensors"
    with pytest.raises(KeyboardInterrupt):
        scores(file, Forward(model, 5))
    monkeypatch.setattr(reference, "BLOCK", 4)  # as more processes would have it
    expected = scores(tmp_path / "whole.safetensors", Forward(model))
    torch.testing.assert_close(scores(file, Forward(model)), expected, rtol=1e-6, atol=1e-6)


def test_what_is_not_due_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "SAVE_EVERY", 1e9)
    with pytest.raises(KeyboardInterrupt):
        scores(tmp_path / "a.safetensors", Forward(model, 6))
    assert not list(tmp_path.iterdir())
    scores(tmp_path / "a.safetensors", Forward(model))
    assert not load_file(tmp_path / "a.safetensors")["logps"].isnan().any()


def test_scores_that_are_not_finite_are_not_kept(tmp_path):
    def broken(**inputs):
        return torch.full((len(inputs["input_ids"]),), torch.nan)

    with pytest.raises(FloatingPointError, match="reference, train pairs: log π is not finite for 3 of 3 pairs"):
        scores(tmp_path / "a.safetensors", broken, title="reference, train pairs")
    assert not list(tmp_path.iterdir())


def test_it_says_what_is_needed_and_kept(model, tmp_path, capsys):
    file = tmp_path / "a.safetensors"
    scores(file, Forward(model), np.array([1, 4]), title="reference, train pairs")
    assert "reference, train pairs: 2 of 10 are needed\n" in capsys.readouterr().out
    scores(file, Forward(model), title="reference, train pairs")
    assert f"reference, train pairs: 10 of 10 are needed, of which 2 are kept in {file}\n" in capsys.readouterr().out
