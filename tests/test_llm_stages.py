"""Whole runs of a tiny model: stages, resuming, and one clear line for each bad input."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from filelock import FileLock

pytest.importorskip("transformers")

from llm_two_processes import Killed, not_finite, stopped_after
from rounding import rounding, starts_at
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tiny_llm import LONGEST_ANSWER, PAIRS, options, quick_collections, tiny_model, tiny_settings
from transformers import LlamaForCausalLM

from gradlab.cli import doctor_command, train_command
from gradlab.doctor.training_log import read_log
from gradlab.llm.data.batches import pair_rows
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.prepare import prepare
from gradlab.llm.judge.systems import open_run
from gradlab.llm.model import loading, tensor_file
from gradlab.llm.model.finished import stopped_at
from gradlab.llm.model.group import Group
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.tensor_file import write_tensors
from gradlab.llm.train import peak_memory, stages
from gradlab.llm.train.command_line import read_settings
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel
from gradlab.llm.train.reference import score
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.run_settings import OF_RECIPES, RECIPES
from gradlab.llm.train.section_settings import FLAT
from gradlab.llm.train.stages import train
from gradlab.losses import DPO, PAIR_LOSSES, pair_loss, unregister_loss

LN2 = starts_at(DPO(), math.log(2), *LONGEST_ANSWER)  # with the largest β that the tests of ln 2 train at
pytestmark = pytest.mark.usefixtures(quick_collections.__name__)


@pytest.fixture(scope="module")
def straight(inputs, tmp_path_factory):
    """The run that others are held against: 6 steps without a break."""
    out = tmp_path_factory.mktemp("straight")
    train(tiny_settings(inputs, out, steps=6))
    return out


@pytest.fixture(autouse=True)
def signals():
    before = [(one, signal.getsignal(one)) for one in (signal.SIGINT, signal.SIGTERM)]
    yield
    for one, handler in before:
        signal.signal(one, handler)


def complains(capsys, arguments, status, words):
    """Whether the command ends with this status, and one line on stderr, progress bars aside, that has these words."""
    capsys.readouterr()
    assert train_command.run(arguments) == status
    err = capsys.readouterr().err
    assert "Traceback" not in err
    [line] = [line for line in err.splitlines() if line.startswith("gradlab: ")]
    assert re.fullmatch(f"gradlab: .*{words}.*", line), line


def same_run(out, straight, loss="dpo"):
    """Whether a stage's log and weights are, bit for bit, those of the other run."""
    for name in ("log.jsonl", "model/model.safetensors"):
        assert (out / loss / name).read_bytes() == (straight / loss / name).read_bytes(), name


def weights(folder):
    [file] = (folder / "model").glob("*.safetensors")
    return load_file(file)


def differ(one, other):
    return {name for name in one if not torch.equal(one[name], other[name])}


# Stages


@pytest.mark.slow
def test_every_registered_loss_trains_with_numbers_of_its_own(inputs, tmp_path):
    others = tuple(name for name in PAIR_LOSSES if name not in OF_RECIPES)
    settings = tiny_settings(inputs, tmp_path, loss=others, steps=2)
    assert [settings.loss_of(name) for name in others] == [PAIR_LOSSES[name]() for name in others]
    start = load_file(inputs / "model" / "model.safetensors")
    for folder in train(settings):
        log = read_log(folder / "log.jsonl")
        assert all(math.isfinite(log[name][0]) for name in ("loss", "validation_loss"))
        assert differ(weights(folder), start)


def test_a_recipes_beta_is_for_dpos_kin_and_a_given_one_for_all(inputs, tmp_path):
    settings = tiny_settings(inputs, tmp_path, loss=("bdpo", "hinge"), beta=None)
    assert (settings.loss_of("bdpo").beta, settings.loss_of("hinge").beta) == (1.0, PAIR_LOSSES["hinge"]().beta)
    settings = tiny_settings(inputs, tmp_path, loss=("bdpo", "hinge:beta=3"), beta=0.5)
    assert (settings.loss_of("bdpo").beta, settings.loss_of("hinge").beta) == (0.5, 0.5)
    assert settings.loss_of("hinge:beta=3").beta == 3
    for recipe in RECIPES:
        settings = tiny_settings(inputs, tmp_path, loss=("dpo",), recipe=recipe, beta=None)
        betas = {settings.loss_of(name).beta for name in ("dpo", "bdpo", "length-dpo", "fixed-weight", "relative-bdpo")}
        assert betas == {RECIPES[recipe]["beta"]}, "bDPO and its controls are compared at one β"


def test_the_log_of_means_over_tokens_says_how_long_the_responses_are(inputs, tmp_path):
    settings = tiny_settings(inputs, tmp_path, reduction="mean", loss=("dpo",), steps=1, reference_steps=0)
    [folder] = train(settings)
    data = prepare(settings.flat(), loading.load_tokenizer(inputs / "model"))
    sizes = [len(side) for place in data.train for side in (data.encoded[place].win, data.encoded[place].lose)]
    assert read_log(folder / "log.jsonl").attrs["settings"]["response_tokens"] == pytest.approx(sum(sizes) / len(sizes))


def test_a_shared_cache_tells_a_base_in_bfloat16_from_one_in_float32(inputs, tmp_path):
    for name, rank in (("full", 0), ("lora", 2), ("again", 0)):
        changed = {"precision": "bf16", "lora_rank": rank, "loss": ("dpo",), "steps": 1, "reference_steps": 0}
        [folder] = train(tiny_settings(inputs, tmp_path / name, cache=tmp_path / "cache", **changed))
        log = read_log(folder / "log.jsonl")
        assert log["loss"][0] == pytest.approx(math.log(2), abs=1e-6), name
        assert (log["reward_win"][0], log["reward_lose"][0]) == (0, 0), name
    assert len(list((tmp_path / "cache").glob("model-train-*.safetensors"))) == 2


