"""Two processes, by DDP and by FSDP, train as one does; what goes wrong is told once."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("needs gloo: this build of PyTorch lacks it", allow_module_level=True)

from llm_two_processes import MOVED, Killed, stopped_after
from safetensors.torch import load_file
from tiny_llm import TWO, options, quick_collections, tiny_settings, torchrun

from gradlab.doctor.training_log import read_log
from gradlab.llm.model.group import Elsewhere, Group, start_group
from gradlab.llm.train.stages import train

# Differences of log-probabilities of about −30: their rounding in float32 is that of 30, not their own.
DIFFERENCES = re.compile("(validation_)?(reward_.*|margin|delta_.*)")


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures(quick_collections.__name__)]


@pytest.fixture(scope="module")
def two(inputs, tmp_path_factory):
    """What two processes did, started by torchrun: their folder, and what they wrote on stdout and stderr."""
    out = tmp_path_factory.mktemp("two")
    for name in MOVED:
        with stopped_after(1), pytest.raises(Killed):
            train(tiny_settings(inputs, out / f"from-one-{name}", **{**TWO[name]}))
    stdout, stderr = torchrun(Path(__file__).with_name("llm_two_processes.py"), inputs, out, timeout=900)
    return out, stdout, stderr


def model_of(folder):
    [file] = (folder / "model").glob("*.safetensors")
    return load_file(file)


def distances(one, other):
    """How far the columns of two logs are apart, as shares of the numbers that they are rounded as."""
    assert list(one) == list(other)
    apart = {}
    for name in one:
        size = one[name].abs().max()
        apart[name] = (one[name] - other[name]).abs().max() / max(size, 30 if DIFFERENCES.fullmatch(name) else 1)
    return apart


@pytest.mark.parametrize("name", [name for name in TWO if "bf16" not in name])
def test_two_processes_train_as_one(inputs, two, tmp_path, name):
    out, *_ = two
    train(tiny_settings(inputs, tmp_path, **TWO[name]))
    done = sorted(path.parent.name for path in tmp_path.glob("*/done.json"))
    assert "bdpo" in done
    assert ("sft" in done) == (name == "ddp")
    for stage in done:
        logs = [read_log(folder / stage / "log.jsonl") for folder in (tmp_path, out / name)]
        assert max(distances(*logs).values()) < 1e-6
        assert logs[1].attrs["settings"]["processes"] == 2
        assert stage == "sft" or logs[1]["grad_split_error"].max() < 1e-5
        one, other = (model_of(folder / stage) for folder in (tmp_path, out / name))
        assert one.keys() == other.keys()
        for key, value in one.items():
            torch.testing.assert_close(other[key], value, rtol=0, atol=1e-6)


def test_adapters_train_in_bfloat16_over_two_processes(inputs, two, tmp_path):
    out, *_ = two
    train(tiny_settings(inputs, tmp_path, **TWO["lora-fsdp-bf16"]))
    one, other = (read_log(folder / "bdpo" / "log.jsonl") for folder in (tmp_path, out / "lora-fsdp-bf16"))
    for name in ("loss", "logp_win", "grad_norm", "grad_norm_win", "validation_logp_lose"):
        assert other[name][0] == pytest.approx(one[name][0], rel=0.05)
    assert {value.dtype for value in model_of(out / "lora-fsdp-bf16" / "bdpo").values()} == {torch.float32}


def test_fsdp_resumes_bit_for_bit(two):
    out, *_ = two
    assert '"resumed_at": 2' in (out / "resumed" / "bdpo" / "done.json").read_text()
    rows = [(out / name / "bdpo" / "log.jsonl").read_bytes().splitlines()[1:] for name in ("fsdp", "resumed")]
    assert rows[0] == rows[1]  # the header names folders
    files = [out / name / "bdpo" / "model" / "model.safetensors" for name in ("fsdp", "resumed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_one_process_goes_on_with_the_parts_of_two(inputs, two, capsys):
    out, *_ = two
    newest = out / "stopped" / "bdpo" / "checkpoints" / "step-00000002"
    assert sorted(path.name for path in newest.iterdir()) == [
        "part-0000.safetensors", "part-0001.safetensors", "state.json",
    ]  # fmt: skip
    train(tiny_settings(inputs, out / "stopped", **TWO["fsdp"]))
    assert "was written by 2 processes, and 1 go on" in capsys.readouterr().err
    assert_same(out / "stopped" / "bdpo", out / "fsdp" / "bdpo", resumed=2)


@pytest.mark.parametrize("name", MOVED)
def test_two_processes_go_on_where_one_stopped(two, name):
    out, _, stderr = two
    assert "was written by 1 processes, and 2 go on" in stderr
    assert_same(out / f"from-one-{name}" / "bdpo", out / name / "bdpo", resumed=1)


def assert_same(folder, straight, *, resumed):
    """Hold a training that went on after a step against one that did not stop."""
    assert f'"resumed_at": {resumed}' in (folder / "done.json").read_text()
    assert max(distances(*(read_log(one / "log.jsonl") for one in (folder, straight))).values()) < 1e-6
    one, other = model_of(folder), model_of(straight)
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=1e-6)


def test_what_goes_wrong_is_told_once(two):
    out, stdout, stderr = two
    assert [(out / f"statuses-{rank}").read_text() for rank in (0, 1)] == ["[1, 1]", "[1, 1]"]
    lines = [line for line in stderr.splitlines() if line.startswith("gradlab: ")]
    lines = [line for line in lines if "was written by 1 processes" not in line]
    assert len(lines) == 2
    assert re.search("missing.jsonl is no file", lines[0])
    stopped = "step 3: the gradient is not finite; the batch is in .*{}/stopped-at-step-3.json"
    assert re.search("; ".join(f"{stopped.format(loss)}, [^;]*" for loss in ("dpo", "bdpo")), lines[1])
    assert stdout.count("10 pairs to train on, 4 held out") == len(TWO) + len(MOVED) + 3


def test_only_what_torchrun_has_started_is_many(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with start_group("cpu") as group:
        assert (group.rank, group.size, group.is_main) == (0, 1, True)
        assert group.on_all(lambda: 3) == group.on_main(lambda: 3) == group.broadcast(3) == 3
        for way in (group.on_all, group.on_main):
            with pytest.raises(ZeroDivisionError):
                way(lambda: 1 // 0)
    assert not torch.distributed.is_initialized()
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda; got 'gpu'"), start_group("gpu"):
        pass


def test_a_failure_elsewhere_is_no_news_of_its_own(capsys):
    from gradlab.cli import guard

    def work():
        raise Elsewhere

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guard.time, "sleep", lambda _: None)
        assert guard.guarded(work) == 1
    assert capsys.readouterr() == ("", "")
    assert Group().is_main


def test_torchrun_trains_by_the_name_of_the_package(inputs, tmp_path):
    stdout, _ = torchrun("-m", "gradlab.llm", *options(inputs, tmp_path, steps=1, distribution="ddp"))
    assert stdout.count("dpo, gradlab doctor:") == 1
    assert read_log(tmp_path / "dpo" / "log.jsonl").attrs["settings"]["processes"] == 2


@pytest.mark.parametrize("door", [["-m", "gradlab.llm"], ["scripts/llm_train.py"]], ids=" ".join)
def test_each_door_leads_to_gradlab_train(door):
    arguments = ["--model", "m", "--data", "d", "--out", "o", "--loss", "bdp"]
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, *door, *arguments], capture_output=True, text=True, cwd=root, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch("gradlab: loss must be one of dpo, .*; got 'bdp'; did you mean .*\n", ran.stderr)


@pytest.mark.parametrize("rank", [None, "0"])
def test_a_program_leaves_with_its_status_and_all_that_it_said(rank):
    code = "from gradlab.console import leave; print('said', end=''); leave(7)"
    env = {name: value for name, value in os.environ.items() if name != "RANK"} | ({"RANK": rank} if rank else {})
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, "said", "")
