"""The laptop run: its minute's version goes the whole path, twice gives the same, and its frames are what they say."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("transformers")

from gradlab.cli import main
from gradlab.llm.demo import laptop_run
from gradlab.llm.model.loading import small_llama
from gradlab.losses import PAIR_LOSSES
from gradlab.store.artifacts import load_frame
from gradlab.store.provenance import fingerprint

LABELS = ["task", "size", "seed", "method"]
METHODS = [*laptop_run.SMOKE["losses"], "ppo"]


def test_a_run_leaves_the_number_of_threads(tmp_path, monkeypatch):
    seen = []

    def start(*_):
        seen.append(torch.get_num_threads())
        raise ValueError("no run today")

    monkeypatch.setattr(laptop_run, "_start", start)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="no run today"):
            laptop_run.run_unit("tokens", "1M", 0, str(tmp_path), None, laptop_run.SETTINGS)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def smoke(whole_runs, tmp_path_factory):
    """The folder and the frames."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, laptop_run.run_demo(folder, settings=laptop_run.SMOKE, workers=1)


def test_every_method_is_evaluated_beside_the_reference(smoke):
    found = smoke[1]["evaluation"]
    assert found["method"].tolist() == ["reference", *METHODS]
    assert set(found["judge"]) == {"true reward"}
    assert found.loc[0, ["kl", "margin"]].tolist() == [0, 0]
    assert found["win_rate"].between(0, 1).all()
    assert found[LABELS].notna().all(axis=None)
    assert not found.map(lambda value: "/" in str(value)).any(axis=None), "no paths of a machine"


def test_logs_hold_each_step_of_each_method(smoke):
    logs = smoke[1]["logs"]
    assert list(dict.fromkeys(logs["method"])) == METHODS
    steps = logs.groupby("method")["step"].agg(["min", "max", "count"])
    assert (steps["min"] == 1).all()
    assert steps["max"].nunique() == 1, "every loss has the same number of steps"
    first = logs[(logs["step"] == 1) & (logs["method"] != "ppo")]
    np.testing.assert_allclose(first["loss"], np.log(2), atol=1e-5)
    assert (first["grad_split_error"] < 1e-5).all()
    assert first[["grad_norm_win", "grad_norm_lose", "delta_win", "delta_lose"]].notna().all(axis=None)


def test_pairs_are_scored_under_every_model(smoke):
    pairs = smoke[1]["pairs"]
    assert pairs.groupby("method").size().to_dict() == dict.fromkeys(["reference", *METHODS], 24)
    own = pairs[pairs["method"] == "reference"]
    np.testing.assert_array_equal(own["win"], own["ref_win"])
    moved = pairs[pairs["method"] == "dpo"]
    assert (moved["win"] != moved["ref_win"]).any()
    assert (pairs[["win", "lose", "ref_win", "ref_lose"]] < 0).all(axis=None)


def test_a_second_call_does_nothing_again_and_another_process_gives_the_same(smoke, tmp_path, monkeypatch):
    folder, frames = smoke
    monkeypatch.setattr(laptop_run, "train", lambda *_: pytest.fail("it was done"))
    again = laptop_run.run_demo(folder, settings=laptop_run.SMOKE, workers=1)
    for name, frame in frames.items():
        pd.testing.assert_frame_equal(again[name], frame)


def test_kept_frames_are_small_and_say_where_they_come_from(smoke, tmp_path):
    files = laptop_run.save_demo(smoke[1], tmp_path, laptop_run.SMOKE, "make llm-demo")
    assert [file.name for file in files] == ["evaluation.parquet", "logs.parquet", "pairs.parquet"]
    for file in files:
        frame, manifest = load_frame(file)
        assert manifest["settings"] == laptop_run.SMOKE
        assert manifest["command"] == "make llm-demo"
        assert set(LABELS) <= set(frame.columns)
        assert not len(frame.select_dtypes("float64").columns)