def test_dpos_kin_trains_from_ln_2_and_what_is_done_is_not_done_again(inputs, tmp_path, capsys):
    settings = tiny_settings(inputs, tmp_path, loss=OF_RECIPES, steps=2, beta=0.5)
    folders = train(settings)
    assert folders == [tmp_path / name for name in OF_RECIPES]
    start = load_file(inputs / "model" / "model.safetensors")
    for folder in folders:
        log = read_log(folder / "log.jsonl")
        value = 1 / (4 * 0.5**2) if folder.name == "ipo" else math.log(2)
        begin = starts_at(pair_loss(folder.name, beta=0.5), value, *LONGEST_ANSWER)
        assert (log["loss"][0], log["validation_loss"][0]) == (begin, begin)
        assert log["step"].tolist() == [1, 2, 3]  # the last is the finished model's validation
        assert differ(weights(folder), start)
        assert not (folder / "checkpoints").exists()
        assert log.attrs["settings"]["loss"] == folder.name
    finals = [read_log(folder / "log.jsonl")["validation_loss"].iloc[-1] for folder in folders]
    assert len(set(finals)) == len(finals)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.name != "data.json"}
    capsys.readouterr()
    assert train(settings) == folders
    assert capsys.readouterr().out.count("done before") == len(folders)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.name != "data.json"}


@pytest.mark.parametrize("lora", [0, 2])
def test_each_stage_starts_where_the_one_before_ended(inputs, tmp_path, lora):
    changed = {"sft_epochs": 1.0, "sft_learning_rate": 1e-2, "reference_steps": 2, "lora_rank": lora}
    train(tiny_settings(inputs, tmp_path, loss=("bdpo",), **changed))
    logs = {name: read_log(tmp_path / name / "log.jsonl") for name in ("sft", "reference", "bdpo")}
    assert logs["sft"]["validation_loss"].iloc[-1] < logs["sft"]["validation_loss"].iloc[0]
    assert logs["reference"]["loss"][0] == LN2
    assert logs["bdpo"]["loss"][0] == LN2
    assert logs["bdpo"]["validation_logp_win"].iloc[0] == logs["reference"]["validation_logp_win"].iloc[-1]
    assert logs["bdpo"]["validation_logp_win"].iloc[0] != logs["reference"]["validation_logp_win"].iloc[0]
    if lora:
        assert not list(tmp_path.rglob("model/model.safetensors"))
        names = set(weights(tmp_path / "bdpo"))
        assert names
        assert all("lora_" in name for name in names)
        layers = json.loads((tmp_path / "sft" / "model" / "adapter_config.json").read_text("utf-8"))["target_modules"]
        assert layers == sorted(layers)  # a set's order would give each process another key of the next stage
        assert logs["bdpo"].attrs["settings"]["trained_parameters"] < logs["bdpo"].attrs["settings"]["parameters"] / 2
    assert differ(weights(tmp_path / "bdpo"), weights(tmp_path / "reference"))
    assert differ(weights(tmp_path / "reference"), weights(tmp_path / "sft"))

    train(tiny_settings(inputs, tmp_path, loss=("dpo",), init="base", **changed))
    base = read_log(tmp_path / "dpo" / "log.jsonl")
    assert base["loss"][0] != LN2
    assert base["validation_logp_win"].iloc[0] == logs["reference"]["validation_logp_win"].iloc[0]


def test_the_reference_that_is_kept_is_what_a_live_one_gives(inputs, straight):
    data = prepare(tiny_settings(inputs, straight).flat(), loading.load_tokenizer(inputs / "model"))
    live = with_logps(loading.load_model(inputs / "model"))
    for part in ("train", "held_out"):
        pairs = data.part(getattr(data, part))
        kept = load_file(straight / "cache" / f"model-{part}.safetensors")["logps"]
        found = score(live, pair_rows(pairs), Group(), pad=2, micro=3).view(-1, 2)
        logp, tokens = LONGEST_ANSWER
        torch.testing.assert_close(kept, found, rtol=0, atol=rounding(tokens, abs(logp), torch.float32))


def test_looking_at_sides_and_at_held_out_pairs_changes_nothing_in_training(inputs, tmp_path):
    for every in (0, 1):
        train(tiny_settings(inputs, tmp_path / f"{every}", sides_every=every, validate_every=every, save_every=every))
    without, with_ = (tmp_path / f"{every}" / "dpo" for every in (0, 1))
    assert not differ(weights(without), weights(with_))
    logs = [read_log(folder / "log.jsonl") for folder in (without, with_)]
    assert "grad_norm_win" in logs[1]
    assert "grad_norm_win" not in logs[0]
    assert "validation_loss" not in logs[0]
    assert logs[0]["loss"].tolist() == logs[1]["loss"].tolist()[:-1]


def test_a_run_without_held_out_pairs(inputs, tmp_path):
    train(tiny_settings(inputs, tmp_path, held_out=0, steps=1))
    log = read_log(tmp_path / "dpo" / "log.jsonl")
    assert log.attrs["settings"]["pairs"] == PAIRS
    assert not [name for name in log if name.startswith("validation")]


