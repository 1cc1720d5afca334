"""Training logs: what is written is read back; TRL's files are recognised; a damaged one is named in one line.

The TRL files here are made from the names that TRL documents for its DPO trainer, with the Trainer's own layout.
"""

import contextlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gradlab.doctor import examine_log, report
from gradlab.doctor.log_columns import COLUMNS, PPO_COLUMNS
from gradlab.doctor.training_log import append_step, keep_steps, not_finite_notes, read_log, smoothed, start_log
from gradlab.store.json_lines import append_line, read_lines
from scripts import record_sample_log

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "gradlab/widgets/samples"
TRL = {"loss": 0.69, "grad_norm": 3.5, "learning_rate": 5e-7, "rewards/chosen": 0.1, "rewards/rejected": -0.2,
       "rewards/accuracies": 0.6, "rewards/margins": 0.3, "logps/chosen": -120.5, "logps/rejected": -140.0,
       "logits/chosen": -1.5, "epoch": 0.1, "step": 10}  # fmt: skip
OURS = {"loss": 0.69, "grad_norm": 3.5, "reward_win": 0.1, "reward_lose": -0.2, "accuracy": 0.6, "reward_margin": 0.3,
        "logp_win": -120.5, "logp_lose": -140.0, "step": 10}  # fmt: skip
EVAL = {"eval_loss": 0.65, "eval_rewards/margins": 0.4, "eval_rewards/accuracies": 0.7, "eval_runtime": 3.0,
        "epoch": 0.1, "step": 10}  # fmt: skip


def assert_is_ours(frame):
    row = frame.set_index("step").loc[10]
    assert {name: row.get(name, 10) for name in OURS} == OURS


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    start_log(path, {"loss": "dpo", "beta": 0.1})
    for step in (1, 2, 3):
        append_step(path, step, loss=0.7 / step, accuracy=0.5)
    append_step(path, 4, loss=0.1, accuracy=0.9, grad_norm=2.0, validation_loss=0.6)
    return path


def test_what_is_written_is_read_back(log):
    frame = read_log(log)
    assert frame.attrs == {"settings": {"loss": "dpo", "beta": 0.1}, "notes": [], "not_finite": {}}
    assert frame["step"].tolist() == [1, 2, 3, 4]
    assert frame["loss"].tolist() == [0.7, 0.35, 0.7 / 3, 0.1]
    assert frame["grad_norm"].isna().tolist() == [True, True, True, False]
    assert frame["validation_loss"].iloc[3] == 0.6
    first = json.loads(log.read_text().splitlines()[0])
    assert first["gradlab_training_log"] == 1


def test_the_writer_takes_known_names_and_whole_steps_only(log):
    before = log.read_bytes()
    with pytest.raises(ValueError, match=r"column of a training log must be one of .*did you mean 'accuracy'"):
        append_step(log, 5, acuracy=0.5)
    with pytest.raises(ValueError, match=r"step must be a whole number ≥ 0, got 1\.5"):
        append_step(log, 1.5, loss=0.5)  # type: ignore[arg-type]
    with pytest.raises(FileExistsError):
        start_log(log, {})
    assert log.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_left_out_and_said_and_the_next_append_mends_it(log, cut):
    log.write_bytes(log.read_bytes()[: -1 - cut])
    frame = read_log(log)
    assert frame["step"].tolist() == [1, 2, 3]
    assert frame.attrs["notes"] == ["line 5 was cut short, as by a killed run, and is left out"]
    append_step(log, 4, loss=0.2)
    again = read_log(log)
    assert again["loss"].iloc[3] == 0.2
    assert again.attrs["notes"] == []


def test_a_last_line_that_lacks_only_its_end_is_whole(log):
    log.write_bytes(log.read_bytes()[:-1])
    assert read_log(log)["step"].tolist() == [1, 2, 3, 4]
    append_step(log, 5, loss=0.2)
    assert read_log(log)["step"].tolist() == [1, 2, 3, 4, 5]


