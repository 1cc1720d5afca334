"""Kill small trainings at every so many calls that change the disk, and go on: INPUTS FOLDER EVERY; prints JSON.

Each training is a fork of this process, so that a kill costs a second and not the import of the libraries.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from tiny_llm import tiny_settings

from gradlab.llm.train.stages import train
from gradlab.store.sealed import read_sealed

CALLS = ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir", "truncate", "ftruncate")
CHANGED = ("seconds", "resumed_at", "tokens")  # in done.json, where a training was resumed


def counted(kill_at):
    """Count the calls of ``CALLS``, and kill this process before call number ``kill_at``; return the list of calls."""
    seen = []

    def watched(name, call):
        def one(*arguments, **options):
            if len(seen) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen.append(name)
            return call(*arguments, **options)

        return one

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))
    return seen


def in_fork(settings, kill_at=-1):
    """Train in another process; return its status and, unless it was killed, its calls."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        try:
            seen = counted(kill_at)
            train(settings)
            os.write(writing, json.dumps(seen).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        words = said.read().decode()
    return os.waitpid(child, 0)[1], words


def state(out):
    """Return all files of a run, with their content as far as it does not depend on when they were written."""
    files = {}
    for file in sorted(file for file in out.rglob("*") if file.is_file()):
        content = file.read_bytes()
        if file.name in ("done.json", "data.json"):
            content = {name: value for name, value in read_sealed(file).items() if name not in CHANGED}
        files[file.relative_to(out).as_posix()] = content
    folders = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_dir())
    return files, folders


def main(inputs, folder, every):
    (folder / "reward.py").write_text("def share(prompts, responses):\n    return [t.count('a') for t in responses]\n")
    out = folder / "out"
    settings = tiny_settings(
        inputs, out, loss=("dpo", "ppo"), reward=f"{folder}/reward.py:share", samples=2, sample_length=4,
        sft_epochs=0.5, steps=3, save_every=1, keep=1, sides_every=0, validate_every=0,
    )  # fmt: skip
    shutil.rmtree(out, ignore_errors=True)
    train(settings)  # imports what the forks need
    shutil.rmtree(out)
    status, words = in_fork(settings)
    assert status == 0, words
    clean, calls = state(out), json.loads(words)
    lost = []
    struck = range(0, len(calls), every)
    for number in struck:
        shutil.rmtree(out)
        status, words = in_fork(settings, kill_at=number)
        if status != signal.SIGKILL:
            lost.append([number, calls[number], "was not killed", words])
            continue
        status, words = in_fork(settings)
        if status:
            lost.append([number, calls[number], "did not go on", words])
            continue
        now = state(out)
        changed = [name for name in {*clean[0], *now[0]} if clean[0].get(name) != now[0].get(name)]
        changed += sorted({*clean[1]} ^ {*now[1]})
        if changed:
            lost.append([number, calls[number], "differs", changed])
    print(json.dumps({"calls": len(calls), "tried": len(struck), "lost": lost}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
