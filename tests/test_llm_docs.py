"""What scripts/README.md says of language models is so: commands, files, first numbers, the table of memory."""

import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")


from gradlab.cli import main
from gradlab.cli.evaluate_command import EvaluateCommand
from gradlab.cli.inspect_command import InspectCommand
from gradlab.cli.merge_command import MergeCommand
from gradlab.cli.options import parsed
from gradlab.doctor import SIGNS
from gradlab.llm.model.memory import memory
from gradlab.llm.model.memory_table import memory_markdown, time_markdown
from gradlab.llm.model.shapes import LLAMAS, shape_of
from gradlab.llm.train.command_line import read_settings
from gradlab.llm.train.run_settings import RECIPES
from gradlab.losses import PairLogps, pair_loss
from scripts.benchmarks.computed_and_measured import computed_markdown, table_rows

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "scripts/README.md").read_text("utf-8")
CONFIGS = sorted((ROOT / "scripts/configs").glob("*.toml"))
GPUS = {"one-gpu-lora": 1, "one-node": 8, "several-nodes": 32}
BASH = "\n".join(re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)).replace("\\\n", " ")


def arguments(*starts):
    """The arguments of each command on the page that one of these words starts."""
    lines = [shlex.split(line, comments=True) for line in BASH.splitlines()]
    return [line[line.index(word) + 1 :] for line in lines for word in starts if word in line]


TRAIN = arguments("train", "gradlab.llm")
HELP = [["evaluate", "-h"], ["train", "-h"]]


