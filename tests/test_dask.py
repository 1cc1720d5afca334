"""A dask cluster, here one on this machine, can do the work of a sweep, and gives the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from long_experiment import EXPERIMENT

from gradlab.experiments import frames
from gradlab.sweeps.settings_frame import read_settings
from gradlab.sweeps.sweep import run_sweep

pytest.importorskip("distributed")

pytestmark = pytest.mark.slow

SMALL = """
seeds = 3
prompts = 3
responses = 6
steps = 20
loss = ["dpo", "bdpo", "nbdpo"]
beta = [0.5, 2.0]
"""


def on_dask(*arguments):
    command = [sys.executable, str(Path(__file__).parent / "on_dask.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_its_workers_do_the_work(tmp_path):
    done = on_dask(2, "pids", tmp_path)
    assert done.returncode == 0, done.stderr
    own, *theirs = done.stdout.split()
    assert len(theirs) == 4
    assert own not in theirs


def test_it_gives_the_same_bits(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    run_sweep(read_settings(file), tmp_path / "here", workers=1, progress=False)
    done = on_dask(2, "sweep", file)
    assert done.returncode == 0, done.stderr
    assert "18 of 18 runs" in done.stdout
    assert (tmp_path / "here/runs.parquet").read_bytes() == (tmp_path / "small/runs.parquet").read_bytes()


def test_a_long_experiment_gives_the_same_bits_and_is_drawn_here(tmp_path):
    frames.bring_up_to_date([EXPERIMENT], tmp_path / "here", quick=False, fresh=False, workers=1)
    done = on_dask(2, "sweep", "long", "--folder", tmp_path / "there")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "long: finished"
    assert (tmp_path / "here/long.parquet").read_bytes() == (tmp_path / "there/data/long.parquet").read_bytes()
    assert (tmp_path / "there/two-sides.png").exists()


@pytest.mark.parametrize(
    "address", ["tls://127.0.0.1:1", "nonsense://127.0.0.1:1", "tcp://127.0.0.1:port", "tcp://127.0.0.1:1"]
)
def test_an_address_that_cannot_be_reached_is_one_line_at_once(tmp_path, address):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    command = [sys.executable, "-m", "gradlab.cli", "sweep", str(file), "--scheduler", address]
    limit = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False, env=limit)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "small").exists()


def test_one_worker_thread_is_not_enough(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    done = on_dask(1, "sweep", file)
    assert done.returncode == 2
    assert "scheduler must have two worker threads or more" in done.stderr
