"""The command line says what it does, does it, and answers bad input with one line and an exit status."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import complaint
from own_losses import dear_every_name

from gradlab import cli
from gradlab.cli import figures_command, fit_command, lab_command, options
from gradlab.lab.fit import fit
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.world import gaussian_world
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, family_of, named_loss, pair_loss
from gradlab.store.artifacts import load_frame

SMALL = ("--prompts", "2", "--responses", "4", "--steps", "3")


def test_fit_prints_a_table_that_agrees_with_fit(capsys):
    assert cli.main(["fit", "--loss", "bdpo", "--beta", "2", "--seeds", "3", "--mask-rate", "0.25", *SMALL]) == 0
    table = capsys.readouterr().out
    worlds = [gaussian_world(2, 4, mask_rate=0.25, seed=seed) for seed in range(3)]
    history = fit(worlds, pair_loss("bdpo", beta=2.0), steps=3, seed=range(3)).history
    last = history[history["step"] == 3]
    for name, title in fit_command.SHOWN.items():
        line = next(line for line in table.splitlines() if line.startswith(title))
        assert line.endswith(f"{last[name].mean():.3f} ± {last[name].std():.3f}")
    assert "BalancedDPO(beta=2.0)" in table
    assert "3 runs, mean ± standard deviation" in table


def test_one_seed_has_no_deviation(capsys):
    assert cli.main(["fit", "--seeds", "1", *SMALL]) == 0
    assert "±" not in capsys.readouterr().out


@dear_every_name
def test_every_registered_loss_can_be_fitted(name, capsys):
    assert cli.main(["fit", "--loss", name, "--seeds", "1", *SMALL]) == 0
    assert repr(pair_loss(name)) in capsys.readouterr().out


def test_fit_trains_on_losses_of_batches(capsys):
    assert cli.main(["fit", "--loss", "dr-dpo", "--outlier-scale", "2", "--seeds", "1", *SMALL]) == 0
    assert "DrDPO(beta=0.1, outlier_scale=2.0), " in capsys.readouterr().out


def test_hyper_parameters_come_from_the_registry(capsys):
    assert cli.main(["fit", "--loss", "nbdpo-symmetric", "--clip", "0.3", "--seeds", "1", *SMALL]) == 0
    assert "clip=0.3, symmetric=True" in capsys.readouterr().out
    options = {field.name for field in dataclasses.fields(fit_command.with_every_option())}
    assert options >= {"beta", "clip", "label_smoothing", "win_weight"}
    assert "symmetric" not in options


def test_defaults_are_those_of_the_functions():
    ours = {field.name: field.default for field in dataclasses.fields(fit_command.FitCommand)}
    for function in (fit, gaussian_world):
        theirs = inspect.signature(function).parameters
        for name in ours.keys() & theirs.keys() - {"loss", "policy"}:
            assert ours[name] == theirs[name].default, name


def test_save_keeps_the_history_and_refuses_to_replace_another(tmp_path, capsys):
    path = tmp_path / "run.parquet"
    command = ["fit", "--seeds", "2", *SMALL, "--save", str(path)]
    assert cli.main(command) == 0
    assert cli.main(command) == 0, "the same result again is no conflict"
    frame, manifest = load_frame(path)
    history = fit(
        [gaussian_world(2, 4, seed=seed) for seed in range(2)], pair_loss("dpo"), steps=3, seed=[0, 1]
    ).history
    pd.testing.assert_frame_equal(frame, history.rename(columns={"run": "seed"}))
    assert manifest["seeds"] == [0, 1]
    assert manifest["training"]["loss"] == "DPO(beta=1.0)"
    assert manifest["world"]["prompts"] == 2

    capsys.readouterr()
    assert cli.main([*command, "--beta", "2"]) == 1
    assert "holds another result; name another file, or allow overwriting (--overwrite)" in capsys.readouterr().err
    assert load_frame(path)[1]["training"]["loss"] == "DPO(beta=1.0)"
    assert cli.main([*command, "--beta", "2", "--overwrite"]) == 0
    assert load_frame(path)[1]["training"]["loss"] == "DPO(beta=2.0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "bdp"], f"loss must be one of {', '.join((*PAIR_LOSSES, *BATCH_LOSSES))}; got 'bdp'"),
        (["--loss", "dpo", "--clip", "0.3"], "hyper-parameter of dpo must be one of beta; got 'clip'"),
        (["--beta", "0"], "beta must be finite and > 0, got 0.0"),
        (["--beta", "nan"], "beta must be finite and > 0, got nan"),
        (["--seeds", "0"], "seeds must be a whole number ≥ 1, got 0"),
        (["--steps", "-1"], "steps must be a whole number ≥ 1, got -1"),
        (["--mask-rate", "1"], "mask_rate must be finite and lie in [0, 1), got 1.0"),
        (["--mask-rate", "0.9"], "leaves every prompt without a pair"),
        (["--responses", "1"], "responses must be a whole number ≥ 2, got 1"),
        (["--optimizer", "sgd"], f"optimizer must be one of {', '.join(OPTIMIZERS)}; got 'sgd'"),
        (["--policy", "shred"], "did you mean 'shared'?"),
        (["--utility", "flat"], "utility must be one of gaussian"),
        (["--labels", "medium"], "labels must be one of soft, hard"),
        (["--save", "history.csv"], "save must name a file that ends in .parquet"),
        (["--save", f"{__file__}/history.parquet"], "test_cli.py' is no folder"),
        (["--save", "/dev/null/new/history.parquet"], "save must name a file in a folder; '/dev/null' is no folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, capsys):
    assert cli.main(["fit", "--prompts", "2", "--responses", "4", "--steps", "3", *arguments]) == 2
    assert message in complaint(capsys)


def test_a_result_that_cannot_be_saved_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    assert cli.main(["fit", *SMALL, "--save", str(tmp_path / "new" / "history.parquet")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("gradlab: save must name a file in a folder that can be written to, got '/")
    assert said.out == ""


def test_what_is_no_number_or_no_option_is_refused(capsys):
    for arguments in (["fit", "--beta", "x"], ["fit", "--maskrate", "0.2"]):
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == 2
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped"),
        (FloatingPointError("the policy is not finite at step 3"), 1, "not finite at step 3"),
        (OSError(28, "No space left on device", "figures/x.png"), 1, "No space left on device: figures/x.png"),
        (FileExistsError("x.parquet holds another result"), 1, "x.parquet holds another result"),
        (FileExistsError(17, "File exists", "figures/x.png"), 1, "gradlab: File exists: figures/x.png\n"),
        (MemoryError(), 1, "gradlab: not enough memory for these sizes\n"),
        (
            MemoryError("the device is too small; lower batch"),
            1,
            "for these sizes: the device is too small; lower batch",
        ),
        (ValueError("two\nlines"), 2, "two lines"),
    ],
)
def test_failures_in_the_middle_are_one_line(error, status, message, monkeypatch, capsys):
    def fail(self):
        raise error

    monkeypatch.setattr(figures_command.FiguresCommand, "run", fail)
    assert cli.main(["figures"]) == status
    assert message in complaint(capsys)


def test_an_error_of_types_that_gradlab_does_not_raise_keeps_its_trace(monkeypatch):
    monkeypatch.setattr(figures_command.FiguresCommand, "run", lambda self: len(3))
    with pytest.raises(TypeError, match="has no len"):
        cli.main(["figures"])


def test_a_diverging_training_is_one_line(capsys):
    assert cli.main(["fit", "--learning-rate", "1e308", "--seeds", "1", *SMALL]) == 1
    assert "learning_rate=1e+308 is too large" in complaint(capsys)


def test_figures_hands_its_arguments_over(monkeypatch):
    from gradlab.experiments import make

    seen = {}
    monkeypatch.setattr(make, "make_figures", lambda names, **options: seen.update(names=names, **options))
    assert cli.main(["figures", "grid", "picture", "--quick", "--folder", "elsewhere"]) == 0
    assert seen.pop("folder").name == "elsewhere"
    assert seen == {"names": ["grid", "picture"], "quick": True, "fresh": False}


def test_losses_lists_the_registry(capsys):
    assert cli.main(["losses"]) == 0
    listing = capsys.readouterr().out
    text = " ".join(listing.split())
    lines = listing.splitlines()
    assert len(lines) < 2 * len({**PAIR_LOSSES, **BATCH_LOSSES}) + 40
    assert max(map(len, lines)) <= 120
    for family in {family_of(make()) for make in PAIR_LOSSES.values()}:
        assert family in lines
    for name, make in {**PAIR_LOSSES, **BATCH_LOSSES}.items():
        assert " ".join(f"{name} {make().equation}".split()) in text


@pytest.mark.parametrize("name", [*PAIR_LOSSES, *BATCH_LOSSES])
def test_losses_prints_all_that_is_known_of_one(name, capsys):
    assert cli.main(["losses", name]) == 0
    told = " ".join(capsys.readouterr().out.split())
    loss = named_loss(name)
    for fact in (loss.equation, loss.source, family_of(loss), loss.convention, loss.rho, loss.optimum, *loss.notes):
        assert " ".join(fact.split()) in told
    for one in loss.shipped:
        assert " ".join(f"{one.library}: {one.key}".split()) in told


def test_losses_takes_several_numbers_and_files_of_ones_own(capsys):
    assert cli.main(["losses", "ipo:beta=0.5", "fixed-weight:win_weight=0.4"]) == 0
    told = capsys.readouterr().out
    assert "1/(4β²) = 1\n" in told
    assert "beta = 1, win_weight = 0.4" in told
    assert cli.main(["losses", "ipp"]) == 2
    assert "did you mean 'ipo'?" in complaint(capsys)


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The commands that `gradlab lab` would have run, in an empty folder."""
    calls = []

    def run(command, **_):
        calls.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(lab_command.subprocess, "run", run)
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: name)
    monkeypatch.chdir(tmp_path)
    return calls