def test_a_resumed_run_drops_the_steps_that_it_will_write_again(log):
    keep_steps(log, 2)
    append_step(log, 3, loss=0.5)
    frame = read_log(log)
    assert frame["loss"].tolist() == [0.7, 0.35, 0.5]
    assert frame.attrs["settings"]["beta"] == 0.1


def test_numbers_that_are_not_finite_survive_and_are_said(log):
    append_step(log, 5, loss=math.nan, grad_norm=math.inf)
    append_step(log, 6, loss=-math.inf)
    json.loads(log.read_text().splitlines()[-1], parse_constant=pytest.fail)  # strict JSON
    frame = read_log(log)
    assert np.isnan(frame["loss"].iloc[4])
    assert frame["grad_norm"].iloc[4] == math.inf
    assert frame["loss"].iloc[5] == -math.inf
    assert frame.attrs["not_finite"] == {"loss": "line 6", "grad_norm": "line 6"}
    assert frame.attrs["notes"] == not_finite_notes(frame.attrs["not_finite"])
    assert frame.attrs["notes"] == ["loss is not finite, first at line 6", "grad_norm is not finite, first at line 6"]


def test_trainer_state_of_trl(tmp_path):
    path = tmp_path / "trainer_state.json"
    summary = {"train_runtime": 9.0, "train_loss": 0.5, "epoch": 0.2, "step": 20}
    history = [TRL, EVAL, {**TRL, "step": 20, "loss": math.nan}, summary]
    path.write_text(json.dumps({"best_metric": None, "global_step": 20, "log_history": history}))  # NaN as Python does
    frame = read_log(path)
    assert frame["step"].tolist() == [10, 20]
    assert_is_ours(frame)
    assert frame["validation_loss"].iloc[0] == 0.65
    assert frame["validation_reward_margin"].iloc[0] == 0.4
    assert frame["validation_accuracy"].iloc[0] == 0.7
    assert frame["logits/chosen"].iloc[0] == -1.5  # unknown: kept under its own name
    assert frame["train_loss"].iloc[1] == 0.5  # of the whole run, not of a step
    assert frame.attrs["notes"] == ["loss is not finite, first at row 3"]
    assert frame.attrs["not_finite"] == {"loss": "row 3"}


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_exports_of_trl_with_and_without_prefixes(tmp_path, suffix):
    plain, prefixed = tmp_path / f"plain.{suffix}", tmp_path / f"prefixed.{suffix}"
    rows = pd.DataFrame([TRL, EVAL])
    wandb = pd.DataFrame([
        {"_step": 0, "train/global_step": 10} | {f"train/{k}": v for k, v in TRL.items() if k != "step"},
        {"_step": 1, "train/global_step": 10} | {k.replace("_", "/", 1): v for k, v in EVAL.items() if k != "step"},
    ])  # fmt: skip
    for frame, path in ((rows, plain), (wandb, prefixed)):
        if suffix == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=suffix == "jsonl")
        read = read_log(path)
        assert_is_ours(read)
        assert read["validation_loss"].tolist() == [0.65]
        assert read["validation_accuracy"].tolist() == [0.7]


def test_a_chart_exported_from_wandb(tmp_path):
    path = tmp_path / "chart.csv"
    path.write_text('"Step","run-7 - train/loss","run-7 - train/loss__MIN","run-7 - train/loss__MAX"\n1,0.7,0.7,0.7\n')
    assert read_log(path)["loss"].tolist() == [0.7]
    path.write_text('"Step","run-7 - train/loss","run-8 - train/loss"\n1,0.7,0.6\n')
    with pytest.raises(ValueError, match="loss more than once, as run-7 - train/loss and run-8 - train/loss"):
        read_log(path)


AUTHORS = {"rewards_{}/chosen": 0.1, "rewards_{}/rejected": -0.2, "rewards_{}/accuracies": 0.6,
           "rewards_{}/margins": 0.3, "logps_{}/rejected": -140.0, "logps_{}/chosen": -120.5,
           "loss/{}": 0.69}  # fmt: skip