def test_the_declared_run_is_what_was_promised():
    settings = laptop_run.SETTINGS
    assert len(settings["seeds"]) >= 3
    assert set(settings["losses"]) >= {"dpo", "bdpo", "nbdpo", "nbdpo-symmetric"}
    assert set(settings["losses"]) <= set(PAIR_LOSSES)
    assert (settings["training"]["reference_steps"], settings["training"]["epochs"]) == (300, 2)
    words = settings["tasks"]["hh"]["vocabulary"]
    sizes = {
        name: sum(one.numel() for one in small_llama(words, **size, longest=64, seed=0).parameters())
        for name, size in settings["sizes"].items()
    }
    assert len(sizes) == 2
    for name, size in sizes.items():
        assert 1e6 <= size <= 3e6
        assert name == f"{size / 1e6:.0f}M"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"tasks": ["hh"]}, "data must name HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf; got none"),
        ({"tasks": ["tokns"]}, "task must be one of hh, tokens; got 'tokns'; did you mean 'tokens'?"),
        ({"tasks": ["tokens"], "sizes": ["7B"]}, "size must be one of 1M, 2M; got '7B'"),
    ],
)
def test_bad_input_is_one_line(arguments, line, tmp_path):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        laptop_run.run_demo(tmp_path, **arguments)


