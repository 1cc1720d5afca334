"""A frozen plan: read from its file, turned into commands, run from the first to the verdict, priced and powered."""

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")

from tiny_llm import write_inputs

from gradlab.cli import main
from gradlab.cli.evaluate_command import EvaluateCommand
from gradlab.cli.options import parsed
from gradlab.experiments import MEASURED
from gradlab.experiments.questions import seven_billion
from gradlab.experiments.report import verdicts
from gradlab.llm.model.memory import memory
from gradlab.llm.model.shapes import LLAMAS
from gradlab.llm.protocol.cost import checkpoint_bytes, cost, gpu_memory, power_table, training_of
from gradlab.llm.protocol.page import page
from gradlab.llm.protocol.plan import read_plan
from gradlab.llm.protocol.steps import steps
from gradlab.llm.train.command_line import read_settings
from gradlab.stats.population import average_over_cells, judge_units
from gradlab.stats.words import Evidence, corrected, evidence_of_cells, word_of
from gradlab.store.artifacts import load_frame, load_manifest, save_frame
from gradlab.store.files import file_hash
from gradlab.store.sealed import read_sealed

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "scripts/protocol"
SEVEN, SMALL = FOLDER / "llama-7b.toml", FOLDER / "smollm2-135m.toml"
PAGE = (ROOT / "docs/how-to/seven-billion.md").read_text("utf-8")


def test_the_page_has_the_plan_as_it_is_computed():
    shown = re.search(r"<!-- plan -->\n(.*?)<!-- /plan -->", PAGE, re.DOTALL)
    assert shown, "the page needs its markers"
    assert shown[1] == page(read_plan(SEVEN), bound=seven_billion.MARGIN), "put page(read_plan(…)) between the markers"


# What the small plan changes; all else of every command is the large plan's.
OF_COMMANDS = {"--config", "--model", "--out", "--reward", "--cost", "--prompts", "--samples", "--length", "--seed"}
OF_TRAININGS = {
    "learning_rate", "precision", "device", "gradient_checkpointing", "template", "max_length", "batch",
    "micro", "steps", "held_out", "reference_steps", "lora_rank", "sides_every", "validate_every",
}  # fmt: skip


def given(step):
    """The program of a command, and its options with their values."""
    words = [*step.command]
    program = words[words.index("gradlab.llm" if "gradlab.llm" in words else "gradlab.cli") :]
    start = next(place for place, word in enumerate(program) if word.startswith("--"))
    options, name = {}, ""
    for word in program[start:]:
        if word.startswith("--"):
            name = word
            assert name not in options
            options[name] = []
        else:
            options[name].append(word)
    return program[: start if "gradlab.llm" in words else start - 1], options  # an evaluation names its folder first


def test_the_small_plans_commands_are_the_large_plans_but_for_the_options_listed_here():
    small = read_plan(SMALL)
    seven = dataclasses.replace(read_plan(SEVEN), seeds=small.seeds)
    pairs = list(zip(*(steps(plan, Path("runs")) for plan in (seven, small)), strict=True))
    assert [left.name for left, _ in pairs] == [right.name for _, right in pairs]
    for left, right in pairs:
        (program, large), (other, little) = given(left), given(right)
        assert program == other
        assert [*large] == [*little]
        assert {name for name in large if large[name] != little[name]} <= OF_COMMANDS
    large, little = (training_of(plan).flat() for plan in (seven, small))
    assert {name for name in large if large[name] != little[name]} - {"model"} == OF_TRAININGS