# On some processors a tiny model's bfloat16 rounding is as large as what a wrong mask changes, so rows are set apart.
@pytest.mark.filterwarnings("ignore::gradlab.llm.model.heads.ApartNotice")
def test_a_run_in_bfloat16_begins_at_ln_2_and_keeps_full_weights(inputs, tmp_path):
    train(tiny_settings(inputs, tmp_path / "full", precision="bf16", steps=2))
    log = read_log(tmp_path / "full" / "dpo" / "log.jsonl")
    assert log["loss"][0] == pytest.approx(math.log(2), rel=1e-2)
    assert {value.dtype for value in weights(tmp_path / "full" / "dpo").values()} == {torch.float32}
    train(tiny_settings(inputs, tmp_path / "lora", precision="bf16", lora_rank=2, steps=1, reference_steps=1))
    assert {value.dtype for value in weights(tmp_path / "lora" / "dpo").values()} == {torch.float32}
    assert read_log(tmp_path / "lora" / "dpo" / "log.jsonl")["loss"][0] == pytest.approx(math.log(2), rel=1e-2)


def test_tensorboard_shows_the_log(inputs, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiny_settings(inputs, tmp_path, tensorboard=True, steps=2))
    log = read_log(tmp_path / "dpo" / "log.jsonl")
    events = accumulator.EventAccumulator(str(tmp_path / "dpo" / "tensorboard")).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(log["loss"].tolist()[:2])
    assert len(events.Scalars("validation/loss")) == 2
    (tmp_path / "dpo" / "tensorboard" / "notes.csv").write_text("a,b\n1,2\n")  # no curve, and none of its business
    again = read_log(tmp_path / "dpo" / "tensorboard")
    assert set(again) == set(log)
    for name in log:
        assert again[name].tolist() == pytest.approx(log[name].tolist(), rel=1e-6, nan_ok=True)


def test_what_a_stage_is_known_by_has_the_names_from_before_settings_had_sections(tmp_path):
    options = {"loss": ("dpo", "ppo"), "reward": "r", "lora_rank": 2, "sft_epochs": 1.5, "reference_steps": 7}
    run = stages.Run(
        tiny_settings(tmp_path, tmp_path, **options), SimpleNamespace(fingerprint="d", train=range(10)), None, Group()
    )
    common = {
        "data": "d", "batch": 4, "seed": 0, "precision": "fp32", "reduction": "sum", "schedule": "cosine",
        "warmup": 0.0, "weight_decay": 0.0, "max_norm": 1.0, "lora_rank": 2, "lora_alpha": 16.0,
        "lora_targets": ("all-linear",), "lora_dropout": 0.0,
    }  # fmt: skip
    pair = {"loss": "DPO(beta=1.0)", "start": "base's", "reference": "base's", "learning_rate": 1e-2}
    samples = {"samples": 4, "sample_length": 128, "ppo_epochs": 1, "ppo_clip": 0.2, "beta": 1.0, "reward": "r"}
    samples["micro"] = 2  # it decides which samples are drawn; left out where it is the default
    known = {
        "sft": {"steps": 5, "learning_rate": 1e-5, "loss": "None", "start": "base's", "reference": None},
        "reference": {**pair, "steps": 7},
        "dpo": {**pair, "steps": 4},
        "ppo": {**pair, "loss": "None", "steps": 4, **samples},
    }
    made = [stages.SupervisedStage(run, "base"), stages.ReferenceStage(run, "base", "base")]
    made += [stages.loss_stage(run, name, "base", "base") for name in ("dpo", "ppo")]
    with (
        patch.object(loading, "weights_hash", lambda source: f"{source}'s"),
        patch.object(stages, "reward_hash", lambda spec: spec),
    ):
        assert {stage.name: stage.decided() for stage in made} == {
            name: {**common, **own} for name, own in known.items()
        }


# Resuming

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from tiny_llm import tiny_settings
from gradlab.llm.train import checkpoints, stages
torch.set_num_threads(1)
own, written = checkpoints.write_tensors, []

