"""Killed at any call that changes the disk, the next run gives equal bytes and leaves nothing behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLED = Path(__file__).parent / "killed.py"
WORKS = ("new sweep", "sweep --fresh", "fit --save --overwrite", "frame of figures", "ratings", "copied notebooks")


def tried(name, folder, step):
    ran = subprocess.run([sys.executable, str(KILLED), name, str(folder), str(step)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_some_kills_lose_nothing(name, tmp_path, faults):
    check(name, tried(name, tmp_path, 11), faults)


@pytest.mark.long
@pytest.mark.parametrize("name", WORKS)
def test_no_kill_loses_anything(name, tmp_path, faults):
    check(name, tried(name, tmp_path, 1), faults)


def check(name, found, faults):
    what = f"{name}, at any call that changes the disk: the next run gives equal bytes and leaves nothing behind"
    faults("kill", what, tried=found["killed"], lost=len(found["wrong"]))
    assert found["wrong"] == []
    assert found["killed"] > 0