def with_training(folder, words):
    """The small plan with more options of its trainings, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    for name in (SMALL.name, "small_judges.py", "smollm2-135m-training.toml"):
        text = (FOLDER / name).read_text("utf-8")
        (folder / name).write_text(words + text if "training" in name else text, encoding="utf-8")
    return folder / SMALL.name


def test_later_groups_train_neither_supervised_model_nor_reference_again(tmp_path):
    plan = read_plan(with_training(tmp_path, "sft.epochs = 1\n"))
    firsts = 0
    for step in steps(plan, Path("runs")):
        if not step.name.endswith("training"):
            continue
        words = step.command[step.command.index("gradlab.llm") + 1 :]
        settings = read_settings(words, "gradlab train")
        first = "beta-1" in step.name
        firsts += first
        assert (settings.sft.epochs, settings.of("reference.steps")) == ((1, 1) if first else (0, 0))
    assert firsts == 4


@pytest.mark.parametrize(
    ("words", "shared"),
    [("sft.epochs = 1\n", "reference/model"), ("sft.epochs = 1\nreference.steps = 0\n", "sft/model"),
     ("reference.steps = 0\n", None)],
)  # fmt: skip
def test_later_groups_start_at_the_model_that_the_first_group_makes(words, shared, tmp_path):
    file = with_training(tmp_path, words)
    training = tmp_path / "smollm2-135m-training.toml"
    if "reference" in words:
        training.write_text(training.read_text("utf-8").replace("[reference]\nsteps = 1\n", ""), encoding="utf-8")
    plan = read_plan(file)
    starts = {given(step)[1]["--model"][0] for step in steps(plan, Path("runs")) if "beta-2, training" in step.name}
    if shared is None:
        assert starts == {plan.model}
    else:
        assert starts == {f"runs/{arm.name}/seed-{seed}/beta-1/{shared}" for arm in plan.arms for seed in plan.seeds}


def test_groups_that_begin_at_the_base_are_refused(tmp_path):
    plan = read_plan(with_training(tmp_path, 'init = "base"\n'))
    with pytest.raises(
        ValueError, match=r"init in .*training\.toml must be reference where groups share one, got .base"
    ):
        steps(plan, Path("runs"))
    assert steps(dataclasses.replace(plan, groups=plan.groups[:1]), Path("runs"))


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """The command of a plan on small inputs, its folder, and the commands that it has run.

    A folder's file ``stops`` names losses, as arm/group/loss, whose training stops at step 3; ``fails`` the group whose
    training fails; with ``few`` an evaluation has a prompt less than the plan's two.
    """
    write_inputs(tmp_path)
    with_training(tmp_path / "plan", "")
    ran = []

    def done(command, check):
        ran.append(command)
        words = [*command]
        if "evaluate" in words:
            folder = Path(words[words.index("evaluate") + 1]) / "evaluation"
            prompts = 1 if (tmp_path / "few").is_file() else int(words[words.index("--prompts") + 1])
            rows = pd.DataFrame({"run": ["reference", *words[words.index("--names") + 1 :]]})
            rows = rows.assign(out="x", success=0.5, safe=0.5, win_rate=0.5, prompts=prompts)
            save_frame(rows, folder / "evaluation.parquet", {})
        else:
            settings = read_settings(words[words.index("gradlab.llm") + 1 :], "gradlab train")
            group, stopped = settings.out.name, False
            if (tmp_path / "fails").is_file() and group in (tmp_path / "fails").read_text("utf-8"):
                return subprocess.CompletedProcess(command, 1)
            stops = (tmp_path / "stops").read_text("utf-8").split() if (tmp_path / "stops").is_file() else ()
            for name in settings.names:
                stop = f"{settings.out.parents[1].name}/{group}/{name}" in stops
                (settings.out / name).mkdir(parents=True, exist_ok=True)
                (settings.out / name / ("stopped-at-step-3.json" if stop else "done.json")).touch()
                stopped |= stop
            return subprocess.CompletedProcess(command, int(stopped))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("gradlab.llm.protocol.steps.subprocess", SimpleNamespace(run=done))
    command = ["protocol", str(tmp_path / "plan" / SMALL.name), "--model", str(tmp_path / "model"), "--out",
               str(tmp_path / "out"), "--keep", "--folder", str(tmp_path / "figures"),
               "--data", f"safe-rlhf={tmp_path / 'pairs.jsonl'}", f"hh={tmp_path / 'pairs.jsonl'}"]  # fmt: skip
    return command, tmp_path, ran


def test_a_folder_goes_on_with_its_plan_and_the_kept_manifest_has_the_hashes(begun, capsys):
    command, folder, ran = begun
    assert main(command) == 0, capsys.readouterr().err
    assert len(ran) == 24
    assert main(command) == 0
    assert len(ran) == 24
    manifest = load_manifest(folder / "figures" / seven_billion.FILES["evaluation"])
    assert manifest["decided"]["plan"] == file_hash(folder / "plan" / SMALL.name)
    assert manifest["decided"] == read_sealed(folder / "out" / "plan.json")["decided"]


def kept_frame(folder):
    return load_frame(folder / "figures" / seven_billion.FILES["evaluation"])[0]


@pytest.mark.parametrize("stops", ["hh/naive/nbdpo", "hh/naive/nbdpo hh/naive/nbdpo-symmetric"])
def test_a_training_that_stops_is_reported_and_has_no_row_and_the_others_go_on(stops, begun, capsys):
    command, folder, ran = begun
    (folder / "stops").write_text(stops, encoding="utf-8")
    for _ in range(2):  # nothing is trained or evaluated again
        assert main(command) == 0, capsys.readouterr().err
        assert len(ran) == (24 if len(stops.split()) == 1 else 22)  # no loss is left to be evaluated
        said = capsys.readouterr().out
        assert "hh, seed 1, naive, training: nbdpo stopped at step 3" in said.replace("\n", " ")
        assert "the claim llm: " in said
    frame = kept_frame(folder)
    methods = {arm: set(rows["method"]) for arm, rows in frame.groupby("arm")}
    assert methods["safe-rlhf"] - methods["hh"] == {name.rpartition("/")[2] for name in stops.split()}


def test_a_statement_without_a_method_is_not_run_and_the_others_are_judged(begun, capsys):
    command, folder, _ = begun
    (folder / "stops").write_text("hh/beta-1/bdpo", encoding="utf-8")
    assert main(command) == 0, capsys.readouterr().err
    rows = seven_billion.verdict({"evaluation": kept_frame(folder)})
    assert {row.word == "not run" for row in rows} == {True, False}
    for row in rows:
        needs = row.statement.method == "bdpo" and "hh" in row.statement.where
        assert (row.word, row.note) == ("not run", "0 of 2 seeds with both methods") if needs else row.word != "not run"


def test_seeds_in_which_a_method_has_no_row_are_left_out_of_its_statements():
    frame = made_up({"bdpo": 0.2})
    gap = (frame["arm"] == "hh") & (frame["seed"] == 1001) & (frame["method"] == "dpo")
    for row in seven_billion.verdict({"evaluation": frame[~gap]}):
        of = row.statement.baseline == "dpo" and "hh" in row.statement.where
        assert (row.replicates, row.note) == ((4, "4 of 5 seeds with both methods") if of else (5, ""))


def test_words_are_those_of_the_claims_report_after_correction(begun, capsys, tmp_path):
    command, folder, _ = begun
    assert main(command) == 0, capsys.readouterr().err
    capsys.readouterr()
    for file in (folder / "out").rglob("evaluation.parquet"):  # two seeds; uncorrected, safe-rlhf alone differs from 0
        frame, _ = load_frame(file)
        gap = {"seed-0": 0.0472, "seed-1": 0.0528} if "safe-rlhf" in str(file) else {"seed-0": 0.05, "seed-1": -0.05}
        frame.loc[frame["run"] == "bdpo", ["success", "safe"]] += gap[file.parents[2].name]
        save_frame(frame, file, {}, overwrite=True)
    assert main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    frame = kept_frame(folder)
    save_frame(frame, tmp_path / "judged" / seven_billion.FILES["evaluation"], {})
    one = verdicts.judge_claims(tmp_path / "judged", ["llm"])["llm"]
    for row in one.rows:
        assert f"{row.word}: {row.sentence}" in said
    uncorrected = {row.statement.statement: row.word for row in seven_billion.verdict({"evaluation": frame})}
    assert any(row.word != uncorrected[row.statement.statement] for row in one.rows)
    undecided = next(row for row in one.rows if row.needs)
    assert f"about {undecided.needs:,} would decide" in said
    assert f"the claim llm: {one.word}; because of balancing: {one.because}" in said


def test_an_evaluation_with_fewer_prompts_than_the_plans_stops_at_once(begun, capsys):
    command, folder, ran = begun
    (folder / "few").touch()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "must have the plan's 2 prompts, got 1; where too few are held out, raise held_out in smollm2" in said
    assert said.count("\n") == 1
    assert len(ran) == 2
    assert main(command) == 2, "nor is it joined later"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            ('name = "hh"', 'name = "harmless"'),
            "arms must be safe-rlhf, hh, which the claim is about, got safe-rlhf, h",
        ),
        (
            ('endpoint = "safe"', 'endpoint = "win_rate"'),
            "endpoint of hh must be safe, by which it is judged, got win_",
        ),
        ((', "length-dpo"]', "]"), "by which the claim is judged, got no length-dpo"),
        (('"fixed-weight", ', ""), "by which the claim is judged, got no fixed-weight"),
        (('"bdpo:beta=2", ', ""), "by which the claim is judged, got no bdpo:beta=2"),
        (('name = "beta-2"', 'name = "beta-2"\ncore = false'), "core groups must train "),
    ],
)
def test_a_plan_that_could_not_be_judged_is_refused_before_anything_runs(change, words, begun, capsys):
    command, folder, ran = begun
    plan = folder / "plan" / SMALL.name
    text = plan.read_text("utf-8")
    assert change[0] in text
    plan.write_text(text.replace(*change), encoding="utf-8")
    asked = [word.replace("hh=", "harmless=") for word in command] if "harmless" in change[1] else command
    for more in ([], ["--dry-run"]):
        assert main([*asked, *more]) == 2
        said = capsys.readouterr().err
        assert words in said
        assert said.count("\n") == 1
    assert not ran
    assert not (folder / "out").exists()


def test_the_core_is_judged_and_kept_before_the_rest(begun, capsys):
    command, folder, ran = begun
    (folder / "fails").write_text("naive", encoding="utf-8")
    assert main(command) == 1
    said = capsys.readouterr()
    assert "naive, training stopped with status 1" in said.err
    assert said.out.count("the claim llm: ") == 1
    assert not set(kept_frame(folder)["group"]) & {"naive"}
    (folder / "fails").unlink()
    assert main(command) == 0, capsys.readouterr().err
    assert set(kept_frame(folder)["group"]) == {"beta-1", "beta-2", "naive"}
    assert len(ran) == 25


@pytest.mark.parametrize(
    ("file", "words"),
    [(f"plan/{SMALL.name}", "another plan"), ("plan/smollm2-135m-training.toml", "another training"),
     ("plan/small_judges.py", "another reward"), ("pairs.jsonl", "another data of safe-rlhf"),
     ("model/config.json", "another model")],
)  # fmt: skip
def test_another_plan_in_the_same_folder_is_refused(file, words, begun, capsys):
    command, folder, ran = begun
    assert main(command) == 0, capsys.readouterr().err
    ran_once = len(ran)
    next((folder / "out").rglob("evaluation.parquet")).unlink()  # a command is left, which needs all that decides
    with open(folder / file, "a", encoding="utf-8") as opened:
        opened.write("\n")
    assert main(command) == 2
    said = capsys.readouterr().err
    assert f"{words} (plan.json has " in said
    assert said.count("\n") == 1
    assert len(ran) == ran_once == 24


def test_a_finished_folder_is_judged_without_model_pairs_and_judges(begun, capsys):
    command, folder, ran = begun
    assert main(command) == 0, capsys.readouterr().err
    shutil.rmtree(folder / "model")
    (folder / "pairs.jsonl").unlink()
    (folder / "plan" / "small_judges.py").unlink()
    assert main(command) == 0, capsys.readouterr().err
    assert len(ran) == 24
    with open(folder / "plan" / SMALL.name, "a", encoding="utf-8") as opened:
        opened.write("# another\n")
    assert main(command) == 2
    assert "another plan (plan.json has " in capsys.readouterr().err


def test_finished_commands_of_an_unknown_plan_are_refused(begun, capsys):
    command, folder, _ = begun
    assert main(command) == 0, capsys.readouterr().err
    (folder / "out" / "plan.json").unlink()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "out must be a new folder or have plan.json" in said
    assert "move it away" in said


def test_copies_of_the_judges_are_used_and_frozen_in_place_of_the_plans(begun, capsys, monkeypatch):
    command, folder, ran = begun
    copies = folder / "copies"
    copies.mkdir()
    text = (folder / "plan" / "small_judges.py").read_text("utf-8")
    (copies / "small_judges.py").write_text(text + "\n", encoding="utf-8")  # of the same name as the plan's
    monkeypatch.chdir(copies)
    mine = ["--reward", "small_judges.py:reward", "--cost", "small_judges.py:cost"]
    assert main([*command, *mine]) == 0, capsys.readouterr().err
    asked = [given(SimpleNamespace(command=words))[1] for words in ran if "evaluate" in words]
    assert {name: {one[f"--{name}"][0] for one in asked} for name in ("reward", "cost")} == {
        name: {f"{copies.resolve() / 'small_judges.py'}:{name}"} for name in ("reward", "cost")
    }
    found = read_sealed(folder / "out" / "plan.json")["decided"]
    assert {found["reward"], found["cost"]} == {file_hash(copies / "small_judges.py")}
    next((folder / "out").rglob("evaluation.parquet")).unlink()
    assert main(command) == 2
    assert "was begun with another reward (plan.json has " in capsys.readouterr().err


def test_folders_of_judges_are_named_as_they_are(tmp_path):
    plan = read_plan(SEVEN).moved(model="m", data={"hh": "hh.jsonl"}, reward="judges/reward", cost="judges/cost")
    trained, judged = (given(step)[1] for step in steps(plan, tmp_path)[:2])
    assert (judged["--reward"], judged["--cost"]) == (["judges/reward"], ["judges/cost"])
    assert (trained["--model"], trained["--data"]) == (["m"], ["PKU-Alignment/PKU-SafeRLHF"])
    assert {given(step)[1]["--data"][0] for step in steps(plan, tmp_path) if step.trains and "hh" in step.name} == {
        "hh.jsonl"
    }


@pytest.mark.parametrize("file", [SEVEN, SMALL], ids=lambda file: file.stem)
def test_every_command_is_understood(file):
    todo = steps(read_plan(file), Path("runs"))
    for step in todo:
        if "training" in step.name:
            words = list(step.command[step.command.index("gradlab.llm") + 1 :])
            settings = read_settings(words, "gradlab train")
            assert settings.recipe == "paper"
            assert settings.of("reference.steps") == (
                0 if "reference/model" in str(step) else settings.reference.steps or 300
            )
        else:
            assert parsed(EvaluateCommand, "evaluate", None, step.command[step.command.index("evaluate") + 1 :]).reward
    assert len({step.made for step in todo}) == len(todo)


def test_the_stated_part_is_the_papers():
    words = [*steps(read_plan(SEVEN), Path("runs"))[0].command]
    settings = read_settings(words[words.index("gradlab.llm") + 1 :], "gradlab train")
    assert (settings.of("beta"), settings.of("epochs"), settings.of("reference.steps")) == (1.0, 2.0, 300)
    assert settings.loss_of("nbdpo").clip == 0.3
    pairs_per_prompt = 73_900 / 44_600  # at least: the card of PKU-SafeRLHF-prompt has so many prompts
    assert settings.held_out / pairs_per_prompt >= 1.4 * read_plan(SEVEN).prompts


def test_core_groups_of_all_seeds_come_before_the_others():
    plan = read_plan(SEVEN)
    names = [step.name for step in steps(plan, Path("runs"))]
    first = names.index(next(name for name in names if "naive" in name))
    assert not any("beta-" in name for name in names[first:])


def test_the_rate_is_the_measured_one():
    rows = pd.read_parquet(ROOT / "figures/benchmarks/cuda/llm.parquet")
    steps_of = rows[(rows["size"] == "7B, all weights") & (rows["part"] == "steps") & (rows["method"] == "dpo")]
    plan = read_plan(SEVEN)
    assert plan.trained_per_second == pytest.approx((steps_of["tokens"] / steps_of["seconds"]).median(), rel=0.01)


def test_cost_grows_with_what_is_trained_and_falls_with_the_speed():
    plan = read_plan(SEVEN)
    core, rest = cost(plan, core=True), cost(plan, core=False)
    assert core.runs + rest.runs == plan.runs == 90
    assert cost(plan, core=True, mfu=2 * plan.mfu).trained == pytest.approx(core.trained / 2)
    by_hand = 2 * 160_800 * 379 / 4713 / 3600  # one loss, two epochs of HH
    assert core.trained == pytest.approx(5 * 7 * (by_hand + 2 * 73_900 * 379 / 4713 / 3600), rel=0.08)


def changed(folder, file, change, words):
    """A plan with other options of its trainings."""
    plan = folder / file.name
    plan.write_text(file.read_text("utf-8"), encoding="utf-8")
    options = (FOLDER / f"{file.stem}-training.toml").read_text("utf-8")
    assert change in options
    (folder / f"{file.stem}-training.toml").write_text(options.replace(change, words), encoding="utf-8")
    return read_plan(plan)


@pytest.mark.parametrize(
    ("change", "words", "same"),
    [
        ("gradient_checkpointing = true", "gradient_checkpointing = 0.5", {"checkpointing": 0.5}),
        ("gradient_checkpointing = true", "gradient_checkpointing = false", {"checkpointing": 0}),
        ('precision = "bf16"', 'precision = "fp32"', {"precision": "fp32"}),
        ('precision = "bf16"', 'precision = "auto"', {}),
        ('distribution = "fsdp"', 'distribution = "ddp"', {"sharded": False}),
        ("micro = 4", "micro = 2", {"micro_pairs": 2}),
        ("micro = 4", "tokens_per_micro = 6144", {"micro_pairs": 6}),
        ("micro = 4", "micro = 4\n[log]\nsides_every = 0", {"sides": False}),
        ("micro = 4", "micro = 4\n[lora]\nrank = 8", {"lora_rank": 8}),
        ("micro = 4", 'micro = 4\n[lora]\nrank = 8\ntargets = "q_proj"', {"lora_rank": 8, "lora_targets": ["q_proj"]}),
    ],
)  # fmt: skip
def test_the_memory_is_that_of_the_trainings_options(change, words, same, tmp_path):
    usual = {"gpus": 8, "micro_pairs": 4, "length": 512, "checkpointing": 1, "precision": "bf16"}
    expected = memory(LLAMAS["Llama-2-7B"], **usual | same).total
    assert gpu_memory(changed(tmp_path, SEVEN, change, words)) == expected
    if same:
        assert gpu_memory(read_plan(SEVEN)) != expected


def test_without_gpus_the_memory_is_that_of_one_process_on_the_settings_device(tmp_path):
    fp32, bf16 = (
        memory(read_plan(SMALL).config(), lora_rank=8, micro_pairs=2, length=64, checkpointing=0, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert gpu_memory(read_plan(SMALL)) == fp32.total
    on_gpu = changed(tmp_path, SMALL, 'precision = "fp32"\ndevice = "cpu"', 'device = "cuda"')
    assert gpu_memory(on_gpu) == bf16.total
    few = changed(tmp_path, SMALL, "micro = 2", "micro = 2\nchunk = 8")
    assert gpu_memory(few) == memory(
        few.config(), lora_rank=8, micro_pairs=2, length=64, checkpointing=0, precision="fp32", chunk=8
    ).total  # fmt: skip
    assert gpu_memory(few) < fp32.total


def test_an_adapter_takes_the_disk_of_its_weights_alone(tmp_path):
    weights = 30 * 8 * sum(
        left + right for left, right in 2 * [(576, 576)] + 2 * [(576, 192)] + 3 * [(576, 1536)]
    )  # fmt: skip
    small = read_plan(SMALL)
    models = len(small.seeds) * len(small.arms) * (4 + 1 + 3)  # one per loss of the core, and the reference
    assert cost(small, core=True).disk == models * 4 * weights
    assert checkpoint_bytes(small) == 3 * 12 * weights
    never = changed(tmp_path, SMALL, "validate_every = 1", "save_every = 0")
    assert checkpoint_bytes(never) == 0


def test_a_number_of_steps_wins_over_epochs_in_the_cost():
    small = read_plan(SMALL)
    tokens = 2 * 2 * 319 * 2 * (7 + 1 + 2 / 3)  # 7 losses and a reference, a step of 2 pairs each; scored in 2 groups
    assert cost(small, core=True).trained == pytest.approx(tokens / 60 / 3600)


def test_supervised_training_is_part_of_the_cost(tmp_path):
    small, with_sft = read_plan(SMALL), read_plan(with_training(tmp_path / "sft", "sft.epochs = 3\n"))
    runs = len(small.seeds) * len(small.arms)
    hours = runs * 3 * small.arms[0].pairs * small.tokens_per_pair / 2 / small.trained_per_second / 3600
    assert {arm.pairs for arm in small.arms} == {small.arms[0].pairs}
    both, core = cost(with_sft, core=True), cost(small, core=True)
    assert both.trained - core.trained == pytest.approx(hours)
    models = len(small.seeds) * len(small.arms) * (4 + 1 + 3)
    assert (both.disk - core.disk) / core.disk == pytest.approx(runs / models)  # one model more per run
    assert (both.sampled, both.runs) == (core.sampled, core.runs)
    other = changed(tmp_path, SMALL, "[reference]\nsteps = 1", "[reference]\nsteps = 0")
    assert cost(other, core=True).disk / core.disk == pytest.approx(1 - runs / models)  # no model is its own reference


def test_the_page_has_the_clips_of_the_plans_losses(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(SEVEN.read_text("utf-8").replace('"nbdpo-symmetric"', '"nbdpo-symmetric:clip=0.2"'))
    (tmp_path / "llama-7b-training.toml").write_text((FOLDER / "llama-7b-training.toml").read_text("utf-8"))
    assert "steps of DPO, clip 0.2, clip 0.3, rate" in page(read_plan(plan), bound=0.02)


def test_amounts_of_a_small_plan_are_not_rounded_to_nothing():
    small = page(read_plan(SMALL), bound=0.02)
    assert "reference by 1 step of DPO" in small
    [core] = [line for line in small.splitlines() if line.startswith("| core |")]
    assert all(float(cell.replace(",", "")) > 0 for cell in core.strip("| ").split(" | ")[1:])


def test_power_falls_with_the_spread_of_seeds():
    table = power_table(read_plan(SEVEN), bound=0.02)
    for _, arm in table.groupby("arm"):
        assert np.all(np.diff(arm["power"]) < 0)
        assert np.all(arm["power"] > arm["half"])
        assert np.all(np.diff(arm["none"]) < 0)
        assert np.all(np.diff(arm["none_seeds"]) > 0)


def test_power_is_that_of_the_words_by_which_the_claim_is_judged():
    """Simulated seeds of the first data set, judged with a second one that shows nothing."""
    plan, rng = read_plan(SEVEN), np.random.default_rng(5)
    table = power_table(plan, bound=seven_billion.MARGIN)
    row = table[(table["arm"] == "safe-rlhf") & (table["between_seeds"] == 0.05)].iloc[0]
    words = []
    for _ in range(300):
        gaps = rng.normal(row["expected"] / 2, row["spread"], len(plan.seeds))
        average, units = average_over_cells(gaps[None], seven_billion.MARGIN), judge_units(gaps[None], 0.02)
        nothing = Evidence(effect=0.0, p_differs=1.0, p_equivalent=1.0, units=1)
        words.append(word_of(corrected([evidence_of_cells(average, units), nothing])[0]))
    found = words.count("holds throughout") / len(words)
    assert found == pytest.approx(row["half"], abs=4 * np.sqrt(0.25 / len(words)))


def test_a_small_difference_or_a_fall_has_a_page_too(tmp_path):
    for number in ("0.04", "-0.9"):
        plan = tmp_path / "plan.toml"
        plan.write_text(SEVEN.read_text("utf-8").replace("expected = 0.18", f"expected = {number}"), encoding="utf-8")
        (tmp_path / "llama-7b-training.toml").write_text((FOLDER / "llama-7b-training.toml").read_text("utf-8"))
        table = power_table(read_plan(plan), bound=0.02)
        assert table.loc[table["arm"] == "safe-rlhf", "seeds"].isna().all()
        assert table.loc[table["arm"] == "hh", "seeds"].notna().all()
        assert "| none |" in page(read_plan(plan), bound=0.02)


def made_up(gaps, seeds=(1000, 1001, 1002, 1003, 1004)):
    """Joined evaluations in which each method differs from DPO by its gap."""
    rng, rows = np.random.default_rng(0), []
    groups = {
        "beta-1": ["reference", "dpo", "bdpo", "fixed-weight", "length-dpo"],
        "beta-2": ["reference", "bdpo:beta=2"],
    }
    for arm in ("safe-rlhf", "hh"):
        for seed in seeds:
            for group, methods in groups.items():
                for method in methods:
                    value = 0.5 + gaps.get(method, 0.0) + rng.normal(0, 0.005)
                    rows.append({"arm": arm, "group": group, "seed": seed, "method": method, "success": value,
                                 "safe": value, "win_rate": 0.5 + rng.normal(0, 0.005)})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("gaps", "word", "because"),
    [
        ({"bdpo": 0.2, "bdpo:beta=2": 0.2}, "holds throughout", "holds throughout"),
        ({"bdpo": 0.2, "fixed-weight": 0.2}, "holds throughout", "no practical difference"),
        ({}, "no practical difference", "no practical difference"),
        ({"bdpo": -0.2}, "reversed", "reversed"),
    ],
)
def test_each_outcome_has_its_word(gaps, word, because, tmp_path):
    save_frame(made_up(gaps), tmp_path / seven_billion.FILES["evaluation"], {})
    one = verdicts.judge_claims(tmp_path, ["llm"])["llm"]
    assert (one.word, one.because) == (word, because)
    assert {row.experiment for row in one.rows} == {MEASURED["seven-billion"].name}


def test_until_somebody_runs_it_every_statement_is_listed_as_not_run(tmp_path):
    one = verdicts.judge_claims(tmp_path, ["llm"])["llm"]
    assert one.word == "not run"
    assert {row.statement.statement for row in one.rows} == {row.statement for row in seven_billion.contrasts()}
    assert seven_billion.COMMAND in one.why


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("gpus = 8", ""), "must have gpus, which it lacks"),
        (lambda text: text.replace("gpus = 8", 'gpus = "8"'), "gpus in .* must be a whole number, got '8'"),
        (lambda text: text.replace("prompts = 500", "prompts = 1.5"), "prompts in .* must be a whole number, got 1.5"),
        (lambda text: text.replace("mfu = 0.188", "mfu = true"), "mfu in .* must be a number, got True"),
        (lambda text: re.sub("seeds = .*", "seeds = 3", text), "seeds in .* must be a list of whole numbers, got 3"),
        (lambda text: re.sub("seeds = .*", "seeds = [1, true]", text), r"must be a list of whole numbers, got \[1, Tr"),
        (lambda text: re.sub("between_seeds = .*", "between_seeds = 'a'", text), "must be a list of numbers, got 'a'"),
        (lambda text: text.replace("core = false", "core = 0"), "core in groups in .* must be true or false, got 0"),
        (lambda text: text.replace('choice = "safety"', "choice = 1"), "choice in arms in .* must be a text, got 1"),
        (lambda text: 'folder = "x"\n' + text, "option of .* must be one of"),
        (lambda text: text.replace("gpus = 8", "gpu = 8"), "option of .* must be one of"),
        (lambda text: text.replace('endpoint = "safe"', 'endpoint = "nice"'), "endpoint of hh must be one of"),
        (lambda text: text.replace('"dpo", "bdpo",', '"dpo",'), "the first group must train dpo and bdpo"),
        (lambda text: re.sub(r"seeds = .*", "seeds = [1000]", text), "seeds must be two or more"),
        (lambda text: text.replace('["nbdpo", "nbdpo-symmetric"]', "[]"), "loss of naive must name one or more losses"),
        (lambda text: text.replace('"nbdpo", ', '"bdpo", '), "groups must train each loss once, got bdpo twice"),
        (lambda text: text.replace('name = "hh"', 'name = "safe-rlhf"'), "arms must have names, each once"),
        (lambda text: text.replace('"length-dpo"]', '"lenght-dpo"]'), "lenght-dpo"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(change, words, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(change(SEVEN.read_text("utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_plan(file)


def test_pairs_of_an_arm_that_is_not_there_are_refused(capsys):
    assert main(["protocol", str(SMALL), "--data", "hhh=x.jsonl", "--dry-run"]) == 2
    assert "arm of data must be one of" in capsys.readouterr().err
    assert main(["protocol", str(SMALL), "--data", "x.jsonl", "--dry-run"]) == 2
    assert "data must be ARM=PAIRS, got 'x.jsonl'" in capsys.readouterr().err
    assert main(["protocol", str(SMALL), "--data", "hh=a", "hh=b", "--dry-run"]) == 2
    assert "data must have each arm once, got hh twice" in capsys.readouterr().err


def test_a_dry_run_prints_commands_and_tables_and_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["protocol", str(SEVEN), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert len([line for line in said.splitlines() if "--loss" in line]) == 30
    assert "GPU hours" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.long  # thirty trainings, each in a process of its own
def test_every_line_of_the_protocol_runs_from_the_first_training_to_the_verdict(tmp_path, capfd):
    """With a model of 10,000 parameters; docs say what ran with 135 million."""
    write_inputs(tmp_path)
    lines = (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()
    safe = [
        {"prompt": one["prompt"], "response_0": one["chosen"], "response_1": one["rejected"],
         "is_response_0_safe": True, "is_response_1_safe": False, "better_response_id": 0, "safer_response_id": 0}
        for one in map(json.loads, lines)
    ]  # fmt: skip
    (tmp_path / "safe.jsonl").write_text("".join(json.dumps(one) + "\n" for one in safe), encoding="utf-8")
    text = SMALL.read_text("utf-8")
    plan = tmp_path / "plan.toml"
    plan.write_text(text.replace("length = 8", "length = 3"))
    training = (FOLDER / "smollm2-135m-training.toml").read_text("utf-8")
    training = training.replace('template = "chat"', 'template = "plain"').replace("max_length = 64", "max_length = 32")
    (tmp_path / "smollm2-135m-training.toml").write_text(training, encoding="utf-8")
    (tmp_path / "small_judges.py").write_text((FOLDER / "small_judges.py").read_text("utf-8"), encoding="utf-8")
    command = ["protocol", str(plan), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--keep",
               "--folder", str(tmp_path / "figures"), "--data", f"safe-rlhf={tmp_path / 'safe.jsonl'}",
               f"hh={tmp_path / 'pairs.jsonl'}"]  # fmt: skip
    assert main(command) == 0, capfd.readouterr().err
    frame, _ = load_frame(tmp_path / "figures" / seven_billion.FILES["evaluation"])
    assert not MEASURED["seven-billion"].is_in(tmp_path / "figures"), "numbers that mean nothing judge nothing"
    assert set(frame["method"]) == {"reference", *(loss for group in read_plan(SMALL).groups for loss in group.loss)}
    assert len(frame) == 2 * 2 * (9 + 3)
    capfd.readouterr()
    assert main(command) == 0
    assert capfd.readouterr().out.count("done before") == 24