def write(path, tensors, **about):
    own(path, tensors, **about)
    written.append(path)
    if len(written) == 2:
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.write_tensors = write
stages.train(tiny_settings(Path({inputs!r}), Path({out!r}), steps=6))
"""


@pytest.mark.slow
def test_a_run_killed_while_it_writes_a_checkpoint_ends_bit_for_bit_as_one_that_was_not(inputs, straight, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), inputs=str(inputs), out=str(tmp_path))
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=240, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    folder = tmp_path / "dpo" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000004.tmp"]
    assert len((tmp_path / "dpo" / "log.jsonl").read_bytes().splitlines()) == 5  # the header, and steps 1 to 4
    train(tiny_settings(inputs, tmp_path, steps=6))
    assert json.loads((tmp_path / "dpo" / "done.json").read_text())["resumed_at"] == 2
    same_run(tmp_path, straight)


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(inputs, straight, tmp_path, capsys):
    settings = tiny_settings(inputs, tmp_path, steps=6)
    with stopped_after(5), pytest.raises(Killed):
        train(settings)
    newest = tmp_path / "dpo" / "checkpoints" / "step-00000004"
    os.truncate(newest / "part-0000.safetensors", 100)
    train(settings)
    assert f"gradlab: {newest} is damaged and is passed over" in capsys.readouterr().err
    assert json.loads((tmp_path / "dpo" / "done.json").read_text())["resumed_at"] == 2
    same_run(tmp_path, straight)


def test_an_adapter_with_dropout_resumes_bit_for_bit(inputs, tmp_path):
    changed = {"lora_rank": 2, "lora_dropout": 0.3, "steps": 4, "loss": ("bdpo",), "gradient_checkpointing": True}
    for name in ("whole", "resumed"):
        settings = tiny_settings(inputs, tmp_path / name, **changed)
        if name == "resumed":
            with stopped_after(3), contextlib.suppress(Killed):
                train(settings)
            torch.manual_seed(99)  # whoever else draws
        train(settings)
    assert json.loads((tmp_path / "resumed" / "bdpo" / "done.json").read_text())["resumed_at"] == 2
    logs = [(tmp_path / name / "bdpo" / "log.jsonl").read_bytes() for name in ("whole", "resumed")]
    assert logs[0] == logs[1]
    assert not differ(*(weights(tmp_path / name / "bdpo") for name in ("whole", "resumed")))
    train(tiny_settings(inputs, tmp_path / "other", **changed, seed=1))
    assert differ(*(weights(tmp_path / name / "bdpo") for name in ("whole", "other")))


def test_old_checkpoints_go(inputs, tmp_path):
    with stopped_after(5), pytest.raises(Killed):
        train(tiny_settings(inputs, tmp_path, steps=6, save_every=1, keep=2))
    left = sorted(path.name for path in (tmp_path / "dpo" / "checkpoints").iterdir())
    assert left == ["step-00000004", "step-00000005"]
    assert {path.suffix for path in (tmp_path / "dpo" / "checkpoints").rglob("*.*")} == {".safetensors", ".json"}


def test_ctrl_c_ends_after_the_step_with_a_checkpoint(inputs, straight, tmp_path, capsys):
    own = PolicyModel.step

    def step(policy, number, norm):
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return own(policy, number, norm)

    arguments = options(inputs, tmp_path, steps=6)
    with patch.object(PolicyModel, "step", step):
        complains(capsys, arguments, 130, "stopped; the same command goes on from the last checkpoint")
    assert (tmp_path / "dpo" / "checkpoints" / "step-00000003").is_dir()
    assert train_command.run(arguments) == 0
    assert json.loads((tmp_path / "dpo" / "done.json").read_text())["resumed_at"] == 3
    same_run(tmp_path, straight)


@pytest.mark.parametrize("when", ["in the last step", "at the last look"])
def test_ctrl_c_at_the_end_is_heard_and_loses_nothing(when, inputs, straight, tmp_path, capsys):
    owner, name = (PolicyModel, "step") if when == "in the last step" else (PairTask, "validate")
    own, looks = getattr(owner, name), []

    def interrupted(one, *rest):
        looks.append(1)
        if len(looks) == (6 if owner is PolicyModel else 4):  # of two, two and two steps, and the finished model
            os.kill(os.getpid(), signal.SIGINT)
        return own(one, *rest)

    arguments = options(inputs, tmp_path, steps=6, save_every=0)
    with patch.object(owner, name, interrupted):
        complains(capsys, arguments, 130, "stopped; the same command goes on from the last checkpoint")
    assert (tmp_path / "dpo" / "checkpoints" / "step-00000006").is_dir()
    assert train_command.run(arguments) == 0
    assert "dpo: 6 steps, validation loss" in capsys.readouterr().out  # at no pace
    assert json.loads((tmp_path / "dpo" / "done.json").read_text())["resumed_at"] == 6
    same_run(tmp_path, straight)


# Bad input


def without_tokenizer(folder):
    for file in (folder / "model").glob("token*"):
        file.unlink()


def with_pickle(folder):
    (folder / "model" / "model.safetensors").unlink()
    torch.save(tiny_model().state_dict(), folder / "model" / "pytorch_model.bin")


def with_more_layers(folder):
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 3}))


def with_short_weights(folder):
    file = folder / "model" / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)


def with_fewer_words(folder):
    tiny = tiny_model()
    tiny.resize_token_embeddings(20)
    tiny.save_pretrained(folder / "model")


def with_broken_line(folder):
    (folder / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": ')


BAD_FOLDERS = {
    "no model": (lambda folder: shutil.rmtree(folder / "model"), 1, r"model must be a folder .* \(not there\)"),
    "no tokenizer": (without_tokenizer, 1, "tokenizer must be a folder .* with a tokenizer"),
    "pickle": (with_pickle, 1, r"model must be .* in safetensors.* no file named model.safetensors"),
    "layers without weights": (with_more_layers, 1, r"model must be .* \(it lacks model.layers.2\."),
    "torn weights": (with_short_weights, 1, r"model must be .* incomplete metadata"),
    "vocabulary": (with_fewer_words, 2, r"tokenizer gives ids up to 32 .* embeddings for 20 tokens"),
    "no data": (lambda folder: (folder / "pairs.jsonl").unlink(), 1, r"pairs.jsonl is no file"),
    "broken data": (with_broken_line, 2, r"pairs.jsonl, line 2: no JSON"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folders_are_one_line(inputs, tmp_path, capsys, name):
    harm, expected, words = BAD_FOLDERS[name]
    shutil.copytree(inputs, tmp_path / "in")
    harm(tmp_path / "in")
    complains(capsys, options(tmp_path / "in", tmp_path / "out", steps=1), expected, words)


BAD_OPTIONS = {
    "too few pairs": ({"held_out": PAIRS}, f"data must have more pairs than are held out, got {PAIRS} .* held_out 14"),
    "no batch": ({"batch": 0}, "batch must be a whole number ≥ 1, got 0"),
    "no loss of that name": ({"loss": ("dpoo",)}, "loss must be one of dpo, .*; got 'dpoo'; did you mean 'dpo'"),
    "no module of a loss": ({"loss": ("no_such_module:Mine",)}, "loss no_such_module:Mine: there is no module"),
    "numbers of a loss": ({"loss": ("dpo:beta=0",)}, "beta must be finite and > 0, got 0"),
    "one loss with other numbers": ({"loss": ("dpo", "dpo:beta=2")}, "loss must name one or more losses, each once"),
    "one loss twice": ({"loss": ("dpo", "dpo")}, "loss must name one or more losses, each once"),
    "hyper": ({"hyper": ("clip=x",)}, "hyper must be NAME=VALUE with a number, got 'clip=x'"),
    "hyper twice": ({"hyper": ("clip=0.1", "clip=0.2")}, "hyper must have each name once, got clip twice"),
    "hyper name": ({"hyper": ("clap=1",)}, "hyper must be one of .*; got 'clap'"),
    "lora target": ({"lora_rank": 2, "lora_targets": ("nope",)}, r"lora.targets must name linear layers .*\['nope'\]"),
    "device": ({"device": "cuda"}, "device must be auto or cpu on a machine without CUDA"),
    "lengths": ({"max_length": 1}, "max_length must be a whole number"),
    "template": ({"template": "chat"}, "template must be plain or beaver for a tokenizer without a chat template"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_one_line(inputs, tmp_path, capsys, name):
    changed, words = BAD_OPTIONS[name]
    if name == "device" and torch.cuda.is_available():
        pytest.skip("speaks of machines without a CUDA device")
    complains(capsys, options(inputs, tmp_path, **{"steps": 1, **changed}), 2, words)


def test_an_unknown_option_ends_as_command_lines_do(inputs, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train_command.run(options(inputs, tmp_path, bacth=3))
    assert ended.value.code == 2
    assert "--bacth" in capsys.readouterr().err


def test_settings_of_a_finished_stage_or_a_checkpoint_cannot_change(inputs, straight, tmp_path, capsys):
    done, half = tmp_path / "done", tmp_path / "half"
    shutil.copytree(straight, done)
    words = r"dpo was trained with .* or model \(loss: DPO\(beta=1.0\) there, DPO\(beta=0.5\) here\); go on with"
    complains(capsys, options(inputs, done, steps=6, beta=0.5), 2, words)
    complains(
        capsys, options(inputs, done, steps=6, held_out=3), 2, r"otherwise \(held_out: 4 there, 3 here\); name another"
    )
    (done / "dpo" / "done.json").write_text("{")
    complains(capsys, options(inputs, done, steps=6), 2, "done.json is damaged, .*; remove .*, and it is trained")
    with stopped_after(2), pytest.raises(Killed):
        train(tiny_settings(inputs, half, steps=6))
    kept = (half / "dpo" / "log.jsonl").read_bytes()
    words = "step-00000002 is of a run with other settings, data or model"
    complains(capsys, options(inputs, half, steps=6, learning_rate=0.5), 2, words)
    assert (half / "dpo" / "log.jsonl").read_bytes() == kept
    assert train_command.run(options(inputs, half, steps=6)) == 0
    same_run(half, straight)


OWN_LOSS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    beta: float = 1.0
    name = "mine"
    equation = "(1 − β(h_w − h_l))²"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        return (1 - self.beta * (logps.win_logratio - logps.lose_logratio)) ** 2
"""


