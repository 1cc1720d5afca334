"""Flipped bits, kills and full disks at whole runs of a tiny language model: equal bits in the end, or one line."""

import contextlib
import gc
import io
import json
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("transformers")

from full_disk import filled, limit, small_disk
from llm_two_processes import Killed, stopped_after
from tiny_llm import quick_collections, tiny_settings

from gradlab.llm.data.pairs import read_pairs
from gradlab.llm.judge.evaluate import evaluate
from gradlab.llm.model.finished import check_model
from gradlab.llm.model.loading import load_model, load_tokenizer, save_folder, with_lora
from gradlab.llm.model.reward_models import EXTRA
from gradlab.llm.model.rewards import load_reward
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.stages import train

pytestmark = pytest.mark.usefixtures(quick_collections.__name__)
RUN = {"sft_epochs": 0.5, "steps": 5, "save_every": 2, "sides_every": 0}
HOW = {"prompts": 3, "samples": 2, "length": 5, "device": "cpu"}
WEIGHTS = ("sft/model/model.safetensors", "dpo/model/model.safetensors")


@pytest.fixture(scope="module")
def place(inputs, tmp_path_factory):
    """A folder with ``in``, the inputs; ``clean``, a run without a fault; ``half``, one that was killed on its way."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(inputs, folder / "in")
    for name in ("half", "clean"):
        if name == "half":
            with stopped_after(4), pytest.raises(Killed):
                train(tiny_settings(folder / "in", folder / "out", **RUN))
        else:
            train(tiny_settings(folder / "in", folder / "out", **RUN))
        shutil.copytree(folder / "out", folder / name)
    return folder


def quietly(work):
    """Return the work's result, or its error, which has one line for a user; and what was said meanwhile."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            done = work()
        except (OSError, ValueError) as error:
            done = error
    assert not isinstance(done, Exception) or "\n" not in str(done)
    assert "Traceback" not in said.getvalue()
    return done, said.getvalue()


def weights(out):
    return {name: (out / name).read_bytes() for name in WEIGHTS if (out / name).exists()}


def flip(file, bit):
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def flips(folder, number, seed):
    """Some bits of each file: half of them among the first 100 bytes, where formats say what they are."""
    draw = random.Random(seed)
    for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.stat().st_size):
        size = 8 * file.stat().st_size
        for turn in range(number):
            yield file.relative_to(folder), draw.randrange(min(size, 800) if turn % 2 else size)


def again(place, name):
    """``out``, as it was in the run of this name."""
    shutil.rmtree(place / "out", ignore_errors=True)
    shutil.copytree(place / name, place / "out")
    return place / "out"


def resumed_after(place, source, number, seed):
    """Resume the half run after each flip in ``source`` ("half": in the run's folder); the flips, and those that told.

    An end with status 0 and other weights is the fault that must not be.
    """
    tried, lost, clean = 0, [], weights(place / "clean")
    for file, bit in list(flips(place / source, number, seed)):
        out = again(place, "half")
        struck = out if source == "half" else place / source
        flip(struck / file, bit)
        try:
            done, _ = quietly(lambda: train(tiny_settings(place / "in", place / "out", **RUN)))
        finally:
            if source != "half":
                flip(struck / file, bit)
        tried += 1
        if not isinstance(done, Exception) and weights(out) != clean:
            lost.append((str(file), bit))
    return tried, lost


@pytest.mark.slow
def test_a_flipped_bit_in_a_half_run_is_repaired_or_told(place, faults):
    tried, lost = resumed_after(place, "half", 1, seed=0)
    faults("flipped bit", "a file of a run that is resumed: equal weights or one line", tried=tried, lost=len(lost))
    assert not lost


@pytest.mark.long
@pytest.mark.parametrize("source", ["half", "in"])
def test_many_flipped_bits_in_a_half_run_are_repaired_or_told(place, source, faults):
    tried, lost = resumed_after(place, source, 12, seed=1)
    what = "a file of a run that is resumed" if source == "half" else "the model or the pairs of a run that is resumed"
    faults("flipped bit", f"{what}: equal weights or one line", tried=tried, lost=len(lost))
    assert not lost


