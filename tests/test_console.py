"""What goes wrong is one line on stderr and an exit status, on the command line and in the language models' scripts."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gradlab import cli
from gradlab.cli import main
from gradlab.cli.guard import guarded
from gradlab.cli.options import quiet_transformers
from gradlab.console import complain, one_line, printable, say, wrapped
from gradlab.store.csv_text import csv_text


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("two\n  lines", "two lines"),
        (ValueError("beta must be\n> 0"), "beta must be > 0"),
        (OSError(28, "No space left on device", "runs/log.jsonl"), "No space left on device: runs/log.jsonl"),
        (OSError(32, "Broken pipe"), "Broken pipe"),
        (FileNotFoundError("log.jsonl is no file"), "log.jsonl is no file"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_message_and_an_error_are_one_line(said, line, capsys):
    assert one_line(said) == line
    assert complain("llm_train.py", said, 7) == 7
    assert capsys.readouterr() == ("", f"llm_train.py: {line}\n")


def test_text_hangs_below_its_head_and_words_stay_whole():
    text = "an option such as --gradient-checkpointing is one word"
    assert wrapped(text, 24, "  - ") == ["  - an option such as", "    --gradient-checkpointing", "    is one word"]
    assert wrapped(text, 100) == [text]
    assert wrapped("", 100, "- ") == []


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "stopped; it can go on"),
        (ValueError("loss must be one of dpo"), 2, "loss must be one of dpo"),
        (PermissionError(13, "Permission denied", "runs"), 1, "Permission denied: runs"),
        (MemoryError(), 1, "not enough memory for these sizes"),
        (FloatingPointError("step 3: not finite"), 1, "step 3: not finite"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "the GPU's memory is full; try a smaller --micro"),
        (RuntimeError("process 1: OutOfMemoryError: CUDA out of memory"), 1, "the GPU's memory is full; try a smaller"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
            1,
            "the machine's mem",
        ),
    ],
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_script_says_what_went_wrong_and_what_all_processes_say_it_says_once(
    error, status, line, rank, monkeypatch, capsys
):
    def work():
        raise error

    monkeypatch.setenv("LOCAL_RANK", rank)
    assert guarded(work, stopped="stopped; it can go on", smaller="a smaller --micro") == status
    err = capsys.readouterr().err
    own = isinstance(error, OSError | MemoryError | FloatingPointError | RuntimeError)  # of one process alone
    assert err.startswith(f"gradlab: {line}") if rank == "0" or own else err == ""
    assert err.count("\n") == len(err.splitlines()) <= 1


def test_memory_that_no_machine_has_is_one_line_with_the_remedy(capsys):
    assert guarded(lambda: torch.empty(1 << 50).dim(), smaller="a smaller --micro") == 1
    assert capsys.readouterr().err == "gradlab: the machine's memory is full; try a smaller --micro\n"


@pytest.mark.parametrize(
    ("command", "place", "advice"),
    [
        (
            ["train", "--model", "m", "--data", "d", "--out", "o"],
            "gradlab.llm.train.stages.train",
            "--micro or --max-l",
        ),
        (["evaluate", "o"], "gradlab.llm.judge.evaluate.evaluate_runs", "try a smaller --batch or --length"),
        (["inspect", "m", "d"], "gradlab.llm.model.loading.load_model", "lower batch or max_length"),
        (["demo", "--smoke"], "gradlab.llm.demo.laptop_run.run_demo", "try fewer --workers"),
    ],
)
@pytest.mark.parametrize("kind", ["gpu", "cpu", "python"])
def test_commands_on_language_models_say_what_needs_less_memory(command, place, advice, kind, monkeypatch, capsys):
    pytest.importorskip("transformers")
    from types import SimpleNamespace

    from gradlab.llm.look import inspection
    from gradlab.llm.model import loading

    def full(*_, **__):
        if kind == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if kind == "python":
            raise MemoryError
        torch.empty(1 << 50)

    monkeypatch.setattr(place, full)
    if command[0] == "inspect":  # modules that the other commands import would keep the tokenizer's stand-in
        data = SimpleNamespace(train=[0], part=lambda chosen: [], pairs=[])
        monkeypatch.setattr(loading, "load_tokenizer", lambda source: None)
        monkeypatch.setattr(inspection, "fix_date", lambda *_: None)
        monkeypatch.setattr(inspection, "prepare", lambda *_: data)
    assert main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith("gradlab: ")
    assert err.count("\n") == 1
    assert advice in err


def test_an_error_of_ours_keeps_its_trace():
    def work():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        guarded(work, stopped="stopped; it can go on", smaller="a smaller --micro")


def test_sigterm_does_what_ctrl_c_does():
    code = (
        "import os, signal; from gradlab.console import stop_on_sigterm\n"
        "try:\n"
        "    with stop_on_sigterm(): os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "except KeyboardInterrupt: print('stopped')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "stopped\n"


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN], ids=["default", "ignored"])
def test_sigterm_does_after_a_command_what_it_did_before(before):
    seen = []

    def work():
        seen.append(signal.getsignal(signal.SIGTERM))
        raise ValueError("bad")

    usual = signal.signal(signal.SIGTERM, before)
    try:
        assert guarded(work) == 2
        assert seen == [signal.default_int_handler]
        assert signal.getsignal(signal.SIGTERM) == before
    finally:
        signal.signal(signal.SIGTERM, usual)


def test_progress_bars_of_transformers_are_as_before():
    pytest.importorskip("transformers")
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    def state():
        return logging.is_progress_bar_enabled(), are_progress_bars_disabled()

    usual = state()
    with quiet_transformers():
        assert state() == (False, True)
    assert state() == usual
    logging.enable_progress_bar()
    disable_progress_bars()
    try:
        with pytest.raises(ZeroDivisionError), quiet_transformers():
            raise ZeroDivisionError
        assert state() == (True, True)
    finally:
        logging.enable_progress_bar()


# Control characters

HOSTILE = "a\x1b]0;title\x07\x1b[31mred\x9b2J\x7f\u202eright\u2066left\r\x08\u2028\u200f"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("λ_w π_ref ½ … ‖g‖ 雪\u3000é 👩\u200d🚀", "λ_w π_ref ½ … ‖g‖ 雪\u3000é 👩\u200d🚀"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b2J\x7f\x85", "\\x9b2J\\x7f\\x85"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        (os.fsdecode(b"\xff.csv"), "\\udcff.csv"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled(text, shown, capsys):
    assert printable(text) == shown
    say("one", text, "two\nthree")
    assert capsys.readouterr().out == f"one {shown} two\nthree\n".replace("\\x0a", "\n")
    assert complain("gradlab", f"x{text}y", 2) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert not FORBIDDEN.search(err)


def commands(folder):
    """Command lines that meet hostile text in a file's content, its name, or an option."""
    log, bad, named = folder / "log.csv", folder / "bad.jsonl", folder / f"{HOSTILE.replace('/', '')}.csv"
    log.write_text(f'step,loss,"{HOSTILE}"\n1,0.7,inf\n2,inf,inf\n', newline="")
    bad.write_text(json.dumps({"step": HOSTILE, "loss": 1}))
    named.write_text("step,loss\n1,0.7\n")
    header, nothing = folder / "header.jsonl", folder / "nothing.json"
    header.write_text(
        json.dumps({"gradlab_training_log": 1, "settings": {"loss": HOSTILE, "beta": 0.1}})
        + '\n{"step": 1, "loss": 0.5}\n'
    )
    nothing.write_text(json.dumps([{"step": 1, HOSTILE: HOSTILE}]))
    sweep, pairs = folder / "sweep.toml", folder / "pairs.jsonl"
    sweep.write_text(f"[[grid]]\nloss = {json.dumps(HOSTILE)}\n{json.dumps(HOSTILE)} = 1\n")
    pairs.write_text(json.dumps({"prompt": HOSTILE, "chosen": HOSTILE, HOSTILE: 1}) + "\n")
    for file in (log, bad, named, header, nothing, folder / HOSTILE):
        yield ["doctor", str(file)]
    yield ["doctor", str(named), "--baseline", str(log)]
    yield ["fit", "--loss", HOSTILE]
    yield ["sweep", str(sweep)]
    yield ["sweep", str(sweep), "--folder", str(folder / HOSTILE), "--status"]
    yield ["claims", HOSTILE]
    yield ["claims", "--folder", str(folder / HOSTILE)]
    yield ["figures", "--only", HOSTILE]
    yield ["lab", str(pairs), "--copy-only"]
    yield ["inspect", str(folder / HOSTILE), str(pairs)]
    yield ["inspect", str(folder), str(pairs)]
    train = ["train", "--data", str(pairs), "--out", str(folder / "out")]
    yield [*train, "--model", str(folder / HOSTILE), "--loss", HOSTILE]
    yield [*train, "--model", str(folder), "--loss", "dpo"]
    yield ["evaluate", str(folder / HOSTILE)]
    yield ["merge", str(folder / HOSTILE), "--out", str(folder / "out")]
    yield ["losses"]
    yield [HOSTILE]


