"""PPO on language models: what it maximises, that it does, and that equal seeds give equal bits."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from tiny_llm import settings as settings_from
from tiny_llm import torchrun

from gradlab import cli
from gradlab.doctor.training_log import SAMPLES, read_log
from gradlab.llm.data.batches import Layout, collate
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import Group
from gradlab.llm.model.loading import load_model, save_folder, small_llama, train_bpe, with_lora
from gradlab.llm.model.rewards import CheckedReward
from gradlab.llm.train import stages
from gradlab.llm.train.loop import NotFinite, run_steps
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel
from gradlab.llm.train.ppo_rewards import advantages
from gradlab.llm.train.ppo_samples import Scorer, micro_of, together
from gradlab.llm.train.ppo_task import PPOTask, frozen_reference
from gradlab.losses import DPO

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21 asks for it
END, PAD, TOKENS = 1, 2, 12
PROMPTS = [(0, 5, 7), (0, 9), (0, 4, 4, 4), (0, 3), (0, 8, 10)]
PAIRS = [Encoded((0, 5, 7), (4, 4, 1), (6, 1)), Encoded((0, 9), (3, 1), (4, 5, 6, 7, 1))]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


class Letters:
    """A tokenizer whose token i is the i-th letter."""

    eos_token_id, pad_token_id = END, PAD

    def __len__(self):
        return TOKENS

    def decode(self, ids, **_):
        return "".join(chr(ord("a") + one) for one in ids if one not in (0, END, PAD))


def share_of_e(prompts, responses):
    return [text.count("e") / max(len(text), 1) for text in responses]


def model_of(seed=0):
    """A small Llama that is not far from uniform."""
    model = small_llama(TOKENS, width=16, layers=1, heads=2, longest=64, seed=seed)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(3.0)
    return model


def made(
    reward=share_of_e, group=None, model=None, reference=None, prompts=PROMPTS, rate=0.01, steps=1000, judge=None,
    **options,
):  # fmt: skip
    """A policy and its task; the reference is the model at its start where none is given."""
    given = {
        "model": "start", "data": "none", "out": ".", "loss": ("ppo",), "reward": "none", "beta": 0.05, "batch": 4,
        "micro": 4, "samples": 4, "sample_length": 6, "precision": "fp32", "schedule": "constant", "warmup": 0.0,
        "max_norm": 100.0, "sides_every": 0, **options,
    }  # fmt: skip
    settings = settings_from(**given)
    group = group or Group()
    policy = PolicyModel(model or model_of(), group, settings, rate=rate, steps=steps, pad=PAD)
    scored = reference or frozen_reference("start", "other", policy, lambda _: model_of())
    pairs = PairTask(DPO(settings.of("beta")), (), torch.zeros(0, 2), PAIRS, torch.full((2, 2), -5.0))
    scorers = [one and Scorer(CheckedReward(one, "mine"), list(map(str, prompts))) for one in (reward, judge)]
    return policy, PPOTask(prompts, scorers[0], scored, Letters(), pairs, scorers[1])


def run(policy, task, steps, first=1):
    """The rows of some steps."""
    rows = []
    for step in range(first, first + steps):
        rows.append(task.gradient(policy, step))
        policy.step(step, rows[-1]["grad_norm"])
    return rows


def weights(policy):
    return torch.cat([one.detach().flatten() for one in policy.parameters])


# What it maximises


def test_the_gradient_is_that_of_reward_less_kl_in_expectation():
    """Responses of one token, which can be summed over: the mean over samples meets the exact gradient."""
    reward = torch.linspace(-1, 1, TOKENS, dtype=torch.float64)
    by_letter = {chr(ord("a") + one): float(reward[one]) for one in range(TOKENS)} | {"": 0.0}
    reward[[0, END, PAD]] = 0.0
    n, beta, prompt = 2000, 0.7, [(0, 5, 7)]
    policy, task = made(
        lambda _, texts: [by_letter[text] for text in texts], prompts=prompt, model=model_of(1), beta=beta, batch=1,
        micro=500, samples=n, sample_length=1,
    )  # fmt: skip
    total = [torch.zeros_like(one) for one in policy.parameters]
    for step in range(1, 5):
        task.gradient(policy, step)
        total = [a + b for a, b in zip(total, policy.gradient(), strict=True)]
        policy.clear()
    ids = torch.tensor(prompt)
    logp = policy.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    ref_logp = model_of()(input_ids=ids).logits[0, -1].log_softmax(-1).detach()
    (-(logp.exp() * (reward - beta * (logp - ref_logp))).sum()).backward()
    sampled, exact = (torch.cat([one.flatten() for one in part]) for part in (total, policy.gradient()))
    sampled = sampled / 4 / (1 - 1 / n)
    assert float((sampled - exact).norm() / exact.norm()) < 0.1  # of 8,000 samples
    assert float(exact.norm()) > 0.1


def test_the_step_is_the_policy_gradient_of_centred_penalised_rewards():
    policy, task = made(model=model_of(1), beta=0.3, micro=1)
    row = task.gradient(policy, 1)
    batch = task.batch
    inputs = collate(batch.rows, PAD)
    logp, ref_logp = policy.model(**inputs), task.reference(**inputs)
    reward = torch.tensor(share_of_e(None, [Letters().decode(response) for _, response in batch.rows]))
    penalised = reward - 0.3 * (logp - ref_logp).detach()
    advantage = (penalised.view(4, 4) - penalised.view(4, 4).mean(1, keepdim=True)).flatten()
    found = policy.gradient()
    policy.clear()
    (-(advantage * logp).mean()).backward()
    for one, other in zip(found, policy.gradient(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert row["loss"] == pytest.approx(-float(penalised.mean()), abs=1e-6)
    assert row["reward"] == pytest.approx(float(reward.mean()), abs=1e-6)
    assert row["kl"] == pytest.approx(float((logp - ref_logp).detach().mean()), abs=1e-5)
    assert row["response_length"] == np.mean([len(response) for _, response in batch.rows])
    assert row["finished"] == np.mean([response[-1] == END for _, response in batch.rows])


def test_advantages_are_centred_in_each_group():
    penalised = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = advantages(penalised, 6)
    assert found.view(4, 6).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(
        found.view(4, 6) - penalised.view(4, 6), (found - penalised).view(4, 6)[:, :1].expand(4, 6)
    )


def test_both_sides_add_up_to_the_gradient():
    policy, task = made(model=model_of(1), sides_every=2)
    first, second, third = run(policy, task, 3)
    assert first["grad_split_error"] < 1e-5
    for row in (first, third):
        sum_of_squares = row["grad_norm_win"] ** 2 + row["grad_norm_lose"] ** 2
        both = sum_of_squares + 2 * row["grad_cosine"] * row["grad_norm_win"] * row["grad_norm_lose"]
        assert math.sqrt(both) == pytest.approx(row["grad_norm"], rel=1e-4)
        assert min(row["grad_norm_win"], row["grad_norm_lose"]) > 0
    assert "grad_norm_win" not in second


def test_a_step_moves_the_better_samples_up_and_the_others_down():
    policy, task = made(model=model_of(1), sides_every=2, rate=1e-3)
    row = task.gradient(policy, 1)
    before = task.batch.logp
    policy.step(1, row["grad_norm"])
    moved = task.realised(policy, 1, row)
    with torch.no_grad():
        after = policy.model(**collate(task.batch.rows, PAD)).double()
    above, below = task.batch.sides
    assert moved["delta_win"] == pytest.approx(float((after - before)[above].mean()), abs=1e-5)
    assert moved["delta_lose"] == pytest.approx(float((after - before)[below].mean()), abs=1e-5)
    assert moved["delta_win"] > moved["delta_lose"]
    assert task.realised(policy, 2, task.gradient(policy, 2)) == {}


def test_looking_at_the_sides_changes_no_bit():
    one, other = (made(sides_every=every) for every in (0, 1))
    run(*one, 3)
    run(*other, 3)
    assert torch.equal(weights(one[0]), weights(other[0]))


# That it does


def test_a_simple_reward_grows_far_beyond_noise():
    policy, task = made()
    rewards = [row["reward"] for row in run(policy, task, 40)]
    first, last = np.array(rewards[:8]), np.array(rewards[-8:])
    noise = math.sqrt(first.var(ddof=1) / 8 + last.var(ddof=1) / 8)
    assert last.mean() - first.mean() > max(5 * noise, 0.3)


@pytest.mark.slow
def test_a_large_penalty_keeps_the_model_at_its_reference():
    kl = {}
    for beta in (0.01, 30.0):
        policy, task = made(beta=beta, rate=0.003)
        kl[beta] = np.mean([row["kl"] for row in run(policy, task, 45)[-12:]])
    assert abs(kl[30.0]) < 0.1
    assert kl[0.01] > 0.7


def test_it_comes_to_the_closed_form_of_the_optimum():
    """π_ref exp(r/β), of responses of one token."""
    reward, beta = torch.zeros(TOKENS), 0.5
    reward[4] = 1.0
    policy, task = made(
        lambda _, texts: [float(text == "e") for text in texts], prompts=[(0, 5)], beta=beta, batch=1, samples=64,
        micro=32, sample_length=1, rate=0.01,
    )  # fmt: skip

    def logp_of(model):
        with torch.no_grad():
            return model(input_ids=torch.tensor([(0, 5)])).logits[0, -1].log_softmax(-1)

    ref_logp = logp_of(policy.model)
    ideal = (ref_logp + reward / beta).log_softmax(-1)
    run(policy, task, 60)
    found = logp_of(policy.model)
    start, end = (float((ideal.exp() * (ideal - logp)).sum()) for logp in (ref_logp, found))
    assert start > 0.1
    assert end < start / 20


def test_more_passes_stay_in_the_clip_and_learn_too():
    policy, task = made(ppo_epochs=3, rate=0.02, save_every=0)
    rows = run(policy, task, 45)
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert len(rewards) == 15  # a batch of samples serves three steps
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.2
    assert all(row["clip_share"] == 0 for row in rows[::3])  # π is still π_old
    assert any(row["clip_share"] > 0 for row in rows[2::3])
    assert rows[1]["loss"] < rows[0]["loss"]  # on the same samples


# Equal bits


def test_equal_seeds_give_equal_bits_whatever_the_global_generator_holds():
    found = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)
        policy, task = made(seed=seed, sides_every=2)
        found.append((run(policy, task, 3), weights(policy)))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    assert found[0][0] != found[2][0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_at_its_start_the_model_is_its_reference_to_the_bit(precision):
    policy, task = made(precision=precision, micro=2)
    row = task.gradient(policy, 1)
    assert row["kl"] == 0
    assert row["loss"] == pytest.approx(-row["reward"], rel=1e-12)
    policy.step(1, row["grad_norm"])
    assert task.gradient(policy, 2)["kl"] != 0


def test_an_adapter_is_turned_off_for_its_own_base(monkeypatch):
    def adapted():
        torch.manual_seed(0)
        return with_lora(model_of(), 4, 8.0, ["all-linear"])

    policy = made(model=adapted(), lora_rank=4)[0]
    shared = frozen_reference("start", "start", policy, pytest.fail)  # nothing is loaded
    policy, task = made(model=adapted(), lora_rank=4, reference=None, rate=0.05)
    task.reference = frozen_reference("start", "start", policy, pytest.fail)
    rows = run(policy, task, 3)
    assert rows[0]["kl"] == 0
    assert rows[2]["kl"] != 0
    inputs = collate([((0, 5), (3, 4, END))], PAD)
    with torch.no_grad():
        torch.testing.assert_close(task.reference(**inputs), shared(**inputs), rtol=0, atol=0)
        assert not torch.equal(task.reference(**inputs), policy.model(**inputs))  # the adapter is on again
    assert all(one.requires_grad for one in policy.parameters)
    other = frozen_reference("elsewhere", "start", policy, lambda _: adapted())
    with torch.no_grad():
        torch.testing.assert_close(other(**inputs), shared(**inputs))


def test_means_of_log_probabilities_change_nothing_but_rounding():
    one, other = (made(reduction=reduction, model=model_of(1), sides_every=1) for reduction in ("sum", "mean"))
    for first, second in zip(run(*one, 2), run(*other, 2), strict=True):
        assert first == pytest.approx(second, rel=1e-3, abs=1e-4)
    torch.testing.assert_close(weights(one[0]), weights(other[0]), rtol=1e-3, atol=1e-4)


# A prompt is read once for several of its samples


@pytest.mark.parametrize("options", [{}, {"ppo_level": "token", "ppo_kl": "k3"}, {"reduction": "mean"}])
def test_samples_that_share_their_prompt_give_the_step_of_samples_apart(options):
    one, other = (made(model=model_of(1), sides_every=1, **options) for _ in range(2))
    other[0].layout = dataclasses.replace(other[0].layout, once=False)
    for shared, apart in zip(run(*one, 2), run(*other, 2), strict=True):
        assert shared == pytest.approx(apart, rel=1e-3, abs=1e-4)
    torch.testing.assert_close(weights(one[0]), weights(other[0]), rtol=1e-3, atol=1e-4)
    assert {len(group) for group in one[1].batch.groups} == {1 + 4}
    assert one[1].batch.rows == other[1].batch.groups == other[1].batch.rows
    assert one[0].tokens < other[0].tokens


@pytest.mark.parametrize(
    ("samples", "micro", "budget", "each"),
    [(4, 4, None, 4), (4, 1, None, 2), (6, 2, None, 3), (5, 2, None, 1), (4, 4, 12, 4), (4, 4, 11, 2), (4, 4, 5, 1)],
)
def test_as_many_samples_share_a_row_as_a_micro_batch_has_room_for(samples, micro, budget, each):
    rows = [(prompt, (4, END)) for prompt in PROMPTS[:4] for _ in range(samples)]  # prompts of four tokens at most
    policy, _ = made(micro=micro, samples=samples, tokens_per_micro=budget)
    groups = together(policy, rows, samples, [policy.layout])
    assert {len(group) for group in groups} == {1 + each}
    assert [(prompt, response) for prompt, *responses in groups for response in responses] == rows
    assert micro_of(policy, groups) == max(2 * micro // each, 1)
    assert together(policy, rows, samples, [policy.layout, Layout()]) == rows


def test_a_reference_is_scored_in_its_own_layout():
    whole = frozen_reference("other", "start", made()[0], lambda _: model_of(2))

    class Apart:
        layout = Layout()

        def __call__(self, **batch):
            assert "segments" not in batch
            return whole(**batch)

    rows = [run(*made(reference=reference), 1)[0] for reference in (whole, Apart())]
    assert rows[0] == pytest.approx(rows[1], rel=1e-3, abs=1e-4)
    assert rows[0]["kl"] != 0


# Rewards that fail


def nan(prompts, responses):
    return [math.nan] * len(responses)


def too_few(prompts, responses):
    return [1.0]


def words(prompts, responses):
    return ["good"] * len(responses)


def raising(prompts, responses):
    raise KeyError("no such\nanswer")


@pytest.mark.parametrize(
    ("reward", "line"),
    [
        (nan, "reward mine must give finite numbers, got nan for response 1 of 16"),
        (too_few, r"reward mine must give one number per response, got shape \(1,\) for 16"),
        (words, "reward mine must give one number per response, got .*good"),
        (raising, r"reward mine failed: KeyError: 'no such\\nanswer'"),
    ],
)
def test_a_reward_that_fails_is_named_in_one_line(reward, line):
    policy, task = made(reward)
    with pytest.raises(ValueError, match=line) as caught:
        task.gradient(policy, 1)
    assert "\n" not in str(caught.value)


def test_a_reward_that_fails_leaves_all_steps_before_it_saved(tmp_path, capsys):
    """The checkpoint is of the last whole batch, and from there on all bits are those of a run that did not fail."""

    def trained(folder, fails):
        calls = iter(range(100))

        def reward(prompts, texts):
            if next(calls) == fails:
                raise RuntimeError("no more")
            return share_of_e(prompts, texts)

        policy, task = made(reward, steps=6, ppo_epochs=2, save_every=200, validate_every=0)
        folder.mkdir(exist_ok=True)
        try:
            return run_steps(policy, task, folder, "key", {"loss": "ppo"}, "ppo"), weights(policy)
        except ValueError as error:
            return str(error), None

    whole = trained(tmp_path / "whole", None)
    assert trained(tmp_path / "stopped", 2)[0] == "reward mine failed: RuntimeError: no more"
    assert "step 4 is saved, and the same command goes on after it" in capsys.readouterr().err
    assert trained(tmp_path / "stopped", 0)[0] == "reward mine failed: RuntimeError: no more"
    assert "is saved" not in capsys.readouterr().err, "no step was made"
    summary, final = trained(tmp_path / "stopped", None)
    assert summary["resumed_at"] == 4
    assert torch.equal(final, whole[1])
    lines = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "stopped")]
    assert lines[0] == lines[1]
    trained(tmp_path / "first", 0)
    assert not (tmp_path / "first" / "checkpoints").exists()


def test_a_run_does_not_go_on_with_another_micro(source, tmp_path):
    """It decides which responses are drawn together, and so which are drawn."""
    few = {"steps": 1, "reference_steps": 0, "samples": 2, "sample_length": 2, "ppo_epochs": 1, "held_out": 2}
    (source / "ones.py").write_text("def reward(prompts, texts):\n    return [float(len(text)) for text in texts]\n")
    few["reward"] = f"{source / 'ones.py'}:reward"
    stages.train(settings_of(source, tmp_path, micro=2, **few))
    with pytest.raises(ValueError, match=r"other settings, data or model \(micro: 2 there, 1 here\)"):
        stages.train(settings_of(source, tmp_path, micro=1, **few))


def test_a_reference_that_is_not_finite_stops_the_step_with_its_batch():
    policy, task = made(reference=lambda **batch: torch.full((len(batch["lengths"]),), math.nan))
    with pytest.raises(NotFinite, match="step 1: r − β log π/π_ref is not finite") as caught:
        task.gradient(policy, 1)
    index = caught.value.batch["training_pairs"]
    told = json.loads(json.dumps(task.described(index)))
    assert [tuple(one["tokens"]) for one in told] == [PROMPTS[one] for one in index]
    assert [len(one["responses"]) for one in told] == [4] * 4


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"samples": 1}, "samples must be a whole number ≥ 2, got 1"),
        ({"ppo_epochs": 3, "save_every": 200}, r"log.save_every must be a multiple of ppo.epochs, 3, .* got 200"),
        ({"reward": None}, r"ppo.reward must name a reward model"),
    ],
)
def test_settings_that_ppo_cannot_have(wrong, line):
    given = {"model": "start", "data": "none", "out": ".", "loss": ("ppo",), "reward": "none"}
    with pytest.raises(ValueError, match=line):
        settings_from(**{**given, **wrong})
    assert settings_from(**given, ppo_epochs=3, save_every=201)
    assert settings_from(**{**given, "loss": ("dpo",), "reward": None}, ppo_epochs=3, save_every=200)


# A whole run

REWARD = """
from pathlib import Path

