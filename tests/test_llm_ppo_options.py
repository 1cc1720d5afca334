"""PPO's options on language models: baselines, normalisation, KL estimators, rewards that are shaped, a judge."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

pytest.importorskip("transformers")

from test_llm_ppo import END, PAD, PROMPTS, TOKENS, made, model_of, run, share_of_e, weights
from tiny_llm import settings as settings_from

from gradlab.doctor.training_log import SAMPLES, read_log
from gradlab.llm.data.batches import collate
from gradlab.llm.model import loading
from gradlab.llm.model.group import Group
from gradlab.llm.train import stages
from gradlab.llm.train.loop import NotFinite
from gradlab.llm.train.ppo_rewards import advantages, alike, shaped
from gradlab.llm.train.section_settings import LogSettings, PPOSettings
from gradlab.llm.train.stage_log import StageLog
from gradlab.losses import kl_estimate, ppo_clip

GIVEN = {"model": "start", "data": "none", "out": ".", "loss": ("ppo",), "reward": "none"}
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def drawn(number=24, seed=0):
    return torch.randn(number, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shape(reward, finished=None, tokens=None, **options):
    """The shaped rewards of responses that end after one token, unless it is said otherwise."""
    finished = torch.ones(len(reward), dtype=torch.bool) if finished is None else finished
    tokens = torch.ones(len(reward)) if tokens is None else tokens
    return shaped(reward, finished, tokens, PPOSettings(**options))


# Baselines


def test_leave_one_out_compares_a_response_with_the_others():
    reward = drawn()
    found = advantages(reward, 6, "leave-one-out").view(4, 6)
    for group, row in zip(reward.view(4, 6), found, strict=True):
        for n, advantage in enumerate(row):
            others = torch.cat([group[:n], group[n + 1 :]])
            torch.testing.assert_close(advantage, group[n] - others.mean(), **EXACT)


def test_leaving_one_out_lengthens_the_step_by_n_over_n_less_1_and_turns_nothing():
    gradients = []
    for baseline in ("group-mean", "leave-one-out"):
        policy, task = made(model=model_of(1), ppo_baseline=baseline)
        row = task.gradient(policy, 1)
        assert row["loss"] == pytest.approx(-float(task.batch.penalised.mean()), abs=1e-6)
        gradients.append(torch.cat([one.flatten() for one in policy.gradient()]))
    torch.testing.assert_close(gradients[1], gradients[0] * 4 / 3, rtol=1e-4, atol=1e-7)


# Rewards


def test_nothing_asked_for_leaves_the_rewards_as_they_are():
    reward = drawn()
    assert shape(reward) is reward


def test_rewards_are_clipped_then_penalised():
    reward = torch.tensor([-5.0, -1.0, 0.5, 9.0], dtype=torch.float64)
    finished, tokens = torch.tensor([True, False, True, False]), torch.tensor([3, 6, 2, 6])
    found = shape(reward, finished, tokens, clip_reward=2.0, unfinished_penalty=1.0, length_penalty=0.1)
    torch.testing.assert_close(found, torch.tensor([-2.3, -2.6, 0.3, 0.4], dtype=torch.float64), **EXACT)


def test_whitened_rewards_have_mean_0_and_deviation_1_over_the_batch():
    reward = 3 + 7 * drawn()
    found, deviation = shape(reward, whiten=True), float(reward.std(correction=0))
    assert float(found.mean()) == pytest.approx(0, abs=1e-12)
    assert float(found.std(correction=0)) == pytest.approx(deviation / (deviation + 1e-4), abs=1e-12)


@pytest.mark.parametrize("options", [{"normalize": True}, {"whiten": True}])
def test_rewards_that_differ_by_rounding_alone_teach_next_to_nothing(options):
    reward = torch.tensor([0.1 + 0.2, 0.3] * 6, dtype=torch.float64)
    assert len(set(reward.tolist())) == 2
    assert shape(reward, samples=4, **options).abs().max() < 1e-11


def test_normalised_advantages_are_grpo_s():
    """The formula of TRL's GRPOTrainer with scale_rewards='group'."""
    reward = drawn()
    groups = reward.view(-1, 4)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    found = advantages(shape(reward, normalize=True, samples=4), 4)
    torch.testing.assert_close(found.view(-1, 4), expected, **EXACT)