@pytest.mark.parametrize(
    "chosen", [["doctor"], pytest.param([name for name in cli.COMMANDS if name != "doctor"], marks=pytest.mark.slow)],
    ids=["doctor", "others"],
)  # fmt: skip
def test_no_command_prints_a_control_character(tmp_path, monkeypatch, capfd, chosen):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in commands(tmp_path):
        if command[0] in cli.COMMANDS and command[0] not in chosen:
            continue
        try:
            status = cli.main(command)
        except SystemExit as ended:
            status = ended.code
        out, err = capfd.readouterr()
        assert out or err, command
        assert not FORBIDDEN.search(out + err), (command, out, err)
        assert status in (0, 1, 2, 3, 4)


@pytest.mark.slow
def test_no_run_of_a_language_model_prints_a_control_character_but_those_of_progress_bars(tmp_path, monkeypatch, capfd):
    pytest.importorskip("transformers")
    from tiny_llm import write_inputs

    folder = tmp_path / HOSTILE
    folder.mkdir()
    write_inputs(folder)
    rows = [json.loads(line) | {HOSTILE: HOSTILE} for line in (folder / "pairs.jsonl").read_text().splitlines()]
    rows[0] |= {"prompt": HOSTILE, "chosen": f"{HOSTILE} high"}
    data = folder / f"{HOSTILE}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, out = str(folder / "model"), str(folder / "out")
    short = "--loss dpo --reference.steps 0 --held-out 4 --steps 2 --batch 4 --micro 2 --precision fp32 --max-length 32"
    train = ["train", "--model", model, "--data", str(data), "--out", out, *short.split()]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for command in (
        ["inspect", model, str(data), "--save", str(folder / "seen.parquet")], train, train,  # the second goes on
        ["evaluate", out, "--prompts", "2", "--samples", "1", "--length", "8"],
    ):  # fmt: skip
        status = cli.main(command)
        seen, err = capfd.readouterr()
        assert status == 0, (seen, err)
        assert not FORBIDDEN.search(seen), command
        assert not FORBIDDEN.search(re.sub(r"\r|\x1b\[A", "", err)), (command, err)


