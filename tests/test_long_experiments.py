"""Long experiments: run by name alone, resumed part by part, checked by a sample where a source has changed."""

import dataclasses
import json
import re

import long_experiment
import numpy as np
import pandas as pd
import pytest
from long_experiment import CLAIM, EXPERIMENT

from gradlab import cli
from gradlab.experiments import EXPERIMENTS, frames, gallery, long_experiments, make, samples
from gradlab.experiments.make import make_figures, make_frames
from gradlab.experiments.report import verdicts
from gradlab.experiments.report.claims import Claim
from gradlab.experiments.report.sections import OPEN_QUESTIONS
from gradlab.store.artifacts import load_frame, load_manifest, save_frame

PATH = "data/long.parquet"


@pytest.fixture
def alone(monkeypatch):
    """A long experiment with a claim; no other experiment is ever run or drawn, nor is the atlas written."""
    monkeypatch.setitem(EXPERIMENTS, "long", EXPERIMENT)
    run, is_drawn = frames.bring_up_to_date, gallery.is_drawn
    only = lambda experiments, *place, **how: run([one for one in experiments if one is EXPERIMENT], *place, **how)  # noqa: E731
    drawn = lambda one, *place, **how: one is not EXPERIMENT or is_drawn(one, *place, **how)  # noqa: E731
    monkeypatch.setattr(frames, "bring_up_to_date", only)
    monkeypatch.setattr(gallery, "is_drawn", drawn)
    monkeypatch.setattr(make, "_write_atlas", lambda *_, **__: [])
    claim = Claim("bDPO has more.", "Nothing.", "All.", "A rule.", "Another value.", ("two-sides",), ("long",),
                  source="open question 9")  # fmt: skip
    monkeypatch.setitem(OPEN_QUESTIONS.claims, CLAIM, claim)
    monkeypatch.setitem(verdicts.EVERY, CLAIM, claim)


@pytest.fixture
def made(tmp_path):
    """A folder of data with the frame."""
    assert frames.bring_up_to_date([EXPERIMENT], tmp_path, quick=False, fresh=False, workers=1) == [EXPERIMENT]
    return tmp_path


def check(folder, **more):
    return samples.check_long(EXPERIMENT, folder, quick=False, workers=1, **more)


def changed(frame):
    """The frame with another number in its third part."""
    return frame.assign(value=frame["value"].where(frame["number"] != 2, frame["value"] + 0.01))


# --- the frame ---


def test_its_key_follows_settings_and_version_but_no_source(monkeypatch):
    before = frames.frame_key(EXPERIMENT, quick=False)
    monkeypatch.setattr(frames, "sources_key", lambda _: "of other sources")
    assert frames.frame_key(EXPERIMENT, quick=False) == before
    assert frames.frame_key(EXPERIMENT, quick=True) != before
    assert frames.frame_key(dataclasses.replace(EXPERIMENT, version=2), quick=False) != before