def evaluated_after(place, number, seed, *, again_too):
    tried, lost = 0, []
    again(place, "clean")
    clean = evaluate(place / "out", **HOW)
    shutil.rmtree(place / "judged", ignore_errors=True)
    shutil.copytree(place / "out", place / "judged")
    for file, bit in list(flips(place / "judged", number, seed)):
        out = again(place, "judged" if again_too else "clean")
        if not (out / file).exists():
            continue
        flip(out / file, bit)
        done, _ = quietly(lambda: evaluate(place / "out", **HOW))
        tried += 1
        if not isinstance(done, Exception) and not done.equals(clean):
            lost.append((str(file), bit))
    return tried, lost


@pytest.mark.long
@pytest.mark.parametrize("again_too", [False, True])
def test_many_flipped_bits_in_a_run_that_is_evaluated_are_told(place, again_too, faults):
    tried, lost = evaluated_after(place, 6, 2, again_too=again_too)
    what = "a file of a run that is evaluated" + (" again" if again_too else "")
    faults("flipped bit", f"{what}: equal numbers or one line", tried=tried, lost=len(lost))
    assert not lost


@pytest.mark.slow
def test_a_flipped_bit_in_a_run_that_is_evaluated_is_told(place, faults):
    tried, lost = evaluated_after(place, 1, 3, again_too=True)
    faults("flipped bit", "a file of a run that is evaluated: equal numbers or one line", tried=tried, lost=len(lost))
    assert not lost


