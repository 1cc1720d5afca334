"""What README.md, CONTRIBUTING.md and docs/ show is true: code runs, commands work, links lead somewhere."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import small_study
from own_losses import Lopsided

from gradlab import cli
from gradlab.cli import lab_command
from gradlab.experiments import make
from gradlab.experiments.report import saved, wording
from gradlab.experiments.report.claims import CLAIMS
from gradlab.study.frozen import freeze
from gradlab.study.plan import Plan

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "scripts/README.md", *DOCS)


def blocks(language: str, page: str = README) -> list[str]:
    """The blocks of code in a language; those in lists are indented."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def commands(page: str) -> list[str]:
    lines = [line.split(" #")[0].strip() for block in blocks("bash", page) for line in block.splitlines()]
    return [line for line in lines if line.startswith("gradlab ")]


TEXTS = {page: (ROOT / page).read_text("utf-8") for page in DOCS}
COMMANDS = list(dict.fromkeys(line for page in (README, *TEXTS.values()) for line in commands(page)))


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_python_blocks_run(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    for name in re.findall(r'savefig\("(.+?)"\)', code):
        assert (tmp_path / name).stat().st_size > 1000
        import matplotlib.pyplot as plt

        plt.close("all")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if "write_page(" in text else ())
        for page, text in TEXTS.items()
        if blocks("python", text)
    ],
)
def test_python_blocks_of_a_page_of_the_site_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for code in blocks("python", TEXTS[page]):
        exec(compile(code, page, "exec"), names)


def test_code_of_the_site_is_in_languages_that_are_run():
    languages = {found for text in TEXTS.values() for found in re.findall(r"^ *```(\w+)", text, re.MULTILINE)}
    assert languages <= {"python", "bash"}


def test_there_are_the_promised_blocks():
    assert len(blocks("python")) == 4
    explorer, plot, loss, loop = (sum(bool(line.strip()) for line in code.splitlines()) for code in blocks("python"))
    assert explorer <= 6
    assert plot <= 10
    assert loss <= 15
    assert loop <= 12
    assert len(COMMANDS) >= 4


def test_the_loss_of_ones_own_is_the_one_that_takes_its_turn_in_the_tests():
    assert inspect.getsource(Lopsided) in blocks("python")[2]


def write_study(folder):
    """Write what the commands of a study take: a plan with its samples, the frozen study, answers, and a judge."""
    small_study.write_samples(folder, 40)
    small_study.plan(40, judges=("short",)).write(folder / "plan.toml")
    study = freeze(Plan.read(folder / "plan.toml"), folder)
    study.write(folder / "study.json")
    (folder / "answers").mkdir()
    small_study.answers_of(study, path=folder / "answers/all.jsonl")
    (folder / "judges.py").write_text("def shorter(prompts, responses):\n    return [-len(one) for one in responses]\n")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(
            line,
            marks=pytest.mark.slow
            if re.search(" (train|inspect|advise|claims|workbench|conformance trl:|lab --page)", line)
            else (),
        )
        for line in COMMANDS
    ],
)
def test_commands_run(line, tmp_path, monkeypatch, capsys, registered):
    monkeypatch.chdir(tmp_path)
    if "mine.py" in line:
        mine = inspect.getsource(Lopsided).replace("class Lopsided", "class Mine").replace('"lopsided"', '"mine"')
        (tmp_path / "mine.py").write_text(f"from dataclasses import dataclass\n\n{mine}")
    monkeypatch.setattr(make, "make_figures", lambda *_, **__: None)
    arguments = shlex.split(line, comments=True)[1:]
    if arguments[0] == "lab":
        monkeypatch.setattr(lab_command.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0))
    if arguments[0] == "sweep":
        file = tmp_path / arguments[1]
        file.parent.mkdir(parents=True)
        file.write_text(blocks("toml")[0].replace("seeds = 25", "seeds = 1\nsteps = 2\nprompts = 2\nresponses = 6"))
        assert cli.main([argument for argument in arguments if argument != "--status"]) == 0
    if arguments[0] == "doctor":  # on logs like those that the training above it leaves
        for log in (path for path in arguments if path.endswith(".jsonl")):
            (tmp_path / log).parent.mkdir(parents=True)
            shutil.copy(ROOT / f"gradlab/widgets/samples/{Path(log).parent.name}.jsonl", tmp_path / log)
    if arguments[0] == "protocol":
        arguments = ["protocol", str(ROOT / arguments[1]), *arguments[2:], "--dry-run"]
    if arguments[0] == "claims":
        arguments += ["--folder", str(ROOT / "figures")]
    if "paper.toml" in line:  # the protocol's plan, with samples beside it
        folder = tmp_path / "scripts/study"
        small_study.write_paper_samples(Plan.read(ROOT / "scripts/study/paper.toml"), folder)
        shutil.copy(ROOT / "scripts/study/paper.toml", folder)
    elif arguments[0] == "study":
        write_study(tmp_path)
    if arguments[0] in ("train", "inspect", "advise"):
        pytest.importorskip("transformers")
        from tiny_llm import write_inputs

        write_inputs(tmp_path)
        places = {"MODEL": str(tmp_path / "model"), "PAIRS.jsonl": str(tmp_path / "pairs.jsonl")}
        arguments = [places.get(argument, argument) for argument in arguments]
    if arguments[0] == "train":
        arguments += ["--held-out", "4", "--batch", "4", "--steps", "2", "--reference.steps", "1", "--device", "cpu"]
    cheap = ["--seeds", "1", "--steps", "2"] if arguments[0] == "fit" else []
    assert cli.main([*arguments, *cheap]) == 0