def test_a_loss_of_a_users_file_trains_goes_on_and_is_refused_when_it_has_changed(
    inputs, tmp_path, capsys, monkeypatch, registered
):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OWN_LOSS)
    asked = {"loss": ("mine.py:Mine:beta=0.5", "dpo"), "steps": 2, "save_every": 1}
    with stopped_after(1), pytest.raises(Killed):
        train(tiny_settings(inputs, Path("half"), **asked))
    assert train_command.run(options(inputs, "half", **asked)) == 0
    header = read_log("half/mine/log.jsonl").attrs["settings"]
    assert (header["loss"], header["beta"], header["loss_facts"]["start_value"]) == ("mine", 0.5, 1.0)
    assert re.fullmatch("[0-9a-f]{16,}", header["loss_definition"])
    assert "loss_definition" not in read_log("half/dpo/log.jsonl").attrs["settings"]
    Path("mine.py").write_text(OWN_LOSS.replace("(1 -", "(2 -"))
    complains(capsys, options(inputs, "half", **asked), 2, r"mine was trained with other settings.*loss_definition: ")
    with stopped_after(1), pytest.raises(Killed):
        train(tiny_settings(inputs, Path("other"), **asked))
    Path("mine.py").write_text(OWN_LOSS)
    complains(capsys, options(inputs, "other", **asked), 2, "step-00000001 is of a run with other settings, data or")
    unregister_loss("mine")
    assert [system.name for system in open_run("half").systems] == ["reference", "dpo", "mine"]


def test_two_runs_do_not_share_a_folder(inputs, tmp_path, capsys):
    arguments = options(inputs, tmp_path / "run", steps=1)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"):
        complains(capsys, arguments, 2, "out must be a folder that no other run is using, got .*run")
    assert train_command.run(arguments) == 0


def test_a_file_is_no_folder_for_a_run(inputs, tmp_path, capsys):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        complains(capsys, options(inputs, out, steps=1), 2, f"out must be a folder, or a name for one, got {out}")


@pytest.mark.parametrize("name", ["dpo/log.jsonl", "dpo/model/thesis.txt", "sft/thesis.txt", "cache/thesis.txt"])
def test_what_others_have_put_in_the_place_of_a_stage_stays(inputs, tmp_path, capsys, name):
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    words = f"run/{name.partition('/')[0]} is there and was not written by gradlab; name another out"
    complains(capsys, options(inputs, tmp_path / "run", steps=1), 1, words)
    assert file.read_text() == "mine"
    assert not (tmp_path / "run" / "data.json").exists()


@pytest.mark.parametrize("name", ["log.jsonl", "model/thesis.txt", "samples.jsonl", "checkpoints/thesis.txt"])
def test_what_others_have_put_in_the_place_of_a_reward_model_stays(inputs, tmp_path, name):
    file = tmp_path / "reward" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="is there and was not written by gradlab"):
        train_reward(inputs / "model", [Pair("What?", "Yes.", "No!", "here")], tmp_path / "reward", max_length=96)
    assert file.read_text() == "mine"