def test_a_damaged_finished_model_is_refused_by_all_who_read_it(place):
    out = again(place, "clean")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        file = out / "sft" / "model" / name
        kept = file.read_bytes()
        flip(file, 8 * (len(kept) // 2))
        words = f"{file} is damaged, it is not what the training wrote; remove {out / 'sft'}, and it is trained again"
        readers = [partial(load_model, file.parent), partial(load_reward, str(file.parent))]
        readers += [partial(evaluate, out, **HOW), partial(train, tiny_settings(place / "in", out, **RUN))]
        for read in readers:
            done, _ = quietly(read)
            assert str(done) == words
        file.write_bytes(kept)
    check_model(out / "sft" / "model")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_base_that_changed_since_the_training_is_refused_by_all_who_read_what_was_made_with_it(
    inputs, tmp_path, rank
):
    shutil.copytree(inputs, tmp_path / "in")
    train(tiny_settings(tmp_path / "in", tmp_path / "out", lora_rank=rank, steps=1))
    base, made = tmp_path / "in" / "model", tmp_path / "out" / "dpo" / "model"
    (base / "README.md").write_text("What people write changes no number.")
    (base / "generation_config.json").write_text('{"eos_token_id": [1, 3]}')
    done, _ = quietly(partial(evaluate, tmp_path / "out", **HOW))
    assert not isinstance(done, Exception)
    for name in ("model.safetensors", "config.json"):
        file = base / name
        kept = file.read_bytes()
        flip(file, 8 * (len(kept) // 2))
        words = {
            f"{base} has changed since it was the {role} of {made}; restore it, or remove {made.parent} and train again"
            for role in ("base", "reference")
        }
        for read in [partial(evaluate, tmp_path / "out", **HOW), *([partial(load_model, made)] if rank else [])]:
            done, _ = quietly(read)
            assert str(done) in words
        file.write_bytes(kept)
    done, _ = quietly(partial(evaluate, tmp_path / "out", **HOW))
    assert not isinstance(done, Exception)
    assert len(load_model(made).state_dict())


def test_damaged_checkpoints_are_never_passed_over_in_silence(place):
    out = again(place, "half")
    newest, older = sorted((out / "dpo" / "checkpoints").iterdir(), reverse=True)
    flip(newest / "part-0000.safetensors", 8 * 5000)
    flip(older / "part-0000.safetensors", 8 * 5000)
    done, said = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert all(f"gradlab: {path} is damaged and is passed over" in said for path in (newest, older))
    assert str(done) == (
        f"{newest.parent} has no checkpoint that is not damaged; remove it, and the training starts again from step 1"
    )
    shutil.rmtree(newest.parent)
    quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert weights(out) == weights(place / "clean")


@pytest.mark.parametrize("text", ["[]", "null", "1", '"x"', "{}", '{"files": []}', '{"sealed": 1}', "[" * 100_000, ""])
def test_json_of_another_type_is_one_line(place, text):
    for name in ("state", "done", "data"):
        out = again(place, "half")
        newest = max((out / "dpo" / "checkpoints").iterdir())
        file = {"state": newest / "state.json", "done": out / "sft" / "done.json", "data": out / "data.json"}[name]
        file.write_text(text)
        done, said = quietly(lambda: train(tiny_settings(place / "in", place / "out", **RUN)))
        if name == "state":
            assert f"gradlab: {newest} is damaged and is passed over" in said
            assert weights(out) == weights(place / "clean")
        else:
            assert f"{file} is damaged, or of another version of gradlab" in str(done)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["[]", "null", '{"peft_type": []}', '{"peft_type": "LORA", "target_modules": 3}'])
def test_a_config_of_another_type_is_one_line(place, text, tmp_path):
    for name in ("adapter_config.json", "config.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copytree(place / "in" / "model", tmp_path / name)
        (tmp_path / name / name).write_text(text)
        settings = tiny_settings(place / "in", tmp_path / f"{name} out", model=str(tmp_path / name), steps=1)
        done, _ = quietly(partial(train, settings))
        assert isinstance(done, (Exception, list))


@pytest.mark.parametrize("value", [[1], -1.5, {}])
def test_a_value_of_another_type_in_a_config_is_one_line(place, tmp_path, value):
    def changed(source, name, key):
        folder = shutil.copytree(source, tmp_path / key)
        page = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(page | {key: value}))
        return folder

    model, adapter = place / "in" / "model", tmp_path / "adapter"
    longest = changed(model, "tokenizer_config.json", "model_max_length")
    if not isinstance(value, float):
        with pytest.raises(OSError, match="model_max_length must be a number, got"):
            load_tokenizer(longest)
    save_folder(adapter, with_lora(load_model(model), 2, 4.0, ["q_proj"]), load_tokenizer(model))
    with pytest.raises(OSError, match="LoRA adapter must be a folder") as caught:
        load_model(changed(adapter, "adapter_config.json", "base_model_name_or_path"))
    assert "\n" not in str(caught.value)
    score = changed(model, "config.json", EXTRA)
    page = json.loads((score / "config.json").read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    (score / "config.json").write_text(json.dumps(page))
    with pytest.raises((OSError, ValueError)) as caught:
        load_reward(str(score))
    assert "\n" not in str(caught.value)


def test_a_log_that_lost_rows_or_is_damaged_is_told(place):
    out = again(place, "half")
    log = out / "dpo" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2] + lines[3:]))
    _, said = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert f"gradlab: {log} lacks 1 of the 4 steps that are done" in said
    assert weights(out) == weights(place / "clean")
    _, said = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert "is not as the training wrote it" not in said
    flip(log, 8 * (log.stat().st_size - 4))
    _, said = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert f"gradlab: {log} is not as the training wrote it; its numbers may be wrong" in said
    out = again(place, "half")
    log.unlink()
    _, said = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert f"gradlab: {log} lacks 4 of the 4 steps that are done" in said
    out = again(place, "half")
    log.write_bytes(b"".join([*lines[:2], b"{]\n", *lines[3:]]))
    done, _ = quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert f"{log} is damaged (" in str(done)
    assert "move it away, and the training goes on without its rows" in str(done)


def test_what_killed_runs_left_is_swept_up_and_nothing_else(place):
    out = again(place, "clean")
    listing = {path.relative_to(out) for path in out.rglob("*")}
    shutil.copytree(
        place / "half" / "dpo" / "checkpoints", out / "dpo" / "checkpoints"
    )  # killed before it removed them
    shutil.copytree(place / "half" / "dpo" / "checkpoints", out / "sft" / "checkpoints.old.tmp")  # or meanwhile
    (out / "notes.tmp").write_text("mine")
    quietly(lambda: train(tiny_settings(place / "in", out, **RUN)))
    assert {path.relative_to(out) for path in out.rglob("*")} == {*listing, Path("notes.tmp")}


def killed(inputs, folder, every, timeout):
    script = Path(__file__).with_name("llm_kills.py")
    run = subprocess.run(
        [sys.executable, script, inputs, folder, f"{every}"],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_run_killed_here_and_there_ends_as_one_that_was_not(inputs, tmp_path, faults):
    said = killed(inputs, tmp_path, 60, 300)
    faults("kill", "two trainings and PPO: equal files in the end", tried=said["tried"], lost=len(said["lost"]))
    assert not said["lost"]


@pytest.mark.long
def test_a_run_killed_at_each_call_that_changes_the_disk_ends_as_one_that_was_not(inputs, tmp_path, faults):
    said = killed(inputs, tmp_path, 1, 3000)
    faults(
        "kill", "two trainings and PPO, each call: equal files in the end", tried=said["tried"], lost=len(said["lost"])
    )
    assert not said["lost"]


# Full disks


def trained(folder, inputs):
    train(tiny_settings(inputs, folder / "out", tensorboard=True, **RUN))


def rewarded(folder, inputs):
    pairs, _ = read_pairs(str(inputs / "pairs.jsonl"))
    train_reward(inputs / "model", pairs[:8], folder / "out", held_out=pairs[8:], max_length=32, batch=4)


def judged(folder, inputs):
    shutil.copytree(inputs.parent / "clean", folder / "out", dirs_exist_ok=True)
    evaluate(folder / "out", **HOW)


WORK = {"a training": trained, "a reward model": rewarded, "an evaluation": judged}


def numbers(folder):
    """The weights of all models of a run and the rows of its logs; of an evaluation its frame."""
    files = sorted(file for kind in ("*.safetensors", "log.jsonl") for file in folder.rglob(kind))
    frames = sorted(folder.rglob("evaluation.parquet"))
    frames = {f.name: pd.read_parquet(f).drop(columns="out").to_csv() for f in frames}
    return frames or {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def struck(work, folder, inputs, scarce, clean):
    """Work where there is little room, then where there is enough; return whether it failed, and what is then wrong."""
    with scarce:
        done, said = quietly(lambda: work(folder, inputs))
    if not isinstance(done, Exception):
        if numbers(folder) != clean:
            return True, "other numbers"
        return "could not be written" in said, ""
    again, _ = quietly(lambda: work(folder, inputs))
    return True, f"{again}" if isinstance(again, Exception) else "" if numbers(folder) == clean else "other numbers"


@pytest.mark.long
@pytest.mark.parametrize("name", WORK)
def test_where_files_cannot_grow_a_run_ends_in_one_line_and_goes_on(name, place, tmp_path, faults):
    """The folder has the same path each time, as logs and keys name it."""
    folder = tmp_path / "work"
    folder.mkdir()
    WORK[name](folder, place / "in")
    clean = numbers(folder)
    sizes = sorted({file.stat().st_size for file in folder.rglob("*") if file.is_file()})
    tried, lost = 0, []
    for size in sorted({0, 1, 100, *(size // 2 for size in sizes), *(max(0, size - 1) for size in sizes)}):
        shutil.rmtree(folder)
        folder.mkdir()
        failed, wrong = struck(WORK[name], folder, place / "in", limit(size), clean)
        tried += failed
        if wrong:
            lost.append((size, wrong))
    faults("full disk", f"{name}, files limited in size: one line, then equal numbers", tried=tried, lost=len(lost))
    assert tried
    assert not lost


@pytest.mark.long
@pytest.mark.parametrize("name", WORK)
def test_on_a_small_disk_a_run_ends_in_one_line_and_goes_on(name, place, tmp_path, faults):
    tried, lost = 0, []
    with small_disk(tmp_path / "disk", 1000) as disk:
        folder = disk / "work"
        folder.mkdir()
        WORK[name](folder, place / "in")
        clean = numbers(folder)
        for free in (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160):
            shutil.rmtree(folder)
            folder.mkdir()
            failed, wrong = struck(WORK[name], folder, place / "in", filled(disk, free), clean)
            tried += failed
            if wrong:
                lost.append((free, wrong))
        gc.collect()  # models that were read from the disk hold on to it
    faults("full disk", f"{name}, a small file system: one line, then equal numbers", tried=tried, lost=len(lost))
    assert tried
    assert not lost