def test_the_sweep_shown_is_the_one_in_the_repository():
    assert blocks("toml") == [(ROOT / "scripts/sweeps/when-balancing-helps.toml").read_text("utf-8")]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    pages = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
    code = "\n".join([*re.findall(r"`(make [^`]+)`", pages), *blocks("bash", pages)])
    targets = {
        word
        for line in code.splitlines()
        if line.startswith("make ")
        for word in line.split("#")[0].split()[1:]
        if "=" not in word
    }
    assert targets >= {"figures", "test", "check", "bench", "lab"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_the_list_of_files_is_complete():
    listed = set(re.findall(r"^\| `([\w./]+)` \|", README, re.MULTILINE))
    there = {f"gradlab/{path.name}" for path in (ROOT / "gradlab").glob("[!_]*.py")}
    assert there <= listed
    assert all((ROOT / path).exists() for path in listed)


def test_the_speed_table_is_the_measured_one():
    shown = re.search(r"<!-- benchmark -->\n(.*?)<!-- /benchmark -->", README, re.DOTALL)
    assert shown, "README.md needs its benchmark markers"
    measured = (ROOT / "figures/benchmarks/lab.md").read_text("utf-8")
    table = [line for line in measured.splitlines() if line.startswith("|")]
    assert shown[1].splitlines() == table, "run make bench: it writes both"


def test_the_answer_and_the_findings_are_those_of_the_report():
    report = saved.from_csv((ROOT / "figures/claims.csv").read_text("utf-8"))
    lines = {name: [line for line in saved.lines_of(report) if line.claim == name] for name in CLAIMS}
    answer = README.partition("<!-- answer -->")[2].partition("<!-- /answer -->")[0]
    without = re.sub(r" \(95% interval [^)]*\)", "", answer)
    assert lines["grid-reward"][0].sentence in without
    findings = README.partition("<!-- findings -->")[2].partition("<!-- /findings -->")[0]
    for name, told in lines.items():
        _, sentence, word, counts, _, because = (text.replace("|", "\\|") for text in wording.summary(told))
        link = f"[{name}](figures/CLAIMS.md#{name})"
        assert f"| {link} | {sentence} | **{word}** | {counts} | {because} |" in findings, "run make figures"


def test_what_is_said_of_the_trainers_speed_is_what_was_measured():
    cpu, gpu = (pd.read_csv(ROOT / "figures/benchmarks" / name) for name in ("llm.csv", "cuda/llm.csv"))
    beside_trl = [one.loc[(one["part"] == "trainers") & (one["method"] == "gradlab"), "ratio"] for one in (cpu, gpu)]
    readme = " ".join(README.split())
    one, other = (f"{ratio:.2f}" for ratio in beside_trl[0])
    beside = f"a step of gradlab took {one} and {other} of the time of TRL's DPOTrainer on one core of a CPU"
    assert beside in readme
    assert f"once per response took {beside_trl[1].item():.2f} of TRL's time" in readme
    for name in ("llm", "llm-pretrained"):
        kept = json.loads((ROOT / f"figures/benchmarks/{name}.json").read_text("utf-8"))
        assert f"(figures/benchmarks/{name}.md), commit {kept['commit']})" in readme
    pretrained = pd.read_csv(ROOT / "figures/benchmarks/llm-pretrained.csv").set_index("what")["ratio"]
    full, lora = (pretrained[f"step over TRL's, {what}"] for what in ("all weights", "a LoRA adapter of rank 16"))
    assert f"took {full:.2f} of TRL's time with all weights and {lora:.2f} with a LoRA adapter" in readme
