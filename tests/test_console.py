"""What goes wrong is one line on stderr and an exit status, on the command line and in the language models' scripts."""

import signal
import subprocess
import sys

import pytest
import torch

from gradlab.cli.guard import guarded
from gradlab.cli.options import quiet_transformers
from gradlab.console import complain, one_line, wrapped


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
    own = isinstance(error, OSError | MemoryError | FloatingPointError)  # of one process alone
    assert err.startswith(f"gradlab: {line}") if rank == "0" or own else err == ""
    assert err.count("\n") == len(err.splitlines()) <= 1


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