def test_lab_copies_the_notebooks_and_opens_the_first(started, tmp_path, capsys):
    assert cli.main(["lab"]) == 0
    assert cli.main(["lab", "mine/here"]) == 0
    assert started == [["-P", "-m", "jupyterlab", str(tmp_path / place / "00-start.ipynb")]
                       for place in ("gradlab-notebooks", "mine/here")]  # fmt: skip
    assert (tmp_path / "mine/here/02-grid-training.ipynb").is_file()
    (tmp_path / "mine/here/02-grid-training.ipynb").write_text("changed")
    assert cli.main(["lab", "mine/here", "--copy-only"]) == 0
    assert capsys.readouterr().err == ""  # there is nothing newer to be had
    (tmp_path / "mine/here/.gradlab-notebooks.json").unlink()
    assert cli.main(["lab", "mine/here", "--copy-only"]) == 0
    assert len(started) == 2
    assert (
        "kept mine/here/02-grid-training.ipynb, which you have changed; there is a newer one" in capsys.readouterr().err
    )
    (tmp_path / "file").touch()
    assert cli.main(["lab", "file"]) == 2
    assert "folder must be a folder, or not be there yet, got the file 'file'" in complaint(capsys)


def test_lab_opens_the_notebooks_of_a_checkout_where_they_are(started, tmp_path):
    for name in ("notebooks/00-start.ipynb", "gradlab/__init__.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert cli.main(["lab"]) == 0
    assert started == [["-P", "-m", "jupyterlab", str(tmp_path / "notebooks/00-start.ipynb")]]


def test_lab_without_jupyterlab_says_how_to_get_it(started, monkeypatch, capsys):
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["lab"]) == 1
    assert 'pip install "gradlab[lab]"' in complaint(capsys)
    assert started == []


