"""Long work in parts loses nothing: resumed, torn, foreign, killed, in any number of processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from gradlab.store.artifacts import load_frame, merge_frames
from gradlab.store.pool import DEATHS, Part, run_parts


def square(number, log):
    """A part's frame; every call is noted in a file of its own."""
    Path(log, f"{number}-{len(list(Path(log).glob(f'{number}-*')))}").touch()
    return pd.DataFrame({"number": [number], "square": [number**2]})


def dies_once(number, log):
    first = not list(Path(log).glob("*-*"))
    frame = square(number, log)
    if first:
        os.kill(os.getpid(), signal.SIGKILL)
    return frame


def always_dies(number, log):
    os.kill(os.getpid(), signal.SIGKILL)


def breaks_at_two(number, log):
    if number == 2:
        raise KeyboardInterrupt
    return square(number, log)


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def parts(tmp_path, log):
    return parts_of(tmp_path, log, "key")


def parts_of(folder, log, key):
    return [Part({"number": n, "log": log}, folder / f"{n}.parquet", f"{key} {n}") for n in range(5)]


def found(parts):
    return [load_frame(part.file)[0]["square"].item() for part in parts]


def calls(log):
    return sorted(int(file.name.split("-")[0]) for file in log.iterdir())


@pytest.mark.parametrize("workers", [1, 3])
def test_every_part_is_run_once(parts, log, workers):
    run_parts(square, parts, label="squares", workers=workers, progress=False)
    assert found(parts) == [0, 1, 4, 9, 16]
    run_parts(square, parts, label="squares", workers=workers, progress=False)
    assert calls(log) == [0, 1, 2, 3, 4]


def test_a_caller_hears_of_each_frame_once_it_is_saved(parts, log):
    run_parts(square, parts[:1], label="squares", workers=1, progress=False)
    heard = []

    def saved(part):
        heard.append((part.arguments["number"], part.is_done()))

    with pytest.raises(KeyboardInterrupt):
        run_parts(breaks_at_two, parts, label="squares", workers=1, progress=False, saved=saved)
    assert heard == [(1, True)]
    run_parts(square, parts, label="squares", workers=1, progress=False, saved=saved)
    assert heard == [(number, True) for number in (1, 2, 3, 4)]


def test_an_interrupted_run_goes_on_where_it_was(parts, log):
    with pytest.raises(KeyboardInterrupt):
        run_parts(breaks_at_two, parts, label="squares", workers=1, progress=False)
    run_parts(square, parts, label="squares", workers=1, progress=False)
    assert found(parts) == [0, 1, 4, 9, 16]
    assert calls(log) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_torn_part_is_run_again(parts, log, content):
    run_parts(square, parts, label="squares", workers=1, progress=False)
    if content is None:
        parts[3].file.with_suffix(".json").unlink()
    else:
        parts[3].file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"3\.parquet is no result that gradlab wrote, or is damaged: kept as"):
        run_parts(square, parts, label="squares", workers=1, progress=False)
    assert found(parts) == [0, 1, 4, 9, 16]
    assert calls(log) == [0, 1, 2, 3, 3, 4]


def test_a_part_with_another_key_is_run_again(parts, tmp_path, log):
    run_parts(square, parts, label="squares", workers=1, progress=False)
    run_parts(square, parts_of(tmp_path, log, "other"), label="squares", workers=1, progress=False)
    assert calls(log) == sorted([0, 1, 2, 3, 4] * 2)


@pytest.mark.slow
def test_a_killed_worker_costs_only_what_it_was_doing(parts, log):
    with pytest.warns(UserWarning, match="squares: a worker was killed; going on with what is left"):
        run_parts(dies_once, parts, label="squares", workers=2, progress=False)
    assert found(parts) == [0, 1, 4, 9, 16]