def pairs_file(file, words):
    """16 pairs of two texts a seed's choice takes all of."""
    rows = [{"prompt": f"{n} ", "chosen": f"a {words}", "rejected": f"b {words}"} for n in range(16)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


HH = {
    **laptop_run.SMOKE,
    "tasks": {"hh": {"pairs": 16, "vocabulary": 280, "max_length": 16, "sample_length": 8}},
}  # fmt: skip


def only_begun(task, size, seed, folder, data, settings):
    """In place of ``run_unit``: no training, and frames of the pairs that it would be of."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    laptop_run._start(task, settings["sizes"][size], seed, out, data, settings["tasks"][task])
    (out / "run").mkdir(exist_ok=True)
    frame = pd.DataFrame({"chosen": [one.chosen for one in laptop_run.read_pairs(str(out / "pairs.jsonl"))[0]]})
    for name in ("logs", "pairs"):
        laptop_run.save_frame(frame, out / f"{name}.parquet", {}, overwrite=True)
    return frame


def test_other_data_are_another_run(tmp_path, monkeypatch):
    monkeypatch.setattr(laptop_run, "run_unit", only_begun)

    def chosen(data):
        frames = laptop_run.run_demo(tmp_path / "out", data=data, settings=HH, workers=1)
        (one,) = {words for frame in frames.values() for words in frame["chosen"]}
        return one

    first, second = (pairs_file(tmp_path / f"{words}.jsonl", words) for words in ("cat", "dog"))
    assert chosen(first) == "a cat"
    place = tmp_path / "out" / "hh-tiny-0"
    before = (place / "base" / "tokenizer.json").read_bytes()
    (place / "run" / "data.json").touch()
    assert chosen(second) == "a dog"
    assert (place / "base" / "tokenizer.json").read_bytes() != before
    assert not (place / "run" / "data.json").exists()  # else its stages would refuse the new pairs
    monkeypatch.setattr(laptop_run, "run_unit", lambda **_: pytest.fail("it was done"))
    assert chosen(pairs_file(tmp_path / "moved.jsonl", "dog")) == "a dog"


def test_a_run_of_the_same_data_goes_on(tmp_path):
    data, size, own = pairs_file(tmp_path / "cat.jsonl", "cat"), HH["sizes"]["tiny"], HH["tasks"]["hh"]
    laptop_run._start("hh", size, 0, tmp_path, data, own)
    kept = [tmp_path / name for name in ("run/dpo.json", "reward/done.json", "base/config.json", "logs.parquet")]
    for file in kept[:-1]:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    laptop_run.save_frame(pd.DataFrame({"a": [1]}), kept[-1], {})
    laptop_run._start("hh", size, 0, tmp_path, data, own)
    assert all(file.exists() for file in kept)
    laptop_run._start("hh", size, 1, tmp_path, data, own)  # another order of the pairs
    assert [file.exists() for file in kept] == [False, False, True, False]


def test_a_folder_that_is_no_run_s_is_not_removed(tmp_path):
    data, size, own = pairs_file(tmp_path / "cat.jsonl", "cat"), HH["sizes"]["tiny"], HH["tasks"]["hh"]
    (tmp_path / "out/run").mkdir(parents=True)
    (tmp_path / "out/run/thesis").touch()
    with pytest.raises(FileExistsError, match=r"out/run is there and was not written by gradlab; .*move it away"):
        laptop_run._start("hh", size, 0, tmp_path / "out", data, own)
    assert (tmp_path / "out/run/thesis").exists()


def test_only_what_is_made_of_the_data_depends_on_them(tmp_path):
    data = pairs_file(tmp_path / "cat.jsonl", "cat")
    settings = laptop_run.SETTINGS
    assert laptop_run._key("tokens", "1M", 0, settings, data) == fingerprint(settings, "tokens", "1M", 0)
    keys = {laptop_run._key("hh", "1M", 0, settings, one) for one in (data, "Anthropic/hh-rlhf", "other/hh-rlhf")}
    assert len(keys) == 3


def test_too_few_pairs_are_told(tmp_path):
    rows = [{"prompt": f"{n} ", "chosen": "a b", "rejected": "b a"} for n in range(5)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"data must hold 1120 usable pairs or more, .*few\.jsonl has 5"):
        laptop_run._chosen("hh", 0, str(tmp_path / "few.jsonl"), 1120)


def test_the_command_prints_a_table_and_where_the_frames_are(smoke, capsys):
    assert main(["demo", "--out", str(smoke[0]), "--smoke", "--workers", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "tokens, tiny"
    assert said[1].split()[:2] == ["method", "win-rate"]
    assert [line.split()[0] for line in said[2:6]] == ["reference", *METHODS]
    assert "reward true reward: accuracy" in "\n".join(said)
    assert said[-1].startswith("frames, one of each")
    assert f"{smoke[0]}/*/evaluation.parquet" in said[-1]
    assert max(map(len, said[:6])) < 120


def test_tables_are_over_the_seeds_of_a_task_and_size(smoke):
    one = smoke[1]["evaluation"]
    both = pd.concat([one.assign(seed=seed, size=size) for size in ("1M", "2M") for seed in range(3)])
    said = laptop_run.demo_table(both)
    assert [line for line in said.splitlines() if line.startswith("tokens,")] == ["tokens, 1M", "tokens, 2M"]
    assert said.count("Means over 3 runs") == 2
    assert said.count("win-rate − dpo's") == 2


@pytest.mark.parametrize(
    "options", [[], ["--data", "d", "--seeds", "0"], ["--data", "d", "--smoke"], ["--tasks", "tokens"]]
)
def test_the_command_refuses_to_keep_a_part(tmp_path, monkeypatch, capsys, options):
    monkeypatch.setattr(laptop_run, "run_demo", lambda *_, **__: pytest.fail("it must not train"))
    assert main(["demo", "--out", str(tmp_path), *options, "--keep"]) == 2
    assert capsys.readouterr().err == (
        "gradlab: keep needs --data and all tasks, sizes and seeds: leave out --tasks, --sizes, --seeds and --smoke\n"
    )


def test_frames_are_kept_where_the_claims_report_looks_for_them(smoke, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(laptop_run, "run_demo", lambda *_, **__: smoke[1])
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--data", "pairs.jsonl", "--keep"]) == 0
    frame, manifest = load_frame(tmp_path / "figures/llm/evaluation.parquet")
    assert manifest["command"] == "gradlab demo --data PAIRS --keep"
    assert frame["method"].tolist() == ["reference", *METHODS]
    assert "saved: figures/llm/pairs.parquet" in capsys.readouterr().out