def of_the_authors(part, **more):
    return {name.format(part): value for name, value in AUTHORS.items()} | more


@pytest.mark.parametrize("step", ["_step", None], ids=["W&B's export", "without a step"])
def test_the_log_of_the_dpo_authors(tmp_path, step):
    rows = [of_the_authors("eval", _step=0)] if step else []
    for update in range(1, 11):
        counters = {"counters/examples": 64 * update, "counters/updates": update}
        rows.append(of_the_authors("train", grad_norm=3.5, examples_per_second=9.0, **counters))
        rows[-1] |= {"_step": 64 * update} if step else {}
    rows += [of_the_authors("eval", _step=640)] if step else []
    path = tmp_path / "run.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame = read_log(path)
    assert_is_ours(frame)
    assert frame["step"].tolist() == ([0] if step else []) + list(range(1, 11))
    assert frame.attrs["notes"] == (["steps are updates of 64 examples, by counters/updates"] if step else [])
    if step:
        assert frame["validation_loss"].dropna().tolist() == [0.69, 0.69]
        assert frame["validation_reward_margin"].dropna().tolist() == [0.3, 0.3]


def test_the_log_of_openrlhf(tmp_path):
    path = tmp_path / "history.jsonl"
    train = {"loss": 0.69, "acc": 0.6, "chosen_reward": 0.1, "reject_reward": -0.2, "lr": 5e-7, "nll_loss": 2.0,
             "loss_mean": 0.7, "acc_mean": 0.5, "global_step": 10}  # fmt: skip
    eval_ = {"eval_loss": 0.65, "acc_mean": 0.7, "global_step": 10}
    rows = [{f"train/{name}": value for name, value in train.items()} | {"_step": 0},
            {f"eval/{name}": value for name, value in eval_.items()} | {"_step": 1}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = read_log(path).to_dict("records")
    expected = {"step": 10, "loss": 0.69, "accuracy": 0.6, "reward_win": 0.1, "reward_lose": -0.2,
                "learning_rate": 5e-7, "validation_loss": 0.65, "validation_accuracy": 0.7}  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert (row["train/nll_loss"], row["train/loss_mean"], row["train/acc_mean"]) == (2.0, 0.7, 0.5)
    path.write_text(json.dumps({"train/global_step": 10, "eval/global_step": 11, "train/loss": 0.6}))
    with pytest.raises(ValueError, match="line 1 has two steps, as eval/global_step and train/global_step"):
        read_log(path)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("run-dpo_1-tag-train_loss.csv", "loss"),
        ("run-.-tag-train_rewards_margins (1).csv", "reward_margin"),
        ("run-.-tag-eval_rewards_accuracies.csv", "validation_accuracy"),
        ("run-.-tag-eval_eval_loss.csv", "validation_loss"),  # OpenRLHF's
        ("run-.-tag-train_chosen_reward.csv", "reward_win"),
        ("run-.-tag-rewards_train_chosen.csv", "reward_win"),
        ("run-.-tag-loss_eval.csv", "validation_loss"),
        ("run-.-tag-validation_loss.csv", "validation_loss"),  # gradlab's
        ("run-.-tag-validation_reward_margin.csv", "validation_reward_margin"),
        ("loss.csv", "loss"),
        ("curve.csv", None),
        ("run-.-tag-train_train_loss.csv", None),  # of the whole run
    ],
)
def test_a_curve_of_tensorboard_has_its_column_from_the_file_s_name(tmp_path, name, column):
    path = tmp_path / name
    path.write_text("Wall time,Step,Value\n1700000000.5,1,0.7\n1700000001.5,2,0.5\n")
    frame = read_log(path)
    assert frame[column or "Value"].tolist() == [0.7, 0.5]
    assert frame["step"].tolist() == [1, 2]
    note = "TensorBoard's CSV holds one curve, and this file's name tells no column"
    assert [said[: len(note)] for said in frame.attrs["notes"]] == ([] if column else [note])