@pytest.mark.parametrize("options", [{"normalize": True}, {"whiten": True}])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1e8 + 0.1])
def test_equal_rewards_teach_exactly_nothing_whatever_their_mean_rounds_to(options, value):
    reward = torch.full((12,), value, dtype=torch.float64)
    assert shape(reward, samples=3, **options).tolist() == [0.0] * 12


def test_the_penalty_keeps_its_weight_where_rewards_are_normalised():
    """Rewards that are equal leave β log π/π_ref alone, which no deviation near 0 blows up."""
    policy, task = made(lambda _, texts: [0.1] * len(texts), model=model_of(1), beta=0.3, ppo_normalize=True)
    task.gradient(policy, 1)
    plain, same = made(lambda _, texts: [0.1] * len(texts), model=model_of(1), beta=0.3)
    same.gradient(plain, 1)
    torch.testing.assert_close(task.batch.advantage, same.batch.advantage, rtol=1e-9, atol=1e-12)


def test_groups_of_one_reward_are_counted():
    reward = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.2, 0.1], dtype=torch.float64)
    assert alike(reward, 3).tolist() == [True, False]
    flat = [one == str(PROMPTS[0]) for one in map(str, PROMPTS)]
    policy, task = made(
        lambda prompts, texts: [0.0 if prompt == str(PROMPTS[0]) else n for n, prompt in enumerate(prompts)], batch=5
    )
    row = task.gradient(policy, 1)
    assert row["zero_variance"] == pytest.approx(sum(flat) / 5)
    named = {record["prompt"]: record["same_reward"] for record in task.samples()}
    assert named.get(str(PROMPTS[0]), True) is True
    assert sum(named.values()) <= 1


def test_prompts_whose_responses_have_one_reward_are_shown_first():
    flat = {str(PROMPTS[1]), str(PROMPTS[4])}

    def reward(prompts, texts):
        return [0.0 if prompt in flat else float(n) for n, prompt in enumerate(prompts)]

    policy, task = made(reward, batch=5)
    row = task.gradient(policy, 1)
    assert row["zero_variance"] == pytest.approx(2 / 5)
    shown = task.samples()
    assert len(shown) == 4
    assert {record["prompt"] for record in shown[:2]} == flat
    assert [record["same_reward"] for record in shown] == [True, True, False, False]
    for record in shown:
        assert (len({one["reward"] for one in record["responses"]}) == 1) == record["same_reward"]


def test_clipping_may_make_a_group_s_rewards_one_and_is_counted():
    policy, task = made(lambda _, texts: [5.0 + n for n in range(len(texts))], ppo_clip_reward=1.0)
    row = task.gradient(policy, 1)
    assert (row["zero_variance"], row["reward_clipped"]) == (1.0, 1.0)
    assert row["reward"] == 12.5  # as the reward gives it


def test_responses_without_an_end_and_long_ones_lose_their_penalty():
    policy, task = made(model=model_of(1), beta=0.3, ppo_unfinished_penalty=0.5, ppo_length_penalty=0.01)
    row = task.gradient(policy, 1)
    plain, other = made(model=model_of(1), beta=0.3)
    other.gradient(plain, 1)
    lost = [0.5 * (response[-1] != END) + 0.01 * len(response) for _, response in task.batch.rows]
    lost = torch.tensor(lost, dtype=torch.float64)
    torch.testing.assert_close(other.batch.penalised - task.batch.penalised, lost, **EXACT)
    assert row["reward"] == other.batch.row["reward"]
    assert row["loss"] == pytest.approx(-float(task.batch.penalised.mean()), abs=1e-6)


