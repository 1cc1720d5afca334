"""Losses by name: registered, with numbers, or a class in a user's own file or module."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gradlab import cli
from gradlab.losses import DPO, PAIR_LOSSES, BalancedDPO, PairLogps, from_text, pair_loss, unregister_loss
from gradlab.losses.definition import definition
from gradlab.sweeps.settings_frame import read_settings

MINE = """
from __future__ import annotations
from dataclasses import dataclass
import gradlab as gl

SCALE = 1.0

def stretched(x):
    return SCALE * x

@dataclass(frozen=True)
class Mine:
    beta: float = 1.0
    turns: int = 2
    loud: bool = False
    name = "mine"
    equation = "max(0, 1 − β(h_w − h_l))"
    source = "a test"
    antisymmetric = False

    def __call__(self, logps: gl.PairLogps):
        return stretched((1 - self.beta * (logps.win_logratio - logps.lose_logratio)).clamp(min=0))

ready = Mine(3.0)
number = 1
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder, which is the working folder, with mine.py; what it registers is taken out again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    before = set(PAIR_LOSSES)
    yield tmp_path
    for name in set(PAIR_LOSSES) - before:
        unregister_loss(name)


def pair(*numbers):
    return PairLogps(*(torch.tensor([number], dtype=torch.float64) for number in numbers))


def test_registered_losses_are_named_with_their_numbers():
    assert from_text("dpo") == DPO()
    assert from_text("bdpo:beta=0.5") == BalancedDPO(0.5)
    assert from_text("nbdpo:beta=2, clip=0.25") == pair_loss("nbdpo", beta=2.0, clip=0.25)


@pytest.mark.parametrize("place", ["mine.py", "./mine.py", "mine"])
def test_a_class_of_a_file_or_a_module_is_registered(own, place):
    loss = from_text(f"{place}:Mine:beta=2,loud=true,turns=3")
    assert (loss.beta, loss.turns, loss.loud, loss.label, loss.start_value) == (2.0, 3, True, "mine", 1.0)
    assert type(PAIR_LOSSES["mine"]()) is type(loss)
    assert from_text(f"{place}:ready").beta == 3.0
    sys.modules.pop("mine", None)


def test_a_file_that_changes_replaces_what_it_registered(own):
    first = from_text("mine.py:Mine")
    assert type(from_text("mine.py:Mine")) is type(first)
    (own / "mine.py").write_text(MINE.replace("SCALE = 1.0", "SCALE = 2.0"))
    changed = from_text("mine.py:Mine")
    assert changed(pair(-1.0, -1.0, -1.0, -1.0)).item() == 2.0
    assert definition(first) != definition(changed)
    (own / "mine.py").write_text("# a remark\n" + MINE)
    assert definition(from_text("mine.py:Mine")) == definition(first)


@pytest.mark.parametrize(
    ("old", "new"),
    [("SCALE * x", "SCALE + x"), ("1 - self.beta", "2 - self.beta"), ("    turns: int = 2", "    turns: int = 3")],
)
def test_the_definition_of_a_loss_sees_its_file(own, old, new):
    first = definition(from_text("mine.py:Mine"))
    (own / "mine.py").write_text(MINE.replace(old, new))
    assert definition(from_text("mine.py:Mine")) != first


def test_instances_travel_without_their_file(own, tmp_path_factory):
    sent = pickle.dumps(from_text("mine.py:Mine:beta=2"))
    (own / "mine.py").unlink()
    code = "import pickle, sys; loss = pickle.load(sys.stdin.buffer); print(loss, loss.label, loss.start_value)"
    there = tmp_path_factory.mktemp("elsewhere")
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, cwd=there, env={"PYTHONPATH": root}, check=False
    )
    assert done.stdout.decode() == "Mine(beta=2.0, turns=2, loud=False) mine 1.0\n", done.stderr.decode()[-600:]


def test_fit_takes_a_class_of_a_file_and_its_numbers_are_options(own, capsys):
    small = ["--steps", "2", "--prompts", "2", "--seeds", "1"]
    assert cli.main(["fit", "--loss", "mine.py:Mine", "--beta", "2", "--turns", "3", *small]) == 0
    assert capsys.readouterr().out.startswith("Mine(beta=2.0, turns=3, loud=False), ")
    assert cli.main(["fit", "--loss=nbdpo:beta=2,clip=0.3", "--clip", "0.4", *small]) == 0
    assert capsys.readouterr().out.startswith("NaiveBalancedDPO(beta=2.0, clip=0.4, ")
    assert cli.main(["fit", "--loss", "none.py:Mine"]) == 1
    assert capsys.readouterr().err == "gradlab: loss none.py:Mine: none.py is no file\n"
    assert cli.main(["fit", "--loss", "dpo", "--clip", "1"]) == 2
    assert capsys.readouterr().err == "gradlab: hyper-parameter of dpo must be one of beta; got 'clip'\n"


def test_a_sweep_file_names_a_class_of_a_file(own):
    (own / "sweep.toml").write_text('loss = ["mine.py:Mine", "dpo"]\n[[grid]]\nturns = [2, 3]\nloss = "mine.py:Mine"\n')
    frame = read_settings(own / "sweep.toml")
    assert set(frame["loss"]) == {"mine"}
    assert frame["turns"].tolist() == [2, 3]
    (own / "sweep.toml").write_text('loss = "mine.py:Mine:beta=2"\n')
    with pytest.raises(ValueError, match=r"sweep.toml: loss must be named without numbers here, as they are settings"):
        read_settings(own / "sweep.toml")