def test_a_folder_of_tensorboard_s_curves_is_one_log(tmp_path):
    for tag, values in {"train_loss": (0.7, 0.5), "eval_loss": (0.6,), "train_epoch": (0.1, 0.2)}.items():
        rows = "".join(f"1.5,{step},{value}\n" for step, value in enumerate(values, 1))
        (tmp_path / f"run-.-tag-{tag}.csv").write_text(f"Wall time,Step,Value\n{rows}")
    frame = read_log(tmp_path)
    assert frame["step"].tolist() == [1, 2]
    assert frame["loss"].tolist() == [0.7, 0.5]
    assert frame["validation_loss"].dropna().tolist() == [0.6]
    assert frame["run-.-tag-train_epoch"].tolist() == [0.1, 0.2]
    assert frame.attrs["notes"] == []
    (tmp_path / "other.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(FileNotFoundError, match="is no file; a training log is"):
        read_log(tmp_path)


@pytest.mark.slow
def test_a_folder_of_tensorboard_s_event_files_is_one_log(tmp_path):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as board:
        for step in range(1, 4):
            board.add_scalar("train/loss", 0.5, step)
            board.add_scalar("train/rewards/margins", math.nan if step == 2 else 0.25, step)
            board.add_scalar("eval/loss", 0.75, step)
    frame = read_log(tmp_path)
    assert frame["loss"].tolist() == [0.5] * 3
    assert frame["validation_loss"].tolist() == [0.75] * 3
    assert frame.attrs["not_finite"] == {"reward_margin": "row 2"}


def test_the_logs_of_llama_factory_and_verl(tmp_path):
    path = tmp_path / "trainer_log.jsonl"
    path.write_text(
        '{"current_steps": 10, "total_steps": 20, "loss": 0.69, "accuracy": 0.6, "lr": 5e-7, "epoch": 0.1, '
        '"elapsed_time": "0:00:10"}\n{"current_steps": 10, "total_steps": 20, "eval_loss": 0.65}\n'
    )
    (row,) = read_log(path).to_dict("records")
    assert (row["step"], row["loss"], row["accuracy"], row["validation_loss"]) == (10, 0.69, 0.6, 0.65)
    assert (row["learning_rate"], row["elapsed_time"]) == (5e-7, "0:00:10")
    data = {"actor/grad_norm": 3.5, "critic/score/mean": 0.4, "critic/rewards/mean": 0.3, "response_length/mean": 99.0,
            "response_length/clip_ratio": 0.75, "actor/lr": 1e-6}  # fmt: skip
    path.write_text(json.dumps({"step": 1, "data": data}))
    (row,) = read_log(path).to_dict("records")
    expected = {"step": 1, "grad_norm": 3.5, "reward": 0.4, "response_length": 99.0, "finished": 0.25,
                "learning_rate": 1e-6, "critic/rewards/mean": 0.3}  # fmt: skip
    assert row == expected


def test_steps_that_go_back_are_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": {loss}}}\n' for step, loss in ((1, 1), (3, 2), (2, 3), (3, 4))))
    frame = read_log(path)
    assert frame["loss"].tolist() == [1, 3, 4]
    assert frame.attrs["notes"] == ["steps go back, first from 3 to 2 at line 3: the later row of a step counts"]


@pytest.mark.parametrize("step", ['"x"', "[1]", "{}", "true", "NaN", "Infinity", "-1", "1.5", "1e300"])
def test_a_step_that_is_no_step_is_one_line_wherever_it_is_read(tmp_path, step):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"step": 1, "loss": 0.5}}\n{{"step": {step}, "loss": 0.5}}\n')
    for read in (lambda: read_log(path), lambda: keep_steps(path, 1)):
        with pytest.raises(ValueError, match=f"{path}, line 2: step must be a (whole )?number") as caught:
            read()
        assert "\n" not in str(caught.value)
    assert path.read_text().count("\n") == 2