# The KL penalty


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_the_step_is_that_of_the_surrogate_and_the_estimate(kind):
    policy, task = made(model=model_of(1), beta=0.3, micro=1, ppo_kl=kind)
    row = task.gradient(policy, 1)
    batch, inputs = task.batch, collate(task.batch.rows, PAD)
    logp, ref_logp = policy.model(**inputs), task.reference(**inputs)
    estimate = kl_estimate(logp, ref_logp, kind)
    found = policy.gradient()
    policy.clear()
    (0.3 * estimate - batch.advantage.to(logp) * logp).mean().backward()
    for one, other in zip(found, policy.gradient(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert row["kl"] == pytest.approx(float((logp - ref_logp).detach().mean()), abs=1e-5)
    assert row["kl_penalty"] == pytest.approx(float(estimate.detach().mean()), rel=1e-4)
    assert row["loss"] == pytest.approx(0.3 * row["kl_penalty"] - row["reward"], abs=1e-6)
    rewards = share_of_e(None, [text["text"] for one in task.samples() for text in one["responses"]])
    assert batch.penalised.tolist() == rewards  # without the KL penalty


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_in_expectation_each_pulls_to_the_reference(kind):
    """Responses of one token, which can be summed over: k1 and k2 down KL(π‖π_ref), k3 down KL(π_ref‖π)."""
    n, prompt = 2000, [(0, 5, 7)]
    policy, task = made(
        lambda _, texts: [0.0] * len(texts), prompts=prompt, model=model_of(1), beta=1.0, batch=1, micro=500, samples=n,
        sample_length=1, ppo_kl=kind,
    )  # fmt: skip
    total = [torch.zeros_like(one) for one in policy.parameters]
    for step in range(1, 5):
        task.gradient(policy, step)
        total = [a + b for a, b in zip(total, policy.gradient(), strict=True)]
        policy.clear()
    ids = torch.tensor(prompt)
    logp = policy.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    ref_logp = model_of()(input_ids=ids).logits[0, -1].log_softmax(-1).detach()
    first, second = (ref_logp, logp) if kind == "k3" else (logp, ref_logp)
    (first.exp() * (first - second)).sum().backward()
    sampled, exact = (torch.cat([one.flatten() for one in part]) for part in (total, policy.gradient()))
    assert float((sampled / 4 - exact).norm() / exact.norm()) < 0.1  # of 8,000 samples
    assert float(exact.norm()) > 0.1


def test_both_sides_add_up_with_a_loss_term_too():
    policy, task = made(lambda _, texts: [0.0] * len(texts), model=model_of(1), ppo_kl="k3", sides_every=1)
    assert task.gradient(policy, 1)["grad_split_error"] < 1e-5  # all advantages are 0: only KL pulls


def test_the_share_that_is_clipped_is_the_surrogate_s():
    policy, task = made(ppo_epochs=3, rate=0.02, save_every=0, ppo_kl="k3", beta=0.5)
    rows = run(policy, task, 6)
    assert rows[0]["clip_share"] == 0
    assert max(row["clip_share"] for row in rows) > 0


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_a_reference_that_is_not_finite_is_named_with_a_loss_term_too(kind):
    nan = made(reference=lambda **batch: torch.full((len(batch["input_ids"]),), float("nan")), ppo_kl=kind)
    with pytest.raises(NotFinite, match="step 1: log π_ref is not finite"):
        nan[1].gradient(nan[0], 1)


# Tokens


def test_log_pi_comes_token_by_token():
    policy, _ = made(model=model_of(1))
    rows = [((0, 5, 7), (3, END)), ((0, 9), (4, 4, 6, 5)), ((0, 3), (END,))]
    for lay in (rows, [((0, 5), (3, END), (4, 5, 6))]):
        found, sums = policy.forward(lay, 5), policy.forward(lay)
        lengths = [len(response) for _, *responses in lay for response in responses]
        torch.testing.assert_close(found.sum(1), sums, rtol=1e-5, atol=1e-6)
        assert [int((row != 0).sum()) for row in found] == lengths
    one = policy.model(input_ids=torch.tensor([(0, 9, 4, 4, 6)])).logits[0].log_softmax(-1)
    expected = torch.stack([one[place, token] for place, token in ((1, 4), (2, 4), (3, 6), (4, 5))])
    torch.testing.assert_close(policy.forward(rows, 5)[1, :4], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_at_the_old_policy_tokens_make_the_step_of_whole_responses(reduction):
    gradients, rows = [], []
    for level in ("sequence", "token"):
        policy, task = made(model=model_of(1), beta=0.3, ppo_level=level, reduction=reduction, sides_every=1)
        rows.append(task.gradient(policy, 1))
        gradients.append(torch.cat([one.flatten() for one in policy.gradient()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    assert rows[0] == pytest.approx(rows[1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_a_response_of_one_token_is_its_own_sequence(kind):
    rows = []
    for level in ("sequence", "token"):
        policy, task = made(
            model=model_of(1), sample_length=1, ppo_level=level, ppo_kl=kind, ppo_epochs=2, save_every=0, rate=0.05,
            sides_every=1, reward=lambda _, texts: [float(len(text)) for text in texts],
        )  # fmt: skip
        rows.append(run(policy, task, 4))
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert any(row["clip_share"] for row in rows[0])


def test_later_passes_clip_token_by_token():
    policy, task = made(
        model=model_of(1), beta=0.3, ppo_level="token", ppo_kl="k3", ppo_epochs=3, save_every=0, rate=0.03, micro=1,
        sides_every=1,
    )  # fmt: skip
    run(policy, task, 2)
    batch = task.batch
    row = task.gradient(policy, 3)
    found = policy.gradient()
    policy.clear()
    losses, clipped, tokens = [], 0, 0
    for n, (prompt, response) in enumerate(batch.rows):
        logits = policy.model(input_ids=torch.tensor([(*prompt, *response)])).logits[0].log_softmax(-1)
        places = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        logp = logits[places, torch.tensor(response)]
        old, ref = (part[n, : len(response)].float() for part in (batch.old_logp, batch.ref_logp))
        advantage = batch.advantage[n].float().expand_as(logp)
        ratio = (logp - old).exp().detach()
        clipped += int(((ratio > 1.2) & (advantage > 0) | (ratio < 0.8) & (advantage < 0)).sum())
        tokens += len(response)
        losses.append((ppo_clip(logp, old, advantage) + 0.3 * kl_estimate(logp, ref, "k3")).sum())
    torch.stack(losses).mean().backward()
    for one, other in zip(found, policy.gradient(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
    assert row["clip_share"] == pytest.approx(clipped / tokens)
    assert clipped
    both = row["grad_norm_win"] ** 2 + row["grad_norm_lose"] ** 2
    both += 2 * row["grad_cosine"] * row["grad_norm_win"] * row["grad_norm_lose"]
    assert both == pytest.approx(row["grad_norm"] ** 2, rel=1e-4)


# The judge, samples, and what is said


def test_a_judge_is_logged_and_trains_nothing():
    plain = made(model=model_of(1))
    judged = made(model=model_of(1), judge=lambda _, texts: [float(len(text)) for text in texts])
    rows, others = run(*plain, 2), run(*judged, 2)
    assert torch.equal(weights(plain[0]), weights(judged[0]))
    for row, other in zip(rows, others, strict=True):
        assert row == {name: value for name, value in other.items() if name != "judge"}
        assert other["judge"] > 1
    shown = [text for record in judged[1].samples() for text in record["responses"]]
    assert [one["judge"] for one in shown] == [len(one["text"]) for one in shown]


def test_samples_are_shown_with_their_rewards():
    policy, task = made(model=model_of(1), batch=5)
    assert task.samples() == []
    task.gradient(policy, 1)
    shown = task.samples()
    assert [len(record["responses"]) for record in shown] == [4] * 4
    for record in shown:
        assert [one["reward"] for one in record["responses"]] == share_of_e(
            None, [one["text"] for one in record["responses"]]
        )
    rows = {str(prompt): [] for prompt in PROMPTS}
    for prompt, response in task.batch.rows:
        rows[str(prompt)].append(response)
    for record in shown:
        for one, response in zip(record["responses"], rows[record["prompt"]], strict=True):
            assert (one["tokens"], one["finished"]) == (len(response), response[-1] == END)


def test_the_entropy_is_that_of_the_sampled_tokens():
    policy, task = made(model=model_of(1))
    row = task.gradient(policy, 1)
    tokens = sum(len(response) for _, response in task.batch.rows)
    assert row["entropy"] == pytest.approx(-float(task.batch.logp.sum()) / tokens, rel=1e-6)
    assert 1 < row["entropy"] < torch.tensor(float(TOKENS)).log() + 0.2


def test_a_constant_reward_is_said_once_in_one_line(capsys):
    policy, task = made(lambda _, texts: [0.5] * len(texts))
    run(policy, task, 3)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gradlab: reward mine gave 0.5 for all 16 responses of step 1; PPO learns only from")
    run(*made(), 1)
    assert capsys.readouterr().err == ""


def test_samples_that_cannot_be_written_stop_nothing(tmp_path, capsys):
    (tmp_path / SAMPLES).mkdir()
    (tmp_path / "log.jsonl").write_text('{"gradlab_training_log": 1, "settings": {}}\n{"step": 1, "loss": 0.5}\n')
    with StageLog(tmp_path, {}, 1, LogSettings(), active=True) as log:
        for step in (2, 3):
            log.write(step, {"loss": 0.5})
            log.show(step, [{"prompt": "?"}])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gradlab: {tmp_path / SAMPLES} could not be written (")
    assert len(read_log(tmp_path / "log.jsonl")) == 3


RESPONSES = [{"text": "# one\n\n<b>two</b>", "reward": 0.123456, "kl": 1.0, "tokens": 7, "finished": True},
             {"text": "", "reward": -1.0, "kl": 0.5, "tokens": 1, "finished": False}]  # fmt: skip
TEXTS = [{"prompt": "Say\nit.", "same_reward": False, "responses": RESPONSES},
         {"prompt": [{"role": "user", "content": "Né?"}], "same_reward": True, "responses": RESPONSES}]  # fmt: skip


def test_the_terminal_names_the_file_of_samples_once(tmp_path, capsys):
    with StageLog(tmp_path, {}, 0, LogSettings(), active=True) as log:
        for step in (1, 2):
            log.write(step, {"loss": 0.5})
            log.show(step, TEXTS)
    said = capsys.readouterr().err
    assert said == f"gradlab: {tmp_path / SAMPLES} has responses of the policy on its way\n"


def test_tensorboard_shows_samples_as_they_were_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with StageLog(tmp_path, {}, 0, LogSettings(tensorboard=True), active=True) as log:
        log.write(1, {"loss": 0.5})
        log.show(1, TEXTS)
        log.write(2, {"loss": 0.4})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    (event,) = events.Tensors("samples/text_summary")
    (text,) = event.tensor_proto.string_val
    shown = text.decode()
    assert event.step == 1
    assert "\n    # one\n    \n    <b>two</b>" in shown  # in a block of code: no heading, and no HTML
    assert "reward 0.123, kl 1, tokens 7, finished True" in shown
    assert '"content": "Né?"' in shown
    assert shown.count("**prompt**") == 2
    assert shown.count("**prompt**, its responses all have one reward") == 1
    assert set(read_log(tmp_path / "tensorboard")) == {"step", "loss"}


def test_weights_and_biases_gets_a_table_of_samples(tmp_path, monkeypatch):
    sent = []
    run = SimpleNamespace(log=lambda what, step: sent.append((step, what)), finish=lambda: None)
    table = SimpleNamespace(Table=lambda columns, data: (columns, data), init=lambda **_: run)
    monkeypatch.setitem(sys.modules, "wandb", table)
    with StageLog(tmp_path, {}, 0, LogSettings(wandb=True), active=True) as log:
        log.write(1, {"loss": 0.5})
        log.show(1, TEXTS)
    (_, row), (step, shown) = sent
    columns, data = shown["samples"]
    assert (step, row, len(data)) == (1, {"loss": 0.5}, 4)
    assert columns == ["prompt", "same_reward", "text", "reward", "kl", "tokens", "finished"]
    assert data[0] == ["Say\nit.", False, *RESPONSES[0].values()]


def test_a_copy_that_takes_no_samples_still_gets_the_numbers(tmp_path, monkeypatch, capsys):
    sent = []
    run = SimpleNamespace(log=lambda what, step: sent.append(step), finish=lambda: None)

    def table(columns, data):
        raise TypeError("no such column")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Table=table, init=lambda **_: run))
    with StageLog(tmp_path, {}, 0, LogSettings(wandb=True), active=True) as log:
        for step in (1, 2):
            log.write(step, {"loss": 0.5})
            log.show(step, TEXTS)
    assert sent == [1, 2]
    said = capsys.readouterr().err
    assert said.count("samples could not be added to the log at Weights & Biases (no such column)") == 1


def test_samples_that_no_log_takes_are_told_without_a_file_that_is_not_there(tmp_path, monkeypatch, capsys):
    def table(columns, data):
        raise TypeError("no such column")

    run = SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Table=table, init=lambda **_: run))
    (tmp_path / SAMPLES).mkdir()
    with StageLog(tmp_path, {}, 0, LogSettings(wandb=True), active=True) as log:
        log.show(1, TEXTS)
    said = capsys.readouterr().err
    assert f"{tmp_path / SAMPLES} could not be written" in said
    assert "samples could not be added to the log at Weights & Biases" in said
    assert "None" not in said


def test_samples_after_the_step_that_is_resumed_are_dropped(tmp_path):
    for done, left in ((0, [1, 2, 3]), (2, [1, 2, 3]), (0, [1])):
        with StageLog(tmp_path, {}, done, LogSettings(), active=True) as log:
            for step in left[done:]:
                log.write(step, {"loss": 0.5})
                log.show(step, [{"prompt": f"of {done}"}])
        records = [json.loads(line) for line in (tmp_path / SAMPLES).read_text().splitlines()]
        assert [record["step"] for record in records] == left


# Settings


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"ppo_baseline": "mean"}, "ppo.baseline must be one of group-mean, leave-one-out; got 'mean'"),
        ({"ppo_level": "word"}, "ppo.level must be one of sequence, token; got 'word'"),
        ({"ppo_kl": "k4"}, "ppo.kl must be one of k1, k2, k3; got 'k4'"),
        ({"ppo_unfinished_penalty": -1}, r"ppo.unfinished_penalty must be finite and lie in \[0, inf\), got -1"),
        ({"ppo_length_penalty": float("nan")}, r"ppo.length_penalty must be finite and lie in \[0, inf\), got nan"),
        ({"ppo_clip_reward": 0.0}, "ppo.clip_reward must be"),
        ({"loss": ("dpo",), "reward": None, "ppo_judge": "m:f"}, "ppo.judge must be left out where loss has no ppo"),
    ],
)
def test_settings_that_are_refused(wrong, line):
    with pytest.raises(ValueError, match=line) as caught:
        settings_from(**{**GIVEN, **wrong})
    assert "\n" not in str(caught.value)


def stage_of(tmp_path, **options):
    run = stages.Run(
        settings_from(**{**GIVEN, "out": tmp_path, **options}),
        SimpleNamespace(fingerprint="d", train=range(10)), None, Group(),
    )  # type: ignore[arg-type]  # fmt: skip
    return stages.PPOStage(run, "base", "base")


def test_only_options_that_differ_from_their_defaults_make_another_run(tmp_path):
    changed = {
        "ppo_baseline": "leave-one-out", "ppo_normalize": True, "ppo_kl": "k3", "ppo_unfinished_penalty": 1.0,
        "ppo_length_penalty": 0.1, "ppo_clip_reward": 3.0, "ppo_whiten": True, "ppo_level": "token",
    }  # fmt: skip
    with (
        patch.object(loading, "weights_hash", lambda source: f"{source}'s"),
        patch.object(stages, "reward_hash", lambda spec: spec),
    ):
        plain = stage_of(tmp_path).decided()
        assert not set(changed) & set(plain)
        assert stage_of(tmp_path, ppo_judge="m:f").decided() == plain
        for name, value in changed.items():
            assert stage_of(tmp_path, **{name: value}).decided() == plain | {name: value}