THAWED = """
@dataclass
class Thawed:
    name = "thawed"

    def __call__(self, logps):
        return logps.win
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Thawed", "Thawed must be a frozen dataclass, whose fields are its hyper-parameters"),
        ("number", "loss mine.py:number must be a frozen dataclass with a __call__, see PairLoss, got 1"),
    ],
)
def test_what_is_no_loss_of_a_file_is_one_line_of_every_command(own, capsys, name, words):
    (own / "mine.py").write_text(MINE + THAWED)
    for arguments in (["losses"], ["fit", "--loss"], ["workbench"], ["conformance", "mine.py:ready", "--expect"]):
        assert cli.main([*arguments, f"mine.py:{name}"]) == 2
        assert capsys.readouterr().err == f"gradlab: {words}\n"
    (own / "sweep.toml").write_text(f'loss = "mine.py:{name}"\n')
    assert cli.main(["sweep", "sweep.toml"]) == 2
    assert capsys.readouterr().err == f"gradlab: sweep.toml: {words}\n"


def test_a_target_that_is_no_function_is_one_line(own, capsys):
    assert cli.main(["conformance", "mine.py:number"]) == 2
    assert capsys.readouterr().err == "gradlab: mine.py:number must be a function of log-probabilities, got int\n"


def test_the_doctor_takes_the_loss_that_a_log_does_not_state(own, capsys):
    rows = [{"step": step, "loss": 1.0, "accuracy": 0.5} for step in range(1, 40)]
    (own / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cli.main(["doctor", "log.jsonl", "--loss", "mine.py:Mine:beta=2"])
    assert capsys.readouterr().out.startswith("log.jsonl: 39 rows, steps 1 to 39, loss mine\n")
    assert cli.main(["doctor", "log.jsonl", "--loss", "mine.py:None"]) == 2


def test_a_block_of_a_sweep_is_trained_with_the_numbers_that_are_registered_now(own):
    """The process may be one of a former sweep, and have the loss with the former numbers."""
    import pandas as pd

    from gradlab.sweeps.sweep import train_block

    settings = pd.DataFrame({"run": [0], "loss": ["mine"], "prompts": [2], "responses": [3], "steps": [3]})
    loss = from_text("mine.py:Mine")
    blocks = [train_block(settings, [replace(loss, beta=beta)]) for beta in (1.0, 5.0, 5.0)]
    assert pair_loss("mine").beta == 5.0
    assert not blocks[1].equals(blocks[0])
    assert blocks[1].equals(blocks[2])


@pytest.mark.slow
def test_a_sweep_trains_a_loss_of_a_file_in_several_processes(own):
    import pandas as pd

    from gradlab.sweeps.sweep import run_sweep

    from_text("mine.py:Mine")
    settings = pd.DataFrame({"loss": ["mine", "dpo"], "steps": [3, 3], "prompts": [2, 3]})
    frame = pd.read_parquet(run_sweep(settings, own / "out", workers=2))
    assert sorted(frame["loss"]) == ["dpo", "mine"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "loss must be the name of a registered loss, FILE.py:CLASS or MODULE:CLASS, .* got ''"),
        ("dpoo", "loss must be one of dpo, .*; got 'dpoo'; did you mean 'dpo'"),
        ("dpo:beta", "loss must be .*got 'beta' after dpo"),
        ("dpo:clip=1", "hyper-parameter of dpo must be one of beta; got 'clip'"),
        ("dpo:beta=x", "beta of dpo must be a number, got 'x'"),
        ("dpo:beta=1,beta=2", "beta of dpo must be given once"),
        ("dpo:beta=-1", "beta must be finite and > 0"),
        ("mine.py", "names no class: write mine.py:CLASS"),
        ("mine.py:", "loss must be the name of a registered loss"),
        ("mine.py:Nothing", "loss mine.py:Nothing: mine.py has no 'Nothing'; it has Mine, ready"),
        ("mine.py:number", "loss mine.py:number must be a frozen dataclass with a __call__"),
        ("mine.py:Mine:turns=1.5", "turns of mine must be a whole number, got '1.5'"),
        ("mine.py:Mine:loud=1", "loud of mine must be one of true, false"),
        ("none.py:Mine", "loss none.py:Mine: none.py is no file"),
        ("broken.py:Mine", "loss broken.py:Mine: broken.py cannot be imported .SyntaxError"),
        ("raises.py:Mine", "raises.py cannot be imported .ZeroDivisionError"),
        ("latin.py:Mine", "latin.py must be a text in UTF-8"),
        ("nowhere.at.all:Mine", "there is no module 'nowhere'; or give FILE.py:CLASS"),
        ("dpo.py:Mine", "name of Mine must be one that no registered loss has, got 'dpo'"),
    ],
)
def test_what_names_no_loss_is_said_in_one_line(own, text, words):
    (own / "broken.py").write_text("def")
    (own / "raises.py").write_text("1 / 0")
    (own / "latin.py").write_bytes(b"# \xe9")
    (own / "dpo.py").write_text(MINE.replace('"mine"', '"dpo"'))
    before = set(PAIR_LOSSES)
    with pytest.raises((ValueError, TypeError, OSError), match=words) as caught:
        from_text(text)
    assert "\n" not in str(caught.value)
    if not text.startswith("mine.py"):
        assert set(PAIR_LOSSES) == before
