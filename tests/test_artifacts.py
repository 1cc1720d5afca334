"""Files are whole or absent, and refuse what is not theirs."""

import json
import os

import pandas as pd
import pytest

from gradlab.store import artifacts

FRAME = pd.DataFrame({"seed": [0, 1], "utility": [0.1, 1 / 3]})


def test_a_frame_comes_back_bit_for_bit_with_its_manifest(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {"settings": {"beta": 1.0}})
    frame, manifest = artifacts.load_frame(path)
    pd.testing.assert_frame_equal(frame, FRAME, check_exact=True)
    assert manifest["settings"] == {"beta": 1.0}
    assert manifest["versions"]["torch"].startswith("2.")


def test_equal_frames_give_equal_bytes(tmp_path):
    first = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    second = artifacts.save_frame(FRAME.copy(), tmp_path / "b.parquet", {})
    assert first.read_bytes() == second.read_bytes()


def test_other_data_are_not_overwritten_unless_asked(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    artifacts.save_frame(FRAME, path, {})  # the same data again is no conflict
    with pytest.raises(FileExistsError, match=r"a\.parquet holds another result; name another file"):
        artifacts.save_frame(FRAME * 2, path, {})
    artifacts.save_frame(FRAME * 2, path, {}, overwrite=True)
    assert artifacts.load_frame(path)[0]["utility"][0] == 0.2


LOCK = json.dumps({"lock": {"pkg": {"sha256": "abc"}}, "format": 1})
FOREIGN = {
    "a file of somebody else's": lambda path: path.with_suffix(".json").write_text('{"mine": 1}'),
    "a file that speaks of sha256": lambda path: path.with_suffix(".json").write_text(LOCK),
    "a folder": lambda path: path.with_suffix(".json").mkdir(),
    "a frame without a manifest": lambda path: FRAME.to_parquet(path),
    "another's frame beside our manifest": lambda path: (
        artifacts.save_frame(FRAME, path, {}), (FRAME * 2).to_parquet(path),
    ),
    "a link to a frame of ours": lambda path: (
        artifacts.save_frame(FRAME, path, {}), path.rename(path.with_name("x")), path.symlink_to(path.with_name("x")),
    ),
    "a link to a manifest of ours": lambda path: (
        artifacts.save_frame(FRAME, path, {}), path.with_suffix(".json").rename(path.with_name("x")),
        path.with_suffix(".json").symlink_to(path.with_name("x")),
    ),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
}  # fmt: skip


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_no_manifest_proves_ours_is_never_written_over(tmp_path, kind, overwrite):
    path = tmp_path / "run.parquet"
    FOREIGN[kind](path)
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()}
    assert not artifacts.is_ours(path)
    with pytest.raises(FileExistsError, match=r"run\.\w+ is there and is no result that gradlab wrote, or is damaged"):
        artifacts.save_frame(FRAME, path, {}, overwrite=overwrite)
    artifacts.remove_frames(tmp_path)
    assert {file: file.is_file() and file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.warns(UserWarning, match=r"is no result that gradlab wrote, or is damaged: kept as run\..*\.kept-1"):
        artifacts.make_way(path)
    artifacts.save_frame(FRAME, path, {}, overwrite=True)
    after = [file.read_bytes() for file in tmp_path.iterdir() if file.is_file()]
    assert all(content in after for content in before.values() if content)


def test_a_manifest_whose_frame_was_still_to_come_is_ours(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    assert artifacts.is_ours(path)
    path.unlink()
    assert artifacts.is_ours(path)
    artifacts.save_frame(FRAME * 2, path, {})
    artifacts.remove_frames(tmp_path)
    assert not tmp_path.exists()


def test_a_fault_in_the_manifest_leaves_frame_and_manifest_as_they_were(tmp_path, monkeypatch):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    calls = []

    def full_at_the_second(_):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        artifacts.save_frame(FRAME * 2, path, {}, overwrite=True)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_goes_between_markers_stays_between_them():
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    assert artifacts.between_markers(page, "x", "new\n") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    with pytest.raises(ValueError, match="the page needs the lines <!-- y -->"):
        artifacts.between_markers(page, "y", "new")


def test_a_result_of_another_format_is_refused_in_one_line(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    manifest = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**manifest, "format": 0}))
    with pytest.raises(ValueError, match=r"a\.json has format 0; this version of gradlab reads format 1") as error:
        artifacts.load_frame(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_manifest_is_refused(tmp_path, content):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    path.with_suffix(".json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json"):
        artifacts.load_frame(path)


def test_a_torn_frame_is_noticed(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not the data that its manifest describes"):
        artifacts.load_frame(path)


def test_only_parquet_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"path must end in \.parquet, got .*a\.csv"):
        artifacts.save_frame(FRAME, tmp_path / "a.csv", {})


def test_a_frame_holds_the_key_that_it_was_saved_under(tmp_path):
    path = artifacts.save_frame(FRAME, tmp_path / "a.parquet", {"key": "k"})
    assert artifacts.holds(path, "k")
    assert not artifacts.holds(path, "other")
    path.write_bytes(b"torn")
    assert not artifacts.holds(path, "k")
    assert not artifacts.holds(tmp_path / "none.parquet", "k")