@pytest.mark.slow
def test_workers_that_are_always_killed_are_given_up_in_one_line(parts):
    story = f"squares: workers were killed {DEATHS} times, .* finished parts are kept, .* fewer than 2 workers"
    with pytest.warns(UserWarning, match="a worker was killed"), pytest.raises(OSError, match=story) as error:
        run_parts(always_dies, parts, label="squares", workers=2, progress=False)
    assert "\n" not in str(error.value)


def test_a_full_disk_loses_nothing_that_was_there(parts, log, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run_parts(square, parts[:2], label="squares", workers=1, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            run_parts(square, parts, label="squares", workers=1, progress=False)
    assert [part.is_done() for part in parts] == [True, True, False, False, False]
    assert not [file for file in parts[0].file.parent.iterdir() if file.name.startswith(".")]
    run_parts(square, parts, label="squares", workers=1, progress=False)
    assert found(parts) == [0, 1, 4, 9, 16]


def test_the_bar_counts_what_was_done_before(parts, capsys):
    run_parts(square, parts[:3], label="squares", workers=1, progress=False)
    run_parts(square, parts, label="squares", unit="number", workers=1)
    bar = capsys.readouterr().err
    assert "squares" in bar
    assert "3/5" in bar
    assert "5/5" in bar


def test_workers_must_be_a_whole_number(parts):
    with pytest.raises(ValueError, match="workers must be a whole number ≥ 1, got 0"):
        run_parts(square, parts, label="squares", workers=0)


def test_merged_frames_are_the_parts_in_order(parts, tmp_path):
    run_parts(square, parts, label="squares", workers=1, progress=False)
    path = merge_frames([part.file for part in parts], tmp_path / "all.parquet", {"key": "k"})
    frame, manifest = load_frame(path)
    assert frame["square"].tolist() == [0, 1, 4, 9, 16]
    assert manifest["key"] == "k"


@pytest.mark.slow
def test_processes_run_nothing_of_the_current_folder_but_find_what_their_parent_finds(tmp_path):
    for name in ("joblib", "runpy", "pickle", "argparse"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write(__name__)\n")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/work.py").write_text(
        "import os, pandas as pd\ndef here(number): return pd.DataFrame({'process': [os.getpid()]})\n"
    )
    code = (
        "import os, sys; sys.path.insert(0, 'modules'); from pathlib import Path; import pandas as pd; import work\n"
        "from gradlab.store.pool import Part, run_parts\n"
        "parts = [Part({'number': n}, Path(f'{n}.parquet'), 'key') for n in range(4)]\n"
        "run_parts(work.here, parts, label='work', workers=2, progress=False)\n"
        "seen = {pd.read_parquet(part.file)['process'][0] for part in parts}\n"
        "print(os.getpid() not in seen, os.environ.get('PYTHONSAFEPATH'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "True None\n", done.stderr
    assert not (tmp_path / "RAN").exists(), (tmp_path / "RAN").read_text()


PARENT = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from gradlab.store.pool import Part, run_parts
from test_pool import first_then_slow
folder = Path(sys.argv[1])
parts = [Part({{"number": n, "log": folder}}, folder / f"{{n}}.parquet", f"k {{n}}") for n in range(3)]
run_parts(first_then_slow, parts, label="squares", workers=3, progress=False)
"""


def first_then_slow(number, log):
    """A part that is at once done, so that its worker is idle, or one that takes long."""
    (log / f"worker-{os.getpid()}").touch()
    if number:
        time.sleep(300)
    return pd.DataFrame({"number": [number]})


@pytest.mark.slow
def test_workers_end_soon_after_a_parent_that_was_killed(tmp_path, faults):
    psutil = pytest.importorskip("psutil")
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(tests=str(Path(__file__).parent)), str(tmp_path)])
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("worker-*"))) < 2 or not (tmp_path / "0.parquet").exists():
        assert parent.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 3
    parent.kill()
    parent.wait()
    alive = psutil.wait_procs(children, timeout=10)[1]
    faults("kill", "the parent of workers, busy and idle: all end within seconds", tried=1, lost=len(alive))
    assert alive == []
