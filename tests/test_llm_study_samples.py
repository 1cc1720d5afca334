"""A study's systems may be model folders: they are sampled once, one response per prompt, into a file of ours."""

import json

import pytest

pytest.importorskip("transformers")

import small_study
import tiny_llm

from gradlab import cli
from gradlab.llm.judge import study_samples
from gradlab.llm.judge.study_samples import Sampling, sample_systems
from gradlab.llm.train.stages import train
from gradlab.study.frozen import read_study
from gradlab.study.items import samples_of
from gradlab.study.plan import Design

THREE = ("w1 w2", "w3 w4 w5", "w2 w3")
SHORT = Sampling(length=8, prompts=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a tiny model with two losses."""
    made = tmp_path_factory.mktemp("study")
    tiny_llm.write_inputs(made, pairs=24)
    train(tiny_llm.tiny_settings(made, made / "run", loss=("dpo", "bdpo"), held_out=8, steps=2, sides_every=0,
                                 validate_every=0, save_every=0, learning_rate=1e-1))  # fmt: skip
    return made


def _plan(**changes):
    usual = {"systems": {"dpo": "run", "bdpo": "run/bdpo/model"},
             "design": Design(items_per_rater=2, raters_per_item=2, identical="tie")}  # fmt: skip
    return small_study.plan(**{**usual, **changes})


def test_folders_are_sampled_once_and_then_used(folder, tmp_path):
    first = sample_systems(_plan(), folder, tmp_path / "study.json", SHORT)
    assert {system: kept.file.name for system, kept in first.items()} == {
        "dpo": "study-dpo.samples.jsonl", "bdpo": "study-bdpo.samples.jsonl",
    }  # fmt: skip
    before = {system: kept.file.read_bytes() for system, kept in first.items()}
    again = sample_systems(_plan(), folder, tmp_path / "study.json", SHORT)
    assert all(kept.was_there for kept in again.values())
    assert [kept.empty for kept in again.values()] == [kept.empty for kept in first.values()]
    assert {system: kept.file.read_bytes() for system, kept in again.items()} == before
    texts = {system: samples_of(system, kept.file) for system, kept in first.items()}
    assert 1 <= len(texts["dpo"]) <= 6
    assert json.loads(before["dpo"].splitlines()[0])["temperature"] == 1.0


def test_other_settings_and_other_files_are_refused_and_nothing_is_lost(folder, tmp_path):
    kept = sample_systems(_plan(), folder, tmp_path / "study.json", SHORT)["dpo"]
    before = kept.file.read_bytes()
    with pytest.raises(ValueError, match="holds samples of another model, other prompts or settings; move it away"):
        sample_systems(_plan(), folder, tmp_path / "study.json", Sampling(length=8, prompts=6, seed=1))
    assert kept.file.read_bytes() == before
    kept.file.write_text('{"mine": 1}\n')
    with pytest.raises(ValueError, match="was not written by gradlab study"):
        sample_systems(_plan(), folder, tmp_path / "study.json", SHORT)
    assert kept.file.read_text() == '{"mine": 1}\n'


def test_models_answer_the_prompts_of_the_plan_or_of_other_systems(folder, tmp_path):
    (folder / "prompts.jsonl").write_text("".join(
        json.dumps({"prompt": prompt, "stratum": "all"}) + "\n" for prompt in THREE
    ))  # fmt: skip
    kept = sample_systems(_plan(prompts="prompts.jsonl"), folder, tmp_path / "study.json", SHORT)
    assert set(samples_of("dpo", kept["dpo"].file)) <= set(THREE)
    others = [{"prompt": f"{prompt} w1", "response": "w3"} for prompt in THREE]
    (folder / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in others))
    mixed = _plan(systems={"dpo": "run", "bdpo": "other.jsonl"})
    kept = sample_systems(mixed, folder, tmp_path / "mixed.json", SHORT)
    assert set(samples_of("dpo", kept["dpo"].file)) <= {f"{prompt} w1" for prompt in THREE}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"prompt": prompt} for prompt in THREE], "line 1: stratum must"),
        (
            [{"prompt": prompt, "stratum": "all"} for prompt in (*THREE, THREE[0])],
            "line 4 has a prompt that stands above",
        ),
        ([{"prompt": prompt, "stratum": "all"} for prompt in (*THREE, "w1  w2")], "white space"),
        ([{"prompt": prompt, "stratum": "all"} for prompt in THREE[:2]], "need 3 items, and there are 2 \\(2 prompts"),
    ],
)
def test_prompts_that_no_study_can_have_are_refused_before_a_model_is_loaded(
    folder, tmp_path, monkeypatch, lines, message
):
    def load(*_, **__):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(study_samples, "load_model", load)
    (folder / "wrong.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=message):
        sample_systems(_plan(prompts="wrong.jsonl"), folder, tmp_path / "study.json", SHORT)


def test_a_folder_that_is_no_run_and_a_model_that_is_not_there_are_refused(folder, tmp_path):
    (folder / "empty").mkdir(exist_ok=True)
    for systems, message in (
        ({"dpo": "run", "bdpo": "empty"}, "systems.bdpo must be a file of samples, a run's folder"),
        ({"dpo": "run", "other": "run"}, "systems.other, by its name a model of .*, must be one of"),
    ):
        primary = small_study.Primary(a="dpo", b=[*systems][1], goal="helpful", margin=0.05)
        with pytest.raises(ValueError, match=message):
            sample_systems(_plan(systems=systems, primary=primary), folder, tmp_path / "study.json", SHORT)


def test_the_command_samples_freezes_and_says_how(folder, tmp_path, capsys):
    _plan().write(folder / "plan.toml")
    command = ["study", "plan", str(folder / "plan.toml"), "--freeze", str(tmp_path / "study.json"), "--length", "8"]
    assert cli.main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "sampled at temperature 1, seed 0" in said
    first = read_study(tmp_path / "study.json")
    assert cli.main(command) == 0
    assert "study-bdpo.samples.jsonl, was there" in " ".join(capsys.readouterr().out.split())
    assert read_study(tmp_path / "study.json").hash == first.hash
    assert cli.main(command[:3]) == 0
    assert "--freeze samples dpo, bdpo first" in capsys.readouterr().out