def test_the_manifest_says_which_rows_belong_to_which_part(made):
    frame, manifest = load_frame(made / "long.parquet")
    rows = frames.rows_of_parts(frame, manifest)
    assert (manifest["version"], sum(manifest["parts"].values())) == (1, len(frame))
    assert [part["number"].unique().tolist() for part in rows.values()] == [[0], [1], [2], [3]]
    again = frames.as_parts(EXPERIMENT, False, made, EXPERIMENT.parts(EXPERIMENT.settings))
    assert [part.file.stem for part in again] == list(rows)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    calls = []

    def breaks_at_the_third(number, seeds):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return long_experiment.run_part(number, seeds)

    broken = dataclasses.replace(EXPERIMENT, run_part=breaks_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        frames.bring_up_to_date([broken], tmp_path, quick=False, fresh=False, workers=1)
    monkeypatch.setattr(frames, "sources_key", lambda _: "of other sources")  # parts are kept all the same
    frames.bring_up_to_date([broken], tmp_path, quick=False, fresh=False, workers=1)
    assert calls == [0, 1, 2, 2, 3]
    assert not (tmp_path / ".parts").exists()


# --- the sample ---


def test_a_sample_that_agrees_is_not_made_again_until_a_source_changes(made, monkeypatch):
    ran = []
    real = samples.run_parts
    noted = lambda run, parts, **more: (ran.append(len(parts)), real(run, parts, **more))  # noqa: E731
    monkeypatch.setattr(samples, "run_parts", noted)
    assert check(made) == check(made) == []
    assert ran == [2]
    assert check(made, fresh=True) == []
    monkeypatch.setattr(frames, "sources_key", lambda _: "of other sources")
    assert check(made) == []
    assert ran == [2, 2, 2]


def test_a_sample_that_differs_is_said_until_it_is_gone(made):
    frame, manifest = load_frame(made / "long.parquet")
    kept = {name: manifest[name] for name in ("key", "settings", "quick", "version", "parts")}
    save_frame(changed(frame), made / "long.parquet", kept, overwrite=True)
    (said,) = check(made)
    assert said.startswith("THE SAMPLE DIFFERS from the committed rows: part 2 of the sample (by 0.0")
    assert said.endswith("raise its version and run `gradlab figures long`")
    assert check(made) == [said]
    save_frame(frame, made / "long.parquet", kept, overwrite=True)
    assert check(made) == []


@pytest.mark.parametrize(
    ("differs", "rounded", "said"),
    [(1e-7, 0.0, False), (1e-5, 2e-6, False), (1e-5, 1e-7, True), (1e-5, 0.0, True), (np.inf, np.inf, True)],
)
def test_a_piece_may_differ_by_ten_times_of_what_rounding_becomes_in_it(tmp_path, differs, rounded, said):
    asked = []

    def rounding(names):
        asked.extend(names)
        return dict.fromkeys(names, rounded)

    found = samples.check(
        tmp_path / "stamp.json", "key", lambda: {"a": differs, "b": 0.0}, "…", fresh=False, rounding=rounding
    )
    assert bool(found) == said
    assert asked == ["a"] * (differs > samples.CLOSE)


@pytest.mark.parametrize("missing", ["part", "parts"])
def test_a_frame_that_does_not_name_the_parts_differs(made, missing):
    frame, manifest = load_frame(made / "long.parquet")
    names = list(manifest["parts"])
    rows = {**manifest["parts"], names[0]: 0, names[1]: 8} if missing == "part" else {}
    save_frame(frame, made / "long.parquet", {"key": manifest["key"], "parts": rows}, overwrite=True)
    assert "part 1 of the sample (by inf)" in check(made)[0]


def test_another_version_a_torn_frame_and_none_are_told_apart(made, tmp_path_factory):
    other = dataclasses.replace(EXPERIMENT, version=2)
    (said,) = samples.check_long(other, made, quick=False)
    assert said == "it is of other settings or another version than the code's, 2; run `gradlab figures long`"
    (made / "long.parquet").write_bytes((made / "long.parquet").read_bytes()[:100])
    (said,) = check(made)
    assert said.endswith("restore it, or run `gradlab figures long`")
    assert check(tmp_path_factory.mktemp("empty")) == []


@pytest.mark.parametrize(
    ("again", "size"),
    [
        ({"x": [1.0, 2.0], "word": ["a", "b"]}, 0.0),
        ({"x": [1.0, 2.5], "word": ["a", "b"]}, 0.5 / 3),
        ({"x": [1.0, 2.0], "word": ["a", "c"]}, np.inf),
        ({"x": [1.0], "word": ["a"]}, np.inf),
        ({"x": [1.0, np.nan], "word": ["a", "b"]}, np.inf),
        ({"x": [1.0, np.inf], "word": ["a", "b"]}, np.inf),
        ({"x": [1.0, 2.0], "word": ["a", "b"], "y": [1, 2]}, np.inf),
        ({"x": [1.0, 2.0], "word": ["a", None]}, np.inf),
    ],
)
def test_the_difference_of_frames(again, size):
    committed = pd.DataFrame({"x": [1.0, 2.0], "word": ["a", "b"]})
    assert samples.difference(committed, pd.DataFrame(again)) == pytest.approx(size)


def test_what_a_part_lacks_is_empty_where_parts_are_joined():
    committed = pd.DataFrame({"x": [1.0], "y": [np.nan], "word": [None]})
    assert samples.difference(committed, pd.DataFrame({"x": [1]})) == 0.0
    assert samples.difference(committed.assign(y=2.0), pd.DataFrame({"x": [1]})) == np.inf


# --- the command ---


@pytest.mark.slow
def test_a_plain_run_does_not_run_it_and_says_what_does(alone, tmp_path, capsys):
    for quick in (False, True):
        folder = tmp_path / "quick" if quick else tmp_path
        assert make_figures(folder=tmp_path, quick=quick, workers=1) == []
        assert not (folder / PATH).exists()
        told = "long: needs a run of `gradlab figures long`; none has been committed"
        assert told in capsys.readouterr().out
        assert ", long.** Run `gradlab figures questions`." in (folder / "README.md").read_text()
        page = (folder / "CLAIMS.md").read_text()
        assert f"| [{CLAIM}](#{CLAIM}) | Nobody has measured it here | **not run** |" in page
        assert "The claim needs a run of `gradlab figures long`; none has been committed." in page


@pytest.mark.slow
@pytest.mark.parametrize("name", ["long", "questions"])
def test_its_name_and_questions_run_it_and_then_it_stands(alone, tmp_path, capsys, monkeypatch, name):
    drawn = {file.name for file in make_figures([name], folder=tmp_path, workers=1)}
    assert drawn == {"two-sides.png", "two-sides.pdf"}
    assert (tmp_path / f"answer-{CLAIM}.png").exists()
    before = (tmp_path / PATH).read_bytes()
    monkeypatch.setattr(frames, "sources_key", lambda _: "of other sources")
    monkeypatch.setattr(long_experiment, "run_part", None)
    capsys.readouterr()
    assert make_figures(folder=tmp_path, workers=1) == []
    out, err = capsys.readouterr()
    assert "long: as committed, up to date" in out
    assert err.replace("\r", "\n").count("gradlab: ") == 0
    assert (tmp_path / PATH).read_bytes() == before
    assert (tmp_path / "data/long.sample.json").exists()


@pytest.mark.slow
def test_a_plain_run_draws_it_again_where_a_figure_is_missing(alone, tmp_path):
    make_figures(["questions"], folder=tmp_path, workers=1)
    (tmp_path / "two-sides.png").unlink()
    assert [file.name for file in make_figures(folder=tmp_path, workers=1)] == ["two-sides.png", "two-sides.pdf"]


@pytest.mark.slow
def test_a_difference_is_said_loudly_by_a_plain_run(alone, tmp_path, capsys):
    make_figures(["long"], folder=tmp_path, workers=1)
    frame, manifest = load_frame(tmp_path / PATH)
    kept = {name: manifest[name] for name in ("key", "settings", "quick", "version", "parts")}
    save_frame(changed(frame), tmp_path / PATH, kept, overwrite=True)
    capsys.readouterr()
    make_figures(folder=tmp_path, workers=1)
    assert f"gradlab: {tmp_path / PATH}: THE SAMPLE DIFFERS" in capsys.readouterr().err


@pytest.mark.slow
def test_a_torn_frame_is_no_result_and_no_crash(alone, tmp_path, capsys):
    make_figures(["long"], folder=tmp_path, workers=1)
    (tmp_path / PATH).write_bytes(b"PAR1")
    make_figures(folder=tmp_path, workers=1)
    assert "restore it, or run `gradlab figures long`" in capsys.readouterr().err
    assert f"| [{CLAIM}](#{CLAIM}) | Damaged frames: long | **not judged** |" in (tmp_path / "CLAIMS.md").read_text()


def test_frames_alone_can_be_made(alone, tmp_path):
    make_frames(["questions"], folder=tmp_path, workers=1)
    assert sorted(file.name for file in tmp_path.rglob("*.*") if file.is_file()) == ["long.json", "long.parquet"]
    assert load_manifest(tmp_path / PATH)["version"] == 1


@pytest.mark.parametrize("name", ["data/long.parquet", "data/long.sample.json", "two-sides.png"])
def test_files_of_others_are_refused(alone, tmp_path, name):
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text(json.dumps({"sha256": "mine"}))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} was not written by `gradlab figures`: name another"):
        make_figures(folder=tmp_path)
    assert theirs.read_text() == json.dumps({"sha256": "mine"})