HEAVY = {"torch", "numpy", "pandas", "scipy", "matplotlib", "transformers"}


@pytest.mark.parametrize(
    "code",
    ["import gradlab", "from gradlab.cli import main; main([])", "from gradlab.cli import main; main(['--version'])"],
)
def test_what_should_take_no_time_loads_nothing_heavy(code):
    loaded = f"import sys; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {loaded}"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_losses_loads_torch_and_nothing_else_heavy():
    code = f"from gradlab.cli import main; main(['losses']); import sys; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("['numpy', 'torch']\n")


def test_every_command_is_a_file_and_every_file_a_command():
    files = {file.name.removesuffix("_command.py") for file in Path(cli.__file__).parent.glob("*_command.py")}
    assert files == set(cli.COMMANDS)


def test_help_lists_every_command_with_a_line(capsys):
    assert cli.main([]) == 0
    listing = capsys.readouterr().out
    assert cli.main(["-h"]) == cli.main(["--help"]) == 0
    assert capsys.readouterr().out == 2 * listing
    assert max(map(len, listing.splitlines())) <= 80
    for name in cli.COMMANDS:
        assert re.search(rf"^  {name} +[A-Z]\w+ .*", listing, re.MULTILINE), name


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([name, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: gradlab {name} ")
    [summary] = re.findall(rf"^  {name} +(\S+ \S+ \S+) ", cli._overview(), re.MULTILINE)
    assert summary in out


def test_a_misspelt_command_is_one_line(capsys):
    assert cli.main(["fti"]) == 2
    assert complaint(capsys).endswith("; got 'fti'; did you mean 'fit'?\n")


def test_on_windows_there_is_one_clear_line(monkeypatch, capsys):
    monkeypatch.setattr(cli.os, "name", "nt")
    status = cli.main(["losses"])
    monkeypatch.undo()
    assert status == 1
    assert complaint(capsys) == "gradlab: Linux or macOS is needed; on Windows, use WSL\n"


def test_the_module_runs_as_a_program():
    command = [sys.executable, "-m", "gradlab.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "gradlab 0.1.0\n"


def test_fit_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["fit", "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(fit_command.with_every_option()):
        assert f"--{field.name.replace('_', '-')}" in text
    assert "None" not in text