def test_a_damaged_description_of_the_data_is_called_so(inputs, tmp_path, capsys):
    (tmp_path / "data.json").write_text('{"fingerprint": ')
    complains(capsys, options(inputs, tmp_path, steps=1), 2, f"{tmp_path / 'data.json'} is damaged")


def test_weights_and_biases_must_be_there_before_anything_is_done(inputs, tmp_path, capsys):
    with patch("gradlab.llm.train.stages.find_spec", return_value=None):
        complains(
            capsys,
            [*options(inputs, tmp_path / "run"), "--log.wandb"],
            2,
            "wandb must be installed .* or leave --log.wandb out",
        )
    assert not (tmp_path / "run").exists()


def test_the_doctors_baseline_is_dpo_of_an_earlier_command_too(inputs, tmp_path):
    seen = {}

    def examine_log(log, baseline=None):
        seen[log.attrs["settings"]["loss"]] = baseline
        return []

    with patch("gradlab.doctor.examine_log", examine_log):
        for loss in ("bdpo", "dpo", "ipo"):
            assert train_command.run(options(inputs, tmp_path, steps=1, loss=(loss,))) == 0
    assert seen["bdpo"] is seen["dpo"] is None
    assert seen["ipo"].attrs["settings"]["loss"] == "dpo"


def test_the_end_of_a_stage_says_how_well_it_went(inputs, tmp_path, capsys):
    train(tiny_settings(inputs, tmp_path, steps=1))
    done = json.loads((tmp_path / "dpo" / "done.json").read_text())
    said = f"validation loss {done['validation_loss']:.3f}, validation accuracy {done['validation_accuracy']:.3f}, "
    assert said in capsys.readouterr().out
    last = read_log(tmp_path / "dpo" / "log.jsonl").iloc[-1]
    assert last["validation_loss"] == done["validation_loss"]


def test_another_models_reference_is_refused(inputs, straight, tmp_path, capsys):
    shutil.copytree(straight, tmp_path / "out")
    file = tmp_path / "out" / "cache" / "model-train.safetensors"
    arguments = options(inputs, tmp_path / "out", steps=1, loss=("ipo",))
    kept = load_file(file)["logps"]
    write_tensors(file, {"logps": kept}, key="another")
    complains(capsys, arguments, 2, f"{file} is the cache of another model or of other data; remove it")
    save_file({"logps": kept + 1}, file, {"key": "another"})
    assert train_command.run(arguments) == 0
    assert f"gradlab: {file} is damaged, and is made again" in capsys.readouterr().err
    made = load_file(file)["logps"]
    scored = ~made.isnan().any(1)
    assert int(scored.sum()) == 4  # which the only step sees
    torch.testing.assert_close(made[scored], kept[scored], rtol=0, atol=1e-5)


def test_an_adapters_rank_is_its_own(inputs, tmp_path, capsys):
    train(tiny_settings(inputs, tmp_path, steps=1, lora_rank=2))
    shutil.copytree(tmp_path / "dpo" / "model", tmp_path / "in" / "model")
    shutil.copy(inputs / "pairs.jsonl", tmp_path / "in")
    for rank in (0, 4):
        words = f"lora.rank must be that of the adapter in {tmp_path / 'in' / 'model'}, 2, got {rank}"
        complains(capsys, options(tmp_path / "in", tmp_path / "out", steps=1, lora_rank=rank), 2, words)
    for name, value in (("lora_alpha", 64), ("lora_dropout", 0.5)):
        arguments = options(tmp_path / "in", tmp_path / "out", steps=1, lora_rank=2, **{name: value})
        complains(capsys, arguments, 2, f"{FLAT[name]} must be that of the adapter in .*, (16|0), got {value:g}")
    assert train_command.run(options(tmp_path / "in", tmp_path / "out", steps=1, lora_rank=2)) == 0


def test_an_adapters_layers_are_its_own(inputs, tmp_path, capsys):
    own = {"loss": ("dpo",), "steps": 1, "lora_rank": 2}
    q_proj = {**own, "lora_targets": ("q_proj",)}
    for name, changed in (("all", own), ("q_proj", q_proj), ("upper", {**own, "train_from": 1})):
        train(tiny_settings(inputs, tmp_path / name, **changed))

    def refuse(name, words, **changed):
        words = f"lora.targets must be the layers of the adapter in {tmp_path / name / 'dpo' / 'model'}, {words}"
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            train(tiny_settings(inputs, tmp_path / "out", model=str(tmp_path / name / "dpo" / "model"), **changed))

    every = "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"
    refuse("all", f"{every} (14 in all), got q_proj, q_proj (2 in all)", **q_proj)
    refuse("q_proj", f"q_proj (2 in all), got all-linear, {every} (14 in all)", **own)
    refuse("upper", f"{every} (7 in all), got all-linear, {every} (14 in all)", **own)
    refuse("all", f"{every} (14 in all), got all-linear with train_from 1, {every} (7 in all)", **own, train_from=1)
    named = {**own, "lora_targets": tuple(every.split())}
    train(tiny_settings(inputs, tmp_path / "same", model=str(tmp_path / "all" / "dpo" / "model"), **named))


@pytest.mark.parametrize(
    ("name", "value"), [("alpha", 32.0), ("dropout", 0.1), ("targets", ("q_proj",)), ("base", "4bit")]
)
def test_options_of_an_adapter_are_refused_without_one(tmp_path, name, value):
    words = f"lora.{name} must be left out where lora.rank is 0, which trains all weights; got {value!r}"
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        tiny_settings(tmp_path, tmp_path / "out", **{f"lora_{name}": value})
    assert tiny_settings(tmp_path, tmp_path / "out", lora_rank=2, **{f"lora_{name}": value}).lora.rank == 2