@pytest.mark.slow
def test_sweep_says_how_far_it_is_and_names_what_it_knows(alone, tmp_path, capsys):
    folder = ["--folder", str(tmp_path)]
    assert cli.main(["sweep", "long", "--status", *folder]) == 0
    assert capsys.readouterr().out == "long: 0 of 4 parts\n"
    (first, *_) = frames.as_parts(EXPERIMENT, False, tmp_path / "data/.parts", EXPERIMENT.parts(EXPERIMENT.settings))
    save_frame(long_experiment.run_part(0, 4), first.file, {"key": first.key})
    assert cli.main(["sweep", "questions", "--status", *folder]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "long: 1 of 4 parts"
    assert cli.main(["sweep", "long", "--workers", "1", *folder]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "long: finished"
    assert (tmp_path / "two-sides.png").exists()
    assert cli.main(["sweep", "grid", *folder]) == 2
    known = ", ".join(["questions", *long_experiments()])
    assert capsys.readouterr().err == f"gradlab: file must end in .toml, or be one of {known}, got 'grid'\n"


def test_an_unknown_name_names_those_that_exist(alone, tmp_path):
    for run in (make_figures, make_frames):
        with pytest.raises(
            ValueError, match=r"^experiment must be one of .*, long, atlas, questions.*mean 'questions'"
        ):
            run(["question"], folder=tmp_path)


@pytest.mark.slow
def test_questions_without_long_experiments_runs_nothing(alone, tmp_path, monkeypatch):
    monkeypatch.delitem(EXPERIMENTS, "long")
    monkeypatch.delitem(verdicts.EVERY, CLAIM)
    assert make_figures([make.QUESTIONS], folder=tmp_path) == []