def test_the_first_of_several_faults_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "accuracy": "x"}\n{"step": 3, "loss": "y"}\n{"step": 4, "loss": "z"}\n')
    with pytest.raises(ValueError, match="line 2: accuracy must be a number, got 'x'"):
        read_log(path)


@pytest.mark.parametrize(
    "content",
    ['[{"step": 1, "a": [{"b": {}}]}, {"step": 2}]', ' [ {"step":1} ,\n{"step":2} ] ', '[]', '[1,]', '[{"step": 1},]',
     '[{"step": 1} {"step": 2}]', '[{"step": 1}]]', '{"a": {"log_history": [1]}, "log_history": [{"step": 1}], "b": 2}',
     '{"log_history": [{"step": 1}],}', '{"log_history" [{"step": 1}]}', '{"log_history": {}}', '{}', '', '7', '"a"',
     '{"log_history": [{"step": 1}]', '{log_history: []}', '\ufeff[{"step": 1}]'],
)  # fmt: skip
def test_a_list_in_json_is_read_as_the_json_module_reads_it(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    try:
        whole = json.loads(path.read_bytes())
        steps = [row["step"] for row in (whole["log_history"] if isinstance(whole, dict) else whole)]
    except (ValueError, TypeError, KeyError):
        steps = []
    if steps:
        assert read_log(path)["step"].tolist() == steps
    else:
        with pytest.raises(ValueError, match=f"{path} (is damaged|has no list of rows)"):
            read_log(path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.jsonl", '{"step": 1, "loss": 2}\nloss: 3\n{"step": 2}\n', r"a.jsonl, line 2, is no JSON object"),
        ("a.jsonl", '{"step": 1, "loss": "low"}\n', r"a.jsonl, line 1: loss must be a number, got 'low'"),
        ("a.jsonl", '{"step": 1, "loss": true}\n', "line 1: loss must be a number, got True"),
        ("a.jsonl", '{"step": 1, "loss": [1]}\n', r"line 1: loss must be a number, got \[1\]"),
        ("a.jsonl", '{"step": 1.5, "loss": 2}\n', "line 1: step must be a whole number ≥ 0, got 1.5"),
        ("a.jsonl", '{"step": NaN, "loss": 2}\n', "line 1: step must be a whole number ≥ 0, got nan"),
        ("a.jsonl", '{"step": -1}\n', "line 1: step must be a whole number ≥ 0, got -1"),
        ("a.jsonl", '{"loss": 2}\n', "a.jsonl has no step"),
        ("a.jsonl", "", "a.jsonl has no step"),
        ("a.jsonl", "\x00\x01\x02", "a.jsonl, line 1, is no JSON object"),
        ("a.jsonl", '{"gradlab_training_log": 9}\n', "has format 9; this version of gradlab reads format 1"),
        ("a.jsonl", "[1, 2]\n", "line 1, is no JSON object"),
        ("a.json", '{"log_history": [{"step": 1', r"a.json is damaged, or no JSON \("),
        ("a.json", '{"a": 1}', "a.json has no list of rows"),
        ("a.json", "[1]", "a.json has no list of rows"),
        ("a.csv", "step,loss\n1,2,3\n", "a.csv, line 2, has more fields"),
        ("a.csv", "step,loss\n1,x\n", "a.csv, line 2: loss must be a number, got 'x'"),
        ("a.csv", "", "a.csv has no step"),
    ],
)
def test_a_damaged_log_is_named_in_one_line(tmp_path, name, content, fault):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=fault) as caught:
        read_log(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


def test_no_file_and_no_text(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is no file; a training log is gradlab's JSON lines, TRL's"):
            read_log(path)
    (tmp_path / "a.csv").write_bytes(b"step,loss\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="is damaged, or no CSV"):
        read_log(tmp_path / "a.csv")


def test_rows_of_a_csv_that_are_short_or_without_a_step_are_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss,note\n1,0.5,x\n,0.4,y\n2,NaN,z\n3,0.")
    frame = read_log(path)
    assert frame["step"].tolist() == [1, 2]
    assert frame["note"].tolist() == ["x", "z"]
    assert frame.attrs["notes"] == ["line 5 was cut short and is left out", "loss is not finite, first at line 4",
                                    "1 rows without a step are left out"]  # fmt: skip


def test_smoothing_is_a_normalised_running_mean():
    log = pd.DataFrame({"loss": [1.0, np.nan, 4.0, 2.0, math.inf]})
    assert smoothed(log, 0.0)["loss"].tolist() == pytest.approx([1.0, np.nan, 4.0, 2.0, np.nan], nan_ok=True)
    expected = [1.0, np.nan, (4 + 0.25 * 1) / 1.25, (2 + 0.5 * 4 + 0.125 * 1) / 1.625, np.nan]
    assert smoothed(log, 0.5)["loss"].tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ["dpo", "bdpo", "dpo-half-beta"])
def test_the_samples_are_whole_small_and_obey_the_identities(name):
    path = SAMPLES / f"{name}.jsonl"
    assert path.stat().st_size < 60_000
    frame = read_log(path)
    assert frame.attrs["notes"] == []
    assert "no text" in frame.attrs["settings"]["data"]
    assert set(COLUMNS) - set(PPO_COLUMNS) - set(frame.columns) <= {"win_weight_length_correlation"}
    close = {"rtol": 2e-3, "atol": 2e-3}  # four digits are recorded
    np.testing.assert_allclose(frame["reward_margin"], frame["reward_win"] - frame["reward_lose"], **close)
    assert frame["loss"].iloc[0] == pytest.approx(math.log(2), abs=1e-4)  # at the reference
    rare = frame.dropna(subset="grad_norm")
    assert rare["step"].tolist() == [1, *range(5, 121, 5)]
    win, lose, cosine = rare["grad_norm_win"], rare["grad_norm_lose"], rare["grad_cosine"]
    np.testing.assert_allclose(rare["grad_norm"] ** 2, win**2 + lose**2 + 2 * win * lose * cosine, rtol=2e-2)
    if "bdpo" not in name:  # ρ = 1: the chain rule alone makes the ratio in probabilities
        assert (frame["win_weight"] == 0.5).all()
        np.testing.assert_allclose(frame["log_prob_ratio"], frame["logp_lose"] - frame["logp_win"], atol=0.02)
        np.testing.assert_allclose(frame["slope_win"], -frame["slope_lose"], **close)


@pytest.mark.slow
def test_the_recorder_makes_the_sample_again(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_sample_log, "RUNS", {"bdpo": record_sample_log.RUNS["bdpo"]})
        state = torch.get_rng_state()
        record_sample_log.record(tmp_path, steps=2)
        assert torch.get_rng_state().equal(state)
    again, sample = read_log(tmp_path / "bdpo.jsonl"), read_log(SAMPLES / "bdpo.jsonl").head(2)
    assert again.attrs == sample.attrs
    # Processors round differently; where rewards are still about 0, that turns a few of the pairs around.
    counted = [name for name in again if name.endswith("accuracy")]
    np.testing.assert_allclose(again[counted], sample[counted], atol=0.1)
    np.testing.assert_allclose(again["grad_cosine"], sample["grad_cosine"], atol=0.02)  # 2%, as the rest: of a norm
    rest = again.columns.drop([*counted, "grad_cosine"])
    pd.testing.assert_frame_equal(again[rest], sample[rest], rtol=0.02, atol=2e-3)


def test_json_lines_refuse_what_is_no_object(tmp_path):
    path = tmp_path / "a.jsonl"
    append_line(path, {"a": "x\ny", "b": "é"}, durable=True)
    assert read_lines(path, "it should be x") == ([(1, {"a": "x\ny", "b": "é"})], False)
    path.write_text('{"a": 1}\n\n7\n{"b": 1}\n')
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 3, is no JSON object; it should be x")):
        read_lines(path, "it should be x")


def test_processes_that_append_to_one_file_lose_no_line(tmp_path):
    code = (
        "import sys; from gradlab.store.json_lines import append_line\n"
        "for k in range(400): append_line(sys.argv[1], {'who': sys.argv[2], 'k': k, 'text': 'x' * (k % 7) * 500})"
    )
    path = tmp_path / "shared.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines, torn = read_lines(path, "lines")
    assert not torn
    for name in "abc":
        assert [line["k"] for _, line in lines if line["who"] == name] == list(range(400))


@pytest.mark.parametrize("end", ["123", "[1]", '"text"', "null"])
def test_nothing_is_appended_to_a_file_that_ends_in_no_object(tmp_path, end):
    path = tmp_path / "notes.txt"
    path.write_text(end)
    with pytest.raises(ValueError, match="ends in something that is no JSON object; nothing is appended"):
        append_line(path, {"k": 1})
    assert path.read_text() == end


@pytest.mark.parametrize("begin", ["", " ", "\ufeff"])
def test_a_last_object_without_a_line_break_gets_one(tmp_path, begin):
    path = tmp_path / "log.jsonl"
    path.write_text(begin + '{"k": 0}', "utf-8")
    append_line(path, {"k": 1})
    assert [line["k"] for _, line in read_lines(path, "lines")[0]] == [0, 1]


def test_what_was_no_line_of_ours_is_not_cut_off(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\nmy precious notes")
    with pytest.raises(ValueError, match="ends in something that is no JSON object; nothing is appended"):
        append_line(path, {"a": 1})
    assert path.read_bytes() == b"\nmy precious notes"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("x.jsonl", '{"gradlab_training_log": 1, "settings": [1]}\n{"step": 1}\n', "settings must be an object"),
        ("x.jsonl", '{"step": 1e300, "loss": 1}\n', "step must be a whole number"),
        ("x.csv", "step,loss,loss\n1,5,6\n", "has a column more than once: step, loss, loss"),
        ("x.CSV", "step,loss\n1,oops\n", "loss must be a number, got 'oops'"),
    ],
)
def test_more_damage_is_named_in_one_line(tmp_path, name, content, fault):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=fault) as caught:
        read_log(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


_values = st.one_of(
    st.floats(width=16), st.integers(-3, 2**70), st.booleans(), st.none(), st.text(max_size=3), st.just("NaN"),
    st.lists(st.integers(0, 3), max_size=2), st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2),
)  # fmt: skip
_names = st.sampled_from([
    "loss", "train/loss", "eval/loss", "loss/train", "acc", "acc_mean", "rewards_train/chosen", "nll_loss", "x", "data",
    "counters/examples", "counters/updates", "_step", "global_step", "eval/global_step", "completions/clipped_ratio",
    "gradlab_training_log", "settings", "",
])  # fmt: skip
_rows = st.dictionaries(_names, _values, max_size=4)


@settings(
    deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(rows=[({"counters/examples": None, "counters/updates": []}, 0)], form="jsonl", cut=0)
@given(
    rows=st.lists(st.tuples(_rows, st.one_of(st.integers(0, 4), st.just(1), _values)), max_size=5),
    form=st.sampled_from(["jsonl", "json", "csv"]), cut=st.integers(0, 3),
)  # fmt: skip
def test_whatever_a_log_holds_it_is_read_and_judged_or_refused_in_one_line(tmp_path, rows, form, cut):
    path = tmp_path / f"log.{form}"
    rows = [row | {"step": step} for row, step in rows]
    if form == "csv":
        text = pd.DataFrame(rows).to_csv(index=False)
    else:
        text = json.dumps(rows) if form == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text[: len(text) - cut], encoding="utf-8", errors="replace")
    for work in (lambda: report(examine_log(read_log(path))), lambda: keep_steps(path, 2) if form == "jsonl" else None):
        said = str(path)
        with contextlib.suppress(ValueError):
            try:
                work()
            except ValueError as error:
                said = str(error)
                raise
        assert str(path) in said
        assert len(said.splitlines()) == 1