CALLS = [0]

def reward(prompts, responses):
    assert all(prompt.endswith("Assistant:") for prompt in prompts)
    CALLS[0] += 1
    if Path({stop!r}).exists() and CALLS[0] > {calls}:
        raise RuntimeError("no more")
    return [text.count("e") / max(len(text), 1) for text in responses]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model's folder and pairs."""
    folder = tmp_path_factory.mktemp("source")
    lines = [
        {
            "chosen": f"\n\nHuman: question {number}\n\nAssistant: answer {number % 7} is yes",
            "rejected": f"\n\nHuman: question {number}\n\nAssistant: nothing to say of {number % 5}",
        }
        for number in range(24)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = train_bpe((line["chosen"] for line in lines), 300)
    save_folder(folder / "model", small_llama(300, width=16, layers=1, heads=2, longest=96, seed=0), tokenizer)
    return folder


def settings_of(source, out, **options):
    given = {
        "model": str(source / "model"), "data": str(source / "pairs.jsonl"), "out": out, "loss": ("ppo",), "beta": 0.1,
        "reward": f"{source / 'reward.py'}:reward", "reference_steps": 2, "steps": 8, "batch": 4, "micro": 2,
        "held_out": 6, "precision": "fp32", "samples": 3, "sample_length": 8, "ppo_epochs": 2, "save_every": 2,
        "sides_every": 3, "validate_every": 4, "samples_every": 3, "max_length": 64, "learning_rate": 1e-3,
    }  # fmt: skip
    return settings_from(**{**given, **options})


@pytest.mark.slow
def test_a_stopped_run_resumes_with_equal_bits(source, tmp_path, capfd):
    stop = tmp_path / "stop"
    (source / "reward.py").write_text(REWARD.format(stop=str(stop), calls=3))
    stages.train(settings_of(source, tmp_path / "whole"))
    stop.touch()
    with pytest.raises(ValueError, match=r"reward .*reward.py:reward failed: RuntimeError: no more"):
        stages.train(settings_of(source, tmp_path / "stopped"))
    assert (tmp_path / "stopped" / "ppo" / "checkpoints" / "step-00000006").is_dir()
    stop.unlink()
    stages.train(settings_of(source, tmp_path / "stopped"))
    whole, stopped = (tmp_path / name / "ppo" for name in ("whole", "stopped"))
    assert json.loads((stopped / "done.json").read_text())["resumed_at"] == 6
    lines = [(folder / "log.jsonl").read_text().splitlines()[1:] for folder in (whole, stopped)]
    assert lines[0] == lines[1]
    one, other = (load_model(folder / "model").state_dict() for folder in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)
    log = read_log(whole / "log.jsonl")
    for name in ("reward", "kl", "response_length", "finished", "grad_norm_lose", "delta_win", "validation_accuracy"):
        assert log[name].notna().sum() >= 2, name
    assert log["validation_logp_win"].iloc[0] != log["validation_logp_win"].iloc[-1]
    assert log["kl"].iloc[0] == 0
    assert log.attrs["notes"] == []
    for name, value in {"beta": 0.1, "ppo_kl": "k1", "ppo_baseline": "group-mean", "samples": 3}.items():
        assert log.attrs["settings"][name] == value
    assert log.attrs["settings"]["ppo_reward"].endswith("reward.py:reward")
    shown = [(folder / SAMPLES).read_text() for folder in (whole, stopped)]
    assert shown[0] == shown[1]
    records = [json.loads(line) for line in shown[0].splitlines()]
    assert [record["step"] for record in records] == [1] * 4 + [4] * 4 + [7] * 4
    assert {len(record["responses"]) for record in records} == {3}
    capfd.readouterr()
    status = cli.main(["doctor", str(whole / "log.jsonl")])
    said = capfd.readouterr().out
    never = not log["finished"].dropna().tail(3).any()  # the only problem that a log of these few steps may have
    assert status == (3 if never else 0)
    assert re.findall("^PROBLEM: (.*) \\(", said, re.MULTILINE) == ["sampled responses that do not end"] * never
    assert f"Samples of this training: {whole / SAMPLES}" in said


@pytest.mark.slow
def test_a_reward_that_was_edited_after_the_start_is_told(source, tmp_path, capsys):
    file, stop = source / "reward.py", tmp_path / "stop"
    said = f"the file of reward {file}:reward was edited after {tmp_path / 'out' / 'ppo'} began"
    stop.touch()
    file.write_text(REWARD.format(stop=str(stop), calls=3))
    run = settings_of(source, tmp_path / "out", reference_steps=0)
    with pytest.raises(ValueError, match="no more"):
        stages.train(run)
    kept = file.read_text()
    file.write_text(kept.replace('"e"', '"a"'))
    with pytest.raises(ValueError, match="no more"):  # after its first steps
        stages.train(settings_of(source, tmp_path / "new", reference_steps=0))
    assert "was edited" not in capsys.readouterr().err
    stop.unlink()
    for _ in range(2):  # resumed, and done before
        stages.train(run)
        assert said in capsys.readouterr().err
    file.write_text(kept)
    stages.train(run)
    assert "was edited" not in capsys.readouterr().err
    stages.train(settings_of(source, tmp_path / "out", reference_steps=0, ppo_judge=f"{file}:reward"))
    assert f"the judge was none when {tmp_path / 'out' / 'ppo'} began" in capsys.readouterr().err


def test_a_response_must_have_room(source, tmp_path):
    (source / "reward.py").write_text(REWARD.format(stop="none", calls=0))
    with pytest.raises(ValueError, match=r"a response's length must be at most .* 96 positions .* got 90"):
        stages.train(settings_of(source, tmp_path, sample_length=90, reference_steps=0))


# Several processes

SPREAD = """
import sys, json, torch
sys.path.insert(0, {here!r})
from test_llm_ppo import made, model_of, run
from gradlab.console import leave
from gradlab.llm.model.group import start_group
torch.set_num_threads(1)
with start_group("cpu") as group:
    for kind in ("ddp", "fsdp"):
        for options in ({{}}, {{"ppo_level": "token", "ppo_kl": "k3"}}):
            task = made(group=group, model=model_of(1), distribution=kind, sides_every=2, micro=2, **options)
            rows = run(*task, 3)
            if group.is_main:
                print(json.dumps(rows))
    def bad(prompts, responses):
        assert group.is_main, "not here"
        return [0.0] * len(responses)
    try:
        run(*made(bad, group=group), 1)
    except (ValueError, RuntimeError) as error:
        if group.is_main:
            print(json.dumps(str(error)))
    group.on_all(lambda: None)
leave(0)
"""


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    script = tmp_path / "spread.py"
    script.write_text(SPREAD.format(here=os.path.dirname(__file__)))
    stdout, _ = torchrun(script)
    *both, failed = [json.loads(line) for line in stdout.splitlines() if line]
    alone = [
        run(*made(model=model_of(1), sides_every=2, micro=2, **options), 3)
        for options in ({}, {"ppo_level": "token", "ppo_kl": "k3"})
    ]
    assert len(both) == 4
    for rows, single in zip(both, 2 * alone, strict=True):
        for row, own in zip(rows, single, strict=True):
            assert row == pytest.approx(own, rel=1e-4, abs=1e-5)
    assert failed == "process 1: reward mine failed: AssertionError: not here"