def section(title):
    return re.search(rf"^### {title}\n(.*?)(?=^### |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]


def test_the_table_of_memory_is_the_computed_one():
    shown = re.search(r"<!-- memory -->\n(.*?)<!-- /memory -->", PAGE, re.DOTALL)
    computed = memory_markdown(micro_pairs=4)
    assert shown, "scripts/README.md needs its memory markers"
    assert shown[1] == computed, "put gradlab.llm.model.memory.memory_markdown(micro_pairs=4) between the markers"


def test_the_table_of_time_is_the_computed_one():
    shown = re.search(r"<!-- time -->\n(.*?)<!-- /time -->", PAGE, re.DOTALL)
    assert shown, "scripts/README.md needs its time markers"
    assert shown[1] == time_markdown(), "put gradlab.llm.model.memory_table.time_markdown() between the markers"


def test_the_table_of_computed_and_measured_is_that_of_the_benchmarks():
    shown = re.search(r"<!-- computed -->\n(.*?)<!-- /computed -->", PAGE, re.DOTALL)
    assert shown, "scripts/README.md needs its computed markers"
    assert shown[1] == computed_markdown(), "put what scripts.benchmarks.computed_and_measured prints between them"
    ratios = [row.measured_seconds / row.seconds for row in table_rows() if row.seconds == row.seconds]
    assert f"A step took {min(ratios):.1f} to {max(ratios):.1f} times the computed seconds" in PAGE


@pytest.mark.parametrize("line", TRAIN, ids=" ".join)
def test_commands_that_train_are_understood(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    settings = read_settings(line, "gradlab train")
    assert settings.recipe == ("gentle" if "--recipe" in line else "paper")
    assert set(settings.loss) <= set(line)
    betas = {settings.of("beta") if name == "ppo" else getattr(settings.loss_of(name), "beta", None)
             for name in settings.loss}  # fmt: skip
    assert len(betas) == 1, "losses at several β are no comparison"


def test_there_is_a_command_for_each_config():
    used = {Path(line[line.index("--config") + 1]).stem for line in TRAIN if "--config" in line}
    assert used == {file.stem for file in CONFIGS}


@pytest.mark.parametrize("line", arguments("evaluate"), ids=" ".join)
def test_commands_that_evaluate_are_understood(line):
    assert parsed(EvaluateCommand, "evaluate", None, line).out


@pytest.mark.parametrize("line", arguments("merge"), ids=" ".join)
def test_commands_that_merge_are_understood(line):
    assert parsed(MergeCommand, "merge", None, line).adapters


@pytest.mark.parametrize("line", arguments("inspect"), ids=" ".join)
def test_commands_that_inspect_are_understood(line):
    assert parsed(InspectCommand, "inspect", None, line).data


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_each_line_of_help_can_be_understood_by_itself(command, capsys):
    with pytest.raises(SystemExit):
        main(command)
    said = " ".join(re.sub(r"[^\w:()<>\[\],.;/=`-]+", " ", capsys.readouterr().out).split())
    options = re.split(r" (?=--[a-z])", said)[1:]
    assert len(options) > 15
    for line in options:
        assert "(default: )" not in line
        assert not re.search(r"^--\S+ (\S+ ){0,4}(Its|Of|Before) ", line), line


def test_help_tells_a_rewards_function_and_the_recipes(capsys):
    told = []
    for command in HELP:
        with pytest.raises(SystemExit):
            main(command)
        told.append(" ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split()))
    for text in told:
        assert "FILE.py:FUNCTION" in text
        assert "and a list of as many responses, all of them texts, and returns one number per response" in text
        assert "{None" not in text
    assert "OUT [OUT ...]" in told[0]
    for name, recipe in RECIPES.items():
        shown = told[1].split(f"`{name}`: ")[1].split(";")[0]
        assert all(f"{option.replace('_', '-')} {value:g}" in shown for option, value in recipe.items())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_configs_keep_every_gpu_busy_and_fit(file):
    given = tomllib.loads(file.read_text("utf-8"))
    settings = read_settings(["--config", str(file), "--model", "m", "--data", "d", "--out", "o"], "gradlab train")
    for name, value in given.items():
        parts = {f"{name}.{part}": each for part, each in value.items()} if isinstance(value, dict) else {name: value}
        for option, each in parts.items():
            assert settings.get(option) == (tuple(each) if isinstance(each, list) else each), option
    if file.stem not in GPUS:
        return
    gpus = GPUS[file.stem]
    assert settings.batch >= settings.micro * gpus
    for name in re.findall(r"\d+B", file.read_text("utf-8").splitlines()[0]):
        model = next(config for known, config in LLAMAS.items() if known.endswith(f"-{name}"))
        made = memory(
            model, gpus=gpus, lora_rank=settings.lora.rank, micro_pairs=settings.micro, length=settings.max_length,
            checkpointing=settings.gradient_checkpointing, precision=settings.precision,
        )  # fmt: skip
        assert made.fits, name


def test_the_first_numbers_are_those_of_the_losses():
    text = section("Expected first numbers")
    logps = PairLogps(*(torch.tensor([value]) for value in (-120.0, -150.0, -120.0, -150.0)))
    rows = re.findall(r"^\| `loss` of ([\w, -]+) \| ([\d.]+) \|", text, re.MULTILINE)
    assert len(rows) == 2
    for names, value in rows:
        for name in names.split(", "):
            assert float(pair_loss(name)(logps)) == pytest.approx(float(value), abs=5e-5), name


def test_every_sign_of_the_doctor_has_a_row_and_no_other():
    rows = re.findall(r"^\| .+? \| (.*?) ?\| .+ \|$", section("When it goes wrong"), re.MULTILINE)
    named = [row for row in rows[1:] if row.strip("- ")]
    assert sorted(named) == sorted(SIGNS.values())


def test_sizes_on_the_disk_are_those_of_7b():
    number = shape_of(LLAMAS["Llama-2-7B"]).parameters
    text = " ".join(PAGE.split())
    three = re.search(r"for a moment there are three: (\d+) GB for 7B", text).group(1)
    model = re.search(r"Each finished model, in float32, needs (\d+) GB", text).group(1)
    assert int(three) == round(3 * 12 * number / 1e9, -1)
    assert int(model) == round(4 * number / 1e9)


def test_the_files_in_the_list_are_there():
    listed = re.findall(r"^\| `([\w./]+)` \|", PAGE.split("## Language models")[0], re.MULTILINE)
    assert {"llm_train.py", "llm_eval.py", "configs/"} <= set(listed)
    assert all((ROOT / "scripts" / name).exists() for name in listed)


def test_the_python_on_the_page_runs(tmp_path, capsys):
    from transformers import AutoConfig

    AutoConfig.for_model("llama", hidden_size=64, num_attention_heads=4, num_hidden_layers=1).save_pretrained(tmp_path)
    code, of_rates, of_trl = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    source = (ROOT / "gradlab/llm/trl.py").read_text("utf-8")  # whose tests run it
    assert textwrap.indent(of_trl, "    ") in source
    exec(compile(code.replace('"MODEL"', repr(str(tmp_path))), "scripts/README.md", "exec"), {})
    assert re.match(r"0\.\d GB Memory\(", capsys.readouterr().out)
    exec(compile(of_rates.replace('"DEVICE", "bf16"', '"cpu"'), "scripts/README.md", "exec"), {})
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| Llama-2-7B |")]
    assert [float(row[7]) > 0 for row in rows] == [False, False, True, True, True]  # seconds between GPUs