def test_the_peak_of_memory_is_that_of_the_stage(inputs, tmp_path, monkeypatch):
    peak, steps = [0], {"reference": 7000, "dpo": 900, "bdpo": 80}  # bytes that each stage's steps hold

    def look(stage, model, step):
        peak[0] = max(peak[0], steps[stage])  # as CUDA counts: it stays until it is reset

    monkeypatch.setattr(peak_memory, "begin", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(peak_memory, "reached", lambda device: peak[0])
    settings = tiny_settings(inputs, tmp_path, loss=("dpo", "bdpo"), steps=1, reference_steps=1)
    train(settings, look)
    assert {name: json.loads((tmp_path / name / "done.json").read_text())["peak_memory"] for name in steps} == steps


def test_the_peak_of_memory_is_the_devices(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5 if device.index == 1 else 0)
    one, cpu = torch.device("cuda", 1), torch.device("cpu")
    for device in (one, cpu):
        peak_memory.begin(device)
    assert asked == [one]
    assert (peak_memory.reached(one), peak_memory.reached(cpu)) == (5, None)


def test_a_step_that_is_not_finite_stops_with_its_batch_written_down(inputs, straight, tmp_path, capsys):
    file = tmp_path / "dpo" / "stopped-at-step-3.json"
    words = f"step 3: the gradient is not finite; the batch is in {file}, and the last checkpoint is kept"
    with patch.object(PolicyModel, "accumulate", not_finite):
        complains(capsys, options(inputs, tmp_path, steps=6), 1, words)
    page = json.loads(file.read_text())
    assert page["step"] == 3
    assert len(page["pairs"]) == len(page["training_pairs"]) == 2  # the last of an epoch of 10
    texts = [json.loads(row) for row in (inputs / "pairs.jsonl").read_text().splitlines()]
    for pair in page["pairs"]:
        number = int(pair["text"].pop("place").rpartition("line ")[2])
        assert pair["text"] == texts[number - 1] | {"messages": None}
        assert set(pair["tokens"]) == {"prompt", "win", "lose"}
    capsys.readouterr()
    assert doctor_command.run([str(tmp_path / "dpo" / "log.jsonl")]) == 3
    assert "The training stopped in step 3, because a number was not finite." in capsys.readouterr().out
    assert train_command.run(options(inputs, tmp_path, steps=6)) == 0
    doctor_command.run([str(tmp_path / "dpo" / "log.jsonl")])
    assert "stopped in step" not in capsys.readouterr().out
    same_run(tmp_path, straight)


def test_a_loss_that_stops_because_a_number_is_not_finite_stops_no_other(inputs, straight, tmp_path, capsys):
    own = PolicyModel.accumulate

    def first_not_finite(policy, *parts, step, **rest):
        return (own if (tmp_path / "dpo").exists() else not_finite)(policy, *parts, step=step, **rest)

    asked = options(inputs, tmp_path, loss=("bdpo", "dpo"), steps=6)
    words = f"step 3: the gradient is not finite; the batch is in {tmp_path / 'bdpo' / 'stopped-at-step-3.json'}, [^;]*"
    with patch.object(PolicyModel, "accumulate", first_not_finite):
        complains(capsys, asked, 1, words)
    assert stopped_at(tmp_path / "bdpo") == 3
    same_run(tmp_path, straight)
    assert train_command.run(asked) == 0
    assert stopped_at(tmp_path / "bdpo") is None


def test_another_number_of_processes_scores_the_reference_anew_in_bf16(inputs, tmp_path, monkeypatch):
    """In bf16 weights that are spread out are rounded otherwise, so neither way may take the other's numbers."""
    settings = {"precision": "bf16", "steps": 1}
    train(tiny_settings(inputs, tmp_path, loss=("dpo",), **settings))
    kinds = stages.kinds_of
    monkeypatch.setattr(stages, "kinds_of", lambda *given: (*kinds(*given)[:2], True, kinds(*given)[3]))
    train(tiny_settings(inputs, tmp_path, loss=("dpo", "bdpo"), **settings))
    assert len(list((tmp_path / "cache").glob("model-train-*.safetensors"))) == 2


def test_the_log_of_a_loss_without_beta_says_what_its_rewards_are(inputs, tmp_path):
    train(tiny_settings(inputs, tmp_path, loss=("orpo",), steps=1))
    assert read_log(tmp_path / "orpo" / "log.jsonl").attrs["settings"]["beta"] == 1.0


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")])
def test_a_full_disk_keeps_the_former_checkpoint(inputs, straight, tmp_path, capsys, error):
    own, written = tensor_file.save_file, []

    def full(tensors, path, about):
        written.append(path)
        if len(written) == 5:  # after the tokens, and two of the reference's cache
            Path(path).write_bytes(b"a part of it")
            raise error
        own(tensors, path, about)

    folder = tmp_path / "dpo" / "checkpoints"
    words = (
        f"checkpoint of step 4 could not be written to {folder}: .*{re.escape(str(error))}; the former ones are kept"
    )
    with patch.object(tensor_file, "save_file", full):
        complains(capsys, options(inputs, tmp_path, steps=6), 1, words)
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    if isinstance(error, OSError):
        assert train_command.run(options(inputs, tmp_path, steps=6)) == 0
        same_run(tmp_path, straight)


def test_a_full_disk_at_the_end_keeps_the_checkpoints(inputs, straight, tmp_path, capsys):
    own = LlamaForCausalLM.save_pretrained

    def full(model, folder, **rest):
        own(model, folder, **rest)
        raise SafetensorError("I/O error: No space left on device")

    words = f"model could not be written to {tmp_path / 'dpo' / 'model'}: I/O error: No space left on device"
    with patch.object(LlamaForCausalLM, "save_pretrained", full):
        complains(capsys, options(inputs, tmp_path, steps=6), 1, words)
    assert sorted(path.name for path in (tmp_path / "dpo").iterdir() if path.suffix != ".lock") == [
        "checkpoints", "log.jsonl",
    ]  # fmt: skip
    assert train_command.run(options(inputs, tmp_path, steps=6)) == 0
    same_run(tmp_path, straight)


# Settings in a file


REQUIRED = ["--model", "m", "--data", "d", "--out", "o"]
BAD_FILES = {
    "batch = 'x'": "batch in {file} must be a whole number, got 'x'",
    "batch = true": "batch in {file} must be a whole number, got True",
    "batch = 2.5": "batch in {file} must be a whole number, got 2.5",
    "learning_rate = 'fast'": "learning_rate in {file} must be a number, got 'fast'",
    "[log]\ntensorboard = 1": "log.tensorboard in {file} must be true or false, got 1",
    "gradient_checkpointing = 'all'": "gradient_checkpointing in {file} must be true, false or a number, got 'all'",
    "gradient_checkpointing = 1.5": "gradient_checkpointing must be finite and lie in [0, 1], got 1.5",
    "loss = [1]": "loss in {file} must be a text or a list of texts, got [1]",
    "model = 3": "model in {file} must be a text, got 3",
    "out = ['a']": "out in {file} must be a text, got ['a']",
    "template = 'fancy'": "template in {file} must be one of plain, chat, beaver; got 'fancy'",
    "bacth = 2": "option in {file} must be one of ",
    "[lora]\nrnak = 2": "option of [lora] in {file} must be one of rank, alpha, targets, dropout, base; got 'rnak'; ",
    "lora = 2": "lora in {file} must be a table, got 2",
    "lora_rank = 2": "lora_rank in {file} is now rank in the table [lora]",
    "reward = 'm:f'": "reward in {file} is now reward in the table [ppo]",
    "batch = ": "{file} is no TOML: ",
    "batch = 0": "batch must be a whole number ≥ 1, got 0",
    "loss = 'ppo'": "ppo.reward must name a reward model",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_bad_file_of_settings_is_one_line(tmp_path, capsys, text):
    file = tmp_path / "run.toml"
    file.write_text(text)
    words = re.escape(BAD_FILES[text].format(file=file))
    complains(capsys, ["--config", str(file), *REQUIRED], 2, words)


def test_a_former_name_of_an_option_is_told_the_new_one(capsys):
    given = [*REQUIRED, "--lora-rank", "8", "--sample_length=5", "--sides-every", "0"]
    complains(capsys, given, 2, "--lora-rank is now --lora.rank; --sample_length is now --ppo.length; --sides-every is")


def test_no_file_of_settings(capsys):
    complains(
        capsys,
        ["--config", "none.toml"],
        1,
        "config must be a file that can be read, got none.toml: No such file or directory",
    )
    complains(capsys, ["--model", "m", "--config"], 2, "config must name a TOML file, got none")


def test_options_win_over_files_and_later_files_over_earlier(tmp_path):
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text(
        'model = "m"\nout = "o"\nbatch = 3\nloss = "ipo"\nlearning_rate = 1\nmicro = 5\nmax_prompt = 9\n'
        "[lora]\nrank = 2\nalpha = 3"
    )
    two.write_text('batch = 4\nloss = ["dpo", "bdpo"]\n[log]\ntensorboard = true\n[lora]\nrank = 4')
    made = read_settings(["--config", str(one), "--data", "d", f"--config={two}", "--micro", "7"], "gradlab train")
    assert (made.model, made.data, made.out) == ("m", "d", Path("o"))
    assert (made.batch, made.micro, made.max_prompt, made.log.tensorboard) == (4, 7, 9, True)
    assert (made.lora.rank, made.lora.alpha) == (4, 3.0)
    assert made.loss == ("dpo", "bdpo")
    assert made.learning_rate == 1.0


def test_recipes_settle_what_is_left_out():
    made = read_settings([*REQUIRED, "--loss", "nbdpo", "dpo"], "gradlab train")
    assert (made.of("epochs"), made.of("reference.steps"), made.of("learning_rate")) == (2.0, 300, 1e-6)
    assert (made.loss_of("nbdpo").beta, made.loss_of("nbdpo").clip) == (1.0, 0.3)
    other = read_settings(
        [*REQUIRED, "--recipe", "gentle", "--beta", "2", "--loss", "nbdpo", "--hyper", "clip=0.4"], "gradlab train"
    )
    assert (other.of("epochs"), other.loss_of("nbdpo").beta, other.loss_of("nbdpo").clip) == (1.0, 2.0, 0.4)


@pytest.mark.parametrize(
    ("words", "text", "share"),
    [((), "", 0.0), (("--gradient-checkpointing",), "true", 1.0), (("--gradient-checkpointing", "0.4"), "0.4", 0.4)],
)
def test_a_share_of_the_layers_may_be_given_as_a_flag(tmp_path, words, text, share):
    file = tmp_path / "run.toml"
    file.write_text(f"gradient_checkpointing = {text}" if text else "")
    for given in ([*words, *REQUIRED], ["--config", str(file), *REQUIRED]):
        assert read_settings(given, "gradlab train").gradient_checkpointing == share


def test_help_tells_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        read_settings(["--help"], "gradlab train")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name in ("--model", "--data", "--loss", "--log.sides-every", "--reduction", "--lora.rank", "--config"):
        assert name in text
