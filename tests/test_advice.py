"""Advice: facts of pairs by hand, choices by evidence whose best answer is known, and the words beside them."""

import json
import math
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from gradlab import cli
from gradlab.advice import ModelFacts, advise, facts_of_pairs
from gradlab.advice.data_facts import REPEATS, Share, flip_rate
from gradlab.advice.lab_evidence import against_dpo, levels, nearest
from gradlab.advice.rules import words_of

CLAIMS = {"none-beats-dpo": "mixed", "smaller-beta": "holds on average"}
DISAGREEMENTS = {0.0: 0.2, 0.1: 0.28, 0.3: 0.42}


@dataclass
class Texts:
    chosen: str
    rejected: str
    prompt: str = "q"


def labelled(noise, questions=400, prompts=4, seed=0):
    """Pairs of which every question has two labels, each flipped with this probability."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(questions):
        for flipped in rng.random(2) < noise:
            sides = [f"good {number}", f"bad {number}"]
            made.append(Texts(*(sides[::-1] if flipped else sides), prompt=f"q{number % prompts}"))
    return made


def trained(cells, seeds=12, spread=0.005, **farther):
    """A frame of trainings: for each (loss, factor, level) its mean share of reachable reward; KL is 1, or as given."""
    rng = np.random.default_rng(1)
    world = rng.normal(0, 0.1, seeds)  # which all losses share
    rows = [
        {"loss": loss, "preset": "", "factor": factor, "level": level, "seed": seed,
         "utility_share": mean + world[seed] + rng.normal(0, spread), "kl_to_reference": farther.get(loss, 1.0)}
        for (loss, factor, level), mean in cells.items() for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def lab(**farther):
    """At little noise nothing beats DPO by the margin; at much noise "robust" does; with few pairs "ipo"."""
    cells = {}
    for factor, level, robust, ipo in (
        ("base", 1.0, 0.0, 0.015), ("noise", 0.1, 0.01, 0.0), ("noise", 0.3, 0.08, -0.05), ("pairs", 25.0, 0.0, 0.05),
        ("pairs", 400.0, 0.0, 0.0),
    ):  # fmt: skip
        cells |= {
            ("dpo", factor, level): 0.5,
            ("robust", factor, level): 0.5 + robust,
            ("ipo", factor, level): 0.5 + ipo,
        }
    return trained(cells, **farther)


def the(pieces, topic):
    (piece,) = (piece for piece in pieces if piece.topic == topic)
    return piece


def test_facts_by_hand():
    pairs = [
        Texts("a b c", "a b"), Texts("a b", "a b c"),  # the same question, twice, with two answers
        Texts("long enough", "x", prompt="other"), Texts("x", "x y z w v u", prompt="third"),
    ]  # fmt: skip
    facts = facts_of_pairs(pairs)
    assert (facts.pairs, facts.prompts, facts.repeated, facts.disagreement) == (4, 3, 1, None)
    assert facts.shorter[0] == 0.5
    assert facts.alike[0] == 0.0  # 2 of 3 words
    assert facts.length_spread == pytest.approx(np.std(np.log([5 / 3, 3 / 5, 11.0, 1 / 11])))
    assert facts.per_prompt == pytest.approx(4 / 3)
    with pytest.raises(ValueError, match="pairs must hold one pair or more"):
        facts_of_pairs([])


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 0.5])
def test_the_disagreement_of_two_labels_gives_back_the_share_of_flipped_ones(noise):
    share = facts_of_pairs(labelled(noise, questions=4000)).disagreement
    assert share is not None
    # 4,000 comparisons: the standard error of 2ε(1 − ε) is at most 0.008.
    assert share[0] == pytest.approx(2 * noise * (1 - noise), abs=0.03)
    assert flip_rate(2 * noise * (1 - noise)) == pytest.approx(noise)
    assert share[1] - 1e-12 <= share[0] <= share[2] + 1e-12


def test_too_few_second_labels_say_nothing_of_noise():
    facts = facts_of_pairs(labelled(0.3, questions=REPEATS - 1))
    assert facts.disagreement is None
    pieces = advise(facts, lab(), DISAGREEMENTS, CLAIMS)
    assert "too few to estimate" in the(pieces, "loss").why
    assert facts_of_pairs(labelled(0.3, questions=REPEATS)).disagreement is not None


def test_the_evidence_is_paired_by_seed_and_corrected_over_losses():
    rows = {row.loss: row for row in against_dpo(lab(), "noise", 0.3)}
    assert list(rows) == ["robust", "ipo"]
    assert rows["robust"].effect == pytest.approx(0.08, abs=0.005)  # of 12 seeds, each ± 0.007
    assert rows["robust"].high - rows["robust"].low < 0.02  # the worlds' own spread of 0.1 has gone
    assert rows["robust"].beyond
    assert not rows["ipo"].beyond
    assert not any(row.beyond for row in against_dpo(lab(), "base"))
    assert against_dpo(lab(), "noise", 0.7) == []
    assert levels(lab(), "pairs") == [25.0, 400.0]
    assert nearest(lab(), "pairs", 90.0, logarithmic=True) == 25.0
    assert nearest(lab(), "mask", 0.2) is None


def test_a_loss_that_only_goes_farther_from_the_reference_is_not_better():
    rows = {row.loss: row for row in against_dpo(lab(robust=1.5), "noise", 0.3)}
    assert rows["robust"].effect > 0.07
    assert not rows["robust"].beyond
    assert "at a KL of 1.50 nats (dpo 1.00)" in str(rows["robust"])
    facts = facts_of_pairs(labelled(0.41, questions=400, prompts=2))
    assert the(advise(facts, lab(robust=1.5), DISAGREEMENTS, CLAIMS), "loss").losses == ("dpo",)
    assert the(advise(facts, lab(robust=1.04), DISAGREEMENTS, CLAIMS), "loss").losses == ("robust",)


@pytest.mark.parametrize(
    ("noise", "per_prompt", "loss"), [(0.02, 200, "dpo"), (0.06, 200, "dpo"), (0.3, 200, "robust"), (0.02, 20, "ipo")]
)
def test_the_choice_is_the_loss_that_wins_at_the_nearest_setting(noise, per_prompt, loss):
    flips = 0.11 + noise  # the lab's base setting has labels that disagree in 20% of the comparisons
    pairs = labelled(flips, questions=4000, prompts=8000 // per_prompt)
    piece = the(advise(facts_of_pairs(pairs), lab(), DISAGREEMENTS, CLAIMS), "loss")
    assert piece.losses[0] == loss
    assert "none-beats-dpo*: mixed" in piece.evidence
    assert loss == "dpo" or f"{loss} − dpo = +" in piece.evidence


def test_noise_that_is_told_replaces_the_estimate():
    facts = facts_of_pairs(labelled(0.1, questions=400, prompts=1))
    pieces = advise(facts, lab(), DISAGREEMENTS, CLAIMS, noise=0.31)
    assert the(pieces, "loss").losses == ("robust",)
    assert "you say that 31%" in the(pieces, "loss").why
    assert the(pieces, "labels").losses == ("robust",)
    assert the(pieces, "labels").what == "Smooth the labels: robust with label_smoothing = 0.31."
    for noise in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="noise must"):
            advise(facts, lab(), DISAGREEMENTS, CLAIMS, noise=noise)


def test_labels_are_cleaned_only_where_smoothing_was_compared_at_equal_kl():
    facts = facts_of_pairs(labelled(0.1, questions=400, prompts=1))
    farther = advise(facts, lab(robust=1.5), DISAGREEMENTS, CLAIMS, noise=0.31)
    labels = the(farther, "labels")
    assert labels.what.startswith("Compare robust with DPO at equal KL")
    assert "not decided at equal KL" in labels.what
    assert labels.losses == ()
    assert "Beyond it at a larger KL, so not decided at equal KL: robust." in the(farther, "loss").evidence
    useless = lab()
    useless.loc[useless["loss"] == "robust", "utility_share"] -= 0.08
    pieces = advise(facts, useless, DISAGREEMENTS, CLAIMS, noise=0.31)
    assert the(pieces, "labels").what == "Clean the labels rather than smooth them."
    assert "not decided" not in the(pieces, "loss").evidence


def test_lengths_likeness_size_and_the_control_speak_only_when_they_are_seen():
    even = [Texts("one two", "six ten"), Texts("six ten", "one two")] * 1500
    assert {piece.topic for piece in advise(facts_of_pairs(even), lab(), DISAGREEMENTS, CLAIMS, noise=0.0)} == {
        "loss", "beta",
    }  # fmt: skip
    odd = [Texts("a b c d e f g h i", "a b c d e f g h i j")] * 30
    model = ModelFacts(imbalance=40.0, length_r2=0.95, preferred=0.5, displaced={"dpo": 0.4})
    pieces = advise(facts_of_pairs(odd), lab(), DISAGREEMENTS, CLAIMS, model=model, noise=0.0)
    assert {piece.topic for piece in pieces} == {"loss", "beta", "lengths", "displacement", "control", "size"}
    assert "prefer the shorter" in the(pieces, "lengths").what
    assert the(pieces, "lengths").losses == ("sigmoid-norm",)  # r-dpo favours shorter winners: the wrong way here
    longer = [Texts("a b c d e f g h i j", "a b c d e f g h i")] * 30
    assert "r-dpo" in the(advise(facts_of_pairs(longer), lab(), DISAGREEMENTS, CLAIMS, noise=0.0), "lengths").losses
    assert "length-dpo" in the(pieces, "control").losses
    assert "40%" in the(pieces, "displacement").why
    for piece in pieces:
        assert all((piece.what, piece.why, piece.evidence, piece.changes))
        assert json.loads(json.dumps(piece.record()))["topic"] == piece.topic


def test_without_evidence_no_loss_is_chosen():
    pieces = advise(facts_of_pairs(labelled(0.1)), lab().iloc[:0], DISAGREEMENTS, {})
    assert "loss" not in {piece.topic for piece in pieces}
    assert "not judged" in the(pieces, "beta").evidence


def test_words_are_those_of_the_claims_not_of_their_rows():
    rows = [{"claim": "a", "row": "claim", "word": "mixed"}, {"claim": "a", "row": "primary", "word": "reversed"}]
    assert words_of(rows) == {"a": "mixed"}


def test_a_share_shows_its_interval():
    assert str(Share.of(30, 100)) == "30.0% [21.9%, 39.6%]"


# With the committed evidence


def lab_texts(flipped, pairs, seed):
    """Preference pairs as texts, drawn from the atlas's world: every question has two labels."""
    from gradlab.experiments.questions.atlas_runs import SETTINGS, MislabelledWorld
    from gradlab.lab.world import gaussian_world

    world = gaussian_world(seed=seed, **SETTINGS["world"])
    world = MislabelledWorld(**vars(world), flipped=flipped) if flipped else world
    rng, wins = np.random.default_rng(seed), world.preference()
    made = []
    for prompt in range(world.prompts):
        first, second = world.comparable()[prompt].nonzero()
        for at in rng.integers(len(first), size=pairs):
            for wrong in rng.random(2) > wins[prompt, first[at], second[at]]:
                sides = [f"response {first[at]}", f"response {second[at]}"]
                made.append(
                    {"prompt": f"prompt {prompt}", "chosen": sides[int(wrong)], "rejected": sides[int(not wrong)]}
                )
    return made


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [0.0, 0.2, 0.3])
def test_on_pairs_from_the_lab_the_advised_loss_is_no_worse_than_dpo_on_fresh_seeds(flipped, tmp_path, capsys):
    from gradlab.advice.from_files import evidence
    from gradlab.experiments.questions.atlas_runs import SETTINGS, measured
    from gradlab.losses import named_loss
    from gradlab.store.shipped import shipped

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lab_texts(flipped, 100, seed=7)), "utf-8")
    assert cli.main(["advise", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    choice = next(piece for piece in told["advice"] if piece["topic"] == "loss")
    frame, _ = evidence(shipped("figures"))
    matched = frame[(frame["preset"] == "") & (frame["factor"] == "base")].groupby("loss")["beta"].first()
    shares = {}
    for name in {choice["losses"][0], "dpo"}:
        beta = {} if np.isnan(matched[name]) else {"beta": float(matched[name])}
        rows = measured(
            named_loss(name, **beta), {**SETTINGS["world"], "flipped": flipped}, SETTINGS["training"], 500, 6
        )
        shares[name] = rows[rows["step"] == rows["step"].max()]["utility_share"].mean()
    assert shares[choice["losses"][0]] >= shares["dpo"] - 0.02  # the margin below which a difference does not matter


def test_without_a_model_the_command_needs_no_transformers(tmp_path, capsys, monkeypatch):
    for name in ("transformers", "huggingface_hub", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lab_texts(0.0, 5, seed=1)), "utf-8")
    assert cli.main(["advise", str(path)]) == 0
    assert capsys.readouterr().out.startswith("LOSS: Train with")
    assert cli.main(["advise", str(path), "--model", "nothing"]) == 1
    assert "gradlab[llm]" in capsys.readouterr().err


def test_the_command_prints_and_refuses_in_one_line(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lab_texts(0.0, 5, seed=1)), "utf-8")
    assert cli.main(["advise", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("LOSS: Train with")
    assert "Would change it:" in out
    for arguments, line in (
        (["--noise", "0.7"], "noise must"), ([], "is empty"),
    ):  # fmt: skip
        if not arguments:
            path.write_text("", "utf-8")
        assert cli.main(["advise", str(path), *arguments]) == 2
        err = capsys.readouterr().err
        assert line in err
        assert err.count("\n") == 1
