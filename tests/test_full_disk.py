"""Where the disk is full, every file is the old one or the new one, one line says so, and the next try succeeds."""

import itertools
import mmap
import shutil

import pandas as pd
import pytest
from full_disk import contents, filled, limit, small_disk, strike
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.doctor.training_log import append_step, keep_steps, start_log
from gradlab.experiments import EXPERIMENTS
from gradlab.experiments.gallery import write_page
from gradlab.lab.engine import machine
from gradlab.store import files, shipped
from gradlab.store.artifacts import merge_frames, save_frame
from gradlab.store.json_lines import append_line, read_lines
from gradlab.store.ratings import append_answer
from gradlab.sweeps.sweep import run_sweep


def frame(version):
    return pd.DataFrame({"number": range(300), "version": f"version {version}"})


def figure(version):
    drawn = Figure((2, 1))
    drawn.add_subplot().plot([0, version])
    return {"drawn": drawn}


def rate(folder, version):
    item = f"item {version}" * (20 if version == 1 else 2_000)  # more than the last page of a file takes
    append_answer(folder / "answers.jsonl", "anna", item, "A", "B", "left")


def log(folder, version):
    file = folder / "log.jsonl"
    if version == 1:
        start_log(file, {"note": ""})
        room = mmap.PAGESIZE - file.stat().st_size
        file.unlink()
        start_log(file, {"note": "x" * (room - 80)})  # the first row fits into the page, the second one does not
    keep_steps(file, version)
    append_step(file, version, loss=0.5, margin=1 / 3)


def begin(folder, version):
    (folder / "log.jsonl").unlink(missing_ok=True)
    start_log(folder / "log.jsonl", {"version": version})


def folder_of_files(folder, version):
    files.write_folder(folder / "model", lambda place: [(place / k).write_text(f"{version} {k}" * 1500) for k in "ab"])


def merge(folder, version):
    parts = [save_frame(frame(version + k), folder / f"{k}.parquet", {"key": str(k)}, overwrite=True) for k in (0, 1)]
    merge_frames(parts, folder / "all.parquet", {"version": version})


def sweep(folder, version):
    settings = pd.DataFrame({"prompts": 2, "responses": 3, "steps": version, "seed": [0, 1]})
    run_sweep(settings, folder / f"sweep {version}", workers=1, progress=False)


def notebooks(folder, version):
    if version == 1:  # while there is room
        for number, name in itertools.product((1, 2), ("a.ipynb", "b.ipynb", "images/a.png")):
            file = folder.parent / f"source {number}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{number} {name}" * 300)
    source = folder.parent / f"source {version}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "shipped", lambda _: source)
        assert shipped.copy_notebooks(folder / "copy") == []


WRITERS = {
    "an answer of a rater": rate,
    "a row of a training log": log,
    "a frame and its manifest": lambda folder, n: save_frame(frame(n), folder / "a.parquet", {"n": n}, overwrite=True),
    "frames merged": merge,
    "a figure as PNG and PDF": lambda folder, n: plotting.draw(lambda: figure(n), folder),
    "the page of figures": lambda folder, n: write_page([], list(EXPERIMENTS.values())[n:], [], folder, quick=False),
    "a folder": folder_of_files,
    "notebooks copied": notebooks,
    "a sweep": sweep,
}
SLOW = ("a figure as PNG and PDF", "a sweep", "frames merged")
EACH = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in WRITERS]


@pytest.mark.parametrize("name", EACH)
def test_where_files_cannot_grow_each_is_old_or_new(name, tmp_path, faults):
    tried = 0
    for size in sizes(WRITERS[name], tmp_path / "measured"):
        folder = tmp_path / str(size) / "place"
        folder.mkdir(parents=True)
        WRITERS[name](folder, 1)
        tried += strike(lambda folder=folder: WRITERS[name](folder, 2), folder, limit(size))
    faults("full disk", f"{name}, files limited in size: old or new, one line", tried=tried)
    assert tried


def sizes(write, folder):
    """Limits at which writing the second version fails early, late, and by one byte."""
    folder.mkdir()
    for version in (1, 2):
        write(folder, version)
    there = [len(content) for content in contents(folder).values()]
    ends = {size - off for size in there for off in (1, size // 2)}
    return sorted({0, 1, 100, *sorted(ends)[:: max(1, len(ends) // 8)]})


@pytest.mark.parametrize("name", EACH)
def test_on_a_full_disk_each_file_is_old_or_new(name, tmp_path, faults):
    tried = 0
    with small_disk(tmp_path / "disk", 64) as disk:
        for free in (0, 1, 2, 4):
            folder = disk / "place"
            folder.mkdir()
            WRITERS[name](folder, 1)
            tried += strike(lambda folder=folder: WRITERS[name](folder, 2), folder, filled(disk, free))
            shutil.rmtree(folder)
    faults("full disk", f"{name}, a small file system: old or new, one line", tried=tried)
    assert tried


def test_a_torn_end_that_cannot_be_mended_stays_as_it_was(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}')  # whole but for its line break
    with limit(8), pytest.raises(OSError, match=r"a\.jsonl"):
        append_line(path, {"a": 2})
    assert path.read_bytes() == b'{"a": 1}'


def test_answers_that_were_called_saved_are_there(tmp_path):
    path, saved = tmp_path / "a.jsonl", 0
    with limit(1000):
        for n in range(50):
            try:
                append_answer(path, "anna", f"item {n}", "A", "B", "left")
            except OSError:
                continue
            saved += 1
    lines, torn = read_lines(path, "answers")
    assert 0 < len(lines) == saved < 50
    assert not torn


def test_a_kernel_that_cannot_be_kept_costs_only_that(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_SAID", set())
    with limit(100), pytest.warns(UserWarning, match="compiled kernels are not kept .* File too large"):
        machine.save("an assembly", b"code" * 100)
    assert contents(tmp_path) == {}
    assert machine.load("an assembly") is None
