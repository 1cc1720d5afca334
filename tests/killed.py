"""Run a piece of work, killed at its n-th call that changes the disk, then again; for tests/test_kills.py.

``python killed.py WORK FOLDER STEP`` prints, as JSON, how often the work was killed, and what was then wrong.
Everything is imported once; each run is a fork.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import warnings
from pathlib import Path

import pandas as pd
import torch

from gradlab.cli import main
from gradlab.experiments import EXPERIMENTS, frames
from gradlab.store import files, shipped
from gradlab.store.json_lines import read_lines
from gradlab.store.ratings import append_answer
from gradlab.sweeps import sweep
from gradlab.sweeps.sweep import run_sweep, sweep_status

CALLS = ("mkdir", "open", "write", "fsync", "chmod", "replace", "rename", "unlink", "rmdir", "truncate", "ftruncate")
SETTINGS = pd.DataFrame({"prompts": 2, "responses": 3, "steps": 2, "seed": range(4)})


def new_sweep(folder, again):
    if again:
        with contextlib.suppress(ValueError):  # there may be no sweep yet; else it must be known
            str(sweep_status(folder / "sweep"))
    run_sweep(SETTINGS, folder / "sweep", workers=1, progress=False)


def fresh_sweep(folder, again):
    run_sweep(SETTINGS, folder / "sweep", workers=1, fresh=True, progress=False)


def before_fresh_sweep(folder):
    run_sweep(SETTINGS.assign(steps=3), folder / "sweep", workers=1, progress=False)
    (folder / "sweep/blocks").mkdir()
    (folder / "sweep/blocks/thesis.tex").write_text("chapter one")
    (folder / "sweep/blocks/999999.json").write_text('{"sha256": "mine"}')


def saved_fit(folder, again, beta="2"):
    options = ["--seeds", "1", "--steps", "2", "--prompts", "2", "--responses", "3", "--beta", beta, "--overwrite"]
    assert main(["fit", *options, "--save", str(folder / "fit.parquet")]) == 0


def before_saved_fit(folder):
    saved_fit(folder, False, beta="1")


def frame_of_figures(folder, again):
    original = EXPERIMENTS["log-ratio"]
    few = dataclasses.replace(original, parts=lambda settings: original.parts(settings)[:2])
    frames.frame_key = lambda *_: "key"
    frames.bring_up_to_date([few], folder / "data", quick=True, fresh=not again, workers=1)


def ratings(folder, again):
    file = folder / "answers.jsonl"
    there = {row["item"] for _, row in read_lines(file, "answers")[0]} if file.exists() else set()
    for item in ("a", "b", "c"):
        if item not in there:
            append_answer(file, "anna", item, "A", "B", "left")


def notebooks(folder, again, version=2):
    source = folder.parent / f"source-{version}"
    source.mkdir(exist_ok=True)
    for name in ("a.ipynb", "b.ipynb"):
        if not (source / name).exists():
            (source / name).write_text(f"{version} {name}")
    shipped.shipped = lambda _: source
    assert shipped.copy_notebooks(folder / "copy") == []


def before_notebooks(folder):
    notebooks(folder, False, version=1)
    (folder / "copy/thesis.ipynb").write_text("chapter one")


WORKS = {
    "new sweep": (new_sweep, None),
    "sweep --fresh": (fresh_sweep, before_fresh_sweep),
    "fit --save --overwrite": (saved_fit, before_saved_fit),
    "frame of figures": (frame_of_figures, None),
    "ratings": (ratings, None),
    "copied notebooks": (notebooks, before_notebooks),
}


def contents(folder):
    """Everything below a folder, but for empty locks and the names under which damaged files are kept."""
    found = {path.relative_to(folder).as_posix(): path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    return {name: content for name, content in found.items() if not name.endswith(".lock")}


def forked(work):
    """Do the work in a fork; return the signal or status that it ended with."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        files._looked.clear()  # as a process of its own
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(call):
    """Have this process killed at its ``call``-th call of a function of ``os`` that changes the disk."""
    left = [call]

    def counted(function):
        def before(*given, **more):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **more)

        return before

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def prepared(folder, before):
    folder.mkdir()
    (folder / "thesis.tex").write_text("chapter one")
    (folder / ".thesis.gradlab-12345678").mkdir()
    if before:
        before(folder)
    return folder


def try_all(name, place, step):
    """Kill the work at every ``step``-th call, and let it run again; compare with a run that was not killed."""
    work, before = WORKS[name]
    whole = prepared(place / "whole", before)
    foreign = {path: content for path, content in contents(whole).items() if "thesis" in path or "mine" in str(content)}
    work(whole, False)
    expected, killed, wrong = contents(whole), 0, []
    for call in range(1, 10_000, step):
        folder = prepared(place / str(call), before)

        def killed_run(folder=folder, call=call):
            kill_at(call)
            work(folder, False)

        ended = forked(killed_run)
        if ended == 0:
            return {"killed": killed, "wrong": wrong}
        killed += 1
        if ended != -signal.SIGKILL:
            wrong.append(f"call {call}: ended with {ended}")
        if forked(lambda folder=folder: work(folder, True)) != 0:
            wrong.append(f"call {call}: the next run failed")
            continue
        there = contents(folder)
        paths = sorted(there.keys() | expected.keys())
        wrong += [f"call {call}: {path} differs" for path in paths if there.get(path) != expected.get(path)]
        wrong += [f"call {call}: {path} was somebody else's" for path in foreign if there.get(path) != foreign[path]]
    raise AssertionError("the work did not end")


if __name__ == "__main__":
    torch.set_num_threads(1)
    sweep._width = lambda group: 2
    warnings.simplefilter("ignore")
    print("\n" + json.dumps(try_all(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