def test_warnings_are_spelled(capsys):
    def work():
        sys.stderr.write(warnings.formatwarning(UserWarning(HOSTILE), UserWarning, "file.py", 1))
        return 0

    usual = warnings.formatwarning
    assert guarded(work) == 0
    assert "x1b" in (err := capsys.readouterr().err)
    assert not FORBIDDEN.search(err)
    assert warnings.formatwarning is usual


def test_cells_that_a_spreadsheet_would_compute_are_quoted():
    texts = ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "x\r=1", "", "-1.5", "+2", None, "'", "−x"]
    frame = pd.DataFrame({"number": -np.arange(13.0), "=name": texts, "mixed": [-1, "-a", -2.5, True] + [None] * 9})
    again = pd.read_csv(io.StringIO(csv_text(frame)), dtype=str, keep_default_na=False, na_values=[])
    assert list(again) == ["number", "'=name", "mixed"]
    assert again["number"].tolist()[:3] == ["-0.0", "-1.0", "-2.0"]
    shown = ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "'\nx", "x\n=1", "", "-1.5", "+2", "", "'", "−x"]
    assert again["'=name"].tolist() == shown
    assert again["mixed"].tolist()[:4] == ["-1", "'-a", "-2.5", "True"]
    assert frame["=name"].dropna().tolist() == [text for text in texts if text is not None]
    plain = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [0.123456789, np.nan], "d": pd.Categorical(["u", "v"])})
    assert csv_text(plain, float_format="%.3g") == plain.to_csv(index=False, float_format="%.3g")


def test_every_table_as_csv_goes_through_one_function():
    root = Path(__file__).parent.parent
    files = [file for folder in ("gradlab", "scripts") for file in (root / folder).rglob("*.py")]
    assert [file.name for file in files if ".to_csv(" in file.read_text(encoding="utf-8")] == ["csv_text.py"]
